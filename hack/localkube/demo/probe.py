"""Messages to one shard, one every few milliseconds, so that a failover is measured as its sender feels it."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from localkube.demo.cluster import NAME, NAMESPACE, Cluster, Obj
from localkube.errors import LocalKubeError
from wabiz_sim.sharding import shard_of

PERIOD_S = 0.005
MOST_UNDER_WAY = 32
"""Messages that wait at a time. More would only be load: those that wait are tried again by the Webapp every few milliseconds in all."""
TRY_S = 10.0
GIVE_UP_S = 60.0
"""A message that was not taken for so long counts as lost."""
LOOK_S = 0.02
PAGE = 10_000
WARM = MOST_UNDER_WAY
RESTART_S = 0.1
"""A hollow container starts again so long after its end."""


class NotHandedOverError(LocalKubeError):
    """Nobody took a shard over in the time that is allowed."""


@dataclass
class Sent:
    """One message: when its sender first sent it and when it was told that it was taken (``time.monotonic()``)."""

    at: float
    taken_at: float | None = None
    tries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """How a shard's messages got over a handover. Times in seconds."""

    first: float
    """From the beginning to the first message that its sender knows taken by the next holder."""
    accepted: float
    """From the beginning to when the WhatsApp servers took the first message from the next holder."""
    by: str
    """uid of the next holder."""
    resumed: bool
    """The same pod, started anew, was first: no handover was needed."""


@dataclass
class Probe:
    """Sends while its block runs; a message that is refused is sent again under the same id until it is taken."""

    cluster: Cluster
    url: str
    token: str
    session: aiohttp.ClientSession
    recipient: str
    period: float = PERIOD_S
    sent: dict[str, Sent] = field(default_factory=dict)
    after: int = 0
    """Sequence number of the upstream's messages from which on ours may lie."""
    _ours: dict[str, Obj] = field(default_factory=dict)
    _name: str = field(default_factory=lambda: f"probe-{uuid.uuid4().hex[:8]}")
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Send until cancelled."""
        clock = asyncio.get_running_loop().time
        next_at = clock()
        for number in itertools.count():
            if len(self._under_way) < MOST_UNDER_WAY:
                task = asyncio.create_task(self._send(f"{self._name}-{number}"))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            next_at = max(next_at + self.period, clock())
            await asyncio.sleep(next_at - clock())

    async def _send(self, message_id: str) -> None:
        sent = self.sent[message_id] = Sent(time.monotonic())
        headers = {"Authorization": f"Bearer {self.token}", "X-Message-Id": message_id}
        body = {"to": self.recipient, "type": "text", "text": {"body": "are you there?"}}
        host = f"{NAME}-webapp.{NAMESPACE}.svc"
        while time.monotonic() < sent.at + GIVE_UP_S:
            sent.tries += 1
            try:
                async with self.session.post(f"{self.url}/v1/messages", json=body, headers=headers, server_hostname=host) as response:
                    await response.read()
                if response.status == 201:
                    sent.taken_at = time.monotonic()
                    return
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
            await asyncio.sleep(0.02)

    async def greet(self) -> None:
        """Open a connection, for later."""
        async with self.session.get(f"{self.url}/", server_hostname=f"{NAME}-webapp.{NAMESPACE}.svc") as response:
            await response.read()

    async def quiet(self) -> None:
        """Wait until no message is under way any more."""
        while self._under_way:
            await asyncio.wait(set(self._under_way), timeout=GIVE_UP_S)

    @property
    def lost(self) -> int:
        """Messages whose senders gave up."""
        return 0 if self._under_way else sum(one.taken_at is None for one in self.sent.values())

    async def passage(self, *, begun: float, begun_wall: float, old: str, may_resume: bool, timeout: float) -> Passage:
        """Wait for the first message through the next holder. NotHandedOverError if none comes within ``timeout`` seconds.

        ``begun`` and ``begun_wall`` are ``time.monotonic()`` and ``time.time()`` just before the fault; ``old`` is the uid of the holder
        until then. With ``may_resume`` its own messages count too, from when its container can be back: then nobody had to take over.
        """
        deadline = time.monotonic() + timeout
        rows: list[Obj] = []
        while not rows:
            if time.monotonic() > deadline:
                msg = f"no message came through another Coreapp within {timeout:g} s"
                raise NotHandedOverError(msg)
            await asyncio.sleep(LOOK_S)
            await self._look()
            rows = through_next(self._ours.values(), begun_wall=begun_wall, old=old, may_resume=may_resume)
        taken: list[float] = []
        while not taken:
            await asyncio.sleep(0.001)
            taken = [at for row in rows if (at := self.sent[row["id"]].taken_at) is not None]
            if time.monotonic() > deadline + TRY_S:
                msg = "the WhatsApp servers took a message whose sender was never told so"
                raise LocalKubeError(msg)
        first = min(rows, key=lambda row: float(row["at"]))
        return Passage(first=min(taken) - begun, accepted=float(first["at"]) - begun_wall, by=str(first["by"]), resumed=first["by"] == old)

    def longest(self, since: float) -> float:
        """The longest that the sender of a message taken at ``since`` or later had to wait, seconds."""
        waits = [one.taken_at - one.at for one in self.sent.values() if one.taken_at is not None and one.taken_at >= since]
        return max(waits, default=0.0)

    async def longest_gap(self) -> float:
        """The longest time, in seconds, within which none of our messages was taken by the WhatsApp servers."""
        await self._look()
        times = sorted(float(row["at"]) for row in self._ours.values())
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)

    async def _look(self) -> None:
        answer = await self.cluster.upstream(f"messages?after={self.after}&limit={PAGE}")
        for row in answer["messages"]:
            self.after = row["seq"]
            if row["id"] in self.sent:
                self._ours[row["id"]] = row


def through_next(rows: Iterable[Obj], *, begun_wall: float, old: str, may_resume: bool) -> list[Obj]:
    """The messages that came after a fault at ``begun_wall`` (``time.time()``) through another Coreapp than ``old``, or it started anew."""
    back_at = begun_wall + RESTART_S
    return [row for row in rows if (row["by"] != old and row["at"] >= begun_wall) or (may_resume and row["at"] >= back_at)]


@asynccontextmanager
async def probing(cluster: Cluster, *, shard: int, shards: int, period: float = PERIOD_S) -> AsyncIterator[Probe]:
    """Messages to a shard from the beginning of the block to its end; leaving it waits until all are taken or given up."""
    url, context, token = await cluster.webapp()
    recipient = next(to for number in itertools.count() if shard_of(to := f"1631555{number:04d}", shards) == shard)
    connector = aiohttp.TCPConnector(limit=0, ssl=context, keepalive_timeout=300)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=TRY_S)) as session:
        probe = Probe(cluster, url, token, session, recipient, period, after=await last_message(cluster))
        # Connections for all messages that a failover can hold up: the handshakes would take the time that is measured.
        await asyncio.gather(*(probe.greet() for _ in range(WARM)))
        sending = asyncio.create_task(probe.run())
        try:
            yield probe
        finally:
            sending.cancel()
            await asyncio.wait({sending})
            await probe.quiet()


async def last_message(cluster: Cluster) -> int:
    """Sequence number of the last message that the WhatsApp servers took."""
    after = 0
    while rows := (await cluster.upstream(f"messages?after={after}&limit={PAGE}"))["messages"]:
        after = rows[-1]["seq"]
    return after
