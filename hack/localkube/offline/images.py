"""The images for kind where no container registry is reached: the node's, a Python base, PostgreSQL; each made once per content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.offline import archive as kind_archive
from localkube.offline import debian, docker
from localkube.offline.archive import COMPONENTS
from localkube.offline.debian import Root
from localkube.programs.binaries import Binaries, cache_of, provide
from localkube.programs.cache import Cache, sha256_of
from localkube.programs.versions import kind_programs, kubernetes_version, pinned_programs
from localkube.progress import step
from localkube.run import logged, output

DEFINITIONS = Path(__file__).resolve().parents[2] / "kind"
NODE_IMAGE = f"whatsapp-operator/kind-node:{kubernetes_version()}"
NODE_BASE = "whatsapp-operator/kind-node-base:local"
PYTHON_IMAGE = "whatsapp-operator/python:3.11-debian"
POSTGRES_IMAGE = "whatsapp-operator/postgres:15"
IN_NODE = ("containerd", "containerd-shim-runc-v2", "ctr")


def programs(*names: str) -> Binaries:
    """The programs ``names``, or all, kind's own included. Those of KUBEBUILDER_ASSETS are left out: an image is of exactly one version."""
    wanted = [program for program in (*pinned_programs(), *kind_programs()) if not names or program.name in names]
    return provide({name: value for name, value in os.environ.items() if name != "KUBEBUILDER_ASSETS"}, programs=wanted)


def built_kind() -> Path | None:
    """The program kind, if it is in the cache."""
    cache, kind = cache_of(os.environ), kind_programs()[0]
    return None if cache.fault(kind) else cache.path(kind)


@dataclass
class Images:
    """Makes the images; ``cache`` is the folder of archives and logs, ``mirror`` the Debian mirror."""

    cache: Path
    mirror: str
    binaries: Binaries

    def make(self, *, force: bool = False) -> None:
        """Make what is missing (``force``: all again, from today's packages), one process at a time. LocalKubeError if something fails."""

        def is_missing(image: str, content: str) -> bool:
            return force or not docker.has_image(image, content)

        with Cache(self.cache).lock():
            for archive in self.cache.glob("debian-*.tar") if force else ():
                archive.unlink()
            if is_missing(PYTHON_IMAGE, debian.PYTHON.key):
                self._imported(debian.PYTHON, PYTHON_IMAGE, 'CMD ["python3"]')
            if is_missing(POSTGRES_IMAGE, postgres := _digest([debian.POSTGRES.key, *_files(DEFINITIONS / "postgres")])):
                base = self._imported(debian.POSTGRES, "whatsapp-operator/postgres-base:local")
                options = (f"--build-arg=BASE={base}", f"--label={docker.CONTENT}={postgres}")
                docker.build(DEFINITIONS / "postgres", POSTGRES_IMAGE, *options, log=self._log("postgres-image"))
            if is_missing(NODE_IMAGE, node := self._node_content()):
                self._node(node)
            shutil.rmtree(self.cache / "debs", ignore_errors=True)  # packages that were kept from one root file system to the next

    def _node_content(self) -> str:
        """Stands for all that the node image is made from."""
        ours = [sha256_of(self.binaries[name]) for name in ("kind", "kubelet", "kubeadm", "kubectl", *IN_NODE, *COMPONENTS)]
        made_by = sha256_of(Path(kind_archive.__file__))
        return _digest([debian.NODE.key, debian.PROXY.key, *ours, made_by, *_files(DEFINITIONS / "node")])

    def _node(self, content: str) -> None:
        """The base from Debian, then Kubernetes on it by `kind build node-image`."""
        base = self._imported(debian.NODE, "whatsapp-operator/kind-node-debian:local")
        proxy = self._debian(debian.PROXY)
        names = kubeadm_images(self.binaries)
        with tempfile.TemporaryDirectory(dir=self.cache, prefix=".node-") as work:
            with step("putting the node's base together", expected_s=10):
                context = Path(work) / "base"
                shutil.copytree(DEFINITIONS / "node", context)
                for name in IN_NODE:
                    shutil.copy2(self.binaries[name], context / "root" / "usr" / "local" / "bin" / name)
                config = context / "root" / "etc" / "containerd" / "config.toml"
                config.write_text(config.read_text(encoding="utf-8").replace("PAUSE_IMAGE", names["pause"]), encoding="utf-8")
                options = (f"--build-arg=BASE={base}", f"--label={docker.CONTENT}={content}")
                docker.build(context, NODE_BASE, *options, log=self._log("node-base"))
                server = kind_archive.server_archive(self.binaries, names, proxy, Path(work))
            argv = [str(self.binaries["kind"]), "build", "node-image", "--type=file", f"--image={NODE_IMAGE}", f"--base-image={NODE_BASE}"]
            with step("kind build node-image", expected_s=40), docker.replacing(NODE_IMAGE):
                logged([*argv, str(server)], log=self._log("node-image"), env={"TMPDIR": work})

    def _debian(self, root: Root) -> Path:
        with step(f"Debian with the packages of {root.name}", expected_s=root.expected_s):
            return debian.make(root, self.cache, self.mirror)

    def _imported(self, root: Root, image: str, *changes: str) -> str:
        archive = self._debian(root)
        with step(f"image {image}", expected_s=8):
            docker.import_archive(archive, image, content=root.key, changes=changes, log=self._log(root.name))
        return image

    def _log(self, name: str) -> Path:
        return self.cache / f"{name}.log"


def kubeadm_images(binaries: Binaries) -> dict[str, str]:
    """The names that kubeadm expects its images under, by program. LocalKubeError if one is missing."""
    argv = [str(binaries["kubeadm"]), "config", "images", "list", "--kubernetes-version", kubernetes_version()]
    listed = output(argv, env={**os.environ, "HOME": "/nonexistent"})
    names = {line.rpartition(":")[0].rpartition("/")[2]: line for line in listed.split()}
    if lacking := set(COMPONENTS) - set(names):
        raise LocalKubeError(f"kubeadm names no image for {', '.join(sorted(lacking))}: {listed.strip()[-300:]}")
    return names


def _files(folder: Path) -> list[str]:
    """Names and contents of all files of a folder."""
    return [f"{path.relative_to(folder)} {sha256_of(path)}" for path in sorted(folder.rglob("*")) if path.is_file()]


def _digest(parts: list[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
