"""What proves that a holder failed: the table of DESIGN section 5, "Failure evidence", and when we must doubt ourselves.

Everything else about a failure is decided elsewhere; whether there is one is decided here alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from .model import Coreapp, Evidence, Node, Route, Silence

if TYPE_CHECKING:
    from .facts import Facts

LEASE_STALE = timedelta(seconds=15)
"""A node's Lease not renewed for so long means that its kubelet is out of reach; kubelets renew every 10 s (DESIGN section 5)."""
LATE = timedelta(seconds=1)
"""An event loop as late as this has missed answers that were there."""
DOUBTED_NODES = 3
"""Silence on fewer nodes may well be theirs: small clusters are not disarmed."""
OUT_OF_REACH = timedelta(seconds=60)
"""A pod that was out of reach on a lost node for so long is made good by one more replica (DESIGN section 5)."""
DISAGREES = timedelta(seconds=5)
"""A holder that answers and says for so long that it does not hold its shard is replaced. Assigning a role takes a second at most."""
DISAGREES_AGAIN = timedelta(seconds=60)
"""The same for a holder that took over for that very reason: a new epoch did not help, so the next attempt is made later."""


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
    holds: Callable[[Facts, Route, Coreapp | None], bool]


# --- nodes ------------------------------------------------------------------------------------------------------------


def node_of(f: Facts, pod: Coreapp) -> Node | None:
    """Return what is known of a pod's node; None if nothing is."""
    return (f.see.nodes or {}).get(pod.node or "")


def is_node_gone(f: Facts, pod: Coreapp) -> bool:
    """Whether the node object was deleted, or declared dead by taint out-of-service. A node that we have not heard of may be a new one."""
    node = node_of(f, pod)
    return node is not None and (node.gone or node.out_of_service)


def newest_renewal(nodes: Mapping[str, Node] | None) -> datetime | None:
    """Return when a Lease of any node was renewed last; it takes a walk over all nodes, so a snapshot is asked once."""
    return max((one.renewed_at for one in (nodes or {}).values() if one.renewed_at is not None), default=None)


def is_lease_stale(node: Node, newest: datetime | None, now: datetime) -> bool:
    """Whether a node stopped renewing its Lease while others went on: with no news of any node it is our watch that is dead."""
    if node.renewed_at is None or newest is None:
        return False
    return newest - node.renewed_at >= LEASE_STALE and now - newest < LEASE_STALE


def is_node_lost(f: Facts, pod: Coreapp) -> bool:
    """Whether a pod's node is out of reach as its second witness says: gone, not renewing its Lease, or given up. Used of silent pods."""
    node = node_of(f, pod)
    if f.see.nodes is None or pod.node is None or node is None:
        return f.see.nodes is not None and pod.node is not None
    return is_node_gone(f, pod) or node.ready is None or is_lease_stale(node, f.newest_renewal, f.see.now)


def is_node_alive(f: Facts, pod: Coreapp) -> bool:
    """Whether a silent pod's node is known to live: it renewed its Lease after the pod's silence began."""
    node = node_of(f, pod)
    if node is None or node.renewed_at is None:
        # Without the right to read nodes there is no second witness; long silence must do.
        return f.see.nodes is None and pod.silent_since is not None and f.see.now - pod.silent_since >= LEASE_STALE
    return pod.silent_since is not None and not node.presumed and node.renewed_at > pod.silent_since and not is_node_lost(f, pod)


# --- doubt about ourselves --------------------------------------------------------------------------------------------


def doubt(silence: Silence, nodes: Mapping[str, Node] | None, now: datetime) -> str | None:
    """Return why silence may be ours and not that of the Coreapps, or None. Pure; over all clusters of a process.

    Our event loop was late; or more than half of all targets, on at least three nodes whose Leases are renewed, are silent at once; or most
    of the silent ones never answered this process although their kubelets call them ready. A single Coreapp that was heard and then hangs
    raises no doubt. Where nothing is known of nodes, a kubelet that calls a silent Coreapp ready stands for a Lease that is renewed.
    """
    if silence.lag >= LATE:
        return f"the operator itself was {silence.lag.total_seconds():.1f} s late"
    asked = silence.targets - silence.unasked
    if 2 * silence.silent > asked and len(alive := _alive(silence, nodes, now)) >= DOUBTED_NODES:
        return f"{silence.silent} of {asked} Coreapps on {len(alive)} nodes that are alive are silent at once"
    if 2 * silence.unheard > silence.silent:
        return f"{silence.unheard} of {silence.silent} silent Coreapps never answered this operator, but their kubelets report them ready"
    return None


def _alive(silence: Silence, nodes: Mapping[str, Node] | None, now: datetime) -> frozenset[str]:
    """Return which of the nodes with silent Coreapps live for all that is known."""
    if nodes is None:
        return silence.ready_nodes
    newest = newest_renewal(nodes)
    known = ((name, nodes.get(name)) for name in silence.nodes)
    return frozenset(name for name, node in known if node is not None and node.renewed_at and not is_lease_stale(node, newest, now))


# --- the table --------------------------------------------------------------------------------------------------------


def _is_drained(_: Facts, __: Route, pod: Coreapp | None) -> bool:
    return pod is not None and pod.deleting and pod.disrupted


def _is_gone(_: Facts, __: Route, pod: Coreapp | None) -> bool:
    return pod is None or pod.deleting


