"""The Kubernetes client and Kopf's session behind a load balancer with two API servers, one of which hangs: the other one answers."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import kopf
import pytest

from outside.wire import Wire
from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.kube.client import CallLimits, LightKube
from whatsapp_operator.shell.kube.errors import Unavailable
from whatsapp_operator.shell.kube.kinds import POD
from whatsapp_operator.shell.kube.transport import SLOW, SentAgain
from whatsapp_operator.shell.watch import handlers
from whatsapp_operator.shell.watch.health import WatchHealth

from .kube_server import A_POD, Server, a_client, a_server, client_to, tls_files

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aiohttp import web

LONG = CallLimits(read=60.0, write=60.0)
"""Nothing but a call that waits for the server that hangs takes so long."""


class TwoServers:
    """Leads connections to two servers in turn, as a load balancer does, until it has noticed that the second one hangs."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._second = dict[object, bool]()
        self.hangs = False
        self.opening = asyncio.Event()
        self.has_noticed = False
        self.hung = list[str]()
        """The methods of requests that the second one did not answer."""
        server.answer = self.answer

    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.transport
        peer = request.transport.get_extra_info("peername")
        is_second = self._second.setdefault(peer, len(self._second) % 2 == 1 and not self.has_noticed)
        await self.opening.wait()
        if is_second and self.hangs:
            self.hung.append(request.method)
            await self._server.hanging.wait()
        return await self._server.ok(request)


@asynccontextmanager
async def two_servers(limits: CallLimits = LONG) -> AsyncIterator[tuple[TwoServers, LightKube]]:
    """Both have served a client, which holds eight connections."""
    async with a_client(limits=limits) as (server, kube):
        servers, opening = TwoServers(server), list[asyncio.Task[object]]()
        for number in range(8):
            opening.append(asyncio.create_task(kube.create(A_POD)))
            while len(server.peers) == number:
                await asyncio.sleep(0.001)
        servers.opening.set()
        await asyncio.gather(*opening)
        yield servers, kube


@pytest.mark.parametrize("has_noticed", [True, False])
async def test_reads_are_answered_by_the_other_server(has_noticed: bool) -> None:
    async with asyncio.timeout(LONG.read / 2), two_servers() as (servers, kube):
        servers.hangs, servers.has_noticed = True, has_noticed
        for _ in range(3):
            await asyncio.gather(*(kube.get(POD, "ns", "a") for _ in range(8)))
        assert servers.hung, "no read went to the server that hangs"


async def test_after_that_a_write_goes_over_a_connection_that_has_answered_and_is_sent_once() -> None:
    async with asyncio.timeout(LONG.read / 2), two_servers() as (servers, kube):
        servers.hangs = True
        await asyncio.gather(*(kube.get(POD, "ns", "a") for _ in range(8)))
        hung, servers.has_noticed = len(servers.hung), True
        for _ in range(8):
            await kube.create(A_POD)
        assert len(servers.hung) == hung


async def test_a_write_that_is_not_answered_is_not_sent_again_and_spares_later_ones_the_other_old_connections() -> None:
    async with two_servers(CallLimits(read=60.0, write=2.0)) as (servers, kube):
        servers.hangs, servers.has_noticed = True, True
        answered, failed = await asyncio.gather(kube.create(A_POD), kube.create(A_POD), return_exceptions=True)
        assert isinstance(answered, dict)
        assert isinstance(failed, Unavailable)
        assert servers.hung == ["POST"]
        await asyncio.gather(*(kube.create(A_POD) for _ in range(8)))
        assert servers.hung == ["POST"]


async def test_a_read_that_fails_is_not_sent_again() -> None:
    async with a_client() as (server, kube):

        async def hang_up(request: web.Request) -> web.StreamResponse:
            assert request.transport
            request.transport.abort()
            return await server.ok(request)

        server.answer = hang_up
        with pytest.raises(Unavailable, match="cannot be reached"):
            await kube.get(POD, "ns", "a")
        assert len(server.asked) == 1


