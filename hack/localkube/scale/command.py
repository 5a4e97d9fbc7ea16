"""The part of ``hack/bench`` that measures one operator process with very many clusters: processor, memory, and failovers meanwhile."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from localkube.bench.failovers import operator_writes, spelled
from localkube.bench.memory import memory_mib
from localkube.chaos.stage import manifest, processor_seconds
from localkube.chaos.traffic import Stream, first_taken
from localkube.demo.cluster import GROUP, NAMESPACE, Api, Holder, is_settled, sentence
from localkube.demo.stage import Stage, end_by_any_signal, write_json
from localkube.errors import LocalKubeError
from localkube.figures import BASELINE_S, P95_FROM, clock, rounded, row, summary
from localkube.hollow.control import HollowControl
from localkube.hollow.kube import KubeError
from localkube.outside.observer import Observer
from localkube.plane import kubeconfig
from localkube.plane.processes import Process
from localkube.progress import Report, to_stderr
from localkube.provenance import Provenance
from localkube.scale.objects import COREAPPS, SHARDS, SPARES
from localkube.scale.stage import Crowd

Obj = dict[str, Any]

CPU_GOAL, MEMORY_GOAL_MIB, FAILOVER_GOAL_S = 1.0, 250.0, 2.0
HOLLOW = 5
"""Clusters whose pods are simulated whole; on them failovers are measured."""
QUIET_S = 900.0
"""The longest that the operator may take until it has looked at all clusters and reported."""
SAMPLE_S = 0.5
QUIET_WRITES_S = 15.0
"""So long without a write counts as quiet."""
SETTLE_S = 120.0
FAILOVER_S = 30.0


@dataclass
class Found:
    """What was measured. Seconds, shares of one core, MiB."""

    clusters: int
    begin_s: float = 0.0
    """From the start of the operator until it had reported on all and wrote no more."""
    begin_cpu_s: float = 0.0
    begin_rss: float = 0.0
    """The most resident memory until then."""
    steady_s: float = 0.0
    steady_cpu: float = 0.0
    steady_cpu_worst: float = 0.0
    """The worst 5 s of it."""
    steady_rss: float = 0.0
    steady_writes: int = 0
    steady_wrote: str = ""
    answers_cpu: float = 0.0
    """Of the process that answers for the pods: not the operator's."""
    deleted: list[float] = field(default_factory=list)
    killed: list[float] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    two_holders: int = 0
    """How often the WhatsApp servers' log shows two holders of a shard."""
    ledger: list[str] = field(default_factory=list)
    """What may not be in the ledger of all messages, and is."""
    busy_cpu: float = 0.0
    """While failovers were measured."""
    rss: float = 0.0
    """The most resident memory after the beginning."""
    rss_peak: float = 0.0
    """The most resident memory ever, as the kernel says."""

    @property
    def failovers(self) -> list[float]:
        """All of both kinds."""
        return [*self.deleted, *self.killed]


# --------------------------------------------------------------------------------------------------------------- process


@dataclass(frozen=True, slots=True)
class Used:
    """What a process used over a span."""

    cpu: float
    """Shares of one core."""
    worst: float
    """The worst 5 s."""
    rss: float


async def use_of(process: Process, seconds: float) -> Used:
    """Look at a process for so long."""
    begun, spent = time.monotonic(), processor_seconds(process)
    marks = [(begun, spent)]
    rss = memory_mib(process.pid)
    while time.monotonic() - begun < seconds:
        await asyncio.sleep(SAMPLE_S)
        rss = max(rss, memory_mib(process.pid))
        marks.append((time.monotonic(), processor_seconds(process)))
    worst = worst_share(marks, 5.0)
    return Used((marks[-1][1] - spent) / (marks[-1][0] - begun), worst, rss)


def worst_share(marks: Sequence[tuple[float, float]], span: float) -> float:
    """The highest share of a core over any ``span`` seconds of marks (time, processor seconds so far); over all if they are fewer."""
    worst, first = 0.0, 0
    for at, spent in marks:
        while first + 1 < len(marks) and at - marks[first + 1][0] >= span:
            first += 1
        if at - marks[first][0] >= span or (at, spent) == marks[-1]:
            passed = at - marks[first][0]
            worst = max(worst, (spent - marks[first][1]) / passed if passed > 0 else 0.0)
    return worst


# ------------------------------------------------------------------------------------------------------------- measuring


