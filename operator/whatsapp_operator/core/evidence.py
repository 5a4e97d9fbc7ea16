"""What proves that a holder failed: the table of DESIGN section 5, "Failure evidence"."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .model import Coreapp, Evidence, Route

if TYPE_CHECKING:
    from .facts import Facts


def _is_gone(_: Facts, __: Route, pod: Coreapp | None) -> bool:
    return pod is None or pod.deleting


def _is_overdue(f: Facts, _: Route, pod: Coreapp | None) -> bool:
    return pod is not None and f.is_excused(pod) and not pod.is_fit and f.has_held_for("EnoughAreBack", f.want.tuning.missing_holder)


def _serves_another(f: Facts, route: Route, pod: Coreapp | None) -> bool:
    return pod is not None and pod.epoch_label not in {route.epoch, None} and f.claim(pod) == "committed"


def _without_excuse(holds: Callable[[Coreapp], bool]) -> Callable[[Facts, Route, Coreapp | None], bool]:
    """A restart explains that a Coreapp exits, refuses or is silent (DESIGN law 9)."""
    return lambda f, _, pod: pod is not None and not f.is_excused(pod) and holds(pod)


EVIDENCE: tuple[tuple[Evidence, Callable[[Facts, Route, Coreapp | None], bool]], ...] = (
    (Evidence.POD_DELETED, _is_gone),
    (Evidence.POD_FAILED, lambda _, __, pod: pod is not None and pod.phase in {"Failed", "Succeeded"}),
    # Two Services name it, and its label is the other one's: an epoch is on one pod, so this route leads nowhere.
    (Evidence.LABELS_TAKEN, _serves_another),
    (Evidence.RESTART_OVERDUE, _is_overdue),
    (Evidence.CONTAINER_TERMINATED, _without_excuse(lambda pod: pod.terminated)),
    (Evidence.TETHER_BROKEN, _without_excuse(lambda pod: pod.broken_at is not None)),
)
"""What proves that a holder failed, in the order in which it is named (DESIGN section 5, "Failure evidence")."""
