"""Copies, strangers and lost labels on a real API server, with its own StatefulSet controller and garbage collector."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from .environment import Environment, Harness, assigned, now

pytestmark = pytest.mark.integration

CLUSTER = "multiconnect.dev/cluster"


async def get(environment: Environment, kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await environment.kubectl("get", kind, name, "-o", "json"))
    return found


async def copy(environment: Environment, kind: str, name: str, to: str) -> dict[str, Any]:
    """Make what `kubectl get -o yaml`, an editor and `kubectl create` make."""
    obj = await get(environment, kind, name)
    kept = {part: obj["metadata"][part] for part in ("labels", "annotations", "ownerReferences") if part in obj["metadata"]}
    spec = {part: value for part, value in obj["spec"].items() if part not in {"clusterIP", "clusterIPs"}}
    made = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": {**kept, "name": to}, "spec": spec}
    await environment.kubectl("create", "-f", "-", input=json.dumps(made))
    return await get(environment, kind, to)


async def test_copies_and_strangers_are_left_alone_and_stand_in_the_way_of_nothing(environment: Environment) -> None:
    # The second one is named like an object of the first.
    await asyncio.gather(environment.created(shards=1, spares=1), environment.created("acme-webapp", shards=1, spares=0))
    copies = {
        ("service", "public"): await copy(environment, "service", "acme-shard-0", "public"),
        ("networkpolicy", "looser"): await copy(environment, "networkpolicy", "acme-coreapp", "looser"),
    }
    labels = {CLUSTER: "acme", "multiconnect.dev/shard": "0"}
    strangers = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "theirs", "labels": labels}, "spec": {"ports": [{"port": 1}]}}
    await environment.kubectl("create", "-f", "-", input=json.dumps(strangers))
    async with environment.traffic(rate=40) as traffic:
        before = len(environment.seen.commits)
        await environment.delete_pod(environment.holder(0))
        await environment.commit(0, before)
        await environment.at_rest()
        assert len(await active(environment, 0)) == 1
        await environment.patch(shards=2)
        await environment.at_rest()
        report = await traffic.finish()
    assert (report.lost, report.doubled, report.two_holders) == (0, 0, 0)
    for (kind, name), obj in copies.items():
        assert (await get(environment, kind, name))["metadata"]["resourceVersion"] == obj["metadata"]["resourceVersion"]


async def active(environment: Environment, shard: int) -> list[str]:
    selector = f"{CLUSTER}=acme,multiconnect.dev/role=active,multiconnect.dev/shard={shard}"
    return (await environment.kubectl("get", "pods", "-l", selector, "-o", "name")).split()


async def test_what_lost_its_labels_gets_them_back_and_nothing_is_made_twice(harness: Harness, environment: Environment) -> None:
    await environment.created(shards=2, spares=1)
    spare = next(
        pod["metadata"]["name"] for pod in environment.ready("coreapp") if pod["metadata"]["labels"]["multiconnect.dev/role"] == "standby"
    )
    ours = [
        ("service", "acme-shard-1"),
        ("service", "acme-simulator"),
        ("deployment", "acme-webapp"),
        ("poddisruptionbudget", "acme-coreapp"),
        ("networkpolicy", "acme-webapp"),
        ("pod", environment.holder(0)),
        ("pod", spare),
        ("pod", "acme-simulator-0"),
    ]
    uids = {one: (await get(environment, *one))["metadata"]["uid"] for one in ours}
    since = now()
    await asyncio.gather(*(environment.kubectl("label", kind, name, f"{CLUSTER}-") for kind, name in ours))

    async def labelled(kind: str, name: str) -> None:
        async with asyncio.timeout(60):
            while True:
                meta = (await get(environment, kind, name))["metadata"]
                if meta.get("labels", {}).get(CLUSTER) == "acme" and meta.get("ownerReferences"):
                    break
                await asyncio.sleep(0.2)
        assert meta["uid"] == uids[kind, name]

    await asyncio.gather(*(labelled(*one) for one in ours))
    await environment.at_rest()
    writes = harness.writes(since=since, namespace=environment.namespace)
    assert not [write for write in writes if write.verb == "create"], assigned(writes)
    assert len(writes) < 60, assigned(writes)
