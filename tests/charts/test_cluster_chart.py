"""What the chart of a cluster renders, and what it rejects."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from localkube.charts import CLUSTER, CRD

from .render import ROOT, Charts, repeated

Obj = dict[str, Any]
POD: Obj = {
    "labels": {"team": "messaging"},
    "annotations": {"note": "1"},
    "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
    "env": [{"name": "A", "value": "1"}],
    "nodeSelector": {"pool": "messaging"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    "priorityClassName": "high",
}
EVERYTHING: Obj = {
    "shards": 8,
    "spares": 2,
    "paused": True,
    "simulator": {"enabled": True, "restartSeconds": 3, "storage": {"size": "1Gi"}},
    "client": {
        "images": {"coreapp": "r/coreapp:1", "webapp": "r/webapp:1"},
        "imagePullSecrets": [{"name": "registry"}],
        "adminSecretRef": {"name": "admin"},
    },
    "database": {"secretRef": {"name": "db"}, "tlsSecretRef": {"name": "db-tls"}},
    "coreapp": {"pod": POD},
    "account": {
        "countryCode": "1",
        "phoneNumber": "6315550000",
        "secretRef": {"name": "account"},
        "registeredAt": "2026-01-01T00:00:00Z",
    },
    "webapp": {
        "replicas": 4,
        "pod": POD,
        "service": {"type": "LoadBalancer", "annotations": {"lb": "internal"}},
        "tls": {"secretRef": {"name": "tls"}, "serverName": "wa.example.com", "verification": "None"},
    },
    "failover": {"mode": "Manual", "unhealthyAfterSeconds": 10, "probe": {"type": "HTTP", "path": "/", "periodSeconds": 2}},
    "reshard": {
        "windows": [{"name": "night", "schedule": "0 3 * * *", "timeZone": "Europe/Berlin", "durationMinutes": 60}],
        "restartTimeoutSeconds": 300,
        "drift": "Repair",
    },
}


@pytest.fixture(scope="module")
def spec_schema() -> Obj:
    crd = yaml.load((ROOT / CRD).read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    schema: Obj = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from leaves(part, f"{path}.{name}" if path else name)
    else:
        yield path, value


def fields(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, schema) of every field that the CRD takes, lists as one, and an affinity, which is handed through."""
    for name, part in (schema.get("properties") or {}).items():
        if any(rule["rule"] == "false" for rule in part.get("x-kubernetes-validations", ())):
            continue
        where = f"{path}.{name}" if path else name
        if "properties" in part and name != "affinity":
            yield from fields(part, where)
        else:
            yield where, part


def test_every_field_of_the_crd_can_be_set(charts: Charts, spec_schema: Obj) -> None:
    spec = charts.cluster(**EVERYTHING).one("WhatsAppCluster")["spec"]
    free = ("labels", "annotations", "nodeSelector", "affinity", "resources.requests", "resources.limits")
    given = {re.sub(rf"((?:pod|service)\.(?:{'|'.join(free)}))\..*", r"\1", path) for path, _ in leaves(spec)}
    assert given == {path for path, _ in fields(spec_schema)}
    simulator = {key: value for key, value in EVERYTHING["simulator"].items() if key != "enabled"}
    client = {"type": "Simulator", **EVERYTHING["client"], "simulator": simulator}
    assert spec == {**{key: value for key, value in EVERYTHING.items() if key != "simulator"}, "client": client}


def test_the_defaults_are_those_of_the_crd(charts: Charts, spec_schema: Obj) -> None:
    spec = dict(leaves(charts.cluster().one("WhatsAppCluster")["spec"]))
    by_preset = {"shards", "spares", "webapp.replicas"}
    wanted = {path: part["default"] for path, part in fields(spec_schema) if "default" in part}
    assert {path: spec[path] for path in wanted if path not in by_preset} == {
        path: value for path, value in wanted.items() if path not in by_preset
    }
    assert set(spec) == set(wanted) | by_preset | {"client.type"}


