"""The table of evidence that a holder failed (docs/failover.md, "Evidence"), and what counts while the self-check fails.

Only this module decides whether a holder failed. What follows from it is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from .claims import Claims
from .desired import Desired
from .health import PROBABLE, is_node_gone, is_unconfirmed
from .snapshot import Coreapp, Evidence, Route

DISAGREES = timedelta(seconds=5)
"""A holder that reports for this long that it does not hold its shard is replaced. Assigning a role takes a second at most."""
DISAGREES_AGAIN = timedelta(seconds=60)
"""The same for a holder that took over for the same reason: a new epoch did not help, so the next attempt waits longer."""
COPIED = timedelta(seconds=1)
"""How long a foreign pod may have the labels of a holder."""


class Certainty(StrEnum):
    """How far a piece of evidence goes."""

    CERTAIN = "Certain"
    """It counts at once, even while the self-check fails."""
    PROBABLE = "Probable"
    """This process may be the cause: it does not count while the self-check fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One entry of the table: its name, how certain it is, and when it holds for the holder of a route."""

    evidence: Evidence
    certainty: Certainty = Certainty.CERTAIN
    after: Callable[[Desired], timedelta] = lambda _: timedelta(0)
    """How long it must be seen before it counts."""
    holds: Callable[[Claims, Route, Coreapp], bool]
    """Whether it holds against a holder that exists."""
    by_old_lists: Callable[[Coreapp | None], bool] = lambda _: False
    """Whether lists of pods and Services that are a moment old also prove it: newer lists cannot contradict it."""

    def counts(self, f: Claims, route: Route, pod: Coreapp | None) -> bool:
        """Return whether it holds against the holder of a route; a holder that does not exist was deleted."""
        return self.holds(f, route, pod) if pod is not None else self.evidence is Evidence.POD_DELETED


def _refuses_connections(pod: Coreapp | None) -> bool:
    """Whether this process itself knows that nothing listens in a pod. If the pod never answered it, the kubelet's report counts too."""
    return pod is not None and pod.broken_at is not None and not pod.never_responded


def _serves_another(f: Claims, route: Route, pod: Coreapp) -> bool:
    if pod.epoch_label == route.epoch or f.claim(pod) != "committed":
        return False
    # The Service of another owner assigns no shard. A label that names it is a wrong label, which a restart does not make worse.
    return not any(other.foreign and other.shard == pod.shard_label for other in f.snapshot.routes)


def conflict_fact(route: Route) -> tuple[str, timedelta]:
    """Return the name of the fact that a foreign pod has the labels of a route, and how long it is accepted.

    Under a new epoch, the Service no longer selects that pod. If that did not help, the labels may be copied again and again.
    """
    again = route.evidence == Evidence.LABEL_CONFLICT
    return f"{Evidence.LABEL_CONFLICT}/{route.shard}/{route.epoch}", DISAGREES_AGAIN if again else COPIED


def _has_conflict(f: Claims, route: Route, pod: Coreapp) -> bool:
    return _serves_another(f, route, pod) or (route.copied_by is not None and f.has_held_for(*conflict_fact(route)))


def _is_overdue(f: Claims, _: Route, pod: Coreapp) -> bool:
    if is_unconfirmed(f, pod) or pod.is_ready:
        return False
    fact = f.back_fact
    return f.is_explained_by_restart(pod) and fact is not None and f.has_held_for(fact, f.desired.tuning.missing_holder)


def _without_excuse(holds: Callable[[Claims, Coreapp], bool]) -> Callable[[Claims, Route, Coreapp], bool]:
    """A restart explains that a Coreapp exits, refuses connections or does not answer (laws#9)."""
    return lambda f, _, pod: not f.is_explained_by_restart(pod) and holds(f, pod)


def is_claimed(route: Route, pod: Coreapp) -> bool:
    """Whether the last answer of a holder says that it holds its shard under the epoch that the route names, which the servers accept."""
    report = pod.report
    return report is not None and (report.shard, report.epoch) == (route.shard, route.epoch) and not report.fenced


def disagrees(f: Claims, route: Route, pod: Coreapp) -> bool:
    """Whether a holder answers that it does not hold its shard: it has another role, or the servers reject its epoch.

    While it does not run with the client's number of shards it cannot hold any.
    """
    report = pod.report
    if report is None or pod.unresponsive_since is not None or report.shards is None or report.shards != (f.shards or report.shards):
        return False
    return route.shard < report.shards and not is_claimed(route, pod)


def disagreement_fact(route: Route) -> str:
    """Return the name of the fact that the holder of a route disagrees; its age is needed."""
    return f"{Evidence.HOLDER_DISAGREES}/{route.shard}/{route.epoch}"


def patience_with(route: Route) -> timedelta:
    """Return how long the holder of a route may disagree before it is replaced."""
    return DISAGREES_AGAIN if route.evidence == Evidence.HOLDER_DISAGREES else DISAGREES


