"""Maintenance windows by the minute: when one is open, when the next one opens, and what is wrong with one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from whatsapp_operator.core.windows import Window, is_open, next_opening, problem


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def window(schedule: str, hours: float = 2, time_zone: str = "Etc/UTC", name: str = "night") -> Window:
    return Window(name=name, schedule=schedule, duration=timedelta(hours=hours), time_zone=time_zone)


NIGHTLY = window("0 3 * * *")
IMPOSSIBLE = window("0 0 30 2 *")
UNMET = window("0 0 */15 4 3#5")
"""The 1st, 16th or 31st of April that is its fifth Wednesday."""


@pytest.mark.parametrize(
    ("now", "is_open_then"),
    [
        ("2027-01-04T02:59:59", False),
        ("2027-01-04T03:00:00", True),
        ("2027-01-04T04:59:59", True),
        ("2027-01-04T05:00:00", False),
        ("2027-01-04T12:00:00", False),
    ],
)
def test_a_window_is_open_from_its_very_beginning_until_its_end(now: str, is_open_then: bool) -> None:
    assert is_open([NIGHTLY], at(now)) is is_open_then


def test_without_windows_it_is_always_open_and_with_several_one_is_enough() -> None:
    noon = window("0 12 * * *")

    assert is_open([], at("2027-01-04T12:30:00"))
    assert is_open([NIGHTLY, noon], at("2027-01-04T12:30:00"))
    assert is_open(iter([noon, NIGHTLY]), at("2027-01-04T12:30:00"))
    assert not is_open([NIGHTLY], at("2027-01-04T12:30:00"))


@pytest.mark.parametrize("broken", [window("61 3 * * *"), window("0 3 * * *", time_zone="Mars/Base"), IMPOSSIBLE, UNMET])
def test_a_window_that_means_nothing_never_opens_and_shuts_no_other(broken: Window) -> None:
    now = at("2027-01-04T03:30:00")

    assert not is_open([broken], now)
    assert is_open([broken, NIGHTLY], now)
    assert next_opening([broken], now) is None
    assert next_opening([broken, NIGHTLY], now) == at("2027-01-05T03:00:00")


def test_a_window_goes_by_its_time_zone_also_when_the_clocks_change() -> None:
    berlin = window("0 3 * * *", time_zone="Europe/Berlin")

    assert is_open([berlin], at("2027-01-04T02:30:00"))
    assert is_open([berlin], at("2027-07-04T01:30:00"))
    assert next_opening([berlin], at("2027-07-04T01:30:00")) == at("2027-07-05T01:00:00")


def test_the_next_opening_is_the_earliest_of_all_in_utc() -> None:
    opening = next_opening([window("0 5 * * *"), window("0 3 * * *", time_zone="Asia/Tokyo")], at("2027-01-04T12:00:00"))

    assert opening == at("2027-01-04T18:00:00")
    assert opening is not None
    assert opening.tzinfo is UTC
    assert next_opening([], at("2027-01-04T12:00:00")) is None


def test_a_question_mark_is_an_asterisk_as_in_a_CronJob() -> None:  # noqa: N802
    assert problem([window("0 3 ? * ?")]) is None
    assert next_opening([window("0 3 ? * ?")], at("2027-01-04T12:00:00")) == at("2027-01-05T03:00:00")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (window("0 3 * * *", time_zone="Mars/Base"), "Window night: time zone 'Mars/Base' is not known; write one such as Europe/Berlin."),
        (window("0 3 * * *", time_zone="../etc/passwd"), "Window night: time zone '../etc/passwd' is not known"),
        (window("61 3 * * *"), "Window night: schedule '61 3 * * *': bad minute."),
        (window("* *"), "Window night: schedule '* *': wrong number of fields"),
        (IMPOSSIBLE, "Window night: schedule '0 0 30 2 *': bad day-of-month."),
    ],
)
def test_what_is_wrong_with_a_window_is_said_with_its_name(broken: Window, said: str) -> None:
    found = problem([window("0 3 * * *", name="good"), broken, window("", name="worse")])

    assert found is not None
    assert found.startswith(said)


def test_windows_that_mean_something_have_no_problem() -> None:
    assert problem([]) is None
    assert problem([NIGHTLY, window("0 0 29 2 *")]) is None
    assert problem([UNMET]) == "Window night: schedule '0 0 */15 4 3#5' never matches."
