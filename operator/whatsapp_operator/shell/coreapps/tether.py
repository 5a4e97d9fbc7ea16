"""Watches one Coreapp: an open connection whose end is noticed at once, and a probe each period that shows whether the process answers.

"Broken": the connection got FIN or RST and one reconnect was refused. "Unresponsive": a probe was not answered within its deadline; the
time counts from when the first of the unanswered probes was sent. Both are evidence and no more. A tether has timers and no task of its
own, because one process has up to five thousand tethers.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
from collections.abc import Callable
from datetime import datetime

import h11

from whatsapp_operator.core.snapshot import Report

from .loop_lag import TOLERANCE
from .schedule import ProbeSchedule, Target, phase_of
from .silence import Silence
from .wire import Wire, question, read_report

log = logging.getLogger(__name__)

OWN_FAULTS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})
"""Errors of a connect that are caused by this process or its machine: no evidence about the other side."""

LONG_AGO = 1.0
"""Seconds of a pause of this process after which an earlier refused connection proves nothing any more: a restart may be over."""

LOG_EVERY = 10.0
"""Seconds between two log lines about errors of this process."""


class Tether:
    """Watches one pod from ``start`` to ``stop``."""

    __slots__ = (
        "__weakref__",
        "_attempt",
        "_changed",
        "_connect_started",
        "_connect_started_at",
        "_due",
        "_is_expected",
        "_is_mistaken",
        "_last_body",
        "_passed_on",
        "_phase",
        "_question",
        "_refusals",
        "_refusals_needed",
        "_rounds",
        "_schedule",
        "_side_connections",
        "_silence",
        "_uid",
        "_wire",
        "broken_at",
        "ended_at",
        "report",
        "side_refused_at",
        "target",
    )

    def __init__(self, uid: str, target: Target, *, schedule: ProbeSchedule, changed: Callable[[], None]) -> None:
        """Prepare. ``changed`` is called when ``report`` or ``broken_at`` changed, and when a silence counts or ends."""
        self._uid = uid
        self.target = target
        self.report: Report | None = None
        self.broken_at: datetime | None = None
        self.ended_at: datetime | None = None
        """When it last ended, after it had answered, or may have ended while this process stood still."""
        self.side_refused_at: datetime | None = None
        """Since when fresh connections are refused while the open one still answers: the process is about to end, or accepts no work."""
        self._schedule = schedule
        self._silence = Silence(self, schedule)
        self._changed = changed
        self._passed_on: tuple[Report | None, datetime | None] | None = None, None
        """The report and the end that ``changed`` was called for last; None: they were forgotten since then."""
        self._phase = phase_of(uid)
        self._rounds = 1 + int(phase_of(uid[::-1]) * schedule.pace.fresh_every)
        self._question: h11.Request | None = None
        self._last_body: bytes | None = None
        self._wire: Wire | None = None
        self._side_connections: list[Wire] = []
        """Fresh connections without an answer yet, oldest first."""
        self._attempt: asyncio.Task[None] | None = None
        self._connect_started_at: datetime | None = None
        self._connect_started = -math.inf
        self._due: asyncio.TimerHandle | None = None
        # A dropped connection and one refusal are evidence. A new tether has seen no drop, so it needs two refusals.
        self._refusals_needed = 2
        self._refusals = 0
        self._is_expected = False
        """The connection ended as its last answer had announced."""
        self._is_mistaken = False
        """Another pod gave the last answer: this pod's address has passed to it."""

    # --- start and stop ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect and begin to probe."""
        self._schedule.away.add(self)
        self._start_connect()

    def retarget(self, target: Target) -> None:
        """Use another period, path or node from now on; the connection stays. The address must be the same."""
        before, self.target = self.target, target
        if before.probe != target.probe:
            self._question = None
        if self._wire is not None and self._attempt is None and (before.probe, before.holds) != (target.probe, target.holds):
            self._plan_round()
        if before.unhealthy_after != target.unhealthy_after:
            self._silence.watch()

    def stop(self) -> asyncio.Task[None] | None:
        """Close all connections; return the task that still has to end, if any."""
        schedule = self._schedule
        for tethers in (schedule.known, schedule.unresponsive, schedule.away):
            tethers.discard(self)
        self._changed = _ignore
        _cancel(self._due)
        self._silence.stop()
        self._close_side_connections()
        self._close(self._wire)
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        return attempt

    def take(self, report: Report | None, broken_at: datetime | None = None) -> None:
        """Store what is known now; call ``changed`` if it differs from what it was called for last."""
        self.report, self.broken_at = report, broken_at
        if self._passed_on != (now := (report, broken_at)):
            self._passed_on = now
            self._changed()

    # --- rounds: one probe each ---------------------------------------------------------------------------------------

    def _period(self) -> float:
        """Return the seconds between two probes."""
        period, pace = self.target.probe.period.total_seconds(), self._schedule.pace
        period = period if self.target.holds or self._schedule.is_fast else max(period, pace.standby_period)
        if self.unresponsive_since is None:
            return period
        return min(period, pace.deadline if self._silence.has_lasted else pace.insist)

    def _plan_round(self) -> None:
        """Set the next probe to the next moment that has this pod's phase."""
        if self.unresponsive_since is not None:
            return self._call_round(self._period())
        if self.report is not None and self.report.shards is None:
            # It has just started and does not know the number of shards yet; until then it serves nothing.
            return self._call_round(self._schedule.pace.retry)
        period, now = self._period(), asyncio.get_running_loop().time()
        # A timer may fire a little early: this moment counts as passed nevertheless.
        passed = math.floor(now / period - self._phase + 1e-6) + 1
        return self._call_round((passed + self._phase) * period - now)

    def speed_up(self) -> None:
        """Probe a standby earlier than its own period."""
        if not self.target.holds and self._wire is not None and self._attempt is None:
            self._plan_round()

    def _call_round(self, delay: float) -> None:
        _cancel(self._due)
        self._due = asyncio.get_running_loop().call_later(delay, self._round)

    def _round(self) -> None:
        """Send a probe over the open connection or a fresh one."""
        if self._wire is None:
            return self._start_connect()
        is_late = self._due is not None and asyncio.get_running_loop().time() - self._due.when() > TOLERANCE
        self._plan_round()
        if is_late:
            # This process stood still, so all rounds are late. Catching up on all of them at once would make it late again.
            return None
        if self._attempt is not None or self._silence.is_within_deadline:
            # The last probe is still within its deadline.
            return None
        self._rounds -= 1
        if self._rounds <= 0 or self._wire.is_asked or self._wire.announced_end or self.target.probe.kind == "TCP":
            return self._start_connect()
        return self._ask(self._wire)

    def _since_connect_started(self) -> float:
        """Return the seconds since the last connection attempt began."""
        return self._schedule.clock.monotonic() - self._connect_started

    def _ask(self, wire: Wire) -> None:
        self._silence.begin(self._schedule.clock.now())
        self._put_question(wire)

    def _put_question(self, wire: Wire) -> None:
        if self._question is None:
            self._question = question(self.target.ip, self.target.probe.path)
        wire.ask(self._question)

    # --- connections --------------------------------------------------------------------------------------------------

    def _start_connect(self) -> None:
        """Make a connection, in addition to the open one if there is one."""
        if self._wire is None:
            _cancel(self._due)
        if self._attempt is not None:
            return
        if len(self._side_connections) >= self._schedule.pace.most_side_connections:
            self._close(self._side_connections.pop(0))
        self._connect_started_at, self._connect_started = self._schedule.clock.now(), self._schedule.clock.monotonic()
        self._silence.begin(self._connect_started_at)
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
                self._log_own_fault(error)
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
            # It ended as soon as it was made.
            self._wire = self._wire or wire
            self.lost(wire)
        elif self.target.probe.kind == "TCP":
            self._adopt(wire)
            self._on_answer(self.report)
            # An answer tells what the Coreapp serves. A missing answer proves nothing.
            self._put_question(wire)
        elif self._wire is None:
            self._adopt(wire)
            if self._is_expected and self.unresponsive_since is None:
                # The end was announced, so nothing needs to be probed before its time.
                self._silence.end()
            else:
                self._ask(wire)
        else:
            self._side_connections.append(wire)
            self._ask(wire)

    def _adopt(self, wire: Wire) -> None:
        """Make this connection the tether. The one before is closed here, which does not count as a drop."""
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
                log.warning("%s refuses fresh connections, while the open one still exists", self.target.ip)
            return self._ask(wire)
        if wire is not None:
            # A process that hangs accepts connections. One that leaves a probe unanswered and refuses connections is gone.
            self._drop_wire()
        # A refused connection is an answer of its kernel: evidence that the process ended, and the end of a silence.
        self._silence.end()
        self._refusals += 1
        if self._refusals >= self._refusals_needed:
            broken_at = self.broken_at or self._schedule.clock.now()
            if self in self._schedule.known:
                self.ended_at = broken_at
            self.take(None, broken_at)
        return self._call_round(self._retry())

    def _unreachable(self, *, own_fault: bool) -> None:
        """Handle a connect without an answer. It is no evidence of an end: a packet may be lost, or the process slow."""
        if own_fault and self.unresponsive_since is None:
            # No probe was sent.
            self._silence.end()
        if self._wire is None:
            self.take(None, self.broken_at)
        elif own_fault and not self._wire.is_asked:
            self._rounds = 1
            return self._ask(self._wire)
        else:
            # Only a fresh connection can answer the probe of a fresh connection.
            self._rounds = 0
        return self._call_round(self._retry())

    def _log_own_fault(self, error: Exception) -> None:
        now = self._schedule.clock.monotonic()
        if now - self._schedule.logged_at > LOG_EVERY:
            self._schedule.logged_at = now
            log.error("Coreapps are not probed: this process lacks resources for a connection (%s). Raise its limits.", error)

    def _retry(self) -> float:
        pace = self._schedule.pace
        return max(pace.retry, min(pace.standby_period, len(self._schedule.away) * pace.retry_cost))

    def _drop_wire(self) -> None:
        """Handle the loss of the open connection."""
        self._close(self._wire)
        self._close_side_connections()
        self._wire = None
        self._schedule.away.add(self)
        self._refusals_needed = 1
        # The answer to the next connection shows what it means, usually within a millisecond. An observation must not begin before.
        self.report = self.broken_at = self._passed_on = None

    def _close_side_connections(self) -> None:
        side_connections, self._side_connections = self._side_connections, []
        for wire in side_connections:
            wire.close()

    def _close(self, wire: Wire | None) -> None:
        if wire is not None:
            wire.close()

    # --- answers ------------------------------------------------------------------------------------------------

    def lost(self, wire: Wire) -> None:
        """Handle the end of a connection. After the open one, reconnect at once: the answer to that is the evidence."""
        if wire in self._side_connections:
            self._side_connections.remove(wire)
        if wire is not self._wire:
            return
        self._is_expected = wire.announced_end
        if self._is_expected:
            # The server announced that it ends each connection after its answer: the last report still holds.
            self._wire, self._refusals_needed = None, 1
            self._schedule.away.add(self)
        else:
            self._drop_wire()
        if (since := self._since_connect_started()) < self._schedule.pace.retry:
            # It lasted no longer than a pause between two attempts. Without a pause this would be a busy loop.
            self._call_round(self._schedule.pace.retry - since)
        else:
            self._start_connect()

    def answered(self, wire: Wire, body: bytes) -> None:
        """Handle an answer. A fresh connection with an answer becomes the tether."""
        # An error does not contradict a kubelet: the Coreapp is broken, or it has ended and a proxy in its pod answers.
        is_error = wire.is_error and self.target.probe.kind == "HTTP"
        report = None if is_error else (self.report if body == self._last_body else None) or read_report(body)
        if report is not None and not report.is_of(self._uid):
            return self._answered_by_another(report)
        self._is_mistaken = False
        if wire in self._side_connections:
            self._adopt(wire)
        elif wire is self._wire:
            self._close_side_connections()
        else:
            return None
        self._last_body = body
        return self._on_answer(report if is_error else report or self.report)

    def _answered_by_another(self, report: Report) -> None:
        """Leave the probe unanswered: the address of a pod that is gone, or on a lost node, may be given to another pod, of any cluster."""
        if not self._is_mistaken:
            self._is_mistaken = True
            log.warning("Pod %s answers at the address %s of pod %s, which counts as silent", report.uid, self.target.ip, self._uid)

    def _on_answer(self, report: Report | None) -> None:
        """Note an answer, with the report in it if there is one."""
        self._schedule.known.add(self)
        self._silence.responded_at = self._schedule.clock.now()
        self._silence.end()
        starts = report is not None and report.shards is None
        self.take(report)
        if self._attempt is not None and self._connect_started_at is not None:
            # The fresh connection in progress has not answered yet.
            self._silence.begin(self._connect_started_at)
        elif starts:
            self._plan_round()

    # --- silence --------------------------------------------------------------------------------------------------------

    @property
    def asked_at(self) -> datetime | None:
        """When the first of the unanswered probes was sent."""
        return self._silence.asked_at

    @property
    def responded_at(self) -> datetime | None:
        """When the last answer came."""
        return self._silence.responded_at

    @property
    def unresponsive_since(self) -> datetime | None:
        """Since when probes are unanswered; None: the last one was answered, or is within its deadline."""
        return self._silence.since

    def on_silence(self) -> None:
        """Probe at once over another connection: that tells a lost packet or a dead path from a process that hangs."""
        if self._wire is not None and self._attempt is None:
            self._round()

    def on_lasting_silence(self) -> None:
        """Forget the last report and the last refused connection, which are too old to be trusted: the silence is the evidence.

        A process that refused connections may be back, and this process cut off. It is broken when it refuses again.
        """
        self._last_body = None
        self.take(None)
        self._changed()

    def on_silence_end(self) -> None:
        """Go back to the usual period."""
        if self._wire is not None:
            self._plan_round()
        self._changed()

    def compensate(self, late: float) -> None:
        """Correct for ``late`` seconds in which this process did not run: they do not count, and an open probe gets its full time again.

        A Coreapp that refused connections before a long pause may be back: it counts only when it refuses again. Any other may have
        ended and come back during that pause.
        """
        if late >= LONG_AGO:
            self.ended_at = self._schedule.clock.now()
        if late >= LONG_AGO and self.broken_at is not None:
            self._refusals, self._refusals_needed = 0, 1
            self.take(None)
        self._silence.compensate(late)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _ignore() -> None:
    """Do nothing; the callback of a stopped tether."""
