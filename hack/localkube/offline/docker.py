"""Docker's command line: a time-out for every call, and one sentence for every failure."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from localkube.errors import LocalKubeError
from localkube.run import logged, output

CONTENT = "dev.multiconnect.content"
"""The label that says what an image was made from."""


def docker(*args: str, timeout: float = 60.0, text: str = "") -> str:
    """The standard output of ``docker ARGS``, fed with ``text``. LocalKubeError with what it wrote if it fails."""
    if shutil.which("docker") is None:
        raise LocalKubeError("there is no program 'docker': install it, on Debian with 'hack/kind-offline up --install-docker'")
    return output(["docker", *args], timeout=timeout, text=text)


def inspected(image: str, template: str) -> Any:
    """A part of what Docker knows of an image, by a Go template that writes JSON; None if Docker does not have it."""
    try:
        return json.loads(docker("image", "inspect", "--format", template, image))
    except (LocalKubeError, ValueError):
        return None


def info() -> dict[str, Any] | None:
    """What Docker says of itself, None if it does not answer."""
    try:
        found: dict[str, Any] = json.loads(docker("info", "--format", "{{json .}}", timeout=20))
    except (LocalKubeError, ValueError):
        return None
    return found if found.get("ServerVersion") else None


def has_image(image: str, content: str | None = None) -> bool:
    """Whether Docker has the image, and made from ``content`` if that is given."""
    found = inspected(image, "{{json .Config}}")
    return found is not None and (content is None or (found.get("Labels") or {}).get(CONTENT) == content)


def import_archive(archive: Path, image: str, *, content: str, changes: Sequence[str] = (), log: Path) -> None:
    """Make an image of one root file system. ``changes`` are lines of a Dockerfile, such as CMD."""
    words = [word for change in (f"LABEL {CONTENT}={content}", *changes) for word in ("--change", change)]
    with replacing(image):
        logged(["docker", "import", *words, str(archive), image], log=log)


def build(folder: Path, image: str, *options: str, log: Path, file: Path | None = None) -> None:
    """Build an image from ``folder``, without a network unless ``options`` say otherwise, without BuildKit, which Debian lacks."""
    argv = ["docker", "build", "--force-rm", "--network=none", "--tag", image, "--file", str(file or folder / "Dockerfile"), *options]
    with replacing(image):
        logged([*argv, str(folder)], log=log, env={"DOCKER_BUILDKIT": "0"})


@contextlib.contextmanager
def replacing(image: str) -> Iterator[None]:
    """What is made inside takes the name of ``image``; what had it before is removed then, unless something uses it."""
    before = inspected(image, "{{json .Id}}")
    yield
    if before and inspected(image, "{{json .Id}}") != before:
        with contextlib.suppress(LocalKubeError):
            docker("image", "rm", before)
