"""Nodes and their Leases that cannot be read, once or for long: failover goes on, and so does the operator's self-check."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from whatsapp_operator.shell.kube.errors import KubeError, Rejected, Unavailable
from whatsapp_operator.shell.kube.kinds import LEASE, NODE, Kind, Obj

from .kinds import OUT_OF_SERVICE
from .kube import SimKube
from .world import UnfitError, World, simulated

SEEDS = 3
DENIED = Rejected("HTTP 403, Forbidden", code=403, reason="Forbidden")
ANSWERS = {"denied": DENIED, "broken": Unavailable("HTTP 500", code=500)}


class FailingReads(SimKube):
    """A way to the API server on which lists and watches of some kinds fail."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.failing: dict[Kind, KubeError] = {}

    async def list_to_watch(self, kind: Kind, namespace: str | None) -> tuple[list[Obj], str]:
        if kind in self.failing:
            raise self.failing[kind]
        return await super().list_to_watch(kind, namespace)

    async def watch(self, kind: Any, namespace: str | None, **options: Any) -> AsyncGenerator[tuple[str, Obj]]:
        if kind in self.failing:
            raise self.failing[kind]
        async for event in super().watch(kind, namespace, **options):
            if kind in self.failing:
                raise self.failing[kind]
            yield event


@pytest.mark.parametrize("kind", [NODE, LEASE], ids=lambda kind: str(kind.kind))
@simulated(SEEDS)
async def test_one_refusal_is_over_in_seconds(world: World, kind: Kind) -> None:
    world.create(shards=2, spares=2)
    operator, kube = world.operator_by(FailingReads)
    operator.campaign()
    await world.until_done(within=120)
    await world.pause(20)
    kube.failing[kind] = DENIED
    await world.pause(26)
    known = operator.nodes.snapshot()
    assert known is not None, "what was known still counts"
    kube.failing.clear()
    await world.pause(6)
    again = operator.nodes.snapshot()
    assert again is not None
    assert again is not known
    hung = world.holding(0)
    world.cluster.hang(hung)
    await world.until(lambda: hung.uid not in world.cluster.machines, within=25, what="ended, as its node has shown that it lives")
    await world.until_done(within=60)


@pytest.mark.parametrize("answer", ANSWERS)
@simulated(SEEDS)
async def test_failover_goes_on_and_the_status_says_what_is_missing(world: World, answer: str) -> None:
    world.create(shards=2, spares=1)
    operator, kube = world.operator_by(FailingReads)
    operator.campaign()
    await world.until_done(within=120)
    kube.failing.update({NODE: ANSWERS[answer], LEASE: ANSWERS[answer]})
    await world.until(lambda: world.condition("Stalled")[:2] == ("True", "ReadFailed"), within=90, what="reported")
    assert "Lease, Node" in world.condition("Stalled")[2]
    assert "neither makes nor changes" not in world.condition("Stalled")[2]
    old = world.holding(0)
    world.cluster.hang(old)
    await world.until(lambda: world.holder(0) not in {None, old}, within=4.1, what="handed over")
    kube.failing.clear()
    await world.until_done(within=120)
    await world.stays_silent(60.0)


def declare_dead(world: World, name: str) -> None:
    """Taint a node as out of service although its machine runs."""
    taint = {"key": OUT_OF_SERVICE, "effect": "NoExecute"}
    world.server.merge("user", NODE, ("", name), {"spec": {"taints": [taint]}}, inside=True)


GOES: dict[str, Callable[[World, str], object]] = {
    "drained": lambda world, name: world.cluster.node_pool.cordon(name),
    "declared dead": declare_dead,
    "deleted": lambda world, name: world.server.delete("user", NODE, ("", name)),
}


@pytest.mark.parametrize("is_over", [True, False], ids=["taken back", "goes on"])
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("goes", GOES)
@simulated(SEEDS)
async def test_a_shard_leaves_a_node_only_by_what_is_known_of_nodes_now(world: World, goes: str, answer: str, is_over: bool) -> None:
    """It may have been taken back since nodes were read last; so the shard stays until they can be read again."""
    world.create(shards=2, spares=1, failover={"mode": "Manual"})
    operator, kube = world.operator_by(FailingReads)
    operator.campaign()
    await world.until_done(within=120)
    await world.pause(20)
    old, pool = world.holding(0), world.cluster.node_pool
    spare = next(machine for machine in world.coreapps() if machine not in {world.holder(shard) for shard in range(2)})
    if spare.node is old.node:
        raise UnfitError  # nobody elsewhere could take the shard
    GOES[goes](world, old.node.name)
    await world.pause(2)
    kube.failing[NODE] = ANSWERS[answer]
    # The watch breaks with its next event.
    world.server.merge("user", NODE, ("", spare.node.name), {"metadata": {"labels": {"example.com/rack": "3"}}})
    if is_over:
        pool.restore(old.node.name)
    await world.pause(12)
    world.edit(failover={"mode": "Automatic"})
    await world.pause(12)
    assert world.holder(0) is old
    kube.failing.clear()
    if is_over:
        await world.pause(12)
        assert world.holder(0) is old
    else:
        await world.until(lambda: world.holder(0) is spare, within=8, what="moved")
        pool.restore(old.node.name)
    await world.until_done(within=120)


@pytest.mark.parametrize("spares", [2, 4])
@pytest.mark.parametrize("is_denied", [True, False], ids=["denied", "readable"])
@simulated(SEEDS)
async def test_an_operator_that_hears_nobody_any_more_fails_its_self_check(world: World, is_denied: bool, spares: int) -> None:
    """Also when half of all Coreapps are standbys, which are asked less often: when the holders count as silent, few of them do."""
    world.create(shards=4, spares=spares)
    operator, kube = world.operator_by(FailingReads)
    if is_denied:
        kube.failing.update({NODE: DENIED, LEASE: DENIED})
    operator.campaign()
    await world.until(lambda: not [*world.undone_in_truth(world.laws.wac() or {})], within=120, what="all is served")
    await world.pause(20)
    holders = [machine for shard in range(4) if (machine := world.holder(shard)) is not None]
    if len({machine.node for machine in holders}) < 3:
        raise UnfitError  # on two nodes the silence may well be theirs
    handovers, uids = len(world.laws.handovers), {machine.uid for machine in world.coreapps()}
    operator.cut([*world.cluster.node_pool.nodes])
    await world.pause(25)
    assert (len(world.laws.handovers), {machine.uid for machine in world.coreapps()}) == (handovers, uids)
    assert world.condition("Ready")[:2] == ("Unknown", "SelfCheckFailed")
    operator.cut(())
    kube.failing.clear()
    await world.until_done(within=120)
