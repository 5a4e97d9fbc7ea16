"""What the tests of the charts share: the real helm and kubeconform, and schemas that a real API server gave."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from localkube.charts import CRD, Helm
from localkube.plane.controlplane import ControlPlane
from localkube.programs.binaries import Binaries, provide
from localkube.programs.cache import sha256_of
from localkube.programs.versions import chart_programs, kubernetes_version

from .render import ROOT, Charts
from .schemas import COMPLETE, write

SCHEMAS = Path(__file__).with_name("schemas.py")


@pytest.fixture(scope="session")
def chart_binaries(request: pytest.FixtureRequest) -> Binaries:
    """helm and kubeconform. The first time they are built, for a minute or more, so what is done is shown through pytest's capturing."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        return provide(os.environ, programs=chart_programs())


@pytest.fixture(scope="session")
def charts(chart_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Charts:
    """What renders the charts, without any cluster."""
    return Charts(Helm(chart_binaries["helm"], tmp_path_factory.mktemp("helm")))


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Schemas for kubeconform, asked of a real API server once per version of Kubernetes, CRD and ``write``, then kept in build/schemas."""
    made_from = "-".join(sha256_of(path)[:12] for path in (ROOT / CRD, SCHEMAS))
    folder = ROOT / "build" / "schemas" / f"{kubernetes_version()}-{made_from}"
    if not (folder / COMPLETE).exists():
        plane = ControlPlane.start(tmp_path_factory.mktemp("schemas"))
        try:
            openapi = json.loads(plane.kubectl("get", "--raw", "/openapi/v2"))
        finally:
            plane.stop()
        write(folder, openapi, yaml.load((ROOT / CRD).read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))
    return folder
