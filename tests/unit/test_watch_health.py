"""Which watches are connected, which are cut off, and which nothing tends any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from whatsapp_operator.shell.kube.errors import Unavailable
from whatsapp_operator.shell.kube.kinds import LEASE, NODE, Kind, Obj
from whatsapp_operator.shell.watch.health import TendedReads, WatchHealth, name_of

from .manual_clock import ManualClock


def a_health(clock: ManualClock) -> WatchHealth:
    health = WatchHealth(clock)
    health.expect("pods", essential=True)
    health.expect("nodes", essential=False)
    return health


def test_a_watch_is_connected_while_its_newest_stream_is_open() -> None:
    clock, open_ = ManualClock(), True
    health = a_health(clock)
    health.connected("pods", lambda: open_)
    clock.at += 1000
    assert health.seconds_cut_off() == {"pods": 0, "nodes": 1000}
    assert health.cut_off() is None
    open_ = False
    clock.at += 5
    assert health.seconds_cut_off()["pods"] == 5
    assert health.cut_off() == "not connected to pods"
    health.connected("pods", lambda: True)
    assert health.cut_off() is None


def test_which_essential_watches_were_never_connected() -> None:
    clock = ManualClock()
    health = a_health(clock)
    assert health.never_connected() == "not connected to pods yet"
    health.tended("pods")
    assert health.never_connected() == "not connected to pods yet", "an attempt is no connection"
    health.rejected("pods")
    assert health.never_connected() == "the API server rejects the watch of pods"
    health.connected("pods", lambda: False)
    clock.at += 1000
    assert health.never_connected() is None, "once is enough"


def test_a_watch_that_was_never_allowed_in_one_namespace_counts_as_seen_if_another_one_is_connected() -> None:
    clock = ManualClock()
    health = WatchHealth(clock)
    for name in ("pods in a", "pods in b"):
        health.expect(name, essential=True)
    health.rejected("pods in a")
    assert health.never_connected() == "not connected to pods in b yet"
    clock.at += 10
    assert health.never_connected() == "the API server rejects the watch of pods in a"
    health.connected("pods in b", lambda: True)
    assert health.never_connected() is None


def in_namespaces(clock: ManualClock) -> WatchHealth:
    """Two watches of pods in namespaces, and one of Services; the first of pods was rejected."""
    health = WatchHealth(clock)
    for name in ("pods in a", "pods in b", "services in a"):
        health.expect(name, essential=True)
        health.connected(name, lambda: True)
    health.connected("pods in a", lambda: False)
    health.rejected("pods in a")
    clock.at += 10
    return health


def test_a_watch_that_is_rejected_in_one_namespace_counts_as_long_as_another_one_is_not() -> None:
    clock = ManualClock()
    health = in_namespaces(clock)
    assert (health.cut_off(), health.seconds_dead(["pods in a", "pods in b"])) == (None, 0)
    assert health.seconds_cut_off() == {"pods in a": 10, "pods in b": 0, "services in a": 0}, "it is shown"
    health.connected("pods in b", lambda: False)
    clock.at += 5
    assert health.cut_off() == "not connected to pods in a, pods in b"
    assert health.seconds_dead(["pods in a", "pods in b"]) == 15


def test_a_watch_that_breaks_in_one_namespace_counts_although_others_do_not() -> None:
    clock = ManualClock()
    health = in_namespaces(clock)
    health.connected("pods in a", lambda: False)
    clock.at += 5
    assert (health.cut_off(), health.seconds_dead(["pods in a"])) == ("not connected to pods in a", 5)


def test_a_watch_of_another_kind_excuses_no_rejected_one() -> None:
    clock = ManualClock()
    health = in_namespaces(clock)
    health.connected("services in a", lambda: False)
    health.rejected("services in a")
    clock.at += 5
    assert health.cut_off() == "not connected to services in a"


def test_a_short_gap_between_two_streams_is_nothing() -> None:
    clock = ManualClock()
    health = a_health(clock)
    health.connected("pods", lambda: False)
    clock.at += 2.9
    assert health.cut_off() is None
    clock.at += 0.2
    assert health.cut_off() == "not connected to pods"


def test_a_watch_that_never_came_up_is_cut_off_too() -> None:
    clock = ManualClock()
    health = a_health(clock)
    clock.at += 4
    assert health.cut_off() == "not connected to pods"


def test_a_refused_watch_is_cut_off_but_not_stalled() -> None:
    """The next process would be rejected too."""
    clock = ManualClock()
    health = a_health(clock)
    for _ in range(30):
        clock.at += 5
        health.tended("pods")
        health.tended("nodes")
    assert health.cut_off() == "not connected to pods"
    assert health.stalled() is None


@pytest.mark.parametrize("name", ["pods", "nodes"])
def test_a_watch_that_nothing_tends_is_stalled_whichever_it_is(name: str) -> None:
    clock = ManualClock()
    health = a_health(clock)
    for _ in range(13):
        clock.at += 5
        health.tended("nodes" if name == "pods" else "pods")
    assert health.stalled() == f"nothing has watched {name} for 65 s"
    health.tended(name)
    assert health.stalled() is None


def test_what_is_not_expected_is_not_kept() -> None:
    health = a_health(ManualClock())
    health.tended("secrets")
    health.connected("secrets")
    assert set(health.seconds_cut_off()) == {"pods", "nodes"}


class Server:
    """Answers lists, and gives one stream of what the test sets."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[Obj | Exception | None] = asyncio.Queue()
        self.closed = False

    async def list_to_watch(self, kind: Kind, namespace: str | None) -> tuple[list[Obj], str]:
        line = await self.lines.get()
        if isinstance(line, Exception):
            raise line
        return [], "1"

    async def watch(self, kind: Kind, namespace: str | None, **options: Any) -> AsyncGenerator[tuple[str, Obj]]:
        try:
            while (line := await self.lines.get()) is not None:
                if isinstance(line, Exception):
                    raise line
                yield "ADDED", line
        finally:
            self.closed = True


