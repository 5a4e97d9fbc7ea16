"""What a hollow node reports of a pod is what a kubelet would report."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

from localkube.hollow.status import Container, pod_status, stamp, transitions

from .hollow_bench import a_pod

Obj = dict[str, Any]
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def report(main: Container, pod: Obj | None = None, failed: str = "") -> Obj:
    where = {"main_name": "coreapp", "ip": "127.64.1.1", "host_ip": "127.64.0.2"}
    since = transitions({}, main, NOW, failed=bool(failed))
    body = pod_status(pod or a_pod(), main, **where, started=stamp(NOW), since=since, failed=failed)
    assert body["metadata"] == {"uid": "u1"}
    return cast("Obj", body["status"])


def test_a_running_pod_is_reported_with_addresses_that_replace_the_old() -> None:
    status = report(Container().running(NOW, ready=True))

    assert (status["phase"], status["podIP"], status["startTime"]) == ("Running", "127.64.1.1", "2026-03-01T12:00:00Z")
    assert status["podIPs"] == [{"$patch": "replace"}, {"ip": "127.64.1.1"}]
    main = status["containerStatuses"][0]
    assert (main["ready"], main["restartCount"], main["state"]) == (True, 0, {"running": {"startedAt": "2026-03-01T12:00:00Z"}})
    conditions = {one["type"]: one for one in status["conditions"]}
    assert {kind: one["status"] for kind, one in conditions.items()} == dict.fromkeys(
        ["Initialized", "PodReadyToStartContainers", "ContainersReady", "Ready"], "True"
    )
    assert conditions["Ready"]["reason"] is None


def test_a_killed_container_is_terminated_then_restarted_with_its_last_state() -> None:
    killed = Container().running(NOW, ready=True).terminated(NOW, 137)
    again = killed.running(NOW + timedelta(seconds=1), ready=True)

    assert report(killed)["containerStatuses"][0]["state"]["terminated"] == {
        "exitCode": 137,
        "reason": "Error",
        "startedAt": "2026-03-01T12:00:00Z",
        "finishedAt": "2026-03-01T12:00:00Z",
    }
    assert report(killed)["phase"] == "Running"
    assert {one["type"]: one["status"] for one in report(killed)["conditions"]}["Ready"] == "False"
    status = report(again)["containerStatuses"][0]
    assert status["restartCount"] == 1
    assert status["lastState"]["terminated"]["exitCode"] == 137


def test_a_start_after_waiting_for_a_secret_still_counts_as_a_restart() -> None:
    waiting = Container().running(NOW, ready=True).terminated(NOW, 1).waiting("CreateContainerConfigError", "no secret")

    assert waiting.state == {"waiting": {"reason": "CreateContainerConfigError", "message": "no secret"}}
    assert waiting.running(NOW, ready=False).restarts == 1
    assert Container().waiting("x").running(NOW, ready=False).restarts == 0


def test_a_pod_that_never_ran_is_pending_and_its_sidecars_wait() -> None:
    pod = a_pod()
    pod["spec"]["containers"].append({"name": "sidecar", "image": "x"})

    status = report(Container().waiting("CreateContainerConfigError"), pod)

    assert status["phase"] == "Pending"
    assert [one["ready"] for one in status["containerStatuses"]] == [False, False]


def test_a_failed_pod_reports_why_and_nothing_of_it_runs() -> None:
    pod = a_pod()
    pod["spec"]["containers"].append({"name": "sidecar", "image": "x"})

    status = report(Container().running(NOW, ready=True).terminated(NOW, 137), pod, failed="Evicted")

    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
    assert all("terminated" in one["state"] for one in status["containerStatuses"])


def test_conditions_keep_the_time_of_their_last_change() -> None:
    later = NOW + timedelta(minutes=1)
    first = transitions({}, Container(), NOW, failed=False)
    second = transitions(first, Container().running(later, ready=True), later, failed=False)

    assert second["Ready"] == ("True", stamp(later))
    assert second["Initialized"] == ("True", stamp(NOW))
    assert transitions(second, Container().running(later, ready=True), later, failed=True)["Ready"][0] == "False"
