"""Hollow nodes under a real API server, scheduler and controller manager, with fake components in the place of the simulator."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from localkube import kubeconfig
from localkube.hollow import pods
from localkube.hollow.control import HollowControl, HollowControlError
from localkube.hollow.fleet import Hollow
from localkube.hollow.kube import Kube, RefusedError
from localkube.hollow.pods import Make, Resolve
from localkube.hollow.process import controlled, running, simulated
from localkube.hollow.status import is_ready
from localkube.plane.controlplane import ControlPlane
from localkube.programs.binaries import Binaries
from wabiz_sim.listener import Listener
from waiting import LONG

pytestmark = pytest.mark.integration

Obj = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
_numbers = itertools.count(1)


class FakeComponent:
    """Listens on its address like a Coreapp's health port, so that tests see what the network sees."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = dict(env)
        self.ready = False
        self.stopped = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        # asyncio's own server leaves a connection open that it accepted just before it is closed.
        self.listener = Listener(self.env["WABIZ_LISTEN"], 6253, [web.get("/", self._answer)], gate=self.gate)

    async def start(self) -> None:
        await self.listener.open()
        self.ready = True

    async def _answer(self, _: web.Request) -> web.Response:
        return web.Response(text="here")

    async def stop(self, grace: float) -> None:
        self.ready = False
        await self.kill()

    async def kill(self) -> None:
        await self.listener.close(0)
        self.stopped.set()

    def hang(self) -> None:
        self.gate.clear()

    def resume(self) -> None:
        self.gate.set()

    async def wait_stopped(self) -> None:
        await self.stopped.wait()


def fake(kind: str, env: Mapping[str, str], resolve: Resolve) -> FakeComponent:
    return FakeComponent(env)


class HollowNamespace:
    """A namespace of a control plane, with hollow nodes of its own."""

    def __init__(self, plane: ControlPlane, kube: Kube, fleet: Hollow, control: HollowControl, namespace: str, folder: Path) -> None:
        self.plane, self.kube, self.fleet, self.control, self.namespace, self.folder = plane, kube, fleet, control, namespace, folder
        self.pods = f"/api/v1/namespaces/{namespace}/pods"

    async def create(self, collection: str, obj: Obj) -> Obj:
        api = "/apis/apps/v1" if collection == "statefulsets" else "/api/v1"
        return await self.kube.post(f"{api}/namespaces/{self.namespace}/{collection}", obj)

    async def pod(self, name: str) -> Obj:
        return await self.kube.get(f"{self.pods}/{name}") or {}

    async def ready_pod(self, name: str, *, but: str = "") -> Obj:
        """The pod of this name when it is Ready, and not the one of uid `but`."""
        found: Obj = await eventually(
            lambda: self.pod(name), lambda pod: bool(pod) and pod["metadata"]["uid"] != but and is_ready(pod), name
        )
        return found

    async def delete_pod(self, name: str, grace: int | None = None) -> None:
        body = {"apiVersion": "v1", "kind": "DeleteOptions"} | ({} if grace is None else {"gracePeriodSeconds": grace})
        await self.kube._call("DELETE", f"{self.pods}/{name}", body)


async def eventually(
    read: Callable[[], Awaitable[Any]], want: Callable[[Any], object], what: str = "it", seconds: float = LONG, every: float = 0.05
) -> Any:
    """What `read` answers as soon as it is as wanted; fails with the last answer after `seconds`."""
    last: Any = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                last = await read()
                if want(last):
                    return last
                await asyncio.sleep(every)
    except TimeoutError:
        pytest.fail(f"{what} did not become as wanted within {seconds} s; last seen: {json.dumps(last, default=str)[:3000]}")


