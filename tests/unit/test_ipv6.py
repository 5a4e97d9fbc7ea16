"""Pods whose address is IPv6: the operator's own parts and the simulator's real processes on ``::1``, and ports that take both families."""

from __future__ import annotations

import asyncio
import base64
import errno
import signal
import socket
import ssl
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509

import waiting
from wabiz_sim.listener import Listener
from wabiz_sim.resolve import split_host_port
from whatsapp_operator.core import manifests
from whatsapp_operator.core.actions import AssignRole, GenerateSecret
from whatsapp_operator.core.desired import Probe, Tuning
from whatsapp_operator.core.names import Key
from whatsapp_operator.core.snapshot import Coreapp
from whatsapp_operator.settings import Settings
from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.coreapps.probe import Tethers
from whatsapp_operator.shell.coreapps.schedule import Target
from whatsapp_operator.shell.metrics import served
from whatsapp_operator.shell.objects.assemble import Slow, access_of
from whatsapp_operator.shell.objects.generated import filled_secret
from whatsapp_operator.shell.objects.reading import desired_of
from whatsapp_operator.shell.whatsapp.access import Access
from whatsapp_operator.shell.whatsapp.session import ApiSession

from .sim.world import PASSWORD, World, recipient

SIX = "::1"
KEY = Key("shop", "acme")
DEADLINE = 90.0
"""Seconds, on a busy machine too."""


def has_six() -> bool:
    try:
        with socket.create_server((SIX, 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_six = pytest.mark.skipif(not has_six(), reason="THIS MACHINE HAS NO IPv6 LOOPBACK: nothing of IPv6 is tested here")


@pytest.fixture
def alone_on_six() -> Iterator[None]:
    """The one address ``::1`` with the fixed ports of the client is this test's alone, also next to other runs of the tests.

    A socket of that name is the lock: unlike a file in /tmp it does not outlive its owner, and another user can take it next.
    """
    with socket.socket(socket.AF_UNIX) as lock:
        deadline = time.monotonic() + 4 * DEADLINE
        while True:
            try:
                lock.bind("\0whatsapp-operator-ipv6")
                break
            except OSError:
                assert time.monotonic() < deadline, "another run of this test holds ::1"
                time.sleep(0.1)
        yield


until = partial(waiting.until, within=DEADLINE, pause=0.02, despite=(aiohttp.ClientError, OSError))
"""No matter what is raised by a connection meanwhile."""


# ---- the operator and the simulator


@asynccontextmanager
async def component(name: str, folder: Path) -> AsyncIterator[None]:
    """A component of the simulator as a process at ``::1``."""
    env = {
        "PYTHONPATH": ":".join(path for path in sys.path if path),
        "POD_NAME": f"acme-{name}-0",
        "POD_UID": f"uid-{name}",
        "POD_IP": SIX,
        "WABIZ_LISTEN": SIX,
        "WABIZ_UPSTREAM": "[::1]:8080",
        "WABIZ_STATE_DIR": str(folder / name),
        "WABIZ_SHARD_SERVICE": "0:0:0:0:0:0:{shard}:1",  # of shard 0: the same address
    }
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "wabiz_sim", name, env=env, stderr=pipe)
    try:
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        _, said = await asyncio.wait_for(process.communicate(), DEADLINE)
    assert process.returncode == 0, said.decode()


def access() -> Access:
    """How the operator reaches the one Webapp of the cluster, as it works it out from its pod."""
    desired = desired_of(
        {"metadata": {"namespace": "shop", "name": "acme", "uid": "u"}, "spec": {"shards": 1, "client": {"type": "Simulator"}}},
        image="sim:1",
        tuning=Tuning(),
    )
    found = access_of(desired, [{"status": {"podIP": SIX}}], Slow(read_at=0.0, objects={}, names=frozenset(), secrets={}, unread={}))
    return replace(found, verifies=False, password=PASSWORD, initial_password="secret")


@pytest.mark.slow
@needs_six
@pytest.mark.usefixtures("alone_on_six")
async def test_the_operator_and_the_simulator_work_by_ipv6_alone(tmp_path: Path) -> None:
    tethers = Tethers(clock=SystemClock(), wake=lambda _: None)
    api_session = ApiSession(KEY, clock=SystemClock(), wake=lambda _: None, call_timeout=5.0, ask_timeout=5.0)
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with AsyncExitStack() as stack:
        for name in ("upstream", "coreapp", "webapp"):
            await stack.enter_async_context(component(name, tmp_path))
        stack.push_async_callback(tethers.close)
        stack.push_async_callback(api_session.close)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)))

        # the probe, and the order on the control port
        tethers.hold(KEY, {"uid-coreapp": Target(ip=SIX, node=None, holds=True, probe=Probe(), unhealthy_after=3.0)})
        await until(lambda: (report := tethers.result_of("uid-coreapp").report) is not None and report.shards == 1)
        pod = Coreapp(name="acme-coreapp-0", uid="uid-coreapp", ordinal=0, ip=SIX)
        assert await tethers.assign(AssignRole(coreapp=pod, shards=1, shard=0, epoch="1-abcde"))
        await until(lambda: (report := tethers.result_of("uid-coreapp").report) is not None and report.gateway == "connected")

        # the API
        async def asked() -> bool:
            await api_session.ask(access())
            return api_session.client.shards == 1

        await until(asked)

        # a message on its way to the Coreapp
        api = "https://[::1]:8443/v1"
        basic = {"Authorization": aiohttp.encode_basic_auth("admin", PASSWORD)}
        async with session.post(f"{api}/users/login", headers=basic) as answer:
            headers = {"Authorization": f"Bearer {(await answer.json())['users'][0]['token']}"}
        message = {"to": recipient(0, 1), "type": "text", "text": {"body": "hello"}}
        async with session.post(f"{api}/messages", json=message, headers=headers) as answer:
            assert answer.status == 201, await answer.text()
        async with session.get(f"{api}/health", headers=headers) as answer:
            assert list((await answer.json())["health"]) == ["[::1]:acme-coreapp-0"]

        # the certificate names the address
        loop = asyncio.get_running_loop()
        pem = await loop.run_in_executor(None, ssl.get_server_certificate, (SIX, 8443))
        names = x509.load_pem_x509_certificate(pem.encode()).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == [SIX]


