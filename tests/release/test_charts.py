"""What Artifact Hub shows of the charts, and that the charts of a release lead to its images."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from localkube.charts import CLUSTER, OPERATOR, Helm
from localkube.release.packages import charts, manifest
from whatsapp_operator import __version__

from .conftest import EPOCH, ROOT
from .test_reproducible import NOTES

REGISTRY = "registry.example.com/owner"
Obj = dict[str, Any]


@pytest.fixture(scope="module")
def folder(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("charts")
    charts(ROOT, made, helm, notes=NOTES, epoch=EPOCH, registry=REGISTRY)
    return made


def text_of(folder: Path, chart: str, name: str) -> str:
    with tarfile.open(folder / f"{chart}-{__version__}.tgz") as archive:
        file = archive.extractfile(f"{chart}/{name}")
        assert file is not None
        return file.read().decode()


def annotated(folder: Path, chart: str) -> Obj:
    """What is annotated, lists and maps as such."""
    about = yaml.safe_load(text_of(folder, chart, "Chart.yaml"))["annotations"]
    assert {type(value) for value in about.values()} == {str}, "Helm takes texts only"
    return {key.removeprefix("artifacthub.io/"): yaml.safe_load(value) for key, value in about.items()}


@pytest.mark.parametrize("chart", [OPERATOR, CLUSTER])
def test_what_artifact_hub_shows(folder: Path, chart: str) -> None:
    about = annotated(folder, chart)
    assert about["license"] == "Apache-2.0"
    assert about["category"] in {"integration-delivery", "streaming-messaging"}
    assert about["prerelease"] is True
    assert about["changes"] == [{"kind": "added", "description": "Traces."}]
    for link in about["links"]:
        assert link["name"]
        assert link["url"].startswith("https://")


@pytest.mark.parametrize(("chart", "names"), [(OPERATOR, {"operator", "wabiz-sim"}), (CLUSTER, {"wabiz-sim"})])
def test_the_images_are_those_of_the_release(folder: Path, chart: str, names: set[str]) -> None:
    images = annotated(folder, chart)["images"]
    assert {one["image"] for one in images} == {f"{REGISTRY}/{name}:{__version__}" for name in names}
    assert all(one["platforms"] == ["linux/amd64", "linux/arm64"] for one in images)
    values = text_of(folder, chart, "values.yaml")
    for name in names:
        assert f"repository: {REGISTRY}/{name}\n" in values
    assert "repository: whatsapp-operator/" not in values


def test_the_file_for_kubectl_leads_to_the_images_of_the_release(folder: Path, helm: Helm) -> None:
    text = manifest(folder / f"{OPERATOR}-{__version__}.tgz", helm)
    for name in ("operator", "wabiz-sim"):
        assert f"{REGISTRY}/{name}:{__version__}" in text
    assert text == manifest(folder / f"{OPERATOR}-{__version__}.tgz", helm)


def test_the_images_of_the_repository_are_those_of_its_version() -> None:
    for chart in (OPERATOR, CLUSTER):
        meta = yaml.safe_load((ROOT / "charts" / chart / "Chart.yaml").read_text(encoding="utf-8"))
        assert {one["image"].rpartition(":")[2] for one in yaml.safe_load(meta["annotations"]["artifacthub.io/images"])} == {__version__}


def test_the_operators_chart_shows_its_resource(folder: Path) -> None:
    about = annotated(folder, OPERATOR)
    crd = yaml.load((ROOT / "crds" / "whatsappclusters.yaml").read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    assert about["operator"] is True
    assert about["operatorCapabilities"] == "Full Lifecycle"
    (shown,) = about["crds"]
    names = crd["spec"]["names"]
    assert (shown["kind"], shown["name"]) == (names["kind"], crd["metadata"]["name"])
    assert shown["version"] == crd["spec"]["versions"][0]["name"]
    (example,) = about["crdsExamples"]
    assert (example["kind"], example["apiVersion"]) == (names["kind"], f"{crd['spec']['group']}/{shown['version']}")
    given = yaml.safe_load((ROOT / "examples" / "cluster.yaml").read_text(encoding="utf-8"))
    assert {key: given["spec"][key] for key in ("shards", "spares")}.items() <= example["spec"].items()
