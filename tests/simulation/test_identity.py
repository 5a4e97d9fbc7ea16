"""What is ours is known by its name and its owner's uid, in the simulation. The judge here knows names and labels by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from whatsapp_operator.core.model import Key
from whatsapp_operator.shell.kube import POD as POD_KIND
from whatsapp_operator.shell.kube import Refused

from .kinds import DEPLOYMENT, NETWORKPOLICY, PDB, POD, PVC, SERVICE, STATEFULSET, WAC, Kind, Obj
from .operators import Operator
from .test_partial_sight import Fault, blind_operator, condition, says
from .world import NAME, NAMESPACE, World, simulate

SEEDS = 1
CLUSTER, COMPONENT, SHARD, EPOCH, ROLE = (
    "multiconnect.dev/cluster",
    "app.kubernetes.io/component",
    "multiconnect.dev/shard",
    "multiconnect.dev/epoch",
    "multiconnect.dev/role",
)


def lone_operator(world: World) -> Operator:
    operator = world.operator()
    operator.campaign()
    return operator


def copied(obj: Obj, name: str) -> Obj:
    """What `kubectl get -o yaml | sed | kubectl apply` makes: labels, annotations and ownerReferences come along."""
    meta = obj["metadata"]
    kept = {part: meta[part] for part in ("namespace", "labels", "annotations", "ownerReferences") if part in meta}
    return {**{part: value for part, value in obj.items() if part != "status"}, "metadata": {**kept, "name": name}}


def active(world: World, shard: int) -> list[str]:
    """Names of the pods that say that they serve a shard."""
    pods = world.server.list(POD, NAMESPACE, {ROLE: "active", SHARD: str(shard)})
    return [pod["metadata"]["name"] for pod in pods]


def foreign(kind: Kind, name: str, **spec: Any) -> Obj:
    """Somebody else's object with our cluster's label."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"namespace": NAMESPACE, "name": name, "labels": {CLUSTER: NAME}},
        "spec": spec,
    }


def stranger(name: str, labels: Mapping[str, str]) -> Obj:
    pod = foreign(POD, name, containers=[{"name": "main", "image": "somebody:1"}])
    return {**pod, "metadata": {**pod["metadata"], "labels": dict(labels)}}


async def settled(world: World, operator: Operator | None = None, **spec: Any) -> Operator:
    world.create(**({"shards": 2, "spares": 1} | spec))
    operator = operator or lone_operator(world)
    await world.until_done(within=120)
    return operator


# --- a copy of a shard's Service


@pytest.mark.parametrize("name", ["public", f"{NAME}-shard-0-public", f"{NAME}-shard-00"])
def test_a_copied_shard_service_gives_no_shard_a_second_holder(name: str) -> None:
    async def story(world: World) -> None:
        await settled(world, spares=2)
        service = world.server.get(SERVICE, (NAMESPACE, f"{NAME}-shard-0"))
        assert service is not None
        copy = world.server.create("user", copied(service, name))
        for _ in range(2):
            old = world.holder(0)
            assert old is not None
            world.delete_pod(old, force=True)
            await world.until(lambda old=old: world.holder(0) not in {None, old}, within=1.0, what="handed over")  # type: ignore[misc]
            await world.until_done(within=120)
            assert len(active(world, 0)) == 1
        assert world.server.get(SERVICE, (NAMESPACE, name)) == copy, "a copy is never written"
        world.edit(shards=1)
        await world.until_done(within=180)
        assert world.server.get(SERVICE, (NAMESPACE, name)) == copy, "nor deleted"

    for seed in range(SEEDS):
        simulate(story, seed)


# --- what stands in the way


THEIRS = {"matchLabels": {"app": "x"}}
TEMPLATE = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "x", "image": "x:1"}]}}
SPECS: Mapping[Kind, Obj] = {
    SERVICE: {"selector": {"app": "x"}},
    PDB: {"maxUnavailable": 1, "selector": THEIRS},
    PVC: {},
    NETWORKPOLICY: {"podSelector": THEIRS},
    DEPLOYMENT: {"replicas": 0, "selector": THEIRS, "template": TEMPLATE},
    STATEFULSET: {"replicas": 0, "selector": THEIRS, "template": TEMPLATE, "serviceName": "theirs"},
}


@pytest.mark.parametrize("kind", SPECS, ids=lambda kind: str(kind.kind))
def test_a_foreign_object_with_our_label_and_another_name_blocks_nothing(kind: Kind) -> None:
    async def story(world: World) -> None:
        await settled(world)
        before = world.server.create("user", foreign(kind, "theirs", **SPECS[kind]))["metadata"]["uid"]
        world.edit(shards=4)
        await world.until_done(within=120)
        theirs = world.server.get(kind, (NAMESPACE, "theirs"))
        assert theirs is not None
        assert theirs["metadata"]["uid"] == before
        await world.stays_silent(60.0)

    for seed in range(SEEDS):
        simulate(story, seed)


