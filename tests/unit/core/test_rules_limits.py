"""Situations next to those in which a rule wins: one part of its condition is missing, so it says nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from whatsapp_operator.core.actions import GetShards, Scale
from whatsapp_operator.core.snapshot import Answer, Login, Overruled, Report, Workload
from whatsapp_operator.core.windows import Window

from .situations import NOW, UNSCHEDULABLE, Situation, seconds, situation
from .witnesses import NIGHT, WITNESSES, growing, restarting

SETTLED = situation().settled()


def rules_of(one: Situation) -> set[str]:
    """The rules that the plan names."""
    plan = one.plan()
    return {decision.rule for decision in (plan.decision, plan.moving, plan.stuck, plan.ready) if decision is not None}


def scales(one: Situation) -> list[int]:
    return [action.replicas for action in one.plan().actions if isinstance(action, Scale)]


# --- asking


def test_a_process_that_has_not_asked_yet_neither_says_that_it_logs_in_nor_reports_anything() -> None:
    one = SETTLED.client(shards=None, asked_at=None)

    assert "LoggingIn" not in rules_of(one)
    assert not one.plan().is_reportable
    silent = one.client(unresponsive_since=NOW)
    assert silent.row() == "LoggingIn"
    assert silent.plan().is_reportable


@pytest.mark.parametrize(
    ("one", "quiet"),
    [
        (SETTLED, True),
        (SETTLED.with_pod(2, ready=False), False),
        (SETTLED.seeing(settled_shards=None), False),
        (SETTLED.with_pod(2, report=Report(shards=4)), False),
        (growing(), False),
    ],
    ids=["steady", "a rule at work", "first number", "a Coreapp with another number", "a resize"],
)
def test_only_the_question_to_a_steady_cluster_is_quiet(one: Situation, quiet: bool) -> None:
    """Its answer starts no observation."""
    (ask,) = (action for action in one.client(asked_at=NOW - seconds(60)).plan().actions if isinstance(action, GetShards))

    assert ask.quiet is quiet


# --- Set Shards under way


def test_a_busy_client_is_waited_for_and_no_other_answer_is_called_busy() -> None:
    busy = growing().noted(4, Answer.BUSY)

    assert busy.row() == "ServerBusy"
    assert busy.plan().decision.why == "Set Shards 2 -> 4 was turned away once; it is tried again."
    assert "ServerBusy" not in rules_of(busy.later(60)), "its pause is over"
    for answer in (Answer.NONE, Answer.UNKNOWN, Answer.ACCEPTED):
        assert "ServerBusy" not in rules_of(growing().noted(4, answer))
    assert "ServerBusy" not in rules_of(growing())


def test_a_busy_client_says_how_long_it_wants_to_be_left_alone() -> None:
    said = growing().noted(4, Answer.BUSY, attempts=3, retry_after=seconds(120)).plan().decision.why

    assert said == "Set Shards 2 -> 4 was turned away 3 times; it is tried again, not before 2027-01-04T12:01:59Z as the client asks."


def test_a_restart_is_over_for_the_user_when_only_pods_that_never_started_are_missing() -> None:
    """What is waited for then is not the restart but the scheduler: that is said."""
    started = restarting().restarted(4)
    one = started.with_pod(4, phase="Pending", ready=False, report=None)

    assert "Restarting" not in rules_of(one)
    assert one.row() == "ReplacingPods"
    assert "Restarting" in rules_of(one.with_pod(4, phase="Running"))
    assert "Restarting" in rules_of(started.with_pod(3, phase="Pending", ready=False, report=None)), "a holder was started before"


# --- replicas


def test_replicas_that_another_party_insists_on_are_not_lowered_during_a_pause() -> None:
    one = (
        SETTLED.with_pods([3, 4])
        .retiring(3, 4)
        .seeing(
            statefulset=Workload(uid="sts", resource_version="9", replicas=5, ready=5, revision="rev-1", scaled_by="hpa"),
            overruled=Overruled(by="hpa", replicas=5, times=3, at=NOW - seconds(10)),
        )
    )

    assert ("ScalingDown" in rules_of(one), scales(one)) == (False, [])
    assert ("ScalingDown" in rules_of(one.later(20)), scales(one.later(20))) == (True, [3])


def without_standby(one: Situation) -> Situation:
    """No Coreapp but the holder of shard 0 could take a shard."""
    for ordinal in (1, 2, 3, 4):
        one = one.with_pod(ordinal, **UNSCHEDULABLE)
    return one


@pytest.mark.parametrize(
    "one",
    [
        WITNESSES["ScalingDown"].wanting(manual=True).holder_deleted(0),
        without_standby(WITNESSES["ScalingDown"].with_route(1, epoch=None, holder=None, holder_uid=None)),
    ],
    ids=["failed", "never assigned"],
)
def test_no_Coreapp_goes_while_a_shard_has_no_holder(one: Situation) -> None:  # noqa: N802
    """It may be the very one that is to take the shard (laws#7)."""
    assert (one.row(), scales(one)) == ("ScalingDown", [])
    assert one.plan().decision.why == "Coreapps 5 -> 3, once every shard is served."


@pytest.mark.parametrize(
    "one",
    [
        growing(),
        SETTLED.wanting(webapps=3).seeing(objects=SETTLED.snapshot.objects),
        SETTLED.all_pods(revision="rev-0").replicas(3),
        SETTLED.replicas(4),
    ],
    ids=["a resize", "a changed object", "a roll-out", "replicas"],
)
def test_a_pause_is_named_whatever_it_holds_back(one: Situation) -> None:
    objects = one.snapshot.objects

    held = one.wanting(paused=True).seeing(objects=objects)
    assert (held.row(), scales(held)) == ("Paused", [])
    assert one.row() != "Paused"


# --- Webapps


@pytest.mark.parametrize(("changes", "says"), [({}, False), ({"webapps_change": True}, True)])
def test_Webapps_that_are_being_replaced_are_waited_for_although_enough_are_ready(changes: dict[str, bool], says: bool) -> None:  # noqa: N802
    assert ("ReplacingPods" in rules_of(SETTLED.seeing(**changes))) is says


# --- what a plan says of itself


@pytest.mark.parametrize(
    ("one", "settled"),
    [
        (SETTLED, True),
        (SETTLED.holder_deleted(0), True),
        (growing(), False),
        (SETTLED.noted(2, Answer.UNKNOWN), False),
        (SETTLED.seeing(logged_off_at=NOW), False),
        (SETTLED.reporting(None), False),
    ],
    ids=["steady", "a failover", "another number is wanted", "a call under way", "logged off", "unknown"],
)
def test_a_plan_says_whether_the_shards_are_as_the_spec_wants_them(one: Situation, settled: bool) -> None:
    assert one.plan().is_settled is settled


def test_a_plan_names_the_next_window_only_while_one_is_waited_for() -> None:
    """NIGHT opens at midnight, twelve hours after NOW."""
    waiting = growing().wanting(windows=(NIGHT,))

    assert waiting.plan().next_window_at == NOW + seconds(12 * 3600)
    assert SETTLED.wanting(windows=(NIGHT,)).plan().next_window_at is None
    assert waiting.wanting(windows=(Window(name="always", schedule="* * * * *", duration=seconds(3600)),)).plan().next_window_at is None
    assert waiting.holder_deleted(0).plan().next_window_at is None


@pytest.mark.parametrize(
    ("unread", "reportable"),
    [({}, True), ({"ConfigMap": ""}, False), ({"Event": "HTTP 403"}, True), ({"Event": "HTTP 403", "Node": ""}, False)],
)
def test_nothing_is_reported_while_objects_are_still_being_read(unread: dict[str, str], reportable: bool) -> None:
    assert SETTLED.seeing(unread=unread).plan().is_reportable is reportable


# --- what cannot be read, and what follows from it

OBJECTS = ", so it neither makes nor changes them"
WHY_MISSING = ", so it cannot tell why pods are missing"
LOST_NODES = ", so it cannot tell a lost node from a Coreapp that does not answer"
DRAINS = ", and moves no shard off a drained or dead node before its pod fails"
CLIENT = ", and sends nothing to the client"


@pytest.mark.parametrize(
    ("kinds", "consequences"),
    [
        (["Service"], OBJECTS),
        (["Event"], WHY_MISSING),
        (["Node"], LOST_NODES + DRAINS),
        (["Lease"], LOST_NODES),
        (["Secret"], OBJECTS + CLIENT),
        (["Event", "Node"], WHY_MISSING + LOST_NODES + DRAINS),
        (["Event", "Lease", "Secret"], OBJECTS + WHY_MISSING + LOST_NODES + CLIENT),
    ],
)
def test_ReadFailed_says_which_kinds_what_follows_and_the_first_answer(kinds: list[str], consequences: str) -> None:  # noqa: N802
    one = SETTLED.seeing(unread={kind: f"list {kind}: HTTP 403" for kind in reversed(kinds)})

    stuck = one.plan().stuck
    assert stuck is not None
    assert stuck.rule == "ReadFailed"
    assert stuck.why == (
        f"The operator cannot read objects of kind {', '.join(kinds)}{consequences}. "
        f"Give it its rights back, or correct what is named: list {kinds[0]}: HTTP 403"
    )


def test_what_is_only_being_read_is_no_failure() -> None:
    assert "ReadFailed" not in rules_of(SETTLED.seeing(unread={"Service": ""}))


# --- login


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (SETTLED.client(shards=None, asked_at=None, login=Login.REJECTED), True),
        (SETTLED.client(login=Login.REJECTED), False),
        (SETTLED.client(login=Login.REJECTED, asked_at=NOW - seconds(60)), False),
        (growing().client(login=Login.REJECTED, asked_at=NOW - seconds(60)), True),
        (growing().client(login=Login.REJECTED), False),
        (WITNESSES["LoginRejected"].seeing(missing="Secret acme-admin"), False),
    ],
    ids=["number unknown", "nothing wanted", "nothing wanted of late", "number is old", "number is fresh", "the Secret is missing"],
)
def test_a_rejected_login_matters_while_a_number_is_needed(one: Situation, says: bool) -> None:
    assert ("LoginRejected" in rules_of(one)) is says


# --- what is said in any case


def test_an_invalid_field_is_said_along_with_all_that_is_under_way() -> None:
    """Unless something else waits for a person, or the cluster is being deleted."""
    busy = {name: one for name, one in WITNESSES.items() if one.plan().stuck is None and name != "Deleting"}
    stuck = {name: replace(one, desired=replace(one.desired, invalid="Field x is ignored.")).plan().stuck for name, one in busy.items()}

    assert {name: one.why if one else None for name, one in stuck.items()} == dict.fromkeys(busy, "Field x is ignored.")


def test_a_restart_is_awaited_for_Coreapps_that_were_started_and_not_for_new_ones() -> None:  # noqa: N802
    """The restart is awaited only while a Coreapp that was started has not said its number."""
    accepted = situation().settled(shards=4).noted(4, Answer.ACCEPTED, origin=2)
    few = accepted.with_pod(4, phase="Pending", ready=False, report=None).with_holder(0, ready=False)

    assert few.row() == "ReplacingPods"
    assert few.with_holder(0, report=None).row() == "Restarting"