def is_behind(f: Claims, route: Route, pod: Coreapp) -> bool:
    """Whether a holder runs with no number of shards or another one than the client, while a ready spare runs with the client's.

    It cannot hold its shard. It may be about to restart, so this is accepted for as long as a restart may take. A spare with the client's
    number shows that the cause is neither the client nor an outdated answer.
    """
    report = pod.report
    if report is None or pod.unresponsive_since is not None or f.shards in {None, report.shards} or is_claimed(route, pod):
        return False
    spares = (one for one in f.ready if one.uid not in f.holder_uids)
    return any(one.report is not None and one.report.shards == f.shards for one in spares)


def disputes(f: Claims, route: Route, pod: Coreapp) -> Iterator[tuple[str, timedelta, bool]]:
    """Yield the facts that a holder reported not to hold its shard: the name, how long it is accepted, and whether it counts now.

    Only an answer that it holds the shard ends them. An error, a silence or a report of another kind does not, because a Coreapp may
    alternate between them endlessly. A fact counts while the holder reports it again or answers with errors. A silence is evidence of its
    own.
    """
    is_silent = pod.unresponsive_since is not None
    if f.is_explained_by_restart(pod) or (is_claimed(route, pod) and not is_silent):
        return
    is_mute = pod.report is None and not is_silent
    kinds = (
        (disagreement_fact(route), patience_with(route), disagrees(f, route, pod)),
        (f"HolderBehind/{route.shard}/{route.epoch}", f.desired.restart_timeout, is_behind(f, route, pod)),
    )
    for fact, patience, is_reported in kinds:
        if is_reported or fact in f.snapshot.since:
            yield fact, patience, is_reported or is_mute


def _has_disagreed(f: Claims, route: Route, pod: Coreapp) -> bool:
    return any(counts and f.has_held_for(fact, patience) for fact, patience, counts in disputes(f, route, pod))


EVIDENCE: tuple[Proof, ...] = (
    # A deletion is not undone, a pod stays on its node, and these phases are its last.
    Proof(evidence=Evidence.POD_DRAINING, holds=lambda _, __, pod: pod.deleting and pod.disrupted, by_old_lists=lambda _: True),
    Proof(evidence=Evidence.POD_DELETED, holds=lambda _, __, pod: pod.deleting, by_old_lists=lambda _: True),
    Proof(evidence=Evidence.NODE_GONE, holds=lambda f, _, pod: is_node_gone(f, pod), by_old_lists=lambda _: True),
    Proof(evidence=Evidence.POD_FAILED, holds=lambda _, __, pod: pod.phase in {"Failed", "Succeeded"}, by_old_lists=lambda _: True),
    # Two Services name it, and it has the other one's label: an epoch is on one pod, so this route leads nowhere. Or the route also leads
    # to a foreign pod.
    Proof(evidence=Evidence.LABEL_CONFLICT, holds=_has_conflict),
    Proof(evidence=Evidence.RESTART_OVERDUE, after=lambda desired: desired.tuning.missing_holder, holds=_is_overdue),
    # An old list may show that a container ended, but not that it runs again.
    Proof(evidence=Evidence.CONTAINER_TERMINATED, holds=_without_excuse(lambda _, pod: pod.terminated), by_old_lists=_refuses_connections),
    Proof(
        evidence=Evidence.CONNECTION_LOST,
        holds=_without_excuse(lambda f, pod: pod.broken_at is not None and not is_unconfirmed(f, pod)),
        by_old_lists=_refuses_connections,
    ),
    *(
        Proof(
            evidence=evidence,
            certainty=Certainty.PROBABLE,
            after=lambda desired: desired.unhealthy_after,
            holds=_without_excuse(holds),
        )
        for evidence, holds in PROBABLE
    ),
    # It is healthy otherwise, so it is replaced and not ended. One that runs with a wrong number of shards gets more time.
    Proof(evidence=Evidence.HOLDER_DISAGREES, certainty=Certainty.PROBABLE, after=lambda _: DISAGREES, holds=_has_disagreed),
)
"""What proves that a holder failed; the first entry that holds is reported."""


def failure(f: Claims, route: Route) -> Evidence | None:
    """Return why the holder of a route must be replaced, or None. Probable evidence does not count while the self-check fails."""
    if route.holder_uid is None:
        return None
    proof = _first(f, route, (proof for proof in EVIDENCE if proof.certainty is Certainty.CERTAIN or f.self_check is None))
    return proof.evidence if proof is not None else None


def is_proven_by_old_lists(evidence: Evidence, pod: Coreapp | None) -> bool:
    """Return whether evidence against a holder, if it exists, holds although the lists may be a moment old."""
    return any(proof.evidence is evidence and proof.by_old_lists(pod) for proof in EVIDENCE)


def held_back(f: Claims) -> Iterator[tuple[Route, Evidence]]:
    """Yield the routes whose holder would be replaced if the self-check did not fail."""
    for route in f.routes if f.self_check is not None else ():
        proof = _first(f, route, EVIDENCE)
        if proof is not None and proof.certainty is Certainty.PROBABLE:
            yield route, proof.evidence


def _first(f: Claims, route: Route, proofs: Iterable[Proof]) -> Proof | None:
    pod = f.holder(route)
    return next((proof for proof in proofs if proof.counts(f, route, pod)), None)
