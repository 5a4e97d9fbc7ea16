"""The Grafana dashboard, generated from a table of panels and the table of alerts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from .alerts import ALERTS

WIDTH, PANEL_WIDTH, HEIGHT = 24, 8, 7
OF = 'namespace=~"$namespace",name=~"$name"'
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Panel(NamedTuple):
    """One panel: its title, its expression, the legend and the unit of Grafana."""

    title: str
    expr: str
    legend: str = ""
    unit: str = "short"
    kind: str = "timeseries"


CLUSTER = "{{namespace}}/{{name}}"
ROWS: dict[str, tuple[Panel, ...]] = {
    "Now": (
        Panel("Clusters that are not Ready", f'sum(multiconnect_condition{{type="Ready",status!="True",{OF}}}) or vector(0)', kind="stat"),
        Panel("Shards that are not served", f'sum(multiconnect_shards{{state="Unserved",{OF}}}) or vector(0)', kind="stat"),
        Panel("Operators that lead", "sum(multiconnect_leading)", kind="stat"),
        Panel(
            "Alerts",
            f'ALERTS{{alertname=~"{"|".join(alert.name for alert in ALERTS)}",alertstate="firing"}}',
            "{{alertname}} {{namespace}} {{name}}",
        ),
        Panel("Reasons", f"multiconnect_reason{{{OF}}}", f"{CLUSTER} {{{{reason}}}}"),
    ),
    "Clusters": (
        Panel("Shards served", f'multiconnect_shards{{state="Served",{OF}}}', CLUSTER),
        Panel("Spares left", f"multiconnect_failures_tolerated{{{OF}}}", CLUSTER),
        Panel("Coreapps missing", f"multiconnect_coreapps_desired{{{OF}}} - multiconnect_coreapps_ready{{{OF}}}", CLUSTER),
        Panel("Webapps missing", f"multiconnect_webapps_desired{{{OF}}} - multiconnect_webapps_ready{{{OF}}}", CLUSTER),
        Panel("Set Shards in progress for", f"time() - multiconnect_operation_started_timestamp_seconds{{{OF}}}", CLUSTER, "s"),
        Panel("Certificate expires in", f"multiconnect_certificate_expiry_timestamp_seconds{{{OF}}} - time()", CLUSTER, "s"),
        Panel("Probes without an answer", f'sum by (namespace, name) (multiconnect_probes{{result!="Answered",{OF}}})', CLUSTER),
        Panel("Failed requests", f'rate(multiconnect_client_requests_total{{result="Failed",{OF}}}[$__rate_interval])', CLUSTER, "reqps"),
        Panel("Since last observation", f"time() - multiconnect_observed_timestamp_seconds{{{OF}}}", CLUSTER, "s"),
    ),
    "Handovers": (
        Panel(
            "Handovers",
            "sum by (kind, evidence) (increase(multiconnect_handovers_total[$__rate_interval])) > 0",
            "{{kind}} {{evidence}}",
        ),
        Panel(
            "Phases, 95th percentile",
            "histogram_quantile(0.95, sum by (le, phase) (rate(multiconnect_handover_seconds_bucket[$__rate_interval])))",
            "{{phase}}",
            "s",
        ),
        Panel("Set Shards", "sum by (answer) (increase(multiconnect_set_shards_attempts_total[$__rate_interval]))", "{{answer}}"),
    ),
    "Operators": (
        Panel("Age of the Lease", "multiconnect_lease_age_seconds", "{{instance}}", "s"),
        Panel("Watches disconnected for", "multiconnect_watch_cut_off_seconds", "{{instance}} {{watch}}", "s"),
        Panel("Lag of the event loop", "multiconnect_loop_lag_seconds", "{{instance}}", "s"),
        Panel(
            "Observations, 95th percentile",
            "histogram_quantile(0.95, sum by (le) (rate(multiconnect_observation_seconds_bucket[$__rate_interval])))",
            unit="s",
        ),
        Panel("Errors", "sum by (reason) (increase(multiconnect_reconcile_errors_total[$__rate_interval]))", "{{reason}}"),
        Panel("Writes", "sum by (verb, kind) (rate(multiconnect_writes_total[$__rate_interval]))", "{{verb}} {{kind}}", "wps"),
        Panel(
            "API calls sent again",
            "sum by (call, answered) (increase(multiconnect_calls_sent_again_total[$__rate_interval]))",
            "{{call}}, answered: {{answered}}",
        ),
        Panel("CPU", 'rate(process_cpu_seconds_total{job=~".*whatsapp-operator.*"}[$__rate_interval])', "{{instance}}"),
        Panel("Memory", 'process_resident_memory_bytes{job=~".*whatsapp-operator.*"}', "{{instance}}", "bytes"),
    ),
}


def expressions() -> list[str]:
    """Return the expressions of all panels."""
    return [panel.expr for panels in ROWS.values() for panel in panels]


def text() -> str:
    """Return the dashboard as JSON."""
    variables = [_variable("namespace", "namespace", ""), _variable("name", "name", 'namespace=~"$namespace"')]
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
    dashboard = {
        "title": "WhatsApp operator",
        "uid": "whatsapp-operator",
        "tags": ["whatsapp"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source, *variables]},
        "panels": list(_panels()),
    }
    return json.dumps(dashboard, indent=1) + "\n"


def _variable(name: str, label: str, selector: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": DATASOURCE,
        "query": f"label_values(multiconnect_condition{{{selector}}}, {label})",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panels() -> Iterator[dict[str, Any]]:
    top, number = 0, 0
    for title, panels in ROWS.items():
        number += 1
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": _place(0, top, WIDTH, 1)}
        for index, panel in enumerate(panels):
            number += 1
            line, column = divmod(index, WIDTH // PANEL_WIDTH)
            yield {
                "id": number,
                "type": panel.kind,
                "title": panel.title,
                "datasource": DATASOURCE,
                "gridPos": _place(column * PANEL_WIDTH, top + 1 + line * HEIGHT, PANEL_WIDTH, HEIGHT),
                "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                "targets": [{"refId": "A", "datasource": DATASOURCE, "expr": panel.expr, "legendFormat": panel.legend or "__auto"}],
            }
        top += 1 + HEIGHT * -(-len(panels) // (WIDTH // PANEL_WIDTH))


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}
