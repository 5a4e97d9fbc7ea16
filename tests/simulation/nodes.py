"""The simulated nodes: machines that are cut off, switched off, deleted or drained, with their Leases; and what Kubernetes makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from .apiserver import ApiServer, Name, TooManyRequests, stamp
from .kinds import LEASE, LEASE_NAMESPACE, NODE, OUT_OF_SERVICE, POD, Obj

RENEWS = 10.0
"""Seconds between two renewals of a node's Lease, as kubelets do it."""
UNKNOWN_AFTER = 25.0
"""Seconds without a renewal after which a node's condition Ready is Unknown; made shorter, the real thing waits 50 s."""
EVICTED_AFTER = 20.0
"""Seconds from then on until its pods are deleted; made shorter, the real thing tolerates it for 300 s."""
COLLECTED_WITHIN = 20.0
"""Seconds within which the pods of a deleted node are deleted by force."""


@dataclass(eq=False, slots=True)
class SimNode:
    """One node. Out of reach it cannot be reached by anything in the cluster; switched off nothing runs on it either."""

    name: str
    is_reachable: bool = True
    is_powered: bool = True
    since: float = float("-inf")
    """Since when it is as it is: in reach or not."""
    waiting: list[tuple[Callable[..., object], tuple[Any, ...]]] = field(default_factory=list)
    """What its kubelet will do when it hears of the API server again."""


