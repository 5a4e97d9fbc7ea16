"""The law of bounded harm: with any evidence, an operator ends only so many Coreapps at a time, and none that it merely cannot reach.

Counts by itself what is deleted and what is back; what a process heard of a pod is taken from the wires.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from .apiserver import ApiServer, Change
from .crashes import Crashes, never_swallowed
from .kinds import LEASE, POD, STATEFULSET, Obj, is_ready


class BoundedHarm:
    """Law 15, judged at each deletion of a pod by an operator."""

    def __init__(
        self,
        *,
        server: ApiServer,
        crashes: Crashes,
        name: str,
        is_operator: Callable[[str], bool],
        spares: Callable[[], int],
        lenient: Callable[[], bool],
        has_responded: Callable[[str, str], bool],
        breaks: Callable[[int, str], None],
        applied: Counter[str],
    ) -> None:
        """Prepare. ``spares``: the most that may be believed to be wanted now. ``has_responded``: whether a process ever heard of a uid."""
        self.crashes = crashes
        self._prefix = f"{name}-coreapp-"
        self._is_operator = is_operator
        self._spares = spares
        self._lenient = lenient
        self._has_heard = has_responded
        self._breaks = breaks
        self._applied = applied
        self._ending: dict[str, dict[str, str]] = {}
        """For each operator: the pods that it ended and that are not back, name -> uid."""
        server.checks.append(self.check)

    @never_swallowed
    def check(self, change: Change) -> None:
        """Judge one write that just took effect."""
        if change.kind is LEASE:
            # What one leader ended, the next one cannot know.
            if _leader(change.before) != _leader(change.after):
                self._ending.clear()
        elif change.kind is STATEFULSET and change.after is not None and change.name[1] == self._prefix[:-1]:
            self._forget_surplus(int(change.after["spec"].get("replicas", 1)))
        elif change.kind is POD and change.name[1].startswith(self._prefix):
            if change.verb == "delete" and self._is_operator(change.actor) and change.before is not None:
                self._ends(change, change.before)
            elif change.after is not None and "deletionTimestamp" not in change.after["metadata"] and is_ready(change.after):
                self._is_back(change.name[1], change.after["metadata"]["uid"])

    def _ends(self, change: Change, pod: Obj) -> None:
        self._applied["15"] += 1
        name, uid = change.name[1], pod["metadata"]["uid"]
        if is_ready(pod) and not self._has_heard(change.actor, uid):
            self._breaks(15, f"{change.actor} ends {name}, which it never heard and which its kubelet calls ready")
        mine = self._ending.setdefault(change.actor, {})
        mine[name] = uid
        most = max(1, self._spares())
        # Who sees a pod as it was before its deletion cannot know that it goes.
        if len(mine) > most and not self._lenient():
            self._breaks(15, f"{change.actor} ends {name} while {sorted(mine.keys() - {name})} are not back: at most {most} at a time")

    def _is_back(self, name: str, uid: str) -> None:
        for mine in self._ending.values():
            if mine.get(name, uid) != uid:
                del mine[name]

    def _forget_surplus(self, replicas: int) -> None:
        for mine in self._ending.values():
            for name in [name for name in mine if int(name.rpartition("-")[2]) >= replicas]:
                del mine[name]


def _leader(lease: Obj | None) -> str:
    return str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")
