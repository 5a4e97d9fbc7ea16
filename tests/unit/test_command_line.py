"""Every command of the project answers --help and --version, and starts nothing that it was not asked for. With real processes."""

from __future__ import annotations

import asyncio
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMPLETION = "kubectl_complete-whatsapp"
"""Started by kubectl, which gives it the words of a command line to complete: --help is one of them."""
SCRIPTS: dict[str, str] = {name: entry for name, entry in PROJECT["project"]["scripts"].items() if name != COMPLETION}
OPERATOR = ["-m", "whatsapp_operator"]
DEADLINE = 90.0
"""Seconds, on a busy machine too; a process that starts to work instead of ending never ends."""

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: admin
contexts: [{name: admin, context: {cluster: here, user: admin}}]
clusters: [{name: here, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: admin, user: {token: secret}}]
"""
"""Of a workstation: an operator that takes it goes on forever to ask for the Lease."""


@dataclass(frozen=True)
class Ended:
    """What came of a process."""

    status: int | None
    """None: it did not end."""
    out: str
    err: str


@pytest.fixture
def workstation(tmp_path: Path) -> dict[str, str]:
    """The environment of a person with a kubeconfig."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG, encoding="utf-8")
    return {"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'hack'}", "KUBECONFIG": str(kubeconfig), "HOME": str(tmp_path)}


async def end_of(env: dict[str, str], *argv: str) -> Ended:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *argv, env=env, stdout=pipe, stderr=pipe)
    try:
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE)
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
        return Ended(None, out.decode(), err.decode())
    return Ended(process.returncode, out.decode(), err.decode())


def started(script: str) -> tuple[str, ...]:
    """Python's arguments that run a script of the project as pip installs it."""
    module, _, function = SCRIPTS[script].partition(":")
    return ("-c", f"import sys; from {module} import {function}; sys.argv[0] = {script!r}; sys.exit({function}())")


# ---- --help and --version


@pytest.mark.parametrize("argv", [*(started(script) for script in SCRIPTS), tuple(OPERATOR), ("-m", "wabiz_sim")])
async def test_help_and_version_are_printed_and_nothing_starts(workstation: dict[str, str], argv: tuple[str, ...]) -> None:
    shown, version = await asyncio.gather(end_of(workstation, *argv, "--help"), end_of(workstation, *argv, "--version"))
    assert (shown.status, version.status) == (0, 0)
    assert shown.out.lower().startswith("usage: ")
    assert (shown.err, version.err) == ("", "")
    assert re.fullmatch(r"[\w-]+ \d+\.\d+\.\d+", version.out.strip())


@pytest.mark.parametrize(("script", "argument"), [*((script, "--halp") for script in SCRIPTS), ("whatsapp-operator", "start")])
async def test_an_argument_that_means_nothing(workstation: dict[str, str], script: str, argument: str) -> None:
    ended = await end_of(workstation, *started(script), argument)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("usage: ")
    assert "Traceback" not in ended.err


async def test_the_operators_help_lists_each_setting_with_its_default(workstation: dict[str, str]) -> None:
    shown = (await end_of(workstation, *OPERATOR, "--help")).out
    source = (ROOT / "operator" / "whatsapp_operator" / "settings.py").read_text(encoding="utf-8")
    read = set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+|KUBECONFIG)"', source))
    assert read >= {"POD_NAMESPACE", "KUBECONFIG", "LEASE_SECONDS", "METRICS_HOST", "SETTLE_GRACE_SECONDS"}
    assert {name for name in read if not re.search(rf"^ +{name}\b", shown, flags=re.MULTILINE)} == set()
    for name, default in (("LEASE_SECONDS", "4"), ("SET_SHARDS_TIMEOUT_SECONDS", "60"), ("METRICS_PORT", "0"), ("LOG_LEVEL", "INFO")):
        assert re.search(rf"^ +{name}\b[^A-Z]*.*default: {default}\)", re.sub(r"\n {10,}", " ", shown), flags=re.MULTILINE), name


@pytest.mark.parametrize(
    "tool", ["bench", "chaos", "charts", "cluster", "dashboard-picture", "demo", "e2e", "figures", "kind-offline", "wheels"]
)
async def test_the_tools_of_a_checkout(workstation: dict[str, str], tool: str) -> None:
    path = str(ROOT / "hack" / tool)
    shown, wrong = await asyncio.gather(end_of(workstation, path, "--help"), end_of(workstation, path, "--halp"))
    assert (shown.status, wrong.status) == (0, 2)
    assert shown.out.startswith(f"usage: hack/{tool}")
    assert "Traceback" not in wrong.err


def test_all_tools_of_a_checkout_are_tried() -> None:
    tools = {path.name for path in (ROOT / "hack").iterdir() if path.is_symlink()}
    (tried,) = (mark.args[1] for mark in test_the_tools_of_a_checkout.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    assert set(tried) == tools


# ---- what ends the operator before it begins


async def test_outside_of_a_pod_the_namespace_must_be_named(workstation: dict[str, str]) -> None:
    ended = await end_of(workstation, *OPERATOR)
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
async def test_a_bad_setting_is_one_sentence(workstation: dict[str, str], name: str, value: str) -> None:
    ended = await end_of({**workstation, "POD_NAMESPACE": "shop", name: value}, *OPERATOR)
    assert (ended.status, ended.out) == (2, "")
    assert re.fullmatch(r"whatsapp-operator: .*\n", ended.err)
    assert name.lower() in ended.err.lower()
    assert value in ended.err or value.rsplit(",", maxsplit=1)[-1] in ended.err


async def test_a_port_of_metrics_that_is_taken_is_one_sentence(workstation: dict[str, str]) -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with taken:
        port = str(taken.sockets[0].getsockname()[1])
        env = {**workstation, "POD_NAMESPACE": "shop", "METRICS_PORT": port, "METRICS_HOST": "127.0.0.1"}
        ended = await end_of(env, *OPERATOR)
    assert (ended.status, ended.out) == (2, "")
    assert re.fullmatch(r"whatsapp-operator: metrics cannot be served .*\n", ended.err)


# ---- one version


def test_one_version() -> None:
    from wabiz_sim.version import VERSION as SIMULATOR
    from whatsapp_operator import __version__

    assert __version__ == SIMULATOR
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "whatsapp_operator.__version__"}
