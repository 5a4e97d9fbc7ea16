"""What was observed and done, as status and Events. All times in it are absolute."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from . import manifests, objections, record
from .actions import Action, Delete, EmitEvent, Handover, Plan, Scale
from .conditions import Condition, conditions, failures_tolerated, loudest, shard_state
from .facts import Facts
from .names import Obj
from .reasons import Reason
from .record import without_none
from .snapshot import Answer, HandoverTimes, Operation, Snapshot

MESSAGE_LIMIT = 1024
MAX_HANDOVERS = 10


# --- the whole ------------------------------------------------------------------------------------------------------------


def condition_list(spoken: Iterable[Condition], before: Obj, *, generation: int, now: datetime) -> list[dict[str, Any]]:
    """Return conditions as in the status; a transition time stays while its ``status`` does."""
    earlier = {one.get("type"): one for one in before.get("conditions") or ()}
    return [
        {
            "type": one.type,
            "status": one.status,
            "reason": str(one.reason),
            "message": one.message[:MESSAGE_LIMIT],
            "observedGeneration": generation,
            "lastTransitionTime": earlier[one.type]["lastTransitionTime"]
            if one.type in earlier and earlier[one.type].get("status") == one.status
            else manifests.timestamp(now),
        }
        for one in spoken
    ]


def _shard_map(f: Facts) -> list[dict[str, Any]]:
    entries = []
    for route in f.routes:
        pod = f.holder(route)
        entry = {
            "shard": route.shard,
            "state": shard_state(f, route),
            "holder": route.holder,
            "node": pod.node if pod else None,
            "epoch": route.epoch,
            "since": manifests.timestamp(route.committed_at) if route.committed_at else None,
        }
        entries.append(without_none(entry))
    return entries


def _timed(entry: Mapping[str, Any], times: HandoverTimes | None) -> dict[str, Any]:
    """Return an entry of the incident record with its durations, as far as they are known now."""
    if times is None:
        return dict(entry)
    return {
        **entry,
        **without_none({"detectMilliseconds": times.detect, "commitMilliseconds": times.commit, "serveMilliseconds": times.serve}),
    }


def _handovers(f: Facts) -> list[dict[str, Any]]:
    """Return the incident record: what was kept, and each epoch that the last report did not know.

    The Services are its source, so a crash between a commit and its report loses no entry; and what this process committed, because a
    shard may move twice between two reports.
    """
    kept = [
        _timed(entry, f.snapshot.handover_times.get(entry.get("epoch", ""))) for entry in f.snapshot.status.get("recentHandovers") or ()
    ]
    known = {entry.get("epoch") for entry in kept}
    reported = {entry.get("shard"): entry.get("epoch") for entry in f.snapshot.status.get("shardMap") or ()}
    fresh: list[tuple[datetime, int, dict[str, Any]]] = []
    for route in (*f.snapshot.committed, *f.routes):
        if route.epoch is None or route.holder is None or route.evidence is None or route.committed_at is None:
            continue  # a first holder, or a damaged Service: the CRD takes no entry without these
        if route.epoch in known or reported.get(route.shard) == route.epoch:
            continue
        entry = {
            "at": manifests.timestamp(route.committed_at),
            "shard": route.shard,
            "kind": "Switchover" if route.planned else "Failover",
            "from": route.previous,
            "to": route.holder,
            "epoch": route.epoch,
            "evidence": route.evidence,
        }
        known.add(route.epoch)
        fresh.append((route.committed_at, route.shard, _timed(without_none(entry), f.snapshot.handover_times.get(route.epoch))))
    # By the exact time: entries tell whole seconds, in which a shard may move twice.
    newest_first = sorted(fresh, key=lambda one: one[:2], reverse=True)
    return [*(entry for _, _, entry in newest_first), *kept][:MAX_HANDOVERS]


def _certificate(f: Facts) -> dict[str, Any]:
    facts = f.snapshot.account.certificate if f.snapshot.account else None
    return without_none(
        {
            "fingerprint": facts.fingerprint if facts else None,
            "expiresAt": objections.expiry_of(f),
            "issuedAt": manifests.timestamp(facts.issued_at) if facts and facts.issued_at else None,
            "verifiedName": facts.verified_name if facts else None,
            "serial": facts.serial if facts else None,
        }
    )


def report(f: Facts, plan: Plan) -> dict[str, Any]:
    """Return the whole status after this observation. Pure; equal observations give equal status."""
    spoken = conditions(f, plan)
    loud = loudest(spoken)
    standby = len(f.standbys())
    shown = f.shards if f.shards is not None else f.settled_shards
    target = f.operation.to if f.operation else f.desired.shards
    ready = len(f.ready)
    status: dict[str, Any] = {
        "observedGeneration": f.desired.generation,
        "conditions": condition_list(spoken, f.snapshot.status, generation=f.desired.generation, now=f.wall),
        "reason": str(loud.reason),
        "message": loud.message[:MESSAGE_LIMIT],
        "url": f"https://{manifests.webapp_host(f.desired.key)}:443",
        "shards": f.shards,
        "failuresTolerated": failures_tolerated(f),
        "coreapp": {
            "desired": f.desired_replicas,
            "ready": ready,
            "active": sum(f.is_served(route) for route in f.routes),
            "standby": standby,
        },
        "webapp": {"desired": f.desired_webapps, "ready": f.webapps_ready},
        "display": {
            "shards": str(shown or f.desired.shards) if (shown or target) == target else f"{shown}->{target}",
            "coreapps": f"{ready}/{f.desired_replicas}",
            "webapps": f"{f.webapps_ready}/{f.desired_webapps}",
        },
        "shardMap": _shard_map(f),
        "nextWindowAt": manifests.timestamp(plan.next_window_at) if plan.next_window_at else None,
        "recentHandovers": _handovers(f) or None,
        "certificate": _certificate(f),
        "client": {"version": f.snapshot.client.version} if f.snapshot.client.version else f.snapshot.status.get("client"),
    }
    return record.put(without_none(status), plan.record)


def failed_observation(status: Obj, *, generation: int, now: datetime, reason: Reason, message: str) -> dict[str, Any]:
    """Return the status of a cluster that could not be observed. Pure.

    Stalled says why, Ready is Unknown, nothing counts as in progress, and everything else stays unchanged.
    """
    spoken = {
        "Ready": Condition(type="Ready", status="Unknown", reason=reason, message=message),
        "Reconciling": Condition(type="Reconciling", status="False", reason=reason, message=message),
        "Stalled": Condition(type="Stalled", status="True", reason=reason, message=message),
    }
    kept = [one for one in status.get("conditions") or () if one.get("type") not in spoken]
    listed = condition_list(spoken.values(), status, generation=generation, now=now)
    return {
        **status,
        "observedGeneration": generation,
        "reason": str(reason),
        "message": message[:MESSAGE_LIMIT],
        "conditions": [*listed, *kept],
    }


def patch(before: Obj, after: Obj) -> dict[str, Any] | None:
    """Return the merge patch from one status to another, or None if there is nothing to write (laws#11)."""
    body: dict[str, Any] = {}
    for key in {*before, *after}:
        if before.get(key) != after.get(key):
            value = after.get(key)
            if isinstance(value, dict) and isinstance(before.get(key), dict):
                value = {**dict.fromkeys(before[key]), **value}
            body[key] = value
    return body or None


# --- events: emitted when a reason or its sentence changes ---------------------------------------------------------------

EMITTED_AGAIN = timedelta(seconds=10)
"""Least time between two Events of one reason whose sentence changed: some sentences count Coreapps that come back one by one."""
FAILED_OBSERVATION = frozenset({Reason.INTERNAL_ERROR, Reason.READ_FAILED, Reason.SPEC_INVALID, Reason.STATUS_REJECTED})
"""Reasons of a failed observation."""
NO_EVENT = frozenset({Reason.UP_TO_DATE, Reason.SPARES_READY, Reason.NO_SPARES_REQUESTED, Reason.SIMULATED, Reason.VALID})
"""Reasons by which nothing is wrong or in progress, in addition to Serving."""
WARNINGS = frozenset(
    {
        Reason.FAILING_OVER,
        Reason.UNSERVED,
        Reason.NO_SPARE_LEFT,
        Reason.SPARE_LOST,
        Reason.RESTART_OVERDUE,
        Reason.WEBAPP_UNAVAILABLE,
        Reason.WEBAPP_NOT_RESPONDING,
        Reason.DISCONNECTED,
        Reason.SELF_CHECK_FAILED,
        Reason.NODES_UNREACHABLE,
        Reason.ANSWER_UNKNOWN,
        Reason.CHANGED_BY_ADMISSION,
    }
)
"""Reasons whose event is a warning although no person must act."""


@dataclass(frozen=True, slots=True)
class Emitted:
    """The last Event of a reason: its sentence, and when it was emitted."""

    message: str
    at: datetime


def events(before: Obj, after: Obj, emitted: Mapping[str, Emitted], *, now: datetime) -> tuple[EmitEvent, ...]:
    """Return the Events of a report, each reason once: for a condition's new reason, or a new sentence with the same reason. Pure.

    ``emitted``: by reason, the last Event of this process; a missing reason was emitted by the writer of ``before``. A new sentence waits
    until the last Event of its reason is ``EMITTED_AGAIN`` old, and is dropped if no condition has it any more. For a cluster that serves
    it does not wait: it is emitted with the change or not at all, so that a cluster at rest has no Events.
    """
    earlier = {one["reason"] for one in before.get("conditions") or ()}
    spoken = {(one["reason"], one["message"]) for one in before.get("conditions") or ()}
    urgent = {
        one["reason"] for one in after["conditions"] if (one["type"], one["status"]) in {("Stalled", "True"), ("CertificateValid", "False")}
    }
    found: dict[str, EmitEvent] = {}
    for one in after["conditions"]:
        reason, message = one["reason"], one["message"]
        if reason in found or reason in NO_EVENT:
            continue
        is_new = reason not in earlier
        last = emitted.get(reason)
        differs = (reason, message) not in spoken if last is None else message != last.message and now - last.at >= EMITTED_AGAIN
        waits = (reason, message) in spoken and (one["type"], one["status"]) == ("Ready", "True")
        if is_new or (differs and not waits):
            found[reason] = EmitEvent(reason=reason, message=message, warning=reason in WARNINGS | urgent)
    done = before.get("operation")
    if done and not after.get("operation") and after.get("shards") == done.get("to"):
        message = f"{done.get('from', '?')} -> {done['to']} (id {done['id']}): all Coreapps that stay are back."
        found[Reason.SET_SHARDS_DONE] = EmitEvent(reason=Reason.SET_SHARDS_DONE, message=message)
    return tuple(found.values())


def set_shards_sent(operation: Operation) -> EmitEvent:
    """Return the Event of a call that was noted and is being made."""
    attempt = f", attempt {operation.attempts}" if operation.attempts > 1 else ""
    message = f"{operation.origin or '?'} -> {operation.to} (id {operation.id}{attempt}): all Coreapps will restart."
    return EmitEvent(reason=Reason.SET_SHARDS_SENT, message=message)


def handed_over(one: Handover, times: HandoverTimes | None) -> EmitEvent:
    """Return the Event of a committed handover."""
    old = one.route.holder
    steps = (("detect", times.detect), ("commit", times.commit), ("serve", times.serve)) if times else ()
    durations = ", ".join(
        f"{step} {span / 1000:.1f} s" if span >= 1000 else f"{step} {span} ms" for step, span in steps if span is not None
    )
    if old is None:
        return EmitEvent(reason=Reason.HANDED_OVER, message=f"Shard {one.route.shard} -> {one.to.name}, epoch {one.epoch}: first holder.")
    message = f"Shard {one.route.shard}: {old} -> {one.to.name}, epoch {one.epoch} ({one.evidence})" + (
        f": {durations}." if durations else "."
    )
    return EmitEvent(reason=Reason.HANDED_OVER, message=message)


def _replacing(snapshot: Snapshot, name: str) -> EmitEvent:
    """Return the Event of a Coreapp that was deleted: for its template, or because it does not answer."""
    newest = snapshot.statefulset.revision if snapshot.statefulset else None
    is_outdated = newest is not None and any(pod.name == name and pod.revision not in {None, newest} for pod in snapshot.coreapps)
    if is_outdated:
        message = f"{name} has a former pod template: it is deleted, so that it comes back with the new one."
        return EmitEvent(reason=Reason.DELETING_OUTDATED_POD, message=message)
    message = f"{name} runs and does not answer: it is deleted, so that it comes back as a spare."
    return EmitEvent(reason=Reason.DELETING_UNRESPONSIVE_POD, message=message, warning=True)


def plan_events(snapshot: Snapshot, plan: Plan, *, done: Collection[Action], reported_after: int) -> tuple[EmitEvent, ...]:
    """Return the Events of a plan: of steps that may be over before the next report. Pure.

    ``done``: the actions that were carried out; ``reported_after``: attempts at Set Shards after which a busy server is a warning.
    """
    found: list[EmitEvent] = []
    if any(isinstance(action, Scale) for action in plan.actions):
        found.append(EmitEvent(reason=plan.decision.rule, message=plan.decision.why))
    for action in plan.actions:
        if isinstance(action, Delete) and action.ref.kind == "Pod" and action in done:
            found.append(_replacing(snapshot, action.ref.name))
        if isinstance(action, Handover) and not action.planned:
            where = f" ({action.old.node})" if action.old and action.old.node else ""
            message = f"Shard {action.route.shard}: {action.route.holder}{where} failed ({action.evidence})."
            found.append(EmitEvent(reason=Reason.FAILING_OVER, message=message, warning=True))
    call, noted = snapshot.client.call, snapshot.record.operation
    if call is not None and noted is not None and call.id == noted.id and call.answer is Answer.BUSY:
        often = noted.attempts >= reported_after
        advice = " It is tried again. If it goes on, ask Meta's support." if often else ""
        message = f"Set Shards, attempt {noted.attempts}: {call.detail}.{advice}"
        found.append(EmitEvent(reason=Reason.SERVER_BUSY, message=message, warning=often))
    return tuple(found)
