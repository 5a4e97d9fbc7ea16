"""The door to the Coreapps: a tether to each one, what it reports over it, and what it is told.

A tether is an open TCP connection to the healthcheck port. It is asked once a period; between two questions it waits for the other side
to go away, which the kernel says at once. "Broken" means: it got FIN or RST and one reconnect was refused (DESIGN section 5).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import aiohttp
import h11

from whatsapp_operator.core.manifests import CONTROL_PORT, HEALTHCHECK_PORT
from whatsapp_operator.core.model import Key, Report, Tell

from .clock import Clock

log = logging.getLogger(__name__)


class Coreapps(Protocol):
    """What the loop needs of the Coreapps."""

    def hold(self, key: Key, addresses: Mapping[str, str]) -> None:
        """Keep a tether to just these pods of a cluster, ``{uid: ip}``."""
        ...

    def report_of(self, uid: str) -> Report | None:
        """Return what a pod said last, or None if it has not spoken since it was last away."""
        ...

    def broken_at(self, uid: str) -> datetime | None:
        """Return since when a pod refuses connections, or None."""
        ...

    async def tell(self, message: Tell) -> bool:
        """Tell a Coreapp its role; return whether it took it. Bounded in time, never raises for the network."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times of tethers, in seconds."""

    period: float = 1.0
    connect_timeout: float = 1.0
    answer_timeout: float = 3.0
    retry: float = 0.1
    tell_timeout: float = 1.0


def read_report(body: bytes) -> Report | None:
    """Return what a Coreapp's answer says; None if it is no such answer."""
    try:
        said: dict[str, Any] = json.loads(body)
        shard, shards = said.get("shard"), said.get("shards")
        return Report(
            shard=int(shard) if shard is not None else None,
            epoch=said.get("epoch"),
            shards=int(shards) if shards is not None else None,
            gateway=str(said.get("gateway_status", "disconnected")),
            version=said.get("version"),
        )
    except (ValueError, TypeError, AttributeError):
        return None


class _Line(asyncio.Protocol):
    """One connection: questions and answers over it, and the moment at which it is lost."""

    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()
        self._answer: asyncio.Future[bytes] | None = None
        self._http = h11.Connection(h11.CLIENT)
        self._transport: asyncio.Transport | None = None
        self._body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport if isinstance(transport, asyncio.Transport) else None

    def data_received(self, data: bytes) -> None:
        try:
            self._http.receive_data(data)
            while (event := self._http.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Data):
                    self._body += event.data
                elif isinstance(event, h11.EndOfMessage) and self._answer is not None and not self._answer.done():
                    self._answer.set_result(bytes(self._body))
        except h11.RemoteProtocolError:
            self.close()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError())

    async def ask(self, host: str) -> bytes:
        """Send the question and return the answer's body; ConnectionError when the line is lost."""
        if self._transport is None or self.lost.done():
            raise ConnectionResetError
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        self._body.clear()
        self._answer = asyncio.get_running_loop().create_future()
        request = h11.Request(method="GET", target="/", headers=[("Host", host)])
        self._transport.write((self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b""))
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Tether:
    """Watches one Coreapp for as long as its task runs."""

    def __init__(self, ip: str, *, clock: Clock, pace: Pace, changed: Callable[[], None]) -> None:
        """Prepare; ``run`` connects. ``changed`` is called whenever ``report`` or ``broken_at`` did."""
        self.ip = ip
        self.report: Report | None = None
        self.broken_at: datetime | None = None
        self._clock = clock
        self._pace = pace
        self._changed = changed

    def take(self, report: Report | None, broken_at: datetime | None = None) -> None:
        """Note what is known now and say so if it differs."""
        if (report, broken_at) != (self.report, self.broken_at):
            self.report, self.broken_at = report, broken_at
            self._changed()

    async def run(self) -> None:
        """Connect, ask, wait, connect again, for ever; ends by cancellation only."""
        # A fresh tether has seen no connection drop: it takes two refusals then, where a dropped one takes one.
        refusals_needed = 2
        refusals = 0
        while True:
            line: _Line | None = None
            try:
                line = await self._connect()
                refusals = 0
                await self._stay(line)
                # Dropped: try again at once, for that answer is the evidence.
                refusals_needed = 1
                self.take(None)
            except ConnectionRefusedError:
                refusals += 1
                if refusals >= refusals_needed:
                    self.take(None, self.broken_at or self._clock.now())
                await asyncio.sleep(self._pace.retry)
            except (OSError, TimeoutError):
                # No answer is no evidence of an end: a lost packet, a slow process.
                self.take(None, self.broken_at)
                await asyncio.sleep(self._pace.retry)
            finally:
                if line is not None:
                    line.close()

    async def _connect(self) -> _Line:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._pace.connect_timeout):
            _, line = await loop.create_connection(_Line, self.ip, HEALTHCHECK_PORT)
        return line

    async def _stay(self, line: _Line) -> None:
        """Ask once a period until the line is lost; an unanswered question ends the stay with TimeoutError."""
        while not line.lost.done():
            async with asyncio.timeout(self._pace.answer_timeout):
                try:
                    report = read_report(await line.ask(self.ip))
                except ConnectionError:
                    return
            pause = self._pace.period
            if report is not None:
                self.take(report)
                if report.shards is None:
                    # It has just started and is about to learn how many shards there are; until then it serves nobody.
                    pause = self._pace.retry
            await asyncio.wait([line.lost], timeout=pause)


