"""Series of the managed clusters: computed at each scrape from the last observation, and gone with the cluster."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from whatsapp_operator.core.names import Key, Obj
from whatsapp_operator.core.snapshot import Coreapp

STATUSES: Final = ("True", "False", "Unknown")
REQUEST_RESULTS: Final = ("Answered", "Failed")
PROBE_RESULTS: Final = ("Answered", "Unanswered", "ConnectionRefused", "NeverAnswered")

Sample = tuple[tuple[str, ...], float]
"""Values of the labels in addition to those of the cluster, and the value."""


@dataclass(slots=True)
class Seen:
    """The last observation of a cluster."""

    status: Obj
    observed_at: datetime | None = None
    """When the last complete observation ended; None: there was none."""
    probes: Mapping[str, int] = field(default_factory=dict)
    """Number of Coreapps by the result of their last probe."""
    requests: Tally[str] = field(default_factory=Tally)
    """Requests for the number of shards by their result."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric of clusters: its name without prefix, its help, its labels besides namespace and name, and how it is read."""

    name: str
    help: str
    labels: tuple[str, ...]
    samples: Callable[[Seen], Iterable[Sample]]
    is_counter: bool = False


def _conditions(seen: Seen) -> Iterator[Sample]:
    for one in seen.status.get("conditions") or ():
        yield from (((one["type"], status), float(one["status"] == status)) for status in STATUSES)


def _reason(seen: Seen) -> Iterator[Sample]:
    yield (str(seen.status.get("reason", "")),), 1.0


def _shards(seen: Seen) -> Iterator[Sample]:
    served = int((seen.status.get("coreapp") or {}).get("active", 0))
    yield ("Served",), served
    yield ("Unserved",), max(0, int(seen.status.get("shards") or 0) - served)


def _number(*path: str) -> Callable[[Seen], Iterator[Sample]]:
    """Return a reader of a number in the status; 0 where it is missing."""

    def read(seen: Seen) -> Iterator[Sample]:
        yield (), float(_at(seen.status, path) or 0)

    return read


def _time(*path: str) -> Callable[[Seen], Iterator[Sample]]:
    """Return a reader of a time in the status; no sample where it is missing or damaged: one cluster must not end the scrape of all."""

    def read(seen: Seen) -> Iterator[Sample]:
        with suppress(ValueError, OverflowError):
            yield (), datetime.fromisoformat(str(_at(seen.status, path))).timestamp()

    return read


def _at(value: object, path: Iterable[str]) -> str | int | None:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, str | int) else None


def _observed(seen: Seen) -> Iterator[Sample]:
    if seen.observed_at is not None:
        yield (), seen.observed_at.timestamp()


FAMILIES: Final = (
    Family("condition", "Conditions of a cluster: 1 for the current status, 0 for the others.", ("type", "status"), _conditions),
    Family("reason", "Always 1; the label is the reason in a cluster's status.", ("reason",), _reason),
    Family("shards", "Shards of a cluster that are served, and that are not.", ("state",), _shards),
    Family(
        "shards_settled",
        "Number of shards when the cluster was last verified; 0: it is still being set up.",
        (),
        _number("settledShards"),
    ),
    Family("standbys", "Coreapps of a cluster that could take over now.", (), _number("coreapp", "standby")),
    Family("failures_tolerated", "Spares left: how many more failures a cluster can tolerate.", (), _number("failuresTolerated")),
    Family("coreapps_desired", "Coreapps that a cluster should have.", (), _number("coreapp", "desired")),
    Family("coreapps_ready", "Coreapps of a cluster that are ready.", (), _number("coreapp", "ready")),
    Family("webapps_desired", "Webapps that a cluster should have.", (), _number("webapp", "desired")),
    Family("webapps_ready", "Webapps of a cluster that are ready.", (), _number("webapp", "ready")),
    Family(
        "operation_started_timestamp_seconds",
        "When the Set Shards operation in progress was recorded, as Unix time; no series: none is in progress.",
        (),
        _time("operation", "startedAt"),
    ),
    Family(
        "operation_deadline_timestamp_seconds",
        "Time by which all Coreapps should be back after the Set Shards operation in progress, as Unix time; no series: none is.",
        (),
        _time("operation", "deadline"),
    ),
    Family(
        "certificate_expiry_timestamp_seconds",
        "When the account's certificate expires, as Unix time; no series: there is no certificate, or its expiry is not known.",
        (),
        _time("certificate", "expiresAt"),
    ),
    Family(
        "observed_timestamp_seconds",
        "When this process last observed a cluster completely, as Unix time; no series: it never has.",
        (),
        _observed,
    ),
    Family(
        "probes",
        "Coreapps of a cluster, by the result of their last probe.",
        ("result",),
        lambda seen: (((result,), seen.probes.get(result, 0)) for result in PROBE_RESULTS),
    ),
    Family(
        "client_requests",
        "Requests to a cluster's WhatsApp Business API for its number of shards, by result.",
        ("result",),
        lambda seen: (((result,), seen.requests[result]) for result in REQUEST_RESULTS),
        is_counter=True,
    ),
)
"""All metrics of clusters. The number of series of a cluster is bounded by this table: no label takes values from outside."""


def probe_result(pod: Coreapp) -> str:
    """Return the result of a Coreapp's last probe, one of ``PROBE_RESULTS``."""
    if pod.broken_at is not None:
        return "ConnectionRefused"
    if pod.never_responded:
        return "NeverAnswered"
    return "Answered" if pod.unresponsive_since is None else "Unanswered"


class ClusterSeries(Collector):
    """The series of all clusters that this process manages. The event loop writes, the thread of the server reads."""

    def __init__(self) -> None:
        """Begin without clusters."""
        self._seen: dict[Key, Seen] = {}

    def observe_status(self, key: Key, status: Obj) -> None:
        """Note the newest status of a cluster."""
        seen = self._seen.get(key)
        if seen is None:
            self._seen[key] = Seen(status)
        else:
            seen.status = status

    def observe_probes(self, key: Key, coreapps: Iterable[Coreapp], at: datetime) -> None:
        """Note a complete observation at ``at``, and the Coreapps in it. A cluster without a status is ignored."""
        if (seen := self._seen.get(key)) is not None:
            seen.observed_at, seen.probes = at, Tally(map(probe_result, coreapps))

    def count_request(self, key: Key, result: str) -> None:
        """Count a request, with one of ``REQUEST_RESULTS``. A cluster without a status is ignored."""
        if (seen := self._seen.get(key)) is not None:
            seen.requests[result] += 1

    def forget(self, key: Key) -> None:
        """End all series of a cluster."""
        self._seen.pop(key, None)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of all clusters."""
        clusters = sorted(self._seen.copy().items())
        for one in FAMILIES:
            made = CounterMetricFamily if one.is_counter else GaugeMetricFamily
            family = made(f"multiconnect_{one.name}", one.help, labels=("namespace", "name", *one.labels))
            for key, seen in clusters:
                for labels, value in one.samples(seen):
                    family.add_metric((*key, *labels), value)
            yield family
