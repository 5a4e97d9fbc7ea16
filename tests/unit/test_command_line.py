"""Every command of the project answers --help and --version, and starts nothing that it was not asked for. With real processes."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .forked import Ended, Forks, forks

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMPLETION = "kubectl_complete-whatsapp"
"""Started by kubectl, which gives it the words of a command line to complete: --help is one of them."""
SCRIPTS: dict[str, str] = {name: entry for name, entry in PROJECT["project"]["scripts"].items() if name != COMPLETION}
OPERATOR = ["-m", "whatsapp_operator"]
PATH = f"{ROOT / 'operator'}:{ROOT / 'hack'}"
DEADLINE = 90.0
"""Seconds, on a busy machine too; a process that starts to work instead of ending never ends."""

Run = Callable[..., Ended]

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: admin
contexts: [{name: admin, context: {cluster: here, user: admin}}]
clusters: [{name: here, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: admin, user: {token: secret}}]
"""
"""Of a workstation: an operator that takes it goes on forever to ask for the Lease."""


@pytest.fixture
def workstation(tmp_path: Path) -> dict[str, str]:
    """The environment of a person with a kubeconfig."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG, encoding="utf-8")
    return {"PYTHONPATH": PATH, "KUBECONFIG": str(kubeconfig), "HOME": str(tmp_path)}


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Processes that have their libraries already. What must start from nothing is started by ``fresh``."""
    with forks(tmp_path_factory.mktemp("forked"), PATH) as one:
        yield one


@pytest.fixture
def run(forked: Forks, workstation: dict[str, str]) -> Run:
    """Run Python with these arguments, and with these variables next to those of a workstation."""
    return lambda *argv, **env: forked.run({**workstation, **env}, *argv, deadline=DEADLINE)


def fresh(env: dict[str, str], *argv: str) -> Ended:
    done = subprocess.run([sys.executable, *argv], env=env, capture_output=True, text=True, timeout=DEADLINE, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def started(script: str) -> tuple[str, ...]:
    """Python's arguments that run a script of the project as pip installs it."""
    module, _, function = SCRIPTS[script].partition(":")
    return ("-c", f"import sys; from {module} import {function}; sys.argv[0] = {script!r}; sys.exit({function}())")


# ---- --help and --version


@pytest.mark.slow
@pytest.mark.parametrize("argv", [*(started(script) for script in SCRIPTS), tuple(OPERATOR), ("-m", "wabiz_sim")])
def test_help_and_version_are_printed_and_nothing_starts(workstation: dict[str, str], run: Run, argv: tuple[str, ...]) -> None:
    shown, version = fresh(workstation, *argv, "--help"), run(*argv, "--version")
    assert (shown.status, version.status) == (0, 0)
    assert shown.out.lower().startswith("usage: ")
    assert (shown.err, version.err) == ("", "")
    assert re.fullmatch(r"[\w-]+ \d+\.\d+\.\d+", version.out.strip())


@pytest.mark.parametrize(("script", "argument"), [*((script, "--halp") for script in SCRIPTS), ("whatsapp-operator", "start")])
def test_an_argument_that_means_nothing(run: Run, script: str, argument: str) -> None:
    ended = run(*started(script), argument)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("usage: ")
    assert "Traceback" not in ended.err


def test_the_operators_help_lists_each_setting_with_its_default(run: Run) -> None:
    shown = run(*OPERATOR, "--help").out
    source = (ROOT / "operator" / "whatsapp_operator" / "settings.py").read_text(encoding="utf-8")
    read = set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+|KUBECONFIG)"', source))
    assert read >= {"POD_NAMESPACE", "KUBECONFIG", "LEASE_SECONDS", "METRICS_HOST", "SETTLE_GRACE_SECONDS"}
    assert {name for name in read if not re.search(rf"^ +{name}\b", shown, flags=re.MULTILINE)} == set()
    for name, default in (("LEASE_SECONDS", "4"), ("SET_SHARDS_TIMEOUT_SECONDS", "60"), ("METRICS_PORT", "0"), ("LOG_LEVEL", "INFO")):
        assert re.search(rf"^ +{name}\b[^A-Z]*.*default: {default}\)", re.sub(r"\n {10,}", " ", shown), flags=re.MULTILINE), name


@pytest.mark.parametrize(
    "tool", ["bench", "chaos", "charts", "dashboard-picture", "demo", "e2e", "figures", "kind-offline", "programs", "wheels"]
)
def test_the_tools_of_a_checkout(run: Run, tool: str) -> None:
    path = str(ROOT / "hack" / tool)
    shown, wrong = run(path, "--help"), run(path, "--halp")
    assert (shown.status, wrong.status) == (0, 2)
    assert shown.out.startswith(f"usage: hack/{tool}")
    assert "Traceback" not in wrong.err


def test_all_tools_of_a_checkout_are_tried() -> None:
    tools = {path.name for path in (ROOT / "hack").iterdir() if path.is_symlink()}
    (tried,) = (mark.args[1] for mark in test_the_tools_of_a_checkout.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    assert set(tried) == tools


@pytest.mark.slow
def test_a_process_that_does_not_end_is_found(forked: Forks) -> None:
    assert forked.run({}, "-c", "import time; time.sleep(3600)", deadline=1.0) == Ended(None, "", "")
    assert forked.run({"NAME": "x"}, "-c", "import os; print(os.environ); exit(7)", deadline=DEADLINE) == Ended(
        7, "environ({'NAME': 'x'})\n", ""
    )


# ---- what ends the operator before it begins


def test_outside_of_a_pod_the_namespace_must_be_named(run: Run) -> None:
    ended = run(*OPERATOR)
    assert (ended.status, ended.out) == (2, "")
    assert re.fullmatch(r"whatsapp-operator: .*POD_NAMESPACE.*\n", ended.err)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEASE_SECONDS", "soon"),
        ("LOG_LEVEL", "loud"),
        ("WATCH_NAMESPACES", "shop,-"),
        ("KUBECONFIG", "/nowhere/kubeconfig"),
    ],
)
def test_a_bad_setting_is_one_sentence(run: Run, name: str, value: str) -> None:
    ended = run(*OPERATOR, **{"POD_NAMESPACE": "shop", name: value})
    assert (ended.status, ended.out) == (2, "")
    assert re.fullmatch(r"whatsapp-operator: .*\n", ended.err)
    assert name.lower() in ended.err.lower()
    assert value in ended.err or value.rsplit(",", maxsplit=1)[-1] in ended.err


def test_a_port_of_metrics_that_is_taken_is_one_sentence(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run(*OPERATOR, POD_NAMESPACE="shop", METRICS_PORT=str(taken.getsockname()[1]), METRICS_HOST="127.0.0.1")
    assert (ended.status, ended.out) == (2, "")
    assert re.fullmatch(r"whatsapp-operator: metrics cannot be served .*\n", ended.err)


# ---- one version


def test_one_version() -> None:
    from wabiz_sim.version import VERSION as SIMULATOR
    from whatsapp_operator import __version__

    assert __version__ == SIMULATOR
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "whatsapp_operator.__version__"}
