"""The record as it stands in status, field by field: a release must read what another one wrote."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from whatsapp_operator.core import record
from whatsapp_operator.core.snapshot import Answer, Operation, Record

from .situations import NOW, seconds

UID = "cluster-uid"
OPERATION = Operation(
    id="4-x",
    origin=2,
    to=4,
    leader_epoch=7,
    started_at=NOW + timedelta(milliseconds=1),
    settle_by=NOW + timedelta(milliseconds=2),
    deadline=NOW + timedelta(milliseconds=3),
    attempts=3,
    answer=Answer.BUSY,
    fingerprint="ab",
    retry_after=seconds(90.9),
    uid=UID,
)
WRITTEN = {
    "id": "4-x",
    "from": 2,
    "to": 4,
    "leaderEpoch": 7,
    "attempts": 3,
    "answer": "Busy",
    "startedAt": "2027-01-04T12:00:00.001Z",
    "settleBy": "2027-01-04T12:00:00.002Z",
    "deadline": "2027-01-04T12:00:00.003Z",
    "fingerprint": "ab",
    "retryAfterSeconds": 90,
    "uid": UID,
}


def read(entry: dict[str, Any], **status: Any) -> Operation | None:
    return record.read({"uid": UID, **status, "operation": entry}, uid=UID).operation


def test_a_record_is_written_under_the_names_of_the_CRD() -> None:  # noqa: N802
    full = Record(
        uid=UID,
        operation=OPERATION,
        settled_shards=2,
        rejected_fingerprint="fp",
        rejected_before=("older", "oldest"),
        rejected_because="why",
        logged_off_at=NOW,
        rejected_pin="7",
        banned_at=NOW,
        expired_build="v2 w:2",
        registration_closed_for="8",
    )
    status = {
        "uid": UID,
        "operation": WRITTEN,
        "settledShards": 2,
        "bannedAt": "2027-01-04T12:00:00.000Z",
        "expiredBuild": "v2 w:2",
        "registrationClosedFor": "8",
        "certificate": {
            "serial": "42",
            "refusedFingerprint": "fp",
            "refusedBefore": ["older", "oldest"],
            "refusedBecause": "why",
            "loggedOffAt": "2027-01-04T12:00:00.000Z",
            "refusedPin": "7",
        },
        "message": "kept",
    }

    assert record.put({"message": "kept", "certificate": {"serial": "42"}}, full) == status
    assert record.read(status, uid=UID) == replace(full, operation=replace(OPERATION, retry_after=seconds(90)))
    assert record.put(status, Record(uid=UID)) == {"uid": UID, "certificate": {"serial": "42"}, "message": "kept"}
    assert record.put({"uid": "another", "certificate": {"refusedBecause": "why"}}, Record()) == {}


def test_an_empty_status_is_an_empty_record_of_ours() -> None:
    assert record.read({}, uid=UID) == Record(uid=UID)
    assert record.read({"certificate": None, "operation": None}, uid=UID) == Record(uid=UID)
    assert record.read({"operation": {}}, uid=UID).operation is None


def test_an_intent_that_says_little_is_noted_and_unanswered_and_settles_late() -> None:
    """No matter who cut it short: nothing is sent before it is settled (laws#6)."""
    assert read({"id": 5, "to": "4"}) == Operation(
        id="5",
        to=4,
        leader_epoch=0,
        started_at=datetime(1970, 1, 1, tzinfo=UTC),
        settle_by=datetime(2070, 1, 1, tzinfo=UTC),
        deadline=datetime(1970, 1, 1, tzinfo=UTC),
        attempts=1,
        answer=Answer.NONE,
    )
    begun = read({"id": "x", "to": 4, "startedAt": "2027-01-04T12:00:00Z", "settleBy": "never", "deadline": "soon"})
    assert begun is not None
    assert (begun.started_at, begun.deadline, begun.settle_by.year) == (NOW, NOW, 2070)


@pytest.mark.parametrize("field", [key for key in WRITTEN if key not in {"id", "to"}])
def test_an_intent_is_read_field_by_field(field: str) -> None:
    """One that is missing leaves all others as they are."""
    left = read({key: value for key, value in WRITTEN.items() if key != field})
    whole = read(WRITTEN)

    assert left is not None
    assert whole is not None
    differing = {name for name in Operation.__slots__ if getattr(left, name) != getattr(whole, name)}
    named = {
        "from": "origin",
        "leaderEpoch": "leader_epoch",
        "startedAt": "started_at",
        "settleBy": "settle_by",
        "retryAfterSeconds": "retry_after",
    }
    assert differing == {named.get(field, field)}


@pytest.mark.parametrize(
    ("status_uid", "intent_uid", "is_ours"),
    [(UID, UID, True), (UID, None, True), (None, UID, True), (None, None, True), ("x", UID, False), (UID, "x", False), (None, "x", False)],
)
def test_what_is_ours_says_so_or_says_nothing(status_uid: str | None, intent_uid: str | None, is_ours: bool) -> None:
    entry = record.without_none({**WRITTEN, "uid": intent_uid})
    found = record.read(record.without_none({"uid": status_uid, "operation": entry, "settledShards": 2}), uid=UID)

    assert (found.operation is not None) is is_ours
    assert found.settled_shards == (2 if is_ours else None)


@pytest.mark.parametrize(
    ("stored", "lost"),
    [
        ({"operation": WRITTEN}, ()),
        ({"operation": {**WRITTEN, "deadline": "later"}}, ("deadline",)),
        ({"operation": {key: value for key, value in WRITTEN.items() if key not in {"fingerprint", "uid"}}}, ("fingerprint", "uid")),
        ({"operation": None}, tuple(WRITTEN)),
        ({}, tuple(WRITTEN)),
    ],
)
def test_what_the_API_server_did_not_keep_of_an_intent_is_named(stored: dict[str, Any], lost: tuple[str, ...]) -> None:  # noqa: N802
    assert set(record.not_kept(OPERATION, stored)) == set(lost)


def test_what_is_not_known_is_not_written() -> None:
    bare = replace(OPERATION, origin=None, fingerprint=None, retry_after=None, uid=None)
    written = record.put({}, Record(operation=bare))["operation"]

    assert written.keys() == WRITTEN.keys() - {"from", "fingerprint", "retryAfterSeconds", "uid"}
    assert record.put({}, Record(operation=replace(bare, retry_after=seconds(0))))["operation"]["retryAfterSeconds"] == 0
    assert read(written) == bare
