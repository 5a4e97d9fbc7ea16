"""What end-to-end tests happen on: a kind cluster with real kubelets, the operator as installed by Helm, one cluster under messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from localkube.chaos.ground import SETTLE_S, Ground
from localkube.chaos.traffic import Stream
from localkube.demo.cluster import GROUP, NAMESPACE, SWITCHOVER, Holder
from localkube.e2e.nodes import CONTROL_PLANE, KindNodes
from localkube.e2e.programs import NodeShell, run
from localkube.errors import LocalKubeError
from localkube.progress import Report

Obj = dict[str, Any]

SYSTEM, RELEASE = "whatsapp-operator-system", "whatsapp-operator"
CLUSTER = "acme"
OPERATORS = f"/api/v1/namespaces/{SYSTEM}/pods?labelSelector=app.kubernetes.io/component=operator"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
CR = f"{GROUP}/namespaces/{NAMESPACE}/whatsappclusters/{CLUSTER}"
LOOK_S = 0.25
DRAIN_S = 90.0
SPREAD_TRIES = 6
SHARDS, SPARES = 2, 1


class KindStage(Ground):
    """Use as an async context manager once the cluster is Ready; its end leaves the cluster to its owner, with all nodes back."""

    def __init__(self, kubeconfig: Path, nodes: KindNodes, *, operators: int, proxy: str, kubectl: Path, report: Report) -> None:
        """``operators``: replicas that Helm was asked for; ``proxy``: URL by which the sender reaches pods; ``kubectl``: the program."""
        super().__init__(kubeconfig, (CLUSTER,), ask_client=False)
        self.nodes = nodes
        self.operators = operators
        self.frozen: list[tuple[NodeShell, int]] = []
        """Processes that were stopped by a signal and not continued since, and a shell beside each."""
        self.wanted: str = ""
        """What is not whole, as `settle` last found it."""
        self._proxy = proxy
        self._kubectl = kubectl
        self._report = report
        self._exits = AsyncExitStack()

    # ------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        """Watch, and let messages flow. LocalKubeError when the cluster does not let us in."""
        try:
            await self._exits.enter_async_context(self.api)
            await self._exits.enter_async_context(self.nodes)
            await asyncio.to_thread(self._observer.__enter__)
            stream = Stream(self.kubeconfig, NAMESPACE, CLUSTER, lambda: self.observer, proxy=self._proxy)
            self.streams[CLUSTER] = await self._exits.enter_async_context(stream)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the messages and the watching, bring the nodes back."""
        await self._close()

    async def _close(self) -> None:
        await self._exits.aclose()
        await asyncio.to_thread(self._observer.__exit__, KeyboardInterrupt)  # what it missed was asked of it before

    # ------------------------------------------------------------ as Ground asks

    def fault(self) -> str:
        """Nothing of it is a process of ours that could end by itself."""
        return ""

    def state(self) -> str:
        """What is not whole."""
        return f"{self.wanted} {self.observer.summary()}"

    async def ambiguous(self) -> int:
        """Nobody counts that here but the observer."""
        return 0

    def busy_seconds(self) -> float:
        """The nodes are real."""
        return 0.0

    async def is_operator(self, name: str) -> bool:
        """Whether a pod of this name runs and is not about to go."""
        pod = await self.api.get(f"/api/v1/namespaces/{SYSTEM}/pods/{name}")
        return pod is not None and is_ready(pod)

    async def put_right(self) -> None:
        """All nodes there and schedulable, two shards, everything whole."""
        await self.bring_nodes_back()
        await self.uncordon()
        await self.set_shards(CLUSTER, SHARDS)
        if late := await self.settle(self.clusters):
            self._report(f"{', '.join(late)} is still not as wanted: {self.state()}")

    async def settle(self, clusters: Iterable[str], timeout: float = SETTLE_S) -> list[str]:
        """As for any ground; here nodes, operators, Webapps and the simulator must be whole, too."""
        deadline = time.monotonic() + timeout
        names = list(clusters)
        while True:
            late = await super().settle(names, max(LOOK_S, deadline - time.monotonic()))
            self.wanted = "; ".join(await self._not_whole())
            # Whoever waited for the rest looks at the clusters once more: a pod may have gone meanwhile.
            if not late and not self.wanted:
                return []
            if time.monotonic() > deadline:
                return names
            await asyncio.sleep(LOOK_S)

    async def _not_whole(self) -> list[str]:
        nodes = [node["metadata"]["name"] for node in await self.node_objects() if not is_whole(node)]
        operators = await self.operator_pods()
        wanted = {"operators": (operators, self.operators), "Webapps": (self.pods(CLUSTER, "webapp"), None)}
        wanted["simulators"] = (self.pods(CLUSTER, "simulator"), 1)
        said = [f"node {name} is not ready" for name in nodes]
        for what, (pods, count) in wanted.items():
            if not all(map(is_ready, pods)) or len(pods) < 1 or (count is not None and len(pods) != count):
                said.append(f"{sum(map(is_ready, pods))} of {len(pods)} {what} are ready, {count or 'all'} are wanted")
        return said

    # ------------------------------------------------------------ what is where

    async def node_objects(self) -> list[Obj]:
        """All nodes."""
        answer = await self.api.get("/api/v1/nodes") or {}
        return list(answer.get("items") or ())

    async def workers(self) -> list[str]:
        """The names of the nodes that faults may strike."""
        return sorted(node["metadata"]["name"] for node in await self.node_objects() if CONTROL_PLANE not in node["metadata"]["labels"])

    async def operator_pods(self) -> list[Obj]:
        """The operators' pods, those that are about to go included."""
        answer = await self.api.get(OPERATORS) or {}
        return list(answer.get("items") or ())

    def pod_of(self, holder: Holder) -> Obj:
        """The holder's pod. LocalKubeError if it is gone."""
        pod = self.observer.find("Pod", NAMESPACE, holder.pod)
        if pod is None or pod["metadata"]["uid"] != holder.uid:
            msg = f"{holder.pod} is gone, so it cannot be struck"
            raise LocalKubeError(msg)
        return pod

    def holders_on(self, node: str) -> list[Holder]:
        """The holders on a node."""
        return [one for one in self.holders(CLUSTER) if node_of(self.pod_of(one)) == node]

    async def leader_pod(self) -> Obj:
        """The leading operator's pod. LocalKubeError if nobody leads."""
        name = await self.leader()
        pod = await self.api.get(f"/api/v1/namespaces/{SYSTEM}/pods/{name}")
        if pod is None:
            msg = f"operator {name} is gone"
            raise LocalKubeError(msg)
        return pod

    # ------------------------------------------------------------ asked for

    async def switch_over(self, shard: int, to: str = "") -> None:
        """Wish that a shard moves to a spare, or to this one, by the annotation that users write."""
        wish = f"{shard}={to}" if to else str(shard)
        await self.api.patch(CR, {"metadata": {"annotations": {SWITCHOVER: wish}}}, kind="merge-patch+json")

    async def delete_pod(self, pod: str, *, namespace: str = NAMESPACE, grace: int | None = None) -> None:
        """Delete a pod as ``kubectl delete pod`` does; with ``grace=0`` as with ``--force``."""
        await self.api.delete(f"/api/v1/namespaces/{namespace}/pods/{pod}", grace=grace)

    async def bring_nodes_back(self) -> None:
        """Have all nodes again, their kubelets having told so, and send through all Webapps. LocalKubeError when it takes too long."""
        started = await self.nodes.back()
        for node, since in started.items():
            await self._until_told(node, since)
        await self.shun(())

    async def _until_told(self, node: str, since: datetime) -> None:
        """Wait until the API server knows that the containers of a node were started again: what it said of them before is of the past."""
        deadline = time.monotonic() + SETTLE_S
        path = f"/api/v1/pods?fieldSelector=spec.nodeName={node}"
        while pods := [pod for pod in (await self.api.get(path) or {})["items"] if not has_started(pod, since)]:
            if time.monotonic() > deadline:
                names = ", ".join(pod["metadata"]["name"] for pod in pods)
                msg = f"node {node} was started again {SETTLE_S:g} s ago, and its kubelet has not started {names}"
                raise LocalKubeError(msg)
            await asyncio.sleep(LOOK_S)

    async def drain(self, node: str) -> None:
        """`kubectl drain` as an administrator types it."""
        options = ("--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={DRAIN_S:g}s")
        await run(self._kubectl, "--kubeconfig", self.kubeconfig, "drain", node, *options, timeout=DRAIN_S + 10.0)

    async def uncordon(self) -> None:
        """Have all workers take pods."""
        for node in await self.workers():
            await self.api.patch(f"/api/v1/nodes/{node}", {"spec": {"unschedulable": None}}, kind="merge-patch+json")

    async def shun(self, nodes: Collection[str]) -> None:
        """Send through Webapps elsewhere; those on these nodes are about to go."""
        await self.streams[CLUSTER].shun(nodes)

    async def spread(self) -> None:
        """Have Coreapps, and Webapps, on as many workers as there can be. A standby is moved rather than a holder."""
        for component in ("coreapp", "webapp"):
            for _ in range(SPREAD_TRIES):
                held = {one.uid for one in self.holders(CLUSTER)}
                surplus = crowded(self.pods(CLUSTER, component), await self.workers(), held)
                if surplus is None:
                    break
                await self.replace(surplus)
                await self.settle(self.clusters)

    async def replace(self, pod: Obj) -> None:
        """Delete a pod and wait until this very pod is gone."""
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        await self.delete_pod(name)
        await self.seen(lambda: self.is_gone(name, uid), SETTLE_S, f"the end of {name}")

    def is_gone(self, name: str, uid: str) -> bool:
        """Whether the pod with this uid is no more."""
        pod = self.observer.find("Pod", NAMESPACE, name)
        return pod is None or pod["metadata"]["uid"] != uid


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


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is ready and not about to go."""
    return "deletionTimestamp" not in pod["metadata"] and _condition(pod) == "True"


def has_started(pod: Mapping[str, Any], since: datetime) -> bool:
    """Whether a pod's containers run since then, as its kubelet says."""
    states = [one.get("state") or {} for one in (pod.get("status") or {}).get("containerStatuses") or ()]
    return bool(states) and all("running" in state and datetime.fromisoformat(state["running"]["startedAt"]) >= since for state in states)


def is_whole(node: Mapping[str, Any]) -> bool:
    """Whether a node is ready and takes pods; a control plane may say that it does not."""
    spec = node.get("spec") or {}
    marks = [taint["key"] for taint in spec.get("taints") or () if taint["key"] != CONTROL_PLANE]
    return _condition(node) == "True" and not spec.get("unschedulable") and not marks


def _condition(obj: Mapping[str, Any], kind: str = "Ready") -> str:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((str(one["status"]) for one in conditions if one["type"] == kind), "")
