"""The operator is killed before and after every single write of a scenario, and around the call to Set Shards; a new one finishes.

A scenario is played once. At each of its writes a copy of the process is made in which the operator is killed, so that what came before it
need not be simulated again for each kill. A simulation has neither threads nor sockets: the copy goes on exactly as the scenario would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from .client import CallOutcome
from .copies import Copies
from .operators import Operator
from .world import World, simulate

Step = Callable[[World], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class CrashScenario:
    """What was there, what is then asked for, and how many restarts of the client that may cost."""

    name: str
    shards: int
    restarts: int
    ask: Step
    from_the_start: bool = False

    def __str__(self) -> str:
        return self.name


async def nothing(_: World) -> None:
    """The creation itself is what is asked for."""


async def lose_a_holder(world: World) -> None:
    machine = world.holding(0)
    world.delete_pod(machine)


async def crash_a_holder(world: World) -> None:
    machine = world.holding(0)
    world.cluster.crash(machine)
    await world.until(lambda: bool(world.undone()), within=10, what="noticed")


async def grow(world: World) -> None:
    world.edit(shards=2)
    await world.until(lambda: world.account.shards == 2 and not world.undone(), within=240, what="2 shards")
    world.edit(shards=4)


async def shrink(world: World) -> None:
    world.edit(shards=1)


async def switch_over(world: World) -> None:
    world.annotate(switchover="0")


SCENARIOS = (
    CrashScenario("create", 2, 1, nothing, from_the_start=True),
    CrashScenario("holder-deleted", 2, 0, lose_a_holder),
    CrashScenario("holder-crashed", 2, 0, crash_a_holder),
    CrashScenario("grow-1-2-4", 1, 2, grow),
    CrashScenario("shrink-4-1", 4, 1, shrink),
    CrashScenario("switchover", 2, 0, switch_over),
)


class OperatorKiller:
    """Kills the operator before or after its writes, once it is armed: at each of them in a copy of this process."""

    def __init__(self, world: World, *, when: str, copies: Copies | None) -> None:
        self._world = world
        self._when = when
        self._copies = copies
        self.armed = False
        self.victim: Operator | None = None
        self.done = False

    def hire(self, epoch: int) -> Operator:
        """Let an operator lead that is watched."""
        operator = self._world.operator()
        if not self.done:
            self.victim = operator
            operator.kube.before_write = lambda what: self._strike("before", what)
            operator.kube.after_write = lambda what: self._strike("after", what)
        operator.lead(epoch)
        return operator

    def _strike(self, when: str, what: str) -> None:
        if not self.armed or self.done or when != self._when or self.victim is None or self._copies is None:
            return
        if self._copies.is_copy(f"killed {when} {what}"):
            self.done = True
            self._world.laws.emit(f"struck {when} {what}")
            self.victim.kill()
            if when == "before":
                raise asyncio.CancelledError


async def played(
    world: World, scenario: CrashScenario, *, when: str = "", copies: Copies | None = None, outcome: CallOutcome | None = None
) -> OperatorKiller:
    """Play a scenario with one kill in it, or in each of its copies; the successor begins a second later."""
    killer = OperatorKiller(world, when=when, copies=copies)
    killer.armed = scenario.from_the_start
    world.create(shards=scenario.shards)
    killer.hire(1)
    if not scenario.from_the_start:
        await world.until_done()
    before = world.account.restarts
    killer.armed = True
    if outcome is not None:
        world.account.call_outcomes.append(outcome)
        world.laws.on_call = lambda: killer.victim.kill() if killer.victim is not None else None

    async def succeed() -> None:
        while not (killer.victim is not None and killer.victim.dead):
            await asyncio.sleep(0.2)
        await asyncio.sleep(1.0)
        killer.done = True
        world.laws.on_call = lambda: None
        killer.hire(2)

    successor = asyncio.create_task(succeed())
    await scenario.ask(world)
    await world.until_done()
    await world.stays_silent(60.0)
    successor.cancel()
    assert world.account.restarts - before == scenario.restarts, world.failure_text("not exactly one restart per resize")
    return killer


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_a_kill_at_any_write_is_put_right(scenario: CrashScenario, when: str) -> None:
    copies = Copies()

    async def tell(world: World) -> None:
        killer = await played(world, scenario, when=when, copies=copies)
        assert killer.done == copies.is_one

    with copies.made_within():
        simulate(tell, scenario.name)
    print(f"{scenario}: {copies.count} kills {when} a write")
    assert copies.count >= 3


@pytest.mark.parametrize(
    "outcome",
    [CallOutcome(), CallOutcome(kind="timeout", applied=None), CallOutcome(kind="timeout", applied=3.0)],
    ids=["applied", "lost", "late"],
)
@pytest.mark.parametrize("scenario", [scenario for scenario in SCENARIOS if scenario.restarts], ids=str)
def test_a_kill_during_set_shards_costs_no_second_restart(scenario: CrashScenario, outcome: CallOutcome) -> None:
    async def disturbed(world: World) -> None:
        killer = await played(world, scenario, outcome=outcome)
        assert killer.done

    simulate(disturbed, scenario.name)
