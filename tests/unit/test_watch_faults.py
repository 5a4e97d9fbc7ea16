"""No answer of the API server ends the operator or leaves a watch dead: afterwards an event still wakes the loop of its cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from whatsapp_operator import __main__ as main
from whatsapp_operator.__main__ import Operator
from whatsapp_operator.core.names import Key
from whatsapp_operator.settings import Settings
from whatsapp_operator.shell.kube.kinds import POD
from whatsapp_operator.shell.watch import handlers, supervise
from whatsapp_operator.shell.watch.health import GAP, name_of

from .fake_apiserver import CLUSTERS, NAMESPACES, PODS, SERVICES, WATCHED, FakeApiServer, an_apiserver, refuse, status, within

LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases/whatsapp-operator"
LEASE_TIMES = {"LEASE_SECONDS": "3", "LEASE_RENEW_DEADLINE_SECONDS": "2", "LEASE_RETRY_SECONDS": "0.5"}
SOON = 60.0
"""Seconds in which anything must have happened, on a busy machine too."""


@pytest.fixture(autouse=True)
def _sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for what is decided, and longer for ends, so that no test leaves a thread to the next one."""
    monkeypatch.setattr(supervise, "RENEW_AFTER", 2.0)
    monkeypatch.setattr(main, "CUT_OFF_PATIENCE", 1.0)
    for module in (supervise, main, handlers):
        monkeypatch.setattr(module, "END_WITHIN", SOON)


class WakeLog(Operator):
    """An operator whose loops are only noted, not run."""

    def __init__(self, settings: Settings) -> None:
        self.woken: set[tuple[str, bool]] = set()
        super().__init__(settings)

    def _wake(self, key: Key, *, is_urgent: bool = True) -> None:
        self.woken.add((key.name, is_urgent))

    def was_notified(self, names: set[str]) -> bool:
        """Whether events, not lists, reported all these clusters."""
        return {(name, True) for name in names} <= self.woken


@asynccontextmanager
async def an_operator(
    server: FakeApiServer, folder: Path, namespaces: tuple[str, ...] = ()
) -> AsyncIterator[tuple[WakeLog, asyncio.Task[None]]]:
    """An operator that watches, in this event loop; ended at the end of the block if it has not ended before."""
    env = {
        "KUBECONFIG": str(server.kubeconfig(folder)),
        "POD_NAMESPACE": "default",
        **LEASE_TIMES,
        "WATCH_NAMESPACES": ",".join(namespaces),
    }
    watched = [within(path, namespace) for path in WATCHED for namespace in namespaces] or WATCHED
    operator = WakeLog(Settings.from_env(env))
    running = asyncio.create_task(operator._run(), name="operator")
    try:
        await until(lambda: all(server.streams[path] for path in watched), running)
        yield operator, running
    finally:
        running.cancel()
        await asyncio.wait({running}, timeout=2 * SOON)


async def until(seen: Callable[[], bool], running: asyncio.Task[None], within: float = SOON) -> None:
    """Wait until it is so; AssertionError if the operator ends before, or it takes too long."""
    async with asyncio.timeout(within):
        while not seen():
            assert not running.done(), f"the operator ended: {running.exception() if not running.cancelled() else 'cancelled'!r}"
            await asyncio.sleep(0.02)


Fault = Callable[[FakeApiServer], Awaitable[None]]


def for_a_second(answer: Callable[[web.Request], web.Response | None], *, event: bytes = b"") -> Fault:
    """All streams are cut (or sent this), and for one second what is watched is answered like that."""

    async def fault(server: FakeApiServer) -> None:
        server.fault = lambda request: answer(request) if request.path in WATCHED else None
        if event:
            for path in WATCHED:
                await server.emit(path, event)
        else:
            server.cut()
        await asyncio.sleep(1)
        server.fault = lambda _: None

    return fault


def once(path: str, answer: Callable[[], web.Response]) -> Fault:
    """All streams are cut, and the next request for this is answered so."""

    async def fault(server: FakeApiServer) -> None:
        asked = asyncio.Event()

        def reply(request: web.Request) -> web.Response | None:
            if request.path != path or asked.is_set():
                return None
            asked.set()
            return answer()

        server.fault = reply
        server.cut()
        async with asyncio.timeout(SOON):
            await asked.wait()

    return fault


