"""The actions on kind: faults of real pods, nodes and operators; and changes that are not faults, such as installing and upgrading."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from localkube import LocalKubeError
from localkube.plane.operators import NAMESPACE as SYSTEM
from localkube.scenarios.cluster import NAMESPACE, is_ready
from localkube.scenarios.environment import SHARDS
from localkube.scenarios.faults.actions import if_there, note_nodes
from localkube.scenarios.kind.environment import KindEnvironment, node_of
from localkube.scenarios.kind.install import CLUSTER, GONE_S, OPERATOR_REPOSITORY, SIMULATOR_REPOSITORY, Installation
from localkube.scenarios.kind.nodes import KindNodes
from localkube.scenarios.runner.case import Case

Kind = Case[KindEnvironment]

SUCCESSION_S = 30.0
RESIZE_S, ROLL_OUT_S = 120.0, 180.0
ALONE_S = 10.0  # how long the pods are observed after the operator is gone
UNDER_WAY_S = 0.5  # within this time, a message in progress through a Webapp is answered
SECOND = "second"
NEXT_TAG = "e2e-next"  # one more tag of the same image, so that an upgrade has something to roll out
PARTS = ("coreapp", "webapp", "simulator")


async def signal(case: Kind, name: str, *, back: str = "") -> None:
    """A signal to the container of the holder of shard 0, from its node; at the end the signal ``back``, if it still runs.

    Without ``back`` the pod is replaced at the end, so that the next kill does not meet the kubelet's growing back-off.
    """
    holder = case.holder(CLUSTER, 0)
    send = await case.environment.aim(case.environment.pod_of(holder))
    case.exits.push_async_callback(if_there, send, back) if back else replace_at_end(case, holder.pod)
    case.strike(CLUSTER, 0, holder)
    await send(name)


def replace_at_end(case: Kind, pod: str, namespace: str = NAMESPACE) -> None:
    """Delete a pod at the end, unless it is gone already."""
    case.exits.push_async_callback(if_there, case.environment.delete_pod, pod, namespace=namespace)


async def spread(case: Kind) -> None:
    """Every Coreapp on a node of its own, so that a lost node takes one; and the leader of the operators elsewhere."""
    environment = case.environment
    await environment.spread()
    leader = await environment.leader_pod()
    if await _node_with_holder(case) == node_of(leader):
        name = leader["metadata"]["name"]
        await environment.delete_pod(name, namespace=SYSTEM)

        async def another_leads() -> bool:
            return bool(await environment.leader() != name)

        await environment.until(another_leads, SUCCESSION_S, f"that another operator leads than {name}, which was deleted,")


async def _node_with_holder(case: Kind) -> str:
    """The node of a holder that is to be struck, preferably not the leader's. LocalKubeError if there is none."""
    environment = case.environment
    leader = node_of(await environment.leader_pod())
    if not (nodes := [node for node in await environment.workers() if environment.holders_on(node)]):
        raise LocalKubeError("no worker has a holder, so none can be lost")
    return min(nodes, key=lambda name: (name == leader, len(environment.holders_on(name)), name))


async def _leaders_node(case: Kind) -> str:
    """The leader's node. LocalKubeError if no holder is there."""
    node = node_of(await case.environment.leader_pod())
    if not case.environment.holders_on(node):
        raise LocalKubeError(f"no holder is on the leader's node {node}")
    return node


async def lose(case: Kind, verb: Callable[[KindNodes, str], Awaitable[None]], *, leaders: bool = False) -> None:
    """Take a holder's node away, or the leader's with the holder there, until the undoing: ``verb`` is a method of `KindNodes`."""
    node = await (_leaders_node if leaders else _node_with_holder)(case)
    case.exits.push_async_callback(case.environment.bring_back)
    await _strike_all_on(case, node)
    await verb(case.environment.nodes, node)


async def _strike_all_on(case: Kind, node: str) -> None:
    """Note all that a node takes with it; what is sent goes through a Webapp elsewhere."""
    holders = case.environment.holders_on(node)
    await case.environment.avoid((node,))
    await asyncio.sleep(UNDER_WAY_S)
    note_nodes(case, [node])
    for holder in holders:
        case.strike(CLUSTER, holder.shard, holder)


async def drain(case: Kind) -> None:
    """`kubectl drain` for the node of a holder; it returns when all pods but those of DaemonSets have left. Uncordoned at the end."""
    node = await _node_with_holder(case)
    case.exits.push_async_callback(case.environment.avoid, ())
    case.exits.push_async_callback(case.environment.cordon, yes=False)
    await _strike_all_on(case, node)
    await case.environment.drain(node)


async def kill_leader(case: Kind) -> None:
    """SIGKILL to the leading operator's container; as soon as it has ended, a user requests a switchover. Measures when that is done.

    A new process carries out the request: that of another pod, or that of the same pod, restarted; a note says so.
    """
    environment = case.environment
    leader = await environment.leader_pod()
    name = leader["metadata"]["name"]
    send = await environment.aim(leader)
    holder = case.holder(CLUSTER, 0)
    begun = time.monotonic()
    replace_at_end(case, name, SYSTEM)
    await send("KILL")
    case.asked.add((CLUSTER, 0))
    await environment.switch_over(CLUSTER, 0)
    moved = await environment.seen(
        lambda: environment.commit(CLUSTER, 0, not_to=holder.uid, after=begun), SUCCESSION_S, "a switchover by a new leader"
    )
    case.measured.append(moved.monotonic - begun)
    if await environment.leader() == name:
        case.notes.append(f"{name} led again itself, its container restarted")


