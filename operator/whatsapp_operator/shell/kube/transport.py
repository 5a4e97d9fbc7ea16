"""Connections to the API server: kept open, and replaced when they are dead. Knows HTTP, not Kubernetes."""

from __future__ import annotations

import asyncio
import select
import socket
import weakref
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence


SLOW = 0.4
"""Seconds without an answer after which a call may have gone to an API server that hangs. Less than a failover by lists from its cache may
take."""
SLOWEST = 4 * SLOW
"""The same while an API server is slow: it is twice as long as the last answer took, and at most this."""
MOST_SENT = 3
"""How often a read is sent: a new connection may lead to the same server, one that answered another read meanwhile does not."""
MOST_AGAIN = 6
"""Reads that are sent again at the same time: an API server that is merely slow must not get twice as many."""


class SentAgain(Counter[str]):
    """Counts calls that were sent again, or for which another connection was opened, by which of them was first."""

    FIRST = "first"
    """The API server is slow."""
    LATER = "later"
    """One of several API servers hangs, or is slower than another one."""
    NONE = "none"

    def __init__(self) -> None:
        """Begin with zeros: PromQL does not notice the first event of a series that begins with 1."""
        super().__init__({self.FIRST: 0, self.LATER: 0, self.NONE: 0})

    def note(self, sendings: Sequence[object], answered: object) -> None:
        """Note a call that has ended; ``answered`` is one of its sendings, or None. One that was sent once does not count."""
        if len(sendings) > 1:
            self[self.NONE if answered is None else self.FIRST if answered is sendings[0] else self.LATER] += 1


class Patience:
    """Seconds without an answer after which a call may have gone to an API server that hangs, by the last call that was answered."""

    def __init__(self) -> None:
        self.seconds = SLOW

    def note(self, took: float, *, by_first: bool) -> None:
        """Note an answer; ``by_first``: to the first sending, so an API server that takes long for it is merely slow."""
        self.seconds = min(max(SLOW, 2 * took), SLOWEST) if by_first else SLOW


