"""The simulated API server: objects as dicts, one resourceVersion for all, the semantics of each kind of write. Takes no time.

What it does is what the real one does: the conformance table holds both to the same rows.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import itemgetter
from typing import Any

from .kinds import DEPLOYMENT, EVENT, LEASE, NETWORKPOLICY, NODE, PDB, POD, SERVICE, STATEFULSET, WAC, Kind, Named, Obj, kind_of, own
from .patches import DoesNotMatch, json_patched, merged
from .schema import completed
from .virtual import START

Name = tuple[str, str]
"""Namespace and name."""

WITH_STATUS = frozenset({WAC, POD, SERVICE, STATEFULSET, DEPLOYMENT, PDB, NODE})
"""Kinds whose status is a subresource: written apart from all else."""
WITH_GENERATION = frozenset({WAC, POD, STATEFULSET, DEPLOYMENT, PDB, NETWORKPOLICY})
FIRST_STATUS: Mapping[Kind, Obj] = {POD: {"phase": "Pending"}, STATEFULSET: {"replicas": 0}, SERVICE: {"loadBalancer": {}}}
OWN = ("uid", "resourceVersion", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")
"""What only the server itself writes into metadata."""
KEPT = 400
"""Versions of one object that stale reads can still see."""
REMEMBERED, REMEMBERED_FOR = 100, 75.0
"""Changes of a kind from which a watch can go on: at least so many, and all of the last seconds; before that it gets 410."""
GRACE = 30
"""Seconds that a pod gets for its end, if nobody says otherwise."""


class Rejected(Exception):  # noqa: N818  the answers are named as Kubernetes names them
    """A request that the API server does not carry out; with the HTTP status code and the reason of its answer."""

    code, reason = 400, ""


class NotFound(Rejected):
    """There is no such object."""

    code, reason = 404, "NotFound"


class AlreadyExists(Rejected):
    """There is one of that name."""

    code, reason = 409, "AlreadyExists"


class Conflict(Rejected):
    """The object is not the one that the request was judged by."""

    code, reason = 409, "Conflict"


class TestFailed(Rejected):
    """A test of a JSON patch, or one of its paths, does not match."""

    __test__ = False
    code, reason = 422, "Invalid"


class Invalid(Rejected):
    """What was to be stored is not allowed."""

    code, reason = 422, "Invalid"


class Denied(Rejected):
    """A right is missing, or a webhook denies it."""

    code, reason = 403, "Forbidden"


class VersionOnCreate(Rejected):
    """What is to be created carries a resourceVersion."""

    code = 500


class Expired(Rejected):
    """What happened after a resourceVersion is not known any more."""

    code, reason = 410, "Expired"


class TooManyRequests(Rejected):
    """Not now: a disruption budget does not allow it."""

    code, reason = 429, "TooManyRequests"


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
    """When the caller asked for it."""


def stamp(at: float) -> str:
    """Return a virtual time as Kubernetes writes it: whole seconds."""
    return (START + timedelta(seconds=int(at))).isoformat().replace("+00:00", "Z")


def matches(selector: Mapping[str, str] | None, labels: Mapping[str, str] | None) -> bool:
    """Return whether labels have everything that a selector says."""
    return not selector or selector.items() <= (labels or {}).items()


class ApiServer:
    """Objects are never changed in place, so a reader may keep it."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.revision = 1000
        self.not_in_crd: set[str] = set()
        """Fields of `status.operation` that the installed CRD does not name, so that they are left out."""
        self.not_in_status: set[str] = set()
        """The same of `status`."""
        self._objects: dict[Kind, dict[Name, Obj]] = {}
        self._listed: dict[Kind, dict[tuple[str | None, tuple[tuple[str, str], ...]], Sequence[Obj]]] = {}
        """What was listed since an object of the kind last changed."""
        self._past: dict[Kind, dict[Name, list[tuple[float, Obj | None]]]] = {}
        self._uids = 0
        self.checks: list[Callable[[Change], None]] = []
        """Called on every write, before any watch delivers it."""
        self.admission: list[Callable[[Kind, Obj], Obj]] = []
        """Mutating admission: each is given what a create or an update of an object, its status apart, would store, and returns what is
        stored instead. It must not change what it is given."""
        self.watchers: list[Callable[[Change], None]] = []
        self.rejects: dict[tuple[str, Kind], type[Rejected]] = {}
        """By verb and kind: how operators' writes are answered, none of which is carried out then."""
        self.asked_at: float | None = None
        """When the request that is being carried out was sent; None: just now."""
        self._recent: dict[Kind, deque[Change]] = {}
        self.events: deque[Obj] = deque(maxlen=KEPT)
        self._forgotten: dict[Kind, int] = {}
        """By kind: the last revision that no watch can go on from."""

    # --- reads ------------------------------------------------------------------------------------------------------

    def get(self, kind: Named, name: Name, as_of: float | None = None) -> Obj | None:
        """Return an object as it is, or as it was at a time."""
        kind = own(kind)
        if as_of is None:
            return self._objects.get(kind, {}).get(name)
        return self._at(self._past.get(kind, {}).get(name, []), as_of)

    def events_about(self, namespace: str, uid: str) -> list[Obj]:
        """Return the Events about one object, oldest first. Nobody else reads Events, so they are not among the objects."""
        return [one for one in self.events if (one["metadata"]["namespace"], one["involvedObject"]["uid"]) == (namespace, uid)]

    def list(self, kind: Named, namespace: str | None, labels: Mapping[str, str] | None = None, as_of: float | None = None) -> list[Obj]:
        """Return objects in the order of their names."""
        kind = own(kind)
        if as_of is not None:
            return [*self._found(kind, namespace, labels, as_of)]
        listed, asked = self._listed.setdefault(kind, {}), (namespace, tuple((labels or {}).items()))
        if asked not in listed:
            listed[asked] = self._found(kind, namespace, labels, as_of)
        return [*listed[asked]]

    def _found(self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None, as_of: float | None) -> Sequence[Obj]:
        found = [
            (name, obj)
            for name, obj in self._all(kind, as_of)
            if (namespace is None or name[0] == namespace) and matches(labels, obj["metadata"].get("labels"))
        ]
        return [obj for _, obj in sorted(found, key=itemgetter(0))]

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

    def earlier(self, kind: Named, name: Name, most: int) -> Sequence[Obj]:
        """Return the last versions of an object, at most so many, as long as it is the same one."""
        kind = own(kind)
        now = self.get(kind, name)
        past = [obj for _, obj in self._past.get(kind, {}).get(name, ())[-most:] if obj is not None]
        return [obj for obj in past if now is not None and obj["metadata"]["uid"] == now["metadata"]["uid"]]

    def time_of(self, kind: Named, revision: int) -> float:
        """Return since when a cache has all changes of a kind up to a revision."""
        past = (version for versions in self._past.get(own(kind), {}).values() for version in versions)
        return max((at for at, obj in past if obj is not None and int(obj["metadata"]["resourceVersion"]) <= revision), default=0.0)

    def since(self, kind: Named, revision: int) -> Sequence[Change]:
        """Return what happened to objects of a kind after a revision; Expired if that is not known any more."""
        kind = own(kind)
        if revision < self._forgotten.get(kind, 1000):
            raise Expired(f"too old resource version: {revision}")
        return [change for change in self._recent.get(kind, ()) if change.revision > revision]

    def forget(self, kind: Named) -> None:
        """Know no change of a kind from before now, as after a restart."""
        self._forgotten[own(kind)] = self.revision
        self._recent.pop(own(kind), None)

    # --- writes -----------------------------------------------------------------------------------------------------

    def create(self, actor: str, obj: Obj) -> Obj:
        """Create; AlreadyExists."""
        kind = kind_of(obj)
        self._uids += 1
        given = obj["metadata"]
        name = (given.get("namespace", ""), given.get("name") or f"{given['generateName']}{self._uids:05d}")
        if kind is EVENT:
            _assert_is_event(obj)
            self.events.append(obj)
            self._tell(self._change(actor, "create", kind, name, None, obj))
            return obj
        if "resourceVersion" in given:
            raise VersionOnCreate("resourceVersion should not be set on objects to be created")
        if self.get(kind, name) is not None:
            raise AlreadyExists(f"{kind.kind} {name[1]} is there already")
        metadata = {key: value for key, value in given.items() if key not in OWN}
        metadata |= {"name": name[1], "uid": f"{kind.kind.lower()}-{self._uids}", "creationTimestamp": stamp(self._now())}
        if kind in WITH_GENERATION:
            metadata["generation"] = 1
        made = {**obj, "metadata": metadata}
        if kind in WITH_STATUS and kind is not NODE:
            made.pop("status", None)
            made |= {"status": FIRST_STATUS[kind]} if kind in FIRST_STATUS else {}
        made = self._admitted(kind, made)
        return self._store(actor, "create", kind, name, None, completed(made) if kind is WAC else made)

    def _admitted(self, kind: Kind, obj: Obj) -> Obj:
        for mutate in self.admission:
            obj = mutate(kind, obj)
        return obj

    def merge(
        self,
        actor: str,
        kind: Named,
        name: Name,
        body: Mapping[str, Any],
        *,
        status: bool = False,
        scale: bool = False,
        verb: str = "patch",
        inside: bool = False,
    ) -> Obj:
        """Merge a patch in; with `metadata.resourceVersion` inside: Conflict. `inside`: a simulated controller may write all at once.

        `scale`: the number of replicas alone, by the subresource that admission of the kind does not see.
        """
        kind = own(kind)
        if kind is EVENT:
            return self._repeat(actor, name, body)
        before = self._needed(kind, name)
        version = (body.get("metadata") or {}).get("resourceVersion")
        after: Obj = merged(before, body)
        if scale:
            only = {"metadata": {**before["metadata"], "resourceVersion": after["metadata"]["resourceVersion"]}}
            after = {**before, **only, "spec": {**before["spec"], "replicas": after["spec"]["replicas"]}}
        part = None if inside else "scale" if scale else _part(status)
        return self._update(actor, verb, kind, name, before, after, part=part, by_version=version is not None)

    def _repeat(self, actor: str, name: Name, body: Mapping[str, Any]) -> Obj:
        """Count an Event in a series, which is all that may be changed of one."""
        assert body.keys() == {"count", "lastTimestamp", "series"}
        assert body["series"]["count"] == body["count"] >= 2
        assert body["series"]["lastObservedTime"].startswith(body["lastTimestamp"][:-1])
        for index, event in enumerate(self.events):
            if (event["metadata"]["namespace"], event["metadata"]["name"]) == name:
                self.events[index] = after = {**event, **body}
                self._tell(self._change(actor, "patch", EVENT, name, event, after))
                return after
        raise NotFound(f"Event {name[1]} is not there")

    def patch(self, actor: str, kind: Named, name: Name, ops: Sequence[Mapping[str, Any]]) -> Obj:
        """Perform a JSON patch."""
        kind = own(kind)
        before = self._needed(kind, name)
        try:
            after = json_patched(before, ops)
        except DoesNotMatch as error:
            raise TestFailed(str(error)) from None
        return self._update(actor, "patch", kind, name, before, after, part="main")

    def replace(self, actor: str, obj: Obj, *, status: bool = False) -> Obj:
        """Put by resourceVersion."""
        kind = kind_of(obj)
        name = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        if kind is LEASE and self.get(kind, name) is None and "uid" in obj["metadata"]:
            # A Lease may be created by a PUT; then the uid is what does not fit.
            raise Conflict(f"{kind.kind} {name[1]} is not the one of that uid")
        before = self._needed(kind, name)
        version = obj["metadata"].get("resourceVersion")
        if version is None and kind in {WAC, LEASE}:
            raise Invalid("metadata.resourceVersion: must be specified for an update")
        return self._update(actor, "replace", kind, name, before, obj, part=_part(status), by_version=version is not None)

    def _update(
        self, actor: str, verb: str, kind: Kind, name: Name, before: Obj, after: Obj, *, part: str | None, by_version: bool = False
    ) -> Obj:
        """Store what a request made of an object. `part`: what of it the request may write; None: all."""
        old, new = before["metadata"], after["metadata"]
        version = new.get("resourceVersion", old["resourceVersion"])
        if version != old["resourceVersion"]:
            raise Conflict(f"{kind.kind} {name[1]} is at {old['resourceVersion']}, not at {version}")
        if new.get("uid", old["uid"]) != old["uid"]:
            raise Invalid("metadata.uid: field is immutable")
        if part is not None and (kind in WITH_STATUS or part == "status"):
            after = self._only(part, kind, before, after)
        if part == "main":
            after = self._admitted(kind, after)
        if kind is WAC:
            after = completed(after, before)
            if self.not_in_status and "status" in after:
                after = {**after, "status": {key: value for key, value in after["status"].items() if key not in self.not_in_status}}
            noted = (after.get("status") or {}).get("operation")
            if noted and self.not_in_crd:
                left = {key: value for key, value in noted.items() if key not in self.not_in_crd}
                after = {**after, "status": {**after["status"], "operation": left}}
        metadata = {key: value for key, value in after["metadata"].items() if key not in OWN}
        metadata |= {key: old[key] for key in OWN if key in old}
        after = {**after, "metadata": metadata}
        if after == before:
            return before
        finalizers, earlier = metadata.get("finalizers") or (), old.get("finalizers") or ()
        if "deletionTimestamp" in old:
            if not set(finalizers) <= set(earlier):
                raise Invalid("metadata.finalizers: no new finalizers can be added if the object is being deleted")
            if earlier and not finalizers and old["deletionGracePeriodSeconds"] == 0:
                self._remove(actor, kind, name, after, by_version=by_version)
                return after
        if kind in WITH_GENERATION and part is not None and before.get("spec") != after.get("spec"):
            metadata["generation"] += 1
        return self._store(actor, "patch status" if part == "status" else verb, kind, name, before, after, by_version=by_version)

    def _only(self, part: str, kind: Kind, before: Obj, after: Obj) -> Obj:
        """Return the object with only that part of it changed: everything but the status, or the status."""
        wanted, other = (before, after) if part == "status" else (after, before)
        rest = {key: value for key, value in wanted.items() if key != "status"}
        if part == "status" and kind is not WAC:
            # The built-in kinds take labels and annotations with a status, too.
            rest["metadata"] = after["metadata"]
        return {**rest, "status": other["status"]} if "status" in other else rest

    def delete(
        self,
        actor: str,
        kind: Named,
        name: Name,
        *,
        uid: str | None = None,
        version: str | None = None,
        grace: int | None = None,
        propagation: str | None = None,
    ) -> bool:
        """Delete. A pod on a node first gets its deletionTimestamp, and so does what has finalizers. Return whether it was there."""
        kind = own(kind)
        before = self.get(kind, name)
        if before is None:
            return False
        metadata = before["metadata"]
        if (uid is not None and uid != metadata["uid"]) or (version is not None and version != metadata["resourceVersion"]):
            raise Conflict(f"{kind.kind} {name[1]} is not the one that was judged")
        by_version = version is not None
        finalizers = list(dict.fromkeys([*(metadata.get("finalizers") or ()), *_finalizers_for(propagation)]))
        seconds = _grace_of(before, grace) if kind is POD else 0
        is_asked_again = "deletionTimestamp" in metadata
        if is_asked_again and (grace is None or seconds >= metadata["deletionGracePeriodSeconds"] > 0):
            return True
        marked = before
        if kind is POD or finalizers:
            own_now = {"deletionTimestamp": stamp(self._now() + seconds), "deletionGracePeriodSeconds": seconds}
            if finalizers:
                own_now["finalizers"] = finalizers
            if not is_asked_again and "generation" in metadata:
                own_now["generation"] = metadata["generation"] + 1
            marked = {**before, "metadata": {**metadata, **own_now}}
            if marked != before:
                marked = self._store(actor, "delete", kind, name, before, marked, by_version=by_version)
        if seconds == 0 and not finalizers:
            self._remove(actor, kind, name, marked, by_version=by_version)
        return True

    def _remove(self, actor: str, kind: Kind, name: Name, before: Obj, *, by_version: bool) -> None:
        self.revision += 1
        self._listed.pop(kind, None)
        del self._objects[kind][name]
        self._past[kind][name].append((self._now(), None))
        self._tell(self._change(actor, "delete", kind, name, before, None, by_version=by_version))

    def _needed(self, kind: Kind, name: Name) -> Obj:
        obj = self.get(kind, name)
        if obj is None:
            raise NotFound(f"{kind.kind} {name[1]} is not there")
        return obj

    def _store(self, actor: str, verb: str, kind: Kind, name: Name, before: Obj | None, after: Obj, *, by_version: bool = False) -> Obj:
        self.revision += 1
        after = {**after, "metadata": {**after["metadata"], "resourceVersion": str(self.revision)}}
        self._listed.pop(kind, None)
        self._objects.setdefault(kind, {})[name] = after
        past = self._past.setdefault(kind, {}).setdefault(name, [])
        past.append((self._now(), after))
        del past[:-KEPT]
        self._tell(self._change(actor, verb, kind, name, before, after, by_version=by_version))
        return after

    def _change(
        self, actor: str, verb: str, kind: Kind, name: Name, before: Obj | None, after: Obj | None, *, by_version: bool = False
    ) -> Change:
        now = self._now()
        asked_at = now if self.asked_at is None else self.asked_at
        return Change(now, actor, verb, kind, name, before, after, self.revision, by_version, asked_at)

    def _tell(self, change: Change) -> None:
        recent = self._recent.setdefault(change.kind, deque())
        recent.append(change)
        while len(recent) > REMEMBERED and recent[0].at < change.at - REMEMBERED_FOR:
            self._forgotten[change.kind] = recent.popleft().revision
        for check in self.checks:
            check(change)
        for watcher in [*self.watchers]:
            watcher(change)


