"""What is done on kind: faults of real pods, nodes and operators; and changes that are none, such as installing and upgrading."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from localkube.chaos.actions import note_nodes
from localkube.chaos.ground import SHARDS
from localkube.chaos.scene import Scene
from localkube.demo.cluster import NAMESPACE
from localkube.e2e.install import CLUSTER, GONE_S, OPERATOR_REPOSITORY, SIMULATOR_REPOSITORY, SYSTEM, Installation
from localkube.e2e.nodes import KindNodes
from localkube.e2e.stage import KindStage, is_ready, node_of
from localkube.errors import LocalKubeError
from localkube.hollow.kube import KubeError

Obj = dict[str, Any]
Kind = Scene[KindStage]

SUCCESSION_S = 30.0
RESIZE_S, ROLL_OUT_S = 120.0, 180.0
ALONE_S = 10.0  # so long the pods are observed after the operator is gone
UNDER_WAY_S = 0.5  # within so long what is under way through a Webapp is answered
SECOND = "second"
NEXT_TAG = "e2e-next"  # one more tag of the same image, so that an upgrade has something to roll out
PARTS = ("coreapp", "webapp", "simulator")


async def signal(scene: Kind, name: str, *, back: str = "") -> None:
    """A signal to the container of the holder of shard 0, from its node; at the end the signal ``back``, if it still runs.

    Without ``back`` the pod is replaced at the end, so that the next kill does not meet the kubelet's growing back-off.
    """
    holder = scene.holder(CLUSTER, 0)
    send = await scene.stage.aim(scene.stage.pod_of(holder))
    scene.exits.push_async_callback(_if_there, send, back) if back else replace_at_end(scene, holder.pod)
    scene.strike(CLUSTER, 0, holder)
    await send(name)


async def _if_there(act: Callable[..., Awaitable[object]], *args: Any, **options: Any) -> None:
    with contextlib.suppress(LocalKubeError, KubeError):
        await act(*args, **options)


def replace_at_end(scene: Kind, pod: str, namespace: str = NAMESPACE) -> None:
    """Delete a pod at the end, unless it is gone already."""
    scene.exits.push_async_callback(_if_there, scene.stage.delete_pod, pod, namespace=namespace)


async def spread(scene: Kind) -> None:
    """Every Coreapp on a node of its own, so that a lost node takes one; and the leader of the operators elsewhere."""
    stage = scene.stage
    await stage.spread()
    leader = await stage.leader_pod()
    if await _node_with_holder(scene) == node_of(leader):
        name = leader["metadata"]["name"]
        await stage.delete_pod(name, namespace=SYSTEM)

        async def another_leads() -> bool:
            return bool(await stage.leader() != name)

        await stage.until(another_leads, SUCCESSION_S, f"that another operator leads than {name}, which was deleted,")


async def _node_with_holder(scene: Kind) -> str:
    """The node of a holder that is to be struck, preferably not the leader's. LocalKubeError if there is none."""
    stage = scene.stage
    leader = node_of(await stage.leader_pod())
    if not (nodes := [node for node in await stage.workers() if stage.holders_on(node)]):
        msg = "no worker has a holder, so none can be lost"
        raise LocalKubeError(msg)
    return min(nodes, key=lambda name: (name == leader, len(stage.holders_on(name)), name))


async def _leaders_node(scene: Kind) -> str:
    """The leader's node. LocalKubeError if no holder is there."""
    node = node_of(await scene.stage.leader_pod())
    if not scene.stage.holders_on(node):
        msg = f"no holder is on the leader's node {node}"
        raise LocalKubeError(msg)
    return node


async def lose(scene: Kind, verb: Callable[[KindNodes, str], Awaitable[None]], *, leaders: bool = False) -> None:
    """Take a holder's node away, or the leader's with the holder there, until the undoing: ``verb`` is a method of `KindNodes`."""
    node = await (_leaders_node if leaders else _node_with_holder)(scene)
    scene.exits.push_async_callback(scene.stage.bring_nodes_back)
    await _strike_all_on(scene, node)
    await verb(scene.stage.nodes, node)


async def _strike_all_on(scene: Kind, node: str) -> None:
    """Note all that a node takes with it; what is sent goes through a Webapp elsewhere."""
    holders = scene.stage.holders_on(node)
    await scene.stage.avoid((node,))
    await asyncio.sleep(UNDER_WAY_S)
    note_nodes(scene, [node])
    for holder in holders:
        scene.strike(CLUSTER, holder.shard, holder)


async def drain(scene: Kind) -> None:
    """`kubectl drain` for the node of a holder; it returns when all pods but those of DaemonSets have left. Uncordoned at the end."""
    node = await _node_with_holder(scene)
    scene.exits.push_async_callback(scene.stage.avoid, ())
    scene.exits.push_async_callback(scene.stage.uncordon)
    await _strike_all_on(scene, node)
    await scene.stage.drain(node)


async def kill_leader(scene: Kind) -> None:
    """SIGKILL to the leading operator's container; as soon as it has ended a user asks for a switchover; measured is when that is done.

    What is asked for after its end a new process has done: of another pod, or of the same one, restarted, which is said.
    """
    stage = scene.stage
    leader = await stage.leader_pod()
    name = leader["metadata"]["name"]
    send = await stage.aim(leader)
    holder = scene.holder(CLUSTER, 0)
    begun = time.monotonic()
    replace_at_end(scene, name, SYSTEM)
    await send("KILL")
    scene.asked.add((CLUSTER, 0))
    await stage.switch_over(CLUSTER, 0)
    moved = await stage.seen(lambda: stage.commit(CLUSTER, 0, not_to=holder.uid, after=begun), SUCCESSION_S, "a switchover by a new leader")
    scene.measured.append(moved.monotonic - begun)
    if await stage.leader() == name:
        scene.notes.append(f"{name} led again itself, its container restarted")


