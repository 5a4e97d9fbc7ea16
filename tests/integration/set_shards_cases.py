"""THE table of what may happen around Set Shards: who answers how, what is put right, what is seen, and how it ends.

``action`` does what happens; how, is in ``set_shards_actions``. The fields are explained at ``Case``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from wabiz_sim.certificate import make

from . import set_shards_actions as actions
from . import set_shards_crashes as crashes
from . import set_shards_entries as entries
from . import set_shards_windows as windows
from .set_shards_actions import answered, spoiled, unanswered
from .set_shards_environment import LATE, Case, Lane


def _registered(days: float) -> dict[str, object]:
    return {"account": {"registeredAt": f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"}}


def _with_login() -> dict[str, object]:
    client = {"type": "Simulator", "simulator": {"restartSeconds": 0}, "adminSecretRef": {"name": entries.LOGIN}}
    return {"client": client}


def _with_tls() -> dict[str, object]:
    return {"webapp": {"replicas": 1, "tls": {"secretRef": {"name": entries.TLS}}}}


def _in(days: float) -> str:
    return f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"


def _certificate(days: float) -> str:
    """A certificate that says itself when it expires, as the simulator reads it."""
    at = datetime.now(UTC)
    return make("Acme", 66, at - timedelta(days=300), at + timedelta(days=days))


LANES = (
    Lane(name="answers"),
    Lane(name="overtaken", spec={"client": {"type": "Simulator", "simulator": {"restartSeconds": 3}}}),
    Lane(name="unknown-a"),
    Lane(name="unknown-b"),
    Lane(name="unknown-c"),
    Lane(name="very-late"),
    Lane(name="certificate", secret=True),
    Lane(name="expiry", secret=True),
    Lane(name="logged-off", secret=True),
    Lane(name="pin", secret=True),
    Lane(name="young", spec=_registered(6)),
    Lane(name="old", spec=_registered(8)),
    Lane(name="scarce"),
    Lane(name="down"),
    Lane(name="drift"),
    Lane(name="windows"),
    Lane(name="mind"),
    Lane(name="mind-unknown"),
    Lane(name="restart"),
    Lane(name="pack"),
    Lane(name="login", before=entries.put_login, spec=_with_login()),
    Lane(name="login-late", late=True, spec=_with_login()),
    Lane(name="login-weak", late=True, spec=_with_login()),
    Lane(name="tls", before=entries.put_tls, spec=_with_tls()),
    Lane(name="tls-late", late=True, spec=_with_tls()),
    Lane(name="crash-a", own_operator=True),
    Lane(name="crash-b", own_operator=True),
    Lane(name="crash-c", own_operator=True, secret=True),
    Lane(name="crash-d", own_operator=True),
)

SENT, DONE = "SetShardsSent", "SetShardsDone"
ONCE = ("A>B 201",)

CASES = (
    # --- what the client answers
    Case(name="accepted", lane="answers", action=answered(), calls=ONCE, restarts=1, events=(SENT, DONE)),
    Case(
        name="busy-once",
        lane="answers",
        action=answered(fault="busy"),
        calls=("A>B 403", "A>B 201"),
        restarts=1,
        events=(SENT, "ServerBusy", DONE),
    ),
    Case(
        name="busy-for-as-long-as-it-says",
        lane="answers",
        action=actions.asked_for_a_pause,
        calls=("A>B 503", "A>B 201"),
        restarts=1,
        events=("ServerBusy", DONE),
    ),
    Case(
        name="busy-three-times",
        lane="answers",
        action=answered(fault="busy", count=3),
        calls=("A>B 403", "A>B 403", "A>B 403", "A>B 201"),
        restarts=1,
        events=("ServerBusy", DONE),
    ),
    Case(
        name="busy-six-times-tells-a-person",
        lane="answers",
        action=answered(fault="busy", count=6),
        calls=(*["A>B 403"] * 6, "A>B 201"),
        restarts=1,
        words=("Reconciling/ServerBusy", "Reconciling/UpToDate"),
        events=("ServerBusy", "!ServerBusy", DONE),
    ),
    Case(
        name="busy-with-the-restart-of-another-call",
        lane="overtaken",
        action=answered(fault="overtaken"),
        calls=("A>B 403+", "A>B 201"),
        restarts=2,
        events=("ServerBusy", DONE),
    ),
    Case(
        name="slow", lane="answers", action=answered(fault="slow", seconds=8), calls=ONCE, restarts=1, words=("Reconciling/SettingShards",)
    ),
    Case(
        name="other-400-without-a-certificate",
        lane="answers",
        action=answered(fault="error", status=400, code=1009),
        calls=("A>B 400", "A>B 201"),
        restarts=1,
    ),
    Case(name="expired-token", lane="answers", action=actions.token_expired, calls=ONCE, restarts=1),
    # --- no clear answer: only GET
    Case(
        name="error-applied",
        lane="unknown-a",
        action=unanswered(fault="error", applies=True),
        calls=("A>B 500",),
        restarts=1,
    ),
    Case(name="timeout-applied", lane="unknown-a", action=unanswered(fault="timeout", applies=True), calls=("A>B 500",), restarts=1),
    Case(name="reset-applied", lane="unknown-a", action=unanswered(fault="reset", applies=True), calls=("A>B 500",), restarts=1),
    Case(name="garbage-applied", lane="unknown-a", action=unanswered(fault="garbage", applies=True), calls=("A>B 200",), restarts=1),
    Case(
        name="late-success",
        lane="unknown-a",
        action=unanswered(fault="late", seconds=LATE),
        calls=("A>B 500",),
        restarts=1,
        words=("Reconciling/AnswerUnknown", "Reconciling/UpToDate"),
        events=("!AnswerUnknown", DONE),
    ),
    Case(
        name="error-not-applied",
        lane="unknown-a",
        action=unanswered(again=True, fault="error", status=502),
        calls=("A>B 502", "A>B 201"),
        restarts=1,
        words=("Reconciling/AnswerUnknown",),
        events=("!AnswerUnknown", DONE),
    ),
    Case(
        name="timeout-not-applied",
        lane="unknown-b",
        action=unanswered(again=True, fault="timeout"),
        calls=("A>B 500", "A>B 201"),
        restarts=1,
        words=("Reconciling/AnswerUnknown",),
    ),
    Case(
        name="reset-not-applied",
        lane="unknown-b",
        action=unanswered(again=True, fault="reset"),
        calls=("A>B 500", "A>B 201"),
        restarts=1,
        words=("Reconciling/AnswerUnknown",),
    ),
    Case(
        name="garbage-not-applied",
        lane="unknown-c",
        action=unanswered(again=True, fault="garbage"),
        calls=("A>B 200", "A>B 201"),
        restarts=1,
        words=("Reconciling/AnswerUnknown",),
    ),
    Case(
        name="accepted-in-vain",
        lane="unknown-c",
        action=actions.accepted_in_vain(fault="error", status=200),
        calls=("A>B 200", "A>B 201"),
        restarts=1,
        words=("Reconciling/Verifying", "Reconciling/UpToDate"),
    ),
    Case(
        name="late-success-after-it-was-settled",
        lane="very-late",
        action=actions.applied_after_it_was_settled,
        calls=("A>B 500", "A>B 201"),
        restarts=2,
    ),
    Case(
        name="late-success-after-it-was-settled-and-taken-back",
        lane="very-late",
        action=actions.applied_after_it_was_settled_and_taken_back,
        calls=("A>B 500", "B>A 201"),
        restarts=2,
        end="A",
    ),
    # --- preflight: certificate and PIN
    Case(name="certificate-shown-by-its-facts", lane="certificate", action=actions.shows_facts_only, end="A"),
    Case(
        name="certificate-rejected-then-put-right",
        lane="certificate",
        action=actions.refused_then_put_right,
        calls=("A>B 400", "A>B 201"),
        restarts=1,
        words=("Stalled/CertificateRejected", "Ready/Serving"),
        events=("!CertificateRejected", DONE),
    ),
    Case(
        name="other-400-with-a-certificate",
        lane="certificate",
        action=actions.refused_for_something_else,
        calls=("A>B 400", "A>B 201"),
        restarts=1,
        words=("Stalled/CertificateRejected",),
    ),
    Case(
        name="certificate-rejected-then-taken-back",
        lane="logged-off",
        action=actions.refused_then_taken_back,
        calls=("A>B 400", "A>A 201"),
        restarts=1,
        words=("Ready/CertificateRejected", "Ready/Serving"),
        end="A",
    ),
    Case(
        name="account-secret-missing", lane="certificate", action=actions.secret_missing, calls=ONCE, restarts=1, events=("!SecretMissing",)
    ),
    Case(name="certificate-missing", lane="certificate", action=spoiled("CertificateMissing", certificate=None), calls=ONCE, restarts=1),
    Case(
        name="certificate-not-base64",
        lane="certificate",
        action=spoiled("CertificateMalformed", certificate="not base64 at all!"),
        calls=ONCE,
        restarts=1,
    ),
    Case(name="no-expiry", lane="expiry", action=spoiled("CertificateExpiryUnknown", expiresAt=None), calls=ONCE, restarts=1),
    Case(
        name="unreadable-expiry", lane="expiry", action=spoiled("CertificateExpiryUnknown", expiresAt="next summer"), calls=ONCE, restarts=1
    ),
    Case(
        name="expired-is-never-sent",
        lane="expiry",
        action=spoiled("CertificateExpired", certificate=_certificate(-1), expiresAt=_in(-1)),
        calls=ONCE,
        restarts=1,
        events=("!CertificateExpired",),
    ),
    Case(
        name="expires-within-a-day",
        lane="expiry",
        action=spoiled("CertificateExpired", certificate=_certificate(0.9), expiresAt=_in(0.9)),
        calls=ONCE,
        restarts=1,
    ),
    Case(name="expires-in-two-days", lane="expiry", action=actions.expires_soon(_certificate(2), _in(2)), calls=ONCE, restarts=1),
    Case(
        name="pin-wrong", lane="pin", action=actions.pin("111222"), calls=("A>B 400", "A>B 201"), restarts=1, events=("!PinRejected", DONE)
    ),
    Case(
        name="pin-missing", lane="pin", action=actions.pin(None), calls=("A>B 400", "A>B 201"), restarts=1, words=("Stalled/PinRejected",)
    ),
    Case(
        name="registration-closed",
        lane="pin",
        action=actions.registration_closed,
        calls=("A>B 500", "A>B 201"),
        restarts=1,
        events=("!RegistrationClosed", DONE),
    ),
    Case(name="pin-malformed", lane="pin", action=actions.pin_malformed, calls=ONCE, restarts=1, events=("!PinMalformed",)),
    Case(name="registered-within-7-days", lane="young", action=actions.registered_lately, calls=ONCE, restarts=1),
    Case(
        name="registered-before-that",
        lane="old",
        action=actions.registered_long_ago,
        calls=ONCE,
        restarts=1,
        words=("Stalled/RegistrationTooOld",),
    ),
    # --- preflight: who is there
    Case(
        name="too-few-coreapps",
        lane="scarce",
        start=1,
        action=actions.too_few_coreapps,
        calls=("A>4 201",),
        restarts=1,
        end="4",
        events=(DONE,),
    ),
    Case(name="without-spares", lane="scarce", start=1, action=actions.without_spares, calls=ONCE, restarts=1),
    Case(name="services-denied", lane="scarce", start=1, action=actions.services_denied, calls=ONCE, restarts=1),
    Case(
        name="webapp-down",
        lane="down",
        start=1,
        action=actions.webapp_down,
        calls=ONCE,
        restarts=1,
        words=("Ready/WebappUnavailable", "Ready/Serving"),
    ),
    # --- drift
    Case(name="drift-adopted", lane="drift", action=actions.drift_adopted, restarts=1, events=("!ShardsDrifted",)),
    Case(name="drift-reported-then-repaired", lane="drift", action=actions.drift_repaired_later, calls=("B>A 201",), restarts=2, end="A"),
    Case(name="drift-repaired-down", lane="drift", start=1, action=actions.drifts(2), calls=("2>1 201",), restarts=2, end="1"),
    Case(name="drift-beyond-the-pods", lane="drift", start=1, action=actions.drifts(8), calls=("8>1 201",), restarts=2, end="1"),
    Case(name="drift-repaired-up", lane="drift", start=2, action=actions.drifts(1), calls=("1>2 201",), restarts=2, end="2"),
    # --- windows
    Case(
        name="window-shut-then-reshard-now",
        lane="windows",
        start=1,
        action=windows.shut,
        calls=ONCE,
        restarts=1,
        words=("Reconciling/WindowClosed", "Reconciling/UpToDate"),
        events=("WindowClosed", SENT, DONE),
    ),
    Case(name="window-shut-then-taken-back", lane="windows", start=1, action=windows.shut_taken_back, end="A"),
    Case(name="window-opens", lane="windows", action=windows.opens, calls=ONCE, restarts=1, words=("Reconciling/WindowClosed",)),
    Case(name="window-open", lane="windows", action=windows.open_, calls=ONCE, restarts=1),
    Case(
        name="window-with-invalid-cron",
        lane="windows",
        action=windows.invalid("61 * * * *", schedule="61 * * * *"),
        calls=ONCE,
        restarts=1,
        events=("!WindowInvalid",),
    ),
    Case(
        name="window-with-invalid-time-zone",
        lane="windows",
        action=windows.invalid("Mars/Olympus", timeZone="Mars/Olympus"),
        calls=ONCE,
        restarts=1,
        events=("!WindowInvalid",),
    ),
    # --- another mind
    Case(name="taken-back-before-ready", lane="mind", start=1, action=actions.taken_back_before_ready, end="A"),
    Case(name="taken-back-while-busy", lane="mind", action=actions.taken_back_while_busy, calls=("A>B 403+",), end="A"),
    Case(name="taken-back-in-flight", lane="mind", action=actions.taken_back_in_flight, calls=("A>B 201", "B>A 201"), restarts=2, end="A"),
    Case(
        name="taken-back-in-the-restart",
        lane="mind",
        action=actions.taken_back_in_the_restart,
        calls=("A>B 201", "B>A 201"),
        restarts=2,
        end="A",
    ),
    Case(name="edited-often", lane="mind", start=1, action=actions.edited_often, calls=ONCE, restarts=1, end="2"),
    Case(name="taken-back-while-unknown", lane="mind-unknown", action=actions.taken_back_while_unknown, calls=("A>B 500",), end="A"),
    Case(
        name="taken-back-while-unknown-and-late",
        lane="mind-unknown",
        action=actions.taken_back_while_unknown_and_late,
        calls=("A>B 500", "B>A 201"),
        restarts=2,
        end="A",
    ),
    # --- the restart
    Case(
        name="pod-deleted-in-the-restart",
        lane="restart",
        action=actions.deleted_in_the_restart,
        calls=ONCE,
        restarts=1,
        words=("Reconciling/Restarting",),
        events=(DONE,),
    ),
    Case(
        name="a-coreapp-never-back",
        lane="restart",
        action=actions.never_back,
        calls=ONCE,
        restarts=1,
        words=("Reconciling/Restarting", "Reconciling/RestartOverdue", "Reconciling/UpToDate"),
        events=("!RestartOverdue",),
    ),
    Case(
        name="packed-low-before-pods-go", lane="pack", start=2, action=actions.packed_low, calls=ONCE, restarts=1, events=("ScalingDown",)
    ),
    # --- the way in
    Case(name="own-admin-secret", lane="login", action=entries.own_password, calls=ONCE, restarts=1),
    Case(
        name="wrong-password",
        lane="login",
        action=entries.wrong_password,
        calls=ONCE,
        restarts=1,
        words=("Stalled/LoginRejected", "Stalled/UpToDate"),
        events=("!LoginRejected",),
    ),
    Case(name="admin-secret-missing", lane="login", action=entries.login_missing, calls=ONCE, restarts=1, words=("Stalled/SecretMissing",)),
    Case(name="admin-secret-without-password", lane="login", action=entries.login_without_password, calls=ONCE, restarts=1),
    Case(name="first-login-again", lane="login", action=entries.first_login_again, calls=ONCE, restarts=1),
    Case(
        name="admin-secret-missing-at-first", lane="login-late", action=entries.login_missing_at_first, events=("!SecretMissing",), end="A"
    ),
    Case(name="weak-password-at-first", lane="login-weak", action=entries.weak_password_at_first, events=("!LoginRejected",), end="A"),
    Case(name="wrong-authority-at-first", lane="tls-late", action=entries.wrong_authority_at_first, end="A"),
    Case(name="own-authority", lane="tls", action=entries.own_authority, calls=ONCE, restarts=1),
    Case(
        name="wrong-authority",
        lane="tls",
        action=entries.wrong_authority,
        calls=ONCE,
        restarts=1,
        words=("Ready/WebappNotResponding", "Ready/Serving"),
        events=("!WebappNotResponding",),
    ),
    Case(
        name="not-verified",
        lane="tls",
        action=entries.not_verified,
        calls=ONCE,
        restarts=1,
        words=("Ready/WebappNotResponding", "Ready/Serving"),
    ),
    Case(
        name="wrong-server-name",
        lane="tls",
        action=entries.wrong_name,
        calls=ONCE,
        restarts=1,
        words=("Ready/WebappNotResponding", "Ready/Serving"),
    ),
    # --- the leader is gone
    Case(name="crash-before-the-intent", lane="crash-a", start=1, action=crashes.before_the_intent, calls=ONCE, restarts=1),
    Case(name="crash-after-the-answer", lane="crash-a", action=crashes.after_the_answer, calls=ONCE, restarts=1),
    Case(name="crash-before-verification", lane="crash-a", action=crashes.before_verification, calls=ONCE, restarts=1),
    Case(name="crash-during-the-restart", lane="crash-a", action=crashes.during_the_restart, calls=ONCE, restarts=1),
    Case(name="crash-after-the-intent", lane="crash-b", start=1, action=crashes.after_the_intent, calls=ONCE, restarts=1),
    Case(name="crash-during-the-call", lane="crash-b", action=crashes.during_the_call, calls=ONCE, restarts=1, events=(DONE,)),
    Case(name="crash-twice", lane="crash-b", action=crashes.twice, calls=ONCE, restarts=1),
    Case(
        name="certificate-rejected-over-a-restart",
        lane="crash-c",
        action=actions.refused_over_a_restart,
        calls=("A>B 400", "A>B 201"),
        restarts=1,
        words=("Stalled/CertificateRejected", "Stalled/UpToDate"),
    ),
    Case(
        name="crash-between-a-rejection-and-its-note",
        lane="crash-c",
        action=crashes.before_the_refusal_is_noted,
        calls=("A>B 400", "A>B 201"),
        restarts=1,
        words=("Reconciling/AnswerUnknown", "Stalled/CertificateRejected", "Stalled/UpToDate"),
        events=("!CertificateRejected", DONE),
    ),
    Case(
        name="crash-during-a-call-in-vain", lane="crash-c", action=crashes.during_a_call_in_vain, calls=("A>B 500", "A>B 201"), restarts=1
    ),
    Case(name="lease-lost-in-the-call", lane="crash-d", action=crashes.lease_lost_in_the_call, calls=ONCE, restarts=1),
    Case(
        name="lease-lost-in-a-call-in-vain",
        lane="crash-d",
        action=crashes.lease_lost_in_a_call_in_vain,
        calls=("A>B 500", "A>B 201"),
        restarts=1,
    ),
)
