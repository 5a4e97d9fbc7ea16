"""Nodes that are drained and nodes that die, on a real API server, with one cluster that serves throughout."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress

import aiohttp
import pytest
import pytest_asyncio

from .environment import LONG, Environment, light_traffic, reported_of

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

HEALTHCHECK_PORT = 6253
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
AUTOSCALER = "ToBeDeletedByClusterAutoscaler"
COREAPPS = "multiconnect.dev/cluster=acme,app.kubernetes.io/component=coreapp"
FLAG_LABELS = ("multiconnect.dev/shard", "multiconnect.dev/epoch")


@pytest_asyncio.fixture(loop_scope="module")
async def case(cluster: Environment) -> Environment:
    """The cluster with each of its three Coreapps on a node of its own."""
    await cluster.at_rest()
    if len({node_of(cluster, pod["metadata"]["name"]) for pod in cluster.pods("coreapp")}) < 3:
        # What was drained came up next to a holder. Now that its node takes pods again, it goes back there.
        held = cluster.seen.holders(cluster.namespace, "acme").values()
        spare = next(pod["metadata"]["name"] for pod in cluster.pods("coreapp") if pod["metadata"]["name"] not in held)
        uid = cluster.uid(spare)
        await cluster.delete_pod(spare)
        await cluster.until(lambda _: cluster.uid(spare) not in {"", uid}, f"{spare} is made again")
        await cluster.at_rest()
    assert len({node_of(cluster, pod["metadata"]["name"]) for pod in cluster.pods("coreapp")}) == 3
    return cluster


async def admin(environment: Environment, *args: str) -> None:
    await asyncio.to_thread(environment.plane.kubectl, *args)


def node_of(environment: Environment, pod: str) -> str:
    obj = environment.seen.find("Pod", environment.namespace, pod)
    return str(obj["spec"]["nodeName"]) if obj else ""


def holder_away_from_the_rest(environment: Environment) -> int:
    """A shard whose holder's node runs neither the simulator's servers nor every Webapp: what is lost with it can be measured."""
    needed = {node_of(environment, pod["metadata"]["name"]) for pod in environment.pods("simulator")}
    webapps = {node_of(environment, pod["metadata"]["name"]) for pod in environment.pods("webapp")}
    if len(webapps) == 1:
        needed |= webapps
    return next(shard for shard in (0, 1) if node_of(environment, environment.holder(shard)) not in needed)


# --- planned: the shard moves while its holder still serves ---------------------------------------------------------------


@pytest.mark.parametrize("how", ["cordon", "taint"])
async def test_the_shards_of_a_node_that_is_drained_move_first(case: Environment, how: str) -> None:
    before, old = len(case.seen.commits), case.holder(0)
    uid, node = case.uid(old), node_of(case, old)
    notice = ("cordon", node) if how == "cordon" else ("taint", "node", node, f"{AUTOSCALER}=now:NoSchedule")
    async with light_traffic(case, rate=40) as traffic:
        await admin(case, *notice)
        try:
            commit = await case.commit(0, before)
            assert node_of(case, commit.holder) != node
            entry = await reported_of(case, commit)
            assert (entry["kind"], entry["evidence"], entry["from"]) == ("Switchover", "PodDraining", old)
            assert case.uid(old) == uid, "the pod lives on as a standby"
            # Now the drain comes to it: nobody notices.
            await admin(case, "drain", node, f"--pod-selector={COREAPPS}", "--delete-emptydir-data")
            await case.until(lambda _: case.uid(old) != uid, f"{old} is gone")
        finally:
            await admin(case, "uncordon", node)  # a drain cordons too
            if how == "taint":
                await admin(case, "taint", "node", node, f"{AUTOSCALER}-")
        await case.at_rest()
        assert not (await traffic.report()).rejections, "no message was rejected"
    assert len(case.seen.commits) == before + 1


# --- unplanned ------------------------------------------------------------------------------------------------------------


async def test_a_lost_node_costs_its_holders_their_shards_and_nothing_when_it_is_back(case: Environment) -> None:
    shard = holder_away_from_the_rest(case)
    before, old = len(case.seen.commits), case.holder(shard)
    uid, node = case.uid(old), node_of(case, old)
    async with light_traffic(case) as traffic, case.control() as control:
        await control.lose(node)
        try:
            commit = await case.commit(shard, before)
            entry = await reported_of(case, commit)
            assert (entry["kind"], entry["evidence"], entry["from"]) == ("Failover", "ProbeTimeout", old)
            await traffic.next_delivery(shard, commit.monotonic)
            await case.until(lambda _: case.reason("Redundant") == "NoSpareLeft", "NoSpareLeft")
            # Twice the time after which a hung pod on a living node is ended.
            await asyncio.sleep(6)  # what is waited for is that nothing happens
            assert case.uid(old) == uid
            pod = case.seen.find("Pod", case.namespace, old) or {"metadata": {}}
            assert "deletionTimestamp" not in pod["metadata"], "the pod is left: nobody there could end it"
            await case.until(lambda _: old in json.dumps(case.status()["conditions"]), "what is out of reach is reported")
        finally:
            await control.back(node)
        await case.until(lambda _: case.uid(old) == uid and not flags(case, old), "the old holder's labels are stripped")
        await stands_by(case, old)
        await case.at_rest()
    assert len(case.seen.commits) == before + 1
    assert case.uid(old) == uid


@pytest.mark.parametrize("how", ["deleted", "out of service"])
async def test_a_node_that_is_gone_is_certain(case: Environment, how: str) -> None:
    shard = holder_away_from_the_rest(case)
    before, old = len(case.seen.commits), case.holder(shard)
    node = node_of(case, old)
    # A holder that does not answer would be replaced for that alone, if the user says it late.
    await case.patch(failover={"unhealthyAfterSeconds": 300})
    await case.at_rest()
    async with light_traffic(case), case.control() as control:
        # Its machine is off, as the user who says so has made sure.
        await control.lose(node)
        if how == "deleted":
            await admin(case, "delete", "node", node)
        else:
            await admin(case, "taint", "node", node, f"{OUT_OF_SERVICE}=nodeshutdown:NoSchedule")
        try:
            commit = await case.commit(shard, before)
            entry = await reported_of(case, commit)
            assert (entry["kind"], entry["evidence"], entry["from"]) == ("Failover", "NodeGone", old)
        finally:
            if how != "deleted":
                await admin(case, "taint", "node", node, f"{OUT_OF_SERVICE}-")
            await control.back(node, rebooted=True)
            await case.patch(failover=None)
        await case.at_rest()


async def stands_by(environment: Environment, pod: str) -> None:
    """Wait until a Coreapp itself says that it holds no shard."""
    obj = environment.seen.find("Pod", environment.namespace, pod)
    url = f"http://{obj['status']['podIP'] if obj else ''}:{HEALTHCHECK_PORT}/"
    said: object = None
    deadline = time.monotonic() + LONG
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        while time.monotonic() < deadline:
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(url) as response:
                    said = await response.json()
                if isinstance(said, dict) and said.get("shard") is None and said.get("shards") is not None:
                    return
            await asyncio.sleep(0.05)
    raise AssertionError(f"{pod} does not stand by: {said}")


def flags(environment: Environment, pod: str) -> set[str]:
    obj = environment.seen.find("Pod", environment.namespace, pod) or {"metadata": {}}
    return set(FLAG_LABELS) & (obj["metadata"].get("labels") or {}).keys()
