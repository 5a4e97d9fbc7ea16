"""The rights that each command may need: one table. ``--help`` ends with them, and tests compare them with a real API server, both ways."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Where(StrEnum):
    """Where a right is needed."""

    CLUSTER = "the cluster's namespace"
    OPERATOR = "the operator's namespace"
    NODE_LEASES = "namespace kube-node-lease"
    EVERYWHERE = "a ClusterRole"


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One right, as in a Role."""

    where: Where
    verb: str
    resource: str
    group: str = ""
    """Empty: the core group."""

    @property
    def name(self) -> str:
        """The right as shown: the verb, the resource and its group."""
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}"


GROUP: Final = "multiconnect.dev"
GET_CLUSTER: Final = Right(Where.CLUSTER, "get", "whatsappclusters", GROUP)
LIST_CLUSTERS: Final = Right(Where.CLUSTER, "list", "whatsappclusters", GROUP)
PATCH_CLUSTER: Final = Right(Where.CLUSTER, "patch", "whatsappclusters", GROUP)
LIST_PODS: Final = Right(Where.CLUSTER, "list", "pods")
LIST_SERVICES: Final = Right(Where.CLUSTER, "list", "services")
LIST_NODES: Final = Right(Where.EVERYWHERE, "list", "nodes")
LIST_NODE_LEASES: Final = Right(Where.NODE_LEASES, "list", "leases", "coordination.k8s.io")
GET_LEASE: Final = Right(Where.OPERATOR, "get", "leases", "coordination.k8s.io")
LIST_OPERATORS: Final = Right(Where.OPERATOR, "list", "pods")
LIST_STATEFULSETS: Final = Right(Where.CLUSTER, "list", "statefulsets", "apps")
LIST_DEPLOYMENTS: Final = Right(Where.CLUSTER, "list", "deployments", "apps")
LIST_EVENTS: Final = Right(Where.CLUSTER, "list", "events")
WATCHED: Final = tuple(
    Right(one.where, "watch", one.resource, one.group)
    for one in (LIST_CLUSTERS, LIST_PODS, LIST_SERVICES, LIST_STATEFULSETS, LIST_DEPLOYMENTS)
)
GET_LOGS: Final = Right(Where.CLUSTER, "get", "pods/log")
GET_OPERATOR_LOGS: Final = Right(Where.OPERATOR, "get", "pods/log")
DELETE_PODS: Final = Right(Where.CLUSTER, "delete", "pods")
GET_NAMESPACE: Final = Right(Where.CLUSTER, "get", "namespaces")

_VERDICT: Final = (GET_CLUSTER, LIST_PODS, LIST_SERVICES, LIST_NODES, LIST_NODE_LEASES, GET_LEASE, LIST_OPERATORS)
_RULES: Final = (*_VERDICT, LIST_STATEFULSETS, LIST_DEPLOYMENTS)

NEEDED: Final[dict[str, tuple[Right, ...]]] = {
    "status": _VERDICT,
    "why": _RULES,
    "plan": (*_VERDICT, PATCH_CLUSTER),
    "switchover": (GET_CLUSTER, PATCH_CLUSTER, LIST_EVENTS),
    "reshard-now": (GET_CLUSTER, PATCH_CLUSTER),
    "pause": (PATCH_CLUSTER,),
    "resume": (GET_CLUSTER, PATCH_CLUSTER),
    "check": _VERDICT,
    "report": (*_RULES, LIST_EVENTS, GET_LOGS, GET_OPERATOR_LOGS),
    "logs": (GET_CLUSTER, GET_LOGS, GET_LEASE, GET_OPERATOR_LOGS),
    "game-day": (GET_NAMESPACE, *_VERDICT, DELETE_PODS),
    "dashboard": (LIST_CLUSTERS, *_RULES[1:], *WATCHED),
}
"""The rights by command, in the order of their use.

If a read right is missing, a command says what it could not read and why, and shows the rest.
"""


def sentence(command: str) -> str:
    """Return the sentence on rights at the end of a command's help."""
    return "Rights (RBAC): " + "; ".join(f"{', '.join(names)} in {where}" for where, names in _by_place(NEEDED[command])) + "."


def _by_place(rights: Iterable[Right]) -> list[tuple[str, list[str]]]:
    rights = [*rights]
    places = [(where, [one.name for one in rights if one.where is where]) for where in Where]
    return [(str(where), names) for where, names in places if names]
