"""Promtool's unit tests of the alerts, made from their table: each fires in its own series and is silent in planned work."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from localkube.monitoring import situations
from localkube.monitoring.alerts import ALERTS, Alert
from localkube.monitoring.rules import Rule, annotations_of, metrics_of
from localkube.monitoring.situations import BEGIN, INTERVAL_S, LAST, LEADER, Series, condition, of_cluster, serve, step


def interval(before: float, during: float, *, samples: int) -> str:
    """Return a value that changes for so many samples and then changes back."""
    return f"{before:g}x{BEGIN - 1} {during:g}x{samples - 1} {before:g}x{LAST - BEGIN - samples}"


def turned(kind: str, status: str, to: str, *, samples: int) -> dict[str, str]:
    """Return the series of a condition that changes its status for so many samples."""
    return {condition(kind, status): interval(1, 0, samples=samples), condition(kind, to): interval(0, 1, samples=samples)}


PLANNED_MOVE: Series = {
    # A scrape finds the shard between its two holders.
    **turned("Ready", "True", "False", samples=1),
    **turned("Reconciling", "False", "True", samples=1),
    of_cluster("shards", 'state="Served"'): interval(2, 1, samples=1),
    of_cluster("shards", 'state="Unserved"'): interval(0, 1, samples=1),
    f'multiconnect_handovers_total{{{LEADER},kind="Switchover",evidence="Requested"}}': step(0, 1),
    **{serve("Requested", le): step(0, 1) for le in ("4.0", "+Inf")},
}
RESTART = 8
"""Samples for which a restart takes: two minutes."""
SET_SHARDS: Series = {
    **turned("Ready", "True", "False", samples=RESTART),
    **turned("Redundant", "True", "False", samples=RESTART),
    **turned("Reconciling", "False", "True", samples=RESTART),
    of_cluster("shards", 'state="Served"'): interval(2, 0, samples=RESTART),
    of_cluster("shards", 'state="Unserved"'): interval(0, 2, samples=RESTART),
    of_cluster("failures_tolerated"): interval(1, 0, samples=RESTART),
    of_cluster("client_requests_total", 'result="Failed"'): step(0, 8),
    of_cluster("operation_started_timestamp_seconds"): f"_x{BEGIN} {BEGIN * INTERVAL_S}x{RESTART - 1} stale",
    of_cluster("operation_deadline_timestamp_seconds"): f"_x{BEGIN} {BEGIN * INTERVAL_S + 180}x{RESTART - 1} stale",
}

PLANNED = {"a planned move": PLANNED_MOVE, "a Set Shards restart": SET_SHARDS}
AROUND = (BEGIN, BEGIN + 1, BEGIN + RESTART // 2, BEGIN + RESTART - 1, BEGIN + RESTART, BEGIN + RESTART + 4, BEGIN + 40)
"""Samples at which nothing may fire while planned work goes on, or after it."""


def unit_tests(rules: Path) -> dict[str, Any]:
    """Return the file of promtool's unit tests for the rules in the file ``rules``.

    Each alert fires in its own series, is silent in all planned work, and without its series the alert that it names fires.
    """
    fire = [_test(f"{alert.name} fires", {**situations.HEALTHY, **alert.fires}, [_expected(alert)]) for alert in ALERTS]
    silent = [
        _test(f"nothing fires in {what}", {**situations.HEALTHY, **differs}, [_nothing(sample, one) for one in ALERTS for sample in AROUND])
        for what, differs in PLANNED.items()
    ]
    return {"rule_files": [str(rules)], "evaluation_interval": f"{INTERVAL_S}s", "tests": [*fire, *silent, *_absent()]}


def _absent() -> Iterator[Rule]:
    for fallback in ALERTS:
        sources = {name for one in ALERTS if one.when_absent == fallback.name for name in metrics_of(one.expr)}
        if sources:
            series = {one: None if one.partition("{")[0] in sources - KEPT else values for one, values in situations.HEALTHY.items()}
            yield _test(f"{fallback.name} fires when the sources of others are absent", series, [_expected(fallback)])


KEPT = {"multiconnect_clusters"}
"""Says that there are clusters; it is no series of a cluster."""


def _test(name: str, series: Mapping[str, str | None], expected: list[Rule]) -> Rule:
    given = {one: values for one, values in series.items() if values is not None}
    return {
        "name": name,
        "interval": f"{INTERVAL_S}s",
        "input_series": [{"series": one, "values": values} for one, values in given.items()],
        "alert_rule_test": expected,
    }


def _expected(alert: Alert) -> Rule:
    labels = {"severity": alert.severity, **alert.labels}
    summary = re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels.get(found[1], ""), alert.summary)
    fired = {"exp_labels": labels, "exp_annotations": annotations_of(alert) | {"summary": summary}}
    return {"eval_time": alert.fires_at, "alertname": alert.name, "exp_alerts": [fired]}


def _nothing(sample: int, alert: Alert) -> Rule:
    return {"eval_time": f"{sample * INTERVAL_S}s", "alertname": alert.name, "exp_alerts": []}
