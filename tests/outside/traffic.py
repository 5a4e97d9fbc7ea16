"""A customer: sends messages through the Webapps of a cluster and takes inbound ones at a webhook, and keeps count of both.

It reaches pods by their addresses, so it runs where they can be reached: beside hollow nodes. What it counts is checked against the
log of the simulator's WhatsApp servers (`/control/frames`), which the vendor's client does not have.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import http.client
import itertools
import json
import random
import secrets
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from aiohttp import web

from localkube.errors import LocalKubeError
from localkube.plane import kubeconfig
from localkube.plane.kubeconfig import Caller
from outside.ledger import GatewayLog, Inbound, Ledger, Senders, settle
from wabiz_sim.sharding import shard_of

Obj = dict[str, Any]

WEBAPP_PORT = 8443
UPSTREAM_PORT = 8080
TRY_SECONDS = 6.0
"""A Webapp answers after 5 s at the latest, when a Coreapp hangs."""
REFRESH_SECONDS = 1.0
PAUSE_SECONDS = 0.03
NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


class TrafficError(LocalKubeError):
    """The cluster could not be used as a customer would; the text says what failed and where."""


@dataclass(slots=True)
class Message:
    """One outbound message; times are `time.monotonic()`."""

    id: str
    to: str
    sent_at: float
    delivered_at: float | None = None
    """When the Webapp answered 201."""
    tries: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    """Status, or name of the error, of every try that was not a 201."""
    lost: bool = False
    """The deadline passed without a 201."""
    play: float | None = None
    """The mark of the play that counts it; None while none does."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a run came to; times in seconds."""

    sent: int
    delivered: int
    lost: int
    """Not delivered by the deadline, or answered with 201 and yet unknown to the WhatsApp servers."""
    doubled: int
    """Ids that the WhatsApp servers took more than once, by the log of all frames that they were sent."""
    still_open: int
    retries: int
    refusals: dict[str, int]
    """By status or error, over all tries."""
    slowest: float
    """From the first try to the 201."""
    shards: dict[int, Obj]
    """Per shard (by the number of shards at the end): sent, delivered, slowest, longest_gap between two deliveries."""
    inbound_injected: int
    inbound_arrived: int
    inbound_again: int
    """Arrivals beyond the first of an id: the webhook is served at least once, not exactly once."""
    upstream: Obj
    """`/control/counters` at the end."""
    ledger: Ledger
    """What became of every message since the traffic began."""

    @property
    def two_holders(self) -> int:
        """How often two Coreapps could be served as holders of one shard, by the log of the WhatsApp servers."""
        return self.ledger.totals.two_holders

    def as_json(self) -> Obj:
        """The figures for a file."""
        names = ("sent", "delivered", "lost", "doubled", "still_open", "retries", "refusals", "slowest", "shards")
        inbound = ("inbound_injected", "inbound_arrived", "inbound_again")
        counted = ("accepted", "duplicates", "fenced", "replaced", "restarts")
        figures = {name: getattr(self, name) for name in (*names, "two_holders", *inbound)}
        return figures | {name: self.upstream.get(name) for name in counted} | {"ledger": self.ledger.as_json()}