@asynccontextmanager
async def a_hollow_namespace(
    plane: ControlPlane, folder: Path, *, nodes: int = 2, delay: float = 0.0, make: Make = fake
) -> AsyncIterator[HollowNamespace]:
    number = next(_numbers)
    namespace, prefix = f"hollow-{number}", f"hollow{number}"
    access = kubeconfig.read(plane.admin_kubeconfig)
    async with Kube(access) as kube:
        await kube.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
        account = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
        await eventually(lambda: kube.get(account), lambda found: found is not None, "the service account")
        async with running(access, folder, nodes=nodes, prefix=prefix, restart_delay_s=delay, renew_s=3.0, make=make) as hollow:
            async with controlled(hollow) as url, HollowControl(url) as control:
                yield HollowNamespace(plane, kube, hollow, control, namespace, folder)
            for collection in (f"/apis/apps/v1/namespaces/{namespace}/statefulsets", f"/api/v1/namespaces/{namespace}/pods"):
                await kube._call("DELETE", collection)
            await eventually(lambda: kube.get(f"/api/v1/namespaces/{namespace}/pods"), lambda found: not (found or {}).get("items"), "pods")
        await kube._call("DELETE", f"/api/v1/namespaces/{namespace}")
        for i in range(nodes):
            await kube._call("DELETE", f"/api/v1/nodes/{prefix}-{i}")


