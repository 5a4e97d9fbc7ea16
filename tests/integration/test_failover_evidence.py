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

from localkube.errors import LocalKubeError

from .environment import LONG, Environment, Harness, Obj, an_environment, condition_of, light_traffic, reported_of, selected

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

QUIET_SECONDS = 20.0
NO_ANSWER_SECONDS = 5.0
"""A probe that has no answer by then was swallowed, not late."""
LINGER_SECONDS = 9.0
"""For so long a Coreapp that is evicted goes on serving: nearly all of its grace period."""
PAUSED = "multiconnect.dev/paused"
UNHEALTHY_AFTER_MS = 3000
"""The default of `failover.unhealthyAfterSeconds`."""
AT_ONCE = 3
"""Clusters that are created at the same time: the operator and the hollow nodes share a few cores."""

Action = Callable[[Environment], Awaitable[None]]


# --- acts ---------------------------------------------------------------------------------------------------------------


async def a_hung_holder_is_replaced_then_ended_and_comes_back_as_a_spare(environment: Environment) -> None:
    async with light_traffic(environment) as traffic:
        before, old = len(environment.seen.commits), environment.holder(0)
        uid = environment.uid(old)
        async with environment.control() as control:
            await control.hang(environment.namespace, old)
        commit = await environment.commit(0, before)
        await environment.word("Redundant", "NoSpareLeft")
        await traffic.next_delivery(0, commit.monotonic)
        entry = await reported_of(environment, commit)
        assert (entry["kind"], entry["evidence"], entry["from"], entry["to"]) == ("Failover", "ProbeTimeout", old, commit.holder)
        assert entry["detectMilliseconds"] >= UNHEALTHY_AFTER_MS, entry
        assert "detect " in (await environment.event("HandedOver", contains=commit.epoch))["message"]
        await environment.until(lambda _: environment.uid(old) not in {"", uid}, f"{old} is made again")
        await environment.at_rest()
        assert environment.reason("Redundant") == "SparesReady"
        assert {pod["metadata"]["name"] for pod in environment.ready("coreapp")} == {f"acme-coreapp-{number}" for number in range(3)}
    ended = [
        w
        for w in environment.harness.writes(since=environment.began, namespace=environment.namespace)
        if (w.verb, w.resource) == ("delete", "pods")
    ]
    # A kubelet may write the pod in that moment: the deletion, which carries the version that was judged, is sent again then.
    assert [write.name for write in ended if write.code != 409] == [old]


async def of_two_spares_one_hangs_and_the_promise_is_kept_again(environment: Environment) -> None:
    spare = next(name for name in sorted(coreapps(environment)) if name not in holders(environment))
    uid, before = environment.uid(spare), len(environment.seen.commits)
    async with environment.control() as control:
        await control.hang(environment.namespace, spare)
    lost = await environment.said(lambda status: status if condition_of(status, "Redundant", "SpareLost") else {}, "SpareLost")
    assert lost["failuresTolerated"] == 1
    assert condition_of(lost, "Ready", "Serving")
    await environment.until(lambda _: environment.uid(spare) not in {"", uid}, f"{spare} is made again")
    await environment.at_rest()
    assert environment.reason("Redundant") == "SparesReady"
    assert len(environment.seen.commits) == before


async def slow_answers_and_lost_probes_move_nothing(environment: Environment) -> None:
    before = len(environment.seen.commits)
    async with light_traffic(environment), environment.control() as control:
        await control.disturb(environment.namespace, environment.holder(0), late=0.8)
        await control.disturb(environment.namespace, environment.holder(1), swallow=0.3)
        # That an answer comes late is waited for as long as a crowded machine may take; that none comes shows sooner.
        patience = {0: LONG, 1: NO_ANSWER_SECONDS}
        probes = [asyncio.create_task(slowest_answer(environment, environment.holder(shard), patience[shard])) for shard in (0, 1)]
        deadline = time.monotonic() + QUIET_SECONDS
        while time.monotonic() < deadline:  # what is waited for is that nothing happens
            assert len(environment.seen.commits) == before, (
                f"moved {QUIET_SECONDS - deadline + time.monotonic():.1f} s after the disturbance"
            )
            assert environment.reason("Ready") == "Serving"
            await asyncio.sleep(0.1)
        late, swallowed = await asyncio.gather(*probes)
        assert LONG > late >= 0.8, f"answers were to be late; the slowest took {late:.2f} s"
        assert swallowed >= NO_ANSWER_SECONDS, f"probes were to be swallowed; the slowest answer took {swallowed:.2f} s"
        for shard in (0, 1):
            await control.disturb(environment.namespace, environment.holder(shard), late=0.0, swallow=0.0)
    await environment.at_rest()


