"""The log of the gateways counts what must never happen: each fault is made on purpose here and must be counted."""

from collections.abc import Sequence
from typing import Any

import aiohttp
import pytest

from wabiz_sim.exchange import Connection, Exchange
from wabiz_sim.gateway import REPLACED
from wabiz_sim.gatewaylog import Audit, Entry, Kind, Totals
from wabiz_sim.postgres import PostgresStore
from wabiz_sim.store import SqliteStore, Store
from wabiz_sim.upstream import Upstream
from waiting import until

from .conftest import OpenStore
from .world import World, frame

LOSING_UNIQUENESS = """
    ALTER TABLE message RENAME TO former;
    CREATE TABLE message (seq INTEGER PRIMARY KEY, id TEXT, shard INTEGER, recipient TEXT, at REAL, by TEXT);
    DROP TABLE former;
"""


# ---------------------------------------------------------------- the store


async def _lose_uniqueness(store: Store) -> None:
    if isinstance(store, SqliteStore):
        store._db.executescript(LOSING_UNIQUENESS)
    else:
        assert isinstance(store, PostgresStore)
        await store._change("ALTER TABLE message DROP CONSTRAINT message_id_key")


async def _audited(store: Store) -> Totals:
    audit = Audit()
    audit.read(await store.logged(0, 1000))
    return audit.totals()


async def test_a_repeat_that_is_dropped_is_repeated_and_not_doubled(open_store: OpenStore) -> None:
    store = await open_store()

    assert [await store.accept(frame(name)) for name in ("m1", "m2", "m1")] == [True, True, False]

    assert await _audited(store) == Totals(delivered=2, repeated=1)


async def test_an_id_that_is_taken_twice_is_doubled(open_store: OpenStore) -> None:
    store = await open_store()
    await _lose_uniqueness(store)

    assert [await store.accept(frame(name)) for name in ("m1", "m2", "m1")] == [True, True, True]

    assert await _audited(store) == Totals(delivered=2, doubled=1)


async def test_the_log_is_kept_in_order_and_read_in_pages(open_store: OpenStore) -> None:
    store = await open_store()
    entries = [Entry(kind=Kind.OPENED, at=float(n), shard=n % 3, epoch=f"{n}-a", uid="u", connection=f"c{n}", note="x") for n in range(7)]
    await store.log(entries)
    await store.accept(frame("m1", 2, "v", "9-b", "c9"))

    again = await open_store()
    first = await again.logged(0, 5)
    rest = await again.logged(first[-1].seq, 5)
    shown = [entry.shown() for entry in (*first, *rest)]
    assert [(row["kind"], row["connection"]) for row in shown] == [*(("opened", f"c{n}") for n in range(7)), ("taken", "c9")]
    assert (shown[3]["at"], shown[3]["shard"], shown[3]["epoch"], shown[3]["uid"], shown[3]["note"]) == (3.0, 0, "3-a", "u", "x")
    assert [Entry.read(row) for row in shown] == [*first, *rest]


# ---------------------------------------------------------------- the servers


@pytest.fixture(params=["sqlite", "postgres"])
async def servers(request: pytest.FixtureRequest, world: World, prefix: str) -> Upstream:
    if request.param == "sqlite":
        return await world.upstream()
    environment: dict[str, str] = request.getfixturevalue("postgres").environment(prefix=prefix)
    return await world.upstream(**environment, WABIZ_STATE_DIR="")


async def _dial(world: World, epoch: str, uid: str, shards: int = 1) -> aiohttp.ClientWebSocketResponse:
    query = {"shard": "0", "epoch": epoch, "uid": uid, "shards": str(shards)}
    return await world.session.ws_connect(f"http://{world.address(250)}:8080/ws/gateway", params=query)


async def _send(socket: aiohttp.ClientWebSocketResponse, *ids: str) -> None:
    for message_id in ids:
        await socket.send_json({"type": "send", "id": message_id, "to": "1", "body": "x"})


async def _frames(world: World, ids: Sequence[str]) -> dict[str, Any]:
    """What the log comes to once it tells of all these messages."""

    async def is_complete() -> bool:
        rows = (await world.control("frames?limit=1000"))["frames"]
        return {row["message"] for row in rows if row["message"]} == set(ids)

    await until(is_complete)
    return dict(await world.control("audit"))


def _figures(audit: dict[str, Any]) -> tuple[int, int, int, int, int]:
    return audit["delivered"], audit["repeated"], audit["stale"], audit["below_epoch"], audit["overlaps"]