@pytest.fixture
async def hollow(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[HollowNamespace]:
    async with a_hollow_namespace(control_plane, tmp_path) as one:
        yield one


@pytest.fixture(scope="module")
def fast_plane(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane for this module: silent nodes are noticed soon, and its API server may be stopped without disturbing other tests."""
    soon = ("--node-monitor-period=1s", "--node-monitor-grace-period=12s")
    plane = ControlPlane.start(tmp_path_factory.mktemp("fast"), binaries=binaries, controller_manager_args=soon)
    yield plane
    plane.stop()


def a_container(**more: Any) -> Obj:
    return {"name": "coreapp", "image": "wabiz", "command": ["python", "-m", "wabiz_sim", "coreapp"]} | more


def a_pod(name: str, container: Obj | None = None, **spec: Any) -> Obj:
    return {"metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": [container or a_container()]} | spec}


def a_stateful_set(name: str, replicas: int, **spec: Any) -> Obj:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [a_container()]} | spec}
    selector = {"matchLabels": {"app": name}}
    return {
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "podManagementPolicy": "Parallel", "serviceName": name, "selector": selector, "template": template},
    }


def main_status(pod: Obj) -> Obj:
    return next(iter(pod.get("status", {}).get("containerStatuses") or [{}]))


async def says(ip: str, seconds: float = LONG) -> str:
    """What the fake component at an address answers: here, connection refused, silent."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(ip, 6253)
            try:
                writer.write(b"GET / HTTP/1.1\r\nHost: coreapp\r\n\r\n")
                return "here" if (await reader.readline()).startswith(b"HTTP/1.1 200") else "cut"
            finally:
                writer.close()
    except ConnectionError:
        return "connection refused"
    except TimeoutError:
        return "silent"


# ---------------------------------------------------------------- pods


async def test_a_stateful_set_becomes_ready_with_an_address_per_pod(hollow: HollowNamespace) -> None:
    await hollow.create("statefulsets", a_stateful_set("many", 12))
    path = f"/apis/apps/v1/namespaces/{hollow.namespace}/statefulsets/many"
    await eventually(lambda: hollow.kube.get(path), lambda found: found["status"].get("readyReplicas") == 12, "the StatefulSet")

    pods = (await hollow.kube.get(hollow.pods) or {})["items"]
    addresses = {pod["status"]["podIP"] for pod in pods}
    assert len(addresses) == 12
    assert {pod["spec"]["nodeName"] for pod in pods} == set(hollow.fleet.nodes)
    conditions = {one["type"]: one["status"] for one in pods[0]["status"]["conditions"]}
    assert conditions == dict.fromkeys(["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"], "True")
    assert [await says(ip) for ip in sorted(addresses)] == ["here"] * 12


async def test_a_deleted_pod_ends_and_is_replaced(hollow: HollowNamespace) -> None:
    await hollow.create("statefulsets", a_stateful_set("one", 1))
    old = await hollow.ready_pod("one-0")
    await hollow.delete_pod("one-0")
    new = await hollow.ready_pod("one-0", but=old["metadata"]["uid"])

    assert new["status"]["podIP"] != old["status"]["podIP"]
    assert await says(old["status"]["podIP"]) == "connection refused"
    assert not (hollow.folder / "pods" / old["metadata"]["uid"]).exists()


async def test_a_force_deleted_pod_is_killed(hollow: HollowNamespace) -> None:
    await hollow.create("pods", a_pod("forced"))
    ip = (await hollow.ready_pod("forced"))["status"]["podIP"]
    await hollow.delete_pod("forced", grace=0)

    await eventually(lambda: says(ip), lambda answer: answer == "connection refused", "its port")


async def test_a_crash_shows_as_the_kubelet_shows_it(hollow: HollowNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pods, "FLUSH_TIMEOUT_S", LONG)  # the API server may be busy; after this time a start hides the end before it
    await hollow.create("pods", a_pod("crash"))
    version = (await hollow.ready_pod("crash"))["metadata"]["resourceVersion"]
    await hollow.control.kill(hollow.namespace, "crash")

    seen = []
    async with asyncio.timeout(LONG):
        async for _, pod in hollow.kube.watch(hollow.pods, version, "metadata.name=crash"):
            seen.append((next(iter(main_status(pod)["state"])), is_ready(pod)))
            if seen[-1] == ("running", True):
                break
    after = main_status(await hollow.pod("crash"))
    assert seen == [("terminated", False), ("running", True)]
    assert (after["restartCount"], after["lastState"]["terminated"]["exitCode"]) == (1, 137)


async def test_a_pod_that_fails_reports_so(hollow: HollowNamespace) -> None:
    await hollow.create("pods", a_pod("fails"))
    await hollow.ready_pod("fails")
    await hollow.control.fail(hollow.namespace, "fails", "Evicted")

    failed = await eventually(lambda: hollow.pod("fails"), lambda pod: pod["status"]["phase"] == "Failed", "fails")
    assert main_status(failed)["state"]["terminated"]["exitCode"] == 137
    assert failed["status"]["reason"] == "Evicted"
    assert not is_ready(failed)
    with pytest.raises(HollowControlError, match="runs no container now"):
        await hollow.control.kill(hollow.namespace, "fails")
    with pytest.raises(HollowControlError, match="no hollow node runs a pod"):
        await hollow.control.kill(hollow.namespace, "crash", uid="other")


async def test_a_hung_container_takes_connections_and_answers_nothing(hollow: HollowNamespace) -> None:
    probe = {"httpGet": {"port": 6253}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 1}
    await hollow.create("pods", a_pod("hung", a_container(readinessProbe=probe)))
    ip = (await hollow.ready_pod("hung"))["status"]["podIP"]
    await hollow.control.hang(hollow.namespace, "hung")

    assert await says(ip, 0.3) == "silent"
    await eventually(lambda: hollow.pod("hung"), lambda pod: not is_ready(pod), "hung")
    await hollow.control.resume(hollow.namespace, "hung")
    assert await says(ip) == "here"
    await hollow.ready_pod("hung")


async def test_a_missing_secret_is_said_and_the_pod_runs_once_it_is_there(hollow: HollowNamespace) -> None:
    env = [
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "late", "key": "k"}}},
        {"name": "DIR", "value": "/tls"},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    container = a_container(env=env, volumeMounts=[{"name": "tls", "mountPath": "/tls"}])
    await hollow.create("pods", a_pod("waits", container, volumes=[{"name": "tls", "secret": {"secretName": "late"}}]))
    waiting = await eventually(lambda: hollow.pod("waits"), lambda pod: "waiting" in main_status(pod).get("state", {}), "waits")
    state = main_status(waiting)["state"]["waiting"]
    await hollow.create("secrets", {"metadata": {"name": "late"}, "stringData": {"k": "v"}})
    pod = await hollow.ready_pod("waits")

    assert (state["reason"], state["message"]) == ("CreateContainerConfigError", 'secret "late" not found')
    assert waiting["status"]["phase"] == "Pending"
    component = hollow.fleet.pod(hollow.namespace, "waits")._component
    assert isinstance(component, FakeComponent)
    assert (component.env["KEY"], component.env["POD_IP"]) == ("v", pod["status"]["podIP"])
    assert (Path(component.env["DIR"]) / "k").read_text() == "v"


