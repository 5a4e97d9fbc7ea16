"""The judge of the number of Coreapps: which numbers of shards an operator may go by when it raises it (laws#4)."""

from __future__ import annotations

import pytest

from .kinds import STATEFULSET, WAC
from .laws import OBSERVED_FOR
from .world import NAME, NAMESPACE, World, simulated

COREAPPS = (NAMESPACE, f"{NAME}-coreapp")


@pytest.mark.parametrize(("later", "laws"), [(OBSERVED_FOR - 0.1, []), (OBSERVED_FOR + 0.1, ["4"])])
@simulated()
async def test_replicas_are_raised_by_a_number_that_stood_in_status_just_before(world: World, later: float, laws: list[str]) -> None:
    """One of two leaders has not asked the client yet. It reads four settled shards just before the other one settles two."""
    leader = await world.started(shards=2, spares=1)
    leader.kill()
    for settled in (4, 2):
        world.server.merge("user", WAC, (NAMESPACE, NAME), {"status": {"settledShards": settled}}, status=True)
    await world.pause(later)
    read = world.server.get(STATEFULSET, COREAPPS)
    assert read is not None
    body = {"metadata": {"resourceVersion": read["metadata"]["resourceVersion"]}, "spec": {"replicas": 5}}
    world.server.merge("operator-0", STATEFULSET, COREAPPS, body)
    found = [law for law, _ in world.laws.broken]
    world.laws.broken.clear()
    assert found == laws
