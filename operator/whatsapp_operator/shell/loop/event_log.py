"""Events of one cluster: each is emitted once while its cause lasts, and one that cannot be written is kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from whatsapp_operator.core import pace, report
from whatsapp_operator.core.actions import EmitEvent
from whatsapp_operator.core.names import Obj

MOST_PENDING = 20
"""Events that could not be written and are kept for the next observation; older ones are dropped."""

Write = Callable[[Iterable[EmitEvent]], Awaitable[list[EmitEvent]]]
"""Writes Events; returns those that need no further attempt."""


@dataclass(slots=True)
class EventLog:
    """The Events of one cluster."""

    _texts: set[tuple[str, str]] = field(default_factory=set)
    """Reason and message of those that were emitted while their condition lasted."""
    _emitted: dict[str, report.Emitted] = field(default_factory=dict)
    """By reason: the last Event of a current condition."""
    _pending: list[EmitEvent] = field(default_factory=list)
    """Events that could not be written, oldest first."""
    _requested: tuple[EmitEvent, ...] = ()
    """Events that the last plan requested: they are written once while plans go on requesting them."""
    _failures: int = 0
    """Consecutive failures to write Events."""
    _write_at: float = 0.0
    """When Events are written again, by the monotonic clock."""

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

    async def write(self, events: Iterable[EmitEvent], write: Write, monotonic: Callable[[], float]) -> None:
        """Write Events, pending ones first. Events that cannot be written are kept, because the next plan does not request them again.

        While writing fails, one is tried at a time, with pauses, and only the newest are kept.
        """
        waiting, self._pending = [*self._pending, *events], []
        while waiting and monotonic() >= self._write_at:
            trying = waiting[:1] if self._failures else waiting
            done = await write(trying)
            waiting = [event for event in waiting if event not in done]
            if len(done) < len(trying):
                self._failures += 1
                pause = pace.retry_after(self._failures, pace.FIRST_EVENT_RETRY, pace.LAST_EVENT_RETRY)
                self._write_at = monotonic() + pause.total_seconds()
            else:
                self._failures = 0
        self._pending = waiting[-MOST_PENDING:]

    def due_in(self, monotonic: float) -> timedelta | None:
        """Return in what time pending Events are to be written; None: there are none."""
        return timedelta(seconds=max(0.0, self._write_at - monotonic)) if self._pending else None
