"""What is remembered of a rejection, what is said of it, and what a person has to change before the call is made again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from whatsapp_operator.core import record
from whatsapp_operator.core.actions import Plan, SetShards
from whatsapp_operator.core.certificate import CertificateFacts
from whatsapp_operator.core.desired import Images
from whatsapp_operator.core.snapshot import AccountSecret, Answer, Rejection

from .situations import FINGERPRINT, NOW, Situation, seconds
from .witnesses import growing


def calls(plan: Plan) -> list[SetShards]:
    return [action for action in plan.actions if isinstance(action, SetShards)]


def refused(one: Situation, rejection: Rejection, *, secret_version: str | None = "70", fingerprint: str | None = FINGERPRINT) -> Situation:
    """The observation after the one in which a rejection was heard: another process reads what stands in the status."""
    responses = one.calling(
        4,
        Answer.REJECTED,
        rejection=rejection,
        secret_version=secret_version,
        pin_digest=one.snapshot.account.pin_digest if one.snapshot.account else None,
        fingerprint=fingerprint,
        detail="HTTP 403: why",
    )
    assert calls(responses.plan()) == []
    kept = record.read(responses.report(), uid="cluster-uid")
    return responses.client(call=None).seeing(record=kept).kept()


def is_ready(one: Situation) -> bool:
    return str(one.condition("CertificateValid")["status"]) == "True"


BUILDS: dict[str, Callable[[Situation], Situation]] = {
    "other images": lambda one: one.wanting(images=Images(coreapp="coreapp:2", webapp="webapp:2")),
    "another version of the same image": lambda one: one.client(version="v2.55.1"),
}


@pytest.mark.parametrize("change", BUILDS.values(), ids=BUILDS)
def test_an_expired_build_is_called_again_when_it_is_another(change: Callable[[Situation], Situation]) -> None:
    one = refused(growing().with_account(), Rejection.CLIENT_EXPIRED)

    assert (one.row(), calls(one.plan()), is_ready(one)) == ("ClientExpired", [], True)
    assert one.snapshot.record.rejected_fingerprint is None
    assert one.client(version=None).row() == "ClientExpired", "its version is not known yet"
    assert one.with_account(version="71").row() == "ClientExpired"
    assert len(calls(change(one).plan())) == 1


def test_an_expired_build_is_reported_although_no_number_is_to_be_changed() -> None:
    one = refused(growing().with_account(), Rejection.CLIENT_EXPIRED).wanting(shards=2)

    assert one.condition("Stalled")["reason"] == "ClientExpired"


def test_a_closed_registration_is_tried_again_when_the_secret_is_edited() -> None:
    one = refused(growing().with_account(), Rejection.REGISTRATION_CLOSED)

    assert (one.row(), calls(one.plan()), is_ready(one)) == ("RegistrationClosed", [], True)
    assert (one.snapshot.record.rejected_fingerprint, one.snapshot.record.logged_off_at) == (None, None)
    assert "Meta's support" in one.condition("Stalled")["message"]
    assert one.client(version="v2.55.1").row() == "RegistrationClosed"
    assert len(calls(one.with_account(version="71").plan())) == 1


def test_without_a_secret_a_closed_registration_waits_for_an_edit_of_the_spec() -> None:
    one = refused(growing(), Rejection.REGISTRATION_CLOSED, secret_version=None, fingerprint=None)

    assert (one.row(), calls(one.plan())) == ("RegistrationClosed", [])
    assert len(calls(one.wanting(generation=4).plan())) == 1


def test_a_rejected_pin_is_sent_again_only_when_it_is_another_one() -> None:
    """Each try counts toward a lock: a label of its Secret, another key or another spec is no reason for one."""
    one = refused(growing().with_account(), Rejection.PIN)

    assert (one.row(), calls(one.plan()), is_ready(one)) == ("PinRejected", [], False)
    assert "delete that Secret and create it again" in one.condition("Stalled")["message"]
    assert calls(one.with_account(version="71").plan()) == []
    assert calls(one.wanting(generation=4).plan()) == []
    assert len(calls(one.with_account(pin_digest="pin-2").plan())) == 1


def test_a_pin_that_is_asked_for_is_awaited_although_the_spec_is_edited() -> None:
    young = growing().with_account(registered_at=NOW - timedelta(days=1))
    account = young.desired.account
    assert account is not None
    one = refused(young.wanting(account=replace(account, secret_name=None)).seeing(account=None), Rejection.PIN, secret_version=None)

    assert (one.row(), calls(one.plan())) == ("PinRejected", [])
    assert calls(one.wanting(generation=4).plan()) == []
    assert len(calls(one.with_account().plan())) == 1


@pytest.mark.parametrize("rejection", [Rejection.CERTIFICATE, Rejection.CERTIFICATE_PARAMETER])
def test_a_call_without_a_certificate_that_was_refused_for_that_is_not_sent_again(rejection: Rejection) -> None:
    young = growing().with_account(secret=AccountSecret(version="70"), registered_at=NOW - timedelta(days=1))
    assert len(calls(young.plan())) == 1
    one = refused(young, rejection, fingerprint=None)

    assert (one.row(), calls(one.plan()), is_ready(one)) == ("CertificateRejected", [], False)
    assert "without a certificate" in one.condition("Stalled")["message"]
    assert (one.snapshot.record.logged_off_at is not None) == (rejection is Rejection.CERTIFICATE)
    fit = AccountSecret(
        version="71", has_certificate=True, certificate=CertificateFacts(fingerprint=FINGERPRINT), expires_at=NOW + timedelta(days=90)
    )
    assert len(calls(one.seeing(account=fit).plan())) == 1


def test_a_certificate_that_could_not_be_read_logs_nobody_off() -> None:
    one = refused(growing().with_account(), Rejection.CERTIFICATE_PARAMETER)

    assert one.row() == "CertificateRejected"
    assert one.snapshot.record.logged_off_at is None


# --- a client that asks for a pause


def busy(after: float | None, *, noted_before: float = 1) -> Situation:
    one = growing().calling(4, Answer.BUSY, retry_after=None if after is None else seconds(after))
    assert one.snapshot.record.operation is not None
    noted = replace(one.snapshot.record.operation, started_at=NOW - seconds(noted_before))
    return one.seeing(operation=noted)


def kept(one: Situation) -> Situation:
    """Another process reads what stands in the status."""
    return one.seeing(record=record.read(one.report(), uid="cluster-uid")).client(call=None)


@pytest.mark.parametrize(("after", "last", "first"), [(3600, 3599, 3601), (30.5, 30, 32), (None, 0, 3), (0, 0, 3), (1, 0, 3)])
def test_the_next_call_comes_not_before_the_client_asked_and_never_sooner_than_the_pause_of_a_busy_client(
    after: float | None, last: float, first: float
) -> None:
    one = kept(busy(after))

    assert one.later(last).row() == "ServerBusy"
    assert len(calls(one.later(first).plan())) == 1


def test_it_counts_from_the_answer_not_from_the_call() -> None:
    assert kept(busy(30, noted_before=50)).later(29).row() == "ServerBusy"


def test_an_edit_of_the_number_does_not_shorten_the_pause_but_taking_it_back_ends_it() -> None:
    one = kept(busy(3600))

    assert one.wanting(shards=8).with_pods([5, 6, 7, 8]).later(60).row() == "ServerBusy"
    assert one.wanting(shards=2).plan().record.operation is None
    assert kept(busy(None)).wanting(shards=8).plan().record.operation is None, "without such a request the next call is another one"


def test_the_message_says_until_when() -> None:
    assert "not before 2027-01-04T13:00:" in kept(busy(3600)).condition("Reconciling")["message"]
    assert "not before" not in kept(busy(None)).condition("Reconciling")["message"]
