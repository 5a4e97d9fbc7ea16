"""Every cluster has a loop, and only while this process leads: one writer for each cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from whatsapp_operator.core import pace
from whatsapp_operator.core.names import Key, Obj
from whatsapp_operator.shell.clock import Clock, random_nonce
from whatsapp_operator.shell.kube import kinds
from whatsapp_operator.shell.kube.client import Kube
from whatsapp_operator.shell.kube.errors import KubeError
from whatsapp_operator.shell.kube.lease import Leadership
from whatsapp_operator.shell.metrics import Metrics
from whatsapp_operator.shell.objects.shapes import key_of

from .cluster import Cluster
from .cluster_loop import ClusterLoop, Parts
from .execute import Executor
from .observe import Observer
from .schedule import PriorityLimiter
from .status import StatusWriter

log = logging.getLogger(__name__)

MISSED_FOR = 60.0
"""Seconds for which urgent events are remembered while another process leads."""


class Reconciler:
    """All loops of this process."""

    def __init__(
        self,
        *,
        kube: Kube,
        observer: Observer,
        executor: Executor,
        clock: Clock,
        forget: Callable[[Key], None],
        listed: Callable[[Obj], None] = lambda _: None,
        nonce: Callable[[], str] = random_nonce,
        namespaces: Iterable[str] = (),
        metrics: Metrics | None = None,
    ) -> None:
        """Prepare; ``run`` starts. ``forget`` drops what other parts hold for a cluster; ``listed`` gets each listed cluster."""
        self._metrics = metrics or Metrics()
        self._kube = kube
        self._clock = clock
        self._forget = forget
        self._listed = listed
        self._namespaces = tuple(namespaces)
        self._clusters: dict[Key, Cluster] = {}
        self._parts = Parts(
            observer=observer,
            executor=executor,
            status=StatusWriter(kube, clock, self._metrics),
            clock=clock,
            metrics=self._metrics,
            limiter=PriorityLimiter(),
            nonce=nonce,
            forget=forget,
            count=lambda: len(self._clusters),
        )
        self._missed: dict[Key, float] = {}
        """Clusters with urgent events while this process did not lead, and when, by the monotonic clock; newest last."""
        self._leadership: Leadership | None = None

    def wake(self, key: Key, *, is_urgent: bool = True) -> None:
        """Report a change of a cluster. ``is_urgent``: a failover may depend on it, so this cluster is observed before others.

        While this process does not lead, urgent changes are only remembered for a while.
        """
        leadership = self._leadership
        if self._namespaces and key.namespace not in self._namespaces:
            return
        if leadership is None:
            if is_urgent:
                self._missed.pop(key, None)
                self._missed[key] = self._clock.monotonic()
            return
        cluster = self._clusters.get(key)
        if cluster is None:
            cluster = self._clusters[key] = Cluster(key)
            self._begin(cluster, leadership)
            self._metrics.count_clusters(len(self._clusters))
        cluster.is_urgent |= is_urgent
        cluster.woken.set()
        if is_urgent:
            cluster.alarmed.set()

    def _begin(self, cluster: Cluster, leadership: Leadership) -> None:
        """Start the loop of a cluster. It ends with the cluster or the leadership; if it ends otherwise, it is restarted."""

        def ended(task: asyncio.Task[None]) -> None:
            # A task that the loop awaited was cancelled, not the loop itself.
            if task.cancelled():
                asyncio.get_running_loop().call_later(pace.FIRST_RETRY.total_seconds(), again)

        def again() -> None:
            if self._leadership is leadership and self._clusters.get(cluster.key) is cluster:
                log.error("%s: the loop was cancelled unexpectedly, and is restarted", cluster.key)
                self._begin(cluster, leadership)

        cluster.task = asyncio.create_task(self._reconcile(cluster, leadership), name=f"loop of {cluster.key}")
        cluster.task.add_done_callback(ended)

    async def _reconcile(self, cluster: Cluster, leadership: Leadership) -> None:
        await ClusterLoop(cluster, leadership, self._parts, leads=lambda: self._leadership is leadership).run()
        self._drop(cluster.key)

    async def run(self, leadership: Leadership) -> None:
        """Lead: reconcile every cluster until cancelled. When this returns, no loop of this process runs, and it writes no Event."""
        self._leadership = leadership
        # The first observation of many clusters takes a while. Clusters whose holders may have failed without a leader come first.
        missed, self._missed = self._missed, {}
        for key, at in reversed(missed.items()):
            if self._clock.monotonic() - at < MISSED_FOR:
                self.wake(key)
        try:
            await self._find_all()
            await asyncio.get_running_loop().create_future()
        finally:
            self._leadership = None
            tasks = [task for one in self._clusters.values() for task in (one.task, one.events.writing) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for key in tuple(self._clusters):
                self._drop(key)

    def _drop(self, key: Key) -> None:
        cluster = self._clusters.pop(key, None)
        if cluster is not None:
            cluster.close()
        self._forget(key)
        self._metrics.clusters.forget(key)
        self._metrics.count_clusters(len(self._clusters))

    async def _find_all(self) -> None:
        """Wake every existing cluster; from then on events do."""
        failures, left = 0, list[str | None](self._namespaces or (None,))
        while left:
            # One of several namespaces may be gone, with the rights in it: that must not hide the others.
            for namespace in tuple(left):
                try:
                    found = await self._kube.list(kinds.WAC, namespace, None)
                except KubeError as error:
                    log.warning("The clusters could not be listed: %s", error)
                    continue
                left.remove(namespace)
                for obj in found:
                    self._listed(obj)
                for key in map(key_of, found):
                    if key is not None:
                        self.wake(key, is_urgent=False)
            if left:
                failures += 1
                await asyncio.sleep(pace.retry_after(failures).total_seconds())
