"""What chaos stands between operators and the API server: a proxy, a webhook, a network that lets little through."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from localkube.plane import certificates
from localkube.plane.certificates import Certificates
from localkube.scenarios.environment import Environment
from localkube.scenarios.faults import egress_denied
from localkube.scenarios.hollow import servers
from localkube.scenarios.hollow.servers import WATCH, ApiProxy, Rule, api_proxy, through
from outside.laws import Violation
from outside.wire import Wire

WAIT_S = 60.0


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return certificates.make(tmp_path / "made", service_ip="10.0.0.1")


class FakeServer:
    """An API server that echoes calls, and whose watches say one thing at once and then nothing forever."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.hung_up = asyncio.Event()

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self.calls.append(request.path_qs)
        if "watch=1" in request.path_qs:
            answer = web.StreamResponse()
            await answer.prepare(request)
            await answer.write(b'{"type":"ADDED"}\n')
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.hung_up.set()
        if "/missing" in request.path:
            return web.json_response({"kind": "Status"}, status=404)
        said = {"method": request.method, "path": request.raw_path, "by": request.headers.get("Authorization")}
        return web.json_response({**said, "body": await request.text()}, headers={"Audit-Id": "1"})


@asynccontextmanager
async def an_api_server(made: Certificates) -> AsyncIterator[tuple[FakeServer, str]]:
    server = FakeServer()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate("server"), made.key("server"))
    runner = web.ServerRunner(web.Server(server.serve, access_log=None, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield server, f"https://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@asynccontextmanager
async def a_caller(made: Certificates, address: tuple[str, int]) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(made.authority)))
    timeout = aiohttp.ClientTimeout(total=WAIT_S)
    async with aiohttp.ClientSession(f"https://{address[0]}:{address[1]}", connector=connector, timeout=timeout) as session:
        yield session


async def test_a_call_is_passed_on_whole_and_its_answer_back(made: Certificates) -> None:
    async with an_api_server(made) as (_, url), api_proxy(url, made) as proxy, a_caller(made, proxy.address) as caller:
        headers = {"Authorization": "Bearer t"}
        path = URL("/api/v1/x?labelSelector=a%3Db%2Cc", encoded=True)
        async with caller.put(path, data="x" * 100_000, headers=headers) as answer:
            said = await answer.json()
            assert (answer.status, answer.headers["Audit-Id"]) == (200, "1")
        assert said == {"method": "PUT", "path": "/api/v1/x?labelSelector=a%3Db%2Cc", "by": "Bearer t", "body": "x" * 100_000}
        async with caller.get("/missing") as answer:
            assert answer.status == 404
        assert (proxy.passed, proxy.answered) == ({200: 1, 404: 1}, {})


async def test_a_watch_comes_piece_by_piece_and_ends_with_its_watcher(made: Certificates) -> None:
    async with an_api_server(made) as (server, url), api_proxy(url, made) as proxy:
        async with a_caller(made, proxy.address) as caller, caller.get("/api/v1/pods?watch=1") as answer:
            assert await answer.content.readline() == b'{"type":"ADDED"}\n'
            assert proxy.watches == 1
        async with asyncio.timeout(WAIT_S):
            await server.hung_up.wait()
            while proxy.watches:
                await asyncio.sleep(0.01)


async def test_what_a_rule_says_is_answered_by_the_proxy_itself(made: Certificates) -> None:
    async with an_api_server(made) as (server, url), api_proxy(url, made) as proxy, a_caller(made, proxy.address) as caller:
        proxy.rules = (Rule(401, WATCH), Rule(429))
        async with caller.get("/api/v1/pods?watch=true") as answer:
            assert (answer.status, (await answer.json())["reason"]) == (401, "Unauthorized")
        async with caller.get("/api/v1/pods") as answer:
            body = await answer.json()
            assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        assert (body["kind"], body["reason"], body["details"]) == ("Status", "TooManyRequests", {"retryAfterSeconds": 1})
        assert (proxy.answered, server.calls) == ({401: 1, 429: 1}, [])


