"""What is put onto a kind cluster before anything is broken, as a user would: PostgreSQL, the operator by Helm, a cluster by kubectl."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import yaml

from localkube import LocalKubeError, Obj
from localkube.charts import CLUSTER as CLUSTER_CHART
from localkube.charts import IMAGES, READY_SECONDS, Helm
from localkube.charts import OPERATOR as RELEASE
from localkube.offline.cluster import CONTROL_PLANE
from localkube.plane.operators import NAMESPACE as SYSTEM
from localkube.scenarios.kind.nodes import run

CLUSTER = "acme"
OPERATOR_REPOSITORY, SIMULATOR_REPOSITORY = IMAGES["operator"], IMAGES["simulator"]
REPLICAS = 2
READY_S, GONE_S = 240.0, 120.0
DATABASE_SECRET = f"{CLUSTER}-database"
SIMULATOR_RESTART_S = 1


class Installation:
    """Installs, upgrades and uninstalls on the cluster of one kubeconfig. LocalKubeError with what kubectl or helm said when one fails."""

    def __init__(self, root: Path, kubeconfig: Path, *, kubectl: Path, helm: Path, folder: Path, tag: str) -> None:
        """``root``: the repository; ``folder``: for what Helm keeps; ``tag``: of the images, which every node has."""
        self.kubeconfig = kubeconfig
        self.tag = tag
        self.given: Obj = {}  # the values that Helm was last given for the operator
        self._root = root
        self._kubectl = kubectl
        folder.mkdir(parents=True, exist_ok=True)
        self._helm = Helm(helm, folder, env={"KUBECONFIG": str(kubeconfig)})

    async def kubectl(self, *words: str, given: str = "", timeout: float = 60.0) -> str:
        """What kubectl prints; ``given`` is its standard input."""
        return await run(self._kubectl, f"--kubeconfig={self.kubeconfig}", *words, given=given, timeout=timeout)

    async def shown(self, *words: str) -> str:
        """What ``kubectl get`` prints, empty if it fails."""
        with contextlib.suppress(LocalKubeError):
            return await self.kubectl("get", *words)
        return ""

    async def helm(self, *words: str, values: Mapping[str, Any] | None = None) -> str:
        """What helm prints."""
        return await asyncio.to_thread(self._helm.run, *words, values=yaml.safe_dump(dict(values)) if values else "")

    async def install(self, values: Mapping[str, Any] | None = None) -> float:
        """`helm upgrade --install` with more values, waited for. Returns the seconds that it took."""
        begun = time.monotonic()
        self.given = {
            "replicas": REPLICAS,
            "image": {"repository": OPERATOR_REPOSITORY, "tag": self.tag},
            "simulator": {"image": {"repository": SIMULATOR_REPOSITORY, "tag": self.tag}},
            **(values or {}),
        }
        await asyncio.to_thread(self._helm.install_operator, self._root, self.given)
        return time.monotonic() - begun

    async def uninstall(self) -> None:
        """`helm uninstall`, waited for."""
        await self.helm("uninstall", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", f"{READY_SECONDS:g}s")

    async def test(self) -> str:
        """`helm test`; returns what it said."""
        return await self.helm("test", RELEASE, "--namespace", SYSTEM, "--timeout", f"{READY_SECONDS:g}s")

    async def database(self, image: str) -> None:
        """PostgreSQL on the control plane, and the Secret by which a WhatsAppCluster reaches it."""
        await self.kubectl("apply", "-f", "-", given=postgres(image, secrets.token_urlsafe(18)))
        await self.kubectl("rollout", "status", "deployment/postgres", f"--timeout={READY_S:g}s", timeout=READY_S + 10)

    async def create(self, name: str = CLUSTER, *, database: bool = False) -> float:
        """`kubectl apply` of the example, and wait until it is Ready. Returns the seconds from one to the other."""
        begun = time.monotonic()
        await self.kubectl("apply", "-f", "-", given=yaml.safe_dump(self.example(name, database=database)))
        await self.ready(name)
        return time.monotonic() - begun

    async def delete(self, name: str) -> None:
        """`kubectl delete` of it, if it is there."""
        await self.kubectl("delete", "wac", name, "--ignore-not-found", timeout=GONE_S)

    def example(self, name: str, *, database: bool) -> Obj:
        """``examples/cluster.yaml`` under a name, its restart a second long, its state in PostgreSQL if that is wanted."""
        cluster: Obj = yaml.safe_load((self._root / "examples" / "cluster.yaml").read_text(encoding="utf-8"))
        cluster["metadata"]["name"] = name
        cluster["spec"]["client"]["simulator"]["restartSeconds"] = SIMULATOR_RESTART_S
        if database:
            cluster["spec"]["database"] = {"secretRef": {"name": DATABASE_SECRET}}
        return cluster

    async def install_cluster(self, name: str) -> float:
        """`helm install` of the chart of a cluster, `helm test` until it took a message. Returns the seconds that both took."""
        begun = time.monotonic()
        image = {"repository": SIMULATOR_REPOSITORY, "tag": self.tag}
        values = {"preset": "staging", "simulator": {"restartSeconds": SIMULATOR_RESTART_S}, "test": {"image": image}}
        await self.helm("install", name, str(self._root / "charts" / CLUSTER_CHART), values=values)
        await self.helm("test", name, "--timeout", f"{READY_SECONDS:g}s")
        return time.monotonic() - begun

    async def uninstall_cluster(self, name: str) -> None:
        """`helm uninstall` of it, if it is there."""
        await self.helm("uninstall", name, "--ignore-not-found", "--wait", "--timeout", f"{READY_SECONDS:g}s")

    async def ready(self, name: str = CLUSTER) -> None:
        """Wait until a cluster is Ready. LocalKubeError with what it says if it is not in time."""
        try:
            await self.kubectl("wait", f"wac/{name}", "--for=condition=Ready", f"--timeout={READY_S:g}s", timeout=READY_S + 10)
        except LocalKubeError as error:
            said = await self.shown("wac", name, "-o", "jsonpath={.status.reason}: {.status.message}")
            pods = await self.shown("pods", "-o", "wide")
            raise LocalKubeError(f"WhatsAppCluster {name} is not Ready after {READY_S:g} s: {said or error}\n{pods}") from None

    async def pin_simulator(self) -> None:
        """Have the simulator's WhatsApp servers run on the control plane: in a test of the client they are not what is to fail.

        Fields that the operator does not claim; it leaves them alone.
        """
        name = f"{CLUSTER}-simulator"
        if CONTROL_PLANE in await self.shown("pod", f"{name}-0", "-o", "jsonpath={.spec.nodeSelector}"):
            return
        tolerations = [{"key": CONTROL_PLANE, "operator": "Exists", "effect": "NoSchedule"}]
        patch = {"spec": {"template": {"spec": {"nodeSelector": {CONTROL_PLANE: ""}, "tolerations": tolerations}}}}
        await self.kubectl("patch", f"statefulset/{name}", "--type=merge", "-p", json.dumps(patch))
        # It is updated by deletion only.
        await self.kubectl("delete", "pod", f"{name}-0", timeout=READY_S)
        selector = f"multiconnect.dev/cluster={CLUSTER},app.kubernetes.io/component=simulator"
        await self.kubectl("wait", "pod", "-l", selector, "--for=condition=Ready", f"--timeout={READY_S:g}s", timeout=READY_S + 10)


def postgres(image: str, password: str) -> str:
    """The manifests of PostgreSQL and of the Secret that leads to it."""
    text = (Path(__file__).parent / "postgres.yaml").read_text(encoding="utf-8")
    return Template(text).substitute(image=image, password=password, secret=DATABASE_SECRET)
