"""What is done whichever rule wins, next to what is not: pods that are ended, labels that are cleared, roles that are assigned."""

from __future__ import annotations

from typing import Any

import pytest

from whatsapp_operator.core import always, manifests
from whatsapp_operator.core.actions import Action, AssignRole, ClearLabels, Delete, Relabel
from whatsapp_operator.core.names import Ref
from whatsapp_operator.core.snapshot import Report

from .situations import NOW, Situation, epoch_of, labels_for, pod, seconds, situation

SETTLED = situation().settled()
NOBODY: frozenset[str] = frozenset()


def tidied(one: Situation, busy: frozenset[str] = NOBODY) -> list[Action]:
    return [*always.tidying(one.facts(), busy)]


def cleared(one: Situation, busy: frozenset[str] = NOBODY) -> list[int]:
    return [action.coreapp.ordinal for action in tidied(one, busy) if isinstance(action, ClearLabels)]


# --- roles


def test_a_shard_that_is_moving_is_assigned_by_the_handover_alone() -> None:
    one = SETTLED.with_holder(0, report=Report(shards=2, shard=0, epoch="5-old")).facts()

    assert [*always.role_assignments(one, NOBODY, frozenset({0}))] == []
    (assigned,) = always.role_assignments(one, NOBODY, frozenset())
    assert (assigned.coreapp.ordinal, assigned.shard, assigned.epoch, assigned.holder) == (0, 0, epoch_of(0), None)
    assert [*always.role_assignments(one, frozenset({"uid-0"}), frozenset())] == []


def test_the_holder_of_a_shard_that_no_longer_exists_is_not_named_as_its_own_successor() -> None:
    one = SETTLED.reporting(1).wanting(shards=1).restarted(1, [2]).with_holder(1, report=Report(shards=1, shard=1, epoch="5-old"))

    assert [assigned for assigned in one.plan().actions if isinstance(assigned, AssignRole) and assigned.coreapp.ordinal == 1] == []


# --- labels


def test_a_pod_that_a_handover_is_writing_is_not_tidied() -> None:
    one = SETTLED.with_pod(2, labels=labels_for(0, "5-old"))

    assert (cleared(one), cleared(one, frozenset({"uid-2"}))) == ([2], [])


@pytest.mark.parametrize("labels", [{}, {manifests.ROLE_LABEL: "standby"}, {**labels_for(0, epoch_of(0)), manifests.ROLE_LABEL: "standby"}])
def test_the_labels_of_a_holder_that_failed_are_left_to_the_failover(labels: dict[str, str]) -> None:
    failed = {"terminated": True, "ready": False}

    assert [type(action) for action in tidied(SETTLED.with_holder(0, labels=labels))] == [Relabel]
    assert tidied(SETTLED.with_holder(0, labels=labels, **failed)) == []


def test_a_shard_label_alone_leads_nowhere_and_is_left() -> None:
    """A Service selects by the epoch too."""
    assert tidied(SETTLED.with_pod(2, labels={manifests.ROLE_LABEL: "standby", manifests.SHARD_LABEL: "0"})) == []


def test_the_holder_of_a_shard_that_no_longer_exists_is_freed() -> None:
    one = SETTLED.wanting(shards=1).reporting(1)

    assert (cleared(one), cleared(SETTLED)) == ([1], [])


@pytest.mark.parametrize(("shard", "freed"), [(1, []), (2, [2]), (7, [2])])
def test_the_label_of_a_shard_without_a_Service_is_cleared_if_the_shard_does_not_exist(shard: int, freed: list[int]) -> None:  # noqa: N802
    one = SETTLED.without_route(1).with_pod(2, labels=labels_for(shard, "500-x"))

    assert cleared(one) == freed


# --- pods that are ended


def ended(one: Situation) -> list[str]:
    return [action.ref.name for action in always.replacing(one.facts())]


def hung(ordinal: int, spares: int = 1, **changes: Any) -> Situation:
    """The node lives, and the Coreapp has not answered for twenty seconds."""
    one = situation().settled(spares=spares).with_nodes()
    return one.with_pod(ordinal, **{"unresponsive_since": NOW - seconds(20), "report": None, **changes})


def test_a_Coreapp_that_was_ready_and_hangs_is_ended_at_once_one_that_starts_is_not() -> None:  # noqa: N802
    assert ended(hung(2, ready=False, lost_readiness=True)) == ["acme-coreapp-2"]
    assert ended(hung(2, ready=False)) == []
    assert ended(hung(2)) == ["acme-coreapp-2"]


def test_a_Coreapp_that_is_ending_is_not_ended_again() -> None:  # noqa: N802
    assert ended(hung(2, deleting=True)) == []


@pytest.mark.parametrize(("spares", "names"), [(0, ["acme-coreapp-3"]), (1, ["acme-coreapp-3"]), (2, ["acme-coreapp-3", "acme-coreapp-4"])])
def test_as_many_Coreapps_are_ended_at_a_time_as_there_are_spares_and_one_at_least(spares: int, names: list[str]) -> None:  # noqa: N802
    one = situation().settled(spares=spares).with_pods([3, 4]).with_nodes()
    for ordinal in (3, 4):
        one = one.with_pod(ordinal, unresponsive_since=NOW - seconds(20), report=None)

    assert ended(one) == names


@pytest.mark.parametrize(("span", "manual", "names"), [(5.9, False, []), (6, False, ["acme-coreapp-0"]), (6, True, [])])
def test_a_holder_that_no_standby_can_replace_is_ended_after_twice_the_time(span: float, manual: bool, names: list[str]) -> None:
    one = hung(0, spares=0, unresponsive_since=NOW - seconds(span)).wanting(manual=manual)

    assert ended(one) == names


# --- names of earlier releases


def outgrown(*, successor: bool = True) -> Situation:
    """The NetworkPolicy of an earlier release is still there."""
    former = {"metadata": {"name": "acme", "uid": "u", "resourceVersion": "5"}}
    one = SETTLED.seeing(objects={**SETTLED.snapshot.objects, Ref("NetworkPolicy", "acme"): former})
    return one if successor else one.without_object("NetworkPolicy", "acme-coreapp")


@pytest.mark.parametrize(
    ("one", "goes"),
    [
        (outgrown(), True),
        (SETTLED, False),
        (outgrown(successor=False), False),
        (outgrown().seeing(rejected_at=NOW - seconds(1)), False),
    ],
    ids=["replaced", "not there", "not replaced yet", "a write was just rejected"],
)
def test_an_object_under_a_former_name_goes_once_its_successor_exists(one: Situation, goes: bool) -> None:
    expected = [Delete(ref=Ref("NetworkPolicy", "acme"), uid="u", resource_version="5")]

    assert [*always.outgrowing(one.facts())] == (expected if goes else [])


@pytest.mark.parametrize("changes", [{"paused": True}, {"deleting": True}])
def test_an_object_under_a_former_name_stays_while_changes_are_held(changes: dict[str, bool]) -> None:
    one = outgrown()
    held = one.wanting(**changes).seeing(objects=one.snapshot.objects)

    assert [*always.outgrowing(held.facts())] == []


def test_a_pod_without_marks_is_left() -> None:
    assert tidied(SETTLED.with_pod(2, labels=pod(2).labels)) == []
