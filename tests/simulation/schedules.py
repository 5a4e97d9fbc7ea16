"""Random accidents: what a seed draws happens to a world for a while; then all is well again and the cluster must become what is wanted."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from .client import CallOutcome
from .kinds import POD, SERVICE, STATEFULSET, is_ready
from .laws import CLUSTER, EPOCH, ROLE, SHARD
from .operators import RELEASE, Operator
from .world import NAME, NAMESPACE, World

Accident = Callable[[World, Random], bool]
"""Makes something happen; whether it did."""

CALL_OUTCOMES = (
    CallOutcome(),
    CallOutcome(status=403, applied=None),
    CallOutcome(status=403, applied=None),
    CallOutcome(kind="reset", applied=None),
    CallOutcome(kind="reset", applied=0.0),
    CallOutcome(kind="reset", applied=3.0),
    CallOutcome(kind="timeout", applied=None),
    CallOutcome(kind="timeout", applied=0.0),
    CallOutcome(kind="timeout", applied=4.0),
    CallOutcome(kind="timeout", applied=20.0),
    CallOutcome(kind="timeout", applied=24.0),
    CallOutcome(kind="5xx", applied=None),
    CallOutcome(kind="5xx", applied=0.0),
    CallOutcome(kind="5xx", applied=1.0),
    CallOutcome(applied=2.0),
)
"""What may become of one Set Shards call. None takes effect after the 27 s in which these simulations settle an unknown one."""


def delete_a_coreapp(world: World, rng: Random) -> bool:
    """Delete a pod, by force or not; mostly one that serves."""
    machines = world.coreapps()
    holders = [machine for shard in range(world.account.shards) if (machine := world.holder(shard)) is not None]
    choice = holders if holders and rng.random() < 0.7 else machines
    if choice:
        world.delete_pod(rng.choice(choice), force=rng.random() < 0.3)
    return bool(choice)


def crash_a_coreapp(world: World, rng: Random) -> bool:
    """End a container."""
    machines = [machine for machine in world.coreapps() if machine.coreapp is not None and machine.coreapp.listening]
    if machines:
        world.cluster.crash(rng.choice(machines))
    return bool(machines)


def two_at_once(world: World, rng: Random) -> bool:
    """Two accidents in the same instant."""
    first, second = (rng.choice((delete_a_coreapp, crash_a_coreapp))(world, rng) for _ in range(2))
    return first and second


def hang_a_coreapp(world: World, rng: Random) -> bool:
    """Stop a Coreapp for a while, or forever."""
    machines = [machine for machine in world.coreapps() if machine.is_sound and is_ready(world.server.get(POD, machine.name) or {})]
    if machines:
        world.cluster.hang(rng.choice(machines), rng.choice((0.5, 2.0, 4.0, 8.0, 20.0, None)))
    return bool(machines)


def slow_a_coreapp(world: World, rng: Random) -> bool:
    """Let a Coreapp take its time for each answer, within what is tolerated or just beyond a probe's deadline."""
    coreapps = [machine.coreapp for machine in world.coreapps() if machine.coreapp is not None]
    for coreapp in coreapps:
        coreapp.slow = rng.choice((0.0, 0.0, 0.3, 0.9, 1.4))
    return any(coreapp.slow for coreapp in coreapps)


def lose_a_node(world: World, rng: Random) -> bool:
    """Cut a node off or switch it off; now and then it is deleted, or declared dead, before it comes back."""
    node_pool = world.cluster.node_pool
    there = [node for node in node_pool.nodes.values() if node.is_reachable]
    if len(there) < 2:
        return False
    name = rng.choice(there).name
    node_pool.lose(name, power=rng.random() < 0.5)
    since = node_pool.nodes[name].since
    back = rng.choice((0.5, 2.0, 6.0, 20.0, 60.0))
    end = rng.random()
    if end < 0.3:
        world.loop.call_later(back * rng.random(), node_pool.delete, name, since)
    elif end < 0.4 and not node_pool.nodes[name].is_powered:
        world.loop.call_later(back * rng.random(), node_pool.declare_dead, name, since)
    world.loop.call_later(back, node_pool.restore, name)
    return True


