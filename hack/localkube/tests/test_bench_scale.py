"""The figures of the scale bench, and the objects that stand in for clusters: as the operator would want them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from localkube.scenarios.hollow import answers
from localkube.scenarios.scale import command as bench_scale
from localkube.scenarios.scale import objects
from localkube.scenarios.scale.command import Found, worst_share
from whatsapp_operator.core import checksums, manifests, upkeep
from whatsapp_operator.core.names import Epoch
from whatsapp_operator.shell.coreapps.schedule import ProbeResult
from whatsapp_operator.shell.coreapps.wire import read_report
from whatsapp_operator.shell.objects.reading import coreapp_of
from whatsapp_operator.shell.objects.secret_keys import findings_of

NOW = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)


def stored() -> dict[str, Any]:
    obj = objects.cluster("s0001")
    return obj | {"metadata": obj["metadata"] | {"uid": "u-1", "generation": 1, "resourceVersion": "7"}}


def found(**figures: Any) -> Found:
    made = Found(1000, steady_s=60.0, steady_cpu=0.5, rss=200.0, deleted=[0.1] * 10, killed=[0.2] * 10)
    for name, value in figures.items():
        setattr(made, name, value)
    return made


def test_objects_are_what_the_operator_wants() -> None:
    want = objects.desired(stored())
    made = {(obj["kind"], obj["metadata"]["name"]): obj for obj in objects.parts(want)}
    for obj in manifests.upkeep(want, webapp_replicas=manifests.FIRST_WEBAPPS, resharding=False, is_first_boot=False, is_unused=False):
        assert upkeep.covers(made[obj["kind"], obj["metadata"]["name"]], obj)
    for secret in manifests.secrets(want):
        assert made["Secret", secret["metadata"]["name"]]["data"]
    assert made["StatefulSet", "s0001-coreapp"]["spec"]["replicas"] == objects.COREAPPS
    assert all(obj["kind"] in objects.COLLECTIONS for obj in made.values())


def test_a_workload_bears_the_checksum_that_the_operator_would_put_on_it_else_it_loses_our_scheduler() -> None:
    want, secrets = objects.desired(stored()), dict[str, Any]()
    for obj in objects.parts(want):
        made = objects.stamped(want, obj, secrets)
        if obj["kind"] == "Secret":
            secrets[obj["metadata"]["name"]] = obj | {"metadata": obj["metadata"] | {"uid": f"u-{obj['metadata']['name']}"}}
        notes, name = made["metadata"].get("annotations") or {}, (made["kind"], made["metadata"]["name"])
        assert (checksums.CHECKSUM_ANNOTATION in notes) == (name == ("Deployment", "s0001-webapp")), name
    assert findings_of(want, secrets).checksums, "of all Secrets together"


def test_a_shard_is_as_after_a_committed_handover() -> None:
    want = objects.desired(stored())
    service = objects.shard_service(want, 1, {"metadata": {"name": "s0001-coreapp-1", "uid": "p-1"}}, now=NOW)
    service["metadata"] |= {"uid": "s-1", "resourceVersion": "9"}
    route = manifests.route_of(service, "s0001", "u-1")
    assert route is not None
    assert (route.shard, route.holder, route.holder_uid, route.epoch) == (1, "s0001-coreapp-1", "p-1", objects.epoch(1))
    assert Epoch.parse(route.epoch) is not None
    assert objects.holder_labels(1)[manifests.EPOCH_LABEL] == route.epoch


def test_a_pod_that_nobody_runs_is_ready() -> None:
    pod = {
        "metadata": {"name": "s0001-coreapp-1", "uid": "p-1", "resourceVersion": "9"},
        "spec": {"containers": [{"name": "coreapp", "image": "i"}]},
    }
    coreapp = coreapp_of({**pod, "status": objects.running(pod, ip="127.64.0.9", now=NOW)["status"]}, ProbeResult())
    assert coreapp is not None
    assert (coreapp.ready, coreapp.ip, coreapp.terminated, coreapp.phase) == (True, "127.64.0.9", False, "Running")


def test_an_answer_is_what_a_coreapp_reports() -> None:
    head, _, body = answers.answer({"shard": 1, "epoch": "1-scale1", "shards": 2, "gateway_status": "connected"}).partition(b"\r\n\r\n")
    report = read_report(body)
    assert f"Content-Length: {len(body)}".encode() in head
    assert report is not None
    assert (report.shard, report.epoch, report.shards, report.gateway) == (1, "1-scale1", 2, "connected")


def test_the_worst_seconds_of_a_span() -> None:
    marks = [(float(second), 0.1 * second + (2.0 if second >= 7 else 0.0)) for second in range(21)]
    assert worst_share(marks, 5.0) == pytest.approx((0.5 + 2.0) / 5)
    assert worst_share(marks[:4], 5.0) == pytest.approx(0.1)
    assert worst_share(marks[:1], 5.0) == 0.0


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({}, []),
        ({"steady_cpu": 1.2}, ["processor: 1.20 of a core, the goal is 1 core"]),
        ({"rss": 300.0}, ["resident memory: 300 MiB, the goal is 250 MiB"]),
        ({"killed": [0.2] * 9 + [2.5]}, ["failover, max, n = 20: 2.50 s, the goal is 2 s"]),
        ({"killed": [2.5] * 40}, ["failover, p95, n = 50: 2.50 s, the goal is 2 s"]),
        ({"steady_writes": 2, "steady_wrote": "2 patch pods"}, ["2 writes in 60 s without a change: 2 patch pods"]),
        (
            {"missing": ["shard 0 of h0"]},
            ["failover, max, n = 21: failed, the goal is 2 s", "no next holder delivered for shard 0 of h0"],
        ),
        ({"ledger": ["h0: 1 messages are still open"]}, ["h0: 1 messages are still open"]),
        ({"broken": ["pod-deleted: 1 messages lost, 0 doubled"]}, ["pod-deleted: 1 messages lost, 0 doubled"]),
    ],
)
def test_each_missed_goal_is_said(figures: dict[str, Any], words: list[str]) -> None:
    said = bench_scale.missed(found(**figures))
    assert len(said) == len(words)
    assert all(word in one for word, one in zip(words, said, strict=True))
