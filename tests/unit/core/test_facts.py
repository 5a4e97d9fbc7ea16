"""Predicates and picks: the table of evidence row by row, what labels are worth, who may take a shard."""

# ruff: noqa: N802  (a test carries the word of its row as it is spelt, so that one grep finds everything)

from __future__ import annotations

from typing import Any

import pytest

from whatsapp_operator.core.evidence import EVIDENCE
from whatsapp_operator.core.snapshot import Answer, Evidence, Report

from .situations import NOW, Situation, epoch_of, labels_for, pod, route, seconds, situation
from .witnesses import growing, restarting


def failure(one: Situation, shard: int = 0) -> Evidence | None:
    return one.facts().failure(one.route(shard))


# --- the table of evidence


def test_evidence_is_asked_in_this_order() -> None:
    assert [proof.evidence for proof in EVIDENCE] == [
        Evidence.POD_DRAINING,
        Evidence.POD_DELETED,
        Evidence.NODE_GONE,
        Evidence.POD_FAILED,
        Evidence.LABEL_CONFLICT,
        Evidence.RESTART_OVERDUE,
        Evidence.CONTAINER_TERMINATED,
        Evidence.CONNECTION_LOST,
        Evidence.PROBE_TIMEOUT,
        Evidence.NOT_READY,
        Evidence.HOLDER_DISAGREES,
    ]


def test_no_evidence_against_a_holder_that_serves() -> None:
    assert failure(situation().settled()) is None


@pytest.mark.parametrize("changes", [{"ready": False}, {"report": None}, {"report": Report(shards=2)}, {"labels": {}}, {"ip": None}])
def test_no_evidence_in_what_proves_nothing(changes: dict[str, Any]) -> None:
    assert failure(situation().settled().with_holder(0, **changes)) is None


def test_no_evidence_without_a_holder() -> None:
    assert failure(situation().settled().with_route(0, holder=None, holder_uid=None)) is None


def test_PodDeleted_when_the_uid_is_gone() -> None:
    assert failure(situation().settled().holder_deleted(0)) is Evidence.POD_DELETED


def test_PodDeleted_when_another_pod_has_its_name() -> None:
    assert failure(situation().settled().with_holder(0, uid="uid-new")) is Evidence.POD_DELETED


def test_PodDeleted_when_deletion_began() -> None:
    assert failure(situation().settled().with_holder(0, deleting=True)) is Evidence.POD_DELETED


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_PodFailed_by_its_phase(phase: str) -> None:
    assert failure(situation().settled().with_holder(0, phase=phase)) is Evidence.POD_FAILED


def test_LabelConflict_when_another_Service_names_the_same_pod_by_its_label() -> None:
    holder = situation().settled().holder_of(1)
    one = situation().settled().with_route(0, holder=holder.name, holder_uid=holder.uid)

    assert failure(one, 0) is Evidence.LABEL_CONFLICT
    assert failure(one, 1) is None


def test_RestartOverdue_when_enough_are_back_and_the_holder_is_not() -> None:
    one = restarting().restarted(4, [1, 2, 3, 4]).with_holder(0, ready=False)

    assert failure(one.seeing(since={"EnoughAreBack/4-noted": NOW - seconds(9)})) is None
    assert failure(one.seeing(since={"EnoughAreBack/4-noted": NOW - seconds(10)})) is Evidence.RESTART_OVERDUE
    assert failure(one.with_holder(0, ready=True).seeing(since={"EnoughAreBack/4-noted": NOW - seconds(10)})) is None


def test_ContainerTerminated() -> None:
    assert failure(situation().settled().with_holder(0, terminated=True)) is Evidence.CONTAINER_TERMINATED


def test_ConnectionLost() -> None:
    assert failure(situation().settled().with_holder(0, broken_at=NOW)) is Evidence.CONNECTION_LOST


@pytest.mark.parametrize("changes", [{"terminated": True}, {"broken_at": NOW}])
def test_a_restart_excuses_a_pod_until_it_is_back_or_the_deadline_is_over(changes: dict[str, Any]) -> None:
    one = restarting().with_holder(0, **changes)

    assert failure(one) is None
    assert failure(one.with_holder(0, report=Report(shards=4))) is not None
    assert failure(one.later(200)) is not None


def test_a_busy_server_excuses_nobody() -> None:
    assert failure(growing().noted(4, Answer.BUSY).with_holder(0, terminated=True)) is Evidence.CONTAINER_TERMINATED


