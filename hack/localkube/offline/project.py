"""This project's own two images, built from operator/Dockerfile and measured, and its installation by Helm."""

from __future__ import annotations

import time
from pathlib import Path

from localkube import charts, wheels
from localkube.charts import Helm
from localkube.offline import docker
from localkube.plane.operators import NAMESPACE
from localkube.progress import to_stderr
from whatsapp_operator import __version__ as VERSION  # noqa: N812  # it names the images

IMAGES = {target: f"{name}:{VERSION}" for target, name in charts.IMAGES.items()}
"""By target of the Dockerfile."""


def build(root: Path, base: str | None, logs: Path) -> None:
    """Build both images of the repository ``root``, without a network on ``base``, or with one on the Dockerfile's own base (None)."""
    option = "--network=default"
    if base is not None:
        wheels.provide(root, root / "build" / "wheels")
        option = f"--build-arg=BASE={base}"
    for target, image in IMAGES.items():
        log, file = logs / f"{target}-image.log", root / "operator" / "Dockerfile"
        docker.build(root, image, option, f"--target={target}", log=log, file=file)
        to_stderr(f"image {image}: {docker.inspected(image, '{{json .Size}}') / 1e6:.0f} MB")


def install(root: Path, kubeconfig: Path, helm: Path) -> None:
    """Install the operator by its chart, or upgrade it; returns when its pods are ready. LocalKubeError with Helm's words if that fails."""
    begun = time.monotonic()
    # the image has changed but not its name: the pods must still be replaced
    image = {"podAnnotations": {"multiconnect.dev/image": docker.inspected(IMAGES["operator"], "{{json .Id}}")}}
    Helm(helm, kubeconfig.parent, env={"KUBECONFIG": str(kubeconfig)}).install_operator(root, image)
    to_stderr(f"the operator runs in namespace {NAMESPACE} after {time.monotonic() - begun:.1f} s")
