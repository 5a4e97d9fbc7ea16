"""A changed pod template is rolled out: standbys first, one at a time, with all spares ready throughout, and nothing fails over."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from whatsapp_operator.core import facts, rollout
from whatsapp_operator.core.actions import Delete
from whatsapp_operator.core.facts import Facts

from .apiserver import TooManyRequests
from .kinds import STATEFULSET, WAC, Obj, is_ready
from .laws import LawBroken
from .machines import NOWHERE, revision_of
from .spares import watch_the_promise
from .world import NAME, NAMESPACE, REVISION, World, simulate, simulated

RELEASE = {"pod": {"annotations": {"example.com/release": "b"}}}


def outdated(world: World) -> list[str]:
    workload = world.server.get(STATEFULSET, (NAMESPACE, f"{NAME}-coreapp"))
    assert workload is not None
    wanted = revision_of(workload)
    return [pod["metadata"]["name"] for pod in world.laws.pods() if pod["metadata"]["labels"][REVISION] != wanted]


def assert_nothing_failed_over(world: World, *, moves: int) -> None:
    """At least so many shards were moved, each off a pod that was outdated or to go, and by no other cause."""
    causes = [sorted(causes) for _, causes in world.laws.moves]
    assert len(causes) >= moves
    assert all(set(one) & {"outdated", "surplus"} for one in causes), causes
    assert {move.claim for move, _ in world.laws.moves} <= {"RolledOut", "Consolidated"}


async def rolled_out(world: World, *, shards: int, spares: int) -> None:
    await world.started(shards=shards, spares=spares)
    deleted = watch_the_promise(world, shards=shards, spares=spares)
    # Longer than what the operator waits between two steps anyway.
    world.cluster.start_seconds = (5.0, 8.0)
    world.edit(coreapp=RELEASE)
    await world.pause(1.0)
    await world.until_done(within=300)
    assert outdated(world) == []
    assert len(deleted) == shards + spares, "each was ended once"
    assert_nothing_failed_over(world, moves=shards)
    assert all(world.holder(shard) is not None for shard in range(shards))


@pytest.mark.parametrize(("shards", "spares"), [(1, 0), (1, 1), (2, 1), (4, 2)])
@simulated()
async def test_every_coreapp_gets_the_new_template_and_no_spare_is_missed(world: World, shards: int, spares: int) -> None:
    await rolled_out(world, shards=shards, spares=spares)
    await world.stays_silent()
    assert world.account.restarts == (1 if shards > 1 else 0)


FAULTY, REPAIRED = ({"pod": {"annotations": {"example.com/sidecar": state}}} for state in ("faulty", "repaired"))
"""An injector puts a container into the pods by this annotation, and that container never becomes ready."""


def has_faulty_sidecar(pod: Obj) -> bool:
    return (pod["metadata"].get("annotations") or {}).get("example.com/sidecar") == "faulty"


@simulated(seeds=3)
async def test_sidecars_that_are_not_ready_move_no_shard_and_a_new_template_repairs_them(world: World) -> None:
    await world.started(shards=2, spares=1, coreapp=FAULTY)
    world.cluster.has_unready_sidecar = has_faulty_sidecar
    for machine in world.coreapps():
        world.cluster.check(machine)
    await world.pause(400.0)
    assert world.condition("Ready")[:2] == ("True", "Serving"), "messages reach the Coreapps, which answer"
    assert world.laws.moves == []

    world.edit(coreapp=REPAIRED)
    await world.pause(1.0)
    await world.until_done(within=600)
    assert outdated(world) == []
    assert_nothing_failed_over(world, moves=2)
    await world.stays_silent()


@pytest.mark.parametrize("fails", ["by itself", "with its pod"])
@simulated(seeds=2)
async def test_a_new_template_repairs_sidecars_that_were_not_ready_after_set_shards(world: World, fails: str) -> None:
    """The restart stays overdue: only Coreapps that are ready count as back from it."""
    await world.started(shards=2, spares=2, coreapp=FAULTY)
    world.cluster.has_unready_sidecar = has_faulty_sidecar
    world.edit(shards=4, spares=0)
    await world.until(lambda: world.account.shards == 4, within=60, what="Set Shards")
    for machine in world.coreapps():
        world.cluster.check(machine)
    holder = world.holding(0)
    if fails == "by itself":
        world.cluster.crash(holder)
    else:
        world.delete_pod(holder)
    await world.pause(200.0)
    assert world.condition("Ready")[1] == "RestartOverdue"

    world.edit(coreapp=REPAIRED)
    await world.pause(1.0)
    await world.until_done(within=600)
    assert outdated(world) == []


@simulated(seeds=3)
async def test_a_cluster_whose_sidecars_never_became_ready_begins_to_serve_with_the_right_template(world: World) -> None:
    world.cluster.has_unready_sidecar = has_faulty_sidecar
    world.create(shards=2, spares=1, coreapp=FAULTY)
    world.operator().lead(1)
    await world.pause(400.0)
    assert world.condition("Ready")[0] == "False"

    world.edit(coreapp=REPAIRED)
    await world.pause(1.0)
    await world.until_done(within=900)
    assert outdated(world) == []


@simulated()
async def test_an_image_that_cannot_be_pulled_touches_nothing_and_the_right_one_goes_on(world: World) -> None:
    await world.started(shards=2, spares=1)
    before = {pod["metadata"]["uid"] for pod in world.laws.pods()}
    world.edit(client={"images": {"coreapp": f"{NOWHERE}coreapp:1", "webapp": "wabiz-sim:1"}})
    await world.pause(120.0)
    after = {pod["metadata"]["uid"] for pod in world.laws.pods()}
    assert before < after, "all that were there run on"
    assert len(after - before) == 1, "one more tries the new template"
    status = (world.server.get(WAC, (NAMESPACE, NAME)) or {})["status"]
    text = {one["type"]: (one["status"], one["reason"], one["message"]) for one in status["conditions"]}
    assert text["Ready"][:2] == ("True", "Serving")
    assert text["Reconciling"][:2] == ("False", "ImageUnavailable"), "the roll-out waits for a person, and nobody for the roll-out"
    assert text["Redundant"][:2] == ("True", "SparesReady")
    assert text["Stalled"][:2] == ("True", "ImageUnavailable")
    assert "nowhere.example/coreapp:1" in text["Stalled"][2]
    world.edit(client={"images": {"coreapp": "wabiz-sim:2", "webapp": "wabiz-sim:1"}})
    await world.until_done(within=300)
    assert outdated(world) == []


@simulated()
async def test_the_first_image_that_cannot_be_pulled_is_replaced_by_the_right_one(world: World) -> None:
    """The StatefulSet ends nothing by itself (OnDelete): pods that never came up would wait forever."""
    world.create(shards=2, spares=1, client={"type": "Simulator", "images": {"coreapp": f"{NOWHERE}coreapp:1", "webapp": "wabiz-sim:1"}})
    world.operator().lead(1)
    await world.pause(30.0)
    assert not any(map(is_ready, world.laws.pods()))
    world.edit(client={"images": {"coreapp": "wabiz-sim:2", "webapp": "wabiz-sim:1"}})
    await world.until_done(within=120)


@simulated()
async def test_a_roll_out_is_held_by_pause_and_turned_back_by_an_edit(world: World) -> None:
    await world.started(shards=2, spares=1)
    first = {pod["metadata"]["uid"] for pod in world.laws.pods()}
    watch_the_promise(world, shards=2, spares=1)
    world.edit(coreapp=RELEASE)
    await world.until(lambda: 0 < len(outdated(world)) < 3, within=60, what="half rolled out")
    world.edit(paused=True)
    await world.pause(20.0)
    held = {pod["metadata"]["uid"] for pod in world.laws.pods()}
    await world.pause(60.0)
    assert {pod["metadata"]["uid"] for pod in world.laws.pods()} == held, "nothing goes on while it is paused"
    world.edit(coreapp=None, paused=False)
    await world.until_done(within=300)
    assert outdated(world) == []
    assert first & {pod["metadata"]["uid"] for pod in world.laws.pods()}, "what was not touched yet stays"
    await world.stays_silent()


@pytest.mark.parametrize("after", [0.5, 3.0, 5.0, 8.0, 12.0, 16.0, 20.0])
@simulated()
async def test_another_operator_goes_on_where_one_was_killed(world: World, after: float) -> None:
    operator = await world.started(shards=2, spares=1)
    watch_the_promise(world, shards=2, spares=1)
    world.edit(coreapp=RELEASE)
    await world.pause(after)
    operator.kill()
    await world.pause(1.0)
    world.operator().lead(2)
    await world.until_done(within=300)
    assert outdated(world) == []
    assert_nothing_failed_over(world, moves=2)


@simulated()
async def test_a_holder_that_fails_meanwhile_is_replaced_at_once(world: World) -> None:
    await world.started(shards=2, spares=1)
    world.edit(coreapp=RELEASE)
    await world.until(lambda: 0 < len(outdated(world)) < 3, within=60, what="half rolled out")
    machine, at = world.holding(1), world.loop.time()
    world.delete_pod(machine)
    await world.until(lambda: world.holder(1) not in (machine, None), within=1.0, what="replaced")
    assert world.loop.time() - at < 0.5
    await world.until_done(within=300)


# --- broken on purpose: each must be seen ----------------------------------------------------------------------------------


def never_wait(patch: pytest.MonkeyPatch) -> None:
    """It does not wait until all are ready and served."""
    patch.setattr(rollout, "all_are_healthy", lambda _: True)


def no_further_coreapp(patch: pytest.MonkeyPatch) -> None:
    """It does not add one first."""
    patch.setattr(facts, "SURGE", 0)


def no_stand_in(patch: pytest.MonkeyPatch) -> None:
    """The added one goes as soon as the last outdated one was ended."""
    patch.setattr(Facts, "desired_replicas", Facts.wanted_replicas)


def holders_like_standbys(patch: pytest.MonkeyPatch) -> None:
    """Holders are ended like standbys: each is a failover."""

    def rude(f: Facts) -> tuple[Delete, ...]:
        pod = next(pod for pod in f.outdated if pod.uid in f.holder_uids)
        return (Delete.of(pod),)

    patch.setattr(rollout, "next_switchover", rude)


MUTANTS = (
    (never_wait, "of spares"),
    (no_further_coreapp, "of spares"),
    (no_stand_in, "of spares"),
    (holders_like_standbys, "of hung pods"),
)


@pytest.mark.parametrize(("broken", "law"), MUTANTS, ids=lambda one: getattr(one, "__name__", one))
def test_a_mutant_is_caught(broken: Callable[[pytest.MonkeyPatch], None], law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)

    with pytest.raises(LawBroken) as caught:
        simulate(lambda world: rolled_out(world, shards=2, spares=1))

    assert caught.value.law == law


@simulated()
async def test_coreapps_that_never_served_anything_block_no_drain(world: World) -> None:
    """A tenant's faulty template must not hold up the nodes of all others."""
    world.cluster.has_unready_sidecar = has_faulty_sidecar
    world.create(shards=2, spares=1, coreapp=FAULTY)
    world.operator().lead(1)
    await world.pause(60.0)
    machines = world.coreapps()
    assert len(machines) == 3

    for machine in machines:
        world.cluster.evict(machine.name)
    await world.pause(60.0)
    assert {machine.uid for machine in world.coreapps()}.isdisjoint(machine.uid for machine in machines)

    world.edit(coreapp=REPAIRED)
    await world.pause(1.0)
    await world.until_done(within=900)
    world.cluster.has_unready_sidecar = lambda _: True
    for machine in world.coreapps():
        world.cluster.check(machine)
    await world.pause(5.0)
    with pytest.raises(TooManyRequests):
        world.cluster.evict(world.coreapps()[0].name)
