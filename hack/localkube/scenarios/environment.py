"""The environment that faults happen in, on any kind of cluster: clusters, a stream of messages to each, and an observer of them all."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

from localkube import LocalKubeError, Obj, kubeconfig
from localkube.hollow.kube import MERGE, Kube
from localkube.progress import to_stderr
from localkube.scenarios.cluster import CLUSTERS, LEASE, NAMESPACE, SWITCHOVER, Holder, is_settled, pods_of
from localkube.scenarios.traffic import Stream
from outside.laws import Violation
from outside.observer import Commit, Observer

T = TypeVar("T")

SHARDS, SPARES = 2, 1
SETTLE_S = 120.0
POLL_S = 0.01
LEADER_S = 30.0


class Environment(ABC):
    """Observes clusters from outside and sends them requests. A backend starts and ends the processes or nodes below them.

    Use as an async context manager: messages flow from its beginning to its end.
    """

    def __init__(self, kubeconfig_path: Path, clusters: tuple[str, ...], *, ask_client: bool, stream: Mapping[str, Any]) -> None:
        """``kubeconfig_path`` opens the API server as an administrator, ``clusters`` are the names of those that are broken.

        ``ask_client``: pods can be reached from here, so the observer asks the simulators for their number of shards. ``stream``: more
        options of each `Stream`.
        """
        self.kubeconfig = kubeconfig_path
        self.clusters = clusters
        self.streams: dict[str, Stream] = {}
        self.reported: set[str] = set()  # broken laws that are already part of an outcome
        self.own_writes: set[str] = set()
        """How the sentence on a broken law ends if a fault itself wrote to a shard's Service: that violation is the fault's own doing."""
        self.api = Kube(kubeconfig.read(kubeconfig_path))
        self._exits = AsyncExitStack()
        self._ask_client = ask_client
        self._stream_options = stream
        self.observer = self._new_observer()  # the one that observes now

    async def __aenter__(self) -> Self:
        """Start observing, the backend, and the messages. LocalKubeError if that fails."""
        try:
            await self._exits.enter_async_context(self.api)
            # What it missed was asked of it before.
            self._exits.push_async_callback(lambda: asyncio.to_thread(self.observer.__exit__, KeyboardInterrupt))
            await asyncio.to_thread(self.observer.__enter__)
            await self._start()
            for cluster in self.clusters:
                stream = Stream(self.kubeconfig, cluster, lambda: self.observer, **self._stream_options)
                self.streams[cluster] = await self._exits.enter_async_context(stream)
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the messages, the backend, and observing."""
        await self._exits.aclose()

    @abstractmethod
    async def _start(self) -> None:
        """Start what runs beneath; what ends it goes into ``_exits``. LocalKubeError."""

    @abstractmethod
    async def bring_back(self) -> None:
        """Bring back all nodes, and everything on them except the clusters. LocalKubeError if it takes too long."""

    @abstractmethod
    async def workers(self) -> list[str]:
        """The names of the nodes that faults may strike."""

    @abstractmethod
    async def is_operator(self, name: str) -> bool:
        """Whether a replica of the operator of this name runs."""

    def fault(self) -> str:
        """One sentence on a failed part of the environment itself; empty if none has failed."""
        return ""

    def state(self) -> str:
        """What a person should know if something does not happen as expected."""
        return self.fault() or self.observer.summary()

    async def ambiguous(self) -> int:
        """How often a lookup of a shard's Service found several pods since the beginning; 0 where that is not counted."""
        return 0

    def busy_seconds(self) -> float:
        """Processor time that simulated nodes have used so far, in seconds; 0 where nodes are real."""
        return 0.0

    async def effects(self) -> Counter[tuple[str, str]]:
        """What was done to each pod since the beginning, by uid and name of the effect; nothing where that is not counted."""
        return Counter()

    def _new_observer(self) -> Observer:
        return Observer(self.kubeconfig, NAMESPACE, ask_client=self._ask_client)

    async def restart_observer(self) -> None:
        """Start a fresh observer: it judges the present state and what happens from now on, not what its predecessor missed."""
        old, fresh = self.observer, self._new_observer()
        await asyncio.to_thread(fresh.__enter__)
        self.observer = fresh
        await asyncio.to_thread(old.__exit__, KeyboardInterrupt)

    def broken_laws(self, seen: Iterable[Violation]) -> list[str]:
        """The broken laws that are not part of an outcome yet; from now on they count as part of one."""
        own = tuple(self.own_writes)
        fresh = [text for text in dict.fromkeys(map(str, seen)) if text not in self.reported and not text.endswith(own)]
        self.reported.update(fresh)
        return fresh

    def holder(self, cluster: str, shard: int) -> Holder | None:
        """The holder of a shard now; None if there is none."""
        name = self.observer.holders(NAMESPACE, cluster).get(shard)
        pod = self.observer.find("Pod", NAMESPACE, name) if name else None
        return None if pod is None else Holder(shard, pod["metadata"]["name"], pod["metadata"]["uid"])

    def holders(self, cluster: str) -> list[Holder]:
        """All that serve a shard of a cluster now."""
        return [found for shard in self.observer.holders(NAMESPACE, cluster) if (found := self.holder(cluster, shard)) is not None]

    def commit(self, cluster: str, shard: int, *, not_to: str = "", after: float = 0.0) -> Commit | None:
        """The first handover of a shard that was seen after a time (`time.monotonic()`), to a pod of another uid than ``not_to``."""
        mine = (one for one in self.observer.commits if (one.cluster, one.shard) == (cluster, shard) and one.monotonic > after)
        return next((one for one in mine if one.holder_uid != not_to), None)

    def pod(self, name: str, uid: str) -> Obj | None:
        """A pod of this name and uid; None if it is gone."""
        pod = self.observer.find("Pod", NAMESPACE, name)
        return pod if pod is not None and pod["metadata"]["uid"] == uid else None

    def is_ended(self, holder: Holder) -> bool:
        """Whether exactly this pod is gone, about to be removed, or finished."""
        pod = self.pod(holder.pod, holder.uid)
        return pod is None or "deletionTimestamp" in pod["metadata"] or (pod.get("status") or {}).get("phase") == "Failed"

    def coreapps(self, cluster: str) -> list[Obj]:
        """The pods of the Coreapps."""
        return self.pods(cluster, "coreapp")

    def pods(self, cluster: str, *components: str) -> list[Obj]:
        """The pods of some components of a cluster."""
        return pods_of(self.observer, cluster, *components)

    def lasting_coreapps(self) -> dict[str, str]:
        """The Coreapps of all clusters that are not about to be removed: name by uid."""
        pods = [pod["metadata"] for cluster in self.clusters for pod in self.coreapps(cluster)]
        return {meta["uid"]: meta["name"] for meta in pods if "deletionTimestamp" not in meta}

    def status(self, cluster: str) -> Obj:
        """The status of a cluster; empty before the first."""
        status: Obj = (self.observer.find("WhatsAppCluster", NAMESPACE, cluster) or {}).get("status") or {}
        return status

    async def until(self, ask: Callable[[], Awaitable[T | None]], timeout: float, what: str, *, pause: float = 0.1) -> T:
        """The first answer of ``ask`` that is true, asked again after each ``pause``. LocalKubeError after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while not (found := await ask()):
            if time.monotonic() > deadline:
                raise LocalKubeError(f"{what} did not come true within {timeout:g} s. {self.state()}")
            await asyncio.sleep(pause)
        return found

    async def seen(self, observe: Callable[[], T | None], timeout: float, what: str) -> T:
        """Like `until`, for facts that the observer already knows."""

        async def ask() -> T | None:
            return observe()

        return await self.until(ask, timeout, what, pause=POLL_S)

    async def settle(self, clusters: Iterable[str], timeout: float = SETTLE_S) -> list[str]:
        """Wait until all of these are in the desired state, including spares; return those that are not after ``timeout`` seconds."""
        open_ = list(clusters)
        deadline = time.monotonic() + timeout
        while open_ and time.monotonic() < deadline:
            open_ = [cluster for cluster in open_ if not is_settled(self.observer, cluster)]
            if open_:
                await asyncio.sleep(0.05)
        return open_

    async def settled(self, *clusters: str, timeout: float = SETTLE_S) -> None:
        """The same, but raises LocalKubeError, with what is wrong, after ``timeout`` seconds."""
        if late := await self.settle(clusters, timeout):
            raise LocalKubeError(f"{', '.join(late)} did not become as wanted, with all spares, within {timeout:g} s. {self.state()}")

    async def leader(self) -> str:
        """The name of the replica that holds the Lease and runs. LocalKubeError if none does within 30 s."""

        async def ask() -> str:
            lease = await self.api.get(LEASE) or {}
            name = str((lease.get("spec") or {}).get("holderIdentity") or "").rpartition("_")[0]
            return name if name and await self.is_operator(name) else ""

        return await self.until(ask, LEADER_S, "an operator that leads")

    async def delete_pod(self, pod: str, *, namespace: str = NAMESPACE, grace: int | None = None) -> None:
        """Delete a pod as ``kubectl delete pod`` does; with ``grace=0`` as with ``--force``."""
        await self.api.delete(f"/api/v1/namespaces/{namespace}/pods/{pod}", grace=grace)

    async def edit(self, cluster: str, patch: Obj) -> None:
        """Change a WhatsAppCluster by a merge patch."""
        await self.api.patch(f"{CLUSTERS}/{cluster}", patch, kind=MERGE)

    async def annotate(self, cluster: str, annotations: Obj) -> None:
        """Set annotations of a WhatsAppCluster; None removes one."""
        await self.edit(cluster, {"metadata": {"annotations": annotations}})

    async def switch_over(self, cluster: str, shard: int, to: str = "") -> None:
        """Ask for a shard to move to a spare, or to this pod, by the annotation that users write."""
        await self.annotate(cluster, {SWITCHOVER: f"{shard}={to}" if to else str(shard)})

    async def set_shards(self, cluster: str, shards: int) -> None:
        """Change ``spec.shards``."""
        await self.edit(cluster, {"spec": {"shards": shards}})

    async def resize(self, clusters: Collection[str], shards: int, timeout: float = SETTLE_S) -> None:
        """Change ``spec.shards`` and wait until all are as wanted. LocalKubeError after ``timeout`` seconds."""
        await asyncio.gather(*(self.set_shards(cluster, shards) for cluster in clusters))
        # Until the change is observed, everything is still in the former desired state.
        await self.seen(lambda: all(self.status(one).get("shards") == shards for one in clusters), timeout, f"{shards} shards")
        await self.settled(*clusters, timeout=timeout)

    async def cordon(self, *, yes: bool) -> None:
        """Cordon these nodes, or uncordon them."""
        for node in await self.workers():
            await self.api.patch(f"/api/v1/nodes/{node}", {"spec": {"unschedulable": yes or None}}, kind=MERGE)

    async def put_right(self) -> None:
        """After an aborted case: restore everything as it was before. LocalKubeError."""
        await self.bring_back()
        await self.cordon(yes=False)
        await asyncio.gather(*(self.set_shards(cluster, SHARDS) for cluster in self.clusters))
        if late := await self.settle(self.clusters):
            to_stderr(f"{', '.join(late)} is still not as wanted: {self.state()}")
