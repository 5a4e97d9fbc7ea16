"""The command ``hack/cluster``: a control plane with hollow nodes that goes on when the command has ended."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from localkube.plane import folder, processes
from localkube.plane.controlplane import ControlPlane
from localkube.plane.processes import Spawner
from localkube.programs.binaries import provide
from localkube.programs.cache import version_of
from localkube.programs.versions import chart_programs, kstatus_programs, pinned_programs, workflow_programs
from localkube.progress import to_stderr


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run one command; ``root`` is the repository. Returns the exit status.

    Raises what the command's caller turns into a sentence (``errors.guarded``): LocalKubeError, OSError.
    """
    options = _parser(root).parse_args(argv)
    if options.command == "programs":
        ours, others = pinned_programs(), (*chart_programs(), *workflow_programs(), *kstatus_programs())
        provide(os.environ, report=to_stderr, programs=ours if options.control_plane else (*ours, *others))
        return 0
    where: Path = options.dir.absolute()
    if options.command == "up":
        return _up(where, options)
    return _status(where) if options.command == "status" else _down(where)


def _parser(root: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hack/cluster", description="A local Kubernetes control plane with hollow nodes.")
    commands = parser.add_subparsers(dest="command", required=True)
    programs = commands.add_parser("programs", help="find, fetch or build its programs (up does so too) and those of the charts")
    programs.add_argument("--control-plane", action="store_true", help="leave out those of the charts")
    up = commands.add_parser("up", help="start it, or say where it runs")
    up.add_argument("--nodes", type=int, default=3, help="hollow nodes (default: 3)")
    for command in (up, commands.add_parser("status", help="what runs"), commands.add_parser("down", help="stop it and remove its data")):
        command.add_argument("--dir", type=Path, default=root / "build" / "cluster", help="its folder (default: build/cluster)")
    return parser


def _up(where: Path, options: argparse.Namespace) -> int:
    begun, found = time.monotonic(), _running(where)
    try:
        plane = found or ControlPlane.start(where, detached=True, report=to_stderr)
        if options.nodes > 0 and not any(process.alive() for process in processes.load(where / "hollow.json")):
            spawner = Spawner(leashed=False)
            folder.start_nodes(plane, spawner, options.nodes, to_stderr)
            spawner.close()
    except BaseException:
        if found is None:
            folder.stop(where)  # all of it, or nothing
        raise
    outcome = f"it runs in {where}" if found else f"ready after {time.monotonic() - begun:.1f} s"
    to_stderr(f"{outcome}; 'hack/cluster down' ends it")
    # every line for eval "$(hack/cluster up)"
    kubectl = provide(os.environ)["kubectl"]
    print(f"# Kubernetes at {plane.server}, kubeconfig {plane.admin_kubeconfig}")
    print(f"export KUBECONFIG={shlex.quote(str(plane.admin_kubeconfig))}")
    if shutil.which("kubectl") is None:
        print(f'export PATH={shlex.quote(str(kubectl.parent))}:"$PATH"')
    return 0


def _running(where: Path) -> ControlPlane | None:
    """The control plane that runs and is ready in a folder; what is left of one that broke is ended, its data kept."""
    if not (where / "processes.json").exists():
        return None
    plane = ControlPlane.attach(where)
    fault = plane.ready()
    if fault is None:
        return plane
    if any(process.alive() for process in plane.processes):
        to_stderr(f"{fault}: ending what is left of it, then starting it again")
    folder.stop(where)
    return None


def _status(where: Path) -> int:
    """Print what runs; 0 if all of it does and is ready."""
    plane = ControlPlane.attach(where)
    versions = {program.name: program for program in pinned_programs()}
    running = [*plane.processes, *processes.load(where / "hollow.json")]
    for process in running:
        state, version = f"not running ({process.log})", ""
        if process.alive():
            state = f"running, pid {process.pid}"
            if process.name in versions:
                said = version_of(versions[process.name], Path(f"/proc/{process.pid}/exe").readlink())
                version = said.splitlines()[0].rpartition(" ")[2].removeprefix("v") if said else ""
        print(f"{process.name:24} {version:10} {state}")
    fault = plane.ready()
    print(f"API server               {plane.server}: {fault or 'ready'}")
    print(f"kubeconfig               {plane.admin_kubeconfig}")
    return 0 if fault is None and all(process.alive() for process in running) else 1


def _down(where: Path) -> int:
    if not (where / "processes.json").exists():
        to_stderr(f"nothing runs in {where}")
        return 0
    to_stderr(f"ended {len(folder.remove(where))} processes and removed {where}")
    return 0
