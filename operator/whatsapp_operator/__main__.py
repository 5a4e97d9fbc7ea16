"""Parses the arguments, reads the settings, builds the shell, campaigns for leadership, runs Kopf."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import logging
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from datetime import timedelta
from functools import partial
from typing import Any

from whatsapp_operator import __version__
from whatsapp_operator.core import self_check
from whatsapp_operator.core.names import Key
from whatsapp_operator.settings import SettingError, Settings, listed
from whatsapp_operator.shell import logs
from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.coreapps.probe import Tethers
from whatsapp_operator.shell.coreapps.self_check import SelfCheck
from whatsapp_operator.shell.kube.client import LightKube
from whatsapp_operator.shell.kube.errors import KubeError, NotFound
from whatsapp_operator.shell.kube.history import DataWentBack, History
from whatsapp_operator.shell.kube.kinds import LEASE, NODE, WAC
from whatsapp_operator.shell.kube.lease import Election, Leadership, Timings, WorkDidNotStop
from whatsapp_operator.shell.kube.nodes import LEASE_NAMESPACE, Nodes
from whatsapp_operator.shell.kube.transport import SentAgain
from whatsapp_operator.shell.kube.warm import WarmConnections
from whatsapp_operator.shell.loop.execute import Executor
from whatsapp_operator.shell.loop.observe import Observer
from whatsapp_operator.shell.loop.reconcile import Reconciler
from whatsapp_operator.shell.metrics import LoopLagMonitor, Metrics, application, served
from whatsapp_operator.shell.objects.reading import desired_of
from whatsapp_operator.shell.tracing import Tracing
from whatsapp_operator.shell.watch import handlers
from whatsapp_operator.shell.watch.health import GAP, TendedReads, WatchHealth, name_of
from whatsapp_operator.shell.watch.index import PodIndex
from whatsapp_operator.shell.watch.readiness import Readiness
from whatsapp_operator.shell.watch.supervise import Deliver, Supervisor
from whatsapp_operator.shell.whatsapp.session import ApiSessions

log = logging.getLogger("whatsapp_operator")

ABSTAIN = 2.0
"""Seconds for which this process does not campaign after a failed self-check. A ready candidate takes over in a tenth of a second."""

CUT_OFF_PATIENCE = 4.0
"""Seconds, in addition to the gap that any watch may have, for which a leader may be without one of its watches."""
NODES_STALLED_AFTER = 300.0
"""Seconds; longer than the pause of the watches of nodes after a 403."""
END_WITHIN = 1.0
"""Seconds that everything but the leader's work has to end."""
EXIT_AFTER = 1.0
"""Seconds after the Lease's duration at which a shutdown that hangs is forced from outside the event loop."""

GARBAGE = (20_000, 20, 50)
"""Thresholds of the three generations. With five thousand tethers a full collection takes up to a second, in which no event is handled.
By default one runs every few seconds, because each observation makes and drops thousands of objects."""


