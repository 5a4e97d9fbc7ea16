"""A new pod template, step by step, as the table sees it. The whole way is walked in the simulation."""

# ruff: noqa: N802  (a test carries the word of its row as it is spelt, so that one grep finds everything)

from __future__ import annotations

from dataclasses import replace

import pytest

from whatsapp_operator.core import pace, rollout
from whatsapp_operator.core.actions import Create, Delete, GenerateSecret, Handover, Replace, Scale, Touch
from whatsapp_operator.core.names import Ref
from whatsapp_operator.core.report import plan_events
from whatsapp_operator.core.snapshot import Answer, Evidence

from .plans import of, only
from .situations import NOW, Situation, labels_for, seconds, situation
from .witnesses import WITNESSES, rolling_out


def updated(one: Situation, *ordinals: int) -> Situation:
    """These came back with the new template."""
    found = one
    for ordinal in ordinals:
        found = found.with_pod(ordinal, revision="rev-1")
    return found


def test_one_coreapp_more_than_wanted_comes_first() -> None:
    one = situation().settled().all_pods(revision="rev-0")

    assert only(one.plan(), Scale).replicas == 4
    assert of(one.plan(), Delete) == []


def test_then_an_outdated_standby_ends_by_its_uid_and_version() -> None:
    plan = rolling_out().plan()

    assert plan.decision.rule == "RollingOut"
    assert of(plan, Delete) == [Delete(ref=Ref("Pod", "acme-coreapp-2"), uid="uid-2", resource_version="502")]
    assert of(plan, Handover) == []


def test_then_the_lowest_shard_moves_to_an_updated_standby() -> None:
    (move,) = of(updated(rolling_out(), 2).plan(), Handover)

    assert (move.route.shard, move.to.name, move.evidence, move.planned) == (0, "acme-coreapp-2", Evidence.ROLLED_OUT, True)


def test_its_old_holder_ends_only_when_routes_had_their_time() -> None:
    one = updated(rolling_out(), 2).held_by(0, 2)

    assert of(one.plan(), Delete) == [], "it has been a standby since just now"
    late = one.seeing(since={**one.snapshot.since, "Outdated/uid-0/spare": NOW - seconds(3)})
    assert only(late.plan(), Delete).uid == "uid-0"


def test_when_all_are_updated_the_added_one_goes() -> None:
    one = updated(rolling_out(), 0, 1, 2).retiring(3)

    assert only(one.plan(), Scale).replicas == 3


def test_it_stays_until_the_last_one_is_back() -> None:
    one = updated(rolling_out(), 0, 1, 2).retiring(3)

    assert of(one.with_pod(1, ready=False).plan(), Scale) == []
    assert of(one.without_pod(1).plan(), Scale) == []


def test_one_that_is_about_to_go_does_not_stand_for_one_that_is_not_back() -> None:
    """The StatefulSet has just become smaller, and its controller has not deleted the one beyond the replicas yet."""
    one = rolling_out().with_pods([4])
    assert one.snapshot.statefulset is not None
    one = one.replicas(4)
    assert len(of(one.plan(), Delete)) == 1

    assert of(one.with_pod(3, ready=False).plan(), Delete) == []


HELD = {
    "paused": ("Paused", rolling_out(), rolling_out().wanting(paused=True)),
    "Set Shards under way": ("AnswerUnknown", rolling_out(), rolling_out().noted(2, Answer.UNKNOWN)),
    "added one not ready": ("RollingOut", rolling_out(), rolling_out().with_pod(3, ready=False)),
    "holder not ready": ("RollingOut", rolling_out(), rolling_out().with_pod(1, ready=False)),
    "just now": ("RollingOut", rolling_out(span=3), rolling_out(span=2.9)),
    "added one gone": ("RollingOut", rolling_out(), rolling_out().without_pod(3)),
    "standby": ("RollingOut", updated(rolling_out(), 2), updated(rolling_out(), 2).with_pod(2, ready=False)),
    "ending": ("RollingOut", rolling_out(), rolling_out().with_pod(2, deleting=True)),
}


