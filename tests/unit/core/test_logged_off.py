"""A rejected certificate logs the client off: it is said, remembered, and ended by an accepted Set Shards, also for the same number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from whatsapp_operator.core.actions import Plan, SetShards
from whatsapp_operator.core.certificate import CertificateFacts
from whatsapp_operator.core.snapshot import Answer, Rejection

from .situations import FINGERPRINT, NOW, Situation, seconds, situation
from .witnesses import NIGHT, growing

RIGHT = CertificateFacts(fingerprint="cd" * 32)
HELD = NOW - seconds(5)


def calls(plan: Plan) -> list[SetShards]:
    return [action for action in plan.actions if isinstance(action, SetShards)]


def gateways(one: Situation, status: str) -> Situation:
    """Every holder says this of its connection to WhatsApp."""
    for route in one.facts().routes:
        report = one.holder_of(route.shard).report
        assert report is not None
        one = one.with_holder(route.shard, report=replace(report, gateway=status))
    return one


def logged_off(**account: Any) -> Situation:
    """Two shards, as wanted, but a rejected certificate logged the client off a minute ago."""
    one = situation().settled().with_account(**account).wanting(spares=1)
    return gateways(one, "disconnected").seeing(rejected_fingerprint=FINGERPRINT, logged_off_at=NOW - seconds(60))


def test_a_refused_certificate_is_noted_with_its_reason_and_its_moment() -> None:
    one = (
        growing()
        .with_account()
        .calling(4, Answer.REJECTED, rejection=Rejection.CERTIFICATE, fingerprint=FINGERPRINT, detail="HTTP 400: why")
    )
    plan = one.plan()

    assert (plan.record.rejected_fingerprint, plan.record.rejected_because, plan.record.logged_off_at) == (
        FINGERPRINT,
        "HTTP 400: why",
        NOW,
    )
    assert "HTTP 400: why" in (plan.stuck.why if plan.stuck else "")


def test_a_refusal_for_something_else_does_not_mean_logged_off() -> None:
    plan = growing().with_account().calling(4, Answer.REJECTED, rejection=Rejection.OTHER, fingerprint=FINGERPRINT).plan()

    assert (plan.record.rejected_fingerprint, plan.record.logged_off_at) == (FINGERPRINT, None)


def test_back_to_the_old_number_does_not_make_it_ready() -> None:
    one = logged_off()

    assert one.row() == "CertificateRejected"
    assert one.condition("Ready")["reason"] == "CertificateRejected"
    assert calls(one.plan()) == []


def test_the_right_certificate_is_sent_although_the_number_is_the_same() -> None:
    (call,) = calls(logged_off(certificate=RIGHT).plan())

    assert (call.operation.origin, call.operation.to, call.operation.fingerprint) == (2, 2, RIGHT.fingerprint)
    assert call.operation.logs_on


def test_no_window_holds_it_but_a_pause_does() -> None:
    one = logged_off(certificate=RIGHT)

    assert len(calls(one.wanting(windows=(NIGHT,)).plan())) == 1
    assert calls(one.wanting(paused=True).plan()) == []


def test_it_is_no_drift() -> None:
    assert logged_off(certificate=RIGHT).wanting(repairs_drift=False).row() == "SettingShards"


def logging_on(answer: Answer) -> Situation:
    return logged_off(certificate=RIGHT).noted(2, answer, origin=2, fingerprint=RIGHT.fingerprint)


def test_the_holders_are_excused_until_they_are_connected() -> None:
    one = logging_on(Answer.ACCEPTED)

    assert one.plan().record.operation is not None
    assert one.with_holder(0, terminated=True, ready=False, report=None).row() == "Restarting"
    done = gateways(one, "connected").plan()
    assert (done.record.operation, done.record.logged_off_at) == (None, None)


def test_an_unknown_answer_is_not_settled_by_the_number() -> None:
    one = logging_on(Answer.UNKNOWN).reporting(2)

    assert one.plan().record.operation is not None
    assert "CutOff" in one.plan().holds
    connected = gateways(one, "connected")
    assert "Connected" in connected.plan().holds
    assert connected.plan().record.logged_off_at is not None, "it may be what was said before the rejection"
    assert connected.seeing(since={"Connected": HELD}).plan().record.logged_off_at is None


def test_an_unknown_answer_in_vain_is_followed_by_another_call_once_it_is_settled() -> None:
    one = logging_on(Answer.UNKNOWN)
    assert one.snapshot.record.operation is not None
    late = one.later((one.snapshot.record.operation.settle_by - NOW).total_seconds() + 1)

    assert len(calls(late.plan())) == 1


def test_a_connection_that_lasts_ends_it() -> None:
    assert gateways(logged_off(), "connected").seeing(since={"Connected": HELD}).plan().record.logged_off_at is None
    assert gateways(logged_off(), "connected").seeing(since={"Connected": HELD + seconds(1)}).plan().record.logged_off_at is not None


@pytest.mark.parametrize(("cut_off", "rejected"), [(True, FINGERPRINT), (False, None)])
def test_a_refusal_that_nobody_could_note_is_concluded_when_the_call_is_settled(cut_off: bool, rejected: str | None) -> None:
    one = gateways(growing().with_account(), "disconnected").noted(4, Answer.UNKNOWN, fingerprint=FINGERPRINT)
    one = one.seeing(since={"CutOff": HELD} if cut_off else {})
    assert one.plan().record.rejected_fingerprint is None, "not before it is settled (laws#4)"
    assert one.snapshot.record.operation is not None
    plan = one.later((one.snapshot.record.operation.settle_by - NOW).total_seconds() + 1).plan()

    assert plan.record.rejected_fingerprint == rejected
    assert (plan.record.logged_off_at is not None) == cut_off
    assert len(calls(plan)) == (0 if cut_off else 1)


def test_a_connection_that_was_just_lost_has_not_lasted() -> None:
    """Until the last observation it lasted for nearly as long as it must."""
    held = {"Connected": HELD}

    assert logged_off().seeing(since=held).plan().record.logged_off_at is not None
    operation = logging_on(Answer.UNKNOWN).reporting(2).seeing(since=held).plan().record.operation
    assert operation is not None
    assert operation.answer is Answer.UNKNOWN


def test_a_connection_that_has_just_come_back_rules_out_a_rejection() -> None:
    one = gateways(growing().with_account(), "connected").noted(4, Answer.UNKNOWN, fingerprint=FINGERPRINT)
    one = one.seeing(since={"CutOff": HELD})
    assert one.snapshot.record.operation is not None
    record = one.later((one.snapshot.record.operation.settle_by - NOW).total_seconds() + 1).plan().record

    assert (record.operation, record.rejected_fingerprint, record.logged_off_at) == (None, None, None)
    assert gateways(situation().settled(), "connected").seeing(since={"CutOff": HELD}).condition("Ready")["reason"] == "Serving"


def test_disconnected_is_said_when_no_holder_has_a_connection_for_long() -> None:
    one = gateways(situation().settled(), "disconnected")

    assert one.condition("Ready")["reason"] == "Serving"
    assert one.seeing(since={"CutOff": HELD}).condition("Ready")["reason"] == "Disconnected"
    assert gateways(situation().settled(), "connecting").seeing(since={}).plan().holds == frozenset()
