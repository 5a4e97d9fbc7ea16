"""The actions, and the plan that one observation leads to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self, TypeAlias

from .names import Epoch, Obj, Ref
from .reasons import Reason
from .snapshot import Coreapp, Evidence, Operation, Record, Route

# --- actions ---------------------------------------------------------------------------------------------------------


class State(StrEnum):
    """What a rule means to the user."""

    READY = "Ready"
    WORKING = "Working"
    WAITING = "Waiting"
    STUCK = "Stuck"


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Create this object; a name conflict is reported."""

    obj: Obj


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateSecret:
    """Create a Secret with content that the shell generates: ``admin`` (a password) or ``tls`` (a self-signed certificate)."""

    obj: Obj
    recipe: str
    host_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace:
    """Replace the observed object by this one, by its resourceVersion."""

    obj: Obj
    desired: Obj
    """The operator's part of it, as desired."""
    live: Obj
    """The observed object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Delete exactly the observed object."""

    ref: Ref
    uid: str
    resource_version: str

    @classmethod
    def of(cls, pod: Coreapp) -> Self:
        """Return the deletion of exactly this pod, as observed."""
        return cls(ref=Ref("Pod", pod.name), uid=pod.uid, resource_version=pod.resource_version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Set the replicas of the Coreapps' StatefulSet, by the observed resourceVersion (laws#4)."""

    ref: Ref
    uid: str
    resource_version: str
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire:
    """Mark a standby that goes when the StatefulSet shrinks, so that no leader gives it a shard meanwhile (laws#7)."""

    coreapp: Coreapp
    epoch: Epoch
    """n is the resourceVersion of the StatefulSet with which it will shrink."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BumpVersion:
    """Bump the StatefulSet's resourceVersion: a late write that lowers it then has no effect (laws#4, laws#7)."""

    ref: Ref
    resource_version: str
    shards: int
    nonce: str
    """Random letters, or the mark of the Coreapp for which it is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Move a shard: prepare the pod's labels, commit the Service, assign both roles (docs/architecture.md)."""

    route: Route
    to: Coreapp
    epoch: Epoch
    evidence: Evidence
    planned: bool
    shards: int | None
    old: Coreapp | None = None
    failed_at: datetime | None = None
    """Since when the old holder has failed, if known."""
    detected_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """Bump a Service's resourceVersion, so that an uncommitted label of another leader can never be committed (laws#2).

    It notes the label's epoch. If that is above even the new version, no leader can have derived it from a version.
    """

    route: Route
    epoch: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearLabels:
    """Remove dead shard and epoch labels from a pod; tests that they are unchanged since the observation."""

    coreapp: Coreapp


@dataclass(frozen=True, slots=True, kw_only=True)
class Relabel:
    """Restore the committed labels of a holder."""

    coreapp: Coreapp
    route: Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """Restore lost labels of an own object, by the observed resourceVersion."""

    ref: Ref
    resource_version: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignRole:
    """Assign a role to a Coreapp. With ``holder``, another Coreapp serves that shard."""

    coreapp: Coreapp
    shards: int
    shard: int | None = None
    epoch: str | None = None
    holder: Coreapp | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetShards:
    """Log in if needed and ask for the number of shards; the answer arrives later and wakes the loop."""

    quiet: bool = False
    """Nothing waits for the answer: one without a change wakes no loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetShards:
    """Make the call whose intent was noted; the answer arrives later and wakes the loop."""

    operation: Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotate:
    """Set an annotation of the WhatsAppCluster; None removes it."""

    name: str
    value: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmitEvent:
    """Write an Event about the cluster."""

    reason: str
    message: str
    warning: bool = False


Action: TypeAlias = (
    Create
    | GenerateSecret
    | Replace
    | Delete
    | Scale
    | Retire
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
    """A rule that matched: its name, its meaning for the user, and the sentence."""

    rule: Reason
    state: State
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one observation leads to."""

    decision: Decision
    """The rule that won; it decided what is done."""
    moving: Decision | None = None
    """The first matching rule of work in progress, even if another waits for a person; for condition Reconciling."""
    stuck: Decision | None = None
    """The first matching rule by which a person must act; for condition Stalled."""
    is_held_up: bool = False
    """There is something left to do, and nothing moves on until a person has acted."""
    ready: Decision | None = None
    """The first matching rule by which nothing waits; for condition Stalled if no person must act."""
    actions: tuple[Action, ...] = ()
    record: Record = field(default_factory=Record)
    """The record after this observation. It has no planned call yet: the intent is noted together with it."""
    next_window_at: datetime | None = None
    """When the window opens for which Set Shards waits."""
    is_settled: bool = False
    """The client has the desired shards, and nothing is in progress."""
    is_reportable: bool = True
    """Enough is known for a report; a new leader has not asked the client yet."""
    holds: frozenset[str] = frozenset()
    """Facts whose age the next observation needs."""
    wake_after: timedelta | None = None
