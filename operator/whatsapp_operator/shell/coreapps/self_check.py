"""Gives up the leadership when the self-check keeps failing: another candidate may have a better view."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from whatsapp_operator.shell.clock import Clock

log = logging.getLogger(__name__)

PATIENCE: Final = 10.0
"""Seconds of failed self-checks after which the leadership is given up."""
LONGEST_PATIENCE: Final = 60.0
"""Longest pause, in seconds, before it is given up again while the self-check fails: a better candidate may have started meanwhile."""


class SelfCheck:
    """Gives up the leadership when the self-check keeps failing, again after pauses that double. A sole candidate leads again soon."""

    def __init__(
        self,
        *,
        self_check: Callable[[], str | None],
        step_down: Callable[[], bool],
        clock: Clock,
        patience: float = PATIENCE,
        meaning: str = "only certain evidence counts",
    ) -> None:
        """Prepare. ``self_check`` returns why it fails now, or None. ``step_down`` returns False if this process does not lead.

        ``patience``: seconds of failure after which the leadership is given up. ``meaning``: the consequence until then, for the log.
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
        """Run the self-check. Call it at least a few times in ten seconds."""
        why = self._self_check()
        now = self._clock.monotonic()
        if why is None:
            self._since = None
            return
        if self._since is None:
            self._since, self._pause = now, self._patience
            self._next_at = now + self._pause
            log.warning("The self-check fails, %s: %s.", self._meaning, why)
        if now >= self._next_at and self._step_down():
            self._pause = min(self._pause * 2, LONGEST_PATIENCE)
            self._next_at = now + self._pause
            log.warning("The self-check has failed for %.0f s (%s): another candidate may lead.", now - self._since, why)
