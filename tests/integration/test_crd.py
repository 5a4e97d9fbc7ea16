"""What the API server rejects, and the sentences with which it does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from localkube.errors import LocalKubeError
from localkube.plane.controlplane import ControlPlane
from localkube.plane.operators import REPOSITORY, await_crd

pytestmark = pytest.mark.integration

Obj = dict[str, Any]
NAMESPACE = "crd"
CORE = "io.k8s.api.core.v1."
SELECTOR = {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["d"]}]}
TERM = {"topologyKey": "kubernetes.io/hostname", "labelSelector": SELECTOR, "namespaceSelector": {}, "matchLabelKeys": ["x"]}
SOFTLY_APART = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": TERM}]}
ACCOUNT = {"countryCode": "1", "phoneNumber": "6315550000", "secretRef": {"name": "acme-account"}}


def a_cluster(name: str = "acme", **spec: Any) -> Obj:
    body = {"shards": 2, "client": {"type": "Simulator"}, **spec}
    return {"apiVersion": "multiconnect.dev/v1alpha1", "kind": "WhatsAppCluster", "metadata": {"name": name}, "spec": body}


def a_client(**images: str) -> Obj:
    return {"type": "Simulator", "images": images}


class Api:
    """kubectl with strict validation, as people have it by default."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def create(self, obj: Obj, *, dry_run: bool = True) -> Obj:
        dry = ["--dry-run=server"] if dry_run else []
        text = self._plane.kubectl("-n", NAMESPACE, "create", "-f", "-", "-o", "json", *dry, input=json.dumps(obj))
        answer: Obj = json.loads(text)
        return answer

    def apply(self, obj: Obj) -> None:
        self._plane.kubectl("-n", NAMESPACE, "apply", "--server-side", "--dry-run=server", "-f", "-", input=json.dumps(obj))

    def patch(self, name: str, **spec: Any) -> None:
        self._plane.kubectl("-n", NAMESPACE, "patch", "wac", name, "--type=merge", "--dry-run=server", "-p", json.dumps({"spec": spec}))

    def rejection(self, obj: Obj) -> str:
        with pytest.raises(LocalKubeError) as caught:
            self.create(obj)
        return str(caught.value)

    def patch_refusal(self, name: str, **spec: Any) -> str:
        with pytest.raises(LocalKubeError) as caught:
            self.patch(name, **spec)
        return str(caught.value)


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> Iterator[Api]:
    control_plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds" / "whatsappclusters.yaml"))
    await_crd(control_plane)
    control_plane.kubectl("create", "namespace", NAMESPACE)
    api = Api(control_plane)
    api.create(a_cluster("kept", account=ACCOUNT), dry_run=False)
    yield api
    control_plane.kubectl("delete", "crd", "whatsappclusters.multiconnect.dev")
    control_plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def test_the_example_is_taken_and_gets_its_defaults(api: Api) -> None:
    made = api.create(yaml.safe_load((REPOSITORY / "examples" / "cluster.yaml").read_text(encoding="utf-8")))
    assert (made["spec"]["spares"], made["spec"]["failover"]["mode"]) == (1, "Automatic")
    # Left out, it stays out: an autoscaler may have the number.
    assert "replicas" not in made["spec"].get("webapp", {})
    assert made["spec"]["paused"] is False


@pytest.mark.parametrize("shards", [1, 2, 4, 8, 16, 32])
def test_every_documented_number_of_shards_is_taken(api: Api, shards: int) -> None:
    assert api.create(a_cluster(shards=shards))["spec"]["shards"] == shards


@pytest.mark.parametrize("shards", [0, 3, -1, 64, "two", 2.5, None])
def test_another_number_of_shards_is_refused(api: Api, shards: object) -> None:
    text = api.rejection(a_cluster(shards=shards))
    assert "spec.shards" in text
    if isinstance(shards, int):
        assert 'supported values: "1", "2", "4", "8", "16", "32"' in text


def test_shards_have_no_default(api: Api) -> None:
    obj = a_cluster()
    del obj["spec"]["shards"]
    assert "spec.shards: Required value" in api.rejection(obj)


