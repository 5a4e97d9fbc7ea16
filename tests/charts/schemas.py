"""JSON schemas for kubeconform, made from what a real API server says of its own types: nothing is fetched from a network."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from localkube.charts import strict

Obj = dict[str, Any]
COMPLETE = "complete"
"""An empty file that is there once all schemas are."""


def write(folder: Path, openapi: Mapping[str, Any], crd: Mapping[str, Any]) -> None:
    """Write a schema per kind of ``openapi`` (the API server's /openapi/v2) and of the CRD into ``folder``, named as kubeconform asks.

    They reject unknown fields, and each has just what it needs of the others, for all of it is read again for each kind. ``folder`` is made
    again, and is complete once it has the file ``complete``.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    definitions = {name: _strict(definition) for name, definition in openapi["definitions"].items()}
    refers = {name: set(re.findall(r'"#/definitions/([^"]+)"', json.dumps(definition))) for name, definition in definitions.items()}
    for name, definition in openapi["definitions"].items():
        for kind in definition.get("x-kubernetes-group-version-kind", ()):
            needed = {one: definitions[one] for one in _reached(name, refers)}
            _write(folder, kind["kind"], kind["group"], kind["version"], {"$ref": f"#/definitions/{name}", "definitions": needed})
    for version in crd["spec"]["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        _write(folder, crd["spec"]["names"]["kind"], crd["spec"]["group"], version["name"], schema)
    (folder / COMPLETE).touch()


def _write(folder: Path, kind: str, group: str, version: str, schema: Mapping[str, Any]) -> None:
    # as kubeconform fills {{.ResourceKind}}{{.KindSuffix}}: of a group only what stands before the first dot
    name = "-".join(filter(None, (kind.lower(), group.partition(".")[0], version)))
    (folder / f"{name}.json").write_text(json.dumps(schema), encoding="utf-8")


def _reached(name: str, refers: Mapping[str, set[str]]) -> set[str]:
    """A definition and those that it refers to, directly or through others."""
    reached, found = set[str](), {name}
    while found:
        reached |= found
        found = set[str]().union(*(refers[one] for one in found)) - reached
    return reached


def _strict(definition: Mapping[str, Any]) -> Obj:
    """A definition that rejects unknown fields, and takes numbers where the API server does."""
    changed: Obj = copy.deepcopy(dict(definition))
    for part in _parts(changed):
        if "properties" in part and "additionalProperties" not in part:
            part["additionalProperties"] = False
        if part.get("format") == "int-or-string":
            part["type"] = ["string", "integer"]
    if str(definition.get("description", "")).startswith("Quantity is"):
        changed["type"] = ["string", "number"]
    return changed


def _parts(schema: Any) -> Iterator[Obj]:
    if isinstance(schema, dict):
        yield schema
        for part in (*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")):
            yield from _parts(part)
