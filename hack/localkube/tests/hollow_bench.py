"""A hollow pod with everything around it faked: the API server, the component that it runs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, cast

from localkube.hollow.addresses import Addresses
from localkube.hollow.kube import Kube, NoAnswerError
from localkube.hollow.nodes import HollowNode
from localkube.hollow.pods import HollowPod, Resolve, Surroundings
from localkube.hollow.spec import Sources

Obj = dict[str, Any]


def nothing(kind: str, name: str) -> None:
    """No Secret and no ConfigMap."""


def a_pod(container: Obj | None = None, **spec: Any) -> Obj:
    main = {"name": "coreapp", "image": "wabiz", "command": ["python", "-m", "wabiz_sim", "coreapp"]} | (container or {})
    meta = {"name": "acme-coreapp-0", "namespace": "ns", "uid": "u1", "labels": {"a": "b"}, "resourceVersion": "1"}
    return {"metadata": meta, "spec": {"nodeName": "hollow-0", "containers": [main]} | spec, "status": {}}


class FakeComponent:
    """Does what a component does, and remembers it."""

    def __init__(self, env: Mapping[str, str], *, fails: bool = False, lingers: bool = False) -> None:
        self.env, self.fails, self.lingers = dict(env), fails, lingers
        self.calls: list[str] = []
        self.effects: Counter[str] = Counter()
        self.ready = False
        self.gone = False
        self.stopped = asyncio.Event()

    async def start(self) -> None:
        self.calls.append("start")
        if self.fails:
            message = "no"
            raise OSError(message)
        self.ready = True

    async def stop(self, grace: float) -> None:
        self.calls.append(f"stop {grace:.0f}")
        if self.lingers:
            await asyncio.sleep(3600)
        self.stopped.set()

    async def kill(self) -> None:
        if not self.stopped.is_set():
            self.calls.append("kill")
        self.stopped.set()
        await asyncio.sleep(0.02)
        self.gone = True

    def hang(self) -> None:
        self.calls.append("hang")
        self.ready = False

    def resume(self) -> None:
        self.calls.append("resume")
        self.ready = True

    async def disturb(self, fault: Mapping[str, Any]) -> None:
        self.calls.append(f"disturb {fault['ports']}")

    async def wait_stopped(self) -> None:
        await self.stopped.wait()


class FakeKube:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.reports: list[Obj] = []
        self.deleted: list[str] = []
        self.away = False

    async def patch(self, path: str, body: Obj) -> Obj:
        if self.away:
            message = "away"
            raise NoAnswerError(message)
        self.reports.append(body["status"])
        return {"metadata": {"resourceVersion": str(100 + len(self.reports))}}

    async def finish_deletion(self, path: str, uid: str) -> None:
        if self.away:
            message = "away"
            raise NoAnswerError(message)
        self.deleted.append(uid)

    async def get(self, path: str) -> Obj | None:
        return {"metadata": {"uid": "claim-1"}} if path.endswith("/there") else None


async def nowhere(service: str, port: int) -> tuple[str, int]:
    raise LookupError(service)


class Bench:
    """A pod on a bench, with everything around it faked."""

    def __init__(self, folder: Path, sources: Sources, **component: bool) -> None:
        self.kube, self.made, self._component = FakeKube(), list[FakeComponent](), component
        self.addresses = Addresses()
        kube = cast("Kube", self.kube)
        self.node = HollowNode(kube, "hollow-0", "127.64.0.2", "zone-a")
        self.around = Surroundings(
            kube=kube,
            addresses=self.addresses,
            folder=folder,
            restart_delay_s=0.0,
            make=self.make,
            resolve=lambda _: nowhere,
            sources=lambda _: sources,
        )

    def make(self, kind: str, env: Mapping[str, str], resolve: Resolve) -> FakeComponent:
        self.made.append(FakeComponent(env, **self._component))
        return self.made[-1]

    def pod(self, obj: Obj) -> HollowPod:
        pod = HollowPod(obj, self.node, self.around)
        pod.begin()
        return pod

    def last(self) -> Obj:
        return self.kube.reports[-1]

    def main_state(self) -> Obj:
        return cast("Obj", self.last()["containerStatuses"][0]["state"]) if self.kube.reports else {}


@asynccontextmanager
async def a_bench(folder: Path, sources: Sources = nothing, **component: bool) -> AsyncIterator[Bench]:
    bench = Bench(folder, sources, **component)
    with closing(bench.addresses):
        yield bench
