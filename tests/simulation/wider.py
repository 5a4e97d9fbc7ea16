"""More random accidents: what other clients of the API server do, what it does not allow, and what happens between two writes."""

from __future__ import annotations

from random import Random

from .apiserver import Denied, Invalid, TooManyRequests
from .kinds import DEPLOYMENT, EVENT, LEASE, PDB, POD, SERVICE, STATEFULSET, WAC
from .schedules import ACCIDENTS, Accident, endure
from .world import NAME, NAMESPACE, World

LEADER = ("operator", "whatsapp-operator")
WRITES = (
    ("patch", POD),
    ("delete", POD),
    ("patch", SERVICE),
    ("create", SERVICE),
    ("patch", STATEFULSET),
    ("replace", PDB),
    ("status", WAC),
    ("patch", WAC),
    ("create", EVENT),
)
OBJECTS = ((PDB, f"{NAME}-coreapp"), (DEPLOYMENT, f"{NAME}-webapp"), (SERVICE, f"{NAME}-coreapp"), (SERVICE, f"{NAME}-webapp"))
OLD_VERSIONS = 6
"""Of a Service that a person may still have."""


def reject_writes(world: World, rng: Random) -> bool:
    """Let the API server reject one kind of write of operators for a while: a right is missing, a webhook denies it, it is overloaded."""
    write = rng.choice(WRITES)
    world.server.rejects[write] = rng.choice((Denied, Invalid, TooManyRequests))
    world.loop.call_later(rng.choice((0.3, 2.0, 8.0, 20.0)), world.server.rejects.pop, write, None)
    return True


def take_the_lease(world: World, rng: Random) -> bool:
    """Delete the operators' Lease, or write another holder into it."""
    lease = world.server.get(LEASE, LEADER)
    if lease is None:
        return False
    if rng.random() < 0.5:
        return world.server.delete("user", LEASE, LEADER)
    world.server.merge("user", LEASE, LEADER, {"spec": {"holderIdentity": "another", "leaseTransitions": 7}})
    return True


def misjudge_a_coreapp(world: World, rng: Random) -> bool:
    """A kubelet calls a Coreapp not ready for a while, although it answers."""
    machines = [machine for machine in world.coreapps() if machine.is_sound]
    if machines:
        world.cluster.misjudge(rng.choice(machines), rng.choice((0.5, 2.0, 5.0, 12.0)))
    return bool(machines)


def delete_an_object(world: World, rng: Random) -> bool:
    """Delete one of the cluster's objects that no shard depends on at once."""
    kind, name = rng.choice(OBJECTS)
    return world.server.delete("user", kind, (NAMESPACE, name))


def put_a_service_back(world: World, rng: Random) -> bool:
    """Apply an older copy of a shard's Service, as from a file."""
    names = [(NAMESPACE, service["metadata"]["name"]) for _, service in world.laws.routes()]
    name = rng.choice(names) if names else ("", "")
    now, olds = world.server.get(SERVICE, name), world.server.earlier(SERVICE, name, OLD_VERSIONS)
    if now is None or not olds:
        return False
    old = rng.choice(olds)
    body = {
        "metadata": {"annotations": dict.fromkeys(now["metadata"].get("annotations") or {}) | (old["metadata"].get("annotations") or {})},
        "spec": {"selector": dict.fromkeys(now["spec"].get("selector") or {}) | (old["spec"].get("selector") or {})},
    }
    return world.server.merge("user", SERVICE, name, body) is not now


def change_the_shards(world: World, rng: Random) -> bool:
    """Another party sets the client's number of shards."""
    account, shards = world.account, rng.choice((1, 2, 4))
    can = account.now() >= account.restarting_until and not account.logged_off and shards != account.shards
    if can:
        account.set_shards(shards)
    return can


def let_another_release_lead(world: World, rng: Random) -> bool:
    """All operators end, and one of another release begins, whose pods have another template; it is ended again."""
    for one in world.living():
        one.kill()
    other = world.operator(image="sim:0")
    other.campaign()
    world.loop.call_later(rng.choice((6.0, 15.0)), other.kill)
    return True


def interrupt_an_operator(world: World, rng: Random) -> bool:
    """Just before one of the next writes of an operator, between what it has read and what it does, another accident happens."""
    operators = world.living()
    accident = rng.choices(*zip(*ACCIDENTS, strict=True))[0]
    what, left = rng.choice(("", "Pod", "Service")), rng.randint(1, 4)

    def strike(write: str) -> None:
        nonlocal left
        left -= what in write
        if left == 0 and what in write:
            world.laws.emit(f"accident before {write}: {accident.__name__}")
            world.laws.did[f"{interrupt_an_operator.__name__}, done"] += accident(world, rng)

    for one in operators:
        one.before_a_write(strike)
    return bool(operators)


WIDER: tuple[tuple[Accident, int], ...] = (
    *ACCIDENTS,
    (reject_writes, 4),
    (take_the_lease, 2),
    (misjudge_a_coreapp, 3),
    (delete_an_object, 1),
    (put_a_service_back, 2),
    (change_the_shards, 2),
    (let_another_release_lead, 1),
    (interrupt_an_operator, 10),
)


async def endure_more(world: World, *, overlapping: bool) -> None:
    """Endure these accidents as well. What another party makes of the number of shards is undone: otherwise that waits for a person."""
    await endure(world, overlapping=overlapping, table=WIDER, reshard={"restartTimeoutSeconds": 20, "drift": "Repair"})
