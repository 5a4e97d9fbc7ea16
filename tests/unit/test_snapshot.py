"""No matter what the API server says of an object, the snapshot of the cluster is made, and what is not damaged is in it as ever."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whatsapp_operator.core import manifests, rules
from whatsapp_operator.core.desired import Desired, Tuning
from whatsapp_operator.core.names import Key
from whatsapp_operator.core.snapshot import Client, Record, Silence, Snapshot
from whatsapp_operator.shell.coreapps.schedule import ProbeResult
from whatsapp_operator.shell.kube.errors import Unavailable
from whatsapp_operator.shell.kube.kinds import DEPLOYMENT, NETWORKPOLICY, PDB, POD, PVC, SECRET, SERVICE, STATEFULSET, WAC, Kind, Obj
from whatsapp_operator.shell.loop.cluster import Memory
from whatsapp_operator.shell.loop.observe import Observer
from whatsapp_operator.shell.objects import assemble
from whatsapp_operator.shell.objects.assemble import Gathered, Slow
from whatsapp_operator.shell.objects.reading import desired_of

NOW = datetime(2027, 1, 4, 12, 0, 0, tzinfo=UTC)
KEY = Key("default", "acme")
CLUSTER: Obj = {
    "apiVersion": "multiconnect.dev/v1alpha1",
    "kind": "WhatsAppCluster",
    "metadata": {"namespace": "default", "name": "acme", "uid": "wac-1", "resourceVersion": "50", "generation": 3},
    "spec": {
        "shards": 2,
        "spares": 1,
        "client": {"type": "Simulator", "simulator": {"storage": {"size": "1Gi"}}},
        "account": {"countryCode": "1", "phoneNumber": "2", "secretRef": {"name": "account"}, "registeredAt": "2027-01-01T00:00:00Z"},
        "database": {"secretRef": {"name": "database"}},
    },
    "status": {"settledShards": 2, "conditions": [{"type": "Ready", "status": "True", "reason": "Serving", "message": ""}]},
}
WANT = desired_of(CLUSTER, image="sim:1", tuning=Tuning())


def stored(obj: Obj) -> Obj:
    """An object as the API server keeps it."""
    kept = copy.deepcopy(obj)
    kept["metadata"] |= {"uid": f"{obj['kind']}-{obj['metadata']['name']}", "resourceVersion": "70", "generation": 1}
    return kept


def coreapp(ordinal: int) -> Obj:
    """The pod of a Coreapp; 0 and 1 hold the shard of that number."""
    labels = {**manifests.component_labels("acme", "coreapp"), "controller-revision-hash": "r"}
    holds = {manifests.ROLE_LABEL: "active", manifests.SHARD_LABEL: str(ordinal), manifests.EPOCH_LABEL: f"1{ordinal}-a"}
    since = "2027-01-04T11:00:00Z"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"acme-coreapp-{ordinal}",
            "namespace": "default",
            "uid": f"pod-{ordinal}",
            "resourceVersion": str(100 + ordinal),
            "labels": labels | (holds if ordinal < 2 else {manifests.ROLE_LABEL: "standby"}),
            "ownerReferences": [{"kind": "StatefulSet", "name": "acme-coreapp", "uid": "StatefulSet-acme-coreapp", "controller": True}],
        },
        "spec": {"nodeName": f"node-{ordinal}"},
        "status": {
            "phase": "Running",
            "podIP": f"10.0.0.{ordinal}",
            "conditions": [{"type": kind, "status": "True", "lastTransitionTime": since} for kind in ("Ready", "PodScheduled")],
            "containerStatuses": [{"name": "coreapp", "state": {"running": {"startedAt": since}}, "lastState": {}}],
        },
    }


REPLICASET = {"kind": "ReplicaSet", "name": "acme-webapp-h", "uid": "ReplicaSet-h", "controller": True}


def webapp() -> Obj:
    pod = coreapp(3)
    pod["metadata"] |= {"name": "acme-webapp-x", "uid": "pod-w", "ownerReferences": [REPLICASET]}
    pod["metadata"]["labels"] = {**manifests.cluster_labels("acme"), manifests.COMPONENT_LABEL: "webapp", "pod-template-hash": "h"}
    return pod


def shard_service(shard: int) -> Obj:
    service = stored(manifests.shard_service(WANT, shard))
    service["spec"]["selector"][manifests.EPOCH_LABEL] = f"1{shard}-a"
    service["metadata"]["annotations"] = {
        manifests.HOLDER_ANNOTATION: f"acme-coreapp-{shard}/pod-{shard}",
        manifests.COMMITTED_ANNOTATION: "2027-01-04T11:00:00Z",
        manifests.EVIDENCE_ANNOTATION: "Failover/PodDeleted",
        manifests.PREVIOUS_ANNOTATION: "acme-coreapp-2",
    }
    return service


def world() -> dict[Kind, list[Obj]]:
    """A settled cluster: everything that the API server has of it, to be damaged."""
    return {kind: copy.deepcopy(objects) for kind, objects in settled().items()}


@cache
def settled() -> dict[Kind, list[Obj]]:
    kept = [
        stored(obj)
        for obj in (
            *manifests.secrets(WANT),
            *manifests.upkeep(WANT, webapp_replicas=2, resharding=False, is_first_boot=False, is_unused=False),
        )
    ]
    kinds = (WAC, POD, SERVICE, STATEFULSET, SECRET, DEPLOYMENT, PDB, NETWORKPOLICY, PVC)
    found = {kind: [obj for obj in kept if obj["kind"] == kind.kind] for kind in kinds}
    found[WAC] = [copy.deepcopy(CLUSTER)]
    found[POD] = [*map(coreapp, range(3)), webapp()]
    found[SERVICE] += [shard_service(0), shard_service(1)]
    meta = {"namespace": "default", "uid": "u", "resourceVersion": "71"}
    data = {"certificate": "Y2VydA==", "pin": "MTIzNDU2", "expiresAt": "MjAyOC0wMS0wMVQwMDowMDowMFo="}
    found[SECRET] += [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {**meta, "name": name}, "data": dict(data)} for name in ("account", "database")
    ]
    return found


# --- damage ---------------------------------------------------------------------------------------------------------------

JUNK: tuple[Any, ...] = (
    *(None, 7, -1, True, 1.5, "", "x", "²", "9" * 5000, [], {}, [None], {"x": 1}, [[]]),
    *("0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "no such/ pod/../x", "99999999999999999999-a", "\ud800"),
)


@dataclass(frozen=True)
class Damage:
    """One place in one object, and what is put there; without ``junk`` it is taken away."""

    kind: Kind
    index: int
    place: tuple[str | int, ...]
    junk: tuple[Any, ...] = field(default=())

    def do(self, objects: Mapping[Kind, list[Obj]]) -> None:
        inner: Any = objects[self.kind][self.index]
        for step in self.place[:-1]:
            inner = inner[step]
        if self.junk:
            inner[self.place[-1]] = self.junk[0]
        else:
            del inner[self.place[-1]]


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place inside a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from places(one, (*path, key))


Place = tuple[Kind, int, tuple[str | int, ...]]
PLACES: list[Place] = [
    (kind, index, place) for kind, objects in world().items() for index, obj in enumerate(objects) for place in places(obj)
]


def damage_in(places: list[Place]) -> st.SearchStrategy[Damage]:
    """Any damage in one of these places."""
    junk = st.one_of(st.just(()), st.tuples(st.sampled_from(JUNK)))
    return st.builds(lambda where, junk: Damage(where[0], where[1], where[2], junk), st.sampled_from(places), junk)


def known() -> Snapshot:
    return Snapshot(now=NOW, nonce="n0nce", leader_epoch=1, client=Client(asked_at=NOW, shards=2), record=Record(uid="wac-1"))


def snapshot_of(objects: Mapping[Kind, list[Obj]]) -> Snapshot:
    """The snapshot of what the API server says; as the Observer makes it, without asking any component."""
    gathered = Gathered(
        cluster=CLUSTER, services=tuple(objects[SERVICE]), pods=tuple(objects[POD]), statefulsets=tuple(objects[STATEFULSET])
    )
    unread: dict[str, str] = {}
    kinds = (SECRET, DEPLOYMENT, PDB, NETWORKPOLICY, PVC)
    rest = {kind: assemble.sound(objects[kind], kind.kind, unread) for kind in kinds}
    slow = Slow(
        read_at=0.0,
        objects=assemble.by_ref([obj for kind in kinds for obj in rest[kind]], "wac-1"),
        names=frozenset(),
        secrets={obj["metadata"]["name"]: obj for obj in rest[SECRET]},
        unread=unread,
    )
    parts = assemble.parts_of(WANT, gathered, {})
    return assemble.snapshot_of(WANT, CLUSTER, parts, slow, known(), responses={})


def test_a_whole_cluster_is_seen_whole() -> None:
    seen = snapshot_of(world())

    assert seen.unread == {}
    assert [(route.shard, route.holder_uid, route.epoch) for route in seen.routes] == [(0, "pod-0", "10-a"), (1, "pod-1", "11-a")]
    assert [(pod.ordinal, pod.ready, pod.node, pod.ip) for pod in seen.coreapps] == [
        (n, True, f"node-{n}", f"10.0.0.{n}") for n in range(3)
    ]
    assert len(seen.objects) == len([obj for kind in world() if kind not in {POD, WAC} for obj in world()[kind]]) - 2


@settings(deadline=None, database=None, derandomize=True, max_examples=150)
@given(damage=st.lists(damage_in(PLACES), min_size=1, max_size=3, unique_by=lambda one: (one.kind, one.index)))
def test_no_damage_raises(damage: list[Damage]) -> None:
    objects = world()
    for one in damage:
        one.do(objects)

    seen = snapshot_of(objects)
    rules.plan(WANT, seen)

    broken = {one.kind.kind for one in damage}
    assert seen.unread.keys() <= broken
    if broken.isdisjoint({"Pod", "StatefulSet"}):
        assert len(seen.coreapps) == 3
    if broken.isdisjoint({"Service"}):
        assert len(seen.routes) == 2


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (Damage(PDB, 0, ("spec",), (7,)), "PodDisruptionBudget acme-coreapp is damaged: Expected `object | null`, got `int` - at `$.spec`"),
        (Damage(SECRET, 2, ("data", "pin"), (7,)), "Secret account is damaged: Expected `str`, got `int` - at `$.data[...]`"),
        (Damage(DEPLOYMENT, 0, ("metadata", "uid"), (None,)), "Deployment acme-webapp is damaged: Expected `str`, got `null`"),
        (Damage(NETWORKPOLICY, 0, ("metadata",), ()), "NetworkPolicy (unnamed) is damaged: Object missing required field `metadata`"),
        (Damage(SERVICE, -1, ("metadata", "resourceVersion"), ("x",)), "Service acme-shard-1 is damaged: Expected `str` matching regex"),
        (Damage(POD, 2, ("metadata", "labels"), (7,)), "Pod acme-coreapp-2 is damaged: Expected `object | null`, got `int`"),
    ],
)
def test_what_is_damaged_is_named(damage: Damage, problem: str) -> None:
    objects = world()
    damage.do(objects)

    seen = snapshot_of(objects)

    assert problem in seen.unread[damage.kind.kind]


def test_a_pod_whose_status_is_damaged_is_there_and_neither_ready_nor_gone() -> None:
    objects = world()
    Damage(POD, 0, ("status", "containerStatuses"), ("x",)).do(objects)

    seen = snapshot_of(objects)
    first = seen.coreapps[0]

    assert (first.uid, first.ready, first.terminated, first.deleting, first.labels[manifests.SHARD_LABEL]) == (
        "pod-0",
        False,
        False,
        False,
        "0",
    )
    assert "Pod" in seen.unread


def test_a_foreign_pod_with_the_labels_of_a_holder_is_named() -> None:
    def copies(**changes: Any) -> list[str | None]:
        objects = world()
        copy = copied_pod(objects[POD][0], **changes)
        return [route.copied_by for route in snapshot_of({**objects, POD: [*objects[POD], copy]}).routes]

    assert copies() == ["debug", None]
    assert copies(labels={manifests.EPOCH_LABEL: "9-a"}) == [None, None]
    assert copies(labels={manifests.SHARD_LABEL: "1"}) == [None, None]
    assert copies(phase="Succeeded") == copies(phase="Failed") == [None, None]
    assert copies(phase="Pending") == ["debug", None]
    # Without its StatefulSet no pod is the cluster's own.
    objects = world()
    assert [route.copied_by for route in snapshot_of({**objects, STATEFULSET: []}).routes] == [None, None]


def copied_pod(pod: Obj, *, labels: Mapping[str, str] | None = None, phase: str = "Running") -> Obj:
    """What `kubectl debug --copy-to=debug --keep-labels` makes of a pod."""
    meta = {**pod["metadata"], "name": "debug", "uid": "of-another", "labels": {**pod["metadata"]["labels"], **(labels or {})}}
    return {**pod, "metadata": {key: value for key, value in meta.items() if key != "ownerReferences"}, "status": {"phase": phase}}


def test_a_damaged_service_is_what_it_was() -> None:
    objects = world()
    before = snapshot_of(objects)
    Damage(SERVICE, -1, ("spec",), (None,)).do(objects)
    gathered = Gathered(
        cluster=CLUSTER, services=tuple(objects[SERVICE]), pods=tuple(objects[POD]), statefulsets=tuple(objects[STATEFULSET])
    )

    parts = assemble.parts_of(WANT, gathered, {route.name: route for route in before.routes})

    assert parts.routes == before.routes
    assert "Service" in parts.problems


# --- the same through the observer ----------------------------------------------------------------------------------------


class FakeKube:
    """Answers from a dictionary."""

    def __init__(self, objects: Mapping[Kind, list[Obj]]) -> None:
        self.objects = objects

    async def get(self, kind: Kind, _: str | None, name: str) -> Obj | None:
        named = (obj for obj in self.objects[kind] if isinstance(obj.get("metadata"), dict) and obj["metadata"].get("name") == name)
        return next(named, None)

    async def list(self, kind: Kind, *_: Any) -> list[Obj]:
        return self.objects[kind]


class NothingHeard:
    """No Coreapp has said anything."""

    def hold(self, *_: Any) -> None: ...

    def result_of(self, _: str) -> ProbeResult:
        return ProbeResult(never_responded=True)

    def silence(self) -> Silence:
        return Silence()

    def state_of(self, _: Key) -> Client:
        return Client()


class Clock:
    """Stands still."""

    def now(self) -> datetime:
        return NOW + timedelta(seconds=1)

    def wall(self) -> datetime:
        return NOW + timedelta(seconds=1)

    def monotonic(self) -> float:
        return 1.0


def observation(objects: Mapping[Kind, list[Obj]]) -> tuple[Desired, Snapshot] | None:
    """What the Observer makes of a cluster that it observes for the first time."""
    fakes = cast("Any", NothingHeard())
    kube = cast("Any", FakeKube(objects))
    observer = Observer(kube=kube, clients=fakes, coreapps=fakes, clock=Clock(), image="sim:1", tuning=Tuning())
    found = asyncio.run(observer.observe(KEY, Memory(), nonce="n0nce", leader_epoch=1))
    return (found.desired, found.snapshot) if found is not None else None


OTHERS = [where for where in PLACES if where[0] is not WAC]


@settings(deadline=None, database=None, derandomize=True, max_examples=100)
@given(damage=damage_in(OTHERS))
def test_an_observation_survives_damage_or_says_what_is_damaged(damage: Damage) -> None:
    objects = world()
    damage.do(objects)

    try:
        found = observation(objects)
    except Unavailable:
        # Without them pods or shards would seem to be gone.
        assert damage.kind in {POD, SERVICE, STATEFULSET}, damage
    else:
        assert found is not None
