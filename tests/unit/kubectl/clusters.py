"""What the API server says of a cluster, built by sentences: ``a_cluster().without_node("node-0")``. Every step gives a new value."""

from __future__ import annotations

import copy
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubectl_whatsapp.errors import RequestError
from kubectl_whatsapp.reading import Read, Target, sources
from whatsapp_operator.core import manifests
from whatsapp_operator.core.desired import Desired
from whatsapp_operator.core.names import Key

Obj = dict[str, Any]

NOW = datetime(2027, 1, 4, 12, 0, 0, tzinfo=UTC)
TARGET = Target("shop", "acme")
UID = "uid-acme"
DATE = "Mon, 04 Jan 2027 12:00:00 GMT"


def before(**span: float) -> str:
    return (NOW - timedelta(**span)).isoformat().replace("+00:00", "Z")


def condition(kind: str, status: str, reason: str, message: str = "") -> Obj:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message or f"It is {reason}.",
        "lastTransitionTime": before(hours=1),
    }


SERVING = (
    condition("Ready", "True", "Serving", "All 2 shards are served; 1 failure can be tolerated."),
    condition("Reconciling", "False", "UpToDate", "Nothing to do."),
    condition("Stalled", "False", "UpToDate", "Nothing waits for a person."),
    condition("Redundant", "True", "SparesReady", "1 of 1 wanted spares are ready."),
    condition("CertificateValid", "True", "Simulated", "The simulator's made-up account needs no certificate."),
)


@dataclass(frozen=True)
class Cluster:
    """The answers of an API server, by source."""

    found: dict[str, Obj]
    unread: dict[str, str] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()

    def read(self) -> Read:
        return Read(target=TARGET, at=NOW, found=self.found, unread=self.unread, absent=self.absent, seconds=0.05)

    def but(self, change: Callable[[dict[str, Obj]], object]) -> Cluster:
        """Change the objects in place, in a copy."""
        found = copy.deepcopy(self.found)
        change(found)
        return replace(self, found=found)

    # --- what can be amiss ---

    def without(self, *names: str, why: str = "no answer within 1.0 s") -> Cluster:
        """Sources that could not be read."""
        kept = {name: one for name, one in self.found.items() if name not in names}
        return replace(self, found=kept, unread={**self.unread, **dict.fromkeys(names, why)})

    def missing(self, name: str) -> Cluster:
        """A source that is not there."""
        return replace(self, found={key: one for key, one in self.found.items() if key != name}, absent=self.absent | {name})

    def without_node(self, name: str) -> Cluster:
        return self.but(
            lambda found: found["nodes"].update(items=[one for one in found["nodes"]["items"] if one["metadata"]["name"] != name])
        )

    def silent_node(self, name: str, **since: float) -> Cluster:
        def change(found: dict[str, Obj]) -> None:
            named(found["nodeLeases"], name)["spec"]["renewTime"] = before(**since)

        return self.but(change)

    def without_pod(self, name: str) -> Cluster:
        return self.but(
            lambda found: found["pods"].update(items=[one for one in found["pods"]["items"] if one["metadata"]["name"] != name])
        )

    def unready(self, *names: str, waiting: str = "") -> Cluster:
        def change(found: dict[str, Obj]) -> None:
            for name in names:
                status = named(found["pods"], name)["status"]
                status["conditions"] = [{"type": "Ready", "status": "False", "lastTransitionTime": before(minutes=5)}]
                if waiting:
                    status["containerStatuses"] = [{"name": "coreapp", "state": {"waiting": {"reason": waiting}}}]

        return self.but(change)

    def deleting(self, pod: str) -> Cluster:
        return self.but(lambda found: named(found["pods"], pod)["metadata"].update(deletionTimestamp=before(seconds=2)))

    def goes(self) -> Cluster:
        """The cluster itself is being deleted."""
        return self.but(lambda found: found["cluster"]["metadata"].update(deletionTimestamp=before(seconds=2)))

    def operator_dead(self, **since: float) -> Cluster:
        return self.but(lambda found: found["lease"]["spec"].update(renewTime=before(**(since or {"minutes": 5}))))

    def spec(self, **fields: Any) -> Cluster:
        return self.but(lambda found: found["cluster"]["spec"].update(fields))

    def status(self, **fields: Any) -> Cluster:
        return self.but(lambda found: found["cluster"]["status"].update(fields))

    def annotated(self, **notes: str) -> Cluster:
        values = {f"multiconnect.dev/{key.replace('_', '-')}": value for key, value in notes.items()}
        return self.but(lambda found: found["cluster"]["metadata"].setdefault("annotations", {}).update(values))

    def says(self, kind: str, status: str, reason: str, message: str = "") -> Cluster:
        """A condition of the operator."""

        def change(found: dict[str, Obj]) -> None:
            others = [one for one in found["cluster"]["status"]["conditions"] if one["type"] != kind]
            found["cluster"]["status"]["conditions"] = [*others, condition(kind, status, reason, message)]

        return self.but(change)


