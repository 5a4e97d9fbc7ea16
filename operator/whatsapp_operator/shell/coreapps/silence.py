"""Since when the probes of one Coreapp have been unanswered, and from when on that counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

from .schedule import Probed, ProbeSchedule


class Owner(Probed, Protocol):
    """The tether of a silence."""

    def on_silence(self) -> None:
        """A probe's deadline has expired."""

    def on_lasting_silence(self) -> None:
        """The silence is as long as the spec allows."""

    def on_silence_end(self) -> None:
        """A Coreapp that was unresponsive has answered, or its kernel has."""


class Silence:
    """The time of the unanswered probes of one Coreapp. Seconds in which this process did not run do not count."""

    __slots__ = ("_alarm", "_owner", "_schedule", "asked_at", "responded_at", "since")

    def __init__(self, owner: Owner, schedule: ProbeSchedule) -> None:
        self._owner, self._schedule = owner, schedule
        self._alarm: asyncio.TimerHandle | None = None
        self.asked_at: datetime | None = None
        """When the first of the unanswered probes was sent."""
        self.responded_at: datetime | None = None
        """When the last answer came."""
        self.since: datetime | None = None
        """Since when the Coreapp is unresponsive; None: its last probe was answered, or is within its deadline."""

    @property
    def is_within_deadline(self) -> bool:
        """Whether a probe is unanswered that still has time."""
        return self.asked_at is not None and self.since is None

    @property
    def has_lasted(self) -> bool:
        """Whether the silence is as long as the spec allows."""
        return self._left() <= 0

    def begin(self, asked_at: datetime) -> None:
        """Note a probe that was sent at that time. If an older one is unanswered too, that one counts."""
        if self.asked_at is None:
            self.asked_at = asked_at
            passed = (self._schedule.clock.now() - asked_at).total_seconds()
            self._set_alarm(min(self._schedule.pace.deadline - passed, self._schedule.pace.deadline), self._on_deadline)

    def end(self) -> None:
        """Note that no probe is unanswered any more."""
        self.asked_at = None
        self.stop()
        if self.since is not None:
            self.since = None
            self._schedule.unresponsive.discard(self._owner)
            self._owner.on_silence_end()

    def watch(self) -> None:
        """Tell the owner when the silence, if there is one, is as long as the spec allows; at once if it is."""
        if self.since is None:
            return
        left = self._left()
        if left > 0:
            self._set_alarm(min(left, self._owner.target.unhealthy_after), self._on_alarm)
        else:
            self._owner.on_lasting_silence()

    def compensate(self, late: float) -> None:
        """Leave out ``late`` seconds in which this process did not run. An open probe gets its full time again."""
        if self.since is not None:
            self.since += timedelta(seconds=late)
            self.asked_at = self.since
            self.watch()
        elif self.asked_at is not None:
            self.asked_at = self.responded_at = None
            self.begin(self._schedule.clock.now())

    def stop(self) -> None:
        """Set no alarm any more."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _set_alarm(self, delay: float, callback: Callable[[], None]) -> None:
        self.stop()
        self._alarm = asyncio.get_running_loop().call_later(max(0.0, delay), callback)

    def _on_deadline(self) -> None:
        if self._schedule.lag.was_late() or self.asked_at is None:
            # While this process did not run, it could not read an answer. The probe has got its full time again.
            return
        self.since = self.asked_at - self._half_of_a_round(self.asked_at)
        self._schedule.unresponsive.add(self._owner)
        self._schedule.speed_up()
        self.watch()
        self._owner.on_silence()

    def _on_alarm(self) -> None:
        if not self._schedule.lag.was_late():
            self.watch()

    def _half_of_a_round(self, asked_at: datetime) -> timedelta:
        """Return how long before its first probe a silence probably began: half of the time since the last answer."""
        if self.responded_at is None:
            return timedelta(0)
        return min(max(asked_at - self.responded_at, timedelta(0)), self._owner.target.probe.period) / 2

    def _left(self) -> float:
        """Return the seconds until a silence is as long as the spec allows."""
        since = self.since or self._schedule.clock.now()
        return self._owner.target.unhealthy_after - (self._schedule.clock.now() - since).total_seconds()
