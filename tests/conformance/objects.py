"""Rows about single objects: what a write keeps, changes, ignores or rejects."""

from __future__ import annotations

import re

from .backend import Backend, Obj, cluster, made, pod, secret, service, version, workload
from .rows import rejection, row

CONFLICT, INVALID, NOT_FOUND = (409, "Conflict"), (422, "Invalid"), (404, "NotFound")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


# --- creation ---------------------------------------------------------------------------------------------------------------


@row
async def create_stamps_uid_time_version_and_generation(b: Backend) -> None:
    meta = (await b.create("whatsappclusters", cluster()))["metadata"]
    assert meta["uid"]
    assert int(meta["resourceVersion"]) > 0
    assert meta["generation"] == 1
    assert TIME.fullmatch(meta["creationTimestamp"])


@row
async def create_of_what_is_there_is_refused(b: Backend) -> None:
    await b.create("secrets", secret("a"))
    assert await rejection(b.create("secrets", secret("a"))) == (409, "AlreadyExists")


@row
async def create_with_a_resource_version_is_refused(b: Backend) -> None:
    code, _ = await rejection(b.create("whatsappclusters", cluster(meta={"resourceVersion": "7"})))
    assert code in {400, 500}


@row
async def create_ignores_uid_time_and_generation_of_the_client(b: Backend) -> None:
    asked = {"uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z", "generation": 7}
    meta = (await b.create("whatsappclusters", cluster(meta=asked)))["metadata"]
    assert meta["uid"] != "mine"
    assert meta["creationTimestamp"] != asked["creationTimestamp"]
    assert meta["generation"] == 1


@row
async def create_with_generate_name_makes_a_name(b: Backend) -> None:
    asked = secret("x")
    asked["metadata"] = {"generateName": "pre-"}
    name = (await b.create("secrets", asked))["metadata"]["name"]
    assert re.fullmatch(r"pre-[a-z0-9]{5}", name)


@row
async def create_ignores_the_status_of_a_cluster(b: Backend) -> None:
    stored = await b.create("whatsappclusters", cluster(status={"shards": 7}))
    assert "shards" not in stored.get("status", {})


@row
async def create_gives_a_cluster_the_defaults_of_its_schema(b: Backend) -> None:
    stored = await b.create("whatsappclusters", cluster())
    assert (stored["spec"]["spares"], stored["spec"]["paused"]) == (1, False)
    assert stored["spec"]["reshard"]["restartTimeoutSeconds"] == 180
    assert stored["status"]["observedGeneration"] == -1
    assert [(one["type"], one["status"]) for one in stored["status"]["conditions"]] == [("Ready", "Unknown")]


@row
async def create_leaves_out_what_the_schema_does_not_name(b: Backend) -> None:
    asked = cluster()
    asked["spec"]["noSuchField"] = 1
    assert "noSuchField" not in (await b.create("whatsappclusters", asked))["spec"]


@row
async def create_of_a_pod_makes_it_pending(b: Backend) -> None:
    assert (await b.create("pods", pod("p", status={"phase": "Running"})))["status"]["phase"] == "Pending"


@row
async def create_makes_no_generation_for_services_secrets_and_leases(b: Backend) -> None:
    for plural, obj in (("services", service("s")), ("secrets", secret("s")), ("leases", made("leases", "s", spec={}))):
        assert "generation" not in (await b.create(plural, obj))["metadata"], plural


@row
async def create_makes_a_generation_for_statefulsets_deployments_budgets_and_pods(b: Backend) -> None:
    budget = made("poddisruptionbudgets", "s", spec={"maxUnavailable": 1, "selector": {"matchLabels": {"app": "none"}}})
    objects = [(plural, workload(plural, "s", 0)) for plural in ("statefulsets", "deployments")]
    for plural, obj in [*objects, ("poddisruptionbudgets", budget), ("pods", pod("s"))]:
        assert (await b.create(plural, obj))["metadata"]["generation"] == 1, plural


@row
async def read_of_what_is_missing(b: Backend) -> None:
    assert await rejection(b.get("secrets", "none")) == NOT_FOUND


# --- main resource and status -------------------------------------------------------------------------------------------------


@row
async def merge_ignores_the_status_of_a_cluster(b: Backend) -> None:
    await b.create("whatsappclusters", cluster())
    stored = await b.merge("whatsappclusters", "acme", {"status": {"shards": 7}, "spec": {"shards": 4}})
    assert stored["spec"]["shards"] == 4
    assert "shards" not in stored["status"]


@row
async def merge_ignores_the_status_of_a_pod(b: Backend) -> None:
    await b.create("pods", pod("p"))
    stored = await b.merge("pods", "p", {"status": {"phase": "Running"}, "metadata": {"labels": {"a": "b"}}})
    assert (stored["status"]["phase"], stored["metadata"]["labels"]) == ("Pending", {"a": "b"})


@row
async def merge_ignores_the_status_of_a_statefulset(b: Backend) -> None:
    await b.create("statefulsets", workload("statefulsets", "web", 0))
    stored = await b.merge("statefulsets", "web", {"status": {"readyReplicas": 7}})
    assert stored["status"].get("readyReplicas", 0) == 0


@row
async def json_patch_ignores_the_status_of_a_cluster(b: Backend) -> None:
    await b.create("whatsappclusters", cluster())
    stored = await b.patch("whatsappclusters", "acme", [{"op": "replace", "path": "/status/observedGeneration", "value": 9}])
    assert stored["status"]["observedGeneration"] == -1


