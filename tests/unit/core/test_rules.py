"""One test per row, named after its word, with the neighbours in which it must not win."""

# ruff: noqa: N802  (a test carries the word of its row as it is spelt, so that one grep finds everything)

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar

import pytest

from whatsapp_operator.core import manifests, objections
from whatsapp_operator.core.actions import (
    Annotate,
    AssignRole,
    BumpVersion,
    ClearLabels,
    Create,
    Delete,
    EmitEvent,
    GenerateSecret,
    GetShards,
    Handover,
    Plan,
    Relabel,
    Replace,
    Scale,
    SetShards,
    State,
    Touch,
)
from whatsapp_operator.core.certificate import CertificateFacts
from whatsapp_operator.core.desired import Switchover
from whatsapp_operator.core.names import Epoch, Ref
from whatsapp_operator.core.snapshot import AccountSecret, Answer, Call, Evidence, Login, Rejection, Report, Workload

from .situations import FINGERPRINT, NONCE, NOW, Situation, epoch_of, labels_for, pod, seconds, situation
from .witnesses import WITNESSES, back, growing, restarting

A = TypeVar("A")


def of(plan: Plan, kind: type[A]) -> list[A]:
    """The actions of one kind, in order."""
    return [action for action in plan.actions if isinstance(action, kind)]


def only(plan: Plan, kind: type[A]) -> A:
    (action,) = of(plan, kind)
    return action


# --- guards


def test_Deleting_makes_nothing_whatever_else_holds() -> None:
    one = (
        situation().settled().wanting(deleting=True, shards=8, finalizers=("example.com/backup",)).without_object("Service", "acme-webapp")
    )
    plan = one.without_route(1).reporting(4).plan()

    assert (plan.decision.rule, plan.actions) == ("Deleting", ())
    assert "example.com/backup" in plan.decision.why
    assert plan.wake_after == one.desired.tuning.rest


def test_Deleting_moves_shards() -> None:
    one = situation().settled().wanting(deleting=True).holder_deleted(0)

    assert one.row() == "FailingOver"
    assert [move.to.name for move in of(one.plan(), Handover)] == ["acme-coreapp-2"]
    conditions = {
        entry["type"]: (entry["status"], entry["reason"]) for entry in situation().settled().wanting(deleting=True).report()["conditions"]
    }
    assert (conditions["Ready"], conditions["Reconciling"]) == (("True", "Serving"), ("True", "Deleting"))


def test_Deleting_keeps_only_the_budget_for_disruptions() -> None:
    one = situation().settled().wanting(deleting=True)
    changed = {ref: {**obj, "spec": {}} for ref, obj in one.snapshot.objects.items() if "spec" in obj}

    assert [action.obj["kind"] for action in of(one.seeing(objects=changed).plan(), Replace)] == ["PodDisruptionBudget"]


# --- failover


def test_FailingOver_gives_the_shard_of_a_deleted_holder_to_the_spare_at_once() -> None:
    one = situation().settled().holder_deleted(0)

    move = only(one.plan(), Handover)

    assert (move.route, move.to.name, move.evidence, move.planned) == (one.route(0), "acme-coreapp-2", Evidence.POD_DELETED, False)
    assert (move.epoch, move.shards, move.old, move.detected_at) == (Epoch(100, NONCE), 2, None, NOW)


def test_FailingOver_gives_each_failed_shard_its_own_pod() -> None:
    plan = situation().settled(shards=4, spares=2).holder_deleted(1).holder_deleted(3).plan()

    assert [(move.route.shard, move.to.ordinal) for move in of(plan, Handover)] == [(1, 4), (3, 5)]


def test_FailingOver_moves_what_it_can_when_spares_run_out() -> None:
    one = situation().settled(shards=4, spares=1).holder_deleted(1).holder_deleted(3)

    assert [move.route.shard for move in of(one.plan(), Handover)] == [1]
    assert one.row() == "FailingOver"


def test_FailingOver_is_not_said_when_there_is_no_standby() -> None:
    one = situation().settled(spares=0).holder_deleted(0)

    assert one.row() == "ReplacingPods"
    assert of(one.plan(), Handover) == []


def test_FailingOver_is_nobodys_in_mode_manual() -> None:
    one = situation().settled().holder_deleted(0).wanting(manual=True)

    assert one.row() != "FailingOver"
    assert of(one.plan(), Handover) == []


def test_FailingOver_goes_on_while_paused() -> None:
    assert situation().settled().holder_deleted(0).wanting(paused=True).row() == "FailingOver"


def test_FailingOver_does_not_wait_for_the_client_to_answer() -> None:
    move = only(situation().settled().client(shards=None, asked_at=None).holder_deleted(0).plan(), Handover)

    assert (move.to.ordinal, move.shards) == (2, None)


