"""A list that is kept current by a watch, whatever happens to the watch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kubectl_whatsapp import access
from kubectl_whatsapp.access import Options
from kubectl_whatsapp.dashboard import lists
from kubectl_whatsapp.dashboard.board import Scope
from kubectl_whatsapp.dashboard.lists import WatchedList

from .clusters import a_cluster, kubeconfig
from .watched import WatchedApi, renamed, watched

LONG = 60.0


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "PAUSE", 0.05)
    monkeypatch.setattr(lists, "REJECTED", 0.1)


@pytest.fixture
def api() -> Iterator[WatchedApi]:
    with watched(renamed(a_cluster(), "shop", "acme"), renamed(a_cluster(), "shop", "other"), renamed(a_cluster(), "den", "acme")) as one:
        yield one


class FollowedList:
    """A watched list, and what it has called out."""

    def __init__(self, api: WatchedApi, scope: Scope, name: str) -> None:
        self.news = threading.Condition()
        self.stopped = threading.Event()
        client = access.access_of(kubeconfig(api.url), Options()).client()
        self.list = WatchedList(client, scope.sources()[name], self.changed, stopped=self.stopped)

    def changed(self) -> None:
        with self.news:
            self.news.notify_all()

    def until(self, holds: Callable[[WatchedList], object]) -> None:
        with self.news:
            assert self.news.wait_for(lambda: holds(self.list), LONG), (self.list.trouble, sorted(self.list.objects or {}))

    def names(self) -> set[tuple[str, str]]:
        return set(self.list.objects or {})


@contextmanager
def following(api: WatchedApi, scope: Scope | None = None, name: str = "pods") -> Iterator[FollowedList]:
    """A list of the pods of shop/acme unless said otherwise, which was read and is watched."""
    one = FollowedList(api, scope or Scope(namespace="shop", name="acme"), name)
    one.list.start()
    try:
        one.until(lambda found: found.objects is not None)
        watching(api, lists_name(one))
        yield one
    finally:
        one.stopped.set()


def lists_name(one: FollowedList) -> str:
    return one.list.source.path.rpartition("/")[2]


def watching(api: WatchedApi, plural: str, times: int = 1) -> None:
    """Wait until so many watches were asked for."""
    ends = time.monotonic() + LONG
    while len(api.asked_for(plural, watch=True)) < times:
        assert time.monotonic() < ends, api.asked
        time.sleep(0.01)


def known(found: WatchedList) -> dict[tuple[str, str], dict[str, Any]]:
    return found.objects or {}


def a_pod(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": name, "labels": {"multiconnect.dev/cluster": "acme", **labels}}}


@pytest.mark.parametrize(
    ("scope", "places"),
    [
        (Scope(namespace="shop", name="acme"), {("shop", "acme")}),
        (Scope(namespace="shop"), {("shop", "acme"), ("shop", "other")}),
        (Scope(namespace=""), {("shop", "acme"), ("shop", "other"), ("den", "acme")}),
    ],
)
@pytest.mark.parametrize("name", ["cluster", "pods", "services", "statefulsets", "deployments"])
def test_what_is_read_is_just_what_is_asked_for(api: WatchedApi, scope: Scope, places: set[tuple[str, str]], name: str) -> None:
    with following(api, scope, name) as one:
        objects = one.list.objects or {}
        found = {(of, obj["metadata"].get("labels", {}).get("multiconnect.dev/cluster", own)) for (of, own), obj in objects.items()}
        assert found == places


def test_a_watch_brings_what_is_added_changed_and_deleted(api: WatchedApi) -> None:
    with following(api) as one:
        api.put("pods", a_pod("new"))
        one.until(lambda found: ("shop", "new") in known(found))
        api.put("pods", a_pod("new", more="yes"))
        one.until(lambda found: "more" in known(found)["shop", "new"]["metadata"]["labels"])
        api.remove("pods", "shop", "new")
        one.until(lambda found: ("shop", "new") not in known(found))
        assert len(api.asked_for("pods", watch=False)) == 1


def test_a_watch_that_ends_goes_on_from_where_it_was(api: WatchedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "WATCH", 1)
    with following(api) as one:
        api.put("pods", a_pod("new"))
        one.until(lambda found: ("shop", "new") in known(found))
        version = api.objects["pods"]["shop", "new"]["metadata"]["resourceVersion"]
        watching(api, "pods", 3)
        assert api.asked_for("pods", watch=True)[-1]["resourceVersion"] == version
        assert not one.list.trouble
        assert len(api.asked_for("pods", watch=False)) == 1


@pytest.mark.parametrize("code", [410, 500])
def test_an_error_in_a_watch_leads_to_a_new_list(api: WatchedApi, code: int) -> None:
    with following(api) as one:
        api.emit_error("pods", code)
        watching(api, "pods", 2)
        api.put("pods", a_pod("new"))
        one.until(lambda found: ("shop", "new") in known(found))
        assert not one.list.trouble
        assert len(api.asked_for("pods", watch=False)) == 2


def test_after_a_long_absence_the_list_is_read_again(api: WatchedApi) -> None:
    """The API server was away, and meanwhile what happened was compacted: 410."""
    with following(api) as one:
        api.go_away()
        one.until(lambda found: "cannot be reached" in found.trouble)
        assert one.names()  # what was last seen stays
        api.put("pods", a_pod("new"))
        api.compact()
        api.come_back()
        one.until(lambda found: ("shop", "new") in known(found) and not found.trouble)
        assert len(api.asked_for("pods", watch=False)) == 2


def test_after_a_short_absence_the_watch_goes_on(api: WatchedApi) -> None:
    with following(api) as one:
        api.go_away()
        one.until(lambda found: found.trouble)
        api.put("pods", a_pod("new"))
        api.come_back()
        one.until(lambda found: ("shop", "new") in known(found) and not found.trouble)
        assert len(api.asked_for("pods", watch=False)) == 1


def test_a_watch_that_died_silently_is_replaced(api: WatchedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "SILENCE", 1.0)
    with following(api) as one:
        api.is_silent = True
        api.put("pods", a_pod("new"))
        watching(api, "pods", 2)
        api.is_silent = False
        one.until(lambda found: ("shop", "new") in known(found))


def test_a_rejected_list_says_why_and_is_tried_again(api: WatchedApi) -> None:
    api.fault = lambda path, _: 403 if path.endswith("/pods") else None
    one = FollowedList(api, Scope(namespace="shop"), "pods")
    one.list.start()
    try:
        one.until(lambda found: found.trouble == "error 403")
        assert one.list.objects is None
        assert one.list.answered > 0
        api.fault = lambda _, __: None
        one.until(lambda found: found.objects and not found.trouble)
    finally:
        one.stopped.set()


def test_a_list_that_may_be_read_and_not_watched_is_said_to_be_in_trouble_all_the_time(api: WatchedApi) -> None:
    api.fault = lambda _, query: 403 if "watch" in query else None
    one = FollowedList(api, Scope(namespace="shop"), "pods")
    one.list.start()
    try:
        one.until(lambda found: found.trouble == "error 403")
        since = one.list.since
        watching(api, "pods", 3)
        assert (one.list.trouble, one.list.since) == ("error 403", since)
        assert one.names()
        api.fault = lambda _, __: None
        one.until(lambda found: not found.trouble)
    finally:
        one.stopped.set()


@pytest.mark.parametrize(
    "event", ["[]", '{"type": "MODIFIED", "object": {"metadata": {"name": "new"}}}', '{"type": "BOOKMARK", "object": 7}']
)
def test_an_event_that_cannot_be_understood_is_said_and_leads_to_a_new_list(
    api: WatchedApi, event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with following(api) as one:
        good = api.events
        monkeypatch.setattr(api, "events", lambda *_: iter([event.encode() + b"\n"]))
        api.emit_error("pods", 410)  # ends the watch that is open
        one.until(lambda found: found.trouble.startswith("the answer is not that of an API server"))
        monkeypatch.setattr(api, "events", good)
        one.until(lambda found: not found.trouble)
