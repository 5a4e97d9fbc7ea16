"""An operator that does not lead: warm, silent, and telling how it is; on a real API server."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from localkube.plane.controlplane import free_ports
from localkube.plane.operators import Operators
from localkube.plane.processes import Process
from waiting import until

from .environment import LONG, ROOT, Environment, Harness

pytestmark = pytest.mark.integration
HEALTHCHECK_PORT = 6253


async def test_a_standby_is_warm_before_it_leads_and_after(harness: Harness, environment: Environment, tmp_path: Path) -> None:
    await environment.created(shards=2, spares=1)
    (port,) = free_ports(1)
    env = {"SETTLE_GRACE_SECONDS": "2", "METRICS_PORT": str(port), "METRICS_HOST": "127.0.0.1"}
    extra = Operators(harness.plane, tmp_path / "operators", env=env)
    try:
        (tmp_path / "operators").mkdir()
        process = extra.start("op-standby")
        addresses = {pod["status"]["podIP"] for pod in environment.pods("coreapp")}
        assert len(addresses) == 3
        await _until(lambda: _read(port, "/readyz") == "ok\n", "it is ready")
        assert _tethered(process) >= addresses, "it is connected to every Coreapp"
        # Three nodes of hollow; another test may have left none.
        await _until(lambda: _value(port, "multiconnect_nodes_known") == 3, "it knows the nodes")
        assert _value(port, "multiconnect_leading") == 0
        assert [line for line in _read(port, "/metrics").splitlines() if line.startswith("multiconnect_writes_total{")] == []
        assert _read(port, "/healthz") == "ok\n"
        kept = _sockets(process)

        await asyncio.to_thread(harness.end_replicas)
        await _until(lambda: _value(port, "multiconnect_leading") == 1, "it leads")
        before = len(environment.seen.commits)
        await environment.delete_pod(environment.holder(0))
        await environment.commit(0, before)
        await environment.at_rest()
        evidence = 'evidence="PodDeleted"'
        await _until(lambda: _value(port, f'multiconnect_handovers_total{{{evidence},kind="Failover"}}') == 1, "the handover is counted")
        for phase in ("decide", "prepare", "commit", "assign", "serve"):
            assert _value(port, f'multiconnect_handover_seconds_count{{{evidence},phase="{phase}"}}') == 1, phase
        of = f'name="acme",namespace="{environment.namespace}"'
        assert _value(port, f'multiconnect_shards{{{of},state="Served"}}') == 2
        assert _value(port, "multiconnect_observation_seconds_count") > 0
        assert _value(port, 'multiconnect_writes_total{kind="Service",verb="patch"}') >= 1
        survivors = {pod["status"]["podIP"] for pod in environment.pods("coreapp")} & addresses
        assert {ip: inode for ip, inode in _sockets(process).items() if ip in survivors}.items() <= kept.items(), (
            "what was warm before the takeover stays as it was"
        )
    finally:
        extra.close()
        await asyncio.to_thread(harness.ensure_replicas)
    assert process.exit_text() == "exited with status 0"
    assert "Traceback" not in (tmp_path / "operators" / "op-standby.log").read_text(encoding="utf-8")


async def test_an_operator_that_reaches_no_coreapp_lives_and_is_not_ready(
    harness: Harness, environment: Environment, tmp_path: Path
) -> None:
    """A roll-out of the operator ends there, while the others can still lead."""
    await environment.created(shards=2, spares=0)
    (port,) = free_ports(1)
    path = f"{ROOT / 'hack'}{os.pathsep}{ROOT / 'operator'}"
    env = {"METRICS_PORT": str(port), "METRICS_HOST": "127.0.0.1", "PYTHONPATH": path}
    (tmp_path / "operators").mkdir()
    extra = Operators(harness.plane, tmp_path / "operators", env=env)
    try:
        extra.start("op-blind", module="localkube.scenarios.faults.egress_denied")
        said = "2 of 2 unresponsive Coreapps never answered this operator, but their kubelets report them ready\n"
        await _until(lambda: _unready(port) == said, "it says what it cannot reach")
        assert _read(port, "/healthz") == "ok\n"
    finally:
        extra.close()


# --- what the process itself does ---------------------------------------------------------------------------------------


def _sockets(process: Process) -> dict[str, str]:
    """By remote address: the inode of the established connection of this process to a Coreapp's healthcheck port."""
    own = set()
    for entry in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            own.add(os.readlink(entry))
        except OSError:
            continue  # closed meanwhile
    found = {}
    for line in Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]:
        fields = line.split()
        ip, _, port = fields[2].partition(":")
        if int(port, 16) == HEALTHCHECK_PORT and fields[3] == "01" and f"socket:[{fields[9]}]" in own:
            found[socket.inet_ntoa(bytes.fromhex(ip)[::-1])] = fields[9]
    return found


def _tethered(process: Process) -> set[str]:
    return set(_sockets(process))


def _read(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=LONG) as answer:
        text: str = answer.read().decode()
        return text


def _unready(port: int) -> str:
    """What a process says that is not ready; empty if it is."""
    try:
        _read(port, "/readyz")
    except urllib.error.HTTPError as error:
        text: str = error.read().decode()
        return text
    return ""


def _value(port: int, series: str) -> float:
    """The value of a series as it is spelt; -2 if it is not there."""
    match = re.search(rf"^{re.escape(series)} (\S+)$", _read(port, "/metrics"), flags=re.MULTILINE)
    return float(match[1]) if match else -2.0


async def _until(ask: Callable[[], object], what: str) -> None:
    """OSError: it does not listen yet."""
    await until(lambda: asyncio.to_thread(ask), what, within=LONG, pause=0.05, despite=(OSError,))
