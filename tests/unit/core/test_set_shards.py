"""One call of Set Shards, part by part: may it be made, what is noted, and what each answer makes of the record."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from whatsapp_operator.core import set_shards
from whatsapp_operator.core.actions import BumpVersion, SetShards
from whatsapp_operator.core.certificate import NO_CERTIFICATE
from whatsapp_operator.core.desired import Images
from whatsapp_operator.core.snapshot import Answer, Call, Operation, Record, Rejection, Report
from whatsapp_operator.core.windows import Window

from .situations import FINGERPRINT, NONCE, NOW, Situation, seconds, situation
from .test_logged_off import gateways
from .witnesses import NIGHT, back, growing, restarting

SENSELESS = Window(name="night", schedule="61 3 * * *", duration=timedelta(hours=1))


def judged(one: Situation) -> Record:
    return set_shards.judge(one.desired, one.snapshot)


def noted(one: Situation) -> Operation:
    """The intent that was read."""
    assert one.snapshot.record.operation is not None
    return one.snapshot.record.operation


def kept(one: Situation) -> Operation:
    """The intent as it is judged."""
    operation = judged(one).operation
    assert operation is not None
    return operation


# --- may it be called


@pytest.mark.parametrize(
    "one",
    [
        growing(),
        growing().with_pod(4, ready=False),
        growing().replicas(4),
        growing().client(asked_at=NOW - seconds(5)),
        growing().client(call=Call(id="4-x", answer=Answer.UNKNOWN)),
        growing().client(call=Call(id="4-x", not_sent=True)),
        growing().wanting(windows=(NIGHT,), reshard_now=4),
        growing().with_account(),
    ],
    ids=["due", "one for each shard", "as many replicas as shards", "asked 5 s ago", "answered", "not sent", "now", "account"],
)
def test_it_may_be_called(one: Situation) -> None:
    assert set_shards.may_call(one.facts())


@pytest.mark.parametrize(
    "one",
    [
        growing().wanting(shards=2),
        growing().wanting(shards=3),
        growing().with_pod(4, ready=False).with_pod(3, ready=False),
        growing().replicas(3),
        growing().client(asked_at=NOW - seconds(5.001)),
        growing().client(asked_at=NOW - seconds(1)).with_pod(4, broken_at=NOW),
        growing().seeing(banned_at=NOW),
        growing().with_account().seeing(account=None),
        growing().wanting(windows=(NIGHT,)),
        growing().wanting(windows=(SENSELESS,), reshard_now=4),
        growing().client(call=Call(id="4-x")),
        growing().noted(4, Answer.UNKNOWN),
    ],
    ids=[
        *("reached", "no power", "not ready", "few replicas", "stale", "older than a lost connection", "banned", "unread", "shut"),
        *("senseless window", "calling", "unknown"),
    ],
)
def test_each_part_of_the_law_alone_forbids_the_call(one: Situation) -> None:
    assert not set_shards.may_call(one.facts())


@pytest.mark.parametrize(
    ("call", "runs"),
    [(None, False), (Call(id="x"), True), (Call(id="x", answer=Answer.BUSY), False), (Call(id="x", not_sent=True), False)],
)
def test_a_call_runs_until_it_has_an_answer_or_was_not_sent(call: Call | None, runs: bool) -> None:
    assert set_shards.is_calling(growing().client(call=call).facts()) is runs


# --- what is called, and noted


def test_a_lowering_that_may_still_land_is_voided_first() -> None:
    one = growing().seeing(anchored_for=2)
    (bump,) = set_shards.call_for(one.facts())

    assert isinstance(bump, BumpVersion)
    assert (bump.ref.kind, bump.ref.name) == ("StatefulSet", "acme-coreapp")
    assert (bump.resource_version, bump.shards, bump.nonce) == ("9", 4, NONCE)
    assert isinstance(set_shards.call_for(one.seeing(statefulset=None).facts())[0], SetShards)
    assert isinstance(set_shards.call_for(growing().facts())[0], SetShards)


@pytest.mark.parametrize(
    ("one", "attempts"),
    [
        (growing(), 1),
        (growing().noted(4, Answer.BUSY, attempts=3), 4),
        (growing().noted(4, Answer.ACCEPTED, attempts=3), 1),
        (growing().noted(8, Answer.BUSY, attempts=3, retry_after=seconds(60)), 1),
    ],
)
def test_attempts_are_counted_while_the_client_is_busy_with_the_same_number(one: Situation, attempts: int) -> None:
    assert set_shards.next_operation(one.facts()).attempts == attempts


def test_the_intent_says_which_certificate_goes_along() -> None:
    assert set_shards.next_operation(growing().with_account().facts()).fingerprint == FINGERPRINT
    assert set_shards.next_operation(growing().with_account(certificate=None).facts()).fingerprint is None
    assert set_shards.next_operation(growing().facts()).fingerprint is None


# --- the answer of this process's own call


def test_a_call_that_was_not_sent_leaves_no_intent() -> None:
    assert judged(growing().calling(4, not_sent=True)).operation is None


def test_a_call_without_an_answer_leaves_the_intent_as_it_is() -> None:
    one = growing().calling(4)

    assert kept(one) == noted(one)


def test_a_call_for_another_intent_says_nothing_of_this_one() -> None:
    one = growing().noted(4, Answer.BUSY).client(call=Call(id="another", answer=Answer.ACCEPTED))
    assert kept(one).answer is Answer.BUSY
    assert kept(growing().noted(4).client(call=Call(id="another", answer=Answer.ACCEPTED))).answer is Answer.UNKNOWN


def test_a_definite_answer_that_was_noted_stays() -> None:
    """There is one for each call. What contradicts it, or comes after it, is no reason to send the call again."""
    rejected = Call(id="4-noted", answer=Answer.REJECTED, rejection=Rejection.CERTIFICATE, fingerprint="ab" * 32)
    one = growing().noted(4, Answer.ACCEPTED).client(call=rejected)
    assert kept(one).answer is Answer.ACCEPTED
    unknown = growing().noted(4, Answer.UNKNOWN).client(call=rejected)
    assert unknown.plan().record.rejected_fingerprint == "ab" * 32, "unknown is not definite: another leader had not heard it"


def test_a_rejection_is_heard_although_the_answer_was_noted_as_unknown() -> None:
    """Otherwise the same certificate would be sent again (laws#8)."""
    rejected = Call(id="4-noted", answer=Answer.REJECTED, rejection=Rejection.CERTIFICATE, fingerprint="ab" * 32)
    record = growing().noted(4, Answer.UNKNOWN).client(call=rejected).plan().record

    assert (record.operation, record.rejected_fingerprint) == (None, "ab" * 32)


@pytest.mark.parametrize("answer", [Answer.ACCEPTED, Answer.BUSY])
def test_what_was_noted_as_unknown_is_settled_by_get_and_by_no_later_answer(answer: Answer) -> None:
    """Another process that believed to lead noted it, and may go by it."""
    one = growing().noted(4, Answer.UNKNOWN).client(call=Call(id="4-noted", answer=answer))
    assert kept(one) == noted(one)


def test_an_answer_that_was_noted_is_not_judged_again() -> None:
    """Its times count from the moment at which it was first heard."""
    one = growing().calling(4, Answer.ACCEPTED).seeing(operation=replace(noted(growing().noted(4)), answer=Answer.ACCEPTED))
    assert kept(one).deadline == noted(one).deadline
    busy = growing().calling(4, Answer.BUSY, retry_after=seconds(60))
    assert kept(busy.seeing(operation=replace(noted(busy), answer=Answer.BUSY, retry_after=seconds(5)))).retry_after == seconds(5)


@pytest.mark.parametrize(
    ("answer", "becomes", "has_new_deadline"),
    [
        (Answer.ACCEPTED, Answer.ACCEPTED, True),
        (Answer.BUSY, Answer.BUSY, False),
        (Answer.UNKNOWN, Answer.UNKNOWN, False),
        (Answer.REJECTED, Answer.BUSY, False),
    ],
)
def test_an_accepted_call_begins_the_restart_and_an_unexplained_refusal_is_like_a_busy_server(
    answer: Answer, becomes: Answer, has_new_deadline: bool
) -> None:
    one = growing().calling(4, answer)

    assert kept(one).answer is becomes
    assert kept(one).deadline == (NOW + seconds(180) if has_new_deadline else noted(one).deadline)


@pytest.mark.parametrize(
    ("answer", "asked", "after"),
    [
        (Answer.BUSY, 30, 31),
        (Answer.BUSY, 29.2, 31),
        (Answer.BUSY, 0, None),
        (Answer.BUSY, None, None),
        (Answer.REJECTED, 30, 31),
        (Answer.ACCEPTED, 30, None),
        (Answer.UNKNOWN, 30, None),
    ],
)
def test_a_busy_clients_pause_is_kept_from_the_intents_note_in_whole_seconds(
    answer: Answer, asked: float | None, after: int | None
) -> None:
    one = growing().calling(4, answer, retry_after=None if asked is None else seconds(asked))

    assert kept(one).retry_after == (None if after is None else seconds(after)), "the call was noted a second ago"


# --- what is remembered of a rejection

VERSIONED = {"secret_version": "70", "pin_digest": "pin-1", "fingerprint": FINGERPRINT}


@pytest.mark.parametrize(
    ("rejection", "remembered"),
    [
        (Rejection.BANNED, {"banned_at": NOW}),
        (Rejection.REGISTRATION_CLOSED, {"registration_closed_for": "70"}),
        (Rejection.PIN, {"rejected_pin": "pin-1"}),
        (Rejection.CLIENT_EXPIRED, {"expired_build": "v2.53.4 whatsapp-operator/wabiz-sim:dev"}),
        (Rejection.CERTIFICATE, {"rejected_fingerprint": FINGERPRINT, "rejected_because": "why", "logged_off_at": NOW}),
        (Rejection.CERTIFICATE_PARAMETER, {"rejected_fingerprint": FINGERPRINT, "rejected_because": "why"}),
        (Rejection.OTHER, {"rejected_fingerprint": FINGERPRINT, "rejected_because": "why"}),
    ],
)
def test_each_refusal_is_remembered_by_what_must_change_before_the_next_call(rejection: Rejection, remembered: dict[str, Any]) -> None:
    one = growing().with_account().calling(4, Answer.REJECTED, rejection=rejection, detail="why", **VERSIONED)

    assert judged(one) == replace(one.snapshot.record, operation=None, **remembered)


@pytest.mark.parametrize(
    ("rejection", "field", "value"),
    [(Rejection.REGISTRATION_CLOSED, "registration_closed_for", "generation-3"), (Rejection.PIN, "rejected_pin", "none")],
)
def test_without_a_secret_it_is_the_generation_of_the_spec_or_that_there_was_no_pin(rejection: Rejection, field: str, value: str) -> None:
    one = growing().with_account().calling(4, Answer.REJECTED, rejection=rejection)

    assert getattr(judged(one), field) == value


def test_the_build_that_expired_is_named_by_its_images() -> None:
    one = growing().wanting(images=Images(coreapp="c:1", webapp="w:1")).calling(4, Answer.REJECTED, rejection=Rejection.CLIENT_EXPIRED)

    assert judged(one).expired_build == "v2.53.4 w:1 c:1"
    assert judged(one.client(version=None)).expired_build == "? w:1 c:1"


@pytest.mark.parametrize(
    ("rejection", "has_account", "fingerprint"),
    [
        (Rejection.CERTIFICATE, True, NO_CERTIFICATE),
        (Rejection.CERTIFICATE_PARAMETER, True, NO_CERTIFICATE),
        (Rejection.OTHER, True, None),
        (Rejection.CERTIFICATE, False, None),
    ],
)
def test_a_refusal_of_a_call_without_a_certificate(rejection: Rejection, has_account: bool, fingerprint: str | None) -> None:
    one = growing().with_account() if has_account else growing()
    record = judged(one.calling(4, Answer.REJECTED, rejection=rejection))

    assert record.rejected_fingerprint == fingerprint
    assert (record.operation is None) == (fingerprint is not None), "if nothing is known to be wrong, it is tried again like a busy server"


def test_what_the_client_said_is_kept_up_to_300_letters_and_by_the_wall_clock() -> None:
    wall = NOW + timedelta(hours=1)
    one = growing().with_account().calling(4, Answer.REJECTED, rejection=Rejection.CERTIFICATE, fingerprint=FINGERPRINT, detail="x" * 301)

    assert judged(one).rejected_because == "x" * 300
    assert judged(one.seeing(wall=wall)).logged_off_at == wall
    assert judged(one.client(call=replace(one.snapshot.client.call, detail=""))).rejected_because is None  # type: ignore[type-var]


# --- what GET settles


@pytest.mark.parametrize(
    ("answer", "becomes"), [(Answer.UNKNOWN, Answer.ACCEPTED), (Answer.BUSY, Answer.ACCEPTED), (Answer.NONE, Answer.ACCEPTED)]
)
def test_a_number_that_GET_reports_after_the_note_is_accepted(answer: Answer, becomes: Answer) -> None:  # noqa: N802
    one = growing().noted(4, answer).reporting(4)

    assert kept(one).answer is becomes


def test_a_running_call_is_not_settled_by_a_number() -> None:
    """It may still be rejected, and its answer says for what."""
    assert kept(growing().calling(4).reporting(4)).answer is Answer.NONE


@pytest.mark.parametrize(
    "client", [{"asked_at": None, "shards": 4}, {"asked_at": NOW, "shards": None}, {"asked_at": NOW - seconds(1), "shards": 4}]
)
def test_what_was_not_asked_after_the_note_settles_nothing(client: dict[str, object]) -> None:
    assert kept(growing().noted(4, Answer.UNKNOWN).client(**client)).answer is Answer.UNKNOWN


def test_a_call_that_took_effect_unseen_has_its_whole_time_for_the_restart() -> None:
    unknown = growing().noted(4, Answer.UNKNOWN, deadline=NOW + seconds(10)).reporting(4)
    assert kept(unknown).deadline == NOW + seconds(180)
    assert kept(growing().noted(4, Answer.UNKNOWN, deadline=NOW + seconds(999)).reporting(4)).deadline == NOW + seconds(999)
    assert kept(growing().noted(4, Answer.BUSY, deadline=NOW + seconds(10)).reporting(4)).deadline == NOW + seconds(10)


def overdue(answer: Answer, seconds_late: float, **changes: object) -> Situation:
    """GET still reports the old number, so long after ``settle_by``."""
    one = growing().noted(4, answer, **changes)
    at = noted(one).settle_by + seconds(seconds_late)
    return one.seeing(now=at).client(asked_at=at)


def test_another_number_settles_after_settle_by_and_not_at_it() -> None:
    assert kept(overdue(Answer.UNKNOWN, 0)).answer is Answer.UNKNOWN
    assert judged(overdue(Answer.UNKNOWN, 0.001)).operation is None
    assert judged(overdue(Answer.ACCEPTED, 0.001)).operation is None


def test_a_busy_servers_call_is_tried_again_and_not_settled_by_time() -> None:
    assert kept(overdue(Answer.BUSY, 60)).answer is Answer.BUSY


def test_a_call_that_logs_on_and_was_accepted_waits_for_the_connection_however_long() -> None:
    one = growing().noted(2, Answer.ACCEPTED, origin=2).seeing(logged_off_at=NOW - seconds(60)).restarted(2, [])
    late = one.seeing(now=NOW + timedelta(hours=9)).client(asked_at=NOW + timedelta(hours=9), shards=4)

    assert kept(late).answer is Answer.ACCEPTED


@pytest.mark.parametrize(("held", "fingerprint", "rejected"), [(5, FINGERPRINT, True), (4.9, FINGERPRINT, False), (5, None, False)])
def test_where_every_connection_is_gone_since_the_certificate_counts_as_refused(
    held: float, fingerprint: str | None, rejected: bool
) -> None:
    one = gateways(overdue(Answer.UNKNOWN, 1, fingerprint=fingerprint), "disconnected")
    one = one.seeing(since={"CutOff": one.snapshot.now - seconds(held)}, wall=NOW + timedelta(days=1))
    record = judged(one)

    assert record.operation is None
    assert record.rejected_fingerprint == (FINGERPRINT if rejected else None)
    assert (record.rejected_because or "").startswith("no answer is known") is rejected
    assert record.logged_off_at == (NOW + timedelta(days=1) if rejected else None)
    if rejected:
        assert judged(one.seeing(logged_off_at=NOW)).logged_off_at == NOW, "the first rejection is the one that did it"


def test_an_account_that_is_new_has_no_number_that_was_settled() -> None:
    one = situation().settled().reporting(1)

    assert judged(one).settled_shards == 2
    assert judged(one.seeing(account_is_new=True)).settled_shards is None


# --- when a change is done


def test_it_is_done_when_all_are_back_and_then_the_number_is_settled() -> None:
    record = judged(back())

    assert (record.operation, record.settled_shards) == (None, 4)
    assert judged(back().seeing(settled_shards=None)).operation is None


@pytest.mark.parametrize("one", [back().with_pod(4, report=None), back().reporting(2), restarting(), back().all_pods(ready=False)])
def test_it_is_not_done_while_any_is_missing_or_the_number_is_another(one: Situation) -> None:
    assert judged(one).operation is not None
    assert judged(one).settled_shards == one.snapshot.record.settled_shards


def test_a_restart_that_is_overdue_settles_the_number_and_goes_on_waiting() -> None:
    one = restarting().seeing(settled_shards=2)

    assert judged(one.later(178.9)).settled_shards == 2
    late = judged(one.later(179))
    assert (late.settled_shards, late.operation is not None) == (4, True), "the next request is no drift"


def test_a_busy_call_that_nobody_wants_any_more_is_forgotten_unless_the_client_asked_for_a_pause() -> None:
    busy = growing().noted(4, Answer.BUSY, retry_after=seconds(60))

    assert judged(busy.wanting(shards=8)).operation is not None
    assert judged(busy.wanting(shards=2)).operation is None, "nothing is to be called any more"
    assert judged(busy.wanting(shards=8).later(60)).operation is None
    assert judged(growing().noted(4, Answer.BUSY).wanting(shards=8)).operation is None
    assert judged(growing().noted(4, Answer.BUSY)).operation is not None


def disconnected(one: Situation) -> Situation:
    return one.seeing(logged_off_at=NOW - seconds(60))


def test_logged_off_ends_by_an_accepted_call_or_by_a_connection_that_lasts() -> None:
    one = disconnected(situation().settled())

    assert judged(one).logged_off_at is not None
    assert judged(one.seeing(since={"Connected": NOW - seconds(4.9)})).logged_off_at is not None
    assert judged(one.seeing(since={"Connected": NOW - seconds(5)})).logged_off_at is None
    assert judged(disconnected(growing()).noted(4, Answer.ACCEPTED)).logged_off_at is None
    assert judged(disconnected(growing()).noted(4, Answer.BUSY)).logged_off_at is not None


@pytest.mark.parametrize(("held", "under_way"), [(0, True), (4.9, True), (5, False)])
def test_a_call_that_logs_on_is_done_once_the_connections_have_lasted(held: float, under_way: bool) -> None:
    """All are back with the number that they had before. That alone does not say that the call was accepted."""
    one = disconnected(situation().settled()).noted(2, Answer.UNKNOWN, origin=2)
    record = judged(one.seeing(since={"Connected": NOW - seconds(held)}))

    assert (record.operation is not None) is under_way
    assert (record.logged_off_at is not None) is under_way


def test_an_intent_names_the_cluster_and_the_times_until_which_it_may_take_effect() -> None:
    intent = set_shards.next_operation(growing().facts())

    assert (intent.uid, intent.origin, intent.to) == ("cluster-uid", 2, 4)
    assert intent.started_at == NOW
    assert intent.deadline == NOW + timedelta(minutes=4), "until the call is over its restart may begin"
    assert intent.settle_by == NOW + timedelta(minutes=14), "a minute for the call, three for the restart, ten to be sure"


# --- the first number


def new(**changes: object) -> Situation:
    """A cluster of two shards whose first number is not settled yet."""
    return situation().settled().seeing(settled_shards=None, **changes)


@pytest.mark.parametrize(
    "one",
    [
        new(),
        new(since={"LacksCoreapps": NOW - seconds(180)}).with_pod(2, ready=False),
        new().with_pod(2, ready=False).with_pod(3),
    ],
    ids=["all", "without spares for long", "another spare"],
)
def test_the_first_number_is_settled_when_every_shard_is_served(one: Situation) -> None:
    assert judged(one).settled_shards == 2


@pytest.mark.parametrize(
    "one",
    [
        new().without_route(1),
        new().with_holder(1, ready=False, report=None).with_pods([3]),
        new().with_pod(2, ready=False),
        new(since={"LacksCoreapps": NOW - seconds(179)}).with_pod(2, ready=False),
        new().with_pod(2, report=Report(shards=1)),
        new().client(asked_at=NOW - seconds(6)),
        new().wanting(shards=4),
    ],
    ids=["a shard without Service", "a shard without holder", "no spare", "not for long", "a Coreapp of another number", "stale", "wanted"],
)
def test_the_first_number_is_not_settled_before(one: Situation) -> None:
    assert judged(one).settled_shards is None


def test_a_number_that_was_settled_follows_the_client_back_to_what_is_wanted() -> None:
    one = situation().settled().seeing(settled_shards=1)

    assert judged(one).settled_shards == 2
    assert judged(one.client(asked_at=NOW - seconds(6))).settled_shards == 1
    assert judged(one.with_pod(2, report=Report(shards=1))).settled_shards == 1
    assert judged(one.with_holder(0, ready=False)).settled_shards == 2, "once set up, a shard without service is a failure and no beginning"


def test_once_a_call_is_accepted_no_pin_is_held_to_be_wrong() -> None:
    """A PIN was asked for and given; then the account's two-step verification was switched off, and the key removed again."""
    one = growing().with_account().seeing(rejected_pin="pin-1")

    assert judged(one.noted(4)).rejected_pin == "pin-1"
    assert judged(one.noted(4, Answer.BUSY)).rejected_pin == "pin-1"
    assert judged(one.noted(4, Answer.ACCEPTED)).rejected_pin is None
