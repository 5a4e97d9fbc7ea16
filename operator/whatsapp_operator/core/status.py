"""What was seen, as status and conditions. Speaks of what is, never of what is hoped; every time in it is absolute."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from . import evidence, manifests, objections, record
from .facts import Facts
from .model import Action, Answer, Delete, Handover, HandoverTimes, Obj, Observed, Operation, Plan, Route, Say, Scale, State
from .record import without_none

EXPIRES_SOON = timedelta(days=30)
MESSAGE_LIMIT = 1024
HANDOVERS_KEPT = 10
SILENT_AFTER = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One aspect of the state: its status, the word for it and the sentence."""

    type: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Word:
    """One row of a condition's own table: the first whose ``when`` holds speaks."""

    reason: str
    status: str
    when: Callable[[Facts], bool]
    message: Callable[[Facts], str]


# --- one shard --------------------------------------------------------------------------------------------------------


def _is_moving(f: Facts, route: Route) -> bool:
    """Whether a holder is on its way: the one that is named lives, or a standby is there to take over."""
    if f.failure(route) is None and route.holder_uid is not None:
        return True
    return not f.want.manual and bool(f.standbys(route))


def shard_state(f: Facts, route: Route) -> str:
    """Return ``Serving``, ``Moving`` or ``Unserved``."""
    if f.is_served(route):
        return "Serving"
    return "Moving" if _is_moving(f, route) else "Unserved"


def _in_state(f: Facts, state: str) -> list[Route]:
    return [route for route in f.routes if shard_state(f, route) == state]


def _all_served(f: Facts) -> bool:
    expected = f.shards if f.shards is not None else f.settled_shards
    return expected is not None and len(_in_state(f, "Serving")) >= expected


def _tell_shards(f: Facts, routes: Iterable[Route]) -> str:
    return "; ".join(
        f"shard {route.shard}: {route.holder or 'no holder'}" + (f" ({why})" if (why := f.failure(route)) else "") for route in routes
    )


def _tell_held_back(f: Facts) -> str:
    return "; ".join(f"shard {route.shard}: {route.holder} ({why})" for route, why in evidence.held_back(f))


def failures_tolerated(f: Facts) -> int:
    """Return how many Coreapps may fail now without a shard going unserved."""
    waiting = sum(not f.is_served(route) for route in f.routes) if f.routes else f.want.shards
    return max(0, len(f.standbys()) - waiting)


# --- the tables of the conditions ----------------------------------------------------------------------------------------


def _is_restarting(f: Facts) -> bool:
    return f.restart_is_expected and not _all_served(f)


def _deadline(f: Facts) -> str:
    operation = f.operation
    if operation is None:
        return ""
    back = sum(f.is_back(pod) for pod in f.see.coreapps)
    return (
        f"Set Shards {operation.origin or '?'} -> {operation.to}: {back} of {len(f.see.coreapps)} Coreapps are back, deadline "
        f"{manifests.timestamp(operation.deadline)}."
    )


