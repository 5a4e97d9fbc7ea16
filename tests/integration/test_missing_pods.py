"""Pods that Kubernetes does not create, or cannot let go: the status says why, in the controller's own words, and what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .stage import Obj, Stage

pytestmark = pytest.mark.integration

FINALIZER = "example.com/backup"


async def apply(stage: Stage, kind: str, name: str, api: str = "v1", **body: Any) -> None:
    await stage.kubectl("create", "-f", "-", input=json.dumps({"apiVersion": api, "kind": kind, "metadata": {"name": name}, **body}))


async def stalled(stage: Stage, reason: str, *parts: str) -> None:
    """Wait until the cluster is Stalled for this reason, in a sentence that has all these parts."""

    def found(_: object) -> bool:
        said: Obj = stage.seen.condition(stage.namespace, "acme", "Stalled")
        return (said.get("status"), said.get("reason")) == ("True", reason) and all(part in said["message"] for part in parts)

    await stage.until(found, f"Stalled with {reason}: {parts}", timeout=40.0)


async def test_rejected_pods_are_said_in_the_words_of_their_controller(stage: Stage) -> None:
    await stage.created(shards=1, spares=1)

    # No more pods than there are: the next Coreapp is rejected.
    await apply(stage, "ResourceQuota", "few", spec={"hard": {"pods": "5"}})
    quota = "jsonpath={.status.used.pods}"
    await stage.kubectl("wait", "resourcequota/few", f"--for={quota}=5", "--timeout=30s")
    await stage.patch(spares=2)
    await stalled(stage, "PodsRejected", "acme-coreapp-2", "exceeded quota: few", "limited: pods=5")
    await stage.kubectl("delete", "resourcequota", "few")
    await stage.at_rest()

    # A container is larger than one may be: a Coreapp that was deleted does not come back.
    limit = {"type": "Container", "max": {"memory": "8Mi"}, "defaultRequest": {"memory": "1Mi"}}
    await apply(stage, "LimitRange", "small", spec={"limits": [limit]})
    await stage.delete_pod("acme-coreapp-2")
    await stalled(stage, "PodsRejected", "acme-coreapp-2", "memory")
    await stage.kubectl("delete", "limitrange", "small")
    await stage.at_rest()

    # What a Deployment's pods lack is said, too.
    await stage.patch(webapp={"pod": {"priorityClassName": "nope"}})
    await stalled(stage, "PodsRejected", "acme-webapp", "no PriorityClass with name nope was found")
    await stage.patch(coreapp={"pod": {"priorityClassName": "nope"}}, webapp={"pod": {"priorityClassName": None}})
    await stalled(stage, "PodsRejected", "acme-coreapp-3", "no PriorityClass with name nope was found")
    await stage.patch(coreapp={"pod": {"priorityClassName": None}})
    await stage.at_rest()


async def test_what_stands_in_the_place_of_a_pod_is_named(stage: Stage) -> None:
    await stage.created(shards=1, spares=1)

    # A pod of nobody has the name of the next Coreapp.
    await apply(stage, "Pod", "acme-coreapp-2", spec={"containers": [{"name": "main", "image": "somebody:1"}]})
    await stage.patch(spares=2)
    await stalled(stage, "NameConflict", "Pod acme-coreapp-2")
    await stage.kubectl("delete", "pod", "acme-coreapp-2", "--force", "--grace-period=0")
    await stage.at_rest()

    # A finalizer of somebody else keeps a pod that has ended.
    held = stage.seen.find("Pod", stage.namespace, "acme-coreapp-2") or {}
    await stage.kubectl("patch", "pod", "acme-coreapp-2", "--type=merge", "-p", json.dumps({"metadata": {"finalizers": [FINALIZER]}}))
    await stage.delete_pod("acme-coreapp-2")
    await stalled(stage, "DeletionBlocked", "acme-coreapp-2", FINALIZER, held["spec"]["nodeName"])
    await stage.kubectl("patch", "pod", "acme-coreapp-2", "--type=merge", "-p", json.dumps({"metadata": {"finalizers": None}}))
    await stage.at_rest()
