"""What the world did that may move a shard off its holder. Kept as it happens; what an operator says of its reasons is no source here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .apiserver import ApiServer, Change
from .client import Account
from .kinds import NODE, OUT_OF_SERVICE, POD, SERVICE, WAC, Obj
from .machines import Cluster, Machine

JUST_NOW = 6.0
"""Seconds for which what was seen, or heard of late, may still lead to something."""
OURS = tuple(f"multiconnect.dev/{word}" for word in ("cluster", "role", "shard", "epoch"))
SWITCHOVER, HOLDER = "multiconnect.dev/switchover", "multiconnect.dev/holder"

PROBABLE = frozenset({"silent", "unready", "not served"})
"""Causes that may lie in the operator itself."""
EXPLAINED_BY_A_RESTART = frozenset({"trouble", "silent", "unready", "not served", "ended with its pod"})
"""Causes that the restart of Set Shards brings about as well; of the last one only that the process has ended."""
CLAIMS: dict[str, frozenset[str]] = {
    "": frozenset({"holder unnamed"}),
    "PodDeleted": frozenset({"deleted"}),
    "PodDraining": frozenset({"deleted", "node leaves"}),
    "NodeGone": frozenset({"node gone"}),
    "ProbeTimeout": frozenset({"silent"}),
    "NotReady": frozenset({"unready"}),
    "PodFailed": frozenset({"trouble"}),
    "ContainerTerminated": frozenset({"trouble"}),
    "ConnectionLost": frozenset({"trouble", "ended with its pod"}),
    "RestartOverdue": frozenset({"trouble"}),
    "LabelConflict": frozenset({"labels", "named twice", "copied"}),
    "Requested": frozenset({"asked"}),
    "Consolidated": frozenset({"surplus"}),
    "RolledOut": frozenset({"outdated"}),
    "HolderDisagrees": frozenset({"not served"}),
}
"""For each word that an operator may claim, the causes of which one must be true."""


class Causes:
    """Follows every write that is not an operator's, and the machines."""

    def __init__(self, server: ApiServer, cluster: Cluster, now: Callable[[], float], is_operator: Callable[[str], bool]) -> None:
        self._server, self._cluster, self._now, self._is_operator = server, cluster, now, is_operator
        self._labels: dict[str, float] = {}
        self._asked: dict[int, float] = {}
        self._left: dict[str, float] = {}
        self._gone: dict[str, float] = {}
        self._pods: set[str] = set()
        """Every pod that ever was, as `<name>/<uid>`."""
        self._unnamed: set[str | None] = set()
        """What a writer other than an operator wrote into a Service as its holder although it names no pod."""

    def note(self, change: Change) -> None:
        """Take one write."""
        if change.kind is NODE:
            self._note_node(change)
        elif change.kind is WAC:
            self._note_request(change)
        elif change.kind is SERVICE:
            self._note_holder(change)
        if change.kind is POD and change.after is not None:
            self._pods.add(f"{change.name[1]}/{change.after['metadata']['uid']}")
        if change.kind is POD and change.before is not None and not self._is_operator(change.actor):
            before, after = (((one or {}).get("metadata") or {}).get("labels") or {} for one in (change.before, change.after))
            if change.after is not None and any(before.get(label) != after.get(label) for label in OURS):
                self._labels[change.before["metadata"]["uid"]] = self._now()

    def _note_node(self, change: Change) -> None:
        name = change.name[1]
        for obj in (change.before, change.after):
            if obj is not None and leaves(obj):
                self._left[name] = self._now()
            if obj is not None and is_out_of_service(obj):
                self._gone[name] = self._now()
        if change.after is None:
            self._gone[name] = self._now()

    def _note_request(self, change: Change) -> None:
        before, after = (set(_shards_asked_for(one)) for one in (change.before, change.after))
        if not self._is_operator(change.actor):
            self._asked.update(dict.fromkeys(after, self._now()))
        # What is asked for still, or was until now: an operator may write the request again, but not make one.
        for shard in self._asked.keys() & before:
            self._asked[shard] = self._now()

    def _note_holder(self, change: Change) -> None:
        if not self._is_operator(change.actor) and (text := _holder(change.after)) != _holder(change.before) and text not in self._pods:
            self._unnamed.add(text)

    def holder_is_unnamed(self, service: Obj) -> bool:
        """Whether a foreign writer wrote over which pod a Service names, so that it names none."""
        return _holder(service) in self._unnamed

    def of_nodes(self, node: str) -> set[str]:
        """Return what befell a node of late."""
        obj, found = self._server.get(NODE, ("", node)), set()
        if self._is_recent(self._left.get(node)) or (obj is not None and leaves(obj)):
            found.add("node leaves")
        if obj is None or is_out_of_service(obj) or self._is_recent(self._gone.get(node)):
            found.add("node gone")
        return found

    def labels_were_taken(self, uid: str) -> bool:
        """Whether a foreign writer wrote the operator's labels on a pod of late."""
        return self._is_recent(self._labels.get(uid))

    def has_copy(self, pod: Obj) -> bool:
        """Whether a foreign pod has the labels of a pod that holds a shard."""
        meta = pod["metadata"]
        alike = self._server.list(POD, meta["namespace"], {label: meta["labels"].get(label) for label in OURS})
        return any(one["metadata"]["uid"] != meta["uid"] and not one["metadata"].get("ownerReferences") for one in alike)

    def was_asked_for(self, shard: int) -> bool:
        """Whether a user asked for a switchover of a shard, and that is not long done."""
        return shard in set(_shards_asked_for(self._wac())) & self._asked.keys() or self._is_recent(self._asked.get(shard))

    def is_troubled(self, machine: Machine | None) -> bool:
        """Whether a machine cannot serve, or could not just now."""
        return machine is None or not machine.is_sound or self._now() - max(machine.troubled_at, machine.node.since) <= JUST_NOW

    def _wac(self) -> Obj | None:
        return next(iter(self._server.list(WAC, None)), None)

    def _is_recent(self, at: float | None) -> bool:
        return at is not None and self._now() - at <= JUST_NOW


