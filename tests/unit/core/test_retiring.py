"""A standby that goes because the StatefulSet shrinks is marked first, so that no leader gives it a shard meanwhile (laws#7)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from whatsapp_operator.core import always, handovers, manifests
from whatsapp_operator.core.actions import Annotate, BumpVersion, ClearLabels, Handover, Relabel, Retire, Scale, SetShards
from whatsapp_operator.core.desired import Switchover
from whatsapp_operator.core.names import Epoch, Ref

from .situations import NONCE, UNSCHEDULABLE, Situation, labels_for, situation
from .witnesses import WITNESSES

SETTLED = situation().settled()
SURPLUS = SETTLED.with_pods([3, 4])


def done(one: Situation, kind: type[Any]) -> list[Any]:
    return [action for action in one.plan().actions if isinstance(action, kind)]


def workload(one: Situation, **changes: Any) -> Situation:
    assert one.snapshot.statefulset is not None
    return one.seeing(statefulset=replace(one.snapshot.statefulset, **changes))


def test_first_all_are_marked_that_go_for_the_version_that_is_written_then_it_is_written() -> None:
    marks = done(SURPLUS, Retire)

    assert [(mark.coreapp.ordinal, mark.epoch) for mark in marks] == [(3, Epoch(9, f"{NONCE}-3")), (4, Epoch(9, f"{NONCE}-4"))]
    assert done(SURPLUS, Scale) == []
    assert [mark.coreapp.ordinal for mark in done(SURPLUS.retiring(3), Retire)] == [4]
    marked = SURPLUS.retiring(3, 4)
    assert (done(marked, Retire), [scale.replicas for scale in done(marked, Scale)]) == ([], [3])


def test_marks_for_a_former_version_are_made_again_and_not_cleared() -> None:
    one = workload(SURPLUS.retiring(3, 4), resource_version="10")

    assert [mark.epoch.n for mark in done(one, Retire)] == [10, 10]
    assert (done(one, Scale), done(one, ClearLabels), done(one, BumpVersion)) == ([], [], [])


def test_a_mark_for_a_version_that_was_not_read_yet_is_not_written_by() -> None:
    one = SURPLUS.retiring(3).retiring(4, n=10)

    assert (done(one, Retire), done(one, Scale), len(done(one, BumpVersion))) == ([], [], 1)


@pytest.mark.parametrize("labels", [labels_for(0, "100-other"), labels_for(9, "100-other")], ids=["pending", "orphan"])
def test_one_with_another_label_is_waited_for(labels: dict[str, str]) -> None:
    """Another leader may be giving it a shard just now."""
    one = SURPLUS.retiring(3).with_pod(4, labels=labels)

    assert (done(one, Retire), done(one, Scale)) == ([], [])


def test_a_mark_that_no_leader_can_have_made_is_cleared_before_the_number_is_written() -> None:
    one = workload(SURPLUS.retiring(3, 4), bumped_for=f"9-{NONCE}-4")

    assert [clear.coreapp.ordinal for clear in done(one, ClearLabels)] == [3, 4]
    assert done(one, Scale) == []


def test_a_holder_that_would_go_is_not_marked_even_if_its_labels_were_taken_away() -> None:
    """Without labels it is like any standby that goes; but its shard's Service names it."""
    serving = situation().settled(shards=1, spares=0).with_pods([1]).held_by(0, 1)
    one = serving.with_pod(0, **UNSCHEDULABLE, report=None).with_pod(1, labels={})

    assert (one.row(), done(one, Retire), done(one, Scale)) == ("ScalingDown", [], [])
    assert [again.coreapp.ordinal for again in done(one, Relabel)] == [1]


def test_one_that_is_being_deleted_needs_no_mark() -> None:
    one = SURPLUS.retiring(3).with_pod(4, deleting=True, ready=False)

    assert (done(one, Retire), [scale.replicas for scale in done(one, Scale)]) == ([], [3])


def test_while_it_waits_for_something_none_is_marked() -> None:
    one = SURPLUS.with_pod(1, report=None)

    assert (one.row(), done(one, Retire)) == ("ScalingDown", [])


@pytest.mark.parametrize(
    ("version", "bumped_for", "claim"),
    [
        ("8", None, "retiring"),
        ("9", None, "retiring"),
        ("9", "n0nce", "retiring"),
        ("9", "8-n0nce-2", "retiring"),
        ("10", None, "dead"),
        ("9", "9-n0nce-2", "invalid"),
        ("8", "12-n0nce-4", "invalid"),
    ],
)
def test_a_mark_counts_until_the_StatefulSet_has_moved_past_it(version: str, bumped_for: str | None, claim: str) -> None:  # noqa: N802
    facts = workload(SETTLED.retiring(2), resource_version=version, bumped_for=bumped_for).facts()
    pod = facts.by_uid["uid-2"]

    assert facts.claim(pod) == claim
    assert [other.ordinal for other in facts.standbys()] == ([2] if claim == "dead" else [])


@pytest.mark.parametrize(("epoch", "claim"), [(None, "none"), ("x", "dead")])
def test_a_role_without_an_epoch_is_no_mark(epoch: str | None, claim: str) -> None:
    labels = {manifests.ROLE_LABEL: "retiring"} | ({manifests.EPOCH_LABEL: epoch} if epoch else {})
    facts = SETTLED.with_pod(2, labels=labels).facts()

    assert (facts.claim(facts.by_uid["uid-2"]), facts.retires_by(facts.by_uid["uid-2"])) == (claim, None)


def test_without_a_StatefulSet_no_mark_counts() -> None:  # noqa: N802
    facts = SETTLED.retiring(2).seeing(statefulset=None).facts()

    assert facts.claim(facts.by_uid["uid-2"]) == "dead"


