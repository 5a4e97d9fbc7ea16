"""What may be done, and what one observation leads to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from .names import Epoch, Obj, Ref
from .snapshot import Coreapp, Evidence, Operation, Record, Route

# --- what is to be done ----------------------------------------------------------------------------------------------


class State(StrEnum):
    """What a row means to the user."""

    READY = "Ready"
    WORKING = "Working"
    WAITING = "Waiting"
    STUCK = "Stuck"


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Create this object; if the name is taken, say so."""

    obj: Obj


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateSecret:
    """Create a Secret whose content the shell draws: ``admin`` (a password) or ``tls`` (a self-signed certificate)."""

    obj: Obj
    recipe: str
    host_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace:
    """Put this object in the place of the one that was judged, by its resourceVersion."""

    obj: Obj
    desired: Obj
    """What of it is the operator's, as it should be."""
    live: Obj
    """The object that was judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Delete exactly the object that was judged."""

    ref: Ref
    uid: str
    resource_version: str

    @classmethod
    def of(cls, pod: Coreapp) -> Self:
        """Return the end of just this pod, as it was looked at."""
        return cls(ref=Ref("Pod", pod.name), uid=pod.uid, resource_version=pod.resource_version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Set the replicas of the Coreapps' StatefulSet, by the resourceVersion that was judged (laws#4)."""

    ref: Ref
    uid: str
    resource_version: str
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BumpVersion:
    """Move the StatefulSet's resourceVersion before an intent is noted: a lowering that is still on its way is void then (laws#4)."""

    ref: Ref
    resource_version: str
    shards: int
    nonce: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Move a shard: prepare the pod's labels, then commit the Service, then tell both sides (docs/architecture.md)."""

    route: Route
    to: Coreapp
    epoch: Epoch
    evidence: Evidence
    planned: bool
    shards: int | None
    old: Coreapp | None = None
    failed_at: datetime | None = None
    """Since when the old holder fails, where known."""
    detected_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """Move a Service's resourceVersion, so that an uncommitted label of somebody else is dead for ever (laws#2)."""

    route: Route
    nonce: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearLabels:
    """Take dead shard and epoch labels off a pod, testing that they are still those that were judged."""

    coreapp: Coreapp


@dataclass(frozen=True, slots=True, kw_only=True)
class Relabel:
    """Give a holder whose labels somebody removed the committed ones again."""

    coreapp: Coreapp
    route: Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """Give an object of ours the labels again that it lost, by the resourceVersion that was judged."""

    ref: Ref
    resource_version: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignRole:
    """Tell a Coreapp its role. With ``holder`` somebody else serves that shard."""

    coreapp: Coreapp
    shards: int
    shard: int | None = None
    epoch: str | None = None
    holder: Coreapp | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetShards:
    """Log in if needed and ask for the number of shards; the answer arrives later and wakes the loop."""

    quiet: bool = False
    """Nothing waits for the answer: one that says what is known wakes nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetShards:
    """Make the call whose intent was noted; the answer arrives later and wakes the loop."""

    operation: Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotate:
    """Write an annotation of the WhatsAppCluster anew; None takes it off."""

    name: str
    value: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmitEvent:
    """Write an Event about the cluster."""

    reason: str
    message: str
    warning: bool = False


Action = (
    Create
    | GenerateSecret
    | Replace
    | Delete
    | Scale
    | BumpVersion
    | Handover
    | Touch
    | ClearLabels
    | Relabel
    | Label
    | AssignRole
    | GetShards
    | SetShards
    | Annotate
    | EmitEvent
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A row that matched: its name, what it means to the user, and the sentence."""

    rule: str
    state: State
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one look led to."""

    decision: Decision
    """The row that won; it decided what is done."""
    moving: Decision | None = None
    """The first row that matched and means that the operator still moves, whatever waits for a person; for condition Reconciling."""
    stuck: Decision | None = None
    """The first row that matched and means that a person must act; for condition Stalled."""
    is_held_up: bool = False
    """There is something left to do, and nothing moves on until a person has acted."""
    ready: Decision | None = None
    """The first row that matched and means that nothing waits; what Stalled says where no person must act."""
    actions: tuple[Action, ...] = ()
    record: Record = field(default_factory=Record)
    """What is to be remembered from here on, as it was judged. A call that is only planned is not in it: its intent is noted with it."""
    next_window_at: datetime | None = None
    """When the window opens that a held Set Shards waits for."""
    is_settled: bool = False
    """The client has the wanted shards, and nothing is under way."""
    is_reportable: bool = True
    """Enough was seen to report; a process that has just begun to lead has not asked the client yet."""
    holds: frozenset[str] = frozenset()
    """Facts whose age the next look wants to know."""
    wake_after: timedelta | None = None
