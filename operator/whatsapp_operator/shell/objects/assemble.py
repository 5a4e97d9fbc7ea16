"""What was gathered about a cluster becomes one frozen value. Pure, and total: whatever was read, this raises nothing.

A damaged object is left out and named in ``unread``. Of pods and Services, without which a shard's holder would seem gone, more is kept: a
pod whose status cannot be read is there, and a Service that cannot be read is what it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime

from whatsapp_operator.core import manifests
from whatsapp_operator.core.desired import Desired
from whatsapp_operator.core.names import Obj, Ref
from whatsapp_operator.core.snapshot import (
    AccountSecret,
    Attempt,
    Client,
    Coreapp,
    HandoverTimes,
    Node,
    Overruled,
    Record,
    Report,
    Route,
    Silence,
    Snapshot,
    Workload,
)
from whatsapp_operator.shell.addresses import host_port
from whatsapp_operator.shell.whatsapp.session import Access, Credentials

from .reading import account_secret_of, component_of, coreapp_of, image_problem_of, is_ready, is_unobserved, webapps_change
from .rejections import replica_failure_of
from .secret_keys import Findings, decoded, findings_of
from .shapes import bare, damage_of

VENDOR_INITIAL_PASSWORD = "secret"  # noqa: S105  the vendor documents it


# --- what was gathered ----------------------------------------------------------------------------------------------------


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
    asked_why: bool = False
    """The Events of StatefulSets that lack pods were read, too."""
    rejected_pods: str | None = None
    """What they say of a pod that cannot be created."""
    again: bool = False
    """A look went by it that did not read it itself."""
    _findings: tuple[Desired, Findings] | None = field(default=None, repr=False)

    def findings(self, desired: Desired) -> Findings:
        """Return what its Secrets come to, judged once as long as the same is desired: reading certificates and keys takes its time."""
        if self._findings is None or self._findings[0] != desired:
            self._findings = desired, findings_of(desired, self.secrets)
        return self._findings[1]

    @property
    def passes(self) -> bool:
        """Whether it may soon be otherwise.

        A name that is taken is often that of a cluster just deleted, a Secret often comes just after the cluster, and controllers look
        soon.
        """
        return bool(self.taken) or None in self.secrets.values() or any(map(is_unobserved, self.objects.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What the API server said of one cluster, as it said it."""

    cluster: Obj
    services: tuple[Obj, ...]
    pods: tuple[Obj, ...]
    statefulsets: tuple[Obj, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What was gathered, without what is damaged."""

    routes: tuple[Route, ...]
    """By shard."""
    listed: tuple[Obj, ...]
    """All pods that were found, by the cluster's label or by name."""
    pods: tuple[Obj, ...]
    """Of these, the cluster's own."""
    mine: tuple[Obj, ...]
    """Of these, the Coreapps."""
    mislabelled: tuple[Obj, ...]
    """Pods of StatefulSets and shard Services of the cluster that lack labels."""
    coreapps: Obj | None
    """Their StatefulSet."""
    objects: Mapping[Ref, Obj]
    """Services and StatefulSets that the cluster owns."""
    problems: Mapping[str, str]
    """By kind: what is wrong with one of its objects."""


def sound(objects: Iterable[Obj], kind: str, problems: MutableMapping[str, str]) -> list[Obj]:
    """Return the objects that can be read; note in ``problems`` what is wrong with one of the others."""
    kept: list[Obj] = []
    for obj in objects:
        damage = damage_of(obj, kind)
        if damage is None:
            kept.append(obj)
        else:
            problems.setdefault(kind, damage)
    return kept


def parts_of(desired: Desired, gathered: Gathered, last: Mapping[str, Route], strays: Iterable[Obj] = ()) -> Parts:
    """Sort what was gathered. ``last``: the routes of the snapshot before, by the name of their Service.

    ``strays``: pods without our label, read a moment ago. They may be gone: such a pod is only labelled, and never counts as there.
    """
    problems: dict[str, str] = {}
    services = sound(gathered.services, "Service", problems)
    statefulsets = sound(gathered.statefulsets, "StatefulSet", problems)
    pods = _pods(gathered.pods, problems)
    objects = by_ref([*services, *statefulsets], desired.uid)
    coreapps = objects.get(manifests.coreapp_statefulset(desired.key.name))
    read = {route.name: route for service in services if (route := manifests.route_of(service, desired.key.name, desired.uid)) is not None}
    # Which of them is damaged may be unreadable, too: so none that was known is given up.
    routes = {**last, **read} if "Service" in problems else read
    # By name and owner, not by label: a cluster that was deleted under the same name may still have pods.
    sets = own_sets(statefulsets, desired.uid)
    own = [pod for pod in pods if manifests.is_pod_of(pod, desired.key.name, sets)]
    mislabelled = [obj for obj in (*objects.values(), *own, *others(strays, own)) if _lacks_labels(desired, obj)]
    return Parts(
        routes=tuple(sorted(routes.values(), key=lambda route: route.shard)),
        listed=tuple(pods),
        pods=tuple(own),
        mine=tuple(_coreapps_among(desired, own, mislabelled, routes.values())),
        mislabelled=tuple(mislabelled),
        coreapps=coreapps,
        objects=objects,
        problems=problems,
    )


def _pods(pods: Iterable[Obj], problems: MutableMapping[str, str]) -> list[Obj]:
    """Return the pods, without spec and status where these are damaged: such a pod is there, and nothing else is known of it."""
    kept: list[Obj] = []
    for pod in pods:
        kept += sound([pod], "Pod", problems) or sound([bare(pod)], "Pod", problems)
    return kept


def own_sets(objects: Iterable[Obj], uid: str) -> dict[str, str]:
    """Return the uids of the cluster's StatefulSets, by name."""
    return {ref.name: obj["metadata"]["uid"] for ref, obj in by_ref(objects, uid).items() if ref.kind == "StatefulSet"}


def _lacks_labels(desired: Desired, obj: Obj) -> bool:
    return obj["metadata"].get("deletionTimestamp") is None and bool(manifests.lost_labels(desired, obj))


def _coreapps_among(desired: Desired, pods: Iterable[Obj], mislabelled: Iterable[Obj], routes: Iterable[Route]) -> list[Obj]:
    """Return the pods that are Coreapps. One that no Service could select is none until it is labelled, unless it holds a shard."""
    lost = {pod["metadata"]["uid"] for pod in mislabelled} - {route.holder_uid for route in routes}
    name = manifests.coreapp_name(desired.key.name)
    return [pod for pod in pods if pod["metadata"]["name"].rpartition("-")[0] == name and pod["metadata"]["uid"] not in lost]


def others(pods: Iterable[Obj], known: Iterable[Obj]) -> list[Obj]:
    """Return the pods whose names are not those of known ones."""
    names = {pod["metadata"]["name"] for pod in known}
    return [pod for pod in pods if pod["metadata"]["name"] not in names]


# --- names: of ours without our label, of others that are in the way --------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What was found, sorted by the names that a cluster needs."""

    objects: Mapping[Ref, Obj]
    """Those that no failover depends on and that the cluster owns."""
    taken: tuple[Ref, ...]
    """Names that somebody else's objects have."""
    pods: tuple[Obj, ...]
    """Pods of the cluster that lack labels and so were not listed."""


def needed_names(desired: Desired, objects: Iterable[Obj]) -> list[Ref]:
    """Return all names that a cluster needs: of its objects, and of the pods of its StatefulSets, which are among ``objects``."""
    routes = (manifests.shard_service(desired, shard) for shard in range(desired.shards))
    wanted = (*manifests.secrets(desired), *manifests.upkeep(desired, webapp_replicas=1, resharding=False), *routes)
    sets = (obj for ref, obj in by_ref(objects, desired.uid).items() if ref.kind == "StatefulSet")
    replicas = {ref_of(obj): int(obj["spec"].get("replicas", 1)) for obj in sets}
    pods = (Ref("Pod", f"{ref.name}-{ordinal}") for ref, number in replicas.items() for ordinal in range(number))
    return [*dict.fromkeys((*map(ref_of, wanted), *pods))]


def unfound(desired: Desired, found: Iterable[Obj]) -> list[Ref]:
    """Return the names that a cluster needs and that nothing that was found has."""
    found = [*found]
    there = {*map(ref_of, found)}
    return [ref for ref in needed_names(desired, found) if ref not in there]


def sort_out(desired: Desired, slow: Iterable[Obj], fast: Iterable[Obj], strays: Iterable[Obj]) -> Named:
    """Sort what was found by label (``slow`` and ``fast``, the latter with pods) and what was found by name alone (``strays``)."""
    fast, strays = [*fast], [*strays]
    sets = own_sets(fast, desired.uid)
    pods = [obj for obj in (*fast, *strays) if obj["kind"] == "Pod"]
    plain = [obj for obj in (*slow, *fast, *strays) if obj["kind"] != "Pod"]
    foreign = {ref_of(obj) for obj in plain if not manifests.is_owned(obj, desired.uid)}
    foreign |= {ref_of(pod) for pod in pods if _is_in_the_way(pod, desired.key.name, sets)}
    unlabelled = [obj for obj in strays if obj["kind"] == "Pod"]
    return Named(
        objects=by_ref([*slow, *(obj for obj in strays if obj["kind"] != "Pod")], desired.uid),
        taken=tuple(ref for ref in needed_names(desired, fast) if ref in foreign),
        pods=tuple(pod for pod in unlabelled if manifests.is_pod_of(pod, desired.key.name, sets) and _lacks_labels(desired, pod)),
    )


def _is_in_the_way(pod: Obj, cluster: str, sets: Mapping[str, str]) -> bool:
    """Return whether a pod is somebody else's and stays. One of a former StatefulSet of the same name goes with that."""
    owner = manifests.controller_of(pod)
    is_former = owner is not None and owner["name"] in sets
    is_leaving = pod["metadata"].get("deletionTimestamp") is not None
    return not (is_former or is_leaving or manifests.is_pod_of(pod, cluster, sets))


def ref_of(obj: Obj) -> Ref:
    """Return the kind and name of an object."""
    return Ref(obj["kind"], obj["metadata"]["name"])


def by_ref(objects: Iterable[Obj], uid: str) -> dict[Ref, Obj]:
    """Return the objects that the cluster of this uid owns."""
    return {ref_of(obj): obj for obj in objects if manifests.is_owned(obj, uid)}


# --- the snapshot ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What this process's own connection to a pod tells."""

    report: Report | None = None
    broken_at: datetime | None = None
    silent_since: datetime | None = None
    never_responded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What goes into a snapshot and was not gathered: time, chance, and what this process knows of its own."""

    now: datetime
    wall: datetime | None = None
    nonce: str
    leader_epoch: int
    client: Client
    record: Record
    """What is remembered in status, the times of its intent on our own clock."""
    responses: Mapping[str, ProbeResult] = field(default_factory=dict)
    """By uid of the pod."""
    silence: Silence = field(default_factory=Silence)
    nodes: Mapping[str, Node] | None = None
    nodes_unread: Mapping[str, str] = field(default_factory=dict)
    """Why nothing new is known of nodes, by kind."""
    refused: str | None = None
    rejected_at: datetime | None = None
    written: Mapping[Ref, Mapping[str, Attempt]] = field(default_factory=dict)
    not_kept: tuple[str, ...] = ()
    overruled: Overruled | None = None
    anchored_for: int | None = None
    settled_at: datetime | None = None
    ended: frozenset[str] = frozenset()
    committed: tuple[Route, ...] = ()
    handover_times: Mapping[str, HandoverTimes] = field(default_factory=dict)
    since: Mapping[str, datetime] = field(default_factory=dict)


def snapshot_of(desired: Desired, cluster: Obj, parts: Parts, slow: Slow, known: Known) -> Snapshot:
    """Return the snapshot: what was gathered about ``cluster``, and what is known besides."""
    objects = {**slow.objects, **parts.objects}
    status: Obj = cluster.get("status") or {}
    account = desired.account.secret_name if desired.account else None
    deployment = objects.get(manifests.webapp_deployment(desired.key.name))
    return Snapshot(
        now=known.now,
        wall=known.wall,
        nonce=known.nonce,
        leader_epoch=known.leader_epoch,
        generation=desired.generation,
        resource_version=cluster["metadata"]["resourceVersion"],
        status=status,
        objects=objects,
        taken=slow.taken,
        unread={**slow.unread, **parts.problems, **known.nodes_unread},
        refused=known.refused,
        rejected_at=known.rejected_at,
        written=known.written,
        not_kept=known.not_kept,
        image_problem=image_problem_of(parts.pods),
        rejected_pods=slow.rejected_pods or replica_failure_of(deployment),
        overruled=known.overruled,
        mislabelled=parts.mislabelled,
        statefulset=_workload(parts.coreapps),
        webapp=Workload(uid="", resource_version="", replicas=_webapp_replicas(desired, deployment, status), ready=len(webapps_of(parts))),
        webapps_change=webapps_change(deployment, parts.pods),
        coreapps=_coreapps(parts, known),
        routes=parts.routes,
        record=known.record,
        client=known.client,
        account=account_secret_of(account, slow.secrets[account]) if account and account in slow.secrets else None,
        checksums=slow.findings(desired).checksums,
        anchored_for=known.anchored_for,
        missing=slow.findings(desired).missing,
        malformed=slow.findings(desired).malformed,
        account_is_new=_is_new(known.client, known.settled_at),
        nodes=known.nodes,
        silence=known.silence,
        ended=known.ended,
        committed=known.committed,
        handover_times=known.handover_times,
        since=known.since,
    )


def _webapp_replicas(desired: Desired, deployment: Obj | None, status: Obj) -> int:
    """Return how many Webapps there should be: as the spec says, else as the Deployment does, or did when it was read last."""
    if desired.webapps is not None:
        return desired.webapps
    if deployment is not None:
        return int(deployment["spec"].get("replicas", 1))
    return int((status.get("webapp") or {}).get("desired", manifests.FIRST_WEBAPPS))


def _coreapps(parts: Parts, known: Known) -> tuple[Coreapp, ...]:
    found: list[Coreapp] = []
    for pod in parts.mine:
        responses = known.responses.get(pod["metadata"]["uid"], ProbeResult())
        coreapp = coreapp_of(pod, responses.report, responses.broken_at, responses.silent_since, never_responded=responses.never_responded)
        found += [coreapp] if coreapp is not None else []
    return tuple(sorted(found, key=lambda pod: pod.ordinal))


def webapps_of(parts: Parts) -> tuple[Obj, ...]:
    """Return the pods of Webapps that can be asked."""
    return tuple(pod for pod in parts.pods if component_of(pod) == "webapp" and is_ready(pod) and pod["status"].get("podIP"))


def _is_new(client: Client, settled_at: datetime | None) -> bool:
    first = client.first_login_at
    return first is not None and (settled_at is None or first > settled_at)


def without_content(secret: Obj) -> Obj:
    """Return a Secret without its values."""
    return {key: value for key, value in secret.items() if key not in {"data", "stringData"}}


def still_ended(ended: Mapping[str, str], statefulset: Obj | None, pods: Iterable[Obj]) -> dict[str, str]:
    """Return, of the pods that this process deleted (uid by name), those that are not back.

    One is back when its successor is ready. One that is still there and not Terminating was not deleted after all, and one with an ordinal
    beyond the replicas does not come back.
    """
    replicas = ((statefulset or {}).get("spec") or {}).get("replicas") or 0
    there = {pod["metadata"]["name"]: pod for pod in pods}
    still: dict[str, str] = {}
    for name, uid in ended.items():
        pod = there.get(name)
        is_same = pod is not None and pod["metadata"]["uid"] == uid
        is_spared = is_same and pod is not None and pod["metadata"].get("deletionTimestamp") is None
        has_restarted = not is_same and pod is not None and is_ready(pod)
        if not (is_spared or has_restarted or int(name.rpartition("-")[2]) >= replicas):
            still[name] = uid
    return still


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
        scaled_by=_scaled_by(obj),
    )


def _scaled_by(statefulset: Obj) -> str | None:
    """Return who wrote the number of pods last, if that was not this operator and is known."""
    managers = statefulset["metadata"].get("managedFields") or ()
    return next((str(one["manager"]) for one in managers if one.get("manager") not in {None, "", manifests.FIELD_MANAGER}), None)


def access_of(desired: Desired, webapps: Iterable[Obj], slow: Slow) -> Access:
    """Return how to reach the client: at these Webapps, with the passwords that were read."""
    admin = slow.secrets.get(manifests.admin_secret_name(desired))
    tls = slow.secrets.get(manifests.tls_secret_name(desired))
    return Access(
        addresses=tuple(host_port(pod["status"]["podIP"], manifests.WEBAPP_PORT) for pod in webapps),
        server_name=manifests.server_name(desired),
        problem=slow.findings(desired).no_access,
        tls_secret=manifests.tls_secret_name(desired),
        authority=(decoded(tls, "ca.crt") or None) if desired.tls.verifies else None,
        verifies=desired.tls.verifies,
        hidden=slow.findings(desired).hidden,
        username=decoded(admin, "username") or "admin",
        password=decoded(admin, "password") or "",
        initial_password=decoded(admin, "initialPassword") or VENDOR_INITIAL_PASSWORD,
    )


def credentials_of(desired: Desired, account: AccountSecret | None, secret: Obj | None) -> Credentials:
    """Return what Set Shards is sent with; ``secret`` is the account's."""
    if desired.account is None:
        # The simulator's made-up account.
        return Credentials(country_code="1", phone_number="6315550000")
    text = decoded(secret, "certificate")
    return Credentials(
        country_code=desired.account.country_code,
        phone_number=desired.account.phone_number,
        pin=decoded(secret, "pin"),
        certificate="".join(text.split()) if text else None,
        fingerprint=account.certificate.fingerprint if account and account.certificate else None,
        secret_version=account.version if account else None,
    )
