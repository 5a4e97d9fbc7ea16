"""The deletion of a WhatsAppCluster that a foreign finalizer, or the foreground, holds up: its shards are served until the pods go."""

from __future__ import annotations

from collections import Counter

import pytest

from .apiserver import Change
from .kinds import EVENT, LEASE, PDB, POD, SERVICE, STATEFULSET, WAC
from .laws import CLUSTER
from .world import NAME, NAMESPACE, World, simulated

SEEDS = 5
FINALIZER = "example.com/backup"


class CreationCounter:
    """Counts by kind what operators create; Leases and Events apart."""

    def __init__(self, world: World) -> None:
        self.kinds: Counter[str] = Counter()
        self._is_operator = world.laws.is_operator
        world.server.checks.append(self._check)

    def _check(self, change: Change) -> None:
        if change.verb == "create" and self._is_operator(change.actor) and change.kind not in {EVENT, LEASE}:
            self.kinds[change.kind.kind] += 1


def conditions(world: World) -> dict[str, tuple[str, str]]:
    status = (world.server.get(WAC, (NAMESPACE, NAME)) or {}).get("status") or {}
    return {one["type"]: (one["status"], one["reason"]) for one in status.get("conditions") or ()}


def replicas(world: World) -> int:
    return int((world.server.get(STATEFULSET, (NAMESPACE, f"{NAME}-coreapp")) or {})["spec"]["replicas"])


async def held(world: World, **spec: int) -> CreationCounter:
    """A cluster that serves, and whose deletion waits for a finalizer."""
    await world.started(**{"shards": 2, "spares": 1, **spec}, elected=True, within=120)
    await world.pause(10)
    world.server.merge("user", WAC, (NAMESPACE, NAME), {"metadata": {"finalizers": [FINALIZER]}})
    world.server.delete("user", WAC, (NAMESPACE, NAME))
    await world.until(lambda: conditions(world).get("Reconciling") == ("True", "Deleting"), within=5, what="the status says so")
    return CreationCounter(world)


@pytest.mark.parametrize("seed", range(SEEDS))
@simulated()
async def test_shards_are_handed_over_while_a_finalizer_holds_the_deletion(world: World, seed: int) -> None:
    made = await held(world)
    assert conditions(world)["Ready"] == ("True", "Serving")
    status = (world.server.get(WAC, (NAMESPACE, NAME)) or {})["status"]
    assert status["reason"] == "Deleting"
    assert FINALIZER in status["message"]
    for _ in range(2):
        old = world.holding(0)
        world.delete_pod(old, force=True)
        await world.until(lambda old=old: world.holder(0) not in {None, old}, within=1.0, what="handed over")  # type: ignore[misc]
        await world.until(lambda: not [*world.undone_in_truth(world.laws.wac() or {})], within=60, what="all is served again")
    hung = world.holding(1)
    world.cluster.hang(hung)
    await world.until(lambda: world.holder(1) not in {None, hung}, within=4.1, what="handed over")
    await world.until(lambda: not [*world.undone_in_truth(world.laws.wac() or {})], within=60, what="it is back as a spare")
    assert not made.kinds
    await world.pause(5)
    assert conditions(world)["Ready"] == ("True", "Serving")
    before = world.laws.writes
    await world.pause(120)
    assert world.laws.writes == before
    world.server.merge("user", WAC, (NAMESPACE, NAME), {"metadata": {"finalizers": None}})
    await world.until(lambda: not world.server.list(POD, NAMESPACE, {CLUSTER: NAME}), within=30, what="all is gone")
    assert not made.kinds


@pytest.mark.parametrize("seed", range(SEEDS))
@simulated()
async def test_nothing_grows_and_nothing_is_made_meanwhile(world: World, seed: int) -> None:
    made = await held(world)
    restarts = world.account.restarts
    world.edit(shards=4, spares=3, webapp={"replicas": 3})
    world.server.delete("user", PDB, (NAMESPACE, f"{NAME}-coreapp"))
    world.server.delete("user", SERVICE, (NAMESPACE, f"{NAME}-webapp"))
    await world.pause(60)
    assert (world.account.restarts, replicas(world), dict(made.kinds)) == (restarts, 3, {})
    assert conditions(world)["Reconciling"] == ("True", "Deleting")
    before = world.operators[0].kube.reads.total()
    await world.pause(60)
    assert world.operators[0].kube.reads.total() - before < 60, "it is observed now and then only"


@pytest.mark.parametrize("seed", range(SEEDS))
@simulated()
async def test_a_deletion_in_the_foreground_is_left_to_its_course(world: World, seed: int) -> None:
    await world.started(shards=2, spares=1, elected=True, within=120)
    made = CreationCounter(world)
    before = world.laws.writes
    world.server.delete("user", WAC, (NAMESPACE, NAME), propagation="Foreground")
    await world.until(lambda: world.server.get(WAC, (NAMESPACE, NAME)) is None, within=60, what="gone")
    assert not made.kinds
    assert world.laws.writes - before < 40
    await world.pause(5)
    before = world.laws.writes
    await world.pause(60)
    assert world.laws.writes == before


@pytest.mark.parametrize("seed", range(SEEDS))
@simulated()
async def test_a_new_leader_fails_over_in_a_held_deletion(world: World, seed: int) -> None:
    made = await held(world)
    world.operators[0].kill()
    second = world.operator()
    second.campaign()
    await world.until(lambda: second.leads, within=10, what="it leads")
    await world.pause(5)
    old = world.holding(0)
    world.cluster.crash(old)
    await world.until(lambda: world.holder(0) not in {None, old}, within=1.0, what="handed over")
    assert not made.kinds
