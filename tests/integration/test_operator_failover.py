"""Failures and planned moves of holders, on a real API server, under traffic."""

from __future__ import annotations

import asyncio
import time

import pytest

from outside.observer import Commit

from .environment import SWITCHOVER, Environment, Harness, Obj, assigned, now

pytestmark = pytest.mark.integration


def is_noted(environment: Environment, commit: Commit) -> bool:
    """Whether the status reports this very handover, and the shard as served by it."""
    return any(entry["epoch"] == commit.epoch for entry in environment.status().get("recentHandovers") or ())


def number_of_report(versions: list[Obj], commit: Commit) -> int:
    """Which of the versions, each of which is one write of the status, is the first that reports this very handover."""
    entries = ((obj.get("status") or {}).get("recentHandovers") or () for obj in versions)
    return next(number for number, found in enumerate(entries) if any(entry["epoch"] == commit.epoch for entry in found))


async def reported(environment: Environment, commit: Commit) -> None:
    await environment.until(lambda _: is_noted(environment, commit), f"handover {commit.epoch} in the status")


async def test_deleted_and_crashed_holders_are_replaced_at_once_and_nothing_is_lost(environment: Environment) -> None:
    await environment.created(shards=2, spares=1)
    async with environment.traffic(rate=60) as traffic:
        await traffic.next_delivery(0, time.monotonic())
        for shard, verb, evidence in ((0, environment.delete_pod, "PodDeleted"), (1, environment.kill, None), (0, environment.kill, None)):
            before, old = len(environment.seen.commits), environment.holder(shard)
            await verb(old)
            commit = await environment.commit(shard, before)
            assert commit.holder != old
            await traffic.next_delivery(shard, commit.monotonic)
            await reported(environment, commit)
            entry = next(entry for entry in environment.status()["recentHandovers"] if entry["epoch"] == commit.epoch)
            assert (entry["kind"], entry["from"], entry["to"], entry["shard"]) == ("Failover", old, commit.holder, shard)
            assert entry["evidence"] in ({evidence} if evidence else {"ContainerTerminated", "ConnectionLost"})
            await environment.event("HandedOver", contains=commit.epoch)
            await environment.at_rest()
        report = await traffic.finish()
    assert (report.lost, report.doubled) == (0, 0)
    assert report.two_holders == 0


async def test_a_failover_takes_four_writes_and_three_more_until_the_pod_is_a_spare_again(
    harness: Harness, environment: Environment
) -> None:
    await environment.created(shards=2, spares=1)
    for verb in (environment.delete_pod, environment.kill):
        before, since = len(environment.seen.commits), now()
        await verb(environment.holder(0))
        commit = await environment.commit(0, before)
        await reported(environment, commit)
        versions = environment.since_mark("acme")
        await environment.at_rest()
        # The log of a call may come a moment after what it wrote.
        writes = harness.writes(since=since, namespace=environment.namespace)
        reports = [number for number, write in enumerate(writes, 1) if write.subresource == "status"]
        first = writes[: reports[number_of_report(versions, commit)]]
        assert len(first) <= 4, assigned(first)
        assert len(writes) <= 7, assigned(writes)
        assert {write.code for write in writes} == {200}, assigned(writes)


async def test_two_holders_at_once_are_both_replaced(environment: Environment) -> None:
    await environment.created(shards=2, spares=2)
    before = len(environment.seen.commits)
    old = {shard: environment.holder(shard) for shard in (0, 1)}
    await asyncio.gather(environment.kill(old[0]), environment.kill(old[1]))
    commits = await asyncio.gather(*(environment.commit(shard, before) for shard in (0, 1)))
    assert not {commit.holder for commit in commits} & set(old.values())
    await environment.at_rest()


async def test_without_a_spare_a_shard_waits_for_its_own_pod(environment: Environment) -> None:
    """A second failure at once: one shard is taken over, the other is said to be Unserved until a pod is back."""
    await environment.created(shards=2, spares=1)
    async with environment.traffic(rate=40) as traffic:
        await asyncio.gather(environment.delete_pod(environment.holder(0)), environment.delete_pod(environment.holder(1)))
        await environment.until(lambda seen: len(seen.commits) >= 4, "both shards have new holders")
        await environment.at_rest()
        report = await traffic.finish()
    assert (report.lost, report.doubled) == (0, 0)


async def test_in_mode_manual_only_the_annotation_moves_a_shard(environment: Environment) -> None:
    await environment.created(shards=2, spares=1, failover={"mode": "Manual"})
    before, old = len(environment.seen.commits), environment.holder(0)
    uid = environment.uid(old)
    await environment.delete_pod(old)
    await environment.until(
        lambda _: environment.uid(old) not in {"", uid} and len(environment.ready("coreapp")) == 3, "the pod's successor"
    )
    await environment.until(lambda _: environment.reason("Ready") == "Unserved", "Unserved")
    assert len(environment.seen.commits) == before

    await environment.annotate(SWITCHOVER, "0")
    commit = await environment.commit(0, before)
    await environment.until(
        lambda _: SWITCHOVER not in (environment.cluster()["metadata"].get("annotations") or {}), "the annotation is taken off"
    )
    await reported(environment, commit)
    await environment.at_rest()

    to = next(
        name
        for name in ("acme-coreapp-0", "acme-coreapp-1", "acme-coreapp-2")
        if name not in environment.seen.holders(environment.namespace, "acme").values()
    )
    before = len(environment.seen.commits)
    async with environment.traffic(rate=60) as traffic:
        await traffic.next_delivery(1, time.monotonic())
        await environment.annotate(SWITCHOVER, f"1={to}")
        commit = await environment.commit(1, before)
        assert commit.holder == to
        await environment.at_rest()
        report = await traffic.finish()
    assert (report.lost, report.doubled, len(environment.seen.commits)) == (0, 0, before + 1)
    entry = environment.status()["recentHandovers"][0]
    assert (entry["kind"], entry["evidence"], entry["to"]) == ("Switchover", "Requested", to)


async def test_switchovers_that_cannot_be_are_refused_with_an_event(environment: Environment) -> None:
    await environment.created(shards=2, spares=1)
    before = len(environment.seen.commits)
    for request, why in (
        ("7", "There is no shard 7"),
        ("0=acme-coreapp-9", "There is no Coreapp acme-coreapp-9"),
        (f"0={environment.holder(1)}", "holds another shard"),
        ("zero", "write a shard such as 0"),
    ):
        await environment.annotate(SWITCHOVER, request)
        assert (await environment.event("SwitchoverRejected", contains=why))["type"] == "Warning"
        await environment.until(
            lambda _: SWITCHOVER not in (environment.cluster()["metadata"].get("annotations") or {}), f"{request} is taken off"
        )
    assert len(environment.seen.commits) == before
    await environment.at_rest()


async def test_labels_that_a_user_took_off_a_holder_come_back(environment: Environment) -> None:
    await environment.created(shards=1, spares=1)
    holder = environment.holder(0)
    await environment.kubectl("label", "pod", holder, "multiconnect.dev/epoch-", "multiconnect.dev/shard-")
    await environment.until(lambda _: environment.seen.holders(environment.namespace, "acme") == {0: holder}, "the labels are back")
    await environment.at_rest()
    assert len(environment.seen.commits) == 1
