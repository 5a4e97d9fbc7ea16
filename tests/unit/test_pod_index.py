"""The index of pods from events in any order, with and without the leadership."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

import pytest

from whatsapp_operator.core.desired import Desired, Probe, Tuning
from whatsapp_operator.core.names import Key, Obj
from whatsapp_operator.shell.coreapps.schedule import Target
from whatsapp_operator.shell.kube.errors import Unavailable
from whatsapp_operator.shell.objects.reading import KnownHolders, SpecError, claim_of, desired_of
from whatsapp_operator.shell.watch.index import PodIndex

KEY = Key("ns", "acme")
_numbers = itertools.count(1)


@dataclass
class Prober:
    """What is probed, and how often that was said."""

    held: dict[Key, dict[str, Target]] = field(default_factory=dict)
    said: int = 0

    def hold(self, key: Key, targets: Mapping[str, Target]) -> None:
        self.said += 1
        self.held[key] = dict(targets)
        if not targets:
            del self.held[key]

    def ips(self, key: Key = KEY) -> dict[str, str]:
        return {uid: target.ip for uid, target in self.held.get(key, {}).items()}

    def holders(self, key: Key = KEY) -> set[str]:
        return {uid for uid, target in self.held.get(key, {}).items() if target.holds}


def wanted(obj: Obj) -> Desired:
    return desired_of(obj, image="sim:1", tuning=Tuning())


def a_pod_index() -> tuple[PodIndex, Prober]:
    prober = Prober()
    return PodIndex(prober.hold, read=wanted), prober


def cluster(name: str = "acme", *, uid: str = "c1", created: str = "2030-01-01T00:00:00Z", version: int = 5) -> dict[str, Any]:
    spec = {"shards": 2, "client": {"type": "Simulator"}}
    meta = {"namespace": "ns", "name": name, "uid": uid, "creationTimestamp": created, "resourceVersion": str(version)}
    return {"metadata": meta, "spec": spec}


def pod(
    ordinal: int, *, uid: str = "", ip: str | None = "10.0.0.1", node: str | None = "n0", component: str = "coreapp", name: str = "acme",
    created: str = "2030-01-01T00:00:00Z", version: int = 5,
) -> dict[str, Any]:  # fmt: skip
    labels = {"multiconnect.dev/cluster": name, "app.kubernetes.io/component": component}
    meta = {"namespace": "ns", "name": f"{name}-{component}-{ordinal}", "uid": uid or f"p{ordinal}", "labels": labels}
    meta |= {"creationTimestamp": created, "resourceVersion": str(version)}
    return {"metadata": meta, "spec": {"nodeName": node}, "status": {"podIP": ip} if ip else {}}


def service(shard: int, holder: str | None, *, name: str = "acme") -> dict[str, Any]:
    labels = {"multiconnect.dev/cluster": name, "multiconnect.dev/shard": str(shard)}
    notes = {"multiconnect.dev/holder": f"{name}-coreapp-9/{holder}"} if holder else {}
    epoch = "7-abcde" if holder else "none"
    meta = {"namespace": "ns", "name": f"{name}-shard-{shard}", "uid": f"s{shard}", "resourceVersion": "7", "labels": labels}
    return {
        "metadata": {**meta, "annotations": notes, "creationTimestamp": "2030-01-01T00:00:00Z"},
        "spec": {"selector": {"multiconnect.dev/epoch": epoch}},
    }


def test_a_standby_operator_probes_what_an_observation_would() -> None:
    pod_index, prober = a_pod_index()
    pod_index.note_cluster(cluster(), gone=False)
    pod_index.note_pod(pod(0), gone=False)
    pod_index.note_pod(pod(1, ip="10.0.0.2"), gone=False)
    pod_index.note_pod(pod(2, ip=None), gone=False)
    pod_index.note_pod(pod(0, uid="w0", component="webapp"), gone=False)
    pod_index.note_service(service(0, "p1"), gone=False)
    pod_index.note_service(service(1, None), gone=False)
    assert prober.ips() == {"p0": "10.0.0.1", "p1": "10.0.0.2"}
    assert prober.holders() == {"p1"}
    target = prober.held[KEY]["p1"]
    assert (target.node, target.probe, target.unhealthy_after) == ("n0", Probe(), 3.0)


def test_the_order_of_first_events_does_not_matter() -> None:
    events: list[Callable[[PodIndex], None]] = [
        lambda pod_index: pod_index.note_cluster(cluster(), gone=False),
        lambda pod_index: pod_index.note_pod(pod(0), gone=False),
        lambda pod_index: pod_index.note_pod(pod(1, ip="10.0.0.2"), gone=False),
        lambda pod_index: pod_index.note_service(service(0, "p1"), gone=False),
    ]
    for order in itertools.permutations(events):
        pod_index, prober = a_pod_index()
        for event in order:
            event(pod_index)
        assert (prober.ips(), prober.holders()) == ({"p0": "10.0.0.1", "p1": "10.0.0.2"}, {"p1"})


def test_holders_that_are_gone_or_terminating_are_known_from_events() -> None:
    def at(version: int, ordinal: int, **meta: str) -> dict[str, Any]:
        made = pod(ordinal)
        made["metadata"] |= {"resourceVersion": str(version), **meta}
        return made

    pod_index, _ = a_pod_index()
    assert pod_index.holders(KEY) == KnownHolders()
    for ordinal, version in enumerate((30, 29, 32, 31)):
        named = service(ordinal, f"p{ordinal}")
        named["metadata"]["resourceVersion"] = str(version)
        pod_index.note_service(named, gone=False)
    uids = frozenset({"p0", "p1", "p2", "p3"})
    assert pod_index.holders(KEY) == KnownHolders(uids=uids, services_at=32), "its pods are not listed yet"
    for ordinal in range(4):
        pod_index.note_pod(at(10 + ordinal, ordinal), gone=False)
    pod_index.note_pod(at(20, 4, deletionTimestamp="2030-01-01T00:00:30Z"), gone=False)
    assert pod_index.holders(KEY) == KnownHolders(uids=uids, pods_at=20, services_at=32), "a pod that holds nothing is no holder"

    pod_index.note_pod(at(21, 0, deletionTimestamp="2030-01-01T00:00:30Z"), gone=False)
    pod_index.note_pod(at(23, 2), gone=True)
    pod_index.note_pod(at(15, 3), gone=False)
    assert pod_index.holders(KEY) == KnownHolders(uids=uids, leaving=frozenset({"p0", "p2"}), pods_at=23, services_at=32)


def test_an_event_that_changes_nothing_is_not_passed_on() -> None:
    pod_index, prober = a_pod_index()
    pod_index.note_cluster(cluster(), gone=False)
    pod_index.note_pod(pod(0), gone=False)
    said = prober.said
    for _ in range(5):
        pod_index.note_cluster(cluster(), gone=False)
        pod_index.note_pod(pod(0), gone=False)
    assert prober.said == said


def test_the_spec_says_how_to_probe() -> None:
    prober = Prober()
    desired = wanted(cluster())
    probe = Probe(kind="TCP", period=timedelta(seconds=2))

    def read(_: Obj) -> Desired:
        return Desired(
            key=desired.key, uid="c1", generation=1, client="Simulator", shards=2, probe=probe, unhealthy_after=timedelta(seconds=7.5)
        )

    pod_index = PodIndex(prober.hold, read=read)
    pod_index.note_cluster(cluster(), gone=False)
    pod_index.note_pod(pod(0), gone=False)
    assert (prober.held[KEY]["p0"].probe, prober.held[KEY]["p0"].unhealthy_after) == (probe, 7.5)


def test_a_spec_that_cannot_be_read_is_probed_by_the_defaults() -> None:
    prober = Prober()

    def read(_: Obj) -> Desired:
        raise SpecError("no")

    pod_index = PodIndex(prober.hold, read=read)
    pod_index.note_cluster(cluster(), gone=False)
    pod_index.note_pod(pod(0), gone=False)
    assert prober.held[KEY]["p0"].unhealthy_after == 3.0


@pytest.mark.parametrize("late", [False, True], ids=["old first", "new first"])
def test_a_pod_and_its_successor_of_the_same_name(late: bool) -> None:
    pod_index, prober = a_pod_index()
    pod_index.note_cluster(cluster(), gone=False)
    pod_index.note_pod(pod(0), gone=False)
    successor = pod(0, uid="p0b", ip="10.0.0.9", version=9)
    if late:
        pod_index.note_pod(successor, gone=False)
        pod_index.note_pod(pod(0), gone=False)
        pod_index.note_pod(pod(0), gone=True)
    else:
        pod_index.note_pod(pod(0), gone=True)
        assert prober.ips() == {}
        pod_index.note_pod(successor, gone=False)
    assert prober.ips() == {"p0b": "10.0.0.9"}


def test_a_pod_that_is_there_again_after_a_restore_of_etcd_is_not_taken_for_an_older_one() -> None:
    """There is no event of the end of its successor. Restored as etcd advises, versions go on above those of before."""
    pod_index, prober = a_pod_index()
    pod_index.note_cluster(cluster(), gone=False)
    pod_index.note_pod(pod(0, uid="p0b", ip="10.0.0.9", created="2030-01-01T00:01:00Z", version=9), gone=False)
    pod_index.note_pod(pod(0), gone=False)
    assert prober.ips() == {"p0b": "10.0.0.9"}, "in a list it is as old as it was"
    pod_index.note_pod(pod(0, version=1_000_005), gone=False)
    assert prober.ips() == {"p0": "10.0.0.1"}


def test_who_leads_holds_by_itself_and_goes_on_warm_afterwards() -> None:
    pod_index, prober = a_pod_index()
    pod_index.note_cluster(cluster(), gone=False)
    pod_index.note_pod(pod(0), gone=False)
    pod_index.lead()
    said = prober.said
    pod_index.note_pod(pod(1, ip="10.0.0.2"), gone=False)
    pod_index.note_service(service(0, "p1"), gone=False)
    assert prober.said == said, "the observations say it"
    prober.hold(KEY, {})
    pod_index.release(KEY)  # as each loop does at the end of its leadership
    pod_index.stand_by()
    assert prober.ips() == {"p0": "10.0.0.1", "p1": "10.0.0.2"}
    assert prober.holders() == {"p1"}


def test_leadership_that_ends_drops_no_probe_even_for_a_moment() -> None:
    pod_index, prober = a_pod_index()
    pod_index.note_cluster(cluster(), gone=False)
    pod_index.note_pod(pod(0), gone=False)
    pod_index.lead()
    pod_index.release(KEY)
    assert prober.ips() == {"p0": "10.0.0.1"}


@pytest.mark.parametrize("loop_ends_first", [True, False])
def test_a_cluster_that_goes_while_we_lead_is_probed_no_more(loop_ends_first: bool) -> None:
    pod_index, prober = a_pod_index()
    pod_index.lead()
    pod_index.note_pod(pod(0), gone=False)
    assert prober.said == 0, "events from before the cluster's own do not disturb the observations"
    pod_index.note_cluster(cluster(), gone=False)
    target = Target(ip="10.0.0.1", node="n0", holds=False, probe=Probe(), unhealthy_after=3.0)
    prober.hold(KEY, {"p0": target})
    if loop_ends_first:
        pod_index.release(KEY)
        pod_index.note_cluster(cluster(), gone=True)
    else:
        pod_index.note_cluster(cluster(), gone=True)
        prober.hold(KEY, {"p0": target})  # an observation that was under way
        pod_index.release(KEY)
    assert prober.held == {}
    pod_index.note_pod(pod(0), gone=True)
    assert len(pod_index) == 0
    assert pod_index.clusters_on("n0") == ()


def test_a_cluster_made_again_under_the_same_name_is_not_ended_by_the_end_of_the_first() -> None:
    pod_index, prober = a_pod_index()
    pod_index.note_cluster(cluster(), gone=False)
    pod_index.note_pod(pod(0), gone=False)
    pod_index.note_cluster(cluster(uid="c2", version=9), gone=False)
    pod_index.note_cluster(cluster(), gone=True)
    assert prober.ips() == {"p0": "10.0.0.1"}


def test_one_that_is_closed_touches_nothing_any_more() -> None:
    pod_index, prober = a_pod_index()
    pod_index.note_cluster(cluster(), gone=False)
    pod_index.note_pod(pod(0), gone=False)
    said = prober.said
    pod_index.close()
    pod_index.note_pod(pod(1, ip="10.0.0.2"), gone=False)
    pod_index.stand_by()
    pod_index.note_cluster(cluster(), gone=True)
    assert prober.said == said


def test_whose_coreapps_are_on_a_node() -> None:
    pod_index, _ = a_pod_index()
    for name in ("b", "a"):
        pod_index.note_cluster(cluster(name), gone=False)
        pod_index.note_pod(pod(0, name=name, uid=f"{name}0"), gone=False)
        pod_index.note_pod(pod(1, name=name, uid=f"{name}1", node="n1" if name == "a" else None), gone=False)
    assert pod_index.clusters_on("n0") == (Key("ns", "a"), Key("ns", "b"))
    assert pod_index.clusters_on("n1") == (Key("ns", "a"),)
    pod_index.note_pod(pod(0, name="a", uid="a0"), gone=True)
    assert pod_index.clusters_on("n0") == (Key("ns", "b"),)
    assert pod_index.clusters_on("nowhere") == ()


def test_what_no_event_reported_is_swept_out_at_the_second_time() -> None:
    pod_index, prober = a_pod_index()
    for name in ("acme", "ghost"):
        pod_index.note_cluster(cluster(name), gone=False)
        pod_index.note_pod(pod(0, name=name, uid=f"{name}0"), gone=False)
        pod_index.note_service(service(0, f"{name}0", name=name), gone=False)
    pod_index.sweep([KEY])
    assert Key("ns", "ghost") in prober.held, "it may be younger than the list"
    pod_index.sweep([KEY])
    assert set(prober.held) == {KEY}
    assert len(pod_index) == 1
    assert pod_index.clusters_on("n0") == (KEY,)


@pytest.mark.parametrize("error", [Unavailable("500"), RuntimeError("odd")], ids=["an answer", "an internal error"])
async def test_what_cannot_be_listed_in_one_namespace_is_kept_and_the_others_are_swept(error: Exception) -> None:
    class Kube:
        lists = 0

        async def list(self, _: object, namespace: str, __: object) -> list[dict[str, Any]]:
            self.lists += 1
            if namespace == "closed":
                raise error
            return [{}, {"metadata": {"namespace": namespace, "name": "acme"}}]

    pod_index, _ = a_pod_index()
    for namespace, name in (("ns", "acme"), ("ns", "ghost"), ("closed", "acme")):
        one = cluster(name)
        pod_index.note_cluster({**one, "metadata": {**one["metadata"], "namespace": namespace}}, gone=False)
    kube = Kube()
    sweeping = asyncio.create_task(pod_index.run(cast("Any", kube), ("closed", "ns"), every=0))
    async with asyncio.timeout(60):
        while kube.lists < 6:
            await asyncio.sleep(0)
    sweeping.cancel()
    await asyncio.wait({sweeping})

    assert sweeping.cancelled()
    assert set(pod_index._entries) == {Key("ns", "acme"), Key("closed", "acme")}


def test_nothing_grows_whatever_comes() -> None:
    random.seed(1)
    pod_index, prober = a_pod_index()
    alive: dict[str, list[dict[str, Any]]] = {}
    for number in range(3000):
        name = f"c{number % 7}"
        if name in alive and random.random() < 0.6:
            for obj in alive.pop(name):
                saw = {"c": pod_index.note_cluster, "p": pod_index.note_pod, "s": pod_index.note_service}[obj["metadata"]["uid"][0]]
                saw(obj, gone=True)
        elif name not in alive:
            created = f"2030-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}Z"
            alive[name] = [cluster(name, uid=f"c{number}", created=created), pod(0, name=name, uid=f"p{number}", created=created)]
            alive[name].append(service(0, f"p{number}", name=name))
            for obj, saw in zip(alive[name], (pod_index.note_cluster, pod_index.note_pod, pod_index.note_service), strict=True):
                saw(obj, gone=False)
        (pod_index.lead if random.random() < 0.5 else pod_index.stand_by)()
    pod_index.stand_by()
    assert len(pod_index) == len(alive) == len(prober.held)
    for name in tuple(alive):
        for obj in alive.pop(name):
            saw = {"c": pod_index.note_cluster, "p": pod_index.note_pod, "s": pod_index.note_service}[obj["metadata"]["uid"][0]]
            saw(obj, gone=True)
    assert len(pod_index) == 0
    assert prober.held == {}
    assert pod_index.clusters_on("n0") == ()


# --- phone numbers ----------------------------------------------------------------------------------------------------------


def numbered(name: str, *, number: str = "6315550000", status: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
    made = cluster(name, uid=f"uid-{name}", **meta)
    made["metadata"]["resourceVersion"] = "7"
    made["spec"]["account"] = {"countryCode": "1", "phoneNumber": number}
    return {**made, "kind": "WhatsAppCluster", "status": status or {}}


def keeper(pod_index: PodIndex, obj: dict[str, Any]) -> str | None:
    claim = claim_of(obj)
    assert claim is not None
    found = pod_index.keeper(claim)
    return str(found) if found else None


def test_of_two_clusters_with_one_number_the_newer_one_waits_as_long_as_both_are_there() -> None:
    pod_index, _ = a_pod_index()
    first, second = numbered("first"), numbered("second", created="2030-01-02T00:00:00Z")
    pod_index.note_cluster(second, gone=False)
    assert keeper(pod_index, second) is None
    pod_index.note_cluster(first, gone=False)
    assert (keeper(pod_index, first), keeper(pod_index, second)) == (None, "ns/first")

    terminating = {**first, "metadata": {**first["metadata"], "deletionTimestamp": "2030-01-03T00:00:00Z"}}
    pod_index.note_cluster(terminating, gone=False)
    assert keeper(pod_index, second) == "ns/first", "its Coreapps still run"
    pod_index.note_cluster(terminating, gone=True)
    assert keeper(pod_index, second) is None


def test_a_cluster_that_serves_its_number_keeps_it_before_an_older_one_that_does_not() -> None:
    pod_index, _ = a_pod_index()
    restored, runs = {"uid": "of-another", "settledShards": 2}, {"uid": "uid-second", "settledShards": 2}
    first, second = numbered("first", status=restored), numbered("second", created="2030-01-02T00:00:00Z", status=runs)
    for one in (first, second):
        pod_index.note_cluster(one, gone=False)

    assert (keeper(pod_index, first), keeper(pod_index, second)) == ("ns/second", None)


def test_a_number_is_kept_although_the_rest_of_its_spec_cannot_be_read() -> None:
    def unreadable(_: Obj) -> Desired:
        raise SpecError

    pod_index = PodIndex(Prober().hold, read=unreadable)
    pod_index.note_cluster(numbered("first"), gone=False)

    assert keeper(pod_index, numbered("second", created="2030-01-02T00:00:00Z")) == "ns/first"
    assert keeper(pod_index, numbered("third", created="2030-01-02T00:00:00Z", number="6315550001")) is None
    assert claim_of(cluster()) is None


def test_a_list_adds_clusters_that_no_event_has_reported() -> None:
    pod_index, _ = a_pod_index()
    second = numbered("second", created="2030-01-02T00:00:00Z")
    for damaged in ({}, {"metadata": {"namespace": "ns", "name": "first"}}):
        pod_index.note_listed(damaged)
    assert len(pod_index) == 0
    pod_index.note_listed(numbered("first"))
    assert keeper(pod_index, second) == "ns/first"
    pod_index.note_listed(numbered("first", number="6315550001"))
    assert keeper(pod_index, second) == "ns/first", "events are newer"


def test_a_cluster_that_turned_out_to_be_gone_keeps_no_number() -> None:
    """A watch that was restarted has no event for its deletion."""
    pod_index, prober = a_pod_index()
    for one in (numbered("first"), numbered("second", created="2030-01-02T00:00:00Z")):
        pod_index.note_cluster(one, gone=False)
    pod_index.note_pod(pod(0, name="first"), gone=False)
    assert prober.ips(Key("ns", "first"))

    pod_index.note_absent(Key("ns", "first"))
    assert keeper(pod_index, numbered("second", created="2030-01-02T00:00:00Z")) is None
    assert not prober.ips(Key("ns", "first"))
    pod_index.note_absent(Key("ns", "never known"))
    assert len(pod_index) == 2, "its pods may still be there"
