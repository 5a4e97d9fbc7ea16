"""Names, labels, ports and owners of a cluster's objects, and the format of times."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from whatsapp_operator.core.desired import Desired
from whatsapp_operator.core.names import Key, Obj, Ref

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

RETIRING: Final = "retiring"
"""The role of a standby that is about to go because the StatefulSet shrinks."""
NO_EPOCH: Final = "none"
"""Selector value that no pod has: a route without a target."""

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
"""Ports of a Coreapp (client#ports)."""
WEBAPP_PORT: Final = 8443
"""Where the simulator's Webapp listens; its Service says 443."""
SIMULATOR_PORT: Final = 8080
STATE_FOLDER: Final = "/var/lib/wabiz"
TLS_FOLDER: Final = "/etc/wabiz/tls"
DATABASE_TLS_FOLDER: Final = "/etc/wabiz/db-tls"

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(3000, 1, 1, tzinfo=UTC)
"""Times that others write count only if they are between these two."""

FIRST_WEBAPPS: Final = 2
"""Initial number of Webapps if the spec has none; later an autoscaler or a person decides."""

HUNG: Final[Mapping[str, Any]] = {"periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6}
"""After a minute without an answer a container is restarted. The probed path must not depend on the database or on other pods: otherwise a
fault of one of those would end all containers at once."""


# --- names -----------------------------------------------------------------------------------------------------------
# Every name is the cluster's and a suffix. No suffix of a kind ends in another one of that kind, so names of two clusters never collide.

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
    """Return the name of the simulator's StatefulSet and Service."""
    return f"{name}-simulator"


def shard_name(name: str, shard: int) -> str:
    """Return the name of a shard's Service."""
    return f"{name}-shard-{shard}"


def service_names(name: str, shards: int) -> tuple[str, ...]:
    """Return the names of all Services of a cluster with this many shards."""
    return coreapp_name(name), webapp_name(name), simulator_name(name), *(shard_name(name, shard) for shard in range(shards))


def admin_secret_name(desired: Desired) -> str:
    """Return the name of the Secret with the administrator's password: the user's, or the generated one."""
    return desired.admin_secret or f"{desired.key.name}-admin"


def tls_secret_name(desired: Desired) -> str:
    """Return the name of the Secret with the Webapps' certificate: the user's, or the generated one."""
    return desired.tls.secret_name or f"{desired.key.name}-webapp-tls"


def webapp_host(key: Key) -> str:
    """Return the name under which the Webapps' Service is reached."""
    return f"{webapp_name(key.name)}.{key.namespace}.svc"


def server_name(desired: Desired) -> str:
    """Return the name that the Webapps' certificate carries (field ``webapp.tls.serverName``)."""
    return desired.tls.server_name or webapp_host(desired.key)


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
    """Return the names that earlier releases gave, and what replaces them. Another cluster may need such a name."""
    return {Ref("NetworkPolicy", name): Ref("NetworkPolicy", coreapp_name(name))}


# --- what all objects share ------------------------------------------------------------------------------------------


def cluster_labels(name: str) -> dict[str, str]:
    """Return the label that every object of a cluster carries, to select by."""
    return {CLUSTER_LABEL: name}


def component_labels(name: str, component: str) -> dict[str, str]:
    """Return the labels by which the pods of one component of a cluster are selected."""
    return {CLUSTER_LABEL: name, COMPONENT_LABEL: component}


def object_labels(name: str, component: str) -> dict[str, str]:
    """Return the labels of an object of one component of a cluster."""
    return {
        "app.kubernetes.io/name": "whatsapp-business-api",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/managed-by": "whatsapp-operator",
        **component_labels(name, component),
    }


def owned_object(desired: Desired, api_version: str, kind: str, name: str, component: str, **body: Any) -> dict[str, Any]:
    """Return an object with this name, the labels of its component and the cluster as its owner; ``body``: what it has besides metadata."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": desired.key.namespace,
            "labels": object_labels(desired.key.name, component),
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "WhatsAppCluster",
                    "name": desired.key.name,
                    "uid": desired.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        **body,
    }


def is_owned(obj: Obj, uid: str) -> bool:
    """Return whether the cluster with this uid owns the object. Name and owner make it the cluster's own; labels do not matter."""
    return any(owner.get("uid") == uid for owner in obj["metadata"].get("ownerReferences") or ())


def controller_of(obj: Obj) -> Obj | None:
    """Return the owner reference of the controller of an object, or None."""
    return next((owner for owner in obj["metadata"].get("ownerReferences") or () if owner.get("controller")), None)


def cluster_of(obj: Obj) -> str | None:
    """Return the name of the cluster to which a pod, Service or StatefulSet of an event belongs; None: it is a foreign object.

    The label alone is not enough: name and owner must match too. The observation checks whether the owner is the current cluster.
    """
    meta: Obj = obj.get("metadata") or {}
    cluster, owner = str((meta.get("labels") or {}).get(CLUSTER_LABEL, "")), controller_of({"metadata": meta})
    if owner is None or not CLUSTER_NAME.fullmatch(cluster):
        return None
    is_named = _suffix(str(meta.get("name")), cluster) is not None
    is_made = owner["name"] == cluster or _suffix(owner["name"], cluster) is not None
    return cluster if is_named and is_made else None


def _suffix(name: str, cluster: str) -> str | None:
    """Return the suffix after the cluster's name in the name of an own object; None for any other name."""
    prefix, suffix = f"{cluster}-", name[len(cluster) + 1 :]
    return suffix if name.startswith(prefix) and SUFFIX.fullmatch(suffix) else None


def owns(manager: Any, *path: str) -> bool:
    """Return whether an entry of managedFields names a field; ``path``: its keys, as the API server spells them."""
    fields = manager.get("fieldsV1") if isinstance(manager, Mapping) else None
    for key in path:
        if not isinstance(fields, Mapping) or key not in fields:
            return False
        fields = fields[key]
    return True


def request_appliers(managers: Iterable[Any]) -> list[dict[str, Any]]:
    """Return those entries of managedFields that apply a switchover as a part of their manifest: each sets it again once it is removed."""
    path = ("f:metadata", "f:annotations", f"f:{SWITCHOVER_ANNOTATION}")
    found = (one for one in managers if owns(one, *path) and one.get("operation") == "Apply")
    fields: dict[str, Any] = {path[0]: {path[1]: {path[2]: {}}}}
    return [{"manager": str(one.get("manager") or ""), "operation": "Apply", "fieldsV1": fields} for one in found]


def is_pod_of(pod: Obj, cluster: str, sets: Mapping[str, str]) -> bool:
    """Return whether a pod is one of a cluster; ``sets`` are the uids of its StatefulSets, by name.

    A StatefulSet releases a pod that lost a label of its selector. Such a pod has no controller; its host name and subdomain show where it
    comes from. A Webapp's controller is a ReplicaSet, which is known by its name.
    """
    name, owner = str(pod["metadata"]["name"]), controller_of(pod)
    workload, _, ordinal = name.rpartition("-")
    if workload in sets and ordinal.isascii() and ordinal.isdigit():
        spec: Obj = pod.get("spec") or {}
        if owner is None:
            return (spec.get("hostname"), spec.get("subdomain")) == (name, workload)
        return bool(owner.get("uid") == sets[workload])
    return owner is not None and f"{owner['name']}-".startswith(f"{webapp_name(cluster)}-")


def upstream_env(desired: Desired) -> dict[str, Any]:
    """Return the environment by which a container of the simulator finds its upstream."""
    return {"name": "WABIZ_UPSTREAM", "value": f"{simulator_name(desired.key.name)}:{SIMULATOR_PORT}"}


def service_of(desired: Desired, name: str, component: str, ports: Mapping[str, tuple[int, int]], **spec: Any) -> dict[str, Any]:
    """Return a Service of a component; ``ports``: by name the port and the port of the pods.

    Its type is set although it is the default, because with another one, above all ``ExternalName``, it would lead elsewhere.
    """
    return owned_object(
        desired,
        "v1",
        "Service",
        name,
        component,
        spec={
            "type": "ClusterIP",
            "ports": [{"name": port, "port": number, "targetPort": target, "protocol": "TCP"} for port, (number, target) in ports.items()],
            **spec,
        },
    )


# --- reading shard Services, and the patches of a handover --------------------------------------------------------------


POD_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
EVIDENCE = re.compile("[A-Za-z]{1,64}")
"""A word for evidence, also one of another release."""


def shard_of(name: str, cluster: str) -> int | None:
    """Return the shard whose Service has this name, or None: it is no name of a shard's Service of the cluster."""
    number = name.rpartition("-")[2]
    if len(number) > 2 or not number.isdecimal() or name != shard_name(cluster, int(number)):
        return None
    return int(number)


# --- times as Kubernetes spells them ---------------------------------------------------------------------------------


def timestamp(at: datetime) -> str:
    """Spell an aware time as RFC 3339 in UTC, in whole seconds."""
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def exact_timestamp(at: datetime) -> str:
    """Spell an aware time as RFC 3339 in UTC, with milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(text: str) -> datetime | None:
    """Read an RFC 3339 time, in UTC; None if it is not one, or cannot be calculated with."""
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
