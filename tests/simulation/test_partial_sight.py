"""Operators that see only part of the world, in the simulation. The judge here counts pods and deletions by itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from whatsapp_operator.shell.kube.errors import KubeError, NotFound, Rejected, Unavailable
from whatsapp_operator.shell.kube.kinds import (
    DEPLOYMENT,
    LEASE,
    NETWORKPOLICY,
    NODE,
    PDB,
    POD,
    PVC,
    SECRET,
    SERVICE,
    STATEFULSET,
    WAC,
    Kind,
    Obj,
)

from . import kinds
from .apiserver import Change
from .kube import READ_LIMIT, Objects, SimKube
from .machines import NODES
from .world import NAME, NAMESPACE, World, simulate, simulated

SEEDS = 5


class DeletionLog:
    """Notes which pods operators delete, and how many of them are gone at a time without a ready successor."""

    def __init__(self, world: World) -> None:
        self.deleted: list[str] = []
        self.most = 0
        self._missing: set[str] = set()
        self._is_operator = world.laws.is_operator
        world.server.checks.append(self._check)

    def _check(self, change: Change) -> None:
        if change.kind is not kinds.POD:
            return
        name = change.name[1]
        if change.verb == "delete" and self._is_operator(change.actor):
            self.deleted.append(name)
            self._missing.add(name)
        elif change.after is not None and "deletionTimestamp" not in change.after["metadata"]:
            conditions = (change.after.get("status") or {}).get("conditions") or ()
            if any(one["type"] == "Ready" and one["status"] == "True" for one in conditions):
                self._missing.discard(name)
        self.most = max(self.most, len(self._missing))


@pytest.mark.parametrize("seed", range(SEEDS))
@simulated()
async def test_a_leader_that_starts_where_it_reaches_no_coreapp_ends_none(world: World, seed: int) -> None:
    first = await world.started(shards=4, spares=2, elected=True, within=120)
    harm, handovers = DeletionLog(world), len(world.laws.handovers)
    first.kill()
    second = world.operator()
    second.cut([*world.cluster.node_pool.nodes])
    second.campaign()
    await world.pause(90)
    assert (harm.deleted, len(world.laws.handovers)) == ([], handovers)
    second.cut(())
    await world.until_done(within=120)
    assert harm.deleted == []


@pytest.mark.parametrize("seed", range(SEEDS))
@simulated()
async def test_a_leader_that_reaches_only_one_node_ends_nothing_on_the_others(world: World, seed: int) -> None:
    first = await world.started(shards=4, spares=2, elected=True, within=120)
    harm = DeletionLog(world)
    first.kill()
    second = world.operator()
    second.cut([*world.cluster.node_pool.nodes][1:])
    second.campaign()
    await world.pause(90)
    assert harm.deleted == []


@pytest.mark.parametrize("seed", range(SEEDS))
@simulated()
async def test_a_first_install_that_the_operator_cannot_reach_is_no_endless_loop(world: World, seed: int) -> None:
    world.create(shards=2, spares=1)
    operator = world.operator()
    operator.cut([*world.cluster.node_pool.nodes])
    operator.campaign()
    harm = DeletionLog(world)
    await world.pause(120)
    assert harm.deleted == []
    operator.cut(())
    await world.until_done(within=180)


@pytest.mark.parametrize("seed", range(SEEDS))
@simulated()
async def test_a_connection_refused_before_a_long_silence_moves_no_shard(world: World, seed: int) -> None:
    """A holder restarts just before the leader can reach no Coreapp any more. It is back when there is a standby for its shard.

    The Coreapps are on all four nodes: on fewer than three the silence may well be theirs.
    """
    world.cluster.node_pool.places = {f"acme-coreapp-{ordinal}": f"node-{ordinal % NODES}" for ordinal in range(5)}
    operator = await world.started(shards=4, spares=0)
    await world.pause(20)
    holder = world.holding(0)
    world.cluster.crash(holder)
    # Its kubelet may say so before the connection is refused.
    noted = ("(ConnectionLost)", "(ContainerTerminated)")
    await world.until(lambda: any(word in str(world.status()["conditions"]) for word in noted), within=5, what="the leader notes it")
    operator.cut([*world.cluster.node_pool.nodes])
    await world.pause(15)
    handovers = len(world.laws.handovers)
    world.edit(spares=1)
    await world.pause(20)
    assert len(world.coreapps()) == 5, "there is a standby"
    assert len(world.laws.handovers) == handovers
    operator.cut(())
    await world.until_done(within=120)


@pytest.mark.parametrize("seed", range(SEEDS))
@simulated()
async def test_many_that_hang_at_once_are_ended_one_after_the_other(world: World, seed: int) -> None:
    """One node, so that there is no majority of nodes for a self-check: the evidence stands, and the harm is bounded all the same."""
    await world.started(shards=4, spares=2, elected=True, within=120)
    await world.pause(20)
    harm = DeletionLog(world)
    for machine in world.coreapps()[:3]:
        world.cluster.hang(machine)
    await world.until_done(within=300)
    assert harm.deleted, "what hangs is ended"
    assert harm.most <= 2


@dataclass(frozen=True)
class Fault:
    """What becomes of a read instead of an answer: an error, at once or after so many seconds."""

    error: KubeError
    after: float = 0.0


FAULTS = {
    "403": Fault(Rejected("403 Forbidden", code=403, reason="Forbidden")),
    "404": Fault(NotFound("404: the server could not find the requested resource", code=404)),
    "429": Fault(Unavailable("429 TooManyRequests", code=429, reason="TooManyRequests")),
    "500": Fault(Unavailable("500 InternalError", code=500, reason="InternalError")),
    "garbage": Fault(Unavailable("the API server answered something that is not Kubernetes' JSON")),
    "timeout": Fault(Unavailable("the API server did not answer within 5 s"), after=READ_LIMIT),
}


class PartlyBlind(SimKube):
    """A way to the API server on which reads of some kinds fail; counts how many did. The Lease of the election is always read."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.failing: dict[Kind, Fault] = {}
        self.failed: Counter[Kind] = Counter()

    async def _fail(self, kind: Kind, namespace: str | None) -> None:
        fault = self.failing.get(kind)
        if fault is not None and (kind, namespace) != (LEASE, "operator"):
            self.failed[kind] += 1
            await asyncio.sleep(fault.after)
            raise fault.error

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        await self._fail(kind, namespace)
        return await super().get(kind, namespace, name)

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None, *, at_least: str | None = None
    ) -> list[Obj]:
        await self._fail(kind, namespace)
        return await super().list(kind, namespace, labels, at_least=at_least)

    async def list_to_watch(self, kind: Kind, namespace: str | None) -> tuple[Objects, str]:
        await self._fail(kind, namespace)
        return await super().list_to_watch(kind, namespace)


