"""The images, without containers: the Dockerfile's own commands run in a folder, offline, and what they make starts.

Not a build: no base image, no layers, no mount. That is for the tests on kind.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .dockerfile import Emulation, Stage, entrypoint, stages

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "hack" / "lock" / "run.txt"
NOBODY = 65532
UNCHECKED = 0b01
"""Flags of a .pyc by hash that is not compared with its source (PEP 552)."""


@pytest.fixture(scope="session")
def stage_of() -> dict[str, Stage]:
    return stages((ROOT / "operator" / "Dockerfile").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def wheels() -> Path:
    """The dependencies for this very Python, by hack/wheels; fetched anew when the lock has changed."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = ROOT / "build" / f"test-wheels-{version}"
    stamp = folder / "made-from.txt"
    if not stamp.exists() or stamp.read_bytes() != LOCK.read_bytes():
        argv = [sys.executable, str(ROOT / "hack" / "wheels"), "--python", version, "--arch", platform.machine(), "--to", str(folder)]
        subprocess.run(argv, timeout=900, check=True)
    return folder


@dataclass
class Built:
    """What the stages left."""

    emulation: Emulation
    stages: dict[str, Stage]

    def run(self, target: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run an image's entrypoint as the image would: its environment and no other, its user, in its folder."""
        stage = self.stages[target]
        given = {**self.emulation.environment(self.stages["runtime"], stage), **env}
        given["PYTHONPATH"] = str(self.app(target))
        # the program is looked for in the image's own PATH
        argv = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in given.items()), *entrypoint(stage), *args]
        user = NOBODY if self.nobody_can_run else None
        return subprocess.run(argv, cwd="/", capture_output=True, text=True, timeout=60, check=False, user=user, group=user)

    @property
    def nobody_can_run(self) -> bool:
        """Whether we may become nobody, and nobody may run the Python that stands for the base image's."""
        if os.getuid() != 0:
            return False
        try:
            subprocess.run([str(self.emulation.python), "-c", ""], timeout=60, check=True, user=NOBODY, group=NOBODY, cwd="/")
        except PermissionError:
            return False
        return True

    def app(self, target: str) -> Path:
        """Where the files lie that the target copies to /opt/app."""
        source = next(rest.split()[1] for word, rest in self.stages[target].steps if word == "COPY" and rest.endswith("/opt/app"))
        return Path(self.emulation.moved(source))

    @property
    def venv(self) -> Path:
        return Path(self.emulation.moved("/opt/venv"))


@pytest.fixture(scope="module")
def built(stage_of: dict[str, Stage], wheels: Path) -> Iterator[Built]:
    # not pytest's own folder, which nobody else may enter
    folder = Path(tempfile.mkdtemp(prefix="whatsapp-image-"))
    folder.chmod(0o755)
    try:
        context = folder / "context"
        for name in ("operator/whatsapp_operator", "operator/wabiz_sim"):
            shutil.copytree(ROOT / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
        (context / "hack" / "lock").mkdir(parents=True)
        shutil.copy(LOCK, context / "hack" / "lock")
        (context / "build").mkdir()
        (context / "build" / "wheels").symlink_to(wheels)
        base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        emulation = Emulation(context, folder, base)
        for name in ("dependencies", "compiled"):
            emulation.run(stage_of[name])
        yield Built(emulation, stage_of)
    finally:
        shutil.rmtree(folder)


def files(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*") if path.is_file()}


# ---- what is written


def test_the_targets_are_the_two_images_and_the_operator_is_the_default(stage_of: dict[str, Stage]) -> None:
    assert list(stage_of) == ["dependencies", "compiled", "runtime", "simulator", "operator"]
    assert [stage_of[name].base for name in stage_of] == ["${BASE}", "dependencies", "${BASE}", "runtime", "runtime"]


@pytest.mark.parametrize("target", ["simulator", "operator"])
def test_an_image_has_a_numeric_user_and_says_what_it_is(stage_of: dict[str, Stage], target: str) -> None:
    assert ("USER", f"{NOBODY}:{NOBODY}") in stage_of["runtime"].steps
    assert "USER" not in {word for word, _ in stage_of[target].steps}
    labels = next(rest for word, rest in stage_of[target].steps if word == "LABEL")
    for name in ("title", "description", "version", "revision", "created"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert "RUN" not in {word for word, _ in stage_of[target].steps}, "nothing is made in what is shipped"


def test_the_base_has_a_tag_and_every_dependency_a_hash(stage_of: dict[str, Stage]) -> None:
    text = (ROOT / "operator" / "Dockerfile").read_text(encoding="utf-8")
    base = next(line.partition("=")[2] for line in text.splitlines() if line.startswith("ARG BASE="))
    assert base.partition(":")[2] not in {"", "latest"}
    commands = " ".join(rest for stage in stage_of.values() for word, rest in stage.steps if word == "RUN")
    assert commands.count("pip install") == commands.count("--require-hashes") == 1


def test_the_version_is_that_of_the_project(stage_of: dict[str, Stage]) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for target in ("simulator", "operator"):
        version = next(rest.partition("=")[2] for word, rest in stage_of[target].steps if rest.startswith("VERSION="))
        assert f'\nversion = "{version}"' in project


def test_what_is_copied_is_not_ignored(stage_of: dict[str, Stage]) -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [
        word
        for stage in stage_of.values()
        for step, rest in stage.steps
        if step == "COPY" and "--from" not in rest
        for word in rest.split()[:-1]
    ]
    assert "*" in ignored
    assert {f"!{path.rstrip('*')}" for path in copied} == {line for line in ignored if line.startswith("!")}


# ---- what it makes


def test_everything_is_compiled_and_nothing_is_compared_with_its_source(built: Built) -> None:
    sources = {path for path in files(built.venv / "lib", built.app("operator"), built.app("simulator")) if path.suffix == ".py"}
    assert len(sources) > 500
    tag = sys.implementation.cache_tag
    missing = {path for path in sources if not (path.parent / "__pycache__" / f"{path.stem}.{tag}.pyc").exists()}
    assert not missing
    compiled = {path for path in files(built.venv / "lib", built.app("operator")) if path.suffix == ".pyc"}
    assert not [path for path in compiled if int.from_bytes(path.read_bytes()[4:8], "little") != UNCHECKED]


def test_what_installs_is_not_shipped(built: Built) -> None:
    installed = {path.name for path in next((built.venv / "lib").glob("*/site-packages")).iterdir()}
    assert not {"pip", "setuptools"} & installed
    assert {"kopf", "lightkube", "aiohttp"} <= installed


def test_the_operator_starts_and_says_what_is_missing(built: Built) -> None:
    before = files(built.venv, built.app("operator"))
    alone = built.run("operator")
    assert (alone.returncode, alone.stdout) == (1, "")
    assert alone.stderr.startswith("whatsapp-operator: ")
    assert "Traceback" not in alone.stderr
    wrong = built.run("operator", LEASE_SECONDS="soon")
    assert wrong.stderr == "whatsapp-operator: LEASE_SECONDS is 'soon'; it must be a number of at least 0, such as 4.\n"
    assert files(built.venv, built.app("operator")) == before, "it writes nothing where it lies"


def test_the_stand_in_starts_and_says_what_is_missing(built: Built) -> None:
    before = files(built.venv, built.app("simulator"))
    for component in ("upstream", "coreapp"):
        done = built.run("simulator", component)
        assert done.returncode == 2, done.stderr
        assert "WABIZ_STATE_DIR is not set" in done.stderr
    assert files(built.venv, built.app("simulator")) == before
