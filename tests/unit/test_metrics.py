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

from waiting import until
from whatsapp_operator import __version__
from whatsapp_operator.core.actions import Handover
from whatsapp_operator.core.names import Epoch, Key
from whatsapp_operator.core.reasons import Reason
from whatsapp_operator.core.snapshot import Coreapp, Evidence, Route, Silence
from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.kube.transport import SentAgain
from whatsapp_operator.shell.metrics import LoopLagMonitor, Metrics, Phase, application, served

SERIES_OF_CLUSTER, SERIES_OF_PROCESS = 35, 1669
"""As docs/metrics.md states it."""
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
    metrics.count_error(Reason.READ_FAILED)
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
        'multiconnect_reconcile_errors_total{reason="ReadFailed"} 1.0',
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


def test_calls_that_are_sent_again_are_read_from_the_counters_of_those_that_send_them() -> None:
    metrics, reads, renewals = Metrics(), SentAgain(), SentAgain()
    metrics.count_sent_again(read=reads, renewal=renewals)
    first, second = object(), object()
    for one in (reads, renewals):
        one.note([first], first)  # sent once
        one.note([first, second], first)
    renewals.note([first, second], second)
    renewals.note([first, second], None)
    found = {
        (call, answered): value(metrics, "multiconnect_calls_sent_again_total", call=call, answered=answered)
        for call in ("read", "renewal")
        for answered in ("first", "later", "none")
    }
    assert found == {
        ("read", "first"): 1, ("read", "later"): 0, ("read", "none"): 0,
        ("renewal", "first"): 1, ("renewal", "later"): 1, ("renewal", "none"): 1,
    }  # fmt: skip


def a_status(reason: str = "Serving", *, active: int = 2, standby: int = 1, ready: str = "True") -> dict[str, object]:
    return {
        "reason": reason,
        "shards": 2,
        "settledShards": 2,
        "failuresTolerated": standby,
        "coreapp": {"active": active, "standby": standby, "desired": 3, "ready": active + standby},
        "webapp": {"desired": 2, "ready": 1},
        "conditions": [{"type": "Ready", "status": ready, "reason": reason}],
    }


OF_ACME = {"namespace": "ns", "name": "acme"}


def of_acme(metrics: Metrics, series: str, **labels: str) -> float | None:
    return value(metrics, f"multiconnect_{series}", **OF_ACME, **labels)


def test_a_cluster_by_what_its_status_says() -> None:
    metrics = Metrics()
    metrics.clusters.observe_status(ACME, a_status())
    assert of_acme(metrics, "condition", type="Ready", status="True") == 1
    metrics.clusters.observe_status(ACME, a_status("FailingOver", active=1, standby=0, ready="False"))
    assert of_acme(metrics, "shards", state="Served") == 1
    assert of_acme(metrics, "shards", state="Unserved") == 1
    assert of_acme(metrics, "shards_settled") == 2
    assert of_acme(metrics, "standbys") == 0
    assert of_acme(metrics, "failures_tolerated") == 0
    assert (of_acme(metrics, "coreapps_desired"), of_acme(metrics, "coreapps_ready")) == (3, 1)
    assert (of_acme(metrics, "webapps_desired"), of_acme(metrics, "webapps_ready")) == (2, 1)
    assert of_acme(metrics, "reason", reason="FailingOver") == 1
    assert of_acme(metrics, "reason", reason="Serving") is None, "one reason at a time"
    assert [of_acme(metrics, "condition", type="Ready", status=one) for one in ("True", "False", "Unknown")] == [0, 1, 0]
    metrics.clusters.observe_status(OTHER, {"reason": "Creating"})
    assert value(metrics, "multiconnect_shards", namespace="ns", name="other", state="Unserved") == 0


def test_times_of_a_cluster_are_there_while_they_apply() -> None:
    metrics = Metrics()
    metrics.clusters.observe_status(ACME, a_status())
    times = ("operation_started_timestamp_seconds", "operation_deadline_timestamp_seconds", "certificate_expiry_timestamp_seconds")
    assert [of_acme(metrics, one) for one in times] == [None, None, None]
    operation = {"startedAt": "2030-01-01T00:00:00Z", "deadline": "2030-01-01T00:02:00Z"}
    metrics.clusters.observe_status(ACME, {**a_status(), "operation": operation, "certificate": {"expiresAt": "2030-01-01T01:00:00Z"}})
    at = NOW.timestamp()
    assert [of_acme(metrics, one) for one in times] == [at, at + 120, at + 3600]


def test_probes_and_requests_of_a_cluster() -> None:
    metrics = Metrics()
    metrics.clusters.observe_probes(ACME, (), NOW)
    metrics.clusters.count_request(ACME, "Failed")
    assert 'name="acme"' not in text(metrics), "a cluster without a status has no series"
    metrics.clusters.observe_status(ACME, a_status())
    assert of_acme(metrics, "client_requests_total", result="Failed") == 0, "there from the start"
    assert of_acme(metrics, "observed_timestamp_seconds") is None
    pods = [
        Coreapp(name="a", uid="a", ordinal=0),
        Coreapp(name="b", uid="b", ordinal=1),
        Coreapp(name="c", uid="c", ordinal=2, unresponsive_since=NOW),
        Coreapp(name="d", uid="d", ordinal=3, unresponsive_since=NOW, broken_at=NOW),
        Coreapp(name="e", uid="e", ordinal=4, never_responded=True),
    ]
    metrics.clusters.observe_probes(ACME, pods, NOW)
    found = {one: of_acme(metrics, "probes", result=one) for one in ("Answered", "Unanswered", "ConnectionRefused", "NeverAnswered")}
    assert found == {"Answered": 2, "Unanswered": 1, "ConnectionRefused": 1, "NeverAnswered": 1}
    assert of_acme(metrics, "observed_timestamp_seconds") == NOW.timestamp()
    metrics.clusters.count_request(ACME, "Failed")
    assert of_acme(metrics, "client_requests_total", result="Failed") == 1
    assert of_acme(metrics, "client_requests_total", result="Answered") == 0


