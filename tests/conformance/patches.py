"""Rows about the resourceVersion and patches: what a write keeps, changes, ignores or rejects."""

from __future__ import annotations

from .backend import Backend, Obj, cluster, made, pod, secret, service, version
from .rows import CONFLICT, INVALID, NOT_FOUND, rejection, row

# --- resourceVersion ----------------------------------------------------------------------------------------------------------


@row
async def version_rises_with_every_write_and_across_kinds(b: Backend) -> None:
    seen = [version(await b.create("whatsappclusters", cluster())), version(await b.create("secrets", secret("a")))]
    seen.append(version(await b.merge("whatsappclusters", "acme", {"metadata": {"labels": {"a": "b"}}})))
    seen.append(version(await b.create("services", service("s"))))
    seen.append(version(await b.merge("whatsappclusters", "acme", {"status": {"observedGeneration": 1}}, status=True)))
    assert seen == sorted(set(seen))


@row
async def version_stays_when_a_merge_changes_nothing(b: Backend) -> None:
    before = await b.create("secrets", secret("a", meta={"labels": {"a": "b"}}))
    assert version(await b.merge("secrets", "a", {"metadata": {"labels": {"a": "b", "none": None}}})) == version(before)


@row
async def version_stays_when_a_status_write_changes_nothing(b: Backend) -> None:
    await b.create("whatsappclusters", cluster())
    body = {"status": {"observedGeneration": 1}}
    before = await b.merge("whatsappclusters", "acme", body, status=True)
    assert version(await b.merge("whatsappclusters", "acme", body, status=True)) == version(before)


@row
async def version_stays_when_a_json_patch_changes_nothing(b: Backend) -> None:
    before = await b.create("secrets", secret("a", meta={"labels": {"a": "b"}}))
    assert version(await b.patch("secrets", "a", [{"op": "add", "path": "/metadata/labels/a", "value": "b"}])) == version(before)


@row
async def version_stays_when_a_replace_changes_nothing(b: Backend) -> None:
    before = await b.create("services", service("s"))
    assert version(await b.replace("services", before)) == version(before)


@row
async def version_stays_when_only_the_ignored_part_differs(b: Backend) -> None:
    await b.create("whatsappclusters", cluster())
    # The first write stores what the schema's defaults add to the status.
    before = await b.merge("whatsappclusters", "acme", {"status": {"observedGeneration": 1}}, status=True)
    assert version(await b.merge("whatsappclusters", "acme", {"status": {"observedGeneration": 5}})) == version(before)


@row
async def merge_with_an_old_version_conflicts(b: Backend) -> None:
    old = await b.create("whatsappclusters", cluster())
    await b.merge("whatsappclusters", "acme", {"metadata": {"labels": {"a": "b"}}})
    body = {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}, "spec": {"shards": 4}}
    assert await rejection(b.merge("whatsappclusters", "acme", body)) == CONFLICT


@row
async def merge_with_the_version_that_is_there_succeeds(b: Backend) -> None:
    stored = await b.create("whatsappclusters", cluster())
    body = {"metadata": {"resourceVersion": stored["metadata"]["resourceVersion"]}, "spec": {"shards": 4}}
    assert (await b.merge("whatsappclusters", "acme", body))["spec"]["shards"] == 4


@row
async def a_status_write_moves_the_version_that_others_go_by(b: Backend) -> None:
    old = await b.create("whatsappclusters", cluster())
    await b.merge("whatsappclusters", "acme", {"status": {"observedGeneration": 1}}, status=True)
    body = {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}, "spec": {"shards": 4}}
    assert await rejection(b.merge("whatsappclusters", "acme", body)) == CONFLICT


@row
async def status_write_with_an_old_version_conflicts(b: Backend) -> None:
    old = await b.create("whatsappclusters", cluster())
    await b.merge("whatsappclusters", "acme", {"spec": {"shards": 4}})
    body = {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}, "status": {"observedGeneration": 1}}
    assert await rejection(b.merge("whatsappclusters", "acme", body, status=True)) == CONFLICT


