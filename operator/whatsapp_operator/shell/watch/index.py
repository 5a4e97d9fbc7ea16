"""Index of pods by events: keeps the probes running while another process leads, and knows which clusters have pods on a node.

The leader reads the API server itself. A standby process uses events, so that after a takeover it knows at once which Coreapps answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from whatsapp_operator.core import manifests, numbers
from whatsapp_operator.core.desired import Desired, Probe
from whatsapp_operator.core.names import Key, Obj
from whatsapp_operator.core.numbers import Claim
from whatsapp_operator.shell.coreapps.schedule import Target
from whatsapp_operator.shell.kube import kinds
from whatsapp_operator.shell.kube.client import Kube
from whatsapp_operator.shell.kube.errors import KubeError
from whatsapp_operator.shell.objects.reading import KnownHolders, SpecError, claim_of, is_ready
from whatsapp_operator.shell.objects.shapes import damage_of, key_of, version_of

log = logging.getLogger(__name__)

T = TypeVar("T")
SWEEP: Final = 600.0
"""Seconds between two searches for clusters whose deletion was missed: a watch that is restarted has no event for it."""


@dataclass(frozen=True, slots=True)
class _PodState:
    ip: str
    node: str | None
    ready: bool
    leaves: bool


@dataclass(frozen=True, slots=True)
class _ClusterState:
    claim: Claim | None
    probe: Probe = field(default_factory=Probe)
    unhealthy_after: float = 3.0


class _ByName(Generic[T]):
    """Objects by name. Events of an object and of its successor with the same name may come in any order: the newer one is kept.

    That is the one with the higher resourceVersion. Creation times do not decide it: they are in whole seconds, so both may be equal, and
    after etcd was restored from a backup the older object may be the existing one.
    """

    def __init__(self) -> None:
        self._stored: dict[str, tuple[int, str, T]] = {}

    def take(self, obj: Obj, value: T | None) -> None:
        """Store this object's value; None: the object is gone or no longer relevant."""
        meta = obj["metadata"]
        name, version, uid = meta["name"], version_of(obj), meta["uid"]
        kept = self._stored.get(name)
        if value is None:
            if kept is not None and kept[1] == uid:
                del self._stored[name]
        elif kept is None or kept[1] == uid or kept[0] < version:
            self._stored[name] = (version, uid, value)

    def by_uid(self) -> dict[str, T]:
        """Return the values by uid."""
        return {uid: value for _, uid, value in self._stored.values()}

    def __len__(self) -> int:
        return len(self._stored)


@dataclass(slots=True)
class _Entry:
    """What is known about one cluster."""

    clusters: _ByName[_ClusterState] = field(default_factory=_ByName)
    """The WhatsAppCluster itself; empty: no event yet, or it is gone."""
    pods: _ByName[_PodState] = field(default_factory=_ByName)
    holders: _ByName[str] = field(default_factory=_ByName)
    pods_at: int = 0
    """The newest resourceVersion in an event of a pod."""
    services_at: int = 0
    """The same of a Service."""
    nodes: frozenset[str] = frozenset()
    claim: Claim | None = None
    """The claim under which the cluster is in the index of numbers."""
    passed_on: Mapping[str, Target] = field(default_factory=dict)
    """The targets that were last passed to the prober."""

    @property
    def is_empty(self) -> bool:
        return not (self.clusters or self.pods or self.holders)

    def targets(self) -> dict[str, Target]:
        """Return the Coreapps to probe: the same that an observation would name."""
        cluster = next(iter(self.clusters.by_uid().values()), None)
        if cluster is None:
            return {}
        holders = set(self.holders.by_uid().values())
        return {
            uid: Target(
                ip=pod.ip,
                node=pod.node,
                holds=uid in holders,
                probe=cluster.probe,
                unhealthy_after=cluster.unhealthy_after,
                ready=pod.ready,
            )
            for uid, pod in self.pods.by_uid().items()
        }


