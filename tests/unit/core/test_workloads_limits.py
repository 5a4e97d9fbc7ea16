"""What Coreapps and Webapps are started with, how they are reached and watched, and who may connect to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wabiz_sim.settings import Settings
from whatsapp_operator.core import manifests
from whatsapp_operator.core.desired import Desired, PodSettings, Probe, Tls, WebappService

from .situations import situation

WANT = situation().desired


def wanting(**changes: Any) -> Desired:
    return situation().wanting(**changes).desired


def container(workload: dict[str, Any]) -> dict[str, Any]:
    (found,) = workload["spec"]["template"]["spec"]["containers"]
    made: dict[str, Any] = found
    return made


def settings(workload: dict[str, Any]) -> Settings:
    """What the client itself reads from its environment."""
    return Settings.from_env({one["name"]: one["value"] for one in container(workload)["env"] if "value" in one})


def coreapps(**changes: Any) -> dict[str, Any]:
    return manifests.coreapps(wanting(**changes), replicas=3)


def webapps(**changes: Any) -> dict[str, Any]:
    return manifests.webapps(wanting(**changes), replicas=2, is_first_boot=False)


# --- Coreapps


def test_a_coreapp_finds_the_servers_side_and_keeps_its_role_over_a_restart_of_its_container() -> None:
    found = settings(coreapps())

    assert (found.cluster, found.upstream, found.state_dir) == ("acme", ("acme-simulator", 8080), Path("/var/lib/wabiz"))
    assert container(coreapps())["volumeMounts"] == [{"name": "state", "mountPath": "/var/lib/wabiz"}]
    assert coreapps()["spec"]["template"]["spec"]["volumes"] == [{"name": "state", "emptyDir": {}}]


def test_a_coreapp_has_the_ports_that_its_service_and_the_policy_name() -> None:
    numbers = {"messaging": 6250, "contacts": 6251, "control": 6252, "healthcheck": 6253}
    (service,) = (
        obj
        for obj in manifests.upkeep(WANT, webapp_replicas=2, resharding=False, is_first_boot=False, is_unused=False)
        if kind_and_name(obj) == COREAPP_SERVICE
    )

    assert container(coreapps())["ports"] == [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in numbers.items()]
    assert {port["name"]: port["targetPort"] for port in service["spec"]["ports"]} == numbers


def kind_and_name(obj: dict[str, Any]) -> tuple[str, str]:
    return obj["kind"], obj["metadata"]["name"]


COREAPP_SERVICE = ("Service", "acme-coreapp")


def test_each_coreapp_has_a_name_in_the_dns_also_while_it_is_not_ready() -> None:
    """The StatefulSet's Service is headless: it gives names and no address of its own."""
    (service,) = (
        obj
        for obj in manifests.upkeep(WANT, webapp_replicas=2, resharding=False, is_first_boot=False, is_unused=False)
        if kind_and_name(obj) == COREAPP_SERVICE
    )

    assert coreapps()["spec"]["serviceName"] == "acme-coreapp"
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert service["spec"]["selector"] == coreapps()["spec"]["selector"]["matchLabels"]


@pytest.mark.parametrize(
    ("probe", "how"),
    [
        (Probe(), {"httpGet": {"path": "/", "port": 6253, "scheme": "HTTP"}, "timeoutSeconds": 2}),
        (Probe(path="/live"), {"httpGet": {"path": "/live", "port": 6253, "scheme": "HTTP"}, "timeoutSeconds": 2}),
        (Probe(kind="TCP"), {"tcpSocket": {"port": 6253}}),
    ],
    ids=["HTTP", "another path", "TCP"],
)
def test_the_kubelet_asks_a_coreapp_the_same_as_the_operator_each_second(probe: Probe, how: dict[str, Any]) -> None:
    made = container(coreapps(probe=probe))

    assert made["readinessProbe"] == {**how, "periodSeconds": 1, "failureThreshold": 2}
    assert "livenessProbe" not in made, "the operator ends a Coreapp that hangs, after its shard was moved"


# --- Webapps


def test_a_webapp_finds_the_servers_side_its_certificate_and_the_service_of_each_shard() -> None:
    found = settings(webapps())

    assert (found.cluster, found.upstream, found.tls_dir) == ("acme", ("acme-simulator", 8080), Path("/etc/wabiz/tls"))
    assert {"name": "WABIZ_SHARD_SERVICE", "value": "acme-shard-{shard}"} in container(webapps())["env"]
    assert found.shard_service.format(shard=31) == "acme-shard-31"


