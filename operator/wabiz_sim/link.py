"""A component's connections to the upstream: how to open one, and the registration, which is renewed after each loss."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

import aiohttp
from aiohttp import web

from .process import Process
from .resolve import join_host_port

Frame = dict[str, Any]
"""One JSON object on a websocket; its ``type`` says what it is."""

UNREACHABLE = (aiohttp.ClientError, OSError, TimeoutError, LookupError)
"""Errors of a connection or call to another component that got no answer."""

_FIRST_PAUSE, _LAST_PAUSE = 0.03, 0.5
_DIAL_SECONDS = 2.0
_PING_SECONDS = 5.0
_SILENCE_SECONDS = 15.0
"""After this long without a frame, even a ping, the upstream hangs or is gone."""


class Backoff:
    """Growing pauses between attempts, in seconds, with jitter so that many do not retry at the same time."""

    def __init__(self) -> None:
        self._next = _FIRST_PAUSE

    def reset(self) -> None:
        """Start with the shortest pause again."""
        self._next = _FIRST_PAUSE

    async def pause(self) -> None:
        """Sleep; the next pause is twice as long."""
        await asyncio.sleep(self._next * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, hides nothing
        self._next = min(self._next * 2, _LAST_PAUSE)


async def upstream_url(process: Process, path: str) -> str:
    """Return the URL of ``path`` at the upstream, resolved now.

    Raises LookupError when its Service has no endpoint.
    """
    address = await process.resolve(*process.settings.upstream)
    return f"http://{join_host_port(*address)}{path}"


async def dial(process: Process, path: str, query: Mapping[str, str]) -> aiohttp.ClientWebSocketResponse:
    """Open a websocket to the upstream.

    Raises WSServerHandshakeError if it rejects, another of UNREACHABLE if it cannot be reached within 2 s.
    """
    async with asyncio.timeout(_DIAL_SECONDS):
        url = await upstream_url(process, path)
        return await process.session.ws_connect(url, params=query, autoping=False, timeout=aiohttp.ClientWSTimeout(ws_close=0.5))


def upstream_socket() -> web.WebSocketResponse:
    """Return the upstream's end of a websocket, which pings."""
    return web.WebSocketResponse(autoping=False, heartbeat=_PING_SECONDS, timeout=0.5, compress=False)


async def frames(
    socket: aiohttp.ClientWebSocketResponse | web.WebSocketResponse, gate: asyncio.Event, silence: float | None = _SILENCE_SECONDS
) -> AsyncIterator[Frame]:
    """Yield frames until the connection ends or has had no frame for ``silence`` seconds; answers pings unless hung."""
    while True:
        try:
            message = await socket.receive(silence)
        except TimeoutError:
            return
        await gate.wait()
        if message.type is aiohttp.WSMsgType.PING:
            with suppress(ConnectionError, aiohttp.ClientError):
                await socket.pong(message.data)
        elif message.type is aiohttp.WSMsgType.TEXT:
            yield json.loads(message.data)
        elif message.type is not aiohttp.WSMsgType.PONG:
            return


class Link:
    """One component's registration at the upstream."""

    def __init__(self, process: Process, query: Mapping[str, str], on_frame: Callable[[Frame], Frame | None]) -> None:
        """``on_frame`` receives each frame and may return an answer to it."""
        self._process = process
        self._query = query
        self._on_frame = on_frame
        self.up = False
        """True while registered."""

    async def run(self) -> None:
        """Register, and again after each loss of the connection, until cancelled."""
        backoff = Backoff()
        while True:
            try:
                socket = await dial(self._process, "/ws/node", self._query)
            except UNREACHABLE:
                await backoff.pause()
                continue
            self.up = True
            backoff.reset()
            try:
                async for frame in frames(socket, self._process.gate):
                    if (answer := self._on_frame(frame)) is not None:
                        await socket.send_json(answer)
            except UNREACHABLE:
                pass
            finally:
                self.up = False
                await socket.close()
            await backoff.pause()