@pytest.mark.parametrize("changes", [{"deleting": True}, {"phase": "Failed"}])
def test_a_restart_does_not_excuse_what_is_certain(changes: dict[str, Any]) -> None:
    assert failure(restarting().with_holder(0, **changes)) is not None


# --- labels


@pytest.mark.parametrize(
    ("labels", "worth"),
    [
        ({}, "none"),
        (labels_for(0, "garbage"), "dead"),
        (labels_for(0, epoch_of(0)), "committed"),
        (labels_for(0, "99-old"), "dead"),
        (labels_for(0, "100-now"), "pending"),
        (labels_for(0, "101-ahead"), "pending"),
        (labels_for(9, "1-x"), "orphan"),
    ],
)
def test_what_a_label_is_worth(labels: dict[str, str], worth: str) -> None:
    assert situation().settled().facts().claim(pod(2, labels=labels)) == worth


# --- standbys


def chosen(one: Situation, shard: int | None = 0) -> list[int]:
    return [other.ordinal for other in one.facts().standbys(one.route(shard) if shard is not None else None)]


def test_standbys_are_the_fit_pods_that_hold_nothing_lowest_ordinal_first() -> None:
    assert chosen(situation().settled(spares=3)) == [2, 3, 4]


def test_standbys_prefer_another_node_than_the_failed_holder() -> None:
    assert chosen(situation().settled(spares=2).with_pod(2, node="node-0")) == [3, 2]


def test_standbys_prefer_the_newest_template() -> None:
    assert chosen(situation().settled(spares=2).with_pod(2, revision="rev-0")) == [3, 2]


def test_standbys_prefer_those_that_answer() -> None:
    assert chosen(situation().settled(spares=2).with_pod(2, report=None)) == [3, 2]


def test_standbys_prefer_those_that_stay() -> None:
    assert chosen(situation().settled(spares=1).with_pods([3]).with_pod(2, node="node-0", revision="rev-0")) == [2, 3]


@pytest.mark.parametrize(
    "changes",
    [
        {"ready": False},
        {"deleting": True},
        {"terminated": True},
        {"broken_at": NOW},
        {"ip": None},
        {"phase": "Pending"},
        {"report": Report(shards=4)},
        {"labels": labels_for(0, "100-pending")},
        {"labels": labels_for(9, "1-orphan")},
        {"labels": labels_for(1, epoch_of(1))},
    ],
)
def test_no_standby(changes: dict[str, Any]) -> None:
    assert chosen(situation().settled().with_pod(2, **changes)) == []


def test_a_dead_label_is_no_obstacle() -> None:
    assert chosen(situation().settled().with_pod(2, labels=labels_for(0, "5-dead"))) == [2]


def test_the_holder_of_a_route_is_nobodys_standby() -> None:
    assert chosen(situation().settled().with_holder(1, labels={}), None) == [2]


def test_fit_is_ready_running_and_reachable() -> None:
    assert pod(0).is_ready


# --- numbers


def test_needed_pods_is_the_law_in_letters() -> None:
    assert situation().settled(shards=2, spares=1).facts().desired_replicas == 3
    assert growing().facts().desired_replicas == 5
    assert growing().noted(4, Answer.UNKNOWN).wanting(shards=2).facts().desired_replicas == 5
    assert situation().settled().reporting(8).facts().desired_replicas == 9
    assert situation().settled(shards=4).reporting(None).wanting(shards=2).facts().desired_replicas == 5


def test_failed_shards_come_lowest_first() -> None:
    one = situation().settled(shards=4).holder_deleted(3).holder_deleted(1)

    assert [failed.shard for failed, _ in one.facts().failed] == [1, 3]


def test_too_high_is_what_would_go() -> None:
    one = situation().settled().with_pods([3]).held_by(1, 3)

    assert [high.shard for high in one.facts().too_high] == [1]
    assert situation().settled(spares=2).held_by(1, 3).facts().too_high == ()


def test_a_holder_that_was_not_asked_yet_counts_as_serving() -> None:
    one = situation().settled().with_holder(0, report=None)

    assert one.facts().is_served(one.route(0))


def test_a_holder_that_says_something_else_does_not_serve() -> None:
    one = situation().settled().with_holder(0, report=Report(shards=2))

    assert not one.facts().is_served(one.route(0))


def test_a_route_beyond_the_shards_does_not_count() -> None:
    one = situation().settled().seeing(routes=(*situation().settled().snapshot.routes, route(2)))

    assert [named.shard for named in one.facts().routes] == [0, 1]