def test_a_foreign_service_under_a_name_that_is_needed_is_named_and_hinders_only_what_needs_it() -> None:
    async def story(world: World) -> None:
        await settled(world)
        taken = f"{NAME}-shard-3"
        world.server.create("user", foreign(SERVICE, taken, selector={"app": "x"}))
        await world.stays_silent(60.0)
        world.edit(shards=4)
        await world.until(says(world, "Stalled", "True", "NameTaken"), within=60, what="told")
        assert f"Service {taken}" in condition(world, "Stalled")[2]
        assert world.account.shards == 2
        old = world.holder(0)
        assert old is not None
        world.delete_pod(old, force=True)
        await world.until(lambda: world.holder(0) not in {None, old}, within=1.0, what="handed over")
        world.server.delete("user", SERVICE, (NAMESPACE, taken))
        await world.until_done(within=120)

    for seed in range(SEEDS):
        simulate(story, seed)


def test_a_policy_that_an_earlier_release_named_like_the_cluster_makes_room_for_other_clusters() -> None:
    async def story(world: World) -> None:
        await settled(world)
        policy = world.server.get(NETWORKPOLICY, (NAMESPACE, f"{NAME}-coreapp"))
        assert policy is not None
        world.server.create("user", copied(policy, NAME))
        await world.until(lambda: world.server.get(NETWORKPOLICY, (NAMESPACE, NAME)) is None, within=60, what="gone")
        await world.until_done(within=10)
        await world.stays_silent(60.0)

    for seed in range(SEEDS):
        simulate(story, seed)


# --- what lost its labels

OURS: tuple[tuple[Kind, str], ...] = (
    (SERVICE, f"{NAME}-shard-1"),
    (SERVICE, f"{NAME}-coreapp"),
    (SERVICE, f"{NAME}-webapp"),
    (SERVICE, f"{NAME}-simulator"),
    (STATEFULSET, f"{NAME}-coreapp"),
    (STATEFULSET, f"{NAME}-simulator"),
    (DEPLOYMENT, f"{NAME}-webapp"),
    (PDB, f"{NAME}-coreapp"),
    (NETWORKPOLICY, f"{NAME}-webapp"),
    (PVC, f"{NAME}-simulator"),
)


class Storm:
    """Counts what an operator reads and creates."""

    def __init__(self, operator: Operator) -> None:
        self._reads, self._before = operator.kube.reads, 0
        self.creates: list[str] = []
        operator.kube.before_write = lambda what: self.creates.append(what) if what.startswith("create") and "Event" not in what else None

    def begin(self) -> None:
        """Count from now on."""
        self._before = sum(self._reads.values())
        self.creates.clear()

    def reads(self) -> int:
        return sum(self._reads.values()) - self._before


def has_labels(world: World, kind: Kind, name: str, labels: Mapping[str, str]) -> bool:
    obj = world.server.get(kind, (NAMESPACE, name))
    return obj is not None and dict(labels).items() <= (obj["metadata"].get("labels") or {}).items()


LOST = [(kind, name, "one") for kind, name in OURS] + [(*OURS[0], "all"), (*OURS[-1], "all")]


@pytest.mark.parametrize(("kind", "name", "labels"), LOST, ids=lambda one: getattr(one, "kind", one))
def test_what_lost_its_labels_is_found_by_name_and_gets_them_back(kind: Kind, name: str, labels: str) -> None:
    async def story(world: World) -> None:
        operator = world.operator()
        storm = Storm(operator)
        operator.campaign()
        await settled(world, operator, client={"type": "Simulator", "simulator": {"storage": {"size": "1Gi"}}})
        obj = world.server.get(kind, (NAMESPACE, name))
        assert obj is not None
        had, uid = obj["metadata"]["labels"], obj["metadata"]["uid"]
        storm.begin()
        world.server.merge("user", kind, (NAMESPACE, name), {"metadata": {"labels": {CLUSTER: None} if labels == "one" else None}})
        await world.until(lambda: has_labels(world, kind, name, had), within=60, what="labelled again")
        await world.until_done(within=60)
        assert (storm.creates, (world.server.get(kind, (NAMESPACE, name)) or {})["metadata"]["uid"]) == ([], uid)
        await world.stays_silent(60.0)
        assert storm.reads() < 200, "as many as were read in one second"

    for seed in range(SEEDS):
        simulate(story, seed)


def test_a_shard_is_handed_over_at_once_although_its_service_lost_its_label() -> None:
    async def story(world: World) -> None:
        await settled(world, spares=2)
        old = world.holder(1)
        assert old is not None
        world.server.merge("user", SERVICE, (NAMESPACE, f"{NAME}-shard-1"), {"metadata": {"labels": None}})
        world.delete_pod(old, force=True)
        await world.until(lambda: world.holder(1) not in {None, old}, within=1.0, what="handed over")
        await world.until_done(within=120)

    for seed in range(SEEDS):
        simulate(story, seed)


