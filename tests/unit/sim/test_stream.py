"""The ledger of real senders: a Webapp, Coreapps and WhatsApp servers of the simulator, with every way in which a message can end."""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from localkube.kubeconfig import Access
from localkube.plane import certificates
from localkube.scenarios.traffic import Stream
from outside.traffic import Message
from wabiz_sim.store import SqliteStore
from wabiz_sim.upstream import Upstream
from waiting import until

from .world import PASSWORD, World, recipient


class Sender(Stream):
    """Sends what a test asks for, to the world's one Webapp."""

    def __init__(self, world: World, kubeconfig: Path, deadline: float) -> None:
        super().__init__(kubeconfig, "acme", lambda: pytest.fail("there is no observer"))
        self._world = world
        self._deadline = deadline

    async def _refresh(self) -> None:
        self._webapps, self._upstream = [self._world.address(200)], self._world.address(250)

    async def _secret(self, suffix: str, key: str) -> str:
        assert suffix == "admin"
        return {"username": "admin", "password": PASSWORD}[key]

    async def _trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    async def _send_all(self) -> None:
        pass

    async def send(self, name: str) -> Message:
        """One message, until it is confirmed or given up."""
        message = self.start(name)
        await until(lambda: message.delivered_at is not None or message.lost)
        return message

    def start(self, name: str) -> Message:
        message = Message(id=name, to=recipient(0, 1), sent_at=time.monotonic())
        task = asyncio.create_task(self.deliver(message))
        self._open.add(task)
        task.add_done_callback(self._done)
        return message


@pytest.fixture
async def server(world: World) -> Upstream:
    server, _, _ = await world.cluster(2)
    await world.serve(0, 0, "5-a")
    return server


@pytest.fixture
async def sender(world: World, server: Upstream, tmp_path: Path) -> AsyncIterator[Sender]:
    authority = certificates.make(tmp_path / "made", service_ip="10.0.0.1").authority.read_text()
    access = Access(server="https://127.0.0.1:1", authority=authority, token="t")
    async with Sender(world, access.write(tmp_path / "kubeconfig"), 30.0) as made:
        yield made


def forget(server: Upstream, name: str) -> None:
    """The servers took a message, and then their database has it no more."""
    store = server._store
    assert isinstance(store, SqliteStore)
    for table, column in (("message", "id"), ("gateway_log", "message")):
        assert store._db.execute(f"DELETE FROM {table} WHERE {column} = ?", (name,)).rowcount == 1


async def swallow(world: World, sender: Sender, *, applies: bool, count: int = 1000) -> None:
    """The servers acknowledge nothing more, and the sender gives up soon; with ``applies`` they take it all the same."""
    sender._deadline = 1.0
    await world.control("faults", {"call": "messages", "fault": "reset", "applies": applies, "count": count})


async def test_a_message_between_two_plays_is_in_the_ledger_of_the_run(sender: Sender, server: Upstream) -> None:
    mark = await sender.mark()
    await sender.send("in the first")
    first = await sender.results(mark, ())
    await sender.send("between")
    forget(server, "between")
    mark = await sender.mark()
    await sender.send("in the second")
    second = await sender.results(mark, ())

    found = await sender.ledger()

    assert [(results.sent, results.lost) for results in (first, second)] == [(1, 0), (1, 0)]
    assert (found.sent, found.delivered, found.lost, found.undelivered) == (3, 2, 1, 1)
    assert found.failures() == ["1 messages were lost: confirmed with 201 and unknown to the WhatsApp servers"]


async def test_a_message_over_a_mark_counts_in_exactly_one_play(sender: Sender, world: World) -> None:
    first = await sender.mark()
    await sender.send("in the first")
    results = [await sender.results(first, ())]
    await swallow(world, sender, applies=False)
    over = sender.start("over the mark")
    second = await sender.mark()
    await until(lambda: over.lost)
    results.append(await sender.results(second, ()))
    third = await sender.mark()
    results.append(await sender.results(third, ()))

    found = await sender.ledger()

    assert [(one.sent, one.lost) for one in results] == [(1, 0), (1, 1), (0, 0)]
    assert (found.sent, found.delivered, found.rejected) == (2, 1, 1)


async def test_a_message_that_was_taken_before_a_mark_and_confirmed_after_it_is_not_lost(sender: Sender, world: World) -> None:
    await world.control("faults", {"call": "messages", "fault": "slow", "seconds": 1.5})
    over = sender.start("over the mark")

    async def taken() -> bool:
        return bool((await world.control("counters"))["accepted"])

    await until(taken)
    mark = await sender.mark()
    assert over.delivered_at is None
    results = await sender.results(mark, ())

    assert (results.sent, results.lost, [one.by for one in results.taken]) == (1, 0, ["uid-coreapp-0"])
    assert (await sender.ledger()).failures() == []


