"""The laws that the independent observer knows: each is broken once, so that none is blind."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from localkube.kubeconfig import Access
from localkube.plane import certificates
from outside import laws as laws_module
from outside.client import ClientReport, SetShardsCall, shards_when
from outside.laws import (
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
from outside.observer import Observer


def pod(version: int, name: str, epoch: str = "", *, gone: bool = False, uid: str = "", shard: int = 0) -> Change:
    labels = {CLUSTER_LABEL: "a"} | ({SHARD_LABEL: str(shard), EPOCH_LABEL: epoch} if epoch else {})
    return Change(version, "Pod", "n", name, uid or f"uid-of-{name}", gone, cluster="a", labels=labels)


def service(version: int, epoch: str, holder: str = "", *, uid: str = "s", shard: int = 0) -> Change:
    selector = {CLUSTER_LABEL: "a", SHARD_LABEL: str(shard), EPOCH_LABEL: epoch}
    named = f"{holder}/uid-of-{holder}" if holder else ""
    return Change(version, "Service", "n", f"a-shard-{shard}", uid, cluster="a", shard=shard, selector=selector, holder=named)


def pods_wanted(version: int, replicas: int, owner: str = "wac") -> Change:
    return Change(version, "StatefulSet", "n", "a-coreapp", "set", cluster="a", owner=owner, replicas=replicas)


def cluster(version: int, shards: int, spares: int, *, reported: int = 0, status: int = 0) -> Change:
    """``status`` stands for the whole of it: another number, another status."""
    whole = str((reported, status))
    return Change(version, "WhatsAppCluster", "n", "a", "wac", cluster="a", shards=shards, spares=spares, reported=reported, status=whole)


def broken(changes: Iterable[Change], *, exact: bool = True, client: int | None = None) -> list[str]:
    """``client``: its number of shards whenever it is asked."""
    laws = Laws(exact=exact, client=lambda _: client)
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


MUTANTS: dict[str, tuple[Change, ...]] = {
    "one holder": (*FIRST, pod(6, "a-coreapp-1", "3-x")),
    "epoch on one pod": (*FIRST, pod(6, "a-coreapp-1", "3-x")),
    "epochs grow": (*FIRST, pod(6, "a-coreapp-1", "2-y"), service(7, "2-y", "a-coreapp-1")),
    "compare and swap": (*FIRST, pod(6, "a-coreapp-1", "6-y"), service(7, "6-y", "a-coreapp-1")),
    "prepare, then commit": (*FIRST, service(6, "5-y", "a-coreapp-1")),
    "claim kept": (*FIRST, service(6, NO_EPOCH)),
    "enough pods": (cluster(1, 1, 1), pods_wanted(2, 5), pods_wanted(3, 1)),
    "shrink last": (
        *(cluster(1, 1, 0), pods_wanted(2, 5), pod(3, "a-coreapp-4")),
        *(service(4, NO_EPOCH), service(5, "4-x", "a-coreapp-4"), pods_wanted(6, 1)),
    ),
}


@pytest.mark.parametrize("law", MUTANTS)
def test_a_mutant_breaks_its_law(law: str) -> None:
    assert law in broken(MUTANTS[law])


def test_every_law_has_a_mutant() -> None:
    source = Path(laws_module.__file__).read_text(encoding="utf-8")
    assert set(re.findall(r'Violation\(\s*"([^"]+)"', source)) == MUTANTS.keys()


def test_an_object_is_cut_down_to_what_counts() -> None:
    meta = {"name": "a-shard-1", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": {CLUSTER_LABEL: "a", SHARD_LABEL: "1"}}
    obj = {"metadata": {**meta, "annotations": {HOLDER_ANNOTATION: "p/u"}}, "spec": {"selector": {EPOCH_LABEL: "5-x"}}}
    change = change_of("Service", obj)
    assert (change.version, change.cluster, change.shard, change.epoch, change.holder) == (7, "a", 1, "5-x", "p/u")
    assert change_of("Service", {"metadata": meta, "spec": {"selector": {EPOCH_LABEL: NO_EPOCH}}}).epoch == ""


@pytest.mark.parametrize(("epoch", "n"), [("12-ab3d9", 12), ("12", None), ("x-1", None), ("12-", None), ("", None)])
def test_the_number_of_an_epoch(epoch: str, n: int | None) -> None:
    assert number_of(epoch) == n


# ------------------------------------------------------------ pods go last, by the client's own number


def shrunk(*, client: int | None) -> list[str]:
    """Four shards and a spare; two shards are wanted from now on, and then there are three pods only. ``client``: its number by then."""
    claims = (pod(4, "a-coreapp-3"), service(5, NO_EPOCH), pod(6, "a-coreapp-0", "5-x"), service(7, "5-x", "a-coreapp-0"))
    changes = (cluster(1, 4, 1, reported=4), pods_wanted(2, 5), *claims, cluster(8, 2, 1, reported=4), pods_wanted(9, 3))
    return broken(changes, client=client)


def test_pods_that_go_before_set_shards_are_counted() -> None:
    assert shrunk(client=4) == ["enough pods"]


def test_pods_that_go_after_set_shards_are_right() -> None:
    assert shrunk(client=2) == []
    assert shrunk(client=None) == []


def test_a_growth_that_is_taken_back_before_set_shards_is_right() -> None:
    changes = (cluster(1, 2, 1, reported=2), pods_wanted(2, 3), cluster(3, 4, 1, reported=2), pods_wanted(4, 5))
    back = (cluster(5, 2, 1, reported=2), pods_wanted(6, 3), cluster(7, 2, 1, reported=2, status=1))
    for number in (2, None):
        assert broken((*changes, *back), client=number) == []


def test_a_holder_of_a_shard_that_the_client_still_has_does_not_go() -> None:
    changes = (
        cluster(1, 2, 0, reported=2),
        pods_wanted(2, 2),
        pod(3, "a-coreapp-1"),
        service(4, NO_EPOCH, shard=1),
        pod(5, "a-coreapp-1", "4-x"),
        service(6, "4-x", "a-coreapp-1", shard=1),
        cluster(7, 1, 0, reported=2),
        pods_wanted(8, 1),
    )
    assert broken(changes, client=2) == ["enough pods", "shrink last"]
    assert broken(changes, client=1) == []


def test_without_the_client_the_status_convicts_once_it_was_written_again() -> None:
    early = (cluster(1, 4, 1, reported=4), pods_wanted(2, 5), cluster(3, 2, 1, reported=4), pods_wanted(4, 3))
    assert broken(early) == []
    assert broken((*early, cluster(5, 2, 1, reported=4))) == []  # not written: something else was edited
    assert broken((*early, cluster(5, 2, 1, reported=2, status=1), cluster(6, 2, 1, reported=4, status=2))) == []
    assert broken((*early, cluster(5, 2, 1, reported=4, status=1))) == ["enough pods"]


def test_pods_that_go_by_making_the_workload_again_are_counted() -> None:
    grown, gone = (cluster(1, 4, 1, reported=4), pods_wanted(2, 5)), Change(3, "StatefulSet", "n", "a-coreapp", "set", gone=True)
    assert broken((*grown, gone, pods_wanted(4, 3)), client=4) == ["enough pods"]
    assert broken((*grown, gone, pods_wanted(4, 5)), client=4) == []
    assert broken((*grown, gone, pods_wanted(4, 3, owner="another")), client=4) == [], "another cluster of the same name"


# ------------------------------------------------------------ the client's number when something was written


def report(began: float, version: int, shards: int, *calls: tuple[float, int]) -> ClientReport:
    return ClientReport(began, version, shards, len(calls), tuple(SetShardsCall(at, to, restarted=True) for at, to in calls))


UP, DOWN = (10.0, 4), (20.0, 2)


def test_the_number_is_known_between_two_observations_without_a_call() -> None:
    reports = [report(15, 100, 4, UP), report(18, 110, 4, UP)]
    assert shards_when(reports, 105, 17.0) == 4


def test_a_call_that_began_after_the_write_was_seen_changes_nothing() -> None:
    reports = [report(15, 100, 4, UP), report(25, 110, 2, UP, DOWN)]
    assert shards_when(reports, 105, 19.9) == 4


def test_a_number_that_is_not_certain_is_none() -> None:
    assert shards_when([], 105, 17.0) is None
    assert shards_when([report(15, 100, 4, UP)], 105, 17.0) is None, "no report afterwards"
    assert shards_when([report(18, 110, 4, UP)], 105, 17.0) is None, "no report before"
    assert shards_when([report(15, 100, 4, UP), report(25, 110, 2, UP, DOWN)], 105, 20.1) is None, "the call may have come first"
    assert shards_when([report(15, 100, 4, UP), report(25, 110, 2, (22.0, 2))], 105, 17.0) is None, "its counters began again"


def test_a_change_without_a_call_that_says_so_is_not_certain() -> None:
    late = ClientReport(25, 110, 2, 2, (SetShardsCall(10.0, 4, restarted=True), SetShardsCall(9.0, 2, restarted=False)))
    assert shards_when([report(15, 100, 4, UP), late], 105, 17.0) is None


# ------------------------------------------------------------ what is found at the beginning


def found(*changes: Change, exact: bool = True) -> list[str]:
    laws = Laws(exact=exact)
    for change in changes:
        laws.learn(change)
    return [violation.law for violation in laws.judge_beginning()]


SOUND = (
    cluster(1, 1, 1, reported=1),
    pods_wanted(2, 2),
    pod(3, "a-coreapp-0", "2-x"),
    pod(4, "a-coreapp-1"),
    service(5, "2-x", "a-coreapp-0"),
)


@pytest.mark.parametrize("exact", [True, False])
def test_a_sound_beginning_breaks_nothing(exact: bool) -> None:
    assert found(*SOUND, exact=exact) == []


@pytest.mark.parametrize("exact", [True, False])
def test_two_pods_behind_a_shard_at_the_beginning_are_counted(exact: bool) -> None:
    assert found(*SOUND, pod(6, "a-coreapp-1", "2-x"), exact=exact) == ["one holder", "epoch on one pod"]


def test_an_epoch_on_two_pods_at_the_beginning_is_counted_without_a_service() -> None:
    assert found(pod(1, "a-coreapp-0", "9-x"), pod(2, "a-coreapp-1", "9-x")) == ["epoch on one pod"]


def test_a_holder_with_another_epoch_at_the_beginning_is_counted() -> None:
    assert found(*SOUND, pod(6, "a-coreapp-0", "1-w")) == ["prepare, then commit"]
    assert found(*SOUND, pod(6, "a-coreapp-0", "2-y")) == ["prepare, then commit"]
    assert found(*SOUND, pod(6, "a-coreapp-0", "5-y", shard=1)) == ["prepare, then commit"]
    dropped = (cluster(7, 1, 1, reported=1), pod(8, "a-coreapp-1", "4-z"), service(9, "3-y", "a-coreapp-1", shard=1))
    assert found(*SOUND, *dropped) == [], "its shard is being removed, and its pod may hold another by now"
    assert found(*SOUND, pod(6, "a-coreapp-0")) == [], "its labels may have been removed, and it is no other's"
    assert found(*SOUND, pod(6, "a-coreapp-0", "5-y")) == [], "it may be prepared for its next epoch"
    assert found(*SOUND, pod(6, "a-coreapp-0", "1-w", uid="another")) == [], "it is not the pod that is named"


def test_fewer_pods_than_shards_at_the_beginning_are_counted() -> None:
    assert found(cluster(1, 1, 0, reported=4), pods_wanted(2, 3)) == ["enough pods"]
    assert found(cluster(1, 4, 1, reported=3), pods_wanted(2, 3)) == []


def test_an_epoch_without_a_number_at_the_beginning_is_counted() -> None:
    assert found(service(1, "x")) == ["epochs grow"]


# ---------------------------------------------------------------- what has passed


@pytest.mark.slow
def test_what_has_passed_by_now_is_still_among_the_versions(tmp_path: Path) -> None:
    authority = certificates.make(tmp_path / "made", service_ip="10.0.0.1").authority.read_text()
    seen = Observer(Access(server="https://127.0.0.1:1", authority=authority, token="t").write(tmp_path / "kubeconfig"), "n")
    for version, reason in enumerate(("FailingOver", "Serving"), start=1):
        meta = {"name": "acme", "namespace": "n", "uid": "u", "resourceVersion": str(version)}
        seen.take("WhatsAppCluster", {"metadata": meta, "spec": {}, "status": {"reason": reason}})

    now = seen.find("WhatsAppCluster", "n", "acme") or {}
    assert now["status"]["reason"] == "Serving"
    assert [one["status"]["reason"] for one in seen.versions("WhatsAppCluster", "n", "acme")] == ["FailingOver", "Serving"]
    assert seen.versions("WhatsAppCluster", "n", "other") == []
