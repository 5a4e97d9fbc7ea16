"""Rows about the controllers: garbage collection, StatefulSets, Deployments and disruption budgets."""

from __future__ import annotations

from .backend import NEVER_READY, Backend, Obj, budget, owned_by, pod, secret, service, version, workload
from .rows import rejection, row, take

NOBODY = "00000000-0000-0000-0000-000000000001"
"""A uid that nothing has."""


async def names(b: Backend, plural: str = "pods") -> list[str]:
    found, _ = await b.list(plural)
    return [one["metadata"]["name"] for one in found]


async def until_names(b: Backend, wanted: list[str], plural: str = "pods") -> None:
    async def there() -> bool:
        return await names(b, plural) == wanted

    await b.until(there)


async def until_status(b: Backend, plural: str, name: str, **wanted: object) -> Obj:
    """Wait until a controller has seen the spec as it is and says all this; return the status."""

    async def said() -> bool:
        obj = await b.get(plural, name)
        status = obj.get("status", {})
        return status.get("observedGeneration") == obj["metadata"]["generation"] and all(status.get(k, 0) == v for k, v in wanted.items())

    await b.until(said)
    status: Obj = (await b.get(plural, name))["status"]
    return status


async def a_set(b: Backend, replicas: int) -> None:
    """Make a StatefulSet whose pods are all ready."""
    await b.create("statefulsets", workload("statefulsets", "web", replicas))
    await until_names(b, [f"web-{ordinal}" for ordinal in range(replicas)])
    for ordinal in range(replicas):
        await b.make_ready(f"web-{ordinal}")
    await until_status(b, "statefulsets", "web", readyReplicas=replicas)


async def hash_of(b: Backend, name: str) -> str:
    return str((await b.get("pods", name))["metadata"]["labels"]["controller-revision-hash"])


# --- garbage collection -----------------------------------------------------------------------------------------------------


@row
async def what_an_owner_leaves_behind_is_deleted(b: Backend) -> None:
    owner = await b.create("secrets", secret("owner"))
    await b.create("services", service("owned", meta=owned_by(owner)))
    await b.create("services", service("free"))
    await b.delete("secrets", "owner")
    await until_names(b, ["free"], "services")


@row
async def what_an_owner_leaves_behind_is_deleted_after_it(b: Backend) -> None:
    owner = await b.create("secrets", secret("owner"))
    owned = await b.create("services", service("owned", meta=owned_by(owner)))
    await b.delete("secrets", "owner")
    ((_, last),) = await take(b.watch("secrets", version=owner["metadata"]["resourceVersion"], name="owner"), 1)
    ((what, gone),) = await take(b.watch("services", version=owned["metadata"]["resourceVersion"]), 1)
    assert what == "DELETED"
    assert version(gone) > version(last)


@row
async def what_the_owned_own_is_deleted_too(b: Backend) -> None:
    first = await b.create("secrets", secret("first"))
    second = await b.create("secrets", secret("second", meta=owned_by(first)))
    await b.create("services", service("third", meta=owned_by(second)))
    await b.delete("secrets", "first")
    await until_names(b, [], "services")
    await until_names(b, [], "secrets")


@row
async def what_is_created_for_an_owner_that_never_was_is_deleted(b: Backend) -> None:
    await b.create("services", service("late", meta=owned_by(secret("owner", meta={"uid": NOBODY}))))
    await until_names(b, [], "services")


@row
async def what_has_another_owner_stays_and_forgets_the_one_that_is_gone(b: Backend) -> None:
    first, second = await b.create("secrets", secret("first")), await b.create("secrets", secret("second"))
    await b.create("services", service("owned", meta=owned_by(first, second)))
    await b.delete("secrets", "first")

    async def forgotten() -> bool:
        owners = (await b.get("services", "owned"))["metadata"]["ownerReferences"]
        return [one["name"] for one in owners] == ["second"]

    await b.until(forgotten)


@row
async def an_owner_of_the_same_name_but_another_uid_is_no_owner(b: Backend) -> None:
    await b.create("secrets", secret("owner"))
    await b.create("services", service("late", meta=owned_by(secret("owner", meta={"uid": NOBODY}))))
    await until_names(b, [], "services")


