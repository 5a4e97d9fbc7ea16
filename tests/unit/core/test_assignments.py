"""What is done in addition to the rule that won: roles are assigned, labels and objects are tidied."""

# ruff: noqa: N802  (a test carries the word of its row as it is spelt, so that one grep finds everything)

from __future__ import annotations

import pytest

from whatsapp_operator.core import manifests
from whatsapp_operator.core.actions import AssignRole, ClearLabels, Delete, Relabel, Replace, Touch
from whatsapp_operator.core.names import Ref
from whatsapp_operator.core.snapshot import Answer, Report

from .plans import of, only
from .situations import NOW, epoch_of, labels_for, pod, seconds, situation
from .witnesses import growing

# --- in addition to the rule that won: tell


def test_a_holder_that_reports_nothing_is_assigned_its_shard() -> None:
    tell = only(situation().settled().with_holder(0, report=Report(shards=2)).plan(), AssignRole)

    assert (tell.coreapp.ordinal, tell.shard, tell.epoch, tell.shards, tell.holder) == (0, 0, epoch_of(0), 2, None)


def test_a_former_holder_learns_who_serves_now() -> None:
    one = situation().settled().held_by(0, 2).with_pod(0, report=Report(shard=0, epoch=epoch_of(0), shards=2))

    tell = only(one.plan(), AssignRole)

    assert (tell.coreapp.ordinal, tell.shard, tell.epoch) == (0, 0, one.route(0).epoch)
    assert tell.holder is not None
    assert tell.holder.ordinal == 2


def test_a_former_holder_is_never_assigned_to_serve_because_its_successor_is_gone() -> None:
    """Tell without holder means: serve. Only the pod that the Service names may hear that."""
    one = situation().settled().held_by(0, 2).with_pod(0, report=Report(shard=0, epoch=epoch_of(0), shards=2)).without_pod(2)

    assert [tell for tell in of(one.plan(), AssignRole) if tell.shard is not None and tell.holder is None] == []


@pytest.mark.parametrize(("newer", "assigned"), [(-1, [0]), (0, []), (5, [])])
def test_a_service_that_was_read_before_a_commit_says_nothing_against_its_holder(newer: int, assigned: list[int]) -> None:
    """The epoch of a holder is the version of its Service before the commit: one that is not below what was read was committed later."""
    one = situation().settled()
    report = Report(shards=2, shard=0, epoch=f"{one.route(0).version + newer}-x", gateway="connected", version="v2.53.4")
    one = one.with_pod(2, report=report)
    assert [each.shard for each in of(one.plan(), AssignRole) if each.coreapp.ordinal == 2 and each.holder is not None] == assigned


def test_the_Service_of_another_owner_gives_no_Coreapp_a_role() -> None:
    one = situation().settled().with_route(1, foreign=True).with_pod(1, report=Report(shards=2))

    assert [each for each in of(one.plan(), AssignRole) if each.coreapp.ordinal == 1] == []


def test_a_standby_of_a_shard_without_holder_is_assigned_to_stop() -> None:
    one = situation().settled().with_route(0, epoch=None, holder=None, holder_uid=None)

    assigned = [(each.shard, each.epoch) for each in of(one.plan(), AssignRole) if each.coreapp.ordinal == 0]
    assert assigned in ([], [(None, None)])


@pytest.mark.parametrize(
    "changes", [{"report": None}, {"report": Report()}, {"deleting": True}, {"ip": None}, {"report": Report(shards=4)}]
)
def test_a_pod_gets_no_assignment(changes: dict[str, object]) -> None:
    one = situation().settled().with_holder(0, **changes)

    assert [tell for tell in of(one.plan(), AssignRole) if tell.coreapp.ordinal == 0] == []


# --- in addition to the rule that won: tidy


def test_a_dead_label_is_stripped() -> None:
    assert only(situation().settled().with_pod(2, labels=labels_for(0, "5-old")).plan(), ClearLabels).coreapp.ordinal == 2


def test_a_pending_label_is_made_dead_by_a_touch_first() -> None:
    plan = situation().settled().with_pod(2, labels=labels_for(0, "100-mine")).plan()

    assert only(plan, Touch).epoch == "100-mine"
    assert of(plan, ClearLabels) == []


