"""Pods that Kubernetes does not create, or cannot let go: the status says why, in the controller's own words, and what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .environment import Environment, Obj

pytestmark = pytest.mark.integration

FINALIZER = "example.com/backup"


async def apply(environment: Environment, kind: str, name: str, api: str = "v1", **body: Any) -> None:
    await environment.kubectl("create", "-f", "-", input=json.dumps({"apiVersion": api, "kind": kind, "metadata": {"name": name}, **body}))


async def stalled(environment: Environment, reason: str, *parts: str) -> None:
    """Wait until the cluster is Stalled for this reason, in a sentence that has all these parts."""

    def found(_: object) -> bool:
        said: Obj = environment.seen.condition(environment.namespace, "acme", "Stalled")
        return (said.get("status"), said.get("reason")) == ("True", reason) and all(part in said["message"] for part in parts)

    await environment.until(found, f"Stalled with {reason}: {parts}")


async def test_rejected_pods_are_said_in_the_words_of_their_controller(environment: Environment) -> None:
    # Pod Security takes all pods that the operator asks for.
    await environment.kubectl("label", "namespace", environment.namespace, "pod-security.kubernetes.io/enforce=restricted")
    await environment.created(shards=1, spares=1)

    # No more pods than there are: the next Coreapp is rejected.
    await apply(environment, "ResourceQuota", "few", spec={"hard": {"pods": "5"}})
    quota = "jsonpath={.status.used.pods}"
    await environment.kubectl("wait", "resourcequota/few", f"--for={quota}=5", "--timeout=90s")
    await environment.patch(spares=2)
    await stalled(environment, "PodsRejected", "acme-coreapp-2", "exceeded quota: few", "limited: pods=5")
    await environment.kubectl("delete", "resourcequota", "few")
    await environment.at_rest()

    # A container is larger than one may be: a Coreapp that was deleted does not come back.
    limit = {"type": "Container", "max": {"memory": "8Mi"}, "defaultRequest": {"memory": "1Mi"}}
    await apply(environment, "LimitRange", "small", spec={"limits": [limit]})
    await environment.delete_pod("acme-coreapp-2")
    await stalled(environment, "PodsRejected", "acme-coreapp-2", "memory")
    await environment.kubectl("delete", "limitrange", "small")
    await environment.at_rest()

    # What a Deployment's pods lack is said, too.
    await environment.patch(webapp={"pod": {"priorityClassName": "nope"}})
    await stalled(environment, "PodsRejected", "acme-webapp", "no PriorityClass with name nope was found")
    await environment.patch(coreapp={"pod": {"priorityClassName": "nope"}}, webapp={"pod": {"priorityClassName": None}})
    await stalled(environment, "PodsRejected", "acme-coreapp-3", "no PriorityClass with name nope was found")
    await environment.patch(coreapp={"pod": {"priorityClassName": None}})
    await environment.at_rest()


async def test_what_stands_in_the_place_of_a_pod_is_named(environment: Environment) -> None:
    await environment.created(shards=1, spares=1)

    # A pod of nobody has the name of the next Coreapp.
    await apply(environment, "Pod", "acme-coreapp-2", spec={"containers": [{"name": "main", "image": "other:1"}]})
    await environment.patch(spares=2)
    await stalled(environment, "NameConflict", "Pod acme-coreapp-2")
    await environment.kubectl("delete", "pod", "acme-coreapp-2", "--force", "--grace-period=0")
    await environment.at_rest()

    # A finalizer of another controller keeps a pod that has ended.
    held = environment.seen.find("Pod", environment.namespace, "acme-coreapp-2") or {}
    await environment.kubectl("patch", "pod", "acme-coreapp-2", "--type=merge", "-p", json.dumps({"metadata": {"finalizers": [FINALIZER]}}))
    await environment.delete_pod("acme-coreapp-2")
    await stalled(environment, "DeletionBlocked", "acme-coreapp-2", FINALIZER, held["spec"]["nodeName"])
    await environment.kubectl("patch", "pod", "acme-coreapp-2", "--type=merge", "-p", json.dumps({"metadata": {"finalizers": None}}))
    await environment.at_rest()
