"""Fills a control plane with clusters that are in the desired state; one process answers for all their pods."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

from localkube import Obj
from localkube.files import PRIVATE, write
from localkube.hollow.addresses import Addresses, of_node
from localkube.hollow.kube import MERGE, Kube
from localkube.hollow.nodes import HollowNode
from localkube.plane import processes
from localkube.plane.processes import Process
from localkube.progress import to_stderr
from localkube.scenarios.harness import start_module
from localkube.scenarios.hollow.environment import SingleCluster
from localkube.scenarios.scale import objects
from localkube.scenarios.scale.objects import COLLECTIONS, COREAPPS, NAMESPACE, NODES, SHARDS, WEBAPPS
from whatsapp_operator.core import manifests

AT_A_TIME = 12
PODS_S, LISTEN_S, ACCOUNT_S = 600.0, 60.0, 30.0
POLL_S = 3.0  # from one question whether the controllers are done to the next: each costs a list of all pods
TAINT = {"key": "multiconnect.dev/scale-bench", "value": "pods-are-not-run", "effect": "NoSchedule"}


class Crowd:
    """Clusters that consist only of objects and answers. Use between ``fill`` and ``close``, in an environment that is up."""

    def __init__(self, environment: SingleCluster, *, clusters: int) -> None:
        """Prepare; ``clusters``: how many."""
        self._environment, self._kube = environment, environment.api
        self._names = [f"s{number:04}" for number in range(clusters)]
        self._addresses = Addresses()
        self._answers: Process | None = None
        self._plan: Obj = {"coreapps": {}, "webapps": []}
        self._heartbeats: list[asyncio.Task[None]] = []

    async def fill(self) -> None:
        """Create everything, with answers behind every address before an operator may ask. LocalKubeError."""
        begun = time.monotonic()
        await self._kube.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        await self._environment.until(self._may_create_pods, ACCOUNT_S, f"a ServiceAccount in namespace {NAMESPACE}", pause=POLL_S)
        await self._register_nodes()
        stored = await self._each(self._create_parts)
        to_stderr(f"{len(stored)} clusters: objects after {time.monotonic() - begun:.0f} s")
        pods: dict[str, list[Obj]] = {}
        await self._environment.until(lambda: self._find_pods(pods), PODS_S, "the creation of all pods", pause=POLL_S)
        await self._each(lambda name: self._bring_up(stored[name], pods[name]))
        to_stderr(f"{len(stored)} clusters: {sum(map(len, pods.values()))} pods after {time.monotonic() - begun:.0f} s")
        await asyncio.to_thread(self._start_answers)

    def used(self) -> float:
        """Processor time that the process which answers for all pods has used so far, in seconds."""
        return self._answers.processor_seconds() if self._answers is not None else 0.0

    def close(self) -> None:
        """End answers and heartbeats, and let the addresses go; the objects end with their control plane."""
        for task in self._heartbeats:
            task.cancel()
        processes.stop([self._answers] if self._answers is not None else [])
        self._addresses.close()

    # ------------------------------------------------------------ steps

    async def _each(self, step: Callable[[str], Awaitable[Obj]]) -> dict[str, Obj]:
        """Take a step for every cluster, a few at a time; what came of it, by name."""
        few = asyncio.Semaphore(AT_A_TIME)

        async def one(name: str) -> Obj:
            async with few:
                return await step(name)

        return dict(zip(self._names, await asyncio.gather(*map(one, self._names)), strict=True))

    async def _may_create_pods(self) -> bool:
        return await self._kube.get(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default") is not None

    async def _register_nodes(self) -> None:
        """Nodes with a heartbeat: without it a node is given up after 40 s, and the pods on it with it."""
        for number in range(NODES):
            node = HollowNode(self._kube, f"scale-{number}", of_node(number), zone=f"zone-{number % 3}")
            await node.register()
            await self._kube.patch(f"/api/v1/nodes/{node.name}", {"spec": {"taints": [TAINT]}}, kind=MERGE)
            self._heartbeats.append(asyncio.create_task(node.keep()))

    async def _create_parts(self, name: str) -> Obj:
        """Create a cluster and all that the operator would make of it; the WhatsAppCluster as stored, and the Webapps' certificate."""
        stored = await self._kube.post(COLLECTIONS["WhatsAppCluster"], objects.cluster(name))
        desired, secrets, tls = objects.desired(stored), dict[str, Obj](), dict[str, str]()
        for obj in objects.parts(desired):
            made = await self._kube.post(COLLECTIONS[obj["kind"]], objects.stamped(desired, obj, secrets))
            if obj["kind"] == "Secret":
                secrets[obj["metadata"]["name"]] = made
            if obj.get("type") == "kubernetes.io/tls":
                tls = {key: base64.b64decode(value).decode() for key, value in obj["data"].items()}
        return {"stored": stored, "webapps": {"certificate": tls["tls.crt"], "key": tls["tls.key"], "shards": SHARDS}}

    async def _find_pods(self, pods: dict[str, list[Obj]]) -> bool:
        """Whether the controllers have made all pods; they are put into ``pods``, by cluster."""
        pods.clear()
        async for pod in items(self._kube, COLLECTIONS["Pod"]):
            pods.setdefault(pod["metadata"]["labels"][manifests.CLUSTER_LABEL], []).append(pod)
        return sum(map(len, pods.values())) == len(self._names) * (COREAPPS + WEBAPPS + 1)

    async def _bring_up(self, made: Obj, pods: list[Obj]) -> Obj:
        """Be scheduler and kubelet of a cluster's pods, and what an operator did before the measured one began."""
        desired, now = objects.desired(made["stored"]), datetime.now(UTC)
        webapps: list[str] = []
        for number, pod in enumerate(pods):
            ip, labels, name = self._addresses.take(), pod["metadata"]["labels"], pod["metadata"]["name"]
            component = labels[manifests.COMPONENT_LABEL]
            ordinal = int(labels["apps.kubernetes.io/pod-index"]) if component == "coreapp" else number
            path = f"{COLLECTIONS['Pod']}/{name}"
            target = {"apiVersion": "v1", "kind": "Node", "name": f"scale-{ordinal % NODES}"}
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "namespace": NAMESPACE}, "target": target}
            await self._kube.post(f"{path}/binding", binding)
            await self._kube.patch(f"{path}/status", objects.running(pod, ip=ip, now=now))
            if component == "webapp":
                webapps.append(ip)
            elif component == "coreapp":
                self._plan["coreapps"][ip] = objects.report(pod, ordinal)
                if ordinal < SHARDS:
                    await self._kube.patch(path, {"metadata": {"labels": objects.holder_labels(ordinal)}}, kind=MERGE)
                    await self._kube.post(COLLECTIONS["Service"], objects.shard_service(desired, ordinal, pod, now=now))
        self._plan["webapps"].append({"addresses": webapps, **made["webapps"]})
        status = {"status": {"settledShards": SHARDS}}
        return await self._kube.patch(f"{COLLECTIONS['WhatsAppCluster']}/{desired.key.name}/status", status, kind=MERGE)

    def _start_answers(self) -> None:
        folder = self._environment.harness.folder / "scale"
        ready, plan = folder / "ready", write(folder / "plan.json", json.dumps(self._plan), mode=PRIVATE)
        options = {"plan": plan, "ready": ready}
        log = folder / "answers.log"
        self._answers = start_module("answers", "localkube.scenarios.hollow.answers", options, folder=folder, log=log)
        processes.wait_until(ready.exists, [self._answers], "to be ready", time.monotonic() + LISTEN_S)


async def items(kube: Kube, path: str, page: int = 500) -> AsyncIterator[Obj]:
    """All objects of a collection, read page by page. KubeError."""
    token = ""
    while True:
        answer = await kube.get(f"{path}?limit={page}&continue={token}") or {}
        for item in answer.get("items") or ():
            yield item
        if not (token := (answer.get("metadata") or {}).get("continue") or ""):
            return