class Operator:
    """The whole shell, built once."""

    def __init__(self, settings: Settings) -> None:
        """Build everything; nothing is sent yet.

        KubeError if the kubeconfig or service account cannot be read; SettingError if traces are requested and cannot be made.
        """
        self._settings = settings
        clock = SystemClock()
        kube = LightKube.from_kubeconfig(settings.kubeconfig)
        self._watched = handlers.watched(settings.watch_namespaces)
        self._health = _health(clock, self._watched.values(), settings.namespace)
        reads = TendedReads(kube, self._health)
        self._crd_was_missing = False
        self._supervisor = Supervisor(self._watch, dead_for=self._dead_for, clock=clock)
        timings = Timings(duration=settings.lease_seconds, renew_deadline=settings.renew_deadline_seconds, retry=settings.retry_seconds)
        self._history = History(kube, reads.watch)
        self._election = Election(
            self._history,
            namespace=settings.namespace,
            name=settings.lease_name,
            identity=settings.identity,
            timings=timings,
            watch=self._history.watch,
        )
        self._connections = WarmConnections(
            lambda: kube.get(LEASE, settings.namespace, settings.lease_name), is_needed=lambda: not self._election.leading
        )
        self._kube = kube
        self._metrics = Metrics()
        self._metrics.count_writes(kube.writes)
        self._opened_again = SentAgain()
        self._metrics.count_sent_again(read=kube.sent_again, renewal=self._election.sent_again, watch=self._opened_again)
        self._tracing = _tracing(settings)
        self._lag_monitor = LoopLagMonitor(clock, on_beat=self._on_beat)
        self._nodes = Nodes(reads, clock=clock, changed=self._node_changed)
        self._tethers = Tethers(clock=clock, wake=self._wake)

        def own_fault() -> str | None:
            return self_check.self_check(self._tethers.silence(), self._nodes.snapshot(), clock.now())

        def step_down() -> bool:
            return self._election.step_down(ABSTAIN)

        self._self_check = SelfCheck(self_check=own_fault, step_down=step_down, clock=clock)
        self._cut_off = SelfCheck(
            self_check=self._health.cut_off,
            step_down=step_down,
            clock=clock,
            patience=CUT_OFF_PATIENCE,
            meaning="this process is woken late or not at all",
        )
        self._readiness = Readiness((self._health.never_connected, self._nodes_unseen, self._coreapps_unseen, own_fault), clock=clock)
        self._sessions = ApiSessions(
            clock=clock,
            wake=self._wake,
            call_timeout=settings.tuning.call_timeout / timedelta(seconds=1),
            asked=self._metrics.clusters.count_request,
        )
        self._pod_index = PodIndex(self._tethers.hold, read=lambda obj: desired_of(obj, image=settings.image, tuning=settings.tuning))
        self._reconciler = self._build_reconciler(kube.fenced(self._election), clock)

    def _build_reconciler(self, fenced: LightKube, clock: SystemClock) -> Reconciler:
        settings = self._settings
        return Reconciler(
            kube=fenced,
            observer=Observer(
                kube=fenced,
                clients=self._sessions,
                coreapps=self._tethers,
                nodes=self._nodes.snapshot,
                # With rights in some namespaces only, as the chart can give them, nodes cannot be read, and that is no fault.
                nodes_unread=self._nodes.unread if not settings.watch_namespaces else dict,
                holders=self._pod_index.holders,
                number_keeper=self._pod_index.keeper,
                cluster_gone=self._pod_index.note_absent,
                server_time=fenced.server_time,
                clock=clock,
                image=settings.image,
                tuning=settings.tuning,
            ),
            executor=Executor(
                kube=fenced,
                clients=self._sessions,
                coreapps=self._tethers,
                clock=clock,
                identity=settings.identity,
                metrics=self._metrics,
                tracing=self._tracing,
            ),
            clock=clock,
            forget=self._forget,
            listed=self._pod_index.note_listed,
            namespaces=settings.watch_namespaces,
            metrics=self._metrics,
        )

    def _wake(self, key: Key, *, is_urgent: bool = True) -> None:
        self._reconciler.wake(key, is_urgent=is_urgent)

    def _wake_by_event(self, key: Key, *, is_urgent: bool = True) -> None:
        if not is_urgent:
            self._readiness.note_listed()
        self._wake(key, is_urgent=is_urgent)

    def _nodes_unseen(self) -> str | None:
        return None if self._nodes.has_asked() else "nodes and their Leases have not been read yet"

    def _coreapps_unseen(self) -> str | None:
        return f"Coreapps not reached yet: {count}" if (count := self._tethers.not_reached()) else None

    def _node_changed(self, node: str) -> None:
        for key in self._pod_index.clusters_on(node):
            self._wake(key)

    def _on_beat(self, late: float) -> None:
        self._metrics.observe_lag(late)
        self._metrics.observe_lease(self._election.seconds_unrenewed())
        self._metrics.observe_nodes(self._nodes.snapshot())
        self._metrics.observe_silence(self._tethers.silence())
        self._metrics.observe_watches(self._health.seconds_cut_off())
        self._self_check.check()
        self._cut_off.check()
        self._readiness.check()

    def _forget(self, key: Key) -> None:
        self._pod_index.release(key)
        self._sessions.forget(key)

    async def _lead(self, leadership: Leadership) -> None:
        """Lead until cancelled. After it returns, this process writes nothing more."""
        log.info("leading, epoch %s", leadership.epoch)
        self._metrics.lead(True)
        self._pod_index.lead()
        try:
            await self._reconciler.run(leadership)
        finally:
            self._pod_index.stand_by()
            self._metrics.lead(False)
            await self._sessions.close()
            log.info("no longer leading")

    async def _watch(self, deliver: Deliver) -> None:
        """Run Kopf in the current event loop, which is its own."""
        settings = self._settings
        login = handlers.Login(
            lambda: handlers.connection(settings.kubeconfig), health=self._health, names=self._watched, opened_again=self._opened_again
        )
        await handlers.watch(
            deliver,
            wake=self._wake_by_event,
            sink=self._pod_index,
            login=login,
            namespaces=settings.watch_namespaces,
            identity=settings.identity,
        )

    async def _dead_for(self) -> float:
        """Return for how many seconds the worst of Kopf's watches has not been connected. A kind that is not served does not count."""
        cut_off = self._health.seconds_cut_off()
        for name in self._watched.values():
            if name.startswith(WAC.plural) and (cut_off[name] > GAP / 2 or self._crd_was_missing):
                self._crd_was_missing = await self._crd_is_missing()
                if self._crd_was_missing:
                    self._health.connected(name)
        return self._health.seconds_dead(self._watched.values())

    async def _crd_is_missing(self) -> bool:
        try:
            await self._kube.get(WAC, next(iter(self._settings.watch_namespaces), self._settings.namespace), "any")
        except NotFound:
            return True
        except KubeError:
            pass
        return False

    async def run(self, *, ending: Callable[[], object] = lambda: None) -> None:
        """Watch and campaign until SIGTERM or SIGINT, then stop the work, release the Lease and return.

        ``ending`` is called when the shutdown begins. SettingError: METRICS_PORT is in use. WorkDidNotStop: end the process at once and
        wait for no task. DataWentBack: a new process is needed. RuntimeError: a part that runs until cancelled has ended.
        """
        with ExitStack() as stack:
            if port := self._settings.metrics_port:
                app = application(
                    self._metrics.registry, self._lag_monitor, stalled=self._health.stalled, unready=lambda: self._readiness.why_not
                )
                try:
                    stack.enter_context(served(app, host=self._settings.metrics_host, port=port))
                except ValueError as error:
                    raise SettingError(str(error)) from None
            await self._run(ending)
        if self._tracing is not None:
            # The Lease is released, so there is nothing left to delay.
            self._tracing.close()

    async def _run(self, ending: Callable[[], object] = lambda: None) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        campaign = asyncio.create_task(self._election.run(self._lead), name="campaign")
        upkeep = [
            asyncio.create_task(self._lag_monitor.run(), name="loop-lag"),
            asyncio.create_task(self._nodes.run(), name="nodes"),
            asyncio.create_task(self._pod_index.run(self._kube, self._settings.watch_namespaces), name="pod-index"),
            asyncio.create_task(self._supervisor.run(), name="watches"),
            asyncio.create_task(self._history.run(), name="history"),
            asyncio.create_task(self._connections.run(), name="connections"),
        ]
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            done, _ = await asyncio.wait([campaign, stopping, *upkeep], return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending()
            # The Lease first: the successor waits for nothing else.
            campaign.cancel()
            with suppress(asyncio.CancelledError):
                await campaign
            self._pod_index.close()
            await self._end([stopping, *upkeep])
        # None of them ends by itself. A process that continued without one of them would seem healthy but not be.
        for task in done & {*upkeep}:
            if isinstance(error := task.exception(), DataWentBack):
                raise error
            msg = f"the task {task.get_name()} ended, so the process does"
            raise RuntimeError(msg) from error

    async def _end(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """End these tasks and close all connections. What takes longer than ``END_WITHIN`` is left to the end of the process."""
        for task in tasks:
            task.cancel()
        closing = asyncio.create_task(self._tethers.close(), name="tethers")
        await asyncio.wait([*tasks, closing], timeout=END_WITHIN + 0.5)
        with suppress(TimeoutError):
            async with asyncio.timeout(END_WITHIN):
                await self._kube.close()


def _health(clock: SystemClock, watched: Iterable[str], lease_namespace: str) -> WatchHealth:
    """Return the state of all watches of this process: Kopf's, of the own Lease, and of nodes and their Leases."""
    health = WatchHealth(clock)
    for name in watched:
        health.expect(name, essential=True)
    health.expect(name_of(LEASE, lease_namespace), essential=False)
    for kind, namespace in ((NODE, None), (LEASE, LEASE_NAMESPACE)):
        health.expect(name_of(kind, namespace), essential=False, stalled_after=NODES_STALLED_AFTER)
    return health


def _tracing(settings: Settings) -> Tracing | None:
    if settings.tracing_endpoint is None:
        return None
    try:
        return Tracing(settings.tracing_endpoint, identity=settings.identity)
    except ImportError as error:
        msg = f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but {error}"
        raise SettingError(msg) from None


async def _main(settings: Settings) -> None:
    try:
        operator = Operator(settings)
    except KubeError as error:  # the kubeconfig
        raise SettingError(str(error)) from None
    try:
        await operator.run(ending=partial(faulthandler.dump_traceback_later, settings.lease_seconds + EXIT_AFTER, exit=True))
    except DataWentBack as error:
        log.critical("%s", error)
        raise SystemExit(1) from None
    except WorkDidNotStop as error:
        # No write may follow the end of the Lease. A task that does not end is ended with the process; the event loop would wait for it.
        log.critical("%s", error)
        os._exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="whatsapp-operator",
        description="Run the operator for the WhatsApp Business API client until SIGTERM. It takes no arguments, only settings.",
        epilog=f"environment variables (times are seconds):\n{listed()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the operator; ``argv`` is the command line without the program's name (default: this process's).

    An unknown argument exits with status 2. So does a setting or kubeconfig that cannot be used, with one sentence on stderr.
    """
    parser = _parser()
    parser.parse_args(argv)
    try:
        settings = Settings.from_env()
        logs.configure(settings.log_level, settings.log_format)
        handlers.quieten()
        # Imported modules stay: the garbage collector need not search them.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GARBAGE)
        asyncio.run(_main(settings))
    except SettingError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
