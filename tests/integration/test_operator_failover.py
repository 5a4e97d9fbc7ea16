"""Failures and planned moves of holders, on a real API server, under traffic."""

from __future__ import annotations

import asyncio
import time

import pytest

from outside.observer import Commit

from .stage import SWITCHOVER, Stage, Theatre, now, told

pytestmark = pytest.mark.integration


def is_noted(stage: Stage, commit: Commit) -> bool:
    """Whether the status reports this very handover, and the shard as served by it."""
    return any(entry["epoch"] == commit.epoch for entry in stage.status().get("recentHandovers") or ())


async def reported(stage: Stage, commit: Commit) -> None:
    await stage.until(lambda _: is_noted(stage, commit), f"handover {commit.epoch} in the status")


async def test_deleted_and_crashed_holders_are_replaced_at_once_and_nothing_is_lost(stage: Stage) -> None:
    await stage.created(shards=2, spares=1)
    async with stage.traffic(rate=60) as traffic:
        await traffic.next_delivery(0, time.monotonic())
        for shard, verb, evidence in ((0, stage.delete_pod, "PodDeleted"), (1, stage.kill, None), (0, stage.kill, None)):
            before, old = len(stage.seen.commits), stage.holder(shard)
            await verb(old)
            commit = await stage.commit(shard, before)
            assert commit.holder != old
            await traffic.next_delivery(shard, commit.monotonic)
            await reported(stage, commit)
            entry = next(entry for entry in stage.status()["recentHandovers"] if entry["epoch"] == commit.epoch)
            assert (entry["kind"], entry["from"], entry["to"], entry["shard"]) == ("Failover", old, commit.holder, shard)
            assert entry["evidence"] in ({evidence} if evidence else {"ContainerTerminated", "ConnectionLost"})
            await stage.event("HandedOver", contains=commit.epoch)
            await stage.at_rest()
        report = await traffic.finish()
    assert (report.lost, report.doubled) == (0, 0)
    assert report.two_holders == 0


async def test_a_failover_takes_four_writes_and_three_more_until_the_pod_is_a_spare_again(theatre: Theatre, stage: Stage) -> None:
    await stage.created(shards=2, spares=1)
    for verb in (stage.delete_pod, stage.kill):
        before, since = len(stage.seen.commits), now()
        await verb(stage.holder(0))
        commit = await stage.commit(0, before)
        await reported(stage, commit)
        until_reported = now()
        await stage.at_rest()
        # The log of a call may come a moment after what it wrote.
        writes = theatre.writes(since=since, namespace=stage.namespace)
        first = [write for write in writes if write.at <= until_reported]
        assert len(first) <= 4, told(first)
        assert len(writes) <= 7, told(writes)
        assert {write.code for write in writes} == {200}, told(writes)


async def test_two_holders_at_once_are_both_replaced(stage: Stage) -> None:
    await stage.created(shards=2, spares=2)
    before = len(stage.seen.commits)
    old = {shard: stage.holder(shard) for shard in (0, 1)}
    await asyncio.gather(stage.kill(old[0]), stage.kill(old[1]))
    commits = await asyncio.gather(*(stage.commit(shard, before) for shard in (0, 1)))
    assert not {commit.holder for commit in commits} & set(old.values())
    await stage.at_rest()


async def test_without_a_spare_a_shard_waits_for_its_own_pod(stage: Stage) -> None:
    """A second failure at once: one shard is taken over, the other is said to be Unserved until a pod is back."""
    await stage.created(shards=2, spares=1)
    async with stage.traffic(rate=40) as traffic:
        await asyncio.gather(stage.delete_pod(stage.holder(0)), stage.delete_pod(stage.holder(1)))
        await stage.until(lambda seen: len(seen.commits) >= 4, "both shards have new holders")
        await stage.at_rest()
        report = await traffic.finish()
    assert (report.lost, report.doubled) == (0, 0)


async def test_in_mode_manual_only_the_annotation_moves_a_shard(stage: Stage) -> None:
    await stage.created(shards=2, spares=1, failover={"mode": "Manual"})
    before, old = len(stage.seen.commits), stage.holder(0)
    uid = stage.uid(old)
    await stage.delete_pod(old)
    await stage.until(lambda _: stage.uid(old) not in {"", uid} and len(stage.ready("coreapp")) == 3, "the pod's successor")
    await stage.until(lambda _: stage.reason("Ready") == "Unserved", "Unserved")
    assert len(stage.seen.commits) == before

    await stage.annotate(SWITCHOVER, "0")
    commit = await stage.commit(0, before)
    await stage.until(lambda _: SWITCHOVER not in (stage.cluster()["metadata"].get("annotations") or {}), "the annotation is taken off")
    await reported(stage, commit)
    await stage.at_rest()

    to = next(
        name
        for name in ("acme-coreapp-0", "acme-coreapp-1", "acme-coreapp-2")
        if name not in stage.seen.holders(stage.namespace, "acme").values()
    )
    before = len(stage.seen.commits)
    async with stage.traffic(rate=60) as traffic:
        await traffic.next_delivery(1, time.monotonic())
        await stage.annotate(SWITCHOVER, f"1={to}")
        commit = await stage.commit(1, before)
        assert commit.holder == to
        await stage.at_rest()
        report = await traffic.finish()
    assert (report.lost, report.doubled, len(stage.seen.commits)) == (0, 0, before + 1)
    entry = stage.status()["recentHandovers"][0]
    assert (entry["kind"], entry["evidence"], entry["to"]) == ("Switchover", "Requested", to)


async def test_switchovers_that_cannot_be_are_refused_with_an_event(stage: Stage) -> None:
    await stage.created(shards=2, spares=1)
    before = len(stage.seen.commits)
    for wish, why in (
        ("7", "There is no shard 7"),
        ("0=acme-coreapp-9", "There is no Coreapp acme-coreapp-9"),
        (f"0={stage.holder(1)}", "holds another shard"),
        ("zero", "write a shard such as 0"),
    ):
        await stage.annotate(SWITCHOVER, wish)
        assert (await stage.event("SwitchoverRejected", contains=why))["type"] == "Warning"
        await stage.until(lambda _: SWITCHOVER not in (stage.cluster()["metadata"].get("annotations") or {}), f"{wish} is taken off")
    assert len(stage.seen.commits) == before
    await stage.at_rest()


async def test_labels_that_somebody_took_off_a_holder_come_back(stage: Stage) -> None:
    await stage.created(shards=1, spares=1)
    holder = stage.holder(0)
    await stage.kubectl("label", "pod", holder, "multiconnect.dev/epoch-", "multiconnect.dev/shard-")
    await stage.until(lambda _: stage.seen.holders(stage.namespace, "acme") == {0: holder}, "the labels are back")
    await stage.at_rest()
    assert len(stage.seen.commits) == 1
