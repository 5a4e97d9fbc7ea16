"""What a broken operator is tried in: each trial passes with the operator as it is."""

from __future__ import annotations

import base64
from collections.abc import Callable, Coroutine
from typing import Any

from .client import CallOutcome
from .kinds import SERVICE
from .late_shrinks import ask_for_a_switchover, late_shrink
from .laws import CLUSTER, SHARD
from .schedules import endure
from .world import World

Trial = Callable[[World], Coroutine[Any, Any, None]]


async def overlapping(world: World) -> None:
    await endure(world, overlapping=True, silent=60.0)


async def elected(world: World) -> None:
    await endure(world, silent=60.0)


async def deafness(world: World) -> None:
    """The operator cannot speak to any Coreapp for a while; then it stands still."""
    operator = await world.started(shards=8, spares=2)
    await world.pause(20)
    operator.cut(world.cluster.node_pool.nodes)
    await world.pause(30)
    operator.cut(())
    await world.until_done()


async def a_leader_with_a_fast_clock(world: World) -> None:
    """A call gets no answer, its leader is killed, and the next one's wall clock is hours ahead."""
    first = await world.started(shards=2, spares=1)
    world.account.call_outcomes.append(CallOutcome("timeout", applied=None))
    world.edit(shards=4)
    await world.until(lambda: not world.account.call_outcomes, within=60, what="the call was sent")
    await world.pause(1.0)
    first.kill()
    world.operator(ahead=3 * 3600.0).lead(2)
    await world.until_done()


async def hangs_without_spares(world: World) -> None:
    """Holders hang, and nobody can take over."""
    await world.started(shards=2, spares=0)
    await world.pause(15)
    for shard in (0, 1):
        machine = world.holder(shard)
        if machine is not None:
            world.cluster.hang(machine)
        await world.until_done()


async def hangs_with_spares(world: World) -> None:
    """A holder hangs, and a spare can take over."""
    await world.started(shards=2, spares=1)
    await world.pause(35)
    machine = world.holder(0)
    if machine is not None:
        world.cluster.hang(machine)
    await world.until_done()


async def many_hang_at_once(world: World) -> None:
    """More Coreapps hang at once than may be ended at a time."""
    await world.started(shards=4, spares=2)
    await world.pause(20)
    for machine in world.coreapps()[:3]:
        world.cluster.hang(machine)
    await world.until_done(within=300)


async def behind_a_wall(world: World) -> None:
    """The next leader starts where it reaches no Coreapp on two of the nodes."""
    first = await world.started(shards=4, spares=2, elected=True, within=120)
    first.kill()
    second = world.operator()
    second.cut([*world.cluster.node_pool.nodes][:2])
    second.campaign()
    await world.pause(60)
    second.cut(())
    await world.until_done(within=120)


async def certificates(world: World) -> None:
    """A certificate that is about to expire, then the wrong one, then the right one."""
    right, wrong = (base64.b64encode(word).decode() for word in (b"the right certificate", b"the wrong certificate"))
    world.account.right_certificate = right
    world.put_account_secret(certificate=wrong, expiresAt="2027-01-04T13:00:00Z", pin="482913")
    world.create(shards=2, account={"countryCode": "1", "phoneNumber": "6315550000", "secretRef": {"name": "account"}})
    world.operator().lead(1)
    await world.pause(30)
    world.put_account_secret(certificate=wrong, expiresAt="2027-12-31T00:00:00Z", pin="482913")
    await world.pause(30)
    world.put_account_secret(certificate=right, expiresAt="2027-12-31T00:00:00Z", pin="482913")
    await world.until_done()
    await world.stays_silent(60.0)


