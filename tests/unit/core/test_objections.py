"""One test per objection to Set Shards, named after its reason, and when Set Shards is called."""

# ruff: noqa: N802  (a test carries the word of its row as it is spelt, so that one grep finds everything)

from __future__ import annotations

from datetime import timedelta

import pytest

from whatsapp_operator.core import objections, record
from whatsapp_operator.core.actions import BumpVersion, SetShards, State
from whatsapp_operator.core.certificate import CertificateFacts
from whatsapp_operator.core.snapshot import AccountSecret, Answer, Call, Rejection
from whatsapp_operator.core.windows import Window

from .plans import of, only
from .situations import FINGERPRINT, NONCE, NOW, Situation, seconds, situation
from .witnesses import WITNESSES, growing

# --- objections: when Set Shards is wanted and the account does not fit

OBJECTION_ROWS = [one.name for one in objections.OBJECTIONS if one.name != "AwaitingSecret"]


@pytest.mark.parametrize("name", OBJECTION_ROWS)
def test_objection_stops_Set_Shards_and_a_person_is_asked(name: str) -> None:
    plan = WITNESSES[name].plan()

    assert (plan.decision.rule, plan.decision.state) == (name, State.STUCK)
    assert of(plan, SetShards) == []


@pytest.mark.parametrize("name", OBJECTION_ROWS)
def test_objection_is_no_matter_while_no_Set_Shards_is_wanted(name: str) -> None:
    plan = WITNESSES[name].wanting(shards=2).replicas(3).plan()

    said = plan.stuck.rule if plan.stuck else None
    assert (said, plan.decision.rule) == (
        (name, name) if name in {"SecretMissing", "SecretMalformed", "Banned", "NumberInUse", "ClientExpired"} else (None, "UpToDate")
    )


@pytest.mark.parametrize("name", OBJECTION_ROWS)
def test_objection_never_delays_a_failover(name: str) -> None:
    plan = WITNESSES[name].holder_deleted(0).plan()

    assert plan.decision.rule == "FailingOver"
    assert plan.stuck is not None
    assert plan.stuck.rule == name


def test_Banned_is_kept() -> None:
    one = growing().calling(4, Answer.REJECTED, rejection=Rejection.BANNED)
    plan = one.plan()

    assert (plan.decision.rule, plan.record.banned_at, plan.record.operation) == ("Banned", NOW, None)
    by_the_wall = one.seeing(wall=NOW - timedelta(hours=9)).plan()
    assert by_the_wall.record.banned_at == NOW - timedelta(hours=9), "people read it"


def test_Banned_is_said_whether_or_not_a_change_of_shards_is_wanted() -> None:
    """The condition is where the ban is remembered: without the word it is forgotten as soon as the user takes the request back."""
    stuck = situation().settled().seeing(banned_at=NOW).plan().stuck

    assert stuck is not None
    assert stuck.rule == "Banned"


def test_SecretMissing_is_said_also_without_a_change_of_shards() -> None:
    assert WITNESSES["SecretMissing"].wanting(shards=2).replicas(3).row() == "SecretMissing"


def test_AwaitingSecret_sends_nothing_although_the_account_was_registered_lately() -> None:
    one = growing().with_account(secret=AccountSecret(missing="Secret acme-account"), registered_at=NOW)

    assert (one.row(), of(one.plan(), SetShards)) == ("AwaitingSecret", [])


def test_PinMalformed_is_not_said_of_a_good_one() -> None:
    assert growing().with_account().row() == "SettingShards"


def test_RegistrationTooOld_begins_after_seven_days() -> None:
    within = growing().with_account(secret=AccountSecret(), registered_at=NOW - timedelta(days=7))

    assert within.row() == "SettingShards"
    assert within.later(1).row() == "RegistrationTooOld"


def test_RegistrationTooOld_does_not_matter_with_a_certificate() -> None:
    assert growing().with_account(registered_at=NOW - timedelta(days=900)).row() == "SettingShards"


def test_CertificateMissing_is_not_said_within_seven_days_of_registration() -> None:
    assert growing().with_account(secret=AccountSecret(), registered_at=NOW).row() == "SettingShards"


def test_CertificateMissing_is_not_said_while_the_Secret_could_not_be_read_yet() -> None:
    """Unknown is a value (laws#6): nothing is sent, above all not without the certificate that may be there."""
    one = growing().with_account(registered_at=NOW).seeing(account=None)

    assert of(one.plan(), SetShards) == []


