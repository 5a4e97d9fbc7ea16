"""Every read: one look at a cluster becomes one frozen value. What could not be read raises; it never reads as "is not there"."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from whatsapp_operator.core import manifests
from whatsapp_operator.core.model import (
    AccountSecret,
    Client,
    Coreapp,
    Desired,
    HandoverTimes,
    Key,
    Node,
    Obj,
    Observed,
    Operation,
    Ref,
    Route,
    Tuning,
    Workload,
)
from whatsapp_operator.core.pods import DATABASE_KEYS

from . import kube as door
from .clock import Clock
from .kube import Kind, Kube, KubeError
from .probe import Coreapps
from .reading import (
    account_secret_of,
    component_of,
    coreapp_of,
    decoded,
    desired_of,
    image_problem_of,
    is_ready,
    is_unobserved,
    operation_of,
    targets_of,
    webapps_change,
)
from .wabiz import Access, Clients, Credentials

T = TypeVar("T")

SLOW_FOR = 5.0
"""Seconds for which objects that no failover depends on are not read again, unless we wrote one."""
SLOW_FOR_A_WHILE = 0.5
"""The same while what was read is about to change."""
NOT_KEPT_AGAIN = timedelta(seconds=30)
"""For how long an intent that was not kept whole is not noted again: so soon is a CRD seen that was applied since."""
DATABASE_FIELD = "spec.database.secretRef"
VENDOR_INITIAL_PASSWORD = "secret"  # noqa: S105  documented, whatsapp-client.md section 3.1


# --- the look -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """One look: what is wanted, what is seen, and what acts need beside it. Its repr shows nothing secret."""

    want: Desired
    see: Observed
    access: Access = field(repr=False)
    credentials: Credentials = field(repr=False)


@dataclass(slots=True)
class Slow:
    """What the last look read of objects that no failover depends on."""

    read_at: float
    objects: dict[Ref, Obj]
    names: frozenset[str]
    """Of the Secrets that were asked for."""
    secrets: Mapping[str, Obj | None] = field(repr=False)
    """Those that the API server answered for, by name; None: it is not there."""
    unread: Mapping[str, str]
    """Kinds that could not be read, all of them or some objects, and why."""
    taken: tuple[Ref, ...] = ()
    """Names that we need and that somebody else's objects have."""
    pods: tuple[Obj, ...] = ()
    """Pods of ours that lack labels and so are not listed."""
    again: bool = False
    """A look went by it that did not read it itself."""

    @property
    def passes(self) -> bool:
        """Whether it will soon be otherwise: a name that is taken is often that of a cluster just deleted; controllers look soon."""
        return bool(self.taken) or any(map(is_unobserved, self.objects.values()))


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the API server said when it last refused an object of ours, when, and for which generation of the spec."""

    words: str
    at: datetime
    generation: int


@dataclass(frozen=True, slots=True)
class NotKept:
    """Fields of an intent that the API server did not keep, and when."""

    fields: tuple[str, ...]
    at: datetime


@dataclass(slots=True)
class Memory:
    """What one cluster's loop remembers between looks: only what would be seen again if it were lost."""

    slow: Slow | None = None
    since: dict[str, datetime] = field(default_factory=dict)
    handover_times: dict[str, HandoverTimes] = field(default_factory=dict)
    committed: dict[str, Route] = field(default_factory=dict)
    """By epoch: handovers of this process that no report tells of yet."""
    settled_at: datetime | None = None
    """When the client was last seen to have the wanted shards, by this process."""
    refused: Refusal | None = None
    not_kept: NotKept | None = None
    anchored_for: int | None = None
    """The shards for which the StatefulSet's resourceVersion was moved, since it was last scaled or an intent noted."""
    intent: tuple[str, datetime] | None = None
    """The noted intent that was seen last: its id, and since when by this process's own clock."""
    untold: bool = False
    """A Coreapp did not take what it was told; it is told again soon."""
    ended: dict[str, str] = field(default_factory=dict)
    """Pods that this process deleted and that are not back yet: uid by name."""


