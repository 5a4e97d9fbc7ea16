"""An API server on loopback from given objects, which can be listed and watched, changed, compacted, and taken away."""

from __future__ import annotations

import copy
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .clusters import DATE, Cluster, Http

Obj = dict[str, Any]
Place = tuple[str, str]

SOURCES = {
    "whatsappclusters": "cluster",
    "pods": "pods",
    "services": "services",
    "statefulsets": "statefulsets",
    "deployments": "deployments",
    "nodes": "nodes",
    "leases": "nodeLeases",
}
"""By plural: the source of a given cluster that holds such objects."""


def renamed(cluster: Cluster, namespace: str, name: str) -> dict[str, Obj]:
    """The objects of a cluster under another namespace and name."""
    text = json.dumps(cluster.found).replace("acme", name).replace('"shop"', json.dumps(namespace))
    found: dict[str, Obj] = json.loads(text)
    return found


class WatchedApi:
    """Objects by plural, namespace and name, and what happened to them."""

    def __init__(self, given: Iterable[dict[str, Obj]]) -> None:
        self.objects: dict[str, dict[Place, Obj]] = {plural: {} for plural in SOURCES}
        self.asked: list[tuple[str, dict[str, str]]] = []
        """Path and query of each request."""
        self.fault: Callable[[str, dict[str, str]], int | None] = lambda _, __: None
        """By path and query: the status that is answered instead."""
        self.is_away = False
        self.is_silent = False
        """Whether watches that are open send nothing any more and do not end."""
        self._history: list[tuple[int, str, str, Obj]] = []
        self._compacted = 0
        self._numbers = itertools.count(1000)
        self._version = 999
        self._news = threading.Condition()
        self._closing = False
        for found in given:
            self._add(found)
        self.http = Http(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def _add(self, found: dict[str, Obj]) -> None:
        for plural, source in SOURCES.items():
            listed = [found[source]] if source == "cluster" else found.get(source, {}).get("items", [])
            for obj in listed:
                self.objects[plural][_place(obj)] = obj
        for obj in (found.get("lease"), *found.get("operators", {}).get("items", [])):
            if obj is not None:
                where = ("whatsapp-operator-system", "whatsapp-operator" if "renewTime" in obj["spec"] else obj["metadata"]["name"])
                self.objects["leases" if "renewTime" in obj["spec"] else "pods"][where] = obj

    # --- what a test does ---

    def put(self, plural: str, obj: Obj) -> None:
        """Add or change an object."""
        with self._news:
            place = _place(obj)
            kind = "MODIFIED" if place in self.objects[plural] else "ADDED"
            self._happened(kind, plural, obj)
            self.objects[plural] = {**self.objects[plural], place: obj}

    def remove(self, plural: str, namespace: str, name: str) -> None:
        with self._news:
            there = dict(self.objects[plural])
            self._happened("DELETED", plural, there.pop((namespace, name)))
            self.objects[plural] = there

    def compact(self) -> None:
        """Forget what happened: a request for it gets 410."""
        with self._news:
            self._version = self._compacted = next(self._numbers)

    def emit_error(self, plural: str, code: int) -> None:
        """Let every open watch of a kind end with an error."""
        with self._news:
            self._happened("ERROR", plural, {"kind": "Status", "code": code, "message": f"error {code}", "metadata": {}})

    def go_away(self) -> None:
        """Drop every connection, and answer none until ``come_back``."""
        with self._news:
            self.is_away = True
            self._news.notify_all()

    def come_back(self) -> None:
        self.is_away = False

    def asked_for(self, plural: str, *, watch: bool) -> list[dict[str, str]]:
        return [query for path, query in self.asked if path.endswith(f"/{plural}") and ("watch" in query) is watch]

    def _happened(self, kind: str, plural: str, obj: Obj) -> None:
        self._version = next(self._numbers)
        obj["metadata"]["resourceVersion"] = str(self._version)
        self._history.append((self._version, kind, plural, obj))
        self._news.notify_all()

    # --- what it answers ---

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def date_time_string(self, timestamp: float | None = None) -> str:
                return DATE

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                query = dict(parse_qsl(url.query))
                api.asked.append((url.path, query))
                if api.is_away:
                    self.close_connection = True
                    return
                code = api.fault(url.path, query)
                if code is None and "watch" in query:
                    self._watch(url.path, query)
                    return
                self._send(*((code, {"kind": "Status", "code": code, "message": f"error {code}"}) if code else api.answer(url.path, query)))

            def _send(self, code: int, body: Obj) -> None:
                data = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _watch(self, path: str, query: dict[str, str]) -> None:
                if int(query["resourceVersion"]) < api._compacted:
                    self._send(410, {"kind": "Status", "code": 410, "message": "too old resource version"})
                    return
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for line in api.events(path, query):
                    self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                if api.is_away:
                    self.close_connection = True
                else:
                    self.wfile.write(b"0\r\n\r\n")

        return Handler

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, Obj]:
        *rest, last = path.removeprefix("/api/v1").split("/")
        if last in self.objects:
            items = [obj for obj in list(self.objects[last].values()) if _matches(obj, path, query)]
            return 200, {"metadata": {"resourceVersion": str(self._version)}, "items": items}
        if rest[-1] in self.objects and (obj := self.objects[rest[-1]].get((rest[-2], last))):
            return 200, obj
        return 404, {"kind": "Status", "code": 404, "message": "not found"}

    def events(self, path: str, query: dict[str, str]) -> Iterator[bytes]:
        """The events of a watch, until it is over or the server is away."""
        plural, since = path.rpartition("/")[2], int(query["resourceVersion"])
        ends = time.monotonic() + float(query["timeoutSeconds"])
        while True:
            with self._news:
                while not (new := [one for one in self._history if one[0] > since]) or self.is_silent:
                    left = 3600.0 if self.is_silent else ends - time.monotonic()
                    if left <= 0 or self.is_away or self._closing or not self._news.wait(left):
                        return
            for version, kind, of, obj in new:
                since = version
                if of == plural and (kind == "ERROR" or _matches(obj, path, query)):
                    yield json.dumps({"type": kind, "object": obj}).encode() + b"\n"

    def end_watches(self) -> None:
        """End every watch as one ends whose time is over, also each later one."""
        with self._news:
            self._closing = True
            self._news.notify_all()


