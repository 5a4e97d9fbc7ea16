"""One listening port that can be slammed shut, frozen, and opened again."""

import asyncio
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from typing import cast

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

_NEVER = 10 * 365 * 86400.0
"""Keep-alive of an idle connection, seconds: such a connection is the operator's tether, so only a death may end it."""


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
    ) -> None:
        self.host = host
        self.port = port
        self._routes = list(routes)
        self._gate = gate
        self._middlewares = list(middlewares)
        self._ssl_context = ssl_context
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._runner: web.AppRunner | None = None
        self._at_work: set[asyncio.Task[object]] = set()

    @property
    def listening(self) -> bool:
        """True while connections are taken."""
        return self._server is not None and self._server.is_serving()

    async def open(self) -> None:
        """Listen.

        Raises OSError when the address is taken or not this machine's.
        """
        app = web.Application(middlewares=[self._pass_gate, *self._middlewares])
        app.add_routes(self._routes)
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=_NEVER, shutdown_timeout=0.1)
        await self._runner.setup()
        protocol = cast(web.Server, self._runner.server)  # there is one from setup to cleanup
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # Our own socket, and serving as a second step: it is known here before the first await, so that a kill at any point frees the port.
        self._socket = socket.create_server((self.host, self.port), family=family, backlog=1024)
        self._server = await asyncio.get_running_loop().create_server(
            protocol,
            sock=self._socket,
            ssl=self._ssl_context,
            ssl_handshake_timeout=5.0 if self._ssl_context else None,
            backlog=1024,
            start_serving=False,
        )
        await self._server.start_serving()

    @web.middleware
    async def _pass_gate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        task = cast("asyncio.Task[object]", asyncio.current_task())
        self._at_work.add(task)
        try:
            await self._gate.wait()
            response = await handler(request)
            await self._gate.wait()
        finally:
            self._at_work.discard(task)
        return response

    def abort(self) -> None:
        """Free the port and cut all connections now, without a goodbye; whoever is at work is cancelled."""
        self._stop_listening()
        if self._runner is not None and self._runner.server is not None:
            for connection in self._runner.server.connections:
                if connection.transport is not None:
                    connection.transport.abort()
        for task in self._at_work:
            task.cancel()

    async def close(self, grace: float) -> None:
        """Stop listening, let those at work finish for ``grace`` seconds at most, then cut. Also tidies up after ``abort``."""
        self._stop_listening()
        if self._at_work and grace > 0:
            await asyncio.wait(set(self._at_work), timeout=grace)
        at_work = set(self._at_work)
        self.abort()
        if at_work:
            await asyncio.wait(at_work, timeout=5.0)
        runner, self._runner = self._runner, None
        if runner is not None:
            with suppress(asyncio.TimeoutError):
                await runner.cleanup()

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
