"""The command ``hack/bench --plugin``: how long ``kubectl whatsapp`` takes as a whole process, in health and in outages."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from localkube.errors import LocalKubeError
from localkube.figures import P95_FROM, row, summary
from localkube.programs.binaries import provide
from localkube.progress import to_stderr
from localkube.scenarios.bench.failovers import manifest, table
from localkube.scenarios.cluster import NAME, NAMESPACE
from localkube.scenarios.command import Command
from localkube.scenarios.harness import Harness

Obj = dict[str, Any]

READY_S = 120.0
"""Within so long the cluster is ready, and an outage is seen."""
ONE_S = 60.0
"""Within so long a command must end."""


def _kill_operators(harness: Harness) -> None:
    for name, process in [*harness.operators.running.items()]:
        process.signal(signal.SIGKILL)
        harness.forget_operator(name)


class Case(NamedTuple):
    """A command, how it must end, and what happens before."""

    name: str
    what: str
    argv: tuple[str, ...]
    code: int
    says: str
    """A piece of what it must print."""
    goal: float | None
    """Seconds that the p95, or with few samples the longest, must not exceed; None: no promise."""
    before: Callable[[Harness], None] = lambda _: None


CASES = (
    Case("help", "--help: from start to first output", ("--help",), 0, "Commands:", 0.3),
    Case("status", "status", ("status", NAME), 0, "All 2 shards are served; 1 spare could take over.", 0.3),
    Case("why", "why", ("why", NAME), 0, "UpToDate decides.", None),
    Case("operators-dead", "status, all operators killed", ("status", NAME), 2, "no operator leads", 1.2, _kill_operators),
    Case(
        "api-silent",
        "status, API server stopped (SIGSTOP)",
        ("status", NAME),
        3,
        "Nothing is known",
        1.2,
        lambda h: h.plane.apiserver.pause(),
    ),
)
"""In this order, for an outage is not undone."""


@dataclass
class Results:
    """What was measured so far, by case."""

    samples: dict[str, list[float]] = field(default_factory=dict)
    """Seconds."""
    wrong: dict[str, list[str]] = field(default_factory=dict)
    """How a command ended that did not end as it must."""


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
        case.before(harness)
        ends = time.monotonic() + READY_S
        while wrong := run(case)[1]:
            if time.monotonic() > ends:
                raise LocalKubeError(f"{case.name}: not right within {READY_S:g} s; it {wrong}")
        for took, wrong in (run(case) for _ in range(n)):
            (results.wrong if wrong else results.samples).setdefault(case.name, []).append(wrong or took)  # type: ignore[arg-type]
        to_stderr(f"{case.name}: {n} times")
    return results


def figures(results: Results) -> dict[str, Obj]:
    """The figures of each case that was measured."""
    found = ((case, results.samples.get(case.name, []), len(results.wrong.get(case.name, ()))) for case in CASES)
    return {case.name: row(times, wrong, goal=case.goal) | {"what": case.what} for case, times, wrong in found if times or wrong}


def complaints_of(results: Results) -> list[str]:
    """One sentence for each goal that was missed, and for each command that did not end as it must."""
    said = []
    for case in CASES:
        times, wrong = results.samples.get(case.name, []), results.wrong.get(case.name, [])
        said += [f"{case.name}: {text}" for text in wrong]
        if (times or wrong) and (text := summary(times, len(wrong)).complaint(case.goal)):
            said.append(f"{case.name}: {text}")
    return said


def show(results: Results, command: Command, out: Path) -> int:
    """Print and write what was measured; returns the exit status, after a sentence for everything that is not as it must be."""
    found: Mapping[str, Obj] = figures(results)
    command.console.print(table(found))
    return command.write(out, {"cases": found}, complaints_of(results))


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run the command; ``root`` is the repository. Returns 0, 1 after one sentence on standard error, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="hack/bench --plugin", description="How long kubectl whatsapp takes as a whole process.")
    parser.add_argument("--plugin", action="store_true", required=True, help="what is measured")
    parser.add_argument("--n", type=int, default=P95_FROM, help=f"runs of each command (default: {P95_FROM}, the fewest with a p95)")
    parser.add_argument("--dir", type=Path, default=root / "build" / "bench-plugin", help="its folder (default: build/bench-plugin)")
    parser.add_argument(
        "--out", type=Path, default=root / "build" / "bench-plugin.json", help="the figures (default: build/bench-plugin.json)"
    )
    options = parser.parse_args(argv)
    if options.n < 1:
        parser.error("--n must be at least 1")
    command = Command("hack/bench", argv, root=root)
    harness = Harness(options.dir, report=to_stderr)

    def work() -> int:
        with harness.running():
            harness.plane.kubectl("apply", "-n", NAMESPACE, "-f", str(manifest(root, harness.folder)))
            results = measure(plugin(harness), harness, options.n)
        return show(results, command, options.out)

    return command.run(work)