READY: tuple[Word, ...] = (
    Word("Banned", "False", lambda f: f.is_banned, lambda _: "The client says that the account is banned."),
    Word(
        "CertificateRefused",
        "False",
        lambda f: f.is_logged_off,
        lambda f: (
            one.why(f)
            if (one := objections.objection_to_account(f)) is not None and one.name == "CertificateRefused"
            else "The client is logged off since a wrong certificate was refused; Set Shards with the right one logs it on again."
        ),
    ),
    Word("RestartOverdue", "False", lambda f: f.restart_is_overdue and not _all_served(f), _deadline),
    Word("Restarting", "False", _is_restarting, _deadline),
    Word(
        "Bootstrapping",
        "False",
        # Whatever is served already: not before all shards are there that were asked for.
        lambda f: f.settled_shards is None,
        lambda _: "The client is being set up for the first time.",
    ),
    Word(
        "Doubt",
        "Unknown",
        lambda f: any(evidence.held_back(f)),
        lambda f: f"{_tell_held_back(f)}; but {f.doubt}: only certain evidence counts until that is over.",
    ),
    Word(
        "Unserved",
        "False",
        lambda f: bool(_in_state(f, "Unserved")),
        lambda f: f"No Coreapp can take {_tell_shards(f, _in_state(f, 'Unserved'))}.",
    ),
    Word(
        "FailingOver",
        "False",
        lambda f: not _all_served(f),
        lambda f: f"Being taken over: {_tell_shards(f, _in_state(f, 'Moving')) or 'shards that have no Service yet'}.",
    ),
    Word("WebappDown", "False", lambda f: not f.webapp_ready, lambda _: "No Webapp is ready; messages cannot be handed in."),
    Word(
        "Disconnected",
        "False",
        lambda f: f.has_held_for("CutOff", f.want.tuning.connection),
        lambda _: "No Coreapp has a connection to WhatsApp: all say gateway_status disconnected. Is the client logged off or banned?",
    ),
    Word(
        "ClientSilent",
        "Unknown",
        lambda f: f.see.client.silent_since is not None and f.see.now - f.see.client.silent_since >= SILENT_AFTER,
        lambda f: f"The Webapp does not answer: {f.see.client.problem}",
    ),
    Word("Serving", "True", lambda _: True, lambda f: f"All {f.shards or f.settled_shards} shards are served{_spare_words(f)}."),
)


def _spare_words(f: Facts) -> str:
    count = failures_tolerated(f)
    if f.want.spares == 0:
        return ""
    return f"; {count} failure{'s' if count != 1 else ''} can be taken" if count else ", but no spare is left"


REDUNDANT: tuple[Word, ...] = (
    Word("NoSpareWanted", "True", lambda f: f.want.spares == 0, lambda _: "spec.spares is 0: a failed Coreapp is out until it is back."),
    Word("Restarting", "False", _is_restarting, _deadline),
    # No spare was lost: the first ones are only being made.
    Word("Bootstrapping", "False", lambda f: f.settled_shards is None, lambda _: "The client is being set up for the first time."),
    Word(
        "NoSpareLeft",
        "False",
        lambda f: failures_tolerated(f) == 0,
        lambda f: f"0 of {f.want.spares} wanted spares are ready; the next failure leaves a shard unserved.",
    ),
    Word(
        "SpareLost",
        "False",
        lambda f: failures_tolerated(f) < f.want.spares,
        lambda f: f"{failures_tolerated(f)} of {f.want.spares} wanted spares are ready.",
    ),
    Word("AsPromised", "True", lambda _: True, lambda f: f"{failures_tolerated(f)} of {f.want.spares} wanted spares are ready."),
)


def _soon(f: Facts) -> bool:
    at = f.see.account.expires_at if f.see.account else None
    return at is not None and at - f.wall < EXPIRES_SOON


CERTIFICATE_FIT: tuple[Word, ...] = (
    Word(
        "ReadFailed",
        "Unknown",
        lambda f: objections.is_unread(f) and not f.is_banned,
        lambda f: f"The Secret of the account could not be read: {f.see.unread.get('Secret', 'not yet')}",
    ),
    Word("Simulated", "True", lambda f: f.want.account is None, lambda _: "The stand-in's made-up account needs no certificate."),
    Word(
        "CertificateExpiresSoon",
        "True",
        lambda f: objections.objection_to_account(f) is None and _soon(f),
        lambda f: f"The certificate expires at {_expiry(f)}; get a new one.",
    ),
    Word(
        "Fit",
        "True",
        lambda f: objections.objection_to_account(f) is None,
        lambda f: (
            f"Set Shards could be sent; the certificate expires at {_expiry(f)}."
            if _expiry(f)
            else "Set Shards could be sent without a certificate until 7 days after registration."
        ),
    ),
)


def _expiry(f: Facts) -> str | None:
    at = f.see.account.expires_at if f.see.account else None
    return manifests.timestamp(at) if at else None


def _speak(kind: str, table: tuple[Word, ...], f: Facts) -> Condition | None:
    word = next((word for word in table if word.when(f)), None)
    return Condition(type=kind, status=word.status, reason=word.reason, message=word.message(f)) if word else None