class ScaleBench:
    """Measures on a stage that is up without operators. Use ``run`` once."""

    def __init__(self, stage: Stage, options: argparse.Namespace, report: Report) -> None:
        """Prepare."""
        self.found = Found(options.scale)
        self._stage, self._options, self._report = stage, options, report
        self._hollow = [f"h{number}" for number in range(min(HOLLOW, options.scale))]
        self._api = Api(kubeconfig.read(stage.plane.admin_kubeconfig))
        self._control = HollowControl.of(stage.folder / "hollow")
        self._observer = Observer(stage.plane.admin_kubeconfig, NAMESPACE)
        self._streams: dict[str, Stream] = {}
        self._operator: Process | None = None

    @property
    def operator(self) -> Process:
        """The one process that is measured."""
        if self._operator is None or not self._operator.alive():
            msg = f"the operator does not run. {self._stage.fault() or ''}"
            raise LocalKubeError(msg)
        return self._operator

    async def run(self) -> None:
        """Fill, begin, measure. LocalKubeError, KubeError."""
        async with AsyncExitStack() as exits:
            await exits.enter_async_context(self._api)
            await exits.enter_async_context(self._control)
            crowd = Crowd(self._stage, self._api, clusters=self._options.scale - len(self._hollow), report=self._report)
            exits.callback(crowd.close)
            await crowd.fill()
            await self._begin()
            await asyncio.to_thread(self._observer.__enter__)
            exits.callback(self._observer.__exit__, KeyboardInterrupt)  # whether it saw all is asked of it before
            await self._steady(crowd)
            await self._fail_over(exits)
            self.found.rss_peak = memory_mib(self.operator.pid, "VmHWM")
            for violation in await asyncio.to_thread(self._observer.verify):
                msg = f"a law was broken: {violation}"
                raise LocalKubeError(msg)

    async def _begin(self) -> None:
        """Start the operator and the hollow clusters; return when it has reported on every cluster and writes no more."""
        begun = time.monotonic()
        self._operator = await asyncio.to_thread(self._stage.start_operator)
        await asyncio.to_thread(lambda: self._stage.wait_for_operator(self.operator, timeout=QUIET_S))
        for name in self._hollow:
            obj = manifest(name)
            obj["spec"]["spares"] = SPARES
            await self._api.post(f"{GROUP}/namespaces/{NAMESPACE}/whatsappclusters", obj)
        said = time.monotonic()
        while (ready := await self._ready()) < self._options.scale:
            self.found.begin_rss = max(self.found.begin_rss, memory_mib(self.operator.pid))
            if time.monotonic() - begun > QUIET_S:
                msg = f"only {ready} of {self._options.scale} clusters are as wanted after {QUIET_S:g} s; see {self.operator.log}"
                raise LocalKubeError(msg)
            if time.monotonic() - said > 15:
                said = time.monotonic()
                self._report(f"{ready} of {self._options.scale} clusters are as wanted, {self.found.begin_rss:.0f} MiB")
            await asyncio.sleep(1.0)
        self.found.begin_s = time.monotonic() - begun
        self.found.begin_cpu_s = processor_seconds(self.operator)
        self.found.begin_rss = memory_mib(self.operator.pid, "VmHWM")
        self._report(f"all {ready} clusters are as wanted after {self.found.begin_s:.0f} s, {self.found.begin_cpu_s:.0f} s of processor")
        await self._quiet()

    async def _ready(self) -> int:
        """How many clusters are reported to be as wanted."""
        count, token = 0, ""
        while True:
            page = await self._api.get(f"{GROUP}/whatsappclusters?limit=250&continue={token}") or {}
            for item in page.get("items") or ():
                status = item.get("status") or {}
                states = {one["type"]: one["status"] for one in status.get("conditions") or ()}
                count += (
                    states.get("Ready") == "True" and states.get("Reconciling") == "False" and status.get("failuresTolerated") == SPARES
                )
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return count

    async def _quiet(self) -> None:
        deadline = time.monotonic() + QUIET_S
        while True:
            now = time.time()
            late = operator_writes(await asyncio.to_thread(self._stage.plane.writes), now - QUIET_WRITES_S, now)
            if not late:
                return
            if time.monotonic() > deadline:
                msg = f"the operator still writes: {spelled(late)}"
                raise LocalKubeError(msg)
            await asyncio.sleep(QUIET_WRITES_S / 3)

    async def _steady(self, crowd: Crowd) -> None:
        seconds = self._options.steady
        self._report(f"steady: nothing happens for {seconds:g} s")
        begun, answered = time.time(), processor_seconds(crowd.answers) if crowd.answers else 0.0
        used = await use_of(self.operator, seconds)
        ended = time.time()
        writes = operator_writes(await asyncio.to_thread(self._stage.plane.writes), begun, ended)
        found = self.found
        found.steady_s, found.steady_cpu, found.steady_cpu_worst, found.steady_rss = seconds, used.cpu, used.worst, used.rss
        found.steady_writes, found.steady_wrote = len(writes), spelled(writes)
        found.answers_cpu = ((processor_seconds(crowd.answers) if crowd.answers else 0.0) - answered) / (ended - begun)
        self._report(f"steady: {used.cpu:.2f} of a core (worst 5 s: {used.worst:.2f}), {used.rss:.0f} MiB, {len(writes)} writes")

    # ------------------------------------------------------------ failovers

    async def _fail_over(self, exits: AsyncExitStack) -> None:
        for name in self._hollow:
            stream = Stream(self._stage.plane.admin_kubeconfig, NAMESPACE, name, lambda: self._observer)
            self._streams[name] = await exits.enter_async_context(stream)
        await self._settled(self._hollow)
        begun, spent = time.monotonic(), processor_seconds(self.operator)
        for number in range(self._options.failovers):
            await asyncio.sleep(random.uniform(0.0, 1.0))  # noqa: S311 - not in step with probes
            deletes = number % 2 == 0
            took = await self._one(self._hollow[number % len(self._hollow)], number // len(self._hollow) % SHARDS, deletes=deletes)
            if took is not None:
                (self.found.deleted if deletes else self.found.killed).append(took)
            self.found.rss = max(self.found.rss, self.found.steady_rss, memory_mib(self.operator.pid))
            if number % 5 == 4:
                worst = max(self.found.failovers, default=0.0)
                self._report(f"failovers: {number + 1} of {self._options.failovers}, worst {clock(worst)}")
        self.found.busy_cpu = (processor_seconds(self.operator) - spent) / (time.monotonic() - begun)
        for name, stream in self._streams.items():
            self.found.ledger += [f"{name}: {text}" for text in (await stream.ledger()).failures()]

    async def _one(self, cluster: str, shard: int, *, deletes: bool) -> float | None:
        stream = self._streams[cluster]
        mark = await stream.mark()
        holder = self._holder(cluster, shard)
        stream.burst(shard, 1.5)
        begun, begun_wall = time.monotonic(), time.time()
        if deletes:
            await self._api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{holder.pod}")
        else:
            await self._control.kill(NAMESPACE, holder.pod, uid=holder.uid)
        await self._seen(lambda: stream.delivered_since(shard, begun + 1.0), FAILOVER_S, f"messages of shard {shard} of {cluster}")
        await self._settled([cluster])
        books = await stream.books(mark, [shard])
        self.found.lost += books.lost
        self.found.doubled += books.totals.doubled
        self.found.two_holders += books.totals.two_holders
        took = first_taken(books.taken, shard=shard, begun=begun, begun_wall=begun_wall, not_by=holder.uid)
        if took is None:
            self.found.missing.append(f"shard {shard} of {cluster}")
        return took

    def _holder(self, cluster: str, shard: int) -> Holder:
        name = self._observer.holders(NAMESPACE, cluster).get(shard)
        pod = self._observer.find("Pod", NAMESPACE, name) if name else None
        if pod is None:
            msg = f"nobody serves shard {shard} of {cluster}"
            raise LocalKubeError(msg)
        return Holder(shard, pod["metadata"]["name"], pod["metadata"]["uid"])

    async def _settled(self, clusters: Sequence[str]) -> None:
        everyone = lambda: all(is_settled(self._observer, NAMESPACE, one) for one in clusters)  # noqa: E731
        await self._seen(everyone, SETTLE_S, f"{', '.join(clusters)} as wanted")

    async def _seen(self, look: Callable[[], bool], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        while not look():
            if time.monotonic() > deadline:
                msg = f"{what} did not come true within {timeout:g} s. {self._stage.fault() or ''}"
                raise LocalKubeError(msg)
            await asyncio.sleep(0.01)


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
    said += [f"{found.lost} messages were lost, {found.doubled} doubled"] * bool(found.lost or found.doubled)
    said += [f"the WhatsApp servers saw two holders of a shard {found.two_holders} times"] * bool(found.two_holders)
    said += found.ledger
    return said


def failover_rows(found: Found) -> dict[str, Obj]:
    """The times of both kinds and of all failovers; those that nobody took over are among all."""
    kinds = {"holder's pod deleted": (found.deleted, 0), "holder's container killed": (found.killed, 0)}
    kinds["both"] = (found.failovers, len(found.missing))
    return {name: row(times, failed, baseline=True) for name, (times, failed) in kinds.items() if times or failed}


def show(found: Found, console: Console) -> None:
    """Print the figures beside their goals."""
    console.print(
        f"{found.clusters} clusters of {SHARDS} shards and {SPARES} spares ({found.clusters * COREAPPS} Coreapps) on one operator process; "
        f"{min(HOLLOW, found.clusters)} of them with simulated pods, the others answered for by one process.",
        highlight=False,
    )
    table = Table(box=box.SIMPLE)
    for name in ("what", "measured", "goal", "measured / goal"):
        table.add_column(name, justify="left" if name == "what" else "right", no_wrap=True)
    for name, figure, text, limit, goal in rows(found):
        table.add_row(name, text, f"< {goal}{' MISSED' if figure > limit else ''}", f"{figure / limit:.2f}")
    for name, one in failover_rows(found).items():
        p95 = f"p95 {clock(one['p95'])}, " if "p95" in one else ""
        spread = f"p50 {clock(one['p50'])}, {p95}max {clock(one['max'])}"
        table.add_row(f"{name}, n = {one['n']}", spread, "", f"vendor's {BASELINE_S:g} s: {one.get('ratio', '-')}")
    console.print(table)
    console.print(
        f"steady for {found.steady_s:g} s: {found.steady_writes} writes, worst 5 s {found.steady_cpu_worst:.2f} of a core, "
        f"{found.steady_rss:.0f} MiB; during failovers {found.busy_cpu:.2f} of a core\n"
        f"beginning with all clusters at once: {found.begin_s:.0f} s, {found.begin_cpu_s:.0f} s of processor, "
        f"{found.begin_rss:.0f} MiB at most",
        highlight=False,
    )


def figures(found: Found, run: Obj) -> Obj:
    """Everything that was measured, for a file."""
    goals = {
        name: {"measured": rounded(figure), "text": text, "goal": goal, "met": figure <= limit}
        for name, figure, text, limit, goal in rows(found)
    }
    return {"run": run, "complaints": missed(found), "goals": goals, "failovers": failover_rows(found)} | asdict(found)


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run the command; ``root`` is the repository. Returns 0, 1 after one sentence on standard error, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="hack/bench --scale", description="What one operator process costs with many clusters.")
    parser.add_argument("--scale", type=int, required=True, help="clusters of 2 shards and 3 spares")
    parser.add_argument("--failovers", type=int, default=P95_FROM, help=f"failovers that are measured (default: {P95_FROM})")
    parser.add_argument("--steady", type=float, default=90.0, help="seconds for which nothing happens (default: 90)")
    parser.add_argument("--dir", type=Path, default=root / "build" / "bench-scale", help="folder of the control plane")
    parser.add_argument("--out", type=Path, default=root / "build" / "bench-scale.json", help="the figures")
    options = parser.parse_args(argv)
    if options.scale < 1 or options.failovers < 1 or options.steady < 5:
        parser.error("--scale and --failovers must be at least 1, --steady at least 5")
    end_by_any_signal()
    run = Provenance(root, "hack/bench", argv)
    stage = Stage(options.dir, audit_log=True, report=to_stderr)
    console = Console(width=None if sys.stdout.isatty() else 150)
    found: Found | None = None
    try:
        stage.up(replicas=0)
        try:
            bench = ScaleBench(stage, options, to_stderr)
            found = bench.found
            asyncio.run(bench.run())
        finally:
            stage.down()
            shutil.rmtree(options.dir / "scale", ignore_errors=True)
    except* (LocalKubeError, KubeError, OSError) as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        print(f"hack/bench: {sentence(error)}", file=sys.stderr)
        return_code = 1
    except* KeyboardInterrupt:
        print("hack/bench: interrupted; all that was started has been ended", file=sys.stderr)
        return_code = 130
    else:
        return_code = 0
    if return_code or found is None:
        return return_code
    show(found, console)
    content = figures(found, run.of_run())
    write_json(options.out, content)
    console.print(f"figures in {options.out}")
    for complaint in content["complaints"]:
        print(f"hack/bench: {complaint}", file=sys.stderr)
    return 1 if content["complaints"] else 0
