"""This project's own two images, built from operator/Dockerfile and measured."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

from localkube import kind_docker
from localkube.errors import LocalKubeError
from localkube.progress import Report

IMAGES = {"operator": "whatsapp-operator/operator:0.1.0", "simulator": "whatsapp-operator/wabiz-sim:0.1.0"}
"""By target of the Dockerfile; the names that the charts have as defaults."""
WHEELS_SECONDS = 900.0


def build(root: Path, base: str | None, logs: Path, report: Report) -> None:
    """Build both images of the repository ``root``, without a network on ``base``, or with one on the Dockerfile's own base (None)."""
    options = ["--network=default"]
    if base is not None:
        fetch_wheels(root)
        options = [f"--build-arg=BASE={base}"]
    for target, image in IMAGES.items():
        log, file = logs / f"{target}-image.log", root / "operator" / "Dockerfile"
        kind_docker.build(root, image, log=log, file=file, options=[*options, f"--target={target}"])
        report(f"image {image}: {size_mb(image):.0f} MB")


def fetch_wheels(root: Path) -> None:
    """The dependencies, by hack/wheels, unless they are there and of today's lock. LocalKubeError if they cannot be fetched."""
    locks = (root / "hack" / "lock" / name for name in ("run.txt", "simulator.txt"))  # in the order in which hack/wheels notes them
    note = root / "build" / "wheels" / "made-from.txt"
    if note.exists() and note.read_bytes() == b"".join(lock.read_bytes() for lock in locks):
        return
    done = subprocess.run(
        [sys.executable, str(root / "hack" / "wheels"), f"--arch={platform.machine()}"], timeout=WHEELS_SECONDS, check=False
    )
    if done.returncode != 0:
        msg = "hack/wheels could not fetch the images' dependencies: see its own words above"
        raise LocalKubeError(msg)


def size_mb(image: str) -> float:
    """The size of an image, unpacked, in MB."""
    return float(json.loads(kind_docker.docker("image", "inspect", "--format", "{{.Size}}", image))) / 1e6