@pytest.mark.parametrize(("spares", "sentence"), [(-1, "should be greater than or equal to 0"), (33, "should be less than or equal to 32")])
def test_spares_have_bounds(api: Api, spares: int, sentence: str) -> None:
    text = api.rejection(a_cluster(spares=spares))
    assert "spec.spares" in text
    assert sentence in text


@pytest.mark.parametrize("field", ["cert", "certificate", "pin"])
def test_an_inline_secret_is_refused_without_repeating_it(api: Api, field: str) -> None:
    text = api.rejection(a_cluster(account={**ACCOUNT, field: "c2VjcmV0LWNlcnQ="}))
    assert f"spec.account.{field}" in text
    key = "pin" if field == "pin" else "certificate"
    assert f"must not be given inline: put it under key `{key}` of the Secret that `account.secretRef` names" in text
    assert "c2VjcmV0LWNlcnQ=" not in text


@pytest.mark.parametrize("name", ["a" * 41, "4acme", "acme.corp"])
def test_a_name_that_no_service_could_have_is_refused(api: Api, name: str) -> None:
    text = api.rejection(a_cluster(name))
    assert "metadata.name" in text
    assert "must be at most 40 of a-z, 0-9 and -, begin with a letter and not end with -: Services and pods are named after it" in text


def test_the_longest_name_is_taken(api: Api) -> None:
    assert api.create(a_cluster("a" * 40))["metadata"]["name"] == "a" * 40


def test_what_can_be_added_to_pods_is_taken(api: Api) -> None:
    pod = {
        "labels": {"team": "messaging"},
        "annotations": {"prometheus.io/scrape": "false"},
        "resources": {"requests": {"cpu": 1, "memory": "512Mi"}, "limits": {"memory": "1Gi"}},
        "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "nodeSelector": {"pool": "messaging"},
        "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "messaging", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {}, "podAntiAffinity": SOFTLY_APART},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}],
        "priorityClassName": "high",
    }
    client = {**a_client(coreapp="registry:5000/c:1.2", webapp="w@sha256:" + "a" * 64), "imagePullSecrets": [{"name": "registry"}]}
    database = {"secretRef": {"name": "db"}, "tlsSecretRef": {"name": "db-tls"}}
    webapp = {"pod": pod, "service": {"type": "LoadBalancer", "annotations": {"lb": "internal"}}}
    made = api.create(a_cluster(client=client, database=database, coreapp={"pod": pod}, webapp=webapp))

    assert made["spec"]["coreapp"]["pod"] == pod
    assert made["spec"]["client"]["images"]["coreapp"] == "registry:5000/c:1.2"


def needs(control_plane: ControlPlane, minor: int, why: str) -> None:
    """Skip the test on an older Kubernetes, which CI runs the tests on too."""
    if int(json.loads(control_plane.kubectl("get", "--raw", "/version"))["minor"]) < minor:
        pytest.skip(why)


def test_clusters_are_selected_by_client_and_reason(api: Api, control_plane: ControlPlane) -> None:
    needs(control_plane, 31, "selectableFields are an alpha feature in Kubernetes 1.30")

    def names(selector: str) -> list[str]:
        return control_plane.kubectl("-n", NAMESPACE, "get", "wac", "-o", "name", "--field-selector", selector).split()

    assert names("spec.client.type=Simulator") == ["whatsappcluster.multiconnect.dev/kept"]
    assert names("status.reason=Serving") == []


@pytest.mark.parametrize(("spec", "field"), [({"shard": 2}, "spec.shard"), ({"webapp": {"replica": 2}}, "spec.webapp.replica")])
def test_an_unknown_field_is_refused(api: Api, spec: Obj, field: str) -> None:
    text = api.rejection(a_cluster(**spec))
    assert "strict decoding error" in text
    assert f'unknown field "{field}"' in text


TYPOS: list[tuple[Obj, str]] = [
    ({"affinity": {"nodeAffinty": {}}}, "affinity.nodeAffinty"),
    (
        {"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerms": TERM}]}}},
        "affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerms",
    ),
    (
        {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "ScheduleAnyway", "minDomain": 2}]},
        "topologySpreadConstraints[0].minDomain",
    ),
    ({"tolerations": [{"key": "a", "tolerationSecond": 1}]}, "tolerations[0].tolerationSecond"),
    (
        {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b", "optionl": True}}}]},
        "env[0].valueFrom.secretKeyRef.optionl",
    ),
    ({"resources": {"request": {"cpu": 1}}}, "resources.request"),
]


