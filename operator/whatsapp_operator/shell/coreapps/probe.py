"""Client of the Coreapps: a tether to each one, the reports that come over it, and role assignments."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

import aiohttp

from whatsapp_operator.core.actions import AssignRole
from whatsapp_operator.core.manifests import CONTROL_PORT, HEALTHCHECK_PORT
from whatsapp_operator.core.names import Key
from whatsapp_operator.core.snapshot import Coreapp, Silence
from whatsapp_operator.shell.addresses import host_port
from whatsapp_operator.shell.clock import Clock

from .loop_lag import LoopLag
from .schedule import Pace, ProbeResult, ProbeSchedule, Target
from .tether import Tether
from .wire import MOST_BYTES, read_report

log = logging.getLogger(__name__)

MAX_STOP_CONNECTIONS = 100
"""Connections at a time to Coreapps that are asked to stop serving."""


class Coreapps(Protocol):
    """What the loop needs from the Coreapps."""

    def hold(self, key: Key, targets: Mapping[str, Target]) -> None:
        """Keep a tether to exactly these pods of a cluster, by uid. A pod whose role changed keeps its connection."""
        ...

    def result_of(self, uid: str) -> ProbeResult:
        """Return what the probes of a pod have shown."""
        ...

    def silence(self) -> Silence:
        """Return how many targets of this process are unresponsive now, and the lag of this process."""
        ...

    async def assign(self, message: AssignRole) -> bool:
        """Assign a role to a Coreapp; return whether it accepted. Bounded in time; network errors return False."""
        ...


class Tethers:
    """Tethers to all Coreapps of all clusters that this process leads."""

    def __init__(
        self,
        *,
        clock: Clock,
        wake: Callable[[Key], None],
        pace: Pace | None = None,
        port: int = HEALTHCHECK_PORT,
        control_port: int = CONTROL_PORT,
    ) -> None:
        """Prepare. ``wake`` is called with a cluster when the state of one of its Coreapps changed."""
        self._wake = wake
        self._control_port = control_port
        self._pace = pace or Pace()
        self._lag = LoopLag(clock=clock, late=self._compensate)
        self._schedule = ProbeSchedule(clock=clock, pace=self._pace, lag=self._lag, port=port)
        self._held: dict[Key, dict[str, Tether]] = {}
        self._tethers: dict[str, Tether] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        """HTTP clients: True for Coreapps that must serve, False for the others."""
        self._not_accepted: dict[str, str] = {}
        """By uid: why a Coreapp did not accept its role, as it was logged last."""

    def hold(self, key: Key, targets: Mapping[str, Target]) -> None:
        """Keep a tether to exactly these pods of a cluster, by uid. A pod whose role changed keeps its connection."""
        held = self._held.setdefault(key, {})
        for uid, tether in tuple(held.items()):
            if uid not in targets or targets[uid].ip != tether.target.ip:
                self._drop(held, uid)
        for uid, target in targets.items():
            if uid not in held:
                self._lag.start()
                held[uid] = self._tethers[uid] = tether = Tether(uid, target, schedule=self._schedule, changed=partial(self._wake, key))
                tether.start()
            elif held[uid].target != target:
                held[uid].retarget(target)
        if not held:
            del self._held[key]

    def _drop(self, held: dict[str, Tether], uid: str) -> None:
        self._tethers.pop(uid, None)
        self._not_accepted.pop(uid, None)
        task = held.pop(uid).stop()
        if task is not None:
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def _compensate(self, late: float) -> None:
        log.warning("The event loop was %.1f s late. Deadlines that expired meanwhile are ignored.", late)
        for tether in tuple(self._tethers.values()):
            tether.compensate(late)

    def result_of(self, uid: str) -> ProbeResult:
        """Return what the probes of a pod have shown."""
        tether = self._tethers.get(uid)
        if tether is None:
            return ProbeResult(never_responded=True)
        return ProbeResult(
            report=tether.report,
            broken_at=tether.broken_at,
            ended_at=tether.ended_at,
            unresponsive_since=tether.unresponsive_since,
            never_responded=tether not in self._schedule.known,
        )

    def not_reached(self) -> int:
        """Return how many Coreapps have neither answered nor refused a connection, and have not left a probe unanswered either."""
        heard_or_silent = self._schedule.known | self._schedule.unresponsive
        return sum(tether not in heard_or_silent and tether.broken_at is None for tether in self._tethers.values())

    def silence(self) -> Silence:
        """Return how many targets of this process are unresponsive now, and the lag of this process."""
        # Deadlines that expired while this process did not run are corrected first.
        self._lag.was_late()
        unresponsive = self._schedule.unresponsive
        never = tuple(tether.target.node for tether in unresponsive - self._schedule.known if tether.target.ready)
        # Usually there are none, and the others need not be searched.
        others = self._schedule.known - unresponsive if never else ()
        return Silence(
            # A target that has neither answered nor missed a deadline yet must not outvote the unresponsive ones.
            targets=len(unresponsive | self._schedule.known),
            unresponsive=len(unresponsive),
            not_asked=self._schedule.not_asked(),
            never_responded=never,
            answering=frozenset(node for other in others if (node := other.target.node) is not None and node in never),
            nodes=frozenset(tether.target.node for tether in unresponsive if tether.target.node is not None),
            ready_nodes=frozenset(tether.target.node for tether in unresponsive if tether.target.node is not None and tether.target.ready),
            lag=timedelta(seconds=self._lag.lag()),
        )

    def take_report(self, uid: str, body: bytes) -> None:
        """Take a report that did not come over the tether."""
        report = read_report(body)
        if report is not None and report.is_of(uid) and uid in self._tethers:
            self._tethers[uid].take(report)

    async def assign(self, message: AssignRole) -> bool:
        """Assign a role to a Coreapp; return whether it accepted. Bounded in time; network errors return False."""
        pod, holder = message.coreapp, message.holder
        body: dict[str, Any] = {"uid": pod.uid, "shard": message.shard, "epoch": message.epoch, "shards": message.shards}
        if holder is not None:
            body["holder"] = {"pod": holder.name, "ip": holder.ip}
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            timeout = aiohttp.ClientTimeout(total=self._pace.assign_timeout)
            async with self._session(serves=message.shard is not None and holder is None).post(
                f"http://{host_port(str(pod.ip), self._control_port)}/role", json=body, timeout=timeout, allow_redirects=False
            ) as answer:
                if answer.status == 200:
                    self._not_accepted.pop(pod.uid, None)
                    self.take_report(pod.uid, await _beginning_of(answer))
                    return True
                self._log_once(pod, f"did not accept shard {message.shard} with epoch {message.epoch}: HTTP {answer.status}")
        return False

    def _log_once(self, pod: Coreapp, text: str) -> None:
        """Log why a Coreapp did not accept a role: it is assigned again and again."""
        if pod.uid in self._tethers and self._not_accepted.get(pod.uid) != text:
            self._not_accepted[pod.uid] = text
            log.info("%s %s", pod.name, text)

    def _session(self, *, serves: bool) -> aiohttp.ClientSession:
        """Return the HTTP client for Coreapps that must serve, or for the others.

        Coreapps that must stop may be dead, and then each occupies a connection until its time-out. So they have a pool of their own. The
        pool for Coreapps that must serve is unlimited: the failover of a lost zone must not wait for its dead holders.
        """
        if serves not in self._sessions:
            connector = aiohttp.TCPConnector(limit=0 if serves else MAX_STOP_CONNECTIONS)
            # A compressed answer may become a thousand times longer.
            self._sessions[serves] = aiohttp.ClientSession(
                connector=connector, trust_env=False, auto_decompress=False, skip_auto_headers=("Accept-Encoding",)
            )
        return self._sessions[serves]

    async def close(self) -> None:
        """Close all connections; ``hold`` may open new ones afterwards."""
        for key in tuple(self._held):
            self.hold(key, {})
        self._lag.stop()
        await asyncio.gather(*self._ending, return_exceptions=True)
        sessions, self._sessions = self._sessions, {}
        await asyncio.gather(*(session.close() for session in sessions.values()))


async def _beginning_of(answer: aiohttp.ClientResponse) -> bytes:
    """Return an answer's body, which is cut after ``MOST_BYTES``: one Coreapp must not take the memory of the operator."""
    body = bytearray()
    async for part in answer.content.iter_any():
        body += part
        if len(body) > MOST_BYTES:
            break
    return bytes(body[:MOST_BYTES])