async def test_sound_servers_refuse_what_a_replaced_holder_sends(servers: Upstream, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    _leave_open(monkeypatch)
    old = await _dial(world, "9-a", "old")
    await _send(old, "m1", "m1")
    await _frames(world, ["m1"])
    new = await _dial(world, "10-a", "new")
    await _send(old, "m2")
    await _send(new, "m3")

    audit = await _frames(world, ["m1", "m2", "m3"])

    assert _figures(audit) == (2, 1, 1, 0, 0)
    assert audit["shards"]["0"] == {"opened": 2, "taken": 2, "repeated": 1, "stale": 1, "closed": 1, "replaced": 1, "below_epoch": 0}
    first, second = (await world.control("connections"))["connections"]
    assert (first["uid"], first["epoch"], first["why"], first["frames"]) == ("old", "9-a", "replaced", 1)
    assert (second["uid"], second["closed_at"], second["frames"]) == ("new", None, 1)
    assert first["opened_at"] <= first["closed_at"] <= second["opened_at"]
    await old.close()
    await new.close()


def _leave_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The older connection is not closed, as when the close frame takes long: it may go on sending."""

    async def leave(_: Exchange, older: Connection) -> None:
        pass

    monkeypatch.setattr(Exchange, "_replace", leave)


async def test_frames_of_a_replaced_holder_that_are_taken_are_counted(
    servers: Upstream, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _leave_open(monkeypatch)
    monkeypatch.setattr(Exchange, "_may_send", lambda *_: True)
    old = await _dial(world, "9-a", "old")
    new = await _dial(world, "10-a", "new")
    await _send(old, "m1", "m2")

    audit = await _frames(world, ["m1", "m2"])

    assert _figures(audit) == (2, 0, 0, 2, 1)
    assert audit["longest_overlap"] > 0
    assert [[span["uid"] for span in pair] for pair in audit["overlapping"]] == [["old", "new"]]
    await old.close()
    await new.close()


async def test_a_holder_that_is_not_taken_out_when_the_next_comes_is_counted(
    servers: Upstream, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = Exchange._remove

    def keep(self: Exchange, connection: Connection, code: int | None) -> None:
        if code != REPLACED:
            remove(self, connection, code)

    _leave_open(monkeypatch)
    monkeypatch.setattr(Exchange, "_remove", keep)
    old = await _dial(world, "9-a", "old")
    new = await _dial(world, "10-a", "new")

    audit = await world.control("audit")

    assert (audit["overlaps"], audit["below_epoch"]) == (1, 0), "both were let through, though nothing was sent yet"
    await old.close()
    await until(lambda: _closed(world, 1))
    assert (await world.control("audit"))["longest_overlap"] >= audit["longest_overlap"] > 0
    await new.close()


async def _closed(world: World, count: int) -> bool:
    return sum(one["closed_at"] is not None for one in (await world.control("connections"))["connections"]) == count


async def test_a_lower_epoch_that_the_fence_lets_through_is_counted(
    servers: Upstream, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def all_may_come(*_: object) -> None:
        return None

    monkeypatch.setattr(type(servers._store), "admit", all_may_come)
    new = await _dial(world, "10-a", "new")
    old = await _dial(world, "9-a", "old")
    await _send(old, "m1")

    audit = await _frames(world, ["m1"])

    assert _figures(audit) == (1, 0, 0, 1, 0)
    await old.close()
    await new.close()


async def test_what_the_fence_refuses_is_in_the_log(servers: Upstream, world: World) -> None:
    new = await _dial(world, "10-a", "new")
    for _ in range(2):
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await _dial(world, "9-a", "old")

    audit = await world.control("audit")

    assert (audit["fenced"], audit["shards"]["0"]["fenced"], audit["overlaps"]) == (2, 2, 0)
    rows = [row for row in (await world.control("frames"))["frames"] if row["kind"] == "fenced"]
    assert [(row["uid"], row["epoch"], row["note"]) for row in rows] == [("old", "9-a", "10-a")] * 2
    await new.close()


async def test_a_fault_that_swallows_messages_is_in_the_log(servers: Upstream, world: World) -> None:
    await world.control("faults", {"call": "messages", "fault": "timeout"})
    socket = await _dial(world, "1-a", "u")
    await _send(socket, "m1")

    audit = await _frames(world, ["m1"])

    assert (audit["delivered"], audit["dropped"]) == (0, 1)
    await socket.close()


async def test_the_log_goes_on_after_a_restart_and_no_connection_outlives_it(world: World) -> None:
    server = await world.upstream()
    socket = await _dial(world, "1-a", "u")
    await _send(socket, "m1")
    database = (await world.control("frames"))["database"]
    await _frames(world, ["m1"])
    await server.kill()
    await world.upstream()
    again = await _dial(world, "1-a", "u")
    await _send(again, "m1")

    async def repeated() -> bool:
        return bool((await world.control("audit"))["repeated"])

    await until(repeated)
    audit = await world.control("audit")
    assert _figures(audit) == (1, 1, 0, 0, 0)
    assert (await world.control("frames"))["database"] == database != ""
    await again.close()
    await socket.close()


# ---------------------------------------------------------------- the audit alone


def _log(*rows: tuple[str, float, str, str]) -> list[Entry]:
    """Entries of shard 0: kind, time, connection (also the Coreapp), epoch or message."""
    return [
        Entry(
            kind=kind,
            at=at,
            shard=0,
            uid=connection,
            connection=connection,
            epoch=(EPOCHS[connection] if connection else ""),
            message=what,
        )
        for kind, at, connection, what in rows
    ]


EPOCHS = {"a": "9-a", "b": "10-b", "c": "11-c"}


def _totals(*rows: tuple[str, float, str, str]) -> Totals:
    audit = Audit()
    audit.read(_log(*rows))
    return audit.totals()


def test_an_overlap_lasts_until_the_first_of_both_ends() -> None:
    found = _totals(("opened", 1, "a", ""), ("opened", 2, "b", ""), ("closed", 5, "a", ""), ("closed", 9, "b", ""))

    assert (found.overlaps, found.longest_overlap) == (1, 3)


def test_one_after_the_other_is_no_overlap_also_within_one_tick_of_the_clock() -> None:
    assert _totals(("opened", 1, "a", ""), ("closed", 1, "a", ""), ("opened", 1, "b", "")).overlaps == 0
    assert _totals(("opened", 1, "a", ""), ("opened", 1, "b", ""), ("closed", 1, "a", "")).overlaps == 1


def test_a_frame_that_is_taken_after_the_end_moves_the_end() -> None:
    rows = [
        ("opened", 1.0, "a", ""),
        ("closed", 2.0, "a", ""),
        ("opened", 2.5, "b", ""),
        ("taken", 4.0, "a", "m"),
        ("taken", 5.0, "a", "n"),
    ]
    found = _totals(*rows)

    assert (found.overlaps, found.longest_overlap, found.below_epoch) == (1, 2.5, 2)


def test_three_at_once_are_three_pairs() -> None:
    assert _totals(("opened", 1, "a", ""), ("opened", 2, "b", ""), ("opened", 4, "c", "")).overlaps == 3


def test_the_highest_epoch_is_of_what_was_let_through_until_then() -> None:
    early = _totals(("opened", 1, "a", ""), ("taken", 2, "a", "m"), ("closed", 3, "a", ""), ("opened", 4, "b", ""))
    assert early.below_epoch == 0
    reset = _totals(("opened", 4, "b", ""), ("closed", 5, "b", ""), ("reset", 6, "", ""), ("opened", 7, "a", ""), ("taken", 8, "a", "m"))
    assert reset.below_epoch == 0, "after a restore of etcd epochs begin again"


def test_a_restart_ends_all_connections() -> None:
    found = _totals(("opened", 1, "a", ""), ("started", 2, "", ""), ("opened", 3, "b", ""))

    assert found.overlaps == 0


def test_what_was_added_since_an_earlier_observation() -> None:
    audit = Audit()
    audit.read(_log(("opened", 1, "a", ""), ("opened", 2, "b", ""), ("closed", 5, "a", ""), ("taken", 6, "b", "m")))
    mark = audit.totals()
    audit.read(_log(("taken", 7, "b", "m"), ("taken", 8, "b", "n")))

    assert audit.totals().since(mark) == Totals(delivered=1, doubled=1)


def test_an_audit_that_goes_on_for_ever_forgets_what_is_old_and_keeps_its_sums() -> None:
    audit = Audit(ids_kept=100, spans_kept=10)
    audit.read([_opened("stays", 0)])
    for number in range(1000):
        audit.read([_opened(f"c{number}", 1), *_log_of(f"c{number}", 1, number), _closed_entry(f"c{number}", 1)])

    assert audit.totals() == Totals(delivered=1000, replaced=1000)
    assert len(audit.taken | audit.older) <= 202
    assert len(audit.spans) <= 22
    assert [span.connection for span in audit.spans if span.closed is None] == ["stays"]
    audit.read(_log_of("c999", 1, 990))
    assert audit.totals().doubled == 1
    audit.read([_opened("second", 0)])
    assert audit.totals().overlaps == 1


def _opened(connection: str, shard: int) -> Entry:
    return Entry(kind=Kind.OPENED, at=1.0, shard=shard, epoch="1-a", uid="u", connection=connection)


def _closed_entry(connection: str, shard: int) -> Entry:
    return Entry(kind=Kind.CLOSED, at=1.0, shard=shard, epoch="1-a", uid="u", connection=connection, note="replaced")


def _log_of(connection: str, shard: int, number: int) -> list[Entry]:
    return [Entry(kind=Kind.TAKEN, at=1.0, shard=shard, epoch="1-a", uid="u", connection=connection, message=f"m{number}")]
