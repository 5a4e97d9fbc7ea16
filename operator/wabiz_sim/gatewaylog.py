"""The log of the gateways of the WhatsApp servers, and its audit. Pure: entries in, figures out.

The log has one entry for every connection that was accepted, ended or rejected by the fence, and for every message frame of a Coreapp,
accepted or not. No field has to be unique, so that the log can also record what must never happen. The audit reads only the log: it shares
no code with the decisions on which connections and messages are accepted.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import count
from math import inf
from typing import Any


class Kind(StrEnum):
    """The kinds of entries."""

    OPENED = "opened"
    """A connection was accepted."""
    CLOSED = "closed"
    """From here on no frame of the connection may be accepted; the note says why."""
    FENCED = "fenced"
    """The fence rejected a connection; the note is the highest epoch."""
    TAKEN = "taken"
    """A message was accepted."""
    REPEATED = "repeated"
    """A message was dropped because its id had been accepted before; it was acknowledged again."""
    STALE = "stale"
    """A message was dropped because its connection had been closed."""
    DROPPED = "dropped"
    """A message was dropped by an injected fault."""
    STARTED = "started"
    """The servers started, or read everything again: no connection is left."""
    RESET = "reset"
    """The fence was emptied: epochs start again."""


FRAMES = (Kind.TAKEN, Kind.REPEATED, Kind.STALE, Kind.DROPPED)
"""The kinds that are a message frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of the log."""

    kind: str
    at: float
    """Seconds since 1970, by the clock of the servers."""
    shard: int = -1
    epoch: str = ""
    uid: str = ""
    """Of the Coreapp."""
    connection: str = ""
    message: str = ""
    """Its id."""
    note: str = ""
    """For a message, its recipient."""
    seq: int = 0
    """Grows from entry to entry; assigned by the database."""

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> "Entry":
        """Read an entry as ``/control/frames`` shows it. Raises TypeError for an unknown field, ValueError for one that is not a number."""
        return cls(**{**row, "seq": int(row["seq"]), "at": float(row["at"]), "shard": int(row["shard"])})

    def shown(self) -> dict[str, Any]:
        """Return it as ``/control/frames`` shows it."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The figures of the log. They never decrease, so the difference of two shows what happened between them."""

    delivered: int = 0
    """Different ids that were accepted."""
    repeated: int = 0
    """Frames correctly dropped because their id had been accepted before."""
    doubled: int = 0
    """Different ids that were accepted more than once."""
    stale: int = 0
    """Frames rejected because their connection had been replaced or closed."""
    dropped: int = 0
    """Frames dropped by an injected fault."""
    fenced: int = 0
    """Connections rejected by the fence."""
    replaced: int = 0
    """Connections ended because one with a higher epoch (or of the same Coreapp) replaced them."""
    below_epoch: int = 0
    """Frames accepted from a connection with a lower epoch than the highest accepted one of its shard."""
    overlaps: int = 0
    """Pairs of connections of one shard whose frames were accepted during the same time."""
    longest_overlap: float = 0.0
    """The longest of these times, seconds."""

    @property
    def two_holders(self) -> int:
        """How often two Coreapps could serve one shard at the same time; must be 0."""
        return self.below_epoch + self.overlaps

    def since(self, earlier: "Totals") -> "Totals":
        """Return what was added since an earlier audit of the same log; the longest overlap is 0 if none was added."""
        added = {name: value - getattr(earlier, name) for name, value in asdict(self).items()}
        return Totals(**{**added, "longest_overlap": self.longest_overlap if added["overlaps"] or added["longest_overlap"] else 0.0})


@dataclass(eq=False, slots=True)
class Span:
    """The span in which frames of one connection could be accepted: the place in the log and the time of both ends."""

    connection: str
    shard: int
    epoch: str
    uid: str
    opened: int
    opened_at: float
    closed: int | None = None
    closed_at: float | None = None
    why: str = ""
    frames: int = 0
    """Messages accepted from it."""

    def end(self, place: int, at: float, why: str) -> None:
        """Note its end, unless it is known."""
        if self.closed is None:
            self.closed, self.closed_at, self.why = place, at, why

    def overlaps(self, other: "Span") -> bool:
        """Whether frames of both were accepted at one place of the log."""
        ends = [span.closed for span in (self, other) if span.closed is not None]
        return not ends or max(self.opened, other.opened) < min(ends)

    def shown(self) -> dict[str, Any]:
        """Return it as ``/control/connections`` shows it."""
        names = ("shard", "epoch", "uid", "connection", "opened_at", "closed_at", "why", "frames")
        return {name: getattr(self, name) for name in names}


