"""The laws of failures: no Coreapp is failed over or ended for a silence that did not exist, was too short, or was caused by the operator.

Judged by what was on the wires between each operator process and each Coreapp, and by what the world did to them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .apiserver import ApiServer, Change
from .causes import CLAIMS, JUST_NOW, PROBABLE, Causes, Connections
from .client import ConnectionLog
from .kinds import STATEFULSET, Obj, is_ready
from .machines import Cluster, revision_of
from .virtual import Process

UNHEALTHY_AFTER = 3.0
"""Of every simulated cluster: the default of spec.failover.unhealthyAfterSeconds."""
SLACK = 0.8
"""Seconds by which a silence may be less than is claimed: half a round, since when it began lies between two probes, and what a process may
misjudge of how long it stood still itself."""
REMEMBERS_LATENESS = 4.5
"""Seconds for which a process that was late must fail its self-check."""


class NotedConnection(ConnectionLog):
    """What one process asks one Coreapp and hears of it."""

    def __init__(self, process: Process, now: Callable[[], float]) -> None:
        self._process = process
        self._now = now
        self._first: float | None = None
        self._dialled: float | None = None
        self.is_known = False
        """It has answered before."""

    def asks(self) -> None:
        self._first = self._now() if self._first is None else self._first

    def dials(self) -> None:
        self._dialled = self._now()
        self.asks()

    def hears(self) -> None:
        self._first, self.is_known = self._dialled, True

    def gave_up(self) -> None:
        self._dialled = None

    def silence(self) -> float:
        """Return for how many seconds its questions have been unanswered, those apart in which the process stood still."""
        return self._process.awake_since(self._first) if self._first is not None else 0.0


@dataclass(frozen=True, slots=True)
class Observed:
    """What one process knew when it judged."""

    at: float
    self_check: str | None
    """Why its self-check failed."""
    silent: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Move:
    """A shard that is moved off one pod to another."""

    shard: int
    holder: str
    """Name of the pod that held it."""
    uid: str
    pod: Obj | None
    """That pod; None if it is gone."""
    claim: str
    """Why, in the operator's word."""
    enough: int
    """Pods that are wanted: higher ordinals are to go."""
    is_named_twice: bool
    """Another shard's Service names the same pod."""
    is_unnamed: bool = False
    """A foreign writer wrote over the name of the holder, so that no pod is named."""


@dataclass(frozen=True, slots=True)
class Gone:
    """A pod that is gone."""

    at: float
    causes: frozenset[str]
    """What was true of it until then that may move a shard off it."""


def is_outdated(server: ApiServer, pod: Obj) -> bool:
    """Whether a Coreapp's pod has another template than the StatefulSet makes pods of now."""
    meta = pod["metadata"]
    owner = next((one["name"] for one in meta.get("ownerReferences") or () if one["kind"] == STATEFULSET.kind), "")
    workload = server.get(STATEFULSET, (meta["namespace"], owner))
    return workload is not None and meta["labels"].get("controller-revision-hash") != revision_of(workload)


