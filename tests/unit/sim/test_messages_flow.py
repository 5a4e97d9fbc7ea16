"""Messages reach the holder of their shard, once."""

from .world import World, recipient


async def test_a_message_goes_through(world: World) -> None:
    await world.cluster(1)
    await world.serve(0, 0, "1-a")
    status, answer = await world.send(recipient(0, 1), "m1")
    assert (status, answer["messages"]) == (201, [{"id": "m1"}])
    assert (await world.control("counters"))["accepted"] == {"0": 1}
