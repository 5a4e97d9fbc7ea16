"""Which programs the control plane, the charts and kind need and at which version; the go.mod files under hack/tools alone pin them."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from localkube.errors import LocalKubeError

TOOLS = Path(__file__).resolve().parents[2] / "tools"
MODULES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kubernetes": "k8s.io/kubernetes",
    "helm": "helm.sh/helm/v3",
    "kubeconform": "github.com/yannh/kubeconform",
    "actionlint": "github.com/rhysd/actionlint",
    "kstatus": "sigs.k8s.io/cli-utils",  # the program around that library is here
    "prometheus": "github.com/prometheus/prometheus",
    "kind": "sigs.k8s.io/kind",
    "containerd": "github.com/containerd/containerd/v2",
    "coredns": "github.com/coredns/coredns",
    "pause": "",  # its source is here
}
"""By folder under hack/tools: the Go module whose version its go.mod pins."""

HERE = "localkube/tools/"
"""The package of a program whose source is here begins so."""

# name, folder, its package in the module, arguments for its version, what it says then, seconds of a cold build on 2 cores
Row = tuple[str, str, str, str, str, int]
CONTROL_PLANE: tuple[Row, ...] = (
    ("etcd", "etcd", "", "--version", "etcd Version: {number}", 40),
    ("kube-apiserver", "kubernetes", "/cmd/kube-apiserver", "--version", "Kubernetes {version}", 160),
    ("kube-controller-manager", "kubernetes", "/cmd/kube-controller-manager", "--version", "Kubernetes {version}", 45),
    ("kube-scheduler", "kubernetes", "/cmd/kube-scheduler", "--version", "Kubernetes {version}", 6),
    ("kubectl", "kubernetes", "/cmd/kubectl", "version --client", "Client Version: {version}", 20),
)
# what renders and checks the charts
CHARTS: tuple[Row, ...] = (
    ("helm", "helm", "/cmd/helm", "version --short", "{version}", 72),
    ("kubeconform", "kubeconform", "/cmd/kubeconform", "-v", "{version}", 4),
)
# what judges the workflows
WORKFLOWS: tuple[Row, ...] = (("actionlint", "actionlint", "/cmd/actionlint", "-version", "{version}", 20),)
# what judges conditions as Flux and kpt do
KSTATUS: tuple[Row, ...] = (("kstatus", "kstatus", HERE + "kstatus", "-v", "kstatus {version}", 40),)
# where neither the PATH nor Debian has them
PROMETHEUS: tuple[Row, ...] = (
    ("promtool", "prometheus", "/cmd/promtool", "--version", "version {version}", 200),
    ("prometheus", "prometheus", "/cmd/prometheus", "--version", "version {version}", 60),
)
# what kind's clusters need besides the control plane's programs; kind itself is the first
KIND: tuple[Row, ...] = (
    ("kind", "kind", "", "version", "kind {version}", 4),
    ("kubelet", "kubernetes", "/cmd/kubelet", "--version", "Kubernetes {version}", 17),
    ("kubeadm", "kubernetes", "/cmd/kubeadm", "version -o short", "{version}", 17),
    ("kube-proxy", "kubernetes", "/cmd/kube-proxy", "--version", "Kubernetes {version}", 15),
    ("containerd", "containerd", "/cmd/containerd", "--version", "{version}", 40),
    ("containerd-shim-runc-v2", "containerd", "/cmd/containerd-shim-runc-v2", "-v", "{version}", 10),
    ("ctr", "containerd", "/cmd/ctr", "--version", "{version}", 10),
    ("coredns", "coredns", "", "-version", "CoreDNS-{number}", 114),
    ("pause", "pause", HERE + "pause", "-v", "pause {version}", 1),
)
TAGS = {"containerd": "no_btrfs,no_devmapper"}
"""Build tags by folder. Without btrfs and devmapper containerd needs no C compiler."""


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
    build_seconds: int  # only for the progress line
    linker_values: Mapping[str, str]  # Go variables that the linker sets, without which the program does not know its version
    build_tags: str

    @property
    def of_kubernetes(self) -> bool:
        """Whether it belongs to the Kubernetes release."""
        return self.module.name == "kubernetes"

    @property
    def of_control_plane(self) -> bool:
        """Whether it may come from KUBEBUILDER_ASSETS or an official release; others are built."""
        return self.module.name in {"kubernetes", "etcd"}


def _programs(rows: Sequence[Row]) -> tuple[Program, ...]:
    """The programs of a table in the order in which they are built. LocalKubeError if a go.mod lacks its pin."""
    return tuple(map(_program, rows))


pinned_programs = partial(_programs, CONTROL_PLANE)
chart_programs = partial(_programs, CHARTS)
workflow_programs = partial(_programs, WORKFLOWS)
kstatus_programs = partial(_programs, KSTATUS)
prometheus_programs = partial(_programs, PROMETHEUS)
kind_programs = partial(_programs, KIND)


def kubernetes_version() -> str:
    """The pinned Kubernetes version, such as ``v1.34.4``."""
    return _pin("kubernetes", MODULES["kubernetes"])[0]


def host_platform() -> tuple[str, str]:
    """(operating system, architecture) of this machine in Go's words. Only Linux: /proc, prctl and whole 127.0.0.0/8 are needed."""
    arch = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine().lower())
    if sys.platform != "linux" or arch is None:
        msg = f"the local control plane runs on Linux on amd64 or arm64, not on {sys.platform} on {platform.machine()}: use a Linux machine"
        raise LocalKubeError(msg)
    return "linux", arch