class MixedWorld(World):
    """One Coreapp and the Webapp have IPv6, the others IPv4."""

    def address(self, number: int) -> str:
        return SIX if number == 2 else super().address(number)

    async def tell_six(self, epoch: str) -> tuple[int, Any]:
        return await self.call("POST", "http://[::1]:6252/role", {"uid": "uid-coreapp-1", "shard": 0, "epoch": epoch, "shards": 1})


@needs_six
@pytest.mark.usefixtures("alone_on_six")
async def test_a_redirect_names_a_holder_with_ipv6(tmp_path: Path) -> None:
    world = MixedWorld(tmp_path)
    try:
        await world.cluster(2)
        await world.serve(0, 0, "1-a")
        # The Service still leads to the old holder.
        assert (await world.tell_six("2-b"))[0] == 200
        assert (await world.tell(0, 0, "2-b", holder=1))[0] == 200
        await world.until_connected(1)

        body = {"id": "m", "shard": 0, "to": recipient(0, 1), "body": "hello"}
        status, answer = await world.call("POST", f"http://{world.address(1)}:6250/messages", body)
        assert (status, answer["holder"]) == (421, "[::1]:6250")
        assert (await world.send(recipient(0, 1), "m-1"))[0] == 201
    finally:
        await world.close()


@pytest.mark.parametrize(
    ("text", "host"), [("acme-simulator:8080", "acme-simulator"), ("127.0.0.1:8080", "127.0.0.1"), ("[fd00::5]:8080", "fd00::5")]
)
def test_an_address_with_its_port(text: str, host: str) -> None:
    assert split_host_port(text) == (host, 8080)


