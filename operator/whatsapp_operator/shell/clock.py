"""Time and random values, and how Kubernetes spells an exact time. They are passed in, so that a simulation can pass others."""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """The clocks of the shell."""

    def now(self) -> datetime:
        """Return a time in UTC that never steps. Use it for everything that is compared with times of this process."""
        ...

    def wall(self) -> datetime:
        """Return the wall time, aware, in UTC. Use it for what people read and for dates from outside. It may step."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back; for spans within this process."""
        ...


def utc_now() -> datetime:
    """Return the time by the machine's wall clock, aware, in UTC."""
    return datetime.now(UTC)


def boottime() -> float:
    """Return seconds of a clock that is never set and keeps running while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SystemClock:
    """The machine's clocks. `now` is the wall time at construction plus the seconds since then by a clock that is never set.

    So a wall clock that is set forward or back, by NTP or by hand, makes no span longer or shorter.
    """

    def __init__(self, *, wall: Callable[[], datetime] = utc_now, seconds: Callable[[], float] = boottime) -> None:
        """Read the wall time once. ``seconds`` must never go back, and must keep running while the machine sleeps."""
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
        """Return seconds since an arbitrary start; they keep running while the machine sleeps."""
        return self._seconds()


def micro_time(at: datetime) -> str:
    """Spell an aware time as a MicroTime of Kubernetes, which has exactly six digits."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


LETTERS = string.ascii_lowercase + string.digits


def random_nonce() -> str:
    """Return five random letters and digits: the random part of epochs and operation ids."""
    return "".join(secrets.choice(LETTERS) for _ in range(5))
