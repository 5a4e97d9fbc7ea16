"""Copies, strangers and lost labels on a real API server, with its own StatefulSet controller and garbage collector."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from .stage import Stage, Theatre, now, told

pytestmark = pytest.mark.integration

CLUSTER = "multiconnect.dev/cluster"


async def get(stage: Stage, kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await stage.kubectl("get", kind, name, "-o", "json"))
    return found


async def copy(stage: Stage, kind: str, name: str, to: str) -> dict[str, Any]:
    """Make what `kubectl get -o yaml`, an editor and `kubectl create` make."""
    obj = await get(stage, kind, name)
    kept = {part: obj["metadata"][part] for part in ("labels", "annotations", "ownerReferences") if part in obj["metadata"]}
    spec = {part: value for part, value in obj["spec"].items() if part not in {"clusterIP", "clusterIPs"}}
    made = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": {**kept, "name": to}, "spec": spec}
    await stage.kubectl("create", "-f", "-", input=json.dumps(made))
    return await get(stage, kind, to)


async def test_copies_and_strangers_are_left_alone_and_stand_in_the_way_of_nothing(stage: Stage) -> None:
    # The second one is named like an object of the first.
    await asyncio.gather(stage.created(shards=1, spares=1), stage.created("acme-webapp", shards=1, spares=0))
    copies = {
        ("service", "public"): await copy(stage, "service", "acme-shard-0", "public"),
        ("networkpolicy", "looser"): await copy(stage, "networkpolicy", "acme-coreapp", "looser"),
    }
    labels = {CLUSTER: "acme", "multiconnect.dev/shard": "0"}
    strangers = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "theirs", "labels": labels}, "spec": {"ports": [{"port": 1}]}}
    await stage.kubectl("create", "-f", "-", input=json.dumps(strangers))
    async with stage.traffic(rate=40) as traffic:
        before = len(stage.seen.commits)
        await stage.delete_pod(stage.holder(0))
        await stage.commit(0, before)
        await stage.at_rest()
        assert len(await active(stage, 0)) == 1
        await stage.patch(shards=2)
        await stage.at_rest()
        report = await traffic.finish()
    assert (report.lost, report.doubled, report.two_holders) == (0, 0, 0)
    for (kind, name), obj in copies.items():
        assert (await get(stage, kind, name))["metadata"]["resourceVersion"] == obj["metadata"]["resourceVersion"]


async def active(stage: Stage, shard: int) -> list[str]:
    selector = f"{CLUSTER}=acme,multiconnect.dev/role=active,multiconnect.dev/shard={shard}"
    return (await stage.kubectl("get", "pods", "-l", selector, "-o", "name")).split()


async def test_what_lost_its_labels_gets_them_back_and_nothing_is_made_twice(theatre: Theatre, stage: Stage) -> None:
    await stage.created(shards=2, spares=1)
    spare = next(
        pod["metadata"]["name"] for pod in stage.ready("coreapp") if pod["metadata"]["labels"]["multiconnect.dev/role"] == "standby"
    )
    ours = [
        ("service", "acme-shard-1"),
        ("service", "acme-simulator"),
        ("deployment", "acme-webapp"),
        ("poddisruptionbudget", "acme-coreapp"),
        ("networkpolicy", "acme-webapp"),
        ("pod", stage.holder(0)),
        ("pod", spare),
        ("pod", "acme-simulator-0"),
    ]
    uids = {one: (await get(stage, *one))["metadata"]["uid"] for one in ours}
    since = now()
    await asyncio.gather(*(stage.kubectl("label", kind, name, f"{CLUSTER}-") for kind, name in ours))

    async def labelled(kind: str, name: str) -> None:
        async with asyncio.timeout(60):
            while True:
                meta = (await get(stage, kind, name))["metadata"]
                if meta.get("labels", {}).get(CLUSTER) == "acme" and meta.get("ownerReferences"):
                    break
                await asyncio.sleep(0.2)
        assert meta["uid"] == uids[kind, name]

    await asyncio.gather(*(labelled(*one) for one in ours))
    await stage.at_rest()
    writes = theatre.writes(since=since, namespace=stage.namespace)
    assert not [write for write in writes if write.verb == "create"], told(writes)
    assert len(writes) < 60, told(writes)
