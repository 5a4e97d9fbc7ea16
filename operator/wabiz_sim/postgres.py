"""The upstream's database on a PostgreSQL server: the same guarantees as the file's, with one round trip for most calls."""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, LiteralString

from .database import Database
from .dbsession import DatabaseSession, Row, Session
from .epoch import Epoch
from .gatewaylog import Entry, Kind
from .store import ACCEPTED_BEFORE, ACKNOWLEDGED_BEFORE, KEPT, Inbound, StoreError, entry_of, forget_up_to

# JSON is stored as text: jsonb would reject some valid JSON. An epoch's number has no upper bound.
_SCHEMA: LiteralString = """
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

_LOGGED = ("at", "kind", "shard", "epoch", "uid", "connection", "message", "note")
_LOG: LiteralString = """
    INSERT INTO gateway_log (at, kind, shard, epoch, uid, connection, message, note)
    SELECT at, kind, shard, epoch, uid, connection, message, note
    FROM unnest(%s::float8[], %s::text[], %s::int[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[]) WITH ORDINALITY
        AS entry (at, kind, shard, epoch, uid, connection, message, note, place)
    ORDER BY place"""
_ACCEPT: LiteralString = """
    WITH new AS (INSERT INTO message (id, shard, recipient, at, by) VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING id)
    INSERT INTO gateway_log (at, kind, shard, epoch, uid, connection, message, note)
    VALUES (%s, CASE WHEN EXISTS (SELECT 1 FROM new) THEN %s ELSE %s END, %s, %s, %s, %s, %s, %s) RETURNING kind"""


_ENDS: LiteralString = """
    SELECT 'message', min(seq), max(seq) FROM message UNION ALL
    SELECT 'inbound', (SELECT seq FROM inbound WHERE shard IS NOT NULL ORDER BY seq LIMIT 1), max(seq) FROM inbound UNION ALL
    SELECT 'gateway_log', min(seq), max(seq) FROM gateway_log UNION ALL
    SELECT 'shards_call', min(seq), max(seq) FROM shards_call"""
_FORGET: dict[str, LiteralString] = {
    "message": """
        WITH old AS (DELETE FROM message WHERE seq <= %s RETURNING shard)
        INSERT INTO tally SELECT 'accepted_before', shard, count(*) FROM old GROUP BY shard
        ON CONFLICT (name, shard) DO UPDATE SET value = tally.value + excluded.value""",
    "inbound": """
        WITH old AS (DELETE FROM inbound WHERE seq <= %s AND shard IS NOT NULL RETURNING shard)
        INSERT INTO tally SELECT 'acknowledged_before', shard, count(*) FROM old GROUP BY shard
        ON CONFLICT (name, shard) DO UPDATE SET value = tally.value + excluded.value""",
    "gateway_log": "DELETE FROM gateway_log WHERE seq <= %s",
    "shards_call": "DELETE FROM shards_call WHERE seq <= %s",
}
"""How each table forgets what is old, in one statement."""


class PostgresStore:
    """A separate database on a server, created at the first start. Sequence numbers grow, but may have gaps."""

    def __init__(self, database: Database, on_uncertain: Callable[[], None], *, kept: int = KEPT) -> None:
        """``on_uncertain`` is called when a change failed and may have been made all the same: cached values must be read again."""
        self._kept = kept
        self._session = DatabaseSession(database, _SCHEMA, on_uncertain)

    async def open(self, patience: float) -> None:
        """Connect within ``patience`` seconds, create what is missing, and end the session of an earlier upstream.

        Raises OSError when it cannot be done, ValueError when the folder of certificates lacks one.
        """
        await self._session.open(patience)

    @property
    def engine(self) -> str:
        """See Store."""
        return "PGSQL"

    async def facts(self) -> dict[str, Any]:
        """See Store."""
        return {name: json.loads(value) for name, value in await self._rows("SELECT name, value FROM fact")}

    async def put_facts(self, facts: Mapping[str, Any]) -> None:
        """See Store."""
        await self._change(
            "INSERT INTO fact SELECT * FROM unnest(%s::text[], %s::text[]) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            list(facts),
            [json.dumps(value) for value in facts.values()],
        )

    async def admit(self, shard: int, epoch: Epoch, uid: str) -> Epoch | None:
        """See Store."""

        async def work(session: Session) -> Row | None:
            # One statement decides, so it is correct with other writers too: the row only changes to a higher n.
            await session.execute(
                "INSERT INTO fence VALUES (%s, %s, %s, %s) ON CONFLICT (shard) DO UPDATE "
                "SET n = excluded.n, epoch = excluded.epoch, uid = excluded.uid WHERE excluded.n > fence.n",
                (shard, epoch.n, epoch.text, uid),
            )
            return await (await session.execute("SELECT epoch, uid FROM fence WHERE shard = %s", (shard,))).fetchone()

        highest = await self._session.change(work)
        if highest == (epoch.text, uid):
            return None
        return epoch if highest is None else Epoch.parse(highest[0])

    async def reset_fence(self) -> None:
        """See Store."""
        await self._change("DELETE FROM fence")

    async def accept(self, frame: Entry) -> bool:
        """See Store."""
        row = (frame.shard, frame.epoch, frame.uid, frame.connection, frame.message, frame.note)
        values = (frame.message, frame.shard, frame.note, frame.at, frame.uid, frame.at, Kind.TAKEN, Kind.REPEATED, *row)

        async def work(session: Session) -> Row | None:
            return await (await session.execute(_ACCEPT, values)).fetchone()

        return await self._session.change(work) == (Kind.TAKEN,)

    async def log(self, entries: Sequence[Entry]) -> None:
        """See Store."""
        columns = ([getattr(entry, name) for entry in entries] for name in _LOGGED)
        await self._change(_LOG, *columns)

    async def logged(self, after: int, limit: int) -> list[Entry]:
        """See Store."""
        query: LiteralString = """
            SELECT seq, at, kind, shard, epoch, uid, connection, message, note FROM gateway_log WHERE seq > %s ORDER BY seq LIMIT %s"""
        return [entry_of(row) for row in await self._rows(query, after, limit)]

    async def accepted(self) -> dict[int, int]:
        """See Store."""
        return await self._sums("SELECT shard, count(*) FROM message GROUP BY shard", ACCEPTED_BEFORE)

    async def missing(self, ids: list[str]) -> list[str]:
        """See Store."""
        rows = await self._rows(
            "SELECT asked.id FROM unnest(%s::text[]) WITH ORDINALITY AS asked (id, place) "
            "WHERE NOT EXISTS (SELECT 1 FROM message WHERE message.id = asked.id) ORDER BY place",
            ids,
        )
        return [message_id for (message_id,) in rows]

    async def messages(self, after: int, limit: int) -> list[dict[str, Any]]:
        """See Store."""
        query: LiteralString = "SELECT seq, id, shard, recipient, at, by FROM message WHERE seq > %s ORDER BY seq LIMIT %s"
        rows = await self._rows(query, after, limit)
        return [{"seq": seq, "id": mid, "shard": shard, "to": to, "at": at, "by": by} for seq, mid, shard, to, at, by in rows]

    async def add_inbound(self, inbound: Inbound) -> bool:
        """See Store."""
        query: LiteralString = "INSERT INTO inbound (id, sender, body) VALUES (%s, %s, %s) ON CONFLICT (id) DO NOTHING"
        return await self._change(query, inbound.id, inbound.sender, inbound.body) == 1

    async def acknowledge(self, inbound_id: str, shard: int) -> bool:
        """See Store."""
        return await self._change("UPDATE inbound SET shard = %s WHERE id = %s AND shard IS NULL", shard, inbound_id) == 1

    async def waiting(self) -> list[Inbound]:
        """See Store."""
        return [Inbound(*row) for row in await self._rows("SELECT id, sender, body FROM inbound WHERE shard IS NULL ORDER BY seq")]

    async def acknowledged(self) -> dict[int, int]:
        """See Store."""
        return await self._sums("SELECT shard, count(*) FROM inbound WHERE shard IS NOT NULL GROUP BY shard", ACKNOWLEDGED_BEFORE)

    async def count(self, name: str, shard: int) -> None:
        """See Store."""
        await self._change(
            "INSERT INTO tally VALUES (%s, %s, 1) ON CONFLICT (name, shard) DO UPDATE SET value = tally.value + 1", name, shard
        )

    async def counts(self) -> list[tuple[str, int, int]]:
        """See Store."""
        return [(name, shard, value) for name, shard, value in await self._rows("SELECT name, shard, value FROM tally")]

    async def note_call(self, call: Mapping[str, Any]) -> None:
        """See Store."""
        await self._change("INSERT INTO shards_call (call) VALUES (%s)", json.dumps(call))

    async def calls(self) -> list[dict[str, Any]]:
        """See Store."""
        return [json.loads(call) for (call,) in await self._rows("SELECT call FROM shards_call ORDER BY seq")]

    async def put_token(self, digest: str, expires_at: float) -> None:
        """See Store."""
        await self._change(
            "WITH old AS (DELETE FROM token WHERE expires_at < %s) "
            "INSERT INTO token VALUES (%s, %s) ON CONFLICT (digest) DO UPDATE SET expires_at = excluded.expires_at",
            time.time() - 86400,
            digest,
            expires_at,
        )

    async def token_expiry(self, digest: str) -> float | None:
        """See Store."""
        rows = await self._rows("SELECT expires_at FROM token WHERE digest = %s", digest)
        return float(rows[0][0]) if rows else None

    async def drop_tokens(self, digest: str | None) -> None:
        """See Store."""
        if digest is None:
            await self._change("DELETE FROM token")
        else:
            await self._change("DELETE FROM token WHERE digest = %s", digest)

    async def upkeep(self) -> None:
        """See Store: notices that the session is lost or belongs to another upstream, also without other calls."""
        with suppress(StoreError):
            for table, oldest, newest in await self._rows(_ENDS):
                if (last := forget_up_to(oldest, newest, self._kept)) is not None:
                    await self._change(_FORGET[table], last)

    async def close(self) -> None:
        """See Store."""
        await self._session.close()

    async def _sums(self, query: LiteralString, before: str) -> dict[int, int]:
        """The sums by shard of what is kept and of what is forgotten."""
        forgotten = await self._rows("SELECT shard, value FROM tally WHERE name = %s", before)
        return dict(Counter(dict(forgotten)) + Counter(dict(await self._rows(query))))

    async def _rows(self, query: LiteralString, *values: object) -> list[Row]:
        async def work(session: Session) -> list[Row]:
            return await (await session.execute(query, values)).fetchall()

        return await self._session.read(work)

    async def _change(self, query: LiteralString, *values: object) -> int:
        """Return the number of rows."""

        async def work(session: Session) -> int:
            return (await session.execute(query, values)).rowcount

        return await self._session.change(work)
