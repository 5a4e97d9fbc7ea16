"""The command ``hack/chaos``: every fault many times under a stream of messages, on a real API server, and the results."""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from localkube.scenarios.command import Command
from localkube.scenarios.faults.hollow import FAULTS, named, soak
from localkube.scenarios.harness import Harness
from localkube.scenarios.hollow.environment import NODES, HollowEnvironment
from localkube.scenarios.runner.session import Session

THREADS = 32  # calls that block wait in threads; with the API server away there are many
N, CLUSTERS = 10, 10


def parsed(argv: Sequence[str], root: Path) -> argparse.Namespace:
    """The options; ends the process with a sentence when they cannot be understood."""
    parser = argparse.ArgumentParser(prog="hack/chaos", description="Every fault many times, on a real API server, under messages.")
    names = ", ".join(fault.name for fault in FAULTS)
    parser.add_argument("--only", dest="faults", type=named, default=FAULTS, help=f"only these faults, by comma: {names}")
    parser.add_argument("--n", type=int, default=N, help=f"how often each fault (default: {N})")
    parser.add_argument("--clusters", type=int, default=CLUSTERS, help=f"clusters side by side (default: {CLUSTERS})")
    parser.add_argument("--soak", type=float, default=0.0, metavar="SECONDS", help="no fault, but lose 1 %% of the probes for this long")
    parser.add_argument("--dir", type=Path, default=root / "build" / "chaos", help="folder of the control plane (default: build/chaos)")
    parser.add_argument("--json", type=Path, default=root / "build" / "chaos.json", help="the figures (default: build/chaos.json)")
    options = parser.parse_args(argv)
    if min(options.n, options.clusters) < 1 or not 0 <= options.soak < math.inf:
        parser.error("--n and --clusters must be at least 1, --soak a number of seconds")
    if options.soak:
        options.n, options.faults = 1, (soak(options.soak),)
    return options


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run the command; ``root`` is the repository. Returns 0, 1 after sentences on standard error, 130 after Ctrl-C."""
    options = parsed(argv, root)
    command = Command("hack/chaos", argv, root=root)
    harness = Harness(options.dir, nodes=NODES)
    session = Session[HollowEnvironment](options.faults, lambda _: int(options.n), about={"n": options.n, "clusters": options.clusters})

    async def play() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        async with HollowEnvironment(harness, clusters=options.clusters) as environment:
            await session.play(environment)

    def work() -> None:
        with harness.running(replicas=0):
            asyncio.run(play())

    return session.finish(command, options.json, command.run(work))