def conditions(f: Facts, plan: Plan) -> tuple[Condition, ...]:
    """Return every condition of this release, each by its own table, whichever row won. Pure."""
    moving, stuck, idle = plan.moving, plan.stuck, plan.ready
    ready = _speak("Ready", READY, f)
    if ready is not None and ready.reason == "Bootstrapping" and plan.verdict.state is not State.READY:
        # The first number of shards is on its way: the rule that decides what is done is the step that it waits for.
        ready = replace(ready, reason=plan.verdict.row, message=plan.verdict.why)
    redundant = _speak("Redundant", REDUNDANT, f)
    if ready is not None and redundant is not None and redundant.reason == "Bootstrapping":
        # In the same words: two sentences under one reason would be two Events.
        redundant = replace(redundant, reason=ready.reason, message=ready.message)
    fit = _speak("CertificateFit", CERTIFICATE_FIT, f)
    if fit is None and (one := objections.objection_to_account(f)) is not None:
        known = "False" if one.state is State.STUCK else "Unknown"
        fit = Condition(type="CertificateFit", status=known, reason=one.name, message=one.why(f))
    spoken = (
        ready,
        Condition(type="Reconciling", status="True", reason=moving.row, message=moving.why)
        if moving
        else Condition(type="Reconciling", status="False", reason=stuck.row, message=stuck.why)
        if stuck and plan.is_held_up
        else Condition(type="Reconciling", status="False", reason="Settled", message="Nothing to do."),
        Condition(type="Stalled", status="True", reason=stuck.row, message=stuck.why)
        if stuck
        else Condition(type="Stalled", status="False", reason=idle.row, message=idle.why)
        if idle and idle.row == "ChangedByAdmission"
        else Condition(type="Stalled", status="False", reason="Settled", message="Nothing waits for a person."),
        redundant,
        fit,
    )
    return tuple(condition for condition in spoken if condition is not None)


def loudest(spoken: Iterable[Condition]) -> Condition:
    """Return the condition that matters most now (API.md, "Conditions")."""
    by_type = {condition.type: condition for condition in spoken}
    ready, moving, stuck, redundant = (by_type[kind] for kind in ("Ready", "Reconciling", "Stalled", "Redundant"))
    order = (
        (stuck.status == "True", stuck),
        (ready.status != "True", ready),
        (redundant.status == "False" and redundant.reason == "NoSpareLeft", redundant),
        (moving.status == "True", moving),
        *((one.status == "False", one) for one in by_type.values() if one not in {ready, moving, stuck}),
    )
    return next((condition for holds, condition in order if holds), ready)


# --- the whole ------------------------------------------------------------------------------------------------------------


