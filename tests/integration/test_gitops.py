"""A WhatsAppCluster whose manifest a GitOps tool applies again and again, and one made again over what an orphaning deletion left."""

from __future__ import annotations

import json
from typing import Any

from localkube import Obj

from .environment import KINDS, SWITCHOVER, Environment, Harness, condition_of, now

TRACKING = "argocd.argoproj.io/tracking-id"


class Manifest:
    """What stands in Git, and what Argo CD does with it: server-side apply, by force."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        meta = {"name": "acme", "labels": {"app.kubernetes.io/instance": "acme"}, "annotations": {TRACKING: "acme:multiconnect.dev"}}
        client = {"type": "Simulator", "simulator": {"restartSeconds": 1}}
        self.obj: dict[str, Any] = {
            "apiVersion": "multiconnect.dev/v1alpha1",
            "kind": "WhatsAppCluster",
            "metadata": meta,
            "spec": {"shards": 2, "spares": 1, "client": client},
        }

    async def _kubectl(self, *args: str) -> str:
        options = ("--server-side", "--field-manager=argocd-controller", "-f", "-")
        return await self._environment.kubectl(*args, *options, input=json.dumps(self.obj))

    async def apply(self) -> None:
        await self._kubectl("apply", "--force-conflicts")

    async def diff(self) -> str:
        return await self._kubectl("diff", "--force-conflicts")


def moves(environment: Environment) -> int:
    return len(environment.seen.commits)


async def test_what_is_applied_again_and_again_differs_in_nothing_and_costs_no_write(harness: Harness, environment: Environment) -> None:
    manifest = Manifest(environment)
    await manifest.apply()
    await environment.at_rest()
    version, since = environment.cluster()["metadata"]["resourceVersion"], now()
    assert await manifest.diff() == ""
    for _ in range(5):
        await manifest.apply()

    assert environment.cluster()["metadata"]["resourceVersion"] == version
    assert not harness.writes(since=since, namespace=environment.namespace)
    items: list[Obj] = json.loads(await environment.kubectl("get", KINDS, "-o", "json"))["items"]
    made = [obj["metadata"] for obj in items if obj["kind"] not in {"WhatsAppCluster", "ConfigMap"}]
    assert made
    # Argo CD would prune what carries its mark and is not in Git; what has an owner it leaves alone.
    assert not [meta["name"] for meta in made if TRACKING in (meta.get("annotations") or {})]
    assert not [meta["name"] for meta in made if not meta.get("ownerReferences")]


async def test_a_switchover_in_a_manifest_moves_the_shard_once_and_the_resource_says_where_to_remove_it(environment: Environment) -> None:
    manifest = Manifest(environment)
    await manifest.apply()
    await environment.at_rest()
    before = moves(environment)
    manifest.obj["metadata"]["annotations"][SWITCHOVER] = "0"
    await manifest.apply()
    assert (await environment.commit(0, before)).holder
    await environment.at_rest()
    await manifest.apply()

    assert "argocd-controller" in await environment.word("Stalled", "FieldInvalid")
    for _ in range(3):
        await manifest.apply()
    assert await manifest.diff() == "", "the operator does not remove what Git puts back"
    assert moves(environment) == before + 1

    # As it says: not in Git, but by hand.
    del manifest.obj["metadata"]["annotations"][SWITCHOVER]
    await manifest.apply()
    await environment.at_rest()
    await environment.kubectl("annotate", "wac", "acme", f"{SWITCHOVER}=0")
    await manifest.apply()
    assert (await environment.commit(0, before + 1)).holder
    await environment.at_rest()
    assert moves(environment) == before + 2


async def test_a_cluster_made_again_over_what_was_orphaned_names_it_and_takes_it_over_by_its_owner_reference(
    harness: Harness, environment: Environment
) -> None:
    await environment.created(shards=2, spares=1)
    pods = {pod["metadata"]["uid"] for pod in environment.pods("coreapp")}
    before, mine = moves(environment), "multiconnect.dev/cluster=acme"
    await environment.kubectl("delete", "wac", "acme", "--cascade=orphan")
    await environment.until(lambda _: not environment.cluster(), "the cluster is gone")
    since = now()
    await environment.create(shards=2, spares=1)
    said = await environment.word("Stalled", "NameConflict")
    assert all(name in said for name in ("StatefulSet acme-coreapp", "Service acme-shard-1", "Secret acme-admin", "owner reference")), said

    uid = environment.cluster()["metadata"]["uid"]
    owner = {"apiVersion": "multiconnect.dev/v1alpha1", "kind": "WhatsAppCluster", "name": "acme", "uid": uid, "controller": True}
    patch = json.dumps({"metadata": {"ownerReferences": [owner]}})
    for kind in ("secrets", "services", "statefulsets", "deployments", "poddisruptionbudgets", "networkpolicies"):
        await environment.kubectl(
            "patch", *(await environment.kubectl("get", kind, "-l", mine, "-o", "name")).split(), "--type=merge", "-p", patch
        )
    await environment.at_rest()

    assert {pod["metadata"]["uid"] for pod in environment.pods("coreapp")} == pods
    assert moves(environment) == before
    writes = [one for one in harness.writes(since=since, namespace=environment.namespace) if one.resource != "whatsappclusters"]
    assert not [one for one in writes if one.verb in {"create", "delete"} and one.code < 300], "nothing was made or ended"
    assert not condition_of(environment.status(), "Stalled", "NameConflict")
