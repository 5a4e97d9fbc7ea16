"""What an operator that sees only part of the world may conclude: less, and never more than a bounded harm."""

from __future__ import annotations

from typing import Any

import pytest

from whatsapp_operator.core.actions import Delete, Handover
from whatsapp_operator.core.self_check import self_check
from whatsapp_operator.core.snapshot import Answer, Evidence, Silence

from .situations import NOW, Situation, seconds, situation
from .test_evidence import failure, nodes, of
from .witnesses import restarting


def cut_off(span: float = 60, shards: int = 4, spares: int = 2) -> Situation:
    """A leader that started where it reaches no Coreapp, so long ago; all pods are ready to their kubelets."""
    one = situation().settled(shards=shards, spares=spares).with_nodes()
    one = one.all_pods(report=None, never_responded=True, unresponsive_since=NOW - seconds(span))
    names = tuple(one.snapshot.nodes or ())
    count = shards + spares
    return one.seeing(silence=Silence(targets=count, unresponsive=count, never_responded=names, nodes=frozenset(names)))


def test_a_leader_that_never_reached_anybody_ends_and_moves_nothing() -> None:
    plan = cut_off().plan()

    assert (of(plan, Delete), of(plan, Handover)) == ([], [])


@pytest.mark.parametrize(
    "changes",
    [{"unresponsive_since": NOW - seconds(60)}, {"broken_at": NOW - seconds(60)}],
    ids=["silent", "rejected"],
)
def test_nor_on_few_nodes_where_the_self_check_passes(changes: dict[str, Any]) -> None:
    one = situation().settled().with_nodes().with_holder(0, report=None, never_responded=True, **changes)

    assert failure(one) is None
    assert of(one.plan(), Delete) == []
    responses = one.with_holder(0, never_responded=False)
    assert failure(responses) in {Evidence.PROBE_TIMEOUT, Evidence.CONNECTION_LOST}


@pytest.mark.parametrize(
    "node",
    [{"renewed_at": NOW - seconds(60)}, {"ready": None}],
    ids=["its Lease is stale", "the control plane calls it Unknown"],
)
@pytest.mark.parametrize(
    ("sign", "evidence"),
    [
        ({"unresponsive_since": NOW - seconds(3)}, Evidence.PROBE_TIMEOUT),
        ({"broken_at": NOW - seconds(3)}, Evidence.CONNECTION_LOST),
    ],
    ids=["silent", "rejected"],
)
def test_what_the_kubelet_of_a_lost_node_said_last_does_not_count(sign: dict[str, Any], evidence: Evidence, node: dict[str, Any]) -> None:
    """The leader's node was lost before its successor had reached the Coreapp there."""
    one = situation().settled().with_nodes().with_holder(0, report=None, never_responded=True, **sign)
    unresponsive = int("unresponsive_since" in sign)
    one = one.seeing(silence=Silence(targets=3, unresponsive=unresponsive, never_responded=("node-0",) * unresponsive))

    assert failure(one) is None
    lost = one.with_node(0, **node)
    assert failure(lost) is evidence
    assert of(lost.plan(), Handover)
    assert of(lost.plan(), Delete) == []


def test_a_kubelet_counts_whose_node_is_not_known() -> None:
    """Nodes may not be read, or it has just come."""
    one = situation().settled().with_nodes().with_holder(0, report=None, never_responded=True, unresponsive_since=NOW - seconds(3))

    assert failure(one.seeing(nodes=None)) is None
    assert failure(one.with_holder(0, node="new")) is None


def test_what_the_kubelet_says_too_is_evidence() -> None:
    one = situation().settled().with_nodes().with_holder(0, report=None, never_responded=True, ready=False, lost_readiness=True)
    one = one.with_holder(0, unresponsive_since=NOW - seconds(3))

    assert failure(one) is Evidence.PROBE_TIMEOUT
    assert failure(one.with_holder(0, terminated=True)) is Evidence.CONTAINER_TERMINATED


def test_a_pod_that_we_cannot_reach_is_not_overdue_after_a_restart() -> None:
    one = restarting().noted(4, Answer.ACCEPTED).restarted(4, [1, 2, 3, 4]).with_holder(0, report=None, broken_at=NOW - seconds(20))
    one = one.seeing(since={"EnoughAreBack/4-noted": NOW - seconds(20)})

    assert failure(one) is Evidence.RESTART_OVERDUE
    assert failure(one.with_holder(0, never_responded=True)) is None


@pytest.mark.parametrize(
    ("targets", "silent", "never_responded", "fails"),
    [
        (6, 6, 6, True),  # on two nodes only
        (6, 2, 2, True),
        (6, 2, 1, False),  # a holder that was heard hangs, and a spare was never reached
        (6, 1, 0, False),  # a holder that was heard hangs
        (6, 0, 0, False),
    ],
)
def test_the_self_check_fails_when_most_of_the_silent_never_answered(targets: int, silent: int, never_responded: int, fails: bool) -> None:
    silence = Silence(targets=targets, unresponsive=silent, never_responded=("a",) * never_responded, nodes=frozenset("ab"))

    assert (self_check(silence, nodes("ab"), NOW) is not None) == fails


def hung(*ordinals: int, shards: int = 4, spares: int = 2, extra: int = 4) -> Situation:
    """These standbys do not answer, for certain; there are some more of them than wanted."""
    one = situation().settled(shards=shards, spares=spares).with_nodes()
    one = one.with_pods(range(shards + spares, shards + spares + extra)).with_nodes()
    for ordinal in ordinals:
        one = one.with_pod(ordinal, unresponsive_since=NOW - seconds(20), report=None)
    return one


def ended(one: Situation) -> list[str]:
    return [action.ref.name for action in of(one.plan(), Delete)]


def test_no_more_pods_are_ended_at_a_time_than_there_are_spares() -> None:
    assert ended(hung(4, 5, 6, 7)) == ["acme-coreapp-4", "acme-coreapp-5"]
    assert ended(hung(5, 6, 7, spares=1)) == ["acme-coreapp-5"]
    assert ended(hung(5, 6, 7, spares=0)) == ["acme-coreapp-5"]


def test_the_next_one_only_when_the_last_is_back() -> None:
    one = hung(4, 5, 6, 7)

    assert ended(one.seeing(ended=frozenset({"acme-coreapp-8"}))) == ["acme-coreapp-4"]
    assert ended(one.seeing(ended=frozenset({"acme-coreapp-8", "acme-coreapp-9"}))) == []


def test_what_is_terminating_counts_for_a_new_leader() -> None:
    assert ended(hung(4, 5, 6, 7).with_pod(8, deleting=True)) == ["acme-coreapp-4"]


def test_a_successor_that_hangs_too_is_ended_again() -> None:
    one = hung(4, 5, 6, 7).seeing(ended=frozenset({"acme-coreapp-4", "acme-coreapp-5"}))

    assert ended(one) == ["acme-coreapp-4", "acme-coreapp-5"]


def test_a_pod_that_was_never_ready_is_ended_when_it_said_nothing_for_as_long_as_a_restart_may_take() -> None:
    one = situation().settled().with_nodes().with_pod(2, ready=False, report=None, never_responded=True)

    assert ended(one.with_pod(2, unresponsive_since=NOW - seconds(179))) == []
    assert ended(one.with_pod(2, unresponsive_since=NOW - seconds(180))) == ["acme-coreapp-2"]
