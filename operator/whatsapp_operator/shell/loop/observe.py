"""Every read: one observation of a cluster becomes one frozen value. A failed read raises; it never counts as "does not exist"."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from whatsapp_operator.core import manifests, record, scaling
from whatsapp_operator.core.desired import Desired, Tuning
from whatsapp_operator.core.facts import RETRY_REJECTED_AFTER
from whatsapp_operator.core.names import Key, Obj
from whatsapp_operator.core.numbers import Claim
from whatsapp_operator.core.snapshot import Call, Client, Login, Node, Record, Route, Snapshot
from whatsapp_operator.shell.clock import Clock
from whatsapp_operator.shell.coreapps.probe import Coreapps
from whatsapp_operator.shell.kube import kinds
from whatsapp_operator.shell.kube.client import Kube
from whatsapp_operator.shell.kube.errors import KubeError, Unavailable
from whatsapp_operator.shell.kube.kinds import Kind
from whatsapp_operator.shell.objects import (
    assemble,
    pem,  # noqa: F401  # so that no observation waits until it is loaded
)
from whatsapp_operator.shell.objects.assemble import Gathered, Parts
from whatsapp_operator.shell.objects.reading import KnownHolders, claim_of, desired_of, is_ready, source_of, targets_of
from whatsapp_operator.shell.objects.shapes import bare, damage_of, version_of
from whatsapp_operator.shell.whatsapp.access import Access, Credentials
from whatsapp_operator.shell.whatsapp.session import Clients

from .cluster import Memory
from .slow_reads import Fast, SlowReads

log = logging.getLogger(__name__)

PATIENCE = 0.25
"""Seconds that an observation waits for slow objects when everything else is read: a failover must not wait for them."""
CALL_PATIENCE = 1.0
"""The same when Set Shards is about to be sent: it needs the current content of the Secrets."""
DENIED_FOR = timedelta(seconds=5)
"""How long writes are rejected before that is reported: a restarted API server rejects everything until it has read the roles."""
NOT_KEPT_AGAIN = timedelta(seconds=30)
"""Pause before an intent is noted again that was not stored completely: a newer CRD takes effect within this time."""
REJECTED_FOR = 12 * RETRY_REJECTED_AFTER
"""How long a rejection is remembered: a write that is still needed has been retried by then."""


# --- the observation -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Observation:
    """One observation: the desired state, the snapshot, and what actions need in addition. Its repr shows nothing secret."""

    desired: Desired
    snapshot: Snapshot
    access: Access = field(repr=False)
    credentials: Credentials = field(repr=False)


@dataclass(slots=True, kw_only=True)
class Observer:
    """Reads everything about one cluster at a time."""

    kube: Kube
    clients: Clients
    coreapps: Coreapps
    clock: Clock
    image: str
    tuning: Tuning
    nodes: Callable[[], Mapping[str, Node] | None] = lambda: None
    """Returns the known nodes."""
    nodes_unread: Callable[[], Mapping[str, str]] = dict
    """Returns why nodes cannot be read, by kind."""
    holders: Callable[[Key], KnownHolders] = lambda _: KnownHolders()
    """Returns the holders of a cluster by the events so far."""
    number_keeper: Callable[[Claim], Key | None] = lambda _: None
    """Returns the other cluster that keeps the phone number of one, by the events so far."""
    cluster_gone: Callable[[Key], object] = lambda _: None
    """Gets a keeper that no longer exists."""
    server_time: Callable[[], datetime | None] = lambda: None
    """Returns the time by the API server's clock, when it answered last."""

    _slow_reads: SlowReads = field(init=False)

    def __post_init__(self) -> None:
        self._slow_reads = SlowReads(self.kube, self.clock)

    def has_lost_holders(self, key: Key, memory: Memory) -> bool:
        """Return whether more holders than at the last call are gone or terminating, by the events so far, or refuse connections.

        Before the first observation of a new leader, only the events say which pods hold shards.
        """
        known = self.holders(key)
        newest = {route.name: route.holder_uid for route in sorted(memory.known_routes(), key=lambda route: route.version)}
        holders = {uid for uid in newest.values() if uid} if memory.routes else known.uids
        gone = (uid for uid in holders if uid in known.leaving or self.coreapps.result_of(uid).broken_at is not None)
        before, memory.lost = memory.lost, frozenset(gone)
        return not memory.lost <= before

    async def observe(self, key: Key, memory: Memory, *, nonce: str, leader_epoch: int, from_cache: bool = False) -> Observation | None:
        """Return one observation of a cluster, or None if the API server answers that it does not exist.

        Raises KubeError if the cluster, its pods, Services or StatefulSets could not be read, SpecError if its spec cannot be read. All
        other failed reads are in ``unread``: a failover does not depend on them.

        ``from_cache``: pods and Services are listed as the API server's cache has them, but not older than this process knew them before;
        nothing is read that no failover depends on, and what these lists say is not remembered.
        """
        found = await self._gather(key, memory, from_cache=from_cache)
        if found is None:
            return None
        desired, gathered = found
        parts = assemble.parts_of(desired, gathered, memory.routes)
        self._must_be_whole(parts, memory)
        unlisted = await self._unlisted_holders(key, parts.routes, parts.listed)
        patience = CALL_PATIENCE if memory.is_call_due else PATIENCE
        slow = await self._slow_reads.result(desired, memory, patience=0.0 if from_cache or self._may_have_failed(parts) else patience)
        if unlisted or slow.pods:
            gathered = replace(gathered, pods=(*gathered.pods, *unlisted))
            parts = assemble.parts_of(desired, gathered, memory.routes, strays=slow.pods)
        if not from_cache:
            await self._forget_absent_keepers(gathered.cluster)
            self.coreapps.hold(key, targets_of(desired, parts.coreapp_pods, parts.routes))
            memory.routes = {route.name: route for route in parts.routes}
            memory.pods_at = max(map(version_of, parts.listed), default=0)
            memory.ended = assemble.still_ended(memory.ended, parts.coreapps, parts.coreapp_pods)
        # First, because it corrects what the Coreapps' probes have shown if this process stood still.
        known = self._known(desired, gathered.cluster, memory, nonce=nonce, leader_epoch=leader_epoch)
        responses = {uid: self.coreapps.result_of(uid) for uid in (pod["metadata"]["uid"] for pod in parts.coreapp_pods)}
        snapshot = assemble.snapshot_of(desired, gathered.cluster, parts, slow, known, responses=responses)
        admin = slow.secrets.get(manifests.admin_secret_name(desired))
        if admin is not None and desired.admin_secret is None and snapshot.client.login is Login.DONE:
            memory.admin = admin.get("data")
        secret = slow.secrets.get(desired.account.secret_name) if desired.account and desired.account.secret_name else None
        access = assemble.access_of(desired, assemble.webapps_of(parts), slow)
        return Observation(desired, snapshot, access, assemble.credentials_of(desired, snapshot.account, secret))

    async def _gather(self, key: Key, memory: Memory, *, from_cache: bool) -> tuple[Desired, Gathered] | None:
        """Read what a failover depends on, and start to read the rest; None if the cluster does not exist."""
        known = self.holders(key)
        pods_at = max(memory.pods_at, known.pods_at) if from_cache else 0
        services_at = max((known.services_at, *(route.version for route in memory.known_routes()))) if from_cache else 0
        labels = manifests.cluster_labels(key.name)
        fast: asyncio.Future[Fast | None] = asyncio.get_running_loop().create_future()
        names = manifests.coreapp_name(key.name), manifests.simulator_name(key.name)
        # Concurrently: each list may wait, see `_list`.
        cluster_task = asyncio.ensure_future(self._read_cluster(key, memory, None if from_cache else fast))
        pods_task = asyncio.ensure_future(self._list(kinds.POD, key, labels, pods_at))
        services_task = asyncio.ensure_future(self._list(kinds.SERVICE, key, labels, services_at))
        sets_task = asyncio.gather(*(self.kube.get(kinds.STATEFULSET, key.namespace, name) for name in names))
        try:
            # Await all of them: a cancelled call costs its connection.
            await asyncio.gather(cluster_task, pods_task, services_task, sets_task, return_exceptions=True)
            found, pods = cluster_task.result(), pods_task.result()
            services: list[Obj] = [*services_task.result()]
            statefulsets = [one for one in sets_task.result() if one is not None]
            if found is not None:
                services += await self._unlisted_services(found[1], services)
        except BaseException:
            fast.set_result(None)
            raise
        fast.set_result(((services, "Service"), (statefulsets, "StatefulSet"), (pods, "Pod")))
        if found is None:
            return None
        desired, cluster = found
        return desired, Gathered(cluster=cluster, services=tuple(services), pods=tuple(pods), statefulsets=tuple(statefulsets))

    async def _list(self, kind: Kind, key: Key, labels: Mapping[str, str], at_least: int) -> list[kinds.Obj]:
        """List the objects of a cluster as they are, or as they were at or after a resourceVersion.

        The API server keeps a cache. Before it lists objects as they are, it may wait a tenth of a second until the cache is up to date.
        """
        if not at_least:
            return await self.kube.list(kind, key.namespace, labels)
        return await self.kube.list(kind, key.namespace, labels, at_least=str(at_least))

    async def _read_cluster(self, key: Key, memory: Memory, fast: asyncio.Future[Fast | None] | None) -> tuple[Desired, Obj] | None:
        """Read the cluster itself. With ``fast``, also start to read what no failover depends on, while the other reads continue."""
        cluster = await self.kube.get(kinds.WAC, key.namespace, key.name)
        if cluster is None:
            return None
        if damage := damage_of(cluster, kinds.WAC.kind):
            raise Unavailable(damage)
        source = source_of(cluster)
        if memory.desired is None or memory.desired[0] != source:
            memory.desired = source, desired_of(cluster, image=self.image, tuning=self.tuning)
        _, desired = memory.desired
        if fast is not None:
            self._slow_reads.begin(desired, memory, fast)
        return desired, cluster

    def _must_be_whole(self, parts: Parts, memory: Memory) -> None:
        """Raise Unavailable if a damaged object would make pods or shards seem to be gone."""
        damage = parts.problems.get("StatefulSet") if parts.coreapps is None else None
        damage = damage or (parts.problems.get("Service") if not memory.routes else None)
        if damage is not None:
            raise Unavailable(damage)

    def _may_have_failed(self, parts: Parts) -> bool:
        """Return whether a holder is not listed, terminating, not ready or unresponsive: then the observation waits for nothing else."""
        sound = {pod["metadata"]["uid"] for pod in parts.listed if is_ready(pod)}
        holders = [route.holder_uid for route in parts.routes if route.holder_uid]
        results = map(self.coreapps.result_of, holders)
        return not sound.issuperset(holders) or any(one.broken_at is not None or one.unresponsive_since is not None for one in results)

    def _known(self, desired: Desired, cluster: Obj, memory: Memory, *, nonce: str, leader_epoch: int) -> Snapshot:
        """Return a snapshot of what this process knows in addition to what it has just read, and of nothing else."""
        now = self.clock.now()
        noted = self._own_times(record.read(cluster.get("status") or {}, uid=desired.uid), memory)
        client = _with_unsent_call(self.clients.state_of(desired.key), noted, memory)
        # After an edit of the spec, the API server may accept the object.
        memory.rejected = {
            ref: one for ref, one in memory.rejected.items() if one.generation == desired.generation and now - one.at < REJECTED_FOR
        }
        denial = memory.denial if memory.denial is not None and now - memory.denial.since >= DENIED_FOR else None
        lost = memory.not_kept if memory.not_kept is not None and now - memory.not_kept.at < NOT_KEPT_AGAIN else None
        claim = claim_of(cluster)
        keeper = self.number_keeper(claim) if claim is not None else None
        if keeper != memory.keeper:
            memory.keeper = keeper
            if keeper is not None:
                log.warning("%s has the phone number of %s, which keeps it.", desired.key, keeper)
        return Snapshot(
            now=now,
            wall=self.clock.wall(),
            server_time=self.server_time(),
            nonce=nonce,
            leader_epoch=leader_epoch,
            client=client,
            record=noted,
            account_is_new=_was_set_up_since(client, memory.settled_at),
            silence=self.coreapps.silence(),
            nodes=self.nodes(),
            unread=self.nodes_unread(),
            rejected=dict(memory.rejected),
            denied=denial.text if denial else None,
            written=dict(memory.written),
            not_kept=lost.fields if lost else (),
            overruled=memory.overruled if memory.overruled is not None and now - memory.overruled.at < scaling.REMEMBERED else None,
            anchored_for=memory.anchored_for,
            number_kept_by=str(keeper) if keeper is not None else None,
            ended=frozenset(memory.ended),
            committed=tuple(memory.committed.values()),
            handover_times=dict(memory.handover_times),
            since=dict(memory.since),
        )

    async def _forget_absent_keepers(self, cluster: Obj) -> None:
        """Read the cluster that keeps this one's number, if there is one: no event may have reported its deletion."""
        claim = claim_of(cluster)
        while claim is not None and (keeper := self.number_keeper(claim)) is not None:
            try:
                if await self.kube.get(kinds.WAC, keeper.namespace, keeper.name) is not None:
                    return
            except KubeError:
                return
            self.cluster_gone(keeper)

    def _own_times(self, noted: Record, memory: Memory) -> Record:
        """Return the record with the times of its intent on the clock of this process.

        The clock of the process that noted it may be an hour apart. Then ``settle_by`` would seem long past, and a second call would come
        too early (laws#4 to laws#6). So its spans count from when this process first observed it, which is never earlier than the note.
        """
        operation = noted.operation
        if operation is None:
            memory.intent = None
            return noted
        if memory.intent is None or memory.intent[0] != operation.id:
            memory.intent = operation.id, self.clock.now()
        shift = memory.intent[1] - operation.started_at
        if abs(shift) < timedelta(milliseconds=1):
            return noted
        shifted = replace(
            operation,
            started_at=operation.started_at + shift,
            deadline=operation.deadline + shift,
            settle_by=operation.settle_by + shift,
        )
        return replace(noted, operation=shifted)

    async def _unlisted_services(self, cluster: Obj, services: Iterable[Obj]) -> list[Obj]:
        """Return the Services of a cluster that exist under their expected names and lack the label. A failover may need them."""
        meta = cluster["metadata"]
        key, settled = Key(meta["namespace"], meta["name"]), record.read(cluster.get("status") or {}, uid=meta["uid"]).settled_shards
        names = manifests.service_names(key.name, max(self.clients.state_of(key).shards or 0, settled or 0))
        listed = {service["metadata"]["name"] for service in assemble.sound(services, "Service", {})}
        found = await asyncio.gather(*(self.kube.get(kinds.SERVICE, key.namespace, name) for name in names if name not in listed))
        return [service for service in found if service is not None]

    async def _unlisted_holders(self, key: Key, routes: Iterable[Route], pods: Iterable[Obj]) -> list[Obj]:
        """Return holders that a Service names and that exist, although the list of pods lacks them.

        The list may be a little older than the Service, and a missing holder counts as deleted: so it is read by name.
        """
        listed = {pod["metadata"]["uid"] for pod in pods}
        missing = [route for route in routes if route.holder and route.holder_uid not in listed]
        found = await asyncio.gather(*(self.kube.get(kinds.POD, key.namespace, route.holder or "") for route in missing))
        for pod in found:
            if pod is not None and (damage := damage_of(bare(pod), kinds.POD.kind)):
                # It may be the holder: "could not be read" is not "is gone".
                raise Unavailable(damage)
        return [pod for pod, route in zip(found, missing, strict=True) if pod is not None and pod["metadata"]["uid"] == route.holder_uid]


def _with_unsent_call(client: Client, noted: Record, memory: Memory) -> Client:
    """Return the state of the client. If this process noted the intent and sent no call, the state says so."""
    if noted.operation is None or noted.operation.id not in memory.unsent:
        return client
    return replace(client, call=Call(id=noted.operation.id, not_sent=True))


def _was_set_up_since(client: Client, settled_at: datetime | None) -> bool:
    """Return whether the client's first login came after it was last settled."""
    first = client.first_login_at
    return first is not None and (settled_at is None or first > settled_at)