async def hold_next_to_leader(case: Kind) -> None:
    """A holder on the leader's node. LocalKubeError if no Coreapp is there."""
    environment = case.environment
    await environment.spread()
    node = node_of(await environment.leader_pod())
    if environment.holders_on(node):
        return
    spare = next((pod["metadata"] for pod in environment.coreapps(CLUSTER) if node_of(pod) == node and is_ready(pod)), None)
    if spare is None:
        raise LocalKubeError(f"the leader's node {node} has no Coreapp, so none can be lost with it")
    await environment.switch_over(CLUSTER, 0, to=spare["name"])
    await environment.seen(
        lambda: any(one.uid == spare["uid"] for one in environment.holders(CLUSTER)), SUCCESSION_S, f"a holder on {node}"
    )


async def resize(case: Kind, shards: int) -> None:
    """A number of shards, settled. All shards are struck, because Set Shards restarts all."""
    begun = time.monotonic()
    _strike_all(case)
    await case.environment.resize(case.clusters, shards, RESIZE_S)
    case.details["settled"] = round(time.monotonic() - begun, 2)


def _strike_all(case: Kind) -> None:
    for holder in case.environment.holders(CLUSTER):
        case.strike(CLUSTER, holder.shard, holder)


async def second(
    case: Kind, make: Callable[[Installation, str], Awaitable[float]], remove: Callable[[Installation, str], Awaitable[None]]
) -> None:
    """A second cluster; measured is what ``make`` returns. It is removed at the end, to its last pod."""
    environment = case.environment

    async def undo() -> None:
        await remove(environment.on, SECOND)
        await environment.seen(lambda: not environment.pods(SECOND, *PARTS), GONE_S, f"the end of {SECOND}'s pods")

    case.exits.push_async_callback(undo)
    case.measured.append(await make(environment.on, SECOND))


async def next_tag(case: Kind, repository: str, current: str) -> str:
    """The other one of an image's two tags, which every node then has."""
    tag = case.environment.on.tag
    await case.environment.nodes.tag(*(f"docker.io/{repository}:{one}" for one in (tag, NEXT_TAG)))
    return tag if current.endswith(NEXT_TAG) else NEXT_TAG


async def upgrade_operator(case: Kind) -> None:
    """`helm upgrade` to another tag of the operator's image; measured is how long it took."""
    on = case.environment.on
    tag = await next_tag(case, OPERATOR_REPOSITORY, on.given["image"]["tag"])
    case.measured.append(await on.install({"image": {"repository": OPERATOR_REPOSITORY, "tag": tag}}))


async def upgrade_chart(case: Kind) -> None:
    """`helm upgrade` to other values of every kind: log level, Lease, metrics, spread; measured is how long it took."""
    back, turn = case.environment.on.given.get("logLevel") == "DEBUG", f"{time.time():.0f}"
    values: Mapping[str, Any] = {
        "logLevel": "INFO" if back else "DEBUG",
        "podAnnotations": {"multiconnect.dev/e2e": turn},
        "metrics": {"port": 8080 if back else 8081},
        "podLabels": {"turn": turn},
    }
    case.measured.append(await case.environment.on.install(values))


async def change_images(case: Kind) -> None:
    """Another tag of the client's images, by `client.images`; measured is how long it took until every Coreapp and Webapp had it."""
    environment = case.environment

    def images() -> set[str]:
        return {pod["spec"]["containers"][0]["image"] for pod in environment.pods(CLUSTER, "coreapp", "webapp")}

    image = f"{SIMULATOR_REPOSITORY}:{await next_tag(case, SIMULATOR_REPOSITORY, max(images()))}"
    _strike_all(case)
    begun = time.monotonic()
    await environment.edit(CLUSTER, {"spec": {"client": {"images": {"coreapp": image, "webapp": image}}}})
    await environment.seen(lambda: images() == {image}, ROLL_OUT_S, f"every Coreapp and Webapp with {image}")
    await environment.settled(*case.clusters, timeout=ROLL_OUT_S)
    case.measured.append(time.monotonic() - begun)


async def uninstall(case: Kind) -> None:
    """`helm uninstall`: pods keep serving, CRDs and clusters stay. Measures its duration. At the end, the operator is installed again."""
    environment, begun = case.environment, time.monotonic()
    case.exits.push_async_callback(environment.on.install)
    before = {pod["metadata"]["uid"] for pod in environment.pods(CLUSTER, *PARTS)}
    await environment.on.uninstall()
    case.measured.append(time.monotonic() - begun)
    await asyncio.sleep(ALONE_S)
    await environment.on.kubectl("get", "crd", "whatsappclusters.multiconnect.dev")
    await environment.on.kubectl("-n", NAMESPACE, "get", "wac", CLUSTER)
    if left := before - {pod["metadata"]["uid"] for pod in environment.pods(CLUSTER, *PARTS)}:
        raise LocalKubeError(f"{len(left)} pods of {CLUSTER} went with the operator")
    if len(served := environment.holders(CLUSTER)) != SHARDS:
        raise LocalKubeError(f"only {len(served)} of {SHARDS} shards are served after the operator is gone")
