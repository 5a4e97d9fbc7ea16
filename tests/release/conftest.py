"""What the tests of a release share: wheels from the cache, and Helm."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from localkube import wheels as fetched_wheels
from localkube.charts import Helm
from localkube.programs.binaries import provide
from localkube.programs.versions import chart_programs

ROOT = Path(__file__).resolve().parents[2]
EPOCH = 1_900_000_000


@pytest.fixture(scope="session")
def wheels() -> Path:
    """The images' dependencies for this very Python; fetched again when the lock has changed."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return fetched_wheels.provide(ROOT, ROOT / "build" / f"test-wheels-{version}", python=version)


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """The real Helm."""
    return Helm(provide(os.environ, programs=chart_programs())["helm"], tmp_path_factory.mktemp("helm"))
