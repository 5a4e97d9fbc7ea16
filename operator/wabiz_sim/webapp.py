"""Webapp: the HTTPS REST API, without state: messages go to the Coreapp of their shard, everything else to the upstream."""

import asyncio
import hmac
import uuid
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler

from .api import FAULT_HEADER, SECONDS_HEADER, TRUSTED_HEADER, bearer, render, unauthorized
from .body import BadBody, json_of, text_of
from .delivery import Delivery, Message
from .envelope import (
    ACCESS_DENIED,
    INTERNAL_ERROR,
    NOT_READY,
    PARAMETER_INVALID,
    PARAMETER_MISSING,
    Answer,
    failure,
)
from .link import UNREACHABLE, Frame, Link, upstream_url
from .listener import Listener
from .process import Process
from .resolve import Resolve, by_dns
from .session import Sessions
from .settings import WEBAPP_PORT, Settings
from .store import storable
from .tls import server_context

MESSAGE_ID_HEADER = "X-Message-Id"
"""The simulator's own header: retries with the same id are one message. The vendor's API has no such header."""

_RELAY_SECONDS = 10.0
_NEVER_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, LookupError)
"""Errors of a call to the upstream before any part of the request was sent."""
_NEVER_ANSWERED_SECONDS = 120.0
_LONGEST_ID = 128
_LONGEST_TEXT = 4096
"""Characters (messages reference, "text.body")."""


