"""The laws that can be seen from outside, judged change by change: one holder, growing epochs, no shrink under a holder. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    """One change of one object, cut down to what the laws look at."""

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
    replicas: int = 0
    shards: int = 0
    spares: int = 0

    @property
    def epoch(self) -> str:
        """The epoch that a Service leads to; empty while it leads nowhere."""
        epoch = (self.selector or {}).get(EPOCH_LABEL, "")
        return "" if epoch == NO_EPOCH else epoch


def change_of(kind: str, obj: Obj, *, gone: bool = False) -> Change:
    """Cut an object of the API down to a Change."""
    meta, spec = obj["metadata"], obj.get("spec") or {}
    labels: Mapping[str, str] = meta.get("labels") or {}
    shard = labels.get(SHARD_LABEL, "") if kind == "Service" else ""
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
        replicas=int(spec.get("replicas") or 0) if kind == "StatefulSet" else 0,
        shards=int(spec.get("shards") or 0) if kind == "WhatsAppCluster" else 0,
        spares=int(spec.get("spares") or 0) if kind == "WhatsAppCluster" else 0,
    )


def number_of(epoch: str) -> int | None:
    """The n of an epoch `<n>-<random>`, None if it is none."""
    n, dash, random = epoch.partition("-")
    return int(n) if n.isdigit() and dash and random else None


def matching_pods(service: Change, pods: Mapping[tuple[str, str], Change]) -> list[Change]:
    """The pods that a Service's selector picks; none if it has no selector."""
    wanted = (service.selector or {}).items()
    return [pod for pod in pods.values() if wanted and pod.namespace == service.namespace and wanted <= (pod.labels or {}).items()]


class Laws:
    """Judges changes one after the other.

    With ``exact`` they must come in the order of their resourceVersions; then also what relates objects of different kinds is judged
    (watches of two kinds are not in step with each other, so in the order of arrival that would be guesswork).
    """

    def __init__(self, *, exact: bool) -> None:
        self.pods: dict[tuple[str, str], Change] = {}
        self.services: dict[tuple[str, str], Change] = {}
        self._sets: dict[tuple[str, str], Change] = {}
        self._clusters: dict[tuple[str, str], Change] = {}
        self._highest: dict[tuple[str, str], tuple[int, str]] = {}
        self._exact = exact

    def learn(self, change: Change) -> None:
        """Take in a change of the time before the watch, unjudged."""
        for _ in self.judge(change):
            pass

    def judge(self, change: Change) -> Iterator[Violation]:
        """Yield the laws that are broken at the instant after this change."""
        tables = {"Pod": self.pods, "Service": self.services, "StatefulSet": self._sets, "WhatsAppCluster": self._clusters}
        table, key = tables[change.kind], (change.namespace, change.name)
        before = table.pop(key, None)
        if change.gone:
            return
        table[key] = change
        if change.kind == "Pod":
            yield from self._judge_pod(change)
        elif change.kind == "Service" and change.shard is not None:
            yield from self._judge_service(change, before)
        elif change.kind == "StatefulSet" and self._exact and before is not None and change.replicas < before.replicas:
            yield from self._judge_shrink(change, before)

    def _judge_pod(self, pod: Change) -> Iterator[Violation]:
        labels = pod.labels or {}
        for service in self.services.values():
            if service.shard is not None and service.namespace == pod.namespace and (service.selector or {}).items() <= labels.items():
                yield from self._one_holder(service, pod.version)
        if epoch := labels.get(EPOCH_LABEL):
            mates = [one for one in self.pods.values() if one.namespace == pod.namespace and (one.labels or {}).get(EPOCH_LABEL) == epoch]
            if len(mates) > 1:
                yield Violation("epoch on one pod", f"{pod.namespace}: epoch {epoch} is on {_names(mates)} at {pod.version}")

    def _judge_service(self, service: Change, before: Change | None) -> Iterator[Violation]:
        yield from self._one_holder(service, service.version)
        epoch, where = service.epoch, f"{service.namespace}/{service.name}"
        if before is not None and before.uid == service.uid and before.epoch == epoch:
            return
        if not epoch:
            if before is not None and before.uid == service.uid:
                yield Violation("claim kept", f"{where} led to {before.epoch} and leads nowhere at {service.version}")
            return
        n, key = number_of(epoch), (service.namespace, service.name)
        if n is None:
            yield Violation("epochs grow", f"{where} has epoch {epoch}, which is not <n>-<random>")
            return
        highest, last = self._highest.get(key, (0, ""))
        self._highest[key] = max((highest, last), (n, epoch))
        if n <= highest:
            yield Violation("epochs grow", f"{where} went from epoch {last} to {epoch} at {service.version}")
        if before is not None and before.uid == service.uid and before.version != n:
            yield Violation("compare and swap", f"{where} had resourceVersion {before.version} when epoch {epoch} was committed")
        if self._exact:
            yield from self._prepared(service)

    def _one_holder(self, service: Change, version: int) -> Iterator[Violation]:
        matching = matching_pods(service, self.pods)
        if len(matching) > 1:
            where = f"{service.namespace}/{service.name}"
            yield Violation("one holder", f"{where} (epoch {service.epoch}) matches {_names(matching)} at {version}")

    def _prepared(self, service: Change) -> Iterator[Violation]:
        """Prepare, then commit: the pod that is named carries the epoch, unless it is gone by now."""
        name, _, uid = service.holder.partition("/")
        pod = self.pods.get((service.namespace, name))
        label = (pod.labels or {}).get(EPOCH_LABEL) if pod is not None and pod.uid == uid else service.epoch
        if label != service.epoch:
            where = f"{service.namespace}/{service.name}"
            yield Violation(
                "prepare, then commit", f"{where} names {name} for epoch {service.epoch}, which carries {label} at {service.version}"
            )

    def _judge_shrink(self, after: Change, before: Change) -> Iterator[Violation]:
        where = f"{after.namespace}/{after.name} {before.replicas} -> {after.replicas} at {after.version}"
        if not after.name.endswith("-coreapp"):
            return
        cluster = self._clusters.get((after.namespace, after.cluster))
        if cluster is None:
            return
        if after.replicas < cluster.shards + cluster.spares:
            yield Violation("enough pods", f"{where}, though {cluster.shards} shards and {cluster.spares} spares are wanted")
        for service in self.services.values():
            if service.namespace != after.namespace or service.cluster != after.cluster or service.shard is None:
                continue
            name, _, uid = service.holder.partition("/")
            pod, ordinal = self.pods.get((after.namespace, name)), name.rpartition("-")[2]
            lives = pod is not None and pod.uid == uid
            if service.shard < cluster.shards and lives and ordinal.isdigit() and int(ordinal) >= after.replicas:
                yield Violation("shrink last", f"{where}, though {name} holds shard {service.shard}")


def _names(pods: list[Change]) -> str:
    return " and ".join(f"{pod.name} ({pod.uid[:8]})" for pod in sorted(pods, key=lambda pod: pod.name))
