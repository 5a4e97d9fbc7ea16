"""Writes that get no answer, as from a webhook that hangs for some objects: no failover of a pod that is gone waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from whatsapp_operator.shell.kube.errors import Unavailable
from whatsapp_operator.shell.kube.kinds import Kind

from .kinds import DEPLOYMENT, SERVICE
from .kube import WRITE_LIMIT, SimKube
from .test_events_unanswered import fail_over
from .world import NAME, NAMESPACE, World, simulated

T = TypeVar("T")


class Unanswered(SimKube):
    """A way to the API server on which some writes get no answer: those whose verb, kind and name begin with ``hangs``."""

    hangs: str | None = None
    waiting = 0

    async def _write(self, what: str, kind: Kind, name: str, touch: Callable[[], None] | None, do: Callable[[], T]) -> T:
        said = f"{what} {kind.kind} {name}"
        if self.hangs is None or not said.startswith(self.hangs):
            return await super()._write(what, kind, name, touch, do)
        self.waiting += 1
        try:
            await asyncio.sleep(WRITE_LIMIT)
        finally:
            self.waiting -= 1
        msg = f"{said}: no answer"
        raise Unavailable(msg)


def edit_the_service(world: World) -> None:
    world.server.merge("user", SERVICE, (NAMESPACE, f"{NAME}-webapp"), {"spec": {"ports": []}})


def edit_the_deployment(world: World) -> None:
    world.server.merge("user", DEPLOYMENT, (NAMESPACE, f"{NAME}-webapp"), {"spec": {"replicas": 3}})


def want_one_more(world: World) -> None:
    world.edit(spares=3)


async def hanging(
    world: World, client: type[Unanswered], hangs: str, change: Callable[[World], None], *, shards: int, spares: int
) -> Unanswered:
    """Settle a cluster, and make a change of which one write hangs."""
    operator, kube = world.operator_by(client)
    world.create(shards=shards, spares=spares)
    operator.lead(1)
    await world.until_done()
    await world.pause(30)
    kube.hangs = hangs
    change(world)
    await world.until(lambda: kube.waiting > 0, within=10, what="the write hangs")
    return kube


CASES: dict[str, tuple[str, Callable[[World], None]]] = {
    "a Service": ("replace Service", edit_the_service),
    "the Deployment": ("replace Deployment", edit_the_deployment),
    "the number of Coreapps": ("patch StatefulSet", want_one_more),
    "the status": ("status WhatsAppCluster", want_one_more),
}


@pytest.mark.parametrize(("hangs", "change"), CASES.values(), ids=CASES)
@simulated(3)
async def test_no_failover_waits_for_another_write_of_its_cluster(world: World, hangs: str, change: Callable[[World], None]) -> None:
    kube = await hanging(world, Unanswered, hangs, change, shards=4, spares=2)
    for shard in range(2):
        await world.until(lambda: kube.waiting > 0, within=10, what="the write hangs")
        await fail_over(world, shard)
    kube.hangs = None
    await world.until_done()


class LosesTheReport(Unanswered):
    """The same, and labels of pods take a while. A report gets its error while they are being written."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.prepares = asyncio.Event()

    async def _write(self, what: str, kind: Kind, name: str, touch: Callable[[], None] | None, do: Callable[[], T]) -> T:
        if self.hangs is not None and kind.kind == "Pod":
            self.prepares.set()
            await asyncio.sleep(0.3)
        if self.hangs is None or kind.kind != "WhatsAppCluster":
            return await super()._write(what, kind, name, touch, do)
        self.waiting += 1
        await self.prepares.wait()
        await asyncio.sleep(0.25)
        msg = f"{what} {name}: no answer"
        raise Unavailable(msg)


@simulated()
async def test_a_write_that_fails_ends_no_failover(world: World) -> None:
    kube = await hanging(world, LosesTheReport, "status", want_one_more, shards=2, spares=2)
    machine = world.holding(0)
    world.delete_pod(machine)
    took = await world.until(lambda: world.holder(0) not in (machine, None), within=10, what="replaced")
    assert took < 0.4
    kube.hangs = None
    await world.until_done()


@simulated(3)
async def test_no_failover_of_a_new_holder_waits_for_another_write(world: World) -> None:
    kube = await hanging(world, Unanswered, "replace Service", edit_the_service, shards=2, spares=3)
    for _ in range(3):
        await fail_over(world, 0)
        await world.pause(0.1)
    kube.hangs = None
    await world.until_done()
