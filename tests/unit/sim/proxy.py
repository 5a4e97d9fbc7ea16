"""A connection on its way: forwarded, or with the answers lost."""

import asyncio
from contextlib import suppress


class Proxy:
    """Forwards TCP connections to one address. Once muted it forwards requests and swallows answers."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.muted = False
        self.requests = asyncio.Event()
        """Set when a request was forwarded while muted."""
        self._to = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """End all connections; later ones are forwarded in full again."""
        self.muted = False
        self.requests.clear()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        if self._server is not None:
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, forth}
        await asyncio.gather(self._pass(reader, forth, answers=False), self._pass(back, writer, answers=True))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if self.muted and answers:
                    self.requests.set()  # the server has answered, so it has done it
                    continue
                writer.write(data)
                await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
