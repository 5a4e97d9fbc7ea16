"""The upstream's database, for state that must survive its process: what all databases share, and the SQLite implementation."""

import asyncio
import json
import sqlite3
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, LiteralString

from .epoch import Epoch
from .gatewaylog import Entry, Kind

Row = tuple[Any, ...]
"""A row of a table."""

KEPT = 500_000
"""How many messages, and entries of each log, are kept: about 300 MB. Older ones are forgotten, so that a simulator can run for months."""
_FORGOTTEN_AT_ONCE = 1000
"""Bounded, because the database does nothing else meanwhile."""
ACCEPTED_BEFORE, ACKNOWLEDGED_BEFORE = "accepted_before", "acknowledged_before"
"""Counters of messages that are forgotten."""


# JSON is stored as text: jsonb would reject some valid JSON. An epoch's number has no upper bound.
SCHEMA: LiteralString = """
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS fence (shard INTEGER PRIMARY KEY, n NUMERIC NOT NULL, epoch TEXT NOT NULL, uid TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS message (
    seq BIGSERIAL PRIMARY KEY, id TEXT NOT NULL UNIQUE, shard INTEGER NOT NULL, recipient TEXT NOT NULL,
    at DOUBLE PRECISION NOT NULL, by TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS gateway_log (
    seq BIGSERIAL PRIMARY KEY, at DOUBLE PRECISION NOT NULL, kind TEXT NOT NULL, shard INTEGER NOT NULL, epoch TEXT NOT NULL,
    uid TEXT NOT NULL, connection TEXT NOT NULL, message TEXT NOT NULL, note TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS inbound (
    seq BIGSERIAL PRIMARY KEY, id TEXT NOT NULL UNIQUE, sender TEXT NOT NULL, body TEXT NOT NULL, shard INTEGER);
CREATE INDEX IF NOT EXISTS inbound_waiting ON inbound (seq) WHERE shard IS NULL;
CREATE TABLE IF NOT EXISTS tally (name TEXT, shard INTEGER, value BIGINT NOT NULL, PRIMARY KEY (name, shard));
CREATE TABLE IF NOT EXISTS shards_call (seq BIGSERIAL PRIMARY KEY, call TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS token (digest TEXT PRIMARY KEY, expires_at DOUBLE PRECISION NOT NULL);
"""
"""In PostgreSQL's dialect. SQLite numbers rows with an INTEGER instead of a BIGSERIAL."""
ADMIT: LiteralString = """
    INSERT INTO fence VALUES (%s, %s, %s, %s) ON CONFLICT (shard) DO UPDATE
    SET n = excluded.n, epoch = excluded.epoch, uid = excluded.uid WHERE excluded.n > fence.n"""
"""One statement, so it is also correct with other writers: the row only changes to a higher n."""
HIGHEST: LiteralString = "SELECT epoch, uid FROM fence WHERE shard = %s"


@dataclass(frozen=True, slots=True)
class Inbound:
    """A message of a WhatsApp user that no webhook has accepted yet."""

    id: str
    sender: str
    body: str


