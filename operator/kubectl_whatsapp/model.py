"""What is shown of one cluster, as frozen values. ``-o json`` is made from them, so fields may be added, but never renamed or removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"

    @property
    def exit_code(self) -> int:
        """The exit code of commands.

        0: all is well; 1: a person should act; 2: messages are not delivered, or the next failure would move no shard; 3: not known.
        """
        return {"ok": 0, "warning": 1, "critical": 2, "unknown": 3}[self.value]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer in one sentence."""

    level: Level
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One shard and its holder."""

    number: int
    served: bool | None
    """None: not known."""
    holder: str | None = None
    node: str | None = None
    epoch: str | None = None
    since: datetime | None = None
    why: str = ""
    """Why it is not served, or why that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standby:
    """A Coreapp that holds no shard."""

    pod: str
    node: str | None
    eligible: bool
    why: str = ""
    """Why it could not take a shard; or, if it could, why it is the last choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """The replica of the operator that holds the Lease."""

    holder: str
    renewed: datetime | None
    alive: bool
    replicas_ready: int | None = None
    """Ready pods of the operator; None: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A change of the number of shards or Coreapps: its step, and what comes next."""

    step: str
    """The operator's reason for it, such as ``Restarting``."""
    number: int
    """Of the step, from 1."""
    of: int
    shards_before: int | None = None
    shards_after: int | None = None
    answer: str = ""
    """What is known of the last call of Set Shards."""
    attempts: int = 0
    started: datetime | None = None
    deadline: datetime | None = None
    """Until then, the restart does not count as a failure."""
    comes_next: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """A shard that moved, and how long each phase took, in milliseconds."""

    at: datetime | None
    shard: int
    kind: str
    from_: str | None
    to: str
    evidence: str
    detect_milliseconds: int | None = None
    commit_milliseconds: int | None = None
    serve_milliseconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A condition as the operator last wrote it."""

    type: str
    status: str
    reason: str
    message: str
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything that is shown of one cluster."""

    namespace: str
    name: str
    at: datetime
    """By the API server's clock."""
    verdict: Verdict
    shards: tuple[Shard, ...] = ()
    standbys: tuple[Standby, ...] = ()
    spec_shards: int | None = None
    spec_spares: int | None = None
    reason: str = ""
    """The operator's reason and message, as it last wrote them."""
    message: str = ""
    conditions: tuple[Condition, ...] = ()
    operation: Operation | None = None
    handovers: tuple[Handover, ...] = ()
    leader: Leader | None = None
    certificate_expires: datetime | None = None
    inaction: tuple[str, ...] = ()
    """What the operator deliberately does not do now, and why."""
    next_steps: tuple[str, ...] = ()
    """Commands."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """What could not be read, and why."""
    seconds: float = 0.0
    """How long reading took."""
