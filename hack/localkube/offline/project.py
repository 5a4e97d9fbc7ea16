"""This project's own two images, built from operator/Dockerfile and measured."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.offline import docker
from localkube.progress import Report
from whatsapp_operator import __version__ as VERSION  # noqa: N812  # it names the images

IMAGES = {"operator": f"whatsapp-operator/operator:{VERSION}", "simulator": f"whatsapp-operator/wabiz-sim:{VERSION}"}
"""By target of the Dockerfile; the names that the charts have as defaults."""
WHEELS_SECONDS = 900.0
INSTALL_SECONDS = 180.0


def build(root: Path, base: str | None, logs: Path, report: Report) -> None:
    """Build both images of the repository ``root``, without a network on ``base``, or with one on the Dockerfile's own base (None)."""
    options = ["--network=default"]
    if base is not None:
        fetch_wheels(root)
        options = [f"--build-arg=BASE={base}"]
    for target, image in IMAGES.items():
        log, file = logs / f"{target}-image.log", root / "operator" / "Dockerfile"
        docker.build(root, image, log=log, file=file, options=[*options, f"--target={target}"])
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


def install(root: Path, kubeconfig: Path, helm: Path, report: Report) -> None:
    """Install the operator by its chart, or upgrade it; returns when its pods are ready. LocalKubeError with Helm's words if that fails."""
    namespace = "whatsapp-operator-system"
    argv = [str(helm), "upgrade", "--install", "whatsapp-operator", str(root / "charts" / "whatsapp-operator"), f"--namespace={namespace}"]
    argv += ["--create-namespace", f"--kubeconfig={kubeconfig}", "--wait", f"--timeout={INSTALL_SECONDS:g}s"]
    # the same name for another image: the pods are replaced all the same
    argv += ["--set-string", f"podAnnotations.multiconnect\\.dev/image={docker.image_id(IMAGES['operator'])}"]
    begun = time.monotonic()
    docker.logged(argv, log=kubeconfig.with_suffix(".helm.log"), timeout=INSTALL_SECONDS + 60)
    report(f"the operator runs in namespace {namespace} after {time.monotonic() - begun:.1f} s")


def size_mb(image: str) -> float:
    """The size of an image, unpacked, in MB."""
    return float(json.loads(docker.docker("image", "inspect", "--format", "{{.Size}}", image))) / 1e6
