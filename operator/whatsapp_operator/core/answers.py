"""What a failed call of Set Shards means: a table. Texts and codes decide first, under any HTTP status; the status decides last.

No document gives the HTTP status of a wrong certificate, and error 1005 stands for bad credentials, for a certificate error and for an
expired build alike. So the client's texts are read first. An answer may have several errors: each is judged alone, and the most serious
one counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from .snapshot import Answer, Rejection

BUSY_CODES = frozenset({429, 1011, 1015, 1016, 1017, 1018})
"""Rate limit, not ready, too many requests, overloaded, not the primary Master, not the primary Coreapp: the vendor says to try again."""
BUSY_STATUSES = frozenset({429, 503})
"""Rate limit, and a full queue of jobs."""
NOT_THERE_STATUSES = frozenset({404, 405})
"""The server does not know the call, so it did nothing: it is another server, or another release."""
FAULT_CODES = frozenset({1014, 1023})
"""Internal error and database error: it is not known what was done before."""
PARAMETER_CODES = frozenset({1008, 1009})
"""A parameter is missing, or has a value that is not valid."""
CERTIFICATE_CODES = frozenset({430, 432, 433})
"""Certificate unsigned, of another account, or with a wrong signature."""
LOCKED_CODE = 1031
PASSWORD_CODE = 1024
"""The password must be changed first, which a login does."""
LONGEST_PAUSE = timedelta(hours=1)
"""The longest pause that a client is granted."""
MOST_ERRORS, MOST_TEXT = 20, 2000
"""How many errors of one answer are judged, and how many characters of each."""


@dataclass(frozen=True, slots=True)
class ApiFault:
    """One error of an answer: its code, and its title and details."""

    code: int | None = None
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """The meaning of an answer: the result of the call, and why it was rejected, if it was."""

    name: str
    answer: Answer
    rejection: Rejection | None = None


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One entry of the table: the meaning of an error if ``when(code, text, status)`` holds. Texts are lower-case, with single spaces."""

    meaning: Meaning
    when: Callable[[int | None, str, int], bool]


