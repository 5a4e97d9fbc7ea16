"""A clock that a test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

START: Final = datetime(2030, 1, 1, tzinfo=UTC)


class ManualClock:
    """Shows `START` and as many seconds more as ``at`` says; the wall clock agrees."""

    def __init__(self) -> None:
        self.at = 0.0

    def monotonic(self) -> float:
        return self.at

    def now(self) -> datetime:
        return START + timedelta(seconds=self.at)

    def wall(self) -> datetime:
        return self.now()
