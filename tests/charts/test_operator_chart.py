"""What the chart of the operator renders, and what it rejects."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from localkube.charts import CRD, OPERATOR
from localkube.errors import LocalKubeError
from localkube.monitoring import dashboard
from localkube.monitoring import rules as alerts
from whatsapp_operator.core import manifests
from whatsapp_operator.settings import Settings

from .render import NAMESPACE, ROOT, Charts, Rendered, repeated

RULES = ROOT / "charts" / OPERATOR / "files"


def rules(name: str) -> Any:
    return yaml.safe_load((RULES / f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rendered(charts: Charts) -> Rendered:
    return charts.operator()


# ---- the CRD


def test_the_crd_is_that_of_the_repository(charts: Charts) -> None:
    crd = yaml.load((ROOT / CRD).read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    assert charts.operator("--set", "crds.keep=false").one("CustomResourceDefinition") == crd

    kept = {**crd, "metadata": {**crd["metadata"], "annotations": {"helm.sh/resource-policy": "keep"}}}
    assert charts.operator().one("CustomResourceDefinition") == kept


def test_the_crd_can_be_left_out(charts: Charts) -> None:
    assert not charts.operator("--set", "crds.enabled=false").of("CustomResourceDefinition")


# ---- rights


def test_cluster_scope_grants_the_one_list(rendered: Rendered) -> None:
    assert rendered.one("ClusterRole", "whatsapp-operator")["rules"] == rules("cluster-rules")
    leader = rendered.one("Role", "whatsapp-operator-leader")
    assert (leader["metadata"]["namespace"], leader["rules"]) == (NAMESPACE, rules("lease-rules"))
    nodes = rendered.one("Role", "whatsapp-operator-nodes")
    assert (nodes["metadata"]["namespace"], nodes["rules"]) == ("kube-node-lease", rules("node-lease-rules"))
    assert len(rendered.of("Role")) == 2


def test_every_role_is_bound_to_the_operators_account_and_to_nobody_else(charts: Charts) -> None:
    shapes: list[dict[str, Any]] = [{}, {"scope": "Namespace", "watchNamespaces": ["a", "b"]}]
    for values in shapes:
        shown = charts.operator(**values)
        account = shown.one("ServiceAccount")["metadata"]
        assert shown.one("Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == account["name"]
        bindings = [*shown.of("RoleBinding"), *shown.of("ClusterRoleBinding")]
        bound = {(one["roleRef"]["kind"], one["metadata"].get("namespace"), one["roleRef"]["name"]) for one in bindings}
        roles = [*shown.of("Role"), *(one for one in shown.of("ClusterRole") if not one["metadata"]["labels"].keys() & AGGREGATION)]
        assert bound == {(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in roles}
        subject = {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
        assert all(one["subjects"] == [subject] for one in bindings)


AGGREGATION = {f"rbac.authorization.k8s.io/aggregate-to-{role}" for role in ("view", "edit", "admin")}
NOT_IN_A_ROLE = {"nodes", "customresourcedefinitions"}


def test_namespace_scope_grants_the_same_list_but_for_what_a_role_cannot_grant(charts: Charts) -> None:
    shown = charts.operator(scope="Namespace", watchNamespaces=["a", "b"])
    assert not shown.of("ClusterRole")
    assert not shown.of("ClusterRoleBinding")
    wanted = [one for one in rules("cluster-rules") if not NOT_IN_A_ROLE.intersection(one["resources"])]
    assert len(wanted) == len(rules("cluster-rules")) - 2
    granted = {one["metadata"]["namespace"]: one["rules"] for one in shown.of("Role")}
    assert granted == {"a": wanted, "b": wanted, NAMESPACE: rules("lease-rules")}
    assert shown.env()["WATCH_NAMESPACES"] == "a,b"


def test_namespace_scope_without_names_is_that_of_the_release(charts: Charts) -> None:
    shown = charts.operator(scope="Namespace")
    assert {one["metadata"]["namespace"] for one in shown.of("Role")} == {NAMESPACE}
    assert shown.env()["WATCH_NAMESPACES"] == NAMESPACE


def test_the_mark_in_the_rules_is_there_once() -> None:
    assert (RULES / "cluster-rules.yaml").read_text(encoding="utf-8").count("# --- Only in a ClusterRole") == 1


def test_the_lease_is_the_one_that_may_be_renewed(charts: Charts) -> None:
    shown = charts.operator(release="other")
    named = [one["resourceNames"] for one in shown.one("Role", "other-whatsapp-operator-leader")["rules"] if "resourceNames" in one]
    assert named == [[shown.env()["LEASE_NAME"]]]


# ---- the operators


def test_the_operator_reads_every_variable_that_it_is_given(rendered: Rendered) -> None:
    source = (ROOT / "operator" / "whatsapp_operator" / "settings.py").read_text(encoding="utf-8")
    assert not [name for name in rendered.env() if f'"{name}"' not in source]


def test_the_operator_takes_the_settings_as_they_are_given(charts: Charts) -> None:
    shown = charts.operator(
        lease={"seconds": 8, "renewDeadlineSeconds": 6.5, "retrySeconds": 2},
        metrics={"port": 9090},
        logLevel="DEBUG",
        logFormat="json",
        simulator={"image": {"repository": "r/sim", "tag": "7"}},
        extraEnv=[{"name": "SETTLE_GRACE_SECONDS", "value": "30"}],
    )
    env = {name: value for name, value in shown.env().items() if isinstance(value, str)}
    settings = Settings.from_env({**env, "POD_NAME": "p", "POD_NAMESPACE": "n"})
    assert (settings.lease_seconds, settings.renew_deadline_seconds, settings.retry_seconds) == (8, 6.5, 2)
    assert (settings.metrics_port, settings.log_level, settings.image, settings.watch_namespaces) == (9090, "DEBUG", "r/sim:7", ())
    assert settings.log_format == "json"
    assert settings.tuning.settle_grace.total_seconds() == 30
    assert shown.one("Deployment")["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] == 9090


def test_the_defaults_are_those_of_the_operator(rendered: Rendered) -> None:
    env = {name: value for name, value in rendered.env().items() if isinstance(value, str)}
    given, own = Settings.from_env({**env, "POD_NAMESPACE": "n"}), Settings(identity="x", namespace="n")
    names = (
        "lease_name",
        "lease_seconds",
        "renew_deadline_seconds",
        "retry_seconds",
        "log_level",
        "log_format",
        "image",
        "tuning",
        "watch_namespaces",
    )
    assert {name: getattr(given, name) for name in names} == {name: getattr(own, name) for name in names}


@pytest.mark.parametrize(("probe", "path"), [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")])
def test_probes_ask_the_metrics_port(rendered: Rendered, probe: str, path: str) -> None:
    container = rendered.one("Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container[probe]["httpGet"] == {"path": path, "port": "metrics"}
    assert container["ports"] == [{"name": "metrics", "containerPort": int(rendered.env()["METRICS_PORT"]), "protocol": "TCP"}]


def test_two_operators_that_a_drain_cannot_end_at_once(rendered: Rendered) -> None:
    deployment = rendered.one("Deployment")["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    budget = rendered.one("PodDisruptionBudget")["spec"]
    assert budget == {"maxUnavailable": 1, "selector": deployment["selector"]}
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert all(one["labelSelector"] == deployment["selector"] for one in spread)


def test_what_selects_the_operators_selects_them_and_not_the_test_pod(charts: Charts) -> None:
    shown = charts.operator(
        "--set", "metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.renderMode=alwaysRender", nameOverride="wop"
    )
    pods = shown.one("Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        shown.one("Deployment")["spec"]["selector"]["matchLabels"],
        shown.one("Service")["spec"]["selector"],
        shown.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        shown.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= pods.items()
        assert not selector.items() <= shown.one("Pod")["metadata"]["labels"].items()
    service = shown.one("Service")["metadata"]["labels"].items()
    assert shown.one("ServiceMonitor")["spec"]["selector"]["matchLabels"].items() <= service


OWN = {"app.kubernetes.io/name": "mine", "app.kubernetes.io/instance": "mine", "team": "chat"}


def test_labels_of_a_user_stand_once_next_to_those_of_the_chart(charts: Charts) -> None:
    enabled = {"enabled": True, "renderMode": "alwaysRender", "labels": OWN}
    monitoring = {"rules": enabled, "dashboard": {"enabled": True, "labels": OWN}}
    shown = charts.operator(podLabels=OWN, metrics={"serviceMonitor": enabled}, monitoring=monitoring)
    assert not list(repeated(shown.text))

    pods = shown.one("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert (pods["app.kubernetes.io/name"], pods["app.kubernetes.io/instance"], pods["team"]) == (
        "whatsapp-operator",
        "whatsapp-operator",
        "chat",
    )
    for kind in ("ServiceMonitor", "PrometheusRule", "ConfigMap"):
        assert shown.one(kind)["metadata"]["labels"].items() >= OWN.items(), "something of the user's selects by them"


def test_images_by_tag_or_digest(charts: Charts) -> None:
    digest = "sha256:" + "0" * 64
    shown = charts.operator(image={"repository": "r/op", "tag": "9", "digest": digest})
    assert shown.one("Deployment")["spec"]["template"]["spec"]["containers"][0]["image"] == f"r/op@{digest}"
    assert shown.one("Pod")["spec"]["containers"][0]["image"] == f"r/op@{digest}"
    assert not re.search(r"image: .*:latest", shown.text)


# ---- the network


def egress(shown: Rendered) -> dict[int, Any]:
    return {port["port"]: rule.get("to") for rule in shown.one("NetworkPolicy")["spec"]["egress"] for port in rule["ports"]}


def test_the_operator_may_go_where_it_must(charts: Charts) -> None:
    shown = charts.operator(networkPolicy={"apiServer": {"cidrs": ["10.0.0.1/32"]}})
    to = egress(shown)
    assert set(to) == {443, 6443, manifests.CONTROL_PORT, manifests.HEALTHCHECK_PORT, manifests.WEBAPP_PORT, 53}
    assert to[443] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}]
    assert egress(charts.operator())[443] is None
    for port, component in (
        (manifests.CONTROL_PORT, "coreapp"),
        (manifests.HEALTHCHECK_PORT, "coreapp"),
        (manifests.WEBAPP_PORT, "webapp"),
    ):
        (peer,) = to[port]
        assert peer["namespaceSelector"] == {}
        assert peer["podSelector"]["matchLabels"][manifests.COMPONENT_LABEL] == component


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("http://collector.traces:4318", 4318), ("https://[fd00::1]:4443/otlp", 4443), ("https://collector", 443), ("http://[fd00::1]", 80)],
)
def test_the_operator_may_send_its_traces_to_the_collector(charts: Charts, endpoint: str, port: int) -> None:
    variable = {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": endpoint}
    shown = charts.operator(tracing={"endpoint": endpoint}, networkPolicy={"apiServer": {"ports": [6443]}})
    assert variable in shown.one("Deployment")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert egress(shown)[port] is None
    assert not {80, 4318, 4443} & set(egress(charts.operator()))
    assert variable["name"] not in charts.operator().text


def test_only_metrics_can_be_reached(charts: Charts) -> None:
    spec = charts.operator().one("NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == [{"ports": [{"port": 8080, "protocol": "TCP"}]}]
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert charts.operator(networkPolicy={"metricsFrom": peers}).one("NetworkPolicy")["spec"]["ingress"][0]["from"][1:] == peers


# ---- monitors


@pytest.mark.parametrize(("value", "kind"), [("serviceMonitor", "ServiceMonitor"), ("podMonitor", "PodMonitor")])
def test_monitors_are_rendered_as_their_mode_says(charts: Charts, value: str, kind: str) -> None:
    enabled = f"metrics.{value}.enabled=true"
    mode = f"metrics.{value}.renderMode"
    known = ("--api-versions", f"monitoring.coreos.com/v1/{kind}")
    assert not charts.operator().of(kind)
    assert not charts.operator("--set", enabled).of(kind)
    for args in ((*known,), ("--set", f"{mode}=alwaysRender"), (*known, "--set", f"{mode}=failIfMissing")):
        spec = charts.operator("--set", enabled, *args).one(kind)["spec"]
        (endpoint,) = spec.get("endpoints") or spec["podMetricsEndpoints"]
        assert (endpoint["port"], endpoint["honorLabels"]) == ("metrics", True)
    said = charts.rejection(OPERATOR, "--set", f"{enabled},{mode}=failIfMissing")
    assert f"there is no {kind}" in said
    assert "install the Prometheus Operator first" in said


def test_both_monitors_are_one_too_many(charts: Charts) -> None:
    said = charts.rejection(OPERATOR, "--set", "metrics.podMonitor.enabled=true,metrics.serviceMonitor.enabled=true")
    assert "choose one" in said


# ---- rejections


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("replicas=0", "replicas"),
        ("replica=2", "replica"),
        ("scope=Everything", "scope"),
        ("image.pullpolicy=Always", "pullpolicy"),
        ("image.digest=sha256:abc", "digest"),
        ("crds.keep=maybe", "keep"),
        ("logLevel=LOUD", "logLevel"),
        ("tracing.endpoint=collector:4317", "endpoint"),
        ("logFormat=xml", "logFormat"),
        ("lease.seconds=1", "seconds"),
        ("metrics.port=80", "port"),
        ("metrics.podMonitor.renderMode=perhaps", "renderMode"),
        ("extraEnv[0].name=KUBECONFIG,extraEnv[0].value=x", "extraEnv must not set KUBECONFIG"),
        ("extraEnv[0].name=OTEL_EXPORTER_OTLP_ENDPOINT,extraEnv[0].value=http://c:4318", "set tracing.endpoint instead"),
        ("extraEnv[0].name=OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,extraEnv[0].value=http://c:4318", "set tracing.endpoint instead"),
        ("extraEnv[0].name=LEASE_SECONDS,extraEnv[0].value=x", "set lease.seconds instead"),
        ("extraEnv[0].name=A,extraEnv[0].value=x,extraEnv[1].name=A,extraEnv[1].value=y", "extraEnv sets A twice"),
        ("watchNamespaces[0]=a", "watchNamespaces is given, but scope is Cluster"),
        ("scope=Namespace,watchNamespaces[0]=Not_A_Name", "watchNamespaces"),
        ("serviceAccount.create=false", "serviceAccount.name must name an existing ServiceAccount"),
    ],
)
def test_a_wrong_value_is_refused_by_name(charts: Charts, setting: str, said: str) -> None:
    assert said in charts.rejection(OPERATOR, "--set", setting)


def test_no_variable_of_the_chart_can_be_set_a_second_time(charts: Charts) -> None:
    for name in charts.operator(tracing={"endpoint": "http://collector:4318"}).env():
        assert f"extraEnv must not set {name}:" in charts.rejection(OPERATOR, "--set", f"extraEnv[0].name={name},extraEnv[0].value=x")


@pytest.mark.parametrize(
    ("release", "values"),
    [("1chat", {}), ("my.release", {}), ("x", {"fullnameOverride": f"{'a' * 50}---b"})],
)
def test_a_name_that_no_service_can_have_is_refused(charts: Charts, release: str, values: dict[str, Any]) -> None:
    with pytest.raises(LocalKubeError, match=r"cannot be the name of a Service .* set fullnameOverride"):
        charts.operator(release=release, **values)


def test_a_port_of_traces_that_is_none_is_refused(charts: Charts) -> None:
    assert "99999 is no port: correct tracing.endpoint" in charts.rejection(OPERATOR, "--set", "tracing.endpoint=http://collector:99999")


@pytest.mark.parametrize(
    "setting", ["rbac.create=false", "podDisruptionBudget.enabled=false", "networkPolicy.enabled=false", "rbac.aggregate=false"]
)
def test_parts_can_be_switched_off(charts: Charts, setting: str) -> None:
    kinds = {"rbac": "RoleBinding", "podDisruptionBudget": "PodDisruptionBudget", "networkPolicy": "NetworkPolicy"}
    shown = charts.operator("--set", setting)
    if setting == "rbac.aggregate=false":
        assert [one["metadata"]["name"] for one in shown.of("ClusterRole")] == ["whatsapp-operator"]
    else:
        assert not shown.of(kinds[setting.partition(".")[0]])


# ---- notes


def test_the_notes_have_a_cluster_ready_to_paste(charts: Charts, tmp_path: Path) -> None:
    notes = charts.notes(OPERATOR, tmp_path)
    (pasted,) = re.findall(r"<<'EOF'\n(.*?)\nEOF", notes, re.DOTALL)
    obj = yaml.safe_load(pasted)
    assert (obj["kind"], obj["spec"]) == ("WhatsAppCluster", {"shards": 2, "spares": 1, "client": {"type": "Simulator"}})
    assert "node" not in notes
    assert "in place" in notes


def test_the_notes_say_what_a_namespaced_operator_does_not_observe(charts: Charts, tmp_path: Path) -> None:
    notes = charts.notes(OPERATOR, tmp_path, scope="Namespace", watchNamespaces=["chat"])
    assert "A Role cannot grant access to nodes." in notes
    assert "kubectl apply -n chat -f -" in notes


def test_the_notes_warn_when_uninstalling_would_delete_everything(charts: Charts, tmp_path: Path) -> None:
    assert "Uninstalling DELETES" in charts.notes(OPERATOR, tmp_path, crds={"keep": False})


# ---- alerts and the dashboard


def test_alerts_are_rendered_with_the_address_of_their_runbooks(charts: Charts) -> None:
    enabled = "monitoring.rules.enabled=true"
    known = ("--api-versions", "monitoring.coreos.com/v1/PrometheusRule")
    assert not charts.operator(*known).of("PrometheusRule")
    assert not charts.operator("--set", enabled).of("PrometheusRule")
    address = "https://runbooks.example.com/alerts.md"
    shown = charts.operator("--set", f"{enabled},monitoring.rules.runbooks={address}", *known).one("PrometheusRule")
    wanted = alerts.groups()
    for group in wanted["groups"]:
        for rule in group["rules"]:
            rule["annotations"]["runbook_url"] = rule["annotations"]["runbook_url"].replace(alerts.RUNBOOKS, address)
    assert shown["spec"] == wanted
    said = charts.rejection(OPERATOR, "--set", f"{enabled},monitoring.rules.renderMode=failIfMissing")
    assert "there is no PrometheusRule" in said
    assert "runbooks" in charts.rejection(OPERATOR, "--set", "monitoring.rules.runbooks=x#y")


def test_the_dashboard_is_rendered_as_it_is(charts: Charts) -> None:
    assert not charts.operator().of("ConfigMap")
    shown = charts.operator("--set", "monitoring.dashboard.enabled=true,monitoring.dashboard.labels.mine=yes").one("ConfigMap")
    assert shown["metadata"]["labels"].items() >= {"grafana_dashboard": "1", "mine": "yes"}.items()
    assert shown["data"] == {"whatsapp-operator.json": dashboard.text()}
