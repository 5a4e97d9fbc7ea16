"""The simulated API server: objects as dicts, one resourceVersion for all, the semantics of each kind of write. Takes no time."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .kinds import DEPLOYMENT, EVENT, LEASE, NODE, POD, STATEFULSET, WAC, Kind, Named, Obj, kind_of, own

Name = tuple[str, str]
"""Namespace and name."""

WITH_STATUS = frozenset({WAC})
WITH_GENERATION = frozenset({WAC, STATEFULSET, DEPLOYMENT})
WATCHED = frozenset({NODE, LEASE})
KEPT = 400
"""Versions of one object that stale reads can still see."""


class Rejected(Exception):  # noqa: N818  the answers are named as Kubernetes names them
    """A request that the API server does not carry out."""


class NotFound(Rejected):
    """There is no such object."""


class AlreadyExists(Rejected):
    """There is one of that name."""


class Conflict(Rejected):
    """The object is not the one that the request was judged by."""


class TestFailed(Rejected):
    """A test of a JSON patch, or one of its paths, does not match."""

    __test__ = False


@dataclass(frozen=True, slots=True)
class Change:
    """One write that took effect. `before` None: created; `after` None: gone."""

    at: float
    actor: str
    verb: str
    kind: Kind
    name: Name
    before: Obj | None
    after: Obj | None
    revision: int
    by_version: bool = False
    """Whether the request carried the resourceVersion that it was judged by."""
    asked_at: float = 0.0
    """When whoever asked for it did so."""


def merged(base: Any, patch: Any) -> Any:
    """Return a JSON merge patch applied (RFC 7396); neither argument is changed."""
    if not isinstance(patch, Mapping):
        return patch
    result: dict[str, Any] = dict(base) if isinstance(base, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def json_patched(obj: Obj, ops: Sequence[Mapping[str, Any]]) -> Obj:
    """Return a JSON patch applied; TestFailed if a test or a path does not match. A test against null passes for what is absent."""
    result = obj
    for op in ops:
        path = [part.replace("~1", "/").replace("~0", "~") for part in op["path"].split("/")[1:]]
        result = _patched(result, path, op)
    return result


def _patched(node: Any, path: list[str], op: Mapping[str, Any]) -> Any:
    key = path[0]
    if not isinstance(node, Mapping):
        raise TestFailed(f"path {op['path']} is not there")
    if len(path) > 1:
        if key not in node:
            if op["op"] == "test" and op.get("value") is None:
                return node
            raise TestFailed(f"path {op['path']} is not there")
        return {**node, key: _patched(node[key], path[1:], op)}
    if op["op"] == "test":
        if node.get(key) != op.get("value"):
            raise TestFailed(f"test of {op['path']}: {node.get(key)!r} is not {op.get('value')!r}")
        return node
    if op["op"] == "remove":
        if key not in node:
            raise TestFailed(f"path {op['path']} is not there")
        return {name: value for name, value in node.items() if name != key}
    return {**node, key: op["value"]}


def matches(selector: Mapping[str, str] | None, labels: Mapping[str, str] | None) -> bool:
    """Return whether labels have everything that a selector says."""
    labels = labels or {}
    return all(labels.get(key) == value for key, value in (selector or {}).items())


class ApiServer:
    """Objects are never changed in place, so whoever read one may keep it."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.revision = 1000
        self.not_in_crd: set[str] = set()
        """Fields of `status.operation` that the installed CRD does not name, so that they are left out."""
        self._objects: dict[Kind, dict[Name, Obj]] = {}
        self._past: dict[Kind, dict[Name, list[tuple[float, Obj | None]]]] = {}
        self._uids = 0
        self.checks: list[Callable[[Change], None]] = []
        """Called on every write, before anybody else learns of it."""
        self.watchers: list[Callable[[Change], None]] = []
        self.asked_at: float | None = None
        """When the request that is being carried out was sent; None: just now."""
        self.recent: deque[Change] = deque(maxlen=400)
        """The last changes of nodes and their Leases, for watches that go on from a resourceVersion."""

    # --- reads ------------------------------------------------------------------------------------------------------

    def get(self, kind: Named, name: Name, as_of: float | None = None) -> Obj | None:
        """Return an object as it is, or as it was at a time."""
        kind = own(kind)
        if as_of is None:
            return self._objects.get(kind, {}).get(name)
        return self._at(self._past.get(kind, {}).get(name, []), as_of)

    def list(self, kind: Named, namespace: str | None, labels: Mapping[str, str] | None = None, as_of: float | None = None) -> list[Obj]:
        """Return objects in the order of their names."""
        return [
            obj
            for (space, _), obj in sorted(self._all(own(kind), as_of))
            if (namespace is None or space == namespace) and matches(labels, obj["metadata"].get("labels"))
        ]

    def _all(self, kind: Kind, as_of: float | None) -> Iterator[tuple[Name, Obj]]:
        if as_of is None:
            yield from self._objects.get(kind, {}).items()
            return
        for name, versions in self._past.get(kind, {}).items():
            obj = self._at(versions, as_of)
            if obj is not None:
                yield name, obj

    @staticmethod
    def _at(versions: Sequence[tuple[float, Obj | None]], as_of: float) -> Obj | None:
        place = bisect_right(versions, as_of, key=lambda version: version[0])
        return versions[place - 1][1] if place else None

    # --- writes -----------------------------------------------------------------------------------------------------

    def create(self, actor: str, obj: Obj) -> Obj:
        """Create; AlreadyExists."""
        kind = kind_of(obj)
        name = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        if kind is EVENT:
            self._tell(Change(self._now(), actor, "create", kind, name, None, obj, self.revision))
            return obj
        if self.get(kind, name) is not None:
            raise AlreadyExists(f"{kind.kind} {name[1]} is there already")
        self._uids += 1
        stamped = {"uid": f"{kind.kind.lower()}-{self._uids}", "creationTimestamp": f"at {self._now():010.3f}", "generation": 1}
        metadata = {key: value for key, value in obj["metadata"].items() if key not in {"resourceVersion", "uid"}}
        return self._store(actor, "create", kind, name, None, {**obj, "metadata": {**metadata, **stamped}})

    def merge(
        self,
        actor: str,
        kind: Named,
        name: Name,
        body: Mapping[str, Any],
        *,
        status: bool = False,
        verb: str = "patch",
        inside: bool = False,
    ) -> Obj:
        """Merge a patch in; with `metadata.resourceVersion` inside: Conflict. `inside`: a controller of ours may write all at once."""
        kind = own(kind)
        before = self._needed(kind, name)
        version = (body.get("metadata") or {}).get("resourceVersion")
        if version is not None and version != before["metadata"]["resourceVersion"]:
            raise Conflict(f"{kind.kind} {name[1]} is at {before['metadata']['resourceVersion']}, not at {version}")
        after: Obj = merged(before, body)
        if not inside and (kind in WITH_STATUS or status):
            part = "status" if status else "spec"
            kept = {key: value for key, value in before.items() if key not in {part, "metadata"}}
            metadata = before["metadata"] if status else after["metadata"]
            after = {**kept, "metadata": metadata, **({part: after[part]} if part in after else {})}
        noted = (after.get("status") or {}).get("operation")
        if noted and self.not_in_crd:
            left = {key: value for key, value in noted.items() if key not in self.not_in_crd}
            after = {**after, "status": {**after["status"], "operation": left}}
        return self._store(actor, "patch status" if status else verb, kind, name, before, after, by_version=version is not None)

    def patch(self, actor: str, kind: Named, name: Name, ops: Sequence[Mapping[str, Any]]) -> Obj:
        """Perform a JSON patch."""
        kind = own(kind)
        before = self._needed(kind, name)
        return self._store(actor, "patch", kind, name, before, json_patched(before, ops))

    def replace(self, actor: str, obj: Obj) -> Obj:
        """Put by resourceVersion."""
        kind = kind_of(obj)
        name = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        before = self._needed(kind, name)
        if obj["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]:
            raise Conflict(f"{kind.kind} {name[1]} has moved on")
        return self._store(actor, "replace", kind, name, before, obj, by_version=True)

    def delete(
        self, actor: str, kind: Named, name: Name, *, uid: str | None = None, version: str | None = None, grace: int | None = None
    ) -> bool:
        """Delete; a pod first gets its deletionTimestamp, unless `grace` is 0."""
        kind = own(kind)
        before = self.get(kind, name)
        if before is None:
            return False
        metadata = before["metadata"]
        if (uid is not None and uid != metadata["uid"]) or (version is not None and version != metadata["resourceVersion"]):
            raise Conflict(f"{kind.kind} {name[1]} is not the one that was judged")
        if kind is POD and grace != 0:
            if "deletionTimestamp" not in metadata:
                after = {**before, "metadata": {**metadata, "deletionTimestamp": f"at {self._now():.3f}"}}
                self._store(actor, "delete", kind, name, before, after, by_version=version is not None)
            return True
        self.revision += 1
        del self._objects[kind][name]
        self._past[kind][name].append((self._now(), None))
        self._tell(Change(self._now(), actor, "delete", kind, name, before, None, self.revision, by_version=version is not None))
        return True

    def _needed(self, kind: Kind, name: Name) -> Obj:
        obj = self.get(kind, name)
        if obj is None:
            raise NotFound(f"{kind.kind} {name[1]} is not there")
        return obj

    def _store(self, actor: str, verb: str, kind: Kind, name: Name, before: Obj | None, after: Obj, *, by_version: bool = False) -> Obj:
        if before is not None:
            # The server keeps what is its own, and drops a write that changes nothing.
            own = {key: before["metadata"][key] for key in ("uid", "resourceVersion", "creationTimestamp", "generation")}
            after = {**after, "metadata": {**after["metadata"], **own}}
            if after == before:
                return before
        self.revision += 1
        metadata = {**after["metadata"], "resourceVersion": str(self.revision)}
        if before is not None and kind in WITH_GENERATION and before.get("spec") != after.get("spec"):
            metadata["generation"] += 1
        after = {**after, "metadata": metadata}
        self._objects.setdefault(kind, {})[name] = after
        past = self._past.setdefault(kind, {}).setdefault(name, [])
        past.append((self._now(), after))
        del past[:-KEPT]
        self._tell(Change(self._now(), actor, verb, kind, name, before, after, self.revision, by_version))
        return after

    def _tell(self, change: Change) -> None:
        change = replace(change, asked_at=change.at if self.asked_at is None else self.asked_at)
        if change.kind in WATCHED:
            self.recent.append(change)
        for check in self.checks:
            check(change)
        for watcher in self.watchers:
            watcher(change)
