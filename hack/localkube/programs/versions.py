"""Which programs the control plane, the charts and kind need and at which version; the go.mod files under hack/tools alone pin them."""

from __future__ import annotations

import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from localkube.errors import LocalKubeError

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@dataclass(frozen=True)
class Program:
    """One program: where its source is pinned, and how it tells its version."""

    name: str
    version: str  # with the leading v, as Go modules and release pages spell it
    module: Path  # the folder of the go.mod that pins it
    package: str  # Go import path of its main package
    go: tuple[int, int]  # the oldest Go that its go.mod accepts
    version_args: tuple[str, ...]
    version_says: str  # part of what it prints when asked for its version
    build_seconds: int  # cold build on 2 cores, measured; only for the progress line
    linker_values: tuple[tuple[str, str], ...] = ()  # Go variables that the linker sets, where the program does not know its version else
    build_tags: str = ""  # Go build tags, separated by commas

    @property
    def of_kubernetes(self) -> bool:
        """Whether it belongs to the Kubernetes release (and not to etcd's)."""
        return self.module.name == "kubernetes"

    @property
    def of_control_plane(self) -> bool:
        """Whether it runs in the control plane, and may so come from KUBEBUILDER_ASSETS or an official release; others are built."""
        return self.module.name in {"kubernetes", "etcd"}


def pinned_programs(tools: Path = TOOLS) -> tuple[Program, ...]:
    """The programs of the control plane in the order in which they are built, versions read from ``tools/*/go.mod``."""
    etcd, kube = tools / "etcd", tools / "kubernetes"
    etcd_version, etcd_go = _pin(etcd, "go.etcd.io/etcd/server/v3")
    kube_version, kube_go = _pin(kube, "k8s.io/kubernetes")

    def of_kubernetes(name: str, seconds: int, *args: str) -> Program:
        says = f"Client Version: {kube_version}" if name == "kubectl" else f"Kubernetes {kube_version}"
        return Program(name, kube_version, kube, f"k8s.io/kubernetes/cmd/{name}", kube_go, args or ("--version",), says, seconds)

    return (
        Program("etcd", etcd_version, etcd, "go.etcd.io/etcd/server/v3", etcd_go, ("--version",), f"etcd Version: {etcd_version[1:]}", 40),
        of_kubernetes("kube-apiserver", 160),
        of_kubernetes("kube-controller-manager", 45),
        of_kubernetes("kube-scheduler", 6),
        of_kubernetes("kubectl", 20, "version", "--client"),
    )


def chart_programs(tools: Path = TOOLS) -> tuple[Program, ...]:
    """The programs that render and check the charts, versions read from ``tools/*/go.mod``."""
    helm, conform = tools / "helm", tools / "kubeconform"
    helm_version, helm_go = _pin(helm, "helm.sh/helm/v3")
    version, go = _pin(conform, "github.com/yannh/kubeconform")
    # As Helm's own Makefile: its version, and that of the Kubernetes whose libraries it has, else 1.20, which our charts would refuse.
    minor = _pin(helm, "k8s.io/client-go")[0].split(".")[1]
    values = (
        ("helm.sh/helm/v3/internal/version.version", helm_version),
        ("helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor", minor),
        ("helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor", minor),
    )
    return (
        Program("helm", helm_version, helm, "helm.sh/helm/v3/cmd/helm", helm_go, ("version", "--short"), helm_version, 72, values),
        Program(
            "kubeconform",
            version,
            conform,
            "github.com/yannh/kubeconform/cmd/kubeconform",
            go,
            ("-v",),
            version,
            4,
            (("main.version", version),),
        ),
    )


def kind_programs(tools: Path = TOOLS) -> tuple[Program, ...]:
    """What kind's clusters need beside the control plane's programs, versions read from ``tools/*/go.mod``."""
    kube, kube_go = _pin(tools / "kubernetes", "k8s.io/kubernetes")
    dns, dns_go = _pin(tools / "coredns", "github.com/coredns/coredns")
    kind, kind_go = _pin(tools / "kind", "sigs.k8s.io/kind")

    def of_kubernetes(name: str, seconds: int, *args: str, says: str = f"Kubernetes {kube}") -> Program:
        return Program(name, kube, tools / "kubernetes", f"k8s.io/kubernetes/cmd/{name}", kube_go, args or ("--version",), says, seconds)

    return (
        Program("kind", kind, tools / "kind", "sigs.k8s.io/kind", kind_go, ("version",), f"kind {kind}", 4),
        of_kubernetes("kubelet", 17),
        of_kubernetes("kubeadm", 17, "version", "-o", "short", says=kube),
        of_kubernetes("kube-proxy", 15),
        *_containerd(tools / "containerd"),
        Program("coredns", dns, tools / "coredns", "github.com/coredns/coredns", dns_go, ("-version",), f"CoreDNS-{dns[1:]}", 114),
        Program("pause", "v1", tools / "pause", "localkube/tools/pause", (1, 24), ("-v",), "pause v1", 1),
    )


def _containerd(module: Path) -> tuple[Program, ...]:
    """containerd, the shim that it starts for each pod, and its command line."""
    path = "github.com/containerd/containerd/v2"
    version, go = _pin(module, path)
    values = ((f"{path}/version.Version", version),)

    def program(name: str, seconds: int, flag: str) -> Program:
        # without btrfs and devmapper it needs no C compiler
        return Program(name, version, module, f"{path}/cmd/{name}", go, (flag,), version, seconds, values, "no_btrfs,no_devmapper")

    return program("containerd", 40, "--version"), program("containerd-shim-runc-v2", 10, "-v"), program("ctr", 10, "--version")


def kubernetes_version(tools: Path = TOOLS) -> str:
    """The pinned Kubernetes version, such as ``v1.34.4``."""
    return _pin(tools / "kubernetes", "k8s.io/kubernetes")[0]


def host_platform() -> tuple[str, str]:
    """(operating system, architecture) of this machine in Go's words. Only Linux: /proc, prctl and whole 127.0.0.0/8 are needed."""
    arch = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine().lower())
    if sys.platform != "linux" or arch is None:
        msg = f"the local control plane runs on Linux on amd64 or arm64, not on {sys.platform} on {platform.machine()}: use a Linux machine"
        raise LocalKubeError(msg)
    return "linux", arch


def _pin(module: Path, path: str) -> tuple[str, tuple[int, int]]:
    """(version of the module ``path``, oldest Go) that ``module``/go.mod pins."""
    try:
        text = (module / "go.mod").read_text(encoding="utf-8")
    except OSError as error:
        msg = f"cannot read {module / 'go.mod'}, which pins the version of {path}: {error.strerror}"
        raise LocalKubeError(msg) from error
    version = re.search(rf"^\s*(?:require\s+)?{re.escape(path)} (v\S+)", text, re.MULTILINE)
    go = re.search(r"^go (\d+)\.(\d+)", text, re.MULTILINE)
    if version is None or go is None:
        msg = f"{module / 'go.mod'} does not pin {path} and a Go version: restore it from git"
        raise LocalKubeError(msg)
    return version[1], (int(go[1]), int(go[2]))
