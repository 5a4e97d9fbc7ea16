"""Who stands where, as events tell: keeps the probes warm while another process leads, and knows whose pods are on a node.

The leader reads for itself. A process that only stands by goes by events, so that a takeover need not learn anew which Coreapps answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Generic, Protocol, TypeVar

from whatsapp_operator.core import manifests
from whatsapp_operator.core.desired import Desired, Probe
from whatsapp_operator.core.names import Key, Obj
from whatsapp_operator.shell.coreapps.tether import Target
from whatsapp_operator.shell.kube import kinds
from whatsapp_operator.shell.kube.client import Kube
from whatsapp_operator.shell.kube.errors import KubeError
from whatsapp_operator.shell.objects.reading import SpecError, is_ready
from whatsapp_operator.shell.objects.shapes import key_of

log = logging.getLogger(__name__)

T = TypeVar("T")
SWEEP: Final = 600.0
"""Seconds between two looks for clusters whose deletion no event told: a watch that begins anew does not tell what went meanwhile."""


class Warm(Protocol):
    """What keeps probes."""

    def hold(self, key: Key, targets: Mapping[str, Target]) -> None:
        """Probe just these Coreapps of a cluster, by the uid of their pod."""
        ...


@dataclass(frozen=True, slots=True)
class _Stand:
    ip: str
    node: str | None
    ready: bool


@dataclass(frozen=True, slots=True)
class _Care:
    probe: Probe
    unhealthy_after: float


class _ByName(Generic[T]):
    """Objects by name. Events of an object and of its successor of the same name may come in any order: the younger stays."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[str, str, T]] = {}

    def take(self, obj: Obj, value: T | None) -> None:
        """Keep this object's value; None: the object is gone, or of no interest any more."""
        meta = obj["metadata"]
        name, created, uid = meta["name"], meta.get("creationTimestamp") or "", meta["uid"]
        kept = self._kept.get(name)
        if value is None:
            if kept is not None and kept[1] == uid:
                del self._kept[name]
        elif kept is None or kept[1] == uid or kept[0] <= created:
            self._kept[name] = (created, uid, value)

    def by_uid(self) -> dict[str, T]:
        """Return the values by uid."""
        return {uid: value for _, uid, value in self._kept.values()}

    def __len__(self) -> int:
        return len(self._kept)


@dataclass(slots=True)
class _Entry:
    """What is known of one cluster."""

    clusters: _ByName[_Care] = field(default_factory=_ByName)
    """The WhatsAppCluster itself; none: it was not seen yet, or is gone."""
    pods: _ByName[_Stand] = field(default_factory=_ByName)
    holders: _ByName[str] = field(default_factory=_ByName)
    nodes: frozenset[str] = frozenset()
    given: Mapping[str, Target] = field(default_factory=dict)
    """What the prober holds by our word."""

    @property
    def is_empty(self) -> bool:
        return not (self.clusters or self.pods or self.holders)

    def targets(self) -> dict[str, Target]:
        """Return the Coreapps to be probed: just those that a look would name."""
        care = next(iter(self.clusters.by_uid().values()), None)
        if care is None:
            return {}
        holders = set(self.holders.by_uid().values())
        return {
            uid: Target(
                ip=stand.ip,
                node=stand.node,
                holds=uid in holders,
                probe=care.probe,
                unhealthy_after=care.unhealthy_after,
                ready=stand.ready,
            )
            for uid, stand in self.pods.by_uid().items()
        }


