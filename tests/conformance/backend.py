"""What the rows of the conformance table speak to: one small interface, and the objects that they make. Two servers implement it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Obj = dict[str, Any]


class Failure(Exception):  # noqa: N818  it is an answer, not a fault of the test
    """The server rejected a call: the HTTP status code and the reason of the Status that it sent."""

    def __init__(self, code: int, reason: str, message: str = "") -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Resource:
    """Where the API keeps objects of one kind."""

    api_version: str
    kind: str

    @property
    def prefix(self) -> str:
        """The first part of its path."""
        return f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"


RESOURCES = {
    "pods": Resource("v1", "Pod"),
    "services": Resource("v1", "Service"),
    "secrets": Resource("v1", "Secret"),
    "statefulsets": Resource("apps/v1", "StatefulSet"),
    "deployments": Resource("apps/v1", "Deployment"),
    "poddisruptionbudgets": Resource("policy/v1", "PodDisruptionBudget"),
    "leases": Resource("coordination.k8s.io/v1", "Lease"),
    "whatsappclusters": Resource("multiconnect.dev/v1alpha1", "WhatsAppCluster"),
}


class Backend(Protocol):
    """One API server with its controllers. Every row gets a namespace of its own. All calls raise Failure."""

    namespace: str

    async def create(self, plural: str, obj: Obj) -> Obj:
        """Create and return what was stored."""
        ...

    async def get(self, plural: str, name: str) -> Obj:
        """Return one object."""
        ...

    async def list(self, plural: str, labels: Mapping[str, str] | None = None, *, at_least: str | None = None) -> tuple[list[Obj], str]:
        """Return the objects with these labels, and the resourceVersion of the list; with ``at_least`` as they were then or later."""
        ...

    async def scale(self, plural: str, name: str, body: Obj) -> Obj:
        """Send a JSON merge patch to the scale subresource; return the object as it is then."""
        ...

    async def merge(self, plural: str, name: str, body: Obj, *, status: bool = False) -> Obj:
        """Send a JSON merge patch, to the object or to its status."""
        ...

    async def patch(self, plural: str, name: str, ops: Sequence[Obj]) -> Obj:
        """Send a JSON patch."""
        ...

    async def replace(self, plural: str, obj: Obj, *, status: bool = False) -> Obj:
        """Put an object, or its status."""
        ...

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
        """Delete, with preconditions; `grace` in seconds."""
        ...

    async def evict(self, pod: str) -> None:
        """Ask for an eviction, as a drain does."""
        ...

    def watch(
        self,
        plural: str,
        *,
        version: str | None = None,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
        seconds: int = 20,
    ) -> AsyncGenerator[tuple[str, Obj]]:
        """Yield (type, object) until the server ends the stream after so many seconds; an ERROR event is raised as Failure."""
        ...

    async def make_ready(self, pod: str) -> None:
        """Let the kubelet say that a pod runs and is ready."""
        ...

    async def end_pod(self, pod: str) -> None:
        """Let the kubelet end a pod that is being deleted: afterwards this object is gone."""
        ...

    async def until(self, holds: Callable[[], Awaitable[object]], seconds: float = 30.0) -> None:
        """Wait until something holds; AssertionError after so many seconds."""
        ...


# --- objects ----------------------------------------------------------------------------------------------------------------

NEVER_READY = "nowhere.example/never"
"""An image that no kubelet can pull."""


def made(plural: str, name: str, *, meta: Obj | None = None, **rest: Any) -> Obj:
    """Return an object of a kind."""
    resource = RESOURCES[plural]
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name, **(meta or {})}, **rest}


def cluster(name: str = "acme", *, meta: Obj | None = None, **rest: Any) -> Obj:
    """Return a WhatsAppCluster."""
    return made("whatsappclusters", name, meta=meta, spec={"shards": 2, "client": {"type": "Simulator"}}, **rest)


def secret(name: str, *, meta: Obj | None = None, **data: str) -> Obj:
    """Return a Secret; the data are base64."""
    return made("secrets", name, meta=meta, data=data)


def service(name: str, *, meta: Obj | None = None, **selector: str) -> Obj:
    """Return a Service with one port."""
    return made("services", name, meta=meta, spec={"selector": selector or {"app": "web"}, "ports": [{"name": "https", "port": 443}]})


def pod(name: str, *, meta: Obj | None = None, bound: bool = True, **rest: Any) -> Obj:
    """Return a pod; `bound`: on a node."""
    spec: Obj = {"containers": [{"name": "web", "image": "example/web"}]}
    return made("pods", name, meta=meta, spec={**spec, **({"nodeName": "node-0"} if bound else {})}, **rest)


def workload(plural: str, name: str, replicas: int, *, image: str = "example/web", meta: Obj | None = None, **spec: Any) -> Obj:
    """Return a StatefulSet (Parallel, OnDelete) or a Deployment."""
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"nodeName": "node-0", "containers": [{"name": "web", "image": image}]},
    }
    own: Obj = {}
    if plural == "statefulsets":
        own = {"serviceName": name, "podManagementPolicy": "Parallel", "updateStrategy": {"type": "OnDelete"}}
    selector = {"matchLabels": {"app": name}}
    return made(plural, name, meta=meta, spec={"replicas": replicas, "selector": selector, "template": template, **own, **spec})


def budget(name: str, app: str, max_unavailable: int) -> Obj:
    """Return a PodDisruptionBudget."""
    return made("poddisruptionbudgets", name, spec={"maxUnavailable": max_unavailable, "selector": {"matchLabels": {"app": app}}})


def owned_by(*owners: Obj, block: bool = False) -> Obj:
    """Return the metadata of what has these owners."""
    more = {"blockOwnerDeletion": True} if block else {}
    return {
        "ownerReferences": [
            {"apiVersion": one["apiVersion"], "kind": one["kind"], "name": one["metadata"]["name"], "uid": one["metadata"]["uid"], **more}
            for one in owners
        ]
    }


def version(obj: Obj) -> int:
    """Return an object's resourceVersion as a number."""
    return int(obj["metadata"]["resourceVersion"])
