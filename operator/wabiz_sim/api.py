"""The routes behind the Webapps: each answers one call of the REST API, or fails as an injected fault says."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from .account import Account
from .body import BadBody, json_of
from .certificate import fingerprint
from .envelope import ACCESS_DENIED, Answer, failure, success
from .exchange import Exchange
from .faults import REJECTIONS, Fault, Faults
from .members import Members
from .preferences import Preferences
from .resolve import join_host_port
from .store import Store
from .users import Users

FAULT_HEADER = "X-Simulator-Fault"
"""What the Webapp does with this answer: ``timeout``, ``reset`` or ``garbage``; ``slow`` comes with the seconds."""
SECONDS_HEADER = "X-Simulator-Seconds"
TRUSTED_HEADER = "X-Simulator-Trusted"
"""Set by a Webapp that has checked the API key itself."""

_FAR_FUTURE = "2099-12-31T00:00:00+00:00"

Work = Callable[[web.Request], Awaitable[Answer]]


@dataclass(slots=True, kw_only=True)
class Api:
    """All of ``/internal``. Only Webapps call it; they pass on status and body unchanged."""

    store: Store
    account: Account
    users: Users
    preferences: Preferences
    members: Members
    exchange: Exchange
    faults: Faults
    spawn: Callable[..., object]
    expire_timestamp: str = _FAR_FUTURE
    """When this build expires, as ``GET /v1/support`` returns it."""

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/internal/v1/users/login", self._call("login", self._login, needs_token=False)),
            web.post("/internal/v1/users/logout", self._call("logout", self._logout)),
            web.get("/internal/v1/account/shards", self._call("get_shards", self._get_shards)),
            web.post("/internal/v1/account/shards", self._set_shards),
            web.get("/internal/v1/health", self._call("health", self._health)),
            web.get("/internal/v1/settings/application", self._call("settings", self._settings)),
            web.patch("/internal/v1/settings/application", self._call("settings", self._settings)),
            web.get("/internal/v1/support", self._call("support", self._support)),
            web.get("/internal/session", self._session),
        ]

    def health(self) -> dict[str, dict[str, str]]:
        """Return the cluster-wide map, keyed ``ip:pod``, an IPv6 address in brackets. Coreapps only: the simulator has no Masters."""
        return {
            join_host_port(member.ip, member.pod): {
                "gateway_status": "connected" if self.exchange.connected(member.uid) else "disconnected",
                "role": "coreapp",
            }
            for member in self.members.of("coreapp")
        }

    def new_call(self, by: str, shards: object) -> dict[str, Any]:
        """Return an entry for the log of Set Shards calls, without the result of the call."""
        return {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "by": by,
            "from": self.account.shards,
            "shards": shards,
            "coreapps": len(self.members.of("coreapp")),
            "certificate": None,
            "fault": None,
        }

    async def _login(self, request: web.Request) -> Answer:
        username, password = _basic(request.headers.get("Authorization", ""))
        body = await _body(request)
        return await self.users.login(username, password, body.get("new_password") if isinstance(body, dict) else None)

    async def _logout(self, request: web.Request) -> Answer:
        return await self.users.logout(bearer(request))

    async def _get_shards(self, _request: web.Request) -> Answer:
        return success({"account": {"shards": self.account.shards}})

    async def _health(self, _request: web.Request) -> Answer:
        return success({"health": self.health()})

    async def _settings(self, request: web.Request) -> Answer:
        if request.method == "GET":
            return self.preferences.shown()
        answer = await self.preferences.change(await _body(request))
        if answer.good:
            await self.members.tell("coreapp", {"type": "settings", "settings": self.preferences.application})
        return answer

    async def _support(self, _request: web.Request) -> Answer:
        return success(
            {
                "support": {
                    "db_engine": self.store.engine,
                    "debug_info": "simulator",
                    "description": "WhatsApp Business API client, simulator",
                    "expire_timestamp": self.expire_timestamp,
                    "multi_connect": True,
                }
            }
        )

    async def _session(self, request: web.Request) -> web.Response:
        left = await self.users.seconds_left(bearer(request))
        return web.json_response({"seconds": left}) if left > 0 else render(unauthorized())

    async def _set_shards(self, request: web.Request) -> web.Response:
        if (rejection := await self._reject_unauthenticated(request)) is not None:
            return render(rejection)
        body = await _body(request)
        fault = self.faults.take("set_shards")
        call = self.new_call("api", body.get("shards") if isinstance(body, dict) else None)
        call |= {"certificate": _short_fingerprint(body), "fault": fault.fault if fault else None}
        if fault is not None and fault.fault == "overtaken":
            await self.account.reshard(self.account.shards)
        before = self.account.restarts
        answer, response = await self._perform_set_shards(body, fault)
        call |= {"status": answer.status, "restarted": self.account.restarts > before}
        await self.store.note_call(call)
        return response

    async def _perform_set_shards(self, body: Any, fault: Fault | None) -> tuple[Answer, web.Response]:
        if fault is None or fault.fault == "overtaken":
            answer = await self.account.set_shards(body)
            return answer, render(answer)
        if fault.fault in REJECTIONS:
            if fault.fault == "wrong_certificate":
                await self.account.log_off()
            elif fault.fault == "banned":
                await self.account.ban()
            answer = _failure(fault)
            return answer, render(answer, {"Retry-After": fault.retry_after} if fault.retry_after else None)
        if fault.fault == "late":
            self.spawn(self._apply_late(body, fault.seconds))
            answer = _failure(fault)
            return answer, render(answer)
        response, answer = await _go_wrong(fault, lambda: self.account.set_shards(body))
        return answer, response

    async def _apply_late(self, body: Any, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.account.set_shards(body)

    async def _reject_unauthenticated(self, request: web.Request) -> Answer | None:
        if request.headers.get(TRUSTED_HEADER) or await self.users.seconds_left(bearer(request)) > 0:
            return None
        return unauthorized()

    def _call(self, call: str, work: Work, *, needs_token: bool = True) -> Handler:
        """Return the handler of a call: it checks the token, and fails as an injected fault says."""

        async def handle(request: web.Request) -> web.Response:
            if needs_token and (rejection := await self._reject_unauthenticated(request)) is not None:
                return render(rejection)
            fault = self.faults.take(call)
            if fault is None:
                return render(await work(request))
            response, _ = await _go_wrong(fault, lambda: work(request))
            return response

        return handle


async def _go_wrong(fault: Fault, work: Callable[[], Awaitable[Answer]]) -> tuple[web.Response, Answer]:
    """Return the response that carries the fault to the Webapp, and what would have been answered."""
    failed = _failure(fault)
    answer = await work() if fault.applies or fault.fault == "slow" else failed
    if fault.fault == "slow":
        return render(answer, {FAULT_HEADER: "slow", SECONDS_HEADER: str(fault.seconds)}), answer
    if fault.fault == "error":
        return render(failed), failed
    return render(failed, {FAULT_HEADER: fault.fault}), failed


def _failure(fault: Fault) -> Answer:
    return failure(fault.status, fault.code, fault.details)


def render(answer: Answer, headers: dict[str, str] | None = None) -> web.Response:
    """Return the answer as it is sent."""
    return web.json_response(answer.body, status=answer.status, headers=headers)


def unauthorized() -> Answer:
    """Return the answer to a call without a valid token."""
    return failure(401, ACCESS_DENIED, "the token is missing, unknown or expired: log in")


def bearer(request: web.Request) -> str:
    """Return the token of a request; empty if it has none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _basic(header: str) -> tuple[str, str]:
    scheme, _, text = header.partition(" ")
    if scheme.lower() == "basic":
        with suppress(ValueError):
            username, _, password = base64.b64decode(text, validate=True).decode().partition(":")
            return username, password
    return "", ""


async def _body(request: web.Request) -> Any:
    try:
        return await json_of(request)
    except BadBody:
        return None


def _short_fingerprint(body: Any) -> str | None:
    try:
        return fingerprint(body["cert"])[:12]
    except (TypeError, KeyError, ValueError, AttributeError):
        return None
