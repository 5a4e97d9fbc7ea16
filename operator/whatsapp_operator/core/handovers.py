"""Which standby gets which shard: pairs of routes and standbys, and the requests of an annotation."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime

from . import manifests
from .actions import Action, Annotate, EmitEvent, Handover
from .desired import Switchover
from .facts import Facts
from .holders import knows_shards
from .names import Epoch
from .reasons import Reason
from .snapshot import Coreapp, Evidence, Route


def paired(
    f: Facts, moves: Iterable[tuple[Route, Evidence, bool]], *, only: Coreapp | None = None, busy: Iterable[str] = ()
) -> Iterator[Handover]:
    """Pair routes with standbys, lowest shard first; each pod is taken once, and none that is ``busy``."""
    used = {*busy}
    for route, evidence, planned in moves:
        choices = [pod for pod in f.successors(route, used) if only is None or pod.uid == only.uid]
        if evidence is Evidence.POD_DRAINING and planned:
            choices = [pod for pod in f.standbys_that_stay(route) if pod.uid not in used]
        if evidence is Evidence.CONSOLIDATED:
            # Not onto a node that is being drained: the shard would be moved off and back again endlessly.
            low = (pod for pod in f.standbys_that_stay(route) if pod.uid not in used and pod.ordinal < f.wanted_replicas)
            choices = sorted(low, key=lambda pod: (pod.report is None, pod.ordinal))
        if evidence is Evidence.ROLLED_OUT:
            choices = [pod for pod in f.standbys_that_stay(route) if pod.uid in f.updated_by_uid]
        if choices:
            used.add(choices[0].uid)
            yield Handover(
                route=route,
                to=choices[0],
                epoch=Epoch(route.version, f.snapshot.nonce),
                evidence=evidence,
                planned=planned,
                shards=f.shards,
                old=f.holder(route),
                failed_at=_failed_at(f.holder(route), evidence),
                detected_at=f.snapshot.now,
            )


def failovers(f: Facts) -> tuple[Handover, ...]:
    """Return a handover for each shard whose holder failed and that a standby can take."""
    return tuple(paired(f, ((route, why, False) for route, why in f.failed)))


def _failed_at(old: Coreapp | None, evidence: Evidence) -> datetime | None:
    """Return when the old holder failed, if this process observed the beginning."""
    if old is None:
        return None
    return {Evidence.PROBE_TIMEOUT: old.unresponsive_since, Evidence.CONNECTION_LOST: old.broken_at}.get(evidence)


def drain_switchovers(f: Facts) -> tuple[Handover, ...]:
    """Return a switchover for each shard whose holder's node is being drained, before the pod dies."""
    return tuple(paired(f, ((route, Evidence.POD_DRAINING, True) for route in f.draining)))


def assignments(f: Facts, shards: Collection[int] = (), pods: Collection[str] = ()) -> tuple[Handover, ...]:
    """Return a handover for each shard that never had a holder, except these ``shards``, and to none of these ``pods``."""
    routes = (route for route in f.unassigned if route.shard not in shards)
    return tuple(paired(f, ((route, Evidence.REQUESTED, True) for route in routes), busy=pods))


def consolidations(f: Facts) -> tuple[Handover, ...]:
    """Return a switchover for each shard whose holder has an ordinal that will be removed."""
    return tuple(paired(f, ((route, Evidence.CONSOLIDATED, True) for route in f.too_high)))


def rejection(f: Facts, request: Switchover) -> str | None:
    """Return why a requested switchover is not possible, or None. Pure."""
    route = next((route for route in f.routes if route.shard == request.shard), None)
    if route is None:
        last = (f.shards or 1) - 1
        no_shard = f"There is no shard {request.shard}; shards go from 0 to {last}."
        return no_shard if request.shard > last else f"Shard {request.shard} has no Service of this cluster."
    if request.to is None:
        return None if f.standbys(route) else f"No standby can take shard {request.shard}."
    pod = next((pod for pod in f.snapshot.coreapps if pod.name == request.to), None)
    if pod is None:
        return f"There is no Coreapp {request.to}."
    if pod.ordinal >= f.replicas:
        return f"StatefulSet {manifests.coreapp_name(f.desired.key.name)} has only {f.replicas} replicas, so {request.to} is about to go."
    if pod.uid in f.holder_uids:
        return None if pod.uid == route.holder_uid else f"{request.to} holds another shard."
    return None if any(one.uid == pod.uid for one in f.standbys(route)) else f"{request.to} is not a ready standby."


def switch_over(f: Facts) -> Iterator[Action]:
    """Carry out the annotation so that a crash repeats nothing: first name the pod, then move, then remove the request."""
    left: list[str] = []
    rejected = [f.desired.switchover_problem] if f.desired.switchover_problem else []
    # A shard that never had a holder comes first: it gets a Coreapp no matter which rule wins.
    used = {move.to.uid for move in assignments(f, {request.shard for request in f.desired.switchovers})}
    routes = {route.shard: route for route in f.routes}
    for request in f.desired.switchovers:
        pod = next((pod for pod in f.snapshot.coreapps if pod.name == request.to), None)
        if pod is not None and f.claim(pod) in {"pending", "invalid", "retiring"}:
            # Another attempt prepared this pod and has not committed: the request stays until that label is gone.
            left.append(f"{request.shard}={pod.name}")
        elif (why := rejection(f, request)) is not None:
            rejected.append(f"Shard {request.shard} was not moved: {why}")
        elif pod is None:
            choices = [pod for pod in f.standbys(routes[request.shard], used) if knows_shards(pod)]
            used.update(one.uid for one in choices[:1])
            left.append(f"{request.shard}={choices[0].name}" if choices else str(request.shard))
        elif pod.uid != routes[request.shard].holder_uid:
            left.append(f"{request.shard}={pod.name}")
            if pod.uid not in used and knows_shards(pod):
                used.add(pod.uid)
                yield from paired(f, [(routes[request.shard], Evidence.REQUESTED, True)], only=pod)
    if rejected:
        # One Event for all of them, so that a long annotation costs no more writes than a short one.
        yield EmitEvent(reason=Reason.SWITCHOVER_REJECTED, message=" ".join(rejected), warning=True)
    if ",".join(left) != f.desired.switchover_text:
        yield Annotate(name=manifests.SWITCHOVER_ANNOTATION, value=",".join(left) or None)
