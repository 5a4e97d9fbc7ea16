"""Desired state as Kubernetes objects; all names, labels, ports and patches. Pure: the same input gives the same object."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from . import pods
from .model import Anchor, Coreapp, Desired, Epoch, Handover, Key, Label, Obj, Ref, Route
from .upkeep import marked

API_VERSION: Final = "multiconnect.dev/v1alpha1"
FIELD_MANAGER: Final = "whatsapp-operator"
"""The name under which the API server notes what this operator wrote."""
CLUSTER_LABEL: Final = "multiconnect.dev/cluster"
ROLE_LABEL: Final = "multiconnect.dev/role"
SHARD_LABEL: Final = "multiconnect.dev/shard"
EPOCH_LABEL: Final = "multiconnect.dev/epoch"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"

HOLDER_ANNOTATION: Final = "multiconnect.dev/holder"
PREVIOUS_ANNOTATION: Final = "multiconnect.dev/previous-holder"
EVIDENCE_ANNOTATION: Final = "multiconnect.dev/evidence"
COMMITTED_ANNOTATION: Final = "multiconnect.dev/committed-at"
TOUCHED_ANNOTATION: Final = "multiconnect.dev/touched"
ANCHOR_ANNOTATION: Final = "multiconnect.dev/anchor"
FIRST_BOOT_ANNOTATION: Final = "multiconnect.dev/first-boot"
"""On the Webapps' Deployment while the number of Webapps is not in the spec and the first one starts alone."""
SWITCHOVER_ANNOTATION: Final = "multiconnect.dev/switchover"
RESHARD_NOW_ANNOTATION: Final = "multiconnect.dev/reshard-now"
PAUSED_ANNOTATION: Final = "multiconnect.dev/paused"

NO_EPOCH: Final = "none"
"""Selector value that no pod ever carries: a route that leads nowhere."""

MESSAGING_PORT: Final = 6250
CONTACTS_PORT: Final = 6251
CONTROL_PORT: Final = 6252
HEALTHCHECK_PORT: Final = 6253
COREAPP_PORTS: Final[Mapping[str, int]] = {
    "messaging": MESSAGING_PORT,
    "contacts": CONTACTS_PORT,
    "control": CONTROL_PORT,
    "healthcheck": HEALTHCHECK_PORT,
}
"""Ports of a Coreapp (whatsapp-client.md section 2)."""
WEBAPP_PORT: Final = 8443
"""Where the stand-in's Webapp listens; its Service says 443."""
SIMULATOR_PORT: Final = 8080
STATE_FOLDER: Final = "/var/lib/wabiz"
TLS_FOLDER: Final = "/etc/wabiz/tls"
DATABASE_TLS_FOLDER: Final = "/etc/wabiz/db-tls"

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(3000, 1, 1, tzinfo=UTC)
"""Times that others write count only from the first to the second."""

FIRST_WEBAPPS: Final = 2
"""So many Webapps a cluster begins with whose spec does not say how many; from then on an autoscaler, or a person, decides."""

