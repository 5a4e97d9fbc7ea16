"""The plugin as one file, as `make plugin` makes it: each kind of command runs from it, with nothing but Python and kubectl."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from unit.kubectl.clusters import Server, a_cluster, serving
from unit.kubectl.conftest import FAKE
from whatsapp_operator import __version__

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("Makefile", "pyproject.toml", "README.md", "LICENSE", "operator", "hack")
MAKE_S = 540.0
"""It fetches the dependencies by their hashes, for four versions of Python."""


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, made in a copy of the repository by the tools of this environment; away from the copy, so that it finds nothing there."""
    copy, away = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("away")
    for part in PARTS:
        source, target = ROOT / part, copy / part
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    (copy / ".venv").symlink_to(sys.prefix)
    argv = ["make", "--old-file=.venv/.ready", "plugin"]  # this environment is as it is
    done = subprocess.run(argv, cwd=copy, capture_output=True, text=True, timeout=MAKE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.move(copy / "build" / "kubectl-whatsapp.pyz", away / "kubectl-whatsapp")
    shutil.rmtree(copy)
    return away / "kubectl-whatsapp"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(a_cluster(), tmp_path, texts={"/api/v1/namespaces/shop/pods/acme-coreapp-0/log": "a line\n"}) as one:
        yield one


@pytest.fixture
def env(server: Server, tmp_path: Path) -> dict[str, str]:
    """No environment but this: kubectl, and the Python that runs the tests, without the packages of its environment."""
    kubectl = tmp_path / "kubectl"
    python = Path(sys._base_executable)  # type: ignore[attr-defined]  # that of the system
    kubectl.write_text(FAKE.replace("{python}", str(python)), encoding="utf-8")
    kubectl.chmod(0o755)
    (tmp_path / "python3").symlink_to(python)
    path = f"{tmp_path}:{os.defpath}"
    return {"PATH": path, "HOME": str(tmp_path), "KUBECONFIG": str(server.kubeconfig), "KUBECTL": str(kubectl)}


def run(pyz: Path, env: dict[str, str], *args: str, code: int = 0) -> str:
    done = subprocess.run([pyz, *args], env=env, cwd=env["HOME"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, f"{args}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_it_reads_judges_collects_and_completes(pyz: Path, env: dict[str, str], tmp_path: Path) -> None:
    patient = ("--request-timeout", "60")
    assert run(pyz, env, "--version") == f"kubectl-whatsapp {__version__}\n"
    assert run(pyz, env, "--help").startswith("Usage: kubectl whatsapp")
    assert "All 2 shards are served; 1 spare could take over." in run(pyz, env, "status", "acme", *patient)
    assert json.loads(run(pyz, env, "why", "acme", "0", "-o", "json", *patient))["rule"] == "UpToDate", "the operator's rules are in it"
    assert "It means: There is nothing to do" in run(pyz, env, "why", "acme", *patient), "the reasons' texts are in it"
    assert "12 of 12 checks passed." in run(pyz, env, "check", "acme", *patient)
    assert run(pyz, env, "logs", "acme", "shard-0") == "a line\n"
    assert "planned changes are held" in run(pyz, env, "pause", "acme"), "the client library is in it"
    run(pyz, env, "report", "acme", "-f", "ticket.tar.gz")
    with tarfile.open(tmp_path / "ticket.tar.gz") as archive:
        assert "ticket/why.json" in archive.getnames()
    assert run(pyz, env | {"SHIV_ENTRY_POINT": "kubectl_whatsapp.complete:main"}, "stat") == "status\n:4\n"


def test_it_serves_the_page(pyz: Path, env: dict[str, str]) -> None:
    with subprocess.Popen([pyz, "dashboard", "acme"], env=env, cwd=env["HOME"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            with urllib.request.urlopen(process.stdout.readline().strip(), timeout=60) as answer:  # on loopback
                assert b"<title>" in answer.read()
        finally:
            process.terminate()


def test_a_python_that_it_was_not_made_for_gets_a_sentence(pyz: Path, env: dict[str, str], tmp_path: Path) -> None:
    """As on another platform: what is compiled is not there."""
    run(pyz, env, "--version")  # unpacks it
    for library in (tmp_path / ".shiv").rglob("msgspec/*.so"):
        library.unlink()
    assert "All 2 shards are served" in run(pyz, env, "status", "acme", "--request-timeout", "60")
    done = subprocess.run([pyz, "why", "acme"], env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, "Install the plugin with pip instead" in done.stderr, "Traceback" in done.stderr) == (4, True, False)