def observed_generation(world: World) -> int:
    status = (world.server.get(WAC, (NAMESPACE, NAME)) or {}).get("status") or {}
    return int(status["observedGeneration"])


def is_ready(world: World, shard: int) -> bool:
    """Whether the pod that holds a shard is ready and stays."""
    holder = world.holder(shard)
    pod = world.server.get(POD, holder.name) if holder is not None else None
    return pod is not None and kinds.is_ready(pod)


def has_spare(world: World) -> bool:
    """Whether a Coreapp is ready, stays, does not restart, and holds nothing."""
    holders = [world.holder(shard) for shard in range(32)]
    for machine in world.coreapps():
        pod = world.server.get(POD, machine.name)
        stays = pod is not None and kinds.is_ready(pod)
        if stays and machine not in holders and machine.coreapp is not None and not machine.coreapp.restarting:
            return True
    return False


def says(world: World, kind: str, status: str, reason: str) -> Callable[[], bool]:
    return lambda: world.condition(kind)[:2] == (status, reason)


def hand_over(world: World, shard: int) -> Callable[[], bool]:
    """Delete the holder of a shard at once; return whether another one was named meanwhile."""
    old = world.holding(shard)
    world.delete_pod(old, force=True)
    return lambda: world.holder(shard) not in {None, old}


OPTIONAL = (SECRET, NETWORKPOLICY, PDB, DEPLOYMENT, PVC)
"""Kinds without which a cluster can be observed."""
STORED = {"type": "Simulator", "simulator": {"storage": {"size": "1Gi"}}}
ASKS: dict[str, Callable[[World], None]] = {
    "nothing": lambda _: None,
    "resize": lambda world: world.edit(shards=4),
    "roll-out": lambda world: world.edit(coreapp={"pod": {"annotations": {"example.com/release": "b"}}}),
}
CASES = [
    (kind, fault, ask)
    for row, kind in enumerate((*OPTIONAL, NODE, LEASE))
    for column, fault in enumerate(FAULTS)
    # Each kind meets each fault, and each ask each kind and each fault.
    for ask in [[*ASKS][(row + column) % len(ASKS)]]
]


