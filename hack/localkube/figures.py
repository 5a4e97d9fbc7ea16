"""How measured times are summed up, and what they are compared with. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from localkube import Obj

BASELINE_S = 35.0
"""The vendor's failover of a Coreapp, as its documentation states it."""
P95_FROM = 40
"""Below so many samples a p95 is one of the two longest and nothing more: then median and maximum are given."""


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least this share (0 to 1) of all samples do not exceed (nearest rank). ValueError without samples."""
    if not samples:
        raise ValueError("a percentile needs samples")
    return sorted(samples)[max(0, math.ceil(share * len(samples)) - 1)]


@dataclass(frozen=True, slots=True)
class Summary:
    """What was measured, failures included. Seconds; `math.inf` where the sample of that rank is a failure."""

    n: int
    """Samples, failures among them."""
    failures: int
    p50: float
    p95: float | None
    """None when there are fewer than P95_FROM samples."""
    max: float

    @property
    def judged_by(self) -> str:
        """What a goal is compared with: ``p95``, or ``max`` when there are too few samples."""
        return "max" if self.p95 is None else "p95"

    @property
    def judged(self) -> float:
        """The value of that."""
        return self.max if self.p95 is None else self.p95

    def complaint(self, goal: float | None) -> str:
        """A sentence when the goal is missed, else empty."""
        if goal is None or self.judged <= goal:
            return ""
        if math.isinf(self.judged):
            return f"{self.failures} of {self.n} failed, the goal is {self.judged_by} {goal:g} s"
        return f"{self.judged_by} is {self.judged:.3f} s, the goal is {goal:g} s (n = {self.n})"


def summary(times: Sequence[float], failures: int = 0) -> Summary:
    """Sum up times (seconds) and so many failures, each of which ranks as longer than every time. ValueError without either."""
    ranked = [*times, *[math.inf] * failures]
    p95 = percentile(ranked, 0.95) if len(ranked) >= P95_FROM else None
    return Summary(len(ranked), failures, percentile(ranked, 0.5), p95, max(ranked))


def row(times: Sequence[float], failures: int = 0, *, goal: float | None = None, baseline: bool = False) -> Obj:
    """The same for a file, seconds to the tenth of a millisecond.

    Always n, failures, goal and met (None without goal or samples); with samples p50, max (None: failed) and judged_by, and p95 from
    P95_FROM samples on; with ``baseline`` the ratio of the vendor's time to what the goal is judged by, unless that failed.
    """
    if not times and not failures:
        return {"n": 0, "failures": 0, "goal": goal, "met": None}
    found = summary(times, failures)
    ranks = {"p50": found.p50, "p95": found.p95, "max": found.max}
    made: Obj = {"n": found.n, "failures": failures}
    made |= {name: rounded(value) for name, value in ranks.items() if value is not None}
    made |= {"goal": goal, "judged_by": found.judged_by, "met": None if goal is None else not found.complaint(goal)}
    if baseline and math.isfinite(found.judged):
        made["ratio"] = ratio(found.judged)
    return made


def rounded(seconds: float) -> float | None:
    """To the tenth of a millisecond; None for what failed, for JSON knows no infinity."""
    return round(seconds, 4) if math.isfinite(seconds) else None


def ratio(seconds: float) -> str:
    """How many times shorter than the baseline, such as ``250x``."""
    times = BASELINE_S / max(seconds, 0.0001)
    return f"{times:.0f}x" if times >= 10 else f"{times:.1f}x"


def clock(seconds: float | None) -> str:
    """Seconds as people read them: ``67 ms``, ``3.92 s``, ``61.3 s``; ``failed`` for infinity or None."""
    if seconds is None or math.isinf(seconds):
        return "failed"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
