"""Every error that ends an observation is reported in the resource, with the generation that it is about; afterwards the loop goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from types import ModuleType, SimpleNamespace
from typing import Any, cast
from weakref import ref

import pytest

from waiting import until
from whatsapp_operator.core import report, rules
from whatsapp_operator.core.names import Key
from whatsapp_operator.shell.kube.errors import NotFound, Rejected, Unavailable
from whatsapp_operator.shell.kube.kinds import Kind, Obj
from whatsapp_operator.shell.kube.lease import Leadership
from whatsapp_operator.shell.loop.observe import Observation
from whatsapp_operator.shell.loop.outcome import Outcome
from whatsapp_operator.shell.loop.reconcile import Reconciler
from whatsapp_operator.shell.metrics import Metrics
from whatsapp_operator.shell.objects.reading import SpecError
from whatsapp_operator.shell.whatsapp.access import Access, Credentials

from .core.situations import situation

LEADS = cast("Leadership", SimpleNamespace(epoch=1))
ACME = Key("default", "acme")
GENERATION = 7


class World:
    """Stands in for all that a reconciler works with; ``fails`` is called at each observation and may raise."""

    def __init__(self) -> None:
        self.status: Obj = {}
        self.fails: Callable[[], None] = lambda: None
        self.rejects: Callable[[Obj], None] = lambda _: None
        self.uid = "u"
        self.observations = 0
        self.time = 1000.0

    def monotonic(self) -> float:
        self.time += 1.0
        return self.time

    def now(self) -> datetime:
        return datetime.now(UTC)

    def wall(self) -> datetime:
        return self.now()

    def stored(self) -> Obj:
        meta = {"namespace": "default", "name": "acme", "uid": self.uid, "resourceVersion": "1", "generation": GENERATION}
        return {"metadata": meta, "status": self.status}

    async def list(self, *_: object) -> list[Obj]:
        return [{"metadata": 7}, {}, self.stored()]

    async def get(self, *_: object) -> Obj:
        return self.stored()

    async def patch_status(self, _: Kind, __: str, ___: str, body: Obj) -> Obj:
        change = body.get("status") or {}
        self.rejects(change)
        self.status = {**self.status, **change}
        return self.stored()

    def has_lost_holders(self, *_: object) -> bool:
        return False

    async def observe(self, *_: object, **__: object) -> Observation:
        self.observations += 1
        self.fails()
        seen = situation().settled()
        snapshot = replace(seen.snapshot, status=self.status, generation=GENERATION, now=self.now())
        credentials = Credentials(country_code="1", phone_number="2")
        return Observation(replace(seen.desired, generation=GENERATION), snapshot, Access(addresses=(), server_name="webapp"), credentials)

    async def perform(self, *_: object, **__: object) -> Outcome:
        return Outcome()

    async def emit(self, *_: object) -> bool:
        return True

    def set_shards(self, *_: object) -> None: ...

    def ask_again(self, *_: object) -> None: ...

    def condition(self, kind: str) -> tuple[str, str]:
        found = (one for one in self.status.get("conditions") or () if one.get("type") == kind)
        return next(((one["status"], one["reason"]) for one in found), ("", ""))


def raising(error: BaseException) -> Callable[..., Any]:
    def fails(*_: object, **__: object) -> Any:
        raise error

    return fails


async def run(world: World, reason: str, heal: Callable[[], None]) -> None:
    """Lead until the status tells of the failure by ``reason``, heal the world, and lead until the status says that all is well."""
    fake: Any = world
    loop = Reconciler(kube=fake, observer=fake, executor=fake, clock=fake, forget=lambda _: None)
    work = asyncio.create_task(loop.run(LEADS))
    try:
        await until(lambda: world.condition("Stalled") == ("True", reason))
        assert world.condition("Ready") == ("Unknown", reason)
        assert world.status["observedGeneration"] == GENERATION
        heal()
        await until(lambda: world.condition("Ready")[0] == "True")
        assert world.condition("Stalled")[0] == "False"
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SpecError("spec.shards"), "SpecInvalid"),
        (Unavailable("list Pod default: 500"), "ReadFailed"),
        (RuntimeError("oops"), "InternalError"),
        (ExceptionGroup("several", [RuntimeError("oops")]), "InternalError"),
    ],
    ids=lambda one: type(one).__name__,
)
async def test_an_observation_that_fails_is_emitted(error: BaseException, reason: str) -> None:
    world = World()
    world.fails = raising(error)

    await run(world, reason, heal=lambda: setattr(world, "fails", lambda: None))


@pytest.mark.parametrize("error", [Unavailable("list Pod default: 500"), RuntimeError("oops")])
async def test_a_failure_that_lasts_is_logged_once_a_minute(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Each of very many clusters fails every second or so while the API server is away."""

    def logged() -> list[logging.LogRecord]:
        """Not what a thread of a library logs that an earlier test started."""
        return [record for record in caplog.records if record.name.startswith("whatsapp_operator.")]

    world = World()
    world.fails = raising(error)
    fake: Any = world
    loop = Reconciler(kube=fake, observer=fake, executor=fake, clock=fake, forget=lambda _: None)
    work = asyncio.create_task(loop.run(LEADS))
    try:
        await until(lambda: world.observations >= 3)
        assert [record.name for record in logged()] == ["whatsapp_operator.shell.loop.cluster_loop"]
        world.time += 60.0
        loop.wake(ACME)
        await until(lambda: len(logged()) == 2)
        world.fails = lambda: None
        loop.wake(ACME)
        await until(lambda: world.condition("Ready")[0] == "True")
        world.fails = raising(error)
        loop.wake(ACME)
        await until(lambda: len(logged()) == 3)
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


