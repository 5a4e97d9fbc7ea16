"""A fault as one row of a table, and one case of it: on which clusters, which holders were struck, and when."""

from __future__ import annotations

import time
from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

from localkube.errors import LocalKubeError
from localkube.hollow.pods import RESTART_S
from localkube.scenarios.cluster import Holder
from localkube.scenarios.environment import Environment

G = TypeVar("G", bound=Environment)

BURST_S = 1.5
RESUMES_S = RESTART_S / 2
"""If the old holder's pod sends something later than this after the end of its container, it comes from the restarted container, which
begins after RESTART_S at the earliest. If the servers log something earlier, it was in progress when the container ended."""


@dataclass(slots=True)
class Victim:
    """A shard with a holder that was struck, and the clock that measures the time to its next message.

    The clock starts just before the call that injects the fault, so that a time is an upper bound: the call may return late, but the fault
    cannot be earlier. An answer between the call and its return proves nothing, because the old holder may have sent it. So the clock stops
    only at a message of a new holder that was seen to be committed, never at one of the old holder.
    """

    cluster: str
    shard: int
    holder: Holder
    begun: float  # `time.monotonic()`
    begun_wall: float  # `time.time()`
    possible: float | None = None  # `time.monotonic()` from when on a handover can be made, where the fault itself forbids it for a while
    returned: float | None = None  # `time.monotonic()` when the strike was over: what was killed is dead. None until then
    returned_wall: float | None = None


@dataclass
class Case(Generic[G]):
    """What an action gets, and where it records its results."""

    environment: G
    clusters: tuple[str, ...]
    victims: list[Victim] = field(default_factory=list)
    struck: set[str] = field(default_factory=set)
    """uids of all pods that something was done to: a move of a shard off one of these is not a wrong failover."""
    asked: set[tuple[str, int]] = field(default_factory=set)
    """Shards (cluster, number) for which a switchover was requested, in addition to those of the victims."""
    nodes: list[str] = field(default_factory=list)  # lost nodes, to be brought back
    begun: float = field(default_factory=time.monotonic)
    notes: list[str] = field(default_factory=list)  # what a reader of the figures should know
    troubles: list[str] = field(default_factory=list)  # what it found out that must not be
    measured: list[float] = field(default_factory=list)
    """Seconds that the action measured itself, where it is not the next message that counts."""
    details: dict[str, float] = field(default_factory=dict)  # more that it measured, for the file
    effects: Counter[str] = field(default_factory=Counter)  # what the fault was seen to do, by name, counted where it took effect
    exits: AsyncExitStack = field(default_factory=AsyncExitStack)
    """Contexts that last from the strike until the fault is undone; closed after the fault's own `undo`."""

    def holder(self, cluster: str, shard: int) -> Holder:
        """The holder of a shard now. LocalKubeError if there is none."""
        found = self.environment.holder(cluster, shard)
        if found is None:
            raise LocalKubeError(f"shard {shard} of {cluster} has no holder, so none can be struck")
        return found

    def strike(self, cluster: str, shard: int, holder: Holder | None = None) -> Holder:
        """Record that the holder of a shard is struck now, and start sending often to that shard. LocalKubeError if there is none."""
        holder = holder or self.holder(cluster, shard)
        self.struck.add(holder.uid)
        self.environment.streams[cluster].burst(shard, BURST_S)
        self.victims.append(Victim(cluster, shard, holder, time.monotonic(), time.time()))
        return holder

    def make_possible(self) -> None:
        """From now on a handover is possible; until now the fault itself prevented it. Times are also measured from here."""
        for victim in self.victims:
            victim.possible = time.monotonic()
            self.environment.streams[victim.cluster].burst(victim.shard, BURST_S)

    def is_over(self) -> None:
        """Note that the strike has returned."""
        for victim in self.victims:
            if victim.returned is None:
                victim.returned, victim.returned_wall = time.monotonic(), time.time()

    def restart_clocks(self) -> None:
        """Restart the clocks: the fault begins only now, and what happened before says nothing about it."""
        for victim in self.victims:
            victim.begun, victim.begun_wall = time.monotonic(), time.time()
            victim.returned = victim.returned_wall = None
            self.environment.streams[victim.cluster].burst(victim.shard, BURST_S)


Action = Callable[[Case[G]], Awaitable[None]]


async def nothing(_: Case[Any]) -> None:
    """For faults that need no preparation or undoing."""


class Series(StrEnum):
    """How often a fault is played on kind: each series has a number of its own on the command line."""

    FAULT = "fault"
    NODE = "node"
    RELEASE = "release"


@dataclass(frozen=True)
class Fault(Generic[G]):
    """One row of a table of faults. For all of them: no message lost, none duplicated, no law broken."""

    name: str
    what: str  # for a reader: what happens, and from when to when is measured
    strike: Action[G]
    _: KW_ONLY
    prepare: Action[G] = nothing
    undo: Action[G] = nothing  # what undoes it before `Case.exits` are closed
    everybody: bool = False  # it meets all clusters at once, so it has a round of its own
    failover: bool = True  # whether the shards that were struck must be handed over; else they must not
    evidence: frozenset[str] = frozenset()  # words that may stand in ``status.recentHandovers`` for it
    goal: float | None = None  # p95 in seconds that must not be exceeded; None: no promise is made
    resumes: bool = False  # the old holder may be back before another took over, and then goes on
    watch: float = 0.0  # so many seconds are observed when no shard may be handed over, or after the undoing
    allowed: float = 30.0  # seconds within which the handover must have come
    moves: frozenset[str] = frozenset()
    """Planned moves that the scenario itself causes, off holders that were not struck: names of `judge.CAUSES`."""
    effects: tuple[str, ...] = ()  # counts of which none may be zero: a fault that did nothing proves nothing
    pods_stay: bool = False
    """No healthy Coreapp may be deleted: of those that existed before the fault, only the struck ones may be gone afterwards."""
    gap: bool = False  # measured is the longest time without a message of any shard, instead of the time to the next one
    series: Series = Series.FAULT
    silent: bool = False  # no message may be rejected, not even one of the shard that moves
    restarts: bool = False  # all shards are restarted by the client itself, so rejections on all of them are its own
    after: str = ""  # played in turn with the fault of this name, for one undoes the other
    at_once: bool = False  # the operator decides without waiting for a probe or a lease


def chosen(faults: Sequence[Fault[G]], names: str) -> tuple[Fault[G], ...]:
    """The faults of these names, by comma, all if there are none, in the table's order. ArgumentTypeError when one is not in it."""
    known, wanted = [fault.name for fault in faults], {name for name in names.split(",") if name}
    if unknown := sorted(wanted - set(known)):
        raise ArgumentTypeError(f"there is no fault {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(fault for fault in faults if not wanted or fault.name in wanted)
