"""What the simulator is started with: it reads this environment, finds these folders and is asked under this path."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from wabiz_sim.settings import Settings
from whatsapp_operator.core import manifests
from whatsapp_operator.core.desired import Account, Database, Desired

from .situations import situation

LOGIN = {"WA_DB_ENGINE": "PGSQL", "WA_DB_HOSTNAME": "db", "WA_DB_PORT": "5432", "WA_DB_USERNAME": "u", "WA_DB_PASSWORD": "p"}
"""What the user's Secret of the database holds."""


def wanting(**changes: Any) -> Desired:
    return situation().wanting(**changes).desired


def simulator(desired: Desired, kind: str = "StatefulSet") -> dict[str, Any]:
    """The spec of the simulator's object of this kind."""
    (found,) = (obj for obj in manifests.simulator(desired) if obj["kind"] == kind)
    spec: dict[str, Any] = found["spec"]
    return spec


def pods(desired: Desired) -> dict[str, Any]:
    spec: dict[str, Any] = simulator(desired)["template"]["spec"]
    return spec


def container(desired: Desired) -> dict[str, Any]:
    (found,) = pods(desired)["containers"]
    made: dict[str, Any] = found
    return made


def settings(desired: Desired) -> Settings:
    """What the simulator itself reads from its environment."""
    env = container(desired)["env"]
    from_secret = {one["name"]: LOGIN.get(one["name"], "") for one in env if "secretKeyRef" in one.get("valueFrom", {})}
    return Settings.from_env({one["name"]: one["value"] for one in env if "value" in one} | from_secret)


@pytest.mark.parametrize("seconds", [1, 45])
def test_the_simulator_knows_its_cluster_its_folder_and_how_long_a_restart_takes(seconds: int) -> None:
    found = settings(wanting(restart_seconds=seconds))

    assert (found.cluster, found.state_dir, found.restart_seconds) == ("acme", Path("/var/lib/wabiz"), seconds)
    assert (found.country_code, found.phone_number, found.registered_at, found.database) == ("", "", None, None)


REGISTERED = datetime(2026, 12, 24, 18, 30, tzinfo=UTC)


@pytest.mark.parametrize("registered", [None, REGISTERED])
def test_the_simulator_takes_the_number_of_the_account_and_no_other(registered: datetime | None) -> None:
    found = settings(wanting(account=Account(country_code="49", phone_number="15112345", registered_at=registered)))

    assert (found.country_code, found.phone_number, found.registered_at) == ("49", "15112345", registered)


# --- where its state lies


@pytest.mark.parametrize(
    ("storage", "source"),
    [(None, {"emptyDir": {}}), ("1Gi", {"persistentVolumeClaim": {"claimName": "acme-simulator"}})],
    ids=["in the pod", "in a claim"],
)
def test_the_state_lies_where_the_spec_says(storage: str | None, source: dict[str, Any]) -> None:
    desired = wanting(storage=storage)

    assert pods(desired)["volumes"] == [{"name": "state", **source}]
    assert container(desired)["volumeMounts"] == [{"name": "state", "mountPath": "/var/lib/wabiz"}]


def test_the_claim_asks_for_the_storage_that_the_spec_names() -> None:
    claim = next(iter(manifests.simulator(wanting(storage="3Gi"))))

    assert (claim["apiVersion"], claim["kind"], claim["metadata"]["name"]) == ("v1", "PersistentVolumeClaim", "acme-simulator")
    assert claim["metadata"]["labels"][manifests.COMPONENT_LABEL] == "simulator"
    assert simulator(wanting(storage="3Gi"), "PersistentVolumeClaim") == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "3Gi"}},
    }


@pytest.mark.parametrize(
    ("changes", "strategy"),
    [
        ({}, "OnDelete"),
        ({"storage": "1Gi"}, "RollingUpdate"),
        ({"database": Database(secret_name="db")}, "RollingUpdate"),
        ({"storage": "1Gi", "database": Database(secret_name="db")}, "RollingUpdate"),
    ],
    ids=["in the pod", "in a claim", "in a database", "both"],
)
def test_a_simulator_is_restarted_for_a_new_template_only_if_its_state_outlives_that(changes: dict[str, Any], strategy: str) -> None:
    assert simulator(wanting(**changes))["updateStrategy"] == {"type": strategy}


def test_one_simulator_runs_at_a_time_under_a_name_that_stays() -> None:
    spec = simulator(wanting())

    assert (spec["replicas"], spec["serviceName"]) == (1, "acme-simulator")


# --- its database


def test_a_database_without_encryption_needs_no_certificates() -> None:
    desired = wanting(database=Database(secret_name="db"))
    database = settings(desired).database

    assert database is not None
    assert (database.hostname, database.tls_dir) == ("db", None)
    assert [volume["name"] for volume in pods(desired)["volumes"]] == ["state"]


def test_the_certificates_of_the_database_are_where_the_simulator_reads_them() -> None:
    desired = wanting(database=Database(secret_name="db", tls_secret_name="db-tls"))
    database = settings(desired).database

    assert database is not None
    assert database.tls_dir == Path("/etc/wabiz/db-tls")
    assert container(desired)["volumeMounts"][1:] == [{"name": "database-tls", "mountPath": "/etc/wabiz/db-tls", "readOnly": True}]
    # Readable by its group alone: PostgreSQL's library does not take a key that others may read.
    assert pods(desired)["volumes"][1:] == [{"name": "database-tls", "secret": {"secretName": "db-tls", "defaultMode": 0o440}}]


# --- how it is reached and watched


def test_the_simulator_is_reached_under_the_port_that_its_service_and_its_pods_name() -> None:
    service, named = simulator(wanting(), "Service"), container(wanting())["ports"]

    assert service["ports"] == [{"name": "http", "port": 8080, "targetPort": 8080, "protocol": "TCP"}]
    assert named == [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]
    assert service["selector"] == simulator(wanting())["selector"]["matchLabels"]
    assert service["publishNotReadyAddresses"] is True, "Coreapps keep their connection while it is not ready for a moment"


def test_the_simulator_has_three_minutes_to_start_and_one_to_answer_again() -> None:
    """It waits a minute for its database before it listens."""
    made = container(wanting())

    assert [made[probe]["httpGet"] for probe in ("readinessProbe", "startupProbe", "livenessProbe")] == [
        {"path": "/", "port": 8080, "scheme": "HTTP"}
    ] * 3
    start, hung = made["startupProbe"], made["livenessProbe"]
    assert (start["periodSeconds"] * start["failureThreshold"], start["timeoutSeconds"]) == (180, 5)
    assert (hung["periodSeconds"] * hung["failureThreshold"], hung["timeoutSeconds"]) == (60, 5)
    assert made["readinessProbe"]["periodSeconds"] == 2


def test_the_simulator_runs_its_upstream_from_the_image_of_this_release() -> None:
    made = container(wanting(image="r/sim:1"))

    assert (made["name"], made["image"], made["command"]) == ("simulator", "r/sim:1", ["python", "-m", "wabiz_sim", "upstream"])