class Observer:
    """Reads everything about one cluster at a time."""

    def __init__(
        self,
        *,
        kube: Kube,
        clients: Clients,
        coreapps: Coreapps,
        clock: Clock,
        image: str,
        tuning: Tuning,
        nodes: Callable[[], Mapping[str, Node] | None] = lambda: None,
    ) -> None:
        """Prepare; nothing is read yet. ``nodes`` tells what is known of nodes, if anything is."""
        self._kube = kube
        self._clients = clients
        self._coreapps = coreapps
        self._nodes = nodes
        self._clock = clock
        self._image = image
        self._tuning = tuning

    async def look(self, key: Key, memory: Memory, *, nonce: str, leader_epoch: int) -> Look | None:
        """Return one look at a cluster, or None if the API server says that it is not there.

        Raises KubeError if the cluster, its pods, Services or StatefulSets could not be read, SpecError if its spec cannot be. What else
        could not be read is in ``unread``: a failover does not depend on it.
        """
        labels = manifests.cluster_labels(key.name)
        names = (manifests.coreapp_name(key.name), manifests.simulator_name(key.name))
        async with asyncio.TaskGroup() as group:
            # Side by side: each list may wait a tenth of a second for the API server's cache to be up to date.
            services_task = group.create_task(self._kube.list(door.SERVICE, key.namespace, labels))
            pods_task = group.create_task(self._kube.list(door.POD, key.namespace, labels))
            sets_tasks = [group.create_task(self._kube.get(door.STATEFULSET, key.namespace, name)) for name in names]
            cluster = await self._kube.get(door.WAC, key.namespace, key.name)
            want = desired_of(cluster, image=self._image, tuning=self._tuning) if cluster is not None else None
            # Beside the others, which take longer: a failover must not wait for what it does not need.
            slow_task = group.create_task(self._read_slow(want, memory)) if want is not None else None
        services = services_task.result()
        pods: list[Obj] = [*pods_task.result()]
        sets = [obj for task in sets_tasks if (obj := task.result()) is not None]
        if cluster is None or want is None:
            return None
        fast: list[Obj] = [*services, *sets]
        status: Obj = cluster.get("status") or {}
        shards = max(self._clients.seen(key).shards or 0, status.get("settledShards") or 0)
        fast += await self._unlisted_services(key, services, manifests.service_names(key.name, shards))
        found = (manifests.route_of(obj, key.name, want.uid) for obj in fast if obj["kind"] == door.SERVICE.kind)
        routes = tuple(sorted((route for route in found if route is not None), key=lambda route: route.shard))
        # Side by side: one is about a holder that may just have failed, and then no other pod is waited for.
        listed = {pod["metadata"]["uid"] for pod in pods}
        is_failing = any(route.holder_uid not in {None, *listed} for route in routes)
        slow, holders = await asyncio.gather(
            self._slow(want, memory, slow_task.result() if slow_task is not None else None, fast, pods, hurried=is_failing),
            self._unlisted_holders(key, routes, pods),
        )
        pods += holders
        objects = {**slow.objects, **_by_ref(fast, want.uid)}
        coreapps = objects.get(manifests.coreapp_statefulset(key.name))
        # By name and owner, not by label: a cluster that was deleted under the same name may still have pods.
        own_sets = _own_sets(fast, want.uid)
        pods = [pod for pod in pods if manifests.is_pod_of(pod, key.name, own_sets)]
        # What was read a moment ago may be gone: such a pod is only labelled, and never counts as there.
        mislabelled = _mislabelled(want, [*_by_ref(fast, want.uid).values(), *pods, *_others(slow.pods, pods)])
        mine = _coreapps_among(want, pods, mislabelled, routes)
        self._coreapps.hold(key, targets_of(want, mine, routes))
        silence = self._coreapps.silence()
        webapps = [pod for pod in pods if component_of(pod) == "webapp" and is_ready(pod) and pod["status"].get("podIP")]
        account = want.account.secret_name if want.account else None
        secret = slow.secrets.get(account) if account else None
        noted: Obj = status.get("certificate") or {}
        refusal = memory.refused if memory.refused is not None and memory.refused.generation == want.generation else None
        lost = memory.not_kept if memory.not_kept is not None and self._clock.now() - memory.not_kept.at < NOT_KEPT_AGAIN else None
        see = Observed(
            now=self._clock.now(),
            nonce=nonce,
            leader_epoch=leader_epoch,
            generation=want.generation,
            resource_version=cluster["metadata"]["resourceVersion"],
            status=status,
            objects=objects,
            taken=slow.taken,
            unread=slow.unread,
            refused=refusal.words if refusal else None,
            refused_at=refusal.at if refusal else None,
            not_kept=lost.fields if lost else (),
            image_problem=image_problem_of(pods),
            mislabelled=mislabelled,
            statefulset=_workload(coreapps),
            webapp=Workload(uid="", resource_version="", replicas=want.webapps, ready=len(webapps)),
            webapps_change=webapps_change(objects.get(manifests.webapp_deployment(key.name)), pods),
            coreapps=tuple(sorted(filter(None, map(self._coreapp, mine)), key=lambda pod: pod.ordinal)),
            routes=routes,
            operation=self._own_time(operation_of(status), memory),
            settled_shards=status.get("settledShards"),
            refused_fingerprint=noted.get("refusedFingerprint"),
            refused_because=noted.get("refusedBecause"),
            logged_off_at=manifests.moment(noted.get("loggedOffAt", "")),
            refused_pin_version=noted.get("refusedPinVersion"),
            banned=any(one.get("reason") == "Banned" and one.get("type") == "Stalled" for one in status.get("conditions") or ()),
            client=self._clients.seen(key),
            account=account_secret_of(account, secret) if account in slow.secrets and account else None,
            anchored_for=memory.anchored_for,
            missing=_missing(want, slow),
            account_is_new=_is_new(self._clients.seen(key), memory),
            nodes=self._nodes(),
            silence=silence,
            ended=_still_ended(memory, coreapps, mine),
            committed=tuple(memory.committed.values()),
            handover_times=dict(memory.handover_times),
            since=dict(memory.since),
        )
        return Look(want, see, _access(want, webapps, slow), _credentials(want, see.account, secret))

    def _own_time(self, operation: Operation | None, memory: Memory) -> Operation | None:
        """Return an intent with its times on our own clock.

        Whoever noted it may have had a clock an hour apart: then ``settle_by`` would seem long past, and a second call be made too early
        (DESIGN laws 4 to 6). So its spans count from when this process first saw it, which is never earlier than the note.
        """
        if operation is None:
            memory.intent = None
            return None
        if memory.intent is None or memory.intent[0] != operation.id:
            memory.intent = operation.id, self._clock.now()
        shift = memory.intent[1] - operation.started_at
        if abs(shift) < timedelta(milliseconds=1):
            return operation
        return replace(
            operation,
            started_at=operation.started_at + shift,
            deadline=operation.deadline + shift,
            settle_by=operation.settle_by + shift,
        )

    async def _unlisted_services(self, key: Key, services: Iterable[Obj], names: Iterable[str]) -> list[Obj]:
        """Return the Services of these names that are there and lack our label: a failover may depend on them."""
        listed = {service["metadata"]["name"] for service in services}
        missing = [name for name in names if name not in listed]
        found = await asyncio.gather(*(self._kube.get(door.SERVICE, key.namespace, name) for name in missing))
        return [service for service in found if service is not None]

    async def _unlisted_holders(self, key: Key, routes: Iterable[Route], pods: Iterable[Obj]) -> list[Obj]:
        """Return holders that a Service names and the list of pods lacks although they are there.

        The list may be older than the Service by a moment, and a holder that it lacks counts as deleted: so that is asked for by name.
        """
        listed = {pod["metadata"]["uid"] for pod in pods}
        missing = [route for route in routes if route.holder and route.holder_uid not in listed]
        found = await asyncio.gather(*(self._kube.get(door.POD, key.namespace, route.holder or "") for route in missing))
        return [pod for pod, route in zip(found, missing, strict=True) if pod is not None and pod["metadata"]["uid"] == route.holder_uid]

    def _coreapp(self, pod: Obj) -> Coreapp | None:
        uid = pod["metadata"]["uid"]
        known = self._coreapps
        return coreapp_of(pod, known.report_of(uid), known.broken_at(uid), known.silent_since(uid), never_heard=known.never_heard(uid))

    async def _read_slow(self, want: Desired, memory: Memory) -> Slow | None:
        """Read what no failover depends on, unless that was done a moment ago."""
        now = self._clock.monotonic()
        names = [manifests.admin_secret_name(want), manifests.tls_secret_name(want)]
        if want.account is not None and want.account.secret_name is not None:
            names.append(want.account.secret_name)
        if want.database is not None:
            names += filter(None, (want.database.secret_name, want.database.tls_secret_name))
        if memory.slow is not None and not memory.slow.names >= set(names):
            # The spec names another Secret than the last look: not read is not missing.
            memory.slow = None
        if memory.slow is not None and now - memory.slow.read_at < (SLOW_FOR_A_WHILE if memory.slow.passes else SLOW_FOR):
            return None
        namespace, labels = want.key.namespace, manifests.cluster_labels(want.key.name)
        kinds = [door.DEPLOYMENT, door.PDB, door.NETWORKPOLICY, *([door.PVC] if want.storage else [])]
        unread: dict[str, str] = {}
        lists, gets = await asyncio.gather(
            asyncio.gather(*(_attempt(self._kube.list(kind, namespace, labels), kind, unread) for kind in kinds)),
            asyncio.gather(*(_attempt(self._kube.get(door.SECRET, namespace, name), door.SECRET, unread) for name in names)),
        )
        secrets = {name: found[0] for name, found in zip(names, gets, strict=True) if found}
        read: list[Obj] = [obj for found in lists for listed in found for obj in listed]
        generated = {secret["metadata"]["name"] for secret in manifests.secrets(want)}
        read += [_without_content(obj) for name, obj in secrets.items() if name in generated and obj is not None]
        foreign = tuple(_ref(obj) for obj in read if not manifests.is_owned(obj, want.uid))
        return Slow(read_at=now, objects=_by_ref(read, want.uid), names=frozenset(names), secrets=secrets, unread=unread, taken=foreign)

    async def _slow(
        self, want: Desired, memory: Memory, read: Slow | None, fast: Iterable[Obj], pods: Iterable[Obj], *, hurried: bool
    ) -> Slow:
        """Return what was read just now, or else a moment ago, and remember it; ``hurried``: do not ask for pods that are not listed."""
        if read is None:
            if memory.slow is None:
                msg = "slow objects were neither read nor remembered"
                raise AssertionError(msg)
            memory.slow.again = True
            return memory.slow
        own_sets, unread = _own_sets(fast, want.uid), dict(read.unread)
        needed = _needed(want, fast)
        foreign = {*read.taken, *(_ref(obj) for obj in fast if not manifests.is_owned(obj, want.uid))}
        there = {*read.objects, *_by_ref(fast, want.uid), *foreign, *map(_ref, pods)}
        asked = (ref for ref in needed if ref not in there and not (hurried and ref.kind == door.POD.kind))
        strays = await self._named(want.key, asked, unread)
        objects = _by_ref(strays, want.uid)
        lost = [obj for obj in strays if _ref(obj).kind == door.POD.kind]
        foreign |= {_ref(obj) for obj in strays if obj not in lost} - objects.keys()
        foreign |= {_ref(pod) for pod in (*pods, *lost) if _is_in_the_way(pod, want.key.name, own_sets)}
        memory.slow = replace(
            read,
            objects=read.objects | objects,
            taken=tuple(ref for ref in needed if ref in foreign),
            pods=_mislabelled(want, (pod for pod in lost if manifests.is_pod_of(pod, want.key.name, own_sets))),
            unread=unread,
        )
        return memory.slow

    async def _named(self, key: Key, refs: Iterable[Ref], unread: dict[str, str]) -> list[Obj]:
        """Return those of these objects that are there, whatever their labels say; note which kinds cannot be read.

        A Secret is left out: it was asked for by its name, and is not there.
        """
        wanted = [(kind, ref) for ref in refs for kind in door.KINDS if kind.kind == ref.kind and ref.kind not in {*unread, "Secret"}]
        found = await asyncio.gather(*(_attempt(self._kube.get(kind, key.namespace, ref.name), kind, unread) for kind, ref in wanted))
        return [obj for one in found for obj in one if obj is not None]


