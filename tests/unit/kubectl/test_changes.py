"""What is written, and when what was waited for has come."""

from __future__ import annotations

import time
from typing import Any

import pytest

from kubectl_whatsapp import changes
from kubectl_whatsapp.errors import RequestError
from whatsapp_operator.core import manifests
from whatsapp_operator.shell.objects.reading import reshard_now_of, switchovers_of

from .clusters import TARGET, Api, a_cluster, condition

Obj = dict[str, Any]


def notes(change: changes.Change) -> dict[str, str]:
    found: dict[str, str] = change.body["metadata"]["annotations"]
    return found


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("shard-31", 31), ("shard-", None), ("x", None), ("-1", None), ("100", None), ("", None)]
)
def test_a_shard_is_written_as_its_number_or_its_name(text: str, number: int | None) -> None:
    assert changes.shard_number(text) == number


def test_the_operator_understands_what_is_written() -> None:
    plain, named = changes.switchover(3), changes.switchover(3, "acme-coreapp-7", "a drill", version="12")
    (first,), _ = switchovers_of(notes(plain)[manifests.SWITCHOVER_ANNOTATION])
    (second,), _ = switchovers_of(notes(named)[manifests.SWITCHOVER_ANNOTATION])

    assert (first.shard, first.to) == (3, None)
    assert (second.shard, second.to) == (3, "acme-coreapp-7")
    assert notes(named)[changes.REASON] == "a drill"
    assert notes(plain)[changes.REASON] is None, "an earlier reason does not stay"
    assert named.body["metadata"]["resourceVersion"] == "12", "rejected if the cluster has changed since"
    assert reshard_now_of(notes(changes.reshard_now(8))[manifests.RESHARD_NOW_ANNOTATION]) == (8, None)
    assert notes(changes.paused(yes=True)) == {manifests.PAUSED_ANNOTATION: "true"}
    assert notes(changes.paused(yes=False)) == {manifests.PAUSED_ANNOTATION: None}
    assert changes.resize(4, None).body == {"spec": {"shards": 4}}


def test_a_dry_run_is_asked_for() -> None:
    api = Api(a_cluster())
    changes.apply(api, TARGET, changes.resize(4, 2), dry_run=True)
    assert api.patches == [({"spec": {"shards": 4, "spares": 2}}, True)]


def test_what_the_api_server_says_field_by_field() -> None:
    causes = [
        {"field": "spec.shards", "message": "3"},
        {"field": "<nil>", "message": "x"},
        {"message": "y"},
        {"field": "spec.shards", "message": "3"},
    ]
    assert changes.causes(RequestError("all", details={"details": {"causes": causes}})) == ("spec.shards: 3",)
    assert changes.causes(RequestError("a quota")) == ("a quota",)


def entry(state: str = "Serving", epoch: str = "10-first") -> Obj:
    return a_cluster().status(shardMap=[{"shard": 0, "state": state, "holder": "acme-coreapp-2", "epoch": epoch}]).found["cluster"]


def test_a_shard_has_moved_once_it_serves_under_another_epoch() -> None:
    judge = changes.moved(0, "10-first")
    asked = a_cluster().annotated(switchover="0").found["cluster"]

    assert judge(asked) is None
    assert judge(entry("Moving", "12-x")) is None
    found = judge(entry("Serving", "12-x"))
    assert found is not None
    assert found["holder"] == "acme-coreapp-2"
    assert judge(entry()) == {}, "the request is gone and nothing moved"


def handed_over(evidence: str, epoch: str, shard: int = 0) -> Obj:
    return {"shard": shard, "epoch": epoch, "evidence": evidence}


def test_a_failover_that_comes_first_is_not_the_switchover_that_was_asked_for() -> None:
    judge = changes.moved(0, "10-first")
    earlier = [handed_over("PodDeleted", "10-first"), handed_over("Requested", "8-old")]

    def judged(*handovers: Obj, asked: bool = False) -> Obj | None:
        one = a_cluster().annotated(switchover="0") if asked else a_cluster()
        shard = {"shard": 0, "state": "Serving", "holder": "acme-coreapp-2", "epoch": handovers[0]["epoch"]}
        return judge(one.status(shardMap=[shard], recentHandovers=[*handovers, *earlier]).found["cluster"])

    failover, requested = handed_over("PodDeleted", "12-x"), handed_over("Requested", "14-y")
    assert judged(failover, asked=True) is None, "the request stands"
    assert judged(failover, handed_over("Requested", "11-z", shard=1)) == {}, "the request is gone and was not carried out"
    assert judged(requested, failover), "it came after the failover"
    assert judged(handed_over("PodDeleted", "16-z"), requested), "and one more failover after it"


@pytest.mark.parametrize(
    ("name", "conditions", "observed", "is_so"),
    [
        ("Ready", [condition("Ready", "True", "Serving")], 3, True),
        ("Ready", [condition("Ready", "False", "Unserved")], 3, False),
        ("Ready", [], 3, False),
        ("UpToDate", [condition("Reconciling", "False", "UpToDate"), condition("Stalled", "False", "UpToDate")], 3, True),
        ("UpToDate", [condition("Reconciling", "False", "UpToDate"), condition("Stalled", "False", "UpToDate")], 2, False),
        ("UpToDate", [condition("Reconciling", "False", "X"), condition("Stalled", "True", "X")], 3, False),
        ("UpToDate", [condition("Reconciling", "True", "X"), condition("Stalled", "False", "UpToDate")], 3, False),
        ("UpToDate", [], 3, False),
    ],
)
def test_a_condition_that_is_waited_for(name: str, conditions: list[Obj], observed: int, is_so: bool) -> None:
    cluster = a_cluster().status(conditions=conditions, observedGeneration=observed).found["cluster"]
    assert (changes.condition_is(name)(cluster) is not None) is is_so


class Flaky(Api):
    """Fails so many times with a status, then answers."""

    def __init__(self, times: int, status: int | None) -> None:
        super().__init__(a_cluster())
        self.left, self.status = times, status

    def get(self, path: str, *, timeout: float, **query: str) -> Obj:
        self.left -= 1
        if self.left >= 0:
            raise RequestError("no", status=self.status)
        return super().get(path, timeout=timeout)


def test_waiting_goes_on_after_a_failed_reading_but_not_without_the_right() -> None:
    begun = time.monotonic()
    assert changes.wait(Flaky(2, None), TARGET, lambda cluster: str(cluster["kind"]), seconds=30) == "WhatsAppCluster"
    assert time.monotonic() - begun >= 2 * changes.POLL
    for status in (401, 403, 404):
        with pytest.raises(RequestError):
            changes.wait(Flaky(2, status), TARGET, lambda _: None, seconds=30)


def test_waiting_ends() -> None:
    begun = time.monotonic()
    assert changes.wait(Api(a_cluster()), TARGET, lambda _: None, seconds=0.3) is None
    assert time.monotonic() - begun >= 0.3
