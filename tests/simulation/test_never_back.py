"""Coreapps that never become ready hold no lower number of them up: one that goes, and all of them before anything is served (laws#7)."""

from __future__ import annotations

import pytest

from .client import Coreapp
from .machines import NOWHERE
from .world import World, simulated

SEEDS = pytest.mark.parametrize("seed", range(3))


def never_starts(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """From now on the containers of these Coreapps run and never listen, in every new pod as well."""
    start = Coreapp.start

    def refuse(self: Coreapp) -> None:
        if self.pod not in names:
            start(self)

    monkeypatch.setattr(Coreapp, "start", refuse)


@SEEDS
@simulated()
async def test_fewer_spares_do_not_wait_for_one_that_goes(world: World, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.started(shards=2, spares=3)
    never_starts(monkeypatch, "acme-coreapp-4")
    world.cluster.crash(next(machine for machine in world.coreapps() if machine.name[1] == "acme-coreapp-4"))
    await world.pause(30)
    world.edit(spares=1)
    await world.until_done(within=30)
    await world.stays_silent(60)


@pytest.mark.parametrize("broken", [("acme-coreapp-4",), ("acme-coreapp-3", "acme-coreapp-4")])
@SEEDS
@simulated()
async def test_fewer_shards_do_not_wait_for_one_that_goes(
    world: World, broken: tuple[str, ...], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with the restart by Set Shards, and does not come back from it."""
    await world.started(shards=4, spares=1)
    world.edit(shards=2)
    await world.until(lambda: world.account.shards == 2, within=60, what="set")
    never_starts(monkeypatch, *broken)
    await world.until_done(within=240)
    await world.stays_silent(60)


@pytest.mark.parametrize("webapp", ["wabiz-sim:1", f"{NOWHERE}wabiz-sim:1"])
@pytest.mark.parametrize("shards", [1, 32])
@simulated()
async def test_before_anything_is_served_a_lower_number_takes_effect_at_once(world: World, shards: int, webapp: str) -> None:
    """Otherwise a first spec that is too large could not be taken back: the Coreapps may hold the room that the Webapp needs."""
    images = {"coreapp": f"{NOWHERE}coreapp:1", "webapp": webapp}
    world.create(shards=shards, spares=3, client={"type": "Simulator", "images": images})
    world.operator().lead(1)
    await world.until(lambda: len(world.laws.pods()) == shards + 3, within=10, what="made")
    await world.pause(30)
    world.edit(shards=1, spares=1)
    await world.until(lambda: len(world.laws.pods()) == 2, within=10, what="lowered")
    world.edit(client={"images": {"coreapp": "wabiz-sim:1", "webapp": "wabiz-sim:1"}})
    await world.until_done(within=120)
    await world.stays_silent(60)
