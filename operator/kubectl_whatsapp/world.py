"""What was read, by name, and what it means for single pods and nodes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final

from kubectl_whatsapp import Obj
from kubectl_whatsapp.marks import COMPONENT_LABEL, PAUSED_ANNOTATION, renewed
from kubectl_whatsapp.reading import Read

NODE_SILENT: Final = timedelta(seconds=25)
"""A kubelet renews its Lease every 10 s; after two missed renewals it counts as gone (kubernetes.io, "Node heartbeats")."""


class World:
    """The objects that were read."""

    def __init__(self, read: Read) -> None:
        """Sort what was read by name."""
        self.read = read
        self.cluster: Obj = read.found.get("cluster") or {}
        self.status: Obj = self.cluster.get("status") or {}
        self.spec: Obj = self.cluster.get("spec") or {}
        self.uid = str((self.cluster.get("metadata") or {}).get("uid") or "")
        self.pods = _by_name(read.items("pods"))
        self.nodes = _by_name(read.items("nodes"))

    @cached_property
    def heartbeats(self) -> dict[str, datetime | None]:
        """When each node last renewed its Lease, by name of the node."""
        return {name: renewed(one) for name, one in _by_name(self.read.items("nodeLeases")).items()}

    @property
    def annotations(self) -> Mapping[str, str]:
        """The annotations of the cluster."""
        return (self.cluster.get("metadata") or {}).get("annotations") or {}

    @property
    def is_paused(self) -> bool:
        """Whether planned changes are held."""
        return bool(self.spec.get("paused")) or self.annotations.get(PAUSED_ANNOTATION) == "true"

    def component(self, name: str) -> list[Obj]:
        """Return the pods of a component, by name."""
        return [pod for _, pod in sorted(self.pods.items(), key=_ordinal) if labels(pod).get(COMPONENT_LABEL) == name]

    def node_trouble(self, node: str | None) -> str:
        """Return why a node does not count as available; empty if it does, or if nothing is known about nodes."""
        if node is None:
            return ""
        heard = self.heartbeats.get(node)
        if heard is not None and self.read.at - heard > NODE_SILENT:
            return f"node {node} has not renewed its Lease since {stamp(heard)}"
        if self.read.items("nodes") is None:
            return ""
        if node not in self.nodes:
            return f"node {node} is gone"
        ready = condition(self.nodes[node], "Ready")
        if ready and ready.get("status") != "True":
            return f"node {node} is not ready ({ready.get('reason') or ready.get('status')})"
        return ""

    def pod_trouble(self, pod: Obj) -> str:
        """Return why a pod cannot serve; empty if nothing is known to be wrong."""
        meta, state = pod["metadata"], pod.get("status") or {}
        where = self.node_trouble((pod.get("spec") or {}).get("nodeName"))
        if meta.get("deletionTimestamp"):
            return f"{meta['name']} is being deleted" + (f", and {where}" if where else "")
        if where:
            return where
        ready = condition(pod, "Ready")
        if not ready or ready.get("status") != "True":
            return f"{meta['name']} is {_waiting(state) or 'not ready'}"
        return ""


def _by_name(objects: list[Obj] | None) -> dict[str, Obj]:
    return {obj["metadata"]["name"]: obj for obj in objects or ()}


def _ordinal(named: tuple[str, Obj]) -> tuple[str, int]:
    begin, _, end = named[0].rpartition("-")
    return (begin, int(end)) if end.isdecimal() else (named[0], -1)


def _waiting(state: Obj) -> str:
    for one in state.get("containerStatuses") or ():
        waiting = (one.get("state") or {}).get("waiting") or {}
        if waiting.get("reason"):
            return f"waiting: {waiting['reason']}"
    scheduled = condition({"status": state}, "PodScheduled")
    if scheduled.get("status") == "False":
        return f"pending: {scheduled.get('message') or scheduled.get('reason')}"
    phase = state.get("phase")
    return f"in phase {phase}" if phase and phase != "Running" else ""


def labels(obj: Obj) -> Mapping[str, str]:
    """Return the labels of an object."""
    return (obj.get("metadata") or {}).get("labels") or {}


def condition(obj: Obj, kind: str) -> Obj:
    """Return the condition of this type of an object; empty if it has none."""
    return next((one for one in (obj.get("status") or {}).get("conditions") or () if one.get("type") == kind), {})


def counted(number: int, what: str) -> str:
    """Return a number with its noun, such as ``1 spare`` and ``2 spares``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def are_ready(number: int, what: str) -> str:
    """Return how many are ready, such as ``1 replica is ready`` and ``0 replicas are ready``."""
    return f"{counted(number, what)} {'is' if number == 1 else 'are'} ready"


def stamp(at: datetime) -> str:
    """Return the time of day as shown, in UTC."""
    return f"{at:%H:%M:%S}Z"
