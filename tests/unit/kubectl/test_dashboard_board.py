"""What the dashboard shows when clusters change, when something cannot be read, and while the API server is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kubectl_whatsapp.dashboard import board, lists
from kubectl_whatsapp.dashboard.board import Scope
from kubectl_whatsapp.dashboard.server import Server

from .clusters import DATE, a_cluster, condition
from .dashboards import LONG, Page, a_dashboard, a_page, sentence
from .watched import WatchedApi, changed, fail_over, renamed, watched

Obj = dict[str, Any]
WELL = "All 2 shards are served"


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "PAUSE", 0.05)
    monkeypatch.setattr(lists, "REJECTED", 0.1)
    monkeypatch.setattr(board, "GRACE", 0.5)


@pytest.fixture
async def api() -> AsyncIterator[WatchedApi]:
    with watched(renamed(a_cluster(), "shop", "acme"), renamed(a_cluster(4, 2), "den", "big")) as one:
        yield one


@pytest.fixture
async def server(api: WatchedApi) -> AsyncIterator[Server]:
    async with a_dashboard(api.url) as one:
        yield one


@pytest.fixture
async def page(server: Server) -> AsyncIterator[Page]:
    """A page on shop/acme, which is well."""
    async with a_page(server, namespace="shop", cluster="acme") as one:
        await one.until("cluster", lambda found: sentence(found).startswith(WELL))
        yield one


def holder(found: Obj, shard: int = 0) -> str:
    return str(found.get("status", {}).get("shards", [{}] * 9)[shard].get("holder"))


async def test_a_shard_that_moves_is_shown_at_once(api: WatchedApi, page: Page) -> None:
    fail_over(api)
    # Each list has a watch of its own: the Service may be seen before the pod, or after it.
    found = await page.until("cluster", lambda one: holder(one) == "acme-coreapp-2" and one["status"]["shards"][0].get("served"))
    assert found["status"]["shards"][0]["epoch"] == "20-second"
    # Nothing was read again for it: the watches have brought it. What is polled, the operator's pods, does not count.
    lists_read = [query for plural in ("pods", "services") for query in api.asked_for(plural, watch=False)]
    assert len([query for query in lists_read if "component=operator" not in query.get("labelSelector", "")]) == 2


async def test_the_verdict_and_why_are_those_of_the_commands(api: WatchedApi, page: Page) -> None:
    changed(api, "pods", "acme-coreapp-1", lambda pod: pod["status"].update(conditions=[condition("Ready", "False", "X")]))
    found = await page.until("cluster", lambda one: "1 of 2 shards is not served" in sentence(one))
    assert found["why"]["rule"] == "FailingOver"
    assert found["why"]["reported"].startswith("Serving: ")


async def test_the_operators_words_are_shown_as_they_change(api: WatchedApi, page: Page) -> None:
    operation = {"id": "1", "from": 2, "to": 4, "answer": "Accepted", "attempts": 1, "startedAt": "2027-01-04T11:59:50Z"}

    def resize(cluster: Obj) -> None:
        cluster["spec"]["shards"] = 4
        cluster["status"] |= {"operation": {**operation, "deadline": "2027-01-04T12:02:00Z"}}
        cluster["status"]["conditions"] = [condition("Reconciling", "True", "Restarting")]

    changed(api, "whatsappclusters", "acme", resize)
    found = await page.until("cluster", lambda one: one.get("status", {}).get("operation"))
    shown = found["status"]["operation"]
    assert (shown["step"], shown["shardsBefore"], shown["shardsAfter"]) == ("Restarting", 2, 4)
    assert shown["deadline"] == "2027-01-04T12:02:00Z"
    assert shown["comesNext"]


async def test_clusters_come_and_go(api: WatchedApi, page: Page) -> None:
    new = renamed(a_cluster(), "new", "one")
    api.put("whatsappclusters", new["cluster"])
    await page.until("clusters", lambda one: [entry["name"] for entry in one["clusters"]] == ["big", "one", "acme"])
    api.remove("whatsappclusters", "shop", "acme")
    found = await page.until("cluster", lambda one: one.get("problem"))
    assert found["problem"] == "There is no WhatsAppCluster acme in namespace shop."


async def test_a_cluster_that_cannot_be_judged_does_not_take_the_others_away(api: WatchedApi, page: Page) -> None:
    def spoil(cluster: Obj) -> None:
        cluster["status"]["recentHandovers"] = "nonsense"

    changed(api, "whatsappclusters", "big", spoil, namespace="den")
    found = await page.until("clusters", lambda one: any(entry["level"] == "unknown" for entry in one["clusters"]))
    first, second = found["clusters"]
    assert first["sentence"].startswith("This cluster cannot be judged (AttributeError")
    assert second["sentence"].startswith(WELL)


@pytest.mark.slow
async def test_while_the_api_server_is_away_what_was_seen_stays_with_its_age(api: WatchedApi, page: Page) -> None:
    api.go_away()
    lost = await page.until("connection", lambda one: not one["isReachable"])
    assert "cannot be reached" in lost["trouble"]
    later = await page.until("connection", lambda one: one["ageSeconds"] > lost["ageSeconds"] + 1)
    assert not later["isReachable"]
    api.come_back()
    back = await page.until("connection", lambda one: one["isReachable"] and one["ageSeconds"] < 1)
    assert back["trouble"] == ""
    # The absence alone has changed no verdict: it says nothing about the shards.
    assert len({sentence(found) for name, found in page.events if name == "cluster"}) == 1
    fail_over(api)
    await page.until("cluster", lambda one: holder(one) == "acme-coreapp-2")


async def test_after_an_absence_in_which_everything_was_compacted_it_goes_on(api: WatchedApi, page: Page) -> None:
    api.go_away()
    await page.until("connection", lambda one: not one["isReachable"])
    fail_over(api)
    api.compact()
    api.come_back()
    await page.until("cluster", lambda one: holder(one) == "acme-coreapp-2" and one["status"]["unread"] == {})


async def test_what_may_not_be_read_is_named_next_to_the_rest(api: WatchedApi) -> None:
    api.fault = lambda path, _: 403 if path.endswith(("/pods", "/nodes", "/deployments")) else None
    async with a_dashboard(api.url) as server, a_page(server, namespace="shop", cluster="acme") as page:
        unread = {
            "its Deployments": "error 403",
            "its pods": "error 403",
            "nodes": "error 403",
            "the operator's pods in whatsapp-operator-system": "error 403",
        }
        found = await page.until("cluster", lambda one: one.get("status", {}).get("unread") == unread)
        assert found["status"]["shards"][0]["holder"] == "acme-coreapp-0"
        assert "served" not in found["status"]["shards"][0]
        assert found["why"]["problem"].startswith("The rules need all pods")
        # A rejection is an answer: the API server is there.
        assert (await page.until("connection", lambda one: one["ageSeconds"] is not None))["isReachable"]


async def test_a_right_that_is_withdrawn_is_said_after_a_moment(api: WatchedApi, page: Page) -> None:
    api.fault = lambda path, _: 403 if path.endswith("/pods") else None
    api.emit_error("pods", 403)
    found = await page.until("cluster", lambda one: one["status"]["unread"].get("its pods"))
    assert found["status"]["unread"]["its pods"] == "error 403"
    assert "not known" in sentence(found)


async def test_where_clusters_may_not_be_listed_the_page_says_so(api: WatchedApi) -> None:
    api.fault = lambda path, _: 403 if path.endswith("/whatsappclusters") else None
    async with a_dashboard(api.url) as server, a_page(server) as page:
        found = await page.until("clusters", lambda one: one["problem"] and "not read yet" not in one["problem"])
        assert found == {"clusters": [], "problem": "WhatsAppClusters could not be read (error 403)."}


@pytest.mark.parametrize(
    ("scope", "problem"),
    [
        (Scope(namespace="shop", name="none"), "There is no WhatsAppCluster none in namespace shop."),
        (Scope(namespace="empty"), "There is no WhatsAppCluster in namespace empty."),
        (Scope(namespace="", name="none"), "There is no WhatsAppCluster none in any namespace."),
    ],
)
async def test_where_there_is_no_cluster_the_page_says_so(api: WatchedApi, scope: Scope, problem: str) -> None:
    async with a_dashboard(api.url, scope=scope) as server, a_page(server) as page:
        assert (await page.until("clusters", lambda one: one["problem"] and "not read" not in one["problem"]))["problem"] == problem


async def test_a_scope_of_one_cluster_asks_for_that_one_alone(api: WatchedApi) -> None:
    async with a_dashboard(api.url, scope=Scope(namespace="shop", name="acme")) as server, a_page(server) as page:
        await page.until("cluster", sentence)
        listed = next(data["clusters"] for name, data in reversed(page.events) if name == "clusters")
        assert [one["name"] for one in listed] == ["acme"]
        async with asyncio.timeout(LONG):  # a list is shown before it is watched
            while not api.asked_for("services", watch=True):
                await asyncio.sleep(0.01)
    watched_paths = {path for path, query in api.asked if "watch" in query}
    assert all("/namespaces/shop/" in path for path in watched_paths)
    assert api.asked_for("whatsappclusters", watch=False) == [{"fieldSelector": "metadata.name=acme"}]
    assert {query.get("labelSelector") for query in api.asked_for("services", watch=True)} == {"multiconnect.dev/cluster=acme"}


async def test_times_are_those_of_the_api_server(api: WatchedApi, page: Page) -> None:
    found = next(data for name, data in reversed(page.events) if name == "cluster")
    assert found["status"]["at"].startswith("2027-01-04T12:00:")
    assert DATE.endswith("12:00:00 GMT")


@pytest.mark.slow
async def test_many_clusters_are_judged_without_reading_more(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [renamed(a_cluster(), namespace, f"c{number:03}") for namespace in ("one", "two") for number in range(100)]
    with watched(*given) as api:
        async with a_dashboard(api.url) as server, a_page(server) as page:
            # The first lists may be shown before the last ones are read.
            await page.until("clusters", lambda one: [entry["level"] for entry in one["clusters"]] == ["ok"] * 200)
            assert (
                len([query for path, query in api.asked if "watch" not in query and path.endswith("/pods") and "operator" not in path]) == 1
            )
            changed(api, "pods", "c007-coreapp-1", lambda pod: pod["status"].update(conditions=[]), namespace="two")
            found = await page.until("clusters", lambda one: any(entry["level"] == "critical" for entry in one["clusters"]))
            assert [(one["namespace"], one["name"]) for one in found["clusters"] if one["level"] != "ok"] == [("two", "c007")]


def test_what_is_watched_and_polled_is_what_why_needs() -> None:
    from kubectl_whatsapp.reading import RULES

    assert {*board.WATCHED, *board.POLLED} == set(RULES)
    assert set(board.Scope(namespace="").sources()) == set(board.WATCHED)
