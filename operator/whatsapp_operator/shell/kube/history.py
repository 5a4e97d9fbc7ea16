"""Notices that the API server's data has gone back: etcd was restored from a backup while this process ran.

Then everything that this process remembers may be newer than what is stored. A watch that continues from an earlier resourceVersion does
not fail, but reports nothing until the server has reached that version again, which may take days. Only a new process is right.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .kinds import Kind, Obj
    from .lease import Leases, Watch


class DataWentBack(Exception):  # noqa: N818  the name says what happened
    """The API server's data is older than what this process has read before."""


class History:
    """Passes on the calls of an election, one after the other and each second, and notes the versions of its Lease.

    Versions of one etcd only grow, even when an object is created again. A single lower version may be a senseless answer. After two, the
    second higher than the first, the Lease continues from there. Events may come late: they show which versions there have been, but never
    that the data has gone back.
    """

    def __init__(self, kube: Leases, watch: Watch) -> None:
        """Pass every call on to ``kube`` and ``watch``."""
        self._kube, self._watch = kube, watch
        self._newest = 0
        self._lower: int | None = None
        """The last version as stored, if it was lower than the newest."""
        self._why = ""
        self._went_back = asyncio.Event()

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        """See Leases."""
        newest = self._newest
        found = await self._kube.get(kind, namespace, name)
        return found if found is None else self._stored(found, newest)

    async def create(self, obj: Obj) -> Obj:
        """See Leases."""
        newest = self._newest
        return self._stored(await self._kube.create(obj), newest)

    async def replace(self, obj: Obj) -> Obj:
        """See Leases."""
        newest = self._newest
        return self._stored(await self._kube.replace(obj), newest)

    async def watch(self, kind: Kind, namespace: str | None, *, name: str | None, server_timeout: int) -> AsyncGenerator[tuple[str, Obj]]:
        """See Watch."""
        async with aclosing(self._watch(kind, namespace, name=name, server_timeout=server_timeout)) as events:
            async for what, obj in events:
                self._note(obj)
                yield what, obj

    async def run(self) -> None:
        """Wait until the data has gone back, then raise DataWentBack."""
        await self._went_back.wait()
        raise DataWentBack(self._why)

    def _note(self, obj: Obj) -> int:
        """Note the version of a Lease, and return it; the newest one if it has none that is a number."""
        text = str(obj["metadata"].get("resourceVersion"))
        version = int(text) if text.isdecimal() else self._newest
        self._newest = max(version, self._newest)
        return version

    def _stored(self, obj: Obj, newest: int) -> Obj:
        """Judge the version of a Lease as it was stored after a call had begun; ``newest``: that of before.

        While the answer was on its way, an event may have reported a newer one.
        """
        version, before = self._note(obj), self._lower
        self._lower = version if version < newest else None
        if self._lower is not None and before is not None and version > before:
            self._why = (
                f"The API server's data has gone back: the Lease is at version {version} and was at {newest}. etcd was restored from "
                "a backup, so what this process remembers is wrong. It ends, and is to be started again."
            )
            self._went_back.set()
        return obj
