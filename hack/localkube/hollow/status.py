"""What a hollow node says of a pod and of itself: the bodies of status patches, as a kubelet of Kubernetes 1.34 would write them. Pure.

All bodies are strategic merge patches. Two traps are closed here (measured): lists merged by key keep what a patch leaves out, so addresses
carry `$patch: replace`; and a condition that turns True keeps its old reason unless that is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

Obj = dict[str, Any]
KUBELET_VERSION = "v1.34.4"
KILLED = 137


def stamp(moment: datetime) -> str:
    """A time as Kubernetes' metav1.Time: whole seconds, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_stamp(moment: datetime) -> str:
    """A time as Kubernetes' metav1.MicroTime, which Leases want."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a container's last life ended."""

    exit_code: int
    finished_at: datetime
    started_at: datetime | None = None
    reason: str = "Error"
    message: str = ""

    def body(self) -> Obj:
        """The `terminated` state of the API."""
        body: Obj = {"exitCode": self.exit_code, "reason": self.reason, "finishedAt": stamp(self.finished_at)}
        body["startedAt"] = stamp(self.started_at or self.finished_at)
        return body | ({"message": self.message} if self.message else {})


@dataclass(frozen=True, kw_only=True)
class Container:
    """The main container now. Exactly one of waiting (`reason` set), running (`started_at` set), terminated (`ended` set)."""

    restarts: int = 0
    ready: bool = False
    reason: str = "ContainerCreating"
    message: str = ""
    started_at: datetime | None = None
    ended: Ended | None = None
    last: Ended | None = None

    def waiting(self, reason: str, message: str = "") -> Container:
        """Not running, for this reason."""
        return replace(self, ready=False, reason=reason, message=message, started_at=None, ended=None, last=self.ended or self.last)

    def running(self, now: datetime, *, ready: bool) -> Container:
        """Running since now; a life after another one counts as a restart."""
        last = self.ended or self.last
        restarts = self.restarts + (last is not None)
        return replace(self, restarts=restarts, ready=ready, reason="", message="", started_at=now, ended=None, last=last)

    def terminated(self, now: datetime, exit_code: int, message: str = "") -> Container:
        """Ended now with this exit code."""
        reason = "Completed" if exit_code == 0 else "Error"
        ended = Ended(exit_code=exit_code, finished_at=now, started_at=self.started_at, reason=reason, message=message)
        return replace(self, ready=False, reason="", message="", started_at=None, ended=ended)

    def state(self) -> Obj:
        """The `state` of the API."""
        if self.ended:
            return {"terminated": self.ended.body()}
        if self.started_at:
            return {"running": {"startedAt": stamp(self.started_at)}}
        return {"waiting": {"reason": self.reason} | ({"message": self.message} if self.message else {})}

    def describe(self) -> str:
        """One word for people: running, terminated, or why it waits."""
        return "terminated" if self.ended else "running" if self.started_at else self.reason


def recalled(pod: Obj, name: str, now: datetime) -> Container:
    """The container as the API remembers it, after this process was started anew.

    Whatever ran ended with the old process: it counts as killed, so that the next start is a restart and the count goes on.
    """
    for status in (pod.get("status") or {}).get("containerStatuses") or []:
        if status["name"] != name:
            continue
        restarts = int(status.get("restartCount") or 0)
        state = status.get("state") or {}
        if ended := state.get("terminated"):
            return Container(restarts=restarts, reason="", ended=_ended(ended, now))
        if running := state.get("running"):
            before = Container(restarts=restarts).running(_moment(running.get("startedAt"), now), ready=False)
            return before.terminated(now, KILLED, "the node restarted")
        last = (status.get("lastState") or {}).get("terminated")
        return Container(restarts=restarts, last=_ended(last, now) if last else None)
    return Container()


def _ended(body: Obj, now: datetime) -> Ended:
    finished, started = _moment(body.get("finishedAt"), now), _moment(body.get("startedAt"), now)
    return Ended(
        exit_code=int(body.get("exitCode") or 0),
        finished_at=finished,
        started_at=started,
        reason=body.get("reason") or "Error",
        message=body.get("message") or "",
    )


def _moment(text: str | None, fallback: datetime) -> datetime:
    try:
        return datetime.fromisoformat(text or "")
    except ValueError:
        return fallback


def phase_of(container: Container, restart_policy: str) -> str:
    """The pod's phase by its main container; a pod that is never restarted ends with it."""
    if container.ended and not restarts_after(container.ended.exit_code, restart_policy):
        return "Failed" if container.ended.exit_code else "Succeeded"
    waits_for_first_life = not container.started_at and not container.ended and not container.last
    return "Pending" if waits_for_first_life else "Running"


def restarts_after(exit_code: int, restart_policy: str) -> bool:
    """Whether the kubelet starts the container again after this exit."""
    return restart_policy == "Always" or (restart_policy == "OnFailure" and exit_code != 0)