def _needed(want: Desired, fast: Iterable[Obj]) -> list[Ref]:
    """Return all names that a cluster needs: of its objects, and of the pods of its StatefulSets."""
    routes = (manifests.shard_service(want, shard) for shard in range(want.shards))
    objects = (*manifests.secrets(want), *manifests.upkeep(want, webapp_replicas=1, resharding=False), *routes)
    sets = (obj for ref, obj in _by_ref(fast, want.uid).items() if ref.kind == door.STATEFULSET.kind)
    replicas = {_ref(obj): int(obj["spec"].get("replicas", 1)) for obj in sets}
    pods = (Ref(door.POD.kind, f"{ref.name}-{ordinal}") for ref, number in replicas.items() for ordinal in range(number))
    return [*dict.fromkeys((*map(_ref, objects), *pods))]


def _own_sets(fast: Iterable[Obj], uid: str) -> dict[str, str]:
    """Return the uids of the cluster's StatefulSets, by name."""
    return {ref.name: obj["metadata"]["uid"] for ref, obj in _by_ref(fast, uid).items() if ref.kind == door.STATEFULSET.kind}


def _is_in_the_way(pod: Obj, cluster: str, own_sets: Mapping[str, str]) -> bool:
    """Return whether a pod is somebody else's and stays. One of a former StatefulSet of the same name goes with that."""
    owner = manifests.controller_of(pod)
    is_former = owner is not None and owner["name"] in own_sets
    is_leaving = pod["metadata"].get("deletionTimestamp") is not None
    return not (is_former or is_leaving or manifests.is_pod_of(pod, cluster, own_sets))


