"""Messages dense enough to measure a failover as its sender feels it, at a rate that can be changed."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from localkube.scenarios.traffic import Mark, Stream
from outside.observer import Observer
from outside.traffic import Message

RATE = 10.0
IDLE_S = 0.05
"""How soon another rate takes effect, from none."""
MOST_WAITING = 64
"""Messages that wait at a time, over all shards. More would only be load: the Webapps try each again every 20 to 200 ms."""


class Probe(Stream):
    """Sends to every shard in turn, from the beginning of its block to its end; each message has a recipient of its own."""

    burst_period = 0.005

    def __init__(
        self, kubeconfig: Path, cluster: str, observer: Callable[[], Observer], *, rate: float = RATE, inbound_rate: float = 0.0
    ) -> None:
        """Prepare; ``rate``: messages a second over all shards, ``inbound_rate``: of those that WhatsApp users write."""
        super().__init__(kubeconfig, cluster, observer, inbound_rate=inbound_rate)
        self._rate, self._spread = rate, 0
        self._earlier: dict[str, Message] = {}
        self._recipients: set[str] = set()

    @contextmanager
    def pace(self, rate: float, *, spread: int = 0) -> Iterator[None]:
        """Send at another rate while the block lasts (0: not at all); if ``spread`` is given, as if there were that many shards."""
        before = self._rate, self._spread
        self._rate, self._spread = rate, spread
        try:
            yield
        finally:
            self._rate, self._spread = before

    @property
    def sent(self) -> list[Message]:
        """All messages so far."""
        return list((self._earlier | self.messages).values())

    def delivered(self) -> list[tuple[float, float]]:
        """When each message that was taken was first sent, and when its sender got 201 (`time.monotonic()`)."""
        return [(one.sent_at, one.delivered_at) for one in self.sent if one.delivered_at is not None]

    async def mark(self) -> Mark:
        """As a stream's, with connections for all messages that a failover can hold up: handshakes would take the time that is measured."""
        await asyncio.gather(*(self._try("GET", "/", {}, {}) for _ in range(MOST_WAITING // 2)))
        self._earlier |= self.messages
        found = await super().mark()
        return replace(found, shards=max(found.shards, self._spread))

    @property
    def spread(self) -> int:
        """As many shards as there are, or as `pace` says."""
        return self._spread or self.shards

    @property
    def most_open(self) -> int:
        """Of each shard the same share of all that may wait."""
        return max(2, MOST_WAITING // self.spread)

    def recipient_in(self, shard: int) -> str:
        """A recipient to whom nothing was sent yet."""
        self._recipients.add(to := next(to for to in iter(partial(super().recipient_in, shard), None) if to not in self._recipients))
        return to

    def taken(self) -> Counter[str]:
        """How many messages the WhatsApp servers took for each recipient since the last mark, as far as their log was read."""
        return Counter(entry.note for entry in self._taken)

    async def _send_all(self) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        for number in itertools.count():
            due = max(due + (1 / self._rate if self._rate else IDLE_S), clock() - 1.0)  # after a jam a second is made up for at most
            if await self._stopped_within(due - clock()):
                return
            if self._rate:
                self._begin(number % self.spread)
