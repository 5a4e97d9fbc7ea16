"""One test per rule of a call under way and of a change of shards, named after its reason, with the neighbours in which it must not win."""

# ruff: noqa: N802  (a test carries the word of its row as it is spelt, so that one grep finds everything)

from __future__ import annotations

import pytest

from whatsapp_operator.core import manifests
from whatsapp_operator.core.actions import AssignRole, Create, Delete, GetShards, Scale, SetShards
from whatsapp_operator.core.names import Ref
from whatsapp_operator.core.snapshot import Answer, Call, Report

from .plans import of, only
from .situations import NOW, Situation, epoch_of, seconds, situation
from .witnesses import WITNESSES, growing

# --- a call under way


def test_LoggingIn_asks_when_a_Webapp_is_ready() -> None:
    one = WITNESSES["LoggingIn"]

    assert of(one.later(1).plan(), GetShards) == [GetShards()]
    assert of(one.client(asking=True).plan(), GetShards) == []
    assert one.snapshot.webapp is not None
    assert of(one.seeing(webapp=None).plan(), GetShards) == []


def test_AnswerUnknown_only_asks() -> None:
    plan = WITNESSES["AnswerUnknown"].later(1).client(asked_at=NOW).plan()

    assert plan.actions == (GetShards(),)
    assert plan.record.operation is not None


def test_AnswerUnknown_is_what_a_call_of_a_leader_that_is_gone_comes_to() -> None:
    plan = growing().noted(4).plan()

    assert plan.decision.rule == "AnswerUnknown"
    assert plan.record.operation is not None
    assert plan.record.operation.answer is Answer.UNKNOWN


def test_AnswerUnknown_ends_when_GET_reports_the_number() -> None:
    plan = growing().noted(4, Answer.UNKNOWN).reporting(4).plan()

    assert plan.record.operation is not None
    assert plan.record.operation.answer is Answer.ACCEPTED


def test_AnswerUnknown_is_not_ended_by_a_GET_from_before_the_call() -> None:
    one = growing().noted(4, Answer.UNKNOWN).client(shards=4, asked_at=NOW - seconds(5))
    operation = one.plan().record.operation

    assert operation is not None
    assert operation.answer is Answer.UNKNOWN


def test_AnswerUnknown_ends_when_GET_still_differs_after_settle_by() -> None:
    one = growing().noted(4, Answer.UNKNOWN)

    assert one.later(838).row() == "AnswerUnknown"
    assert one.later(841).row() == "SettingShards"
    assert one.later(841).client(asked_at=NOW).row() == "AnswerUnknown"


def test_AnswerUnknown_keeps_the_pods_of_a_growth_that_was_reverted() -> None:
    one = growing().noted(4, Answer.UNKNOWN).wanting(shards=2)

    assert one.row() == "AnswerUnknown"
    assert of(one.plan(), Scale) == []


def test_ServerBusy_tries_again_after_a_pause_that_doubles() -> None:
    one = growing().noted(4, Answer.BUSY, attempts=3)

    assert one.row() == "ServerBusy"
    # 8 s, give or take a fifth
    assert one.later(6.3).row() == "ServerBusy"
    operation = only(one.later(9.7).plan(), SetShards).operation
    assert (operation.attempts, operation.answer) == (4, Answer.NONE)


def test_ServerBusy_never_pauses_longer_than_a_minute() -> None:
    assert growing().noted(4, Answer.BUSY, attempts=500).later(72).row() == "SettingShards"


def test_ServerBusy_forgets_a_call_that_nobody_wants_any_more() -> None:
    assert growing().noted(4, Answer.BUSY).wanting(shards=2).plan().record.operation is None


def test_ServerBusy_ends_when_GET_reports_the_number_all_the_same() -> None:
    """A late success after a 403, or another party: the intent must not stay forever (and with it the budget 0, no shrink, no rest)."""
    one = situation().settled(shards=4).noted(4, Answer.BUSY, origin=2).later(120)

    assert one.plan().record.operation is None


def test_ServerBusy_still_makes_a_deleted_shard_Service_again() -> None:
    """A 403 is a definite no: nothing is under way, and 403s may go on for hours."""
    one = growing().without_route(1).noted(4, Answer.BUSY)

    assert [action.obj["metadata"]["name"] for action in of(one.plan(), Create)] == ["acme-shard-1"]


def test_SettingShards_first_makes_the_Services_of_new_shards() -> None:
    """A quota or admission may reject them: before the call that interrupts nothing, after it these shards would have no service."""
    one = growing().without_route(2).without_route(3)

    assert [action.obj["metadata"]["name"] for action in of(one.plan(), Create)] == ["acme-shard-2", "acme-shard-3"]
    assert all(action.obj["spec"]["selector"][manifests.EPOCH_LABEL] == "none" for action in of(one.plan(), Create))
    assert of(one.plan(), SetShards) == []
    assert of(growing().without_route(3).plan(), SetShards) == []
    assert len(of(growing().plan(), SetShards)) == 1


