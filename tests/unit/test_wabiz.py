"""The client of the WhatsApp Business API, against a small HTTPS server: what was sent for sure, and what was not; what wakes the loop."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from whatsapp_operator.core.snapshot import Answer, Call, Login
from whatsapp_operator.shell.whatsapp.access import Access
from whatsapp_operator.shell.whatsapp.session import SEND_WITHIN, UNSENT_PAUSE, ApiSessions

from .wabiz_server import (
    CERTIFICATE,
    CREDENTIALS,
    KEY,
    PASSWORD,
    PIN,
    Client,
    ManualClock,
    Talk,
    listening,
    operation,
    pair,
    refused_port,
    rejection,
    served,
    talk,
)

__all__ = ["pair", "talk"]

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


# --- what was sent, and what was not


async def test_an_accepted_call_carries_all_that_the_page_asks_for(talk: Talk) -> None:
    assert (await talk.call()).answer is Answer.ACCEPTED
    assert talk.client.posts == [{"cc": "1", "phone_number": "6315550000", "shards": 2, "pin": PIN, "cert": CERTIFICATE}]


def assert_unsent(talk: Talk, call: Call) -> None:
    seen = talk.session.client
    assert call.not_sent
    assert (call.answer, call.rejection) == (None, None)
    assert (seen.shards, seen.asked_at) == (1, None), "known, and to be asked for again"
    assert seen.unresponsive_since == talk.clock.now()
    assert seen.problem in call.detail
    assert talk.client.posts == []
    assert not talk.session.may_ask()
    talk.clock.pass_by(seconds=UNSENT_PAUSE)
    assert talk.session.may_ask()


async def test_a_refused_connection_sends_nothing(talk: Talk) -> None:
    await talk.ask()
    assert_unsent(talk, await talk.call(addresses=(await refused_port(),)))
    await talk.ask()
    assert talk.session.client.asked_at == talk.clock.now()
    assert (talk.session.client.unresponsive_since, talk.session.client.problem) == (None, "")


async def test_no_ready_webapp_sends_nothing(talk: Talk) -> None:
    await talk.ask()
    assert_unsent(talk, await talk.call(addresses=()))


async def test_an_untrusted_certificate_sends_nothing(talk: Talk) -> None:
    await talk.ask()
    call = await talk.call(verifies=True)
    assert "its TLS certificate is not trusted" in call.detail
    assert_unsent(talk, call)


async def test_an_unreadable_authority_sends_nothing(talk: Talk) -> None:
    await talk.ask()
    assert_unsent(talk, await talk.call(authority="no PEM"))


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
    talk: Talk, handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> None:
    await talk.ask()
    talk.session._call_timeout = 0.5
    async with listening(handle) as address:
        assert_unsent(talk, await talk.call(addresses=(address,)))


async def test_a_refused_token_sends_nothing_and_is_not_used_again(talk: Talk) -> None:
    await talk.ask()
    talk.client.tokens.clear()
    assert_unsent(talk, await talk.call())
    assert (await talk.call()).answer is Answer.ACCEPTED
    assert len(talk.client.logins) == 2


async def test_a_refused_login_sends_nothing(talk: Talk) -> None:
    await talk.ask()
    talk.clock.pass_by(days=6)
    talk.client.passwords.clear()
    assert_unsent(talk, await talk.call())
    assert talk.login() is Login.REJECTED


async def test_a_late_call_is_not_sent(talk: Talk) -> None:
    await talk.ask()
    call = await talk.call(noted_before=SEND_WITHIN + 0.1)
    assert call.detail == "POST /v1/account/shards: not sent within 2 s of its note"
    assert_unsent(talk, call)
    assert (await talk.call(noted_before=SEND_WITHIN - 0.1)).answer is Answer.ACCEPTED


async def test_a_connection_that_comes_late_is_not_used(talk: Talk, pair: Path) -> None:
    await talk.ask()
    await talk.session.close()
    other = Client()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk.clock.pass_by(seconds=SEND_WITHIN + 0.1)
        there, back = await asyncio.open_connection(*other.address.split(":"))
        await asyncio.gather(_pour(reader, back), _pour(there, writer))

    async with served(other, pair), listening(slowly) as address:
        assert_unsent(talk, await talk.call(addresses=(address,)))
        await talk.session.close()
    assert other.posts == []


async def _pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(4096):
        sink.write(data)
    sink.close()


# --- what nobody knows


async def test_a_call_without_an_answer_is_unknown(talk: Talk) -> None:
    await talk.ask()
    over = asyncio.Event()

    async def waits(_: web.Request) -> web.StreamResponse:
        await over.wait()
        return web.Response()

    talk.client.posted = waits
    talk.session._call_timeout = 0.5
    call = await talk.call()
    over.set()
    assert (call.answer, call.not_sent, call.detail) == (Answer.UNKNOWN, False, "POST /v1/account/shards: ReadTimeout")
    assert talk.session.client.asked_at is not None, "nothing is known again"
    assert talk.session.may_ask()


async def test_a_cut_connection_is_unknown(talk: Talk) -> None:
    async def cuts(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    talk.client.posted = cuts
    call = await talk.call()
    assert (call.answer, call.not_sent) == (Answer.UNKNOWN, False)
    assert len(talk.client.posts) == 1


@pytest.mark.parametrize(
    "response",
    [
        lambda: rejection(500),
        lambda: rejection(502, "Bad gateway"),
        lambda: web.Response(status=200, text="<html>It works!"),
        lambda: web.Response(status=302, headers={"Location": "/"}),
    ],
)
async def test_what_is_no_clear_answer_is_unknown(talk: Talk, response: Callable[[], web.Response]) -> None:
    talk.client.answers(response)
    call = await talk.call()
    assert (call.answer, call.rejection, call.not_sent) == (Answer.UNKNOWN, None, False)


# --- what wakes the loop


async def test_a_failure_wakes_the_loop_once_whatever_it_says(talk: Talk) -> None:
    await talk.ask()
    talk.woken = 0
    for addresses in ((await refused_port(),), (), (await refused_port(),)):
        await talk.ask(addresses=addresses)
    assert talk.woken == 1
    await talk.ask()
    assert talk.woken == 2


async def test_an_answer_from_before_an_unsent_call_makes_no_next_one(talk: Talk) -> None:
    await talk.ask()
    began, goes_on, answer = asyncio.Event(), asyncio.Event(), talk.session._send

    async def late(*args: Any, **options: Any) -> dict[str, Any]:
        if args[1] == "GET":
            began.set()
            await goes_on.wait()
        return await answer(*args, **options)

    talk.session._send = late  # type: ignore[method-assign]
    question = asyncio.create_task(talk.ask())
    await began.wait()
    assert (await talk.call(addresses=())).not_sent
    goes_on.set()
    await question
    assert talk.session.client.asked_at is None
    await talk.ask()
    assert talk.session.client.asked_at is not None


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


async def test_a_quiet_question_wakes_nobody_with_what_is_known_and_keeps_no_connection(talk: Talk) -> None:
    await talk.ask()
    woken = talk.woken
    talk.clock.pass_by(seconds=30)
    await talk.session.ask(talk.access, quiet=True)
    assert talk.session.client.asked_at == talk.clock.now()
    assert talk.woken == woken
    assert talk.session._http is None
    await talk.ask()
    assert talk.woken == woken


async def test_a_quiet_question_wakes_the_loop_when_its_answer_is_news(talk: Talk) -> None:
    await talk.ask()
    woken = talk.woken
    talk.clock.pass_by(seconds=30)
    await talk.session.ask(replace(talk.access, addresses=(await refused_port(),)), quiet=True)
    assert talk.woken == woken + 1
    await talk.session.ask(talk.access, quiet=True)
    assert talk.woken == woken + 2
