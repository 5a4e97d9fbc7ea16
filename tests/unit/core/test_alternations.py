"""A holder that does not serve, in whichever way its answers alternate: each answer ends the evidence of the one before (docs/failover.md).

The observations are played one after the other, and each plan's facts are kept for the next one, as the loop keeps them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from whatsapp_operator.core.actions import Handover
from whatsapp_operator.core.snapshot import Evidence, Report

from .plans import of
from .situations import NOW, Situation, seconds, situation

SILENT = object()
NOT_SERVING: dict[str, Report | object | None] = {
    "errors": None,
    "silence": SILENT,
    "no shard": Report(shards=2),
    "another epoch": Report(shard=0, epoch="99-other", shards=2, gateway="connected"),
    "rejected epoch": Report(shard=0, epoch="10-first", shards=2, fenced=True),
    "no number": Report(),
    "another number": Report(shards=4),
    "rejected epoch and another number": Report(shard=0, epoch="10-first", shards=4, fenced=True),
}
"""What a Coreapp may answer that holds shard 0 by its Service and does not serve it."""
SERVING = Report(shard=0, epoch="10-first", shards=2, gateway="connected")
KUBELETS: dict[str, dict[str, Any]] = {
    "ready": {},
    "no longer ready": {"ready": False, "lost_readiness": True},
    "never ready since it started": {"ready": False, "lost_readiness": False},
}
SPELLS = (0.5, 2.0)
"""For how many seconds it goes on giving one of the two answers: each is too short to be evidence by itself."""


def answering(one: Situation, answer: Report | object | None, began: float, kubelet: Mapping[str, Any]) -> Situation:
    """The holder of shard 0 has given this answer since that second."""
    if answer is SILENT:
        return one.with_holder(0, report=SERVING, unresponsive_since=NOW + seconds(began), **kubelet)
    return one.with_holder(0, report=answer, **kubelet)


def moved(
    start: Situation, answers: Iterable[Report | object | None], spell: float, kubelet: Mapping[str, Any], *, within: float
) -> tuple[float, Evidence] | None:
    """Return after how many seconds shard 0 is handed over, and why; None: it is not."""
    since: dict[str, Any] = {}
    at, turns = 0.0, itertools.cycle(answers)
    while at <= within:
        answer, began = next(turns), at
        # The loop is woken by each change of an answer, and again before the next one.
        for now in (began, began + 0.9 * spell):
            one = answering(start.later(now), answer, began, kubelet).seeing(since=since)
            plan = one.plan()
            if handovers := of(plan, Handover):
                assert [move.route.shard for move in handovers] == [0]
                return now, handovers[0].evidence
            since = {fact: since.get(fact, NOW + seconds(now)) for fact in plan.holds}
        at = began + spell
    return None


PAIRS = [*itertools.combinations(NOT_SERVING, 2), ("errors", "errors")]
CONTRADICTED = {"errors", "silence"}
"""If a Coreapp gives only these in turn while its kubelet, which probes the same port, calls it ready, the cause is between it and the
operator."""


def bound(pair: tuple[str, str], kubelet: str) -> float | None:
    """Return after how many seconds the shard must be moved; None: it must not."""
    if set(pair) <= CONTRADICTED:
        return {"ready": None, "no longer ready": 3, "never ready since it started": 180}[kubelet]
    return 5 if {"no shard", "another epoch", "rejected epoch"} & set(pair) else 180


@pytest.mark.parametrize("kubelet", KUBELETS)
@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
@pytest.mark.parametrize("spell", SPELLS)
def test_a_holder_that_does_not_serve_is_replaced_however_its_answers_alternate(pair: tuple[str, str], kubelet: str, spell: float) -> None:
    limit = bound(pair, kubelet)
    answers = [NOT_SERVING[name] for name in pair]
    found = moved(situation().settled().with_nodes(), answers, spell, KUBELETS[kubelet], within=(limit or 600) + 2 * spell)

    assert (found is not None) == (limit is not None), found
    assert found is None or limit is None or found[0] >= limit, "it gets that time"


@pytest.mark.parametrize("kubelet", KUBELETS)
@pytest.mark.parametrize("answer", NOT_SERVING)
def test_a_holder_that_says_between_times_that_it_serves_keeps_its_shard(answer: str, kubelet: str) -> None:
    answers = [NOT_SERVING[answer], SERVING]

    assert moved(situation().settled().with_nodes(), answers, 2, KUBELETS[kubelet], within=400) is None
