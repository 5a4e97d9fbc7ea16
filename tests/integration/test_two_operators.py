"""Two operators of which one is cut off, paused, or an hour ahead; and no API server for a while. On a real API server, under traffic."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from localkube.hollow.control import HollowControlError
from localkube.plane.operators import Operators
from localkube.programs.binaries import provide
from outside.wire import Wire

from .environment import LONG, ROOT, Environment, Harness, Obj, an_environment, light_traffic, now, reported_of
from .test_plugin import here

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

PAUSE_SECONDS = 12.0
API_AWAY_SECONDS = 10.0
AHEAD = "an_hour_ahead"


@dataclass
class Pair:
    """Two operators behind wires of their own, and a cluster of two shards and a spare."""

    environment: Environment
    operators: Operators
    folder: Path
    exits: AsyncExitStack
    wires: dict[str, Wire] = field(default_factory=dict)

    async def start(self, name: str, *, module: str = "whatsapp_operator") -> str:
        """One more, once it watches."""
        parts = urlsplit(self.environment.plane.server)
        wire = self.wires[name] = await self.exits.enter_async_context(Wire((parts.hostname or "", parts.port or 443)))
        url = f"https://{wire.address[0]}:{wire.address[1]}"
        await asyncio.to_thread(self.operators.start, name, server=url, module=module)
        return name

    async def leader(self, *, but: str = "") -> str:
        """The name of the one that leads, as soon as another than ``but`` does."""
        return await soon(lambda: (name := self.operators.leader()) and name != but and name, "another one leads")

    async def other(self, name: str) -> str:
        return next(one for one, process in self.operators.running.items() if one != name and process.alive())

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def landed(self, name: str, since: str) -> list[str]:
        """The writes of one replica since then that changed something, Lease and Events included, by the audit log."""
        token = next(iter(re.findall(r"token: (\S+)", (self.folder / f"{name}.kubeconfig").read_text(encoding="utf-8"))))
        payload = token.split(".")[1]
        mark = "JTI=" + json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["jti"]
        lines = (self.environment.plane.folder / "audit.log").read_text(encoding="utf-8").splitlines()
        events: list[Obj] = [json.loads(line) for line in lines if mark in line and line.endswith("}")]
        return [
            f"{event['verb']} {event['requestURI']} {event['responseStatus']['code']}"
            for event in events
            if event["requestReceivedTimestamp"] >= since and event["responseStatus"]["code"] < 300
        ]

    async def hand_over(self, shard: int = 0) -> None:
        """Delete a holder and wait for the commit, which is reported."""
        environment = self.environment
        before = len(environment.seen.commits)
        await environment.delete_pod(environment.holder(shard))
        commit = await environment.commit(shard, before)
        assert (await reported_of(environment, commit))["evidence"] == "PodDeleted"


async def soon(ask: Callable[[], str | bool | None], what: str, within: float = LONG) -> str:
    deadline = time.monotonic() + within
    while not (found := await asyncio.to_thread(ask)):
        assert time.monotonic() < deadline, f"waited {within:g} s without success until {what}"
        await asyncio.sleep(0.05)
    return str(found)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(harness: Harness) -> AsyncIterator[Pair]:
    """Two operators of this module instead of those of the harness; each test leaves two, and the cluster at rest."""
    folder = harness.folder / "operators"
    path = os.pathsep.join(str(ROOT / part) for part in ("operator", "tests/integration"))
    operators = Operators(harness.plane, folder, env={"SETTLE_GRACE_SECONDS": "2", "PYTHONPATH": path})
    await asyncio.to_thread(harness.end_replicas)
    try:
        async with AsyncExitStack() as exits, an_environment(harness) as environment:
            pair = Pair(environment, operators, folder, exits)
            exits.push_async_callback(asyncio.to_thread, operators.close)  # before the wires
            for name in ("op-1", "op-2"):
                await pair.start(name)
            await environment.created(shards=2, spares=1)
            yield pair
    finally:
        await asyncio.to_thread(operators.close)
        await asyncio.to_thread(harness.ensure_replicas)


async def test_one_that_is_cut_off_writes_nothing_more_and_stands_by_afterwards(pair: Pair) -> None:
    environment, first = pair.environment, await pair.leader()
    second = await pair.other(first)
    async with light_traffic(environment):
        assert pair.landed(first, ""), "the audit log tells one operator's writes from the other's"
        pair.wires[first].cut()
        await pair.hand_over()
        assert await pair.leader() == second
        taken_over = now()  # what was under way before may have landed until then
        await soon(lambda: "no longer leading" in pair.log(first), f"{first} knows that it leads no more")
        await environment.at_rest()
        assert pair.wires[first].held > 0, "there was nothing to hold up"
        pair.wires[first].heal()
        # What was held up arrives now. When it has asked again, it is a candidate again: it takes over when the other ends.
        await pair.hand_over(1)
        await environment.at_rest()
        assert await pair.leader() == second
        assert pair.landed(first, taken_over) == []
        await asyncio.to_thread(pair.operators.end, second)
        assert await pair.leader() == first
        await pair.hand_over()
        await pair.start("op-3")
        await environment.at_rest()


async def test_one_that_was_paused_for_longer_than_its_lease_writes_nothing_when_it_wakes(pair: Pair) -> None:
    environment, first = pair.environment, await pair.leader()
    second, before = await pair.other(first), len(environment.seen.commits)
    process, terms = pair.operators.running[first], pair.log(first).count("no longer leading")
    async with light_traffic(environment):
        process.pause()
        stopped = time.monotonic()
        try:
            await pair.hand_over()
            assert await pair.leader() == second
            taken_over = now()  # what was under way before may have landed until then
            await environment.at_rest()
            await asyncio.sleep(max(0.0, stopped + PAUSE_SECONDS - time.monotonic()))  # the pause itself
        finally:
            process.resume()
        # At the very moment at which it wakes and may believe that it leads, there is something to do.
        await pair.hand_over(1)
        await soon(lambda: pair.log(first).count("no longer leading") > terms, f"{first} knows that it leads no more")
        await environment.at_rest()
    assert pair.landed(first, taken_over) == []
    assert await pair.leader() == second
    assert process.alive()
    assert len(environment.seen.commits) == before + 2


async def test_clocks_an_hour_apart_change_nothing(pair: Pair) -> None:
    environment = pair.environment
    async with light_traffic(environment):
        await asyncio.to_thread(pair.operators.close)
        await pair.start("op-now")
        assert await pair.leader() == "op-now"
        await pair.start("op-ahead", module=AHEAD)
        await soon(lambda: "Leading as" in pair.log("op-now"), "it leads")
        # Its successor finds a call of the other's clock half done. (One that was noted and not made is settled by time alone.)
        await environment.patch(shards=4)
        await environment.said(lambda status: "operation" in status, "the noted call")
        deadline = time.monotonic() + LONG
        while not any(call["shards"] == 4 for call in (await environment.client_state())["set_shards_calls"]):
            assert time.monotonic() < deadline, "the call was not made"
            await asyncio.sleep(0.02)
        pair.operators.running["op-now"].signal(signal.SIGKILL)
        assert await pair.leader(but="op-now") == "op-ahead"
        await environment.at_rest()
        calls = [call for call in (await environment.client_state())["set_shards_calls"] if call["restarted"]]
        assert [call["shards"] for call in calls][-1:] == [4]
        assert len(calls) == 2, "one to 2 shards at first, one to 4: the call is not made twice"
        await pair.hand_over()
        await environment.at_rest()
        entry = environment.status()["recentHandovers"][0]
        assert read(entry["at"]) - datetime.now(UTC) > timedelta(minutes=59), "it does live an hour ahead"
        assert 0 <= entry["commitMilliseconds"] < 60_000, "no span is taken between two clocks"
        with patch.dict(os.environ, {"KUBECTL": str(provide(os.environ)["kubectl"])}):
            arguments = ("status", "acme", "-n", environment.namespace, "-o", "json")
            seen = (await asyncio.to_thread(here, environment.plane.admin_kubeconfig, *arguments)).json()
        age = read(seen["at"]) - read(seen["leader"]["renewed"])
        assert (seen["leader"]["alive"], abs(age) < timedelta(minutes=1)) == (True, True), "the plugin goes by the API server's clock"
        before, old = len(environment.seen.commits), environment.holder(1)
        async with environment.control() as control:
            await control.hang(environment.namespace, old)
            commit = await environment.commit(1, before)
            with suppress(HollowControlError):  # so that its end need not wait for its grace; it may be over by now
                await control.resume(environment.namespace, old)
        entry = await reported_of(environment, commit)
        assert (entry["evidence"], 3000 <= entry["detectMilliseconds"] < 60_000) == ("ProbeTimeout", True), entry
        await environment.at_rest()
        # And back: an operator that starts now reads times that are still to come.
        await pair.start("op-again")
        await asyncio.to_thread(pair.operators.end, "op-ahead")
        assert await pair.leader() == "op-again"
        await pair.hand_over()
        await environment.at_rest()
        await environment.patch(shards=2)
        await environment.at_rest()
        await pair.start("op-last")


async def test_without_an_api_server_coreapps_go_on_and_what_died_is_handed_over_when_it_is_back(pair: Pair) -> None:
    environment, before = pair.environment, len(pair.environment.seen.commits)
    old, plane = environment.holder(0), environment.plane
    async with light_traffic(environment) as traffic:
        await traffic.next_delivery(1, time.monotonic())  # by now it knows how many shards there are
        plane.apiserver.pause()
        try:
            away = time.monotonic()
            while (began := time.monotonic()) < away + API_AWAY_SECONDS - 3:
                for shard in (0, 1):
                    await traffic.next_delivery(shard, began)
            async with environment.control() as control:
                await control.disturb(environment.namespace, old, ports="closed")
            while (began := time.monotonic()) < away + API_AWAY_SECONDS:
                await traffic.next_delivery(1, began)
        finally:
            plane.apiserver.resume()
        commit = await environment.commit(0, before)
        entry = await reported_of(environment, commit)
        assert (entry["evidence"], entry["from"]) == ("ConnectionLost", old)
        await traffic.next_delivery(0, commit.monotonic)
        await environment.kill(old)  # its kubelet would restart it sooner or later
        await environment.at_rest()
    assert len(environment.seen.commits) == before + 1


def read(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp)