class Connections:
    """For each shard, since when the servers have no connection of just the pod and the epoch that its Kubernetes Service names."""

    LONG = 4.2
    """Seconds from which on a holder without a connection is none: a little less than an operator may call long."""

    def __init__(self, account: Account, named: Callable[[], Iterable[tuple[int, str, str]]], now: Callable[[], float]) -> None:
        self._account, self._named, self._now = account, named, now
        self._since: dict[tuple[int, str, str], float] = {}
        self._until: dict[str, float] = {}
        account.on_connection.append(self.observe)

    def observe(self) -> None:
        """Compare, at each change of a connection or of a Service."""
        named = {*self._named()}
        missing = {one for one in named if not self._is_connected(*one)}
        for one in self._since.keys() - missing:
            since = self._since.pop(one)
            if self._now() - since >= self.LONG:
                self._until[one[1]] = self._now()
        for one in missing:
            self._since.setdefault(one, self._now())

    def _is_connected(self, shard: int, uid: str, epoch: str) -> bool:
        found = self._account.connections.get(shard)
        # Logged off, the client has no connection at all: that says nothing of one holder.
        return self._account.logged_off or (found is not None and (found.uid, found.epoch) == (uid, epoch))

    def failed(self, uid: str) -> bool:
        """Whether a pod that a Service names has had no connection for long, or had none until just now."""
        now = self._now()
        spans = [now - since for (_, one, _), since in self._since.items() if one == uid]
        return max(spans, default=0.0) >= self.LONG or now - self._until.get(uid, float("-inf")) <= JUST_NOW


def leaves(node: Obj) -> bool:
    """Whether a node is cordoned, or tainted by the autoscaler that will take it away."""
    return bool(node["spec"].get("unschedulable") or node["spec"].get("taints"))


def is_out_of_service(node: Obj) -> bool:
    """Whether a user said that a node is dead."""
    return any(taint["key"] == OUT_OF_SERVICE for taint in node["spec"].get("taints") or ())


def _holder(service: Obj | None) -> str | None:
    return (((service or {}).get("metadata") or {}).get("annotations") or {}).get(HOLDER)


def _shards_asked_for(wac: Obj | None) -> Iterable[int]:
    meta: dict[str, Any] = (wac or {}).get("metadata") or {}
    for request in ((meta.get("annotations") or {}).get(SWITCHOVER) or "").split(","):
        number = request.partition("=")[0].strip()
        if number.isdigit():
            yield int(number)
