"""Hollow nodes, what needs no API server: what is read from pods and Services, what is reported, addresses, a container's lives."""

import asyncio
import base64
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from inspect import signature
from pathlib import Path
from typing import Any, cast

import pytest

from localkube.hollow.addresses import CLAIM_PORT, AddressError, Addresses
from localkube.hollow.claims import unbound
from localkube.hollow.components import Resolve
from localkube.hollow.kube import Kube, Mirror, NoAnswerError, RefusedError
from localkube.hollow.nodes import HollowNode
from localkube.hollow.pods import RESTART_S, HollowPod, NotRunningError, Surroundings
from localkube.hollow.process import running
from localkube.hollow.spec import (
    Backend,
    ConfigError,
    Sources,
    backends,
    component_of,
    config_map_data,
    environment,
    expanded,
    main_container,
    patience,
    relocated,
    secret_data,
    selects,
    service_name,
    target_port,
    volumes,
)
from localkube.hollow.status import Container, known_transitions, phase_of, pod_status, recalled, restarts_after, stamp, transitions

Obj = dict[str, Any]
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NOTHING = Sources(secret=lambda _: None, config_map=lambda _: None)


@pytest.fixture(autouse=True, scope="module")
def _no_loop_of_old() -> None:
    """With CPython 3.11 and no loop set, pytest-asyncio makes one that it never closes, and its warning fails whichever test runs then."""
    asyncio.set_event_loop(None)


def a_pod(container: Obj | None = None, **spec: Any) -> Obj:
    main = {"name": "coreapp", "image": "wabiz", "command": ["python", "-m", "wabiz_sim", "coreapp"]} | (container or {})
    meta = {"name": "acme-coreapp-0", "namespace": "ns", "uid": "u1", "labels": {"a": "b"}, "resourceVersion": "1"}
    return {"metadata": meta, "spec": {"nodeName": "hollow-0", "containers": [main]} | spec, "status": {}}


def env_of(pod: Obj, sources: Sources = NOTHING) -> dict[str, str]:
    return environment(pod, main_container(pod), ip="127.64.1.1", host_ip="127.64.0.2", sources=sources)


# ---------------------------------------------------------------- what a pod asks for


@pytest.mark.parametrize(
    ("container", "want"),
    [
        ({"command": ["python", "-m", "wabiz_sim", "webapp"]}, "webapp"),
        ({"command": ["python", "-m", "wabiz_sim"], "args": ["upstream"]}, "upstream"),
        ({"command": ["/usr/bin/wabiz-sim", "coreapp"]}, "coreapp"),
        ({"command": ["python", "-m", "wabiz_sim", "coreapp", "--debug"]}, None),
        ({"command": ["sleep", "coreapp"]}, None),
        ({"command": ["python", "-m", "wabiz_sim", "other"]}, None),
        ({}, None),
    ],
)
def test_the_component_is_named_by_the_end_of_the_command_line(container: Obj, want: str | None) -> None:
    assert component_of(container) == want


def test_the_main_container_is_the_one_that_runs_the_stand_in() -> None:
    pod = a_pod()
    pod["spec"]["containers"].insert(0, {"name": "sidecar", "image": "x"})

    assert main_container(pod)["name"] == "coreapp"


