"""The loop of one cluster: observe, plan, note, act, report, rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from whatsapp_operator.core import evidence, pace, rules
from whatsapp_operator.core.actions import Handover, Plan, State
from whatsapp_operator.core.names import Key
from whatsapp_operator.shell import logs
from whatsapp_operator.shell.clock import Clock
from whatsapp_operator.shell.kube.errors import KubeError
from whatsapp_operator.shell.kube.lease import Leadership
from whatsapp_operator.shell.metrics import Metrics
from whatsapp_operator.shell.objects.reading import SpecError

from .acting import Acting
from .cluster import Cluster
from .execute import Executor
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


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loops of this process share."""

    observer: Observer
    executor: Executor
    status: StatusWriter
    clock: Clock
    metrics: Metrics
    limiter: PriorityLimiter
    nonce: Callable[[], str]
    forget: Callable[[Key], None]
    """Drops what other parts hold for a cluster."""
    count: Callable[[], int]
    """How many loops there are."""


class ClusterLoop:
    """The loop of one cluster, for one leadership."""

    def __init__(self, cluster: Cluster, leadership: Leadership, parts: Parts, *, leads: Callable[[], bool]) -> None:
        """Prepare; ``run`` starts. ``leads``: whether this process still leads, by this leadership."""
        self._cluster = cluster
        self._leadership = leadership
        self._leads = leads
        self._parts = parts
        self._acting = Acting(cluster, executor=parts.executor, status=parts.status, clock=parts.clock, metrics=parts.metrics)

    async def run(self) -> None:
        """Reconcile the cluster until it is gone."""
        cluster = self._cluster
        logs.note(cluster=str(cluster.key))
        while True:
            logs.note(rule=None)
            cluster.woken.clear()
            try:
                rest = await self._tick()
                cluster.failing_since = cluster.logged = None
            except Exception as error:
                # The loop ends with the cluster or the leadership, never because of an error.
                if not self._leads():
                    # If a read fails just when the leadership ends, a TaskGroup raises its error instead of the cancellation.
                    raise asyncio.CancelledError from None
                rest = await self._rest_after_failure(error)
            if rest is not None:
                await self._rest(rest.total_seconds())
            elif not cluster.woken.is_set():
                return
            # Else it may have been created again since this observation began, and there is no second event for that.

    # --- rests ----------------------------------------------------------------------------------------------------------------

    async def _rest(self, seconds: float) -> None:
        """Wait until the cluster is woken, at most for ``seconds``. What is too old to be used again is dropped meanwhile.

        With very many clusters, a quiet one rests longer. Its client is then asked without an observation, so drift is noticed as soon.
        """
        cluster = self._cluster
        more = pace.quiet_rest(self._parts.count()).total_seconds() - seconds
        usable_for, ask_again = pace.SLOW_FOR.total_seconds(), pace.ASK_AGAIN.total_seconds()
        if seconds > usable_for:
            if await cluster.woken_within(usable_for):
                return
            cluster.drop_read()
            seconds -= usable_for
        if await cluster.woken_within(seconds) or cluster.quiet is None:
            return
        while more > 0:
            self._parts.executor.ask_again(cluster.key, cluster.quiet)
            if await cluster.woken_within(min(more, ask_again)):
                return
            more -= ask_again

    def _rest_after(self, plan: Plan, *, failed: bool) -> timedelta:
        """Return how long to rest after an observation; ``failed``: a part of it must be tried again."""
        cluster, rest = self._cluster, plan.wake_after or pace.LAST_RETRY
        cluster.failures = cluster.failures + 1 if failed else 0
        if failed:
            rest = min(rest, pace.retry_after(cluster.failures))
        if cluster.memory.unassigned:
            rest = min(rest, pace.REASSIGN_AFTER)
        return rest

    async def _rest_after_failure(self, error: Exception) -> timedelta | None:
        """Log and report that an observation failed; return how long to rest, None if the cluster is gone.

        The error is not kept after this call: its traceback holds as much memory as everything that was read.
        """
        cluster, cause = self._cluster, self._log_failure(error)
        self._parts.metrics.count_error(named(cause)[0])
        if cluster.failing_since is None:
            cluster.failing_since = self._parts.clock.monotonic()
        is_there = True
        if not isinstance(cause, KubeError) or self._parts.clock.monotonic() - cluster.failing_since >= REPORTED_AFTER:
            is_there = await self._parts.status.report_failure(cluster.key, cause)
        # The cluster is not known to be quiet any more.
        cluster.quiet = None
        cluster.failures += 1
        last = pace.LAST_URGENT_RETRY if cluster.is_urgent else pace.LAST_RETRY
        return pace.retry_after(cluster.failures, last=last) if is_there else None

    def _log_failure(self, error: BaseException) -> BaseException:
        """Log the error of an observation, unless it was logged a moment ago, and return its cause.

        It is one sentence for an external error, the traceback for an internal one.
        """
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        cluster, now, text = self._cluster, self._parts.clock.monotonic(), f"{type(error).__name__}: {error}"
        if cluster.logged is not None and cluster.logged[0] == text and now - cluster.logged[1] < LOGGED_AGAIN:
            log.debug("%s: %s", cluster.key, text)
            return error
        cluster.logged = text, now
        if isinstance(error, (KubeError, SpecError, StatusError)):
            log.warning("%s: %s", cluster.key, error)
        else:
            log.error("%s: the observation failed by an internal error of the operator", cluster.key, exc_info=error)
        return error

    # --- holders that are lost ------------------------------------------------------------------------------------------------

    async def _hand_over_at_once(self) -> None:
        """Hand over the shards of pods that have just failed, by lists from the API server's cache, which may be out of date.

        These lists are used for nothing else: laws that are not about holders need the current state. The next observation does the rest.
        """
        while self._parts.observer.has_lost_holders(self._cluster.key, self._cluster.memory):
            await self._cluster.allowance(self._parts.clock.monotonic())
            await self._hand_over_by_old_lists()

    async def _hand_over_by_old_lists(self) -> None:
        cluster = self._cluster
        try:
            async with self._parts.limiter.turn(is_urgent=True), asyncio.timeout(AT_ONCE_WITHIN):
                observation = await self._read(from_cache=True)
        except (KubeError, SpecError, TimeoutError) as error:
            log.debug("%s: %s", cluster.key, error)
            return
        if observation is None or cluster.uid not in {None, observation.desired.uid}:
            return
        cluster.uid = observation.desired.uid
        plan = rules.plan_of(rules.facts(observation.desired, observation.snapshot))
        logs.note(rule=str(plan.decision.rule))
        handovers = (one for one in plan.actions if isinstance(one, Handover))
        if moves := tuple(one for one in handovers if evidence.is_proven_by_old_lists(one.evidence, one.old)):
            await self._acting.hand_over(observation, plan, moves)

    async def _handing_over(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of ``work``, which awaits writes. Holders that are lost meanwhile are replaced at once.

        A write may take its full time-out, for example when a webhook hangs for one object. The API server tests its write and those of
        the handover separately, as if two leaders wrote (laws#2, laws#7).
        """
        alarmed, task = self._cluster.alarmed, asyncio.ensure_future(work)
        task.add_done_callback(lambda _: alarmed.set())
        try:
            while not task.done():
                await alarmed.wait()
                alarmed.clear()
                if not task.done():
                    await self._hand_over_at_once()
        finally:
            # No task group: a write that fails must not end a handover between its two steps.
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return task.result()

    # --- rounds ---------------------------------------------------------------------------------------------------------------

    async def _tick(self) -> timedelta | None:
        """Observe, plan, note and act until nothing more follows, then report. Return how long to rest; None if the cluster is gone.

        If the observation fails, the loop stays urgent.
        """
        is_urgent, self._cluster.is_urgent = self._cluster.is_urgent, False
        try:
            return await self._rounds(is_urgent=is_urgent)
        except Exception:
            self._cluster.is_urgent |= is_urgent
            raise

    async def _rounds(self, *, is_urgent: bool) -> timedelta | None:
        await self._hand_over_at_once()
        cluster, conflicts = self._cluster, 0
        for rounds_left in reversed(range(MOST_ROUNDS)):
            await cluster.allowance(self._parts.clock.monotonic())
            is_urgent, cluster.is_urgent = is_urgent or cluster.is_urgent, False
            observation = await self._observe(is_urgent=is_urgent)
            if observation is None:
                return None
            if cluster.uid != observation.desired.uid:
                if cluster.uid is not None:
                    # It was deleted and created again between two observations. This one used the memory of the former cluster.
                    self._parts.forget(cluster.key)
                    self._parts.metrics.clusters.forget(cluster.key)
                    cluster.reset(observation.desired.uid)
                    continue
                cluster.uid = observation.desired.uid
            facts = rules.facts(observation.desired, observation.snapshot)
            plan = rules.plan_of(facts)
            logs.note(rule=str(plan.decision.rule))
            outcome = await self._acting.act(observation, plan, self._handing_over)
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
            reported = not plan.is_reportable or await self._handing_over(self._acting.report(observation, facts, plan))
            return self._rest_after(plan, failed=moving or bool(outcome.failed) or cluster.memory.unassigned or not reported)
        return timedelta(0)

    async def _observe(self, *, is_urgent: bool) -> Observation | None:
        """Wait for a turn, and observe.

        With a new leader, all clusters wait. If each kept what it had read meanwhile, that would be most of the memory.
        """
        with self._cluster.dropping_after(pace.SLOW_FOR.total_seconds()) as waiting:
            async with self._parts.limiter.turn(is_urgent=is_urgent):
                waiting.cancel()
                # This observation covers what happened while the loop waited for its turn.
                self._cluster.woken.clear()
                return await self._read()

    async def _read(self, *, from_cache: bool = False) -> Observation | None:
        cluster, parts, epoch = self._cluster, self._parts, self._leadership.epoch
        with parts.metrics.time_observation(parts.clock.monotonic):
            return await parts.observer.observe(cluster.key, cluster.memory, nonce=parts.nonce(), leader_epoch=epoch, from_cache=from_cache)
