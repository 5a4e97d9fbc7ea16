"""Plain stories without accidents: what a simulation tells when all goes well."""

from __future__ import annotations

from .world import World, simulate


def test_a_cluster_is_created_serves_and_falls_silent() -> None:
    async def story(world: World) -> None:
        world.create(shards=2)
        world.operator().campaign()
        await world.until_done(within=120)
        await world.stays_silent()

    world = simulate(story)
    assert world.account.restarts == 1
