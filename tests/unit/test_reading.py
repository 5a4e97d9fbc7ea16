"""What is read out of objects that others write."""

from __future__ import annotations

import json
from typing import Any

import pytest

from whatsapp_operator.core.desired import Tuning
from whatsapp_operator.shell.objects.reading import desired_of, image_problem_of, pending_of, webapps_change

Obj = dict[str, Any]


def a_webapp(template: str, phase: str = "Running", **meta: Any) -> Obj:
    labels = {"app.kubernetes.io/component": "webapp", "pod-template-hash": template}
    return {"metadata": {"name": "acme-webapp-x", "labels": labels, **meta}, "status": {"phase": phase}}


def a_deployment(generation: int, observed: int | None) -> Obj:
    return {"metadata": {"generation": generation}, "status": {} if observed is None else {"observedGeneration": observed}}


@pytest.mark.parametrize(
    ("deployment", "pods", "change"),
    [
        (None, [], False),
        (a_deployment(2, 2), [a_webapp("a"), a_webapp("a")], False),
        (a_deployment(2, 2), [a_webapp("a"), a_webapp("b")], True),
        (a_deployment(2, 2), [a_webapp("a"), a_webapp("b", deletionTimestamp="2027-01-04T12:00:00Z")], False),
        (a_deployment(2, 2), [a_webapp("a", "Failed"), a_webapp("b")], False),  # evicted, and left there by its controller
        (a_deployment(2, 2), [a_webapp("a", "Succeeded"), a_webapp("b")], False),
        (a_deployment(2, 2), [a_webapp("a", "Pending"), a_webapp("b")], True),
        (a_deployment(3, 2), [a_webapp("a")], True),
        (a_deployment(1, None), [], False),
    ],
)
def test_webapps_change_until_all_are_of_the_newest_template(deployment: Obj | None, pods: list[Obj], change: bool) -> None:
    assert webapps_change(deployment, pods) is change


@pytest.mark.parametrize(("phase", "is_reported"), [("Pending", True), ("Running", True), ("Failed", False), ("Succeeded", False)])
def test_a_pod_that_has_ended_waits_for_no_image(phase: str, is_reported: bool) -> None:
    pod = a_webapp("a", phase)
    pod["status"]["containerStatuses"] = [{"name": "webapp", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]

    assert (image_problem_of([pod]) is not None) is is_reported


def test_a_kubelets_sentence_is_passed_on_long_enough_to_name_the_image() -> None:
    pod = a_webapp("a", "Pending")
    pod["status"]["containerStatuses"] = [{"name": "webapp", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "x" * 400}}}]

    assert image_problem_of([pod]) == "acme-webapp-x: ImagePullBackOff: " + "x" * 300


def test_an_image_of_an_injected_init_container_is_named_too() -> None:
    assert image_problem_of([a_pod("coreapp", INJECTED)]) == "acme-coreapp-0: ImagePullBackOff: mesh/proxy:1"


