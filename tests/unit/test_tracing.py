"""A trace for each handover: what a collector gets, and that no collector holds up a handover or the end of the process."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from prometheus_client.openmetrics.exposition import generate_latest

from outside.otlp import Collector, attributes, collecting
from whatsapp_operator.core.actions import AssignRole, Handover
from whatsapp_operator.core.names import Epoch
from whatsapp_operator.core.snapshot import Evidence
from whatsapp_operator.shell.coreapps.schedule import ProbeResult
from whatsapp_operator.shell.kube.errors import Conflict
from whatsapp_operator.shell.loop.cluster import Memory
from whatsapp_operator.shell.loop.execute import Executor
from whatsapp_operator.shell.loop.observe import Observation
from whatsapp_operator.shell.metrics import Metrics, Phase
from whatsapp_operator.shell.tracing import CLOSE_WITHIN, Tracing
from whatsapp_operator.shell.whatsapp.access import Access, Credentials

from .core.situations import NOW, pod, situation
from .fake_apiserver import an_apiserver

LONG = 60.0
AHEAD = timedelta(hours=1)
"""By how much the wall clock was set forward since the process began."""
MILLISECONDS = {"detect": 3000, "decide": 10, "prepare": 20, "commit": 30, "assign": 40, "serve": 40}
ROOT = Path(__file__).resolve().parents[2]


class Fakes:
    """A clock that only calls move: 20 ms for a pod, 30 ms for a Service, 40 ms for an assignment. All are accepted."""

    def __init__(self) -> None:
        self.at = NOW + timedelta(milliseconds=10)
        self.conflicts = False
        self.slips = timedelta(0)
        """By how much the wall clock is set back each time that it was read."""
        self._ahead = AHEAD

    def now(self) -> datetime:
        return self.at

    def wall(self) -> datetime:
        wall = self.at + self._ahead
        self._ahead -= self.slips
        return wall

    def monotonic(self) -> float:
        return (self.at - NOW).total_seconds()

    def result_of(self, _: str) -> ProbeResult:
        return ProbeResult()

    async def patch_json(self, *_: Any) -> dict[str, Any]:
        self.at += timedelta(milliseconds=20)
        return {}

    async def patch_merge(self, *_: Any) -> dict[str, Any]:
        if self.conflicts:
            raise Conflict("patch Service: 409 Conflict", code=409, reason="Conflict")
        self.at += timedelta(milliseconds=30)
        return {"metadata": {"name": "no-shard"}}

    async def assign(self, message: AssignRole) -> bool:
        if message.holder is None:
            self.at += timedelta(milliseconds=40)
        return True

    async def create(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        return dict(obj)


def openmetrics(metrics: Metrics) -> str:
    text: bytes = generate_latest(metrics.registry)  # type: ignore[no-untyped-call]
    return text.decode()


class Cluster:
    """One cluster of one shard, whose holder did not answer for three seconds."""

    def __init__(self, tracing: Tracing | None) -> None:
        self.fakes, self.memory, self.metrics = Fakes(), Memory(), Metrics()
        fake: Any = self.fakes
        self._executor = Executor(kube=fake, clients=fake, coreapps=fake, clock=fake, identity="me", metrics=self.metrics, tracing=tracing)
        one = situation().settled(shards=1)
        self._observation = Observation(
            one.desired, one.snapshot, Access(addresses=(), server_name=""), Credentials(country_code="1", phone_number="2")
        )
        old = replace(pod(0, shards=1), unresponsive_since=NOW - timedelta(seconds=3))
        self.handover = Handover(
            route=one.snapshot.routes[0],
            to=pod(1, shards=1),
            epoch=Epoch(7, "abcde"),
            evidence=Evidence.PROBE_TIMEOUT,
            planned=False,
            shards=1,
            old=old,
            failed_at=old.unresponsive_since,
            detected_at=NOW,
        )

    async def hand_over(self) -> bool:
        """Whether it is committed."""
        return not (await self._executor.perform(self._observation, [self.handover], self.memory)).is_outdated


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    async with collecting() as one:
        yield one


def span_times(span: Span) -> tuple[timedelta, timedelta]:
    """Start and end, counted from what the wall clock shows at NOW."""
    zero = (NOW + AHEAD - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    start, end = (timedelta(microseconds=at // 1000 - zero) for at in (span.start_time_unix_nano, span.end_time_unix_nano))
    return start, end


async def test_a_failover_is_one_trace_with_its_phases_in_order(collector: Collector) -> None:
    tracing = Tracing(collector.url, identity="op-a_1")
    cluster = Cluster(tracing)
    assert await cluster.hand_over()
    await collector.until(lambda: len(collector.spans) == 7, LONG)
    await asyncio.to_thread(tracing.close)

    assert collector.services == {"whatsapp-operator"}
    ((trace_id, spans),) = collector.traces().items()
    (root,) = (span for span in spans if not span.parent_span_id)
    phases = sorted((span for span in spans if span is not root), key=lambda one: (one.start_time_unix_nano, one.end_time_unix_nano))
    assert [span.name for span in phases] == [phase.value for phase in Phase]
    assert {span.parent_span_id for span in phases} == {root.span_id}
    assert {span.name: (span_times(span)[1] - span_times(span)[0]) // timedelta(milliseconds=1) for span in phases} == MILLISECONDS
    assert span_times(root) == (timedelta(seconds=-3), timedelta(milliseconds=10 + 20 + 30 + 40))
    assert (root.name, root.status.code) == ("handover", Status.STATUS_CODE_UNSET)
    assert attributes(root) == {
        "cluster": "acme",
        "namespace": "default",
        "shard": 0,
        "epoch": "7-abcde",
        "evidence": "ProbeTimeout",
        "from": "acme-coreapp-0",
        "to": "acme-coreapp-1",
    }
    said = openmetrics(cluster.metrics)
    for phase, milliseconds in MILLISECONDS.items():
        assert f'# {{trace_id="{trace_id}"}} {milliseconds / 1000}' in "\n".join(
            line for line in said.splitlines() if f'phase="{phase}"' in line and "_bucket" in line
        )


async def test_a_wall_clock_that_is_set_meanwhile_moves_no_phase_against_another(collector: Collector) -> None:
    tracing = Tracing(collector.url, identity="op-a_1")
    cluster = Cluster(tracing)
    cluster.fakes.slips = timedelta(milliseconds=1)
    assert await cluster.hand_over()
    await collector.until(lambda: len(collector.spans) == 7, LONG)
    await asyncio.to_thread(tracing.close)

    times = {span.name: span_times(span) for span in collector.spans}
    starts = dict.fromkeys(Phase, timedelta(0)) | {Phase.DETECT: timedelta(seconds=-3)}
    for phase, sooner in zip([*Phase][2:], [10, 30, 60, 60], strict=True):
        starts[phase] = timedelta(milliseconds=sooner)
    assert {phase.value: (start, start + timedelta(milliseconds=MILLISECONDS[phase])) for phase, start in starts.items()} == {
        name: span for name, span in times.items() if name != "handover"
    }


async def test_an_attempt_that_is_not_committed_is_a_failed_trace(collector: Collector) -> None:
    tracing = Tracing(collector.url, identity="op-a_1")
    cluster = Cluster(tracing)
    cluster.fakes.conflicts = True
    assert not await cluster.hand_over()
    await collector.until(lambda: len(collector.spans) == 4, LONG)
    await asyncio.to_thread(tracing.close)
    assert {span.name for span in collector.spans} == {"handover", "detect", "decide", "prepare"}
    (root,) = (span for span in collector.spans if not span.parent_span_id)
    assert (root.status.code, root.status.message) == (Status.STATUS_CODE_ERROR, "not committed")


async def test_what_is_left_is_sent_when_the_process_ends(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    tracing = Tracing(f"{collector.url}/", identity="op-a_1")
    assert await Cluster(tracing).hand_over()
    closing = asyncio.create_task(asyncio.to_thread(tracing.close))
    await collector.until(lambda: len(collector.spans) == 7, LONG)
    await closing


# ---- collectors that are away


@pytest.mark.parametrize("listens", [False, True], ids=["nobody listens", "it never answers"])
async def test_a_collector_that_is_away_holds_up_nothing(listens: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "32")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    # So that a single wait for the collector would be seen, also next to other work: it answers no request, or is tried for a minute.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "3600")
    called, ended = asyncio.Event(), asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        await ended.wait()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    if not listens:
        server.close()
        await server.wait_closed()
    tracing = Tracing(f"http://{host}:{port}", identity="op-a_1")
    try:
        began = time.monotonic()
        # Seven spans each: more than the queue takes.
        for _ in range(20):
            assert await Cluster(tracing).hand_over()
        took = time.monotonic() - began
        if listens:
            await asyncio.wait_for(called.wait(), LONG)
        await asyncio.to_thread(tracing.close)
        closed_in = time.monotonic() - began - took
    finally:
        ended.set()
        server.close()
    assert took < LONG, "no handover waited for the collector"
    # The library's own shutdown would wait for 30 s.
    assert closed_in < CLOSE_WITHIN + 20


# ---- off


@pytest.mark.slow
async def test_nothing_of_it_is_imported_when_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys, whatsapp_operator.__main__; print(*(name for name in sys.modules if 'opentelemetry' in name))"
    env = {"PYTHONPATH": str(ROOT / "operator")}
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=LONG, check=True
    )
    assert done.stdout == "\n"
    for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        monkeypatch.setitem(sys.modules, name, None)
    cluster = Cluster(None)
    assert await cluster.hand_over()
    assert cluster.metrics.registry.get_sample_value("multiconnect_handovers_total", {"kind": "Failover", "evidence": "ProbeTimeout"}) == 1
    assert "trace_id" not in openmetrics(cluster.metrics)
    with pytest.raises(ImportError, match=r"pip install 'whatsapp-operator\[tracing\]'"):
        Tracing("http://127.0.0.1:9", identity="op-a_1")


@pytest.mark.slow
async def test_a_collector_without_the_packages_is_one_sentence(tmp_path: Path) -> None:
    script = "import sys; sys.modules['opentelemetry'] = None; from whatsapp_operator.__main__ import main; main([])"
    env = {"PYTHONPATH": str(ROOT / "operator"), "POD_NAMESPACE": "shop", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    async with an_apiserver() as server:
        env["KUBECONFIG"] = str(server.kubeconfig(tmp_path))
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=LONG, check=False
        )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"[^\n]*: OTEL_EXPORTER_OTLP_ENDPOINT is set, but traces need .*\n", done.stderr), done.stderr
