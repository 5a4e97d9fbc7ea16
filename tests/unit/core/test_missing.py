"""Pods that are missing: said in the controller's words after some seconds, with what to do; and no longer when it is corrected."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from whatsapp_operator.core import manifests, missing
from whatsapp_operator.core.names import Ref

from .situations import NOW, Situation, seconds, situation
from .witnesses import WITNESSES

SAID = 'create Pod acme-coreapp-2 in StatefulSet acme-coreapp failed error: pods "acme-coreapp-2" is forbidden: exceeded quota: few'


def lacking(age: float = 0.0, **changes: Any) -> Situation:
    """The last of three Coreapps is not there, for so many seconds."""
    one = situation().settled().without_pod(2)
    ref = manifests.coreapp_statefulset("acme")
    live = one.snapshot.objects[ref]
    counted = {**live, "spec": {**live["spec"], "replicas": 3}, "status": {"observedGeneration": 1, "replicas": 2}}
    since = NOW - seconds(age)
    facts = dict.fromkeys(("PodsMissing", "PodsRejected"), since)
    return one.seeing(objects={**one.snapshot.objects, ref: counted}, since=facts, **changes)


def test_it_is_asked_why_after_two_seconds() -> None:
    plan = lacking(age=0.5).plan()
    assert "PodsMissing" in plan.holds
    assert plan.wake_after is not None
    assert plan.wake_after <= seconds(1.5)


def test_a_workload_that_has_all_its_pods_or_was_not_looked_at_lacks_none() -> None:
    assert "PodsMissing" not in situation().settled().plan().holds
    one = lacking()
    ref = manifests.coreapp_statefulset("acme")
    fresh = {**one.snapshot.objects[ref], "status": {}}
    assert "PodsMissing" not in one.seeing(objects={**one.snapshot.objects, ref: fresh}).plan().holds


def test_pods_of_the_webapps_are_missing_too() -> None:
    one = situation().settled()
    ref = Ref("Deployment", "acme-webapp")
    live = {**one.snapshot.objects[ref], "status": {"observedGeneration": 1, "replicas": 1}}
    assert "PodsMissing" in one.seeing(objects={**one.snapshot.objects, ref: live}).plan().holds


def test_what_waits_is_said_with_the_reason_at_once() -> None:
    assert lacking(rejected_pods=SAID, rejected_coreapp=SAID).condition("Reconciling")["message"] == (
        f"2 of 3 Coreapps are ready: waiting for pods that do not exist yet ({SAID})."
    )


def test_a_rejection_needs_a_person_after_three_seconds_and_says_what_to_do() -> None:
    soon, late = lacking(age=2.9, rejected_pods=SAID), lacking(age=3, rejected_pods=SAID)
    assert soon.condition("Stalled")["status"] == "False"
    said = late.condition("Stalled")
    assert (said["status"], said["reason"]) == ("True", "PodsRejected")
    for part in (SAID, "Make room", "spec.coreapp.pod"):
        assert part in said["message"]
    assert lacking(age=30).condition("Stalled")["status"] == "False", "it is corrected"


def test_a_rejection_holds_up_nothing() -> None:
    one = lacking(age=60, rejected_pods=SAID)
    assert one.holder_deleted(0).row() == lacking(age=60).holder_deleted(0).row()
    assert one.plan().actions == lacking(age=60).plan().actions


def test_a_held_pod_is_named_with_its_node_and_its_finalizers() -> None:
    one = situation().settled().with_pod(2, deleting=True, ready=False, held_by=("example.com/backup", "b", "c", "d"))
    assert one.condition("Stalled")["status"] == "False"
    said = one.seeing(since={"DeletionBlocked/uid-2": NOW - seconds(3)}).condition("Stalled")
    assert (said["status"], said["reason"]) == ("True", "DeletionBlocked")
    assert "acme-coreapp-2 on node node-2, by finalizer example.com/backup, b, c." in said["message"]
    assert "kubectl edit pod" in said["message"]


def test_a_cluster_that_is_being_deleted_asks_nothing() -> None:
    one = lacking()
    deleting = Situation(replace(one.desired, deleting=True), one.snapshot)
    assert "PodsMissing" not in deleting.plan().holds


def test_events_that_cannot_be_read_are_said_for_what_they_are() -> None:
    said = lacking(unread={"Event": "list Event default: 403 Forbidden"}).condition("Stalled")
    assert said["reason"] == "ReadFailed"
    assert "so it cannot tell why pods are missing" in said["message"]
    assert "neither makes nor changes" not in said["message"]


def test_the_witness_speaks_of_the_webapps() -> None:
    assert "acme-webapp-x" in WITNESSES["PodsRejected"].condition("Stalled")["message"]


# --- at the limits


def counting(kind: str, spec: dict[str, Any], status: dict[str, Any] | None) -> Situation:
    """The cluster has one object, of this kind."""
    return situation().seeing(objects={Ref(kind, "acme"): {"spec": spec, "status": status}})


SEEN = {"observedGeneration": 1}


@pytest.mark.parametrize(
    ("one", "found"),
    [
        (counting("StatefulSet", {"replicas": 3}, {**SEEN, "replicas": 2}), True),
        (counting("StatefulSet", {"replicas": 3}, {**SEEN, "replicas": 3}), False),
        (counting("Deployment", {"replicas": 2}, {**SEEN, "replicas": 1}), True),
        (counting("Deployment", {}, {**SEEN, "replicas": 1}), False),
        (counting("Deployment", {"replicas": 1}, SEEN), True),
        (counting("Deployment", {}, SEEN), True),
        (counting("Deployment", {"replicas": 1}, {}), False),
        (counting("Deployment", {"replicas": 1}, None), False),
        (counting("PodDisruptionBudget", {}, SEEN), False),
    ],
    ids=[
        "two of three Coreapps",
        "all Coreapps",
        "one of two Webapps",
        "one Webapp, which is what a Deployment without a number has",
        "none of one Webapp",
        "none, and no number",
        "its controller has not said anything",
        "it has no status yet",
        "a budget has no pods",
    ],
)
def test_pods_are_missing_if_a_controller_says_that_there_are_fewer_than_wanted(one: Situation, found: bool) -> None:
    assert missing.are_missing(one.facts()) is found


def test_one_workload_that_lacks_a_pod_is_enough() -> None:
    one = lacking()
    ref = Ref("Deployment", "acme-webapp")
    full = {**one.snapshot.objects[ref], "status": {**SEEN, "replicas": 2}}

    assert missing.are_missing(one.seeing(objects={**one.snapshot.objects, ref: full}).facts())


def test_the_age_of_what_was_seen_is_kept_and_of_nothing_else() -> None:
    settled = situation().settled()

    assert [*missing.facts(settled.facts())] == []
    assert [*missing.facts(lacking(rejected_pods=SAID).facts())] == ["PodsMissing", "PodsRejected"]
    assert [*missing.facts(settled.with_pod(2, held_by=("example.com/backup",)).facts())] == ["DeletionBlocked/uid-2"]


def held(ordinals: range, **changes: Any) -> Situation:
    """Finalizers have kept these pods for a minute."""
    one = situation().settled(shards=4, spares=2)
    for ordinal in ordinals:
        one = one.with_pod(ordinal, deleting=True, ready=False, **{"held_by": ("example.com/backup",), **changes})
    return one.seeing(since={f"DeletionBlocked/uid-{ordinal}": NOW - seconds(60) for ordinal in range(6)})


@pytest.mark.parametrize(
    "one",
    [
        situation().settled().seeing(rejected_pods=SAID, since={"PodsRejected": NOW - seconds(2.5)}),
        situation().settled().with_pod(2, held_by=("example.com/backup",)).seeing(since={"DeletionBlocked/uid-2": NOW - seconds(2.5)}),
    ],
    ids=["a rejection", "a held pod"],
)
def test_it_is_looked_at_again_when_a_person_must_act(one: Situation) -> None:
    """After three seconds, so in half a second."""
    wake = one.plan().wake_after

    assert wake is not None
    assert seconds(0.4) < wake <= seconds(0.5)


def test_only_a_pod_that_a_finalizer_keeps_now_is_held() -> None:
    """The others went, or were kept before."""
    assert [pod.ordinal for pod in missing.held(held(range(1, 3)).facts())] == [1, 2]


def test_three_of_the_held_pods_are_named_and_one_that_never_ran_has_no_node() -> None:
    assert missing.describe_held(held(range(1), node=None).facts()) == "acme-coreapp-0 on node (none), by finalizer example.com/backup"
    assert missing.describe_held(held(range(5)).facts()).count("; ") == 2
