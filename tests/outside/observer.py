"""An observer that stands outside: it watches a cluster and says whether a law was broken at any instant.

It shares no line with the operator, so that a mistake there cannot hide itself here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from localkube.errors import LocalKubeError
from localkube.plane import kubeconfig as access
from outside.client import ClientReport, ask, report_of, shards_when
from outside.laws import CLUSTER_LABEL, Change, Laws, Violation, change_of, matching_pods, number_of
from outside.watch import TIMEOUT, ObserverError, Watch

__all__ = ["Commit", "NotSeenError", "Observer", "ObserverError"]

T = TypeVar("T")
Obj = dict[str, Any]

KINDS = {
    "Service": ("/api/v1", "services"),
    "Pod": ("/api/v1", "pods"),
    "StatefulSet": ("/apis/apps/v1", "statefulsets"),
    "WhatsAppCluster": ("/apis/multiconnect.dev/v1alpha1", "whatsappclusters"),
}
RECORDED = {"WhatsAppCluster", "StatefulSet"}
"""Kinds of which every version is kept that a watch reported."""
ASK_SECONDS = 0.5
LOOK_SECONDS = 0.1
"""So often a predicate is asked that may depend on something that no watch reports."""


class NotSeenError(LocalKubeError):
    """What was waited for did not come; the text says what was seen instead."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A handover as it was seen: from now on the shard's Service leads to this holder."""

    namespace: str
    cluster: str
    shard: int
    epoch: str
    n: int
    holder: str
    """Name of the pod."""
    holder_uid: str
    version: int
    """resourceVersion of the Service."""
    at: float
    """`time.time()` at which it was seen."""
    monotonic: float
    """`time.monotonic()` at which it was seen."""


