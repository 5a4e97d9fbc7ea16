"""Client of the WhatsApp Business API: login, GET shards, Set Shards. Nothing here retries, nothing here decides.

Calls run concurrently with the loop, one at a time for each cluster; ``state_of`` returns their results. No content of a Secret is in any
message, log line or value that leaves this module.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from whatsapp_operator.core import answers
from whatsapp_operator.core.desired import SHARD_COUNTS
from whatsapp_operator.core.names import Key
from whatsapp_operator.core.snapshot import Answer, Call, Client, Login, Operation
from whatsapp_operator.shell.clock import Clock

from .access import Access, Credentials
from .failures import ApiError, describe
from .webapps import SEND_WITHIN, Webapps

log = logging.getLogger(__name__)

UNSENT_PAUSE = 1.0
"""Seconds from a call that was not sent to the GET that must precede the next one, so that intents are not noted in a row."""
LOGIN_PAUSE = 10.0
"""Seconds before a rejected login is tried again with the same passwords."""
MOST_LOGINS, LOGIN_SPAN = 10, 60.0
"""The most logins with the same passwords in this many seconds, if new tokens are rejected at once."""
TOKEN_RENEWAL = timedelta(days=6)
"""Age at which a token is renewed; the client's last 7 days (client#login)."""
LONGEST_VERSION = 64
"""Characters of the client's version, as in the CRD."""
TOKEN = re.compile(r"[!-~]{1,4096}")
"""What a header can carry."""

SHARDS = {spelled: number for number in SHARD_COUNTS for spelled in (number, str(number))}
"""The values in an answer that count as a number of shards."""

Passwords = tuple[str, str, str]
"""Username, password and initial password: what a login was tried with."""


class Clients(Protocol):
    """What the loop needs from the API."""

    def state_of(self, key: Key) -> Client:
        """Return what is known about the client of a cluster."""
        ...

    def ask(self, key: Key, access: Access, *, quiet: bool = False) -> None:
        """Start a GET of the number of shards, unless one is in progress or it is too early.

        ``quiet``: an answer without a change wakes no loop.
        """
        ...

    def set_shards(self, key: Key, access: Access, credentials: Credentials, operation: Operation, noted_at: float) -> None:
        """Start the call whose intent was noted at the monotonic time ``noted_at``."""
        ...