def test_CertificateMalformed_comes_before_an_unknown_expiry() -> None:
    assert growing().with_account(certificate=None, expires_at=None).row() == "CertificateMalformed"


def test_CertificateExpiryUnknown_is_not_said_when_it_is_known() -> None:
    assert growing().with_account().row() == "SettingShards"


def test_CertificateExpired_keeps_a_margin() -> None:
    assert growing().with_account(expires_at=NOW + timedelta(hours=24)).row() == "SettingShards"
    assert growing().with_account(expires_at=NOW + timedelta(hours=23)).row() == "CertificateExpired"


@pytest.mark.parametrize(
    ("wall", "server_time", "row"), [(-72, 0, "CertificateExpired"), (0, -72, "CertificateExpired"), (-72, None, "SettingShards")]
)
def test_CertificateExpired_goes_by_the_later_one_of_two_clocks(wall: float, server_time: float | None, row: str) -> None:
    """A machine whose clock is days behind would send an expired one, which gets the account banned."""
    at = NOW + timedelta(hours=server_time) if server_time is not None else None
    one = growing().with_account(expires_at=NOW + timedelta(hours=23)).seeing(wall=NOW + timedelta(hours=wall), server_time=at)

    assert one.row() == row


def test_RegistrationTooOld_goes_by_the_later_one_of_two_clocks() -> None:
    one = growing().with_account(secret=AccountSecret(), registered_at=NOW - timedelta(days=8)).seeing(wall=NOW - timedelta(days=3))

    assert one.row() == "SettingShards"
    assert one.seeing(server_time=NOW).row() == "RegistrationTooOld"
    assert one.seeing(server_time=NOW - timedelta(days=3)).row() == "SettingShards"


def test_a_window_goes_by_the_clock_of_this_machine() -> None:
    """It is what the person reads who wrote it; the API server's is asked only where the later one does no harm."""
    shut = growing().wanting(windows=(Window(name="noon", schedule="0 12 * * *", duration=timedelta(minutes=30)),))

    assert shut.seeing(server_time=NOW + timedelta(hours=3)).row() == "SettingShards"


def test_CertificateRejected_is_remembered_and_ends_when_the_Secret_changes() -> None:
    one = growing().with_account().calling(4, Answer.REJECTED, rejection=Rejection.CERTIFICATE, fingerprint=FINGERPRINT)
    plan = one.plan()

    assert (plan.decision.rule, plan.record.rejected_fingerprint, plan.record.operation) == ("CertificateRejected", FINGERPRINT, None)
    refused = plan.record.rejected_fingerprint
    later = growing().with_account(certificate=CertificateFacts(fingerprint="cd" * 32)).seeing(rejected_fingerprint=refused)
    assert later.row() == "SettingShards"


def put(one: Situation, fingerprint: str) -> Situation:
    """The same with this certificate in the Secret."""
    return one.with_account(certificate=CertificateFacts(fingerprint=fingerprint))


def rejected_in_turn(*fingerprints: str) -> Situation:
    """WhatsApp rejected these certificates one after the other."""
    one = growing()
    for fingerprint in fingerprints:
        one = put(one, fingerprint).calling(
            4, Answer.REJECTED, rejection=Rejection.CERTIFICATE, fingerprint=fingerprint, detail=fingerprint[:4]
        )
        stored = one.reported()
        one = stored.seeing(record=record.read(stored.snapshot.status, uid=one.desired.uid)).client(call=None)
    return one


def test_a_certificate_that_was_rejected_before_another_one_is_not_sent_again_either() -> None:
    """Who does not know which one is right puts the first one back."""
    one = rejected_in_turn("aa" * 32, "bb" * 32, "cc" * 32)

    assert [put(one, letters * 32).row() for letters in ("aa", "bb", "cc", "dd")] == ["CertificateRejected"] * 3 + ["SettingShards"]
    assert "begins cccccccccccc (cccc); it" in put(one, "cc" * 32).plan().decision.why
    assert "begins aaaaaaaaaaaa; it" in put(one, "aa" * 32).plan().decision.why, "why is only known of the last one"


