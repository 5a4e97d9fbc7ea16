"""Seconds that bounds are judged by, also on a busy machine."""

from __future__ import annotations

import time
from pathlib import Path


class Stopwatch:
    """Runs from the moment that it is made, in the thread that asks it."""

    def __init__(self) -> None:
        self._began, self._waited = time.monotonic(), _waited()

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    @property
    def own(self) -> float:
        """The same without the time in which this thread wanted to run and other processes had the processors.

        For upper bounds: a pause, a wait for an answer and a hang all count, and a busy machine does not.
        """
        return self.elapsed - (_waited() - self._waited)


def _waited() -> float:
    """Seconds that this thread has waited for a processor (the second figure of proc_pid_schedstat); 0 where the kernel counts none."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except FileNotFoundError:
        return 0.0
