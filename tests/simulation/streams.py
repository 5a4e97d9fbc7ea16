"""One watch connection to the simulated API server: what it tells, and how it is cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import Context
from math import inf, nextafter

from .apiserver import ApiServer, Change, matches
from .kinds import Named, Obj, own

WatchEvent = tuple[str, Obj]


class Stream:
    """Events of one kind in order, each after its `lag` in seconds. Once it is cut it tells no more: what comes then is lost to it."""

    def __init__(
        self,
        server: ApiServer,
        kind: Named,
        namespace: str | None,
        *,
        labels: Mapping[str, str] | None,
        name: str | None,
        label: str | None = None,
        lag: Callable[[], float],
        is_broken: Callable[[], bool],
    ) -> None:
        self._server = server
        self._kind = own(kind)
        self._namespace = namespace
        self._labels = labels
        self._name = name
        self._label = label
        """A label that an object must have, with any value; None: none."""
        self._lag = lag
        self._is_broken = is_broken
        self._events: asyncio.Queue[WatchEvent | None] = asyncio.Queue()
        self._is_cut = False
        self._due = 0.0

    def open(self, version: str | None) -> None:
        """Begin with what happened after a resourceVersion, or (None) with what is there. Expired."""
        if version is None:
            for obj in self._server.list(self._kind, self._namespace):
                if self._selects(obj):
                    self._send(("ADDED", obj))
        else:
            for change in self._server.since(self._kind, int(version)):
                self._hear(change)
        self._server.watchers.append(self._hear)

    def close(self) -> None:
        """Hear no more of the server."""
        if self._hear in self._server.watchers:
            self._server.watchers.remove(self._hear)

    async def next(self) -> WatchEvent | None:
        """Return the next event; None once the connection is cut."""
        return await self._events.get()

    def _selects(self, obj: Obj | None) -> bool:
        if obj is None:
            return False
        meta = obj["metadata"]
        there = self._namespace is None or meta.get("namespace", "") == self._namespace
        has_label = self._label is None or self._label in (meta.get("labels") or {})
        return there and has_label and self._name in {None, meta["name"]} and matches(self._labels, meta.get("labels"))

    def _hear(self, change: Change) -> None:
        if change.kind is not self._kind:
            return
        was, now = self._selects(change.before), self._selects(change.after)
        if now:
            self._send(("MODIFIED" if was else "ADDED", change.after or {}))
        elif was:
            last = change.before or {}
            self._send(("DELETED", {**last, "metadata": {**last["metadata"], "resourceVersion": str(change.revision)}}))

    def _send(self, event: WatchEvent) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._lag()
        # Timers of one instant have no order.
        self._due = due if due > self._due else nextafter(self._due, inf)
        # On the wire nothing stands still, no matter what becomes of the process that listens.
        loop.call_at(self._due, self._arrive, event, context=Context())

    def _arrive(self, event: WatchEvent) -> None:
        if not self._is_cut and self._is_broken():
            self._is_cut = True
            self.close()
            self._events.put_nowait(None)
        if not self._is_cut:
            self._events.put_nowait(event)
