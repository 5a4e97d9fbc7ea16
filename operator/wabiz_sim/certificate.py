"""The simulator's own certificates: the publicly known protobuf format of a verified-name certificate, plus an expiry.

Shape: ``VerifiedNameCertificate{1 details, 2 signature, 3 serverSignature}``, ``Details{1 serial, 2 issuer, 4 verifiedName, 10 issueTime}``
(tulir/whatsmeow, waVnameCert). The real format has no readable expiry; field 15 of Details exists only in the simulator. Pure.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_VARINT, _BYTES = 0, 2
_SERIAL, _ISSUER, _VERIFIED_NAME, _ISSUE_TIME, _EXPIRES_AT = 1, 2, 4, 10, 15


@dataclass(frozen=True, slots=True)
class Certificate:
    """The readable fields of a certificate; None: not present."""

    serial: int | None = None
    issuer: str | None = None
    verified_name: str | None = None
    issued_at: datetime | None = None
    expires_at: datetime | None = None


def make(verified_name: str, serial: int, issued_at: datetime, expires_at: datetime | None) -> str:
    """Return a certificate as base64 text, as it would be copied from Business Manager.

    Times are aware and cut to whole seconds; ``expires_at`` None makes one that states no expiry. Its signatures mean nothing.
    """
    details = (
        _number(_SERIAL, serial)
        + _text(_ISSUER, b"ent:wa")
        + _text(_VERIFIED_NAME, verified_name.encode())
        + _number(_ISSUE_TIME, int(issued_at.timestamp()))
    )
    if expires_at is not None:
        details += _number(_EXPIRES_AT, int(expires_at.timestamp()))
    signature = hashlib.sha256(details).digest() * 2
    return base64.b64encode(_text(1, details) + _text(2, signature) + _text(3, signature)).decode()


def read(certificate: str) -> Certificate:
    """Read what can be read; bytes of another shape give an empty Certificate.

    Raises ValueError when it is not base64 or empty.
    """
    blob = decode(certificate)
    try:
        details = next(value for number, value in _fields(blob) if number == 1 and isinstance(value, bytes))
        fields = dict(_fields(details))
        return Certificate(
            serial=_int(fields.get(_SERIAL)),
            issuer=_str(fields.get(_ISSUER)),
            verified_name=_str(fields.get(_VERIFIED_NAME)),
            issued_at=_time(fields.get(_ISSUE_TIME)),
            expires_at=_time(fields.get(_EXPIRES_AT)),
        )
    except (ValueError, StopIteration, OverflowError, OSError):
        return Certificate()


def decode(certificate: str) -> bytes:
    """Return the bytes of the base64 text; spaces and line breaks are ignored.

    Raises ValueError when it is not base64 or empty.
    """
    try:
        blob = base64.b64decode("".join(certificate.split()), validate=True)
    except (binascii.Error, ValueError):
        blob = b""
    if not blob:
        msg = "the certificate is not base64"
        raise ValueError(msg)
    return blob


def fingerprint(certificate: str) -> str:
    """Return the SHA-256 of the bytes of the base64 text, in hex.

    Raises ValueError when it is not base64 or empty.
    """
    return hashlib.sha256(decode(certificate)).hexdigest()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _text(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(value)) + value


def _read_varint(blob: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(blob) or shift > 63:
            msg = "cut short"
            raise ValueError(msg)
        value |= (blob[at] & 0x7F) << shift
        at += 1
        if blob[at - 1] < 0x80:
            return value, at
        shift += 7


def _fields(blob: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(blob):
        key, at = _read_varint(blob, at)
        value, at = _read_varint(blob, at)
        if key & 7 == _VARINT:
            yield key >> 3, value
        elif key & 7 == _BYTES and at + value <= len(blob):
            yield key >> 3, blob[at : at + value]
            at += value
        else:
            msg = "another wire type"
            raise ValueError(msg)


def _int(value: int | bytes | None) -> int | None:
    return value if isinstance(value, int) else None


def _str(value: int | bytes | None) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else None


def _time(value: int | bytes | None) -> datetime | None:
    return datetime.fromtimestamp(value, UTC) if isinstance(value, int) else None
