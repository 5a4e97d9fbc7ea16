"""The ledger of a whole run: what became of every message that was begun, in both directions.

What the senders know and what the WhatsApp servers logged are put side by side. Each outbound message ends as exactly one of these:

    delivered     its sender got 201, and the servers took it
rejected      its sender gave up and never got 201, and the servers did not take it
unconfirmed   its sender gave up and never got 201, and yet the servers took it: a second attempt would have been a double
    lost          its sender got 201, and the servers do not know it
    open          its sender still tries: at the end of a run there is none

and each inbound message as one of these: arrived at the webhook, waiting at the servers for a webhook that takes it, lost.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from localkube.errors import LocalKubeError
from wabiz_sim.gatewaylog import FRAMES, Audit, Entry, Kind, Totals

Obj = dict[str, Any]

PAGE = 5_000


class LedgerError(LocalKubeError):
    """The sums do not agree: a message was forgotten or counted twice, so no figure of this run is worth anything."""


class Sender(Enum):
    """What the sender of a message knows of it."""

    WAITS = "waits"
    CONFIRMED = "got 201"
    GAVE_UP = "gave up"


@dataclass(slots=True)
class Senders:
    """Every message that was begun, and what its sender knows; nothing is ever taken out."""

    begun: int = 0
    states: dict[str, Sender] = field(default_factory=dict)

    def begin(self, message_id: str) -> None:
        """The first attempt is about to be made."""
        self.begun += 1
        self.states[message_id] = Sender.WAITS

    def confirmed(self, message_id: str) -> None:
        """A Webapp answered 201."""
        self.states[message_id] = Sender.CONFIRMED

    def gave_up(self, message_id: str) -> None:
        """The deadline passed without a 201; there is no other try."""
        self.states[message_id] = Sender.GAVE_UP

    def as_of(self, states: Mapping[str, Sender]) -> Senders:
        """The same messages by what their senders knew earlier; those that were begun since then wait."""
        return Senders(self.begun, dict.fromkeys(self.states, Sender.WAITS) | dict(states))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What became of all messages. Raises LedgerError when made with sums that do not agree."""

    sent: int
    """Messages begun."""
    delivered: int = 0
    rejected: int = 0
    unconfirmed: int = 0
    lost: int = 0
    open: int = 0
    inbound_injected: int = 0
    """Messages that WhatsApp users wrote."""
    inbound_arrived: int = 0
    inbound_again: int = 0
    """Arrivals beyond the first of an id: the webhook is served at least once, not exactly once."""
    inbound_waiting: int = 0
    inbound_lost: int = 0
    """Neither arrived nor waiting at the servers."""
    databases: int = 1
    """How many databases the servers had. A new one knows nothing of what those before it took: that is lost."""
    strangers: int = 0
    """Ids that the servers took and that none of these senders used: others send too, or a message was given a second id."""
    totals: Totals = field(default_factory=Totals)
    """What the servers' own log comes to: repeated, doubled, below_epoch, overlaps and more."""

    def __post_init__(self) -> None:
        ended = self.delivered + self.rejected + self.unconfirmed + self.lost + self.open
        if ended != self.sent:
            msg = f"of {self.sent} messages begun {ended} are accounted for: {self}"
            raise LedgerError(msg)
        came = self.inbound_arrived + self.inbound_waiting + self.inbound_lost
        if came != self.inbound_injected:
            msg = f"of {self.inbound_injected} inbound messages {came} are accounted for: {self}"
            raise LedgerError(msg)

    @property
    def undelivered(self) -> int:
        """Messages that did not end as delivered."""
        return self.sent - self.delivered

    def failures(self) -> list[str]:
        """One sentence for each thing that may not be in the ledger of a run."""
        said = {
            f"{self.lost} messages were lost: confirmed with 201 and unknown to the WhatsApp servers": self.lost,
            f"{self.rejected} messages were given up by their senders and never taken": self.rejected,
            f"{self.unconfirmed} messages were taken, but their senders gave up and never got 201": self.unconfirmed,
            f"{self.open} messages are still open": self.open,
            f"{self.inbound_waiting} inbound messages still wait for a webhook": self.inbound_waiting,
            f"{self.inbound_lost} inbound messages were lost": self.inbound_lost,
            f"{self.totals.doubled} messages were doubled: taken twice under one id": self.totals.doubled,
            f"{self.totals.below_epoch} messages were taken from a holder that had been replaced": self.totals.below_epoch,
            f"{self.totals.overlaps} times two connections of one shard were accepted at once, for {self.totals.longest_overlap:.3f} s "
            "at the longest": self.totals.overlaps,
            f"the WhatsApp servers began {self.databases - 1} times with an empty database, which knows nothing of what was taken "
            "before": self.databases - 1,
        }
        return [sentence for sentence, count in said.items() if count]

    def as_json(self) -> Obj:
        """The ledger for a file."""
        return asdict(self)

    def __str__(self) -> str:
        totals = self.totals
        return (
            f"{self.sent} sent = {self.delivered} delivered + {self.rejected} rejected + "
            f"{self.unconfirmed} taken and not confirmed + {self.lost} lost + {self.open} open; "
            f"{totals.repeated} repeated, {totals.doubled} doubled, {totals.below_epoch} below the highest epoch, "
            f"{totals.overlaps} overlaps; "
            f"inbound {self.inbound_injected} = {self.inbound_arrived} arrived (+ {self.inbound_again} again) + "
            f"{self.inbound_waiting} waiting + {self.inbound_lost} lost"
        )


