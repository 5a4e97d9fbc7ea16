"""The command ``hack/bench --scale``: one operator process with very many clusters: processor, memory, and failovers meanwhile."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from localkube import LocalKubeError, Obj
from localkube.blocks import scale_block
from localkube.figures import P95_FROM, clock, rounded, row, summary
from localkube.hollow.kube import Kube
from localkube.plane.controlplane import Write
from localkube.plane.processes import Process
from localkube.progress import to_stderr
from localkube.scenarios.cluster import GROUP
from localkube.scenarios.command import Command
from localkube.scenarios.cost import memory_mib, operator_writes, spelled
from localkube.scenarios.faults.hollow import named
from localkube.scenarios.harness import Harness
from localkube.scenarios.hollow.environment import HollowEnvironment, SingleCluster
from localkube.scenarios.runner.player import Player
from localkube.scenarios.runner.report import complaints
from localkube.scenarios.scale.crowd import Crowd, items
from localkube.scenarios.scale.objects import SPARES

CPU_GOAL, MEMORY_GOAL_MIB, FAILOVER_GOAL_S = 1.0, 250.0, 2.0
HOLLOW = 5  # clusters whose pods are simulated whole; on them failovers are measured
QUIET_S = 900.0  # the longest that the operator may take until it has observed all clusters and reported
QUIET_WRITES_S = 15.0  # this long without a write counts as quiet
STEADY_S = 90.0  # how long nothing happens
SAMPLE_S, WORST_S, REPORT_S = 0.5, 5.0, 15.0
KINDS = "pod-deleted,container-killed"


@dataclass
class Found:
    """What was measured. Seconds, shares of one core, MiB."""

    clusters: int
    begin_s: float = 0.0  # from the start of the operator until it had reported on all and wrote no more
    begin_cpu_s: float = 0.0
    begin_rss: float = 0.0  # the most resident memory until then
    steady_s: float = STEADY_S
    steady_cpu: float = 0.0
    steady_cpu_worst: float = 0.0  # the worst 5 s of it
    steady_rss: float = 0.0
    steady_writes: int = 0
    steady_wrote: str = ""
    answers_cpu: float = 0.0  # of the process that answers for the pods: not the operator's
    deleted: list[float] = field(default_factory=list)
    killed: list[float] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    ledger: list[str] = field(default_factory=list)  # what may not be in the ledger of all messages, and is
    broken: list[str] = field(default_factory=list)  # what else may never be: a lost message, a wrong failover, a law that was broken
    busy_cpu: float = 0.0  # while failovers were measured
    rss: float = 0.0  # the most resident memory after the beginning
    rss_peak: float = 0.0  # the most resident memory ever, as the kernel says

    @property
    def failovers(self) -> list[float]:
        """All of both kinds."""
        return [*self.deleted, *self.killed]


async def use_of(process: Process, seconds: float) -> tuple[float, float, float]:
    """Watch a process for this long: the share of one core that it used, overall and in the worst 5 s, and its highest resident memory."""
    marks, rss = [(time.monotonic(), process.processor_seconds())], memory_mib(process.pid)
    (begun, spent) = marks[0]
    while time.monotonic() - begun < seconds:
        await asyncio.sleep(SAMPLE_S)
        rss = max(rss, memory_mib(process.pid))
        marks.append((time.monotonic(), process.processor_seconds()))
    return (marks[-1][1] - spent) / (marks[-1][0] - begun), worst_share(marks, WORST_S), rss


def worst_share(marks: Sequence[tuple[float, float]], span: float) -> float:
    """The highest share of a core over any ``span`` seconds of marks (time, processor seconds so far); over all if they are fewer."""
    worst, first = 0.0, 0
    for at, spent in marks:
        while first + 1 < len(marks) and at - marks[first + 1][0] >= span:
            first += 1
        passed = at - marks[first][0]
        if passed > 0 and (passed >= span or (at, spent) == marks[-1]):
            worst = max(worst, (spent - marks[first][1]) / passed)
    return worst


class ScaleBench:
    """Measures in an environment that is up without operators. Use ``run`` once."""

    def __init__(self, harness: Harness, options: argparse.Namespace) -> None:
        self.found = Found(options.scale)
        self._harness, self._options = harness, options
        self._hollow = [f"h{number}" for number in range(min(HOLLOW, options.scale))]
        self._operator: Process | None = None

    @property
    def operator(self) -> Process:
        """The one process that is measured."""
        if self._operator is None or not self._operator.alive():
            raise LocalKubeError(f"the operator does not run. {self._harness.fault()}")
        return self._operator

    async def run(self) -> None:
        """Fill, begin, measure. LocalKubeError."""
        async with AsyncExitStack() as exits:
            environment = await exits.enter_async_context(SingleCluster(self._harness))
            crowd = Crowd(environment, clusters=self._options.scale - len(self._hollow))
            exits.callback(crowd.close)
            await crowd.fill()
            await self._begin(environment)
            await self._steady(crowd)
            async with environment.sending(*self._hollow):
                await self._fail_over(environment)
            self.found.rss_peak = memory_mib(self.operator.pid, "VmHWM")
            for violation in await asyncio.to_thread(environment.whole.verify):
                raise LocalKubeError(f"a law was broken: {violation}")

    async def _begin(self, environment: SingleCluster) -> None:
        """Start the operator and the hollow clusters; return when it has reported on every cluster and writes no more."""
        begun, found = time.monotonic(), self.found
        self._operator = await asyncio.to_thread(self._harness.start_operator)
        await asyncio.to_thread(lambda: self._harness.wait_for_operator(self.operator, timeout=QUIET_S))
        for name in self._hollow:
            await environment.create(name, spares=SPARES)
        reported = time.monotonic()
        while (ready := await _ready(environment.api)) < self._options.scale:
            found.begin_rss = memory_mib(self.operator.pid, "VmHWM")
            if time.monotonic() - begun > QUIET_S:
                msg = f"only {ready} of {self._options.scale} clusters are as wanted after {QUIET_S:g} s; see {self.operator.log}"
                raise LocalKubeError(msg)
            if time.monotonic() - reported > REPORT_S:
                reported = time.monotonic()
                to_stderr(f"{ready} of {self._options.scale} clusters are as wanted, {found.begin_rss:.0f} MiB")
            await asyncio.sleep(1.0)
        found.begin_s, found.begin_cpu_s = time.monotonic() - begun, self.operator.processor_seconds()
        found.begin_rss = memory_mib(self.operator.pid, "VmHWM")
        to_stderr(f"all {ready} clusters are as wanted after {found.begin_s:.0f} s, {found.begin_cpu_s:.0f} s of processor")
        deadline = time.monotonic() + QUIET_S
        while late := await self._writes(time.time() - QUIET_WRITES_S):
            if time.monotonic() > deadline:
                raise LocalKubeError(f"the operator still writes: {spelled(late)}")
            await asyncio.sleep(QUIET_WRITES_S / 3)

    async def _writes(self, since: float) -> list[Write]:
        """The operator's since a time (`time.time()`)."""
        until = time.time()
        return operator_writes(await asyncio.to_thread(self._harness.plane.writes), since, until)

    async def _steady(self, crowd: Crowd) -> None:
        found, answered = self.found, crowd.used()
        to_stderr(f"steady: nothing happens for {STEADY_S:g} s")
        begun = time.time()
        found.steady_cpu, found.steady_cpu_worst, found.steady_rss = await use_of(self.operator, STEADY_S)
        found.answers_cpu = (crowd.used() - answered) / (time.time() - begun)
        writes = await self._writes(begun)
        found.steady_writes, found.steady_wrote = len(writes), spelled(writes)
        to_stderr(
            f"steady: {found.steady_cpu:.2f} of a core (worst 5 s: {found.steady_cpu_worst:.2f}), {found.steady_rss:.0f} MiB, "
            f"{len(writes)} writes"
        )

    async def _fail_over(self, environment: SingleCluster) -> None:
        """Delete and kill holders in turn, cluster after cluster."""
        found, player = self.found, Player[HollowEnvironment](environment, n=1, quiet=True)
        kinds = [(replace(fault, goal=None), times) for fault, times in zip(named(KINDS), (found.deleted, found.killed), strict=True)]
        await environment.settled(*self._hollow)
        begun, spent = time.monotonic(), self.operator.processor_seconds()
        for number in range(self._options.failovers):
            fault, times = kinds[number % 2]
            environment.clusters = (self._hollow[number % len(self._hollow)],)
            outcome = await player.play(fault)
            times += outcome.times
            found.missing += outcome.not_handed_over or [f"shard 0 of {environment.clusters[0]}"] * (not outcome.times)
            found.lost += outcome.lost
            found.doubled += outcome.doubled
            found.broken += complaints(outcome, fault, n=0)
            found.rss = max(found.rss, found.steady_rss, memory_mib(self.operator.pid))
            if number % 5 == 4:
                worst = max(found.failovers, default=0.0)
                to_stderr(f"failovers: {number + 1} of {self._options.failovers}, worst {clock(worst)}")
        found.busy_cpu = (self.operator.processor_seconds() - spent) / (time.monotonic() - begun)
        for name, probe in environment.probes.items():
            found.ledger += [f"{name}: {text}" for text in (await probe.ledger()).failures()]