async def slowest_answer(environment: Environment, name: str, patience: float) -> float:
    """Probe a Coreapp while the disturbance lasts, as the operator does; seconds of the slowest answer, or ``patience``."""
    pod = environment.seen.find("Pod", environment.namespace, name) or {}
    slowest, deadline = 0.0, time.monotonic() + QUIET_SECONDS
    while time.monotonic() < deadline:
        began = time.monotonic()
        timeout = aiohttp.ClientTimeout(total=patience)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            with suppress(TimeoutError):
                await session.get(f"http://{pod['status']['podIP']}:6253/")
        slowest = max(slowest, min(time.monotonic() - began, patience))
        if slowest >= patience:
            break
        await asyncio.sleep(0.1)
    return slowest


async def the_last_spare_goes_then_the_holder(environment: Environment) -> None:
    async with light_traffic(environment):
        before, old = len(environment.seen.commits), environment.holder(0)
        spare = next(name for name in coreapps(environment) if name not in holders(environment))
        await no_new_pods(environment)
        await environment.delete_pod(spare)
        await environment.until(lambda _: environment.reason("Redundant") == "NoSpareLeft", "NoSpareLeft")
        assert environment.reason("Ready") == "Serving"
        assert environment.status()["reason"] == "NoSpareLeft", "it is said before the next failure"
        await environment.delete_pod(old)
        await environment.said(lambda status: is_unserved(status, 0), "shard 0 is Unserved, and it is said")
        await environment.until(lambda _: environment.reason("Ready") == "Unserved", "Unserved")
        assert (await environment.event("Unserved"))["type"] == "Warning"
        assert len(environment.seen.commits) == before
        await new_pods_again(environment)
        commit = await environment.commit(0, before)
        ready = {pod["metadata"]["name"] for pod in environment.ready("coreapp")}
        assert commit.holder in ready
        await environment.at_rest()
    assert environment.reason("Redundant") == "SparesReady"


async def of_two_lost_holders_the_lower_shard_gets_the_only_spare(environment: Environment) -> None:
    async with light_traffic(environment):
        before, old = len(environment.seen.commits), {shard: environment.holder(shard) for shard in (0, 1)}
        spare = next(name for name in coreapps(environment) if name not in holders(environment))
        await no_new_pods(environment)
        await environment.kubectl("delete", "pod", *old.values(), "--force", "--grace-period=0")
        commit = await environment.commit(0, before)
        assert commit.holder == spare
        await environment.said(lambda status: is_unserved(status, 1) and is_served(status, 0), "shard 1 alone is Unserved, and it is said")
        assert len(environment.seen.commits) == before + 1
        await new_pods_again(environment)
        await environment.commit(1, before)
        await environment.at_rest()


async def while_paused_failover_goes_on_and_a_resize_is_held(environment: Environment) -> None:
    await environment.annotate(PAUSED, "true")
    await environment.patch(shards=2)
    await environment.until(lambda _: environment.reason("Reconciling") == "Paused", "Paused")
    async with light_traffic(environment):
        before, old = len(environment.seen.commits), environment.holder(0)
        await environment.delete_pod(old)
        commit = await environment.commit(0, before)
        assert (await reported_of(environment, commit))["evidence"] == "PodDeleted"
        await environment.until(lambda _: len(environment.ready("coreapp")) == 2, "the pod is back")
        await environment.until(lambda _: environment.reason("Ready") == "Serving", "Serving")
        assert (environment.replicas(), environment.status()["shards"], (await environment.client_state())["set_shards_calls"]) == (
            2,
            1,
            [],
        )
        await environment.kubectl("annotate", "whatsappcluster", "acme", f"{PAUSED}-")
        await environment.at_rest()
    assert [call["shards"] for call in (await environment.client_state())["set_shards_calls"]] == [2]


