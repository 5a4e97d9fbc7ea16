"""Simple scenarios of hangs, lost nodes and an operator that may be wrong itself: what each comes to, and in what time."""

from __future__ import annotations

import pytest

from whatsapp_operator.core import evidence
from whatsapp_operator.core.snapshot import Evidence

from .kinds import POD, STATEFULSET
from .laws import EPOCH, ROLE, SHARD, LawBroken
from .machines import Machine
from .spares import watch_the_promise
from .world import NAME, NAMESPACE, UnfitError, World, simulate, simulated

SEEDS = 5


def test_a_scenario_that_fits_no_seed_fails() -> None:
    @simulated(SEEDS)
    async def unfit(_: World) -> None:
        raise UnfitError

    with pytest.raises(AssertionError, match="none of 5 seeds"):
        unfit()


async def started(world: World, *, shards: int = 2, spares: int = 1, age: float = 20.0) -> None:
    """A cluster that serves, whose operator has watched it for a while."""
    await world.started(shards=shards, spares=spares, elected=True, within=120)
    await world.pause(age)


def replicas(world: World) -> int:
    return int((world.server.get(STATEFULSET, (NAMESPACE, f"{NAME}-coreapp")) or {})["spec"]["replicas"])


def is_there(world: World, machine: Machine) -> bool:
    pod = world.server.get(POD, machine.name)
    return pod is not None and pod["metadata"]["uid"] == machine.uid


def is_alone(world: World, machine: Machine) -> bool:
    """Whether no other Coreapp is on its node."""
    return all(other is machine or other.node is not machine.node for other in world.coreapps())


@simulated(SEEDS)
async def test_a_hung_holder_is_replaced_deleted_and_comes_back_as_a_spare(world: World) -> None:
    await started(world)
    old, before = world.holding(0), world.loop.time()
    world.cluster.hang(old)
    await world.until(lambda: world.holder(0) is not old, within=4.1, what="handed over")
    assert world.loop.time() - before >= 2.4
    assert world.laws.handovers[-1][2] == "ProbeTimeout"
    await world.until(lambda: not is_there(world, old), within=20, what="deleted")
    await world.until_done()
    labels = (world.server.get(POD, old.name) or {})["metadata"]["labels"]
    assert labels[ROLE] == "standby"
    assert not {SHARD, EPOCH} & labels.keys()
    await world.stays_silent(120.0)


@simulated(SEEDS)
async def test_a_holder_that_goes_on_before_its_time_keeps_its_shard(world: World) -> None:
    await started(world)
    old, count = world.holding(0), len(world.laws.handovers)
    for _ in range(5):
        world.cluster.hang(old, 1.9)
        await world.pause(10)
    assert (world.holder(0), len(world.laws.handovers)) == (old, count)


@simulated(SEEDS)
async def test_a_lost_node_is_left_made_good_and_taken_back(world: World) -> None:
    """Law 3, law 7, law 11: the pod is left alone, another stands in after a minute, and goes again when the node is back."""
    await started(world, shards=2, spares=2)
    old = world.holding(0)
    here = [machine for machine in world.coreapps() if machine.node is old.node]
    if len(here) > 2:
        raise UnfitError
    before = world.loop.time()
    world.cluster.node_pool.lose(old.node.name, power=False)
    await world.until(lambda: all(world.holder(shard) not in here for shard in (0, 1)), within=4.1, what="handed over")
    await world.pause(30)
    assert is_there(world, old)
    await world.until(lambda: replicas(world) == 4 + len(here), within=60, what="compensated")
    assert 60 <= world.loop.time() - before <= 80
    assert is_there(world, old), "Terminating, and nothing waits for it"
    await world.pause(30)
    watch_the_promise(world, shards=2, spares=2)
    world.cluster.start_seconds = (5.0, 8.0)
    world.cluster.node_pool.restore(old.node.name)
    await world.until_done()
    assert replicas(world) == 4
    await world.stays_silent(120.0)


@simulated(SEEDS)
async def test_an_old_holder_that_is_back_is_assigned_standby(world: World) -> None:
    await started(world)
    old = world.holding(0)
    if not is_alone(world, old):
        raise UnfitError  # one spare for two lost Coreapps is another case
    assert old.coreapp is not None
    world.cluster.node_pool.lose(old.node.name, power=False)
    await world.until(lambda: world.holder(0) is not old, within=4.1, what="handed over")
    assert old.coreapp.assigned is not None, "it believes to serve"
    world.cluster.node_pool.restore(old.node.name)
    await world.until(lambda: old.coreapp is not None and old.coreapp.assigned is None, within=10, what="assigned")
    assert is_there(world, old)
    # Status may still tell of the time before.
    await world.pause(5.0)
    await world.until_done()
    await world.stays_silent(120.0)


@simulated(SEEDS)
async def test_a_deleted_node_is_certain(world: World) -> None:
    await started(world)
    old = world.holding(0)
    if not is_alone(world, old):
        raise UnfitError  # one spare for two lost Coreapps is another case
    world.cluster.node_pool.lose(old.node.name, power=True)
    world.cluster.node_pool.delete(old.node.name)
    await world.until(lambda: world.holder(0) is not old, within=1.0, what="handed over")
    assert world.laws.handovers[-1][2] in {"NodeGone", "PodDeleted"}
    await world.until_done()


