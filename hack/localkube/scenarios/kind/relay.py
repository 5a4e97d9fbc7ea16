"""A small HTTP proxy that runs in the network of a node, so that a sender outside reaches pods by their addresses.

Only the standard library: it runs in any image with Python, its text handed over on the command line. ``PORT`` is where it listens.
"""

import asyncio
import os
from urllib.parse import urlsplit

CONNECT_S = 5.0
HEAD_S = 10.0
CHUNK = 65536


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take one connection: read its first head, connect where it says, and pass bytes both ways until one side ends."""
    try:
        async with asyncio.timeout(HEAD_S):
            head = await reader.readuntil(b"\r\n\r\n")
        method, target = head.split(b" ", 2)[:2]
        where = urlsplit(f"//{target.decode()}" if method == b"CONNECT" else target.decode())
        async with asyncio.timeout(CONNECT_S):
            back, forth = await asyncio.open_connection(where.hostname, where.port or 80)
    except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        # A sender gets no answer from a missing pod either.
        writer.transport.abort()
        return
    if method == b"CONNECT":
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
    else:
        forth.write(head)
    await asyncio.gather(pump(reader, forth), pump(back, writer))


async def pump(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    """Pass data on until the connection ends; a reset is passed on as a reset."""
    try:
        while chunk := await source.read(CHUNK):
            to.write(chunk)
            await to.drain()
        to.close()
    except OSError:
        to.transport.abort()


async def main() -> None:
    """Listen forever."""
    server = await asyncio.start_server(serve, "0.0.0.0", int(os.environ["PORT"]), backlog=512)  # noqa: S104  a node's own network
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
