"""A holder that answers and goes on saying that it does not hold its shard: an older copy of its Service was put back, or etcd was.

A shard is served while the servers keep a connection of just the pod and the epoch that its Service names. The judge asks them only.
"""

from __future__ import annotations

import pytest

from .client import Connection
from .kinds import SERVICE, Obj
from .laws import EPOCH, HOLDER
from .machines import Machine
from .world import NAME, NAMESPACE, World, simulated

SEEDS = 5
EVIDENCE = "HolderDisagrees"


def service(world: World, shard: int = 0) -> Obj:
    found = world.server.get(SERVICE, (NAMESPACE, f"{NAME}-shard-{shard}"))
    assert found is not None
    return found


def is_served(world: World, shard: int = 0) -> bool:
    route = service(world, shard)
    uid = route["metadata"]["annotations"][HOLDER].partition("/")[2]
    return world.account.connections.get(shard) == Connection(uid, route["spec"]["selector"][EPOCH])


async def moved(world: World, *, shards: int = 2, spares: int = 1) -> tuple[Obj, Machine]:
    """Shard 0 was moved by a switchover; return its Service as it was before, and the pod that held it then."""
    await world.started(shards=shards, spares=spares, elected=True, within=120)
    before, old = service(world), world.holder(0)
    assert old is not None
    world.annotate(switchover="0")
    await world.until(lambda: world.holder(0) is not old, within=5, what="moved")
    await world.until_done()
    await world.pause(10)
    return before, old


def put_back(world: World, copy: Obj) -> None:
    """Replace a Service as `kubectl replace` does with a file: without a resourceVersion."""
    meta = {key: value for key, value in copy["metadata"].items() if key != "resourceVersion"}
    world.server.replace("user", {**copy, "metadata": meta})


def is_served_again(world: World, old: Machine) -> bool:
    return world.holder(0) not in {None, old} and is_served(world)


@pytest.mark.parametrize("seed", range(SEEDS))
@simulated()
async def test_an_older_service_put_back_is_replaced_under_a_new_epoch(world: World, seed: int) -> None:
    copy, old = await moved(world)
    count = len(world.laws.handovers)
    put_back(world, copy)
    assert world.holder(0) is old
    took = await world.until(lambda: is_served_again(world, old), within=10.0, what="another holds the shard")
    assert took >= 4.0, "a holder has some seconds to take its assignment"
    assert [evidence for _, _, evidence, _ in world.laws.handovers[count:]] == [EVIDENCE]
    await world.until_done(within=60)
    await world.stays_silent(120.0)


@pytest.mark.parametrize("seed", range(SEEDS))
@simulated()
async def test_a_holder_that_the_servers_fence_off_is_replaced(world: World, seed: int) -> None:
    """It knows of no newer epoch, so it takes the role; the servers know better, and refuse its connection."""
    copy, old = await moved(world)
    assert old.coreapp is not None
    old.coreapp.memory.known.clear()
    put_back(world, copy)
    await world.until(lambda: is_served_again(world, old), within=10.0, what="another holds the shard")
    assert world.account.fenced > 0
    assert world.laws.handovers[-1][2] == EVIDENCE
    await world.until_done(within=60)
    await world.stays_silent(120.0)


@pytest.mark.parametrize("seed", range(SEEDS))
@simulated()
async def test_a_holder_whose_service_is_older_than_the_fence_is_replaced_as_soon(world: World, seed: int) -> None:
    """As after a restore of etcd: the servers know an epoch above the version of the Service, and below what is written next."""
    await world.started(shards=2, spares=1, elected=True, within=120)
    await world.pause(10)
    old, known = world.holding(0), int(service(world)["metadata"]["resourceVersion"]) + 5
    while world.server.revision <= known:
        world.annotate(note=str(world.server.revision))
    world.account.highest[0] = known, f"{known}-lost", "nobody"
    world.account.disconnect(old.uid)
    await world.until(lambda: is_served_again(world, old), within=10.0, what="another holds the shard")
    await world.until_done(within=60)
    await world.stays_silent(120.0)


@pytest.mark.parametrize("seed", range(SEEDS))
@simulated()
async def test_that_all_are_logged_off_moves_no_shard(world: World, seed: int) -> None:
    await world.started(shards=2, spares=1, elected=True, within=120)
    count = len(world.laws.handovers)
    world.account.logged_off = True
    world.account.connections.clear()
    await world.pause(60)
    assert len(world.laws.handovers) == count


@pytest.mark.parametrize("spares", [0, 1])
@simulated()
async def test_epochs_that_the_servers_go_on_rejecting_are_named_with_what_to_do(world: World, spares: int) -> None:
    """As after a restore of etcd without --bump-revision: the servers know epochs above all that can be written for long."""
    await world.started(shards=2, spares=spares, elected=True, within=120)
    await world.pause(10)
    for shard in range(2):
        world.account.highest[shard] = 10**6, f"{10**6}-lost", "nobody"
        world.account.disconnect(world.holding(shard).uid)
    await world.until(lambda: world.condition("Stalled")[1] == "EpochRejected", within=12.0, what="named")
    await world.pause(3)
    status, reason, message = world.condition("Stalled")
    assert (status, reason) == ("True", "EpochRejected")
    assert "POST /control/reset-fence to port 8080 of pod acme-simulator-0" in message
    assert ("Then delete" in message) is (spares == 0)
    assert world.condition("Ready")[0] == "False"
    assert "(EpochRejected)" in world.condition("Ready")[2]
    world.account.highest.clear()
    for shard in range(2 if spares == 0 else 0):
        world.delete_pod(world.holding(shard))
    await world.until_done(within=120)
    await world.stays_silent(120.0)
