"""One kind cluster: made, given its pod network, loaded with images, removed."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from localkube.errors import LocalKubeError
from localkube.offline import network
from localkube.offline.docker import docker, has_image
from localkube.offline.network import Node
from localkube.programs.binaries import Binaries
from localkube.progress import step
from localkube.run import logged, output

WORKERS = 3
CREATE_SECONDS = 600.0
READY_SECONDS = 180.0
LOAD_SECONDS = 600.0
POLL_SECONDS = 0.5
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


def config(name: str, *, image: str | None, workers: int = WORKERS) -> dict[str, Any]:
    """What kind is given: a control plane, and workers in the zones a, b and c in turn.

    ``image`` is the node image made here, which goes without kind's network plugin; None: kind's own image and plugin.
    """
    node: dict[str, Any] = {"image": image} if image else {}
    zones = [{"topology.kubernetes.io/zone": f"zone-{'abc'[number % 3]}"} for number in range(workers)]
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "name": name,
        "networking": {"apiServerAddress": "127.0.0.1", "disableDefaultCNI": image is not None},
        "nodes": [{"role": "control-plane", **node}, *({"role": "worker", "labels": labels, **node} for labels in zones)],
    }


@dataclass
class KindCluster:
    """A cluster by name; ``folder`` keeps its kubeconfig and logs."""

    name: str
    folder: Path
    binaries: Binaries

    @property
    def kubeconfig(self) -> Path:
        """The file that opens it."""
        return self.folder / f"{self.name}.kubeconfig"

    def exists(self) -> bool:
        """Whether kind knows it."""
        return self.name in self._kind("get", "clusters").split()

    def make(self, image: str | None, *, workers: int = WORKERS) -> None:
        """Make it, with the node image and the network made here (``image``) or with kind's own (None), and write its kubeconfig.

        Returns before all is ready. LocalKubeError with kind's words if it fails; then nothing is left of it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        asked = self.folder / f"{self.name}.kind.yaml"
        asked.write_text(yaml.safe_dump(config(self.name, image=image, workers=workers), sort_keys=False), encoding="utf-8")
        argv = [str(self.binaries["kind"]), "create", "cluster", f"--config={asked}", f"--kubeconfig={self.kubeconfig}", "--wait=0s"]
        try:
            with step(f"cluster {self.name}: a control plane and {workers} workers", expected_s=40):
                logged(argv, log=self.folder / f"{self.name}.log", timeout=CREATE_SECONDS)
                self.kubeconfig.chmod(0o600)
                if image is not None:
                    self._drop_storage()
                    self._cut_dns_off()
                    self.connect()
                self._pin_dns()
        except BaseException:
            with contextlib.suppress(LocalKubeError):
                self.delete(keep_log=True)
            raise

    def start(self) -> None:
        """Start nodes that were stopped, and write the kubeconfig: the cluster may have been made from another folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        docker("start", *self._nodes())
        self._kind("export", "kubeconfig", f"--name={self.name}", f"--kubeconfig={self.kubeconfig}")

    def delete(self, *, keep_log: bool = False) -> None:
        """Remove it, and its files here."""
        self._kind("delete", "cluster", f"--name={self.name}", f"--kubeconfig={self.kubeconfig}")
        for path in self.folder.glob(f"{self.name}.*"):
            if not (keep_log and path.suffix == ".log"):
                path.unlink()

    def own_network(self) -> bool:
        """Whether its pod network was made here, and so must be kept here, and not by kind's plugin."""
        return Path(network.CONFLIST).name in docker("exec", f"{self.name}-control-plane", "ls", "/etc/cni/net.d")

    def connect(self) -> list[Node]:
        """Give every node its pod network and its routes to the others. Also after nodes were started again."""
        nodes = self._with_ranges()
        for node in nodes:
            address = docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", node.name).strip()
            if address != node.address:
                msg = (
                    f"node {node.name} was started again with address {address} instead of {node.address}, which its kubelet insists on: "
                    f"remove the cluster with 'hack/kind-offline down --name {self.name}' and make it again"
                )
                raise LocalKubeError(msg)
            docker("exec", "-i", node.name, "sh", text=network.script(node, nodes))
        return nodes

    def wait_ready(self) -> None:
        """Until all nodes are ready and CoreDNS runs. LocalKubeError says what is not, when the time is over."""
        limit = f"--timeout={READY_SECONDS:g}s"
        self.kubectl("wait", "nodes", "--all", "--for=condition=Ready", limit, timeout=READY_SECONDS + 30)
        self.kubectl("rollout", "status", "deployment/coredns", "--namespace=kube-system", limit, timeout=READY_SECONDS + 30)

    def load(self, images: Sequence[str]) -> None:
        """Bring images from Docker into every node."""
        if missing := [image for image in images if not has_image(image)]:
            raise LocalKubeError(f"Docker has no image {missing[0]}: build it first")
        argv = [str(self.binaries["kind"]), "load", "docker-image", f"--name={self.name}", *images]
        logged(argv, log=self.folder / f"{self.name}.load.log", timeout=LOAD_SECONDS)

    def kubectl(self, *args: str, timeout: float = 60.0, text: str = "") -> str:
        """The standard output of kubectl, fed with ``text``. LocalKubeError with what it wrote if it fails."""
        return output([str(self.binaries["kubectl"]), f"--kubeconfig={self.kubeconfig}", *args], timeout=timeout, text=text)

    def _cut_dns_off(self) -> None:
        """Have CoreDNS answer for the cluster alone: there is no server above that it could ask."""
        found = json.loads(self.kubectl("get", "configmap", "coredns", "--namespace=kube-system", "--output=json"))
        found["data"]["Corefile"] = network.corefile(found["data"]["Corefile"])
        self.kubectl("replace", "--filename=-", text=json.dumps(found))

    def _pin_dns(self) -> None:
        """Put CoreDNS on the control plane, which no experiment with a node touches; starts it again."""
        metadata = {"annotations": {"multiconnect.dev/pinned": str(time.time_ns())}}
        pod = {"metadata": metadata, "spec": {"nodeSelector": {"kubernetes.io/os": "linux", CONTROL_PLANE: ""}}}
        patch = json.dumps({"spec": {"template": pod}})
        self.kubectl("patch", "deployment", "coredns", "--namespace=kube-system", f"--patch={patch}")

    def _drop_storage(self) -> None:
        """Remove kind's provisioner of volumes, whose image cannot be had: a claim is better rejected than left waiting."""
        self.kubectl("delete", "storageclass", "standard", "--ignore-not-found")
        self.kubectl("delete", "namespace", "local-path-storage", "--ignore-not-found", "--wait=false")

    def _with_ranges(self) -> list[Node]:
        """The nodes, once there are as many as there are containers and each has its range of pod addresses."""
        deadline, containers = time.monotonic() + READY_SECONDS, self._nodes()
        while True:
            try:
                nodes = network.nodes_of(json.loads(self.kubectl("get", "nodes", "--output=json")))
                if len(nodes) == len(containers):
                    return nodes
                why = f"{len(nodes)} of {len(containers)} nodes are there"
            except (LocalKubeError, ValueError) as error:
                why = str(error)
            if time.monotonic() > deadline:
                raise LocalKubeError(f"cluster {self.name} has no pod network after {READY_SECONDS:g} s, with {self.kubeconfig}: {why}")
            time.sleep(POLL_SECONDS)

    def _nodes(self) -> list[str]:
        return self._kind("get", "nodes", f"--name={self.name}").split()

    def _kind(self, *args: str) -> str:
        return output([str(self.binaries["kind"]), *args], timeout=120.0)
