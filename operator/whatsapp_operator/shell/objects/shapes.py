"""Schemas of the objects that are read: the parts that are used, with their types. Pure.

The API server stores only valid objects. But an answer may come from a proxy, or from an older release. An object that does not match its
schema is left out, so that it does not end the observation of the whole cluster.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from whatsapp_operator.core.names import LONGEST_VERSION, Key, Obj

LONGEST_NAME = 253
"""Characters of the longest name that an object can have."""
Number = Annotated[str, msgspec.Meta(pattern=f"^[0-9]{{1,{LONGEST_VERSION}}}$")]
Texts = dict[str, str]


class _Shape(msgspec.Struct, frozen=True, rename="camel"):
    pass


class _Owner(_Shape, frozen=True):
    uid: str
    name: str
    controller: bool | None = None


class _Manager(_Shape, frozen=True):
    manager: str | None = None


class _Meta(_Shape, frozen=True):
    name: str
    uid: str
    resource_version: Number
    labels: Texts | None = None
    annotations: Texts | None = None
    owner_references: list[_Owner] | None = None
    generation: int | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    finalizers: list[str] | None = None
    managed_fields: list[_Manager] | None = None


class _Object(_Shape, frozen=True):
    metadata: _Meta
    spec: dict[str, Any] | None = None
    status: dict[str, Any] | None = None


class _Observed(_Shape, frozen=True):
    observed_generation: int | None = None


class _TemplateMeta(_Shape, frozen=True):
    labels: Texts | None = None
    annotations: Texts | None = None


class _Template(_Shape, frozen=True):
    metadata: _TemplateMeta | None = None
    spec: dict[str, Any] | None = None


class _Workload(_Shape, frozen=True):
    template: _Template | None = None


class _Secret(_Shape, frozen=True):
    metadata: _Meta
    data: Texts | None = None


class _Selector(_Shape, frozen=True):
    selector: Texts | None = None


class _Service(_Shape, frozen=True):
    metadata: _Meta
    spec: _Selector


class _Scale(_Workload, frozen=True):
    replicas: int = 1


class _Replicas(_Observed, frozen=True):
    replicas: int = 0


class _Deployment(_Shape, frozen=True):
    metadata: _Meta
    spec: _Scale
    status: _Replicas | None = None


class _ScaleStatus(_Replicas, frozen=True):
    ready_replicas: int = 0
    update_revision: str | None = None


class _StatefulSet(_Shape, frozen=True):
    metadata: _Meta
    spec: _Scale
    status: _ScaleStatus | None = None


class _Running(_Shape, frozen=True):
    started_at: str | None = None


class _Waiting(_Shape, frozen=True):
    reason: str | None = None
    message: str | None = None


class _State(_Shape, frozen=True):
    running: _Running | None = None
    waiting: _Waiting | None = None
    terminated: dict[str, Any] | None = None


class _Container(_Shape, frozen=True):
    name: str
    state: _State | None = None
    last_state: _State | None = None


class _Condition(_Shape, frozen=True):
    type: str
    status: str
    message: str | None = None
    last_transition_time: str | None = None


class _PodSpec(_Shape, frozen=True):
    node_name: str | None = None


class _PodStatus(_Shape, frozen=True):
    phase: str = "Pending"
    conditions: list[_Condition] | None = None
    container_statuses: list[_Container] | None = None
    init_container_statuses: list[_Container] | None = None
    pod_ip: str | None = msgspec.field(default=None, name="podIP")


class _Pod(_Shape, frozen=True):
    metadata: _Meta
    spec: _PodSpec | None = None
    status: _PodStatus | None = None


SHAPES: dict[str, type[_Shape]] = {
    "Deployment": _Deployment,
    "Pod": _Pod,
    "Secret": _Secret,
    "Service": _Service,
    "StatefulSet": _StatefulSet,
}


def damage_of(obj: object, kind: str) -> str | None:
    """Return one sentence about what is wrong with an object of this kind, or None if it can be read."""
    try:
        msgspec.convert(obj, SHAPES.get(kind, _Object))
    except (msgspec.ValidationError, ValueError) as error:  # ValueError: text that is not Unicode
        return _damaged(obj, kind, str(error))
    if _part(obj, "kind") != kind:
        return _damaged(obj, kind, "its kind is another")
    return None


def _damaged(obj: object, kind: str, why: str) -> str:
    name = _part(_part(obj, "metadata"), "name")
    return f"{kind} {name[:LONGEST_NAME] if isinstance(name, str) else '(unnamed)'} is damaged: {why}"


def _part(obj: object, key: str) -> object:
    return obj.get(key) if isinstance(obj, dict) else None


def bare(obj: object) -> Obj:
    """Return only the kind and metadata of an object."""
    return {"kind": _part(obj, "kind"), "metadata": _part(obj, "metadata")}


def version_of(obj: object) -> int:
    """Return the resourceVersion of an object as a number; 0 if it has none that is one."""
    text = _part(_part(obj, "metadata"), "resourceVersion")
    return int(text) if isinstance(text, str) and text.isdecimal() else 0


def key_of(obj: object) -> Key | None:
    """Return the key of a WhatsAppCluster; None if its metadata is damaged."""
    meta = _part(obj, "metadata")
    namespace, name = _part(meta, "namespace"), _part(meta, "name")
    return Key(namespace, name) if isinstance(namespace, str) and isinstance(name, str) else None
