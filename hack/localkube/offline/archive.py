"""Images written without a container engine: single programs in the archives that `kind build node-image` and containerd read."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localkube.errors import LocalKubeError
from localkube.programs.binaries import Binaries
from localkube.programs.cache import sha256_of
from localkube.programs.versions import host_platform, kubernetes_version

COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd", "coredns", "pause")
ALONE = ("kube-controller-manager", "kube-scheduler", "kube-proxy")
"""The components that have an archive of their own in a release of Kubernetes, besides kube-apiserver."""
KINDEST = rb"docker\.io/kindest/(?:kindnetd|local-path-provisioner|local-path-helper):v\d{8}-[0-9a-f]{8}"
"""The images that `kind build node-image` wants to have, as they stand in its program; none of them is used here."""


@dataclass(frozen=True)
class ComponentImage:
    """One image: its name with its tag, the program in it, and the root file system (a tar archive) below, if it needs one."""

    name: str
    program: Path
    below: Path | None = None
    entrypoint: bool = False
    """Whether it starts the program by itself; others are started by a command in the manifest."""


def write_archive(images: Sequence[ComponentImage], target: Path, work: Path, arch: str) -> None:
    """Write ``images`` into one archive, ``target``, with layers made in the folder ``work``.

    The member ``repositories`` comes first and names all: `kind build node-image` reads the first list of names that it meets, and of a
    ``manifest.json`` only the first entry.
    """
    names: dict[str, dict[str, str]] = {}
    manifest: list[dict[str, Any]] = []
    layers: dict[str, Path] = {}
    configs: dict[str, bytes] = {}
    for image in images:
        repository, _, tag = image.name.rpartition(":")
        names.setdefault(repository, {})[tag] = ""
        own = {sha256_of(path): path for path in ([image.below] if image.below else []) + [_layer(image.program, work)]}
        config = json.dumps(_config(image, list(own), arch), sort_keys=True).encode()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        layers |= own
        configs[name] = config
        manifest.append({"Config": name, "RepoTags": [image.name], "Layers": [f"{digest}/layer.tar" for digest in own]})
    lists = {"repositories": json.dumps(names).encode(), "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(target, "w") as archive:
        for name, content in {**lists, **configs}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for digest, path in layers.items():
            archive.add(path, f"{digest}/layer.tar")


def kindest_images(kind: bytes) -> list[str]:
    """The images besides Kubernetes' own that a kind program puts into a node image."""
    found = sorted({match.decode() for match in re.findall(KINDEST, kind)})
    if not found:
        raise LocalKubeError("kind does not name the images that it puts into a node image: this version of kind needs another pattern")
    return found


def server_archive(binaries: Binaries, names: Mapping[str, str], proxy: Path, work: Path) -> Path:
    """What `kind build node-image --type file` takes: Kubernetes' programs and images as its release has them, in the folder ``work``."""
    images = {
        name: ComponentImage(names[name], binaries[name], proxy if name == "kube-proxy" else None, name in {"coredns", "pause"})
        for name in COMPONENTS
    }
    kindest = [ComponentImage(name, binaries["pause"]) for name in kindest_images(binaries["kind"].read_bytes())]
    archives = {name: [images.pop(name)] for name in ALONE}
    # all others in one, because kind imports four archives and no more
    archives["kube-apiserver"] = [*images.values(), *kindest]
    server, version = work / "server.tar.gz", work / "version"
    version.write_text(f"{kubernetes_version()}\n", encoding="utf-8")
    # not compressed: it is unpacked again at once
    with gzip.open(server, "wb", compresslevel=0) as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        archive.add(version, "kubernetes/version")
        for name in ("kubeadm", "kubelet", "kubectl"):
            archive.add(binaries[name], f"kubernetes/server/bin/{name}")
        for name, content in archives.items():
            path = work / f"{name}.tar"
            write_archive(content, path, work, host_platform()[1])
            archive.add(path, f"kubernetes/server/bin/{name}.tar")
            path.unlink()
    return server


def _config(image: ComponentImage, digests: Sequence[str], arch: str) -> dict[str, Any]:
    run: dict[str, Any] = {"Env": ["PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"], "WorkingDir": "/"}
    if image.entrypoint:
        run["Entrypoint"] = [f"/usr/local/bin/{image.program.name}"]
    return {
        "architecture": arch,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": "1970-01-01T00:00:00Z"} for _ in digests],
    }


def _layer(program: Path, work: Path) -> Path:
    """The tar archive with the program in /usr/local/bin, the same bytes for the same program."""
    path = work / f"{program.name}.layer.tar"
    if not path.exists():
        with tarfile.open(path, "w") as archive, program.open("rb") as content:
            member = tarfile.TarInfo(f"usr/local/bin/{program.name}")
            member.size, member.mode = program.stat().st_size, 0o755
            archive.addfile(member, content)
    return path
