"""How soon a tether asks again: at once while a Coreapp that has just started is about to learn how many shards there are."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from whatsapp_operator.shell import probe
from whatsapp_operator.shell.clock import SystemClock

SHARDS = [None, None, 2]


@pytest.fixture
async def starting_coreapp(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[int | None]]:
    """A health check that knows the number of shards at the third question only; the list holds what it answered."""
    answered: list[int | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            while (await reader.readline()).strip():
                pass
            shards = SHARDS[min(len(answered), len(SHARDS) - 1)]
            answered.append(shards)
            body = json.dumps({"shard": None, "epoch": None, "shards": shards, "gateway_status": "disconnected"}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    monkeypatch.setattr(probe, "HEALTHCHECK_PORT", server.sockets[0].getsockname()[1])
    yield answered
    server.close()
    await server.wait_closed()


async def test_a_coreapp_that_just_started_is_asked_again_at_once(starting_coreapp: list[int | None]) -> None:
    knows = asyncio.Event()

    def changed() -> None:
        if tether.report is not None and tether.report.shards == 2:
            knows.set()

    tether = probe.Tether("127.0.0.1", clock=SystemClock(), pace=probe.Pace(period=60.0, retry=0.01), changed=changed)
    watching = asyncio.create_task(tether.run())
    try:
        async with asyncio.timeout(5.0):
            await knows.wait()
        assert starting_coreapp == SHARDS
    finally:
        watching.cancel()
        await asyncio.wait({watching})
