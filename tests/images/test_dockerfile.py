"""The images, without containers: the Dockerfile's own commands run in a folder, offline, and what they make starts.

Not a build: no base image, no layers, no mount. That is for the tests on kind.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from localkube import wheels as fetched_wheels

from .dockerfile import Emulation, Stage, entrypoint, stages

ROOT = Path(__file__).resolve().parents[2]
LOCKS = {"operator": ROOT / "hack" / "lock" / "run.txt", "simulator": ROOT / "hack" / "lock" / "simulator.txt"}
NOBODY = 65532
UNCHECKED = 0b01
"""Flags of a .pyc by hash that is not compared with its source (PEP 552)."""


@pytest.fixture(scope="session")
def stage_of() -> dict[str, Stage]:
    return stages((ROOT / "operator" / "Dockerfile").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def wheels() -> Path:
    """The dependencies for this very Python, by hack/wheels; fetched again when the lock has changed."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return fetched_wheels.provide(ROOT, ROOT / "build" / f"test-wheels-{version}", python=version)


@dataclass
class Built:
    """What the stages left."""

    emulation: Emulation
    stages: dict[str, Stage]
    files: dict[str, str]
    """By name, as the build left them."""

    def run(self, target: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run an image's entrypoint as the image would: its environment and no other, its user, in its folder."""
        stage = self.stages[target]
        given = {**self.emulation.environment(self.stages["runtime"], stage), **env}
        given["PYTHONPATH"] = str(self.app(target))
        given["PATH"] = f"{self.venv(target)}/bin:{given['PATH']}"
        # the program is looked for in the image's own PATH
        argv = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in given.items()), *entrypoint(stage), *args]
        user = NOBODY if self.nobody_can_run else None
        return subprocess.run(argv, cwd="/", capture_output=True, text=True, timeout=60, check=False, user=user, group=user)

    @property
    def nobody_can_run(self) -> bool:
        """Whether this process may become nobody, and nobody may run the Python that stands for the base image's."""
        if os.getuid() != 0:
            return False
        try:
            subprocess.run([str(self.emulation.python), "-c", ""], timeout=60, check=True, user=NOBODY, group=NOBODY, cwd="/")
        except PermissionError:
            return False
        return True

    def app(self, target: str) -> Path:
        """Where the files lie that the target copies to /opt/app."""
        return self._source(target, "/opt/app")

    def venv(self, target: str) -> Path:
        """Where the files lie that the target copies to /opt/venv."""
        return self._source(target, "/opt/venv")

    def packages(self, target: str) -> set[str]:
        """The names in its site-packages."""
        return {path.name for path in next((self.venv(target) / "lib").glob("*/site-packages")).iterdir()}

    def _source(self, target: str, goal: str) -> Path:
        source = next(rest.split()[1] for word, rest in self.stages[target].steps if word == "COPY" and rest.split()[-1] == goal)
        return Path(self.emulation.moved(source))


