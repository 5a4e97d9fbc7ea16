"""The command ``hack/bench --plugin``: how long ``kubectl whatsapp`` takes as a whole process, in health and in outages."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from localkube import LocalKubeError, Obj
from localkube.blocks import plugin_block
from localkube.figures import P95_FROM
from localkube.programs.binaries import provide
from localkube.progress import to_stderr
from localkube.scenarios.bench import failovers
from localkube.scenarios.bench.failovers import Measured
from localkube.scenarios.cluster import CLUSTERS, NAME
from localkube.scenarios.command import Command
from localkube.scenarios.harness import Harness
from localkube.scenarios.hollow.environment import manifest

READY_S = 120.0
"""The cluster must be ready, and an outage visible, within this time."""
ONE_S = 60.0
"""How long a command may take."""


def _kill_operators(harness: Harness) -> None:
    for name, process in [*harness.operators.running.items()]:
        process.signal(signal.SIGKILL)
        harness.forget_operator(name)


class Case(NamedTuple):
    """A command, how it must end, and what happens before."""

    of: Measured
    argv: tuple[str, ...]
    code: int
    says: str
    """A piece of what it must print."""
    before: Callable[[Harness], None] = lambda _: None


_measured = partial(Measured, baseline=False)
STATUS = ("status", NAME)
CASES = (
    Case(_measured("help", "--help: from start to first output", 0.3), ("--help",), 0, "Commands:"),
    Case(_measured("status", "status", 0.3), STATUS, 0, "All 2 shards are served; 1 spare could take over."),
    Case(_measured("why", "why", None), ("why", NAME), 0, "UpToDate decides."),
    Case(_measured("operators-dead", "status, all operators killed", 1.2), STATUS, 2, "no operator leads", _kill_operators),
    Case(
        _measured("api-silent", "status, API server stopped (SIGSTOP)", 1.2), STATUS, 3, "Nothing is known",
        lambda h: h.plane.apiserver.pause(),
    ),
)  # fmt: skip
"""In this order, for an outage is not undone."""
MEASURED = [case.of for case in CASES]


@dataclass
class Results:
    """What was measured so far, by case."""

    samples: dict[str, list[float]] = field(default_factory=dict)
    """Seconds."""
    wrong: dict[str, list[str]] = field(default_factory=dict)
    """How a command ended that did not end as it must."""

    @property
    def failures(self) -> dict[str, int]:
        """How often that was."""
        return {name: len(ends) for name, ends in self.wrong.items()}


def plugin(harness: Harness) -> Callable[[Case], tuple[float, str]]:
    """Return what runs a command: it returns the seconds that it took, and how it ended if that was wrong, else an empty text."""
    kept = {key: value for key, value in os.environ.items() if key in {"PATH", "HOME", "LANG"}}  # without a proxy
    source = Path(__file__).parents[4] / "operator"
    programs = {"KUBECTL": str(provide(os.environ)["kubectl"]), "KUBECONFIG": str(harness.plane.admin_kubeconfig)}
    env = {**kept, **programs, "PYTHONPATH": str(source)}

    def run(case: Case) -> tuple[float, str]:
        begun = time.monotonic()
        argv = [sys.executable, "-m", "kubectl_whatsapp", *case.argv]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=ONE_S, check=False)
        took = time.monotonic() - begun
        is_right = done.returncode == case.code and case.says in done.stdout
        return took, "" if is_right else f"ended with {done.returncode}: {' '.join((done.stdout + done.stderr).split())[:200]}"

    return run


def measure(run: Callable[[Case], tuple[float, str]], harness: Harness, n: int, cases: Sequence[Case] = CASES) -> Results:
    """Measure each case so often. LocalKubeError if one never ends as it must."""
    results = Results()
    for case in cases:
        name = case.of.name
        case.before(harness)
        ends = time.monotonic() + READY_S
        while wrong := run(case)[1]:
            if time.monotonic() > ends:
                raise LocalKubeError(f"{name}: not right within {READY_S:g} s; it {wrong}")
        for took, wrong in (run(case) for _ in range(n)):
            (results.wrong if wrong else results.samples).setdefault(name, []).append(wrong or took)  # type: ignore[arg-type]
        to_stderr(f"{name}: {n} times")
    return results


def figures(results: Results) -> dict[str, Obj]:
    """The figures of each case that was measured."""
    return failovers.figures(results.samples, results.failures, MEASURED)


def complaints_of(results: Results) -> list[str]:
    """One sentence for each command that did not end as it must, and for each goal that was missed."""
    said = [f"{name}: {text}" for name, ends in results.wrong.items() for text in ends]
    return said + failovers.missed(results.samples, results.failures, MEASURED)


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run the command; ``root`` is the repository. Returns 0, 1 after one sentence on standard error, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="hack/bench --plugin", description="How long kubectl whatsapp takes as a whole process.")
    parser.add_argument("--plugin", action="store_true", required=True, help="what is measured")
    parser.add_argument("--n", type=int, default=P95_FROM, help=f"runs of each command (default: {P95_FROM}, the fewest with a p95)")
    options = parser.parse_args(argv)
    if options.n < 1:
        parser.error("--n must be at least 1")
    command, folder = Command("hack/bench", argv, root=root), root / "build" / "bench-plugin"
    harness = Harness(folder)

    def work() -> int:
        with harness.running():
            harness.plane.call("POST", CLUSTERS, manifest(NAME))
            results = measure(plugin(harness), harness, options.n)
        return command.write(folder.with_suffix(".json"), {"cases": figures(results)}, complaints_of(results), block=plugin_block)

    return command.run(work)
