"""The command ``hack/kind-offline``: a kind cluster on this machine, with or without a container registry."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.offline import check as kind_check
from localkube.offline import docker, dockerd, project
from localkube.offline import images as kind_images
from localkube.offline.check import Facts
from localkube.offline.cluster import WORKERS, KindCluster
from localkube.programs.binaries import Binaries, provide
from localkube.programs.cache import user_cache
from localkube.programs.versions import chart_programs
from localkube.progress import clock, to_stderr

NAME = "whatsapp"


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run one command; ``root`` is the repository. Returns the exit status: 0, or 1 after one sentence per trouble on standard error."""
    options = _parser().parse_args(argv)
    try:
        return int(options.run(_Machine(root, options)))
    except LocalKubeError as error:
        print(f"hack/kind-offline: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"hack/kind-offline: the machine refuses: {error.strerror or error}{where}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("hack/kind-offline: interrupted; what was built is kept, run it again to go on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hack/kind-offline", description="A kind cluster: one control plane, three workers.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="say what is missing, one sentence each")
    build = commands.add_parser("build", help="make the node image, the Python base and PostgreSQL, if they are not there")
    build.add_argument("--force", action="store_true", help="make them anew")
    up = commands.add_parser("up", help="make the cluster, or put right one that is there")
    up.add_argument("--operator", action="store_true", help="also build and load the images and install the operator with Helm")
    up.add_argument("--workers", type=int, default=WORKERS, help=f"nodes beside the control plane (default: {WORKERS})")
    load = commands.add_parser("load", help="bring images from Docker into every node")
    load.add_argument("images", nargs="+", metavar="IMAGE")
    images = commands.add_parser("images", help="build the operator and the simulator from operator/Dockerfile")
    images.add_argument("--load", action="store_true", help="bring them, and PostgreSQL, into the cluster too")
    routes = commands.add_parser("routes", help="write the routes between the nodes again, after one got another address")
    down = commands.add_parser("down", help="remove the cluster")
    down.add_argument("--docker", action="store_true", help="also end the dockerd that --install-docker started")
    for command in (check, build, up, images):
        command.add_argument("--offline", action="store_true", help="use the images made here even where a registry can be reached")
    for command in (build, up):
        text = "install Debian's docker.io, iptables and debootstrap with apt-get, and start dockerd by hand"
        command.add_argument("--install-docker", action="store_true", help=text)
    for command in (up, load, images, routes, down):
        command.add_argument("--name", default=NAME, help=f"name of the cluster (default: {NAME})")
    for command, run in (
        (check, _Machine.check),
        (build, _Machine.build),
        (up, _Machine.up),
        (load, _Machine.load),
        (images, _Machine.images),
        (routes, _Machine.routes),
        (down, _Machine.down),
    ):
        command.set_defaults(run=run)
    return parser


@dataclass
class _Machine:
    """The commands, on this machine."""

    root: Path
    options: argparse.Namespace

    def check(self) -> int:
        """Say what is missing; 1 if something is."""
        facts = kind_check.look(self._docker_folder, None if self.options.offline else self._stock())
        sentences = kind_check.lacking(facts)
        for sentence in sentences:
            print(sentence)
        if not sentences:
            print(f"nothing is missing; the way is: {_told(facts)}")
        return 1 if sentences else 0

    def build(self) -> int:
        """Make the images."""
        facts = self._prepared()
        if kind_check.way(facts) == "stock":
            to_stderr(f"nothing to build: {_told(facts)}")
            return 0
        self._make_images(facts, force=self.options.force)
        return 0

    def up(self) -> int:
        """Make the cluster and say how to reach it."""
        begun = time.monotonic()
        facts = self._prepared()
        cluster = self._cluster()
        if cluster.exists():
            cluster.start()
            if cluster.own_network():
                cluster.connect()
        else:
            to_stderr(_told(facts))
            offline = kind_check.way(facts) == "offline"
            if offline:
                self._make_images(facts)
            cluster.make(kind_images.NODE_IMAGE if offline else None, workers=self.options.workers)
        cluster.wait_ready()
        if self.options.operator:
            cluster.load(self._images(facts))
            helm = provide(os.environ, report=to_stderr, programs=chart_programs())["helm"]
            project.install(self.root, cluster.kubeconfig, helm, to_stderr)
        to_stderr(f"cluster {cluster.name} is ready after {clock(time.monotonic() - begun)}; 'hack/kind-offline down' removes it")
        # every line for eval "$(hack/kind-offline up)"
        print(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
        if shutil.which("kubectl") is None:
            print(f'export PATH={shlex.quote(str(cluster.binaries["kubectl"].parent))}:"$PATH"')
        return 0

    def load(self) -> int:
        """Bring images into the nodes."""
        begun = time.monotonic()
        self._existing().load(self.options.images)
        to_stderr(f"loaded {', '.join(self.options.images)} after {clock(time.monotonic() - begun)}")
        return 0

    def images(self) -> int:
        """Build the project's own images, and load them."""
        images = self._images(self._prepared())
        if self.options.load:
            self.options.images = images
            return self.load()
        return 0

    def routes(self) -> int:
        """Write the routes again."""
        cluster = self._existing()
        if not cluster.own_network():
            to_stderr(f"cluster {cluster.name} has kind's own network, which keeps its routes itself")
            return 0
        for node in cluster.connect():
            to_stderr(f"{node.name} {node.address} {node.pods}")
        return 0

    def down(self) -> int:
        """Remove the cluster, and end dockerd if asked to."""
        kind = kind_images.built_kind(os.environ)  # where it was never built it has made no cluster
        if kind is not None and docker.info() is not None:
            cluster = KindCluster(self.options.name, self.root / "build" / "kind", Binaries({"kind": kind}), to_stderr)
            there = cluster.exists()
            if there:
                cluster.delete()
            to_stderr(f"cluster {cluster.name} is removed" if there else f"there is no cluster {cluster.name}")
        if self.options.docker:
            ended = dockerd.stop(self._docker_folder)
            to_stderr("dockerd has ended" if ended else "no dockerd of this command runs")
        return 0

    # ---- parts

    def _prepared(self) -> Facts:
        """Docker started if that was asked for, then the facts. LocalKubeError with all that is missing."""
        if getattr(self.options, "install_docker", False):
            dockerd.install(to_stderr)
            dockerd.start(self._docker_folder, to_stderr)
        facts = kind_check.look(self._docker_folder, None)
        if facts.docker is not None and not facts.missing_capabilities and not self.options.offline:
            kind = kind_images.tools(os.environ, to_stderr)["kind"]
            facts = kind_check.look(self._docker_folder, kind_check.stock_image(kind.read_bytes()))
        if sentences := kind_check.lacking(facts):
            raise LocalKubeError("\n".join(sentences))
        return facts

    def _stock(self) -> str | None:
        """The stock node image, if kind itself has been built already: a look must not build."""
        kind = kind_images.built_kind(os.environ)
        return kind_check.stock_image(kind.read_bytes()) if kind else None

    def _images(self, facts: Facts) -> list[str]:
        """The project's images, built, and PostgreSQL where it is made here."""
        offline = kind_check.way(facts) == "offline"
        if offline:
            self._make_images(facts)
        project.build(self.root, kind_images.PYTHON_IMAGE if offline else None, self.root / "build" / "kind", to_stderr)
        return [*project.IMAGES.values(), *([kind_images.POSTGRES_IMAGE] if offline else [])]

    def _make_images(self, facts: Facts, *, force: bool = False) -> None:
        binaries = kind_images.programs(os.environ, to_stderr)
        cache = user_cache(os.environ) / "kind"
        cache.mkdir(parents=True, exist_ok=True)
        kind_images.Images(cache, facts.mirror or "", binaries, to_stderr).make(force=force)

    def _cluster(self) -> KindCluster:
        return KindCluster(self.options.name, self.root / "build" / "kind", kind_images.tools(os.environ, to_stderr), to_stderr)

    def _existing(self) -> KindCluster:
        cluster = self._cluster()
        if not cluster.exists():
            msg = f"there is no cluster {cluster.name}: make it with 'hack/kind-offline up --name {cluster.name}'"
            raise LocalKubeError(msg)
        return cluster

    @property
    def _docker_folder(self) -> Path:
        return user_cache(os.environ) / "docker"


def _told(facts: Facts) -> str:
    if kind_check.way(facts) == "stock":
        return f"kind's own node image, {facts.stock_image}, and kind's own network"
    reason = "no registry gives kind's own (or --offline was given)"
    if facts.missing_capabilities:
        reason = f"this machine lacks {', '.join(sorted(facts.missing_capabilities))}"
    return f"a node image made here, because {reason}"
