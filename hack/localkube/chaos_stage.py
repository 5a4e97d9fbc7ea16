"""What chaos happens on: a control plane, hollow nodes, two operators behind wires, many clusters and a stream of messages to each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from localkube import kubeconfig
from localkube.certificates import Certificates
from localkube.chaos_storm import storm
from localkube.chaos_traffic import Stream
from localkube.demo_cluster import GROUP, LEASE, LEASES, NAMESPACE, Api, Holder, coreapps_of, is_settled
from localkube.demo_stage import Stage
from localkube.errors import LocalKubeError
from localkube.hollow_control import HollowControl
from localkube.observer import Observer
from localkube.processes import Process, load
from localkube.progress import Report
from localkube.wire import Wire

T = TypeVar("T")
Obj = dict[str, Any]

SHARDS, SPARES, RESTART_S = 2, 1, 1
NODES = 6
"""Two in each of three zones."""
SETTLE_S = 120.0
POLL_S = 0.01
AT_A_TIME = 4
"""Clusters that are created at a time."""


class ChaosStage:
    """Use as an async context manager on a `Stage` that is up without operators; its end leaves the stage to its owner."""

    def __init__(self, stage: Stage, *, clusters: int, report: Report) -> None:
        """``clusters``: how many run side by side."""
        self.stage = stage
        self.clusters = tuple(f"c{number:02}" for number in range(clusters))
        self.streams: dict[str, Stream] = {}
        self.wires: dict[str, Wire] = {}
        """Of each replica of the operator, by name: its only way to the API server."""
        self.api = Api(kubeconfig.read(stage.plane.admin_kubeconfig))
        self.control = HollowControl.of(stage.folder / "hollow")
        self.storm: tuple[str, int] = ("", 0)
        """Where everybody is told to come again later."""
        self._report = report
        self._observer = Observer(stage.plane.admin_kubeconfig, NAMESPACE)
        self._exits = AsyncExitStack()

    # ------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        """Start the operators, create the clusters and let messages flow. LocalKubeError when that does not come about."""
        try:
            await self._exits.enter_async_context(self.api)
            await self._exits.enter_async_context(self.control)
            self.storm = await self._exits.enter_async_context(storm(Certificates(self.stage.folder / "certificates")))
            await asyncio.to_thread(self._observer.__enter__)
            for _ in range(2):
                await self.start_operator()
            await self._create()
            for cluster in self.clusters:
                stream = Stream(self.stage.plane.admin_kubeconfig, NAMESPACE, cluster, lambda: self.observer)
                self.streams[cluster] = await self._exits.enter_async_context(stream)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the messages, the wires and the watching."""
        await self._close()

    async def _close(self) -> None:
        await self._exits.aclose()
        await asyncio.to_thread(self._observer.__exit__, KeyboardInterrupt)  # what it missed was asked of it before

    async def _create(self) -> None:
        begun = time.monotonic()
        few = asyncio.Semaphore(AT_A_TIME)

        async def create(name: str) -> None:
            async with few:
                await self.api.post(f"{GROUP}/namespaces/{NAMESPACE}/whatsappclusters", manifest(name))
                await self.settle([name])

        await asyncio.gather(*map(create, self.clusters))
        self._report(f"{len(self.clusters)} clusters are ready after {time.monotonic() - begun:.1f} s")

    # ------------------------------------------------------------ what is seen

    @property
    def observer(self) -> Observer:
        """The one that sees now."""
        return self._observer

    async def look_anew(self) -> Observer:
        """Have a fresh observer: it judges what happens from now on, and forgives what its predecessor missed."""
        old, fresh = self._observer, Observer(self.stage.plane.admin_kubeconfig, NAMESPACE)
        await asyncio.to_thread(fresh.__enter__)
        self._observer = fresh
        await asyncio.to_thread(old.__exit__, KeyboardInterrupt)
        return fresh

    def holder(self, cluster: str, shard: int) -> Holder | None:
        """Who serves a shard now; None if nobody does."""
        name = self.observer.holders(NAMESPACE, cluster).get(shard)
        pod = self.observer.find("Pod", NAMESPACE, name) if name else None
        return None if pod is None else Holder(shard, pod["metadata"]["name"], pod["metadata"]["uid"])

    def holders(self, cluster: str) -> list[Holder]:
        """All that serve a shard of a cluster now."""
        return [found for shard in self.observer.holders(NAMESPACE, cluster) if (found := self.holder(cluster, shard)) is not None]

    def coreapps(self, cluster: str) -> list[Obj]:
        """The pods of the Coreapps."""
        return coreapps_of(self.observer, NAMESPACE, cluster)

    def pods(self, cluster: str, component: str) -> list[Obj]:
        """The pods of a cluster's component."""
        wanted = {"app.kubernetes.io/component": component, "multiconnect.dev/cluster": cluster}
        return [pod for pod in self.observer.objects("Pod", NAMESPACE) if wanted.items() <= pod["metadata"]["labels"].items()]

    def status(self, cluster: str) -> Obj:
        """The status of a cluster; empty before the first."""
        status: Obj = (self.observer.find("WhatsAppCluster", NAMESPACE, cluster) or {}).get("status") or {}
        return status

    async def seen(self, look: Callable[[], T | None], timeout: float, what: str) -> T:
        """What ``look`` says as soon as that is true. LocalKubeError after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while not (found := look()):
            if time.monotonic() > deadline:
                msg = f"{what} did not come true within {timeout:g} s. {self.stage.fault() or ''}"
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

    async def nodes(self) -> list[Obj]:
        """The hollow nodes: name, zone, lost."""
        nodes: list[Obj] = (await self.control.state())["nodes"]
        return nodes

    # ------------------------------------------------------------ operators

    async def start_operator(self) -> str:
        """Start one more replica behind a wire of its own and wait until it watches. Returns its name."""
        parts = urlsplit(kubeconfig.read(self.stage.plane.admin_kubeconfig).server)
        wire = await self._exits.enter_async_context(Wire((parts.hostname or "", parts.port or 443)))
        url = f"https://{wire.address[0]}:{wire.address[1]}"
        process = await asyncio.to_thread(lambda: self.stage.start_operator(server=url))
        self.wires[process.name] = wire
        await asyncio.to_thread(self.stage.wait_for_operator, process)
        return process.name

    async def leader(self) -> str:
        """The name of the replica that holds the Lease and runs. LocalKubeError if none does within 30 s."""
        deadline = time.monotonic() + 30.0
        while time.monotonic() < deadline:
            lease = await self.api.get(f"{LEASES}/{LEASE}") or {}
            name = str((lease.get("spec") or {}).get("holderIdentity") or "").rpartition("_")[0]
            process = self.stage.operators().get(name)
            if process is not None and process.alive():
                return name
            await asyncio.sleep(0.1)
        msg = "no operator leads"
        raise LocalKubeError(msg)

    async def replace(self, name: str) -> None:
        """Strike an operator off that was killed, and start another, as its Deployment would."""
        process = self.stage.operators()[name]
        await self.seen(lambda: not process.alive(), 10.0, f"the end of {name}")
        self.stage.forget_operator(name)
        self.wires.pop(name, None)
        await self.start_operator()

    # ------------------------------------------------------------ asked for

    async def set_shards(self, cluster: str, shards: int) -> None:
        """Change ``spec.shards``."""
        path = f"{GROUP}/namespaces/{NAMESPACE}/whatsappclusters/{cluster}"
        await self.api.patch(path, {"spec": {"shards": shards}}, kind="merge-patch+json")

    async def schedulable(self, *, yes: bool) -> None:
        """Uncordon all nodes, or cordon them."""
        for node in await self.nodes():
            await self.api.patch(f"/api/v1/nodes/{node['name']}", {"spec": {"unschedulable": not yes}}, kind="merge-patch+json")

    def hollow_seconds(self) -> float:
        """Processor time that the hollow nodes have used so far, in seconds."""
        return sum(map(processor_seconds, load(self.stage.folder / "hollow.json")))


def manifest(name: str) -> Obj:
    """A cluster of two shards and one spare whose restart takes a second."""
    client = {"type": "Simulator", "simulator": {"restartSeconds": RESTART_S}}
    spec = {"shards": SHARDS, "spares": SPARES, "client": client}
    return {"apiVersion": "multiconnect.dev/v1alpha1", "kind": "WhatsAppCluster", "metadata": {"name": name}, "spec": spec}


def processor_seconds(process: Process) -> float:
    """User and system time of a process, all threads; 0 when it is gone (`proc(5)`, fields 14 and 15 of stat)."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0
