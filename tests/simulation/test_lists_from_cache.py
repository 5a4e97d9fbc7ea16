"""The failover of a holder that is deleted or refuses connections does not wait until the API server's cache is up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from whatsapp_operator.shell.kube.errors import Unavailable
from whatsapp_operator.shell.kube.kinds import POD, Kind, Obj
from whatsapp_operator.shell.objects.reading import KnownHolders
from whatsapp_operator.shell.objects.shapes import version_of

from .apiserver import Change
from .kube import SimKube
from .machines import Machine
from .world import World, simulated

WAIT = 3.0
"""Seconds that a list of objects as they are takes."""


class LateLists(SimKube):
    """A way to the API server whose lists of objects as they are wait for ``wait`` seconds; those from its cache do not."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.wait = [0.0]
        self.asked = [0]
        """How many lists from a stale cache were asked for."""

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None, *, at_least: str | None = None
    ) -> list[Obj]:
        if at_least is None:
            await asyncio.sleep(self.wait[0])
        return await super().list(kind, namespace, labels, at_least=at_least)


class StaleCache(LateLists):
    """A way to an API server whose cache is far behind: lists from it wait for ``WAIT`` seconds, and are then rejected (504)."""

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None, *, at_least: str | None = None
    ) -> list[Obj]:
        if at_least is not None:
            self.asked[0] += 1
            await asyncio.sleep(WAIT)
            msg = "list Pod default: 504 Timeout: Timeout: Too large resource version: 1900, current: 411"
            raise Unavailable(msg, code=504)
        return await super().list(kind, namespace, labels)


async def settled(world: World, way: type[LateLists] = LateLists) -> LateLists:
    """A cluster of 2 shards and 1 spare whose leader's lists of objects as they are are late from now on."""
    world.create(shards=2, spares=1)
    operator, kube = world.operator_by(way)
    operator.campaign()
    await world.until_done(within=120)
    await world.pause(40)
    kube.wait[0] = WAIT
    return kube


FAILS: dict[str, Callable[[World, Machine], None]] = {
    "deleted": lambda world, holder: world.delete_pod(holder),
    "deleted at once": lambda world, holder: world.delete_pod(holder, force=True),
    "container ends": lambda world, holder: world.cluster.crash(holder),
}


@pytest.mark.parametrize("fails", FAILS)
@pytest.mark.parametrize("seed", range(3))
@simulated()
async def test_a_holder_that_is_surely_gone_is_replaced_before_late_lists_arrive(world: World, fails: str, seed: int) -> None:
    await settled(world)
    old = world.holding(0)
    FAILS[fails](world, old)
    await world.until(lambda: world.holder(0) not in {None, old}, within=WAIT / 2, what="another holder")
    await world.until_done(within=240)


@pytest.mark.parametrize("fails", FAILS)
@pytest.mark.parametrize("seed", range(3))
@simulated()
async def test_a_new_leader_replaces_a_holder_that_is_surely_gone_before_late_lists_arrive(world: World, fails: str, seed: int) -> None:
    await settled(world)
    (first,) = world.operators
    second, kube = world.operator_by(LateLists)
    second.campaign()
    kube.wait[0] = WAIT
    await world.pause(10)
    old = world.holding(0)
    assert first.leads
    FAILS[fails](world, old)
    await first.stop()
    await world.until(lambda: world.holder(0) not in {None, old}, within=WAIT / 2, what="another holder")
    assert second.leads
    await world.until_done(within=240)


@pytest.mark.parametrize("fails", FAILS)
@pytest.mark.parametrize("seed", range(3))
@simulated()
async def test_nothing_but_the_handover_is_written_before_late_lists_arrive(world: World, fails: str, seed: int) -> None:
    await settled(world)
    written: set[str] = set()

    def note(change: Change) -> None:
        if world.laws.is_operator(change.actor):
            written.add(change.kind.kind)

    old = world.holding(0)
    world.server.checks.append(note)
    FAILS[fails](world, old)
    await world.pause(WAIT / 2)
    assert world.holder(0) not in {None, old}
    assert written <= {"Pod", "Service", "Event", "Lease"}
    await world.until_done(within=240)


@pytest.mark.parametrize("seed", range(3))
@simulated()
async def test_what_a_kubelet_says_of_a_container_is_judged_by_late_lists(world: World, seed: int) -> None:
    """An old list may show the end of a container and not what came after it. Here every holder counts as leaving."""
    await settled(world)
    (operator,) = world.operators
    assert operator._reconciler is not None
    holders = frozenset(machine.uid for machine in world.coreapps())
    old = world.holding(0)
    at = version_of(world.server.get(POD, old.name) or {})
    operator._reconciler._parts.observer.holders = lambda _: KnownHolders(uids=holders, leaving=holders, pods_at=at)
    world.cluster._report(old, {"containerStatuses": [{"name": "coreapp", "state": {"terminated": {"exitCode": 137}}}]}, ready=True)
    await world.pause(WAIT / 2)
    assert world.holder(0) is old
    await world.until_done(within=240)


@pytest.mark.parametrize("seed", range(3))
@simulated()
async def test_while_set_shards_restarts_the_coreapps_late_lists_are_waited_for(world: World, seed: int) -> None:
    """All connections end then, and no shard moves (laws#9)."""
    kube = await settled(world)
    kube.wait[0] = WAIT / 10
    before = [world.holder(shard) for shard in range(2)]
    world.edit(shards=4)
    await world.until_done(within=240)
    assert [world.holder(shard) for shard in range(2)] == before


@pytest.mark.parametrize("seed", range(3))
@simulated()
async def test_a_cache_that_is_far_behind_holds_no_failover_up_for_long(world: World, seed: int) -> None:
    """As that of one of several API servers that has lost its watch of etcd."""
    kube = await settled(world, StaleCache)
    kube.wait[0] = 0.0
    old = world.holding(0)
    world.delete_pod(old)
    await world.until(lambda: world.holder(0) not in {None, old}, within=WAIT / 2, what="another holder")
    assert kube.asked[0] > 0
    await world.until_done(within=240)
