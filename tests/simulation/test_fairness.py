"""One cluster that misbehaves next to many that do not: the failovers of those wait no longer. Time is virtual, so the spans are exact.

The real loop, planner and executor; the API server is a number of connections on which every call takes its time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from unit.core import situations, witnesses
from whatsapp_operator.core.desired import Desired, Tuning
from whatsapp_operator.core.names import Key, Obj, Ref
from whatsapp_operator.core.snapshot import Snapshot
from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.coreapps.schedule import ProbeResult
from whatsapp_operator.shell.kube.errors import Conflict, Rejected, Unavailable
from whatsapp_operator.shell.kube.kinds import EVENT, SERVICE, WAC, Kind, kind_of
from whatsapp_operator.shell.kube.lease import Leadership
from whatsapp_operator.shell.loop.execute import Executor
from whatsapp_operator.shell.loop.handover import Handovers
from whatsapp_operator.shell.loop.observe import Observation
from whatsapp_operator.shell.loop.reconcile import Reconciler
from whatsapp_operator.shell.metrics import Metrics
from whatsapp_operator.shell.objects.reading import desired_of
from whatsapp_operator.shell.whatsapp.access import Access, Credentials

from . import virtual
from .virtual import MachineClocks, VirtualLoop

NEIGHBOURS = 200
FAILOVERS = 100
EVERY = 0.137
"""Seconds between two failovers of neighbours."""
OBSERVATION_BURST, OBSERVATIONS_PER_SECOND = 30, 10
"""How often a cluster may be observed at most."""
CONNECTIONS = 100
"""Of the operator's client to the API server: no more than that has."""
CALL = 0.01
"""Seconds that a call takes."""
READS = 7
"""Calls of one observation, side by side."""
NAME = "acme"
"""Of every cluster, as the snapshots of the tests have it; each lies in a namespace of its own, by which it is known."""
BAD = Key("bad", NAME)
ACCESS = Access(addresses=("10.0.0.1:8443",), server_name="webapp")


@dataclass
class ObservedCluster:
    """One cluster as its observations show it."""

    case: situations.Situation
    annotations: Mapping[str, str] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    since: dict[str, Any] = field(default_factory=dict)
    fails: bool = False
    """Its observations fail."""
    conflicts: bool = False
    """Another writer always writes the resource first."""
    failed_at: float | None = None
    """Since when the holder of shard 0 is gone."""
    kept: dict[Ref, Obj] | None = None
    desired: Desired | None = None
    """As it was last observed."""

    def objects_of(self, desired: Desired) -> dict[Ref, Obj]:
        """Its objects, under its own uid and in its own namespace, as they should be."""
        if self.kept is None:
            self.kept = dict(situations.Situation(desired, self.case.snapshot).kept().snapshot.objects)
        return self.kept


