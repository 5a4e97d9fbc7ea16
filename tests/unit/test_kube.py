"""The Kubernetes client, against a small HTTP server: what is sent, and what each answer becomes."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from lightkube import AsyncClient, KubeConfig
from lightkube.config.models import User

from whatsapp_operator.shell.kube import client, kinds
from whatsapp_operator.shell.kube.client import MOST_EVENTS, Unfenced
from whatsapp_operator.shell.kube.errors import AlreadyExists, Conflict, KubeError, NotFound, Rejected, TestFailed, Unavailable
from whatsapp_operator.shell.kube.kinds import KINDS, LEASE, NODE, POD, SECRET, SERVICE, STATEFULSET, WAC, kind_of

from .kube_server import A_POD, PASSWORD, TOKEN, a_client


async def test_the_clock_of_the_api_server_is_that_of_its_last_answer() -> None:
    async with a_client() as (server, kube):
        assert kube.server_time() is None
        for header, at in (
            ("Mon, 04 Jan 2027 12:00:00 GMT", datetime(2027, 1, 4, 12, tzinfo=UTC)),
            ("Mon, 04 Jan 2027 12:00:05 GMT", datetime(2027, 1, 4, 12, 0, 5, tzinfo=UTC)),
            ("yesterday", None),
        ):
            server.sends(body=b'{"kind": "Pod", "metadata": {"name": "a"}}', content_type="application/json", headers={"Date": header})
            await kube.get(POD, "ns", "a")
            assert (kube.server_time(), kube.fenced(Unfenced()).server_time()) == (at, at)


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
        assert await kube.list(POD, "ns", {"x": "y", "z": "1"}, at_least="7") == expected
        await kube.list(POD, None, at_least="7")

        assert [asked[:2] for asked in server.asked] == [
            ("GET", "/api/v1/namespaces/ns/pods/a"),
            ("GET", "/api/v1/nodes/n"),
            ("GET", "/api/v1/namespaces/ns/pods?labelSelector=x%3Dy%2Cmulticonnect.dev%2Fz%3D1"),
            ("GET", "/api/v1/pods"),
            ("GET", "/api/v1/nodes"),
            ("GET", "/apis/multiconnect.dev/v1alpha1/namespaces/ns/whatsappclusters"),
            ("GET", "/api/v1/namespaces/ns/pods?labelSelector=x%3Dy%2Cz%3D1&resourceVersion=7&resourceVersionMatch=NotOlderThan"),
            ("GET", "/api/v1/pods?resourceVersion=7&resourceVersionMatch=NotOlderThan"),
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


APPLIED: dict[str, Any] = {"f:metadata": {"f:annotations": {"f:multiconnect.dev/switchover": {}}}}


@pytest.mark.parametrize(
    ("managed", "kept"),
    [
        ([{"manager": "gitops", "operation": "Apply", "time": "t", "fieldsV1": {**APPLIED, **REPLICAS}}], True),
        ([{"manager": "gitops", "operation": "Update", "fieldsV1": APPLIED}], False),
        ([{"manager": "gitops", "operation": "Apply", "fieldsV1": {"f:metadata": {"f:annotations": {"f:other": {}}}}}], False),
        ([{"manager": "gitops", "operation": "Apply", "fieldsV1": {"f:metadata": None}}, None, 7, {}], False),
        ("x", False),
    ],
    ids=["applied", "annotated", "another annotation", "damaged", "no list"],
)
async def test_of_a_cluster_is_kept_who_applies_a_switchover(managed: object, kept: bool) -> None:
    async with a_client() as (server, kube):
        server.says({"kind": "WhatsAppCluster", "metadata": {"name": "a", "managedFields": managed}})
        found = await kube.get(WAC, "ns", "a")
        entry = {"manager": "gitops", "operation": "Apply", "fieldsV1": APPLIED}
        assert found is not None
        assert found["metadata"] == {"name": "a"} | ({"managedFields": [entry]} if kept else {})


async def test_writes_say_who_writes_and_on_what_condition() -> None:
    async with a_client() as (server, kube):
        await kube.create(A_POD)
        await kube.replace(A_POD)
        await kube.patch_json(POD, "ns", "a", [{"op": "test", "path": "/x", "value": 1}])
        await kube.patch_merge(SERVICE, "ns", "a", {"metadata": {"resourceVersion": "7"}})
        await kube.patch_status(WAC, "ns", "a", {"status": {}})
        await kube.patch_scale(STATEFULSET, "ns", "a", {"spec": {"replicas": 1}})
        assert await kube.delete(POD, "ns", "a", uid="u", resource_version="7")
        assert await kube.delete(POD, "ns", "a", uid="u")

        only = {"apiVersion": "v1", "kind": "DeleteOptions"}
        wac = "/apis/multiconnect.dev/v1alpha1/namespaces/ns/whatsappclusters/a"
        pod, service = "/api/v1/namespaces/ns/pods/a", "/api/v1/namespaces/ns/services/a"
        assert server.asked == [
            ("POST", "/api/v1/namespaces/ns/pods?fieldManager=whatsapp-operator", "application/json", A_POD),
            ("PUT", f"{pod}?fieldManager=whatsapp-operator", "application/json", A_POD),
            ("PATCH", f"{pod}?fieldManager=whatsapp-operator", "application/json-patch+json", [{"op": "test", "path": "/x", "value": 1}]),
            ("PATCH", f"{service}?fieldManager=whatsapp-operator", "application/merge-patch+json", {"metadata": {"resourceVersion": "7"}}),
            ("PATCH", f"{wac}/status?fieldManager=whatsapp-operator", "application/merge-patch+json", {"status": {}}),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/ns/statefulsets/a/scale?fieldManager=whatsapp-operator",
                "application/merge-patch+json",
                {"spec": {"replicas": 1}},
            ),
            ("DELETE", pod, "application/json", only | {"preconditions": {"uid": "u", "resourceVersion": "7"}}),
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