@pytest.mark.parametrize(("kind", "fault", "ask"), CASES, ids=lambda one: getattr(one, "kind", one))
def test_failover_goes_on_although_a_kind_cannot_be_read(kind: Kind, fault: str, ask: str) -> None:
    async def scenario(world: World) -> None:
        world.create(shards=2, spares=2, client=STORED)
        operator, kube = world.operator_by(PartlyBlind)
        operator.campaign()
        await world.until_done(within=120)
        kube.failing[kind] = FAULTS[fault]
        if kind in OPTIONAL:
            await world.until(says(world, "Stalled", "True", "ReadFailed"), within=60, what="the status says what cannot be read")
            assert kind.kind in world.condition("Stalled")[2]
            assert kube.failed[kind] > 0
        await world.until(hand_over(world, 0), within=1.0, what="handed over")
        await world.pause(world.rng.random() * 10)
        ASKS[ask](world)
        await world.pause(world.rng.random() * 10)
        await world.until(lambda: is_ready(world, 1) and has_spare(world), within=120, what="shard 1 is served, and a spare can take it")
        await world.until(hand_over(world, 1), within=1.0, what="handed over in the midst of what was asked")
        await world.pause(20)
        kube.failing.clear()
        await world.until_done(within=240)
        await world.stays_silent(60.0)

    simulate(scenario, seed=len(kind.kind) + len(fault))


@pytest.mark.parametrize("fault", ["403", "timeout"])
@pytest.mark.parametrize("kind", [SECRET, DEPLOYMENT], ids=lambda kind: str(kind.kind))
@simulated(2)
async def test_a_new_leader_that_cannot_read_a_kind_makes_nothing_and_moves_shards(world: World, kind: Kind, fault: str) -> None:
    first = await world.started(shards=2, spares=1, elected=True, within=120)
    first.kill()
    second, kube = world.operator_by(PartlyBlind)
    kube.failing[kind] = FAULTS[fault]
    second.campaign()
    await world.until(says(world, "Stalled", "True", "ReadFailed"), within=60, what="reported")
    old = world.holding(1)
    world.delete_pod(old, force=True)
    await world.until(lambda: world.holder(1) not in {None, old}, within=1.0, what="handed over")
    world.edit(shards=4)
    await world.pause(30)
    if kind is SECRET:
        assert world.account.shards == 2, "nothing is sent to the client"
    kube.failing.clear()
    await world.until_done(within=180)


NEEDED = (WAC, POD, SERVICE, STATEFULSET)
"""Kinds without which nothing is known of a cluster."""


@pytest.mark.parametrize(
    ("kind", "fault"),
    [(kind, fault) for row, kind in enumerate(NEEDED) for column, fault in enumerate(FAULTS) if kind is POD or row == column % 4],
    ids=lambda one: getattr(one, "kind", one),
)
def test_an_observation_that_fails_is_reported_in_the_status(kind: Kind, fault: str) -> None:
    async def scenario(world: World) -> None:
        world.create(shards=2, spares=1)
        operator, kube = world.operator_by(PartlyBlind)
        operator.campaign()
        await world.until_done(within=120)
        kube.failing[kind] = FAULTS[fault]
        world.edit(spares=2)
        await world.until(says(world, "Ready", "Unknown", "ReadFailed"), within=90, what="reported")
        assert world.condition("Stalled")[:2] == ("True", "ReadFailed")
        assert str(kube.failing[kind].error) in world.condition("Stalled")[2]
        assert observed_generation(world) == 2
        writes = world.laws.writes
        await world.pause(60)
        assert world.laws.writes == writes, "it is reported once"
        kube.failing.clear()
        await world.until_done(within=120)

    simulate(scenario, seed=len(kind.kind) + len(fault))


@simulated(3)
async def test_reads_that_fail_in_one_observation_do_not_end_the_next(world: World) -> None:
    """What no failover depends on is read next to several observations; that one of these failed ends none of the others."""
    world.create(shards=2, spares=1)
    operator, kube = world.operator_by(PartlyBlind)
    operator.campaign()
    await world.until_done(within=120)
    kube.failing[SECRET] = FAULTS["timeout"]
    for _ in range(10):
        kube.failing[POD] = FAULTS["500"]
        await world.pause(world.rng.random() * 8)
        del kube.failing[POD]
        await world.pause(world.rng.random() * 8)
        if is_ready(world, 0) and has_spare(world):
            await world.until(hand_over(world, 0), within=6.0, what="handed over, at the latest when it is tried again")
    kube.failing.clear()
    await world.until_done(within=120)


@simulated(SEEDS)
async def test_a_damaged_holder_annotation_stops_no_other_shard(world: World) -> None:
    await world.started(shards=2, spares=2, elected=True, within=120)
    damaged = {"metadata": {"annotations": {"multiconnect.dev/holder": "no such/ pod/../x"}}}
    world.server.merge("user", SERVICE, (NAMESPACE, f"{NAME}-shard-1"), damaged)
    old = world.holding(0)
    world.delete_pod(old, force=True)
    await world.until(lambda: world.holder(0) not in {None, old}, within=1.0, what="handed over")
    await world.until_done(within=120)
