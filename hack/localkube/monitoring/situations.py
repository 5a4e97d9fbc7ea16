"""Series of an operator with one cluster, in promtool's notation: 40 healthy minutes, and how they differ when an alert fires."""

from __future__ import annotations

from collections.abc import Mapping

Series = Mapping[str, str]
"""Values in promtool's notation, by series; one value every 15 s."""

INTERVAL_S = 15
LAST = 160
"""The number of the last sample: after 40 minutes."""
BEGIN = 60
"""The number of the sample at which a value changes: after 15 minutes."""
PROCESS = 'job="whatsapp-operator",namespace="system",instance="{}"'
LEADER, STANDBY = PROCESS.format("op-0"), PROCESS.format("op-1")
CLUSTER = 'job="whatsapp-operator",instance="op-0",namespace="shop",name="acme"'
GOOD = {"Ready": "True", "Redundant": "True", "Stalled": "False", "Reconciling": "False", "CertificateValid": "True"}


def always(value: float) -> str:
    """Return a constant value for the whole time."""
    return f"{value:.10g}x{LAST}"


def step(before: float, after: float) -> str:
    """Return a value that changes once."""
    return f"{before:g}x{BEGIN - 1} {after:g}x{LAST - BEGIN}"


def condition(kind: str, status: str) -> str:
    """Return the series of one status of one condition."""
    return f'multiconnect_condition{{{CLUSTER},type="{kind}",status="{status}"}}'


def in_condition(kind: str, status: str) -> dict[str, str]:
    """Return the series of a condition that always has this status."""
    return {condition(kind, one): always(one == status) for one in ("True", "False", "Unknown")}


def serve(evidence: str, le: str) -> str:
    """Return a bucket of the last phase of handovers."""
    return f'multiconnect_handover_seconds_bucket{{{LEADER},phase="serve",evidence="{evidence}",le="{le}"}}'


def of_cluster(name: str, *labels: str) -> str:
    """Return a series of the cluster."""
    return f"multiconnect_{name}{{{','.join((CLUSTER, *labels))}}}"


OF_PROCESS: Series = {
    **{f"up{{{one}}}": always(1) for one in (LEADER, STANDBY)},
    **{f'multiconnect_build_info{{{one},version="1"}}': always(1) for one in (LEADER, STANDBY)},
    **{f"multiconnect_leading{{{one}}}": always(one == LEADER) for one in (LEADER, STANDBY)},
    **{f"multiconnect_lease_age_seconds{{{one}}}": always(1) for one in (LEADER, STANDBY)},
    **{f'multiconnect_watch_cut_off_seconds{{{one},watch="pods"}}': always(0) for one in (LEADER, STANDBY)},
    # With rights in some namespaces only, nodes cannot be watched: that is no fault.
    **{f'multiconnect_watch_cut_off_seconds{{{one},watch="nodes"}}': always(3600) for one in (LEADER, STANDBY)},
    **{f"multiconnect_loop_lag_seconds{{{one}}}": always(0.01) for one in (LEADER, STANDBY)},
    **{f'multiconnect_calls_sent_again_total{{{one},call="read",answered="later"}}': always(0) for one in (LEADER, STANDBY)},
    **{f"multiconnect_clusters{{{one}}}": always(one == LEADER) for one in (LEADER, STANDBY)},
    f'multiconnect_reconcile_errors_total{{{LEADER},reason="InternalError"}}': always(0),
    f'multiconnect_handovers_total{{{LEADER},kind="Failover",evidence="PodDeleted"}}': always(0),
    f'multiconnect_handovers_total{{{LEADER},kind="Switchover",evidence="Requested"}}': always(0),
    **{serve(evidence, le): always(0) for evidence in ("PodDeleted", "Requested") for le in ("4.0", "+Inf")},
}
OF_CLUSTER: Series = {
    **{condition(kind, status): always(good == status) for kind, good in GOOD.items() for status in ("True", "False", "Unknown")},
    of_cluster("shards", 'state="Served"'): always(2),
    of_cluster("shards", 'state="Unserved"'): always(0),
    of_cluster("shards_settled"): always(2),
    of_cluster("failures_tolerated"): always(1),
    of_cluster("certificate_expiry_timestamp_seconds"): always(100 * 24 * 3600),
    of_cluster("observed_timestamp_seconds"): f"0+{INTERVAL_S}x{LAST}",
    of_cluster("client_requests_total", 'result="Answered"'): f"0+1x{LAST}",
    of_cluster("client_requests_total", 'result="Failed"'): always(0),
}
HEALTHY: Series = {**OF_PROCESS, **OF_CLUSTER}
