"""The Kubernetes client, against a small HTTP server: its fence, how little a dead connection costs, and its watches."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import ssl
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from anyio.streams.tls import TLSStream

from whatsapp_operator.shell.kube import transport, warm
from whatsapp_operator.shell.kube.client import CallLimits, LightKube
from whatsapp_operator.shell.kube.errors import Expired, KubeError, LeaseTooShort, Rejected, Unavailable
from whatsapp_operator.shell.kube.kinds import DEPLOYMENT, LEASE, POD, SECRET, SERVICE, STATEFULSET, WAC
from whatsapp_operator.shell.kube.warm import WarmConnections

from .kube_server import A_POD, a_client, a_client_under_tls, a_server, client_to
from .sim.stopwatch import Stopwatch
from .wabiz_server import pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from whatsapp_operator.shell.kube.client import Kube
    from whatsapp_operator.shell.kube.kinds import Obj

__all__ = ["pair"]

# ----------------------------------------------------------------------------------------------------------------- fence


class LeaseLeft:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def seconds_left(self) -> float:
        return self.seconds


async def test_no_write_starts_without_more_lease_left_than_its_timeout() -> None:
    async with a_client() as (server, unfenced):
        lease = LeaseLeft(2.0)
        kube = unfenced.fenced(lease)
        writes: list[Callable[[Kube], Awaitable[object]]] = [
            lambda kube: kube.create(A_POD),
            lambda kube: kube.replace(A_POD),
            lambda kube: kube.patch_json(POD, "ns", "a", []),
            lambda kube: kube.patch_merge(POD, "ns", "a", {}),
            lambda kube: kube.patch_status(WAC, "ns", "a", {}),
            lambda kube: kube.patch_scale(STATEFULSET, "ns", "a", {}),
            lambda kube: kube.delete(POD, "ns", "a", uid="u"),
        ]
        for write in writes:
            with pytest.raises(LeaseTooShort, match=r"not sent, 2\.0 s of the Lease are left and the call may take 2 s\."):
                await write(kube)
        assert server.asked == []
        assert not kube.writes

        await kube.get(POD, "ns", "a")  # reads may
        for write in writes:
            await write(unfenced)  # the client of the election itself
        lease.seconds = 2.1
        for write in writes:
            await write(kube)
        assert len(server.asked) == 1 + 2 * len(writes)
        assert kube.writes is unfenced.writes
        lease.seconds = -5
        with pytest.raises(LeaseTooShort, match=r"0\.0 s"):
            await kube.create(A_POD)


# ----------------------------------------------------------------------------------------------------------------- lines


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_calls_are_bounded_and_a_dead_line_costs_one_of_them() -> None:
    async with a_client(limits=CallLimits(read=2.0, write=1.0)) as (server, kube):
        await asyncio.gather(*(kube.get(POD, "ns", "a") for _ in range(20)))
        old = set(server.peers)
        assert len(old) > 5
        server.answer = server.hang
        began = now()
        with pytest.raises(Unavailable, match=r"create Pod ns/a: the API server did not answer within 1 s\."):
            await kube.create(A_POD)
        with pytest.raises(Unavailable, match=r"get Pod ns/a: the API server did not answer within 2 s\."):
            await kube.get(POD, "ns", "a")
        assert now() - began < 2 * (2.0 + 1.0), "each by its own limit, and neither tried again"
        server.answer = server.ok
        server.peers.clear()
        await kube.get(POD, "ns", "a")
        assert not server.peers & old  # none of the other idle lines was tried, each of which could be dead as well


async def test_calls_under_way_outlive_the_lines_given_up() -> None:
    async with a_client(limits=CallLimits(read=5, write=0.2)) as (server, kube):
        server.answer = server.hang
        under_way = asyncio.create_task(kube.get(POD, "ns", "a"))
        while not server.asked:
            await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await kube.create(A_POD)
        server.hanging.set()
        assert await under_way


def pools_opened(kube: LightKube) -> list[object]:
    """Return the list of the connection pools that are opened from now on."""
    lines, opened = kube._api._client._client._transport._inner, list[object]()
    dial = lines._make_pool

    def counting() -> Any:
        opened.append(dial())
        return opened[-1]

    lines._make_pool = counting
    return opened


@pytest.mark.slow
@pytest.mark.parametrize("fails", ["403", "500", "garbage", "timeout", "cancelled"])
async def test_reads_that_fail_leave_the_connections_of_others_alone(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Long enough for others to be answered meanwhile, on a busy machine too.
    monkeypatch.setattr(transport, "SLOW", 2.0)
    monkeypatch.setattr(transport, "SLOWEST", 8.0)
    async with a_client(limits=CallLimits(read=5.0, write=5.0)) as (server, kube):
        opened, answers = pools_opened(kube), 0

        async def answer(request: web.Request) -> web.StreamResponse:
            if "secrets" not in request.path:
                return await server.ok(request)
            if fails in {"timeout", "cancelled"}:
                return await server.hang(request)
            return web.Response(status={"403": 403, "500": 500, "garbage": 200}[fails], text="[7]", content_type="application/json")

        async def read_others() -> None:
            nonlocal answers
            while True:
                await kube.get(POD, "ns", "a")
                answers += 1
                await asyncio.sleep(0.01)

        async def others_answered() -> None:
            after = answers + 2
            while answers < after:
                assert not others.done()
                await asyncio.sleep(0.001)

        server.answer = answer
        others = asyncio.create_task(read_others())
        await others_answered()
        for _ in range(2 if fails == "timeout" else 20):
            asked = len([one for one in server.asked if "secrets" in one[1]])
            reading = asyncio.create_task(kube.get(SECRET, "ns", "a"))
            if fails == "cancelled":
                while len([one for one in server.asked if "secrets" in one[1]]) == asked:
                    await asyncio.sleep(0.001)
                await others_answered()
                reading.cancel()
            with pytest.raises((KubeError, asyncio.CancelledError)):
                await reading
        others.cancel()
        assert opened == []


async def test_an_outage_gives_the_connections_up_once() -> None:
    async with a_client(limits=CallLimits(read=1.0, write=1.0)) as (server, kube):
        opened = pools_opened(kube)
        await asyncio.gather(*(kube.get(POD, "ns", "a") for _ in range(5)))
        server.answer = server.hang
        for _ in range(4):
            failed = await asyncio.gather(*(kube.get(POD, "ns", "a") for _ in range(5)), return_exceptions=True)
            assert {type(one) for one in failed} == {Unavailable}
        assert len(opened) == 1
        server.answer = server.ok
        await kube.get(POD, "ns", "a")
        assert len(opened) == 1


async def test_lines_are_kept() -> None:
    async with a_client() as (server, kube):
        for _ in range(5):
            await kube.get(POD, "ns", "a")
        await kube.create(A_POD)
        assert len(server.peers) == 1
        pool = kube._api._client._client._transport._inner._pool._pool
        assert pool._keepalive_expiry is None


async def test_a_new_leader_finds_open_connections_for_its_first_calls(tmp_path: Path) -> None:
    async with a_client_under_tls(tmp_path) as (server, kube):
        answered = asyncio.Semaphore(0)

        async def read() -> None:
            await kube.get(LEASE, "ns", "op")
            answered.release()

        keeping = asyncio.create_task(WarmConnections(read, is_needed=lambda: True).run())
        for _ in range(warm.CONNECTIONS):
            await answered.acquire()
        server.says({"metadata": {}, "items": []})
        reads = (kube.get(kind, "ns", "a") for kind in (WAC, STATEFULSET, STATEFULSET))
        await asyncio.gather(*reads, *(kube.list(kind, "ns") for kind in (POD, SERVICE, WAC)))
        keeping.cancel()
        assert len(server.peers) == warm.CONNECTIONS


async def test_connections_are_opened_again_after_calls_that_failed_and_only_while_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "EVERY", 0.001)
    async with a_client() as (server, kube):
        server.refuses(503, "ServiceUnavailable", "not now")
        asked = list[int]()

        def is_needed() -> bool:
            asked.append(len(server.asked))
            return len(asked) > 2

        keeping = asyncio.create_task(WarmConnections(lambda: kube.get(LEASE, "ns", "op"), is_needed=is_needed).run())
        while len(asked) < 5:
            await asyncio.sleep(0.001)
        keeping.cancel()
        assert asked[:5] == [0, 0, 0, warm.CONNECTIONS, 2 * warm.CONNECTIONS]


async def test_idle_connections_are_checked_without_asking_the_layers_above_their_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_client_under_tls(tmp_path) as (server, kube):
        await asyncio.gather(*(kube.get(POD, "ns", "a") for _ in range(5)))
        assert len(server.peers) == 5
        asked: list[TLSStream] = []

        def attributes(stream: TLSStream) -> dict[object, object]:
            asked.append(stream)
            return {}

        monkeypatch.setattr(TLSStream, "extra_attributes", property(attributes))
        for _ in range(3):
            await kube.get(POD, "ns", "a")
        assert (len(server.peers), asked) == (5, [])


async def test_idle_connections_that_the_server_has_closed_are_not_used(tmp_path: Path) -> None:
    async with a_client_under_tls(tmp_path) as (server, kube):
        await asyncio.gather(*(kube.get(POD, "ns", "a") for _ in range(5)))
        sockets = [transport.get_extra_info("socket") for transport in server.transports]
        for transport in server.transports:
            transport.abort()
        while any(one.fileno() >= 0 for one in sockets):
            await asyncio.sleep(0)
        await kube.get(POD, "ns", "a")
        assert len(server.peers) == 6


def tls_streams() -> int:
    """How many connections under TLS are in memory."""
    return sum(isinstance(one, TLSStream) for one in gc.get_objects())


async def test_a_connection_that_ended_is_freed_without_a_garbage_collection(tmp_path: Path) -> None:
    """The operator searches for garbage rarely, and each connection under TLS holds 100 KB."""
    async with a_client_under_tls(tmp_path) as (server, kube):
        await asyncio.gather(*(kube.get(POD, "ns", "a") for _ in range(5)))
        sockets = [transport.get_extra_info("socket") for transport in server.transports]
        gc.collect()
        gc.disable()
        try:
            before = tls_streams()
            for transport in server.transports:
                transport.abort()
            while any(one.fileno() >= 0 for one in sockets):
                await asyncio.sleep(0)
            await kube.get(POD, "ns", "a")
            assert before - tls_streams() == 4, "five ended and one was opened"
        finally:
            gc.enable()


async def test_a_server_that_is_not_there_is_reported_without_detours(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_server() as server:
        url = server.url
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    monkeypatch.setenv("ALL_PROXY", "http://proxy.invalid:1")
    kube = client_to(url)
    with pytest.raises(Unavailable, match=r"get Pod ns/a: the API server cannot be reached \(ConnectError: "):
        await kube.get(POD, "ns", "a")
    await kube.close()


async def test_a_server_that_hangs_up_in_the_middle_is_unavailable() -> None:
    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport
        request.transport.abort()
        return web.Response()

    async with a_client() as (server, kube):
        server.answer = hang_up
        with pytest.raises(Unavailable, match="cannot be reached"):
            await kube.create(A_POD)
        server.answer = server.ok
        await kube.create(A_POD)


# ----------------------------------------------------------------------------------------------------------------- watch


def stream(*events: Any, then: Callable[[], Awaitable[object]] | None = None) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for event in events:
            await response.write(json.dumps(event).encode() + b"\n")
        if then:
            await then()
        return response

    return answer


async def test_a_watch_yields_until_the_server_ends_it() -> None:
    async with a_client() as (server, kube):
        lease: Obj = {"metadata": {"name": "op", "resourceVersion": "9"}}
        server.answer = stream({"type": "ADDED", "object": lease}, {"type": "DELETED", "object": lease})
        seen = [event async for event in kube.watch(LEASE, "ns", name="op", labels={"a": "b"}, resource_version="8", server_timeout=20)]
        assert seen == [("ADDED", lease), ("DELETED", lease)]
        assert server.asked[0][1] == (
            "/apis/coordination.k8s.io/v1/namespaces/ns/leases?"
            "timeoutSeconds=20&resourceVersion=8&labelSelector=a%3Db&fieldSelector=metadata.name%3Dop&watch=true"
        )
        assert [event async for event in kube.watch(DEPLOYMENT, None)] == seen
        assert server.asked[1][1] == "/apis/apps/v1/deployments?timeoutSeconds=30&watch=true"


async def test_a_watch_tells_why_it_cannot_go_on() -> None:
    async with a_client() as (server, kube):

        async def watch() -> None:
            async for _ in kube.watch(LEASE, "ns", name="op", server_timeout=0):
                pass

        server.answer = stream({"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}})
        with pytest.raises(Expired, match="watch Lease ns/op: 410 Expired: too old"):
            await watch()
        server.refuses(403, "Forbidden", "leases is forbidden")
        with pytest.raises(Rejected, match="leases is forbidden"):
            await watch()
        server.answer = stream({"kind": "Status"})
        with pytest.raises(Unavailable, match="not Kubernetes' JSON"):
            await watch()


async def test_a_watch_ends_by_its_own_limit_when_nothing_comes() -> None:
    async with a_client(limits=CallLimits(read=0.3)) as (server, kube):
        server.answer = stream(then=server.hanging.wait)  # a black hole
        watch = Stopwatch()
        with pytest.raises(Unavailable, match="did not answer"):
            async for _ in kube.watch(LEASE, "ns", name="op", server_timeout=0):
                pass
        assert watch.own < 1


async def test_a_watch_that_is_left_frees_its_line() -> None:
    async with a_client() as (server, kube):
        server.answer = stream({"type": "ADDED", "object": {"metadata": {}}}, then=server.hanging.wait)
        async with aclosing(kube.watch(LEASE, "ns")) as events:
            async for _ in events:
                break
        pool = kube._api._client._client._transport._inner._pool._pool
        assert not [line for line in pool.connections if not line.is_idle()]


# ------------------------------------------------------------------------------------------------------------------- TLS


@pytest.mark.parametrize(
    "begins", [b"", b'HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"kind"'], ids=["before the answer", "in the middle of it"]
)
async def test_tls_that_breaks_is_an_api_server_that_cannot_be_reached(pair: Path, begins: bytes) -> None:
    """What is between the two may die in the middle of a record. The library passes on the error of the TLS library itself."""

    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begins)
        await writer.drain()
        os.write(writer.get_extra_info("socket").fileno(), b"this is no record of TLS")
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    async with await asyncio.start_server(breaks, "127.0.0.1", 0, ssl=context) as server:
        kube = client_to(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", insecure=True)
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: kube.get(POD, "ns", "a"),
            lambda: kube.list(POD, "ns"),
            lambda: kube.list_to_watch(POD, "ns"),
            lambda: anext(kube.watch(POD, "ns")),
            lambda: kube.create(A_POD),
            lambda: kube.patch_merge(POD, "ns", "a", {}),
            lambda: kube.delete(POD, "ns", "a", uid="u"),
        ]
        for call in calls:
            with pytest.raises(Unavailable, match=r"the API server cannot be reached \(SSLError: "):
                await call()
        await kube.close()
