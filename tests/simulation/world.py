"""A whole world on virtual time: API server, Kubernetes cluster, client, operators; and what it means to be done."""

from __future__ import annotations

import asyncio
import base64
import functools
import inspect
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any, Concatenate, ParamSpec, TypeVar

from whatsapp_operator.core.desired import Tuning

from . import virtual
from .apiserver import ApiServer, Change, matches
from .client import Account, Connection
from .kinds import PDB, POD, SECRET, SERVICE, STATEFULSET, WAC, Obj, is_ready
from .kube import SimKube
from .laws import CLUSTER, EPOCH, HOLDER, ROLE, SHARD, LawBroken, Laws
from .liveness import Liveness
from .machines import Cluster, Machine, revision_of
from .network import Network
from .operators import RELEASE, Operator, hurried
from .virtual import VirtualLoop
from .waiting import Waiting

K = TypeVar("K", bound=SimKube)
P = ParamSpec("P")

NAMESPACE, NAME = "default", "acme"


class LateError(AssertionError):
    """What a test waited for did not come in time."""

    is_verdict = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to, for its figures."""

    seconds: float
    writes: int
    handovers: int
    restarts: int


RESTART_TIMEOUT = timedelta(seconds=20)
"""Of every simulated cluster: that of the real thing, made shorter."""
REVISION = "controller-revision-hash"


def condition_of(status: Obj, kind: str) -> tuple[str, str, str]:
    """Status, reason and message of a condition; empty texts if it is not there."""
    found: Obj = next((one for one in status.get("conditions") or () if one["type"] == kind), {})
    return found.get("status", ""), found.get("reason", ""), found.get("message", "")


class World:
    """Everything that there is in one simulation."""

    def __init__(self, loop: VirtualLoop, seed: int | str, *, tuning: Tuning | None = None, restart_seconds: float = 3.0) -> None:
        self.loop = loop
        self.seed = seed
        self.rng = Random(seed)
        self.network = Network()
        self.tuning = tuning or hurried()
        self.watch_lag = 0.0
        self.tell_lost = 0.0
        self.api_faults = 0.0
        self.api_slow = 0.0
        self.server = ApiServer(loop.time)
        self.account = Account(rng=self.rng, restart_seconds=restart_seconds, now=loop.time)
        self.cluster = Cluster(self.server, rng=self.rng, account=self.account)
        self.laws = Laws(
            server=self.server,
            account=self.account,
            cluster=self.cluster,
            now=loop.time,
            crashes=loop.crashes,
            namespace=NAMESPACE,
            name=NAME,
            is_operator=lambda actor: actor.startswith("operator-"),
            settles_after=self.tuning.call_timeout + RESTART_TIMEOUT + self.tuning.settle_grace,
        )
        self.operators: list[Operator] = []
        self.liveness = Liveness(self)
        Waiting(self.laws)
        self._changed = asyncio.Event()
        self.server.checks.append(lambda _: self._changed.set())
        loop.connect = self.cluster.connect

    # --- what users and accidents do -----------------------------------------------------------------------------------

    def create(self, *, shards: int = 2, spares: int = 1, **spec: Any) -> None:
        """Create the WhatsAppCluster."""
        self.server.create(
            "user",
            {
                "apiVersion": WAC.api_version,
                "kind": WAC.kind,
                "metadata": {"namespace": NAMESPACE, "name": NAME},
                "spec": {
                    "shards": shards,
                    "spares": spares,
                    "client": {"type": "Simulator"},
                    "webapp": {"replicas": 1},
                    "reshard": {"restartTimeoutSeconds": int(RESTART_TIMEOUT.total_seconds())},
                    **spec,
                },
            },
        )

    def edit(self, **spec: Any) -> None:
        """Edit the spec."""
        if self.server.get(WAC, (NAMESPACE, NAME)) is not None:
            self.server.merge("user", WAC, (NAMESPACE, NAME), {"spec": spec})

    def annotate(self, **annotations: str | None) -> None:
        """Set annotations of the cluster; underscores stand for dashes."""
        body = {f"multiconnect.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
        self.server.merge("user", WAC, (NAMESPACE, NAME), {"metadata": {"annotations": body}})

    def put_account_secret(self, **data: str) -> None:
        """Write the account's Secret."""
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        self.laws.secrets += [value for key, value in data.items() if key in {"certificate", "pin"}]
        if self.server.get(SECRET, (NAMESPACE, "account")) is None:
            meta = {"namespace": NAMESPACE, "name": "account"}
            self.server.create("user", {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": encoded})
        else:
            self.server.merge("user", SECRET, (NAMESPACE, "account"), {"data": encoded})

    def operator(self, *, ahead: float = 0.0, image: str = RELEASE) -> Operator:
        """Make one more operator process; it does nothing yet. Its wall clock is so many seconds ahead."""
        made = Operator(self, f"operator-{len(self.operators)}", ahead=ahead, image=image)
        self.operators.append(made)
        return made

    async def started(self, *, elected: bool = False, within: float = 240.0, **spec: Any) -> Operator:
        """Create the WhatsAppCluster, and have a new operator lead, or be elected to, until all is done."""
        self.create(**spec)
        made = self.operator()
        if elected:
            made.campaign()
        else:
            made.lead(1)
        await self.until_done(within=within)
        return made

    def operator_by(self, way: type[K]) -> tuple[Operator, K]:
        """Make one that has another way to the API server, and return both."""
        name = f"operator-{len(self.operators)}"
        kube = way(self.server, actor=name, rng=self.rng, network=self.network)
        self.operators.append(Operator(self, name, kube=kube))
        return self.operators[-1], kube

    def living(self) -> list[Operator]:
        """Operators that were not killed."""
        return [one for one in self.operators if not one.dead]

    def coreapps(self) -> list[Machine]:
        """Coreapps whose container runs."""
        return [machine for machine in self.cluster.machines.values() if machine.coreapp is not None and machine.running]

    def holder(self, shard: int) -> Machine | None:
        """The machine of the pod that a shard's Service names."""
        service = self.server.get(SERVICE, (NAMESPACE, f"{NAME}-shard-{shard}"))
        uid = ((service or {}).get("metadata", {}).get("annotations") or {}).get(HOLDER, "").partition("/")[2]
        return self.cluster.machines.get(uid)

    def holding(self, shard: int) -> Machine:
        """Return the same where it must be there."""
        found = self.holder(shard)
        assert found is not None, f"shard {shard} has no holder"
        return found

    def status(self) -> Obj:
        """The cluster's status as stored; empty if there is none."""
        found: Obj = (self.server.get(WAC, (NAMESPACE, NAME)) or {}).get("status") or {}
        return found

    def condition(self, kind: str) -> tuple[str, str, str]:
        """Status, reason and message of a condition as stored; empty texts if it is not there."""
        return condition_of(self.status(), kind)

    def delete_pod(self, machine: Machine, *, force: bool = False) -> None:
        """Delete a pod by hand."""
        pod = self.server.get(POD, machine.name)
        if pod is not None and pod["metadata"]["uid"] == machine.uid:
            self.server.delete("user", POD, machine.name, grace=0 if force else None)

    def recreate(self) -> None:
        """The client's own state goes with the simulator's pod: a new account, with the vendor's one shard."""
        account = self.account
        account.shards, account.password = 1, None
        account.tokens.clear()
        account.connections.clear()
        account.highest.clear()

    # --- done, defined apart from the code that gets there ---------------------------------------------------------------

    def undone(self) -> list[str]:
        """Return what is missing until everything is as the spec wants it; empty when done."""
        wac = self.server.get(WAC, (NAMESPACE, NAME))
        if wac is None:
            return ["there is no cluster"]
        return [*self.undone_in_truth(wac), *self._undone_status(wac)]

    def undone_in_truth(self, wac: Obj) -> Iterator[str]:
        """Yield what is missing, no matter what the status says."""
        yield from self._undone_objects(wac)
        yield from self._undone_routes(int(wac["spec"]["shards"]))

    def _undone_objects(self, wac: Obj) -> Iterator[str]:
        shards, spares = int(wac["spec"]["shards"]), int(wac["spec"].get("spares", 1))
        workload = self.server.get(STATEFULSET, (NAMESPACE, f"{NAME}-coreapp"))
        replicas = int(workload["spec"].get("replicas", 1)) if workload else 0
        if replicas != shards + spares:
            yield f"R is {replicas}, not {shards} + {spares}"
        pods = self.laws.pods()
        wanted = revision_of(workload) if workload else None
        if old := [pod["metadata"]["name"] for pod in pods if pod["metadata"]["labels"].get(REVISION) != wanted]:
            yield f"{old} have an old template"
        if len(pods) != shards + spares or not all(map(is_ready, pods)):
            yield f"{sum(map(is_ready, pods))} of {len(pods)} pods are ready, {shards + spares} are wanted"
        if hung := [machine.name[1] for machine in self.coreapps() if machine.coreapp is not None and machine.coreapp.is_hung]:
            yield f"{hung} hang"
        if self.account.shards != shards:
            yield f"S is {self.account.shards}, not {shards}"
        budget = self.server.get(PDB, (NAMESPACE, f"{NAME}-coreapp"))
        if budget is None or budget["spec"]["maxUnavailable"] != max(1, spares):
            yield "the disruption budget is not that of rest"
        holders = {
            service["metadata"]["annotations"].get(HOLDER) for _, service in self.laws.routes() if service["metadata"].get("annotations")
        }
        for pod in pods:
            meta = pod["metadata"]
            holds = f"{meta['name']}/{meta['uid']}" in holders
            if not holds and (meta["labels"].get(ROLE) != "standby" or SHARD in meta["labels"] or EPOCH in meta["labels"]):
                yield f"{meta['name']} holds nothing but has labels"
            if holds and meta["labels"].get(ROLE) != "active":
                yield f"{meta['name']} is a holder without the role"

    def _undone_routes(self, shards: int) -> Iterator[str]:
        routes = dict(self.laws.routes())
        if sorted(routes) != list(range(shards)):
            yield f"there are Services for shards {sorted(routes)}"
        pods = self.server.list(POD, NAMESPACE, {CLUSTER: NAME})
        seen: set[str] = set()
        for shard, service in sorted(routes.items()):
            there = [pod for pod in pods if matches(service["spec"]["selector"], pod["metadata"]["labels"])]
            if len(there) != 1 or not is_ready(there[0]):
                yield f"shard {shard} leads to {len(there)} pods"
                continue
            uid, epoch = there[0]["metadata"]["uid"], service["spec"]["selector"].get(EPOCH)
            if uid in seen:
                yield f"shard {shard} leads to a pod that serves another, too"
            seen.add(uid)
            if self.account.connections.get(shard) != Connection(uid, epoch):
                yield f"shard {shard} is connected as {self.account.connections.get(shard)}, not as {uid} {epoch}"

    def _undone_status(self, wac: Obj) -> Iterator[str]:
        status, spec = wac.get("status") or {}, wac["spec"]
        shards, spares = int(spec["shards"]), int(spec.get("spares", 1))
        if status.get("observedGeneration") != wac["metadata"]["generation"]:
            yield "the status speaks of another generation"
        text = {one["type"]: (one["status"], one["reason"]) for one in status.get("conditions") or ()}
        for kind, wanted in (("Ready", ("True", "Serving")), ("Reconciling", ("False", "UpToDate")), ("Stalled", ("False", "UpToDate"))):
            if text.get(kind) != wanted:
                yield f"condition {kind} is {text.get(kind)}"
        redundant = ("True", "NoSparesRequested" if spares == 0 else "SparesReady")
        if text.get("Redundant") != redundant:
            yield f"condition Redundant is {text.get('Redundant')}"
        numbers = (status.get("shards"), status.get("settledShards"), status.get("failuresTolerated"), status.get("operation"))
        if numbers != (shards, shards, spares, None):
            yield f"shards, settledShards, failuresTolerated, operation are {numbers}"
        if [(one["shard"], one["state"]) for one in status.get("shardMap") or ()] != [(shard, "Serving") for shard in range(shards)]:
            yield f"the shard map is {status.get('shardMap')}"

    # --- time -------------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise what was found so far: unexpected errors first, for what comes after one says little, then broken laws."""
        self.loop.crashes.check(self.failure_text)
        if self.laws.broken:
            law, text = self.laws.broken[0]
            raise LawBroken(law, self.failure_text(text))

    def failure_text(self, head: str) -> str:
        """Return a report of a failure: the seed, the sentence, and what happened last."""
        return f"seed {self.seed}: {head}\n" + "\n".join(self.laws.log[-int(os.environ.get("SIMULATION_LINES", "120")) :])

    async def until(self, holds: Callable[[], bool], *, within: float, what: str) -> float:
        """Wait until something holds; return how long it took. AssertionError after `within` seconds."""
        start = self.loop.time()
        while not holds():
            self.check()
            left = start + within - self.loop.time()
            if left <= 0:
                raise LateError(self.failure_text(f"not within {within:g} s: {what}: {self.undone()}"))
            self._changed.clear()
            try:
                async with asyncio.timeout(min(left + 0.001, 0.5)):
                    await self._changed.wait()
            except TimeoutError:
                continue
        self.check()
        return self.loop.time() - start

    async def until_done(self, *, within: float = 240.0) -> float:
        """Law of convergence: everything is as wanted within so many seconds; return how long it took."""
        self.laws.applied["of convergence"] += 1
        try:
            return await self.until(lambda: not self.undone(), within=within, what="done")
        except LateError as error:
            raise LawBroken("of convergence", f"law of convergence: {error}") from None

    async def pause(self, seconds: float) -> None:
        """Let time pass, minding the laws."""
        await asyncio.sleep(seconds)
        self.check()

    async def stays_silent(self, seconds: float = 600.0) -> None:
        """Law 11: no write of an operator for so long, Leases apart."""
        # What was done a moment ago may still be reported.
        await self.pause(5.0)
        self.laws.applied["11"] += 1
        before = (self.laws.writes, self.laws.events)
        await self.pause(seconds)
        after = (self.laws.writes, self.laws.events)
        if before != after:
            raise LawBroken(
                "11", self.failure_text(f"law 11: {after[0] - before[0]} writes and {after[1] - before[1]} events in {seconds:g} s of rest")
            )
        if self.undone():
            raise LawBroken("of rest", self.failure_text(f"law of rest: did not stay done: {self.undone()}"))

    def did(self) -> Counter[str]:
        """Return how often each fault that was injected did something."""
        return self.laws.did + self.network.did + self.cluster.did + self.account.did

    def outcome(self) -> Outcome:
        """Return the figures of this run."""
        return Outcome(self.loop.time(), self.laws.writes, len(self.laws.handovers), self.account.restarts)


class UnfitError(Exception):
    """The world of this seed is not as the scenario needs it: only laws are judged in it."""


def simulate(scenario: Callable[[World], Coroutine[Any, Any, None]], seed: int | str = 0, **options: Any) -> World:
    """Run a scenario in a world of its own and return that world; raises what the scenario raises, or the first broken law."""

    async def main(loop: VirtualLoop) -> World:
        world = World(loop, seed, **options)
        try:
            await scenario(world)
        except UnfitError:
            world.check()
            raise
        world.check()
        return world

    return virtual.run(main)


Scenario = Callable[Concatenate[World, P], Coroutine[Any, Any, None]]


def simulated(seeds: int = 1) -> Callable[[Scenario[P]], Callable[P, None]]:
    """Make a test of a scenario, which is run for each of so many seeds, or for the test's parameter ``seed``.

    A scenario that fits no seed has judged nothing, and fails.
    """

    def made(scenario: Scenario[P]) -> Callable[P, None]:
        @functools.wraps(scenario)
        def test(*args: P.args, **arguments: P.kwargs) -> None:
            fitting = 0
            given: Any = arguments.get("seed")
            for seed in range(seeds) if given is None else [given]:
                with suppress(UnfitError):
                    simulate(lambda world: scenario(world, *args, **arguments), seed)
                    fitting += 1
            assert fitting > 0, f"none of {seeds} seeds fits"

        whole = inspect.signature(scenario)
        test.__signature__ = whole.replace(parameters=[*whole.parameters.values()][1:])  # type: ignore[attr-defined]
        return test

    return made


__all__ = ["NAME", "NAMESPACE", "Change", "Outcome", "UnfitError", "World", "simulate", "simulated"]