class ReconnectingTransport(httpx2.AsyncBaseTransport):
    """A pool of connections without an idle time-out, which is replaced as a whole when its connections are dead.

    The library drops idle connections after 5 s, which costs a TLS handshake after each pause. Idle connections have a risk: when an API
    server, or the load balancer in front of it, dies without closing them, all are dead, and each would cost one call its time-out. So
    after a call that fails or is cancelled before its answer, later calls use a new pool. Calls in progress (watches too) stay on the old
    one.

    The pool is kept if another call was answered meanwhile: then only the connection of the failed call is closed. It is also kept if no
    call was ever answered on it: then it has no idle connections. An outdated pool is replaced in any case, for example after a rotation
    of the authority that it trusts.

    Of several API servers behind a load balancer one may hang while the others answer, and any connection may lead to it. So when a call
    has had no answer for `SLOW`, idle connections are no longer used on which nothing was answered since it was sent. A read is then sent
    again, over another connection, and the first answer counts. A write is sent once. If the first sending is answered first, the API
    server is merely slow, and later calls are given more time: each read and each connection costs it something.
    """

    def __init__(self, make_pool: Callable[[], httpx2.AsyncBaseTransport], *, is_outdated: Callable[[], bool] = lambda: False) -> None:
        """``is_outdated`` returns whether a new pool would be another one than the newest."""
        self._make_pool = make_pool
        self._is_outdated = is_outdated
        self._pool = make_pool()
        self._in_progress: Counter[httpx2.AsyncBaseTransport] = Counter()
        self._answers = 0
        """Calls that were answered on the newest pool."""
        self._answered_at: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
        """When the last answer came over each connection."""
        self._distrusted_before = float("-inf")
        """Idle connections are not used whose last answer came before."""
        self._patience = Patience()
        self._sends_again = asyncio.Semaphore(MOST_AGAIN)
        self.sent_again = SentAgain()
        """Of reads."""
        self.date = ""
        """Header ``Date`` of the last answer that had one."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, a read again while it has no answer (called by the client library)."""
        loop = asyncio.get_running_loop()
        if request.method == "GET":
            return await self._first_answer(request, loop.time())
        distrusting = loop.call_later(self._patience.seconds, self._distrust, loop.time())
        try:
            return await self._send(request)
        finally:
            distrusting.cancel()

    async def _first_answer(self, request: httpx2.Request, sent: float) -> httpx2.Response:
        calls, answered = [asyncio.create_task(self._send(request))], None
        try:
            while answered is None and (pending := [call for call in calls if not call.done()]):
                timeout = self._patience.seconds if len(calls) < MOST_SENT else None
                done, _ = await asyncio.wait(pending, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                # That one server fails says nothing about another one.
                answered = next((call for call in done if call.exception() is None and call.result().status_code < 500), None)
                if not done:
                    self._distrust(sent)
                    calls.append(asyncio.create_task(self._send_again(request)))
            answered = answered or next((call for call in calls if call.exception() is None), None)
            if answered is not None:
                self._patience.note(asyncio.get_running_loop().time() - sent, by_first=answered is calls[0])
            await _drop(call for call in calls if call is not answered)
            return (answered or calls[0]).result()
        except asyncio.CancelledError:  # then nobody gets the answer, if there is one
            await _drop(calls)
            raise
        finally:
            self.sent_again.note(calls, answered)

    async def _send_again(self, request: httpx2.Request) -> httpx2.Response:
        async with self._sends_again:
            return await self._send(request)

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request over the newest pool."""
        pool, answers = self._pool, self._answers
        self._in_progress[pool] += 1
        close_if_cancelled(request)
        try:
            response = await pool.handle_async_request(request)
        except BaseException:  # a timeout arrives here as a cancellation
            if self._answers == answers > 0 or self._is_outdated():
                self._replace_pool(pool)
            await self._ended(pool)
            raise
        if pool is self._pool:
            self._answers += 1
        self._note_answer(response)
        self.date = response.headers.get("Date") or self.date
        if not isinstance(response.stream, httpx2.AsyncByteStream):
            msg = f"the transport {type(pool).__name__} returned a stream that is not asynchronous."
            raise TypeError(msg)
        response.stream = _Body(response.stream, lambda: self._replace_pool(pool), lambda: self._ended(pool))
        return response

    async def aclose(self) -> None:
        """Close the newest pool; older ones close with their last call."""
        await self._pool.aclose()

    def _distrust(self, sent: float) -> None:
        """Stop using idle connections whose last answer came before an unanswered call was sent."""
        self._distrusted_before = max(self._distrusted_before, sent)

    def _note_answer(self, response: httpx2.Response) -> None:
        stream = response.extensions.get("network_stream")  # the library's documented access to the connection
        if stream is not None:
            if stream not in self._answered_at:
                check_by_socket(stream, is_distrusted=lambda one: self._answered_at[one] < self._distrusted_before)
            self._answered_at[stream] = asyncio.get_running_loop().time()

    def _replace_pool(self, pool: httpx2.AsyncBaseTransport) -> None:
        if pool is self._pool:  # otherwise another call that failed at the same time has done it
            self._pool, self._answers = self._make_pool(), 0

    async def _ended(self, pool: httpx2.AsyncBaseTransport) -> None:
        self._in_progress[pool] -= 1
        if not self._in_progress[pool]:
            del self._in_progress[pool]
            if pool is not self._pool:
                await pool.aclose()


FIRST_PAUSE = 0.05
"""Seconds before a throttled call is sent again for the first time; the pause doubles."""
THROTTLED_FOR = 1.5
"""Seconds after which the 429 is returned: less than any call may take, so that it is reported and not a time-out."""


class RetryThrottled(httpx2.AsyncBaseTransport):
    """Sends a call again that was answered 429: the API server has not processed it.

    An observation needs several reads: if half of all calls failed, hardly any observation would succeed. The attempts end within the time
    that the caller gives the call, so a write is never sent after its Lease. ``Retry-After`` is ignored: it is one second under any load,
    and a failover may depend on the call.
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


async def _drop(calls: Iterable[asyncio.Task[httpx2.Response]]) -> None:
    """Cancel calls, and close the answers of those that have one."""
    dropped = [*calls]
    for call in dropped:
        call.cancel()
    for answer in await asyncio.gather(*dropped, return_exceptions=True):
        if isinstance(answer, httpx2.Response):
            await answer.aclose()


class _Body(httpx2.AsyncByteStream):
    """The body of an answer, which reports when it broke and when it ended."""

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
    """Close the connection that is opened for a request when the call is cancelled during the TLS handshake.

    The library (httpcore2 2.16.2, `start_tls` of its anyio backend) closes it only after an Exception, which a cancellation is not: the
    socket would stay open until the garbage collector finds it. The library's documented `trace` extension gives access to the connection.
    """
    request.extensions = {**request.extensions, "trace": HandshakeGuard()}


class HandshakeGuard:
    """Follows the opening of one connection. A `trace` for httpx2, and for httpx, which has the same defect (httpcore 1.0.9)."""

    def __init__(self) -> None:
        self._connected: Any = None  # a stream of the library, which has no public type

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """Handle one step of a request (called by the library)."""
        if event == "connection.connect_tcp.complete":
            self._connected = info["return_value"]
        elif event == "connection.start_tls.complete":
            self._connected = None  # from here on the pool closes it
            check_by_socket(info["return_value"])
        elif event == "connection.start_tls.failed" and self._connected is not None:
            connected, self._connected = self._connected, None
            await connected.aclose()


def check_by_socket(stream: Any, *, is_distrusted: Callable[[Any], bool] = lambda _: False) -> None:
    """Have the pool ask the socket itself whether an idle connection has something to read, which means that the server has closed it.

    The pool also closes an idle connection of which ``is_distrusted`` returns True.

    For each call the library asks that twice of each idle connection, and each time it first collects what all layers know about the
    connection (httpcore2 2.16.2, `get_extra_info` of its anyio backend). With thirty idle connections that is a third of a call.
    """
    raw, ask, poll = stream.get_extra_info("socket"), type(stream).get_extra_info, select.poll()
    poll.register(raw.fileno(), select.POLLIN)
    # A stream that holds itself would stay in memory, after it was closed, until the next garbage collection.
    weak = weakref.ref(stream)
    # Once it is closed, its number may be that of another socket.
    stream.get_extra_info = lambda what: (
        (raw.fileno() < 0 or bool(poll.poll(0)) or is_distrusted(weak())) if what == "is_readable" else ask(weak(), what)
    )


def socket_options() -> list[tuple[int, int, int]]:
    """Return options by which the kernel finds dead connections: keepalive after 5 s, each 2 s, at most 2; or 6 s without an ACK."""
    options = [("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 2), ("TCP_USER_TIMEOUT", 6000)]
    known = [(socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in options if hasattr(socket, name)]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *known]