def _others(pods: Iterable[Obj], known: Iterable[Obj]) -> list[Obj]:
    """Return the pods whose names are not those of known ones."""
    names = {pod["metadata"]["name"] for pod in known}
    return [pod for pod in pods if pod["metadata"]["name"] not in names]


def _mislabelled(want: Desired, objects: Iterable[Obj]) -> tuple[Obj, ...]:
    """Return the pods of StatefulSets, and the shard Services that are ours, that lack labels and stay."""
    chosen = (obj for obj in objects if obj["metadata"].get("deletionTimestamp") is None)
    return tuple(obj for obj in chosen if manifests.lost_labels(want, obj))


def _coreapps_among(want: Desired, pods: Iterable[Obj], mislabelled: Iterable[Obj], routes: Iterable[Route]) -> list[Obj]:
    """Return the pods that are Coreapps. One that no Service could select is none until it is labelled, unless it holds a shard."""
    lost = {pod["metadata"]["uid"] for pod in mislabelled} - {route.holder_uid for route in routes}
    name = manifests.coreapp_name(want.key.name)
    return [pod for pod in pods if pod["metadata"]["name"].rpartition("-")[0] == name and pod["metadata"]["uid"] not in lost]


def _ref(obj: Obj) -> Ref:
    return Ref(obj["kind"], obj["metadata"]["name"])


