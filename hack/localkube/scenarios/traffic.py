"""A steady stream of messages to every shard of one cluster, and what became of each message."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localkube.scenarios.cluster import NAMESPACE
from outside.ledger import Ledger, Senders
from outside.observer import Observer
from outside.traffic import Message, Traffic, TrafficError
from wabiz_sim.gatewaylog import Entry, Kind, Totals
from wabiz_sim.sharding import shard_of

PERIOD_S = 0.2  # from one message of a shard to the next
BURST_PERIOD_S = 0.02  # while a failover is measured to fractions of a second
MOST_OPEN = 12
"""Messages of one shard that wait at a time. More would be load only: the Webapp tries each again every 0.2 s."""
GIVE_UP_S = 90.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a stream from which on it is observed."""

    monotonic: float
    seq: int  # of the last entry in the log of the WhatsApp servers
    shards: int
    totals: Totals  # what the log of the WhatsApp servers came to


@dataclass(frozen=True, slots=True)
class AcceptedMessage:
    """A message that the WhatsApp servers accepted, as its sender knows."""

    shard: int
    by: str  # uid of the Coreapp
    at: float  # `time.time()` of the servers
    known: float  # `time.monotonic()` at which the sender knew it
    home: int = 0  # the shard of its recipient when the mark was set; another number of shards since then makes it another shard


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageResults:
    """What became of the messages since a mark."""

    sent: int
    lost: int  # given up after 90 s, or answered with 201 and unknown to the WhatsApp servers
    rejected: tuple[int, int]  # tries that were not a 201: on the shards that were struck, on the others
    words: Counter[str]  # how they were rejected: status or name of the error
    totals: Totals  # what was added to the log of the WhatsApp servers
    taken: tuple[AcceptedMessage, ...]


class Stream(Traffic):
    """Sends from the beginning of its block to its end. It finds the pods through an observer, so it also sends without an API server."""

    burst_period = BURST_PERIOD_S

    def __init__(
        self, kubeconfig: Path, cluster: str, observer: Callable[[], Observer], *, proxy: str = "", inbound_rate: float = 0
    ) -> None:
        """``observer`` says which one observes now, ``proxy`` and ``inbound_rate`` as for `Traffic`."""
        super().__init__(kubeconfig, NAMESPACE, cluster, deadline=GIVE_UP_S, proxy=proxy, inbound_rate=inbound_rate)
        self._avoided: frozenset[str] = frozenset()
        self._observer = observer
        self._waiting_now: Counter[int] = Counter()
        self._bursts: set[asyncio.Task[None]] = set()
        self._taken: list[Entry] = []  # of the messages that are still of interest: when the servers took them

    async def _refresh(self) -> None:
        labels = {"multiconnect.dev/cluster": self.cluster}
        pods = [pod for pod in self._observer().objects("Pod", self.namespace) if labels.items() <= pod["metadata"]["labels"].items()]
        self._take_addresses([pod for pod in pods if _component(pod) != "webapp" or pod["spec"].get("nodeName") not in self._avoided])

    async def avoid(self, nodes: Collection[str]) -> None:
        """From now on, send no message to a Webapp on these nodes. TrafficError if there is no other ready one."""
        self._avoided = frozenset(nodes)
        await self._refresh()

    async def _send_all(self) -> None:
        await asyncio.sleep(random.uniform(0, PERIOD_S))  # noqa: S311 - not all clusters in one instant
        while not await self._stopped_within(PERIOD_S):
            for shard in range(self.shards):
                self._begin(shard)

    @property
    def spread(self) -> int:
        """Over how many shards the recipients are spread."""
        return self.shards

    @property
    def most_open(self) -> int:
        """How many messages of a shard may wait at a time."""
        return MOST_OPEN

    def _begin(self, shard: int) -> None:
        if self._waiting_now[shard] < self.most_open:
            self._waiting_now[shard] += 1
            task = asyncio.create_task(self._send_one(shard))
            self._open.add(task)
            task.add_done_callback(self._done)

    async def _send_one(self, shard: int) -> None:
        try:
            if shard >= self.spread:
                return  # there are fewer shards by now
            await self.deliver(Message(id=f"c-{secrets.token_hex(8)}", to=self.recipient_in(shard), sent_at=time.monotonic()))
        finally:
            self._waiting_now[shard] -= 1

    def recipient_in(self, shard: int) -> str:
        """A recipient whose messages go through a shard."""
        return next(to for to in iter(self._recipient, None) if shard_of(to, self.spread) == shard)

    def burst(self, shard: int, seconds: float) -> None:
        """Send often to a shard for this long, so that a measurement need not wait for its next message."""

        async def send() -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end and not self._stopped.is_set():
                self._begin(shard)
                await asyncio.sleep(self.burst_period)

        task = asyncio.create_task(send())
        self._bursts.add(task)
        task.add_done_callback(self._bursts.discard)

    def delivered_since(self, shard: int, since: float) -> bool:
        """Whether a message of a shard that was first sent after ``since`` (`time.monotonic()`) has its 201."""
        return any(message.delivered_at is not None and self._counts(message, shard, since) for message in self.messages.values())

    async def mark(self) -> Mark:
        """The place where the stream is now; what was settled before it is in the ledger only. Raises TrafficError."""
        await self._read_log()
        self.shards = int((await self.counters())["shards"])
        self.messages = {key: one for key, one in self.messages.items() if one.delivered_at is None and not one.lost}
        self._taken = [entry for entry in self._taken if entry.message in self.messages]
        return Mark(time.monotonic(), self.log.seq, self.shards, self.log.audit.totals())  # last: what is sent from now on is later

    async def results(self, mark: Mark, struck: Collection[int], *, timeout: float = GIVE_UP_S + 15.0) -> MessageResults:
        """What became of the messages since ``mark``, as soon as none of them waits any more. Raises TrafficError.

        A message that waited when the mark was set counts too, unless it counts for an earlier mark.
        """
        until = time.monotonic()
        mine = claim(self.messages.values(), mark=mark.monotonic, until=until)
        deadline = until + timeout
        while any(one.delivered_at is None and not one.lost for one in mine):
            if time.monotonic() > deadline:
                raise TrafficError(f"messages of {self.cluster} still wait after {timeout:g} s")
            await asyncio.sleep(0.05)
        await self._read_log()
        return account(mine, self._taken, shards=mark.shards, struck=struck, totals=self.log.audit.totals().since(mark.totals))

    async def ledger(self, *others: Senders, timeout: float = GIVE_UP_S + 15.0) -> Ledger:
        """Send nothing new, wait until no message is pending, and return what became of every message since the stream began.

        Messages that are still pending after ``timeout`` seconds count as open. Raises TrafficError, LedgerError.
        """
        with contextlib.suppress(TrafficError):
            await self.drain(timeout)
        return await super().ledger(*others)

    async def _read_log(self) -> None:
        self._taken += [entry for entry in await self.log.read() if entry.kind == Kind.TAKEN]


