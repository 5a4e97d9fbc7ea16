"""How measured times are summed up, and what they are compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence

BASELINE_S = 35.0
"""The vendor's failover of a Coreapp, as its documentation states it (whatsapp-client.md)."""


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least this share (0 to 1) of all samples do not exceed (nearest rank). ValueError without samples."""
    if not samples:
        msg = "a percentile needs samples"
        raise ValueError(msg)
    return sorted(samples)[max(0, math.ceil(share * len(samples)) - 1)]


def ratio(seconds: float, baseline: float = BASELINE_S) -> str:
    """How many times shorter than the baseline, such as ``250x``."""
    times = baseline / max(seconds, 0.0001)
    return f"{times:.0f}x" if times >= 10 else f"{times:.1f}x"
