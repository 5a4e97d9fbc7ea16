"""What is no evidence although it looks like it, and what is certain even if nothing of the holder is left."""

from __future__ import annotations

import pytest

from whatsapp_operator.core import evidence
from whatsapp_operator.core.snapshot import Answer, Evidence, Report, Silence

from .situations import NOW, Situation, epoch_of, labels_for, seconds, situation
from .test_evidence import failure
from .witnesses import growing, restarting

DISAGREED = {"HolderDisagrees/0/10-first": NOW - seconds(600)}


def test_a_holder_that_does_not_know_the_number_of_shards_does_not_disagree_even_if_nobody_knows_it() -> None:
    one = situation().settled().reporting(None).with_holder(0, report=Report()).seeing(since=DISAGREED)

    assert failure(one) is None


@pytest.mark.parametrize(("answer", "is_failed"), [(Answer.UNKNOWN, False), (Answer.BUSY, True)])
def test_a_call_whose_outcome_is_unknown_may_have_taken_the_role_of_a_holder(answer: Answer, is_failed: bool) -> None:
    """A restart explains that a holder reports no role (laws#9). A busy client restarted nothing."""
    one = growing().noted(4, answer).with_holder(0, report=Report(shards=2)).seeing(since=DISAGREED)

    assert (failure(one) is not None) is is_failed


def test_a_failed_self_check_holds_back_nothing_that_is_certain_nor_a_shard_without_a_holder() -> None:
    late = situation().settled().seeing(silence=Silence(lag=seconds(2)))

    assert [*evidence.held_back(late.holder_deleted(0).facts())] == []
    assert [*evidence.held_back(late.with_route(0, holder=None, holder_uid=None).facts())] == []


SETTLED = situation().settled(shards=4)
BACK = restarting().restarted(4, [1, 2, 3, 4]).seeing(since={"EnoughAreBack/4-noted": NOW - seconds(10)})
"""All but the holder of shard 0 are back from a Set Shards restart, for ten seconds."""
AGAINST_ONE: dict[str, tuple[Situation, Evidence]] = {
    "it is evicted": (SETTLED.with_holder(0, deleting=True, disrupted=True), Evidence.POD_DRAINING),
    "it is deleted": (SETTLED.with_holder(0, deleting=True), Evidence.POD_DELETED),
    "it is not there": (SETTLED.holder_deleted(0), Evidence.POD_DELETED),
    "its node was deleted": (SETTLED.with_nodes().with_node(0, gone=True), Evidence.NODE_GONE),
    "its node is out of service": (SETTLED.with_nodes().with_node(0, out_of_service=True), Evidence.NODE_GONE),
    "it failed": (SETTLED.with_holder(0, phase="Failed"), Evidence.POD_FAILED),
    "it ended": (SETTLED.with_holder(0, phase="Succeeded"), Evidence.POD_FAILED),
    "it has the labels of another shard": (SETTLED.with_holder(0, labels=labels_for(1, epoch_of(1))), Evidence.LABEL_CONFLICT),
    "it is not back": (BACK.with_holder(0, ready=False), Evidence.RESTART_OVERDUE),
    "its container ended": (SETTLED.with_holder(0, terminated=True), Evidence.CONTAINER_TERMINATED),
    "it refuses connections": (SETTLED.with_holder(0, broken_at=NOW), Evidence.CONNECTION_LOST),
    "it does not answer": (SETTLED.with_holder(0, unresponsive_since=NOW - seconds(3)), Evidence.PROBE_TIMEOUT),
    "its kubelet calls it unready": (
        SETTLED.with_holder(0, ready=False, lost_readiness=True, report=None).seeing(since={"NotReady/uid-0": NOW - seconds(3)}),
        Evidence.NOT_READY,
    ),
    "it says that it serves no shard": (SETTLED.with_holder(0, report=Report(shards=4)).seeing(since=DISAGREED), Evidence.HOLDER_DISAGREES),
}


@pytest.mark.parametrize(("one", "found"), AGAINST_ONE.values(), ids=AGAINST_ONE)
def test_what_speaks_against_one_holder_speaks_against_no_other(one: Situation, found: Evidence) -> None:
    assert {shard: failure(one, shard) for shard in range(4)} == {0: found, 1: None, 2: None, 3: None}


def test_the_Service_of_another_owner_excuses_only_its_own_labels() -> None:  # noqa: N802
    one = SETTLED.with_route(2, foreign=True).with_holder(0, labels=labels_for(1, epoch_of(1)))

    assert failure(one) is Evidence.LABEL_CONFLICT


PROVEN_BY_OLD_LISTS = {
    "it is evicted",
    "it is deleted",
    "it is not there",
    "its node was deleted",
    "its node is out of service",
    "it failed",
    "it ended",
    "it refuses connections",
}


@pytest.mark.parametrize("name", AGAINST_ONE)
def test_what_is_proven_by_lists_that_are_a_moment_old(name: str) -> None:
    one, why = AGAINST_ONE[name]

    assert evidence.is_proven_by_old_lists(why, one.facts().holder(one.route(0))) is (name in PROVEN_BY_OLD_LISTS)


@pytest.mark.parametrize("why", [Evidence.CONTAINER_TERMINATED, Evidence.CONNECTION_LOST])
def test_a_refused_connection_proves_it_of_a_coreapp_that_has_answered_this_process(why: Evidence) -> None:
    """An old list may call one ready or unready that never answered, and that decides (laws#15)."""
    refuses = SETTLED.with_holder(0, terminated=True, broken_at=NOW)
    never_heard = refuses.with_holder(0, never_responded=True)
    proven = [evidence.is_proven_by_old_lists(why, one.facts().holder(one.route(0))) for one in (refuses, never_heard)]

    assert proven == [True, False]


def test_what_a_user_asks_for_is_not_proven_by_old_lists() -> None:
    assert not evidence.is_proven_by_old_lists(Evidence.REQUESTED, SETTLED.facts().holder(SETTLED.route(0)))
    assert not evidence.is_proven_by_old_lists(Evidence.REQUESTED, None)


def test_of_a_pod_that_is_not_there_only_its_deletion_is_proven() -> None:
    assert evidence.is_proven_by_old_lists(Evidence.POD_DELETED, None)
    assert not evidence.is_proven_by_old_lists(Evidence.CONNECTION_LOST, None)
