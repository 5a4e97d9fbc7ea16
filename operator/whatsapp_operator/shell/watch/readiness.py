"""Whether this process has read enough to lead: it has read the clusters, and has reached their Coreapps.

A replica that has just started has had no answer from any Coreapp, so it takes a silence for a fault of its own network. If the leader is
lost then, no shard moves for a while. So a roll-out of the operator waits for readiness before it ends the next replica.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from whatsapp_operator.shell.clock import Clock

log = logging.getLogger(__name__)

QUIET: Final = 1.0
"""Seconds without an object of a list after which the lists count as read. Kopf passes an object on 0.1 s after it got it, and does not say
which one is the last."""
LOGGED_AFTER: Final = 15.0
"""Seconds after which it is logged why this process is not ready, and the interval at which that is repeated."""


class Readiness:
    """Once ready, a process stays ready: an outage of the API server must not take away all replicas."""

    def __init__(self, asked: Iterable[Callable[[], str | None]], *, clock: Clock) -> None:
        """Prepare. Each of ``asked`` returns what this process has not read or reached yet, or None."""
        self._asked = tuple(asked)
        self._clock = clock
        self._listed_at = clock.monotonic()
        self._logged_at = clock.monotonic()
        self.why_not: str | None = "the operator has just started"
        """Why this process is not ready, or None. May be read from any thread."""

    def note_listed(self) -> None:
        """Note that an object of a list was passed on; lists are read at the start of a watch."""
        self._listed_at = self._clock.monotonic()

    def check(self) -> None:
        """Judge again. Call it a few times a second until it is ready."""
        if self.why_not is None:
            return
        now = self._clock.monotonic()
        self.why_not = next((why for ask in self._asked if (why := ask()) is not None), None)
        if self.why_not is None and now - self._listed_at < QUIET:
            self.why_not = "the objects of the clusters are still being read"
        if self.why_not is None:
            log.info("ready to lead")
        elif now - self._logged_at >= LOGGED_AFTER:
            self._logged_at = now
            log.warning("Not ready yet: %s.", self.why_not)