@pytest.mark.parametrize(("module", "part"), [(rules, "facts"), (rules, "plan_of"), (report, "report")], ids=["facts", "plan", "report"])
async def test_an_error_in_plan_or_report_is_emitted(module: ModuleType, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, part, raising(RuntimeError("oops")))

    await run(World(), "InternalError", heal=monkeypatch.undo)


async def test_a_status_that_the_api_server_rejects_is_emitted() -> None:
    world = World()

    def rejects(change: Obj) -> None:
        if "shardMap" in change:
            raise Rejected("patch status WhatsAppCluster default/acme: 422 Invalid: status.shardMap[1]: Duplicate value", code=422)

    world.rejects = rejects

    await run(world, "StatusRejected", heal=lambda: setattr(world, "rejects", lambda _: None))


@pytest.mark.parametrize(("uid", "errors"), [(situation().desired.uid, 1), ("of its successor", 0)], ids=["its own", "of another"])
async def test_that_a_cluster_has_no_status_to_write_is_counted_and_logged(uid: str, errors: int, caplog: pytest.LogCaptureFixture) -> None:
    """As with a CRD without the subresource: nothing can be said in the resource then."""
    world, metrics = World(), Metrics()
    world.uid, world.rejects = uid, raising(NotFound("patch status WhatsAppCluster default/acme: 404 NotFound: not found"))
    fake: Any = world
    loop = Reconciler(kube=fake, observer=fake, executor=fake, clock=fake, forget=lambda _: None, metrics=metrics)
    work = asyncio.create_task(loop.run(LEADS))
    try:
        await until(lambda: world.observations >= 2)
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    counted = metrics.registry.get_sample_value("multiconnect_reconcile_errors_total", {"reason": "StatusRejected"})
    assert min(counted or 0, 1) == errors
    assert ("default/acme: patch status" in caplog.text) == bool(errors)


@pytest.mark.parametrize("status", [{"conditions": 7}, {"conditions": [7]}, {"conditions": {"x": 1}}, {"reason": []}])
async def test_a_status_that_cannot_be_read_ends_no_loop(status: Obj) -> None:
    world = World()
    world.status = status
    world.fails = raising(RuntimeError("oops"))
    fake: Any = world
    loop = Reconciler(kube=fake, observer=fake, executor=fake, clock=fake, forget=lambda _: None)
    work = asyncio.create_task(loop.run(LEADS))
    await until(lambda: world.observations >= 3)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def test_a_loop_whose_awaited_call_is_cancelled_begins_again() -> None:
    world = World()
    world.fails = raising(asyncio.CancelledError())
    fake: Any = world
    loop = Reconciler(kube=fake, observer=fake, executor=fake, clock=fake, forget=lambda _: None)
    work = asyncio.create_task(loop.run(LEADS))
    try:
        await until(lambda: world.observations >= 3)
        world.fails = lambda: None
        await until(lambda: world.condition("Ready")[0] == "True")
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def led_until(world: World, holds: Callable[[], bool]) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """Lead, woken again and again, until this holds; return what the loop has kept of the status that it wrote."""
    fake: Any = world
    loop = Reconciler(kube=fake, observer=fake, executor=fake, clock=fake, forget=lambda _: None)
    work = asyncio.create_task(loop.run(LEADS))

    def woken() -> bool:
        loop.wake(ACME)
        return holds()

    try:
        await until(woken)
        return loop._clusters[ACME].reported
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def test_no_copy_is_kept_of_a_status_that_was_stored_whole() -> None:
    world = World()
    assert await led_until(world, lambda: world.condition("Ready")[0] == "True") is None


async def test_a_status_of_which_a_part_is_dropped_is_written_once() -> None:
    world = World()
    writes: list[Obj] = []

    def drops(change: Obj) -> None:
        writes.append({**change})
        change.pop("url", None)

    world.rejects = drops
    kept = await led_until(world, lambda: world.observations >= 3)
    assert kept is not None
    assert ("url" in kept[0], "url" in kept[1]) == (True, False)
    assert len(writes) == 1


class Traced(Observation):
    """One of which it can be said whether it is still held."""

    __slots__ = ("__weakref__",)


async def test_no_observation_is_held_until_the_next_one_of_its_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    observe, made, held = world.observe, list[ref[Traced]](), set[bool]()

    async def traced(*_: object, **__: object) -> Observation:
        held.update(one() is not None for one in made)
        observation = await observe()
        one = Traced(*(getattr(observation, field.name) for field in fields(Observation)))
        made.append(ref(one))
        return one

    async def perform(*_: object, **__: object) -> Outcome:
        return Outcome(wrote=True)

    monkeypatch.setattr(world, "observe", traced)
    monkeypatch.setattr(world, "perform", perform)
    await led_until(world, lambda: world.observations >= 3)
    assert held == {False}
