"""The command ``hack/e2e``: the user's own path on kind, then everything that breaks there, under messages, and what came of it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localkube.chaos.measure import Outcome, Player
from localkube.chaos.print import failures, missed, report_of_kind, table
from localkube.chaos.scene import Fault, Series, chosen
from localkube.command import Command
from localkube.e2e import nodes
from localkube.e2e.install import CLUSTER, SIMULATOR_REPOSITORY, Installation
from localkube.e2e.nodes import NAME, KindNodes, run
from localkube.e2e.stage import KindStage
from localkube.e2e.table import FAULTS, rounds
from localkube.errors import LocalKubeError
from localkube.programs.binaries import provide
from localkube.programs.versions import chart_programs, pinned_programs
from localkube.progress import to_stderr
from outside.ledger import Ledger
from whatsapp_operator import __version__ as VERSION  # noqa: N812  # it names the images

Obj = dict[str, Any]

N, NODE_N, RELEASE_N = 20, 3, 5
NAMED = f"--name={NAME}"
UP_S, DOWN_S, ROUTES_S = 5400.0, 300.0, 60.0
OUR_POSTGRES, POSTGRES = "whatsapp-operator/postgres:15", "postgres:15"
"""Made by hack/kind-offline where no registry is reached; the usual one, which nodes pull themselves."""


@dataclass
class Run:
    """What was asked for, and what came of it so far."""

    options: argparse.Namespace
    root: Path
    played: list[tuple[Fault[KindStage], Outcome]] = field(default_factory=list)
    about: Obj = field(default_factory=dict)
    ledger: Ledger | None = None  # what became of every message; None while it is not over

    def times(self, fault: Fault[KindStage]) -> int:
        """How often a fault is to be played."""
        options = self.options
        return int({Series.FAULT: options.n, Series.NODE: options.node_n, Series.RELEASE: options.release_n}[fault.series])


async def play(this: Run) -> None:
    """Install, break, measure, print as it goes; what was measured is in ``this`` also when this is interrupted."""
    root = this.root
    kubeconfig = root / "build" / "kind" / f"{NAME}.kubeconfig"
    programs = provide(os.environ, programs=(*pinned_programs(), *chart_programs()), report=to_stderr)
    folder = root / "build" / "e2e" / "helm"
    on = Installation(root, kubeconfig, kubectl=programs["kubectl"], helm=programs["helm"], folder=folder, tag=VERSION)

    async def routes() -> None:
        """Lay the routes between nodes anew; where the cluster has a network plug-in of its own there is nothing to do."""
        await run(root / "hack" / "kind-offline", "routes", NAMED, timeout=ROUTES_S)

    containers = KindNodes(await nodes.node_names(), routes=routes)
    to_stderr(f"the API server: export KUBECONFIG={kubeconfig}")
    await install(on, this)
    proxy = await nodes.start_sender(f"{SIMULATOR_REPOSITORY}:{VERSION}")
    try:
        async with KindStage(on, containers, proxy=proxy, report=to_stderr) as stage:
            await stage.put_right()
            for group in rounds(this.options.faults):
                await play_group(this, stage, group)
            this.ledger = await stage.streams[CLUSTER].ledger()
    finally:
        await nodes.stop_sender()


async def install(on: Installation, this: Run) -> None:
    """Everything that stands before the first fault: PostgreSQL, the operator, a cluster; and the charts' own tests."""
    to_stderr(f"helm upgrade --install: the operators are ready after {await on.install():.1f} s")
    database = await on.has_database_field() and not this.options.sqlite
    this.about["database"] = "PostgreSQL" if database else "SQLite"
    if not (await on.kubectl("get", "wac", CLUSTER, "--ignore-not-found", "-o", "name")).strip():
        if database:
            await on.database(OUR_POSTGRES if await nodes.has_image(OUR_POSTGRES) else POSTGRES)
        took = await on.create(database=database)
        this.about["first_ready"] = round(took, 1)
        to_stderr(f"kubectl apply: the cluster is Ready after {took:.1f} s, its state in {this.about['database']}")
    await on.pin_simulator()
    await on.ready()
    await on.test()
    to_stderr("helm test: passed. NetworkPolicies are not enforced by this network, so the tests say nothing about them.")