class Observer:
    """Watches pods, Services, StatefulSets and WhatsAppClusters of a namespace (or all) from the beginning of its block to the end.

    All it shows may be read at any time, from any thread. Leaving the block raises ObserverError if it was blind for a while. What is
    there at the beginning is judged too, but for what needs a history.
    """

    def __init__(self, kubeconfig: Path, namespace: str | None = None, *, ask_client: bool = False) -> None:
        """Prepare; ``kubeconfig`` may read the four kinds. The CRD must be installed.

        With ``ask_client`` the simulators are asked twice a second how many shards they have, so that it is they who say whether pods were
        taken away too early, not the operator. That needs pods that can be reached from here, so it cannot be had on kind.
        """
        self._changed = threading.Condition(threading.RLock())
        self._live = Laws(exact=False)
        self._history: list[Change] = []
        self._exact_from = 0
        self._violations: dict[Violation, None] = {}
        self._commits: list[Commit] = []
        self._removed: list[tuple[int, float]] = []
        self._notes: list[str] = []
        self._died: list[str] = []
        self._objects: dict[str, dict[tuple[str, str], Obj]] = {}
        self._versions: dict[tuple[str, str, str], list[Obj]] = {}
        self._reports: dict[tuple[str, str], list[ClientReport]] = {}
        self.shrinks: tuple[int | None, ...] = ()
        """Since ``verify``: for each time that Coreapps were made fewer, the shards that the client had then, None if it cannot be said."""
        self._ended = threading.Event()
        self._asking = threading.Thread(target=self._keep_asking, name="observer of the clients", daemon=True) if ask_client else None
        to = access.read(kubeconfig)
        self._client = httpx.Client(base_url=to.server, verify=to.tls(), headers=to.headers, timeout=TIMEOUT, trust_env=False)
        scope = "" if namespace is None else f"/namespaces/{namespace}"
        self._watches = [
            Watch(kind, self._client, f"{group}{scope}/{plural}", "" if kind == "WhatsAppCluster" else CLUSTER_LABEL, self)
            for kind, (group, plural) in KINDS.items()
        ]

    # ------------------------------------------------------------ life

    def __enter__(self) -> Self:
        """List everything, then watch it. Raises ObserverError when something cannot be listed."""
        for watch in self._watches:
            self._exact_from = max(self._exact_from, watch.list())
        with self._changed:
            self._violations.update(dict.fromkeys(self._live.judge_beginning()))
        for watch in self._watches:
            watch.start()
        if self._asking is not None:
            self._asking.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop watching. Raises ObserverError if a watch had died, unless the block fails anyway."""
        self._ended.set()
        if self._asking is not None:
            self._asking.join(5.0)
        for watch in self._watches:
            watch.stop()
        for watch in self._watches:
            watch.join(5.0)
        self._client.close()
        if kind is None:
            self._fail_if_blind()

    # ------------------------------------------------------------ what was seen

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The laws that were broken so far, each once. Call ``verify`` at the end for those that need the exact order."""
        with self._changed:
            return tuple(self._violations)

    @property
    def commits(self) -> tuple[Commit, ...]:
        """All handovers and first holders since the beginning of the block, in the order in which they were seen."""
        with self._changed:
            return tuple(self._commits)

    @property
    def removed(self) -> tuple[tuple[int, float], ...]:
        """Shards whose Service went, and the `time.monotonic()` at which that was seen."""
        with self._changed:
            return tuple(self._removed)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the observer had to do over: reconnects (nothing is lost by them) and relists (something may be)."""
        with self._changed:
            return tuple(self._notes)

    @property
    def gaps(self) -> tuple[str, ...]:
        """The relists among the notes: between two readings something may have happened unseen."""
        return tuple(note for note in self.notes if note.startswith("relisted"))

    def objects(self, kind: str, namespace: str | None = None) -> list[Obj]:
        """The objects of a kind (Pod, Service, StatefulSet, WhatsAppCluster) as last seen, by name; not to be changed."""
        with self._changed:
            found = self._objects.get(kind, {})
            return [obj for key, obj in sorted(found.items()) if namespace in {None, key[0]}]

    def find(self, kind: str, namespace: str, name: str) -> Obj | None:
        """One object as last seen, None if it is not there."""
        with self._changed:
            return self._objects.get(kind, {}).get((namespace, name))

    def versions(self, kind: str, namespace: str, name: str) -> list[Obj]:
        """A WhatsAppCluster or StatefulSet as it was each time that it was seen, the oldest first: also what has passed by now."""
        with self._changed:
            return list(self._versions.get((kind, namespace, name), ()))

    def holders(self, namespace: str, cluster: str) -> dict[int, str]:
        """Shard to the name of the one pod that its Service matches; shards that match no pod, or several, are left out."""
        with self._changed:
            services = [one for one in self._live.services.values() if (one.namespace, one.cluster) == (namespace, cluster)]
            matching = {one.shard: matching_pods(one, self._live.pods) for one in services if one.shard is not None and one.epoch}
            return {shard: pods[0].name for shard, pods in sorted(matching.items()) if len(pods) == 1}

    def condition(self, namespace: str, cluster: str, kind: str) -> Obj:
        """A condition of a WhatsAppCluster as last seen; empty if it is not there."""
        obj = self.find("WhatsAppCluster", namespace, cluster) or {}
        return next((one for one in (obj.get("status") or {}).get("conditions") or () if one["type"] == kind), {})

    # ------------------------------------------------------------ waiting and judging

    def wait_until(self, predicate: Callable[[Self], T], timeout: float, what: str = "it") -> T:
        """Return what ``predicate`` says of this observer as soon as that is true; it is asked after every event, and now and then.

        Raises NotSeenError after ``timeout`` seconds, ObserverError when a watch died.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                self._fail_if_blind()
                if found := predicate(self):
                    return found
                left = deadline - time.monotonic()
                if left <= 0:
                    msg = f"{what} was not seen within {timeout:g} s. {self.summary()}"
                    raise NotSeenError(msg)
                self._changed.wait(min(left, LOOK_SECONDS))

    def verify(self) -> tuple[Violation, ...]:
        """Catch up with the API server, judge the whole history once more in its exact order, and return all violations.

        Raises ObserverError if events were missed or a watch died: then nothing is proved.
        """
        for watch in self._watches:
            self._fail_if_blind()
            if missed := watch.behind():
                msg = f"the watch of {watch.kind} objects has missed something: {missed} still differ"
                raise ObserverError(msg)
        if self._asking is not None:
            self._ask_clients()
        with self._changed:
            self._fail_if_blind()
            if self.gaps:
                msg = f"the observer was blind for a while, nothing is proved: {'; '.join(self.gaps)}"
                raise ObserverError(msg)
            laws = Laws(exact=True, client=self._shards_when)
            history = sorted(self._history, key=lambda change: change.version)
            for change in history:
                if change.version <= self._exact_from:
                    laws.learn(change)
            self._violations.update(dict.fromkeys(laws.judge_beginning()))
            for change in history:
                if change.version > self._exact_from:
                    self._violations.update(dict.fromkeys(laws.judge(change)))
            self.shrinks = tuple(laws.shrinks)
            return tuple(self._violations)

    def client_reports(self, namespace: str, cluster: str) -> tuple[ClientReport, ...]:
        """What the client of a cluster said so far; empty without ``ask_client``."""
        with self._changed:
            return tuple(self._reports.get((namespace, cluster), ()))

    def _shards_when(self, change: Change) -> int | None:
        return shards_when(self._reports.get((change.namespace, change.cluster), ()), change.version, change.seen)

    def _keep_asking(self) -> None:
        try:
            while not self._ended.wait(ASK_SECONDS):
                self._ask_clients()
        except BaseException as error:  # a mistake here must not look like silence
            self.bury(f"the observer of the clients ended by {type(error).__name__}: {error}")
            raise

    def _ask_clients(self) -> None:
        """Ask every simulator that answers."""
        answers = list(ask(self.objects("Pod")))
        if not answers:
            return
        try:
            version = self._watches[0].current_version()
        except (httpx.HTTPError, ValueError, LookupError, ObserverError):
            return
        with self._changed:
            for key, began, counters in answers:
                self._reports.setdefault(key, []).append(report_of(counters, began, version))

    def summary(self) -> str:
        """One line on what is there now, for error messages."""
        with self._changed:
            clusters = [
                f"{key[1]}: {(obj.get('status') or {}).get('reason')}: {(obj.get('status') or {}).get('message')}"
                for key, obj in self._objects.get("WhatsAppCluster", {}).items()
            ]
            last = [f"{one.cluster}/{one.shard} -> {one.holder} ({one.epoch})" for one in self._commits[-4:]]
            pods = [f"{key[1]}{'' if _is_ready(obj) else ' (not ready)'}" for key, obj in sorted(self._objects.get("Pod", {}).items())]
            return f"Clusters: {clusters}. Pods: {pods}. {len(self._commits)} commits, last: {last}. Violations: {len(self._violations)}."

    def _fail_if_blind(self) -> None:
        with self._changed:
            if self._died:
                msg = f"the observer no longer sees: {'; '.join(self._died)}"
                raise ObserverError(msg)

    # ------------------------------------------------------------ what watches report

    def take(self, kind: str, obj: Obj, *, gone: bool = False, first: bool = False) -> None:
        """Take in one object as a watch delivers it; ``first``: it was there before the block began."""
        monotonic, at = time.monotonic(), time.time()
        change = change_of(kind, obj, gone=gone, seen=at)
        with self._changed:
            table = self._objects.setdefault(kind, {})
            if gone:
                table.pop((change.namespace, change.name), None)
            else:
                table[change.namespace, change.name] = obj
                if kind in RECORDED:
                    self._versions.setdefault((kind, change.namespace, change.name), []).append(obj)
            before = self._live.services.get((change.namespace, change.name)) if kind == "Service" else None
            found = list(self._live.judge(change))
            self._history.append(change)
            if not first:
                self._violations.update(dict.fromkeys(found))
                self._note_commit(change, before, at, monotonic)
            self._changed.notify_all()

    def _note_commit(self, change: Change, before: Change | None, at: float, monotonic: float) -> None:
        n = number_of(change.epoch)
        if change.gone and change.kind == "Service" and change.shard is not None:
            self._removed.append((change.shard, monotonic))
        if change.gone or change.shard is None or n is None or (before is not None and before.epoch == change.epoch):
            return
        if any((one.namespace, one.shard, one.epoch) == (change.namespace, change.shard, change.epoch) for one in self._commits):
            # The Service was out of sight without its label.
            return
        name, _, uid = change.holder.partition("/")
        self._commits.append(
            Commit(change.namespace, change.cluster, change.shard, change.epoch, n, name, uid, change.version, at, monotonic)
        )

    def note(self, text: str) -> None:
        """Take in what a watch had to do over."""
        with self._changed:
            self._notes.append(text)

    def bury(self, text: str) -> None:
        """Take in that a watch has died."""
        with self._changed:
            self._died.append(text)
            self._changed.notify_all()

    def known(self, kind: str) -> Mapping[tuple[str, str], Obj]:
        """What is known of a kind, for a relist."""
        with self._changed:
            return dict(self._objects.get(kind, {}))


def _is_ready(pod: Obj) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
