"""Each lock can be installed, file by file by its hash, on every Python that the project is for, from the first of its versions on."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from localkube.packages import as_pip

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.11.0", "3.12.0", "3.13.0", "3.14.0")
PLATFORMS = {"dev": ("linux", "macos"), "kubectl": ("linux", "macos"), "run": ("linux",), "simulator": ("linux",)}
"""The images are of Linux; the tools and the plugin run where people work."""
SECONDS = 300.0
"""The first time, the packages' own requirements are fetched."""


@pytest.fixture(scope="module")
def env() -> dict[str, str]:
    """Asks the index that pip would ask."""
    return as_pip()


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("lock", "platform"), [(lock, one) for lock, platforms in PLATFORMS.items() for one in platforms])
def test_a_lock_can_be_installed(lock: str, platform: str, python: str, env: dict[str, str], tmp_path: Path) -> None:
    file = ROOT / "hack" / "lock" / f"{lock}.txt"
    argv = [f"{sys.prefix}/bin/uv", "pip", "install", "--dry-run", "--quiet", "--require-hashes", "--only-binary=:all:", "-r", str(file)]
    argv += ["--python", sys.executable, "--python-version", python, "--python-platform", platform, "--target", str(tmp_path)]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr


def test_no_lock_is_left_out() -> None:
    assert {path.stem for path in (ROOT / "hack" / "lock").iterdir()} == set(PLATFORMS)


def test_the_oldest_python_is_the_one_that_the_project_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=" + PYTHONS[0].removesuffix(".0")


def test_the_other_pythons_are_tried_by_ci() -> None:
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yaml").read_text(encoding="utf-8"))
    assert tuple(f"{python}.0" for python in ci["jobs"]["pythons"]["strategy"]["matrix"]["python"]) == PYTHONS[1:]
