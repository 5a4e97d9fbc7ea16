"""Hollow nodes and operators with nothing between them and the API server, for what is measured to fractions of a second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from localkube.progress import Report
from localkube.scenarios.cluster import NAMESPACE
from localkube.scenarios.harness import Harness
from localkube.scenarios.hollow.environment import HollowEnvironment
from localkube.scenarios.hollow.probe import RATE, Probe
from outside.observer import Observer


class SingleCluster(HollowEnvironment):
    """On a `Harness` whose operators run already. Messages flow, and faults are played, only where and while `sending` says."""

    def __init__(self, harness: Harness, *, report: Report) -> None:
        """Prepare."""
        super().__init__(harness, clusters=0, report=report)
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
