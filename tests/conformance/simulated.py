"""The simulated API server as a backend, with the simulated controllers and kubelets around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random

from simulation.apiserver import ApiServer, Rejected
from simulation.client import Account
from simulation.kube import SimKube
from simulation.machines import Cluster
from simulation.network import Network
from simulation.virtual import VirtualLoop
from whatsapp_operator.shell.kube import errors, kinds

from .backend import RESOURCES, Failure, Obj

BY_PLURAL = {plural: next(kind for kind in kinds.KINDS if kind.kind == one.kind) for plural, one in RESOURCES.items()}


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except (Rejected, errors.KubeError) as error:
        raise Failure(error.code or 0, error.reason, str(error)) from error


class SimulatedServer:
    """See Backend."""

    namespace = "default"

    def __init__(self, loop: VirtualLoop, make_server: Callable[[Callable[[], float]], ApiServer] = ApiServer) -> None:
        self._server = make_server(loop.time)
        self._account = Account(rng=Random(1), restart_seconds=1.0, now=loop.time)
        self._cluster = Cluster(self._server, rng=Random(1), account=self._account)
        self._kube = SimKube(self._server, actor="user", rng=Random(1), network=Network())

    def _placed(self, plural: str, obj: Obj) -> Obj:
        return {**obj, "metadata": {**obj["metadata"], "namespace": self.namespace}}

    async def create(self, plural: str, obj: Obj) -> Obj:
        with _answered():
            return self._server.create("user", self._placed(plural, obj))

    async def get(self, plural: str, name: str) -> Obj:
        found = self._server.get(BY_PLURAL[plural], (self.namespace, name))
        if found is None:
            raise Failure(404, "NotFound")
        return found

    async def list(self, plural: str, labels: Mapping[str, str] | None = None, *, at_least: str | None = None) -> tuple[list[Obj], str]:
        kind = BY_PLURAL[plural]
        # The oldest that may be answered.
        as_of = self._server.time_of(kind, int(at_least)) if at_least else None
        return self._server.list(kind, self.namespace, labels, as_of), str(self._server.revision)

    async def scale(self, plural: str, name: str, body: Obj) -> Obj:
        with _answered():
            return self._server.merge("user", BY_PLURAL[plural], (self.namespace, name), body, scale=True)

    async def merge(self, plural: str, name: str, body: Obj, *, status: bool = False) -> Obj:
        with _answered():
            return self._server.merge("user", BY_PLURAL[plural], (self.namespace, name), body, status=status)

    async def patch(self, plural: str, name: str, ops: Sequence[Obj]) -> Obj:
        with _answered():
            return self._server.patch("user", BY_PLURAL[plural], (self.namespace, name), ops)

    async def replace(self, plural: str, obj: Obj, *, status: bool = False) -> Obj:
        with _answered():
            return self._server.replace("user", self._placed(plural, obj), status=status)

    async def delete(
        self,
        plural: str,
        name: str,
        *,
        uid: str | None = None,
        version: str | None = None,
        grace: int | None = None,
        propagation: str | None = None,
    ) -> None:
        with _answered():
            there = self._server.delete(
                "user", BY_PLURAL[plural], (self.namespace, name), uid=uid, version=version, grace=grace, propagation=propagation
            )
        if not there:
            raise Failure(404, "NotFound")

    async def evict(self, pod: str) -> None:
        with _answered():
            self._cluster.evict((self.namespace, pod))

    async def watch(
        self,
        plural: str,
        *,
        version: str | None = None,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
        seconds: int = 20,
    ) -> AsyncGenerator[tuple[str, Obj]]:
        stream = self._kube.watch(
            BY_PLURAL[plural], self.namespace, resource_version=version, server_timeout=seconds, labels=labels, name=name
        )
        with _answered():
            async for event in stream:
                yield event

    async def make_ready(self, pod: str) -> None:
        async def is_ready() -> bool:
            conditions = (await self.get("pods", pod))["status"].get("conditions") or ()
            return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

        await self.until(is_ready)

    async def end_pod(self, pod: str) -> None:
        uid = (await self.get("pods", pod))["metadata"]["uid"]

        async def is_gone() -> bool:
            pods, _ = await self.list("pods")
            return all(one["metadata"]["uid"] != uid for one in pods)

        await self.until(is_gone)

    async def until(self, holds: Callable[[], Awaitable[object]], seconds: float = 30.0) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while not await holds():
            assert asyncio.get_running_loop().time() < deadline, f"not within {seconds:g} s"
            await asyncio.sleep(0.03)
