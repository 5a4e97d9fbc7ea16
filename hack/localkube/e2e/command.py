"""The command ``hack/e2e``: the user's own path on kind, then everything that breaks there, under messages, and what came of it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from localkube.chaos.measure import Outcome, Player
from localkube.demo.cluster import sentence
from localkube.demo.stage import end_by_any_signal, write_json
from localkube.e2e import kind
from localkube.e2e.changes import Changes
from localkube.e2e.install import OPERATOR_REPOSITORY, REPLICAS, SIMULATOR_REPOSITORY, Installation, Programs
from localkube.e2e.nodes import KindNodes
from localkube.e2e.print import failures, missed, report, table
from localkube.e2e.programs import run
from localkube.e2e.stage import CLUSTER, KindStage
from localkube.e2e.table import Act, Series, acts, chosen, rounds
from localkube.errors import LocalKubeError
from localkube.hollow.kube import KubeError
from localkube.programs.binaries import provide
from localkube.programs.versions import chart_programs, pinned_programs
from localkube.progress import to_stderr
from localkube.provenance import Provenance
from outside.ledger import Ledger
from whatsapp_operator import __version__ as VERSION  # noqa: N812  # it names the images

Obj = dict[str, Any]

N, NODE_N, RELEASE_N = 20, 3, 5
NAMED = f"--name={kind.NAME}"
UP_S, DOWN_S, ROUTES_S = 5400.0, 300.0, 60.0
OUR_POSTGRES, POSTGRES = "whatsapp-operator/postgres:15", "postgres:15"
"""Made by hack/kind-offline where no registry is reached; the usual one, which nodes pull themselves."""


@dataclass
class Run:
    """What was asked for, and what came of it so far."""

    options: argparse.Namespace
    root: Path
    played: list[tuple[Act, Outcome]] = field(default_factory=list)
    about: Obj = field(default_factory=dict)
    ledger: Ledger | None = None
    """What became of every message; None while it is not over."""
    tests: list[str] = field(default_factory=list)
    """What Helm's own tests said."""

    def times(self, act: Act) -> int:
        """How often an act is to be played."""
        by_series = {Series.FAULT: self.options.n, Series.NODE: self.options.node_n, Series.RELEASE: self.options.release_n}
        return int(by_series[act.series])


async def routes(root: Path) -> None:
    """Lay the routes between nodes anew; where the cluster has a network plug-in of its own there is nothing to do."""
    await run(root / "hack" / "kind-offline", "routes", f"--name={kind.NAME}", timeout=ROUTES_S)


async def play(this: Run) -> None:
    """Install, break, measure, print as it goes; what was measured is in ``this`` also when this is interrupted."""
    folder = this.root / "build" / "e2e"
    kubeconfig = this.root / "build" / "kind" / f"{kind.NAME}.kubeconfig"
    binaries = provide(os.environ, programs=(*pinned_programs(), *chart_programs()), report=to_stderr)
    programs = Programs(kubectl=binaries["kubectl"], helm=binaries["helm"])
    on = Installation(this.root, kubeconfig, programs, folder=folder / "helm", tag=VERSION, report=to_stderr)
    nodes = KindNodes(tuple(await kind.nodes()), routes=lambda: routes(this.root))
    to_stderr(f"the API server: export KUBECONFIG={kubeconfig}")
    await install(on, this)
    proxy = await kind.start_sender(f"{SIMULATOR_REPOSITORY}:{VERSION}")
    try:
        made = Changes(on, (OPERATOR_REPOSITORY, SIMULATOR_REPOSITORY))
        stage = KindStage(kubeconfig, nodes, operators=REPLICAS, proxy=proxy, kubectl=programs.kubectl, report=to_stderr)
        async with stage:
            await stage.put_right()
            await play_all(this, stage, chosen(acts(made), this.options.names))
            this.ledger = await stage.streams[CLUSTER].ledger()
    finally:
        await kind.stop_sender()


async def install(on: Installation, this: Run) -> None:
    """Everything that stands before the first fault: PostgreSQL, the operator, a cluster; and the charts' own tests."""
    took = await on.install()
    to_stderr(f"helm upgrade --install: the operators are ready after {took:.1f} s")
    database = await on.has_database_field() and not this.options.sqlite
    this.about["database"] = "PostgreSQL" if database else "SQLite"
    if not (await on.kubectl("get", "wac", "acme", "--ignore-not-found", "-o", "name")).strip():
        if database:
            await on.database(OUR_POSTGRES if await kind.has_image(OUR_POSTGRES) else POSTGRES)
        took = await on.create(database=database)
        this.about["first_ready"] = round(took, 1)
        to_stderr(f"kubectl apply: the cluster is Ready after {took:.1f} s, its state in {this.about['database']}")
    await on.pin_simulator()
    await on.ready()
    said = (await on.test()).strip()
    this.tests.append(said)
    to_stderr("helm test: passed. NetworkPolicies are not enforced by this network, so the tests say nothing about them.")


async def play_all(this: Run, stage: KindStage, table_: Sequence[Act]) -> None:
    """Play the acts, those that undo each other in turn."""
    for group in rounds(tuple(table_)):
        begun = len(this.played)
        player = Player(stage, n=this.times(group[0]), report=to_stderr)
        if len(group) == 1:
            this.played.append((group[0], await player.play(group[0].fault)))
        else:
            outcomes = await player.play_in_turn([act.fault for act in group])
            this.played += zip(group, outcomes, strict=True)
        for act, outcome in this.played[begun:]:
            for text in failures(act, outcome, n=this.times(act)):
                to_stderr(f"  FAILED {text}")
            if text := missed(act, outcome):
                to_stderr(f"  MISSED {text}")


