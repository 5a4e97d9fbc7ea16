"""Leaders come and go; clusters go on, on a real API server."""

from __future__ import annotations

import asyncio
import json
import signal
import time

import pytest

from .environment import LONG, Environment, Harness

pytestmark = pytest.mark.integration


async def test_after_kill_9_the_other_replica_goes_on(harness: Harness, environment: Environment) -> None:
    await environment.created(shards=2, spares=1)
    leader = await asyncio.to_thread(harness.leader_soon)
    async with environment.traffic(rate=40) as traffic:
        await traffic.next_delivery(0, time.monotonic())
        before, old = len(environment.seen.commits), environment.holder(0)
        uid = environment.uid(old)
        harness.operators.running[leader].signal(signal.SIGKILL)
        await environment.delete_pod(old)
        commit = await environment.commit(0, before)
        assert commit.holder_uid != uid
        assert await asyncio.to_thread(harness.leader_soon) != leader
        await environment.at_rest()
        report = await traffic.finish()
    assert (report.lost, report.doubled) == (0, 0)


async def test_on_sigterm_the_lease_is_handed_on(harness: Harness, environment: Environment) -> None:
    await environment.created(shards=1, spares=1)
    leader = await asyncio.to_thread(harness.leader_soon)
    process = harness.operators.running[leader]
    lease = harness.operators.lease
    version = (await asyncio.to_thread(harness.plane.call, "GET", lease))["metadata"]["resourceVersion"]
    process.signal(signal.SIGTERM)
    other = await asyncio.to_thread(harness.leader_soon, but=leader)
    assert other != leader
    # The API server says again what was written since: a Lease that ran out would have gone from one holder straight to the other.
    written = await asyncio.to_thread(harness.plane.kubectl, "get", "--raw", f"{lease}&watch=1&timeoutSeconds=1&resourceVersion={version}")
    holders = [json.loads(line)["object"]["spec"].get("holderIdentity") or "" for line in written.splitlines()]
    assert "" in holders, f"the Lease was not released: {holders}"
    before = len(environment.seen.commits)
    await environment.delete_pod(environment.holder(0))
    await environment.commit(0, before)
    async with asyncio.timeout(LONG):
        while process.alive():
            await asyncio.sleep(0.05)
    assert process.exit_text() == "exited with status 0"
    await environment.at_rest()


async def test_a_holder_that_died_while_no_operator_ran_is_replaced_when_one_starts(harness: Harness, environment: Environment) -> None:
    await environment.created(shards=2, spares=1)
    async with environment.traffic(rate=40) as traffic:
        await traffic.next_delivery(1, time.monotonic())
        await asyncio.to_thread(harness.end_replicas)
        # Static stability: without an operator holders go on, over a restart of their container too.
        before, crashed = len(environment.seen.commits), time.monotonic()
        await environment.kill(environment.holder(1))
        assert await traffic.next_delivery(1, crashed) < LONG
        assert len(environment.seen.commits) == before
        old = environment.holder(0)
        await environment.delete_pod(old)
        await environment.until(
            lambda _: len(environment.ready("coreapp")) == 3 and 0 not in environment.seen.holders(environment.namespace, "acme"),
            "the successor",
        )
        assert len(environment.seen.commits) == before

        await asyncio.to_thread(harness.ensure_replicas)
        commit = await environment.commit(0, before)
        await environment.at_rest()
        report = await traffic.finish()
    assert commit.shard == 0
    assert len(environment.seen.commits) == before + 1, "only the shard without a holder is moved"
    assert (report.lost, report.doubled) == (0, 0)


async def test_a_leader_killed_in_the_middle_of_a_growth_loses_nothing(harness: Harness, environment: Environment) -> None:
    await environment.created(shards=1, spares=1)
    await environment.patch(shards=2)
    await environment.said(lambda status: "operation" in status, "the noted call")
    async with asyncio.timeout(LONG):  # killed before the call, the next leader would wait for minutes until it is settled
        while not (await environment.client_state())["set_shards_calls"]:
            await asyncio.sleep(0.01)
    leader = await asyncio.to_thread(harness.leader_soon)
    harness.operators.running[leader].signal(signal.SIGKILL)
    await environment.at_rest()
    accepted = [call for call in (await environment.client_state())["set_shards_calls"] if call["restarted"]]
    assert len(accepted) == 1, "the call is not made twice"
