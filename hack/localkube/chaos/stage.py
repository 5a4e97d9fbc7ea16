"""What chaos happens on: a control plane, hollow nodes, two operators behind wires, many clusters and a stream of messages to each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from localkube.chaos.ground import Ground
from localkube.chaos.proxy import ApiProxy, api_proxy
from localkube.chaos.traffic import Stream
from localkube.chaos.webhook import Webhook, webhook_server
from localkube.demo.cluster import GROUP, NAMESPACE
from localkube.demo.stage import Stage
from localkube.hollow.control import HollowControl
from localkube.plane import kubeconfig
from localkube.plane.certificates import Certificates
from localkube.plane.processes import Process, load
from localkube.progress import Report
from outside.wire import Wire

T = TypeVar("T")
Obj = dict[str, Any]

SHARDS, SPARES, RESTART_S = 2, 1, 1
NODES = 6
"""Two in each of three zones."""
INBOUND_RATE = 2.0
"""Messages a second that WhatsApp users write to each cluster."""
END_S = 10.0
"""Within so long an operator ends that was asked to, or killed."""
AT_A_TIME = 4
"""Clusters that are created at a time."""


class ChaosStage(Ground):
    """Use as an async context manager on a `Stage` that is up without operators; its end leaves the stage to its owner."""

    def __init__(self, stage: Stage, *, clusters: int, report: Report) -> None:
        """``clusters``: how many run side by side."""
        super().__init__(stage.plane.admin_kubeconfig, tuple(f"c{number:02}" for number in range(clusters)), ask_client=True)
        self.stage = stage
        self.wires: dict[str, Wire] = {}
        """Of each replica of the operator, by name: its only way to the API server."""
        self.control = HollowControl.of(stage.folder / "hollow")
        self.certificates = Certificates(stage.folder / "certificates")
        """Those of the API server."""
        self.proxy = ApiProxy("")
        """Where operators are led whose calls are to be answered otherwise."""
        self.webhook = Webhook()
        """Nothing leads to it but for a fault."""
        self.copy: Obj = {}
        """A Service as it was before."""
        self._report = report
        self._exits = AsyncExitStack()

    # ------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        """Start the operators, create the clusters and let messages flow. LocalKubeError when that does not come about."""
        try:
            await self._exits.enter_async_context(self.api)
            await self._exits.enter_async_context(self.control)
            server = kubeconfig.read(self.stage.plane.admin_kubeconfig).server
            self.proxy = await self._exits.enter_async_context(api_proxy(server, self.certificates))
            self.webhook = await self._exits.enter_async_context(webhook_server(self.certificates))
            await asyncio.to_thread(self._observer.__enter__)
            for _ in range(2):
                await self.start_operator()
            await self._create()
            for cluster in self.clusters:
                stream = Stream(self.kubeconfig, NAMESPACE, cluster, lambda: self.observer, inbound_rate=INBOUND_RATE)
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

    def fault(self) -> str:
        """One sentence on a process that ended by itself, empty if there is none."""
        return self.stage.fault() or ""

    async def ambiguous(self) -> int:
        """How often the hollow nodes, asked for a shard's Service, found several pods."""
        counts: dict[str, int] = (await self.control.state())["ambiguous"]
        return sum(times for where, times in counts.items() if where.startswith(f"{NAMESPACE}/") and "-shard-" in where)

    async def effects(self) -> Counter[tuple[str, str]]:
        """What the hollow nodes counted."""
        counted: dict[str, dict[str, int]] = (await self.control.state())["effects"]
        return Counter({(uid, name): count for uid, counts in counted.items() for name, count in counts.items()})

    async def is_operator(self, name: str) -> bool:
        """Whether a replica of this name runs."""
        process = self.stage.operators().get(name)
        return process is not None and process.alive()

    async def nodes(self) -> list[Obj]:
        """The hollow nodes: name, zone, lost."""
        nodes: list[Obj] = (await self.control.state())["nodes"]
        return nodes

    # ------------------------------------------------------------ operators

    async def start_operator(self, *, module: str = "whatsapp_operator") -> str:
        """Start one more replica behind a wire of its own and wait until it watches. Returns its name. ``module``: what Python runs."""
        parts = urlsplit(kubeconfig.read(self.stage.plane.admin_kubeconfig).server)
        wire = await self._exits.enter_async_context(Wire((parts.hostname or "", parts.port or 443)))
        url = f"https://{wire.address[0]}:{wire.address[1]}"
        process = await asyncio.to_thread(lambda: self.stage.start_operator(server=url, module=module))
        self.wires[process.name] = wire
        await asyncio.to_thread(self.stage.wait_for_operator, process)
        return process.name

    async def end(self, name: str) -> None:
        """Ask an operator to end, and strike it off."""
        self.stage.operators()[name].signal(signal.SIGTERM)
        await self._strike_off(name)

    async def replace(self, name: str) -> None:
        """Strike an operator off that was killed, and start another, as its Deployment would."""
        await self._strike_off(name)
        await self.start_operator()

    async def _strike_off(self, name: str) -> None:
        process = self.stage.operators()[name]
        await self.seen(lambda: not process.alive(), END_S, f"the end of {name}")
        self.stage.forget_operator(name)
        self.wires.pop(name, None)

    # ------------------------------------------------------------ asked for

    async def schedulable(self, *, yes: bool) -> None:
        """Uncordon all nodes, or cordon them."""
        for node in await self.nodes():
            await self.api.patch(f"/api/v1/nodes/{node['name']}", {"spec": {"unschedulable": not yes}}, kind="merge-patch+json")

    async def put_right(self) -> None:
        """Nodes there, containers going on, two operators that run, two shards."""
        for node in await self.nodes():
            await self.control.back(node["name"])
        await self.schedulable(yes=True)
        for name, process in self.stage.operators().items():
            if not process.alive():
                await self._strike_off(name)
        while len(self.stage.operators()) < 2:
            await self.start_operator()
        await asyncio.gather(*(self.set_shards(cluster, SHARDS) for cluster in self.clusters))
        await self.settle(self.clusters)

    def busy_seconds(self) -> float:
        """Processor time that the hollow nodes have used so far, in seconds."""
        return sum(map(processor_seconds, load(self.stage.folder / "hollow.json")))


def manifest(name: str) -> Obj:
    """A cluster of two shards and one spare whose restart takes a second."""
    client = {"type": "Simulator", "simulator": {"restartSeconds": RESTART_S}}
    spec = {"shards": SHARDS, "spares": SPARES, "client": client}
    return {"apiVersion": "multiconnect.dev/v1alpha1", "kind": "WhatsAppCluster", "metadata": {"name": name}, "spec": spec}


def processor_seconds(process: Process) -> float:
    """User and system time of a process, all threads; 0 when it is gone (`proc(5)`, fields 14 and 15 of stat)."""
    fields = _fields(process)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def is_paused(process: Process) -> bool:
    """Whether a signal has stopped a process (`proc(5)`, field 3 of stat)."""
    return _fields(process)[:1] == ["T"]


def _fields(process: Process) -> list[str]:
    """The fields of a process's stat from the third on; none when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return []