@pytest.mark.parametrize(("row", "due", "held"), HELD.values(), ids=HELD)
def test_a_step_waits(row: str, due: Situation, held: Situation) -> None:
    assert {type(action) for action in due.plan().actions} in ({Delete}, {Handover}), "without what holds it, it is taken"

    assert (held.row(), held.plan().actions) == (row, ())


def test_a_failure_comes_first() -> None:
    plan = rolling_out().holder_deleted(0).plan()

    assert plan.decision.rule == "FailingOver"
    assert of(plan, Delete) == []


def test_it_is_not_known_what_is_outdated_before_the_controller_has_looked() -> None:
    one = rolling_out()
    assert one.snapshot.statefulset is not None
    unseen = one.seeing(statefulset=type(one.snapshot.statefulset)(uid="sts", resource_version="9", replicas=4, ready=4, revision=None))

    plan = unseen.plan()
    assert (of(plan, Delete), of(plan, Scale)) == ([], []), "and the added one stays"
    assert not situation().settled().seeing(statefulset=unseen.snapshot.statefulset).replicas(3).plan().is_reportable


def test_outdated_pods_that_never_came_up_make_way_for_the_new_template() -> None:
    one = rolling_out().all_pods(ready=False, report=None).reporting(None)

    assert [delete.uid for delete in of(one.plan(), Delete)] == ["uid-2"]
    assert of(one.wanting(paused=True).plan(), Delete) == []


@pytest.mark.parametrize(
    "one", [rolling_out(), rolling_out().all_pods(ready=False, report=None).reporting(None)], ids=["step", "never came up"]
)
def test_no_pod_is_ended_that_another_leader_may_give_a_shard_in_the_next_moment(one: Situation) -> None:
    """Its pending label is made dead by a touch first."""
    prepared, dead = (one.with_pod(2, labels=labels_for(0, epoch)) for epoch in ("9999-other", "1-dead"))

    assert prepared.facts().claim(prepared.facts().by_uid["uid-2"]) == "pending"
    assert "uid-2" not in {delete.uid for delete in of(prepared.plan(), Delete)}
    assert len(of(prepared.plan(), Touch)) == 1
    assert "uid-2" in {delete.uid for delete in of(dead.plan(), Delete)}


def overdue(passed: float) -> Situation:
    """Set Shards(2) was accepted, and for so many seconds its deadline has passed; a spare ends again and again with the old template."""
    one = rolling_out().noted(2, Answer.ACCEPTED)
    assert one.snapshot.record.operation is not None
    operation = replace(one.snapshot.record.operation, deadline=NOW - seconds(passed))
    crashing = {"ready": False, "terminated": True, "report": None, "broken_at": NOW - seconds(60)}
    return one.seeing(operation=operation).with_pod(2, **crashing).kept()


def test_a_new_template_is_what_a_Coreapp_gets_that_does_not_come_back_from_a_restart() -> None:
    """With the old one it never will, and the call would stay noted, and hold up the roll-out, for as long as it does not."""
    assert [delete.uid for delete in of(overdue(0).plan(), Delete)] == ["uid-2"]
    assert of(overdue(-1).plan(), Delete) == [], "the restart still has its time"
    assert of(overdue(0).wanting(paused=True).plan(), Delete) == []


def test_no_healthy_Coreapp_is_replaced_while_one_is_not_back() -> None:
    one = overdue(0).with_pod(2, revision="rev-1")
    assert (one.row(), of(one.plan(), Delete), of(one.plan(), Handover)) == ("RestartOverdue", [], [])


@pytest.mark.parametrize("wait", [0, 60])
def test_a_busy_client_holds_up_no_roll_out(wait: float) -> None:
    """It may turn Set Shards away for days. Nothing is under way meanwhile."""
    one = rolling_out().wanting(shards=1).noted(1, Answer.BUSY).later(wait)

    assert (one.row(), [delete.uid for delete in of(one.plan(), Delete)]) == ("RollingOut", ["uid-2"])
    assert one.condition("Reconciling")["reason"] == "RollingOut"


