"""How measured times are summed up: percentiles only of enough samples, failures among the samples, goals that can be missed."""

from __future__ import annotations

import json
import math
import random

import pytest

from localkube import figures
from localkube.figures import P95_FROM, row, summary


@pytest.mark.parametrize(
    ("count", "share", "rank"),
    [(1, 0.5, 1), (1, 0.95, 1), (2, 0.5, 1), (3, 0.5, 2), (20, 0.95, 19), (30, 0.5, 15), (30, 0.95, 29), (100, 0.95, 95), (100, 1.0, 100)],
)
def test_a_percentile_is_the_sample_of_the_nearest_rank(count: int, share: float, rank: int) -> None:
    samples = [float(number) for number in range(1, count + 1)]
    random.Random(count).shuffle(samples)

    assert figures.percentile(samples, share) == rank


def test_a_percentile_of_nothing_is_rejected() -> None:
    with pytest.raises(ValueError, match="needs samples"):
        figures.percentile([], 0.5)
    assert row([], goal=0.2) == {"n": 0, "failures": 0, "goal": 0.2, "met": None}


def test_a_p95_needs_forty_samples() -> None:
    few, enough = summary([0.1] * (P95_FROM - 1)), summary([0.1] * P95_FROM)

    assert (few.n, few.p95, few.judged_by) == (39, None, "max")
    assert (enough.n, enough.p95, enough.judged_by) == (40, 0.1, "p95")


def test_with_few_samples_the_goal_is_judged_by_the_longest() -> None:
    times = [0.1] * 38 + [0.3]

    assert summary(times).complaint(0.2) == "max is 0.300 s, the goal is 0.2 s (n = 39)"
    assert summary([*times, 0.1]).complaint(0.2) == "", "one of 40 is beyond the p95"
    assert summary([*times, 0.3, 0.3]).complaint(0.2) == "p95 is 0.300 s, the goal is 0.2 s (n = 41)"


def test_a_failure_is_one_of_n_and_worse_than_every_time() -> None:
    found = summary([0.1] * 9, failures=1)
    assert (found.n, found.failures, found.p50, found.max) == (10, 1, 0.1, math.inf)
    assert found.complaint(0.2) == "1 of 10 failed, the goal is max 0.2 s"

    assert summary([0.1] * 39, failures=1).complaint(0.2) == ""
    assert summary([0.1] * 37, failures=3).complaint(0.2) == "3 of 40 failed, the goal is p95 0.2 s"
    assert summary([], failures=2).p50 == math.inf


def test_a_row_of_a_file_holds_what_a_reader_needs_and_is_json() -> None:
    many = row([0.1] * 50, goal=0.2, baseline=True)
    assert many == {
        "n": 50,
        "failures": 0,
        "p50": 0.1,
        "p95": 0.1,
        "max": 0.1,
        "goal": 0.2,
        "judged_by": "p95",
        "met": True,
        "ratio": "350x",
    }

    failed = json.loads(json.dumps(row([0.12345678], failures=1, goal=0.2, baseline=True), allow_nan=False))
    assert (failed["n"], failed["failures"], failed["p50"], failed["max"]) == (2, 1, 0.1235, None)
    assert (failed["met"], failed["judged_by"], "p95" in failed, "ratio" in failed) == (False, "max", False, False)


@pytest.mark.parametrize(("seconds", "said"), [(35.0, "1.0x"), (3.92, "8.9x"), (0.1, "350x"), (0.0, "350000x")])
def test_the_ratio_to_the_baseline_is_in_times(seconds: float, said: str) -> None:
    assert figures.ratio(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.0671, "67 ms"), (3.917, "3.92 s"), (61.3, "61.3 s"), (math.inf, "failed"), (None, "failed")]
)
def test_times_are_said_as_people_read_them(seconds: float | None, said: str) -> None:
    assert figures.clock(seconds) == said
