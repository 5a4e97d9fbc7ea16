"""The routes for tests: counters, faults, and other control of the WhatsApp servers. Never reachable from outside the cluster.

All under ``/control``, JSON in and out; a bad body is answered by 400 and ``{"error"}``.

    GET    counters                         what was counted, who is connected, the log of Set Shards calls, banned, logged_off
    GET    members                          who is registered
    GET    messages?after=0&limit=1000      accepted messages {seq, id, shard, to, at, by: uid}
    GET    frames?after=0&limit=1000        the log of the gateways: all message frames, connections, rejections by the fence
    GET    connections                      all accepted ones {shard, epoch, uid, connection, opened_at, closed_at, why, frames}
    GET    audit                            the audit of that log: its sums, also by shard, and which connections overlapped
    GET    waiting                          ids of the inbound messages that no webhook has accepted yet
    POST   missing {ids}                    those of the ids that were never accepted: what was lost
    GET    faults                           all faults with left and fired
    POST   faults {call, fault, ...}        add a fault, see module ``faults``
    DELETE faults                           remove all faults
    POST   shards {n}                       another party sets the shards; everything restarts
    POST   inbound {from, body, id?}        a WhatsApp user writes
    POST   certificate {fingerprint|null}   the only right certificate, by its SHA-256 or the beginning of it
    POST   pin {pin|null}                   two-step verification on or off
    POST   reset-password {}                the initial password again, all tokens void
    POST   tokens {seconds?, expire?}       how long new tokens are valid; expire makes all void now
    POST   registered {at}                  when the number was registered (until the next start)
    POST   support {expire_timestamp}       when the build expires (until the next start)
    POST   reset-fence {}                   drop all epochs, as after a restore of etcd
"""

import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from aiohttp import web

from .account import Account, is_pin
from .api import Api
from .body import json_of
from .exchange import Exchange
from .faults import Fault, Faults
from .members import Members
from .sharding import ALLOWED_SHARDS, shard_of
from .store import Inbound, Store, storable
from .users import TOKEN_SECONDS, Users

_LAST = 2**63 - 1
"""No sequence number of a message or a frame is larger, and databases accept no larger one."""

_LONGEST_SECONDS = 100 * 365 * 86400.0

Handler = Callable[[web.Request], Awaitable[web.Response]]


