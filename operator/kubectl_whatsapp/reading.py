"""Reads several things in parallel under one deadline. The result also says what could not be read, and why."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, Protocol

from kubectl_whatsapp import Obj, rights
from kubectl_whatsapp.errors import RequestError
from kubectl_whatsapp.marks import CLUSTER_LABEL
from kubectl_whatsapp.rights import Right

DEADLINE: Final = 1.0
"""Seconds for all reading together, counted from the start of the process: in an outage, a person waits for the answer."""
LEAST: Final = 0.5
"""The smallest share of it for reading, even if the process took long to start."""
PODS: Final = "its pods"
"""The title of the source for pods."""
API: Final = "/apis/multiconnect.dev/v1alpha1"
OPERATOR_LABEL: Final = "app.kubernetes.io/name=whatsapp-operator,app.kubernetes.io/component=operator"
OPERATOR_NAMESPACE: Final = "whatsapp-operator-system"
LEASE: Final = "whatsapp-operator"

CACHED: Final = {"resourceVersion": "0"}
"""The API server answers from its cache: there may be thousands of nodes, and etcd may be slow."""
VERDICT: Final = ("cluster", "pods", "services", "nodes", "nodeLeases", "lease", "operators")
"""Sources for a verdict."""
RULES: Final = (*VERDICT, "statefulsets", "deployments")
"""Sources for the operator's rules."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a command is about: a WhatsAppCluster, and where its operator runs."""

    namespace: str
    name: str
    operator_namespace: str = OPERATOR_NAMESPACE
    lease: str = LEASE


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One request to the API server, and the right that it needs."""

    title: str
    """What is read, as shown to the user."""
    right: Right
    path: str
    query: Mapping[str, str] = field(default_factory=dict)


def sources(target: Target) -> dict[str, Source]:
    """Return all sources of a target, by name."""
    core, apps, operator = (
        f"/api/v1/namespaces/{target.namespace}",
        f"/apis/apps/v1/namespaces/{target.namespace}",
        target.operator_namespace,
    )
    leases = "/apis/coordination.k8s.io/v1/namespaces"
    labelled = {"labelSelector": f"{CLUSTER_LABEL}={target.name}"}
    about = {"fieldSelector": f"involvedObject.kind=WhatsAppCluster,involvedObject.name={target.name}"}

    def one(title: str, right: Right, path: str, query: Mapping[str, str] | None = None) -> Source:
        return Source(title=title, right=right, path=path, query=query or {})

    return {
        "cluster": one(f"WhatsAppCluster {target.namespace}/{target.name}", rights.GET_CLUSTER, cluster_path(target)),
        "pods": one(PODS, rights.LIST_PODS, f"{core}/pods", labelled),
        "services": one("its Services", rights.LIST_SERVICES, f"{core}/services", labelled),
        "statefulsets": one("its StatefulSets", rights.LIST_STATEFULSETS, f"{apps}/statefulsets", labelled),
        "deployments": one("its Deployments", rights.LIST_DEPLOYMENTS, f"{apps}/deployments", labelled),
        "events": one("its Events", rights.LIST_EVENTS, f"{core}/events", about),
        "nodes": one("nodes", rights.LIST_NODES, "/api/v1/nodes", CACHED),
        "nodeLeases": one("the Leases of nodes", rights.LIST_NODE_LEASES, f"{leases}/kube-node-lease/leases", CACHED),
        "lease": one(f"the operator's Lease {operator}/{target.lease}", rights.GET_LEASE, f"{leases}/{operator}/leases/{target.lease}"),
        "operators": one(
            f"the operator's pods in {operator}",
            rights.LIST_OPERATORS,
            f"/api/v1/namespaces/{operator}/pods",
            {"labelSelector": OPERATOR_LABEL},
        ),
    }


def cluster_path(target: Target) -> str:
    """Return the path of a WhatsAppCluster."""
    return f"{API}/namespaces/{target.namespace}/whatsappclusters/{target.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What was read of a target, and what could not be read."""

    target: Target
    at: datetime
    """When reading ended, by the API server's clock (to the second) if it sent the time, else by this machine's."""
    found: Mapping[str, Obj]
    """The object or the list, by name of the source."""
    unread: Mapping[str, str]
    """Why a source could not be read, by its name. Sources that do not exist are in ``absent`` instead."""
    absent: frozenset[str] = frozenset()
    """Sources that do not exist, according to the API server."""
    lasting: frozenset[str] = frozenset()
    """Sources that could not be read, and cannot be until a person acts."""
    seconds: float = 0.0

    def items(self, source: str) -> list[Obj] | None:
        """Return the items of a list that have a name; None if the list could not be read."""
        listed = self.found.get(source)
        if listed is None:
            return None
        return [one for one in listed.get("items") or () if isinstance(one, dict) and (one.get("metadata") or {}).get("name")]

    def unread_titles(self) -> dict[str, str]:
        """Return the titles of the sources that could not be read, and why."""
        known = sources(self.target)
        return {known[name].title: why for name, why in sorted(self.unread.items())}


class Client(Protocol):
    """What reading needs of a client."""

    server_date: str

    def get(self, path: str, *, timeout: float, **query: str) -> Obj:
        """Return what is at a path. RequestError."""
        ...


_Answer = tuple[str, Obj | Exception]


def read(
    client: Client,
    target: Target,
    names: Iterable[str] = VERDICT,
    *,
    deadline: float = DEADLINE,
    clock: Callable[[], float] = time.monotonic,
    meanwhile: Callable[[], None] = lambda: None,
) -> Read:
    """Request these sources in parallel, and return what was answered within ``deadline`` seconds. A failed source raises nothing.

    ``meanwhile`` is called as soon as all requests are started. Answers that arrive during it count, even if it outlasts the deadline.
    """
    begun = clock()
    known = sources(target)
    asked = {name: known[name] for name in names}
    answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
    for name, source in asked.items():
        # Daemon threads: one that hangs does not keep the process alive.
        threading.Thread(target=_ask, args=(client, name, source, deadline, answers), name=f"read {name}", daemon=True).start()
    found: dict[str, Obj] = {}
    unread: dict[str, str] = {}
    absent: set[str] = set()
    lasting: set[str] = set()
    waiting = set(asked)
    meanwhile()
    while waiting:
        try:
            name, answer = answers.get(timeout=max(0.0, begun + deadline - clock()))
        except queue.Empty:
            break
        waiting.discard(name)
        if not isinstance(answer, Exception):
            found[name] = answer
        elif isinstance(answer, RequestError) and answer.is_absent:
            absent.add(name)
        else:
            unread[name] = str(answer) or type(answer).__name__
            if isinstance(answer, RequestError) and answer.is_lasting:
                lasting.add(name)
    unread |= dict.fromkeys(sorted(waiting), f"no answer within {deadline:.1f} s")
    seconds = round(clock() - begun, 3)
    return Read(
        target=target,
        at=_time(client.server_date),
        found=found,
        unread=unread,
        absent=frozenset(absent),
        lasting=frozenset(lasting),
        seconds=seconds,
    )


def _ask(client: Client, name: str, source: Source, timeout: float, answers: queue.SimpleQueue[_Answer]) -> None:
    try:
        answers.put((name, client.get(source.path, timeout=timeout, **source.query)))
    except Exception as error:  # it is shown together with what could be read
        answers.put((name, error))


def _time(date: str) -> datetime:
    try:
        return max(parsedate_to_datetime(date), datetime.fromtimestamp(0, UTC))
    except (ValueError, TypeError):
        return datetime.now(UTC)
