"""The table of alerts. The rules, their runbooks and their unit tests are generated from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import partial

from . import situations
from .situations import LEADER, STANDBY, always, in_condition, of_cluster, serve, step

BY = "by (namespace, name)"
ON = "on (namespace, name)"
OPERATORS = "by (job, namespace)"
RESTARTING = f"unless {ON} max {BY} (multiconnect_operation_deadline_timestamp_seconds) > time()"
"""A Set Shards restarts all Coreapps: expected until its deadline."""
ACME = {"namespace": "shop", "name": "acme"}
OF_JOB = {"job": "whatsapp-operator", "namespace": "system"}
CRITICAL, WARNING = "critical", "warning"
DOWN, NOT_REPORTED = "WhatsAppOperatorDown", "WhatsAppClusterNotReported"
IN_CLUSTER, IN_OPERATOR = "{{ $labels.namespace }}/{{ $labels.name }}", "of {{ $labels.job }} in {{ $labels.namespace }}"


@dataclass(frozen=True)
class Alert:
    """One alert, its runbook, and the series in which it fires."""

    name: str
    severity: str
    _: KW_ONLY
    expr: str
    hold: str
    """For how long the expression must hold, as Prometheus spells it."""
    summary: str
    """One sentence; may use ``{{ $labels.x }}``."""
    meaning: str
    impact: str
    check: str
    """What to check first."""
    do: str
    fires: Mapping[str, str | None]
    """How the series differ from ``situations.HEALTHY`` when it fires; None: the series is missing."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """The labels of the alert when it fires."""
    fires_at: str = "20m"
    """When promtool evaluates it."""
    when_absent: str = DOWN
    """The alert that fires when the series of this one are missing."""


def _condition(kind: str, status: str) -> str:
    return f'max {BY} (multiconnect_condition{{type="{kind}",status="{status}"}})'


OF_OPERATOR = (
    Alert(
        DOWN, CRITICAL, hold="1m",
        expr="absent(multiconnect_build_info)",
        summary="No operator is scraped.",
        meaning="Prometheus has no series of any operator: all operators are down, or Prometheus does not reach or select them.",
        impact="Coreapps keep serving. A holder that fails now is not replaced, and no other alert on this page can fire.",
        check="`kubectl get pods -l app.kubernetes.io/name=whatsapp-operator -A` and the targets page of Prometheus.",
        do="Bring the pods back. If they run, correct `metrics.serviceMonitor` or `metrics.podMonitor`, and `networkPolicy.metricsFrom`.",
        fires=dict.fromkeys(situations.HEALTHY),
    ),
    Alert(
        "WhatsAppOperatorReplicaDown", WARNING, hold="5m",
        expr="up == 0 and on (job, instance) last_over_time(multiconnect_build_info[1h])",
        summary=f"The operator {{{{ $labels.instance }}}} {IN_OPERATOR} cannot be reached.",
        meaning="Prometheus cannot scrape a replica of the operator that it scraped within the last hour.",
        impact="A replica that is down cannot take over the leadership.",
        check="`kubectl describe pod` of the replica, its log, and its node.",
        do="Fix what the pod reports. If the pod runs but cannot be reached, the cause is usually a NetworkPolicy or its node.",
        fires={f"up{{{STANDBY}}}": always(0), f'multiconnect_build_info{{{STANDBY},version="1"}}': "1x20 stale"},
        labels={**OF_JOB, "instance": "op-1"},
    ),
    Alert(
        "WhatsAppOperatorNoLeader", CRITICAL, hold="30s",
        expr=f"sum {OPERATORS} (multiconnect_leading) == 0",
        summary=f"No operator {IN_OPERATOR} leads.",
        meaning="The operators run, but none of them holds the Lease. A takeover takes about 4 s.",
        impact="Coreapps keep serving. A holder that fails now is not replaced, and nothing is reported about clusters.",
        check="The logs of all replicas say why they do not lead. Also `kubectl get lease whatsapp-operator -o yaml` in their namespace.",
        do="Restore the right to the Lease, or the connection to the API server. If the logs say nothing, restart the replicas.",
        fires={f"multiconnect_leading{{{LEADER}}}": always(0)},
        labels=OF_JOB,
    ),
    Alert(
        "WhatsAppOperatorTwoLeaders", CRITICAL, hold="1m",
        expr=f"sum {OPERATORS} (multiconnect_leading) > 1",
        summary=f"More than one operator {IN_OPERATOR} leads.",
        meaning="Two replicas report that they lead, for longer than different scrape times can explain.",
        impact="Each write is still a compare-and-swap, but each leader may undo what the other does.",
        check="`LEASE_NAME` and the namespace of all replicas, and whether a machine was restored from a snapshot.",
        do="Delete the pod that does not hold the Lease. If two installations share a Prometheus job, give them different names.",
        fires={f"multiconnect_leading{{{STANDBY}}}": always(1)},
        labels=OF_JOB,
    ),
    Alert(
        "WhatsAppOperatorLeaseNotRenewed", WARNING, hold="1m",
        expr="(multiconnect_lease_age_seconds and on (job, instance) multiconnect_leading == 0) > 15",
        summary=f"The operator {{{{ $labels.instance }}}} {IN_OPERATOR} observes no renewal of the Lease.",
        meaning="A replica that does not lead has observed no renewal of the Lease for 15 s. A leader renews it every second.",
        impact="Either no replica leads, or this one is cut off from the API server and cannot take over.",
        check="If WhatsAppOperatorNoLeader fires too, no replica leads. Otherwise read the log of this replica.",
        do="Repair this replica's connection to the API server. If other nodes can reach the API server, delete the pod.",
        fires={f"multiconnect_lease_age_seconds{{{STANDBY}}}": always(30)},
        labels={**OF_JOB, "instance": "op-1"},
    ),
    Alert(
        "WhatsAppOperatorWatchCutOff", WARNING, hold="1m",
        expr='multiconnect_watch_cut_off_seconds{watch!~"nodes|leases in kube-node-lease"} > 30',
        summary=f"The operator {{{{ $labels.instance }}}} {IN_OPERATOR} cannot watch {{{{ $labels.watch }}}}.",
        meaning="A watch on the API server has been disconnected for more than 30 s.",
        impact="If the replica leads, it gives up the leadership. Without this watch, it notices changes late or not at all.",
        check="The log of the replica: it says what the API server answers.",
        do="Restore the right to list and watch, or the connection. The liveness probe restarts a replica that no longer tries.",
        fires={f'multiconnect_watch_cut_off_seconds{{{STANDBY},watch="pods"}}': always(60)},
        labels={**OF_JOB, "instance": "op-1", "watch": "pods"},
    ),
    Alert(
        "WhatsAppApiServerHangs", WARNING, hold="10m",
        expr=f'sum {OPERATORS} (increase(multiconnect_calls_sent_again_total{{answered="later"}}[10m])) > 10',
        summary=f"One of several API servers does not answer the operator {IN_OPERATOR}, while another one does.",
        meaning="For minutes, calls got no answer in time, and the same call over another connection did.",
        impact="The operator goes on over the other API servers. Events that the hanging one should report are missed for up to 15 s.",
        check="`/readyz` of each API server, asked directly and not through the load balancer. Other clients are slow or time out, too.",
        do="Restart the API server that does not answer, or take it out of the load balancer.",
        fires={f'multiconnect_calls_sent_again_total{{{STANDBY},call="read",answered="later"}}': f"0+1x{situations.LAST}"},
        labels=OF_JOB,
    ),
    Alert(
        "WhatsAppOperatorSlow", WARNING, hold="5m",
        expr="avg_over_time(multiconnect_loop_lag_seconds[5m]) > 0.25",
        summary=f"The event loop of the operator {{{{ $labels.instance }}}} {IN_OPERATOR} is late.",
        meaning="The operator gets too little CPU time: for minutes, its event loop has been late by more than a quarter of a second.",
        impact="Failovers take longer. While the event loop is late, the self-check lets the operator act only on certain evidence.",
        check="The CPU load of its node, any CPU limit on the pod, and `multiconnect_clusters`.",
        do="Remove the CPU limit, raise the request, or move the pod to a node with free CPU.",
        fires={f"multiconnect_loop_lag_seconds{{{LEADER}}}": always(0.5)},
        labels={**OF_JOB, "instance": "op-0"},
    ),
    Alert(
        "WhatsAppOperatorInternalError", WARNING, hold="0s",
        expr=f'sum {OPERATORS} (increase(multiconnect_reconcile_errors_total{{reason="InternalError"}}[15m])) > 0',
        summary=f"The operator {IN_OPERATOR} failed on a cluster because of an internal error.",
        meaning="An observation of a cluster ended in an unexpected error in the operator.",
        impact="The operator retries the observation. Until one succeeds, it does nothing for that cluster.",
        check="The log of the leader has the traceback; `kubectl get wac -A` shows `InternalError`.",
        do="Report it with the traceback. If it began with an edit of the spec, undo the edit.",
        fires={f'multiconnect_reconcile_errors_total{{{LEADER},reason="InternalError"}}': step(0, 1)},
        labels=OF_JOB,
    ),
    Alert(
        "WhatsAppFailoversFrequent", WARNING, hold="0s",
        expr=f'sum {OPERATORS} (increase(multiconnect_handovers_total{{kind="Failover"}}[15m])) > 5',
        summary=f"Shards fail over often: more than 5 times in 15 minutes by the operator {IN_OPERATOR}.",
        meaning="Holders fail repeatedly. A lost node causes one failover for each holder on it, but only once.",
        impact="Each failover interrupts its shard for a fraction of a second to a few seconds.",
        check="`status.recentHandovers` of the clusters shows from, to and the evidence. For totals, use the metric's label `evidence`.",
        do="Follow the evidence: [what each one means](failover.md#evidence).",
        fires={f'multiconnect_handovers_total{{{LEADER},kind="Failover",evidence="PodDeleted"}}': step(0, 8)},
        labels=OF_JOB,
    ),
    Alert(
        "WhatsAppHandoverSlow", WARNING, hold="0s",
        expr=(
            f'sum {OPERATORS} (increase(multiconnect_handover_seconds_bucket{{phase="serve",le="+Inf"}}[15m]))'
            f' - sum {OPERATORS} (increase(multiconnect_handover_seconds_bucket{{phase="serve",le="4.0"}}[15m])) > 0.5'
        ),
        summary=f"A new holder took more than 4 s to serve (operator {IN_OPERATOR}).",
        meaning="After a handover was committed, the new holder took more than 4 s to accept its shard.",
        impact="The shard was unserved for that time.",
        check="Find the pod by its `serveMilliseconds` in `status.recentHandovers`. Check its log, its CPU and its network.",
        do="Give the Coreapps the CPU time that they need. If only one node is affected, drain it.",
        fires={serve("PodDeleted", "+Inf"): step(0, 1)},
        labels=OF_JOB,
    ),
)  # fmt: skip

_of_cluster = partial(Alert, labels=ACME, when_absent=NOT_REPORTED)
OF_CLUSTERS = (
    Alert(
        NOT_REPORTED, CRITICAL, hold="5m",
        expr=(
            'sum by (job) (multiconnect_clusters) > (count by (job) (multiconnect_condition{type="Ready",status="True"})'
            " or on (job) 0 * sum by (job) (multiconnect_clusters))"
        ),
        summary="The operator {{ $labels.job }} manages clusters for which it reports no condition.",
        meaning="The leader manages more clusters than it reports conditions for: some were never observed.",
        impact="Nothing is known about these clusters, and no cluster alert can fire for them.",
        check="In `kubectl get wac -A`, find the clusters without a reason. The log of the leader says what it cannot read or write.",
        do="Restore the rights of the operator. If the API server does not answer, fix that first.",
        fires=dict.fromkeys(situations.OF_CLUSTER),
        labels={"job": "whatsapp-operator"},
    ),
    _of_cluster(
        "WhatsAppClusterNotReady", CRITICAL, hold="1m",
        expr=f"({_condition('Ready', 'True')} == 0 and {ON} max {BY} (multiconnect_shards_settled) > 0) {RESTARTING}",
        summary=f"{IN_CLUSTER} has not been Ready for a minute.",
        meaning="Condition Ready is False or Unknown, and no restart by Set Shards explains it.",
        impact="At least one shard is not served, or messages cannot be submitted.",
        check="`kubectl describe wac`: the condition Ready says why, in one sentence.",
        do="Look up its reason: [reasons](reasons.md#ready).",
        fires=in_condition("Ready", "False"),
    ),
    _of_cluster(
        "WhatsAppClusterSetupSlow", WARNING, hold="30m",
        expr=f"max {BY} (multiconnect_shards_settled) == 0",
        summary=f"{IN_CLUSTER} is still being set up after half an hour.",
        meaning="A new cluster has not yet reached its number of shards for the first time.",
        impact="It does not serve yet.",
        check="`kubectl describe wac`: the condition Reconciling or Stalled names the step that the cluster waits for.",
        do="Look up its reason: [reasons](reasons.md). Usually a pod does not start, or a Secret is missing.",
        fires={of_cluster("shards_settled"): always(0)},
        fires_at="35m",
    ),
    _of_cluster(
        "WhatsAppClusterShardUnserved", CRITICAL, hold="30s",
        expr=f'max {BY} (multiconnect_shards{{state="Unserved"}}) > 0 {RESTARTING}',
        summary=f"A shard of {IN_CLUSTER} is not served.",
        meaning="For half a minute, a shard has had no holder that serves it.",
        impact="Messages of that shard are neither sent nor received.",
        check="`status.shardMap` names the shard and its holder. The condition Ready says why no standby takes it.",
        do="Make sure that a Coreapp can start: nodes, quota, image. The operator itself deletes a pod that hangs.",
        fires={of_cluster("shards", 'state="Unserved"'): always(1)},
    ),
    _of_cluster(
        "WhatsAppClusterNoSpareLeft", WARNING, hold="2m",
        expr=(f"(max {BY} (multiconnect_failures_tolerated) == 0 and {ON} {_condition('Redundant', 'False')} == 1) {RESTARTING}"),
        summary=f"{IN_CLUSTER} has no spare left.",
        meaning="Every Coreapp that is ready holds a shard.",
        impact="The next failure leaves a shard unserved until a pod is back.",
        check="`kubectl get pods -l multiconnect.dev/cluster=NAME`: which Coreapp is missing or not ready, and its Events.",
        do="Make room for the missing Coreapp on the nodes.",
        fires={of_cluster("failures_tolerated"): always(0), **in_condition("Redundant", "False")},
    ),
    _of_cluster(
        "WhatsAppClusterNotRedundant", WARNING, hold="10m",
        expr=f"({_condition('Redundant', 'False')} == 1) {RESTARTING}",
        summary=f"{IN_CLUSTER} has had fewer spares than spec.spares for ten minutes.",
        meaning="Some spares have not been ready for longer than a pod takes to come back.",
        impact="The cluster tolerates fewer failures than the spec asks for.",
        check="The condition Redundant, and the pods that are not ready.",
        do="Make room for the missing pods, or lower `spec.spares`.",
        fires=in_condition("Redundant", "False"),
    ),
    _of_cluster(
        "WhatsAppClusterStalled", CRITICAL, hold="30s",
        expr=f"{_condition('Stalled', 'True')} == 1",
        summary=f"{IN_CLUSTER} needs a person to act.",
        meaning="Condition Stalled is True: the operator cannot continue by itself.",
        impact="Failovers continue. Everything else that the condition names waits.",
        check="`kubectl describe wac`: the condition Stalled says what is wrong and what to do.",
        do="Look up its reason: [reasons](reasons.md#stalled).",
        fires=in_condition("Stalled", "True"),
    ),
    _of_cluster(
        "WhatsAppClusterRestartOverdue", CRITICAL, hold="1m",
        expr=f"max {BY} (multiconnect_operation_deadline_timestamp_seconds) < time()",
        summary=f"{IN_CLUSTER} is not back after Set Shards.",
        meaning="The deadline of a Set Shards operation has passed, and not all Coreapps have restarted.",
        impact="The cluster serves only some shards, or none. The alerts that a restart silences can fire from now on.",
        check="`status.operation` and the Coreapps that are not ready.",
        do="See [resharding](resharding.md). Repair the Coreapps that do not come back; the operator then continues by itself.",
        fires={of_cluster("operation_deadline_timestamp_seconds"): always(60)},
    ),
    _of_cluster(
        "WhatsAppClusterCertificateExpiresSoon", WARNING, hold="5m",
        expr=f"min {BY} (multiconnect_certificate_expiry_timestamp_seconds) - time() < 30 * 24 * 3600",
        summary=f"The certificate of {IN_CLUSTER} expires in less than 30 days.",
        meaning="`expiresAt` in the Secret of the account is less than 30 days away.",
        impact="None yet. Without a valid certificate, the number of shards cannot be changed.",
        check="`status.certificate`.",
        do="Download a new certificate from the vendor and put it into the Secret, with its `expiresAt`.",
        fires={of_cluster("certificate_expiry_timestamp_seconds"): always(20 * 24 * 3600)},
    ),
    _of_cluster(
        "WhatsAppClusterCertificateInvalid", CRITICAL, hold="5m",
        expr=f"{_condition('CertificateValid', 'False')} == 1",
        summary=f"The account of {IN_CLUSTER} has no usable certificate.",
        meaning="Condition CertificateValid is False: Set Shards would be rejected, or the client was logged off.",
        impact="The number of shards cannot be changed. A client that was logged off serves nothing.",
        check="The condition CertificateValid names the key and what is wrong with it.",
        do="Look up its reason: [reasons](reasons.md#certificatevalid).",
        fires=in_condition("CertificateValid", "False"),
    ),
    _of_cluster(
        "WhatsAppClusterClientNotAnswering", WARNING, hold="5m",
        expr=(
            f'(sum {BY} (increase(multiconnect_client_requests_total{{result="Failed"}}[10m])) > {ON}'
            f' sum {BY} (increase(multiconnect_client_requests_total{{result="Answered"}}[10m]))) {RESTARTING}'
        ),
        summary=f"The WhatsApp Business API of {IN_CLUSTER} fails more often than it answers.",
        meaning="In the last ten minutes, more than half of the operator's requests for the number of shards failed.",
        impact="Failovers continue. Everything that needs the number of shards waits.",
        check="Are the Webapps ready, and do they reach the database? The condition Ready quotes the last error.",
        do="Repair the Webapps, the operator's login or the network to them.",
        fires={
            of_cluster("client_requests_total", 'result="Failed"'): "0+1x160",
            of_cluster("client_requests_total", 'result="Answered"'): always(7),
        },
    ),
    _of_cluster(
        "WhatsAppClusterNotObserved", WARNING, hold="1m",
        expr=f"time() - max {BY} (multiconnect_observed_timestamp_seconds) > 900",
        summary=f"{IN_CLUSTER} has not been observed for 15 minutes.",
        meaning="The operator leads, but completed no observation of this cluster.",
        impact="The other metrics of the cluster are out of date. A holder that fails may not be replaced.",
        check="Search the leader's log for the name of the cluster. Also `multiconnect_reconcile_errors_total`.",
        do="Fix what the log names. If it names nothing, delete the leader's pod and report it with its log.",
        fires={of_cluster("observed_timestamp_seconds"): always(60)},
    ),
)  # fmt: skip
ALERTS = (*OF_OPERATOR, *OF_CLUSTERS)
