"""The command ``hack/bench``: how long failovers take on a real API server, and how many writes they cost."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
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
from localkube.demo import faults
from localkube.demo.cluster import Cluster, sentence
from localkube.demo.stage import Stage, end_by_any_signal, write_json
from localkube.errors import LocalKubeError
from localkube.figures import BASELINE_S, percentile, ratio
from localkube.hollow.kube import KubeError
from localkube.plane.controlplane import Write
from localkube.plane.operators import NAME as OPERATOR
from localkube.plane.operators import NAMESPACE as OPERATOR_NAMESPACE
from localkube.progress import to_stderr

Obj = dict[str, Any]

STEADY_S = 60.0
RESTART_S = 1.0
OPERATOR_USER = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{OPERATOR}"
NOT_COUNTED = frozenset({"events", "leases"})


RESHARDS = {"grow-1-2": (1, 2), "grow-2-4": (2, 4), "shrink-4-2": (4, 2), "grow-8-16": (8, 16), "shrink-32-16": (32, 16)}
"""Changes of the number of shards that are measured: from, to. In this order the fewest others are needed in between."""


@dataclass(frozen=True)
class Case:
    """One thing that is measured."""

    name: str
    what: str
    goal: float | None
    """p95 in seconds that it must not exceed; None: no promise."""
    baseline: bool = True
    """Whether the vendor's failover is what it is compared with."""


CASES = (
    Case("pod-deleted", "holder's pod deleted -> next message of its shard delivered by another", 0.2),
    Case("container-killed", "holder's container killed -> next message of its shard delivered", 0.2),
    Case("leader-killed", "leading operator killed (kill -9) -> new leader hands over a shard that lost its holder then", 5.0),
    Case("leader-terminated", "leading operator ended (SIGTERM) -> new leader hands over a shard that lost its holder then", 0.1),
    *(
        Case(name, f"shards {before} -> {after}: what is added to the client's restart, worst shard", 2.0, baseline=False)
        for name, (before, after) in RESHARDS.items()
    ),
    Case("steady", "writes in 60 s of a cluster to which nothing happens", None, baseline=False),
)


# --------------------------------------------------------------------------------------------------------------- figures


