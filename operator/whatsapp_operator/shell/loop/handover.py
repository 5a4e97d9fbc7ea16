"""The handover of shards: prepare, commit, assign (docs/architecture.md); the next observation tidies up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

from whatsapp_operator.core import manifests, report
from whatsapp_operator.core.actions import AssignRole, Handover
from whatsapp_operator.core.snapshot import HandoverTimes
from whatsapp_operator.shell import logs
from whatsapp_operator.shell.clock import Clock
from whatsapp_operator.shell.coreapps.probe import Coreapps
from whatsapp_operator.shell.kube import kinds
from whatsapp_operator.shell.kube.client import Kube
from whatsapp_operator.shell.kube.errors import KubeError
from whatsapp_operator.shell.metrics import Metrics, Phase
from whatsapp_operator.shell.tracing import Timeline, Tracing

from .cluster import Memory
from .observe import Observation
from .outcome import OUTDATED, Outcome, all_of, remembering

log = logging.getLogger(__name__)


class Handovers:
    """Moves shards to other pods. A shard stops at its first failure; the others continue."""

    def __init__(self, kube: Kube, coreapps: Coreapps, *, clock: Clock, metrics: Metrics, tracing: Tracing | None) -> None:
        """Prepare; ``kube`` is fenced by the Lease."""
        self._kube = kube
        self._coreapps = coreapps
        self._clock = clock
        self._metrics = metrics
        self._tracing = tracing

    async def perform(self, observation: Observation, handovers: list[Handover], memory: Memory, outcome: Outcome) -> None:
        """Prepare all, commit those that were prepared, assign those that were committed. Nothing here waits for an old holder."""
        timelines = {one.epoch: self._timeline(observation, one) for one in handovers}
        try:
            prepared = await self._each(handovers, lambda one: self._prepare(observation, one, memory, timelines[one.epoch]), outcome)
            committed = await self._each(prepared, lambda one: self._commit(observation, one, memory, timelines[one.epoch]), outcome)
            outcome.wrote |= bool(prepared)
            await all_of(self._assign_both(one, memory, timelines[one.epoch]) for one in committed)
        finally:
            for timeline in timelines.values():
                timeline.finish()
        outcome.events += [report.handed_over(one, memory.handover_times.get(str(one.epoch))) for one in committed]

    def _timeline(self, observation: Observation, one: Handover) -> Timeline:
        return Timeline(observation.desired.key, one, self._metrics, self._clock, self._tracing)

    async def _each(self, handovers: list[Handover], step: Callable[[Handover], Awaitable[None]], outcome: Outcome) -> list[Handover]:
        results = await asyncio.gather(*(step(one) for one in handovers), return_exceptions=True)
        done: list[Handover] = []
        for one, result in zip(handovers, results, strict=True):
            if result is None:
                done.append(one)
            elif isinstance(result, OUTDATED):
                outcome.is_outdated = True
            elif isinstance(result, KubeError):
                outcome.fail(result)
            else:
                raise result
        return done

    async def _prepare(self, observation: Observation, one: Handover, memory: Memory, timeline: Timeline) -> None:
        logs.note(shard=one.route.shard)
        began = self._clock.now()
        if one.old is not None and (first := one.old.unresponsive_since or one.old.broken_at) is not None:
            timeline.observe(Phase.DETECT, first, one.detected_at)
        timeline.observe(Phase.DECIDE, observation.snapshot.now, began)
        patch = manifests.label_patch(one.to, one.route.shard, str(one.epoch))
        with remembering(one, memory, clock=self._clock, generation=observation.desired.generation):
            await self._kube.patch_json(kinds.POD, observation.desired.key.namespace, one.to.name, patch)
        timeline.observe(Phase.PREPARE, began)

    async def _commit(self, observation: Observation, one: Handover, memory: Memory, timeline: Timeline) -> None:
        logs.note(shard=one.route.shard)
        now, began = self._clock.wall(), self._clock.now()
        patch = manifests.commit_patch(observation.desired.key, one, now)
        service = await self._kube.patch_merge(kinds.SERVICE, observation.desired.key.namespace, one.route.name, patch)
        if (route := manifests.route_of(service, observation.desired.key.name, observation.desired.uid)) is not None:
            memory.committed[str(one.epoch)] = route
        timeline.observe(Phase.COMMIT, began)
        self._metrics.count_handover(one)
        log.info("%s: shard %d is handed over to %s (%s)", observation.desired.key, one.route.shard, one.to.name, one.evidence)
        milliseconds = round((self._clock.now() - one.detected_at) / timedelta(milliseconds=1))
        detect = round((one.detected_at - one.failed_at) / timedelta(milliseconds=1)) if one.failed_at is not None else None
        memory.handover_times[str(one.epoch)] = HandoverTimes(detect=detect, commit=milliseconds)

    async def _assign_both(self, one: Handover, memory: Memory, timeline: Timeline) -> None:
        logs.note(shard=one.route.shard)
        committed_at = self._clock.now()
        # A new leader observed before its tethers were connected: by now they may have a report that the observation lacks.
        report = self._coreapps.result_of(one.to.uid).report or one.to.report
        shards = report.shards if report is not None and report.shards is not None else one.shards
        if shards is None:
            return
        route, epoch = one.route, str(one.epoch)
        messages = [AssignRole(coreapp=one.to, shards=shards, shard=route.shard, epoch=epoch)]
        if one.old is not None and one.old.ip is not None:
            messages.append(AssignRole(coreapp=one.old, shards=shards, shard=route.shard, epoch=epoch, holder=one.to))
        # Only the new holder is awaited: the old one may be dead, and waiting for it would cost a full time-out.
        first, *others = [asyncio.create_task(self._coreapps.assign(message)) for message in messages]
        for task in others:
            task.add_done_callback(_retrieve_error)
        accepted = await first
        timeline.observe(Phase.ASSIGN, committed_at)
        if accepted:
            served_at = self._clock.now()  # read once: the trace and the status give the same time
            timeline.observe(Phase.SERVE, committed_at, served_at)
            milliseconds = round((served_at - committed_at) / timedelta(milliseconds=1))
            memory.handover_times[epoch] = replace(memory.handover_times[epoch], serve=milliseconds)


def _retrieve_error(task: asyncio.Task[bool]) -> None:
    if not task.cancelled():
        task.exception()
