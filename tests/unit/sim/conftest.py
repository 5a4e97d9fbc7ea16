"""Fixtures of the simulator's tests."""

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from localkube.errors import LocalKubeError
from wabiz_sim.database import Database
from wabiz_sim.postgres import PostgresStore
from wabiz_sim.store import KEPT, SqliteStore, Store

from .postgres_server import PostgresServer, programs
from .proxy import Proxy
from .world import World


class OpenStore(Protocol):
    """Opens the same database at each call."""

    def __call__(self, *, kept: int = KEPT) -> Awaitable[Store]:
        """``kept``: of each table."""
        ...


_prefixes = itertools.count(1)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real server, for all tests of this run."""
    try:
        found = programs()
    except LocalKubeError as error:
        pytest.skip(f"lane PostgreSQL: {error}")
    server = PostgresServer(found)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
async def proxy(postgres: PostgresServer) -> AsyncIterator[Proxy]:
    made = Proxy(postgres.port)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def prefix() -> str:
    """Begins the name of a database that is this test's alone."""
    return f"t{os.getpid()}-{next(_prefixes)}-"


@pytest.fixture(params=["sqlite", "postgres"])
async def open_store(request: pytest.FixtureRequest, tmp_path: Path, prefix: str) -> AsyncIterator[OpenStore]:
    """Opens the same database at each call."""
    opened: list[Store] = []
    uncertain: list[bool] = []

    async def sqlite(*, kept: int = KEPT) -> Store:
        opened.append(SqliteStore(tmp_path / "db.sqlite", kept=kept))
        return opened[-1]

    async def in_postgres(*, kept: int = KEPT) -> Store:
        server: PostgresServer = request.getfixturevalue("postgres")
        database = Database.from_env(server.environment(prefix=prefix))
        assert database is not None
        store = PostgresStore(database, lambda: uncertain.append(True), kept=kept)
        opened.append(store)
        await store.open(10)
        return store

    yield in_postgres if request.param == "postgres" else sqlite
    for store in opened:
        await store.close()
    assert not uncertain