async def test_lists_events_and_ends_in_good_order_show_that_a_watch_is_connected() -> None:
    clock, server = ManualClock(), Server()
    health = a_health(clock)
    reads = TendedReads(server, health)

    clock.at += 10
    server.lines.put_nowait({})
    await reads.list_to_watch(NODE, None)
    assert health.seconds_cut_off()["nodes"] == 0
    async with aclosing(reads.watch(NODE, None, resource_version="1", server_timeout=25)) as events:
        clock.at += 10
        server.lines.put_nowait({})
        assert await anext(events) == ("ADDED", {})
        assert health.seconds_cut_off()["nodes"] == 0
        clock.at += 25
        server.lines.put_nowait(None)
        assert await anext(events, None) is None
        assert health.seconds_cut_off()["nodes"] == 0


async def test_a_refusal_shows_only_that_a_watch_is_tended() -> None:
    clock, server = ManualClock(), Server()
    health = a_health(clock)
    reads = TendedReads(server, health)
    for _ in range(13):
        clock.at += 5
        health.tended("pods")
        server.lines.put_nowait(Unavailable("no", code=500))
        with pytest.raises(Unavailable):
            await reads.list_to_watch(NODE, None)
    assert health.seconds_cut_off()["nodes"] == 65
    assert health.stalled() is None


async def test_a_stream_that_is_closed_early_is_closed_at_the_server_too() -> None:
    server = Server()
    reads = TendedReads(server, a_health(ManualClock()))
    server.lines.put_nowait({})
    async with aclosing(reads.watch(NODE, None)) as events:
        await anext(events)
    assert server.closed


def test_watches_of_one_kind_are_distinguished_by_namespace() -> None:
    assert name_of(LEASE, "kube-node-lease") == "leases in kube-node-lease"
    assert name_of(NODE, None) == "nodes"
