"""What belongs to a cluster is known by its name and its owner's uid, in the simulation. The judge knows names and labels by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pytest

from whatsapp_operator.core.names import Key
from whatsapp_operator.shell.kube.errors import Rejected
from whatsapp_operator.shell.kube.kinds import POD as POD_KIND

from .kinds import DEPLOYMENT, NETWORKPOLICY, PDB, POD, PVC, SECRET, SERVICE, STATEFULSET, WAC, Kind, Obj
from .operators import Operator
from .test_partial_sight import Fault, PartlyBlind, says
from .world import NAME, NAMESPACE, World, simulated

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
    """A foreign object with the cluster's label."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"namespace": NAMESPACE, "name": name, "labels": {CLUSTER: NAME}},
        "spec": spec,
    }


def stranger(name: str, labels: Mapping[str, str]) -> Obj:
    pod = foreign(POD, name, containers=[{"name": "main", "image": "other:1"}])
    return {**pod, "metadata": {**pod["metadata"], "labels": dict(labels)}}


async def settled(world: World, operator: Operator | None = None, **spec: Any) -> Operator:
    world.create(**({"shards": 2, "spares": 1} | spec))
    operator = operator or lone_operator(world)
    await world.until_done(within=120)
    return operator


# --- a copy of a shard's Service


@simulated()
async def test_a_copied_shard_service_gives_no_shard_a_second_holder(world: World) -> None:
    await settled(world, spares=2)
    service = world.server.get(SERVICE, (NAMESPACE, f"{NAME}-shard-0"))
    assert service is not None
    names = ("public", f"{NAME}-shard-0-public", f"{NAME}-shard-00", "a-shard-0")
    copies = {name: world.server.create("user", copied(service, name)) for name in names}
    for _ in range(2):
        old = world.holding(0)
        world.delete_pod(old, force=True)
        await world.until(lambda old=old: world.holder(0) not in {None, old}, within=1.0, what="handed over")  # type: ignore[misc]
        await world.until_done(within=120)
        assert len(active(world, 0)) == 1
    world.edit(shards=1)
    await world.until_done(within=180)
    assert {name: world.server.get(SERVICE, (NAMESPACE, name)) for name in names} == copies, "a copy is neither written nor deleted"


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


@pytest.mark.parametrize(("kind", "name"), [(STATEFULSET, "coreapp"), (SECRET, "admin"), (PDB, "webapp"), (SERVICE, "shard-0")])
@simulated()
async def test_an_object_that_lost_its_owner_reference_needs_only_that_back(world: World, kind: Kind, name: str) -> None:
    """To delete it would cost messages, or the password that the client has."""
    await settled(world)
    where = (NAMESPACE, f"{NAME}-{name}")
    before, pods = metadata(world, kind, where[1]), {pod["metadata"]["uid"] for pod in world.laws.pods()}
    world.server.merge("user", kind, where, {"metadata": {"ownerReferences": None}})
    await world.until(lambda: world.condition("Stalled")[1] == "NameConflict", within=60, what="it is said")
    world.server.merge("user", kind, where, {"metadata": {"ownerReferences": before["ownerReferences"]}})
    await world.until_done(within=60)
    assert metadata(world, kind, where[1])["uid"] == before["uid"]
    assert {pod["metadata"]["uid"] for pod in world.laws.pods()} == pods


@simulated()
async def test_foreign_objects_with_our_label_and_other_names_block_nothing(world: World) -> None:
    await settled(world)
    made = {kind: world.server.create("user", foreign(kind, "theirs", **spec))["metadata"]["uid"] for kind, spec in SPECS.items()}
    world.edit(shards=4)
    await world.until_done(within=120)
    assert {kind: (world.server.get(kind, (NAMESPACE, "theirs")) or {})["metadata"]["uid"] for kind in SPECS} == made
    await world.stays_silent(60.0)


@simulated()
async def test_a_foreign_service_under_a_name_that_is_needed_is_named_and_hinders_only_what_needs_it(world: World) -> None:
    await settled(world)
    taken = f"{NAME}-shard-3"
    world.server.create("user", foreign(SERVICE, taken, selector={"app": "x"}))
    await world.stays_silent(10.0)
    world.edit(shards=4)
    await world.until(says(world, "Stalled", "True", "NameConflict"), within=60, what="reported")
    assert f"Service {taken}" in world.condition("Stalled")[2]
    assert world.account.shards == 2
    old = world.holding(0)
    world.delete_pod(old, force=True)
    await world.until(lambda: world.holder(0) not in {None, old}, within=1.0, what="handed over")
    world.server.delete("user", SERVICE, (NAMESPACE, taken))
    await world.until_done(within=120)


