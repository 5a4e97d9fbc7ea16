"""The number of Coreapps: the one from the spec counts, another number that others wrote is overruled and reported. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from . import manifests
from .actions import Retire, Scale
from .facts import Facts
from .names import Epoch
from .snapshot import Overruled

REMEMBERED: Final = timedelta(minutes=15)
"""For how long an overruled number is remembered. An autoscaler acts every 15 s, and this process pauses for less than that."""
TRIES: Final = 3
"""Consecutive times that a higher number is set back at once; then with pauses, because another program insists."""
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=30), timedelta(minutes=5)
"""The pause doubles from the first to the second. Extra Coreapps do no harm meanwhile."""
INSISTS: Final = 2
"""After so many consecutive times it is no mistake of a person, and must be ended by one."""


def raised(f: Facts) -> int:
    """Return how many replicas there must be at once: what is wanted, or when paused only what already exists."""
    return f.min_replicas if f.desired.paused else f.desired_replicas


def are_too_few(f: Facts) -> bool:
    """Return whether there must be more replicas at once."""
    return f.snapshot.statefulset is not None and f.replicas < raised(f)


def scale(f: Facts, replicas: int) -> tuple[Scale, ...]:
    """Return the write of this number."""
    workload = f.snapshot.statefulset
    if workload is None:
        return ()
    ref = manifests.coreapp_statefulset(f.desired.key.name)
    return (Scale(ref=ref, uid=workload.uid, resource_version=workload.resource_version, replicas=replicas),)


def lowering(f: Facts) -> tuple[Scale | Retire, ...]:
    """Lower the replicas, once every Coreapp that goes is marked for just this write.

    A handover tests the label that the mark replaces. So no leader that observed earlier can give one of them a shard meanwhile.
    """
    workload = f.snapshot.statefulset
    if workload is None:
        return ()
    n = int(workload.resource_version)
    surplus = (pod for pod in f.snapshot.coreapps if pod.ordinal >= f.desired_replicas and not pod.deleting)
    unmarked = [pod for pod in surplus if f.claim(pod) != "retiring" or f.retires_by(pod) != n]
    if not unmarked:
        return scale(f, f.desired_replicas)
    # Another label is first made dead, or cleared.
    free = (pod for pod in unmarked if f.claim(pod) in {"none", "dead"})
    return tuple(Retire(coreapp=pod, epoch=Epoch(n, f"{f.snapshot.nonce}-{pod.ordinal}")) for pod in free)


def are_unused(f: Facts) -> bool:
    """Return whether there are more replicas than wanted while no shard has had a holder: they may hold the room that a Webapp needs."""
    return f.is_unused and f.replicas > f.desired_replicas and not f.desired.paused and may_lower(f)


def noted(last: Overruled | None, *, by: str, replicas: int, now: datetime) -> Overruled:
    """Return what is remembered after ``by``, the writer of ``replicas``, was overruled; ``last``: the memory before."""
    times = 1 if last is None or last.by != by or now - last.at >= REMEMBERED else last.times + 1
    return Overruled(by=by, replicas=replicas, times=times, at=now)


def lowers_after(f: Facts) -> datetime | None:
    """Return when a number that another party raised may be set back; None: at any time.

    Only lowering waits. A number that is too low is raised at once, however often that is, for it ends Coreapps that hold shards.
    """
    workload, last = f.snapshot.statefulset, f.snapshot.overruled
    if workload is None or last is None or last.by != workload.scaled_by or last.times < TRIES:
        return None
    return last.at + min(FIRST_PAUSE * (1 << min(last.times - TRIES, 8)), LONGEST_PAUSE)


def may_lower(f: Facts) -> bool:
    """Return whether the number of Coreapps may be lowered now, with regard to other writers."""
    at = lowers_after(f)
    return at is None or f.snapshot.now >= at


def is_insisted_on(f: Facts) -> bool:
    """Return whether another party goes on scaling the Coreapps although that is undone each time."""
    return f.snapshot.overruled is not None and f.snapshot.overruled.times >= INSISTS


def tell(f: Facts) -> str:
    """Return a sentence about who is overruled, why, and what to do."""
    last = f.snapshot.overruled
    if last is None:
        return ""
    return (
        f"{last.by} scales StatefulSet {manifests.coreapp_name(f.desired.key.name)}, to {last.replicas} last, and is overruled: "
        f"{f.spec_replicas} Coreapps follow from spec.shards and spec.spares, and more pods make no more shards. "
        "Delete the HorizontalPodAutoscaler, or stop what else scales it."
    )


def whose(f: Facts) -> str:
    """Return whose number is being overruled and why, as an addition to a sentence; empty if it is the operator's own."""
    workload = f.snapshot.statefulset
    if workload is None or workload.scaled_by is None:
        return ""
    return f" ({workload.scaled_by} wrote {workload.replicas}; the number follows from spec.shards and spec.spares)"
