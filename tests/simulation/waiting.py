"""What tools that wait read out of the status, judged at every report: law 16.

Reconciling speaks of nothing that waits for a person, and kstatus calls no spec current before it is carried out.
"""

from __future__ import annotations

from outside.kstatus import Verdict, verdict

from .apiserver import Change
from .crashes import never_swallowed
from .kinds import STATEFULSET, WAC, Obj, is_ready
from .laws import Laws
from .machines import REVISION, revision_of

ALLOWED_WITH_A_STALL = {"FailingOver", "SwitchoverRequested", "Draining"}
"""Moves of shards: they wait for no person, and end within seconds."""


class Waiting:
    """Judges every report of an operator."""

    def __init__(self, laws: Laws) -> None:
        """Judge from now on; what is found is noted in ``laws``."""
        self._laws = laws
        self.crashes = laws.crashes
        self._current: tuple[str, int] | None = None
        """Uid and generation that were once carried out: what happens to them afterwards is no matter of waiting."""
        laws.server.checks.append(self.check)

    @never_swallowed
    def check(self, change: Change) -> None:
        """Judge one write that just took effect."""
        self._note_current()
        after = change.after
        if change.kind is not WAC or after is None or not self._laws.is_operator(change.actor):
            return
        conditions = {one["type"]: one for one in (after.get("status") or {}).get("conditions") or ()}
        if {"Reconciling", "Stalled"} <= conditions.keys():
            self._laws.applied["16"] += 1
            moving, stalled = conditions["Reconciling"], conditions["Stalled"]
            if moving["status"] == stalled["status"] == "True" and moving["reason"] not in ALLOWED_WITH_A_STALL:
                self._laws.breaks(16, f"Reconciling says {moving['reason']} although Stalled says {stalled['reason']}")
        if verdict(after) is Verdict.CURRENT:
            self._is_current(change, after)

    def _note_current(self) -> None:
        """Note that the newest generation is carried out, if it is: a report may land after a foreign writer has undone that."""
        obj = self._laws.server.get(WAC, (self._laws.namespace, self._laws.name))
        if obj is not None and _generation(obj) != self._current and not self._missing(obj["spec"]):
            self._current = _generation(obj)

    def _is_current(self, change: Change, obj: Obj) -> None:
        this, missing = _generation(obj), self._missing(obj["spec"])
        if missing and this != self._current and not self._laws.lenient:
            self._laws.breaks(16, f"{change.actor} calls generation {this[1]} carried out, but {', '.join(missing)}")

    def _missing(self, spec: Obj) -> list[str]:
        """Return what the spec asks for and is not there."""
        shards, wanted = int(spec["shards"]), int(spec["shards"]) + int(spec.get("spares", 1))
        laws = self._laws
        workload, pods = laws.server.get(STATEFULSET, (laws.namespace, f"{laws.name}-coreapp")), laws.pods()
        revision = revision_of(workload) if workload else None
        found = {
            f"the client has {laws.account.shards} shards": laws.account.shards == shards,
            "there are too few replicas": workload is not None and int(workload["spec"].get("replicas", 1)) >= wanted,
            "too few Coreapps are ready": sum(map(is_ready, pods)) >= wanted,
            "some Coreapps have another template": all(pod["metadata"]["labels"].get(REVISION) == revision for pod in pods),
        }
        return [what for what, holds in found.items() if not holds]


def _generation(obj: Obj) -> tuple[str, int]:
    return obj["metadata"]["uid"], obj["metadata"]["generation"]
