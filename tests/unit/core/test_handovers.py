"""Which standby a planned handover may take, and which it may not."""

from __future__ import annotations

import pytest

from whatsapp_operator.core import handovers, rollout
from whatsapp_operator.core.actions import Handover

from .situations import Situation, situation
from .witnesses import restarting, rolling_out


def moves(found: tuple[Handover, ...]) -> list[tuple[int, int]]:
    return [(move.route.shard, move.to.ordinal) for move in found]


def draining(*ordinals: int, spares: int = 2) -> Situation:
    """The nodes of these pods are being drained."""
    one = situation().settled(spares=spares).with_nodes()
    for ordinal in ordinals:
        one = one.with_node(ordinal, leaving="cordoned")
    return one


def test_two_shards_of_drained_nodes_share_no_standby_and_none_goes_to_a_drained_node() -> None:
    """The second would be moved off that node again, with one more interruption."""
    assert moves(handovers.drain_switchovers(draining(0, 1, 3).facts())) == [(0, 2)]


def test_a_drained_shard_goes_to_a_standby_that_stays_even_if_only_the_leaving_one_answers() -> None:
    assert moves(handovers.drain_switchovers(draining(0, 2).with_pod(3, report=None).facts())) == [(0, 3)]


def test_no_shard_is_drained_while_all_restart_although_a_standby_is_back() -> None:
    """The holder restarts anyway, and takes its shard again: a move would be one interruption more."""
    one = restarting().restarted(4, [4]).with_nodes().with_node(0, leaving="cordoned")

    assert handovers.drain_switchovers(one.facts()) == ()
    assert moves(handovers.drain_switchovers(one.seeing(operation=None).facts())) == [(0, 4)]


def test_an_evicted_holder_is_replaced_by_a_standby_on_a_drained_node_if_there_is_no_other() -> None:
    """It is a failover: any holder is better than none."""
    evicted = draining(2, spares=1).with_holder(0, deleting=True, disrupted=True)

    assert moves(handovers.failovers(evicted.facts())) == [(0, 2)]


@pytest.mark.parametrize(("ordinal", "moved"), [(2, [(0, 2)]), (3, [])])
def test_shards_are_consolidated_onto_ordinals_that_remain(ordinal: int, moved: list[tuple[int, int]]) -> None:
    """Three Coreapps remain: ordinals 0 to 2."""
    one = situation().settled().with_pods([3, 4]).held_by(0, 4)
    for other in {0, 2, 3} - {ordinal}:
        one = one.with_pod(other, ready=False)

    assert moves(handovers.consolidations(one.facts())) == moved


def test_a_shard_is_rolled_out_to_no_standby_on_a_drained_node() -> None:
    one = rolling_out().with_pod(2, revision="rev-1").with_nodes()

    assert moves(rollout.next_switchover(one.facts())) == [(0, 2)]
    assert moves(rollout.next_switchover(one.with_node(2, leaving="cordoned").facts())) == [(0, 3)]
    both = one.with_node(2, leaving="cordoned").with_node(3, leaving="cordoned")
    assert moves(rollout.next_switchover(both.facts())) == []


def test_a_shard_is_rolled_out_to_no_standby_whose_template_is_unknown() -> None:
    one = rolling_out().with_pod(2, revision=None).with_pod(3, revision=None)

    assert moves(rollout.next_switchover(one.facts())) == []
