"""The desired state as Kubernetes objects: Coreapps, Webapps, their Services, budgets and policies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from whatsapp_operator.core.desired import Desired
from whatsapp_operator.core.names import Obj
from whatsapp_operator.core.upkeep import marked

from . import pods
from .common import (
    CLUSTER_LABEL,
    CONTACTS_PORT,
    COREAPP_PORTS,
    EPOCH_LABEL,
    FIRST_BOOT_ANNOTATION,
    HEALTHCHECK_PORT,
    HUNG,
    MESSAGING_PORT,
    NO_EPOCH,
    ROLE_LABEL,
    SHARD_LABEL,
    SIMULATOR_PORT,
    STATE_FOLDER,
    TLS_FOLDER,
    WEBAPP_PORT,
    admin_secret_name,
    component_labels,
    coreapp_name,
    object_labels,
    owned_object,
    service_of,
    shard_name,
    shard_of,
    simulator_name,
    tls_secret_name,
    upstream_env,
    webapp_name,
)
from .simulator import simulator


def lost_labels(desired: Desired, obj: Obj) -> dict[str, str]:
    """Return the labels that a shard's Service, or a pod of an own StatefulSet, lacks; nothing for other objects.

    Of a pod those by which its StatefulSet and the Services select it; what else is on it comes from the template.
    """
    cluster, name, wanted = desired.key.name, str(obj["metadata"]["name"]), dict[str, str]()
    if obj["kind"] == "Service" and (shard := shard_of(name, cluster)) is not None:
        wanted = _shard_labels(cluster, shard)
    elif obj["kind"] == "Pod" and (workload := name.rpartition("-")[0]) in {coreapp_name(cluster), simulator_name(cluster)}:
        wanted = component_labels(cluster, workload.removeprefix(f"{cluster}-"))
    live = obj["metadata"].get("labels") or {}
    return {key: value for key, value in wanted.items() if live.get(key) != value}


# --- the objects -----------------------------------------------------------------------------------------------------


def admin_secret(desired: Desired) -> dict[str, Any]:
    """Return the administrator's Secret without its password, which the shell generates."""
    return owned_object(desired, "v1", "Secret", admin_secret_name(desired), "webapp", type="Opaque")


def tls_secret(desired: Desired) -> dict[str, Any]:
    """Return the Webapps' TLS Secret without its content, which the shell generates."""
    return owned_object(desired, "v1", "Secret", tls_secret_name(desired), "webapp", type="kubernetes.io/tls")


def secrets(desired: Desired) -> tuple[dict[str, Any], ...]:
    """Return the Secrets that are generated once and never changed: those that the user does not bring."""
    admin = () if desired.admin_secret else (admin_secret(desired),)
    return (*admin, *(() if desired.tls.secret_name else (tls_secret(desired),)))


def coreapps(desired: Desired, *, replicas: int | None) -> dict[str, Any]:
    """Return the Coreapps' StatefulSet; without ``replicas`` for upkeep, which must not touch the number (laws#4)."""
    name, labels = coreapp_name(desired.key.name), component_labels(desired.key.name, "coreapp")
    container = {
        "name": "coreapp",
        "image": desired.images.coreapp if desired.images else desired.image,
        "command": ["python", "-m", "wabiz_sim", "coreapp"],
        "env": [*pods.own_env(desired), upstream_env(desired), {"name": "WABIZ_STATE_DIR", "value": STATE_FOLDER}],
        "ports": [{"name": port, "containerPort": number, "protocol": "TCP"} for port, number in COREAPP_PORTS.items()],
        # No livenessProbe: the operator ends a hung Coreapp after its shard was moved, and never more at a time than there are spares.
        # A kubelet would restart holders before that, and all Coreapps of a node at once.
        "readinessProbe": _coreapp_readiness(desired),
        "volumeMounts": [{"name": "state", "mountPath": STATE_FOLDER}],
    }
    spec: dict[str, Any] = {
        "serviceName": name,
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "OnDelete"},
        # Neither role nor shard nor epoch: a re-created pod comes back as a standby.
        "selector": {"matchLabels": labels},
        "template": pods.template(
            desired,
            labels,
            container,
            [{"name": "state", "emptyDir": {}}],
            extra_labels={ROLE_LABEL: "standby"},
            settings=desired.coreapp_pod,
        ),
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return marked(owned_object(desired, "apps/v1", "StatefulSet", name, "coreapp", spec=spec))


