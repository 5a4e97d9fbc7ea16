"""How a WhatsAppCluster is named, asked for things and judged from outside."""

from __future__ import annotations

from dataclasses import dataclass

from localkube import Obj
from localkube.hollow.status import is_ready as says_ready
from localkube.plane.operators import NAME as OPERATOR
from localkube.plane.operators import NAMESPACE as SYSTEM
from outside.observer import Observer

NAMESPACE, NAME = "default", "acme"
GROUP = "/apis/multiconnect.dev/v1alpha1"
CLUSTERS = f"{GROUP}/namespaces/{NAMESPACE}/whatsappclusters"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/{OPERATOR}"
"""That of the operators."""
ROLE = "multiconnect.dev/role"
SWITCHOVER = "multiconnect.dev/switchover"


@dataclass(frozen=True)
class Holder:
    """The pod that serves a shard."""

    shard: int
    pod: str
    uid: str


def is_settled(observer: Observer, name: str) -> bool:
    """Whether a cluster is in the desired state: all shards served, all spares ready, no pod terminating, and the operator is done."""
    obj = observer.find("WhatsAppCluster", NAMESPACE, name)
    if obj is None:
        return False
    spec, status = obj["spec"], obj.get("status") or {}
    conditions = {one["type"]: one["status"] for one in status.get("conditions") or ()}
    coreapps = pods_of(observer, name, "coreapp")
    shards, spares = spec["shards"], spec["spares"]
    holders = observer.holders(NAMESPACE, name)
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


def pods_of(observer: Observer, name: str, *components: str) -> list[Obj]:
    """The pods of some components of a cluster as last seen."""
    labels = [{"app.kubernetes.io/component": one, "multiconnect.dev/cluster": name} for one in components]
    pods = observer.objects("Pod", NAMESPACE)
    return [pod for pod in pods if any(one.items() <= (pod["metadata"].get("labels") or {}).items() for one in labels)]


def is_ready(obj: Obj) -> bool:
    """Whether a pod or a node is ready and not about to be removed."""
    return "deletionTimestamp" not in obj.get("metadata", {}) and says_ready(obj)
