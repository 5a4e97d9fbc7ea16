"""What is read of a verified-name certificate: every shape that may be pasted, byte by byte. The encoder is of these tests alone."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsapp_operator.core.certificate import NO_CERTIFICATE, CertificateFacts, read

ISSUED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def varint(value: int) -> bytes:
    rest, out = value, b""
    while rest > 127:
        out += bytes([rest % 128 + 128])
        rest //= 128
    return out + bytes([rest])


def number(field: int, value: int) -> bytes:
    return varint(field * 8) + varint(value)


def chunk(field: int, value: bytes) -> bytes:
    return varint(field * 8 + 2) + varint(len(value)) + value


DETAILS = number(1, 987654321) + chunk(2, b"ent:wa") + chunk(4, "Müller & Söhne".encode()) + number(10, int(ISSUED.timestamp()))
CERTIFICATE = chunk(1, DETAILS) + chunk(2, b"s" * 64) + chunk(3, b"t" * 64)


def facts(raw: bytes) -> CertificateFacts:
    """What is read of these bytes; its fingerprint is theirs in any case."""
    found = read(base64.b64encode(raw).decode())
    assert found is not None
    assert found.fingerprint == hashlib.sha256(raw).hexdigest()
    return found


def nothing_of(raw: bytes) -> CertificateFacts:
    """What is known of bytes that cannot be read: their fingerprint alone."""
    return CertificateFacts(fingerprint=hashlib.sha256(raw).hexdigest())


def of_details(details: bytes) -> CertificateFacts:
    return facts(chunk(1, details))


def test_everything_that_a_certificate_says_is_read() -> None:
    assert facts(CERTIFICATE) == CertificateFacts(
        fingerprint=hashlib.sha256(CERTIFICATE).hexdigest(),
        serial="987654321",
        issuer="ent:wa",
        verified_name="Müller & Söhne",
        issued_at=ISSUED,
    )


def test_blanks_and_line_ends_are_no_part_of_it() -> None:
    text = base64.b64encode(CERTIFICATE).decode()

    assert read(f" {text[:20]}\r\n{text[20:50]}\t{text[50:]}\n") == facts(CERTIFICATE)


@pytest.mark.parametrize("text", ["", " \n", "====", "abc", "AAAA*AAA", "YWJj=YWJj", "Zertifikät", "AA-_"])
def test_what_is_no_base64_is_no_certificate(text: str) -> None:
    assert read(text) is None


def test_a_set_shards_without_a_certificate_has_a_fingerprint_that_no_certificate_has() -> None:
    assert NO_CERTIFICATE == "0" * 64


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 16383, 16384, 2**32, 2**63 - 1, 2**64 - 1])
def test_a_serial_number_of_any_length_is_read(value: int) -> None:
    assert of_details(number(1, value)).serial == str(value)


def test_fields_may_come_in_any_order_and_with_ones_that_are_not_known() -> None:
    unknown = number(15, 1) + varint(6 * 8 + 1) + b"12345678" + varint(7 * 8 + 5) + b"1234" + chunk(200, b"x")
    details = unknown + chunk(4, b"Name") + number(10, 0) + chunk(2, b"Issuer") + unknown + number(1, 5)

    found = facts(unknown + chunk(2, b"sig") + chunk(1, details) + unknown)

    assert (found.serial, found.issuer, found.verified_name) == ("5", "Issuer", "Name")
    assert found.issued_at == datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("kind", "size"), [(1, 8), (5, 4)])
def test_a_number_of_fixed_size_is_stepped_over_and_must_be_whole(kind: int, size: int) -> None:
    key = varint(9 * 8 + kind)

    assert of_details(key + bytes(size) + number(1, 5)).serial == "5"
    assert of_details(key + bytes(size)).serial is None  # whole, and the last one
    cut = chunk(1, number(1, 5) + key + bytes(size - 1))
    assert facts(cut) == nothing_of(cut)


@pytest.mark.parametrize("kind", [3, 4, 6, 7])
def test_a_kind_that_protobuf_has_not_is_no_certificate_of_this_shape(kind: int) -> None:
    raw = chunk(1, number(1, 5) + varint(9 * 8 + kind) + b"1234")

    assert facts(raw) == nothing_of(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"hello, world",  # base64 of something else
        varint(8 + 2) + varint(5) + b"four",  # shorter than it says
        varint(8) + b"\x80",  # a number without an end
        b"\x80",  # a key without an end
        varint(8 + 2),  # no length
        varint(8) + b"\x80" * 10 + b"\x01",  # a number of more than 64 bits
        number(1, 5),  # field 1 is a number, not details
        chunk(2, DETAILS),  # details under another number
        chunk(1, DETAILS) + b"\xff",  # rubbish behind good details
    ],
)
def test_bytes_of_another_shape_are_known_by_their_fingerprint_alone(raw: bytes) -> None:
    assert facts(raw) == nothing_of(raw)


def test_a_number_may_have_ten_bytes_and_not_eleven() -> None:
    assert of_details(varint(8) + b"\x85" + b"\x80" * 8 + b"\x00").serial == "5"
    longer = chunk(1, varint(8) + b"\x85" + b"\x80" * 9 + b"\x00")
    assert facts(longer) == nothing_of(longer)


def test_text_where_a_number_belongs_says_nothing_and_a_number_where_text_belongs_neither() -> None:
    found = of_details(chunk(1, b"5") + number(2, 1) + number(4, 1) + chunk(10, b"now"))

    assert (found.serial, found.issuer, found.verified_name, found.issued_at) == (None, None, None, None)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"x" * 256, "x" * 256),
        (b"x" * 300, "x" * 256),
        (b"two\nlines", None),
        (b"\x1b[31mred", None),
        (b"\xff\xfe", None),
        (b"", ""),
        ("Grüße".encode(), "Grüße"),
    ],
)
def test_a_name_is_shown_if_it_can_be_printed_and_never_longer_than_256_letters(name: bytes, shown: str | None) -> None:
    assert of_details(chunk(4, name)).verified_name == shown


def test_a_time_that_no_calendar_has_is_left_out_and_the_rest_is_read() -> None:
    found = of_details(number(10, 2**63) + number(1, 5))

    assert (found.issued_at, found.serial) == (None, "5")


@given(st.binary(max_size=80))
def test_no_bytes_raise_and_every_bytes_but_none_have_their_fingerprint(raw: bytes) -> None:
    found = read(base64.b64encode(raw).decode())

    assert found is None if not raw else found is not None and found.fingerprint == hashlib.sha256(raw).hexdigest()


@given(st.text(max_size=80))
def test_no_text_raises(text: str) -> None:
    read(text)