def storable(text: str) -> bool:
    """Return whether every database can hold the text: PostgreSQL has no NUL, and half a surrogate pair has no encoding."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def forget_up_to(oldest: int | None, newest: int | None, kept: int) -> int | None:
    """Return the sequence number up to which a table should forget now; None if it is no longer than ``kept``."""
    if oldest is None or newest is None or oldest > newest - kept:
        return None
    return min(newest - kept, oldest + _FORGOTTEN_AT_ONCE - 1)


class StoreError(Exception):
    """The database does not answer in time. After a change it is unknown whether it was made."""


class Store(ABC):
    """What is stored. Statements that both databases understand are here, with ``%s`` in the place of each value.

    Each method is one transaction; its effect is durable when it returns. Calls take effect in the order in which they were made. Each may
    raise StoreError, and ValueError for a text that the database cannot hold.
    """

    @property
    @abstractmethod
    def engine(self) -> str:
        """The database's kind, as ``WA_DB_ENGINE`` would name it."""

    @abstractmethod
    async def put_facts(self, facts: Mapping[str, Any]) -> None:
        """Set named values (JSON)."""

    @abstractmethod
    async def admit(self, shard: int, epoch: Epoch, uid: str) -> Epoch | None:
        """The fence: note ``epoch`` of ``shard`` for ``uid`` and return None, or return the highest epoch that forbids it."""

    @abstractmethod
    async def accept(self, frame: Entry) -> bool:
        """Accept the frame's message and log it; False: its id was accepted before, and it is logged as repeated."""

    @abstractmethod
    async def log(self, entries: Sequence[Entry]) -> None:
        """Append to the log of the gateways."""

    @abstractmethod
    async def missing(self, ids: list[str]) -> list[str]:
        """Return those of ``ids`` that were never accepted, or are forgotten."""

    @abstractmethod
    async def upkeep(self) -> None:
        """Do periodic maintenance of the database; raises nothing.

        Forgets some of what is too old: not the sums, and no message that a webhook has yet to accept.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close it. May be called again."""

    @abstractmethod
    async def _rows(self, query: LiteralString, *values: object) -> list[Row]:
        """Return the rows of a query."""

    @abstractmethod
    async def _change(self, statement: LiteralString, *values: object) -> int:
        """Change something by one statement; return the number of rows."""

    async def facts(self) -> dict[str, Any]:
        """Return all named values."""
        return {name: json.loads(value) for name, value in await self._rows("SELECT name, value FROM fact")}

    async def reset_fence(self) -> None:
        """Drop all epochs: after a restore of etcd the resource versions go back, and with them the epochs."""
        await self._change("DELETE FROM fence")

    async def logged(self, after: int, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries of that log after sequence number ``after``, oldest first."""
        query: LiteralString = (
            "SELECT seq, at, kind, shard, epoch, uid, connection, message, note FROM gateway_log WHERE seq > %s ORDER BY seq LIMIT %s"
        )
        return [_entry_of(row) for row in await self._rows(query, after, limit)]

    async def accepted(self) -> dict[int, int]:
        """Return the number of accepted messages by shard, including forgotten ones."""
        return await self._sums("SELECT shard, count(*) FROM message GROUP BY shard", ACCEPTED_BEFORE)

    async def messages(self, after: int, limit: int) -> list[dict[str, Any]]:
        """Return up to ``limit`` accepted messages after sequence number ``after``, oldest first."""
        query: LiteralString = "SELECT seq, id, shard, recipient, at, by FROM message WHERE seq > %s ORDER BY seq LIMIT %s"
        rows = await self._rows(query, after, limit)
        return [{"seq": seq, "id": mid, "shard": shard, "to": to, "at": at, "by": by} for seq, mid, shard, to, at, by in rows]

    async def add_inbound(self, inbound: Inbound) -> bool:
        """Store a message for the webhook; False: its id is known."""
        statement: LiteralString = "INSERT INTO inbound (id, sender, body) VALUES (%s, %s, %s) ON CONFLICT (id) DO NOTHING"
        return await self._change(statement, inbound.id, inbound.sender, inbound.body) == 1

    async def acknowledge(self, inbound_id: str, shard: int) -> bool:
        """Note that the webhook accepted it; False: that was known."""
        return await self._change("UPDATE inbound SET shard = %s WHERE id = %s AND shard IS NULL", shard, inbound_id) == 1

    async def waiting(self) -> list[Inbound]:
        """Return all messages that no webhook accepted, oldest first."""
        return [Inbound(*row) for row in await self._rows("SELECT id, sender, body FROM inbound WHERE shard IS NULL ORDER BY seq")]

    async def acknowledged(self) -> dict[int, int]:
        """Return the number of inbound messages that webhooks accepted, by the shard that delivered them, including forgotten ones."""
        return await self._sums("SELECT shard, count(*) FROM inbound WHERE shard IS NOT NULL GROUP BY shard", ACKNOWLEDGED_BEFORE)

    async def count(self, name: str, shard: int) -> None:
        """Add one to a durable counter."""
        await self._change(
            "INSERT INTO tally VALUES (%s, %s, 1) ON CONFLICT (name, shard) DO UPDATE SET value = tally.value + 1", name, shard
        )

    async def counts(self) -> list[tuple[str, int, int]]:
        """Return all durable counters as (name, shard, value)."""
        return [(name, shard, value) for name, shard, value in await self._rows("SELECT name, shard, value FROM tally")]

    async def note_call(self, call: Mapping[str, Any]) -> None:
        """Append one Set Shards call to the log."""
        await self._change("INSERT INTO shards_call (call) VALUES (%s)", json.dumps(call))

    async def calls(self) -> list[dict[str, Any]]:
        """Return the log of Set Shards calls, oldest first."""
        return [json.loads(call) for (call,) in await self._rows("SELECT call FROM shards_call ORDER BY seq")]

    async def put_token(self, digest: str, expires_at: float) -> None:
        """Store a token's digest until ``expires_at`` (seconds since 1970)."""
        await self._change("DELETE FROM token WHERE expires_at < %s", time.time() - 86400)
        statement: LiteralString = "INSERT INTO token VALUES (%s, %s) ON CONFLICT (digest) DO UPDATE SET expires_at = excluded.expires_at"
        await self._change(statement, digest, expires_at)

    async def token_expiry(self, digest: str) -> float | None:
        """Return when a token expires, None when it is unknown."""
        rows = await self._rows("SELECT expires_at FROM token WHERE digest = %s", digest)
        return float(rows[0][0]) if rows else None

    async def drop_tokens(self, digest: str | None) -> None:
        """Delete one token, or all."""
        if digest is None:
            await self._change("DELETE FROM token")
        else:
            await self._change("DELETE FROM token WHERE digest = %s", digest)

    async def _sums(self, query: LiteralString, before: str) -> dict[int, int]:
        """The sums by shard of what is kept and of what is forgotten."""
        forgotten = await self._rows("SELECT shard, value FROM tally WHERE name = %s", before)
        return dict(Counter(dict(forgotten)) + Counter(dict(await self._rows(query))))


def _entry_of(row: Row) -> Entry:
    """Return the entry of a row of the log table: seq, at, kind, shard, epoch, uid, connection, message, note."""
    seq, at, kind, shard, epoch, uid, connection, message, note = row
    return Entry(seq=seq, at=at, kind=kind, shard=shard, epoch=epoch, uid=uid, connection=connection, message=message, note=note)


_ENDS = "SELECT (SELECT seq FROM {0} WHERE {1} ORDER BY seq LIMIT 1), (SELECT max(seq) FROM {0})"
"""The oldest entry that may be forgotten, and the newest. ``min`` and ``max`` in one query would read all of the table."""
_OLD = (
    (_ENDS.format("message", "1"), "DELETE FROM message WHERE seq <= ? RETURNING shard", ACCEPTED_BEFORE),
    (
        _ENDS.format("inbound", "shard IS NOT NULL"),
        "DELETE FROM inbound WHERE seq <= ? AND shard IS NOT NULL RETURNING shard",
        ACKNOWLEDGED_BEFORE,
    ),
    (_ENDS.format("gateway_log", "1"), "DELETE FROM gateway_log WHERE seq <= ?", None),
    (_ENDS.format("shards_call", "1"), "DELETE FROM shards_call WHERE seq <= ?", None),
)
"""For each table that grows: its ends, how it forgets, and the counter of what is forgotten."""

_LOG = "INSERT INTO gateway_log (at, kind, shard, epoch, uid, connection, message, note) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


class SqliteStore(Store):
    """One SQLite file in WAL mode.

    Calls run on the event loop: a commit takes some 30 microseconds, less than a thread would. With ``synchronous=NORMAL`` a commit
    survives the process, not a power cut; the slow part, moving the log into the file, is done by ``upkeep`` in a thread.
    """

    def __init__(self, path: Path, failed: Callable[[], None] = lambda: None, *, kept: int = KEPT) -> None:
        """Open or create the file. ``failed`` is called when it cannot be read or written, usually because the disk is full.

        Raises OSError if it cannot be opened or is not a database.
        """
        self._path, self._failed, self._kept = path, failed, kept
        try:
            self._db = _connect(path, SCHEMA.replace("BIGSERIAL", "INTEGER"))
        except sqlite3.Error as error:
            msg = f"the database {path} cannot be opened: {error}; remove it to start with a new account"
            raise OSError(msg) from None

    @property
    def engine(self) -> str:
        """See Store."""
        return "SQLITE"

    async def put_facts(self, facts: Mapping[str, Any]) -> None:
        """See Store."""
        rows = [(name, json.dumps(value)) for name, value in facts.items()]
        with self._transaction():
            self._run_many("INSERT INTO fact VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", rows)

    async def admit(self, shard: int, epoch: Epoch, uid: str) -> Epoch | None:
        """See Store."""
        await self._change(ADMIT, shard, epoch.n, epoch.text, uid)
        ((text, holder),) = await self._rows(HIGHEST, shard)
        return None if (text, holder) == (epoch.text, uid) else Epoch.parse(text)

    async def accept(self, frame: Entry) -> bool:
        """See Store."""
        row = (frame.message, frame.shard, frame.note, frame.at, frame.uid)
        with self._transaction():
            new = self._run("INSERT OR IGNORE INTO message (id, shard, recipient, at, by) VALUES (?, ?, ?, ?, ?)", row).rowcount == 1
            self._run(_LOG, _row(replace(frame, kind=Kind.TAKEN if new else Kind.REPEATED)))
        return new

    async def log(self, entries: Sequence[Entry]) -> None:
        """See Store."""
        with self._transaction():
            self._run_many(_LOG, map(_row, entries))

    async def missing(self, ids: list[str]) -> list[str]:
        """See Store."""
        known = "SELECT 1 FROM message WHERE id = ?"
        return [message_id for message_id in ids if self._run(known, (message_id,)).fetchone() is None]

    async def upkeep(self) -> None:
        """See Store."""
        with suppress(sqlite3.Error):  # nothing that is cached depends on it, so it is not reported either: the next upkeep does it
            self._forget()
        await asyncio.to_thread(self._checkpoint)

    async def close(self) -> None:
        """See Store."""
        self._db.close()

    def _forget(self) -> None:
        for ends, delete, counter in _OLD:
            oldest, newest = self._db.execute(ends).fetchone()
            last = forget_up_to(oldest, newest, self._kept)
            if last is None:
                continue
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                forgotten = Counter(shard for (shard,) in self._db.execute(delete, (last,)).fetchall())
                add = "INSERT INTO tally VALUES (?, ?, ?) ON CONFLICT (name, shard) DO UPDATE SET value = value + excluded.value"
                self._db.executemany(add, [(counter, shard, count) for shard, count in forgotten.items()])

    async def _rows(self, query: LiteralString, *values: object) -> list[Row]:
        return self._run(query.replace("%s", "?"), values).fetchall()

    async def _change(self, statement: LiteralString, *values: object) -> int:
        return self._run(statement.replace("%s", "?"), values).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._run("BEGIN IMMEDIATE")
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk has ended it already
                self._run("ROLLBACK")
            raise

    def _run(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        with self._failing():
            return self._db.execute(statement, values)

    def _run_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        with self._failing():
            self._db.executemany(statement, rows)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            self._failed()
            msg = f"the database {self._path}: {error}"
            raise StoreError(msg) from None

    def _checkpoint(self) -> None:
        try:
            _connect(self._path, "PRAGMA wal_checkpoint(PASSIVE)").close()
        except sqlite3.Error:
            return  # the next upkeep does it


def _row(entry: Entry) -> tuple[object, ...]:
    return (entry.at, entry.kind, entry.shard, entry.epoch, entry.uid, entry.connection, entry.message, entry.note)


def _connect(path: Path, script: str) -> sqlite3.Connection:
    """Open the file and run ``script``; nothing stays open if that fails."""
    db = sqlite3.connect(path, timeout=2.0, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.executescript(script)
    except sqlite3.Error:
        db.close()
        raise
    return db
