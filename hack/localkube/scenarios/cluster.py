"""How a WhatsAppCluster is named, asked for things and judged from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from outside.observer import Observer

Obj = dict[str, Any]

NAMESPACE, NAME = "default", "acme"
GROUP = "/apis/multiconnect.dev/v1alpha1"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/whatsapp-operator-system/leases"
LEASE = "whatsapp-operator"
ROLE = "multiconnect.dev/role"
SWITCHOVER = "multiconnect.dev/switchover"


@dataclass(frozen=True)
class Holder:
    """The pod that serves a shard."""

    shard: int
    pod: str
    uid: str


def is_settled(observer: Observer, namespace: str, name: str) -> bool:
    """Whether a cluster is as wanted: all shards served, all spares ready, no pod leaves, and the operator has nothing to do."""
    obj = observer.find("WhatsAppCluster", namespace, name)
    if obj is None:
        return False
    spec, status = obj["spec"], obj.get("status") or {}
    conditions = {one["type"]: one["status"] for one in status.get("conditions") or ()}
    coreapps = coreapps_of(observer, namespace, name)
    shards, spares = spec["shards"], spec["spares"]
    holders = observer.holders(namespace, name)
    reported = {one["shard"]: one.get("holder") for one in status.get("shardMap") or ()}
    others = (pod["metadata"] for pod in coreapps if pod["metadata"]["name"] not in holders.values())
    return (
        status.get("observedGeneration") == obj["metadata"]["generation"]
        and (conditions.get("Ready"), conditions.get("Reconciling")) == ("True", "False")
        and status.get("shards") == shards
        and status.get("failuresTolerated") == spares
        and SWITCHOVER not in (obj["metadata"].get("annotations") or {})
        and len(coreapps) == shards + spares
        and all(map(is_ready, coreapps))
        and len(holders) == shards
        and reported == holders
        and {meta["labels"].get(ROLE, "") for meta in others} <= {"standby"}
    )


def coreapps_of(observer: Observer, namespace: str, name: str) -> list[Obj]:
    """The pods of a cluster's Coreapps as last seen."""
    wanted = {"app.kubernetes.io/component": "coreapp", "multiconnect.dev/cluster": name}
    return [pod for pod in observer.objects("Pod", namespace) if wanted.items() <= (pod["metadata"].get("labels") or {}).items()]


def is_ready(obj: Mapping[str, Any]) -> bool:
    """Whether a pod or a node is ready and not about to go."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return "deletionTimestamp" not in obj.get("metadata", {}) and any(
        (one["type"], one["status"]) == ("Ready", "True") for one in conditions
    )
