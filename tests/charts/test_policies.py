"""What holds for everything that the charts render: real schemas, lint, restricted pods, and that nothing derived is stale."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from localkube.charts import CLUSTER, OPERATOR, commented, derived, with_table
from localkube.errors import LocalKubeError
from localkube.programs.binaries import Binaries
from localkube.programs.versions import kubernetes_version
from whatsapp_operator import __version__

from .render import ROOT, Charts, Rendered
from .test_cluster_chart import EVERYTHING

Obj = dict[str, Any]
MONITORS = "metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.renderMode=alwaysRender"
FULL: Obj = {
    "imagePullSecrets": [{"name": "pull"}],
    "priorityClassName": "system-cluster-critical",
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "chat"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "serviceAccount": {"annotations": {"a": "b"}},
    "networkPolicy": {"apiServer": {"cidrs": ["10.0.0.0/8"]}, "metricsFrom": [{"podSelector": {}}]},
    "extraEnv": [{"name": "REST_SECONDS", "value": "5"}],
}
SHAPES: list[tuple[str, str, tuple[str, ...], Obj]] = [
    ("operator", OPERATOR, (), {}),
    ("operator, everything", OPERATOR, ("--set", MONITORS), FULL),
    ("operator, namespaces", OPERATOR, (), {"scope": "Namespace", "watchNamespaces": ["a", "b"]}),
    ("cluster", CLUSTER, (), {}),
    ("cluster, everything", CLUSTER, (), EVERYTHING),
]


@pytest.fixture(scope="module", params=SHAPES, ids=[shape[0] for shape in SHAPES])
def shape(request: pytest.FixtureRequest, charts: Charts) -> Rendered:
    _, chart, args, values = request.param
    return (charts.operator if chart == OPERATOR else charts.cluster)(*args, **values)


def conforms(text: str, binaries: Binaries, schemas: Path) -> subprocess.CompletedProcess[str]:
    where = f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    # the Prometheus Operator's kinds have no schema without it
    argv = [str(binaries["kubeconform"]), "-strict", "-schema-location", where, "-skip", "ServiceMonitor,PodMonitor", "-summary", "-"]
    return subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60, check=False)


def test_everything_conforms_to_the_api_servers_own_schemas(shape: Rendered, chart_binaries: Binaries, schemas: Path) -> None:
    done = conforms(shape.text, chart_binaries, schemas)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Valid: {len(shape.objects) - len(shape.of('ServiceMonitor'))}, Invalid: 0, Errors: 0" in done.stdout


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("maxUnavailabel: 1", "maxUnavailable: 1"), ("replicas: two", "replicas: 2"), ("runAsNonRot: true", "runAsNonRoot: true")],
)
def test_a_mistake_does_not_conform(charts: Charts, chart_binaries: Binaries, schemas: Path, wrong: str, right: str) -> None:
    text = charts.operator().text
    assert right in text
    assert conforms(text.replace(right, wrong), chart_binaries, schemas).returncode != 0


@pytest.mark.parametrize("chart", [OPERATOR, CLUSTER])
def test_lint(charts: Charts, chart: str) -> None:
    said = charts.helm.run("lint", "--strict", "--kube-version", kubernetes_version(), str(ROOT / "charts" / chart))
    assert "0 chart(s) failed" in said
    assert "[WARNING]" not in said


def test_every_pod_is_restricted(shape: Rendered) -> None:
    pods = [*(one["spec"] for one in shape.of("Pod")), *(one["spec"]["template"]["spec"] for one in shape.of("Deployment"))]
    assert pods
    for pod in pods:
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & pod.keys()
        assert "automountServiceAccountToken" in pod
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


def test_only_the_operator_gets_a_token(shape: Rendered) -> None:
    assert not [one for one in shape.of("Pod") if one["spec"]["automountServiceAccountToken"]]
    assert not [one for one in shape.of("ServiceAccount") if one["automountServiceAccountToken"]]


def test_every_namespaced_object_says_where_it_goes(shape: Rendered) -> None:
    everywhere = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    assert all(("namespace" in one["metadata"]) == (one["kind"] not in everywhere) for one in shape.objects)


def test_no_right_is_a_wildcard_and_none_reads_all_secrets(shape: Rendered) -> None:
    for role in (*shape.of("ClusterRole"), *shape.of("Role")):
        for rule in role["rules"]:
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
            assert "secrets" not in rule["resources"] or set(rule["verbs"]) == {"get", "create"}


def test_nothing_derived_is_stale() -> None:
    stale = [str(path.relative_to(ROOT)) for path, text in derived(ROOT).items() if path.read_text(encoding="utf-8") != text]
    assert not stale, f"{stale}: run 'make charts'"


def test_versions_agree() -> None:
    charts = [yaml.safe_load((ROOT / "charts" / chart / "Chart.yaml").read_text(encoding="utf-8")) for chart in (OPERATOR, CLUSTER)]
    assert {(chart["version"], chart["appVersion"]) for chart in charts} == {(__version__, __version__)}


@pytest.mark.parametrize("path", sorted((ROOT / "charts").glob("*/files/*.py")), ids=lambda path: path.name)
def test_what_runs_in_a_pod_uses_the_standard_library_alone(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 11))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    import sys

    assert names
    assert all(name.split(".")[0] in sys.stdlib_module_names for name in names)


def test_a_value_without_a_comment_is_named(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("# -- Said.\na: 1\nb:\n  c: 2\n")
    with pytest.raises(LocalKubeError, match=r"b\.c in values\.yaml of chart .* has no comment"):
        list(commented(tmp_path / "values.yaml"))


def test_a_readme_without_marks_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(LocalKubeError, match="lacks the marks"):
        with_table("# chart", tmp_path / "values.yaml")