HUNG: Final[Mapping[str, Any]] = {"periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6}
"""After a minute without any answer a container is started anew. What is asked must not depend on the database or on other pods, or a
fault of one of those would end all containers at once."""


# --- names -----------------------------------------------------------------------------------------------------------
# Every name is the cluster's and a suffix. For one kind no suffix ends in another one, so that no two clusters want the same name.

CLUSTER_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
"""What a cluster can be named, as the CRD says."""
SUFFIX = re.compile(r"(coreapp|simulator)(-[0-9]+)?|shard-[0-9]+|webapp(-[a-z0-9]+)*")
"""What follows the cluster's name and a dash in the names of its pods, Services and workloads."""


def coreapp_name(name: str) -> str:
    """Return the name of the Coreapps' StatefulSet, headless Service, PodDisruptionBudget and NetworkPolicy."""
    return f"{name}-coreapp"


def webapp_name(name: str) -> str:
    """Return the name of the Webapps' Deployment, Service, PodDisruptionBudget and NetworkPolicy."""
    return f"{name}-webapp"


def simulator_name(name: str) -> str:
    """Return the name of the stand-in's StatefulSet and Service."""
    return f"{name}-simulator"


def shard_name(name: str, shard: int) -> str:
    """Return the name of a shard's Service."""
    return f"{name}-shard-{shard}"


def service_names(name: str, shards: int) -> tuple[str, ...]:
    """Return the names of all Services of a cluster with so many shards."""
    return coreapp_name(name), webapp_name(name), simulator_name(name), *(shard_name(name, shard) for shard in range(shards))


def admin_secret_name(want: Desired) -> str:
    """Return the name of the Secret with the administrator's password: the user's, or the generated one."""
    return want.admin_secret or f"{want.key.name}-admin"


def tls_secret_name(want: Desired) -> str:
    """Return the name of the Secret with the Webapps' certificate: the user's, or the generated one."""
    return want.tls.secret_name or f"{want.key.name}-webapp-tls"


def webapp_host(key: Key) -> str:
    """Return the name under which the Webapps' Service is reached."""
    return f"{webapp_name(key.name)}.{key.namespace}.svc"


def server_name(want: Desired) -> str:
    """Return the name that the Webapps' certificate carries (API.md, ``webapp.tls.serverName``)."""
    return want.tls.server_name or webapp_host(want.key)


def coreapp_statefulset(name: str) -> Ref:
    """Return what names the Coreapps' StatefulSet."""
    return Ref("StatefulSet", coreapp_name(name))


def coreapp_budget(name: str) -> Ref:
    """Return what names the budget over the Coreapps."""
    return Ref("PodDisruptionBudget", coreapp_name(name))


def webapp_deployment(name: str) -> Ref:
    """Return what names the Webapps' Deployment."""
    return Ref("Deployment", webapp_name(name))


def outgrown(name: str) -> dict[Ref, Ref]:
    """Return the names that earlier releases gave, and what stands in their place. Another cluster may need such a name."""
    return {Ref("NetworkPolicy", name): Ref("NetworkPolicy", coreapp_name(name))}


# --- what all objects share ------------------------------------------------------------------------------------------


def cluster_labels(name: str) -> dict[str, str]:
    """Return the label that every object of a cluster carries, to select by."""
    return {CLUSTER_LABEL: name}


def _component(name: str, component: str) -> dict[str, str]:
    return {CLUSTER_LABEL: name, COMPONENT_LABEL: component}


def _object(want: Desired, api_version: str, kind: str, name: str, component: str, **body: Any) -> dict[str, Any]:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": want.key.namespace,
            "labels": {
                "app.kubernetes.io/name": "whatsapp-business-api",
                "app.kubernetes.io/instance": want.key.name,
                "app.kubernetes.io/managed-by": "whatsapp-operator",
                **_component(want.key.name, component),
            },
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "WhatsAppCluster",
                    "name": want.key.name,
                    "uid": want.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        **body,
    }


def is_owned(obj: Obj, uid: str) -> bool:
    """Return whether the cluster with this uid owns the object. With a name that we give, that makes it ours; labels do not matter."""
    return any(owner.get("uid") == uid for owner in obj["metadata"].get("ownerReferences") or ())


def controller_of(obj: Obj) -> Obj | None:
    """Return the owner reference of the controller of an object, or None."""
    return next((owner for owner in obj["metadata"].get("ownerReferences") or () if owner.get("controller")), None)


def cluster_of(obj: Obj) -> str | None:
    """Return the name of the cluster that an event about a pod, Service or StatefulSet concerns; None: it is somebody else's object.

    The label only says which cluster that may be: name and owner must be such as we give. Whether the owner is the one that exists now is
    seen when the cluster is observed.
    """
    meta: Obj = obj.get("metadata") or {}
    cluster, owner = str((meta.get("labels") or {}).get(CLUSTER_LABEL, "")), controller_of({"metadata": meta})
    if owner is None or not CLUSTER_NAME.fullmatch(cluster):
        return None
    is_named = _suffix(str(meta.get("name")), cluster) is not None
    is_made = owner["name"] == cluster or _suffix(owner["name"], cluster) is not None
    return cluster if is_named and is_made else None


def _suffix(name: str, cluster: str) -> str | None:
    """Return what follows a cluster's name in a name that we give; None for any other name."""
    prefix, suffix = f"{cluster}-", name[len(cluster) + 1 :]
    return suffix if name.startswith(prefix) and SUFFIX.fullmatch(suffix) else None