NO_ROOM: Obj = {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]}
CRASHES: Obj = {"containerStatuses": [{"name": "simulator", "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}}]}
NOT_YET: Obj = {"name": "webapp", "state": {"waiting": {"reason": "PodInitializing"}}}
NO_PROXY: Obj = {"name": "proxy", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "mesh/proxy:1"}}}
INJECTED: Obj = {"initContainerStatuses": [NO_PROXY], "containerStatuses": [NOT_YET]}
"""A service mesh has put a container before those of the pod."""
UNREADY: Obj = {"type": "Ready", "status": "False", "message": "containers with unready status: [proxy]"}
"""Of a pod with a sidecar that runs and is not ready."""
STARTS: Obj = {"containerStatuses": [{"name": "simulator", "state": {"waiting": {"reason": "ContainerCreating"}}}]}


def a_pod(component: str, status: Obj, **meta: Any) -> Obj:
    return {"metadata": {"name": f"acme-{component}-0", "labels": {"app.kubernetes.io/component": component}, **meta}, "status": status}


def sidecar_of(name: str, condition: Obj = UNREADY, *, ready: bool = True) -> Obj:
    """Of a pod with this container and a sidecar."""
    return {"conditions": [condition], "containerStatuses": [{"name": "proxy", "ready": False}, {"name": name, "ready": ready}]}


@pytest.mark.parametrize(
    ("pods", "said"),
    [
        ([], None),
        ([a_pod("webapp", {"phase": "Running"}), a_pod("simulator", STARTS)], None),
        ([a_pod("webapp", NO_ROOM), a_pod("simulator", NO_ROOM)], "acme-simulator-0 (0/3 nodes are available)"),
        ([a_pod("simulator", CRASHES)], "acme-simulator-0 (CrashLoopBackOff: back-off)"),
        ([a_pod("webapp", INJECTED)], "acme-webapp-0 (ImagePullBackOff: mesh/proxy:1)"),
        ([a_pod("webapp", sidecar_of("webapp"))], f"acme-webapp-0 ({UNREADY['message']})"),
        ([a_pod("webapp", sidecar_of("webapp", ready=False))], None),  # its own container is not ready either: it is just being started
        ([a_pod("webapp", sidecar_of("webapp", UNREADY | {"status": "True"}))], None),
        ([a_pod("coreapp", NO_ROOM)], None),  # its own sentence names it
        ([a_pod("webapp", NO_ROOM, deletionTimestamp="2027-01-04T12:00:00Z")], None),
        ([a_pod("webapp", {**NO_ROOM, "phase": "Failed"})], None),
    ],
)
def test_a_webapp_or_simulator_that_does_not_run_is_named_with_the_reason(pods: list[Obj], said: str | None) -> None:
    assert pending_of(pods) == said


# --- a request in a manifest

SWITCHOVER = "multiconnect.dev/switchover"
APPLIES: Obj = {"manager": "argocd", "operation": "Apply", "fieldsV1": {"f:metadata": {"f:annotations": {f"f:{SWITCHOVER}": {}}}}}


def last_applied(**annotations: str) -> dict[str, str]:
    """As kubectl notes it without server-side apply."""
    return {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({"metadata": {"annotations": annotations}})}


ODD: list[Any] = [None, 7, "x", {}, [7], [None], [{}], [{"shard": [], "evidence": "Requested"}]]
MOVED: Obj = {"recentHandovers": [{"shard": 0, "kind": "Switchover", "evidence": "Requested"}]}


@pytest.mark.parametrize(
    ("notes", "managers", "who"),
    [
        ({SWITCHOVER: "0"}, [], None),
        ({SWITCHOVER: "0"}, [APPLIES], "argocd"),
        ({SWITCHOVER: "0"}, [{**APPLIES, "operation": "Update"}], None),
        ({}, [APPLIES], None),
        ({SWITCHOVER: "0", **last_applied(**{SWITCHOVER: "0"})}, [], "kubectl apply"),
        ({SWITCHOVER: "0=acme-coreapp-2", **last_applied(**{SWITCHOVER: "0"})}, [], None),
        ({SWITCHOVER: "0", **last_applied(other="0")}, [], None),
        ({SWITCHOVER: "0", "kubectl.kubernetes.io/last-applied-configuration": "{"}, [], None),
        ({SWITCHOVER: "0", "kubectl.kubernetes.io/last-applied-configuration": '{"metadata": {"annotations": 7}}'}, [], None),
        ({SWITCHOVER: "0", "kubectl.kubernetes.io/last-applied-configuration": '{"metadata": []}'}, [], None),
        ({SWITCHOVER: "1, 0=acme-coreapp-2"}, [APPLIES], "argocd"),
        ({SWITCHOVER: "1"}, [APPLIES], None),
    ],
)
def test_a_switchover_in_a_manifest_that_is_applied_again_is_ignored_and_reported(
    notes: dict[str, str], managers: list[Obj], who: str | None
) -> None:
    """It would come back each time that it was carried out and removed."""
    meta = {"namespace": "default", "name": "acme", "uid": "u", "annotations": notes, "managedFields": managers}
    obj = {"metadata": meta, "spec": {"shards": 2, "client": {"type": "Simulator"}}, "status": MOVED}
    desired = desired_of(obj, image="sim:1", tuning=Tuning())

    assert desired.switchover_problem is None
    if who is None:
        assert (desired.invalid, desired.switchover_text) == (None, notes.get(SWITCHOVER, ""))
    else:
        assert (desired.switchovers, desired.switchover_text) == ((), "")
        assert desired.invalid is not None
        assert f"is part of a manifest ('{who}')" in desired.invalid
        assert "kubectl annotate" in desired.invalid


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"recentHandovers": [{"shard": 1, "kind": "Switchover", "evidence": "Requested"}]},
        {"recentHandovers": [{"shard": 0, "kind": "Failover", "evidence": "PodDeleted"}]},
        *({"recentHandovers": one} for one in ODD),
        None,
        [],
    ],
)
def test_the_first_switchover_of_a_manifest_is_carried_out(status: Any) -> None:
    meta = {"namespace": "default", "name": "acme", "uid": "u", "annotations": {SWITCHOVER: "0"}, "managedFields": [APPLIES]}
    obj = {"metadata": meta, "spec": {"shards": 2, "client": {"type": "Simulator"}}, "status": status}
    desired = desired_of(obj, image="sim:1", tuning=Tuning())
    assert (len(desired.switchovers), desired.invalid) == (1, None)
