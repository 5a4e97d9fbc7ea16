"""Kopf's handlers: what they watch, and what is urgent."""

import asyncio
from typing import Any

import kopf
import pytest

from whatsapp_operator.core.names import Key, Obj
from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.watch import handlers
from whatsapp_operator.shell.watch.health import WatchHealth

OWNER = {"name": "acme-coreapp", "uid": "sts", "controller": True}
PART: Obj = {
    "metadata": {"name": "acme-coreapp-0", "labels": {"multiconnect.dev/cluster": "acme"}, "ownerReferences": [OWNER]},
}


class Listener:
    """Hears which loops are woken, and is the witness."""

    def __init__(self) -> None:
        self.woken: list[tuple[Key, bool]] = []

    def wake(self, key: Key, *, is_urgent: bool = True) -> None:
        self.woken.append((key, is_urgent))

    def note_cluster(self, obj: Obj, *, gone: bool) -> None: ...

    def note_pod(self, obj: Obj, *, gone: bool) -> None: ...

    def note_service(self, obj: Obj, *, gone: bool) -> None: ...


def registered_for(listener: Listener) -> list[Any]:
    """The functions that Kopf calls with an event."""

    async def login() -> kopf.AiohttpSession:
        raise AssertionError

    found = handlers.registry(listener.wake, login, listener, deliver=lambda call: call())
    return [handler.fn for handler in found._watching.get_all_handlers()]


@pytest.mark.parametrize(("kind", "is_urgent"), [(None, False), ("ADDED", True), ("MODIFIED", True), ("DELETED", True)])
async def test_a_list_is_less_urgent_than_an_event(kind: str | None, is_urgent: bool) -> None:
    listener = Listener()

    registered = registered_for(listener)
    for handle in registered:
        await handle(namespace="default", name="acme", event={"type": kind, "object": PART})
    assert len(registered) == 4
    assert listener.woken == [(Key("default", "acme"), is_urgent)] * 4


async def test_an_object_is_passed_on_whole_and_kopf_keeps_its_metadata_alone() -> None:
    """Kopf's views of an object hold each other: a list of very many objects would be held until a garbage collection."""
    noted: list[Obj] = []

    class Noting(Listener):
        def note_pod(self, obj: Obj, *, gone: bool) -> None:
            noted.append(obj)

        note_cluster = note_service = note_pod

    listener = Noting()

    registered = registered_for(listener)
    for handle in registered:
        metadata = {**PART["metadata"], "managedFields": [{"manager": "kubelet"}]}
        event = {"type": None, "object": {"kind": "Pod", "metadata": metadata, "spec": {"nodeName": "n"}, "status": {"podIP": "10.0.0.1"}}}
        await handle(namespace="default", name="acme", event=event)
        assert event["object"] == {"kind": "Pod", "metadata": PART["metadata"]}
    assert [(obj["metadata"]["name"], obj["spec"], obj["status"]) for obj in noted] == [
        ("acme-coreapp-0", {"nodeName": "n"}, {"podIP": "10.0.0.1"})
    ] * 3


@pytest.mark.parametrize("cluster", ["Foo_Bar", "", "acme"])
async def test_a_foreign_object_wakes_no_loop(cluster: str) -> None:
    listener = Listener()
    registered = registered_for(listener)
    theirs = {"metadata": {"name": "debug", "labels": {"multiconnect.dev/cluster": cluster}, "ownerReferences": [OWNER]}}
    for handle in registered:
        await handle(namespace="default", name=None, event={"type": "MODIFIED", "object": theirs})
    assert listener.woken == []


def test_lists_come_in_parts_and_without_other_peoples_objects() -> None:
    chosen = handlers.settings().watching
    assert chosen.chunk_size
    assert len(chosen.label_selectors) == 3
    assert {*chosen.label_selectors.values()} == {"multiconnect.dev/cluster"}


async def test_kopf_remembers_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    async def spawn_tasks(**options: Any) -> list[asyncio.Task[None]]:
        given.update(options)
        return [asyncio.create_task(asyncio.sleep(0))]

    monkeypatch.setattr(kopf, "spawn_tasks", spawn_tasks)
    listener = Listener()
    login = handlers.Login(lambda: kopf.ConnectionInfo(server=""), health=WatchHealth(SystemClock()), names={})
    await handlers.watch(lambda call: call(), wake=listener.wake, sink=listener, login=login, namespaces=(), identity="one")
    memories = given["memories"]
    for kind in ("listed", "new"):
        await memories.recall({"metadata": {"uid": kind}}, noticed_by_listing=kind == "listed", memobase=kopf.Memo())
    assert [*memories.iter_all_memories()] == []


def test_no_object_is_copied_to_be_compared() -> None:
    storage = handlers.settings().persistence.diffbase_storage
    assert storage.build(body=kopf.Body({"metadata": {}, "spec": {"shards": 2}})) == {}
