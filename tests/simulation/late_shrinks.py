"""A write that lowers the number of Coreapps gets no answer and lands late; the shard moves to the one that is to go meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from whatsapp_operator.shell.kube.errors import Unavailable
from whatsapp_operator.shell.kube.kinds import Kind, Obj

from .apiserver import Rejected
from .kube import WRITE_LIMIT, SimKube
from .world import World

HIGH = "acme-coreapp-2"
"""The Coreapp that goes when there are two."""


class LateScale(SimKube):
    """A way to the API server on which the first write of a lower number gets no answer, and lands when it is let go."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.is_sent = asyncio.Event()
        self.land: Callable[[], object] = lambda: None

    async def patch_scale(self, kind: Kind, namespace: str | None, name: str, body: Mapping[str, Any]) -> Obj:
        if self.is_sent.is_set() or body["spec"]["replicas"] > 2:
            return await super().patch_scale(kind, namespace, name, body)
        self.land = lambda: self._server.merge(self._actor, kind, (namespace or "", name), body, scale=True)
        self.is_sent.set()
        await asyncio.sleep(WRITE_LIMIT)
        msg = "patch StatefulSet acme-coreapp: no answer"
        raise Unavailable(msg)


def ask_for_a_switchover(world: World) -> None:
    """Ask that the shard moves to the Coreapp that is to go."""
    world.annotate(switchover=f"0={HIGH}")


def lose_all_that_stay(world: World) -> None:
    """End the containers of the holder and of the standby that would be left."""
    for machine in world.coreapps():
        if machine.name[1] != HIGH:
            world.cluster.crash(machine)


async def late_shrink(world: World, move: Callable[[World], None], leaders: int) -> None:
    """Let the write land once the shard has moved, by the leader that sent it or by another process that believes to lead."""
    world.create(shards=1, spares=2)
    first, kube = world.operator_by(LateScale)
    first.lead(1)
    await world.until_done(within=120)
    await world.pause(20)
    world.edit(spares=1)
    await asyncio.wait_for(kube.is_sent.wait(), 30)
    high = next(machine for machine in world.coreapps() if machine.name[1] == HIGH)
    move(world)
    if leaders == 2:
        world.operator().lead(2)
    await world.until(lambda: world.holder(0) is high, within=10, what="moved")
    with suppress(Rejected):
        kube.land()
    await world.until_done(within=120)
