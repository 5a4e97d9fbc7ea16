"""Rows about creation, the main resource and its status, and the generation: what a write keeps, changes, ignores or rejects."""

from __future__ import annotations

import re

from .backend import Backend, Obj, cluster, made, pod, secret, service, version, workload
from .rows import CONFLICT, NOT_FOUND, TIME, rejection, row

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


# --- lists ------------------------------------------------------------------------------------------------------------------


@row
async def list_not_older_than_a_version_has_what_was_written_up_to_it(b: Backend) -> None:
    for number in range(5):
        name = f"s{number}"
        await b.create("services", service(name))
        stored = await b.merge("services", name, {"metadata": {"labels": {"at": str(number)}}})
        found, _ = await b.list("services", at_least=stored["metadata"]["resourceVersion"])
        assert {one["metadata"]["name"]: one["metadata"]["labels"]["at"] for one in found} == {f"s{n}": str(n) for n in range(number + 1)}
