"""What the client of the WhatsApp Business API makes of answers, and when it logs in; nothing that it says is a secret."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from whatsapp_operator.core.snapshot import Answer, Login, Rejection
from whatsapp_operator.shell.whatsapp.masking import masked
from whatsapp_operator.shell.whatsapp.session import LOGIN_PAUSE, LOGIN_SPAN, MOST_LOGINS

from .wabiz_server import (
    CERTIFICATE,
    CREDENTIALS,
    INITIAL,
    PASSWORD,
    PIN,
    SECRETS,
    Client,
    SessionHarness,
    harness,
    pair,
    refused_port,
    rejection,
    served,
)

__all__ = ["harness", "pair"]

# --- what was rejected


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
async def test_a_rejection_is_recognized_by_its_words(harness: SessionHarness, status: int) -> None:
    harness.client.answers(lambda: rejection(status, "client setup is logged off"))
    call = await harness.call()
    assert (call.answer, call.rejection, call.not_sent) == (Answer.REJECTED, Rejection.CERTIFICATE, False)
    assert (await harness.call()).answer is Answer.REJECTED
    assert len(harness.client.logins) == 1, "the token is not at fault"


async def test_every_error_of_an_answer_is_read(harness: SessionHarness) -> None:
    errors = [
        {"code": "1015", "title": "Too many requests"},
        "odd",
        {"code": True},
        {"code": 1031, "title": "Account locked", "details": PIN},
    ]
    harness.client.answers(lambda: web.json_response({"errors": errors}, status=429))
    call = await harness.call()
    assert (call.answer, call.rejection) == (Answer.REJECTED, Rejection.BANNED)
    assert call.detail == "POST /v1/account/shards: HTTP 429, error 1015: Too many requests; Account locked: ***"


@pytest.mark.parametrize(
    "body", ["", "{}", "[]", '{"errors": {}}', '{"errors": null}', '{"errors": [7]}', "<html>", "[" * 10**5, '{"errors": ["']
)
async def test_an_answer_that_cannot_be_read_is_judged_by_its_status(harness: SessionHarness, body: str) -> None:
    harness.client.answers(lambda: web.Response(status=503, text=body, content_type="application/json"))
    assert (await harness.call()).answer is Answer.BUSY
    harness.client.answers(lambda: web.Response(status=502, text=body, content_type="application/json"))
    assert (await harness.call()).answer is Answer.UNKNOWN


@pytest.mark.parametrize(
    ("header", "date", "expected"),
    [("120", None, 120), ("Mon, 02 Mar 2026 07:01:30 GMT", "Mon, 02 Mar 2026 07:00:00 GMT", 90), ("soon", None, None), (None, None, None)],
)
async def test_a_busy_client_says_when_to_come_back(
    harness: SessionHarness, header: str | None, date: str | None, expected: int | None
) -> None:
    """A date is of the client's clock, which may be another one than the operator's."""
    headers = {name: value for name, value in (("Retry-After", header), ("Date", date)) if value}
    harness.client.answers(lambda: web.json_response({}, status=503, headers=headers))
    assert (await harness.call()).retry_after == (None if expected is None else timedelta(seconds=expected))


async def test_a_401_is_a_stale_token_once_and_then_a_busy_client(harness: SessionHarness) -> None:
    harness.client.answers(lambda: rejection(401))
    assert (await harness.call()).not_sent
    second = await harness.call()
    assert (second.answer, second.not_sent) == (Answer.BUSY, False)
    assert (await harness.call()).answer is Answer.BUSY
    harness.client.answers(lambda: rejection(403))
    assert (await harness.call()).answer is Answer.BUSY
    harness.client.answers(lambda: rejection(401))
    assert (await harness.call()).not_sent, "another answer came meanwhile"


async def test_the_detail_says_what_the_client_said(harness: SessionHarness) -> None:
    harness.client.answers(lambda: rejection(400, "shards:\tmust be\r\none of 1, 2.", title="Parameter is not valid", code=1009))
    call = await harness.call()
    assert (call.answer, call.rejection) == (Answer.REJECTED, Rejection.OTHER)
    expected = "POST /v1/account/shards: HTTP 400, error 1009: Parameter is not valid: shards: must be one of 1, 2"
    assert call.detail == expected
    assert (call.fingerprint, call.secret_version, call.pin_digest) == ("f" * 64, "12", "d1")


async def test_the_detail_is_short(harness: SessionHarness) -> None:
    harness.client.answers(lambda: rejection(403, "x " * 5000))
    call = await harness.call()
    assert call.answer is Answer.BUSY
    assert len(call.detail) < 260


@pytest.mark.parametrize(
    "text",
    [
        f"cert {CERTIFICATE} is wrong",
        f"cert {CERTIFICATE[:30]}... is wrong",
        "cert " + "\n".join(CERTIFICATE[at : at + 64] for at in range(0, len(CERTIFICATE), 64)) + " is wrong",
        f"pin {PIN[:3]}\x00{PIN[3:]} is not {PIN}, {PASSWORD} and {INITIAL}",
        f"{'x' * 190} {PASSWORD}",
        f"Basic {base64.b64encode(f'admin:{PASSWORD}'.encode()).decode()}",
    ],
)
async def test_the_detail_holds_no_secret_that_the_client_repeats(harness: SessionHarness, text: str) -> None:
    harness.client.answers(lambda: rejection(400, text))
    detail = (await harness.call()).detail
    assert "*" in detail
    assert not [secret for secret in SECRETS if secret in detail]
    assert CERTIFICATE[:12] not in detail
    assert CERTIFICATE[64:76] not in detail
    assert PASSWORD[:6] not in detail
    assert detail.isprintable()


# --- several Webapps

BROKEN: dict[str, Callable[[], web.Response]] = {
    "its database is away": lambda: rejection(500, "database", code=1014),
    "it is overloaded": lambda: rejection(503),
    "another server": lambda: web.Response(status=404, text="404 page not found"),
    "no JSON": lambda: web.Response(text="<html>It works!"),
    "no shards": lambda: web.json_response({"account": {}}),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_a_webapp_that_answers_in_a_wrong_way_is_not_the_only_one_that_is_asked(
    harness: SessionHarness, pair: Path, answer: Callable[[], web.Response]
) -> None:
    """One of several that start on an empty database may stay broken, and be ready all the same (client#roles)."""
    broken = Client()
    broken.tokens = harness.client.tokens
    broken.says_of_shards = answer
    broken.answers(lambda: rejection(503))
    async with served(broken, pair):
        addresses = (broken.address, harness.client.address)
        await harness.ask(addresses=addresses)
        assert harness.session.client.shards is None
        await harness.ask(addresses=addresses)
        assert harness.session.client.shards == 1
        await harness.ask(addresses=addresses)
        assert broken.asked == 1, "who answers well is asked again"


async def test_set_shards_is_sent_to_another_webapp_after_a_busy_one(harness: SessionHarness, pair: Path) -> None:
    busy = Client()
    busy.tokens = harness.client.tokens
    busy.answers(lambda: rejection(503))
    async with served(busy, pair):
        addresses = (busy.address, harness.client.address)
        assert (await harness.call(addresses=addresses)).answer is Answer.BUSY
        assert (await harness.call(addresses=addresses)).answer is Answer.ACCEPTED


# --- what is no number of shards


@pytest.mark.parametrize(
    "body",
    [
        *(
            f'{{"account": {{"shards": {number}}}}}'
            for number in ("0", "-1", "3", "64", "100000", "2.5", "1e999", "null", '"many"', "[4]", "{}")
        ),
        "[" * 10**5,
        '{"account": ' + "[" * 10**5,
        '{"account": 4}',
        "[4]",
        "{}",
    ],
)
async def test_what_is_no_number_of_shards_changes_nothing_that_is_known(harness: SessionHarness, body: str) -> None:
    """As many Coreapps are made as the client reports shards, and the holders of all others are let go."""
    await harness.ask()
    harness.client.says_of_shards = lambda: web.Response(text=body, content_type="application/json")
    harness.clock.pass_by(seconds=1)
    await harness.ask()
    seen = harness.session.client
    assert (seen.shards, seen.asked_at) == (1, harness.clock.now() - timedelta(seconds=1))
    assert (seen.unresponsive_since, seen.asking) == (harness.clock.now(), False)
    assert seen.problem.startswith(("GET shards: unreadable answer", "GET /v1/account/shards: unreadable answer"))


@pytest.mark.parametrize("number", ["1", "32", '"4"', "8.0"])
async def test_a_number_of_shards_is_read_in_any_spelling(harness: SessionHarness, number: str) -> None:
    harness.client.says_of_shards = lambda: web.Response(text=f'{{"account": {{"shards": {number}}}}}', content_type="application/json")
    await harness.ask()
    assert (harness.session.client.shards, harness.session.client.problem) == (int(float(number.strip('"'))), "")


@pytest.mark.parametrize(
    ("version", "read"),
    [
        ("v2.53.4", "v2.53.4"),
        ("v" * 65, "v" * 64),
        ("v2\n\ud800\x00.5", "v2.5"),
        ("\n", None),
        ("", None),
        (7, None),
        (None, None),
        ([], None),
    ],
)
async def test_a_version_is_a_short_text(harness: SessionHarness, version: object, read: str | None) -> None:
    """The API server rejects a whole status in which one text is too long; then no rejection would be remembered either."""
    harness.client.says_of_shards = lambda: web.json_response({"account": {"shards": 1}, "meta": {"version": version}})
    await harness.ask()
    assert (harness.session.client.shards, harness.session.client.version) == (1, read)


@pytest.mark.parametrize("meta", ["[1]", '"text"', "7", "null"])
async def test_a_number_of_shards_counts_also_if_what_comes_with_it_is_odd(harness: SessionHarness, meta: str) -> None:
    harness.client.says_of_shards = lambda: web.Response(
        text=f'{{"account": {{"shards": 1}}, "meta": {meta}}}', content_type="application/json"
    )
    await harness.ask()
    assert (harness.session.client.shards, harness.session.client.version) == (1, None)


async def test_a_call_whose_answer_cannot_be_read_is_unknown(harness: SessionHarness) -> None:
    harness.client.answers(lambda: web.Response(status=201, text="[" * 10**5, content_type="application/json"))
    assert (await harness.call()).answer is Answer.UNKNOWN


async def test_a_call_that_fails_by_an_odd_error_of_the_library_is_unknown(
    harness: SessionHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any answer it would be on its way without an end, and nothing else would be done."""
    await harness.ask()

    send = httpx.AsyncClient.send

    async def breaks(*args: Any, **options: Any) -> None:
        await (await send(*args, **options)).aclose()
        msg = f"a connection that sent {PASSWORD} is in an odd state"
        raise RuntimeError(msg)

    monkeypatch.setattr("httpx.AsyncClient.send", breaks)
    call = await harness.call()
    assert (call.answer, call.not_sent, call.detail) == (Answer.UNKNOWN, False, "POST /v1/account/shards: RuntimeError")
    await harness.ask()
    assert (harness.session.client.asking, harness.session.client.problem) == (False, "GET /v1/account/shards: RuntimeError")


def test_masking_leaves_the_rest_alone() -> None:
    assert masked("pin 123456 of\n\x1b 6315550000", ["123456", ""]) == "pin *** of 6315550000"
    assert masked("say \\u0022x", ['\\u0022x"']) == "say \\u0022x"
    assert masked("ab abc", ["ab", "abc"]) == "*** ***"
    assert masked('it is a\\"b', ['a"b']) == "it is ***"
    assert masked("one two", ["one\ntwo"]) == "***"


async def test_no_secret_is_in_a_record_or_a_repr(harness: SessionHarness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await harness.ask()
    harness.client.answers(lambda: rejection(400, f"{CERTIFICATE} {PIN} {PASSWORD} {harness.client.tokens}"))
    await harness.call()
    harness.client.tokens.clear()
    await harness.call()
    harness.client.passwords.clear()
    harness.clock.pass_by(days=6)
    await harness.ask()
    await harness.call(addresses=(await refused_port(),))
    records = [record for record in caplog.records if not record.name.startswith(("aiohttp", "asyncio"))]
    assert any(record.name.startswith("httpcore") for record in records), "as much is logged as can be"
    shown = "\n".join(
        [*(f"{record.getMessage()} {record.exc_text}" for record in records), repr(harness.session), repr(harness.session.client)]
    )
    shown += f"{harness.access!r} {CREDENTIALS!r}"
    assert "HTTP 400, error 1005" in shown
    assert not [secret for secret in (*SECRETS, "that-nobody-may-see") if secret in shown]


# --- the way in


async def test_a_token_is_renewed_after_six_days(harness: SessionHarness) -> None:
    await harness.ask()
    harness.clock.pass_by(days=5, hours=23.9)
    await harness.ask()
    assert len(harness.client.logins) == 1
    harness.clock.pass_by(hours=0.1)
    await harness.ask()
    assert len(harness.client.logins) == 2
    harness.clock.pass_by(days=6)
    assert (await harness.call()).answer is Answer.ACCEPTED
    assert len(harness.client.logins) == 3


async def test_a_token_that_a_question_finds_void_is_renewed_at_once(harness: SessionHarness) -> None:
    await harness.ask()
    harness.client.tokens.clear()
    await harness.ask()
    assert (harness.session.client.problem, harness.session.client.shards) == ("", 1)
    assert len(harness.client.logins) == 2


async def test_a_question_and_a_call_log_in_once(harness: SessionHarness) -> None:
    await asyncio.gather(harness.ask(), harness.call(), harness.ask())
    assert len(harness.client.logins) == 1
    assert len(harness.client.posts) == 1


async def test_a_refused_login_is_tried_again_late_or_with_another_password(harness: SessionHarness) -> None:
    harness.client.passwords = {"other"}
    await harness.ask()
    assert harness.login() is Login.REJECTED
    assert harness.client.logins == [PASSWORD, INITIAL]
    harness.clock.pass_by(seconds=LOGIN_PAUSE - 0.1)
    await harness.ask()
    assert len(harness.client.logins) == 2
    await harness.ask(password="other")
    assert harness.client.logins[2:] == ["other"]
    assert harness.login() is Login.DONE


async def test_a_refused_login_is_tried_again_after_its_pause(harness: SessionHarness) -> None:
    harness.client.passwords = {"other"}
    await harness.ask()
    harness.clock.pass_by(seconds=LOGIN_PAUSE)
    harness.client.passwords = {PASSWORD}
    await harness.ask()
    assert harness.session.client.shards == 1


async def test_refused_logins_are_few(harness: SessionHarness) -> None:
    harness.client.passwords.clear()
    for _ in range(240):
        await harness.ask()
        harness.clock.pass_by(seconds=0.25)
    assert len(harness.client.logins) == 2 * 60 / LOGIN_PAUSE


async def test_logins_whose_tokens_are_worth_nothing_are_few(harness: SessionHarness) -> None:
    for _ in range(240):
        await harness.ask()
        harness.client.tokens.clear()
        harness.clock.pass_by(seconds=LOGIN_SPAN / 240)
    assert len(harness.client.logins) == MOST_LOGINS
    assert "logins" in harness.session.client.problem
    await harness.ask()
    assert len(harness.client.logins) == MOST_LOGINS + 1, "a minute later"


async def test_a_first_login_changes_the_password(harness: SessionHarness) -> None:
    harness.client.passwords = {INITIAL}
    await harness.ask()
    assert harness.client.logins == [PASSWORD, INITIAL]
    assert harness.session.client.first_login_at == harness.clock.now()
