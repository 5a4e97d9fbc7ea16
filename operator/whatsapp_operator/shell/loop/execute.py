"""Every write but those of the status. It decides nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import datetime
from typing import Any, TypeVar

from whatsapp_operator.core import manifests, scaling
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
from whatsapp_operator.core.upkeep import attempted
from whatsapp_operator.shell.clock import Clock
from whatsapp_operator.shell.coreapps.probe import Coreapps
from whatsapp_operator.shell.kube import kinds
from whatsapp_operator.shell.kube.client import Kube
from whatsapp_operator.shell.kube.errors import KubeError, Rejected
from whatsapp_operator.shell.metrics import Metrics
from whatsapp_operator.shell.objects.generated import filled_secret
from whatsapp_operator.shell.tracing import Tracing
from whatsapp_operator.shell.whatsapp.access import Access
from whatsapp_operator.shell.whatsapp.session import Clients

from .cluster import Denial, Memory
from .events import EventWriter
from .handover import Handovers
from .observe import Observation
from .outcome import OUTDATED, Outcome, all_of, remembering

log = logging.getLogger(__name__)

T = TypeVar("T")

AwaitAll = Callable[[Coroutine[Any, Any, object]], Awaitable[object]]
"""Awaits the writes of a plan."""

NEVER_ACCEPTED = frozenset({400, 413, 422})
"""Answers that reject this Event for good: it is dropped."""
MOST_ACTIONS = 128
"""Actions after one observation, without handovers; a cluster of 32 shards needs half of that."""
AT_A_TIME = 16
"""Concurrent writes of one cluster, without handovers: the client has a hundred connections for all clusters."""


def _is_object(observation: Observation, action: Action) -> bool:
    """Return whether an action creates or corrects an object that is maintained; the Services of shards do not count."""
    if not isinstance(action, Create | GenerateSecret | Replace):
        return False
    return action.obj["kind"] != "Service" or manifests.shard_of(action.obj["metadata"]["name"], observation.desired.key.name) is None


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
        self._handovers = Handovers(kube, coreapps, clock=clock, metrics=metrics or Metrics(), tracing=tracing)
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
        ``is_part``: the plan has more actions, so rejections among those are not known to be over.
        ``await_all`` awaits the writes after the handovers, each of which may take its full time-out.
        """
        outcome = Outcome()
        todo = [action for action in actions if not isinstance(action, SetShards | EmitEvent)]
        handovers = [action for action in todo if isinstance(action, Handover)]
        await self._handovers.perform(observation, handovers, memory, outcome)
        memory.unassigned &= is_part
        rest = [action for action in todo if not isinstance(action, Handover)]
        if len(rest) > MOST_ACTIONS:
            rest, outcome.is_outdated = rest[:MOST_ACTIONS], True
        room = asyncio.Semaphore(AT_A_TIME)
        if rest:
            await await_all(all_of(self._tried(observation, action, memory, outcome, room) for action in rest))
        was_said = observation.snapshot.denied is not None
        if outcome.denied or not is_part:
            memory.denial = self._denial(outcome, memory)
        # A report that no longer applies is withdrawn at once.
        outcome.is_outdated |= was_said and memory.denial is None
        return outcome

    def _denial(self, outcome: Outcome, memory: Memory) -> Denial | None:
        since = memory.denial.since if memory.denial is not None else self._clock.now()
        return Denial(outcome.denied[0], since) if outcome.denied else None

    async def _tried(self, observation: Observation, action: Action, memory: Memory, outcome: Outcome, room: asyncio.Semaphore) -> None:
        """Execute one action, and note the result in ``outcome``."""
        try:
            if isinstance(action, AssignRole | GetShards):
                # These go to the cluster's own pods, which may be dead; other actions must not wait for them.
                done = await self._do(observation, action, memory)
            else:
                async with room:
                    with remembering(action, memory, clock=self._clock, generation=observation.desired.generation):
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
                # Through the status, which admission of StatefulSets does not see: an image mutator would make a new template.
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
                    # Before the call: if its answer is lost, the pod may be gone nevertheless.
                    memory.ended[ref.name] = uid
                await self._kube.delete(kind, namespace, ref.name, uid=uid, resource_version=version)
            case Scale(ref=ref, resource_version=version, replicas=replicas):
                body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
                # Through the scale subresource, for the same reason.
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