class Traffic:
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
        most_open: int = 64,
        pause: float = PAUSE_SECONDS,
        proxy: str = "",
    ) -> None:
        """Prepare.

        ``rate``: messages a second; ``count`` and ``seconds`` bound the run; ``deadline``: seconds until a message counts as lost;
        ``inbound_rate``: inbound messages a second (0: none, and the webhook is not set); ``most_open``: messages that wait for their
        201 at a time, beyond which no new one is sent; ``pause``: seconds between two tries; ``proxy``: URL of an HTTP proxy to the pods.
        """
        self.namespace, self.cluster = namespace, cluster
        self.focus: int | None = None
        """Send only to recipients of this shard; None: to all."""
        self.shards = 1
        """Number of shards as the simulator last said it."""
        self.messages: dict[str, Message] = {}
        """What is still of interest; the ledger forgets nothing."""
        self.senders = Senders()
        self.log = GatewayLog(lambda path: self._control("GET", f"/control/{path}"))
        self._rate, self._count, self._seconds, self._deadline = rate, count, seconds, deadline
        self._inbound_rate, self._most_open, self._pause, self._proxy = inbound_rate, most_open, pause, proxy or None
        self._cluster_api = Caller(kubeconfig.read(kubeconfig_path))
        self._webapps: list[str] = []
        self._turn = itertools.count()
        self._upstream = ""
        self._token = ""
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None
        self._login_lock = asyncio.Lock()
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
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=TRY_SECONDS))
        try:
            self._tls = await self._trust()
            await self._refresh()
            await self._log_in("")
            if self._inbound_rate > 0:
                await self._receive()
        except BaseException:
            await self._close()
            raise
        self._loops = [asyncio.create_task(self._keep_fresh()), asyncio.create_task(self._send_all())]
        if self._inbound_rate > 0:
            self._loops.append(asyncio.create_task(self._inject_all()))
        return self

    async def __aexit__(self, *_: object) -> None:
        """End everything; messages that still wait stay open in the books."""
        await self._close()

    async def _close(self) -> None:
        self._stopped.set()
        tasks = [*self._loops, *self._open]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

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
            msg = (
                f"after {timeout:g} s {len(self._open)} messages of {self.cluster} still wait for their 201, {inbound} inbound ones for us"
            )
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
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            waiting = sum(message.delivered_at is None and shard_of(message.to, self.shards) == shard for message in self.messages.values())
            msg = f"no message of shard {shard} of {self.cluster} was delivered within {timeout:g} s; {waiting} wait"
            raise TrafficError(msg) from None

    def _counts(self, message: Message, shard: int, after: float) -> bool:
        return message.sent_at >= after and shard_of(message.to, self.shards) == shard

    async def counters(self) -> Obj:
        """The simulator's own counters: accepted, duplicates, fenced and more. Raises TrafficError."""
        return await self._control("GET", "/control/counters")

    async def ledger(self, *others: Senders) -> Ledger:
        """What became of every message so far, also of those that ``others`` sent. Raises TrafficError, LedgerError."""
        await self.log.read()
        waiting: list[str] = (await self._control("GET", "/control/waiting"))["waiting"]
        return settle((self.senders, *others), self.log, self._inbound.count(waiting))

    async def report(self) -> Report:
        """What it came to so far. Raises TrafficError when the simulator's books cannot be read, LedgerError when they do not add up."""
        ledger = await self.ledger()
        upstream = await self.counters()
        self.shards = int(upstream["shards"])
        messages = list(self.messages.values())
        refusals: Counter[str] = Counter()
        for message in messages:
            refusals.update(message.refusals)
        return Report(
            sent=ledger.sent,
            delivered=ledger.delivered,
            lost=ledger.undelivered - ledger.open,
            doubled=ledger.totals.doubled,
            still_open=ledger.open,
            retries=sum(max(0, message.tries - 1) for message in messages),
            refusals=dict(refusals),
            slowest=max((_took(message) for message in messages if message.delivered_at is not None), default=0.0),
            shards={shard: self._shard_report(shard) for shard in range(self.shards)},
            inbound_injected=ledger.inbound_injected,
            inbound_arrived=ledger.inbound_arrived,
            inbound_again=ledger.inbound_again,
            upstream=upstream,
            ledger=ledger,
        )

    def _shard_report(self, shard: int) -> Obj:
        mine = [message for message in self.messages.values() if shard_of(message.to, self.shards) == shard]
        times = sorted(message.delivered_at for message in mine if message.delivered_at is not None)
        return {
            "sent": len(mine),
            "delivered": len(times),
            "slowest": max((_took(message) for message in mine if message.delivered_at is not None), default=0.0),
            "longest_gap": max((after - before for before, after in itertools.pairwise(times)), default=0.0),
        }

    # ------------------------------------------------------------ outbound

    async def _send_all(self) -> None:
        loop = asyncio.get_running_loop()
        due = begun = loop.time()
        for _ in range(self._count):
            due = max(due + 1 / self._rate, loop.time() - 1.0)  # after a jam no more than a second is made good at once
            if await self._stopped_within(due - loop.time()) or loop.time() - begun > self._seconds:
                return
            while len(self._open) >= self._most_open:
                if await self._stopped_within(self._pause):
                    return
            task = asyncio.create_task(self._send(Message(id=f"t-{secrets.token_hex(8)}", to=self._recipient(), sent_at=time.monotonic())))
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

    async def _send(self, message: Message) -> None:
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
                self.senders.told(message.id)
                self._delivered(message)
                return
            message.refusals[status] += 1
            if now - message.sent_at > self._deadline:
                message.lost = True
                self.senders.gave_up(message.id)
                return
            await asyncio.sleep(self._pause)

    def _delivered(self, message: Message) -> None:
        for entry in list(self._waiting):
            shard, after, future = entry
            if future.done():
                self._waiting.remove(entry)
            elif self._counts(message, shard, after) and message.delivered_at is not None:
                self._waiting.remove(entry)
                future.set_result(message.delivered_at - after)

    async def _try(self, method: str, path: str, body: Obj, headers: Mapping[str, str]) -> str:
        """One call to one Webapp, the next in turn: the status, or the name of the error; a token that ran out is replaced."""
        if not self._webapps:
            return "NoWebapp"
        token = self._token
        try:
            status, _ = await self._call(method, path, body, {**headers, "Authorization": f"Bearer {token}"})
        except NO_ANSWER as error:
            return type(error).__name__
        if status == 401:
            try:
                await self._log_in(token)
            except TrafficError:
                return "LoginRejected"
        return str(status)

    # ------------------------------------------------------------ inbound

    async def _receive(self) -> None:
        """Listen as the customer's webhook and tell the client where."""

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
        """Have WhatsApp users write to us."""
        while not await self._stopped_within(1 / self._inbound_rate):
            await self._inject(f"i-{secrets.token_hex(8)}")

    async def _inject(self, message_id: str) -> None:
        self._inbound.unsure.add(message_id)
        try:
            await self._control("POST", "/control/inbound", id=message_id, **{"from": self._recipient(), "body": "hi"})
        except TrafficError:
            return
        self._inbound.sure.add(message_id)
        self._moved.set()

    # ------------------------------------------------------------ the cluster

    async def _call(self, method: str, path: str, body: Obj, headers: Mapping[str, str]) -> tuple[int, Obj]:
        if self._session is None or self._tls is None or not self._webapps:
            msg = f"no Webapp of {self.cluster} is known"
            raise TrafficError(msg)
        ip = self._webapps[next(self._turn) % len(self._webapps)]
        name = f"{self.cluster}-webapp.{self.namespace}.svc"
        url = f"https://{ip}:{WEBAPP_PORT}{path}"
        tls: Obj = {"ssl": self._tls, "server_hostname": name}
        async with self._session.request(method, url, json=body, headers=headers, proxy=self._proxy, **tls) as response:
            answer = await response.json(content_type=None)
            return response.status, answer if isinstance(answer, dict) else {}

    async def _log_in(self, old: str) -> None:
        """Get a token, unless somebody has replaced ``old`` meanwhile. TrafficError when the password is refused or nobody answers."""
        async with self._login_lock:
            if self._token != old:
                return
            user, password = await self._secret("admin", "username"), await self._secret("admin", "password")
            basic = base64.b64encode(f"{user}:{password}".encode()).decode()
            try:
                status, answer = await self._call("POST", "/v1/users/login", {}, {"Authorization": f"Basic {basic}"})
                if status == 200:
                    self._token = answer["users"][0]["token"]
                    return
            except (*NO_ANSWER, LookupError) as error:
                msg = f"the Webapps of {self.cluster} do not answer a login: {type(error).__name__}"
                raise TrafficError(msg) from None
            msg = f"the Webapps of {self.cluster} refuse the password in Secret {self.cluster}-admin: {status}"
            raise TrafficError(msg)

    async def _keep_fresh(self) -> None:
        while not await self._stopped_within(REFRESH_SECONDS) or self._open:
            try:
                await self._refresh()
                counters = await self.counters()
                self.shards = int(counters["shards"])
                self.log.found(counters["database"])
            except TrafficError:
                await asyncio.sleep(self._pause)
            if self._stopped.is_set():
                await asyncio.sleep(REFRESH_SECONDS)

    async def _refresh(self) -> None:
        """Look where the Webapps and the simulator's upstream are now."""
        query = quote(f"multiconnect.dev/cluster={self.cluster}")
        pods = (await self._get(f"/api/v1/namespaces/{self.namespace}/pods?labelSelector={query}"))["items"]
        self._take_addresses(pods)

    def _take_addresses(self, pods: list[Obj]) -> None:
        self._webapps = sorted(_addresses(pods, "webapp", _is_ready))
        self._upstream = next(_addresses(pods, "simulator", lambda _: True), "")
        if not self._webapps:
            msg = f"no Webapp of {self.namespace}/{self.cluster} is ready"
            raise TrafficError(msg)

    async def _trust(self) -> ssl.SSLContext:
        """How the Webapps are known."""
        return ssl.create_default_context(cadata=await self._secret("webapp-tls", "ca.crt"))

    async def _secret(self, suffix: str, key: str) -> str:
        name = f"{self.cluster}-{suffix}"
        data = (await self._get(f"/api/v1/namespaces/{self.namespace}/secrets/{name}")).get("data") or {}
        try:
            return base64.b64decode(data[key], validate=True).decode()
        except (KeyError, binascii.Error, UnicodeDecodeError):
            msg = f"Secret {self.namespace}/{name} has no readable key {key}"
            raise TrafficError(msg) from None

    async def _get(self, path: str) -> Obj:
        try:
            status, text = await asyncio.to_thread(self._cluster_api.request, "GET", path)
            answer: Obj = json.loads(text)
        except (OSError, http.client.HTTPException, ValueError) as error:
            msg = f"the API server does not answer {path}: {error}"
            raise TrafficError(msg) from error
        if status != 200:
            msg = f"the API server refuses {path}: {status} {answer.get('message', '')}"
            raise TrafficError(msg)
        return answer

    async def _control(self, method: str, path: str, **body: Any) -> Obj:
        """One call to the simulator's own books."""
        if self._session is None or not self._upstream:
            msg = f"the simulator of {self.cluster} is not known: traffic runs only inside 'async with'"
            raise TrafficError(msg)
        url = f"http://{self._upstream}:{UPSTREAM_PORT}{path}"
        try:
            async with self._session.request(method, url, json=body or None, proxy=self._proxy) as response:
                answer: Obj = await response.json(content_type=None)
        except NO_ANSWER as error:
            msg = f"the simulator of {self.cluster} does not answer {path}: {type(error).__name__}: {error}"
            raise TrafficError(msg) from error
        if response.status >= 400:
            msg = f"the simulator of {self.cluster} refuses {path}: {answer}"
            raise TrafficError(msg)
        return answer


def _took(message: Message) -> float:
    return (message.delivered_at or message.sent_at) - message.sent_at


def _addresses(pods: list[Obj], component: str, fits: Callable[[Obj], bool]) -> Iterator[str]:
    for pod in pods:
        ip = (pod.get("status") or {}).get("podIP")
        if ip and pod["metadata"]["labels"].get("app.kubernetes.io/component") == component and fits(pod):
            yield ip


def _is_ready(pod: Obj) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