class PodIndex:
    """Clusters, their Coreapps and holders, by events."""

    def __init__(self, probe: Callable[[Key, Mapping[str, Target]], None], *, read: Callable[[Obj], Desired]) -> None:
        """Prepare. `probe` sets which Coreapps of a cluster are probed, by the uid of their pod.

        `read` returns the spec of a WhatsAppCluster; if it raises SpecError, the defaults apply.
        """
        self._probe = probe
        self._read = read
        self._entries: dict[Key, _Entry] = {}
        self._on: dict[str, set[Key]] = {}
        self._claims: dict[str, dict[Key, Claim]] = {}
        """By number."""
        self._suspects: set[Key] = set()
        self._leads = False
        self._is_closed = False

    # --- events -------------------------------------------------------------------------------------------------

    def note_cluster(self, obj: Obj, *, gone: bool) -> None:
        """Handle an event of a WhatsAppCluster; `gone`: it was deleted."""
        meta = obj["metadata"]
        key = Key(meta["namespace"], meta["name"])
        entry = self._entry(key)
        entry.clusters.take(obj, None if gone else self._state_of(obj))
        if gone and not entry.clusters:
            self._end(key, entry)
        self._refresh(key)

    def note_listed(self, obj: Obj) -> None:
        """Handle a listed WhatsAppCluster unless an event has reported it: the keeper of its number must be known before an observation."""
        key = key_of(obj)
        if key is not None and damage_of(obj, kinds.WAC.kind) is None and not (key in self._entries and self._entries[key].clusters):
            self.note_cluster(obj, gone=False)

    def note_absent(self, key: Key) -> None:
        """Handle the answer of the API server that a cluster does not exist: a watch that is restarted has no event for its deletion."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.clusters = _ByName()
            self._end(key, entry)
            self._refresh(key)

    def note_pod(self, obj: Obj, *, gone: bool) -> None:
        """Handle an event of a pod; pods that are not Coreapps are ignored."""
        labels = obj["metadata"].get("labels") or {}
        if labels.get(manifests.COMPONENT_LABEL) != "coreapp" or not labels.get(manifests.CLUSTER_LABEL):
            return
        key = Key(obj["metadata"]["namespace"], labels[manifests.CLUSTER_LABEL])
        ip = (obj.get("status") or {}).get("podIP")
        leaves = obj["metadata"].get("deletionTimestamp") is not None
        pod = _PodState(ip, (obj.get("spec") or {}).get("nodeName"), is_ready(obj), leaves) if ip and not gone else None
        entry = self._entry(key)
        entry.pods.take(obj, pod)
        entry.pods_at = max(entry.pods_at, version_of(obj))
        self._refresh(key)

    def note_service(self, obj: Obj, *, gone: bool) -> None:
        """Handle an event of a Service; those of shards name a holder."""
        cluster = (obj["metadata"].get("labels") or {}).get(manifests.CLUSTER_LABEL)
        route = manifests.route_of(obj, cluster, "") if cluster else None
        if not cluster or route is None:
            return
        key = Key(obj["metadata"]["namespace"], cluster)
        entry = self._entry(key)
        entry.holders.take(obj, None if gone else route.holder_uid)
        entry.services_at = max(entry.services_at, route.version)
        self._refresh(key)

    def _state_of(self, obj: Obj) -> _ClusterState:
        try:
            desired = self._read(obj)
        except SpecError:  # the loop reports it
            return _ClusterState(claim_of(obj))
        return _ClusterState(claim_of(obj), desired.probe, desired.unhealthy_after.total_seconds())

    def _entry(self, key: Key) -> _Entry:
        return self._entries.setdefault(key, _Entry())

    def _refresh(self, key: Key) -> None:
        """Update the index of nodes, and the prober while this process is standby, from what is known about a cluster."""
        entry = self._entries[key]
        nodes = frozenset(pod.node for pod in entry.pods.by_uid().values() if pod.node)
        for node in entry.nodes - nodes:
            self._on[node].discard(key)
            if not self._on[node]:
                del self._on[node]
        for node in nodes - entry.nodes:
            self._on.setdefault(node, set()).add(key)
        entry.nodes = nodes
        self._set_claim(key, entry)
        targets = entry.targets()
        if not self._leads and targets != entry.passed_on:
            entry.passed_on = targets
            self._hold(key, targets)
        if entry.is_empty:
            del self._entries[key]

    def _set_claim(self, key: Key, entry: _Entry) -> None:
        claim = next((one.claim for one in entry.clusters.by_uid().values()), None)
        if entry.claim is not None and (claim is None or claim.number != entry.claim.number):
            del self._claims[entry.claim.number][key]
            if not self._claims[entry.claim.number]:
                del self._claims[entry.claim.number]
        if claim is not None:
            self._claims.setdefault(claim.number, {})[key] = claim
        entry.claim = claim

    def _hold(self, key: Key, targets: Mapping[str, Target]) -> None:
        if not self._is_closed:
            self._probe(key, targets)

    def _end(self, key: Key, entry: _Entry) -> None:
        """End all probes of a cluster that is gone, even while this process leads: its loop may have ended before its pods did."""
        entry.passed_on = {}
        self._hold(key, {})

    # --- queries ----------------------------------------------------------------------------------------------------

    def clusters_on(self, node: str) -> tuple[Key, ...]:
        """Return the clusters that have Coreapps on a node, in order."""
        return tuple(sorted(self._on.get(node, ())))

    def keeper(self, claim: Claim) -> Key | None:
        """Return the other cluster that keeps the number of this one, if such a cluster is known."""
        return numbers.before(claim, self._claims.get(claim.number, {}).values())

    def holders(self, key: Key) -> KnownHolders:
        """Return the holders of a cluster."""
        entry = self._entries.get(key) or _Entry()
        uids = frozenset(entry.holders.by_uid().values())
        stays = {uid for uid, pod in entry.pods.by_uid().items() if not pod.leaves}
        # Before the first event of a pod, all of them seem to be gone.
        leaving = uids - stays if entry.pods_at else frozenset()
        return KnownHolders(uids=uids, leaving=leaving, pods_at=entry.pods_at, services_at=entry.services_at)

    def __len__(self) -> int:
        """Return the number of known clusters."""
        return len(self._entries)

    # --- leadership -------------------------------------------------------------------------------------------------------

    def lead(self) -> None:
        """Leave the prober to the loops: each observation sets the targets."""
        self._leads = True

    def stand_by(self) -> None:
        """Keep the probes running by events again, after the leadership ended."""
        self._leads = False
        for key, entry in self._entries.items():
            entry.passed_on = entry.targets()
            self._hold(key, entry.passed_on)

    def release(self, key: Key) -> None:
        """End the probes of a cluster whose loop ended, unless the cluster still exists."""
        entry = self._entries.get(key)
        if entry is None or not entry.clusters:
            self._hold(key, {})

    def close(self) -> None:
        """Stop using the prober, which is about to be closed; later events are ignored."""
        self._is_closed = True

    # --- upkeep -----------------------------------------------------------------------------------------------------------

    async def run(self, kube: Kube, namespaces: Iterable[str] = (), *, every: float = SWEEP) -> None:
        """Drop clusters that no longer exist, once per `every` seconds, until cancelled."""
        while True:
            await asyncio.sleep(every)
            there: set[Key] = set()
            for namespace in tuple(namespaces) or (None,):
                try:
                    there.update(key for obj in await kube.list(kinds.WAC, namespace, None) if (key := key_of(obj)) is not None)
                except Exception as error:  # an unexpected answer must not end this task
                    level = logging.DEBUG if isinstance(error, KubeError) else logging.ERROR
                    log.log(level, "The clusters could not be listed: %s", error)
                    # Clusters that cannot be listed may exist.
                    there.update(key for key in self._entries if namespace in {key.namespace, None})
            self.sweep(there)

    def sweep(self, there: Iterable[Key]) -> None:
        """Drop every cluster that is missing for the second time: a cluster that is missing once may be newer than the list."""
        missing = self._entries.keys() - set(there)
        for key in missing & self._suspects:
            entry = self._entries[key]
            entry.clusters, entry.pods, entry.holders = _ByName(), _ByName(), _ByName()
            self._end(key, entry)
            self._refresh(key)
        self._suspects = missing - self._suspects