@pytest.mark.parametrize(("tls", "secret"), [(Tls(), "acme-webapp-tls"), (Tls(secret_name="own"), "own")], ids=["generated", "the user's"])
def test_the_certificate_is_mounted_where_a_webapp_reads_it(tls: Tls, secret: str) -> None:
    workload = webapps(tls=tls)

    assert workload["spec"]["template"]["spec"]["volumes"] == [{"name": "tls", "secret": {"secretName": secret}}]
    assert container(workload)["volumeMounts"] == [{"name": "tls", "mountPath": "/etc/wabiz/tls", "readOnly": True}]


def test_a_new_webapp_is_ready_before_an_old_one_goes() -> None:
    assert webapps()["spec"]["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def test_a_webapp_is_asked_over_https_and_restarted_after_a_minute_of_silence() -> None:
    made = container(webapps())

    assert [made[probe]["httpGet"] for probe in ("readinessProbe", "livenessProbe")] == [{"path": "/", "port": 8443, "scheme": "HTTPS"}] * 2
    hung = made["livenessProbe"]
    assert (hung["periodSeconds"] * hung["failureThreshold"], hung["timeoutSeconds"]) == (60, 5)
    assert made["readinessProbe"]["periodSeconds"] == 2
    assert made["ports"] == [{"name": "https", "containerPort": 8443, "protocol": "TCP"}]


def test_a_number_of_webapps_that_is_not_the_operators_is_not_written() -> None:
    """Not as null either: the API server makes 1 of that."""
    assert "replicas" not in manifests.webapps(WANT, replicas=None, is_first_boot=False)["spec"]
    assert [manifests.webapps(WANT, replicas=number, is_first_boot=False)["spec"]["replicas"] for number in (0, 7)] == [0, 7]


@pytest.mark.parametrize("first", [True, False])
def test_it_is_noted_on_the_deployment_whether_the_first_webapp_starts_alone(first: bool) -> None:
    (made,) = (
        obj
        for obj in manifests.upkeep(WANT, webapp_replicas=1, resharding=False, is_first_boot=first, is_unused=False)
        if kind_and_name(obj) == ("Deployment", "acme-webapp")
    )

    assert made["metadata"]["annotations"].get("multiconnect.dev/first-boot") == ("true" if first else None)
    assert "multiconnect.dev/first-boot" not in webapps()["metadata"]["annotations"]


@pytest.mark.parametrize("kind", ["ClusterIP", "LoadBalancer"])
def test_webapps_are_reached_under_443_by_both_families_of_addresses_and_as_the_spec_says(kind: str) -> None:
    spec = manifests.webapp_service(wanting(webapp_service=WebappService(type=kind)))["spec"]

    assert spec["ports"] == [{"name": "https", "port": 443, "targetPort": 8443, "protocol": "TCP"}]
    assert (spec["type"], spec["ipFamilyPolicy"]) == (kind, "PreferDualStack")
    assert spec["selector"] == webapps()["spec"]["selector"]["matchLabels"]


def test_each_container_runs_its_part_of_the_client() -> None:
    for workload, part in ((coreapps(), "coreapp"), (webapps(), "webapp")):
        made = container(workload)
        assert (made["name"], made["command"]) == (part, ["python", "-m", "wabiz_sim", part])


def test_what_the_user_adds_to_webapps_is_in_their_pods() -> None:
    assert webapps(webapp_pod=PodSettings(priority_class="high"))["spec"]["template"]["spec"]["priorityClassName"] == "high"


# --- Secrets


def test_generated_secrets_have_the_types_that_kubernetes_checks() -> None:
    """Of a TLS Secret the API server demands both keys."""
    found = {obj["metadata"]["name"]: (obj["apiVersion"], obj["type"]) for obj in manifests.secrets(WANT)}

    assert found == {"acme-admin": ("v1", "Opaque"), "acme-webapp-tls": ("v1", "kubernetes.io/tls")}


def test_a_secret_that_the_user_brings_is_not_generated() -> None:
    assert [obj["metadata"]["name"] for obj in manifests.secrets(wanting(admin_secret="own"))] == ["acme-webapp-tls"]
    assert [obj["metadata"]["name"] for obj in manifests.secrets(wanting(tls=Tls(secret_name="own")))] == ["acme-admin"]


# --- Services of shards


def test_a_service_of_a_shard_leads_to_messages_and_contacts_alone() -> None:
    service = manifests.shard_service(WANT, 3)

    assert service["spec"]["ports"] == [
        {"name": "messaging", "port": 6250, "targetPort": 6250, "protocol": "TCP"},
        {"name": "contacts", "port": 6251, "targetPort": 6251, "protocol": "TCP"},
    ]
    assert service["metadata"]["labels"][manifests.COMPONENT_LABEL] == "coreapp"
    assert service["metadata"]["labels"][manifests.SHARD_LABEL] == "3"


# --- who may connect


def component(name: str) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": {"multiconnect.dev/cluster": "acme", "app.kubernetes.io/component": name}}}


OPERATOR = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "whatsapp-operator"}}}
INSIDE = [component("webapp"), component("coreapp"), OPERATOR]


