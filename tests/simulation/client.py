"""The simulated client: Coreapps that follow their role assignments, the account behind them, and the WhatsApp servers with their fence."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from random import Random
from typing import Any

from .kinds import epoch_number
from .virtual import Process


@dataclass(frozen=True, slots=True)
class Connection:
    """The WhatsApp connection of one shard."""

    uid: str
    epoch: str


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What becomes of one Set Shards call. `applied` None: never; else seconds until it takes effect."""

    kind: str = "answer"
    """``answer``, or how the caller hears nothing: ``timeout``, ``reset``, ``5xx``."""
    status: int | None = None
    """An answer that is given without reading the call, such as 403."""
    applied: float | None = 0.0
    code: int | None = None
    """Error code of that answer."""
    text: str = ""
    """What it says."""
    retry_after: float | None = None
    """Seconds for which it asks not to be called."""
    final: str = ""
    """What it rejects for good: ``certificate``, ``pin``, ``account``, ``build`` or ``registration``; empty: nothing."""
    clear: bool = False
    """It says that nothing was done, although its status does not."""
    lasts: bool = False
    """Every later call gets it too, until the test takes it away."""

    @property
    def is_clear(self) -> bool:
        """Whether the answer says that nothing was done."""
        return self.clear or bool(self.final) or (self.status is not None and (self.status < 500 or self.status == 503))


class Account:
    """One WhatsApp account: its number of shards, who is connected, the fence. What happens here is true, no matter who knows of it."""

    def __init__(self, *, rng: Random, restart_seconds: float, now: Callable[[], float]) -> None:
        self.rng = rng
        self.now = now
        self.restart_seconds = restart_seconds
        self.shards = 1
        self.restarts = 0
        self.restarting_until = 0.0
        self.password: str | None = None
        self.tokens: set[str] = set()
        self.connections: dict[int, Connection] = {}
        self.highest: dict[int, tuple[int, str, str]] = {}
        self.members: dict[str, Coreapp] = {}
        self.fenced = 0
        self.logged_off = False
        self.is_banned = False
        self.right_certificate: str | None = None
        self.call_outcomes: deque[CallOutcome] = deque()
        """What becomes of the next calls; then all goes well."""
        self.did: Counter[str] = Counter()
        """How often each fault of a Coreapp did something."""
        self.on_set: list[Callable[[int, int], None]] = []
        self.on_connection: list[Callable[[], None]] = []
        """Called when a connection was made or ended."""

    def connect(self, shard: int, epoch: str, uid: str, shards: int) -> bool:
        """Take or refuse a connection; a higher epoch replaces the older one."""
        number = epoch_number(epoch)
        if number is None or shards != self.shards or not 0 <= shard < self.shards or self.logged_off:
            return False
        if self.refuses(shard, epoch, uid):
            self.fenced += 1
            return False
        self.highest[shard] = (number, epoch, uid)
        self.connections[shard] = Connection(uid, epoch)
        self._tell()
        return True

    def _tell(self) -> None:
        for callback in self.on_connection:
            callback()

    def refuses(self, shard: int, epoch: str, uid: str) -> bool:
        """Return whether a higher epoch than this one was accepted, or another of the same number."""
        number, known = epoch_number(epoch), self.highest.get(shard)
        return number is not None and known is not None and known != (number, epoch, uid) and number <= known[0]

    def disconnect(self, uid: str) -> None:
        """Drop all that this Coreapp holds."""
        for shard, connection in list(self.connections.items()):
            if connection.uid == uid:
                del self.connections[shard]
                self._tell()

    def log_off(self) -> None:
        """Drop all connections until a call is accepted: the certificate was a wrong one."""
        self.logged_off = True
        self.connections.clear()
        self._tell()

    def set_shards(self, shards: int) -> None:
        """Do what an accepted call does: the number changes and all Coreapps restart."""
        before, self.shards = self.shards, shards
        self.restarts += 1
        self.logged_off = False
        self.restarting_until = self.now() + self.restart_seconds
        self.connections.clear()
        self._tell()
        for callback in self.on_set:
            callback(before, shards)
        for coreapp in list(self.members.values()):
            coreapp.restart(self.restart_seconds * (0.8 + 0.4 * self.rng.random()))


@dataclass
class Memory:
    """What a Coreapp keeps in its emptyDir: it lives as long as the pod."""

    role: tuple[int, str, int] | None = None
    known: dict[int, int] = field(default_factory=dict)


