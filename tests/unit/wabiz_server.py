"""A small HTTPS server in place of the WhatsApp Business API client, and a session with it, for tests."""

from __future__ import annotations

import asyncio
import base64
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
from whatsapp_operator.core.snapshot import Call, Login, Operation
from whatsapp_operator.shell.whatsapp.access import Access, Credentials
from whatsapp_operator.shell.whatsapp.session import ApiSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


KEY = Key("ns", "acme")
PASSWORD, INITIAL, PIN = "Right-one-7!xK", "initial-one-7!xK", "739184"
CERTIFICATE = base64.b64encode(bytes(range(120))).decode()
SECRETS = (PASSWORD, INITIAL, PIN, CERTIFICATE, CERTIFICATE[:40], base64.b64encode(f"admin:{PASSWORD}".encode()).decode())
CREDENTIALS = Credentials(
    country_code="1",
    phone_number="6315550000",
    pin=PIN,
    certificate=CERTIFICATE,
    fingerprint="f" * 64,
    secret_version="12",
    pin_digest="d1",
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
        self.says_of_shards: Callable[[], web.StreamResponse] = lambda: web.json_response({"account": {"shards": 1}})
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
        return self.says_of_shards() if self._knows(request) else rejection(401, "token")

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


class SessionHarness:
    """A session, its client, and the clock between them."""

    def __init__(self, client: Client) -> None:
        self.client, self.clock, self.woken = client, ManualClock(), 0
        self.session = ApiSession(KEY, clock=self.clock, wake=self._wake, call_timeout=30.0, ask_timeout=30.0)
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
async def harness(pair: Path) -> AsyncIterator[SessionHarness]:
    client = Client()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(served(client, pair))
        harness = SessionHarness(client)
        stack.push_async_callback(harness.session.close)
        yield harness


async def refused_port() -> str:
    """An address where nobody listens (any more)."""

    async def never(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        raise AssertionError

    async with listening(never) as address:
        return address
