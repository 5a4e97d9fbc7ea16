"""An observation waits for what a failover depends on, and for nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest

from whatsapp_operator.core.desired import Tuning
from whatsapp_operator.core.names import Key, Ref
from whatsapp_operator.core.snapshot import Client, Login, RejectedWrite
from whatsapp_operator.shell.coreapps.schedule import ProbeResult
from whatsapp_operator.shell.kube.errors import KubeError, Unavailable
from whatsapp_operator.shell.kube.kinds import DEPLOYMENT, PDB, POD, SECRET, SERVICE, STATEFULSET, WAC, Kind, Obj
from whatsapp_operator.shell.loop.cluster import Memory
from whatsapp_operator.shell.loop.observe import Observation, Observer
from whatsapp_operator.shell.objects.reading import KnownHolders

from .test_snapshot import KEY, NOW, Clock, FakeKube, NothingHeard, world


class SlowKube(FakeKube):
    """Secrets are answered when ``answers`` is set; pods cannot be listed while ``pods_fail``."""

    def __init__(self, objects: Mapping[Kind, list[Obj]]) -> None:
        super().__init__(objects)
        self.answers = asyncio.Event()
        self.pods_fail = False
        self.listed = 0

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        if kind is SECRET:
            await self.answers.wait()
        return await super().get(kind, namespace, name)

    async def list(self, kind: Kind, *more: Any) -> list[Obj]:
        self.listed += kind is POD
        if kind is POD and self.pods_fail:
            raise Unavailable("500")
        return await super().list(kind, *more)


def observer(kube: FakeKube, clock: Clock | None = None, **more: Any) -> Observer:
    fakes: Any = {"clients": NothingHeard(), "coreapps": NothingHeard(), **more}
    return Observer(kube=cast("Any", kube), clock=clock or Clock(), image="sim:1", tuning=Tuning(), **fakes)


async def observe(eyes: Observer, memory: Memory, key: Key = KEY) -> Observation:
    found = await eyes.observe(key, memory, nonce="n0nce", leader_epoch=1)
    assert found is not None
    return found


async def test_what_is_still_being_read_is_not_known_and_not_waited_for() -> None:
    kube, memory = SlowKube(world()), Memory()
    eyes = observer(kube)

    first = await observe(eyes, memory)
    assert memory.reading is not None
    assert set(first.snapshot.unread) == {"Secret", "Deployment", "PodDisruptionBudget", "NetworkPolicy", "PersistentVolumeClaim"}
    assert first.snapshot.failed_reads == {}
    assert (len(first.snapshot.routes), len(first.snapshot.coreapps), first.snapshot.missing, first.snapshot.name_conflicts) == (
        2,
        3,
        None,
        (),
    )

    kube.answers.set()
    await asyncio.wait({memory.reading})
    assert (await observe(eyes, memory)).snapshot.unread == {}
    assert memory.reading is None


async def test_a_reading_outlives_the_observation_that_began_it() -> None:
    kube, memory = SlowKube(world()), Memory()
    eyes = observer(kube)
    kube.pods_fail = True
    with pytest.raises(Unavailable):
        await eyes.observe(KEY, memory, nonce="n0nce", leader_epoch=1)
    kube.pods_fail = False

    second = asyncio.create_task(observe(eyes, memory))
    while kube.listed < 2:
        await asyncio.sleep(0)
    kube.answers.set()

    assert (await second).snapshot.failed_reads == {}
    assert (await observe(eyes, memory)).snapshot.unread == {}


class MovingClock(Clock):
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.mark.parametrize(("waited", "is_old"), [(4.9, False), (5.0, True)])
async def test_secrets_that_were_read_long_before_an_observation_are_none_of_its_own(waited: float, is_old: bool) -> None:
    """With very many clusters an observation may wait for minutes for its turn; a certificate may have been replaced meanwhile (laws#8)."""
    kube, memory, clock = SlowKube(world()), Memory(), MovingClock()
    eyes = observer(kube, clock)
    await observe(eyes, memory)
    kube.answers.set()
    assert memory.reading is not None
    await asyncio.wait({memory.reading})

    clock.seconds += waited
    await observe(eyes, memory)

    assert memory.slow is not None
    assert memory.slow.again is is_old


class FaultyKube(FakeKube):
    """The library fails in an odd way, as often as ``failures`` says, when one kind is listed that no failover depends on."""

    failures = 1

    async def list(self, kind: Kind, *more: Any) -> list[Obj]:
        if kind is PDB and self.failures:
            self.failures -= 1
            msg = "a transport is in an odd state"
            raise RuntimeError(msg)
        return await super().list(kind, *more)


async def test_an_internal_error_in_a_slow_read_holds_up_no_failover_and_is_over_with_the_next_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kube, memory = FaultyKube(world()), Memory()
    eyes = observer(kube)

    first = (await observe(eyes, memory)).snapshot
    assert (len(first.routes), len(first.coreapps), first.missing, first.name_conflicts) == (2, 3, None, ())
    assert set(first.failed_reads) == {"Secret", "Deployment", "PodDisruptionBudget", "NetworkPolicy", "PersistentVolumeClaim"}
    assert set(first.failed_reads.values()) == {"an internal error of the operator (RuntimeError); its log has the details"}
    assert "a transport is in an odd state" in caplog.text

    second = (await observe(eyes, memory)).snapshot
    assert (len(second.routes), len(second.coreapps), second.unread) == (2, 3, {})


async def test_what_is_being_read_ends_with_its_loop() -> None:
    memory = Memory()
    await observe(observer(SlowKube(world())), memory)
    reading = memory.reading
    assert reading is not None

    memory.close()
    await asyncio.wait({reading})

    assert reading.cancelled()


class RecordingKube(FakeKube):
    """Notes which kinds are listed, and from which resourceVersion on; "": as they are."""

    def __init__(self) -> None:
        super().__init__(world())
        self.listed: dict[Kind, str] = {}

    async def list(self, kind: Kind, *more: Any, at_least: str = "") -> list[Obj]:
        self.listed[kind] = at_least
        return await super().list(kind, *more)

    def newest(self, kind: Kind) -> int:
        return max(int(obj["metadata"]["resourceVersion"]) for obj in self.objects[kind])


@pytest.mark.parametrize("event", [1, 900_000])
async def test_lists_from_the_cache_are_at_least_as_new_as_all_that_was_known(event: int) -> None:
    kube, memory = RecordingKube(), Memory()
    eyes = observer(kube, holders=lambda _: KnownHolders(pods_at=event, services_at=event))
    await observe(eyes, memory)
    assert {kube.listed[POD], kube.listed[SERVICE]} == {""}

    kube.listed.clear()
    found = await eyes.observe(KEY, memory, nonce="n0nce", leader_epoch=1, from_cache=True)
    assert found is not None
    newest = max(route.version for route in found.snapshot.routes)
    expected = {POD: str(max(kube.newest(POD), event)), SERVICE: str(max(newest, event))}
    assert kube.listed == expected, "and nothing else is listed"

    memory.committed["1000000-n0nce"] = replace(found.snapshot.routes[0], version=1_000_001)
    await eyes.observe(KEY, memory, nonce="n0nce", leader_epoch=1, from_cache=True)
    assert kube.listed[SERVICE] == "1000001", "what this process wrote is known as well"


async def test_what_is_observed_from_the_cache_is_not_remembered() -> None:
    kube, memory = RecordingKube(), Memory()
    eyes = observer(kube)
    assert await eyes.observe(KEY, memory, nonce="n0nce", leader_epoch=1, from_cache=True) is not None
    assert (memory.routes, memory.reading, memory.slow) == ({}, None, None)
    assert kube.listed[POD] == "", "while nothing was known before, it is no matter of the cache"


async def test_each_holder_that_leaves_is_a_reason_once() -> None:
    left: frozenset[str] = frozenset()
    memory = Memory()
    eyes = observer(RecordingKube(), holders=lambda _: KnownHolders(leaving=left))
    first = await observe(eyes, memory)
    one, other = (route.holder_uid or "" for route in first.snapshot.routes)
    assert not eyes.has_lost_holders(KEY, memory)
    left = frozenset({one, "of another pod"})
    assert [eyes.has_lost_holders(KEY, memory) for _ in range(2)] == [True, False]
    left |= {other}
    assert [eyes.has_lost_holders(KEY, memory) for _ in range(2)] == [True, False]
    left = frozenset({"of another pod"})
    assert not eyes.has_lost_holders(KEY, memory)


class Refusing(NothingHeard):
    """These Coreapps refuse connections."""

    def __init__(self) -> None:
        self.uids: set[str] = set()

    def result_of(self, uid: str) -> ProbeResult:
        return ProbeResult(broken_at=NOW if uid in self.uids else None)


async def test_before_the_first_observation_the_events_say_who_holds() -> None:
    known = KnownHolders(uids=frozenset({"one", "other"}), leaving=frozenset({"one"}), pods_at=3, services_at=5)
    kube, memory, heard = RecordingKube(), Memory(), Refusing()
    eyes = observer(kube, holders=lambda _: known, coreapps=heard)
    assert [eyes.has_lost_holders(KEY, memory) for _ in range(2)] == [True, False]
    heard.uids = {"other", "a standby"}
    assert [eyes.has_lost_holders(KEY, memory) for _ in range(2)] == [True, False]
    assert await eyes.observe(KEY, memory, nonce="n0nce", leader_epoch=1, from_cache=True) is not None
    assert kube.listed == {POD: "3", SERVICE: "5"}


async def test_each_holder_that_refuses_connections_is_a_reason_once_until_it_is_back() -> None:
    memory, heard = Memory(), Refusing()
    eyes = observer(RecordingKube(), coreapps=heard)
    first = await observe(eyes, memory)
    one, other = (route.holder_uid or "" for route in first.snapshot.routes)
    heard.uids = {one, "a standby"}
    assert [eyes.has_lost_holders(KEY, memory) for _ in range(2)] == [True, False]
    heard.uids |= {other}
    assert [eyes.has_lost_holders(KEY, memory) for _ in range(2)] == [True, False]
    heard.uids = {other}
    assert not eyes.has_lost_holders(KEY, memory)
    heard.uids = {one, other}
    assert eyes.has_lost_holders(KEY, memory), "it has failed again"


class EventfulKube(FakeKube):
    """Lacks a Coreapp whose creation fails, and counts who asks for the Events that say so."""

    def __init__(self, error: KubeError | None = None) -> None:
        objects = world()
        objects[POD] = [pod for pod in objects[POD] if pod["metadata"]["name"] != "acme-coreapp-2"]
        super().__init__(objects)
        (self.workload,) = (obj for obj in self.objects[STATEFULSET] if obj["metadata"]["name"] == "acme-coreapp")
        self.workload["spec"]["replicas"] = 3
        self.workload["status"] = {"observedGeneration": 1, "replicas": 2}
        self.error = error
        self.asked: list[str] = []

    async def list_events(self, namespace: str, uid: str) -> list[Obj]:
        self.asked.append(uid)
        if self.error is not None:
            raise self.error
        meta = {"name": "e", "uid": "e", "resourceVersion": "8"}
        message = 'create Pod acme-coreapp-2 in StatefulSet acme-coreapp failed error: pods "acme-coreapp-2" is forbidden'
        event = {"kind": "Event", "metadata": meta, "reason": "FailedCreate", "message": message, "lastTimestamp": "2027-01-04T12:00:00Z"}
        return [event] if uid == self.workload["metadata"]["uid"] else []


def missing_for(seconds: float) -> Memory:
    """What is remembered when pods have been missing for so long."""
    return Memory(since={"PodsMissing": Clock().now() - timedelta(seconds=seconds)})


@pytest.mark.parametrize("memory", [Memory(), missing_for(1.9)], ids=["not known", "not yet"])
async def test_events_are_not_read_while_pods_are_missing_for_a_moment(memory: Memory) -> None:
    kube = EventfulKube()
    assert (await observe(observer(kube), memory)).snapshot.rejected_pods is None
    assert kube.asked == []


async def test_events_of_a_statefulset_that_lacks_pods_are_read_after_two_seconds_and_once() -> None:
    kube, memory = EventfulKube(), Memory()
    eyes = observer(kube)
    await observe(eyes, memory)
    memory.since = missing_for(2.0).since
    seen = (await observe(eyes, memory)).snapshot
    assert "acme-coreapp-2" in (seen.rejected_pods or "")
    assert seen.rejected_coreapp == seen.rejected_pods
    assert seen.unread == {}
    await observe(eyes, memory)
    lacking = [workload["metadata"]["uid"] for workload in kube.objects[STATEFULSET]]
    assert sorted(kube.asked) == sorted(lacking), "what was read a moment ago is good enough"


async def test_a_rejected_Webapp_is_no_rejected_Coreapp() -> None:  # noqa: N802
    objects = world()
    failure = {"type": "ReplicaFailure", "status": "True", "message": 'pods "acme-webapp-1" is forbidden: exceeded quota'}
    (webapp,) = objects[DEPLOYMENT]
    webapp["status"] = {"conditions": [failure]}
    seen = (await observe(observer(FakeKube(objects)), Memory())).snapshot
    assert (seen.rejected_pods, seen.rejected_coreapp) == (failure["message"], None)


async def test_events_that_cannot_be_read_keep_nothing_else_from_being_read() -> None:
    kube = EventfulKube(Unavailable("list Event: 500"))
    seen = (await observe(observer(kube), missing_for(2.0))).snapshot
    assert (seen.rejected_pods, seen.unread) == (None, {"Event": "list Event: 500"})
    assert len(seen.objects) > 8


class LoggedIn(NothingHeard):
    """The client, as far as logins go."""

    def __init__(self, login: Login) -> None:
        self.login = login

    def state_of(self, _: Key) -> Client:
        return Client(login=self.login)


@pytest.mark.parametrize(
    ("login", "owner", "known"), [(Login.DONE, None, True), (Login.REJECTED, None, False), (Login.DONE, "acme-admin", False)]
)
async def test_the_generated_secret_that_the_client_knows_is_remembered(login: Login, owner: str | None, known: bool) -> None:
    objects, memory = world(), Memory()
    (cluster,) = objects[WAC]
    spec = {**cluster["spec"], "client": {"type": "Simulator", **({"adminSecretRef": {"name": owner}} if owner else {})}}
    objects[WAC][:] = [{**cluster, "spec": spec}]
    data = {"username": "YWRtaW4=", "password": "cmlnaHQtb25l"}
    objects[SECRET][:] = [{**obj, "data": data} if obj["metadata"]["name"] == "acme-admin" else obj for obj in objects[SECRET]]
    fakes: Any = LoggedIn(login)
    kube: Any = FakeKube(objects)
    eyes = Observer(kube=kube, clients=fakes, coreapps=fakes, clock=Clock(), image="sim:1", tuning=Tuning())
    await observe(eyes, memory)

    assert memory.admin == (data if known else None)
    memory.slow = None
    assert data["password"] not in repr(memory)
    kube.objects[SECRET][:] = [obj for obj in kube.objects[SECRET] if obj["metadata"]["name"] != "acme-admin"]
    await observe(eyes, memory)
    assert memory.admin == (data if known else None), "also when it is deleted"


async def test_the_desired_state_is_kept_until_the_cluster_is_edited() -> None:
    """A status that was written, and what the API server counts with it, is no edit."""
    kube, memory = SlowKube(world()), Memory()
    eyes = observer(kube)
    kube.answers.set()
    first = await observe(eyes, memory)

    (cluster,) = kube.objects[WAC]
    written = {**cluster, "metadata": {**cluster["metadata"], "resourceVersion": "999", "managedFields": [{"manager": "x"}]}, "status": {}}
    kube.objects[WAC][:] = [written]
    assert (await observe(eyes, memory)).desired is first.desired

    kube.objects[WAC][:] = [{**written, "spec": {**cluster["spec"], "spares": 2}}]
    assert (await observe(eyes, memory)).desired.spares == 2
    kube.objects[WAC][:] = [{**written, "metadata": {**written["metadata"], "annotations": {"multiconnect.dev/paused": "true"}}}]
    assert (await observe(eyes, memory)).desired.paused
    kube.objects[WAC][:] = [{**written, "metadata": {**written["metadata"], "deletionTimestamp": "2027-01-04T12:00:00Z"}}]
    assert (await observe(eyes, memory)).desired.deleting


async def test_who_requests_a_switchover_is_a_part_of_the_desired_state() -> None:
    """The same text may come from a person, and after the move from a manifest that is applied again and again."""
    kube, memory = SlowKube(world()), Memory()
    eyes = observer(kube)
    kube.answers.set()
    (cluster,) = kube.objects[WAC]
    asked = {**cluster, "metadata": {**cluster["metadata"], "annotations": {"multiconnect.dev/switchover": "0"}}}
    kube.objects[WAC][:] = [asked]
    first = (await observe(eyes, memory)).desired
    assert (len(first.switchovers), first.invalid) == (1, None)
    assert (await observe(eyes, memory)).desired is first

    fields: Obj = {"f:metadata": {"f:annotations": {"f:multiconnect.dev/switchover": {}}}}
    by = [{"manager": "gitops", "operation": "Apply", "fieldsV1": fields}]
    moved = {"recentHandovers": [{"shard": 0, "kind": "Switchover", "evidence": "Requested"}]}
    kube.objects[WAC][:] = [{**asked, "status": moved}]
    assert (await observe(eyes, memory)).desired is first, "its own move is no reason to drop a request"
    kube.objects[WAC][:] = [{**asked, "status": moved, "metadata": {**asked["metadata"], "managedFields": by}}]
    then = (await observe(eyes, memory)).desired
    assert then.switchovers == ()
    assert "gitops" in (then.invalid or "")


class KeeperKube(FakeKube):
    """Has other WhatsAppClusters of these names; cannot be asked for them if there is an ``error``."""

    def __init__(self, *there: str, error: KubeError | None = None) -> None:
        super().__init__(world())
        self.there, self.error = there, error
        self.asked: list[str] = []

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        if kind is not WAC or name == KEY.name:
            return await super().get(kind, namespace, name)
        assert namespace == "other"
        self.asked.append(name)
        if self.error is not None:
            raise self.error
        return {"metadata": {"namespace": "other", "name": name}} if name in self.there else None


@pytest.mark.parametrize(
    ("kube", "kept_by", "asked"),
    [
        (KeeperKube("a", "b"), "other/a", ["a"]),
        (KeeperKube("b"), "other/b", ["a", "b"]),
        (KeeperKube(), None, ["a", "b"]),
        # "Could not be read" is not "is not there".
        (KeeperKube(error=Unavailable("500")), "other/a", ["a"]),
    ],
)
async def test_a_cluster_whose_deletion_no_event_reported_keeps_no_number(kube: KeeperKube, kept_by: str | None, asked: list[str]) -> None:
    known = [Key("other", "a"), Key("other", "b")]
    eyes = observer(kube, number_keeper=lambda _: next(iter(known), None), cluster_gone=known.remove)

    assert (await observe(eyes, Memory())).snapshot.number_kept_by == kept_by
    assert kube.asked == asked
    gone = [Key("other", name) for name in asked if f"other/{name}" != kept_by]
    assert not {*known} & {*gone}
    assert len(known) == 2 - len(gone)


async def test_who_keeps_the_number_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    eyes, memory = observer(KeeperKube("a"), number_keeper=lambda _: Key("other", "a")), Memory()
    for _ in range(2):
        await observe(eyes, memory)
    assert [record.getMessage() for record in caplog.records] == [f"{KEY} has the phone number of other/a, which keeps it."]


async def test_a_failover_does_not_wait_for_the_cluster_that_keeps_the_number() -> None:
    kube = KeeperKube("a")
    eyes = observer(kube, number_keeper=lambda _: Key("other", "a"))

    found = await eyes.observe(KEY, Memory(), nonce="n0nce", leader_epoch=1, from_cache=True)
    assert found is not None
    assert found.snapshot.number_kept_by == "other/a"
    assert kube.asked == []


async def test_a_rejected_write_is_known_for_a_minute_and_by_the_spec_that_was_rejected() -> None:
    now, ref = Clock().now(), Ref("Service", "acme-webapp")
    generation = world()[WAC][0]["metadata"]["generation"]
    for ago, of, is_known in ((0, generation, True), (59, generation, True), (60, generation, False), (0, generation - 1, False)):
        memory = Memory(rejected={ref: RejectedWrite("exceeded quota", now - timedelta(seconds=ago), of)})
        seen = await observe(observer(FakeKube(world())), memory)
        assert seen.snapshot.now == now
        assert (ref in seen.snapshot.rejected, ref in memory.rejected) == (is_known, is_known)
