"""Fills a control plane with clusters that are as wanted and have nobody in their pods but one answering process."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from localkube.demo.stage import Stage
from localkube.errors import LocalKubeError
from localkube.hollow.addresses import Addresses
from localkube.hollow.kube import Kube
from localkube.hollow.nodes import HollowNode
from localkube.plane import kubeconfig, processes
from localkube.plane.operators import REPOSITORY
from localkube.plane.processes import Process, Spawner
from localkube.progress import Report
from localkube.scale import objects
from localkube.scale.calls import Calls
from localkube.scale.objects import COLLECTIONS, COREAPPS, NAMESPACE, SHARDS, WEBAPPS, path_of

Obj = dict[str, Any]

AT_A_TIME = 12
PODS_S = 600.0
LISTEN_S = 60.0
ACCOUNT_S = 30.0
PAGE = 500
LOOK_S = 3.0
"""Between two looks whether the controllers are done: each costs a list of all pods."""
TAINT = {"key": "multiconnect.dev/scale-bench", "value": "nobody-runs-pods", "effect": "NoSchedule"}


class Crowd:
    """So many clusters that are objects and answers only. Use between ``fill`` and ``close``, on a stage that is up."""

    def __init__(self, stage: Stage, kube: Kube, *, clusters: int, report: Report) -> None:
        """Prepare; ``clusters``: how many."""
        self._stage, self._nodes, self._report = stage, kube, report
        self._kube = Calls(kubeconfig.read(stage.plane.admin_kubeconfig))
        self._names = [f"s{number:04}" for number in range(clusters)]
        self._addresses = Addresses(str(stage.folder / "scale"))
        self._spawner = Spawner(leashed=True)
        self._answers: Process | None = None
        self._wanted: dict[str, Any] = {}
        self._secrets: dict[str, dict[str, str]] = {}
        self._plan: Obj = {"coreapps": {}, "webapps": [], "nodes": []}

    # ------------------------------------------------------------ life

    async def fill(self) -> None:
        """Create everything, with answers behind every address before an operator may ask. KubeError, LocalKubeError."""
        alive: list[asyncio.Task[None]] = []
        try:
            async with self._kube:
                await self._fill(alive)
            await asyncio.to_thread(self._start_answers)
        finally:
            for task in alive:
                task.cancel()
            await asyncio.gather(*alive, return_exceptions=True)

    async def _fill(self, alive: list[asyncio.Task[None]]) -> None:
        begun = time.monotonic()
        await self._kube.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        await self._until(self._may_create_pods, ACCOUNT_S, f"the ServiceAccount of namespace {NAMESPACE}")
        # A node without a heartbeat is given up after 40 s, and the pods on it with it.
        alive += [asyncio.create_task(node.keep()) for node in await self._register_nodes()]
        await self._each(self._names, self._create_parts)
        self._report(f"{len(self._names)} clusters: objects after {time.monotonic() - begun:.0f} s")
        pods: dict[str, list[Obj]] = {}
        await self._until(lambda: self._find_pods(pods), PODS_S, "the pods of all clusters")
        await self._each(self._names, lambda name: self._bring_up(name, pods[name]))
        self._report(f"{len(self._names)} clusters: {sum(map(len, pods.values()))} pods after {time.monotonic() - begun:.0f} s")

    def close(self) -> None:
        """End the answers and let the addresses go; the objects end with their control plane."""
        processes.stop([self._answers] if self._answers is not None else [])
        self._spawner.close()
        self._addresses.close()

    # ------------------------------------------------------------ steps

    async def _each(self, names: Iterable[str], step: Callable[[str], Awaitable[None]]) -> None:
        few = asyncio.Semaphore(AT_A_TIME)

        async def one(name: str) -> None:
            async with few:
                await step(name)

        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(one(name))

    async def _until(self, done: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not await done():
            if time.monotonic() > deadline:
                msg = f"waited {seconds:g} s in vain for {what}"
                raise LocalKubeError(msg)
            await asyncio.sleep(LOOK_S)

    async def _may_create_pods(self) -> bool:
        return await self._kube.get(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default") is not None

    async def _register_nodes(self) -> list[HollowNode]:
        nodes: list[HollowNode] = []
        for number in range(objects.NODES):
            node = HollowNode(self._nodes, objects.node_name(number), self._addresses.node(number), zone=f"zone-{number % 3}")
            await node.register()
            await self._nodes.patch(f"/api/v1/nodes/{node.name}", {"spec": {"taints": [TAINT]}}, kind="merge-patch+json")
            self._plan["nodes"].append({"name": node.name, "address": node.address, "zone": node.zone})
            nodes.append(node)
        return nodes

    async def _create_parts(self, name: str) -> None:
        stored = await self._kube.post(COLLECTIONS["WhatsAppCluster"], objects.cluster(name))
        want = self._wanted[name] = objects.desired(stored)
        for obj in objects.parts(want):
            await self._kube.post(COLLECTIONS[obj["kind"]], obj)
            if obj["kind"] == "Secret" and obj["type"] == "kubernetes.io/tls":
                self._secrets[name] = {key: base64.b64decode(value).decode() for key, value in obj["data"].items()}

    async def _find_pods(self, pods: dict[str, list[Obj]]) -> bool:
        """Whether the controllers have made all pods; they are put into ``pods``, by cluster."""
        pods.clear()
        token = ""
        while True:
            page = await self._kube.get(f"{COLLECTIONS['Pod']}?limit={PAGE}&continue={token}") or {}
            for pod in page.get("items") or []:
                pods.setdefault(objects.cluster_of(pod), []).append(pod)
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return sum(map(len, pods.values())) == len(self._names) * (COREAPPS + WEBAPPS + 1)

    async def _bring_up(self, name: str, pods: list[Obj]) -> None:
        """Be scheduler and kubelet of a cluster's pods, and what an operator did before ours began."""
        want, now = self._wanted[name], datetime.now(UTC)
        webapps: list[str] = []
        for number, pod in enumerate(pods):
            ip = self._addresses.take()
            path = path_of("Pod", pod["metadata"]["name"])
            component = objects.component_of(pod)
            ordinal = objects.ordinal_of(pod) if component == "coreapp" else number
            await self._kube.post(f"{path}/binding", objects.binding(pod["metadata"]["name"], objects.node_name(ordinal)))
            await self._kube.patch(f"{path}/status", objects.running(pod, ip=ip, now=now), kind="strategic-merge-patch+json")
            if component == "webapp":
                webapps.append(ip)
            if component == "coreapp":
                self._plan["coreapps"][ip] = _report_of(pod, ordinal)
                if ordinal < SHARDS:
                    labels = {"metadata": {"labels": objects.holder_labels(ordinal)}}
                    await self._kube.patch(path, labels)
                    await self._kube.post(COLLECTIONS["Service"], objects.shard_service(want, ordinal, pod, now=now))
        status = {"status": {"settledShards": SHARDS}}
        await self._kube.patch(f"{path_of('WhatsAppCluster', name)}/status", status)
        secret = self._secrets[name]
        self._plan["webapps"].append({"addresses": webapps, "certificate": secret["tls.crt"], "key": secret["tls.key"], "shards": SHARDS})

    def _start_answers(self) -> None:
        folder = self._stage.folder / "scale"
        folder.mkdir(exist_ok=True)
        plan, ready = folder / "plan.json", folder / "ready"
        plan.touch(mode=0o600)
        plan.write_text(json.dumps(self._plan), encoding="utf-8")
        access = self._stage.plane.admin_kubeconfig
        argv: list[str | Path] = [sys.executable, "-m", "localkube.scale.answers", "--kubeconfig", access, "--plan", plan, "--ready", ready]
        env = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'hack'}{os.pathsep}{REPOSITORY / 'operator'}"}
        self._answers = self._spawner.start("answers", argv, folder=folder, log=folder / "answers.log", env=env)
        deadline = time.monotonic() + LISTEN_S
        while not ready.exists():
            if not self._answers.alive() or time.monotonic() > deadline:
                msg = f"the answering process is not ready; the end of {self._answers.log}:\n{self._answers.last_lines()}"
                raise LocalKubeError(msg)
            time.sleep(processes.POLL_SECONDS)

    @property
    def answers(self) -> Process | None:
        """The process that answers for all pods."""
        return self._answers


def _report_of(pod: Obj, ordinal: int) -> Obj:
    """What a Coreapp answers to a probe."""
    holds = ordinal < SHARDS
    return {
        "uid": pod["metadata"]["uid"],
        "pod": pod["metadata"]["name"],
        "shard": ordinal if holds else None,
        "epoch": objects.epoch(ordinal) if holds else None,
        "shards": SHARDS,
        "gateway_status": "connected" if holds else "disconnected",
        "version": "v2.53.4",
    }
