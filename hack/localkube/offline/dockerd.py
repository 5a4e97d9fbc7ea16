"""Installing Docker from Debian and starting dockerd by hand, for machines without it: only where ``--install-docker`` asks for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.offline import docker, runtime
from localkube.plane import processes
from localkube.plane.processes import Process, Spawner
from localkube.progress import Report

PACKAGES = ("docker.io", "iptables", "debootstrap", "ca-certificates")
INSTALL_SECONDS = 900.0
START_SECONDS = 60.0
STOP_SECONDS = 60.0
RUNTIME = "whatsapp-runc"
"""The name under which Docker knows the runtime that asks for no capability which this machine lacks."""


def install(report: Report) -> None:
    """Install Debian's packages, unless all that they bring is there. LocalKubeError if apt-get fails."""
    if all(shutil.which(program, path=_path()) for program in ("docker", "dockerd", "iptables", "debootstrap")):
        return
    report(f"installing {' '.join(PACKAGES)} with apt-get")
    # runlevel 1: the packages' own scripts start no service then
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for argv in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        try:
            done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            msg = f"'{' '.join(argv[:2])}' could not be run to its end ({error}): install {', '.join(PACKAGES)} by hand"
            raise LocalKubeError(msg) from error
        if done.returncode != 0:
            msg = f"'{' '.join(argv[:2])}' failed: {(done.stderr or done.stdout).strip()[-600:]}"
            raise LocalKubeError(msg)


def start(folder: Path, report: Report) -> None:
    """Start dockerd with its data under ``folder``, unless a Docker answers; it goes on when this program has ended.

    LocalKubeError with the end of its log if it does not answer in time. ``stop`` ends it.
    """
    if docker.info() is not None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    dockerd = shutil.which("dockerd", path=_path())
    if dockerd is None:
        msg = "there is no program 'dockerd': give --install-docker, or install Docker and start it"
        raise LocalKubeError(msg)
    begun = time.monotonic()
    spawner = Spawner(leashed=False)
    argv = [dockerd, f"--data-root={folder / 'data'}", f"--pidfile={folder / 'dockerd.pid'}", "--log-level=warn", *_runtime(folder)]
    (folder / "dockerd.pid").unlink(missing_ok=True)
    env = {**os.environ, "PATH": _path()}
    process = spawner.start("dockerd", argv, folder=folder, log=folder / "dockerd.log", env=env)
    spawner.close()
    processes.save(folder / "dockerd.json", [process])
    while docker.info() is None:
        if not process.alive() or time.monotonic() - begun > START_SECONDS:
            state = "does not answer" if process.alive() else process.exit_text()
            stop(folder)
            msg = f"dockerd {state}; the end of {process.log}:\n{process.last_lines(12)}"
            raise LocalKubeError(msg)
        time.sleep(0.2)
    report(f"dockerd answers after {time.monotonic() - begun:.1f} s; its data and log are in {folder}")


def running(folder: Path) -> list[Process]:
    """The dockerd that ``start`` started, if it runs."""
    return [process for process in processes.load(folder / "dockerd.json") if process.alive()]


def stop(folder: Path) -> bool:
    """End the dockerd that ``start`` started, and so all its containers; whether there was one."""
    found = running(folder)
    processes.stop(found, grace=STOP_SECONDS)
    (folder / "dockerd.json").unlink(missing_ok=True)
    return bool(found)


def _runtime(folder: Path) -> list[str]:
    """dockerd's options for the corrected runtime; none where nothing is missing."""
    if not runtime.missing(Path("/proc/self/status").read_text(encoding="ascii")):
        return []
    runc = shutil.which("runc", path=_path())
    if runc is None:
        msg = "there is no program 'runc', which Debian's docker.io brings: give --install-docker"
        raise LocalKubeError(msg)
    # a copy: what Docker runs must not change with this repository
    copy, wrapper = folder / "runtime.py", folder / RUNTIME
    shutil.copy(runtime.__file__, copy)
    wrapper.write_text(f'#!/bin/sh\nexec {Path(sys.executable).resolve()} -I -S {copy} {runc} "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    return [f"--add-runtime={RUNTIME}={wrapper}", f"--default-runtime={RUNTIME}"]


def _path() -> str:
    """The PATH, and where Debian keeps the programs of the administrator."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
