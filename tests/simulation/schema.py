"""The schema of the custom resource, read from the CRD: which fields it names, and the defaults of those that are absent."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .kinds import Obj

CRD = Path(__file__).resolve().parents[2] / "crds" / "whatsappclusters.yaml"


@cache
def _properties() -> Mapping[str, Any]:
    (version,) = yaml.load(CRD.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)["spec"]["versions"]
    found: Mapping[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]
    return found


def completed(obj: Obj, before: Obj | None = None) -> Obj:
    """Return a custom object without the fields that the schema does not name, and with its defaults.

    ``before``: what was stored of it, and so is completed; what it has in common with that, as the very same dictionaries, stays.
    """
    old = before or {}
    parts: Obj = {part: _completed(obj[part], _properties()[part], old.get(part)) for part in ("spec", "status") if part in obj}
    if "status" not in obj and "default" in _properties()["status"]:
        parts["status"] = _completed(_properties()["status"]["default"], _properties()["status"])
    return {**obj, **parts}


def _completed(value: Any, schema: Mapping[str, Any], old: Any = None) -> Any:
    if value is old:
        return value
    if isinstance(value, Mapping) and "properties" in schema:
        known: Mapping[str, Any] = schema["properties"]
        keeps_all = schema.get("x-kubernetes-preserve-unknown-fields", False)
        was: Mapping[str, Any] = old if isinstance(old, Mapping) else {}
        result = {
            key: _completed(one, known[key], was.get(key)) if key in known else one
            for key, one in value.items()
            if key in known or keeps_all
        }
        for key, one in known.items():
            if key not in result and "default" in one:
                result[key] = _completed(one["default"], one)
        return result
    if isinstance(value, Mapping) and isinstance(schema.get("additionalProperties"), Mapping):
        return {key: _completed(one, schema["additionalProperties"]) for key, one in value.items()}
    if isinstance(value, list | tuple) and "items" in schema:
        return [_completed(one, schema["items"]) for one in value]
    if isinstance(value, Mapping) and not schema.get("x-kubernetes-preserve-unknown-fields") and schema.get("type") == "object":
        return {}
    return value
