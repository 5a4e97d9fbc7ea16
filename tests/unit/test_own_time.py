"""The times of a noted intent count on the clock of this process: the one of the process that noted it may be an hour apart."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from whatsapp_operator.core import record
from whatsapp_operator.core.desired import Tuning
from whatsapp_operator.core.snapshot import Operation, Record
from whatsapp_operator.shell.loop.cluster import Memory
from whatsapp_operator.shell.loop.observe import Observer

NOW = datetime(2027, 1, 1, tzinfo=UTC)
NOTED = Operation(
    id="4-x", to=4, leader_epoch=1, started_at=NOW, deadline=NOW + timedelta(seconds=180), settle_by=NOW + timedelta(seconds=840)
)


class Stopped:
    """A clock that shows one time."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def wall(self) -> datetime:
        return self.now()

    def monotonic(self) -> float:
        return 0.0


def own_time(clock: Stopped, noted: Operation | None, memory: Memory) -> Operation | None:
    return observer(clock)._own_times(Record(operation=noted), memory).operation


def observer(clock: Stopped) -> Observer:
    nothing = cast("Any", None)
    return Observer(kube=nothing, clients=nothing, coreapps=nothing, clock=clock, image="i", tuning=Tuning())


@pytest.mark.parametrize("apart", [timedelta(hours=1), timedelta(hours=-1), timedelta(seconds=5)])
def test_an_intent_of_another_clock_has_all_its_time_from_when_we_saw_it(apart: timedelta) -> None:
    clock, memory = Stopped(NOW + apart), Memory()
    first = own_time(clock, NOTED, memory)
    clock.at += timedelta(seconds=100)
    later = own_time(clock, NOTED, memory)

    assert (
        first
        == later
        == replace(
            NOTED, started_at=NOW + apart, deadline=NOW + apart + timedelta(seconds=180), settle_by=clock.at + timedelta(seconds=740)
        )
    )


def test_our_own_intent_keeps_its_times() -> None:
    memory = Memory(intent=(NOTED.id, NOW))

    assert own_time(Stopped(NOW + timedelta(seconds=9)), NOTED, memory) == NOTED


def test_the_next_intent_counts_again() -> None:
    clock, memory = Stopped(NOW), Memory(intent=("2-earlier", NOW - timedelta(hours=2)))
    found = own_time(clock, NOTED, memory)

    assert found == NOTED
    assert memory.intent == ("4-x", NOW)


def test_an_intent_that_cannot_be_read_is_not_settled_by_time() -> None:
    unreadable = record.read({"operation": {"id": "4-x", "to": 4, "startedAt": "?", "settleBy": "?"}}, uid="a").operation
    found = own_time(Stopped(NOW), unreadable, Memory())

    assert found is not None
    assert found.settle_by > NOW + timedelta(days=10_000)
