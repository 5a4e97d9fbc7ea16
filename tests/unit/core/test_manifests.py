"""Objects, names and patches."""

# ruff: noqa: N802  (a test carries the word of its row as it is spelt, so that one grep finds everything)

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from whatsapp_operator.core import manifests, upkeep
from whatsapp_operator.core.actions import Handover
from whatsapp_operator.core.names import Epoch, Key, Obj
from whatsapp_operator.core.snapshot import Answer, Evidence

from .situations import NOW, labels_for, pod, route, situation

WANT = situation().desired
OBJECTS = [
    *manifests.secrets(WANT),
    *manifests.upkeep(WANT, webapp_replicas=2, resharding=False, is_first_boot=False, is_unused=False),
    manifests.shard_service(WANT, 0),
]
IDS = [f"{obj['kind']}-{obj['metadata']['name']}" for obj in OBJECTS]


@pytest.mark.parametrize("obj", OBJECTS, ids=IDS)
def test_every_object_is_labelled_and_owned(obj: dict[str, Any]) -> None:
    labels = obj["metadata"]["labels"]

    assert labels["multiconnect.dev/cluster"] == "acme"
    assert labels["app.kubernetes.io/managed-by"] == "whatsapp-operator"
    assert manifests.is_owned(obj, "cluster-uid")
    assert not manifests.is_owned(obj, "another-uid")
    assert obj["metadata"]["namespace"] == "default"


def test_no_two_objects_share_a_name() -> None:
    assert len(set(IDS)) == len(IDS)


def test_names_are_those_of_the_design() -> None:
    assert {
        "Secret-acme-admin",
        "Secret-acme-webapp-tls",
        "StatefulSet-acme-coreapp",
        "Service-acme-coreapp",
        "Service-acme-shard-0",
        "Deployment-acme-webapp",
        "Service-acme-webapp",
        "PodDisruptionBudget-acme-coreapp",
        "PodDisruptionBudget-acme-webapp",
        "StatefulSet-acme-simulator",
        "Service-acme-simulator",
        "NetworkPolicy-acme-coreapp",
        "NetworkPolicy-acme-webapp",
        "NetworkPolicy-acme-simulator",
    } == set(IDS)


def test_the_longest_name_still_makes_legal_names() -> None:
    name = "a" * 40

    assert max(len(one(name)) for one in (manifests.coreapp_name, manifests.simulator_name, manifests.webapp_name)) <= 52
    assert len(manifests.shard_name(name, 31)) <= 63


def test_Coreapps_come_back_as_standbys() -> None:
    spec = manifests.coreapps(WANT, replicas=3)["spec"]

    assert spec["template"]["metadata"]["labels"][manifests.ROLE_LABEL] == "standby"
    assert not {manifests.SHARD_LABEL, manifests.EPOCH_LABEL} & set(spec["template"]["metadata"]["labels"])
    assert not {manifests.ROLE_LABEL, manifests.SHARD_LABEL, manifests.EPOCH_LABEL} & set(spec["selector"]["matchLabels"])
    assert (spec["podManagementPolicy"], spec["updateStrategy"]["type"], spec["replicas"]) == ("Parallel", "OnDelete", 3)


