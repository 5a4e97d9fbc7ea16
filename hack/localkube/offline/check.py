"""What a kind cluster needs of this machine, with one sentence for each thing that is missing; and which of two ways is taken."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localkube.offline import debian, runtime
from localkube.offline import docker as kind_docker
from localkube.offline.dockerd import RUNTIME

PROBE_SECONDS = 15.0
DISK_GB, MEMORY_GB = 14.0, 4.0
"""Images and four nodes took 11 GB of disk, the four nodes with the operator and a cluster of two shards 1.5 GB of memory."""
INSTALL = "give --install-docker, which installs Debian's packages and starts dockerd by hand"


@dataclass(frozen=True)
class Facts:
    """What was seen on the machine."""

    linux: bool
    root: bool
    docker: Mapping[str, Any] | None  # what Docker says of itself; None: no answer
    docker_program: bool
    debootstrap: bool
    mirror: str | None  # of Debian, from apt's sources
    missing_capabilities: frozenset[str]
    overlay: bool
    disk_gb: float  # free where Docker keeps its data, or would
    memory_gb: float
    stock_image: str | None  # the stock node image when it can be had


def look(cache: Path, stock: str | None) -> Facts:
    """Look at this machine. ``cache``: the folder that will hold the data; ``stock``: the stock node image, if it is to be asked for."""
    info = kind_docker.info()
    data = Path((info or {}).get("DockerRootDir") or cache)
    place = next((path for path in (data, *data.parents) if path.exists()), Path("/"))
    missing = runtime.missing(Path("/proc/self/status").read_text(encoding="ascii"))
    return Facts(
        linux=sys.platform == "linux",
        root=os.geteuid() == 0,
        docker=info,
        docker_program=shutil.which("docker") is not None,
        debootstrap=shutil.which("debootstrap", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin") is not None,
        mirror=debian.mirror(debian.machines_sources()),
        missing_capabilities=missing,
        overlay="overlay" in Path("/proc/filesystems").read_text(encoding="ascii"),
        disk_gb=shutil.disk_usage(place).free / 1e9,
        memory_gb=_memory_gb(Path("/proc/meminfo").read_text(encoding="ascii")),
        stock_image=stock if stock and info is not None and not missing and to_be_had(stock) else None,
    )


def lacking(facts: Facts) -> list[str]:
    """One sentence for each thing that is missing for the way that this machine would go; none: all is there."""
    checks = [*_everywhere(facts), *(_offline(facts) if way(facts) == "offline" else [])]
    return [sentence for holds, sentence in checks if not holds]


def _everywhere(facts: Facts) -> list[tuple[bool, str]]:
    """(whether it holds, the sentence if not) for either way."""
    hole = ", ".join(sorted(facts.missing_capabilities))
    own_runtime = facts.docker is not None and facts.docker.get("DefaultRuntime") == RUNTIME
    fits = not hole or own_runtime or facts.docker is None
    return [
        (facts.linux, "kind-offline runs on Linux only: use a Linux machine."),
        (facts.docker_program, f"There is no program 'docker': {INSTALL}."),
        (facts.docker is not None or not facts.docker_program, f"Docker does not answer: start it, or {INSTALL}."),
        (
            fits,
            f"This machine lacks {hole}, which the Docker that runs gives to privileged containers all the same: end it, then {INSTALL}.",
        ),
        (facts.memory_gb >= MEMORY_GB, f"Only {facts.memory_gb:.0f} GB of memory are free, {MEMORY_GB:.0f} are needed for four nodes."),
        (facts.disk_gb >= DISK_GB, f"Only {facts.disk_gb:.0f} GB of disk are free for Docker, {DISK_GB:.0f} are needed: make room."),
    ]


def _offline(facts: Facts) -> list[tuple[bool, str]]:
    """The same, where the images are made here."""
    suite = debian.SUITE
    return [
        (facts.overlay, "The kernel has no overlay file system: load the module 'overlay'."),
        (facts.root, "The images are made by debootstrap, which needs root's rights: run it as root."),
        (facts.debootstrap, f"There is no program 'debootstrap': install it, or {INSTALL}."),
        (
            bool(facts.mirror),
            f"apt's sources name no Debian mirror, from which images of {suite} are made: add one to /etc/apt/sources.list.",
        ),
    ]


def way(facts: Facts) -> str:
    """``stock``: kind's own image and network, where a registry gives it and Docker is normal; else ``offline``: images made here."""
    return "stock" if facts.stock_image and facts.docker is not None and not facts.missing_capabilities else "offline"


def stock_image(kind: bytes) -> str | None:
    """The node image that a kind program takes unless told otherwise, with its digest."""
    found = re.search(rb"kindest/node:v\d+\.\d+\.\d+@sha256:[0-9a-f]{64}", kind)
    return found[0].decode() if found else None


def to_be_had(image: str) -> bool:
    """Whether Docker has the image or a registry gives it; asks once and not for long."""
    if kind_docker.has_image(image):
        return True
    by_digest = re.sub(r":[^:@/]+@", "@", image)  # not every Docker takes a name with both
    try:
        done = subprocess.run(["docker", "manifest", "inspect", by_digest], capture_output=True, timeout=PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _memory_gb(text: str) -> float:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) / 1e6 if found else 0.0
