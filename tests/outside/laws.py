"""The laws that can be seen from outside, judged change by change: one holder, growing epochs, no shrink under a holder. Pure."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Obj = Mapping[str, Any]

# Written down here once more on purpose: a slip in the operator's own names must not hide itself.
CLUSTER_LABEL = "multiconnect.dev/cluster"
SHARD_LABEL = "multiconnect.dev/shard"
EPOCH_LABEL = "multiconnect.dev/epoch"
HOLDER_ANNOTATION = "multiconnect.dev/holder"
NO_EPOCH = "none"


@dataclass(frozen=True, slots=True)
class Violation:
    """A law that was broken: which one, and the sentence with names and resourceVersions."""

    law: str
    text: str

    def __str__(self) -> str:
        return f"{self.law}: {self.text}"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one object, reduced to what the laws use."""

    version: int
    """resourceVersion; comparable over all kinds, for they share one etcd."""
    kind: str
    """Pod, Service, StatefulSet or WhatsAppCluster."""
    namespace: str
    name: str
    uid: str
    gone: bool = False
    cluster: str = ""
    shard: int | None = None
    """Of a Service; None if it is no shard's."""
    labels: Mapping[str, str] | None = None
    selector: Mapping[str, str] | None = None
    holder: str = ""
    """`<pod>/<uid>` as the Service's annotation says."""
    owner: str = ""
    """uid of what owns a StatefulSet."""
    replicas: int = 0
    shards: int = 0
    spares: int = 0
    reported: int = 0
    """`status.shards` of a WhatsAppCluster: what the operator says that the client has."""
    status: str = ""
    """The whole status of a WhatsAppCluster, to be compared only."""
    seen: float = 0.0
    """Unix time at which it was seen."""

    @property
    def epoch(self) -> str:
        """The epoch that a Service leads to; empty while it leads nowhere."""
        epoch = (self.selector or {}).get(EPOCH_LABEL, "")
        return "" if epoch == NO_EPOCH else epoch


def change_of(kind: str, obj: Obj, *, gone: bool = False, seen: float = 0.0) -> Change:
    """Cut an object of the API down to a Change; ``seen``: Unix time."""
    meta, spec = obj["metadata"], obj.get("spec") or {}
    status: Mapping[str, Any] = (obj.get("status") or {}) if kind == "WhatsAppCluster" else {}
    labels: Mapping[str, str] = meta.get("labels") or {}
    # By its name: a copy of a shard's Service carries the same labels, and belongs to no shard.
    shard = meta["name"].removeprefix(f"{labels.get(CLUSTER_LABEL, '')}-shard-") if kind == "Service" else ""
    return Change(
        version=int(meta["resourceVersion"]),
        kind=kind,
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        gone=gone,
        cluster=meta["name"] if kind == "WhatsAppCluster" else labels.get(CLUSTER_LABEL, ""),
        shard=int(shard) if shard.isdigit() else None,
        labels=labels if kind == "Pod" else None,
        selector=(spec.get("selector") or {}) if kind == "Service" else None,
        holder=(meta.get("annotations") or {}).get(HOLDER_ANNOTATION, "") if kind == "Service" else "",
        owner=next((owner["uid"] for owner in meta.get("ownerReferences") or ()), "") if kind == "StatefulSet" else "",
        replicas=int(spec.get("replicas") or 0) if kind == "StatefulSet" else 0,
        shards=int(spec.get("shards") or 0) if kind == "WhatsAppCluster" else 0,
        spares=int(spec.get("spares") or 0) if kind == "WhatsAppCluster" else 0,
        reported=int(status.get("shards") or 0),
        status=json.dumps(status, sort_keys=True) if status else "",
        seen=seen,
    )


def number_of(epoch: str) -> int | None:
    """The n of an epoch `<n>-<random>`, None if it is none."""
    n, dash, random = epoch.partition("-")
    return int(n) if n.isdigit() and dash and random else None


def matching_pods(service: Change, pods: Mapping[tuple[str, str], Change]) -> list[Change]:
    """The pods that a Service's selector picks; none if it has no selector."""
    wanted = (service.selector or {}).items()
    return [pod for pod in pods.values() if wanted and pod.namespace == service.namespace and wanted <= (pod.labels or {}).items()]