async def hold_beside_leader(scene: Kind) -> None:
    """A holder on the leader's node. LocalKubeError if no Coreapp is there."""
    stage = scene.stage
    await stage.spread()
    node = node_of(await stage.leader_pod())
    if stage.holders_on(node):
        return
    spare = next((pod["metadata"] for pod in stage.coreapps(CLUSTER) if node_of(pod) == node and is_ready(pod)), None)
    if spare is None:
        msg = f"the leader's node {node} has no Coreapp, so none can be lost with it"
        raise LocalKubeError(msg)
    await stage.switch_over(CLUSTER, 0, to=spare["name"])
    await stage.seen(lambda: any(one.uid == spare["uid"] for one in stage.holders(CLUSTER)), SUCCESSION_S, f"a holder on {node}")


async def resize(scene: Kind, shards: int) -> None:
    """A number of shards, settled. All shards are struck, for Set Shards restarts all."""
    begun = time.monotonic()
    _strike_all(scene)
    await scene.stage.resize(scene.clusters, shards, RESIZE_S)
    scene.details["settled"] = round(time.monotonic() - begun, 2)


def _strike_all(scene: Kind) -> None:
    for holder in scene.stage.holders(CLUSTER):
        scene.strike(CLUSTER, holder.shard, holder)


async def second(
    scene: Kind, make: Callable[[Installation, str], Awaitable[float]], remove: Callable[[Installation, str], Awaitable[None]]
) -> None:
    """A second cluster; measured is what ``make`` returns. It is removed at the end, to its last pod."""
    stage = scene.stage

    async def undo() -> None:
        await remove(stage.on, SECOND)
        await stage.seen(lambda: not stage.pods(SECOND, *PARTS), GONE_S, f"the end of {SECOND}'s pods")

    scene.exits.push_async_callback(undo)
    scene.measured.append(await make(stage.on, SECOND))


async def next_tag(scene: Kind, repository: str, current: str) -> str:
    """The other one of an image's two tags, which every node then has."""
    tag = scene.stage.on.tag
    await scene.stage.nodes.tag(*(f"docker.io/{repository}:{one}" for one in (tag, NEXT_TAG)))
    return tag if current.endswith(NEXT_TAG) else NEXT_TAG


async def upgrade_operator(scene: Kind) -> None:
    """`helm upgrade` to another tag of the operator's image; measured is how long it took."""
    on = scene.stage.on
    tag = await next_tag(scene, OPERATOR_REPOSITORY, on.given["image"]["tag"])
    scene.measured.append(await on.install({"image": {"repository": OPERATOR_REPOSITORY, "tag": tag}}))


async def upgrade_chart(scene: Kind) -> None:
    """`helm upgrade` to other values of every kind: log level, Lease, metrics, spread; measured is how long it took."""
    back, turn = scene.stage.on.given.get("logLevel") == "DEBUG", f"{time.time():.0f}"
    values: Mapping[str, Any] = {
        "logLevel": "INFO" if back else "DEBUG",
        "podAnnotations": {"multiconnect.dev/e2e": turn},
        "metrics": {"port": 8080 if back else 8081},
        "podLabels": {"turn": turn},
    }
    scene.measured.append(await scene.stage.on.install(values))


async def change_images(scene: Kind) -> None:
    """Another tag of the client's images, by `client.images`; measured is how long it took until every Coreapp and Webapp had it."""
    stage = scene.stage

    def images() -> set[str]:
        return {pod["spec"]["containers"][0]["image"] for pod in stage.pods(CLUSTER, "coreapp", "webapp")}

    image = f"{SIMULATOR_REPOSITORY}:{await next_tag(scene, SIMULATOR_REPOSITORY, max(images()))}"
    _strike_all(scene)
    begun = time.monotonic()
    await stage.edit(CLUSTER, {"spec": {"client": {"images": {"coreapp": image, "webapp": image}}}})
    await stage.seen(lambda: images() == {image}, ROLL_OUT_S, f"every Coreapp and Webapp with {image}")
    if await stage.settle(scene.clusters, ROLL_OUT_S):
        msg = f"{CLUSTER} did not settle with {image} within {ROLL_OUT_S:g} s. {stage.state()}"
        raise LocalKubeError(msg)
    scene.measured.append(time.monotonic() - begun)


async def uninstall(scene: Kind) -> None:
    """`helm uninstall`: pods serve on, CRDs and clusters stay; measured is how long it took. It is installed again at the end."""
    stage, begun = scene.stage, time.monotonic()
    scene.exits.push_async_callback(stage.on.install)
    before = {pod["metadata"]["uid"] for pod in stage.pods(CLUSTER, *PARTS)}
    await stage.on.uninstall()
    scene.measured.append(time.monotonic() - begun)
    await asyncio.sleep(ALONE_S)
    await stage.on.kubectl("get", "crd", "whatsappclusters.multiconnect.dev")
    await stage.on.kubectl("-n", NAMESPACE, "get", "wac", CLUSTER)
    if left := before - {pod["metadata"]["uid"] for pod in stage.pods(CLUSTER, *PARTS)}:
        msg = f"{len(left)} pods of {CLUSTER} went with the operator"
        raise LocalKubeError(msg)
    if len(served := stage.holders(CLUSTER)) != SHARDS:
        msg = f"only {len(served)} of {SHARDS} shards are served after the operator is gone"
        raise LocalKubeError(msg)
