"""What the loop of one cluster remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from whatsapp_operator.core import pace
from whatsapp_operator.core.names import Key, Obj
from whatsapp_operator.shell.whatsapp.access import Access

from .event_log import EventLog
from .observe import Memory


@dataclass(slots=True)
class Cluster:
    """One cluster's loop: its task, what wakes it, and what it remembers."""

    key: Key
    uid: str | None = None
    """Of the last observed resource; None: none yet."""
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    is_urgent: bool = False
    """It was woken by an event that a failover may depend on."""
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
    reported: tuple[Obj, Obj] | None = None
    """The last status that was written, and what was stored of it; None: all of it was."""
    counted: str = ""
    """The id of the Set Shards call whose answer was counted last."""

    def close(self) -> None:
        """End what goes on in the background."""
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
        """Within the block, ``drop_read`` after so many seconds, unless the timer is cancelled: very many clusters may wait."""
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
        """Wait until the cluster may be observed again: one that is woken all the time must not delay others.

        ``now`` is the time by the monotonic clock.
        """
        self.tokens = pace.tokens(self.tokens, now - self.tokens_at) - 1
        self.tokens_at = now
        if self.tokens < 0:
            await asyncio.sleep(-self.tokens / pace.OBSERVATIONS_PER_SECOND)