def drain_a_node(world: World, rng: Random) -> bool:
    """Cordon a node, drain it, or taint it as autoscalers do; it is taken back later."""
    name = rng.choice([*world.cluster.node_pool.nodes])
    kind = rng.random()
    if kind < 0.5:
        world.cluster.node_pool.drain(name)
    else:
        world.cluster.node_pool.cordon(name, rng.choice((None, "karpenter.sh/disrupted", "ToBeDeletedByClusterAutoscaler")))
    world.loop.call_later(rng.choice((3.0, 10.0, 30.0)), lambda: world.cluster.node_pool.restore(name))
    return True


def stop_an_operator(world: World, rng: Random) -> bool:
    """An operator's process stands still for a while."""
    living = world.living()
    if living:
        rng.choice(living).pause(rng.choice((0.3, 1.0, 1.5, 3.0, 5.0)))
    return bool(living)


def cut_an_operator_off(world: World, rng: Random) -> bool:
    """An operator's process cannot speak to any Coreapp, or not to those on a node; to the API server it can."""
    living = world.living()
    if living:
        operator, nodes = rng.choice(living), [*world.cluster.node_pool.nodes]
        operator.cut(nodes if rng.random() < 0.6 else rng.sample(nodes, 1))
        world.loop.call_later(rng.choice((1.0, 3.0, 6.0, 15.0)), operator.cut, ())
    return bool(living)


def edit_the_spec(world: World, rng: Random) -> bool:
    """Ask for another number of shards or spares."""
    before = world.laws.wac()
    if rng.random() < 0.6:
        world.edit(shards=rng.choice((1, 2, 2, 4)))
    else:
        world.edit(spares=rng.choice((0, 1, 1, 2)))
    return world.laws.wac() is not before


def change_the_pods(world: World, rng: Random) -> bool:
    """Another pod template, or back to an earlier one: it is rolled out."""
    before = world.laws.wac()
    world.edit(coreapp={"pod": {"annotations": {"example.com/release": rng.choice(("a", "b"))}}})
    return world.laws.wac() is not before


def pause_or_go_on(world: World, rng: Random) -> bool:
    """Flip spec.paused."""
    before = world.laws.wac()
    world.edit(paused=rng.random() < 0.5)
    return world.laws.wac() is not before


def delete_a_service(world: World, rng: Random) -> bool:
    """Delete a shard's Service."""
    names = [service["metadata"]["name"] for _, service in world.laws.routes()]
    if names:
        world.server.delete("user", SERVICE, (NAMESPACE, rng.choice(names)))
    return bool(names)


def take_labels_away(world: World, rng: Random) -> bool:
    """Remove a label of the operator from a pod."""
    pods = [pod for pod in world.laws.pods() if ROLE in pod["metadata"]["labels"]]
    if not pods:
        return False
    pod = rng.choice(pods)
    gone = rng.choice(((SHARD,), (EPOCH,), (ROLE,), (SHARD, EPOCH), (SHARD, EPOCH, ROLE)))
    body = {"metadata": {"labels": dict.fromkeys(gone)}}
    after = world.server.merge("user", POD, (NAMESPACE, pod["metadata"]["name"]), body)
    return after is not pod


def scale_by_hand(world: World, rng: Random) -> bool:
    """Scale the StatefulSet, up or down."""
    name = (NAMESPACE, f"{NAME}-coreapp")
    workload = world.server.get(STATEFULSET, name)
    if workload is None:
        return False
    replicas = max(0, int(workload["spec"]["replicas"]) + rng.choice((-2, -1, 1, 2)))
    return world.server.merge("user", STATEFULSET, name, {"spec": {"replicas": replicas}}) is not workload


def odd_answers(world: World, rng: Random) -> bool:
    """Decide what becomes of the next calls to Set Shards."""
    world.account.call_outcomes.extend(rng.choice(CALL_OUTCOMES) for _ in range(rng.randint(1, 3)))
    return True


