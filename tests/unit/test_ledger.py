"""The ledger: every message ends as exactly one word, the sums are checked, and what must not be there is said."""

import asyncio
from collections import Counter
from typing import Any, Literal

import pytest

from outside.ledger import GatewayLog, Inbound, Ledger, LedgerError, Sender, Senders, end_of, settle
from outside.traffic import Traffic
from wabiz_sim.gatewaylog import Entry, Kind, Totals

Obj = dict[str, Any]


class Servers:
    """Servers with a log; `replace` empties their database."""

    def __init__(self, *taken: str) -> None:
        self.database = 1
        self.rows = [frame(name) for name in taken]

    def replace(self, *taken: str) -> None:
        self.database += 1
        self.rows = [frame(name) for name in taken]

    async def ask(self, path: str) -> Obj:
        after = int(path.split("after=")[1].split("&", maxsplit=1)[0])
        rows = [{**row.shown(), "seq": seq} for seq, row in enumerate(self.rows, 1)]
        return {"database": str(self.database), "frames": [row for row in rows if row["seq"] > after]}


def frame(name: str, kind: Kind = Kind.TAKEN) -> Entry:
    return Entry(kind=kind, at=1.0, shard=0, epoch="5-a", uid="u", connection="c", message=name)


async def ledger(senders: Senders, servers: Servers, inbound: Inbound | None = None, waiting: tuple[str, ...] = ()) -> Ledger:
    log = GatewayLog(servers.ask)
    await log.read()
    return settle([senders], log, (inbound or Inbound()).count(waiting))


def sent(**states: Sender) -> Senders:
    made = Senders()
    for name, state in states.items():
        made.begin(name)
        if state is Sender.CONFIRMED:
            made.confirmed(name)
        elif state is Sender.GAVE_UP:
            made.gave_up(name)
    return made


@pytest.mark.parametrize(
    ("state", "taken", "word"),
    [
        (Sender.CONFIRMED, True, "delivered"),
        (Sender.CONFIRMED, False, "lost"),
        (Sender.GAVE_UP, True, "unconfirmed"),
        (Sender.GAVE_UP, False, "rejected"),
        (Sender.WAITS, True, "open"),
        (Sender.WAITS, False, "open"),
    ],
)
async def test_every_message_ends_as_one_word(state: Sender, taken: bool, word: str) -> None:
    assert end_of(state, taken=taken) == word
    found = await ledger(sent(m=state), Servers(*["m"] * taken))

    assert {name: value for name, value in found.as_json().items() if name in ENDS and value} == {word: 1}
    assert bool(found.failures()) == (word != "delivered"), found.failures()


ENDS = ("delivered", "lost", "unconfirmed", "rejected", "open")


async def test_a_message_that_was_forgotten_is_an_error() -> None:
    senders = sent(kept=Sender.CONFIRMED, forgotten=Sender.GAVE_UP)
    del senders.states["forgotten"]

    with pytest.raises(LedgerError, match="of 2 messages begun 1 are accounted for"):
        await ledger(senders, Servers("kept"))


async def test_a_message_that_was_taken_under_another_id_is_a_stranger() -> None:
    found = await ledger(sent(m=Sender.CONFIRMED), Servers("m", "the same under an id of its Webapp"))

    assert (found.delivered, found.strangers) == (1, 1)


async def test_two_messages_of_one_id_are_an_error() -> None:
    senders = sent(m=Sender.CONFIRMED)
    senders.begin("m")

    with pytest.raises(LedgerError, match="of 2 messages begun 1"):
        await ledger(senders, Servers("m"))


@pytest.mark.parametrize(
    ("arrived", "waiting", "figures"),
    [
        ({"a": 1, "b": 1}, (), (2, 2, 0, 0, 0)),
        ({"a": 3, "b": 1}, (), (2, 2, 2, 0, 0)),
        ({"a": 1}, ("b",), (2, 1, 0, 1, 0)),
        ({"a": 1}, (), (2, 1, 0, 0, 1)),
        ({"a": 1, "b": 1}, ("b",), (2, 2, 0, 0, 0)),  # it arrived, only the servers do not know it yet
        ({"a": 1, "b": 1, "maybe": 1}, (), (3, 3, 0, 0, 0)),  # the servers kept it, though they did not say so
        ({"a": 1, "b": 1}, ("maybe",), (3, 2, 0, 1, 0)),
    ],
)
async def test_every_inbound_message_arrives_waits_or_is_lost(arrived: Obj, waiting: tuple[str, ...], figures: tuple[int, ...]) -> None:
    found = await ledger(Senders(), Servers(), Inbound(sure={"a", "b"}, unsure={"a", "b", "maybe"}, arrived=Counter(arrived)), waiting)

    names = ("inbound_injected", "inbound_arrived", "inbound_again", "inbound_waiting", "inbound_lost")
    assert tuple(getattr(found, name) for name in names) == figures
    assert bool(found.failures()) == bool(figures[3] or figures[4])


