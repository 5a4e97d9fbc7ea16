"""When each Coreapp of one process is probed, and what the tethers of that process share."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol
from zlib import crc32

from whatsapp_operator.core.desired import Probe
from whatsapp_operator.core.snapshot import Report
from whatsapp_operator.shell.clock import Clock

if TYPE_CHECKING:
    from .loop_lag import LoopLag

MIN_UNRESPONSIVE = 3
"""Fewer unresponsive targets do not suggest that this process is cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A pod to watch."""

    ip: str
    node: str | None
    holds: bool
    """A Service names it as holder: it is probed each period, others less often."""
    probe: Probe
    unhealthy_after: float
    """Seconds without an answer after which the cluster's loop is woken."""
    ready: bool = False
    """The kubelet reports the pod as ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What this process knows from its own connection to a pod."""

    report: Report | None = None
    """The last one; None: the pod has not answered since its connection was last lost."""
    broken_at: datetime | None = None
    """Since when it refuses connections."""
    ended_at: datetime | None = None
    """When it last ended, or may have ended unnoticed because this process stood still; it may be back since."""
    unresponsive_since: datetime | None = None
    """When the first probe was sent that is unanswered beyond its deadline."""
    never_responded: bool = False
    """It has never answered this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times of tethers, in seconds."""

    deadline: float = 1.0
    """A target that does not answer a probe in this time is unresponsive."""
    connect_timeout: float = 0.5
    """Short, then tried again: the kernel repeats a lost SYN only after 1 s, and five attempts in 3 s survive 30 % loss more often."""
    retry: float = 0.1
    """Pause before the next connect, and before a Coreapp that has just started is probed again."""
    retry_cost: float = 0.001
    """Minimum pause before the next connect, for each target without a connection, so that a lost zone does not use up a core."""
    standby_period: float = 5.0
    """Minimum period of targets that hold no shard."""
    insist: float = 0.25
    """Pause between two fresh connections while a silence does not count yet: a few lost packets are no failure."""
    most_side_connections: int = 6
    """Fresh connections that may wait for an answer at the same time; a slow process answers one of them."""
    fresh_every: int = 30
    """One of this many probes uses a fresh connection: an open one does not show a full accept queue."""
    assign_timeout: float = 1.0


class Probed(Protocol):
    """What a schedule knows about a tether."""

    target: Target

    @property
    def asked_at(self) -> datetime | None:
        """When the first of the unanswered probes was sent."""

    @property
    def responded_at(self) -> datetime | None:
        """When the last answer came."""

    def speed_up(self) -> None:
        """Probe a standby earlier than its own period."""


@dataclass(slots=True)
class ProbeSchedule:
    """State that the tethers of one process share."""

    clock: Clock
    pace: Pace
    lag: LoopLag
    port: int
    known: set[Probed] = field(default_factory=set)
    """Tethers that have been answered before."""
    unresponsive: set[Probed] = field(default_factory=set)
    """Tethers whose last probe is unanswered."""
    away: set[Probed] = field(default_factory=set)
    """Tethers without a connection now."""
    sped_up_at: float = -math.inf
    """When standbys were last probed early, by the monotonic clock."""
    logged_at: float = -math.inf
    """When it was last logged that this process cannot make connections, by the monotonic clock."""

    @property
    def is_fast(self) -> bool:
        """Whether so many are unresponsive at once that this process may be the cause. Then all are probed as often as holders."""
        return len(self.unresponsive) >= MIN_UNRESPONSIVE and 4 * len(self.unresponsive) > len(self.known)

    def speed_up(self) -> None:
        """Probe the standbys soon if needed: only a probe after the silence began can show that this process is not the cause."""
        now = self.clock.monotonic()
        if self.is_fast and now - self.sped_up_at >= self.pace.standby_period:
            self.sped_up_at = now
            # Sorted, so that the order does not depend on where objects lie in memory.
            for tether in sorted(self.known - self.unresponsive, key=lambda one: one.target.ip):
                tether.speed_up()

    def not_asked(self) -> int:
        """Return how many answered their last probe, but were not probed since half of the unresponsive ones stopped answering."""
        began = sorted(at for tether in self.unresponsive if (at := tether.asked_at) is not None)
        if len(began) < MIN_UNRESPONSIVE:
            return 0
        since = began[(len(began) - 1) // 2]
        others = self.known - self.unresponsive
        responses = (tether for tether in others if tether.responded_at is not None and tether.responded_at > since)
        # As many answers as there are unresponsive targets decide it; the rest need not be searched.
        is_settled = sum(1 for _ in itertools.islice(responses, len(self.unresponsive))) == len(self.unresponsive)
        return 0 if is_settled else sum(tether.responded_at is None or tether.responded_at <= since for tether in others)


def phase_of(uid: str) -> float:
    """Return the part of each period at which a pod is probed, from 0 to 1: even over many pods, the same in every process."""
    return crc32(uid.encode()) / 2**32
