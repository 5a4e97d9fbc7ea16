"""One Coreapp under watch: an open connection that says when it ends, and a probe each period that says whether somebody answers.

"Broken": the connection got FIN or RST and one reconnect was refused. "Silent": a probe was not answered within its deadline; it is so
since the first of the unanswered ones was sent. Both are evidence and no more. There is no task for each tether, only
timers: five thousand of them share a process.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zlib import crc32

import h11

from whatsapp_operator.core.desired import Probe
from whatsapp_operator.core.snapshot import Report
from whatsapp_operator.shell.clock import Clock

from .loop_lag import TOLERANCE, LoopLag
from .wire import Wire, question, read_report

log = logging.getLogger(__name__)

OWN_FAULTS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})
"""Errors of a connect that speak of this process or its machine: no evidence about the other side."""

LEAST_SILENT = 3
"""Fewer silent ones are no sign that we are cut off."""

LONG_AGO = 1.0
"""Seconds for which we stood still after which what was seen before no longer proves that a Coreapp is away: a restart may be over."""

COMPLAIN_EVERY = 10.0
"""Seconds between two complaints about that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A pod to watch."""

    ip: str
    node: str | None
    holds: bool
    """It is named as the holder of a shard: probed each period; others less often."""
    probe: Probe
    unhealthy_after: float
    """Seconds of silence after which the cluster's loop is to be woken."""
    ready: bool = False
    """Its kubelet calls the pod ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Times of tethers, in seconds."""

    deadline: float = 1.0
    """A probe that is not answered in this time makes its target silent."""
    connect_timeout: float = 0.5
    """Short, and then again: a lost SYN is repeated by the kernel after 1 s only, and five of them in 3 s outlive 30 % loss more often."""
    retry: float = 0.1
    """Pause before the next connect, and before a Coreapp that has just started is asked again."""
    retry_cost: float = 0.001
    """Seconds that the pause before the next connect is at least, for each target that has no connection: a lost zone costs no core."""
    standby_period: float = 5.0
    """The least period of targets that hold nothing."""
    insist: float = 0.25
    """Between two fresh connections while a target is silent and its silence does not count yet: a few lost packets are no failure."""
    most_side_connections: int = 6
    """So many fresh connections may wait for their answers side by side; a slow process answers one of them."""
    fresh_every: int = 30
    """Each so many probes one goes over a fresh connection: a full accept queue hides behind an open one."""
    tell_timeout: float = 1.0