@pytest.mark.parametrize(
    ("values", "shards", "spares", "webapps"),
    [
        ({}, 1, 1, 2),
        ({"preset": "staging"}, 1, 1, 2),
        ({"preset": "production"}, 2, 1, 3),
        ({"preset": "production", "shards": 4, "spares": 0, "webapp": {"replicas": 5}}, 4, 0, 5),
        ({"shards": 32}, 32, 1, 2),
    ],
)
def test_a_preset_is_what_the_vendors_template_has(charts: Charts, values: Obj, shards: int, spares: int, webapps: int) -> None:
    spec = charts.cluster(**values).one("WhatsAppCluster")["spec"]
    assert (spec["shards"], spec["spares"], spec["webapp"]["replicas"]) == (shards, spares, webapps)


def test_an_autoscaler_may_have_the_number_of_webapps(charts: Charts) -> None:
    spec = charts.cluster(preset="production", webapp={"autoscaled": True}).one("WhatsAppCluster")["spec"]
    assert "replicas" not in spec["webapp"]
    assert "give one of them" in charts.rejection(CLUSTER, "--set", "webapp.autoscaled=true,webapp.replicas=3")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("shards=3", "shards"),
        ("shard=2", "shard"),
        ("spares=33", "spares"),
        ("preset=huge", "preset"),
        ("account.certificate=x", "account"),
        ("account.pin=123456", "account"),
        ("client.type=Simulator", "type"),
        ("failover.mode=Vendor", "mode"),
        ("failover.unhealthyAfterSeconds=1", "unhealthyAfterSeconds"),
        ("failover.probe.path=healthz", "path"),
        ("reshard.windows[0].name=night", "windows"),
        ("simulator.storage.siize=1Gi", "storage"),
        ("webapp.replicas=0", "replicas"),
        ("coreapp.pod.labels.tier=7", "tier"),
        ("webapp.service.annotations.weight=7", "weight"),
        ("simulator.enabled=false", "the simulator is the only client that this release can run"),
        ("name=Acme", "name"),
    ],
)
def test_a_wrong_value_is_refused_by_name(charts: Charts, setting: str, said: str) -> None:
    assert said in charts.rejection(CLUSTER, "--set", setting)


def test_a_release_whose_name_cannot_be_a_cluster_says_what_to_do(charts: Charts) -> None:
    with pytest.raises(Exception, match=r'"1acme" cannot be the name of a WhatsAppCluster .*: set name'):
        charts.cluster(release="1acme")
    assert charts.cluster(release="1acme", name="acme").one("WhatsAppCluster")["metadata"]["name"] == "acme"


def test_labels_of_a_user_stand_once_next_to_those_of_the_chart(charts: Charts) -> None:
    shown = charts.cluster(labels={"app.kubernetes.io/instance": "mine", "team": "chat"})
    assert not list(repeated(shown.text))
    labels = shown.one("WhatsAppCluster")["metadata"]["labels"]
    assert (labels["app.kubernetes.io/instance"], labels["team"]) == ("acme", "chat")


def test_the_test_pod_asks_what_the_cluster_has(charts: Charts) -> None:
    def asked(**values: Any) -> Obj:
        (container,) = charts.cluster(**values).one("Pod")["spec"]["containers"]
        return {one["name"]: one.get("value") or one["valueFrom"]["secretKeyRef"]["name"] for one in container["env"]}

    assert asked() == {
        "WEBAPP": "acme-webapp.default.svc:443",
        "SERVER_NAME": "acme-webapp.default.svc",
        "VERIFICATION": "Full",
        "AUTHORITY": "acme-webapp-tls",
        "ADMIN_USERNAME": "acme-admin",
        "ADMIN_PASSWORD": "acme-admin",
    }
    given = asked(**EVERYTHING)
    assert (given["SERVER_NAME"], given["VERIFICATION"], given["AUTHORITY"], given["ADMIN_PASSWORD"]) == (
        "wa.example.com",
        "None",
        "tls",
        "admin",
    )


def test_the_notes_name_the_cluster_and_its_secret(charts: Charts, tmp_path: Path) -> None:
    notes = charts.notes(CLUSTER, tmp_path, preset="production", client={"adminSecretRef": {"name": "boss"}})
    assert "wait wac/acme --for=condition=Ready" in notes
    assert "get secret boss" in notes
    assert "2 shard(s)" in notes
