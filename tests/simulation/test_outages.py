"""What watches lose while the API server is away, and how their client finds out."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from random import Random
from typing import Any

import pytest

from whatsapp_operator.shell.kube.errors import Expired, Unavailable
from whatsapp_operator.shell.kube.kinds import SECRET

from . import virtual
from .apiserver import ApiServer
from .kube import SimKube
from .network import Network
from .world import NAME, NAMESPACE, World, simulated


def secret(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": NAMESPACE, "name": name}}


def a_client(loop: virtual.VirtualLoop) -> tuple[ApiServer, SimKube, Network]:
    server, network = ApiServer(loop.time), Network()
    return server, SimKube(server, actor="client", rng=Random(1), network=network), network


@simulated()
async def test_an_operator_hears_of_nothing_while_the_api_server_is_away_and_of_it_afterwards(world: World) -> None:
    world.create()
    operator = world.operator()
    responses: list[str | None] = []
    event = operator._event

    def note(kind: Any, obj: dict[str, Any], gone: bool) -> None:
        if obj["metadata"]["name"] == NAME:
            responses.append((obj["metadata"].get("annotations") or {}).get("multiconnect.dev/note"))
        event(kind, obj, gone)

    operator._event = note  # type: ignore[method-assign]
    operator.lead(1)
    await world.until_done()
    world.network.down = True
    world.annotate(note="meanwhile")
    await world.pause(5.0)
    assert "meanwhile" not in responses
    world.network.clear()
    await world.until(lambda: "meanwhile" in responses, within=10, what="the operator hears what it missed")


def test_a_watch_that_an_outage_cuts_goes_on_where_it_ended() -> None:
    async def main(loop: virtual.VirtualLoop) -> None:
        server, client, network = a_client(loop)
        made = server.create("user", secret("a"))
        async with aclosing(client.watch(SECRET, None, resource_version=made["metadata"]["resourceVersion"])) as events:
            loop.call_later(1.0, server.create, "user", secret("b"))
            assert (await anext(events))[1]["metadata"]["name"] == "b"
            network.down = True
            server.create("user", secret("c"))
            with pytest.raises(Unavailable):
                await anext(events)
        network.clear()
        since = server.get(SECRET, (NAMESPACE, "b")) or {}
        async with aclosing(client.watch(SECRET, None, resource_version=since["metadata"]["resourceVersion"])) as events:
            assert (await anext(events))[1]["metadata"]["name"] == "c"

    virtual.run(main)


def test_a_watch_from_before_what_the_server_remembers_gets_410() -> None:
    async def main(loop: virtual.VirtualLoop) -> None:
        server, client, _ = a_client(loop)
        first = server.create("user", secret("a"))
        for number in range(1000):
            server.merge("user", SECRET, (NAMESPACE, "a"), {"metadata": {"annotations": {"n": str(number)}}})
        loop.passed += 100
        server.create("user", secret("b"))
        async with aclosing(client.watch(SECRET, None, resource_version=first["metadata"]["resourceVersion"])) as events:
            with pytest.raises(Expired):
                await anext(events)

    virtual.run(main)


def test_after_a_410_everything_is_listed_and_nobody_tells_what_was_deleted() -> None:
    async def main(loop: virtual.VirtualLoop) -> None:
        server, client, network = a_client(loop)
        assigned: list[tuple[str, bool]] = []
        for name in ("a", "b"):
            server.create("user", secret(name))
        follow = loop.create_task(
            client.follow(SECRET, lambda obj, gone: assigned.append((obj["metadata"]["name"], gone)), lag=lambda: 0.0)
        )
        await asyncio.sleep(1.0)
        assert assigned == [("a", False), ("b", False)]
        network.down = True
        server.delete("user", SECRET, (NAMESPACE, "a"))
        await asyncio.sleep(1.0)
        server.forget(SECRET)
        network.clear()
        await asyncio.sleep(20.0)
        assert assigned == [("a", False), ("b", False), ("b", False)]
        server.delete("user", SECRET, (NAMESPACE, "b"))
        await asyncio.sleep(1.0)
        assert assigned[3:] == [("b", True)]
        follow.cancel()

    virtual.run(main)
