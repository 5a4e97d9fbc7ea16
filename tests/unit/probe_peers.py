"""Coreapps for tests of tethers: real servers on a loopback port that answer, hang, close, refuse connections or swallow."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from waiting import until
from whatsapp_operator.core.desired import Probe
from whatsapp_operator.core.names import Key
from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.coreapps.probe import Tethers
from whatsapp_operator.shell.coreapps.schedule import Pace, Target

HOST = "127.0.0.1"
KEY = Key("test", "acme")
QUICK = Pace(deadline=0.2, connect_timeout=0.1, retry=0.02, standby_period=0.5, insist=0.1, fresh_every=1000)
TICK = 0.005
STALL = timedelta(seconds=0.1)
REPORT = {"shard": 0, "epoch": "1-abcde", "shards": 2, "gateway_status": "connected", "version": "v2"}


class Peer:
    """One Coreapp. What it does with questions can be changed at any time."""

    def __init__(self) -> None:
        self.port = 0
        self.hangs = False
        """Takes connections and reads, answers nothing; when this ends it answers what it was asked."""
        self.delay = 0.0
        self.ignores_newer_than: int | None = None
        """Connections with a higher number are accepted and not answered."""
        self.headers = ""
        self.status = "200 OK"
        self.body: Callable[[], Mapping[str, Any]] = lambda: REPORT
        self.asked: list[tuple[int, float, str]] = []
        """Connection, time and path of each question."""
        self.made = 0
        self.open: dict[int, asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.made += 1
        number = self.made
        self.open[number] = writer
        try:
            while line := await reader.readline():
                while (await reader.readline()).strip():
                    pass
                self.asked.append((number, time.monotonic(), line.decode().split()[1]))
                await asyncio.sleep(self.delay)
                while self.hangs or (self.ignores_newer_than is not None and number > self.ignores_newer_than):
                    await asyncio.sleep(0.005)
                body = json.dumps(dict(self.body())).encode()
                writer.write(f"HTTP/1.1 {self.status}\r\nContent-Length: {len(body)}\r\n{self.headers}\r\n".encode() + body)
                if "close" in self.headers:
                    return
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open.pop(number, None)
            writer.close()

    def stop_listening(self) -> None:
        """Refuse new connections, keep the open ones."""
        if self._server is not None:
            self._server.close()

    def reset(self) -> None:
        """Drop all open connections."""
        for writer in tuple(self.open.values()):
            writer.transport.abort()

    def die(self) -> None:
        """End as a killed process does."""
        self.stop_listening()
        self.reset()

    async def gone(self) -> None:
        self.hangs, self.ignores_newer_than = False, None
        self.die()
        await until(lambda: not self.open)


class Watch:
    """Tethers of a test, and what woke their loop."""

    def __init__(self, port: int, pace: Pace) -> None:
        self.woken = 0
        self.late = timedelta()
        """The longest by which this loop was late itself: a busy machine's, not that of the tethers."""
        self.stood = timedelta()
        """How long it stood still in all, by a tenth of a second and more at a time."""
        self.tethers = Tethers(clock=SystemClock(), wake=self._wake, pace=pace, port=port)

    def _wake(self, key: Key) -> None:
        assert key == KEY
        self.woken += 1

    async def tick(self) -> None:
        """Find out how late this process is, until cancelled."""
        while True:
            due = time.monotonic() + TICK
            await asyncio.sleep(TICK)
            late = timedelta(seconds=time.monotonic() - due)
            self.late = max(self.late, late)
            self.stood += late if late >= STALL else timedelta()

    def hold(self, *uids: str, **changes: Any) -> None:
        self.tethers.hold(KEY, {uid: target(**changes) for uid in uids})


def target(
    *,
    ip: str = HOST,
    node: str = "node-a",
    holds: bool = True,
    period: float = 0.1,
    kind: str = "HTTP",
    path: str = "/",
    unhealthy_after: float = 0.6,
    ready: bool = False,
) -> Target:
    probe = Probe(kind=kind, path=path, period=timedelta(seconds=period))
    return Target(ip=ip, node=node, holds=holds, probe=probe, unhealthy_after=unhealthy_after, ready=ready)


@asynccontextmanager
async def watching(port: int, pace: Pace = QUICK) -> AsyncIterator[Watch]:
    watch = Watch(port, pace)
    ticking = asyncio.create_task(watch.tick())
    try:
        yield watch
    finally:
        ticking.cancel()
        await watch.tethers.close()


@asynccontextmanager
async def a_peer() -> AsyncIterator[Peer]:
    peer = Peer()
    await peer.listen()
    try:
        yield peer
    finally:
        await peer.gone()


@asynccontextmanager
async def a_full_queue() -> AsyncIterator[int]:
    """A port whose queue of connections is full: what comes next gets no answer at all."""
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.listen(0)
        port = int(server.getsockname()[1])
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((HOST, port))
            fillers.append(filler)
        await asyncio.sleep(0)
        try:
            yield port
        finally:
            for filler in fillers:
                filler.close()