def webapps(desired: Desired, *, replicas: int | None, is_first_boot: bool) -> dict[str, Any]:
    """Return the Webapps' Deployment; without ``replicas`` the number is left as it is. ``is_first_boot`` is noted on it."""
    name, labels = webapp_name(desired.key.name), component_labels(desired.key.name, "webapp")
    alive = {"httpGet": {"path": "/", "port": WEBAPP_PORT, "scheme": "HTTPS"}}
    container = {
        "name": "webapp",
        "image": desired.images.webapp if desired.images else desired.image,
        "command": ["python", "-m", "wabiz_sim", "webapp"],
        "env": [
            *pods.own_env(desired),
            upstream_env(desired),
            {"name": "WABIZ_TLS_DIR", "value": TLS_FOLDER},
            {"name": "WABIZ_SHARD_SERVICE", "value": shard_name(desired.key.name, 0).removesuffix("0") + "{shard}"},
        ],
        "ports": [{"name": "https", "containerPort": WEBAPP_PORT, "protocol": "TCP"}],
        "readinessProbe": {**alive, "periodSeconds": 2},
        # The path is answered without asking the upstream, so that a fault of the database ends no Webapp.
        "livenessProbe": {**alive, **HUNG},
        "volumeMounts": [{"name": "tls", "mountPath": TLS_FOLDER, "readOnly": True}],
    }
    volumes = [{"name": "tls", "secret": {"secretName": tls_secret_name(desired)}}]
    spec = {
        **({} if replicas is None else {"replicas": replicas}),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "selector": {"matchLabels": labels},
        "template": pods.template(desired, labels, container, volumes, settings=desired.webapp_pod),
    }
    return marked(
        owned_object(desired, "apps/v1", "Deployment", name, "webapp", spec=spec),
        {FIRST_BOOT_ANNOTATION: "true"} if is_first_boot else None,
    )


def webapp_service(desired: Desired) -> dict[str, Any]:
    """Return the Service through which the Webapps are reached (field ``webapp.service``)."""
    name = webapp_name(desired.key.name)
    selector = component_labels(desired.key.name, "webapp")
    service = service_of(
        desired,
        name,
        "webapp",
        {"https": (443, WEBAPP_PORT)},
        type=desired.webapp_service.type,
        selector=selector,
        # Callers from elsewhere may have either family. The other Services stay with that of the pods' first address.
        ipFamilyPolicy="PreferDualStack",
    )
    return marked(service, desired.webapp_service.annotations)


def webapp_disruption_budget(desired: Desired) -> dict[str, Any]:
    """Return the budget over all Webapps: one at a time.

    It has no minimum: with one Webapp that would block every drain, and the number may be an autoscaler's. A Webapp that is not ready
    serves nothing, so it may always be evicted; otherwise one that never becomes ready would block a drain too.
    """
    name = webapp_name(desired.key.name)
    return owned_object(
        desired,
        "policy/v1",
        "PodDisruptionBudget",
        name,
        "webapp",
        spec={
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": component_labels(desired.key.name, "webapp")},
        },
    )


def disruption_budget(desired: Desired, *, resharding: bool, is_unused: bool) -> dict[str, Any]:
    """Return the budget over all Coreapps: never by role, because roles move and a budget must not follow them.

    A Coreapp that is not ready may be about to come back from a restart, or serve nevertheless. But in a cluster that has never served
    (``is_unused``) it may always be evicted: otherwise Coreapps that never become ready would block the drain of a node without an end.
    """
    return owned_object(
        desired,
        "policy/v1",
        "PodDisruptionBudget",
        coreapp_name(desired.key.name),
        "coreapp",
        spec={
            "maxUnavailable": 0 if resharding else max(1, desired.spares),
            "unhealthyPodEvictionPolicy": "AlwaysAllow" if is_unused else "IfHealthyBudget",
            "selector": {"matchLabels": component_labels(desired.key.name, "coreapp")},
        },
    )


