"""What a client that misbehaves costs: no memory, no time without an end, no call without an outcome."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from whatsapp_operator.core.snapshot import Answer
from whatsapp_operator.shell.whatsapp.webapps import MOST_BYTES

from .wabiz_server import Client, SessionHarness, harness, pair, rejection, served

__all__ = ["harness", "pair"]

PIECE = b" " * 2**16
MEBIBYTES = 4
"""More than an answer may cost."""


async def drips(request: web.Request) -> web.StreamResponse:
    """Send a byte at a time, each sooner than a time-out of one read."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.02)


async def floods(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(64 * 2**20 // len(PIECE)):
        await response.write(PIECE)
    return response


def packed() -> web.Response:
    """A small answer that is long once it is unpacked."""
    return web.Response(body=gzip.compress(b" " * (64 * 2**20)), headers={"Content-Encoding": "gzip"})


@contextmanager
def in_little_memory() -> Iterator[None]:
    """Fail if the block had more than ``MEBIBYTES`` at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MEBIBYTES * 2**20
    finally:
        tracemalloc.stop()


async def test_a_call_ends_in_its_time_however_slowly_the_answer_comes(harness: SessionHarness) -> None:
    await harness.ask()
    harness.client.posted = drips
    harness.session._call_timeout = 0.5
    call = await harness.call()
    assert (call.answer, call.not_sent, call.detail) == (Answer.UNKNOWN, False, "POST /v1/account/shards: no answer within 0.5 s")
    harness.client.posted = harness.client.accepts
    assert (await harness.call()).answer is Answer.ACCEPTED, "the connection is not used again"


async def test_of_an_endless_answer_the_beginning_is_read(harness: SessionHarness) -> None:
    await harness.ask()
    harness.client.posted = floods
    with in_little_memory():
        call = await harness.call()
    assert (call.answer, call.detail) == (Answer.UNKNOWN, "POST /v1/account/shards: unreadable answer")


async def test_a_packed_answer_is_not_unpacked(harness: SessionHarness) -> None:
    await harness.ask()
    bomb = packed()
    harness.client.answers(lambda: bomb)
    with in_little_memory():
        assert (await harness.call()).answer is Answer.UNKNOWN


async def test_the_longest_answer_is_read_whole(harness: SessionHarness) -> None:
    body = '{"account": {"shards": 4}}'
    harness.client.says_of_shards = lambda: web.Response(text=body.ljust(MOST_BYTES))
    await harness.ask()
    assert (harness.session.client.shards, harness.session.client.problem) == (4, "")
    harness.client.says_of_shards = lambda: web.Response(text=body.rjust(MOST_BYTES + 1))
    await harness.ask()
    assert harness.session.client.problem == "GET /v1/account/shards: unreadable answer"


async def test_no_cookie_is_kept(harness: SessionHarness) -> None:
    """They would be more with each answer, and be sent with each request."""
    sent: list[str | None] = []

    async def gives_one(request: web.Request) -> web.StreamResponse:
        sent.append(request.headers.get("Cookie"))
        return web.json_response({}, status=201, headers={"Set-Cookie": f"c{len(sent)}={'x' * 1000}"})

    harness.client.posted = gives_one
    for _ in range(2):
        assert (await harness.call()).answer is Answer.ACCEPTED
    assert sent == [None, None]


@asynccontextmanager
async def giving(token: Any, pair: Path) -> AsyncIterator[SessionHarness]:
    """A client whose login answers this token, and that takes any."""

    class Giving(Client):
        async def _login(self, request: web.Request) -> web.StreamResponse:
            await super()._login(request)
            return web.json_response({"users": [{"token": token}]})

        def _knows(self, request: web.Request) -> bool:
            return True

    client = Giving()
    async with served(client, pair):
        harness = SessionHarness(client)
        yield harness
        await harness.session.close()


@pytest.mark.parametrize("token", [12345, {"a": 1}, ["a"], True, None, "", "a\r\nHost: b", "a b", "€", "a" * 10_000])
async def test_a_token_that_no_header_can_carry_is_no_login(token: Any, pair: Path) -> None:
    async with giving(token, pair) as harness:
        harness.client.answers(lambda: rejection(503))
        await harness.ask()
        assert harness.session.client.problem == "POST login: unreadable answer"
        call = await harness.call()
        assert (call.answer, call.not_sent) == (None, True)
        assert len(harness.client.logins) == 2, "it is asked for again, not kept for six days"
        assert harness.client.posts == []
