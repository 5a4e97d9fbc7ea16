"""Every example is taken by the real API server as it stands, with kubectl's strict validation, and means something to the operator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from localkube.plane.controlplane import ControlPlane
from localkube.plane.operators import REPOSITORY, await_crd
from whatsapp_operator.core import windows
from whatsapp_operator.core.desired import Database, Desired, Tuning
from whatsapp_operator.shell.objects.reading import desired_of

pytestmark = pytest.mark.integration

EXAMPLES = {path.stem: path for path in sorted((REPOSITORY / "examples").glob("*.yaml"))}
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


def taken(plane: ControlPlane, path: Path) -> dict[str, Any]:
    """The example as the API server would store it."""
    made: dict[str, Any] = json.loads(
        plane.kubectl("-n", NAMESPACE, "create", "--validate=strict", "--dry-run=server", "-o", "json", "-f", str(path))
    )
    return made


@pytest.fixture(name="desired", scope="module")
def a_desired(plane: ControlPlane) -> dict[str, Desired]:
    return {name: desired_of(taken(plane, path), image="i", tuning=Tuning()) for name, path in EXAMPLES.items()}


def test_there_is_one_for_each_purpose() -> None:
    assert set(EXAMPLES) == {"cluster", "production", "staging", "tuned-failover", "maintenance-window", "external-database"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_api_server_takes_it_and_keeps_every_field(plane: ControlPlane, name: str) -> None:
    given = yaml.safe_load(EXAMPLES[name].read_text(encoding="utf-8"))
    assert covered(taken(plane, EXAMPLES[name])["spec"], given["spec"])


def covered(stored: Any, given: Any) -> bool:
    if isinstance(given, dict):
        return isinstance(stored, dict) and all(covered(stored.get(key), value) for key, value in given.items())
    if isinstance(given, list):
        return isinstance(stored, list) and len(stored) == len(given) and all(map(covered, stored, given))
    return bool(stored == given)


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