def _part(status: bool) -> str:
    return "status" if status else "main"


def _finalizers_for(propagation: str | None) -> tuple[str, ...]:
    return {"Orphan": ("orphan",), "Foreground": ("foregroundDeletion",)}.get(propagation or "", ())


def _grace_of(pod: Obj, asked: int | None) -> int:
    """Return the seconds that a pod gets for its end: none if nothing of it can run."""
    if not pod["spec"].get("nodeName") or pod["status"].get("phase") in {"Failed", "Succeeded"}:
        return 0
    return asked if asked is not None else int(pod["spec"].get("terminationGracePeriodSeconds", GRACE))


def _assert_is_event(event: Obj) -> None:
    """Fail for an Event that the API server rejects, or whose times differ."""
    texts = {
        "type",
        "reason",
        "action",
        "message",
        "eventTime",
        "firstTimestamp",
        "lastTimestamp",
        "reportingComponent",
        "reportingInstance",
    }
    assert event.keys() == {"apiVersion", "kind", "metadata", "involvedObject", "source", "count", *texts}
    assert (event["apiVersion"], event["count"]) == ("v1", 1)
    assert event["involvedObject"]["namespace"] == event["metadata"]["namespace"]
    assert len(event["message"]) <= 1024
    assert re.fullmatch(r"[^.]+\.\d{6}Z", event["eventTime"])
    assert event["eventTime"].startswith(event["firstTimestamp"][:-1])
    assert event["firstTimestamp"] == event["lastTimestamp"]
