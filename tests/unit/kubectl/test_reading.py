"""Reading under a deadline: what is slow or rejected is named, and what is answered is kept."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import pytest

from kubectl_whatsapp import rights
from kubectl_whatsapp.access import Options, access_of
from kubectl_whatsapp.reading import RULES, VERDICT, read, sources
from waiting import wait_until

from .clusters import NOW, TARGET, Api, a_cluster, kubeconfig, serving


def test_everything_is_read_at_once_by_the_clock_of_the_api_server() -> None:
    found = read(Api(a_cluster()), TARGET, RULES)

    assert found.at == NOW
    assert set(found.found) == set(RULES)
    assert (found.unread, found.absent) == ({}, frozenset())


@pytest.mark.slow
def test_what_is_slow_is_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    with serving(a_cluster(), tmp_path, delays={"nodes": 60.0, "pods": 60.0}) as server:
        client = access_of(kubeconfig(server.url), Options()).client()
        begun = time.monotonic()
        found = read(client, TARGET, deadline=3.0)
        took = time.monotonic() - begun

    assert 3.0 <= took < 25
    assert set(found.unread) == {"nodes", "pods"}
    assert all(why.startswith("no answer within 3.0 s") for why in found.unread.values())
    assert set(found.found) == set(VERDICT) - {"nodes", "pods"}
    assert found.items("pods") is None
    assert found.unread_titles().keys() == {"nodes", "its pods"}


def test_what_was_answered_while_something_else_took_long_counts() -> None:
    times = iter([0.0, 100.0])
    api, asked = Api(a_cluster()), threading.Semaphore(0)

    def get(path: str, *, timeout: float, **query: str) -> dict[str, object]:
        try:
            return a_cluster().found["cluster"] if path.endswith("/acme") else {"items": []}
        finally:
            asked.release()

    def meanwhile() -> None:
        for _ in VERDICT:
            assert asked.acquire(timeout=60)
        wait_until(lambda: not [one for one in threading.enumerate() if one.name.startswith("read ")])

    with patch.object(api, "get", get):
        found = read(api, TARGET, deadline=1.0, clock=lambda: next(times, 100.0), meanwhile=meanwhile)

    assert (set(found.found), found.unread) == (set(VERDICT), {})


def test_what_is_not_there_is_no_trouble_and_what_is_forbidden_is() -> None:
    cluster = a_cluster().missing("lease").without("nodes", why="nodes is forbidden")
    found = read(Api(cluster), TARGET)

    assert found.absent == {"lease"}
    assert found.unread == {"nodes": "nodes is forbidden"}


def test_without_the_api_servers_time_this_machines_counts() -> None:
    api = Api(a_cluster())
    api.server_date = "yesterday"
    assert abs((read(api, TARGET).at - datetime.now(UTC)).total_seconds()) < 60


def test_a_client_that_breaks_is_named_too() -> None:
    class Broken(Api):
        def get(self, path: str, *, timeout: float, **query: str) -> dict[str, object]:
            if path.endswith("/nodes"):
                raise ZeroDivisionError
            return super().get(path, timeout=timeout, **query)

    assert read(Broken(a_cluster()), TARGET).unread == {"nodes": "ZeroDivisionError"}


@pytest.mark.parametrize("name", sources(TARGET))
def test_each_source_is_read_with_the_right_that_it_names(name: str) -> None:
    source = sources(TARGET)[name]
    *_, last = source.path.split("/")
    expected = source.right.resource if source.right.verb == "list" else last
    assert source.path.endswith(expected if source.right.verb == "list" else f"{source.right.resource}/{expected}")
    assert (source.right.group or "v1") in source.path


def test_a_command_that_reads_has_the_rights_of_its_sources() -> None:
    known = sources(TARGET)
    assert set(rights.NEEDED["status"]) == {known[name].right for name in VERDICT}
    assert set(rights.NEEDED["why"]) == {known[name].right for name in RULES}
    for command in ("status", "why", "check"):
        assert {right.verb for right in rights.NEEDED[command]} <= {"get", "list"}
