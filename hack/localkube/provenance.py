"""Where figures come from: the commit, the machine, its load, the command. Goes into every file of figures."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from localkube import LocalKubeError, Obj
from localkube.run import output


class Provenance:
    """Created when a program begins, and read when it ends."""

    def __init__(self, root: Path, program: str, argv: Sequence[str]) -> None:
        """``root``: the repository; ``program``: such as ``hack/bench``; ``argv``: its arguments."""
        self._commit = commit(root)
        # arguments without folders of this machine: ``--out=/some/where/x.json`` is ``--out=x.json``
        self._command = " ".join([program, *(re.sub(r"(^|=)/\S*/", r"\1", word) for word in argv)])
        self._date = datetime.now(UTC)
        self._load = os.getloadavg()[0]

    def of_run(self) -> Obj:
        """``{commit, date, command, machine, load}``; load is the average of the last minute, when the program began and now."""
        return {
            "commit": self._commit,
            "date": f"{self._date:%Y-%m-%dT%H:%M:%SZ}",
            "command": self._command,
            "machine": machine(),
            "load": {"begin": round(self._load, 2), "end": round(os.getloadavg()[0], 2)},
        }


def commit(root: Path) -> str:
    """The commit that is checked out, with ``dirty`` behind it when tracked files differ; ``unknown`` where there is no git."""
    git = ["git", "-C", str(root)]
    try:
        found = output([*git, "rev-parse", "HEAD"]).strip()
        return f"{found} dirty" if output([*git, "status", "--porcelain", "--untracked-files=no"]) else found
    except LocalKubeError:
        return "unknown"


def machine() -> Obj:
    """What the figures depend on: processors, memory, kernel, Python."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpus": os.cpu_count() or 1,
        "model": model(Path("/proc/cpuinfo").read_text(encoding="utf-8")),
        "memory_gib": round(memory, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def model(cpuinfo: str) -> str:
    """The name of the processor from `/proc/cpuinfo`, or the architecture if it is not there."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def is_crowded(run: Obj) -> bool:
    """Whether the machine was overloaded while a run was measured."""
    return bool(max(run["load"].values()) > run["machine"]["cpus"] * 1.2)