def test_environment_comes_from_values_fields_secrets_and_config_maps() -> None:
    sources = Sources(secret={"s": {"k": b"secret"}}.get, config_map={"c": {"k": b"config", "other": b"o"}}.get)
    fields = ["metadata.name", "metadata.uid", "metadata.namespace", "metadata.labels['a']"]
    fields += ["spec.nodeName", "status.podIP", "status.hostIP"]
    env: list[Obj] = [
        {"name": "PLAIN", "value": "v"},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "CONFIG", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
        {"name": "ABSENT", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k", "optional": True}}},
        {"name": "BOTH", "value": "$(PLAIN)-$(SECRET)-$(UNKNOWN)-$$(PLAIN)"},
        *({"name": field, "valueFrom": {"fieldRef": {"fieldPath": field}}} for field in fields),
    ]
    pod = a_pod({"env": env, "envFrom": [{"prefix": "P_", "configMapRef": {"name": "c"}}, {"secretRef": {"name": "no", "optional": True}}]})

    got = env_of(pod, sources)

    assert got == {
        "P_k": "config",
        "P_other": "o",
        "PLAIN": "v",
        "SECRET": "secret",
        "CONFIG": "config",
        "BOTH": "v-secret-$(UNKNOWN)-$(PLAIN)",
        "metadata.name": "acme-coreapp-0",
        "metadata.uid": "u1",
        "metadata.namespace": "ns",
        "metadata.labels['a']": "b",
        "spec.nodeName": "hollow-0",
        "status.podIP": "127.64.1.1",
        "status.hostIP": "127.64.0.2",
    }


@pytest.mark.parametrize(
    ("value_from", "sentence"),
    [
        ({"secretKeyRef": {"name": "s", "key": "k"}}, 'secret "s" not found'),
        ({"secretKeyRef": {"name": "here", "key": "k"}}, "couldn't find key k in secret here"),
        ({"configMapKeyRef": {"name": "c", "key": "k"}}, 'configmap "c" not found'),
        ({"resourceFieldRef": {"resource": "limits.cpu"}}, "not resourceFieldRef"),
        ({"fieldRef": {"fieldPath": "status.phase"}}, "status.phase"),
    ],
)
def test_what_cannot_be_resolved_is_said_as_the_kubelet_says_it(value_from: Obj, sentence: str) -> None:
    pod = a_pod({"env": [{"name": "X", "valueFrom": value_from}]})

    with pytest.raises(ConfigError, match=sentence.replace("'", ".")):
        env_of(pod, Sources(secret={"here": {"other": b""}}.get, config_map=lambda _: None))


def test_a_missing_group_of_variables_is_an_error_unless_optional() -> None:
    with pytest.raises(ConfigError, match='secret "no" not found'):
        env_of(a_pod({"envFrom": [{"secretRef": {"name": "no"}}]}))


def test_expansion_leaves_unknown_names_and_halves_dollars() -> None:
    assert expanded("$(A) $(B) $$(A) $$$(A) $", {"A": "1"}) == "1 $(B) $(A) $1 $"


def test_data_is_decoded() -> None:
    text = base64.b64encode(b"\x00x").decode()

    assert secret_data({"data": {"a": text, "empty": ""}}) == {"a": b"\x00x", "empty": b""}
    assert config_map_data({"data": {"a": "b"}, "binaryData": {"c": text}}) == {"a": b"b", "c": b"\x00x"}


def test_volumes_are_innermost_first_and_carry_their_files() -> None:
    mounts = [
        {"name": "state", "mountPath": "/var/lib/"},
        {"name": "tls", "mountPath": "/var/lib/tls"},
        {"name": "media", "mountPath": "/media", "subPath": "sub"},
        {"name": "settings", "mountPath": "/etc/x"},
    ]
    declared = [
        {"name": "state", "emptyDir": {}},
        {"name": "tls", "secret": {"secretName": "s", "items": [{"key": "crt", "path": "tls.crt"}]}},
        {"name": "media", "persistentVolumeClaim": {"claimName": "acme-media"}},
        {"name": "settings", "configMap": {"name": "c", "optional": True}},
    ]
    pod = a_pod({"volumeMounts": mounts}, volumes=declared)

    got = volumes(pod, main_container(pod), Sources(secret=lambda _: {"crt": b"x", "key": b"y"}, config_map=lambda _: None))

    assert [(one.name, one.mount_path, one.kind) for one in got] == [
        ("tls", "/var/lib/tls", "files"),
        ("state", "/var/lib", "emptyDir"),
        ("media", "/media", "claim"),
        ("settings", "/etc/x", "files"),
    ]
    assert got[0].files == {"tls.crt": b"x"}
    assert (got[2].claim, got[2].sub_path) == ("acme-media", "sub")


@pytest.mark.parametrize("items", [None, [{"key": "missing", "path": "p"}]])
def test_a_volume_of_a_missing_secret_or_key_is_refused(items: list[Obj] | None) -> None:
    source = {"secretName": "s"} | ({"items": items} if items else {})
    pod = a_pod({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}, volumes=[{"name": "v", "secret": source}])

    with pytest.raises(ConfigError):
        volumes(pod, main_container(pod), Sources(secret=lambda _: {} if items else None, config_map=lambda _: None))


def test_values_under_a_mount_path_lead_to_the_real_folder() -> None:
    folders = [("/var/lib/tls", "/real/tls"), ("/var/lib", "/real/state")]
    env = {"A": "/var/lib", "B": "/var/lib/db", "C": "/var/lib/tls/tls.crt", "D": "/var/library", "E": "x /var/lib"}

    got = relocated(env, folders)

    assert got == {"A": "/real/state", "B": "/real/state/db", "C": "/real/tls/tls.crt", "D": "/var/library", "E": "x /var/lib"}


def test_patience_is_what_the_kubelet_would_have() -> None:
    assert patience(None) is None
    assert patience({"periodSeconds": 1, "failureThreshold": 3, "timeoutSeconds": 1}) == timedelta(seconds=3)
    assert patience({}) == timedelta(seconds=21)


# ---------------------------------------------------------------- Services


def a_service(**spec: Any) -> Obj:
    return {"metadata": {"name": "acme-shard-0"}, "spec": {"selector": {"shard": "0"}, "ports": [{"port": 6250}]} | spec}


def backend(name: str, **more: Any) -> Backend:
    return Backend(**{"name": name, "ip": f"ip-{name}", "labels": {"shard": "0"}} | more)


@pytest.mark.parametrize(
    ("spec", "pods", "want"),
    [
        ({}, [backend("b"), backend("a"), backend("c", labels={"shard": "1"})], ["a", "b"]),
        ({}, [backend("a", ready=False), backend("b")], ["b"]),
        ({}, [backend("a", leaving=True), backend("b")], ["b"]),
        ({}, [backend("a", leaving=True), backend("b", ready=False)], ["a"]),
        ({}, [backend("a", ip="")], []),
        ({"publishNotReadyAddresses": True}, [backend("b", ready=False), backend("a", leaving=True)], ["a", "b"]),
        ({"selector": {}}, [backend("a")], []),
        ({"selector": {"shard": "0", "epoch": "7-x"}}, [backend("a")], []),
    ],
)
def test_a_service_routes_as_endpoints_and_kube_proxy_would(spec: Obj, pods: list[Backend], want: list[str]) -> None:
    assert [pod.name for pod in backends(a_service(**spec), pods)] == want


def test_a_selector_that_is_empty_or_absent_matches_nothing() -> None:
    assert not selects(None, {"a": "b"})
    assert not selects({}, {"a": "b"})
    assert selects({"a": "b"}, {"a": "b", "c": "d"})


def test_ports_are_mapped_by_number_name_or_not_at_all() -> None:
    pod = backend("a", ports={"https": 8443})

    assert target_port(a_service(), 6250, pod) == 6250
    assert target_port(a_service(ports=[{"port": 443, "targetPort": "https"}]), 443, pod) == 8443
    assert target_port(a_service(ports=[{"port": 443, "targetPort": 9}]), 443, pod) == 9
    assert target_port(a_service(clusterIP="None"), 1234, pod) == 1234
    with pytest.raises(LookupError, match="no port 1"):
        target_port(a_service(), 1, pod)
    with pytest.raises(LookupError, match="no port named other"):
        target_port(a_service(ports=[{"port": 1, "targetPort": "other"}]), 1, pod)


@pytest.mark.parametrize("host", ["acme-webapp", "acme-webapp.ns", "acme-webapp.ns.svc", "acme-webapp.ns.svc.cluster.local"])
def test_a_host_name_is_a_service_of_a_namespace(host: str) -> None:
    assert service_name(host, "ns") == ("ns", "acme-webapp")


# ---------------------------------------------------------------- what is reported


def report(main: Container, pod: Obj | None = None, **more: Any) -> Obj:
    pod = pod or a_pod()
    since = transitions({}, main, NOW)
    body = pod_status(pod, main, main_name="coreapp", ip="127.64.1.1", host_ip="127.64.0.2", started_at=NOW, since=since, **more)
    assert body["metadata"] == {"uid": "u1"}
    return cast("Obj", body["status"])


def test_a_running_pod_is_reported_with_addresses_that_replace_the_old() -> None:
    status = report(Container().running(NOW, ready=True))

    assert (status["phase"], status["podIP"], status["startTime"]) == ("Running", "127.64.1.1", "2026-03-01T12:00:00Z")
    assert status["podIPs"] == [{"$patch": "replace"}, {"ip": "127.64.1.1"}]
    main = status["containerStatuses"][0]
    assert (main["ready"], main["restartCount"], main["state"]) == (True, 0, {"running": {"startedAt": "2026-03-01T12:00:00Z"}})
    conditions = {one["type"]: one for one in status["conditions"]}
    assert {kind: one["status"] for kind, one in conditions.items()} == dict.fromkeys(
        ["Initialized", "PodReadyToStartContainers", "ContainersReady", "Ready"], "True"
    )
    assert conditions["Ready"]["reason"] is None


def test_a_killed_container_is_terminated_then_restarted_with_its_last_state() -> None:
    killed = Container().running(NOW, ready=True).terminated(NOW, 137)
    again = killed.running(NOW + timedelta(seconds=1), ready=True)

    assert report(killed)["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137
    assert {one["type"]: one["status"] for one in report(killed)["conditions"]}["Ready"] == "False"
    status = report(again)["containerStatuses"][0]
    assert status["restartCount"] == 1
    assert status["lastState"]["terminated"]["exitCode"] == 137


def test_a_start_after_waiting_for_a_secret_still_counts_as_a_restart() -> None:
    waiting = Container().running(NOW, ready=True).terminated(NOW, 1).waiting("CreateContainerConfigError", "no secret")

    assert waiting.state() == {"waiting": {"reason": "CreateContainerConfigError", "message": "no secret"}}
    assert waiting.running(NOW, ready=False).restarts == 1
    assert Container().waiting("x").running(NOW, ready=False).restarts == 0


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [
        ("Always", 0, "Running"),
        ("Always", 1, "Running"),
        ("OnFailure", 0, "Succeeded"),
        ("OnFailure", 1, "Running"),
        ("Never", 1, "Failed"),
    ],
)
def test_the_phase_follows_the_restart_policy(policy: str, code: int, phase: str) -> None:
    assert phase_of(Container().running(NOW, ready=True).terminated(NOW, code), policy) == phase
    assert restarts_after(code, policy) == (phase == "Running")


def test_a_pod_that_never_ran_is_pending_and_its_sidecars_wait() -> None:
    pod = a_pod(initContainers=[{"name": "init", "image": "x"}])
    pod["spec"]["containers"].append({"name": "sidecar", "image": "x"})

    status = report(Container().waiting("CreateContainerConfigError"), pod)

    assert status["phase"] == "Pending"
    assert [one["ready"] for one in status["containerStatuses"]] == [False, False]
    assert status["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"


def test_a_failed_pod_says_why_and_nothing_of_it_runs() -> None:
    pod = a_pod()
    pod["spec"]["containers"].append({"name": "sidecar", "image": "x"})

    status = report(Container().running(NOW, ready=True).terminated(NOW, 137), pod, failed="Evicted")

    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
    assert all("terminated" in one["state"] for one in status["containerStatuses"])


def test_conditions_keep_the_time_of_their_last_change() -> None:
    later = NOW + timedelta(minutes=1)
    first = transitions({}, Container(), NOW)
    second = transitions(first, Container().running(later, ready=True), later)

    assert second["Ready"] == ("True", stamp(later))
    assert second["Initialized"] == ("True", stamp(NOW))
    assert transitions(second, Container().running(later, ready=True), later, over=True)["Ready"][0] == "False"


def test_a_restarted_process_goes_on_counting() -> None:
    pod = a_pod()
    pod["status"] = report(Container(restarts=3).running(NOW, ready=True))

    main = recalled(pod, "coreapp", NOW)

    assert main.ended is not None
    assert main.running(NOW, ready=True).restarts == 4
    assert known_transitions(pod)["Ready"] == ("True", stamp(NOW))
    assert recalled(a_pod(), "coreapp", NOW) == Container()


def test_a_restarted_process_remembers_an_end_and_a_wait() -> None:
    pod = a_pod()
    ended = Container(restarts=1).running(NOW, ready=True).terminated(NOW, 3, "why")
    pod["status"] = report(ended)
    waiting = a_pod()
    waiting["status"] = report(ended.waiting("CreateContainerConfigError", "no"))

    assert recalled(pod, "coreapp", NOW).ended == ended.ended
    assert recalled(waiting, "coreapp", NOW).running(NOW, ready=True).restarts == 2


# ---------------------------------------------------------------- addresses


def test_two_processes_never_share_a_range_and_a_restart_finds_its_own() -> None:
    first, second = Addresses("seed"), Addresses("seed")
    try:
        assert first.network != second.network
        before = first.network
    finally:
        first.close()
        second.close()
    again = Addresses("seed")
    again.close()

    assert again.network == before


def test_an_address_is_given_out_once_and_not_soon_again() -> None:
    addresses = Addresses("unit-once")
    try:
        first = addresses.take()
        addresses.give_back(first)
        second = addresses.take()

        assert first != second
        assert addresses.retake(first) == first
        assert addresses.retake(first) not in {first, second}
        assert addresses.node(0) != addresses.node(1)
    finally:
        addresses.close()


def test_an_address_where_a_port_is_taken_is_passed_over() -> None:
    addresses = Addresses("unit-taken")
    try:
        ip = addresses.take()
        addresses.give_back(ip)
        with socket.create_server((ip, 6253)):
            assert addresses.retake(ip) != ip
    finally:
        addresses.close()


def test_a_range_that_is_taken_or_senseless_is_refused_with_a_sentence() -> None:
    with socket.create_server(("127.200.0.1", CLAIM_PORT)), pytest.raises(AddressError, match="is taken"):
        Addresses("x", "127.200.0.0/18")
    with socket.create_server(("127.201.0.1", 8080)), pytest.raises(AddressError, match="port 8080 is taken"):
        Addresses("x", "127.201.0.0/18")
    for text in ("10.0.0.0/18", "127.1.0.0/30", "nonsense"):
        with pytest.raises(AddressError, match=r"127\.72\.0\.0/18"):
            Addresses("x", text)


# ---------------------------------------------------------------- a pod's lives, against a fake API server


class FakeComponent:
    """Does what a component does, and remembers it."""

    def __init__(self, env: Mapping[str, str], *, fails: bool = False, lingers: bool = False) -> None:
        self.env, self.fails, self.lingers = dict(env), fails, lingers
        self.calls: list[str] = []
        self.effects: Counter[str] = Counter()
        self.ready = False
        self.gone = False
        self.stopped = asyncio.Event()

    async def start(self) -> None:
        self.calls.append("start")
        if self.fails:
            message = "no"
            raise OSError(message)
        self.ready = True

    async def stop(self, grace: float) -> None:
        self.calls.append(f"stop {grace:.0f}")
        if self.lingers:
            await asyncio.sleep(3600)
        self.stopped.set()

    async def kill(self) -> None:
        if not self.stopped.is_set():
            self.calls.append("kill")
        self.stopped.set()
        await asyncio.sleep(0.02)
        self.gone = True

    def hang(self) -> None:
        self.calls.append("hang")
        self.ready = False

    def resume(self) -> None:
        self.calls.append("resume")
        self.ready = True

    async def disturb(self, wish: Mapping[str, Any]) -> None:
        self.calls.append(f"disturb {wish['ports']}")

    async def wait_stopped(self) -> None:
        await self.stopped.wait()


class FakeKube:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.reports: list[Obj] = []
        self.deleted: list[str] = []
        self.away = False

    async def patch(self, path: str, body: Obj) -> Obj:
        if self.away:
            message = "away"
            raise NoAnswerError(message)
        self.reports.append(body["status"])
        return {"metadata": {"resourceVersion": str(100 + len(self.reports))}}

    async def finish_deletion(self, path: str, uid: str) -> bool:
        if self.away:
            message = "away"
            raise NoAnswerError(message)
        self.deleted.append(uid)
        return True

    async def get(self, path: str) -> Obj | None:
        return {"metadata": {"uid": "claim-1"}} if path.endswith("/there") else None


class Bench:
    """A pod on a bench, with everything around it faked."""

    def __init__(self, folder: Path, sources: Sources, **component: bool) -> None:
        self.kube, self.made, self._component = FakeKube(), list[FakeComponent](), component
        self.addresses = Addresses(str(folder))
        kube = cast("Kube", self.kube)
        self.node = HollowNode(kube, "hollow-0", "127.64.0.2", "zone-a")
        self.around = Surroundings(
            kube=kube, addresses=self.addresses, folder=folder, restart_delay_s=0.0, make=self.make, sources=lambda _: sources
        )

    def make(self, kind: str, env: Mapping[str, str], resolve: Resolve) -> FakeComponent:
        self.made.append(FakeComponent(env, **self._component))
        return self.made[-1]

    def pod(self, obj: Obj) -> HollowPod:
        pod = HollowPod(obj, self.node, self.around)
        pod.begin()
        return pod

    def last(self) -> Obj:
        return self.kube.reports[-1]

    def main_state(self) -> Obj:
        return cast("Obj", self.last()["containerStatuses"][0]["state"]) if self.kube.reports else {}


@asynccontextmanager
async def a_bench(folder: Path, sources: Sources = NOTHING, **component: bool) -> AsyncIterator[Bench]:
    bench = Bench(folder, sources, **component)
    try:
        yield bench
    finally:
        bench.addresses.close()


async def until(condition: Callable[[], object], seconds: float = 3.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # conditions of all kinds, not all of them events
            await asyncio.sleep(0.005)


async def test_a_pod_runs_in_its_own_folder_on_its_own_address(tmp_path: Path) -> None:
    container = {"env": [{"name": "WABIZ_STATE_DIR", "value": "/state/x"}], "volumeMounts": [{"name": "s", "mountPath": "/state"}]}
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod(container, volumes=[{"name": "s", "emptyDir": {}}]))
        await until(lambda: "running" in bench.main_state())

        assert bench.made[0].env == {"WABIZ_STATE_DIR": str(tmp_path / "pods" / "u1" / "s" / "x"), "WABIZ_LISTEN": pod.ip}
        assert len(bench.kube.reports) == 1
        await pod.shut_down()
        assert (tmp_path / "pods" / "u1" / "s").is_dir()


async def test_a_crash_is_reported_before_the_restart_and_the_folder_survives(tmp_path: Path) -> None:
    container = {"volumeMounts": [{"name": "s", "mountPath": "/state"}]}
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod(container, volumes=[{"name": "s", "emptyDir": {}}]))
        await until(lambda: "running" in bench.main_state())
        kept = tmp_path / "pods" / "u1" / "s" / "kept"
        kept.write_text("x")
        await pod.kill()
        await until(lambda: len(bench.made) == 2 and "running" in bench.main_state())

        states = [next(iter(one["containerStatuses"][0]["state"])) for one in bench.kube.reports]
        assert states == ["running", "terminated", "running"]
        assert bench.last()["containerStatuses"][0]["restartCount"] == 1
        assert bench.made[0].calls == ["start", "kill"]
        assert kept.exists()
        await pod.shut_down()


async def test_a_crash_is_made_good_while_the_api_server_is_away(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod())
        await until(lambda: "running" in bench.main_state())
        bench.kube.away = True
        await pod.kill()
        await until(lambda: len(bench.made) == 2)
        bench.kube.away = False
        await until(lambda: bench.last()["containerStatuses"][0]["restartCount"] == 1)
        await pod.shut_down()


async def test_a_missing_secret_makes_it_wait_until_it_comes(tmp_path: Path) -> None:
    secrets: dict[str, dict[str, bytes]] = {}
    container = {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}
    async with a_bench(tmp_path, Sources(secret=secrets.get, config_map=lambda _: None)) as bench:
        pod = bench.pod(a_pod(container))
        await until(lambda: "waiting" in bench.main_state())
        assert bench.main_state()["waiting"] == {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}
        assert bench.last()["phase"] == "Pending"

        secrets["s"] = {"k": b"v"}
        pod.look_again()
        await until(lambda: "running" in bench.main_state())

        assert bench.made[0].env["X"] == "v"
        assert bench.last()["containerStatuses"][0]["restartCount"] == 0
        await pod.shut_down()


async def test_a_component_that_does_not_start_is_restarted_ever_more_slowly(tmp_path: Path) -> None:
    async with a_bench(tmp_path, fails=True) as bench:
        pod = bench.pod(a_pod())
        await until(lambda: len(bench.made) == 2)

        assert bench.main_state()["terminated"]["exitCode"] == 1
        assert "OSError: no" in bench.main_state()["terminated"]["message"]
        await pod.shut_down()


async def test_readiness_is_followed(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod())
        await until(lambda: "running" in bench.main_state())
        bench.made[0].ready = False
        pod.look()
        await until(lambda: not bench.last()["containerStatuses"][0]["ready"])
        await pod.shut_down()


async def test_a_hung_container_is_noticed_by_the_probes_of_its_spec_only(tmp_path: Path) -> None:
    probe = {"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 0.05}
    async with a_bench(tmp_path) as bench:
        other = a_pod({"readinessProbe": probe})
        patient, probed = bench.pod(a_pod()), bench.pod(other | {"metadata": other["metadata"] | {"uid": "u2"}})
        await until(lambda: patient.container.ready and probed.container.ready)
        await patient.hang()
        await probed.hang()

        def noticed() -> bool:
            patient.look()
            probed.look()
            return not probed.container.ready

        await until(noticed)
        assert patient.container.ready
        await probed.resume()
        probed.look()
        assert probed.container.ready
        await patient.shut_down()
        await probed.shut_down()


async def test_a_tcp_probe_cannot_see_a_stopped_process_but_a_deaf_port(tmp_path: Path) -> None:
    probe = {"tcpSocket": {"port": 6253}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 0.05}
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod({"readinessProbe": probe}))
        await until(lambda: pod.container.ready)
        await pod.hang()
        await asyncio.sleep(0.1)  # twice as long as the probe's time-out
        pod.look()
        assert pod.container.ready
        await pod.resume()

        await pod.disturb({"ports": "half-open"})
        assert pod.container.ready

        def noticed() -> bool:
            pod.look()
            return not pod.container.ready

        await until(noticed)
        await pod.disturb({"ports": "open"})
        pod.look()
        assert pod.container.ready
        assert bench.made[0].calls == ["start", "hang", "resume", "disturb half-open", "disturb open"]
        await pod.shut_down()


async def test_a_pod_that_is_parted_goes_on_and_is_joined_unless_it_began_a_new_life(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod())
        await until(lambda: pod.container.ready)
        await pod.part()
        pod.look()
        assert pod.container.ready, "it is not stopped"
        await pod.join()
        await pod.join()
        assert bench.made[0].calls == ["start", "disturb parted", "disturb open"]

        await pod.part()
        await pod.kill()
        await until(lambda: len(bench.made) == 2 and pod.container.ready)
        await pod.join()
        assert bench.made[1].calls == ["start"], "a new life was never parted"
        await pod.shut_down()


async def test_what_faults_did_to_a_pod_is_counted_over_all_its_lives(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod())
        await until(lambda: pod.container.ready)

        def effects() -> Counter[str]:
            return sum(bench.around.effects[pod.uid], Counter())

        assert not effects(), "nothing was done to it"
        bench.made[0].effects["requests held"] = 2
        assert effects() == {"requests held": 2}
        await pod.kill()
        await until(lambda: len(bench.made) == 2 and pod.container.ready)
        bench.made[1].effects["requests held"] = 1
        assert effects() == {"requests held": 3, "containers ended": 1}
        await pod.vanish()
        assert effects() == {"requests held": 3, "containers ended": 1}, "also when it is gone"


def test_a_container_is_restarted_as_late_as_by_a_kubelet_unless_a_test_asks_for_less() -> None:
    assert RESTART_S >= 1.0
    assert signature(running).parameters["restart_delay_s"].default == RESTART_S


async def test_only_what_can_be_disturbed_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod())
        with pytest.raises(NotRunningError, match="runs no container"):
            await pod.disturb({"swallow": 0.3})
        await until(lambda: pod.container.ready)
        monkeypatch.delattr(FakeComponent, "disturb")
        with pytest.raises(ValueError, match="cannot be disturbed, only killed and hung"):
            await pod.disturb({"swallow": 0.3})
        await pod.shut_down()