@dataclass
class FailureLaws:
    """Judges moves of shards and the ends of hung pods."""

    server: ApiServer
    cluster: Cluster
    now: Callable[[], float]
    broken: Callable[[str, str], None]
    lenient: Callable[[], bool]
    causes: Causes
    connections: Connections
    applied: Counter[str]
    """How often the condition of each law was met."""
    observations: dict[str, deque[Observed]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._listener: dict[tuple[Process, str], NotedConnection] = {}
        self._watches_since: dict[Process, float] = {}
        self._unready_since: dict[str, float] = {}
        self._unready_until: dict[str, float] = {}
        """Until when a pod was not ready for as long as counts."""
        self._gone: dict[str, Gone] = {}
        self.cluster.listener = self._connection_log

    def _connection_log(self, process: Process | None, uid: str) -> ConnectionLog:
        if process is None:
            return ConnectionLog()
        return self._listener.setdefault((process, uid), NotedConnection(process, self.now))

    def has_responded(self, actor: str, uid: str) -> bool:
        """Return whether a process of this name was ever answered by a pod."""
        return any(
            connection_log.is_known for (process, one), connection_log in self._listener.items() if one == uid and process.name == actor
        )

    # --- what a process knows ---------------------------------------------------------------------------------------------

    def watches(self, process: Process, uids: set[str]) -> None:
        """Note whom a process watches; of others it forgets what it heard."""
        if uids:
            self._watches_since.setdefault(process, self.now())
        else:
            self._watches_since.pop(process, None)
        for one, uid in [key for key in self._listener if key[0] is process and key[1] not in uids]:
            del self._listener[one, uid]

    def looked(self, process: Process, *, knows_nodes: bool) -> None:
        """Note that a process judges now, by what it has heard so far."""
        mine = {uid: connection_log for (one, uid), connection_log in self._listener.items() if one is process}
        silent = {uid: connection_log.silence() for uid, connection_log in mine.items()}
        self_check = self._lateness(process) or self._majority(mine, silent, knows_nodes=knows_nodes)
        observations = self.observations.setdefault(process.name, deque(maxlen=400))
        observations.append(Observed(self.now(), self_check, {uid: span for uid, span in silent.items() if span > 0}))

    def _lateness(self, process: Process) -> str | None:
        since = self._watches_since.get(process, self.now())
        late = [end - begin for begin, end in process.pauses if end >= self.now() - REMEMBERS_LATENESS and begin > since]
        return f"it stood still for {max(late):.1f} s" if late and max(late) >= 1.2 else None

    def _majority(self, listener: Mapping[str, NotedConnection], silent: Mapping[str, float], *, knows_nodes: bool) -> str | None:
        mute = [uid for uid in listener if silent[uid] > 1.3]
        judged = {*mute, *(uid for uid, connection_log in listener.items() if connection_log.is_known)}
        machines = [machine for uid in mute if (machine := self.cluster.machines.get(uid)) is not None]
        # Without a word of nodes, only a kubelet that calls the pod ready speaks for its node.
        machines = [machine for machine in machines if knows_nodes or machine.uid not in self._unready_since]
        nodes = {machine.node.name for machine in machines if self._is_surely_alive(machine.node.name)}
        if 2 * len(mute) > len(judged) and len(nodes) >= 3:
            return f"{len(mute)} of {len(judged)} Coreapps on living nodes {sorted(nodes)} are silent to it"
        return None

    def _is_surely_alive(self, name: str) -> bool:
        node, renewed = self.cluster.node_pool.nodes[name], self.cluster.node_pool.renewed_at(name)
        return node.is_reachable and renewed is not None and self.now() - node.since > 15.0

    def _observation_of(self, change: Change) -> Observed | None:
        """Return the observation by which a write was decided."""
        return next(
            (observation for observation in reversed(self.observations.get(change.actor, ())) if observation.at <= change.asked_at), None
        )

    # --- pods -------------------------------------------------------------------------------------------------------------

    def pod_changed(self, change: Change) -> None:
        """Note since when a pod is ready, or not, and what was true of one that is gone."""
        pod = change.after or change.before or {}
        uid, ready = pod["metadata"]["uid"], change.after is not None and is_ready(change.after)
        if change.after is None:
            self._gone[uid] = Gone(self.now(), frozenset(self._causes_of_pod(uid, pod, self.now())))
        if ready and uid in self._unready_since and self.now() - self._unready_since[uid] >= UNHEALTHY_AFTER - SLACK:
            self._unready_until[uid] = self.now()
        if ready:
            self._unready_since.pop(uid, None)
        else:
            self._unready_since.setdefault(uid, self.now())

    # --- the laws -----------------------------------------------------------------------------------------------------------

    def judge_move(self, change: Change, move: Move) -> set[str]:
        """Judge a move of a shard off its holder when it is committed: the world must have caused it, no matter what the operator says.

        Returns its true causes.
        """
        observation = self._observation_of(change)
        causes = self._causes(observation, move)
        self.applied["of sound holders"] += 1
        machine = self.cluster.machines.get(move.uid)
        self.applied["3"] += move.pod is None or "deletionTimestamp" in move.pod["metadata"] or machine is None or not machine.running
        what = f"{change.actor} moves shard {move.shard} off {move.holder} (it says {move.claim})"
        self.applied["of claims"] += bool(causes)
        if not causes:
            silence = observation.silent.get(move.uid, 0.0) if observation is not None else 0.0
            self.broken("of sound holders", f"{what}, which is sound, and nobody asked for it (silent for {silence:.2f} s)")
        elif not causes & CLAIMS.get(move.claim, frozenset()) and not self.lenient():
            self.broken("of claims", f"{what}; true is {sorted(causes)}")
        if observation is not None and observation.self_check is not None:
            self.applied["of self-check"] += 1
            if (causes <= PROBABLE or CLAIMS.get(move.claim, frozenset()) <= PROBABLE) and not self.lenient():
                self.broken("of self-check", f"{what} although {observation.self_check}")
        return causes

    def _causes(self, observation: Observed | None, move: Move) -> set[str]:
        """Return everything that the world did to move this shard off this holder."""
        pod, found = move.pod, set[str]()
        if pod is None or "deletionTimestamp" in pod["metadata"]:
            found.add("deleted")
        if self.causes.was_asked_for(move.shard):
            found.add("asked")
        if self.causes.labels_were_taken(move.uid):
            found.add("labels")
        if move.is_named_twice:
            found.add("named twice")
        if move.is_unnamed:
            found.add("holder unnamed")
        # So it was, also if its pod is gone since the operator decided.
        if int(move.holder.rpartition("-")[2]) >= move.enough:
            found.add("surplus")
        if observation is not None and observation.silent.get(move.uid, 0.0) >= UNHEALTHY_AFTER - SLACK:
            found.add("silent")
        if pod is not None:
            return found | self._causes_of_pod(move.uid, pod, observation.at if observation is not None else self.now())
        # The operator may have decided before it went.
        gone = self._gone.get(move.uid)
        return found | {"ended with its pod"} | (gone.causes if gone is not None and self.now() - gone.at <= JUST_NOW else frozenset())

    def _causes_of_pod(self, uid: str, pod: Obj, seen_at: float) -> set[str]:
        """Return what is true of a pod that is there and was seen at that time."""
        found = self.causes.of_nodes(pod["spec"].get("nodeName", ""))
        if self.causes.has_copy(pod):
            found.add("copied")
        if self.causes.is_troubled(self.cluster.machines.get(uid)):
            found.add("trouble")
        if self.connections.failed(uid):
            found.add("not served")
        if is_outdated(self.server, pod):
            found.add("outdated")
        is_unready = seen_at - self._unready_since.get(uid, seen_at) >= UNHEALTHY_AFTER - SLACK
        if is_unready or seen_at - self._unready_until.get(uid, float("-inf")) <= JUST_NOW:
            found.add("unready")
        return found

    def judge_end(self, change: Change, *, is_holder: bool) -> None:
        """Judge the deletion of a pod by an operator: it hung, for twice the time if it still held its shard, and its node lives.

        Or it has another template than new ones get: then it is no holder, or is not ready.
        """
        observation, pod = self._observation_of(change), change.before or {}
        if observation is None or self.lenient():
            return
        if is_outdated(self.server, pod) and not (is_holder and is_ready(pod)):
            return
        self.applied["of hung pods"] += 1
        uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
        least = UNHEALTHY_AFTER * (2 if is_holder else 1)
        unready = observation.at - self._unready_since[uid] if uid in self._unready_since else 0.0
        silence = max(observation.silent.get(uid, 0.0), unready)
        if observation.self_check is not None:
            self.broken("of self-check", f"{change.actor} ends {name} although {observation.self_check}")
        if silence < least - SLACK:
            held = "still holds a shard and " if is_holder else ""
            self.broken("of hung pods", f"{change.actor} ends {name}, which {held}was silent for {silence:.2f} s only")
        machine = self.cluster.machines.get(uid)
        # Lost before the first question that was not answered: no Lease was renewed after that.
        if machine is not None and not machine.node.is_reachable and observation.at - machine.node.since > silence:
            self.broken("of hung pods", f"{change.actor} ends {name} on {machine.node.name}, which is lost")
