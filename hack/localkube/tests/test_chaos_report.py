"""What chaos says, complains of and writes into its file."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from localkube.scenarios.faults import hollow as table
from localkube.scenarios.faults.hollow import FAULTS, soak
from localkube.scenarios.runner import report as chaos_print
from localkube.scenarios.runner.case import Fault, nothing
from localkube.scenarios.runner.judge import UNREPORTED
from localkube.scenarios.runner.player import Outcome

from .chaos_parts import QUICK

QUIET = Fault(name="quiet", what="q", strike=nothing, failover=False, watch=12.0)


def quick(*times: float, **more: Any) -> Outcome:
    return Outcome("quick", times=list(times), **{"evidence": Counter({"PodDeleted": 2}), **more})


def test_all_is_well_without_complaints() -> None:
    good = Outcome("quick", times=[0.1, 0.2], evidence=Counter({"PodDeleted": 2, UNREPORTED: 1}), sent=100)
    assert chaos_print.complaints(good, QUICK, n=2) == []
    assert chaos_print.complaints(Outcome("quiet", times=[0.01]), QUIET, n=1) == []


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (quick(0.1, 0.21), "quick: max is 0.210 s, the goal is 0.2 s (n = 2)"),
        (quick(0.1), "quick: measured 1 times only, not 2"),
        (quick(0.1, 0.1, evidence=Counter()), "quick: the evidence of 0 of 2 handovers was seen (PodDeleted)"),
        (
            quick(0.1, 0.1, evidence=Counter({"PodDeleted": 2, "NodeGone": 1})),
            "quick: evidence NodeGone is not what was to be seen (PodDeleted)",
        ),
        (quick(0.1, 0.1, wrong_failovers=["shard 1 of c00 to d (x)"]), "quick: 1 wrong failovers: shard 1 of c00 to d (x)"),
        (quick(0.1, 0.1, lost=3), "quick: 3 messages lost, 0 doubled"),
        (quick(0.1, 0.1, doubled=1), "quick: 0 messages lost, 1 doubled"),
        (quick(0.1, 0.1, violations=["one holder: two"]), "quick: laws broken: one holder: two"),
        (quick(0.1, 0.1, unsettled=["c00"]), "quick: not as wanted again: c00"),
        (quick(0.1, 0.1, troubles=["no operator leads"]), "quick: no operator leads"),
    ],
)
def test_everything_that_is_not_as_it_must_be_is_said(outcome: Outcome, said: str) -> None:
    assert chaos_print.complaints(outcome, QUICK, n=2) == [said]


def test_a_shard_that_was_not_handed_over_is_one_of_n_and_misses_the_goal() -> None:
    failed = Outcome("quick", times=[0.1], not_handed_over=["shard 0 of c01"], evidence=Counter({"PodDeleted": 1}))
    assert chaos_print.complaints(failed, QUICK, n=2) == [
        "quick: 1 of 2 failed, the goal is max 0.2 s",
        "quick: 1 of 2 shards not handed over within 30 s",
    ]
    found = chaos_print.figures(failed, QUICK)
    assert (found["n"], found["failures"], found["max"], found["met"]) == (2, 1, None, False)


def test_what_the_table_has_no_column_for_is_a_sentence_next_to_it() -> None:
    samples = [{"took": 0.12, "committed": 0.06, "decided": 0.03}, {"took": 0.7, "committed": None, "decided": None}]
    assert chaos_print.remarks(quick(0.12, 0.7, samples=samples, rejected=[7, 1])) == [
        "decided after p50 30 ms, max 30 ms (n = 1)",
        "committed after p50 60 ms, max 60 ms (n = 1)",
        "7 tries were rejected on shards that were struck, 1 on others",
    ]


def test_the_bound_of_what_is_decided_at_once_is_below_the_path_over_the_probes_and_no_bound_is_loose() -> None:
    for fault in FAULTS:
        if fault.goal == table.QUICK_S:
            assert chaos_print.bound(fault) == pytest.approx(2.0)
        elif fault.goal is not None:
            assert fault.goal < chaos_print.bound(fault) <= min(2 * fault.goal, fault.goal + 4.0)


def test_the_file_holds_the_figures_of_each_fault() -> None:
    played = [(QUICK, Outcome("quick", times=[0.1, 0.3], sent=9)), (QUIET, Outcome("quiet"))]
    found = chaos_print.report(played, {"clusters": 2}, beyond=chaos_print.bound)
    again = json.loads(json.dumps(found))
    assert (again["baseline_s"], again["clusters"]) == (35.0, 2)
    quick = again["faults"]["quick"]
    assert {key: quick[key] for key in ("n", "p50", "max", "goal", "sent")} == {
        "n": 2,
        "p50": 0.1,
        "max": 0.3,
        "goal": 0.2,
        "sent": 9,
    }
    assert "p95" not in quick, "it takes 40 samples"
    assert "p50" not in again["faults"]["quiet"], "nothing was measured"


def test_the_soak_expects_that_nothing_moves() -> None:
    fault = soak(600.0)
    assert (fault.failover, fault.watch, fault.everybody, fault.effects) == (False, 600.0, True, ("probes lost",))
    assert fault.name not in {one.name for one in table.FAULTS}
