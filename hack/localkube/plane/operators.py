"""Installs the operator into a local control plane as the chart would, and runs it as processes: with its own rights, never as admin."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import yaml

from localkube.kubeconfig import read
from localkube.plane import processes
from localkube.plane.controlplane import ControlPlane
from localkube.plane.processes import Process

REPOSITORY = Path(__file__).resolve().parents[3]
RULES = REPOSITORY / "charts" / "whatsapp-operator" / "files"
NAME = "whatsapp-operator"
NAMESPACE = "whatsapp-operator-system"
NODE_LEASES = "kube-node-lease"
"""Where Kubernetes keeps the Leases of nodes; the API server makes this namespace itself."""
GRACE_SECONDS = 30.0
"""Seconds from SIGTERM to SIGKILL, as for a pod that does not say otherwise."""


def manifests() -> list[dict[str, Any]]:
    """Return what an installation is: CRD, namespace, ServiceAccount, and the rules that the chart uses, bound to it."""
    crd: dict[str, Any] = yaml.load((REPOSITORY / "crds" / "whatsappclusters.yaml").read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)

    def rights(kind: str, file: str, **meta: str) -> list[dict[str, Any]]:
        rules = yaml.safe_load((RULES / file).read_text(encoding="utf-8"))
        group, named = "rbac.authorization.k8s.io", {"name": NAME, **meta}
        return [
            {"apiVersion": f"{group}/v1", "kind": kind, "metadata": named, "rules": rules},
            {
                "apiVersion": f"{group}/v1",
                "kind": f"{kind}Binding",
                "metadata": named,
                "roleRef": {"apiGroup": group, "kind": kind, "name": NAME},
                "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
            },
        ]

    return [
        crd,
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": NAMESPACE}},
        *rights("ClusterRole", "cluster-rules.yaml"),
        *rights("Role", "lease-rules.yaml", namespace=NAMESPACE),
        *rights("Role", "node-lease-rules.yaml", namespace=NODE_LEASES),
    ]


def await_crd(plane: ControlPlane) -> None:
    """Wait until the API server serves the CRD that was just applied. LocalKubeError after 30 s."""
    # For its first tenth of a second a CRD has `conditions: null`, over which `kubectl wait` stumbles ("accessor error").
    for condition in ("jsonpath={.status.acceptedNames.kind}=WhatsAppCluster", "condition=Established"):
        plane.kubectl("wait", f"--for={condition}", "crd/whatsappclusters.multiconnect.dev", "--timeout=30s")


@cache
def image_packages() -> Path:
    """Return a folder of links to those packages of this environment that the operator's image has, which are those of its lock.

    Kopf and httpx import what they find beyond their dependencies, and an operator starts a third sooner where that is not there.
    Raises importlib.metadata.PackageNotFoundError if one of them is not installed.
    """
    lock = (REPOSITORY / "hack" / "lock" / "run.txt").read_text(encoding="utf-8")
    installed = [distribution(name) for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)]
    found = {Path(str(one.locate_file(file.parts[0]))) for one in installed for file in one.files or () if file.parts[0] != ".."}
    # Named by what is in it: it is never out of date, and processes that make it at the same time make the same.
    folder = REPOSITORY / "build" / "image-packages" / hashlib.sha256(repr(sorted(found)).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for path in found:
        with suppress(FileExistsError):
            (folder / path.name).symlink_to(path)
    return folder


@dataclass
class Operators:
    """Replicas of the operator as processes next to a local control plane, with only the packages of its image."""

    plane: ControlPlane
    folder: Path
    _: KW_ONLY
    env: Mapping[str, str] = field(default_factory=dict)  # more settings of the operator
    leashed: bool = True  # they end with this process
    namespace: str = NAMESPACE
    account: str = NAME
    objects: Sequence[Mapping[str, Any]] = ()
    """What to install instead of ``manifests()``; they have the ServiceAccount ``account`` in ``namespace``."""
    running: dict[str, Process] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.lease = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases?fieldSelector=metadata.name={self.account}"
        """The path that lists the Lease."""

    def install(self) -> None:
        """Apply CRD and rights, and wait until the API server serves the CRD."""
        self.folder.mkdir(parents=True, exist_ok=True)
        objects = self.objects or manifests()
        self.plane.kubectl("apply", "--server-side", "-f", "-", input=yaml.safe_dump_all(objects))
        await_crd(self.plane)

    def start(
        self, name: str, *, server: str | None = None, module: str = "whatsapp_operator", env: Mapping[str, str] | None = None
    ) -> Process:
        """Start one replica under this name and return its process; its log is ``<folder>/<name>.log``.

        ``server``: the URL under which it is to reach the API server, such as a ``Wire``'s; its own if not given. ``module``: what
        Python runs, on the PYTHONPATH of the settings, if that is not the operator itself but what starts it in another way. ``env``: more
        settings of this replica.
        """
        kubeconfig = self.plane.service_account_kubeconfig(self.namespace, self.account, self.folder / f"{name}.kubeconfig")
        if server is not None:
            replace(read(kubeconfig), server=server).write(kubeconfig, namespace=self.namespace)
        whole = {
            **{key: value for key, value in os.environ.items() if key in {"PATH", "HOME", "LANG"}},
            "PYTHONPATH": str(REPOSITORY / "operator"),
            "KUBECONFIG": str(kubeconfig),
            "POD_NAME": name,
            "POD_NAMESPACE": self.namespace,
            **self.env,
            **(env or {}),
        }
        whole["PYTHONPATH"] += os.pathsep + str(image_packages())
        command = [sys.executable, "-S", "-m", module]  # without site, and so without what else is installed
        process = processes.start(name, command, folder=self.folder, log=self.folder / f"{name}.log", env=whole, leashed=self.leashed)
        self.running[name] = process
        return process

    def credential(self, name: str) -> str:
        """Return what the audit log calls a replica's credential: the id of its token, which no other replica has."""
        payload = read(self.folder / f"{name}.kubeconfig").token.split(".")[1]
        return "JTI=" + str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["jti"])

    def leader(self) -> str | None:
        """Return the name of the replica whose process holds the Lease, or None."""
        found = self.plane.call("GET", self.lease)["items"]
        name = "".join(lease["spec"].get("holderIdentity") or "" for lease in found).rpartition("_")[0]
        return name if name in self.running and self.running[name].alive() else None

    def end(self, *names: str) -> None:
        """End these replicas: SIGTERM first, so that the Lease is released, and with the grace period of a pod."""
        processes.stop([self.running[name] for name in names], grace=GRACE_SECONDS)

    def close(self) -> None:
        """End the replicas that still run."""
        self.end(*self.running)
