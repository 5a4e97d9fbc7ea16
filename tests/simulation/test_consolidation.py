"""A shrink moves shards to low ordinals; one that is served leaves its holder only for a Coreapp that can serve it at once."""

from __future__ import annotations

import pytest

from .apiserver import Change
from .kinds import SERVICE
from .laws import HOLDER
from .world import World, simulated


@pytest.mark.parametrize("seed", range(3))
@simulated()
async def test_a_served_shard_moves_to_no_coreapp_that_does_not_know_the_number_of_shards_yet(world: World, seed: int) -> None:
    """Coreapps come back from the restart one by one, and each knows the number a moment after it listens."""
    await world.started(shards=32, spares=1)
    await world.pause(30)
    found: list[str] = []

    def note(change: Change) -> None:
        names = [((obj or {}).get("metadata", {}).get("annotations") or {}).get(HOLDER, "") for obj in (change.before, change.after)]
        old, new = (world.cluster.machines.get(name.partition("/")[2]) for name in names)
        if change.kind is SERVICE and names[0] != names[1] and old is not None and new is not None:
            is_served = any(connection.uid == old.uid for connection in world.account.connections.values())
            knows = new.coreapp is not None and new.coreapp.shards == world.account.shards
            found.append(f"{change.name[1]}: {'served' if is_served else 'not served'}, to one that {'knows' if knows else 'waits'}")

    world.server.checks.append(note)
    world.edit(shards=16)
    await world.until_done()
    assert found, "shards are moved down"
    assert [move for move in found if move.endswith(": served, to one that waits")] == []