def pod_status(
    pod: Obj,
    main: Container,
    *,
    main_name: str,
    ip: str,
    host_ip: str,
    started_at: datetime,
    since: Mapping[str, tuple[str, str]],
    failed: str = "",
) -> Obj:
    """The whole status of a pod as a patch body, pinned to its uid.

    `main` is the main container's state, the other containers count as running and ready as soon as the pod has started. `since` holds
    (status, time) per condition, see `transitions`. `failed` is a reason to call the whole pod Failed (Evicted …), as under pressure.
    """
    spec = pod["spec"]
    ended = bool(failed) or phase_of(main, spec.get("restartPolicy") or "Always") in {"Failed", "Succeeded"}
    status: Obj = {
        "phase": "Failed" if failed else phase_of(main, spec.get("restartPolicy") or "Always"),
        "reason": failed or None,
        "startTime": stamp(started_at),
        "hostIP": host_ip,
        "hostIPs": [{"$patch": "replace"}, {"ip": host_ip}],
        "podIP": ip,
        "podIPs": [{"$patch": "replace"}, {"ip": ip}],
        "conditions": [_condition(name, since[name], main.describe()) for name in sorted(since)],
        "containerStatuses": [
            _container_status(pod, container, main if container["name"] == main_name else _companion(main, started_at, over=ended))
            for container in spec["containers"]
        ],
    }
    if inits := spec.get("initContainers"):
        done = Container(ready=True, reason="", ended=Ended(exit_code=0, finished_at=started_at, reason="Completed"))
        status["initContainerStatuses"] = [_container_status(pod, container, done) for container in inits]
    return {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}


def transitions(since: Mapping[str, tuple[str, str]], main: Container, now: datetime, *, over: bool = False) -> dict[str, tuple[str, str]]:
    """Per condition (status, time of the last change), given those before and the container now; `over` when the pod will not run again."""
    ready = "True" if main.ready and not over else "False"
    want = {"PodReadyToStartContainers": "False" if over else "True", "Initialized": "True", "ContainersReady": ready, "Ready": ready}
    return {name: since[name] if name in since and since[name][0] == status else (status, stamp(now)) for name, status in want.items()}


def known_transitions(pod: Obj) -> dict[str, tuple[str, str]]:
    """(status, time) per condition as the API has them, so that a restarted process does not invent transitions."""
    conditions: Iterable[Obj] = (pod.get("status") or {}).get("conditions") or []
    return {one["type"]: (one["status"], one["lastTransitionTime"]) for one in conditions if one.get("lastTransitionTime")}


def _condition(name: str, since: tuple[str, str], container: str) -> Obj:
    status, moment = since
    says_why = status == "False" and name in {"Ready", "ContainersReady"}
    return {
        "type": name,
        "status": status,
        "lastTransitionTime": moment,
        "reason": "ContainersNotReady" if says_why else None,
        "message": f"containers with unready status: the main container is {container}" if says_why else None,
    }


def _companion(main: Container, started_at: datetime, *, over: bool) -> Container:
    if over:
        return Container(reason="", ended=main.ended or Ended(exit_code=KILLED, finished_at=started_at))
    never_started = not main.started_at and not main.ended and not main.last
    return Container() if never_started else Container(ready=True, reason="", started_at=started_at)


def _container_status(pod: Obj, container: Obj, state: Container) -> Obj:
    body = {
        "name": container["name"],
        "image": container.get("image") or "",
        "imageID": container.get("image") or "",
        "containerID": f"hollow://{pod['metadata']['uid']}-{container['name']}-{state.restarts}",
        "ready": state.ready,
        "started": state.started_at is not None,
        "restartCount": state.restarts,
        "state": state.state(),
    }
    return body | ({"lastState": {"terminated": state.last.body()}} if state.last else {})


def node_object(name: str, *, zone: str) -> Obj:
    """The Node as a kubelet registers it."""
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/zone": zone,
        "multiconnect.dev/hollow": "true",
    }
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def node_status(name: str, *, address: str, since: datetime, now: datetime) -> Obj:
    """A healthy node's status as a patch body; `since` is when it became ready."""
    room = {"cpu": "256", "memory": "1Ti", "pods": "4000", "ephemeral-storage": "1Ti"}

    def condition(kind: str, status: str, reason: str, message: str) -> Obj:
        times = {"lastHeartbeatTime": stamp(now), "lastTransitionTime": stamp(since)}
        return {"type": kind, "status": status, "reason": reason, "message": message, **times}

    return {
        "status": {
            "capacity": room,
            "allocatable": room,
            "addresses": [{"$patch": "replace"}, {"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                condition("Ready", "True", "KubeletReady", "hollow node is posting ready status"),
            ],
            "nodeInfo": {
                "kubeletVersion": KUBELET_VERSION,
                "kubeProxyVersion": "",
                "containerRuntimeVersion": "hollow://1",
                "operatingSystem": "linux",
                "architecture": "amd64",
                "osImage": "hollow",
                "kernelVersion": "hollow",
                "machineID": name,
                "systemUUID": name,
                "bootID": name,
            },
        }
    }


def is_ready(obj: Obj) -> bool:
    """Whether a pod or node, as the API has it, carries condition Ready=True."""
    return any(one["type"] == "Ready" and one["status"] == "True" for one in (obj.get("status") or {}).get("conditions") or [])


def is_barred(node: Obj) -> bool:
    """Whether the node controller still keeps pods off a Node because it was not ready or out of reach."""
    barring = {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
    return any(taint["key"] in barring for taint in (node.get("spec") or {}).get("taints") or [])
