"""The simulated Kubernetes cluster: controllers of StatefulSets and Deployments, kubelets, garbage collection. Each acts a little later."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any, TypeVar
from zlib import crc32

from .apiserver import ApiServer, Change, Name, matches, stamp
from .budgets import Budgets
from .client import Account, ConnectionLog, Coreapp, CoreappConnection
from .collector import Collector
from .kinds import DEPLOYMENT, POD, STATEFULSET, Kind, Obj, is_ready, says_ready
from .nodes import NodePool, SimNode
from .virtual import PROCESS, Process

T = TypeVar("T")

REVISION = "controller-revision-hash"
WORKLOADS = (STATEFULSET, DEPLOYMENT)
NODES = 4
NOWHERE = "nowhere.example/"
"""An image that begins so cannot be pulled."""


class _Same:
    """A dictionary as a key of a cache: equal to itself only. Objects of the API server are never changed."""

    __slots__ = ("value",)

    def __init__(self, value: Obj) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value


def revision_of(workload: Obj) -> str:
    """The name that a controller gives the template as it is: the same for the same template."""
    return f"{workload['metadata']['name']}-{_checksum(_Same(workload['spec']['template'])):08x}"


@lru_cache(maxsize=64)
def _checksum(template: _Same) -> int:
    return crc32(json.dumps(_without_empty(template.value), sort_keys=True).encode())


def _without_empty(value: Any) -> Any:
    """Leave out empty maps: the API server does not store them, so that they make no other template."""
    if isinstance(value, dict):
        return {key: one for key, old in value.items() if (one := _without_empty(old)) not in ({}, None)}
    return [_without_empty(one) for one in value] if isinstance(value, list) else value


@dataclass(eq=False, slots=True)
class Machine:
    """What runs of one pod on its node; it outlives the pod's object when that is deleted by force."""

    uid: str
    name: Name
    component: str
    ip: str
    node: SimNode
    coreapp: Coreapp | None = None
    running: bool = False
    starts: int = 0
    started_at: float = 0.0
    troubled_at: float = float("-inf")
    """When it last was seen by the world not to be able to serve: ended, hung, on a node that was lost."""

    @property
    def is_sound(self) -> bool:
        """Whether it could serve now and be heard of."""
        coreapp = self.coreapp
        return self.running and self.node.is_reachable and coreapp is not None and coreapp.listening and not coreapp.is_hung


