"""Leaders come and go; clusters go on, on a real API server."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from .stage import LONG, Stage, Theatre

pytestmark = pytest.mark.integration


async def test_after_kill_9_the_other_replica_goes_on(theatre: Theatre, stage: Stage) -> None:
    await stage.created(shards=2, spares=1)
    leader = await asyncio.to_thread(theatre.leader_soon)
    async with stage.traffic(rate=40) as traffic:
        await traffic.next_delivery(0, time.monotonic())
        before, old = len(stage.seen.commits), stage.holder(0)
        uid = stage.uid(old)
        theatre.operators.running[leader].signal(signal.SIGKILL)
        await stage.delete_pod(old)
        commit = await stage.commit(0, before)
        assert commit.holder_uid != uid
        assert await asyncio.to_thread(theatre.leader_soon) != leader
        await stage.at_rest()
        report = await traffic.finish()
    assert (report.lost, report.doubled) == (0, 0)


async def test_on_sigterm_the_lease_is_handed_on(theatre: Theatre, stage: Stage) -> None:
    await stage.created(shards=1, spares=1)
    leader = await asyncio.to_thread(theatre.leader_soon)
    process = theatre.operators.running[leader]
    ended = time.monotonic()
    process.signal(signal.SIGTERM)
    other = await asyncio.to_thread(theatre.leader_soon, but=leader)
    took = time.monotonic() - ended
    assert other != leader
    assert took < 2, f"{took:.1f} s from SIGTERM to the next leader: hardly sooner than a Lease runs out"
    before = len(stage.seen.commits)
    await stage.delete_pod(stage.holder(0))
    await stage.commit(0, before)
    async with asyncio.timeout(LONG):
        while process.alive():
            await asyncio.sleep(0.05)
    assert process.exit_text() == "exited with status 0"
    await stage.at_rest()


async def test_a_holder_that_died_while_no_operator_ran_is_replaced_when_one_starts(theatre: Theatre, stage: Stage) -> None:
    await stage.created(shards=2, spares=1)
    async with stage.traffic(rate=40) as traffic:
        await traffic.next_delivery(1, time.monotonic())
        await asyncio.to_thread(theatre.end_replicas)
        # Static stability: without an operator holders go on, over a restart of their container too.
        before, crashed = len(stage.seen.commits), time.monotonic()
        await stage.kill(stage.holder(1))
        assert await traffic.next_delivery(1, crashed) < LONG
        assert len(stage.seen.commits) == before
        old = stage.holder(0)
        await stage.delete_pod(old)
        await stage.until(
            lambda _: len(stage.ready("coreapp")) == 3 and 0 not in stage.seen.holders(stage.namespace, "acme"), "the successor"
        )
        assert len(stage.seen.commits) == before

        await asyncio.to_thread(theatre.ensure_replicas)
        commit = await stage.commit(0, before)
        await stage.at_rest()
        report = await traffic.finish()
    assert commit.shard == 0
    assert len(stage.seen.commits) == before + 1, "only the shard without a holder is moved"
    assert (report.lost, report.doubled) == (0, 0)


async def test_a_leader_killed_in_the_middle_of_a_growth_loses_nothing(theatre: Theatre, stage: Stage) -> None:
    await stage.created(shards=1, spares=1)
    await stage.patch(shards=2)
    await stage.said(lambda status: "operation" in status, "the noted call")
    leader = await asyncio.to_thread(theatre.leader_soon)
    theatre.operators.running[leader].signal(signal.SIGKILL)
    await stage.at_rest()
    accepted = [call for call in (await stage.books())["set_shards_calls"] if call["restarted"]]
    assert len(accepted) == 1, "the call is not made twice"
