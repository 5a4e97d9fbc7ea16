"""Time and chance as values that are handed in, so that a simulation can hand in others."""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What the shell may know of time."""

    def now(self) -> datetime:
        """Return a time in UTC that never steps: for all that this process compares with times of its own."""
        ...

    def wall(self) -> datetime:
        """Return the wall time, aware, in UTC: for what people read, and for what has a date of its own. It may step."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back; for spans of this process only."""
        ...


def _wall_time() -> datetime:
    return datetime.now(UTC)


def _boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SystemClock:
    """The machine's clocks. `now` is the wall time at which this was made, and the seconds since then by a clock that nobody sets.

    So a wall clock that is set forward or back, by NTP or by hand, makes no span longer or shorter.
    """

    def __init__(self, *, wall: Callable[[], datetime] = _wall_time, seconds: Callable[[], float] = _boot_time) -> None:
        """Take the wall time once. ``seconds`` never go back, and go on while the machine sleeps."""
        self._wall = wall
        self._seconds = seconds
        self._start = wall() - timedelta(seconds=seconds())

    def now(self) -> datetime:
        """Return a time in UTC that never steps."""
        return self._start + timedelta(seconds=self._seconds())

    def wall(self) -> datetime:
        """Return the wall time, aware, in UTC."""
        return self._wall()

    def monotonic(self) -> float:
        """Return seconds since some start, counted on while the machine sleeps."""
        return self._seconds()


LETTERS = string.ascii_lowercase + string.digits


def draw_nonce() -> str:
    """Return five random letters; the random part of epochs and operation ids."""
    return "".join(secrets.choice(LETTERS) for _ in range(5))
