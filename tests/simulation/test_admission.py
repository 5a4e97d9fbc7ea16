"""What the API server makes of a write is settled as far as it goes: written once, reported in a condition, and nothing waits for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from .apiserver import Change, Invalid
from .kinds import DEPLOYMENT, NETWORKPOLICY, SERVICE, STATEFULSET, WAC, Kind, Obj
from .machines import revision_of
from .world import NAME, NAMESPACE, REVISION, World, simulated

WORKLOADS = (STATEFULSET, DEPLOYMENT)
Mutate = Callable[[Kind, Obj], Obj]


def with_template(obj: Obj, template: Obj) -> Obj:
    return {**obj, "spec": {**obj["spec"], "template": template}}


def with_pod_spec(obj: Obj, **spec: Any) -> Obj:
    template = obj["spec"]["template"]
    return with_template(obj, {**template, "spec": {**template["spec"], **spec}})


def sidecar_added(kind: Kind, obj: Obj) -> Obj:
    """As a service mesh does it: the same again changes nothing."""
    if kind not in WORKLOADS:
        return obj
    containers = obj["spec"]["template"]["spec"]["containers"]
    others = [one for one in containers if one["name"] != "proxy"]
    return with_pod_spec(obj, containers=[*others, {"name": "proxy", "image": "mesh.example/proxy:1"}])


def images_rewritten(kind: Kind, obj: Obj) -> Obj:
    """As a mirror of a registry does it."""
    if kind not in WORKLOADS:
        return obj
    mirror = "mirror.example/"
    containers = obj["spec"]["template"]["spec"]["containers"]
    return with_pod_spec(obj, containers=[{**one, "image": mirror + one["image"].removeprefix(mirror)} for one in containers])


def label_added(kind: Kind, obj: Obj) -> Obj:
    """As a policy does it, on the object and on what it makes."""
    labelled = {**obj, "metadata": {**obj["metadata"], "labels": {**(obj["metadata"].get("labels") or {}), "cost-centre": "7"}}}
    if kind not in WORKLOADS:
        return labelled if kind in {SERVICE, NETWORKPOLICY} else obj
    template = obj["spec"]["template"]
    meta = template["metadata"]
    return with_template(labelled, {**template, "metadata": {**meta, "labels": {**meta["labels"], "cost-centre": "7"}}})


def fields_dropped(kind: Kind, obj: Obj) -> Obj:
    """As an API server does it that does not know them yet."""
    if kind is NETWORKPOLICY:
        return {**obj, "spec": {key: value for key, value in obj["spec"].items() if key != "policyTypes"}}
    if kind not in WORKLOADS:
        return obj
    spec = obj["spec"]["template"]["spec"]
    return with_template(
        obj, {**obj["spec"]["template"], "spec": {key: value for key, value in spec.items() if key != "topologySpreadConstraints"}}
    )


KINDS_OF_CHANGE: dict[str, tuple[Mutate, tuple[str, ...]]] = {
    "sidecar added": (sidecar_added, ("StatefulSet acme-coreapp", "containers[proxy]")),
    "image rewritten": (images_rewritten, ("StatefulSet acme-coreapp", "containers[coreapp].image")),
    "label added": (label_added, ()),
    "field dropped": (fields_dropped, ("topologySpreadConstraints", "NetworkPolicy acme", "policyTypes")),
}
"""What admission does, and what of it the status is to name: a label more is nobody's loss."""


def is_at_rest(world: World) -> bool:
    """All is as it is wanted, as far as admission lets it, and the status says so."""
    wac = world.server.get(WAC, (NAMESPACE, NAME))
    if wac is None or any(world.undone_in_truth(wac)):
        return False
    text = {kind: world.condition(kind)[0] for kind in ("Ready", "Reconciling", "Stalled")}
    seen = (wac.get("status") or {}).get("observedGeneration") == wac["metadata"]["generation"]
    return seen and text == {"Ready": "True", "Reconciling": "False", "Stalled": "False"}


async def comes_to_rest(world: World, within: float = 300.0) -> None:
    await world.until(lambda: is_at_rest(world), within=within, what="at rest")
    await world.pause(5.0)
    await world.until(lambda: is_at_rest(world), within=60, what="at rest still")


async def stays_silent(world: World, seconds: float = 60.0) -> None:
    """Nothing is sent, not even what would change nothing."""
    operator = world.operators[-1]
    before, events = operator.kube.sent.copy(), world.laws.events
    await world.pause(seconds)
    sent = {what: times - before[what] for what, times in operator.kube.sent.items() if times != before[what] and what[1] != "Lease"}
    assert (sent, world.laws.events - events) == ({}, 0)


def assert_reported(world: World, named: tuple[str, ...]) -> None:
    status, reason, message = world.condition("Stalled")
    assert (status, reason) == ("False", "ChangedByAdmission" if named else "UpToDate")
    assert [part for part in named if part not in message] == [], message


