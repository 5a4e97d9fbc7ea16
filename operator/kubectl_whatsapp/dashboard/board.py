"""What the page shows: the clusters of a scope, judged as by the other commands, and whether the API server answers.

Clusters, pods, Services, StatefulSets and Deployments are watched. Nodes, Leases and the operator's pods are read every two seconds, which
also shows whether the API server answers. While it does not, the page keeps the last state: nothing expires merely because time passes.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, Protocol

from kubectl_whatsapp import Obj, reading, rights
from kubectl_whatsapp.dashboard import lists
from kubectl_whatsapp.dashboard.lists import Key, WatchedList
from kubectl_whatsapp.marks import CLUSTER_LABEL
from kubectl_whatsapp.model import Level, View
from kubectl_whatsapp.reading import Read, Source, Target
from kubectl_whatsapp.shape import document
from kubectl_whatsapp.view import view
from kubectl_whatsapp.why import why
from kubectl_whatsapp.world import labels

WATCHED: Final = ("cluster", "pods", "services", "statefulsets", "deployments")
POLLED: Final = ("nodes", "nodeLeases", "lease", "operators")
POLL: Final = 2.0
"""Seconds between two readings of what is not watched."""
PATIENCE: Final = 2.0
"""Seconds within which the API server must answer."""
GRACE: Final = 3.0
"""Seconds for which an interrupted list still counts as read: a watch is usually resumed in less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which clusters are shown, and where their operator runs."""

    namespace: str
    """Empty: all."""
    name: str = ""
    """Empty: every cluster of the namespace."""
    operator_namespace: str = reading.OPERATOR_NAMESPACE
    lease: str = reading.LEASE

    def target(self, key: Key) -> Target:
        """Return one cluster as a target."""
        return Target(*key, self.operator_namespace, self.lease)

    def sources(self) -> dict[str, Source]:
        """Return what is watched, by name."""
        within = f"/namespaces/{self.namespace}" if self.namespace else ""
        labelled = {"labelSelector": f"{CLUSTER_LABEL}={self.name}" if self.name else CLUSTER_LABEL}
        named = {"fieldSelector": f"metadata.name={self.name}"} if self.name else {}
        apps = f"/apis/apps/v1{within}"
        return {
            "cluster": Source(
                title="WhatsAppClusters", right=rights.LIST_CLUSTERS, path=f"{reading.API}{within}/whatsappclusters", query=named
            ),
            "pods": Source(title="pods", right=rights.LIST_PODS, path=f"/api/v1{within}/pods", query=labelled),
            "services": Source(title="Services", right=rights.LIST_SERVICES, path=f"/api/v1{within}/services", query=labelled),
            "statefulsets": Source(title="StatefulSets", right=rights.LIST_STATEFULSETS, path=f"{apps}/statefulsets", query=labelled),
            "deployments": Source(title="Deployments", right=rights.LIST_DEPLOYMENTS, path=f"{apps}/deployments", query=labelled),
        }


class Client(lists.Client, reading.Client, Protocol):
    """What the board needs of a client."""

    answered: float

    def close(self) -> None:
        """Close its connections."""
        ...


class Board:
    """Reads in its own threads; its methods may be called from any thread."""

    def __init__(self, client: Client, watching: Client, scope: Scope, changed: Callable[[], None]) -> None:
        """``client`` reads, ``watching`` watches; ``changed`` is called in one of the board's threads whenever there is something new."""
        self.scope = scope
        self.is_reachable: bool | None = None
        """None: nothing was requested yet."""
        self._stopped, self._soon = threading.Event(), threading.Event()
        self._changed = changed
        self._clients = client, watching
        self._client = client
        self._lists = {
            name: WatchedList(watching, source, self._list_changed, stopped=self._stopped) for name, source in scope.sources().items()
        }
        self._polled: Read | None = None
        """The last complete answer."""
        self._begun = self._polled_at = self._reachable_since = time.monotonic()

    def start(self) -> None:
        """Start reading, in threads that end with the process."""
        for one in self._lists.values():
            one.start()
        threading.Thread(target=self._poll_forever, name="poll", daemon=True).start()

    def stop(self) -> None:
        """Let the threads end as soon as their requests do, and close the clients."""
        self._stopped.set()
        self._soon.set()
        for client in self._clients:
            client.close()

    # --- reading ----------------------------------------------------------------------------------------------------------

    def _list_changed(self) -> None:
        if any(one.trouble for one in self._lists.values()):
            self._soon.set()  # the API server may be down
        self._changed()

    def _poll_forever(self) -> None:
        while not self._stopped.is_set():
            self.poll()
            self._soon.wait(POLL)
            self._soon.clear()
            self._stopped.wait(lists.PAUSE)  # a pause even if watches break all the time

    def poll(self) -> None:
        """Read what is not watched, and record whether the API server answers."""
        begun = time.monotonic()
        found = reading.read(self._client, self.scope.target((self.scope.namespace, self.scope.name)), POLLED, deadline=PATIENCE)
        is_reachable = self._client.answered >= begun
        if is_reachable:
            self._polled, self._polled_at = found, time.monotonic()
            if not self.is_reachable:
                self._reachable_since = self._polled_at
        self.is_reachable = is_reachable
        self._changed()

    # --- what is shown ----------------------------------------------------------------------------------------------------

    def connection(self) -> Obj:
        """Return whether the API server answers, how many seconds ago it last did, and what is wrong."""
        last = max(self._client.answered, *(one.answered for one in self._lists.values()))
        return {
            "isReachable": self.is_reachable is not False,
            "ageSeconds": round(time.monotonic() - last, 1) if last else None,
            "trouble": next((one.trouble for one in self._lists.values() if one.trouble), "") if self.is_reachable is False else "",
        }

    def reads(self) -> dict[Key, Read]:
        """Return what was read of each cluster, by namespace and name; empty until everything was read once, or is taking too long."""
        polled, now = self._polled, time.monotonic()
        is_partial = now - self._begun < GRACE and any(one.trouble == lists.NOT_YET for one in self._lists.values())
        if polled is None or self._lists["cluster"].objects is None or is_partial:
            return {}
        at = polled.at + timedelta(seconds=now - self._polled_at if self.is_reachable else 0.0)
        unread = {name: trouble for name, one in self._lists.items() if (trouble := self._unread(one, now))}
        parts = {name: _by_cluster(one.objects) for name, one in self._lists.items() if name not in {"cluster", *unread}}
        found = {}
        for key, cluster in sorted(self._lists["cluster"].objects.items()):
            mine = {name: {"items": objects.get(key, [])} for name, objects in parts.items()}
            lately = {} if "cluster" in unread else {"cluster": cluster}
            found[key] = replace(
                polled, target=self.scope.target(key), at=at, found={**polled.found, **mine, **lately}, unread={**polled.unread, **unread}
            )
        return found

    def _unread(self, one: WatchedList, now: float) -> str:
        """Why a list counts as unread; empty if it does not."""
        if one.objects is None:
            return one.trouble
        is_long = now - max(one.since, self._reachable_since) > GRACE
        return one.trouble if one.trouble and is_long and self.is_reachable else ""

    def views(self) -> dict[Key, View | str]:
        """Return what is shown of each cluster, or why it cannot be judged."""
        return {key: _judged(_few_nodes(read)) for key, read in self.reads().items()}

    def clusters(self, views: dict[Key, View | str]) -> Obj:
        """Return the list of clusters for the page, and why there is none."""
        trouble = self._unread(self._lists["cluster"], time.monotonic())
        place = f"namespace {self.scope.namespace}" if self.scope.namespace else "any namespace"
        absent = f"There is no WhatsAppCluster {self.scope.name} in {place}.".replace("  ", " ")
        is_absent = self._polled is not None and self._lists["cluster"].objects == {}
        problem = f"WhatsAppClusters could not be read ({trouble})." if trouble else absent if is_absent else ""
        return {"clusters": [_entry(key, one) for key, one in views.items()], "problem": problem}

    def cluster(self, key: Key, found: View | str | None, shard: int | None) -> Obj:
        """Return everything that is shown of one cluster: the same documents as ``status`` and ``why`` print."""
        entry: Obj = {"namespace": key[0], "name": key[1]}
        read = self.reads().get(key)
        if found is None or read is None:
            return {**entry, "problem": f"There is no WhatsAppCluster {key[1]} in namespace {key[0]}."}
        if isinstance(found, str):
            return {**entry, "problem": found}
        return {**entry, "status": document("Status", found), "why": _why(read, shard)}


