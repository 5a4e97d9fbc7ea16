"""A simulated watch tells its events in the order in which they happened, as a real one does."""

from __future__ import annotations

from .kinds import NODE
from .streams import Stream
from .world import World, simulated


@simulated()
async def test_events_that_a_late_one_holds_up_come_in_their_order(world: World) -> None:
    """All of them are due in the same instant then, and timers of one instant have no order."""
    name = next(iter(world.cluster.node_pool.nodes))
    lags = iter([1.0, *[0.0] * 30])
    stream = Stream(world.server, NODE, None, labels=None, name=name, lag=lambda: next(lags), is_broken=lambda: False)
    stream.open(str(world.server.revision))
    for number in range(30):
        world.server.merge("user", NODE, ("", name), {"metadata": {"labels": {"example.com/number": str(number)}}})

    heard = [await stream.next() for _ in range(30)]

    assert [event[1]["metadata"]["labels"]["example.com/number"] for event in heard if event is not None] == [*map(str, range(30))]
    stream.close()
