"""The charts meet the real API server: applied dry, installed, upgraded, uninstalled by the real Helm; Pod Security judges the pods."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from localkube.charts import CLUSTER, OPERATOR, Helm
from localkube.errors import LocalKubeError
from localkube.plane.controlplane import ControlPlane
from localkube.plane.operators import NAMESPACE, REPOSITORY, await_crd
from localkube.programs.binaries import provide
from localkube.programs.versions import chart_programs
from localkube.release.packages import manifest

from .environment import LONG

pytestmark = pytest.mark.integration

Obj = dict[str, Any]
CRD = "whatsappclusters.multiconnect.dev"
SCOPES = {"Cluster": {}, "Namespace": {"scope": "Namespace", "watchNamespaces": ["chart-a", "chart-b"]}}
CHARTS = REPOSITORY / "charts"


class HelmUser:
    """Helm with the admin's rights on a real API server."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self.program = provide(os.environ, programs=chart_programs())["helm"]
        self._helm = Helm(self.program, folder, env={"KUBECONFIG": str(plane.admin_kubeconfig)})

    def helm(self, command: str, *args: str, namespace: str = NAMESPACE, **values: Any) -> str:
        return self._helm.run(command, *args, "-n", namespace, values=yaml.safe_dump(values) if values else "")

    def template(self, chart: str, release: str, *, namespace: str, **values: Any) -> str:
        return self.helm("template", release, str(CHARTS / chart), "--validate", namespace=namespace, **values)

    def cluster(self, name: str = "acme") -> Obj:
        found: Obj = json.loads(self.plane.kubectl("-n", "chart-a", "get", "wac", name, "-o", "json"))
        return found


def named(obj: Obj) -> tuple[str, str, str]:
    return obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


