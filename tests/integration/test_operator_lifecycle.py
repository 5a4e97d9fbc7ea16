"""From a CR to a working cluster and back to nothing, on a real API server."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from .environment import KINDS, LONG, Environment, Harness, an_environment, assigned, now

pytestmark = pytest.mark.integration

QUIET_SECONDS = 60.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def steady(harness: Harness) -> AsyncIterator[tuple[Environment, float, str]]:
    """A cluster that nobody touches while the other tests of this file play, since when it is at rest, and the same as a timestamp."""
    harness.ensure_replicas()
    async with an_environment(harness) as environment:
        await environment.created()
        for reason in ("Serving", "SetShardsDone"):  # Events are emitted after the report
            await environment.event(reason)
        yield environment, time.monotonic(), now()


async def test_a_cluster_of_nine_lines_becomes_ready(environment: Environment, steady: object) -> None:
    before = await environment.everything()
    await environment.create(shards=2, spares=1)
    await environment.at_rest()

    status = environment.status()
    assert status["display"] == {"shards": "2", "coreapps": "3/3", "webapps": "2/2"}
    assert (status["shards"], status["settledShards"], status["failuresTolerated"]) == (2, 2, 1)
    assert status["coreapp"] == {"desired": 3, "ready": 3, "active": 2, "standby": 1}
    assert [entry["state"] for entry in status["shardMap"]] == ["Serving", "Serving"]
    assert status["reason"] == "Serving"
    holders = environment.seen.holders(environment.namespace, "acme")
    assert (sorted(holders), len(set(holders.values()))) == ([0, 1], 2)  # whichever Coreapps were ready first

    made = await environment.everything() - before
    assert made >= {
        "whatsappcluster.multiconnect.dev/acme",
        "statefulset.apps/acme-coreapp",
        "statefulset.apps/acme-simulator",
        "deployment.apps/acme-webapp",
        "service/acme-coreapp",
        "service/acme-webapp",
        "service/acme-shard-0",
        "service/acme-shard-1",
        "poddisruptionbudget.policy/acme-coreapp",
        "networkpolicy.networking.k8s.io/acme-coreapp",
        "secret/acme-admin",
    }
    columns = (await environment.kubectl("get", "wac", "acme", "--no-headers")).split()
    assert columns[:7] == ["acme", "True", "Serving", "2", "3/3", "2/2", "1"]
    await environment.event("Serving", contains="All 2 shards are served")
    calls = (await environment.client_state())["set_shards_calls"]
    assert [(call["from"], call["shards"], call["status"]) for call in calls] == [(1, 2, 201)]


async def test_kubectl_shows_events_in_the_order_of_time(steady: tuple[Environment, float, str]) -> None:
    environment, _, _ = steady
    last = {(event["reason"], event["message"]): event["lastTimestamp"] for event in await environment.events()}
    lines = (await environment.kubectl("describe", "wac", "acme")).partition("Events:")[2].splitlines()[3:]
    shown = [re.split(" {2,}", line.strip(), maxsplit=4) for line in lines]
    times = [last[reason, message] for _, reason, _, _, message in shown]
    assert times == sorted(times)
    assert len(shown) > 5
    assert {source for _, _, _, source, _ in shown} == {"whatsapp-operator"}


async def test_messages_go_out_and_come_in(environment: Environment, steady: object) -> None:
    await environment.created(shards=2, spares=0)
    async with environment.traffic(rate=100, count=100, inbound_rate=20) as traffic:
        await environment.until(lambda _: len(traffic.messages) == 100, "100 messages")
        report = await traffic.finish()
    assert (report.ledger.sent, report.ledger.delivered, report.lost, report.doubled) == (100, 100, 0, 0)
    assert report.ledger.inbound_injected == report.ledger.inbound_arrived > 0
    assert all(report.delivered.values())


async def test_the_number_of_webapps_follows(environment: Environment, steady: object) -> None:
    await environment.created(shards=1, spares=0, webapp={"replicas": 1})
    await environment.patch(webapp={"replicas": 3})
    await environment.at_rest()
    assert (len(environment.ready("webapp")), environment.status()["webapp"]) == (3, {"desired": 3, "ready": 3})
    await environment.patch(webapp={"replicas": 2})
    await environment.at_rest()
    assert environment.status()["display"]["webapps"] == "2/2"
    assert len((await environment.client_state())["set_shards_calls"]) == 0


async def test_a_change_of_the_webapps_is_reported_until_the_last_is_new(environment: Environment, steady: object) -> None:
    await environment.created(shards=1, spares=0)
    before = {pod["metadata"]["uid"] for pod in environment.pods("webapp")}
    moved = len(environment.seen.commits)
    await environment.patch(webapp={"pod": {"annotations": {"example.com/note": "new"}}})
    await environment.event("ReplacingPods", contains="Webapps are ready while they are replaced")
    await environment.at_rest()
    after = [pod["metadata"] for pod in environment.ready("webapp")]
    assert len(after) == 2
    assert not before & {meta["uid"] for meta in after}
    assert {meta["annotations"]["example.com/note"] for meta in after} == {"new"}
    assert len(environment.seen.commits) == moved, "a change of the Webapps moves no shard"


ADDRESS = frozenset({"clusterIP", "clusterIPs"})
"""Fields of a Service that the API server draws again when its type was another one."""


async def spec_of(environment: Environment, service: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await environment.kubectl("get", "service", service, "--output", "json"))["spec"]
    return found


async def test_an_edited_service_is_put_right_and_nothing_moves(environment: Environment, steady: object) -> None:
    await environment.created(shards=1, spares=0)
    moved = len(environment.seen.commits)
    ports = [{"name": "messaging", "port": 1, "targetPort": 1, "protocol": "TCP"}]
    elsewhere = {"type": "ExternalName", "externalName": "example.com"}
    edits: tuple[tuple[str, dict[str, Any], frozenset[str]], ...] = (
        ("acme-shard-0", {"selector": {"team": "a"}, "ports": ports, "publishNotReadyAddresses": False}, frozenset()),
        ("acme-shard-0", {"internalTrafficPolicy": "Local"}, frozenset()),
        ("acme-shard-0", {"type": "NodePort"}, frozenset()),
        ("acme-shard-0", {"type": "LoadBalancer"}, frozenset()),
        ("acme-shard-0", elsewhere, ADDRESS),
        ("acme-coreapp", elsewhere, frozenset()),
        ("acme-webapp", elsewhere, ADDRESS),
        ("acme-simulator", elsewhere, ADDRESS),
    )
    for service, edit, new in edits:
        before = await spec_of(environment, service)
        await environment.kubectl("patch", "service", service, "--type", "merge", "--patch", json.dumps({"spec": edit}))
        deadline = time.monotonic() + LONG
        after = edit
        while any(after.get(key) == value for key, value in edit.items()):
            after = await spec_of(environment, service)
            assert time.monotonic() < deadline, f"{service} is still so: {after}; {environment.seen.summary()}"
            await asyncio.sleep(0.1)
        assert {**after, **dict.fromkeys(new)} == {**before, **dict.fromkeys(new)}, f"{service} after {edit}"
    await environment.at_rest()
    assert len(environment.seen.commits) == moved


async def test_a_missing_secret_stalls_the_cluster_until_it_is_there(environment: Environment, steady: object) -> None:
    account = environment.account(secretRef={"name": "acme-account"})
    await environment.create(shards=2, spares=0, account=account)
    await environment.word("Stalled", "SecretMissing")
    assert "acme-account" in environment.status()["message"]
    await environment.event("SecretMissing")
    assert not (await environment.kubectl("get", "secret", "acme-account", "--ignore-not-found"))

    from wabiz_sim.certificate import make

    certificate = make("Acme Inc", 4711, datetime(2026, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC))
    data = {"certificate": certificate, "expiresAt": "2036-01-01T00:00:00Z"}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "acme-account"}, "data": encoded}
    await environment.kubectl("create", "-f", "-", input=json.dumps(secret))
    await environment.at_rest()
    assert environment.reason("Stalled") == "UpToDate"
    assert (await environment.client_state())["set_shards_calls"][-1]["certificate"]


async def test_of_two_clusters_with_one_number_the_second_sends_no_set_shards(environment: Environment, steady: object) -> None:
    account = environment.account(registeredAt=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
    await environment.created(shards=1, spares=1, account=account)
    await environment.create("second", shards=2, spares=1, account=account)
    said = await environment.word("Stalled", "NumberInUse", "second")
    assert f"WhatsAppCluster {environment.namespace}/acme has the same phone number" in said

    served = "its one shard is served, and its Coreapps run"
    await environment.until(
        lambda seen: seen.holders(environment.namespace, "second") and len(environment.ready("coreapp", "second")) == 3, served
    )
    before, old = len(environment.seen.commits), environment.holder(0, "second")
    uid = environment.uid(old)
    await environment.delete_pod(old)
    assert (await environment.commit(0, before, "second")).holder_uid != uid, "its failover goes on"
    await environment.patch(shards=2)
    await environment.at_rest()
    assert environment.reason("Stalled", "second") == "NumberInUse"
    assert environment.status("second")["shards"] == 1, "it sent nothing"

    await environment.kubectl("delete", "wac", "acme")
    await environment.at_rest("second")
    assert environment.status("second")["shards"] == 2


async def test_deletion_leaves_nothing_behind(environment: Environment, steady: object) -> None:
    before = await environment.everything()
    await environment.created(shards=2, spares=1)
    await environment.kubectl("delete", "wac", "acme")
    left: set[str] = set()
    async with asyncio.timeout(LONG):
        while left := await environment.everything() - before:
            await asyncio.sleep(0.2)
    assert not left
    async with environment.control() as control:
        pods = (await control.state())["pods"]
    mine = [pod for pod in pods if pod["namespace"] == environment.namespace and not pod["leaving"]]
    assert not mine, "hollow nodes still run pods that are gone"


async def test_a_cluster_deleted_and_made_again_under_the_same_name(environment: Environment, steady: object) -> None:
    await environment.created(shards=2, spares=1)
    first = environment.cluster()["metadata"]["uid"]
    epochs = {commit.shard: commit.n for commit in environment.seen.commits}
    await environment.kubectl("delete", "wac", "acme")
    await environment.create(shards=2, spares=1)
    await environment.until(lambda _: environment.cluster().get("metadata", {}).get("uid") not in {None, first}, "the new cluster")
    await environment.at_rest()
    uid = environment.cluster()["metadata"]["uid"]
    for service in environment.shard_services():
        assert [owner["uid"] for owner in service["metadata"]["ownerReferences"]] == [uid]
    again = {commit.shard: commit.n for commit in environment.seen.commits}
    assert all(again[shard] > n for shard, n in epochs.items()), "epochs must grow over the deletion"
    async with environment.traffic(rate=50, count=20) as traffic:
        await environment.until(lambda _: len(traffic.messages) == 20, "20 messages")
        assert (await traffic.finish()).lost == 0


async def test_no_pod_starts_with_the_password_of_another_cluster(environment: Environment, steady: object) -> None:
    """As that of a cluster just deleted under the same name, which goes after what else it had: a pod would keep what is true no longer."""
    former = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "acme-admin"}, "stringData": {"password": "former"}}
    await environment.kubectl("create", "-f", "-", input=json.dumps(former))
    await environment.create(shards=1, spares=0, webapp={"replicas": 1})
    await environment.until(lambda _: environment.reason("Stalled") == "NameConflict", "NameConflict")
    assert not await environment.kubectl("get", "pods,statefulsets,deployments", "-o", "name")
    await environment.kubectl("delete", "secret", "acme-admin")
    await environment.at_rest()
    async with environment.traffic(rate=50, count=20) as traffic:
        await environment.until(lambda _: len(traffic.messages) == 20, "20 messages")
        assert (await traffic.finish()).lost == 0


async def test_two_clusters_of_one_name_in_two_namespaces_do_not_touch_each_other(
    harness: Harness, environment: Environment, steady: object
) -> None:
    async with an_environment(harness) as other:
        await asyncio.gather(environment.created(shards=1, spares=1), other.created(shards=2, spares=1))
        commits, since = len(other.seen.commits), now()
        await environment.delete_pod(environment.holder(0))
        await environment.commit(0, 1)
        await environment.at_rest()
        await environment.patch(shards=2)
        await environment.at_rest()
        assert len(other.seen.commits) == commits
        assert other.is_at_rest()
        assert not harness.writes(since=since, namespace=other.namespace)
        await environment.kubectl("delete", "wac", "acme")
        await environment.until(lambda _: not environment.pods("coreapp"), "the pods are gone")
        assert other.is_at_rest()
        assert not harness.writes(since=since, namespace=other.namespace)


async def test_a_steady_cluster_is_silent(harness: Harness, steady: tuple[Environment, float, str]) -> None:
    """All the time that the tests above took, at least 60 s: no write of the operator there, none without a namespace either."""
    environment, since, timestamp = steady
    left = QUIET_SECONDS - (time.monotonic() - since)
    version = environment.cluster()["metadata"]["resourceVersion"]
    if left > 0:
        await asyncio.sleep(left)  # what is waited for is that nothing happens
    writes = [write for write in harness.writes(since=timestamp) if write.namespace in {environment.namespace, ""}]
    assert not writes, assigned(writes)
    events = [w for w in harness.plane.writes() if (w.namespace, w.resource) == (environment.namespace, "events") and w.at >= timestamp]
    assert not events, assigned(events)
    assert environment.is_at_rest()
    assert environment.cluster()["metadata"]["resourceVersion"] == version


def test_the_list_of_kinds_is_what_the_operator_makes() -> None:
    """``everything`` must not overlook a kind that the operator is allowed to create."""
    from localkube.plane.operators import manifests

    rules = next(obj["rules"] for obj in manifests() if obj["kind"] == "ClusterRole")
    creatable = {resource for rule in rules if "create" in rule["verbs"] for resource in rule["resources"]}
    assert creatable - {"events"} <= set(re.split(",", KINDS))
