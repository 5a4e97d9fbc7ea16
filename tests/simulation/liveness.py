"""The laws of what must happen, each with its own time. Judged every two seconds, from what is true; one broken is named at once.

Most hold while it is calm: one operator leads, runs and reaches everybody, no fault of the network or of the client is on, and the last
restart for Set Shards is over, with all that it excuses. A fault that is not calm stops their clocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from .apiserver import ApiServer, Change
from .causes import leaves
from .client import Account, Connection
from .kinds import NODE, POD, SERVICE, WAC, Obj, is_ready
from .laws import EPOCH, HOLDER, ROLE, SHARD, Laws
from .machines import Cluster, Machine
from .network import Network
from .virtual import Process, VirtualLoop

EVERY = 2.0
EXCUSED_FOR = 30.0
"""Seconds for which the restart of Set Shards may excuse a holder that is away: the restart timeout and what is waited for it then."""
LIMITS = {"3": 6.0, "10": 6.0, "12": 30.0, "16": 10.0, "of progress": 30.0, "of assignment": 20.0, "of tidying": 30.0}
"""Seconds for which what a law forbids may last."""
REASON = re.compile(r"[A-Z][A-Za-z0-9]*\Z")
"""Law 12: one CamelCase word."""


class Judged(Protocol):
    """One operator, as far as it is seen from here."""

    process: Process
    leads: bool
    cut_off: frozenset[str]


class JudgedWorld(Protocol):
    """The world that is judged."""

    loop: VirtualLoop
    server: ApiServer
    account: Account
    cluster: Cluster
    laws: Laws
    network: Network
    watch_lag: float
    tell_lost: float
    api_faults: float
    api_slow: float

    def living(self) -> Sequence[Judged]: ...

    def undone_in_truth(self, wac: Obj) -> Iterator[str]: ...


@dataclass(frozen=True, slots=True)
class Route:
    """What the Service of one shard says, and the machine that it names."""

    shard: int
    uid: str
    epoch: str | None
    machine: Machine | None
    is_there: bool
    """Its pod exists and is not being deleted."""


class Liveness:
    """Judges what lasts."""

    def __init__(self, around: JudgedWorld) -> None:
        self._around = around
        self._since: dict[tuple[str, str], float] = {}
        self._served: dict[int, tuple[Connection, int]] = {}
        around.server.checks.append(self._check_write)
        around.loop.call_later(EVERY, self._poll)

    # --- every write: law 12, the shape -----------------------------------------------------------------------------------

    def _check_write(self, change: Change) -> None:
        laws = self._around.laws
        if laws.is_operator(change.actor) and was_tidied(change):
            laws.applied["of tidying"] += 1
        if change.kind is not WAC or change.after is None or not laws.is_operator(change.actor):
            return
        laws.applied["12"] += not says_all_is_well(change.after)
        self._is_true(change, change.after)
        for one in (change.after.get("status") or {}).get("conditions") or ():
            if not REASON.match(one.get("reason") or "") or (one["status"] != "True" and one["type"] == "Ready" and not one.get("message")):
                laws.breaks(12, f"{change.actor} gives condition {one['type']} the reason {one.get('reason')!r} and {one.get('message')!r}")

    def _is_true(self, change: Change, after: Obj) -> None:
        """Law 16: Ready is not True before the first number of shards is settled."""
        status, laws = after.get("status") or {}, self._around.laws
        is_ready = any((one["type"], one["status"]) == ("Ready", "True") for one in status.get("conditions") or ())
        laws.applied["16"] += is_ready
        if is_ready and status.get("settledShards") is None:
            laws.breaks(16, f"{change.actor} says Ready although no number of shards was ever settled")

    # --- the clocks -------------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        self._around.loop.call_later(EVERY, self._poll)
        now, laws = self._around.loop.time(), self._around.laws
        lasting = {(law, what): sentence for law, what, sentence in self._faults()}
        for key in [key for key in self._since if key not in lasting]:
            del self._since[key]
        for key, sentence in lasting.items():
            if key not in self._since:
                self._since[key] = now
                laws.applied[key[0]] += key[0] not in {"10", "12"}
            elif now - self._since[key] >= LIMITS[key[0]]:
                laws.breaks(key[0], f"for {now - self._since[key]:.0f} s {sentence}")

    def _faults(self) -> Iterator[tuple[str, str, str]]:
        """Yield what may not last: the law, what it is about, the sentence."""
        wac = self._around.laws.wac()
        if wac is None:
            self._served.clear()
            return
        routes = list(self._routes())
        yield from self._not_static(routes)
        if self._is_calm():
            yield from self._unserved(routes)
            yield from self._unassigned(routes)
            if (intent := self._around.laws.unsent()) is not None:
                yield "16", intent, f"status tells of intent {intent}, which nobody sent"
            if not wac["spec"].get("paused") and int(wac["spec"]["shards"]) == self._around.account.shards:
                yield from self._untidy(routes)
            if says_all_is_well(wac) and (missing := next(self._around.undone_in_truth(wac), None)) is not None:
                yield "12", "", f"every condition says that all is well, and it is not: {missing}"

    def _is_calm(self) -> bool:
        around, network = self._around, self._around.network
        operators = around.living()
        return not (
            len(operators) != 1
            or not operators[0].leads
            or operators[0].process.is_stopped
            or operators[0].cut_off
            or network.down
            or around.server.rejects
            or any((network.dropped, network.lost, network.late, network.touched, network.slow, network.stale))
            or any((around.tell_lost, around.api_faults, around.api_slow, around.watch_lag, around.cluster.deaf, around.cluster.lossy))
            or around.account.logged_off
            or around.loop.time() < around.account.restarting_until + EXCUSED_FOR
        )

    def _routes(self) -> Iterator[Route]:
        wac, pods = self._around.laws.wac() or {}, {pod["metadata"]["uid"]: pod for pod in self._around.laws.pods()}
        for shard, service in self._around.laws.routes():
            meta = service["metadata"]
            if any(owner.get("uid") == wac["metadata"]["uid"] for owner in meta.get("ownerReferences") or ()):
                uid = (meta.get("annotations") or {}).get(HOLDER, "").partition("/")[2]
                epoch = (service["spec"].get("selector") or {}).get(EPOCH)
                is_there = uid in pods and "deletionTimestamp" not in pods[uid]["metadata"]
                yield Route(shard, uid, epoch, self._around.cluster.machines.get(uid), is_there)

    # --- the laws ---------------------------------------------------------------------------------------------------------

    def _not_static(self, routes: list[Route]) -> Iterator[tuple[str, str, str]]:
        """Law 10: with no operator, a Coreapp that served goes on, over a restart of its container too."""
        account = self._around.account
        if any(one.leads for one in self._around.living()):
            self._served = {shard: (connection, account.restarts) for shard, connection in account.connections.items()}
            return
        for route in routes:
            mine = Connection(route.uid, route.epoch or "")
            if route.shard in self._served and self._served[route.shard][0] != mine:
                # The leader had moved it, or another party has: if it comes back to this Coreapp, that need not serve it any more.
                del self._served[route.shard]
            if self._served.get(route.shard) == (mine, account.restarts) and self._is_able(route.machine):
                self._around.laws.applied["10"] += 1
                if account.connections.get(route.shard) != mine:
                    yield "10", f"shard {route.shard}", f"no operator leads, and {route.uid} no longer serves shard {route.shard}"

    def _unserved(self, routes: list[Route]) -> Iterator[tuple[str, str, str]]:
        """Law 3 and the law of progress: a shard whose holder cannot serve is given to a standby that is ready."""
        standby = next(self._standbys(routes), None)
        for route in routes if standby is not None else ():
            machine = route.machine
            if route.shard >= self._around.account.shards or not route.uid or (route.is_there and machine and machine.is_sound):
                continue
            yield (
                "of progress",
                f"shard {route.shard}",
                f"{route.uid}, which holds shard {route.shard}, cannot, and {standby} is free",
            )
            if not route.is_there or machine is None or not machine.node.is_powered:
                yield "3", f"shard {route.shard}", f"shard {route.shard} waits for {route.uid}, which is gone, and {standby} is free"

    def _standbys(self, routes: list[Route]) -> Iterator[str]:
        holders = {route.uid for route in routes}
        for pod in self._around.laws.pods():
            meta = pod["metadata"]
            node = self._around.server.get(NODE, ("", pod["spec"].get("nodeName", "")))
            is_free = meta["uid"] not in holders and not {SHARD, EPOCH} & meta["labels"].keys() and is_ready(pod)
            if is_free and self._is_able(self._around.cluster.machines.get(meta["uid"])) and node is not None and not leaves(node):
                yield meta["name"]

    def _is_able(self, machine: Machine | None) -> bool:
        """Whether a Coreapp can serve now: it runs, is in reach, answers at once and knows the number of shards."""
        coreapp = machine.coreapp if machine is not None else None
        return bool(machine and machine.is_sound and coreapp and not coreapp.slow and coreapp.shards == self._around.account.shards)

    def _unassigned(self, routes: list[Route]) -> Iterator[tuple[str, str, str]]:
        """The law of assignment: who is named serves, and who is not does not believe so."""
        account, holders = self._around.account, {route.uid for route in routes}
        for route in routes:
            is_named = route.is_there and route.epoch is not None and route.shard < account.shards and self._is_able(route.machine)
            if is_named and account.connections.get(route.shard) != Connection(route.uid, route.epoch or ""):
                yield "of assignment", f"shard {route.shard}", f"{route.uid} has no assignment of shard {route.shard}"
        for pod in self._around.laws.pods():
            machine = self._around.cluster.machines.get(pod["metadata"]["uid"])
            believes = machine and machine.uid not in holders and machine.coreapp and machine.coreapp.assigned
            if believes and machine and self._is_able(machine) and "deletionTimestamp" not in pod["metadata"]:
                yield "of assignment", machine.uid, f"{machine.uid} has not been assigned to hold shard {believes[0]} no more"

    def _untidy(self, routes: list[Route]) -> Iterator[tuple[str, str, str]]:
        """The law of tidying: no Service of a shard that is no more, no label of a holder on a pod that is none."""
        holders = {route.uid for route in routes}
        # A call whose outcome is not known yet may still bring shards: their Services are made before it.
        most = max(self._around.account.shards, self._around.laws.intended())
        for route in routes:
            if route.shard >= most:
                yield "of tidying", f"shard {route.shard}", f"there is a Service for shard {route.shard}, which is no more"
        for pod in self._around.laws.pods():
            meta = pod["metadata"]
            is_labelled = {SHARD, EPOCH} & meta["labels"].keys() or meta["labels"].get(ROLE) != "standby"
            if meta["uid"] not in holders and is_labelled and "deletionTimestamp" not in meta:
                yield "of tidying", meta["uid"], f"{meta['name']} holds nothing and has the labels of a holder"


def was_tidied(change: Change) -> bool:
    """Whether a write took a holder's label off a pod, or a Service away: there was something to tidy."""
    if change.kind is SERVICE:
        return change.after is None
    labels = [((one or {}).get("metadata", {}).get("labels") or {}).get(EPOCH) for one in (change.before, change.after)]
    return change.kind is POD and change.after is not None and labels[0] is not None and labels[1] is None


def says_all_is_well(wac: Obj) -> bool:
    """Whether nothing that `kubectl get` shows says no."""
    text = {one["type"]: one["status"] for one in (wac.get("status") or {}).get("conditions") or ()}
    return (text.get("Ready"), text.get("Reconciling"), text.get("Stalled")) == ("True", "False", "False")