@pytest.fixture(scope="module")
def user(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HelmUser]:
    for namespace in (NAMESPACE, "chart-a", "chart-b"):
        control_plane.kubectl("create", "namespace", namespace)
    control_plane.kubectl("label", "namespace", NAMESPACE, "chart-a", "pod-security.kubernetes.io/enforce=restricted")
    yield HelmUser(control_plane, tmp_path_factory.mktemp("helm"))
    control_plane.kubectl("delete", "crd", CRD, "--ignore-not-found")
    # Waits until it is gone: other modules make this namespace again, and one that is being deleted takes nothing.
    control_plane.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=LONG)
    control_plane.kubectl("delete", "namespace", "chart-a", "chart-b", "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="module")
def installed(user: HelmUser) -> Iterator[HelmUser]:
    """The operator's chart, installed, as every test but the last leaves it; without nodes its pods stay Pending."""
    user.helm("install", "whatsapp-operator", str(CHARTS / OPERATOR))
    await_crd(user.plane)
    yield user
    user.helm("uninstall", "whatsapp-operator", "--ignore-not-found")
    user.plane.kubectl("delete", "crd", CRD, "--ignore-not-found")


@pytest.mark.parametrize("scope", SCOPES)
def test_the_api_server_takes_all_of_the_operators_chart(user: HelmUser, scope: str) -> None:
    text = user.template(OPERATOR, "whatsapp-operator", namespace=NAMESPACE, **SCOPES[scope])
    said = user.plane.kubectl("apply", "--server-side", "--validate=strict", "--dry-run=server", "-f", "-", input=text)
    objects = [obj for obj in yaml.load_all(text, Loader=yaml.CSafeLoader) if obj]
    assert len(said.splitlines()) == len(objects)


def test_the_notes_of_an_installation_can_be_pasted(user: HelmUser) -> None:
    said = user.helm("install", "whatsapp-operator", str(CHARTS / OPERATOR), "--dry-run=server")
    assert "kubectl apply -f - <<'EOF'" in said


def test_pod_security_takes_the_pods_of_both_charts(installed: HelmUser) -> None:
    text = installed.template(OPERATOR, "whatsapp-operator", namespace=NAMESPACE)
    operator = [obj for obj in yaml.load_all(text, Loader=yaml.CSafeLoader) if obj]
    deployment = next(obj for obj in operator if obj["kind"] == "Deployment")
    template = deployment["spec"]["template"]
    pods = [{"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], "name": "p"}, "spec": template["spec"]}]
    pods += [obj for obj in operator if obj["kind"] == "Pod"]
    cluster = yaml.safe_load_all(installed.template(CLUSTER, "acme", namespace="chart-a"))
    pods += [obj for obj in cluster if obj and obj["kind"] == "Pod"]
    assert len(pods) == 3
    for pod in pods:
        namespace = pod["metadata"].get("namespace", NAMESPACE)
        create = ("-n", namespace, "create", "--dry-run=server", "-f", "-")
        installed.plane.kubectl(*create, input=json.dumps(pod))
        pod["spec"]["securityContext"]["runAsNonRoot"] = False
        with pytest.raises(LocalKubeError, match="violates PodSecurity"):
            installed.plane.kubectl(*create, input=json.dumps(pod))


def test_everything_below_the_mark_in_the_rules_and_nothing_else_has_no_namespace(installed: HelmUser) -> None:
    namespaced = installed.plane.kubectl("api-resources", "--namespaced=true", "--no-headers", "-o", "name").split()
    above, _, below = (
        (CHARTS / OPERATOR / "files" / "cluster-rules.yaml").read_text(encoding="utf-8").partition("# --- Only in a ClusterRole")
    )

    def resources(text: str) -> set[str]:
        rules = yaml.safe_load("#" + text)
        return {
            ".".join(filter(None, (one.partition("/")[0], group)))
            for rule in rules
            for group in rule["apiGroups"]
            for one in rule["resources"]
        }

    # a rule of several groups and resources would multiply; there is none
    assert resources(above) <= set(namespaced)
    assert not resources(below) & set(namespaced)


@pytest.mark.parametrize("preset", ["production", "staging"])
def test_the_api_server_takes_a_cluster(installed: HelmUser, preset: str) -> None:
    text = installed.template(CLUSTER, "acme", namespace="chart-a", preset=preset)
    said = installed.plane.kubectl("apply", "--server-side", "--validate=strict", "--dry-run=server", "-f", "-", input=text)
    assert "whatsappcluster.multiconnect.dev/acme serverside-applied" in said


def test_a_lost_line_does_not_reshard(installed: HelmUser) -> None:
    where = str(CHARTS / CLUSTER)
    installed.helm("install", "acme", where, namespace="chart-a", preset="production")
    assert installed.cluster()["spec"]["shards"] == 2
    with pytest.raises(LocalKubeError, match="names neither preset nor shards, and would change 2 shards to 1"):
        installed.helm("upgrade", "acme", where, namespace="chart-a", spares=2)
    assert installed.cluster()["spec"]["spares"] == 1

    installed.helm("upgrade", "acme", where, "--reuse-values", namespace="chart-a", spares=2)
    assert (installed.cluster()["spec"]["shards"], installed.cluster()["spec"]["spares"]) == (2, 2)
    installed.helm("upgrade", "acme", where, namespace="chart-a", shards=1)
    installed.helm("upgrade", "acme", where, namespace="chart-a", spares=3)
    assert (installed.cluster()["spec"]["shards"], installed.cluster()["spec"]["spares"]) == (1, 3)
    installed.helm("uninstall", "acme", namespace="chart-a")
    assert "acme" not in installed.plane.kubectl("-n", "chart-a", "get", "wac", "-o", "name")


def test_a_lost_name_does_not_delete_the_cluster(installed: HelmUser) -> None:
    where = str(CHARTS / CLUSTER)
    installed.helm("install", "acme", where, namespace="chart-a", name="chat", preset="production")
    uid = installed.cluster("chat")["metadata"]["uid"]
    with pytest.raises(LocalKubeError, match="this upgrade would delete WhatsAppCluster chat of this release and make acme"):
        installed.helm("upgrade", "acme", where, namespace="chart-a", preset="production")

    installed.helm("upgrade", "acme", where, namespace="chart-a", name="chat", preset="production", spares=2)
    assert (installed.cluster("chat")["metadata"]["uid"], installed.cluster("chat")["spec"]["spares"]) == (uid, 2)
    installed.helm("install", "acme2", where, namespace="chart-a", preset="staging")
    installed.helm("upgrade", "acme2", where, namespace="chart-a", preset="staging", spares=2)
    installed.helm("uninstall", "acme", "acme2", namespace="chart-a")
    assert installed.plane.kubectl("-n", "chart-a", "get", "wac", "-o", "name") == ""


def test_an_upgrade_is_quiet_and_an_uninstall_leaves_the_clusters(installed: HelmUser) -> None:
    plane = installed.plane
    installed.helm("install", "acme", str(CHARTS / CLUSTER), namespace="chart-a")
    uid = installed.cluster()["metadata"]["uid"]
    get = ("-n", NAMESPACE, "get", "deployment", "whatsapp-operator", "-o", "jsonpath={.metadata.generation} {.spec.replicas}")
    assert plane.kubectl(*get) == "1 2"
    installed.helm("upgrade", "whatsapp-operator", str(CHARTS / OPERATOR))
    assert plane.kubectl(*get) == "1 2"
    installed.helm("upgrade", "whatsapp-operator", str(CHARTS / OPERATOR), replicas=3)
    assert plane.kubectl(*get) == "2 3"

    installed.helm("uninstall", "whatsapp-operator")
    assert installed.cluster()["metadata"]["uid"] == uid
    mine = plane.kubectl("-n", NAMESPACE, "get", "deployments,services,roles,rolebindings,networkpolicies,pdb", "-o", "name")
    assert "whatsapp-operator" not in mine
    assert "whatsapp-operator" not in plane.kubectl("get", "clusterroles,clusterrolebindings", "-o", "name")
    # and it can come back, over the CRD that it left
    installed.helm("install", "whatsapp-operator", str(CHARTS / OPERATOR))
    installed.helm("uninstall", "acme", namespace="chart-a")


def test_the_operator_without_helm(user: HelmUser, tmp_path: Path) -> None:
    user.helm("uninstall", "whatsapp-operator", "--ignore-not-found")
    user.plane.kubectl("delete", "crd", CRD, "--ignore-not-found")
    user.plane.kubectl("delete", "namespace", NAMESPACE)
    by_helm = yaml.load_all(user.template(OPERATOR, "whatsapp-operator", namespace=NAMESPACE), Loader=yaml.CSafeLoader)
    text = manifest(CHARTS / OPERATOR, Helm(user.program, tmp_path))
    objects = list(yaml.load_all(text, Loader=yaml.CSafeLoader))
    assert objects[0]["kind"] == "Namespace"
    assert sorted(map(named, objects[1:])) == sorted(named(obj) for obj in by_helm if obj and obj["kind"] != "Pod")  # of `helm test`
    assert "helm" not in text.casefold()

    path = tmp_path / "operator.yaml"
    path.write_text(text, encoding="utf-8")
    user.plane.kubectl("apply", "--server-side", "--validate=strict", "-f", str(path))
    await_crd(user.plane)
    deployment = ("-n", NAMESPACE, "wait", "deployment/whatsapp-operator", "--timeout=60s")
    user.plane.kubectl(*deployment, "--for=jsonpath={.status.replicas}=2")  # Pod Security took the pods

    # Without the operator its clusters stay.
    user.plane.kubectl("-n", "chart-a", "apply", "-f", str(REPOSITORY / "examples" / "cluster.yaml"))
    user.plane.kubectl("delete", "-f", str(path), "--selector", "app.kubernetes.io/instance=whatsapp-operator")
    left = user.plane.kubectl("get", "-f", str(path), "--ignore-not-found", "-o", "name").split()
    assert left == [f"customresourcedefinition.apiextensions.k8s.io/{CRD}"]
    assert user.cluster()["spec"]["shards"] == 2
