"""What the API server really answers, and what the client makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from localkube.plane.controlplane import ControlPlane
from localkube.plane.operators import await_crd
from whatsapp_operator.shell.kube.client import CallLimits, LightKube
from whatsapp_operator.shell.kube.errors import AlreadyExists, Conflict, NotFound, Rejected, TestFailed
from whatsapp_operator.shell.kube.kinds import LEASE, NODE, POD, SECRET, SERVICE, STATEFULSET, WAC, Kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from whatsapp_operator.shell.kube.kinds import Obj

pytestmark = pytest.mark.integration

CRDS = Path(__file__).resolve().parents[2] / "crds"
_numbers = itertools.count(1)


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    name = f"kube-{next(_numbers)}"
    control_plane.kubectl("create", "namespace", name)
    return name


@asynccontextmanager
async def the_client(path: Path) -> AsyncIterator[LightKube]:
    """A patient one: the API server may be busy, and holds the first calls for a new kind for some seconds."""
    kube = LightKube.from_kubeconfig(path, limits=CallLimits(read=30, write=30))
    try:
        async with asyncio.timeout(60):
            yield kube
    finally:
        await kube.close()


def a_service(namespace: str, name: str = "shard-0", **labels: str) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"selector": {"epoch": "none"}, "ports": [{"port": 6250}]},
    }


async def test_an_object_from_its_creation_to_its_end(control_plane: ControlPlane, namespace: str) -> None:
    async with the_client(control_plane.admin_kubeconfig) as kube:
        assert await kube.get(SERVICE, namespace, "shard-0") is None
        created = await kube.create(a_service(namespace, cluster="acme"))
        with pytest.raises(AlreadyExists, match=f"create Service {namespace}/shard-0: 409 AlreadyExists"):
            await kube.create(a_service(namespace))
        assert await kube.get(SERVICE, namespace, "shard-0") == created
        await kube.create(a_service(namespace, "other", cluster="other"))
        assert [s["metadata"]["name"] for s in await kube.list(SERVICE, namespace, {"cluster": "acme"})] == ["shard-0"]
        at = created["metadata"]["resourceVersion"]
        assert [s["metadata"]["name"] for s in await kube.list(SERVICE, namespace, {"cluster": "acme"}, at_least=at)] == ["shard-0"]
        everywhere = await kube.list(SERVICE, None)
        assert {("v1", "Service")} == {(s["apiVersion"], s["kind"]) for s in everywhere}
        assert {namespace, "default"} <= {s["metadata"]["namespace"] for s in everywhere}

        swapped = created | {"spec": created["spec"] | {"selector": {"epoch": "7-abc"}}}
        stored = await kube.replace(swapped)
        assert stored["spec"]["selector"] == {"epoch": "7-abc"}
        with pytest.raises(Conflict, match="409 Conflict"):
            await kube.replace(swapped)
        unchanged = await kube.replace(stored)
        assert unchanged["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"]
        stale = {"metadata": {"resourceVersion": created["metadata"]["resourceVersion"]}, "spec": {"selector": {"epoch": "late"}}}
        with pytest.raises(Conflict):
            await kube.patch_merge(SERVICE, namespace, "shard-0", stale)
        stale["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"]
        merged = await kube.patch_merge(SERVICE, namespace, "shard-0", stale)

        with pytest.raises(Conflict):
            await kube.delete(SERVICE, namespace, "shard-0", uid="00000000-0000-0000-0000-000000000000")
        uid = created["metadata"]["uid"]
        with pytest.raises(Conflict):
            await kube.delete(SERVICE, namespace, "shard-0", uid=uid, resource_version=stored["metadata"]["resourceVersion"])
        assert await kube.get(SERVICE, namespace, "shard-0") == merged
        assert await kube.delete(SERVICE, namespace, "shard-0", uid=uid, resource_version=merged["metadata"]["resourceVersion"])
        assert await kube.delete(SERVICE, namespace, "shard-0", uid=uid) is False
        with pytest.raises((NotFound, Conflict)):
            await kube.replace(merged)
        with pytest.raises(NotFound):
            await kube.patch_merge(SERVICE, namespace, "shard-0", {})


async def test_a_json_patch_tests_before_it_writes(control_plane: ControlPlane, namespace: str) -> None:
    async with the_client(control_plane.admin_kubeconfig) as kube:
        created = await kube.create(a_service(namespace, epoch="1-a"))
        uid = {"op": "test", "path": "/metadata/uid", "value": created["metadata"]["uid"]}
        epoch = {"op": "test", "path": "/metadata/labels/epoch", "value": "1-a"}
        taken = {"op": "add", "path": "/metadata/labels/epoch", "value": "2-b"}
        for ops in (
            [uid | {"value": "x"}, taken],
            [uid, epoch | {"value": "1-b"}, taken],
            [uid, epoch | {"path": "/metadata/annotations/epoch"}, taken],
            [{"op": "remove", "path": "/metadata/labels/missing"}],
        ):
            with pytest.raises(TestFailed, match="a test or a path of the patch does not match"):
                await kube.patch_json(SERVICE, namespace, "shard-0", ops)
        patched = await kube.patch_json(SERVICE, namespace, "shard-0", [uid, epoch, taken])
        assert patched["metadata"]["labels"] == {"epoch": "2-b"}
        with pytest.raises(Rejected, match=r"422 Invalid: .*is invalid"):
            await kube.patch_json(SERVICE, namespace, "shard-0", [{"op": "replace", "path": "/spec/ports/0/port", "value": -1}])
        with pytest.raises(NotFound):
            await kube.patch_json(SERVICE, namespace, "missing", [uid])


async def test_status_is_patched_by_the_version_that_was_looked_at(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("apply", "--server-side", "-f", str(CRDS))
    await_crd(control_plane)
    async with the_client(control_plane.admin_kubeconfig) as kube:
        spec = {"shards": 2, "spares": 1, "client": {"type": "Simulator"}}
        wac = {"apiVersion": WAC.api_version, "kind": WAC.kind, "metadata": {"name": "acme", "namespace": namespace}, "spec": spec}
        for _ in range(100):  # the API server serves a new kind a moment after it calls it established
            with contextlib.suppress(NotFound):
                created = await kube.create(wac)
                break
            await asyncio.sleep(0.1)
        version = {"resourceVersion": created["metadata"]["resourceVersion"]}
        body: dict[str, Any] = {"metadata": version, "status": {"observedGeneration": 1}}
        patched = await kube.patch_status(WAC, namespace, "acme", body)
        assert patched["status"]["observedGeneration"] == 1
        assert patched["spec"] == created["spec"]
        with pytest.raises(Conflict, match="patch status WhatsAppCluster"):
            await kube.patch_status(WAC, namespace, "acme", body | {"status": {"observedGeneration": 2}})
        assert [w["kind"] for w in await kube.list(WAC, None)].count("WhatsAppCluster") >= 1


async def test_what_is_not_served_or_not_there_is_not_taken_for_an_absent_object(control_plane: ControlPlane) -> None:
    unknown = Kind("nobody.dev/v1", "Nothing", "nothings")
    async with the_client(control_plane.admin_kubeconfig) as kube:
        for call in (kube.get(unknown, "default", "a"), kube.list(unknown, "default"), kube.delete(unknown, "default", "a", uid="u")):
            with pytest.raises(NotFound, match=r"are nothings of nobody.dev/v1 installed\?"):
                await call
        with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
            await kube.create(a_service("nowhere"))
        assert await kube.get(POD, "nowhere", "a") is None
        assert await kube.get(NODE, None, "nowhere") is None


async def test_what_is_forbidden_or_invalid_is_refused(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    control_plane.kubectl("create", "serviceaccount", "nobody", "-n", namespace)
    path = control_plane.service_account_kubeconfig(namespace, "nobody", tmp_path / "kubeconfig")
    async with the_client(path) as kube:
        with pytest.raises(Rejected, match=r'403 Forbidden: .*cannot get resource "secrets"'):
            await kube.get(SECRET, namespace, "s")
        with pytest.raises(Rejected, match='cannot list resource "pods"'):
            await kube.list(POD, None)
        with pytest.raises(Rejected, match='cannot watch resource "leases"'):
            async for _ in kube.watch(LEASE, namespace, name="op"):
                pass
    async with the_client(control_plane.admin_kubeconfig) as kube:
        with pytest.raises(Rejected, match="422 Invalid"):
            await kube.create(a_service(namespace) | {"spec": {"ports": []}})
        claim = {"metadata": {"name": "s", "namespace": namespace}, "apiVersion": "apps/v1", "kind": STATEFULSET.kind, "spec": {"x": "y"}}
        with pytest.raises(Rejected):
            await kube.create(claim)
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": namespace}, "data": {"p": "hunter2!"}}
        with pytest.raises(Rejected) as caught:
            await kube.create(secret)
        assert "hunter2" not in str(caught.value)


async def test_a_watch_yields_one_lease_and_ends(control_plane: ControlPlane, namespace: str) -> None:
    async with the_client(control_plane.admin_kubeconfig) as kube:

        def a_lease(name: str) -> Obj:
            return {"apiVersion": LEASE.api_version, "kind": "Lease", "metadata": {"name": name, "namespace": namespace}, "spec": {}}

        await kube.create(a_lease("other"))
        lease = await kube.create(a_lease("op"))
        async with aclosing(kube.watch(LEASE, namespace, name="op", server_timeout=20)) as events:
            assert await anext(events) == ("ADDED", lease)
            lease = await kube.replace(lease | {"spec": {"holderIdentity": "a"}})
            assert await anext(events) == ("MODIFIED", lease)
            await kube.delete(LEASE, namespace, "op", uid=lease["metadata"]["uid"])
            what, gone = await anext(events)
            assert (what, gone["metadata"]["uid"]) == ("DELETED", lease["metadata"]["uid"])
        began = asyncio.get_running_loop().time()
        version = gone["metadata"]["resourceVersion"]
        assert [event async for event in kube.watch(LEASE, namespace, name="op", resource_version=version, server_timeout=1)] == []
        assert asyncio.get_running_loop().time() - began < 15, "not the client's own limit"
