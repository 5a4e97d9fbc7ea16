"""Client for Kubernetes: plain dicts in, plain dicts or one clear error out. Nothing here decides.

Reads are sent again, and so are calls that were answered with 429. A write that may have taken effect is not.

Every call is bounded in time. Every write first asks the fence how much of the Lease is left. An error from the API server is not the same
as no answer::

    KubeError                 verb, object, answer of the server; never a secret
     ├─ NotFound              404 for an object that had to exist (a read of a missing object returns None instead)
     ├─ AlreadyExists         409 to a create
     ├─ Conflict              409: resourceVersion or uid have changed since the object was read; nothing was written
     ├─ TestFailed            422 to a JSON patch: its `test` (or its path) did not match; nothing was written
     ├─ Rejected              any other 4xx: forbidden, invalid, over quota; nothing was written
     ├─ Expired               410: the resourceVersion of a watch is too old, list again
     ├─ Unavailable           no answer, or an unusable one (429, 5xx, garbage): a write may or may not have happened
     └─ LeaseTooShort         a write was not sent, because the Lease could end before its answer

The client library logs one INFO line for each request (logger `httpx2`). The program that configures logging should raise it to WARNING.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, Self

import httpx2
import msgspec
import yaml
from lightkube import ALL_NS, AsyncClient, KubeConfig
from lightkube.config.models import User
from lightkube.core.exceptions import ConfigError
from lightkube.core.resource import ApiInfo, ResourceDef
from lightkube.generic_resource import (
    GenericGlobalResource,
    GenericGlobalStatus,
    GenericNamespacedResource,
    GenericNamespacedStatus,
)
from lightkube.types import PatchType

from whatsapp_operator.core import answers
from whatsapp_operator.core.manifests import FIELD_MANAGER, owns, request_appliers

from .call import OBJECT_MISSING, Call, error_of, explained
from .errors import LeaseTooShort, NotFound, Rejected
from .kinds import EVENT, STATEFULSET, WAC, Kind, Obj
from .transport import ReconnectingTransport, RetryThrottled, socket_options
from .trust import UNREADABLE, CurrentToken, Trust

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from lightkube.config.kubeconfig import SingleConfig

# ------------------------------------------------------------------------------------------------------------ protocols


class Fence(Protocol):
    """Says whether this process may write, and for how long."""

    def seconds_left(self) -> float:
        """Return for how many seconds from now no other process can be the leader; 0 or less: this process is not the leader."""
        ...


class Unfenced:
    """The fence of a program that needs no leadership."""

    def seconds_left(self) -> float:
        """Return infinity."""
        return float("inf")


class Kube(Protocol):
    """Reads and writes of plain dicts. Errors are KubeErrors; `Unavailable` and `Rejected` can come from every method."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        """Return the object, or None if the API server answered that it does not exist."""
        ...

    async def list_events(self, namespace: str, uid: str) -> list[Obj]:
        """Return the Events about one object, in the server's order and at most `MOST_EVENTS`."""
        ...

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None, *, at_least: str | None = None
    ) -> list[Obj]:
        """Return all objects with these labels, of one namespace or (None) of all, in the server's order.

        ``at_least`` is a resourceVersion of an object of this kind: the objects as they were then or later. Without it, as they are now.
        """
        ...

    async def create(self, obj: Obj) -> Obj:
        """Create the object and return it as stored; AlreadyExists."""
        ...

    async def patch_json(self, kind: Kind, namespace: str | None, name: str, ops: Sequence[Mapping[str, Any]]) -> Obj:
        """Perform a JSON patch and return the result; TestFailed, NotFound."""
        ...

    async def patch_merge(self, kind: Kind, namespace: str | None, name: str, body: Mapping[str, Any]) -> Obj:
        """Merge `body` in and return the result; with `metadata.resourceVersion` inside: Conflict; NotFound."""
        ...

    async def patch_status(self, kind: Kind, namespace: str | None, name: str, body: Mapping[str, Any]) -> Obj:
        """Merge `body` into the status subresource and return the object; with `metadata.resourceVersion` inside: Conflict; NotFound."""
        ...

    async def patch_scale(self, kind: Kind, namespace: str | None, name: str, body: Mapping[str, Any]) -> Obj:
        """Merge `body` into the scale subresource and return the Scale; with `metadata.resourceVersion` inside: Conflict; NotFound."""
        ...

    async def replace(self, obj: Obj) -> Obj:
        """Replace the object of that resourceVersion and return it as stored; Conflict, NotFound."""
        ...

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str, resource_version: str | None = None) -> bool:
        """Delete the object with that uid (and `resource_version`). True: accepted, False: it was gone already; Conflict."""
        ...


