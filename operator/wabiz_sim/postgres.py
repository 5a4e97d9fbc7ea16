"""The upstream's database on a PostgreSQL server: the same guarantees as the file's, with one round trip for most calls."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, LiteralString

from .database import Database
from .dbsession import DatabaseSession, Session
from .epoch import Epoch
from .gatewaylog import Entry, Kind
from .store import ADMIT, HIGHEST, KEPT, SCHEMA, Row, Store, StoreError, forget_up_to

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


class PostgresStore(Store):
    """A separate database on a server, created at the first start. Sequence numbers grow, but may have gaps."""

    def __init__(self, database: Database, on_uncertain: Callable[[], None], *, kept: int = KEPT) -> None:
        """``on_uncertain`` is called when a change failed but may still have been made: cached values must be read again."""
        self._kept = kept
        self._session = DatabaseSession(database, SCHEMA, on_uncertain)

    async def open(self, patience: float) -> None:
        """Connect within ``patience`` seconds, create what is missing, and end the session of an earlier upstream.

        Raises OSError when it cannot be done, ValueError when the folder of certificates lacks one.
        """
        await self._session.open(patience)

    @property
    def engine(self) -> str:
        """See Store."""
        return "PGSQL"

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
            await session.execute(ADMIT, (shard, epoch.n, epoch.text, uid))
            return await (await session.execute(HIGHEST, (shard,))).fetchone()

        highest = await self._session.change(work)
        if highest == (epoch.text, uid):
            return None
        return epoch if highest is None else Epoch.parse(highest[0])

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

    async def missing(self, ids: list[str]) -> list[str]:
        """See Store."""
        rows = await self._rows(
            "SELECT asked.id FROM unnest(%s::text[]) WITH ORDINALITY AS asked (id, place) "
            "WHERE NOT EXISTS (SELECT 1 FROM message WHERE message.id = asked.id) ORDER BY place",
            ids,
        )
        return [message_id for (message_id,) in rows]

    async def upkeep(self) -> None:
        """See Store: notices that the session is lost or belongs to another upstream, also without other calls."""
        with suppress(StoreError):
            for table, oldest, newest in await self._rows(_ENDS):
                if (last := forget_up_to(oldest, newest, self._kept)) is not None:
                    await self._change(_FORGET[table], last)

    async def close(self) -> None:
        """See Store."""
        await self._session.close()

    async def _rows(self, query: LiteralString, *values: object) -> list[Row]:
        async def work(session: Session) -> list[Row]:
            return await (await session.execute(query, values)).fetchall()

        return await self._session.read(work)

    async def _change(self, statement: LiteralString, *values: object) -> int:
        async def work(session: Session) -> int:
            return (await session.execute(statement, values)).rowcount

        return await self._session.change(work)
