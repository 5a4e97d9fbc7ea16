"""One listening port that can be closed at once, frozen, and opened again."""

import asyncio
import functools
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Iterable
from typing import Any, cast

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

log = logging.getLogger(__name__)

_BACKLOG = 1024
_NEVER = 10 * 365 * 86400.0
"""Keep-alive of an idle connection in seconds: it may be the operator's tether, so only the end of the process may close it."""
_MAPPED = "::ffff:"
"""Prefix of an IPv4 caller's address on a dual-stack port."""


def _listening(host: str, port: int) -> socket.socket:
    """Listen; ``::`` is every address of both families, or of IPv4 where the kernel has no IPv6."""
    takes_both = host == "::"
    if takes_both and not socket.has_dualstack_ipv6():
        host, takes_both = "0.0.0.0", False  # noqa: S104 - a container listens on its own network
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=takes_both)


class Listener:
    """Serves ``routes`` on one address and port. May be opened again after it was closed."""

    def __init__(
        self,
        host: str,
        port: int,
        routes: Iterable[web.AbstractRouteDef],
        *,
        gate: asyncio.Event,
        middlewares: Iterable[Middleware] = (),
        ssl_context: ssl.SSLContext | None = None,
        effects: Counter[str] | None = None,
    ) -> None:
        """Prepare; ``effects`` counts the effects of a frozen or closed port: ``requests held``, ``connections reset``."""
        self.host = host
        self.port = port
        self._routes = list(routes)
        self._gate = gate
        self._middlewares = list(middlewares)
        self._ssl_context = ssl_context
        self._socket: socket.socket | None = None
        self._runner: web.AppRunner | None = None
        self._arriving: set[asyncio.Task[None]] = set()
        self._at_work: set[asyncio.Task[object]] = set()
        self._speaks = asyncio.Event()
        self._speaks.set()
        self._near = ""
        self._fillers: list[socket.socket] = []
        self._effects = Counter[str]() if effects is None else effects

    @property
    def listening(self) -> bool:
        """True while connections are accepted."""
        return self._socket is not None

    async def open(self) -> None:
        """Listen.

        Raises OSError if the address is in use or not of this machine.
        """
        app = web.Application(middlewares=[self._pass_gate, *self._middlewares])
        app.add_routes(self._routes)
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=_NEVER, shutdown_timeout=0.1)
        await self._runner.setup()
        self._socket = _listening(self.host, self.port)
        self._socket.setblocking(False)
        self._accept_on(self._socket)

    def _accept_on(self, listening: socket.socket) -> None:
        # Not asyncio's own server: it loses a connection that was accepted just before it is closed, and then the other end hangs.
        if self._socket is listening:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(100):
            try:
                connection, _peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # probably no more file descriptors: avoid a busy loop
                log.warning("%s:%d cannot accept connections for a second: %s", self.host, self.port, error.strerror)
                loop.remove_reader(listening)
                loop.call_later(1.0, self._accept_on, listening)
                return
            connection.setblocking(False)
            task = loop.create_task(self._welcome(connection))
            self._arriving.add(task)
            task.add_done_callback(functools.partial(self._arrived, connection))

    async def _welcome(self, connection: socket.socket) -> None:
        protocol = cast(web.Server, self._runner.server if self._runner else None)
        handshake = 5.0 if self._ssl_context else None
        await asyncio.get_running_loop().connect_accepted_socket(
            protocol, connection, ssl=self._ssl_context, ssl_handshake_timeout=handshake
        )

    def _arrived(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._arriving.discard(task)
        if task.cancelled() or task.exception() is not None:  # closed at once, or the caller has disconnected or does not use TLS
            connection.close()

    @web.middleware
    async def _pass_gate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        task = cast("asyncio.Task[object]", asyncio.current_task())
        self._at_work.add(task)
        try:
            await self._pass(request)
            response = await handler(request)
            await self._pass(request)
            if self._socket is None:  # the next request on this connection would be cut
                response.force_close()
        finally:
            self._at_work.discard(task)
        return response

    async def _pass(self, request: web.Request) -> None:
        silent = not self._speaks.is_set() and (request.remote or "").removeprefix(_MAPPED) != self._near
        self._effects["requests held"] += silent or not self._gate.is_set()
        await self._gate.wait()
        if silent:
            await self._speaks.wait()

    def clog(self, *, near: str = "") -> None:
        """Become half open until ``unclog``: nothing is answered on open connections, and new ones are not completed.

        With ``near``: like a network partition: callers at that IP address are on this side and are answered. New connections of all
        others are completed, because the kernel cannot distinguish them, but not answered.
        """
        if self._socket is None or not self._speaks.is_set():
            return
        self._speaks.clear()
        self._near = near
        if near:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        # Without an accept and with a queue of length 0, the kernel answers no SYN once its one place is used (listen(2)).
        self._socket.listen(0)
        for _ in range(2):
            filler = socket.socket(self._socket.family)
            filler.setblocking(False)
            filler.connect_ex(self._socket.getsockname())
            self._fillers.append(filler)

    def unclog(self) -> None:
        """End ``clog``: requests that arrived meanwhile are answered now."""
        accepts, self._near = bool(self._near), ""
        self._drop_fillers()
        if self._socket is not None and not accepts:
            self._socket.listen(_BACKLOG)
            self._accept_on(self._socket)

    def _drop_fillers(self) -> None:
        self._speaks.set()
        fillers, self._fillers = self._fillers, []
        for filler in fillers:
            filler.close()

    def abort(self) -> None:
        """Free the port and cut all connections now, without close frames; handlers are cancelled."""
        self._stop_listening()
        for arriving in self._arriving:
            arriving.cancel()
        if self._runner is not None and self._runner.server is not None:
            for connection in self._runner.server.connections:
                if connection.transport is not None:
                    self._effects["connections reset"] += 1
                    connection.transport.abort()
        for task in self._at_work:
            task.cancel()

    async def close(self, grace: float) -> None:
        """Stop listening, let handlers finish for at most ``grace`` seconds, then cut. Also cleans up after ``abort``."""
        self._stop_listening()
        if grace <= 0:
            self.abort()
        deadline = asyncio.get_running_loop().time() + grace
        while self._at_work and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(set(self._at_work), timeout=left)  # others may begin meanwhile, on connections that are open
        ending: set[asyncio.Task[Any]] = {*self._at_work, *self._arriving}
        for straggler in ending:
            straggler.cancel()
        if ending:
            await asyncio.wait(ending, timeout=5.0)
        runner, self._runner = self._runner, None
        if runner is not None:
            try:
                await runner.cleanup()
            except asyncio.CancelledError:
                self._runner = runner  # the grace period is over: the next call cuts the rest
                raise

    def _stop_listening(self) -> None:
        self._drop_fillers()
        listening, self._socket = self._socket, None
        if listening is not None:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()