async def _ready(api: Kube) -> int:
    """How many clusters are reported to be in the desired state."""
    count = 0
    async for item in items(api, f"{GROUP}/whatsappclusters", page=250):
        status = item.get("status") or {}
        states = {one["type"]: one["status"] for one in status.get("conditions") or ()}
        is_ready = (states.get("Ready"), states.get("Reconciling")) == ("True", "False")
        count += is_ready and status.get("failuresTolerated") == SPARES
    return count


# --------------------------------------------------------------------------------------------------------------- command


def rows(found: Found) -> list[tuple[str, float, str, float, str]]:
    """What has a goal: name, figure, the same as people read it, goal, goal as people read it."""
    made = [
        ("operator, steady: processor", found.steady_cpu, f"{found.steady_cpu:.2f} of a core", CPU_GOAL, "1 core"),
        ("operator: resident memory", found.rss, f"{found.rss:.0f} MiB", MEMORY_GOAL_MIB, "250 MiB"),
    ]
    if found.failovers or found.missing:
        of = summary(found.failovers, len(found.missing))
        made.append((f"failover, {of.judged_by}, n = {of.n}", of.judged, clock(of.judged), FAILOVER_GOAL_S, "2 s"))
    return made


def missed(found: Found) -> list[str]:
    """One sentence for each goal that was missed, and for what must never be."""
    said = [f"{name}: {text}, the goal is {goal}" for name, figure, text, limit, goal in rows(found) if figure > limit]
    said += [f"{found.steady_writes} writes in {found.steady_s:g} s without a change: {found.steady_wrote}"] * bool(found.steady_writes)
    said += [f"no next holder delivered for {', '.join(found.missing)}"] * bool(found.missing)
    return said + found.ledger + found.broken


