"""Two operators whose watches the API server cuts and rejects for a second: both live on and hear. On a real API server."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from statistics import median

import aiohttp
import pytest
from aiohttp import web

from localkube.kubeconfig import read
from localkube.plane.operators import Operators
from waiting import until

from .environment import ROOT, Harness, an_environment, light_traffic

pytestmark = pytest.mark.integration

PASSED_ON = ("Authorization", "Content-Type", "Accept")


class Proxy:
    """Passes requests on to the API server; can reject those for pods, and cut the streams that are open."""

    def __init__(self, server: str, authority: ssl.SSLContext) -> None:
        self.url = ""
        self.refuses = False
        self.rejected = 0
        self._server, self._authority = server, authority
        self._streams: list[asyncio.Transport] = []

    def cut(self) -> None:
        """Drop the connection of every stream."""
        for transport in self._streams:
            transport.abort()
        self._streams.clear()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Pass on for as long as the block lasts."""
        connector = aiohttp.TCPConnector(ssl=self._authority, limit=0)
        async with aiohttp.ClientSession(self._server, connector=connector, auto_decompress=False) as self._session:
            app = web.Application(client_max_size=2**24)
            app.router.add_route("*", "/{path:.*}", self._pass_on)
            runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            try:
                yield
            finally:
                await runner.cleanup()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        if self.refuses and request.path.endswith("/pods"):
            self.rejected += 1
            return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 401}, status=401)
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        timeout = aiohttp.ClientTimeout(total=None)
        sent = self._session.request(request.method, request.rel_url, headers=headers, data=await request.read() or None, timeout=timeout)
        async with sent as answer:
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.headers.get("Content-Type", "")})
            if "watch" in request.query and request.transport is not None:
                self._streams.append(request.transport)
            try:
                await response.prepare(request)
                with suppress(aiohttp.ClientError):
                    async for chunk in answer.content.iter_any():
                        await response.write(chunk)
            except ConnectionError:
                pass  # the operator has gone, or was cut off
            return response


async def test_a_second_of_401_while_watches_are_cut_ends_nobody_and_deafens_nobody(harness: Harness) -> None:
    access = read(harness.plane.admin_kubeconfig)
    proxy = Proxy(harness.plane.server, ssl.create_default_context(cadata=access.authority))
    folder = harness.folder / "operators"
    path = os.environ.get("OPERATOR_PATH") or str(ROOT / "operator")
    operators = Operators(harness.plane, folder, env={"SETTLE_GRACE_SECONDS": "2", "PYTHONPATH": path})
    await asyncio.to_thread(harness.end_replicas)
    try:
        async with proxy.running(), an_environment(harness) as environment:
            try:
                both = [await asyncio.to_thread(operators.start, name, server=proxy.url) for name in ("op-3", "op-4")]
                await environment.created(shards=2, spares=1)
                async with light_traffic(environment):
                    proxy.refuses = True
                    proxy.cut()
                    await asyncio.sleep(1)  # the fault itself
                    await until(lambda: proxy.rejected >= 2, "there is something to reject")
                    proxy.refuses = False
                    took = []
                    for number in range(3):
                        before, old = len(environment.seen.commits), environment.holder(number % 2)
                        await environment.delete_pod(old)
                        began = time.monotonic()
                        await environment.commit(number % 2, before)
                        took.append(time.monotonic() - began)
                        await environment.at_rest()
                assert [process.exit_text() for process in both if not process.alive()] == []
                assert median(took) < 1.5, f"failovers took {took} s: nothing woke the leader"

                await environment.created("other", shards=1, spares=0)
                await asyncio.to_thread(operators.close)
                assert [process.exit_text() for process in both] == ["exited with status 0"] * 2
            finally:
                await asyncio.to_thread(operators.close)
    finally:
        await asyncio.to_thread(harness.ensure_replicas)