async def an_evicted_holder_is_replaced_before_it_is_gone(environment: Environment) -> None:
    async with light_traffic(environment) as traffic:
        before, old = len(environment.seen.commits), environment.holder(0)
        uid = environment.uid(old)
        async with environment.control() as control:  # longer than usual, so that the operator is in time on a busy machine, too
            await control.disturb(environment.namespace, old, linger=LINGER_SECONDS)
        evicted = time.monotonic()
        await evict(environment, old)
        commit = await environment.commit(0, before)
        entry = await reported_of(environment, commit)
        assert (entry["evidence"], entry["from"]) == ("PodDraining", old)
        served = await traffic.next_delivery(0, commit.monotonic)
        await environment.at_rest()
        gone = await environment.until(lambda seen: seen.gone_at(uid), f"{old} is gone")
        assert (gone or 0) > commit.version, "the pod was still there when its shard moved"
        took = f"its shard moved after {commit.monotonic - evicted:.1f} s and was served {served:.1f} s later"
        assert not (await traffic.report()).rejections, f"no message was rejected; {took}"


ACTIONS: dict[str, tuple[tuple[int, int], Action]] = {
    action.__name__: (sizes, action)
    for sizes, action in (
        ((2, 1), slow_answers_and_lost_probes_move_nothing),
        ((2, 1), a_hung_holder_is_replaced_then_ended_and_comes_back_as_a_spare),
        ((1, 1), while_paused_failover_goes_on_and_a_resize_is_held),
        ((1, 2), of_two_spares_one_hangs_and_the_promise_is_kept_again),
        ((2, 1), the_last_spare_goes_then_the_holder),
        ((2, 1), of_two_lost_holders_the_lower_shard_gets_the_only_spare),
        ((2, 1), an_evicted_holder_is_replaced_before_it_is_gone),
    )
}


# --- what acts need -----------------------------------------------------------------------------------------------------


def coreapps(environment: Environment) -> set[str]:
    return {pod["metadata"]["name"] for pod in environment.pods("coreapp")}


def holders(environment: Environment) -> set[str]:
    return set(environment.seen.holders(environment.namespace, "acme").values())


def is_unserved(status: Obj, shard: int) -> Obj:
    """A status that says of this shard that it is not served, in its map and in its sentence; empty if this one does not."""
    states = [entry["state"] for entry in status.get("shardMap") or ()]
    says = states[shard : shard + 1] == ["Unserved"] and f"shard {shard}" in status["message"]
    return status if says and condition_of(status, "Ready", "Unserved") else {}


def is_served(status: Obj, shard: int) -> bool:
    return [entry["state"] for entry in status.get("shardMap") or ()][shard : shard + 1] == ["Serving"]


async def no_new_pods(environment: Environment) -> None:
    """What is gone stays away, in this namespace alone."""
    await environment.kubectl("create", "quota", "no-new-pods", "--hard=pods=0")
    async with asyncio.timeout(LONG):
        # The API server goes by a quota a moment after it was made.
        with suppress(LocalKubeError):
            while await environment.kubectl("run", "one-more", "--image=none", "--dry-run=server", "-o", "name"):
                await asyncio.sleep(0.1)


async def new_pods_again(environment: Environment) -> None:
    await environment.kubectl("delete", "quota", "no-new-pods")


async def evict(environment: Environment, pod: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": environment.namespace}}
    path = f"/api/v1/namespaces/{environment.namespace}/pods/{pod}/eviction"
    await environment.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(body))


# --- the play -----------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def outcomes(harness: Harness, request: pytest.FixtureRequest) -> AsyncIterator[dict[str, asyncio.Task[float]]]:
    """Each selected act, being played on a cluster of its own; the laws are checked at its end."""
    await asyncio.to_thread(harness.ensure_replicas)
    chosen = selected(request, "action")
    room = asyncio.Semaphore(AT_ONCE)

    async def play(sizes: tuple[int, int], action: Action) -> float:
        async with an_environment(harness) as environment:
            async with room:
                await environment.created(shards=sizes[0], spares=sizes[1])
            begun = time.monotonic()
            await action(environment)
            return time.monotonic() - begun

    tasks = {name: asyncio.create_task(play(*how), name=name) for name, how in ACTIONS.items() if name in chosen}
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("action", ACTIONS)
async def test_evidence(outcomes: dict[str, asyncio.Task[float]], action: str) -> None:
    print(f"{action} took {await outcomes[action]:.1f} s")
