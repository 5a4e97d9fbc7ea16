"""What a hollow node reads out of a pod and a Service is what a kubelet and kube-proxy would read."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from localkube.hollow.claims import unbound
from localkube.hollow.spec import (
    Backend,
    ConfigError,
    Sources,
    backends,
    component_of,
    data_of,
    environment,
    expanded,
    main_container,
    patience,
    relocated,
    service_name,
    target_port,
    volumes,
)

from .hollow_bench import a_pod, nothing

Obj = dict[str, Any]


def env_of(pod: Obj, sources: Sources = nothing) -> dict[str, str]:
    return environment(pod, main_container(pod), ip="127.64.1.1", host_ip="127.64.0.2", sources=sources)


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


def test_the_main_container_is_the_one_that_runs_the_simulator() -> None:
    pod = a_pod()
    pod["spec"]["containers"].insert(0, {"name": "sidecar", "image": "x"})

    assert main_container(pod)["name"] == "coreapp"


def test_environment_comes_from_values_fields_secrets_and_config_maps() -> None:
    data = {("secret", "s"): {"k": b"secret"}, ("configmap", "c"): {"k": b"config"}}
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

    got = env_of(a_pod({"env": env}), lambda kind, name: data.get((kind, name)))

    assert got == {
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
        env_of(pod, lambda _, name: {"other": b""} if name == "here" else None)


def test_expansion_leaves_unknown_names_and_halves_dollars() -> None:
    assert expanded("$(A) $(B) $$(A) $$$(A) $", {"A": "1"}) == "1 $(B) $(A) $1 $"


def test_data_is_decoded() -> None:
    text = base64.b64encode(b"\x00x").decode()

    assert data_of("secret", {"data": {"a": text, "empty": ""}}) == {"a": b"\x00x", "empty": b""}
    assert data_of("configmap", {"data": {"a": "b"}}) == {"a": b"b"}
    assert data_of("secret", {}) == {}


def test_volumes_are_innermost_first_and_carry_their_files() -> None:
    mounts = [
        {"name": "state", "mountPath": "/var/lib/"},
        {"name": "tls", "mountPath": "/var/lib/tls"},
        {"name": "media", "mountPath": "/media"},
    ]
    declared = [
        {"name": "state", "emptyDir": {}},
        {"name": "tls", "secret": {"secretName": "s"}},
        {"name": "media", "persistentVolumeClaim": {"claimName": "acme-media"}},
    ]
    pod = a_pod({"volumeMounts": mounts}, volumes=declared)

    got = volumes(pod, main_container(pod), lambda *_: {"tls.crt": b"x"})

    assert [(one.name, one.mount_path, one.claim, dict(one.files)) for one in got] == [
        ("tls", "/var/lib/tls", "", {"tls.crt": b"x"}),
        ("state", "/var/lib", "", {}),
        ("media", "/media", "acme-media", {}),
    ]


def test_a_volume_of_a_missing_secret_is_rejected() -> None:
    pod = a_pod({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}, volumes=[{"name": "v", "secret": {"secretName": "s"}}])

    with pytest.raises(ConfigError, match='secret "s" not found'):
        volumes(pod, main_container(pod), nothing)


def test_values_under_a_mount_path_lead_to_the_real_folder() -> None:
    folders = [("/var/lib/tls", "/real/tls"), ("/var/lib", "/real/state")]
    env = {"A": "/var/lib", "B": "/var/lib/db", "C": "/var/lib/tls/tls.crt", "D": "/var/library", "E": "x /var/lib"}

    got = relocated(env, folders)

    assert got == {"A": "/real/state", "B": "/real/state/db", "C": "/real/tls/tls.crt", "D": "/var/library", "E": "x /var/lib"}


def test_patience_is_what_the_kubelet_would_have() -> None:
    assert patience(None) == float("inf")
    assert patience({"periodSeconds": 1, "failureThreshold": 3, "timeoutSeconds": 1}) == 3.0
    assert patience({}) == 21.0


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
        ({"selector": None}, [backend("a")], []),
        ({}, [backend("a", labels={"shard": "0", "more": "1"})], ["a"]),
        ({"selector": {"shard": "0", "epoch": "7-x"}}, [backend("a")], []),
    ],
)
def test_a_service_routes_as_endpoints_and_kube_proxy_would(spec: Obj, pods: list[Backend], want: list[str]) -> None:
    assert [pod.name for pod in backends(a_service(**spec), pods)] == want


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
