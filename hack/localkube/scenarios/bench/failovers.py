"""The command ``hack/bench``: how long failovers and resizes take on a real API server, and how many writes they cost."""

from __future__ import annotations

import argparse
import asyncio
import signal
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from localkube import Obj
from localkube.blocks import bench_block
from localkube.figures import BASELINE_S, P95_FROM, clock, row, summary
from localkube.files import write_json
from localkube.plane.controlplane import Write
from localkube.progress import to_stderr
from localkube.scenarios import cost
from localkube.scenarios.cluster import NAME
from localkube.scenarios.command import Command
from localkube.scenarios.faults import resize
from localkube.scenarios.faults.hollow import DELETED, DIED, ENDED, named
from localkube.scenarios.faults.succession import STILL_ACTED, Succession, end_leader
from localkube.scenarios.harness import Harness
from localkube.scenarios.hollow.environment import RESTART_S, HollowEnvironment, SingleCluster
from localkube.scenarios.runner.case import Fault
from localkube.scenarios.runner.player import Outcome, Player
from localkube.scenarios.runner.report import complaints
from outside.ledger import Ledger

Samples = Mapping[str, Sequence[float]]
"""Seconds, by case."""

APART = {
    "container-killed": "the killed container was back before another Coreapp took over",
    "leader-killed": STILL_ACTED,
    "leader-terminated": STILL_ACTED,
}
"""Per case, what makes a sample one of something else; such samples are counted apart."""
RESHARDS = {"grow-1-2": (1, 2), "grow-2-4": (2, 4), "shrink-4-2": (4, 2), "grow-8-16": (8, 16), "shrink-32-16": (32, 16)}
"""Changes of the number of shards that are measured: from, to. In this order the fewest others are needed in between."""


class Measured(NamedTuple):
    """One thing that is measured."""

    name: str
    what: str
    goal: float | None  # seconds that the p95, or with few samples the longest, must not exceed; None: no promise
    baseline: bool = True  # whether the vendor's failover is what it is compared with


CASES = (
    Measured("pod-deleted", "holder's pod deleted -> next message of its shard delivered by another", 0.2),
    Measured("container-killed", "holder's container killed -> next message of its shard delivered by another", 0.2),
    Measured("leader-killed", "leading operator killed (kill -9) -> new leader hands over a shard that lost its holder then", 5.0),
    Measured("leader-terminated", "leading operator ended (SIGTERM) -> new leader hands over a shard that lost its holder then", 0.1),
    *(
        Measured(name, f"shards {before} -> {after}: what is added to the client's restart, worst shard", 2.0, baseline=False)
        for name, (before, after) in RESHARDS.items()
    ),
    Measured("steady", f"writes in {cost.STEADY_S:g} s of a cluster to which nothing happens", None, baseline=False),
)


@dataclass
class Results:
    """What was measured so far, by case."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    successions: list[Succession] = field(default_factory=list)
    resizes: dict[str, list[resize.Resize]] = field(default_factory=dict)
    windows: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # from the fault to when all was as wanted (`time.time()`)
    memory: dict[str, float] = field(default_factory=dict)  # the most that an operator held at each beginning, MiB
    ledger: Ledger | None = None  # what became of every message of the run
    broken: list[str] = field(default_factory=list)  # what may never be: a law that was broken, a wrong failover, strange evidence

    @property
    def samples(self) -> dict[str, list[float]]:
        """Seconds."""
        added = {name: [one.added for one in found] for name, found in self.resizes.items()}
        return {name: outcome.times for name, outcome in self.outcomes.items()} | added

    @property
    def details(self) -> Obj:
        """Single measurements, for a file of their own."""
        found = {name: outcome.samples for name, outcome in self.outcomes.items()}
        found |= {name: [asdict(one) for one in resizes] for name, resizes in self.resizes.items()}
        return {"samples": found, "successions": [asdict(one) for one in self.successions]}

    @property
    def failures(self) -> dict[str, int]:
        """How often a shard was not handed over in time."""
        return {name: len(outcome.not_handed_over) for name, outcome in self.outcomes.items()}

    @property
    def not_counted(self) -> dict[str, int]:
        """How often something else happened than what is measured, see APART."""
        counts = {name: len(outcome.resumed) + len(outcome.notes) for name, outcome in self.outcomes.items()}
        return {name: count for name, count in counts.items() if count}


def faults(found: list[Succession]) -> tuple[Fault[HollowEnvironment], ...]:
    """What is played for the cases of failovers; those of chaos' own table where it is the next message that counts."""
    expected: Obj = {"everybody": True, "evidence": DELETED | DIED, "effects": ENDED}
    ends = {"leader-killed": signal.SIGKILL, "leader-terminated": signal.SIGTERM}
    leaders = (Fault(name, "", end_leader(number, 0, found, holder_too=True), **expected) for name, number in ends.items())
    return (*named("pod-deleted,container-killed"), *leaders)


