"""The simulated disruption controller, and evictions that ask for its leave."""

from __future__ import annotations

from collections.abc import Callable

from .apiserver import ApiServer, Change, Name, NotFound, TooManyRequests, matches, stamp
from .kinds import DEPLOYMENT, PDB, POD, STATEFULSET, Obj, is_ready, says_ready

WORKLOADS = (STATEFULSET, DEPLOYMENT)


class Budgets:
    """Keeps the status of every disruption budget. `later` calls what it is given after a random time between two, in seconds."""

    def __init__(self, server: ApiServer, later: Callable[..., None], now: Callable[[], float]) -> None:
        self._server = server
        self._later = later
        self._now = now
        self._due: set[Name] = set()
        server.watchers.append(self._watch)

    def _watch(self, change: Change) -> None:
        if change.kind in {PDB, POD, *WORKLOADS}:
            for budget in self._server.list(PDB, change.name[0]):
                name = (change.name[0], budget["metadata"]["name"])
                if name not in self._due:
                    self._due.add(name)
                    self._later(0.005, 0.1, self._count, name)

    def _pods_of(self, budget: Obj) -> list[Obj]:
        labels = budget["spec"]["selector"].get("matchLabels")
        return self._server.list(POD, budget["metadata"]["namespace"], labels)

    def _count(self, name: Name) -> None:
        """Write how many disruptions there may be: of the pods that the workloads ask for, those that are missing are disrupted already."""
        self._due.discard(name)
        budget = self._server.get(PDB, name)
        if budget is None:
            return
        pods = self._pods_of(budget)
        expected = self._expected(pods, name[0])
        healthy = sum(is_ready(pod) for pod in pods)
        desired = max(0, expected - int(budget["spec"]["maxUnavailable"]))
        status = {
            "observedGeneration": budget["metadata"]["generation"],
            "expectedPods": expected,
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "disruptionsAllowed": max(0, healthy - desired) if expected else 0,
        }
        self._server.merge("disruption-controller", PDB, name, {"status": status}, status=True)

    def _expected(self, pods: list[Obj], namespace: str) -> int:
        owners = {owner["uid"] for pod in pods for owner in pod["metadata"].get("ownerReferences") or () if owner.get("controller")}
        workloads = [one for kind in WORKLOADS for one in self._server.list(kind, namespace)]
        return sum(int(one["spec"].get("replicas", 1)) for one in workloads if one["metadata"]["uid"] in owners)

    def evict(self, name: Name) -> None:
        """Delete a pod if its budget allows it; TooManyRequests if not, NotFound."""
        pod = self._server.get(POD, name)
        if pod is None:
            raise NotFound(f"pod {name[1]} is not there")
        is_over = pod["status"].get("phase") in {"Pending", "Succeeded", "Failed"} or "deletionTimestamp" in pod["metadata"]
        budget = next((one for one in self._server.list(PDB, name[0]) if _selects(one, pod)), None)
        if budget is not None and not is_over:
            self._use(budget, pod)
        others = [one for one in pod["status"].get("conditions") or () if one["type"] != "DisruptionTarget"]
        why = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "lastTransitionTime": stamp(self._now())}
        self._server.merge("eviction", POD, name, {"status": {"conditions": [*others, why]}}, status=True)
        self._server.delete("eviction", POD, name, uid=pod["metadata"]["uid"])

    def _use(self, budget: Obj, pod: Obj) -> None:
        status, meta = budget.get("status") or {}, budget["metadata"]
        if not says_ready(pod) and budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
            return
        if status.get("observedGeneration", 0) < meta["generation"]:
            raise TooManyRequests(f"the disruption budget {meta['name']} is still being processed by the server")
        if not says_ready(pod) and status["currentHealthy"] >= status["desiredHealthy"] > 0:
            return
        if status["disruptionsAllowed"] <= 0:
            raise TooManyRequests(f"the disruption budget {meta['name']} allows none")
        left = {"disruptionsAllowed": status["disruptionsAllowed"] - 1}
        self._server.merge("eviction", PDB, (meta["namespace"], meta["name"]), {"status": left}, status=True)


def _selects(budget: Obj, pod: Obj) -> bool:
    return matches(budget["spec"]["selector"].get("matchLabels"), pod["metadata"].get("labels"))
