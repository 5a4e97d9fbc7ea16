"""The images that kind needs where no container registry is reached: the node's, a Python base and PostgreSQL; each made once per content."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from localkube import kind_archive, kind_debian, kind_docker
from localkube.binaries import Binaries, cache_folder, provide
from localkube.cache import Cache, sha256_of
from localkube.errors import LocalKubeError
from localkube.kind_archive import ComponentImage
from localkube.kind_debian import Root
from localkube.progress import Report, Step, quiet, terminal_of
from localkube.versions import host_platform, kind_programs, kubernetes_version, pinned_programs

DEFINITIONS = Path(__file__).resolve().parent.parent / "kind"
NODE_IMAGE = f"whatsapp-operator/kind-node:{kubernetes_version()}"
NODE_BASE = "whatsapp-operator/kind-node-base:local"
PYTHON_IMAGE = "whatsapp-operator/python:3.11-debian"
POSTGRES_IMAGE = "whatsapp-operator/postgres:15"
IN_NODE = ("containerd", "containerd-shim-runc-v2", "ctr")
COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd", "coredns", "pause")
KINDEST = rb"docker\.io/kindest/(?:kindnetd|local-path-provisioner|local-path-helper):v\d{8}-[0-9a-f]{8}"
"""The images that `kind build node-image` wants to have, as they stand in its program; none of them is used here."""


def programs(environ: Mapping[str, str], report: Report) -> Binaries:
    """All programs, kind's own included. Those of KUBEBUILDER_ASSETS are left out: an image is of exactly one version."""
    plain = {name: value for name, value in environ.items() if name != "KUBEBUILDER_ASSETS"}
    return provide(plain, report=report, programs=(*pinned_programs(), *kind_programs()))


def built_kind(environ: Mapping[str, str]) -> Path | None:
    """The program kind, if it is in the cache."""
    cache, kind = Cache(cache_folder(environ)), kind_programs()[0]
    return None if cache.fault(kind) else cache.path(kind)


@dataclass
class Images:
    """Makes the images; ``cache`` is the folder of archives and logs, ``mirror`` the Debian mirror."""

    cache: Path
    mirror: str
    binaries: Binaries
    report: Report = quiet
    _steps: int = field(default=0, init=False)
    _of: int = field(default=0, init=False)

    def make(self, *, force: bool = False) -> None:
        """Make what is missing (``force``: all anew). LocalKubeError if something fails."""
        wanted = [name for name, there in (("python", self._python_there()), ("postgres", self._postgres_there())) if force or not there]
        content = self._node_content()
        node = force or not kind_docker.has_image(NODE_IMAGE, content)
        self._of = len(wanted) * 2 + (5 if node else 0)
        if "python" in wanted:
            self._imported(kind_debian.PYTHON, PYTHON_IMAGE, 'CMD ["python3"]')
        if "postgres" in wanted:
            self._postgres()
        if node:
            self._node(content)
        kind_debian.forget_packages(self.cache)

    # ---- Python and PostgreSQL

    def _python_there(self) -> bool:
        return kind_docker.has_image(PYTHON_IMAGE, kind_debian.PYTHON.key)

    def _postgres_there(self) -> bool:
        return kind_docker.has_image(POSTGRES_IMAGE, self._postgres_content())

    def _postgres_content(self) -> str:
        return _digest([kind_debian.POSTGRES.key, *_files(DEFINITIONS / "postgres")])

    def _postgres(self) -> None:
        base = self._imported(kind_debian.POSTGRES, "whatsapp-operator/postgres-base:local")
        label = f"--label={kind_docker.CONTENT}={self._postgres_content()}"
        folder = DEFINITIONS / "postgres"
        kind_docker.build(folder, POSTGRES_IMAGE, self._log("postgres-image"), lambda: None, options=[f"--build-arg=BASE={base}", label])

    # ---- the node

    def _node_content(self) -> str:
        """Stands for all that the node image is made from."""
        ours = [sha256_of(self.binaries[name]) for name in ("kind", "kubelet", "kubeadm", "kubectl", *IN_NODE, *COMPONENTS)]
        here = Path(__file__).parent
        made_by = [sha256_of(path) for path in (here / "kind_archive.py", here / "kind_images.py")]
        return _digest([kind_debian.NODE.key, kind_debian.PROXY.key, *ours, *made_by, *_files(DEFINITIONS / "node")])

    def _node(self, content: str) -> None:
        """The base from Debian, then Kubernetes on it by `kind build node-image`."""
        base = self._imported(kind_debian.NODE, "whatsapp-operator/kind-node-debian:local")
        proxy = self._debian(kind_debian.PROXY)
        names = kubeadm_images(self.binaries)
        with tempfile.TemporaryDirectory(dir=self.cache, prefix=".node-") as work:
            step = self._step("putting the node's base together", 10)
            context = Path(work) / "base"
            shutil.copytree(DEFINITIONS / "node", context)
            for name in IN_NODE:
                _link(self.binaries[name], context / "root" / "usr" / "local" / "bin" / name)
            config = context / "root" / "etc" / "containerd" / "config.toml"
            config.write_text(config.read_text(encoding="utf-8").replace("PAUSE_IMAGE", names["pause"]), encoding="utf-8")
            label = f"--label={kind_docker.CONTENT}={content}"
            kind_docker.build(context, NODE_BASE, self._log("node-base"), step.tick, options=[f"--build-arg=BASE={base}", label])
            server = server_archive(self.binaries, names, proxy, Path(work))
            step.end("done")
            step = self._step("kind build node-image", 40)
            argv = [str(self.binaries["kind"]), "build", "node-image", "--type=file", f"--image={NODE_IMAGE}", f"--base-image={NODE_BASE}"]
            kind_docker.logged([*argv, str(server)], log=self._log("node-image"), tick=step.tick, environ={"TMPDIR": work})
            step.end("done")

    # ---- parts

    def _debian(self, root: Root) -> Path:
        if root.archive(self.cache).exists():
            self._steps += 1
            return root.archive(self.cache)
        step = self._step(f"Debian with the packages of {root.name}", root.expected_s)
        try:
            archive = kind_debian.make(root, self.cache, self.mirror, step.tick)
        except BaseException:
            step.end("failed")
            raise
        step.end("done")
        return archive

    def _imported(self, root: Root, image: str, *changes: str) -> str:
        archive = self._debian(root)
        step = self._step(f"image {image}", 8)
        kind_docker.import_archive(archive, image, root.key, self._log(root.name), step.tick, changes)
        step.end("done")
        return image

    def _step(self, text: str, expected_s: float) -> Step:
        self._steps += 1
        return Step(text, number=self._steps, of=self._of, expected_s=expected_s, report=self.report, terminal=terminal_of(self.report))

    def _log(self, name: str) -> Path:
        return self.cache / f"{name}.log"