def _serves_another(f: Facts, route: Route, pod: Coreapp | None) -> bool:
    return pod is not None and pod.epoch_label not in {route.epoch, None} and f.claim(pod) == "committed"


def _is_overdue(f: Facts, _: Route, pod: Coreapp | None) -> bool:
    if pod is None or is_unconfirmed(pod) or pod.is_fit:
        return False
    return f.is_excused(pod) and f.has_held_for("EnoughAreBack", f.want.tuning.missing_holder)


def _without_excuse(holds: Callable[[Facts, Coreapp], bool]) -> Callable[[Facts, Route, Coreapp | None], bool]:
    """A restart explains that a Coreapp exits, refuses or is silent (DESIGN law 9)."""
    return lambda f, _, pod: pod is not None and not f.is_excused(pod) and holds(f, pod)


def is_unconfirmed(pod: Coreapp) -> bool:
    """Whether what our own connections say against a pod proves nothing: they never reached it, and its kubelet calls it ready.

    The kubelet asks the same port. So it is our own way to the pod that is more likely broken (a NetworkPolicy, a route), as for a leader
    that starts where it reaches no Coreapp.
    """
    return pod.never_heard and pod.ready


def is_silent(f: Facts, pod: Coreapp, span: timedelta | None = None) -> bool:
    """Whether a Coreapp left its probes unanswered for so long; by default, for as long as the spec allows."""
    span = f.want.unhealthy_after if span is None else span
    return pod.silent_since is not None and not is_unconfirmed(pod) and f.see.now - pod.silent_since >= span


def is_unready(pod: Coreapp) -> bool:
    """Whether the kubelet says that a running Coreapp is not ready any more, and its own answer does not say otherwise.

    A Coreapp that answers our HTTP probe serves, whatever a kubelet thinks that cannot reach the API server.
    """
    return pod.lost_readiness and not pod.terminated and (pod.report is None or pod.silent_since is not None)


def unready_fact(pod: Coreapp) -> str:
    """Return the name of the fact that a pod is not ready, whose age is asked for."""
    return f"NotReady/{pod.uid}"


def disagrees(f: Facts, route: Route, pod: Coreapp) -> bool:
    """Whether a holder answers and says that it does not hold its shard: it has another role, or the servers refuse its epoch.

    While it does not run with the client's number of shards it cannot hold any.
    """
    report = pod.report
    if report is None or pod.silent_since is not None or report.shards is None or report.shards != (f.shards or report.shards):
        return False
    return route.shard < report.shards and (report.fenced or (report.shard, report.epoch) != (route.shard, route.epoch))


def disagreement_fact(route: Route) -> str:
    """Return the name of the fact that the holder of a route disagrees, whose age is asked for."""
    return f"{Evidence.HOLDER_DISAGREES}/{route.shard}/{route.epoch}"


def patience_with(route: Route) -> timedelta:
    """Return how long the holder of a route may disagree before it is replaced."""
    return DISAGREES_AGAIN if route.evidence == Evidence.HOLDER_DISAGREES else DISAGREES


def _has_disagreed(f: Facts, route: Route, pod: Coreapp | None) -> bool:
    if pod is None or f.is_excused(pod) or not disagrees(f, route, pod):
        return False
    return f.has_held_for(disagreement_fact(route), patience_with(route))


def is_hung(f: Facts, pod: Coreapp) -> bool:
    """Whether there is probable evidence against a running Coreapp, and nothing that excuses it or makes us doubt ourselves."""
    return not f.is_excused(pod) and f.doubt is None and any(holds(f, pod) for _, holds in PROBABLE)


PROBABLE: tuple[tuple[Evidence, Callable[[Facts, Coreapp], bool]], ...] = (
    (Evidence.PROBE_TIMEOUT, is_silent),
    (Evidence.NOT_READY_LONG, lambda f, pod: is_unready(pod) and f.has_held_for(unready_fact(pod), f.want.unhealthy_after)),
)
"""What a single Coreapp shows that runs and yet may not serve."""

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
    # It is healthy otherwise, so it is replaced and not ended.
    Proof(evidence=Evidence.HOLDER_DISAGREES, certainty=Certainty.PROBABLE, holds=_has_disagreed),
)
"""What proves that a holder failed, in the order in which it is named (DESIGN section 5, "Failure evidence")."""


def failure(f: Facts, route: Route) -> Evidence | None:
    """Return why the holder of a route must be replaced, or None. What is only probable is held while we doubt ourselves."""
    if route.holder_uid is None:
        return None
    pod = f.holder(route)
    proofs = (proof for proof in EVIDENCE if proof.certainty is Certainty.CERTAIN or f.doubt is None)
    return next((proof.evidence for proof in proofs if proof.holds(f, route, pod)), None)


def held_back(f: Facts) -> Iterator[tuple[Route, Evidence]]:
    """Yield the routes whose holder would be replaced if we did not doubt ourselves."""
    for route in f.routes if f.doubt is not None else ():
        pod = f.holder(route)
        proof = next((proof for proof in EVIDENCE if proof.holds(f, route, pod)), None) if route.holder_uid else None
        if proof is not None and proof.certainty is Certainty.PROBABLE:
            yield route, proof.evidence


def is_leaving(f: Facts, pod: Coreapp) -> bool:
    """Whether a pod's node is being drained, so that its shard is moved before the pod goes."""
    node = node_of(f, pod)
    return node is not None and node.leaving is not None
