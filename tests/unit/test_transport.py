"""A call that is cancelled while its connection is dialled leaves no socket to the garbage collector."""

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable

import httpx2
import pytest

from localkube.hollow.kube import Kube
from localkube.kubeconfig import Access
from whatsapp_operator.shell.kube.transport import ReconnectingTransport


async def through_lines(url: str) -> None:
    lines = ReconnectingTransport(lambda: httpx2.AsyncHTTPTransport(trust_env=False))
    async with httpx2.AsyncClient(transport=lines, trust_env=False) as client:
        await client.get(url)


async def through_hollow_nodes(url: str) -> None:
    async with Kube(Access(server=url, authority="")) as kube:
        await kube.get("/api/v1/nodes")


async def by_a_hollow_watch(url: str) -> None:
    async with Kube(Access(server=url, authority="")) as kube:
        await anext(kube.watch("/api/v1/nodes", "0"))


@pytest.mark.parametrize("call", [through_lines, through_hollow_nodes, by_a_hollow_watch])
async def test_a_call_cancelled_in_the_tls_handshake_closes_its_connection(call: Callable[[str], Awaitable[None]]) -> None:
    greeted, closed = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)  # the client's half of the handshake, which gets no answer
        greeted.set()
        await reader.read()
        closed.set()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        with warnings.catch_warnings(record=True) as left:
            warnings.simplefilter("always", ResourceWarning)
            calling = asyncio.ensure_future(call(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
            async with asyncio.timeout(60):
                await greeted.wait()
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            async with asyncio.timeout(60):
                await closed.wait()
            del calling
            gc.collect()
    assert [str(one.message) for one in left] == []