def replaced(world: World) -> Counter[str]:
    """How often the operator has put an object of which kind."""
    return Counter({kind: times for (verb, kind), times in world.operators[-1].kube.sent.items() if verb == "replace"})


def stored_replacements(world: World) -> Counter[str]:
    """Count from now on how often an object of which kind that the operator put was stored."""
    stored = Counter[str]()

    def note(change: Change) -> None:
        if change.verb == "replace" and world.laws.is_operator(change.actor):
            stored[change.kind.kind] += 1

    world.server.checks.append(note)
    return stored


@pytest.mark.parametrize("after", ["before it is made", "while it is at rest"])
@pytest.mark.parametrize("kind", KINDS_OF_CHANGE)
@simulated()
async def test_a_cluster_comes_to_rest_whatever_admission_makes_of_it(world: World, kind: str, after: str) -> None:
    mutate, named = KINDS_OF_CHANGE[kind]
    if after == "before it is made":
        world.server.admission.append(mutate)
    world.create(shards=2, spares=1)
    world.operator().lead(1)
    await comes_to_rest(world)
    if after != "before it is made":
        world.server.admission.append(mutate)
        for name in ("coreapp", "simulator"):
            # A user's write, which admission changes, too.
            world.server.merge("user", STATEFULSET, (NAMESPACE, f"{NAME}-{name}"), {"metadata": {"annotations": {"a": "b"}}})
        world.server.merge("user", NETWORKPOLICY, (NAMESPACE, f"{NAME}-coreapp"), {"metadata": {"annotations": {"a": "b"}}})
        await comes_to_rest(world)
    await stays_silent(world)
    assert_reported(world, named)


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        *((kind, asked) for kind in KINDS_OF_CHANGE for asked in ("resize", "roll-out")),
        ("sidecar added", "shrink"),
        ("image rewritten", "roll-out and resize"),
    ],
)
@simulated()
async def test_what_is_asked_is_done_whatever_admission_makes_of_it(world: World, kind: str, asked: str) -> None:
    mutate, named = KINDS_OF_CHANGE[kind]
    world.server.admission.append(mutate)
    world.create(shards=2, spares=1)
    world.operator().lead(1)
    await comes_to_rest(world)
    before, stored = {pod["metadata"]["uid"] for pod in world.laws.pods()}, stored_replacements(world)
    rolls = "roll-out" in asked
    spec: dict[str, Any] = {"shards": 1 if asked == "shrink" else 4} if asked != "roll-out" else {}
    if rolls:
        spec["coreapp"] = {"pod": {"annotations": {"example.com/release": "b"}}}
    world.edit(**spec)
    await comes_to_rest(world)
    after = {pod["metadata"]["uid"] for pod in world.laws.pods()}
    # The budget is shut and opened for each call to the client, however often that is.
    del stored["PodDisruptionBudget"]
    # Scaled in the same breath, it may be in conflict; but it is stored once.
    assert stored == ({"StatefulSet": 1} if rolls else {})
    assert not (before & after) if rolls else before & after, "pods are replaced when that is asked, and only then"
    await stays_silent(world)
    assert_reported(world, named)


@pytest.mark.parametrize("kind", [kind for kind, (_, named) in KINDS_OF_CHANGE.items() if named])
@simulated()
async def test_another_leader_writes_each_object_once_more_at_most(world: World, kind: str) -> None:
    mutate, named = KINDS_OF_CHANGE[kind]
    world.server.admission.append(mutate)
    world.create(shards=2, spares=1)
    first = world.operator()
    first.lead(1)
    await comes_to_rest(world)
    pods = {pod["metadata"]["uid"] for pod in world.laws.pods()}
    first.kill()
    world.operator().lead(2)
    await world.pause(10.0)
    await comes_to_rest(world)
    sent = world.operators[-1].kube.sent
    # There are so many of each that admission changes.
    most = {"StatefulSet": 2, "Deployment": 1, "NetworkPolicy": 3}
    assert all(times <= most[kind] for (verb, kind), times in sent.items() if verb == "replace"), sent
    assert {pod["metadata"]["uid"] for pod in world.laws.pods()} == pods, "and no pod is replaced"
    await stays_silent(world)
    assert_reported(world, named)


@simulated()
async def test_what_admission_no_longer_changes_is_put_right_with_the_next_edit(world: World) -> None:
    world.server.admission.append(images_rewritten)
    world.create(shards=2, spares=1)
    world.operator().lead(1)
    await comes_to_rest(world)
    world.server.admission.clear()
    await stays_silent(world)
    world.edit(coreapp={"pod": {"annotations": {"example.com/release": "b"}}}, webapp={"replicas": 2})
    await comes_to_rest(world)
    workload = world.server.get(STATEFULSET, (NAMESPACE, f"{NAME}-coreapp"))
    assert workload is not None
    assert not workload["spec"]["template"]["spec"]["containers"][0]["image"].startswith("mirror.example/")


