"""Growing, shrinking and changing one's mind, on a real API server."""

from __future__ import annotations

import asyncio
import base64
import json
from itertools import groupby

import pytest

from outside.laws import is_ready

from .environment import SWITCHOVER, Environment

pytestmark = pytest.mark.integration


def calls(client_state: dict[str, object]) -> list[tuple[int, int, int]]:
    made = client_state["set_shards_calls"]
    assert isinstance(made, list)
    return [(call["from"], call["shards"], call["status"]) for call in made]


async def test_growing_from_one_to_two_to_four_loses_nothing(environment: Environment) -> None:
    await environment.created(shards=1, spares=1)
    async with environment.traffic(rate=25) as traffic:
        for shards in (2, 4):
            await environment.patch(shards=shards)
            await environment.at_rest()
            assert environment.replicas() == shards + 1
            assert sorted(environment.seen.holders(environment.namespace, "acme")) == list(range(shards))
        report = await traffic.finish()
    assert (report.lost, report.doubled, report.ledger.open) == (0, 0, 0)
    client_state = report.upstream
    assert calls(client_state) == [(1, 2, 201), (2, 4, 201)]
    # Grow: pods first, with the spares, then Set Shards.
    assert [call["coreapps"] for call in client_state["set_shards_calls"]] == [3, 5]
    for reason in ("ScalingUp", "SetShardsSent", "SetShardsDone"):
        await environment.event(reason)


async def test_shrinking_from_four_to_one_never_takes_a_holder_away(environment: Environment) -> None:
    await environment.created(shards=4, spares=1)
    async with environment.traffic(rate=25) as traffic:
        await environment.patch(shards=1)
        await environment.at_rest()
        report = await traffic.finish()
    assert (report.lost, report.doubled) == (0, 0)
    assert calls(report.upstream)[-1] == (4, 1, 201)
    versions = environment.seen.versions("StatefulSet", environment.namespace, "acme-coreapp")
    replicas = [pods for pods, _ in groupby(obj["spec"]["replicas"] for obj in versions)]
    assert replicas[replicas.index(5) :] == [5, 2], "Set Shards first, then all pods that are too many at once"
    await asyncio.to_thread(environment.seen.verify)
    assert environment.seen.shrinks == (1,), "it was judged by the client's own number"
    assert environment.seen.holders(environment.namespace, "acme") in ({0: "acme-coreapp-0"}, {0: "acme-coreapp-1"})
    assert len(environment.shard_services()) == 1


async def test_a_growth_taken_back_half_way_calls_nothing_and_packs_low(environment: Environment) -> None:
    """Pods are up, Set Shards is held by a missing Secret, a holder sits high: back means to move it low, then to scale down."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "acme-account"},
        "data": {
            "certificate": base64.b64encode(base64.b64encode(b"any certificate")).decode(),
            "expiresAt": base64.b64encode(b"2036-01-01T00:00:00Z").decode(),
        },
    }
    await environment.kubectl("create", "-f", "-", input=json.dumps(secret))
    account = environment.account(secretRef={"name": "acme-account"})
    await environment.created(shards=1, spares=1, account=account)
    await environment.kubectl("delete", "secret", "acme-account")
    await environment.patch(shards=4)
    await environment.until(
        lambda _: len(environment.ready("coreapp")) == 5 and environment.reason("Stalled") == "SecretMissing", "five Coreapps, Stalled"
    )
    before = len(environment.seen.commits)
    await environment.annotate(SWITCHOVER, "0=acme-coreapp-4")
    assert (await environment.commit(0, before)).holder == "acme-coreapp-4"

    await environment.patch(shards=1)
    await environment.kubectl("create", "-f", "-", input=json.dumps(secret))
    await environment.at_rest()
    await asyncio.to_thread(environment.seen.verify)
    assert environment.seen.shrinks == (1,), "it was judged by the client's own number"
    assert calls(await environment.client_state()) == []
    assert environment.seen.commits[-1].holder in {"acme-coreapp-0", "acme-coreapp-1"}
    packed = environment.status()["recentHandovers"][0]
    assert (packed["kind"], packed["evidence"], packed["from"]) == ("Switchover", "Consolidated", "acme-coreapp-4")


async def test_a_growth_taken_back_when_the_call_was_made_comes_back_all_the_same(environment: Environment) -> None:
    await environment.created(shards=2, spares=1)
    await environment.patch(shards=4)
    await environment.said(lambda status: "operation" in status, "the noted call")
    await environment.patch(shards=2)
    await environment.at_rest()
    made = calls(await environment.client_state())
    assert made[0] == (1, 2, 201)
    assert made[1:] in ([(2, 4, 201), (4, 2, 201)], []), made
    assert environment.replicas() == 3


async def test_paused_holds_changes_but_not_failovers(environment: Environment) -> None:
    await environment.created(shards=2, spares=1)
    await environment.patch(shards=4, paused=True)
    await environment.until(lambda _: environment.reason("Reconciling") == "Paused", "Paused")
    assert environment.replicas() == 3
    before, old = len(environment.seen.commits), environment.holder(0)
    # Which of the first pods is the spare depends on which of them were ready first.
    (spare,) = {f"acme-coreapp-{ordinal}" for ordinal in range(3)} - {old, environment.holder(1)}
    await environment.delete_pod(old)
    assert (await environment.commit(0, before)).holder == spare
    await environment.until(lambda _: len([pod for pod in environment.pods("coreapp") if is_ready(pod)]) == 3, "the pod is back")
    await environment.until(
        lambda _: environment.words()["Ready"] == "True" and environment.reason("Reconciling") == "Paused", "served, still paused"
    )
    assert environment.replicas() == 3
    assert len((await environment.client_state())["set_shards_calls"]) == 1
    await environment.patch(paused=False)
    await environment.at_rest()
    assert environment.status()["shards"] == 4


async def test_a_cluster_without_spares_says_so_and_comes_back_by_itself(environment: Environment) -> None:
    await environment.created(shards=2, spares=0)
    assert environment.reason("Redundant") == "NoSparesRequested"
    assert environment.replicas() == 2
    async with environment.traffic(rate=50) as traffic:
        # A killed container resumes its assignment; a deleted pod's successor is assigned the shard again.
        await environment.kill(environment.holder(0))
        await environment.until(lambda _: environment.status()["failuresTolerated"] == 0 and environment.is_at_rest(), "at rest")
        before, name = len(environment.seen.commits), environment.holder(1)
        old = environment.uid(name)
        await environment.delete_pod(name)
        commit = await environment.commit(1, before)
        assert (commit.holder, commit.holder_uid == old) == (name, False)
        await environment.at_rest()
        report = await traffic.finish()
    assert (report.lost, report.doubled) == (0, 0)


async def test_spares_follow_without_a_call(environment: Environment) -> None:
    await environment.created(shards=1, spares=0)
    for spares in (2, 1):
        await environment.patch(spares=spares)
        await environment.at_rest()
        assert (environment.replicas(), environment.status()["failuresTolerated"]) == (1 + spares, spares)
    assert calls(await environment.client_state()) == []
    # The holder that stays is not moved for that.
    assert len(environment.seen.commits) == 1


async def test_a_busy_server_is_asked_again(environment: Environment) -> None:
    await environment.created(shards=1, spares=1)
    await environment.fault(call="set_shards", fault="busy", count=1)
    with pytest.raises(AssertionError, match="never happened"):
        await environment.fault()  # as a test would that ends too early
    await environment.patch(shards=2)
    await environment.event("ServerBusy")
    await asyncio.sleep(0)
    await environment.at_rest()
    assert [status for *_, status in calls(await environment.client_state())] == [403, 201]