class Webapp(Process):
    """One Webapp. See ``Process`` for its life cycle."""

    linger_seconds = 1.5

    def __init__(self, settings: Settings, *, resolve: Resolve = by_dns) -> None:
        super().__init__(settings, resolve=resolve)
        self._delivery = Delivery(self)
        self._sessions = Sessions(self)

    async def come_up(self) -> None:
        """Listen, register."""
        routes = [
            web.get("/", self._alive),
            web.post("/v1/messages", self._messages),
            web.post("/v1/users/login", self._relay),
            web.post("/v1/users/logout", self._relay),
            web.get("/v1/account/shards", self._relay),
            web.post("/v1/account/shards", self._relay),
            web.get("/v1/health", self._health),
            web.get("/v1/settings/application", self._relay),
            web.patch("/v1/settings/application", self._relay),
            web.get("/v1/support", self._relay),
        ]
        context = server_context(self.settings)
        listener = Listener(self.settings.listen, WEBAPP_PORT, routes, gate=self.gate, middlewares=[self._in_envelope], ssl_context=context)
        self.listeners = [listener]
        await listener.open()
        query = {"uid": self.settings.pod_uid, "pod": self.settings.pod_name, "ip": self.settings.pod_ip, "role": "webapp"}
        self.spawn(Link(self, query, self._on_frame).run())

    def _on_frame(self, frame: Frame) -> Frame | None:
        if frame["type"] in {"hello", "shards"}:
            self._delivery.shards = frame["shards"]
        if frame["type"] in {"hello", "forget_tokens"}:  # while the link was lost, tokens may have become void
            self._sessions.forget()
            return {"type": "forgot"}
        return None

    @web.middleware
    async def _in_envelope(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer in the documented envelope, even after an error."""
        response = await self._answer(request, handler)
        if self.stopping:  # otherwise the caller might be sending its next request when the connection is cut
            response.force_close()
        return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            # Read here: an invalid body must not look like a fault of the upstream.
            await text_of(request)
            return await handler(request)
        except (BadBody, web.HTTPException) as error:
            return render(_rejection_of(request, error))
        except UNREACHABLE as error:
            self.log.info("%s: the upstream does not answer (%s)", self.settings.pod_name, type(error).__name__)
            if (request.method, request.path) == ("POST", "/v1/account/shards") and not isinstance(error, _NEVER_SENT):
                # Not 503, which means that nothing was done.
                return render(failure(500, INTERNAL_ERROR, "the database does not answer; it is unknown whether the call had an effect"))
            return render(failure(503, NOT_READY, "the database does not answer, retry"))
        except Exception:
            self.log.exception("%s: %s %s failed", self.settings.pod_name, request.method, request.path)
            return render(failure(500, INTERNAL_ERROR, "the Webapp failed"))

    async def _alive(self, _request: web.Request) -> web.Response:
        return web.Response(text="<html><body>WhatsApp Business API client (simulator)</body></html>", content_type="text/html")

    # messages

    async def _messages(self, request: web.Request) -> web.Response:
        if not await self._sessions.good(bearer(request)):
            return render(unauthorized())
        message = _message(request.headers.get(MESSAGE_ID_HEADER, ""), await json_of(request))
        if isinstance(message, Answer):
            return render(message)
        return render(await self._delivery.deliver(message))

    # everything else

    async def _health(self, request: web.Request) -> web.StreamResponse:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        api_key = self.settings.api_key
        if scheme.lower() != "apikey":
            return await self._relay(request)
        if not api_key or not hmac.compare_digest(key.strip().encode(), api_key.encode()):
            return render(failure(401, ACCESS_DENIED, "the API key is wrong, or WA_API_KEY is not set"))
        return await self._relay(request, {TRUSTED_HEADER: "apikey"})

    async def _relay(self, request: web.Request, headers: dict[str, str] | None = None) -> web.StreamResponse:
        url = await upstream_url(self, f"/internal{request.path}")
        if headers is None:
            headers = {"Authorization": request.headers.get("Authorization", "")}
        timeout = aiohttp.ClientTimeout(total=_RELAY_SECONDS, connect=2.0)
        async with self.session.request(request.method, url, data=await request.read(), headers=headers, timeout=timeout) as response:
            status, body, fault = response.status, await response.read(), response.headers.get(FAULT_HEADER, "")
            seconds = float(response.headers.get(SECONDS_HEADER, "0"))
            passed_on = {name: response.headers[name] for name in ("Retry-After",) if name in response.headers}
        if fault == "reset":
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=status)
        if fault == "timeout":
            await asyncio.sleep(_NEVER_ANSWERED_SECONDS)
            return render(failure(504, INTERNAL_ERROR, "injected fault"))
        if fault == "garbage":
            return web.Response(status=status, text="<html>It works!", content_type="text/html")
        if fault == "slow":
            await asyncio.sleep(seconds)
        return web.Response(status=status, body=body, headers=passed_on, content_type="application/json")


def _rejection_of(request: web.Request, error: BadBody | web.HTTPException) -> Answer:
    """Return the answer to a request that is the sender's fault."""
    if isinstance(error, BadBody):
        return failure(400, PARAMETER_INVALID, str(error))
    if isinstance(error, web.HTTPNotFound):
        return failure(404, INTERNAL_ERROR, f"there is no {request.path}")
    if isinstance(error, web.HTTPMethodNotAllowed):
        return failure(405, INTERNAL_ERROR, f"{request.path} has no {request.method}")
    return failure(error.status, PARAMETER_INVALID, error.reason)


def _message(message_id: str, body: Any) -> Message | Answer:
    """Read the documented body of a text message; an Answer says what is wrong with it."""
    if not isinstance(body, dict):
        return failure(400, PARAMETER_INVALID, "the body must be a JSON object")
    to, kind, content = body.get("to"), body.get("type", "text"), body.get("text")
    if not to or not isinstance(to, str):
        return failure(400, PARAMETER_MISSING, "to is required")
    if kind != "text":
        return failure(400, PARAMETER_INVALID, "the simulator sends messages of type text only")
    if not isinstance(content, dict) or not isinstance(content.get("body"), str):
        return failure(400, PARAMETER_MISSING, "text.body is required")
    if (problem := _text_problem(message_id, to, content["body"])) is not None:
        return failure(400, PARAMETER_INVALID, problem)
    return Message(id=message_id or uuid.uuid4().hex, to=to, body=content["body"])


def _text_problem(message_id: str, to: str, body: str) -> str | None:
    if len(body) > _LONGEST_TEXT:
        return f"text.body must have {_LONGEST_TEXT} characters at most"
    if len(message_id) > _LONGEST_ID or not storable(message_id) or not storable(to):
        return f"to and {MESSAGE_ID_HEADER} must be text without NUL, the latter of {_LONGEST_ID} at most"
    return None
