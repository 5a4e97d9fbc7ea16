"""Changed pods, images and Services with the real StatefulSet controller and scheduler; nothing is rejected meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from outside.laws import is_ready

from .environment import Environment, Obj, light_traffic

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

LONG = 90.0
"""Three Coreapps, one after the other, each with its time for routes to settle."""


def uids(environment: Environment) -> set[str]:
    return {pod["metadata"]["uid"] for pod in environment.pods("coreapp")}


def word(environment: Environment, kind: str) -> tuple[str, str, str]:
    found: Obj = next((one for one in environment.status().get("conditions") or () if one["type"] == kind), {})
    return found.get("status", ""), found.get("reason", ""), found.get("message", "")


def annotated(release: str | None) -> dict[str, Any]:
    return {"pod": {"annotations": {"example.com/release": release}}}


async def test_every_coreapp_gets_the_new_template_and_no_message_is_refused(cluster: Environment) -> None:
    before, commits = uids(cluster), len(cluster.seen.commits)
    fewest = 3
    async with light_traffic(cluster, rate=40) as traffic:
        await cluster.patch(coreapp=annotated("b"))
        await cluster.word("Reconciling", "RollingOut")

        def done(_: object) -> bool:
            nonlocal fewest
            fewest = min(fewest, sum(map(is_ready, cluster.pods("coreapp"))))
            return cluster.is_at_rest()

        await cluster.until(done, "rolled out", LONG)
        assert not (await traffic.report()).rejections, "no message was rejected"
    pods = cluster.pods("coreapp")
    assert {pod["metadata"].get("annotations", {}).get("example.com/release") for pod in pods} == {"b"}
    assert not uids(cluster) & before
    assert fewest == 3, "there were never fewer than promised"
    entries = cluster.status()["recentHandovers"][: len(cluster.seen.commits) - commits]
    assert {entry["evidence"] for entry in entries} <= {"RolledOut", "Consolidated"}
    assert {entry["kind"] for entry in entries} == {"Switchover"}
    assert len(entries) in {2, 3}, "a switchover for each shard, and one home at most"


async def test_kubectls_own_restart_is_rolled_out_in_the_same_way(cluster: Environment) -> None:
    before, commits = uids(cluster), len(cluster.seen.commits)
    async with light_traffic(cluster) as traffic:
        await cluster.kubectl("rollout", "restart", "statefulset", "acme-coreapp")
        await cluster.word("Reconciling", "RollingOut")
        await cluster.until(lambda _: cluster.is_at_rest() and not uids(cluster) & before, "all are new", LONG)
        assert not (await traffic.report()).rejections, "no message was rejected"
    entries = cluster.status()["recentHandovers"][: len(cluster.seen.commits) - commits]
    assert {entry["kind"] for entry in entries} == {"Switchover"}


async def test_a_coreapp_that_finds_no_node_says_why_and_nothing_else_is_touched(cluster: Environment) -> None:
    """In the scheduler's words; a cluster autoscaler goes by the same."""
    before = uids(cluster)
    await cluster.patch(coreapp={"pod": {"resources": {"requests": {"cpu": "1000"}}}})
    try:
        said = "the scheduler's words are passed on"
        await cluster.until(lambda _: "RollingOut" in (now := word(cluster, "Reconciling")) and "Insufficient cpu" in now[2], said)
        assert word(cluster, "Ready")[:2] == ("True", "Serving")
        assert word(cluster, "Redundant")[:2] == ("True", "SparesReady")
        assert before < uids(cluster)
    finally:
        await cluster.patch(coreapp={"pod": {"resources": None}})
    await cluster.at_rest()
    assert uids(cluster) == before, "turned back before anything was touched"


async def test_a_change_that_the_api_server_refuses_is_said(cluster: Environment) -> None:
    before = uids(cluster)
    await cluster.patch(coreapp={"pod": {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}})
    try:
        await cluster.until(lambda _: word(cluster, "Stalled")[1] == "ChangeRejected", "it is said")
        assert "must be less than or equal to memory limit" in word(cluster, "Stalled")[2]
        assert word(cluster, "Ready")[:2] == ("True", "Serving")
    finally:
        await cluster.patch(coreapp={"pod": {"resources": None}})
    await cluster.at_rest()
    assert uids(cluster) == before


async def test_webapps_are_exposed_as_asked_and_it_can_be_taken_back(cluster: Environment) -> None:
    def service() -> Obj:
        return cluster.seen.find("Service", cluster.namespace, "acme-webapp") or {"spec": {}, "metadata": {}}

    await cluster.patch(webapp={"service": {"type": "NodePort", "annotations": {"example.com/lb": "internal"}}})
    await cluster.until(lambda _: service()["spec"].get("type") == "NodePort", "a NodePort")
    assert service()["metadata"]["annotations"]["example.com/lb"] == "internal"
    port = service()["spec"]["ports"][0]["nodePort"]
    await cluster.patch(webapp={"replicas": 3})
    await cluster.at_rest()
    assert service()["spec"]["ports"][0]["nodePort"] == port, "what was given stays"
    await cluster.patch(webapp={"service": None, "replicas": 2})
    await cluster.until(lambda _: service()["spec"].get("type") == "ClusterIP", "a ClusterIP again")
    assert "example.com/lb" not in service()["metadata"]["annotations"]
    await cluster.at_rest()


async def test_a_database_secret_that_is_not_there_is_said(cluster: Environment) -> None:
    await cluster.create("other", shards=1, spares=0, database={"secretRef": {"name": "nowhere"}})

    def stalled(_: object) -> tuple[str, str]:
        found: Obj = next((one for one in cluster.status("other").get("conditions") or () if one["type"] == "Stalled"), {})
        return found.get("reason", ""), found.get("message", "")

    await cluster.until(lambda seen: stalled(seen)[0] == "SecretMissing", "it is said")
    assert stalled(None)[1] == "Secret nowhere, which spec.database.secretRef names, does not exist. Create it."
    await cluster.kubectl("delete", "whatsappcluster", "other", "--wait=false")


async def test_a_deleted_tls_secret_is_made_again_and_reaches_the_webapps(cluster: Environment) -> None:
    """Until then they show a certificate that the operator does not trust any more."""

    def webapps() -> dict[str, Obj]:
        return {pod["metadata"]["uid"]: pod for pod in cluster.pods("webapp") if "deletionTimestamp" not in pod["metadata"]}

    former, coreapps = set(webapps()), uids(cluster)
    await cluster.kubectl("delete", "secret", "acme-webapp-tls")
    await cluster.until(lambda _: not former & webapps().keys() and all(map(is_ready, webapps().values())), "all are new", LONG)
    await cluster.at_rest()
    assert len(webapps()) == len(former)
    assert uids(cluster) == coreapps, "no Coreapp takes anything from it"