# ----------------------------------------------------------------------------------------------------------- the client


MOST_EVENTS = 200
"""How many Events about one object are read; controllers combine repeated ones."""
MAX_IDLE_CONNECTIONS = 30
"""Idle connections that are kept: a failover uses no more."""


def configuration(path: str | Path | None) -> SingleConfig:
    """Read the current context of a kubeconfig file, or (None) the service account of this pod.

    In a pod the server is KUBERNETES_SERVICE_HOST and _PORT, so no DNS is needed. Rejected: there is no usable configuration.
    """
    where = "the service account of this pod" if path is None else f"kubeconfig {path}"
    try:
        config = (KubeConfig.from_service_account() if path is None else KubeConfig.from_file(path)).get()
    except KeyError as e:
        where = "the environment of this pod" if path is None else where
        msg = f"read how to reach the API server: {e} is missing in {where}."
        raise Rejected(msg) from None
    except (ConfigError, OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as e:  # an odd file breaks the parser anywhere
        text = str(e) if isinstance(e, ConfigError | OSError) else type(e).__name__
        msg = f"read how to reach the API server from {where}: {text}; outside of a cluster name a kubeconfig."
        raise Rejected(msg) from None
    if config is None:
        msg = f"{where} has no current context."
        raise Rejected(msg)
    return config


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How long one call may take, in seconds."""

    read: float = 5.0
    write: float = 2.0


class LightKube:
    """Kube over lightkube's AsyncClient.

    Connections go straight to the API server: proxy variables of the environment are ignored.
    """

    def __init__(self, config: SingleConfig, *, limits: CallLimits | None = None) -> None:
        """Prepare for the API server of `config`; nothing is sent yet. No fence holds back its writes: see `fenced`."""
        self._fence: Fence = Unfenced()
        self._limits = limits or CallLimits()
        self.writes: Counter[tuple[str, str]] = Counter()
        """Writes sent so far by (verb, kind), rejected ones too; shared with all `fenced` views. Metrics read it."""
        trust, failed = None, ""
        try:
            trust = Trust(config)
        except UNREADABLE as e:
            failed = type(e).__name__
        if trust is None:  # raised here, because the library's frames keep a key in a temporary file while its exception exists
            msg = f"read the TLS files for {config.cluster.server}: {failed}; check what the kubeconfig names."
            raise Rejected(msg)
        self._transport = ReconnectingTransport(
            lambda: httpx2.AsyncHTTPTransport(
                verify=trust.context(),
                trust_env=False,
                # The library checks each idle connection twice for each call.
                limits=httpx2.Limits(max_connections=100, max_keepalive_connections=MAX_IDLE_CONNECTIONS, keepalive_expiry=None),
                socket_options=socket_options(),
                # A failed connect is retried once at once: of several API servers behind a load balancer one may be gone.
                retries=1,
            ),
            is_outdated=lambda: trust.is_outdated,
        )
        self.sent_again = self._transport.sent_again
        """Reads that were sent again so far; shared in the same way."""
        user, throttled = config.user or User(), RetryThrottled(self._transport)
        self._api: Any = AsyncClient(  # Any: its types do not cover classes that are made at run time
            config._replace(user=user),
            timeout=httpx2.Timeout(self._limits.read),
            field_manager=FIELD_MANAGER,
            trust_env=False,
            transport=CurrentToken(throttled, config.abs_file(user.token_file)) if user.token_file else throttled,
        )

    @classmethod
    def from_kubeconfig(cls, path: str | Path | None, *, limits: CallLimits | None = None) -> Self:
        """Use the current context of a kubeconfig file, or (None) the service account of this pod. Rejected: see ``configuration``.

        A rotated token is read again.
        """
        return cls(configuration(path), limits=limits)

    def fenced(self, fence: Fence) -> LightKube:
        """Return a view whose writes ask `fence` first. Connections and counters are shared. The election uses the unfenced client."""
        view = copy(self)
        view._fence = fence  # noqa: SLF001  the copy is of this class
        return view

    def server_time(self) -> datetime | None:
        """Return the time by the API server's clock, when it answered last; None: no answer had one."""
        return answers.moment(self._transport.date)

    async def close(self) -> None:
        """Close all connections; views are closed with it."""
        await self._api.close()

    # ------------------------------------------------------------------------------------------------------------- reads

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        """See Kube."""
        call = Call("get", kind, namespace, name)
        within = _within(kind, namespace)
        try:
            async with explained(call, self._limits.read):
                return _slim(dict(await self._api.get(_resource(kind), name, **within)))
        except NotFound as e:
            if e.reason == OBJECT_MISSING:
                return None
            raise

    async def list_to_watch(self, kind: Kind, namespace: str | None) -> tuple[list[Obj], str]:
        """Return all objects, as `list` does, and the resourceVersion from which a `watch` misses nothing."""
        within = _within(kind, namespace or ALL_NS)
        head = {"apiVersion": kind.api_version, "kind": kind.kind}
        async with explained(Call("list", kind, namespace, ""), self._limits.read):
            found = self._api.list(_resource(kind), **within)
            return [head | item async for item in found], str(found.resourceVersion)

    async def list_events(self, namespace: str, uid: str) -> list[Obj]:
        """See Kube."""
        found: list[Obj] = []
        async with explained(Call("list", EVENT, namespace, ""), self._limits.read):
            ask = self._api.list(_resource(EVENT), namespace=namespace, fields={"involvedObject.uid": uid}, chunk_size=MOST_EVENTS)
            async for item in ask:
                if len(found) == MOST_EVENTS:
                    break
                found.append({"apiVersion": EVENT.api_version, "kind": EVENT.kind} | item)
        return found

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None, *, at_least: str | None = None
    ) -> list[Obj]:
        """See Kube. Items get the apiVersion and kind that the server leaves out in lists."""
        within = _within(kind, namespace or ALL_NS)
        head = {"apiVersion": kind.api_version, "kind": kind.kind}
        async with explained(Call("list", kind, namespace, ""), self._limits.read):
            # A damaged item is passed on: the reader leaves out this one item and keeps the others.
            if at_least is None:
                items = [head | item async for item in self._api.list(_resource(kind), labels=dict(labels or {}), **within)]
            else:
                items = [head | item for item in await self._list_from_cache(kind, labels or {}, at_least, within)]
        return [_slim(item) if isinstance(item.get("metadata"), dict) else item for item in items]

    async def _list_from_cache(self, kind: Kind, labels: Mapping[str, str], at_least: str, within: Mapping[str, str]) -> Sequence[Obj]:
        inner = self._api._client  # noqa: SLF001  AsyncClient.list takes no resourceVersion; a test guards this path
        selector = ",".join(f"{key}={value}" for key, value in labels.items()) or None
        params = {"labelSelector": selector, "resourceVersion": at_least, "resourceVersionMatch": "NotOlderThan"}
        ask = inner.prepare_request("list", res=_resource(kind), params=params, **within)
        response = await inner.send(inner.build_adapter_request(ask))
        inner.raise_for_status(response)
        items: Sequence[Obj] = msgspec.json.decode(response.content)["items"]
        return items

    async def watch(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        resource_version: str | None = None,
        server_timeout: int = 30,
    ) -> AsyncGenerator[tuple[str, Obj]]:
        """Yield (ADDED | MODIFIED | DELETED, object) until the server ends the stream, after `server_timeout` seconds or earlier.

        It is one stream: the caller adds the loop (and `contextlib.aclosing`). Without `resource_version` the existing objects come first,
        as ADDED. Expired, Rejected, Unavailable; the latter also if the server does not end the stream in time (a dead connection).
        """
        inner = self._api._client  # noqa: SLF001  lightkube's own watch never ends and hides rejected reconnects; a test guards this path
        params = {
            "timeoutSeconds": server_timeout,
            "resourceVersion": resource_version,
            "labelSelector": ",".join(f"{key}={value}" for key, value in (labels or {}).items()) or None,
            "fieldSelector": f"metadata.name={name}" if name else None,
        }
        within = _within(kind, namespace or ALL_NS)
        call = Call("watch", kind, namespace, name or "")
        ends = asyncio.get_running_loop().time() + server_timeout + self._limits.read
        async with explained(call, self._limits.read):
            ask = inner.prepare_request("list", res=_resource(kind), watch=True, params=params, **within)
            ask.timeout = httpx2.Timeout(self._limits.read, read=None)
            response = await inner.send(inner.build_adapter_request(ask), stream=True)
        try:
            async with explained(call, self._limits.read):
                if response.is_error:
                    await response.aread()  # the body has the reason
                inner.raise_for_status(response)
            lines = response.aiter_lines()
            while True:
                async with explained(call, ends - asyncio.get_running_loop().time()):
                    line = await anext(lines, None)
                    event = _event_of(call, msgspec.json.decode(line)) if line else None
                if line is None:
                    return
                if event:
                    yield event
        finally:
            await response.aclose()

    # ------------------------------------------------------------------------------------------------------------ writes

    async def create(self, obj: Obj) -> Obj:
        """See Kube."""
        call = Call.of("create", obj)
        async with self._write(call):
            return _slim(dict(await self._api.create(_resource(call.kind)(obj))))

    async def replace(self, obj: Obj) -> Obj:
        """See Kube. ValueError without `metadata.resourceVersion`, because then the server would replace any version."""
        call = Call.of("replace", obj)
        if not obj["metadata"].get("resourceVersion"):
            msg = f"{call} needs metadata.resourceVersion."
            raise ValueError(msg)
        async with self._write(call):
            return _slim(dict(await self._api.replace(_resource(call.kind)(obj))))

    async def patch_json(self, kind: Kind, namespace: str | None, name: str, ops: Sequence[Mapping[str, Any]]) -> Obj:
        """See Kube."""
        return await self._patch(Call("patch", kind, namespace, name), PatchType.JSON, ops)

    async def patch_merge(self, kind: Kind, namespace: str | None, name: str, body: Mapping[str, Any]) -> Obj:
        """See Kube."""
        return await self._patch(Call("patch", kind, namespace, name), PatchType.MERGE, body)

    async def patch_status(self, kind: Kind, namespace: str | None, name: str, body: Mapping[str, Any]) -> Obj:
        """See Kube."""
        return await self._patch(Call("patch status", kind, namespace, name), PatchType.MERGE, body, "Status")

    async def patch_scale(self, kind: Kind, namespace: str | None, name: str, body: Mapping[str, Any]) -> Obj:
        """See Kube."""
        return await self._patch(Call("patch scale", kind, namespace, name), PatchType.MERGE, body, "Scale")

    async def _patch(self, call: Call, how: PatchType, body: Any, part: str = "") -> Obj:
        within = _within(call.kind, call.namespace)
        resource = getattr(_resource(call.kind), part) if part else _resource(call.kind)
        async with self._write(call, json_patch=how is PatchType.JSON):
            return _slim(dict(await self._api.patch(resource, call.name, body, patch_type=how, **within)))

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str, resource_version: str | None = None) -> bool:
        """See Kube."""
        only = {"uid": uid} | ({} if resource_version is None else {"resourceVersion": resource_version})
        options: Obj = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": only}
        within = _within(kind, namespace)
        inner = self._api._client  # noqa: SLF001  AsyncClient.delete cannot send preconditions; a test guards this path
        try:
            async with self._write(Call("delete", kind, namespace, name)):
                ask = inner.prepare_request("delete", res=_resource(kind), name=name, **within)
                ask.data = options
                inner.raise_for_status(await inner.send(inner.build_adapter_request(ask)))
        except NotFound as e:
            if e.reason == OBJECT_MISSING:
                return False
            raise
        return True

    @asynccontextmanager
    async def _write(self, call: Call, *, json_patch: bool = False) -> AsyncIterator[None]:
        left = self._fence.seconds_left()
        if left <= self._limits.write:
            msg = f"{call}: not sent, {max(left, 0):.1f} s of the Lease are left and the call may take {self._limits.write:g} s."
            raise LeaseTooShort(msg)
        self.writes[call.verb, call.kind.kind] += 1
        async with explained(call, self._limits.write, json_patch=json_patch):
            yield


