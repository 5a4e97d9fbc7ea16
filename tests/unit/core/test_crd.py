"""The CRD says what the core reads and writes, no field more and none less: a field that does nothing is a lie."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from whatsapp_operator.core import conditions, report, rules
from whatsapp_operator.core.certificate import CertificateFacts
from whatsapp_operator.core.desired import SHARD_COUNTS, Desired
from whatsapp_operator.core.snapshot import Answer, HandoverTimes, Rejection

from .situations import FINGERPRINT, NOW, Situation
from .test_status import EVERYTHING, WORDS, handed_over
from .witnesses import growing

CRD: dict[str, Any] = yaml.safe_load((Path(__file__).parents[3] / "crds" / "whatsappclusters.yaml").read_text())
VERSION: dict[str, Any] = CRD["spec"]["versions"][0]
SCHEMA: dict[str, Any] = VERSION["schema"]["openAPIV3Schema"]
SPEC: dict[str, Any] = SCHEMA["properties"]["spec"]
STATUS: dict[str, Any] = SCHEMA["properties"]["status"]

POD_FIELDS = (
    "labels",
    "annotations",
    "resources.requests",
    "resources.limits",
    *(f"env[].{part}" for part in ("name", "value")),
    *(f"env[].valueFrom.{kind}KeyRef.{part}" for kind in ("secret", "configMap") for part in ("name", "key")),
    "nodeSelector",
    *(f"tolerations[].{part}" for part in ("key", "operator", "value", "effect", "tolerationSeconds")),
    "affinity",
    "topologySpreadConstraints[]",
    "priorityClassName",
)

AS_IN_A_POD = (".affinity", ".topologySpreadConstraints[]")
"""What goes into a pod as it is; that each of its fields is one of a pod is compared with the API server's own types."""

# Each field of spec, and where the core has it.
SPEC_FIELDS = {
    **{f"{kind}.pod.{part}": f"{kind}_pod" for kind in ("coreapp", "webapp") for part in POD_FIELDS},
    "webapp.service.type": "webapp_service",
    "webapp.service.annotations": "webapp_service",
    "client.images.coreapp": "images",
    "client.images.webapp": "images",
    "client.imagePullSecrets[].name": "pull_secrets",
    "database.secretRef.name": "database",
    "database.tlsSecretRef.name": "database",
    "client.adminSecretRef.name": "admin_secret",
    "reshard.drift": "repairs_drift",
    "reshard.restartTimeoutSeconds": "restart_timeout",
    "reshard.windows[].durationMinutes": "windows",
    "reshard.windows[].name": "windows",
    "reshard.windows[].schedule": "windows",
    "reshard.windows[].timeZone": "windows",
    "webapp.tls.secretRef.name": "tls",
    "webapp.tls.serverName": "tls",
    "webapp.tls.verification": "tls",
    "shards": "shards",
    "spares": "spares",
    "paused": "paused",
    "client.type": "",
    "client.simulator.restartSeconds": "restart_seconds",
    "client.simulator.storage.size": "storage",
    "account.countryCode": "account",
    "account.phoneNumber": "account",
    "account.secretRef.name": "account",
    "account.cert": "",
    "account.certificate": "",
    "account.pin": "",
    "account.registeredAt": "account",
    "webapp.replicas": "webapps",
    "failover.mode": "manual",
    "failover.unhealthyAfterSeconds": "unhealthy_after",
    "failover.probe.type": "probe",
    "failover.probe.path": "probe",
    "failover.probe.periodSeconds": "probe",
}
NOT_OF_SPEC = {
    "key",
    "uid",
    "generation",
    "invalid",
    "switchovers",
    "switchover_text",
    "switchover_problem",
    "deleting",
    "finalizers",
    "image",
    "tuning",
    "reshard_now",
}


def leaves(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """The fields of a schema that hold a value."""
    if path.endswith(AS_IN_A_POD):
        yield path
    elif schema.get("type") == "array":
        yield from leaves(schema["items"], path + "[]")
    elif "properties" in schema:
        for name, child in schema["properties"].items():
            yield from leaves(child, f"{path}.{name}" if path else name)
    else:
        yield path


def written(value: Any, path: str = "") -> Iterator[str]:
    """The fields of a status that hold a value."""
    if isinstance(value, list):
        for one in value:
            yield from written(one, path + "[]")
    elif isinstance(value, dict):
        for name, child in value.items():
            yield from written(child, f"{path}.{name}" if path else name)
    else:
        yield path


READ = CertificateFacts(fingerprint=FINGERPRINT, serial="42", issuer="ent:wa", verified_name="Acme", issued_at=NOW)
REPORTS: list[Situation] = [
    *EVERYTHING.values(),
    handed_over().seeing(handover_times={"100-moved": HandoverTimes(detect=3000, commit=38, serve=55)}),
    growing().with_account().calling(4, Answer.REJECTED, rejection=Rejection.CERTIFICATE, fingerprint=FINGERPRINT, detail="HTTP 400"),
    growing().with_account().noted(4, fingerprint=FINGERPRINT),
    growing().with_account(certificate=READ),
    growing().calling(4, Answer.BUSY, retry_after=timedelta(hours=1)),
    growing().with_account().calling(4, Answer.REJECTED, rejection=Rejection.CLIENT_EXPIRED),
    growing().with_account().calling(4, Answer.REJECTED, rejection=Rejection.REGISTRATION_CLOSED, secret_version="70"),
]


def test_spec_has_the_fields_that_the_core_reads() -> None:
    assert sorted(leaves(SPEC)) == sorted(SPEC_FIELDS)
    assert {field.name for field in fields(Desired)} == set(SPEC_FIELDS.values()) - {""} | NOT_OF_SPEC


def test_status_has_the_fields_that_the_core_writes() -> None:
    assert sorted(leaves(STATUS)) == sorted({path for one in REPORTS for path in written(one.report())})


def valid(value: Any, schema: dict[str, Any], path: str = "status") -> Iterator[str]:
    """What a value breaks of the parts of a schema that this CRD uses."""
    kinds: dict[str, type | tuple[type, ...]] = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    if not isinstance(value, kinds[schema["type"]]):
        yield f"{path}: {value!r} is no {schema['type']}"
        return
    if isinstance(value, dict):
        yield from (f"{path}: {name} is required" for name in schema.get("required", ()) if name not in value)
        for name, child in value.items():
            if name not in schema["properties"]:
                yield f"{path}.{name}: unknown"
            else:
                yield from valid(child, schema["properties"][name], f"{path}.{name}")
    elif isinstance(value, list):
        if len(value) > schema.get("maxItems", len(value)):
            yield f"{path}: too many"
        for one in value:
            yield from valid(one, schema["items"], path + "[]")
    elif isinstance(value, str):
        if len(value) > schema.get("maxLength", len(value)) or len(value) < schema.get("minLength", 0):
            yield f"{path}: length"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{path}: {value!r} does not match"
        if schema.get("format") == "date-time" and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value):
            yield f"{path}: {value!r} is no time"
    elif not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{path}: {value} is out of bounds"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"


