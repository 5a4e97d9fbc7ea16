"""Reads one Node object. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from whatsapp_operator.core.snapshot import Node

from .kinds import Obj

OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"
"""Set by a person or a controller when the machine is known to be off (kubernetes.io/docs/reference/labels-annotations-taints)."""
ZONES: Final = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")

LEAVING_TAINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ToBeDeletedByClusterAutoscaler": "kubernetes/autoscaler, cluster-autoscaler/utils/taints: set before the drain",
        "karpenter.sh/disrupted": "karpenter.sh/docs/concepts/disruption: set before the replacement is made and the node drained",
        "karpenter.sh/disruption": "the same before Karpenter 1.0 (karpenter.sh/v0.36/concepts/disruption)",
        "aws-node-termination-handler/": "aws/aws-node-termination-handler, TAINT_NODE: spot-itn, scheduled-maintenance, ...",
        "cloud.google.com/impending-node-termination": "GKE's maintenance handler: the machine will be stopped",
        "node.cloudprovider.kubernetes.io/shutdown": "kubernetes.io/docs/reference/labels-annotations-taints: the machine is shut down",
    }
)
"""Taints of nodes whose pods will be removed soon, with the source of each. A key that ends in / stands for all with this prefix.

Not included, because the node may stay: DeletionCandidateOfClusterAutoscaler (a soft hint), kubernetes.azure.com/scalesetpriority and
similar (how a node was bought), node.kubernetes.io/unreachable and not-ready (`ready` covers them)."""


def node_of(obj: Obj) -> Node:
    """Return what a Node object says. Its Lease is read separately."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    taints = [one for one in spec.get("taints") or () if one.get("effect") != "PreferNoSchedule"]
    keys = [str(one.get("key")) for one in taints]
    labels = meta.get("labels") or {}
    ready = next((one.get("status") for one in status.get("conditions") or () if one.get("type") == "Ready"), None)
    leaving = next((key for key in keys if _announces_removal(key)), None)
    return Node(
        name=meta["name"],
        zone=next((labels[label] for label in ZONES if labels.get(label)), None),
        ready={"True": True, "False": False}.get(str(ready)),
        leaving=leaving or ("cordoned" if spec.get("unschedulable") else None),
        out_of_service=OUT_OF_SERVICE in keys,
    )


def _announces_removal(key: str) -> bool:
    return any(key.startswith(known) if known.endswith("/") else key == known for known in LEAVING_TAINTS)