def named(listed: Obj, name: str) -> Any:
    """The object of a list with this name."""
    (found,) = (one for one in listed["items"] if one["metadata"]["name"] == name)
    return found


def _meta(name: str, namespace: str = "shop", **more: Any) -> Obj:
    return {"name": name, "namespace": namespace, "uid": f"uid-{name}", "resourceVersion": "100", **more}


def _owner(kind: str, name: str, uid: str) -> list[Obj]:
    return [{"apiVersion": "v1", "kind": kind, "name": name, "uid": uid, "controller": True}]


def pod(name: str, component: str, node: str, owner: str, **labels: str) -> Obj:
    kept = {"app.kubernetes.io/component": component, "app.kubernetes.io/name": "whatsapp-business-api", "multiconnect.dev/cluster": "acme"}
    kept |= {"app.kubernetes.io/instance": "acme", "app.kubernetes.io/managed-by": "whatsapp-operator", **labels}
    return {
        "metadata": _meta(name, labels=kept, ownerReferences=_owner("StatefulSet", owner, f"uid-{owner}")),
        "spec": {"nodeName": node, "containers": [{"name": component, "env": [{"name": "WA_CODE", "value": "canary-env"}]}]},
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": before(hours=1)}],
            "containerStatuses": [{"name": component, "state": {"running": {"startedAt": before(hours=2)}}}],
        },
    }


def node(name: str) -> Obj:
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": {}},
        "spec": {},
        "status": {"conditions": [condition("Ready", "True", "KubeletReady")]},
    }


def lease(name: str, namespace: str, **spec: Any) -> Obj:
    return {"metadata": _meta(name, namespace), "spec": {"holderIdentity": name, **spec}}


def a_cluster(shards: int = 2, spares: int = 1) -> Cluster:
    """A cluster that is well: pod k holds shard k on node k."""
    desired = Desired(key=Key("shop", "acme"), uid=UID, generation=3, shards=shards, spares=spares, client="Simulator")
    count = shards + spares
    coreapps = []
    for ordinal in range(count):
        held = {
            "multiconnect.dev/role": "active",
            "multiconnect.dev/shard": str(ordinal),
            "multiconnect.dev/epoch": f"{10 + ordinal}-first",
        }
        labels = held if ordinal < shards else {"multiconnect.dev/role": "standby"}
        coreapps.append(pod(f"acme-coreapp-{ordinal}", "coreapp", f"node-{ordinal}", "acme-coreapp", **labels))
    webapps = [pod(f"acme-webapp-{letter}", "webapp", f"node-{at}", "acme-webapp") for at, letter in enumerate("ab")]
    found = {
        "cluster": _cluster(shards, spares),
        "pods": {"items": [*coreapps, *webapps]},
        "services": {"items": [*_plain(desired, "Service"), *(_shard(desired, shard) for shard in range(shards))]},
        "statefulsets": {"items": [_workload(one, count) for one in _plain(desired, "StatefulSet")]},
        "deployments": {"items": [_workload(one, 2) for one in _plain(desired, "Deployment")]},
        "nodes": {"items": [node(f"node-{number}") for number in range(max(3, count))]},
        "nodeLeases": {
            "items": [lease(f"node-{number}", "kube-node-lease", renewTime=before(seconds=5)) for number in range(max(3, count))]
        },
        "lease": lease("op-a_1234", "whatsapp-operator-system", renewTime=before(seconds=1), leaseDurationSeconds=4),
        "operators": {"items": [pod(f"op-{one}", "operator", node, "op") for one, node in (("a", "node-0"), ("b", "node-1"))]},
    }
    return Cluster(json.loads(json.dumps(found)))


