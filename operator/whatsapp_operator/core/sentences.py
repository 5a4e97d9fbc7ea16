"""Parts of the rules' sentences: names, places, times, and what the client and the scheduler said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from . import manifests, windows
from .facts import Facts
from .holders import knows_shards
from .names import Ref
from .snapshot import Coreapp

WORKLOADS = frozenset({"StatefulSet", "Deployment"})


def awaited(f: Facts) -> str:
    """Name the Coreapps that stay and are not ready, with the scheduler's message if there is one."""
    ready = {pod.uid for pod in f.ready}
    late = [pod for pod in f.snapshot.coreapps if pod.uid not in ready and pod.ordinal < f.replicas]
    names = ", ".join(pod.name for pod in late[:5]) or "pods that do not exist yet"
    because = next((pod.pending_because for pod in late if pod.pending_because), f.snapshot.rejected_coreapp if not late else None)
    return f"waiting for {names}" + (f" ({because})" if because else "")


def pending(f: Facts) -> str:
    """Name the pod of a Webapp or of the simulator that does not run, and why; empty if none is known."""
    return f"; waiting for {f.snapshot.pending_pod}" if f.snapshot.pending_pod else ""


def switchovers(f: Facts) -> str:
    """Say which shards move as the annotation asks, and what a move waits for."""
    requests, standbys = f.desired.switchovers, f.standbys()
    named = {request.to for request in requests}
    is_any = None in named and not any(map(knows_shards, standbys))
    new = [pod for pod in standbys if not knows_shards(pod) and (is_any or pod.name in named)]
    shards = ", ".join(str(request.shard) for request in requests)
    return f"Moving shards as annotation {manifests.SWITCHOVER_ANNOTATION} says: {shards}" + (
        f"; waiting for {names_of(new)} to learn the number of shards." if new else "."
    )


def foreign(refs: Sequence[Ref]) -> str:
    """Name the objects that stand in the way, and say what to do."""
    named = ", ".join(f"{ref.kind} {ref.name}" for ref in refs)
    them, are = ("it", "is") if len(refs) == 1 else ("them", "are")
    one = "it" if len(refs) == 1 else "one of them"
    # The object may own the cluster's pods, or hold the client's password.
    more = " A workload that is deleted with --cascade=orphan leaves its pods running." if WORKLOADS & {ref.kind for ref in refs} else ""
    return (
        f"{named} {are} not owned by this cluster and {are} left alone. Delete or rename {them}, or give the cluster another name. "
        f"If {one} only lost its owner reference, put that back instead.{more}"
    )


def deleting(f: Facts) -> str:
    """Say what is still done for a cluster that is being deleted, and what its deletion waits for."""
    waits = f" Kubernetes waits for {', '.join(f.desired.finalizers)}." if f.desired.finalizers else ""
    return f"The cluster is being deleted. Its shards are handed over until the pods go; nothing else is done.{waits}"


def opening(f: Facts) -> str:
    """Say when the next window opens."""
    at = windows.next_opening(f.desired.windows, f.wall)
    return manifests.timestamp(at) if at else "an unknown time"


def span(f: Facts) -> str:
    """Say from how many shards to how many the call goes."""
    return f"{f.operation.origin or '?'} -> {f.operation.to}" if f.operation else ""


def verifying(f: Facts) -> str:
    """Say what the client reports after an accepted call. A third number shows another program's call, or that the client lost its data."""
    accepted = f"Set Shards {span(f)} was accepted; the client"
    if f.operation is None or f.shards == f.operation.origin:
        return f"{accepted} still reports {f.shards}."
    until = manifests.timestamp(f.operation.settle_by)
    return (
        f"{accepted} nevertheless reports {f.shards}: something other than the operator changed it, or the client lost its database. "
        f"If that does not change, the operator continues from {f.shards} at {until}."
    )


def attempts(f: Facts) -> str:
    """Say how often the call was made."""
    made = f.operation.attempts if f.operation else 0
    return "once" if made == 1 else f"{made} times"


def client_said(f: Facts) -> str:
    """Return what the client answered, if this process made the call; usually that is 403, temporarily unavailable."""
    call = f.snapshot.client.call
    return f" ({call.detail})" if call is not None and f.operation is not None and call.id == f.operation.id and call.detail else ""


def login_advice(f: Facts) -> str:
    """Say which key of which Secret the client does not accept, and what belongs there."""
    secret, client = manifests.admin_secret_name(f.desired), f.snapshot.client
    said = f" ({client.login_message})" if client.login_message else ""
    if client.is_new_password_rejected:
        return (
            f"The Webapp accepts key password of Secret {secret} neither as it is nor as the new password that the first login must set"
            f"{said}. A new one has 8 to 64 characters, with a digit, an upper-case and a lower-case letter and a special character. "
            "Put the right password there."
        )
    return f"The Webapp accepts neither key password nor key initialPassword of Secret {secret}{said}. Put the right password there."


def retry_at(f: Facts) -> str:
    """Say when the call is made again."""
    return manifests.timestamp(f.operation.started_at + f.backoff) if f.operation else ""


def names_of(pods: Iterable[Coreapp]) -> str:
    """Name Coreapps."""
    return ", ".join(pod.name for pod in pods)


def rejected_epochs(f: Facts) -> str:
    """Say which shards no Coreapp can serve because the servers reject their epochs, and what to do."""
    named = ", ".join(f"shard {route.shard} ({route.holder})" for route in f.rejected)
    alone = ", ".join(str(route.holder) for route in f.rejected if not f.successors(route))
    return (
        f"The servers reject the epochs of {named}: they have accepted higher ones, usually because etcd was restored from a backup. "
        f"Reset their fence: POST /control/reset-fence to port {manifests.SIMULATOR_PORT} of pod "
        f"{manifests.simulator_name(f.desired.key.name)}-0. "
        + (f"Then delete {alone}: no standby can try a new epoch." if alone else "Within a minute after that a new epoch is tried.")
    )


def places_of(pods: Iterable[Coreapp]) -> str:
    """Name Coreapps and their nodes."""
    return ", ".join(f"{pod.name} ({pod.node})" for pod in pods)


FIELDS_NAMED, FIELD_LIMIT = 6, 120
"""How many fields that admission changed are named, and at most how many letters of each."""


def altered(f: Facts) -> str:
    """Name the fields that are not as they were written, object by object."""
    named = [(ref, path[:FIELD_LIMIT]) for ref, paths in f.altered for path in paths]
    shown: dict[Ref, list[str]] = {}
    for ref, path in named[:FIELDS_NAMED]:
        shown.setdefault(ref, []).append(path)
    more = f"; and {len(named) - FIELDS_NAMED} more" if len(named) > FIELDS_NAMED else ""
    return "; ".join(f"{ref.kind} {ref.name}: {', '.join(paths)}" for ref, paths in shown.items()) + more
