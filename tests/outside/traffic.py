"""A load generator: sends messages through the Webapps of a cluster, takes inbound ones at a webhook, and counts both.

It reaches pods by their addresses, so it runs where they can be reached: next to hollow nodes. What it counts is checked against the
log of the simulator's WhatsApp servers (`/control/frames`), which the vendor's client does not have.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from outside.ledger import GatewayLog, Inbound, Ledger, Senders, settle
from outside.webapps import TRY_SECONDS, TrafficError, Webapps
from wabiz_sim.sharding import shard_of

__all__ = ["Message", "Report", "Traffic", "TrafficError"]

Obj = dict[str, Any]

REFRESH_SECONDS = 1.0
PAUSE_SECONDS = 0.03
"""Between two tries."""
MOST_OPEN = 64
"""Messages that wait for their 201 at a time, beyond which no new one is sent."""


@dataclass(slots=True)
class Message:
    """One outbound message; times are `time.monotonic()`."""

    id: str
    to: str
    sent_at: float
    delivered_at: float | None = None
    """When the Webapp answered 201."""
    tries: int = 0
    rejections: Counter[str] = field(default_factory=Counter)
    """Status, or name of the error, of every try that was not a 201."""
    lost: bool = False
    """The deadline passed without a 201."""
    play: float | None = None
    """The mark of the play that counts it; None while none does."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a run came to."""

    ledger: Ledger
    """What became of every message since the traffic began."""
    delivered: dict[int, int]
    """By shard (by the number of shards at the end)."""
    rejections: dict[str, int]
    """By status or error, over all tries."""
    slowest: float
    """Seconds from the first try to the 201."""
    upstream: Obj
    """`/control/counters` at the end."""

    @property
    def lost(self) -> int:
        """Not delivered by the deadline, or answered with 201 and yet unknown to the WhatsApp servers."""
        return self.ledger.undelivered - self.ledger.open

    @property
    def doubled(self) -> int:
        """Ids that the WhatsApp servers took more than once, by the log of all frames that they were sent."""
        return self.ledger.totals.doubled

    @property
    def two_holders(self) -> int:
        """How often two Coreapps could be served as holders of one shard, by the log of the WhatsApp servers."""
        return self.ledger.totals.two_holders


