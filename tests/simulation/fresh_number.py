"""Another party, or another leader, changes the number of shards right after a leader has asked for it, and the leader hears no later one.

The restart is shorter than the time for which a number is fresh: all Coreapps are back before the number is too old.
"""

from __future__ import annotations

from collections.abc import Callable

from whatsapp_operator.core.names import Key

from .operators import Operator
from .world import NAME, NAMESPACE, World

KEY = Key(NAMESPACE, NAME)

PAUSE = 4.0
"""Seconds for which a leader stands still: longer than the restart, and not as long as a number is fresh."""


async def held_before_a_growth(world: World) -> Operator:
    """Two shards are to become four, there are Coreapps enough for that, and changes are held; return the leader."""
    world.account.restart_seconds = 1.0
    leader = await world.started(shards=2, spares=2)
    await world.pause(20)
    world.edit(shards=4, spares=0, paused=True)
    return leader


def when_asked(world: World, do: Callable[[], object]) -> None:
    """Do this right after the client has answered the next GET; from then on it answers none."""
    asked = world.laws.asked

    def once(sent_at: float, shards: int) -> None:
        asked(sent_at, shards)
        world.api_faults = 1.0
        world.laws.asked = asked  # type: ignore[method-assign]
        world.loop.call_later(0.05, do)

    world.laws.asked = once  # type: ignore[method-assign]


async def goes_on(world: World) -> None:
    """Once all Coreapps run with four shards, changes are held no more; the client answers when any number of before is too old."""
    coreapps = world.coreapps
    await world.until(
        lambda: [one.coreapp.shards for one in coreapps() if one.coreapp is not None] == [4] * 4, within=60, what="back with four shards"
    )
    world.edit(paused=False)
    await world.pause(5)
    world.api_faults = 0.0
    await world.until_done(within=120)
    assert world.account.restarts == 2, "one for each change of the number"


async def changed_by_another_party(world: World) -> None:
    """It sets just the number that the user wants."""
    await held_before_a_growth(world)
    when_asked(world, lambda: world.account.set_shards(4))
    await goes_on(world)


async def changed_while_the_leader_stood_still(world: World) -> None:
    """The restart begins and ends meanwhile, so the leader observes no end of a connection."""
    leader = await held_before_a_growth(world)

    def stand_still() -> None:
        leader.pause(PAUSE)
        world.account.set_shards(4)

    when_asked(world, stand_still)
    await goes_on(world)


async def changed_by_another_leader(world: World) -> None:
    """Two processes believe to lead. The one that has just asked stands still while the other calls Set Shards and settles it."""
    leaders = [await held_before_a_growth(world), world.operator()]
    leaders[1].lead(2)
    # Otherwise the old number would count as another party's, which is only reported.
    world.edit(reshard={"drift": "Repair"})
    await world.pause(5)

    def stand_still() -> None:
        max(leaders, key=lambda one: one.asked_at(KEY)).pause(PAUSE)
        world.api_faults = 0.0
        world.edit(paused=False)
        world.loop.call_later(PAUSE - 0.1, setattr, world, "api_faults", 1.0)

    when_asked(world, stand_still)
    await goes_on(world)
