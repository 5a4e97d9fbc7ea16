"""The backend of kind: real kubelets and containers, the operator as installed by Helm, one cluster under messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from localkube import LocalKubeError, Obj
from localkube.offline.cluster import CONTROL_PLANE
from localkube.plane.operators import NAMESPACE as SYSTEM
from localkube.scenarios.cluster import Holder, is_ready
from localkube.scenarios.environment import SETTLE_S, Environment
from localkube.scenarios.kind.install import CLUSTER, REPLICAS, Installation
from localkube.scenarios.kind.nodes import KindNodes

PODS_OF_SYSTEM = f"/api/v1/namespaces/{SYSTEM}/pods"
ASK_S = 0.25
DRAIN_S = 90.0
SPREAD_TRIES = 6


class KindEnvironment(Environment):
    """Runs on a cluster that is Ready; at its end, all nodes are back, and the cluster stays."""

    def __init__(self, on: Installation, nodes: KindNodes, *, proxy: str) -> None:
        """``on``: what Helm installed; ``proxy``: URL by which the sender reaches pods."""
        super().__init__(on.kubeconfig, (CLUSTER,), ask_client=False, stream={"proxy": proxy})
        self.on = on
        self.nodes = nodes
        self.incomplete = ""  # what is not whole, as `settle` last found it

    async def _start(self) -> None:
        await self._exits.enter_async_context(self.nodes)

    def state(self) -> str:
        """What is not whole."""
        return f"{self.incomplete} {self.observer.summary()}"

    async def is_operator(self, name: str) -> bool:
        """Whether a pod of this name runs and is not about to be removed."""
        pod = await self.api.get(f"{PODS_OF_SYSTEM}/{name}")
        return pod is not None and is_ready(pod)

    async def settle(self, clusters: Iterable[str], timeout: float = SETTLE_S) -> list[str]:
        """As in any environment; here nodes, operators, Webapps and the simulator must also be healthy."""
        deadline = time.monotonic() + timeout
        names = list(clusters)
        while True:
            late = await super().settle(names, max(ASK_S, deadline - time.monotonic()))
            self.incomplete = "; ".join(await self._not_whole())
            # After a wait for the rest the clusters are observed once more: a pod may have gone meanwhile.
            if not late and not self.incomplete:
                return []
            if time.monotonic() > deadline:
                return names
            await asyncio.sleep(ASK_S)

    async def _not_whole(self) -> list[str]:
        operators = await self._list(f"{PODS_OF_SYSTEM}?labelSelector=app.kubernetes.io/component=operator")
        webapps, simulators = self.pods(CLUSTER, "webapp"), self.pods(CLUSTER, "simulator")
        said = [f"node {node['metadata']['name']} is not ready" for node in await self._list("/api/v1/nodes") if not is_whole(node)]
        for what, pods, count in (("operators", operators, REPLICAS), ("Webapps", webapps, None), ("simulators", simulators, 1)):
            if not all(map(is_ready, pods)) or len(pods) != (count or max(1, len(pods))):
                said.append(f"{sum(map(is_ready, pods))} of {len(pods)} {what} are ready, {count or 'all'} are wanted")
        return said

    async def _list(self, path: str) -> list[Obj]:
        return list((await self.api.get(path) or {}).get("items") or ())

    async def workers(self) -> list[str]:
        """All nodes but the control plane."""
        nodes = (node["metadata"] for node in await self._list("/api/v1/nodes"))
        return sorted(meta["name"] for meta in nodes if CONTROL_PLANE not in meta["labels"])

    def pod_of(self, holder: Holder) -> Obj:
        """The holder's pod. LocalKubeError if it is gone."""
        pod = self.pod(holder.pod, holder.uid)
        if pod is None:
            raise LocalKubeError(f"{holder.pod} is gone, so it cannot be struck")
        return pod

    def holders_on(self, node: str) -> list[Holder]:
        """The holders on a node."""
        return [one for one in self.holders(CLUSTER) if node_of(self.pod_of(one)) == node]

    async def leader_pod(self) -> Obj:
        """The leading operator's pod. LocalKubeError if none leads."""
        name = await self.leader()
        pod = await self.api.get(f"{PODS_OF_SYSTEM}/{name}")
        if pod is None:
            raise LocalKubeError(f"operator {name} is gone")
        return pod

    async def aim(self, pod: Obj) -> Callable[[str], Awaitable[str]]:
        """What sends a signal to a pod's container at once; KILL returns when that has ended. LocalKubeError if none runs."""
        shell, process = await self.nodes.process_of(pod)

        def send(name: str) -> Awaitable[str]:
            gone = f"; while kill -0 {process} 2>/dev/null; do sleep 0.01; done" if name == "KILL" else ""
            return shell.run(f"kill -{name} {process}{gone}")

        return send

    async def bring_back(self) -> None:
        """Bring back all nodes, and send through all Webapps. LocalKubeError if it takes too long.

        What the API server reports about the containers of a restarted node is out of date, so this waits for the kubelets.
        """
        for node, since in (await self.nodes.back()).items():
            path = f"/api/v1/pods?fieldSelector=spec.nodeName={node}"

            async def have_started(path: str = path, since: datetime = since) -> bool:
                return all(has_started(pod, since) for pod in await self._list(path))

            await self.until(have_started, SETTLE_S, f"that the kubelet of node {node} has started all its pods", pause=ASK_S)
        await self.avoid(())

    async def drain(self, node: str) -> None:
        """`kubectl drain` as an administrator types it."""
        options = ("--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={DRAIN_S:g}s")
        await self.on.kubectl("drain", node, *options, timeout=DRAIN_S + 10.0)

    async def avoid(self, nodes: Collection[str]) -> None:
        """Send through Webapps on other nodes; those on these nodes are about to be removed."""
        await self.streams[CLUSTER].avoid(nodes)

    async def spread(self) -> None:
        """Spread Coreapps, and Webapps, over as many workers as possible. A standby is moved rather than a holder."""
        for component in ("coreapp", "webapp"):
            for _ in range(SPREAD_TRIES):
                held = {one.uid for one in self.holders(CLUSTER)}
                surplus = crowded(self.pods(CLUSTER, component), await self.workers(), held)
                if surplus is None:
                    break
                await self.replace(surplus["metadata"]["name"], surplus["metadata"]["uid"])
                await self.settle(self.clusters)

    async def replace(self, pod: str, uid: str) -> None:
        """Delete a pod and wait until exactly this pod is gone."""
        await self.delete_pod(pod)
        await self.seen(lambda: self.pod(pod, uid) is None, SETTLE_S, f"the end of {pod}")