def test_FailingOver_never_takes_a_foreign_route() -> None:
    assert of(situation().settled().holder_deleted(0).with_route(0, foreign=True).plan(), Handover) == []


@pytest.mark.parametrize("answer", [Answer.NONE, Answer.UNKNOWN])
def test_FailingOver_replaces_a_deleted_pod_at_once_also_while_a_call_may_be_on_its_way(answer: Answer) -> None:
    """laws#9: a pod whose uid is gone is replaced at once; the others still report the old number, for nothing restarted yet."""
    one = growing().noted(4, answer).holder_deleted(0)
    if answer is Answer.NONE:
        one = one.client(call=Call(id="4-noted"))

    assert one.row() == "FailingOver"


def test_FailingOver_replaces_a_deleted_pod_in_the_restart_by_one_that_is_back() -> None:
    one = restarting().restarted(4, [4]).holder_deleted(0)

    assert only(one.plan(), Handover).to.ordinal == 4


def test_FailingOver_leaves_a_restarting_holder_alone() -> None:
    one = restarting().with_holder(0, terminated=True, ready=False).with_holder(1, broken_at=NOW).restarted(4, [4])

    assert of(one.plan(), Handover) == []


def test_SwitchoverRequested_first_names_the_pod_in_the_annotation() -> None:
    plan = WITNESSES["SwitchoverRequested"].plan()

    assert only(plan, Annotate) == Annotate(name=manifests.SWITCHOVER_ANNOTATION, value="0=acme-coreapp-2")
    assert of(plan, Handover) == []


def switching(*requests: Switchover, text: str = "") -> Situation:
    return situation().settled(spares=2).wanting(switchovers=requests, switchover_text=text)


def test_SwitchoverRequested_then_moves_the_shard_to_the_named_pod() -> None:
    plan = switching(Switchover(shard=1, to="acme-coreapp-3"), text="1=acme-coreapp-3").plan()

    move = only(plan, Handover)
    assert (move.route.shard, move.to.ordinal, move.evidence, move.planned) == (1, 3, Evidence.REQUESTED, True)
    assert move.old is not None
    assert of(plan, Annotate) == []


def test_SwitchoverRequested_at_last_takes_the_annotation_off() -> None:
    plan = switching(Switchover(shard=1, to="acme-coreapp-1"), text="1=acme-coreapp-1").plan()

    assert only(plan, Annotate).value is None
    assert of(plan, Handover) == []


@pytest.mark.parametrize(
    ("switchover", "sentence"),
    [
        (Switchover(shard=7), "There is no shard 7; shards go from 0 to 1."),
        (Switchover(shard=0, to="acme-coreapp-9"), "There is no Coreapp acme-coreapp-9."),
        (Switchover(shard=0, to="acme-coreapp-1"), "acme-coreapp-1 holds another shard."),
    ],
)
def test_SwitchoverRejected_says_why_and_takes_the_annotation_off(switchover: Switchover, sentence: str) -> None:
    plan = switching(switchover, text="x").plan()

    said = only(plan, EmitEvent)
    assert (said.reason, said.warning) == ("SwitchoverRejected", True)
    assert sentence in said.message
    assert only(plan, Annotate).value is None


def test_SwitchoverRejected_when_the_named_pod_is_not_ready() -> None:
    plan = switching(Switchover(shard=0, to="acme-coreapp-3"), text="x").with_pod(3, ready=False).plan()

    assert "acme-coreapp-3 is not a ready standby." in only(plan, EmitEvent).message


def test_SwitchoverRejected_when_nobody_can_take_it() -> None:
    plan = situation().settled(spares=0).wanting(switchovers=(Switchover(shard=0),), switchover_text="0").plan()

    assert "No standby can take shard 0." in only(plan, EmitEvent).message


def test_SwitchoverRejected_when_the_annotation_means_nothing() -> None:
    plan = situation().settled().wanting(switchover_problem="'x' is no shard.", switchover_text="x").plan()

    assert only(plan, EmitEvent).message == "'x' is no shard."
    assert only(plan, Annotate).value is None


def test_SwitchoverRejected_is_said_of_every_request_that_is_dropped() -> None:
    """laws#12: two requests, one spare; the second is either kept or rejected with its reason, never dropped in silence."""
    plan = situation().settled(spares=1).wanting(switchovers=(Switchover(shard=0), Switchover(shard=1)), switchover_text="0,1").plan()

    assert only(plan, Annotate).value == "0=acme-coreapp-2,1", "both are kept until shard 0 has moved"


def test_SwitchoverRequested_goes_on_after_a_crash_between_prepare_and_commit() -> None:
    """The named pod carries the label of the attempt that crashed: it must be touched and tried again, not rejected."""
    one = switching(Switchover(shard=0, to="acme-coreapp-3"), text="0=acme-coreapp-3").with_pod(3, labels=labels_for(0, "100-dead"))

    plan = one.plan()

    assert only(plan, Touch).route.shard == 0
    assert of(plan, EmitEvent) == []
    assert of(plan, Annotate) == []