@simulated()
async def test_what_a_user_changes_in_addition_to_admission_is_put_right(world: World) -> None:
    """A field that admission leaves alone is still the operator's."""
    world.server.admission.append(sidecar_added)
    world.create(shards=2, spares=1)
    world.operator().lead(1)
    await comes_to_rest(world)
    name = (NAMESPACE, f"{NAME}-coreapp")
    world.server.merge("user", STATEFULSET, name, {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 77}}}})

    def is_right() -> bool:
        workload = world.server.get(STATEFULSET, name)
        return workload is not None and workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 10

    await world.until(is_right, within=60, what="put right")
    await comes_to_rest(world)
    await stays_silent(world)


class RewritingWebhook:
    """Writes another image with each write, so that no write ever comes to rest by itself."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, kind: Kind, obj: Obj) -> Obj:
        if kind is not STATEFULSET or obj["metadata"]["name"] != f"{NAME}-coreapp":
            return obj
        self.times += 1
        (first, *others) = obj["spec"]["template"]["spec"]["containers"]
        image = first["image"].partition("@")[0]
        return with_pod_spec(obj, containers=[{**first, "image": f"{image}@{self.times}"}, *others])


@simulated()
async def test_an_image_that_is_another_after_each_write_rolls_no_pod_again_and_again(world: World) -> None:
    world.server.admission.append(RewritingWebhook())
    world.create(shards=2, spares=1)
    world.operator().lead(1)
    await comes_to_rest(world)
    await stays_silent(world)
    for spec in ({"shards": 4}, {"coreapp": {"pod": {"annotations": {"example.com/release": "b"}}}}, {"shards": 2}):
        made = world.server.revision
        world.edit(**spec)
        await comes_to_rest(world, within=600)
        await stays_silent(world)
        assert world.server.revision > made


@pytest.mark.parametrize("pause", [0.05, 2.0])
@simulated()
async def test_a_writer_that_answers_each_write_of_the_operator_is_given_way_to(world: World, pause: float) -> None:
    """No webhook: another controller, which is not distinguished from a person until it has done so a few times."""
    world.create(shards=2, spares=1)
    world.operator().lead(1)
    await comes_to_rest(world)
    name, image = (NAMESPACE, f"{NAME}-coreapp"), "other.example/coreapp:1"

    def insist() -> None:
        workload = world.server.get(STATEFULSET, name)
        if workload is not None and workload["spec"]["template"]["spec"]["containers"][0]["image"] != image:
            (first, *others) = workload["spec"]["template"]["spec"]["containers"]
            body = {"spec": {"template": {"spec": {"containers": [{**first, "image": image}, *others]}}}}
            world.server.merge("gitops", STATEFULSET, name, body)
        world.loop.call_later(pause, insist)

    insist()
    await world.pause(120.0)
    await comes_to_rest(world, within=600)
    workload = world.server.get(STATEFULSET, name)
    assert workload is not None
    assert {pod["metadata"]["labels"][REVISION] for pod in world.laws.pods()} == {revision_of(workload)}
    await stays_silent(world)
    assert_reported(world, ("StatefulSet acme-coreapp", "containers[coreapp].image"))
    world.edit(shards=4)
    await comes_to_rest(world, within=600)
    await stays_silent(world)


@simulated()
async def test_what_an_older_crd_drops_from_the_status_is_not_written_again_and_again(world: World) -> None:
    world.server.not_in_status |= {"failuresTolerated", "coreapp"}
    world.create(shards=2, spares=1)
    world.operator().lead(1)
    await comes_to_rest(world)
    await stays_silent(world, 300.0)
    world.edit(spares=2)
    await comes_to_rest(world)
    await stays_silent(world, 300.0)


@simulated()
async def test_a_change_that_is_rejected_holds_up_no_resize(world: World) -> None:
    """As by a policy that denies an annotation: that is said, and what does not need it goes on."""

    def denied(kind: Kind, obj: Obj) -> Obj:
        if kind is STATEFULSET and "example.com/release" in (obj["spec"]["template"]["metadata"].get("annotations") or {}):
            raise Invalid("admission webhook denied the request")
        return obj

    world.server.admission.append(denied)
    world.create(shards=2, spares=1)
    world.operator().lead(1)
    await comes_to_rest(world)
    world.edit(shards=4, coreapp={"pod": {"annotations": {"example.com/release": "b"}}})
    wac = world.server.get(WAC, (NAMESPACE, NAME))
    assert wac is not None
    await world.until(lambda: world.account.shards == 4 and not [*world.undone_in_truth(wac)], within=120, what="resized")
    assert world.condition("Stalled")[:2] == ("True", "ChangeRejected")
    world.server.admission.clear()
    await comes_to_rest(world)
