"""The probes that Webapps and the simulator's upstream are given: a fault of the database ends none of them, a process that hangs fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wabiz_sim.process import Process
from whatsapp_operator.core import manifests
from whatsapp_operator.core.desired import Desired
from whatsapp_operator.core.names import Key

from .postgres_server import PostgresServer
from .world import World

WANT = Desired(key=Key("default", "acme"), uid="u", generation=1, client="Simulator", shards=1)
DATABASE_START = 60.0
"""Seconds for which the upstream waits for its database before it ends itself."""


def container(kind: str, name: str) -> dict[str, Any]:
    objects = manifests.upkeep(WANT, webapp_replicas=2, resharding=False, is_first_boot=False, is_unused=False)
    workload = next(obj for obj in objects if (obj["kind"], obj["metadata"]["name"]) == (kind, name))
    one: dict[str, Any] = workload["spec"]["template"]["spec"]["containers"][0]
    return one


WEBAPP, UPSTREAM = container("Deployment", "acme-webapp"), container("StatefulSet", "acme-simulator")


async def probed(world: World, address: str, probe: dict[str, Any], within: float | None = None) -> bool:
    """Whether one attempt of a probe succeeds, as a kubelet makes it; ``within`` other seconds than the probe says."""
    how = probe["httpGet"]
    url = f"{how['scheme'].lower()}://{address}:{how['port']}{how['path']}"
    try:
        async with asyncio.timeout(within or probe["timeoutSeconds"]), world.session.get(url) as response:
            return 200 <= response.status < 400
    except (TimeoutError, OSError):
        return False


async def test_without_an_upstream_a_webapp_is_alive(world: World) -> None:
    await world.webapp()
    assert await probed(world, world.address(200), WEBAPP["livenessProbe"])


@pytest.mark.slow
async def test_without_its_database_the_upstream_is_alive_and_so_is_a_webapp(world: World, postgres: PostgresServer, prefix: str) -> None:
    await world.cluster(0, **{**postgres.environment(prefix=prefix), "WABIZ_STATE_DIR": ""})
    await asyncio.to_thread(postgres.stop)
    try:
        assert (await world.api("GET", "/v1/account/shards"))[0] == 503
        assert await probed(world, world.address(250), UPSTREAM["livenessProbe"])
        assert await probed(world, world.address(200), WEBAPP["livenessProbe"])
    finally:
        await asyncio.to_thread(postgres.start)


@pytest.mark.parametrize("which", ["webapp", "upstream"])
async def test_a_process_that_hangs_is_not_alive(world: World, which: str) -> None:
    process: Process = await (world.webapp() if which == "webapp" else world.upstream())
    address, one = (world.address(200), WEBAPP) if which == "webapp" else (world.address(250), UPSTREAM)
    assert await probed(world, address, one["livenessProbe"])
    process.hang()
    assert not await probed(world, address, one["livenessProbe"], within=0.3)
    process.resume()
    assert await probed(world, address, one["livenessProbe"])


@pytest.mark.parametrize("one", [WEBAPP, UPSTREAM], ids=["webapp", "upstream"])
def test_a_container_is_ended_only_after_most_of_a_minute_without_an_answer(one: dict[str, Any]) -> None:
    probe = one["livenessProbe"]
    assert probe["periodSeconds"] * (probe["failureThreshold"] - 1) >= 45


def test_an_upstream_that_waits_for_its_database_ends_itself_before_the_kubelet_does() -> None:
    probe = UPSTREAM["startupProbe"]
    assert probe["periodSeconds"] * (probe["failureThreshold"] - 1) >= 2 * DATABASE_START


def test_a_coreapp_has_no_liveness_probe() -> None:
    """The operator moves its shard first and then ends it; a kubelet would do it the other way round."""
    assert "livenessProbe" not in container("StatefulSet", "acme-coreapp")
