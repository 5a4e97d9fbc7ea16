"""What an operator owns: a name that it would give and the uid of its owner. Names of two clusters never meet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whatsapp_operator.core import manifests
from whatsapp_operator.core.actions import Delete, Label
from whatsapp_operator.core.desired import Desired, Tls
from whatsapp_operator.core.names import Key, Obj, Ref

from .situations import Situation, pod, route, situation

CRD_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
"""Written down once more: the core's own pattern is judged by it."""
MOST_PODS = 33
CHART = ("whatsapp-operator", "whatsapp-operator-metrics", "whatsapp-operator-test", "whatsapp-operator-nodes", "whatsapp-operator-leader")
"""Names that the operator's chart gives in its namespace."""

# --- names of two clusters


def names(cluster: str) -> Iterator[tuple[str, str]]:
    """Kind and name of everything that comes to be for a cluster, in its largest form; read off the objects themselves."""
    desired = replace(situation().desired, key=Key("default", cluster), shards=32, storage="1Gi")
    objects = (
        *manifests.secrets(desired),
        *manifests.upkeep(desired, webapp_replicas=2, resharding=False, is_first_boot=False, is_unused=False),
        *(manifests.shard_service(desired, shard) for shard in range(32)),
    )
    for obj in objects:
        kind, name = obj["kind"], obj["metadata"]["name"]
        yield kind, name
        if kind == "StatefulSet":
            yield from (("Pod", f"{name}-{ordinal}") for ordinal in range(MOST_PODS))
        if kind == "Deployment":
            # What the controllers make of it, with the letters that they use.
            yield from (("ReplicaSet", f"{name}-{part}") for part in ("7d4b9c6f5", "5"))
            yield from (("Pod", f"{name}-7d4b9c6f5-{part}") for part in ("24567", "x7x9z"))


OF_ACME = sorted(names("acme"))
SUFFIXES = sorted({name.removeprefix("acme") for _, name in OF_ACME})
BUILT = [name for name in ("acme", *(f"acme{suffix}" for suffix in SUFFIXES)) if CRD_NAME.fullmatch(name)]
"""Cluster names that are names of another cluster's objects, and so ..."""
TWICE = [f"{name}{suffix}" for name in ("acme-webapp", "acme-shard-1", "acme-coreapp-0") for suffix in SUFFIXES[:20]]
"""... on."""


def test_no_two_of_all_clusters_that_are_named_like_objects_want_the_same_name() -> None:
    owners: dict[tuple[str, str], str] = {}
    clusters = [*dict.fromkeys(name for name in (*BUILT, *TWICE) if CRD_NAME.fullmatch(name))]
    assert {"acme-webapp", "acme-simulator", "acme-coreapp", "acme-shard-0", "acme-admin", "acme-webapp-tls"} < {*clusters}
    for cluster in clusters:
        for one in names(cluster):
            assert owners.setdefault(one, cluster) == cluster, one


PARTS = st.sampled_from(["acme", "a", "coreapp", "webapp", "simulator", "shard", "admin", "tls", "0", "1", "31", "x"])
NAMES = st.lists(PARTS, min_size=1, max_size=5).map("-".join).filter(CRD_NAME.fullmatch)


@settings(max_examples=60, deadline=None)
@given(one=NAMES, rest=st.one_of(st.sampled_from(SUFFIXES), NAMES.map(lambda name: f"-{name}")))
def test_two_clusters_never_want_the_same_name(one: str, rest: str) -> None:
    """Two names can only meet if one cluster's name begins with the other's."""
    other = one + rest
    if other != one and CRD_NAME.fullmatch(other):
        assert not {*names(one)} & {*names(other)}


@pytest.mark.parametrize("cluster", ["whatsapp-operator", "whatsapp", "whatsapp-operator-metrics"])
def test_no_cluster_wants_a_name_of_the_operators_chart(cluster: str) -> None:
    assert not {name for _, name in names(cluster)} & {*CHART}


def test_every_name_is_the_clusters_and_a_suffix() -> None:
    for cluster in BUILT:
        assert [name for _, name in names(cluster) if not name.startswith(f"{cluster}-")] == []


