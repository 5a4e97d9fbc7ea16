"""The command ``hack/e2e``: the user's own path on kind, then everything that can break there, under messages, and the results."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from localkube import LocalKubeError, Obj
from localkube.offline import docker
from localkube.offline.images import POSTGRES_IMAGE
from localkube.programs.binaries import provide
from localkube.programs.versions import chart_programs, pinned_programs
from localkube.progress import to_stderr
from localkube.scenarios.command import Command
from localkube.scenarios.faults.kind import FAULTS, named
from localkube.scenarios.kind import nodes
from localkube.scenarios.kind.environment import KindEnvironment
from localkube.scenarios.kind.install import CLUSTER, SIMULATOR_REPOSITORY, Installation
from localkube.scenarios.kind.nodes import NAME, KindNodes, run
from localkube.scenarios.runner.case import Series
from localkube.scenarios.runner.session import Session
from whatsapp_operator import __version__ as VERSION  # noqa: N812  # it names the images

N, NODE_N, RELEASE_N = 20, 3, 5
NAMED = f"--name={NAME}"
UP_S, DOWN_S, ROUTES_S = 5400.0, 300.0, 60.0
POSTGRES = "postgres:15"
"""The usual image, which nodes pull themselves; hack/kind-offline makes another one where no registry is reached."""


async def play(session: Session[KindEnvironment], options: argparse.Namespace, root: Path) -> None:
    """Install, break, measure."""
    kubeconfig = root / "build" / "kind" / f"{NAME}.kubeconfig"
    programs = provide(os.environ, programs=(*pinned_programs(), *chart_programs()))
    folder = root / "build" / "e2e" / "helm"
    on = Installation(root, kubeconfig, kubectl=programs["kubectl"], helm=programs["helm"], folder=folder, tag=VERSION)

    async def routes() -> None:
        """Lay the routes between nodes again; where the cluster has a network plug-in of its own there is nothing to do."""
        await run(root / "hack" / "kind-offline", "routes", NAMED, timeout=ROUTES_S)

    containers = KindNodes(await nodes.node_names(), routes=routes)
    to_stderr(f"the API server: export KUBECONFIG={kubeconfig}")
    session.about |= await install(on)
    proxy = await nodes.start_sender(f"{SIMULATOR_REPOSITORY}:{VERSION}")
    try:
        async with KindEnvironment(on, containers, proxy=proxy) as environment:
            await environment.put_right()
            await session.play(environment)
    finally:
        await nodes.stop_sender()


async def install(on: Installation) -> Obj:
    """Everything that must be installed before the first fault: PostgreSQL, the operator, a cluster; and the charts' own tests."""
    to_stderr(f"helm upgrade --install: the operators are ready after {await on.install():.1f} s")
    about: Obj = {"database": "PostgreSQL"}
    if not (await on.kubectl("get", "wac", CLUSTER, "--ignore-not-found", "-o", "name")).strip():
        await on.database(POSTGRES_IMAGE if await asyncio.to_thread(docker.has_image, POSTGRES_IMAGE) else POSTGRES)
        took = await on.create(database=True)
        about["first_ready"] = round(took, 1)
        to_stderr(f"kubectl apply: the cluster is Ready after {took:.1f} s, its state in {about['database']}")
    await on.pin_simulator()
    await on.ready()
    await on.test()
    to_stderr("helm test: passed. NetworkPolicies are not enforced by this network, so the tests say nothing about them.")
    return about


def parsed(argv: Sequence[str], root: Path) -> argparse.Namespace:
    """The options; ends the process with a sentence when they cannot be understood."""
    names = ", ".join(fault.name for fault in FAULTS)
    parser = argparse.ArgumentParser(prog="hack/e2e", description="The user's own path on kind, and everything that breaks there.")
    parser.add_argument("--only", dest="faults", type=named, default=FAULTS, help=f"only these faults, by comma: {names}")
    parser.add_argument("--n", type=int, default=N, help=f"how often everything else (default: {N})")
    parser.add_argument("--node-n", type=int, default=NODE_N, help=f"how often each fault of a node (default: {NODE_N})")
    parser.add_argument("--release-n", type=int, default=RELEASE_N, help=f"how often each change of a Helm release (default: {RELEASE_N})")
    parser.add_argument("--install-docker", action="store_true", help="have hack/kind-offline install Debian's Docker and start it")
    parser.add_argument("--keep", action="store_true", help="leave the cluster running")
    parser.add_argument("--here", action="store_true", help="use the kind cluster that is already running, and leave it running")
    parser.add_argument("--json", type=Path, default=root / "build" / "e2e.json", help="the figures (default: build/e2e.json)")
    options = parser.parse_args(argv)
    if min(options.n, options.node_n, options.release_n) < 1:
        parser.error("--n, --node-n and --release-n must be at least 1")
    return options


def session_of(options: argparse.Namespace) -> Session[KindEnvironment]:
    """What to play, and how often."""
    times = {Series.FAULT: options.n, Series.NODE: options.node_n, Series.RELEASE: options.release_n}
    return Session(options.faults, lambda fault: int(times[fault.series]), on_kind=True)


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run the command; ``root`` is the repository. Returns 0, 1 after sentences on standard error, 130 after Ctrl-C."""
    options = parsed(argv, root)
    command, session = Command("hack/e2e", argv, root=root), session_of(options)

    def kind(*words: str, timeout: float) -> int:
        """Run ``hack/kind-offline`` and show its output, which includes the reason for any failure; return its exit status."""
        return subprocess.run([str(root / "hack" / "kind-offline"), *words], timeout=timeout, check=False).returncode

    def up() -> int:
        with contextlib.suppress(LocalKubeError):  # no Docker: hack/kind-offline says so
            asyncio.run(nodes.unpause())
        more = ["--install-docker"] if options.install_docker else []
        return kind("up", NAMED, *more, timeout=UP_S) or kind("images", "--load", NAMED, timeout=UP_S)

    def work() -> int:
        if not options.here and (status := up()):
            return status
        try:
            asyncio.run(play(session, options, root))
        finally:
            if not (options.keep or options.here):
                kind("down", NAMED, timeout=DOWN_S)
        return 0

    return session.finish(command, options.json, command.run(work))
