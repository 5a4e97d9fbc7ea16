"""What Prometheus reads, as text; and /healthz, as the kubelet asks for it."""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from whatsapp_operator.core.actions import Handover
from whatsapp_operator.core.names import Epoch, Key
from whatsapp_operator.core.snapshot import Coreapp, Evidence, Route, Silence
from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.metrics import LoopLagMonitor, Metrics, Phase, application, served

ACME, OTHER = Key("ns", "acme"), Key("ns", "other")
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def text(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def value(metrics: Metrics, series: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(series, labels)


def a_handover(*, holder: str | None = "acme-coreapp-0", planned: bool = False) -> Handover:
    return Handover(
        route=Route(shard=0, name="acme-shard-0", uid="s", version=7, holder=holder),
        to=Coreapp(name="acme-coreapp-1", uid="u", ordinal=1),
        epoch=Epoch(7, "abcde"),
        evidence=Evidence.POD_DELETED,
        planned=planned,
        shards=1,
        detected_at=NOW,
    )


def test_phases_of_handovers() -> None:
    metrics = Metrics()
    metrics.observe_phase(Phase.COMMIT, Evidence.CONNECTION_LOST, 0.02)
    metrics.observe_phase(Phase.COMMIT, Evidence.CONNECTION_LOST, timedelta(seconds=3.5))
    metrics.observe_phase(Phase.DETECT, Evidence.CONNECTION_LOST, timedelta(seconds=-1))
    labels = {"phase": "commit", "evidence": "ConnectionLost"}
    assert value(metrics, "multiconnect_handover_seconds_count", **labels) == 2
    assert value(metrics, "multiconnect_handover_seconds_sum", **labels) == 3.52
    assert value(metrics, "multiconnect_handover_seconds_bucket", **labels, le="0.025") == 1
    assert value(metrics, "multiconnect_handover_seconds_sum", phase="detect", evidence="ConnectionLost") == 0, "a clock that was set back"
    assert 'multiconnect_handover_seconds_bucket{evidence="ConnectionLost",le="0.005",phase="commit"} 0.0' in text(metrics)
    assert [phase.value for phase in Phase] == ["detect", "decide", "prepare", "commit", "assign", "serve"]


def test_handovers_by_kind() -> None:
    metrics = Metrics()
    metrics.count_handover(a_handover())
    metrics.count_handover(a_handover(planned=True))
    metrics.count_handover(a_handover(holder=None))
    for kind in ("Failover", "Switchover", "First"):
        assert f'multiconnect_handovers_total{{evidence="PodDeleted",kind="{kind}"}} 1.0' in text(metrics)


def test_the_loop() -> None:
    metrics = Metrics()
    times = iter([5.0, 5.25])
    with metrics.time_observation(lambda: next(times)):
        pass
    metrics.count_error(TimeoutError())
    metrics.count_call("Busy")
    metrics.lead(True)
    metrics.count_clusters(3)
    metrics.observe_silence(Silence(targets=9, unresponsive=2))
    metrics.observe_lag(0.125)
    metrics.observe_nodes({"a": object()})
    said = text(metrics)
    for line in (
        "multiconnect_observation_seconds_sum 0.25",
        "multiconnect_observation_seconds_count 1.0",
        'multiconnect_reconcile_errors_total{error="TimeoutError"} 1.0',
        'multiconnect_set_shards_attempts_total{answer="Busy"} 1.0',
        "multiconnect_leading 1.0",
        "multiconnect_clusters 3.0",
        "multiconnect_probe_targets 9.0",
        "multiconnect_probe_unresponsive 2.0",
        "multiconnect_loop_lag_seconds 0.125",
        "multiconnect_nodes_known 1.0",
    ):
        assert f"\n{line}\n" in said
    metrics.lead(False)
    metrics.observe_nodes(None)
    assert value(metrics, "multiconnect_leading") == 0
    assert value(metrics, "multiconnect_nodes_known") == -1


def test_an_observation_that_fails_is_timed_too() -> None:
    metrics = Metrics()
    with pytest.raises(ZeroDivisionError), metrics.time_observation(time.monotonic):
        _ = 1 / 0
    assert value(metrics, "multiconnect_observation_seconds_count") == 1


def test_writes_are_read_from_the_clients_own_counter() -> None:
    metrics = Metrics()
    writes: Counter[tuple[str, str]] = Counter()
    metrics.count_writes(writes)
    writes["patch", "Pod"] += 2
    assert 'multiconnect_writes_total{kind="Pod",verb="patch"} 2.0' in text(metrics)
    writes["patch", "Pod"] += 1
    assert value(metrics, "multiconnect_writes_total", verb="patch", kind="Pod") == 3


def a_status(reason: str = "Serving", *, active: int = 2, standby: int = 1) -> dict[str, object]:
    return {"reason": reason, "shards": 2, "failuresTolerated": standby, "coreapp": {"active": active, "standby": standby}}


def test_a_cluster_by_what_its_status_says() -> None:
    metrics = Metrics()
    metrics.observe_status(ACME, a_status())
    metrics.observe_status(ACME, a_status("FailingOver", active=1, standby=0))
    of = {"namespace": "ns", "name": "acme"}
    assert value(metrics, "multiconnect_shards", **of, state="Served") == 1
    assert value(metrics, "multiconnect_shards", **of, state="Unserved") == 1
    assert value(metrics, "multiconnect_standbys", **of) == 0
    assert value(metrics, "multiconnect_failures_tolerated", **of) == 0
    assert value(metrics, "multiconnect_reason", **of, reason="FailingOver") == 1
    assert value(metrics, "multiconnect_reason", **of, reason="Serving") is None, "one reason at a time"
    metrics.observe_status(OTHER, {"reason": "Creating"})
    assert value(metrics, "multiconnect_shards", namespace="ns", name="other", state="Unserved") == 0


def test_the_series_of_a_cluster_end_with_it() -> None:
    metrics = Metrics()
    metrics.observe_status(ACME, a_status())
    metrics.observe_status(OTHER, a_status())
    metrics.forget(ACME)
    metrics.forget(ACME)
    metrics.forget(Key("ns", "never"))
    assert 'name="acme"' not in text(metrics)
    assert text(metrics).count('name="other"') == 5
    metrics.observe_status(ACME, a_status())
    assert text(metrics).count('name="acme"') == 5


def test_two_processes_in_one_share_nothing() -> None:
    one, two = Metrics(), Metrics(CollectorRegistry())
    one.lead(True)
    assert value(two, "multiconnect_leading") == 0


# --- the server --------------------------------------------------------------------------------------------------------


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


class Clock(SystemClock):
    def __init__(self) -> None:
        self.at = 100.0
        super().__init__(seconds=lambda: self.at)


def test_what_is_served_where() -> None:
    metrics, clock = Metrics(), Clock()
    lag_monitor = LoopLagMonitor(clock, on_beat=metrics.observe_lag)
    with served(application(metrics.registry, lag_monitor), host="127.0.0.1", port=0) as port:
        status, body = get(port, "/metrics")
        assert (status, "multiconnect_leading 0.0" in body) == (200, True)
        assert get(port, "/healthz") == (200, "ok\n")
        clock.at += 9.9
        assert get(port, "/healthz")[0] == 200
        clock.at += 0.2
        assert get(port, "/healthz") == (503, "the event loop has not run for 10 s\n")
        assert get(port, "/")[0] == 404
        with pytest.raises(ValueError, match=rf"metrics cannot be served on 127\.0\.0\.1, port {port}: .*METRICS_HOST and METRICS_PORT"):
            served(application(metrics.registry, lag_monitor), host="127.0.0.1", port=port).__enter__()
    assert not [thread for thread in threading.enumerate() if thread.name == "metrics"]


def test_health_says_why_only_a_new_process_helps() -> None:
    why: list[str | None] = [None]
    lag_monitor = LoopLagMonitor(Clock(), on_beat=lambda _: None)
    with served(application(Metrics().registry, lag_monitor, stalled=lambda: why[0]), host="127.0.0.1", port=0) as port:
        assert get(port, "/healthz") == (200, "ok\n")
        why[0] = "nothing has watched pods for 61 s"
        assert get(port, "/healthz") == (503, "nothing has watched pods for 61 s\n")


def test_watches_that_are_cut_off() -> None:
    metrics = Metrics()
    metrics.observe_watches({"pods": 0.0, "nodes": 12.5})
    assert value(metrics, "multiconnect_watch_cut_off_seconds", watch="nodes") == 12.5
    assert value(metrics, "multiconnect_watch_cut_off_seconds", watch="pods") == 0


async def test_health_is_served_while_the_event_loop_stands_still() -> None:
    lags: list[float] = []
    lag_monitor = LoopLagMonitor(SystemClock(), on_beat=lags.append, dead_after=0.5)
    beating = asyncio.create_task(lag_monitor.run())
    with served(application(Metrics().registry, lag_monitor), host="127.0.0.1", port=0) as port:
        await asyncio.sleep(0.3)
        assert (await asyncio.to_thread(get, port, "/healthz"))[0] == 200
        deadline = time.monotonic() + 5
        while (answer := get(port, "/healthz")[0]) == 200 and time.monotonic() < deadline:  # blocks the loop on purpose
            time.sleep(0.05)  # noqa: ASYNC251
        assert answer == 503
        await asyncio.sleep(0.05)
        assert (await asyncio.to_thread(get, port, "/healthz"))[0] == 200
    beating.cancel()
    assert max(lags) > 0.2, "and how late it was"