async def rejections(world: World) -> None:
    """What is rejected for good, under a status that says that the client is only busy; each is put right after a while."""
    for answer in (
        CallOutcome(status=403, applied=None, code=1005, text="Access denied: App Expired", final="build"),
        CallOutcome(status=403, applied=None, code=1005, text="Access denied: registration blocked", final="registration"),
        CallOutcome(status=403, applied=None, code=1005, text="Access denied: two-step verification: pin is wrong", final="pin"),
    ):
        world.account.call_outcomes.append(answer)
    world.put_account_secret(certificate=base64.b64encode(b"a certificate").decode(), expiresAt="2027-12-31T00:00:00Z", pin="482913")
    world.create(shards=2, account={"countryCode": "1", "phoneNumber": "6315550000", "secretRef": {"name": "account"}})
    world.operator().lead(1)
    await world.pause(25)
    world.edit(client={"type": "Simulator", "images": {"coreapp": "example/coreapp:2", "webapp": "example/webapp:2"}})
    for pin in ("482914", "482915"):
        await world.pause(25)
        world.put_account_secret(pin=pin)
    await world.until_done()


async def slow_logins(world: World) -> None:
    """The token is forgotten just before each call, and the Webapp takes its time."""
    await world.started(shards=1)
    world.api_slow = 0.6
    for shards in (2, 4, 1, 2, 1):
        world.edit(shards=shards)
        for _ in range(40):
            await world.pause(0.25)
            world.account.tokens.clear()
    world.api_slow = 0.0
    await world.until_done()


async def unheard_answers(world: World) -> None:
    """Calls that nobody hears of and that take effect late."""
    await world.started(shards=1)
    world.account.call_outcomes.extend([CallOutcome(kind="timeout", applied=12.0), CallOutcome(kind="reset", applied=None)])
    world.edit(shards=2)
    await world.until_done()


async def a_late_shrink(world: World) -> None:
    """The write that ends a Coreapp lands after that one was asked to take the shard."""
    await late_shrink(world, ask_for_a_switchover, leaders=1)


async def a_foreign_service(world: World) -> None:
    """A foreign Service has the operator's labels and a name that a shard needs."""
    labels = {CLUSTER: "acme", SHARD: "0"}
    meta = {"namespace": "default", "name": "acme-shard-0", "labels": labels}
    world.server.create("squatter", {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": {"app": "other"}}})
    world.create(shards=1)
    world.operator().lead(1)
    await world.pause(60)
    world.server.delete("user", SERVICE, ("default", "acme-shard-0"))
    await world.until_done()


async def a_foreign_service_in_the_way_of_growth(world: World) -> None:
    """A cluster that is settled is to grow, and another party has the name that the new shard needs."""
    await world.started(shards=1)
    meta = {"namespace": "default", "name": "acme-shard-1", "labels": {CLUSTER: "acme", SHARD: "1"}}
    world.server.create("squatter", {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": {"app": "other"}}})
    world.edit(shards=2)
    await world.pause(60)
    world.server.delete("user", SERVICE, ("default", "acme-shard-1"))
    await world.until_done()


async def resizes(world: World) -> None:
    """There and back again, with a holder that fails over to a high ordinal."""
    await world.started(shards=1)
    for shards in (4, 1, 2, 1):
        world.edit(shards=shards)
        await world.until_done()
        machine = world.holder(0)
        if machine is not None:
            world.delete_pod(machine)
        await world.pause(0.5)
    await world.until_done()
    await world.stays_silent(60.0)


async def a_switched_off_node(world: World) -> None:
    """A holder's machine is switched off and does not come back for a while."""
    await world.started(shards=2, spares=2)
    await world.pause(35)
    machine = world.holder(0)
    if machine is not None:
        world.cluster.node_pool.lose(machine.node.name, power=True)
    await world.pause(20)
    for name in world.cluster.node_pool.nodes:
        world.cluster.node_pool.restore(name)
    await world.until_done()


async def without_an_operator(world: World) -> None:
    """The only operator ends as it should; a container restarts before the next one comes."""
    operator = await world.started(shards=2)
    await world.pause(5)
    await operator.stop()
    machine = world.holder(1)
    if machine is not None:
        world.cluster.crash(machine)
    await world.pause(30)
    world.operator().lead(2)
    await world.until_done()
