"""The pages on metrics and alerts: Markdown, generated from the operator's registry and the table of alerts."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import NamedTuple

from whatsapp_operator.core.names import Key
from whatsapp_operator.shell.kube.transport import SentAgain
from whatsapp_operator.shell.metrics import Metrics

from .alerts import OF_CLUSTERS, OF_OPERATOR, Alert
from .rules import anchor, metrics_of

TYPES = ("Ready", "Reconciling", "Stalled", "Redundant", "CertificateValid")
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
METRICS_HEAD = """# Metrics

<!-- made by `make reference` from the operator's registry -->

If `METRICS_PORT` is set, as the chart always does, each operator serves `/metrics`. For alerts on these metrics, see [alerts](alerts.md).
The process metrics of the Prometheus client (`process_cpu_seconds_total`, `process_resident_memory_bytes`, ...) are included.

The number of series is bounded. An operator has {process} series, five more for its watches and those of each namespace in
`WATCH_NAMESPACES`, and one for each pair of verb and kind that it writes. The leader has up to {cluster} more for each cluster;
they end with the cluster or when it stops leading. All labelled counters and histograms exist from the start, except
`multiconnect_writes_total`. There are no `_created` series.

`namespace` and `name` are those of the WhatsAppCluster, so scrape with `honorLabels: true`, as the chart's monitors do. Times are
Unix times: the age of an operation is `time() - multiconnect_operation_started_timestamp_seconds`.
"""
ALERTS_HEAD = """# Alerts

<!-- made by `make reference` from hack/localkube/monitoring/alerts.py -->

With `monitoring.rules.enabled`, the chart installs these {number} alerts as a PrometheusRule. Set `monitoring.rules.runbooks` to
the URL of this page: each alert's `runbook_url` is that URL with the alert's anchor. `critical` means act now, `warning` means act today.

No alert fires during a planned move of a shard, or during a restart by Set Shards before its deadline; promtool tests this for each
alert. If a source is missing, `WhatsAppOperatorDown` or `WhatsAppClusterNotReported` fires.
"""


class Described(NamedTuple):
    """A metric from the registry."""

    name: str
    type: str
    labels: tuple[str, ...]
    help: str

    @property
    def shown(self) -> str:
        """The name under which it is documented."""
        return self.series[0] if self.type == "counter" else self.name

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its series."""
        return tuple(f"{self.name}{suffix}" for suffix in SUFFIXES.get(self.type, ("",)))


def full_registry() -> Metrics:
    """Return metrics in which every series exists, for one cluster, one watch and one write."""
    metrics, key, now = Metrics(), Key("shop", "acme"), datetime(2030, 1, 1, tzinfo=UTC)
    metrics.count_writes(Counter({("patch", "Pod"): 1}))
    metrics.count_sent_again(read=SentAgain(), renewal=SentAgain(), watch=SentAgain())
    metrics.observe_watches({"pods": 0.0})
    status = {
        "reason": "Serving",
        "conditions": [{"type": one, "status": "True"} for one in TYPES],
        "operation": {"startedAt": now.isoformat(), "deadline": now.isoformat()},
        "certificate": {"expiresAt": now.isoformat()},
    }
    metrics.clusters.observe_status(key, status)
    metrics.clusters.observe_probes(key, (), now)
    return metrics


def described() -> list[Described]:
    """Return the operator's metrics, sorted by name."""
    found = []
    for family in full_registry().registry.collect():
        labels = tuple(name for name in family.samples[0].labels if name != "le")
        found.append(Described(family.name, family.type, labels, family.documentation))
    return sorted(one for one in found if one.name.startswith("multiconnect_"))


def metrics_page() -> str:
    """Return the page of metrics."""
    samples = [one for family in full_registry().registry.collect() for one in family.samples if one.name.startswith("multiconnect_")]
    of_cluster = sum("name" in one.labels for one in samples)
    watches = sum("watch" in one.labels for one in samples)
    writes = sum("verb" in one.labels for one in samples)
    head = METRICS_HEAD.format(process=len(samples) - of_cluster - watches - writes, cluster=of_cluster)
    rows = "".join(
        f"| `{one.shown}` | {one.type} | {', '.join(f'`{label}`' for label in one.labels)} | {one.help} |\n" for one in described()
    )
    return f"{head}\n| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n{rows}"


def alerts_page() -> str:
    """Return the page of alerts: a table, then a runbook for each."""
    parts = (("the operator", OF_OPERATOR), ("a cluster", OF_CLUSTERS))
    rows = "".join(f"| [{one.name}](#{anchor(one)}) | {what} | {one.severity} | {one.hold} |\n" for what, table in parts for one in table)
    runbooks = "".join(_runbook(one) for _, table in parts for one in table)
    head = ALERTS_HEAD.format(number=len(OF_OPERATOR) + len(OF_CLUSTERS))
    return f"{head}\n| alert | of | severity | after |\n| --- | --- | --- | --- |\n{rows}{runbooks}"


def _runbook(alert: Alert) -> str:
    sources = ", ".join(f"`{one}`" for one in sorted(metrics_of(alert.expr)))
    return (
        f"\n## {alert.name}\n\n**Meaning.** {alert.meaning}\n\n**Impact.** {alert.impact}\n\n**Check.** {alert.check}\n\n"
        f"**Do.** {alert.do}\n\nComputed from {sources}:\n\n```promql\n{alert.expr}\n```\n"
    )
