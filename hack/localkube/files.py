"""Files that are written completely or not at all, derived files, and folders in which one process works at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from localkube.errors import LocalKubeError

PRIVATE = 0o600
"""The mode of a file that only its owner may read."""
EXECUTABLE = 0o755


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


def stale(derived: Mapping[Path, str]) -> dict[Path, str]:
    """The files that do not contain the text that they should, with that text."""
    return {path: text for path, text in derived.items() if not path.exists() or path.read_text(encoding="utf-8") != text}


def rewrite(derived: Mapping[Path, str], root: Path) -> None:
    """Write these files, and print which ones."""
    for path, text in stale(derived).items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(root)}")


@contextlib.contextmanager
def only_one(lock: Path, taken: str, *, within: float = 0.0, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Lock a file while the block lasts. If another process holds the lock, call ``waiting`` and wait for at most ``within`` seconds.

    LocalKubeError with the sentence ``taken`` if it still does.
    """
    deadline, is_reported = time.monotonic() + within, False
    with lock.open("w") as handle:
        while not _locked(handle.fileno()):
            if time.monotonic() >= deadline:
                raise LocalKubeError(taken)
            if not is_reported:
                waiting()
                is_reported = True
            time.sleep(0.1)
        yield


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