@row
async def the_status_of_a_set_counts_a_pod_that_leaves_as_ready_but_not_as_updated(b: Backend) -> None:
    await a_set(b, 2)
    await b.delete("pods", "web-1", grace=30)
    await until_status(b, "statefulsets", "web", replicas=2, readyReplicas=2, updatedReplicas=1)


@row
async def orphans_stay_without_an_owner(b: Backend) -> None:
    owner = await b.create("secrets", secret("owner"))
    await b.create("services", service("owned", meta=owned_by(owner)))
    await b.delete("secrets", "owner", propagation="Orphan")

    async def let_go() -> bool:
        gone = await names(b, "secrets") == []
        return gone and not (await b.get("services", "owned"))["metadata"].get("ownerReferences")

    await b.until(let_go)


@row
async def a_statefulset_that_is_deleted_takes_its_pods_along(b: Backend) -> None:
    await a_set(b, 2)
    await b.delete("statefulsets", "web")

    async def leaving() -> bool:
        found, _ = await b.list("pods")
        return all("deletionTimestamp" in one["metadata"] for one in found)

    await b.until(leaving)


# --- StatefulSets -----------------------------------------------------------------------------------------------------------


@row
async def a_parallel_set_makes_all_pods_without_waiting(b: Backend) -> None:
    await b.create("statefulsets", workload("statefulsets", "web", 4, image=NEVER_READY))
    await until_names(b, ["web-0", "web-1", "web-2", "web-3"])


