"""Every example, and all YAML of the documents, is taken by the real API server with kubectl's strict validation; values by Helm."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from localkube.charts import CLUSTER, OPERATOR, Helm
from localkube.errors import LocalKubeError
from localkube.plane.controlplane import ControlPlane
from localkube.plane.operators import REPOSITORY, await_crd
from localkube.programs.binaries import provide
from localkube.programs.versions import chart_programs
from whatsapp_operator.core import windows
from whatsapp_operator.core.desired import Database, Desired, Tuning
from whatsapp_operator.shell.objects.reading import desired_of

from .documented import Block, all_blocks

pytestmark = pytest.mark.integration

EXAMPLES = {path.stem: path for path in sorted((REPOSITORY / "examples").glob("*.yaml"))}
YAML = [block for block in all_blocks() if block.language == "yaml"]
NAMESPACE = "examples"
CRD = "whatsappclusters.multiconnect.dev"


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    control_plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds" / "whatsappclusters.yaml"))
    await_crd(control_plane)
    control_plane.kubectl("create", "namespace", NAMESPACE)
    yield control_plane
    control_plane.kubectl("delete", "crd", CRD)
    control_plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(provide(os.environ, programs=chart_programs())["helm"], tmp_path_factory.mktemp("helm"))


def taken(plane: ControlPlane, path: Path) -> dict[str, Any]:
    """The example as the API server would store it."""
    return stored(plane, path.read_text(encoding="utf-8"))


def stored(plane: ControlPlane, manifest: str) -> dict[str, Any]:
    """An object as the API server would store it. LocalKubeError with why it takes none."""
    create = ("-n", NAMESPACE, "create", "--validate=strict", "--dry-run=server", "-o", "json", "-f", "-")
    made: dict[str, Any] = json.loads(plane.kubectl(*create, input=manifest))
    return made


def tried(plane: ControlPlane, helm: Helm, given: Mapping[str, Any]) -> None:
    """Have an object, a part of a spec or values of a chart taken. AssertionError if it is none of them, LocalKubeError if it is wrong."""
    if set(given) == {"spec"}:
        cluster = yaml.safe_load(EXAMPLES["cluster"].read_text(encoding="utf-8"))
        given = cluster | {"spec": {**cluster["spec"], **given["spec"]}}
    if "kind" in given:
        assert covered(stored(plane, yaml.safe_dump(given)).get("spec"), given.get("spec"))
        return
    charts = [REPOSITORY / "charts" / chart for chart in (OPERATOR, CLUSTER)]
    fitting = [chart for chart in charts if given.keys() <= yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8")).keys()]
    assert fitting, f"neither an object nor values of a chart: {given}"
    helm.run("template", "acme", str(fitting[0]), values=yaml.safe_dump(dict(given)))


@pytest.fixture(name="desired", scope="module")
def a_desired(plane: ControlPlane) -> dict[str, Desired]:
    return {name: desired_of(taken(plane, path), image="i", tuning=Tuning()) for name, path in EXAMPLES.items()}


def test_there_is_one_for_each_purpose() -> None:
    assert set(EXAMPLES) == {"cluster", "production", "staging", "tuned-failover", "maintenance-window", "external-database"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_api_server_takes_it_and_keeps_every_field(plane: ControlPlane, name: str) -> None:
    given = yaml.safe_load(EXAMPLES[name].read_text(encoding="utf-8"))
    assert covered(taken(plane, EXAMPLES[name])["spec"], given["spec"])


@pytest.mark.parametrize("block", YAML, ids=str)
def test_the_yaml_of_the_documents_is_taken(plane: ControlPlane, helm: Helm, block: Block) -> None:
    for given in yaml.safe_load_all(block.text):
        tried(plane, helm, given)


def test_the_first_cluster_that_is_shown_is_the_first_example() -> None:
    shown = next(block for block in YAML if block.page == "README.md")
    assert yaml.safe_load(shown.text) == yaml.safe_load(EXAMPLES["cluster"].read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"spec": {"shard": 2}}, LocalKubeError),
        ({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"port": 1}}, LocalKubeError),
        ({"image": {"repo": "a"}}, LocalKubeError),
        ({"unknown": 1}, AssertionError),
    ],
)
def test_yaml_that_is_wrong_is_noticed(plane: ControlPlane, helm: Helm, given: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        tried(plane, helm, given)


def test_values_of_a_chart_are_rendered(plane: ControlPlane, helm: Helm) -> None:
    tried(plane, helm, {"image": {"repository": "a"}})


def covered(kept: Any, given: Any) -> bool:
    if isinstance(given, dict):
        return isinstance(kept, dict) and all(covered(kept.get(key), value) for key, value in given.items())
    if isinstance(given, list):
        return isinstance(kept, list) and len(kept) == len(given) and all(map(covered, kept, given))
    return bool(kept == given)


def test_production_and_staging_are_as_the_vendors_template(desired: dict[str, Desired]) -> None:
    def counted(name: str) -> tuple[int, int, int]:
        want = desired[name]
        return want.shards + want.spares, want.spares, want.webapps or 0

    assert counted("production") == (3, 1, 3)
    assert counted("staging") == (2, 1, 2)


def test_the_database_is_named_by_its_secrets(desired: dict[str, Desired]) -> None:
    assert desired["external-database"].database == Database(secret_name="acme-database", tls_secret_name="acme-database-tls")
    assert all(want.database is None for name, want in desired.items() if name != "external-database")


def test_the_windows_are_open_at_night_only(desired: dict[str, Desired]) -> None:
    given = desired["maintenance-window"].windows
    assert windows.problem(given) is None
    assert len(given) == 2
    # Berlin is at UTC+1 in January; the 5th of 2026 is a Monday
    assert windows.is_open(given, datetime(2026, 1, 5, 2, 0, tzinfo=UTC))
    assert not windows.is_open(given, datetime(2026, 1, 5, 12, 0, tzinfo=UTC))
    assert windows.next_opening(given, datetime(2026, 1, 3, 12, 0, tzinfo=UTC)) == datetime(2026, 1, 4, 0, 0, tzinfo=UTC)