def _cluster(shards: int, spares: int) -> Obj:
    shard_map = [
        {
            "shard": shard,
            "state": "Serving",
            "holder": f"acme-coreapp-{shard}",
            "node": f"node-{shard}",
            "epoch": f"{10 + shard}-first",
            "since": before(hours=3),
        }
        for shard in range(shards)
    ]
    handover = {
        "at": before(minutes=7),
        "shard": 0,
        "kind": "Failover",
        "from": "acme-coreapp-2",
        "to": "acme-coreapp-0",
        "epoch": "10-first",
    }
    handover |= {"evidence": "PodDeleted", "commitMilliseconds": 31, "serveMilliseconds": 12}
    return {
        "apiVersion": "multiconnect.dev/v1alpha1",
        "kind": "WhatsAppCluster",
        "metadata": {**_meta("acme", generation=3), "uid": UID},
        "spec": {"shards": shards, "spares": spares, "client": {"type": "Simulator", "simulator": {"restartSeconds": 45}}},
        "status": {
            "uid": UID,
            "observedGeneration": 3,
            "reason": "Serving",
            "message": "All 2 shards are served; 1 failure can be tolerated.",
            "shards": shards,
            "settledShards": shards,
            "shardMap": shard_map,
            "conditions": [*SERVING],
            "recentHandovers": [handover],
            "webapp": {"desired": 2, "ready": 2},
        },
    }


def _plain(desired: Desired, kind: str) -> Iterator[Obj]:
    for obj in manifests.upkeep(desired, webapp_replicas=2, resharding=False, is_first_boot=False, is_unused=False):
        if obj["kind"] == kind:
            name = obj["metadata"]["name"]
            yield {**obj, "metadata": {**obj["metadata"], "uid": f"uid-{name}", "resourceVersion": "7", "generation": 1}}


def _workload(obj: Obj, replicas: int) -> Obj:
    status = {"observedGeneration": 1, "replicas": replicas, "readyReplicas": replicas, "updateRevision": "rev-1"}
    replicas = 1 if obj["metadata"]["name"].endswith("simulator") else replicas
    return {**obj, "spec": {**obj["spec"], "replicas": replicas}, "status": status}


def _shard(desired: Desired, shard: int) -> Obj:
    service = manifests.shard_service(desired, shard)
    selector = {**service["spec"]["selector"], "multiconnect.dev/epoch": f"{10 + shard}-first"}
    notes = {"multiconnect.dev/holder": f"acme-coreapp-{shard}/uid-acme-coreapp-{shard}", "multiconnect.dev/committed-at": before(hours=3)}
    meta = {**service["metadata"], "uid": f"uid-shard-{shard}", "resourceVersion": str(100 + shard), "annotations": notes}
    return {**service, "metadata": meta, "spec": {**service["spec"], "selector": selector}}


# --- the same over HTTP ----------------------------------------------------------------------------------------------------


