"""Rendering a chart, and finding objects in what it rendered."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from localkube.charts import CLUSTER, OPERATOR, Helm
from localkube.errors import LocalKubeError
from localkube.programs.versions import kubernetes_version

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "whatsapp-operator-system"
Obj = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """The objects that a chart rendered, and the text of it."""

    text: str
    objects: list[Obj]

    def of(self, kind: str) -> list[Obj]:
        return [obj for obj in self.objects if obj["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Obj:
        found = [obj for obj in self.of(kind) if name in {None, obj["metadata"]["name"]}]
        assert len(found) == 1, f"{len(found)} of {kind} {name or ''}, not 1"
        return found[0]

    def env(self) -> dict[str, Any]:
        """The operator's environment."""
        container = self.one("Deployment")["spec"]["template"]["spec"]["containers"][0]
        return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def repeated(text: str) -> Iterator[str]:
    """Yield names that stand twice in one map, which strict readers of YAML, such as kubectl and Kustomize, reject."""

    def walk(node: yaml.Node | None) -> Iterator[str]:
        if isinstance(node, yaml.MappingNode):
            names = [name.value for name, _ in node.value]
            yield from (name for name in dict.fromkeys(names) if names.count(name) > 1)
            for _, part in node.value:
                yield from walk(part)
        elif isinstance(node, yaml.SequenceNode):
            for part in node.value:
                yield from walk(part)

    for document in yaml.compose_all(text, Loader=yaml.CSafeLoader):
        yield from walk(document)


@dataclass(frozen=True)
class Charts:
    """Both charts, and Helm. What was rendered or parsed is kept, and given again: nobody may change it."""

    helm: Helm
    _rendered: dict[tuple[object, ...], Rendered] = field(default_factory=dict)
    _parsed: dict[str, Obj | None] = field(default_factory=dict)

    def operator(self, *args: str, release: str = "whatsapp-operator", **values: Any) -> Rendered:
        return self._render(OPERATOR, release, NAMESPACE, args, values)

    def cluster(self, *args: str, release: str = "acme", **values: Any) -> Rendered:
        return self._render(CLUSTER, release, "default", args, values)

    def rejection(self, chart: str, *args: str, **values: Any) -> str:
        """What Helm says when it rejects these values."""
        with pytest.raises(LocalKubeError) as caught:
            self._render(chart, "acme", "default", args, values)
        return str(caught.value)

    def notes(self, chart: str, folder: Path, *, release: str = "acme", **values: Any) -> str:
        """The chart's NOTES. Helm prints them only with a cluster at hand, so a copy of the chart in ``folder`` has them in a manifest."""
        copy = folder / chart
        shutil.copytree(ROOT / "charts" / chart, copy)
        text = (copy / "templates" / "NOTES.txt").read_text(encoding="utf-8")
        manifest = '{{- define "notes" }}' + text + '{{ end -}}\napiVersion: v1\nkind: Notes\ntext: {{ include "notes" . | toJson }}\n'
        (copy / "templates" / "manifest.yaml").write_text(manifest, encoding="utf-8")
        shown = self.helm.run(
            "template", release, str(copy), "-n", NAMESPACE, "-s", "templates/manifest.yaml", values=yaml.safe_dump(values)
        )
        notes: str = yaml.safe_load(shown)["text"]
        return notes

    def _render(self, chart: str, release: str, namespace: str, args: tuple[str, ...], values: dict[str, Any]) -> Rendered:
        key = (chart, release, namespace, args, given := yaml.safe_dump(values))
        if key not in self._rendered:
            where = str(ROOT / "charts" / chart)
            version = ("--kube-version", kubernetes_version())
            text = self.helm.run("template", release, where, "-n", namespace, *version, *args, values=given)
            objects = map(self._object, re.split("^---$", text, flags=re.MULTILINE))
            self._rendered[key] = Rendered(text, [obj for obj in objects if obj])
        return self._rendered[key]

    def _object(self, document: str) -> Obj | None:
        if document not in self._parsed:
            self._parsed[document] = yaml.load(document, Loader=yaml.CSafeLoader)
        return self._parsed[document]
