"""What is done to holders, nodes and sizes. The first part works on both backends, the rest on hollow nodes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from localkube.chaos.ground import SHARDS, SPARES, Ground
from localkube.chaos.partition import near_sender
from localkube.chaos.scene import Scene
from localkube.chaos.stage import ChaosStage
from localkube.demo.cluster import NAMESPACE, Holder
from localkube.errors import LocalKubeError
from localkube.hollow.control import HollowControl, HollowControlError

Obj = dict[str, Any]
Hollow = Scene[ChaosStage]
Verb = Callable[..., Awaitable[None]]
"""A method of `HollowControl` that does something to a pod."""

PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
STEP_S = 60.0
HEAL_S = 2.0  # so long a holder that was replaced goes on after the handover, cut off from all but the WhatsApp servers
UNSERVED_S = 3.0


async def to_holders(scene: Scene[Any], act: Callable[[Any, Holder], Awaitable[None]], *, shards: tuple[int, ...] = (0,)) -> None:
    """Strike the holders of these shards in every cluster in one instant: ``act`` gets the environment and a holder."""
    holders = [scene.strike(cluster, shard) for cluster in scene.clusters for shard in shards]
    await asyncio.gather(*(act(scene.stage, holder) for holder in holders))


async def delete(scene: Scene[Any], *, grace: int | None = None, shards: tuple[int, ...] = (0,)) -> None:
    """`kubectl delete pod`; with no grace as with `--force`: the object is gone at once."""
    await to_holders(scene, lambda stage, holder: stage.delete_pod(holder.pod, grace=grace), shards=shards)


async def evict(scene: Scene[Any]) -> None:
    """As a drain does: through the Eviction API, under the PodDisruptionBudget."""

    async def one(stage: Ground, holder: Holder) -> None:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": holder.pod, "namespace": NAMESPACE}}
        await stage.api.post(f"{PODS}/{holder.pod}/eviction", body)

    await to_holders(scene, one)


async def switch_over(scene: Scene[Any]) -> None:
    """The annotation that users write, for shard 0 of every cluster."""
    for cluster in scene.clusters:
        scene.strike(cluster, 0)
        await scene.stage.switch_over(cluster, 0)


async def at(scene: Scene[Any], shards: int) -> None:
    """So many shards, settled."""
    await scene.stage.resize(scene.clusters, shards)


def note_nodes(scene: Scene[Any], nodes: list[str]) -> None:
    """These nodes are lost: all Coreapps on them are struck."""
    scene.nodes = nodes
    for cluster in scene.clusters:
        scene.struck |= {pod["metadata"]["uid"] for pod in scene.stage.coreapps(cluster) if pod["spec"].get("nodeName") in nodes}


async def pod(scene: Hollow, verb: Verb, *, undo: Verb | None = None, until: Obj | None = None, slowly: bool = False, **wish: Any) -> None:
    """Do something to the holder of shard 0 of every cluster, and what undoes it if its pod is still there.

    ``wish``: what a disturbance is; ``until``: what ends it. ``slowly``: it takes effect within the call only, so what was answered before
    the call returned says nothing.
    """
    for cluster in scene.clusters:
        holder = scene.strike(cluster, 0)
        if undo is not None:
            scene.exits.push_async_callback(_if_there, undo, scene.stage.control, NAMESPACE, holder.pod, uid=holder.uid, **(until or {}))
        await verb(scene.stage.control, NAMESPACE, holder.pod, uid=holder.uid, **wish)
    if slowly:
        scene.restart_clocks()


async def _if_there(verb: Verb, *args: Any, **options: Any) -> None:
    with contextlib.suppress(HollowControlError):
        await verb(*args, **options)


async def disturb(scene: Hollow, *, until: Obj, **wish: Any) -> None:
    """Have the holders answer late or never, until that is undone. They are healthy all the same."""
    await pod(scene, HollowControl.disturb, undo=HollowControl.disturb, until=until, slowly=True, **wish)


async def close_ports(scene: Hollow) -> None:
    """Listeners are gone, connections reset, the process lives on, until its container is ended, as its kubelet would sooner or later."""
    await pod(scene, HollowControl.disturb, undo=HollowControl.kill, ports="closed")


async def half_open_ports(scene: Hollow) -> None:
    """Open connections fall silent, new ones are not completed, until the container is ended."""
    await pod(scene, HollowControl.disturb, undo=HollowControl.kill, ports="half-open")


async def leave_slowly(scene: Hollow) -> None:
    """Deleted with 30 s of grace, and the process goes on serving for 28 of them."""
    for cluster in scene.clusters:
        holder = scene.holder(cluster, 0)
        await scene.stage.control.disturb(NAMESPACE, holder.pod, uid=holder.uid, linger=28.0)
        scene.strike(cluster, 0, holder)
        await scene.stage.delete_pod(holder.pod, grace=30)


async def last_spare(scene: Hollow) -> None:
    """No new pod finds a node: the spare goes, then the holder. Only 3 s later there are nodes again."""
    stage = scene.stage
    scene.exits.push_async_callback(stage.cordon, yes=False)
    await stage.cordon(yes=True)
    for cluster in scene.clusters:
        holders = {holder.uid for holder in stage.holders(cluster)}
        spare = next(pod["metadata"] for pod in stage.coreapps(cluster) if pod["metadata"]["uid"] not in holders)
        scene.struck.add(spare["uid"])
        await stage.delete_pod(spare["name"], grace=0)
    await delete(scene, grace=0)
    await asyncio.sleep(UNSERVED_S)
    said = Counter(stage.status(cluster).get("reason") for cluster in scene.clusters)
    scene.notes.append("said meanwhile: " + ", ".join(f"{reason} {times}x" for reason, times in said.most_common()))
    scene.make_possible()
    await stage.cordon(yes=False)


async def lose_probes(scene: Hollow, share: float) -> None:
    """From now on every Coreapp loses this share of its probes."""
    for cluster in scene.clusters:
        for meta in (pod["metadata"] for pod in scene.stage.coreapps(cluster)):
            await scene.stage.control.disturb(NAMESPACE, meta["name"], uid=meta["uid"], swallow=share)
            scene.struck.add(meta["uid"])
        scene.strike(cluster, 0)


async def lose(scene: Hollow, group: str = "name", *, rebooted: bool = False, running: bool = False) -> None:
    """Cut off a node, or by ``group="zone"`` all nodes of a zone, until it is undone; the containers are then as they were, or start anew.

    It is the one whose loss strikes the most clusters that can be measured: their simulator and one Webapp are elsewhere. Struck are as
    many shards of a cluster as it has spares elsewhere. With ``running`` its Coreapps serve on and reach the WhatsApp servers.
    """
    groups: dict[str, list[str]] = {}
    for node in await scene.stage.nodes():
        groups.setdefault(str(node[group]), []).append(node["name"])
    by_victims = lambda names: sum(bool(victims_on(scene, cluster, set(names))) for cluster in scene.clusters)  # noqa: E731
    names = max(sorted(groups.values()), key=by_victims)
    note_nodes(scene, names)
    for cluster in scene.clusters:
        for shard in victims_on(scene, cluster, set(names)):
            scene.strike(cluster, shard)
    if not scene.victims:
        msg = f"no cluster can be measured by the loss of {', '.join(names)}"
        raise LocalKubeError(msg)
    for name in names:
        scene.exits.push_async_callback(scene.stage.control.back, name, rebooted=rebooted)
    await asyncio.gather(*(scene.stage.control.lose(name, running=running) for name in names))


async def part_node(scene: Hollow) -> None:
    """A node is cut off, and its Coreapps serve on: they reach the WhatsApp servers and webhooks, and a sender on their side of the cut
    goes on sending to the holder."""
    await lose(scene, running=True)
    for victim in scene.victims:
        pod = scene.stage.pod(victim.holder.pod, victim.holder.uid) or {}
        sender = near_sender(scene.stage.streams[victim.cluster], victim.shard, pod["status"]["podIP"], scene.effects)
        await scene.exits.enter_async_context(sender)


async def heal_node(scene: Hollow) -> None:
    """The network is whole again some time after the handover, before the sender ends: the old holder finds out that it is none."""
    await asyncio.sleep(HEAL_S)
    for name in scene.nodes:
        await scene.stage.control.back(name)


async def flap_node(scene: Hollow) -> None:
    """A node is away for 1.2 s, back for 1.5 s, four times: too short each time to be taken for lost."""
    control = scene.stage.control
    await lose(scene)
    for again in (False, True, True, True):
        if again:
            await asyncio.gather(*map(control.lose, scene.nodes))
        await asyncio.sleep(1.2)
        await asyncio.gather(*map(control.back, scene.nodes))
        await asyncio.sleep(1.5)


def victims_on(scene: Hollow, cluster: str, lost: set[str]) -> list[int]:
    """The shards of a cluster that these nodes serve and others could take over; none if it loses its simulator or all Webapps."""
    stage = scene.stage
    if any(all(pod["spec"].get("nodeName") in lost for pod in stage.pods(cluster, part)) for part in ("simulator", "webapp")):
        return []
    nodes = {pod["metadata"]["name"]: pod["spec"].get("nodeName") for pod in stage.coreapps(cluster)}
    holders = stage.holders(cluster)
    spares = [name for name, node in nodes.items() if node not in lost and name not in {holder.pod for holder in holders}]
    return [holder.shard for holder in holders if nodes.get(holder.pod) in lost][: len(spares)]


async def delete_during(scene: Hollow, shards: int, reached: Callable[[ChaosStage, str], bool], what: str) -> None:
    """Ask for a number of shards, and delete the holder as soon as something is reached on the way; two shards again at the end."""
    stage = scene.stage
    scene.exits.push_async_callback(stage.resize, scene.clusters, SHARDS)

    async def one(cluster: str) -> None:
        await stage.set_shards(cluster, shards)
        await stage.seen(lambda: reached(stage, cluster), STEP_S, f"{what} of {cluster}")

    await asyncio.gather(*map(one, scene.clusters))
    await delete(scene)


def has_grown(stage: ChaosStage, cluster: str) -> bool:
    """Whether there are more pods already."""
    return len(stage.coreapps(cluster)) > SHARDS + SPARES


def is_called(stage: ChaosStage, cluster: str) -> bool:
    """Whether Set Shards is noted, so that all Coreapps restart."""
    return "operation" in stage.status(cluster)


def has_shrunk(stage: ChaosStage, cluster: str) -> bool:
    """Whether the client reports two shards."""
    return stage.status(cluster).get("shards") == SHARDS
