"""Role assignments of Coreapps, over real connections: those that never answer keep nobody else waiting."""

from __future__ import annotations

import asyncio
import gzip
import logging
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from waiting import until
from whatsapp_operator.core.actions import AssignRole
from whatsapp_operator.core.desired import Probe
from whatsapp_operator.core.names import Key
from whatsapp_operator.core.snapshot import Coreapp
from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.coreapps.probe import Tethers
from whatsapp_operator.shell.coreapps.schedule import Pace, Target

OLD, NEW = "127.0.0.1", "127.0.0.2"
"""Addresses of Coreapps that hang and of one that is well; all listen on one port, as Coreapps do."""

PACKED = gzip.compress(b" " * 2**26)


class SilentServer:
    """Takes connections and orders, and never answers, like a process that is stopped."""

    def __init__(self) -> None:
        self.orders = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readline()
            self.orders += 1
            await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def well(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_post("/role", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, NEW, 0)
    await site.start()
    try:
        assert site._server is not None
        yield int(site._server.sockets[0].getsockname()[1])  # type: ignore[attr-defined]
    finally:
        await runner.cleanup()


def coreapp(number: int, ip: str) -> Coreapp:
    return Coreapp(name=f"acme-coreapp-{number}", uid=f"uid-{number}", ordinal=number, ip=ip)


async def test_old_holders_that_never_answer_delay_no_new_one() -> None:
    """More of them than connections that a client keeps by default."""
    shards: list[Any] = []

    async def take(request: web.Request) -> web.Response:
        shards.append((await request.json())["shard"])
        return web.json_response({"shard": 0, "epoch": "1-abcde", "shards": 2})

    silent, new = SilentServer(), coreapp(999, NEW)
    async with well(take) as port:
        server = await asyncio.start_server(silent.take, OLD, port)
        tethers = Tethers(clock=SystemClock(), wake=lambda _: None, pace=Pace(assign_timeout=10.0), port=port, control_port=port)
        tells = [AssignRole(coreapp=coreapp(number, OLD), shards=2, shard=1, epoch="2-abcde", holder=new) for number in range(150)]
        pending = [asyncio.create_task(tethers.assign(message)) for message in tells]
        try:
            await until(lambda: silent.orders >= 100)
            assert await tethers.assign(AssignRole(coreapp=new, shards=2, shard=0, epoch="1-abcde"))
            assert shards == [0]
            assert not any(task.done() for task in pending), "nobody waited for them"
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            await tethers.close()
            server.close()


@asynccontextmanager
async def assigning(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """A Coreapp that answers so, to which a tether is kept; yields how to assign it shard 0."""
    pod = coreapp(0, NEW)
    async with well(answer) as port:
        # Nothing listens there, so all that is known of it comes from the answers to assignments.
        tethers = Tethers(clock=SystemClock(), wake=lambda _: None, port=1, control_port=port)
        tethers.hold(Key("ns", "acme"), {pod.uid: Target(ip=NEW, node=None, holds=True, probe=Probe(), unhealthy_after=3.0)})
        try:
            yield lambda: tethers.assign(AssignRole(coreapp=pod, shards=2, shard=0, epoch="1-abcde"))
        finally:
            await tethers.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    """A Coreapp must not have the operator send anything to other hosts."""
    asked: list[str] = []

    async def redirects(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status, headers={"Location": "/role" if len(asked) < 2 else "/elsewhere"})

    async with assigning(redirects) as assign:
        assert not await assign()
    assert asked == ["/role"]


async def floods(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(1024):
        await response.write(b" " * 2**16)
    return response


async def packed(_: web.Request) -> web.StreamResponse:
    return web.Response(body=PACKED, headers={"Content-Encoding": "gzip"})


@pytest.mark.parametrize("answer", [floods, packed])
async def test_of_a_long_answer_the_beginning_is_read(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
    async with assigning(answer) as assign:
        tracemalloc.start()
        try:
            assert await assign(), "it accepted; its report is unreadable"
            assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
        finally:
            tracemalloc.stop()


async def test_a_role_that_is_not_accepted_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """It is assigned again twice a second."""
    statuses = [409, 409, 503, 409, 200, 409]

    async def answers(_: web.Request) -> web.Response:
        return web.Response(status=statuses.pop(0))

    with caplog.at_level(logging.INFO):
        async with assigning(answers) as assign:
            while statuses:
                await assign()
    said = [record.getMessage() for record in caplog.records if "did not accept" in record.getMessage()]
    expected = "acme-coreapp-0 did not accept shard 0 with epoch 1-abcde: HTTP"
    assert said == [f"{expected} {status}" for status in (409, 503, 409, 409)]