def changed(api: WatchedApi, plural: str, name: str, change: Any, namespace: str = "shop") -> None:
    """Change an object in place by a function."""
    obj = copy.deepcopy(api.objects[plural][namespace, name])
    change(obj)
    api.put(plural, obj)


def fail_over(api: WatchedApi) -> None:
    """Shard 0 of shop/acme moves from Coreapp 0, which goes, to Coreapp 2, as the operator would do it."""
    labels = {"multiconnect.dev/role": "active", "multiconnect.dev/shard": "0", "multiconnect.dev/epoch": "20-second"}
    changed(api, "pods", "acme-coreapp-2", lambda pod: pod["metadata"]["labels"].update(labels))

    def commit(service: Obj) -> None:
        service["spec"]["selector"]["multiconnect.dev/epoch"] = "20-second"
        service["metadata"]["annotations"]["multiconnect.dev/holder"] = "acme-coreapp-2/uid-acme-coreapp-2"

    changed(api, "services", "acme-shard-0", commit)
    api.remove("pods", "shop", "acme-coreapp-0")


def _place(obj: Obj) -> Place:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _matches(obj: Obj, path: str, query: dict[str, str]) -> bool:
    meta = obj["metadata"]
    if "/namespaces/" in path and meta.get("namespace") != path.split("/namespaces/")[1].split("/", maxsplit=1)[0]:
        return False
    if name := query.get("fieldSelector", "").removeprefix("metadata.name="):
        return bool(meta["name"] == name)
    labels = meta.get("labels") or {}
    pairs = [part.partition("=") for part in query.get("labelSelector", "").split(",") if part]
    # The operator's own pods are marked in their own way.
    return all(key in labels and (not value or labels[key] == value) for key, _, value in pairs if "app.kubernetes.io" not in key)


@contextmanager
def watched(*given: dict[str, Obj]) -> Iterator[WatchedApi]:
    """An API server for as long as the block lasts."""
    api = WatchedApi(given)
    thread = threading.Thread(target=api.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.end_watches()
        api.http.shutdown()
        api.http.server_close()
        thread.join()
