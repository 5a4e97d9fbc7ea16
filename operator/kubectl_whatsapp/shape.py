"""Values in a stable shape for programs: JSON and YAML."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

SHAPE: Final = "kubectl-whatsapp/v1"
"""Fields may be added to it, but are never renamed or removed."""


class Output(StrEnum):
    """The values of ``-o``."""

    TEXT = "text"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"

    @property
    def is_for_programs(self) -> bool:
        """Whether it is JSON or YAML."""
        return self in {Output.JSON, Output.YAML}


def camel(name: str) -> str:
    """Return a field's name in JSON."""
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(part.capitalize() for part in rest)


def shape(value: Any) -> Any:
    """Return a value that JSON can represent: times become text, None is left out."""
    if is_dataclass(value) and not isinstance(value, type):
        pairs = ((field.name, getattr(value, field.name)) for field in fields(value))
        return {camel(name): shape(one) for name, one in pairs if one is not None}
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [shape(one) for one in value]
    return value


def document(kind: str, value: Any) -> dict[str, Any]:
    """Return a value with its shape and kind."""
    return {"apiVersion": SHAPE, "kind": kind, **shape(value)}


def dump(kind: str, value: Any, output: Output) -> str:
    """Return a value as JSON or YAML."""
    found = json.loads(json.dumps(document(kind, value)))
    if output is Output.JSON:
        return json.dumps(found, indent=2)
    import yaml  # noqa: PLC0415  # not needed for anything else

    return str(yaml.safe_dump(found, sort_keys=False, allow_unicode=True)).rstrip()