def is_pod_of(pod: Obj, cluster: str, sets: Mapping[str, str]) -> bool:
    """Return whether a pod is one of a cluster; ``sets`` are the uids of its StatefulSets, by name.

    A StatefulSet lets go of a pod that lost a label that it selects by: such a pod has no controller, and host name and subdomain tell
    where it comes from. A Webapp's controller is a ReplicaSet, which is known by its name.
    """
    name, owner = str(pod["metadata"]["name"]), controller_of(pod)
    workload, _, ordinal = name.rpartition("-")
    if workload in sets and ordinal.isascii() and ordinal.isdigit():
        spec: Obj = pod.get("spec") or {}
        if owner is None:
            return (spec.get("hostname"), spec.get("subdomain")) == (name, workload)
        return bool(owner.get("uid") == sets[workload])
    return owner is not None and f"{owner['name']}-".startswith(f"{webapp_name(cluster)}-")


def lost_labels(want: Desired, obj: Obj) -> dict[str, str]:
    """Return the labels that a shard's Service, or a pod of a StatefulSet of ours, lacks, as they should be; nothing for other objects.

    Of a pod those by which its StatefulSet and the Services select it; what else is on it comes from the template.
    """
    cluster, name, wanted = want.key.name, str(obj["metadata"]["name"]), dict[str, str]()
    if obj["kind"] == "Service" and (shard := shard_of(name, cluster)) is not None:
        wanted = shard_service(want, shard)["metadata"]["labels"]
    elif obj["kind"] == "Pod" and (workload := name.rpartition("-")[0]) in {coreapp_name(cluster), simulator_name(cluster)}:
        wanted = _component(cluster, workload.removeprefix(f"{cluster}-"))
    live = obj["metadata"].get("labels") or {}
    return {key: value for key, value in wanted.items() if live.get(key) != value}


def _upstream_env(want: Desired) -> dict[str, Any]:
    return {"name": "WABIZ_UPSTREAM", "value": f"{simulator_name(want.key.name)}:{SIMULATOR_PORT}"}


# --- the objects -----------------------------------------------------------------------------------------------------


def admin_secret(want: Desired) -> dict[str, Any]:
    """Return the administrator's Secret without its password, which the shell draws."""
    return _object(want, "v1", "Secret", admin_secret_name(want), "webapp", type="Opaque")


def tls_secret(want: Desired) -> dict[str, Any]:
    """Return the Webapps' TLS Secret without its content, which the shell draws."""
    return _object(want, "v1", "Secret", tls_secret_name(want), "webapp", type="kubernetes.io/tls")


def secrets(want: Desired) -> tuple[dict[str, Any], ...]:
    """Return the Secrets that are generated once and never changed: those that the user does not bring."""
    admin = () if want.admin_secret else (admin_secret(want),)
    return (*admin, *(() if want.tls.secret_name else (tls_secret(want),)))


def _service(want: Desired, name: str, component: str, ports: Mapping[str, tuple[int, int]], **spec: Any) -> dict[str, Any]:
    return _object(
        want,
        "v1",
        "Service",
        name,
        component,
        spec={
            "ports": [{"name": port, "port": number, "targetPort": target, "protocol": "TCP"} for port, (number, target) in ports.items()],
            **spec,
        },
    )


def simulator(want: Desired) -> Iterator[dict[str, Any]]:
    """Yield the stand-in's upstream: its claim if one is wanted, its Service and its StatefulSet."""
    name = simulator_name(want.key.name)
    if want.storage is not None:
        yield _object(
            want,
            "v1",
            "PersistentVolumeClaim",
            name,
            "simulator",
            spec={"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": want.storage}}},
        )
    yield _service(
        want,
        name,
        "simulator",
        {"http": (SIMULATOR_PORT, SIMULATOR_PORT)},
        selector=_component(want.key.name, "simulator"),
        # Coreapps come up together with it and hold their connection through a readiness flap.
        publishNotReadyAddresses=True,
    )
    yield _simulator_set(want, name)