def test_a_share_of_the_calls_is_drawn_by_lot() -> None:
    proxy = ApiProxy("https://127.0.0.1:1")
    proxy.rules = (Rule(429, share=0.5),)
    met = sum(proxy.rule_for("/api") is not None for _ in range(1000))
    assert 350 < met < 650


async def test_wires_are_led_through_the_proxy_and_home_again(made: Certificates) -> None:
    async with an_api_server(made) as (server, url), api_proxy(url, made) as proxy:
        home = "127.0.0.1", int(url.rpartition(":")[2])
        async with Wire(home) as wire:
            async with through(proxy, [wire], Rule(500)), a_caller(made, wire.address) as caller, caller.get("/api") as answer:
                assert answer.status == 500
            async with a_caller(made, wire.address) as caller, caller.get("/api") as answer:
                assert answer.status == 200
            assert (wire.to, proxy.rules, server.calls) == (home, (), ["/api"])


# ---------------------------------------------------------------- the webhook

STATEFULSET: dict[str, Any] = {
    "metadata": {"name": "c00-coreapp"},
    "spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "coreapp"}]}}},
}


async def test_the_webhook_adds_what_is_missing_and_counts_what_it_was_asked(made: Certificates) -> None:
    async with servers.webhook_server(made) as hook:
        address = "127.0.0.1", int(hook.url.rpartition(":")[2].partition("/")[0])
        async with a_caller(made, address) as caller:
            review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u", "object": STATEFULSET}}
            async with caller.post("/mutate", json=review) as answer:
                said = (await answer.json())["response"]
    assert (said["uid"], said["allowed"], said["patchType"]) == ("u", True, "JSONPatch")
    paths = [step["path"] for step in json.loads(base64.b64decode(said["patch"]))]
    assert paths == ["/spec/template/spec/containers/-", "/spec/template/metadata/labels"]
    assert hook.asked == {"c00-coreapp": 1}


def test_what_is_there_already_is_not_added_again() -> None:
    template = {"metadata": {"labels": {servers.LABEL: "yes"}}, "spec": {"containers": [servers.SIDECAR]}}
    hook = servers.Webhook()
    answer = hook.review({"uid": "u", "object": {"metadata": {"name": "x"}, "spec": {"template": template}}})
    assert (answer, hook.asked["x"]) == ({"uid": "u", "allowed": True}, 1)


# ---------------------------------------------------------------- the network


def test_behind_the_denied_egress_one_address_is_reached_and_no_other(capfd: pytest.CaptureFixture[str]) -> None:
    keep: list[socket.socket] = []
    try:
        with socket.create_server(("127.0.0.1", 0)) as allowed, socket.create_server(("127.0.0.1", 0)) as other:
            denying = egress_denied.denying(allowed.getsockname(), egress_denied.deaf_address(keep))
            with denying() as reaches:
                reaches.settimeout(WAIT_S)
                reaches.connect(allowed.getsockname())
            with denying() as denied:
                denied.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    denied.connect(other.getsockname())
            port = other.getsockname()[1]
    finally:
        for one in keep:
            one.close()
    assert capfd.readouterr().err == f"{egress_denied.DENIED}127.0.0.1:{port}\n"


# ---------------------------------------------------------------- laws


def test_a_law_that_the_fault_itself_broke_by_a_write_is_not_the_operators() -> None:
    environment: Any = SimpleNamespace(reported=set(), own_writes={" at 17"})
    ours, theirs = (Violation("epochs grow", f"default/c00-shard-0 went from epoch 9-x to 5-y at {version}") for version in (17, 117))
    assert Environment.broken_laws(environment, [ours, theirs]) == [str(theirs)]
    assert Environment.broken_laws(environment, [ours, theirs]) == [], "each is in one outcome only"