def _by_ref(objects: Iterable[Obj], uid: str) -> dict[Ref, Obj]:
    return {_ref(obj): obj for obj in objects if manifests.is_owned(obj, uid)}


async def _attempt(read: Awaitable[T], kind: Kind, unread: dict[str, str]) -> tuple[T] | tuple[()]:
    """Return what was read, in a tuple; an empty one when it could not be, which is noted in ``unread``."""
    try:
        return (await read,)
    except KubeError as error:
        unread.setdefault(kind.kind, str(error))
        return ()


def _missing(want: Desired, slow: Slow) -> str | None:
    """Return what a Secret that the user brings, the account's apart, lacks; one that could not be read is not missing."""
    database, database_tls = (want.database.secret_name, want.database.tls_secret_name) if want.database else (None, None)
    needs = (
        (want.admin_secret, ("password",), "spec.client.adminSecretRef"),
        (want.tls.secret_name, ("tls.crt", "tls.key"), "spec.webapp.tls.secretRef"),
        (database, tuple(key for key, is_needed in DATABASE_KEYS.items() if is_needed), DATABASE_FIELD),
        (database_tls, ("ca.crt",), "spec.database.tlsSecretRef"),
    )
    for name, keys, field_name in needs:
        if name is None or name not in slow.secrets:
            continue
        secret = slow.secrets.get(name)
        if secret is None:
            return f"Secret {name} is not there, and {field_name} names it"
        lacking = [key for key in keys if not decoded(secret, key)]
        if lacking:
            return f"Secret {name}, which {field_name} names, has no key {' nor '.join(lacking)}"
        if field_name == DATABASE_FIELD and (engine := decoded(secret, "WA_DB_ENGINE")) != "PGSQL":
            return f"Key WA_DB_ENGINE of Secret {name} says {engine}, and the stand-in works with PGSQL only"
    return None