def figures(samples: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """``{case: {n, p50, p95, max}}`` of the cases that have samples; seconds, to the tenth of a millisecond."""
    return {
        case: {
            "n": len(times),
            "p50": round(percentile(times, 0.5), 4),
            "p95": round(percentile(times, 0.95), 4),
            "max": round(max(times), 4),
        }
        for case, times in samples.items()
        if times
    }


def missed(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """One sentence for each case whose p95 exceeds its goal."""
    return [
        f"{case.name}: p95 is {found[case.name]['p95']:.3f} s, the goal is {case.goal:g} s"
        for case in CASES
        if case.goal is not None and case.name in found and found[case.name]["p95"] > case.goal
    ]


def clock(seconds: float) -> str:
    """Seconds as people read them: milliseconds below one."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def table(found: Mapping[str, Mapping[str, float]]) -> Table:
    """The figures beside their goals and the vendor's baseline."""
    made = Table(box=box.SIMPLE, title_justify="left")
    made.add_column("case", no_wrap=True)
    for name in ("n", "p50", "p95", "max", "goal (p95)", f"{BASELINE_S:g} s / p95"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("from -> to")
    for case in CASES:
        if case.name in found:
            one = found[case.name]
            goal = "" if case.goal is None else f"{clock(case.goal)}{'' if one['p95'] <= case.goal else ' MISSED'}"
            against = ratio(one["p95"]) if case.baseline else ""
            made.add_row(case.name, str(int(one["n"])), clock(one["p50"]), clock(one["p95"]), clock(one["max"]), goal, against, case.what)
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
        found = await fault(self._cluster, 0)
        await self._cluster.settle()
        self.results.add(name, found.delivered, asdict(found), (found.begun, time.time()))
        return found.delivered

    async def _succession(self, name: str, number: signal.Signals) -> float:
        while True:
            try:
                found = await faults.end_leader(self._cluster, number, 0, holder_too=True)
                break
            except faults.StillActedError as error:
                self._report(f"{name}: once more, {error}")
                await self._cluster.settle()
        await self._cluster.settle()
        self.results.add(name, found.acts, asdict(found), (found.begun, time.time()))
        return found.acts

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


def say_writes(results: Results, writes: Sequence[Write], console: Console) -> Obj:
    """Print what failovers and the steady state cost in writes; returns it for a file."""
    said: Obj = {}
    for case, windows in results.windows.items():
        found = [operator_writes(writes, begun, ended) for begun, ended in windows]
        counts = [len(one) for one in found]
        reported = [until_reported(one) for one in found]
        worst = max(found, key=len)
        said[case] = {"writes": counts, "until_reported": reported, "worst": spelled(worst)}
        if case == "steady":
            console.print(f"steady: {counts[0]} writes of the operator in {STEADY_S:g} s ({spelled(worst)}); Events and Leases apart")
        else:
            console.print(
                f"{case}: writes p50 {percentile(counts, 0.5):g}, max {max(counts)}, of them until reported p50 "
                f"{percentile(reported, 0.5):g}, max {max(reported)} (most: {spelled(worst)})"
            )
    return said


async def _measure(stage: Stage, root: Path, options: argparse.Namespace) -> Results:
    async with Cluster(stage) as cluster:
        begun = time.monotonic()
        await cluster.apply(manifest(root, stage.folder))
        await cluster.settle()
        to_stderr(f"the cluster is ready after {time.monotonic() - begun:.1f} s")
        bench = Bench(cluster, n=options.n, resizes=options.resizes, report=to_stderr)
        try:
            await bench.run(options.case or [case.name for case in CASES])
        finally:
            options.results = bench.results
        for violation in await asyncio.to_thread(cluster.observer.verify):
            msg = f"a law was broken: {violation}"
            raise LocalKubeError(msg)
        audit = await cluster.upstream("audit")
        if audit["two_holders"] or audit["doubled"]:
            msg = (
                f"by the log of the WhatsApp servers a shard had two holders {audit['two_holders']} times, {audit['doubled']} were doubled"
            )
            raise LocalKubeError(msg)
        return bench.results


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run the command; ``root`` is the repository. Returns 0, 1 after one sentence on standard error, 130 after Ctrl-C."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="hack/bench", description="How long failovers take, on a real API server.")
    parser.add_argument("--n", type=int, default=30, help="failovers of each kind (default: 30)")
    parser.add_argument("--resizes", type=int, help="resizes of each kind (default: a sixth of n: 5)")
    parser.add_argument("--case", action="append", choices=names, help="only this case; may be given several times")
    parser.add_argument("--dir", type=Path, default=root / "build" / "bench", help="folder of the control plane (default: build/bench)")
    parser.add_argument("--out", type=Path, default=root / "build" / "bench.json", help="the figures (default: build/bench.json)")
    options = parser.parse_args(argv)
    options.resizes = max(1, options.n // 6) if options.resizes is None else options.resizes
    if options.n < 1 or options.resizes < 1:
        parser.error("--n and --resizes must be at least 1")
    end_by_any_signal()
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
    found = figures(results.samples)
    console.print(table(found))
    for name, resizes in results.resizes.items():
        for line in resize.spoken(name, resizes, vendor=BASELINE_S):
            console.print(line, highlight=False)
    said = say_writes(results, writes, console)
    write_json(options.out, found | {name: found[name] | resize.figures_of(resizes) for name, resizes in results.resizes.items()})
    load, cpus = os.getloadavg()[1], os.cpu_count() or 1
    machine = {"load": round(load, 2), "cpus": cpus, "python": platform.python_version(), "system": platform.platform()}
    details = {"baseline_s": BASELINE_S, "machine": machine, "writes": said, "samples": results.details}
    write_json(options.out.with_name(f"{options.out.stem}-details.json"), details)
    console.print(f"figures in {options.out}; baseline: the vendor's {BASELINE_S:g} s until a standby Coreapp is active")
    if load > cpus * 1.2:
        console.print(
            f"The machine was crowded (load {load:.1f} on {cpus} CPUs): these are the times of a crowded machine.", highlight=False
        )
    complaints = missed(found) + ([f"{results.lost} messages were lost"] if results.lost else [])
    complaints += [fault for name, resizes in results.resizes.items() for fault in resize.faults_of(name, resizes)]
    for complaint in complaints:
        print(f"hack/bench: {complaint}", file=sys.stderr)
    return 1 if complaints else 0