def test_a_budget_lets_one_webapp_go_at_a_time_and_blocks_no_drain_for_ever() -> None:
    budget = manifests.webapp_disruption_budget(WANT)
    assert (
        budget["spec"]["selector"]["matchLabels"]
        == manifests.webapps(WANT, replicas=2, is_first_boot=False)["spec"]["selector"]["matchLabels"]
    )
    # With one Webapp "one may be missing" lets a drain pass; so does "not ready may go" with one that never becomes ready.
    assert (budget["spec"]["maxUnavailable"], budget["spec"]["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert "minAvailable" not in budget["spec"]


def test_upkeep_never_touches_the_number_of_Coreapps() -> None:
    assert "replicas" not in manifests.coreapps(WANT, replicas=None)["spec"]


def test_a_selector_matches_its_template() -> None:
    for obj in OBJECTS:
        spec = obj.get("spec", {})
        if "template" in spec:
            assert set(spec["selector"]["matchLabels"].items()) <= set(spec["template"]["metadata"]["labels"].items())


def test_a_new_shard_Service_leads_nowhere_and_to_not_ready_pods_too() -> None:
    service = manifests.shard_service(WANT, 3)

    assert service["spec"]["selector"] == {manifests.CLUSTER_LABEL: "acme", manifests.SHARD_LABEL: "3", manifests.EPOCH_LABEL: "none"}
    assert service["spec"]["publishNotReadyAddresses"] is True
    read = manifests.route_of({**service, "metadata": {**service["metadata"], "uid": "u", "resourceVersion": "12"}}, "acme", "cluster-uid")
    assert read is not None
    assert (read.shard, read.version, read.epoch, read.holder, read.foreign) == (3, 12, None, None, False)


@pytest.mark.parametrize(("spares", "resharding", "allowed"), [(0, False, 1), (1, False, 1), (3, False, 3), (3, True, 0)])
def test_the_budget(spares: int, resharding: bool, allowed: int) -> None:
    budget = manifests.disruption_budget(situation().wanting(spares=spares).desired, resharding=resharding, is_unused=False)

    assert budget["spec"]["maxUnavailable"] == allowed
    assert manifests.ROLE_LABEL not in budget["spec"]["selector"]["matchLabels"]
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "IfHealthyBudget", "a restart must not be disturbed"


def test_the_budget_of_a_cluster_that_never_served_blocks_no_drain_for_ever() -> None:
    new, served = situation(), situation().settled()
    policies = [
        obj["spec"]["unhealthyPodEvictionPolicy"]
        for one in (new, served, served.seeing(settled_shards=None), new.noted(2, Answer.UNKNOWN))
        for obj in one.facts().objects
        if (obj["kind"], obj["metadata"]["name"]) == ("PodDisruptionBudget", "acme-coreapp")
    ]

    assert policies == ["AlwaysAllow", "IfHealthyBudget", "IfHealthyBudget", "IfHealthyBudget"]


def test_only_Webapps_Coreapps_and_the_operator_reach_a_Coreapp() -> None:
    policy = next(obj for obj in OBJECTS if obj["kind"] == "NetworkPolicy" and obj["metadata"]["name"] == "acme-coreapp")

    (rule,) = policy["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [6250, 6251, 6252, 6253]
    assert len(rule["from"]) == 3


def test_a_claim_is_made_only_when_storage_is_wanted() -> None:
    kinds = [obj["kind"] for obj in manifests.simulator(situation().wanting(storage="1Gi").desired)]

    assert kinds == ["PersistentVolumeClaim", "Service", "StatefulSet"]
    assert "PersistentVolumeClaim" not in {obj["kind"] for obj in OBJECTS}


# --- what counts as a difference


@pytest.mark.parametrize(
    ("live", "wanted", "covered"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({}, {"a": 1}, False),
        ({}, {"a": False}, True),
        ({}, {"a": {"b": False}}, False),
        ({"a": [{"x": 1, "y": 2}]}, {"a": [{"x": 1}]}, True),
        ({"a": [{"x": 1}, {"x": 2}]}, {"a": [{"x": 1}]}, False),
        (None, {"a": 1}, False),
    ],
)
def test_covers(live: Any, wanted: Any, covered: bool) -> None:
    assert upkeep.covers(live, wanted) is covered


@pytest.mark.parametrize(("asked", "stored"), [("1024Mi", "1Gi"), ("0.5Gi", "512Mi"), ("1000Mi", "1000Mi"), ("1e9", "1e9")])
def test_an_amount_is_the_same_however_it_is_spelt(asked: str, stored: str) -> None:
    """The API server stores the canonical spelling: a difference in spelling alone would be an apply at every observation (law 11)."""
    one = situation().wanting(storage=asked)
    wanted = next(obj for obj in manifests.simulator(one.desired) if obj["kind"] == "PersistentVolumeClaim")
    live = next(obj for obj in manifests.simulator(situation().wanting(storage=stored).desired) if obj["kind"] == "PersistentVolumeClaim")

    assert upkeep.covers(live, wanted)


@pytest.mark.parametrize(
    "wanted",
    manifests.upkeep(WANT, webapp_replicas=2, resharding=False, is_first_boot=False, is_unused=False),
    ids=lambda obj: f"{obj['kind']}",
)
def test_what_the_api_server_adds_is_no_change_and_what_another_party_takes_away_is_one(wanted: dict[str, Any]) -> None:
    meta = {**wanted["metadata"], "uid": "u", "resourceVersion": "7", "managedFields": []}
    live = {**wanted, "metadata": meta, "spec": {**wanted["spec"], "defaulted": 1}, "status": {"seen": 1}}

    assert upkeep.covers(live, wanted)
    lost = [part for part, value in wanted["spec"].items() if value]
    assert lost != []
    for part in lost:
        assert not upkeep.covers({**live, "spec": {key: value for key, value in live["spec"].items() if key != part}}, wanted), part


# --- the patches of a handover


def handover(old: bool = True) -> Handover:
    named = route(0, pod(0)) if old else route(0)
    return Handover(
        route=named, to=pod(2), epoch=Epoch(100, "abc"), evidence=Evidence.POD_DELETED, planned=False, shards=2, detected_at=NOW
    )


def test_prepare_tests_uid_and_label_as_they_were_read() -> None:
    patch = manifests.label_patch(pod(2, labels=labels_for(0, "5-old")), 0, "100-abc")

    assert patch[:2] == [
        {"op": "test", "path": "/metadata/uid", "value": "uid-2"},
        {"op": "test", "path": "/metadata/labels/multiconnect.dev~1epoch", "value": "5-old"},
    ]
    assert {op["path"].rpartition("~1")[2]: op["value"] for op in patch[2:]} == {"role": "active", "shard": "0", "epoch": "100-abc"}


def test_tidy_tests_them_too_and_removes_only_what_is_there() -> None:
    patch = manifests.strip_patch(pod(2, labels={manifests.EPOCH_LABEL: "5-old"}))

    assert [op["op"] for op in patch] == ["test", "test", "remove", "add"]
    assert patch[-1]["value"] == "standby"


def test_commit_swaps_by_the_version_that_gave_the_epoch_its_n() -> None:
    patch = manifests.commit_patch(Key("default", "acme"), handover(), NOW + timedelta(milliseconds=7))

    assert patch["metadata"]["resourceVersion"] == "100"
    assert patch["metadata"]["annotations"] == {
        manifests.HOLDER_ANNOTATION: "acme-coreapp-2/uid-2",
        manifests.PREVIOUS_ANNOTATION: "acme-coreapp-0",
        manifests.EVIDENCE_ANNOTATION: "Failover/PodDeleted",
        manifests.COMMITTED_ANNOTATION: "2027-01-04T12:00:00.007Z",
        manifests.TOUCHED_ANNOTATION: None,
    }
    assert patch["spec"]["selector"] == {manifests.CLUSTER_LABEL: "acme", manifests.SHARD_LABEL: "0", manifests.EPOCH_LABEL: "100-abc"}


def test_the_first_holder_of_a_shard_is_no_handover() -> None:
    patch = manifests.commit_patch(Key("default", "acme"), handover(old=False), NOW)

    assert patch["metadata"]["annotations"][manifests.EVIDENCE_ANNOTATION] is None


def test_a_committed_Service_reads_back_as_its_route() -> None:
    patch = manifests.commit_patch(Key("default", "acme"), handover(), NOW)
    service = manifests.shard_service(WANT, 0)
    notes = {key: value for key, value in patch["metadata"]["annotations"].items() if value is not None}
    service["metadata"].update(uid="service-0", resourceVersion="140", annotations=notes)
    service["spec"]["selector"] = patch["spec"]["selector"]

    read = manifests.route_of(service, "acme", "cluster-uid")

    assert read is not None
    assert (read.version, read.epoch, read.holder, read.holder_uid) == (140, "100-abc", "acme-coreapp-2", "uid-2")
    assert (read.previous, read.evidence, read.planned, read.committed_at) == ("acme-coreapp-0", "PodDeleted", False, NOW)
    stranger = manifests.route_of(service, "acme", "other")
    assert stranger is not None
    assert stranger.foreign


@pytest.mark.parametrize("text", ["x" * 64, "no name", "-x", "Käse", "ns/pod", ""])
def test_what_others_write_on_a_Service_does_not_get_into_the_status(text: str) -> None:
    """The API server rejects a whole status in which one text is too long."""
    service = manifests.shard_service(WANT, 0)
    notes = {manifests.PREVIOUS_ANNOTATION: text, manifests.EVIDENCE_ANNOTATION: f"Failover/{text * 2}"}
    service["metadata"].update(uid="service-0", resourceVersion="140", annotations=notes)
    read = manifests.route_of(service, "acme", "cluster-uid")

    assert read is not None
    assert (read.previous, read.evidence) == (None, None)


@pytest.mark.parametrize(("note", "touched"), [("105-x", "105-x"), (None, None)])
def test_for_which_label_a_Service_was_touched_reads_back(note: str | None, touched: str | None) -> None:
    service = manifests.shard_service(WANT, 0)
    notes = manifests.touch_patch(route(0), note)["metadata"]["annotations"] if note is not None else {}
    service["metadata"].update(uid="service-0", resourceVersion="140", annotations=notes)
    read = manifests.route_of(service, "acme", "cluster-uid")

    assert read is not None
    assert read.touched == touched


@pytest.mark.parametrize("evidence", Evidence)
def test_every_evidence_is_read_from_a_Service(evidence: Evidence) -> None:
    service = manifests.shard_service(WANT, 0)
    notes = {manifests.PREVIOUS_ANNOTATION: "x" * 63, manifests.EVIDENCE_ANNOTATION: f"Failover/{evidence}"}
    service["metadata"].update(uid="service-0", resourceVersion="140", annotations=notes)
    read = manifests.route_of(service, "acme", "cluster-uid")

    assert read is not None
    assert (read.previous, read.evidence) == ("x" * 63, evidence)


def test_a_touch_moves_nothing_but_the_version() -> None:
    patch = manifests.touch_patch(route(0), "x")

    assert patch == {"metadata": {"resourceVersion": "100", "annotations": {manifests.TOUCHED_ANNOTATION: "x"}}}


@pytest.mark.parametrize("text", ["", "x", "12", "12-", "-a", "a-b", "-1-x"])
def test_what_is_no_epoch(text: str) -> None:
    assert Epoch.parse(text) is None


@pytest.mark.parametrize("text", ["2027-05-01", "2027-05-01T00:00:00", "soon", ""])
def test_what_is_no_time(text: str) -> None:
    assert manifests.moment(text) is None


def test_times_are_spelt_in_UTC() -> None:
    """Also one that came with another offset."""
    at = manifests.moment("2027-05-01T02:00:00+02:00")

    assert at is not None
    assert manifests.timestamp(at) == "2027-05-01T00:00:00Z"


@pytest.mark.parametrize("holder", ["no such/ pod/../x", "/uid-0", "UPPER/uid-0", "a" * 64 + "/uid-0", ""])
def test_a_damaged_holder_annotation_names_nobody(holder: str) -> None:
    """A name that no pod can have must not be asked for: the rejection would end the observation at every shard."""
    service = manifests.shard_service(situation().desired, 1)
    meta = {**service["metadata"], "uid": "u", "resourceVersion": "12", "annotations": {manifests.HOLDER_ANNOTATION: holder}}
    spec = {**service["spec"], "selector": {**service["spec"]["selector"], manifests.EPOCH_LABEL: "9-abcde"}}
    read = manifests.route_of({**service, "metadata": meta, "spec": spec}, "acme", "cluster-uid")

    assert read is not None
    assert (read.epoch, read.holder, read.holder_uid) == ("9-abcde", None, None)


def test_what_is_derived_is_kept_for_equal_arguments_and_the_same_desired_state() -> None:
    desired = situation().desired
    first = desired.derive(manifests.upkeep, webapp_replicas=2, resharding=False, is_first_boot=False, is_unused=False)

    assert first == manifests.upkeep(desired, webapp_replicas=2, resharding=False, is_first_boot=False, is_unused=False)
    assert desired.derive(manifests.upkeep, webapp_replicas=2, resharding=False, is_first_boot=False, is_unused=False) is first
    assert desired.derive(manifests.secrets) == manifests.secrets(desired), "each function has its own result"
    assert desired.derive(manifests.upkeep, webapp_replicas=3, resharding=False, is_first_boot=False, is_unused=False) == manifests.upkeep(
        desired, webapp_replicas=3, resharding=False, is_first_boot=False, is_unused=False
    )
    edited = replace(desired, spares=desired.spares + 1)
    assert edited.derive(manifests.upkeep, webapp_replicas=3, resharding=False, is_first_boot=False, is_unused=False) == manifests.upkeep(
        edited, webapp_replicas=3, resharding=False, is_first_boot=False, is_unused=False
    )
    assert replace(desired) == desired, "what was derived makes no difference"


# --- who wrote a field

SWITCHOVER_FIELD: Obj = {"f:metadata": {"f:annotations": {"f:multiconnect.dev/switchover": {}}}}
APPLIED: Obj = {"manager": "argocd", "operation": "Apply", "fieldsV1": SWITCHOVER_FIELD}


@pytest.mark.parametrize(
    ("manager", "owned"),
    [
        ({"fieldsV1": {"f:spec": {"f:replicas": {}}}}, True),
        ({"fieldsV1": {"f:spec": {"f:replicas": None}}}, True),
        ({"fieldsV1": {"f:spec": {}}}, False),
        ({"fieldsV1": {"f:spec": 7}}, False),
        ({"fieldsV1": None}, False),
        ({}, False),
        ("kubectl", False),
    ],
)
def test_a_manager_owns_a_field_only_if_its_entry_names_the_whole_path(manager: Any, owned: bool) -> None:
    assert manifests.owns(manager, "f:spec", "f:replicas") is owned


def test_only_who_applies_a_switchover_sets_it_again() -> None:
    managers = [
        {**APPLIED, "time": "2027-01-04T12:00:00Z", "fieldsV1": {**SWITCHOVER_FIELD, "f:spec": {}}},
        {**APPLIED, "operation": "Update"},
        {**APPLIED, "fieldsV1": {"f:metadata": {"f:annotations": {"f:example.com/other": {}}}}},
        {key: value for key, value in APPLIED.items() if key != "manager"},
        "kubectl",
    ]

    assert manifests.request_appliers(managers) == [APPLIED, {**APPLIED, "manager": ""}]


# --- foreign pods with the labels of a holder

ROUTE = route(0, pod(0))
SELECTED = (manifests.SHARD_LABEL, manifests.EPOCH_LABEL)


def alike(uid: str = "uid-debug", **labels: str) -> Obj:
    """A pod with the labels that the Service of shard 0 selects; further labels change them."""
    selected = {manifests.SHARD_LABEL: "0", manifests.EPOCH_LABEL: str(ROUTE.epoch), "app": "debug"}
    return {"metadata": {"name": uid.removeprefix("uid-"), "uid": uid, "labels": selected | labels}}


@pytest.mark.parametrize(
    ("foreign", "copied_by"),
    [
        ([], None),
        ([alike()], "debug"),
        ([{"metadata": {"name": "exact", "uid": "u", "labels": {key: alike()["metadata"]["labels"][key] for key in SELECTED}}}], "exact"),
        ([{"metadata": {"name": "bare", "uid": "u", "labels": None}}, {"metadata": {"name": "bare", "uid": "u"}}], None),
        ([alike(**{manifests.EPOCH_LABEL: "9-other"}), alike(**{manifests.SHARD_LABEL: "1"})], None),
        ([alike(str(ROUTE.holder_uid))], None),
        ([alike(str(ROUTE.holder_uid)), alike("uid-other")], "other"),
    ],
    ids=["none", "more labels", "just these labels", "no labels", "another epoch or shard", "the holder itself", "another one as well"],
)
def test_a_route_names_the_foreign_pod_that_its_Service_selects(foreign: list[Obj], copied_by: str | None) -> None:
    found = manifests.with_copy(ROUTE, foreign)

    assert found == replace(ROUTE, copied_by=copied_by)
    assert manifests.with_copy(found, foreign) is found, "what has not changed is the same object"
    assert manifests.with_copy(found, []).copied_by is None
