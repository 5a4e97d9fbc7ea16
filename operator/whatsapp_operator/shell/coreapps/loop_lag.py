"""Lag of the event loop. A heartbeat measures how long the loop did not run, before any deadline that expired meanwhile is judged."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from whatsapp_operator.shell.clock import Clock

BEAT = 0.1
"""Seconds between two heartbeats."""
REMEMBERED = 50
"""Heartbeats whose lateness is remembered: about 5 s."""
TOLERANCE = 0.25
"""From this many seconds of lag, an expired deadline says nothing about the other side. Listing 2,500 objects takes 0.16 s."""


class LoopLag:
    """Measures the lag with a timer. Time is `Clock.monotonic`, which keeps running while a process is stopped or the machine sleeps."""

    def __init__(self, *, clock: Clock, late: Callable[[float], None]) -> None:
        """Prepare. ``late`` is called with the seconds of each lag beyond the tolerance, before any deadline is judged."""
        self._clock = clock
        self._late = late
        self._due = 0.0
        self._beats: deque[float] = deque(maxlen=REMEMBERED)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start the timer; does nothing if it runs already."""
        if self._timer is None:
            self._beats.clear()
            self._arm(self._clock.monotonic())

    def stop(self) -> None:
        """Stop the timer; ``start`` may start it again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def lag(self) -> float:
        """Return the worst lag of the last seconds, in seconds. A heartbeat that is overdue now counts too."""
        return max(self._lateness(), *self._beats, 0.0)

    def was_late(self) -> bool:
        """Return whether the next heartbeat is overdue beyond the tolerance; if so, ``late`` is called first."""
        if self._timer is None or self._lateness() < TOLERANCE:
            return False
        self._timer.cancel()
        self._beat()
        return True

    def _lateness(self) -> float:
        return self._clock.monotonic() - self._due if self._timer is not None else 0.0

    def _arm(self, now: float) -> None:
        self._due = now + BEAT
        self._timer = asyncio.get_running_loop().call_later(BEAT, self._beat)

    def _beat(self) -> None:
        now = self._clock.monotonic()
        late = max(0.0, now - self._due)
        self._beats.append(late)
        self._arm(now)
        if late >= TOLERANCE:
            self._late(late)
