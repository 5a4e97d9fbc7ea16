"""Every edit that another party can make of what the operator writes into an object, made from the manifest itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from whatsapp_operator.core import always, manifests
from whatsapp_operator.core.desired import Account, Database, Desired, PodSettings, WebappService
from whatsapp_operator.core.names import Obj, Ref

from .situations import NOW, Situation, epoch_of, situation

Path = tuple[str | int, ...]
ROOTS: tuple[Path, ...] = (("metadata", "labels"), ("metadata", "annotations"), ("metadata", "ownerReferences"), ("spec",))
"""What the operator writes into an object besides its name."""
INSTEAD: Mapping[Any, Any] = {
    100: 99,
    "TCP": "UDP",
    "HTTP": "HTTPS",
    "HTTPS": "HTTP",
    "ClusterIP": "NodePort",
    "LoadBalancer": "NodePort",
    "PreferDualStack": "SingleStack",
    "Cluster": "Local",
    "OnDelete": "RollingUpdate",
    "RollingUpdate": "OnDelete",
    "Parallel": "OrderedReady",
    "Ingress": "Egress",
    "AlwaysAllow": "IfHealthyBudget",
    "RuntimeDefault": "Unconfined",
    "ScheduleAnyway": "DoNotSchedule",
    "ReadWriteOnce": "ReadOnlyMany",
    "Exists": "Equal",
    "metadata.name": "metadata.namespace",
    "metadata.uid": "metadata.name",
    "status.podIP": "status.hostIP",
    "spec.nodeName": "spec.serviceAccountName",
    "50m": "51m",
    "64Mi": "65Mi",
    "1Gi": "2Gi",
}
"""Another value that the API server takes; of any other text it takes one with something behind it."""
OTHER_IN_ENTRY = {"port", "containerPort", "targetPort", "name", "mountPath", "topologyKey", "uid", "key", "controller"}
"""Fields in which an entry that is added to a list differs from the last one, so that the API server takes both."""


@dataclass(frozen=True)
class Edit:
    """One change of one field."""

    path: Path
    what: str
    change: Callable[[Any], None]
    """Changes an object that may be changed."""

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path))} {self.what}"

    def of(self, obj: Obj) -> dict[str, Any]:
        """Return a copy of the object with this edit."""
        edited: dict[str, Any] = thawed(obj)
        self.change(edited)
        return edited


def thawed(value: Any) -> Any:
    """Return a copy with plain dictionaries and lists, as JSON has them."""
    if isinstance(value, Mapping):
        return {key: thawed(one) for key, one in value.items()}
    return [thawed(one) for one in value] if isinstance(value, list | tuple) else value


def at(obj: Any, path: Path) -> Any:
    """Return what stands there; None if nothing does."""
    for key in path:
        if isinstance(key, int):
            obj = obj[key] if isinstance(obj, list | tuple) and key < len(obj) else None
        else:
            obj = obj.get(key) if isinstance(obj, Mapping) else None
    return obj


def fields_of(obj: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every field below ``path`` and that itself, outer ones first."""
    value = at(obj, path)
    if value is None:
        return
    yield path, value
    if isinstance(value, Mapping | list | tuple):
        for key in value if isinstance(value, Mapping) else range(len(value)):
            yield from fields_of(obj, (*path, key))


def edits_of(written: Obj) -> Iterator[Edit]:
    """Yield every field without it and with another value, and every list with one more entry and in another order."""
    for root in ROOTS:
        for path, value in fields_of(written, root):
            if path != ("spec",):
                yield Edit(path, "removed", _removing(path))
            if isinstance(value, list | tuple):
                yield Edit(path, "longer", _setting(path, [*value, _one_more(value[-1])]))
                if [*value] != [*value][::-1]:
                    yield Edit(path, "turned", _setting(path, [*value][::-1]))
            elif not isinstance(value, Mapping):
                yield Edit(path, "changed", _setting(path, another(value)))


def additions_of(written: Obj) -> Iterator[Edit]:
    """Yield every mapping with one more entry."""
    for root in ROOTS:
        for path, value in fields_of(written, root):
            if isinstance(value, Mapping):
                yield Edit(path, "with one more", _setting((*path, "added"), "by another"))


SWAPS: Mapping[str, Mapping[str, Any]] = {
    "a budget by what must stay": {"maxUnavailable": None, "minAvailable": 1},
    "another strategy": {"strategy": {"type": "Recreate"}},
    "a Service of nodes": {"type": "NodePort", "externalTrafficPolicy": "Local"},
    "a Service with a load balancer": {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "loadBalancerClass": "example.com/other",
        "loadBalancerSourceRanges": ["10.0.0.0/8"],
    },
    "a Service that leads elsewhere": {"type": "ExternalName", "externalName": "example.com"},
    "a policy for what goes out": {"policyTypes": ["Egress"], "ingress": None},
}
"""Changes of several fields of a spec at once: what takes the place of a field may rule it out."""
ENTRIES: Mapping[Path, Any] = {
    ("spec", "ingress", 0, "from"): [{"podSelector": {}}],
    ("spec", "ingress", 0, "from", 0, "namespaceSelector"): {},
    ("spec", "ingress", 0, "ports", 0, "endPort"): 9999,
}
"""What is no field of its own in what is written, and changes what others there mean."""


