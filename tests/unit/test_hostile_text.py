"""Any text that users write into a cluster's resource and Secrets is read without an error, bounded, and holds up no failover."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whatsapp_operator.core import manifests, report, rules
from whatsapp_operator.core.actions import Annotate, EmitEvent, Handover
from whatsapp_operator.core.desired import Desired, Tuning
from whatsapp_operator.shell.coreapps.schedule import ProbeResult
from whatsapp_operator.shell.objects.reading import (
    LONGEST_SWITCHOVERS,
    MOST_SWITCHOVERS,
    SpecError,
    account_secret_of,
    coreapp_of,
    desired_of,
    registered_at_of,
    reshard_now_of,
    switchovers_of,
)

from .core.situations import situation

Obj = dict[str, Any]

FUZZED = settings(max_examples=60, deadline=None, derandomize=True, database=None)

TIMES = st.sampled_from(
    [
        "0001-01-01T00:00:00+01:00",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59-01:00",
        "9999-12-31T23:59:59Z",
        "2027-01-04T12:00:00",
        "1969-12-31T23:59:59Z",
        "2999-12-31T23:59:59Z",
        "0000-00-00T00:00:00Z",
        "",
    ]
)
NUMBERS = st.sampled_from(["9" * 4301, "-" + "9" * 4301, "4", " 4 ", "04", "²", "٣", "1e400", "0x4", "NaN", "", "-1"])
ENTRIES = st.from_regex(r"[0-9]{1,3}(=[a-z0-9-]{0,20})?", fullmatch=True) | st.text(max_size=5)
SWITCHOVERS = st.lists(ENTRIES, max_size=50).map(",".join) | st.sampled_from(["99," * 3400, "9" * 4301, ",", "0=" + "a" * 5000])
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20) | TIMES | NUMBERS
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=5
)
WINDOWS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.text(max_size=5),
            "schedule": st.sampled_from(["0 2 * * *", "0 0 29 2 1#5", "0 0 31 2 *", "* * * * * *", "@reboot", ""]) | st.text(max_size=20),
            "durationMinutes": st.integers(5, 1440),
            "timeZone": st.sampled_from(["Etc/UTC", "../../etc/passwd", "America", "a" * 300, "\0", ""]) | st.text(max_size=10),
        }
    ),
    max_size=3,
)
FIELDS = ["shards", "spares", "client", "account", "database", "coreapp", "webapp", "failover", "reshard", "paused", "unknown"]


def a_cluster(annotations: dict[str, str] | None = None, **spec: Any) -> Obj:
    meta = {"namespace": "default", "name": "acme", "uid": "cluster-uid", "generation": 3, "annotations": annotations or {}}
    return {"metadata": meta, "spec": {"shards": 2, "client": {"type": "Simulator"}, **spec}}


def read(obj: Obj) -> Desired:
    return desired_of(obj, image="sim:1", tuning=Tuning())


def assert_fails_over(desired: Desired, secret: Obj | None = None) -> None:
    """A holder of this cluster is gone: its shard is handed over, no matter what else the plan is made of, and a status follows."""
    one = situation().settled().holder_deleted(0)
    snapshot = one.snapshot
    if desired.account is not None and desired.account.secret_name is not None:
        snapshot = replace(snapshot, account=account_secret_of("account", secret))
    plan = rules.plan(desired, snapshot)
    handovers = [action for action in plan.actions if isinstance(action, Handover)]
    assert [move.route.shard for move in handovers] == [0]
    assert len(plan.actions) <= 60
    assert len([action for action in plan.actions if isinstance(action, EmitEvent)]) <= 1
    report.report(rules.facts(desired, snapshot), plan)
    quiet = rules.plan(desired, situation().settled().snapshot)
    assert len([action for action in quiet.actions if isinstance(action, EmitEvent)]) <= 1
    assert len([action for action in quiet.actions if isinstance(action, Annotate)]) <= 1


@FUZZED
@given(SWITCHOVERS, NUMBERS, st.text(max_size=10))
def test_no_annotation_holds_up_a_failover(switchovers: str, number: str, paused: str) -> None:
    text = {
        manifests.SWITCHOVER_ANNOTATION: switchovers,
        manifests.RESHARD_NOW_ANNOTATION: number,
        manifests.PAUSED_ANNOTATION: paused,
    }
    desired = read(a_cluster(text))
    assert len(desired.switchovers) <= MOST_SWITCHOVERS
    assert_fails_over(desired)


@FUZZED
@given(TIMES, TIMES, WINDOWS, st.binary(max_size=20))
def test_no_time_and_no_window_holds_up_a_failover(registered: str, expires: str, windows: list[Obj], certificate: bytes) -> None:
    account = {"countryCode": "1", "phoneNumber": "6315550000", "secretRef": {"name": "account"}, "registeredAt": registered}
    try:
        desired = read(a_cluster(account=account, reshard={"windows": windows}))
    except SpecError:
        return
    data = {"expiresAt": base64.b64encode(expires.encode()).decode(), "certificate": base64.b64encode(certificate).decode()}
    assert_fails_over(desired, {"metadata": {"uid": "secret-uid", "resourceVersion": "7"}, "data": data})


@FUZZED
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3))
def test_a_spec_is_read_or_refused_by_name(changes: Obj) -> None:
    try:
        desired = read(a_cluster(**changes))
    except SpecError as error:
        desired, rejection = None, str(error)
    if desired is None:
        assert "spec" in rejection
        assert len(rejection) < 1000
    else:
        assert_fails_over(replace(desired, shards=2, spares=1, paused=False, manual=False))


@FUZZED
@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3), NUMBERS, NUMBERS, st.text(max_size=30), TIMES)
def test_labels_and_annotations_of_pods_and_services_are_read(more: dict[str, str], shard: str, epoch: str, holder: str, at: str) -> None:
    shard, epoch = shard[:63], epoch[:63]
    labels = {**more, manifests.SHARD_LABEL: shard, manifests.EPOCH_LABEL: f"{epoch}-x"[:63], manifests.ROLE_LABEL: "active"}
    notes = {manifests.HOLDER_ANNOTATION: holder, manifests.COMMITTED_ANNOTATION: at, manifests.EVIDENCE_ANNOTATION: holder}
    owner = [{"uid": "cluster-uid", "controller": True}]
    meta = {"name": "acme-coreapp-2", "uid": "uid-2", "resourceVersion": "9", "labels": labels, "ownerReferences": owner}
    pod = coreapp_of({"metadata": meta, "status": {}, "spec": {}}, ProbeResult())
    assert pod is not None
    service = {"metadata": {**meta, "name": "acme-shard-0", "annotations": notes}, "spec": {"selector": labels}}
    route = manifests.route_of(service, "acme", "cluster-uid")
    one = situation().settled().with_pod(2, labels=pod.labels)
    routes = (*one.snapshot.routes, *([route] if route is not None else []))
    plan = rules.plan(one.desired, replace(one.snapshot, routes=routes))
    report.report(rules.facts(one.desired, replace(one.snapshot, routes=routes)), plan)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("99," * 3400, f"has 10200 characters; at most {LONGEST_SWITCHOVERS} are read"),
        (",".join(map(str, range(40))), "names 40 shards; at most 32 are read"),
        ("0=a,0=b", "names two pods for shard 0"),
        ("٣", "write a shard such as 0"),
    ],
)
def test_what_is_too_much_is_refused_by_name(text: str, says: str) -> None:
    requests, problem = switchovers_of(text)
    assert requests == ()
    assert problem is not None
    assert manifests.SWITCHOVER_ANNOTATION in problem
    assert says in problem


def test_what_is_said_twice_is_one_request() -> None:
    requests, problem = switchovers_of("0=acme-coreapp-2, 1 ,0=acme-coreapp-2,")
    assert ([request.shard for request in requests], problem) == ([0, 1], None)


@pytest.mark.parametrize(("text", "number"), [("", None), (" ", None), ("4", 4), (" 16\n", 16)])
def test_a_number_of_shards_is_read(text: str, number: int | None) -> None:
    assert reshard_now_of(text) == (number, None)


@pytest.mark.parametrize(("text", "is_paused"), [("true", True), ("false", False), ("", False)])
def test_a_pause_is_read(text: str, is_paused: bool) -> None:
    desired = read(a_cluster({manifests.PAUSED_ANNOTATION: text}))
    assert (desired.paused, desired.invalid) == (is_paused, None)


@pytest.mark.parametrize("text", ["yes", "True", "1", " true", "x" * 5000])
def test_what_is_no_pause_is_named(text: str) -> None:
    """Else a person believes that nothing is changed, and the next Set Shards goes."""
    desired = read(a_cluster({manifests.PAUSED_ANNOTATION: text}))
    assert not desired.paused
    assert desired.invalid is not None
    assert f"Annotation {manifests.PAUSED_ANNOTATION} is {text[:40]!r}"[:-1] in desired.invalid
    assert desired.invalid.endswith("It holds nothing. Write true, or remove it.")
    assert len(desired.invalid) < 250


@pytest.mark.parametrize("text", ["9" * 4301, "four", "²", "-4", "4.0", "100", "3", "64", "0"])
def test_what_is_no_number_of_shards_is_named(text: str) -> None:
    number, problem = reshard_now_of(text)
    assert number is None
    assert problem is not None
    assert manifests.RESHARD_NOW_ANNOTATION in problem
    assert len(problem) < 250


def test_a_time_that_cannot_be_reckoned_with_is_named() -> None:
    for text in ("0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "2027-01-04T12:00:00"):
        at, problem = registered_at_of(datetime.fromisoformat(text))
        assert at is None
        assert problem is not None
        assert "spec.account.registeredAt" in problem
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert registered_at_of(at) == (at, None)