def test_a_change_of_shards_is_not_held_up_by_waiting() -> None:
    waiting = rolling_out().with_pod(3, ready=False).wanting(shards=1)

    assert waiting.row() != "RollingOut"
    assert rolling_out().wanting(shards=1).row() == "RollingOut", "a step that can be taken comes first"


@pytest.mark.parametrize("witness", ["ChangeRejected", "ObjectsRejected"])
def test_what_the_api_server_refuses_is_not_tried_at_every_observation(witness: str) -> None:
    one = WITNESSES[witness]
    writes = (Create, GenerateSecret, Replace)

    def written(seen: Situation) -> list[Create | GenerateSecret | Replace]:
        return [action for action in seen.plan().actions if isinstance(action, writes)]

    (ref,) = one.snapshot.rejected
    just_now = one.rejecting(*ref, next(iter(one.snapshot.rejected.values())).text, ago=1)
    due, rest = ([(action.obj["kind"], action.obj["metadata"]["name"]) for action in written(each)] for each in (one, just_now))
    assert [each for each in due if each != ref] == rest, "no other one waits for it"
    assert ref in due
    assert just_now.plan().wake_after is not None
    assert just_now.plan().decision == one.plan().decision, "what is said stays"


def test_how_far_it_is_is_said() -> None:
    assert rolling_out().plan().decision.why == "1 of 4 Coreapps have the new pod template; standbys first, then one shard at a time."
    waiting = rolling_out().with_pod(3, ready=False, pending_because="0/3 nodes are available: 3 Insufficient cpu.")
    assert waiting.plan().decision.why == (
        "1 of 4 Coreapps have the new pod template; waiting for acme-coreapp-3 (0/3 nodes are available: 3 Insufficient cpu.)."
    )
    assert waiting.condition("Ready")["status"] == "True"
    assert waiting.condition("Redundant")["status"] == "True"


def test_the_end_of_a_coreapp_is_emitted_with_its_true_reason() -> None:
    one = rolling_out()
    (event,) = plan_events(one.snapshot, one.plan(), done=of(one.plan(), Delete), reported_after=5)
    assert (event.reason, event.warning) == ("DeletingOutdatedPod", False)
    assert event.message == "acme-coreapp-2 has a former pod template: it is deleted, so that it comes back with the new one."

    hung = situation().settled().with_nodes().with_pod(2, unresponsive_since=NOW - seconds(20), report=None)
    (event,) = plan_events(hung.snapshot, hung.plan(), done=of(hung.plan(), Delete), reported_after=5)
    assert (event.reason, event.warning) == ("DeletingUnresponsivePod", True)
    assert "does not answer" in event.message


def test_a_coreapp_that_is_to_go_is_counted_for_none_that_stays() -> None:
    """The one more of a roll-out is on its way out, and one that stays is not back yet."""
    assert situation().settled().with_pod(3).without_pod(2).row() == "ReplacingPods"


# --- Coreapps that answer, but that their kubelets do not call ready: another container of their pods is not


def unready_since(span: float, *ordinals: int) -> Situation:
    """Outdated Coreapps that answer and have not been ready for so many seconds; the added one with the new template is ready."""
    one = rolling_out(1000)
    for ordinal in ordinals:
        one = one.with_pod(ordinal, ready=False, lost_readiness=True)
    return one.seeing(since={**one.snapshot.since, **{f"OutdatedUnready/uid-{ordinal}": NOW - seconds(span) for ordinal in ordinals}})


def test_a_standby_that_only_the_new_template_can_make_ready_makes_way_for_it() -> None:
    assert of(unready_since(179, 0, 1, 2).plan(), Delete) == [], "it may become ready by itself"
    plan = unready_since(180, 0, 1, 2).plan()

    assert [delete.uid for delete in of(plan, Delete)] == ["uid-2"]
    assert of(plan, Handover) == [], "one step at a time"


