"""Two releases that want other pods: in turn each puts right what the other wrote; at once, which the Lease forbids, each gives way."""

from __future__ import annotations

from random import Random

from .kinds import STATEFULSET
from .operators import Operator
from .schedules import ForcedLeaders, all_is_well
from .world import NAME, NAMESPACE, UnfitError, World, simulated

OTHER = "sim:0"
TURNS = 4
"""More often than a leader puts a field right that another writer changes again."""


def image(world: World) -> str:
    workload = world.server.get(STATEFULSET, (NAMESPACE, f"{NAME}-coreapp")) or {}
    return str(workload["spec"]["template"]["spec"]["containers"][0]["image"])


@simulated()
async def test_releases_that_lead_in_turn_leave_what_the_last_one_wants(world: World) -> None:
    """Each loses the Lease while its process stands still."""
    first = await world.started(shards=2, spares=1, elected=True, within=120)
    wanted = image(world)
    other = world.operator(image=OTHER)
    other.campaign()
    await world.pause(20)

    async def take_over(one: Operator, successor: Operator) -> str:
        one.pause(25.0)
        await world.until(lambda: successor.leads, within=40, what="the other release leads")
        await world.pause(15)
        return image(world)

    for _ in range(TURNS):
        assert await take_over(first, other) != wanted
        assert await take_over(other, first) == wanted
    other.kill()
    await world.until_done()
    await world.stays_silent(60.0)


@simulated(2)
async def test_a_leader_that_gave_way_to_another_release_is_followed_by_one_that_does_not(world: World) -> None:
    """It takes the other release for a controller that insists, and leaves what that wrote as it is for as long as it leads."""
    world.create(shards=2, spares=1)
    other = world.operator(image=OTHER)
    other.lead(1)
    await world.until_done(within=120)
    crew = ForcedLeaders(world, Random(1))
    await crew.upset()
    assert len(world.living()) == 2
    await world.pause(20)
    other.kill()
    await world.pause(30)
    if world.condition("Stalled")[1] != "ChangedByAdmission":
        raise UnfitError  # the other release gave way first
    all_is_well(world)
    crew.recover()
    await world.until_done()
    await world.stays_silent(60.0)
