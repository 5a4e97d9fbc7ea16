"""The kinds of objects that the operator reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


Obj = dict[str, Any]
"""A Kubernetes object (or a part of one) as plain JSON."""


# ---------------------------------------------------------------------------------------------------------------- kinds


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, and its path in the API server."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True


POD = Kind("v1", "Pod", "pods")
SERVICE = Kind("v1", "Service", "services")
SECRET = Kind("v1", "Secret", "secrets")
PVC = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
EVENT = Kind("v1", "Event", "events")
NODE = Kind("v1", "Node", "nodes", namespaced=False)
STATEFULSET = Kind("apps/v1", "StatefulSet", "statefulsets")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
PDB = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORKPOLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
WAC = Kind("multiconnect.dev/v1alpha1", "WhatsAppCluster", "whatsappclusters")

KINDS = (POD, SERVICE, SECRET, PVC, EVENT, NODE, STATEFULSET, DEPLOYMENT, PDB, NETWORKPOLICY, LEASE, WAC)
_BY_NAMES: dict[tuple[Any, Any], Kind] = {(kind.api_version, kind.kind): kind for kind in KINDS}


def kind_of(obj: Mapping[str, Any]) -> Kind:
    """Return the Kind that an object names by `apiVersion` and `kind`; ValueError if it is not in KINDS."""
    kind = _BY_NAMES.get((obj.get("apiVersion"), obj.get("kind")))
    if kind is None:
        msg = f"apiVersion {obj.get('apiVersion')!r}, kind {obj.get('kind')!r} is not known here; add it to KINDS."
        raise ValueError(msg)
    return kind
