"""A shrink moves shards to low ordinals; one that is served leaves its holder only for a Coreapp that can serve it at once."""

from __future__ import annotations

import pytest

from .apiserver import Change
from .client import Coreapp
from .kinds import POD, SERVICE, is_ready
from .laws import HOLDER
from .world import NAME, NAMESPACE, UnfitError, World, simulated


def note_moves(world: World) -> list[str]:
    """Keep what each move of a shard from now on is like."""
    found: list[str] = []

    def note(change: Change) -> None:
        names = [((obj or {}).get("metadata", {}).get("annotations") or {}).get(HOLDER, "") for obj in (change.before, change.after)]
        old, new = (world.cluster.machines.get(name.partition("/")[2]) for name in names)
        if change.kind is SERVICE and names[0] != names[1] and old is not None and new is not None:
            is_served = any(connection.uid == old.uid for connection in world.account.connections.values())
            knows = new.coreapp is not None and new.coreapp.shards == world.account.shards
            found.append(f"{change.name[1]}: {'served' if is_served else 'not served'}, to one that {'knows' if knows else 'waits'}")

    world.server.checks.append(note)
    return found


@pytest.mark.parametrize("seed", range(3))
@simulated()
async def test_a_served_shard_moves_to_no_coreapp_that_does_not_know_the_number_of_shards_yet(world: World, seed: int) -> None:
    """Coreapps come back from the restart one by one, and each knows the number a moment after it listens."""
    await world.started(shards=32, spares=1)
    await world.pause(30)
    found = note_moves(world)
    world.edit(shards=16)
    await world.until_done()
    assert found, "shards are moved down"
    assert [move for move in found if move.endswith(": served, to one that waits")] == []


@pytest.mark.parametrize("is_named", [False, True])
@simulated(8)
async def test_a_requested_move_waits_until_the_standby_knows_the_number_of_shards(world: World, is_named: bool) -> None:
    """The only standby has just started when the move is requested. It is moved once it can be served there."""
    operator = await world.started(shards=2, spares=1)
    await world.pause(30)
    found = note_moves(world)
    standby = next(machine for machine in world.coreapps() if machine not in {world.holder(0), world.holder(1)})
    world.cluster.crash(standby)
    await world.until(lambda: not is_ready(world.server.get(POD, standby.name) or {}), within=60, what="its end is noticed")
    await world.until(lambda: is_ready(world.server.get(POD, standby.name) or {}), within=60, what="it is ready again")
    while (heard := operator.hears(standby.uid)) is None:
        await world.pause(0.01)
    if heard.shards is not None:
        raise UnfitError
    world.annotate(switchover=f"0={standby.name[1]}" if is_named else "0")
    await world.until(lambda: world.holder(0) is standby, within=10, what="the shard is moved")
    assert found == ["acme-shard-0: served, to one that knows"]


@simulated()
async def test_a_requested_move_that_waits_holds_nothing_else_up(world: World) -> None:
    """The only standby learns no number of shards: what it asks is away. That may be just what the operator has to make again."""
    operator = await world.started(shards=2, spares=1)
    standby = next(machine for machine in world.coreapps() if machine not in {world.holder(0), world.holder(1)})
    registered = Coreapp._registered
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(Coreapp, "_registered", lambda coreapp, life: None if coreapp.uid == standby.uid else registered(coreapp, life))
        world.cluster.crash(standby)
        await world.until(
            lambda: (heard := operator.hears(standby.uid)) is not None and heard.shards is None, within=60, what="it is heard"
        )
        await world.until(lambda: is_ready(world.server.get(POD, standby.name) or {}), within=60, what="it is ready again")
        world.annotate(switchover="0")
        world.server.delete("user", SERVICE, (NAMESPACE, f"{NAME}-webapp"))
        await world.until(lambda: world.server.get(SERVICE, (NAMESPACE, f"{NAME}-webapp")) is not None, within=60, what="it is made again")
        await world.until(lambda: "to learn the number of shards" in world.condition("Reconciling")[2], within=10, what="it is said")
        assert world.holding(0) is not standby
    assert standby.coreapp is not None
    registered(standby.coreapp, standby.coreapp._life)
    await world.until(lambda: world.holder(0) is standby, within=30, what="the shard is moved")
    await world.until_done()