def expire_tokens(world: World, _rng: Random) -> bool:
    """Forget who logged in."""
    there = bool(world.account.tokens)
    world.account.tokens.clear()
    return there


def request_a_switchover(world: World, rng: Random) -> bool:
    """Ask for a planned handover."""
    shard = rng.randrange(world.account.shards)
    pods = [pod["metadata"]["name"] for pod in world.laws.pods()]
    to = f"={rng.choice(pods)}" if pods and rng.random() < 0.5 else ""
    world.annotate(switchover=f"{shard}{to}")
    return True


def bad_network(world: World, rng: Random) -> bool:
    """Make the way to the API server worse or better."""
    network = world.network
    network.clear()
    kind = rng.choice(("none", "none", "lossy", "late", "touched", "slow", "down", "all"))
    if kind in {"lossy", "all"}:
        network.dropped, network.lost = rng.random() * 0.15, rng.random() * 0.2
    if kind in {"late", "all"}:
        network.late = rng.random() * 0.15
    if kind in {"touched", "all"}:
        network.touched = rng.random() * 0.3
    if kind in {"slow", "all"}:
        network.slow = rng.random() * 0.5
    network.down = kind == "down" and rng.random() < 0.5
    world.tell_lost = rng.choice((0.0, 0.0, 0.3))
    world.api_faults = rng.choice((0.0, 0.0, 0.2))
    world.api_slow = rng.choice((0.0, 0.0, 0.3))
    world.cluster.deaf = rng.choice((0.0, 0.0, 0.1))
    world.cluster.lossy = rng.choice((0.0, 0.0, 0.02, 0.2))
    world.watch_lag = rng.choice((0.0, 0.5, 3.0))
    return True