def test_SwitchoverRequested_waits_for_Set_Shards() -> None:
    assert growing().noted(4, Answer.UNKNOWN).wanting(switchovers=(Switchover(shard=0),)).row() == "AnswerUnknown"


# --- what must exist


def test_NameConflict_leaves_the_object_alone_and_says_which() -> None:
    plan = WITNESSES["NameConflict"].plan()

    assert (plan.stuck, plan.actions) == (plan.decision, ())
    assert "Service acme-webapp is not owned by this cluster" in plan.decision.why


def test_NameConflict_speaks_of_a_shard_Service_too() -> None:
    assert situation().settled().with_route(1, foreign=True).row() == "NameConflict"


FORMER = [Ref("Secret", "acme-admin"), Ref("PersistentVolumeClaim", "acme-simulator")]


@pytest.mark.parametrize("ref", FORMER)
def test_NameConflict_holds_first_pods_that_would_start_with_anothers_password_or_store(ref: Ref) -> None:
    one = situation().seeing(name_conflicts=(ref,))
    made = {action.obj["kind"] for action in of(one.plan(), Create)}

    assert "Service" in made
    assert not made & {"StatefulSet", "Deployment"}
    rest = {Ref(obj["kind"], obj["metadata"]["name"]): obj for obj in one.facts().absent}
    assert one.seeing(objects=rest).row() == "NameConflict"


@pytest.mark.parametrize("ref", FORMER)
def test_NameConflict_does_not_keep_the_pods_of_a_cluster_that_was_at_work_from_coming_back(ref: Ref) -> None:
    one = situation().settled().without_object("StatefulSet", "acme-coreapp").without_object(ref.kind, ref.name)

    assert only(one.seeing(statefulset=None, name_conflicts=(ref,)).plan(), Create).obj["kind"] == "StatefulSet"


def test_LoginRejected_names_the_Secret() -> None:
    plan = WITNESSES["LoginRejected"].plan()

    assert plan.decision.state is State.STUCK
    assert "acme-admin" in plan.decision.why


def test_LoginRejected_is_said_also_when_the_shards_were_known_before() -> None:
    """laws#12: the password is changed, the token runs out, the user asks for four shards; the reason must be named."""
    one = growing().client(login=Login.REJECTED, asked_at=NOW - seconds(600))

    assert one.plan().stuck is not None


def test_ObjectsRejected_says_what_the_API_server_said_and_goes_on_trying() -> None:
    plan = WITNESSES["ObjectsRejected"].plan()

    assert "exceeded quota: compute" in plan.decision.why
    assert of(plan, Create)


def test_ObjectsRejected_ends_when_everything_is_there() -> None:
    assert situation().settled().seeing(rejection="exceeded quota").row() == "UpToDate"


def test_Bootstrapping_makes_every_object_and_draws_the_Secrets() -> None:
    one = situation()
    plan = one.plan()

    made = [(action.obj["kind"], action.obj["metadata"]["name"]) for action in plan.actions if isinstance(action, (Create, GenerateSecret))]
    assert made == [(obj["kind"], obj["metadata"]["name"]) for obj in one.facts().absent]
    assert [(action.obj["metadata"]["name"], action.recipe) for action in of(plan, GenerateSecret)] == [
        ("acme-admin", "admin"),
        ("acme-webapp-tls", "tls"),
    ]
    assert of(plan, GenerateSecret)[1].host_names == ("acme-webapp.default.svc", "acme-webapp")


def test_Bootstrapping_makes_shards_plus_spares_Coreapps_and_one_Webapp() -> None:
    replicas = {obj.obj["metadata"]["name"]: obj.obj["spec"].get("replicas") for obj in of(situation().plan(), Create)}

    assert replicas["acme-coreapp"] == 3
    assert replicas["acme-webapp"] == 1


def test_Bootstrapping_waits_until_the_client_reports_its_shards() -> None:
    one = situation().settled().seeing(settled_shards=None).client(shards=None, asked_at=None)

    assert one.row() == "Bootstrapping"
    assert of(one.plan(), GetShards)


def test_Bootstrapping_ends_with_the_first_number_of_shards() -> None:
    assert situation().settled().seeing(settled_shards=None).reporting(1).row() == "SettingShards"


def test_Bootstrapping_makes_a_deleted_StatefulSet_again_for_every_shard_that_exists() -> None:
    one = situation().settled(shards=4, spares=2).wanting(shards=2).without_object("StatefulSet", "acme-coreapp").seeing(statefulset=None)

    assert only(one.plan(), Create).obj["spec"]["replicas"] == 6


