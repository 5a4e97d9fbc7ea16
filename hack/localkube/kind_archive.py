"""Images written without a container engine: archives of single programs as `docker load` and containerd read them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localkube.cache import sha256_of


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
        digests = []
        for path in [*([image.below] if image.below else []), _layer(image.program, work)]:
            digest = sha256_of(path)
            layers[digest] = path
            digests.append(digest)
        config = json.dumps(_config(image, digests, arch), sort_keys=True).encode()
        name = hashlib.sha256(config).hexdigest()
        configs[name] = config
        manifest.append({"Config": f"{name}.json", "RepoTags": [image.name], "Layers": [f"{digest}/layer.tar" for digest in digests]})
    with tarfile.open(target, "w") as archive:
        _add(archive, "repositories", json.dumps(names).encode())
        _add(archive, "manifest.json", json.dumps(manifest).encode())
        for name, config in configs.items():
            _add(archive, f"{name}.json", config)
        for digest, path in layers.items():
            archive.add(path, f"{digest}/layer.tar")


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
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo(f"usr/local/bin/{program.name}")
            member.size, member.mode = program.stat().st_size, 0o755
            with program.open("rb") as content:
                archive.addfile(member, content)
    return path


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
