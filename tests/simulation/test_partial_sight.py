"""Operators that see only part of the world, in the simulation. The judge here counts pods and deletions by itself."""

from __future__ import annotations

import pytest

from whatsapp_operator.shell.kube import POD

from .apiserver import Change
from .world import World, simulate

SEEDS = 5


class Harm:
    """Notes which pods operators delete, and how many of them are gone at a time without a ready successor."""

    def __init__(self, world: World) -> None:
        self.deleted: list[str] = []
        self.most = 0
        self._missing: set[str] = set()
        self._is_operator = world.laws.is_operator
        world.server.checks.append(self._check)

    def _check(self, change: Change) -> None:
        if change.kind is not POD:
            return
        name = change.name[1]
        if change.verb == "delete" and self._is_operator(change.actor):
            self.deleted.append(name)
            self._missing.add(name)
        elif change.after is not None and "deletionTimestamp" not in change.after["metadata"]:
            conditions = (change.after.get("status") or {}).get("conditions") or ()
            if any(one["type"] == "Ready" and one["status"] == "True" for one in conditions):
                self._missing.discard(name)
        self.most = max(self.most, len(self._missing))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_leader_that_starts_where_it_reaches_no_coreapp_ends_none(seed: int) -> None:
    async def story(world: World) -> None:
        world.create(shards=4, spares=2)
        first = world.operator()
        first.campaign()
        await world.until_done(within=120)
        harm, handovers = Harm(world), len(world.laws.handovers)
        first.kill()
        second = world.operator()
        second.cut([*world.cluster.park.nodes])
        second.campaign()
        await world.pause(90)
        assert (harm.deleted, len(world.laws.handovers)) == ([], handovers)
        second.cut(())
        await world.until_done(within=120)
        assert harm.deleted == []

    simulate(story, seed)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_leader_that_reaches_only_one_node_ends_nothing_on_the_others(seed: int) -> None:
    async def story(world: World) -> None:
        world.create(shards=4, spares=2)
        first = world.operator()
        first.campaign()
        await world.until_done(within=120)
        harm = Harm(world)
        first.kill()
        second = world.operator()
        second.cut([*world.cluster.park.nodes][1:])
        second.campaign()
        await world.pause(90)
        assert harm.deleted == []

    simulate(story, seed)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_first_install_that_the_operator_cannot_reach_is_no_endless_loop(seed: int) -> None:
    async def story(world: World) -> None:
        world.create(shards=2, spares=1)
        operator = world.operator()
        operator.cut([*world.cluster.park.nodes])
        operator.campaign()
        harm = Harm(world)
        await world.pause(120)
        assert harm.deleted == []
        operator.cut(())
        await world.until_done(within=180)

    simulate(story, seed)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_many_that_hang_at_once_are_ended_one_after_the_other(seed: int) -> None:
    """One node, so that there is no majority of nodes to doubt by: the evidence stands, and the harm is bounded all the same."""

    async def story(world: World) -> None:
        world.create(shards=4, spares=2)
        world.operator().campaign()
        await world.until_done(within=120)
        await world.pause(20)
        harm = Harm(world)
        for machine in world.coreapps()[:3]:
            world.cluster.hang(machine)
        await world.until_done(within=300)
        assert harm.deleted, "what hangs is ended"
        assert harm.most <= 2

    simulate(story, seed)
