"""The backends of hollow nodes: two operators behind wires and many clusters, or one cluster and nothing between."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from localkube import Obj, kubeconfig
from localkube.hollow.control import HollowControl
from localkube.plane.certificates import Certificates
from localkube.plane.processes import Process, load
from localkube.progress import to_stderr
from localkube.scenarios.cluster import CLUSTERS, NAMESPACE
from localkube.scenarios.environment import SHARDS, SPARES, Environment
from localkube.scenarios.harness import Harness
from localkube.scenarios.hollow.probe import RATE, Probe
from localkube.scenarios.hollow.servers import ApiProxy, Webhook, api_proxy, webhook_server
from outside.observer import Observer
from outside.wire import Wire

RESTART_S = 1
NODES = 6  # two in each of three zones
INBOUND_RATE = 2.0  # messages a second that WhatsApp users write to each cluster
END_S = 10.0  # how long an operator may take to end after SIGTERM or SIGKILL
AT_A_TIME = 4  # clusters that are created at a time


class HollowEnvironment(Environment):
    """Runs on a `Harness` that is up without operators, and leaves it running at its end."""

    def __init__(self, harness: Harness, *, clusters: int) -> None:
        """``clusters``: how many run side by side."""
        names = tuple(f"c{number:02}" for number in range(clusters))
        super().__init__(harness.plane.admin_kubeconfig, names, ask_client=True, stream={"inbound_rate": INBOUND_RATE})
        self.harness = harness
        self.wires: dict[str, Wire] = {}  # of each replica of the operator, by name: its only way to the API server
        self.control = HollowControl.of(harness.folder / "hollow")
        self.certificates = Certificates(harness.folder / "certificates")  # those of the API server
        self.proxy = ApiProxy("")  # where operators are led whose calls are to be answered otherwise
        self.webhook = Webhook()  # nothing leads to it but for a fault
        self.copy: Obj = {}  # A Service as it was before
        self._server = kubeconfig.read(harness.plane.admin_kubeconfig).server

    async def _start(self) -> None:
        await self._exits.enter_async_context(self.control)
        self.proxy = await self._exits.enter_async_context(api_proxy(self._server, self.certificates))
        self.webhook = await self._exits.enter_async_context(webhook_server(self.certificates))
        for _ in range(2):
            await self.start_operator()
        begun, few = time.monotonic(), asyncio.Semaphore(AT_A_TIME)

        async def begin(name: str) -> None:
            async with few:
                await self.create(name)
                await self.settle([name])

        await asyncio.gather(*map(begin, self.clusters))
        to_stderr(f"{len(self.clusters)} clusters are ready after {time.monotonic() - begun:.1f} s")

    async def create(self, name: str, **spec: Any) -> None:
        """Create a cluster, see `manifest`."""
        await self.api.post(CLUSTERS, manifest(name, **spec))

    async def bring_back(self) -> None:
        """Bring back nodes, containers and two running operators."""
        for node in await self.workers():
            await self.control.back(node)
        for name, process in [*self.harness.operators.running.items()]:
            if not process.alive():
                await self._forget(name)
        while len(self.harness.operators.running) < 2:
            await self.start_operator()

    def fault(self) -> str:
        """One sentence on a process that ended by itself, empty if there is none."""
        return self.harness.fault()

    async def ambiguous(self) -> int:
        """How often the hollow nodes, asked for a shard's Service, found several pods."""
        counts: dict[str, int] = (await self.control.state())["ambiguous"]
        return sum(times for where, times in counts.items() if where.startswith(f"{NAMESPACE}/") and "-shard-" in where)

    async def effects(self) -> Counter[tuple[str, str]]:
        """What the hollow nodes counted."""
        counted: dict[str, dict[str, int]] = (await self.control.state())["effects"]
        return Counter({(uid, name): count for uid, counts in counted.items() for name, count in counts.items()})

    def busy_seconds(self) -> float:
        """Processor time that the hollow nodes have used so far, in seconds."""
        return sum(map(Process.processor_seconds, load(self.harness.folder / "hollow.json")))

    async def is_operator(self, name: str) -> bool:
        """Whether a replica of this name runs."""
        process = self.harness.operators.running.get(name)
        return process is not None and process.alive()

    async def leading(self) -> Process:
        """The process of the operator that leads. LocalKubeError if none does."""
        name = await self.leader()
        return self.harness.operators.running[name]

    async def nodes(self) -> list[Obj]:
        """The hollow nodes: name, zone, lost."""
        nodes: list[Obj] = (await self.control.state())["nodes"]
        return nodes

    async def workers(self) -> list[str]:
        """All of them."""
        return [node["name"] for node in await self.nodes()]

    async def start_operator(self, *, module: str = "whatsapp_operator") -> str:
        """Start one more replica behind a wire of its own and wait until it watches. Returns its name. ``module``: what Python runs."""
        parts = urlsplit(self._server)
        wire = await self._exits.enter_async_context(Wire((parts.hostname or "", parts.port or 443)))
        url = f"https://{wire.address[0]}:{wire.address[1]}"
        process = await asyncio.to_thread(lambda: self.harness.start_operator(server=url, module=module))
        self.wires[process.name] = wire
        await asyncio.to_thread(self.harness.wait_for_operator, process)
        return process.name

    async def end(self, name: str) -> None:
        """Terminate an operator, and wait until it has ended."""
        self.harness.operators.running[name].signal(signal.SIGTERM)
        await self._forget(name)

    async def replace(self, name: str) -> None:
        """Start another operator for one that was killed, as its Deployment would."""
        await self._forget(name)
        await self.start_operator()

    async def _forget(self, name: str) -> None:
        process = self.harness.operators.running[name]
        await self.seen(lambda: not process.alive(), END_S, f"the end of {name}")
        self.harness.forget_operator(name)
        self.wires.pop(name, None)


