"""Client of the API server: plain dicts in and out, and collections that are followed forever. Decides nothing.

Raw HTTP: a final DELETE needs preconditions and a watch needs bookmarks and a read timeout, which lightkube's calls do not offer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from typing import Self

import httpx2
import msgspec

from localkube import LocalKubeError, Obj
from localkube.kubeconfig import Access
from whatsapp_operator.shell.kube.transport import close_if_cancelled

logger = logging.getLogger("localkube.hollow")

Key = tuple[str, str]

CALL_TIMEOUT_S = 10.0
WATCH_S = 10.0
"""The API server is asked to end a watch after this time. One that is silent for a little longer is dead: a black hole sends nothing."""
PARALLEL_CALLS = 24
MERGE = "merge-patch+json"
"""A patch that replaces lists as a whole; also for custom resources, which know no strategic merge."""


class KubeError(LocalKubeError):
    """A call to the API server did not succeed; the text says which and why."""


class RefusedError(KubeError):
    """The API server answered with an error."""

    def __init__(self, what: str, status: int, reason: str, message: str) -> None:
        super().__init__(f"{what}: {status} {reason}: {message}")
        self.status = status
        self.reason = reason


class NoAnswerError(KubeError):
    """The API server did not answer, or not to the end: connection refused, reset, timeout."""


class _Transport(httpx2.AsyncHTTPTransport):
    """Leaves no connection open if its call was cancelled while it was being opened."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        close_if_cancelled(request)
        return await super().handle_async_request(request)


