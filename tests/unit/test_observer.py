"""The laws that the independent observer knows: each is broken once, so that none is blind."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from localkube.outside.laws import (
    CLUSTER_LABEL,
    EPOCH_LABEL,
    HOLDER_ANNOTATION,
    NO_EPOCH,
    SHARD_LABEL,
    Change,
    Laws,
    change_of,
    number_of,
)


def pod(version: int, name: str, epoch: str = "", *, gone: bool = False, uid: str = "") -> Change:
    labels = {CLUSTER_LABEL: "a"} | ({SHARD_LABEL: "0", EPOCH_LABEL: epoch} if epoch else {})
    return Change(version, "Pod", "n", name, uid or f"uid-of-{name}", gone, cluster="a", labels=labels)


def service(version: int, epoch: str, holder: str = "", *, uid: str = "s") -> Change:
    selector = {CLUSTER_LABEL: "a", SHARD_LABEL: "0", EPOCH_LABEL: epoch}
    named = f"{holder}/uid-of-{holder}" if holder else ""
    return Change(version, "Service", "n", "a-shard-0", uid, cluster="a", shard=0, selector=selector, holder=named)


def pods_wanted(version: int, replicas: int) -> Change:
    return Change(version, "StatefulSet", "n", "a-coreapp", "set", cluster="a", replicas=replicas)


def cluster(version: int, shards: int, spares: int) -> Change:
    return Change(version, "WhatsAppCluster", "n", "a", "wac", cluster="a", shards=shards, spares=spares)


def broken(changes: Iterable[Change], *, exact: bool = True) -> list[str]:
    laws = Laws(exact=exact)
    return [violation.law for change in changes for violation in laws.judge(change)]


FIRST = (pod(1, "a-coreapp-0"), pod(2, "a-coreapp-1"), service(3, NO_EPOCH), pod(4, "a-coreapp-0", "3-x"), service(5, "3-x", "a-coreapp-0"))


@pytest.mark.parametrize("exact", [True, False])
def test_a_handover_as_it_should_be_breaks_nothing(exact: bool) -> None:
    moved = (pod(6, "a-coreapp-1", "5-y"), service(7, "5-y", "a-coreapp-1"), pod(8, "a-coreapp-0"), pod(9, "a-coreapp-0", gone=True))
    assert broken((*FIRST, *moved), exact=exact) == []


def test_two_pods_that_match_are_seen_at_once() -> None:
    assert broken((*FIRST, pod(6, "a-coreapp-1", "3-x")), exact=False) == ["one holder", "epoch on one pod"]


def test_a_second_pod_is_seen_also_when_the_commit_comes_last() -> None:
    early = (service(1, NO_EPOCH), pod(2, "a-coreapp-0", "1-x"), pod(3, "a-coreapp-1", "1-x"), service(4, "1-x", "a-coreapp-0"))
    assert broken(early) == ["epoch on one pod", "one holder"]


def test_an_epoch_must_grow_over_a_deletion_too() -> None:
    gone = Change(6, "Service", "n", "a-shard-0", "s", gone=True)
    again = (gone, service(7, NO_EPOCH, uid="t"), pod(8, "a-coreapp-1", "2-z"), service(9, "2-z", "a-coreapp-1", uid="t"))
    assert broken((*FIRST, *again)) == ["epochs grow", "compare and swap"]


def test_a_commit_must_swap_the_version_that_its_epoch_names() -> None:
    assert broken((*FIRST, pod(6, "a-coreapp-1", "6-y"), service(7, "6-y", "a-coreapp-1"))) == ["compare and swap"]


def test_a_commit_needs_a_prepared_pod() -> None:
    assert broken((*FIRST, service(6, "5-y", "a-coreapp-1"))) == ["prepare, then commit"]
    assert broken((*FIRST, pod(6, "a-coreapp-1", gone=True), service(7, "5-y", "a-coreapp-1"))) == []


def test_a_claim_is_never_taken_back() -> None:
    assert broken((*FIRST, service(6, NO_EPOCH))) == ["claim kept"]


def test_pods_go_last() -> None:
    grown = (cluster(1, 1, 1), pods_wanted(2, 5))
    assert broken((*grown, pods_wanted(6, 2))) == []
    assert broken((*grown, pods_wanted(6, 1))) == ["enough pods"]
    high = (pod(3, "a-coreapp-4", "4-x"), service(4, NO_EPOCH), service(5, "4-x", "a-coreapp-4"))
    assert broken((*grown, *high, pods_wanted(6, 2))) == ["shrink last"]


def test_an_object_is_cut_down_to_what_counts() -> None:
    meta = {"name": "a-shard-1", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": {CLUSTER_LABEL: "a", SHARD_LABEL: "1"}}
    obj = {"metadata": {**meta, "annotations": {HOLDER_ANNOTATION: "p/u"}}, "spec": {"selector": {EPOCH_LABEL: "5-x"}}}
    change = change_of("Service", obj)
    assert (change.version, change.cluster, change.shard, change.epoch, change.holder) == (7, "a", 1, "5-x", "p/u")
    assert change_of("Service", {"metadata": meta, "spec": {"selector": {EPOCH_LABEL: NO_EPOCH}}}).epoch == ""


@pytest.mark.parametrize(("epoch", "n"), [("12-ab3d9", 12), ("12", None), ("x-1", None), ("12-", None), ("", None)])
def test_the_number_of_an_epoch(epoch: str, n: int | None) -> None:
    assert number_of(epoch) == n