def _simulator_set(want: Desired, name: str) -> dict[str, Any]:
    account = want.account
    env = [
        *pods.own_env(want),
        {"name": "WABIZ_STATE_DIR", "value": STATE_FOLDER},
        {"name": "WABIZ_RESTART_SECONDS", "value": str(want.restart_seconds)},
    ]
    if account is not None:
        env += [{"name": "WABIZ_CC", "value": account.country_code}, {"name": "WABIZ_PHONE", "value": account.phone_number}]
        if account.registered_at is not None:
            env.append({"name": "WABIZ_REGISTERED_AT", "value": timestamp(account.registered_at)})
    volumes: list[Obj] = [
        {"name": "state", **({"emptyDir": {}} if want.storage is None else {"persistentVolumeClaim": {"claimName": name}})}
    ]
    mounts: list[Obj] = [{"name": "state", "mountPath": STATE_FOLDER}]
    if want.database is not None:
        env += pods.database_env(want.database.secret_name)
        if want.database.tls_secret_name is not None:
            env.append({"name": "WABIZ_DB_TLS_DIR", "value": DATABASE_TLS_FOLDER})
            # Readable by the group alone: PostgreSQL's library refuses a client key that others may read.
            volumes.append({"name": "database-tls", "secret": {"secretName": want.database.tls_secret_name, "defaultMode": 0o440}})
            mounts.append({"name": "database-tls", "mountPath": DATABASE_TLS_FOLDER, "readOnly": True})
    # Its restart interrupts every shard, and takes the state with it where that lies in the pod: then it is its user's choice when.
    is_lasting = want.storage is not None or want.database is not None
    labels = _component(want.key.name, "simulator")
    alive = {"httpGet": {"path": "/", "port": SIMULATOR_PORT, "scheme": "HTTP"}}
    container = {
        "name": "simulator",
        "image": want.image,
        "command": ["python", "-m", "wabiz_sim", "upstream"],
        "env": env,
        "ports": [{"name": "http", "containerPort": SIMULATOR_PORT, "protocol": "TCP"}],
        "readinessProbe": {**alive, "periodSeconds": 2},
        # The path is answered by the process alone. It listens only when its database has answered, for which it waits a minute and then
        # ends itself; so the start is given three.
        "startupProbe": {**alive, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 18},
        "livenessProbe": {**alive, **HUNG},
        "volumeMounts": mounts,
    }
    return marked(
        _object(
            want,
            "apps/v1",
            "StatefulSet",
            name,
            "simulator",
            spec={
                "serviceName": name,
                "replicas": 1,
                "updateStrategy": {"type": "RollingUpdate" if is_lasting else "OnDelete"},
                "selector": {"matchLabels": labels},
                "template": pods.template(want, labels, container, volumes),
            },
        )
    )


def coreapps(want: Desired, *, replicas: int | None) -> dict[str, Any]:
    """Return the Coreapps' StatefulSet; without ``replicas`` for upkeep, which must not touch the number (DESIGN law 4)."""
    name, labels = coreapp_name(want.key.name), _component(want.key.name, "coreapp")
    container = {
        "name": "coreapp",
        "image": want.images.coreapp if want.images else want.image,
        "command": ["python", "-m", "wabiz_sim", "coreapp"],
        "env": [*pods.own_env(want), _upstream_env(want), {"name": "WABIZ_STATE_DIR", "value": STATE_FOLDER}],
        "ports": [{"name": port, "containerPort": number, "protocol": "TCP"} for port, number in COREAPP_PORTS.items()],
        # No livenessProbe: the operator ends a Coreapp that hangs, after its shard was moved and never more of them than there are spares.
        # A kubelet would restart holders before that, and all Coreapps of a node at once.
        "readinessProbe": _coreapp_readiness(want),
        "volumeMounts": [{"name": "state", "mountPath": STATE_FOLDER}],
    }
    spec: dict[str, Any] = {
        "serviceName": name,
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "OnDelete"},
        # Neither role nor shard nor epoch: a re-created pod comes back as a standby.
        "selector": {"matchLabels": labels},
        "template": pods.template(
            want,
            labels,
            container,
            [{"name": "state", "emptyDir": {}}],
            extra_labels={ROLE_LABEL: "standby"},
            settings=want.coreapp_pod,
        ),
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return marked(_object(want, "apps/v1", "StatefulSet", name, "coreapp", spec=spec))


