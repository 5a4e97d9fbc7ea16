"""The rules for Prometheus, generated from the table of alerts."""

from __future__ import annotations

import re
from typing import Any

import yaml

from .alerts import OF_CLUSTERS, OF_OPERATOR, Alert

RUNBOOKS = "RUNBOOKS"
"""Placeholder for the URL of the page of runbooks, which the user of the chart sets."""
HEAD = "# Made by `make charts` from hack/localkube/monitoring/alerts.py.\n"
Rule = dict[str, Any]


def groups() -> dict[str, Any]:
    """Return the groups of rules."""
    tables = {"whatsapp-operator": OF_OPERATOR, "whatsapp-clusters": OF_CLUSTERS}
    return {"groups": [{"name": name, "rules": [_rule(alert) for alert in table]} for name, table in tables.items()]}


def text() -> str:
    """Return the groups as YAML, as in the chart."""
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
        "annotations": annotations_of(alert),
    }


def annotations_of(alert: Alert) -> dict[str, str]:
    """Return the annotations of an alert, with placeholders for its labels."""
    return {"summary": alert.summary, "description": f"{alert.meaning} {alert.impact}", "runbook_url": f"{RUNBOOKS}#{anchor(alert)}"}


def metrics_of(expr: str) -> set[str]:
    """Return the names of the operator's metrics in an expression."""
    return set(re.findall(r"\bmulticonnect_\w+", expr))