class Tethers:
    """Tethers to all Coreapps of all clusters that this process leads."""

    def __init__(self, *, clock: Clock, wake: Callable[[Key], None], pace: Pace | None = None) -> None:
        """Prepare; ``wake`` is called with a cluster whenever something about one of its Coreapps changed."""
        self._clock = clock
        self._wake = wake
        self._pace = pace or Pace()
        self._tethers: dict[str, tuple[Key, Tether, asyncio.Task[None]]] = {}
        self._session: aiohttp.ClientSession | None = None

    def hold(self, key: Key, addresses: Mapping[str, str]) -> None:
        """Keep a tether to just these pods of a cluster, ``{uid: ip}``."""
        self._drop(uid for uid, (owner, tether, _) in self._tethers.items() if owner == key and addresses.get(uid) != tether.ip)
        for uid, ip in addresses.items():
            if uid not in self._tethers:
                tether = Tether(ip, clock=self._clock, pace=self._pace, changed=lambda: self._wake(key))
                self._tethers[uid] = (key, tether, asyncio.create_task(tether.run(), name=f"tether {key} {ip}"))

    def _drop(self, uids: Iterable[str]) -> None:
        for uid in tuple(uids):
            self._tethers.pop(uid)[2].cancel()

    def report_of(self, uid: str) -> Report | None:
        """Return what a pod said last, or None if it has not spoken since it was last away."""
        return self._tethers[uid][1].report if uid in self._tethers else None

    def broken_at(self, uid: str) -> datetime | None:
        """Return since when a pod refuses connections, or None."""
        return self._tethers[uid][1].broken_at if uid in self._tethers else None

    async def tell(self, message: Tell) -> bool:
        """Tell a Coreapp its role; return whether it took it. Bounded in time, never raises for the network."""
        pod, holder = message.coreapp, message.holder
        body: dict[str, Any] = {"uid": pod.uid, "shard": message.shard, "epoch": message.epoch, "shards": message.shards}
        if holder is not None:
            body["holder"] = {"pod": holder.name, "ip": holder.ip}
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=False)
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            timeout = aiohttp.ClientTimeout(total=self._pace.tell_timeout)
            async with self._session.post(f"http://{pod.ip}:{CONTROL_PORT}/role", json=body, timeout=timeout) as answer:
                report = read_report(await answer.read())
                if answer.status == 200:
                    if report is not None and pod.uid in self._tethers:
                        self._tethers[pod.uid][1].take(report)
                    return True
                log.info("%s did not take shard %s under epoch %s: HTTP %s", pod.name, message.shard, message.epoch, answer.status)
        return False

    async def close(self) -> None:
        """Let go of everything; afterwards ``hold`` may begin anew."""
        tasks = [task for _, _, task in self._tethers.values()]
        self._drop(tuple(self._tethers))
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None
