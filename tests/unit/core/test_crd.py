"""The CRD says what the core reads and writes, no field more and none less: a field that does nothing is a lie."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from whatsapp_operator.core import conditions, report, rules
from whatsapp_operator.core.certificate import CertificateFacts
from whatsapp_operator.core.desired import SHARD_COUNTS, Desired
from whatsapp_operator.core.names import Key
from whatsapp_operator.core.snapshot import Answer, HandoverTimes, Rejection
from whatsapp_operator.shell.objects.fields import places, read

from .situations import FINGERPRINT, NOW, Situation
from .test_status import EVERYTHING, WORDS, handed_over
from .witnesses import growing

CRD: dict[str, Any] = yaml.load((Path(__file__).parents[3] / "crds" / "whatsappclusters.yaml").read_text(), Loader=yaml.CSafeLoader)
VERSION: dict[str, Any] = CRD["spec"]["versions"][0]
SCHEMA: dict[str, Any] = VERSION["schema"]["openAPIV3Schema"]
SPEC: dict[str, Any] = SCHEMA["properties"]["spec"]
STATUS: dict[str, Any] = SCHEMA["properties"]["status"]

AS_IN_A_POD = (".affinity", ".topologySpreadConstraints[]")
"""What goes into a pod as it is; that each of its fields is one of a pod is compared with the API server's own types."""

KEPT_WHOLE = {
    "resources.requests": "resources",
    "resources.limits": "resources",
    **{f"env[].{part}": "env" for part in ("name", "value")},
    **{f"env[].valueFrom.{kind}KeyRef.{part}": "env" for kind in ("secret", "configMap") for part in ("name", "key")},
    **{f"tolerations[].{part}": "tolerations" for part in ("key", "operator", "value", "effect", "tolerationSeconds")},
    "topologySpreadConstraints[]": "topologySpreadConstraints",
}
"""Parts of a pod that go into pods as they are: each field of the CRD, and the place where the core has it."""
INLINE_SECRETS = {f"account.{name}" for name in ("cert", "certificate", "pin")}
"""Fields that the CRD has so that it can reject them."""


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
    growing()
    .with_account()
    .seeing(rejected_fingerprint="cd" * 32)
    .calling(4, Answer.REJECTED, rejection=Rejection.CERTIFICATE, fingerprint=FINGERPRINT, detail="HTTP 400"),
    growing().with_account().noted(4, fingerprint=FINGERPRINT),
    growing().with_account(certificate=READ),
    growing().calling(4, Answer.BUSY, retry_after=timedelta(hours=1)),
    growing().with_account().calling(4, Answer.REJECTED, rejection=Rejection.CLIENT_EXPIRED),
    growing().with_account().calling(4, Answer.REJECTED, rejection=Rejection.REGISTRATION_CLOSED, secret_version="70"),
]


def test_spec_has_the_fields_that_the_core_reads() -> None:
    whole = {f"{kind}.pod.{field}": f"{kind}.pod.{place}" for kind in ("coreapp", "webapp") for field, place in KEPT_WHOLE.items()}
    in_crd = set(leaves(SPEC))
    assert whole.keys() <= in_crd
    assert {whole.get(leaf, leaf) for leaf in in_crd - INLINE_SECRETS} == set(places(Desired))


def test_no_field_is_read_twice() -> None:
    assert len([*places(Desired)]) == len({*places(Desired)})


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


def defaulted(schema: dict[str, Any], value: Any) -> Any:
    """What the API server makes of a value: the CRD's defaults filled in."""
    for name, field in schema.get("properties", {}).items():
        if name in value or "default" in field:
            value = {**value, name: defaulted(field, value.get(name, field.get("default")))}
    return value


def test_defaults_are_those_of_the_model() -> None:
    """What the operator reads of a spec is the same with the CRD's defaults and with its own."""
    key = {"key": Key("default", "acme"), "uid": "u", "generation": 1}
    least = {"shards": 2, "client": {"type": "Simulator", "simulator": {}}, "failover": {"probe": {}}, "webapp": {"tls": {}, "service": {}}}
    given = defaulted(SPEC, least)

    assert given["failover"]["probe"]["periodSeconds"] == 1
    assert read(Desired, given, **key) == read(Desired, least, **key)
    # No default: that it was left out must be seen.
    assert "default" not in SPEC["properties"]["webapp"]["properties"]["replicas"]
    assert read(Desired, least, **key).webapps is None


LEAST: dict[str, Any] = {"shards": 2, "client": {"type": "Simulator"}}


def client(**parts: Any) -> dict[str, Any]:
    return {**LEAST, "client": {"type": "Simulator", **parts}}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"client": {"type": "Simulator"}}, "Object missing required field `shards`"),
        ({"shards": 2}, "Object missing required field `client`"),
        ({**LEAST, "shards": 33}, r"Expected `int` <= 32 - at `\$\.shards`"),
        ({**LEAST, "failover": None}, r"Expected `object`, got `null` - at `\$\.failover`"),
        (client(adminSecretRef={}), r"missing required field `name` - at `\$\.client\.adminSecretRef`"),
        (client(imagePullSecrets=[{}]), r"`name` - at `\$\.client\.imagePullSecrets\[0\]`"),
        ({**LEAST, "reshard": {"windows": [{"name": "n"}]}}, r"`schedule` - at `\$\.reshard\.windows\[0\]`"),
        ({**LEAST, "failover": {"probe": {"periodSeconds": 0}}}, r">= 1 - at `\$\.failover\.probe\.periodSeconds`"),
    ],
)
def test_what_cannot_be_read_is_named(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        read(Desired, spec, key=Key("default", "acme"), uid="u", generation=1)


def test_a_reference_that_is_null_is_none() -> None:
    spec = {**client(adminSecretRef=None), "account": None}
    desired = read(Desired, spec, key=Key("default", "acme"), uid="u", generation=1)

    assert (desired.admin_secret, desired.account) == (None, None)


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


def checked_amounts(schema: dict[str, Any], path: str = "", at_most: int = 1) -> Iterator[tuple[str, int]]:
    """Each amount (an integer or a text) that a rule of CEL judges, and how many of them an object can have."""
    if schema.get("x-kubernetes-int-or-string") and "x-kubernetes-validations" in schema:
        yield path, at_most
    for name, child in schema.get("properties", {}).items():
        yield from checked_amounts(child, f"{path}.{name}", at_most)
    if "items" in schema:
        yield from checked_amounts(schema["items"], f"{path}[]", at_most * schema.get("maxItems", 10**9))
    if isinstance(child := schema.get("additionalProperties"), dict):
        yield from checked_amounts(child, f"{path}.*", at_most * schema.get("maxProperties", 10**9))


def test_the_oldest_kubernetes_takes_the_rules_about_amounts() -> None:
    """Up to Kubernetes 1.30 the API server takes no notice of maxLength there, and counts 629,150 for each; it rejects 10,000,000."""
    amounts = dict(checked_amounts(SPEC))
    assert len([path for path in amounts if ".resources." in path]) == 4
    assert max(amounts.values()) * 629_150 < 10_000_000