@pytest.mark.parametrize("kind", ["coreapp", "webapp"])
@pytest.mark.parametrize(("pod", "field"), TYPOS, ids=[field for _, field in TYPOS])
def test_a_misspelt_part_of_a_pod_is_refused_by_name(api: Api, kind: str, pod: Obj, field: str) -> None:
    cluster = a_cluster()
    cluster["spec"][kind] = {"pod": pod}
    assert f'unknown field "spec.{kind}.pod.{field}"' in api.rejection(cluster)
    with pytest.raises(LocalKubeError, match="field not declared in schema"):
        api.apply(cluster)


def as_a_pod_has_it(openapi: Obj, part: Obj) -> Obj:
    """A type of the API server's own as a CRD may spell it: what it refers to in its place, without descriptions."""
    while "$ref" in part:
        part = openapi["definitions"][part["$ref"].removeprefix("#/definitions/")]
    spelt: Obj = {key: value for key, value in part.items() if key not in {"description", "properties", "items"}}
    if "properties" in part:
        spelt["properties"] = {name: as_a_pod_has_it(openapi, inner) for name, inner in part["properties"].items()}
    if "items" in part:
        spelt["items"] = as_a_pod_has_it(openapi, part["items"])
    return spelt


def without_descriptions(schema: Obj) -> Obj:
    kept = {key: value for key, value in schema.items() if key not in {"description", "properties", "items"}}
    if "properties" in schema:
        kept["properties"] = {name: without_descriptions(inner) for name, inner in schema["properties"].items()}
    if "items" in schema:
        kept["items"] = without_descriptions(schema["items"])
    return kept


def fields_of(schema: Obj, path: str = "") -> Iterator[tuple[str, str]]:
    yield path, schema.get("type", "")
    for name, inner in (schema.get("properties") or {}).items():
        yield from fields_of(inner, f"{path}.{name}")
    if "items" in schema:
        yield from fields_of(schema["items"], f"{path}[]")