async def test_a_message_whose_sender_gives_up_is_rejected(sender: Sender, world: World) -> None:
    await swallow(world, sender, applies=False)
    assert (await sender.send("never taken")).lost

    found = await sender.ledger()

    assert (found.sent, found.rejected, found.unconfirmed) == (1, 1, 0)
    assert found.totals.dropped > 0
    assert found.failures() == ["1 messages were given up by their senders and never taken"]


async def test_a_message_that_was_taken_and_never_confirmed_has_a_count_of_its_own(sender: Sender, world: World) -> None:
    await swallow(world, sender, applies=True)
    assert (await sender.send("taken")).lost

    found = await sender.ledger()

    assert (found.sent, found.rejected, found.unconfirmed) == (1, 0, 1)
    assert (found.totals.delivered, found.totals.repeated > 0, found.totals.doubled) == (1, True, 0)


async def test_a_message_that_still_waits_at_the_end_is_open(sender: Sender, world: World) -> None:
    await swallow(world, sender, applies=False)
    sender._deadline = 60.0
    sender.start("waits")

    found = await sender.ledger(timeout=0.3)

    assert (found.sent, found.open) == (1, 1)
    assert found.failures() == ["1 messages are still open"]


async def test_servers_that_begin_with_an_empty_database_are_reported(sender: Sender, server: Upstream, world: World) -> None:
    await sender.send("before")
    mark = await sender.mark()
    await server.kill()
    for file in (world.folder / "simulator").iterdir():
        file.unlink()
    await world.upstream()

    async def logged_in() -> bool:  # the password is the first one again
        return (await world.login())[0] == 200

    await until(logged_in)
    await sender.send("after")
    results = await sender.results(mark, ())

    found = await sender.ledger()

    assert (results.sent, results.lost) == (1, 0)
    assert (found.sent, found.delivered, found.lost, found.databases) == (2, 1, 1, 2)


async def test_an_inbound_message_that_no_webhook_takes_is_counted(sender: Sender, world: World) -> None:
    await sender._receive()
    await sender._inject("arrives")
    await until(lambda: sender._inbound.arrived["arrives"] == 1)
    await world.api("PATCH", "/v1/settings/application", {"webhooks": {"url": f"http://{world.address(9)}:1/hook"}})
    await sender._inject("waits")
    found = await sender.ledger(timeout=4.0)  # longer than the webhook's first pause
    assert (found.inbound_injected, found.inbound_arrived, found.inbound_waiting, found.inbound_lost) == (2, 1, 1, 0)
    assert found.failures() == ["1 inbound messages still wait for a webhook"]


async def test_a_holder_that_is_cut_off_from_all_but_the_servers_is_seen_to_be_refused(
    sender: Sender, server: Upstream, world: World
) -> None:
    """Nobody can tell the former holder that it is over, and it lives on: only the fence keeps it out."""
    await sender.send("by the former")
    mark = await sender.mark()
    before = Counter(sender.log.audit.shards[0])
    await world.serve(1, 0, "6-b")

    async def over() -> bool:
        return bool((await world.report(0))["gateway_status"] == "disconnected")

    await until(over)
    await sender.send("by the next")
    await next(one for one in world.processes if one.settings.pod_name == "coreapp-0").kill()
    await world.coreapp(0)  # it resumes what it was last assigned

    async def refused() -> bool:
        return bool((await world.control("counters"))["fenced"])

    await until(refused)
    results = await sender.results(mark, ())
    found = await sender.ledger()

    shard = sender.log.audit.shards[0] - before
    assert (shard["replaced"], shard["fenced"] >= 1, results.totals.fenced >= 1) == (1, True, True)
    assert (results.totals.two_holders, results.totals.doubled, [one.by for one in results.taken]) == (0, 0, ["uid-coreapp-1"])
    assert (found.totals.below_epoch, found.totals.overlaps, found.failures()) == (0, 0, [])


async def test_a_cut_off_holder_that_no_fence_keeps_out_is_counted(
    sender: Sender, server: Upstream, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def all_may_come(*_: object) -> None:
        return None

    monkeypatch.setattr(SqliteStore, "admit", all_may_come)
    await world.serve(1, 0, "6-b")
    await world.serve(0, 0, "5-a")  # a Webapp that is cut off as well still sends to the former
    await sender.send("by the former")

    found = await sender.ledger()

    assert (found.sent, found.delivered, found.totals.below_epoch) == (1, 1, 1)
    assert found.failures() == ["1 messages were taken from a holder that had been replaced"]