def test_ScalingUp_comes_before_Set_Shards() -> None:
    plan = WITNESSES["ScalingUp"].plan()

    scale = only(plan, Scale)
    assert (scale.replicas, scale.uid, scale.resource_version) == (5, "sts", "9")
    assert of(plan, SetShards) == []


def test_ScalingUp_follows_the_client_when_it_has_more_shards_than_there_are_pods() -> None:
    assert only(situation().settled().reporting(8).plan(), Scale).replicas == 9


def test_ScalingUp_while_paused_goes_only_as_far_as_shards_exist() -> None:
    assert only(situation().settled().reporting(8).wanting(paused=True).plan(), Scale).replicas == 8
    assert of(situation().settled().wanting(shards=4, paused=True).plan(), Scale) == []


def test_ScalingUp_is_over_when_the_pods_are_asked_for() -> None:
    assert growing().row() != "ScalingUp"


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


# --- holders


def test_AssigningShards_makes_the_Services_of_new_shards_first() -> None:
    plan = WITNESSES["AssigningShards"].plan()

    assert [action.obj["metadata"]["name"] for action in of(plan, Create)] == ["acme-shard-2", "acme-shard-3"]
    assert all(action.obj["spec"]["selector"][manifests.EPOCH_LABEL] == "none" for action in of(plan, Create))


def test_AssigningShards_then_gives_them_holders() -> None:
    plan = back().with_route(2).with_route(3).plan()

    assert plan.decision.rule == "AssigningShards"
    assert [(move.route.shard, move.to.ordinal, move.planned) for move in of(plan, Handover)] == [(2, 2, True), (3, 3, True)]


def test_AssigningShards_waits_until_GET_has_verified() -> None:
    assert growing().with_route(2).noted(4, Answer.ACCEPTED).row() == "Verifying"


def test_ConsolidatingShards_moves_a_shard_off_a_pod_that_is_to_go() -> None:
    move = only(WITNESSES["ConsolidatingShards"].plan(), Handover)

    assert (move.route.shard, move.to.ordinal, move.evidence, move.planned) == (0, 0, Evidence.CONSOLIDATED, True)


def test_ConsolidatingShards_is_not_needed_when_nothing_shrinks() -> None:
    assert situation().settled(spares=2).held_by(0, 3).row() == "UpToDate"


def test_ConsolidatingShards_waits_while_paused() -> None:
    assert WITNESSES["ConsolidatingShards"].wanting(paused=True).row() == "Paused"


def test_ConsolidatingShards_never_picks_another_high_pod() -> None:
    one = situation().settled().with_pods([3, 4]).held_by(0, 3).with_pod(0, ready=False).with_pod(2, ready=False)

    assert of(one.plan(), Handover) == []


def shrinking() -> Situation:
    """Four to two accepted and verified; failovers had put shard 0 on pod 4; all came back but pod 3."""
    one = situation().settled(shards=4).held_by(0, 4).wanting(shards=2).noted(2, Answer.ACCEPTED, origin=4).reporting(2)
    return one.restarted(2).with_pod(3, report=None, ready=False)


def test_ConsolidatingShards_leaves_no_shard_unassigned_because_another_pod_does_not_come_back() -> None:
    """Until it is moved, the high holder serves: at the latest after the deadline of the restart."""
    one = shrinking().with_pod(0, ready=False).with_pod(2, ready=False).later(600)

    assert 0 in {tell.shard for tell in of(one.plan(), AssignRole)} | {move.route.shard for move in of(one.plan(), Handover)}


def test_ConsolidatingShards_does_not_wait_for_the_slowest_pod_of_the_restart() -> None:
    """Pods 0 and 2 are back and low, but shards 2 and 3 that no longer exist still name them: shard 0 must be served all the same."""
    one = situation().settled(shards=4).held_by(0, 4).held_by(3, 0).wanting(shards=2).noted(2, Answer.ACCEPTED, origin=4).reporting(2)
    plan = one.restarted(2).with_pod(3, report=None, ready=False).plan()

    assert {tell.shard for tell in of(plan, AssignRole)} == {0, 1}
    assert {strip.coreapp.ordinal for strip in of(plan, ClearLabels)} == {0, 2}, "free to take shards"


def test_Restarting_waits_for_those_that_are_not_back() -> None:
    plan = WITNESSES["Restarting"].plan()

    assert "2 -> 4" in plan.decision.why
    assert plan.record.operation is not None
    assert of(plan, Handover) == []


def test_Restarting_ends_when_all_are_back() -> None:
    plan = restarting().restarted(4).plan()

    assert plan.record.operation is None
    assert plan.record.settled_shards == 4


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


