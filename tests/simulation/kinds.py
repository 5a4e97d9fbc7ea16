"""What the simulation knows of Kubernetes: constants of its own, so that a mistake in those of the operator is seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Obj = dict[str, Any]
"""An object as the API server stores it. Never changed in place."""


class Named(Protocol):
    """Anything that says which kind it means by the kind's name."""

    @property
    def kind(self) -> str: ...


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """A kind of object. There is one of each: it is equal to itself only, which makes it quick to look up."""

    api_version: str
    kind: str


POD = Kind("v1", "Pod")
SERVICE = Kind("v1", "Service")
SECRET = Kind("v1", "Secret")
PVC = Kind("v1", "PersistentVolumeClaim")
EVENT = Kind("v1", "Event")
NODE = Kind("v1", "Node")
STATEFULSET = Kind("apps/v1", "StatefulSet")
DEPLOYMENT = Kind("apps/v1", "Deployment")
PDB = Kind("policy/v1", "PodDisruptionBudget")
NETWORKPOLICY = Kind("networking.k8s.io/v1", "NetworkPolicy")
LEASE = Kind("coordination.k8s.io/v1", "Lease")
WAC = Kind("multiconnect.dev/v1alpha1", "WhatsAppCluster")

KINDS = (POD, SERVICE, SECRET, PVC, EVENT, NODE, STATEFULSET, DEPLOYMENT, PDB, NETWORKPOLICY, LEASE, WAC)
_BY_NAME = {kind.kind: kind for kind in KINDS}

LEASE_NAMESPACE = "kube-node-lease"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


def own(kind: Named) -> Kind:
    """Return the simulation's constant for a kind that another party names."""
    return _BY_NAME[kind.kind]


def kind_of(obj: Mapping[str, Any]) -> Kind:
    """Return the kind of an object."""
    return _BY_NAME[obj["kind"]]


def is_ready(pod: Obj) -> bool:
    """Return whether a pod is ready and stays."""
    return says_ready(pod) and "deletionTimestamp" not in pod["metadata"]


def says_ready(pod: Obj) -> bool:
    """Return whether a pod is ready; it may be about to end."""
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod.get("status", {}).get("conditions") or ())


def epoch_number(text: str | None) -> int | None:
    """Return n of an epoch `<n>-<random>`; None for anything else."""
    number, dash, chance = (text or "").partition("-")
    return int(number) if dash and chance and number.isascii() and number.isdigit() else None