async def test_a_claim_gets_a_folder_that_outlives_the_pod_and_goes_with_the_claim(hollow: HollowNamespace) -> None:
    claim = {"metadata": {"name": "kept"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
    made = await hollow.create("persistentvolumeclaims", claim)
    container = a_container(volumeMounts=[{"name": "v", "mountPath": "/v"}])
    pod = a_pod("keeps", container, volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "kept"}}])
    folder = hollow.folder / "claims" / made["metadata"]["uid"]
    await hollow.create("pods", pod)
    await hollow.ready_pod("keeps")
    (folder / "file").write_text("x")
    await hollow.delete_pod("keeps")
    await eventually(lambda: hollow.pod("keeps"), lambda seen: not seen, "the pod")
    assert (folder / "file").read_text() == "x"

    path = f"/api/v1/namespaces/{hollow.namespace}/persistentvolumeclaims/kept"
    await hollow.kube._call("DELETE", path)
    await eventually(lambda: asyncio.sleep(0, folder.exists()), lambda there: not there, "the folder")
    await eventually(
        lambda: hollow.kube.get(f"/api/v1/persistentvolumes/hollow-{made['metadata']['uid']}"), lambda seen: seen is None, "the volume"
    )


async def test_a_late_report_does_not_touch_a_namesake(hollow: HollowNamespace) -> None:
    await hollow.create("pods", a_pod("namesake"))
    await hollow.ready_pod("namesake")
    body = {"metadata": {"uid": "00000000-0000-0000-0000-000000000000"}, "status": {"message": "wrong"}}

    with pytest.raises(RefusedError, match=r"metadata.uid: .* field is immutable") as refused:
        await hollow.kube.patch(f"{hollow.pods}/namesake/status", body)
    assert refused.value.status == 422


# ---------------------------------------------------------------- Services


async def test_a_service_resolves_by_its_selector_at_this_moment(hollow: HollowNamespace) -> None:
    service = {"metadata": {"name": "shard"}, "spec": {"selector": {"epoch": "none"}, "ports": [{"port": 80, "targetPort": 6250}]}}
    await hollow.create("services", service)
    for name in ("a", "b"):
        await hollow.create("pods", a_pod(name))
    one, other = [(await hollow.ready_pod(name))["status"]["podIP"] for name in ("a", "b")]
    await eventually_resolved(hollow, "service hollow-[0-9]+/shard has no endpoint")

    for name, ip, epoch in (("a", one, "1-x"), ("b", other, "2-y")):
        await hollow.kube.patch(f"{hollow.pods}/{name}", {"metadata": {"labels": {"epoch": epoch}}})
        path = f"/api/v1/namespaces/{hollow.namespace}/services/shard"
        await hollow.kube.patch(path, {"spec": {"selector": {"epoch": epoch}}})
        await eventually_resolved(hollow, ip)
    assert (await hollow.control.state())["ambiguous"] == {}

    await hollow.kube.patch(f"{hollow.pods}/a", {"metadata": {"labels": {"epoch": "2-y"}}})
    await eventually_resolved(hollow, one)
    assert (await hollow.control.state())["ambiguous"] == {f"{hollow.namespace}/shard": 1}


async def eventually_resolved(hollow: HollowNamespace, want: str) -> None:
    """Wait until the Service leads to an address, or to a complaint."""

    async def resolved() -> str:
        try:
            ip, port = await hollow.fleet.resolve(hollow.namespace, "shard", 80)
        except LookupError as e:
            return str(e)
        assert port == 6250
        return ip

    await eventually(resolved, lambda found: re.search(want + "$", found), f"the address {want}")


# ---------------------------------------------------------------- the simulator itself


def field(name: str, path: str) -> Obj:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def a_part(kind: str) -> Obj:
    """A pod of the simulator as the operator's manifests have it, in small."""
    fields = {"POD_NAME": "metadata.name", "POD_UID": "metadata.uid", "POD_IP": "status.podIP", "NODE_NAME": "spec.nodeName"}
    env = [field(name, path) for name, path in fields.items()] + [{"name": "WABIZ_STATE_DIR", "value": "/state"}]
    container = a_container(command=["python", "-m", "wabiz_sim", kind], env=env, volumeMounts=[{"name": "state", "mountPath": "/state"}])
    return a_pod(kind, container, volumes=[{"name": "state", "emptyDir": {}}])