@pytest.mark.parametrize(
    ("name", "ports", "sources"),
    [("coreapp", [6250, 6251, 6252, 6253], INSIDE), ("simulator", [8080], INSIDE), ("webapp", [8443], None)],
    ids=["Coreapps", "simulator", "Webapps"],
)
def test_only_the_cluster_and_an_operator_of_any_namespace_reach_what_is_inside(
    name: str, ports: list[int], sources: list[dict[str, Any]] | None
) -> None:
    """Webapps are there for all. A rule without ``from`` lets everybody in, an empty one too."""
    (policy,) = (obj for obj in manifests.network_policies(WANT) if obj["metadata"]["name"] == f"acme-{name}")

    assert (policy["apiVersion"], policy["kind"]) == ("networking.k8s.io/v1", "NetworkPolicy")
    assert policy["spec"] == {
        **component(name),
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": port, "protocol": "TCP"} for port in ports]} | ({"from": sources} if sources else {})],
    }


# --- all of them

COMPONENTS = {
    "Secret/acme-admin": ("v1", "webapp"),
    "Secret/acme-webapp-tls": ("v1", "webapp"),
    "NetworkPolicy/acme-coreapp": ("networking.k8s.io/v1", "coreapp"),
    "NetworkPolicy/acme-webapp": ("networking.k8s.io/v1", "webapp"),
    "NetworkPolicy/acme-simulator": ("networking.k8s.io/v1", "simulator"),
    "Service/acme-simulator": ("v1", "simulator"),
    "StatefulSet/acme-simulator": ("apps/v1", "simulator"),
    "Service/acme-coreapp": ("v1", "coreapp"),
    "Service/acme-webapp": ("v1", "webapp"),
    "PodDisruptionBudget/acme-coreapp": ("policy/v1", "coreapp"),
    "PodDisruptionBudget/acme-webapp": ("policy/v1", "webapp"),
    "StatefulSet/acme-coreapp": ("apps/v1", "coreapp"),
    "Deployment/acme-webapp": ("apps/v1", "webapp"),
    "Service/acme-shard-0": ("v1", "coreapp"),
}


def test_each_object_says_of_which_component_it_is() -> None:
    """People select by it."""
    made = (
        *manifests.secrets(WANT),
        *manifests.upkeep(WANT, webapp_replicas=2, resharding=False, is_first_boot=False, is_unused=False),
        manifests.shard_service(WANT, 0),
    )
    found = {"/".join(kind_and_name(obj)): (obj["apiVersion"], obj["metadata"]["labels"]["app.kubernetes.io/component"]) for obj in made}

    assert found == COMPONENTS


def test_budgets_count_the_pods_of_their_component() -> None:
    for budget, part in (
        (manifests.disruption_budget(WANT, resharding=False, is_unused=False), "coreapp"),
        (manifests.webapp_disruption_budget(WANT), "webapp"),
    ):
        assert budget["spec"]["selector"] == component(part)["podSelector"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [("Pod", "acme-shard-3"), ("Service", "acme-coreapp-0"), ("Service", "acme-simulator-0"), ("Pod", "acme-webapp-0")],
)
def test_an_object_of_another_kind_that_is_named_alike_lacks_no_label(kind: str, name: str) -> None:
    assert manifests.lost_labels(WANT, {"kind": kind, "metadata": {"name": name}}) == {}


def test_each_service_names_its_type_so_that_another_one_is_put_right() -> None:
    made = [
        obj
        for obj in manifests.upkeep(wanting(), webapp_replicas=1, resharding=False, is_first_boot=False, is_unused=False)
        if obj["kind"] == "Service"
    ]
    shard = manifests.shard_service(wanting(), 0)

    assert {obj["metadata"]["name"]: obj["spec"]["type"] for obj in (*made, shard)} == dict.fromkeys(
        ("acme-coreapp", "acme-webapp", "acme-simulator", "acme-shard-0"), "ClusterIP"
    )
    assert shard["spec"]["internalTrafficPolicy"] == "Cluster"
