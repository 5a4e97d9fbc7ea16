"""A dashboard of a watched API server, and a reader of its events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from kubectl_whatsapp import access
from kubectl_whatsapp.access import Options
from kubectl_whatsapp.dashboard.board import Board, Scope
from kubectl_whatsapp.dashboard.server import Server

from .clusters import kubeconfig

Obj = dict[str, Any]
LONG = 60.0
"""Seconds in which anything must have happened."""


@asynccontextmanager
async def a_dashboard(url: str, *, scope: Scope | None = None) -> AsyncIterator[Server]:
    """A dashboard of the API server at ``url``, of all clusters if no ``scope`` is given."""
    found = access.access_of(kubeconfig(url), Options())
    server = Server(lambda changed: Board(found.client(), found.client(), scope or Scope(namespace=""), changed))
    async with server.serving():
        yield server


class Page:
    """What a page has been sent."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.events: list[tuple[str, Obj]] = []

    async def next(self) -> tuple[str, Obj]:
        """The next event: its name and its data. Fails if it is not one as the standard has it."""
        name = ""
        data: list[str] = []
        while line := (await self.answer.content.readline()).decode().rstrip("\n"):
            field, _, value = line.partition(": ")
            assert field in {"event", "data", "retry"}, line
            name, data = (value, data) if field == "event" else (name, [*data, value] if field == "data" else data)
        if self.answer.content.at_eof() and not name:
            msg = "the stream ended"
            raise AssertionError(msg)
        return (name, json.loads("\n".join(data))) if name else await self.next()

    async def until(self, name: str, holds: Callable[[Obj], object], seconds: float = LONG) -> Obj:
        """The first event of this name from now on for which this holds."""
        async with asyncio.timeout(seconds):
            while True:
                self.events.append(await self.next())
                if self.events[-1][0] == name and holds(self.events[-1][1]):
                    return self.events[-1][1]


@asynccontextmanager
async def a_page(server: Server, **selected: str) -> AsyncIterator[Page]:
    """A page that is open, with a cluster (``namespace``, ``cluster``) and a ``shard`` selected."""
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}events", params=selected) as answer:
        assert answer.status == 200
        yield Page(answer)


def sentence(found: Obj) -> str:
    """The verdict on the selected cluster."""
    return str(found.get("status", {}).get("verdict", {}).get("sentence", ""))