@row
async def merge_with_an_old_version_that_changes_nothing_conflicts_too(b: Backend) -> None:
    old = await b.create("secrets", secret("a"))
    await b.merge("secrets", "a", {"metadata": {"labels": {"a": "b"}}})
    body = {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"], "labels": {"a": "b"}}}
    assert await rejection(b.merge("secrets", "a", body)) == CONFLICT


@row
async def merge_with_another_uid_is_refused(b: Backend) -> None:
    await b.create("secrets", secret("a"))
    assert await rejection(b.merge("secrets", "a", {"metadata": {"uid": "another", "labels": {"a": "b"}}})) == INVALID


@row
async def replace_with_an_old_version_conflicts(b: Backend) -> None:
    old = await b.create("leases", made("leases", "l", spec={"holderIdentity": "a"}))
    await b.merge("leases", "l", {"spec": {"holderIdentity": "b"}})
    assert await rejection(b.replace("leases", {**old, "spec": {"holderIdentity": "c"}})) == CONFLICT


@row
async def replace_with_the_version_that_is_there_succeeds(b: Backend) -> None:
    old = await b.create("leases", made("leases", "l", spec={"holderIdentity": "a"}))
    assert (await b.replace("leases", {**old, "spec": {"holderIdentity": "c"}}))["spec"]["holderIdentity"] == "c"


@row
async def replace_of_a_cluster_without_a_version_is_refused(b: Backend) -> None:
    await b.create("whatsappclusters", cluster())
    assert await rejection(b.replace("whatsappclusters", cluster())) == INVALID


@row
async def replace_of_what_is_missing(b: Backend) -> None:
    stored = await b.create("secrets", secret("a"))
    await b.delete("secrets", "a")
    assert await rejection(b.replace("secrets", stored)) == NOT_FOUND


# --- patches ----------------------------------------------------------------------------------------------------------------


@row
async def merge_of_what_is_missing(b: Backend) -> None:
    assert await rejection(b.merge("secrets", "none", {"metadata": {"labels": {"a": "b"}}})) == NOT_FOUND


@row
async def merge_with_null_takes_away_and_merges_deeply(b: Backend) -> None:
    await b.create("services", service("s", meta={"labels": {"a": "1", "b": "2"}, "annotations": {"c": "3"}}))
    meta = (await b.merge("services", "s", {"metadata": {"labels": {"a": None, "d": "4"}}}))["metadata"]
    assert (meta["labels"], meta["annotations"]) == ({"b": "2", "d": "4"}, {"c": "3"})


@row
async def merge_replaces_lists_as_a_whole(b: Backend) -> None:
    await b.create("secrets", secret("a", meta={"finalizers": ["example.com/a", "example.com/b"]}))
    meta = (await b.merge("secrets", "a", {"metadata": {"finalizers": ["example.com/c"]}}))["metadata"]
    assert meta["finalizers"] == ["example.com/c"]


@row
async def merge_adds_a_key_to_a_selector_and_keeps_the_others(b: Backend) -> None:
    await b.create("services", service("s", app="web"))
    assert (await b.merge("services", "s", {"spec": {"selector": {"epoch": "1"}}}))["spec"]["selector"] == {"app": "web", "epoch": "1"}


@row
async def json_patch_of_what_is_missing(b: Backend) -> None:
    assert await rejection(b.patch("pods", "none", [{"op": "test", "path": "/kind", "value": "Pod"}])) == NOT_FOUND


@row
async def json_patch_whose_test_fails_is_refused_and_changes_nothing(b: Backend) -> None:
    before = await b.create("secrets", secret("a", meta={"labels": {"a": "b"}}))
    ops = [{"op": "add", "path": "/metadata/labels/c", "value": "d"}, {"op": "test", "path": "/metadata/labels/a", "value": "z"}]
    assert await rejection(b.patch("secrets", "a", ops)) == INVALID
    assert version(await b.get("secrets", "a")) == version(before)


@row
async def json_patch_that_tests_the_uid(b: Backend) -> None:
    stored = await b.create("pods", pod("p", meta={"labels": {"a": "b"}}))
    ops = [
        {"op": "test", "path": "/metadata/uid", "value": stored["metadata"]["uid"]},
        {"op": "add", "path": "/metadata/labels/c", "value": "d"},
    ]
    assert (await b.patch("pods", "p", ops))["metadata"]["labels"] == {"a": "b", "c": "d"}
    ops[0]["value"] = "another"
    assert await rejection(b.patch("pods", "p", ops)) == INVALID


@row
async def json_patch_that_tests_an_old_version_is_refused_as_invalid(b: Backend) -> None:
    old = await b.create("secrets", secret("a"))
    await b.merge("secrets", "a", {"metadata": {"labels": {"a": "b"}}})
    ops = [{"op": "test", "path": "/metadata/resourceVersion", "value": old["metadata"]["resourceVersion"]}]
    assert await rejection(b.patch("secrets", "a", ops)) == INVALID


@row
async def json_patch_test_of_null_passes_for_what_is_absent(b: Backend) -> None:
    await b.create("secrets", secret("a", meta={"labels": {"a": "b"}}))
    ops: list[Obj] = [
        {"op": "test", "path": "/metadata/labels/c", "value": None},
        {"op": "add", "path": "/metadata/labels/c", "value": "d"},
    ]
    assert (await b.patch("secrets", "a", ops))["metadata"]["labels"]["c"] == "d"
    assert await rejection(b.patch("secrets", "a", ops)) == INVALID


@row
async def json_patch_test_of_a_value_fails_for_what_is_absent(b: Backend) -> None:
    await b.create("secrets", secret("a", meta={"labels": {"a": "b"}}))
    assert await rejection(b.patch("secrets", "a", [{"op": "test", "path": "/metadata/labels/c", "value": "d"}])) == INVALID


@row
async def json_patch_cannot_remove_what_is_absent(b: Backend) -> None:
    await b.create("secrets", secret("a", meta={"labels": {"a": "b"}}))
    assert await rejection(b.patch("secrets", "a", [{"op": "remove", "path": "/metadata/labels/c"}])) == INVALID


@row
async def json_patch_replaces_a_key_that_is_absent_but_not_one_below_it(b: Backend) -> None:
    await b.create("secrets", secret("a", meta={"labels": {"a": "b"}}))
    ops = [{"op": "replace", "path": "/metadata/labels/c", "value": "d"}]
    assert (await b.patch("secrets", "a", ops))["metadata"]["labels"] == {"a": "b", "c": "d"}
    assert await rejection(b.patch("secrets", "a", [{"op": "replace", "path": "/metadata/annotations/c", "value": "d"}])) == INVALID


@row
async def json_patch_reads_and_writes_lists(b: Backend) -> None:
    await b.create("secrets", secret("a", meta={"finalizers": ["example.com/a"]}))
    ops = [{"op": "add", "path": "/metadata/finalizers/-", "value": "example.com/b"}]
    assert (await b.patch("secrets", "a", ops))["metadata"]["finalizers"] == ["example.com/a", "example.com/b"]
    ops = [
        {"op": "test", "path": "/metadata/finalizers/0", "value": "example.com/a"},
        {"op": "remove", "path": "/metadata/finalizers/0"},
    ]
    assert (await b.patch("secrets", "a", ops))["metadata"]["finalizers"] == ["example.com/b"]
    assert await rejection(b.patch("secrets", "a", ops)) == INVALID


@row
async def json_patch_cannot_add_below_what_is_absent(b: Backend) -> None:
    await b.create("secrets", secret("a"))
    assert await rejection(b.patch("secrets", "a", [{"op": "add", "path": "/metadata/labels/c", "value": "d"}])) == INVALID


@row
async def json_patch_reads_escaped_slashes(b: Backend) -> None:
    await b.create("secrets", secret("a", meta={"annotations": {"example.com/x": "1"}}))
    ops = [
        {"op": "test", "path": "/metadata/annotations/example.com~1x", "value": "1"},
        {"op": "replace", "path": "/metadata/annotations/example.com~1x", "value": "2"},
    ]
    assert (await b.patch("secrets", "a", ops))["metadata"]["annotations"] == {"example.com/x": "2"}


@row
async def json_patch_moves_the_generation_with_the_spec(b: Backend) -> None:
    await b.create("whatsappclusters", cluster())
    stored = await b.patch("whatsappclusters", "acme", [{"op": "replace", "path": "/spec/shards", "value": 4}])
    assert stored["metadata"]["generation"] == 2
