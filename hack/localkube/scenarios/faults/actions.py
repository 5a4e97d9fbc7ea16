"""What is done to holders, nodes and sizes. The first part works on both backends, the rest on hollow nodes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from localkube import LocalKubeError, Obj
from localkube.hollow.control import HollowControl
from localkube.scenarios.cluster import NAMESPACE, Holder
from localkube.scenarios.environment import SHARDS, Environment
from localkube.scenarios.faults.partition import near_sender
from localkube.scenarios.hollow.environment import HollowEnvironment
from localkube.scenarios.runner.case import Case

Hollow = Case[HollowEnvironment]
Verb = Callable[..., Awaitable[None]]
"""A method of `HollowControl` that does something to a pod."""

PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
STEP_S = 60.0
HEAL_S = 2.0  # how long a replaced holder keeps running after the handover, cut off from all but the WhatsApp servers
UNSERVED_S = 3.0


async def to_holders(case: Case[Any], act: Callable[[Any, Holder], Awaitable[None]], *, shards: tuple[int, ...] = (0,)) -> None:
    """Strike the holders of these shards in every cluster in one instant: ``act`` gets the environment and a holder."""
    holders = [case.strike(cluster, shard) for cluster in case.clusters for shard in shards]
    await asyncio.gather(*(act(case.environment, holder) for holder in holders))


async def delete(case: Case[Any], *, grace: int | None = None, shards: tuple[int, ...] = (0,)) -> None:
    """`kubectl delete pod`; with no grace as with `--force`: the object is gone at once."""
    await to_holders(case, lambda environment, holder: environment.delete_pod(holder.pod, grace=grace), shards=shards)


async def evict(case: Case[Any]) -> None:
    """As a drain does: through the Eviction API, under the PodDisruptionBudget."""

    async def one(environment: Environment, holder: Holder) -> None:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": holder.pod, "namespace": NAMESPACE}}
        await environment.api.post(f"{PODS}/{holder.pod}/eviction", body)

    await to_holders(case, one)


async def switch_over(case: Case[Any]) -> None:
    """The annotation that users write, for shard 0 of every cluster."""
    for cluster in case.clusters:
        case.strike(cluster, 0)
        await case.environment.switch_over(cluster, 0)


async def at(case: Case[Any], shards: int) -> None:
    """A cluster with this number of shards, settled."""
    await case.environment.resize(case.clusters, shards)


def note_nodes(case: Case[Any], nodes: list[str]) -> None:
    """These nodes are lost: all Coreapps on them are struck."""
    case.nodes = nodes
    for cluster in case.clusters:
        case.struck |= {pod["metadata"]["uid"] for pod in case.environment.coreapps(cluster) if pod["spec"].get("nodeName") in nodes}


async def pod(case: Hollow, verb: Verb, *, undo: Verb | None = None, until: Obj | None = None, slowly: bool = False, **change: Any) -> None:
    """Do something to the holder of shard 0 of every cluster, and what undoes it if its pod is still there.

    ``change``: what a disturbance is; ``until``: what ends it. ``slowly``: it takes effect within the call only: what was answered before
    the call returned says nothing.
    """
    for cluster in case.clusters:
        holder = case.strike(cluster, 0)
        if undo is not None:
            case.exits.push_async_callback(if_there, undo, case.environment.control, NAMESPACE, holder.pod, uid=holder.uid, **(until or {}))
        await verb(case.environment.control, NAMESPACE, holder.pod, uid=holder.uid, **change)
    if slowly:
        case.restart_clocks()


async def if_there(act: Callable[..., Awaitable[object]], *args: Any, **options: Any) -> None:
    """Do something to a pod that may be gone."""
    with contextlib.suppress(LocalKubeError):
        await act(*args, **options)


async def disturb(case: Hollow, *, until: Obj, **change: Any) -> None:
    """Let the holders answer late or never, until that is undone. They are healthy nevertheless."""
    await pod(case, HollowControl.disturb, undo=HollowControl.disturb, until=until, slowly=True, **change)


async def close_ports(case: Hollow) -> None:
    """Close the ports and reset connections. The process keeps running until its container is ended, as its kubelet would eventually do."""
    await pod(case, HollowControl.disturb, undo=HollowControl.kill, ports="closed")


async def leave_slowly(case: Hollow) -> None:
    """Delete it with 30 s of grace; the process keeps serving for 28 of them."""
    for cluster in case.clusters:
        holder = case.holder(cluster, 0)
        await case.environment.control.disturb(NAMESPACE, holder.pod, uid=holder.uid, linger=28.0)
        case.strike(cluster, 0, holder)
        await case.environment.delete_pod(holder.pod, grace=30)


async def last_spare(case: Hollow) -> None:
    """No new pod finds a node: first the spare is deleted, then the holder. Only 3 s later there are nodes again."""
    environment = case.environment
    case.exits.push_async_callback(environment.cordon, yes=False)
    await environment.cordon(yes=True)
    for cluster in case.clusters:
        holders = {holder.uid for holder in environment.holders(cluster)}
        spare = next(pod["metadata"] for pod in environment.coreapps(cluster) if pod["metadata"]["uid"] not in holders)
        case.struck.add(spare["uid"])
        await environment.delete_pod(spare["name"], grace=0)
    await delete(case, grace=0)
    await asyncio.sleep(UNSERVED_S)
    said = Counter(environment.status(cluster).get("reason") for cluster in case.clusters)
    case.notes.append("said meanwhile: " + ", ".join(f"{reason} {times}x" for reason, times in said.most_common()))
    case.make_possible()
    await environment.cordon(yes=False)


async def lose_probes(case: Hollow, share: float) -> None:
    """From now on every Coreapp loses this share of its probes."""
    for cluster in case.clusters:
        for meta in (pod["metadata"] for pod in case.environment.coreapps(cluster)):
            await case.environment.control.disturb(NAMESPACE, meta["name"], uid=meta["uid"], swallow=share)
            case.struck.add(meta["uid"])
        case.strike(cluster, 0)


async def lose(case: Hollow, group: str = "name", *, rebooted: bool = False, running: bool = False) -> None:
    """Cut off a node, or by ``group="zone"`` all nodes of a zone, until it is undone; the containers are then as they were, or start again.

    It is the one that affects the most clusters that can still be measured: their simulator and one Webapp are elsewhere. In each cluster,
    as many shards are struck as it has spares elsewhere. With ``running``, its Coreapps keep serving and reach the WhatsApp servers.
    """
    groups: dict[str, list[str]] = {}
    for node in await case.environment.nodes():
        groups.setdefault(str(node[group]), []).append(node["name"])
    by_victims = lambda names: sum(bool(victims_on(case, cluster, set(names))) for cluster in case.clusters)  # noqa: E731
    names = max(sorted(groups.values()), key=by_victims)
    note_nodes(case, names)
    for cluster in case.clusters:
        for shard in victims_on(case, cluster, set(names)):
            case.strike(cluster, shard)
    if not case.victims:
        raise LocalKubeError(f"no cluster can be measured by the loss of {', '.join(names)}")
    for name in names:
        case.exits.push_async_callback(case.environment.control.back, name, rebooted=rebooted)
    await asyncio.gather(*(case.environment.control.lose(name, running=running) for name in names))


async def part_node(case: Hollow) -> None:
    """A node is cut off, but its Coreapps keep serving: they reach the WhatsApp servers and webhooks, and a sender on their side of the cut
    keeps sending to the holder."""
    await lose(case, running=True)
    for victim in case.victims:
        pod = case.environment.pod(victim.holder.pod, victim.holder.uid) or {}
        sender = near_sender(case.environment.streams[victim.cluster], victim.shard, pod["status"]["podIP"], case.effects)
        await case.exits.enter_async_context(sender)


async def heal_node(case: Hollow) -> None:
    """The network recovers some time after the handover, before the sender ends: the old holder learns that it is no longer the holder."""
    await asyncio.sleep(HEAL_S)
    for name in case.nodes:
        await case.environment.control.back(name)


async def flap_node(case: Hollow) -> None:
    """A node is unreachable for 1.2 s and back for 1.5 s, four times: each time too short to count as lost."""
    control = case.environment.control
    await lose(case)
    for again in (False, True, True, True):
        if again:
            await asyncio.gather(*map(control.lose, case.nodes))
        await asyncio.sleep(1.2)
        await asyncio.gather(*map(control.back, case.nodes))
        await asyncio.sleep(1.5)


def victims_on(case: Hollow, cluster: str, lost: set[str]) -> list[int]:
    """The shards of a cluster that these nodes serve and others could take over; none if it loses its simulator or all Webapps."""
    environment = case.environment
    if any(all(pod["spec"].get("nodeName") in lost for pod in environment.pods(cluster, part)) for part in ("simulator", "webapp")):
        return []
    nodes = {pod["metadata"]["name"]: pod["spec"].get("nodeName") for pod in environment.coreapps(cluster)}
    holders = environment.holders(cluster)
    spares = [name for name, node in nodes.items() if node not in lost and name not in {holder.pod for holder in holders}]
    return [holder.shard for holder in holders if nodes.get(holder.pod) in lost][: len(spares)]


async def delete_during(case: Hollow, shards: int, reached: Callable[[HollowEnvironment, str], bool], what: str) -> None:
    """Request a number of shards, and delete the holder as soon as the change has reached a certain point; two shards again at the end."""
    environment = case.environment
    case.exits.push_async_callback(environment.resize, case.clusters, SHARDS)

    async def one(cluster: str) -> None:
        await environment.set_shards(cluster, shards)
        await environment.seen(lambda: reached(environment, cluster), STEP_S, f"{what} of {cluster}")

    await asyncio.gather(*map(one, case.clusters))
    await delete(case)