@dataclass(slots=True)
class Inbound:
    """Every message that was written, or may have been, and what arrived."""

    sure: set[str] = field(default_factory=set)
    """The servers said that they keep it."""
    unsure: set[str] = field(default_factory=set)
    """They did not answer: they may keep it or not."""
    arrived: Counter[str] = field(default_factory=Counter)

    def count(self, waiting: Collection[str]) -> dict[str, int]:
        """The inbound figures of a ledger; ``waiting``: the ids that the servers keep for a webhook."""
        written = self.sure | (self.unsure & (self.arrived.keys() | set(waiting)))
        missing = written - self.arrived.keys()
        waits = missing & set(waiting)
        return {
            "inbound_injected": len(written),
            "inbound_arrived": len(written & self.arrived.keys()),
            "inbound_again": self.arrived.total() - len(self.arrived),
            "inbound_waiting": len(waits),
            "inbound_lost": len(missing - waits),
        }


class GatewayLog:
    """The log of the WhatsApp servers, read as far as is wanted, and what it comes to."""

    def __init__(self, ask: Callable[[str], Awaitable[Obj]]) -> None:
        """``ask`` answers ``frames?after=...`` as ``/control`` does."""
        self.audit = Audit()
        self.databases = 0
        self.seq = 0
        """Of the last entry that was read."""
        self.known: set[str] = set()
        """Ids of the messages that the database of now has as taken."""
        self._ask = ask
        self._database = ""
        self._turn = asyncio.Lock()

    def found(self, database: str) -> bool:
        """Note which database the servers have; True when it is another than before."""
        if database == self._database:
            return False
        self._database, self.seq, self.known = database, 0, set()
        self.databases += 1
        return True

    async def read(self) -> list[Entry]:
        """Read on to the end of the log; return the message frames that are new."""
        new: list[Entry] = []
        async with self._turn:
            while entries := await self._page():
                self.audit.read(entries)
                self.seq = entries[-1].seq
                self.known.update(entry.message for entry in entries if entry.kind == Kind.TAKEN)
                new += [entry for entry in entries if entry.kind in FRAMES]
        return new

    async def _page(self) -> list[Entry]:
        after = self.seq
        answer = await self._ask(f"frames?after={after}&limit={PAGE}")
        changed = self.found(answer["database"]) or self.seq != after
        if changed and after:
            return await self._page()  # the page was not the first of the new database's log
        return [Entry.read(row) for row in answer["frames"]]


def settle(senders: Iterable[Senders], log: GatewayLog, inbound: Mapping[str, int]) -> Ledger:
    """The ledger of all these senders' messages, by the log as far as it was read. Raises LedgerError."""
    ends: Counter[str] = Counter()
    begun, strangers = 0, set(log.known)
    for one in senders:
        begun += one.begun
        strangers -= one.states.keys()
        ends.update(end_of(state, taken=message_id in log.known) for message_id, state in one.states.items())
    return Ledger(sent=begun, **ends, **inbound, databases=max(1, log.databases), strangers=len(strangers), totals=log.audit.totals())


def end_of(state: Sender, *, taken: bool) -> str:
    """The word of the ledger for a message, by what its sender knows and whether the servers took it."""
    if state is Sender.WAITS:
        return "open"
    if state is Sender.CONFIRMED:
        return "delivered" if taken else "lost"
    return "unconfirmed" if taken else "rejected"
