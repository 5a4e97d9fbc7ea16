"""Events of one cluster are written in the background: nobody waits for them, and while they fail few are tried."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from whatsapp_operator.core import pace
from whatsapp_operator.core.actions import EmitEvent
from whatsapp_operator.shell.loop.event_log import MOST_PENDING, EventLog

AT = datetime(2030, 1, 1, tzinfo=UTC)


class Server:
    """Takes Events, or none while it is away."""

    def __init__(self) -> None:
        self.is_away = False
        self.tried: list[str] = []
        self.written: list[tuple[str, datetime]] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def write(self, event: EmitEvent, at: datetime) -> bool:
        self.tried.append(event.message)
        await self.answers.wait()
        if not self.is_away:
            self.written.append((event.message, at))
        return not self.is_away


def numbered(*numbers: int) -> list[EmitEvent]:
    return [EmitEvent(reason="Serving", message=str(number)) for number in numbers]


async def until(log: EventLog, left: int) -> None:
    async with asyncio.timeout(60):
        while len(log._pending) != left:
            await asyncio.sleep(0.001)


async def test_nobody_waits_for_an_answer_and_all_come_in_their_order_with_the_times_of_their_causes() -> None:
    log, server = EventLog(), Server()
    server.answers.clear()
    log.write(numbered(1, 2), AT, server.write)
    await asyncio.sleep(0)
    log.write(numbered(3), AT + timedelta(seconds=1), server.write)
    assert server.written == []
    server.answers.set()
    await until(log, 0)
    second = AT + timedelta(microseconds=1)  # names are in the order of times, so the times differ
    assert server.written == [("1", AT), ("2", second), ("3", AT + timedelta(seconds=1))]


async def test_events_of_one_observation_have_times_in_their_order_although_they_come_in_parts() -> None:
    log, server = EventLog(), Server()
    for part in ((1, 2), (3,), (4, 5)):
        log.write(numbered(*part), AT, server.write)
    await until(log, 0)
    messages, times = zip(*server.written, strict=True)
    assert messages == ("1", "2", "3", "4", "5")
    assert list(times) == sorted(set(times))
    log.write(numbered(6), AT - timedelta(hours=1), server.write)  # a clock that was set back sets no later time
    await until(log, 0)
    assert server.written[-1] == ("6", AT - timedelta(hours=1))


async def test_while_events_fail_one_is_tried_at_a_time_and_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "FIRST_EVENT_RETRY", timedelta(seconds=0.01))
    monkeypatch.setattr(pace, "LAST_EVENT_RETRY", timedelta(seconds=0.01))
    log, server = EventLog(), Server()
    server.is_away = True
    log.write(numbered(*range(MOST_PENDING)), AT, server.write)
    async with asyncio.timeout(60):
        while len(server.tried) < MOST_PENDING + 2:
            await asyncio.sleep(0.001)
    assert server.tried[MOST_PENDING:] == ["0"] * (len(server.tried) - MOST_PENDING)
    log.write(numbered(*range(MOST_PENDING, MOST_PENDING + 5)), AT, server.write)
    server.is_away = False
    await until(log, 0)
    assert [message for message, _ in server.written] == [str(number) for number in range(5, MOST_PENDING + 5)]


async def test_what_is_pending_is_given_up_with_the_cluster() -> None:
    log, server = EventLog(), Server()
    server.answers.clear()
    log.write(numbered(1), AT, server.write)
    await asyncio.sleep(0)
    log.close()
    server.answers.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert server.written == []
    assert log.writing is not None
    assert log.writing.cancelled()
