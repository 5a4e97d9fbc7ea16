"""One call of Set Shards: whether it may be made, what is noted before it, and how its answer changes the record (laws#4 to laws#6)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from math import ceil
from typing import Any, Final

from . import manifests, objections, windows
from .actions import Action, BumpVersion, Create, SetShards
from .certificate import NO_CERTIFICATE
from .desired import SHARD_COUNTS, Desired
from .facts import Facts
from .snapshot import Answer, Call, Operation, Record, Rejection, Snapshot

MOST_REJECTED: Final = 31
"""How many rejected certificates are remembered besides the last one."""


def may_call(f: Facts) -> bool:
    """Check laws#5 completely, although earlier rules have checked each part."""
    return (
        f.resize_is_wanted
        and f.desired.shards in SHARD_COUNTS
        and len(f.ready_to_stay) >= f.desired.shards
        and f.replicas >= f.desired.shards
        and f.shards_are_fresh
        and objections.objection(f) is None
        and not objections.is_unread(f)
        and not f.window_is_shut
        and windows.problem(f.desired.windows) is None
        and not is_calling(f)
    )


def is_calling(f: Facts) -> bool:
    """Whether a call of this process is on its way."""
    call = f.snapshot.client.call
    return call is not None and call.answer is None and not call.not_sent


def call_for(f: Facts) -> tuple[Action, ...]:
    """Call, but first create the Services of new shards and void every write that could still remove pods that the call needs (laws#4).

    A quota or admission may reject a Service. If the call were made first, that shard would be unserved until a person acts.
    """
    services = (manifests.shard_service(f.desired, shard) for shard in f.shards_without_service(f.desired.shards))
    if absent := tuple(Create(obj=service) for service in services if not f.is_there(service)):
        return absent
    workload = f.snapshot.statefulset
    if workload is not None and f.snapshot.anchored_for != f.desired.shards:
        ref = manifests.coreapp_statefulset(f.desired.key.name)
        return (BumpVersion(ref=ref, resource_version=workload.resource_version, shards=f.desired.shards, nonce=f.snapshot.nonce),)
    return (SetShards(operation=next_operation(f)),)


def next_operation(f: Facts) -> Operation:
    """Return the intent of the next Set Shards call. Pure: id and times come from the observation."""
    earlier = f.operation if f.operation is not None and f.operation.to == f.desired.shards else None
    tuning = f.desired.tuning
    # The call may take effect until it is given up; only an answer says when the restart began.
    deadline = f.snapshot.now + tuning.call_timeout + f.desired.restart_timeout
    return Operation(
        id=f"{f.desired.shards}-{f.snapshot.nonce}",
        origin=f.shards,
        to=f.desired.shards,
        leader_epoch=f.snapshot.leader_epoch,
        started_at=f.snapshot.now,
        deadline=deadline,
        settle_by=deadline + tuning.settle_grace,
        attempts=earlier.attempts + 1 if earlier is not None and earlier.answer is Answer.BUSY else 1,
        fingerprint=f.snapshot.account.certificate.fingerprint if f.snapshot.account and f.snapshot.account.certificate else None,
        uid=f.desired.uid,
    )


def _answered(desired: Desired, snapshot: Snapshot, operation: Operation, call: Call) -> Record:
    """Return the record with the result of this process's own call."""
    record = snapshot.record
    if call.not_sent:
        return replace(record, operation=None)
    if call.rejection is not None and (noted := _rejected(desired, snapshot, call)):
        return replace(record, operation=None, **noted)
    if call.answer is None or operation.answer is not Answer.NONE:
        return record
    deadline = snapshot.now + desired.restart_timeout if call.answer is Answer.ACCEPTED else operation.deadline
    # A call without a certificate that was rejected for an unknown reason is retried as if busy: there is no edit to wait for.
    answer = Answer.BUSY if call.answer is Answer.REJECTED else call.answer
    # Like the intent's other times, this one counts from when the intent was noted; status keeps whole seconds.
    asked = call.retry_after if answer is Answer.BUSY else None
    retry_after = timedelta(seconds=ceil((snapshot.now - operation.started_at + asked).total_seconds())) if asked else None
    return replace(record, operation=replace(operation, answer=answer, deadline=deadline, retry_after=retry_after))


def _rejected(desired: Desired, snapshot: Snapshot, call: Call) -> dict[str, Any]:
    """Return what is remembered of a rejection, so that the same is not sent again; empty if nothing is known to be wrong."""
    version = call.secret_version or objections.account_version(desired, None)
    match call.rejection:
        case Rejection.BANNED:
            return {"banned_at": snapshot.wall or snapshot.now}
        case Rejection.REGISTRATION_CLOSED:
            return {"registration_closed_for": version}
        case Rejection.CLIENT_EXPIRED:
            return {"expired_build": objections.build(Facts(desired, snapshot, snapshot.record))}
        case Rejection.PIN:
            return {"rejected_pin": call.pin_digest or objections.NO_PIN}
    is_of_certificate = call.rejection in {Rejection.CERTIFICATE, Rejection.CERTIFICATE_PARAMETER} and desired.account is not None
    fingerprint = call.fingerprint or (NO_CERTIFICATE if is_of_certificate else None)
    if fingerprint is None:
        return {}
    logged_off = {"logged_off_at": snapshot.wall or snapshot.now} if call.rejection is Rejection.CERTIFICATE else {}
    return {**_with_rejected(snapshot.record, fingerprint), "rejected_because": call.detail[:300] or None, **logged_off}


