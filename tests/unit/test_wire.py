"""The wire: what it delivers, and what it does not when it is cut, a black hole or slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from outside.wire import Wire

WAIT = 60.0
SILENCE = 0.15


@asynccontextmanager
async def an_echo(prefix: bytes = b"") -> AsyncIterator[tuple[str, int]]:
    """A server that repeats what it gets."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while data := await reader.read(1000):
                writer.write(prefix + data)
            writer.write_eof()
        except ConnectionError:
            pass

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


@asynccontextmanager
async def a_client(wire: Wire) -> AsyncIterator[Callable[..., Awaitable[bytes]]]:
    """A connection through the wire: say something, get the answer."""
    reader, writer = await asyncio.open_connection(*wire.address)

    async def ask(data: bytes = b"") -> bytes:
        if data:
            writer.write(data)
        async with asyncio.timeout(WAIT):
            return await reader.read(1000)

    try:
        yield ask
    finally:
        writer.transport.abort()


async def says_nothing(answer: Awaitable[bytes]) -> asyncio.Future[bytes]:
    waiting = asyncio.ensure_future(answer)
    done, _ = await asyncio.wait({waiting}, timeout=SILENCE)
    assert not done, waiting
    return waiting


async def test_it_relays_both_ways_and_ends_with_its_ends() -> None:
    async with an_echo() as to, Wire(to) as wire:
        reader, writer = await asyncio.open_connection(*wire.address)
        writer.write(b"x" * 300_000)
        writer.write_eof()
        async with asyncio.timeout(WAIT):
            assert await reader.read() == b"x" * 300_000
            writer.close()
            while wire.connections:
                await asyncio.sleep(0.01)


async def test_a_cut_delivers_nothing_and_closes_nothing_until_it_is_healed() -> None:
    async with an_echo() as to, Wire(to) as wire, a_client(wire) as ask:
        assert await ask(b"one") == b"one"
        wire.cut()
        assert (wire.whole, wire.held) == (False, 0), "nothing was to be held up yet"
        waiting = await says_nothing(ask(b"two"))
        async with a_client(wire) as late:  # the kernel takes the connection, and there is no answer
            waiting_too = await says_nothing(late(b"three"))
            assert wire.held == 2
            wire.heal()
            assert wire.whole
            async with asyncio.timeout(WAIT):
                assert await waiting == b"two"
                assert await waiting_too == b"three"


async def test_a_refusing_wire_resets_old_and_new_connections_until_it_is_healed() -> None:
    async with an_echo() as to, Wire(to) as wire, a_client(wire) as ask:
        assert await ask(b"one") == b"one"
        assert wire.broken == 0
        wire.cut(refuse=True)
        assert wire.broken == 1
        with pytest.raises(ConnectionError):
            await ask()
        with pytest.raises(ConnectionError):
            async with a_client(wire) as late:
                await late(b"two")
        assert wire.broken == 2
        wire.heal()
        async with a_client(wire) as again:
            assert await again(b"three") == b"three"


async def test_a_black_hole_takes_the_old_connections_for_good_and_spares_the_new() -> None:
    async with an_echo() as to, Wire(to) as wire, a_client(wire) as old:
        assert await old(b"one") == b"one"
        assert wire.black_hole(older_than=60.0) == 0
        assert await old(b"two") == b"two"
        assert wire.black_hole() == 1
        assert wire.black_hole() == 0, "it is one already"
        async with a_client(wire) as new:
            assert await new(b"three") == b"three"
            assert wire.swallowed == 0, "nothing was said on it yet"
            waiting = await says_nothing(old(b"four"))
            assert wire.swallowed == 1
            wire.heal()
            assert not (await asyncio.wait({waiting}, timeout=SILENCE))[0], "healing does not bring it back"
            waiting.cancel()
        async with asyncio.timeout(WAIT):
            while wire.connections > 1:
                await asyncio.sleep(0.01)


async def test_a_black_hole_ends_when_its_client_does() -> None:
    async with an_echo() as to, Wire(to) as wire:
        async with a_client(wire) as ask:
            assert await ask(b"one") == b"one"
            wire.black_hole()
        async with asyncio.timeout(WAIT):
            while wire.connections:
                await asyncio.sleep(0.01)


async def test_delay_holds_every_piece_up() -> None:
    async with an_echo() as to, Wire(to) as wire, a_client(wire) as ask:
        wire.delay = 0.1
        begun = asyncio.get_running_loop().time()
        assert await ask(b"one") == b"one"
        assert asyncio.get_running_loop().time() - begun >= 0.2


async def test_new_connections_are_led_elsewhere() -> None:
    async with an_echo() as to, an_echo(b"other ") as other, Wire(to) as wire, a_client(wire) as old:
        assert await old(b"one") == b"one"
        wire.lead(other)
        async with a_client(wire) as new:
            assert await new(b"two") == b"other two"
        assert await old(b"three") == b"three"


async def test_a_server_that_is_not_there_ends_the_connection() -> None:
    async with an_echo() as to:
        gone = to
    async with Wire(gone) as wire, a_client(wire) as ask:
        with pytest.raises(ConnectionError):
            await ask(b"one")


async def test_it_leads_new_connections_to_several_servers_in_turn() -> None:
    async with an_echo(b"a ") as first, an_echo(b"b ") as second, Wire(first) as wire:
        wire.lead(first, second)
        answers = []
        for _ in range(4):
            async with a_client(wire) as ask:
                answers.append(await ask(b"x"))
        assert answers == [b"a x", b"b x"] * 2


async def test_it_says_how_many_connections_lead_to_a_server() -> None:
    async with an_echo() as first, an_echo() as second, Wire(first) as wire:
        wire.lead(first, second, second)
        async with a_client(wire) as one, a_client(wire) as two, a_client(wire) as three:
            await asyncio.gather(one(b"x"), two(b"x"), three(b"x"))
            assert (wire.leading_to(first), wire.leading_to(second)) == (1, 2)


async def test_it_leads_to_loopback_only() -> None:
    with pytest.raises(ValueError, match="loopback only"):
        Wire(("192.0.2.1", 443))
    async with an_echo() as to, Wire(to) as wire:
        with pytest.raises(ValueError, match="loopback only"):
            wire.lead(("192.0.2.1", 443))
