"""The Kubernetes client, against a small HTTP server: what is sent, what each answer becomes, and how little a dead connection costs."""

from __future__ import annotations

import asyncio
import json
import traceback
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from aiohttp import web
from lightkube import AsyncClient, KubeConfig
from lightkube.config.models import Cluster, User

from whatsapp_operator.shell.kube import client, kinds
from whatsapp_operator.shell.kube.client import MOST_EVENTS, CallLimits, LightKube
from whatsapp_operator.shell.kube.errors import (
    AlreadyExists,
    Conflict,
    Expired,
    KubeError,
    LeaseTooShort,
    NotFound,
    Rejected,
    TestFailed,
    Unavailable,
)
from whatsapp_operator.shell.kube.kinds import DEPLOYMENT, KINDS, LEASE, NODE, POD, SECRET, SERVICE, STATEFULSET, WAC, kind_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from whatsapp_operator.shell.kube.client import Kube
    from whatsapp_operator.shell.kube.kinds import Obj

TOKEN = "token-that-nobody-may-see"
PASSWORD = "password-that-nobody-may-see"
A_POD: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "ns", "resourceVersion": "7"}}


class Server:
    """Answers each request by `answer`, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, Any]] = []
        self.peers: set[Any] = set()
        self.hanging = asyncio.Event()
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.ok
        self.url = ""

    async def ok(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"kind": "Pod", "metadata": {"name": "a"}})

    def says(self, body: Any, *, status: int = 200) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.json_response(body, status=status)

        self.answer = answer

    def refuses(self, code: int, reason: str, message: str = "no", **details: Any) -> None:
        self.says(
            {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message, "details": details}, status=code
        )

    def sends(self, **response: Any) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(**response)

        self.answer = answer

    async def hang(self, request: web.Request) -> web.StreamResponse:
        await self.hanging.wait()
        return await self.ok(request)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        self.asked.append((request.method, str(request.rel_url), request.content_type, json.loads(body) if body else None))
        assert request.transport
        self.peers.add(request.transport.get_extra_info("peername"))
        return await self.answer(request)


@asynccontextmanager
async def a_server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        server.hanging.set()
        await runner.cleanup()


@asynccontextmanager
async def a_client(**more: Any) -> AsyncIterator[tuple[Server, LightKube]]:
    async with a_server() as server:
        kube = client_to(server.url, **more)
        try:
            yield server, kube
        finally:
            await kube.close()


def client_to(url: str, **more: Any) -> LightKube:
    config = KubeConfig.from_one(cluster=Cluster(server=url), user=User(token=TOKEN)).get()
    assert config
    return LightKube(config, **more)


async def test_reads_ask_for_plain_objects() -> None:
    async with a_client() as (server, kube):
        assert await kube.get(POD, "ns", "a") == {"kind": "Pod", "metadata": {"name": "a"}}
        assert type(await kube.get(NODE, None, "n")) is dict
        server.says({"kind": "PodList", "metadata": {"resourceVersion": "5"}, "items": [{"metadata": {"name": "a"}}]})
        expected = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}]
        assert await kube.list(POD, "ns", {"x": "y", "multiconnect.dev/z": "1"}) == expected
        assert await kube.list(POD, None) == expected
        await kube.list(NODE, None)
        await kube.list(WAC, "ns")

        assert [asked[:2] for asked in server.asked] == [
            ("GET", "/api/v1/namespaces/ns/pods/a"),
            ("GET", "/api/v1/nodes/n"),
            ("GET", "/api/v1/namespaces/ns/pods?labelSelector=x%3Dy%2Cmulticonnect.dev%2Fz%3D1"),
            ("GET", "/api/v1/pods"),
            ("GET", "/api/v1/nodes"),
            ("GET", "/apis/multiconnect.dev/v1alpha1/namespaces/ns/whatsappclusters"),
        ]


async def test_events_are_asked_for_by_the_object_that_they_are_about() -> None:
    async with a_client() as (server, kube):
        items = [{"metadata": {"name": f"e{number}"}, "reason": "FailedCreate"} for number in range(MOST_EVENTS + 5)]
        server.says({"kind": "EventList", "metadata": {"resourceVersion": "5"}, "items": items})
        found = await kube.list_events("ns", "u-1")
        assert found[0] == {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e0"}, "reason": "FailedCreate"}
        assert len(found) == MOST_EVENTS
        (asked,) = server.asked
        assert asked[:2] == ("GET", f"/api/v1/namespaces/ns/events?limit={MOST_EVENTS}&fieldSelector=involvedObject.uid%3Du-1")


REPLICAS: dict[str, Any] = {"f:spec": {"f:replicas": {}}}
OTHERS: dict[str, Any] = {"f:spec": {"f:template": {}}}


@pytest.mark.parametrize(
    ("managed", "kept"),
    [
        ([{"manager": "a", "time": "2027-01-04T12:00:00Z", "fieldsV1": REPLICAS}, {"manager": "b", "fieldsV1": OTHERS}], "a"),
        ([{"manager": one, "time": f"2027-01-04T12:00:0{number}Z", "fieldsV1": REPLICAS} for number, one in enumerate("acb")], "b"),
        ([{"manager": "b", "fieldsV1": OTHERS}], None),
        ([], None),
        (None, None),
        ("x", None),
        ([None, 7, {}, {"fieldsV1": 7}, {"fieldsV1": {"f:spec": None}}], None),
    ],
)
async def test_of_a_statefulset_is_kept_who_scaled_it_last(managed: object, kept: str | None) -> None:
    async with a_client() as (server, kube):
        meta = {"name": "a", "managedFields": managed}
        server.says({"kind": "StatefulSet", "metadata": meta})
        found = await kube.get(STATEFULSET, "ns", "a")
        assert found is not None
        assert found["metadata"] == {"name": "a"} | ({"managedFields": [{"manager": kept}]} if kept else {})
        server.says({"kind": "Pod", "metadata": meta})
        assert await kube.get(POD, "ns", "a") == {"kind": "Pod", "metadata": {"name": "a"}}


async def test_writes_say_who_writes_and_on_what_condition() -> None:
    async with a_client(field_manager="me") as (server, kube):
        await kube.create(A_POD)
        await kube.replace(A_POD)
        await kube.patch_json(POD, "ns", "a", [{"op": "test", "path": "/x", "value": 1}])
        await kube.patch_merge(SERVICE, "ns", "a", {"metadata": {"resourceVersion": "7"}})
        await kube.patch_status(WAC, "ns", "a", {"status": {}})
        await kube.patch_scale(STATEFULSET, "ns", "a", {"spec": {"replicas": 1}})
        assert await kube.delete(POD, "ns", "a", uid="u", resource_version="7", grace_seconds=0)
        assert await kube.delete(POD, "ns", "a", uid="u")

        only = {"apiVersion": "v1", "kind": "DeleteOptions"}
        wac = "/apis/multiconnect.dev/v1alpha1/namespaces/ns/whatsappclusters/a"
        pod, service = "/api/v1/namespaces/ns/pods/a", "/api/v1/namespaces/ns/services/a"
        assert server.asked == [
            ("POST", "/api/v1/namespaces/ns/pods?fieldManager=me", "application/json", A_POD),
            ("PUT", f"{pod}?fieldManager=me", "application/json", A_POD),
            ("PATCH", f"{pod}?fieldManager=me", "application/json-patch+json", [{"op": "test", "path": "/x", "value": 1}]),
            ("PATCH", f"{service}?fieldManager=me", "application/merge-patch+json", {"metadata": {"resourceVersion": "7"}}),
            ("PATCH", f"{wac}/status?fieldManager=me", "application/merge-patch+json", {"status": {}}),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/ns/statefulsets/a/scale?fieldManager=me",
                "application/merge-patch+json",
                {"spec": {"replicas": 1}},
            ),
            ("DELETE", pod, "application/json", only | {"preconditions": {"uid": "u", "resourceVersion": "7"}, "gracePeriodSeconds": 0}),
            ("DELETE", pod, "application/json", only | {"preconditions": {"uid": "u"}}),
        ]
        assert kube.writes == {
            ("create", "Pod"): 1,
            ("replace", "Pod"): 1,
            ("patch", "Pod"): 1,
            ("patch", "Service"): 1,
            ("patch status", "WhatsAppCluster"): 1,
            ("patch scale", "StatefulSet"): 1,
            ("delete", "Pod"): 2,
        }


def test_the_private_path_of_lightkube_is_where_it_was() -> None:
    """`delete` and `watch` go through AsyncClient._client: if this fails after an update, check both in shell/kube.py."""
    config = KubeConfig.from_server("http://nowhere").get()
    assert config
    inner = AsyncClient(config._replace(user=User()), trust_env=False)._client
    ask = inner.prepare_request("delete", res=client._resource(POD), name="a", namespace="ns")
    ask.data = {"preconditions": {"uid": "u"}}
    request = inner.build_adapter_request(ask)
    assert (request.method, request.url.path) == ("DELETE", "/api/v1/namespaces/ns/pods/a")
    assert request.content == b'{"preconditions":{"uid":"u"}}'
    assert request.headers["Content-Type"] == "application/json"
    ask = inner.prepare_request("list", res=client._resource(LEASE), namespace="ns", watch=True, params={"timeoutSeconds": 3, "x": None})
    request = inner.build_adapter_request(ask)
    assert str(request.url).endswith("/apis/coordination.k8s.io/v1/namespaces/ns/leases?timeoutSeconds=3&watch=true")
    assert callable(inner.send)
    assert callable(inner.raise_for_status)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_kinds_are_found_by_what_objects_say(kind: kinds.Kind) -> None:
    assert kind_of({"apiVersion": kind.api_version, "kind": kind.kind}) is kind


def test_an_unknown_kind_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match=r"apiVersion 'v2', kind 'Pod' is not known here; add it to KINDS\."):
        kind_of({"apiVersion": "v2", "kind": "Pod"})


# --------------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (400, "BadRequest", Rejected),
        (401, "Unauthorized", Rejected),
        (403, "Forbidden", Rejected),
        (404, "NotFound", NotFound),
        (405, "MethodNotAllowed", Rejected),
        (409, "AlreadyExists", AlreadyExists),
        (409, "Conflict", Conflict),
        (413, "RequestEntityTooLarge", Rejected),
        (415, "UnsupportedMediaType", Rejected),
        (422, "Invalid", Rejected),
        (429, "TooManyRequests", Unavailable),
        (500, "InternalError", Unavailable),
        (503, "ServiceUnavailable", Unavailable),
        (504, "Timeout", Unavailable),
    ],
)
async def test_each_refusal_has_its_error(code: int, reason: str, error: type[KubeError]) -> None:
    async with a_client() as (server, kube):
        server.refuses(code, reason, "because  of\nthis", name="a")
        with pytest.raises(error) as caught:
            await kube.create(A_POD)
        assert type(caught.value) is error
        assert str(caught.value).startswith(f"create Pod ns/a: {code} {reason}: because of this")
        assert (caught.value.code, caught.value.reason) == (code, reason)


async def test_a_throttled_call_is_sent_again_and_a_rejection_that_lasts_is_reported_as_one() -> None:
    async with a_client() as (server, kube):
        left = [429, 429, 200]

        async def answer(request: web.Request) -> web.StreamResponse:
            code = left.pop(0) if left else 429
            return (
                await server.ok(request) if code == 200 else web.json_response({"kind": "Status", "reason": "TooManyRequests"}, status=429)
            )

        server.answer = answer
        assert (await kube.create(A_POD))["metadata"]["name"] == "a"
        assert [(method, body) for method, _, _, body in server.asked] == [("POST", A_POD)] * 3
        with pytest.raises(Unavailable, match="429 TooManyRequests"):
            await kube.get(POD, "ns", "a")
        assert len(server.asked) > 6


async def test_a_missing_object_is_none_but_a_missing_kind_is_not() -> None:
    async with a_client() as (server, kube):
        server.refuses(404, "NotFound", 'pods "a" not found', name="a", kind="pods")
        assert await kube.get(POD, "ns", "a") is None
        assert await kube.delete(POD, "ns", "a", uid="u") is False
        with pytest.raises(NotFound, match="patch Pod ns/a: 404 NotFound"):
            await kube.patch_merge(POD, "ns", "a", {})

        server.refuses(404, "NotFound", "the server could not find the requested resource")
        with pytest.raises(NotFound, match=r"are whatsappclusters of multiconnect.dev/v1alpha1 installed\?"):
            await kube.get(WAC, "ns", "a")
        with pytest.raises(NotFound, match="installed"):
            await kube.delete(WAC, "ns", "a", uid="u")

        server.sends(status=404, text="404 page not found\n")
        with pytest.raises(NotFound, match="installed"):
            await kube.get(WAC, "ns", "a")


async def test_only_a_bare_422_to_a_json_patch_is_a_failed_test() -> None:
    async with a_client() as (server, kube):
        server.refuses(422, "Invalid", "the server rejected our request due to an error in our request")
        with pytest.raises(TestFailed, match=r"patch Pod ns/a: 422 Invalid: a test or a path of the patch does not match"):
            await kube.patch_json(POD, "ns", "a", [])
        with pytest.raises(Rejected, match="patch Pod ns/a: 422 Invalid: the server rejected our request"):
            await kube.patch_merge(POD, "ns", "a", {})
        server.refuses(422, "Invalid", 'Pod "a" is invalid', name="a", causes=[{"field": "spec"}])
        with pytest.raises(Rejected, match="is invalid"):
            await kube.patch_json(POD, "ns", "a", [])


@pytest.mark.parametrize(
    "response",
    [
        {"status": 502, "text": "<html>bad gateway"},
        {"status": 502, "headers": {"Content-Type": ""}},
        {"status": 503, "text": "apiserver is starting", "content_type": "application/json"},
        {"status": 302, "headers": {"Location": "http://elsewhere/"}},
        {"status": 200, "text": "<html>please log in"},
        {"status": 200, "text": '{"kind": "Pod", "meta', "content_type": "application/json"},
        {"status": 500, "text": '{"status": 17}', "content_type": "application/json"},
        {"status": 200, "text": "[7]", "content_type": "application/json"},
        {"status": 200, "text": '{"metadata": null, "items": [7]}', "content_type": "application/json"},
        {"status": 200, "text": '{"metadata": 7, "items": 7}', "content_type": "application/json"},
        {"status": 200, "text": "null", "content_type": "application/json"},
    ],
)
async def test_an_answer_that_is_not_kubernetes_says_nothing(response: dict[str, Any]) -> None:
    async with a_client() as (server, kube):
        server.sends(**response)
        with pytest.raises(Unavailable, match=r"get Pod ns/a: "):
            await kube.get(POD, "ns", "a")
        with pytest.raises(Unavailable, match=r"list Pod ns: "):
            await kube.list(POD, "ns")
        with pytest.raises(Unavailable, match=r"watch Pod ns: "):
            async for _ in kube.watch(POD, "ns"):
                pass


async def test_a_damaged_item_of_a_list_takes_no_other_with_it() -> None:
    async with a_client() as (server, kube):
        server.says(
            {"kind": "PodList", "metadata": {"resourceVersion": "9"}, "items": [{"metadata": None}, {}, {"metadata": {"name": "a"}}]}
        )
        found = await kube.list(POD, "ns")
        assert [obj.get("metadata") for obj in found] == [None, None, {"name": "a"}]


async def test_a_refusal_with_odd_details_is_a_refusal() -> None:
    async with a_client() as (server, kube):
        server.says({"reason": 7, "details": [7], "message": {}}, status=404)
        with pytest.raises(NotFound, match="get Pod ns/a: 404: nothing"):
            await kube.get(POD, "ns", "a")


async def test_no_error_shows_a_secret() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "ns"}, "stringData": {"p": PASSWORD}}
    async with a_client() as (server, kube):
        server.refuses(422, "Invalid", f"data[p]: Invalid value: {PASSWORD}", name="s", causes=[{"message": PASSWORD}])
        with pytest.raises(Rejected) as caught:
            await kube.create(secret)
        assert str(caught.value) == "create Secret ns/s: 422 Invalid: (not repeated here, it could quote a secret)"
        shown = "".join(traceback.format_exception(caught.value))
        assert PASSWORD not in shown
        assert TOKEN not in shown

        server.refuses(403, "Forbidden", "x" * 5000)
        with pytest.raises(Rejected, match="xxx") as caught:
            await kube.get(SECRET, "ns", "s")
        assert len(str(caught.value)) < 400
        assert TOKEN not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", ["", "..", "a/b", "a?x", "a#b", "A", "a%2f", "-a", "a\n"])
async def test_a_name_cannot_become_another_address(name: str) -> None:
    async with a_client() as (server, kube):
        for call in (
            kube.get(POD, "ns", name),
            kube.delete(POD, "ns", name, uid="u"),
            kube.patch_merge(POD, "ns", name, {}),
            kube.get(POD, f"ns{name}/.." if name else "..", "a"),
        ):
            with pytest.raises(Rejected, match="no object can have such a name"):
                await call
        assert server.asked == []


async def test_mistakes_of_ours_are_not_sent() -> None:
    async with a_client() as (server, kube):
        with pytest.raises(ValueError, match="Pod is namespaced: name the namespace"):
            await kube.get(POD, None, "a")
        with pytest.raises(ValueError, match=r"replace Pod ns/a needs metadata.resourceVersion"):
            await kube.replace({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "ns"}})
        assert server.asked == []


# ----------------------------------------------------------------------------------------------------------------- fence


class Left:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def seconds_left(self) -> float:
        return self.seconds


async def test_no_write_starts_without_more_lease_left_than_its_timeout() -> None:
    async with a_client() as (server, unfenced):
        lease = Left(2.0)
        kube = unfenced.fenced(lease)
        writes: list[Callable[[Kube], Awaitable[object]]] = [
            lambda kube: kube.create(A_POD),
            lambda kube: kube.replace(A_POD),
            lambda kube: kube.patch_json(POD, "ns", "a", []),
            lambda kube: kube.patch_merge(POD, "ns", "a", {}),
            lambda kube: kube.patch_status(WAC, "ns", "a", {}),
            lambda kube: kube.patch_scale(STATEFULSET, "ns", "a", {}),
            lambda kube: kube.delete(POD, "ns", "a", uid="u"),
        ]
        for write in writes:
            with pytest.raises(LeaseTooShort, match=r"not sent, 2\.0 s of the Lease are left and the call may take 2 s\."):
                await write(kube)
        assert server.asked == []
        assert not kube.writes

        await kube.get(POD, "ns", "a")  # reads may
        for write in writes:
            await write(unfenced)  # the client of the election itself
        lease.seconds = 2.1
        for write in writes:
            await write(kube)
        assert len(server.asked) == 1 + 2 * len(writes)
        assert kube.writes is unfenced.writes
        lease.seconds = -5
        with pytest.raises(LeaseTooShort, match=r"0\.0 s"):
            await kube.create(A_POD)


# ----------------------------------------------------------------------------------------------------------------- lines


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_calls_are_bounded_and_a_dead_line_costs_one_of_them() -> None:
    async with a_client(limits=CallLimits(read=2.0, write=1.0)) as (server, kube):
        await asyncio.gather(*(kube.get(POD, "ns", "a") for _ in range(20)))
        old = set(server.peers)
        assert len(old) > 5
        server.answer = server.hang
        began = now()
        with pytest.raises(Unavailable, match=r"create Pod ns/a: the API server did not answer within 1 s\."):
            await kube.create(A_POD)
        with pytest.raises(Unavailable, match=r"get Pod ns/a: the API server did not answer within 2 s\."):
            await kube.get(POD, "ns", "a")
        assert now() - began < 2 * (2.0 + 1.0), "each by its own limit, and neither tried again"
        server.answer = server.ok
        server.peers.clear()
        await kube.get(POD, "ns", "a")
        assert not server.peers & old  # none of the other idle lines was tried, each of which could be dead as well


async def test_calls_under_way_outlive_the_lines_given_up() -> None:
    async with a_client(limits=CallLimits(read=5, write=0.2)) as (server, kube):
        server.answer = server.hang
        under_way = asyncio.create_task(kube.get(POD, "ns", "a"))
        while not server.asked:
            await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await kube.create(A_POD)
        server.hanging.set()
        assert await under_way


def pools_opened(kube: LightKube) -> list[object]:
    """Return the list of the connection pools that are opened from now on."""
    lines, opened = kube._api._client._client._transport._inner, list[object]()
    dial = lines._make_pool

    def counting() -> Any:
        opened.append(dial())
        return opened[-1]

    lines._make_pool = counting
    return opened


@pytest.mark.parametrize("fails", ["403", "500", "garbage", "timeout", "cancelled"])
async def test_reads_that_fail_leave_the_connections_of_others_alone(fails: str) -> None:
    # Long enough for others to be answered meanwhile, on a busy machine too.
    async with a_client(limits=CallLimits(read=1.0, write=1.0)) as (server, kube):
        opened, answers = pools_opened(kube), 0

        async def answer(request: web.Request) -> web.StreamResponse:
            if "secrets" not in request.path:
                return await server.ok(request)
            if fails in {"timeout", "cancelled"}:
                return await server.hang(request)
            return web.Response(status={"403": 403, "500": 500, "garbage": 200}[fails], text="[7]", content_type="application/json")

        async def read_others() -> None:
            nonlocal answers
            while True:
                await kube.get(POD, "ns", "a")
                answers += 1
                await asyncio.sleep(0.01)

        async def others_answered() -> None:
            after = answers + 2
            while answers < after:
                assert not others.done()
                await asyncio.sleep(0.001)

        server.answer = answer
        others = asyncio.create_task(read_others())
        await others_answered()
        for _ in range(5 if fails == "timeout" else 20):
            asked = len([one for one in server.asked if "secrets" in one[1]])
            reading = asyncio.create_task(kube.get(SECRET, "ns", "a"))
            if fails == "cancelled":
                while len([one for one in server.asked if "secrets" in one[1]]) == asked:
                    await asyncio.sleep(0.001)
                await others_answered()
                reading.cancel()
            with pytest.raises((KubeError, asyncio.CancelledError)):
                await reading
        others.cancel()
        assert opened == []


async def test_an_outage_gives_the_connections_up_once() -> None:
    async with a_client(limits=CallLimits(read=1.0, write=1.0)) as (server, kube):
        opened = pools_opened(kube)
        await asyncio.gather(*(kube.get(POD, "ns", "a") for _ in range(5)))
        server.answer = server.hang
        for _ in range(4):
            failed = await asyncio.gather(*(kube.get(POD, "ns", "a") for _ in range(5)), return_exceptions=True)
            assert {type(one) for one in failed} == {Unavailable}
        assert len(opened) == 1
        server.answer = server.ok
        await kube.get(POD, "ns", "a")
        assert len(opened) == 1


async def test_lines_are_kept() -> None:
    async with a_client() as (server, kube):
        for _ in range(5):
            await kube.get(POD, "ns", "a")
        await kube.create(A_POD)
        assert len(server.peers) == 1
        pool = kube._api._client._client._transport._inner._pool._pool
        assert pool._keepalive_expiry is None


async def test_a_server_that_is_not_there_is_reported_without_detours(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_server() as server:
        url = server.url
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    monkeypatch.setenv("ALL_PROXY", "http://proxy.invalid:1")
    kube = client_to(url)
    with pytest.raises(Unavailable, match=r"get Pod ns/a: the API server cannot be reached \(ConnectError: "):
        await kube.get(POD, "ns", "a")
    await kube.close()


async def test_a_server_that_hangs_up_in_the_middle_is_unavailable() -> None:
    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport
        request.transport.abort()
        return web.Response()

    async with a_client() as (server, kube):
        server.answer = hang_up
        with pytest.raises(Unavailable, match="cannot be reached"):
            await kube.create(A_POD)
        server.answer = server.ok
        await kube.create(A_POD)


# ----------------------------------------------------------------------------------------------------------------- watch


def stream(*events: Any, then: Callable[[], Awaitable[object]] | None = None) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for event in events:
            await response.write(json.dumps(event).encode() + b"\n")
        if then:
            await then()
        return response

    return answer


async def test_a_watch_yields_until_the_server_ends_it() -> None:
    async with a_client() as (server, kube):
        lease: Obj = {"metadata": {"name": "op", "resourceVersion": "9"}}
        server.answer = stream({"type": "ADDED", "object": lease}, {"type": "DELETED", "object": lease})
        seen = [event async for event in kube.watch(LEASE, "ns", name="op", labels={"a": "b"}, resource_version="8", server_timeout=20)]
        assert seen == [("ADDED", lease), ("DELETED", lease)]
        assert server.asked[0][1] == (
            "/apis/coordination.k8s.io/v1/namespaces/ns/leases?"
            "timeoutSeconds=20&resourceVersion=8&labelSelector=a%3Db&fieldSelector=metadata.name%3Dop&watch=true"
        )
        assert [event async for event in kube.watch(DEPLOYMENT, None)] == seen
        assert server.asked[1][1] == "/apis/apps/v1/deployments?timeoutSeconds=30&watch=true"


async def test_a_watch_tells_why_it_cannot_go_on() -> None:
    async with a_client(limits=CallLimits(read=0.3)) as (server, kube):

        async def watch() -> None:
            async for _ in kube.watch(LEASE, "ns", name="op", server_timeout=0):
                pass

        server.answer = stream({"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}})
        with pytest.raises(Expired, match="watch Lease ns/op: 410 Expired: too old"):
            await watch()
        server.refuses(403, "Forbidden", "leases is forbidden")
        with pytest.raises(Rejected, match="leases is forbidden"):
            await watch()
        server.answer = stream({"kind": "Status"})
        with pytest.raises(Unavailable, match="not Kubernetes' JSON"):
            await watch()
        server.answer = stream(then=server.hanging.wait)  # a black hole
        began = now()
        with pytest.raises(Unavailable, match="did not answer"):
            await watch()
        assert now() - began < 1


async def test_a_watch_that_is_left_frees_its_line() -> None:
    async with a_client() as (server, kube):
        server.answer = stream({"type": "ADDED", "object": {"metadata": {}}}, then=server.hanging.wait)
        async with aclosing(kube.watch(LEASE, "ns")) as events:
            async for _ in events:
                break
        pool = kube._api._client._client._transport._inner._pool._pool
        assert not [line for line in pool.connections if not line.is_idle()]


# --------------------------------------------------------------------------------------------------------- configuration


def test_a_kubeconfig_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    cases: list[tuple[object, str]] = [
        ("{", "from {path}: ParserError; outside of a cluster name a kubeconfig."),
        ("[]", "from {path}: AttributeError; outside of a cluster name a kubeconfig."),
        ({"clusters": []}, ": 'contexts' is missing in {path}."),
        (
            {"clusters": [], "contexts": [], "users": []},
            "from {path}: No current context set and no default provided; outside of a cluster name a kubeconfig.",
        ),
        (
            {"clusters": [], "contexts": [{"name": "a", "context": {"cluster": "x"}}], "current-context": "a"},
            ": 'x' is missing in {path}.",
        ),
        (
            {"clusters": [], "contexts": [], "current-context": "a"},
            "from {path}: Context 'a' not found; outside of a cluster name a kubeconfig.",
        ),
    ]
    for content, said in cases:
        path = tmp_path / "kubeconfig"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        with pytest.raises(Rejected) as caught:
            LightKube.from_kubeconfig(path)
        text = str(caught.value).removeprefix("read how to reach the API server").strip()
        assert text == said.format(path=f"kubeconfig {path}")
    with pytest.raises(Rejected, match="not found"):
        LightKube.from_kubeconfig(tmp_path / "missing")


def test_certificates_that_cannot_be_read_are_reported_without_showing_them(tmp_path: Path) -> None:
    user = {"name": "u", "user": {"client-certificate-data": "YWJj", "client-key-data": "c2VjcmV0"}}
    cluster = {"name": "c", "cluster": {"server": "https://nowhere"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump({"clusters": [cluster], "users": [user], "contexts": [context], "current-context": "x"}))
    with pytest.raises(Rejected, match=r"read the TLS files for https://nowhere: SSLError") as caught:
        LightKube.from_kubeconfig(path)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


async def test_in_a_pod_the_service_account_and_the_address_of_the_environment_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightkube.config import kubeconfig

    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    original = KubeConfig.from_service_account
    monkeypatch.setattr(KubeConfig, "from_service_account", lambda: original(tmp_path))
    with pytest.raises(Rejected, match=r"from the service account of this pod: .*No such file.*outside of a cluster name a kubeconfig"):
        LightKube.from_kubeconfig(None)
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "namespace").write_text("operators")
    with pytest.raises(Rejected, match=r"'KUBERNETES_SERVICE_HOST' is missing in the environment of this pod"):
        LightKube.from_kubeconfig(None)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    with pytest.raises(Rejected, match=r"read the TLS files for https://\[fd00::1\]:6443: FileNotFoundError"):
        LightKube.from_kubeconfig(None)
    assert kubeconfig.SERVICE_ACCOUNT == "/var/run/secrets/kubernetes.io/serviceaccount"


async def test_a_token_that_was_rotated_is_read_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    async with a_server() as server:

        async def only_the_new(request: web.Request) -> web.StreamResponse:
            if request.headers["Authorization"] != "Bearer new":
                return web.json_response({"code": 401, "reason": "Unauthorized"}, status=401)
            return await server.ok(request)

        server.answer = only_the_new
        config = KubeConfig.from_one(cluster=Cluster(server=server.url), user=User(token_file=str(token))).get()
        assert config
        kube = LightKube(config)
        with pytest.raises(Rejected, match="401 Unauthorized"):
            await kube.get(POD, "ns", "a")
        token.write_text("new")
        await kube.create(A_POD)
        token.unlink()
        server.says({"code": 401, "reason": "Unauthorized"}, status=401)
        with pytest.raises(Unavailable, match="credentials of the kubeconfig or service account could not be read"):
            await kube.create(A_POD)
        await kube.close()
