"""Connections to the API server: kept open for ever, and given up when they are dead. Knows HTTP, not Kubernetes."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping


class ReconnectingTransport(httpx2.AsyncBaseTransport):
    """Connections that are kept open for ever, and given up all together when they are dead.

    The library drops idle connections after 5 s, which costs a TLS handshake after each pause. Kept ones have a danger of their own: when
    an API server, or the balancer before it, dies without a word, all are dead, and each would cost one call its timeout. So a call that
    fails or is given up before it was answered makes every later call dial anew; calls under way (watches too) end on the old lines.

    Not if another call was answered meanwhile: then the lines live, and only this call's own is closed. Nor if none was ever answered on
    them: then none of them is kept idle, and there is nothing to give up.
    """

    def __init__(self, dial: Callable[[], httpx2.AsyncBaseTransport]) -> None:
        self._dial = dial
        self._pool = dial()
        self._under_way: Counter[httpx2.AsyncBaseTransport] = Counter()
        self._answers = 0
        """Calls that were answered on the newest lines."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request over the newest lines (called by the client library)."""
        pool, answers = self._pool, self._answers
        self._under_way[pool] += 1
        close_if_cancelled(request)
        try:
            response = await pool.handle_async_request(request)
        except BaseException:  # a timeout arrives here as a cancellation
            if self._answers == answers > 0:
                self._give_up(pool)
            await self._ended(pool)
            raise
        if pool is self._pool:
            self._answers += 1
        if not isinstance(response.stream, httpx2.AsyncByteStream):
            msg = f"the transport {type(pool).__name__} gave a stream that is not asynchronous."
            raise TypeError(msg)
        response.stream = _Line(response.stream, lambda: self._give_up(pool), lambda: self._ended(pool))
        return response

    async def aclose(self) -> None:
        """Close the newest lines; older ones close with their last call."""
        await self._pool.aclose()

    def _give_up(self, pool: httpx2.AsyncBaseTransport) -> None:
        if pool is self._pool:  # else one of the calls that failed together has done it
            self._pool, self._answers = self._dial(), 0

    async def _ended(self, pool: httpx2.AsyncBaseTransport) -> None:
        self._under_way[pool] -= 1
        if not self._under_way[pool]:
            del self._under_way[pool]
            if pool is not self._pool:
                await pool.aclose()


FIRST_PAUSE = 0.05
"""Seconds before a throttled call is sent again for the first time; the pause doubles."""
THROTTLED_FOR = 1.5
"""Seconds after which the 429 is the answer; less than any call may take, so that it is told as what it is."""


class RetryThrottled(httpx2.AsyncBaseTransport):
    """Sends a call again that was answered 429: the API server did nothing of it, and asks for patience.

    An observation needs several reads, so that half of all calls refused would mean hardly any observation at all. The attempts end within
    the time that the caller gives the call, so a write is never sent after its lease. ``Retry-After`` is not waited for: it is one second
    whatever the load, and a failover may depend on the call.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request until it is not throttled (called by the client library)."""
        pause, spent = FIRST_PAUSE, 0.0
        while True:
            response = await self._inner.handle_async_request(request)
            if response.status_code != 429 or spent + pause > THROTTLED_FOR:
                return response
            await response.aclose()
            await asyncio.sleep(pause)
            spent, pause = spent + pause, pause * 2

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _Line(httpx2.AsyncByteStream):
    """The body of an answer, which tells when it broke and when it ended."""

    def __init__(self, body: httpx2.AsyncByteStream, broke: Callable[[], None], ended: Callable[[], Awaitable[None]]) -> None:
        self._body = body
        self._broke = broke
        self._ended: Callable[[], Awaitable[None]] | None = ended

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._body:
                yield part
        except httpx2.TransportError:
            self._broke()
            raise

    async def aclose(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            try:
                await self._body.aclose()
            finally:
                await ended()


def close_if_cancelled(request: httpx2.Request) -> None:
    """See to it that the connection which is dialled for a request is closed when the call is cancelled during the TLS handshake.

    The library (httpcore2 2.16.2, `start_tls` of its anyio backend) closes it after an Exception only, which a cancellation is not: the
    socket would stay open until the garbage collector finds it. What is dialled is seen by the library's documented `trace` extension.
    """
    request.extensions = {**request.extensions, "trace": Dial()}


class Dial:
    """Follows the dialling of one connection; a `trace` of httpx, which has the same hole (httpcore 1.0.9), or httpx2."""

    def __init__(self) -> None:
        self._connected: Any = None  # a stream of the library, which has no public type

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """Take in one step of a request (called by the library)."""
        if event == "connection.connect_tcp.complete":
            self._connected = info["return_value"]
        elif event == "connection.start_tls.complete":
            self._connected = None  # from here on the pool closes it
        elif event == "connection.start_tls.failed" and self._connected is not None:
            connected, self._connected = self._connected, None
            await connected.aclose()


def socket_options() -> list[tuple[int, int, int]]:
    """Let the kernel find dead connections: after 5 s without traffic ask each 2 s, give up after 2 questions or 6 s without an ACK."""
    wanted = [("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 2), ("TCP_USER_TIMEOUT", 6000)]
    known = [(socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in wanted if hasattr(socket, name)]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *known]
