"""What the plugin writes: annotations and spec fields of a WhatsAppCluster; and what it waits for afterwards."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, Protocol, TypeVar

from kubectl_whatsapp import Obj
from kubectl_whatsapp.errors import RequestError
from kubectl_whatsapp.marks import PAUSED_ANNOTATION, RESHARD_NOW_ANNOTATION, SWITCHOVER_ANNOTATION
from kubectl_whatsapp.reading import Target, cluster_path

T = TypeVar("T")

TIMEOUT: Final = 10.0
"""Seconds for one request."""
POLL: Final = 0.1
REQUESTED: Final = "Requested"
"""The evidence that the operator reports for a switchover that a person requested."""
REASON: Final = "multiconnect.dev/switchover-reason"
"""Why a person requested the last switchover. Only people read it."""


class Client(Protocol):
    """What this module needs of a client."""

    def get(self, path: str, *, timeout: float, **query: str) -> Obj:
        """Return what is at a path. RequestError."""
        ...

    def patch(self, path: str, body: Obj, *, timeout: float, dry_run: bool = False) -> Obj:
        """Merge into an object. RequestError."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a WhatsAppCluster that a person asks for."""

    body: Obj
    """The merge patch."""
    sentence: str
    """What it does, as a person reads it."""


def shard_number(text: str) -> int | None:
    """Return the number of a shard that is written as 3 or shard-3; None for any other text."""
    match = re.fullmatch(r"(?:shard-)?([0-9]{1,2})", text)
    return int(match[1]) if match else None


def switchover(shard: int, to: str = "", reason: str = "", *, version: str = "") -> Change:
    """Move a shard once; to a certain pod, or to the best standby. ``version``: rejected if the cluster has changed since."""
    metadata: Obj = {"annotations": {SWITCHOVER_ANNOTATION: f"{shard}={to}" if to else str(shard), REASON: reason or None}}
    if version:
        metadata["resourceVersion"] = version
    return Change({"metadata": metadata}, f"shard {shard} is asked to move to {to or 'the best standby'}")


def reshard_now(shards: int) -> Change:
    """Let Set Shards to this number start outside of the maintenance windows."""
    sentence = f"Set Shards to {shards} need not wait for a window, as long as annotation {RESHARD_NOW_ANNOTATION} stays"
    return Change({"metadata": {"annotations": {RESHARD_NOW_ANNOTATION: str(shards)}}}, sentence)


def paused(*, yes: bool) -> Change:
    """Hold planned changes, or let them continue."""
    sentence = "planned changes are held; failovers continue" if yes else "planned changes continue"
    return Change({"metadata": {"annotations": {PAUSED_ANNOTATION: "true" if yes else None}}}, sentence)


def resize(shards: int | None, spares: int | None) -> Change:
    """Set another number of shards or spares."""
    spec = {key: value for key, value in (("shards", shards), ("spares", spares)) if value is not None}
    return Change({"spec": spec}, ", ".join(f"{value} {key}" for key, value in spec.items()))


def read(client: Client, target: Target) -> Obj:
    """Return the WhatsAppCluster. RequestError."""
    return client.get(cluster_path(target), timeout=TIMEOUT)


def apply(client: Client, target: Target, change: Change, *, dry_run: bool = False) -> Obj:
    """Write a change, or only validate it (``dry_run``). Returns the resulting WhatsAppCluster. RequestError."""
    return client.patch(cluster_path(target), change.body, timeout=TIMEOUT, dry_run=dry_run)


def causes(error: RequestError) -> tuple[str, ...]:
    """Return what the API server says against a change: one sentence for each field, else the whole message."""
    found = (error.details.get("details") or {}).get("causes") or ()
    # A cause without a field says only that the others must be fixed first.
    sentences = [f"{one['field']}: {one.get('message')}" for one in found if one.get("field") not in {None, "", "<nil>"}]
    return tuple(dict.fromkeys(sentences)) or (str(error),)


