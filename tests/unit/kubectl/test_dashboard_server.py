"""Who may ask the dashboard for what, and how it answers."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from kubectl_whatsapp.__main__ import main
from kubectl_whatsapp.dashboard.board import Board
from kubectl_whatsapp.dashboard.server import HEADERS, HEARTBEAT, Server, _call, frame

from .clusters import a_cluster, kubeconfig
from .dashboards import LONG, a_dashboard, a_page, sentence
from .watched import WatchedApi, renamed, watched

FILES = ["", "index.html", "page.js", "picture.js", "dom.js", "page.css", "icon.svg"]


@pytest.fixture
async def api() -> AsyncIterator[WatchedApi]:
    with watched(renamed(a_cluster(), "shop", "acme")) as one:
        yield one


@pytest.fixture
async def server(api: WatchedApi) -> AsyncIterator[Server]:
    async with a_dashboard(api.url) as one:
        yield one


async def ask(server: Server, path: str, *, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{server.port}{path}"
        async with session.request(method, url, headers=headers, allow_redirects=False) as answer:
            return answer.status, await answer.text(), dict(answer.headers)


@pytest.mark.parametrize("file", FILES)
async def test_the_page_and_its_files_are_served_to_who_has_the_token(server: Server, file: str) -> None:
    status, text, headers = await ask(server, f"/{server.token}/{file}")

    assert status == 200
    assert text == files("kubectl_whatsapp.dashboard").joinpath("page", file or "index.html").read_text(encoding="utf-8")
    kind = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}.get(file.rpartition(".")[2], "text/html")
    assert headers["Content-Type"] == f"{kind}; charset=utf-8"


@pytest.mark.parametrize("token", ["", "x", "{token}x", "{short}", "{upper}", "%00", "%C3%A9"])
async def test_without_the_token_nothing_is_served(server: Server, token: str) -> None:
    given = token.format(token=server.token, short=server.token[:-1], upper=server.token.swapcase())
    for file in [*FILES, "events", "favicon.ico"]:
        status, text, headers = await ask(server, f"/{given}/{file}")

        assert status == 403
        assert "token" in text
        assert server.token not in text
        assert headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]


async def test_each_dashboard_has_a_token_of_its_own_that_cannot_be_found_by_trying(api: WatchedApi) -> None:
    tokens = set()
    for _ in range(3):
        async with a_dashboard(api.url) as one:
            tokens.add(one.token)
            assert one.url == f"http://127.0.0.1:{one.port}/{one.token}/"
    assert len(tokens) == 3
    assert min(map(len, tokens)) >= 43  # 256 bits in base64


async def test_a_dashboard_that_ended_keeps_no_connection(api: WatchedApi) -> None:
    async with a_dashboard(api.url) as one, a_page(one) as page:
        await page.until("clusters", lambda found: found["clusters"])
        assert api.http.connections
    api.end_watches()
    async with asyncio.timeout(LONG):
        while api.http.connections:
            await asyncio.sleep(0.01)


async def test_the_token_is_compared_in_constant_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(given: bytes, known: bytes) -> bool:
        compared.append((given, known))
        return False

    monkeypatch.setattr(secrets, "compare_digest", compare)
    assert (await ask(server, f"/{server.token}/"))[0] == 403
    assert compared == [(server.token.encode(), server.token.encode())]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost", "[::1]:{port}", ""])
async def test_under_another_name_of_this_machine_nothing_is_served(server: Server, host: str) -> None:
    """DNS rebinding: a site's name that leads to 127.0.0.1."""
    status, text, _ = await ask(server, f"/{server.token}/", Host=host.format(port=server.port))
    assert (status, text) == (403, "This page is served only on 127.0.0.1.\n")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_under_its_own_names_it_is_served(server: Server, host: str) -> None:
    assert (await ask(server, f"/{server.token}/", Host=f"{host}:{server.port}"))[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
@pytest.mark.parametrize("file", ["", "events"])
async def test_every_method_but_get_is_rejected(server: Server, method: str, file: str) -> None:
    assert (await ask(server, f"/{server.token}/{file}", method=method))[0] == 405


@pytest.mark.parametrize("file", ["nothing.js", "server.py", "..%2fserver.py", "%2e%2e/server.py", "page/page.js", "page", ".", "x/events"])
async def test_what_is_no_file_of_the_page_is_not_found(server: Server, file: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(URL(f"{server.url}{file}", encoded=True)) as answer:
        # Some of these paths leave the token's folder before they are sent.
        assert answer.status in {403, 404}
        assert answer.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["{token}/", "{token}/page.js", "{token}/nothing.js", "x/", "{token}/events"])
async def test_every_answer_has_the_headers_that_keep_others_out(server: Server, path: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{server.port}/{path.format(token=server.token)}") as answer,
    ):
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
        assert "Set-Cookie" not in answer.headers
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_policy_lets_the_page_load_its_own_files_alone() -> None:
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert set(policy.values()) == {"'none'", "'self'"}
    assert {name for name, value in policy.items() if value == "'self'"} == {"script-src", "style-src", "img-src", "connect-src"}


@pytest.mark.parametrize("file", FILES[1:])
def test_no_file_of_the_page_names_another_server_or_has_code_in_markup(file: str) -> None:
    text = files("kubectl_whatsapp.dashboard").joinpath("page", file).read_text(encoding="utf-8")
    addresses = {one for one in re.findall(r"\b(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", text) if not one.startswith("http://www.w3.org/")}
    assert not addresses
    assert not re.findall(r"\son\w+=|javascript:|style=|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)
    assert not re.findall(r"<script(?![^>]*\ssrc=)|@import|url\(", text)


async def test_it_listens_on_loopback_alone(server: Server) -> None:
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in [*others, "127.0.0.2"]:
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection(str(address), server.port)


async def test_a_port_in_use_is_said_with_what_to_do(
    server: Server, api: WatchedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(kubeconfig(api.url)), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(path))
    code = await asyncio.to_thread(main, ["dashboard", "--port", str(server.port)])

    assert code == 4
    assert f"port {server.port} of 127.0.0.1 cannot be used" in capsys.readouterr().err


def test_the_plugin_as_one_file_says_what_the_page_needs(
    api: WatchedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(kubeconfig(api.url)), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.delitem(sys.modules, "kubectl_whatsapp.dashboard.server")
    monkeypatch.setitem(sys.modules, "aiohttp", None)

    assert main(["dashboard"]) == 4
    assert "this command needs the Python package aiohttp, which is missing for Python" in capsys.readouterr().err


# --- events ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "one", "one\ntwo", "one\n\ntwo\n", "event: x\n\ndata: y"])
def test_an_event_is_framed_so_that_its_text_comes_out_as_it_went_in(text: str) -> None:
    head, *data, end, last = frame("cluster", text).decode().split("\n")

    assert head == "event: cluster"
    assert (end, last) == ("", "")
    assert all(line.startswith("data: ") for line in data)
    assert "\n".join(line.removeprefix("data: ") for line in data) == text


async def test_a_page_is_sent_everything_at_first(server: Server) -> None:
    async with a_page(server, namespace="shop", cluster="acme", shard="1") as page:
        found = await page.until("cluster", lambda one: sentence(one) and not one["status"]["unread"])
        listed = next(data for name, data in reversed(page.events) if name == "clusters" and data["clusters"])
        assert page.answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"

    assert listed["clusters"] == [
        {
            "namespace": "shop",
            "name": "acme",
            "level": "ok",
            "sentence": found["status"]["verdict"]["sentence"],
            "shards": 2,
            "served": 2,
            "spares": 1,
        }
    ]
    assert (found["status"]["apiVersion"], found["status"]["kind"]) == ("kubectl-whatsapp/v1", "Status")
    assert (found["why"]["kind"], found["why"]["rule"], found["why"]["shard"]["shard"]) == ("Why", "UpToDate", 1)


async def test_without_a_selection_the_first_cluster_is_shown_without_a_shard() -> None:
    with watched(renamed(a_cluster(), "b", "acme"), renamed(a_cluster(), "a", "zeta")) as api:
        async with a_dashboard(api.url) as server, a_page(server) as page:
            found = await page.until("cluster", sentence)
            assert (found["namespace"], found["name"]) == ("a", "zeta")
            assert "shard" not in found["why"]


async def test_what_did_not_change_is_sent_once_and_the_connection_always(server: Server) -> None:
    async with a_page(server) as page:
        await page.until("cluster", sentence)
        for _ in range(2):
            await page.until("connection", lambda one: one["isReachable"])
        lists = [data for name, data in page.events if name == "clusters" and data["clusters"]]
        assert len(lists) == len({json.dumps(one) for one in lists})


async def test_a_cluster_that_is_not_there_is_a_problem_and_not_another_cluster(server: Server) -> None:
    async with a_page(server, namespace="shop", cluster="other") as page:
        found = await page.until("cluster", lambda one: one.get("problem"))
        assert found["problem"] == "There is no WhatsAppCluster other in namespace shop."
        assert "status" not in found


@pytest.mark.parametrize("shard", ["9" * 5000, "-1", "x", "1.5", "", "99"])
async def test_a_shard_that_is_none_does_no_harm(server: Server, shard: str) -> None:
    async with a_page(server, namespace="shop", cluster="acme", shard=shard) as page:
        found = await page.until("cluster", sentence)
        assert found["why"].get("shard", {}).get("sentence", "") in {"", f"There is no shard {shard}; shards go from 0 to 1."}


async def test_a_page_that_is_left_at_once_prints_nothing(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    # A person who goes through shards by the arrow keys begins and leaves a stream with each.
    reset = struct.pack("ii", 1, 0)
    for _ in range(200):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        writer.write(f"GET /{server.token}/events HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        writer.transport.abort()
    assert (await ask(server, f"/{server.token}/"))[0] == 200
    async with asyncio.timeout(60):
        while server._readers:
            await asyncio.sleep(0.01)
    assert [one.message for one in caplog.records] == []


async def test_a_page_that_goes_is_forgotten(server: Server) -> None:
    async with a_page(server) as page:
        await page.until("cluster", sentence)
        assert len(server._readers) == 1
    async with asyncio.timeout(60):
        while server._readers:
            await asyncio.sleep(0.05)


async def test_open_pages_do_not_hold_up_the_end(api: WatchedApi) -> None:
    async with aiohttp.ClientSession() as session:
        async with a_dashboard(api.url) as server:
            answer = await session.get(f"{server.url}events")
            begun = time.monotonic()
        async with asyncio.timeout(60):
            while not answer.content.at_eof():
                await answer.content.readany()
        assert time.monotonic() - begun < 2 * HEARTBEAT
        answer.close()


async def test_a_page_that_cannot_be_brought_up_to_date_ends_the_command(api: WatchedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Board) -> None:
        msg = "a fault"
        raise RuntimeError(msg)

    monkeypatch.setattr(Board, "views", fail)
    async with a_dashboard(api.url) as server, asyncio.timeout(60):
        with pytest.raises(RuntimeError, match="a fault"):
            await server.wait()


def test_what_a_list_says_after_the_end_is_ignored() -> None:
    """The thread of a list may call while the event loop is being closed."""

    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "is_closed", lambda: False)  # as it was a moment ago
        _call(loop, lambda: None)