def network_policies(desired: Desired) -> Iterator[dict[str, Any]]:
    """Yield who may connect to what (client#ports)."""
    name = desired.key.name
    operator: dict[str, Any] = {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "whatsapp-operator"}},
    }

    def policy(policy_name: str, component: str, ports: Sequence[int], sources: Sequence[Obj] | None) -> dict[str, Any]:
        rule: dict[str, Any] = {"ports": [{"port": port, "protocol": "TCP"} for port in ports]}
        if sources is not None:
            rule["from"] = list(sources)
        return owned_object(
            desired,
            "networking.k8s.io/v1",
            "NetworkPolicy",
            policy_name,
            component,
            spec={
                "podSelector": {"matchLabels": component_labels(name, component)},
                "policyTypes": ["Ingress"],
                "ingress": [rule],
            },
        )

    def pods(component: str) -> dict[str, Any]:
        return {"podSelector": {"matchLabels": component_labels(name, component)}}

    yield policy(coreapp_name(name), "coreapp", tuple(COREAPP_PORTS.values()), [pods("webapp"), pods("coreapp"), operator])
    yield policy(webapp_name(name), "webapp", (WEBAPP_PORT,), None)
    yield policy(simulator_name(name), "simulator", (SIMULATOR_PORT,), [pods("webapp"), pods("coreapp"), operator])


def upkeep(
    desired: Desired, *, webapp_replicas: int | None, resharding: bool, is_first_boot: bool, is_unused: bool
) -> tuple[dict[str, Any], ...]:
    """Return every object that is maintained, in the order of their creation; the Coreapps without a number.

    ``webapp_replicas`` of None leaves the number of Webapps as it is; ``is_first_boot`` is noted on their Deployment. ``is_unused``: no
    shard has had a holder yet.
    """
    name = desired.key.name
    return (
        *network_policies(desired),
        *simulator(desired),
        service_of(
            desired,
            coreapp_name(name),
            "coreapp",
            {port: (number, number) for port, number in COREAPP_PORTS.items()},
            clusterIP="None",
            publishNotReadyAddresses=True,
            selector=component_labels(name, "coreapp"),
        ),
        webapp_service(desired),
        disruption_budget(desired, resharding=resharding, is_unused=is_unused),
        webapp_disruption_budget(desired),
        coreapps(desired, replicas=None),
        webapps(desired, replicas=webapp_replicas, is_first_boot=is_first_boot),
    )


def shard_service(desired: Desired, shard: int, epoch: str = NO_EPOCH) -> dict[str, Any]:
    """Return a shard's Service under an epoch. A new one selects nothing until a handover commits (laws#2)."""
    service = service_of(
        desired,
        shard_name(desired.key.name, shard),
        "coreapp",
        {"messaging": (MESSAGING_PORT, MESSAGING_PORT), "contacts": (CONTACTS_PORT, CONTACTS_PORT)},
        selector={CLUSTER_LABEL: desired.key.name, SHARD_LABEL: str(shard), EPOCH_LABEL: epoch},
        # A shard has one holder, so only a claim moves its traffic, never a change of readiness (docs/architecture.md).
        publishNotReadyAddresses=True,
        # Webapps on all nodes send to the one holder.
        internalTrafficPolicy="Cluster",
    )
    service["metadata"]["labels"][SHARD_LABEL] = str(shard)
    return service


def _shard_labels(cluster: str, shard: int) -> dict[str, str]:
    return {**object_labels(cluster, "coreapp"), SHARD_LABEL: str(shard)}


def _coreapp_readiness(desired: Desired) -> dict[str, Any]:
    """Return the kubelets' probe of a Coreapp: the same as the operator's, so that they are a second source about a process that hangs.

    A TCP probe does not detect that, because the kernel answers it.
    """
    how: dict[str, Any] = {"tcpSocket": {"port": HEALTHCHECK_PORT}}
    if desired.probe.kind == "HTTP":
        how = {"httpGet": {"path": desired.probe.path, "port": HEALTHCHECK_PORT, "scheme": "HTTP"}, "timeoutSeconds": 2}
    return {**how, "periodSeconds": 1, "failureThreshold": 2}