@pytest.mark.parametrize(
    "one",
    [
        WITNESSES["ScalingDown"].client(asked_at=NOW - seconds(5.1)),
        WITNESSES["ScalingDown"].with_pod(1, report=Report(shard=1, epoch=epoch_of(1), shards=4)),
        WITNESSES["ScalingDown"].with_pod(3, report=None),
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


# --- objections: when Set Shards is wanted and the account does not fit

OBJECTION_ROWS = [one.name for one in objections.OBJECTIONS if one.name != "AwaitingSecret"]


@pytest.mark.parametrize("name", OBJECTION_ROWS)
def test_objection_stops_Set_Shards_and_a_person_is_asked(name: str) -> None:
    plan = WITNESSES[name].plan()

    assert (plan.decision.rule, plan.decision.state) == (name, State.STUCK)
    assert of(plan, SetShards) == []


@pytest.mark.parametrize("name", OBJECTION_ROWS)
def test_objection_is_no_matter_while_no_Set_Shards_is_wanted(name: str) -> None:
    plan = WITNESSES[name].wanting(shards=2).replicas(3).plan()

    said = plan.stuck.rule if plan.stuck else None
    assert (said, plan.decision.rule) == (
        (name, name) if name in {"SecretMissing", "SecretMalformed", "Banned", "ClientExpired"} else (None, "UpToDate")
    )


@pytest.mark.parametrize("name", OBJECTION_ROWS)
def test_objection_never_delays_a_failover(name: str) -> None:
    plan = WITNESSES[name].holder_deleted(0).plan()

    assert plan.decision.rule == "FailingOver"
    assert plan.stuck is not None
    assert plan.stuck.rule == name


def test_Banned_is_kept() -> None:
    plan = growing().calling(4, Answer.REJECTED, rejection=Rejection.BANNED).plan()

    assert (plan.decision.rule, plan.record.banned_at, plan.record.operation) == ("Banned", NOW, None)


def test_Banned_is_said_whether_or_not_a_change_of_shards_is_wanted() -> None:
    """The condition is where the ban is remembered: without the word it is forgotten as soon as the user takes the request back."""
    stuck = situation().settled().seeing(banned_at=NOW).plan().stuck

    assert stuck is not None
    assert stuck.rule == "Banned"


def test_SecretMissing_is_said_also_without_a_change_of_shards() -> None:
    assert WITNESSES["SecretMissing"].wanting(shards=2).replicas(3).row() == "SecretMissing"


def test_AwaitingSecret_sends_nothing_although_the_account_was_registered_lately() -> None:
    one = growing().with_account(secret=AccountSecret(missing="Secret acme-account"), registered_at=NOW)

    assert (one.row(), of(one.plan(), SetShards)) == ("AwaitingSecret", [])


def test_PinMalformed_is_not_said_of_a_good_one() -> None:
    assert growing().with_account().row() == "SettingShards"


def test_RegistrationTooOld_begins_after_seven_days() -> None:
    within = growing().with_account(secret=AccountSecret(), registered_at=NOW - timedelta(days=7))

    assert within.row() == "SettingShards"
    assert within.later(1).row() == "RegistrationTooOld"


def test_RegistrationTooOld_does_not_matter_with_a_certificate() -> None:
    assert growing().with_account(registered_at=NOW - timedelta(days=900)).row() == "SettingShards"


def test_CertificateMissing_is_not_said_within_seven_days_of_registration() -> None:
    assert growing().with_account(secret=AccountSecret(), registered_at=NOW).row() == "SettingShards"


def test_CertificateMissing_is_not_said_while_the_Secret_could_not_be_read_yet() -> None:
    """Unknown is a value (laws#6): nothing is sent, above all not without the certificate that may be there."""
    one = growing().with_account(registered_at=NOW).seeing(account=None)

    assert of(one.plan(), SetShards) == []


def test_CertificateMalformed_comes_before_an_unknown_expiry() -> None:
    assert growing().with_account(certificate=None, expires_at=None).row() == "CertificateMalformed"


def test_CertificateExpiryUnknown_is_not_said_when_it_is_known() -> None:
    assert growing().with_account().row() == "SettingShards"


def test_CertificateExpired_keeps_a_margin() -> None:
    assert growing().with_account(expires_at=NOW + timedelta(hours=24)).row() == "SettingShards"
    assert growing().with_account(expires_at=NOW + timedelta(hours=23)).row() == "CertificateExpired"


def test_CertificateRejected_is_remembered_and_ends_when_the_Secret_changes() -> None:
    one = growing().with_account().calling(4, Answer.REJECTED, rejection=Rejection.CERTIFICATE, fingerprint=FINGERPRINT)
    plan = one.plan()

    assert (plan.decision.rule, plan.record.rejected_fingerprint, plan.record.operation) == ("CertificateRejected", FINGERPRINT, None)
    refused = plan.record.rejected_fingerprint
    later = growing().with_account(certificate=CertificateFacts(fingerprint="cd" * 32)).seeing(rejected_fingerprint=refused)
    assert later.row() == "SettingShards"


def test_a_refusal_without_a_certificate_is_not_asked_again_at_once() -> None:
    """A 4xx that names no certificate (PIN, bad request): without a mark the call would be repeated at every observation."""
    plan = growing().calling(4, Answer.REJECTED, detail="(#100) invalid pin").plan()

    assert of(plan, SetShards) == []


def test_a_refusal_without_a_certificate_does_not_forget_the_refused_one() -> None:
    plan = growing().seeing(rejected_fingerprint=FINGERPRINT).calling(4, Answer.REJECTED).plan()

    assert plan.record.rejected_fingerprint == FINGERPRINT


def test_AwaitingCoreapps_names_them_with_the_schedulers_sentence() -> None:
    plan = WITNESSES["AwaitingCoreapps"].with_pod(3, pending_because="0/3 nodes: Insufficient cpu").plan()

    assert "acme-coreapp-3" in plan.decision.why
    assert "Insufficient cpu" in plan.decision.why
    assert "LacksCoreapps" in plan.holds


def test_WithoutSpares_Set_Shards_goes_on_after_restart_timeout_if_there_are_enough_for_the_shards() -> None:
    one = growing().with_pod(4, ready=False)

    assert one.row() == "AwaitingCoreapps"
    assert one.seeing(since={"LacksCoreapps": NOW - seconds(179)}).row() == "AwaitingCoreapps"
    assert one.seeing(since={"LacksCoreapps": NOW - seconds(180)}).row() == "SettingShards"
    assert one.with_pod(3, ready=False).seeing(since={"LacksCoreapps": NOW - seconds(999)}).row() == "AwaitingCoreapps"


def test_SettingShards_first_voids_a_lowering_that_may_still_land() -> None:
    """The StatefulSet's version is moved before the intent is noted: what goes by the old one is rejected (laws#4)."""
    plan = WITNESSES["SettingShards"].seeing(anchored_for=2).plan()

    assert (only(plan, BumpVersion).shards, only(plan, BumpVersion).resource_version) == (4, "9")
    assert not of(plan, SetShards)
    assert plan.record.operation is None


def test_SettingShards_makes_one_call_whose_intent_is_noted_with_it_and_not_reported() -> None:
    plan = WITNESSES["SettingShards"].plan()

    operation = only(plan, SetShards).operation
    assert plan.record.operation is None
    assert operation.uid == "cluster-uid"
    assert (operation.id, operation.origin, operation.to, operation.leader_epoch) == (f"4-{NONCE}", 2, 4, 5)
    assert operation.started_at == NOW
    assert operation.deadline == NOW + seconds(180)
    assert operation.settle_by == NOW + seconds(60 + 180 + 600)
    assert (operation.attempts, operation.answer) == (1, Answer.NONE)


@pytest.mark.parametrize(
    "one",
    [
        growing().client(asked_at=NOW - seconds(5.1)),
        growing().client(asked_at=None),
        growing().wanting(shards=3).replicas(6),
        growing().calling(4),
        growing().client(call=Call(id="4-x")),
    ],
    ids=["stale", "never asked", "no power of two", "noted and running", "running"],
)
def test_SettingShards_does_not_call(one: Situation) -> None:
    assert of(one.plan(), SetShards) == []


def test_SettingShards_calls_again_when_the_note_was_not_followed_by_a_call() -> None:
    assert only(growing().calling(4, not_sent=True).plan(), SetShards).operation.attempts == 1


def test_SettingShards_is_accepted() -> None:
    plan = growing().calling(4, Answer.ACCEPTED).plan()

    assert plan.decision.rule == "Verifying"
    assert plan.record.operation is not None
    assert (plan.record.operation.answer, plan.record.operation.deadline) == (Answer.ACCEPTED, NOW + seconds(180))


# --- upkeep


def test_RestartOverdue_names_who_is_not_back() -> None:
    plan = WITNESSES["RestartOverdue"].plan()

    assert "acme-coreapp-4" in plan.decision.why


def test_RestartOverdue_is_not_said_before_the_deadline() -> None:
    assert WITNESSES["RestartOverdue"].seeing(now=NOW).row() == "Restarting"


def test_RestartOverdue_lets_the_user_go_back() -> None:
    one = situation().settled(shards=4).noted(4, Answer.ACCEPTED).with_pod(4, report=None).later(300).wanting(shards=2)

    assert only(one.plan(), SetShards).operation.to == 2


def test_RestartOverdue_lifts_the_ban_on_disruptions() -> None:
    """laws#9: at the deadline normal rules return. A pod that never comes back must not block every drain forever."""
    one = WITNESSES["RestartOverdue"].later(3600)

    budget = next(obj for obj in one.facts().objects if obj["kind"] == "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


def test_ReplacingPods_tells_of_Webapps_too() -> None:
    short = situation().settled().seeing(webapp=Workload(uid="", resource_version="", replicas=2, ready=1))
    change = situation().settled().seeing(webapps_change=True)

    assert (short.row(), short.plan().decision.why) == ("ReplacingPods", "1 of 2 Webapps are ready.")
    assert (change.row(), change.plan().decision.why) == ("ReplacingPods", "2 of 2 Webapps are ready while they are replaced.")
    assert short.condition("Ready")["status"] == change.condition("Ready")["status"] == "True"


def test_ReplacingPods_waits_for_a_spare() -> None:
    plan = WITNESSES["ReplacingPods"].plan()

    assert plan.actions == ()
    assert "acme-coreapp-2" in plan.decision.why


def test_UpToDate_does_nothing() -> None:
    plan = WITNESSES["UpToDate"].plan()

    assert (plan.actions, plan.moving, plan.stuck, plan.record.operation) == ((), None, None, None)
    assert plan.wake_after == seconds(30)


# --- in addition to the rule that won: tell


def test_a_holder_that_reports_nothing_is_assigned_its_shard() -> None:
    tell = only(situation().settled().with_holder(0, report=Report(shards=2)).plan(), AssignRole)

    assert (tell.coreapp.ordinal, tell.shard, tell.epoch, tell.shards, tell.holder) == (0, 0, epoch_of(0), 2, None)


def test_a_former_holder_learns_who_serves_now() -> None:
    one = situation().settled().held_by(0, 2).with_pod(0, report=Report(shard=0, epoch=epoch_of(0), shards=2))

    tell = only(one.plan(), AssignRole)

    assert (tell.coreapp.ordinal, tell.shard, tell.epoch) == (0, 0, one.route(0).epoch)
    assert tell.holder is not None
    assert tell.holder.ordinal == 2


def test_a_former_holder_is_never_assigned_to_serve_because_its_successor_is_gone() -> None:
    """Tell without holder means: serve. Only the pod that the Service names may hear that."""
    one = situation().settled().held_by(0, 2).with_pod(0, report=Report(shard=0, epoch=epoch_of(0), shards=2)).without_pod(2)

    assert [tell for tell in of(one.plan(), AssignRole) if tell.shard is not None and tell.holder is None] == []


@pytest.mark.parametrize(("newer", "assigned"), [(-1, [0]), (0, []), (5, [])])
def test_a_service_that_was_read_before_a_commit_says_nothing_against_its_holder(newer: int, assigned: list[int]) -> None:
    """The epoch of a holder is the version of its Service before the commit: one that is not below what was read was committed later."""
    one = situation().settled()
    report = Report(shards=2, shard=0, epoch=f"{one.route(0).version + newer}-x", gateway="connected", version="v2.53.4")
    one = one.with_pod(2, report=report)
    assert [each.shard for each in of(one.plan(), AssignRole) if each.coreapp.ordinal == 2 and each.holder is not None] == assigned


def test_a_standby_of_a_shard_without_holder_is_assigned_to_stop() -> None:
    one = situation().settled().with_route(0, epoch=None, holder=None, holder_uid=None)

    assigned = [(each.shard, each.epoch) for each in of(one.plan(), AssignRole) if each.coreapp.ordinal == 0]
    assert assigned in ([], [(None, None)])


@pytest.mark.parametrize(
    "changes", [{"report": None}, {"report": Report()}, {"deleting": True}, {"ip": None}, {"report": Report(shards=4)}]
)
def test_a_pod_gets_no_assignment(changes: dict[str, object]) -> None:
    one = situation().settled().with_holder(0, **changes)

    assert [tell for tell in of(one.plan(), AssignRole) if tell.coreapp.ordinal == 0] == []


# --- in addition to the rule that won: tidy


def test_a_dead_label_is_stripped() -> None:
    assert only(situation().settled().with_pod(2, labels=labels_for(0, "5-old")).plan(), ClearLabels).coreapp.ordinal == 2


def test_a_pending_label_is_made_dead_by_a_touch_first() -> None:
    plan = situation().settled().with_pod(2, labels=labels_for(0, "100-mine")).plan()

    assert only(plan, Touch).nonce == NONCE
    assert of(plan, ClearLabels) == []


def test_a_label_whose_Service_is_missing_is_left_alone() -> None:
    one = situation().settled().without_route(0)

    assert [strip.coreapp.ordinal for strip in of(one.plan(), ClearLabels)] == []


def test_an_orphan_of_a_shard_that_no_longer_exists_is_stripped() -> None:
    one = situation().settled().with_pod(2, labels=labels_for(7, "100-x"))

    assert only(one.plan(), ClearLabels).coreapp.ordinal == 2
    assert of(one.client(asked_at=NOW - seconds(10)).plan(), ClearLabels) == []


def test_a_holder_whose_labels_were_removed_gets_them_again() -> None:
    one = situation().settled().with_holder(0, labels={})

    again = only(one.plan(), Relabel)
    assert (again.coreapp.ordinal, again.route.shard) == (0, 0)


@pytest.mark.parametrize("label", [manifests.SHARD_LABEL, manifests.EPOCH_LABEL])
def test_a_holder_that_lost_one_label_of_the_selector_gets_it_again(label: str) -> None:
    """Without either label the Service leads nowhere, so the loss must lead to a write."""
    one = situation().settled()
    left = {key: value for key, value in one.holder_of(0).labels.items() if key != label}

    plan = one.with_holder(0, labels=left).plan()

    assert [action for action in plan.actions if isinstance(action, (Relabel, ClearLabels, Touch))]


def test_a_standby_with_a_senseless_shard_label_is_freed() -> None:
    plan = situation().settled().with_pod(2, labels={manifests.ROLE_LABEL: "active", manifests.EPOCH_LABEL: "5-old"}).plan()

    assert only(plan, ClearLabels).coreapp.ordinal == 2


def test_a_holder_is_not_labelled_again_while_another_pod_carries_its_epoch() -> None:
    """laws#2: an epoch is on one pod. The other pod is stripped first, in an earlier observation."""
    one = situation().settled().with_holder(0, labels={}).with_pod(2, labels=labels_for(0, epoch_of(0)))

    assert of(one.plan(), Relabel) == []


def test_the_Service_of_a_shard_that_is_gone_goes_after_the_labels() -> None:
    one = situation().settled(shards=2, spares=1).wanting(shards=1).reporting(1).restarted(1, [2])

    first = one.plan()
    assert [strip.coreapp.ordinal for strip in of(first, ClearLabels)] == [1]
    assert of(first, Delete) == []

    then = one.with_pod(1, labels=pod(1).labels).plan()
    assert only(then, Delete) == Delete(ref=Ref("Service", "acme-shard-1"), uid="service-1", resource_version="101")


def test_the_Service_of_a_shard_stays_while_a_call_could_bring_it_back() -> None:
    one = situation().settled().reporting(1).with_pod(1, labels=pod(1).labels).noted(2, Answer.UNKNOWN)

    assert of(one.plan(), Delete) == []


def test_a_changed_object_is_mended_by_its_version() -> None:
    one = situation().settled().wanting(webapps=3).seeing(objects=situation().settled().snapshot.objects)

    mend = only(one.plan(), Replace)
    meta = mend.obj["metadata"]
    assert (mend.obj["kind"], mend.obj["spec"]["replicas"]) == ("Deployment", 3)
    assert (meta["uid"], meta["resourceVersion"]) == ("deployment-acme-webapp", "7")
    assert (
        of(
            one.seeing(webapp=one.snapshot.webapp).wanting(paused=True).seeing(objects=situation().settled().snapshot.objects).plan(),
            Replace,
        )
        == []
    )


def test_the_budget_forbids_disruptions_while_Set_Shards_runs_also_when_paused() -> None:
    one = growing().noted(4, Answer.ACCEPTED).wanting(paused=True).seeing(objects=growing().snapshot.objects)

    assert only(one.plan(), Replace).obj["spec"]["maxUnavailable"] == 0


def test_a_hand_edited_number_of_attempts_does_no_harm() -> None:
    """The CRD lets 0 through."""
    assert growing().noted(4, Answer.BUSY, attempts=0).row() == "ServerBusy"


# --- asking


@pytest.mark.parametrize(("age", "asked"), [(29, False), (30, True)])
def test_a_steady_cluster_is_asked_every_thirty_seconds(age: int, asked: bool) -> None:
    assert bool(of(situation().settled().client(asked_at=NOW - seconds(age)).plan(), GetShards)) is asked


@pytest.mark.parametrize(("age", "asked"), [(0.2, False), (0.25, True)])
def test_a_moving_cluster_is_asked_four_times_a_second(age: float, asked: bool) -> None:
    assert bool(of(growing().noted(4, Answer.UNKNOWN).client(asked_at=NOW - seconds(age)).plan(), GetShards)) is asked


def test_a_silent_client_is_asked_once_a_second() -> None:
    one = growing().client(unresponsive_since=NOW, asked_at=NOW - seconds(0.9))

    assert of(one.plan(), GetShards) == []
    assert of(one.client(asked_at=NOW - seconds(1)).plan(), GetShards) == [GetShards()]


# --- two clocks


OTHERWISE_AT = {
    "WindowClosed": timedelta(hours=12, minutes=5),
    "CertificateExpired": -timedelta(days=40),
    "RegistrationTooOld": -timedelta(days=40),
}


@pytest.mark.parametrize("name", OTHERWISE_AT)
def test_what_has_a_date_of_its_own_goes_by_the_wall_clock(name: str) -> None:
    one, other = WITNESSES[name], NOW + OTHERWISE_AT[name]

    assert one.seeing(now=other, wall=NOW).client(asked_at=other).row() == name
    assert one.seeing(wall=other).row() != name
