"""The reasons not to send the account's certificate, in the order in which they are reported (laws#8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from . import manifests
from .actions import State
from .certificate import NO_CERTIFICATE
from .desired import Desired
from .facts import Facts
from .reasons import Reason
from .snapshot import AccountSecret

SECRET_AWAITED = timedelta(seconds=5)
"""How long the operator waits for a Secret that the spec names: both may be applied together."""
NO_PIN: Final = "none"
"""Represents the PIN of an account without a Secret."""
REGISTRATION_GRACE = timedelta(days=7)
"""How long after registration Set Shards may go without a certificate (client#set-shards)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """A reason not to send a certificate (laws#8), and the sentence for the user."""

    name: Reason
    when: Callable[[Facts], bool]
    why: Callable[[Facts], str]
    is_of_account: bool = True
    """Whether it is about the certificate or the PIN rather than the client."""
    state: State = State.STUCK
    """Whether a person must act, or it may pass by itself."""


def _secret(f: Facts) -> str | None:
    return f.desired.account.secret_name if f.desired.account is not None else None


def _missing_secret(f: Facts) -> str | None:
    account = f.snapshot.account
    if account is not None and account.missing is not None:
        return f"{account.missing}, which spec.account.secretRef names, does not exist"
    return f.snapshot.missing


def is_secret_missing(f: Facts) -> bool:
    """Whether a Secret that the spec names, or a key in it, is missing."""
    return _missing_secret(f) is not None


def _with_certificate(f: Facts) -> AccountSecret | None:
    """Return the Secret of the account if it has a certificate."""
    account = f.snapshot.account
    return account if account is not None and account.has_certificate else None


def expiry_of(f: Facts) -> str | None:
    """Return when the account's certificate expires, as text, or None if that is not known."""
    at = f.snapshot.account.expires_at if f.snapshot.account else None
    return manifests.timestamp(at) if at else None


def account_version(desired: Desired, secret: AccountSecret | None) -> str:
    """Return a version of the account's data that calls carry: it changes with each edit of the Secret.

    Without a Secret, it changes with each edit of the spec.
    """
    return secret.version if secret is not None and secret.version is not None else f"generation-{desired.generation}"


def pin_of(secret: AccountSecret | None) -> str:
    """Return what identifies the PIN that a call would carry: it changes with the PIN alone, not with the rest of its Secret."""
    return secret.pin_digest if secret is not None and secret.pin_digest is not None else NO_PIN


def build(f: Facts) -> str:
    """Return what identifies the client's build: the version that it reports, if it did, and its images."""
    return f"{f.snapshot.client.version or '?'} {_images(f)}"


def _images(f: Facts) -> str:
    images = f.desired.images
    return " ".join(dict.fromkeys((images.webapp, images.coreapp))) if images else f.desired.image


def _has_expired(f: Facts) -> bool:
    """Whether this is still the build that reported its expiry; while its version is unknown, the same images count as the same build."""
    expired = f.record.expired_build
    if expired is None:
        return False
    return expired == build(f) or (f.snapshot.client.version is None and expired.partition(" ")[2] == _images(f))


def _would_send(f: Facts) -> str | None:
    """Return the fingerprint of the certificate that a call would carry; None if it cannot be read, or none is needed."""
    if f.desired.account is None:
        return None
    secret = _with_certificate(f)
    if secret is None:
        return NO_CERTIFICATE
    return secret.certificate.fingerprint if secret.certificate else None


def _is_rejected(f: Facts) -> bool:
    """Whether a call would carry a certificate that the client rejected, even if it has rejected others since."""
    sent = _would_send(f)
    return sent is not None and sent in {f.record.rejected_fingerprint, *f.record.rejected_before}


def _rejected_certificate(f: Facts) -> str:
    """Return which certificate was rejected, and why; the cause is known only for the last one."""
    sent = _would_send(f)
    is_last = sent == f.record.rejected_fingerprint
    because = f" ({f.record.rejected_because})" if is_last and f.record.rejected_because else ""
    if sent == NO_CERTIFICATE:
        return f"WhatsApp rejected Set Shards without a certificate{because}; it is not sent without one again."
    return f"WhatsApp rejected Set Shards with the certificate whose fingerprint begins {sent:.12}{because}; it is not sent again."


def _where(f: Facts) -> str:
    return f"Secret {_secret(f)}" if _secret(f) else "a Secret that spec.account.secretRef names"


def _keeper(f: Facts) -> str:
    """Return who keeps the number. Users of another namespace do not learn the name of the cluster; it is in the operator's log."""
    kept_by = str(f.snapshot.number_kept_by)
    if kept_by.partition("/")[0] == f.desired.key.namespace:
        return f"WhatsAppCluster {kept_by}"
    return "A WhatsAppCluster of another namespace, which the operator's log names,"


OBJECTIONS: tuple[Objection, ...] = (
    Objection(
        name=Reason.BANNED,
        when=lambda f: f.is_banned,
        why=lambda _: (
            "The client says that the account is banned; the operator sends nothing more. Ask Meta's support, then create a new cluster."
        ),
    ),
    Objection(
        name=Reason.NUMBER_IN_USE,
        is_of_account=False,
        when=lambda f: f.snapshot.number_kept_by is not None,
        why=lambda f: (
            f"{_keeper(f)} has the same phone number and keeps it: two registrations of one number end each other. So this cluster does "
            "not send Set Shards. Delete one of the two, or make this one with another number."
        ),
    ),
    Objection(
        name=Reason.REGISTRATION_CLOSED,
        is_of_account=False,
        when=lambda f: f.record.registration_closed_for == account_version(f.desired, f.snapshot.account),
        why=lambda f: (
            "WhatsApp says that registration is closed for this number; Set Shards is not tried again. The certificate is not at fault. "
            "Ask Meta's support. Once they have opened it, edit "
            + (f"Secret {_secret(f)} (an annotation is enough)" if _secret(f) else "the spec")
            + ", and the operator tries again."
        ),
    ),
    Objection(
        name=Reason.CLIENT_EXPIRED,
        is_of_account=False,
        when=_has_expired,
        why=lambda f: (
            f"The client says that its build has expired ({f.record.expired_build}); Set Shards is not tried again with it. "
            "The certificate is not at fault. Set spec.client.images to a build that has not expired."
        ),
    ),
    Objection(
        name=Reason.AWAITING_SECRET,
        state=State.WAITING,
        when=lambda f: is_secret_missing(f) and not f.has_held_for("SecretMissing", SECRET_AWAITED),
        why=lambda f: f"{_missing_secret(f)}. The operator waits a moment for it.",
    ),
    Objection(
        name=Reason.SECRET_MISSING,
        when=is_secret_missing,
        why=lambda f: f"{_missing_secret(f)}. Create it.",
    ),
    Objection(
        name=Reason.SECRET_MALFORMED,
        when=lambda f: f.snapshot.malformed is not None,
        why=lambda f: f"{f.snapshot.malformed}",
    ),
    Objection(
        name=Reason.PIN_MALFORMED,
        when=lambda f: f.snapshot.account is not None and not f.snapshot.account.pin_is_valid,
        why=lambda f: f"Key pin of Secret {_secret(f)} is not six digits. Put the PIN of the two-step verification there, or remove it.",
    ),
    Objection(
        name=Reason.PIN_REJECTED,
        when=lambda f: f.record.rejected_pin == pin_of(f.snapshot.account),
        why=lambda f: (
            "WhatsApp rejected the PIN of the two-step verification, or asks for one; Set Shards is not tried again. "
            f"Put the right one under key pin of {_where(f)}. To try the same PIN again, delete that Secret and create it again."
        ),
    ),
    Objection(
        name=Reason.REGISTRATION_TOO_OLD,
        when=lambda f: (
            f.desired.account is not None
            and _with_certificate(f) is None
            and f.desired.account.registered_at is not None
            and f.latest - f.desired.account.registered_at > REGISTRATION_GRACE
        ),
        why=lambda _: (
            "More than 7 days after registration Set Shards disconnects the client unless it carries a certificate. "
            "Copy it from Business Manager into key certificate of the Secret that spec.account.secretRef names."
        ),
    ),
    Objection(
        name=Reason.CERTIFICATE_MISSING,
        when=lambda f: f.desired.account is not None and _with_certificate(f) is None and f.desired.account.registered_at is None,
        why=lambda f: f"There is no key certificate in {_where(f)}. Copy the certificate from Business Manager into it.",
    ),
    Objection(
        name=Reason.CERTIFICATE_MALFORMED,
        when=lambda f: (secret := _with_certificate(f)) is not None and secret.certificate is None,
        why=lambda f: f"Key certificate of Secret {_secret(f)} is not base64. Copy all of it again from Business Manager.",
    ),
    Objection(
        name=Reason.CERTIFICATE_EXPIRY_UNKNOWN,
        when=lambda f: (secret := _with_certificate(f)) is not None and secret.expires_at is None,
        why=lambda f: (
            f"Key expiresAt of Secret {_secret(f)} is missing or no RFC 3339 time such as 2027-05-01T00:00:00Z. "
            "Put the certificate's expiry time there: an expired one gets the account banned, so none is sent while its expiry is unknown."
        ),
    ),
    Objection(
        name=Reason.CERTIFICATE_EXPIRED,
        when=lambda f: (
            (secret := _with_certificate(f)) is not None
            and secret.expires_at is not None
            and secret.expires_at - f.latest < f.desired.tuning.certificate_margin
        ),
        why=lambda f: (
            f"The certificate in Secret {_secret(f)} expires at {expiry_of(f)}, which is too soon or already past. An expired one gets the "
            "account banned. Put a new one there with its expiresAt."
        ),
    ),
    Objection(
        name=Reason.CERTIFICATE_REJECTED,
        when=_is_rejected,
        why=lambda f: f"{_rejected_certificate(f)} Put the right one into {_where(f)}.",
    ),
)


ALWAYS_REPORTED = frozenset(
    {
        Reason.BANNED,
        Reason.NUMBER_IN_USE,
        Reason.CLIENT_EXPIRED,
        Reason.AWAITING_SECRET,
        Reason.SECRET_MISSING,
        Reason.SECRET_MALFORMED,
    }
)
"""Objections that are reported even if no change of shards waits for them."""


def objection(f: Facts) -> Objection | None:
    """Return the first objection to sending Set Shards with the account and the client as they are, or None. Pure.

    A Secret that could not be read is no objection.
    """
    return next(_holding(f), None)


def objection_to_account(f: Facts) -> Objection | None:
    """Return the same, but only objections to the account's certificate or PIN."""
    return next((one for one in _holding(f) if one.is_of_account), None)


def _holding(f: Facts) -> Iterator[Objection]:
    return (one for one in OBJECTIONS if one.when(f) and (one.name == Reason.BANNED or not is_unread(f)))


def is_unread(f: Facts) -> bool:
    """Whether the spec names a Secret of the account that this observation has not read."""
    return bool(_secret(f)) and f.snapshot.account is None
