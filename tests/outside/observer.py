"""An observer that stands outside: it watches a cluster with the official client and says whether a law was broken at any instant.

It shares no line with the operator, so that a mistake there cannot hide itself here.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import kubernetes
import urllib3

from localkube.errors import LocalKubeError
from outside.client import ClientReport, Repeat, ask, report_of, shards_when
from outside.laws import CLUSTER_LABEL, Change, Laws, Violation, change_of, is_ready, matching_pods, number_of

T = TypeVar("T")
Obj = dict[str, Any]

WATCH_SECONDS = 60
SILENT_SECONDS = 75.0
CONNECT_SECONDS = 3.0
RETRY_SECONDS = 0.1
BLIND_SECONDS = 10.0
"""A watch that could not be taken up again for so long has died."""
CATCH_UP_SECONDS = 60.0
RECORDED = {"WhatsAppCluster", "StatefulSet"}
"""Kinds of which every version is kept that a watch reported."""
ASK_SECONDS = 0.1
"""So often a predicate is asked that may depend on something that no watch reports."""


class ObserverError(LocalKubeError):
    """The observer could not see: its watch died or missed something; the text says what."""


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
        self._namespace = namespace
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
        self._asking = Repeat(self._ask_clients, self.report_death, "observer of the clients") if ask_client else None
        connect: Any = kubernetes.config.new_client_from_config  # typed in some releases of the client only
        self._client = connect(str(kubeconfig))
        self._watches = [_Watch(kind, read, self) for kind, read in self._readers()]

    def _readers(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        """How to list or watch each kind."""
        core, apps, custom = (
            kubernetes.client.CoreV1Api(self._client),
            kubernetes.client.AppsV1Api(self._client),
            kubernetes.client.CustomObjectsApi(self._client),
        )
        group = ("multiconnect.dev", "v1alpha1")
        labelled = {"label_selector": CLUSTER_LABEL}
        where = self._namespace
        if where is None:
            yield "Service", _bound(core.list_service_for_all_namespaces, **labelled)
            yield "Pod", _bound(core.list_pod_for_all_namespaces, **labelled)
            yield "StatefulSet", _bound(apps.list_stateful_set_for_all_namespaces, **labelled)
            yield "WhatsAppCluster", _bound(custom.list_cluster_custom_object, *group, "whatsappclusters")
        else:
            yield "Service", _bound(core.list_namespaced_service, where, **labelled)
            yield "Pod", _bound(core.list_namespaced_pod, where, **labelled)
            yield "StatefulSet", _bound(apps.list_namespaced_stateful_set, where, **labelled)
            yield "WhatsAppCluster", _bound(custom.list_namespaced_custom_object, *group, where, "whatsappclusters")

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
        if self._asking is not None:
            self._asking.stop()
            self._asking.join(5.0)
        for watch in self._watches:
            watch.stop()
        for watch in self._watches:
            watch.join(5.0)
        self._client.rest_client.pool_manager.clear()
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

    def gone_at(self, uid: str) -> int | None:
        """The resourceVersion at which an object with this uid went; None if that was not seen."""
        with self._changed:
            return next((change.version for change in self._history if change.gone and change.uid == uid), None)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the observer had to do over: reconnects (nothing is lost by them) and relists (something may be)."""
        with self._changed:
            return tuple(self._notes)

    @property
    def gaps(self) -> tuple[str, ...]:
        """The relists among the notes: between two lists something may have happened unseen."""
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
                self._changed.wait(min(left, ASK_SECONDS))

    def verify(self) -> tuple[Violation, ...]:
        """Catch up with the API server, judge the whole history once more in its exact order, and return all violations.

        Raises ObserverError if events were missed or a watch died: then nothing is proved.
        """
        for watch in self._watches:
            self._catch_up(watch)
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

    def _ask_clients(self) -> None:
        """Ask every simulator that answers."""
        answers = list(ask(self.objects("Pod")))
        if not answers:
            return
        try:
            version = self._watches[0].current_version()
        except (urllib3.exceptions.HTTPError, OSError, ValueError, LookupError, ObserverError, _GoneError):
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
            pods = [f"{key[1]}{'' if is_ready(obj) else ' (not ready)'}" for key, obj in sorted(self._objects.get("Pod", {}).items())]
            return f"Clusters: {clusters}. Pods: {pods}. {len(self._commits)} commits, last: {last}. Violations: {len(self._violations)}."

    def _catch_up(self, watch: _Watch) -> None:
        """Wait until what was seen is what the API server has."""
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while True:
            fresh = watch.versions()
            seen = {key: obj["metadata"]["resourceVersion"] for key, obj in self.known(watch.kind).items()}
            if fresh == seen:
                return
            self._fail_if_blind()
            if time.monotonic() > deadline:
                differ = sorted("/".join(key) for key in fresh.keys() | seen.keys() if fresh.get(key) != seen.get(key))
                msg = f"the watch of {watch.kind} objects has missed something: {', '.join(differ)} still differ"
                raise ObserverError(msg)
            with self._changed:
                self._changed.wait(0.1)

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

    def report_death(self, text: str) -> None:
        """Take in that a watch has died."""
        with self._changed:
            self._died.append(text)
            self._changed.notify_all()

    def known(self, kind: str) -> Mapping[tuple[str, str], Obj]:
        """What is known of a kind, for a relist."""
        with self._changed:
            return dict(self._objects.get(kind, {}))


