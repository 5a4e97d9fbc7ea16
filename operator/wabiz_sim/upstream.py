"""The upstream: the shared database and the WhatsApp servers in one process."""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from .account import Account
from .api import Api
from .control import Control
from .database import Database
from .envelope import DATABASE_ERROR, failure
from .exchange import Exchange
from .faults import Faults
from .gateway import LOGGED_OFF, RESHARDED, UNABLE
from .link import Backoff
from .listener import Listener
from .members import Member, Members
from .preferences import Preferences
from .process import Process
from .settings import UPSTREAM_PORT, Settings, SettingsError
from .store import SqliteStore, Store, StoreError
from .users import Users

_UPKEEP_SECONDS = 2.0
_START_SECONDS = 60.0
"""Seconds to wait for a database that is not available yet."""


_LOADS = 3
"""Attempts to read the database at the start before the process gives up."""


class _Part(Protocol):
    async def load(self) -> None:
        """Read from the store what is cached in memory."""


class Upstream(Process):
    """One upstream, with its state in ``WABIZ_STATE_DIR`` or a PostgreSQL database; after a restart it continues with that state.

    If a change of the database failed, the cached state is uncertain. The upstream then does the same as a restarted process: it closes
    every connection, and answers only 503 until it has read everything again.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.faults = Faults()
        self._uncertain_changes = 0
        self._uncertain = asyncio.Event()
        self._store: Store | None = None
        self._members: Members | None = None
        self._exchange: Exchange | None = None

    async def come_up(self) -> None:
        """Open the database, listen."""
        store = await self._opened(self.settings.database)
        self._store = store
        members = Members(self.gate, lambda: self._hello(account, preferences))
        self._members = members

        async def restart() -> None:
            await self._restart_all(account, members, exchange)

        async def cut() -> None:
            await exchange.close_all(LOGGED_OFF)

        account = Account(store, self.settings, restart=restart, cut=cut)
        preferences = Preferences(store)
        users = Users(store, members.forget_tokens)
        exchange = self._exchange = Exchange(store, account, self.faults, self.gate, self._spawn_storing)
        parts = (account, preferences, users, exchange)
        await _load_at_start(parts)
        api = Api(
            store=store,
            account=account,
            users=users,
            preferences=preferences,
            members=members,
            exchange=exchange,
            faults=self.faults,
            spawn=self._spawn_storing,
        )
        control = Control(store=store, account=account, users=users, members=members, exchange=exchange, faults=self.faults, api=api)
        routes = [
            web.get("/", _alive),
            web.get("/ws/node", members.serve),
            web.get("/ws/gateway", exchange.serve),
            *api.routes(),
            *control.routes(),
        ]
        self.listeners = [Listener(self.settings.listen, UPSTREAM_PORT, routes, gate=self.gate, middlewares=[self._unless_uncertain])]
        await self.listeners[0].open()
        self.spawn(self._upkeep(store))
        self.spawn(self._restart_when_uncertain(parts, members, exchange))
        self.log.info("%s has %d shards (%s)", self.settings.pod_name, account.shards, store.engine)

    async def announce_shutdown(self) -> None:
        """Close all websockets with a close frame."""
        if self._exchange is not None and self._members is not None:
            await asyncio.gather(self._exchange.leave(), self._members.leave())

    async def let_go(self) -> None:
        """Close the database."""
        if self._store is not None:
            await self._store.close()

    async def _opened(self, database: Database | None) -> Store:
        if database is None:
            return SqliteStore(self.settings.state_folder() / "upstream.sqlite", self._note_uncertain)
        return await self._postgres(database)

    async def _postgres(self, database: Database) -> Store:
        try:
            from .postgres import PostgresStore  # noqa: PLC0415 - without a server its library is not needed
        except ImportError as error:
            msg = f"WA_DB_HOSTNAME names a server, but its library is missing ({error}): pip install 'whatsapp-operator[simulator]'"
            raise SettingsError(msg) from None

        store = self._store = PostgresStore(database, self._note_uncertain)
        try:
            await store.open(_START_SECONDS)
        except ValueError as error:
            raise SettingsError(str(error)) from None
        return store

    # when the database fails

    def _note_uncertain(self) -> None:
        self._uncertain_changes += 1
        self._uncertain.set()

    @web.middleware
    async def _unless_uncertain(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer 503 when the database fails, and while the cached state is uncertain; ``/`` only shows that the process lives."""
        try:
            if self._uncertain.is_set() and request.path != "/":
                msg = "the database is being read again"
                raise StoreError(msg)
            return await handler(request)
        except StoreError as error:
            self.log.debug("%s: %s %s: %s", self.settings.pod_name, request.method, request.path, error)
            answer = failure(503, DATABASE_ERROR, "the database does not answer, retry")
            return web.json_response(answer.body, status=answer.status)

    async def _restart_when_uncertain(self, parts: Sequence[_Part], members: Members, exchange: Exchange) -> None:
        while True:
            await self._uncertain.wait()
            self.log.warning("%s reads its state again: the database did not confirm a change", self.settings.pod_name)
            await _close_all(members, exchange)
            backoff = Backoff()
            while not await self._read_again(parts, members, exchange):
                await backoff.pause()
            self.log.info("%s has read its state again", self.settings.pod_name)

    async def _read_again(self, parts: Sequence[_Part], members: Members, exchange: Exchange) -> bool:
        changes = self._uncertain_changes
        try:
            await _load(parts)
        except StoreError:
            return False
        await _close_all(members, exchange)  # members that were just connecting got the former state
        if changes != self._uncertain_changes:
            return False
        self._uncertain.clear()
        return True

    def _spawn_storing(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run background work; a missing database does not end the process."""
        return self.spawn(_unless_unavailable(work))

    def _hello(self, account: Account, preferences: Preferences) -> dict[str, Any]:
        return {
            "type": "hello",
            "shards": account.shards,
            "seconds": self.settings.restart_seconds,
            "settings": preferences.application,
        }

    async def _restart_all(self, account: Account, members: Members, exchange: Exchange) -> None:
        """Announce the restart in the background: the answer to Set Shards does not wait for the restarts."""
        self.spawn(members.tell("webapp", {"type": "shards", "shards": account.shards}))
        for member in members.of("coreapp"):
            fault = self.faults.take("restart", member.pod)
            seconds = self.settings.restart_seconds + (fault.seconds if fault else 0.0)
            self.spawn(_announce_restart(member, account.shards, seconds))
        self.spawn(exchange.close_all(RESHARDED))

    async def _upkeep(self, store: Store) -> None:
        while True:
            await asyncio.sleep(_UPKEEP_SECONDS)
            await store.upkeep()


async def _load(parts: Sequence[_Part]) -> None:
    for part in parts:
        await part.load()


async def _load_at_start(parts: Sequence[_Part]) -> None:
    for attempt in range(_LOADS):
        try:
            await _load(parts)
            return
        except StoreError as error:
            if attempt == _LOADS - 1:
                raise OSError(str(error)) from None


async def _close_all(members: Members, exchange: Exchange) -> None:
    await asyncio.gather(exchange.close_all(UNABLE), members.close(UNABLE))


async def _unless_unavailable(work: Coroutine[object, object, None]) -> None:
    with suppress(StoreError):
        await work


async def _announce_restart(member: Member, shards: int, seconds: float) -> None:
    await member.send({"type": "restart", "shards": shards, "seconds": seconds})


async def _alive(_request: web.Request) -> web.Response:
    return web.json_response({"status": "up"})
