"""Is a live object as it should be, and if not, what is put in its place? Pure; knows nothing of what the objects are for."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from .model import Obj

WANTED_ANNOTATION: Final = "multiconnect.dev/wanted"
"""Fingerprint of what was wanted when the object was last written: by it is seen what is wanted no longer."""
NOTES_ANNOTATION: Final = "multiconnect.dev/annotations"
"""Names of the annotations that the user asked for when the object, or its pod template, was last written; others are somebody else's."""


def marked(obj: dict[str, Any], notes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return a wanted object with the annotations ``notes`` of the user's and the marks by which a removal is noticed later.

    The number of replicas does not count: it is scaled on its own (DESIGN law 4).
    """
    wanted = {key: value for key, value in obj["spec"].items() if key != "replicas"}
    digest = hashlib.sha256(json.dumps([wanted, notes], sort_keys=True, default=dict).encode()).hexdigest()[:16]
    names = sorted({*(notes or {}), *_notes(wanted.get("template"))})
    marks = {WANTED_ANNOTATION: digest} | ({NOTES_ANNOTATION: ",".join(names)} if names else {})
    return {**obj, "metadata": {**obj["metadata"], "annotations": {**(notes or {}), **marks}}}


def mended(live: Obj, wanted: Obj) -> dict[str, Any]:
    """Return what is put in the place of ``live``, by its resourceVersion: its spec as wanted, field by field of the first level.

    What the wanted object does not speak of stays: the number of Coreapps, an address that was given, labels and annotations of others,
    also those of the pod template: a restart that kubectl noted there would else be rolled back with the next edit.
    """
    meta, asked = live["metadata"], wanted["metadata"]
    noted: Mapping[str, str] = meta.get("annotations") or {}
    ours = {NOTES_ANNOTATION, *filter(None, noted.get(NOTES_ANNOTATION, "").split(","))}
    kept = {key: value for key, value in noted.items() if key not in ours}
    spec = {**(live.get("spec") or {}), **wanted["spec"]}
    if (template := wanted["spec"].get("template")) is not None:
        others = {key: value for key, value in _notes((live.get("spec") or {}).get("template")).items() if key not in ours}
        if others:
            spec["template"] = {**template, "metadata": {**template["metadata"], "annotations": {**others, **_notes(template)}}}
    return {
        "apiVersion": wanted["apiVersion"],
        "kind": wanted["kind"],
        "metadata": {
            **meta,
            "labels": {**(meta.get("labels") or {}), **asked["labels"]},
            "annotations": {**kept, **asked.get("annotations", {})},
            "ownerReferences": asked["ownerReferences"],
        },
        "spec": spec,
    }


def _notes(template: Obj | None) -> Mapping[str, str]:
    """Return the annotations of a pod template, if it is one and has any."""
    return ((template or {}).get("metadata") or {}).get("annotations") or {}


def covers(live: Any, wanted: Any, *, amounts: bool = False) -> bool:
    """Return whether ``live`` has everything that ``wanted`` says; what the API server added does not count.

    Under ``requests`` and ``limits`` amounts are compared by value: the API server stores 1024Mi as 1Gi.
    """
    if live == wanted:
        return True
    if live is None and isinstance(wanted, (bool, str, Mapping, list, tuple)) and not wanted:
        # The API server leaves out what is empty or false.
        return True
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(
            covers(live.get(key), value, amounts=amounts or key in {"requests", "limits"}) for key, value in wanted.items()
        )
    if isinstance(wanted, (list, tuple)):
        return isinstance(live, (list, tuple)) and len(live) == len(wanted) and all(map(covers, live, wanted))
    return amounts and _amount(live) is not None and _amount(live) == _amount(wanted)


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
    return value * Decimal(10) ** {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}[decimal or ""]