@pytest.mark.parametrize("kind", ["coreapp", "webapp"])
def test_what_goes_into_pods_is_typed_as_the_api_server_types_it(control_plane: ControlPlane, kind: str) -> None:
    """Another Kubernetes has more fields: then the CRD gets them from its ``kubectl get --raw /openapi/v2``."""
    needs(control_plane, 34, "the fields are those of Kubernetes 1.34")
    openapi = json.loads(control_plane.kubectl("get", "--raw", "/openapi/v2"))
    crd = yaml.load((REPOSITORY / "crds" / "whatsappclusters.yaml").read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    pod = spec[kind]["properties"]["pod"]["properties"]

    def own(name: str) -> Obj:
        return as_a_pod_has_it(openapi, openapi["definitions"][CORE + name])

    assert without_descriptions(pod["affinity"]) == {**own("Affinity"), "x-kubernetes-map-type": "atomic"}
    assert without_descriptions(pod["topologySpreadConstraints"]["items"]) == own("TopologySpreadConstraint")
    assert dict(fields_of(pod["tolerations"]["items"])) == dict(fields_of(own("Toleration")))
    # Of these a part is enough, but none of another type.
    for name, part in (("EnvVar", pod["env"]["items"]), ("ResourceRequirements", pod["resources"])):
        assert set(fields_of(part)) <= set(fields_of(own(name)))


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"client": {"type": "Vendor"}}, "spec.client.type"),
        ({"client": {}}, "spec.client.type: Required value"),
        ({"failover": {"mode": "Never"}}, 'supported values: "Automatic", "Manual"'),
        ({"webapp": {"replicas": 0}}, "spec.webapp.replicas"),
        (
            {"account": {"countryCode": "+1", "phoneNumber": "6315550000", "secretRef": {"name": "a"}}},
            "must be 1 to 3 digits without plus sign",
        ),
        (
            {"account": {"countryCode": "1", "phoneNumber": "555 00", "secretRef": {"name": "a"}}},
            "must be 4 to 14 digits without country code",
        ),
        ({"account": {"countryCode": "1", "phoneNumber": "6315550000"}}, "must have `secretRef` (the certificate) or, within 7 days"),
        ({"client": {"type": "Simulator", "simulator": {"storage": {"size": "much"}}}}, "must be a positive amount such as 1Gi"),
        ({"client": a_client(coreapp="wabiz-sim:latest", webapp="wabiz-sim:1")}, "must each have a tag other than 'latest', or a digest"),
        ({"client": a_client(coreapp="registry:5000/wabiz-sim", webapp="wabiz-sim:1")}, "must each have a tag other than 'latest'"),
        ({"client": a_client(coreapp="wabiz-sim:1")}, "spec.client.images.webapp: Required value"),
        ({"database": {}}, "spec.database.secretRef: Required value"),
        ({"coreapp": {"pod": {"labels": {"multiconnect.dev/role": "active"}}}}, "the operator routes by them"),
        ({"webapp": {"pod": {"annotations": {"multiconnect.dev/x": "1"}}}}, "must not contain keys under 'multiconnect.dev/'"),
        ({"coreapp": {"pod": {"resources": {"requests": {"cpu": "much"}}}}}, "must be an amount such as 500m, 2 or 1Gi"),
        ({"coreapp": {"pod": {"env": [{"name": "WA_DB_HOSTNAME", "value": "x"}]}}}, "must not set a variable that the operator sets"),
        ({"coreapp": {"pod": {"env": [{"name": "POD_NAME", "value": "x"}]}}}, "must not set a variable that the operator sets"),
        (
            {"coreapp": {"pod": {"env": [{"name": "MY_PASSWORD", "value": "x"}]}}},
            "its name says that it is a secret",
        ),
        ({"coreapp": {"pod": {"env": [{"name": "A"}]}}}, "must have exactly one of `value` and `valueFrom`"),
        ({"webapp": {"service": {"type": "ExternalName"}}}, 'supported values: "ClusterIP", "NodePort", "LoadBalancer"'),
    ],
)
def test_what_else_cannot_be_is_refused_with_a_sentence(api: Api, spec: Obj, sentence: str) -> None:
    assert sentence in api.rejection(a_cluster(**spec))


def test_the_account_can_be_added_but_neither_removed_nor_made_another(api: Api) -> None:
    assert "spec.account: Forbidden: cannot be removed" in api.patch_refusal("kept", account=None)
    text = api.patch_refusal("kept", account={"phoneNumber": "6315550001"})
    assert "number cannot be changed: another number is another cluster" in text
    api.patch("kept", account={"secretRef": {"name": "another"}})


def test_the_type_of_client_cannot_be_changed(api: Api) -> None:
    text = api.patch_refusal("kept", client={"type": "Vendor"})
    assert "spec.client.type" in text
    # The first release knows one type only; with the second the rule speaks, and it must stand ready.
    crd = yaml.load((REPOSITORY / "crds" / "whatsappclusters.yaml").read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    client = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["client"]
    rules = {rule["rule"]: rule["message"] for rule in client["properties"]["type"]["x-kubernetes-validations"]}
    assert rules["self == oldSelf"].startswith("cannot be changed")


def test_a_new_cluster_says_that_nobody_has_looked(api: Api, control_plane: ControlPlane) -> None:
    columns = control_plane.kubectl("-n", NAMESPACE, "get", "wac", "kept", "--no-headers").split()
    assert columns[1] == "Unknown"
    condition = control_plane.kubectl("-n", NAMESPACE, "get", "wac", "kept", "-o", "jsonpath={.status.conditions[0].reason}")
    assert condition == "NotReconciled"


def test_status_is_not_written_by_users_of_the_resource(api: Api, control_plane: ControlPlane) -> None:
    before = control_plane.kubectl("-n", NAMESPACE, "get", "wac", "kept", "-o", "jsonpath={.status}")
    control_plane.kubectl("-n", NAMESPACE, "patch", "wac", "kept", "--type=merge", "-p", '{"status":{"shards":32}}')
    assert control_plane.kubectl("-n", NAMESPACE, "get", "wac", "kept", "-o", "jsonpath={.status}") == before
