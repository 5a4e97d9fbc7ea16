"""Faults of real pods, containers and operators: each function does one and notes whom it struck."""

from __future__ import annotations

import asyncio
import contextlib
import time

from localkube.chaos.scene import Scene
from localkube.demo.cluster import Holder
from localkube.e2e.stage import CLUSTER, SYSTEM, KindStage, is_ready
from localkube.errors import LocalKubeError
from localkube.hollow.kube import KubeError

Kind = Scene[KindStage]

SUCCESSION_S = 30.0
RESTART_S = 60.0

# ------------------------------------------------------------ pods


async def delete(scene: Kind) -> None:
    """`kubectl delete pod` for the holder of shard 0."""
    await scene.stage.delete_pod(scene.strike(CLUSTER, 0).pod)


async def force_delete(scene: Kind) -> None:
    """... with `--force --grace-period=0`: the object is gone at once, its container a little later."""
    await scene.stage.delete_pod(scene.strike(CLUSTER, 0).pod, grace=0)


async def kill(scene: Kind) -> None:
    """SIGKILL to the holder's container, from its node."""
    await _signal(scene, "KILL")


async def replace_killed(scene: Kind) -> None:
    """A fresh pod for the one whose container was killed, so that the next kill does not meet the kubelet's growing back-off."""
    for victim in scene.victims:
        with contextlib.suppress(KubeError):  # it is gone already
            await scene.stage.delete_pod(victim.holder.pod)


async def freeze(scene: Kind) -> None:
    """SIGSTOP to the holder's container: TCP connects, nothing answers."""
    await _signal(scene, "STOP")


async def thaw(scene: Kind) -> None:
    """SIGCONT, if it still runs: the operator has deleted the pod by now, and the SIGTERM that waits for it is taken."""
    for shell, process in scene.stage.frozen:
        with contextlib.suppress(LocalKubeError):
            await shell.run(f"kill -CONT {process}")
    scene.stage.frozen.clear()


async def _signal(scene: Kind, name: str) -> None:
    holder = scene.holder(CLUSTER, 0)
    shell, process = await scene.stage.nodes.process_of(scene.stage.pod_of(holder))
    if name == "STOP":
        scene.stage.frozen.append((shell, process))
    scene.strike(CLUSTER, 0, holder)
    await shell.run(f"kill -{name} {process}")


async def switch_over(scene: Kind) -> None:
    """The annotation that users write."""
    scene.strike(CLUSTER, 0)
    await scene.stage.switch_over(0)


# ------------------------------------------------------------ nodes


async def spread(scene: Kind) -> None:
    """Every Coreapp on a node of its own, so that a lost node takes one; and the leader of the operators elsewhere."""
    await scene.stage.spread()
    leader = await scene.stage.leader_pod()
    node, _ = await _node_with_holder(scene)
    if node == leader["spec"]["nodeName"]:
        await _lead_elsewhere(scene, leader["metadata"]["name"])


async def _lead_elsewhere(scene: Kind, name: str) -> None:
    """Have another operator lead, by ending the one that does."""
    await scene.stage.delete_pod(name, namespace=SYSTEM)
    deadline = time.monotonic() + SUCCESSION_S
    while await scene.stage.leader() == name:
        if time.monotonic() > deadline:
            msg = f"{name} still leads {SUCCESSION_S:g} s after it was deleted"
            raise LocalKubeError(msg)
        await asyncio.sleep(0.1)


async def _node_with_holder(scene: Kind) -> tuple[str, list[Holder]]:
    """The node of a holder that is to be struck, preferably not the leader's, and all holders there."""
    leader = (await scene.stage.leader_pod())["spec"]["nodeName"]
    nodes = [node for node in await scene.stage.workers() if scene.stage.holders_on(node)]
    if not nodes:
        msg = "no worker has a holder, so none can be lost"
        raise LocalKubeError(msg)
    node = min(nodes, key=lambda name: (name == leader, len(scene.stage.holders_on(name)), name))
    return node, scene.stage.holders_on(node)


async def _lose(scene: Kind, node: str, holders: list[Holder]) -> None:
    """Note all that a node takes with it; what is sent goes through a Webapp elsewhere."""
    await scene.stage.shun((node,))
    await asyncio.sleep(0.5)  # what is under way through a Webapp there is answered
    scene.nodes.append(node)
    scene.struck |= {pod["metadata"]["uid"] for pod in scene.stage.coreapps(CLUSTER) if pod["spec"].get("nodeName") == node}
    for holder in holders:
        scene.strike(CLUSTER, holder.shard, holder)


