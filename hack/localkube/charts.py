"""The Helm charts: what in them is copied or derived from elsewhere in the repository, and how they are linted and rendered."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from localkube import reference
from localkube.errors import LocalKubeError
from localkube.files import rewrite
from localkube.monitoring import dashboard, rules
from localkube.plane.operators import NAMESPACE
from localkube.programs.binaries import provide
from localkube.programs.versions import chart_programs, kubernetes_version
from localkube.run import output

OPERATOR, CLUSTER = "whatsapp-operator", "whatsapp-cluster"
IMAGES = {"operator": "whatsapp-operator/operator", "simulator": "whatsapp-operator/wabiz-sim"}
"""By target of the Dockerfile; the names that the charts have as defaults."""
CRD = Path("crds") / "whatsappclusters.yaml"
HELM_SECONDS = 240.0
READY_SECONDS = 180.0
"""How long Helm itself waits, which is not as long."""
SCHEMA = "values.schema.json"
BEGIN, END = "<!-- values: made by `make charts` from values.yaml -->", "<!-- end of values -->"

Schema = dict[str, Any]


def main(argv: Sequence[str], *, root: Path) -> int:
    """Write the derived files, then lint both charts and render them into build/charts. Returns the exit status. LocalKubeError."""
    text = "Write what is derived in the documents, in the CRD and in the Helm charts, lint and render these."
    parser = argparse.ArgumentParser(prog="hack/charts", description=text)
    parser.add_argument("--write-only", action="store_true", help="neither lint nor render, so that no Helm is needed")
    options = parser.parse_args(argv)
    rewrite(reference.derived(root), root)
    rewrite(derived(root), root)  # the CRD that was just written is in it
    if not options.write_only:
        _lint_and_render(root)
    return 0


def derived(root: Path) -> dict[Path, str]:
    """The files of the charts that come from others, by path, as they should be."""
    charts = root / "charts"
    crd = (root / CRD).read_text(encoding="utf-8")
    shipped = charts / OPERATOR / "files"
    files = {shipped / CRD.name: crd, shipped / "alerts.yaml": rules.text(), shipped / "dashboard.json": dashboard.text()}
    mine = json.loads((charts / OPERATOR / SCHEMA).read_text(encoding="utf-8"))
    for chart, schema in ((OPERATOR, mine), (CLUSTER, cluster_schema(yaml.load(crd, Loader=yaml.CSafeLoader)))):
        values, readme = charts / chart / "values.yaml", charts / chart / "README.md"
        required = with_required(schema, yaml.safe_load(values.read_text(encoding="utf-8")))
        files[charts / chart / SCHEMA] = json.dumps(required, indent=2) + "\n"
        files[readme] = with_table(readme.read_text(encoding="utf-8"), values)
    return files


# ---- the table of values


def with_table(readme: str, values: Path) -> str:
    """``readme`` with the table of ``values`` between its two marks. LocalKubeError if it has no marks, or a value has no comment."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        msg = f"README.md of chart {values.parent.name} lacks the marks of the table of values: put {BEGIN!r} and {END!r} into it"
        raise LocalKubeError(msg)
    rows = [f"| `{path}` | `{json.dumps(default)}` | {text} |" for path, default, text in commented(values)]
    return "\n".join([before + BEGIN, "", "| value | default | meaning |", "| --- | --- | --- |", *rows, "", END + after])


def commented(values: Path) -> Iterator[tuple[str, Any, str]]:
    """(path, default, comment) of every value with a comment ``# -- …`` above it, in order.

    LocalKubeError names a value that has none, neither itself nor something that it is in or that is in it.
    """
    text = values.read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    where: list[tuple[int, str]] = []
    comment: list[str] = []
    covered: set[str] = set()
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            if stripped.startswith("# -- "):
                comment = [stripped.removeprefix("# -- ")]
            elif comment:
                comment.append(stripped.removeprefix("# "))
            continue
        key = re.match(r"( *)([A-Za-z]\w*):", line)
        if key is None:
            continue
        where = [*(one for one in where if one[0] < len(key[1])), (len(key[1]), key[2])]
        path = ".".join(name for _, name in where)
        if comment:
            covered.add(path)
            yield path, _at(content, path), " ".join(comment).replace("|", "\\|")
        elif not isinstance(_at(content, path), Mapping) and not any(path.startswith(f"{one}.") for one in covered):
            raise LocalKubeError(f"{path} in values.yaml of chart {values.parent.name} has no comment: put '# -- what it does' above it")
        comment = []


def _at(content: Any, path: str) -> Any:
    for name in path.split("."):
        content = content[name]
    return content


# ---- the schema of the cluster's values