@pytest.mark.parametrize("one", REPORTS, ids=range(len(REPORTS)))
def test_every_report_is_valid(one: Situation) -> None:
    assert list(valid(one.report(), STATUS)) == []


def condition_pattern() -> str:
    found: str = STATUS["properties"]["conditions"]["items"]["properties"]["reason"]["pattern"]
    return found


@pytest.mark.parametrize("word", sorted({word for text in WORDS.values() for word in text} | {row.name for row in rules.RULES}))
def test_every_word_is_one_that_the_API_server_takes(word: str) -> None:  # noqa: N802
    assert re.search(condition_pattern(), word)


def test_words_of_the_tables_are_words_too() -> None:
    for table in (conditions.READY, conditions.REDUNDANT, conditions.CERTIFICATE_VALID):
        assert all(re.search(condition_pattern(), word.reason) for word in table)


def test_shard_counts_are_those_that_the_client_takes() -> None:
    assert SPEC["properties"]["shards"]["enum"] == [1, 2, 4, 8, 16, 32] == list(SHARD_COUNTS)
    assert "default" not in SPEC["properties"]["shards"]


def test_answers_are_those_of_the_model() -> None:
    assert STATUS["properties"]["operation"]["properties"]["answer"]["enum"] == [str(answer) for answer in Answer]


def test_defaults_are_those_of_the_model() -> None:
    desired = {field.name: field.default for field in fields(Desired)}
    spec = SPEC["properties"]

    assert spec["spares"]["default"] == desired["spares"]
    assert spec["paused"]["default"] == desired["paused"]
    # No default: that it was left out must be seen.
    assert spec["webapp"]["properties"]["replicas"].get("default") == desired["webapps"]
    assert spec["client"]["properties"]["simulator"]["properties"]["restartSeconds"]["default"] == desired["restart_seconds"]


def test_limits_are_those_that_status_keeps() -> None:
    assert STATUS["properties"]["message"]["maxLength"] == report.MESSAGE_LIMIT
    assert STATUS["properties"]["recentHandovers"]["maxItems"] == report.MAX_HANDOVERS


@pytest.mark.parametrize("field", ["cert", "certificate", "pin"])
def test_a_secret_inline_is_refused_without_echoing_it(field: str) -> None:
    schema = SPEC["properties"]["account"]["properties"][field]

    assert [rule["rule"] for rule in schema["x-kubernetes-validations"]] == ["false"]
    assert "pattern" not in schema
    assert "enum" not in schema


@pytest.mark.parametrize("column", VERSION["additionalPrinterColumns"], ids=lambda column: column["name"])
def test_a_column_shows_a_field_that_exists(column: dict[str, Any]) -> None:
    path = column["jsonPath"].removeprefix(".")
    if path.startswith("status.conditions["):
        return
    area, _, rest = path.partition(".")
    known = {"spec": set(leaves(SPEC)), "status": set(leaves(STATUS)), "metadata": {"creationTimestamp"}}

    assert rest in known[area]


@pytest.mark.parametrize("name", ["spec", "status"])
def test_every_field_is_described(name: str) -> None:
    def bare(schema: dict[str, Any], path: str) -> Iterator[str]:
        if not schema.get("description"):
            yield path
        for child, inner in (schema.get("properties") or {}).items():
            yield from bare(inner, f"{path}.{child}")
        if "items" in schema:
            yield from bare(schema["items"], path + "[]")

    assert list(bare(SCHEMA["properties"][name], name)) == []


def test_nothing_is_let_through_that_the_api_server_would_drop_from_a_pod() -> None:
    def open_parts(schema: dict[str, Any], path: str) -> Iterator[str]:
        is_untyped = schema.get("type") == "object" and not {"properties", "additionalProperties"} & schema.keys()
        if is_untyped or "x-kubernetes-preserve-unknown-fields" in schema:
            yield path
        for child, inner in (schema.get("properties") or {}).items():
            yield from open_parts(inner, f"{path}.{child}")
        if "items" in schema:
            yield from open_parts(schema["items"], path + "[]")

    assert list(open_parts(SPEC, "spec")) == []


def test_it_is_small_enough_for_kubectl_apply_without_server_side() -> None:
    """Which keeps it whole in an annotation, of 256 KiB at most with all others."""
    assert len(json.dumps(CRD, separators=(",", ":"))) < 200_000