class ConnectionLog:
    """Receives what one process asks one Coreapp and hears of it; this one notes nothing."""

    def asks(self) -> None:
        """A question is on its way."""

    def dials(self) -> None:
        """A fresh connection is asked for."""

    def hears(self) -> None:
        """An answer came."""

    def gave_up(self) -> None:
        """The attempt to connect is over."""


class CoreappConnection(asyncio.Transport):
    """One connection of an operator to a Coreapp: what is asked over it is answered, until the other side goes away."""

    def __init__(
        self,
        coreapp: Coreapp,
        protocol: asyncio.Protocol,
        *,
        process: Process | None,
        connection_log: ConnectionLog,
        delay: Callable[[], float],
        is_open: Callable[[], bool],
    ) -> None:
        super().__init__()
        self._coreapp = coreapp
        self._protocol = protocol
        self._process = process
        self._connection_log = connection_log
        self._delay = delay
        self._is_reached = is_open
        self._is_open = True
        self._is_waiting = False
        self.is_orphan = False
        """The process at its other end is no more, and could not say so."""

    def write(self, _data: bytes | bytearray | memoryview[Any]) -> None:
        """Take a question; its answer comes a moment later."""
        self._connection_log.asks()
        self._answer_in(self._delay())

    def _answer_in(self, delay: float) -> None:
        asyncio.get_running_loop().call_later(delay, self._answer, context=Context())

    def _answer(self) -> None:
        self._is_waiting = False
        if not self._is_open:
            return
        if not self._is_reached() or (self._coreapp.is_hung and not self.is_orphan):
            self._is_waiting = True
            self._coreapp.account.did["probe unanswered"] += 1
        elif self.is_orphan:
            self.drop()
        elif self._coreapp.slow:
            self._coreapp.account.did["slow answer"] += 1
            asyncio.get_running_loop().call_later(self._coreapp.slow, self._say, context=Context())
        else:
            self._say()

    def _say(self) -> None:
        asyncio.get_running_loop().call_soon(self._deliver, self._coreapp.answer(), context=self._context())

    def _context(self) -> Context | None:
        return self._process.context if self._process is not None else None

    def _deliver(self, answer: bytes) -> None:
        if self._is_open:
            self._connection_log.hears()
            self._protocol.data_received(answer)

    def try_again(self, delay: float) -> None:
        """What was asked and not answered arrives after all."""
        if self._is_waiting:
            self._is_waiting = False
            self._answer_in(delay)

    def end(self) -> None:
        """The process at the other end is gone; that is heard if there is a way."""
        if self._is_reached():
            self.drop()
        else:
            self.is_orphan = True
            self._coreapp.orphans[self] = None

    def drop(self) -> None:
        """The other side went away."""
        if self._is_open:
            self._is_open = False
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None, context=self._context())

    def abort(self) -> None:
        """Let go of it."""
        self._coreapp.lines.pop(self, None)
        self._coreapp.orphans.pop(self, None)
        if self._is_open:
            self._is_open = False
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None, context=self._context())


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
        self.assigned: tuple[int, str] | None = None
        self.lines: dict[CoreappConnection, None] = {}
        self.orphans: dict[CoreappConnection, None] = {}
        """Connections whose end could not be said."""
        self.is_hung = False
        """Stopped: its kernel takes connections and what is sent over them, and nobody answers."""
        self.slow = 0.0
        """Seconds that an answer takes."""
        self.is_in_reach: Callable[[], bool] = lambda: True
        self._put_off: list[Callable[[], object]] = []
        self.changed: Callable[[], None] = lambda: None
        """Called when it begins or ends to listen."""
        self._life = 0
        self._said: tuple[dict[str, Any], bytes] = {}, b""
        """The last answer, and what it was made of."""

    def report(self) -> dict[str, Any]:
        """Return the probe's answer."""
        mine = self.assigned is not None and self.account.connections.get(self.assigned[0]) == Connection(self.uid, self.assigned[1])
        return {
            "uid": self.uid,
            "pod": self.pod,
            "shard": self.assigned[0] if self.assigned else None,
            "epoch": self.assigned[1] if self.assigned else None,
            "shards": self.shards,
            "gateway_status": "connected" if mine else "disconnected",
            "fenced": self.assigned is not None and not mine and self.account.refuses(*self.assigned, self.uid),
            "version": "v2.53.4",
        }

    def answer(self) -> bytes:
        """Return the probe's answer as it goes over the wire; it is mostly the same as the last time."""
        report = self.report()
        if report != self._said[0]:
            body = json.dumps(report).encode()
            self._said = report, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        return self._said[1]

    def start(self) -> None:
        """The process comes up: it listens, then registers, then knows its number of shards and resumes its last assignment."""
        self._life += 1
        self.listening, self.restarting = True, False
        self.shards, self.assigned = None, None
        life = self._life
        self.changed()
        for line in tuple(self.orphans):
            line.try_again(0.001)
        asyncio.get_running_loop().call_later(0.02 + self.account.rng.random() * 0.2, self._registered, life)

    def _registered(self, life: int) -> None:
        if life != self._life or self._is_put_off(lambda: self._registered(life)):
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
        self.shards, self.assigned = None, None
        self.account.members.pop(self.uid, None)
        self.account.disconnect(self.uid)
        self.is_hung, self.slow = False, 0.0
        self._put_off.clear()
        lines, self.lines = self.lines, {}
        for line in lines:
            line.end()
        self.changed()

    def vanish(self) -> None:
        """Its machine is switched off: nothing is sent to any peer."""
        self.die()

    # --- a process that is stopped, or out of reach --------------------------------------------------------------------

    def hang(self) -> None:
        """Stop like SIGSTOP; connections stay as they are, to WhatsApp too."""
        self.is_hung = True

    def resume(self) -> None:
        """Go on: first with what was begun, then with what came meanwhile."""
        if self.is_hung:
            self.is_hung = False
            waiting, self._put_off = self._put_off, []
            for do in waiting:
                do()
            for line in tuple(self.lines):
                line.try_again(0.001)

    def is_in_reach_again(self) -> None:
        """A path to it is free again; it learns what the account did meanwhile."""
        for line in (*self.lines, *self.orphans):
            line.try_again(0.2 + self.account.rng.random() * 0.8)
        if self.is_in_reach() and self.listening and not self.is_hung and self.shards not in {None, self.account.shards}:
            self.restart(self.account.restart_seconds * (0.8 + 0.4 * self.account.rng.random()))

    def _is_put_off(self, do: Callable[[], object]) -> bool:
        if self.is_hung:
            self._put_off.append(do)
        return self.is_hung

    def restart(self, seconds: float) -> None:
        """Set Shards: everything closed, the downtime, everything as new."""
        if self._is_put_off(lambda: self.restart(seconds)) or not self.is_in_reach():
            # Out of reach it hears nothing of it; once back it does.
            return
        self.die()
        self.restarting = True
        life = self._life
        asyncio.get_running_loop().call_later(seconds, lambda: self.start() if life == self._life else None)

    def obey(self, order: Mapping[str, Any]) -> bool:
        """Take a role order; False stands for HTTP 409, or for no answer: a process that is stopped obeys when it goes on."""
        if self._is_put_off(lambda: self.obey(order)):
            return False
        shard, epoch, shards = order["shard"], order["epoch"], order["shards"]
        if order["uid"] != self.uid or self.shards is None or shards != self.shards:
            return False
        if shard is None or epoch is None:
            self._stand_by()
            return True
        number = epoch_number(epoch)
        if number is None or number < self.memory.known.get(shard, 0):
            return False
        self.memory.known[shard] = number
        if order.get("holder") is None:
            self.memory.role = (shard, epoch, shards)
            self._serve(shard, epoch)
        elif self.assigned is not None and self.assigned[0] == shard:
            self._stand_by()
        return True

    def _serve(self, shard: int, epoch: str) -> None:
        if self.assigned == (shard, epoch):
            return
        self.account.disconnect(self.uid)
        self.assigned = (shard, epoch)
        life = self._life
        asyncio.get_running_loop().call_later(0.005 + self.account.rng.random() * 0.03, self._connect, life)

    def _connect(self, life: int) -> None:
        if life != self._life or self.assigned is None or self._is_put_off(lambda: self._connect(life)):
            return
        shard, epoch = self.assigned
        if self.account.connections.get(shard) == Connection(self.uid, epoch):
            return
        if self.account.connect(shard, epoch, self.uid, self.shards or 0):
            return
        # Fenced, or the number of shards has moved on: it goes on trying slowly, as the simulator does.
        asyncio.get_running_loop().call_later(1.0, self._connect, life)

    def _stand_by(self) -> None:
        self.memory.role = None
        self.assigned = None
        self.account.disconnect(self.uid)
