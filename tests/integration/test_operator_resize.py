"""Growing, shrinking and changing one's mind, on a real API server."""

from __future__ import annotations

import asyncio
import base64
import json
from itertools import groupby

import pytest

from .stage import SWITCHOVER, Stage, is_ready

pytestmark = pytest.mark.integration


def calls(books: dict[str, object]) -> list[tuple[int, int, int]]:
    made = books["set_shards_calls"]
    assert isinstance(made, list)
    return [(call["from"], call["shards"], call["status"]) for call in made]


async def test_growing_from_one_to_two_to_four_loses_nothing(stage: Stage) -> None:
    await stage.created(shards=1, spares=1)
    async with stage.traffic(rate=25) as traffic:
        for shards in (2, 4):
            await stage.patch(shards=shards)
            await stage.at_rest()
            assert stage.replicas() == shards + 1
            assert sorted(stage.seen.holders(stage.namespace, "acme")) == list(range(shards))
        report = await traffic.finish()
    assert (report.lost, report.doubled, report.ledger.open) == (0, 0, 0)
    books = report.upstream
    assert calls(books) == [(1, 2, 201), (2, 4, 201)]
    # Grow: pods first, with the spares, then Set Shards.
    assert [call["coreapps"] for call in books["set_shards_calls"]] == [3, 5]
    for reason in ("ScalingUp", "SetShardsSent", "SetShardsDone"):
        await stage.event(reason)


async def test_shrinking_from_four_to_one_never_takes_a_holder_away(stage: Stage) -> None:
    await stage.created(shards=4, spares=1)
    async with stage.traffic(rate=25) as traffic:
        await stage.patch(shards=1)
        await stage.at_rest(timeout=45)
        report = await traffic.finish()
    assert (report.lost, report.doubled) == (0, 0)
    assert calls(report.upstream)[-1] == (4, 1, 201)
    versions = stage.seen.versions("StatefulSet", stage.namespace, "acme-coreapp")
    replicas = [pods for pods, _ in groupby(obj["spec"]["replicas"] for obj in versions)]
    assert replicas[replicas.index(5) :] == [5, 2], "Set Shards first, then all pods that are too many at once"
    await asyncio.to_thread(stage.seen.verify)
    assert stage.seen.shrinks == (1,), "it was judged by the client's own number"
    assert stage.seen.holders(stage.namespace, "acme") in ({0: "acme-coreapp-0"}, {0: "acme-coreapp-1"})
    assert len(stage.shard_services()) == 1


async def test_a_growth_taken_back_half_way_calls_nothing_and_packs_low(stage: Stage) -> None:
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
    await stage.kubectl("create", "-f", "-", input=json.dumps(secret))
    account = {"countryCode": "1", "phoneNumber": "6315550000", "secretRef": {"name": "acme-account"}}
    await stage.created(shards=1, spares=1, account=account)
    await stage.kubectl("delete", "secret", "acme-account")
    await stage.patch(shards=4)
    await stage.until(lambda _: len(stage.ready("coreapp")) == 5 and stage.reason("Stalled") == "SecretMissing", "five Coreapps, Stalled")
    before = len(stage.seen.commits)
    await stage.annotate(SWITCHOVER, "0=acme-coreapp-4")
    assert (await stage.commit(0, before)).holder == "acme-coreapp-4"

    await stage.patch(shards=1)
    await stage.kubectl("create", "-f", "-", input=json.dumps(secret))
    await stage.at_rest()
    await asyncio.to_thread(stage.seen.verify)
    assert stage.seen.shrinks == (1,), "it was judged by the client's own number"
    assert calls(await stage.books()) == []
    assert stage.seen.commits[-1].holder in {"acme-coreapp-0", "acme-coreapp-1"}
    packed = stage.status()["recentHandovers"][0]
    assert (packed["kind"], packed["evidence"], packed["from"]) == ("Switchover", "Consolidated", "acme-coreapp-4")


async def test_a_growth_taken_back_when_the_call_was_made_comes_back_all_the_same(stage: Stage) -> None:
    await stage.created(shards=2, spares=1)
    await stage.patch(shards=4)
    await stage.said(lambda status: "operation" in status, "the noted call")
    await stage.patch(shards=2)
    await stage.at_rest()
    made = calls(await stage.books())
    assert made[0] == (1, 2, 201)
    assert made[1:] in ([(2, 4, 201), (4, 2, 201)], []), made
    assert stage.replicas() == 3


async def test_paused_holds_changes_but_not_failovers(stage: Stage) -> None:
    await stage.created(shards=2, spares=1)
    await stage.patch(shards=4, paused=True)
    await stage.until(lambda _: stage.reason("Reconciling") == "Paused", "Paused")
    assert stage.replicas() == 3
    before, old = len(stage.seen.commits), stage.holder(0)
    # Which of the first pods is the spare depends on which of them were ready first.
    (spare,) = {f"acme-coreapp-{ordinal}" for ordinal in range(3)} - {old, stage.holder(1)}
    await stage.delete_pod(old)
    assert (await stage.commit(0, before)).holder == spare
    await stage.until(lambda _: len([pod for pod in stage.pods("coreapp") if is_ready(pod)]) == 3, "the pod is back")
    await stage.until(lambda _: stage.words()["Ready"] == "True" and stage.reason("Reconciling") == "Paused", "served, still paused")
    assert stage.replicas() == 3
    assert len((await stage.books())["set_shards_calls"]) == 1
    await stage.patch(paused=False)
    await stage.at_rest()
    assert stage.status()["shards"] == 4


async def test_a_cluster_without_spares_says_so_and_comes_back_by_itself(stage: Stage) -> None:
    await stage.created(shards=2, spares=0)
    assert stage.reason("Redundant") == "NoSparesRequested"
    assert stage.replicas() == 2
    async with stage.traffic(rate=50) as traffic:
        # A killed container resumes what it was told; a deleted pod's successor is given the shard anew.
        await stage.kill(stage.holder(0))
        await stage.until(lambda _: stage.status()["failuresTolerated"] == 0 and stage.is_at_rest(), "at rest")
        before, name = len(stage.seen.commits), stage.holder(1)
        old = stage.uid(name)
        await stage.delete_pod(name)
        commit = await stage.commit(1, before)
        assert (commit.holder, commit.holder_uid == old) == (name, False)
        await stage.at_rest()
        report = await traffic.finish()
    assert (report.lost, report.doubled) == (0, 0)


async def test_spares_follow_without_a_call(stage: Stage) -> None:
    await stage.created(shards=1, spares=0)
    for spares in (2, 1):
        await stage.patch(spares=spares)
        await stage.at_rest()
        assert (stage.replicas(), stage.status()["failuresTolerated"]) == (1 + spares, spares)
    assert calls(await stage.books()) == []
    # The holder that stays is not moved for that.
    assert len(stage.seen.commits) == 1


async def test_a_busy_server_is_asked_again(stage: Stage) -> None:
    await stage.created(shards=1, spares=1)
    await stage.fault(call="set_shards", fault="busy", count=1)
    with pytest.raises(AssertionError, match="never happened"):
        await stage.fault()  # as a test would that ends too early
    await stage.patch(shards=2)
    await stage.event("ServerBusy")
    await asyncio.sleep(0)
    await stage.at_rest()
    assert [status for *_, status in calls(await stage.books())] == [403, 201]
