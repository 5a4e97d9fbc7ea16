"""The upstream's database keeps what it promised, with a file or a server."""

from pathlib import Path

import pytest

from wabiz_sim.epoch import Epoch
from wabiz_sim.store import Inbound, SqliteStore, storable

from .conftest import OpenStore
from .world import frame


async def test_what_was_stored_is_there_after_a_crash_and_after_upkeep(open_store: OpenStore) -> None:
    store = await open_store()
    for number in range(50):
        assert await store.accept(frame(f"m{number}", number % 2))
    await store.upkeep()
    assert not await store.accept(frame("m7", 1, "v"))
    await store.put_facts({"shards": 4, "password": None})
    await store.put_token("digest", 4e9)
    await store.add_inbound(Inbound("i1", "1", "x"))
    await store.add_inbound(Inbound("i2", "1", "y"))
    assert await store.acknowledge("i1", 1)
    assert not await store.acknowledge("i1", 1)
    await store.count("duplicates", 1)
    await store.note_call({"status": 201})

    again = await open_store()  # the first one was not closed: it crashed

    assert await again.accepted() == {0: 25, 1: 25}
    assert await again.facts() == {"shards": 4, "password": None}
    assert await again.token_expiry("digest") == 4e9
    assert await again.waiting() == [Inbound("i2", "1", "y")]
    assert await again.acknowledged() == {1: 1}
    assert await again.counts() == [("duplicates", 1, 1)]
    assert await again.calls() == [{"status": 201}]
    assert await again.missing(["m1", "m51", "m50"]) == ["m51", "m50"]
    assert [(message["seq"], message["by"]) for message in await again.messages(after=48, limit=10)] == [(49, "u"), (50, "u")]
    await again.close()
    await store.close()
    await store.close()


async def test_the_fence_only_rises(open_store: OpenStore) -> None:
    store = await open_store()

    assert await store.admit(0, Epoch.parse("9-a"), "u") is None
    assert await store.admit(0, Epoch.parse("10-a"), "v") is None
    assert await store.admit(0, Epoch.parse("9-a"), "u") == Epoch.parse("10-a")
    assert await store.admit(0, Epoch.parse("10-b"), "v") == Epoch.parse("10-a")
    assert await store.admit(0, Epoch.parse("10-a"), "u") == Epoch.parse("10-a")
    assert await store.admit(0, Epoch.parse("10-a"), "v") is None
    assert await store.admit(1, Epoch.parse("1-a"), "w") is None
    await store.reset_fence()
    assert await store.admit(0, Epoch.parse("1-a"), "u") is None


async def test_a_later_value_replaces_an_earlier_one(open_store: OpenStore) -> None:
    store = await open_store()
    await store.put_facts({"shards": 4, "pin": "123456"})
    await store.put_facts({"shards": 8, "odd": {"text": "\x00\ud800 \u00fc"}})
    for expires_at in (10.0, 4e9):
        await store.put_token("digest", expires_at)
    for _ in range(3):
        await store.count("duplicates", 31)
    for number in range(3):
        await store.note_call({"number": number})

    assert await store.facts() == {"shards": 8, "pin": "123456", "odd": {"text": "\x00\ud800 \u00fc"}}
    assert await store.token_expiry("digest") == 4e9
    assert await store.counts() == [("duplicates", 31, 3)]
    assert [call["number"] for call in await store.calls()] == [0, 1, 2]


async def test_tokens_are_dropped_one_by_one_or_all(open_store: OpenStore) -> None:
    store = await open_store()
    for digest in ("a", "b", "c"):
        await store.put_token(digest, 4e9)
    await store.drop_tokens("a")

    assert [await store.token_expiry(digest) is None for digest in ("a", "b", "c")] == [True, False, False]
    await store.drop_tokens(None)
    assert await store.token_expiry("c") is None


async def test_an_inbound_message_is_kept_once_in_the_order_of_arrival(open_store: OpenStore) -> None:
    store = await open_store()

    assert [await store.add_inbound(Inbound(name, "1", "x")) for name in ("b", "a", "b")] == [True, True, False]
    assert [inbound.id for inbound in await store.waiting()] == ["b", "a"]


async def test_what_is_old_is_forgotten_and_the_sums_stay(open_store: OpenStore) -> None:
    """A simulator may run for months."""
    store = await open_store(kept=20)
    for number in range(2500):
        assert await store.accept(frame(f"m{number}", number % 2))
    for number in range(30):
        await store.note_call({"number": number})
        await store.add_inbound(Inbound(f"i{number}", "1", "x"))
        if number % 10:
            await store.acknowledge(f"i{number}", 1)
    for _ in range(2):
        await store.upkeep()
    assert len(await store.logged(0, 10_000)) == 500, "not all at once: nothing else is done meanwhile"
    for _ in range(2):
        await store.upkeep()

    one = store
    for _ in range(2):
        assert [message["id"] for message in await one.messages(0, 10_000)] == [f"m{number}" for number in range(2480, 2500)]
        assert [entry.message for entry in await one.logged(0, 10_000)] == [f"m{number}" for number in range(2480, 2500)]
        assert [call["number"] for call in await one.calls()] == [*range(10, 30)]
        assert [inbound.id for inbound in await one.waiting()] == ["i0", "i10", "i20"], "each until a webhook has accepted it"
        assert (await one.accepted(), await one.acknowledged()) == ({0: 1250, 1: 1250}, {1: 27})
        await one.upkeep()
        one = await open_store(kept=20)
    assert not await one.accept(frame("m2490", 0)), "a message that is sent again at once is one message"


async def test_a_database_that_is_small_is_not_written_to_by_upkeep(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "db.sqlite")
    await store.accept(frame("m", 0))
    await store.upkeep()
    log = tmp_path / "db.sqlite-wal"
    before = log.stat().st_mtime_ns, log.stat().st_size
    for _ in range(3):
        await store.upkeep()
    assert (log.stat().st_mtime_ns, log.stat().st_size) == before
    await store.close()


async def test_upkeep_does_not_read_all_that_is_kept(tmp_path: Path) -> None:
    """It holds up the upstream's event loop, with half a million messages for a tenth of a second."""
    store = SqliteStore(tmp_path / "db.sqlite")
    for number in range(1000):
        await store.accept(frame(f"m{number}", 0))
        await store.add_inbound(Inbound(f"i{number}", "1", "x"))
        await store.acknowledge(f"i{number}", 1)
        await store.note_call({"number": number})
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    store._db.set_progress_handler(count, 1)
    await store.upkeep()
    store._db.set_progress_handler(None, 1)
    assert 0 < steps < 500
    await store.close()


def test_a_file_that_is_no_database_is_refused_and_not_kept_open(tmp_path: Path) -> None:
    file = tmp_path / "db.sqlite"
    file.write_text("no database " * 100)

    with pytest.raises(OSError, match="cannot be opened") as refusal:
        SqliteStore(file)
    # while the error and all that it refers to still exist
    assert refusal.value.__traceback__ is not None
    assert file not in {path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}


async def test_upkeep_of_a_file_that_cannot_be_opened_anymore_fails_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "db.sqlite")
    (tmp_path / "db.sqlite").rename(tmp_path / "away")
    (tmp_path / "db.sqlite").mkdir()

    await store.upkeep()

    await store.close()


def test_what_no_database_can_hold_is_recognized() -> None:
    assert storable("16315551234 \u00fc")
    assert not storable("1\x002")
    assert not storable("\ud800")
