"""The sender's proxy: plain calls and tunnels get through, and an end that was no goodbye arrives as such."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from localkube.plane import certificates
from localkube.scenarios.kind import relay as e2e_relay


@asynccontextmanager
async def relay() -> AsyncIterator[str]:
    server = await asyncio.start_server(e2e_relay.serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def answering(tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def echo(request: web.Request) -> web.Response:
        return web.json_response({"path": request.path, "body": await request.text()})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", echo)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    yield int(runner.addresses[0][1])
    await runner.cleanup()


async def test_plain_calls_get_through_one_after_the_other() -> None:
    async with relay() as proxy, answering() as port, aiohttp.ClientSession() as session:
        for number in range(3):
            async with session.post(f"http://127.0.0.1:{port}/control/{number}", data="x" * 100_000, proxy=proxy) as response:
                assert await response.json() == {"path": f"/control/{number}", "body": "x" * 100_000}


async def test_a_tunnel_carries_tls_to_the_very_end(tmp_path: Path) -> None:
    made = certificates.make(tmp_path / "made", service_ip="10.0.0.1")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(made.certificate("server"), made.key("server"))
    client = ssl.create_default_context(cafile=str(made.authority))
    async with relay() as proxy, answering(server) as port, aiohttp.ClientSession() as session:
        for number in range(2):
            url = f"https://127.0.0.1:{port}/v1/{number}"
            async with session.get(url, proxy=proxy, ssl=client, server_hostname="kubernetes.default.svc") as response:
                assert (await response.json())["path"] == f"/v1/{number}"


async def test_nobody_there_is_an_error_and_no_silence() -> None:
    async with relay() as proxy, answering() as port:
        pass
    async with relay() as proxy, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5.0)) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"http://127.0.0.1:{port}/", proxy=proxy)


async def test_an_answer_that_breaks_off_breaks_off_for_the_sender() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await writer.drain()
        writer.transport.abort()

    server = await asyncio.start_server(half, "127.0.0.1", 0)
    async with server, relay() as proxy, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5.0)) as session:
        with pytest.raises(aiohttp.ClientError):
            async with session.get(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", proxy=proxy) as response:
                await response.read()
