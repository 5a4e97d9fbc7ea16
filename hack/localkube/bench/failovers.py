"""The command ``hack/bench``: how long failovers take on a real API server, and how many writes they cost."""

from __future__ import annotations

import argparse
import asyncio
import math
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.console import Console
from rich.table import Table

from localkube.bench import resize
from localkube.bench.memory import BEGINNINGS, START_GOAL_MIB, most_mib, too_much
from localkube.demo import faults
from localkube.demo.cluster import Cluster, sentence
from localkube.demo.probe import NotHandedOverError
from localkube.demo.stage import Stage, end_by_any_signal, write_json
from localkube.errors import LocalKubeError
from localkube.figures import BASELINE_S, P95_FROM, clock, percentile, row, summary
from localkube.hollow.kube import KubeError
from localkube.plane.controlplane import Write
from localkube.plane.operators import NAME as OPERATOR
from localkube.plane.operators import NAMESPACE as OPERATOR_NAMESPACE
from localkube.progress import to_stderr
from localkube.provenance import Provenance, is_crowded
from outside.ledger import Ledger

Obj = dict[str, Any]

STEADY_S = 60.0
RESTART_S = 1.0
TRIES = 20
"""So often a fault is made for one sample, when something else happens than what is to be measured."""
OPERATOR_USER = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{OPERATOR}"
NOT_COUNTED = frozenset({"events", "leases"})
STILL_ACTED = "the ended leader itself handed the shard over"
APART = {
    "pod-deleted": "the pod that was deleted served on",
    "container-killed": "the killed container was back before another Coreapp took over",
    "leader-killed": STILL_ACTED,
    "leader-terminated": STILL_ACTED,
}
"""Per case, what makes a sample one of something else; such samples are counted apart."""


RESHARDS = {"grow-1-2": (1, 2), "grow-2-4": (2, 4), "shrink-4-2": (4, 2), "grow-8-16": (8, 16), "shrink-32-16": (32, 16)}
"""Changes of the number of shards that are measured: from, to. In this order the fewest others are needed in between."""


@dataclass(frozen=True)
class Case:
    """One thing that is measured."""

    name: str
    what: str
    goal: float | None
    """Seconds that the p95, or with few samples the longest, must not exceed; None: no promise."""
    baseline: bool = True
    """Whether the vendor's failover is what it is compared with."""


CASES = (
    Case("pod-deleted", "holder's pod deleted -> next message of its shard delivered by another", 0.2),
    Case("container-killed", "holder's container killed -> next message of its shard delivered by another", 0.2),
    Case("leader-killed", "leading operator killed (kill -9) -> new leader hands over a shard that lost its holder then", 5.0),
    Case("leader-terminated", "leading operator ended (SIGTERM) -> new leader hands over a shard that lost its holder then", 0.1),
    *(
        Case(name, f"shards {before} -> {after}: what is added to the client's restart, worst shard", 2.0, baseline=False)
        for name, (before, after) in RESHARDS.items()
    ),
    Case("steady", "writes in 60 s of a cluster to which nothing happens", None, baseline=False),
)


# --------------------------------------------------------------------------------------------------------------- figures


def figures(samples: Mapping[str, Sequence[float]], failures: Mapping[str, int] | None = None) -> dict[str, Obj]:
    """``{case: {n, failures, p50, p95, max, goal, met, ...}}`` of the cases that were measured; ``failures``: how often it did not come."""
    failed = failures or {}
    return {
        case.name: row(samples.get(case.name, ()), failed.get(case.name, 0), goal=case.goal, baseline=case.baseline) | {"what": case.what}
        for case in CASES
        if samples.get(case.name) or failed.get(case.name)
    }


def missed(samples: Mapping[str, Sequence[float]], failures: Mapping[str, int] | None = None) -> list[str]:
    """One sentence for each case that misses its goal."""
    failed = failures or {}
    found = {name: summary(samples.get(name, ()), failed.get(name, 0)) for name in figures(samples, failures)}
    said = {case.name: found[case.name].complaint(case.goal) for case in CASES if case.name in found}
    return [f"{name}: {sentence_}" for name, sentence_ in said.items() if sentence_]