def test_nor_is_it_after_a_call_without_a_certificate_was_rejected() -> None:
    one = rejected_in_turn("aa" * 32).with_account(secret=AccountSecret(version="71"), registered_at=NOW - timedelta(days=1))
    without = one.calling(4, Answer.REJECTED, rejection=Rejection.CERTIFICATE)
    noted = without.seeing(record=without.plan().record).client(call=None)

    assert noted.row() == "CertificateRejected"
    assert put(noted, "aa" * 32).row() == "CertificateRejected"
    assert put(noted, "bb" * 32).row() == "SettingShards"


def test_of_very_many_rejected_certificates_the_newest_are_known_each_once() -> None:
    many = [f"{number:064x}" for number in range(40)]
    one = rejected_in_turn(*many, many[39], many[38])

    assert one.snapshot.record.rejected_fingerprint == many[38]
    assert one.snapshot.record.rejected_before == (many[39], *reversed(many[8:38]))


def test_a_refusal_without_a_certificate_is_not_asked_again_at_once() -> None:
    """A 4xx that names no certificate (PIN, bad request): without a mark the call would be repeated at every observation."""
    plan = growing().calling(4, Answer.REJECTED, detail="(#100) invalid pin").plan()

    assert of(plan, SetShards) == []


def test_a_refusal_without_a_certificate_does_not_forget_the_refused_one() -> None:
    plan = growing().seeing(rejected_fingerprint=FINGERPRINT).calling(4, Answer.REJECTED).plan()

    assert plan.record.rejected_fingerprint == FINGERPRINT


def test_AwaitingCoreapps_names_them_with_the_schedulers_sentence() -> None:
    plan = WITNESSES["AwaitingCoreapps"].with_pod(3, pending_because="0/3 nodes: Insufficient cpu").plan()

    assert "acme-coreapp-3" in plan.decision.why
    assert "Insufficient cpu" in plan.decision.why
    assert "LacksCoreapps" in plan.holds


def test_WithoutSpares_Set_Shards_goes_on_after_restart_timeout_if_there_are_enough_for_the_shards() -> None:
    one = growing().with_pod(4, ready=False)

    assert one.row() == "AwaitingCoreapps"
    assert one.seeing(since={"LacksCoreapps": NOW - seconds(179)}).row() == "AwaitingCoreapps"
    assert one.seeing(since={"LacksCoreapps": NOW - seconds(180)}).row() == "SettingShards"
    assert one.with_pod(3, ready=False).seeing(since={"LacksCoreapps": NOW - seconds(999)}).row() == "AwaitingCoreapps"


def test_SettingShards_first_voids_a_lowering_that_may_still_land() -> None:
    """The StatefulSet's version is moved before the intent is noted: what goes by the old one is rejected (laws#4)."""
    plan = WITNESSES["SettingShards"].seeing(anchored_for=2).plan()

    assert (only(plan, BumpVersion).shards, only(plan, BumpVersion).resource_version) == (4, "9")
    assert not of(plan, SetShards)
    assert plan.record.operation is None


def test_SettingShards_makes_one_call_whose_intent_is_noted_with_it_and_not_reported() -> None:
    plan = WITNESSES["SettingShards"].plan()

    operation = only(plan, SetShards).operation
    assert plan.record.operation is None
    assert operation.uid == "cluster-uid"
    assert (operation.id, operation.origin, operation.to, operation.leader_epoch) == (f"4-{NONCE}", 2, 4, 5)
    assert operation.started_at == NOW
    assert operation.deadline == NOW + seconds(60 + 180)
    assert operation.settle_by == NOW + seconds(60 + 180 + 600)
    assert (operation.attempts, operation.answer) == (1, Answer.NONE)


@pytest.mark.parametrize(
    "one",
    [
        growing().client(asked_at=NOW - seconds(5.1)),
        growing().client(asked_at=None),
        growing().wanting(shards=3).replicas(6),
        growing().calling(4),
        growing().client(call=Call(id="4-x")),
    ],
    ids=["stale", "never asked", "no power of two", "noted and running", "running"],
)
def test_SettingShards_does_not_call(one: Situation) -> None:
    assert of(one.plan(), SetShards) == []


def test_SettingShards_calls_again_when_the_note_was_not_followed_by_a_call() -> None:
    assert only(growing().calling(4, not_sent=True).plan(), SetShards).operation.attempts == 1


def test_SettingShards_is_accepted() -> None:
    plan = growing().calling(4, Answer.ACCEPTED).plan()

    assert plan.decision.rule == "Verifying"
    assert plan.record.operation is not None
    assert (plan.record.operation.answer, plan.record.operation.deadline) == (Answer.ACCEPTED, NOW + seconds(180))
