"""The runner: plays a fault in an environment as often as requested, and returns the results as figures."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Generic

from localkube import LocalKubeError, Obj
from localkube.errors import sentence
from localkube.hollow.pods import RESTART_S
from localkube.progress import to_stderr
from localkube.scenarios.cluster import Holder
from localkube.scenarios.runner.case import RESUMES_S, Case, Fault, G, Victim
from localkube.scenarios.runner.judge import UNREPORTED, Key, World, judge
from localkube.scenarios.traffic import Mark, MessageResults, first_taken, longest_gap
from outside.observer import ObserverError

CALM_S = 1.0  # how long messages flow before a fault, watched by the fresh observer
APART_S = 0.7  # from one cluster's fault to the next one's: on real clusters they do not come in one instant
AFTER_S = 0.5  # how long a holder that resumed by itself is observed: the handover may still come
TICK_S = 0.02
BUSY = 0.9  # share of a core from which on the one process of the hollow nodes is itself what is slow
PLAYS = 4  # how many extra times a fault is played at most, until it was measured as often as requested


@dataclass
class Outcome:
    """The results of one fault, over all times that it was played. Times in seconds."""

    name: str
    times: list[float] = field(default_factory=list)
    samples: list[Obj] = field(default_factory=list)
    """One per shard that was struck: where, the time, when the Service was seen to lead to the next holder (None: not at all), and when
    the operator had decided that, by its own word. ``window``: from the fault to the end of the play (`time.time()`)."""
    not_handed_over: list[str] = field(default_factory=list)  # shards that were not handed over in the time that is allowed
    resumed: list[float] = field(default_factory=list)
    """Times of shards that their old holder resumed before another took over. They are not failovers, and not part of ``times``."""
    effects: Counter[str] = field(default_factory=Counter)  # what the fault was seen to do
    upstream: Counter[str] = field(default_factory=Counter)
    """What was added to the log of the WhatsApp servers: fenced, replaced, repeated, below_epoch, overlaps and more."""
    evidence: Counter[str] = field(default_factory=Counter)  # of the failovers of the shards that were struck, as the status says
    wrong_failovers: list[str] = field(default_factory=list)  # failovers of shards whose holder was healthy
    sent: int = 0
    lost: int = 0
    doubled: int = 0
    rejected: list[int] = field(default_factory=lambda: [0, 0])  # tries that were no 201: on shards that were struck, on all others
    rejections: Counter[str] = field(default_factory=Counter)  # how they were rejected: status or name of the error
    violations: list[str] = field(default_factory=list)  # laws that were broken, two holders of a shard among them
    unsettled: list[str] = field(default_factory=list)  # clusters that were not as wanted 120 s after the undoing
    troubles: list[str] = field(default_factory=list)  # what kept it from being played or measured as it should
    notes: list[str] = field(default_factory=list)
    took: float = 0.0
    hollow_cpu: float = 0.0  # share of a core that the hollow nodes used; of several times the highest
    late: float = 0.0  # the longest by which the loop that sends, relays and measures was late itself: no time is truer than that

    @property
    def n(self) -> int:
        """How often it was measured, shards that were not handed over included."""
        return len(self.times) + len(self.not_handed_over)


class Player(Generic[G]):
    """Plays faults one after the other in one environment."""

    def __init__(self, environment: G, *, n: int, quiet: bool = False) -> None:
        """``n``: how often each fault is to be measured."""
        self._environment = environment
        self._n = n
        self._quiet = quiet

    async def play(self, fault: Fault[G]) -> Outcome:
        """Play a fault until it was measured often enough. What goes wrong is in the outcome; nothing is raised for it."""
        return (await self.play_in_turn([fault], rounds=(self._n,)))[0]

    async def play_in_turn(self, faults: Sequence[Fault[G]], *, rounds: Sequence[int] | None = None) -> list[Outcome]:
        """Play faults of which each undoes the one before, round after round, until all were measured often enough or one fails.

        ``rounds``: how often each was measured after each round; one more each time if not given.
        """
        outcomes = [Outcome(fault.name) for fault in faults]
        for number in rounds or range(1, self._n + 1):
            for fault, outcome in zip(faults, outcomes, strict=True):
                await self._play(fault, outcome, number)
            if any(outcome.n < number for outcome in outcomes):
                break
            if number % 10 == 0 and number < self._n:
                self._report(f"{', '.join(fault.name for fault in faults)}: {number} of {self._n}")
        for outcome in outcomes:
            self._tell(outcome)
        return outcomes

    async def _play(self, fault: Fault[G], outcome: Outcome, n: int) -> None:
        begun, spare = time.monotonic(), PLAYS
        while outcome.n < n and spare > 0:
            had = outcome.n
            try:
                await _FaultRun(self._environment, fault, outcome, n - had).run()
            except LocalKubeError as error:
                outcome.troubles.append(sentence(error))
                await self._put_right(fault)
            spare -= fault.everybody or outcome.n - had < min(n - had, len(self._environment.clusters))
        outcome.took += time.monotonic() - begun

    def _report(self, line: str) -> None:
        if not self._quiet:
            to_stderr(line)

    def _tell(self, outcome: Outcome) -> None:
        if outcome.hollow_cpu > BUSY:
            outcome.troubles.append(
                f"the hollow nodes used {outcome.hollow_cpu:.0%} of a core, so the times are theirs: give --clusters a lower number"
            )
        worst = f"worst {max(outcome.times):.3f} s" if outcome.times else "no time"
        late = f", {len(outcome.not_handed_over)} not handed over" if outcome.not_handed_over else ""
        hollow = f" hollow nodes at {outcome.hollow_cpu:.0%} of a core," if outcome.hollow_cpu else ""
        own = f"own loop late by {outcome.late * 1000:.0f} ms at most"
        self._report(f"{outcome.name}: {outcome.n} times, {worst}{late}, {outcome.took:.0f} s;{hollow} {own}")
        for trouble in outcome.troubles:
            self._report(f"{outcome.name}: {trouble}")

    async def _put_right(self, fault: Fault[G]) -> None:
        self._report(f"{fault.name} broke off; putting the environment right")
        try:
            await self._environment.put_right()
        except LocalKubeError as error:
            self._report(f"the environment cannot be restored: {sentence(error)}")


class _FaultRun(Generic[G]):
    """One case of a fault: on one cluster after the other, or on all at once."""

    def __init__(self, environment: G, fault: Fault[G], outcome: Outcome, wanted: int) -> None:
        self._environment, self._fault, self._outcome = environment, fault, outcome
        self._clusters = environment.clusters if fault.everybody else environment.clusters[: max(1, wanted)]
        self._cases: list[Case[G]] = []
        self._begun = self._undone = 0.0
        self._begun_wall = 0.0
        self._reported: dict[str, Obj] = {}

    @property
    def _victims(self) -> list[Victim]:
        return [victim for case in self._cases for victim in case.victims]

    async def run(self) -> None:
        """Prepare, strike, wait, undo, settle, and take the figures."""
        environment, fault, outcome = self._environment, self._fault, self._outcome
        await fault.prepare(Case(environment, self._clusters))
        outcome.unsettled += await environment.settle(environment.clusters)
        outcome.violations += environment.broken_laws(environment.observer.violations)  # what came about while nothing was measured
        await environment.restart_observer()
        before = {(cluster, one.shard): one for cluster in environment.clusters for one in environment.holders(cluster)}
        pods, ambiguous = environment.lasting_coreapps(), await environment.ambiguous()
        marked = await asyncio.gather(*(environment.streams[name].mark() for name in environment.clusters))
        marks = dict(zip(environment.clusters, marked, strict=True))
        await asyncio.sleep(CALM_S)
        self._begun, self._begun_wall, used = time.monotonic(), time.time(), environment.busy_seconds()
        effects, had = await environment.effects(), len(outcome.samples)
        watching = asyncio.create_task(self._watch_own_loop())
        try:
            await self._strike()
        finally:
            watching.cancel()
            outcome.hollow_cpu = max(outcome.hollow_cpu, (environment.busy_seconds() - used) / max(0.1, time.monotonic() - self._begun))
            await self._undo()
        outcome.unsettled += await environment.settle(environment.clusters)
        await self._judge(before)
        await self._count(marks)
        await self._verify_effects(effects)
        if fault.pods_stay:
            self._verify_pods(pods)
        if more := await environment.ambiguous() - ambiguous:
            outcome.violations.append(f"one holder: a shard's Service was found to match several pods {more} times")
        if ended := environment.fault():
            raise LocalKubeError(ended)
        window = min((victim.begun_wall for victim in self._victims), default=self._begun_wall), time.time()
        for sample in outcome.samples[had:]:
            sample["window"] = window

    async def _strike(self) -> None:
        if self._fault.everybody:
            self._cases = [Case(self._environment, self._clusters)]
            await self._strike_case(self._cases[0], 0.0)
            return
        self._cases = [Case(self._environment, (cluster,)) for cluster in self._clusters]
        delays = (APART_S * (number + random.random()) for number in range(len(self._cases)))  # noqa: S311 - not in step with probes
        for result in await asyncio.gather(*map(self._strike_case, self._cases, delays), return_exceptions=True):
            if isinstance(result, LocalKubeError):
                self._outcome.troubles.append(sentence(result))
            elif isinstance(result, BaseException):
                raise result

    async def _watch_own_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            self._outcome.late = max(self._outcome.late, loop.time() - due)

    async def _strike_case(self, case: Case[G], delay: float) -> None:
        await asyncio.sleep(delay)
        await self._fault.strike(case)
        case.is_over()
        if self._fault.failover:
            await asyncio.gather(*(self._handed_over(victim) for victim in case.victims))
        else:
            await asyncio.sleep(self._fault.watch)

    async def _handed_over(self, victim: Victim) -> None:
        """Wait until a message of the shard went through its next holder, at most as long as allowed."""
        stream = self._environment.streams[victim.cluster]
        while time.monotonic() < victim.begun + self._fault.allowed:
            commit = self._environment.commit(victim.cluster, victim.shard, not_to=victim.holder.uid)
            if commit is not None and stream.delivered_since(victim.shard, max(commit.monotonic, victim.begun)):
                return
            resumed_at = (victim.returned or victim.begun) + RESTART_S
            if self._fault.resumes and time.monotonic() > resumed_at + AFTER_S and stream.delivered_since(victim.shard, resumed_at):
                return
            await asyncio.sleep(0.05)

    async def _undo(self) -> None:
        self._undone = time.monotonic()
        async with AsyncExitStack() as undoing:  # a failure must not prevent the rest from being undone
            for case in reversed(self._cases):
                undoing.push_async_callback(case.exits.aclose)
                undoing.push_async_callback(self._fault.undo, case)
        if self._fault.failover and self._fault.watch:
            await asyncio.sleep(self._fault.watch)

    async def _judge(self, before: Mapping[Key, Holder]) -> None:
        environment, outcome, fault = self._environment, self._outcome, self._fault
        handovers = [entry for cluster in environment.clusters for entry in environment.status(cluster).get("recentHandovers") or ()]
        self._reported = {entry["epoch"]: entry for entry in handovers}
        evidence = {epoch: str(entry["evidence"]) for epoch, entry in self._reported.items()}
        # A holder that is slow or loses a few probes is still healthy.
        struck = {uid for case in self._cases for uid in case.struck} if fault.failover else set()
        asked = {(victim.cluster, victim.shard) for victim in self._victims}
        asked |= {key for case in self._cases for key in case.asked}
        world = World(struck=struck, moves=fault.moves, since=self._begun, asked=asked, until=self._undone)
        judged = judge(environment.observer.commits, before=before, evidence=evidence, world=world)
        outcome.evidence += judged.evidence
        outcome.wrong_failovers += judged.wrong
        outcome.notes += [note for case in self._cases for note in case.notes]
        try:
            outcome.violations += environment.broken_laws(await asyncio.to_thread(environment.observer.verify))
        except ObserverError as error:
            outcome.violations += environment.broken_laws(environment.observer.violations)
            outcome.troubles.append(f"the observer did not see everything: {error}")

    async def _count(self, marks: Mapping[str, Mark]) -> None:
        """What became of the messages, and from it the times."""
        outcome, streams = self._outcome, self._environment.streams
        struck = {cluster: {victim.shard for victim in self._victims if victim.cluster == cluster} for cluster in marks}
        found = await asyncio.gather(*(streams[cluster].results(mark, struck[cluster]) for cluster, mark in marks.items()))
        results: dict[str, MessageResults] = dict(zip(marks, found, strict=True))
        for cluster, one in results.items():
            outcome.sent += one.sent
            outcome.lost += one.lost
            outcome.doubled += one.totals.doubled
            outcome.rejections += one.words
            outcome.upstream.update(asdict(one.totals))
            outcome.rejected = [have + more for have, more in zip(outcome.rejected, one.rejected, strict=True)]
            if one.totals.two_holders:
                outcome.violations.append(
                    f"one holder: the WhatsApp servers of {cluster} took {one.totals.below_epoch} messages from holders that had been "
                    f"replaced, and accepted two connections of one shard at once {one.totals.overlaps} times"
                )
        if measured := [seconds for case in self._cases for seconds in case.measured]:
            outcome.times += measured
            outcome.samples += [{"took": round(seconds, 4)} for seconds in measured]
        elif self._fault.gap:
            self._measure_gaps(results)
        else:
            for victim in self._victims:
                self._measure(victim, results[victim.cluster])

    def _measure_gaps(self, results: Mapping[str, MessageResults]) -> None:
        """The longest silence of each cluster's worst shard, from its first strike on."""
        for cluster, one in results.items():
            begun = min((victim.begun for victim in self._victims if victim.cluster == cluster), default=None)
            if begun is not None and (gap := longest_gap(one.taken, begun=begun)) is not None:
                self._outcome.times.append(gap)
                details = {name: value for case in self._cases for name, value in case.details.items()}
                self._outcome.samples.append({"cluster": cluster, "took": round(gap, 4), **details})

    def _measure(self, victim: Victim, results: MessageResults) -> None:
        fault, outcome, old = self._fault, self._outcome, victim.holder.uid
        taken = partial(first_taken, results.taken, shard=victim.shard, begun=victim.begun)
        key = (victim.cluster, victim.shard)
        successors = {one.holder_uid for one in self._environment.observer.commits if (one.cluster, one.shard) == key} - {old}
        took = taken(begun_wall=victim.begun_wall, not_by=old, by=successors) if fault.failover else taken(begun_wall=victim.begun_wall)
        back = (victim.returned_wall or victim.begun_wall) + RESUMES_S
        resumed = taken(begun_wall=back, by={old}) if fault.resumes else None
        sample = {"cluster": victim.cluster, "shard": victim.shard, "took": took and round(took, 4), **self._handover(victim)}
        if took is not None and victim.possible is not None:
            sample["from_possible"] = round(took - (victim.possible - victim.begun), 4)
        outcome.samples.append(sample)
        if resumed is not None and (took is None or resumed < took):
            sample["resumed"] = round(resumed, 4)
            outcome.resumed.append(resumed)
        elif took is None or took > fault.allowed:
            outcome.not_handed_over.append(f"shard {victim.shard} of {victim.cluster}")
        else:
            outcome.times.append(took)

    def _handover(self, victim: Victim) -> Obj:
        """When the handover was decided and committed, in seconds from the fault; None where there was none or it was not reported."""
        commit = self._environment.commit(victim.cluster, victim.shard, not_to=victim.holder.uid)
        if commit is None:
            return {"committed": None, "decided": None, "evidence": None}
        committed = commit.monotonic - victim.begun
        reported = self._reported.get(commit.epoch, {})
        writing = reported.get("commitMilliseconds")
        decided = None if writing is None else round(max(0.0, committed - writing / 1000), 4)
        return {"committed": round(committed, 4), "decided": decided, "evidence": reported.get("evidence", UNREPORTED)}

    def _replaced(self, victim: Victim) -> int:
        """How many connections of old holders the WhatsApp servers closed because a successor connected."""
        spans = (span for span in self._environment.streams[victim.cluster].log.audit.spans if span.uid == victim.holder.uid)
        return sum(span.why == "replaced" and (span.closed_at or 0.0) >= victim.begun_wall for span in spans)

    def _verify_pods(self, before: Mapping[str, str]) -> None:
        """Report healthy Coreapps that are gone although they were not struck."""
        struck = {uid for case in self._cases for uid in case.struck}
        if gone := sorted(name for uid, name in before.items() if uid not in struck | set(self._environment.lasting_coreapps())):
            self._outcome.troubles.append(f"{len(gone)} sound Coreapps are gone: {', '.join(gone)}")

    async def _verify_effects(self, before: Counter[tuple[str, str]]) -> None:
        """Report what the fault did, as counted where it took effect. If it did nothing, that is a failure: nothing was measured then."""
        added = await self._environment.effects()
        added.subtract(before)
        self._outcome.troubles += [trouble for case in self._cases for trouble in case.troubles]
        for case in self._cases:
            case.effects["pods ended"] += sum(self._environment.is_ended(victim.holder) for victim in case.victims)
            case.effects["old holders replaced"] = sum(self._replaced(victim) for victim in case.victims)
            uids = case.struck | {victim.holder.uid for victim in case.victims}
            for (uid, what), count in added.items():
                case.effects[what] += count if uid in uids else 0
            self._outcome.effects.update(+case.effects)
            missing = (name for name in self._fault.effects if case.effects[name] <= 0)
            self._outcome.troubles += [f"the fault did nothing: 0 {name} ({', '.join(case.clusters)})" for name in missing]
