"""Every write: one small function for each action. It decides nothing. A shard stops at its first failure, the others go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from whatsapp_operator.core import manifests, report, scaling
from whatsapp_operator.core.actions import (
    Action,
    Annotate,
    AssignRole,
    BumpVersion,
    ClearLabels,
    Create,
    Delete,
    EmitEvent,
    GenerateSecret,
    GetShards,
    Handover,
    Label,
    Relabel,
    Replace,
    Retire,
    Scale,
    SetShards,
    Touch,
)
from whatsapp_operator.core.names import Key, Obj, Ref
from whatsapp_operator.core.snapshot import HandoverTimes, RejectedWrite
from whatsapp_operator.core.upkeep import attempted
from whatsapp_operator.shell import logs
from whatsapp_operator.shell.clock import Clock
from whatsapp_operator.shell.coreapps.probe import Coreapps
from whatsapp_operator.shell.kube import kinds
from whatsapp_operator.shell.kube.client import Kube
from whatsapp_operator.shell.kube.errors import AlreadyExists, Conflict, KubeError, NotFound, Rejected, TestFailed
from whatsapp_operator.shell.metrics import Metrics, Phase
from whatsapp_operator.shell.objects.generated import filled_secret
from whatsapp_operator.shell.tracing import Timeline, Tracing
from whatsapp_operator.shell.whatsapp.access import Access
from whatsapp_operator.shell.whatsapp.session import Clients

from .cluster import Denial, Memory
from .events import EventWriter
from .observe import Observation

log = logging.getLogger(__name__)

T = TypeVar("T")

AwaitAll = Callable[[Coroutine[Any, Any, object]], Awaitable[object]]
"""Awaits the writes of a plan."""

OUTDATED = (AlreadyExists, Conflict, NotFound, TestFailed)
"""Answers that mean that the cluster changed since the observation. Nothing is wrong; the next observation decides."""
NEVER_ACCEPTED = frozenset({400, 413, 422})
"""Answers that reject this Event for good: it is dropped."""
MOST_ACTIONS = 128
"""Actions after one observation, without handovers; a cluster of 32 shards needs half of that."""
AT_A_TIME = 16
"""Concurrent writes of one cluster, without handovers: the client has a hundred connections for all clusters."""


@dataclass(slots=True)
class Outcome:
    """The result of a round of actions."""

    wrote: bool = False
    """Something changed, so the next observation is due at once."""
    is_outdated: bool = False
    """The cluster changed since the observation."""
    done: list[Action] = field(default_factory=list)
    """Actions that succeeded, without handovers."""
    failed: list[str] = field(default_factory=list)
    """One sentence for each action that failed."""
    events: list[EmitEvent] = field(default_factory=list)
    """Events of the handovers that were made."""
    denied: list[str] = field(default_factory=list)
    """Of those that failed: rejected by the API server, without objects that are made or put right, which are known in another way."""

    def fail(self, error: KubeError, *, is_object: bool = False) -> None:
        """Note why an action failed. ``is_object``: it makes an object or puts one right."""
        self.failed.append(str(error))
        if isinstance(error, Rejected) and not is_object:
            self.denied.append(str(error))


def _is_object(observation: Observation, action: Action) -> bool:
    """Return whether an action makes an object or puts one right that is kept in shape; the Services of shards are not."""
    if not isinstance(action, Create | GenerateSecret | Replace):
        return False
    return action.obj["kind"] != "Service" or manifests.shard_of(action.obj["metadata"]["name"], observation.desired.key.name) is None


def _ref_of(action: Action) -> Ref | None:
    """Return the object of which a rejection is remembered; None: this action writes none."""
    match action:
        case Create() | GenerateSecret() | Replace():
            return Ref(action.obj["kind"], action.obj["metadata"]["name"])
        case Delete():
            return action.ref
        case Handover():
            return Ref(kinds.POD.kind, action.to.name)
    return None


async def _plainly(work: Coroutine[Any, Any, object]) -> None:
    await work


class Executor:
    """Executes plans."""

    def __init__(
        self,
        *,
        kube: Kube,
        clients: Clients,
        coreapps: Coreapps,
        clock: Clock,
        identity: str,
        metrics: Metrics | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """Prepare; ``kube`` is fenced by the Lease. ``identity`` is the reporting instance of Events."""
        self._metrics = metrics or Metrics()
        self._tracing = tracing
        self._kube = kube
        self._clients = clients
        self._coreapps = coreapps
        self._clock = clock
        self._events = EventWriter(kube, clock=clock, identity=identity)

    async def perform(
        self,
        observation: Observation,
        actions: Iterable[Action],
        memory: Memory,
        *,
        is_part: bool = False,
        await_all: AwaitAll = _plainly,
    ) -> Outcome:
        """Execute all actions of a plan except Set Shards, which follows its note, and Events. Handovers come first, all together.

        The number of actions after one observation and of concurrent writes is limited, because other clusters write too.
        ``is_part``: the plan has more actions; what was rejected or not accepted among those is not known to be over.
        ``await_all`` awaits what comes after the handovers, each of which may take its full time-out.
        """
        outcome = Outcome()
        todo = [action for action in actions if not isinstance(action, SetShards | EmitEvent)]
        handovers = [action for action in todo if isinstance(action, Handover)]
        await self._hand_over(observation, handovers, memory, outcome)
        memory.unassigned &= is_part
        rest = [action for action in todo if not isinstance(action, Handover)]
        if len(rest) > MOST_ACTIONS:
            rest, outcome.is_outdated = rest[:MOST_ACTIONS], True
        room = asyncio.Semaphore(AT_A_TIME)
        if rest:
            await await_all(_all(self._tried(observation, action, memory, outcome, room) for action in rest))
        was_said = observation.snapshot.denied is not None
        if outcome.denied or not is_part:
            memory.denial = self._denial(outcome, memory)
        # What was said is to be taken back at once.
        outcome.is_outdated |= was_said and memory.denial is None
        return outcome

    def _denial(self, outcome: Outcome, memory: Memory) -> Denial | None:
        since = memory.denial.since if memory.denial is not None else self._clock.now()
        return Denial(outcome.denied[0], since) if outcome.denied else None

    async def _tried(self, observation: Observation, action: Action, memory: Memory, outcome: Outcome, room: asyncio.Semaphore) -> None:
        """Execute one action, and note in ``outcome`` what came of it."""
        try:
            if isinstance(action, AssignRole | GetShards):
                # These go to the cluster's own pods, which may be dead; other actions must not wait for them.
                done = await self._do(observation, action, memory)
            else:
                async with room:
                    with self._remembering(observation, action, memory):
                        done = await self._do(observation, action, memory)
        except OUTDATED as answer:
            log.debug("%s: %s", observation.desired.key, answer)
            outcome.is_outdated = True
            memory.slow = None
        except KubeError as error:
            outcome.fail(error, is_object=_is_object(observation, action))
        else:
            outcome.wrote |= done
            outcome.done.append(action)

    @contextmanager
    def _remembering(self, observation: Observation, action: Action, memory: Memory) -> Iterator[None]:
        """Remember whether the API server rejects the object that an action writes. No answer says neither, nor does an outdated one."""
        ref = _ref_of(action)
        try:
            yield
        except Rejected as answer:
            if ref is not None:
                memory.rejected[ref] = RejectedWrite(str(answer), self._clock.now(), observation.desired.generation)
            raise
        if ref is not None:
            memory.rejected.pop(ref, None)

    async def _do(self, observation: Observation, action: Action, memory: Memory) -> bool:
        """Execute one action; return whether something changed that the next observation would see."""
        if isinstance(action, Create | GenerateSecret | Replace | Delete | Label):
            # The slow objects that were read are out of date.
            memory.slow = None
        match action:
            case AssignRole():
                memory.unassigned |= not await self._coreapps.assign(action)
                return False
            case GetShards(quiet=quiet):
                self._clients.ask(observation.desired.key, observation.access, quiet=quiet)
                return False
            case Create() | GenerateSecret() | Replace() | Delete() | Scale():
                # A write that was sent may still take effect after its time-out.
                memory.anchored_for = None if isinstance(action, Scale) else memory.anchored_for
                return await self._write_object(observation, action, memory)
            case Label(ref=ref, resource_version=version):
                kind = kinds.SERVICE if ref.kind == kinds.SERVICE.kind else kinds.POD
                stored = await self._kube.patch_merge(kind, observation.desired.key.namespace, ref.name, manifests.labels_patch(action))
                return bool(stored["metadata"]["resourceVersion"] != version)
            case BumpVersion(ref=ref, shards=shards):
                # By the status, which admission of StatefulSets does not see: an image mutator would make a new template.
                await self._kube.patch_status(
                    kinds.STATEFULSET, observation.desired.key.namespace, ref.name, manifests.anchor_patch(action)
                )
                memory.anchored_for = shards
            case _:
                await self._write_marks(observation, action)
        return True

    async def _write_object(
        self, observation: Observation, action: Create | GenerateSecret | Replace | Delete | Scale, memory: Memory
    ) -> bool:
        """Write a whole object, or the number of Coreapps; return whether that changed something."""
        namespace = observation.desired.key.namespace
        match action:
            case Create(obj=obj):
                self._learn(memory, obj, None, await self._kube.create(dict(obj)))
            case GenerateSecret():
                known = memory.admin if action.recipe == "admin" else None
                # The earlier clock: a certificate of a machine whose clock is ahead would not be valid yet on other machines.
                now = min(filter(None, (self._clock.wall(), observation.snapshot.server_time)))
                filled = {**action.obj, "data": dict(known)} if known else await asyncio.to_thread(filled_secret, action, now)
                await self._kube.create(filled)
            case Replace(obj=obj, desired=desired, live=live):
                stored = await self._kube.replace(dict(obj))
                self._learn(memory, desired, live, stored)
                return bool(stored["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"])
            case Delete(ref=ref, uid=uid, resource_version=version):
                kind = next(kind for kind in kinds.KINDS if kind.kind == ref.kind)
                if kind is kinds.POD:
                    # Before the call: if its answer is lost, the pod may be gone all the same.
                    memory.ended[ref.name] = uid
                await self._kube.delete(kind, namespace, ref.name, uid=uid, resource_version=version)
            case Scale(ref=ref, resource_version=version, replicas=replicas):
                body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
                # By the scale subresource, for the same reason.
                await self._kube.patch_scale(kinds.STATEFULSET, namespace, ref.name, body)
                judged = observation.snapshot.statefulset
                if judged is not None and judged.scaled_by is not None:
                    memory.overruled = scaling.noted(
                        observation.snapshot.overruled, by=judged.scaled_by, replicas=judged.replicas, now=self._clock.now()
                    )
        return True

    def _learn(self, memory: Memory, desired: Obj, live: Obj | None, stored: Obj) -> None:
        """Remember what the API server stored: fields that admission changes or drops would otherwise be written again and again."""
        ref = Ref(desired["kind"], desired["metadata"]["name"])
        learnt = attempted(memory.written.get(ref, {}), before=live, desired=desired, stored=stored, now=self._clock.now())
        if learnt:
            memory.written[ref] = learnt

    async def _write_marks(self, observation: Observation, action: Action) -> None:
        """Write labels of a pod, or annotations."""
        namespace = observation.desired.key.namespace
        match action:
            case Touch(route=route, epoch=epoch):
                await self._kube.patch_merge(kinds.SERVICE, namespace, route.name, manifests.touch_patch(route, epoch))
            case Retire(coreapp=pod):
                await self._kube.patch_json(kinds.POD, namespace, pod.name, manifests.retire_patch(action))
            case ClearLabels(coreapp=pod):
                await self._kube.patch_json(kinds.POD, namespace, pod.name, manifests.strip_patch(pod))
            case Relabel(coreapp=pod, route=route):
                patch = manifests.label_patch(pod, route.shard, route.epoch or manifests.NO_EPOCH)
                await self._kube.patch_json(kinds.POD, namespace, pod.name, patch)
            case Annotate(name=name, value=value):
                version = observation.snapshot.resource_version
                body = {"metadata": {"resourceVersion": version, "annotations": {name: value}}}
                await self._kube.patch_merge(kinds.WAC, namespace, observation.desired.key.name, body)
            case _:
                msg = f"no function for {type(action).__name__}"
                raise AssertionError(msg)

    # --- the handover: prepare, commit, assign (docs/architecture.md); the next observation tidies up ----------------------

    async def _hand_over(self, observation: Observation, handovers: list[Handover], memory: Memory, outcome: Outcome) -> None:
        """Prepare all, commit those that are prepared, assign those that are committed. Nothing here waits for an old holder."""
        timelines = {one.epoch: self._timeline(observation, one) for one in handovers}
        try:
            prepared = await self._each(handovers, lambda one: self._prepare(observation, one, memory, timelines[one.epoch]), outcome)
            committed = await self._each(prepared, lambda one: self._commit(observation, one, memory, timelines[one.epoch]), outcome)
            outcome.wrote |= bool(prepared)
            await _all(self._assign_both(one, memory, timelines[one.epoch]) for one in committed)
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
        with self._remembering(observation, one, memory):
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
        # Only the new holder is awaited: the old one may be dead, and then costs a full time-out.
        first, *others = [asyncio.create_task(self._coreapps.assign(message)) for message in messages]
        for task in others:
            task.add_done_callback(_retrieve_error)
        accepted = await first
        timeline.observe(Phase.ASSIGN, committed_at)
        if accepted:
            timeline.observe(Phase.SERVE, committed_at)
            milliseconds = round((self._clock.now() - committed_at) / timedelta(milliseconds=1))
            memory.handover_times[epoch] = replace(memory.handover_times[epoch], serve=milliseconds)

    # --- events -----------------------------------------------------------------------------------------------------

    async def emit(self, key: Key, uid: str, event: EmitEvent, at: datetime) -> bool:
        """Write an Event about a cluster, with the time of its cause. Return whether it was written, or rejected for good."""
        try:
            await self._events.write(key, uid, event, at)
        except KubeError as error:
            log.warning("%s: %s", key, error)
            return isinstance(error, Rejected) and error.code in NEVER_ACCEPTED
        return True

    # --- GET shards ---------------------------------------------------------------------------------------------

    def ask_again(self, key: Key, access: Access) -> None:
        """Ask for the number of shards without an observation: no event has come since the last one."""
        self._clients.ask(key, access, quiet=True)

    # --- the call ---------------------------------------------------------------------------------------------------

    def set_shards(self, observation: Observation, action: SetShards, noted_at: float) -> None:
        """Start the call whose intent is in status since ``noted_at``."""
        self._clients.set_shards(observation.desired.key, observation.access, observation.credentials, action.operation, noted_at)


async def _all(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return the results of all calls. If one fails by an internal error the others are ended: nothing goes on without its loop."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call) for call in calls]
    return [task.result() for task in tasks]


def _retrieve_error(task: asyncio.Task[bool]) -> None:
    if not task.cancelled():
        task.exception()