async def test_a_failed_liveness_probe_restarts_a_hung_container(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod({"livenessProbe": {"failureThreshold": 1, "timeoutSeconds": 0.02}}))
        await until(lambda: pod.container.ready)
        await pod.hang()

        def restarted() -> bool:
            pod.look()
            return len(bench.made) == 2 and pod.container.ready

        await until(restarted)
        await pod.shut_down()


def leaving(obj: Obj, grace: int, version: str = "2") -> Obj:
    more = {"deletionTimestamp": stamp(NOW), "deletionGracePeriodSeconds": grace, "resourceVersion": version}
    return obj | {"metadata": obj["metadata"] | more}


async def test_a_deleted_pod_is_stopped_and_then_deleted_for_good(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        obj = a_pod()
        pod = bench.pod(obj)
        await until(lambda: pod.container.ready)
        pod.update(leaving(obj, 30))
        await until(lambda: pod.finished)

        assert bench.made[0].calls == ["start", "stop 30"]
        assert bench.kube.deleted == ["u1"]
        assert not (tmp_path / "pods" / "u1").exists()


async def test_a_shorter_grace_hastens_the_end(tmp_path: Path) -> None:
    async with a_bench(tmp_path, lingers=True) as bench:
        obj = a_pod()
        pod = bench.pod(obj)
        await until(lambda: pod.container.ready)
        pod.update(leaving(obj, 3600))
        await until(lambda: bench.made[0].calls[-1] == "stop 3600")
        pod.update(leaving(obj, 0, "3"))
        await until(lambda: pod.finished)

        assert bench.made[0].calls[-1] == "kill"
        assert len(bench.made) == 1


async def test_a_hung_pod_is_killed_when_its_grace_ends(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        obj = a_pod()
        pod = bench.pod(obj)
        await until(lambda: pod.container.ready)
        await pod.hang()
        pod.update(leaving(obj, 1))
        await until(lambda: pod.finished)

        assert bench.made[0].calls == ["start", "hang", "kill"]


async def test_a_force_deleted_pod_is_killed_at_once(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod())
        await until(lambda: pod.container.ready)
        await pod.vanish()

        assert bench.made[0].calls == ["start", "kill"]
        assert bench.kube.deleted == []
        assert pod.finished


async def test_a_kill_that_began_is_seen_through_when_the_object_vanishes_meanwhile(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        obj = a_pod()
        pod = bench.pod(obj)
        await until(lambda: pod.container.ready)
        bench.kube.away = True
        pod.update(leaving(obj, 0))
        await until(lambda: "kill" in bench.made[0].calls)
        await pod.vanish()

        assert bench.made[0].gone
        assert pod.finished


async def test_a_pod_that_is_leaving_when_first_seen_gets_no_life(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(leaving(a_pod(), 30))
        await until(lambda: pod.finished)

        assert bench.made == []
        assert bench.kube.deleted == ["u1"]


async def test_nothing_leaves_a_lost_node(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod())
        await until(lambda: pod.container.ready and bench.kube.reports)
        bench.node.lose()
        await pod.hang("lost")
        await pod.kill()
        await until(lambda: len(bench.made) == 2 and pod.container.ready)

        assert len(bench.kube.reports) == 1
        assert bench.made[1].calls == ["start", "hang"]
        await pod.shut_down()


async def test_what_the_node_controller_overwrote_is_said_again(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        obj = a_pod()
        pod = bench.pod(obj)
        await until(lambda: len(bench.kube.reports) == 1)
        conditions = [one | ({"status": "False"} if one["type"] == "Ready" else {}) for one in bench.last()["conditions"]]
        stale = obj | {"metadata": obj["metadata"] | {"resourceVersion": "50"}, "status": {"conditions": conditions}}
        pod.update(stale)
        pod.update(stale | {"metadata": obj["metadata"] | {"resourceVersion": "500"}})
        await until(lambda: len(bench.kube.reports) == 2)
        await pod.shut_down()


async def test_a_pod_without_the_stand_in_just_runs(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod({"command": ["sleep", "1"]}))
        await until(lambda: "running" in bench.main_state())

        assert bench.last()["containerStatuses"][0]["ready"]
        assert bench.made == []
        await pod.shut_down()


async def test_a_claim_is_a_folder_that_outlives_the_pod(tmp_path: Path) -> None:
    container = {"env": [{"name": "D", "value": "/d"}], "volumeMounts": [{"name": "v", "mountPath": "/d"}]}
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod(container, volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "there"}}]))
        await until(lambda: pod.container.ready)
        await pod.vanish()

        assert bench.made[0].env["D"] == str(tmp_path / "claims" / "claim-1")
        assert (tmp_path / "claims" / "claim-1").is_dir()


@pytest.mark.parametrize(
    ("spec", "meta", "want"),
    [
        ({}, {}, True),
        ({"storageClassName": ""}, {}, True),
        ({"storageClassName": "fast"}, {}, False),
        ({"volumeName": "v"}, {}, False),
        ({}, {"deletionTimestamp": "2026-03-01T12:00:00Z"}, False),
    ],
)
def test_only_claims_that_nobody_else_serves_are_served(spec: Obj, meta: Obj, want: bool) -> None:
    assert unbound({"metadata": meta, "spec": spec}) == want


# ---------------------------------------------------------------- the mirror of a collection


class FakeCollection:
    """An API server's list and watch, scripted."""

    def __init__(self) -> None:
        self.objects: list[Obj] = []
        self.lists = 0
        self.script: asyncio.Queue[tuple[str, Obj] | Exception] = asyncio.Queue()
        self.asked: list[str] = []

    async def get(self, path: str) -> Obj:
        self.lists += 1
        return {"items": self.objects, "metadata": {"resourceVersion": "10"}}

    async def watch(self, path: str, version: str, selector: str) -> AsyncIterator[tuple[str, Obj]]:
        self.asked.append(version)
        while True:
            step = await self.script.get()
            if isinstance(step, Exception):
                raise step
            yield step


def named(name: str, uid: str = "u", version: str = "11") -> Obj:
    return {"metadata": {"namespace": "ns", "name": name, "uid": uid, "resourceVersion": version}}


@asynccontextmanager
async def mirrored(collection: FakeCollection) -> AsyncIterator[list[tuple[str, str, str]]]:
    seen: list[tuple[str, str, str]] = []
    mirror = Mirror(cast("Kube", collection), "/x", lambda kind, obj: seen.append((kind, obj["metadata"]["name"], obj["metadata"]["uid"])))
    task = asyncio.create_task(mirror.run())
    try:
        yield seen
    finally:
        task.cancel()


async def test_a_mirror_goes_on_from_the_last_version_after_a_break() -> None:
    collection = FakeCollection()
    for step in (("ADDED", named("a", version="12")), ("BOOKMARK", named("", version="20")), NoAnswerError("broken")):
        collection.script.put_nowait(step)
    async with mirrored(collection) as seen:
        await until(lambda: len(collection.asked) == 2)

        assert seen == [("ADDED", "a", "u")]
        assert collection.asked == ["10", "20"]
        assert collection.lists == 1


async def test_a_mirror_lists_again_when_its_version_is_too_old_and_finds_what_went() -> None:
    collection = FakeCollection()
    collection.objects = [named("a"), named("b")]
    async with mirrored(collection) as seen:
        await until(lambda: len(seen) == 2)
        collection.objects = [named("b", uid="u2")]
        collection.script.put_nowait(RefusedError("WATCH", 410, "Expired", "too old"))
        await until(lambda: collection.lists == 2)

        assert seen[2:] == [("DELETED", "a", "u"), ("DELETED", "b", "u"), ("MODIFIED", "b", "u2")]
