"""The images for kind where no container registry is reached: the node's, a Python base, PostgreSQL; each made once per content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.offline import archive as kind_archive
from localkube.offline import debian, docker
from localkube.offline.archive import COMPONENTS
from localkube.offline.debian import Root
from localkube.programs.binaries import Binaries, cache_folder, provide
from localkube.programs.cache import Cache, sha256_of
from localkube.programs.versions import kind_programs, kubernetes_version, pinned_programs
from localkube.progress import Report, Step, quiet, terminal_of

DEFINITIONS = Path(__file__).resolve().parents[2] / "kind"
NODE_IMAGE = f"whatsapp-operator/kind-node:{kubernetes_version()}"
NODE_BASE = "whatsapp-operator/kind-node-base:local"
PYTHON_IMAGE = "whatsapp-operator/python:3.11-debian"
POSTGRES_IMAGE = "whatsapp-operator/postgres:15"
IN_NODE = ("containerd", "containerd-shim-runc-v2", "ctr")


def programs(environ: Mapping[str, str], report: Report) -> Binaries:
    """All programs, kind's own included. Those of KUBEBUILDER_ASSETS are left out: an image is of exactly one version."""
    return provide(_plain(environ), report=report, programs=(*pinned_programs(), *kind_programs()))


def tools(environ: Mapping[str, str], report: Report) -> Binaries:
    """kind and kubectl alone: what works with a cluster that is there."""
    wanted = [program for program in (*kind_programs(), *pinned_programs()) if program.name in {"kind", "kubectl"}]
    return provide(_plain(environ), report=report, programs=wanted)


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
        """Make what is missing (``force``: all anew, from today's packages), one process at a time. LocalKubeError if something fails."""
        with Cache(self.cache).lock(self.report):
            if force:
                for archive in self.cache.glob("debian-*.tar"):
                    archive.unlink()
            self._make(force=force)

    def _make(self, *, force: bool) -> None:
        wanted = [name for name, there in (("python", self._python_there()), ("postgres", self._postgres_there())) if force or not there]
        content = self._node_content()
        node = force or not docker.has_image(NODE_IMAGE, content)
        self._of = len(wanted) * 2 + (5 if node else 0)
        if "python" in wanted:
            self._imported(debian.PYTHON, PYTHON_IMAGE, 'CMD ["python3"]')
        if "postgres" in wanted:
            self._postgres()
        if node:
            self._node(content)
        debian.forget_packages(self.cache)

    # ---- Python and PostgreSQL

    def _python_there(self) -> bool:
        return docker.has_image(PYTHON_IMAGE, debian.PYTHON.key)

    def _postgres_there(self) -> bool:
        return docker.has_image(POSTGRES_IMAGE, self._postgres_content())

    def _postgres_content(self) -> str:
        return _digest([debian.POSTGRES.key, *_files(DEFINITIONS / "postgres")])

    def _postgres(self) -> None:
        base = self._imported(debian.POSTGRES, "whatsapp-operator/postgres-base:local")
        label = f"--label={docker.CONTENT}={self._postgres_content()}"
        options = [f"--build-arg=BASE={base}", label]
        docker.build(DEFINITIONS / "postgres", POSTGRES_IMAGE, log=self._log("postgres-image"), options=options)

    # ---- the node

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
            step = self._step("putting the node's base together", 10)
            context = Path(work) / "base"
            shutil.copytree(DEFINITIONS / "node", context)
            for name in IN_NODE:
                _link(self.binaries[name], context / "root" / "usr" / "local" / "bin" / name)
            config = context / "root" / "etc" / "containerd" / "config.toml"
            config.write_text(config.read_text(encoding="utf-8").replace("PAUSE_IMAGE", names["pause"]), encoding="utf-8")
            label = f"--label={docker.CONTENT}={content}"
            docker.build(context, NODE_BASE, log=self._log("node-base"), tick=step.tick, options=[f"--build-arg=BASE={base}", label])
            server = kind_archive.server_archive(self.binaries, names, proxy, Path(work))
            step.end("done")
            step = self._step("kind build node-image", 40)
            argv = [str(self.binaries["kind"]), "build", "node-image", "--type=file", f"--image={NODE_IMAGE}", f"--base-image={NODE_BASE}"]
            with docker.replacing(NODE_IMAGE):
                docker.logged([*argv, str(server)], log=self._log("node-image"), tick=step.tick, environ={"TMPDIR": work})
            step.end("done")

    # ---- parts

    def _debian(self, root: Root) -> Path:
        if root.archive(self.cache).exists():
            self._steps += 1
            return root.archive(self.cache)
        step = self._step(f"Debian with the packages of {root.name}", root.expected_s)
        try:
            archive = debian.make(root, self.cache, self.mirror, step.tick)
        except BaseException:
            step.end("failed")
            raise
        step.end("done")
        return archive

    def _imported(self, root: Root, image: str, *changes: str) -> str:
        archive = self._debian(root)
        step = self._step(f"image {image}", 8)
        docker.import_archive(archive, image, content=root.key, changes=changes, log=self._log(root.name), tick=step.tick)
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


def _plain(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name != "KUBEBUILDER_ASSETS"}


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