def is_unknown(error: RequestError) -> bool:
    """Whether a write that failed with this error may have taken effect: there was no answer, or a server error."""
    return error.status is None or error.status >= 500


def wait(client: Client, target: Target, until: Callable[[Obj], T | None], *, seconds: float) -> T | None:
    """Read the WhatsAppCluster repeatedly until ``until`` returns something other than None.

    Returns that value, or None after ``seconds``. A failed read is retried, unless it would fail again.
    """
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        try:
            found = until(client.get(cluster_path(target), timeout=min(TIMEOUT, left)))
        except RequestError as error:
            if error.is_lasting:
                raise
            found = None
        if found is not None:
            return found
        time.sleep(POLL)
    return None


def entry(cluster: Obj, shard: int) -> Obj:
    """Return what the status reports about a shard; empty if there is no shard with that number."""
    return next((one for one in (cluster.get("status") or {}).get("shardMap") or () if one.get("shard") == shard), {})


def no_shard(cluster: Obj, shard: int) -> str:
    """Return a sentence: there is no shard with that number, and which ones there are."""
    known = sorted(one.get("shard") for one in (cluster.get("status") or {}).get("shardMap") or ())
    return f"{cluster['metadata']['name']} has no shard {shard}; it has {', '.join(map(str, known)) or 'none yet'}."


def handover(cluster: Obj, epoch: str | None) -> Obj:
    """Return what the status reports about the handover to this epoch; empty if it reports none."""
    return next((one for one in (cluster.get("status") or {}).get("recentHandovers") or () if one.get("epoch") == epoch), {})


def phases(handover: Obj) -> Obj:
    """Return how long each phase of a handover took, as the status reports it."""
    names = ("detectMilliseconds", "commitMilliseconds", "serveMilliseconds")
    return {name: handover[name] for name in names if name in handover}


def _is_requested(cluster: Obj, shard: int, epoch: str | None) -> bool:
    """Whether a request was carried out since the shard had this epoch. Also true if no handover has been reported since."""
    handovers = (one for one in (cluster.get("status") or {}).get("recentHandovers") or () if one.get("shard") == shard)
    newer = list(takewhile(lambda one: one.get("epoch") != epoch, handovers))
    return not newer or any(one.get("evidence") == REQUESTED for one in newer)


def moved(shard: int, epoch: str | None, to: str = "") -> Callable[[Obj], Obj | None]:
    """Return a function that returns the new entry of a shard once it serves under another epoch, or {} once the request was rejected.

    ``to``: the pod that must hold it then, if one was named. A failover may happen first; the request is then still pending.
    """

    def judge(cluster: Obj) -> Obj | None:
        found = entry(cluster, shard)
        is_there = found.get("holder") == to if to else _is_requested(cluster, shard, epoch)
        if found.get("epoch") not in {None, epoch} and found.get("state") == "Serving" and is_there:
            return found
        is_asked = SWITCHOVER_ANNOTATION in ((cluster.get("metadata") or {}).get("annotations") or {})
        # The annotation is removed after the commit and after a rejection; the status of a commit may follow a moment later.
        return None if is_asked or found.get("state") == "Moving" else {}

    return judge


def condition_is(name: str) -> Callable[[Obj], str | None]:
    """Return a function that judges whether a cluster is Ready, or UpToDate: the newest spec is carried out, nothing waits for a person."""

    def judge(cluster: Obj) -> str | None:
        generation = (cluster.get("metadata") or {}).get("generation")
        status = cluster.get("status") or {}
        found = {one.get("type"): one for one in status.get("conditions") or ()}
        if name == "Ready":
            ready = found.get("Ready") or {}
            return f"Ready: {ready.get('message')}" if ready.get("status") == "True" else None
        working, stalled = found.get("Reconciling") or {}, found.get("Stalled") or {}
        is_current = status.get("observedGeneration") == generation
        is_done = is_current and working.get("status") == "False" and stalled.get("status") == "False"
        return f"UpToDate: {working.get('message')}" if is_done else None

    return judge