async def stop_node(scene: Kind) -> None:
    """`docker stop`, a second for everything in it to end."""
    node, holders = await _node_with_holder(scene)
    await _lose(scene, node, holders)
    await scene.stage.nodes.stop(node)


async def kill_node(scene: Kind) -> None:
    """`docker kill`: as when the power fails."""
    node, holders = await _node_with_holder(scene)
    await _lose(scene, node, holders)
    await scene.stage.nodes.kill(node)


async def pause_node(scene: Kind) -> None:
    """`docker pause`: everything on the node is frozen, its kernel still answers for it."""
    node, holders = await _node_with_holder(scene)
    await _lose(scene, node, holders)
    await scene.stage.nodes.pause(node)


async def part_node(scene: Kind) -> None:
    """iptables in the node: nothing comes or goes, everything there runs on, its connections included."""
    node, holders = await _node_with_holder(scene)
    await _lose(scene, node, holders)
    await scene.stage.nodes.part(node)


async def bring_back(scene: Kind) -> None:
    """The nodes are there again, what runs on them is what the API server says, and their Webapps are asked again."""
    await scene.stage.bring_nodes_back()


async def drain(scene: Kind) -> None:
    """`kubectl drain` for the node of a holder; it returns when all pods but those of DaemonSets have left."""
    node, holders = await _node_with_holder(scene)
    await _lose(scene, node, holders)
    await scene.stage.drain(node)


async def uncordon(scene: Kind) -> None:
    """`kubectl uncordon`, and pods on all nodes again."""
    await scene.stage.uncordon()
    await scene.stage.shun(())


# ------------------------------------------------------------ operators


async def kill_leader(scene: Kind) -> None:
    """SIGKILL to the leading operator's container; as soon as it has ended a user wishes a switchover; told is when that is done.

    What is wished after its end a new process has done: of another pod, or of the same one, restarted, which is said.
    """
    stage = scene.stage
    leader = await stage.leader_pod()
    scene.leader = leader["metadata"]["name"]
    shell, process = await stage.nodes.process_of(leader)
    holder = scene.holder(CLUSTER, 0)
    begun = time.monotonic()
    await shell.run(f"kill -KILL {process}; while kill -0 {process} 2>/dev/null; do sleep 0.01; done")
    scene.asked.add((CLUSTER, 0))
    await stage.switch_over(0)
    moved = await stage.seen(
        lambda: next(
            (one for one in stage.observer.commits if one.shard == 0 and one.holder_uid != holder.uid and one.monotonic > begun), None
        ),
        SUCCESSION_S,
        "a switchover by a new leader",
    )
    scene.told.append(moved.monotonic - begun)
    if await stage.leader() == scene.leader:
        scene.notes.append(f"{scene.leader} led again itself, its container restarted")


async def replace_leader(scene: Kind) -> None:
    """A fresh pod for the killed one, so that the next kill does not meet the kubelet's growing back-off."""
    if scene.leader:
        with contextlib.suppress(KubeError):
            await scene.stage.delete_pod(scene.leader, namespace=SYSTEM)


async def beside_leader(scene: Kind) -> None:
    """A holder on the leader's node, if there is a Coreapp."""
    stage = scene.stage
    await stage.spread()
    node = (await stage.leader_pod())["spec"]["nodeName"]
    if stage.holders_on(node):
        return
    spare = next((pod for pod in stage.coreapps(CLUSTER) if pod["spec"].get("nodeName") == node and is_ready(pod)), None)
    if spare is None:
        msg = f"the leader's node {node} has no Coreapp, so none can be lost with it"
        raise LocalKubeError(msg)
    uid = spare["metadata"]["uid"]
    await stage.switch_over(0, to=spare["metadata"]["name"])
    await stage.seen(lambda: any(one.uid == uid for one in stage.holders(CLUSTER)), SUCCESSION_S, f"a holder on {node}")


async def lose_leader_node(scene: Kind) -> None:
    """`docker kill` for the node of the leading operator, with the holder there."""
    await scene.stage.nodes.kill(await _leaders_node(scene))


async def part_leader_node(scene: Kind) -> None:
    """iptables in that node: leader and holder live on, and reach nobody."""
    await scene.stage.nodes.part(await _leaders_node(scene))


async def _leaders_node(scene: Kind) -> str:
    leader = await scene.stage.leader_pod()
    node = str(leader["spec"]["nodeName"])
    scene.leader = leader["metadata"]["name"]
    holders = scene.stage.holders_on(node)
    if not holders:
        msg = f"no holder is on the leader's node {node}"
        raise LocalKubeError(msg)
    await _lose(scene, node, holders)
    return node
