"""Rows about watches: what a stream tells, in which order, from where on, and when it says that too much time has passed."""

from __future__ import annotations

from .backend import Backend, cluster, made, pod, secret, version
from .rows import names_of, rejection, row, take


@row
async def a_watch_without_a_version_begins_with_what_is_there(b: Backend) -> None:
    await b.create("secrets", secret("a"))
    await b.create("secrets", secret("b"))
    assert sorted(names_of(await take(b.watch("secrets"), 2))) == [("ADDED", "a"), ("ADDED", "b")]


@row
async def a_watch_from_a_version_tells_only_what_came_after_it(b: Backend) -> None:
    await b.create("secrets", secret("a"))
    _, at = await b.list("secrets")
    await b.create("secrets", secret("b"))
    await b.merge("secrets", "a", {"metadata": {"labels": {"x": "1"}}})
    await b.delete("secrets", "b")
    events = await take(b.watch("secrets", version=at), 3)
    assert names_of(events) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]


@row
async def a_watch_that_was_cut_goes_on_where_it_ended(b: Backend) -> None:
    await b.create("secrets", secret("a"))
    first = await take(b.watch("secrets"), 1)
    await b.merge("secrets", "a", {"metadata": {"labels": {"x": "1"}}})
    await b.merge("secrets", "a", {"metadata": {"labels": {"x": "2"}}})
    events = await take(b.watch("secrets", version=first[0][1]["metadata"]["resourceVersion"]), 2)
    assert [obj["metadata"]["labels"]["x"] for _, obj in events] == ["1", "2"]


@row
async def a_watch_tells_in_the_order_of_versions(b: Backend) -> None:
    _, at = await b.list("secrets")
    for number in range(5):
        await b.create("secrets", secret(f"s{4 - number}"))
    versions = [version(obj) for _, obj in await take(b.watch("secrets", version=at), 5)]
    assert versions == sorted(set(versions))


@row
async def a_watch_tells_of_a_deletion_with_the_last_state_and_a_new_version(b: Backend) -> None:
    stored = await b.create("secrets", secret("a", meta={"labels": {"x": "1"}}))
    await b.delete("secrets", "a")
    ((what, obj),) = await take(b.watch("secrets", version=stored["metadata"]["resourceVersion"]), 1)
    assert (what, obj["metadata"]["labels"]) == ("DELETED", {"x": "1"})
    assert version(obj) > version(stored)


@row
async def a_watch_tells_of_a_pod_that_is_being_deleted_first_as_modified(b: Backend) -> None:
    stored = await b.create("pods", pod("p"))
    await b.delete("pods", "p", grace=30)
    await b.delete("pods", "p", grace=0)
    events = await take(b.watch("pods", version=stored["metadata"]["resourceVersion"]), 3)
    seen = [(what, obj["metadata"]["deletionGracePeriodSeconds"]) for what, obj in events]
    assert seen == [("MODIFIED", 30), ("MODIFIED", 0), ("DELETED", 0)]


@row
async def a_watch_is_silent_about_a_write_that_changed_nothing(b: Backend) -> None:
    stored = await b.create("secrets", secret("a", meta={"labels": {"x": "1"}}))
    await b.merge("secrets", "a", {"metadata": {"labels": {"x": "1"}}})
    await b.merge("secrets", "a", {"metadata": {"labels": {"x": "2"}}})
    ((_, obj),) = await take(b.watch("secrets", version=stored["metadata"]["resourceVersion"]), 1)
    assert obj["metadata"]["labels"] == {"x": "2"}


@row
async def a_watch_tells_of_status_writes(b: Backend) -> None:
    stored = await b.create("whatsappclusters", cluster())
    await b.merge("whatsappclusters", "acme", {"status": {"observedGeneration": 1}}, status=True)
    ((what, obj),) = await take(b.watch("whatsappclusters", version=stored["metadata"]["resourceVersion"]), 1)
    assert (what, obj["status"]["observedGeneration"]) == ("MODIFIED", 1)


@row
async def a_watch_by_label_tells_of_arrivals_and_departures(b: Backend) -> None:
    stored = await b.create("secrets", secret("a"))
    for value in ("1", "1", "2"):
        await b.merge("secrets", "a", {"metadata": {"labels": {"x": value}, "annotations": {"y": value + "!"}}})
        await b.merge("secrets", "a", {"metadata": {"annotations": {"y": value}}})
    events = await take(b.watch("secrets", version=stored["metadata"]["resourceVersion"], labels={"x": "1"}), 5)
    assert names_of(events) == [("ADDED", "a"), ("MODIFIED", "a"), ("MODIFIED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    assert events[-1][1]["metadata"]["labels"] == {"x": "1"}, "the last state that matched"


@row
async def a_watch_by_name_tells_of_one_object(b: Backend) -> None:
    stored = await b.create("leases", made("leases", "a", spec={}))
    await b.create("leases", made("leases", "b", spec={}))
    await b.merge("leases", "a", {"spec": {"holderIdentity": "x"}})
    events = await take(b.watch("leases", version=stored["metadata"]["resourceVersion"], name="a"), 1)
    assert names_of(events) == [("MODIFIED", "a")]


@row
async def a_watch_is_of_one_kind(b: Backend) -> None:
    stored = await b.create("secrets", secret("a"))
    await b.create("leases", made("leases", "l", spec={}))
    await b.create("secrets", secret("b"))
    events = await take(b.watch("secrets", version=stored["metadata"]["resourceVersion"]), 1)
    assert names_of(events) == [("ADDED", "b")]


@row
async def a_watch_ends_by_itself_after_its_time(b: Backend) -> None:
    stored = await b.create("secrets", secret("a"))
    assert await take(b.watch("secrets", version=stored["metadata"]["resourceVersion"], seconds=1), 1) == []


@row
async def a_watch_from_a_version_that_is_too_old_gets_410(b: Backend) -> None:
    await b.create("whatsappclusters", cluster())
    assert await rejection(take(b.watch("whatsappclusters", version="1"), 1)) == (410, "Expired")