def test_the_series_of_a_cluster_end_with_it() -> None:
    metrics = Metrics()
    metrics.clusters.observe_status(ACME, a_status())
    metrics.clusters.observe_status(OTHER, a_status())
    metrics.clusters.forget(ACME)
    metrics.clusters.forget(ACME)
    metrics.clusters.forget(Key("ns", "never"))
    assert 'name="acme"' not in text(metrics)
    found = text(metrics).count('name="other"')
    metrics.clusters.observe_status(ACME, a_status())
    assert text(metrics).count('name="acme"') == found > 15


def test_the_series_of_a_cluster_and_of_a_process_are_bounded() -> None:
    metrics = Metrics()
    of_process = sum(len(family.samples) for family in metrics.registry.collect() if family.name.startswith("multiconnect_"))
    types = ("Ready", "Reconciling", "Stalled", "Redundant", "CertificateValid")
    whole = {
        **a_status(),
        "conditions": [{"type": one, "status": "True"} for one in types],
        "operation": {"startedAt": "2030-01-01T00:00:00Z", "deadline": "2030-01-01T00:00:00Z"},
        "certificate": {"expiresAt": "2030-01-01T00:00:00Z"},
    }
    metrics.clusters.observe_status(ACME, whole)
    metrics.clusters.observe_probes(ACME, (), NOW)
    assert text(metrics).count('name="acme"') == SERIES_OF_CLUSTER
    assert of_process == SERIES_OF_PROCESS


@pytest.mark.slow
def test_labelled_counters_are_there_from_the_start_and_nothing_is_created() -> None:
    metrics = Metrics()
    for evidence in Evidence:
        for kind in ("Failover", "Switchover", "First"):
            assert value(metrics, "multiconnect_handovers_total", kind=kind, evidence=evidence) == 0
        for phase in Phase:
            assert value(metrics, "multiconnect_handover_seconds_count", phase=phase, evidence=evidence) == 0
    for answer in ("Accepted", "Busy", "Rejected", "Unknown", "NotSent"):
        assert value(metrics, "multiconnect_set_shards_attempts_total", answer=answer) == 0
    for reason in ("ReadFailed", "StatusRejected", "SpecInvalid", "InternalError"):
        assert value(metrics, "multiconnect_reconcile_errors_total", reason=reason) == 0
    assert "_created" not in text(metrics)


def test_the_process_and_its_build() -> None:
    metrics = Metrics()
    assert value(metrics, "multiconnect_build_info", version=__version__) == 1
    assert (value(metrics, "process_resident_memory_bytes") or 0) > 0
    assert (value(metrics, "process_start_time_seconds") or 0) > 0
    metrics.observe_lease(2.5)
    assert value(metrics, "multiconnect_lease_age_seconds") == 2.5


def test_two_processes_in_one_share_nothing() -> None:
    one, two = Metrics(), Metrics(CollectorRegistry())
    one.lead(True)
    assert value(two, "multiconnect_leading") == 0


# --- the server --------------------------------------------------------------------------------------------------------


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
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
        assert get(port, "/") == (404, "there are /metrics, /healthz and /readyz\n")
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


def test_ready_is_less_than_alive() -> None:
    why: dict[str, str | None] = {"stalled": None, "unready": "not connected to pods yet"}
    clock = Clock()
    app = application(
        Metrics().registry,
        LoopLagMonitor(clock, on_beat=lambda _: None),
        stalled=lambda: why["stalled"],
        unready=lambda: why["unready"],
    )
    with served(app, host="127.0.0.1", port=0) as port:
        assert get(port, "/healthz") == (200, "ok\n")
        assert get(port, "/readyz") == (503, "not connected to pods yet\n")
        why["unready"] = None
        assert get(port, "/readyz") == (200, "ok\n")
        why["stalled"] = "nothing has watched pods for 61 s"
        assert get(port, "/readyz") == (503, "nothing has watched pods for 61 s\n")
        clock.at += 11
        assert get(port, "/readyz") == (503, "the event loop has not run for 11 s\n")


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

        async def is_healthy() -> bool:
            return (await asyncio.to_thread(get, port, "/healthz"))[0] == 200

        await until(is_healthy)
        deadline = time.monotonic() + 60
        while (answer := get(port, "/healthz")[0]) == 200 and time.monotonic() < deadline:  # blocks the loop on purpose
            time.sleep(0.05)  # noqa: ASYNC251
        assert answer == 503
        await until(is_healthy)
    beating.cancel()
    assert max(lags) > 0.2, "and how late it was"


@pytest.mark.parametrize("text", ["tomorrow", "2030-01-01T00:00:60Z", "", None, 7])
def test_a_time_that_is_damaged_ends_no_scrape(text: object) -> None:
    metrics = Metrics()
    metrics.clusters.observe_status(ACME, {**a_status(), "operation": {"startedAt": text}})
    metrics.clusters.observe_status(OTHER, a_status())

    families = {family.name: family for family in metrics.registry.collect()}
    assert families["multiconnect_operation_started_timestamp_seconds"].samples == []
    assert len(families["multiconnect_standbys"].samples) == 2
