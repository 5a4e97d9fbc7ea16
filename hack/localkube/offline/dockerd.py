"""Installing Docker from Debian and starting dockerd by hand, for machines without it: only where ``--install-docker`` asks for it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.files import EXECUTABLE, write
from localkube.offline import docker, runtime
from localkube.plane import processes
from localkube.progress import to_stderr
from localkube.run import output

PACKAGES = ("docker.io", "iptables", "debootstrap", "ca-certificates")
INSTALL_SECONDS = 900.0
START_SECONDS = STOP_SECONDS = 60.0
RUNTIME = "whatsapp-runc"
"""The name under which Docker knows the runtime that asks for no capability which this machine lacks."""


def install() -> None:
    """Install Debian's packages, unless all that they bring is there. LocalKubeError if apt-get fails."""
    if all(map(program, ("docker", "dockerd", "iptables", "debootstrap"))):
        return
    to_stderr(f"installing {' '.join(PACKAGES)} with apt-get")
    # runlevel 1: the packages' own scripts start no service then
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    output(["apt-get", "update", "-qq"], env=env, timeout=INSTALL_SECONDS)
    output(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES], env=env, timeout=INSTALL_SECONDS)


def start(folder: Path) -> None:
    """Start dockerd with its data under ``folder``, unless a Docker answers; it keeps running when this program has ended.

    LocalKubeError with the end of its log if it does not answer in time. ``stop`` ends it.
    """
    if docker.info() is not None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    dockerd = _needed("dockerd")
    begun = time.monotonic()
    argv = [dockerd, f"--data-root={folder / 'data'}", f"--pidfile={folder / 'dockerd.pid'}", "--log-level=warn", *_runtime(folder)]
    (folder / "dockerd.pid").unlink(missing_ok=True)
    env = {**os.environ, "PATH": _path()}
    process = processes.start("dockerd", argv, folder=folder, log=folder / "dockerd.log", env=env, leashed=False)
    processes.save(folder / "dockerd.json", [process])
    try:
        processes.wait_until(lambda: docker.info() is not None, [process], "to answer", begun + START_SECONDS)
    except LocalKubeError:
        stop(folder)
        raise
    to_stderr(f"dockerd answers after {time.monotonic() - begun:.1f} s; its data and log are in {folder}")


def stop(folder: Path) -> bool:
    """End the dockerd that ``start`` started, and so all its containers; whether there was one."""
    found = [process for process in processes.load(folder / "dockerd.json") if process.alive()]
    processes.stop(found, grace=STOP_SECONDS)
    (folder / "dockerd.json").unlink(missing_ok=True)
    return bool(found)


def program(name: str) -> str | None:
    """The path of a program, also where Debian keeps those of the administrator; None if there is none."""
    return shutil.which(name, path=_path())


def _runtime(folder: Path) -> list[str]:
    """dockerd's options for the corrected runtime; none where nothing is missing."""
    if not runtime.missing():
        return []
    # a copy: what Docker runs must not change with this repository
    copy = shutil.copy(runtime.__file__, folder / "runtime.py")
    program = f'#!/bin/sh\nexec {Path(sys.executable).resolve()} -I -S {copy} {_needed("runc")} "$@"\n'
    wrapper = write(folder / RUNTIME, program, mode=EXECUTABLE)
    return [f"--add-runtime={RUNTIME}={wrapper}", f"--default-runtime={RUNTIME}"]


def _needed(name: str) -> str:
    if (found := program(name)) is None:
        raise LocalKubeError(f"there is no program '{name}': give --install-docker, or install Docker and start it")
    return found


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
