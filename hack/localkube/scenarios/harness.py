"""A control plane, hollow nodes and replicas of the operator in one folder, up and down as one: what demo, bench and chaos run on."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.monitoring.server import PrometheusServer
from localkube.plane import processes
from localkube.plane.controlplane import ControlPlane, free_ports
from localkube.plane.folder import alive, remove, start_nodes
from localkube.plane.operators import Operators
from localkube.plane.processes import Process, Spawner
from localkube.programs.binaries import provide
from localkube.programs.prometheus import prometheus
from localkube.progress import Report, quiet

OPERATOR_S = 60.0
"""So long a start may take on a busy machine; what is measured begins later."""
LOGGED_IN = "on_login"  # in an operator's log as soon as it watches; it campaigns from before


class Harness:
    """Processes in ``folder``, laid out as ``hack/cluster`` does, so that ``hack/cluster status --dir`` shows them too.

    ``up`` starts all or nothing and ``down`` ends and removes all. Unless ``detached`` every process ends with this one, however it ends.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 3,
        detached: bool = False,
        audit_log: bool = False,
        operator_env: Mapping[str, str] | None = None,
        observe: bool = False,
        report: Report = quiet,
    ) -> None:
        """Prepare; nothing is started yet. ``observe``: a Prometheus scrapes the operators."""
        self.folder = folder.absolute()
        self._nodes = nodes
        self._detached, self._audit_log = detached, audit_log
        self._operator_env = dict(operator_env or {})
        self._report = report
        self._plane: ControlPlane | None = None
        self._operators: Operators | None = None
        self._spawner = Spawner(leashed=not detached)
        self._replicas = 0
        self.prometheus = PrometheusServer(self.folder / "prometheus") if observe else None

    # ---- up and down

    def up(self, *, replicas: int = 2) -> None:
        """Start everything and wait until it is ready. LocalKubeError says what failed; nothing is left running then."""
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
        binaries, report = provide(os.environ, report=self._report), self._report
        self._plane = ControlPlane.start(self.folder, binaries=binaries, audit_log=self._audit_log, detached=self._detached, report=report)
        start_nodes(self._plane, self._spawner, self._nodes, report)
        begun = time.monotonic()
        self._operators = Operators(self._plane, self.folder / "operators", env=self._operator_env, leashed=not self._detached)
        self._operators.install()
        if self.prometheus is not None:
            process = self.prometheus.start(prometheus(os.environ, report=report)["prometheus"], self._spawner)
            processes.save(self.folder / "prometheus.json", [process])
            self._report(f"Prometheus runs at {self.prometheus.url} and evaluates the alerts")
        for process in [self.start_operator() for _ in range(replicas)]:
            self.wait_for_operator(process)
        self._report(f"{replicas} operators run after {time.monotonic() - begun:.1f} s, with the rights of their ServiceAccount")

    def down(self) -> None:
        """End what runs, and only that; remove the folder."""
        if self._operators is not None:
            self._operators.close()
        remove(self.folder)
        if self._plane is not None:
            self._plane.stop()  # it takes the exit statuses
        self._spawner.close()

    @contextlib.contextmanager
    def running(self, *, replicas: int = 2) -> Iterator[None]:
        """``up``, and ``down`` at the end of the block."""
        self.up(replicas=replicas)
        try:
            yield
        finally:
            self.down()

    # ---- parts

    @property
    def plane(self) -> ControlPlane:
        """The control plane."""
        if self._plane is None:
            raise LocalKubeError(f"nothing runs in {self.folder} yet")
        return self._plane

    @property
    def operators(self) -> Operators:
        """The replicas of the operator: those that were started and not ended since."""
        if self._operators is None:
            raise LocalKubeError(f"no operator was started in {self.folder} yet")
        return self._operators

    def fault(self) -> str | None:
        """One sentence on a process that ended by itself, None if there is none."""
        running = (*self.plane.processes, *processes.load(self.folder / "hollow.json"), *self.operators.running.values())
        return next((_ended(process) for process in running if not process.alive()), None)

    # ---- operators

    def start_operator(self, *, server: str | None = None, module: str = "whatsapp_operator") -> Process:
        """Start one more replica under a new name; ``server``: the URL under which it is to reach the API server, if not its own.

        ``module``: what Python runs, on the PYTHONPATH of the operator's settings.
        """
        name, env = f"operator-{self._replicas}", {}
        if self.prometheus is not None:
            (port,) = free_ports(1)
            env = {"METRICS_PORT": str(port), "METRICS_HOST": "127.0.0.1"}
            self.prometheus.scrape(name, port)
        process = self.operators.start(name, server=server, module=module, env=env)
        self._replicas += 1
        self._note_operators()
        return process

    def wait_for_operator(self, process: Process, *, timeout: float = OPERATOR_S) -> None:
        """Wait until a replica watches and campaigns. LocalKubeError with its last lines if it ended or did not come so far."""

        def watches() -> bool:
            return process.log.exists() and LOGGED_IN in process.log.read_text(encoding="utf-8", errors="replace")

        processes.wait_until(watches, [process], "to watch the cluster", time.monotonic() + timeout)

    def forget_operator(self, name: str) -> None:
        """Strike off a replica that was ended on purpose."""
        self.operators.running.pop(name, None)
        self._note_operators()

    def _note_operators(self) -> None:
        processes.save(self.folder / "operators.json", self.operators.running.values())


def end_by_any_signal() -> None:
    """From now on SIGTERM and SIGHUP end this process as Ctrl-C does: by KeyboardInterrupt, so that everything is cleaned up.

    Also where SIGINT is ignored, as in a shell script's background.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))


def _ended(process: Process) -> str:
    return f"{process.name} {process.exit_text()}; the end of {process.log}:\n{process.last_lines()}"