# ------------------------------------------------------------------------------------------------ answers of the server


def _slim(obj: Obj) -> Obj:
    """Drop managedFields, half of an object's size, except what the operator judges.

    A StatefulSet keeps the manager that wrote its replicas last, a WhatsAppCluster those that apply a switchover.
    """
    managers = obj["metadata"].pop("managedFields", None)
    kept: list[dict[str, Any]] = []
    if obj.get("kind") == STATEFULSET.kind and isinstance(managers, list):
        scaled = [one for one in managers if owns(one, "f:spec", "f:replicas")]
        last = max(scaled, key=lambda one: str(one.get("time") or ""), default=None)
        kept = [{"manager": str(last.get("manager") or "")}] if last is not None else []
    elif obj.get("kind") == WAC.kind and isinstance(managers, list):
        kept = request_appliers(managers)
    if kept:
        obj["metadata"]["managedFields"] = kept
    return obj


def _event_of(call: Call, event: Obj) -> tuple[str, Obj]:
    what, obj = event["type"], event["object"]
    if what == "ERROR":
        raise error_of(call, int(obj.get("code") or 500), obj)
    return what, obj


# ---------------------------------------------------------------------------------------------------------------- naming


def _within(kind: Kind, namespace: str | None) -> dict[str, str]:
    """Return the namespace argument of a call. A missing one is a ValueError, because the library would use its default."""
    if not kind.namespaced:
        return {}
    if not namespace:
        msg = f"{kind.kind} is namespaced: name the namespace."
        raise ValueError(msg)
    return {"namespace": namespace}


@cache
def _resource(kind: Kind) -> Any:
    """Return a lightkube class for plain dicts of this kind. Its own registry has typed models for the kinds that it knows."""
    group, _, version = kind.api_version.rpartition("/")
    main, status = (GenericNamespacedResource, GenericNamespacedStatus) if kind.namespaced else (GenericGlobalResource, GenericGlobalStatus)
    place = ResourceDef(group, version, kind.kind)
    verbs = ["delete", "get", "global_list", "global_watch", "list", "patch", "post", "put", "watch"]

    def part(name: str) -> type:
        info = ApiInfo(resource=place, parent=place, plural=kind.plural, verbs=["get", "patch", "put"], action=name.lower())
        return type(f"{kind.kind}{name}", (status,), {"_api_info": info})

    return type(
        kind.kind,
        (main,),
        {
            "_api_info": ApiInfo(resource=place, plural=kind.plural, verbs=verbs),
            "Status": part("Status"),
            "Scale": part("Scale"),
        },
    )
