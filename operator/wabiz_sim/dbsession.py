"""The upstream's one session with PostgreSQL: taken over from an earlier upstream, reconnected after a loss, every wait on it bounded.

One session does everything, one call at a time and in the order of the calls, as with a file. It holds an advisory lock of its database, so
its transactions have ended before another session reads the data. The database stores which upstream owns it, so an upstream that was
replaced without noticing cannot reconnect.
"""

import asyncio
import logging
import os
import select
import socket
import uuid
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo

from .database import Database
from .link import Backoff
from .store import Row, StoreError

log = logging.getLogger(__name__)

Session = AsyncConnection[Row]
T = TypeVar("T")
Work = Callable[[Session], Coroutine[Any, Any, T]]
"""Statements of one call."""

_AWAY_SECONDS = 1.5
"""Seconds for which a call waits until a lost session is back: less than a Webapp's sender waits."""
_CALL_SECONDS = 5.0
"""Longest time of one call; the server gives up a little earlier, so that its answer is known."""
_SERVER_SECONDS = 4.0
_CONNECT_SECONDS = 3.0
_CREATE_SECONDS = 60.0
_CLAIM_SECONDS = 5.0
_LOCK_PAUSE = 0.05
_CUT_SECONDS = 1.0

_LOCK = 7_261_503_442_118
"""The key of the advisory lock; locks are per database."""
_TERMINATE: LiteralString = """
    SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
    WHERE datname = current_database() AND locktype = 'advisory' AND granted AND pid <> pg_backend_pid()
      AND objsubid = 1 AND (classid::bigint << 32 | objid::bigint) = %s AND EXISTS (SELECT 1 FROM owner WHERE upstream = %s)"""
_SETTINGS: LiteralString = """
    SELECT set_config('search_path', 'wabiz', false), set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false),
           CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', false) END"""
_OWNER: LiteralString = "CREATE TABLE IF NOT EXISTS owner (one BOOLEAN PRIMARY KEY, upstream TEXT NOT NULL)"
_NOTE_OWNER: LiteralString = "INSERT INTO owner VALUES (true, %s) ON CONFLICT (one) DO UPDATE SET upstream = excluded.upstream"


class _SupersededError(Exception):
    """The database belongs to another upstream now, or was replaced."""