@dataclass(eq=False, slots=True)
class Audit:
    """Reads the log entry by entry, in order, and counts violations."""

    ids_kept: float = inf
    """How many of the last accepted ids are remembered at least: an endless audit must not fill the memory."""
    spans_kept: float = inf
    """How many of the last connections are remembered."""
    taken: set[str] = field(default_factory=set)
    """The ids of the last accepted messages."""
    older: set[str] = field(default_factory=set)
    """Those before them."""
    shards: defaultdict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Per shard: how many entries of each kind, and ``replaced`` and ``below_epoch``."""
    spans: list[Span] = field(default_factory=list)
    """The last accepted connections, and all that are open."""
    overlaps: list[tuple[Span, Span]] = field(default_factory=list)
    """Pairs of connections of one shard whose frames were accepted during the same time."""
    _delivered: int = 0
    _doubled: set[str] = field(default_factory=set)
    _highest: dict[int, int] = field(default_factory=dict)
    _of_shard: defaultdict[int, dict[str, Span]] = field(default_factory=lambda: defaultdict(dict))
    _places: "count[int]" = field(default_factory=count)
    _last: float = 0.0

    def read(self, entries: Iterable[Entry]) -> None:
        """Read the next entries of the log."""
        for entry in entries:
            self._read(entry, next(self._places))

    def totals(self, now: float | None = None) -> Totals:
        """Return the sums so far. An overlap that has not ended is counted until ``now`` (default: the last entry)."""
        sums: Counter[str] = sum(self.shards.values(), Counter())
        until = self._last if now is None else now
        return Totals(
            delivered=self._delivered,
            repeated=sums[Kind.REPEATED],
            doubled=len(self._doubled),
            stale=sums[Kind.STALE],
            dropped=sums[Kind.DROPPED],
            fenced=sums[Kind.FENCED],
            replaced=sums["replaced"],
            below_epoch=sums["below_epoch"],
            overlaps=len(self.overlaps),
            longest_overlap=max((_seconds(*pair, until) for pair in self.overlaps), default=0.0),
        )

    def _read(self, entry: Entry, place: int) -> None:
        self._last = max(self._last, entry.at)
        mine, spans = self.shards[entry.shard], self._of_shard[entry.shard]
        mine[entry.kind] += 1
        if entry.kind == Kind.OPENED:
            self._opened(Span(entry.connection, entry.shard, entry.epoch, entry.uid, place, entry.at))
        elif entry.kind == Kind.CLOSED:
            mine["replaced"] += entry.note == "replaced"
            if (span := spans.get(entry.connection)) is not None:
                span.end(place, entry.at, entry.note)
        elif entry.kind == Kind.TAKEN:
            self._accepted(entry, place)
        elif entry.kind == Kind.STARTED:
            for span in self.spans:
                span.end(place, entry.at, entry.kind)
        elif entry.kind == Kind.RESET:
            self._highest.clear()

    def _opened(self, span: Span) -> None:
        self._highest[span.shard] = max(self._highest.get(span.shard, 0), _number(span.epoch))
        self.overlaps += [(other, span) for other in self._of_shard[span.shard].values() if other.closed is None]
        self._of_shard[span.shard][span.connection] = span
        self.spans.append(span)
        if len(self.spans) > 2 * self.spans_kept:
            self._forget_spans(int(self.spans_kept))

    def _forget_spans(self, kept: int) -> None:
        self.spans = [one for one in self.spans[:-kept] if one.closed is None] + self.spans[-kept:]
        self._of_shard.clear()
        for span in self.spans:
            self._of_shard[span.shard][span.connection] = span

    def _accepted(self, entry: Entry, place: int) -> None:
        if entry.message in self.taken or entry.message in self.older:
            self._doubled.add(entry.message)
        else:
            self._delivered += 1
        self.taken.add(entry.message)
        if len(self.taken) > self.ids_kept:
            self.older, self.taken = self.taken, set()
        self.shards[entry.shard]["below_epoch"] += _number(entry.epoch) < self._highest.get(entry.shard, 0)
        span = self._of_shard[entry.shard].get(entry.connection)
        if span is None:
            return
        span.frames += 1
        if span.closed is not None:  # its frame was accepted all the same: move its end here
            span.closed, span.closed_at = place, entry.at
            known = {frozenset((id(one), id(other))) for one, other in self.overlaps}
            others = (other for other in self._of_shard[entry.shard].values() if other is not span)
            self.overlaps += [(span, other) for other in others if span.overlaps(other) and frozenset((id(span), id(other))) not in known]


def _number(epoch: str) -> int:
    """Return the number of an epoch: the part before its first hyphen."""
    return int(epoch.split("-", 1)[0])


def _seconds(one: Span, other: Span, until: float) -> float:
    ends = (until if span.closed_at is None else span.closed_at for span in (one, other))
    return max(0.0, min(ends) - max(one.opened_at, other.opened_at))
