"""Events that get no answer: nothing that a user needs waits for them, and each tells when its cause was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from whatsapp_operator.shell.kube.errors import Unavailable
from whatsapp_operator.shell.kube.kinds import Kind

from .kube import WRITE_LIMIT, SimKube
from .world import World, simulated

T = TypeVar("T")


class WithoutEvents(SimKube):
    """A way to the API server on which Events get no answer: their etcd is another one, and it is full or away."""

    is_away = False

    async def _write(self, what: str, kind: Kind, name: str, touch: Callable[[], None] | None, do: Callable[[], T]) -> T:
        if kind.kind == "Event" and self.is_away:
            await asyncio.sleep(WRITE_LIMIT)
            msg = f"{what} {kind.kind}: no answer"
            raise Unavailable(msg)
        return await super()._write(what, kind, name, touch, do)


async def settled(world: World, **spec: int) -> WithoutEvents:
    operator, kube = world.operator_by(WithoutEvents)
    world.create(**spec)
    operator.lead(1)
    await world.until_done()
    return kube


@simulated(3)
async def test_no_failover_waits_for_an_event_of_the_one_before(world: World) -> None:
    kube = await settled(world, shards=4, spares=3)
    await world.pause(30)
    kube.is_away = True
    for shard in range(3):
        await fail_over(world, shard)
        await world.pause(0.1)
    kube.is_away = False
    await world.until_done()


async def fail_over(world: World, shard: int) -> None:
    machine = world.holding(shard)
    world.delete_pod(machine)
    took = await world.until(lambda: world.holder(shard) not in (machine, None), within=10, what="replaced")
    assert took < 0.2


@simulated()
async def test_an_event_that_comes_late_has_the_time_of_its_cause(world: World) -> None:
    kube = await settled(world, shards=2, spares=1)
    await world.pause(30)
    kube.is_away = True
    await fail_over(world, 0)
    at = world.living()[0].clock.wall()
    await world.until_done()
    await world.pause(60)
    world.server.events.clear()
    kube.is_away = False
    emitted = ["HandedOver", "ReplacingPods"]
    found = world.server.events
    await world.until(lambda: {*emitted} <= {one["reason"] for one in found}, within=240, what="both are there")
    assert max(abs(datetime.fromisoformat(one["eventTime"]) - at) for one in found) < timedelta(seconds=1)
    assert [one["reason"] for one in found if one["reason"] in emitted] == emitted
    await world.stays_silent(600)