class DatabaseSession:
    """``on_uncertain`` is called when a change failed: only a read shows whether it was made."""

    def __init__(self, database: Database, schema: LiteralString, on_uncertain: Callable[[], None]) -> None:
        """``schema`` holds statements that create missing tables; they may be repeated."""
        self._database = database
        self._schema = schema
        self._on_uncertain = on_uncertain
        self._parameters: dict[str, str] = {}
        self._owner = uuid.uuid4().hex
        self._session: Session | None = None
        self._available = asyncio.Event()
        self._lost = asyncio.Event()
        self._lock = asyncio.Lock()
        self._failed_changes = 0
        self._final_error = ""
        """Why the session ended for good; empty while it may be reconnected."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reconnecting: asyncio.Task[None] | None = None

    async def open(self, patience: float) -> None:
        """Connect, create the database and its tables if they are missing, and take it over.

        Tries for ``patience`` seconds; each new reason for failing is logged at once. Raises OSError when the time is over, ValueError when
        the folder of certificates lacks one.
        """
        self._parameters = self._database.parameters()
        clock = asyncio.get_running_loop().time
        deadline, backoff, logged = clock() + patience, Backoff(), ""
        while True:
            try:
                self._use(await self._connected(first=True))
                break
            except _SupersededError as error:
                msg = f"{self._database.place}: {error}; only one upstream at a time can use it"
                raise OSError(msg) from None
            except (psycopg.Error, OSError, TimeoutError) as error:
                reason = f"{self._database.place} cannot be used: {_sentence(error)}"
                if reason != logged:
                    log.warning("%s; retrying for %.0f s", reason, deadline - clock())
                logged = reason
            if clock() >= deadline:
                msg = f"{logged}; check the server, WA_DB_* in the Secret and the certificates"
                raise OSError(msg)
            await backoff.pause()
        self._reconnecting = asyncio.create_task(self._reconnect())

    async def read(self, work: Work[T]) -> T:
        """Run ``work`` when its turn comes.

        Raises StoreError when the database does not answer, ValueError for a text that it cannot hold.
        """
        return await self._begin(work, changes=False)

    async def change(self, work: Work[T]) -> T:
        """Run ``work``, which has one statement and changes something; otherwise like ``read``.

        After a StoreError it is unknown whether it was done. All calls that wait for their turn fail with it: they depend on values that
        are uncertain now.
        """
        return await self._begin(work, changes=True)

    async def close(self) -> None:
        """Close now; calls in progress fail. May be called again."""
        self._final_error = "the upstream ends"
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.wait({self._reconnecting})
        if self._session is not None:
            _cut(self._session)
        self._available.set()  # wake the waiting calls
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=2 * _CUT_SECONDS)
        if self._session is not None:
            await self._session.close()
            self._session = None

    # one call

    async def _begin(self, work: Work[T], *, changes: bool) -> T:
        deadline = asyncio.get_running_loop().time() + _AWAY_SECONDS
        # A separate task: the caller may be cancelled, but not a statement that was sent.
        task = asyncio.create_task(self._perform(work, self._failed_changes, deadline, changes=changes))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, even if the caller is gone

    async def _perform(self, work: Work[T], failed_changes: int, deadline: float, *, changes: bool) -> T:
        async with self._lock:
            if failed_changes != self._failed_changes:
                msg = f"{self._database.place} failed just before"
                raise StoreError(msg)
            try:
                session = await self._session_by(deadline)
                return await self._answer(session, work(session))
            except StoreError:
                if changes:
                    self._failed_changes += 1
                    self._on_uncertain()
                raise

    async def _session_by(self, deadline: float) -> Session:
        if self._session is not None and _has_ended(self._session):  # a message without a request means that the server ends the session
            self._lose(self._session, "the server closed the session")
        if self._session is None and not self._final_error:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._available.wait()
        if self._final_error or self._session is None:
            msg = self._final_error or f"{self._database.place} does not answer"
            raise StoreError(msg)
        return self._session

    async def _answer(self, session: Session, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await _bounded(session, work, _CALL_SECONDS)
        except psycopg.DataError as error:
            msg = f"the database cannot hold that: {_sentence(error)}"
            raise ValueError(msg) from None
        except (psycopg.Error, OSError, TimeoutError) as error:
            self._lose(session, _sentence(error))
            msg = f"{self._database.place} failed: {_sentence(error)}"
            raise StoreError(msg) from None

    # the session

    def _use(self, session: Session) -> None:
        self._session = session
        self._lost.clear()
        self._available.set()

    def _lose(self, session: Session, reason: str) -> None:
        session.pgconn.finish()
        self._session = None
        self._available.clear()
        self._lost.set()
        if not self._final_error:
            log.warning("%s was lost: %s", self._database.place, reason)

    async def _reconnect(self) -> None:
        """Reconnect after each loss of the session, until cancelled or replaced by another upstream."""
        backoff, logged = Backoff(), ""
        while True:
            await self._lost.wait()
            try:
                session = await self._connected(first=False)
            except _SupersededError as error:
                self._give_up(str(error))
                return
            except (psycopg.Error, OSError, TimeoutError) as error:
                if _sentence(error) != logged:
                    logged = _sentence(error)
                    log.warning("%s cannot be used: %s", self._database.place, logged)
                await backoff.pause()
            else:
                logged = ""
                backoff.reset()
                log.info("%s is back", self._database.place)
                self._use(session)

    def _give_up(self, reason: str) -> None:
        log.error("%s: %s; this upstream stops serving: delete its pod to start again with the existing data", self._database.place, reason)
        self._final_error = reason
        self._available.set()
        self._failed_changes += 1
        self._on_uncertain()

    async def _connected(self, *, first: bool) -> Session:
        """Return a session that holds the lock."""
        session = await self._connect_or_create() if first else await self._connect(self._database.name)
        try:
            await _bounded(session, self._claim(session, first=first), 2 * _CLAIM_SECONDS)
        except BaseException:
            session.pgconn.finish()
            raise
        return session

    async def _connect(self, name: str) -> Session:
        # twice, because a host name may resolve to two addresses
        async with asyncio.timeout(2 * _CONNECT_SECONDS):
            conninfo = make_conninfo("", dbname=name, connect_timeout=int(_CONNECT_SECONDS), **self._parameters)
            return await AsyncConnection.connect(conninfo, autocommit=True)

    async def _connect_or_create(self) -> Session:
        try:
            return await self._connect(self._database.name)
        except psycopg.OperationalError:
            # The error of a failed connection is a text in the server's language. Only the list of databases shows whether it is missing.
            if not await self._ensure_database():
                raise
        return await self._connect(self._database.name)

    async def _ensure_database(self) -> bool:
        """Create the database if it is missing; False if the list of databases cannot be read."""
        try:
            session = await self._connect("postgres")
        except (psycopg.Error, OSError, TimeoutError):
            return False
        try:
            await _bounded(session, _create(session, self._database.name), _CREATE_SECONDS)
        finally:
            session.pgconn.finish()
        return True

    async def _claim(self, session: Session, *, first: bool) -> None:
        milliseconds = str(int(_SERVER_SECONDS * 1000))
        await session.execute(_SETTINGS, (milliseconds, milliseconds))
        if first:
            await self._note_owner(session)
        await self._check_owner(session)
        await self._take_lock(session)
        await self._check_owner(session)

    async def _note_owner(self, session: Session) -> None:
        """Create what is missing and store the new owner, before the session of an earlier upstream ends: it must not come back."""
        async with session.transaction():
            await session.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK + 1,))  # two that create the same table would conflict
            if (await _value(session, "SELECT to_regnamespace('wabiz')")) is None:
                await session.execute("CREATE SCHEMA wabiz")
            await session.execute(_OWNER)
            await session.execute(self._schema)
            await session.execute(_NOTE_OWNER, (self._owner,))

    async def _take_lock(self, session: Session) -> None:
        """Acquire the lock; end the session of an earlier upstream that holds it, because the newest upstream is the valid one."""
        for _ in range(int(_CLAIM_SECONDS / _LOCK_PAUSE)):
            if await _value(session, "SELECT pg_try_advisory_lock(%s)", _LOCK):
                return
            await session.execute(_TERMINATE, (_LOCK, self._owner))
            await asyncio.sleep(_LOCK_PAUSE)
        msg = f"the session of an earlier upstream does not end within {_CLAIM_SECONDS:g} s"
        raise TimeoutError(msg)

    async def _check_owner(self, session: Session) -> None:
        try:
            owner = await _value(session, "SELECT upstream FROM owner")
        except psycopg.errors.UndefinedTable:
            owner = None
        if owner != self._owner:
            msg = "it was emptied" if owner is None else "another upstream took it over, or it was restored"
            raise _SupersededError(msg)


async def _create(session: Session, name: str) -> None:
    if (await _value(session, "SELECT 1 FROM pg_database WHERE datname = %s", name)) is not None:
        return
    # Two upstreams may do it at the same time. The later one gets one of two errors, depending on the delay.
    with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
        await session.execute(sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0").format(sql.Identifier(name)))
        log.info("created the database %s", name)


async def _value(session: Session, query: LiteralString, *values: object) -> Any:
    row = await (await session.execute(query, values)).fetchone()
    return None if row is None else row[0]


async def _bounded(session: Session, work: Coroutine[Any, Any, T], seconds: float) -> T:
    """Await ``work`` for at most ``seconds``. The connection is cut: a cancellation needs an answer of the server, which may hang."""
    task = asyncio.create_task(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            _cut(session)
            await asyncio.wait({task}, timeout=_CUT_SECONDS)
            task.cancel()
    if not done:
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        msg = f"no answer within {seconds:g} s"
        raise TimeoutError(msg)
    return task.result()


def _has_ended(session: Session) -> bool:
    """Return whether the server sent something without a request: almost always the end of the session."""
    if session.closed:
        return True
    poll = select.poll()
    poll.register(session.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _cut(session: Session) -> None:
    """End the connection from this side, which wakes all calls that wait on it. The file descriptor stays open while they use it."""
    if not session.closed:
        with suppress(OSError), socket.socket(fileno=os.dup(session.fileno())) as connection:
            connection.shutdown(socket.SHUT_RDWR)


def _sentence(error: BaseException) -> str:
    """Return the first line of PostgreSQL's error."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