class Api:
    """The API server, and all that a reconciler needs in addition."""

    def __init__(self, loop: VirtualLoop, tenants: dict[Key, ObservedCluster]) -> None:
        self.loop = loop
        machine = MachineClocks(loop)
        self.clock = SystemClock(wall=machine.wall, seconds=machine.seconds)
        self.tenants = tenants
        self.refuses_events_of: set[str] = set()
        self.calls: Counter[str] = Counter()
        self.took: list[float] = []
        self.tokens_at: set[Key] = set()
        self._free = asyncio.Semaphore(CONNECTIONS)

    async def call(self, namespace: str) -> None:
        self.calls[namespace] += 1
        async with self._free:
            await asyncio.sleep(CALL)

    # --- the observer

    def has_lost_holders(self, *_: object) -> bool:
        return False

    async def observe(self, key: Key, memory: Any, *, nonce: str, leader_epoch: int, from_cache: bool) -> Observation:
        await asyncio.gather(*(self.call(key.namespace) for _ in range(READS)))
        self.tokens_at.add(key)
        tenant = self.tenants[key]
        if tenant.fails:
            raise Unavailable("list Pod: HTTP 500", code=500)
        meta = {"namespace": key.namespace, "name": key.name, "uid": f"uid-{key.namespace}", "annotations": tenant.annotations}
        read = desired_of(self.resource(key, meta), image="sim:1", tuning=Tuning())
        case = tenant.case.holder_deleted(0) if tenant.failed_at is not None else tenant.case
        desired: Desired = replace(
            case.desired,
            key=key,
            uid=read.uid,
            reshard_now=read.reshard_now,
            switchovers=read.switchovers,
            switchover_text=read.switchover_text,
            switchover_problem=read.switchover_problem,
        )
        if tenant.desired != desired:
            tenant.desired = desired
        # The real observer, too, uses the last one again while it is the same, with what was derived from it.
        desired = tenant.desired
        now = self.clock.now()
        client = replace(case.snapshot.client, asked_at=now if case.snapshot.client.asked_at is not None else None)
        snapshot: Snapshot = replace(
            case.snapshot,
            now=now,
            nonce=nonce,
            status=tenant.status,
            since=dict(memory.since),
            client=client,
            objects=tenant.objects_of(desired),
        )
        return Observation(desired, snapshot, ACCESS, Credentials(country_code="1", phone_number="6315550000"))

    @staticmethod
    def resource(key: Key, meta: dict[str, Any]) -> dict[str, Any]:
        return {"metadata": meta, "spec": {"shards": 2, "client": {"type": "Simulator"}}}

    # --- Kubernetes

    async def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
        await self.call(namespace)
        meta = {"namespace": namespace, "name": name, "uid": f"uid-{namespace}", "resourceVersion": "1", "generation": 3}
        return {**self.resource(Key(namespace, name), meta), "status": self.tenants[Key(namespace, name)].status}

    async def list(self, kind: Kind, *_: object) -> list[dict[str, Any]]:
        return [{"metadata": {"namespace": key.namespace, "name": key.name}} for key in self.tenants]

    async def create(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        namespace = obj["metadata"]["namespace"]
        await self.call(namespace)
        if kind_of(obj) is EVENT and namespace in self.refuses_events_of:
            raise Rejected("create Event: HTTP 403", code=403, reason="Forbidden")
        return {**obj, "metadata": {**obj["metadata"], "resourceVersion": "1"}}

    async def replace(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        await self.call(str(obj["metadata"]["namespace"]))
        return {**obj}

    async def patch_json(self, _kind: Kind, namespace: str, _name: str, _ops: object) -> dict[str, Any]:
        await self.call(namespace)
        return {}

    async def patch_merge(self, kind: Kind, namespace: str, name: str, _body: object) -> dict[str, Any]:
        await self.call(namespace)
        if kind is WAC and self.tenants[Key(namespace, name)].conflicts:
            raise Conflict("patch WhatsAppCluster: HTTP 409", code=409)
        if kind is SERVICE:
            # Handovers of good clusters one at a time: whose it is follows from who waits for it.
            return {"metadata": {"name": name, "uid": "", "resourceVersion": "1"}, "spec": {}}
        return {}

    async def patch_status(self, _kind: Kind, namespace: str, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        await self.call(namespace)
        tenant = self.tenants[Key(namespace, name)]
        if tenant.conflicts:
            raise Conflict("patch WhatsAppCluster: HTTP 409", code=409)
        tenant.status = {key: value for key, value in {**tenant.status, **body["status"]}.items() if value is not None}
        return {"status": tenant.status}

    # --- Coreapps and the client

    async def assign(self, _message: object) -> bool:
        return True

    def result_of(self, _uid: str) -> ProbeResult:
        return ProbeResult()

    def ask(self, *_: object, **__: object) -> None:
        """Nobody answers."""


class NotingHandovers(Handovers):
    """The real ones; a handover of a tenant ends its failure."""

    api: Api

    async def _commit(self, observation: Observation, one: Any, memory: Any, timeline: Any) -> None:
        await super()._commit(observation, one, memory, timeline)
        tenant = self.api.tenants[observation.desired.key]
        if tenant.failed_at is not None:
            self.api.took.append(self.api.loop.time() - tenant.failed_at)
            tenant.failed_at = None


def names() -> Iterator[Key]:
    yield from (Key(f"good-{number:03}", NAME) for number in range(NEIGHBOURS))


def spans(bad: dict[Key, ObservedCluster], *, wakes: float | None = None, refuses_events: bool = False) -> tuple[list[float], Counter[str]]:
    """Return how long each failover of the neighbours took, and the calls by cluster. ``wakes``: the bad ones are woken so often."""

    async def main(loop: VirtualLoop) -> tuple[list[float], Counter[str]]:
        api = Api(loop, {**{key: ObservedCluster(situations.situation().settled()) for key in names()}, **bad})
        if refuses_events:
            api.refuses_events_of = {key.namespace for key in bad}
        client: Any = api
        executor = Executor(kube=client, clients=client, coreapps=client, clock=api.clock, identity="operator-0")
        executor._handovers = noting = NotingHandovers(client, client, clock=api.clock, metrics=Metrics(), tracing=None)
        noting.api = api
        reconciler = Reconciler(
            kube=client, observer=client, executor=executor, clock=api.clock, forget=lambda _: None, nonce=lambda: "n0nce"
        )
        work = asyncio.create_task(reconciler.run(cast("Leadership", SimpleNamespace(epoch=1))))

        async def disturb(pause: float) -> None:
            while True:
                for key in bad:
                    reconciler.wake(key)
                await asyncio.sleep(pause)

        await asyncio.sleep(5.0)
        assert api.tokens_at == set(api.tenants), "all have been observed for the first time"
        noise = asyncio.create_task(disturb(wakes)) if wakes is not None else None
        for key in bad:
            reconciler.wake(key)
        await asyncio.sleep(1.0)
        good = [*names()]
        api.calls.clear()
        for number in range(FAILOVERS):
            key = good[number % NEIGHBOURS]
            tenant = api.tenants[key]
            assert tenant.failed_at is None, f"{key} waits still"
            tenant.failed_at = loop.time()
            reconciler.wake(key)
            await asyncio.sleep(EVERY)
        for task in (work, noise):
            if task is not None:
                task.cancel()
        await asyncio.gather(work, *([noise] if noise else []), return_exceptions=True)
        return api.took, api.calls

    return virtual.run(main)


def p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


def switching(text: str) -> dict[Key, ObservedCluster]:
    return {BAD: ObservedCluster(situations.situation().settled(), annotations={"multiconnect.dev/switchover": text}, conflicts=True)}


MISBEHAVIOURS: dict[str, Callable[[], tuple[list[float], Counter[str]]]] = {
    "an annotation of ten kilobytes": lambda: spans(switching("99," * 3400)),
    "a number of 4301 digits": lambda: spans(
        {BAD: ObservedCluster(situations.situation().settled(), annotations={"multiconnect.dev/reshard-now": "9" * 4301})}
    ),
    "written all the time": lambda: spans({BAD: ObservedCluster(witnesses.growing().wanting(paused=True), conflicts=True)}, wakes=0.01),
    "Events rejected": lambda: spans({BAD: ObservedCluster(witnesses.growing().wanting(paused=True))}, wakes=0.075, refuses_events=True),
    "failing observations": lambda: spans({BAD: ObservedCluster(situations.situation().settled(), fails=True)}, wakes=0.01),
    "objects that never come to be": lambda: spans(
        {Key(f"bad-{n}", NAME): ObservedCluster(situations.situation().settled(), kept={}) for n in range(10)}
    ),
    "one dead node under many clusters": lambda: spans(
        {Key(f"bad-{n}", NAME): ObservedCluster(witnesses.out_of_reach(100)) for n in range(20)}
    ),
    "many that wait for a person": lambda: spans(
        {Key(f"bad-{n}", NAME): ObservedCluster(witnesses.growing().wanting(paused=True)) for n in range(20)}
    ),
}


@pytest.fixture(scope="module")
def alone() -> float:
    took, _ = spans({})
    assert len(took) == FAILOVERS
    return p95(took)


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_a_cluster_that_misbehaves_makes_no_other_wait(name: str, alone: float) -> None:
    took, calls = MISBEHAVIOURS[name]()
    assert len(took) == FAILOVERS, "every one is handed over"
    assert p95(took) <= 2 * alone
    # A burst of observations, then ten a second: what there is to read, a status and its conflicts.
    bad = max((number for key, number in calls.items() if key.startswith("bad")), default=0)
    assert bad <= (OBSERVATION_BURST + OBSERVATIONS_PER_SECOND * FAILOVERS * EVERY) * (READS + 11)
