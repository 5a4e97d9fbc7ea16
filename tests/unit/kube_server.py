"""A small HTTP server in place of an API server, and the operator's client of it, for tests."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web
from lightkube import KubeConfig
from lightkube.config.models import Cluster, User

from whatsapp_operator.core.actions import GenerateSecret
from whatsapp_operator.shell.kube.client import LightKube
from whatsapp_operator.shell.objects.generated import filled_secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


TOKEN = "token-that-nobody-may-see"
PASSWORD = "password-that-nobody-may-see"
A_POD: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "ns", "resourceVersion": "7"}}


class Server:
    """Answers each request by `answer`, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, Any]] = []
        self.peers: set[Any] = set()
        self.transports: set[asyncio.Transport] = set()
        self.hanging = asyncio.Event()
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.ok
        self.url = ""

    async def ok(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"kind": "Pod", "metadata": {"name": "a"}})

    def says(self, body: Any, *, status: int = 200) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.json_response(body, status=status)

        self.answer = answer

    def refuses(self, code: int, reason: str, message: str = "no", **details: Any) -> None:
        self.says(
            {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message, "details": details}, status=code
        )

    def sends(self, **response: Any) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(**response)

        self.answer = answer

    async def hang(self, request: web.Request) -> web.StreamResponse:
        await self.hanging.wait()
        return await self.ok(request)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        self.asked.append((request.method, str(request.rel_url), request.content_type, json.loads(body) if body else None))
        assert request.transport
        self.transports.add(request.transport)
        self.peers.add(request.transport.get_extra_info("peername"))
        return await self.answer(request)


@asynccontextmanager
async def a_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    server.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        server.hanging.set()
        await runner.cleanup()


def tls_files(folder: Path) -> Path:
    """Write a certificate of an authority of its own into a folder: tls.crt, tls.key, ca.crt."""
    folder.mkdir(exist_ok=True)
    secret = GenerateSecret(obj={}, recipe="tls", host_names=("127.0.0.1",))
    for name, content in filled_secret(secret, datetime.now(UTC))["data"].items():
        (folder / name).write_bytes(base64.b64decode(content))
    return folder


@asynccontextmanager
async def a_client_under_tls(folder: Path) -> AsyncIterator[tuple[Server, LightKube]]:
    """The same under TLS; ``folder`` takes the certificate."""
    tls_files(folder)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    async with a_server(tls) as server:
        kube = client_to(server.url, authority=base64.b64encode((folder / "ca.crt").read_bytes()).decode())
        try:
            yield server, kube
        finally:
            await kube.close()


@asynccontextmanager
async def a_client(**more: Any) -> AsyncIterator[tuple[Server, LightKube]]:
    async with a_server() as server:
        kube = client_to(server.url, **more)
        try:
            yield server, kube
        finally:
            await kube.close()


def client_to(url: str, *, authority: str | None = None, insecure: bool = False, **more: Any) -> LightKube:
    cluster = Cluster(server=url, certificate_auth_data=authority, insecure=insecure)
    config = KubeConfig.from_one(cluster=cluster, user=User(token=TOKEN)).get()
    assert config
    return LightKube(config, **more)
