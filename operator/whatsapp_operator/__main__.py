"""Reads the settings, builds the shell, campaigns for leadership, runs Kopf."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import weakref
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import Any, cast

import kopf

from .core import self_check
from .core.model import Key
from .settings import SettingError, Settings
from .shell import handlers
from .shell.act import Hands
from .shell.clock import SystemClock
from .shell.doubt import SelfDoubt
from .shell.kube import KubeError, LightKube
from .shell.leader import Election, Leadership, Timings, WorkDidNotStop
from .shell.metrics import Heartbeat, Metrics, application, served
from .shell.nodes import Nodes
from .shell.observe import Observer
from .shell.probe import Tethers
from .shell.reading import desired_of
from .shell.reconcile import Reconciler
from .shell.roster import Roster
from .shell.wabiz import Desks

log = logging.getLogger("whatsapp_operator")

ABSTAIN = 2.0
"""Seconds for which another candidate may take the leadership that we give up in doubt; whoever is ready takes it in a tenth of one."""


GARBAGE = (20_000, 20, 50)
"""Thresholds of the three generations. With five thousand tethers a search through all objects takes up to a second, in which nothing is
heard; by default one comes every few seconds, for every look makes and drops thousands of objects."""


class Operator:
    """The whole shell, built once."""

    def __init__(self, settings: Settings) -> None:
        """Build everything; nothing is sent yet. KubeError if the way to the API server cannot be read."""
        self._settings = settings
        clock = SystemClock()
        kube = LightKube.from_kubeconfig(settings.kubeconfig)
        timings = Timings(duration=settings.lease_seconds, renew_deadline=settings.renew_deadline_seconds, retry=settings.retry_seconds)
        self._election = Election(
            kube,
            namespace=settings.namespace,
            name=settings.lease_name,
            identity=settings.identity,
            timings=timings,
            watch=kube.watch,
        )
        self._kube = kube
        self._metrics = Metrics()
        self._metrics.count_writes(kube.writes)
        self._heartbeat = Heartbeat(clock, beaten=self._beat)
        self._nodes = Nodes(kube, clock=clock, changed=self._node_changed)
        self._tethers = Tethers(clock=clock, wake=self._wake)
        self._doubt = SelfDoubt(
            doubt=lambda: self_check.doubt(self._tethers.silence(), self._nodes.snapshot(), clock.now()),
            step_down=lambda: self._election.step_down(ABSTAIN),
            clock=clock,
        )
        self._desks = Desks(clock=clock, wake=self._wake, call_timeout=settings.tuning.call_timeout / timedelta(seconds=1))
        self._roster = Roster(self._tethers, read=lambda obj: desired_of(obj, image=settings.image, tuning=settings.tuning))
        fenced = kube.fenced(self._election)
        self._reconciler = Reconciler(
            kube=fenced,
            observer=Observer(
                kube=fenced,
                clients=self._desks,
                coreapps=self._tethers,
                nodes=self._nodes.snapshot,
                # With rights in some namespaces only, as the chart can give them, nobody expects nodes to be read.
                nodes_unread=self._nodes.unread if not settings.watch_namespaces else dict,
                clock=clock,
                image=settings.image,
                tuning=settings.tuning,
            ),
            hands=Hands(
                kube=fenced, clients=self._desks, coreapps=self._tethers, clock=clock, identity=settings.identity, metrics=self._metrics
            ),
            clock=clock,
            forget=self._forget,
            namespaces=settings.watch_namespaces,
            metrics=self._metrics,
        )

    def _wake(self, key: Key, *, presses: bool = True) -> None:
        self._reconciler.wake(key, presses=presses)

    def _node_changed(self, node: str) -> None:
        for key in self._roster.clusters_on(node):
            self._wake(key)

    def _beat(self, late: float) -> None:
        self._metrics.observe_lag(late)
        self._metrics.observe_nodes(self._nodes.snapshot())
        self._metrics.observe_silence(self._tethers.silence())
        self._doubt.check()

    def _forget(self, key: Key) -> None:
        self._roster.let_go(key)
        self._desks.forget(key)

    async def _lead(self, leadership: Leadership) -> None:
        """Be the leader until cancelled; when this returns nothing of ours writes any more."""
        log.info("leading, epoch %s", leadership.epoch)
        self._metrics.lead(True)
        self._roster.lead()
        try:
            await self._reconciler.run(leadership)
        finally:
            self._roster.stand_by()
            self._metrics.lead(False)
            await self._desks.close()
            log.info("no longer leading")

    async def run(self) -> None:
        """Watch and campaign until SIGTERM or SIGINT, then stop the work, release the Lease, end. ValueError if METRICS_PORT is taken."""
        with ExitStack() as stack:
            if port := self._settings.metrics_port:
                app = application(self._metrics.registry, self._heartbeat)
                stack.enter_context(served(app, host=self._settings.metrics_host, port=port))
            await self._run()

    async def _run(self) -> None:
        stop = asyncio.Event()
        ours: weakref.WeakSet[asyncio.Task[object]] = weakref.WeakSet()
        settings = self._settings
        # Kopf cancels at its end every task that it does not know; those that wait for the end of our work are ours.
        campaign = asyncio.create_task(self._election.run(self._lead), name="campaign")
        upkeep = [
            asyncio.create_task(self._heartbeat.run(), name="heartbeat"),
            asyncio.create_task(self._nodes.run(), name="nodes"),
            asyncio.create_task(self._roster.run(self._kube, settings.watch_namespaces), name="roster"),
        ]
        watch = await kopf.spawn_tasks(
            registry=handlers.registry(self._wake, lambda: handlers.connection(settings.kubeconfig), self._roster),
            settings=handlers.settings(settings.watch_namespaces),
            clusterwide=not settings.watch_namespaces,
            namespaces=settings.watch_namespaces,
            stop_flag=stop,
            standalone=True,
            # Kopf would look up the user's name, and a container's number has none.
            identity=cast(Any, settings.identity),
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        ours.update(asyncio.all_tasks() - set(watch))
        stopping = asyncio.create_task(stop.wait(), name="stop")
        ours.add(stopping)
        watching = asyncio.create_task(kopf.run_tasks(watch, ignored=ours), name="watch")
        await asyncio.wait([campaign, stopping, watching], return_when=asyncio.FIRST_COMPLETED)
        # The Lease first: our successor waits for nothing else.
        campaign.cancel()
        try:
            with suppress(asyncio.CancelledError):
                await campaign
            # Before Kopf ends: it would wait 5 s for tasks of ours that were begun after it.
            self._roster.close()
            for task in upkeep:
                task.cancel()
            await asyncio.gather(*upkeep, self._tethers.close(), return_exceptions=True)
        finally:
            stop.set()
        await watching
        await self._kube.close()


async def _main(settings: Settings) -> None:
    await Operator(settings).run()


def main() -> None:
    """Run the operator; a setting or kubeconfig that cannot be used ends it with one sentence and status 2."""
    try:
        settings = Settings.from_env()
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")
        handlers.quieten()
        # What was imported stays for ever: it need not be searched.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GARBAGE)
        asyncio.run(_main(settings))
    except WorkDidNotStop as error:
        # Nothing of ours may write after the lease: a task that will not end is ended with the process.
        log.critical("%s", error)
        os._exit(1)
    except (SettingError, KubeError, ValueError) as error:
        sys.exit(f"whatsapp-operator: {error}")


if __name__ == "__main__":
    main()