def cluster_schema(crd: Mapping[str, Any]) -> Schema:
    """The schema of the values of the cluster's chart: the CRD's own for what goes into ``spec``, so that no field can be forgotten."""
    spec = strict(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"])["properties"]
    client = spec["client"]["properties"]
    for name in ("shards", "spares"):
        spec[name] = _or_null(spec[name])
    webapp = spec["webapp"]["properties"]
    spec["webapp"]["properties"] = {"replicas": _or_null(webapp.pop("replicas")), "autoscaled": {"type": "boolean"}, **webapp}
    tls, probe = spec["webapp"]["properties"]["tls"]["properties"], spec["failover"]["properties"]["probe"]["properties"]
    tls["secretRef"], tls["serverName"], probe["path"] = map(_or_empty, (tls["secretRef"], tls["serverName"], probe["path"]))
    simulator = client["simulator"]
    simulator["properties"]["storage"] = _or_empty(simulator["properties"]["storage"])
    simulator["properties"] = {"enabled": {"type": "boolean"}, **simulator["properties"]}
    text, named = {"type": "string"}, {"type": "string", "minLength": 1}
    texts = {"type": "object", "additionalProperties": text}
    image = _object(repository=named, tag=text, digest={**text, "pattern": "^(sha256:[0-9a-f]{64})?$"})
    secrets = {"type": "array", "items": {**_object(name=named), "required": ["name"]}}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **_object(
            name={"type": "string", "pattern": "^([a-z]([-a-z0-9]{0,38}[a-z0-9])?)?$"},
            preset={"enum": ["", "production", "staging"]},
            **{key: spec[key] for key in FLAT},
            annotations=texts,
            labels=texts,
            simulator=simulator,
            client=_object(**{key: _or_empty(value) for key, value in client.items() if key not in {"type", "simulator"}}),
            **{key: _or_empty(spec[key]) if key in {"account", "database"} else spec[key] for key in spec if key not in {*FLAT, "client"}},
            test=_object(image=image, imagePullSecrets=secrets),
            **{"global": {"type": "object"}},
        ),
    }


def with_required(schema: Schema, defaults: Mapping[str, Any]) -> Schema:
    """``schema`` that requires what the chart gives: null takes a value away, which templates then miss.

    Not required are maps of the user's own, such as labels, and lists that may be empty: without them the chart leaves the field out.
    """
    if "properties" not in schema:
        return schema
    given = {name: value for name, value in defaults.items() if value is not None}
    required = {*schema.get("required", ()), *(name for name in given if _is_missed(schema["properties"][name]))}
    parts = {
        name: with_required(part, given[name]) if isinstance(given.get(name), Mapping) else part
        for name, part in schema["properties"].items()
    }
    return {**schema, "properties": parts, **({"required": sorted(required)} if required else {})}


def _is_missed(schema: Schema) -> bool:
    kinds = [one for one in (schema, *schema.get("anyOf", ())) if "type" in one]
    is_own = all(one["type"] == "object" and "properties" not in one for one in kinds)
    may_be_empty = all(one["type"] == "array" and not one.get("minItems") for one in kinds)
    return not kinds or not (is_own or may_be_empty)


FLAT = ("shards", "spares", "paused")
KEPT = ("type", "enum", "minimum", "maximum", "minLength", "maxLength", "maxItems", "pattern", "required", "description")


def strict(schema: Mapping[str, Any]) -> Schema:
    """A part of a CRD's schema as JSON schema that rejects unknown fields; fields that the CRD rejects in any case are left out."""
    kept: Schema = {key: schema[key] for key in KEPT if key in schema}
    if schema.get("format") == "date-time":
        kept["format"] = "date-time"
    if "properties" in schema:
        wanted = {name: part for name, part in schema["properties"].items() if not _is_rejected(part)}
        kept |= {"properties": {name: strict(part) for name, part in wanted.items()}, "additionalProperties": False}
    if isinstance(schema.get("additionalProperties"), Mapping):
        kept["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        kept["items"] = strict(schema["items"])
    return kept


def _is_rejected(schema: Mapping[str, Any]) -> bool:
    return any(rule["rule"] == "false" for rule in schema.get("x-kubernetes-validations", ()))


def _object(**properties: Any) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _or_null(schema: Schema) -> Schema:
    widened: Schema = {**schema, "type": [schema["type"], "null"]}
    if "enum" in schema:
        widened["enum"] = [*schema["enum"], None]
    return widened


def _or_empty(schema: Schema) -> Schema:
    """A field that may be left out of the resource: in values it is then empty."""
    empty: Schema = {"const": ""} if schema["type"] == "string" else {"type": "object", "maxProperties": 0}
    return {"anyOf": [empty, schema]}


# ---- Helm


class Helm:
    """The program helm, without any cluster and any of the user's own settings unless ``env`` says so."""

    def __init__(self, program: Path, folder: Path, *, env: Mapping[str, str] | None = None) -> None:
        """``folder`` is for what Helm itself keeps."""
        self._program = program
        # It ends before collecting its garbage is worth the time.
        self._env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "GOGC": "off", **(env or {})}

    def run(self, *args: str, values: str = "", timeout: float = HELM_SECONDS) -> str:
        """What Helm prints; ``values`` are more values as YAML, for commands that take them.

        LocalKubeError says what it rejects, or that it did not end within ``timeout`` seconds.
        """
        return output([str(self._program), *args, *(["-f", "-"] if values else [])], text=values, env=self._env, timeout=timeout)

    def install_operator(self, root: Path, values: Mapping[str, Any]) -> None:
        """Install the operator by the chart in ``root``, or upgrade it; returns when its pods are ready."""
        where = ("--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", f"{READY_SECONDS:g}s")
        self.run("upgrade", "--install", OPERATOR, str(root / "charts" / OPERATOR), *where, values=yaml.safe_dump(dict(values)))


def _lint_and_render(root: Path) -> None:
    programs = provide(os.environ, programs=chart_programs())
    folder = root / "build" / "charts"
    folder.mkdir(parents=True, exist_ok=True)
    helm = Helm(programs["helm"], folder)
    for chart in (OPERATOR, CLUSTER):
        where = str(root / "charts" / chart)
        print(helm.run("lint", "--strict", "--kube-version", kubernetes_version(), where).strip())
        path = folder / f"{chart}.yaml"
        path.write_text(helm.run("template", "acme", where, "--kube-version", kubernetes_version()), encoding="utf-8")
        print(f"rendered {path.relative_to(root)}")
