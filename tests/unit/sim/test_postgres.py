"""The database on a real PostgreSQL server: made once, claimed by the newest, lost and found; and what is said when it cannot be used."""

import asyncio
import logging
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path

import pytest

from localkube.plane import certificates
from wabiz_sim.database import Database
from wabiz_sim.epoch import Epoch
from wabiz_sim.postgres import PostgresStore
from wabiz_sim.store import StoreError
from waiting import LONG, until

from .postgres_server import CERTIFIED, OTHER_ADDRESS, PLAIN, PostgresServer
from .proxy import Proxy
from .stopwatch import Stopwatch
from .world import frame

Open = Callable[..., Coroutine[None, None, PostgresStore]]


@pytest.fixture
def database(postgres: PostgresServer, prefix: str) -> Database:
    made = Database.from_env(postgres.environment(prefix=prefix))
    assert made is not None
    return made


@pytest.fixture
def uncertain() -> list[str]:
    return []


@pytest.fixture
async def opened(database: Database, uncertain: list[str]) -> AsyncIterator[Open]:
    stores: list[PostgresStore] = []

    async def open_one(where: Database = database, patience: float = 10.0) -> PostgresStore:
        store = PostgresStore(where, lambda: uncertain.append("uncertain"))
        stores.append(store)
        await store.open(patience)
        return store

    yield open_one
    for store in stores:
        await store.close()


async def _refused(store: PostgresStore) -> str:
    with pytest.raises(StoreError) as rejection:
        await store.facts()
    return str(rejection.value)


# ---- made and claimed


@pytest.mark.parametrize("attempt", range(5))
async def test_of_two_that_make_the_database_at_once_one_has_it_and_the_other_says_so(
    opened: Open, attempt: int, caplog: pytest.LogCaptureFixture
) -> None:
    opening = await asyncio.gather(opened(), opened(), return_exceptions=True)
    said = [str(outcome) for outcome in opening if isinstance(outcome, OSError)]
    for store in opening:
        if isinstance(store, PostgresStore):
            try:
                await store.put_facts({"attempt": attempt})
            except StoreError as error:
                said.append(str(error))

    for trouble in ("already exists", "duplicate key"):
        assert trouble not in caplog.text
    assert len(said) == 1, opening
    assert "another upstream took it over" in said[0]


async def test_the_older_upstream_never_comes_back(opened: Open, uncertain: list[str]) -> None:
    older = await opened()
    await older.put_facts({"by": "older"})

    newer = await opened()

    assert await newer.facts() == {"by": "older"}
    await older.upkeep()  # notices it without being asked
    assert uncertain
    for _ in range(2):
        watch = Stopwatch()
        assert "another upstream took it over" in await _refused(older)
        assert watch.own < 0.5
    await newer.put_facts({"by": "newer"})
    assert await newer.facts() == {"by": "newer"}


async def test_prefixes_keep_accounts_apart(opened: Open, database: Database) -> None:
    one, other = await opened(), await opened(replace(database, prefix=f"{database.prefix}other-"))
    await one.accept(frame("m"))

    assert await other.missing(["m"]) == ["m"]
    assert await one.missing(["m"]) == []


async def test_a_database_that_another_party_made_will_do(opened: Open, database: Database, postgres: PostgresServer) -> None:
    plain = replace(database, username=PLAIN)
    with postgres.admin() as admin:
        admin.execute(f'CREATE DATABASE "{plain.name}"')  # type: ignore[call-overload, arg-type, unused-ignore]
        admin.execute(f'GRANT CREATE ON DATABASE "{plain.name}" TO {PLAIN}')  # type: ignore[call-overload, arg-type, unused-ignore]

    store = await opened(plain)
    await store.put_facts({"a": 1})
    again = await opened(plain)

    assert await again.facts() == {"a": 1}


async def test_an_emptied_database_is_not_taken_for_a_new_account(opened: Open, database: Database, postgres: PostgresServer) -> None:
    store = await opened()
    with postgres.admin(database.name) as admin:
        admin.execute("DROP SCHEMA wabiz CASCADE")
    with pytest.raises(StoreError):
        await store.put_facts({"a": 1})

    async def said() -> bool:
        return "it was emptied" in await _refused(store)

    await until(said)


