"""What a user adds to pods comes out in their templates, and takes nothing away that the operator needs."""

from __future__ import annotations

from typing import Any

import pytest

from whatsapp_operator.core import manifests
from whatsapp_operator.core.desired import Database, Desired, Images, PodSettings, WebappService
from whatsapp_operator.core.upkeep import corrected, covers

from .situations import situation


def wanting(**changes: Any) -> Desired:
    return situation().wanting(**changes).desired


def coreapp(settings: PodSettings) -> dict[str, Any]:
    template: dict[str, Any] = manifests.coreapps(wanting(coreapp_pod=settings), replicas=3)["spec"]["template"]
    return template


def simulator(desired: Desired) -> dict[str, Any]:
    """The spec of the simulator's pods."""
    (workload,) = (obj for obj in manifests.simulator(desired) if obj["kind"] == "StatefulSet")
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def test_labels_and_annotations_are_added_and_ours_stay() -> None:
    meta = coreapp(PodSettings(labels={"team": "a", manifests.CLUSTER_LABEL: "other"}, annotations={"note": "1"}))["metadata"]

    assert meta["labels"]["team"] == "a"
    assert meta["labels"][manifests.CLUSTER_LABEL] == "acme"
    assert meta["annotations"] == {"note": "1"}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, {"requests": {"cpu": "50m", "memory": "64Mi"}}),
        ({"requests": {"cpu": "2"}}, {"requests": {"cpu": "2", "memory": "64Mi"}}),
        ({"limits": {"memory": "32Mi"}}, {"requests": {"cpu": "50m"}, "limits": {"memory": "32Mi"}}),
        ({"limits": {"cpu": "1", "memory": "32Mi"}}, {"limits": {"cpu": "1", "memory": "32Mi"}}),
    ],
)
def test_requests_are_ours_where_the_user_says_nothing(resources: dict[str, Any], expected: dict[str, Any]) -> None:
    """Never a request above the user's limit: the API server would reject the pod."""
    assert coreapp(PodSettings(resources=resources))["spec"]["containers"][0]["resources"] == expected


def test_environment_is_added_after_ours() -> None:
    env = coreapp(PodSettings(env=({"name": "LOG", "value": "$(POD_NAME)"}, {"name": "POD_NAME", "value": "x"})))["spec"]["containers"][0][
        "env"
    ]

    names = [one["name"] for one in env]
    assert names[-1] == "LOG"
    assert names.count("POD_NAME") == 1
    assert "valueFrom" in env[0]


def test_where_pods_go_is_the_users_word_or_apart_and_everywhere() -> None:
    plain = coreapp(PodSettings())["spec"]
    assert plain["affinity"]["podAntiAffinity"]
    assert [one["topologyKey"] for one in plain["topologySpreadConstraints"]] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    spread = ({"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"},)
    spec = coreapp(
        PodSettings(node_selector={"pool": "a"}, tolerations=({"operator": "Exists"},), affinity={}, spread=spread, priority_class="high")
    )["spec"]
    assert (spec["nodeSelector"], spec["tolerations"], spec["priorityClassName"]) == ({"pool": "a"}, [{"operator": "Exists"}], "high")
    assert spec["affinity"] == {}, "an empty one takes the operator's away"
    assert spec["topologySpreadConstraints"][0]["labelSelector"] == {"matchLabels": manifests.component_labels("acme", "coreapp")}


SPREAD = {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({}, {"matchLabels": {manifests.CLUSTER_LABEL: "acme", manifests.COMPONENT_LABEL: "coreapp"}}),
        ({"labelSelector": {"matchLabels": {"team": "a"}}}, {"matchLabels": {"team": "a"}}),
    ],
    ids=["of this kind", "as the user says"],
)
def test_pods_are_spread_as_the_user_says_and_in_no_other_way(selector: dict[str, Any], expected: dict[str, Any]) -> None:
    spec = coreapp(PodSettings(spread=({**SPREAD, **selector},)))["spec"]

    assert spec["topologySpreadConstraints"] == [{**SPREAD, "labelSelector": expected}]
    assert coreapp(PodSettings(spread=()))["spec"]["topologySpreadConstraints"] == [], "an empty list takes the operator's away"


def test_images_and_pull_secrets() -> None:
    desired = wanting(images=Images(coreapp="r/c:1", webapp="r/w:1"), pull_secrets=("reg",))

    image = {
        obj["metadata"]["name"]: obj["spec"]["template"]["spec"]
        for obj in manifests.upkeep(desired, webapp_replicas=2, resharding=False, is_first_boot=False, is_unused=False)
        if "template" in obj["spec"]
    }
    assert image["acme-coreapp"]["containers"][0]["image"] == "r/c:1"
    assert image["acme-webapp"]["containers"][0]["image"] == "r/w:1"
    assert image["acme-simulator"]["containers"][0]["image"] == desired.image
    assert all(spec["imagePullSecrets"] == [{"name": "reg"}] for spec in image.values())


