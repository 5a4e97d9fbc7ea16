"""The remembered part of status. Only this module reads and writes it. What was written is read back exactly."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from .manifests import exact_timestamp, moment
from .names import Obj
from .snapshot import Answer, Operation, Record

FIELDS = ("uid", "operation", "settledShards", "bannedAt", "expiredBuild", "registrationClosedFor")
"""Fields of status that are the record's alone."""
CERTIFICATE_FIELDS = ("refusedFingerprint", "refusedBefore", "refusedBecause", "loggedOffAt", "refusedPin")
"""The record's fields in ``status.certificate``."""
EARLY, LATE = datetime(1970, 1, 1, tzinfo=UTC), datetime(2070, 1, 1, tzinfo=UTC)


def read(status: Obj, *, uid: str) -> Record:
    """Return the record in the status of the cluster with this uid.

    A status that was restored from a backup belongs to another resource, as its uid shows. Its call in progress and number of shards are
    ignored. Facts about the account (a ban, rejections, a closed registration, logged off) and the build are used, because they hold for
    every cluster with them. A status without a uid is of a release that wrote none, and is used completely.
    """
    noted: Obj = status.get("certificate") or {}
    operation = _operation(status.get("operation"))
    is_ours = {status.get("uid"), operation.uid if operation else None} <= {uid, None}
    return Record(
        uid=uid,
        operation=operation if is_ours else None,
        settled_shards=status.get("settledShards") if is_ours else None,
        rejected_fingerprint=noted.get("refusedFingerprint"),
        rejected_before=tuple(noted.get("refusedBefore") or ()),
        rejected_because=noted.get("refusedBecause"),
        logged_off_at=_time(noted, "loggedOffAt"),
        rejected_pin=noted.get("refusedPin"),
        banned_at=_time(status, "bannedAt"),
        expired_build=status.get("expiredBuild"),
        registration_closed_for=status.get("registrationClosedFor"),
    )


def put(status: Obj, record: Record) -> dict[str, Any]:
    """Return a status whose record is replaced by this one."""
    others = {key: value for key, value in status.items() if key not in {*FIELDS, "certificate"}}
    shown = {key: value for key, value in (status.get("certificate") or {}).items() if key not in CERTIFICATE_FIELDS}
    noted = {
        "refusedFingerprint": record.rejected_fingerprint,
        "refusedBefore": list(record.rejected_before) or None,
        "refusedBecause": record.rejected_because,
        "loggedOffAt": _format_time(record.logged_off_at),
        "refusedPin": record.rejected_pin,
    }
    written = {
        "uid": record.uid,
        "operation": _entry(record.operation) if record.operation else None,
        "settledShards": record.settled_shards,
        "bannedAt": _format_time(record.banned_at),
        "expiredBuild": record.expired_build,
        "registrationClosedFor": record.registration_closed_for,
        "certificate": {**shown, **without_none(noted)} or None,
    }
    return {**others, **without_none(written)}


def not_kept(operation: Operation, stored: Obj) -> tuple[str, ...]:
    """Return the fields of an intent that the ``stored`` status lacks: the API server drops fields that its CRD does not name."""
    kept: Obj = stored.get("operation") or {}
    return tuple(key for key, value in _entry(operation).items() if kept.get(key) != value)


def without_none(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what has a value."""
    return {key: value for key, value in entry.items() if value is not None}


def _operation(entry: Obj | None) -> Operation | None:
    """Return the intent, if there is one. One that cannot be read counts as noted and unanswered."""
    if not entry:
        return None
    started = _time(entry, "startedAt")
    return Operation(
        id=str(entry["id"]),
        origin=entry.get("from"),
        to=int(entry["to"]),
        leader_epoch=int(entry.get("leaderEpoch", 0)),
        started_at=started or EARLY,
        settle_by=_time(entry, "settleBy") or LATE,
        deadline=_time(entry, "deadline") or started or EARLY,
        attempts=int(entry.get("attempts", 1)),
        answer=Answer(entry.get("answer", "None")),
        fingerprint=entry.get("fingerprint"),
        retry_after=timedelta(seconds=int(entry["retryAfterSeconds"])) if "retryAfterSeconds" in entry else None,
        uid=entry.get("uid"),
    )


def _entry(operation: Operation) -> dict[str, Any]:
    return without_none(
        {
            "id": operation.id,
            "from": operation.origin,
            "to": operation.to,
            "leaderEpoch": operation.leader_epoch,
            "attempts": operation.attempts,
            "answer": str(operation.answer),
            "startedAt": _format_time(operation.started_at),
            "deadline": _format_time(operation.deadline),
            "settleBy": _format_time(operation.settle_by),
            "fingerprint": operation.fingerprint,
            "retryAfterSeconds": int(operation.retry_after.total_seconds()) if operation.retry_after is not None else None,
            "uid": operation.uid,
        }
    )


def _format_time(at: datetime | None) -> str | None:
    """Spell a time to the millisecond: laws 4 and 6 compare them."""
    return exact_timestamp(at) if at is not None else None


def _time(entry: Obj, field: str) -> datetime | None:
    return moment(str(entry.get(field, "")))