def victims(world: World) -> Iterator[str]:
    holder = world.holder(0)
    spare = next(one for one in world.coreapps() if one not in {world.holder(0), world.holder(1)})
    assert holder is not None
    yield from (holder.name[1], spare.name[1], f"{NAME}-simulator-0")


@pytest.mark.parametrize("which", ["holder", "spare", "simulator"])
@pytest.mark.parametrize("label", [CLUSTER, COMPONENT, "all"])
def test_a_pod_that_lost_the_label_of_its_set_comes_back_to_it(which: str, label: str) -> None:
    """Its StatefulSet lets go of it, and can make no other under its name."""

    async def story(world: World) -> None:
        await settled(world)
        name = dict(zip(("holder", "spare", "simulator"), victims(world), strict=True))[which]
        pod = world.server.get(POD, (NAMESPACE, name))
        assert pod is not None
        uid, owners = pod["metadata"]["uid"], pod["metadata"]["ownerReferences"]
        lost = pod["metadata"]["labels"].keys() - {"controller-revision-hash"} if label == "all" else {label}
        world.server.merge("user", POD, (NAMESPACE, name), {"metadata": {"labels": dict.fromkeys(lost)}})
        selector = {CLUSTER: NAME, COMPONENT: name.removeprefix(f"{NAME}-").rpartition("-")[0]}

        def is_back() -> bool:
            found = world.server.get(POD, (NAMESPACE, name))
            meta = (found or {}).get("metadata") or {}
            return has_labels(world, POD, name, selector) and meta.get("ownerReferences") == owners

        await world.until(is_back, within=60, what="labelled and owned again")
        assert (world.server.get(POD, (NAMESPACE, name)) or {})["metadata"]["uid"] == uid, "nothing was ended"
        await world.until_done(within=120)
        await world.stays_silent(60.0)

    for seed in range(SEEDS):
        simulate(story, seed)


# --- strangers with our labels


STRANGERS = [
    ("debug", "Foo_Bar"),
    ("debug", "ghost"),
    ("debug", "a" * 60),
    ("debug", NAME),
    (f"{NAME}-coreapp-0-copy", NAME),
    ("x-coreapp-0", "x"),
]


@pytest.mark.parametrize(("name", "cluster"), STRANGERS)
def test_a_strangers_pod_wakes_nobody_and_is_not_written(name: str, cluster: str) -> None:
    async def story(world: World) -> None:
        operator = await settled(world)
        await world.pause(30)
        before = sum(operator.kube.reads.values())
        await world.pause(10)
        quiet = sum(operator.kube.reads.values()) - before
        labels = {CLUSTER: cluster, COMPONENT: "coreapp", ROLE: "active", SHARD: "0", EPOCH: "none-x"}
        world.server.create("user", stranger(name, labels))
        before, writes = sum(operator.kube.reads.values()), world.laws.writes
        for number in range(100):
            note = {"metadata": {"annotations": {"somebody.example/count": str(number)}}}
            world.server.merge("user", POD, (NAMESPACE, name), note)
            await world.pause(0.1)
        assert sum(operator.kube.reads.values()) - before <= quiet + 40
        assert world.laws.writes == writes
        assert operator._reconciler is not None
        assert [*operator._reconciler._clusters] == [Key(NAMESPACE, NAME)]
        pod = world.server.get(POD, (NAMESPACE, name))
        assert pod is not None
        assert pod["metadata"]["labels"] == labels

    for seed in range(SEEDS):
        simulate(story, seed)


def test_a_strangers_pod_is_no_webapp_and_its_image_no_matter() -> None:
    async def story(world: World) -> None:
        await settled(world)
        labels = {CLUSTER: NAME, COMPONENT: "webapp", "pod-template-hash": "other"}
        world.server.create("user", stranger("debug", labels))
        status = {
            "podIP": "10.9.9.9",
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no"}}}],
        }
        world.server.merge("user", POD, (NAMESPACE, "debug"), {"status": status}, status=True)
        world.edit(shards=4)
        await world.until_done(within=120)
        shown = (world.server.get(WAC, (NAMESPACE, NAME)) or {})["status"]["display"]["webapps"]
        assert shown == "1/1"
        await world.stays_silent(60.0)

    for seed in range(SEEDS):
        simulate(story, seed)


def test_the_loop_of_a_cluster_that_is_not_there_ends_although_its_parts_cannot_be_read() -> None:
    async def story(world: World) -> None:
        operator, kube = blind_operator(world)
        operator.campaign()
        await settled(world, operator)
        kube.failing[POD_KIND] = Fault(Refused("HTTP 403, Forbidden", code=403, reason="Forbidden"))
        assert operator._reconciler is not None
        clusters, ghost = operator._reconciler._clusters, Key(NAMESPACE, "ghost")
        operator.wake(ghost)
        assert ghost in clusters
        await world.until(lambda: ghost not in clusters, within=15, what="ended")
        assert Key(NAMESPACE, NAME) in clusters
        kube.failing.clear()
        await world.until_done(within=60)

    for seed in range(SEEDS):
        simulate(story, seed)