class PodIndex:
    """Clusters, their Coreapps and holders, by events."""

    def __init__(self, warm: Warm, *, read: Callable[[Obj], Desired]) -> None:
        """Prepare. `read` tells what a WhatsAppCluster wants; it may raise SpecError, then the defaults hold."""
        self._warm = warm
        self._read = read
        self._entries: dict[Key, _Entry] = {}
        self._on: dict[str, set[Key]] = {}
        self._suspects: set[Key] = set()
        self._leads = False
        self._is_closed = False

    # --- what events tell -------------------------------------------------------------------------------------------------

    def saw_cluster(self, obj: Obj, *, gone: bool) -> None:
        """Take in an event about a WhatsAppCluster; `gone`: it was deleted."""
        meta = obj["metadata"]
        key = Key(meta["namespace"], meta["name"])
        entry = self._entry(key)
        entry.clusters.take(obj, None if gone else self._care_of(obj))
        if gone and not entry.clusters:
            self._end(key, entry)
        self._settle(key)

    def saw_pod(self, obj: Obj, *, gone: bool) -> None:
        """Take in an event about a pod; those that are no Coreapps do not matter."""
        labels = obj["metadata"].get("labels") or {}
        if labels.get(manifests.COMPONENT_LABEL) != "coreapp" or not labels.get(manifests.CLUSTER_LABEL):
            return
        key = Key(obj["metadata"]["namespace"], labels[manifests.CLUSTER_LABEL])
        ip = (obj.get("status") or {}).get("podIP")
        stand = _Stand(ip, (obj.get("spec") or {}).get("nodeName"), is_ready(obj)) if ip and not gone else None
        self._entry(key).pods.take(obj, stand)
        self._settle(key)

    def saw_service(self, obj: Obj, *, gone: bool) -> None:
        """Take in an event about a Service; those of shards name a holder."""
        cluster = (obj["metadata"].get("labels") or {}).get(manifests.CLUSTER_LABEL)
        route = manifests.route_of(obj, cluster, "") if cluster else None
        if not cluster or route is None:
            return
        key = Key(obj["metadata"]["namespace"], cluster)
        self._entry(key).holders.take(obj, None if gone else route.holder_uid)
        self._settle(key)

    def _care_of(self, obj: Obj) -> _Care:
        try:
            desired = self._read(obj)
        except SpecError:  # the loop says so
            return _Care(Probe(), 3.0)
        return _Care(desired.probe, desired.unhealthy_after / timedelta(seconds=1))

    def _entry(self, key: Key) -> _Entry:
        return self._entries.setdefault(key, _Entry())

    def _settle(self, key: Key) -> None:
        """Bring the index of nodes, and the prober while we stand by, to what is known of a cluster."""
        entry = self._entries[key]
        nodes = frozenset(stand.node for stand in entry.pods.by_uid().values() if stand.node)
        for node in entry.nodes - nodes:
            self._on[node].discard(key)
            if not self._on[node]:
                del self._on[node]
        for node in nodes - entry.nodes:
            self._on.setdefault(node, set()).add(key)
        entry.nodes = nodes
        targets = entry.targets()
        if not self._leads and targets != entry.given:
            entry.given = targets
            self._hold(key, targets)
        if entry.is_empty:
            del self._entries[key]

    def _hold(self, key: Key, targets: Mapping[str, Target]) -> None:
        if not self._is_closed:
            self._warm.hold(key, targets)

    def _end(self, key: Key, entry: _Entry) -> None:
        """End all probes of a cluster that is gone, while we lead too: the loop may have looked before its pods were."""
        entry.given = {}
        self._hold(key, {})

    # --- what is asked ----------------------------------------------------------------------------------------------------

    def clusters_on(self, node: str) -> tuple[Key, ...]:
        """Return the clusters that have Coreapps on a node, in order."""
        return tuple(sorted(self._on.get(node, ())))

    def __len__(self) -> int:
        """Return of how many clusters something is known."""
        return len(self._entries)

    # --- leadership -------------------------------------------------------------------------------------------------------

    def lead(self) -> None:
        """Leave the prober to the loops from here on: each look says what to hold."""
        self._leads = True

    def stand_by(self) -> None:
        """Keep the probes warm again, after leadership ended."""
        self._leads = False
        for key, entry in self._entries.items():
            entry.given = entry.targets()
            self._hold(key, entry.given)

    def let_go(self, key: Key) -> None:
        """Say that a loop ended: the probes of its cluster end too, unless the cluster is still there."""
        entry = self._entries.get(key)
        if entry is None or not entry.clusters:
            self._hold(key, {})

    def close(self) -> None:
        """Touch the prober no more, whatever events still come: it is about to be closed."""
        self._is_closed = True

    # --- upkeep -----------------------------------------------------------------------------------------------------------

    async def run(self, kube: Kube, namespaces: Iterable[str] = (), *, every: float = SWEEP) -> None:
        """Drop, now and then, what is no longer there; ends by cancellation only. `every` is in seconds."""
        while True:
            await asyncio.sleep(every)
            try:
                found = [obj for namespace in tuple(namespaces) or (None,) for obj in await kube.list(kinds.WAC, namespace, None)]
                self.sweep(key for obj in found if (key := key_of(obj)) is not None)
            except KubeError as error:
                log.debug("The clusters could not be listed: %s", error)
            except Exception:  # an answer that nobody expects must not be the last one that is heard
                log.exception("The clusters that were listed could not be understood")

    def sweep(self, there: Iterable[Key]) -> None:
        """Drop every cluster that is missing for the second time: one that is missing once may be younger than the list."""
        missing = self._entries.keys() - set(there)
        for key in missing & self._suspects:
            entry = self._entries[key]
            entry.clusters, entry.pods, entry.holders = _ByName(), _ByName(), _ByName()
            self._end(key, entry)
            self._settle(key)
        self._suspects = missing - self._suspects
