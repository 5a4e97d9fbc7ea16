"""Hollow nodes: a cluster without kubelets. One process registers nodes and runs the simulator for their pods on loopback addresses.

`python -m localkube.hollow --kubeconfig PATH --nodes N --folder DIR` runs until SIGTERM and writes DIR/hollow.json when it is ready.
The map: `fleet` the nodes with all that runs on them; `nodes` one node and its Lease; `pods` one pod and what runs in it;
`spec` what a pod asks for, `config` how it gets it; `status` what is reported, `reports` how; `kube` the API server;
`addresses` loopback addresses; `claims` volumes; `control` faults.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from aiohttp import web

from localkube import kubeconfig
from localkube.errors import LocalKubeError, guarded
from localkube.files import write_json
from localkube.hollow.addresses import of_node
from localkube.hollow.control import ADDRESS_FILE, application
from localkube.hollow.fleet import Hollow
from localkube.hollow.kube import Kube
from localkube.hollow.nodes import RENEW_S, HollowNode
from localkube.hollow.pods import RESTART_S, Component, Make, Resolve

READY_TIMEOUT_S = 60.0


def simulated(kind: str, env: Mapping[str, str], resolve: Resolve) -> Component:
    """A part of the real simulator: `coreapp`, `webapp` or `upstream`, set up by its environment. Raises ValueError for bad settings."""
    # Only a process that runs the simulator needs it installed.
    from wabiz_sim.coreapp import Coreapp  # noqa: PLC0415
    from wabiz_sim.settings import Settings  # noqa: PLC0415
    from wabiz_sim.upstream import Upstream  # noqa: PLC0415
    from wabiz_sim.webapp import Webapp  # noqa: PLC0415

    settings = Settings.from_env(env)
    if kind == "upstream":
        return Upstream(settings)
    return (Coreapp if kind == "coreapp" else Webapp)(settings, resolve=resolve)


@contextlib.asynccontextmanager
async def running(
    access: kubeconfig.Access,
    folder: Path,
    *,
    nodes: int = 3,
    prefix: str = "hollow",
    restart_delay_s: float = RESTART_S,
    renew_s: float = RENEW_S,
    make: Make = simulated,
) -> AsyncGenerator[Hollow, None]:
    """Hollow nodes `<prefix>-0` ... in this process, from ready to the end of the block; volumes are in `folder`. LocalKubeError."""
    async with Kube(access) as kube:
        members = [HollowNode(kube, f"{prefix}-{i}", of_node(i), f"zone-{'abc'[i % 3]}", renew_s) for i in range(nodes)]
        hollow = Hollow(kube, members, folder=folder, restart_delay_s=restart_delay_s, make=make)
        try:
            try:
                await asyncio.wait_for(hollow.start(), READY_TIMEOUT_S)
            except TimeoutError:
                msg = f"the API server did not answer in full within {READY_TIMEOUT_S:.0f} s, or keeps pods off the nodes"
                raise LocalKubeError(msg) from None
            yield hollow
        finally:
            await hollow.stop()


@contextlib.asynccontextmanager
async def controlled(hollow: Hollow) -> AsyncGenerator[str, None]:
    """The control endpoint of a hollow process on a free port of loopback, as its URL."""
    runner = web.AppRunner(application(hollow), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _serve(options: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    folder, file = options.folder, options.folder / ADDRESS_FILE
    nodes = running(kubeconfig.read(options.kubeconfig), folder, nodes=options.nodes)
    try:
        async with nodes as hollow, controlled(hollow) as url:
            write_json(file, {"control": url})
            print(f"{len(hollow.nodes)} hollow nodes are ready; faults on command at {url}", flush=True)
            await stopped.wait()
    finally:
        file.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 after SIGTERM, 1 with one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m localkube.hollow", description="Hollow nodes for a control plane without kubelets.")
    parser.add_argument("--kubeconfig", type=Path, required=True, help="how to reach the API server, as an administrator")
    parser.add_argument("--nodes", type=int, default=3, help="how many nodes (default 3)")
    parser.add_argument(
        "--folder", type=lambda text: Path(text).resolve(), required=True, help="for volumes, and for hollow.json when ready"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")

    def work() -> int:
        options.folder.mkdir(parents=True, exist_ok=True)
        asyncio.run(_serve(options))
        return 0

    return guarded("hollow nodes", work)
