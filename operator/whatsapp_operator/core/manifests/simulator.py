"""The desired state as Kubernetes objects: the simulator's side of the WhatsApp servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from whatsapp_operator.core.desired import Desired
from whatsapp_operator.core.names import Obj
from whatsapp_operator.core.upkeep import marked

from . import pods
from .common import (
    DATABASE_TLS_FOLDER,
    HUNG,
    SIMULATOR_PORT,
    STATE_FOLDER,
    component_labels,
    owned_object,
    service_of,
    simulator_name,
    timestamp,
)


def simulator(desired: Desired) -> Iterator[dict[str, Any]]:
    """Yield the simulator's upstream: its claim if one is wanted, its Service and its StatefulSet."""
    name = simulator_name(desired.key.name)
    if desired.storage is not None:
        yield owned_object(
            desired,
            "v1",
            "PersistentVolumeClaim",
            name,
            "simulator",
            spec={"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": desired.storage}}},
        )
    yield service_of(
        desired,
        name,
        "simulator",
        {"http": (SIMULATOR_PORT, SIMULATOR_PORT)},
        selector=component_labels(desired.key.name, "simulator"),
        # Coreapps start together with it, and keep their connection when its readiness changes.
        publishNotReadyAddresses=True,
    )
    yield _simulator_set(desired, name)


def _simulator_set(desired: Desired, name: str) -> dict[str, Any]:
    account = desired.account
    env = [
        *pods.own_env(desired),
        {"name": "WABIZ_STATE_DIR", "value": STATE_FOLDER},
        {"name": "WABIZ_RESTART_SECONDS", "value": str(desired.restart_seconds)},
    ]
    if account is not None:
        env += [{"name": "WABIZ_CC", "value": account.country_code}, {"name": "WABIZ_PHONE", "value": account.phone_number}]
        if account.registered_at is not None:
            env.append({"name": "WABIZ_REGISTERED_AT", "value": timestamp(account.registered_at)})
    volumes: list[Obj] = [
        {"name": "state", **({"emptyDir": {}} if desired.storage is None else {"persistentVolumeClaim": {"claimName": name}})}
    ]
    mounts: list[Obj] = [{"name": "state", "mountPath": STATE_FOLDER}]
    if desired.database is not None:
        env += pods.database_env(desired.database.secret_name)
        if desired.database.tls_secret_name is not None:
            env.append({"name": "WABIZ_DB_TLS_DIR", "value": DATABASE_TLS_FOLDER})
            # Readable by the group only: PostgreSQL's library rejects a client key that others may read.
            volumes.append({"name": "database-tls", "secret": {"secretName": desired.database.tls_secret_name, "defaultMode": 0o440}})
            mounts.append({"name": "database-tls", "mountPath": DATABASE_TLS_FOLDER, "readOnly": True})
    # Its restart interrupts every shard, and loses the state if that is in the pod. In that case the user chooses when.
    is_lasting = desired.storage is not None or desired.database is not None
    labels = component_labels(desired.key.name, "simulator")
    alive = {"httpGet": {"path": "/", "port": SIMULATOR_PORT, "scheme": "HTTP"}}
    container = {
        "name": "simulator",
        "image": desired.image,
        "command": ["python", "-m", "wabiz_sim", "upstream"],
        "env": env,
        "ports": [{"name": "http", "containerPort": SIMULATOR_PORT, "protocol": "TCP"}],
        "readinessProbe": {**alive, "periodSeconds": 2},
        # The process alone answers this path. It listens only once its database has answered; it waits a minute for that and then ends
        # itself, so the start gets three.
        "startupProbe": {**alive, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 18},
        "livenessProbe": {**alive, **HUNG},
        "volumeMounts": mounts,
    }
    return marked(
        owned_object(
            desired,
            "apps/v1",
            "StatefulSet",
            name,
            "simulator",
            spec={
                "serviceName": name,
                "replicas": 1,
                "updateStrategy": {"type": "RollingUpdate" if is_lasting else "OnDelete"},
                "selector": {"matchLabels": labels},
                "template": pods.template(desired, labels, container, volumes),
            },
        )
    )
