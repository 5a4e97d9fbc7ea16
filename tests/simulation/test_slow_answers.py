"""The API server and the client answer, but slowly. What is asked for is done all the same, and no law is bent for it."""

from __future__ import annotations

import pytest

from .world import World, simulated


@pytest.mark.parametrize("slow", ["API server", "client", "both"])
@pytest.mark.parametrize("seed", range(3))
@simulated()
async def test_set_shards_is_sent_however_slow_the_answers_are(world: World, slow: str, seed: int) -> None:
    """The number of shards and the Secrets have to be of now when the call is sent. That may not mean that it never is."""
    await world.started(shards=2, spares=1, elected=True, within=120)
    world.network.slow = 1.0 if slow in {"API server", "both"} else 0.0
    world.api_slow = 1.0 if slow in {"client", "both"} else 0.0
    world.edit(shards=4)
    await world.until(lambda: world.account.shards == 4, within=120, what="Set Shards is sent")
    world.network.clear()
    world.api_slow = 0.0
    await world.until_done(within=120)