def build(folder: Path, wheels: Path, stage_of: dict[str, Stage]) -> Built:
    """Make the files of both images below ``folder`` by the Dockerfile's own commands, from nothing."""
    context = folder / "context"
    for name in ("operator/whatsapp_operator", "operator/wabiz_sim"):
        shutil.copytree(ROOT / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
    (context / "hack" / "lock").mkdir(parents=True)
    for lock in LOCKS.values():
        shutil.copy(lock, context / "hack" / "lock")
    (context / "build").mkdir()
    (context / "build" / "wheels").symlink_to(wheels)
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    emulation = Emulation(context, folder, base)
    for name in ("dependencies", "compiled"):
        emulation.run(stage_of[name])
    return Built(emulation, stage_of, tree(folder / "opt"))


@pytest.fixture(scope="module")
def built(stage_of: dict[str, Stage], wheels: Path) -> Iterator[Built]:
    # not pytest's own folder, which nobody else may enter
    folder = Path(tempfile.mkdtemp(prefix="whatsapp-image-"))
    folder.chmod(0o755)
    try:
        yield build(folder, wheels, stage_of)
    finally:
        shutil.rmtree(folder)


def tree(folder: Path) -> dict[str, str]:
    """What each file below a folder is, in what a layer keeps of it without its time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return found


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
    project = (ROOT / "operator" / "whatsapp_operator" / "__init__.py").read_text(encoding="utf-8")
    for target in ("simulator", "operator"):
        version = next(rest.partition("=")[2] for word, rest in stage_of[target].steps if rest.startswith("VERSION="))
        assert f'\n__version__ = "{version}"\n' in project


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
    everything = [folder for target in LOCKS for folder in (built.venv(target) / "lib", built.app(target))]
    sources = {path for path in files(*everything) if path.suffix == ".py"}
    assert len(sources) > 500
    tag = sys.implementation.cache_tag
    missing = {path for path in sources if not (path.parent / "__pycache__" / f"{path.stem}.{tag}.pyc").exists()}
    assert not missing
    compiled = {path for path in files(*everything) if path.suffix == ".pyc"}
    assert not [path for path in compiled if int.from_bytes(path.read_bytes()[4:8], "little") != UNCHECKED]


def test_an_image_has_what_its_own_lock_says_and_nothing_that_installs(built: Built) -> None:
    operator, simulator = built.packages("operator"), built.packages("simulator")
    assert not {"pip", "setuptools"} & (operator | simulator)
    assert {"kopf", "lightkube", "aiohttp"} <= operator
    assert not {"psycopg", "psycopg_binary"} & operator
    assert {"psycopg", "psycopg_binary", "aiohttp"} <= simulator
    assert not {"kopf", "lightkube", "httpx"} & simulator


def test_what_both_images_need_has_one_version() -> None:
    pins = [dict(re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)) for lock in LOCKS.values()]
    shared = pins[0].keys() & pins[1].keys()
    assert "aiohttp" in shared
    assert {name: pins[0][name] for name in shared} == {name: pins[1][name] for name in shared}


def test_the_operator_starts_and_says_what_is_missing(built: Built) -> None:
    before = files(built.venv("operator"), built.app("operator"))
    alone = built.run("operator")
    assert (alone.returncode, alone.stdout) == (2, "")
    assert alone.stderr.startswith("whatsapp-operator: ")
    assert "Traceback" not in alone.stderr
    wrong = built.run("operator", LEASE_SECONDS="soon")
    assert wrong.stderr == "whatsapp-operator: LEASE_SECONDS is 'soon'; it must be a number of at least 0, such as 4.\n"
    assert files(built.venv("operator"), built.app("operator")) == before, "it writes nothing where it lies"


def test_the_stand_in_starts_and_says_what_is_missing(built: Built) -> None:
    before = files(built.venv("simulator"), built.app("simulator"))
    for component in ("upstream", "coreapp"):
        done = built.run("simulator", component)
        assert done.returncode == 2, done.stderr
        assert "WABIZ_STATE_DIR is not set" in done.stderr
    assert files(built.venv("simulator"), built.app("simulator")) == before


def test_the_stand_in_has_what_it_needs_for_postgresql(built: Built) -> None:
    database = {"WA_DB_HOSTNAME": "127.0.0.1", "WA_DB_PORT": "9", "WA_DB_USERNAME": "wabiz", "WA_DB_PASSWORD": "pw-4711"}
    done = built.run("simulator", "upstream", WA_DB_ENGINE="PGSQL", WABIZ_DB_TLS_DIR="/nowhere", **database)
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        "wabiz_sim upstream: WABIZ_DB_TLS_DIR=/nowhere has no ca.crt; put the certificate of the database's authority there\n"
    )
    code = "import psycopg; print(psycopg.pq.__impl__)"
    loaded = subprocess.run(
        [built.venv("simulator") / "bin" / "python", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert loaded.stdout == "binary\n"


@pytest.mark.slow
def test_two_builds_of_the_images_files_are_the_same(built: Built, stage_of: dict[str, Stage], wheels: Path) -> None:
    """Last, and in the same place: an environment of Python knows its own path."""
    place = built.emulation.root
    for path in place.iterdir():
        shutil.rmtree(path)
    again = build(place, wheels, stage_of)
    assert len(again.files) > 1000
    assert sorted(name for name, _ in built.files.items() ^ again.files.items()) == []