def test_SettingShards_makes_no_Service_that_is_there_without_its_label() -> None:
    ref = Ref("Service", "acme-shard-3")
    service = manifests.shard_service(growing().desired, 3)
    live = {**service, "metadata": {**service["metadata"], "uid": "service-3", "resourceVersion": "7"}}
    plan = growing().without_route(3).seeing(objects={**growing().snapshot.objects, ref: live}).plan()

    assert (of(plan, Create), len(of(plan, SetShards))) == ([], 1)


def test_SettingShards_makes_no_Service_before_all_else_is_ready() -> None:
    one = growing().without_route(3)

    assert of(one.with_pod(4, ready=False).with_pod(3, ready=False).plan(), Create) == []
    assert of(one.client(asked_at=NOW - seconds(60)).plan(), Create) == []


@pytest.mark.parametrize(("shards", "deleted"), [(4, []), (2, ["acme-shard-2", "acme-shard-3"])])
def test_the_Services_of_shards_to_come_are_surplus_once_these_are_not_wanted(shards: int, deleted: list[str]) -> None:
    one = growing().wanting(shards=shards)

    assert [action.ref.name for action in of(one.plan(), Delete) if action.ref.kind == "Service"] == deleted


def test_a_Service_of_a_shard_that_is_no_more_is_surplus_although_it_is_wanted_again() -> None:
    """It has a holder: that Coreapp could not take a shard over."""
    one = situation().settled().reporting(1).restarted(1).all_pods(labels={manifests.ROLE_LABEL: "standby"})

    assert [action.ref.name for action in of(one.plan(), Delete)] == ["acme-shard-1"]


@pytest.mark.parametrize("answer", [Answer.BUSY, Answer.UNKNOWN])
def test_a_holder_that_forgot_its_role_is_assigned_again_no_matter_what_becomes_of_the_call(answer: Answer) -> None:
    """Telling is by level. An unknown call lasts up to 14 minutes, busy ones for hours."""
    one = growing().noted(4, answer).with_holder(0, report=Report(shards=2))

    assert [(tell.shard, tell.epoch) for tell in of(one.plan(), AssignRole)] == [(0, epoch_of(0))]


def test_Verifying_asks_until_GET_reports_the_number() -> None:
    one = WITNESSES["Verifying"]

    assert one.row() == "Verifying"
    assert of(one.plan(), SetShards) == []


def test_Verifying_does_not_last_for_ever() -> None:
    """201, but GET differs for good (a person changed it back, the simulator lost its emptyDir): law 4 settles it at settle_by."""
    assert growing().noted(4, Answer.ACCEPTED).later(3600).row() != "Verifying"


# --- a change of shards


def test_Paused_holds_every_planned_change() -> None:
    for one in (WITNESSES["ScalingUp"], growing(), situation().settled().with_pods([3])):
        held = one.wanting(paused=True)
        assert held.row() == "Paused"
        assert held.plan().actions == ()


def test_Paused_is_not_said_when_nothing_is_held() -> None:
    assert situation().settled().wanting(paused=True).row() == "UpToDate"


def test_ScalingDown_lowers_the_replicas_when_everything_is_in_place() -> None:
    assert only(WITNESSES["ScalingDown"].plan(), Scale).replicas == 3


def test_ScalingDown_does_not_wait_for_one_that_goes_and_is_silent() -> None:
    assert only(WITNESSES["ScalingDown"].with_pod(3, report=None, ready=False).plan(), Scale).replicas == 3


@pytest.mark.parametrize(
    "one",
    [
        WITNESSES["ScalingDown"].client(asked_at=NOW - seconds(5.1)),
        WITNESSES["ScalingDown"].with_pod(1, report=Report(shard=1, epoch=epoch_of(1), shards=4)),
        WITNESSES["ScalingDown"].with_pod(2, report=None),
        WITNESSES["ScalingDown"].with_route(1, holder=None, holder_uid=None),
        WITNESSES["ScalingDown"].reporting(4),
        WITNESSES["ScalingDown"].reporting(None),
        WITNESSES["ScalingDown"].noted(4),
        WITNESSES["ScalingDown"].noted(4, Answer.UNKNOWN),
        WITNESSES["ScalingDown"].held_by(0, 4),
    ],
    ids=["stale", "not back", "silent", "unassigned", "more shards", "unknown", "called", "answer unknown", "high holder"],
)
def test_ScalingDown_waits(one: Situation) -> None:
    assert [scale for scale in of(one.plan(), Scale) if scale.replicas < 5] == []


def test_ScalingDown_waits_while_a_call_is_in_flight_whose_note_was_wiped() -> None:
    """A person edited status: the running call can still bring the shards back."""
    assert of(WITNESSES["ScalingDown"].client(call=Call(id="4-x")).plan(), Scale) == []


def test_ShardsDrifted_waits_for_a_person() -> None:
    plan = WITNESSES["ShardsDrifted"].plan()

    assert plan.stuck == plan.decision
    assert of(plan, SetShards) == []


def test_ShardsDrifted_is_no_request_of_the_user() -> None:
    assert situation().settled().wanting(shards=1).row() != "ShardsDrifted"
    assert situation().settled().reporting(1).wanting(shards=1).row() == "ScalingDown"
