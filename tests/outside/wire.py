"""A wire that can be cut: a TCP relay on loopback between a program under test and its server, to take the network away on command.

It knows bytes only, so TLS passes through it untouched. Give each program a wire of its own to separate it from the server alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
import struct
from typing import Self

logger = logging.getLogger("localkube.wire")

LOOPBACK = "127.0.0.1"
CHUNK = 65536
CONNECT_S = 5.0
AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: a close is a reset (socket(7))."""


class Wire:
    """Relays TCP connections from a loopback port of its own to ``to``. Use as an async context manager, in one event loop.

    What may be done to it takes effect at once and is undone by ``heal``, but for connections that are black holes: those stay so.
    """

    def __init__(self, to: tuple[str, int], *, port: int = 0) -> None:
        """Prepare. ``to``: (address, port) of the server, on loopback; ``port``: to listen on, a free one if 0. ValueError otherwise."""
        self.lead(to)
        self.delay = 0.0
        """Seconds by which every piece of data is held up, in both directions."""
        self.swallowed = 0
        """Pieces of data that black holes took."""
        self.held = 0
        """Pieces of data and new connections that a cut held up."""
        self.broken = 0
        """Connections that were reset."""
        self._port = port
        self._server: asyncio.Server | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._refusing = False
        self._relays: set[_Relay] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen. Raises OSError when the port is taken."""
        self._server = await asyncio.start_server(self._accepted, LOOPBACK, self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and end all connections."""
        if self._server is not None:
            self._server.close()
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ------------------------------------------------------------ what is there

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return LOOPBACK, self._port

    @property
    def connections(self) -> int:
        """How many connections are open through it, black holes included."""
        return len(self._relays)

    @property
    def whole(self) -> bool:
        """Whether it is neither cut nor refusing connections."""
        return self._flows.is_set() and not self._refusing

    # ------------------------------------------------------------ what is done to it

    def cut(self, *, refuse: bool = False) -> None:
        """Separate both sides as a network partition does: nothing is delivered, nothing is closed; it goes on after ``heal``, as TCP does.

        With ``refuse``: as a server that is gone: all connections are reset, and new ones too.
        """
        if refuse:
            self._refusing = True
            self.reset()
        else:
            self._flows.clear()

    def heal(self) -> None:
        """End a cut. What was held up is delivered now."""
        self._refusing = False
        self._flows.set()

    def black_hole(self, *, older_than: float = 0.0) -> int:
        """From now on connections that are open for at least so many seconds deliver nothing any more and never say so; new ones work.

        This is how a watch dies silently. Returns how many connections it met. Only their client can end them.
        """
        now = asyncio.get_running_loop().time()
        met = [relay for relay in self._relays if now - relay.since >= older_than and not relay.silent]
        for relay in met:
            relay.silent = True
        return len(met)

    def lead(self, *to: tuple[str, int]) -> None:
        """Lead new connections to another server on loopback, or to several in turn, as a load balancer does.

        The open ones stay where they are. ValueError if a server is not on loopback.
        """
        servers = [_on_loopback(one) for one in to]
        self.to = servers[0]
        self._turns = itertools.cycle(servers)

    def leading_to(self, server: tuple[str, int]) -> int:
        """Return how many open connections lead to a server."""
        return sum(relay.to == server for relay in self._relays)

    def take_turn(self) -> tuple[str, int]:
        """Return where the next connection leads."""
        return next(self._turns)

    def reset(self) -> None:
        """Reset all open connections, on both sides."""
        for relay in list(self._relays):
            self.broken += 1
            relay.reset()

    # ------------------------------------------------------------ relaying

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = _Relay(self, reader, writer)
        if self._refusing:
            self.broken += 1
            relay.reset()
            return
        self._relays.add(relay)
        task = asyncio.create_task(relay.run(), name=f"wire {self._port} to {self.to[1]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._relays.discard(relay))

    async def flowing(self) -> None:
        """Wait until data may pass."""
        self.held += not self._flows.is_set()
        await self._flows.wait()


class _Relay:
    """One connection through a wire."""

    def __init__(self, wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.since = asyncio.get_running_loop().time()
        self.silent = False
        self.to: tuple[str, int] | None = None
        """Where it leads, once that is known."""
        self._wire = wire
        self._client = (reader, writer)
        self._writers = [writer]

    async def run(self) -> None:
        """Relay until both directions have ended, or one broke."""
        try:
            await self._wire.flowing()  # through a cut wire a connection is not made, and nothing says so
            async with asyncio.timeout(CONNECT_S):
                self.to = self._wire.take_turn()
                server = await asyncio.open_connection(*self.to)
            self._writers.append(server[1])
            up = asyncio.create_task(self._pump(self._client[0], server[1], from_client=True))
            down = asyncio.create_task(self._pump(server[0], self._client[1], from_client=False))
            try:
                await asyncio.gather(up, down)
                for writer in self._writers:
                    writer.close()  # what it still holds is delivered
            finally:
                for task in (up, down):
                    task.cancel()
                await asyncio.gather(up, down, return_exceptions=True)
        except (OSError, TimeoutError) as error:
            logger.debug("wire to %s: %s: %s", self._wire.to, type(error).__name__, error)
            self.reset()
        except BaseException:
            self.reset()
            raise

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, from_client: bool) -> None:
        while data := await source.read(CHUNK):
            if self.silent:
                self._wire.swallowed += 1
                continue
            await self._wire.flowing()
            if self._wire.delay > 0:
                await asyncio.sleep(self._wire.delay)
            if self.silent:
                self._wire.swallowed += 1
                continue
            sink.write(data)
            await sink.drain()
        if from_client and self.silent:
            raise ConnectionResetError  # no client is left that it could deceive
        while self.silent:  # the server's farewell is swallowed too
            await asyncio.get_running_loop().create_future()
        await self._wire.flowing()
        with contextlib.suppress(OSError, RuntimeError):
            sink.write_eof()

    def reset(self) -> None:
        """Cut both sides off at once."""
        for writer in self._writers:
            connection = writer.get_extra_info("socket")
            if connection is not None and not writer.transport.is_closing():
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)  # else asyncio's abort says a polite goodbye
            writer.transport.abort()


def _on_loopback(to: tuple[str, int]) -> tuple[str, int]:
    if not to[0].startswith("127."):
        msg = f"a wire leads to loopback only, not to {to[0]}:{to[1]}"
        raise ValueError(msg)
    return to
