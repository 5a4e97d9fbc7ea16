"""How a WhatsAppCluster is named, asked for things and judged from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from localkube.errors import LocalKubeError
from localkube.hollow.kube import Kube
from outside.observer import Observer

Obj = dict[str, Any]

NAMESPACE, NAME = "default", "acme"
GROUP = "/apis/multiconnect.dev/v1alpha1"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/whatsapp-operator-system/leases"
LEASE = "whatsapp-operator"
ROLE = "multiconnect.dev/role"
SWITCHOVER = "multiconnect.dev/switchover"


class Api(Kube):
    """The API server as an administrator, with the calls that hollow nodes do not need."""

    async def replace(self, path: str, body: Obj) -> Obj:
        """Put an object in the place of the one at a path, as ``kubectl replace`` does. Raises KubeError."""
        return await self._call("PUT", path, body)

    async def delete(self, path: str, *, grace: int | None = None) -> None:
        """Delete the object at a path as ``kubectl delete`` does, with its own grace or so many seconds. Raises KubeError."""
        options = {} if grace is None else {"gracePeriodSeconds": grace}
        await self._call("DELETE", path, {"apiVersion": "v1", "kind": "DeleteOptions", **options})


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
        and all(map(_is_ready, coreapps))
        and len(holders) == shards
        and reported == holders
        and {meta["labels"].get(ROLE, "") for meta in others} <= {"standby"}
    )


def coreapps_of(observer: Observer, namespace: str, name: str) -> list[Obj]:
    """The pods of a cluster's Coreapps as last seen."""
    wanted = {"app.kubernetes.io/component": "coreapp", "multiconnect.dev/cluster": name}
    return [pod for pod in observer.objects("Pod", namespace) if wanted.items() <= (pod["metadata"].get("labels") or {}).items()]


def sentence(error: BaseException) -> str:
    """An error that a person reads, without a traceback."""
    if isinstance(error, OSError) and error.strerror:
        return f"the system reports: {error.strerror}{f' ({error.filename})' if error.filename else ''}"
    return str(error) if isinstance(error, LocalKubeError) else f"{type(error).__name__}: {error}"


def _is_ready(pod: Obj) -> bool:
    if pod["metadata"].get("deletionTimestamp"):
        return False
    return any(one["type"] == "Ready" and one["status"] == "True" for one in (pod.get("status") or {}).get("conditions") or ())
