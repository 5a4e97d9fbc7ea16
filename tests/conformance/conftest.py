"""One real control plane for the table, without what needs nodes: its pods are on a node that nobody runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from localkube.errors import LocalKubeError
from localkube.plane.controlplane import ControlPlane
from localkube.programs.binaries import provide

CRD = Path(__file__).resolve().parents[2] / "crds" / "whatsappclusters.yaml"
KIND = "whatsappclusters.multiconnect.dev"
WITHOUT = "--controllers=-node-lifecycle-controller,-pod-garbage-collector-controller"


@pytest.fixture(scope="module")
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with the CRD installed."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        binaries = provide(os.environ)
    made = ControlPlane.start(tmp_path_factory.mktemp("conformance"), binaries=binaries, controller_manager_args=[WITHOUT])
    try:
        made.kubectl("apply", "--server-side", "-f", str(CRD))
        _until_served(made)
        yield made
    finally:
        made.stop()


def _until_served(plane: ControlPlane, seconds: float = 30.0) -> None:
    """Wait until the kind of the CRD can be listed."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            plane.kubectl("get", KIND)
        except LocalKubeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
