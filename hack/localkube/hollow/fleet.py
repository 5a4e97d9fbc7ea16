"""The hollow nodes of one process and everything that runs on them: their pods follow the API server, and faults are injected here."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from localkube import Obj
from localkube.hollow.claims import HollowClaims
from localkube.hollow.kube import Kube, Mirror
from localkube.hollow.nodes import HollowNode
from localkube.hollow.pods import HollowPod, Make, Surroundings, spawn
from localkube.hollow.spec import Backend, Data, backends, data_of, is_address, named_ports, service_name, target_port
from localkube.hollow.status import is_barred, is_ready

PROBE_S = 0.02


class Hollow:
    """The hollow nodes of one process and all that runs on them. `process.running` starts and ends one."""

    def __init__(self, kube: Kube, nodes: Sequence[HollowNode], *, folder: Path, restart_delay_s: float, make: Make) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.pods: dict[str, HollowPod] = {}
        self.ambiguous: Counter[str] = Counter()
        self._around = Surroundings(
            kube=kube,
            folder=folder,
            restart_delay_s=restart_delay_s,
            make=make,
            resolve=lambda namespace: lambda service, port: self.resolve(namespace, service, port),
            sources=lambda namespace: lambda kind, name: self._data(namespace, kind, name),
        )
        self._services = Mirror(kube, "/api/v1/services", lambda *_: None)
        self._config = {
            "secret": Mirror(kube, "/api/v1/secrets", self._config_changed),
            "configmap": Mirror(kube, "/api/v1/configmaps", self._config_changed),
        }
        self._nodes = Mirror(kube, "/api/v1/nodes", self._node_changed)
        self._claims = HollowClaims(kube, folder / "claims", self._spawn)
        self._pods = Mirror(kube, "/api/v1/pods", self._pod_changed, selector="spec.nodeName!=")  # the empty value: only bound pods
        self._open = asyncio.Event()
        """Set as soon as the scheduler may use all nodes."""
        self._tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Register the nodes and follow their pods; returns when everything that exists is known. Raises KubeError."""
        await asyncio.gather(*(node.register() for node in self.nodes.values()))
        mirrors = [self._services, *self._config.values(), self._nodes, self._claims.mirror]
        for mirror in mirrors:
            self._spawn(mirror.run())
        await asyncio.gather(*(mirror.synced.wait() for mirror in mirrors))
        self._spawn(self._pods.run())  # last: a pod that starts looks for its Secrets and Services
        await self._pods.synced.wait()
        for node in self.nodes.values():
            self._spawn(node.keep())
        self._spawn(self._probe_all())
        await self._open.wait()  # else the scheduler puts all pods on the first node

    async def stop(self) -> None:
        """Everything ends at once, as if the power went off. Nodes and pods stay in the API."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(pod.shut_down() for pod in self.pods.values()))
        self._around.addresses.close()

    async def _probe_all(self) -> None:
        while True:
            for pod in list(self.pods.values()):
                pod.probe()
            await asyncio.sleep(PROBE_S)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        spawn(work, "a part of the process", kept=self._tasks)

    # ------------------------------------------------------------ what the API server reports

    def _pod_changed(self, event: str, pod: Obj) -> None:
        node = self.nodes.get(pod["spec"].get("nodeName", ""))
        if node is not None and not node.lost:  # what happens meanwhile is handled when the node is back
            self._settle(event, pod, node)

    def _settle(self, event: str, pod: Obj, node: HollowNode) -> None:
        """Start, change or end what runs for one pod object."""
        uid = pod["metadata"]["uid"]
        known = self.pods.get(uid)
        if event == "DELETED":
            if known is not None:
                del self.pods[uid]
                self._spawn(known.vanish())
        elif known is None:
            self.pods[uid] = HollowPod(pod, node, self._around)
            self.pods[uid].begin()
        elif not known.finished:
            known.update(pod)

    def _config_changed(self, _: str, obj: Obj) -> None:
        for pod in self.pods.values():
            if pod.namespace == obj["metadata"]["namespace"]:
                pod.news.set()

    def _data(self, namespace: str, kind: str, name: str) -> Data | None:
        found = self._config[kind].items.get((namespace, name))
        return None if found is None else data_of(kind, found)

    def _node_changed(self, event: str, obj: Obj) -> None:
        node = self.nodes.get(obj["metadata"]["name"])
        if node is None or event == "DELETED":
            return
        node.judged(obj)
        known = [self._nodes.items.get(("", name)) for name in self.nodes]
        if not any(one is None or is_barred(one) for one in known):
            self._open.set()

    # ------------------------------------------------------------ Services

    async def resolve(self, namespace: str, service: str, port: int) -> tuple[str, int]:
        """(ip, port) behind a Service, asked from a namespace, as its endpoints are at this moment. Raises LookupError when there is none.

        EndpointSlices reject loopback addresses, so the selector is applied here. Of several pods the first by name is taken, and counted.
        """
        if is_address(service):
            return service, port
        where, name = service_name(service, namespace)
        found = self._services.items.get((where, name))
        if found is None:
            raise LookupError(f"there is no service {where}/{name}")
        chosen = backends(found, self._backends(where, found["spec"].get("selector") or {}))
        if not chosen:
            raise LookupError(f"service {where}/{name} has no endpoint")
        if len(chosen) > 1:
            self.ambiguous[f"{where}/{name}"] += 1
        return chosen[0].ip, target_port(found, port, chosen[0])

    def _backends(self, namespace: str, selector: Mapping[str, str]) -> Iterator[Backend]:
        """The pods as a Service sees them: by what their node reports or, when that is lost, by what the API server thinks."""
        for pod in self._pods.by_namespace[namespace].values():
            meta, status = pod["metadata"], pod.get("status") or {}
            labels = meta.get("labels") or {}
            if not selector.items() <= labels.items() or status.get("phase") in {"Failed", "Succeeded"}:
                continue
            own = self.pods.get(meta["uid"])
            yield Backend(
                name=meta["name"],
                ip=status.get("podIP", "") if own is None else own.ip,
                labels=labels,
                ready=is_ready(pod) if own is None or own.node.lost else own.container.ready,
                leaving="deletionTimestamp" in meta,
                ports=named_ports(pod),
            )

    # ------------------------------------------------------------ faults

    def pod(self, namespace: str, name: str, uid: str | None = None) -> HollowPod:
        """The pod of this name (and uid) that this process runs. Raises LookupError."""
        for pod in self.pods.values():
            if (pod.namespace, pod.name) == (namespace, name) and uid in {None, pod.uid} and not pod.finished:
                return pod
        raise LookupError(f"no hollow node runs a pod {namespace}/{name}{f' with uid {uid}' if uid else ''}")

    def _node(self, name: str) -> HollowNode:
        if name not in self.nodes:
            raise LookupError(f"there is no hollow node {name}; there are {', '.join(sorted(self.nodes))}")
        return self.nodes[name]

    def _pods_on(self, node: HollowNode) -> list[HollowPod]:
        return [pod for pod in self.pods.values() if pod.node is node]

    async def lose(self, name: str, *, running: bool = False) -> None:
        """Cut a node off: nothing of it is renewed, reported or carried out, and its containers do not answer.

        Its processes are stopped, as if the node had lost its whole network. With ``running``, its Coreapps keep running instead: only a
        test that calls from `wabiz_sim.disturbance.NEAR` reaches them, and they reach the WhatsApp servers and the webhook. Everything
        else there is stopped.
        """
        node = self._node(name)
        node.reachable.clear()
        for pod in self._pods_on(node):
            with contextlib.suppress(Exception):  # one without a running container has nothing to freeze
                await (pod.part() if running and pod.kind == "coreapp" else pod.hang("lost"))

    async def bring_back(self, name: str, *, rebooted: bool = False) -> None:
        """End a loss: containers of pods that still exist continue (or start again after a reboot), the others end; all is reported."""
        node = self._node(name)
        if not node.lost:
            return
        self._end_unbound(node)  # before they can answer again
        for pod in self._pods_on(node):
            if rebooted:
                with contextlib.suppress(Exception):
                    await pod.kill(message="the node was rebooted")
            else:
                await pod.join()
                await pod.resume("lost")
        await node.come_back()
        self._end_unbound(node)
        for uid, obj in self._bound(name).items():
            self._settle("MODIFIED", obj, node)
            self.pods[uid].reporter.report(again=True)

    def _bound(self, name: str) -> dict[str, Obj]:
        """By uid: what is bound to a node now. To be asked again after every wait: a pod that is gone by then would be revived."""
        return {obj["metadata"]["uid"]: obj for obj in self._pods.items.values() if obj["spec"].get("nodeName") == name}

    def _end_unbound(self, node: HollowNode) -> None:
        bound = self._bound(node.name)
        for pod in self._pods_on(node):
            if pod.uid not in bound:
                self._settle("DELETED", pod.pod, node)

    def describe(self) -> Obj:
        """All there is, for a control client."""
        pods = sorted((pod.describe() for pod in self.pods.values() if not pod.finished), key=lambda pod: (pod["namespace"], pod["name"]))
        nodes = [{"name": node.name, "address": node.address, "zone": node.zone, "lost": node.lost} for node in self.nodes.values()]
        effects = {uid: dict(sum(lives, Counter())) for uid, lives in self._around.effects.items()}
        return {"pods": pods, "nodes": nodes, "ambiguous": dict(self.ambiguous), "effects": effects}
