"""The WhatsApp servers: one connection for each shard, the fence, messages in both directions, and all counters."""

import asyncio
import json
import secrets
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from .account import Account
from .epoch import Epoch
from .faults import Faults
from .gateway import LOGGED_OFF, REJECTION_HEADER, REPLACED, RESHARDED, UNABLE
from .gatewaylog import Audit, Entry, Kind
from .link import Frame, frames, upstream_socket
from .sharding import shard_of
from .store import KEPT, Inbound, Store, StoreError

_PER_SHARD = ("sent", "accepted", "duplicates", "inbound_sent", "inbound_acked", "fenced", "replaced", "misrouted", "stale")
_WINDOW = 64
"""How many inbound messages may be in progress to one Coreapp."""
_PAGE = 5000
_CONNECTIONS_KEPT = 20_000
_WHY = {
    REPLACED: "replaced",
    RESHARDED: "resharded",
    LOGGED_OFF: "logged off",
    UNABLE: "database uncertain",
    1001: "servers end",
    1006: "cut",
}
"""Why a connection was closed, for the log, by the close code."""


@dataclass(eq=False, slots=True)
class Connection:
    """One WhatsApp connection of one shard."""

    shard: int
    epoch: Epoch
    uid: str
    socket: web.WebSocketResponse
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    queue: deque[Inbound] = field(default_factory=deque)
    under_way: set[str] = field(default_factory=set)


