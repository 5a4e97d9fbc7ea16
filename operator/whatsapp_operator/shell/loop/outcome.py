"""What became of the actions of a plan."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from whatsapp_operator.core.actions import Action, Create, Delete, EmitEvent, GenerateSecret, Handover, Replace
from whatsapp_operator.core.names import Ref
from whatsapp_operator.core.snapshot import RejectedWrite
from whatsapp_operator.shell.clock import Clock
from whatsapp_operator.shell.kube import kinds
from whatsapp_operator.shell.kube.errors import AlreadyExists, Conflict, KubeError, NotFound, Rejected, TestFailed

from .cluster import Memory

T = TypeVar("T")

OUTDATED = (AlreadyExists, Conflict, NotFound, TestFailed)
"""Answers that mean that the cluster changed since the observation. Nothing is wrong; the next observation decides."""


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
    """Failures because the API server rejected a write, except creations and corrections of objects, which are known in another way."""

    def fail(self, error: KubeError, *, is_object: bool = False) -> None:
        """Note why an action failed. ``is_object``: it creates or corrects an object."""
        self.failed.append(str(error))
        if isinstance(error, Rejected) and not is_object:
            self.denied.append(str(error))


@contextmanager
def remembering(action: Action, memory: Memory, *, clock: Clock, generation: int) -> Iterator[None]:
    """Remember whether the API server rejects the object that an action writes. A missing or outdated answer changes nothing."""
    ref = _ref_of(action)
    try:
        yield
    except Rejected as answer:
        if ref is not None:
            memory.rejected[ref] = RejectedWrite(str(answer), clock.now(), generation)
        raise
    if ref is not None:
        memory.rejected.pop(ref, None)


def _ref_of(action: Action) -> Ref | None:
    """Return the object for which a rejection is remembered; None: this action writes none."""
    match action:
        case Create() | GenerateSecret() | Replace():
            return Ref(action.obj["kind"], action.obj["metadata"]["name"])
        case Delete():
            return action.ref
        case Handover():
            return Ref(kinds.POD.kind, action.to.name)
    return None


async def all_of(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return the results of all calls. If one fails with an internal error, the others are ended: nothing continues without its loop."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call) for call in calls]
    return [task.result() for task in tasks]