def squat_on_a_name(world: World, rng: Random) -> bool:
    """Another party makes a Service under a name that a shard needs, with or without the operator's labels."""
    name = f"{NAME}-shard-{rng.randrange(4)}"
    is_free = world.server.get(SERVICE, (NAMESPACE, name)) is None
    if is_free:
        labels = {CLUSTER: NAME, SHARD: name[-1]} if rng.random() < 0.5 else {}
        meta = {"namespace": NAMESPACE, "name": name, "labels": labels}
        world.server.create("squatter", {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": {"app": "other"}}})
    return is_free


ACCIDENTS: tuple[tuple[Accident, int], ...] = (
    (delete_a_coreapp, 5),
    (crash_a_coreapp, 4),
    (two_at_once, 2),
    (hang_a_coreapp, 3),
    (slow_a_coreapp, 1),
    (lose_a_node, 2),
    (drain_a_node, 1),
    (stop_an_operator, 2),
    (cut_an_operator_off, 2),
    (edit_the_spec, 5),
    (change_the_pods, 1),
    (pause_or_go_on, 1),
    (delete_a_service, 1),
    (take_labels_away, 2),
    (scale_by_hand, 1),
    (odd_answers, 4),
    (expire_tokens, 1),
    (request_a_switchover, 2),
    (bad_network, 4),
    (squat_on_a_name, 1),
)


class ElectedOperators:
    """Operators as they really run: each seeks the Lease; one or two, killed and started again."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world, self._rng = world, rng
        self._wanted = rng.choice((1, 2))
        self.recover()

    async def upset(self) -> None:
        """Kill or stop one."""
        living = self._world.living()
        if living:
            victim = self._rng.choice(living)
            if self._rng.random() < 0.7:
                victim.kill()
            else:
                await victim.stop()
        if self._rng.random() < 0.7:
            self.recover()

    def recover(self) -> None:
        """Start what is missing."""
        while len(self._world.living()) < self._wanted:
            self._world.operator().campaign()


class ForcedLeaders:
    """Operators that believe to lead no matter what the Lease says: often two at once, one of them deposed without knowing."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world, self._rng = world, rng
        self._epoch = 0
        self._gave_way: set[Operator] = set()
        """Those that led at the same time as another release."""
        self.recover()

    def _lead(self) -> None:
        self._epoch += 1
        is_alone = all(one.image == RELEASE for one in self._world.living())
        made = self._world.operator()
        made.lead(self._epoch)
        if not is_alone:
            self._gave_way.add(made)

    async def upset(self) -> None:
        """One more begins to lead, or one ends."""
        living = self._world.living()
        if len(living) < 2 and self._rng.random() < 0.6:
            self._lead()
        elif living:
            self._rng.choice(living).kill()

    def recover(self) -> None:
        """Leave exactly one: none that gave way to another release, as it does to any writer that insists for as long as it leads."""
        living = self._world.living()
        stays = [one for one in living if one not in self._gave_way][-1:]
        for one in living:
            if one not in stays:
                one.kill()
        if not stays:
            self._lead()


async def endure(
    world: World,
    *,
    overlapping: bool = False,
    stale: bool = False,
    seconds: float = 60.0,
    silent: float = 600.0,
    table: Sequence[tuple[Accident, int]] = ACCIDENTS,
    **spec: Any,
) -> None:
    """Let accidents happen for a while; then everything works again, and the cluster must become what is wanted and fall silent."""
    rng = Random(f"accidents {world.seed}")
    shards, spares = rng.choice((1, 2, 2, 4)), rng.choice((0, 1, 1, 2))
    account = _account(world, rng)
    world.create(shards=shards, spares=spares, **account, **spec)
    crew: ElectedOperators | ForcedLeaders = (ForcedLeaders if overlapping else ElectedOperators)(world, rng)
    if rng.random() < 0.7:
        await world.until_done(within=120)
    if stale:
        world.network.stale, world.network.stale_by = 0.3, 1.5
        world.laws.lenient = True
    end = world.loop.time() + seconds
    accidents, odds = zip(*table, strict=True)
    while world.loop.time() < end:
        await world.pause(rng.choice((0.0, 0.05, 0.5, 2.0, 8.0)) * rng.random())
        if rng.random() < 0.12:
            await crew.upset()
            world.laws.did["operator killed or added"] += 1
            continue
        accident = rng.choices(accidents, odds)[0]
        world.laws.emit(f"accident: {accident.__name__}")
        world.laws.did[accident.__name__] += accident(world, rng)
        stale_by = world.network.stale_by
        if stale:
            world.network.stale, world.network.stale_by = 0.3, stale_by
    all_is_well(world)
    crew.recover()
    await world.until_done(within=300)
    await world.stays_silent(silent)


def _account(world: World, rng: Random) -> dict[str, Any]:
    """Now and then there is an account with a certificate."""
    if rng.random() < 0.7:
        return {}
    certificate = base64.b64encode(rng.randbytes(40)).decode()
    world.put_account_secret(certificate=certificate, expiresAt="2027-12-31T00:00:00Z", pin="482913")
    world.account.right_certificate = certificate
    return {"account": {"countryCode": "1", "phoneNumber": "6315550000", "secretRef": {"name": "account"}}}


def all_is_well(world: World) -> None:
    """End every fault."""
    world.laws.emit("all is well from here on")
    world.network.clear()
    world.network.stale = 0.0
    world.server.rejects.clear()
    world.tell_lost = world.api_faults = world.api_slow = world.cluster.deaf = world.cluster.lossy = world.watch_lag = 0.0
    for name in world.cluster.node_pool.nodes:
        world.cluster.node_pool.restore(name)
    for one in world.living():
        one.cut(())
        one.before_a_write(None)
        if one.image != RELEASE:
            one.kill()
    for machine in world.coreapps():
        # Who hangs goes on hanging: to end that is up to the operator.
        if machine.coreapp is not None:
            machine.coreapp.slow = 0.0
    world.account.call_outcomes.clear()
    world.edit(paused=False)
    for name in [f"{NAME}-shard-{shard}" for shard in range(32)]:
        service = world.server.get(SERVICE, (NAMESPACE, name))
        if service is not None and not service["metadata"].get("ownerReferences"):
            world.server.delete("user", SERVICE, (NAMESPACE, name))
