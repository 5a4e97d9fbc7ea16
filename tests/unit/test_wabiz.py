"""The client of the WhatsApp Business API, against a small HTTPS server: what was sent for sure, what was not, and what nobody may see."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from whatsapp_operator.core.names import Key
from whatsapp_operator.core.snapshot import Answer, Call, Login, Operation, Rejection
from whatsapp_operator.shell.whatsapp.session import (
    LOGIN_PAUSE,
    LOGIN_SPAN,
    MOST_LOGINS,
    SEND_WITHIN,
    UNSENT_PAUSE,
    Access,
    ApiSession,
    ApiSessions,
    Credentials,
    masked,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

KEY = Key("ns", "acme")
PASSWORD, INITIAL, PIN = "Right-one-7!xK", "initial-one-7!xK", "739184"
CERTIFICATE = base64.b64encode(bytes(range(120))).decode()
SECRETS = (PASSWORD, INITIAL, PIN, CERTIFICATE, CERTIFICATE[:40], base64.b64encode(f"admin:{PASSWORD}".encode()).decode())
CREDENTIALS = Credentials(
    country_code="1", phone_number="6315550000", pin=PIN, certificate=CERTIFICATE, fingerprint="f" * 64, secret_version="12"
)
BEGAN = datetime(2026, 3, 1, tzinfo=UTC)


class ManualClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.passed = timedelta(0)

    def now(self) -> datetime:
        return BEGAN + self.passed

    def wall(self) -> datetime:
        return self.now()

    def monotonic(self) -> float:
        return self.passed.total_seconds()

    def pass_by(self, **span: float) -> None:
        self.passed += timedelta(**span)


def rejection(status: int, details: str = "", *, title: str = "No", code: int = 1005) -> web.Response:
    return web.json_response({"errors": [{"code": code, "title": title, "details": details}]}, status=status)


class Client:
    """The client: takes ``PASSWORD``, has one shard, and counts. What it answers to Set Shards is ``posted``."""

    def __init__(self) -> None:
        self.logins: list[str] = []
        self.asked = 0
        self.posts: list[dict[str, Any]] = []
        self.tokens: set[str] = set()
        self.passwords = {PASSWORD}
        self.posted: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.accepts
        self.address = ""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/users/login", self._login),
            web.get("/v1/account/shards", self._shards),
            web.post("/v1/account/shards", self._set_shards),
        ]

    async def accepts(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({}, status=201)

    def answers(self, response: Callable[[], web.StreamResponse]) -> None:
        async def posted(_: web.Request) -> web.StreamResponse:
            return response()

        self.posted = posted

    async def _login(self, request: web.Request) -> web.StreamResponse:
        password = base64.b64decode(request.headers["Authorization"].split()[1]).decode().partition(":")[2]
        self.logins.append(password)
        if password not in self.passwords:
            return rejection(401, f"not {password}")
        token = f"token-{len(self.logins)}-that-nobody-may-see"
        self.tokens.add(token)
        return web.json_response({"users": [{"token": token}]})

    def _knows(self, request: web.Request) -> bool:
        return request.headers.get("Authorization", "").removeprefix("Bearer ") in self.tokens

    async def _shards(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        return web.json_response({"account": {"shards": 1}}) if self._knows(request) else rejection(401, "token")

    async def _set_shards(self, request: web.Request) -> web.StreamResponse:
        if not self._knows(request):
            return rejection(401, request.headers["Authorization"])
        self.posts.append(await request.json())
        return await self.posted(request)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a certificate that nobody trusts, and its key."""
    private, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "webapp")])
    start = datetime.now(UTC) - timedelta(minutes=5)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
        .sign(private, hashes.SHA256())
    )
    key = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path_factory.mktemp("tls") / "pair.pem"
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + key)
    return path