# --- which cluster an event concerns


def part(name: str, owner: str | None, cluster: str | None = "acme", **owner_more: Any) -> Obj:
    owners = [{"name": owner, "uid": "u", "controller": True, **owner_more}] if owner else []
    return {"metadata": {"name": name, "labels": {manifests.CLUSTER_LABEL: cluster} if cluster else None, "ownerReferences": owners}}


@pytest.mark.parametrize(
    ("obj", "concerned"),
    [
        (part("acme-coreapp-0", "acme-coreapp"), "acme"),
        (part("acme-simulator-0", "acme-simulator"), "acme"),
        (part("acme-webapp-7d4b9c6f5-x7x9z", "acme-webapp-7d4b9c6f5"), "acme"),
        (part("acme-shard-31", "acme"), "acme"),
        (part("acme-coreapp", "acme"), "acme"),
        (part("a-b-coreapp-0", "a-b-coreapp", "a-b"), "a-b"),
        (part("acme-coreapp-0", None), None),
        (part("acme-coreapp-0", "acme-coreapp", controller=False), None),
        (part("acme-coreapp-0", "acme-coreapp", None), None),
        (part("acme-coreapp-0", "acme-coreapp", "other"), None),
        (part("acme-coreapp-0", "another"), None),
        (part("acme-coreapp-0-copy", "acme-coreapp"), None),
        (part("debug", "acme"), None),
        (part("acme", "acme"), None),
        (part("acmx-coreapp-0", "acme-coreapp"), None),
        (part("acme-coreapp-0", "acmx-coreapp"), None),
        (part("Foo_Bar-coreapp-0", "Foo_Bar-coreapp", "Foo_Bar"), None),
        (part(f"{'a' * 41}-coreapp-0", f"{'a' * 41}-coreapp", "a" * 41), None),
    ],
)
def test_only_what_is_named_and_made_as_ours_concerns_a_cluster(obj: Obj, concerned: str | None) -> None:
    assert manifests.cluster_of(obj) == concerned


@pytest.mark.parametrize("obj", [{}, {"metadata": None}, {"metadata": {}}, {"metadata": {"labels": {manifests.CLUSTER_LABEL: "acme"}}}])
def test_an_event_without_metadata_concerns_no_cluster(obj: Obj) -> None:
    """Such as an error that the API server reports in a watch."""
    assert manifests.cluster_of(obj) is None


# --- who owns what

CLUSTER: Obj = {"kind": "WhatsAppCluster", "name": "acme", "uid": "cluster-uid"}
OTHER: Obj = {"kind": "Release", "name": "acme", "uid": "other-uid"}


@pytest.mark.parametrize(
    ("owners", "is_own"),
    [([CLUSTER], True), ([OTHER, CLUSTER], True), ([CLUSTER, OTHER], True), ([OTHER], False), ([], False), (None, False)],
)
def test_an_object_is_own_if_the_cluster_is_one_of_its_owners(owners: list[Obj] | None, is_own: bool) -> None:
    for meta in ({"ownerReferences": owners}, {} if owners is None else {"ownerReferences": owners}):
        assert manifests.is_owned({"metadata": meta}, "cluster-uid") is is_own


@pytest.mark.parametrize("owners", [None, [], [CLUSTER]])
def test_an_owner_is_not_the_controller_unless_it_says_so(owners: list[Obj] | None) -> None:
    assert manifests.controller_of({"metadata": {} if owners is None else {"ownerReferences": owners}}) is None


def test_the_cluster_is_the_controller_of_what_is_made_for_it_and_its_deletion_does_not_wait_for_that() -> None:
    assert manifests.webapp_service(a_desired())["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "multiconnect.dev/v1alpha1",
            "kind": "WhatsAppCluster",
            "name": "acme",
            "uid": "cluster-uid",
            "controller": True,
            "blockOwnerDeletion": False,
        }
    ]


# --- names that the spec may give