def test_a_failed_shard_waits_until_the_version_was_bumped_which_voids_the_write() -> None:
    failing = SETTLED.retiring(2).holder_deleted(0)

    assert done(failing, Handover) == []
    ref = Ref("StatefulSet", "acme-coreapp")
    assert done(failing, BumpVersion) == [BumpVersion(ref=ref, resource_version="9", shards=2, nonce=f"9-{NONCE}-2")]
    assert [move.to.ordinal for move in done(workload(failing, resource_version="10"), Handover)] == [2]


def test_the_bump_is_for_the_newest_mark_of_those_that_are_there() -> None:
    one = SETTLED.with_pods([3, 4]).wanting(spares=3).retiring(2, n=9).retiring(3, n=11).with_pod(4, deleting=True).retiring(4, n=12)

    assert [bump.nonce for bump in done(one, BumpVersion)] == [f"11-{NONCE}-3"]


def test_nothing_is_bumped_while_replicas_are_written_or_the_cluster_is_deleted() -> None:
    assert done(SURPLUS.retiring(3), BumpVersion) == []
    assert done(SURPLUS.retiring(3, 4), BumpVersion) == []
    assert done(workload(SETTLED.retiring(2), replicas=1), BumpVersion) == []
    assert done(SETTLED.retiring(2).wanting(deleting=True), BumpVersion) == []
    assert len(done(WITNESSES["SettingShards"].retiring(2).seeing(anchored_for=None), BumpVersion)) == 1


@pytest.mark.parametrize(("version", "bumped_for"), [("10", None), ("9", f"9-{NONCE}-2")], ids=["dead", "invalid"])
def test_a_mark_that_does_not_count_any_more_is_cleared(version: str, bumped_for: str | None) -> None:
    one = workload(SETTLED.retiring(2), resource_version=version, bumped_for=bumped_for)

    assert [clear.coreapp.ordinal for clear in done(one, ClearLabels)] == [2]
    assert done(one, BumpVersion) == []


def test_the_mark_of_one_beyond_the_replicas_goes_with_it() -> None:
    one = workload(SURPLUS.retiring(3, 4), resource_version="10", replicas=3)

    assert (done(one, ClearLabels), done(one, BumpVersion)) == ([], [])


def test_what_is_marked_is_busy() -> None:
    busy = always.Busy.of(done(SURPLUS, Retire))

    assert (busy.pods, busy.replicas) == (frozenset({"uid-3", "uid-4"}), True)
    assert not always.Busy.of(WITNESSES["FailingOver"].plan().actions).replicas


def test_a_requested_switchover_to_a_marked_one_stays_until_the_mark_is_gone() -> None:
    one = replace(
        SETTLED,
        desired=replace(SETTLED.desired, switchovers=(Switchover(shard=0, to="acme-coreapp-2"),), switchover_text="0=acme-coreapp-2"),
    )

    assert (done(one.retiring(2), Handover), done(one.retiring(2), Annotate)) == ([], [])
    assert [move.to.ordinal for move in done(one, Handover)] == [2]


def test_no_shard_is_moved_on_purpose_to_one_beyond_the_replicas() -> None:
    """The StatefulSet's controller is about to delete it. Only a failover takes it, if there is no other."""
    one = workload(SURPLUS.with_pod(2, ready=False), replicas=3)
    facts = one.facts()

    assert facts.standbys_that_stay(facts.routes[0]) == []
    said = "StatefulSet acme-coreapp has only 3 replicas, so acme-coreapp-3 is about to go."
    assert handovers.rejection(facts, Switchover(shard=0, to="acme-coreapp-3")) == said
    assert handovers.rejection(workload(one, replicas=4).facts(), Switchover(shard=0, to="acme-coreapp-3")) is None
    assert [move.to.ordinal for move in done(one.holder_deleted(0), Handover)] == [3]


def test_the_patch_of_a_mark_tests_what_a_prepare_changes_and_leaves_no_shard() -> None:
    (mark, _) = done(SURPLUS, Retire)

    assert manifests.retire_patch(mark) == [
        {"op": "test", "path": "/metadata/uid", "value": "uid-3"},
        {"op": "test", "path": "/metadata/labels/multiconnect.dev~1epoch", "value": None},
        {"op": "add", "path": "/metadata/labels/multiconnect.dev~1role", "value": "retiring"},
        {"op": "add", "path": "/metadata/labels/multiconnect.dev~1epoch", "value": f"9-{NONCE}-3"},
    ]


@pytest.mark.parametrize(
    ("annotations", "what"),
    [(None, None), ({}, None), ({"multiconnect.dev/anchor": "4-9-n0nce-3"}, "9-n0nce-3"), ({"multiconnect.dev/anchor": "4"}, None)],
)
def test_what_a_bump_was_for_is_read_back(annotations: dict[str, str] | None, what: str | None) -> None:
    assert manifests.bumped_for({"metadata": {"annotations": annotations}}) == what


def test_set_shards_counts_none_that_is_about_to_go() -> None:
    """Nor do they make up for one that is not ready."""
    one = WITNESSES["SettingShards"]
    assert one.snapshot.statefulset is not None
    ordinal, shards = one.snapshot.statefulset.replicas, one.desired.shards
    one = one.with_pods([ordinal]).replicas(ordinal)
    for away in range(ordinal - shards + 1):
        one = one.with_pod(shards - 1 + away, ready=False)

    assert len(one.facts().ready) == shards
    assert (one.row(), done(one, SetShards)) == ("AwaitingCoreapps", [])