def _program(row: Row) -> Program:
    name, folder, package, args, says, seconds = row
    version, go = _pin(folder, MODULES[folder])
    return Program(
        name=name,
        version=version,
        module=TOOLS / folder,
        package=package if package.startswith(HERE) else MODULES[folder] + package,
        go=go,
        version_args=tuple(args.split()),
        version_says=says.format(version=version, number=version[1:]),
        build_seconds=seconds,
        linker_values=_linker_values(folder, version),
        build_tags=TAGS.get(folder, ""),
    )


def _linker_values(folder: str, version: str) -> dict[str, str]:
    if folder == "kubernetes":
        major, minor = version[1:].split(".")[:2]
        # "archive": built from a published source archive and not from a git checkout, so there is no commit to name
        values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "archive"}
        packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")  # version skew checks read them
        return {f"{package}.{name}": value for package in packages for name, value in values.items()}
    if folder == "helm":
        # As Helm's own Makefile: its version, and that of the Kubernetes whose libraries it has, else 1.20, which the charts would reject.
        minor = _pin(folder, "k8s.io/client-go")[0].split(".")[1]
        ours = {f"{MODULES[folder]}/pkg/{package}.k8sVersionMinor": minor for package in ("lint/rules", "chartutil")}
        return {f"{MODULES[folder]}/internal/version.version": version, **ours}
    variables = {
        "kubeconform": "main.version",
        "actionlint": "github.com/rhysd/actionlint.version",
        "containerd": f"{MODULES['containerd']}/version.Version",
        "prometheus": "github.com/prometheus/common/version.Version",
    }
    return {variables[folder]: version} if folder in variables else {}


def _pin(folder: str, path: str) -> tuple[str, tuple[int, int]]:
    """(version of the Go module ``path``, oldest Go) that go.mod of a folder pins; v1 for a program whose source is here."""
    file = TOOLS / folder / "go.mod"
    text = file.read_text(encoding="utf-8")
    version = re.search(rf"^\s*(?:require\s+)?{re.escape(path)} (v\S+)", text, re.MULTILINE)
    go = re.search(r"^go (\d+)\.(\d+)", text, re.MULTILINE)
    if (path and version is None) or go is None:
        raise LocalKubeError(f"{file} does not pin {path} and a Go version: restore it from git")
    return version[1] if version else "v1", (int(go[1]), int(go[2]))
