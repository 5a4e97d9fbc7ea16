"""The door to the Coreapps: a tether to each one, what it reports over it, and what it is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol

import aiohttp

from whatsapp_operator.core.actions import AssignRole
from whatsapp_operator.core.manifests import CONTROL_PORT, HEALTHCHECK_PORT
from whatsapp_operator.core.names import Key
from whatsapp_operator.core.snapshot import Report, Silence
from whatsapp_operator.shell.addresses import host_port
from whatsapp_operator.shell.clock import Clock

from .loop_lag import LoopLag
from .tether import Pace, ProbeSchedule, Target, Tether
from .wire import read_report

log = logging.getLogger(__name__)

FAREWELLS = 100
"""Connections at a time to Coreapps that are to serve no more."""


class Coreapps(Protocol):
    """What the loop needs of the Coreapps."""

    def hold(self, key: Key, targets: Mapping[str, Target]) -> None:
        """Keep a tether to just these pods of a cluster, by uid; a pod that only changed its role keeps its connection."""
        ...

    def report_of(self, uid: str) -> Report | None:
        """Return what a pod said last, or None if it has not spoken since it was last away."""
        ...

    def broken_at(self, uid: str) -> datetime | None:
        """Return since when a pod refuses connections, or None."""
        ...

    def silent_since(self, uid: str) -> datetime | None:
        """Return when the first probe was sent that a pod has left unanswered beyond its deadline, or None."""
        ...

    def never_responded(self, uid: str) -> bool:
        """Return whether a pod has not answered this process since it is watched."""
        ...

    def silence(self) -> Silence:
        """Return how much of all that this process watches is silent now, and how late this process itself is."""
        ...

    async def tell(self, message: AssignRole) -> bool:
        """Tell a Coreapp its role; return whether it took it. Bounded in time, never raises for the network."""
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
        """Prepare; ``wake`` is called with a cluster whenever something about one of its Coreapps changed."""
        self._wake = wake
        self._control_port = control_port
        self._pace = pace or Pace()
        self._lag = LoopLag(clock=clock, late=self._make_up_for)
        self._schedule = ProbeSchedule(clock=clock, pace=self._pace, lag=self._lag, port=port)
        self._held: dict[Key, dict[str, Tether]] = {}
        self._tethers: dict[str, Tether] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        """By whether it is for Coreapps that are to serve."""

    def hold(self, key: Key, targets: Mapping[str, Target]) -> None:
        """Keep a tether to just these pods of a cluster, by uid; a pod that only changed its role keeps its connection."""
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
                held[uid].aim(target)
        if not held:
            del self._held[key]

    def _drop(self, held: dict[str, Tether], uid: str) -> None:
        self._tethers.pop(uid, None)
        task = held.pop(uid).stop()
        if task is not None:
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def _make_up_for(self, late: float) -> None:
        log.warning("The event loop was %.1f s late; no deadline that passed meanwhile counts.", late)
        for tether in tuple(self._tethers.values()):
            tether.make_up_for(late)

    def report_of(self, uid: str) -> Report | None:
        """Return what a pod said last, or None if it has not spoken since it was last away."""
        return self._tethers[uid].report if uid in self._tethers else None

    def broken_at(self, uid: str) -> datetime | None:
        """Return since when a pod refuses connections, or None."""
        return self._tethers[uid].broken_at if uid in self._tethers else None

    def silent_since(self, uid: str) -> datetime | None:
        """Return when the first probe was sent that a pod has left unanswered beyond its deadline, or None."""
        return self._tethers[uid].silent_since if uid in self._tethers else None

    def never_responded(self, uid: str) -> bool:
        """Return whether a pod has not answered this process since it is watched."""
        return uid not in self._tethers or self._tethers[uid] not in self._schedule.known

    def silence(self) -> Silence:
        """Return how much of all that this process watches is silent now, and how late this process itself is."""
        # What expired while we did not run is put right before anything is said of it.
        self._lag.was_late()
        silent = self._schedule.silent
        return Silence(
            # One that was begun with just now says nothing yet: it must not outvote the silent ones.
            targets=len(silent | self._schedule.known),
            silent=len(silent),
            unasked=self._schedule.unasked(),
            unheard=sum(tether.target.ready for tether in silent - self._schedule.known),
            nodes=frozenset(tether.target.node for tether in silent if tether.target.node is not None),
            ready_nodes=frozenset(tether.target.node for tether in silent if tether.target.node is not None and tether.target.ready),
            lag=timedelta(seconds=self._lag.lag()),
        )

    def responses(self, uid: str, body: bytes) -> None:
        """Note what a Coreapp said elsewhere than over its tether."""
        report = read_report(body)
        if report is not None and uid in self._tethers:
            self._tethers[uid].take(report)

    async def tell(self, message: AssignRole) -> bool:
        """Tell a Coreapp its role; return whether it took it. Bounded in time, never raises for the network."""
        pod, holder = message.coreapp, message.holder
        body: dict[str, Any] = {"uid": pod.uid, "shard": message.shard, "epoch": message.epoch, "shards": message.shards}
        if holder is not None:
            body["holder"] = {"pod": holder.name, "ip": holder.ip}
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            timeout = aiohttp.ClientTimeout(total=self._pace.tell_timeout)
            async with self._session(serves=message.shard is not None and holder is None).post(
                f"http://{host_port(str(pod.ip), self._control_port)}/role", json=body, timeout=timeout
            ) as answer:
                said = await answer.read()
                if answer.status == 200:
                    self.responses(pod.uid, said)
                    return True
                log.info("%s did not take shard %s under epoch %s: HTTP %s", pod.name, message.shard, message.epoch, answer.status)
        return False

    def _session(self, *, serves: bool) -> aiohttp.ClientSession:
        """Return the client for Coreapps that are to serve, or for the others.

        Those that are to stop may well be dead, and then each keeps a connection until its time is over. So they have connections of their
        own, and those that are to serve have as many as they need: a lost zone must not wait for its dead holders.
        """
        if serves not in self._sessions:
            connector = aiohttp.TCPConnector(limit=0 if serves else FAREWELLS)
            self._sessions[serves] = aiohttp.ClientSession(connector=connector, trust_env=False)
        return self._sessions[serves]

    async def close(self) -> None:
        """Let go of everything; afterwards ``hold`` may begin anew."""
        for key in tuple(self._held):
            self.hold(key, {})
        self._lag.stop()
        await asyncio.gather(*self._ending, return_exceptions=True)
        sessions, self._sessions = self._sessions, {}
        await asyncio.gather(*(session.close() for session in sessions.values()))