@simulated(SEEDS)
async def test_two_holders_at_once_and_one_spare(world: World) -> None:
    """The lowest shard is served first, the other is said to be unserved, and served when its pod is back."""
    await started(world, shards=2, spares=1)
    first, second = world.holding(0), world.holding(1)
    world.cluster.start_seconds = (8.0, 9.0)
    for machine in (second, first):
        world.delete_pod(machine, force=True)
    await world.until(lambda: world.holder(0) not in {first, None}, within=2.0, what="shard 0 served")
    await world.pause(2.0)
    assert world.holding(0).running
    wac = world.laws.wac() or {}
    ready = next(one for one in wac["status"]["conditions"] if one["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Unserved")
    assert "shard 1" in ready["message"]
    await world.until_done()
    await world.stays_silent(60.0)


@simulated(SEEDS)
async def test_a_hung_holder_without_a_spare_is_ended_after_twice_the_time(world: World) -> None:
    await started(world, spares=0)
    old, before = world.holding(0), world.loop.time()
    world.cluster.hang(old)

    def is_ended() -> bool:
        return "deletionTimestamp" in (world.server.get(POD, old.name) or {"metadata": {"deletionTimestamp"}})["metadata"]

    await world.until(is_ended, within=25, what="ended")
    assert world.loop.time() - before >= 5.2
    await world.until_done()
    await world.stays_silent(60.0)


@simulated(SEEDS)
async def test_an_operator_that_stood_still_replaces_nobody_who_is_well(world: World) -> None:
    operator = await world.started(shards=2, within=120)
    count = len(world.laws.handovers)
    for seconds in (5.0, 1.5, 3.2, 0.4):
        operator.pause(seconds)
        await world.pause(20)
    assert len(world.laws.handovers) == count


@simulated(SEEDS)
async def test_an_operator_that_hears_nobody_holds_still(world: World) -> None:
    """The self-check fails: most Coreapps, on at least three nodes that live, are silent at once."""
    operator = await world.started(shards=8, spares=2, within=120)
    if len({machine.node for machine in world.coreapps()}) < 3:
        raise UnfitError
    await world.pause(20)
    count = len(world.laws.handovers)
    operator.cut(world.cluster.node_pool.nodes)
    await world.pause(30)
    assert len(world.laws.handovers) == count
    operator.cut(())
    await world.until_done()


@simulated(SEEDS)
async def test_a_drained_node_is_left_before_the_pod_dies(world: World) -> None:
    await started(world, shards=1, spares=2)
    old = world.holding(0)
    if all(machine.node is old.node for machine in world.coreapps()):
        raise UnfitError
    world.cluster.node_pool.cordon(old.node.name)
    await world.until(lambda: world.holder(0) is not old, within=1.0, what="moved")
    assert old.running
    assert world.laws.handovers[-1][2] == "PodDraining"
    world.cluster.node_pool.drain(old.node.name)
    await world.pause(30)
    world.cluster.node_pool.restore(old.node.name)
    await world.until_done()
    await world.stays_silent(60.0)


@simulated(SEEDS)
async def test_a_standby_operator_knows_the_silence_already(world: World) -> None:
    """The leader is killed in the instant in which a holder hangs: the other has heard the silence itself when it begins to lead."""
    world.create(shards=2)
    first, second = world.operator(), world.operator()
    first.campaign()
    await world.until_done(within=120)
    second.campaign()
    await world.pause(20)
    old, before = world.holding(0), world.loop.time()
    world.cluster.hang(old)
    first.kill()
    await world.until(lambda: world.holder(0) is not old, within=7.0, what="handed over")
    took = world.loop.time() - before
    led = next(at for at in (float(line.split()[0]) for line in world.laws.log if "operator-1 leads" in line))
    assert took <= max(led - before, 4.0) + 0.2, f"it led after {led - before:.1f} s and handed over after {took:.1f} s"
    await world.until_done()


@pytest.mark.parametrize("claim", ["ProbeTimeout", "NodeGone"])
@simulated(SEEDS)
async def test_a_holder_that_failed_is_deleted_by_force_between_prepare_and_commit(world: World, claim: str) -> None:
    """The evidence by which the operator decided was true, so the commit may name it."""
    operator = await world.started(shards=2, spares=2, elected=True, within=120)
    await world.pause(20)
    old = world.holding(0)
    if not is_alone(world, old):
        raise UnfitError

    def delete_before_the_commit(what: str) -> None:
        if what == f"patch Service {NAME}-shard-0":
            operator.before_a_write(None)
            world.delete_pod(old, force=True)

    operator.before_a_write(delete_before_the_commit)
    if claim == "NodeGone":
        world.cluster.node_pool.lose(old.node.name, power=True)
        world.cluster.node_pool.delete(old.node.name, old.node.since)
    else:
        world.cluster.hang(old)
    await world.until(lambda: world.holder(0) is not old, within=10, what="handed over")
    assert world.laws.handovers[-1][2] == claim


def test_a_sound_holder_that_is_deleted_by_force_was_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a pod that is gone, the judge of claims takes for true only what was true of it until then."""
    real = evidence.failure

    async def scenario(world: World) -> None:
        await started(world)
        monkeypatch.setattr(evidence, "failure", lambda f, route: real(f, route) and Evidence.PROBE_TIMEOUT)
        world.delete_pod(world.holding(0), force=True)
        await world.pause(10)

    with pytest.raises(LawBroken, match="it says ProbeTimeout") as broken:
        simulate(scenario)
    assert broken.value.law == "of claims"
