"""Whether the API server's data has gone back, by the versions of the Lease."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from whatsapp_operator.shell.kube.history import DataWentBack, History
from whatsapp_operator.shell.kube.kinds import LEASE, Kind, Obj

CALLS = ["get", "create", "replace"]


class Stored:
    """Answers each call with the version that is stored now; None: there is no Lease."""

    def __init__(self) -> None:
        self.version: Any = None

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        assert (kind, namespace, name) == (LEASE, "ns", "op")
        return None if self.version is None else self._lease()

    async def create(self, obj: Obj) -> Obj:
        return obj | self._lease()

    async def replace(self, obj: Obj) -> Obj:
        return obj | self._lease()

    async def watch(self, kind: Kind, namespace: str | None, **options: Any) -> AsyncGenerator[tuple[str, Obj]]:
        assert (kind, namespace, options) == (LEASE, "ns", {"name": "op", "server_timeout": 9})
        yield "MODIFIED", self._lease()

    def _lease(self) -> Obj:
        return {"metadata": {"name": "op", "resourceVersion": self.version}}


async def ends(*calls: tuple[str, Any]) -> str:
    """Make these calls, each answered with a version; return why the process is to end, or an empty text."""
    stored = Stored()
    history = History(stored, stored.watch)
    running = asyncio.create_task(history.run())
    for call, stored.version in calls:
        if call == "get":
            assert await history.get(LEASE, "ns", "op") == await stored.get(LEASE, "ns", "op")
        elif call == "event":
            events = [event async for event in history.watch(LEASE, "ns", name="op", server_timeout=9)]
            assert events == [("MODIFIED", stored._lease())]
        else:
            assert await getattr(history, call)({"spec": 1}) == {"spec": 1, **stored._lease()}
    _, waiting = await asyncio.wait({running}, timeout=0.01)
    if waiting:
        running.cancel()
        return ""
    with pytest.raises(DataWentBack) as ended:
        await running
    return str(ended.value)


async def test_versions_that_grow_or_stay_are_no_restore() -> None:
    assert not await ends(("get", "9"), ("replace", "10"), ("get", "10"), ("create", "1000"), ("get", "1001"))


async def test_a_lease_that_is_missing_or_has_an_odd_version_proves_nothing() -> None:
    assert not await ends(("get", "9"), ("get", None), ("get", "odd"), ("replace", None), ("get", "9"))


async def test_an_event_that_comes_late_proves_nothing() -> None:
    assert not await ends(("get", "10"), ("event", "9"), ("get", "10"))


@pytest.mark.parametrize("call", CALLS)
async def test_an_event_that_overtakes_an_answer_proves_nothing(call: str) -> None:
    """Another replica renewed the Lease while the answer was on its way."""

    class Overtaken(Stored):
        async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
            return await self._overtaken(await super().get(kind, namespace, name) or {})

        async def create(self, obj: Obj) -> Obj:
            return await self._overtaken(await super().create(obj))

        async def replace(self, obj: Obj) -> Obj:
            return await self._overtaken(await super().replace(obj))

        async def _overtaken(self, answer: Obj) -> Obj:
            self.version = "11"
            async for _ in history.watch(LEASE, "ns", name="op", server_timeout=9):
                return answer
            raise AssertionError

    stored = Overtaken()
    stored.version = "10"
    history = History(stored, stored.watch)
    running = asyncio.create_task(history.run())
    arguments: tuple[Any, ...] = (LEASE, "ns", "op") if call == "get" else ({},)
    assert (await getattr(history, call)(*arguments))["metadata"]["resourceVersion"] == "10"
    _, waiting = await asyncio.wait({running}, timeout=0.01)
    assert waiting
    running.cancel()


@pytest.mark.parametrize("first", [*CALLS, "event"])
@pytest.mark.parametrize("then", CALLS)
async def test_a_lease_that_goes_on_from_a_lower_version_ends_the_process(first: str, then: str) -> None:
    why = await ends((first, "10"), ("get", "7"), (then, "9"), ("get", "11"))
    assert "the Lease is at version 9 and was at 10. etcd was restored from a backup" in why


@pytest.mark.parametrize("then", [["7"], ["7", "7"], ["7", "6"], ["7", "10"], ["7", "11", "12"], ["7", "10", "8"]])
async def test_a_lower_version_from_which_the_lease_does_not_go_on_proves_nothing(then: list[str]) -> None:
    assert not await ends(("get", "10"), *(("get", version) for version in then))


async def test_an_event_after_a_lower_version_proves_nothing() -> None:
    assert not await ends(("get", "10"), ("get", "1"), ("event", "9"), ("get", "10"))


async def test_the_newest_version_counts_though_odd_ones_came_after_it() -> None:
    assert "was at 10" in await ends(("get", "10"), ("get", "odd"), ("get", None), ("create", "8"), ("replace", "9"))
