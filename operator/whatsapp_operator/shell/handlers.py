"""Kopf's door: events are noted and wake a loop, nothing else. No handler here reads, decides or writes."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import kopf
import yaml

from whatsapp_operator.core.manifests import API_VERSION, CLUSTER_LABEL, cluster_of
from whatsapp_operator.core.model import Key, Obj

log = logging.getLogger(__name__)

CHUNK = 100
"""Objects in one answer to a list."""
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class _Endless:
    """Back-offs without an end: when Kopf runs out of them the process ends (python-clients.md, "Kopf as a watcher")."""

    def __iter__(self) -> Iterator[float]:
        pause = 0.1
        while True:
            yield pause
            pause = min(pause * 2, 5.0)


class _NoEssence(kopf.AnnotationsDiffBaseStorage):
    """Compares nothing: no handler of ours asks what changed, and Kopf would copy every object of every event for it."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return an empty essence."""
        return kopf.BodyEssence()


def settings(namespaces: Iterable[str] = ()) -> kopf.OperatorSettings:
    """Return Kopf's settings: it watches and does nothing else. ``namespaces``: those that are looked after; none means all."""
    chosen = kopf.OperatorSettings()
    # With Roles alone neither CRDs nor namespaces may be listed, and with endless back-offs Kopf would ask for ever and watch nothing.
    chosen.scanning.disabled = bool(tuple(namespaces))
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    chosen.networking.request_timeout = 10
    chosen.networking.connect_timeout = 3
    chosen.networking.error_backoffs = _Endless()
    chosen.watching.server_timeout = 60
    chosen.watching.client_timeout = 75
    chosen.watching.reconnect_backoff = 0.1
    # Ten thousand pods in one answer cost more memory than all else; other people's pods are not even asked for.
    chosen.watching.chunk_size = CHUNK
    for group, resource in (("", "pods"), ("", "services"), ("apps", "statefulsets")):
        chosen.watching.label_selectors[group, "v1", resource] = CLUSTER_LABEL
    # A worker that waits keeps its object in memory.
    chosen.queueing.idle_timeout = 0.5
    chosen.persistence.finalizer = "multiconnect.dev/unused"
    chosen.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="kopf.multiconnect.dev")
    chosen.persistence.diffbase_storage = _NoEssence(prefix="kopf.multiconnect.dev")
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


class Witness(Protocol):
    """Who keeps what events tell; ``gone``: the object was deleted."""

    def saw_cluster(self, obj: Obj, *, gone: bool) -> None:
        """Take in an event about a WhatsAppCluster."""
        ...

    def saw_pod(self, obj: Obj, *, gone: bool) -> None:
        """Take in an event about a pod."""
        ...

    def saw_service(self, obj: Obj, *, gone: bool) -> None:
        """Take in an event about a Service."""
        ...


class Wake(Protocol):
    """Who wakes the loop of a cluster."""

    def __call__(self, key: Key, *, presses: bool = True) -> None:
        """Wake it; ``presses``: a failover may depend on it."""
        ...


def registry(wake: Wake, login: Callable[[], kopf.ConnectionInfo], witness: Witness) -> kopf.OperatorRegistry:
    """Return handlers that show an event's object to ``witness`` and then call ``wake`` with the cluster that it is about."""
    found = kopf.OperatorRegistry()
    group, _, version = API_VERSION.partition("/")

    async def on_cluster(namespace: str | None, name: str | None, event: kopf.RawEvent, **_: Any) -> None:
        if namespace and name:
            _show(witness.saw_cluster, event)
            wake(Key(namespace, name), presses=event["type"] is not None)

    def on_part(saw: Callable[..., None] | None) -> Callable[..., Coroutine[None, None, None]]:
        async def told(namespace: str | None, event: kopf.RawEvent, **_: Any) -> None:
            # Somebody else's object may carry our label, and any name in it.
            cluster = cluster_of(event["object"])
            if namespace and cluster:
                if saw is not None:
                    _show(saw, event)
                # Without a type it comes from a list: of what was there when the watch began.
                wake(Key(namespace, cluster), presses=event["type"] is not None)

        return told

    async def on_login(**_: Any) -> kopf.ConnectionInfo:
        return await asyncio.to_thread(login)

    kopf.on.login(registry=found)(on_login)
    kopf.on.event(group, version, "whatsappclusters", registry=found)(on_cluster)
    parts = ((("", "v1", "pods"), witness.saw_pod), (("", "v1", "services"), witness.saw_service), (("apps", "v1", "statefulsets"), None))
    for part, saw in parts:
        kopf.on.event(*part, labels={CLUSTER_LABEL: kopf.PRESENT}, registry=found)(on_part(saw))
    return found


def _show(saw: Callable[..., None], event: kopf.RawEvent) -> None:
    """Show an object to the witness. One that it cannot take in must not keep the loop from being woken: the look says what is wrong."""
    try:
        saw(event["object"], gone=event["type"] == "DELETED")
    except Exception:
        log.exception("An event could not be noted")


def quieten() -> None:
    """Raise the level of loggers that write a line for each event or request."""
    for name in ("kopf.objects", "kopf._core", "httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