def test_inbound_sums_that_do_not_agree_are_an_error() -> None:
    with pytest.raises(LedgerError, match="of 3 inbound messages 2"):
        Ledger(sent=0, inbound_injected=3, inbound_arrived=1, inbound_lost=1)


async def test_what_a_new_database_does_not_know_is_lost_and_said() -> None:
    servers = Servers("before")
    log = GatewayLog(servers.ask)
    await log.read()
    servers.replace("after", "also after")
    await log.read()

    found = settle([sent(before=Sender.CONFIRMED, after=Sender.CONFIRMED)], log, {})

    assert (found.delivered, found.lost, found.databases) == (1, 1, 2)
    assert [sentence.split(":")[0] for sentence in found.failures()] == [
        "1 messages were lost",
        "the WhatsApp servers began 1 times with an empty database, which knows nothing of what was taken before",
    ]
    assert log.seq == 2, "the new log was read from its beginning"


async def test_a_log_that_is_read_in_pieces_comes_to_the_same() -> None:
    servers = Servers("a", "b")
    log = GatewayLog(servers.ask)
    assert [entry.message for entry in await log.read()] == ["a", "b"]
    servers.rows += [frame("a"), frame("b", Kind.REPEATED), Entry(kind=Kind.OPENED, at=2.0, shard=0, epoch="6-b", uid="v", connection="d")]
    assert [entry.message for entry in await log.read()] == ["a", "b"]
    assert await log.read() == []

    assert log.audit.totals() == Totals(delivered=2, doubled=1, repeated=1)


@pytest.mark.parametrize(
    ("totals", "said"),
    [
        (Totals(doubled=2), "2 messages were doubled: taken twice under one id"),
        (Totals(below_epoch=1), "1 messages were taken from a holder that had been replaced"),
        (Totals(overlaps=1, longest_overlap=0.5), "1 times two connections of one shard were accepted at once, for 0.500 s at the longest"),
    ],
)
def test_what_the_servers_log_may_not_hold_is_said(totals: Totals, said: str) -> None:
    assert Ledger(sent=0, totals=totals).failures() == [said]
    assert Ledger(sent=0, totals=Totals(delivered=5, repeated=3, stale=2, fenced=4, replaced=1)).failures() == []


class GoesOn(Traffic):
    """Traffic that goes on while its ledger is made, after the servers' log was read."""

    def __init__(self, servers: Servers, **states: Sender) -> None:
        self.senders, self.log, self._inbound = sent(**states), GatewayLog(servers.ask), Inbound()
        self._servers = servers

    async def _control(self, method: str, path: str, **body: Any) -> Obj:
        for name in ("open", "new"):
            if name not in self.senders.states:
                self.senders.begin(name)
            if name not in {row.message for row in self._servers.rows}:
                self._servers.rows.append(frame(name))
            self.senders.confirmed(name)
        waiting = sorted(self._inbound.sure)
        self._inbound.unsure.add("written")
        self._inbound.sure.add("written")
        return {"waiting": waiting}


async def test_what_is_confirmed_while_the_ledger_of_a_run_that_goes_on_is_made_is_not_lost() -> None:
    traffic = GoesOn(Servers("before"), before=Sender.CONFIRMED, open=Sender.WAITS, never=Sender.CONFIRMED)

    found, later = await traffic.ledger(), await traffic.ledger()

    assert (found.sent, found.delivered, found.lost, found.open, found.strangers) == (4, 1, 1, 2, 0)
    assert (later.sent, later.delivered, later.lost, later.open, later.strangers) == (4, 3, 1, 0, 0)
    assert (found.inbound_injected, found.inbound_lost) == (0, 0)
    assert (later.inbound_injected, later.inbound_waiting, later.inbound_lost) == (1, 1, 0)


async def test_a_sender_that_is_stopped_just_as_its_pause_ends_sends_nothing_more() -> None:
    """Else its message would begin after the ledger had waited for all of them, and would be open forever."""

    class SetAtTheEnd(asyncio.Event):
        async def wait(self) -> Literal[True]:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.set()
            return True

    sender = object.__new__(Traffic)
    sender._stopped = SetAtTheEnd()

    assert await sender._stopped_within(0.01)
