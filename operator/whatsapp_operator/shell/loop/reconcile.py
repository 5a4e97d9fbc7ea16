"""The loop: observe, plan, note, act, report, rest. One writer for each cluster, and only while this process leads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from whatsapp_operator.core import evidence, pace, record, report, rules
from whatsapp_operator.core.actions import EmitEvent, Handover, Plan, SetShards, State
from whatsapp_operator.core.facts import Facts
from whatsapp_operator.core.names import Key, Obj
from whatsapp_operator.shell import logs
from whatsapp_operator.shell.clock import Clock, random_nonce
from whatsapp_operator.shell.kube import kinds
from whatsapp_operator.shell.kube.client import Kube
from whatsapp_operator.shell.kube.errors import KubeError, Rejected
from whatsapp_operator.shell.kube.lease import Leadership
from whatsapp_operator.shell.metrics import NOT_SENT, Metrics
from whatsapp_operator.shell.objects.reading import SpecError
from whatsapp_operator.shell.objects.shapes import key_of

from .cluster import Cluster, NotKept
from .execute import Executor, Outcome
from .observe import Observation, Observer
from .schedule import PriorityLimiter
from .status import StatusError, StatusWriter, named

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_ROUNDS = 12
"""Rounds of observe, plan and act after which a report is due in any case."""
REPORTED_AFTER = 5.0
"""Seconds after which failed observations are reported in the status if the API server causes them: one lost answer is not worth it."""
LOGGED_AGAIN = 60.0
"""Seconds after which the same failure of a cluster is logged again: many may fail every second, as while the API server is down."""
AT_ONCE_WITHIN = 0.5
"""Seconds that lists from the API server's cache may take. They save a tenth of a second, but take three from a server that lags."""
MISSED_FOR = 60.0
"""Seconds for which urgent events are remembered while another process leads."""


