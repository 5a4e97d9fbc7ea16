"""Pods that are missing: when the cause is read, and when it is reported. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from .facts import Facts
from .snapshot import Coreapp

MISSING, REJECTED, BLOCKED = "PodsMissing", "PodsRejected", "DeletionBlocked"
"""Names of the facts whose age is needed; the last one is followed by the pod's uid."""
ASKED_AFTER: Final = timedelta(seconds=2)
"""How long pods are missing before their controller's Events are read: most pods are created within a moment."""
REPORTED_AFTER: Final = timedelta(seconds=3)
"""How long a rejection is known, or a pod is held, before a person must act: a quota may be free again at once."""
SPANS: Final = {MISSING: (ASKED_AFTER,), REJECTED: (REPORTED_AFTER,), BLOCKED: (REPORTED_AFTER,)}
SHOWN = 3
"""How many pods, and how many finalizers of each, are named."""


def are_missing(f: Facts) -> bool:
    """Return whether one of the cluster's workloads has fewer pods than desired, by its controller's status."""
    workloads = [obj for ref, obj in f.snapshot.objects.items() if ref.kind in {"StatefulSet", "Deployment"}]
    seen = ((one["spec"].get("replicas", 1), status) for one in workloads if "observedGeneration" in (status := one.get("status") or {}))
    return any(int(status.get("replicas", 0)) < int(wanted) for wanted, status in seen)


def _fact(pod: Coreapp) -> str:
    return f"{BLOCKED}/{pod.uid}"


def facts(f: Facts) -> Iterator[str]:
    """Name the facts whose age decides something here; none of a cluster that is being deleted."""
    if f.desired.deleting:
        return
    if are_missing(f):
        yield MISSING
    if f.snapshot.rejected_pods is not None:
        yield REJECTED
    yield from (_fact(pod) for pod in f.snapshot.coreapps if pod.held_by)


def are_rejected(f: Facts) -> bool:
    """Return whether pods have been rejected for longer than a moment."""
    return f.snapshot.rejected_pods is not None and f.has_held_for(REJECTED, REPORTED_AFTER)


def held(f: Facts) -> tuple[Coreapp, ...]:
    """Return the ended pods that finalizers have kept for longer than a moment, so that no new ones can take their place."""
    return tuple(pod for pod in f.snapshot.coreapps if pod.held_by and f.has_held_for(_fact(pod), REPORTED_AFTER))


def describe_held(f: Facts) -> str:
    """Return which pods are held, where, and by what."""
    return "; ".join(f"{pod.name} on node {pod.node or '(none)'}, by finalizer {', '.join(pod.held_by[:SHOWN])}" for pod in held(f)[:SHOWN])