def test_names_are_generated_unless_the_spec_gives_them() -> None:
    own = replace(a_desired(), admin_secret="mine", tls=Tls(secret_name="certificate", server_name="chat.example.com"))

    assert (manifests.admin_secret_name(a_desired()), manifests.admin_secret_name(own)) == ("acme-admin", "mine")
    assert (manifests.tls_secret_name(a_desired()), manifests.tls_secret_name(own)) == ("acme-webapp-tls", "certificate")
    assert (manifests.server_name(a_desired()), manifests.server_name(own)) == ("acme-webapp.default.svc", "chat.example.com")


# --- which shard a Service is of


@pytest.mark.parametrize(
    ("name", "shard"),
    [
        ("acme-shard-0", 0),
        ("acme-shard-31", 31),
        ("acme-shard-00", None),
        ("acme-shard-100", None),
        ("acme-shard-\u00b2", None),
        ("acme-shard-", None),
        ("acme-shard-x", None),
        ("acme-shard-1-copy", None),
        ("acme-shard-\u0661", None),
        ("acme-shard-9" + "9" * 5000, None),
        ("copy-of-acme-shard-0", None),
        ("acme-webapp-shard-0", None),
        ("a", None),
    ],
)
def test_the_name_alone_says_which_shard_a_service_is_of(name: str, shard: int | None) -> None:
    service = manifests.shard_service(situation().desired, 3)
    meta = {**service["metadata"], "name": name, "uid": "u", "resourceVersion": "12"}
    for labels in (meta["labels"], None, {manifests.SHARD_LABEL: "7"}):
        read = manifests.route_of({**service, "metadata": {**meta, "labels": labels}}, "acme", "cluster-uid")
        assert (read.shard if read is not None else None) == shard


# --- which pods are of a cluster

SETS = {"acme-coreapp": "sts", "acme-simulator": "sim"}


def a_pod(name: str, owner: tuple[str, str] | None, place: tuple[str, str] | None = None) -> Obj:
    owners = [{"name": owner[0], "uid": owner[1], "controller": True}] if owner else []
    return {"kind": "Pod", "metadata": {"name": name, "ownerReferences": owners}, "spec": dict(zip(("hostname", "subdomain"), place or ()))}  # noqa: B905


@pytest.mark.parametrize(
    ("found", "is_ours"),
    [
        (a_pod("acme-coreapp-0", ("acme-coreapp", "sts")), True),
        (a_pod("acme-coreapp-0", ("acme-coreapp", "former")), False),
        (a_pod("acme-coreapp-0", ("acme-simulator", "sim")), False),
        (a_pod("acme-simulator-0", ("acme-simulator", "sim")), True),
        (a_pod("debug-7", ("acme-coreapp", "sts")), False),
        (a_pod("acme-coreapp-x", ("acme-coreapp", "sts")), False),
        (a_pod("acme-coreapp-\u0661", ("acme-coreapp", "sts")), False),
        (a_pod("acme-coreapp-0", None, ("acme-coreapp-0", "acme-coreapp")), True),
        (a_pod("acme-coreapp-0", None, ("acme-coreapp-1", "acme-coreapp")), False),
        (a_pod("acme-coreapp-0", None, ("acme-coreapp-0", "other")), False),
        (a_pod("acme-coreapp-0", None), False),
        (a_pod("acme-webapp-7d4b9c6f5-x7x9z", ("acme-webapp-7d4b9c6f5", "any")), True),
        (a_pod("acme-webapp-7d4b9c6f5-x7x9z", None), False),
        (a_pod("debug", ("acme-webapps-7d", "any")), False),
    ],
)
def test_a_pod_is_known_by_its_name_and_its_owner(found: Obj, is_ours: bool) -> None:
    assert manifests.is_pod_of(found, "acme", SETS) is is_ours


def test_a_pod_of_which_only_metadata_is_known_is_of_no_cluster_without_a_controller() -> None:
    assert not manifests.is_pod_of({"kind": "Pod", "metadata": {"name": "acme-coreapp-0"}}, "acme", SETS)


# --- labels


def a_desired() -> Desired:
    return situation().desired


