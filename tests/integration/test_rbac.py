"""The rights that the chart grants are those that the operator uses, both ways: a small life's requests as the API server notes them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from localkube.charts import CLUSTER, OPERATOR, Helm
from localkube.plane.controlplane import ControlPlane, Write, free_ports
from localkube.plane.operators import NAMESPACE, NODE_LEASES, REPOSITORY, Operators
from localkube.programs.binaries import Binaries, provide
from localkube.programs.versions import chart_programs

from .environment import LONG, SWITCHOVER, Environment, Harness, an_environment

pytestmark = pytest.mark.integration

Obj = dict[str, Any]
Right = tuple[str, str, str, str]
"""Where (everywhere, or the namespace of a Role), API group, resource with subresource, verb."""

EVERYWHERE = "everywhere"
RARE: dict[tuple[str, str, str], str] = {
    (
        "",
        "pods",
        "get",
    ): "a holder that a Service names and the list of pods lacks is asked for by name; whether an observation meets that is chance",
    (
        "",
        "events",
        "list",
    ): "why pods cannot be created is asked for while some have been missing for seconds; whether a small life meets that is chance",
    (
        "",
        "events",
        "patch",
    ): "an equal Event within minutes counts in a series; whether a small life has one is chance",
    (
        "networking.k8s.io",
        "networkpolicies",
        "delete",
    ): "ends the one that an earlier release named like the cluster; no cluster that is made now has it",
}
"""Rights (group, resource, verb) that a small life need not use, each with the reason why it is granted all the same."""


@dataclass(frozen=True)
class Installation:
    """What the chart renders for one release, but for its pods: the operator runs as processes here."""

    release: str
    namespace: str
    objects: list[Obj]

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{self.release}"

    def granted(self) -> set[Right]:
        rights = set()
        for role in self.objects:
            if role["kind"] in {"Role", "ClusterRole"} and not role["metadata"]["name"].endswith(("-view", "-edit")):
                where = role["metadata"].get("namespace", EVERYWHERE)
                rights |= {
                    (where, group, resource, verb)
                    for rule in role["rules"]
                    for group in rule["apiGroups"]
                    for resource in rule["resources"]
                    for verb in rule["verbs"]
                }
        return rights

    def used(self, requests: list[Write], *roles: str) -> set[Right]:
        """What was asked for and not rejected; ``roles`` are the namespaces that have a Role."""
        return {
            (
                one.namespace if one.namespace in roles else EVERYWHERE,
                one.group,
                "/".join(filter(None, (one.resource, one.subresource))),
                one.verb,
            )
            for one in requests
            if one.user == self.user and one.resource and one.code not in {401, 403}
        }


def installation(folder: Path, release: str, namespace: str, **values: Any) -> Installation:
    helm = Helm(provide(os.environ, programs=chart_programs())["helm"], folder)
    text = helm.run(
        "template",
        release,
        str(REPOSITORY / "charts" / OPERATOR),
        "-n",
        namespace,
        values=yaml.safe_dump({"fullnameOverride": release, **values}),
    )
    kinds = {"CustomResourceDefinition", "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
    objects = [obj for obj in yaml.safe_load_all(text) if obj and obj["kind"] in kinds]
    return Installation(release, namespace, [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}, *objects])


@dataclass(frozen=True)
class AuditedHarness:
    """A harness whose API server notes every request of an operator, reads too."""

    harness: Harness
    installation: Installation
    port: int


@pytest.fixture(scope="module")
def audited(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditedHarness]:
    folder = tmp_path_factory.mktemp("rbac")
    policy = folder / "policy.yaml"
    everything = {"level": "Metadata", "userGroups": ["system:serviceaccounts:" + NAMESPACE, "system:serviceaccounts:narrow-system"]}
    rules = [everything, {"level": "None"}]
    policy.write_text(json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules}))
    plane = ControlPlane.start(folder / "plane", binaries=binaries, audit_log=True, apiserver_args=[f"--audit-policy-file={policy}"])
    chart = installation(folder, "whatsapp-operator", NAMESPACE)
    (port,) = free_ports(1)
    harness = Harness(
        plane, folder, replicas=("op-a",), env={"METRICS_PORT": str(port), "METRICS_HOST": "127.0.0.1"}, objects=chart.objects
    )
    try:
        harness.start()
        yield AuditedHarness(harness, chart, port)
    finally:
        harness.close()
        plane.stop()


async def small_life(environment: Environment) -> None:
    """Create, grow, fail over, switch over, mend, shrink."""
    storage = {"type": "Simulator", "simulator": {"restartSeconds": 1, "storage": {"size": "1Gi"}}}
    await environment.created(shards=1, spares=1, client=storage)
    await environment.patch(shards=2, webapp={"replicas": 3})
    await environment.at_rest()

    before = len(environment.seen.commits)
    await environment.delete_pod(environment.holder(0))
    await environment.commit(0, before)
    await environment.at_rest()
    before = len(environment.seen.commits)
    await environment.annotate(SWITCHOVER, "0")
    await environment.commit(0, before)
    await environment.until(lambda _: SWITCHOVER not in environment.cluster()["metadata"].get("annotations", {}), "the annotation is gone")

    # what another writer changes is changed back
    bent = json.dumps({"metadata": {"labels": {"app.kubernetes.io/instance": "bent"}}})
    for kind, name in (
        ("service", "acme-webapp"),
        ("networkpolicy", "acme-coreapp"),
        ("pvc", "acme-simulator"),
        ("statefulset", "acme-coreapp"),
    ):
        await environment.kubectl("patch", kind, name, "--type=merge", "-p", bent)
    await environment.patch(shards=1, spares=2)
    await environment.at_rest()


async def hard_life(environment: Environment) -> None:
    """A holder is deleted by force, another is killed, another hangs, in a cluster of its own in addition to the other."""
    await environment.created("hard", shards=1, spares=1)
    for action in (forced, Environment.kill, hung):
        before, old = len(environment.seen.commits), environment.holder(0, "hard")
        uid = environment.uid(old)
        await action(environment, old)
        await environment.commit(0, before, "hard")
        if action is hung:
            await environment.until(lambda _, old=old, uid=uid: environment.uid(old) != uid, "the pod that hung is another one")  # type: ignore[misc]
        await environment.at_rest("hard")


async def forced(environment: Environment, pod: str) -> None:
    await environment.kubectl("delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")


async def hung(environment: Environment, pod: str) -> None:
    async with environment.control() as control:
        await control.hang(environment.namespace, pod)


async def test_what_is_granted_is_used_and_what_is_used_is_granted(audited: AuditedHarness) -> None:
    harness, chart = audited.harness, audited.installation
    async with an_environment(harness) as environment:
        await asyncio.gather(small_life(environment), hard_life(environment))
        await asyncio.to_thread(the_test_pods_would_pass, audited, environment)
        await environment.kubectl("delete", "whatsappclusters", "--all")
        await environment.until(lambda _: not environment.cluster() and not environment.cluster("hard"), "the clusters are gone")

    requests = harness.plane.writes()
    assert not [one for one in requests if one.user == chart.user and one.code in {401, 403}]
    granted, used = chart.granted(), chart.used(requests, NAMESPACE, NODE_LEASES)
    assert not used - granted, "used, though not granted by the chart (but by something else, or it would have been rejected)"
    idle = {right[1:] for right in granted - used}
    assert not idle - set(RARE), "granted, but never used"


def the_test_pods_would_pass(audited: AuditedHarness, environment: Environment) -> None:
    """What `helm test` runs in its pods, run here against the same operators and the same Webapps."""
    files = REPOSITORY / "charts"
    answers = run(files / OPERATOR / "files" / "answers.py", OPERATORS=f"127.0.0.1:{audited.port}")
    assert (answers.returncode, answers.stdout) == (0, "all operators answer and one leads\n"), answers.stderr

    secrets = {name: secret(environment, name) for name in ("acme-admin", "acme-webapp-tls")}
    webapp = environment.ready("webapp")[0]["status"]["podIP"]
    env = {
        "WEBAPP": f"{webapp}:8443",
        "SERVER_NAME": f"acme-webapp.{environment.namespace}.svc",
        "VERIFICATION": "Full",
        "AUTHORITY": secrets["acme-webapp-tls"]["ca.crt"],
        "ADMIN_USERNAME": secrets["acme-admin"]["username"],
        "ADMIN_PASSWORD": secrets["acme-admin"]["password"],
    }
    message = run(files / CLUSTER / "files" / "message.py", **env)
    assert (message.returncode, message.stdout) == (0, f"{webapp} took a message\n"), message.stderr


def secret(environment: Environment, name: str) -> dict[str, str]:
    data = json.loads(environment.plane.kubectl("-n", environment.namespace, "get", "secret", name, "-o", "json"))["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def run(script: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_namespaced_operator_needs_its_roles_alone(audited: AuditedHarness, tmp_path: Path) -> None:
    """Create, fail over and delete with Roles only, while nothing outside of its namespaces is touched."""
    harness, plane, watched = audited.harness, audited.harness.plane, "narrow"
    harness.end_replicas()
    plane.kubectl("create", "namespace", watched)
    chart = installation(tmp_path, "narrow-operator", "narrow-system", scope="Namespace", watchNamespaces=[watched])
    assert not [obj for obj in chart.objects if obj["kind"].startswith("Cluster")]
    env = {"WATCH_NAMESPACES": watched, "LEASE_NAME": "narrow-operator"}
    operators = Operators(
        plane, tmp_path / "operators", env=env, namespace="narrow-system", account="narrow-operator", objects=chart.objects
    )
    operators.install()
    process = operators.start("narrow-a")

    def kubectl(*args: str, input: str | None = None) -> str:  # noqa: A002 - subprocess calls it so
        return plane.kubectl("-n", watched, *args, input=input)

    def holder() -> str:
        notes = json.loads(kubectl("get", "service", "acme-shard-0", "-o", "json"))["metadata"].get("annotations", {})
        return str(notes.get("multiconnect.dev/holder", ""))

    try:
        spec = {"shards": 1, "spares": 1, "client": {"type": "Simulator", "simulator": {"restartSeconds": 1}}}
        obj = {"apiVersion": "multiconnect.dev/v1alpha1", "kind": "WhatsAppCluster", "metadata": {"name": "acme"}, "spec": spec}
        kubectl("create", "-f", "-", input=json.dumps(obj))
        kubectl("wait", "wac/acme", "--for=condition=Ready", "--timeout=30s")
        kubectl("wait", "wac/acme", "--for=condition=Redundant", "--timeout=30s")
        first = holder()
        kubectl("delete", "pod", first.partition("/")[0], "--wait=false")
        deadline = time.monotonic() + LONG
        while holder() == first:
            assert time.monotonic() < deadline, process.last_lines()
            time.sleep(0.05)
        kubectl("wait", "wac/acme", "--for=condition=Redundant", "--timeout=30s")
        log = process.log.read_text(encoding="utf-8")
    finally:
        kubectl("delete", "wac", "--all", "--wait=false")
        operators.close()

    assert "Nodes may not be read" in log
    assert "Traceback" not in log
    requests = [one for one in plane.writes() if one.user == chart.user]
    used = chart.used(requests, watched, "narrow-system")
    assert not used - chart.granted()
    # Kopf would be blind, and only an observation now and then would see anything, if it asked first for what it may not have
    watches = {(group, resource) for where, group, resource, verb in used if (where, verb) == (watched, "watch")}
    assert watches == {("multiconnect.dev", "whatsappclusters"), ("", "pods"), ("", "services"), ("apps", "statefulsets")}
    assert {(one.group, one.resource) for one in requests if one.code == 403} == {("", "nodes"), ("coordination.k8s.io", "leases")}
    assert {one.namespace for one in requests if one.verb not in {"get", "list", "watch"}} == {watched, "narrow-system"}


def test_every_exception_is_granted_and_has_its_reason(audited: AuditedHarness) -> None:
    assert {right[1:] for right in audited.installation.granted()} >= set(RARE)
    assert all(len(reason) > 20 for reason in RARE.values())
