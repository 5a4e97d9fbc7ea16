"""Kopf's door: events wake a loop, nothing else. No handler here reads, decides or writes."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kopf
import yaml

from whatsapp_operator.core.manifests import API_VERSION, CLUSTER_LABEL
from whatsapp_operator.core.model import Key

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class _Endless:
    """Back-offs without an end: when Kopf runs out of them the process ends (python-clients.md, "Kopf as a watcher")."""

    def __iter__(self) -> Iterator[float]:
        pause = 0.1
        while True:
            yield pause
            pause = min(pause * 2, 5.0)


def settings() -> kopf.OperatorSettings:
    """Return Kopf's settings: it watches and does nothing else."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    chosen.networking.request_timeout = 10
    chosen.networking.connect_timeout = 3
    chosen.networking.error_backoffs = _Endless()
    chosen.watching.server_timeout = 60
    chosen.watching.client_timeout = 75
    chosen.watching.reconnect_backoff = 0.1
    chosen.persistence.finalizer = "multiconnect.dev/unused"
    chosen.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="kopf.multiconnect.dev")
    chosen.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix="kopf.multiconnect.dev")
    # Kopf would otherwise end the whole process by SIGKILL some time after its stop.
    chosen.process.ultimate_exiting_timeout = None
    return chosen


def connection(kubeconfig: Path | None) -> kopf.ConnectionInfo:
    """Return how Kopf reaches the API server: by the kubeconfig, or by the pod's service account."""
    if kubeconfig is None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        return kopf.ConnectionInfo(
            server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            ca_path=str(SERVICE_ACCOUNT / "ca.crt"),
            token=(SERVICE_ACCOUNT / "token").read_text(encoding="utf-8").strip(),
            scheme="Bearer",
        )
    return _from_kubeconfig(yaml.safe_load(kubeconfig.read_text(encoding="utf-8")))


def _from_kubeconfig(config: dict[str, Any]) -> kopf.ConnectionInfo:
    def entry(kind: str, name: str) -> dict[str, Any]:
        return next((one[kind] for one in config.get(f"{kind}s") or () if one.get("name") == name), {})

    context = entry("context", config.get("current-context", ""))
    cluster, user = entry("cluster", context.get("cluster", "")), entry("user", context.get("user", ""))
    token = user.get("token")
    return kopf.ConnectionInfo(
        server=cluster["server"],
        ca_path=cluster.get("certificate-authority"),
        ca_data=cluster.get("certificate-authority-data"),
        insecure=cluster.get("insecure-skip-tls-verify"),
        token=token,
        scheme="Bearer" if token else None,
        certificate_path=user.get("client-certificate"),
        certificate_data=user.get("client-certificate-data"),
        private_key_path=user.get("client-key"),
        private_key_data=user.get("client-key-data"),
    )


def registry(wake: Callable[[Key], None], login: Callable[[], kopf.ConnectionInfo]) -> kopf.OperatorRegistry:
    """Return handlers that call ``wake`` with the cluster that an event is about."""
    found = kopf.OperatorRegistry()
    group, _, version = API_VERSION.partition("/")

    async def on_cluster(namespace: str | None, name: str | None, **_: Any) -> None:
        if namespace and name:
            wake(Key(namespace, name))

    async def on_part(namespace: str | None, labels: kopf.Labels, **_: Any) -> None:
        cluster = labels.get(CLUSTER_LABEL)
        if namespace and cluster:
            wake(Key(namespace, cluster))

    async def on_login(**_: Any) -> kopf.ConnectionInfo:
        return await asyncio.to_thread(login)

    kopf.on.login(registry=found)(on_login)
    kopf.on.event(group, version, "whatsappclusters", registry=found)(on_cluster)
    for part in (("", "v1", "pods"), ("", "v1", "services"), ("apps", "v1", "statefulsets")):
        kopf.on.event(*part, labels={CLUSTER_LABEL: kopf.PRESENT}, registry=found)(on_part)
    return found


def quieten() -> None:
    """Raise the level of loggers that write a line for each event or request."""
    for name in ("kopf.objects", "kopf._core", "httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