def test_a_shard_service_lacks_what_it_was_made_with() -> None:
    service = manifests.shard_service(a_desired(), 3)
    assert manifests.lost_labels(a_desired(), service) == {}
    bare = {**service, "metadata": {**service["metadata"], "labels": None}}
    assert manifests.lost_labels(a_desired(), bare) == service["metadata"]["labels"]
    other = {**service, "metadata": {**service["metadata"], "name": "copy", "labels": None}}
    assert manifests.lost_labels(a_desired(), other) == {}


@pytest.mark.parametrize("component", ["coreapp", "simulator"])
def test_a_pod_lacks_what_its_set_selects_by(component: str) -> None:
    selector = {manifests.CLUSTER_LABEL: "acme", manifests.COMPONENT_LABEL: component}
    (workload,) = (
        obj
        for obj in manifests.upkeep(a_desired(), webapp_replicas=1, resharding=False, is_first_boot=False, is_unused=False)
        if (obj["kind"], obj["metadata"]["name"]) == ("StatefulSet", f"acme-{component}")
    )
    assert workload["spec"]["selector"]["matchLabels"] == selector
    for lost, had in product(selector, ({}, {"team": "a"})):
        labels = {key: value for key, value in selector.items() if key != lost} | had
        obj = {"kind": "Pod", "metadata": {"name": f"acme-{component}-12", "labels": labels}}
        assert manifests.lost_labels(a_desired(), obj) == {lost: selector[lost]}
    assert manifests.lost_labels(a_desired(), {"kind": "Pod", "metadata": {"name": "acme-webapp-7-x"}}) == {}


def unlabelled(kind: str, name: str, uid: str) -> Obj:
    return {"kind": kind, "metadata": {"name": name, "uid": uid, "resourceVersion": "9", "labels": None}}


def labels_given(one: Situation) -> list[Ref]:
    return [action.ref for action in one.plan().actions if isinstance(action, Label)]


def test_labels_come_back_also_when_paused_and_not_on_what_a_handover_writes() -> None:
    lost = (unlabelled("Service", "acme-shard-0", "service-0"), unlabelled("Pod", "acme-coreapp-0", "uid-0"))
    one = situation().settled().seeing(mislabelled=lost)
    assert labels_given(one) == [Ref("Service", "acme-shard-0"), Ref("Pod", "acme-coreapp-0")]
    assert labels_given(one.wanting(paused=True)) == labels_given(one)
    assert labels_given(one.wanting(deleting=True)) == []
    assert labels_given(one.holder_deleted(0)) == [Ref("Pod", "acme-coreapp-0")]


def test_a_label_is_given_by_the_version_that_was_judged() -> None:
    action = Label(ref=Ref("Pod", "acme-coreapp-0"), resource_version="9", labels={"a": "b"})
    assert manifests.labels_patch(action) == {"metadata": {"resourceVersion": "9", "labels": {"a": "b"}}}


# --- names of earlier releases


def test_what_an_earlier_release_named_like_the_cluster_goes_once_its_successor_is_there() -> None:
    former = Ref("NetworkPolicy", "acme")
    live = {"kind": "NetworkPolicy", "metadata": {"name": "acme", "uid": "np", "resourceVersion": "5"}}
    one = situation().settled()
    one = one.seeing(objects={**one.snapshot.objects, former: live})

    def ended(found: Situation) -> list[Delete]:
        return [action for action in found.plan().actions if isinstance(action, Delete)]

    assert ended(one) == [Delete(ref=former, uid="np", resource_version="5")]
    assert ended(one.without_object("NetworkPolicy", "acme-coreapp")) == []
    assert ended(situation().settled()) == []


# --- what stands in the way


def test_a_foreign_service_of_a_shard_that_nobody_needs_is_no_matter() -> None:
    theirs = route(5, pod(0), foreign=True)
    one = situation().settled(shards=2)
    one = one.seeing(routes=(*one.snapshot.routes, theirs))
    assert one.row() == "UpToDate"
    stuck = one.wanting(shards=8).plan().stuck
    assert stuck is not None
    assert (stuck.rule, "Service acme-shard-5" in stuck.why) == ("NameConflict", True)
