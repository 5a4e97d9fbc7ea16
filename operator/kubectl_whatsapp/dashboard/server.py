"""Serves the page on loopback: read-only, to a browser that knows the token in its address. Server-sent events carry the updates."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Final

from aiohttp import web

from kubectl_whatsapp import Obj
from kubectl_whatsapp.changes import shard_number
from kubectl_whatsapp.dashboard.board import Board
from kubectl_whatsapp.dashboard.lists import Key
from kubectl_whatsapp.model import View

LOOPBACK: Final = "127.0.0.1"
TYPES: Final = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg+xml"}
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every answer. The page loads only its own files, and its address, which contains the token, is sent nowhere."""
HEARTBEAT: Final = 5.0
"""Seconds after which the page is sent something even if nothing is new, so that both sides notice when the other is gone."""
REST: Final = 0.05
"""Shortest time between two evaluations, in seconds: several events often belong to one change."""
SHARE: Final = 4
"""After an evaluation, there is a pause of this many times its duration, so that many clusters do not use up the CPU."""


def frame(event: str, text: str) -> bytes:
    """Return one server-sent event (HTML standard, "Server-sent events"): a line of data for each line of the text."""
    lines = "".join(f"data: {line}\n" for line in text.split("\n"))
    return f"event: {event}\n{lines}\n".encode()


class Server:
    """The page, its events, and who may request them. Belongs to one event loop."""

    def __init__(self, make_board: Callable[[Callable[[], None]], Board]) -> None:
        """``make_board`` gets a function that the board calls, from any thread, when there is something new."""
        self.token = secrets.token_urlsafe(32)
        self.port = 0
        self._make_board = make_board
        self._news = asyncio.Event()
        self._readers: set[asyncio.Event] = set()
        self._views: dict[Key, View | str] = {}
        self._is_ending = False
        self._board: Board
        self._judging: asyncio.Task[None]

    @property
    def url(self) -> str:
        """The page's address. Anyone who has it can read what this user may read of the clusters."""
        return f"http://{LOOPBACK}:{self.port}/{self.token}/"

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[Server]:
        """Serve inside the block. ``port``: 0 is any free one. OSError if it is in use."""
        loop = asyncio.get_running_loop()
        self._board = self._make_board(lambda: _call(loop, self._news.set))
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/{token}/events", self._events, allow_head=False)
        app.router.add_get("/{token}/{file:[a-z]*\\.?[a-z]*}", self._file, allow_head=False)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._judging = asyncio.create_task(self._judge_forever())
        try:
            site = web.TCPSite(runner, LOOPBACK, port)
            await site.start()
            self.port = runner.addresses[0][1]
            self._board.start()
            yield self
        finally:
            self._is_ending = True
            self._board.stop()
            self._judging.cancel()
            self._wake_readers()
            await runner.cleanup()

    async def wait(self) -> None:
        """Wait as long as it serves. Raises an error that stops the evaluations: a page that no longer changes must not seem live."""
        await self._judging

    async def _judge_forever(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            begun = time.monotonic()
            self._views = self._board.views()
            self._wake_readers()
            await asyncio.sleep(max(REST, SHARE * (time.monotonic() - begun)))

    def _wake_readers(self) -> None:
        for reader in self._readers:
            reader.set()

    # --- requests ---------------------------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        """Reject every request without the token, with another host name, or with a method that could change something."""
        if (problem := self._problem(request)) is not None:
            return web.Response(status=problem[0], text=problem[1], headers=HEADERS)
        try:
            return await handler(request)
        except web.HTTPException as error:
            return web.Response(status=error.status, text=error.reason, headers=HEADERS)

    def _problem(self, request: web.Request) -> tuple[int, str] | None:
        # If another site's name resolved to 127.0.0.1, the browser would let that site's scripts read this page.
        if request.headers.get("Host") not in {f"{LOOPBACK}:{self.port}", f"localhost:{self.port}"}:
            return 403, "This page is served only on 127.0.0.1.\n"
        given = request.path.split("/")[1]
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return 403, "The token in this address is not the one that the command printed. Open the address that it printed.\n"
        return (405, "This page is read-only.\n") if request.method != "GET" else None

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info["file"] or "index.html"
        found = files("kubectl_whatsapp.dashboard").joinpath("page", name)
        kind = TYPES.get(name.rpartition(".")[2])
        if kind is None or not found.is_file():
            raise web.HTTPNotFound
        return web.Response(text=found.read_text(encoding="utf-8"), content_type=kind, charset="utf-8", headers=HEADERS)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Send everything, then all changes, until either side ends it. ``namespace``, ``cluster`` and ``shard`` say what is selected."""
        key = (request.query.get("namespace", ""), request.query.get("cluster", ""))
        shard = shard_number(request.query.get("shard", ""))
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream; charset=utf-8"})
        reader = asyncio.Event()
        self._readers.add(reader)
        sent: dict[str, str] = {}
        try:
            await response.prepare(request)
            await response.write(b"retry: 1000\n\n")
            while not self._is_ending:
                for name, value in self._documents(key, shard).items():
                    text = json.dumps(value, separators=(",", ":"))
                    if name == "connection" or sent.get(name) != text:
                        sent[name] = text
                        await response.write(frame(name, text))
                await _wait(reader, HEARTBEAT)
        except ConnectionResetError:
            pass  # the page was closed
        finally:
            self._readers.discard(reader)
        return response

    def _documents(self, key: Key, shard: int | None) -> dict[str, Obj]:
        """The data for the page, by event: the list of clusters, the selected one, and whether the API server answers."""
        listed = self._board.clusters(self._views)
        chosen = key if key[1] else next(iter(self._views), None)
        one = {"cluster": self._board.cluster(chosen, self._views.get(chosen), shard)} if chosen and self._views else {}
        return {"clusters": listed, **one, "connection": self._board.connection()}


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop has ended before the calling thread
        loop.call_soon_threadsafe(function)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
    event.clear()