class Bench:
    """Measures one case after the other on one cluster."""

    def __init__(self, environment: SingleCluster, *, n: int, resizes: int) -> None:
        """``n``: how often each failover; ``resizes``: how often each change of the number of shards, which takes longer."""
        self.results = Results()
        self._environment, self._n, self._resizes = environment, n, resizes

    async def run(self, names: Collection[str]) -> None:
        """Measure the cases of these names: failovers, the steady state, resizes."""
        for fault in faults(self.results.successions):
            if fault.name in names:
                await self._fail_over(fault)
        with self._environment.probes[NAME].pace(0.0):
            if "steady" in names:
                await self._steady()
            for number in range(1, self._resizes + 1):
                begun = time.monotonic()
                added = [f"{name} {clock(await self._resize(name, *counts))}" for name, counts in RESHARDS.items() if name in names]
                if added:
                    spent = f"{time.monotonic() - begun:.0f} s"
                    to_stderr(f"shards: round {number} of {self._resizes}: {', '.join(added)}, {spent}")

    async def _fail_over(self, fault: Fault[HollowEnvironment]) -> None:
        results, player = self.results, Player[HollowEnvironment](self._environment, n=self._n)
        (outcome,) = await player.play_in_turn([fault])
        results.outcomes[fault.name] = outcome
        results.broken += complaints(outcome, replace(fault, goal=None), n=self._n)
        # A play that broke off has no window, and is a complaint.
        results.windows[fault.name] = [one["window"] for one in outcome.samples if "window" in one and "resumed" not in one]

    async def _resize(self, name: str, before: int, after: int) -> float:
        environment, results = self._environment, self.results
        if environment.status(NAME)["shards"] != before:
            await environment.resize([NAME], before, resize.RESIZE_S)
        found = await resize.resize(environment, NAME, after, restart=RESTART_S)
        results.resizes.setdefault(name, []).append(found)
        results.windows.setdefault(name, []).append((found.begun, time.time()))
        return found.added

    async def _steady(self) -> None:
        await asyncio.sleep(5.0)  # for what comes late of the last failover
        to_stderr(f"steady: nothing happens for {cost.STEADY_S:g} s")
        begun = time.time()
        await asyncio.sleep(cost.STEADY_S)
        self.results.windows["steady"] = [(begun, time.time())]


# --------------------------------------------------------------------------------------------------------------- figures


def figures(samples: Samples, failures: Mapping[str, int], cases: Sequence[Measured] = CASES) -> dict[str, Obj]:
    """``{case: {n, failures, p50, p95, max, goal, met, ...}}`` of the cases that were measured; ``failures``: how often it did not come."""
    found = ((case, samples.get(case.name, ()), failures.get(case.name, 0)) for case in cases)
    return {
        case.name: row(times, failed, goal=case.goal, baseline=case.baseline) | {"what": case.what}
        for case, times, failed in found
        if times or failed
    }


def missed(samples: Samples, failures: Mapping[str, int], cases: Sequence[Measured] = CASES) -> list[str]:
    """One sentence for each case that misses its goal."""
    found = {name: summary(samples.get(name, ()), failures.get(name, 0)) for name in figures(samples, failures, cases)}
    said = {case.name: found[case.name].complaint(case.goal) for case in cases if case.name in found}
    return [f"{name}: {text}" for name, text in said.items() if text]


