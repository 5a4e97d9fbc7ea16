"""Whether a live object is as desired, and what replaces it otherwise. Pure; independent of the purpose of objects."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from .names import Obj
from .snapshot import Attempt

DESIRED_ANNOTATION: Final = "multiconnect.dev/wanted"
"""Checksum of the desired object at its last write: it shows which fields are no longer desired."""
EXACT: Final = frozenset({"selector", "podSelector", "namespaceSelector", "matchLabels", "ingress"})
"""Fields to which the API server adds nothing. One more entry may make a selector select nothing, or a NetworkPolicy admit nothing."""
TEXTS: Final = frozenset({"selector", "matchLabels", "nodeSelector", "labels", "annotations"})
"""Fields with texts by names that the user or the operator gives: the API server keeps empty ones."""
KEPT: Final = frozenset({"allowPrivilegeEscalation", "automountServiceAccountToken", "enableServiceLinks", "namespaceSelector"})
"""Fields that the API server keeps although they are false or empty: without them they would mean the opposite."""
AMOUNTS: Final = frozenset({"requests", "limits"})
SPECIAL: Final = EXACT | TEXTS | AMOUNTS
SOURCE_RANGES: Final = "service.beta.kubernetes.io/load-balancer-source-ranges"
"""The older form of ``loadBalancerSourceRanges``."""
NOTES_ANNOTATION: Final = "multiconnect.dev/annotations"
"""Names of the user's annotations at the last write of the object or its pod template; all others belong to other writers."""


