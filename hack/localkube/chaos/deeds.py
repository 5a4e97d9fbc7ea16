"""Faults of Coreapps and nodes: each function does one and notes whom it struck."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from localkube.chaos.partition import near_sender
from localkube.chaos.scene import Scene
from localkube.chaos.stage import SHARDS, SPARES, ChaosStage
from localkube.demo.cluster import NAMESPACE
from localkube.errors import LocalKubeError
from localkube.hollow.control import HollowControlError

PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
STEP_S = 60.0
HEAL_S = 2.0
"""So long a holder that was replaced goes on after the handover, cut off from all but the WhatsApp servers."""
UNSERVED_S = 3.0

# ------------------------------------------------------------ pods


async def delete(scene: Scene[ChaosStage], *, grace: int | None = None, shards: tuple[int, ...] = (0,)) -> None:
    """Delete the holders of these shards in every cluster."""
    holders = [scene.strike(cluster, shard) for cluster in scene.clusters for shard in shards]
    await asyncio.gather(*(scene.stage.api.delete(f"{PODS}/{holder.pod}", grace=grace) for holder in holders))


async def force_delete(scene: Scene[ChaosStage]) -> None:
    """`kubectl delete pod --force`: the object is gone at once."""
    await delete(scene, grace=0)


async def both_holders(scene: Scene[ChaosStage]) -> None:
    """Both shards of a cluster with one spare lose their holders in one instant."""
    await delete(scene, grace=0, shards=(0, 1))


async def evict(scene: Scene[ChaosStage]) -> None:
    """As a drain does: through the Eviction API, under the PodDisruptionBudget."""
    for cluster in scene.clusters:
        holder = scene.strike(cluster, 0)
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": holder.pod, "namespace": NAMESPACE}}
        await scene.stage.api.post(f"{PODS}/{holder.pod}/eviction", body)


async def leave_slowly(scene: Scene[ChaosStage]) -> None:
    """Deleted with 30 s of grace, and the process goes on serving for 28 of them."""
    for cluster in scene.clusters:
        holder = scene.holder(cluster, 0)
        await scene.stage.control.disturb(NAMESPACE, holder.pod, uid=holder.uid, linger=28.0)
        scene.strike(cluster, 0, holder)
        await scene.stage.api.delete(f"{PODS}/{holder.pod}", grace=30)


async def kill(scene: Scene[ChaosStage]) -> None:
    """SIGKILL to the container."""
    for cluster in scene.clusters:
        holder = scene.strike(cluster, 0)
        await scene.stage.control.kill(NAMESPACE, holder.pod, uid=holder.uid)


async def fail(scene: Scene[ChaosStage]) -> None:
    """The kubelet ends the whole pod, as under node pressure."""
    for cluster in scene.clusters:
        holder = scene.strike(cluster, 0)
        await scene.stage.control.fail(NAMESPACE, holder.pod, uid=holder.uid)


async def hang(scene: Scene[ChaosStage]) -> None:
    """SIGSTOP to the process: TCP connects, nothing answers."""
    for cluster in scene.clusters:
        holder = scene.strike(cluster, 0)
        await scene.stage.control.hang(NAMESPACE, holder.pod, uid=holder.uid)


async def resume(scene: Scene[ChaosStage]) -> None:
    """SIGCONT, if the pod is still there."""
    for victim in scene.victims:
        with contextlib.suppress(HollowControlError):
            await scene.stage.control.resume(NAMESPACE, victim.holder.pod, uid=victim.holder.uid)


async def disturb(scene: Scene[ChaosStage], **wish: Any) -> None:
    """Have the holders of shard 0 answer late or never, or close their ports."""
    for cluster in scene.clusters:
        holder = scene.strike(cluster, 0)
        await scene.stage.control.disturb(NAMESPACE, holder.pod, uid=holder.uid, **wish)


async def answer_slowly(scene: Scene[ChaosStage]) -> None:
    """Each answer to a probe is late by 0.8 s."""
    await disturb(scene, late=0.8)
    scene.restart_clocks()  # what was answered before the call returned was not late yet


async def lose_probes(scene: Scene[ChaosStage]) -> None:
    """30 % of the probes are never answered."""
    await disturb(scene, swallow=0.3)
    scene.restart_clocks()


async def be_well(scene: Scene[ChaosStage]) -> None:
    """Answer again."""
    for victim in scene.victims:
        with contextlib.suppress(HollowControlError):
            await scene.stage.control.disturb(NAMESPACE, victim.holder.pod, uid=victim.holder.uid, swallow=0.0, late=0.0)


async def close_ports(scene: Scene[ChaosStage]) -> None:
    """The listeners are gone and connections reset; the process lives, and so does its connection to WhatsApp."""
    await disturb(scene, ports="closed")


async def half_open_ports(scene: Scene[ChaosStage]) -> None:
    """Open connections fall silent, new ones are not completed."""
    await disturb(scene, ports="half-open")


async def restart(scene: Scene[ChaosStage]) -> None:
    """End the containers that were disturbed, as their kubelets would sooner or later; they come back well."""
    for victim in scene.victims:
        with contextlib.suppress(HollowControlError):
            await scene.stage.control.kill(NAMESPACE, victim.holder.pod, uid=victim.holder.uid)


async def last_spare(scene: Scene[ChaosStage]) -> None:
    """No new pod finds a node: the spare goes, then the holder. Only 3 s later there are nodes again, and the clock starts."""
    stage = scene.stage
    await stage.schedulable(yes=False)
    for cluster in scene.clusters:
        holders = {holder.uid for holder in stage.holders(cluster)}
        spare = next(pod for pod in stage.coreapps(cluster) if pod["metadata"]["uid"] not in holders)
        scene.struck.add(spare["metadata"]["uid"])
        await stage.api.delete(f"{PODS}/{spare['metadata']['name']}", grace=0)
    await delete(scene, grace=0)
    await asyncio.sleep(UNSERVED_S)
    said = Counter(stage.status(cluster).get("reason") for cluster in scene.clusters)
    scene.notes.append("said meanwhile: " + ", ".join(f"{reason} {times}x" for reason, times in said.most_common()))
    scene.restart_clocks()
    await stage.schedulable(yes=True)


async def uncordon(scene: Scene[ChaosStage]) -> None:
    """Nodes take pods again, whatever happened."""
    await scene.stage.schedulable(yes=True)


# ------------------------------------------------------------ nodes


async def lose_node(scene: Scene[ChaosStage]) -> None:
    """The node with the most holders is cut off; measured are the clusters whose simulator and one Webapp are elsewhere."""
    await _lose(scene, await _choose(scene, lambda node: str(node["name"])))


async def lose_zone(scene: Scene[ChaosStage]) -> None:
    """All nodes of a zone are cut off; measured are as many shards of a cluster as it has spares elsewhere."""
    await _lose(scene, await _choose(scene, lambda node: str(node["zone"])))


async def part_node(scene: Scene[ChaosStage]) -> None:
    """The node with the most holders is cut off, and its Coreapps serve on: they reach the WhatsApp servers and webhooks, and a sender on
    their side of the cut goes on sending to the holder."""
    await _lose(scene, await _choose(scene, lambda node: str(node["name"])), running=True)
    for victim in scene.victims:
        address = next(
            pod["status"]["podIP"] for pod in scene.stage.coreapps(victim.cluster) if pod["metadata"]["uid"] == victim.holder.uid
        )
        sender = near_sender(scene.stage.streams[victim.cluster], victim.shard, address, scene.effects)
        await scene.exits.enter_async_context(sender)


async def heal_node(scene: Scene[ChaosStage]) -> None:
    """The network is whole again some time after the handover: the old holder finds out that it is none, and stops."""
    await asyncio.sleep(HEAL_S)
    await bring_back(scene)
    await scene.exits.aclose()


async def flap_node(scene: Scene[ChaosStage]) -> None:
    """A node is away for 1.2 s, back for 1.5 s, four times: too short each time to be taken for lost."""
    names = await _choose(scene, lambda node: str(node["name"]))
    for round_ in range(4):
        if round_ == 0:
            await _lose(scene, names)
        else:
            await asyncio.gather(*(scene.stage.control.lose(name) for name in names))
        await asyncio.sleep(1.2)
        await asyncio.gather(*(scene.stage.control.back(name) for name in names))
        await asyncio.sleep(1.5)


async def bring_back(scene: Scene[ChaosStage], *, rebooted: bool = False) -> None:
    """The nodes are back, the containers as they were."""
    for name in scene.nodes:
        await scene.stage.control.back(name, rebooted=rebooted)


async def reboot(scene: Scene[ChaosStage]) -> None:
    """The nodes are back, their containers start anew."""
    await bring_back(scene, rebooted=True)


async def _choose(scene: Scene[ChaosStage], group: Any) -> list[str]:
    """The nodes of the group (one node, one zone) whose loss strikes the most clusters that can be measured."""
    groups: dict[str, list[str]] = {}
    for node in await scene.stage.nodes():
        groups.setdefault(group(node), []).append(node["name"])
    return max(sorted(groups.values()), key=lambda names: sum(bool(victims_on(scene, cluster, set(names))) for cluster in scene.clusters))


async def _lose(scene: Scene[ChaosStage], names: list[str], *, running: bool = False) -> None:
    lost = set(names)
    scene.nodes = names
    for cluster in scene.clusters:
        scene.struck |= {pod["metadata"]["uid"] for pod in scene.stage.coreapps(cluster) if pod["spec"].get("nodeName") in lost}
        for shard in victims_on(scene, cluster, lost):
            scene.strike(cluster, shard)
    if not scene.victims:
        msg = f"no cluster can be measured by the loss of {', '.join(names)}"
        raise LocalKubeError(msg)
    await asyncio.gather(*(scene.stage.control.lose(name, running=running) for name in names))


def victims_on(scene: Scene[ChaosStage], cluster: str, lost: set[str]) -> list[int]:
    """The shards of a cluster that these nodes serve and others could take over; none if it loses its simulator or all Webapps."""
    stage = scene.stage

    def away(component: str) -> bool:
        return all(pod["spec"].get("nodeName") in lost for pod in stage.pods(cluster, component))

    if away("simulator") or away("webapp"):
        return []
    nodes = {pod["metadata"]["name"]: pod["spec"].get("nodeName") for pod in stage.coreapps(cluster)}
    holders = stage.holders(cluster)
    spares = [name for name, node in nodes.items() if node not in lost and name not in {holder.pod for holder in holders}]
    return [holder.shard for holder in holders if nodes.get(holder.pod) in lost][: len(spares)]


# ------------------------------------------------------------ in the middle of a change


async def at_four_shards(scene: Scene[ChaosStage]) -> None:
    """Four shards, settled."""
    await _resized(scene, 4)


async def at_two_shards(scene: Scene[ChaosStage]) -> None:
    """Two shards again, settled."""
    await _resized(scene, 2)


async def _resized(scene: Scene[ChaosStage], shards: int) -> None:
    await asyncio.gather(*(scene.stage.set_shards(cluster, shards) for cluster in scene.clusters))
    late = await scene.stage.settle(scene.clusters)
    if late:
        msg = f"{', '.join(late)} did not settle at {shards} shards"
        raise LocalKubeError(msg)


async def delete_while_growing(scene: Scene[ChaosStage]) -> None:
    """2 -> 4 shards; the holder goes as soon as the StatefulSet has grown."""
    await _in_the_middle(scene, 4, lambda stage, cluster: len(stage.coreapps(cluster)) > SHARDS + SPARES, "more pods")


async def delete_while_setting_shards(scene: Scene[ChaosStage]) -> None:
    """2 -> 4 shards; the holder goes as soon as the call is noted, and all Coreapps restart."""
    await _in_the_middle(scene, 4, lambda stage, cluster: "operation" in stage.status(cluster), "the noted call")


async def delete_while_shrinking(scene: Scene[ChaosStage]) -> None:
    """4 -> 2 shards; the holder goes as soon as the client reports two."""
    await _in_the_middle(scene, 2, lambda stage, cluster: stage.status(cluster).get("shards") == 2, "2 shards")


async def _in_the_middle(scene: Scene[ChaosStage], shards: int, reached: Callable[[ChaosStage, str], bool], what: str) -> None:
    stage = scene.stage

    async def one(cluster: str) -> None:
        await stage.set_shards(cluster, shards)
        await stage.seen(lambda: reached(stage, cluster), STEP_S, f"{what} of {cluster}")

    await asyncio.gather(*map(one, scene.clusters))
    await delete(scene)
