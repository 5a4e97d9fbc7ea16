"""What a kind cluster needs from this machine, with one sentence for each thing that is missing; and which of two ways is used."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localkube.errors import LocalKubeError
from localkube.offline import debian, docker, dockerd, runtime

PROBE_SECONDS = 15.0
DISK_GB, MEMORY_GB = 14.0, 4.0
"""Images and four nodes took 11 GB of disk, the four nodes with the operator and a cluster of two shards 1.5 GB of memory."""
INSTALL = "give --install-docker, which installs Debian's packages and starts dockerd by hand"


@dataclass(frozen=True)
class Facts:
    """What was observed on the machine."""

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


def observe(cache: Path, stock: str | None) -> Facts:
    """The facts of this machine. ``cache``: the folder for the data; ``stock``: the stock node image, if it is to be asked for."""
    info = docker.info()
    data = Path((info or {}).get("DockerRootDir") or cache)
    place = next((path for path in (data, *data.parents) if path.exists()), Path("/"))
    missing = runtime.missing()
    memory = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    return Facts(
        root=os.geteuid() == 0,
        docker=info,
        docker_program=shutil.which("docker") is not None,
        debootstrap=dockerd.program("debootstrap") is not None,
        mirror=debian.mirror(),
        missing_capabilities=missing,
        overlay="overlay" in Path("/proc/filesystems").read_text(encoding="ascii"),
        disk_gb=shutil.disk_usage(place).free / 1e9,
        memory_gb=int(memory[1]) / 1e6 if memory else 0.0,
        stock_image=stock if stock and info is not None and not missing and to_be_had(stock) else None,
    )


def lacking(facts: Facts) -> list[str]:
    """One sentence for each thing that is missing for the way that this machine would use; none: nothing is missing."""
    hole = ", ".join(sorted(facts.missing_capabilities))
    own_runtime = facts.docker is None or facts.docker.get("DefaultRuntime") == dockerd.RUNTIME
    offline = way(facts) == "offline"
    checks = (
        (facts.docker_program, f"There is no program 'docker': {INSTALL}."),
        (facts.docker is not None or not facts.docker_program, f"Docker does not answer: start it, or {INSTALL}."),
        (
            not hole or own_runtime,
            f"This machine lacks {hole}, but the running Docker gives it to privileged containers: end it, then {INSTALL}.",
        ),
        (facts.memory_gb >= MEMORY_GB, f"Only {facts.memory_gb:.0f} GB of memory are free, {MEMORY_GB:.0f} are needed for four nodes."),
        (facts.disk_gb >= DISK_GB, f"Only {facts.disk_gb:.0f} GB of disk are free for Docker, {DISK_GB:.0f} are needed: make room."),
        # where the images are made here
        (not offline or facts.overlay, "The kernel has no overlay file system: load the module 'overlay'."),
        (not offline or facts.root, "The images are made by debootstrap, which needs root's rights: run it as root."),
        (not offline or facts.debootstrap, f"There is no program 'debootstrap': install it, or {INSTALL}."),
        (
            not offline or facts.mirror,
            f"apt's sources name no Debian mirror, from which images of {debian.SUITE} are made: add one to /etc/apt/sources.list.",
        ),
    )
    return [sentence for holds, sentence in checks if not holds]


def way(facts: Facts) -> str:
    """``stock``: kind's own image and network, where a registry gives it and Docker is normal; else ``offline``: images made here."""
    return "stock" if facts.stock_image and facts.docker is not None and not facts.missing_capabilities else "offline"


def stock_image(kind: bytes) -> str | None:
    """The node image that a kind program takes by default, with its digest."""
    found = re.search(rb"kindest/node:v\d+\.\d+\.\d+@sha256:[0-9a-f]{64}", kind)
    return found[0].decode() if found else None


def to_be_had(image: str) -> bool:
    """Whether Docker has the image or a registry gives it; asks once and not for long."""
    if docker.has_image(image):
        return True
    try:
        # by digest alone: not every Docker takes a name with both
        docker.docker("manifest", "inspect", re.sub(r":[^:@/]+@", "@", image), timeout=PROBE_SECONDS)
    except LocalKubeError:
        return False
    return True
