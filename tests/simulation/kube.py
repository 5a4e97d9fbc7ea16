"""One process's way to the simulated API server: the `Kube` protocol with delays, lost answers, late writes and stale reads."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from contextvars import Context
from copy import copy
from random import Random
from typing import Any, Self, TypeVar

from whatsapp_operator.shell.kube import errors
from whatsapp_operator.shell.kube.client import Fence
from whatsapp_operator.shell.kube.errors import Expired, KubeError, LeaseTooShort, Unavailable
from whatsapp_operator.shell.kube.kinds import LEASE, Kind, Obj, kind_of

from . import apiserver
from .apiserver import AlreadyExists, ApiServer, Conflict, NotFound, Rejected, TestFailed, TooManyRequests
from .kinds import Named, own
from .network import Network
from .streams import Stream

T = TypeVar("T")
Objects = list[Obj]

READ_LIMIT, WRITE_LIMIT = 5.0, 2.0
CACHE_BEHIND = 1.0
"""Seconds by which the server's cache may be behind."""


class SimKube:
    """The Kubernetes client of one process. `kill` ends it: what is under way lands or not, as chance has it."""

    def __init__(self, server: ApiServer, *, actor: str, rng: Random, network: Network, fence: Fence | None = None) -> None:
        self._server = server
        self._actor = actor
        self._rng = rng
        self._network = network
        self._fence = fence
        self._dead = [False]
        self._cut: set[str] = set()
        """Kinds whose last watch did not end by itself."""
        self.reads: Counter[str] = Counter()
        """How often which kind was asked for; shared by all views."""
        self.sent: Counter[tuple[str, str]] = Counter()
        """How often which kind was written, (verb, kind), also where nothing came of it; shared by all views."""
        self.watch_lag = 0.0
        """How many seconds late the news of nodes may be."""
        self.before_write: Callable[[str], None] | None = None
        self.after_write: Callable[[str], None] | None = None
        """Called with what a write is, at the instants between which it takes effect; for crashes at every write."""

    def fenced(self, fence: Fence) -> Self:
        """Return a view of the same process whose writes ask `fence` first; it shares all else."""
        view = copy(self)
        view._fence = fence
        return view

    def kill(self) -> None:
        """The process is gone: no call of it returns, none begins."""
        self._dead[0] = True

    async def _read(self, what: str, ask: Callable[[float | None], T], *, may_be_stale: bool) -> T:
        self.reads[what.split()[1]] += 1
        stale = may_be_stale and self._rng.random() < self._network.stale
        lag = self._rng.random() * self._network.stale_by if stale else 0.0
        self._network.did["stale"] += stale
        return await self._send(what, lambda: ask(asyncio.get_running_loop().time() - lag if lag else None), READ_LIMIT)

    async def _write(self, what: str, kind: Kind, name: str, touch: Callable[[], None] | None, do: Callable[[], T]) -> T:
        if self._dead[0]:
            raise asyncio.CancelledError
        if self._fence is not None and self._fence.seconds_left() <= WRITE_LIMIT:
            raise LeaseTooShort(f"{what} {kind.kind} {name}: not sent")
        self.sent[what, kind.kind] += 1
        if self.before_write is not None:
            self.before_write(f"{what} {kind.kind} {name}")

        asked_at = asyncio.get_running_loop().time()

        def execute() -> T:
            self._server.asked_at = asked_at
            try:
                return carry_out()
            finally:
                self._server.asked_at = None

        def carry_out() -> T:
            if touch is not None and kind is not LEASE and self._rng.random() < self._network.touched:
                touch()
                self._network.did["touched"] += 1
            if (rejection := self._server.rejects.get((what, own(kind)))) is not None:
                self._network.did["rejected"] += 1
                raise rejection(f"{what} {kind.kind} {name}")
            result = do()
            if self.after_write is not None:
                self.after_write(f"{what} {kind.kind} {name}")
            return result

        return await self._send(f"{what} {kind.kind} {name}", execute, WRITE_LIMIT)

    async def _send(self, what: str, execute: Callable[[], T], limit: float) -> T:
        if self._dead[0]:
            raise asyncio.CancelledError
        loop, rng, network = asyncio.get_running_loop(), self._rng, self._network
        answer: asyncio.Future[T] = loop.create_future()
        there = 0.001 + rng.random() * 0.004
        back = 0.001 + rng.random() * 0.002
        if network.slow and rng.random() < network.slow:
            there += rng.random()
            network.did["slow"] += 1
        outcome = rng.random()
        if network.down or outcome < network.dropped:
            network.did["down" if network.down else "dropped"] += 1
            loop.call_later(limit if rng.random() < 0.3 else there, _fail, answer, Unavailable(f"{what}: no answer"))
            return await self._heard(answer)
        outcome -= network.dropped
        responses = True
        if outcome < network.lost:
            responses = False
            network.did["lost"] += 1
            loop.call_later(there + back, _fail, answer, Unavailable(f"{what}: no answer"))
        elif outcome < network.lost + network.late:
            responses = False
            network.did["late"] += 1
            there = limit + rng.random() * 4
            loop.call_later(limit, _fail, answer, Unavailable(f"{what}: no answer"))
        lands_after_death = rng.random() < 0.5

        def arrive() -> None:
            if self._dead[0] and not lands_after_death:
                return
            try:
                result = execute()
            except Rejected as error:
                if responses:
                    loop.call_later(back, _fail, answer, _as_heard(error))
            else:
                if responses:
                    loop.call_later(back, _succeed, answer, result)

        # On the wire it does not stand still, no matter what becomes of the process that sent it.
        loop.call_later(there, arrive, context=Context())
        return await self._heard(answer)

    async def _heard(self, answer: asyncio.Future[T]) -> T:
        result = await answer
        if self._dead[0]:
            raise asyncio.CancelledError
        return result

    # --- the protocol -------------------------------------------------------------------------------------------------

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        return await self._read(
            f"get {kind.kind} {name}", lambda as_of: self._server.get(kind, (namespace or "", name), as_of), may_be_stale=kind is not LEASE
        )

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None, *, at_least: str | None = None
    ) -> list[Obj]:
        if at_least is None:
            return await self._read(f"list {kind.kind}", lambda as_of: self._server.list(kind, namespace, labels, as_of), may_be_stale=True)
        self._network.did["from cache"] += 1
        behind = self._rng.random() * CACHE_BEHIND

        def from_cache(_: float | None) -> list[Obj]:
            as_of = max(asyncio.get_running_loop().time() - behind, self._server.time_of(kind, int(at_least)))
            return self._server.list(kind, namespace, labels, as_of)

        return await self._read(f"list {kind.kind}", from_cache, may_be_stale=False)

    async def list_events(self, namespace: str, uid: str) -> Objects:
        return await self._read("list Event", lambda _: self._server.events_about(namespace, uid), may_be_stale=False)

    async def list_to_watch(self, kind: Kind, namespace: str | None) -> tuple[Objects, str]:
        return await self._read(
            f"list {kind.kind}", lambda _: (self._server.list(kind, namespace), str(self._server.revision)), may_be_stale=False
        )

    async def watch(
        self,
        kind: Named,
        namespace: str | None,
        *,
        resource_version: str | None = None,
        server_timeout: int = 30,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
        label: str | None = None,
        lag: Callable[[], float] | None = None,
    ) -> AsyncGenerator[tuple[str, Obj]]:
        loop, rng = asyncio.get_running_loop(), self._rng
        least = rng.random() * 0.02
        stream = Stream(
            self._server,
            kind,
            namespace,
            labels=labels,
            name=name,
            label=label,
            lag=lag or (lambda: least + (rng.random() * self.watch_lag if self.watch_lag else 0.0)),
            is_broken=self._is_broken,
        )
        await self._send(f"watch {kind.kind}", lambda: self._resume(kind, resource_version), READ_LIMIT)
        end = loop.time() + server_timeout
        try:
            try:
                stream.open(resource_version)
            except Rejected as error:
                raise _as_heard(error) from None
            while (left := end - loop.time()) > 0:
                try:
                    async with asyncio.timeout(left):
                        event = await stream.next()
                except TimeoutError:
                    return
                if event is None or self._dead[0]:
                    self._cut.add(kind.kind)
                    self._network.did["watch cut"] += not self._dead[0]
                    raise Unavailable(f"watch {kind.kind}: broken")
                yield event
        finally:
            stream.close()

    def _is_broken(self) -> bool:
        network = self._network
        return self._dead[0] or network.down or (network.dropped > 0 and self._rng.random() < network.dropped / 4)

    def _resume(self, kind: Named, version: str | None) -> None:
        """Let a watch go on; after an outage the server may have been started again, and know nothing of what was."""
        if kind.kind in self._cut:
            self._cut.discard(kind.kind)
            if self._rng.random() < 0.3:
                self._server.forget(kind)
        if version is not None:
            self._server.since(kind, int(version))

    async def follow(self, kind: Named, tell: Callable[[Obj, bool], None], *, lag: Callable[[], float], label: str | None = None) -> None:
        """Tell of all objects of a kind that have a label, and whether each is gone, forever; as Kopf watches.

        Streams go on where the last one ended. After a 410 everything is listed again; nobody tells what was deleted meanwhile.
        """
        version: str | None = None
        while True:
            try:
                if version is None:
                    found, version = await self._send(
                        f"list {kind.kind}", lambda: (self._server.list(kind, None), str(self._server.revision)), READ_LIMIT
                    )
                    for obj in found:
                        tell(obj, False)
                async with aclosing(self.watch(kind, None, resource_version=version, server_timeout=60, lag=lag, label=label)) as events:
                    async for what, obj in events:
                        version = obj["metadata"]["resourceVersion"]
                        tell(obj, what == "DELETED")
            except Expired:
                version = None
            except KubeError:
                pass
            await asyncio.sleep(0.1)

    async def create(self, obj: Obj) -> Obj:
        return await self._write("create", kind_of(obj), obj["metadata"]["name"], None, lambda: self._server.create(self._actor, obj))

    async def patch_json(self, kind: Kind, namespace: str | None, name: str, ops: Sequence[Mapping[str, Any]]) -> Obj:
        key = (namespace or "", name)
        return await self._write("patch", kind, name, self._touch(kind, key), lambda: self._server.patch(self._actor, kind, key, ops))

    async def patch_merge(self, kind: Kind, namespace: str | None, name: str, body: Mapping[str, Any]) -> Obj:
        key = (namespace or "", name)
        return await self._write("patch", kind, name, self._touch(kind, key), lambda: self._server.merge(self._actor, kind, key, body))

    async def patch_scale(self, kind: Kind, namespace: str | None, name: str, body: Mapping[str, Any]) -> Obj:
        key = (namespace or "", name)
        return await self._write(
            "patch", kind, name, self._touch(kind, key), lambda: self._server.merge(self._actor, kind, key, body, scale=True)
        )

    async def patch_status(self, kind: Kind, namespace: str | None, name: str, body: Mapping[str, Any]) -> Obj:
        key = (namespace or "", name)
        only = {part: body[part] for part in ("metadata", "status") if part in body}
        return await self._write(
            "status", kind, name, self._touch(kind, key), lambda: self._server.merge(self._actor, kind, key, only, status=True)
        )

    async def replace(self, obj: Obj) -> Obj:
        return await self._write("replace", kind_of(obj), obj["metadata"]["name"], None, lambda: self._server.replace(self._actor, obj))

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str, resource_version: str | None = None) -> bool:
        key = (namespace or "", name)
        return await self._write(
            "delete",
            kind,
            name,
            self._touch(kind, key),
            lambda: self._server.delete(self._actor, kind, key, uid=uid, version=resource_version),
        )

    def _touch(self, kind: Kind, key: tuple[str, str]) -> Callable[[], None]:
        def touch() -> None:
            if self._server.get(kind, key) is not None:
                body = {"metadata": {"annotations": {"other.example/was-here": str(self._server.revision)}}}
                self._server.merge("other", kind, key, body)

        return touch


def _as_heard(error: Rejected) -> KubeError:
    """Return what the operator's client makes of an answer."""
    kind = _AS_HEARD.get(type(error), errors.Rejected)
    return kind(str(error), code=error.code, reason=error.reason)


_AS_HEARD: dict[type[Rejected], type[KubeError]] = {
    NotFound: errors.NotFound,
    AlreadyExists: errors.AlreadyExists,
    Conflict: errors.Conflict,
    TestFailed: errors.TestFailed,
    apiserver.Expired: Expired,
    TooManyRequests: Unavailable,
}


def _fail(answer: asyncio.Future[Any], error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)


def _succeed(answer: asyncio.Future[Any], result: object) -> None:
    if not answer.done():
        answer.set_result(result)