class ApiSession:
    """All calls to the client of one cluster."""

    def __init__(
        self,
        key: Key,
        *,
        clock: Clock,
        wake: Callable[[Key], None],
        call_timeout: float,
        ask_timeout: float = 5.0,
        asked: Callable[[Key, str], None] = lambda _key, _result: None,
    ) -> None:
        """Prepare; nothing is sent yet. Time-outs in seconds. ``asked`` is called with ``Answered`` or ``Failed`` after each GET."""
        self.client = Client()
        self._asked = asked
        self._key = key
        self._clock = clock
        self._wake = wake
        self._call_timeout = call_timeout
        self._ask_timeout = ask_timeout
        self._webapps = Webapps(clock)
        self._token: tuple[str, datetime] | None = None
        self._login_lock = asyncio.Lock()
        self._rejected_login: tuple[Passwords, float] | None = None
        self._logins: tuple[Passwords | None, deque[float]] = (None, deque(maxlen=MOST_LOGINS))
        self._unsent_at = float("-inf")
        self._has_rejected_token = False
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a call in the background; it ends by itself or with ``close``."""
        task = asyncio.create_task(work, name=f"client of {self._key}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel all calls and await them."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._webapps.disconnect()

    def _note(self, *, quiet: bool = False, **changes: Any) -> None:
        before = self.client
        self.client = replace(before, **changes)
        if quiet:
            # A new time of the request alone does not count as a change.
            before = replace(before, asked_at=self.client.asked_at)
        # A further failure wakes no loop, with any text: otherwise a client that is down would be asked without a pause.
        if replace(before, asking=False, problem="") != replace(self.client, asking=False, problem=""):
            self._wake(self._key)

    def _failed(self, problem: str) -> dict[str, Any]:
        """Return the changes of the client's state after a call failed."""
        return {"unresponsive_since": self.client.unresponsive_since or self._clock.now(), "problem": problem}

    def may_ask(self) -> bool:
        """Return whether a GET may start: none is in progress, and a call that was not sent is some time ago."""
        return not self.client.asking and self._clock.monotonic() - self._unsent_at >= UNSENT_PAUSE

    async def ask(self, access: Access, *, quiet: bool = False) -> None:
        """Log in if needed and ask for the number of shards; the result is in ``client``.

        ``quiet``: the next GET comes only after a while, so no connection is kept for it.
        """
        asked_at, unsent_at = self._clock.now(), self._unsent_at
        try:
            body = await self._request(access, "GET", "/v1/account/shards", timeout=self._ask_timeout)
            shards = SHARDS[body["account"]["shards"]]
        except ApiError as error:
            self._webapps.go_to_another()
            self._asked(self._key, "Failed")
            self._note(asking=False, **self._failed(str(error)))
        except (KeyError, TypeError):
            # Any other number counts as unknown too: otherwise that many Coreapps would be created, and the other shards' holders dropped.
            self._webapps.go_to_another()
            self._asked(self._key, "Failed")
            self._note(asking=False, **self._failed(f"GET shards: unreadable answer, it needs one of {', '.join(map(str, SHARD_COUNTS))}"))
        else:
            self._asked(self._key, "Answered")
            # The answer to a GET that began before an unsent call does not allow the next call.
            if self._unsent_at == unsent_at:
                self._note(
                    quiet=quiet,
                    asking=False,
                    shards=shards,
                    asked_at=asked_at,
                    unresponsive_since=None,
                    problem="",
                    version=_version_in(body),
                )
        finally:
            self.client = replace(self.client, asking=False)
            if quiet and len(self._tasks) <= 1:
                await self._webapps.disconnect()

    async def set_shards(self, access: Access, credentials: Credentials, operation: Operation, noted_at: float) -> None:
        """Make the call once; the result is in ``client.call``.

        After a call that was not sent, the number of shards must be asked for again, with a pause, before the next call.
        """
        call = Call(
            id=operation.id,
            fingerprint=credentials.fingerprint,
            secret_version=credentials.secret_version,
            pin_digest=credentials.pin_digest,
        )
        try:
            await self._log_in_first(access)
            token = self._token
            body = _body_of(credentials, operation.to)
            send_by = noted_at + SEND_WITHIN
            await self._send(access, "POST", "/v1/account/shards", body=body, timeout=self._call_timeout, send_by=send_by)
        except ApiError as error:
            self._webapps.go_to_another()
            call = replace(call, detail=describe(error))
            log.warning("Set Shards(%s) of %s: %s", operation.to, self._key, call.detail)
            meaning = answers.meaning(error.status, error.faults)
            is_stale = error.sent and meaning is answers.STALE_TOKEN
            if is_stale:
                self._drop(token)
            if not error.sent or (is_stale and not self._has_rejected_token):
                # The call had no effect: log in again if needed, and note a new intent.
                self._unsent_at = self._clock.monotonic()
                self._note(call=replace(call, not_sent=True), asked_at=None, **self._failed(str(error)))
            else:
                # A token that is rejected right after a login is not stale, so the client is treated as busy.
                answer = Answer.BUSY if is_stale else meaning.answer
                self._note(call=replace(call, answer=answer, rejection=meaning.rejection, retry_after=error.retry_after))
            if error.sent:
                self._has_rejected_token = is_stale
        else:
            self._has_rejected_token = False
            self._note(call=replace(call, answer=Answer.ACCEPTED))

    async def _log_in_first(self, access: Access) -> None:
        """Get a token if needed; if the login fails, the call itself was not sent."""
        try:
            await self._log_in(access)
        except ApiError as error:
            raise ApiError(str(error), faults=error.faults, sent=False) from None

    async def _request(self, access: Access, method: str, path: str, *, timeout: float) -> dict[str, Any]:
        """Send one request with a token; a rejected token is renewed once."""
        await self._log_in(access)
        token = self._token
        try:
            return await self._send(access, method, path, timeout=timeout)
        except ApiError as error:
            if error.status != 401:
                raise
        self._drop(token)
        await self._log_in(access)
        return await self._send(access, method, path, timeout=timeout)

    def _drop(self, token: tuple[str, datetime] | None) -> None:
        """Drop a rejected token, unless it was replaced meanwhile."""
        if self._token is token:
            self._token = None

    async def _log_in(self, access: Access) -> None:
        # A GET and the call may log in at the same time: one token is enough.
        async with self._login_lock:
            if self._token is None or self._clock.now() >= self._token[1]:
                await self._renew_token(access)

    async def _renew_token(self, access: Access) -> None:
        entry = (access.username, access.password)
        tried = (*entry, access.initial_password)
        now = self._clock.monotonic()
        if self._rejected_login is not None and self._rejected_login[0] == tried and now - self._rejected_login[1] < LOGIN_PAUSE:
            msg = "the login was rejected"
            raise ApiError(msg, status=401, sent=False)
        if self._logins[0] != tried:
            self._logins = (tried, deque(maxlen=MOST_LOGINS))
        if len(self._logins[1]) == MOST_LOGINS and now - self._logins[1][0] < LOGIN_SPAN:
            msg = f"every token was rejected; no more than {MOST_LOGINS} logins in {LOGIN_SPAN:g} s"
            raise ApiError(msg, sent=False)
        try:
            answer = await self._send(access, "POST", "/v1/users/login", basic=entry, body={}, timeout=self._ask_timeout)
        except ApiError as error:
            if error.status not in {401, 403} and error.code != 1024:
                raise
            answer = await self._change_password(access, tried, error)
        self._logins[1].append(now)
        token = _token_in(answer)
        if token is None:
            msg = "POST login: unreadable answer"
            raise ApiError(msg)
        self._token = (token, self._clock.now() + TOKEN_RENEWAL)
        self.client = replace(self.client, login=Login.DONE, login_message="", is_new_password_rejected=False)

    async def _change_password(self, access: Access, tried: Passwords, first: ApiError) -> dict[str, Any]:
        """Log in for the first time, which must change the password. ``first``: the error of the login with the password itself.

        A password that breaks the client's documented rules is not sent: it cannot be the new one.
        """
        entry = (access.username, access.initial_password)
        if not is_strong(access.password):
            self._reject(tried, describe(first), is_new_password_rejected=True)
            msg = "the password breaks the client's rules for a new one, so the first login was not sent"
            raise ApiError(msg, status=400, sent=False)
        try:
            answer = await self._send(
                access, "POST", "/v1/users/login", basic=entry, body={"new_password": access.password}, timeout=self._ask_timeout
            )
        except ApiError as error:
            # 400: the client does not accept the new password.
            if error.status in {400, 401, 403}:
                self._reject(tried, describe(error if error.status == 400 else first), is_new_password_rejected=error.status == 400)
            raise
        self.client = replace(self.client, first_login_at=self._clock.now())
        return answer

    def _reject(self, tried: Passwords, text: str, *, is_new_password_rejected: bool) -> None:
        """Note that the client accepts none of these passwords, and its error text."""
        self._rejected_login = (tried, self._clock.monotonic())
        self.client = replace(self.client, login=Login.REJECTED, login_message=text, is_new_password_rejected=is_new_password_rejected)

    async def _send(
        self,
        access: Access,
        method: str,
        path: str,
        *,
        timeout: float,
        body: dict[str, Any] | None = None,
        basic: tuple[str, str] | None = None,
        send_by: float | None = None,
    ) -> dict[str, Any]:
        """Send one request with the token, if there is one and ``basic`` is not used; see ``Webapps.send``."""
        token = self._token[0] if self._token is not None else None
        return await self._webapps.send(access, method, path, timeout=timeout, token=token, body=body, basic=basic, send_by=send_by)


