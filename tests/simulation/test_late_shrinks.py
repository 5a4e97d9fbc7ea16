"""A write that lowers the number of Coreapps lands late: none that has become a holder meanwhile may go by it (laws#7)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .late_shrinks import ask_for_a_switchover, late_shrink, lose_all_that_stay
from .laws import ROLE
from .world import World, simulated

SEEDS = 3
MOVES: dict[str, Callable[[World], None]] = {"requested": ask_for_a_switchover, "failover": lose_all_that_stay}


@pytest.mark.parametrize(("move", "leaders"), [("requested", 1), ("requested", 2), ("failover", 2)])
@simulated(SEEDS)
async def test_a_late_shrink_takes_no_coreapp_that_has_become_a_holder(world: World, move: str, leaders: int) -> None:
    """One leader gets no answer and goes on; or another process believes to lead meanwhile."""
    await late_shrink(world, MOVES[move], leaders)


@simulated(SEEDS)
async def test_a_shrink_that_is_given_up_leaves_no_mark(world: World) -> None:
    """The leader is killed just after it has marked those that go, and they are wanted again when the next one leads."""
    first = await world.started(shards=1, spares=2)
    await world.pause(20)

    def end_before_the_write(what: str) -> None:
        if what.startswith("patch StatefulSet"):
            world.edit(spares=2)
            first.kill()

    first.before_a_write(end_before_the_write)
    world.edit(spares=0)
    await world.until(lambda: first.dead, within=30, what="the leader was ended")
    assert [pod["metadata"]["labels"][ROLE] for pod in world.laws.pods()] == ["active", "retiring", "retiring"]
    world.operator().lead(2)
    await world.until_done(within=60)
    assert len(world.coreapps()) == 3
    await world.stays_silent(60.0)
