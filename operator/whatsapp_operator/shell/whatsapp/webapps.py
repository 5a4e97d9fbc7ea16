"""Sends one request to one of a cluster's Webapps. Nothing here retries."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from whatsapp_operator.shell.clock import Clock
from whatsapp_operator.shell.kube.transport import HandshakeGuard

from .access import Access
from .failures import ApiError, rejection_of, tls_problem
from .masking import secrets_of

SEND_WITHIN = 2.0
"""Seconds from the note of the intent within which the call is sent, or not at all (laws#5)."""
MOST_BYTES = 65_536
"""Of an answer's body; the rest is not read, because one client must not take the memory of the operator."""


class TooLate(Exception):  # noqa: N818 - it is no fault: laws#5 requires it
    """The connection was ready only when the call could no longer be sent."""


class Webapps:
    """The Webapps of one cluster."""

    def __init__(self, clock: Clock) -> None:
        """Prepare; nothing is sent yet."""
        self._clock = clock
        self._http: tuple[tuple[str | None, bool], httpx.AsyncClient] | None = None
        self._turn = 0

    def go_to_another(self) -> None:
        """Send the next request to another Webapp: one without its database may be ready nevertheless, and answer nothing but errors."""
        self._turn += 1

    async def disconnect(self) -> None:
        """Close the connections."""
        http, self._http = self._http, None
        if http is not None:
            await http[1].aclose()

    async def send(
        self,
        access: Access,
        method: str,
        path: str,
        *,
        timeout: float,
        token: str | None = None,
        body: dict[str, Any] | None = None,
        basic: tuple[str, str] | None = None,
        send_by: float | None = None,
    ) -> dict[str, Any]:
        """Send one request to one Webapp; ApiError for everything that is not a readable 2xx answer.

        It ends within ``timeout`` seconds, no matter how slowly the answer comes. Nothing is sent after the monotonic time ``send_by``, no
        matter how long the connection took. ``token``: sent unless ``basic`` is, and masked in any case.
        """
        if access.problem is not None:
            raise ApiError(access.problem.rstrip("."), sent=False)  # it becomes a part of a sentence
        if not access.addresses:
            msg = "no Webapp is ready"
            raise ApiError(msg, sent=False)
        # The answer is read as it is sent: what is compressed may be a thousand times longer.
        headers = {"Host": access.server_name, "Accept-Encoding": "identity"}
        if basic is None and token is not None:
            headers["Authorization"] = f"Bearer {token}"
        http, sending = await self._connection(access), _Sending(self._clock, send_by)
        what = f"{method} {path}"
        request = http.stream(
            method,
            f"https://{access.addresses[self._turn % len(access.addresses)]}{path}",
            json=body,
            headers=headers,
            auth=httpx.BasicAuth(*basic) if basic else None,
            timeout=httpx.Timeout(None, connect=None if send_by is None else SEND_WITHIN),
            extensions={"sni_hostname": access.server_name, "trace": sending},
        )
        try:
            async with asyncio.timeout(timeout), request as streamed:
                answer = await _beginning_of(streamed)
        except TooLate:
            msg = f"{what}: not sent within {SEND_WITHIN:g} s of its note"
            raise ApiError(msg, sent=False) from None
        except TimeoutError:
            msg = f"{what}: no {'answer' if sending.is_sent else 'connection'} within {timeout:g} s"
            raise ApiError(msg, sent=sending.is_sent) from None
        except Exception as error:  # with any other one the call would seem to be on its way without an end
            # Not chained: httpx's error holds the request, which holds the token.
            msg = f"{what}: {tls_problem(error, access) or type(error).__name__}"
            raise ApiError(msg, sent=sending.is_sent) from None
        if not answer.is_success:
            raise rejection_of(what, answer, (*secrets_of(access, body or {}), token or ""), wall=self._clock.wall())
        return _object_in(answer, what)

    async def _connection(self, access: Access) -> httpx.AsyncClient:
        trusted = (access.authority, access.verifies)
        if self._http is not None and self._http[0] != trusted:
            await self.disconnect()
        if self._http is None:
            try:
                trust = ssl.create_default_context(cadata=access.authority)
            except (ssl.SSLError, ValueError, TypeError):  # TypeError: not ASCII
                msg = f"key ca.crt of Secret {access.tls_secret} is no PEM certificate"
                raise ApiError(msg, sent=False) from None
            if not access.verifies:
                trust.check_hostname = False
                trust.verify_mode = ssl.CERT_NONE
            # Without cookies: each answer could bring more of them.
            no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
            self._http = (trusted, httpx.AsyncClient(verify=trust, trust_env=False, cookies=no_cookies))
        return self._http[1]


class _Sending:
    """Follows one request: notes that it is sent, and keeps it from being sent too late."""

    def __init__(self, clock: Clock, send_by: float | None) -> None:
        self._clock = clock
        self._send_by = send_by
        self._guard = HandshakeGuard()
        self.is_sent = False

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        await self._guard(event, info)
        if event == "http11.send_request_headers.started":
            if self._send_by is not None and self._clock.monotonic() > self._send_by:
                raise TooLate
            self.is_sent = True


async def _beginning_of(streamed: httpx.Response) -> httpx.Response:
    """Return what is used of an answer, whose body is cut after ``MOST_BYTES``.

    It is a new value: in httpx an answer and its stream hold each other, and the stream holds the connection with its TLS state. Only the
    garbage collector would free them, which seldom runs.
    """
    body = bytearray()
    try:
        async for part in streamed.aiter_raw():
            body += part
            if len(body) > MOST_BYTES:
                break
    finally:
        await streamed.aclose()
        streamed.stream = httpx.ByteStream(b"")
    headers = {name: streamed.headers[name] for name in ("Date", "Retry-After") if name in streamed.headers}
    return httpx.Response(streamed.status_code, headers=headers, content=bytes(body[:MOST_BYTES]))


def _object_in(answer: httpx.Response, what: str) -> dict[str, Any]:
    """Return the JSON object of an answer; an empty one if it has no body. ApiError if it is anything else."""
    try:
        read = answer.json() if answer.content else {}
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        msg = f"{what}: unreadable answer"
        raise ApiError(msg)
    return read
