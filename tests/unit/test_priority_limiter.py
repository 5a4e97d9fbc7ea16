"""Whose turn it is to observe: how many at a time, and who first."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from whatsapp_operator.shell.loop.schedule import PriorityLimiter


class QueuedObservations:
    """Observations that begin when they get their turn and end when the test says so."""

    def __init__(self, turns: PriorityLimiter) -> None:
        self.turns = turns
        self.begun: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, *, is_urgent: bool) -> None:
        self.ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._observe(name, is_urgent))
        await asyncio.sleep(0)

    async def _observe(self, name: str, is_urgent: bool) -> None:
        async with self.turns.turn(is_urgent=is_urgent):
            self.begun.append(name)
            await self.ends[name].wait()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.tasks[name]
        await asyncio.sleep(0)

    async def leave(self, name: str) -> None:
        self.tasks[name].cancel()
        await asyncio.gather(self.tasks[name], return_exceptions=True)
        await asyncio.sleep(0)


def run(scenario: Callable[[QueuedObservations], Awaitable[None]], *, at_a_time: int = 3, background: int = 2) -> None:
    async def limited() -> None:
        crowd = QueuedObservations(PriorityLimiter(at_a_time=at_a_time, background=background))
        async with asyncio.timeout(60):
            await scenario(crowd)
        for task in crowd.tasks.values():
            task.cancel()
        await asyncio.gather(*crowd.tasks.values(), return_exceptions=True)

    asyncio.run(limited())


def test_background_work_leaves_room_for_urgent_work() -> None:
    async def scenario(crowd: QueuedObservations) -> None:
        for name in "abc":
            await crowd.come(name, is_urgent=False)
        assert crowd.begun == ["a", "b"]
        await crowd.come("x", is_urgent=True)
        assert crowd.begun == ["a", "b", "x"]

    run(scenario)


def test_urgent_work_comes_before_all_that_waited() -> None:
    async def scenario(crowd: QueuedObservations) -> None:
        for name in "xyz":
            await crowd.come(name, is_urgent=True)
        await crowd.come("a", is_urgent=False)
        await crowd.come("w", is_urgent=True)
        await crowd.end("y")
        assert crowd.begun == ["x", "y", "z", "w"]
        await crowd.end("x")
        assert crowd.begun[-1] == "a"

    run(scenario)


def test_all_come_in_the_end_in_their_order() -> None:
    async def scenario(crowd: QueuedObservations) -> None:
        names = [f"a{number}" for number in range(20)]
        for name in names:
            await crowd.come(name, is_urgent=False)
        for name in names:
            await crowd.end(name)
        assert crowd.begun == names

    run(scenario)


@pytest.mark.parametrize("is_urgent", [True, False])
def test_a_turn_of_one_who_left_is_not_lost(is_urgent: bool) -> None:
    async def scenario(crowd: QueuedObservations) -> None:
        for name in "abcd":
            await crowd.come(name, is_urgent=is_urgent)
        await crowd.leave("b")
        await crowd.leave("a")
        await crowd.leave("d")
        for name in "efgh":
            await crowd.come(name, is_urgent=is_urgent)
        assert len(crowd.begun) == len({*crowd.begun}) == (6 if is_urgent else 5)

    run(scenario)


def test_one_that_is_given_a_turn_and_leaves_at_once_passes_it_on() -> None:
    async def scenario(crowd: QueuedObservations) -> None:
        for name in "abc":
            await crowd.come(name, is_urgent=True)
        crowd.ends["a"].set()
        await asyncio.sleep(0)
        crowd.tasks["b"].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert "c" in crowd.begun

    run(scenario, at_a_time=1, background=1)