def _says(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda text: compiled.search(text) is not None


_HAS = r"(?:(?:is|are|was|were|has|have|been|already|now) )+"
"""Words between a subject and what happened to it. Not "will be" or "may be": that is advice."""
_says_temporary_ban = _says(r"\btemporar(?:y|ily) (?:ban|banned|locked|blocked|restricted|suspended)\b")
_ADVICE = re.compile(r"\b(?:not|never|will|would|may|might|can|could|avoid)\b[^.:;,]{0,30}\bbanned\b")
"""Texts about a ban that does not exist yet. A ban ends a cluster for good, so a warning must not count as one."""
_names_ban = _says(rf"\b{_HAS}(?:permanently )?banned\b|^banned\b|[.:;,] ?banned\b|\baccount (?:{_HAS})?(?:banned|locked)\b")
_says_closed = _says(
    rf"\bregistrations? (?:{_HAS})?(?:blocked|closed|disabled|not (?:allowed|possible)|no longer \w+)\b"
    r"|\bno longer (?:accepts?|allows?|supports?) (?:new )?registrations?\b"
    rf"|\b{_HAS}sunset\b"
)
_says_expired = _says(
    rf"\b(?:app|application|build|client|version|software) (?:{_HAS})?(?:expired|outdated|obsolete|too old|no longer supported)\b(?! cert)"
    r"|\b(?:expired|outdated|obsolete) (?:app|application|build|client|version|software)(?! cert)\b"
)
_says_logged_off = _says(r"\blogged (?:off|out)\b")
_says_login = _says(r"\b(?:tokens?|sessions?|passwords?|credentials?)\b")
"""Then the operator is what is not admitted."""
_says_pin = _says(r"\btwo (?:step|factor)\b|\b2fa\b|\bpin\b")
_WRONG = r"(?:wrong|invalid|incorrect|bad|unknown|expired|unsigned|revoked|mismatch(?:ed)?|not valid|rejected|refused|errors?|failed)"
_says_certificate_wrong = _says(
    rf"\bvname\b|\b{_WRONG}\W+(?:\w+\W+){{0,3}}cert(?:ificate)?\b|\bcert(?:ificate)?\W+(?:\w+\W+){{0,4}}{_WRONG}\b"
)
_says_certificate = _says(r"\bcert(?:ificate)?s?\b")
_says_transport = _says(r"\b(?:tls|ssl|https|x ?509|handshake|database|mysql|postgres\w*|webhook)\b")
"""Then the text is about a certificate of a connection, not about the account's."""
_says_busy = _says(
    r"\btoo many requests\b|\brate limit\b|\boverloaded\b|\bnot ready\b|\bnot primary\b|\btemporarily unavailable\b|\btry again later\b"
)

BANNED = Meaning(name="Banned", answer=Answer.REJECTED, rejection=Rejection.BANNED)
CLOSED = Meaning(name="RegistrationClosed", answer=Answer.REJECTED, rejection=Rejection.REGISTRATION_CLOSED)
CERTIFICATE = Meaning(name="Certificate", answer=Answer.REJECTED, rejection=Rejection.CERTIFICATE)
PARAMETER = Meaning(name="CertificateParameter", answer=Answer.REJECTED, rejection=Rejection.CERTIFICATE_PARAMETER)
PIN = Meaning(name="Pin", answer=Answer.REJECTED, rejection=Rejection.PIN)
EXPIRED = Meaning(name="ClientExpired", answer=Answer.REJECTED, rejection=Rejection.CLIENT_EXPIRED)
UNKNOWN = Meaning(name="Unknown", answer=Answer.UNKNOWN)
BUSY = Meaning(name="Busy", answer=Answer.BUSY)
STALE_TOKEN = Meaning(name="StaleToken", answer=Answer.NONE)
"""The token was rejected, so the call had no effect."""
OTHER = Meaning(name="Other", answer=Answer.REJECTED, rejection=Rejection.OTHER)

TABLE: tuple[_Pattern, ...] = (
    # A code that means "try again" is exact; its text may be about anything.
    _Pattern(BUSY, lambda code, text, status: code in BUSY_CODES or _says_temporary_ban(text)),
    # An internal fault: its text is about the internals too, unless the account's state explains it.
    _Pattern(UNKNOWN, lambda code, text, status: code in FAULT_CODES and _says_transport(text)),
    # Texts and codes of a rejection, under every status.
    _Pattern(BANNED, lambda code, text, status: code == LOCKED_CODE or _names_ban(_ADVICE.sub("", text))),
    _Pattern(CLOSED, lambda code, text, status: _says_closed(text)),
    _Pattern(EXPIRED, lambda code, text, status: _says_expired(text)),
    _Pattern(CERTIFICATE, lambda code, text, status: _says_logged_off(text) and not _says_login(text)),
    _Pattern(PIN, lambda code, text, status: _says_pin(text)),
    _Pattern(PARAMETER, lambda code, text, status: code in PARAMETER_CODES and _says_certificate(text)),
    _Pattern(
        CERTIFICATE,
        lambda code, text, status: code in CERTIFICATE_CODES or (_says_certificate_wrong(text) and not _says_transport(text)),
    ),
    # A busy client that mentions the certificate only in passing.
    _Pattern(BUSY, lambda code, text, status: _says_busy(text) or status in BUSY_STATUSES),
    _Pattern(CERTIFICATE, lambda code, text, status: _says_certificate(text) and not _says_transport(text)),
    _Pattern(STALE_TOKEN, lambda code, text, status: code == PASSWORD_CODE or (400 <= status < 500 and _says_login(text))),
    _Pattern(OTHER, lambda code, text, status: code in PARAMETER_CODES),
    # The status, if text and code are unknown.
    _Pattern(BUSY, lambda code, text, status: status == 403 or status in NOT_THERE_STATUSES),
    _Pattern(STALE_TOKEN, lambda code, text, status: status == 401),
    _Pattern(UNKNOWN, lambda code, text, status: code in FAULT_CODES or not 400 <= status < 500 or status == 408),
    _Pattern(OTHER, lambda code, text, status: True),
)
"""In order; the first entry that holds is the meaning of one error."""

GRAVITY: tuple[Meaning, ...] = (BANNED, CLOSED, CERTIFICATE, PARAMETER, PIN, EXPIRED, UNKNOWN, BUSY, STALE_TOKEN, OTHER)
"""Of several errors in one answer, the one that is first in this list counts."""


def meaning(status: int | None, faults: tuple[ApiFault, ...] = ()) -> Meaning:
    """Return the meaning of a failed call. Pure and total.

    ``status``: of the answer; None if there was none. ``faults``: the errors in it; empty if it cannot be read.
    """
    if status is None:
        return UNKNOWN
    found = {_meaning(one, status) for one in faults[:MOST_ERRORS] or (ApiFault(),)}
    return next(one for one in GRAVITY if one in found)


def _meaning(faults: ApiFault, status: int) -> Meaning:
    text = " ".join(re.sub(r"[_\-\s]+", " ", faults.text[:MOST_TEXT].lower()).split())
    return next(pattern.meaning for pattern in TABLE if pattern.when(faults.code, text, status))


def pause(retry_after: str | None, *, now: datetime) -> timedelta | None:
    """Return for how long a client asks not to be called, at most ``LONGEST_PAUSE``; None if it does not, or if it cannot be read.

    ``retry_after``: the header of that name, in seconds or as an HTTP date. ``now``: the time on the clock that the date is of.
    """
    text = (retry_after or "").strip()
    if re.fullmatch(r"[0-9]{1,100}", text):
        return timedelta(seconds=min(int(text), LONGEST_PAUSE.total_seconds()))
    at = moment(text)
    return min(max(at - now, timedelta(0)), LONGEST_PAUSE) if at is not None else None


def moment(text: str) -> datetime | None:
    """Return the time that an HTTP date names; None if it is none."""
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError:
        return None