class NodePool:
    """All nodes, and the controllers that watch over them."""

    def __init__(self, server: ApiServer, *, rng: Random, count: int) -> None:
        self._server = server
        self._rng = rng
        self.nodes = {f"node-{number}": SimNode(f"node-{number}") for number in range(count)}
        self.places: dict[str, str] = {}
        """On which node the pods of these names run, where a test needs it; all others are placed by chance."""
        self.lost: Callable[[SimNode], None] = lambda _: None
        """Called when a node was just switched off."""
        self.found: Callable[[SimNode], None] = lambda _: None
        """Called when a node was just switched on, or is in reach again."""
        self.evict: Callable[[Name], None] = lambda _: None
        """Evicts a pod, or raises TooManyRequests."""
        for node in self.nodes.values():
            self._join(node)
            self._renew_soon(node, self._rng.random() * RENEWS)

    # --- kubelets -------------------------------------------------------------------------------------------------------

    def _join(self, node: SimNode) -> None:
        if self._server.get(NODE, ("", node.name)) is None:
            ready = [{"type": "Ready", "status": "True"}]
            made = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name}, "spec": {}, "status": {"conditions": ready}}
            self._server.create("kubelet", made)
        self._renew(node)

    def _renew_soon(self, node: SimNode, delay: float) -> None:
        asyncio.get_running_loop().call_later(delay, self._renew_on, node)

    def _renew_on(self, node: SimNode) -> None:
        if node.is_reachable and self._server.get(NODE, ("", node.name)) is not None:
            self._renew(node)
        self._renew_soon(node, RENEWS)

    def _renew(self, node: SimNode) -> None:
        name = (LEASE_NAMESPACE, node.name)
        spec = {"holderIdentity": node.name, "renewTime": f"{asyncio.get_running_loop().time():.6f}"}
        if self._server.get(LEASE, name) is None:
            meta = {"namespace": name[0], "name": name[1]}
            self._server.create("kubelet", {"apiVersion": LEASE.api_version, "kind": "Lease", "metadata": meta, "spec": spec})
        else:
            self._server.merge("kubelet", LEASE, name, {"spec": spec})

    def renewed_at(self, name: str) -> float | None:
        """Return when a node renewed its Lease last; None if it has none."""
        lease = self._server.get(LEASE, (LEASE_NAMESPACE, name))
        return float(lease["spec"]["renewTime"]) if lease is not None else None

    def is_in_reach(self, name: str | None) -> bool:
        """Return whether a node can be spoken to; what runs nowhere yet is not out of reach."""
        node = self.nodes.get(name or "")
        return node is None or node.is_reachable

    def pick(self, pod: str) -> SimNode | None:
        """Return a node for a new pod, as the scheduler picks it by what the API server says; None if there is none."""
        if pod in self.places:
            return self.nodes[self.places[pod]]
        fit = [name for name in self.nodes if (obj := self._server.get(NODE, ("", name))) is not None and _takes_pods(obj)]
        return self.nodes[self._rng.choice(fit)] if fit else None

    # --- what befalls them ------------------------------------------------------------------------------------------------

    def lose(self, name: str, *, power: bool) -> None:
        """Cut a node off; with `power` it is switched off, else everything on it runs on, believing what it did."""
        node, now = self.nodes[name], asyncio.get_running_loop().time()
        if not node.is_reachable:
            return
        node.is_reachable, node.is_powered, node.since = False, not power, now
        if power:
            self.lost(node)
        asyncio.get_running_loop().call_later(UNKNOWN_AFTER + self._rng.random() * 5, self._give_up, node, now)

    def restore(self, name: str) -> None:
        """Bring a node back, as it was or under a new object of its name; uncordoned."""
        node = self.nodes[name]
        if not node.is_reachable:
            node.is_reachable, node.since = True, asyncio.get_running_loop().time()
            self._join(node)
            self.found(node)
            node.is_powered = True
            waiting, node.waiting = node.waiting, []
            for do, arguments in waiting:
                do(*arguments)
        self._join(node)
        self._server.merge("kubelet", NODE, ("", name), {"spec": {"unschedulable": None, "taints": None}}, inside=True)
        self._say_ready(name, "True")

    def _is_out_since(self, name: str, since: float | None) -> bool:
        node = self.nodes[name]
        return not node.is_reachable and since in {None, node.since}

    def delete(self, name: str, since: float | None = None) -> None:
        """Delete a node that is out of reach, since that time: its object and Lease go, then its pods, by force."""
        if not self._is_out_since(name, since):
            return
        self._server.delete("node-controller", NODE, ("", name))
        self._server.delete("node-controller", LEASE, (LEASE_NAMESPACE, name))
        asyncio.get_running_loop().call_later(self._rng.random() * COLLECTED_WITHIN, self._collect, name)

    def declare_dead(self, name: str, since: float | None = None) -> None:
        """Taint a node as out of service, as a person does who knows that the machine is off; its pods are deleted by force."""
        if self._is_out_since(name, since) and self._server.get(NODE, ("", name)) is not None:
            taint = {"key": OUT_OF_SERVICE, "effect": "NoExecute"}
            self._server.merge("user", NODE, ("", name), {"spec": {"taints": [taint]}}, inside=True)
            asyncio.get_running_loop().call_later(self._rng.random() * COLLECTED_WITHIN, self._collect, name)

    def cordon(self, name: str, taint: str | None = None) -> None:
        """Say that a node's pods are soon to go."""
        spec = {"taints": [{"key": taint, "effect": "NoSchedule"}]} if taint else {"unschedulable": True}
        if self._server.get(NODE, ("", name)) is not None:
            self._server.merge("user", NODE, ("", name), {"spec": spec}, inside=True)

    def drain(self, name: str) -> None:
        """Cordon a node and evict its pods as their disruption budgets allow, again and again until none is left."""
        self.cordon(name)
        asyncio.get_running_loop().call_later(1.0 + self._rng.random(), self._evict_next, name)

    def _evict_next(self, name: str) -> None:
        obj = self._server.get(NODE, ("", name))
        if obj is None or not obj["spec"].get("unschedulable"):
            return
        pods = [pod for pod in self._pods_on(name) if "deletionTimestamp" not in pod["metadata"]]
        for pod in pods:
            with suppress(TooManyRequests):
                self.evict((pod["metadata"]["namespace"], pod["metadata"]["name"]))
        if pods:
            asyncio.get_running_loop().call_later(2.0, self._evict_next, name)

    # --- controllers ------------------------------------------------------------------------------------------------------

    def _pods_on(self, name: str) -> list[Obj]:
        return [pod for pod in self._server.list(POD, None) if pod["spec"].get("nodeName") == name]

    def _say_ready(self, name: str, status: str) -> None:
        body = {"status": {"conditions": [{"type": "Ready", "status": status}]}}
        self._server.merge("node-controller", NODE, ("", name), body, inside=True)

    def _give_up(self, node: SimNode, since: float) -> None:
        if node.is_reachable or node.since != since or self._server.get(NODE, ("", node.name)) is None:
            return
        self._say_ready(node.name, "Unknown")
        for pod in self._pods_on(node.name):
            self._change_condition(pod, "Ready", "False")
        asyncio.get_running_loop().call_later(EVICTED_AFTER, self._evict_all, node, since)

    def _evict_all(self, node: SimNode, since: float) -> None:
        if not node.is_reachable and node.since == since:
            for pod in self._pods_on(node.name):
                if "deletionTimestamp" not in pod["metadata"]:
                    self._evict(pod, "DeletionByTaintManager")

    def _evict(self, pod: Obj, why: str) -> None:
        self._change_condition(pod, "DisruptionTarget", "True", reason=why)
        meta = pod["metadata"]
        self._server.delete("eviction", POD, (meta["namespace"], meta["name"]), uid=meta["uid"])

    def _change_condition(self, pod: Obj, kind: str, status: str, **more: str) -> None:
        meta = pod["metadata"]
        others = [one for one in pod["status"].get("conditions") or () if one["type"] != kind]
        one = {"type": kind, "status": status, "lastTransitionTime": stamp(asyncio.get_running_loop().time()), **more}
        self._server.merge(
            "node-controller", POD, (meta["namespace"], meta["name"]), {"status": {"conditions": [*others, one]}}, status=True
        )

    def _collect(self, name: str) -> None:
        if self._server.get(NODE, ("", name)) is None or not self.nodes[name].is_reachable:
            for pod in self._pods_on(name):
                meta = pod["metadata"]
                self._server.delete("pod-gc", POD, (meta["namespace"], meta["name"]), uid=meta["uid"], grace=0)


def _takes_pods(node: Obj) -> bool:
    spec = node["spec"]
    return node["status"]["conditions"][0]["status"] == "True" and not spec.get("unschedulable") and not spec.get("taints")