def kubeadm_images(binaries: Binaries) -> dict[str, str]:
    """The names that kubeadm expects its images under, by program."""
    argv = [str(binaries["kubeadm"]), "config", "images", "list", "--kubernetes-version", kubernetes_version()]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "HOME": "/nonexistent"})
    names = {line.rpartition(":")[0].rpartition("/")[2]: line for line in done.stdout.split()}
    if lacking := set(COMPONENTS) - set(names):
        msg = f"kubeadm names no image for {', '.join(sorted(lacking))}: {(done.stderr or done.stdout).strip()[-300:]}"
        raise LocalKubeError(msg)
    return names


def kindest_images(kind: bytes) -> list[str]:
    """The images beside Kubernetes' own that a kind program puts into a node image."""
    found = sorted({match.decode() for match in re.findall(KINDEST, kind)})
    if not found:
        msg = "kind does not name the images that it puts into a node image: this version of kind needs another pattern"
        raise LocalKubeError(msg)
    return found


def server_archive(binaries: Binaries, names: Mapping[str, str], proxy: Path, work: Path) -> Path:
    """What `kind build node-image --type file` takes: Kubernetes' programs and images as its release has them, in the folder ``work``."""
    arch = host_platform()[1]
    images = [
        ComponentImage(names[name], binaries[name], proxy if name == "kube-proxy" else None, name in {"coredns", "pause"})
        for name in COMPONENTS
    ]
    images += [ComponentImage(name, binaries["pause"]) for name in kindest_images(binaries["kind"].read_bytes())]
    own = {
        f"{image.program.name}.tar": [image]
        for image in images
        if image.program.name in {"kube-controller-manager", "kube-scheduler", "kube-proxy"}
    }
    # all others in one, because kind imports four archives and no more
    own["kube-apiserver.tar"] = [image for image in images if [image] not in own.values()]
    server = work / "server.tar.gz"
    # not compressed: it is unpacked again at once
    with gzip.open(server, "wb", compresslevel=0) as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        version = work / "version"
        version.write_text(f"{kubernetes_version()}\n", encoding="utf-8")
        archive.add(version, "kubernetes/version")
        for name in ("kubeadm", "kubelet", "kubectl"):
            archive.add(binaries[name], f"kubernetes/server/bin/{name}")
        for name, ones in own.items():
            kind_archive.write_archive(ones, work / name, work, arch)
            archive.add(work / name, f"kubernetes/server/bin/{name}")
            (work / name).unlink()
    return server


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _files(folder: Path) -> list[str]:
    """Names and contents of all files of a folder."""
    return [f"{path.relative_to(folder)} {sha256_of(path)}" for path in sorted(folder.rglob("*")) if path.is_file()]


def _digest(parts: list[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
