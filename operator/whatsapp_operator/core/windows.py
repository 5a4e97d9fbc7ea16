"""Maintenance windows: when Set Shards may begin. Pure: the time is an argument."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from .places import At


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A window that opens again and again, as in a CronJob."""

    name: Annotated[str, At("name")]
    schedule: Annotated[str, At("schedule")]
    duration: Annotated[timedelta, At("durationMinutes", unit=timedelta(minutes=1))]
    time_zone: Annotated[str, At("timeZone")] = "Etc/UTC"


def _openings(window: Window, now: datetime, *, back: bool) -> CronSim:
    try:
        zone = ZoneInfo(window.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        msg = f"time zone {window.time_zone!r} is not known; write one such as Europe/Berlin"
        raise ValueError(msg) from None
    try:
        # A question mark means the same as an asterisk in a CronJob.
        return CronSim(window.schedule.replace("?", "*"), now.astimezone(zone), reverse=back)
    except CronSimError as error:
        msg = f"schedule {window.schedule!r}: {str(error)[:1].lower()}{str(error)[1:]}"
        raise ValueError(msg) from None


def problem(windows: Iterable[Window]) -> str | None:
    """Return what is wrong with the first invalid window, for people; None if all are valid."""
    for window in windows:
        try:
            next(_openings(window, datetime(2026, 1, 1, tzinfo=UTC), back=False))
        except ValueError as error:
            return f"Window {window.name}: {error}."
        except StopIteration:
            return f"Window {window.name}: schedule {window.schedule!r} never matches."
    return None


def is_open(windows: Iterable[Window], now: datetime) -> bool:
    """Return whether Set Shards may begin: there is no window at all, or one is open at ``now``. Invalid windows are never open."""
    listed = tuple(windows)
    return not listed or any(_covers(window, now) for window in listed)


def _covers(window: Window, now: datetime) -> bool:
    try:
        # One second later, because the search excludes its start.
        opened = next(_openings(window, now + timedelta(seconds=1), back=True))
    except (ValueError, StopIteration):
        return False
    return bool(now - opened < window.duration)


def next_opening(windows: Iterable[Window], now: datetime) -> datetime | None:
    """Return when the next window opens after ``now``, in UTC; None if none ever does."""
    openings = []
    for window in windows:
        try:
            openings.append(next(_openings(window, now, back=False)).astimezone(UTC))
        except (ValueError, StopIteration):
            continue
    return min(openings, default=None)
