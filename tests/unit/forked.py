"""Python processes that cost little: each is forked from one that has loaded the libraries, and nothing of the project."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

LIBRARIES = (
    "aiohttp",
    "cronsim",
    "cryptography.hazmat.primitives.serialization",
    "cryptography.x509",
    "httpx",
    "httpx2",
    "kopf",
    "kubernetes.client",
    "lightkube.generic_resource",
    "msgspec",
    "prometheus_client",
    "rich",
)
PARENT = """
import json, os, runpy, sys
for name in sys.argv[1:]:
    __import__(name)
for line in sys.stdin:
    env, argv, out, err = json.loads(line)
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    os._exit(0)
for path, number in ((os.devnull, 0), (out, 1), (err, 2)):
    os.dup2(os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY), number)
os.environ.clear()
os.environ.update(env)
first, *rest = argv
if first == "-m":
    sys.argv, sys.path[0] = rest, os.getcwd()
    runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
elif first == "-c":
    sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
    exec(rest[0])
else:
    sys.argv, sys.path[0] = argv, os.path.dirname(os.path.realpath(first))
    runpy.run_path(first, run_name="__main__")
"""
"""Reads what to start, line by line, and prints how each ended. The child leaves the loop and ends as every Python process does."""


@dataclass(frozen=True)
class Ended:
    """What came of a process."""

    status: int | None
    """None: it did not end."""
    out: str
    err: str


class Forks:
    """Starts processes, one after the other."""

    def __init__(self, folder: Path, path: str, libraries: Sequence[str]) -> None:
        """``folder``: for files of its own; ``path``: the PYTHONPATH of every process; ``libraries``: what they have loaded."""
        self._folder = folder
        self._libraries = libraries
        self._env = {"PYTHONPATH": path, "HOME": str(folder)}
        self._parent: subprocess.Popen[str] | None = None

    def run(self, env: Mapping[str, str], *argv: str, deadline: float) -> Ended:
        """Run ``python argv``; after ``deadline`` seconds it is killed."""
        parent = self._parent = self._parent or self._start()
        out, err = self._folder / "out", self._folder / "err"
        for file in (out, err):
            file.write_bytes(b"")
        print(json.dumps([dict(env), argv, str(out), str(err)]), file=_pipe(parent.stdin), flush=True)
        said = _pipe(parent.stdout)
        with selectors.DefaultSelector() as selector:  # select() cannot wait for a file with a number above 1023
            selector.register(said, selectors.EVENT_READ)
            status = said.readline() if selector.select(deadline) else ""
        if not status:
            self.close()
        return Ended(int(status) if status else None, *(file.read_text(encoding="utf-8") for file in (out, err)))

    def _start(self) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", PARENT, *self._libraries]
        return subprocess.Popen(argv, env=self._env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)

    def close(self) -> None:
        """End the parent, and a child that still runs."""
        if self._parent is not None:
            os.killpg(self._parent.pid, signal.SIGKILL)
            with self._parent:
                self._parent = None


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


@contextmanager
def forks(folder: Path, path: str, libraries: Sequence[str] = LIBRARIES) -> Iterator[Forks]:
    """Forks until the block ends."""
    made = Forks(folder, path, libraries)
    try:
        yield made
    finally:
        made.close()
