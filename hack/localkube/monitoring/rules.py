"""The rules of Prometheus, and promtool's unit tests of them, made from the table of alerts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from . import situations
from .alerts import ALERTS, OF_CLUSTERS, OF_OPERATOR, Alert
from .situations import BEGIN, INTERVAL_S, RESTART

RUNBOOKS = "RUNBOOKS"
"""Stands for the address of the page of runbooks, which the user of the chart says."""
HEAD = "# Made by `make charts` from hack/localkube/monitoring/alerts.py.\n"
PLANNED = {"a planned move": situations.PLANNED_MOVE, "a Set Shards restart": situations.SET_SHARDS}
AROUND = (BEGIN, BEGIN + 1, BEGIN + RESTART // 2, BEGIN + RESTART - 1, BEGIN + RESTART, BEGIN + RESTART + 4, BEGIN + 40)
"""Samples at which nothing may fire while planned work goes on, or after it."""

Rule = dict[str, Any]


def groups() -> dict[str, Any]:
    """Return the groups of rules."""
    tables = {"whatsapp-operator": OF_OPERATOR, "whatsapp-clusters": OF_CLUSTERS}
    return {"groups": [{"name": name, "rules": [_rule(alert) for alert in table]} for name, table in tables.items()]}


def text() -> str:
    """Return the groups as YAML, as the chart has them."""
    return HEAD + yaml.safe_dump(groups(), sort_keys=False, width=140)


def anchor(alert: Alert) -> str:
    """Return the anchor of an alert's runbook on its page."""
    return alert.name.lower()


def _rule(alert: Alert) -> Rule:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.hold,
        "labels": {"severity": alert.severity},
        "annotations": _annotations(alert),
    }


def _annotations(alert: Alert, labels: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the annotations; with ``labels`` as Prometheus shows them for an alert with these."""
    summary = alert.summary
    if labels is not None:
        summary = re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels.get(found[1], ""), summary)
    return {"summary": summary, "description": f"{alert.meaning} {alert.impact}", "runbook_url": f"{RUNBOOKS}#{anchor(alert)}"}


# --- unit tests ---------------------------------------------------------------------------------------------------------------


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


def metrics_of(expr: str) -> set[str]:
    """Return the names of the operator's metrics in an expression."""
    return set(re.findall(r"\bmulticonnect_\w+", expr))


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
    fired = {"exp_labels": labels, "exp_annotations": _annotations(alert, labels)}
    return {"eval_time": alert.fires_at, "alertname": alert.name, "exp_alerts": [fired]}


def _nothing(sample: int, alert: Alert) -> Rule:
    return {"eval_time": f"{sample * INTERVAL_S}s", "alertname": alert.name, "exp_alerts": []}
