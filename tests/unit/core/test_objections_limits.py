"""Objections to sending a certificate, sentence by sentence, and the conditions that follow from them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from whatsapp_operator.core import conditions, objections
from whatsapp_operator.core.certificate import NO_CERTIFICATE, CertificateFacts
from whatsapp_operator.core.snapshot import AccountSecret, Answer, Report

from .situations import FINGERPRINT, NOW, Situation, seconds, situation
from .test_logged_off import RIGHT, logged_off
from .witnesses import WITNESSES, growing, restarting

SETTLED = situation().settled()
ACCOUNT = growing().with_account()
REJECTED = f"WhatsApp rejected Set Shards with the certificate whose fingerprint begins {FINGERPRINT[:12]}"
BARE = "WhatsApp rejected Set Shards without a certificate; it is not sent without one again."
RIGHT_ONE = "Put the right one into Secret acme-account."
CLOSED = "WhatsApp says that registration is closed for this number; Set Shards is not tried again. The certificate is not at fault. "
COPY = "Copy the certificate from Business Manager into it."
EXPIRED = "which is too soon or already past. An expired one gets the account banned. Put a new one there with its expiresAt."
ASK = "Ask Meta's support. Once they have opened it, edit "


def without_secret(one: Situation, registered_at: datetime | None = NOW) -> Situation:
    """An account whose certificate is in no Secret, for it was registered just now; or by an older CRD, which did not ask for that."""
    assert one.desired.account is not None
    account = replace(one.desired.account, secret_name=None, registered_at=registered_at)
    return one.wanting(account=account).seeing(account=None)


SENTENCES: dict[str, tuple[Situation, str]] = {
    "rejected": (ACCOUNT.seeing(rejected_fingerprint=FINGERPRINT), f"{REJECTED}; it is not sent again. {RIGHT_ONE}"),
    "rejected with a reason": (
        ACCOUNT.seeing(rejected_fingerprint=FINGERPRINT, rejected_because="HTTP 400: why"),
        f"{REJECTED} (HTTP 400: why); it is not sent again. {RIGHT_ONE}",
    ),
    "rejected without a certificate": (
        growing().with_account(secret=AccountSecret(), registered_at=NOW).seeing(rejected_fingerprint=NO_CERTIFICATE),
        f"{BARE} {RIGHT_ONE}",
    ),
    "rejected without a certificate and without a Secret": (
        without_secret(ACCOUNT).seeing(rejected_fingerprint=NO_CERTIFICATE),
        f"{BARE} Put the right one into a Secret that spec.account.secretRef names.",
    ),
    "registration closed": (
        ACCOUNT.seeing(registration_closed_for="70"),
        f"{CLOSED}{ASK}Secret acme-account (an annotation is enough), and the operator tries again.",
    ),
    "registration closed without a Secret": (
        without_secret(ACCOUNT).seeing(registration_closed_for="generation-3"),
        f"{CLOSED}{ASK}the spec, and the operator tries again.",
    ),
    "no certificate": (WITNESSES["CertificateMissing"], f"There is no key certificate in Secret acme-account. {COPY}"),
    "no certificate, and no Secret is named": (
        without_secret(ACCOUNT, registered_at=None),
        f"There is no key certificate in a Secret that spec.account.secretRef names. {COPY}",
    ),
    "expired": (
        growing().with_account(expires_at=NOW + timedelta(hours=23)),
        f"The certificate in Secret acme-account expires at 2027-01-05T11:00:00Z, {EXPIRED}",
    ),
    "malformed": (WITNESSES["SecretMalformed"], "Key WA_DB_PASSWORD of Secret db ends with a line break. Make it again."),
}


@pytest.mark.parametrize(("one", "sentence"), SENTENCES.values(), ids=SENTENCES)
def test_an_objection_says_what_was_rejected_why_and_where_to_mend_it(one: Situation, sentence: str) -> None:
    assert one.plan().decision.why == sentence


def test_an_invalid_field_is_named_in_its_own_words() -> None:
    assert WITNESSES["FieldInvalid"].plan().decision.why == "Annotation multiconnect.dev/reshard-now says 'four'. Write one such as 4."


@pytest.mark.parametrize("name", ["Banned", "ClientExpired", "AwaitingSecret", "SecretMissing", "SecretMalformed"])
def test_what_matters_without_a_resize_is_said_at_once(name: str) -> None:
    one = WITNESSES[name].wanting(shards=2).replicas(3).without_pod(3).without_pod(4)

    assert one.plan().decision.rule == name
    assert not one.facts().resize_is_wanted


@pytest.mark.parametrize("name", ["PinMalformed", "CertificateMissing", "CertificateExpired", "CertificateRejected", "RegistrationClosed"])
def test_what_only_a_call_needs_is_not_said_without_one(name: str) -> None:
    one = WITNESSES[name].wanting(shards=2).replicas(3).without_pod(3).without_pod(4)

    assert one.plan().decision.rule == "UpToDate"


def test_a_Secret_that_was_not_read_hides_all_objections_but_a_ban() -> None:  # noqa: N802
    """What is not known is not objected to; a ban is final."""
    unread = ACCOUNT.seeing(account=None, expired_build="v2.53.4 whatsapp-operator/wabiz-sim:dev")

    assert objections.objection(unread.facts()) is None
    banned = objections.objection(unread.seeing(banned_at=NOW).facts())
    assert banned is not None
    assert banned.name == "Banned"
    assert objections.objection(ACCOUNT.seeing(expired_build="v2.53.4 whatsapp-operator/wabiz-sim:dev").facts()) is not None


@pytest.mark.parametrize(
    ("build", "version", "is_said"),
    [
        ("v2.53.4 whatsapp-operator/wabiz-sim:dev", "v2.53.4", True),
        ("v2.53.4 whatsapp-operator/wabiz-sim:dev", None, True),
        ("v2.53.4 whatsapp-operator/wabiz-sim:old", None, False),
        ("v2.53.4 whatsapp-operator/wabiz-sim:dev", "v2.55.1", False),
        (None, "v2.53.4", False),
    ],
    ids=["the same", "its version is not known yet", "other images", "another version", "it never said so"],
)
def test_a_build_that_expired_is_known_again_by_its_images_too(build: str | None, version: str | None, is_said: bool) -> None:
    """A new leader does not know the version yet; images that changed are worth a try."""
    found = objections.objection(ACCOUNT.seeing(expired_build=build).client(version=version).facts())

    assert (found is not None and found.name == "ClientExpired") is is_said


def test_a_rejection_of_Set_Shards_without_a_certificate_says_nothing_of_the_simulator() -> None:  # noqa: N802
    """The account was removed from the spec since."""
    assert objections.objection(growing().seeing(rejected_fingerprint=NO_CERTIFICATE).facts()) is None
    assert objections.objection(without_secret(ACCOUNT).seeing(rejected_fingerprint=NO_CERTIFICATE).facts()) is not None


def test_a_certificate_that_cannot_be_read_is_not_compared_with_the_rejected_one() -> None:
    one = growing().with_account(certificate=None).seeing(rejected_fingerprint=FINGERPRINT)

    assert one.row() == "CertificateMalformed"


# --- conditions


def ready(one: Situation) -> tuple[str, str]:
    found = one.condition("Ready")
    return found["status"], found["reason"]


def test_a_cluster_that_is_logged_off_says_how_it_comes_back() -> None:
    same, right = logged_off(certificate=CertificateFacts(fingerprint=FINGERPRINT)), logged_off(certificate=RIGHT)

    assert same.condition("Ready")["message"] == f"{REJECTED}; it is not sent again. {RIGHT_ONE}"
    generic = "The client is logged off since a wrong certificate was rejected; Set Shards with the right one logs it on again."
    assert right.condition("Ready")["message"] == generic
    assert right.seeing(rejected_pin="pin-1").condition("Ready")["message"] == generic, "the PIN is another matter"


def test_a_shard_that_no_Coreapp_can_take_is_named_with_its_evidence() -> None:  # noqa: N802
    one = situation().settled(spares=0).holder_deleted(0)

    assert one.condition("Ready")["message"] == "No Coreapp can take shard 0: acme-coreapp-0 (PodDeleted)."
    never = situation().settled(spares=0).with_pod(1, ready=False).with_route(1, epoch=None, holder=None, holder_uid=None)
    assert never.condition("Ready")["message"] == "No Coreapp can take shard 1: no holder."


def test_a_shard_without_a_holder_moves_only_if_a_standby_can_take_it() -> None:
    def state(one: Situation) -> str:
        one = one.with_pod(1, ready=False).with_route(1, epoch=None, holder=None, holder_uid=None)
        return conditions.shard_state(one.facts(), one.route(1))

    assert state(SETTLED) == "Moving"
    assert state(SETTLED.without_pod(2)) == "Unserved"
    assert state(SETTLED.wanting(manual=True)) == "Unserved"


def test_a_restart_is_what_is_said_until_all_shards_that_exist_are_served() -> None:
    """The client has four by now, no matter which number was settled before."""
    one = situation().settled(shards=4).noted(4, Answer.ACCEPTED, origin=2).seeing(settled_shards=2).with_holder(0, report=Report(shards=2))

    assert ready(one) == ("False", "Restarting")
    assert ready(restarting()) == ("False", "Restarting")
    assert restarting().condition("Redundant")["reason"] == "Restarting"


def test_a_restart_that_is_overdue_matters_only_while_a_shard_is_not_served() -> None:
    overdue = WITNESSES["RestartOverdue"]

    assert ready(overdue) == ("True", "Serving")
    away = overdue.with_holder(3, report=None, unresponsive_since=NOW, ready=False)
    assert ready(away) == ("False", "RestartOverdue")


def test_a_certificate_expires_soon_by_the_clock_of_the_api_server_too() -> None:
    one = ACCOUNT.seeing(account=replace(ACCOUNT.snapshot.account or AccountSecret(), expires_at=NOW + timedelta(days=31)))

    assert one.condition("CertificateValid")["reason"] == "Valid"
    assert one.seeing(server_time=NOW + timedelta(days=2)).condition("CertificateValid")["reason"] == "CertificateExpiresSoon"


@pytest.mark.parametrize(
    ("left", "reason"),
    [
        (timedelta(days=30), "Valid"),
        (timedelta(days=30) - seconds(1), "CertificateExpiresSoon"),
        (timedelta(days=2), "CertificateExpiresSoon"),
    ],
)
def test_a_certificate_expires_soon_within_thirty_days(left: timedelta, reason: str) -> None:
    assert (
        ACCOUNT.seeing(account=replace(ACCOUNT.snapshot.account or AccountSecret(), expires_at=NOW + left)).condition("CertificateValid")[
            "reason"
        ]
        == reason
    )


def test_a_certificate_that_may_not_be_sent_is_not_said_to_be_valid_until_soon() -> None:
    one = growing().with_account(expires_at=NOW + timedelta(days=10)).seeing(rejected_pin="pin-1")

    found = one.condition("CertificateValid")
    assert (found["status"], found["reason"]) == ("False", "PinRejected")


@pytest.mark.parametrize(
    ("kept_by", "said"),
    [
        ("default/first", "WhatsAppCluster default/first has the same phone number"),
        ("default2/first", "A WhatsAppCluster of another namespace, which the operator's log names, has the same phone number"),
    ],
)
def test_a_number_that_another_cluster_keeps_is_no_fault_of_the_certificate(kept_by: str, said: str) -> None:
    """The name of a cluster is nothing for the users of another namespace."""
    one = ACCOUNT.seeing(number_kept_by=kept_by)

    assert one.condition("Stalled")["reason"] == "NumberInUse"
    assert one.condition("Stalled")["message"].startswith(said)
    assert one.condition("CertificateValid")["status"] == "True"
