"""Metrics for Prometheus, and the answers to the kubelet's probes. A separate thread serves them, even while the event loop does not run.

Labels are bounded: fixed values of the operator, or clusters, whose series end with them. All labels of counters and histograms exist from
the start: PromQL's ``increase`` does not notice the first event of a series that begins with 1.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum
from socketserver import TCPServer
from typing import TYPE_CHECKING, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from whatsapp_operator import __version__
from whatsapp_operator.core.actions import Handover
from whatsapp_operator.core.reasons import Reason
from whatsapp_operator.core.report import FAILED_OBSERVATION
from whatsapp_operator.core.snapshot import Answer, Evidence, Silence

from .clock import Clock
from .cluster_series import ClusterSeries

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 15.0, 30.0, 60.0)
"""Seconds, from one API call to a restart of the Coreapps; 0.25, 4, 6 and 8 are near the targets for failovers."""
OBSERVATION_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BEAT: Final = 0.25
"""Seconds between two heartbeats of the event loop."""
DEAD_AFTER: Final = 10.0
"""Seconds without a heartbeat after which /healthz returns 503."""


class Phase(StrEnum):
    """The phases of a handover, in order."""

    DETECT = "detect"
    """From the first sign of the failure until the observation that found it."""
    DECIDE = "decide"
    """From that observation until the first write."""
    PREPARE = "prepare"
    """The labels of the new holder's pod."""
    COMMIT = "commit"
    """The Service: this is the handover."""
    ASSIGN = "assign"
    """From commit until the new holder answered the assignment, or its time-out."""
    SERVE = "serve"
    """From commit until the new holder had accepted the shard."""


KINDS: Final = ("Failover", "Switchover", "First")
"""Kinds of handovers; First is that of a shard that had no holder."""
NOT_SENT: Final = "NotSent"
"""Stands for the answer of a Set Shards call that was noted and not sent."""
ANSWERS: Final = (*(str(answer) for answer in Answer if answer is not Answer.NONE), NOT_SENT)


