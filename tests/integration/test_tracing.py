"""The trace of a failover, as a real collector gets it from a real operator."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from localkube.plane.operators import Operators
from outside.otlp import attributes, collecting

from .environment import LONG, Environment, Harness

pytestmark = pytest.mark.integration


async def test_a_failover_gives_one_trace_with_its_six_phases_in_order(harness: Harness, environment: Environment, tmp_path: Path) -> None:
    await environment.created(shards=1, spares=1)
    async with collecting() as collector:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100", "SETTLE_GRACE_SECONDS": "2"}
        traced = Operators(harness.plane, tmp_path / "operators", env=env)
        try:
            (tmp_path / "operators").mkdir()
            process = traced.start("op-traced")
            await asyncio.to_thread(harness.end_replicas)
            async with asyncio.timeout(LONG):
                while await asyncio.to_thread(traced.leader) != "op-traced":
                    await asyncio.sleep(0.1)
            before, old = len(environment.seen.commits), environment.holder(0)
            async with environment.control() as control:
                await control.hang(environment.namespace, old)
            commit = await environment.commit(0, before)
            await collector.until(lambda: len(collector.spans) >= 7, LONG)
            await environment.at_rest()
        finally:
            traced.close()
            await asyncio.to_thread(harness.ensure_replicas)
    assert process.exit_text() == "exited with status 0"
    assert "Traceback" not in (tmp_path / "operators" / "op-traced.log").read_text(encoding="utf-8")

    (spans,) = collector.traces().values()
    (root,) = (span for span in spans if not span.parent_span_id)
    phases = sorted((span for span in spans if span is not root), key=lambda one: (one.start_time_unix_nano, one.end_time_unix_nano))
    assert [span.name for span in phases] == ["detect", "decide", "prepare", "commit", "assign", "serve"]
    assert all(one.end_time_unix_nano <= next_one.start_time_unix_nano for one, next_one in itertools.pairwise(phases[:5]))
    assert attributes(root) == {
        "cluster": "acme",
        "namespace": environment.namespace,
        "shard": 0,
        "epoch": commit.epoch,
        "evidence": "ProbeTimeout",
        "from": old,
        "to": commit.holder,
    }
    (entry,) = [one for one in environment.status()["recentHandovers"] if one["epoch"] == commit.epoch]
    took = {span.name: (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6 for span in phases}
    assert took["detect"] == pytest.approx(entry["detectMilliseconds"], abs=1)
    assert took["serve"] == pytest.approx(entry["serveMilliseconds"], abs=1)
