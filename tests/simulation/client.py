"""The simulated client: Coreapps that do what they are told, the account behind them, and the WhatsApp servers with their fence."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from whatsapp_operator.core.model import Epoch


@dataclass(frozen=True, slots=True)
class Connection:
    """The WhatsApp connection of one shard."""

    uid: str
    epoch: str


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one Set Shards call. `applied` None: never; else seconds until it takes effect."""

    kind: str = "answer"
    """``answer``, or how the caller hears nothing: ``timeout``, ``reset``, ``5xx``."""
    status: int | None = None
    """An answer that is given without looking at the call, such as 403."""
    applied: float | None = 0.0


class Account:
    """One WhatsApp account: its number of shards, who is connected, the fence. What happens here is true, whoever knows of it."""

    def __init__(self, *, rng: Random, restart_seconds: float, now: Callable[[], float]) -> None:
        self.rng = rng
        self.now = now
        self.restart_seconds = restart_seconds
        self.shards = 1
        self.restarts = 0
        self.set_calls = 0
        self.restarting_until = 0.0
        self.password: str | None = None
        self.tokens: set[str] = set()
        self.connections: dict[int, Connection] = {}
        self.highest: dict[int, tuple[int, str, str]] = {}
        self.members: dict[str, Coreapp] = {}
        self.fenced = 0
        self.logged_off = False
        self.right_certificate: str | None = None
        self.fates: deque[Fate] = deque()
        """What becomes of the next calls; then all goes well."""
        self.on_set: list[Callable[[int, int], None]] = []

    def connect(self, shard: int, epoch: str, uid: str, shards: int) -> bool:
        """Take or refuse a connection; a higher epoch replaces the older one."""
        parsed = Epoch.parse(epoch)
        if parsed is None or shards != self.shards or not 0 <= shard < self.shards or self.logged_off:
            return False
        mine, known = (parsed.n, epoch, uid), self.highest.get(shard)
        if known is not None and known != mine and parsed.n <= known[0]:
            self.fenced += 1
            return False
        self.highest[shard] = mine
        self.connections[shard] = Connection(uid, epoch)
        return True

    def disconnect(self, uid: str) -> None:
        """Drop whatever this Coreapp holds."""
        for shard, connection in list(self.connections.items()):
            if connection.uid == uid:
                del self.connections[shard]

    def set_shards(self, shards: int) -> None:
        """Do what an accepted call does: the number changes and all Coreapps restart."""
        before, self.shards = self.shards, shards
        self.restarts += 1
        self.logged_off = False
        self.restarting_until = self.now() + self.restart_seconds
        self.connections.clear()
        for told in self.on_set:
            told(before, shards)
        for coreapp in list(self.members.values()):
            coreapp.restart(self.restart_seconds * (0.8 + 0.4 * self.rng.random()))


@dataclass
class Memory:
    """What a Coreapp keeps in its emptyDir: it lives as long as the pod."""

    role: tuple[int, str, int] | None = None
    known: dict[int, int] = field(default_factory=dict)


class Line(asyncio.Transport):
    """One connection of an operator to a Coreapp: what is asked over it is answered, until the other side goes away."""

    def __init__(self, coreapp: Coreapp, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._coreapp = coreapp
        self._protocol = protocol
        self._is_open = True

    def write(self, _data: bytes | bytearray | memoryview[Any]) -> None:
        """Take a question; its answer comes a moment later."""
        asyncio.get_running_loop().call_later(0.001, self._answer)

    def _answer(self) -> None:
        if self._is_open:
            body = json.dumps(self._coreapp.report()).encode()
            self._protocol.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    def drop(self) -> None:
        """The other side went away."""
        if self._is_open:
            self._is_open = False
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        """Let go of it."""
        self._coreapp.lines.pop(self, None)
        self.drop()


class Coreapp:
    """One Coreapp process with its life: up, restarting, down."""

    def __init__(self, account: Account, *, pod: str, uid: str) -> None:
        self.account = account
        self.pod = pod
        self.uid = uid
        self.memory = Memory()
        self.listening = False
        self.restarting = False
        """Away because of Set Shards, and only of that."""
        self.shards: int | None = None
        self.told: tuple[int, str] | None = None
        self.lines: dict[Line, None] = {}
        self.changed: Callable[[], None] = lambda: None
        """Called when it begins or ends to listen."""
        self._life = 0

    def report(self) -> dict[str, Any]:
        """Return the probe's answer."""
        mine = self.told is not None and self.account.connections.get(self.told[0]) == Connection(self.uid, self.told[1])
        return {
            "uid": self.uid,
            "pod": self.pod,
            "shard": self.told[0] if self.told else None,
            "epoch": self.told[1] if self.told else None,
            "shards": self.shards,
            "gateway_status": "connected" if mine else "disconnected",
            "version": "v2.53.4",
        }

    def start(self) -> None:
        """The process comes up: it listens, then registers, then knows its number of shards and resumes what it was told."""
        self._life += 1
        self.listening, self.restarting = True, False
        self.shards, self.told = None, None
        life = self._life
        self.changed()
        asyncio.get_running_loop().call_later(0.02 + self.account.rng.random() * 0.2, self._registered, life)

    def _registered(self, life: int) -> None:
        if life != self._life:
            return
        self.account.members[self.uid] = self
        self.shards = self.account.shards
        role = self.memory.role
        if role is not None and role[2] == self.shards:
            self._serve(role[0], role[1])
        else:
            self.memory.role = None

    def die(self) -> None:
        """The process ends: all connections are closed, nothing is said."""
        self._life += 1
        self.listening = self.restarting = False
        self.shards, self.told = None, None
        self.account.members.pop(self.uid, None)
        self.account.disconnect(self.uid)
        for line in self.lines:
            line.drop()
        self.lines.clear()
        self.changed()

    def restart(self, seconds: float) -> None:
        """Set Shards: everything closed, the downtime, everything as new."""
        self.die()
        self.restarting = True
        life = self._life
        asyncio.get_running_loop().call_later(seconds, lambda: self.start() if life == self._life else None)

    def obey(self, order: Mapping[str, Any]) -> bool:
        """Take a role order; False stands for HTTP 409."""
        shard, epoch, shards = order["shard"], order["epoch"], order["shards"]
        if order["uid"] != self.uid or self.shards is None or shards != self.shards:
            return False
        if shard is None or epoch is None:
            self._stand_by()
            return True
        parsed = Epoch.parse(epoch)
        if parsed is None or parsed.n < self.memory.known.get(shard, 0):
            return False
        self.memory.known[shard] = parsed.n
        if order.get("holder") is None:
            self.memory.role = (shard, epoch, shards)
            self._serve(shard, epoch)
        elif self.told is not None and self.told[0] == shard:
            self._stand_by()
        return True

    def _serve(self, shard: int, epoch: str) -> None:
        if self.told == (shard, epoch):
            return
        self.account.disconnect(self.uid)
        self.told = (shard, epoch)
        life = self._life
        asyncio.get_running_loop().call_later(0.005 + self.account.rng.random() * 0.03, self._connect, life)

    def _connect(self, life: int) -> None:
        if life != self._life or self.told is None:
            return
        shard, epoch = self.told
        if self.account.connections.get(shard) == Connection(self.uid, epoch):
            return
        if self.account.connect(shard, epoch, self.uid, self.shards or 0):
            return
        # Fenced, or the number of shards has moved on: it goes on trying slowly, as the stand-in does.
        asyncio.get_running_loop().call_later(1.0, self._connect, life)

    def _stand_by(self) -> None:
        self.memory.role = None
        self.told = None
        self.account.disconnect(self.uid)
