"""What comes of a long doubt about ourselves: another candidate may see what we do not, so it gets the leadership."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from whatsapp_operator.shell.clock import Clock

log = logging.getLogger(__name__)

PATIENCE: Final = 10.0
"""Seconds of doubt after which leadership is given up."""
LONGEST_PATIENCE: Final = 60.0
"""Seconds after which that is done again, at the latest, while the doubt lasts: a candidate may have come meanwhile that sees more."""


class SelfCheck:
    """Gives leadership up when a doubt lasts, and again after pauses that double; whoever leads alone is the leader again soon after."""

    def __init__(
        self,
        *,
        self_check: Callable[[], str | None],
        step_down: Callable[[], bool],
        clock: Clock,
        patience: float = PATIENCE,
        meaning: str = "only certain evidence counts",
    ) -> None:
        """Prepare. ``self_check`` tells why we doubt ourselves now, or None; ``step_down`` returns False if we do not lead.

        ``patience``: seconds of doubt after which leadership is given up; ``meaning``: what the doubt means until then.
        """
        self._patience = patience
        self._meaning = meaning
        self._self_check = self_check
        self._step_down = step_down
        self._clock = clock
        self._since: float | None = None
        self._next_at = 0.0
        self._pause = patience

    def check(self) -> None:
        """Look at ourselves; to be called again and again, a few times in each ten seconds at least."""
        why = self._self_check()
        now = self._clock.monotonic()
        if why is None:
            self._since = None
            return
        if self._since is None:
            self._since, self._pause = now, self._patience
            self._next_at = now + self._pause
            log.warning("In doubt about ourselves, %s: %s.", self._meaning, why)
        if now >= self._next_at and self._step_down():
            self._pause = min(self._pause * 2, LONGEST_PATIENCE)
            self._next_at = now + self._pause
            log.warning("In doubt for %.0f s (%s): another candidate may lead.", now - self._since, why)