def is_ready(pod: Obj) -> bool:
    """Whether a pod is ready and stays."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions) and "deletionTimestamp" not in pod["metadata"]


def unknown(_: Change) -> int | None:
    """What a client says that cannot be asked."""
    return None


class Laws:
    """Judges changes one after the other.

    With ``exact`` they must come in the order of their resourceVersions; then also what relates objects of different kinds is judged
    (watches of two kinds are not in step with each other, so in the order of arrival that would be guesswork).

    Pods go last: not before the client has fewer shards. ``client`` says how many shards the client had for certain when a change was
    written, None if it cannot say. Then the operator's own report stands in for it: fewer pods are wrong if ``status.shards`` was too high
    for them before, and still is when the status is written the next time. (Once is not enough: an operator may lower the pods in the
    same pass in which it learns of the client's lower number, and report that number afterwards.)
    """

    def __init__(self, *, exact: bool, client: Callable[[Change], int | None] = unknown) -> None:
        self.pods: dict[tuple[str, str], Change] = {}
        self.services: dict[tuple[str, str], Change] = {}
        self._sets: dict[tuple[str, str], Change] = {}
        self._clusters: dict[tuple[str, str], Change] = {}
        self._highest: dict[tuple[str, str], tuple[int, str]] = {}
        self._led: dict[str, str] = {}
        """By uid of a Service: the epoch that it led to last."""
        self.shrinks: list[int | None] = []
        """For each time that Coreapps were made fewer: what the client said."""
        self._exact = exact
        self._client = client
        self._removed: dict[tuple[str, str], Change] = {}
        """StatefulSets that were deleted: made again with fewer pods for the same cluster, they have shrunk."""
        self._suspected: dict[tuple[str, str], list[Violation]] = {}
        """By cluster: what is wrong if its next status reports as many shards as the last one did."""

    def learn(self, change: Change) -> None:
        """Take in a change of the time before the watch, unjudged: ``judge_beginning`` judges what they came to."""
        for _ in self.judge(change):
            pass

    def judge_beginning(self) -> Iterator[Violation]:
        """Yield the laws that are broken by what was learnt, no matter what came before it. How epochs grew cannot be judged so."""
        when = "at the beginning"
        self._suspected.clear()
        for service in self.services.values():
            if service.shard is not None:
                yield from self._one_holder(service, when)
                if service.epoch and number_of(service.epoch) is None:
                    yield _no_epoch(service)
        labelled = [pod for pod in self.pods.values() if (pod.labels or {}).get(EPOCH_LABEL)]
        for _, mates in itertools.groupby(sorted(labelled, key=_claim), key=_claim):
            yield from _epoch_on_one_pod(list(mates), when)
        if self._exact:
            yield from self._judge_relations()

    def _judge_relations(self) -> Iterator[Violation]:
        for service in self.services.values():
            name, _, uid = service.holder.partition("/")
            pod = self.pods.get((service.namespace, name))
            if self._lasts(service) and service.epoch and pod is not None and pod.uid == uid and _is_anothers(pod, service):
                yield _unprepared(service, name, (pod.labels or {}).get(EPOCH_LABEL), "at the beginning")
        for workload in self._sets.values():
            cluster = self._clusters.get((workload.namespace, workload.cluster))
            if cluster is not None and workload.name.endswith("-coreapp") and workload.replicas < cluster.reported:
                where = f"{workload.namespace}/{workload.name} has {workload.replicas} pods at the beginning"
                yield Violation("enough pods", f"{where}, though {cluster.reported} shards are reported")

    def _lasts(self, service: Change) -> bool:
        """Whether a Service is of a shard that is neither being removed nor being added."""
        cluster = self._clusters.get((service.namespace, service.cluster))
        if service.shard is None or cluster is None:
            return service.shard is not None
        return service.shard < min(cluster.shards, cluster.reported or cluster.shards)

    def judge(self, change: Change) -> Iterator[Violation]:
        """Yield the laws that are broken at the instant after this change."""
        tables = {"Pod": self.pods, "Service": self.services, "StatefulSet": self._sets, "WhatsAppCluster": self._clusters}
        table, key = tables[change.kind], (change.namespace, change.name)
        before = table.pop(key, None)
        if change.gone:
            if change.kind == "StatefulSet" and before is not None:
                self._removed[key] = before
            if change.kind == "WhatsAppCluster":
                self._suspected.pop(key, None)
            return
        table[key] = change
        if change.kind == "Pod":
            yield from self._judge_pod(change)
        elif change.kind == "Service" and change.shard is not None:
            yield from self._judge_service(change, before)
        elif change.kind == "StatefulSet" and self._exact:
            before = before or self._removed.pop(key, None)
            if before is not None and change.replicas < before.replicas and change.owner == before.owner:
                yield from self._judge_shrink(change, before)
        elif change.kind == "WhatsAppCluster" and before is not None and change.status != before.status:
            suspected = self._suspected.pop(key, [])
            if change.uid == before.uid and change.reported >= before.reported:
                yield from suspected

    def _judge_pod(self, pod: Change) -> Iterator[Violation]:
        labels = pod.labels or {}
        for service in self.services.values():
            if service.shard is not None and service.namespace == pod.namespace and (service.selector or {}).items() <= labels.items():
                yield from self._one_holder(service, f"at {pod.version}")
        if epoch := labels.get(EPOCH_LABEL):
            mates = [one for one in self.pods.values() if one.namespace == pod.namespace and (one.labels or {}).get(EPOCH_LABEL) == epoch]
            yield from _epoch_on_one_pod(mates, f"at {pod.version}")

    def _judge_service(self, service: Change, before: Change | None) -> Iterator[Violation]:
        yield from self._one_holder(service, f"at {service.version}")
        epoch, where = service.epoch, f"{service.namespace}/{service.name}"
        if before is not None and before.uid == service.uid and before.epoch == epoch:
            return
        if not epoch:
            if before is not None and before.uid == service.uid:
                yield Violation("claim kept", f"{where} led to {before.epoch} and leads nowhere at {service.version}")
            return
        n, key = number_of(epoch), (service.namespace, service.name)
        if n is None:
            yield _no_epoch(service)
            return
        if self._led.get(service.uid) == epoch:
            # It was out of sight without its label, and has not moved: no other object ever gets its uid.
            return
        self._led[service.uid] = epoch
        highest, last = self._highest.get(key, (0, ""))
        self._highest[key] = max((highest, last), (n, epoch))
        if n <= highest:
            yield Violation("epochs grow", f"{where} went from epoch {last} to {epoch} at {service.version}")
        if before is not None and before.uid == service.uid and before.version != n:
            yield Violation("compare and swap", f"{where} had resourceVersion {before.version} when epoch {epoch} was committed")
        if self._exact:
            yield from self._prepared(service)

    def _one_holder(self, service: Change, when: str) -> Iterator[Violation]:
        matching = matching_pods(service, self.pods)
        if len(matching) > 1:
            where = f"{service.namespace}/{service.name}"
            yield Violation("one holder", f"{where} (epoch {service.epoch}) matches {_names(matching)} {when}")

    def _prepared(self, service: Change) -> Iterator[Violation]:
        """Prepare, then commit: the pod that is named carries the epoch, unless it is gone by now."""
        name, _, uid = service.holder.partition("/")
        pod = self.pods.get((service.namespace, name))
        label = (pod.labels or {}).get(EPOCH_LABEL) if pod is not None and pod.uid == uid else service.epoch
        if label != service.epoch:
            yield _unprepared(service, name, label, f"at {service.version}")

    def _judge_shrink(self, after: Change, before: Change) -> Iterator[Violation]:
        cluster = self._clusters.get((after.namespace, after.cluster))
        if cluster is None or not after.name.endswith("-coreapp"):
            return
        where = f"{after.namespace}/{after.name} {before.replicas} -> {after.replicas} at {after.version}"
        number = self._client(after)
        self.shrinks.append(number)
        proved = list(self._pods_go_last(after, where, cluster, max(cluster.shards, number or 0)))
        yield from proved
        if number is None and cluster.reported > cluster.shards:
            wrong = self._pods_go_last(after, where, cluster, cluster.reported)
            self._suspected[after.namespace, after.cluster] = [violation for violation in wrong if violation not in proved]

    def _pods_go_last(self, after: Change, where: str, cluster: Change, shards: int) -> Iterator[Violation]:
        """Yield what is wrong with so few pods while there are, or shall be, so many shards."""
        if after.replicas < shards + cluster.spares:
            yield Violation("enough pods", f"{where}, though there are {shards} shards and {cluster.spares} spares")
        for service in self.services.values():
            if service.namespace != after.namespace or service.cluster != after.cluster or service.shard is None:
                continue
            name, _, uid = service.holder.partition("/")
            pod, ordinal = self.pods.get((after.namespace, name)), name.rpartition("-")[2]
            lives = pod is not None and pod.uid == uid
            if service.shard < shards and lives and ordinal.isdigit() and int(ordinal) >= after.replicas:
                yield Violation("shrink last", f"{where}, though {name} holds shard {service.shard}")


def _claim(pod: Change) -> tuple[str, str]:
    return pod.namespace, (pod.labels or {}).get(EPOCH_LABEL, "")


def _epoch_on_one_pod(mates: list[Change], when: str) -> Iterator[Violation]:
    if len(mates) > 1:
        namespace, epoch = _claim(mates[0])
        yield Violation("epoch on one pod", f"{namespace}: epoch {epoch} is on {_names(mates)} {when}")


def _is_anothers(pod: Change, service: Change) -> bool:
    """Whether a pod carries a claim that its Service cannot be about to be led to. Without any claim its labels may have been removed."""
    labels = pod.labels or {}
    epoch = labels.get(EPOCH_LABEL) or service.epoch
    if epoch == service.epoch:
        return False
    later = (number_of(epoch) or 0) > (number_of(service.epoch) or 0)
    return not later or labels.get(SHARD_LABEL) != str(service.shard)


def _no_epoch(service: Change) -> Violation:
    return Violation("epochs grow", f"{service.namespace}/{service.name} has epoch {service.epoch}, which is not <n>-<random>")


def _unprepared(service: Change, name: str, label: str | None, when: str) -> Violation:
    where = f"{service.namespace}/{service.name}"
    return Violation("prepare, then commit", f"{where} names {name} for epoch {service.epoch}, which carries {label} {when}")


def _names(pods: list[Change]) -> str:
    return " and ".join(f"{pod.name} ({pod.uid[:8]})" for pod in sorted(pods, key=lambda pod: pod.name))