class Api:
    """A client of a cluster, in this process."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.server_date = DATE
        self.patches: list[tuple[Obj, bool]] = []

    def get(self, path: str, *, timeout: float, **query: str) -> Obj:
        return answer(self.cluster, path)

    def patch(self, path: str, body: Obj, *, timeout: float, dry_run: bool = False) -> Obj:
        self.patches.append((body, dry_run))
        return self.cluster.found["cluster"]


def answer(cluster: Cluster, path: str) -> Obj:
    """What is at a path. RequestError as an API server would have it."""
    for name, source in sources(TARGET).items():
        if source.path != path or (name == "operators" and "whatsapp-operator-system" not in path):
            continue
        if name in cluster.unread:
            raise RequestError(cluster.unread[name], status=403)
        if name in cluster.found:
            return cluster.found[name]
    raise RequestError("not found", status=404, details={"kind": "Status"})


@contextmanager
def serving(
    cluster: Cluster, folder: Path, *, delays: dict[str, float] | None = None, texts: dict[str, str] | None = None
) -> Iterator[Server]:
    """An API server on loopback. ``delays``: seconds by source; ``texts``: what is no JSON, by path."""
    server = Server(cluster, delays or {}, texts or {})
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        server.kubeconfig = folder / "kubeconfig"
        server.kubeconfig.write_text(json.dumps(kubeconfig(server.url)), encoding="utf-8")
        yield server
    finally:
        server.closing.set()
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def kubeconfig(url: str, **user: Any) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": user or {"token": "canary-token-of-the-kubeconfig"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
        "current-context": "here",
    }


class Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.connections: set[Any] = set()
        """Those that are open."""

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.connections.discard(request)

    def handle_error(self, *_: object) -> None:
        """A client that no longer waits is none."""


class Server:
    """Answers as an API server would, and keeps what it was asked for."""

    def __init__(self, cluster: Cluster, delays: dict[str, float], texts: dict[str, str]) -> None:
        self.cluster, self.delays, self.texts = cluster, delays, texts
        self.asked: list[tuple[str, str, dict[str, list[str]], str]] = []
        """Method, path, query and body of each request."""
        self.headers: list[dict[str, str]] = []
        self.on_write: Callable[[Server, Obj], None] = lambda _, __: None
        self.ports: list[int] = []
        """From which port each request came."""
        self.ends_connections = False
        """After an answer, without saying so."""
        self.compresses = False
        self.redirects: dict[str, str] = {}
        """By path: where else it is."""
        self.rejects: tuple[int, Obj] | None = None
        """With what each write is answered instead."""
        self.token = ""
        """The only one that is accepted, unless it is empty."""
        self.kubeconfig = Path()
        self.closing = threading.Event()
        self.http = Http(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def date_time_string(self, timestamp: float | None = None) -> str:
                return DATE

            def _answer(self) -> None:
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                server.asked.append((self.command, url.path, parse_qs(url.query), body))
                server.headers.append(dict(self.headers.items()))
                server.ports.append(self.client_address[1])
                code, data, kind = server.respond(self.command, url.path, body)
                if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
                    code, data, kind = 401, b'{"kind": "Status", "message": "Unauthorized", "code": 401}', "application/json"
                elsewhere = server.redirects.get(url.path)
                self.send_response(code if elsewhere is None else 307)
                if elsewhere is not None:
                    self.send_header("Location", elsewhere)
                self.send_header("Content-Type", kind)
                if server.compresses:
                    data = gzip.compress(data)
                    self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                self.close_connection = self.close_connection or server.ends_connections

            do_GET = do_PATCH = do_DELETE = _answer  # noqa: N815

        return Handler

    def respond(self, method: str, path: str, body: str) -> tuple[int, bytes, str]:
        if path in self.texts:
            return 200, self.texts[path].encode(), "text/plain"
        if method != "GET" and self.rejects is not None:
            return self.rejects[0], json.dumps(self.rejects[1]).encode(), "application/json"
        if method != "GET":
            self.on_write(self, json.loads(body))
            return 200, json.dumps(self.cluster.found["cluster"]).encode(), "application/json"
        for name, source in sources(TARGET).items():
            if source.path == path:
                self.closing.wait(self.delays.get(name, 0.0))
        try:
            return 200, json.dumps(answer(self.cluster, path)).encode(), "application/json"
        except RequestError as error:
            status = {"kind": "Status", "message": str(error), "code": error.status}
            return error.status or 500, json.dumps(status).encode(), "application/json"
