"""Role assignments of Coreapps, over real connections: those that never answer keep nobody else waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from waiting import until
from whatsapp_operator.core.actions import AssignRole
from whatsapp_operator.core.snapshot import Coreapp
from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.coreapps.probe import Tethers
from whatsapp_operator.shell.coreapps.schedule import Pace

OLD, NEW = "127.0.0.1", "127.0.0.2"
"""Addresses of Coreapps that hang and of one that is well; all listen on one port, as Coreapps do."""


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
async def well(answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[int]:
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
