"""What the loop of one cluster remembers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from whatsapp_operator.core import pace
from whatsapp_operator.core.desired import Desired
from whatsapp_operator.core.names import Key, Obj, Ref
from whatsapp_operator.core.snapshot import Attempt, HandoverTimes, Overruled, RejectedWrite, Route
from whatsapp_operator.shell.objects.assemble import Slow
from whatsapp_operator.shell.whatsapp.access import Access

from .event_log import EventLog

UNSENT_KEPT = 20
"""Intents without a call that are remembered: a write may still take effect seconds after its time-out."""


@dataclass(frozen=True, slots=True)
class Denial:
    """The API server's rejection of another write of the last plan, and since when every plan has had such a rejection."""

    text: str
    since: datetime


@dataclass(frozen=True, slots=True)
class NotKept:
    """Fields of an intent that the API server did not store, and when."""

    fields: tuple[str, ...]
    at: datetime


@dataclass(slots=True)
class Memory:
    """What one cluster's loop remembers between observations. If it is lost, the next observations restore it."""

    desired: tuple[Obj, Desired] | None = None
    """The last desired state and what it was read from. While that is unchanged it is used again, with what was derived from it."""
    slow: Slow | None = None
    reading: asyncio.Task[Slow] | None = None
    """Reads the next ``slow``; an observation does not wait for its end."""
    routes: dict[str, Route] = field(default_factory=dict)
    """Routes of the last snapshot, by the name of their Service."""
    since: dict[str, datetime] = field(default_factory=dict)
    handover_times: dict[str, HandoverTimes] = field(default_factory=dict)
    committed: dict[str, Route] = field(default_factory=dict)
    """By epoch: handovers of this process that no status contains yet."""
    settled_at: datetime | None = None
    """When this process last observed the client with the desired shards."""
    rejected: dict[Ref, RejectedWrite] = field(default_factory=dict)
    denial: Denial | None = None
    written: dict[Ref, dict[str, Attempt]] = field(default_factory=dict)
    """What was stored of the fields that this process wrote, by path: values that admission changed are not written again."""
    not_kept: NotKept | None = None
    is_call_due: bool = False
    """Set Shards only waits for an observation that has read the Secrets itself."""
    overruled: Overruled | None = None
    anchored_for: int | None = None
    """The shards for which the StatefulSet's resourceVersion was bumped, since it was last scaled or an intent noted."""
    intent: tuple[str, datetime] | None = None
    """The last observed intent: its id, and when this process first observed it."""
    unsent: deque[str] = field(default_factory=lambda: deque(maxlen=UNSENT_KEPT))
    """Ids of intents that this process tried to note, that may be in status, and that had no call."""
    unassigned: bool = False
    """A Coreapp did not accept its role; it is assigned again soon."""
    admin: Mapping[str, str] | None = field(default=None, repr=False)
    """Content of the generated Secret with which this process has logged in: the client has that password, and nobody else knows it."""
    keeper: Key | None = None
    """The other cluster that keeps this one's phone number, as it was logged last."""
    ended: dict[str, str] = field(default_factory=dict)
    """Pods that this process deleted and that are not back yet: uid by name."""
    pods_at: int = 0
    """The newest resourceVersion of a pod that was listed last."""
    lost: frozenset[str] = frozenset()
    """Holders that were gone or terminating by the events before the last observation, or refused connections."""

    def known_routes(self) -> tuple[Route, ...]:
        """Return the routes of the last snapshot and of this process's own handovers, of which no event may have come yet."""
        return (*self.routes.values(), *self.committed.values())

    def close(self) -> None:
        """Cancel the read in progress."""
        if self.reading is not None:
            self.reading.cancel()
            self.reading = None


@dataclass(slots=True)
class Cluster:
    """One cluster's loop: its task, what wakes it, and what it remembers."""

    key: Key
    uid: str | None = None
    """That of the last observed resource; None: none yet."""
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    is_urgent: bool = False
    """It was woken by an event that a failover may depend on."""
    alarmed: asyncio.Event = field(default_factory=asyncio.Event)
    """Such an event has come while the loop waits for its writes."""
    memory: Memory = field(default_factory=Memory)
    quiet: Access | None = field(default=None, repr=False)
    """Access for asking the client again while the cluster is quiet; None: it is not quiet."""
    task: asyncio.Task[None] | None = None
    events: EventLog = field(default_factory=EventLog)
    tokens: float = pace.OBSERVATION_BURST
    tokens_at: float = float("-inf")
    """When ``tokens`` was computed, by the monotonic clock."""
    failures: int = 0
    """Consecutive observations that failed, or whose actions failed."""
    failing_since: float | None = None
    """Since when every observation failed, by the monotonic clock."""
    logged: tuple[str, float] | None = None
    """The failure that was logged last, and when, by the monotonic clock; None: the last observation did not fail."""
    reported: tuple[Obj, Obj] | None = None
    """The last status that was written, and what was stored of it; None: all of it was."""
    counted: str = ""
    """The id of the Set Shards call whose answer was counted last."""

    def close(self) -> None:
        """End what runs in the background."""
        self.memory.close()
        self.events.close()

    def reset(self, uid: str) -> None:
        """Drop everything that is remembered about the former cluster of this name (laws#14)."""
        self.close()
        self.uid, self.memory, self.quiet, self.reported, self.counted = uid, Memory(), None, None, ""
        self.events, self.failures = EventLog(), 0

    def drop_read(self) -> None:
        """Drop objects that are too old to be used again, and what was derived from the spec: to derive it again takes a millisecond."""
        self.memory.slow = self.memory.desired = None

    @contextmanager
    def dropping_after(self, seconds: float) -> Iterator[asyncio.TimerHandle]:
        """Within the block, call ``drop_read`` after ``seconds``, unless the timer is cancelled: very many clusters may wait."""
        timer = asyncio.get_running_loop().call_later(seconds, self.drop_read)
        try:
            yield timer
        finally:
            timer.cancel()

    async def woken_within(self, seconds: float) -> bool:
        """Return whether it was woken in this time; returns at once when it is."""
        try:
            async with asyncio.timeout(seconds):
                return await self.woken.wait()
        except TimeoutError:
            return False

    async def allowance(self, now: float) -> None:
        """Wait until the cluster may be observed again: a cluster that is woken all the time must not delay others.

        ``now`` is the time by the monotonic clock.
        """
        self.tokens = pace.tokens(self.tokens, now - self.tokens_at) - 1
        self.tokens_at = now
        if self.tokens < 0:
            await asyncio.sleep(-self.tokens / pace.OBSERVATIONS_PER_SECOND)
