"""The real API server as a backend: plain HTTPS, and the kubelet's part where there is none."""

from __future__ import annotations

import asyncio
import json
import ssl
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx

from localkube.kubeconfig import Access

from .backend import RESOURCES, Failure, Obj

MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"


def tls_of(access: Access) -> ssl.SSLContext:
    """Return the context that opens an API server with a client certificate."""
    context = ssl.create_default_context(cadata=access.authority)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as pem:  # ssl loads client certificates from files only
        pem.write(access.certificate + access.key)
        pem.flush()
        context.load_cert_chain(pem.name)
    return context


class RealServer:
    """See Backend."""

    def __init__(self, client: httpx.AsyncClient, namespace: str) -> None:
        self._client = client
        self.namespace = namespace

    async def prepare(self) -> None:
        """Make the namespace, and wait until pods can be made in it."""
        await self._send("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})

        async def account() -> bool:
            try:
                await self._send("GET", f"/api/v1/namespaces/{self.namespace}/serviceaccounts/default")
            except Failure:
                return False
            return True

        await self.until(account)

    async def _send(
        self, method: str, path: str, body: Any = None, *, content: str = "application/json", params: Mapping[str, str] | None = None
    ) -> Obj:
        answer = await self._client.request(
            method,
            path,
            content=None if body is None else json.dumps(body),
            params=dict(params or {}),
            headers={"Content-Type": content, "Accept": "application/json"},
        )
        found: Obj = answer.json()
        if answer.is_error:
            raise Failure(answer.status_code, found.get("reason", ""), found.get("message", ""))
        return found

    def _path(self, plural: str, name: str = "", part: str = "") -> str:
        whole = f"{RESOURCES[plural].prefix}/namespaces/{self.namespace}/{plural}"
        return "/".join([whole, *([name] if name else []), *([part] if part else [])])

    async def create(self, plural: str, obj: Obj) -> Obj:
        return await self._send("POST", self._path(plural), obj)

    async def get(self, plural: str, name: str) -> Obj:
        return await self._send("GET", self._path(plural, name))

    async def list(self, plural: str, labels: Mapping[str, str] | None = None, *, at_least: str | None = None) -> tuple[list[Obj], str]:
        cached = {"resourceVersion": at_least, "resourceVersionMatch": "NotOlderThan"} if at_least else {}
        found = await self._send("GET", self._path(plural), params=_selectors(labels, None) | cached)
        return found["items"], found["metadata"]["resourceVersion"]

    async def scale(self, plural: str, name: str, body: Obj) -> Obj:
        await self._send("PATCH", self._path(plural, name, "scale"), body, content=MERGE)
        return await self.get(plural, name)

    async def merge(self, plural: str, name: str, body: Obj, *, status: bool = False) -> Obj:
        return await self._send("PATCH", self._path(plural, name, "status" if status else ""), body, content=MERGE)

    async def patch(self, plural: str, name: str, ops: Sequence[Obj]) -> Obj:
        return await self._send("PATCH", self._path(plural, name), ops, content=JSON_PATCH)

    async def replace(self, plural: str, obj: Obj, *, status: bool = False) -> Obj:
        return await self._send("PUT", self._path(plural, obj["metadata"]["name"], "status" if status else ""), obj)

    async def delete(
        self,
        plural: str,
        name: str,
        *,
        uid: str | None = None,
        version: str | None = None,
        grace: int | None = None,
        propagation: str | None = None,
    ) -> None:
        only = {key: value for key, value in (("uid", uid), ("resourceVersion", version)) if value is not None}
        options: Obj = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": only}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if propagation is not None:
            options["propagationPolicy"] = propagation
        await self._send("DELETE", self._path(plural, name), options)

    async def evict(self, pod: str) -> None:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": self.namespace}}
        await self._send("POST", self._path("pods", pod, "eviction"), body)

    async def watch(
        self,
        plural: str,
        *,
        version: str | None = None,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
        seconds: int = 20,
    ) -> AsyncGenerator[tuple[str, Obj]]:
        params = {"watch": "true", "timeoutSeconds": str(seconds), **_selectors(labels, name)}
        if version is not None:
            params["resourceVersion"] = version
        async with self._client.stream("GET", self._path(plural), params=params, timeout=seconds + 10) as answer:
            if answer.is_error:
                found = json.loads(await answer.aread())
                raise Failure(answer.status_code, found.get("reason", ""), found.get("message", ""))
            async for line in answer.aiter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise Failure(event["object"]["code"], event["object"]["reason"], event["object"]["message"])
                yield event["type"], event["object"]

    async def make_ready(self, pod: str) -> None:
        container = {"name": "web", "image": "example/web", "imageID": "", "ready": True, "restartCount": 0}
        conditions = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady", "PodScheduled")]
        status = {"phase": "Running", "conditions": conditions, "containerStatuses": [container]}
        await self.merge("pods", pod, {"status": status}, status=True)

    async def end_pod(self, pod: str) -> None:
        await self.delete("pods", pod, grace=0)

    async def until(self, holds: Callable[[], Awaitable[object]], seconds: float = 30.0) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while not await holds():
            assert asyncio.get_running_loop().time() < deadline, f"not within {seconds:g} s"
            await asyncio.sleep(0.03)


def _selectors(labels: Mapping[str, str] | None, name: str | None) -> dict[str, str]:
    chosen = {}
    if labels:
        chosen["labelSelector"] = ",".join(f"{key}={value}" for key, value in labels.items())
    if name:
        chosen["fieldSelector"] = f"metadata.name={name}"
    return chosen
