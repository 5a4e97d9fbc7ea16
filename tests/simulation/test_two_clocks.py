"""Two replicas whose clocks are an hour apart: the times of one intent are written once by each leader, not in turn."""

from __future__ import annotations

from .apiserver import Change
from .client import CallOutcome
from .kinds import WAC
from .world import World, simulated


@simulated(3)
async def test_a_leader_that_stood_still_does_not_write_its_times_again(world: World) -> None:
    """The answer is unknown, so the intent stands until its time is over. Each process reads its times on a clock of its own."""
    first = await world.started(shards=2, spares=1, elected=True)
    await world.pause(20)
    other = world.operator()
    other.machine.step(first.clock.wall().timestamp() - other.clock.wall().timestamp() + 3600.0)
    other.campaign()
    await world.pause(5)
    times: list[tuple[str, str]] = []

    def note(change: Change) -> None:
        operation = ((change.after or {}).get("status") or {}).get("operation") if change.kind is WAC else None
        if operation and times[-1:] != [(change.actor, operation["startedAt"])]:
            times.append((change.actor, operation["startedAt"]))

    world.server.checks.append(note)
    world.account.call_outcomes.append(CallOutcome(kind="timeout", applied=None))
    world.edit(shards=4)
    await world.until(lambda: bool(times), within=60, what="an intent is noted")
    first.pause(8)
    await world.pause(20)
    assert [actor for actor, _ in times] == [first.name, other.name]
    assert len({at for _, at in times}) == 2