class Reconciler:
    """All loops of this process."""

    def __init__(
        self,
        *,
        kube: Kube,
        observer: Observer,
        executor: Executor,
        clock: Clock,
        forget: Callable[[Key], None],
        listed: Callable[[Obj], None] = lambda _: None,
        nonce: Callable[[], str] = random_nonce,
        namespaces: Iterable[str] = (),
        metrics: Metrics | None = None,
    ) -> None:
        """Prepare; ``run`` starts. ``forget`` drops what other parts hold for a cluster; ``listed`` gets each listed cluster."""
        self._metrics = metrics or Metrics()
        self._kube = kube
        self._status = StatusWriter(kube, clock, self._metrics)
        self._observer = observer
        self._executor = executor
        self._clock = clock
        self._forget = forget
        self._listed = listed
        self._nonce = nonce
        self._namespaces = tuple(namespaces)
        self._clusters: dict[Key, Cluster] = {}
        self._limiter = PriorityLimiter()
        self._missed: dict[Key, float] = {}
        """Clusters with urgent events while this process did not lead, and when, by the monotonic clock; newest last."""
        self._leadership: Leadership | None = None

    def wake(self, key: Key, *, is_urgent: bool = True) -> None:
        """Report a change of a cluster. ``is_urgent``: a failover may depend on it, so this cluster is observed before others.

        While this process does not lead, urgent changes are only remembered for a while.
        """
        leadership = self._leadership
        if self._namespaces and key.namespace not in self._namespaces:
            return
        if leadership is None:
            if is_urgent:
                self._missed.pop(key, None)
                self._missed[key] = self._clock.monotonic()
            return
        cluster = self._clusters.get(key)
        if cluster is None:
            cluster = self._clusters[key] = Cluster(key)
            self._begin(cluster, leadership)
            self._metrics.count_clusters(len(self._clusters))
        cluster.is_urgent |= is_urgent
        cluster.woken.set()
        if is_urgent:
            cluster.alarmed.set()

    def _begin(self, cluster: Cluster, leadership: Leadership) -> None:
        """Start the loop of a cluster. It ends with the cluster or the leadership; if it ends otherwise, it is restarted."""

        def ended(task: asyncio.Task[None]) -> None:
            # A task that the loop awaited was cancelled, not the loop itself.
            if task.cancelled():
                asyncio.get_running_loop().call_later(pace.FIRST_RETRY.total_seconds(), again)

        def again() -> None:
            if self._leadership is leadership and self._clusters.get(cluster.key) is cluster:
                log.error("%s: the loop was cancelled unexpectedly, and is restarted", cluster.key)
                self._begin(cluster, leadership)

        cluster.task = asyncio.create_task(self._run_loop(cluster, leadership), name=f"loop of {cluster.key}")
        cluster.task.add_done_callback(ended)

    async def run(self, leadership: Leadership) -> None:
        """Lead: reconcile every cluster until cancelled. When this returns, no loop of this process runs, and it writes no Event."""
        self._leadership = leadership
        # The first observation of many clusters takes a while. Clusters whose holders may have failed without a leader come first.
        missed, self._missed = self._missed, {}
        for key, at in reversed(missed.items()):
            if self._clock.monotonic() - at < MISSED_FOR:
                self.wake(key)
        try:
            await self._find_all()
            await asyncio.get_running_loop().create_future()
        finally:
            self._leadership = None
            tasks = [task for one in self._clusters.values() for task in (one.task, one.events.writing) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for key in tuple(self._clusters):
                self._drop(key)

    def _drop(self, key: Key) -> None:
        cluster = self._clusters.pop(key, None)
        if cluster is not None:
            cluster.close()
        self._forget(key)
        self._metrics.clusters.forget(key)
        self._metrics.count_clusters(len(self._clusters))

    async def _find_all(self) -> None:
        """Wake every existing cluster; from then on events do."""
        failures, left = 0, list[str | None](self._namespaces or (None,))
        while left:
            # One of several namespaces may be gone, with the rights in it: that must not hide the others.
            for namespace in tuple(left):
                try:
                    found = await self._kube.list(kinds.WAC, namespace, None)
                except KubeError as error:
                    log.warning("The clusters could not be listed: %s", error)
                    continue
                left.remove(namespace)
                for obj in found:
                    self._listed(obj)
                for key in map(key_of, found):
                    if key is not None:
                        self.wake(key, is_urgent=False)
            if left:
                failures += 1
                await asyncio.sleep(pace.retry_after(failures).total_seconds())

    async def _run_loop(self, cluster: Cluster, leadership: Leadership) -> None:
        """Run the loop of one cluster until the cluster is gone."""
        logs.note(cluster=str(cluster.key))
        while True:
            logs.note(rule=None)
            cluster.woken.clear()
            try:
                rest = await self._tick(cluster, leadership)
                cluster.failing_since = cluster.logged = None
            except Exception as error:
                # The loop ends with the cluster or the leadership, never because of an error.
                if self._leadership is not leadership:
                    # If a read fails just when the leadership ends, a TaskGroup raises its error instead of the cancellation.
                    raise asyncio.CancelledError from None
                rest = await self._rest_after_failure(cluster, error)
            if rest is None:
                if cluster.woken.is_set():
                    # It may have been created again since this observation began, and there is no second event for that.
                    continue
                self._drop(cluster.key)
                return
            await self._rest(cluster, rest.total_seconds())

    async def _rest_after_failure(self, cluster: Cluster, error: Exception) -> timedelta | None:
        """Log and report that an observation failed; return how long to rest, None if the cluster is gone.

        The error is not kept after this call: its traceback holds as much memory as everything that was read.
        """
        cause = self._log_failure(cluster, error)
        self._metrics.count_error(named(cause)[0])
        if cluster.failing_since is None:
            cluster.failing_since = self._clock.monotonic()
        is_there = True
        if not isinstance(cause, KubeError) or self._clock.monotonic() - cluster.failing_since >= REPORTED_AFTER:
            is_there = await self._status.report_failure(cluster.key, cause)
        # The cluster is not known to be quiet any more.
        cluster.quiet = None
        cluster.failures += 1
        last = pace.LAST_URGENT_RETRY if cluster.is_urgent else pace.LAST_RETRY
        return pace.retry_after(cluster.failures, last=last) if is_there else None

    def _log_failure(self, cluster: Cluster, error: BaseException) -> BaseException:
        """Log the error of an observation, unless it was logged a moment ago, and return its cause.

        It is one sentence for an external error, the traceback for an internal one.
        """
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        now, text = self._clock.monotonic(), f"{type(error).__name__}: {error}"
        if cluster.logged is not None and cluster.logged[0] == text and now - cluster.logged[1] < LOGGED_AGAIN:
            log.debug("%s: %s", cluster.key, text)
            return error
        cluster.logged = text, now
        if isinstance(error, (KubeError, SpecError, StatusError)):
            log.warning("%s: %s", cluster.key, error)
        else:
            log.error("%s: the observation failed by an internal error of the operator", cluster.key, exc_info=error)
        return error

    async def _rest(self, cluster: Cluster, seconds: float) -> None:
        """Wait until the cluster is woken, at most for ``seconds``. What is too old to be used again is dropped meanwhile.

        With very many clusters, a quiet one rests longer. Its client is then asked without an observation, so drift is noticed as soon.
        """
        more = pace.quiet_rest(len(self._clusters)).total_seconds() - seconds
        usable_for, ask_again = pace.SLOW_FOR.total_seconds(), pace.ASK_AGAIN.total_seconds()
        if seconds > usable_for:
            if await cluster.woken_within(usable_for):
                return
            cluster.drop_read()
            seconds -= usable_for
        if await cluster.woken_within(seconds) or cluster.quiet is None:
            return
        while more > 0:
            self._executor.ask_again(cluster.key, cluster.quiet)
            if await cluster.woken_within(min(more, ask_again)):
                return
            more -= ask_again

    async def _tick(self, cluster: Cluster, leadership: Leadership) -> timedelta | None:
        """Observe, plan, note and act until nothing more follows, then report. Return how long to rest; None if the cluster is gone.

        If the observation fails, the loop stays urgent.
        """
        is_urgent, cluster.is_urgent = cluster.is_urgent, False
        try:
            return await self._rounds(cluster, leadership, is_urgent=is_urgent)
        except Exception:
            cluster.is_urgent |= is_urgent
            raise

    async def _hand_over_at_once(self, cluster: Cluster, leadership: Leadership) -> None:
        """Hand over the shards of pods that have just failed, by lists from the API server's cache, which may be out of date.

        These lists are used for nothing else: laws that are not about holders need the current state. The next observation does the rest.
        """
        while self._observer.has_lost_holders(cluster.key, cluster.memory):
            await cluster.allowance(self._clock.monotonic())
            await self._hand_over_by_old_lists(cluster, leadership)

    async def _hand_over_by_old_lists(self, cluster: Cluster, leadership: Leadership) -> None:
        try:
            async with self._limiter.turn(is_urgent=True):
                with self._metrics.time_observation(self._clock.monotonic):
                    async with asyncio.timeout(AT_ONCE_WITHIN):
                        observation = await self._observer.observe(
                            cluster.key, cluster.memory, nonce=self._nonce(), leader_epoch=leadership.epoch, from_cache=True
                        )
        except (KubeError, SpecError, TimeoutError) as error:
            log.debug("%s: %s", cluster.key, error)
            return
        if observation is None or cluster.uid not in {None, observation.desired.uid}:
            return
        cluster.uid = observation.desired.uid
        plan = rules.plan_of(rules.facts(observation.desired, observation.snapshot))
        logs.note(rule=str(plan.decision.rule))
        handovers = [one for one in plan.actions if isinstance(one, Handover)]
        if moves := [one for one in handovers if evidence.is_proven_by_old_lists(one.evidence, one.old)]:
            outcome = await self._executor.perform(observation, moves, cluster.memory, is_part=True)
            self._emit_steps(cluster, observation, replace(plan, actions=tuple(moves)), outcome)
            for sentence in outcome.failed:
                log.warning("%s: %s", cluster.key, sentence)

    async def _handing_over(self, cluster: Cluster, leadership: Leadership, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of ``work``, which awaits writes. Holders that are lost meanwhile are replaced at once.

        A write may take its full time-out, for example when a webhook hangs for one object. The API server tests its write and those of
        the handover separately, as if two leaders wrote (laws#2, laws#7).
        """
        task = asyncio.ensure_future(work)
        task.add_done_callback(lambda _: cluster.alarmed.set())
        try:
            while not task.done():
                await cluster.alarmed.wait()
                cluster.alarmed.clear()
                if not task.done():
                    await self._hand_over_at_once(cluster, leadership)
        finally:
            # No task group: a write that fails must not end a handover between its two steps.
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return task.result()

    async def _rounds(self, cluster: Cluster, leadership: Leadership, *, is_urgent: bool) -> timedelta | None:
        await self._hand_over_at_once(cluster, leadership)
        conflicts = 0
        for rounds_left in reversed(range(MOST_ROUNDS)):
            await cluster.allowance(self._clock.monotonic())
            is_urgent, cluster.is_urgent = is_urgent or cluster.is_urgent, False
            observation = await self._observe(cluster, leadership, is_urgent=is_urgent)
            if observation is None:
                return None
            if cluster.uid != observation.desired.uid:
                if cluster.uid is not None:
                    # It was deleted and created again between two observations. This one used the memory of the former cluster.
                    self._forget(cluster.key)
                    self._metrics.clusters.forget(cluster.key)
                    cluster.reset(observation.desired.uid)
                    continue
                cluster.uid = observation.desired.uid
            facts = rules.facts(observation.desired, observation.snapshot)
            plan = rules.plan_of(facts)
            logs.note(rule=str(plan.decision.rule))
            outcome = await self._act(cluster, leadership, observation, plan)
            moving = (outcome.wrote or outcome.is_outdated) and not outcome.failed
            conflicts = conflicts + 1 if outcome.is_outdated and not outcome.wrote else 0
            if moving and rounds_left and conflicts < pace.MOST_CONFLICTS:
                # Frees their memory while this cluster waits for its next turn.
                del observation, facts, plan, outcome
                continue
            quiet = (
                plan.decision.state is State.READY
                and plan.is_settled
                and plan.wake_after == observation.desired.tuning.rest
                and not observation.snapshot.unread
            )
            cluster.quiet = observation.access if quiet and not moving and not outcome.failed and not cluster.memory.unassigned else None
            if cluster.memory.reading is not None:
                cluster.memory.reading.add_done_callback(lambda _: cluster.woken.set())
            reported = not plan.is_reportable or await self._handing_over(
                cluster, leadership, self._report(cluster, observation, facts, plan)
            )
            return self._rest_after(cluster, plan, failed=moving or bool(outcome.failed) or cluster.memory.unassigned or not reported)
        return timedelta(0)

    async def _observe(self, cluster: Cluster, leadership: Leadership, *, is_urgent: bool) -> Observation | None:
        """Wait for a turn, and observe.

        With a new leader, all clusters wait. If each kept what it had read meanwhile, that would be most of the memory.
        """
        with cluster.dropping_after(pace.SLOW_FOR.total_seconds()) as waiting:
            async with self._limiter.turn(is_urgent=is_urgent):
                waiting.cancel()
                # This observation covers what happened while the loop waited for its turn.
                cluster.woken.clear()
                with self._metrics.time_observation(self._clock.monotonic):
                    return await self._observer.observe(cluster.key, cluster.memory, nonce=self._nonce(), leader_epoch=leadership.epoch)

    def _rest_after(self, cluster: Cluster, plan: Plan, *, failed: bool) -> timedelta:
        """Return how long to rest after an observation; ``failed``: a part of it must be tried again."""
        rest = plan.wake_after or pace.LAST_RETRY
        cluster.failures = cluster.failures + 1 if failed else 0
        if failed:
            rest = min(rest, pace.retry_after(cluster.failures))
        if cluster.memory.unassigned:
            rest = min(rest, pace.REASSIGN_AFTER)
        return rest

    def _remember(self, cluster: Cluster, observation: Observation, plan: Plan) -> None:
        memory, now = cluster.memory, observation.snapshot.now
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

    async def _act(self, cluster: Cluster, leadership: Leadership, observation: Observation, plan: Plan) -> Outcome:
        """Execute the plan; a call of Set Shards last, and only after its intent was noted."""
        self._remember(cluster, observation, plan)
        requested = tuple(action for action in plan.actions if isinstance(action, EmitEvent))
        self._emit(cluster, observation, cluster.events.newly_requested(requested))
        handing_over, lost = partial(self._handing_over, cluster, leadership), cluster.memory.lost
        outcome = await self._executor.perform(observation, plan.actions, cluster.memory, await_all=handing_over)
        for sentence in outcome.failed:
            log.warning("%s: %s", observation.desired.key, sentence)
        # A holder was lost meanwhile, and perhaps replaced: the plan, and a call of Set Shards in it, did not know of that (laws#5).
        outcome.is_outdated |= not cluster.memory.lost <= lost
        call = next((action for action in plan.actions if isinstance(action, SetShards)), None)
        if call is not None and not (outcome.wrote or outcome.failed or outcome.is_outdated):
            noted_at, slow = self._clock.monotonic(), cluster.memory.slow
            if slow is None or slow.again:
                # The Secrets may have changed: the certificate that is checked and sent must be read by this observation (laws#8).
                cluster.memory.slow, cluster.memory.is_call_due, outcome.is_outdated = None, True, True
            elif await self._note(cluster, observation, plan, call):
                cluster.memory.anchored_for = None
                cluster.memory.unsent.remove(call.operation.id)
                cluster.memory.intent = call.operation.id, call.operation.started_at
                self._executor.set_shards(observation, call, noted_at)
                self._emit(cluster, observation, [report.set_shards_sent(call.operation)])
                outcome.wrote = True
            else:
                outcome.is_outdated = True
        self._emit_steps(cluster, observation, plan, outcome)
        return outcome

    def _emit_steps(self, cluster: Cluster, observation: Observation, plan: Plan, outcome: Outcome) -> None:
        """Emit what was done of a plan."""
        often = observation.desired.tuning.busy_reported_after
        events = report.plan_events(observation.snapshot, plan, done=outcome.done, reported_after=often)
        self._emit(cluster, observation, [*outcome.events, *cluster.events.not_yet_emitted(events)])

    async def _note(self, cluster: Cluster, observation: Observation, plan: Plan, call: SetShards) -> bool:
        """Note the intent of a call and check that it is stored completely; return False if the call may not be made now."""
        # If the answer is lost, the intent may be in status nevertheless.
        cluster.memory.unsent.append(call.operation.id)
        # With the rest of the record: the new intent replaces the former one, from which the rest follows.
        body = report.patch(
            observation.snapshot.status, record.put(observation.snapshot.status, replace(plan.record, operation=call.operation))
        )
        stored = await self._status.write(observation, body or {})
        if stored is None:
            cluster.memory.unsent.remove(call.operation.id)
            return False
        lost = record.not_kept(call.operation, stored.get("status") or {})
        if lost:
            cluster.memory.not_kept = NotKept(lost, self._clock.now())
            # The next leader would take the incomplete intent for a call that was made.
            undone = report.patch(stored.get("status") or {}, observation.snapshot.status)
            if undone is not None:
                await self._status.write(observation, undone, version=stored["metadata"]["resourceVersion"])
        return not lost

    async def _report(self, cluster: Cluster, observation: Observation, facts: Facts, plan: Plan) -> bool:
        """Write the status if it differs; return False if the cluster has changed since the observation."""
        after = report.report(facts, plan)
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
            self._emit(cluster, observation, events)
        return True

    def _emit(self, cluster: Cluster, observation: Observation, events: Iterable[EmitEvent]) -> None:
        """Begin to write Events; nothing waits for them. The observation is not kept in memory meanwhile."""
        write = partial(self._executor.emit, observation.desired.key, observation.desired.uid)
        cluster.events.write(events, observation.snapshot.wall or observation.snapshot.now, write)
