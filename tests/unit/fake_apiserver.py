"""A small API server on loopback that speaks discovery, list, watch and Leases, and fails in the ways that a test asks for."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

Obj = dict[str, Any]
Answer = Callable[[web.Request], web.Response | None]

PODS, SERVICES, SETS = "/api/v1/pods", "/api/v1/services", "/apis/apps/v1/statefulsets"
CLUSTERS = "/apis/multiconnect.dev/v1alpha1/whatsappclusters"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NODES, NODE_LEASES = "/api/v1/nodes", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
KINDS = {
    PODS: "Pod",
    SERVICES: "Service",
    SETS: "StatefulSet",
    CLUSTERS: "WhatsAppCluster",
    CRDS: "CustomResourceDefinition",
    NODES: "Node",
    NODE_LEASES: "Lease",
    "/api/v1/namespaces": "Namespace",
}
WATCHED = (PODS, SERVICES, SETS, CLUSTERS)


def within(path: str, namespace: str) -> str:
    """Return the path of a kind in one namespace."""
    root, _, plural = path.rpartition("/")
    return f"{root}/namespaces/{namespace}/{plural}"


NAMESPACES = ("here", "there")
KINDS |= {within(path, namespace): KINDS[path] for namespace in NAMESPACES for path in WATCHED}
VERBS = ["get", "list", "watch", "create", "update", "patch", "delete"]


def status(code: int, reason: str = "") -> Obj:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": f"set to answer {code}"}


def refuse(code: int, **headers: str) -> web.Response:
    return web.json_response(status(code), status=code, headers=headers)


def missing(request: web.Request) -> web.Response:
    """Return that this object is not there, though its kind is."""
    return web.json_response({**status(404, "NotFound"), "details": {"name": request.path.rpartition("/")[2]}}, status=404)


class FakeApiServer:
    """Objects, their history, and the streams that are open."""

    def __init__(self) -> None:
        self.url = ""
        self.fault: Answer = lambda _: None
        """Asked before every answer; what it returns is sent instead."""
        self.history: dict[str, list[tuple[int, str, Obj]]] = {path: [] for path in KINDS}
        self.leases: dict[str, Obj] = {}
        self.streams: dict[str, list[web.StreamResponse]] = {path: [] for path in KINDS}
        self.serves_clusters = True
        self._numbers = itertools.count(100)
        self._news = asyncio.Event()

    # --- what a test does -------------------------------------------------------------------------------------------------

    def tell(self, path: str, name: str, what: str = "ADDED", **more: Any) -> None:
        """Let a cluster of this name, or an object of it, be added, changed or deleted."""
        version = next(self._numbers)
        namespace = path.split("/")[-2] if "/namespaces/" in path else "default"
        meta: dict[str, Any] = {"namespace": namespace, "name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}
        if not path.endswith("/whatsappclusters"):
            owner = {"kind": "WhatsAppCluster", "name": name, "uid": f"uid-{name}", "controller": True}
            meta |= {"name": f"{name}-coreapp", "labels": {"multiconnect.dev/cluster": name}, "ownerReferences": [owner]}
        group = "v1" if path.startswith("/api/v1") else "/".join(path.split("/")[2:4])
        self.history[path].append((version, what, {"apiVersion": group, "kind": KINDS[path], "metadata": meta, **more}))
        self._wake()

    async def emit(self, path: str, line: bytes) -> None:
        """Send this line in every open stream of a kind."""
        for stream in list(self.streams[path]):
            await stream.write(line)

    def cut(self, part: str = "") -> None:
        """Drop the connection of every open stream, or of those with this part in their path."""
        for stream in itertools.chain(*(streams for path, streams in self.streams.items() if part in path)):
            transport = stream._req.transport if stream._req else None
            if transport is not None:
                transport.abort()

    def drop_crd(self) -> None:
        """Take the CRD away: its streams end, its kind is not served any more."""
        self.serves_clusters = False
        self._tell_crd("DELETED")

    def bring_crd(self) -> None:
        """Apply the CRD again."""
        self.serves_clusters = True
        self._tell_crd("ADDED")

    def _tell_crd(self, what: str) -> None:
        self.tell(CRDS, "whatsappclusters.multiconnect.dev", what, spec={"group": "multiconnect.dev"}, status={})

    # --- what it answers --------------------------------------------------------------------------------------------------

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if (instead := self.fault(request)) is not None:
            return instead
        path = request.path
        if path in KINDS:
            if path == CLUSTERS and not self.serves_clusters:
                return web.Response(status=404, text="404 page not found\n")
            return await self._watch(request) if request.query.get("watch") else self._list(path)
        if "/leases" in path:
            return await self._lease(request)
        if self.serves_clusters and path.rpartition("/")[0].endswith("/whatsappclusters"):
            return missing(request)
        found = self._discovery(path)
        return web.json_response(found) if found is not None else web.Response(status=404, text="404 page not found\n")

    def _discovery(self, path: str) -> Obj | None:
        groups = ["apps", "apiextensions.k8s.io", *(["multiconnect.dev"] if self.serves_clusters else [])]
        versions = {group: "v1alpha1" if "multi" in group else "v1" for group in groups}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            both = {group: {"groupVersion": f"{group}/{version}", "version": version} for group, version in versions.items()}
            return {"kind": "APIGroupList", "groups": [{"name": g, "versions": [v], "preferredVersion": v} for g, v in both.items()]}
        prefixes = {"/api/v1": "v1"} | {f"/apis/{group}/{version}": group for group, version in versions.items()}
        if path not in prefixes:
            return None
        kinds = {at.rpartition("/")[2]: kind for at, kind in KINDS.items() if at.rpartition("/")[0] == path}
        flat = {"namespaces", "nodes", "customresourcedefinitions"}
        return {
            "kind": "APIResourceList",
            "resources": [
                {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": plural not in flat, "verbs": VERBS}
                for plural, kind in kinds.items()
            ],
        }

    def _list(self, path: str) -> web.Response:
        there: dict[str, Obj] = {}
        for _, what, obj in self.history[path]:
            there.pop(obj["metadata"]["name"], None)
            if what != "DELETED":
                there[obj["metadata"]["name"]] = obj
        meta = {"resourceVersion": str(next(self._numbers)), "continue": ""}
        return web.json_response({"kind": f"{KINDS[path]}List", "apiVersion": "v1", "metadata": meta, "items": list(there.values())})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        path, since = request.path, int(request.query.get("resourceVersion") or 0)
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        self.streams[path].append(stream)
        try:
            async with asyncio.timeout(float(request.query.get("timeoutSeconds", "60"))):
                while path != CLUSTERS or self.serves_clusters:
                    news = self._news
                    for version, what, obj in [one for one in self.history[path] if one[0] > since]:
                        await stream.write(json.dumps({"type": what, "object": obj}).encode() + b"\n")
                        since = version
                    await news.wait()
        except (TimeoutError, ConnectionError):
            pass
        finally:
            self.streams[path].remove(stream)
        return stream

    async def _lease(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch"):
            return web.json_response(status(403), status=403)
        if request.method == "GET":
            found = self.leases.get(request.path)
            return web.json_response(found) if found else missing(request)
        obj = await request.json()
        obj["metadata"]["resourceVersion"] = str(next(self._numbers))
        self.leases[request.path if request.method == "PUT" else f"{request.path}/{obj['metadata']['name']}"] = obj
        return web.json_response(obj)

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def kubeconfig(self, folder: Path, token: str = "t") -> Path:
        """Write a kubeconfig that leads here."""
        named = [{"name": "a", "cluster": {"server": self.url}, "user": {"token": token}, "context": {"cluster": "a", "user": "a"}}]
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump({"clusters": named, "users": named, "contexts": named, "current-context": "a"}), encoding="utf-8")
        return path


@asynccontextmanager
async def an_apiserver() -> AsyncIterator[FakeApiServer]:
    """An API server for as long as the block lasts."""
    server = FakeApiServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
