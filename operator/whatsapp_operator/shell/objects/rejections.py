"""Why pods are missing, as reported by the controllers that cannot create them. Pure and total: no input raises an error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from whatsapp_operator.core.names import Obj

TEXT_KEPT = 400
"""Characters of a controller's message that are passed on."""
FAILED, DONE = "FailedCreate", "SuccessfulCreate"


def missing_names(statefulset: Obj, pods: Iterable[Obj]) -> list[str]:
    """Return the names of the pods that a StatefulSet should have and that do not exist."""
    existing = {pod["metadata"]["name"] for pod in pods}
    expected = (f"{statefulset['metadata']['name']}-{ordinal}" for ordinal in range(int(statefulset["spec"].get("replicas", 1))))
    return [name for name in expected if name not in existing]


def rejection_of(events: Iterable[Obj], names: Iterable[str]) -> str | None:
    """Return why the first of these pods that its controller failed to create is missing; None if no Event says so.

    ``events``: those about the StatefulSet. The last one of a pod counts: a pod that was created later is missing for another reason.
    """
    # In the same second success counts: if it failed after all, the next attempt reports it.
    newest = sorted(events, key=lambda one: (_time(one), one.get("reason") == DONE))
    for name in names:
        last = next((one for one in reversed(newest) if one.get("reason") in (FAILED, DONE) and name in _words(one)), None)
        if last is not None and last.get("reason") == FAILED:
            return one_line(last.get("message"))
    return None


def replica_failure_of(deployment: Obj | None) -> str | None:
    """Return why a Deployment's pods cannot be created, from its condition ReplicaFailure; None if it is not True."""
    status = (deployment or {}).get("status")
    conditions = status.get("conditions") if isinstance(status, dict) else None
    for one in conditions if isinstance(conditions, list) else ():
        if isinstance(one, dict) and (one.get("type"), one.get("status")) == ("ReplicaFailure", "True"):
            return one_line(one.get("message"))
    return None


def _words(event: Obj) -> Iterator[str]:
    """Return the words of an Event's message without punctuation. A pod's name must match a whole word."""
    return (word.strip("\"',.:;()") for word in str(event.get("message")).split())


def _time(event: Obj) -> str:
    """Return the last time of an Event as text; such texts sort by time."""
    series = event.get("series")
    times = [event.get("lastTimestamp"), event.get("eventTime"), series.get("lastObservedTime") if isinstance(series, dict) else None]
    return max((str(time) for time in times if time), default="")


def one_line(text: object) -> str:
    """Return a controller's message as one line of bounded length."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in str(text or "")).split()) or "it does not say why"
    return line if len(line) <= TEXT_KEPT else line[: TEXT_KEPT - 1] + "…"
