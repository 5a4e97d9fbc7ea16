"""What is put onto a kind cluster before anything is broken, as a user would: PostgreSQL, the operator by Helm, a cluster by kubectl."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from localkube.charts import CLUSTER as CLUSTER_CHART
from localkube.charts import OPERATOR, Helm
from localkube.e2e.nodes import CONTROL_PLANE
from localkube.e2e.programs import run
from localkube.e2e.stage import CLUSTER, RELEASE, SYSTEM
from localkube.errors import LocalKubeError
from localkube.progress import Report

Obj = dict[str, Any]

OPERATOR_REPOSITORY, SIMULATOR_REPOSITORY = "whatsapp-operator/operator", "whatsapp-operator/wabiz-sim"
REPLICAS = 2
READY_S = 240.0
TEST_S = 180.0
HELM_S = "180s"
DATABASE, DATABASE_SECRET = "postgres", f"{CLUSTER}-database"
POSTGRES_USER_ID = 999
"""Of the usual image of PostgreSQL, and of ours."""
SIMULATOR_RESTART_S = 1
ON_CONTROL_PLANE: Obj = {
    "nodeSelector": {CONTROL_PLANE: ""},
    "tolerations": [{"key": CONTROL_PLANE, "operator": "Exists", "effect": "NoSchedule"}],
}
"""Where the faults leave it alone."""


@dataclass(frozen=True, kw_only=True)
class Programs:
    """The programs that a user of Kubernetes has."""

    kubectl: Path
    helm: Path


class Installation:
    """Installs, upgrades and uninstalls on the cluster of one kubeconfig."""

    def __init__(self, root: Path, kubeconfig: Path, programs: Programs, *, folder: Path, tag: str, report: Report) -> None:
        """``root``: the repository; ``folder``: for what Helm keeps; ``tag``: of the images, which every node has."""
        self.tag = tag
        self._root = root
        self._kubeconfig = kubeconfig
        self._programs = programs
        self._report = report
        folder.mkdir(parents=True, exist_ok=True)
        self._helm = Helm(programs.helm, folder, env={"KUBECONFIG": str(kubeconfig)})

    # ------------------------------------------------------------ doors

    async def kubectl(self, *words: str, given: str = "", timeout: float = 60.0, may_fail: bool = False) -> str:
        """What kubectl says. LocalKubeError when it fails, unless it may."""
        return await run(self._programs.kubectl, "--kubeconfig", self._kubeconfig, *words, given=given, timeout=timeout, may_fail=may_fail)

    async def apply(self, objects: Sequence[Mapping[str, Any]]) -> None:
        """`kubectl apply -f -`."""
        await self.kubectl("apply", "-f", "-", given=yaml.safe_dump_all(objects))

    async def helm(self, *words: str, values: Mapping[str, Any] | None = None) -> str:
        """What helm says. LocalKubeError when it fails."""
        given = yaml.safe_dump(dict(values)) if values else ""
        return await asyncio.to_thread(self._helm.run, *words, values=given)

    # ------------------------------------------------------------ what faults leave alone

    async def database(self, image: str) -> None:
        """PostgreSQL on the control plane, and the Secret by which a WhatsAppCluster reaches it."""
        password = secrets.token_urlsafe(18)
        await self.apply(postgres(image, password))
        await self.kubectl("rollout", "status", f"deployment/{DATABASE}", f"--timeout={READY_S:g}s", timeout=READY_S + 10)

    # ------------------------------------------------------------ the operator

    async def install(self, values: Mapping[str, Any] | None = None) -> float:
        """`helm upgrade --install` with more values, waited for. Returns the seconds that it took."""
        begun = time.monotonic()
        await self.helm(
            *("upgrade", RELEASE, str(self._root / "charts" / OPERATOR), "--install", "--namespace", SYSTEM, "--create-namespace"),
            *("--wait", "--timeout", HELM_S),
            values={**self.values(), **(values or {})},
        )
        return time.monotonic() - begun

    async def uninstall(self) -> None:
        """`helm uninstall`, waited for."""
        await self.helm("uninstall", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", HELM_S)

    async def test(self) -> str:
        """`helm test`; returns what it said. LocalKubeError when the operators are not well."""
        return await self.helm("test", RELEASE, "--namespace", SYSTEM, "--timeout", f"{TEST_S:g}s")

    def values(self) -> Obj:
        """What this machine's images are called; all else is the chart's default."""
        return {
            "replicas": REPLICAS,
            "image": {"repository": OPERATOR_REPOSITORY, "tag": self.tag},
            "simulator": {"image": {"repository": SIMULATOR_REPOSITORY, "tag": self.tag}},
        }

    # ------------------------------------------------------------ a WhatsAppCluster

    async def has_database_field(self) -> bool:
        """Whether the CRD knows ``spec.database``."""
        path = "{.spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.database.type}"
        said = await self.kubectl("get", "crd", "whatsappclusters.multiconnect.dev", "-o", f"jsonpath={path}")
        return bool(said.strip())

    async def create(self, name: str = CLUSTER, *, database: bool = False) -> float:
        """`kubectl apply` of the example, and wait until it is Ready. Returns the seconds from one to the other."""
        begun = time.monotonic()
        await self.apply([self.example(name, database=database)])
        await self.ready(name)
        return time.monotonic() - begun

    async def install_cluster(self, name: str) -> float:
        """`helm install` of the chart of a cluster, `helm test` until it took a message. Returns the seconds that both took."""
        begun = time.monotonic()
        values = {
            "preset": "staging",
            "simulator": {"restartSeconds": SIMULATOR_RESTART_S},
            "test": {"image": {"repository": SIMULATOR_REPOSITORY, "tag": self.tag}},
        }
        await self.helm("install", name, str(self._root / "charts" / CLUSTER_CHART), values=values)
        await self.helm("test", name, "--timeout", HELM_S)
        return time.monotonic() - begun

    async def uninstall_cluster(self, name: str) -> None:
        """`helm uninstall` of it, if it is there."""
        await self.helm("uninstall", name, "--ignore-not-found", "--wait", "--timeout", HELM_S)

    def example(self, name: str, *, database: bool) -> Obj:
        """``examples/cluster.yaml`` under a name, its restart a second long, its state in PostgreSQL if that is wanted."""
        cluster: Obj = yaml.safe_load((self._root / "examples" / "cluster.yaml").read_text(encoding="utf-8"))
        cluster["metadata"]["name"] = name
        cluster["spec"]["client"]["simulator"]["restartSeconds"] = SIMULATOR_RESTART_S
        if database:
            cluster["spec"]["database"] = {"secretRef": {"name": DATABASE_SECRET}}
        return cluster

    async def ready(self, name: str = CLUSTER) -> None:
        """Wait until a cluster is Ready. LocalKubeError with what it says if it is not in time."""
        wait = ("wait", f"wac/{name}", "--for=condition=Ready", f"--timeout={READY_S:g}s")
        try:
            await self.kubectl(*wait, timeout=READY_S + 10)
        except LocalKubeError as error:
            said = await self.kubectl("get", "wac", name, "-o", "jsonpath={.status.reason}: {.status.message}", may_fail=True)
            pods = await self.kubectl("get", "pods", "-o", "wide", may_fail=True)
            msg = f"WhatsAppCluster {name} is not Ready after {READY_S:g} s: {said or error}\n{pods}"
            raise LocalKubeError(msg) from None

    async def pin_simulator(self) -> None:
        """Have the simulator's WhatsApp servers run on the control plane: in a test of the client they are not what is to fail.

        Fields that the operator does not claim; it leaves them alone.
        """
        patch = {"spec": {"template": {"spec": ON_CONTROL_PLANE}}}
        name = f"{CLUSTER}-simulator"
        if CONTROL_PLANE in await self.kubectl("get", "pod", f"{name}-0", "-o", "jsonpath={.spec.nodeSelector}", may_fail=True):
            return
        await self.kubectl("patch", f"statefulset/{name}", "--type=merge", "-p", json.dumps(patch))
        # It is updated by deletion only; the new pod is a new one, whoever deletes the old.
        await self.kubectl("delete", "pod", f"{name}-0", timeout=READY_S)
        wanted = ("pod", "--selector", f"multiconnect.dev/cluster={CLUSTER},app.kubernetes.io/component=simulator")
        await self.kubectl("wait", *wanted, "--for=condition=Ready", f"--timeout={READY_S:g}s", timeout=READY_S + 10)


def postgres(image: str, password: str) -> list[Obj]:
    """PostgreSQL of one pod without durable state, and the Secret that leads to it."""
    labels = {"app.kubernetes.io/name": DATABASE}
    meta: Obj = {"name": DATABASE, "labels": labels}
    container: Obj = {
        "name": DATABASE,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "POSTGRES_PASSWORD", "valueFrom": {"secretKeyRef": {"name": DATABASE_SECRET, "key": "WA_DB_PASSWORD"}}},
            {"name": "PGDATA", "value": "/var/lib/postgresql/data/pgdata"},
        ],
        "ports": [{"name": "postgresql", "containerPort": 5432}],
        "readinessProbe": {"exec": {"command": ["pg_isready", "-h", "127.0.0.1", "-U", "postgres"]}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "volumeMounts": [{"name": "data", "mountPath": "/var/lib/postgresql/data"}],
    }
    pod: Obj = {
        **ON_CONTROL_PLANE,
        "securityContext": {"runAsUser": POSTGRES_USER_ID, "runAsGroup": POSTGRES_USER_ID, "fsGroup": POSTGRES_USER_ID},
        "containers": [container],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    access = {
        "WA_DB_ENGINE": "PGSQL",
        "WA_DB_HOSTNAME": DATABASE,
        "WA_DB_PORT": "5432",
        "WA_DB_USERNAME": "postgres",
        "WA_DB_PASSWORD": password,
    }
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": DATABASE_SECRET}, "type": "Opaque", "stringData": access},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": labels, "ports": [{"name": "postgresql", "port": 5432, "targetPort": 5432}]},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {
                "replicas": 1,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
    ]