class Metrics:
    """All series of this process. Small methods report what happened; nothing is read back."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Make all series in ``registry``, or in a new one."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # They would double the series of counters, and Prometheus has no use for them.
        self.registry = registry = registry or CollectorRegistry()
        self.clusters = ClusterSeries()
        registry.register(self.clusters)
        ProcessCollector(registry=registry)

        def gauge(name: str, help_text: str, *labels: str) -> Gauge:
            return Gauge(f"multiconnect_{name}", help_text, labels, registry=registry)

        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(f"multiconnect_{name}", help_text, labels, registry=registry)

        self._phases = Histogram(
            "multiconnect_handover_seconds",
            "Duration of the phases of handovers.",
            ("phase", "evidence"),
            registry=registry,
            buckets=BUCKETS,
        )
        self._handovers = counter("handovers", "Committed handovers.", "kind", "evidence")
        self._observations = Histogram(
            "multiconnect_observation_seconds", "Duration of observations of a cluster.", registry=registry, buckets=OBSERVATION_BUCKETS
        )
        self._errors = counter("reconcile_errors", "Reconciliations that ended in an error, by the reason in the status.", "reason")
        self._calls = counter("set_shards_attempts", "Set Shards calls, by answer.", "answer")
        self._leading = gauge("leading", "1 while this process leads.")
        self._clusters = gauge("clusters", "WhatsAppClusters that this process manages.")
        self._targets = gauge("probe_targets", "Coreapps that this process probes and that have answered it before.")
        self._unresponsive = gauge("probe_unresponsive", "Probe targets that did not answer their last probe.")
        self._lag = gauge("loop_lag_seconds", "How late the event loop was at its last heartbeat.")
        self._nodes = gauge("nodes_known", "Nodes that this process watches; -1: nodes are not known.")
        self._watches = gauge("watch_cut_off_seconds", "How long a watch has been disconnected; 0: it is connected.", "watch")
        self._lease_age = gauge("lease_age_seconds", "How long ago this process, leading or not, last observed a renewal of the Lease.")
        gauge("build_info", "Always 1; the label is the operator's version.", "version").labels(__version__).set(1)
        self._begin_series()

    def _begin_series(self) -> None:
        for evidence in map(str, Evidence):
            for phase in Phase:
                self._phases.labels(phase.value, evidence)
            for kind in KINDS:
                self._handovers.labels(kind, evidence)
        for reason in FAILED_OBSERVATION:
            self._errors.labels(str(reason))
        for answer in ANSWERS:
            self._calls.labels(answer)

    # --- handovers --------------------------------------------------------------------------------------------------------

    def observe_phase(self, phase: Phase, evidence: str, took: timedelta | float, *, trace_id: str | None = None) -> None:
        """Note how long one phase of a handover took (a float is seconds); a negative time, after a step of a clock, counts as 0.

        ``trace_id`` names the trace of the handover; it is the exemplar of its bucket, which OpenMetrics shows.
        """
        seconds = took / timedelta(seconds=1) if isinstance(took, timedelta) else took
        self._phases.labels(phase.value, evidence).observe(max(0.0, seconds), {"trace_id": trace_id} if trace_id else None)

    def count_handover(self, one: Handover) -> None:
        """Note a committed handover: Failover, Switchover, or First for a shard that had no holder."""
        kind = "First" if one.route.holder is None else "Switchover" if one.planned else "Failover"
        self._handovers.labels(kind, str(one.evidence)).inc()

    # --- the loop ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def time_observation(self, clock: Callable[[], float]) -> Iterator[None]:
        """Measure the observation in the block, by a clock in seconds that never goes back."""
        began = clock()
        try:
            yield
        finally:
            self._observations.observe(clock() - began)

    def count_error(self, reason: Reason) -> None:
        """Note that a reconciliation ended in an error."""
        self._errors.labels(str(reason)).inc()

    def count_call(self, answer: str) -> None:
        """Note the answer of a Set Shards call, or ``NOT_SENT``."""
        self._calls.labels(answer).inc()

    def lead(self, leads: bool) -> None:
        """Note whether this process leads."""
        self._leading.set(int(leads))

    def count_clusters(self, clusters: int) -> None:
        """Note how many clusters have a loop."""
        self._clusters.set(clusters)

    # --- probes and watches --------------------------------------------------------------------------------------------------

    def observe_silence(self, silence: Silence) -> None:
        """Note how many Coreapps are probed, and how many of them are unresponsive."""
        self._targets.set(silence.targets)
        self._unresponsive.set(silence.unresponsive)

    def observe_lag(self, seconds: float) -> None:
        """Note how late the event loop was."""
        self._lag.set(seconds)

    def observe_lease(self, age: float) -> None:
        """Note for how many seconds no renewal of the Lease was seen."""
        self._lease_age.set(age)

    def observe_nodes(self, known: Mapping[str, object] | None) -> None:
        """Note how many nodes are known."""
        self._nodes.set(-1 if known is None else len(known))

    def observe_watches(self, cut_off: Mapping[str, float]) -> None:
        """Note for how many seconds each watch has not been connected."""
        for name, seconds in cut_off.items():
            self._watches.labels(name).set(seconds)

    def count_writes(self, writes: Tally[tuple[str, str]]) -> None:
        """Export this counter of writes by (verb, kind) from now on."""
        help_text = "Writes sent to the API server, also rejected ones."
        self.registry.register(_Counted("writes", help_text, ("verb", "kind"), lambda: writes))

    def count_sent_again(self, **calls: Tally[str]) -> None:
        """Export these counters of calls that were sent again, by the sending that was answered, under their names from now on."""
        help_text = (
            "Calls without an answer from the API server that were sent again, and watches for which another connection was opened, by "
            "which of them was answered first: the first (the API server is slow), a later one (one of several servers hangs), or none."
        )

        def read() -> Mapping[tuple[str, str], int]:
            return {(call, answered): number for call, counts in calls.items() for answered, number in counts.items()}

        self.registry.register(_Counted("calls_sent_again", help_text, ("call", "answered"), read))


class _Counted(Collector):
    """A counter that another part of this process keeps."""

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...], read: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        self._described = f"multiconnect_{name}", help_text
        self._labels = labels
        self._read = read

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(*self._described, labels=self._labels)
        for values, number in sorted(dict(self._read()).items()):
            family.add_metric(values, number)
        yield family


# --- liveness -----------------------------------------------------------------------------------------------------


class LoopLagMonitor:
    """Beats while the event loop runs, and measures its lag."""

    def __init__(self, clock: Clock, *, on_beat: Callable[[float], None], dead_after: float = DEAD_AFTER) -> None:
        """``beaten`` is called at each beat with the seconds by which it was late."""
        self._clock = clock
        self._on_beat = on_beat
        self._dead_after = dead_after
        self._at = clock.monotonic()

    def seconds_ago(self) -> float:
        """Return how long ago the last beat was, in seconds; may be called from any thread."""
        return self._clock.monotonic() - self._at

    def is_alive(self) -> bool:
        """Return whether the event loop ran recently; may be called from any thread."""
        return self.seconds_ago() < self._dead_after

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            self._at = before = self._clock.monotonic()
            await asyncio.sleep(BEAT)
            self._on_beat(max(0.0, self._clock.monotonic() - before - BEAT))


# --- the server ----------------------------------------------------------------------------------------------------------


class _Quiet(WSGIRequestHandler):
    timeout = 10.0  # a client that sends nothing must not occupy a thread

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library calls it so
        """Log nothing."""


class _Server(ThreadingWSGIServer):
    def server_bind(self) -> None:
        """Bind without a DNS query for the own name, which the library would make and which can take seconds. ``::`` is IPv4 too."""
        if self.server_address[0] == "::":
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing about clients that disconnect."""