@simulated()
async def test_a_policy_that_an_earlier_release_named_like_the_cluster_makes_room_for_other_clusters(world: World) -> None:
    await settled(world)
    policy = world.server.get(NETWORKPOLICY, (NAMESPACE, f"{NAME}-coreapp"))
    assert policy is not None
    world.server.create("user", copied(policy, NAME))
    await world.until(lambda: world.server.get(NETWORKPOLICY, (NAMESPACE, NAME)) is None, within=60, what="gone")
    await world.until_done(within=10)
    await world.stays_silent(60.0)


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


class CallCounter:
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


def metadata(world: World, kind: Kind, name: str) -> Obj:
    found: Obj = (world.server.get(kind, (NAMESPACE, name)) or {})["metadata"]
    return found


def has_labels(world: World, kind: Kind, name: str, labels: Mapping[str, str]) -> bool:
    obj = world.server.get(kind, (NAMESPACE, name))
    return obj is not None and dict(labels).items() <= (obj["metadata"].get("labels") or {}).items()


@pytest.mark.parametrize("lost", ["the cluster's", "all"])
@simulated()
async def test_what_lost_its_labels_is_found_by_name_and_gets_them_back(world: World, lost: str) -> None:
    operator = world.operator()
    calls = CallCounter(operator)
    operator.campaign()
    await settled(world, operator, client={"type": "Simulator", "simulator": {"storage": {"size": "1Gi"}}})
    had = {one: metadata(world, *one) for one in OURS}
    calls.begin()
    for kind, name in OURS:
        labels = None if lost == "all" else {CLUSTER: None}
        world.server.merge("user", kind, (NAMESPACE, name), {"metadata": {"labels": labels}})
    for (kind, name), meta in had.items():
        again = partial(has_labels, world, kind, name, meta["labels"])
        await world.until(again, within=60, what=f"{kind.kind} {name} is labelled again")
    await world.until_done(within=60)
    assert calls.creates == []
    assert {one: metadata(world, *one)["uid"] for one in OURS} == {one: meta["uid"] for one, meta in had.items()}
    await world.stays_silent(60.0)
    assert calls.reads() < 200, "as many as were read in one second"


@simulated()
async def test_a_shard_is_handed_over_at_once_although_its_service_lost_its_label(world: World) -> None:
    await settled(world, spares=2)
    old = world.holding(1)
    world.server.merge("user", SERVICE, (NAMESPACE, f"{NAME}-shard-1"), {"metadata": {"labels": None}})
    world.delete_pod(old, force=True)
    await world.until(lambda: world.holder(1) not in {None, old}, within=1.0, what="handed over")
    await world.until_done(within=120)


def victims(world: World) -> Iterator[str]:
    holder = world.holder(0)
    spare = next(one for one in world.coreapps() if one not in {world.holder(0), world.holder(1)})
    assert holder is not None
    yield from (holder.name[1], spare.name[1], f"{NAME}-simulator-0")


@pytest.mark.parametrize("label", [CLUSTER, COMPONENT, "all"])
@simulated()
async def test_pods_that_lost_the_labels_of_their_sets_come_back_to_them(world: World, label: str) -> None:
    """A StatefulSet lets go of such a pod, and can make no other under its name."""
    await settled(world)
    had = {name: metadata(world, POD, name) for name in victims(world)}
    for name, meta in had.items():
        lost = meta["labels"].keys() - {"controller-revision-hash"} if label == "all" else {label}
        world.server.merge("user", POD, (NAMESPACE, name), {"metadata": {"labels": dict.fromkeys(lost)}})

    def are_back() -> bool:
        return all(
            has_labels(world, POD, name, {part: meta["labels"][part] for part in (CLUSTER, COMPONENT)})
            and metadata(world, POD, name).get("ownerReferences") == meta["ownerReferences"]
            for name, meta in had.items()
        )

    await world.until(are_back, within=60, what="labelled and owned again")
    assert [metadata(world, POD, name)["uid"] for name in had] == [meta["uid"] for meta in had.values()], "nothing was ended"
    await world.until_done(within=120)
    await world.stays_silent(60.0)


# --- strangers with the operator's labels


STRANGERS = {
    "debug-0": "Foo_Bar",
    "debug-1": "ghost",
    "debug-2": "a" * 60,
    "debug-3": NAME,
    f"{NAME}-coreapp-0-copy": NAME,
    "x-coreapp-0": "x",
}
"""Names of pods, and of the clusters that their labels name."""