class Exchange:
    """Connections and messages. Sums over restarts come from the store; the rest is counted from the start of the process."""

    def __init__(
        self,
        store: Store,
        account: Account,
        faults: Faults,
        gate: asyncio.Event,
        spawn: Callable[[Coroutine[object, object, None]], asyncio.Task[None]],
    ) -> None:
        self.database = ""
        """Identifies the database: one that was emptied gets a new id."""
        self._store = store
        self._account = account
        self._faults = faults
        self._gate = gate
        self._spawn = spawn
        self._active: dict[int, Connection] = {}
        self._live: defaultdict[int, set[Connection]] = defaultdict(set)
        self._locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._waiting: dict[str, Inbound] = {}
        self._counts: Counter[tuple[str, int]] = Counter()
        self._left = False
        self._unwritten: list[Entry] = []
        self._audit = Audit(ids_kept=KEPT, spans_kept=_CONNECTIONS_KEPT)
        self._audited = 0
        self._auditing = asyncio.Lock()

    async def load(self) -> None:
        """Read the sums of earlier processes and the inbound messages that no webhook accepted; earlier values in memory are dropped."""
        for key in [key for key in self._counts if key[0] != "inbound_sent"]:
            del self._counts[key]
        for name, shard, value in await self._store.counts():
            self._counts[name, shard] = value
        for shard, value in (await self._store.accepted()).items():
            self._counts["accepted", shard] = value
            self._counts["sent", shard] = value + self._counts["duplicates", shard]
        for shard, value in (await self._store.acknowledged()).items():
            self._counts["inbound_acked", shard] = value
        self._waiting = {inbound.id: inbound for inbound in await self._store.waiting()}
        self.database = (await self._store.facts()).get("database") or secrets.token_hex(6)
        await self._store.put_facts({"database": self.database})
        self._unwritten = [Entry(kind=Kind.STARTED, at=time.time())]
        await self._write()

    def connected(self, uid: str) -> bool:
        """True if that Coreapp has a connection."""
        return any(connection.uid == uid for connection in self._active.values())

    def active(self) -> dict[str, dict[str, Any]]:
        """Return who is connected, by shard."""
        return {str(shard): {"uid": connection.uid, "epoch": str(connection.epoch)} for shard, connection in sorted(self._active.items())}

    def counters(self) -> dict[str, Any]:
        """Return all counters; those per shard are maps from the shard as text."""
        per_shard: dict[str, dict[str, int]] = {name: {} for name in _PER_SHARD}
        for (name, shard), value in sorted(self._counts.items()):
            if name in per_shard:
                per_shard[name][str(shard)] = value
        return {
            **per_shard,
            "active": {str(shard): len(live) for shard, live in sorted(self._live.items()) if live},
            "inbound_received": len(self._waiting) + sum(per_shard["inbound_acked"].values()),
            "inbound_waiting": len(self._waiting),
        }

    async def close_all(self, code: int) -> None:
        """Close every connection: 4002 for Set Shards, 4003 for a client that is logged off, 1011 if the database is uncertain."""
        connections = [connection for live in self._live.values() for connection in live]
        for connection in connections:
            self._remove(connection, code)
        self._spawn(self._write())
        await asyncio.gather(*(connection.socket.close(code=code) for connection in connections), return_exceptions=True)

    async def leave(self) -> None:
        """Shut down: close every connection, and each new one until the port is closed."""
        self._left = True
        await self.close_all(1001)

    # connections

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """``GET /ws/gateway?shard&epoch&uid&shards``."""
        try:
            shard, shards = int(request.query["shard"]), int(request.query["shards"])
            epoch, uid = Epoch.parse(request.query["epoch"]), request.query["uid"]
        except (KeyError, ValueError) as error:
            return web.json_response({"error": f"shard, epoch, uid and shards are needed: {error}"}, status=400)
        if (fault := self._faults.take("gateway")) is not None:
            if fault.fault == "error":
                return web.json_response({"error": "injected fault"}, status=503)
            await asyncio.sleep(fault.seconds)
        # One at a time for each shard: no other connection may be handled between the fence and the replacement of the older one.
        async with self._locks[shard]:
            rejection = await self._rejection(shard, shards, epoch, uid)
            if rejection is not None:
                return rejection
            socket = upstream_socket()
            await socket.prepare(request)
            if self._left:
                await socket.close(code=1001)
                return socket
            connection = Connection(shard=shard, epoch=epoch, uid=uid, socket=socket)
            if self._account.barred is not None or self._account.shards != shards:  # it changed during the handshake
                await socket.close(code=RESHARDED if self._account.barred is None else LOGGED_OFF)
                return socket
            self._activate(connection)
        try:
            await self._write()
            await self._pump(connection)
            async for frame in frames(socket, self._gate, None):
                await self._handle(connection, frame)
        except StoreError:  # unacknowledged messages are sent again
            self._remove(connection, UNABLE)
            await socket.close(code=UNABLE)
        finally:
            self._remove(connection, socket.close_code)
            self._spawn(self._write())
        return socket

    async def _rejection(self, shard: int, shards: int, epoch: Epoch, uid: str) -> web.Response | None:
        if (barred := self._account.barred) is not None:
            return _reject(barred, {"error": barred})
        if shards != self._account.shards or not 0 <= shard < shards:
            return _reject("shards", {"error": "shards", "shards": self._account.shards})
        highest = await self._store.admit(shard, epoch, uid)
        if highest is not None:
            self._note(Kind.FENCED, shard=shard, epoch=epoch.text, uid=uid, note=highest.text)
            await self._write()
            await self._count("fenced", shard)
            return _reject("fenced", {"error": "fenced", "highest": str(highest)})
        return None

    def _activate(self, connection: Connection) -> None:
        older = self._active.get(connection.shard)
        if older is not None:
            self._remove(older, REPLACED)
            self._spawn(self._replace(older))
        self._active[connection.shard] = connection
        self._live[connection.shard].add(connection)
        self._note_of(connection, Kind.OPENED)
        mine = [inbound for inbound in self._waiting.values() if shard_of(inbound.sender, self._account.shards) == connection.shard]
        connection.queue.extend(mine)

    def _remove(self, connection: Connection, code: int | None) -> None:
        """Accept no frame of it from here on; ``code`` is its close code, None if it was cut."""
        if connection in self._live[connection.shard]:
            self._note_of(connection, Kind.CLOSED, note=_WHY.get(code or 1006, "ended by the Coreapp"))
        self._live[connection.shard].discard(connection)
        if self._active.get(connection.shard) is connection:
            del self._active[connection.shard]

    async def _replace(self, older: Connection) -> None:
        await self._count("replaced", older.shard)
        with suppress(ConnectionError, RuntimeError):
            await older.socket.close(code=REPLACED)

    # frames

    async def _handle(self, connection: Connection, frame: Frame) -> None:
        if frame["type"] == "inbound_ack":  # also from a connection that was just replaced: the webhook has accepted it
            await self._acknowledged(connection, frame["id"])
        elif frame["type"] == "send":
            await self._write()  # the log is in order, and nothing may be awaited between the check and the acceptance
            if not self._may_send(connection):
                self._note_of(connection, Kind.STALE, message=frame["id"], note=frame["to"])
                await self._count("stale", connection.shard)
                return
            await self._take(connection, frame["id"], frame["to"])

    def _may_send(self, connection: Connection) -> bool:
        return self._active.get(connection.shard) is connection

    async def _take(self, connection: Connection, message_id: str, to: str) -> None:
        shard = connection.shard
        fault = self._faults.take("messages")
        if fault is not None and fault.fault != "slow" and not fault.applies:
            self._note_of(connection, Kind.DROPPED, message=message_id, note=to)
            if fault.fault == "reset":
                await connection.socket.close(code=UNABLE)
            return
        misrouted = shard_of(to, self._account.shards) != shard
        new = await self._store.accept(self._entry_of(connection, Kind.TAKEN, message=message_id, note=to))
        if misrouted:
            await self._count("misrouted", shard)
        self._counts["sent", shard] += 1
        if new:
            self._counts["accepted", shard] += 1
        else:
            await self._count("duplicates", shard)
        if fault is None:
            await self._acknowledge(connection, message_id, new)
        elif fault.fault == "slow":
            self._spawn(self._acknowledge(connection, message_id, new, fault.seconds))
        elif fault.fault == "reset":
            await connection.socket.close(code=UNABLE)

    async def _acknowledge(self, connection: Connection, message_id: str, new: bool, after: float = 0.0) -> None:
        if after:
            await asyncio.sleep(after)
        with suppress(ConnectionError, RuntimeError):
            await connection.socket.send_str(json.dumps({"type": "ack", "id": message_id, "duplicate": not new}))

    # inbound

    async def inbound(self, message: Inbound) -> bool:
        """Handle a message of a WhatsApp user: store it, send it to the current or next holder of the shard; False: the id is known."""
        if not await self._store.add_inbound(message):
            return False
        self._waiting[message.id] = message
        connection = self._active.get(shard_of(message.sender, self._account.shards))
        if connection is not None:
            connection.queue.append(message)
            await self._pump(connection)
        return True

    async def _pump(self, connection: Connection) -> None:
        while connection.queue and len(connection.under_way) < _WINDOW and self._active.get(connection.shard) is connection:
            message = connection.queue.popleft()
            if message.id not in self._waiting:
                continue
            connection.under_way.add(message.id)
            self._counts["inbound_sent", connection.shard] += 1
            frame = {"type": "inbound", "id": message.id, "from": message.sender, "body": message.body}
            with suppress(ConnectionError, RuntimeError):
                await connection.socket.send_json(frame)

    async def _acknowledged(self, connection: Connection, inbound_id: str) -> None:
        connection.under_way.discard(inbound_id)
        self._waiting.pop(inbound_id, None)
        if await self._store.acknowledge(inbound_id, connection.shard):
            self._counts["inbound_acked", connection.shard] += 1
        await self._pump(connection)

    # the log

    def _note(self, kind: Kind, **fields: Any) -> None:
        """Append to the log in order and at once, even where the database cannot be awaited."""
        self._unwritten.append(Entry(kind=kind, at=time.time(), **fields))

    def _entry_of(self, connection: Connection, kind: Kind, message: str = "", note: str = "") -> Entry:
        shard, epoch, uid = connection.shard, connection.epoch.text, connection.uid
        return Entry(kind=kind, at=time.time(), shard=shard, epoch=epoch, uid=uid, connection=connection.id, message=message, note=note)

    def _note_of(self, connection: Connection, kind: Kind, message: str = "", note: str = "") -> None:
        self._unwritten.append(self._entry_of(connection, kind, message, note))

    async def _write(self) -> None:
        if entries := self._unwritten:
            self._unwritten = []
            await self._store.log(entries)

    async def logged(self, after: int, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries of the log after sequence number ``after``, including all events until now."""
        await self._write()
        return await self._store.logged(after, limit)

    async def audit(self) -> Audit:
        """Return the audit of the whole log, including earlier processes."""
        async with self._auditing:
            while page := await self.logged(self._audited, _PAGE):
                self._audit.read(page)
                self._audited = page[-1].seq
                await asyncio.sleep(0)  # an SQLite file returns a long log without a pause: let other tasks run
        return self._audit

    async def reset_fence(self) -> None:
        """Drop all epochs: after a restore of etcd the resource versions go back, and with them the epochs."""
        await self._store.reset_fence()
        self._note(Kind.RESET)
        await self._write()

    async def _count(self, name: str, shard: int) -> None:
        self._counts[name, shard] += 1
        await self._store.count(name, shard)


def _reject(reason: str, body: dict[str, Any]) -> web.Response:
    return web.json_response(body, status=409, headers={REJECTION_HEADER: reason})
