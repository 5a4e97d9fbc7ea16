"""Carries out the plans of one cluster: notes the intent of a call, acts, emits Events, reports."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from whatsapp_operator.core import record, report
from whatsapp_operator.core.actions import EmitEvent, Handover, Plan, SetShards
from whatsapp_operator.core.facts import Facts
from whatsapp_operator.shell.clock import Clock
from whatsapp_operator.shell.kube.errors import Rejected
from whatsapp_operator.shell.metrics import NOT_SENT, Metrics

from .cluster import Cluster, NotKept
from .execute import AwaitAll, Executor
from .observe import Observation
from .outcome import Outcome
from .status import StatusError, StatusWriter

log = logging.getLogger(__name__)


class Acting:
    """Carries out the plans of one cluster."""

    def __init__(self, cluster: Cluster, *, executor: Executor, status: StatusWriter, clock: Clock, metrics: Metrics) -> None:
        """Prepare; nothing is written yet."""
        self._cluster = cluster
        self._executor = executor
        self._status = status
        self._clock = clock
        self._metrics = metrics

    async def act(self, observation: Observation, plan: Plan, await_all: AwaitAll) -> Outcome:
        """Execute the plan; a call of Set Shards last, and only after its intent was noted. ``await_all``: see ``Executor.perform``."""
        self._remember(observation, plan)
        requested = tuple(action for action in plan.actions if isinstance(action, EmitEvent))
        self._emit(observation, self._cluster.events.newly_requested(requested))
        memory = self._cluster.memory
        lost = memory.lost
        outcome = await self._executor.perform(observation, plan.actions, memory, await_all=await_all)
        self._log_failed(outcome)
        # A holder was lost meanwhile, and perhaps replaced: the plan, and a call of Set Shards in it, did not know of that (laws#5).
        outcome.is_outdated |= not memory.lost <= lost
        call = next((action for action in plan.actions if isinstance(action, SetShards)), None)
        if call is not None and not (outcome.wrote or outcome.failed or outcome.is_outdated):
            noted_at, slow = self._clock.monotonic(), memory.slow
            if slow is None or slow.again:
                # The Secrets may have changed: the certificate that is checked and sent must be read by this observation (laws#8).
                memory.slow, memory.is_call_due, outcome.is_outdated = None, True, True
            elif await self._note(observation, plan, call):
                memory.anchored_for = None
                memory.unsent.remove(call.operation.id)
                memory.intent = call.operation.id, call.operation.started_at
                self._executor.set_shards(observation, call, noted_at)
                self._emit(observation, [report.set_shards_sent(call.operation)])
                outcome.wrote = True
            else:
                outcome.is_outdated = True
        self._emit_steps(observation, plan, outcome)
        return outcome

    async def hand_over(self, observation: Observation, plan: Plan, moves: tuple[Handover, ...]) -> None:
        """Execute these handovers of a plan, and nothing else of it."""
        outcome = await self._executor.perform(observation, moves, self._cluster.memory, is_part=True)
        self._emit_steps(observation, replace(plan, actions=moves), outcome)
        self._log_failed(outcome)

    async def report(self, observation: Observation, facts: Facts, plan: Plan) -> bool:
        """Write the status if it differs; return False if the cluster has changed since the observation."""
        cluster, after = self._cluster, report.report(facts, plan)
        self._metrics.clusters.observe_status(cluster.key, after)
        self._metrics.clusters.observe_probes(cluster.key, observation.snapshot.coreapps, facts.wall)
        body = report.patch(observation.snapshot.status, after)
        # If the same status was written and the stored one is unchanged, the installed CRD drops the missing fields.
        if body is not None and cluster.reported != (after, observation.snapshot.status):
            try:
                stored = await self._status.write(observation, body)
            except Rejected as answer:
                raise StatusError(str(answer)) from None
            if stored is None:
                return False
            kept = stored.get("status") or {}
            cluster.reported = (after, kept) if report.patch(kept, after) is not None else None
        if events := cluster.events.of_conditions(observation.snapshot.status, after, observation.snapshot.now):
            self._emit(observation, events)
        return True

    def _remember(self, observation: Observation, plan: Plan) -> None:
        cluster, memory, now = self._cluster, self._cluster.memory, observation.snapshot.now
        memory.since = {fact: memory.since.get(fact, now) for fact in plan.holds}
        reported = {entry.get("epoch") for entry in observation.snapshot.status.get("recentHandovers") or ()}
        unreported = [(epoch, route) for epoch, route in memory.committed.items() if epoch not in reported]
        memory.committed = dict(unreported[-report.MAX_HANDOVERS :])
        epochs = {route.epoch for route in observation.snapshot.routes} | memory.committed.keys()
        memory.handover_times = {epoch: times for epoch, times in memory.handover_times.items() if epoch in epochs}
        memory.settled_at = now if plan.is_settled else memory.settled_at
        call = observation.snapshot.client.call
        if call is not None and call.id != cluster.counted and (call.answer is not None or call.not_sent):
            cluster.counted = call.id
            self._metrics.count_call(NOT_SENT if call.not_sent else str(call.answer))

    async def _note(self, observation: Observation, plan: Plan, call: SetShards) -> bool:
        """Note the intent of a call and check that it is stored completely; return False if the call may not be made now."""
        memory, status = self._cluster.memory, observation.snapshot.status
        # If the answer is lost, the intent may be in status nevertheless.
        memory.unsent.append(call.operation.id)
        # With the rest of the record: the new intent replaces the former one, from which the rest follows.
        body = report.patch(status, record.put(status, replace(plan.record, operation=call.operation)))
        stored = await self._status.write(observation, body or {})
        if stored is None:
            memory.unsent.remove(call.operation.id)
            return False
        lost = record.not_kept(call.operation, stored.get("status") or {})
        if lost:
            memory.not_kept = NotKept(lost, self._clock.now())
            # The next leader would take the incomplete intent for a call that was made.
            undone = report.patch(stored.get("status") or {}, status)
            if undone is not None:
                await self._status.write(observation, undone, version=stored["metadata"]["resourceVersion"])
        return not lost

    def _log_failed(self, outcome: Outcome) -> None:
        for sentence in outcome.failed:
            log.warning("%s: %s", self._cluster.key, sentence)

    def _emit_steps(self, observation: Observation, plan: Plan, outcome: Outcome) -> None:
        """Emit what was done of a plan."""
        often = observation.desired.tuning.busy_reported_after
        events = report.plan_events(observation.snapshot, plan, done=outcome.done, reported_after=often)
        self._emit(observation, [*outcome.events, *self._cluster.events.not_yet_emitted(events)])

    def _emit(self, observation: Observation, events: Iterable[EmitEvent]) -> None:
        """Begin to write Events; nothing waits for them. The observation is not kept in memory meanwhile."""
        write = partial(self._executor.emit, observation.desired.key, observation.desired.uid)
        self._cluster.events.write(events, observation.snapshot.wall or observation.snapshot.now, write)