# ---- lost and found


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_a_restart_that_nobody_asked_during_is_not_even_uncertain(
    opened: Open, postgres: PostgresServer, uncertain: list[str], how: signal.Signals
) -> None:
    store = await opened()
    assert await store.accept(frame("m"))
    assert await store.admit(0, Epoch.parse("7-a"), "u") is None

    await asyncio.to_thread(postgres.restart, how)

    assert not await store.accept(frame("m"))
    assert await store.admit(0, Epoch.parse("6-a"), "u") == Epoch.parse("7-a")
    assert not uncertain


@pytest.mark.slow
async def test_while_it_is_away_every_call_fails_soon_and_afterwards_it_works(
    opened: Open, postgres: PostgresServer, uncertain: list[str]
) -> None:
    store = await opened()
    await asyncio.to_thread(postgres.stop)
    try:
        watch = Stopwatch()
        outcomes = await asyncio.gather(*(store.accept(frame(f"m{number}")) for number in range(20)), return_exceptions=True)
        assert watch.own < 3
        assert {type(outcome) for outcome in outcomes} == {StoreError}
        assert uncertain
    finally:
        await asyncio.to_thread(postgres.start)

    assert await store.accept(frame("m0"))
    assert await store.missing(["m0", "m1"]) == ["m1"]


async def test_a_change_whose_answer_was_lost_is_uncertain_and_a_retry_settles_it(
    opened: Open, database: Database, proxy: Proxy, uncertain: list[str]
) -> None:
    store = await opened(replace(database, port=proxy.port))
    proxy.muted = True
    change = asyncio.create_task(store.accept(frame("m")))
    behind = asyncio.create_task(store.put_facts({"begun": "before the uncertainty"}))
    await asyncio.wait_for(proxy.requests.wait(), LONG)
    proxy.cut()

    for task in (change, behind):
        with pytest.raises(StoreError):
            await task
    assert uncertain
    assert not await store.accept(frame("m"))  # it was taken, and is not taken twice
    assert await store.accepted() == {0: 1}
    assert await store.facts() == {}


async def test_a_frozen_server_is_not_waited_for_for_ever(opened: Open, postgres: PostgresServer, uncertain: list[str]) -> None:
    store = await opened()
    postgres.freeze()
    try:
        watch = Stopwatch()
        with pytest.raises(StoreError):
            await store.accept(frame("m"))
        assert watch.elapsed > 4
        assert watch.own < 7
        assert uncertain
        watch = Stopwatch()
        await _refused(store)
        assert watch.own < 2
    finally:
        postgres.thaw()

    async def answers() -> bool:
        try:
            return await store.facts() == {}
        except StoreError:
            return False

    await until(answers)
    # Whether the change was done was settled before anything could be read again.
    before = await store.missing(["m"])
    assert await store.accept(frame("m")) is (before == ["m"])


async def test_closing_does_not_wait_for_a_frozen_server(opened: Open, postgres: PostgresServer) -> None:
    store = await opened()
    postgres.freeze()
    try:
        asking = asyncio.create_task(store.accept(frame("m")))
        await asyncio.sleep(0)
        watch = Stopwatch()
        await store.close()
        assert watch.own < 3
        with pytest.raises(StoreError):
            await asking
    finally:
        postgres.thaw()


async def test_a_caller_may_give_up_and_the_order_holds(opened: Open) -> None:
    store = await opened()
    given_up = asyncio.create_task(store.put_facts({"a": 1}))
    await asyncio.sleep(0)
    given_up.cancel()
    await store.put_facts({"a": 2})

    assert await store.facts() == {"a": 2}


