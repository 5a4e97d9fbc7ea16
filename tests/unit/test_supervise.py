"""Kopf is begun again whenever it ends or a watch stays dead, and left behind when it does not end."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.watch import supervise
from whatsapp_operator.shell.watch.supervise import Deliver, Round, Supervisor

SOON = 60.0


async def never_dead() -> float:
    return 0.0


@asynccontextmanager
async def running(supervisor: Supervisor) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(supervisor.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=SOON)
    assert task.cancelled()


async def until_nth(begun: list[float], number: int) -> None:
    async with asyncio.timeout(SOON):
        while len(begun) < number:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("error", [RuntimeError("what was not expected"), None, asyncio.CancelledError()])
async def test_however_it_ends_it_is_begun_again_ever_later(error: BaseException | None) -> None:
    begun: list[float] = []

    async def begin(_: Deliver) -> None:
        begun.append(time.monotonic())
        if error is not None:
            raise error

    async with running(Supervisor(begin, dead_for=never_dead, clock=SystemClock())):
        await until_nth(begun, 4)
    pauses = [after - before for before, after in itertools.pairwise(begun)]
    assert pauses[0] >= 0.2
    assert pauses[1] >= 0.4
    assert pauses[2] >= 0.8


async def test_a_watch_that_stays_dead_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "RENEW_AFTER", 0.6)
    begun: list[float] = []
    since = time.monotonic()

    async def begin(_: Deliver) -> None:
        begun.append(time.monotonic())
        await asyncio.Event().wait()

    async def dead_for() -> float:
        return time.monotonic() - since

    async with running(Supervisor(begin, dead_for=dead_for, clock=SystemClock())):
        await until_nth(begun, 3)
    first, second, third = begun
    assert second - first >= 0.6
    assert third - second >= 1.2, "not a second time so soon: it may need longer to connect"


async def test_events_come_in_the_event_loop_of_the_operator_until_it_is_stopped() -> None:
    responses: list[threading.Thread] = []
    deliveries: list[Deliver] = []

    async def begin(deliver: Deliver) -> None:
        deliveries.append(deliver)
        deliver(lambda: responses.append(threading.current_thread()))
        await asyncio.Event().wait()

    one = Round(begin)
    async with asyncio.timeout(SOON):
        while not responses:
            await asyncio.sleep(0.01)
    await one.stop(SOON)
    deliveries[0](lambda: responses.append(threading.current_thread()))
    await asyncio.sleep(0.05)

    assert responses == [threading.current_thread()]
    assert one.ended.done()


async def test_one_that_does_not_end_is_left_behind() -> None:
    begun = threading.Event()

    async def begin(_: Deliver) -> None:
        begun.set()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    one = Round(begin)
    await asyncio.to_thread(begun.wait, SOON)
    before = time.monotonic()
    await one.stop(within=0.2)

    assert 0.2 <= time.monotonic() - before < 10
    async with asyncio.timeout(SOON):
        await one.ended


async def test_tasks_that_are_left_running_end_before_their_loop_is_closed() -> None:
    """One that was freed while it waits would report that it ignored its end (an error that pytest shows in any later test)."""
    steps: list[str] = []

    async def watch() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("watch ended")

    tasks: list[asyncio.Task[None]] = []

    async def begin(_: Deliver) -> None:
        tasks.append(asyncio.create_task(watch()))
        await asyncio.sleep(0)
        raise RuntimeError("what was not expected")

    one = Round(begin)
    async with asyncio.timeout(SOON):
        assert isinstance(await one.ended, RuntimeError)
    assert steps == ["watch ended"]