def _with_rejected(record: Record, fingerprint: str) -> dict[str, Any]:
    """Return the certificates that were rejected, with this one as the last: none of them is sent again (laws#8)."""
    before = (record.rejected_fingerprint, *record.rejected_before)
    others = tuple(one for one in before if one is not None and one != fingerprint)
    return {"rejected_fingerprint": fingerprint, "rejected_before": others[:MOST_REJECTED]}


def _settled_by_get(f: Facts, operation: Operation) -> Record:
    """Return the record; GET settles the call if it reports the call's number, or still another one after ``settle_by``.

    The number says nothing about a call that logs the client on: there, the Coreapps' connections decide.
    """
    desired, snapshot, record = f.desired, f.snapshot, f.record
    asked, shards = snapshot.client.asked_at, snapshot.client.shards
    if asked is None or shards is None or asked <= operation.started_at or operation.answer is Answer.NONE:
        return record
    if shards == operation.to and (not operation.logs_on or f.has_stayed_connected):
        deadline = operation.deadline
        if operation.answer is Answer.UNKNOWN:
            # It is unknown when the call took effect. It may have been just now, so the restart gets its full time.
            deadline = max(deadline, snapshot.now + desired.restart_timeout)
        return replace(record, operation=replace(operation, answer=Answer.ACCEPTED, deadline=deadline))
    if asked <= operation.settle_by or operation.answer is Answer.BUSY or (operation.logs_on and operation.answer is Answer.ACCEPTED):
        return record
    record = replace(record, operation=None)
    if operation.fingerprint is None or not f.has_stayed_cut_off:
        return record
    # The process that made the call died before it could note the rejection; the rejected certificate must not be sent again (laws#8).
    because = "no answer is known, but since then no Coreapp has a connection"
    logged_off_at = record.logged_off_at or f.wall
    return replace(record, **_with_rejected(record, operation.fingerprint), rejected_because=because, logged_off_at=logged_off_at)


def _heard(desired: Desired, snapshot: Snapshot) -> Record:
    """Return the record with the noted call as it stands after the newest answer.

    An intent without an answer and without a call of this process was noted by a leader that is gone: its call is unknown (laws#6).
    An unknown one is settled when GET reports its number, or when GET still differs after ``settle_by`` (laws#4).
    """
    record, call = snapshot.record, snapshot.client.call
    if record.operation is not None and call is not None and call.id == record.operation.id:
        if record.operation.answer in {Answer.NONE, Answer.UNKNOWN}:  # a definite answer stays
            record = _answered(desired, snapshot, record.operation, call)
    elif record.operation is not None and record.operation.answer is Answer.NONE:
        record = replace(record, operation=replace(record.operation, answer=Answer.UNKNOWN))
    if record.operation is not None:
        record = _settled_by_get(Facts(desired, snapshot, record), record.operation)
    return replace(record, settled_shards=None) if snapshot.account_is_new else record


def judge(desired: Desired, snapshot: Snapshot) -> Record:
    """Return the record after this observation: as it was read, with everything that the observation adds. Pure."""
    record = _heard(desired, snapshot)
    f = Facts(desired, snapshot, record)
    operation = record.operation
    is_accepted = operation is not None and operation.answer is Answer.ACCEPTED
    if is_accepted or f.has_stayed_connected:
        record = replace(record, logged_off_at=None)
    if is_accepted:
        # The account has what it asks for now. What it asks for later is another matter: two-step verification can be switched off.
        record = replace(record, rejected_pin=None)
    if operation is not None:
        if operation.answer is Answer.BUSY and operation.to != desired.shards and not (f.must_hold_off and f.shards != desired.shards):
            record = replace(record, operation=None)
        elif is_accepted and f.shards == operation.to and f.enough_are_back and not f.missing:
            # The very first number is settled below, once the cluster is set up as well.
            record = replace(record, operation=None, settled_shards=None if f.settled_shards is None else operation.to)
        elif f.restart_is_overdue:
            # The number is final although Coreapps are missing; otherwise the next change of the spec would count as drift.
            record = replace(record, settled_shards=operation.to)
    f = Facts(desired, snapshot, record)
    is_reached = f.is_settled and not f.missing and f.shards_are_fresh and (f.settled_shards is not None or _is_set_up(f))
    return replace(record, settled_shards=f.shards) if is_reached else record


def _is_set_up(f: Facts) -> bool:
    """Whether a new cluster serves all its shards, with its spares if they come in time. Until then nothing missing counts as lost."""
    is_served = len(f.routes) == f.shards and all(map(f.is_served, f.routes))
    return is_served and (len(f.ready) >= f.spec_replicas or f.has_held_for("LacksCoreapps", f.desired.restart_timeout))