@pytest.mark.parametrize("shard", ["0", "7", None])
@simulated()
async def test_an_epoch_that_a_person_made_up_is_taken_off_and_is_no_reason_to_write_for_long(world: World, shard: str | None) -> None:
    """It is above every version that the Service has had, so no touch makes it a past one."""
    await settled(world)
    spare = next(pod for pod in world.server.list(POD, NAMESPACE, {ROLE: "standby", COMPONENT: "coreapp"}))
    name = spare["metadata"]["name"]
    labels = {EPOCH: "999999999-x"} | ({SHARD: shard} if shard else {})
    world.server.merge("user", POD, (NAMESPACE, name), {"metadata": {"labels": labels}})
    await world.pause(5.0)
    pod = world.server.get(POD, (NAMESPACE, name))
    assert pod is not None
    assert not {EPOCH, SHARD} & pod["metadata"]["labels"].keys()
    await world.stays_silent(60.0)
    holder = world.holding(0)
    world.delete_pod(holder)
    await world.until(lambda: active(world, 0) == [name], within=5, what="it is a standby again")


@simulated()
async def test_strangers_pods_wake_nobody_and_are_not_written(world: World) -> None:
    operator = await settled(world)
    await world.pause(30)
    before = sum(operator.kube.reads.values())
    await world.pause(10)
    quiet = sum(operator.kube.reads.values()) - before
    for name, cluster in STRANGERS.items():
        labels = {CLUSTER: cluster, COMPONENT: "coreapp", ROLE: "active", SHARD: "0", EPOCH: f"1-{name}"}
        world.server.create("user", stranger(name, labels))
    before, writes = sum(operator.kube.reads.values()), world.laws.writes
    for number in range(100):
        for name in STRANGERS:
            note = {"metadata": {"annotations": {"other.example/count": str(number)}}}
            world.server.merge("user", POD, (NAMESPACE, name), note)
        await world.pause(0.1)
    assert sum(operator.kube.reads.values()) - before <= quiet + 40
    assert world.laws.writes == writes
    assert operator._reconciler is not None
    assert [*operator._reconciler._clusters] == [Key(NAMESPACE, NAME)]
    assert {name: metadata(world, POD, name)["labels"][CLUSTER] for name in STRANGERS} == STRANGERS


@pytest.mark.parametrize("spares", [1, 0])
@simulated()
async def test_a_shard_moves_away_from_a_foreign_pod_with_the_labels_of_its_holder(world: World, spares: int) -> None:
    """As `kubectl debug --copy-to --keep-labels` makes one: the Service of the shard leads to both."""
    await settled(world, spares=spares)
    await world.pause(10)
    old = world.holding(0)
    world.laws.copies.add("debug")
    labels = {**metadata(world, POD, old.name[1])["labels"]}
    world.server.create("user", stranger("debug", labels))
    if spares:
        await world.until(lambda: world.holder(0) is not old, within=32, what="moved")
    else:
        says_so = "shard 0: acme-coreapp-0 (LabelConflict with pod debug: remove its label multiconnect.dev/epoch)"
        await world.until(lambda: world.condition("Ready")[:2] == ("False", "Unserved"), within=32, what="named")
        assert says_so in world.condition("Ready")[2]
        world.server.merge("user", POD, (NAMESPACE, "debug"), {"metadata": {"labels": {EPOCH: None}}})
        del labels[EPOCH]
    await world.until_done(within=60)
    selector = (world.server.get(SERVICE, (NAMESPACE, f"{NAME}-shard-0")) or {})["spec"]["selector"]
    assert len(world.server.list(POD, NAMESPACE, selector)) == 1
    assert metadata(world, POD, "debug")["labels"] == labels, "it is not the operator's"
    await world.stays_silent(120.0)


@simulated()
async def test_a_copy_that_is_made_again_and_again_is_no_endless_loop(world: World) -> None:
    await settled(world)
    before = len(world.laws.handovers)
    world.laws.copies |= {f"debug-{number}" for number in range(100)}
    for number in range(60):
        labels = metadata(world, POD, world.holding(0).name[1])["labels"]
        world.server.create("user", stranger(f"debug-{number}", labels))
        await world.pause(1.0)
    assert 1 <= len(world.laws.handovers) - before <= 3


@simulated()
async def test_a_strangers_pod_is_no_webapp_and_its_image_no_matter(world: World) -> None:
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


@simulated()
async def test_the_loop_of_a_cluster_that_is_not_there_ends_although_its_parts_cannot_be_read(world: World) -> None:
    operator, kube = world.operator_by(PartlyBlind)
    operator.campaign()
    await settled(world, operator)
    kube.failing[POD_KIND] = Fault(Rejected("HTTP 403, Forbidden", code=403, reason="Forbidden"))
    assert operator._reconciler is not None
    clusters, ghost = operator._reconciler._clusters, Key(NAMESPACE, "ghost")
    operator.wake(ghost)
    assert ghost in clusters
    await world.until(lambda: ghost not in clusters, within=15, what="ended")
    assert Key(NAMESPACE, NAME) in clusters
    kube.failing.clear()
    await world.until_done(within=60)
