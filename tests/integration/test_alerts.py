"""A real Prometheus scrapes a real operator: nothing fires while all is well, and what is wrong fires and ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from localkube.errors import LocalKubeError
from localkube.monitoring.alerts import ALERTS
from localkube.monitoring.server import PrometheusServer
from localkube.plane.controlplane import free_ports
from localkube.plane.operators import Operators
from localkube.plane.processes import stop
from localkube.programs.prometheus import prometheus
from waiting import until

from .environment import LONG, Environment, Harness

pytestmark = pytest.mark.integration


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PrometheusServer]:
    """Prometheus without targets; alerts fire without waiting."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            program = prometheus(os.environ)["prometheus"]
    except LocalKubeError as error:
        pytest.skip(f"lane Prometheus: {error}")
    one = PrometheusServer(tmp_path / "prometheus", interval="1s", hold="0s")
    process = one.start(program)
    try:
        yield one
    finally:
        stop([process])


async def test_alerts_of_a_real_operator(harness: Harness, environment: Environment, server: PrometheusServer, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    env = {"SETTLE_GRACE_SECONDS": "2", "METRICS_PORT": str(port), "METRICS_HOST": "127.0.0.1"}
    (tmp_path / "operators").mkdir()
    extra = Operators(harness.plane, tmp_path / "operators", env=env)
    of = f'namespace="{environment.namespace}",name="acme"'
    try:
        await _until(lambda: "WhatsAppOperatorDown" in firing(server), "no operator is scraped")
        extra.start("op-observed")
        await asyncio.to_thread(harness.end_replicas)
        server.scrape("op-observed", port)
        await environment.created(shards=2, spares=1)
        await _until(lambda: value(server, f'multiconnect_condition{{{of},type="Ready",status="True"}}') == 1, "it is scraped as Ready")
        await _until(lambda: not firing(server), "no alert fires while all is well")

        account = environment.account(secretRef={"name": "missing"})
        await environment.create("second", shards=1, spares=0, account=account)
        stalled = await _until(lambda: firing(server).get("WhatsAppClusterStalled"), "the cluster without its Secret fires")
        assert [(one["namespace"], one["name"], one["severity"]) for one in stalled or ()] == [
            (environment.namespace, "second", "critical")
        ]
        await environment.kubectl("delete", "wac", "second", "--wait=false")
        await _until(lambda: "WhatsAppClusterStalled" not in firing(server), "the alert ends with its cluster")
        assert value(server, f'multiconnect_reason{{namespace="{environment.namespace}",name="second"}}') is None

        extra.close()
        await _until(lambda: "WhatsAppOperatorDown" in firing(server), "the operator is missed")
        assert firing(server).keys() <= {alert.name for alert in ALERTS}
    finally:
        extra.close()
        await asyncio.to_thread(harness.ensure_replicas)


async def _until(ask: Callable[[], object], what: str) -> Any:
    return await until(lambda: asyncio.to_thread(ask), what, within=LONG, pause=0.2, despite=(httpx.HTTPError,))


def firing(server: PrometheusServer) -> dict[str, list[dict[str, str]]]:
    """The labels of all alerts that fire, by the name of the alert."""
    found: dict[str, list[dict[str, str]]] = {}
    for alert in server.ask("/api/v1/alerts").json()["data"]["alerts"]:
        if alert["state"] == "firing":
            found.setdefault(alert["labels"]["alertname"], []).append(alert["labels"])
    return found


def value(server: PrometheusServer, expr: str) -> float | None:
    """The value of an expression now: of its first series; None if it has none."""
    result = server.ask("/api/v1/query", query=expr).json()["data"]["result"]
    return float(result[0]["value"][1]) if result else None
