"""Makes one frozen value of everything that was read about a cluster. Pure and total: no input raises an error.

A damaged object is left out and named in ``unread``. Pods and Services need more care, because without them a holder would seem to be gone:
a pod with a damaged status exists, and a damaged Service keeps its last known value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace

from whatsapp_operator.core import manifests
from whatsapp_operator.core.desired import Desired
from whatsapp_operator.core.names import Obj, Ref
from whatsapp_operator.core.snapshot import AccountSecret, Coreapp, Route, Snapshot, Workload
from whatsapp_operator.shell.addresses import host_port
from whatsapp_operator.shell.coreapps.schedule import ProbeResult
from whatsapp_operator.shell.whatsapp.access import Access, Credentials

from .reading import account_secret_of, component_of, coreapp_of, image_problem_of, is_ready, is_unobserved, pending_of, webapps_change
from .rejections import replica_failure_of
from .secret_keys import Findings, decoded, findings_of
from .shapes import bare, damage_of

VENDOR_INITIAL_PASSWORD = "secret"  # noqa: S105  the vendor documents it


# --- gathered objects ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Slow:
    """The last read of objects that no failover depends on."""

    read_at: float
    objects: dict[Ref, Obj]
    names: frozenset[str]
    """Those of the Secrets that were requested."""
    secrets: Mapping[str, Obj | None] = field(repr=False)
    """Those with an answer of the API server, by name; None: it does not exist."""
    unread: Mapping[str, str]
    """Kinds that could not be read completely, and why."""
    name_conflicts: tuple[Ref, ...] = ()
    """Names that the cluster needs and that foreign objects have."""
    pods: tuple[Obj, ...] = ()
    """Pods of the cluster that lack labels and so are not listed."""
    events_were_read: bool = False
    """The Events of StatefulSets with missing pods were read too."""
    rejected_pods: Mapping[Ref, str] = field(default_factory=dict)
    """Why a pod cannot be created, from these Events, by StatefulSet."""
    again: bool = False
    """A later observation has used this value without reading it again, or uses it long after it was read."""
    _findings: tuple[Desired, Findings] | None = field(default=None, repr=False)

    def findings(self, desired: Desired) -> Findings:
        """Return the findings for its Secrets, cached for the same desired state: parsing certificates and keys takes time."""
        known = self._findings
        # Usually it is the same object, and comparing all fields takes a while.
        if known is None or (known[0] is not desired and known[0] != desired):
            known = self._findings = desired, findings_of(desired, self.secrets)
        return known[1]

    def keep_findings(self, before: Slow) -> None:
        """Take over the findings of an earlier read if the Secrets are the same."""
        if before.secrets == self.secrets:
            self._findings = before._findings

    @property
    def passes(self) -> bool:
        """Whether it may change soon.

        A name conflict is often with a cluster that was just deleted, a Secret is often created just after the cluster, and controllers
        soon observe a new spec.
        """
        return bool(self.name_conflicts) or None in self.secrets.values() or any(map(is_unobserved, self.objects.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The objects of one cluster as the API server returned them."""

    cluster: Obj
    services: tuple[Obj, ...]
    pods: tuple[Obj, ...]
    statefulsets: tuple[Obj, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The gathered objects, without damaged ones."""

    routes: tuple[Route, ...]
    """By shard."""
    listed: tuple[Obj, ...]
    """All pods that were found, by the cluster's label or by name."""
    pods: tuple[Obj, ...]
    """Of these, the cluster's own."""
    coreapp_pods: tuple[Obj, ...]
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
    """Sort the gathered objects. ``last``: the routes of the previous snapshot, by the name of their Service.

    ``strays``: pods without the label, read a moment ago. They may be gone: such a pod is only labelled, and never counts as existing.
    """
    problems: dict[str, str] = {}
    services = sound(gathered.services, "Service", problems)
    statefulsets = sound(gathered.statefulsets, "StatefulSet", problems)
    pods = _pods(gathered.pods, problems)
    objects = by_ref([*services, *statefulsets], desired.uid)
    coreapps = objects.get(manifests.coreapp_statefulset(desired.key.name))
    read = {route.name: route for service in services if (route := manifests.route_of(service, desired.key.name, desired.uid)) is not None}
    # The name of a damaged Service may be unreadable too: so all known routes are kept.
    routes = {**last, **read} if "Service" in problems else read
    # By name and owner, not by label: a cluster that was deleted under the same name may still have pods.
    sets = {ref.name: obj["metadata"]["uid"] for ref, obj in objects.items() if ref.kind == "StatefulSet"}
    own = [pod for pod in pods if manifests.is_pod_of(pod, desired.key.name, sets)]
    mislabelled = [obj for obj in (*objects.values(), *own, *others(strays, own)) if _lacks_labels(desired, obj)]
    foreign = _foreign(pods, own)
    return Parts(
        routes=tuple(sorted((manifests.with_copy(one, foreign) for one in routes.values()), key=lambda route: route.shard)),
        listed=tuple(pods),
        pods=tuple(own),
        coreapp_pods=tuple(_coreapps_among(desired, own, mislabelled, routes.values())),
        mislabelled=tuple(mislabelled),
        coreapps=coreapps,
        objects=objects,
        problems=problems,
    )


def _foreign(pods: Iterable[Obj], own: Iterable[Obj]) -> list[Obj]:
    """Return the pods that are not the cluster's own and have not ended, which Services may select."""
    known = {pod["metadata"]["uid"] for pod in own}
    ended = {"Failed", "Succeeded"}
    return [pod for pod in pods if pod["metadata"]["uid"] not in known and (pod.get("status") or {}).get("phase") not in ended]


def _pods(pods: Iterable[Obj], problems: MutableMapping[str, str]) -> list[Obj]:
    """Return the pods; damaged ones without spec and status: such a pod exists, and nothing else is known about it."""
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
    """Return the pods that are Coreapps. A pod that no Service could select counts only after it is labelled, unless it holds a shard."""
    lost = {pod["metadata"]["uid"] for pod in mislabelled} - {route.holder_uid for route in routes}
    name = manifests.coreapp_name(desired.key.name)
    return [pod for pod in pods if pod["metadata"]["name"].rpartition("-")[0] == name and pod["metadata"]["uid"] not in lost]


def others(pods: Iterable[Obj], known: Iterable[Obj]) -> list[Obj]:
    """Return the pods whose names are not those of known ones."""
    names = {pod["metadata"]["name"] for pod in known}
    return [pod for pod in pods if pod["metadata"]["name"] not in names]


# --- names: own objects without the label, foreign objects in conflict --------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """The objects that were found, sorted by the names that a cluster needs."""

    objects: Mapping[Ref, Obj]
    """The cluster's own objects that no failover depends on."""
    name_conflicts: tuple[Ref, ...]
    """Names that foreign objects have."""
    pods: tuple[Obj, ...]
    """Pods of the cluster that lack labels and so were not listed."""


def needed_names(desired: Desired, objects: Iterable[Obj]) -> list[Ref]:
    """Return all names that a cluster needs: of its objects, and of the pods of its StatefulSets, which are among ``objects``."""
    sets = (obj for ref, obj in by_ref(objects, desired.uid).items() if ref.kind == "StatefulSet")
    replicas = {ref_of(obj): int(obj["spec"].get("replicas", 1)) for obj in sets}
    pods = (Ref("Pod", f"{ref.name}-{ordinal}") for ref, number in replicas.items() for ordinal in range(number))
    return [*dict.fromkeys((*desired.derive(_maintained), *pods))]


def _maintained(desired: Desired) -> tuple[Ref, ...]:
    """Return the names of the objects that the operator creates."""
    routes = (manifests.shard_service(desired, shard) for shard in range(desired.shards))
    # With the arguments that the plan has most often, so that the objects are made once.
    kept = desired.derive(manifests.upkeep, webapp_replicas=desired.webapps, resharding=False, is_first_boot=False, is_unused=False)
    return tuple(map(ref_of, (*manifests.secrets(desired), *kept, *routes)))


def unfound(desired: Desired, found: Iterable[Obj]) -> list[Ref]:
    """Return the names that a cluster needs and that none of the found objects has."""
    found = [*found]
    there = {*map(ref_of, found)}
    return [ref for ref in needed_names(desired, found) if ref not in there]


def sort_out(desired: Desired, slow: Iterable[Obj], fast: Iterable[Obj], strays: Iterable[Obj]) -> Named:
    """Sort objects that were found by label (``slow`` and ``fast``, the latter with pods) and by name only (``strays``)."""
    fast, strays = [*fast], [*strays]
    sets = own_sets(fast, desired.uid)
    pods = [obj for obj in (*fast, *strays) if obj["kind"] == "Pod"]
    plain = [obj for obj in (*slow, *fast, *strays) if obj["kind"] != "Pod"]
    foreign = {ref_of(obj) for obj in plain if not manifests.is_owned(obj, desired.uid)}
    foreign |= {ref_of(pod) for pod in pods if _is_in_conflict(pod, desired.key.name, sets)}
    unlabelled = [obj for obj in strays if obj["kind"] == "Pod"]
    return Named(
        objects=by_ref([*slow, *(obj for obj in strays if obj["kind"] != "Pod")], desired.uid),
        name_conflicts=tuple(ref for ref in needed_names(desired, fast) if ref in foreign),
        pods=tuple(pod for pod in unlabelled if manifests.is_pod_of(pod, desired.key.name, sets) and _lacks_labels(desired, pod)),
    )


def _is_in_conflict(pod: Obj, cluster: str, sets: Mapping[str, str]) -> bool:
    """Return whether a foreign pod stays. A pod of a former StatefulSet of the same name is removed with it."""
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


def snapshot_of(
    desired: Desired, cluster: Obj, parts: Parts, slow: Slow, known: Snapshot, *, responses: Mapping[str, ProbeResult]
) -> Snapshot:
    """Return the snapshot of ``cluster``: ``known``, which holds what this process itself knows, and the gathered objects.

    ``responses``: by uid of the pod.
    """
    status: Obj = cluster.get("status") or {}
    account = desired.account.secret_name if desired.account else None
    deployment = slow.objects.get(manifests.webapp_deployment(desired.key.name))
    findings = slow.findings(desired)
    return replace(
        known,
        generation=desired.generation,
        resource_version=cluster["metadata"]["resourceVersion"],
        status=status,
        objects={**slow.objects, **parts.objects},
        name_conflicts=slow.name_conflicts,
        unread={**slow.unread, **parts.problems, **known.unread},
        image_problem=image_problem_of(parts.pods),
        pending_pod=pending_of(parts.pods),
        rejected_pods=next(iter(slow.rejected_pods.values()), None) or replica_failure_of(deployment),
        rejected_coreapp=slow.rejected_pods.get(manifests.coreapp_statefulset(desired.key.name)),
        mislabelled=parts.mislabelled,
        statefulset=_workload(parts.coreapps),
        webapp=Workload(uid="", resource_version="", replicas=_webapp_replicas(desired, deployment, status), ready=len(webapps_of(parts))),
        webapps_change=webapps_change(deployment, parts.pods),
        coreapps=_coreapps(parts, responses),
        routes=parts.routes,
        account=account_secret_of(account, slow.secrets[account]) if account and account in slow.secrets else None,
        checksums=findings.checksums,
        missing=findings.missing,
        malformed=findings.malformed,
    )


def _webapp_replicas(desired: Desired, deployment: Obj | None, status: Obj) -> int:
    """Return the desired number of Webapps: from the spec, else from the Deployment, else from its last read."""
    if desired.webapps is not None:
        return desired.webapps
    if deployment is not None:
        return int(deployment["spec"].get("replicas", 1))
    return int((status.get("webapp") or {}).get("desired", manifests.FIRST_WEBAPPS))


def _coreapps(parts: Parts, responses: Mapping[str, ProbeResult]) -> tuple[Coreapp, ...]:
    found = (coreapp_of(pod, responses.get(pod["metadata"]["uid"], ProbeResult())) for pod in parts.coreapp_pods)
    return tuple(sorted((one for one in found if one is not None), key=lambda one: one.ordinal))


def webapps_of(parts: Parts) -> tuple[Obj, ...]:
    """Return the pods of Webapps that can be called."""
    return tuple(pod for pod in parts.pods if component_of(pod) == "webapp" and is_ready(pod) and pod["status"].get("podIP"))


def without_content(secret: Obj) -> Obj:
    """Return a Secret without its values."""
    return {key: value for key, value in secret.items() if key not in {"data", "stringData"}}


def still_ended(ended: Mapping[str, str], statefulset: Obj | None, pods: Iterable[Obj]) -> dict[str, str]:
    """Return, of the pods that this process deleted (uid by name), those that are not back yet.

    A pod is back when its successor is ready. One that still exists and is not Terminating was not deleted after all. One with an ordinal
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
        # Until the controller has observed the new spec, the status describes the former template.
        revision=status.get("updateRevision") if status.get("observedGeneration") == obj["metadata"].get("generation") else None,
        scaled_by=_scaled_by(obj),
        bumped_for=manifests.bumped_for(obj),
    )


def _scaled_by(statefulset: Obj) -> str | None:
    """Return the manager that last wrote the replicas, if it is known and not this operator."""
    managers = statefulset["metadata"].get("managedFields") or ()
    return next((str(one["manager"]) for one in managers if one.get("manager") not in {None, "", manifests.FIELD_MANAGER}), None)


def access_of(desired: Desired, webapps: Iterable[Obj], slow: Slow) -> Access:
    """Return the access to the client: these Webapps, and the passwords that were read."""
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
    """Return the credentials for Set Shards; ``secret`` is the account's."""
    if desired.account is None:
        # A fictitious account for the simulator.
        return Credentials(country_code="1", phone_number="6315550000")
    text = decoded(secret, "certificate")
    return Credentials(
        country_code=desired.account.country_code,
        phone_number=desired.account.phone_number,
        pin=decoded(secret, "pin"),
        certificate="".join(text.split()) if text else None,
        fingerprint=account.certificate.fingerprint if account and account.certificate else None,
        secret_version=account.version if account else None,
        pin_digest=account.pin_digest if account else None,
    )
