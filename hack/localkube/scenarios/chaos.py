"""The command ``hack/chaos``: every fault many times under a stream of messages, on a real API server, and what came of it."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from localkube.progress import to_stderr
from localkube.scenarios.command import Command
from localkube.scenarios.faults.hollow import FAULTS, SHORT, named, soak
from localkube.scenarios.harness import Harness
from localkube.scenarios.hollow.environment import NODES, HollowEnvironment
from localkube.scenarios.runner.session import Session

THREADS = 32  # calls that block wait in threads; with the API server away there are many
N, CLUSTERS = 10, 10
SHORT_N, SHORT_CLUSTERS = 1, 2


def parsed(argv: Sequence[str], root: Path) -> argparse.Namespace:
    """The options; ends the process with a sentence when they cannot be understood."""
    parser = argparse.ArgumentParser(prog="hack/chaos", description="Every fault many times, on a real API server, under messages.")
    parser.add_argument("--round", choices=("full", "short"), default="full", help=f"short: {', '.join(SHORT)}, once each (default: full)")
    parser.add_argument("--only", type=named, help=f"only these faults, by comma: {', '.join(fault.name for fault in FAULTS)}")
    parser.add_argument("--n", type=int, help=f"how often each fault (default: {N}; short: {SHORT_N})")
    parser.add_argument("--clusters", type=int, help=f"clusters side by side (default: {CLUSTERS}; short: {SHORT_CLUSTERS})")
    parser.add_argument("--soak", type=float, default=0.0, metavar="SECONDS", help="no fault, but 1 %% of the probes are lost for so long")
    parser.add_argument("--dir", type=Path, default=root / "build" / "chaos", help="folder of the control plane (default: build/chaos)")
    parser.add_argument("--json", type=Path, default=root / "build" / "chaos.json", help="the figures (default: build/chaos.json)")
    options = parser.parse_args(argv)
    short = options.round == "short"
    if options.n is None:
        options.n = SHORT_N if short or options.soak else N
    if options.clusters is None:
        options.clusters = SHORT_CLUSTERS if short else CLUSTERS
    if min(options.n, options.clusters) < 1 or not 0 <= options.soak < math.inf:
        parser.error("--n and --clusters must be at least 1, --soak a number of seconds")
    options.faults = options.only or named(",".join(SHORT if short else ()))
    if options.soak:
        options.n, options.faults = 1, (soak(options.soak),)
    return options


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run the command; ``root`` is the repository. Returns 0, 1 after sentences on standard error, 130 after Ctrl-C."""
    options = parsed(argv, root)
    command = Command("hack/chaos", argv, root=root)
    path = os.pathsep.join(str(root / folder) for folder in ("operator", "hack"))  # one operator is started by a module of hack/
    harness = Harness(options.dir, nodes=NODES, report=to_stderr, operator_env={"PYTHONPATH": path})
    session = Session[HollowEnvironment](options.faults, lambda _: int(options.n), about={"n": options.n, "clusters": options.clusters})

    async def play() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        async with HollowEnvironment(harness, clusters=options.clusters, report=to_stderr) as environment:
            await session.play(environment)

    def work() -> None:
        with harness.running(replicas=0):
            asyncio.run(play())

    status = command.run(work)
    end = (
        f"{options.clusters} clusters of 2 shards and 1 spare. Time: from the fault to the next message that its sender knows taken, "
        "through another Coreapp where a handover is expected."
    )
    return session.finish(command, options.json, end, status)