class _GoneError(Exception):
    """The API server no longer has the changes since the last one seen."""


class _Watch(threading.Thread):
    """Follows one kind in a thread of its own."""

    def __init__(self, kind: str, read: Callable[..., Any], observer: Observer) -> None:
        super().__init__(name=f"observer of {kind} objects", daemon=True)
        self.kind = kind
        self._read = read
        self._observer = observer
        self._version = ""
        self._response: Any = None
        self._ended = threading.Event()

    def list(self) -> int:
        """Take in all there is at the beginning; returns the resourceVersion of the list."""
        items, version = self._list()
        for obj in items:
            self._observer.take(self.kind, obj, first=True)
        self._version = version
        return int(version)

    def versions(self) -> dict[tuple[str, str], str]:
        """The resourceVersions of what the API server has now."""
        items, _ = self._list()
        return {(obj["metadata"]["namespace"], obj["metadata"]["name"]): obj["metadata"]["resourceVersion"] for obj in items}

    def current_version(self) -> int:
        """The resourceVersion that the API server has now."""
        response = self._call(limit=1)
        try:
            return int(json.loads(response.read())["metadata"]["resourceVersion"])
        finally:
            response.close()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        response = self._response
        if response is not None:
            _cut(response)

    def run(self) -> None:
        """Watch, and take up the watch again wherever it ended, until stopped or dead."""
        failing_since: float | None = None
        while not self._ended.is_set():
            try:
                self._follow()
                failing_since = None
            except _GoneError:
                self._relist()
            except (urllib3.exceptions.HTTPError, OSError, ValueError, ObserverError) as error:
                if self._ended.is_set():
                    return
                now = time.monotonic()
                failing_since = failing_since or now
                self._observer.note(f"reconnected the watch of {self.kind} objects at {self._version}: {_sentence(error)}")
                if now - failing_since > BLIND_SECONDS:
                    self._observer.report_death(f"the watch of {self.kind} objects failed for {BLIND_SECONDS:g} s: {_sentence(error)}")
                    return
                self._ended.wait(RETRY_SECONDS)
            except BaseException as error:  # a mistake here must not look like silence
                self._observer.report_death(f"the watch of {self.kind} objects ended by {_sentence(error)}")
                raise

    def _follow(self) -> None:
        response = self._call(watch=True, resource_version=self._version, timeout_seconds=WATCH_SECONDS, allow_watch_bookmarks=True)
        self._response = response
        try:
            if self._ended.is_set():
                return
            for line in _lines(response):
                self._event(json.loads(line))
        finally:
            self._response = None
            response.close()

    def _event(self, event: Obj) -> None:
        kind, obj = event["type"], event["object"]
        if kind == "ERROR":
            if obj.get("code") == 410:
                raise _GoneError
            msg = f"the API server ended the watch: {obj.get('message')}"
            raise ObserverError(msg)
        if kind != "BOOKMARK":
            self._observer.take(self.kind, obj, gone=kind == "DELETED")
        self._version = obj["metadata"]["resourceVersion"]

    def _relist(self) -> None:
        items, version = self._list()
        there = {(obj["metadata"]["namespace"], obj["metadata"]["name"]): obj for obj in items}
        known = self._observer.known(self.kind)
        self._observer.note(f"relisted {self.kind} objects: changes between {self._version} and {version} were not seen one by one")
        for key in known.keys() - there.keys():
            meta = {**known[key]["metadata"], "resourceVersion": version}
            self._observer.take(self.kind, {**known[key], "metadata": meta}, gone=True)
        for key, obj in there.items():
            if key not in known or known[key]["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
                self._observer.take(self.kind, obj)
        self._version = version

    def _list(self) -> tuple[Sequence[Obj], str]:
        response = self._call()
        try:
            answer = json.loads(response.read())
        finally:
            response.close()
        return answer["items"], answer["metadata"]["resourceVersion"]

    def _call(self, **options: Any) -> Any:
        """The open response. Raises ObserverError when the API server rejects it, _GoneError when the version is too old for it."""
        try:
            response = self._read(_preload_content=False, _request_timeout=(CONNECT_SECONDS, SILENT_SECONDS), **options)
        except kubernetes.client.ApiException as error:
            if error.status == 410:
                raise _GoneError from None
            msg = f"the API server does not show {self.kind} objects: {error.status} {error.reason}"
            raise ObserverError(msg) from error
        if response.status == 200:
            return response
        text = response.read().decode("utf-8", "replace")[:300]
        response.close()
        if response.status == 410:
            raise _GoneError
        msg = f"the API server does not show {self.kind} objects: {response.status} {text}"
        raise ObserverError(msg)


def _bound(read: Callable[..., Any], *args: str, **fixed: str) -> Callable[..., Any]:
    return lambda **options: read(*args, **fixed, **options)


def _lines(response: Any) -> Iterator[bytes]:
    """The lines of a streamed answer as they arrive."""
    rest = b""
    for chunk in response.stream(None, decode_content=False):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line)


def _cut(response: Any) -> None:
    """End a read that another thread is in."""
    try:
        response.shutdown()
    except (OSError, RuntimeError, ValueError):  # it ended by itself in this moment
        return


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