class _Server6(_Server):
    address_family = socket.AF_INET6


def application(
    registry: CollectorRegistry,
    lag_monitor: LoopLagMonitor,
    *,
    stalled: Callable[[], str | None] = lambda: None,
    unready: Callable[[], str | None] = lambda: None,
) -> WSGIApplication:
    """Return the application: /metrics, /healthz and /readyz. The last two answer with 200, or with 503 and the reason.

    ``stalled`` returns why only a new process helps, ``unready`` why this one has not read enough to lead; the server's thread calls both.
    """
    metrics: WSGIApplication = make_wsgi_app(registry)

    def fault() -> str | None:
        return stalled() if lag_monitor.is_alive() else f"the event loop has not run for {lag_monitor.seconds_ago():.0f} s"

    checks: dict[str, Callable[[], str | None]] = {"/healthz": fault, "/readyz": lambda: fault() or unready()}

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return metrics(environ, start)
        if path in checks:
            why = checks[path]()
            status, text = ("200 OK", "ok") if why is None else ("503 Service Unavailable", why)
        else:
            status, text = "404 Not Found", "there are /metrics, /healthz and /readyz"
        start(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode()]

    return answer


@contextmanager
def served(app: WSGIApplication, *, host: str, port: int) -> Iterator[int]:
    """Serve in a separate thread until the block ends; yields the port (0: any free one). ValueError if it cannot be opened.

    The host ``::`` is every address of both families, or of IPv4 where the kernel has no IPv6.
    """
    if host == "::" and not socket.has_dualstack_ipv6():
        host = "0.0.0.0"  # noqa: S104  Prometheus and the kubelet connect from other machines
    try:
        listening = make_server(host, port, app, _Server6 if ":" in host else _Server, handler_class=_Quiet)
    except OSError as error:
        msg = f"metrics cannot be served on {host}, port {port}: {error.strerror or error}; choose others by METRICS_HOST and METRICS_PORT."
        raise ValueError(msg) from None
    with listening as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(timeout=5)
