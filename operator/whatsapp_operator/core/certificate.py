"""Reads the fields of a verified-name certificate, as far as possible. Its content never leaves this module: only facts about it do.

The publicly known shape (client#certificate) is protobuf: details (1), signature (2), server signature (3); the details hold
serial (1), issuer (2), verified name (4) and issue time (10). It states no expiry. That Business Manager's text is of this shape is
unconfirmed, so what cannot be read is left out and is no objection.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
DETAILS, SERIAL, ISSUER, VERIFIED_NAME, ISSUE_TIME = 1, 1, 2, 4, 10

NO_CERTIFICATE = "0" * 64
"""Used as fingerprint where Set Shards was rejected because it came without a certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """What may be known and shown of a certificate."""

    fingerprint: str
    """SHA-256 of its bytes, hexadecimal."""
    serial: str | None = None
    issuer: str | None = None
    verified_name: str | None = None
    issued_at: datetime | None = None


def read(text: str) -> CertificateFacts | None:
    """Return facts about a certificate given as base64 text, blanks and line ends ignored; None if it is no base64."""
    try:
        raw = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    if not raw:
        return None
    fingerprint = hashlib.sha256(raw).hexdigest()
    try:
        outer = dict(_fields(raw))
        details = outer.get(DETAILS)
        inner = dict(_fields(details)) if isinstance(details, bytes) else {}
    except ValueError:
        inner = {}
    serial, issue_time = inner.get(SERIAL), inner.get(ISSUE_TIME)
    return CertificateFacts(
        fingerprint=fingerprint,
        serial=str(serial) if isinstance(serial, int) else None,
        issuer=_text(inner.get(ISSUER)),
        verified_name=_text(inner.get(VERIFIED_NAME)),
        issued_at=_time(issue_time) if isinstance(issue_time, int) else None,
    )


def _text(value: int | bytes | None) -> str | None:
    if not isinstance(value, bytes):
        return None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return text[:256] if text.isprintable() else None


def _time(seconds: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a protobuf message: number, and integer or bytes; ValueError if it is none."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        kind = tag & 7
        if kind == VARINT:
            value, at = _varint(raw, at)
            yield tag >> 3, value
            continue
        if kind == BYTES:
            size, at = _varint(raw, at)
        elif kind in {FIXED64, FIXED32}:
            size = 8 if kind == FIXED64 else 4
        else:
            msg = "no protobuf"
            raise ValueError(msg)
        if at + size > len(raw):
            msg = "cut off"
            raise ValueError(msg)
        yield tag >> 3, raw[at : at + size]
        at += size


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return a number of at most ten bytes, seven bits in each, and where it ends."""
    value = 0
    for place, byte in enumerate(raw[at : at + 10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    msg = "cut off"
    raise ValueError(msg)