class Traffic(Webapps):
    """Sends from the beginning of its `async with` block until its count or time is over, `stop` is called, or the block ends."""

    def __init__(
        self,
        kubeconfig_path: Path,
        namespace: str,
        cluster: str,
        *,
        rate: float = 20.0,
        count: int = 10_000,
        seconds: float = 600.0,
        deadline: float = 120.0,
        inbound_rate: float = 0.0,
        proxy: str = "",
    ) -> None:
        """Prepare.

        ``rate``: messages a second; ``count`` and ``seconds`` bound the run; ``deadline``: seconds until a message counts as lost;
        ``inbound_rate``: inbound messages a second (0: none, and the webhook is not set); ``proxy``: URL of an HTTP proxy to the pods.
        """
        super().__init__(kubeconfig_path, namespace, cluster, proxy=proxy)
        self.focus: int | None = None
        """Send only to recipients of this shard; None: to all."""
        self.shards = 1
        """Number of shards as the simulator last said it."""
        self.messages: dict[str, Message] = {}
        """What is still of interest; the ledger forgets nothing."""
        self.senders = Senders()
        self.log = GatewayLog(lambda path: self._control("GET", f"/control/{path}"))
        self._rate, self._count, self._seconds, self._deadline = rate, count, seconds, deadline
        self._inbound_rate = inbound_rate
        self._stopped = asyncio.Event()
        self._moved = asyncio.Event()
        """Set whenever a message is done with, outbound or inbound."""
        self._open: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._waiting: list[tuple[int, float, asyncio.Future[float]]] = []
        self._runner: web.AppRunner | None = None
        self._inbound = Inbound()

    # ------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        """Find the Webapps, log in, set the webhook if there is inbound traffic, and begin. Raises TrafficError."""
        await super().__aenter__()
        loops = [self._keep_fresh(), self._send_all()]
        if self._inbound_rate > 0:
            try:
                await self._receive()
            except BaseException:
                await self.__aexit__()
                raise
            loops.append(self._inject_all())
        self._loops = [asyncio.create_task(loop) for loop in loops]
        return self

    async def __aexit__(self, *_: object) -> None:
        """End everything; messages that still wait stay open in the ledger."""
        self._stopped.set()
        tasks = [*self._loops, *self._open]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        await super().__aexit__()

    def stop(self) -> None:
        """Send nothing new; what waits goes on until its 201 or its deadline."""
        self._stopped.set()

    async def finish(self, timeout: float = 60.0) -> Report:
        """Send nothing new, wait until nothing waits (inbound too), and report. TrafficError if that takes too long."""
        await self.drain(timeout)
        return await self.report()

    async def drain(self, timeout: float) -> None:
        """Send nothing new and wait until nothing waits. TrafficError after ``timeout`` seconds."""
        self.stop()
        try:
            async with asyncio.timeout(timeout):
                while self._open or not self._inbound.sure <= self._inbound.arrived.keys():
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            inbound = len(self._inbound.sure - self._inbound.arrived.keys())
            waiting = f"{len(self._open)} messages of {self.cluster} still wait for their 201, {inbound} inbound ones for the webhook"
            msg = f"after {timeout:g} s {waiting}"
            raise TrafficError(msg) from None

    # ------------------------------------------------------------ what was measured

    async def next_delivery(self, shard: int, after: float, *, timeout: float = 60.0) -> float:
        """Seconds from ``after`` (`time.monotonic()`) to the first 201 of a message of ``shard`` that was first sent since then.

        Raises TrafficError after ``timeout`` seconds.
        """
        for message in self.messages.values():
            if self._counts(message, shard, after) and message.delivered_at is not None:
                return message.delivered_at - after
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append((shard, after, future))
        try:
            return await asyncio.wait_for(future, timeout)
        except TimeoutError:
            waiting = sum(message.delivered_at is None and shard_of(message.to, self.shards) == shard for message in self.messages.values())
            msg = f"no message of shard {shard} of {self.cluster} was delivered within {timeout:g} s; {waiting} wait"
            raise TrafficError(msg) from None

    def _counts(self, message: Message, shard: int, after: float) -> bool:
        return message.sent_at >= after and shard_of(message.to, self.shards) == shard

    async def ledger(self, *others: Senders) -> Ledger:
        """What became of every message so far, also of those that ``others`` sent. Raises TrafficError, LedgerError.

        The senders may go on: what they learn while the servers are asked is not held against answers that came before it.
        """
        senders = self.senders, *others
        earlier, inbound = [dict(one.states) for one in senders], replace(self._inbound, sure={*self._inbound.sure})
        await self.log.read()
        waiting: list[str] = (await self._control("GET", "/control/waiting"))["waiting"]
        return settle([one.as_of(states) for one, states in zip(senders, earlier, strict=True)], self.log, inbound.count(waiting))

    async def report(self) -> Report:
        """What it came to so far. Raises TrafficError when the simulator cannot be asked, LedgerError when its figures do not add up."""
        ledger, upstream = await self.ledger(), await self.counters()
        self.shards = int(upstream["shards"])
        rejections: Counter[str] = Counter()
        delivered = dict.fromkeys(range(self.shards), 0)
        slowest = 0.0
        for message in self.messages.values():
            rejections.update(message.rejections)
            if message.delivered_at is not None:
                delivered[shard_of(message.to, self.shards)] += 1
                slowest = max(slowest, message.delivered_at - message.sent_at)
        return Report(ledger, delivered, dict(rejections), slowest, upstream)

    # ------------------------------------------------------------ outbound

    async def _send_all(self) -> None:
        loop = asyncio.get_running_loop()
        due = begun = loop.time()
        for _ in range(self._count):
            due = max(due + 1 / self._rate, loop.time() - 1.0)  # after a jam no more than a second is compensated at once
            if await self._stopped_within(due - loop.time()) or loop.time() - begun > self._seconds:
                return
            while len(self._open) >= MOST_OPEN:
                if await self._stopped_within(PAUSE_SECONDS):
                    return
            task = asyncio.create_task(
                self.deliver(Message(id=f"t-{secrets.token_hex(8)}", to=self._recipient(), sent_at=time.monotonic()))
            )
            self._open.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        self._moved.set()

    async def _stopped_within(self, seconds: float) -> bool:
        if seconds <= 0:
            return self._stopped.is_set()
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            # It may have been stopped in this very moment; then nothing more may be sent.
            return self._stopped.is_set()
        return True

    def _recipient(self) -> str:
        while True:
            to = f"49{random.randrange(10**9, 10**10)}"
            if self.focus is None or shard_of(to, self.shards) == self.focus:
                return to

    async def deliver(self, message: Message) -> None:
        """Try one message again and again with the same id until a 201 or the deadline."""
        self.messages[message.id] = message
        self.senders.begin(message.id)
        body = {"to": message.to, "type": "text", "text": {"body": "hello"}}
        while True:
            message.tries += 1
            status = await self._try("POST", "/v1/messages", body, {"X-Message-Id": message.id})
            now = time.monotonic()
            if status == "201":
                message.delivered_at = now
                self.senders.confirmed(message.id)
                self._delivered(message)
                return
            message.rejections[status] += 1
            if now - message.sent_at > self._deadline:
                message.lost = True
                self.senders.gave_up(message.id)
                return
            await asyncio.sleep(PAUSE_SECONDS)

    def _delivered(self, message: Message) -> None:
        for entry in list(self._waiting):
            shard, after, future = entry
            if future.done():
                self._waiting.remove(entry)
            elif self._counts(message, shard, after) and message.delivered_at is not None:
                self._waiting.remove(entry)
                future.set_result(message.delivered_at - after)

    # ------------------------------------------------------------ inbound

    async def _receive(self) -> None:
        """Listen as a webhook and set its address in the client."""

        async def hook(request: web.Request) -> web.Response:
            for message in (await request.json()).get("messages") or ():
                self._inbound.arrived[message["id"]] += 1
            self._moved.set()
            return web.Response()

        app = web.Application()
        app.router.add_post("/hook", hook)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"
        status = await self._try("PATCH", "/v1/settings/application", {"webhooks": {"url": url}}, {})
        if status != "200":
            msg = f"the Webapps of {self.cluster} do not take the webhook's address: {status}"
            raise TrafficError(msg)

    async def _inject_all(self) -> None:
        """Have WhatsApp users write to the account."""
        while not await self._stopped_within(1 / self._inbound_rate):
            await self._inject(f"i-{secrets.token_hex(8)}")

    async def _inject(self, message_id: str) -> None:
        self._inbound.unsure.add(message_id)
        try:
            await self._control("POST", "/control/inbound", within=TRY_SECONDS, id=message_id, **{"from": self._recipient(), "body": "hi"})
        except TrafficError:
            return
        self._inbound.sure.add(message_id)
        self._moved.set()

    async def _keep_fresh(self) -> None:
        while not await self._stopped_within(REFRESH_SECONDS) or self._open:
            try:
                await self._refresh()
                counters = await self.counters(within=TRY_SECONDS)
                self.shards = int(counters["shards"])
                self.log.found(counters["database"])
            except TrafficError:
                await asyncio.sleep(PAUSE_SECONDS)
            if self._stopped.is_set():
                await asyncio.sleep(REFRESH_SECONDS)
