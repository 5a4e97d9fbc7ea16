"""Every kind of evidence against a Coreapp, on a real API server and under traffic: acts on clusters of their own, side by side."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import aiohttp
import pytest
import pytest_asyncio

from .stage import Stage, Theatre, a_stage, condition_of, light_traffic, told_of

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

QUIET_SECONDS = 20.0
NO_ANSWER_SECONDS = 5.0
"""A probe that has no answer by then was swallowed, not late."""
PAUSED = "multiconnect.dev/paused"
UNHEALTHY_AFTER_MS = 3000
"""The default of `failover.unhealthyAfterSeconds`."""
AT_ONCE = 3
"""Clusters that are created at the same time: the operator and the hollow nodes share a few cores."""

Act = Callable[[Stage], Awaitable[None]]


# --- acts ---------------------------------------------------------------------------------------------------------------


async def a_hung_holder_is_replaced_then_ended_and_comes_back_as_a_spare(stage: Stage) -> None:
    async with light_traffic(stage) as traffic:
        before, old = len(stage.seen.commits), stage.holder(0)
        uid = stage.uid(old)
        async with stage.control() as control:
            await control.hang(stage.namespace, old)
        commit = await stage.commit(0, before)
        await stage.word("Redundant", "NoSpareLeft")
        await traffic.next_delivery(0, commit.monotonic)
        entry = await told_of(stage, commit)
        assert (entry["kind"], entry["evidence"], entry["from"], entry["to"]) == ("Failover", "ProbeTimeout", old, commit.holder)
        assert entry["detectMilliseconds"] >= UNHEALTHY_AFTER_MS, entry
        assert "detect " in (await stage.event("HandedOver", contains=commit.epoch))["message"]
        await stage.until(lambda _: stage.uid(old) not in {"", uid}, f"{old} is made again")
        await stage.at_rest()
        assert stage.reason("Redundant") == "SparesReady"
        assert {pod["metadata"]["name"] for pod in stage.ready("coreapp")} == {f"acme-coreapp-{number}" for number in range(3)}
    ended = [w for w in stage.theatre.writes(since=stage.began, namespace=stage.namespace) if (w.verb, w.resource) == ("delete", "pods")]
    # A kubelet may write the pod in that moment: the deletion, which carries the version that was judged, is sent again then.
    assert [write.name for write in ended if write.code != 409] == [old]


async def of_two_spares_one_hangs_and_the_promise_is_kept_again(stage: Stage) -> None:
    spare = next(name for name in sorted(coreapps(stage)) if name not in holders(stage))
    uid, before = stage.uid(spare), len(stage.seen.commits)
    async with stage.control() as control:
        await control.hang(stage.namespace, spare)
    lost = await stage.said(lambda status: status if condition_of(status, "Redundant", "SpareLost") else {}, "SpareLost")
    assert lost["failuresTolerated"] == 1
    assert condition_of(lost, "Ready", "Serving")
    await stage.until(lambda _: stage.uid(spare) not in {"", uid}, f"{spare} is made again")
    await stage.at_rest()
    assert stage.reason("Redundant") == "SparesReady"
    assert len(stage.seen.commits) == before


async def slow_answers_and_lost_probes_move_nothing(stage: Stage) -> None:
    before = len(stage.seen.commits)
    async with light_traffic(stage), stage.control() as control:
        await control.disturb(stage.namespace, stage.holder(0), late=0.8)
        await control.disturb(stage.namespace, stage.holder(1), swallow=0.3)
        probes = [asyncio.create_task(slowest_answer(stage, stage.holder(shard))) for shard in (0, 1)]
        deadline = time.monotonic() + QUIET_SECONDS
        while time.monotonic() < deadline:  # what is waited for is that nothing happens
            assert len(stage.seen.commits) == before, f"moved {QUIET_SECONDS - deadline + time.monotonic():.1f} s after the disturbance"
            assert stage.reason("Ready") == "Serving"
            await asyncio.sleep(0.1)
        late, swallowed = await asyncio.gather(*probes)
        assert 0.8 <= late < NO_ANSWER_SECONDS, f"answers were to be late; the slowest took {late:.2f} s"
        assert swallowed >= NO_ANSWER_SECONDS, f"probes were to be swallowed; the slowest answer took {swallowed:.2f} s"
        for shard in (0, 1):
            await control.disturb(stage.namespace, stage.holder(shard), late=0.0, swallow=0.0)
    await stage.at_rest()


async def slowest_answer(stage: Stage, name: str) -> float:
    """Probe a Coreapp while the disturbance lasts, as the operator does; seconds that the slowest answer took, or NO_ANSWER_SECONDS."""
    pod = stage.seen.find("Pod", stage.namespace, name) or {}
    slowest, deadline = 0.0, time.monotonic() + QUIET_SECONDS
    while time.monotonic() < deadline:
        began = time.monotonic()
        timeout = aiohttp.ClientTimeout(total=NO_ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            with suppress(TimeoutError):
                await session.get(f"http://{pod['status']['podIP']}:6253/")
        slowest = max(slowest, min(time.monotonic() - began, NO_ANSWER_SECONDS))
        if slowest >= NO_ANSWER_SECONDS:
            break
        await asyncio.sleep(0.1)
    return slowest


async def the_last_spare_goes_then_the_holder(stage: Stage) -> None:
    async with light_traffic(stage):
        before, old = len(stage.seen.commits), stage.holder(0)
        spare = next(name for name in coreapps(stage) if name not in holders(stage))
        await no_new_pods(stage)
        await stage.delete_pod(spare)
        await stage.until(lambda _: stage.reason("Redundant") == "NoSpareLeft", "NoSpareLeft")
        assert stage.reason("Ready") == "Serving"
        assert stage.status()["reason"] == "NoSpareLeft", "it is said before the next failure"
        await stage.delete_pod(old)
        await stage.until(lambda _: stage.reason("Ready") == "Unserved", "Unserved")
        assert stage.status()["shardMap"][0]["state"] == "Unserved"
        assert "shard 0" in stage.status()["message"]
        assert (await stage.event("Unserved"))["type"] == "Warning"
        assert len(stage.seen.commits) == before
        await new_pods_again(stage)
        commit = await stage.commit(0, before)
        ready = {pod["metadata"]["name"] for pod in stage.ready("coreapp")}
        assert commit.holder in ready
        await stage.at_rest()
    assert stage.reason("Redundant") == "SparesReady"


async def of_two_lost_holders_the_lower_shard_gets_the_only_spare(stage: Stage) -> None:
    async with light_traffic(stage):
        before, old = len(stage.seen.commits), {shard: stage.holder(shard) for shard in (0, 1)}
        spare = next(name for name in coreapps(stage) if name not in holders(stage))
        await no_new_pods(stage)
        await stage.kubectl("delete", "pod", *old.values(), "--force", "--grace-period=0")
        commit = await stage.commit(0, before)
        assert commit.holder == spare
        await stage.until(lambda _: stage.status()["shardMap"][1]["state"] == "Unserved", "shard 1 is Unserved")
        assert stage.status()["shardMap"][0]["state"] == "Serving"
        assert "shard 1" in stage.status()["message"]
        assert len(stage.seen.commits) == before + 1
        await new_pods_again(stage)
        await stage.commit(1, before)
        await stage.at_rest()


async def while_paused_failover_goes_on_and_a_resize_is_held(stage: Stage) -> None:
    await stage.annotate(PAUSED, "true")
    await stage.patch(shards=2)
    await stage.until(lambda _: stage.reason("Reconciling") == "Paused", "Paused")
    async with light_traffic(stage):
        before, old = len(stage.seen.commits), stage.holder(0)
        await stage.delete_pod(old)
        commit = await stage.commit(0, before)
        assert (await told_of(stage, commit))["evidence"] == "PodDeleted"
        await stage.until(lambda _: len(stage.ready("coreapp")) == 2, "the pod is back")
        await stage.until(lambda _: stage.reason("Ready") == "Serving", "Serving")
        assert (stage.replicas(), stage.status()["shards"], (await stage.books())["set_shards_calls"]) == (2, 1, [])
        await stage.kubectl("annotate", "whatsappcluster", "acme", f"{PAUSED}-")
        await stage.at_rest()
    assert [call["shards"] for call in (await stage.books())["set_shards_calls"]] == [2]


async def an_evicted_holder_hands_over_before_it_is_gone(stage: Stage) -> None:
    async with light_traffic(stage) as traffic:
        before, old = len(stage.seen.commits), stage.holder(0)
        uid = stage.uid(old)
        await evict(stage, old)
        commit = await stage.commit(0, before)
        assert stage.uid(old) == uid, "the pod was still there when its shard moved"
        entry = await told_of(stage, commit)
        assert (entry["evidence"], entry["from"]) == ("PodDraining", old)
        await traffic.next_delivery(0, commit.monotonic)
        await stage.at_rest()
        assert not (await traffic.report()).refusals, "no message was refused"


ACTS: dict[str, tuple[tuple[int, int], Act]] = {
    act.__name__: (sizes, act)
    for sizes, act in (
        ((2, 1), slow_answers_and_lost_probes_move_nothing),
        ((2, 1), a_hung_holder_is_replaced_then_ended_and_comes_back_as_a_spare),
        ((1, 1), while_paused_failover_goes_on_and_a_resize_is_held),
        ((1, 2), of_two_spares_one_hangs_and_the_promise_is_kept_again),
        ((2, 1), the_last_spare_goes_then_the_holder),
        ((2, 1), of_two_lost_holders_the_lower_shard_gets_the_only_spare),
        ((2, 1), an_evicted_holder_hands_over_before_it_is_gone),
    )
}


# --- what acts need -----------------------------------------------------------------------------------------------------


def coreapps(stage: Stage) -> set[str]:
    return {pod["metadata"]["name"] for pod in stage.pods("coreapp")}


def holders(stage: Stage) -> set[str]:
    return set(stage.seen.holders(stage.namespace, "acme").values())


async def no_new_pods(stage: Stage) -> None:
    """What is gone stays away, in this namespace alone."""
    await stage.kubectl("create", "quota", "no-new-pods", "--hard=pods=0")


async def new_pods_again(stage: Stage) -> None:
    await stage.kubectl("delete", "quota", "no-new-pods")


async def evict(stage: Stage, pod: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": stage.namespace}}
    path = f"/api/v1/namespaces/{stage.namespace}/pods/{pod}/eviction"
    await stage.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(body))


# --- the play -----------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def outcomes(theatre: Theatre, request: pytest.FixtureRequest) -> AsyncIterator[dict[str, asyncio.Task[float]]]:
    """Each selected act, being played on a cluster of its own; the laws are checked at its end."""
    await asyncio.to_thread(theatre.ensure_replicas)
    chosen = {item.callspec.params.get("act") for item in request.session.items if hasattr(item, "callspec")}
    room = asyncio.Semaphore(AT_ONCE)

    async def play(sizes: tuple[int, int], act: Act) -> float:
        async with a_stage(theatre) as stage:
            async with room:
                await stage.created(shards=sizes[0], spares=sizes[1])
            begun = time.monotonic()
            await act(stage)
            return time.monotonic() - begun

    tasks = {name: asyncio.create_task(play(*how), name=name) for name, how in ACTS.items() if name in chosen}
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("act", ACTS)
async def test_evidence(outcomes: dict[str, asyncio.Task[float]], act: str) -> None:
    print(f"{act} took {await outcomes[act]:.1f} s")