@asynccontextmanager
async def served(client: Client, pair: Path) -> AsyncIterator[None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    app = web.Application()
    app.add_routes(client.routes())
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        client.address = f"127.0.0.1:{runner.addresses[0][1]}"
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def listening(handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A port where each connection is handled so; its address."""

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(met, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"


class Talk:
    """A session, its client, and the clock between them."""

    def __init__(self, client: Client) -> None:
        self.client, self.clock, self.woken = client, ManualClock(), 0
        self.session = ApiSession(KEY, clock=self.clock, wake=self._wake, call_timeout=0.5, ask_timeout=0.5)
        self.access = Access(addresses=(client.address,), server_name="webapp", verifies=False, password=PASSWORD, initial_password=INITIAL)

    def _wake(self, _: Key) -> None:
        self.woken += 1

    def login(self) -> Login:
        return self.session.client.login

    async def ask(self, **changes: Any) -> None:
        await self.session.ask(replace(self.access, **changes))

    async def call(self, *, noted_before: float = 0.0, **changes: Any) -> Call:
        """Set Shards(2), and what came of it."""
        noted_at, access = self.clock.monotonic() - noted_before, replace(self.access, **changes)
        await self.session.set_shards(access, CREDENTIALS, operation(), noted_at)
        call = self.session.client.call
        assert call is not None
        assert call.id == "2-abcde"
        return call


def operation() -> Operation:
    return Operation(id="2-abcde", origin=1, to=2, leader_epoch=1, started_at=BEGAN, deadline=BEGAN, settle_by=BEGAN)


@pytest.fixture
async def talk(pair: Path) -> AsyncIterator[Talk]:
    client = Client()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(served(client, pair))
        talk = Talk(client)
        stack.push_async_callback(talk.session.close)
        yield talk


async def refused_port() -> str:
    """An address where nobody listens (any more)."""

    async def never(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        raise AssertionError

    async with listening(never) as address:
        return address


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


# --- what was rejected


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
async def test_a_rejection_is_recognized_by_its_words(talk: Talk, status: int) -> None:
    talk.client.answers(lambda: rejection(status, "client setup is logged off"))
    call = await talk.call()
    assert (call.answer, call.rejection, call.not_sent) == (Answer.REJECTED, Rejection.CERTIFICATE, False)
    assert (await talk.call()).answer is Answer.REJECTED
    assert len(talk.client.logins) == 1, "the token is not at fault"


async def test_every_error_of_an_answer_is_read(talk: Talk) -> None:
    errors = [
        {"code": "1015", "title": "Too many requests"},
        "odd",
        {"code": True},
        {"code": 1031, "title": "Account locked", "details": PIN},
    ]
    talk.client.answers(lambda: web.json_response({"errors": errors}, status=429))
    call = await talk.call()
    assert (call.answer, call.rejection) == (Answer.REJECTED, Rejection.BANNED)
    assert call.detail == "POST /v1/account/shards: HTTP 429, error 1015: Too many requests; Account locked: ***"


@pytest.mark.parametrize(
    "body", ["", "{}", "[]", '{"errors": {}}', '{"errors": null}', '{"errors": [7]}', "<html>", "[" * 10**5, '{"errors": ["']
)
async def test_an_answer_that_cannot_be_read_is_judged_by_its_status(talk: Talk, body: str) -> None:
    talk.client.answers(lambda: web.Response(status=503, text=body, content_type="application/json"))
    assert (await talk.call()).answer is Answer.BUSY
    talk.client.answers(lambda: web.Response(status=502, text=body, content_type="application/json"))
    assert (await talk.call()).answer is Answer.UNKNOWN


@pytest.mark.parametrize(
    ("header", "date", "expected"),
    [("120", None, 120), ("Mon, 02 Mar 2026 07:01:30 GMT", "Mon, 02 Mar 2026 07:00:00 GMT", 90), ("soon", None, None), (None, None, None)],
)
async def test_a_busy_client_says_when_to_come_back(talk: Talk, header: str | None, date: str | None, expected: int | None) -> None:
    """A date is of the client's clock, which may be another one than the operator's."""
    headers = {name: value for name, value in (("Retry-After", header), ("Date", date)) if value}
    talk.client.answers(lambda: web.json_response({}, status=503, headers=headers))
    assert (await talk.call()).retry_after == (None if expected is None else timedelta(seconds=expected))


async def test_a_401_is_a_stale_token_once_and_then_a_busy_client(talk: Talk) -> None:
    talk.client.answers(lambda: rejection(401))
    assert (await talk.call()).not_sent
    second = await talk.call()
    assert (second.answer, second.not_sent) == (Answer.BUSY, False)
    assert (await talk.call()).answer is Answer.BUSY
    talk.client.answers(lambda: rejection(403))
    assert (await talk.call()).answer is Answer.BUSY
    talk.client.answers(lambda: rejection(401))
    assert (await talk.call()).not_sent, "another answer came meanwhile"


async def test_the_detail_says_what_the_client_said(talk: Talk) -> None:
    talk.client.answers(lambda: rejection(400, "shards:\tmust be\r\none of 1, 2.", title="Parameter is not valid", code=1009))
    call = await talk.call()
    assert (call.answer, call.rejection) == (Answer.REJECTED, Rejection.OTHER)
    expected = "POST /v1/account/shards: HTTP 400, error 1009: Parameter is not valid: shards: must be one of 1, 2"
    assert call.detail == expected
    assert (call.fingerprint, call.secret_version) == ("f" * 64, "12")


async def test_the_detail_is_short(talk: Talk) -> None:
    talk.client.answers(lambda: rejection(403, "x " * 5000))
    call = await talk.call()
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
async def test_the_detail_holds_no_secret_that_the_client_repeats(talk: Talk, text: str) -> None:
    talk.client.answers(lambda: rejection(400, text))
    detail = (await talk.call()).detail
    assert "*" in detail
    assert not [secret for secret in SECRETS if secret in detail]
    assert CERTIFICATE[:12] not in detail
    assert CERTIFICATE[64:76] not in detail
    assert PASSWORD[:6] not in detail
    assert detail.isprintable()


def test_masking_leaves_the_rest_alone() -> None:
    assert masked("pin 123456 of\n\x1b 6315550000", ["123456", ""]) == "pin *** of 6315550000"
    assert masked("say \\u0022x", ['\\u0022x"']) == "say \\u0022x"
    assert masked("ab abc", ["ab", "abc"]) == "*** ***"
    assert masked('it is a\\"b', ['a"b']) == "it is ***"
    assert masked("one two", ["one\ntwo"]) == "***"


async def test_no_secret_is_in_a_record_or_a_repr(talk: Talk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await talk.ask()
    talk.client.answers(lambda: rejection(400, f"{CERTIFICATE} {PIN} {PASSWORD} {talk.client.tokens}"))
    await talk.call()
    talk.client.tokens.clear()
    await talk.call()
    talk.client.passwords.clear()
    talk.clock.pass_by(days=6)
    await talk.ask()
    await talk.call(addresses=(await refused_port(),))
    records = [record for record in caplog.records if not record.name.startswith(("aiohttp", "asyncio"))]
    assert any(record.name.startswith("httpcore") for record in records), "as much is logged as can be"
    shown = "\n".join([*(f"{record.getMessage()} {record.exc_text}" for record in records), repr(talk.session), repr(talk.session.client)])
    shown += f"{talk.access!r} {CREDENTIALS!r}"
    assert "HTTP 400, error 1005" in shown
    assert not [secret for secret in (*SECRETS, "that-nobody-may-see") if secret in shown]


# --- the way in


async def test_a_token_is_renewed_after_six_days(talk: Talk) -> None:
    await talk.ask()
    talk.clock.pass_by(days=5, hours=23.9)
    await talk.ask()
    assert len(talk.client.logins) == 1
    talk.clock.pass_by(hours=0.1)
    await talk.ask()
    assert len(talk.client.logins) == 2
    talk.clock.pass_by(days=6)
    assert (await talk.call()).answer is Answer.ACCEPTED
    assert len(talk.client.logins) == 3


async def test_a_token_that_a_question_finds_void_is_renewed_at_once(talk: Talk) -> None:
    await talk.ask()
    talk.client.tokens.clear()
    await talk.ask()
    assert (talk.session.client.problem, talk.session.client.shards) == ("", 1)
    assert len(talk.client.logins) == 2


async def test_a_question_and_a_call_log_in_once(talk: Talk) -> None:
    await asyncio.gather(talk.ask(), talk.call(), talk.ask())
    assert len(talk.client.logins) == 1
    assert len(talk.client.posts) == 1


async def test_a_refused_login_is_tried_again_late_or_with_another_password(talk: Talk) -> None:
    talk.client.passwords = {"other"}
    await talk.ask()
    assert talk.login() is Login.REJECTED
    assert talk.client.logins == [PASSWORD, INITIAL]
    talk.clock.pass_by(seconds=LOGIN_PAUSE - 0.1)
    await talk.ask()
    assert len(talk.client.logins) == 2
    await talk.ask(password="other")
    assert talk.client.logins[2:] == ["other"]
    assert talk.login() is Login.DONE


async def test_a_refused_login_is_tried_again_after_its_pause(talk: Talk) -> None:
    talk.client.passwords = {"other"}
    await talk.ask()
    talk.clock.pass_by(seconds=LOGIN_PAUSE)
    talk.client.passwords = {PASSWORD}
    await talk.ask()
    assert talk.session.client.shards == 1


async def test_refused_logins_are_few(talk: Talk) -> None:
    talk.client.passwords.clear()
    for _ in range(240):
        await talk.ask()
        talk.clock.pass_by(seconds=0.25)
    assert len(talk.client.logins) == 2 * 60 / LOGIN_PAUSE


async def test_logins_whose_tokens_are_worth_nothing_are_few(talk: Talk) -> None:
    for _ in range(240):
        await talk.ask()
        talk.client.tokens.clear()
        talk.clock.pass_by(seconds=LOGIN_SPAN / 240)
    assert len(talk.client.logins) == MOST_LOGINS
    assert "logins" in talk.session.client.problem
    await talk.ask()
    assert len(talk.client.logins) == MOST_LOGINS + 1, "a minute later"


async def test_a_first_login_changes_the_password(talk: Talk) -> None:
    talk.client.passwords = {INITIAL}
    await talk.ask()
    assert talk.client.logins == [PASSWORD, INITIAL]
    assert talk.session.client.first_login_at == talk.clock.now()


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
    desks = ApiSessions(clock=clock, wake=lambda _: woken.set(), call_timeout=0.5)
    async with served(client, pair):
        access = Access(addresses=(client.address,), server_name="webapp", verifies=False, password=PASSWORD)
        desks.set_shards(KEY, replace(access, addresses=()), CREDENTIALS, operation(), clock.monotonic())
        await asyncio.wait_for(woken.wait(), 5)
        desks.ask(KEY, access)
        assert not desks.state_of(KEY).asking
        clock.pass_by(seconds=UNSENT_PAUSE)
        woken.clear()
        desks.ask(KEY, access)
        assert desks.state_of(KEY).asking
        await asyncio.wait_for(woken.wait(), 5)
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