def swaps_of(written: Obj) -> Iterator[Edit]:
    """Yield changes that are more than one field."""
    for name, swap in SWAPS.items():
        if swap.keys() & written["spec"].keys():
            yield Edit(("spec",), name, _swapping(swap))
    for path, value in ENTRIES.items():
        if isinstance(at(written, path[:-1]), Mapping):
            yield Edit(path, "added", _setting(path, value))


def another(value: Any) -> Any:
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    return INSTEAD.get(value, value + 1 if isinstance(value, int) else f"{value}x")


def _one_more(last: Any) -> Any:
    if not isinstance(last, Mapping):
        return another(last)
    entry = thawed(last)
    for key in OTHER_IN_ENTRY & entry.keys():
        entry[key] = False if key == "controller" else 7777 if isinstance(entry[key], int) else f"{entry[key]}-more"
    return entry


def _setting(path: Path, value: Any) -> Callable[[Any], None]:
    def change(obj: Any) -> None:
        at(obj, path[:-1])[path[-1]] = thawed(value)

    return change


def _removing(path: Path) -> Callable[[Any], None]:
    def change(obj: Any) -> None:
        del at(obj, path[:-1])[path[-1]]

    return change


def _swapping(swap: Mapping[str, Any]) -> Callable[[Any], None]:
    def change(obj: Any) -> None:
        for key, value in swap.items():
            obj["spec"].pop(key, None)
            if value is not None:
                obj["spec"][key] = thawed(value)

    return change


OWNER: Path = ("metadata", "ownerReferences")
EPOCH: Path = ("spec", "selector", "multiconnect.dev/epoch")
LEFT: Mapping[tuple[Path, str], str] = {
    (OWNER, "removed"): "It is nobody's: condition NameConflict.",
    ((*OWNER, 0), "removed"): "The same.",
    ((*OWNER, 0, "uid"), "removed"): "The same.",
    ((*OWNER, 0, "uid"), "changed"): "It is another's: condition NameConflict.",
    ((*OWNER, 0, "blockOwnerDeletion"), "removed"): "It means the same.",
    (EPOCH, "changed"): "The holder is given this epoch.",
    (EPOCH, "removed"): "The shard is given a holder under a new epoch, which writes the selector.",
    (EPOCH[:2], "removed"): "The same.",
    (("spec", "template", "spec", "volumes", 0, "emptyDir"), "removed"): "The API server puts it there again.",
}
"""Edits that are left as they are, and why."""


def is_left(written: Obj, edit: Edit) -> bool:
    """Whether this edit is left as it is."""
    return (edit.path, edit.what) in LEFT and (edit.path != EPOCH[:2] or written["metadata"]["name"] == "acme-shard-0")


# --- what is written, and what becomes of an edit --------------------------------------------------------------------------

POD = PodSettings(
    labels={"team": "a", "empty": ""},
    annotations={"example.com/note": "1", "example.com/empty": ""},
    resources={"limits": {"memory": "1Gi"}},
    env=({"name": "LOG", "value": "1"},),
    node_selector={"pool": "a", "node-role.kubernetes.io/worker": ""},
    tolerations=({"key": "pool", "operator": "Exists"},),
    priority_class="system-cluster-critical",
)
EVERYTHING: Mapping[str, Any] = {
    "shards": 2,
    "webapps": 0,
    "storage": "1Gi",
    "account": Account(country_code="1", phone_number="6315550000", registered_at=NOW),
    "database": Database(secret_name="database", tls_secret_name="database-tls"),
    "pull_secrets": ("pull", "pull-too"),
    "coreapp_pod": POD,
    "webapp_pod": POD,
    "webapp_service": WebappService(annotations={"example.com/note": "1", "example.com/empty": ""}),
}
"""A spec with which the operator writes every field that it can write."""


def written_by(desired: Desired) -> tuple[Obj, ...]:
    """Return every object that is kept in shape, the Service of a shard among them."""
    kept = manifests.upkeep(desired, webapp_replicas=desired.webapps, resharding=False, is_first_boot=False, is_unused=False)
    return *kept, manifests.shard_service(desired, 0, epoch_of(0))


def put_right(desired: Desired, live: Obj) -> Obj | None:
    """Return what the operator writes over this object; None if it leaves it as it is."""
    owned = {Ref(live["kind"], live["metadata"]["name"]): live} if manifests.is_owned(live, desired.uid) else {}
    route = manifests.route_of(live, desired.key.name, desired.uid)
    facts = replace(_settled(), desired=desired).seeing(objects=owned, routes=(route,) if route is not None else ()).facts()
    writes = [write.obj for write in always.mending(facts, frozenset())]
    assert len(writes) <= 1
    return writes[0] if writes else None


@cache
def _settled() -> Situation:
    return situation().settled()