async def play_group(this: Run, stage: KindStage, group: Sequence[Fault[KindStage]]) -> None:
    """Play one fault, or those that undo each other in turn, and say at once what is wrong."""
    player = Player(stage, n=this.times(group[0]), report=to_stderr)
    outcomes = [await player.play(group[0])] if len(group) == 1 else await player.play_in_turn(group)
    for fault, outcome in zip(group, outcomes, strict=True):
        this.played.append((fault, outcome))
        for text in failures(outcome, fault, n=this.times(fault)):
            to_stderr(f"  FAILED {text}")
        if text := missed(outcome, fault):
            to_stderr(f"  MISSED {text}")


def parsed(argv: Sequence[str], root: Path) -> argparse.Namespace:
    """The options; ends the process with a sentence when they cannot be understood."""
    names = ", ".join(fault.name for fault in FAULTS)
    parser = argparse.ArgumentParser(prog="hack/e2e", description="The user's own path on kind, and everything that breaks there.")
    parser.add_argument("--only", default="", help=f"only these faults, by comma: {names}")
    parser.add_argument("--n", type=int, default=N, help=f"how often everything else (default: {N})")
    parser.add_argument("--node-n", type=int, default=NODE_N, help=f"how often each fault of a node (default: {NODE_N})")
    parser.add_argument("--release-n", type=int, default=RELEASE_N, help=f"how often each change of a Helm release (default: {RELEASE_N})")
    parser.add_argument("--install-docker", action="store_true", help="have hack/kind-offline install Debian's Docker and start it")
    parser.add_argument("--keep", action="store_true", help="leave the cluster running")
    parser.add_argument("--here", action="store_true", help="on the kind cluster that runs already; it is left running")
    parser.add_argument("--sqlite", action="store_true", help="without PostgreSQL")
    parser.add_argument("--json", type=Path, default=root / "build" / "e2e.json", help="the figures (default: build/e2e.json)")
    options = parser.parse_args(argv)
    if min(options.n, options.node_n, options.release_n) < 1:
        parser.error("--n, --node-n and --release-n must be at least 1")
    try:
        options.faults = chosen(FAULTS, [name for name in options.only.split(",") if name])
    except ValueError as error:
        parser.error(str(error))
    return options


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run the command; ``root`` is the repository. Returns 0, 1 after sentences on standard error, 130 after Ctrl-C."""
    this = Run(parsed(argv, root), root)
    command = Command("hack/e2e", argv, root=root)

    def kind(*words: str, timeout: float) -> int:
        """Run ``hack/kind-offline``, its output seen; returns its exit status, the reason has been said."""
        return subprocess.run([str(root / "hack" / "kind-offline"), *words], timeout=timeout, check=False).returncode

    def up() -> int:
        with contextlib.suppress(LocalKubeError):  # no Docker: hack/kind-offline says so
            asyncio.run(nodes.unpause())
        docker = ["--install-docker"] if this.options.install_docker else []
        return kind("up", NAMED, *docker, timeout=UP_S) or kind("images", "--load", NAMED, timeout=UP_S)

    def work() -> int:
        if not this.options.here and (status := up()):
            return status
        try:
            asyncio.run(play(this))
        finally:
            if not (this.options.keep or this.options.here):
                kind("down", NAMED, timeout=DOWN_S)
        return 0

    status = command.run(work)
    return show(command, this, status) if this.played else status


def show(command: Command, this: Run, status: int) -> int:
    """Print and write what was measured; returns the exit status."""
    say, took = command.console.print, command.seconds
    say(table("End to end on kind", this.played))
    for fault, outcome in this.played:
        for note in dict.fromkeys(outcome.notes):
            say(f"{fault.name}: {note}")
    say(
        f"{len(this.played)} faults and changes, {sum(outcome.sent for _, outcome in this.played)} messages, {took:.0f} s; state in "
        f"{this.about.get('database')}. Times: from the fault to the next message of its shard that its sender knows taken through another "
        "Coreapp, by a living Webapp. NetworkPolicies are not enforced."
    )
    say(f"messages: {this.ledger or 'not counted'}")
    late = [text for fault, outcome in this.played if (text := missed(outcome, fault))]
    wanted = {fault.name: this.times(fault) for fault, _ in this.played}
    said = [text for fault, outcome in this.played for text in failures(outcome, fault, n=wanted[fault.name])]
    said += ["no message was counted"] if this.ledger is None else this.ledger.failures()
    about = {**this.about, "seconds": round(took, 1), "missed": late, "messages": this.ledger and this.ledger.as_json()}
    for text in late:
        command.complain(f"MISSED: {text}")
    return command.write(this.options.json, report_of_kind(this.played, about, wanted), said, status)