def line(path: str, text: bytes) -> Fault:
    """One line in an open stream."""

    async def fault(server: FakeApiServer) -> None:
        await server.emit(path, text)

    return fault


def error(code: int) -> bytes:
    return json.dumps({"type": "ERROR", "object": status(code)}).encode() + b"\n"


async def a_cut(server: FakeApiServer) -> None:
    server.cut()


async def the_crd_goes_and_comes(server: FakeApiServer) -> None:
    server.drop_crd()
    await asyncio.sleep(0.5)
    server.bring_crd()


async def the_crd_comes_back_unnoticed(server: FakeApiServer) -> None:
    """Discovery lags behind the event that tells of the CRD."""
    server.drop_crd()
    await asyncio.sleep(0.5)
    server.serves_clusters = False
    server._tell_crd("ADDED")
    await asyncio.sleep(0.5)
    server.serves_clusters = True


FAULTS: dict[str, Fault] = {
    "401 once": once(PODS, lambda: refuse(401)),
    "401 for a second": for_a_second(lambda _: refuse(401)),
    "403 for a second": for_a_second(lambda _: refuse(403)),
    "500 for a second": for_a_second(lambda _: refuse(500)),
    "429 for an hour": once(PODS, lambda: refuse(429, **{"Retry-After": "3600"})),
    "404 once": once(SERVICES, lambda: refuse(404)),
    "410 as an answer": once(PODS, lambda: refuse(410)),
    "410 as an event": line(PODS, error(410)),
    "500 as an event": line(PODS, error(500)),
    "500 on lists": for_a_second(lambda request: None if request.query.get("watch") else refuse(500), event=error(410)),
    "garbage instead of lists": for_a_second(
        lambda request: None if request.query.get("watch") else web.Response(text="<html>", content_type="text/html"), event=error(410)
    ),
    "a stream that is cut": a_cut,
    "a garbage line": line(CLUSTERS, b"{not JSON\n"),
    "an object without anything": line(PODS, b'{"type": "MODIFIED", "object": {}}\n'),
    "the CRD deleted and applied again": the_crd_goes_and_comes,
    "the CRD applied again, and discovery is late": the_crd_comes_back_unnoticed,
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_after_any_answer_of_the_api_server_events_still_wake(fault: str, tmp_path: Path) -> None:
    async with an_apiserver() as server, an_operator(server, tmp_path) as (operator, running):
        await FAULTS[fault](server)
        for path in WATCHED:
            server.tell(path, f"missed-{path.rpartition('/')[2]}")
        await until(lambda: {f"missed-{path.rpartition('/')[2]}" for path in WATCHED} <= {name for name, _ in operator.woken}, running)
        # And not by a list alone: the streams are open again.
        for number in range(int(SOON)):
            names = {path: f"later-{path.rpartition('/')[2]}-{number}" for path in WATCHED}
            for path, name in names.items():
                server.tell(path, name)
            with suppress(TimeoutError):
                await until(partial(operator.was_notified, set(names.values())), running, within=2)
                return
        pytest.fail("no event was heard from a stream")


async def test_a_leader_that_is_refused_its_watches_gives_the_lease_up_and_another_may_lead(tmp_path: Path) -> None:
    """And the process is not ended by its own health: the next one would be rejected too."""
    async with an_apiserver() as server, an_operator(server, tmp_path) as (operator, running):
        await until(lambda: bool(server.leases.get(LEASE, {}).get("spec", {}).get("holderIdentity")), running)
        server.fault = lambda request: refuse(403) if request.path in WATCHED else None
        server.cut()
        await until(lambda: not server.leases[LEASE]["spec"]["holderIdentity"], running)
        assert operator._health.cut_off() is not None
        assert operator._health.stalled() is None
        server.fault = lambda _: None
        await until(lambda: operator._health.cut_off() is None, running)
        await until(lambda: bool(server.leases[LEASE]["spec"]["holderIdentity"]), running)


async def test_a_namespace_that_is_gone_is_no_reason_to_give_the_lease_up_and_hides_no_other_namespace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With its Roles the rights in it go. No other replica has them, and the clusters of the other namespaces need a leader."""
    async with an_apiserver() as server, an_operator(server, tmp_path, NAMESPACES) as (operator, running):
        await until(lambda: bool(server.leases.get(LEASE, {}).get("spec", {}).get("holderIdentity")), running)
        began = asyncio.get_running_loop().time()
        server.fault = lambda request: refuse(403) if "/namespaces/here/" in request.path else None
        server.cut("/namespaces/here/")
        pods = {namespace: name_of(POD, namespace) for namespace in NAMESPACES}
        await until(lambda: operator._health.seconds_cut_off()[pods["here"]] > 3 * GAP, running)
        assert "The self-check fails" not in caplog.text
        assert "The watches are restarted" not in caplog.text
        assert operator._health.cut_off() is None
        assert server.leases[LEASE]["spec"]["holderIdentity"]
        server.tell(within(PODS, "there"), "later")
        await until(lambda: ("later", True) in operator.woken, running)
        assert asyncio.get_running_loop().time() - began > GAP
        server.fault = lambda _: None
        await until(lambda: operator._health.seconds_cut_off()[pods["here"]] == 0, running)

        server.fault = lambda request: refuse(403) if request.path in map(partial(within, PODS), NAMESPACES) else None
        server.cut("/pods")
        await until(lambda: operator._health.cut_off() is not None, running)


async def test_a_missing_crd_is_no_reason_to_give_the_lease_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    handlers.quieten()
    async with an_apiserver() as server, an_operator(server, tmp_path) as (operator, running):
        server.drop_crd()
        await until(lambda: operator._crd_was_missing, running)
        worst = 0.0
        for _ in range(20):
            await asyncio.sleep(0.1)
            worst = max(worst, operator._health.seconds_cut_off()["whatsappclusters"])
        assert worst < GAP
        assert "The self-check fails" not in caplog.text, "there is nothing to watch"
        assert not [record.getMessage() for record in caplog.records if record.exc_info], "what is said in a sentence needs no traceback"
        server.bring_crd()
        await until(lambda: bool(server.streams[CLUSTERS]) and not operator._crd_was_missing, running)


async def test_a_new_token_is_used_as_soon_as_it_is_there(tmp_path: Path) -> None:
    async with an_apiserver() as server, an_operator(server, tmp_path) as (operator, running):
        refused = []

        def only_the_new(request: web.Request) -> web.Response | None:
            if request.path not in WATCHED or request.headers["Authorization"] == "Bearer new":
                return None
            refused.append(request.path)
            return refuse(401)

        server.fault = only_the_new
        server.cut()
        await until(lambda: len(refused) >= 4, running)
        server.kubeconfig(tmp_path, token="new")
        for path in WATCHED:
            server.tell(path, f"later-{path.rpartition('/')[2]}")
        await until(partial(operator.was_notified, {f"later-{path.rpartition('/')[2]}" for path in WATCHED}), running)


async def test_kopf_is_given_another_session_when_it_is_refused_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "UNAUTHORIZED_PAUSES", ())
    async with an_apiserver() as server, an_operator(server, tmp_path) as (operator, running):
        await FAULTS["401 for a second"](server)
        server.tell(PODS, "missed")
        await until(lambda: "missed" in {name for name, _ in operator.woken}, running)


async def test_a_lease_that_makes_no_sense_ends_nobody(tmp_path: Path) -> None:
    async with an_apiserver() as server, an_operator(server, tmp_path) as (_, running):

        def holder() -> str:
            return str(server.leases.get(LEASE, {}).get("spec", {}).get("holderIdentity", ""))

        await until(lambda: bool(holder()), running)
        asked = []

        def garbage(request: web.Request) -> web.Response | None:
            if request.path != LEASE:
                return None
            asked.append(request.method)
            return web.json_response({"metadata": {"name": "whatsapp-operator", "resourceVersion": "1"}, "spec": []})

        server.fault = garbage
        await until(lambda: len(asked) >= 5, running)
        server.fault = lambda _: None
        version = server.leases[LEASE]["metadata"]["resourceVersion"]
        await until(lambda: bool(holder()) and server.leases[LEASE]["metadata"]["resourceVersion"] != version, running)


async def test_a_part_that_ends_by_itself_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with an_apiserver() as server, an_operator(server, tmp_path) as (operator, running):
        monkeypatch.setattr(operator._metrics, "observe_lag", None)  # a fault of the heartbeat itself
        with pytest.raises(RuntimeError, match="the task loop-lag ended"):
            await asyncio.wait_for(running, SOON)