def _by_cluster(objects: dict[Key, Obj] | None) -> dict[Key, list[Obj]]:
    found: dict[Key, list[Obj]] = defaultdict(list)
    for (namespace, _), obj in sorted((objects or {}).items()):
        found[namespace, labels(obj).get(CLUSTER_LABEL, "")].append(obj)
    return found


def _few_nodes(read: Read) -> Read:
    """What was read, with only the nodes of the cluster's pods: otherwise each of hundreds of clusters would iterate over all nodes."""
    if read.items("pods") is None:
        return read
    names = {(pod.get("spec") or {}).get("nodeName") for pod in read.items("pods") or ()}
    kept = {name: {"items": [*_named(read.items(name), names)]} for name in ("nodes", "nodeLeases") if name in read.found}
    return replace(read, found={**read.found, **kept})


def _named(objects: Iterable[Obj] | None, names: set[str | None]) -> Iterator[Obj]:
    return (one for one in objects or () if one["metadata"]["name"] in names)


def _judged(read: Read) -> View | str:
    """The view of a cluster, or a sentence if it cannot be judged: that must not remove the other clusters from the page."""
    try:
        return view(read)
    except Exception as error:  # objects may contain anything that a user wrote
        return f"This cluster cannot be judged ({type(error).__name__}: {error})."


def _why(read: Read, shard: int | None) -> Obj:
    try:
        return document("Why", why(read, shard))
    except Exception as error:  # as above
        return {"problem": f"The rules cannot be run on this cluster ({type(error).__name__}: {error})."}


def _entry(key: Key, found: View | str) -> Obj:
    entry: Obj = {"namespace": key[0], "name": key[1]}
    if isinstance(found, str):
        return {**entry, "level": Level.UNKNOWN, "sentence": found}
    return {
        **entry,
        "level": found.verdict.level,
        "sentence": found.verdict.sentence,
        "shards": len(found.shards),
        "served": sum(one.served is True for one in found.shards),
        "spares": sum(one.eligible for one in found.standbys),
    }