def condition_list(spoken: Iterable[Condition], before: Obj, *, generation: int, now: datetime) -> list[dict[str, Any]]:
    """Return conditions as they stand in the status; a transition time stays while its ``status`` does."""
    earlier = {one.get("type"): one for one in before.get("conditions") or ()}
    return [
        {
            "type": one.type,
            "status": one.status,
            "reason": one.reason,
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
    """Return an entry of the incident record with how long it took, as far as that is known now."""
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
    kept = [_timed(entry, f.see.handover_times.get(entry.get("epoch", ""))) for entry in f.see.status.get("recentHandovers") or ()]
    known = {entry.get("epoch") for entry in kept}
    reported = {entry.get("shard"): entry.get("epoch") for entry in f.see.status.get("shardMap") or ()}
    fresh: list[tuple[datetime, int, dict[str, Any]]] = []
    for route in (*f.see.committed, *f.routes):
        if route.evidence is None or route.committed_at is None or route.epoch in known or reported.get(route.shard) == route.epoch:
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
        fresh.append((route.committed_at, route.shard, _timed(without_none(entry), f.see.handover_times.get(route.epoch or ""))))
    # By the exact time: entries tell whole seconds, in which a shard may move twice.
    newest_first = sorted(fresh, key=lambda one: one[:2], reverse=True)
    return [*(entry for _, _, entry in newest_first), *kept][:HANDOVERS_KEPT]


def _certificate(f: Facts) -> dict[str, Any]:
    facts = f.see.account.certificate if f.see.account else None
    return without_none(
        {
            "fingerprint": facts.fingerprint if facts else None,
            "expiresAt": _expiry(f),
            "issuedAt": manifests.timestamp(facts.issued_at) if facts and facts.issued_at else None,
            "verifiedName": facts.verified_name if facts else None,
            "serial": facts.serial if facts else None,
        }
    )


def report(f: Facts, plan: Plan) -> dict[str, Any]:
    """Return the whole status as it should stand after this look. Pure; equal looks give equal status."""
    spoken = conditions(f, plan)
    loud = loudest(spoken)
    standby = len(f.standbys())
    shown = f.shards if f.shards is not None else f.settled_shards
    target = f.operation.to if f.operation else f.want.shards
    ready = len(f.ready)
    status: dict[str, Any] = {
        "observedGeneration": f.want.generation,
        "conditions": condition_list(spoken, f.see.status, generation=f.want.generation, now=f.wall),
        "reason": loud.reason,
        "message": loud.message[:MESSAGE_LIMIT],
        "url": f"https://{manifests.webapp_host(f.want.key)}:443",
        "shards": f.shards,
        "failuresTolerated": failures_tolerated(f),
        "coreapp": {
            "desired": f.needed_pods,
            "ready": ready,
            "active": sum(f.is_served(route) for route in f.routes),
            "standby": standby,
        },
        "webapp": {"desired": f.desired_webapps, "ready": f.webapps_ready},
        "display": {
            "shards": str(shown or f.want.shards) if (shown or target) == target else f"{shown}->{target}",
            "coreapps": f"{ready}/{f.needed_pods}",
            "webapps": f"{f.webapps_ready}/{f.desired_webapps}",
        },
        "shardMap": _shard_map(f),
        "nextWindowAt": manifests.timestamp(plan.next_window_at) if plan.next_window_at else None,
        "recentHandovers": _handovers(f) or None,
        "certificate": _certificate(f),
        "client": {"version": f.see.client.version} if f.see.client.version else f.see.status.get("client"),
    }
    return record.put(without_none(status), plan.record)


def failed_look(status: Obj, *, generation: int, now: datetime, reason: str, message: str) -> dict[str, Any]:
    """Return the status of a cluster that could not be looked at. Pure.

    Stalled says why, Ready is not known, nothing counts as going on, and all else stays as it was.
    """
    spoken = {
        "Ready": Condition(type="Ready", status="Unknown", reason=reason, message=message),
        "Reconciling": Condition(type="Reconciling", status="False", reason=reason, message=message),
        "Stalled": Condition(type="Stalled", status="True", reason=reason, message=message),
    }
    kept = [one for one in status.get("conditions") or () if one.get("type") not in spoken]
    said = condition_list(spoken.values(), status, generation=generation, now=now)
    return {**status, "observedGeneration": generation, "reason": reason, "message": message[:MESSAGE_LIMIT], "conditions": [*said, *kept]}


def patch(before: Obj, after: Obj) -> dict[str, Any] | None:
    """Return the merge patch that leads from one status to another, or None if there is nothing to write (DESIGN law 11)."""
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
NO_EVENT = frozenset({"Settled", "AsPromised", "NoSpareWanted", "Simulated", "Fit"})
"""Reasons that say that nothing is wrong or under way, beside Serving."""
WARNINGS = frozenset(
    {
        "FailingOver",
        "Unserved",
        "NoSpareLeft",
        "SpareLost",
        "RestartOverdue",
        "WebappDown",
        "ClientSilent",
        "Disconnected",
        "Doubt",
        "OutOfReach",
        "AnswerUnknown",
        "ChangedByAdmission",
    }
)
"""Reasons whose event is a warning although no person must act."""


@dataclass(frozen=True, slots=True)
class Emitted:
    """The last Event of a reason: its sentence, and when it was emitted."""

    message: str
    at: datetime


def events(before: Obj, after: Obj, emitted: Mapping[str, Emitted], *, now: datetime) -> tuple[Say, ...]:
    """Return what a report says anew, each reason once: a condition's new reason, or a new sentence under the same reason. Pure.

    ``emitted``: by reason, what this process emitted last; a reason that it lacks was emitted by whoever wrote ``before``. A new sentence
    waits until the last Event of its reason is ``EMITTED_AGAIN`` old, and is dropped if no condition says it any more. One of a cluster
    that serves does not wait: either it is said with the change, or not at all, so that a cluster at rest is silent.
    """
    earlier = {one["type"]: one["reason"] for one in before.get("conditions") or ()}
    spoken = {(one["reason"], one["message"]) for one in before.get("conditions") or ()}
    urgent = {
        one["reason"] for one in after["conditions"] if (one["type"], one["status"]) in {("Stalled", "True"), ("CertificateFit", "False")}
    }
    said: dict[str, Say] = {}
    for one in after["conditions"]:
        reason, message = one["reason"], one["message"]
        if reason in said or reason in NO_EVENT:
            continue
        is_new = earlier.get(one["type"]) != reason and reason not in earlier.values()
        last = emitted.get(reason)
        differs = (reason, message) not in spoken if last is None else message != last.message and now - last.at >= EMITTED_AGAIN
        waits = (reason, message) in spoken and (one["type"], one["status"]) == ("Ready", "True")
        if is_new or (differs and not waits):
            said[reason] = Say(reason=reason, message=message, warning=reason in WARNINGS | urgent)
    done = before.get("operation")
    if done and not after.get("operation") and after.get("shards") == done.get("to"):
        message = f"{done.get('from', '?')} -> {done['to']} (id {done['id']}): all Coreapps are back."
        said["SetShardsDone"] = Say(reason="SetShardsDone", message=message)
    return tuple(said.values())


def set_shards_sent(operation: Operation) -> Say:
    """Return the Event of a call that was noted and is being made."""
    attempt = f", attempt {operation.attempts}" if operation.attempts > 1 else ""
    message = f"{operation.origin or '?'} -> {operation.to} (id {operation.id}{attempt}): all Coreapps will restart."
    return Say(reason="SetShardsSent", message=message)


def _replacing(see: Observed, name: str) -> Say:
    """Return the Event of a Coreapp that was deleted: for its template, or because it does not answer."""
    newest = see.statefulset.revision if see.statefulset else None
    is_outdated = any(pod.name == name and pod.revision not in {None, newest} for pod in see.coreapps)
    because, end = ("has a former pod template", "with the new one") if is_outdated else ("runs and does not answer", "as a spare")
    return Say(reason="Replacing", message=f"{name} {because}: it is deleted, so that it comes back {end}.", warning=not is_outdated)


def plan_events(see: Observed, plan: Plan, *, done: Collection[Action], told_after: int) -> tuple[Say, ...]:
    """Return what is said of a plan: steps that may be over before the next report. Pure.

    ``done``: the actions that were carried out; ``told_after``: attempts at Set Shards after which a busy server is a warning.
    """
    said: list[Say] = []
    if any(isinstance(action, Scale) for action in plan.actions):
        said.append(Say(reason=plan.verdict.row, message=plan.verdict.why))
    for action in plan.actions:
        if isinstance(action, Delete) and action.ref.kind == "Pod" and action in done:
            said.append(_replacing(see, action.ref.name))
        if isinstance(action, Handover) and not action.planned:
            where = f" ({action.old.node})" if action.old and action.old.node else ""
            message = f"Shard {action.route.shard}: {action.route.holder}{where} failed ({action.evidence})."
            said.append(Say(reason="FailingOver", message=message, warning=True))
    call, noted = see.client.call, see.record.operation
    if call is not None and noted is not None and call.id == noted.id and call.answer is Answer.BUSY:
        often = noted.attempts >= told_after
        advice = " It is tried again; should it last, ask Meta's support." if often else ""
        message = f"Set Shards, attempt {noted.attempts}: {call.detail}.{advice}"
        said.append(Say(reason="ServerBusy", message=message, warning=often))
    return tuple(said)
