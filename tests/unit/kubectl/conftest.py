"""A kubectl of the tests' own, so that they need none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pykube  # noqa: F401  # first in this thread: while another one loads it, pytest changes what is done with its warnings
import pytest

from .clusters import Server, a_cluster, serving

FAKE = """#!{python} -S
import json, os, sys
path = next((one.partition("=")[2] for one in sys.argv if one.startswith("--kubeconfig=")), os.environ.get("KUBECONFIG", ""))
if sys.argv[-7:] != ["config", "view", "--raw", "--minify", "--flatten", "-o", "json"]:
    sys.exit("the fake kubectl knows one command only")
if not os.path.exists(path):
    sys.exit("error: stat " + path + ": no such file or directory")
print(open(path).read())
"""


@pytest.fixture(scope="session")
def fake_kubectl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that prints the kubeconfig as kubectl does. It must be JSON."""
    path = tmp_path_factory.mktemp("kubectl") / "kubectl"
    path.write_text(FAKE.replace("{python}", sys.executable), encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def _use_fake_kubectl(fake_kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECTL", str(fake_kubectl))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """An API server with one cluster that is well, which kubectl's configuration names."""
    with serving(a_cluster(), tmp_path) as one:
        monkeypatch.setenv("KUBECONFIG", str(one.kubeconfig))
        yield one
