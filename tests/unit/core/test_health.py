"""What a node and a restart say of a Coreapp, at the limits."""

from __future__ import annotations

import pytest

from whatsapp_operator.core import health
from whatsapp_operator.core.desired import Probe
from whatsapp_operator.core.snapshot import Answer, Report, Silence

from .situations import NOW, Situation, seconds, situation
from .witnesses import out_of_reach, restarting

SETTLED = situation().settled()


def is_node_alive(one: Situation) -> bool:
    return health.is_node_alive(one.facts(), one.holder_of(0))


def silent(span: float, one: Situation = SETTLED) -> Situation:
    """The holder of shard 0 has not answered for so many seconds."""
    return one.with_holder(0, unresponsive_since=NOW - seconds(span))


def renewed(before: float) -> Situation:
    """Nodes are known; the Lease of the holder's node was renewed so many seconds ago."""
    return SETTLED.with_nodes().with_node(0, renewed_at=NOW - seconds(before))


@pytest.mark.parametrize(
    ("one", "alive"),
    [
        (SETTLED, False),
        (silent(14.9), False),
        (silent(15), True),
        (renewed(1), False),
        (silent(3, renewed(2.4)), True),
        (silent(3, renewed(2.5)), False),
        (silent(12, renewed(2.4).wanting(probe=Probe(period=seconds(20)))), False),
        (silent(3, renewed(2.4).with_node(0, presumed=True)), False),
        (silent(3, renewed(2.4).with_node(0, ready=None)), False),
        (silent(60, renewed(1).with_node(0, renewed_at=None)), False),
    ],
    ids=[
        "nodes unknown, it answers",
        "nodes unknown, a short silence",
        "nodes unknown, a silence as long as a Lease",
        "it answers",
        "renewed after the first probe without an answer",
        "renewed when that probe may have been sent",
        "the same with a longer period",
        "only presumed",
        "not ready",
        "never renewed",
    ],
)
def test_a_node_is_known_to_be_alive_by_what_it_did_after_the_silence_began(one: Situation, alive: bool) -> None:
    """Only on such a node may a silent Coreapp be ended."""
    assert is_node_alive(one) is alive


@pytest.mark.parametrize(("back", "enough"), [(3, False), (4, True), (5, True)])
def test_as_many_Coreapps_as_there_are_shards_are_enough(back: int, enough: bool) -> None:  # noqa: N802
    assert restarting().restarted(4, range(back)).facts().enough_are_back is enough


def test_none_are_enough_while_the_number_of_shards_is_unknown() -> None:
    assert not SETTLED.reporting(None).all_pods(report=Report()).facts().enough_are_back


@pytest.mark.parametrize(("span", "replaced"), [(59.9, []), (60, ["uid-0"])])
def test_a_Coreapp_out_of_reach_is_compensated_after_a_minute(span: float, replaced: list[str]) -> None:  # noqa: N802
    one = out_of_reach(span).replicas(3)

    assert [pod.uid for pod in one.facts().compensated] == replaced


@pytest.mark.parametrize(
    ("changes", "unready"),
    [
        ({"report": None}, True),
        ({"unresponsive_since": NOW}, True),
        ({}, False),
        ({"report": None, "lost_readiness": False}, True),
        ({"report": None, "phase": "Pending"}, False),
        ({"report": None, "terminated": True}, False),
    ],
    ids=["never asked", "an old answer", "it answers", "not ready yet", "not started yet", "ended"],
)
def test_what_the_kubelet_says_counts_unless_the_Coreapp_answers(changes: dict[str, object], unready: bool) -> None:  # noqa: N802
    one = SETTLED.with_holder(0, ready=False, **{"lost_readiness": True, **changes})

    assert health.is_unready(one.holder_of(0)) is unready


@pytest.mark.parametrize(
    ("one", "lost"),
    [
        (SETTLED, False),
        (SETTLED.with_nodes(), False),
        (SETTLED.with_nodes().with_holder(0, node="deleted"), True),
        (SETTLED.with_nodes().with_holder(0, node=None), False),
        (SETTLED.with_holder(0, node=None), False),
        (SETTLED.with_nodes().with_node(0, ready=None), True),
        (SETTLED.with_nodes().with_node(0, ready=False), False),
        (SETTLED.with_nodes().with_node(0, gone=True), True),
        (SETTLED.with_nodes().with_node(0, renewed_at=NOW - seconds(20)), True),
    ],
    ids=["nodes unknown", "alive", "no such node", "not scheduled", "neither", "unknown", "not ready", "gone", "Lease stale"],
)
def test_a_node_is_lost_if_it_is_gone_or_says_nothing(one: Situation, lost: bool) -> None:
    assert health.is_node_lost(one.facts(), one.holder_of(0)) is lost


@pytest.mark.parametrize(("span", "hung"), [(2.9, False), (3, True)])
def test_a_Coreapp_that_its_kubelet_calls_unready_for_long_is_hung_unless_a_restart_explains_it(span: float, hung: bool) -> None:  # noqa: N802
    one = SETTLED.with_nodes().with_holder(0, ready=False, lost_readiness=True, report=None)
    one = one.seeing(since={"NotReady/uid-0": NOW - seconds(span)})

    assert health.is_hung(one.facts(), one.holder_of(0)) is hung
    excused = one.noted(4, Answer.UNKNOWN)
    assert not health.is_hung(excused.facts(), excused.holder_of(0))


def test_a_Coreapp_that_ends_on_a_lost_node_is_out_of_reach_although_it_answered_last() -> None:  # noqa: N802
    """Nobody there can end it, and until then no other pod takes its place."""
    one = SETTLED.with_nodes().with_node(0, ready=None)

    assert one.facts().out_of_reach == ()
    assert [pod.ordinal for pod in one.with_pod(0, deleting=True).facts().out_of_reach] == [0]


@pytest.mark.parametrize("changes", [{"gone": True}, {"out_of_service": True}])
def test_no_Coreapp_on_a_node_that_is_gone_could_serve(changes: dict[str, bool]) -> None:  # noqa: N802
    one = SETTLED.with_nodes()

    assert [pod.ordinal for pod in one.facts().ready] == [0, 1, 2]
    assert [pod.ordinal for pod in one.with_node(2, **changes).facts().ready] == [0, 1]


def test_no_Coreapp_is_called_hung_while_this_process_may_be_the_cause() -> None:  # noqa: N802
    one = silent(3)

    assert health.is_hung(one.facts(), one.holder_of(0))
    late = one.seeing(silence=Silence(lag=seconds(2)))
    assert not health.is_hung(late.facts(), late.holder_of(0))
