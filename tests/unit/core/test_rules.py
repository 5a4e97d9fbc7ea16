"""One test per rule, named after its reason, with the neighbours in which it must not win: failovers, switchovers, holders, upkeep."""

# ruff: noqa: N802  (a test carries the word of its row as it is spelt, so that one grep finds everything)

from __future__ import annotations

from datetime import timedelta

import pytest

from whatsapp_operator.core import manifests
from whatsapp_operator.core.actions import (
    Annotate,
    AssignRole,
    ClearLabels,
    Create,
    EmitEvent,
    GetShards,
    Handover,
    Replace,
    SetShards,
    Touch,
)
from whatsapp_operator.core.desired import Switchover
from whatsapp_operator.core.names import Epoch
from whatsapp_operator.core.snapshot import Answer, Call, Evidence, Workload

from .plans import of, only
from .situations import NONCE, NOW, Situation, labels_for, seconds, situation
from .witnesses import WITNESSES, back, growing, restarting

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


def test_SwitchoverRequested_keeps_the_request_of_a_shard_that_is_being_moved() -> None:
    """The move may fail; the annotation is written all the same."""
    plan = switching(Switchover(shard=0, to="acme-coreapp-3"), Switchover(shard=1), text="0=acme-coreapp-3,1").plan()

    assert only(plan, Handover).route.shard == 0
    assert only(plan, Annotate).value == "0=acme-coreapp-3,1=acme-coreapp-2"


def test_SwitchoverRequested_goes_on_after_a_crash_between_prepare_and_commit() -> None:
    """The named pod carries the label of the attempt that crashed: it must be touched and tried again, not rejected."""
    one = switching(Switchover(shard=0, to="acme-coreapp-3"), text="0=acme-coreapp-3").with_pod(3, labels=labels_for(0, "100-dead"))

    plan = one.plan()

    assert only(plan, Touch).route.shard == 0
    assert of(plan, EmitEvent) == []
    assert of(plan, Annotate) == []


def test_SwitchoverRequested_goes_on_when_a_made_up_label_is_off_the_named_pod() -> None:
    one = switching(Switchover(shard=0, to="acme-coreapp-3"), text="0=acme-coreapp-3").with_route(0, touched="900-x")
    plan = one.with_pod(3, labels=labels_for(0, "900-x")).plan()

    assert (of(plan, Touch), of(plan, EmitEvent), of(plan, Annotate)) == ([], [], [])
    assert only(plan, ClearLabels).coreapp.ordinal == 3


def test_SwitchoverRequested_waits_for_Set_Shards() -> None:
    assert growing().noted(4, Answer.UNKNOWN).wanting(switchovers=(Switchover(shard=0),)).row() == "AnswerUnknown"


def test_SwitchoverRequested_waits_for_no_busy_client_and_for_no_Coreapp_that_does_not_come_back() -> None:
    """Either may last for days."""
    wanted = {"switchovers": (Switchover(shard=0, to="acme-coreapp-2"),), "switchover_text": "0=acme-coreapp-2"}
    busy = growing().noted(4, Answer.BUSY)
    overdue = WITNESSES["RestartOverdue"].with_pods([5])

    assert only(busy.wanting(**wanted).plan(), Handover).to.ordinal == 2
    standby = overdue.wanting(switchovers=(Switchover(shard=0, to="acme-coreapp-5"),), switchover_text="0=acme-coreapp-5")
    assert only(standby.plan(), Handover).to.ordinal == 5


# --- holders


def test_AssigningShards_makes_the_Services_of_new_shards_first() -> None:
    """Another party may have changed the number: then they were not made before."""
    plan = WITNESSES["AssigningShards"].without_route(2).without_route(3).plan()

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