class Cluster:
    """Follows the API server and brings about what its objects ask for."""

    def __init__(self, server: ApiServer, *, rng: Random, account: Account) -> None:
        self._server = server
        self._rng = rng
        self._account = account
        self._due: set[tuple[Kind, Name]] = set()
        self.machines: dict[str, Machine] = {}
        self._names = 0
        self.deaf: float = 0.0
        """Chance that a connection to a Coreapp gets no answer."""
        self.lossy: float = 0.0
        """Chance that a probe or its answer is lost and sent again, so that it takes longer than the deadline."""
        self.did: Counter[str] = Counter()
        """How often each fault of the network did something."""
        self.start_seconds = (0.2, 1.5)
        self.has_unready_sidecar: Callable[[Obj], bool] = lambda _: False
        """Whether a pod has another container, which is not ready: its kubelet calls the pod not ready, no matter what the Coreapp does."""
        self.node_pool = NodePool(server, rng=Random(rng.random()), count=NODES)
        self.listener: Callable[[Process | None, str], ConnectionLog] = lambda *_: ConnectionLog()
        """Who notes what a process asks a Coreapp, and hears."""
        self.node_pool.lost, self.node_pool.found = self._switched_off, self._back
        server.watchers.append(self._watch)
        Collector(server, self._later)
        budgets = Budgets(server, self._later, lambda: asyncio.get_running_loop().time())
        self.evict = self.node_pool.evict = budgets.evict

    def _later(self, low: float, high: float, do: Callable[..., object], *args: Any) -> None:
        asyncio.get_running_loop().call_later(low + self._rng.random() * (high - low), do, *args)

    # --- controllers --------------------------------------------------------------------------------------------------

    def _watch(self, change: Change) -> None:
        obj = change.after or change.before or {}
        if change.kind in WORKLOADS and change.after is not None:
            self._soon(change.kind, change.name)
        elif change.kind is POD:
            self._pod_changed(change)
            for owner in obj["metadata"].get("ownerReferences") or ():
                kind = next((kind for kind in WORKLOADS if kind.kind == owner["kind"]), None)
                if kind is not None:
                    self._soon(kind, (change.name[0], owner["name"]))
            if not obj["metadata"].get("ownerReferences"):
                # One that belongs to nobody may be one that its StatefulSet lets go of, or takes back.
                self._soon(STATEFULSET, (change.name[0], change.name[1].rpartition("-")[0]))

    def _soon(self, kind: Kind, name: Name) -> None:
        if (kind, name) not in self._due:
            self._due.add((kind, name))
            self._later(0.005, 0.05, self._control, kind, name)

    def _pods_of(self, workload: Obj) -> list[Obj]:
        uid, namespace = workload["metadata"]["uid"], workload["metadata"]["namespace"]
        return [
            pod
            for pod in self._server.list(POD, namespace)
            if any(owner.get("uid") == uid for owner in pod["metadata"].get("ownerReferences") or ())
        ]

    def _control(self, kind: Kind, name: Name) -> None:
        self._due.discard((kind, name))
        workload = self._server.get(kind, name)
        if workload is None or "deletionTimestamp" in workload["metadata"]:
            return
        self._claim(workload)
        pods = self._pods_of(workload)
        (self._control_set if kind is STATEFULSET else self._control_deployment)(workload, pods)
        after = self._pods_of(workload)
        ready = sum(map(says_ready, after))
        status = {
            "replicas": len(after),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "observedGeneration": workload["metadata"]["generation"],
        }
        if kind is STATEFULSET:
            status |= self._revisions(workload, [pod for pod in after if "deletionTimestamp" not in pod["metadata"]])
        self._server.merge("controller", kind, name, {"status": status}, status=True)

    def _claim(self, workload: Obj) -> None:
        """Let go of pods that the selector does not match any more; a StatefulSet takes back what it matches, by name."""
        meta, selector = workload["metadata"], workload["spec"]["selector"].get("matchLabels") or {}
        for pod in self._server.list(POD, meta["namespace"]):
            name, owners = (meta["namespace"], pod["metadata"]["name"]), pod["metadata"].get("ownerReferences") or ()
            if "deletionTimestamp" in pod["metadata"]:
                continue
            fits = matches(selector, pod["metadata"].get("labels"))
            if any(owner.get("uid") == meta["uid"] for owner in owners):
                if not fits:
                    self._server.merge("controller", POD, name, {"metadata": {"ownerReferences": None}})
            elif fits and not owners and workload["kind"] == STATEFULSET.kind and name[1].rpartition("-")[0] == meta["name"]:
                self._server.merge("controller", POD, name, {"metadata": {"ownerReferences": [_owner(workload)]}})

    @staticmethod
    def _revisions(workload: Obj, staying: list[Obj]) -> Obj:
        """Return what a StatefulSet's status says of revisions.

        With OnDelete the current one does not move: so in Kubernetes 1.34. In 1.37 it follows when all pods are new. The operator reads
        the other one alone.
        """
        hashes = [pod["metadata"]["labels"].get(REVISION) for pod in staying]
        update = revision_of(workload)
        current = (workload.get("status") or {}).get("currentRevision", update)
        return {
            "currentRevision": current,
            "updateRevision": update,
            "currentReplicas": hashes.count(current),
            "updatedReplicas": hashes.count(update),
        }

    def _in_batches(self, ones: list[T]) -> Iterator[T]:
        """Return them in the order in which a controller that works in parallel may get to them: one, then two, then four at once."""
        size = 1
        while ones:
            batch, ones = ones[:size], ones[size:]
            self._rng.shuffle(batch)
            yield from batch
            size *= 2

    def _control_set(self, workload: Obj, pods: list[Obj]) -> None:
        meta, wanted = workload["metadata"], int(workload["spec"].get("replicas", 1))
        by_ordinal = {int(pod["metadata"]["name"].rpartition("-")[2]): pod for pod in pods}
        for ordinal in self._in_batches([*range(wanted)]):
            pod, name = by_ordinal.get(ordinal), f"{meta['name']}-{ordinal}"
            if pod is None:
                if self._server.get(POD, (meta["namespace"], name)) is None:
                    self._make(workload, name)
            elif pod["status"].get("phase") in {"Failed", "Succeeded"} and "deletionTimestamp" not in pod["metadata"]:
                self._delete(pod)
        if workload["spec"].get("updateStrategy", {}).get("type") != "OnDelete":
            old = [pod for pod in pods if pod["metadata"]["labels"].get(REVISION) != revision_of(workload)]
            for pod in old[:1] if all(map(is_ready, pods)) else ():
                self._delete(pod)
        condemned = sorted((ordinal for ordinal in by_ordinal if ordinal >= wanted), reverse=True)
        for ordinal in self._in_batches(condemned):
            if "deletionTimestamp" not in by_ordinal[ordinal]["metadata"]:
                self._delete(by_ordinal[ordinal])

    def _control_deployment(self, workload: Obj, pods: list[Obj]) -> None:
        living = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        wanted = int(workload["spec"].get("replicas", 1))
        for _ in range(wanted - len(living)):
            self._names += 1
            self._make(workload, f"{workload['metadata']['name']}-{self._names:04d}x")
        old = [pod for pod in living if pod["metadata"]["labels"].get(REVISION) != revision_of(workload)]
        if old and len(living) <= wanted:
            # A new template: one pod more first (maxSurge 1, maxUnavailable 0), then an old one goes when all the new ones are ready.
            self._names += 1
            self._make(workload, f"{workload['metadata']['name']}-{self._names:04d}x")
            return
        if all(says_ready(pod) for pod in living if pod not in old):
            for pod in sorted(living, key=lambda one: one not in old)[: max(0, len(living) - wanted)]:
                self._delete(pod)

    def _make(self, workload: Obj, name: str) -> None:
        meta, template = workload["metadata"], workload["spec"]["template"]
        labels, place = {**template["metadata"]["labels"], REVISION: revision_of(workload)}, {}
        if workload["kind"] == STATEFULSET.kind:
            place = {"hostname": name, "subdomain": workload["spec"].get("serviceName", "")}
            labels |= {"statefulset.kubernetes.io/pod-name": name, "apps.kubernetes.io/pod-index": name.rpartition("-")[2]}
        annotations = template["metadata"].get("annotations") or {}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": meta["namespace"],
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [_owner(workload)],
            },
            "spec": {"containers": [{part: template["spec"]["containers"][0][part] for part in ("name", "image")}], **place},
        }
        self._server.create("controller", pod)

    def _delete(self, pod: Obj) -> None:
        name = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        self._server.delete("controller", POD, name, uid=pod["metadata"]["uid"])

    # --- kubelets ----------------------------------------------------------------------------------------------------

    def _pod_changed(self, change: Change) -> None:
        if change.before is None and change.after is not None:
            self._later(*self.start_seconds, self._start, change.name, change.after["metadata"]["uid"])
        elif change.after is None and change.before is not None:
            # Deleted by force: the kubelet learns of it late.
            machine = self.machines.get(change.before["metadata"]["uid"])
            if machine is not None:
                self._later(0.0, 4.0, self._stopped, machine)
        elif change.before is not None and change.after is not None:
            begun = "deletionTimestamp" in change.after["metadata"] and "deletionTimestamp" not in change.before["metadata"]
            if begun:
                uid = change.after["metadata"]["uid"]
                self._later(0.2, 5.0, self._gone, change.name, uid)

    def _gone(self, name: Name, uid: str) -> None:
        machine = self.machines.get(uid)
        if machine is not None and self._has_to_wait(machine.node, self._gone, name, uid):
            return
        if machine is not None:
            self._stop(machine)
        pod = self._pod(name, uid)
        if pod is not None:
            self._server.delete("kubelet", POD, name, uid=uid, grace=0)

    @staticmethod
    def _has_to_wait(node: SimNode, do: Callable[..., object], *args: Any) -> bool:
        """Keep for later what a kubelet cannot know or say now; return whether it was kept."""
        if not node.is_reachable:
            node.waiting.append((do, args))
        return not node.is_reachable

    def _switched_off(self, node: SimNode) -> None:
        for machine in self.machines.values():
            if machine.node is node:
                machine.running = False
                if machine.coreapp is not None:
                    machine.coreapp.vanish()

    def _back(self, node: SimNode) -> None:
        """The kubelet hears of the API server again: it ends what is to end, starts what was switched off, and reports the rest."""
        for machine in [one for one in self.machines.values() if one.node is node]:
            if self._pod(machine.name, machine.uid) is None:
                self._stop(machine)
            elif machine.running:
                if machine.coreapp is not None:
                    machine.coreapp.is_in_reach_again()
                self._later(0.0, 1.0, self.check, machine)
            else:
                self._later(0.5, 5.0, self._run, machine)

    def _stopped(self, machine: Machine) -> None:
        if not self._has_to_wait(machine.node, self._stopped, machine):
            self._stop(machine)

    def _stop(self, machine: Machine) -> None:
        machine.running = False
        if machine.coreapp is not None:
            machine.coreapp.die()
        self.machines.pop(machine.uid, None)

    def _pod(self, name: Name, uid: str) -> Obj | None:
        pod = self._server.get(POD, name)
        return pod if pod is not None and pod["metadata"]["uid"] == uid else None

    def _start(self, name: Name, uid: str) -> None:
        pod = self._pod(name, uid)
        if pod is None or "deletionTimestamp" in pod["metadata"]:
            return
        node = self.node_pool.nodes.get(pod["spec"].get("nodeName", "")) or self.node_pool.pick(name[1])
        if node is None or not node.is_reachable:
            # Nowhere to go, or bound to a node of which nobody knows yet that it is lost.
            self._later(1.0, 2.0, self._start, name, uid)
            return
        self._server.merge("scheduler", POD, name, {"spec": {"nodeName": node.name}}, inside=True)
        component, image = (pod["spec"]["containers"][0][part] for part in ("name", "image"))
        if image.startswith(NOWHERE):
            waiting = {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}
            status = {"containerStatuses": [{"name": component, "ready": False, "state": {"waiting": waiting}}]}
            self._server.merge("kubelet", POD, name, {"status": status}, status=True)
            return
        number = int(uid.rpartition("-")[2])
        machine = Machine(uid, name, component, f"10.0.{number // 250}.{number % 250}", node)
        if component == "coreapp":
            machine.coreapp = Coreapp(self._account, pod=name[1], uid=uid)
            machine.coreapp.changed = lambda: self._listening_changed(machine)
            machine.coreapp.is_in_reach = lambda: node.is_reachable
        self.machines[uid] = machine
        self._run(machine)

    def _run(self, machine: Machine) -> None:
        """Start the container."""
        if machine.uid not in self.machines or machine.running or not machine.node.is_powered:
            return
        machine.running = True
        machine.starts += 1
        machine.started_at = asyncio.get_running_loop().time()
        if machine.coreapp is not None:
            machine.coreapp.start()
        status = {"phase": "Running", "podIP": machine.ip, "containerStatuses": [_container(machine, running=True)]}
        self._report(machine, status, ready=False)
        self._later(0.05, 1.0, self.check, machine)

    def misjudge(self, machine: Machine, seconds: float) -> None:
        """Its kubelet calls it not ready for so long, or until it probes again, although it answers."""
        self._report(machine, {}, ready=False)
        asyncio.get_running_loop().call_later(seconds, self.check, machine)

    def crash(self, machine: Machine) -> None:
        """The container ends; its kubelet notices and starts it again."""
        if not machine.running:
            return
        machine.running = False
        if machine.coreapp is not None:
            machine.coreapp.die()
        self._later(0.005, 0.1, self._crashed, machine)
        self._later(0.3, 5.0, self._run, machine)

    def hang(self, machine: Machine, seconds: float | None = None) -> None:
        """Stop what runs in the container, for some time or forever; its kubelet finds after two probes that it does not answer."""
        coreapp = machine.coreapp
        if coreapp is None or not coreapp.listening:
            return
        coreapp.hang()
        self._later(3.0, 5.0, self.check, machine)
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self._resume, machine, coreapp)

    def _resume(self, machine: Machine, coreapp: Coreapp) -> None:
        coreapp.resume()
        self._later(0.0, 1.0, self.check, machine)

    def _crashed(self, machine: Machine) -> None:
        if not machine.running:
            self._report(machine, {"containerStatuses": [_container(machine, running=False)]}, ready=False)

    def check(self, machine: Machine) -> None:
        """Probe readiness, as a kubelet does each second."""
        if machine.uid not in self.machines:
            return
        if not machine.node.is_reachable:
            return
        up = machine.running and (machine.coreapp is None or (machine.coreapp.listening and not machine.coreapp.is_hung))
        if machine.running:
            self._report(machine, {}, ready=up)

    def _listening_changed(self, machine: Machine) -> None:
        """A kubelet finds out at its next probe that a process listens, and after two that nobody does."""
        machine.troubled_at = asyncio.get_running_loop().time()
        up = machine.coreapp is not None and machine.coreapp.listening
        self._later(*((0.0, 1.0) if up else (1.0, 2.0)), self.check, machine)

    def _report(self, machine: Machine, status: dict[str, Any], *, ready: bool) -> None:
        pod = self._pod(machine.name, machine.uid)
        if pod is None or not machine.node.is_reachable:
            return
        ready = ready and not self.has_unready_sidecar(pod)
        said, before = "True" if ready else "False", {one["type"]: one for one in pod["status"].get("conditions") or ()}
        now = stamp(asyncio.get_running_loop().time())
        changed = before["Ready"]["lastTransitionTime"] if before.get("Ready", {}).get("status") == said else now
        others = [one for kind, one in before.items() if kind not in {"Ready", "PodScheduled"}]
        conditions = [
            {"type": "Ready", "status": said, "lastTransitionTime": changed},
            {"type": "PodScheduled", "status": "True"},
            *others,
        ]
        if "containerStatuses" not in status and machine.running:
            status = {"phase": "Running", "podIP": machine.ip, "containerStatuses": [_container(machine, running=True)], **status}
        self._server.merge("kubelet", POD, machine.name, {"status": {**status, "conditions": conditions}}, status=True)

    # --- the network ----------------------------------------------------------------------------------------------------

    def at(self, ip: str) -> Machine | None:
        """Return the machine of the Coreapp with this address."""
        return next((machine for machine in self.machines.values() if machine.ip == ip and machine.coreapp), None)

    def reaches(self, process: Process | None, machine: Machine) -> bool:
        """Return whether packets of a process reach a machine now."""
        return machine.node.is_reachable and (process is None or not process.cut_off(machine.node.name))

    def delay(self) -> float:
        """Return how long a probe and its answer take: a moment, or longer than the deadline when one was lost on its way."""
        if not self.lossy or self._rng.random() >= self.lossy:
            return 0.001
        self.did["probe late"] += 1
        return 1.05 + self._rng.random() * 1.5

    def mend_lines(self) -> None:
        """Say that a path is free again: what was sent meanwhile is sent once more."""
        for machine in self.machines.values():
            if machine.coreapp is not None:
                machine.coreapp.is_in_reach_again()

    async def connect(self, factory: Callable[[], asyncio.Protocol], ip: str, _port: int) -> tuple[CoreappConnection, asyncio.Protocol]:
        """Open a tether: the connection is refused when nobody listens, no answer when there is no such machine or no way to it."""
        process, machine = PROCESS.get(), self.at(ip)
        connection_log = self.listener(process, machine.uid) if process is not None and machine is not None else ConnectionLog()
        connection_log.dials()
        try:
            await asyncio.sleep(0.001 + self._rng.random() * 0.002)
            machine = self.at(ip)
            if machine is None or machine.coreapp is None or not self.reaches(process, machine):
                self.did["out of reach"] += machine is not None
                await asyncio.sleep(1.0)
                raise TimeoutError
            if (self.deaf and self._rng.random() < self.deaf) or (self.lossy and self._rng.random() < self.lossy):
                self.did["connection lost"] += 1
                await asyncio.sleep(1.0)
                raise TimeoutError
            if not machine.coreapp.listening:
                connection_log.hears()
                raise ConnectionRefusedError
        finally:
            connection_log.gave_up()
        found = machine
        protocol = factory()
        line = CoreappConnection(
            machine.coreapp,
            protocol,
            process=process,
            connection_log=connection_log,
            delay=self.delay,
            is_open=lambda: self.reaches(process, found),
        )
        machine.coreapp.lines[line] = None
        protocol.connection_made(line)
        return line, protocol


def _owner(workload: Obj) -> Obj:
    """Return the reference by which a workload controls a pod."""
    meta = workload["metadata"]
    return {
        "apiVersion": workload["apiVersion"],
        "kind": workload["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _container(machine: Machine, *, running: bool) -> dict[str, Any]:
    state = {"running": {"startedAt": stamp(machine.started_at)}} if running else {"terminated": {"exitCode": 137}}
    return {"name": machine.component, "restartCount": machine.starts - 1, "state": state}
