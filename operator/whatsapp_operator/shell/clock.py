"""Time and chance as values that are handed in, so that a simulation can hand in others."""

from __future__ import annotations

import secrets
import string
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the shell may know of time."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back; for spans of this process only."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since some start, counted on while the machine sleeps."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


LETTERS = string.ascii_lowercase + string.digits


def draw_nonce() -> str:
    """Return five random letters; the random part of epochs and operation ids."""
    return "".join(secrets.choice(LETTERS) for _ in range(5))