def webapps(want: Desired, *, replicas: int | None, is_first_boot: bool = False) -> dict[str, Any]:
    """Return the Webapps' Deployment; without ``replicas`` the number is left as it is. ``is_first_boot`` is noted on it."""
    name, labels = webapp_name(want.key.name), _component(want.key.name, "webapp")
    alive = {"httpGet": {"path": "/", "port": WEBAPP_PORT, "scheme": "HTTPS"}}
    container = {
        "name": "webapp",
        "image": want.images.webapp if want.images else want.image,
        "command": ["python", "-m", "wabiz_sim", "webapp"],
        "env": [
            *pods.own_env(want),
            _upstream_env(want),
            {"name": "WABIZ_TLS_DIR", "value": TLS_FOLDER},
            {"name": "WABIZ_SHARD_SERVICE", "value": shard_name(want.key.name, 0).removesuffix("0") + "{shard}"},
        ],
        "ports": [{"name": "https", "containerPort": WEBAPP_PORT, "protocol": "TCP"}],
        "readinessProbe": {**alive, "periodSeconds": 2},
        # The path is answered without asking the upstream, so that a fault of the database ends no Webapp.
        "livenessProbe": {**alive, **HUNG},
        "volumeMounts": [{"name": "tls", "mountPath": TLS_FOLDER, "readOnly": True}],
    }
    volumes = [{"name": "tls", "secret": {"secretName": tls_secret_name(want)}}]
    spec = {
        **({} if replicas is None else {"replicas": replicas}),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "selector": {"matchLabels": labels},
        "template": pods.template(want, labels, container, volumes, settings=want.webapp_pod),
    }
    return marked(
        _object(want, "apps/v1", "Deployment", name, "webapp", spec=spec), {FIRST_BOOT_ANNOTATION: "true"} if is_first_boot else None
    )


def webapp_service(want: Desired) -> dict[str, Any]:
    """Return the Service by which the Webapps are reached (API.md, ``webapp.service``)."""
    name = webapp_name(want.key.name)
    selector = _component(want.key.name, "webapp")
    service = _service(
        want,
        name,
        "webapp",
        {"https": (443, WEBAPP_PORT)},
        type=want.webapp_service.type,
        selector=selector,
        # Callers from elsewhere may have either family. The other Services stay with that of the pods' first address.
        ipFamilyPolicy="PreferDualStack",
    )
    return marked(service, want.webapp_service.annotations)


def webapp_disruption_budget(want: Desired) -> dict[str, Any]:
    """Return the budget over all Webapps: one at a time.

    Not by a minimum: with one Webapp that would block every drain for ever, and the number may be an autoscaler's. A Webapp that is not
    ready serves nobody, so it may always go; else one that never becomes ready would block a drain, too.
    """
    name = webapp_name(want.key.name)
    return _object(
        want,
        "policy/v1",
        "PodDisruptionBudget",
        name,
        "webapp",
        spec={
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": _component(want.key.name, "webapp")},
        },
    )


def disruption_budget(want: Desired, *, resharding: bool) -> dict[str, Any]:
    """Return the budget over all Coreapps: never by role, for a role moves and a budget must not follow it."""
    return _object(
        want,
        "policy/v1",
        "PodDisruptionBudget",
        coreapp_name(want.key.name),
        "coreapp",
        spec={
            "maxUnavailable": 0 if resharding else max(1, want.spares),
            "selector": {"matchLabels": _component(want.key.name, "coreapp")},
        },
    )


def network_policies(want: Desired) -> Iterator[dict[str, Any]]:
    """Yield who may connect to what (whatsapp-client.md section 2, "Segregation rule")."""
    name = want.key.name
    operator: dict[str, Any] = {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "whatsapp-operator"}},
    }

    def policy(policy_name: str, component: str, ports: Sequence[int], sources: Sequence[Obj] | None) -> dict[str, Any]:
        rule: dict[str, Any] = {"ports": [{"port": port, "protocol": "TCP"} for port in ports]}
        if sources is not None:
            rule["from"] = list(sources)
        return _object(
            want,
            "networking.k8s.io/v1",
            "NetworkPolicy",
            policy_name,
            component,
            spec={
                "podSelector": {"matchLabels": _component(name, component)},
                "policyTypes": ["Ingress"],
                "ingress": [rule],
            },
        )

    def pods(component: str) -> dict[str, Any]:
        return {"podSelector": {"matchLabels": _component(name, component)}}

    yield policy(coreapp_name(name), "coreapp", tuple(COREAPP_PORTS.values()), [pods("webapp"), pods("coreapp"), operator])
    yield policy(webapp_name(name), "webapp", (WEBAPP_PORT,), None)
    yield policy(simulator_name(name), "simulator", (SIMULATOR_PORT,), [pods("webapp"), pods("coreapp"), operator])