# ---- what is said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"password": "wrong-one-9"}, 'password authentication failed for user "wabiz"'),
        ({"port": 9}, "Connection refused"),
        ({"hostname": "no-such-host.invalid"}, "failed to resolve host 'no-such-host.invalid'"),
        ({"username": PLAIN}, "permission denied to create database"),
    ],
)
async def test_a_database_that_cannot_be_used_is_one_sentence(
    opened: Open, database: Database, caplog: pytest.LogCaptureFixture, change: dict[str, str | int], said: str
) -> None:
    caplog.set_level(logging.WARNING)
    wrong = replace(database, **change)  # type: ignore[arg-type]

    with pytest.raises(OSError, match="WA_DB_") as rejection:
        await opened(wrong, patience=0.1)

    sentence = str(rejection.value)
    assert sentence.startswith(f"database {wrong.name} at {wrong.hostname}:{wrong.port} cannot be used: ")
    assert said in sentence
    assert "\n" not in sentence
    assert [record for record in caplog.records if said in record.message], "said at the first attempt, not only at the end"
    for secret in (database.password, wrong.password):
        assert secret not in caplog.text + sentence + repr(wrong)


@pytest.mark.slow
async def test_a_server_that_comes_later_is_waited_for(opened: Open, postgres: PostgresServer) -> None:
    await asyncio.to_thread(postgres.stop)
    try:
        opening = asyncio.create_task(opened())
        done, _ = await asyncio.wait({opening}, timeout=0.3)
        assert not done
    finally:
        await asyncio.to_thread(postgres.start)

    assert await (await opening).facts() == {}


# ---- encryption


def _tls(folder: Path, postgres: PostgresServer, *, client: str = "") -> Path:
    folder.mkdir()
    shutil.copy(postgres.certificates.authority, folder / "ca.crt")
    if client:
        shutil.copy(postgres.certificates.certificate(client), folder / "tls.crt")
        shutil.copy(postgres.certificates.key(client), folder / "tls.key")
    return folder


def _encrypted(postgres: PostgresServer, database: Database) -> list[object]:
    query = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE datname = %s"
    with postgres.admin() as admin:
        return [ssl for (ssl,) in admin.execute(query, (database.name,)).fetchall()]


async def test_without_certificates_nothing_is_encrypted(opened: Open, postgres: PostgresServer, database: Database) -> None:
    await opened()

    assert _encrypted(postgres, database) == [False]


async def test_with_the_authority_the_server_is_checked_by_name(
    opened: Open, postgres: PostgresServer, database: Database, tmp_path: Path
) -> None:
    trusting = replace(database, tls_dir=_tls(tmp_path / "tls", postgres))
    await opened(trusting)
    assert _encrypted(postgres, database) == [True]

    with pytest.raises(OSError, match="does not match host name"):
        await opened(replace(trusting, hostname=OTHER_ADDRESS), patience=0.1)
    shutil.copy(certificates.make(tmp_path / "other", service_ip="127.0.0.1").authority, tmp_path / "tls" / "ca.crt")
    with pytest.raises(OSError, match="certificate verify failed"):
        await opened(trusting, patience=0.1)


async def test_a_client_certificate_is_shown_where_there_is_one(
    opened: Open, postgres: PostgresServer, database: Database, tmp_path: Path
) -> None:
    with_certificate = replace(database, username=CERTIFIED, tls_dir=_tls(tmp_path / "tls", postgres, client="admin"))
    await opened(with_certificate)
    assert _encrypted(postgres, database) == [True]

    for name in ("tls.crt", "tls.key"):
        (tmp_path / "tls" / name).unlink()
    with pytest.raises(OSError, match="certificate"):
        await opened(with_certificate, patience=0.1)


@pytest.mark.parametrize(
    ("files", "said"),
    [((), "has no ca.crt"), (("ca.crt", "tls.crt"), "has tls.crt but no tls.key"), (("ca.crt", "tls.key"), "has tls.key but no tls.crt")],
)
async def test_a_folder_that_lacks_a_file_is_refused(
    opened: Open, database: Database, tmp_path: Path, files: tuple[str, ...], said: str
) -> None:
    for name in files:
        (tmp_path / name).touch()

    with pytest.raises(ValueError, match=said):
        await opened(replace(database, tls_dir=tmp_path))
