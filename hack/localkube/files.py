"""Files that appear as a whole or not at all, and folders in which one process works at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

from localkube.errors import LocalKubeError

PRIVATE = 0o600
"""The mode of a file that its owner alone may read."""


def write(path: Path, content: str | bytes, *, mode: int = 0o666) -> Path:
    """Write a file in one step, and make its folder if it is not there. Returns ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=mode)
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    return partial.replace(path)


def write_json(path: Path, content: object) -> None:
    """The same with content for other programs."""
    write(path, json.dumps(content, indent=2) + "\n")


@contextlib.contextmanager
def only_one(lock: Path, taken: str) -> Iterator[None]:
    """Keep other processes out while the block lasts, by a file. LocalKubeError with the sentence ``taken`` when another has it."""
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalKubeError(taken) from None
        yield