def _token_in(answer: dict[str, Any]) -> str | None:
    """Return the token in the answer to a login; None if there is none that can be sent."""
    try:
        token = answer["users"][0]["token"]
    except (KeyError, IndexError, TypeError):
        return None
    return token if isinstance(token, str) and TOKEN.fullmatch(token) else None


def _body_of(credentials: Credentials, shards: int) -> dict[str, Any]:
    """Return the body of Set Shards (client#set-shards)."""
    body: dict[str, Any] = {"cc": credentials.country_code, "phone_number": credentials.phone_number, "shards": shards}
    if credentials.pin is not None:
        body["pin"] = credentials.pin
    if credentials.certificate is not None:
        body["cert"] = credentials.certificate
    return body


def _version_in(body: dict[str, Any]) -> str | None:
    """Return the client's version as it may stand in the status: a short text that can be printed."""
    meta = body.get("meta")
    version = meta.get("version") if isinstance(meta, dict) else None
    text = "".join(filter(str.isprintable, version)) if isinstance(version, str) else ""
    return text[:LONGEST_VERSION] or None


def is_strong(password: str) -> bool:
    """Return whether the client accepts a new password: 8 to 64 characters, with a digit, both cases and a special character."""
    kinds = (str.isdigit, str.isupper, str.islower, lambda char: not char.isalnum())
    return 8 <= len(password) <= 64 and all(any(map(kind, password)) for kind in kinds)


