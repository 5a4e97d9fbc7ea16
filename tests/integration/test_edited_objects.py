"""What another party changes of the operator's objects, with the real operator: it is put right once, or named if that cannot be done."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from .environment import LONG, Environment, Harness, Obj, now

pytestmark = pytest.mark.integration

FOREIGN = {"from": [{"podSelector": {"matchLabels": {"team": "a"}}}]}
EDITS: tuple[tuple[str, str, Obj], ...] = (
    ("poddisruptionbudgets", "acme-coreapp", {"maxUnavailable": None, "minAvailable": 1}),
    ("networkpolicies", "acme-webapp", {"ingress": [{"ports": [{"port": 8443, "protocol": "TCP"}], **FOREIGN}]}),
    ("statefulsets", "acme-coreapp", {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}),
    ("deployments", "acme-webapp", {"strategy": {"type": "Recreate", "rollingUpdate": None}}),
    ("services", "acme-webapp", {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"]}),
    ("services", "acme-shard-0", {"type": "LoadBalancer"}),
)
NOTES = {"acme-shard-0": {"service.beta.kubernetes.io/load-balancer-source-ranges": "10.0.0.0/8"}}
"""Annotations of others that the API server rejects once the edit is put right."""


async def read(environment: Environment, kind: str, name: str) -> Obj:
    found: Obj = json.loads(await environment.kubectl("get", kind, name, "--output", "json"))
    return found


async def test_edits_of_all_kinds_are_put_right_by_one_write_each_and_end_no_pod(environment: Environment) -> None:
    await environment.created(shards=1, spares=1)
    before = [(await read(environment, kind, name))["spec"] for kind, name, _ in EDITS]
    pods = {pod["metadata"]["uid"] for pod in (*environment.pods("coreapp"), *environment.pods("webapp"))}
    since = now()
    for kind, name, edit in EDITS:
        await environment.kubectl(
            "patch", kind, name, "--type", "merge", "--patch", json.dumps({"spec": edit, "metadata": {"annotations": NOTES.get(name)}})
        )

    deadline = time.monotonic() + LONG
    while (after := [(await read(environment, kind, name))["spec"] for kind, name, _ in EDITS]) != before:
        assert time.monotonic() < deadline, [now_is for now_is, was in zip(after, before, strict=True) if now_is != was]
        await asyncio.sleep(0.1)
    await environment.at_rest()

    stored = [one for one in environment.harness.writes(since=since, namespace=environment.namespace) if one.code < 300]
    written = Counter(f"{one.resource} {one.name}" for one in stored if one.verb in {"update", "create", "delete"})
    assert written == {f"{kind} {name}": 1 for kind, name, _ in EDITS}
    assert {pod["metadata"]["uid"] for pod in (*environment.pods("coreapp"), *environment.pods("webapp"))} == pods


def without_an_address_of_its_own(service: Obj) -> None:
    """Make the headless Service one with an address, which cannot be taken away."""
    for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        del service["spec"][field]


def one_after_the_other(workload: Obj) -> None:
    workload["spec"]["podManagementPolicy"] = "OrderedReady"


@pytest.mark.parametrize(
    ("kind", "change", "named"),
    [
        ("service", without_an_address_of_its_own, "spec.clusterIP"),
        ("statefulset", one_after_the_other, 'StatefulSet.apps "acme-coreapp" is invalid: spec'),
    ],
    ids=["Service", "StatefulSet"],
)
async def test_a_field_that_cannot_be_changed_is_named_and_the_object_is_made_again_when_it_is_deleted(
    kind: str, change: Callable[[Any], None], named: str, harness: Harness, environment: Environment
) -> None:
    """A person made the object again, otherwise. It is tried every few seconds, and ends nothing."""
    await environment.created(shards=1, spares=1)
    pods = {pod["metadata"]["uid"] for pod in environment.pods("coreapp")}
    await asyncio.to_thread(harness.end_replicas)
    right = await read(environment, kind, "acme-coreapp")
    meta = {key: right["metadata"][key] for key in ("name", "labels", "annotations", "ownerReferences") if key in right["metadata"]}
    other = {**right, "metadata": meta, "spec": {**right["spec"]}}
    change(other)
    since = now()
    await environment.kubectl("delete", kind, "acme-coreapp", "--cascade=orphan")
    await environment.kubectl("create", "-f", "-", input=json.dumps(other))
    await asyncio.to_thread(harness.ensure_replicas)

    assert named in await environment.word("Stalled", "ChangeRejected")
    first, second, *_ = await rejected(environment, since, 2)
    assert (second - first).total_seconds() >= 5

    await environment.kubectl("delete", kind, "acme-coreapp", "--cascade=orphan")
    await environment.at_rest()
    again = (await read(environment, kind, "acme-coreapp"))["spec"]
    assert {key: again[key] for key in right["spec"] if key != "replicas"} == {
        key: right["spec"][key] for key in right["spec"] if key != "replicas"
    }
    assert {pod["metadata"]["uid"] for pod in environment.pods("coreapp")} == pods


async def rejected(environment: Environment, since: str, count: int) -> list[datetime]:
    """When writes of the operator were rejected, as soon as there are so many."""
    deadline = time.monotonic() + LONG
    while True:
        writes = environment.harness.writes(since=since, namespace=environment.namespace)
        times = [datetime.fromisoformat(one.at) for one in writes if one.code == 422]
        if len(times) >= count:
            return times
        assert time.monotonic() < deadline, times
        await asyncio.sleep(0.1)