def certified(folder: Path) -> tuple[ssl.SSLContext, str]:
    """Return the TLS of a server, and the authority of its certificate."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tls_files(folder) / "tls.crt", folder / "tls.key")
    return tls, base64.b64encode((folder / "ca.crt").read_bytes()).decode()


@pytest.mark.parametrize("call", ["get", "create"])
async def test_what_needs_a_new_connection_is_done_though_the_first_server_is_gone(tmp_path: Path, call: str) -> None:
    async with a_server() as gone:
        pass
    tls, authority = certified(tmp_path)
    async with a_server(tls) as server:
        first, second = (("127.0.0.1", urlsplit(one.url).port or 0) for one in (gone, server))
        async with Wire(first) as balancer:
            balancer.lead(first, second)
            kube = client_to(f"https://127.0.0.1:{balancer.address[1]}", authority=authority)
            await (kube.get(POD, "ns", "a") if call == "get" else kube.create(A_POD))
            await kube.close()
        assert len(server.asked) == 1


@pytest.mark.parametrize("hanging", [1, 2])
async def test_the_watches_connect_to_the_other_server_while_a_handshake_is_not_answered(tmp_path: Path, hanging: int) -> None:
    tls, authority = certified(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as hung:  # the kernel accepts connections for a process that is stopped
        async with asyncio.timeout(LONG.read / 2), a_server(tls) as server, Wire(hung.getsockname()) as balancer:
            balancer.lead(*[hung.getsockname()] * hanging, ("127.0.0.1", urlsplit(server.url).port or 0))
            info = kopf.ConnectionInfo(server=f"https://127.0.0.1:{balancer.address[1]}", ca_data=authority)
            opened_again = SentAgain()
            login = handlers.Login(lambda: info, health=WatchHealth(SystemClock()), names={}, opened_again=opened_again)
            session = (await login.session()).aiohttp_session
            async with session.get(info.server, timeout=aiohttp.ClientTimeout(sock_connect=LONG.read)) as answer:
                assert answer.ok
            await login.close()
    assert opened_again == {"first": 0, "later": 1, "none": 0}


class Connects:
    """Takes the place of the library: opens connections after so many seconds, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.begun = 0
        self._seconds = seconds
        monkeypatch.setattr(aiohttp.TCPConnector, "connect", self._open)

    async def _open(self, *_: object) -> object:
        self.begun += 1
        await asyncio.sleep(self._seconds)
        return object()


async def connect(connector: handlers.HedgingConnector) -> None:
    nothing: Any = None
    await connector.connect(nothing, [], nothing)


@pytest.mark.looptime(noop_cycles=0)
async def test_all_watches_together_open_few_connections_more(monkeypatch: pytest.MonkeyPatch) -> None:
    connects, connector = Connects(monkeypatch, 3600.0), handlers.HedgingConnector(SentAgain())
    watches = [asyncio.create_task(connect(connector)) for _ in range(2 * handlers.MOST_MORE)]
    for more in (0, 1, 2, 3, 4, 4):
        await asyncio.sleep(0.9 * SLOW if more == 0 else SLOW)
        assert connects.begun == len(watches) + more * handlers.MOST_MORE
    for one in watches:
        one.cancel()
    await asyncio.wait(watches)
    await connector.close()


@pytest.mark.looptime(noop_cycles=0)
@pytest.mark.parametrize("delay", [SLOW * 1.1, SLOW * 1.9])
async def test_while_the_server_is_merely_slow_the_watches_open_few_connections_more(monkeypatch: pytest.MonkeyPatch, delay: float) -> None:
    connects, opened_again = Connects(monkeypatch, delay), SentAgain()
    connector = handlers.HedgingConnector(opened_again)
    for _ in range(20):
        await asyncio.gather(connect(connector), connect(connector))
    assert connects.begun == 40 + 2
    assert opened_again == {"first": 2, "later": 0, "none": 0}
    await connector.close()


async def test_the_watches_report_a_connection_that_fails_with_its_error() -> None:
    async with a_server() as gone:
        pass
    login = handlers.Login(lambda: kopf.ConnectionInfo(server=gone.url), health=WatchHealth(SystemClock()), names={})
    with pytest.raises(aiohttp.ClientConnectorError):
        await (await login.session()).aiohttp_session.get(gone.url)
    await login.close()


async def test_the_watches_use_no_connection_that_was_idle_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server to which it leads may have begun to hang: then nothing would be answered over it."""
    monkeypatch.setattr(handlers, "IDLE_SECONDS", 0.0)
    async with a_server() as server:
        login = handlers.Login(lambda: kopf.ConnectionInfo(server=server.url), health=WatchHealth(SystemClock()), names={})
        session = (await login.session()).aiohttp_session
        for _ in range(2):
            async with session.get(server.url) as answer:
                await answer.read()
        await login.close()
    assert len(server.peers) == 2