@row
async def replace_ignores_the_status_of_a_cluster(b: Backend) -> None:
    stored = await b.create("whatsappclusters", cluster())
    stored = await b.replace("whatsappclusters", {**stored, "status": {**stored["status"], "observedGeneration": 9}})
    assert stored["status"]["observedGeneration"] == -1


@row
async def status_write_ignores_the_spec_of_a_cluster(b: Backend) -> None:
    await b.create("whatsappclusters", cluster())
    stored = await b.merge("whatsappclusters", "acme", {"spec": {"shards": 9}, "status": {"observedGeneration": 1}}, status=True)
    assert (stored["spec"]["shards"], stored["status"]["observedGeneration"]) == (2, 1)


@row
async def status_write_ignores_labels_and_annotations_of_a_cluster(b: Backend) -> None:
    await b.create("whatsappclusters", cluster(meta={"labels": {"a": "b"}}))
    body = {"metadata": {"labels": {"a": "c"}, "annotations": {"x": "y"}}, "status": {"observedGeneration": 1}}
    meta = (await b.merge("whatsappclusters", "acme", body, status=True))["metadata"]
    assert (meta["labels"], meta.get("annotations")) == ({"a": "b"}, None)


@row
async def status_write_ignores_the_spec_of_a_statefulset(b: Backend) -> None:
    await b.create("statefulsets", workload("statefulsets", "web", 0))
    stored = await b.merge("statefulsets", "web", {"spec": {"replicas": 3}}, status=True)
    assert stored["spec"]["replicas"] == 0


@row
async def status_put_ignores_the_spec_of_a_cluster(b: Backend) -> None:
    stored = await b.create("whatsappclusters", cluster())
    asked = {**stored, "spec": {**stored["spec"], "shards": 9}, "status": {**stored["status"], "observedGeneration": 1}}
    stored = await b.replace("whatsappclusters", asked, status=True)
    assert (stored["spec"]["shards"], stored["status"]["observedGeneration"]) == (2, 1)


@row
async def status_write_of_what_is_missing(b: Backend) -> None:
    assert await rejection(b.merge("whatsappclusters", "none", {"status": {"observedGeneration": 1}}, status=True)) == NOT_FOUND


@row
async def status_write_takes_annotations_of_a_statefulset_and_moves_its_version(b: Backend) -> None:
    made = await b.create("statefulsets", workload("statefulsets", "web", 0))
    stored = await b.merge("statefulsets", "web", {"metadata": {"annotations": {"a": "b"}}}, status=True)
    assert (stored["metadata"]["annotations"]["a"], stored["metadata"]["generation"]) == ("b", 1)
    assert version(stored) > version(made)
    body = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"], "annotations": {"a": "c"}}}
    assert await rejection(b.merge("statefulsets", "web", body, status=True)) == CONFLICT


@row
async def scale_writes_the_number_alone_and_by_version(b: Backend) -> None:
    made = await b.create("statefulsets", workload("statefulsets", "web", 0))
    moved = await b.merge("statefulsets", "web", {"metadata": {"annotations": {"a": "b"}}})
    body: Obj = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "spec": {"replicas": 1}}
    assert await rejection(b.scale("statefulsets", "web", body)) == CONFLICT
    stored = await b.scale("statefulsets", "web", {"metadata": {"annotations": {"a": "c"}}, "spec": {"replicas": 1}})
    assert (stored["spec"]["replicas"], stored["metadata"]["generation"]) == (1, 2)
    assert (stored["spec"]["template"], stored["metadata"]["annotations"]) == (moved["spec"]["template"], {"a": "b"})


# --- generation -------------------------------------------------------------------------------------------------------------


@row
async def generation_moves_with_the_spec_of_a_cluster(b: Backend) -> None:
    await b.create("whatsappclusters", cluster())
    assert (await b.merge("whatsappclusters", "acme", {"spec": {"shards": 4}}))["metadata"]["generation"] == 2


@row
async def generation_stays_when_the_status_of_a_cluster_is_written(b: Backend) -> None:
    await b.create("whatsappclusters", cluster())
    stored = await b.merge("whatsappclusters", "acme", {"status": {"observedGeneration": 1}}, status=True)
    assert stored["metadata"]["generation"] == 1


@row
async def generation_stays_when_labels_and_annotations_are_written(b: Backend) -> None:
    await b.create("whatsappclusters", cluster())
    body = {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}}
    assert (await b.merge("whatsappclusters", "acme", body))["metadata"]["generation"] == 1


@row
async def generation_of_a_statefulset_moves_with_its_replicas_only(b: Backend) -> None:
    await b.create("statefulsets", workload("statefulsets", "web", 0))
    assert (await b.merge("statefulsets", "web", {"metadata": {"annotations": {"a": "b"}}}))["metadata"]["generation"] == 1
    assert (await b.merge("statefulsets", "web", {"spec": {"replicas": 1}}))["metadata"]["generation"] == 2


@row
async def generation_of_the_client_is_ignored(b: Backend) -> None:
    await b.create("whatsappclusters", cluster())
    stored = await b.merge("whatsappclusters", "acme", {"metadata": {"generation": 9, "labels": {"a": "b"}}})
    assert stored["metadata"]["generation"] == 1


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
