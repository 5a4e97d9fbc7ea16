"""The judge of the number of Coreapps: which numbers of shards an operator goes by (laws#4)."""

from __future__ import annotations

import pytest

from .apiserver import stamp
from .kinds import STATEFULSET, WAC
from .laws import OBSERVED_FOR, UNSEEN_FOR
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
    assert judged(world, replicas=5) == laws


@pytest.mark.parametrize("answer", ["Unknown", "Accepted"])
@pytest.mark.parametrize(("later", "laws"), [(-1.1, ["4"]), (0.1, [])])
@simulated()
async def test_an_intent_counts_until_its_time_is_over(world: World, answer: str, later: float, laws: list[str]) -> None:
    """GET reports another number than the intent's: of an accepted one, because another party has changed it since."""
    leader = await world.started(shards=2, spares=3)
    await world.pause(20)
    world.edit(spares=1)
    leader.kill()
    began = world.laws.now()
    intent = {"id": "4-x", "to": 4, "leaderEpoch": 1, "answer": answer, "startedAt": stamp(began), "settleBy": stamp(began)}
    world.server.merge("user", WAC, (NAMESPACE, NAME), {"status": {"operation": intent}}, status=True)
    world.laws.broken.clear()
    await world.pause(world.laws.settles_after.total_seconds() + later)
    assert judged(world, replicas=3) == laws


@pytest.mark.parametrize(("later", "laws"), [(UNSEEN_FOR - 0.1, []), (UNSEEN_FOR + 0.1, ["7"])])
@simulated()
async def test_replicas_are_lowered_just_after_another_party_began_a_restart(world: World, later: float, laws: list[str]) -> None:
    """The operator had observed the Coreapps before that; a moment later it must have noticed."""
    leader = await world.started(shards=4, spares=3)
    await world.pause(20)
    world.edit(spares=1)
    leader.kill()
    world.account.set_shards(2)
    world.laws.broken.clear()
    await world.pause(later)
    assert judged(world, replicas=5) == laws


def judged(world: World, *, replicas: int) -> list[str]:
    """The laws of numbers that are broken by an operator's write of so many replicas."""
    read = world.server.get(STATEFULSET, COREAPPS)
    assert read is not None
    body = {"metadata": {"resourceVersion": read["metadata"]["resourceVersion"]}, "spec": {"replicas": replicas}}
    world.server.merge("operator-0", STATEFULSET, COREAPPS, body)
    found = [law for law, _ in world.laws.broken if law in {"4", "7"}]
    world.laws.broken.clear()
    return found
