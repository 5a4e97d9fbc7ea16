"""Rows about deletion and lists: when an object is gone, and what becomes of it until then."""

from __future__ import annotations

from .backend import Backend, cluster, pod, secret, service, version
from .rows import CONFLICT, INVALID, NOT_FOUND, TIME, rejection, row

# --- deletion ---------------------------------------------------------------------------------------------------------------


@row
async def delete_of_what_is_missing(b: Backend) -> None:
    assert await rejection(b.delete("secrets", "none")) == NOT_FOUND


@row
async def delete_with_another_uid_conflicts(b: Backend) -> None:
    await b.create("secrets", secret("a"))
    assert await rejection(b.delete("secrets", "a", uid="another")) == CONFLICT
    await b.get("secrets", "a")


@row
async def delete_with_an_old_version_conflicts(b: Backend) -> None:
    old = await b.create("services", service("s"))
    now = await b.merge("services", "s", {"metadata": {"labels": {"a": "b"}}})
    meta = old["metadata"]
    assert await rejection(b.delete("services", "s", uid=meta["uid"], version=meta["resourceVersion"])) == CONFLICT
    await b.delete("services", "s", uid=meta["uid"], version=now["metadata"]["resourceVersion"])
    assert await rejection(b.get("services", "s")) == NOT_FOUND


@row
async def delete_of_a_pod_on_a_node_waits_for_its_kubelet(b: Backend) -> None:
    before = await b.create("pods", pod("p"))
    await b.delete("pods", "p")
    meta = (await b.get("pods", "p"))["metadata"]
    assert TIME.fullmatch(meta["deletionTimestamp"])
    assert (meta["deletionGracePeriodSeconds"], meta["uid"]) == (30, before["metadata"]["uid"])


@row
async def delete_of_a_pod_tells_when_it_ends_not_when_it_was_asked(b: Backend) -> None:
    await b.create("pods", pod("p"))
    await b.delete("pods", "p", grace=3600)
    meta = (await b.get("pods", "p"))["metadata"]
    assert meta["deletionTimestamp"][:13] > meta["creationTimestamp"][:13], "an hour later"


@row
async def delete_of_a_pod_on_no_node_is_done_at_once(b: Backend) -> None:
    await b.create("pods", pod("p", bound=False, meta={"labels": {"a": "b"}}))
    await b.delete("pods", "p")
    assert await rejection(b.get("pods", "p")) == NOT_FOUND


@row
async def delete_without_grace_is_done_at_once(b: Backend) -> None:
    await b.create("pods", pod("p"))
    await b.delete("pods", "p", grace=0)
    assert await rejection(b.get("pods", "p")) == NOT_FOUND


@row
async def delete_without_grace_ends_a_pod_that_is_already_being_deleted(b: Backend) -> None:
    await b.create("pods", pod("p"))
    await b.delete("pods", "p")
    await b.delete("pods", "p", grace=0)
    assert await rejection(b.get("pods", "p")) == NOT_FOUND


@row
async def delete_of_a_pod_twice_changes_nothing_more(b: Backend) -> None:
    await b.create("pods", pod("p"))
    await b.delete("pods", "p")
    before = await b.get("pods", "p")
    await b.delete("pods", "p")
    assert version(await b.get("pods", "p")) == version(before)


@row
async def labels_of_a_pod_that_is_being_deleted_can_be_written(b: Backend) -> None:
    await b.create("pods", pod("p"))
    await b.delete("pods", "p")
    assert (await b.merge("pods", "p", {"metadata": {"labels": {"a": "b"}}}))["metadata"]["labels"] == {"a": "b"}


@row
async def delete_of_a_pod_with_less_grace_brings_its_end_forward(b: Backend) -> None:
    await b.create("pods", pod("p"))
    await b.delete("pods", "p", grace=3600)
    late = (await b.get("pods", "p"))["metadata"]
    await b.delete("pods", "p", grace=5)
    soon = (await b.get("pods", "p"))["metadata"]
    assert soon["deletionGracePeriodSeconds"] == 5
    assert soon["deletionTimestamp"] < late["deletionTimestamp"]


@row
async def status_write_of_a_pod_may_carry_labels(b: Backend) -> None:
    await b.create("pods", pod("p"))
    stored = await b.merge("pods", "p", {"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "other"}}, status=True)
    assert (stored["metadata"]["labels"], stored["spec"]["nodeName"]) == ({"a": "b"}, "node-0")


@row
async def delete_of_a_pod_moves_its_generation(b: Backend) -> None:
    await b.create("pods", pod("p"))
    await b.delete("pods", "p")
    assert (await b.get("pods", "p"))["metadata"]["generation"] == 2


@row
async def a_name_is_taken_while_its_pod_is_being_deleted(b: Backend) -> None:
    await b.create("pods", pod("p"))
    await b.delete("pods", "p")
    assert await rejection(b.create("pods", pod("p"))) == (409, "AlreadyExists")


@row
async def a_finalizer_keeps_an_object_until_it_is_taken_away(b: Backend) -> None:
    await b.create("whatsappclusters", cluster(meta={"finalizers": ["example.com/wait"]}))
    await b.delete("whatsappclusters", "acme")
    meta = (await b.get("whatsappclusters", "acme"))["metadata"]
    assert TIME.fullmatch(meta["deletionTimestamp"])
    assert meta["generation"] == 2
    await b.merge("whatsappclusters", "acme", {"metadata": {"finalizers": None}})
    assert await rejection(b.get("whatsappclusters", "acme")) == NOT_FOUND


@row
async def a_finalizer_cannot_be_added_to_what_is_being_deleted(b: Backend) -> None:
    await b.create("secrets", secret("a", meta={"finalizers": ["example.com/wait"]}))
    await b.delete("secrets", "a")
    assert await rejection(b.merge("secrets", "a", {"metadata": {"finalizers": ["example.com/wait", "example.com/more"]}})) == INVALID


@row
async def a_successor_of_the_same_name_has_another_uid(b: Backend) -> None:
    first = await b.create("secrets", secret("a"))
    await b.delete("secrets", "a")
    second = await b.create("secrets", secret("a"))
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    assert version(second) > version(first)


@row
async def a_list_is_in_the_order_of_names_and_as_new_as_its_objects(b: Backend) -> None:
    for name in ("c", "a", "b"):
        await b.create("secrets", secret(name))
    found, at = await b.list("secrets")
    assert [one["metadata"]["name"] for one in found] == ["a", "b", "c"]
    assert int(at) >= max(map(version, found))


@row
async def a_list_has_only_what_carries_all_the_labels(b: Backend) -> None:
    await b.create("secrets", secret("a", meta={"labels": {"x": "1", "y": "2"}}))
    await b.create("secrets", secret("b", meta={"labels": {"x": "1"}}))
    await b.create("secrets", secret("c"))
    found, _ = await b.list("secrets", {"x": "1", "y": "2"})
    assert [one["metadata"]["name"] for one in found] == ["a"]
