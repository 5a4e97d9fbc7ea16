"""May the account's certificate be sent? Every reason not to, in the order in which it is named (DESIGN law 8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from . import manifests
from .facts import Facts
from .model import State

SECRET_AWAITED = timedelta(seconds=5)
"""How long a Secret may be named before it exists: who applies both together needs no person."""
REGISTRATION_GRACE = timedelta(days=7)
"""How long after registration Set Shards may go without a certificate (multiconnect-page.txt, "Parameters", cert)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """A reason not to send a certificate (DESIGN law 8), and the sentence for the user."""

    name: str
    when: Callable[[Facts], bool]
    why: Callable[[Facts], str]
    state: State = State.STUCK
    """Whether a person must act, or it may pass by itself."""


def _secret(f: Facts) -> str:
    return f.want.account.secret_name or "" if f.want.account else ""


def _missing_secret(f: Facts) -> str | None:
    account = f.see.account
    if account is not None and account.missing is not None:
        return f"{account.missing} is not there, and spec.account.secretRef names it"
    return f.see.missing


def is_secret_missing(f: Facts) -> bool:
    """Whether a Secret or a key of it that the spec names is not there."""
    return _missing_secret(f) is not None


def _has_certificate(f: Facts) -> bool:
    return f.see.account is not None and f.see.account.has_certificate


def _expires(f: Facts) -> str:
    at = f.see.account.expires_at if f.see.account else None
    return manifests.timestamp(at) if at else "unknown"


OBJECTIONS: tuple[Objection, ...] = (
    Objection(
        name="Banned",
        when=lambda f: f.is_banned,
        why=lambda _: "The client says that the account is banned; nothing is sent any more. Ask Meta's support, then make a new cluster.",
    ),
    Objection(
        name="AwaitingSecret",
        state=State.WAITING,
        when=lambda f: is_secret_missing(f) and not f.has_held_for("SecretMissing", SECRET_AWAITED),
        why=lambda f: f"{_missing_secret(f)}. It may come in a moment.",
    ),
    Objection(
        name="SecretMissing",
        when=is_secret_missing,
        why=lambda f: f"{_missing_secret(f)}. Create it.",
    ),
    Objection(
        name="PinMalformed",
        when=lambda f: f.see.account is not None and not f.see.account.pin_well_formed,
        why=lambda f: f"Key pin of Secret {_secret(f)} is not six digits. Put the PIN of the two-step verification there, or remove it.",
    ),
    Objection(
        name="PinRefused",
        when=lambda f: (
            f.see.account is not None and f.see.account.version is not None and f.see.account.version == f.record.refused_pin_version
        ),
        why=lambda f: (
            "WhatsApp refused the PIN of the two-step verification, or asks for one; it is not tried again. "
            f"Put the right one under key pin of Secret {_secret(f)}."
        ),
    ),
    Objection(
        name="RegistrationTooOld",
        when=lambda f: (
            f.want.account is not None
            and not _has_certificate(f)
            and f.want.account.registered_at is not None
            and f.wall - f.want.account.registered_at > REGISTRATION_GRACE
        ),
        why=lambda _: (
            "More than 7 days after registration Set Shards disconnects the client unless it carries a certificate. "
            "Copy it from Business Manager into key certificate of the Secret that spec.account.secretRef names."
        ),
    ),
    Objection(
        name="CertificateMissing",
        when=lambda f: f.want.account is not None and not _has_certificate(f) and f.want.account.registered_at is None,
        why=lambda f: f"Secret {_secret(f)} has no key certificate. Copy the certificate from Business Manager into it.",
    ),
    Objection(
        name="CertificateMalformed",
        when=lambda f: f.see.account is not None and _has_certificate(f) and f.see.account.certificate is None,
        why=lambda f: f"Key certificate of Secret {_secret(f)} is not base64. Copy it again from Business Manager, whole.",
    ),
    Objection(
        name="CertificateExpiryUnknown",
        when=lambda f: f.see.account is not None and _has_certificate(f) and f.see.account.expires_at is None,
        why=lambda f: (
            f"Key expiresAt of Secret {_secret(f)} is missing or no RFC 3339 time such as 2027-05-01T00:00:00Z. "
            "Put the time there at which the certificate expires: an expired one gets the account banned, so none is sent whose expiry is "
            "not known."
        ),
    ),
    Objection(
        name="CertificateExpired",
        when=lambda f: (
            f.see.account is not None
            and _has_certificate(f)
            and f.see.account.expires_at is not None
            and f.see.account.expires_at - f.wall < f.want.tuning.certificate_margin
        ),
        why=lambda f: (
            f"The certificate in Secret {_secret(f)} expires at {_expires(f)}: too close or past, and an expired one gets the "
            "account banned. Put a new one there with its expiresAt."
        ),
    ),
    Objection(
        name="CertificateRefused",
        when=lambda f: (
            f.see.account is not None
            and f.see.account.certificate is not None
            and f.see.account.certificate.fingerprint == f.record.refused_fingerprint
        ),
        why=lambda f: (
            f"WhatsApp refused Set Shards with the certificate whose fingerprint begins {(f.record.refused_fingerprint or '')[:12]}"
            + (f" ({f.record.refused_because})" if f.record.refused_because else "")
            + f"; it is not sent again. Put the right one into Secret {_secret(f)}."
        ),
    ),
)


ALWAYS_SAID = frozenset({"Banned", "AwaitingSecret", "SecretMissing"})
"""Objections that matter although no change of shards waits for it."""


def objection(f: Facts) -> Objection | None:
    """Return why no Set Shards may be sent with the account as it is, or None. Pure; the first that holds.

    Of a Secret that could not be read nothing is said.
    """
    return next((one for one in OBJECTIONS if one.when(f) and (one.name == "Banned" or not is_unread(f))), None)


def is_unread(f: Facts) -> bool:
    """Whether the spec names a Secret of the account that this look has not read."""
    return bool(_secret(f)) and f.see.account is None