class Kube:
    """Calls to one API server. Use as an async context manager. All raise KubeError."""

    def __init__(self, access: Access) -> None:
        self._calls = self._client(access, PARALLEL_CALLS)
        self._watches = self._client(access, None)  # each watch holds a connection; it must not take one of those that calls share

    @staticmethod
    def _client(access: Access, connections: int | None) -> httpx2.AsyncClient:
        # The default pool drops idle connections after 5 s, and a new TLS handshake costs 10-30 ms just when a pod must be started.
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=None)
        transport = _Transport(verify=access.tls(), limits=limits, trust_env=False)
        return httpx2.AsyncClient(
            base_url=access.server, headers=access.headers, timeout=CALL_TIMEOUT_S, transport=transport, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._calls.aclose()
        await self._watches.aclose()

    async def get(self, path: str) -> Obj | None:
        """The object (or list) at an API path, None if there is none."""
        try:
            return await self._call("GET", path)
        except RefusedError as e:
            if e.status == 404:
                return None
            raise

    async def post(self, path: str, body: Obj) -> Obj:
        """Create an object in the collection at a path."""
        return await self._call("POST", path, body)

    async def patch(self, path: str, body: Obj, *, kind: str = "strategic-merge-patch+json") -> Obj:
        """Patch the object at a path: a strategic merge unless said otherwise."""
        return await self._call("PATCH", path, body, f"application/{kind}")

    async def replace(self, path: str, body: Obj) -> Obj:
        """Replace the object at a path, as ``kubectl replace`` does."""
        return await self._call("PUT", path, body)

    async def delete(self, path: str, *, grace: int | None = None) -> None:
        """Delete the object at a path as ``kubectl delete`` does, with its own grace or so many seconds."""
        options = {} if grace is None else {"gracePeriodSeconds": grace}
        await self._call("DELETE", path, {"apiVersion": "v1", "kind": "DeleteOptions", **options})

    async def finish_deletion(self, path: str, uid: str | None = None) -> None:
        """The kubelet's last word: delete at once the object (of this uid), unless it is gone or replaced already."""
        body: Obj = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        body |= {"preconditions": {"uid": uid}} if uid else {}
        try:
            await self._call("DELETE", path, body)
        except RefusedError as e:
            if e.status not in {404, 409}:
                raise

    async def _call(self, method: str, path: str, body: Obj | None = None, content_type: str = "application/json") -> Obj:
        what = f"{method} {path}"
        content = None if body is None else msgspec.json.encode(body)
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                response = await self._calls.request(method, path, content=content, headers={"Content-Type": content_type})
        except (httpx2.HTTPError, TimeoutError) as e:
            raise NoAnswerError(f"{what}: no answer ({type(e).__name__}: {e})") from e
        if not response.is_success:
            raise _refusal(what, response)
        answer: Obj = msgspec.json.decode(response.content)
        return answer

    async def watch(self, path: str, version: str, selector: str = "") -> AsyncGenerator[tuple[str, Obj], None]:
        """Events (type, object) of a collection from a version on, bookmarks among them, until the server ends the watch.

        Raises RefusedError (410: the version is too old, list again) and NoAnswerError, also when nothing at all was heard for longer than
        the watch should last.
        """
        what = f"WATCH {path}"
        params = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": str(int(WATCH_S))}
        params |= {"fieldSelector": selector} if selector else {}
        timeout = httpx2.Timeout(CALL_TIMEOUT_S, read=WATCH_S + 3)
        try:
            async with self._watches.stream("GET", path, params=params, timeout=timeout) as response:
                if not response.is_success:
                    await response.aread()
                    raise _refusal(what, response)
                rest = b""
                async for chunk in response.aiter_bytes():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield _event(what, msgspec.json.decode(line))
        except httpx2.HTTPError as e:
            raise NoAnswerError(f"{what}: broken ({type(e).__name__}: {e})") from e


def _event(what: str, event: Obj) -> tuple[str, Obj]:
    kind, obj = event["type"], event["object"]
    if kind == "ERROR":
        raise RefusedError(what, int(obj.get("code") or 500), obj.get("reason", ""), obj.get("message", ""))
    return kind, obj


def _refusal(what: str, response: httpx2.Response) -> RefusedError:
    try:
        status = msgspec.json.decode(response.content)
        return RefusedError(what, response.status_code, status.get("reason") or "", status.get("message") or "")
    except (msgspec.DecodeError, AttributeError):
        return RefusedError(what, response.status_code, response.reason_phrase, response.text[:200])


def key_of(obj: Obj) -> Key:
    """(namespace, name) of an object; the namespace is empty for cluster-wide ones."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def version_of(obj: Obj) -> int:
    """An object's resourceVersion as a number: comparable within a type with every etcd so far, promised since Kubernetes 1.35."""
    return int(obj["metadata"]["resourceVersion"])


class Mirror:
    """A collection of the API server, kept up to date forever: over ended watches, lost versions, a dead or silent server.

    `changed(type, object)` is called for each difference (ADDED, MODIFIED, DELETED), after the mirror holds it; an object may come twice.
    """

    def __init__(self, kube: Kube, path: str, changed: Callable[[str, Obj], None], selector: str = "") -> None:
        self.items: dict[Key, Obj] = {}
        self.by_namespace: defaultdict[str, dict[str, Obj]] = defaultdict(dict)
        """The same objects by namespace and name, so that a frequent question does not go through all of them."""
        self.synced = asyncio.Event()
        self._kube, self._path, self._changed, self._selector = kube, path, changed, selector

    async def run(self) -> None:
        """Follow the collection until cancelled."""
        version, pause = "", 0.05
        while True:
            try:
                version = version or await self._list()
                async with contextlib.aclosing(self._kube.watch(self._path, version, self._selector)) as events:
                    async for kind, obj in events:
                        version, pause = obj["metadata"]["resourceVersion"], 0.05
                        if kind != "BOOKMARK":
                            self._take(kind, obj)
                pause = 0.05
            except KubeError as e:
                expired = isinstance(e, RefusedError) and e.status == 410
                if isinstance(e, RefusedError):
                    version = ""  # too old (410) or a server that lost its memory: begin with a list
                if not expired:
                    logger.info("%s; trying again in %.2f s", e, pause)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 1.0)

    async def _list(self) -> str:
        answer = await self._kube.get(f"{self._path}?fieldSelector={self._selector}" if self._selector else self._path)
        if answer is None:
            raise NoAnswerError(f"LIST {self._path}: 404")
        listed = {key_of(obj): obj for obj in answer.get("items") or []}
        for key in self.items.keys() - listed.keys():
            self._take("DELETED", self.items[key])
        for key, obj in listed.items():
            self._take("MODIFIED" if key in self.items else "ADDED", obj)
        self.synced.set()
        return str(answer["metadata"]["resourceVersion"])

    def _take(self, kind: str, obj: Obj) -> None:
        key = (namespace, name) = key_of(obj)
        old = self.items.pop(key, None)
        self.by_namespace[namespace].pop(name, None)
        if kind != "DELETED":
            self.items[key] = self.by_namespace[namespace][name] = obj
            if old is not None and old["metadata"]["uid"] != obj["metadata"]["uid"]:
                self._report("DELETED", old)  # replaced by a namesake while it was not watched
        self._report(kind, obj)

    def _report(self, kind: str, obj: Obj) -> None:
        try:
            self._changed(kind, obj)
        except Exception:  # one bad object must not keep the node from handling all others
            logger.exception("hollow: %s of %s in %s", kind, key_of(obj), self._path)
