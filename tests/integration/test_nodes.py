"""Nodes on a real API server: what the second witness tells, with no more rights than the operator has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from localkube.hollow.fleet import Hollow
from localkube.hollow.process import running
from localkube.kubeconfig import read
from localkube.plane.controlplane import ControlPlane
from localkube.plane.operators import NAME, NAMESPACE, Operators, manifests
from whatsapp_operator.core.snapshot import Node
from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.kube.client import CallLimits, LightKube
from whatsapp_operator.shell.kube.errors import Rejected
from whatsapp_operator.shell.kube.kinds import LEASE, NODE
from whatsapp_operator.shell.kube.nodes import LEASE_NAMESPACE, Nodes

pytestmark = pytest.mark.integration
LONG = 90.0
CLOCK = SystemClock()


@pytest.fixture
async def hollow(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Hollow]:
    """Three hollow nodes that renew each second; no node is left behind."""
    access = read(control_plane.admin_kubeconfig)
    async with running(access, tmp_path / "hollow", nodes=3, prefix="witness", renew_s=1.0) as nodes:
        yield nodes
    await kubectl(control_plane, "delete", "nodes", *(f"witness-{number}" for number in range(3)), "--ignore-not-found")


@pytest.fixture
def kubeconfig(control_plane: ControlPlane, tmp_path: Path) -> Path:
    """Of the operator's service account, with the rights that an installation grants."""
    Operators(control_plane, tmp_path / "operators").install()
    return control_plane.service_account_kubeconfig(NAMESPACE, NAME, tmp_path / "operator.kubeconfig")


@asynccontextmanager
async def watching(kubeconfig: Path) -> AsyncIterator[tuple[Nodes, list[str]]]:
    kube = LightKube.from_kubeconfig(kubeconfig, limits=CallLimits(read=5.0))
    changed: list[str] = []
    nodes = Nodes(kube, clock=CLOCK, changed=changed.append)
    task = asyncio.create_task(nodes.run())
    try:
        yield nodes, changed
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await kube.close()


async def kubectl(plane: ControlPlane, *args: str) -> None:
    await asyncio.to_thread(plane.kubectl, *args)


async def until(nodes: Nodes, predicate: Callable[[Mapping[str, Node]], bool], what: str) -> Mapping[str, Node]:
    with suppress(TimeoutError):
        async with asyncio.timeout(LONG):
            while (found := nodes.snapshot()) is None or not predicate(found):
                await asyncio.sleep(0.02)
            return found
    raise AssertionError(f"waited {LONG:g} s without success until {what}; last seen: {nodes.snapshot()}")


def age(node: Node) -> float:
    assert node.renewed_at is not None
    return (CLOCK.now() - node.renewed_at).total_seconds()


async def test_what_becomes_of_a_node_is_reported(control_plane: ControlPlane, hollow: Hollow, kubeconfig: Path) -> None:
    names = {f"witness-{number}" for number in range(3)}
    async with watching(kubeconfig) as (nodes, changed):
        found = await until(nodes, lambda seen: all(name in seen and seen[name].renewed_at for name in names), "three nodes are known")
        assert {found[name].zone for name in names} == {"zone-a", "zone-b", "zone-c"}
        first = {name: found[name].renewed_at for name in names}
        await until(nodes, lambda seen: all(seen[name].renewed_at != first[name] for name in names), "every Lease is renewed")
        changed.clear()

        await hollow.lose("witness-1")
        others = names - {"witness-1"}
        only_it = "the lost node's Lease grows old, and the others are renewed"
        await until(nodes, lambda seen: age(seen["witness-1"]) > 4 and max(age(seen[name]) for name in others) < 3, only_it)
        assert "witness-0" not in changed, "a renewal wakes nobody"
        await hollow.bring_back("witness-1")
        await until(nodes, lambda seen: age(seen["witness-1"]) < 1, "the node is back")

        await kubectl(control_plane, "cordon", "witness-0")
        await until(nodes, lambda seen: seen["witness-0"].leaving == "cordoned", "the cordon is reported")
        await kubectl(control_plane, "uncordon", "witness-0")
        await until(nodes, lambda seen: seen["witness-0"].leaving is None, "and its end")
        await kubectl(control_plane, "taint", "node", "witness-0", "karpenter.sh/disrupted:NoSchedule")
        await until(nodes, lambda seen: seen["witness-0"].leaving == "karpenter.sh/disrupted", "the autoscaler's taint is reported")
        await kubectl(control_plane, "taint", "node", "witness-2", "node.kubernetes.io/out-of-service=down:NoExecute")
        await until(nodes, lambda seen: seen["witness-2"].out_of_service, "a node out of service is reported")
        not_ready = {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
        await hollow.lose("witness-1")
        await kubectl(control_plane, "patch", "node", "witness-1", "--subresource=status", "-p", json.dumps(not_ready))
        await until(nodes, lambda seen: seen["witness-1"].ready is None, "Ready=Unknown is reported")

        changed.clear()
        await kubectl(control_plane, "delete", "node", "witness-2")
        await until(nodes, lambda seen: seen["witness-2"].gone, "the node is gone")
        assert "witness-2" in changed


async def test_its_rights_are_enough_and_no_more(control_plane: ControlPlane, hollow: Hollow, kubeconfig: Path) -> None:
    kube = LightKube.from_kubeconfig(kubeconfig)
    try:
        leases, _ = await kube.list_to_watch(LEASE, LEASE_NAMESPACE)
        assert {f"witness-{number}" for number in range(3)} <= {lease["metadata"]["name"] for lease in leases}
        _, version = await kube.list_to_watch(NODE, None)
        assert version.isdecimal()
        for kind, namespace in ((LEASE, None), (LEASE, "kube-system"), (LEASE, "default")):
            with pytest.raises(Rejected) as refused:
                await kube.list_to_watch(kind, namespace)
            assert refused.value.code == 403
        for kind, where in ((NODE, None), (LEASE, LEASE_NAMESPACE)):
            with pytest.raises(Rejected):
                await kube.get(kind, where, "witness-0")
            with pytest.raises(Rejected):
                await kube.patch_merge(kind, where, "witness-0", {"metadata": {"labels": {"a": "b"}}})
    finally:
        await kube.close()


async def test_without_the_rights_nothing_is_known(control_plane: ControlPlane, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await kubectl(control_plane, "create", "serviceaccount", "without-rights", "-n", "default")
    config = await asyncio.to_thread(
        control_plane.service_account_kubeconfig, "default", "without-rights", tmp_path / "without-rights.kubeconfig"
    )
    async with watching(config) as (nodes, _):
        async with asyncio.timeout(LONG):
            while not (said := [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]):
                await asyncio.sleep(0.02)
        assert nodes.snapshot() is None
    assert len(said) == 1
    assert "403 Forbidden" in said[0]


def test_the_installation_grants_leases_in_two_namespaces_only() -> None:
    granted = {
        (obj["kind"], obj["metadata"].get("namespace"))
        for obj in manifests()
        if any("leases" in rule["resources"] for rule in obj.get("rules", ()))
    }
    assert granted == {("Role", NAMESPACE), ("Role", LEASE_NAMESPACE)}
