"""The upstream's database keeps what it promised."""

from pathlib import Path

import pytest

from wabiz_sim.epoch import Epoch
from wabiz_sim.store import Inbound, SqliteStore


async def test_what_was_stored_is_there_after_a_crash_and_after_upkeep(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    store = SqliteStore(path)
    for number in range(50):
        assert await store.accept(f"m{number}", number % 2, "1", "u")
    await store.upkeep()
    assert not await store.accept("m7", 1, "1", "v")
    await store.put_facts({"shards": 4, "password": None})
    await store.put_token("digest", 4e9)
    await store.add_inbound(Inbound("i1", "1", "x"))
    await store.add_inbound(Inbound("i2", "1", "y"))
    assert await store.acknowledge("i1", 1)
    assert not await store.acknowledge("i1", 1)
    await store.count("duplicates", 1)
    await store.note_call({"status": 201})

    again = SqliteStore(path)  # the first one was not closed: it crashed

    assert await again.accepted() == {0: 25, 1: 25}
    assert await again.facts() == {"shards": 4, "password": None}
    assert await again.token_expiry("digest") == 4e9
    assert await again.waiting() == [Inbound("i2", "1", "y")]
    assert await again.acknowledged() == {1: 1}
    assert await again.counts() == [("duplicates", 1, 1)]
    assert await again.calls() == [{"status": 201}]
    assert await again.missing(["m1", "m50"]) == ["m50"]
    assert [(message["seq"], message["by"]) for message in await again.messages(after=48, limit=10)] == [(49, "u"), (50, "u")]
    await again.close()
    await store.close()
    await store.close()


async def test_the_fence_only_rises(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "db.sqlite")

    assert await store.admit(0, Epoch.parse("9-a"), "u") is None
    assert await store.admit(0, Epoch.parse("10-a"), "v") is None
    assert await store.admit(0, Epoch.parse("9-a"), "u") == Epoch.parse("10-a")
    assert await store.admit(0, Epoch.parse("10-b"), "v") == Epoch.parse("10-a")
    assert await store.admit(0, Epoch.parse("10-a"), "u") == Epoch.parse("10-a")
    assert await store.admit(0, Epoch.parse("10-a"), "v") is None
    assert await store.admit(1, Epoch.parse("1-a"), "w") is None
    await store.reset_fence()
    assert await store.admit(0, Epoch.parse("1-a"), "u") is None
    await store.close()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "db.sqlite").write_text("no database " * 100)

    with pytest.raises(OSError, match="cannot be opened"):
        SqliteStore(tmp_path / "db.sqlite")
