"""Events of one cluster: each is emitted once while its cause lasts, and one that cannot be written is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from whatsapp_operator.core import pace, report
from whatsapp_operator.core.actions import EmitEvent
from whatsapp_operator.core.names import Obj

MOST_PENDING = 20
"""Events that are kept while none can be written; older ones are dropped."""

Write = Callable[[EmitEvent, datetime], Awaitable[bool]]
"""Writes an Event with the time of its cause; returns whether it needs no further attempt."""


@dataclass(slots=True)
class EventLog:
    """The Events of one cluster."""

    _texts: set[tuple[str, str]] = field(default_factory=set)
    """Reason and message of those that were emitted while their condition lasted."""
    _emitted: dict[str, report.Emitted] = field(default_factory=dict)
    """By reason: the last Event of a current condition."""
    _pending: list[tuple[EmitEvent, datetime]] = field(default_factory=list)
    """Events that are still to be written, with the times of their causes; oldest first."""
    _noted: tuple[datetime | None, int] = None, 0
    """The time of the last causes, and how many Events have it so far."""
    _requested: tuple[EmitEvent, ...] = ()
    """Events that the last plan requested: they are written once while plans go on requesting them."""
    _failures: int = 0
    """Consecutive failures to write Events."""
    writing: asyncio.Task[None] | None = None
    """Writes what is pending; the loop of the cluster does not wait for it."""

    def close(self) -> None:
        """Give up what is pending."""
        if self.writing is not None:
            self.writing.cancel()

    def newly_requested(self, requested: tuple[EmitEvent, ...]) -> list[EmitEvent]:
        """Return those of a plan's events that the plan before did not request."""
        fresh, self._requested = [event for event in requested if event not in self._requested], requested
        return fresh

    def of_conditions(self, before: Obj, after: Obj, now: datetime) -> list[EmitEvent]:
        """Return the events of a changed status that were not emitted yet while their conditions last."""
        # A reason that no condition has any more is over: if it comes again, its Event is emitted again.
        current = {one["reason"] for one in after["conditions"]}
        self._texts = {(reason, text) for reason, text in self._texts if reason in current}
        self._emitted = {reason: last for reason, last in self._emitted.items() if reason in current}
        changed = report.events(before, after, self._emitted, now=now)
        self._emitted |= {event.reason: report.Emitted(event.message, now) for event in changed if event.reason in current}
        return self.not_yet_emitted(changed)

    def not_yet_emitted(self, events: Iterable[EmitEvent]) -> list[EmitEvent]:
        """Return the events without those that were emitted with the same message while their condition lasted."""
        fresh: list[EmitEvent] = []
        for event in events:
            if (event.reason, event.message) not in self._texts:
                self._texts = {(reason, text) for reason, text in self._texts if reason != event.reason}
                self._texts.add((event.reason, event.message))
                fresh.append(event)
        return fresh

    def write(self, events: Iterable[EmitEvent], at: datetime, write: Write) -> None:
        """Begin to write Events whose causes are of this time, after pending ones.

        Those that cannot be written are kept, because the next plan does not request them again. While writing fails, one is tried at a
        time, with pauses, and only the newest are kept.
        """
        # The names of Events are in the order of their times. So each gets a time of its own, also across calls.
        first, events = self._noted[1] if self._noted[0] == at else 0, [*events]
        self._pending += [(event, at + timedelta(microseconds=first + number)) for number, event in enumerate(events)]
        self._noted = at, first + len(events)
        if self._failures:
            del self._pending[:-MOST_PENDING]
        if self._pending and (self.writing is None or self.writing.done()):
            self.writing = asyncio.create_task(self._write_pending(write))

    async def _write_pending(self, write: Write) -> None:
        while self._pending:
            trying = self._pending[:1] if self._failures else [*self._pending]
            done = await asyncio.gather(*(write(event, at) for event, at in trying))
            written = [one for one, is_done in zip(trying, done, strict=True) if is_done]
            self._pending = [one for one in self._pending if one not in written]
            self._failures = 0 if all(done) else self._failures + 1
            if self._failures:
                pause = pace.retry_after(self._failures, pace.FIRST_EVENT_RETRY, pace.LAST_EVENT_RETRY)
                await asyncio.sleep(pause.total_seconds())