def marked(obj: dict[str, Any], notes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return a desired object with the user's annotations ``notes`` and the marks by which a removal is noticed later.

    The number of replicas does not count: it is scaled on its own (laws#4).
    """
    wanted = {key: value for key, value in obj["spec"].items() if key != "replicas"}
    digest = hashlib.sha256(json.dumps([wanted, notes], sort_keys=True, default=dict).encode()).hexdigest()[:16]
    names = sorted({*(notes or {}), *_notes(wanted.get("template"))})
    marks = {DESIRED_ANNOTATION: digest} | ({NOTES_ANNOTATION: ",".join(names)} if names else {})
    return {**obj, "metadata": {**obj["metadata"], "annotations": {**(notes or {}), **marks}}}


def corrected(live: Obj, wanted: Obj) -> dict[str, Any]:
    """Return the object that replaces ``live``, by its resourceVersion: its spec as desired, field by field of the first level.

    Fields that the desired object does not have stay: the number of Coreapps, an assigned address, foreign labels and annotations. Those of
    the pod template stay too: otherwise the next edit would roll back a restart that kubectl noted there.
    """
    meta, asked = live["metadata"], wanted["metadata"]
    noted: Mapping[str, str] = meta.get("annotations") or {}
    ours = {NOTES_ANNOTATION, *filter(None, noted.get(NOTES_ANNOTATION, "").split(","))}
    kept = {key: value for key, value in noted.items() if key not in ours}
    if wanted["spec"].get("type") != "LoadBalancer":  # the API server rejects it then, as it does the field of the same meaning
        kept.pop(SOURCE_RANGES, None)
    spec = {**_compatible(live.get("spec") or {}, wanted["spec"]), **wanted["spec"]}
    if (template := wanted["spec"].get("template")) is not None:
        others = {key: value for key, value in _notes((live.get("spec") or {}).get("template")).items() if key not in ours}
        if others:
            spec["template"] = {**template, "metadata": {**template["metadata"], "annotations": {**others, **_notes(template)}}}
    return {
        "apiVersion": wanted["apiVersion"],
        "kind": wanted["kind"],
        "metadata": {
            **{key: value for key, value in meta.items() if key != "managedFields"},
            "labels": {**(meta.get("labels") or {}), **asked["labels"]},
            "annotations": {**kept, **asked.get("annotations", {})},
            "ownerReferences": asked["ownerReferences"],
        },
        "spec": spec,
    }


def _compatible(live: Obj, wanted: Obj) -> dict[str, Any]:
    """Return the fields of a spec that may stay next to these: the API server rejects some, and drops only a part of them itself."""
    out = {"externalName", "minAvailable"}
    if wanted.get("type") != "LoadBalancer":
        out.add("loadBalancerSourceRanges")
    return {key: value for key, value in live.items() if key not in out}


def _notes(template: Obj | None) -> Mapping[str, str]:
    """Return the annotations of a pod template, if it is one and has any."""
    return ((template or {}).get("metadata") or {}).get("annotations") or {}


def covers(live: Any, wanted: Any) -> bool:
    """Return whether ``live`` has every field of ``wanted``; fields that the API server added count only in selectors and policies.

    Under ``requests`` and ``limits`` amounts are compared by value: the API server stores 1024Mi as 1Gi.
    """
    return _covers(live, wanted, "", kept=False)


def _covers(live: Any, wanted: Any, within: str, *, kept: bool) -> bool:
    """``within``: the innermost special field around both values. ``kept``: an empty value is not the same as none."""
    if live == wanted:
        return True
    if live is None and not kept and isinstance(wanted, (bool, str, Mapping, list, tuple)) and not wanted:
        # The API server drops empty and false values.
        return True
    if isinstance(wanted, Mapping):
        return (
            isinstance(live, Mapping)
            and not _has_more(live, wanted, within)
            and all(_covers(live.get(key), value, _inside(key, within), kept=_is_kept(key, within)) for key, value in wanted.items())
        )
    if isinstance(wanted, (list, tuple)):
        if not isinstance(live, (list, tuple)) or len(live) != len(wanted):
            return False
        return all(_covers(live[at], one, _entry(within), kept=kept) for at, one in enumerate(wanted))
    return within in AMOUNTS and _amount(live) is not None and _amount(live) == _amount(wanted)


def _has_more(live: Mapping[str, Any], wanted: Mapping[str, Any], within: str) -> bool:
    """Return whether ``live`` has a field that it must not have."""
    return within in EXACT and not live.keys() <= wanted.keys()


def _inside(key: str, within: str) -> str:
    return key if key in SPECIAL else within


def _entry(within: str) -> str:
    """Return the special field that encloses the entries of a list: only exact fields apply at any depth."""
    return within if within in EXACT else ""


def _is_kept(key: str, within: str) -> bool:
    return key in KEPT or within in TEXTS


# --- changes by the API server after a write ----------------------------------------------------------------------------

TRIES: Final = 3
"""How often a field is restored that changes again after each write: a person or another controller may insist."""
INSISTENT_FOR: Final = timedelta(hours=1)
"""If the last restore of a field is longer ago, the count starts again."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of a live object that is not as desired. None: it does not exist, or should not."""

    desired: Any
    live: Any


def differences(live: Any, desired: Any) -> Iterator[tuple[str, Difference]]:
    """Return the fields in which ``live`` differs from ``desired``, by path; none exactly if ``live`` covers ``desired``.

    Lists whose entries have names, such as containers, are compared name by name: one that was added is ``containers[proxy]``.
    """
    return _differences(live, desired, "", "", kept=False)


def _differences(live: Any, desired: Any, path: str, within: str, *, kept: bool) -> Iterator[tuple[str, Difference]]:
    if _covers(live, desired, within, kept=kept):
        return
    mine, there = _named(desired), _named(live)
    if isinstance(desired, Mapping) and isinstance(live, Mapping) and not _has_more(live, desired, within):
        for key, value in desired.items():
            inside = f"{path}[{key}]" if "/" in key or "." in key else f"{path}.{key}".lstrip(".")
            yield from _differences(live.get(key), value, inside, _inside(key, within), kept=_is_kept(key, within))
    elif mine and there and [name for name in mine if name in there] == [name for name in there if name in mine]:
        for name in {**mine, **there}:
            inside = f"{path}[{name}]"
            if name in mine and name in there:
                yield from _differences(there[name], mine[name], inside, _entry(within), kept=kept)
            else:
                yield inside, Difference(mine.get(name), there.get(name))
    else:
        yield path, Difference(desired, live)


def _named(value: Any) -> Mapping[str, Any] | None:
    """Return the entries of a list by name; None if it is not a list, or if the names are not unique."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, Mapping) and isinstance(one.get("name"), str) for one in value):
        return None
    found = {one["name"]: one for one in value}
    return found if len(found) == len(value) else None


def attempted(earlier: Mapping[str, Attempt], *, before: Obj | None, desired: Obj, stored: Obj, now: datetime) -> dict[str, Attempt]:
    """Return what is known about an object's fields after a write, by path: the ``earlier`` knowledge and the result of this write.

    ``before``: the observed object, None if it was created; ``desired``: as it should be; ``stored``: the API server's answer.
    """
    was = dict(differences(before, desired)) if before is not None else {}
    now_is = dict(differences(stored, desired))
    kept = {path: one for path, one in earlier.items() if one.stored != one.desired or now - one.at < INSISTENT_FOR}
    for path, one in {**was, **now_is}.items():
        last = kept.get(path)
        times = 1
        if last is not None and last.desired == one.desired and now - last.at < INSISTENT_FOR:
            # It was only written together with another field, so it does not count as restored.
            times = last.times + (path in was and was[path].live != last.stored)
        kept[path] = Attempt(
            desired=one.desired,
            before=was[path].live if path in was else one.desired,
            stored=now_is[path].live if path in now_is else one.desired,
            times=times,
            at=now,
        )
    return kept


def is_settled(found: Difference, attempt: Attempt | None, now: datetime) -> bool:
    """Return whether writing a field again would be useless: neither the desired value nor the stored one has changed since.

    A field that another writer changes after each write is left unchanged after a few times.
    """
    if attempt is None or attempt.desired != found.desired:
        return False
    if found.live == attempt.stored:
        return True
    return attempt.times >= TRIES and (found.live == attempt.before or now - attempt.at < INSISTENT_FOR)


# --- amounts -----------------------------------------------------------------------------------------------------------

_AMOUNT = re.compile(r"([+-]?[0-9.]+)(?:([numkMGTPE]?)|([KMGTPE])i|[eE]([+-]?[0-9]+))")


def _amount(text: Any) -> Decimal | None:
    """Return the value of a Kubernetes quantity, or None if it is none."""
    match = _AMOUNT.fullmatch(str(text))
    if match is None:
        return None
    number, decimal, binary, exponent = match.groups()
    try:
        value = Decimal(number)
    except InvalidOperation:
        return None
    if binary:
        return value * Decimal(1024) ** ("KMGTPE".index(binary) + 1)
    if exponent:
        return value.scaleb(int(exponent))
    return value * Decimal(10) ** {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}[decimal]