def upkeep(want: Desired, *, webapp_replicas: int | None, resharding: bool, is_first_boot: bool = False) -> tuple[dict[str, Any], ...]:
    """Return every object that is kept in shape, in the order in which they are created; the Coreapps without a number.

    ``webapp_replicas`` of None leaves the number of Webapps as it is; ``is_first_boot`` is noted on their Deployment.
    """
    name = want.key.name
    return (
        *network_policies(want),
        *simulator(want),
        _service(
            want,
            coreapp_name(name),
            "coreapp",
            {port: (number, number) for port, number in COREAPP_PORTS.items()},
            clusterIP="None",
            publishNotReadyAddresses=True,
            selector=_component(name, "coreapp"),
        ),
        webapp_service(want),
        disruption_budget(want, resharding=resharding),
        webapp_disruption_budget(want),
        coreapps(want, replicas=None),
        webapps(want, replicas=webapp_replicas, is_first_boot=is_first_boot),
    )


def shard_service(want: Desired, shard: int) -> dict[str, Any]:
    """Return a new shard's Service: it leads nowhere until a handover commits (DESIGN law 2)."""
    service = _service(
        want,
        shard_name(want.key.name, shard),
        "coreapp",
        {"messaging": (MESSAGING_PORT, MESSAGING_PORT), "contacts": (CONTACTS_PORT, CONTACTS_PORT)},
        selector={CLUSTER_LABEL: want.key.name, SHARD_LABEL: str(shard), EPOCH_LABEL: NO_EPOCH},
        # A shard has one holder, so only a claim moves its traffic, never a readiness flap (DESIGN section 2).
        publishNotReadyAddresses=True,
    )
    service["metadata"]["labels"][SHARD_LABEL] = str(shard)
    return service


# --- reading shard Services, and the patches of a handover --------------------------------------------------------------


POD_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def shard_of(name: str, cluster: str) -> int | None:
    """Return the shard whose Service has this name, or None: it is no name of a shard's Service of the cluster."""
    number = name[len(shard_name(cluster, 0)) - 1 :]
    shard = int(number) if len(number) <= 2 and number.isascii() and number.isdigit() else None
    return shard if shard is not None and name == shard_name(cluster, shard) else None


def route_of(service: Obj, cluster: str, cluster_uid: str) -> Route | None:
    """Return the route that a Service of this cluster is, or None if it is no shard's Service.

    The name alone says which shard it is: a copy under another name carries the same labels, annotations and owner.
    """
    meta = service["metadata"]
    shard = shard_of(meta["name"], cluster)
    if shard is None:
        return None
    notes: Mapping[str, str] = meta.get("annotations") or {}
    epoch = Epoch.parse((service["spec"].get("selector") or {}).get(EPOCH_LABEL))
    holder, _, holder_uid = notes.get(HOLDER_ANNOTATION, "").partition("/")
    if not POD_NAME.fullmatch(holder):
        # Damaged: no pod can be named so. The shard gets a holder under a new epoch, as if none were named.
        holder = holder_uid = ""
    committed = notes.get(COMMITTED_ANNOTATION)
    kind, _, evidence = notes.get(EVIDENCE_ANNOTATION, "").partition("/")
    return Route(
        shard=shard,
        name=meta["name"],
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        epoch=str(epoch) if epoch else None,
        holder=holder if epoch and holder else None,
        holder_uid=holder_uid if epoch and holder_uid else None,
        previous=notes.get(PREVIOUS_ANNOTATION) or None,
        evidence=evidence or None,
        planned=kind == "Switchover",
        committed_at=moment(committed) if committed else None,
        foreign=not is_owned(service, cluster_uid),
    )


