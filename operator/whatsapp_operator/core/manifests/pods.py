"""Pod templates: what all pods of a cluster have, and what its user adds to them (fields ``coreapp.pod`` and ``webapp.pod``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from whatsapp_operator.core.desired import Desired, PodSettings
from whatsapp_operator.core.names import Obj

REQUESTS: Final[Mapping[str, str]] = {"cpu": "50m", "memory": "64Mi"}
"""Default resources of a container of the simulator, which was observed to use 47 MiB of resident memory."""


def template(
    desired: Desired,
    labels: Mapping[str, str],
    container: Mapping[str, Any],
    volumes: Sequence[Obj],
    *,
    extra_labels: Mapping[str, str] | None = None,
    settings: PodSettings | None = None,
) -> dict[str, Any]:
    """Return the template of a pod with one container.

    ``labels`` select the pods of this kind, ``extra_labels`` come on top. ``settings`` are the user's: they add, and never take away what
    the operator itself needs.
    """
    added = settings or PodSettings()
    spread = [{**rule, "labelSelector": rule.get("labelSelector") or {"matchLabels": dict(labels)}} for rule in added.spread or ()]
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": _apart(labels) if added.affinity is None else added.affinity,
        "topologySpreadConstraints": _everywhere(labels) if added.spread is None else spread,
        "containers": [_container(container, added)],
        "volumes": list(volumes),
    }
    if desired.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in desired.pull_secrets]
    if added.node_selector:
        spec["nodeSelector"] = dict(added.node_selector)
    if added.tolerations:
        spec["tolerations"] = list(added.tolerations)
    if added.priority_class:
        spec["priorityClassName"] = added.priority_class
    meta: dict[str, Any] = {
        "labels": {
            **added.labels,
            "app.kubernetes.io/name": "whatsapp-business-api",
            "app.kubernetes.io/instance": desired.key.name,
            "app.kubernetes.io/managed-by": "whatsapp-operator",
            **labels,
            **(extra_labels or {}),
        }
    }
    if added.annotations:
        meta["annotations"] = dict(added.annotations)
    return {"metadata": meta, "spec": spec}


def _apart(labels: Mapping[str, str]) -> dict[str, Any]:
    """Pods of one kind prefer different nodes."""
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": dict(labels)}}
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}}


def _everywhere(labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Pods of one kind are spread over zones and over nodes where possible."""
    return [
        {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": dict(labels)}}
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]


def _container(container: Mapping[str, Any], added: PodSettings) -> dict[str, Any]:
    env: list[Obj] = [*container.get("env", ())]
    given = {one["name"] for one in env}
    return {
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        **container,
        # The operator's come first, so that the user's may refer to them and cannot override them.
        "env": [*env, *(one for one in added.env if one["name"] not in given)],
        "resources": _resources(added),
    }


def _resources(added: PodSettings) -> dict[str, Any]:
    """Return the resources of the container: the user's amounts, and defaults for what the user neither requests nor limits."""
    asked: Mapping[str, Any] = added.resources.get("requests") or {}
    limits: Mapping[str, Any] = added.resources.get("limits") or {}
    requests = {key: amount for key, amount in REQUESTS.items() if key not in limits} | dict(asked)
    return ({"requests": requests} if requests else {}) | ({"limits": dict(limits)} if limits else {})


# --- environment ------------------------------------------------------------------------------------------------------


def _field(path: str) -> dict[str, Any]:
    return {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}


def own_env(desired: Desired) -> list[dict[str, Any]]:
    """Return the environment that describes the container's own pod."""
    return [
        {"name": "POD_NAME", "valueFrom": _field("metadata.name")},
        {"name": "POD_UID", "valueFrom": _field("metadata.uid")},
        {"name": "POD_IP", "valueFrom": _field("status.podIP")},
        {"name": "NODE_NAME", "valueFrom": _field("spec.nodeName")},
        {"name": "WABIZ_CLUSTER", "value": desired.key.name},
    ]


DATABASE_KEYS: Final[Mapping[str, bool]] = {
    "WA_DB_ENGINE": True,
    "WA_DB_HOSTNAME": True,
    "WA_DB_PORT": True,
    "WA_DB_USERNAME": True,
    "WA_DB_PASSWORD": True,
    "WA_DB_NAME_PREFIX": False,
    "WA_DB_PERSISTENT": False,
    "WA_DB_CONNECTION_IDLE_TIMEOUT": False,
}
"""Keys of the database's Secret, by the names of the client's environment; and whether each must be there (field ``database``)."""


def database_env(secret: str) -> list[dict[str, Any]]:
    """Return the environment that leads to the database that a Secret names."""
    return [
        {
            "name": key,
            "valueFrom": {"secretKeyRef": {"name": secret, "key": key} | ({} if is_needed else {"optional": True})},
        }
        for key, is_needed in DATABASE_KEYS.items()
    ]