def _is_new(client: Client, memory: Memory) -> bool:
    first = client.first_login_at
    return first is not None and (memory.settled_at is None or first > memory.settled_at)


def _without_content(secret: Obj) -> Obj:
    return {key: value for key, value in secret.items() if key not in {"data", "stringData"}}


def _still_ended(memory: Memory, statefulset: Obj | None, pods: Iterable[Obj]) -> frozenset[str]:
    """Return the names of pods that this process deleted and that are not back; forget the others.

    One is back when its successor is ready. One that is still there and not Terminating was not deleted after all, and one with an ordinal
    beyond the replicas does not come back.
    """
    replicas = ((statefulset or {}).get("spec") or {}).get("replicas") or 0
    there = {pod["metadata"]["name"]: pod for pod in pods}
    for name, uid in tuple(memory.ended.items()):
        pod = there.get(name)
        is_same = pod is not None and pod["metadata"]["uid"] == uid
        is_spared = is_same and pod is not None and pod["metadata"].get("deletionTimestamp") is None
        is_back = not is_same and pod is not None and is_ready(pod)
        if is_spared or is_back or int(name.rpartition("-")[2]) >= replicas:
            del memory.ended[name]
    return frozenset(memory.ended)


def _workload(obj: Obj | None) -> Workload | None:
    if obj is None:
        return None
    status = obj.get("status") or {}
    return Workload(
        uid=obj["metadata"]["uid"],
        resource_version=obj["metadata"]["resourceVersion"],
        replicas=int(obj["spec"].get("replicas", 1)),
        ready=int(status.get("readyReplicas", 0)),
        # Before the controller has looked, it speaks of the template before.
        revision=status.get("updateRevision") if status.get("observedGeneration") == obj["metadata"].get("generation") else None,
    )


def _access(want: Desired, webapps: Iterable[Obj], slow: Slow) -> Access:
    admin = slow.secrets.get(manifests.admin_secret_name(want))
    tls = slow.secrets.get(manifests.tls_secret_name(want))
    return Access(
        addresses=tuple(f"{pod['status']['podIP']}:{manifests.WEBAPP_PORT}" for pod in webapps),
        server_name=manifests.server_name(want),
        authority=decoded(tls, "ca.crt") or None,
        verifies=want.tls.verifies,
        username=decoded(admin, "username") or "admin",
        password=decoded(admin, "password") or "",
        initial_password=decoded(admin, "initialPassword") or VENDOR_INITIAL_PASSWORD,
    )


def _credentials(want: Desired, account: AccountSecret | None, secret: Obj | None) -> Credentials:
    if want.account is None:
        # The stand-in's made-up account.
        return Credentials(country_code="1", phone_number="6315550000")
    text = decoded(secret, "certificate")
    return Credentials(
        country_code=want.account.country_code,
        phone_number=want.account.phone_number,
        pin=decoded(secret, "pin"),
        certificate="".join(text.split()) if text else None,
        fingerprint=account.certificate.fingerprint if account and account.certificate else None,
        secret_version=account.version if account else None,
    )
