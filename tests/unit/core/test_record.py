"""What is remembered: what was written is read back, and the record of another resource is not taken for it."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsapp_operator.core import record, report, rules
from whatsapp_operator.core.report import EMITTED_AGAIN, Emitted
from whatsapp_operator.core.snapshot import Answer, Operation, Record, Rejection

from .random_situations import any_observations
from .situations import FINGERPRINT, NOW, Situation, merged, seconds, situation
from .test_laws import many
from .witnesses import growing

UID = "cluster-uid"
TIMES = st.integers(0, 10**9).map(lambda number: NOW + timedelta(milliseconds=number))
COUNTS = st.sampled_from([1, 2, 4, 8, 16, 32])
WORDS = st.text("abc0123456789-", min_size=1, max_size=20)
OPERATIONS = st.builds(
    Operation,
    id=WORDS,
    to=COUNTS,
    leader_epoch=st.integers(0, 10**6),
    started_at=TIMES,
    settle_by=TIMES,
    deadline=TIMES,
    origin=st.none() | COUNTS,
    attempts=st.integers(0, 1000),
    retry_after=st.none() | st.integers(0, 7200).map(lambda span: timedelta(seconds=span)),
    answer=st.sampled_from(Answer),
    fingerprint=st.none() | WORDS,
    uid=st.sampled_from([None, UID]),
)
RECORDS = st.builds(
    Record,
    uid=st.just(UID),
    operation=st.none() | OPERATIONS,
    settled_shards=st.none() | COUNTS,
    rejected_fingerprint=st.none() | WORDS,
    rejected_before=st.lists(WORDS, max_size=3).map(tuple),
    rejected_because=st.none() | WORDS,
    logged_off_at=st.none() | TIMES,
    rejected_pin=st.none() | WORDS,
    banned_at=st.none() | TIMES,
    expired_build=st.none() | WORDS,
    registration_closed_for=st.none() | WORDS,
)


@pytest.mark.slow
@many
@given(kept=RECORDS, then=RECORDS)
def test_what_is_put_into_a_status_is_read_back_whatever_stood_there(kept: Record, then: Record) -> None:
    before = record.put({"message": "kept", "certificate": {"serial": "42"}}, kept)
    stored = merged(before, report.patch(before, record.put(before, then)) or {})

    assert record.read(before, uid=UID) == kept
    assert record.read(stored, uid=UID) == then
    assert (stored["message"], stored["certificate"]["serial"]) == ("kept", "42")


@pytest.mark.slow
@many
@given(one=any_observations())
def test_what_is_reported_of_any_observation_is_what_is_read_back(one: Situation) -> None:
    made = rules.plan(one.desired, one.snapshot)

    assert record.read(report.report(rules.facts(one.desired, one.snapshot), made), uid=one.desired.uid) == made.record


def test_every_field_of_the_record_is_written_and_none_of_it_is_shown_elsewhere() -> None:
    operation = Operation(id="4-x", to=4, leader_epoch=1, started_at=NOW, settle_by=NOW, deadline=NOW, fingerprint="a", origin=2, uid=UID)
    operation = replace(operation, retry_after=timedelta(seconds=90))
    full = Record(
        uid=UID,
        operation=operation,
        settled_shards=2,
        rejected_fingerprint=FINGERPRINT,
        rejected_before=("cd" * 32,),
        rejected_because="why",
        logged_off_at=NOW,
        rejected_pin="7",
        banned_at=NOW,
        expired_build="v2 webapp:2",
        registration_closed_for="7",
    )

    assert all(getattr(full, field.name) not in {None, ()} for field in fields(Record))
    assert all(getattr(operation, field.name) is not None for field in fields(Operation))
    assert record.read(record.put({}, full), uid=UID) == full


def test_judging_changes_nothing_that_was_observed() -> None:
    one = growing().calling(4, Answer.REJECTED, rejection=Rejection.BANNED)

    assert one.facts().snapshot is one.snapshot
    assert (one.snapshot.record.banned_at, one.plan().record.banned_at) == (None, NOW)


# --- another life


@pytest.mark.parametrize("says", ["the intent", "the status", "both"])
def test_the_intent_and_the_number_of_another_resource_are_not_ours(says: str) -> None:
    stored = growing().noted(8).seeing(settled_shards=8).report()
    stored["operation"] = {**stored["operation"], **({} if says == "the status" else {"uid": "another"})}
    stored |= {} if says == "the intent" else {"uid": "another"}
    found = record.read(stored, uid=UID)

    assert (found.operation, found.settled_shards, found.uid) == (None, None, UID)


def test_what_another_resource_learned_of_the_account_holds() -> None:
    """A ban and a rejected certificate are the account's, whichever resource has it; sending again would do harm."""
    kept = Record(uid="another", rejected_fingerprint=FINGERPRINT, rejected_because="why", logged_off_at=NOW, banned_at=NOW)

    assert record.read(record.put({}, kept), uid=UID) == replace(kept, uid=UID)


def test_an_intent_that_names_no_resource_is_ours() -> None:
    """A former release wrote no uid: an upgrade in the middle of a call must not forget the call (law 6)."""
    noted = growing().noted(4, uid=None).snapshot.record.operation
    assert noted is not None
    stored = {key: value for key, value in record.put({}, Record(operation=noted, settled_shards=2)).items() if key != "uid"}

    assert record.read(stored, uid=UID) == Record(uid=UID, operation=noted, settled_shards=2)


# --- events


def said(before: Situation, after: Situation, emitted: dict[str, Emitted] | None = None, *, at: float = 0.0) -> dict[str, str]:
    events = report.events(before.report(), after.report(), emitted or {}, now=NOW + seconds(at))
    return {event.reason: event.message for event in events}


def refused(what: str) -> Situation:
    return (
        situation().settled().without_object("PodDisruptionBudget", "acme-coreapp").rejecting("PodDisruptionBudget", "acme-coreapp", what)
    )


def test_a_new_sentence_under_the_same_reason_is_emitted() -> None:
    assert said(refused("quota"), refused("quota")) == {}
    assert list(said(refused("quota"), refused("a webhook"))) == ["ObjectsRejected"]
    assert "a webhook" in said(refused("quota"), refused("a webhook"))["ObjectsRejected"]


@pytest.mark.slow
def test_a_sentence_that_changes_all_the_time_is_emitted_now_and_then() -> None:
    """A report every second for five minutes, each with another sentence: no flood of Events, and the last sentence is emitted."""
    emitted: dict[str, Emitted] = {}
    sentences: list[str] = []
    before = refused("0")
    for second in range(1, 331):
        after = refused(str(min(second, 300)))
        new = said(before, after, emitted, at=second)
        emitted |= {reason: Emitted(message, NOW + seconds(second)) for reason, message in new.items()}
        sentences += [message for reason, message in new.items() if reason == "ObjectsRejected"]
        before = after

    assert len(sentences) <= 330 / EMITTED_AGAIN.total_seconds() + 1
    assert sentences[-1].endswith(": 300")


def test_a_cluster_at_rest_tells_nothing_late() -> None:
    served = situation().settled()
    emitted = {"Serving": Emitted("All 2 shards are served, but no spare is left.", NOW)}

    assert said(served, served, emitted, at=60) == {}