@dataclass(slots=True)
class ProbeSchedule:
    """What the tethers of one process share."""

    clock: Clock
    pace: Pace
    lag: LoopLag
    port: int
    known: set[Tether] = field(default_factory=set)
    """Have answered before."""
    silent: set[Tether] = field(default_factory=set)
    """Have left their last probe unanswered."""
    away: set[Tether] = field(default_factory=set)
    """Have no connection now."""
    hurried_at: float = -math.inf
    """When standbys were asked out of turn last, by the monotonic clock."""
    complained_at: float = -math.inf
    """When it was last said that this process itself cannot make connections; by the monotonic clock."""

    @property
    def is_fast(self) -> bool:
        """Whether so many are silent at once that it may be our own fault: then all are asked as often as holders are."""
        return len(self.silent) >= LEAST_SILENT and 4 * len(self.silent) > len(self.known)

    def speed_up(self) -> None:
        """Ask the standbys soon, if need be: only who was asked after a silence began can tell that it is not ours."""
        now = self.clock.monotonic()
        if self.is_fast and now - self.hurried_at >= self.pace.standby_period:
            self.hurried_at = now
            for tether in self.known - self.silent:
                tether.speed_up()

    def unasked(self) -> int:
        """Return how many answered their last question, but were not asked since half of the silent ones fell silent."""
        began = sorted(at for tether in self.silent if (at := tether.asked_at) is not None)
        if len(began) < LEAST_SILENT:
            return 0
        since = began[(len(began) - 1) // 2]
        responses = (tether for tether in self.known - self.silent if tether.responded_at is not None and tether.responded_at > since)
        # As many that were heard settle the question, and the rest need not be looked through.
        is_settled = sum(1 for _ in itertools.islice(responses, len(self.silent))) == len(self.silent)
        return 0 if is_settled else sum(tether.responded_at is None or tether.responded_at <= since for tether in self.known - self.silent)


def phase_of(uid: str) -> float:
    """Return at which part of each period a pod is probed, from 0 to 1: even over many pods, the same in every process."""
    return crc32(uid.encode()) / 2**32


class Tether:
    """Watches one pod from ``start`` to ``stop``."""

    __slots__ = (
        "__weakref__",
        "_alarm",
        "_asked_at",
        "_attempt",
        "_changed",
        "_dialled",
        "_dialled_at",
        "_due",
        "_is_expected",
        "_last_body",
        "_phase",
        "_question",
        "_refusals",
        "_refusals_needed",
        "_responded_at",
        "_rounds",
        "_schedule",
        "_side_connections",
        "_wire",
        "broken_at",
        "report",
        "side_refused_at",
        "silent_since",
        "target",
    )

    def __init__(self, uid: str, target: Target, *, schedule: ProbeSchedule, changed: Callable[[], None]) -> None:
        """Prepare; ``changed`` is called when ``report`` or ``broken_at`` did, and when a silence has lasted or ends."""
        self.target = target
        self.report: Report | None = None
        self.broken_at: datetime | None = None
        self.silent_since: datetime | None = None
        self.side_refused_at: datetime | None = None
        """Since when fresh connections are refused while the open one still answers: it is about to go, or no longer takes work."""
        self._schedule = schedule
        self._changed = changed
        self._phase = phase_of(uid)
        self._rounds = 1 + int(phase_of(uid[::-1]) * schedule.pace.fresh_every)
        self._question: h11.Request | None = None
        self._last_body: bytes | None = None
        self._wire: Wire | None = None
        self._side_connections: list[Wire] = []
        """Fresh connections that were not answered yet, oldest first."""
        self._attempt: asyncio.Task[None] | None = None
        self._dialled_at: datetime | None = None
        self._dialled = -math.inf
        self._asked_at: datetime | None = None
        """When the first of the unanswered probes was sent."""
        self._responded_at: datetime | None = None
        """When the last answer came."""
        self._due: asyncio.TimerHandle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        # A fresh tether has seen no connection drop: it takes two refusals then, where a dropped one takes one.
        self._refusals_needed = 2
        self._refusals = 0
        self._is_expected = False
        """The connection ended as its last answer had announced."""

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect and begin to ask."""
        self._schedule.away.add(self)
        self._dial()

    def aim(self, target: Target) -> None:
        """Go by another pace, path or node from now on; the connection stays as it is. The address must be the same."""
        before, self.target = self.target, target
        if before.probe != target.probe:
            self._question = None
        if self._wire is not None and self._attempt is None and (before.probe, before.holds) != (target.probe, target.holds):
            self._plan_round()
        if self.silent_since is not None and before.unhealthy_after != target.unhealthy_after:
            self._watch_silence()

    def stop(self) -> asyncio.Task[None] | None:
        """Let go of everything; return the task that still has to end, if any."""
        schedule = self._schedule
        for tethers in (schedule.known, schedule.silent, schedule.away):
            tethers.discard(self)
        self._changed = _nobody
        _cancel(self._due)
        _cancel(self._alarm)
        self._close_side_connections()
        self._close(self._wire)
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        return attempt

    def take(self, report: Report | None, broken_at: datetime | None = None) -> None:
        """Note what is known now and say so if it differs."""
        if broken_at != self.broken_at or report != self.report:
            self.report, self.broken_at = report, broken_at
            self._changed()

    # --- rounds: one probe each ---------------------------------------------------------------------------------------

    def _period(self) -> float:
        """Return the seconds between two probes."""
        period, pace = self.target.probe.period.total_seconds(), self._schedule.pace
        period = period if self.target.holds or self._schedule.is_fast else max(period, pace.standby_period)
        if self.silent_since is None:
            return period
        return min(period, pace.deadline if self._has_lasted() else pace.insist)

    def _plan_round(self) -> None:
        """Set the next probe to the next moment that has this pod's phase."""
        if self.silent_since is not None:
            return self._call_round(self._period())
        if self.report is not None and self.report.shards is None:
            # It has just started and is about to learn how many shards there are; until then it serves nobody.
            return self._call_round(self._schedule.pace.retry)
        period, now = self._period(), asyncio.get_running_loop().time()
        # A timer may ring a moment early: then this moment is over all the same.
        passed = math.floor(now / period - self._phase + 1e-6) + 1
        return self._call_round((passed + self._phase) * period - now)

    @property
    def asked_at(self) -> datetime | None:
        """When the first of the unanswered probes was sent."""
        return self._asked_at

    @property
    def responded_at(self) -> datetime | None:
        """When the last answer came."""
        return self._responded_at

    def speed_up(self) -> None:
        """Ask sooner than a standby is asked by itself."""
        if not self.target.holds and self._wire is not None and self._attempt is None:
            self._plan_round()

    def _call_round(self, delay: float) -> None:
        _cancel(self._due)
        self._due = asyncio.get_running_loop().call_later(delay, self._round)

    def _round(self) -> None:
        """Ask, over the open connection or a fresh one."""
        if self._wire is None:
            return self._dial()
        is_late = self._due is not None and asyncio.get_running_loop().time() - self._due.when() > TOLERANCE
        self._plan_round()
        if is_late:
            # We stood still, as all others' rounds did: they are not made up for all at once, which would make us late again.
            return None
        if self._attempt is not None or (self._asked_at is not None and self.silent_since is None):
            # The last probe still has time.
            return None
        self._rounds -= 1
        if self._rounds <= 0 or self._wire.is_asked or self._wire.announced_end or self.target.probe.kind == "TCP":
            return self._dial()
        return self._ask(self._wire)

    def _since_dialled(self) -> float:
        """Return the seconds since the last connection was begun."""
        return self._schedule.clock.monotonic() - self._dialled

    def _ask(self, wire: Wire) -> None:
        self._begin(self._schedule.clock.now())
        self._put_question(wire)

    def _put_question(self, wire: Wire) -> None:
        if self._question is None:
            self._question = question(self.target.ip, self.target.probe.path)
        wire.ask(self._question)

    def _begin(self, asked_at: datetime) -> None:
        """A probe that was sent at that time is unanswered; if an older one is too, that one counts."""
        if self._asked_at is None:
            self._asked_at = asked_at
            passed = (self._schedule.clock.now() - asked_at).total_seconds()
            self._set_alarm(min(self._schedule.pace.deadline - passed, self._schedule.pace.deadline), self._overdue)

    # --- connections --------------------------------------------------------------------------------------------------

    def _dial(self) -> None:
        """Make a connection, beside the open one if there is one."""
        if self._wire is None:
            _cancel(self._due)
        if self._attempt is not None:
            return
        if len(self._side_connections) >= self._schedule.pace.most_side_connections:
            self._close(self._side_connections.pop(0))
        self._dialled_at, self._dialled = self._schedule.clock.now(), self._schedule.clock.monotonic()
        self._begin(self._dialled_at)
        self._attempt = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        wire: Wire | None = None
        refused = own_fault = False
        try:
            async with asyncio.timeout(self._schedule.pace.connect_timeout):
                _, wire = await asyncio.get_running_loop().create_connection(lambda: Wire(self), self.target.ip, self._schedule.port)
        except ConnectionRefusedError:
            refused = True
        except (OSError, TimeoutError) as error:
            own_fault = isinstance(error, OSError) and error.errno in OWN_FAULTS
            if own_fault:
                self._complain(error)
        self._attempt = None
        if wire is not None:
            self._connected(wire)
        elif refused:
            self._refused()
        else:
            self._unreachable(own_fault=own_fault)
        self._is_expected = False

    def _connected(self, wire: Wire) -> None:
        self._refusals, self.side_refused_at = 0, None
        if wire.is_lost:
            # Made and ended in one breath.
            self._wire = self._wire or wire
            self.lost(wire)
        elif self.target.probe.kind == "TCP":
            self._adopt(wire)
            self._hear(self.report)
            # An answer is welcome, for it says who serves what; that there is none proves nothing.
            self._put_question(wire)
        elif self._wire is None:
            self._adopt(wire)
            if self._is_expected and self.silent_since is None:
                # Nothing happened that would have to be asked about before its time.
                self._end_silence()
            else:
                self._ask(wire)
        else:
            self._side_connections.append(wire)
            self._ask(wire)

    def _adopt(self, wire: Wire) -> None:
        """Make this connection the tether; the one before is closed here, which is no drop."""
        before, self._wire, self._rounds = self._wire, wire, self._schedule.pace.fresh_every
        self._side_connections = [other for other in self._side_connections if other is not wire]
        self._close_side_connections()
        self._schedule.away.discard(self)
        self._close(before)
        if before is None:
            self._plan_round()

    def _refused(self) -> None:
        wire = self._wire
        if wire is not None and not wire.is_asked:
            if self.side_refused_at is None:
                self.side_refused_at = self._schedule.clock.now()
                log.warning("%s: refuses fresh connections, while the open one is still there", self.target.ip)
            return self._ask(wire)
        if wire is not None:
            # What leaves a question unanswered and refuses connections is no process that hangs: nobody is there any more.
            self._let_go()
        # That is an answer of its kernel: evidence of an end, and the end of a silence.
        self._end_silence()
        self._refusals += 1
        if self._refusals >= self._refusals_needed:
            self.take(None, self.broken_at or self._schedule.clock.now())
        return self._call_round(self._retry())

    def _unreachable(self, *, own_fault: bool) -> None:
        """No answer is no evidence of an end: a lost packet, a slow process."""
        if own_fault and self.silent_since is None:
            # It was not asked.
            self._end_silence()
        if self._wire is None:
            self.take(None, self.broken_at)
        elif own_fault and not self._wire.is_asked:
            self._rounds = 1
            return self._ask(self._wire)
        else:
            # Only a fresh connection can answer what a fresh connection asked.
            self._rounds = 0
        return self._call_round(self._retry())

    def _complain(self, error: Exception) -> None:
        now = self._schedule.clock.monotonic()
        if now - self._schedule.complained_at > COMPLAIN_EVERY:
            self._schedule.complained_at = now
            log.error("Coreapps are not probed, for want of what this process needs for a connection (%s). Raise its limits.", error)

    def _retry(self) -> float:
        pace = self._schedule.pace
        return max(pace.retry, min(pace.standby_period, len(self._schedule.away) * pace.retry_cost))

    def _let_go(self) -> None:
        """The open connection is no more."""
        self._close(self._wire)
        self._close_side_connections()
        self._wire = None
        self._schedule.away.add(self)
        self._refusals_needed = 1
        self.take(None)

    def _close_side_connections(self) -> None:
        side_connections, self._side_connections = self._side_connections, []
        for wire in side_connections:
            wire.close()

    def _close(self, wire: Wire | None) -> None:
        if wire is not None:
            wire.close()

    # --- what is heard ------------------------------------------------------------------------------------------------

    def lost(self, wire: Wire) -> None:
        """Hear that a connection ended. The open one: try again at once, for that answer is the evidence."""
        if wire in self._side_connections:
            self._side_connections.remove(wire)
        if wire is not self._wire:
            return
        self._is_expected = wire.announced_end
        if self._is_expected:
            # A server that ends each connection after its answer did so as announced: what it said still holds.
            self._wire, self._refusals_needed = None, 1
            self._schedule.away.add(self)
        else:
            self._let_go()
        if (since := self._since_dialled()) < self._schedule.pace.retry:
            # It lasted no longer than a pause between two attempts: not in circles without one.
            self._call_round(self._schedule.pace.retry - since)
        else:
            self._dial()

    def answered(self, wire: Wire, body: bytes) -> None:
        """Hear an answer; that of a fresh connection makes it the tether."""
        if wire in self._side_connections:
            self._adopt(wire)
        elif wire is self._wire:
            self._close_side_connections()
        else:
            return None
        if body == self._last_body and self.report is not None and self.broken_at is None:
            return self._hear(self.report)
        self._last_body = body
        return self._hear(read_report(body) or self.report)

    def _hear(self, report: Report | None) -> None:
        """Note an answer, with what it says if it says anything."""
        self._schedule.known.add(self)
        self._responded_at = self._schedule.clock.now()
        self._end_silence()
        starts = report is not None and report.shards is None
        self.take(report)
        if self._attempt is not None and self._dialled_at is not None:
            # The fresh connection that is under way has not answered yet.
            self._begin(self._dialled_at)
        elif starts:
            self._plan_round()

    def _end_silence(self) -> None:
        """Nothing is unanswered any more."""
        self._asked_at = None
        _cancel(self._alarm)
        self._alarm = None
        if self.silent_since is not None:
            self.silent_since = None
            self._schedule.silent.discard(self)
            if self._wire is not None:
                self._plan_round()
            self._changed()

    # --- silence --------------------------------------------------------------------------------------------------------

    def _set_alarm(self, delay: float, ring: Callable[[], None]) -> None:
        _cancel(self._alarm)
        self._alarm = asyncio.get_running_loop().call_later(max(0.0, delay), ring)

    def _overdue(self) -> None:
        """The deadline of a probe is over."""
        if self._schedule.lag.was_late() or self._asked_at is None:
            # While we did not run nobody could have been heard; the probe has its time once more by now.
            return
        self.silent_since = self._asked_at - self._half_of_a_round(self._asked_at)
        self._schedule.silent.add(self)
        self._schedule.speed_up()
        self._watch_silence()
        if self._wire is not None and self._attempt is None:
            # At once over another connection, which tells a lost packet or a dead path from a process that hangs.
            self._round()

    def _half_of_a_round(self, asked_at: datetime) -> timedelta:
        """Return by how much a silence probably began before the probe that showed it: somewhere between that and the answer before."""
        if self._responded_at is None:
            return timedelta(0)
        return min(max(asked_at - self._responded_at, timedelta(0)), self.target.probe.period) / 2

    def _left(self) -> float:
        """Return the seconds until a silence has lasted as long as the spec allows."""
        since = self.silent_since or self._schedule.clock.now()
        return self.target.unhealthy_after - (self._schedule.clock.now() - since).total_seconds()

    def _has_lasted(self) -> bool:
        return self._left() <= 0

    def _watch_silence(self) -> None:
        if self.silent_since is None:
            return
        left = self._left()
        if left > 0:
            self._set_alarm(min(left, self.target.unhealthy_after), self._lasting)
        else:
            # What it said last has been true for too long.
            self._last_body = None
            self.take(None, self.broken_at)
            self._changed()

    def _lasting(self) -> None:
        if not self._schedule.lag.was_late():
            self._watch_silence()

    def make_up_for(self, late: float) -> None:
        """Our own process did not run for so many seconds: they do not count, and an unanswered probe has all its time again.

        What was refused before so long a pause may be back since: it counts once it is refused again.
        """
        if late >= LONG_AGO and self.broken_at is not None:
            self._refusals, self._refusals_needed = 0, 1
            self.take(None)
        if self.silent_since is not None:
            self.silent_since += timedelta(seconds=late)
            self._asked_at = self.silent_since
            self._watch_silence()
        elif self._asked_at is not None:
            self._asked_at = self._responded_at = None
            self._begin(self._schedule.clock.now())


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _nobody() -> None:
    """Stand in for one who no longer wants to hear."""