def test_the_shard_of_a_holder_that_only_the_new_template_can_make_ready_moves_to_an_updated_standby() -> None:
    assert of(updated(unready_since(179, 0, 1), 2).plan(), Handover) == []
    plan = updated(unready_since(180, 0, 1), 2).plan()

    (move,) = of(plan, Handover)
    assert (move.route.shard, move.to.name, move.evidence) == (0, "acme-coreapp-2", Evidence.ROLLED_OUT)
    assert of(plan, Delete) == []


def test_a_holder_that_serves_is_not_ended_although_it_is_not_ready_and_no_standby_is_there() -> None:
    one = unready_since(1000, 0, 1, 2).with_pod(3, ready=False)

    assert one.facts().standbys() == []
    assert [delete.uid for delete in of(one.plan(), Delete)] == ["uid-2"]
    assert of(one.without_pod(2).plan(), Delete) == []


def test_a_Coreapp_that_takes_over_a_shard_is_not_ended_although_it_is_not_ready() -> None:
    """No Coreapp is ready, so a failed holder's shard goes to one that answers. The others make way for the new template."""
    one = unready_since(1000, 0, 1, 2).with_pod(3, ready=False, lost_readiness=True, revision="rev-0").holder_deleted(0)
    since = dict.fromkeys(["Outdated/uid-3/spare", "OutdatedUnready/uid-3"], NOW - seconds(1000))
    one = one.seeing(since={**one.snapshot.since, **since})
    plan = one.plan()

    assert [move.to.name for move in of(plan, Handover)] == ["acme-coreapp-2"]
    assert [delete.uid for delete in of(plan, Delete)] == ["uid-3"]


def test_an_outdated_Coreapp_that_has_just_become_ready_is_replaced_step_by_step() -> None:
    one = unready_since(1000, 0, 2).with_pod(0, ready=True).with_pod(2, ready=True)

    assert rollout.unrecoverable(one.facts()) == ()
    assert [delete.uid for delete in of(one.plan(), Delete)] == ["uid-2"]
    assert of(updated(one, 2).with_pod(3, ready=False).plan(), Handover) == [], "a ready holder makes up for no other Coreapp"


def test_an_outdated_standby_that_is_not_ready_makes_up_for_no_other_Coreapp() -> None:
    """No step of the roll-out comes on top of its deletion: at most one Coreapp ends at a time."""
    one = unready_since(1000, 2).with_pods([4], revision="rev-0")
    one = one.seeing(since={**one.snapshot.since, "Outdated/uid-4/spare": NOW - seconds(1000)})

    assert [delete.uid for delete in of(one.plan(), Delete)] == ["uid-2"]


def test_how_long_an_outdated_Coreapp_has_not_been_ready_is_known_in_time() -> None:
    one = unready_since(100, 0, 1, 2)
    plan = one.plan()

    assert {f"OutdatedUnready/uid-{ordinal}" for ordinal in (0, 1, 2)} <= plan.holds
    assert seconds(80) in {*pace.due(one.facts())}
    assert not [fact for fact in rolling_out().plan().holds if fact.startswith("OutdatedUnready")]


def test_a_Coreapp_that_answers_on_a_lost_node_is_not_ended_and_not_given_up() -> None:
    """The node controller calls it not ready. No kubelet there could end it, and it becomes ready when its node is back."""
    one = unready_since(1000, 0, 1, 2).with_nodes()
    assert [delete.uid for delete in of(one.plan(), Delete)] == ["uid-2"]
    lost = one.with_node(2, renewed_at=NOW - seconds(200))

    assert of(lost.plan(), Delete) == []
    assert {fact for fact in lost.plan().holds if fact.startswith("OutdatedUnready")} == {"OutdatedUnready/uid-0", "OutdatedUnready/uid-1"}


def test_a_holder_that_answers_on_a_lost_node_makes_up_for_no_ready_Coreapp() -> None:
    one = updated(unready_since(1000, 0, 1), 2).with_nodes()
    assert len(of(one.plan(), Handover)) == 1
    assert of(one.with_node(1, renewed_at=NOW - seconds(200)).plan(), Handover) == []
