"""A disk that is full: the upstream with SQLite does as with a PostgreSQL that is away, and goes on by itself when there is room again."""

import sqlite3
from pathlib import Path

import pytest

from wabiz_sim.store import SqliteStore, StoreError
from wabiz_sim.upstream import Upstream
from waiting import until

from .world import PASSWORD, World


def database_of(server: Upstream) -> sqlite3.Connection:
    store = server._store
    assert isinstance(store, SqliteStore)
    return store._db


def fill(db: sqlite3.Connection) -> None:
    """Let the file take no page more, as a full disk does."""
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")


def make_room(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA max_page_count = 1000000")


async def test_what_cannot_be_stored_is_an_error_of_the_store_and_leaves_no_transaction_open(tmp_path: Path) -> None:
    failures: list[int] = []
    store = SqliteStore(tmp_path / "x.sqlite", lambda: failures.append(1))
    fill(store._db)
    with pytest.raises(StoreError, match=r"x\.sqlite: database or disk is full"):
        await store.put_facts({"a": "x" * 100_000})
    with pytest.raises(StoreError, match="full"):
        await store.note_call({"a": "x" * 100_000})
    assert (len(failures), store._db.in_transaction) == (2, False)

    make_room(store._db)
    await store.put_facts({"a": 1})
    assert await store.facts() == {"a": 1}
    await store.close()


async def test_what_cannot_be_forgotten_is_no_failure_and_is_forgotten_later(tmp_path: Path) -> None:
    failures: list[int] = []
    store = SqliteStore(tmp_path / "x.sqlite", lambda: failures.append(1), kept=1)
    for number in range(3):
        await store.note_call({"number": number})
    store._db.execute("PRAGMA query_only = 1")  # as a disk that is full even for its log
    await store.upkeep()
    assert (failures, store._db.in_transaction, len(await store.calls())) == ([], False, 3)

    store._db.execute("PRAGMA query_only = 0")
    await store.upkeep()
    assert await store.calls() == [{"number": 2}]
    await store.close()


async def test_a_full_disk_ends_no_process_and_is_answered_as_a_database_that_is_away(world: World) -> None:
    server, _, _ = await world.cluster(1)
    await world.serve(0, 0, "1-a")
    db = database_of(server)
    fill(db)
    for number in range(10_000):
        status, answer = await world.send("16315550000", f"m{number}")
        if status != 201:
            break
    assert (status, answer["errors"][0]["code"]) == (503, 1011)
    for _ in range(10_000):
        status, answer = await world.login(PASSWORD)  # each makes a token
        if status != 200:
            break
    assert (status, answer["errors"][0]["code"]) == (503, 1023)
    assert server.running

    make_room(db)

    async def is_sent() -> bool:
        return (await world.send("16315550000", f"m{number}"))[0] == 201

    await until(is_sent)
    assert (await world.login(PASSWORD))[0] == 200
    taken = [one["id"] for one in (await world.control("messages?after=0&limit=10000"))["messages"]]
    assert taken == [f"m{one}" for one in range(number + 1)], "each once, also the one that was rejected and sent again"
    assert (await world.control("counters"))["doubled"] == 0
