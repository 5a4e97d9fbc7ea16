"""What runs in one folder: a control plane, hollow nodes, operators and a Prometheus, each known by a record of its processes."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from localkube.hollow.control import ADDRESS_FILE
from localkube.plane import controlplane, processes
from localkube.plane.controlplane import ControlPlane
from localkube.plane.operators import REPOSITORY
from localkube.plane.processes import Process, Spawner
from localkube.progress import to_stderr

PARTS = ("operators", "prometheus", "hollow")
"""What talks to the API server, and so ends before it: each a record NAME.json, and a folder."""
NODES_S = 30.0


def start_module(spawner: Spawner, name: str, module: str, options: Mapping[str, object], *, folder: Path, log: Path) -> Process:
    """Start a module of this repository as a process of its own, with these options of its command line."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(REPOSITORY / part) for part in ("hack", "operator", "tests"))}
    words = [word for option, value in options.items() for word in (f"--{option}", str(value))]
    return spawner.start(name, [sys.executable, "-m", module, *words], folder=folder, log=log, env=env)


def start_nodes(plane: ControlPlane, spawner: Spawner, count: int) -> None:
    """Start the process that plays hollow nodes, and wait until they are ready. LocalKubeError."""
    begun, folder = time.monotonic(), plane.folder / "hollow"
    (folder / ADDRESS_FILE).unlink(missing_ok=True)  # left by a process that was killed
    options = {"kubeconfig": plane.admin_kubeconfig, "nodes": count, "folder": folder}
    log = plane.folder / "logs" / "hollow.log"
    process = start_module(spawner, "hollow nodes", "localkube.hollow", options, folder=plane.folder, log=log)
    processes.save(plane.folder / "hollow.json", [process])
    processes.wait_until((folder / ADDRESS_FILE).exists, [process], "to be ready", begun + NODES_S)
    to_stderr(f"{count} hollow nodes are ready after {time.monotonic() - begun:.1f} s")


def alive(folder: Path) -> list[Process]:
    """The processes that still run in ``folder``."""
    return [process for name in (*PARTS, "processes") for process in processes.load(folder / f"{name}.json") if process.alive()]


def remove(folder: Path) -> list[Process]:
    """End by id what runs in ``folder``, and remove what was made there, and the folder itself if nothing else is in it.

    Returns what was ended.
    """
    ended = alive(folder)
    for name in PARTS:
        processes.stop(processes.load(folder / f"{name}.json"))
    controlplane.end(processes.load(folder / "processes.json"))
    for name in (*PARTS, *controlplane.FOLDERS):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (*(f"{part}.json" for part in PARTS), *controlplane.FILES):
        for path in folder.glob(name):
            path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
    return ended
