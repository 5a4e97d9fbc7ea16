"""What faults happen on, whatever runs beneath: clusters, a stream of messages to each, and an observer of them all."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from localkube.chaos.traffic import Stream
from localkube.demo.cluster import GROUP, LEASE, LEASES, NAMESPACE, Api, Holder, coreapps_of, is_settled
from localkube.errors import LocalKubeError
from localkube.plane import kubeconfig
from outside.laws import Violation
from outside.observer import Observer

T = TypeVar("T")
Obj = dict[str, Any]

SETTLE_S = 120.0
POLL_S = 0.01
LEADER_S = 30.0


class Ground(ABC):
    """Looks at clusters from outside and asks things of them. Who inherits starts and ends what runs beneath."""

    def __init__(self, kubeconfig_path: Path, clusters: tuple[str, ...], *, ask_client: bool) -> None:
        """Prepare; ``kubeconfig_path`` opens the API server as an administrator, ``clusters`` are the names of those that are broken.

        ``ask_client``: pods can be reached from here, so the observer asks the simulators for their number of shards.
        """
        self.kubeconfig = kubeconfig_path
        self.clusters = clusters
        self.streams: dict[str, Stream] = {}
        self.reported: set[str] = set()
        """Broken laws that are in an outcome already."""
        self.own_writes: set[str] = set()
        """How the sentence on a broken law ends where a fault itself wrote into a shard's Service: that is its own doing."""
        self.api = Api(kubeconfig.read(kubeconfig_path))
        self._ask_client = ask_client
        self._observer = self._new_observer()

    # ------------------------------------------------------------ what runs beneath

    @abstractmethod
    def fault(self) -> str:
        """One sentence on what of the ground itself has failed, empty if nothing has."""

    def state(self) -> str:
        """What a person should know who waits in vain."""
        return self.fault()

    @abstractmethod
    async def ambiguous(self) -> int:
        """How often a look-up of a shard's Service found several pods since the beginning; 0 where nobody counts that."""

    @abstractmethod
    def busy_seconds(self) -> float:
        """Processor time that those who play the nodes have used so far, in seconds; 0 where they are real."""

    async def effects(self) -> Counter[tuple[str, str]]:
        """What was done to each pod since the beginning, by uid and name of the effect; nothing where nobody counts that."""
        return Counter()

    @abstractmethod
    async def put_right(self) -> None:
        """After a play that broke off: everything as it was before. Raises LocalKubeError or KubeError."""

    @abstractmethod
    async def is_operator(self, name: str) -> bool:
        """Whether a replica of the operator of this name runs."""

    # ------------------------------------------------------------ what is seen

    @property
    def observer(self) -> Observer:
        """The one that sees now."""
        return self._observer

    def broken_laws(self, seen: Iterable[Violation]) -> list[str]:
        """Those of the broken laws that are in no outcome yet; they are from now on."""
        own = tuple(self.own_writes)
        fresh = [text for text in dict.fromkeys(map(str, seen)) if text not in self.reported and not text.endswith(own)]
        self.reported.update(fresh)
        return fresh

    async def look_anew(self) -> Observer:
        """Have a fresh observer: it judges what it finds and what happens from now on, not what its predecessor missed."""
        old, fresh = self._observer, self._new_observer()
        await asyncio.to_thread(fresh.__enter__)
        self._observer = fresh
        await asyncio.to_thread(old.__exit__, KeyboardInterrupt)
        return fresh

    def _new_observer(self) -> Observer:
        return Observer(self.kubeconfig, NAMESPACE, ask_client=self._ask_client)

    def holder(self, cluster: str, shard: int) -> Holder | None:
        """Who serves a shard now; None if nobody does."""
        name = self.observer.holders(NAMESPACE, cluster).get(shard)
        pod = self.observer.find("Pod", NAMESPACE, name) if name else None
        return None if pod is None else Holder(shard, pod["metadata"]["name"], pod["metadata"]["uid"])

    def holders(self, cluster: str) -> list[Holder]:
        """All that serve a shard of a cluster now."""
        return [found for shard in self.observer.holders(NAMESPACE, cluster) if (found := self.holder(cluster, shard)) is not None]

    def is_ended(self, holder: Holder) -> bool:
        """Whether that very pod is gone, about to go, or over."""
        pod = self.observer.find("Pod", NAMESPACE, holder.pod)
        if pod is None or pod["metadata"]["uid"] != holder.uid:
            return True
        return "deletionTimestamp" in pod["metadata"] or (pod.get("status") or {}).get("phase") == "Failed"

    def coreapps(self, cluster: str) -> list[Obj]:
        """The pods of the Coreapps."""
        return coreapps_of(self.observer, NAMESPACE, cluster)

    def pods(self, cluster: str, component: str) -> list[Obj]:
        """The pods of a cluster's component."""
        wanted = {"app.kubernetes.io/component": component, "multiconnect.dev/cluster": cluster}
        return [pod for pod in self.observer.objects("Pod", NAMESPACE) if wanted.items() <= pod["metadata"]["labels"].items()]

    def lasting_coreapps(self) -> dict[str, str]:
        """The Coreapps of all clusters that are not about to go: name by uid."""
        pods = [pod["metadata"] for cluster in self.clusters for pod in self.coreapps(cluster)]
        return {meta["uid"]: meta["name"] for meta in pods if "deletionTimestamp" not in meta}

    def status(self, cluster: str) -> Obj:
        """The status of a cluster; empty before the first."""
        status: Obj = (self.observer.find("WhatsAppCluster", NAMESPACE, cluster) or {}).get("status") or {}
        return status

    async def seen(self, look: Callable[[], T | None], timeout: float, what: str) -> T:
        """What ``look`` says as soon as that is true. LocalKubeError after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while not (found := look()):
            if time.monotonic() > deadline:
                msg = f"{what} did not come true within {timeout:g} s. {self.state()}"
                raise LocalKubeError(msg)
            await asyncio.sleep(POLL_S)
        return found

    async def settle(self, clusters: Iterable[str], timeout: float = SETTLE_S) -> list[str]:
        """Wait until all of these are as wanted, spares included; returns those that are not after ``timeout`` seconds."""
        open_ = list(clusters)
        deadline = time.monotonic() + timeout
        while open_ and time.monotonic() < deadline:
            open_ = [cluster for cluster in open_ if not is_settled(self.observer, NAMESPACE, cluster)]
            if open_:
                await asyncio.sleep(0.05)
        return open_

    async def leader(self) -> str:
        """The name of the replica that holds the Lease and runs. LocalKubeError if none does within 30 s."""
        deadline = time.monotonic() + LEADER_S
        while time.monotonic() < deadline:
            lease = await self.api.get(f"{LEASES}/{LEASE}") or {}
            name = str((lease.get("spec") or {}).get("holderIdentity") or "").rpartition("_")[0]
            if name and await self.is_operator(name):
                return name
            await asyncio.sleep(0.1)
        msg = "no operator leads"
        raise LocalKubeError(msg)

    # ------------------------------------------------------------ asked for

    async def set_shards(self, cluster: str, shards: int) -> None:
        """Change ``spec.shards``."""
        path = f"{GROUP}/namespaces/{NAMESPACE}/whatsappclusters/{cluster}"
        await self.api.patch(path, {"spec": {"shards": shards}}, kind="merge-patch+json")