def test_a_label_whose_Service_is_missing_is_left_alone() -> None:
    one = situation().settled().without_route(0)

    assert [strip.coreapp.ordinal for strip in of(one.plan(), ClearLabels)] == []


def test_an_orphan_of_a_shard_that_no_longer_exists_is_stripped() -> None:
    one = situation().settled().with_pod(2, labels=labels_for(7, "100-x"))

    assert only(one.plan(), ClearLabels).coreapp.ordinal == 2
    assert of(one.client(asked_at=NOW - seconds(10)).plan(), ClearLabels) == []


def test_a_holder_whose_labels_were_removed_gets_them_again() -> None:
    one = situation().settled().with_holder(0, labels={})

    again = only(one.plan(), Relabel)
    assert (again.coreapp.ordinal, again.route.shard) == (0, 0)


@pytest.mark.parametrize("label", [manifests.SHARD_LABEL, manifests.EPOCH_LABEL])
def test_a_holder_that_lost_one_label_of_the_selector_gets_it_again(label: str) -> None:
    """Without either label the Service leads nowhere, so the loss must lead to a write."""
    one = situation().settled()
    left = {key: value for key, value in one.holder_of(0).labels.items() if key != label}

    plan = one.with_holder(0, labels=left).plan()

    assert [action for action in plan.actions if isinstance(action, (Relabel, ClearLabels, Touch))]


def test_a_standby_with_a_senseless_shard_label_is_freed() -> None:
    plan = situation().settled().with_pod(2, labels={manifests.ROLE_LABEL: "active", manifests.EPOCH_LABEL: "5-old"}).plan()

    assert only(plan, ClearLabels).coreapp.ordinal == 2


def test_a_holder_is_not_labelled_again_while_another_pod_carries_its_epoch() -> None:
    """laws#2: an epoch is on one pod. The other pod is stripped first, in an earlier observation."""
    one = situation().settled().with_holder(0, labels={}).with_pod(2, labels=labels_for(0, epoch_of(0)))

    assert of(one.plan(), Relabel) == []


def test_the_Service_of_a_shard_that_is_gone_goes_after_the_labels() -> None:
    one = situation().settled(shards=2, spares=1).wanting(shards=1).reporting(1).restarted(1, [1, 2])

    first = one.plan()
    assert [strip.coreapp.ordinal for strip in of(first, ClearLabels)] == [1]
    assert of(first, Delete) == []

    then = one.with_pod(1, labels=pod(1).labels).plan()
    assert only(then, Delete) == Delete(ref=Ref("Service", "acme-shard-1"), uid="service-1", resource_version="101")


def test_the_Service_of_a_shard_stays_while_a_call_could_bring_it_back() -> None:
    one = situation().settled().reporting(1).with_pod(1, labels=pod(1).labels).noted(2, Answer.UNKNOWN)

    assert of(one.plan(), Delete) == []


def test_a_changed_object_is_mended_by_its_version() -> None:
    one = situation().settled().wanting(webapps=3).seeing(objects=situation().settled().snapshot.objects)

    mend = only(one.plan(), Replace)
    meta = mend.obj["metadata"]
    assert (mend.obj["kind"], mend.obj["spec"]["replicas"]) == ("Deployment", 3)
    assert (meta["uid"], meta["resourceVersion"]) == ("deployment-acme-webapp", "7")
    assert (
        of(
            one.seeing(webapp=one.snapshot.webapp).wanting(paused=True).seeing(objects=situation().settled().snapshot.objects).plan(),
            Replace,
        )
        == []
    )


def test_the_budget_forbids_disruptions_while_Set_Shards_runs_also_when_paused() -> None:
    one = growing().noted(4, Answer.ACCEPTED).wanting(paused=True).seeing(objects=growing().snapshot.objects)

    assert only(one.plan(), Replace).obj["spec"]["maxUnavailable"] == 0


def test_a_hand_edited_number_of_attempts_does_no_harm() -> None:
    """The CRD lets 0 through."""
    assert growing().noted(4, Answer.BUSY, attempts=0).row() == "ServerBusy"