class ApiSessions:
    """The sessions of all clusters that this process leads."""

    def __init__(
        self,
        *,
        clock: Clock,
        wake: Callable[[Key], None],
        call_timeout: float = 60.0,
        asked: Callable[[Key, str], None] = lambda _key, _result: None,
    ) -> None:
        """Prepare; ``wake`` is called with a cluster when an answer arrived, ``asked`` with a cluster and the result of each GET."""
        self._asked = asked
        self._clock = clock
        self._wake = wake
        self._call_timeout = call_timeout
        self._sessions: dict[Key, ApiSession] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def _session(self, key: Key) -> ApiSession:
        if key not in self._sessions:
            self._sessions[key] = ApiSession(key, clock=self._clock, wake=self._wake, call_timeout=self._call_timeout, asked=self._asked)
        return self._sessions[key]

    def state_of(self, key: Key) -> Client:
        """Return what is known about the client of a cluster."""
        return self._sessions[key].client if key in self._sessions else Client()

    def ask(self, key: Key, access: Access, *, quiet: bool = False) -> None:
        """Start a GET of the number of shards, unless one is in progress or it is too early."""
        session = self._session(key)
        if session.may_ask():
            session.client = replace(session.client, asking=True)
            session.begin(session.ask(access, quiet=quiet))

    def set_shards(self, key: Key, access: Access, credentials: Credentials, operation: Operation, noted_at: float) -> None:
        """Start the call whose intent was noted at the monotonic time ``noted_at``."""
        session = self._session(key)
        session.client = replace(session.client, call=Call(id=operation.id))
        session.begin(session.set_shards(access, credentials, operation, noted_at))

    def forget(self, key: Key) -> None:
        """Drop everything about a cluster."""
        session = self._sessions.pop(key, None)
        if session is not None:
            task = asyncio.create_task(session.close(), name=f"close client of {key}")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Cancel every call and await it."""
        for key in tuple(self._sessions):
            self.forget(key)
        await asyncio.gather(*self._closing, return_exceptions=True)