def complaints_of(results: Results, spent: Mapping[str, Obj]) -> list[str]:
    """One sentence for everything that is not as it must be."""
    said = missed(results.samples, results.failures) + results.broken
    said += [text for name, resizes in results.resizes.items() for text in resize.broken(name, resizes)]
    said += ["no message was counted"] if results.ledger is None else results.ledger.failures()
    if results.ledger is not None and (strangers := results.ledger.strangers):
        said.append(f"{strangers} messages were taken under ids that no sender of this run used: they may be doubles")
    return said + cost.restless(spent) + cost.too_much(results.memory)


def written(results: Results, writes: Sequence[Write], command: Command, out: Path) -> int:
    """Write and print what was measured; returns the exit status, after a sentence for everything that is not as it must be."""
    found, spent = figures(results.samples, results.failures), cost.of(results.windows, writes)
    for name, times in results.not_counted.items():
        found.setdefault(name, {})["not_counted"] = {"times": times, "why": APART[name]}
    for name, resizes in results.resizes.items():
        found[name] |= resize.figures(resizes)
    held = {
        name: {"mib": round(mib, 1), "goal": cost.START_GOAL_MIB, "what": cost.BEGINNINGS[name]} for name, mib in results.memory.items()
    }
    write_json(out.with_name(f"{out.stem}-details.json"), {"run": command.provenance.of_run(), **results.details})
    about = {"baseline_s": BASELINE_S, "steady_s": cost.STEADY_S, "cases": found, "writes": spent, "memory": held}
    about["messages"] = results.ledger and results.ledger.as_json()
    return command.write(out, about, complaints_of(results, spent), block=bench_block)


# --------------------------------------------------------------------------------------------------------------- command


async def measure(harness: Harness, options: argparse.Namespace) -> Results:
    """Measure everything that was requested. LocalKubeError."""
    async with SingleCluster(harness) as environment:
        bench = Bench(environment, n=options.n, resizes=options.resizes)
        results, begun = bench.results, time.monotonic()
        results.memory["no-cluster"] = cost.most_mib(harness.operators.running.values())
        await environment.create(NAME)
        await environment.settled(NAME)
        results.memory["one-cluster"] = cost.most_mib(harness.operators.running.values())
        to_stderr(f"the cluster is ready after {time.monotonic() - begun:.1f} s")
        async with environment.sending(NAME):
            await bench.run(options.case or [case.name for case in CASES])
            results.ledger = await environment.probes[NAME].ledger()
        results.broken += [f"a law was broken: {one}" for one in await asyncio.to_thread(environment.whole.verify)]
    return results


def parsed(argv: Sequence[str], root: Path) -> argparse.Namespace:
    """The options; ends the process with a sentence when they cannot be understood."""
    parser = argparse.ArgumentParser(prog="hack/bench", description="How long failovers take, on a real API server.")
    parser.add_argument("--n", type=int, default=P95_FROM, help=f"failovers of each kind (default: {P95_FROM}, the fewest with a p95)")
    parser.add_argument("--resizes", type=int, help="resizes of each kind (default: an eighth of n: 5)")
    names = [case.name for case in CASES]
    parser.add_argument("--case", action="append", choices=names, help="only this case; may be given several times")
    parser.add_argument("--dir", type=Path, default=root / "build" / "bench", help="folder of the control plane (default: build/bench)")
    parser.add_argument("--out", type=Path, default=root / "build" / "bench.json", help="the figures (default: build/bench.json)")
    options = parser.parse_args(argv)
    options.resizes = max(1, options.n // 8) if options.resizes is None else options.resizes
    if options.n < 1 or options.resizes < 1:
        parser.error("--n and --resizes must be at least 1")
    return options


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run the command; ``root`` is the repository. Returns 0, 1 after one sentence on standard error, 130 after Ctrl-C."""
    options = parsed(argv, root)
    command = Command("hack/bench", argv, root=root)
    harness = Harness(options.dir, audit_log=True)

    def work() -> int:
        with harness.running():
            results = asyncio.run(measure(harness, options))
            writes = harness.plane.writes()
        return written(results, writes, command, options.out)

    return command.run(work)
