"""A control plane, hollow nodes and replicas of the operator in one folder, started and stopped together: demo, bench and chaos use it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.hollow.control import ADDRESS_FILE
from localkube.monitoring.server import PrometheusServer
from localkube.plane import controlplane, processes
from localkube.plane.controlplane import ControlPlane, free_ports
from localkube.plane.operators import REPOSITORY, Operators
from localkube.plane.processes import Process
from localkube.programs.binaries import provide
from localkube.programs.prometheus import prometheus
from localkube.progress import to_stderr

PARTS = ("operators", "prometheus", "hollow")
"""The parts that talk to the API server and therefore end before it: each has a record NAME.json, and a folder."""
NODES_S = 30.0
OPERATOR_S = 60.0
"""How long a start may take on a busy machine; measurements begin later."""
LOGGED_IN = "on_login"  # in an operator's log as soon as it watches; it campaigns from before


@dataclass
class Harness:
    """Processes in ``folder``: ``up`` starts all or nothing, ``down`` ends and removes all.

    Unless ``detached`` every process ends with this one, however it ends.
    """

    folder: Path
    _: KW_ONLY
    nodes: int = 3
    detached: bool = False
    audit_log: bool = False
    observe: bool = False  # a Prometheus scrapes the operators
    plane: ControlPlane = field(init=False)  # from ``up`` on
    operators: Operators = field(init=False)  # the same: the replicas that were started and not ended since

    def __post_init__(self) -> None:
        self.folder = self.folder.absolute()
        self.prometheus = PrometheusServer(self.folder / "prometheus") if self.observe else None
        self._exits = contextlib.ExitStack()
        self._replicas = 0

    # ---- up and down

    def up(self, *, replicas: int = 2) -> None:
        """Start everything and wait until it is ready. LocalKubeError says what failed; in that case nothing is left running."""
        if running := alive(self.folder):
            names = ", ".join(f"{process.name} (pid {process.pid})" for process in running)
            raise LocalKubeError(f"one runs already in {self.folder}: {names}")
        remove(self.folder)
        try:
            self._up(replicas)
        except BaseException:
            self.down()
            raise

    def _up(self, replicas: int) -> None:
        binaries = provide(os.environ)
        self.plane = ControlPlane.start(self.folder, binaries=binaries, audit_log=self.audit_log, detached=self.detached)
        self._exits.callback(self.plane.stop)
        self._start_nodes()
        begun = time.monotonic()
        self.operators = Operators(self.plane, self.folder / "operators", leashed=not self.detached)
        self._exits.callback(self.operators.close)
        self.operators.install()
        if self.prometheus is not None:
            process = self.prometheus.start(prometheus(os.environ)["prometheus"], leashed=not self.detached)
            processes.save(self.folder / "prometheus.json", [process])
            to_stderr(f"Prometheus runs at {self.prometheus.url} and evaluates the alerts")
        for process in [self.start_operator() for _ in range(replicas)]:
            self.wait_for_operator(process)
        to_stderr(f"{replicas} operators run after {time.monotonic() - begun:.1f} s, with the rights of their ServiceAccount")

    def _start_nodes(self) -> None:
        """Start the process that plays hollow nodes, and wait until they are ready. LocalKubeError."""
        begun, ready = time.monotonic(), self.folder / "hollow" / ADDRESS_FILE
        options = {"kubeconfig": self.plane.admin_kubeconfig, "nodes": self.nodes, "folder": ready.parent}
        log = self.folder / "logs" / "hollow.log"
        process = start_module("hollow nodes", "localkube.hollow", options, folder=self.folder, log=log, leashed=not self.detached)
        processes.save(self.folder / "hollow.json", [process])
        processes.wait_until(ready.exists, [process], "to be ready", begun + NODES_S)
        to_stderr(f"{self.nodes} hollow nodes are ready after {time.monotonic() - begun:.1f} s")

    def down(self) -> None:
        """End what runs, and only that; remove the folder."""
        with self._exits:  # what was started here takes the exit statuses
            remove(self.folder)

    @contextlib.contextmanager
    def running(self, *, replicas: int = 2) -> Iterator[None]:
        """``up``, and ``down`` at the end of the block."""
        self.up(replicas=replicas)
        try:
            yield
        finally:
            self.down()

    def fault(self) -> str:
        """One sentence on a process that ended by itself, empty if there is none."""
        for one in (*self.plane.processes, *processes.load(self.folder / "hollow.json"), *self.operators.running.values()):
            if not one.alive():
                return f"{one.name} {one.exit_text()}; the end of {one.log}:\n{one.last_lines()}"
        return ""

    # ---- operators

    def start_operator(self, *, server: str | None = None, module: str = "whatsapp_operator") -> Process:
        """Start one more replica under a new name; ``server``: the URL under which it is to reach the API server, if not its own.

        ``module``: what Python runs, also one of this folder hack/.
        """
        name, env = f"operator-{self._replicas}", {"PYTHONPATH": os.pathsep.join(str(REPOSITORY / part) for part in ("operator", "hack"))}
        if self.prometheus is not None:
            (port,) = free_ports(1)
            env |= {"METRICS_PORT": str(port), "METRICS_HOST": "127.0.0.1"}
            self.prometheus.scrape(name, port)
        process = self.operators.start(name, server=server, module=module, env=env)
        self._replicas += 1
        self._note_operators()
        return process

    def wait_for_operator(self, process: Process, *, timeout: float = OPERATOR_S) -> None:
        """Wait until a replica watches and campaigns. LocalKubeError with its last lines if it ended or did not get that far."""

        def watches() -> bool:
            return process.log.exists() and LOGGED_IN in process.log.read_text(encoding="utf-8", errors="replace")

        processes.wait_until(watches, [process], "to watch the cluster", time.monotonic() + timeout)

    def forget_operator(self, name: str) -> None:
        """Forget a replica that was ended on purpose."""
        self.operators.running.pop(name, None)
        self._note_operators()

    def _note_operators(self) -> None:
        processes.save(self.folder / "operators.json", self.operators.running.values())


# ---- what runs in a folder, each part known by a record of its processes


def start_module(name: str, module: str, options: Mapping[str, object], *, folder: Path, log: Path, leashed: bool = True) -> Process:
    """Start a module of this repository as a process of its own, with these options of its command line."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(REPOSITORY / part) for part in ("hack", "operator", "tests"))}
    words = [word for option, value in options.items() for word in (f"--{option}", str(value))]
    return processes.start(name, [sys.executable, "-m", module, *words], folder=folder, log=log, env=env, leashed=leashed)


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
    with contextlib.suppress(OSError):
        folder.rmdir()
    return ended


def end_by_any_signal() -> None:
    """From now on, SIGTERM and SIGHUP end this process like Ctrl-C: with KeyboardInterrupt, so that everything is cleaned up.

    This also works where SIGINT is ignored, as in the background of a shell script.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
