"""The command ``hack/kind-offline``: a kind cluster on this machine, with or without a container registry."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
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
OPTIONS = {
    "--offline": {"action": "store_true", "help": "use the images made here even where a registry can be reached"},
    "--install-docker": {
        "action": "store_true",
        "help": "install Debian's docker.io, iptables and debootstrap with apt-get, and start dockerd by hand",
    },
    "--name": {"default": NAME, "help": f"name of the cluster (default: {NAME})"},
    "--force": {"action": "store_true", "help": "make them again"},
    "--operator": {"action": "store_true", "help": "also build and load the images and install the operator with Helm"},
    "--workers": {"type": int, "default": WORKERS, "help": f"nodes besides the control plane (default: {WORKERS})"},
    "--load": {"action": "store_true", "help": "bring them, and PostgreSQL, into the cluster too"},
    "--docker": {"action": "store_true", "help": "also end the dockerd that --install-docker started"},
    "images": {"nargs": "+", "metavar": "IMAGE"},
}
COMMANDS = {
    "check": ("say what is missing, one sentence each", "--offline"),
    "build": ("make the node image, the Python base and PostgreSQL, if they are not there", "--force --offline --install-docker"),
    "up": ("create the cluster, or repair an existing one", "--operator --workers --offline --install-docker --name"),
    "load": ("bring images from Docker into every node", "images --name"),
    "images": ("build the operator and the simulator from operator/Dockerfile", "--load --offline --name"),
    "routes": ("write the routes between the nodes again, after one got another address", "--name"),
    "down": ("remove the cluster", "--docker --name"),
}
"""Per command: what it does, and its options."""


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run one command; ``root`` is the repository. Returns the exit status; LocalKubeError with a sentence per trouble."""
    parser = argparse.ArgumentParser(prog="hack/kind-offline", description="A kind cluster: one control plane, three workers.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (text, options) in COMMANDS.items():
        command = commands.add_parser(name, help=text)
        for option in options.split():
            command.add_argument(option, **OPTIONS[option])  # type: ignore[arg-type]
    given = parser.parse_args(argv)
    return int(getattr(_Machine(root, given), given.command)() or 0)


@dataclass
class _Machine:
    """The commands, on this machine."""

    root: Path
    options: argparse.Namespace

    def check(self) -> int:
        """Say what is missing; 1 if something is. Builds nothing: kind is asked for its image only if it is there."""
        kind = kind_images.built_kind()
        stock = kind_check.stock_image(kind.read_bytes()) if kind and not self.options.offline else None
        facts = kind_check.observe(self._docker_folder, stock)
        sentences = kind_check.lacking(facts)
        print("\n".join(sentences) or f"nothing is missing; the way is: {_described(facts)}")
        return 1 if sentences else 0

    def build(self) -> None:
        """Make the images."""
        facts = self._prepared()
        if kind_check.way(facts) == "stock":
            to_stderr(f"nothing to build: {_described(facts)}")
        else:
            self._make_images(facts, force=self.options.force)

    def up(self) -> None:
        """Make the cluster and say how to reach it."""
        begun = time.monotonic()
        facts = self._prepared()
        cluster = self._cluster()
        if cluster.exists():
            cluster.start()
            if cluster.own_network():
                cluster.connect()
        else:
            to_stderr(_described(facts))
            offline = kind_check.way(facts) == "offline"
            if offline:
                self._make_images(facts)
            cluster.make(kind_images.NODE_IMAGE if offline else None, workers=self.options.workers)
        cluster.wait_ready()
        if self.options.operator:
            cluster.load(self._built_images(facts))
            helm = provide(os.environ, programs=chart_programs())["helm"]
            project.install(self.root, cluster.kubeconfig, helm)
        to_stderr(f"cluster {cluster.name} is ready after {clock(time.monotonic() - begun)}; 'hack/kind-offline down' removes it")
        # every line for eval "$(hack/kind-offline up)"
        print(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
        if shutil.which("kubectl") is None:
            print(f'export PATH={shlex.quote(str(cluster.binaries["kubectl"].parent))}:"$PATH"')

    def load(self, images: Sequence[str] = ()) -> None:
        """Bring images into the nodes."""
        begun, images = time.monotonic(), images or self.options.images
        self._cluster(must_exist=True).load(images)
        to_stderr(f"loaded {', '.join(images)} after {clock(time.monotonic() - begun)}")

    def images(self) -> None:
        """Build the project's own images, and load them."""
        images = self._built_images(self._prepared())
        if self.options.load:
            self.load(images)

    def routes(self) -> None:
        """Write the routes again."""
        cluster = self._cluster(must_exist=True)
        if not cluster.own_network():
            to_stderr(f"cluster {cluster.name} has kind's own network, which keeps its routes itself")
            return
        for node in cluster.connect():
            to_stderr(f"{node.name} {node.address} {node.pods}")

    def down(self) -> None:
        """Remove the cluster, and end dockerd if asked to."""
        kind = kind_images.built_kind()  # where it was never built it has made no cluster
        if kind is not None and docker.info() is not None:
            cluster = self._cluster({"kind": kind})
            if exists := cluster.exists():
                cluster.delete()
            to_stderr(f"cluster {cluster.name} is removed" if exists else f"there is no cluster {cluster.name}")
        if self.options.docker:
            ended = dockerd.stop(self._docker_folder)
            to_stderr("dockerd has ended" if ended else "no dockerd of this command runs")

    # ---- parts

    def _prepared(self) -> Facts:
        """Start Docker if requested, then return the facts. LocalKubeError with everything that is missing."""
        if getattr(self.options, "install_docker", False):
            dockerd.install()
            dockerd.start(self._docker_folder)
        facts = kind_check.observe(self._docker_folder, None)
        if facts.docker is not None and not facts.missing_capabilities and not self.options.offline:
            kind = kind_images.programs("kind")["kind"]
            facts = kind_check.observe(self._docker_folder, kind_check.stock_image(kind.read_bytes()))
        if sentences := kind_check.lacking(facts):
            raise LocalKubeError("\n".join(sentences))
        return facts

    def _built_images(self, facts: Facts) -> list[str]:
        """The project's images, built, and PostgreSQL where it is made here."""
        offline = kind_check.way(facts) == "offline"
        if offline:
            self._make_images(facts)
        project.build(self.root, kind_images.PYTHON_IMAGE if offline else None, self.root / "build" / "kind")
        return [*project.IMAGES.values(), *([kind_images.POSTGRES_IMAGE] if offline else [])]

    def _make_images(self, facts: Facts, *, force: bool = False) -> None:
        binaries = kind_images.programs()
        kind_images.Images(user_cache(os.environ) / "kind", facts.mirror or "", binaries).make(force=force)

    def _cluster(self, binaries: Binaries | None = None, *, must_exist: bool = False) -> KindCluster:
        binaries = binaries or kind_images.programs("kind", "kubectl")
        cluster = KindCluster(self.options.name, self.root / "build" / "kind", binaries)
        if must_exist and not cluster.exists():
            raise LocalKubeError(f"there is no cluster {cluster.name}: make it with 'hack/kind-offline up --name {cluster.name}'")
        return cluster

    @property
    def _docker_folder(self) -> Path:
        return user_cache(os.environ) / "docker"


def _described(facts: Facts) -> str:
    if kind_check.way(facts) == "stock":
        return f"kind's own node image, {facts.stock_image}, and kind's own network"
    reason = "no registry gives kind's own (or --offline was given)"
    if facts.missing_capabilities:
        reason = f"this machine lacks {', '.join(sorted(facts.missing_capabilities))}"
    return f"a node image made here, because {reason}"