def failover_rows(found: Found) -> dict[str, Obj]:
    """The times of both kinds and of all failovers; those that nobody took over are among all."""
    kinds = {"holder's pod deleted": (found.deleted, 0), "holder's container killed": (found.killed, 0)}
    kinds["both"] = (found.failovers, len(found.missing))
    return {name: row(times, failed, baseline=True) for name, (times, failed) in kinds.items() if times or failed}


def figures(found: Found) -> Obj:
    """Everything that was measured, for a file."""
    goals = {
        name: {"measured": rounded(figure), "text": text, "goal": goal, "met": figure <= limit}
        for name, figure, text, limit, goal in rows(found)
    }
    return {"goals": goals, "failovers": failover_rows(found)} | asdict(found)


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run the command; ``root`` is the repository. Returns 0, 1 after one sentence on standard error, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="hack/bench --scale", description="What one operator process costs with many clusters.")
    parser.add_argument("--scale", type=int, required=True, help="clusters of 2 shards and 3 spares")
    parser.add_argument("--failovers", type=int, default=P95_FROM, help=f"failovers that are measured (default: {P95_FROM})")
    options = parser.parse_args(argv)
    if options.scale < 1 or options.failovers < 1:
        parser.error("--scale and --failovers must be at least 1")
    command, folder = Command("hack/bench", argv, root=root), root / "build" / "bench-scale"
    harness = Harness(folder, audit_log=True)

    def work() -> int:
        try:
            with harness.running(replicas=0):
                bench = ScaleBench(harness, options)
                asyncio.run(bench.run())
        finally:
            shutil.rmtree(folder / "scale", ignore_errors=True)
        return command.write(folder.with_suffix(".json"), figures(bench.found), missed(bench.found), block=scale_block)

    return command.run(work)