@row
async def pods_of_a_set_have_labels_and_an_owner(b: Backend) -> None:
    stored = await b.create("statefulsets", workload("statefulsets", "web", 1))
    await until_names(b, ["web-0"])
    meta = (await b.get("pods", "web-0"))["metadata"]
    labels = {key: meta["labels"].get(key) for key in ("app", "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index")}
    assert labels == {"app": "web", "statefulset.kubernetes.io/pod-name": "web-0", "apps.kubernetes.io/pod-index": "0"}
    (owner,) = meta["ownerReferences"]
    assert owner == {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "name": "web",
        "uid": stored["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


@row
async def the_revision_of_a_set_is_named_after_it_and_on_its_pods(b: Backend) -> None:
    await a_set(b, 2)
    status = await until_status(b, "statefulsets", "web", replicas=2, readyReplicas=2)
    assert status["updateRevision"].startswith("web-")
    assert {await hash_of(b, "web-0"), await hash_of(b, "web-1")} == {status["updateRevision"]}


@row
async def the_status_of_a_set_counts_its_pods(b: Backend) -> None:
    await a_set(b, 3)
    status = await until_status(b, "statefulsets", "web", replicas=3, readyReplicas=3, availableReplicas=3)
    assert status["currentRevision"] == status["updateRevision"]
    assert (status["currentReplicas"], status["updatedReplicas"]) == (3, 3)


@row
async def a_pod_that_was_deleted_comes_back_under_its_name(b: Backend) -> None:
    await a_set(b, 2)
    before = await b.get("pods", "web-1")
    await b.delete("pods", "web-1", grace=0)

    async def back() -> bool:
        found, _ = await b.list("pods")
        return [one["metadata"]["uid"] != before["metadata"]["uid"] for one in found if one["metadata"]["name"] == "web-1"] == [True]

    await b.until(back)


@row
async def a_pod_comes_back_only_when_the_former_is_gone(b: Backend) -> None:
    await a_set(b, 2)
    before = await b.get("pods", "web-1")
    await b.delete("pods", "web-1")
    events = b.watch("pods", version=before["metadata"]["resourceVersion"], name="web-1")
    await b.end_pod("web-1")
    seen = [what for what, _ in await take(events, 4)]
    assert seen[-2:] == ["DELETED", "ADDED"]
    assert set(seen[:-2]) == {"MODIFIED"}


@row
async def a_pod_that_failed_is_replaced(b: Backend) -> None:
    await a_set(b, 2)
    before = await b.get("pods", "web-1")
    await b.merge("pods", "web-1", {"status": {"phase": "Failed"}}, status=True)

    async def replaced() -> bool:
        found, _ = await b.list("pods")
        return [one["metadata"]["uid"] != before["metadata"]["uid"] for one in found if one["metadata"]["name"] == "web-1"] == [True]

    await b.until(replaced)


@row
async def a_parallel_set_condemns_the_highest_ordinals_all_without_waiting(b: Backend) -> None:
    await a_set(b, 5)
    await b.merge("statefulsets", "web", {"spec": {"replicas": 2}})

    async def condemned() -> bool:
        found, _ = await b.list("pods")
        leaving = {one["metadata"]["name"] for one in found if "deletionTimestamp" in one["metadata"]}
        gone = {"web-2", "web-3", "web-4"} - {one["metadata"]["name"] for one in found}
        return leaving | gone == {"web-2", "web-3", "web-4"}

    await b.until(condemned)
    assert {"web-0", "web-1"} <= set(await names(b))


@row
async def a_parallel_set_condemns_the_highest_ordinal_first(b: Backend) -> None:
    await a_set(b, 5)
    _, at = await b.list("pods")
    await b.merge("statefulsets", "web", {"spec": {"replicas": 1}})
    marked: list[str] = []
    async for _, obj in b.watch("pods", version=at):
        if "deletionTimestamp" in obj["metadata"] and obj["metadata"]["name"] not in marked:
            marked.append(obj["metadata"]["name"])
        if len(marked) == 4:
            break
    assert marked[0] == "web-4"
    assert sorted(marked) == ["web-1", "web-2", "web-3", "web-4"]


@row
async def the_status_of_a_set_counts_pods_that_are_being_deleted(b: Backend) -> None:
    await a_set(b, 2)
    await b.merge("statefulsets", "web", {"spec": {"replicas": 1}})

    async def leaving() -> bool:
        found, _ = await b.list("pods")
        return any("deletionTimestamp" in one["metadata"] for one in found)

    await b.until(leaving)
    await b.end_pod("web-1")
    await until_status(b, "statefulsets", "web", replicas=1, readyReplicas=1)


@row
async def a_name_that_another_pod_has_is_left_alone(b: Backend) -> None:
    foreign = await b.create("pods", pod("web-1"))
    await b.create("statefulsets", workload("statefulsets", "web", 3))
    await until_names(b, ["web-0", "web-1", "web-2"])
    meta = (await b.get("pods", "web-1"))["metadata"]
    assert (meta["uid"], meta.get("ownerReferences")) == (foreign["metadata"]["uid"], None)


async def is_owned(b: Backend, name: str) -> bool:
    return bool((await b.get("pods", name))["metadata"].get("ownerReferences"))


@row
async def a_set_lets_go_of_a_pod_that_lost_the_label_and_makes_no_other_until_it_has_it_again(b: Backend) -> None:
    await a_set(b, 2)
    before = await b.get("pods", "web-1")
    assert (before["spec"]["hostname"], before["spec"]["subdomain"]) == ("web-1", "web")
    await b.merge("pods", "web-1", {"metadata": {"labels": {"app": None}}})

    async def let_go() -> bool:
        return not await is_owned(b, "web-1")

    await b.until(let_go)
    await until_status(b, "statefulsets", "web", replicas=1)
    await until_names(b, ["web-0", "web-1"])
    await b.merge("pods", "web-1", {"metadata": {"labels": {"app": "web"}}})

    async def taken_back() -> bool:
        return await is_owned(b, "web-1")

    await b.until(taken_back)
    after = (await b.get("pods", "web-1"))["metadata"]
    assert (after["uid"], after["ownerReferences"]) == (before["metadata"]["uid"], before["metadata"]["ownerReferences"])
    await until_status(b, "statefulsets", "web", replicas=2)


@row
async def a_deployment_lets_go_of_a_pod_that_lost_the_label_and_makes_another(b: Backend) -> None:
    await b.create("deployments", workload("deployments", "web", 1))

    async def made() -> bool:
        return len(await names(b)) == 1

    await b.until(made)
    (first,) = await names(b)
    await b.merge("pods", first, {"metadata": {"labels": {"app": None}}})

    async def another() -> bool:
        return len(await names(b)) == 2 and not await is_owned(b, first)

    await b.until(another)


@row
async def on_delete_replaces_nothing_by_itself(b: Backend) -> None:
    await a_set(b, 2)
    before = await until_status(b, "statefulsets", "web", replicas=2)
    uids = [one["metadata"]["uid"] for one in (await b.list("pods"))[0]]
    await b.merge("statefulsets", "web", {"spec": {"template": {"metadata": {"annotations": {"release": "b"}}}}})
    status = await until_status(b, "statefulsets", "web", replicas=2, updatedReplicas=0)
    assert status["updateRevision"] != before["updateRevision"]
    assert status["currentRevision"] == before["currentRevision"]
    assert [one["metadata"]["uid"] for one in (await b.list("pods"))[0]] == uids


@row
async def on_delete_brings_a_deleted_pod_back_with_the_new_template(b: Backend) -> None:
    await a_set(b, 2)
    old = await hash_of(b, "web-0")
    await b.merge("statefulsets", "web", {"spec": {"template": {"metadata": {"annotations": {"release": "b"}}}}})
    await until_status(b, "statefulsets", "web", replicas=2)
    await b.delete("pods", "web-1", grace=0)
    status = await until_status(b, "statefulsets", "web", replicas=2, updatedReplicas=1)
    assert (await hash_of(b, "web-0"), await hash_of(b, "web-1")) == (old, status["updateRevision"])
    assert (await b.get("pods", "web-1"))["metadata"]["annotations"]["release"] == "b"


@row
async def on_delete_gives_additional_pods_the_new_template(b: Backend) -> None:
    await a_set(b, 1)
    await b.merge("statefulsets", "web", {"spec": {"replicas": 2, "template": {"metadata": {"annotations": {"release": "b"}}}}})
    await until_names(b, ["web-0", "web-1"])
    status = await until_status(b, "statefulsets", "web", replicas=2)
    assert await hash_of(b, "web-1") == status["updateRevision"] != await hash_of(b, "web-0")


@row
async def an_earlier_template_is_an_earlier_revision(b: Backend) -> None:
    await a_set(b, 1)
    before = await until_status(b, "statefulsets", "web", replicas=1)
    for release in ("b", None):
        await b.merge("statefulsets", "web", {"spec": {"template": {"metadata": {"annotations": {"release": release}}}}})
        status = await until_status(b, "statefulsets", "web", replicas=1)
    assert status["updateRevision"] == before["updateRevision"]


@row
async def the_number_of_replicas_is_no_part_of_the_revision(b: Backend) -> None:
    await a_set(b, 1)
    before = await until_status(b, "statefulsets", "web", replicas=1)
    await b.merge("statefulsets", "web", {"spec": {"replicas": 2}})
    status = await until_status(b, "statefulsets", "web", replicas=2)
    assert status["updateRevision"] == before["updateRevision"]


# --- Deployments ------------------------------------------------------------------------------------------------------------


@row
async def a_deployment_replaces_a_pod_under_another_name_without_waiting(b: Backend) -> None:
    await b.create("deployments", workload("deployments", "web", 2))

    async def two() -> bool:
        return len(await names(b)) == 2

    await b.until(two)
    first = await names(b)
    assert all(name.startswith("web-") for name in first)
    await b.delete("pods", first[0])

    async def another() -> bool:
        found, _ = await b.list("pods")
        staying = {one["metadata"]["name"] for one in found if "deletionTimestamp" not in one["metadata"]}
        return len(staying) == 2 and first[0] not in staying

    await b.until(another)


# --- disruption budgets -------------------------------------------------------------------------------------------------------


@row
async def a_budget_counts_what_its_workload_asks_for(b: Backend) -> None:
    await a_set(b, 3)
    await b.create("poddisruptionbudgets", budget("web", "web", 1))
    status = await until_status(b, "poddisruptionbudgets", "web", expectedPods=3, currentHealthy=3)
    assert (status["desiredHealthy"], status["disruptionsAllowed"]) == (2, 1)


@row
async def a_budget_counts_a_missing_pod_as_a_disruption(b: Backend) -> None:
    await b.create("pods", pod("web-2"))
    await b.create("statefulsets", workload("statefulsets", "web", 3))
    await b.create("poddisruptionbudgets", budget("web", "web", 1))
    await until_names(b, ["web-0", "web-1", "web-2"])
    for ordinal in (0, 1):
        await b.make_ready(f"web-{ordinal}")
    status = await until_status(b, "poddisruptionbudgets", "web", expectedPods=3, currentHealthy=2)
    assert (status["desiredHealthy"], status["disruptionsAllowed"]) == (2, 0)
    assert await rejection(b.evict("web-0")) == (429, "TooManyRequests")


@row
async def a_budget_counts_a_pod_that_is_not_ready_as_a_disruption(b: Backend) -> None:
    await a_set(b, 2)
    await b.create("poddisruptionbudgets", budget("web", "web", 1))
    template = {"spec": {"nodeName": "node-0", "containers": [{"name": "web", "image": NEVER_READY}]}}
    await b.merge("statefulsets", "web", {"spec": {"replicas": 3, "template": template}})
    status = await until_status(b, "poddisruptionbudgets", "web", expectedPods=3, currentHealthy=2)
    assert status["disruptionsAllowed"] == 0
    assert await rejection(b.evict("web-0")) == (429, "TooManyRequests")


@row
async def a_pod_that_never_ran_may_be_evicted_whatever_its_budget_says(b: Backend) -> None:
    await b.create("statefulsets", workload("statefulsets", "web", 2, image=NEVER_READY))
    await b.create("poddisruptionbudgets", budget("web", "web", 0))
    await until_names(b, ["web-0", "web-1"])
    await until_status(b, "poddisruptionbudgets", "web", expectedPods=2)
    before = await b.get("pods", "web-1")
    await b.evict("web-1")

    async def leaving() -> bool:
        found, _ = await b.list("pods")
        return not any(one["metadata"]["uid"] == before["metadata"]["uid"] and "deletionTimestamp" not in one["metadata"] for one in found)

    await b.until(leaving)


@row
async def a_budget_of_none_allows_no_eviction(b: Backend) -> None:
    await a_set(b, 2)
    await b.create("poddisruptionbudgets", budget("web", "web", 0))
    await until_status(b, "poddisruptionbudgets", "web", currentHealthy=2)
    assert await rejection(b.evict("web-0")) == (429, "TooManyRequests")
    assert "deletionTimestamp" not in (await b.get("pods", "web-0"))["metadata"]


@row
async def an_eviction_marks_the_pod_and_uses_up_the_budget(b: Backend) -> None:
    await a_set(b, 3)
    await b.create("poddisruptionbudgets", budget("web", "web", 1))
    await until_status(b, "poddisruptionbudgets", "web", disruptionsAllowed=1)
    await b.evict("web-1")
    evicted = await b.get("pods", "web-1")
    assert "deletionTimestamp" in evicted["metadata"]
    reasons = [one["reason"] for one in evicted["status"]["conditions"] if one["type"] == "DisruptionTarget"]
    assert reasons == ["EvictionByEvictionAPI"]
    assert await rejection(b.evict("web-0")) == (429, "TooManyRequests")


@row
async def a_budget_that_was_just_changed_allows_nothing_until_it_was_looked_at(b: Backend) -> None:
    await a_set(b, 3)
    await b.create("poddisruptionbudgets", budget("web", "web", 2))
    await until_status(b, "poddisruptionbudgets", "web", disruptionsAllowed=2)
    await b.merge("poddisruptionbudgets", "web", {"spec": {"maxUnavailable": 0}})
    assert await rejection(b.evict("web-0")) == (429, "TooManyRequests")


@row
async def an_eviction_of_what_is_missing(b: Backend) -> None:
    assert await rejection(b.evict("none")) == (404, "NotFound")


@row
async def a_pod_without_a_budget_may_be_evicted(b: Backend) -> None:
    await a_set(b, 1)
    await b.evict("web-0")
    assert "deletionTimestamp" in (await b.get("pods", "web-0"))["metadata"]