def crowded(pods: Collection[Obj], workers: Collection[str], held: Collection[str]) -> Obj | None:
    """The pod to move: one of several on a worker while another worker has none, a standby if there is one; else None."""
    where: dict[str, list[Obj]] = {worker: [] for worker in workers}
    for pod in pods:
        where.setdefault(node_of(pod), []).append(pod)
    fullest = max(where.values(), key=len, default=[])
    if len(fullest) < 2 or all(where[worker] for worker in workers):
        return None
    return min(fullest, key=lambda pod: (pod["metadata"]["uid"] in held, pod["metadata"]["name"]))


def node_of(pod: Mapping[str, Any]) -> str:
    """The node that a pod is on, empty if it has none yet."""
    return str(pod["spec"].get("nodeName") or "")


def has_started(pod: Mapping[str, Any], since: datetime) -> bool:
    """Whether a pod's containers run since then, as its kubelet says."""
    states = [one.get("state") or {} for one in (pod.get("status") or {}).get("containerStatuses") or ()]
    return bool(states) and all("running" in state and datetime.fromisoformat(state["running"]["startedAt"]) >= since for state in states)


def is_whole(node: Obj) -> bool:
    """Whether a node is ready and takes pods; a control plane may say that it does not."""
    spec = node.get("spec") or {}
    return is_ready(node) and not spec.get("unschedulable") and all(taint["key"] == CONTROL_PLANE for taint in spec.get("taints") or ())
