"""The simulated garbage collector: what has no living owner any more is deleted, some time later."""

from __future__ import annotations

from collections.abc import Callable

from .apiserver import ApiServer, Change, Conflict, Name, NotFound
from .kinds import KINDS, Kind, Obj

ACTOR = "garbage-collector"


class Collector:
    """Follows the API server. `later` calls what it is given after a random time between two, in seconds."""

    def __init__(self, server: ApiServer, later: Callable[..., None]) -> None:
        self._server = server
        self._later = later
        server.watchers.append(self._watch)

    def _watch(self, change: Change) -> None:
        if change.after is None:
            self._later(0.05, 1.0, self._owner_gone, (change.before or {})["metadata"]["uid"])
            return
        metadata = change.after["metadata"]
        finalizers = metadata.get("finalizers") or ()
        if "deletionTimestamp" in metadata and {"orphan", "foregroundDeletion"} & set(finalizers):
            self._later(0.05, 0.5, self._finalize, change.kind, change.name, metadata["uid"])
        if metadata.get("ownerReferences") and change.before is None:
            self._later(0.05, 1.0, self._observe, change.kind, change.name, metadata["uid"])

    def _owned_by(self, uid: str) -> list[tuple[Kind, Name, Obj]]:
        return [
            (kind, (obj["metadata"].get("namespace", ""), obj["metadata"]["name"]), obj)
            for kind in KINDS
            for obj in self._server.list(kind, None)
            if any(owner.get("uid") == uid for owner in obj["metadata"].get("ownerReferences") or ())
        ]

    def _owner_gone(self, uid: str) -> None:
        for kind, name, obj in self._owned_by(uid):
            self._observe(kind, name, obj["metadata"]["uid"])

    def _observe(self, kind: Kind, name: Name, uid: str) -> None:
        """Delete an object all of whose owners are gone; else let it forget those that are."""
        obj = self._server.get(kind, name)
        if obj is None or obj["metadata"]["uid"] != uid:
            return
        owners = obj["metadata"].get("ownerReferences") or []
        living = [owner for owner in owners if self._lives(owner, name[0])]
        version = obj["metadata"]["resourceVersion"]
        if owners and not living:
            self._server.delete(ACTOR, kind, name, uid=uid, version=version)
        elif len(living) < len(owners):
            self._server.merge(ACTOR, kind, name, {"metadata": {"resourceVersion": version, "ownerReferences": living}})

    def _lives(self, owner: Obj, namespace: str) -> bool:
        kind = next((kind for kind in KINDS if (kind.api_version, kind.kind) == (owner["apiVersion"], owner["kind"])), None)
        if kind is None:
            return True
        found = self._server.get(kind, (namespace, owner["name"])) or self._server.get(kind, ("", owner["name"]))
        return found is not None and found["metadata"]["uid"] == owner["uid"]

    def _finalize(self, kind: Kind, name: Name, uid: str) -> None:
        """Do what a deletion in the foreground, or one that leaves orphans, waits for."""
        obj = self._server.get(kind, name)
        if obj is None or obj["metadata"]["uid"] != uid:
            return
        finalizers = obj["metadata"].get("finalizers") or []
        owned = self._owned_by(uid)
        for its_kind, its_name, one in owned:
            if "orphan" in finalizers:
                left = [owner for owner in one["metadata"]["ownerReferences"] if owner["uid"] != uid]
                self._server.merge(ACTOR, its_kind, its_name, {"metadata": {"ownerReferences": left or None}})
            elif "deletionTimestamp" not in one["metadata"]:
                self._server.delete(ACTOR, its_kind, its_name, uid=one["metadata"]["uid"], propagation="Foreground")
        if "orphan" not in finalizers and self._owned_by(uid):
            self._later(0.1, 0.5, self._finalize, kind, name, uid)
            return
        rest = [one for one in finalizers if one not in {"orphan", "foregroundDeletion"}]
        try:
            self._server.merge(ACTOR, kind, name, {"metadata": {"finalizers": rest or None}})
        except (NotFound, Conflict):
            return
