"""Rolls a new pod template out to the Coreapps: one more Coreapp first, then standbys, then each shard to an updated standby.

The StatefulSet replaces nothing by itself (OnDelete). One extra Coreapp is added first, so that there are never fewer spares than
promised. It is also the first to run the new template: if it does not come up, the roll-out ends before any other pod is touched.
"""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Final

from . import handovers, health
from .actions import Action, Delete, Handover
from .facts import Facts
from .snapshot import Coreapp, Evidence

ROUTES_SETTLE: Final = timedelta(seconds=3)
"""How long a Coreapp lives on after its shard moved: kube-proxy takes up to a second (docs/architecture.md, "Handover")."""


def fact(f: Facts, pod: Coreapp) -> str:
    """Return the name of the fact that a pod is outdated, by its role; its age is needed."""
    return f"Outdated/{pod.uid}/{'holder' if pod.uid in f.holder_uids else 'spare'}"


def _is_due(f: Facts, pod: Coreapp) -> bool:
    # With a pending label it may become a holder at any moment, when another leader commits.
    is_free = not pod.deleting and f.claim(pod) != "pending"
    return is_free and f.has_held_for(fact(f, pod), ROUTES_SETTLE)


def _is_held(f: Facts) -> bool:
    """Whether nothing may be rolled out now: because the user paused it, or while a Set Shards is in progress."""
    return f.desired.paused or f.desired.deleting or f.set_shards_is_open


def unready_fact(pod: Coreapp) -> str:
    """Return the name of the fact that an outdated pod is not ready, although it may answer; its age is needed."""
    return f"OutdatedUnready/{pod.uid}"


def is_unready(f: Facts, pod: Coreapp) -> bool:
    """Return whether an outdated pod is not ready although its kubelet is there. No other could end it, or call it ready."""
    return not pod.ready and not health.is_node_lost(f, pod)


def _is_given_up(f: Facts, pod: Coreapp) -> bool:
    """Whether an outdated Coreapp has not been ready for as long as a restart may take.

    If it answers nevertheless, another container of its pod is not ready. Only the new template can repair that.
    """
    return is_unready(f, pod) and f.has_held_for(unready_fact(pod), f.desired.restart_timeout)


def unrecoverable(f: Facts) -> tuple[Coreapp, ...]:
    """Return outdated Coreapps that are not ready: they serve nothing, and ending them makes room for the new template.

    A holder among them that does not answer is ended too if no standby can take its shard: nothing else can repair a faulty first template.
    """
    if _is_held(f):
        return ()
    late = (pod for pod in f.outdated if not pod.ready and _is_due(f, pod))
    return tuple(
        pod
        for pod in late
        if (_is_given_up(f, pod) or not f.is_responding(pod))
        and (pod.uid not in f.holder_uids or not (f.is_responding(pod) or f.standbys()))
    )


def all_are_healthy(f: Facts) -> bool:
    """Return whether the next step may be taken: every Coreapp is ready, including the extra one, and every shard is served.

    A Coreapp that goes because the StatefulSet has just become smaller does not make up for one that is not back. A holder that serves and
    that only the new template can make ready is not waited for.
    """
    given_up = sum(pod.uid in f.holder_uids and _is_given_up(f, pod) for pod in f.outdated)
    sound = len(f.ready_to_stay) + given_up
    return all(map(f.is_served, f.routes)) and not f.missing and sound >= f.replicas >= f.desired_replicas


def steps(f: Facts) -> tuple[Action, ...]:
    """Return the next step, or none while the last one is still on its way. Pure."""
    if _is_held(f) or not all_are_healthy(f):
        return ()
    spare = next((pod for pod in f.outdated if pod.uid not in f.holder_uids), None)
    if spare is None:
        return next_switchover(f)
    return (Delete.of(spare),) if _is_due(f, spare) else ()


def next_switchover(f: Facts) -> tuple[Handover, ...]:
    """Return the switchover of the lowest shard whose holder is outdated onto an updated standby, if one is due."""
    outdated = {pod.uid: pod for pod in f.outdated}
    held = ((route, outdated[route.holder_uid]) for route in f.routes if route.holder_uid in outdated)
    lowest = [(route, Evidence.ROLLED_OUT, True) for route, pod in itertools.islice(held, 1) if _is_due(f, pod)]
    return tuple(handovers.paired(f, lowest))


def why(f: Facts, awaited: str) -> str:
    """Return a sentence about the progress; ``awaited`` names the Coreapps that are not ready."""
    progress = f"{len(f.updated_by_uid)} of {f.replicas} Coreapps have the new pod template"
    return f"{progress}; {awaited}." if len(f.ready_to_stay) < f.replicas else f"{progress}; standbys first, then one shard at a time."
