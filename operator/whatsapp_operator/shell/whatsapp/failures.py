"""The failures of calls to the client, and the sentences about them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice

import httpx

from whatsapp_operator.core import answers

from .access import Access
from .masking import masked

LONGEST_TEXT = 200
"""Characters of the client's error texts that are shown."""


class ApiError(Exception):
    """The API answered with an error or not at all. The message names the call and the status, nothing else."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        faults: tuple[answers.ApiFault, ...] = (),
        retry_after: timedelta | None = None,
        sent: bool = True,
    ) -> None:
        """``faults``: the errors in the answer, without secrets. ``sent`` is False only if certainly nothing of the request was sent."""
        super().__init__(message)
        self.status = status
        self.faults = faults
        self.retry_after = retry_after
        self.sent = sent

    @property
    def code(self) -> int | None:
        """The first error's code."""
        return self.faults[0].code if self.faults else None

    @property
    def details(self) -> str:
        """The texts of the errors."""
        return "; ".join(one.text for one in self.faults if one.text)


def describe(error: ApiError) -> str:
    """Return an error as a sentence for people."""
    text = error.details[:LONGEST_TEXT].rstrip(". ")
    return f"{error}: {text}" if text else str(error)


def tls_problem(error: Exception, access: Access) -> str | None:
    """Return what to do about an untrusted certificate of the Webapps; None for any other error."""
    why = re.search(r"certificate verify failed: (.*?)\.? \(_ssl", str(error))
    where = f"keys tls.crt and ca.crt of Secret {access.tls_secret}, and spec.webapp.tls"
    return f"its TLS certificate is not trusted: {why[1]}; see {where}" if why else None


def rejection_of(call: str, answer: httpx.Response, secrets: tuple[str, ...], *, wall: datetime) -> ApiError:
    """Return the error of an answer that is not a success. Its texts are masked; ``wall``: the time by the wall clock."""
    faults = tuple(replace(one, text=masked(one.text, secrets)) for one in _faults_of(answer))
    code = faults[0].code if faults else None
    message = f"{call}: HTTP {answer.status_code}" + (f", error {code}" if code else "")
    # A date in Retry-After is by the client's clock, which its header Date shows.
    now = answers.moment(answer.headers.get("Date", "")) or wall
    retry_after = answers.pause(answer.headers.get("Retry-After"), now=now)
    return ApiError(message, status=answer.status_code, faults=faults, retry_after=retry_after)


def _faults_of(answer: httpx.Response) -> Iterator[answers.ApiFault]:
    """Yield the errors of the documented envelope, as far as it is valid."""
    try:
        found = answer.json()["errors"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    for one in islice(found, answers.MOST_ERRORS) if isinstance(found, list) else ():
        if isinstance(one, dict):
            text = ": ".join(str(one[key]) for key in ("title", "details") if one.get(key))
            yield answers.ApiFault(_code(one.get("code")), text)


def _code(value: object) -> int | None:
    """Return an error's code; None if it is not valid."""
    text = str(value)
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,8}", text) else None