@dataclass(slots=True, kw_only=True)
class Control:
    """All of ``/control``."""

    store: Store
    account: Account
    users: Users
    members: Members
    exchange: Exchange
    faults: Faults
    api: Api

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/control/counters", self._counters),
            web.get("/control/members", self._show_members),
            web.get("/control/messages", _paged(self._messages)),
            web.get("/control/frames", _paged(self._frames)),
            web.get("/control/connections", self._connections),
            web.get("/control/audit", self._audit),
            web.get("/control/waiting", self._waiting),
            web.post("/control/missing", _checked(self._missing)),
            web.get("/control/faults", self._show_faults),
            web.post("/control/faults", _checked(self._add_fault)),
            web.delete("/control/faults", self._clear_faults),
            web.post("/control/shards", _checked(self._shards)),
            web.post("/control/inbound", _checked(self._inbound)),
            web.post("/control/certificate", _checked(self._certificate)),
            web.post("/control/pin", _checked(self._pin)),
            web.post("/control/reset-password", _checked(self._reset_password)),
            web.post("/control/tokens", _checked(self._tokens)),
            web.post("/control/support", _checked(self._support)),
            web.post("/control/registered", _checked(self._registered)),
            web.post("/control/reset-fence", _checked(self._reset_fence)),
        ]

    async def _counters(self, _request: web.Request) -> web.Response:
        totals = (await self.exchange.audit()).totals(time.time())
        return web.json_response(
            {
                **self.exchange.counters(),
                "connections": self.exchange.active(),
                "database": self.exchange.database,
                "doubled": totals.doubled,
                "two_holders": totals.two_holders,
                "shards": self.account.shards,
                "restarts": self.account.restarts,
                "set_shards_calls": await self.store.calls(),
                "banned": self.account.banned,
                "logged_off": self.account.logged_off,
                "password_change_required": self.users.change_required,
            }
        )

    async def _show_members(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                role: [{"uid": member.uid, "pod": member.pod, "ip": member.ip} for member in self.members.of(role)]
                for role in ("coreapp", "webapp")
            }
        )

    async def _messages(self, after: int, limit: int) -> web.Response:
        return web.json_response({"messages": await self.store.messages(after, limit)})

    async def _frames(self, after: int, limit: int) -> web.Response:
        entries = await self.exchange.logged(after, limit)
        return web.json_response({"database": self.exchange.database, "frames": [entry.shown() for entry in entries]})

    async def _connections(self, _request: web.Request) -> web.Response:
        return web.json_response({"connections": [span.shown() for span in (await self.exchange.audit()).spans]})

    async def _audit(self, _request: web.Request) -> web.Response:
        audit = await self.exchange.audit()
        totals = audit.totals(time.time())
        return web.json_response(
            {
                **asdict(totals),
                "two_holders": totals.two_holders,
                "shards": {str(shard): dict(counts) for shard, counts in sorted(audit.shards.items()) if shard >= 0},
                "overlapping": [[span.shown() for span in pair] for pair in audit.overlaps],
            }
        )

    async def _waiting(self, _request: web.Request) -> web.Response:
        return web.json_response({"waiting": [inbound.id for inbound in await self.store.waiting()]})

    async def _missing(self, body: dict[str, Any]) -> web.Response:
        ids = body.get("ids")
        if not isinstance(ids, list) or not all(isinstance(message_id, str) for message_id in ids):
            return _bad("ids must be a list of message ids")
        return web.json_response({"missing": await self.store.missing(ids)})

    async def _show_faults(self, _request: web.Request) -> web.Response:
        return web.json_response({"faults": self.faults.shown()})

    async def _add_fault(self, body: dict[str, Any]) -> web.Response:
        fault = Fault.read(body)
        self.faults.add(fault)
        return web.json_response(fault.shown(), status=201)

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self.faults.clear()
        return web.json_response({})

    async def _shards(self, body: dict[str, Any]) -> web.Response:
        shards = body.get("n")
        if type(shards) is not int or shards not in ALLOWED_SHARDS:
            return _bad(f"n must be one of {', '.join(map(str, ALLOWED_SHARDS))}")
        call = {**self.api.new_call("control", shards), "status": 201, "restarted": True}
        await self.account.reshard(shards)
        await self.store.note_call(call)
        return web.json_response({"shards": shards}, status=201)

    async def _inbound(self, body: dict[str, Any]) -> web.Response:
        sender, text = body.get("from"), body.get("body", "")
        if not isinstance(sender, str) or not isinstance(text, str):
            return _bad("from and body must be text")
        message = Inbound(id=str(body.get("id") or secrets.token_hex(8)), sender=sender, body=text)
        if not all(map(storable, (message.id, sender, text))):
            return _bad("id, from and body must be text without NUL")
        new = await self.exchange.inbound(message)
        return web.json_response({"id": message.id, "shard": shard_of(sender, self.account.shards), "duplicate": not new}, status=201)

    async def _certificate(self, body: dict[str, Any]) -> web.Response:
        beginning = body.get("fingerprint")
        if beginning is not None and not isinstance(beginning, str):
            return _bad("fingerprint must be the SHA-256 in hex of the only right certificate (or its beginning), or null")
        await self.account.require_certificate(beginning)
        return web.json_response({})

    async def _pin(self, body: dict[str, Any]) -> web.Response:
        pin = body.get("pin")
        if pin is not None and not is_pin(pin):
            return _bad("pin must be six digits, or null for no two-step verification")
        await self.account.require_pin(pin)
        return web.json_response({})

    async def _reset_password(self, _body: dict[str, Any]) -> web.Response:
        await self.users.reset_password()
        return web.json_response({})

    async def _tokens(self, body: dict[str, Any]) -> web.Response:
        seconds = body.get("seconds", TOKEN_SECONDS)
        if not isinstance(seconds, int | float) or not 0 <= seconds <= _LONGEST_SECONDS:
            return _bad(f"seconds must be how long a new token is good, from 0 to {_LONGEST_SECONDS:.0f}")
        self.users.token_seconds = float(seconds)
        if body.get("expire"):
            await self.users.expire_tokens()
        return web.json_response({})

    async def _support(self, body: dict[str, Any]) -> web.Response:
        instant = datetime.fromisoformat(str(body.get("expire_timestamp")))
        self.api.expire_timestamp = instant.isoformat()
        return web.json_response({})

    async def _registered(self, body: dict[str, Any]) -> web.Response:
        instant = datetime.fromisoformat(str(body.get("at")))
        self.account.registered_at = instant.timestamp()
        return web.json_response({})

    async def _reset_fence(self, _body: dict[str, Any]) -> web.Response:
        await self.exchange.reset_fence()
        return web.json_response({})


def _bad(error: str) -> web.Response:
    return web.json_response({"error": error}, status=400)


def _paged(handle: Callable[[int, int], Awaitable[web.Response]]) -> Handler:
    """Read the entry after which a page begins, and its length; if they are not numbers, answer 400 with one sentence."""

    async def handler(request: web.Request) -> web.Response:
        try:
            after, limit = int(request.query.get("after", "0")), int(request.query.get("limit", "1000"))
        except ValueError:
            return _bad("after and limit must be numbers")
        return await handle(max(0, min(after, _LAST)), max(1, min(limit, 10_000)))

    return handler


def _checked(handle: Callable[[dict[str, Any]], Awaitable[web.Response]]) -> Handler:
    """Read the body as a JSON object; if it is invalid, answer 400 with one sentence."""

    async def handler(request: web.Request) -> web.Response:
        try:
            body = await json_of(request)
            if not isinstance(body, dict):
                return _bad("the body must be a JSON object")
            return await handle(body)
        except (ValueError, TypeError, OverflowError) as error:
            return _bad(str(error))

    return handler
