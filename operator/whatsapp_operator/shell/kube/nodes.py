"""What the API server knows about nodes. Decides nothing.

Two watches: of nodes, and of the Leases in the namespace kube-node-lease. Kopf could not restrict the second: it would watch the Leases of
all namespaces. Clocks of nodes may be an hour apart, so their times are never read: what counts is when *this process* observed a Lease
change. While this process is cut off (no connection, a dead one, a paused process), it learns nothing about nodes. So afterwards every
Lease counts as renewed now. Otherwise the first node with a new event would make all others seem lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Final, Protocol

from whatsapp_operator.core.snapshot import Node
from whatsapp_operator.shell.clock import Clock

from .errors import Expired, KubeError, Rejected
from .kinds import LEASE, NODE, Kind, Obj
from .node import node_of

log = logging.getLogger(__name__)

LEASE_NAMESPACE: Final = "kube-node-lease"
GONE_FOR: Final = 3600.0
"""Seconds for which a deleted node is remembered; its pods have long been deleted by then."""

# Times in seconds. A kubelet renews its Lease each 10 s, and reports its Node each 300 s or when it changes.
LEASE_STREAM: Final = 60
LEASE_SILENCE: Final = 25.0
"""After this long without a renewal, the connection is dead."""
NODE_STREAM: Final = 10
"""Short, because nodes may have no events for long: a dead connection, or an API server that hangs, shows when the server does not end the
stream in time."""
CUT_OFF_AFTER: Final = 12.0
"""Without any renewal for this long, this process was probably cut off: even a single live node renews more often."""
FIRST_RETRY: Final = 0.5
LAST_RETRY: Final = 5.0
KEPT: Final = 60.0
"""What is known is kept for this long after the first 403: a single one may be a short fault of the authorizer."""
DENIED: Final = 30.0
"""Pause after a 403 from then on: the right is missing, and may be granted at any time."""
REPORTED_AFTER: Final = 5.0
"""Failures are reported after this long: a shorter one is not worth a report."""


class NodeReads(Protocol):
    """The part of the Kubernetes client that is needed; reads only."""

    async def list_to_watch(self, kind: Kind, namespace: str | None) -> tuple[list[Obj], str]:
        """Return all objects, and the resourceVersion from which a watch misses nothing."""
        ...

    def watch(
        self, kind: Kind, namespace: str | None, *, resource_version: str | None, server_timeout: int
    ) -> AsyncGenerator[tuple[str, Obj]]:
        """Yield (ADDED | MODIFIED | DELETED, object); Expired, Rejected, Unavailable."""
        ...


def _judged(node: Node | None) -> tuple[bool | None, str | None, bool]:
    """Return the part of a node that decisions use; an unknown node counts as a healthy one."""
    return (node.ready, node.leaving, node.out_of_service) if node is not None and not node.gone else (True, None, False)


@dataclass(slots=True)
class _Feed:
    """One watch: its objects and its state."""

    kind: Kind
    namespace: str | None
    stream: int
    silence: float
    take_all: Callable[[list[Obj]], None]
    take: Callable[[str, Obj], None]
    version: str | None = None
    """The resourceVersion from which the next stream continues; None: list first."""
    is_known: bool = False
    trouble: str = field(default="")
    failing_since: float | None = None
    """Since when every attempt failed, by the monotonic clock."""
    denied_since: float | None = None
    """Since when every attempt was answered with 403, by the monotonic clock."""


class Nodes:
    """Keeps what is known about each node."""

    def __init__(self, kube: NodeReads, *, clock: Clock, changed: Callable[[str], None]) -> None:
        """Prepare; `run` reads. `changed` is called with a node's name when a part that decisions use changed; never for a renewal.

        It is called again for a node that leaves or is gone when nodes are listed again: moves off it wait while they cannot be read.
        """
        self._kube = kube
        self._clock = clock
        self._changed = changed
        self._nodes: dict[str, Node] = {}
        self._gone: dict[str, float] = {}
        """When the deletion of a node was observed, by the monotonic clock."""
        self._renewals: dict[str, tuple[str, datetime, bool]] = {}
        """By node: the text of renewTime, only compared for equality; when it was observed to change; and whether that is presumed."""
        self._responded_at = clock.monotonic()
        """When the last event of a Lease came."""
        self._was_cut_off = True
        self._snapshot: Mapping[str, Node] | None = None
        self._logged_denial = ""
        """The 403 that was logged last; empty: none since all could be read."""
        nodes = _Feed(NODE, None, NODE_STREAM, float(NODE_STREAM * 2), self._take_nodes, self._take_node)
        leases = _Feed(LEASE, LEASE_NAMESPACE, LEASE_STREAM, LEASE_SILENCE, self._take_leases, self._take_lease)
        self._feeds = (nodes, leases)

    def snapshot(self) -> Mapping[str, Node] | None:
        """Return all nodes by name as last observed; None while nothing is known: not read yet, or not allowed."""
        if not all(feed.is_known for feed in self._feeds):
            return None
        if self._snapshot is None:
            self._snapshot = MappingProxyType(dict(self._nodes))
        return self._snapshot

    def has_asked(self) -> bool:
        """Return whether the API server has answered: nodes and their Leases were read, or may not be read."""
        return all(feed.is_known or feed.denied_since is not None for feed in self._feeds)

    def unread(self) -> Mapping[str, str]:
        """Return the kinds that have not been readable for a while, and why."""
        now = self._clock.monotonic()
        return {
            feed.kind.kind: feed.trouble
            for feed in self._feeds
            # A feed with a version was listed again; its stream may have no events for long.
            if feed.version is None and feed.failing_since is not None and now - feed.failing_since >= REPORTED_AFTER
        }

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            for feed in self._feeds:
                group.create_task(self._follow(feed), name=f"watch of {feed.kind.plural}")

    # --- the watches ------------------------------------------------------------------------------------------------------

    async def _follow(self, feed: _Feed) -> None:
        pause = FIRST_RETRY
        while True:
            opened = self._clock.monotonic()
            try:
                await self._listen(feed)
                wait = 0.0
            except Expired:
                feed.version, wait = None, 0.0
            except TimeoutError:  # no event: open a new connection at once
                self._lose(feed, "")
                wait = 0.0
            except Exception as error:
                last = self._fail(feed, error)
                wait, pause = pause, min(pause * 2, last)
            else:
                pause = FIRST_RETRY
                self._recover(feed)
            if self._clock.monotonic() < opened + 1:  # never a busy loop, for any answer of the server
                wait = max(wait, FIRST_RETRY)
            await asyncio.sleep(wait)

    async def _listen(self, feed: _Feed) -> None:
        """List if needed, then follow one stream to its end."""
        if feed.version is None:
            found, feed.version = await self._kube.list_to_watch(feed.kind, feed.namespace)
            feed.take_all(found)
            feed.is_known = True
        stream = self._kube.watch(feed.kind, feed.namespace, resource_version=feed.version, server_timeout=feed.stream)
        async with aclosing(stream) as events:
            while True:
                async with asyncio.timeout(feed.silence):
                    event = await anext(events, None)
                if event is None:
                    return
                what, obj = event
                self._recover(feed)
                feed.take(what, obj)
                feed.version = obj["metadata"]["resourceVersion"]

    def _lose(self, feed: _Feed, trouble: str) -> None:
        """Note that a watch broke: events until the next list are missed."""
        feed.version = None
        self._was_cut_off |= feed.kind is LEASE
        if trouble and trouble != feed.trouble:
            log.info("A watch of nodes broke: %s", trouble)
        feed.trouble = trouble

    def _recover(self, feed: _Feed) -> None:
        """Note that a watch works."""
        feed.failing_since = feed.denied_since = None
        feed.trouble = ""
        if all(one.failing_since is None for one in self._feeds):
            self._logged_denial = ""

    def _fail(self, feed: _Feed, error: Exception) -> float:
        """Note why a watch broke; return the longest pause before the next attempt, in seconds.

        After a while of 403s, nothing counts as known any more: it may be out of date.
        """
        now = self._clock.monotonic()
        feed.failing_since = now if feed.failing_since is None else feed.failing_since
        if not isinstance(error, KubeError):
            log.error("The watch of %s failed by an internal error of the operator", feed.kind.plural, exc_info=error)
        if not (isinstance(error, Rejected) and error.code == 403):
            feed.denied_since = None
            self._lose(feed, str(error))
            return LAST_RETRY
        if not self._logged_denial:
            log.warning(
                "Nodes may not be read, so a lost node cannot be distinguished from a Coreapp that hangs. To change that, grant list and "
                "watch of nodes, and of leases in namespace %s. (%s)",
                LEASE_NAMESPACE,
                error,
            )
        self._logged_denial = feed.trouble = str(error)
        self._lose(feed, feed.trouble)
        # Not since the first failure: an API server that comes back after an outage rejects everything until it has read the roles.
        feed.denied_since = now if feed.denied_since is None else feed.denied_since
        if now - feed.denied_since < KEPT:
            return LAST_RETRY
        feed.is_known = False
        return DENIED

    # --- nodes ------------------------------------------------------------------------------------------------------------

    def _take_nodes(self, found: Iterable[Obj]) -> None:
        there = {obj["metadata"]["name"]: obj for obj in found}
        for name in self._nodes.keys() - there.keys():
            if self._nodes[name].gone:
                self._changed(name)
            self._drop(name)
        for obj in there.values():
            self._take_node("ADDED", obj)

    def _take_node(self, what: str, obj: Obj) -> None:
        name = obj["metadata"]["name"]
        if what == "DELETED":
            self._drop(name)
            return
        before = self._nodes.get(name)
        _, renewed_at, presumed = self._renewals.get(name, ("", None, False))
        self._nodes[name] = node = replace(node_of(obj), renewed_at=renewed_at, presumed=presumed)
        self._gone.pop(name, None)
        if node != before:
            self._snapshot = None
        is_going = node.leaving is not None or node.out_of_service
        if _judged(node) != _judged(before) or (before is not None and before.gone) or (what == "ADDED" and is_going):
            self._changed(name)

    def _drop(self, name: str) -> None:
        """Remember that a known node is gone. An unknown one may be new, and its pods may be alive."""
        node = self._nodes.get(name)
        if node is None or node.gone:
            return
        now = self._clock.monotonic()
        for other in [other for other, at in self._gone.items() if now - at > GONE_FOR]:
            del self._gone[other], self._nodes[other]
        self._nodes[name], self._gone[name] = replace(node, gone=True), now
        self._snapshot = None
        self._changed(name)

    # --- Leases -----------------------------------------------------------------------------------------------------------

    def _take_leases(self, found: Iterable[Obj]) -> None:
        there = {obj["metadata"]["name"]: obj for obj in found}
        for name in self._renewals.keys() - there.keys():
            self._forget_lease(name)
        for obj in there.values():
            self._note(obj, presumed=True)
        self._note_contact(was_cut_off=self._was_cut_off)
        self._was_cut_off = False

    def _take_lease(self, what: str, obj: Obj) -> None:
        self._note_contact(was_cut_off=False)
        if what == "DELETED":
            self._forget_lease(obj["metadata"]["name"])
        else:
            self._note(obj, presumed=False)

    def _note_contact(self, *, was_cut_off: bool) -> None:
        now = self._clock.monotonic()
        if was_cut_off or now - self._responded_at > CUT_OFF_AFTER:
            for name, (renew_time, *_) in tuple(self._renewals.items()):
                self._renew(name, renew_time, presumed=True)
        self._responded_at = now

    def _note(self, obj: Obj, *, presumed: bool) -> None:
        name, renew_time = obj["metadata"]["name"], str((obj.get("spec") or {}).get("renewTime"))
        if name not in self._renewals or self._renewals[name][0] != renew_time:
            self._renew(name, renew_time, presumed=presumed)

    def _renew(self, name: str, renew_time: str, *, presumed: bool) -> None:
        """Count a Lease as renewed now; `presumed`: it is not known when it was renewed, or whether it was."""
        now = self._clock.now()
        self._renewals[name] = (renew_time, now, presumed)
        if name in self._nodes:
            self._nodes[name] = replace(self._nodes[name], renewed_at=now, presumed=presumed)
            self._snapshot = None

    def _forget_lease(self, name: str) -> None:
        self._renewals.pop(name, None)
        if name in self._nodes:
            self._nodes[name] = replace(self._nodes[name], renewed_at=None)
            self._snapshot = None
