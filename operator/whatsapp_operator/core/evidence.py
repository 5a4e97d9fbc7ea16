"""What proves that a holder failed: the table of DESIGN section 5, "Failure evidence", and when we must doubt ourselves.

Everything else about a failure is decided elsewhere; whether there is one is decided here alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from .claims import Claims
from .health import PROBABLE, is_node_gone, is_unconfirmed
from .model import Coreapp, Evidence, Route


class Certainty(StrEnum):
    """How far a piece of evidence goes."""

    CERTAIN = "Certain"
    """Acted upon at once, whatever we think of ourselves."""
    PROBABLE = "Probable"
    """It may be us: held while we doubt ourselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One row of the table: the word for it, how far it goes, and when it holds for the holder of a route."""

    evidence: Evidence
    certainty: Certainty = Certainty.CERTAIN
    holds: Callable[[Claims, Route, Coreapp | None], bool]


def _is_drained(_: Claims, __: Route, pod: Coreapp | None) -> bool:
    return pod is not None and pod.deleting and pod.disrupted


def _is_gone(_: Claims, __: Route, pod: Coreapp | None) -> bool:
    return pod is None or pod.deleting


def _serves_another(f: Claims, route: Route, pod: Coreapp | None) -> bool:
    return pod is not None and pod.epoch_label not in {route.epoch, None} and f.claim(pod) == "committed"


def _is_overdue(f: Claims, _: Route, pod: Coreapp | None) -> bool:
    if pod is None or is_unconfirmed(pod) or pod.is_fit:
        return False
    return f.is_excused(pod) and f.has_held_for("EnoughAreBack", f.want.tuning.missing_holder)


def _without_excuse(holds: Callable[[Claims, Coreapp], bool]) -> Callable[[Claims, Route, Coreapp | None], bool]:
    """A restart explains that a Coreapp exits, refuses or is silent (DESIGN law 9)."""
    return lambda f, _, pod: pod is not None and not f.is_excused(pod) and holds(f, pod)


EVIDENCE: tuple[Proof, ...] = (
    Proof(evidence=Evidence.POD_DRAINING, holds=_is_drained),
    Proof(evidence=Evidence.POD_DELETED, holds=_is_gone),
    Proof(evidence=Evidence.NODE_GONE, holds=lambda f, _, pod: pod is not None and is_node_gone(f, pod)),
    Proof(evidence=Evidence.POD_FAILED, holds=lambda _, __, pod: pod is not None and pod.phase in {"Failed", "Succeeded"}),
    # Two Services name it, and its label is the other one's: an epoch is on one pod, so this route leads nowhere.
    Proof(evidence=Evidence.LABELS_TAKEN, holds=_serves_another),
    Proof(evidence=Evidence.RESTART_OVERDUE, holds=_is_overdue),
    Proof(evidence=Evidence.CONTAINER_TERMINATED, holds=_without_excuse(lambda _, pod: pod.terminated)),
    Proof(evidence=Evidence.TETHER_BROKEN, holds=_without_excuse(lambda _, pod: pod.broken_at is not None and not is_unconfirmed(pod))),
    *(Proof(evidence=evidence, certainty=Certainty.PROBABLE, holds=_without_excuse(holds)) for evidence, holds in PROBABLE),
)
"""What proves that a holder failed, in the order in which it is named (DESIGN section 5, "Failure evidence")."""


def failure(f: Claims, route: Route) -> Evidence | None:
    """Return why the holder of a route must be replaced, or None. What is only probable is held while we doubt ourselves."""
    if route.holder_uid is None:
        return None
    pod = f.holder(route)
    proofs = (proof for proof in EVIDENCE if proof.certainty is Certainty.CERTAIN or f.doubt is None)
    return next((proof.evidence for proof in proofs if proof.holds(f, route, pod)), None)


def held_back(f: Claims) -> Iterator[tuple[Route, Evidence]]:
    """Yield the routes whose holder would be replaced if we did not doubt ourselves."""
    for route in f.routes if f.doubt is not None else ():
        pod = f.holder(route)
        proof = next((proof for proof in EVIDENCE if proof.holds(f, route, pod)), None) if route.holder_uid else None
        if proof is not None and proof.certainty is Certainty.PROBABLE:
            yield route, proof.evidence
