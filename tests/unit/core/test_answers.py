"""The table of what an answer of Set Shards means, over every status and every wording that is documented.

The expected side was written down from the vendor's documents, case by case; nothing of it comes from the table that is judged.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsapp_operator.core.answers import ApiFault, meaning, pause
from whatsapp_operator.core.snapshot import Answer, Rejection

from .situations import NOW
from .test_laws import many

STATUSES = (400, 401, 403, 429, 500, 503)

# Under any status: what the call was rejected for.
REJECTED: list[tuple[Rejection, int | None, str]] = [
    (Rejection.CERTIFICATE, 1005, "Access denied: client setup is logged off: wrong certificate, call again with the right one"),
    (Rejection.CERTIFICATE, 1005, "Access denied: VName Certificate Error"),
    (Rejection.CERTIFICATE, 1005, "Your client setup is logged-off"),
    (Rejection.CERTIFICATE, 1014, "Internal error: wrong cert"),
    (Rejection.CERTIFICATE, 1005, "Access denied: the client certificate has expired"),
    (Rejection.CERTIFICATE, 1005, "client disconnected: cert is invalid: it is required more than 7 days after registration"),
    (Rejection.CERTIFICATE, None, "CERTIFICATE_MISMATCH"),
    (Rejection.CERTIFICATE, 430, "Unsigned certificate"),
    (Rejection.CERTIFICATE, 432, "Certificate ID mismatch"),
    (Rejection.CERTIFICATE, 433, "Certificate signature invalid"),
    (Rejection.CERTIFICATE, 433, ""),
    (Rejection.CERTIFICATE_PARAMETER, 1009, "Parameter value is not valid: cert must be a string of base64"),
    (Rejection.CERTIFICATE_PARAMETER, 1008, "Required parameter is missing: cert is required"),
    (Rejection.PIN, 1005, "Access denied: two-step verification: pin is wrong"),
    (Rejection.PIN, 1005, "Access denied: Two-Factor PIN required"),
    (Rejection.PIN, 1009, "Parameter value is not valid: pin must be a string of six digits"),
    (Rejection.PIN, None, "two_step_verification_needed"),
    (Rejection.BANNED, 1031, "Account locked: account is banned: an expired certificate was sent"),
    (Rejection.BANNED, 1031, ""),
    (Rejection.BANNED, 1005, "Access denied: Your account has been banned."),
    (Rejection.BANNED, None, "Banned"),
    (Rejection.CLIENT_EXPIRED, 1005, "Access denied: App Expired"),
    (Rejection.CLIENT_EXPIRED, 1005, "app_expired"),
    (Rejection.CLIENT_EXPIRED, 1005, "This build has expired, upgrade it"),
    (Rejection.CLIENT_EXPIRED, 1005, "client version is no longer supported"),
    (Rejection.REGISTRATION_CLOSED, 1005, "Access denied: registration blocked"),
    (Rejection.REGISTRATION_CLOSED, 1005, "Registration is closed"),
    (Rejection.REGISTRATION_CLOSED, None, "We no longer accept new registrations"),
    (Rejection.REGISTRATION_CLOSED, 1005, "The On-Premises API has been sunset"),
]

# Under any status: nothing was done, and it may be tried again.
BUSY: list[tuple[int | None, str]] = [
    (1011, "Service not ready"),
    (1015, "Too many requests"),
    (1015, "Too many requests: no more than 3 wrong certificates an hour"),
    (1015, "Too many requests: your account may be banned if you go on"),
    (1016, "System overloaded"),
    (1017, "Not Primary Master"),
    (1018, "Not Primary Coreapp"),
    (429, "Rate limit hit"),
    (None, "Rate limit hit; mind that each certificate counts"),
    (1005, "Your account is temporarily banned: several clients ran for it"),
]

# Where the words and the code say nothing, the status does.
BY_STATUS: dict[int, tuple[Answer, Rejection | None]] = {
    400: (Answer.REJECTED, Rejection.OTHER),
    401: (Answer.NONE, None),
    402: (Answer.REJECTED, Rejection.OTHER),
    403: (Answer.BUSY, None),
    404: (Answer.BUSY, None),
    405: (Answer.BUSY, None),
    408: (Answer.UNKNOWN, None),
    422: (Answer.REJECTED, Rejection.OTHER),
    429: (Answer.BUSY, None),
    500: (Answer.UNKNOWN, None),
    502: (Answer.UNKNOWN, None),
    503: (Answer.BUSY, None),
    504: (Answer.UNKNOWN, None),
    302: (Answer.UNKNOWN, None),
}


def judged(status: int | None, *said: tuple[int | None, str]) -> tuple[Answer, Rejection | None]:
    found = meaning(status, tuple(ApiFault(code, text) for code, text in said))
    return found.answer, found.rejection


@pytest.mark.parametrize(("rejection", "code", "text"), REJECTED)
@pytest.mark.parametrize("status", STATUSES)
def test_a_refusal_is_one_under_every_status(status: int, rejection: Rejection, code: int | None, text: str) -> None:
    assert judged(status, (code, text)) == (Answer.REJECTED, rejection)


@pytest.mark.parametrize(("code", "text"), BUSY)
@pytest.mark.parametrize("status", STATUSES)
def test_a_busy_client_is_one_under_every_status(status: int, code: int | None, text: str) -> None:
    assert judged(status, (code, text)) == (Answer.BUSY, None)


@pytest.mark.parametrize("said", [(), ((None, ""),), ((1005, "Access denied"),), ((None, "a spinning top is pinned"),)])
@pytest.mark.parametrize("status", BY_STATUS)
def test_the_status_decides_where_nothing_is_said(status: int, said: tuple[tuple[int | None, str], ...]) -> None:
    assert judged(status, *said) == BY_STATUS[status]


@pytest.mark.parametrize("status", [400, 500, 502])
@pytest.mark.parametrize("said", [(1014, "Internal error"), (1023, "Database error: TLS certificate of the server is invalid")])
def test_a_fault_inside_tells_nothing_of_the_call(status: int, said: tuple[int, str]) -> None:
    assert judged(status, said) == (Answer.UNKNOWN, None)


@pytest.mark.parametrize("status", [400, 401])
@pytest.mark.parametrize("text", ["you are logged out: the token has expired", "Invalid credentials", "log in: session not found"])
def test_a_login_that_is_not_valid_is_no_refusal_of_the_call(status: int, text: str) -> None:
    assert judged(status, (1005, text)) == (Answer.NONE, None)


@pytest.mark.parametrize("status", [400, 403, 500])
def test_a_bad_parameter_is_refused_for_good(status: int) -> None:
    assert judged(status, (1009, "shards must be one of 1, 2, 4, 8, 16, 32")) == (Answer.REJECTED, Rejection.OTHER)


@pytest.mark.parametrize(
    "text",
    [
        "An expired certificate will get your account banned",
        "the account has not been banned",
        "the account may have been banned",
        "to avoid being banned",
    ],
)
def test_a_warning_of_a_ban_is_no_ban(text: str) -> None:
    assert judged(400, (1005, text))[1] is not Rejection.BANNED


def test_the_gravest_of_several_errors_counts() -> None:
    busy, wrong, locked = (1015, "Too many requests"), (1005, "VName Certificate Error"), (1031, "Account locked")

    assert judged(400, busy, wrong)[1] is judged(400, wrong, busy)[1] is Rejection.CERTIFICATE
    assert judged(400, busy, wrong, locked)[1] is Rejection.BANNED
    assert judged(400, (1005, "Access denied"), busy) == (Answer.BUSY, None)
    assert judged(500, busy, (1014, "Internal error")) == (Answer.UNKNOWN, None)


def test_no_answer_is_unknown_whatever_is_said() -> None:
    assert judged(None) == judged(None, (1031, "banned")) == (Answer.UNKNOWN, None)


CODES = st.none() | st.integers(-5, 3000)
WORDS = st.text() | st.lists(
    st.sampled_from(
        ["certificate", "wrong", "pin", "is", "banned", ",", "not", "logged", "off", "app", "expired", "registration", "closed"]
    )
).map(" ".join)


@pytest.mark.slow
@many
@given(status=st.none() | st.integers(100, 599), said=st.lists(st.builds(ApiFault, CODES, WORDS), max_size=4))
def test_every_answer_has_a_meaning_and_no_order_of_errors_changes_it(status: int | None, said: list[ApiFault]) -> None:
    found = meaning(status, tuple(said))

    assert meaning(status, tuple(reversed(said))) == found
    assert (found.rejection is not None) == (found.answer is Answer.REJECTED)
    assert found.answer is not Answer.ACCEPTED


def test_a_long_answer_is_judged_quickly_by_its_beginning() -> None:
    for filler in ("certificate ", "!", "cert!!", "is ", "bad cert ", "\n"):
        assert judged(403, *[(None, filler * 10**5)] * 50)


# --- where one row ends and the next begins


@pytest.mark.parametrize("status", [200, 302, 399, 500, 599])
def test_a_status_that_is_no_client_error_tells_nothing(status: int) -> None:
    assert judged(status) == (Answer.UNKNOWN, None)
    assert judged(status, (1005, "invalid credentials")) == (Answer.UNKNOWN, None), "such words are of a login only with a client error"


@pytest.mark.parametrize(
    ("status", "answer", "rejection"),
    [
        (400, Answer.REJECTED, Rejection.OTHER),
        (499, Answer.REJECTED, Rejection.OTHER),
        (408, Answer.UNKNOWN, None),
        (407, Answer.REJECTED, Rejection.OTHER),
    ],
)
def test_a_client_error_is_a_refusal_but_for_a_time_out(status: int, answer: Answer, rejection: Rejection | None) -> None:
    assert judged(status) == (answer, rejection)


@pytest.mark.parametrize("status", [400, 499])
def test_words_of_a_login_count_from_the_first_client_error_to_the_last(status: int) -> None:
    assert judged(status, (1005, "invalid credentials")) == (Answer.NONE, None)


@pytest.mark.parametrize("code", [1007, 1010, 1012, 1019, 1024, 1025, 1030, 1032, 428, 431, 434])
def test_a_code_next_to_those_that_are_known_means_nothing_but_that_a_password_is_to_be_changed(code: int) -> None:
    assert judged(400, (code, "")) == ((Answer.NONE, None) if code == 1024 else (Answer.REJECTED, Rejection.OTHER))
    assert judged(500, (code, "")) == ((Answer.NONE, None) if code == 1024 else (Answer.UNKNOWN, None))


@pytest.mark.parametrize("code", [429, 1011, 1015, 1016, 1017, 1018])
def test_each_code_that_says_try_again_is_enough(code: int) -> None:
    assert judged(400, (code, "")) == (Answer.BUSY, None)
    assert judged(400, (code, "VName Certificate Error")) == (Answer.BUSY, None), "the words next to it may speak of anything"


@pytest.mark.parametrize("code", [1014, 1023])
def test_a_code_that_says_that_something_broke_is_unknown_unless_its_words_explain_it(code: int) -> None:
    assert judged(400, (code, "")) == (Answer.UNKNOWN, None)
    assert judged(400, (code, "database: wrong certificate")) == (Answer.UNKNOWN, None)
    assert judged(400, (code, "database: client version too old")) == (Answer.UNKNOWN, None)
    assert judged(400, (code, "webhook: invalid pin")) == (Answer.UNKNOWN, None)
    assert judged(400, (code, "wrong certificate")) == (Answer.REJECTED, Rejection.CERTIFICATE)


@pytest.mark.parametrize("code", [1008, 1009])
def test_a_parameter_is_the_certificate_if_the_words_name_it(code: int) -> None:
    assert judged(500, (code, "cert")) == (Answer.REJECTED, Rejection.CERTIFICATE_PARAMETER)
    assert judged(500, (code, "pin")) == (Answer.REJECTED, Rejection.PIN)
    assert judged(500, (code, "")) == (Answer.REJECTED, Rejection.OTHER)


@pytest.mark.parametrize("code", [430, 432, 433])
def test_each_code_of_a_certificate_is_enough(code: int) -> None:
    assert judged(503, (code, "")) == (Answer.REJECTED, Rejection.CERTIFICATE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tls: bad certificate", (Answer.REJECTED, Rejection.OTHER)),
        ("certificate of the database", (Answer.REJECTED, Rejection.OTHER)),
        ("the certificate", (Answer.REJECTED, Rejection.CERTIFICATE)),
        ("try again later with the certificate", (Answer.BUSY, None)),
        ("logged off", (Answer.REJECTED, Rejection.CERTIFICATE)),
        ("logged off: the session is over", (Answer.NONE, None)),
    ],
)
def test_whose_certificate_is_spoken_of(text: str, expected: tuple[Answer, Rejection | None]) -> None:
    assert judged(400, (None, text)) == expected


def test_words_may_be_joined_by_anything_and_in_any_case() -> None:
    assert judged(400, (None, "  TWO-STEP\n\tverification ")) == (Answer.REJECTED, Rejection.PIN)
    assert judged(400, (None, "app__expired")) == (Answer.REJECTED, Rejection.CLIENT_EXPIRED)


def test_twenty_errors_are_judged_and_two_thousand_letters_of_each() -> None:
    other, ban = (None, "x"), (1031, "")
    assert judged(400, *[other] * 19, ban)[1] is Rejection.BANNED
    assert judged(400, *[other] * 20, ban)[1] is Rejection.OTHER
    assert judged(400, (None, "x" * 1996 + " pin"))[1] is Rejection.PIN
    assert judged(400, (None, "x" * 1997 + " pin"))[1] is Rejection.OTHER


GRAVE_FIRST: list[tuple[tuple[int | None, str], tuple[Answer, Rejection | None]]] = [
    ((1031, ""), (Answer.REJECTED, Rejection.BANNED)),
    ((None, "registration is closed"), (Answer.REJECTED, Rejection.REGISTRATION_CLOSED)),
    ((433, ""), (Answer.REJECTED, Rejection.CERTIFICATE)),
    ((1009, "cert"), (Answer.REJECTED, Rejection.CERTIFICATE_PARAMETER)),
    ((None, "wrong pin"), (Answer.REJECTED, Rejection.PIN)),
    ((None, "app expired"), (Answer.REJECTED, Rejection.CLIENT_EXPIRED)),
    ((1014, ""), (Answer.UNKNOWN, None)),
    ((1015, ""), (Answer.BUSY, None)),
    ((1024, ""), (Answer.NONE, None)),
    ((1009, ""), (Answer.REJECTED, Rejection.OTHER)),
]


@pytest.mark.parametrize("first", range(len(GRAVE_FIRST)))
def test_of_two_errors_the_graver_one_counts(first: int) -> None:
    error, expected = GRAVE_FIRST[first]
    assert judged(400, error) == expected
    for milder, _ in GRAVE_FIRST[first + 1 :]:
        assert judged(400, milder, error) == judged(400, error, milder) == expected


# --- Retry-After


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("0", 0),
        (" 120 ", 120),
        ("86400", 3600),
        ("9" * 90, 3600),
        ("9" * 100, 3600),
        ("9" * 101, None),
        ("3600", 3600),
        ("3601", 3600),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0),
        (format_datetime(NOW + timedelta(days=9), usegmt=True), 3600),
        ("Mon, 04 Jan 2027 13:01:30 +0100", 90),
        ("Mon, 04 Jan 2027 12:01:30", 90),
        ("Mon, 04 Jan 99999 12:01:30 GMT", None),
        ("Mon, 04 Jan 99999999999 12:01:30 GMT", None),
        ("Mon, 04 Jan 2027 12:01:30 +99999999999999", None),
    ],
)
def test_the_pause_that_a_client_asks_for(header: str | None, expected: int | None) -> None:
    assert pause(header, now=NOW) == (None if expected is None else timedelta(seconds=expected))


def test_a_date_without_a_zone_is_in_utc_wherever_the_operator_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert pause("Mon, 04 Jan 2027 12:01:30", now=NOW) == timedelta(seconds=90)
    finally:
        monkeypatch.undo()
        time.tzset()


@many
@given(header=st.none() | st.text(max_size=60), now=st.datetimes(min_value=datetime(1990, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_every_header_gives_a_pause_or_none(header: str | None, now: datetime) -> None:
    found = pause(header, now=now)

    assert found is None or timedelta(0) <= found <= timedelta(hours=1)