class SingleCluster(HollowEnvironment):
    """Runs on a `Harness` with running operators and nothing between them and the API server, to measure fractions of a second.

    Messages flow, and faults are played, only where and while `sending` says.
    """

    def __init__(self, harness: Harness) -> None:
        super().__init__(harness, clusters=0)
        self.whole = Observer(self.kubeconfig, NAMESPACE, ask_client=True)
        """Observes from beginning to end; that of the cases is another one for each."""
        self.probes: dict[str, Probe] = {}
        """The streams, by cluster."""

    async def _start(self) -> None:
        await self._exits.enter_async_context(self.control)
        await asyncio.to_thread(self.whole.__enter__)
        # What it missed is asked of it before.
        self._exits.push_async_callback(lambda: asyncio.to_thread(self.whole.__exit__, KeyboardInterrupt))

    async def start_operator(self, *, module: str = "whatsapp_operator") -> str:
        """Start one more replica and wait until it watches. Returns its name."""
        process = await asyncio.to_thread(lambda: self.harness.start_operator(module=module))
        await asyncio.to_thread(self.harness.wait_for_operator, process)
        return process.name

    def busy_seconds(self) -> float:
        """Not asked: a case of a tenth of a second is too short for a share of a core."""
        return 0.0

    async def apply(self, manifest: Path, cluster: str) -> None:
        """``kubectl apply -f``, and wait until that cluster is as wanted. LocalKubeError with what kubectl said, or after 120 s."""
        await asyncio.to_thread(self.harness.plane.kubectl, "apply", "-n", NAMESPACE, "-f", str(manifest))
        await self.settled(cluster)

    @asynccontextmanager
    async def sending(self, *clusters: str, rate: float = RATE, inbound_rate: float = 0.0) -> AsyncIterator[None]:
        """Messages flow to these clusters; faults meet them. TrafficError when they let no messages in."""
        async with AsyncExitStack() as exits:
            for cluster in clusters:
                probe = Probe(self.kubeconfig, cluster, lambda: self.observer, rate=rate, inbound_rate=inbound_rate)
                self.probes[cluster] = await exits.enter_async_context(probe)
            self.streams.update(self.probes)
            self.clusters = clusters
            try:
                yield
            finally:
                self.clusters = ()


def manifest(name: str, **spec: Any) -> Obj:
    """A cluster whose restart takes a second, of two shards and one spare unless ``spec`` says otherwise."""
    client = {"type": "Simulator", "simulator": {"restartSeconds": RESTART_S}}
    whole = {"shards": SHARDS, "spares": SPARES, "client": client, **spec}
    return {"apiVersion": "multiconnect.dev/v1alpha1", "kind": "WhatsAppCluster", "metadata": {"name": name}, "spec": whole}