def parsed(argv: Sequence[str], root: Path) -> argparse.Namespace:
    """The options; ends the process with a sentence when they cannot be understood."""
    names = [act.name for act in acts(_unmade())]
    parser = argparse.ArgumentParser(prog="hack/e2e", description="The user's own path on kind, and everything that breaks there.")
    parser.add_argument("--only", default="", help=f"only these acts, by comma: {', '.join(names)}")
    parser.add_argument("--n", type=int, default=N, help=f"how often everything else (default: {N})")
    parser.add_argument("--node-n", type=int, default=NODE_N, help=f"how often each fault of a node (default: {NODE_N})")
    parser.add_argument(
        "--release-n", type=int, default=RELEASE_N, help=f"how often each change of the Helm release (default: {RELEASE_N})"
    )
    parser.add_argument("--install-docker", action="store_true", help="have hack/kind-offline install Debian's Docker and start it")
    parser.add_argument("--keep", action="store_true", help="leave the cluster running")
    parser.add_argument("--here", action="store_true", help="on the kind cluster that runs already; it is left running")
    parser.add_argument("--sqlite", action="store_true", help="without PostgreSQL")
    parser.add_argument("--json", type=Path, default=root / "build" / "e2e.json", help="the figures (default: build/e2e.json)")
    options = parser.parse_args(argv)
    options.names = [name for name in options.only.split(",") if name]
    if min(options.n, options.node_n, options.release_n) < 1:
        parser.error("--n, --node-n and --release-n must be at least 1")
    try:
        chosen(acts(_unmade()), options.names)
    except ValueError as error:
        parser.error(str(error))
    return options


def _unmade() -> Changes:
    """For the names only."""
    return Changes(None, ())  # type: ignore[arg-type]


def kind_offline(root: Path, *words: str, timeout: float) -> int:
    """Run ``hack/kind-offline`` before everybody's eyes; returns its exit status."""
    return subprocess.run([str(root / "hack" / "kind-offline"), *words], timeout=timeout, check=False).returncode


def up(options: argparse.Namespace, root: Path) -> int:
    """Have the cluster and the images, whatever way this machine goes; returns the exit status, the reason has been said."""
    with contextlib.suppress(LocalKubeError):  # no Docker: hack/kind-offline says so
        asyncio.run(kind.unpause())
    install_ = ["--install-docker"] if options.install_docker else []
    return kind_offline(root, "up", NAMED, *install_, timeout=UP_S) or kind_offline(root, "images", "--load", NAMED, timeout=UP_S)


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run the command; ``root`` is the repository. Returns 0, 1 after sentences on standard error, 130 after Ctrl-C."""
    options = parsed(argv, root)
    options.provenance = Provenance(root, "hack/e2e", argv)
    end_by_any_signal()
    begun = time.monotonic()
    this = Run(options, root)
    status = 0
    try:
        if not options.here and (status := up(options, root)):
            return status
        try:
            asyncio.run(play(this))
        finally:
            if not (options.keep or options.here):
                kind_offline(root, "down", NAMED, timeout=DOWN_S)
    except (LocalKubeError, KubeError, OSError, subprocess.TimeoutExpired) as error:
        print(f"hack/e2e: {sentence(error)}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("hack/e2e: interrupted; nodes have been brought back", file=sys.stderr)
        status = 130
    if this.played:
        said = show(this, time.monotonic() - begun)
        status = status or (1 if said else 0)
    return status


def show(this: Run, took: float) -> list[str]:
    """Print and write what was measured; returns what makes the run fail."""
    console = Console(width=None if sys.stdout.isatty() else 220)
    console.print(table(this.played))
    for act, outcome in this.played:
        for note in dict.fromkeys(outcome.notes):
            console.print(f"{act.name}: {note}", highlight=False)
    sent = sum(outcome.sent for _, outcome in this.played)
    wanted = {act.name: this.times(act) for act, _ in this.played}
    console.print(
        f"{len(this.played)} acts, {sent} messages, {took:.0f} s; state in {this.about.get('database')}. Times: from the fault to the "
        "next message of its shard that its sender knows taken through another Coreapp, by a living Webapp. "
        "NetworkPolicies are not enforced.",
        highlight=False,
    )
    console.print(f"messages: {this.ledger or 'not counted'}", highlight=False)
    late = [text for act, outcome in this.played if (text := missed(act, outcome))]
    said = [text for act, outcome in this.played for text in failures(act, outcome, n=wanted[act.name])]
    said += ["no message was counted"] if this.ledger is None else this.ledger.failures()
    about = {"run": this.options.provenance.of_run(), **this.about, "seconds": round(took, 1), "complaints": said, "missed": late}
    about["messages"] = this.ledger and this.ledger.as_json()
    write_json(this.options.json, report(this.played, about, wanted))
    console.print(f"figures in {this.options.json}", highlight=False, soft_wrap=True)
    for text in late:
        print(f"hack/e2e: MISSED: {text}", file=sys.stderr)
    for text in said:
        print(f"hack/e2e: FAILED: {text}", file=sys.stderr)
    return said
