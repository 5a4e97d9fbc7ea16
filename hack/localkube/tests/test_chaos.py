"""Chaos without a cluster: the table of faults, and the options."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from localkube.scenarios import chaos
from localkube.scenarios.faults.hollow import FAULTS, SHORT, named
from localkube.scenarios.runner.case import Fault

ROOT = Path(__file__).resolve().parents[3]
# A word that the operator can never say must not be waited for.
WORDS = {"PodDeleted", "PodDraining", "PodFailed", "ContainerTerminated", "NodeGone", "ConnectionLost", "ProbeTimeout", "NotReady"}
ALSO = {"RestartOverdue", "HolderDisagrees", "RolledOut"}

# ---------------------------------------------------------------- the table

DEMANDED = {
    "deleted": "pod-deleted",
    "force-deleted": "pod-force-deleted",
    "evicted": "pod-evicted",
    "SIGKILL": "container-killed",
    "SIGTERM with long grace": "long-grace",
    "hang": "hang",
    "slow answers": "slow-answers",
    "30 % packet loss on probes": "lost-probes",
    "port closed": "port-closed",
    "port half-open": "port-half-open",
    "node lost": "node-lost",
    "node flapping": "node-flapping",
    "node back with old holder": "node-back",
    "API server down 10 s": "api-down-10s",
    "API server down 60 s": "api-down-60s",
    "one of two API servers hangs": "api-hangs",
    "watch silently dead": "watch-dead",
    "429 answers": "api-429",
    "leader killed": "leader-killed",
    "leader paused": "leader-paused",
    "leader and holder at once": "leader-and-holder",
    "two holders at once": "two-holders",
    "all of a zone": "zone-lost",
    "last spare": "last-spare",
    "failure during grow": "during-grow",
    "failure during shrink": "during-shrink",
    "failure during Set Shards": "during-set-shards",
    "leader restarted behind egress deny": "leader-blind",
    "one Secret unreadable": "secret-unreadable",
    "rights on one kind taken and given back": "rights-taken",
    "half of all calls answered 429": "half-429",
    "watches killed with 401": "watches-401",
    "a mutating webhook": "admission",
    "a hostile annotation on a neighbour": "hostile-neighbour",
    "an older Service put back": "older-service",
}
"""The issue's list, and what it is called here."""


def test_every_fault_of_the_issue_is_in_the_table_once() -> None:
    names = [fault.name for fault in FAULTS]
    assert set(DEMANDED.values()) <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.name))
def test_a_fault_says_what_is_expected(fault: Fault[Any]) -> None:
    assert fault.what
    assert fault.evidence <= WORDS | ALSO
    if fault.failover:
        assert fault.evidence, "a handover has evidence"
    else:
        assert (fault.evidence, fault.goal) == (frozenset(), None)
        assert fault.watch > 3, "a wrong failover comes after 3 s of silence"


@pytest.mark.parametrize(
    ("name", "goal"),
    [
        ("pod-deleted", 0.2),
        ("container-killed", 0.2),
        ("hang", 4.0),
        ("node-lost", 6.0),
        ("leader-and-holder", 8.0),
        ("leader-killed", None),
    ],
)
def test_the_goals_are_those_of_the_issue(name: str, goal: float | None) -> None:
    assert named(name)[0].goal == goal


def test_the_short_round_is_a_handful_of_the_table() -> None:
    assert len(named(",".join(SHORT))) == len(SHORT) == 9


def test_faults_are_chosen_by_name_in_the_tables_order() -> None:
    assert [fault.name for fault in named("hang,pod-deleted")] == ["pod-deleted", "hang"]
    with pytest.raises(argparse.ArgumentTypeError, match="no fault nonsense, x; there are pod-deleted, "):
        named("x,hang,nonsense")


# ---------------------------------------------------------------- options


def options(*argv: str) -> argparse.Namespace:
    return chaos.parsed(argv, ROOT)


def test_the_full_round_plays_each_fault_ten_times() -> None:
    got = options()
    assert (got.n, got.clusters, got.faults) == (10, 10, FAULTS)


def test_a_soak_is_played_once() -> None:
    got = options("--soak", "600", "--n", "3")
    assert (got.n, [fault.name for fault in got.faults]) == (1, ["soak"])


def test_only_names_faults_and_a_wrong_name_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert [fault.name for fault in options("--only", "hang,pod-deleted").faults] == ["pod-deleted", "hang"]
    with pytest.raises(SystemExit):
        options("--only", "hung")
    assert "there is no fault hung" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["--n 0", "--n -1", "--clusters 0", "--clusters -1", "--soak -1", "--soak nan", "--soak inf"])
def test_a_number_that_cannot_be_is_rejected_and_no_default_taken_for_it(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options(*words.split())
    assert "at least 1" in capsys.readouterr().err