def a_service(name: str, app: str, port: int, target: int) -> Obj:
    return {"metadata": {"name": name}, "spec": {"selector": {"app": app}, "ports": [{"port": port, "targetPort": target}]}}


async def test_the_simulated_takes_a_message_and_remembers_its_role_over_a_crash(control_plane: ControlPlane, tmp_path: Path) -> None:
    async with a_hollow_namespace(control_plane, tmp_path, make=simulated) as hollow, aiohttp.ClientSession() as http:
        for service in (("acme-simulator", "upstream", 8080, 8080), ("acme-shard-0", "coreapp", 6250, 6250)):
            await hollow.create("services", a_service(*service))
        for kind in ("upstream", "coreapp", "webapp"):
            await hollow.create("pods", a_part(kind))
        ips = {kind: (await hollow.ready_pod(kind))["status"]["podIP"] for kind in ("upstream", "coreapp", "webapp")}
        uid = (await hollow.pod("coreapp"))["metadata"]["uid"]

        async def report() -> Obj:
            try:
                async with http.get(f"http://{ips['coreapp']}:6253/") as answer:
                    return dict(await answer.json())
            except aiohttp.ClientError:
                return {}

        async def send() -> int:
            async with http.post(f"{url}/messages", json={"to": "49301", "text": {"body": "hi"}}, headers=bearer, ssl=False) as answer:
                return answer.status

        await eventually(report, lambda seen: seen.get("shards") == 1, "the Coreapp's number of shards")
        order = {"uid": uid, "shard": 0, "epoch": "5-abcde", "shards": 1}
        async with http.post(f"http://{ips['coreapp']}:6252/role", json=order) as answer:
            assert answer.status == 200
        url = f"https://{ips['webapp']}:8443/v1"
        first = {"Authorization": aiohttp.encode_basic_auth("admin", "secret")}
        async with http.post(f"{url}/users/login", json={"new_password": "Adm1n-pass!"}, headers=first, ssl=False) as answer:
            bearer = {"Authorization": f"Bearer {(await answer.json())['users'][0]['token']}"}
        assert await send() == 201

        await hollow.control.kill(hollow.namespace, "coreapp")
        again = await eventually(report, lambda seen: seen.get("gateway_status") == "connected", "the Coreapp")
        assert (again["shard"], again["epoch"], again["uid"]) == (0, "5-abcde", uid)
        assert await send() == 201
        await hollow.control.hang(hollow.namespace, "coreapp")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await report()
        await hollow.control.resume(hollow.namespace, "coreapp")
        assert (await report())["shard"] == 0


# ---------------------------------------------------------------- the process


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "localkube.hollow", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'hack'}{os.pathsep}{ROOT / 'operator'}"}


async def test_the_command_serves_until_it_is_stopped(control_plane: ControlPlane, tmp_path: Path) -> None:
    options: list[str | Path] = ["--kubeconfig", control_plane.admin_kubeconfig, "--nodes", "1", "--folder", tmp_path]
    process = await asyncio.create_subprocess_exec(*command(*options), env=environment())
    try:
        await eventually(lambda: asyncio.sleep(0, (tmp_path / "hollow.json").exists()), bool, "hollow.json")
        async with HollowControl.of(tmp_path) as control:
            assert [node["name"] for node in (await control.state())["nodes"]] == ["hollow-0"]
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), LONG) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        control_plane.kubectl("delete", "node", "hollow-0", "--ignore-not-found")
    assert not (tmp_path / "hollow.json").exists()
    with pytest.raises(HollowControlError, match="no hollow nodes are ready"):
        HollowControl.of(tmp_path)


async def test_a_bad_kubeconfig_is_one_sentence(tmp_path: Path) -> None:
    bad = tmp_path / "config"
    bad.write_text("nonsense: [")
    process = await asyncio.create_subprocess_exec(
        *command("--kubeconfig", bad, "--folder", tmp_path / "h"), env=environment(), stderr=asyncio.subprocess.PIPE
    )
    _, complaint = await asyncio.wait_for(process.communicate(), LONG)

    assert process.returncode == 1
    assert str(bad) in complaint.decode()
    assert complaint.decode().count("\n") == 1


# ---------------------------------------------------------------- loss