def _coreapp_readiness(want: Desired) -> dict[str, Any]:
    """Return how kubelets ask a Coreapp: as the operator does, so that they are a second witness of a process that hangs.

    A TCP probe cannot see that, for the kernel answers it.
    """
    how: dict[str, Any] = {"tcpSocket": {"port": HEALTHCHECK_PORT}}
    if want.probe.kind == "HTTP":
        how = {"httpGet": {"path": want.probe.path, "port": HEALTHCHECK_PORT, "scheme": "HTTP"}, "timeoutSeconds": 2}
    return {**how, "periodSeconds": 1, "failureThreshold": 2}


def _pointer(label: str) -> str:
    return "/metadata/labels/" + label.replace("~", "~0").replace("/", "~1")


def _test(coreapp: Coreapp) -> list[dict[str, Any]]:
    # A test against null passes for an absent label (python-clients.md, lightkube).
    return [
        {"op": "test", "path": "/metadata/uid", "value": coreapp.uid},
        {"op": "test", "path": _pointer(EPOCH_LABEL), "value": coreapp.epoch_label},
    ]


def label_patch(coreapp: Coreapp, shard: int, epoch: str) -> list[dict[str, Any]]:
    """Return the JSON patch that prepares a pod: it takes effect only on this very pod with the label as it was read."""
    labels = {ROLE_LABEL: "active", SHARD_LABEL: str(shard), EPOCH_LABEL: epoch}
    return [*_test(coreapp), *({"op": "add", "path": _pointer(label), "value": value} for label, value in labels.items())]


def strip_patch(coreapp: Coreapp) -> list[dict[str, Any]]:
    """Return the JSON patch that makes a pod a standby again."""
    return [
        *_test(coreapp),
        *({"op": "remove", "path": _pointer(label)} for label in (SHARD_LABEL, EPOCH_LABEL) if label in coreapp.labels),
        {"op": "add", "path": _pointer(ROLE_LABEL), "value": "standby"},
    ]


def commit_patch(key: Key, handover: Handover, at: datetime) -> dict[str, Any]:
    """Return the merge patch that is the handover: selector and holder, by the resourceVersion that gave the epoch its n."""
    route, pod = handover.route, handover.to
    return {
        "metadata": {
            "resourceVersion": str(route.version),
            "annotations": {
                HOLDER_ANNOTATION: f"{pod.name}/{pod.uid}",
                PREVIOUS_ANNOTATION: route.holder,
                EVIDENCE_ANNOTATION: f"{'Switchover' if handover.planned else 'Failover'}/{handover.evidence}" if route.holder else None,
                COMMITTED_ANNOTATION: timestamp(at, milliseconds=True),
                TOUCHED_ANNOTATION: None,
            },
        },
        "spec": {"selector": {CLUSTER_LABEL: key.name, SHARD_LABEL: str(route.shard), EPOCH_LABEL: str(handover.epoch)}},
    }


def touch_patch(route: Route, nonce: str) -> dict[str, Any]:
    """Return the merge patch that moves a Service's resourceVersion and nothing else."""
    return {"metadata": {"resourceVersion": str(route.version), "annotations": {TOUCHED_ANNOTATION: nonce}}}


def labels_patch(action: Label) -> dict[str, Any]:
    """Return the merge patch that gives an object its labels again, and changes nothing else."""
    return {"metadata": {"resourceVersion": action.resource_version, "labels": dict(action.labels)}}


def anchor_patch(anchor: Anchor) -> dict[str, Any]:
    """Return the merge patch that moves the StatefulSet's resourceVersion and nothing else."""
    note = {ANCHOR_ANNOTATION: f"{anchor.shards}-{anchor.nonce}"}
    return {"metadata": {"resourceVersion": anchor.resource_version, "annotations": note}}


# --- times as Kubernetes spells them ---------------------------------------------------------------------------------


def timestamp(at: datetime, *, milliseconds: bool = False) -> str:
    """Spell an aware time as RFC 3339 in UTC."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds" if milliseconds else "seconds").replace("+00:00", "Z")


def moment(text: str) -> datetime | None:
    """Read an RFC 3339 time, in UTC; None if it is none, or none that can be reckoned with."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return sane(at)


def sane(at: datetime) -> datetime | None:
    """Return a time in UTC; None if it has no time zone, or is so far away that adding to it could leave the calendar."""
    if at.tzinfo is None:
        return None
    try:
        at = at.astimezone(UTC)
    except OverflowError:
        return None
    return at if EARLIEST <= at < LATEST else None
