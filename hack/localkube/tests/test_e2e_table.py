"""The table of faults on kind: complete, with the goals of the issue, and in an order in which one undoes the other."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import pytest

from localkube.scenarios import e2e
from localkube.scenarios.faults.kind import FAULTS
from localkube.scenarios.kind.nodes import NAME
from localkube.scenarios.runner.case import Fault, Series, chosen
from localkube.scenarios.runner.report import limit
from localkube.scenarios.runner.session import rounds

DEMANDED = {
    "create": "create",
    "grow": "grow",
    "shrink": "shrink",
    "holder deleted": "holder-deleted",
    "holder force-deleted": "holder-force-deleted",
    "holder's container killed": "container-killed",
    "switchover": "switchover",
    "holder frozen (SIGSTOP)": "holder-frozen",
    "node stopped (docker stop)": "node-stopped",
    "node paused": "node-paused",
    "node partitioned (iptables in the node)": "node-parted",
    "drain of a node": "drain",
    "leader killed": "leader-killed",
    "leader's node lost": "leader-node-lost",
    "operator upgrade without any failover": "operator-upgrade",
    "chart upgrade": "chart-upgrade",
    "uninstall that leaves CRs' pods serving and CRDs kept": "uninstall",
}
RELEASES = {"images-changed", "cluster-chart", "operator-upgrade", "chart-upgrade", "uninstall"}
GOALS = {
    "container-killed": 0.5,
    "holder-force-deleted": 1.5,
    "holder-frozen": 4.5,
    "node-stopped": 6.0,
    "node-paused": 6.0,
    "node-parted": 6.0,
    "leader-node-lost": 8.0,
    "leader-node-parted": 8.0,
    "leader-killed": 5.0,
}


def row(name: str) -> Fault[Any]:
    return next(one for one in FAULTS if one.name == name)


def test_every_row_of_the_issue_is_in_the_table_once() -> None:
    names = [one.name for one in FAULTS]
    assert set(DEMANDED.values()) <= set(names)
    assert len(names) == len(set(names))


def test_goals_are_those_of_the_issue() -> None:
    assert {name: row(name).goal for name in GOALS} == GOALS


def test_each_row_with_a_goal_has_a_bound_and_what_is_decided_at_once_has_one_anyway() -> None:
    immediate = {"switchover", "holder-deleted", "holder-force-deleted", "container-killed", "drain"}
    assert {one.name for one in FAULTS if one.at_once} == immediate
    assert {name: limit(row(name)) for name in immediate} == dict.fromkeys(immediate, 5.0) | {"holder-force-deleted": 15.0}
    assert {name: limit(row(name)) for name in GOALS if name not in immediate} == {
        name: 2 * goal for name, goal in GOALS.items() if name not in immediate
    }
    assert all(limit(one) <= one.allowed for one in FAULTS), "no bound is looser than what is allowed anyway"


def test_a_message_through_the_old_pod_is_no_handover() -> None:
    assert not [one.name for one in FAULTS if one.resumes]


def test_what_is_planned_may_refuse_nothing() -> None:
    planned = {"create", "switchover", "holder-deleted", "drain", "leader-killed"} | RELEASES
    assert {one.name for one in FAULTS if one.silent} == planned


def test_only_nodes_are_struck_seldom_and_only_releases_rolled_seldom() -> None:
    assert {one.name for one in FAULTS if one.series is Series.NODE} == {name for name in (one.name for one in FAULTS) if "node" in name}
    assert {one.name for one in FAULTS if one.series is Series.RELEASE} == RELEASES


@pytest.mark.parametrize("one", FAULTS, ids=lambda one: str(one.name))
def test_a_row_says_what_is_expected(one: Fault[Any]) -> None:
    assert one.what
    assert bool(one.evidence) is one.failover
    assert one.goal is None or one.goal < one.allowed, "a missed goal is slow, what is not allowed is broken"


def test_shrinking_undoes_growing_so_they_are_played_in_turn() -> None:
    groups = [[one.name for one in group] for group in rounds(FAULTS)]
    assert ["grow", "shrink"] in groups
    assert list(itertools.chain(*groups)) == [one.name for one in FAULTS]


def test_a_row_that_undoes_another_can_be_played_alone() -> None:
    assert [[one.name for one in group] for group in rounds(chosen(FAULTS, "shrink"))] == [["shrink"]]


def parsed(*words: str) -> argparse.Namespace:
    return e2e.parsed(words, Path("/repository"))


def test_the_numbers_of_the_issue_are_the_defaults() -> None:
    this = e2e.session_of(parsed())
    assert (this.times(row("drain")), this.times(row("node-paused"))) == (20, 3)


def test_numbers_can_be_given_for_each_series() -> None:
    this = e2e.session_of(parsed("--n", "2", "--node-n", "1", "--release-n", "4", "--only", "drain,uninstall"))
    assert [this.times(row(name)) for name in ("grow", "node-killed", "uninstall")] == [2, 1, 4]
    assert [fault.name for fault in this.faults] == ["drain", "uninstall"]


@pytest.mark.parametrize("words", [["--n", "0"], ["--only", "nobody"]])
def test_what_cannot_be_done_ends_with_a_sentence(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(*words)
    assert "error:" in capsys.readouterr().err


def test_the_cluster_has_a_name_of_its_own() -> None:
    assert f"--name={NAME}" == e2e.NAMED