@pytest.mark.parametrize("text", ["fd00::5", "fd00::5:8080", "[fd00::5]", "[]:8080", "[acme]:8080", "fd00::5]:8080"])
def test_what_is_no_address_with_a_port(text: str) -> None:
    with pytest.raises(ValueError, match="not of the form"):
        split_host_port(text)


# ---- ports for both families


def free_port() -> int:
    with socket.create_server(("", 0)) as probe:
        return int(probe.getsockname()[1])


def without_six(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine whose kernel has no IPv6."""

    class FourOnly(socket.socket):
        def __init__(self, family: int = -1, *args: Any, **more: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *args, **more)

    monkeypatch.setattr(socket, "socket", FourOnly)


async def _hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


async def _last_body(url: str, *, source: str | None = None) -> str:
    local = (source, 0) if source else None
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=local)) as session, session.get(url) as answer:
        return await answer.text()


@asynccontextmanager
async def listening(host: str) -> AsyncIterator[Listener]:
    listener = Listener(host, free_port(), [web.get("/", _hello)], gate=_open())
    await listener.open()
    try:
        yield listener
    finally:
        await listener.close(0.0)


def _open() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


@needs_six
async def test_a_component_listens_on_both_families() -> None:
    async with listening("::") as listener:
        for host in ("127.0.0.1", "[::1]"):
            assert await _last_body(f"http://{host}:{listener.port}/") == "hello"


async def test_a_component_listens_where_there_is_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    without_six(monkeypatch)
    async with listening("::") as listener:
        assert await _last_body(f"http://127.0.0.1:{listener.port}/") == "hello"


@needs_six
async def test_a_parted_network_knows_who_is_near_by_the_ipv4_address() -> None:
    async with listening("::") as listener:
        listener.clog(near="127.0.0.77")
        assert await _last_body(f"http://127.0.0.1:{listener.port}/", source="127.0.0.77") == "hello"


@needs_six
@pytest.mark.parametrize("kernel", ["with IPv6", "without IPv6"])
def test_metrics_are_served_on_both_families(monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    if kernel == "without IPv6":
        without_six(monkeypatch)

    def app(_: Any, start: Any) -> Iterator[bytes]:
        start("200 OK", [])
        yield b"ok"

    host = Settings(identity="x", namespace="shop").metrics_host
    with served(app, host=host, port=0) as port:
        for address in ("127.0.0.1", *(["[::1]"] if kernel == "with IPv6" else [])):
            with urllib.request.urlopen(f"http://{address}:{port}/", timeout=DEADLINE) as answer:
                assert answer.read() == b"ok"


# ---- what is made


@pytest.mark.parametrize("host", ["acme-webapp.shop.svc", "127.0.0.1", SIX])
async def test_a_certificate_that_is_made_is_for_its_name_also_if_that_is_an_address(host: str, tmp_path: Path) -> None:
    action = GenerateSecret(obj={"metadata": {"name": "acme-tls"}}, recipe="tls", host_names=("acme-webapp", host))
    data = {key: base64.b64decode(value) for key, value in filled_secret(action, datetime.now(UTC))["data"].items()}
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).write_bytes(data[name])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    trusting = ssl.create_default_context(cadata=data["ca.crt"].decode())

    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context) as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=trusting, server_hostname=host)
        writer.close()
        await writer.wait_closed()


def test_no_object_is_for_one_family_only() -> None:
    desired = desired_of(
        {"metadata": {"namespace": "shop", "name": "acme", "uid": "u"}, "spec": {"shards": 2, "client": {"type": "Simulator"}}},
        image="sim:1",
        tuning=Tuning(),
    )
    objects = (
        *manifests.upkeep(desired, webapp_replicas=2, resharding=False, is_first_boot=False, is_unused=False),
        manifests.shard_service(desired, 0),
    )
    families = {obj["metadata"]["name"]: obj["spec"].get("ipFamilyPolicy") for obj in objects if obj["kind"] == "Service"}
    assert families.pop("acme-webapp") == "PreferDualStack"
    assert set(families.values()) == {None}, "they have the family of the pods"
    assert not [word for word in ("ipFamilies", "ipBlock", "0.0.0.0", "127.0.0.1") if word in repr(objects)]
