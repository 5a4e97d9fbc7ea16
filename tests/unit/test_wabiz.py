"""The client of the WhatsApp Business API, against a small HTTPS server: what was sent for sure, and what was not; what wakes the loop."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from aiohttp import web

from whatsapp_operator.core.snapshot import Answer, Call, Login
from whatsapp_operator.shell.whatsapp.access import Access
from whatsapp_operator.shell.whatsapp.session import UNSENT_PAUSE, ApiSessions
from whatsapp_operator.shell.whatsapp.webapps import SEND_WITHIN

from .wabiz_server import (
    CERTIFICATE,
    CREDENTIALS,
    KEY,
    PASSWORD,
    PIN,
    Client,
    ManualClock,
    SessionHarness,
    harness,
    listening,
    operation,
    pair,
    refused_port,
    rejection,
    served,
)

__all__ = ["harness", "pair"]

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


# --- what was sent, and what was not


async def test_an_accepted_call_carries_all_that_the_page_asks_for(harness: SessionHarness) -> None:
    assert (await harness.call()).answer is Answer.ACCEPTED
    assert harness.client.posts == [{"cc": "1", "phone_number": "6315550000", "shards": 2, "pin": PIN, "cert": CERTIFICATE}]


async def test_an_answer_is_freed_without_the_garbage_collector(harness: SessionHarness) -> None:
    """It holds its connection with the TLS state, 1,000 clusters give 33 answers a second, and the operator collects garbage seldom."""
    gc.collect()
    gc.disable()
    try:
        await harness.ask()
        await harness.call()
        assert harness.session.client.shards == 1
        assert len(harness.client.posts) == 1
        assert [one for one in gc.get_objects() if isinstance(one, httpx.Response)] == []
    finally:
        gc.enable()


def assert_unsent(harness: SessionHarness, call: Call) -> None:
    seen = harness.session.client
    assert call.not_sent
    assert (call.answer, call.rejection) == (None, None)
    assert (seen.shards, seen.asked_at) == (1, None), "known, and to be asked for again"
    assert seen.unresponsive_since == harness.clock.now()
    assert seen.problem in call.detail
    assert harness.client.posts == []
    assert not harness.session.may_ask()
    harness.clock.pass_by(seconds=UNSENT_PAUSE)
    assert harness.session.may_ask()


async def test_a_refused_connection_sends_nothing(harness: SessionHarness) -> None:
    await harness.ask()
    assert_unsent(harness, await harness.call(addresses=(await refused_port(),)))
    await harness.ask()
    assert harness.session.client.asked_at == harness.clock.now()
    assert (harness.session.client.unresponsive_since, harness.session.client.problem) == (None, "")


async def test_no_ready_webapp_sends_nothing(harness: SessionHarness) -> None:
    await harness.ask()
    assert_unsent(harness, await harness.call(addresses=()))


async def test_an_untrusted_certificate_sends_nothing(harness: SessionHarness) -> None:
    await harness.ask()
    call = await harness.call(verifies=True)
    assert "its TLS certificate is not trusted" in call.detail
    assert_unsent(harness, call)


async def test_an_unreadable_authority_sends_nothing(harness: SessionHarness) -> None:
    await harness.ask()
    assert_unsent(harness, await harness.call(authority="no PEM"))


async def hangs_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(100)


async def speaks_no_tls(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()


async def says_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(4096):
        pass


@pytest.mark.parametrize("handle", [hangs_up, speaks_no_tls, says_nothing])
async def test_a_failed_handshake_sends_nothing(
    harness: SessionHarness, handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> None:
    await harness.ask()
    harness.session._call_timeout = 0.5
    async with listening(handle) as address:
        assert_unsent(harness, await harness.call(addresses=(address,)))


async def test_a_refused_token_sends_nothing_and_is_not_used_again(harness: SessionHarness) -> None:
    await harness.ask()
    harness.client.tokens.clear()
    assert_unsent(harness, await harness.call())
    assert (await harness.call()).answer is Answer.ACCEPTED
    assert len(harness.client.logins) == 2


async def test_a_refused_login_sends_nothing(harness: SessionHarness) -> None:
    await harness.ask()
    harness.clock.pass_by(days=6)
    harness.client.passwords.clear()
    assert_unsent(harness, await harness.call())
    assert harness.login() is Login.REJECTED


async def test_a_late_call_is_not_sent(harness: SessionHarness) -> None:
    await harness.ask()
    call = await harness.call(noted_before=SEND_WITHIN + 0.1)
    assert call.detail == "POST /v1/account/shards: not sent within 2 s of its note"
    assert_unsent(harness, call)
    assert (await harness.call(noted_before=SEND_WITHIN - 0.1)).answer is Answer.ACCEPTED


async def test_a_connection_that_comes_late_is_not_used(harness: SessionHarness, pair: Path) -> None:
    await harness.ask()
    await harness.session.close()
    other = Client()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        harness.clock.pass_by(seconds=SEND_WITHIN + 0.1)
        there, back = await asyncio.open_connection(*other.address.split(":"))
        await asyncio.gather(_pour(reader, back), _pour(there, writer))

    async with served(other, pair), listening(slowly) as address:
        assert_unsent(harness, await harness.call(addresses=(address,)))
        await harness.session.close()
    assert other.posts == []


async def _pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(4096):
        sink.write(data)
    sink.close()


# --- what nobody knows


async def test_a_call_without_an_answer_is_unknown(harness: SessionHarness) -> None:
    await harness.ask()
    over = asyncio.Event()

    async def waits(_: web.Request) -> web.StreamResponse:
        await over.wait()
        return web.Response()

    harness.client.posted = waits
    harness.session._call_timeout = 0.5
    call = await harness.call()
    over.set()
    assert (call.answer, call.not_sent, call.detail) == (Answer.UNKNOWN, False, "POST /v1/account/shards: no answer within 0.5 s")
    assert harness.session.client.asked_at is not None, "nothing is known again"
    assert harness.session.may_ask()


async def test_a_cut_connection_is_unknown(harness: SessionHarness) -> None:
    async def cuts(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    harness.client.posted = cuts
    call = await harness.call()
    assert (call.answer, call.not_sent) == (Answer.UNKNOWN, False)
    assert len(harness.client.posts) == 1


@pytest.mark.parametrize(
    "response",
    [
        lambda: rejection(500),
        lambda: rejection(502, "Bad gateway"),
        lambda: web.Response(status=200, text="<html>It works!"),
        lambda: web.Response(status=302, headers={"Location": "/"}),
    ],
)
async def test_what_is_no_clear_answer_is_unknown(harness: SessionHarness, response: Callable[[], web.Response]) -> None:
    harness.client.answers(response)
    call = await harness.call()
    assert (call.answer, call.rejection, call.not_sent) == (Answer.UNKNOWN, None, False)


# --- what wakes the loop


async def test_a_failure_wakes_the_loop_once_whatever_it_says(harness: SessionHarness) -> None:
    await harness.ask()
    harness.woken = 0
    for addresses in ((await refused_port(),), (), (await refused_port(),)):
        await harness.ask(addresses=addresses)
    assert harness.woken == 1
    await harness.ask()
    assert harness.woken == 2


async def test_an_answer_from_before_an_unsent_call_makes_no_next_one(harness: SessionHarness) -> None:
    await harness.ask()
    began, goes_on, answer = asyncio.Event(), asyncio.Event(), harness.session._send

    async def late(*args: Any, **options: Any) -> dict[str, Any]:
        if args[1] == "GET":
            began.set()
            await goes_on.wait()
        return await answer(*args, **options)

    harness.session._send = late  # type: ignore[method-assign]
    question = asyncio.create_task(harness.ask())
    await began.wait()
    assert (await harness.call(addresses=())).not_sent
    goes_on.set()
    await question
    assert harness.session.client.asked_at is None
    await harness.ask()
    assert harness.session.client.asked_at is not None


async def test_desks_ask_no_earlier_than_they_may(pair: Path) -> None:
    client, clock = Client(), ManualClock()
    woken = asyncio.Event()
    desks = ApiSessions(clock=clock, wake=lambda _: woken.set(), call_timeout=30.0)
    async with served(client, pair):
        access = Access(addresses=(client.address,), server_name="webapp", verifies=False, password=PASSWORD)
        desks.set_shards(KEY, replace(access, addresses=()), CREDENTIALS, operation(), clock.monotonic())
        await asyncio.wait_for(woken.wait(), 60)
        desks.ask(KEY, access)
        assert not desks.state_of(KEY).asking
        clock.pass_by(seconds=UNSENT_PAUSE)
        woken.clear()
        desks.ask(KEY, access)
        assert desks.state_of(KEY).asking
        await asyncio.wait_for(woken.wait(), 60)
        assert desks.state_of(KEY).shards == 1
        await desks.close()


async def test_a_quiet_question_wakes_nobody_with_what_is_known_and_keeps_no_connection(harness: SessionHarness) -> None:
    await harness.ask()
    woken = harness.woken
    harness.clock.pass_by(seconds=30)
    await harness.session.ask(harness.access, quiet=True)
    assert harness.session.client.asked_at == harness.clock.now()
    assert harness.woken == woken
    assert harness.session._webapps._http is None
    await harness.ask()
    assert harness.woken == woken


async def test_a_quiet_question_wakes_the_loop_when_its_answer_is_news(harness: SessionHarness) -> None:
    await harness.ask()
    woken = harness.woken
    harness.clock.pass_by(seconds=30)
    await harness.session.ask(replace(harness.access, addresses=(await refused_port(),)), quiet=True)
    assert harness.woken == woken + 1
    await harness.session.ask(harness.access, quiet=True)
    assert harness.woken == woken + 2
