"""The narrow door to Docker: its command line, with a time-out for every call and one sentence for every failure."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from localkube.errors import LocalKubeError
from localkube.programs.gobuild import run

CALL_SECONDS = 60.0
BUILD_SECONDS = 1200.0
CONTENT = "dev.multiconnect.content"
"""The label that says what an image was made from."""


def docker(*args: str, timeout: float = CALL_SECONDS, text: str | None = None) -> str:
    """The standard output of ``docker ARGS``, fed with ``text``. LocalKubeError with what it said if it fails."""
    try:
        done = subprocess.run(["docker", *args], input=text, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        msg = "there is no program 'docker': install it, on Debian with 'hack/kind-offline up --install-docker'"
        raise LocalKubeError(msg) from error
    except subprocess.TimeoutExpired as error:
        msg = f"'docker {' '.join(args[:3])}' did not end within {timeout:g} s: look whether Docker is well"
        raise LocalKubeError(msg) from error
    if done.returncode != 0:
        msg = f"'docker {' '.join(args[:4])}' failed: {(done.stderr or done.stdout).strip()[-600:]}"
        raise LocalKubeError(msg)
    return done.stdout


def info() -> dict[str, Any] | None:
    """What Docker says of itself, None if it does not answer."""
    try:
        found: dict[str, Any] = json.loads(docker("info", "--format", "{{json .}}", timeout=20))
    except (LocalKubeError, ValueError):
        return None
    return found if found.get("ServerVersion") else None


def has_image(image: str, content: str | None = None) -> bool:
    """Whether Docker has the image, and made from ``content`` if that is given."""
    try:
        labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", image))
    except (LocalKubeError, ValueError):
        return False
    return content is None or (labels or {}).get(CONTENT) == content


def import_archive(
    archive: Path, image: str, *, content: str, changes: Sequence[str] = (), log: Path, tick: Callable[[], None] = lambda: None
) -> None:
    """Make an image of one root file system. ``changes`` are lines of a Dockerfile, such as CMD."""
    words = [word for change in (f"LABEL {CONTENT}={content}", *changes) for word in ("--change", change)]
    with replacing(image):
        logged(["docker", "import", *words, str(archive), image], log=log, tick=tick)


def build(
    folder: Path, image: str, *, log: Path, file: Path | None = None, options: Sequence[str] = (), tick: Callable[[], None] = lambda: None
) -> None:
    """Build an image from ``folder``, without a network (unless ``options`` say otherwise) and without BuildKit, which Debian's Docker
    does not have."""
    argv = ["docker", "build", "--force-rm", "--network=none", "--tag", image, "--file", str(file or folder / "Dockerfile"), *options]
    with replacing(image):
        logged([*argv, str(folder)], log=log, tick=tick, environ={"DOCKER_BUILDKIT": "0"})


@contextlib.contextmanager
def replacing(image: str) -> Iterator[None]:
    """What is made inside takes the name of ``image``; what had it before is removed then, unless something uses it."""
    before = image_id(image)
    yield
    if before and image_id(image) != before:
        with contextlib.suppress(LocalKubeError):
            docker("image", "rm", before)


def image_id(image: str) -> str | None:
    """The id of an image, None if Docker does not have it."""
    try:
        return docker("image", "inspect", "--format", "{{.Id}}", image).strip()
    except LocalKubeError:
        return None


def logged(
    argv: Sequence[str],
    *,
    log: Path,
    tick: Callable[[], None] = lambda: None,
    environ: Mapping[str, str] | None = None,
    timeout: float = BUILD_SECONDS,
) -> None:
    """Run a program to its end, its words into ``log``. LocalKubeError with the end of them if it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        code = run(argv, cwd=log.parent, env={**os.environ, **(environ or {})}, output=output.fileno(), tick=tick, timeout=timeout)
    if code != 0:
        ending = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])
        msg = f"'{' '.join(argv[:3])} …' failed; the end of {log}:\n{ending}"
        raise LocalKubeError(msg)