def test_the_database_is_the_simulators_alone_by_its_secret() -> None:
    desired = wanting(database=Database(secret_name="db", tls_secret_name="db-tls"))
    upstream = next(obj for obj in manifests.simulator(desired) if obj["kind"] == "StatefulSet")
    container = upstream["spec"]["template"]["spec"]["containers"][0]
    env = {one["name"]: one for one in container["env"]}

    assert env["WA_DB_PASSWORD"]["valueFrom"] == {"secretKeyRef": {"name": "db", "key": "WA_DB_PASSWORD"}}
    assert env["WA_DB_NAME_PREFIX"]["valueFrom"]["secretKeyRef"]["optional"] is True
    assert env["WABIZ_DB_TLS_DIR"]["value"] == manifests.DATABASE_TLS_FOLDER
    assert {"name": "database-tls", "mountPath": manifests.DATABASE_TLS_FOLDER, "readOnly": True} in container["volumeMounts"]
    assert upstream["spec"]["updateStrategy"]["type"] == "RollingUpdate"
    assert "WA_DB" not in str(manifests.coreapps(desired, replicas=1)) + str(manifests.webapps(desired, replicas=1, is_first_boot=False))


def test_a_database_without_its_address_and_login_starts_nothing_and_the_rest_may_be_left_out() -> None:
    """The kubelet does not start a container that lacks a key that is not optional, and says so."""
    needed = {
        one["name"]: "optional" not in one["valueFrom"]["secretKeyRef"]
        for one in simulator(wanting(database=Database(secret_name="db")))["containers"][0]["env"]
        if one["name"].startswith("WA_DB_")
    }

    assert needed == {
        "WA_DB_ENGINE": True,
        "WA_DB_HOSTNAME": True,
        "WA_DB_PORT": True,
        "WA_DB_USERNAME": True,
        "WA_DB_PASSWORD": True,
        "WA_DB_NAME_PREFIX": False,
        "WA_DB_PERSISTENT": False,
        "WA_DB_CONNECTION_IDLE_TIMEOUT": False,
    }


def test_a_simulator_whose_state_lies_in_its_pod_is_not_restarted_by_a_new_release() -> None:
    upstream = next(obj for obj in manifests.simulator(wanting()) if obj["kind"] == "StatefulSet")

    assert upstream["spec"]["updateStrategy"]["type"] == "OnDelete"


# --- what is taken away again ---------------------------------------------------------------------------------------------


def stored(obj: dict[str, Any]) -> dict[str, Any]:
    return {**obj, "metadata": {**obj["metadata"], "uid": "u", "resourceVersion": "7"}}


def test_what_a_user_takes_away_is_noticed_and_goes() -> None:
    live = stored(manifests.coreapps(wanting(coreapp_pod=PodSettings(labels={"team": "a"}, node_selector={"pool": "a"})), replicas=5))
    wanted = manifests.coreapps(wanting(), replicas=None)

    assert not covers(live, wanted)
    after = corrected(live, wanted)
    assert covers(after, wanted)
    assert "nodeSelector" not in after["spec"]["template"]["spec"]
    assert "team" not in after["spec"]["template"]["metadata"]["labels"]
    assert after["spec"]["replicas"] == 5, "the number is scaled on its own (law 4)"
    assert after["metadata"]["resourceVersion"] == "7"


def test_annotations_of_others_on_a_template_stay_and_those_of_the_user_go() -> None:
    """`kubectl rollout restart` notes itself there: taking that away would be one more roll-out."""
    live = stored(manifests.coreapps(wanting(coreapp_pod=PodSettings(annotations={"note": "1"})), replicas=3))
    live["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = "now"

    after = corrected(live, manifests.coreapps(wanting(coreapp_pod=PodSettings(annotations={"other": "2"})), replicas=None))
    assert after["spec"]["template"]["metadata"]["annotations"] == {"kubectl.kubernetes.io/restartedAt": "now", "other": "2"}
    again = corrected(after, manifests.coreapps(wanting(), replicas=None))
    assert again["spec"]["template"]["metadata"]["annotations"] == {"kubectl.kubernetes.io/restartedAt": "now"}


def test_annotations_of_the_service_go_with_the_spec_and_those_of_others_stay() -> None:
    live = stored(manifests.webapp_service(wanting(webapp_service=WebappService(type="LoadBalancer", annotations={"lb": "internal"}))))
    live["metadata"]["annotations"]["cloud/ip"] = "given"
    wanted = manifests.webapp_service(wanting(webapp_service=WebappService(type="LoadBalancer")))

    assert not covers(live, wanted)
    assert set(corrected(live, wanted)["metadata"]["annotations"]) == {"cloud/ip", "multiconnect.dev/wanted"}


def test_an_environment_variable_that_is_empty_is_no_difference() -> None:
    """The API server leaves an empty value out."""
    wanted = manifests.coreapps(wanting(coreapp_pod=PodSettings(env=({"name": "EMPTY", "value": ""},))), replicas=None)
    live = stored(manifests.coreapps(wanting(coreapp_pod=PodSettings(env=({"name": "EMPTY", "value": ""},))), replicas=3))
    live["spec"]["template"]["spec"]["containers"][0]["env"][-1].pop("value")

    assert covers(live, wanted)
