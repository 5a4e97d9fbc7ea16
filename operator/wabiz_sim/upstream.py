"""The upstream: the shared database and the WhatsApp servers in one process."""

import asyncio
from typing import Any

from aiohttp import web

from .account import Account
from .api import Api
from .control import Control
from .exchange import Exchange
from .faults import Faults
from .gateway import LOGGED_OFF, RESHARDED
from .listener import Listener
from .members import Member, Members
from .preferences import Preferences
from .process import Process
from .settings import UPSTREAM_PORT, Settings
from .store import SqliteStore, Store
from .users import Users

_UPKEEP_SECONDS = 2.0


class Upstream(Process):
    """One upstream, with its state in ``WABIZ_STATE_DIR``; it goes on after a restart where it was."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.faults = Faults()
        self._store: Store | None = None
        self._members: Members | None = None
        self._exchange: Exchange | None = None

    async def come_up(self) -> None:
        """Open the database, listen."""
        store = self._store = SqliteStore(self.settings.state_folder() / "upstream.sqlite")
        members = Members(self.gate, lambda: self._hello(account, preferences))
        self._members = members

        async def restart() -> None:
            await self._restart_all(account, members, exchange)

        async def cut() -> None:
            await exchange.close_all(LOGGED_OFF)

        account = Account(store, self.settings, restart=restart, cut=cut)
        preferences = Preferences(store)
        users = Users(store, members.forget_tokens)
        exchange = self._exchange = Exchange(store, account, self.faults, self.gate, self.spawn)
        for part in (account, preferences, users, exchange):
            await part.load()
        api = Api(
            store=store,
            account=account,
            users=users,
            preferences=preferences,
            members=members,
            exchange=exchange,
            faults=self.faults,
            spawn=self.spawn,
        )
        control = Control(store=store, account=account, users=users, members=members, exchange=exchange, faults=self.faults, api=api)
        routes = [
            web.get("/", _alive),
            web.get("/ws/node", members.serve),
            web.get("/ws/gateway", exchange.serve),
            *api.routes(),
            *control.routes(),
        ]
        self.listeners = [Listener(self.settings.listen, UPSTREAM_PORT, routes, gate=self.gate)]
        await self.listeners[0].open()
        self.spawn(self._upkeep(store))
        self.log.info("%s has %d shards", self.settings.pod_name, account.shards)

    async def say_goodbye(self) -> None:
        """Close all websockets with a close frame."""
        if self._exchange is not None and self._members is not None:
            await asyncio.gather(self._exchange.close_all(1001), self._members.close(1001))

    def let_go(self) -> None:
        """Close the database."""
        if self._store is not None:
            self._store.close()

    def _hello(self, account: Account, preferences: Preferences) -> dict[str, Any]:
        return {
            "type": "hello",
            "shards": account.shards,
            "seconds": self.settings.restart_seconds,
            "settings": preferences.application,
        }

    async def _restart_all(self, account: Account, members: Members, exchange: Exchange) -> None:
        """Tell everybody, in the background: the answer to Set Shards does not wait for the restarts."""
        self.spawn(members.tell("webapp", {"type": "shards", "shards": account.shards}))
        for member in members.of("coreapp"):
            fault = self.faults.take("restart", member.pod)
            seconds = self.settings.restart_seconds + (fault.seconds if fault else 0.0)
            self.spawn(_tell_restart(member, account.shards, seconds))
        self.spawn(exchange.close_all(RESHARDED))

    async def _upkeep(self, store: Store) -> None:
        while True:
            await asyncio.sleep(_UPKEEP_SECONDS)
            await store.upkeep()


async def _tell_restart(member: Member, shards: int, seconds: float) -> None:
    await member.send({"type": "restart", "shards": shards, "seconds": seconds})


async def _alive(_request: web.Request) -> web.Response:
    return web.json_response({"status": "up"})
