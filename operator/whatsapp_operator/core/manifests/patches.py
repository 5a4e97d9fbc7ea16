"""The Services of shards and the labels of holders: how they are read, and the patches of a handover."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from whatsapp_operator.core.actions import BumpVersion, Handover, Label, Retire
from whatsapp_operator.core.names import Epoch, Key, Obj
from whatsapp_operator.core.snapshot import Coreapp, Route

from .common import (
    ANCHOR_ANNOTATION,
    CLUSTER_LABEL,
    COMMITTED_ANNOTATION,
    EPOCH_LABEL,
    EVIDENCE,
    EVIDENCE_ANNOTATION,
    HOLDER_ANNOTATION,
    POD_NAME,
    PREVIOUS_ANNOTATION,
    RETIRING,
    ROLE_LABEL,
    SHARD_LABEL,
    TOUCHED_ANNOTATION,
    exact_timestamp,
    is_owned,
    moment,
    shard_of,
)


def route_of(service: Obj, cluster: str, cluster_uid: str) -> Route | None:
    """Return the route that a Service of this cluster is, or None if it is no shard's Service.

    The name alone says which shard it is: a copy under another name carries the same labels, annotations and owner.
    """
    meta = service["metadata"]
    shard = shard_of(meta["name"], cluster)
    if shard is None:
        return None
    notes: Mapping[str, str] = meta.get("annotations") or {}
    epoch = Epoch.parse((service["spec"].get("selector") or {}).get(EPOCH_LABEL))
    holder, _, holder_uid = notes.get(HOLDER_ANNOTATION, "").partition("/")
    if not POD_NAME.fullmatch(holder):
        # Damaged: no pod can have such a name. The shard gets a holder under a new epoch, as if none were named.
        holder = holder_uid = ""
    committed, previous = notes.get(COMMITTED_ANNOTATION), notes.get(PREVIOUS_ANNOTATION, "")
    kind, _, evidence = notes.get(EVIDENCE_ANNOTATION, "").partition("/")
    return Route(
        shard=shard,
        name=meta["name"],
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        epoch=str(epoch) if epoch else None,
        holder=holder if epoch and holder else None,
        holder_uid=holder_uid if epoch and holder_uid else None,
        # The API server would reject a whole status in which a text that others wrote is too long.
        previous=previous if POD_NAME.fullmatch(previous) else None,
        evidence=evidence if EVIDENCE.fullmatch(evidence) else None,
        planned=kind == "Switchover",
        committed_at=moment(committed) if committed else None,
        touched=notes.get(TOUCHED_ANNOTATION),
        foreign=not is_owned(service, cluster_uid),
    )


def with_copy(route: Route, foreign: Iterable[Obj]) -> Route:
    """Return a route with the name of a foreign pod that its Service selects, if there is one among these pods with the cluster's label.

    The holder itself may be among them while its StatefulSet does not exist.
    """
    selected = {SHARD_LABEL: str(route.shard), EPOCH_LABEL: route.epoch}
    alike = (pod["metadata"] for pod in foreign if selected.items() <= (pod["metadata"].get("labels") or {}).items())
    copy = next((meta["name"] for meta in alike if meta["uid"] != route.holder_uid), None)
    return route if route.copied_by == copy else replace(route, copied_by=copy)


def _pointer(label: str) -> str:
    # No label has a tilde, which would have to be escaped too.
    return "/metadata/labels/" + label.replace("/", "~1")


def _test(coreapp: Coreapp) -> list[dict[str, Any]]:
    # A test against null passes for an absent label.
    return [
        {"op": "test", "path": "/metadata/uid", "value": coreapp.uid},
        {"op": "test", "path": _pointer(EPOCH_LABEL), "value": coreapp.epoch_label},
    ]


def label_patch(coreapp: Coreapp, shard: int, epoch: str) -> list[dict[str, Any]]:
    """Return the JSON patch that prepares a pod: it takes effect only on this very pod with the label as it was read."""
    return _marked(coreapp, {ROLE_LABEL: "active", SHARD_LABEL: str(shard), EPOCH_LABEL: epoch})


def retire_patch(mark: Retire) -> list[dict[str, Any]]:
    """Return the JSON patch that marks a standby that goes; it has no effect if a leader has just prepared this pod."""
    return _marked(mark.coreapp, {ROLE_LABEL: RETIRING, EPOCH_LABEL: str(mark.epoch)})


def _marked(coreapp: Coreapp, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    return [*_test(coreapp), *({"op": "add", "path": _pointer(label), "value": value} for label, value in labels.items())]


def strip_patch(coreapp: Coreapp) -> list[dict[str, Any]]:
    """Return the JSON patch that makes a pod a standby again."""
    return [
        *_test(coreapp),
        *({"op": "remove", "path": _pointer(label)} for label in (SHARD_LABEL, EPOCH_LABEL) if label in coreapp.labels),
        {"op": "add", "path": _pointer(ROLE_LABEL), "value": "standby"},
    ]


def commit_patch(key: Key, handover: Handover, at: datetime) -> dict[str, Any]:
    """Return the merge patch that is the handover: selector and holder, by the resourceVersion that gave the epoch its n."""
    route, pod = handover.route, handover.to
    return {
        "metadata": {
            "resourceVersion": str(route.version),
            "annotations": {
                HOLDER_ANNOTATION: f"{pod.name}/{pod.uid}",
                PREVIOUS_ANNOTATION: route.holder,
                EVIDENCE_ANNOTATION: f"{'Switchover' if handover.planned else 'Failover'}/{handover.evidence}" if route.holder else None,
                COMMITTED_ANNOTATION: exact_timestamp(at),
                TOUCHED_ANNOTATION: None,
            },
        },
        "spec": {"selector": {CLUSTER_LABEL: key.name, SHARD_LABEL: str(route.shard), EPOCH_LABEL: str(handover.epoch)}},
    }


def touch_patch(route: Route, epoch: str | None) -> dict[str, Any]:
    """Return the merge patch that moves a Service's resourceVersion and nothing else; it notes the epoch for which it was moved."""
    return {"metadata": {"resourceVersion": str(route.version), "annotations": {TOUCHED_ANNOTATION: epoch}}}


def labels_patch(action: Label) -> dict[str, Any]:
    """Return the merge patch that gives an object its labels again, and changes nothing else."""
    return {"metadata": {"resourceVersion": action.resource_version, "labels": dict(action.labels)}}


def anchor_patch(anchor: BumpVersion) -> dict[str, Any]:
    """Return the merge patch that moves the StatefulSet's resourceVersion and nothing else."""
    note = {ANCHOR_ANNOTATION: f"{anchor.shards}-{anchor.nonce}"}
    return {"metadata": {"resourceVersion": anchor.resource_version, "annotations": note}}


def bumped_for(statefulset: Obj) -> str | None:
    """Return what the last such patch of a StatefulSet was for."""
    return ((statefulset["metadata"].get("annotations") or {}).get(ANCHOR_ANNOTATION) or "").partition("-")[2] or None
