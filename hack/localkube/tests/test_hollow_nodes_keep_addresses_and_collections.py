"""No two hollow processes share an address; a mirrored collection loses nothing when its watch ends."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any, cast

import pytest

from localkube.errors import LocalKubeError
from localkube.hollow import addresses as module
from localkube.hollow.addresses import CLAIM_PORT, Addresses, of_node
from localkube.hollow.kube import Kube, Mirror, NoAnswerError, RefusedError
from waiting import until

Obj = dict[str, Any]


def test_two_processes_never_share_a_range() -> None:
    with closing(Addresses()) as first, closing(Addresses()) as second:
        assert first.network != second.network


def test_an_address_is_given_out_once_and_not_soon_again() -> None:
    with closing(Addresses()) as addresses:
        first = addresses.take()
        addresses.give_back(first)
        second = addresses.take()

        assert first != second
        assert of_node(0) != of_node(1)


def test_an_address_where_a_port_is_taken_is_passed_over() -> None:
    with closing(Addresses()) as addresses:
        taken = str(addresses.network[2])
        with socket.create_server((taken, 6253)):
            assert addresses.take() == str(addresses.network[3])


def test_ranges_that_are_all_taken_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RANGES", [ipaddress.IPv4Network("127.202.0.0/29")])
    with socket.create_server(("127.202.0.1", CLAIM_PORT)), pytest.raises(LocalKubeError, match="are taken by other hollow nodes"):
        Addresses()
    with closing(Addresses()) as small:
        assert {small.take() for _ in range(5)} == {f"127.202.0.{number}" for number in range(2, 7)}, "the first is the claim"
        with pytest.raises(LocalKubeError, match="no free address left"):
            small.take()


class FakeCollection:
    """An API server's list and watch, scripted."""

    def __init__(self) -> None:
        self.objects: list[Obj] = []
        self.lists = 0
        self.script: asyncio.Queue[tuple[str, Obj] | Exception] = asyncio.Queue()
        self.asked: list[str] = []

    async def get(self, path: str) -> Obj:
        self.lists += 1
        return {"items": self.objects, "metadata": {"resourceVersion": "10"}}

    async def watch(self, path: str, version: str, selector: str) -> AsyncIterator[tuple[str, Obj]]:
        self.asked.append(version)
        while True:
            step = await self.script.get()
            if isinstance(step, Exception):
                raise step
            yield step


def named(name: str, uid: str = "u", version: str = "11") -> Obj:
    return {"metadata": {"namespace": "ns", "name": name, "uid": uid, "resourceVersion": version}}


@asynccontextmanager
async def mirrored(collection: FakeCollection) -> AsyncIterator[list[tuple[str, str, str]]]:
    async with mirror_of(collection) as (_, seen):
        yield seen


@asynccontextmanager
async def mirror_of(collection: FakeCollection) -> AsyncIterator[tuple[Mirror, list[tuple[str, str, str]]]]:
    seen: list[tuple[str, str, str]] = []
    mirror = Mirror(cast("Kube", collection), "/x", lambda kind, obj: seen.append((kind, obj["metadata"]["name"], obj["metadata"]["uid"])))
    task = asyncio.create_task(mirror.run())
    try:
        yield mirror, seen
    finally:
        task.cancel()


async def test_a_mirror_goes_on_from_the_last_version_after_a_break() -> None:
    collection = FakeCollection()
    for step in (("ADDED", named("a", version="12")), ("BOOKMARK", named("", version="20")), NoAnswerError("broken")):
        collection.script.put_nowait(step)
    async with mirrored(collection) as seen:
        await until(lambda: len(collection.asked) == 2)

        assert seen == [("ADDED", "a", "u")]
        assert collection.asked == ["10", "20"]
        assert collection.lists == 1


async def test_a_mirror_lists_again_when_its_version_is_too_old_and_finds_what_went() -> None:
    collection = FakeCollection()
    collection.objects = [named("a"), named("b")]
    async with mirrored(collection) as seen:
        await until(lambda: len(seen) == 2)
        collection.objects = [named("b", uid="u2")]
        collection.script.put_nowait(RefusedError("WATCH", 410, "Expired", "too old"))
        await until(lambda: collection.lists == 2)

        assert seen[2:] == [("DELETED", "a", "u"), ("DELETED", "b", "u"), ("MODIFIED", "b", "u2")]


async def test_a_mirror_holds_the_same_objects_by_namespace() -> None:
    collection = FakeCollection()
    other = named("a")
    other["metadata"]["namespace"] = "other"
    collection.objects = [named("a"), named("b"), other]
    for step in (("DELETED", named("a")), ("MODIFIED", named("b", version="12")), ("ADDED", named("c"))):
        collection.script.put_nowait(step)
    async with mirror_of(collection) as (mirror, seen):
        await until(lambda: len(seen) == 6)

        assert {namespace: list(objects) for namespace, objects in mirror.by_namespace.items()} == {"ns": ["b", "c"], "other": ["a"]}
        assert mirror.by_namespace["ns"]["b"] is mirror.items["ns", "b"]
        assert mirror.by_namespace["ns"]["b"]["metadata"]["resourceVersion"] == "12"