def claim(messages: Iterable[Message], *, mark: float, until: float) -> list[Message]:
    """The messages that count for the play since a mark: first sent by ``until`` (both `time.monotonic()`), and for no earlier one."""
    mine = [one for one in messages if one.sent_at <= until and one.play in {None, mark}]
    for one in mine:
        one.play = mark
    return mine


def account(mine: Sequence[Message], entries: Sequence[Entry], *, shards: int, struck: Collection[int], totals: Totals) -> MessageResults:
    """What became of messages, by what their senders know and by what the WhatsApp servers logged as taken."""
    by_id = {one.id: one for one in mine}
    known = {entry.message for entry in entries}
    unknown = sum(one.delivered_at is not None and one.id not in known for one in mine)
    rejected = [0, 0]
    words: Counter[str] = Counter()
    for one in mine:
        words.update(one.rejections)
        rejected[shard_of(one.to, shards) not in struck] += one.rejections.total()
    taken = [
        AcceptedMessage(entry.shard, entry.uid, entry.at, message.delivered_at, shard_of(message.to, shards))
        for entry in entries
        if (message := by_id.get(entry.message)) is not None and message.delivered_at is not None
    ]
    lost = sum(one.lost for one in mine) + unknown
    return MessageResults(sent=len(mine), lost=lost, rejected=(rejected[0], rejected[1]), words=words, totals=totals, taken=tuple(taken))


def first_taken(
    taken: Sequence[AcceptedMessage], *, shard: int, begun: float, begun_wall: float, not_by: str = "", by: Collection[str] | None = None
) -> float | None:
    """Seconds from a fault to the first message of a shard whose sender knows it taken afterwards; None if there is none.

    ``begun`` and ``begun_wall`` are `time.monotonic()` and `time.time()` just before the fault. ``not_by``: the holder that failed (its
    uid), whose messages never count. ``by``: uids of those whose messages count; None: of all.
    """
    fits = (
        one.known - begun
        for one in taken
        if one.shard == shard and one.at >= begun_wall and one.by != not_by and (by is None or one.by in by)
    )
    return min((seconds for seconds in fits if seconds >= 0), default=None)


def longest_gap(taken: Sequence[AcceptedMessage], *, begun: float) -> float | None:
    """The longest time after ``begun`` (`time.monotonic()`) in which no sender of some shard learned that its message was taken.

    The worst shard's, by the number of shards when the mark was set; None without any message. Seconds.
    """
    times: dict[int, list[float]] = {}
    for one in taken:
        times.setdefault(one.home, [begun]).append(max(begun, one.known))
    gaps = [after - before for known in times.values() for before, after in itertools.pairwise(sorted(known))]
    return max(gaps, default=None)


def _component(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"]["labels"].get("app.kubernetes.io/component", ""))