def table(found: Mapping[str, Obj]) -> Table:
    """The figures beside their goals and the vendor's baseline."""
    made = Table(box=box.SIMPLE, title_justify="left")
    made.add_column("case", no_wrap=True)
    for name in ("n", "p50", f"p95 (n >= {P95_FROM})", "max", "goal", f"{BASELINE_S:g} s / p95, else max"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("from -> to")
    for name, one in found.items():
        goal = "" if one["goal"] is None else f"{one['judged_by']} {clock(one['goal'])}{'' if one['met'] else ' MISSED'}"
        p95 = clock(one["p95"]) if "p95" in one else "-"
        made.add_row(name, str(one["n"]), clock(one["p50"]), p95, clock(one["max"]), goal, one.get("ratio", ""), one["what"])
    return made


# ---------------------------------------------------------------------------------------------------------------- writes


def operator_writes(writes: Iterable[Write], begun: float, ended: float) -> list[Write]:
    """The operator's writes that arrived between two times (`time.time()`), Events and Leases apart, refused ones included."""
    return [
        write
        for write in writes
        if write.user == OPERATOR_USER
        and write.resource not in NOT_COUNTED
        and begun <= datetime.fromisoformat(write.at).timestamp() <= ended
    ]


def until_reported(writes: Sequence[Write]) -> int:
    """How many of a failover's writes were made until its first report (a write of a status), that one included."""
    return next((number for number, write in enumerate(writes, 1) if write.subresource == "status"), len(writes))


def spelled(writes: Iterable[Write]) -> str:
    """Which writes, such as ``2 patch pods, 1 patch services``."""
    kinds = Counter(f"{write.verb} {write.resource}{'/' if write.subresource else ''}{write.subresource}" for write in writes)
    return ", ".join(f"{times} {kind}" for kind, times in sorted(kinds.items(), key=lambda one: (-one[1], one[0]))) or "none"


# ------------------------------------------------------------------------------------------------------------- measuring


@dataclass
class Results:
    """What was measured so far."""

    samples: dict[str, list[float]] = field(default_factory=dict)
    details: dict[str, list[Obj]] = field(default_factory=dict)
    windows: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Per case, from the fault to when the cluster was as wanted again (`time.time()`)."""
    failures: Counter[str] = field(default_factory=Counter)
    """Per case, how often the shard was not handed over in time."""
    not_counted: Counter[str] = field(default_factory=Counter)
    """Per case, how often something else happened than what is measured, see APART."""
    memory: dict[str, float] = field(default_factory=dict)
    """The most that an operator held at each beginning, MiB."""
    ledger: Ledger | None = None
    """What became of every message of the run."""
    violations: list[str] = field(default_factory=list)
    """Laws that were broken, as seen from outside."""
    lost: int = 0
    resizes: dict[str, list[resize.Resize]] = field(default_factory=dict)

    def add(self, case: str, seconds: float, detail: Obj, window: tuple[float, float]) -> None:
        """Note one measurement."""
        self.samples.setdefault(case, []).append(seconds)
        self.details.setdefault(case, []).append(detail)
        self.windows.setdefault(case, []).append(window)
        self.lost += int(detail.get("lost", 0))


class Bench:
    """Measures one case after the other on one cluster."""

    def __init__(self, cluster: Cluster, *, n: int, resizes: int, report: Callable[[str], None]) -> None:
        """``n``: how often each failover; ``resizes``: how often each change of the number of shards, which takes longer."""
        self.results = Results()
        self._cluster = cluster
        self._n = n
        self._times = resizes
        self._report = report

    async def run(self, names: Iterable[str]) -> None:
        """Measure the cases of these names, in the order of CASES."""
        chosen = set(names)
        await self._cluster.settle()
        cases: dict[str, Callable[[], Awaitable[None]]] = {
            "pod-deleted": lambda: self._many("pod-deleted", lambda: self._failover("pod-deleted", faults.delete_holder)),
            "container-killed": lambda: self._many("container-killed", lambda: self._failover("container-killed", faults.kill_holder)),
            "leader-killed": lambda: self._many("leader-killed", lambda: self._succession("leader-killed", signal.SIGKILL)),
            "leader-terminated": lambda: self._many("leader-terminated", lambda: self._succession("leader-terminated", signal.SIGTERM)),
            "steady": self._steady,
        }
        for name, measure in cases.items():
            if name in chosen:
                await measure()
        for number in range(1, self._times + 1):
            begun = time.monotonic()
            added = [f"{name} {clock(await self._resize(name, *counts))}" for name, counts in RESHARDS.items() if name in chosen]
            if added:
                self._report(f"shards: round {number} of {self._times}: {', '.join(added)}, {time.monotonic() - begun:.0f} s")

    async def _many(self, name: str, once: Callable[[], Awaitable[float]]) -> None:
        begun = time.monotonic()
        worst = 0.0
        for number in range(1, self._n + 1):
            await faults.random_phase()
            worst = max(worst, await once())
            if number in {1, self._n} or number % 10 == 0:
                self._report(f"{name}: {number} of {self._n}, worst {clock(worst)}, {time.monotonic() - begun:.0f} s")

    async def _failover(self, name: str, fault: Callable[[Cluster, int], Awaitable[faults.Failover]]) -> float:
        for _ in range(TRIES):
            begun = time.time()
            try:
                found = await fault(self._cluster, 0)
            except NotHandedOverError as error:
                return await self._failed(name, error, begun)
            await self._cluster.settle()
            if found.by != found.old.uid:
                self.results.add(name, found.delivered, asdict(found), (found.begun, time.time()))
                return found.delivered
            self._not_counted(name, f"{found.old.pod} was back before anybody took over")
        msg = f"{name}: {TRIES} times in a row {APART[name]}"
        raise LocalKubeError(msg)

    async def _failed(self, name: str, error: NotHandedOverError, begun: float) -> float:
        """Note a failure, which is a sample too; the cluster must be as wanted before the next one."""
        self._report(f"{name}: FAILED: {error}")
        self.results.failures[name] += 1
        await self._cluster.settle()
        self.results.windows.setdefault(name, []).append((begun, time.time()))
        return math.inf

    async def _succession(self, name: str, number: signal.Signals) -> float:
        for _ in range(TRIES):
            begun = time.time()
            try:
                found = await faults.end_leader(self._cluster, number, 0, holder_too=True)
            except NotHandedOverError as error:
                return await self._failed(name, error, begun)
            except faults.StillActedError as error:
                self._not_counted(name, str(error))
                await self._cluster.settle()
            else:
                await self._cluster.settle()
                self.results.add(name, found.acts, asdict(found), (found.begun, time.time()))
                return found.acts
        msg = f"{name}: {TRIES} times in a row {APART[name]}"
        raise LocalKubeError(msg)

    def _not_counted(self, name: str, why: str) -> None:
        self._report(f"{name}: not counted: {why}")
        self.results.not_counted[name] += 1

    async def _resize(self, name: str, before: int, after: int) -> float:
        if self._cluster.status()["shards"] != before:
            await resize.bring_to(self._cluster, before)
        await faults.random_phase()
        found = await resize.resize(self._cluster, after, restart=RESTART_S)
        self.results.add(name, found.added, asdict(found), (found.begun, time.time()))
        self.results.resizes.setdefault(name, []).append(found)
        return found.added

    async def _steady(self) -> None:
        await asyncio.sleep(5.0)  # whatever came late of the last failover
        self._report(f"steady: nothing happens for {STEADY_S:g} s")
        begun = time.time()
        await asyncio.sleep(STEADY_S)
        self.results.windows["steady"] = [(begun, time.time())]


# --------------------------------------------------------------------------------------------------------------- command


def manifest(root: Path, folder: Path) -> Path:
    """The example cluster with a restart of a second, as a file in ``folder``."""
    obj = yaml.safe_load((root / "examples" / "cluster.yaml").read_text(encoding="utf-8"))
    obj["spec"]["client"]["simulator"]["restartSeconds"] = int(RESTART_S)
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(obj), encoding="utf-8")
    return path


def write_figures(results: Results, writes: Sequence[Write]) -> dict[str, Obj]:
    """What each case cost in writes of the operator: per fault how many, and how many until the first report; which the worst one made."""
    said: dict[str, Obj] = {}
    for case, windows in results.windows.items():
        found = [operator_writes(writes, begun, ended) for begun, ended in windows]
        worst = max(found, key=len)
        reported = [until_reported(one) for one in found]
        said[case] = {"writes": [len(one) for one in found], "until_reported": reported, "worst": spelled(worst)}
    return said


def say_writes(found: Mapping[str, Obj], console: Console) -> None:
    """Print what failovers and the steady state cost in writes."""
    for case, one in found.items():
        counts, reported = one["writes"], one["until_reported"]
        if case == "steady":
            console.print(f"steady: {counts[0]} writes of the operator in {STEADY_S:g} s ({one['worst']}); Events and Leases apart")
        else:
            console.print(
                f"{case}: writes p50 {percentile(counts, 0.5):g}, max {max(counts)}, of them until reported p50 "
                f"{percentile(reported, 0.5):g}, max {max(reported)} (most: {one['worst']})"
            )


def restless(found: Mapping[str, Obj]) -> list[str]:
    """A sentence when the operator wrote though nothing happened."""
    steady = found.get("steady")
    if steady is None or not steady["writes"][0]:
        return []
    return [f"steady: {steady['writes'][0]} writes in {STEADY_S:g} s though nothing happened ({steady['worst']}), the goal is none"]


async def _measure(stage: Stage, root: Path, options: argparse.Namespace) -> Results:
    async with Cluster(stage) as cluster:
        bench = Bench(cluster, n=options.n, resizes=options.resizes, report=to_stderr)
        bench.results.memory["no-cluster"] = most_mib(stage.operators().values())
        begun = time.monotonic()
        await cluster.apply(manifest(root, stage.folder))
        await cluster.settle()
        bench.results.memory["one-cluster"] = most_mib(stage.operators().values())
        to_stderr(f"the cluster is ready after {time.monotonic() - begun:.1f} s")
        await bench.run(options.case or [case.name for case in CASES])
        bench.results.violations = [str(one) for one in await asyncio.to_thread(cluster.observer.verify)]
        bench.results.ledger = await cluster.ledger()
        return bench.results


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run the command; ``root`` is the repository. Returns 0, 1 after one sentence on standard error, 130 after Ctrl-C."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="hack/bench", description="How long failovers take, on a real API server.")
    parser.add_argument(
        "--n", type=int, default=P95_FROM, help=f"failovers of each kind (default: {P95_FROM}, the fewest that a p95 is given of)"
    )
    parser.add_argument("--resizes", type=int, help="resizes of each kind (default: an eighth of n: 5)")
    parser.add_argument("--case", action="append", choices=names, help="only this case; may be given several times")
    parser.add_argument("--dir", type=Path, default=root / "build" / "bench", help="folder of the control plane (default: build/bench)")
    parser.add_argument("--out", type=Path, default=root / "build" / "bench.json", help="the figures (default: build/bench.json)")
    options = parser.parse_args(argv)
    options.resizes = max(1, options.n // 8) if options.resizes is None else options.resizes
    if options.n < 1 or options.resizes < 1:
        parser.error("--n and --resizes must be at least 1")
    end_by_any_signal()
    run = Provenance(root, "hack/bench", argv)
    stage = Stage(options.dir, audit_log=True, report=to_stderr)
    console = Console(width=None if sys.stdout.isatty() else 150)
    try:
        stage.up()
        try:
            results = asyncio.run(_measure(stage, root, options))
            writes = stage.plane.writes()
        finally:
            stage.down()
    except (LocalKubeError, KubeError, OSError) as error:
        print(f"hack/bench: {sentence(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("hack/bench: interrupted; all that was started has been ended", file=sys.stderr)
        return 130
    return show(results, writes, run.of_run(), options, console)


def show(results: Results, writes: Sequence[Write], run: Obj, options: argparse.Namespace, console: Console) -> int:
    """Print and write what was measured; returns the exit status, after a sentence for everything that is not as it must be."""
    found = figures(results.samples, results.failures)
    cost = write_figures(results, writes)
    console.print(table(found))
    for name, times in results.not_counted.items():
        console.print(f"{name}: {times} more are not counted: {APART[name]}", highlight=False)
    for name, resizes in results.resizes.items():
        for line in resize.spoken(name, resizes, vendor=BASELINE_S):
            console.print(line, highlight=False)
    say_writes(cost, console)
    for name, mib in results.memory.items():
        late = " MISSED" if mib > START_GOAL_MIB else ""
        console.print(
            f"memory of an operator, {BEGINNINGS[name]}: {mib:.0f} MiB at most, goal {START_GOAL_MIB:g} MiB{late}", highlight=False
        )
    for name, resizes in results.resizes.items():
        found[name] |= resize.figures_of(resizes)
    for name, times in results.not_counted.items():
        found.setdefault(name, {})["not_counted"] = {"times": times, "why": APART[name]}
    ledger = results.ledger
    console.print(f"messages: {ledger or 'not counted'}", highlight=False)
    memory = {name: {"mib": round(mib, 1), "goal": START_GOAL_MIB, "what": BEGINNINGS[name]} for name, mib in results.memory.items()}
    complaints = complaints_of(results, cost)
    about = {"run": run, "complaints": complaints, "baseline_s": BASELINE_S, "steady_s": STEADY_S}
    write_json(options.out, about | {"cases": found, "writes": cost, "memory": memory, "messages": ledger and ledger.as_json()})
    write_json(options.out.with_name(f"{options.out.stem}-details.json"), {"run": run, "samples": results.details})
    console.print(f"figures in {options.out}; baseline: the vendor's {BASELINE_S:g} s until a standby Coreapp is active")
    if is_crowded(run):
        console.print(
            f"The machine was crowded (load {max(run['load'].values()):.1f}): these are the times of such a machine.", highlight=False
        )
    for complaint in complaints:
        print(f"hack/bench: {complaint}", file=sys.stderr)
    return 1 if complaints else 0


def complaints_of(results: Results, cost: Mapping[str, Obj]) -> list[str]:
    """One sentence for everything that is not as it must be."""
    said = missed(results.samples, results.failures)
    said += [f"{name}: {times} times nobody took the shard over in time" for name, times in results.failures.items()]
    said += [f"{results.lost} messages were lost"] if results.lost else []
    said += [f"a law was broken: {violation}" for violation in results.violations]
    said += [fault for name, resizes in results.resizes.items() for fault in resize.faults_of(name, resizes)]
    if (ledger := results.ledger) is None:
        said.append("no message was counted")
    else:
        strangers = f"{ledger.strangers} messages were taken under ids that nobody gave them: they may be doubles"
        said += [*ledger.failures(), *([strangers] if ledger.strangers else [])]
    return said + restless(cost) + too_much(results.memory)
