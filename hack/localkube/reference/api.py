"""The reference of the resource: every field of the CRD with its type, its default and its description."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

Schema = Mapping[str, Any]

AS_IN_A_POD = {"affinity", "topologySpreadConstraints"}
"""Fields that Kubernetes documents itself."""
BOUNDS = (("minimum", "at least {}"), ("maximum", "at most {}"), ("minItems", "at least {} entries"), ("maxItems", "at most {} entries"))
LARGE = 5
"""Fields of a part above which it is spelled out once."""
HEAD = """# WhatsAppCluster

<!-- made by `make reference` from crds/whatsappclusters.yaml -->

Every field of `{group}/{version}`, kind `{kind}`, short name `{short}`. `kubectl explain {short}.spec` shows the same.
For typical combinations, see the [examples](../examples). For the reasons in the status, see [reasons](reasons.md).
"""


def page(crd: str) -> str:
    """Return the page for the text of a CRD."""
    spec = yaml.load(crd, Loader=yaml.CSafeLoader)["spec"]
    (version,) = spec["versions"]
    names, root = spec["names"], version["schema"]["openAPIV3Schema"]["properties"]
    head = HEAD.format(group=spec["group"], version=version["name"], kind=names["kind"], short=names["shortNames"][0])
    return head + "".join(_section(part, root[part]) for part in ("spec", "status"))


def _section(part: str, schema: Schema) -> str:
    rows = "".join(f"| `{path}` | {kind} | {default} | {text} |\n" for path, kind, default, text in _fields(part, schema, {}))
    return f"\n## {part}\n\n{_meaning(schema)}\n\n| field | type | default | meaning |\n| --- | --- | --- | --- |\n{rows}"


def _fields(path: str, schema: Schema, seen: dict[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield path, type, default and meaning of each field. Of several equal large parts, only the first is spelled out; see ``seen``."""
    for name, field in schema.get("properties", {}).items():
        if any(rule["rule"] == "false" for rule in field.get("x-kubernetes-validations", ())):
            continue  # The CRD rejects it in any case.
        here, parts = f"{path}.{name}", json.dumps(field.get("properties"))
        twin = seen.setdefault(parts, here) if len(field.get("properties", ())) > LARGE else here
        text = _meaning(field) + (f" Its fields are those of `{twin}`." if twin != here else "")
        yield here, _kind(field), "required" if name in schema.get("required", ()) else _default(field), text.replace("|", "\\|")
        if twin == here and name not in AS_IN_A_POD:
            yield from _fields(here, field, seen)
            yield from _fields(f"{here}[]", field.get("items", {}), seen)


def _meaning(schema: Schema) -> str:
    """Return the description, and what the CRD's validation rules require."""
    sentences = [" ".join(str(schema["description"]).split())]
    for rule in schema.get("x-kubernetes-validations", ()):
        said = str(rule["message"])
        sentences.append(f"`{rule['fieldPath'][1:]}` {said}." if "fieldPath" in rule else f"{said[0].upper()}{said[1:]}.")
    return " ".join(sentences).replace("<", "&lt;").replace("*", "\\*")


def _kind(schema: Schema) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = str(schema.get("format") or schema.get("type") or "integer or string")
    kind = {"int32": "integer", "int64": "integer"}.get(kind, kind)
    return "; ".join([kind, *(text.format(schema[key]) for key, text in BOUNDS if key in schema)])


def _default(schema: Schema) -> str:
    return f"`{json.dumps(schema['default'])}`" if schema.get("default") not in (None, {}) else ""
