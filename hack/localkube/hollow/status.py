"""What a hollow node reports of a pod and of itself: bodies of status patches, as a kubelet of Kubernetes 1.34 would write them. Pure.

All bodies are strategic merge patches. Two traps are avoided here (measured): lists merged by key keep what a patch leaves out, so
addresses carry `$patch: replace`; and a condition that turns True keeps its old reason unless that is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from localkube import Obj

KUBELET_VERSION = "v1.34.4"
KILLED = 137
BARRING_TAINTS = {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}


def stamp(moment: datetime) -> str:
    """A time as Kubernetes' metav1.Time: whole seconds, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_stamp(moment: datetime) -> str:
    """A time as Kubernetes' metav1.MicroTime, which Leases want."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _why(reason: str, message: str) -> Obj:
    return {"reason": reason} | ({"message": message} if message else {})


@dataclass(frozen=True, kw_only=True)
class Container:
    """The main container now, in the API's own words."""

    restarts: int = 0
    ready: bool = False
    state: Obj = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    """One of waiting, running and terminated."""
    last: Obj | None = None
    """How the life before ended, as `terminated`."""

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return "running" in self.state

    @property
    def ended(self) -> Obj | None:
        """How the newest life ended."""
        return self.state.get("terminated")

    @property
    def began(self) -> bool:
        """Whether it ever ran."""
        return "waiting" not in self.state or self.last is not None

    @property
    def message(self) -> str:
        """Why it waits."""
        return str(self.state.get("waiting", {}).get("message", ""))

    def waiting(self, reason: str, message: str = "") -> Container:
        """Not running, for this reason."""
        return replace(self, ready=False, state={"waiting": _why(reason, message)}, last=self.ended or self.last)

    def running(self, now: datetime, *, ready: bool) -> Container:
        """Running since now; a life after another one counts as a restart."""
        last = self.ended or self.last
        state = {"running": {"startedAt": stamp(now)}}
        return replace(self, restarts=self.restarts + (last is not None), ready=ready, state=state, last=last)

    def terminated(self, now: datetime, exit_code: int, message: str = "") -> Container:
        """Ended now with this exit code."""
        times = {"startedAt": self.state.get("running", {}).get("startedAt", stamp(now)), "finishedAt": stamp(now)}
        ended = {"exitCode": exit_code, **_why("Error" if exit_code else "Completed", message), **times}
        return replace(self, ready=False, state={"terminated": ended})

    def describe(self) -> str:
        """One word for people: running, terminated, or why it waits."""
        return str(self.state["waiting"]["reason"]) if "waiting" in self.state else next(iter(self.state))

    def report(self, pod: Obj, spec: Obj) -> Obj:
        """The status of the container of this spec."""
        body = {
            "name": spec["name"],
            "image": spec.get("image") or "",
            "imageID": spec.get("image") or "",
            "containerID": f"hollow://{pod['metadata']['uid']}-{spec['name']}-{self.restarts}",
            "ready": self.ready,
            "started": self.runs,
            "restartCount": self.restarts,
            "state": self.state,
        }
        return body | ({"lastState": {"terminated": self.last}} if self.last else {})


def pod_status(
    pod: Obj, main: Container, *, main_name: str, ip: str, host_ip: str, started: str, since: Mapping[str, tuple[str, str]], failed: str
) -> Obj:
    """The whole status of a pod as a patch body, pinned to its uid.

    `main` is the main container; the others count as running and ready as soon as it has started. `started`: time stamp of the pod's
    start; `since`: (status, time) for each condition, see `transitions`; `failed`: why the whole pod is Failed (Evicted ...), if it is.
    """
    if failed:
        sidecar = Container(state=main.state if main.ended else {"terminated": {"exitCode": KILLED, "reason": "Error"}})
    else:
        sidecar = Container(ready=True, state={"running": {"startedAt": started}}) if main.began else Container()
    status = {
        "phase": "Failed" if failed else "Running" if main.began else "Pending",
        "reason": failed or None,
        "startTime": started,
        "hostIP": host_ip,
        "hostIPs": [{"$patch": "replace"}, {"ip": host_ip}],
        "podIP": ip,
        "podIPs": [{"$patch": "replace"}, {"ip": ip}],
        "conditions": [_condition(name, *since[name], main.describe()) for name in sorted(since)],
        "containerStatuses": [(main if spec["name"] == main_name else sidecar).report(pod, spec) for spec in pod["spec"]["containers"]],
    }
    return {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}


def transitions(since: Mapping[str, tuple[str, str]], main: Container, now: datetime, *, failed: bool) -> dict[str, tuple[str, str]]:
    """For each condition (status, time of the last change), given those before and the container now; `failed`: the pod has ended."""
    ready = "True" if main.ready and not failed else "False"
    states = {"PodReadyToStartContainers": "False" if failed else "True", "Initialized": "True", "ContainersReady": ready, "Ready": ready}
    return {name: since[name] if since.get(name, ("",))[0] == state else (state, stamp(now)) for name, state in states.items()}


def _condition(name: str, state: str, moment: str, container: str) -> Obj:
    unready = state == "False" and name in {"Ready", "ContainersReady"}
    return {
        "type": name,
        "status": state,
        "lastTransitionTime": moment,
        "reason": "ContainersNotReady" if unready else None,
        "message": f"containers with unready status: the main container is {container}" if unready else None,
    }


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
    times = {"lastHeartbeatTime": stamp(now), "lastTransitionTime": stamp(since)}
    pressures = {"MemoryPressure": "KubeletHasSufficientMemory", "DiskPressure": "KubeletHasNoDiskPressure"}
    pressures["PIDPressure"] = "KubeletHasSufficientPID"
    info = dict.fromkeys(("machineID", "systemUUID", "bootID"), name) | dict.fromkeys(("osImage", "kernelVersion"), "hollow")
    info |= {"kubeletVersion": KUBELET_VERSION, "kubeProxyVersion": "", "containerRuntimeVersion": "hollow://1"}
    return {
        "status": {
            "capacity": room,
            "allocatable": room,
            "addresses": [{"$patch": "replace"}, {"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "conditions": [
                {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "hollow node is posting ready status", **times},
                *({"type": kind, "status": "False", "reason": reason, "message": "", **times} for kind, reason in pressures.items()),
            ],
            "nodeInfo": info | {"operatingSystem": "linux", "architecture": "amd64"},
        }
    }


def is_ready(obj: Obj) -> bool:
    """Whether a pod or node, as the API has it, carries condition Ready=True."""
    return any(one["type"] == "Ready" and one["status"] == "True" for one in (obj.get("status") or {}).get("conditions") or ())


def is_barred(node: Obj) -> bool:
    """Whether the node controller still keeps pods off a Node because it was not ready or out of reach."""
    return any(taint["key"] in BARRING_TAINTS for taint in (node.get("spec") or {}).get("taints") or ())
