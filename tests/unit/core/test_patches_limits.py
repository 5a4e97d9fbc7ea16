"""What is read of a shard's Service, and what exactly the patches of a handover write."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from whatsapp_operator.core import manifests
from whatsapp_operator.core.actions import Handover
from whatsapp_operator.core.names import Epoch, Key
from whatsapp_operator.core.snapshot import Evidence, Route

from .situations import NOW, labels_for, merged, pod, route, situation

FIRST_PREPARED = [
    {"op": "test", "path": "/metadata/uid", "value": "uid-2"},
    {"op": "test", "path": "/metadata/labels/multiconnect.dev~1epoch", "value": None},
    {"op": "add", "path": "/metadata/labels/multiconnect.dev~1role", "value": "active"},
    {"op": "add", "path": "/metadata/labels/multiconnect.dev~1shard", "value": "3"},
    {"op": "add", "path": "/metadata/labels/multiconnect.dev~1epoch", "value": "100-abc"},
]


def service(notes: dict[str, str], **spec: Any) -> dict[str, Any]:
    """The Service of shard 0 with these annotations, committed at an epoch unless ``spec`` says otherwise."""
    made = manifests.shard_service(situation().desired, 0)
    made["metadata"].update(uid="service-0", resourceVersion="140", annotations=notes)
    made["spec"]["selector"] = {**made["spec"]["selector"], manifests.EPOCH_LABEL: "100-abc"}
    return {**made, "spec": {**made["spec"], **spec}}


def read(found: dict[str, Any]) -> Route:
    made = manifests.route_of(found, "acme", "cluster-uid")
    assert made is not None
    return made


# --- reading


@pytest.mark.parametrize("name", ["acme-coreapp", "acme-webapp", "acme-simulator"])
def test_the_other_services_of_a_cluster_are_no_routes(name: str) -> None:
    found = service({})
    found["metadata"]["name"] = name

    assert manifests.route_of(found, "acme", "cluster-uid") is None


@pytest.mark.parametrize("selector", [{}, None, {manifests.EPOCH_LABEL: "none"}, {manifests.EPOCH_LABEL: "damaged"}])
def test_a_service_that_selects_no_epoch_has_no_holder_whatever_its_annotation_says(selector: dict[str, str] | None) -> None:
    """Nothing reaches that pod: the shard gets a holder as if none were named."""
    found = read(service({manifests.HOLDER_ANNOTATION: "acme-coreapp-1/uid-1"}, selector=selector))

    assert (found.epoch, found.holder, found.holder_uid) == (None, None, None)


def test_a_service_without_a_selector_has_no_holder() -> None:
    found = service({manifests.HOLDER_ANNOTATION: "acme-coreapp-1/uid-1"})
    del found["spec"]["selector"]

    assert (read(found).epoch, read(found).holder) == (None, None)


@pytest.mark.parametrize("notes", [{}, {manifests.PREVIOUS_ANNOTATION: "", manifests.EVIDENCE_ANNOTATION: ""}])
def test_the_first_holder_of_a_shard_took_it_from_nobody(notes: dict[str, str]) -> None:
    found = read(service({manifests.HOLDER_ANNOTATION: "acme-coreapp-1/uid-1", **notes}))

    assert (found.holder, found.previous, found.evidence, found.planned) == ("acme-coreapp-1", None, None, False)


@pytest.mark.parametrize(
    ("planned", "evidence", "text"),
    [(True, Evidence.ROLLED_OUT, "Switchover/RolledOut"), (False, Evidence.POD_DELETED, "Failover/PodDeleted")],
    ids=["switchover", "failover"],
)
def test_a_switchover_and_a_failover_differ_when_they_are_read_back(planned: bool, evidence: Evidence, text: str) -> None:
    made = Handover(
        route=route(0, pod(0)), to=pod(2), epoch=Epoch(100, "abc"), evidence=evidence, planned=planned, shards=2, detected_at=NOW
    )
    patch = manifests.commit_patch(Key("default", "acme"), made, NOW)

    assert patch["metadata"]["annotations"][manifests.EVIDENCE_ANNOTATION] == text
    after = read({**merged(service({}), patch)})
    assert (after.planned, after.evidence, after.holder) == (planned, evidence, "acme-coreapp-2")


# --- labels of pods


def test_a_pod_without_an_epoch_is_prepared_if_it_still_has_none() -> None:
    """A test against null passes for an absent label only: of two leaders one fails."""
    assert manifests.label_patch(pod(2), 3, "100-abc") == FIRST_PREPARED


@pytest.mark.parametrize(
    ("labels", "removed"),
    [
        (labels_for(0, "5-old"), ["multiconnect.dev~1shard", "multiconnect.dev~1epoch"]),
        ({manifests.SHARD_LABEL: "0"}, ["multiconnect.dev~1shard"]),
        ({manifests.EPOCH_LABEL: "5-old"}, ["multiconnect.dev~1epoch"]),
        ({manifests.ROLE_LABEL: "active"}, []),
    ],
    ids=["all", "shard alone", "epoch alone", "role alone"],
)
def test_a_pod_that_becomes_a_standby_loses_the_labels_that_it_has(labels: dict[str, str], removed: list[str]) -> None:
    """The API server rejects a patch that removes what is not there."""
    patch = manifests.strip_patch(replace(pod(2), labels=labels))

    assert patch == [
        {"op": "test", "path": "/metadata/uid", "value": "uid-2"},
        {"op": "test", "path": "/metadata/labels/multiconnect.dev~1epoch", "value": labels.get(manifests.EPOCH_LABEL)},
        *({"op": "remove", "path": f"/metadata/labels/{label}"} for label in removed),
        {"op": "add", "path": "/metadata/labels/multiconnect.dev~1role", "value": "standby"},
    ]
