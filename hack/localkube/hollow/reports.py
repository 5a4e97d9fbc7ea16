"""Reports the state of one pod to the API server. A pod's container never waits for this: it keeps running when the API server is down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from localkube import Obj
from localkube.hollow.kube import Kube, KubeError, RefusedError, version_of
from localkube.hollow.nodes import HollowNode

logger = logging.getLogger("localkube.hollow")


class Reporter:
    """Patches a pod's status until the API server has the newest one; what changed meanwhile becomes one patch."""

    def __init__(self, kube: Kube, path: str, node: HollowNode, status: Callable[[], Obj]) -> None:
        self._kube, self._path, self._node, self._status = kube, path, node, status
        self._dirty, self._quiet = asyncio.Event(), asyncio.Event()
        self._sent: Obj | None = None
        self._version = 0

    def report(self, *, again: bool = False) -> None:
        """Report the present state, soon; several calls may become one. ``again``: even if it was sent before."""
        if again:
            self._sent = None
        self._quiet.clear()
        self._dirty.set()

    async def reported(self, timeout: float) -> None:
        """Wait until all was reported, at most so many seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._quiet.wait(), timeout)

    def compare(self, pod: Obj) -> None:
        """Report again if a newer version of the pod has other conditions than what was sent last (the node controller does so)."""
        if self._sent is not None and version_of(pod) > self._version:
            have = {one["type"]: one["status"] for one in (pod.get("status") or {}).get("conditions") or ()}
            if any(have.get(one["type"]) != one["status"] for one in self._sent["status"]["conditions"] if one["type"] != "PodScheduled"):
                self.report(again=True)

    async def run(self) -> None:
        """Report until cancelled; nothing while the node is lost."""
        pause = 0.05
        while True:
            if not self._dirty.is_set():
                self._quiet.set()
            await self._dirty.wait()
            await self._node.reachable.wait()
            self._dirty.clear()
            body = self._status()
            if body == self._sent:
                continue
            try:
                answer = await self._kube.patch(f"{self._path}/status", body)
            except KubeError as e:
                rejected = isinstance(e, RefusedError)
                if isinstance(e, RefusedError) and (e.status == 404 or "metadata.uid" in str(e)):
                    continue  # gone, or a namesake with another uid (422): the watch will report it
                logger.log(logging.WARNING if rejected else logging.INFO, "%s; trying again in %.2f s", e, pause)
            else:
                self._sent, self._version, pause = body, version_of(answer), 0.05
                continue
            self._dirty.set()
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)
