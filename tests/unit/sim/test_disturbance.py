"""What goes wrong on purpose with a Coreapp's probes and ports appears from outside as it should."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from typing import Any, cast

import aiohttp
import pytest

from localkube.scenarios.faults.partition import REJECTED, TAKEN, near_sender
from outside.ledger import Sender, Senders
from outside.traffic import Message
from wabiz_sim.gatewaylog import Audit, Entry, Kind
from waiting import LONG, until

from .stopwatch import Stopwatch
from .world import World, recipient

QUICK = 0.3


class OneShard:
    """The stream of a cluster with one shard, as far as a sender on the holder's side needs it."""

    def __init__(self) -> None:
        self.senders = Senders()
        self.redirected = 0

    def recipient_in(self, shard: int) -> str:
        return recipient(shard, 1)

    async def deliver(self, message: Message) -> None:
        self.redirected += 1


async def probed(world: World) -> dict[str, Any]:
    _, answer = await world.call("GET", f"http://{world.address(1)}:6253/")
    return dict(answer)


def answers_syn(world: World, port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(QUICK)
        try:
            one.connect((world.address(1), port))
        except TimeoutError:
            return False
        return True


async def test_a_swallowed_probe_is_never_answered_and_its_connection_stays(world: World) -> None:
    _, (core,), _ = await world.cluster(1)
    await core.disturb({"swallow": 1.0})
    assert not core.effects, "nobody has probed it yet"
    reader, writer = await asyncio.open_connection(world.address(1), 6253)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(QUICK):
            await reader.read(1)
    writer.transport.abort()

    await core.disturb({"swallow": 0.0})
    assert (await probed(world))["pod"] == "coreapp-0"
    assert core.effects["probes lost"] == 1


async def test_only_the_share_asked_for_is_swallowed(world: World) -> None:
    _, (core,), _ = await world.cluster(1)
    await core.disturb({"swallow": 0.5})

    probes = [asyncio.create_task(probed(world)) for _ in range(60)]
    await until(lambda: sum(one.done() for one in probes) + core.effects["probes lost"] == 60)

    assert 10 <= core.effects["probes lost"] <= 50  # beyond by chance less than once in ten million runs
    for one in probes:
        one.cancel()
    await asyncio.gather(*probes, return_exceptions=True)


async def test_late_answers_are_answers(world: World) -> None:
    _, (core,), _ = await world.cluster(1)
    await core.disturb({"late": 0.3})
    begun = time.monotonic()
    assert (await probed(world))["pod"] == "coreapp-0"
    assert time.monotonic() - begun >= 0.3
    assert core.effects["probes late"] == 1


async def test_closed_ports_refuse_while_the_process_and_its_connection_live(world: World) -> None:
    server, (core,), _ = await world.cluster(1)
    await world.serve(0, 0, "1-a")
    _, writer = await asyncio.open_connection(world.address(1), 6253)
    await until(lambda: core.ready)
    await probed(world)
    assert core.effects["connections reset"] == 0
    await core.disturb({"ports": "closed"})
    assert core.effects["connections reset"] >= 1
    writer.transport.abort()

    with pytest.raises(aiohttp.ClientConnectionError):
        await probed(world)
    assert core.running
    assert not core.ready
    assert (await world.control("counters"))["connections"] == {"0": {"uid": "uid-coreapp-0", "epoch": "1-a"}}
    await core.disturb({"ports": "open"})
    assert (await probed(world))["epoch"] == "1-a"
    assert server.running


async def test_half_open_ports_keep_what_is_open_in_silence_and_complete_nothing_new(world: World) -> None:
    _, (core,), _ = await world.cluster(1)
    reader, writer = await asyncio.open_connection(world.address(1), 6253)
    await until(lambda: core.ready)
    await core.disturb({"ports": "half-open"})
    assert core.effects["requests held"] == 0
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(QUICK):
            await reader.read(1)
    await until(lambda: core.effects["requests held"] == 1)
    for port in (6250, 6252, 6253):
        assert not await asyncio.to_thread(answers_syn, world, port)

    await core.disturb({"ports": "open"})
    async with asyncio.timeout(LONG):
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.transport.abort()
    assert (await probed(world))["pod"] == "coreapp-0"


async def test_a_parted_holder_serves_its_own_side_until_the_fence_refuses_it_and_stands_by_when_it_is_assigned(world: World) -> None:
    _, (old, _), _ = await world.cluster(2)
    await world.serve(0, 0, "1-a")
    await old.disturb({"ports": "parted"})
    probing = asyncio.create_task(probed(world))
    await until(lambda: old.effects["requests held"] >= 1)
    probing.cancel()
    await asyncio.wait({probing})

    effects: Counter[str] = Counter()
    stream = OneShard()
    async with near_sender(cast("Any", stream), 0, world.address(1), effects):
        await until(lambda: effects[TAKEN])
        assert not effects[REJECTED]
        await world.serve(1, 0, "2-b")
        await until(lambda: effects[REJECTED])
    assert stream.redirected == effects[REJECTED], "what it does not take is sent the other way"
    frames = await world.control("frames")
    taken = [one["message"] for one in frames["frames"] if one["kind"] == "taken"]
    assert {name for name, state in stream.senders.states.items() if state is Sender.CONFIRMED} <= set(taken), "and what it took was taken"
    log = Audit()
    log.read(map(Entry.read, frames["frames"]))
    assert (log.totals().replaced, log.totals().two_holders) == (1, 0)

    await old.disturb({"ports": "open"})
    assert (await world.tell(0, None, None))[0] == 200
    assert (await world.report(0))["epoch"] is None


async def test_two_holders_of_one_shard_are_counted_when_the_fence_does_not_refuse_the_parted_one() -> None:
    log = Audit()
    entries = [
        Entry(kind=Kind.OPENED, at=1.0, shard=0, epoch="1-a", uid="old", connection="1"),
        Entry(kind=Kind.OPENED, at=2.0, shard=0, epoch="2-b", uid="new", connection="2"),
        Entry(kind=Kind.TAKEN, at=3.0, shard=0, epoch="1-a", uid="old", connection="1", message="m"),
    ]
    log.read(entries)
    assert (log.totals().below_epoch, log.totals().overlaps) == (1, 1)


async def test_it_uses_the_grace_that_it_is_given(world: World) -> None:
    _, (core,), _ = await world.cluster(1)
    await core.disturb({"linger": 0.5})
    watch = Stopwatch()
    await core.stop(30.0)
    assert watch.elapsed >= 0.5
    assert watch.own < 2.5


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"swallow": 1.5}, "share from 0 to 1"),
        ({"late": -1}, "late must be a number"),
        ({"late": None}, "late a number of seconds"),
        ({"ports": "ajar"}, "open, closed, half-open"),
        ({"poison": 1}, "not poison"),
    ],
)
async def test_a_disturbance_that_is_not_understood_changes_nothing(world: World, changes: dict[str, Any], complaint: str) -> None:
    _, (core,), _ = await world.cluster(1)
    with pytest.raises(ValueError, match=complaint):
        await core.disturb(changes)
    assert (await probed(world))["pod"] == "coreapp-0"
