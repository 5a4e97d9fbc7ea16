"""A small world for the simulator: an upstream, Coreapps and a Webapp on loopback addresses of their own."""

import asyncio
import contextlib
import itertools
import os
import socket
import ssl
import time
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

import aiohttp
from aiohttp import web

from wabiz_sim.coreapp import Coreapp
from wabiz_sim.gatewaylog import Entry, Kind
from wabiz_sim.process import Process
from wabiz_sim.settings import Settings
from wabiz_sim.sharding import shard_of
from wabiz_sim.upstream import Upstream
from wabiz_sim.webapp import Webapp
from waiting import LONG, until

P = TypeVar("P", bound=Process)
_octets = itertools.count(1)
PASSWORD = "Correct-Horse-7"


class World:
    """Everything that a test needs; it is closed by the fixture."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        number = next(_octets)
        # Fixed ports side by side, also with other workers and other runs: an address block for these tests, none that hollow pods get.
        run = crc32(os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid())).encode())
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        self.block = f"127.{128 + run % 64}.{worker % 8 * 30 + number % 30 + 1}"
        self.routes: dict[str, str] = {"acme-simulator": self.address(250)}
        self.processes: list[Process] = []
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=_trusting()))
        self.token = ""
        self.restart_seconds = "0.1"
        self.webhook: list[dict[str, Any]] = []
        self.webhook_status = 200
        self.webhook_posts = 0
        self._runners: list[web.AppRunner] = []

    def address(self, number: int) -> str:
        return f"{self.block}.{number}"

    async def resolve(self, name: str, port: int) -> tuple[str, int]:
        if name in self.routes:
            return self.routes[name], port
        raise LookupError(name)

    def settings(self, name: str, number: int, **more: str) -> Settings:
        env = {
            "POD_NAME": name,
            "POD_UID": f"uid-{name}",
            "POD_IP": self.address(number),
            "WABIZ_LISTEN": self.address(number),
            "WABIZ_CLUSTER": "acme",
            "WABIZ_STATE_DIR": str(self.folder / name),
            "WABIZ_RESTART_SECONDS": self.restart_seconds,
        }
        return Settings.from_env({**env, **more})

    async def upstream(self, **more: str) -> Upstream:
        return await self._started(Upstream(self.settings("simulator", 250, **more)))

    async def coreapp(self, number: int, **more: str) -> Coreapp:
        return await self._started(Coreapp(self.settings(f"coreapp-{number}", number + 1, **more), resolve=self.resolve))

    async def webapp(self, number: int = 0, **more: str) -> Webapp:
        return await self._started(Webapp(self.settings(f"webapp-{number}", 200 + number, **more), resolve=self.resolve))

    async def _started(self, process: P) -> P:
        self.processes.append(process)
        await process.start()
        return process

    async def cluster(self, coreapps: int = 2, **upstream: str) -> tuple[Upstream, list[Coreapp], Webapp]:
        """Start all, log in, wait until everybody knows the number of shards."""
        server = await self.upstream(**upstream)
        cores = [await self.coreapp(number) for number in range(coreapps)]
        webapp = await self.webapp()
        await self.login()
        for core in cores:
            await until(lambda core=core: core.shards is not None)
        return server, cores, webapp

    async def call(self, method: str, url: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        timeout = aiohttp.ClientTimeout(total=more.pop("timeout", LONG))
        async with self.session.request(method, url, json=body, timeout=timeout, **more) as response:
            return response.status, await response.json(content_type=None)

    async def control(self, path: str, body: Any = None) -> Any:
        url = f"http://{self.address(250)}:8080/control/{path}"
        status, answer = await self.call("GET" if body is None else "POST", url, body)
        assert status < 300, answer
        return answer

    async def api(self, method: str, path: str, body: Any = None, *, webapp: int = 0, **more: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.token}", **more.pop("headers", {})}
        return await self.call(method, f"https://{self.address(200 + webapp)}:8443{path}", body, headers=headers, **more)

    async def login(self, password: str = "secret", new_password: object = PASSWORD) -> tuple[int, Any]:
        body = {"new_password": new_password} if new_password else None
        url = f"https://{self.address(200)}:8443/v1/users/login"
        status, answer = await self.call("POST", url, body, headers={"Authorization": aiohttp.encode_basic_auth("admin", password)})
        if status == 200:
            self.token = answer["users"][0]["token"]
        return status, answer

    async def send(self, to: str, message_id: str, **more: Any) -> tuple[int, Any]:
        body = {"to": to, "type": "text", "text": {"body": "hello"}}
        return await self.api("POST", "/v1/messages", body, headers={"X-Message-Id": message_id}, **more)

    async def set_shards(self, shards: Any, **more: Any) -> tuple[int, Any]:
        timeout = more.pop("timeout", LONG)
        body = {"cc": "1", "phone_number": "6315550000", "shards": shards, **more}
        return await self.api("POST", "/v1/account/shards", body, timeout=timeout)

    async def report(self, number: int) -> dict[str, Any]:
        _, answer = await self.call("GET", f"http://{self.address(number + 1)}:6253/")
        return dict(answer)

    async def report_or_none(self, number: int, *, shards: int) -> dict[str, Any] | None:
        """Return the report once it says that many shards; None before, also while nobody answers."""
        try:
            report = await self.report(number)
        except (aiohttp.ClientError, OSError):
            return None
        return report if report["shards"] == shards else None

    async def member_count(self, count: int) -> bool:
        return len((await self.control("members"))["coreapp"]) == count

    async def tell(self, number: int, shard: int | None, epoch: str | None, shards: int = 1, **more: Any) -> tuple[int, Any]:
        """Give a role on the control port; ``holder`` is the number of the Coreapp that serves the shard now."""
        body: dict[str, Any] = {"uid": f"uid-coreapp-{number}", "shard": shard, "epoch": epoch, "shards": shards}
        if "holder" in more:
            holder = more.pop("holder")
            body["holder"] = {"pod": f"coreapp-{holder}", "ip": self.address(holder + 1)}
        return await self.call("POST", f"http://{self.address(number + 1)}:6252/role", {**body, **more})

    def route(self, shard: int, number: int) -> None:
        """Swap the shard's Service."""
        self.routes[f"acme-shard-{shard}"] = self.address(number + 1)

    async def serve(self, number: int, shard: int, epoch: str, shards: int = 1) -> None:
        """Route, tell and wait until connected."""
        self.route(shard, number)
        status, answer = await self.tell(number, shard, epoch, shards)
        assert status == 200, answer
        await self.until_connected(number)

    async def restarted(self, core: Coreapp) -> None:
        """Wait until Set Shards has closed the Coreapp and it is back and knows its number of shards."""
        await until(lambda: not core.ready)
        await until(lambda: core.ready and core.shards is not None)

    async def until_connected(self, number: int) -> None:
        core = next(p for p in reversed(self.processes) if isinstance(p, Coreapp) and p.settings.pod_name == f"coreapp-{number}")
        await until(lambda: core.report()["gateway_status"] == "connected")

    async def start_webhook(self) -> str:
        async def take(request: web.Request) -> web.Response:
            self.webhook_posts += 1
            if self.webhook_status == 200:
                self.webhook.append((await request.json())["messages"][0])
            return web.Response(status=self.webhook_status)

        app = web.Application()
        app.router.add_post("/hook", take)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, self.address(240), 8088).start()
        self._runners.append(runner)
        return f"http://{self.address(240)}:8088/hook"

    async def close(self) -> None:
        await self.session.close()
        await asyncio.gather(*(process.kill() for process in self.processes))
        for runner in self._runners:
            await runner.cleanup()
        await asyncio.sleep(0)


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def recipient(shard: int, shards: int, number: int = 0) -> str:
    """Return a recipient of that shard."""
    fitting = (f"1631555{n:04d}" for n in itertools.count() if shard_of(f"1631555{n:04d}", shards) == shard)
    return next(itertools.islice(fitting, number, None))


def closed(host: str, port: int) -> bool:
    """True when nobody listens there."""
    with contextlib.closing(socket.socket()) as probe:
        probe.settimeout(LONG)
        return probe.connect_ex((host, port)) != 0


def frame(message: str, shard: int = 0, uid: str = "u", epoch: str = "1-a", connection: str = "c") -> Entry:
    """A message frame on its way to the store."""
    return Entry(kind=Kind.TAKEN, at=time.time(), shard=shard, epoch=epoch, uid=uid, connection=connection, message=message, note="1")