async def test_a_lost_node_is_noticed_and_comes_back_with_its_pods(fast_plane: ControlPlane, tmp_path: Path) -> None:
    async with a_hollow_namespace(fast_plane, tmp_path, nodes=3) as hollow:
        await hollow.create("statefulsets", a_stateful_set("set", 3))
        pods = [await hollow.ready_pod(f"set-{i}") for i in range(3)]
        stays, leaves = pods[0], next(pod for pod in pods[1:] if pod["spec"]["nodeName"] == pods[1]["spec"]["nodeName"])
        lost = leaves["spec"]["nodeName"]
        assert stays["spec"]["nodeName"] != lost
        await hollow.control.lose(lost)

        assert await says(leaves["status"]["podIP"], 0.3) == "silent"
        name = leaves["metadata"]["name"]
        await eventually(lambda: hollow.pod(name), lambda pod: not is_ready(pod), "the pod of the lost node")
        assert is_ready(await hollow.pod(stays["metadata"]["name"]))
        await hollow.delete_pod(name)  # nobody there carries it out
        await hollow.control.back(lost)
        new = await hollow.ready_pod(name, but=leaves["metadata"]["uid"])
        await eventually(lambda: says(leaves["status"]["podIP"]), lambda answer: answer == "connection refused", "the old pod")
        node = await eventually(lambda: hollow.kube.get(f"/api/v1/nodes/{lost}"), is_ready, "the node")
        assert new["metadata"]["uid"] != leaves["metadata"]["uid"]
        assert node["metadata"]["name"] == lost


async def test_a_pod_that_goes_while_its_node_comes_back_is_not_revived(
    fast_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_hollow_namespace(fast_plane, tmp_path, nodes=1) as hollow:
        await hollow.create("pods", a_pod("pod"))
        pod = await hollow.ready_pod("pod")
        node = hollow.fleet.nodes[pod["spec"]["nodeName"]]
        comes_back = node.come_back

        async def slowly() -> None:
            await comes_back()
            await hollow.delete_pod("pod")
            await eventually(lambda: asyncio.sleep(0, pod["metadata"]["uid"] in hollow.fleet.pods), lambda there: not there, "the end")

        monkeypatch.setattr(node, "come_back", slowly)
        await hollow.control.lose(node.name)
        await hollow.control.back(node.name)
        assert await says(pod["status"]["podIP"]) == "connection refused"
        assert pod["metadata"]["uid"] not in hollow.fleet.pods


async def test_a_pod_goes_on_over_the_loss_and_is_killed_by_a_reboot(fast_plane: ControlPlane, tmp_path: Path) -> None:
    async with a_hollow_namespace(fast_plane, tmp_path, nodes=1) as hollow:
        await hollow.create("pods", a_pod("pod"))
        pod = await hollow.ready_pod("pod")
        node = pod["spec"]["nodeName"]
        await hollow.control.lose(node)
        await eventually(lambda: hollow.pod("pod"), lambda seen: not is_ready(seen), "the pod")
        await hollow.control.back(node)
        again = await hollow.ready_pod("pod")
        assert main_status(again)["restartCount"] == 0
        assert await says(pod["status"]["podIP"]) == "here"

        await hollow.control.lose(node)
        await hollow.control.back(node, rebooted=True)
        await eventually(lambda: hollow.pod("pod"), lambda seen: main_status(seen)["restartCount"] == 1 and is_ready(seen), "the pod")
        assert await says(pod["status"]["podIP"]) == "here"


async def test_what_happened_while_the_api_server_was_silent_is_made_up_for(fast_plane: ControlPlane, tmp_path: Path) -> None:
    async with a_hollow_namespace(fast_plane, tmp_path, nodes=1) as hollow:
        await hollow.create("pods", a_pod("pod"))
        await hollow.ready_pod("pod")
        fast_plane.apiserver.pause()
        try:
            await hollow.control.kill(hollow.namespace, "pod")

            async def restarts() -> int:
                return int((await hollow.control.state())["pods"][0]["restarts"])

            await eventually(restarts, lambda count: count == 1, "the container")
        finally:
            fast_plane.apiserver.resume()
        await eventually(lambda: hollow.pod("pod"), lambda pod: main_status(pod)["restartCount"] == 1 and is_ready(pod), "the report")
