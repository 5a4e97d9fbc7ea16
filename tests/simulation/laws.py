"""The laws, checked apart from the code that is to keep them: on every write of the world and on every call to the client.

Knows nothing of the operator but its labels and its status; all that it needs to judge it has seen itself.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from .apiserver import ApiServer, Change, matches
from .causes import CLAIMS, EXPLAINED_BY_A_RESTART, Causes, Connections
from .client import Account
from .crashes import Crashes, never_swallowed
from .failures import FailureLaws, Move
from .harm import BoundedHarm
from .kinds import EVENT, LEASE, POD, SECRET, SERVICE, STATEFULSET, WAC, Obj, epoch_number, is_ready
from .machines import Cluster
from .virtual import START

CLUSTER, ROLE, SHARD, EPOCH, HOLDER, EVIDENCE = (
    f"multiconnect.dev/{word}" for word in ("cluster", "role", "shard", "epoch", "holder", "evidence")
)
OBSERVED_FOR = 6.0
"""Seconds for which what an operator observed may still lead to a write: it may have been true at any time since."""
UNSEEN_FOR = 1.0
"""Seconds for which an operator may not have noticed a restart that another party began: shorter than the restart, which it must notice."""


SHORTEST_SECRET = 8
"""Letters of the shortest value that cannot stand somewhere by chance."""
NOTED_WITHIN = timedelta(seconds=4)
"""What lies between the note of an intent and its call, and the grace in which normal rules hold again already: 2 s each."""
SKEW = timedelta(seconds=1)
"""How far the clocks of two operators may be apart."""


REPORTER = "multiconnect.dev/whatsapp-operator"
"""As Events name the operator."""


class LawBroken(AssertionError):  # noqa: N818  says what happened
    """A law does not hold; the message says which, when and how."""

    is_verdict = True

    def __init__(self, law: str, text: str) -> None:
        super().__init__(text)
        self.law = law
        """The law's number or name: ``2``, ``of self-check``."""


@dataclass(slots=True)
class Call:
    """One Set Shards call on its way."""

    at: float
    actor: str
    to: int
    answered: bool = False
    """The caller knows its answer, or that it will get none."""
    took_effect: bool = False
    """A GET shows it: settled, though the caller may still wait for its answer."""
    seen: bool = False
    """An operator did ask, after it was sent, and heard its number."""


@dataclass(slots=True)
class Unknown:
    """A Set Shards call that nobody got a definite answer to."""

    to: int
    since: float
    settle_by: datetime


@dataclass
class Laws:
    """Judges. `broken` holds every violation, in the order in which they happened."""

    server: ApiServer
    account: Account
    cluster: Cluster
    now: Callable[[], float]
    crashes: Crashes
    namespace: str
    name: str
    is_operator: Callable[[str], bool]
    settles_after: timedelta
    """From the note of an intent until a call that nobody heard of can no longer take effect."""
    secrets: list[str] = field(default_factory=list)
    margin: timedelta = timedelta(hours=24)
    lenient: bool = False
    """Reads may be stale: the laws that rest on fresh reads of more than one object are not judged."""
    broken: list[tuple[str, str]] = field(default_factory=list)
    """Which law, and the sentence."""
    writes: int = 0
    """Writes of operators, Leases and Events apart."""
    events: int = 0
    handovers: list[tuple[float, int, str, str]] = field(default_factory=list)
    """Commits: when, which shard, the evidence, the holder."""
    applied: Counter[str] = field(default_factory=Counter)
    """How often the condition of each law was met: one whose condition never is was never judged."""
    did: Counter[str] = field(default_factory=Counter)
    """How often each fault that is injected did something."""
    moves: list[tuple[Move, frozenset[str]]] = field(default_factory=list)
    """Every move of a shard off a pod that held it, with its true causes."""
    on_call: Callable[[], None] = lambda: None
    """Called whenever a Set Shards call was just sent."""
    copies: set[str] = field(default_factory=set)
    """Names of pods that a test makes with the labels of a holder."""
    _log: deque[tuple[float, str | Callable[[], str]]] = field(default_factory=lambda: deque(maxlen=3000))

    def __post_init__(self) -> None:
        self._pods: tuple[list[Obj], list[Obj]] = [], []
        """All pods when they were last asked for, and which of them are Coreapps of the cluster."""
        self._routes: tuple[list[Any], list[tuple[int, Obj]]] = [], []
        """The same of Services and the cluster's uid."""
        self._prepared: dict[str, str] = {}
        self._labeller: dict[str, str] = {}
        self._highest: dict[int, int] = {}
        self._specs: list[tuple[float, int, int]] = []
        self._former_shards: list[tuple[float, int]] = []
        """Until when the client had another number of shards, and which."""
        self._former_notes: list[tuple[float, int]] = []
        """Until when another number of shards stood in status, and which."""
        self._ready: deque[tuple[float, int, int]] = deque()
        self._noted: dict[str, tuple[float, int, str]] = {}
        self._calls: list[Call] = []
        self._unknown: Unknown | None = None
        self._was_unknown = False
        self._refused: set[str] = set()
        self._final: dict[str, str | None] = {}
        """What was rejected for good, and what it depends on: no call may follow before that has changed (law 8)."""
        self._restart_began = float("-inf")
        self._others_restart_began = float("-inf")
        """The restart that another party began, of which no operator knows before it observes the Coreapps."""
        self._effects = 0
        """Calls of operators that took effect."""
        self._enough_since: float | None = None
        self.causes = Causes(self.server, self.cluster, self.now, self.is_operator)
        self.connections = Connections(self.account, self._named, self.now)
        self.failures = FailureLaws(
            server=self.server,
            cluster=self.cluster,
            now=self.now,
            broken=self.breaks,
            lenient=lambda: self.lenient,
            causes=self.causes,
            connections=self.connections,
            applied=self.applied,
        )
        self.account.on_set.append(self._shards_were_set)
        self.server.checks.append(self.check)
        BoundedHarm(
            server=self.server,
            crashes=self.crashes,
            name=self.name,
            is_operator=self.is_operator,
            spares=lambda: max((spares for _, spares in self._wanted()), default=0),
            lenient=lambda: self.lenient,
            has_responded=self.failures.has_responded,
            breaks=self.breaks,
            applied=self.applied,
        )

    def emit(self, what: str | Callable[[], str]) -> None:
        """Keep a line for the report of a failure, or what makes it: mostly nobody reads it."""
        self._log.append((self.now(), what))

    @property
    def log(self) -> list[str]:
        """What happened, a line each."""
        return [f"{at:9.3f} {what if isinstance(what, str) else what()}" for at, what in self._log]

    def breaks(self, law: int | str, sentence: str) -> None:
        text = f"law {law} at {self.now():.3f}: {sentence}"
        self.broken.append((str(law), text))
        self.emit("BROKEN " + text)

    # --- what is true ---------------------------------------------------------------------------------------------------

    def pods(self) -> list[Obj]:
        """Coreapp pods of the cluster."""
        listed = self.server.list(POD, self.namespace)
        if listed != self._pods[0]:
            self._pods = listed, [pod for pod in listed if _number(pod, f"{self.name}-coreapp-") is not None]
        return self._pods[1]

    def routes(self) -> Iterator[tuple[int, Obj]]:
        """Shard Services of the cluster."""
        wac, listed = self.wac(), self.server.list(SERVICE, self.namespace)
        known = [wac["metadata"]["uid"] if wac is not None else None, *listed]
        if known != self._routes[0]:
            numbered = [(_number(service, f"{self.name}-shard-"), service) for service in listed]
            self._routes = (
                known,
                [(n, one) for n, one in numbered if n is not None and (wac is None or _owned(one, wac["metadata"]["uid"]))],
            )
        yield from self._routes[1]

    def _named(self) -> Iterator[tuple[int, str, str]]:
        """Yield shard, pod and epoch as the shard Services name them."""
        for shard, service in self.routes():
            uid = (service["metadata"].get("annotations") or {}).get(HOLDER, "").partition("/")[2]
            epoch = (service["spec"].get("selector") or {}).get(EPOCH)
            if uid and epoch:
                yield shard, uid, epoch

    def wac(self) -> Obj | None:
        """The WhatsAppCluster."""
        return self.server.get(WAC, (self.namespace, self.name))

    # --- every write ------------------------------------------------------------------------------------------------

    @never_swallowed
    def check(self, change: Change) -> None:
        """Judge one write that just took effect."""
        if change.kind is LEASE:
            return
        self.emit(lambda: f"{change.actor:18} {change.verb:12} {change.kind.kind} {change.name[1]} {_short(change)}")
        if change.kind is SECRET and change.after is not None:
            self._note_secrets(change.after)
        if self.is_operator(change.actor):
            self._check_operator(change)
        self.causes.note(change)
        if change.kind is POD:
            self.failures.pod_changed(change)
            self._check_pod(change)
        if change.kind is SERVICE:
            self._check_service(change)
            self.connections.observe()
        if change.kind in {POD, SERVICE}:
            self._law_1(change)
        if change.kind in {POD, STATEFULSET}:
            self._note_numbers()
        if change.kind is STATEFULSET and change.after is not None and change.before is not None:
            self._check_replicas(change, change.before, change.after)
        if change.kind is WAC:
            self._check_cluster(change)

    def _law_1(self, change: Change) -> None:
        self.applied["1"] += any(service["spec"].get("selector") for _, service in self.routes())
        pods = self.server.list(POD, self.namespace, {CLUSTER: self.name})
        for shard, service in self.routes():
            selector = service["spec"].get("selector")
            there = [pod["metadata"]["name"] for pod in pods if selector and matches(selector, pod["metadata"].get("labels"))]
            # A person who makes a pod with the labels of a holder breaks the law, and no operator can prevent that.
            there = [name for name in there if name not in self.copies]
            if len(there) > 1:
                self.breaks(1, f"{change.verb} {change.name[1]} by {change.actor}: shard {shard} leads to {there}")

    def _note_secrets(self, secret: Obj) -> None:
        """From now on no operator may write a value of this Secret anywhere; a stated time is shown on purpose."""
        for encoded in (secret.get("data") or {}).values():
            value = base64.b64decode(encoded).decode("utf-8", "replace").strip()
            # Of a file its longest line: line breaks are spelled otherwise elsewhere.
            line = max(value.splitlines() or [""], key=len)
            if len(line) >= SHORTEST_SECRET and not re.fullmatch(r"[\d:TZ+.-]+", line) and line not in self.secrets:
                self.secrets.append(line)

    def _check_operator(self, change: Change) -> None:
        if change.kind is EVENT:
            self.events += 1
        else:
            self.writes += 1
        self.applied["13"] += bool(self.secrets)
        if self.secrets and change.kind is not SECRET and change.after is not None:
            text = json.dumps({key: value for key, value in change.after.items() if key != "spec"} if change.kind is WAC else change.after)
            for secret in self.secrets:
                if secret in text:
                    self.breaks(13, f"{change.kind.kind} {change.name[1]} holds a secret")
        if change.before is not None and change.kind is not WAC:
            self._law_14(change, change.before)

    def _law_14(self, change: Change, before: Obj) -> None:
        self.applied["14"] += 1
        wac = self.wac()
        owners = {owner.get("uid") for owner in before["metadata"].get("ownerReferences") or ()}
        if change.kind is POD:
            sets = self.server.list(STATEFULSET, self.namespace)
            ours = {one["metadata"]["uid"] for one in sets if wac and _owned(one, wac["metadata"]["uid"])}
            if not owners & ours and any(one["metadata"]["uid"] in owners for one in sets):
                self.breaks(14, f"{change.actor} writes pod {change.name[1]}, which belongs to another")
        elif change.kind is EVENT:
            # Events have no owner: those that the operator itself wrote about this cluster are its own, and only their series may change.
            about = before["involvedObject"]
            if (about["kind"], about["name"], before["reportingComponent"]) != ("WhatsAppCluster", self.name, REPORTER):
                self.breaks(14, f"{change.actor} {change.verb} Event {change.name[1]}, which is about {about['kind']} {about['name']}")
        elif wac is not None and wac["metadata"]["uid"] not in owners:
            self.breaks(14, f"{change.actor} {change.verb} {change.kind.kind} {change.name[1]}, which belongs to {owners or 'nobody'}")
        if change.kind is POD and change.verb == "delete":
            uid = before["metadata"]["uid"]
            holders = {(service["metadata"].get("annotations") or {}).get(HOLDER, "").partition("/")[2] for _, service in self.routes()}
            self.failures.judge_end(change, is_holder=uid in holders)
        if (change.after is None or change.verb == "delete") and not change.by_version:
            self.breaks(14, f"{change.actor} deletes {change.kind.kind} {change.name[1]} without the version that was judged")

    def _check_pod(self, change: Change) -> None:
        """Law 2: an epoch is on one pod, forever."""
        if change.after is None or change.name[1] in self.copies:
            return
        meta = change.after["metadata"]
        epoch = (meta.get("labels") or {}).get(EPOCH)
        earlier = ((change.before or {}).get("metadata", {}).get("labels") or {}).get(EPOCH)
        if epoch != earlier:
            self._labeller[meta["uid"]] = change.actor
        if epoch is None or epoch == earlier:
            return
        first = self._prepared.setdefault(epoch, meta["uid"])
        if first != meta["uid"]:
            self.breaks(2, f"epoch {epoch} is on pod {meta['uid']} and was on {first}")

    def _check_service(self, change: Change) -> None:
        """Law 2: prepared before committed, committed only by the resourceVersion that the epoch's n names, n grows."""
        if change.after is None or change.name[1] != f"{self.name}-shard-{change.name[1].rpartition('-')[2]}":
            return
        meta = change.after["metadata"]
        if not self.is_operator(change.actor):
            return
        shard = int(change.name[1].rpartition("-")[2])
        new = (change.after["spec"].get("selector") or {}).get(EPOCH)
        if change.before is None:
            if epoch_number(new) is not None:
                self.breaks(2, f"{change.name[1]} is created with a selector that may match: {new}")
            return
        if new == (change.before["spec"].get("selector") or {}).get(EPOCH):
            # What a person made of the rest of it may be taken back, to just what a commit of this epoch writes, and by version.
            whole = {CLUSTER: self.name, SHARD: str(shard), EPOCH: new}
            is_whole = change.by_version and change.after["spec"].get("selector") == whole
            if change.before["spec"].get("selector") != change.after["spec"].get("selector") and not is_whole:
                self.breaks(2, f"the selector of {change.name[1]} is changed otherwise than by a commit")
            return
        self._commit(change, shard, meta, new, change.before)

    def _commit(self, change: Change, shard: int, meta: Mapping[str, Any], new: str | None, before: Obj) -> None:
        self.applied["2"] += 1
        n = epoch_number(new)
        if n is None or change.verb == "replace":
            self.breaks(2, f"{change.name[1]} is given selector {new} by {change.verb}")
            return
        if not change.by_version or n != int(before["metadata"]["resourceVersion"]):
            self.breaks(2, f"{change.name[1]} was at {before['metadata']['resourceVersion']} when epoch {new} was committed")
        if n <= self._highest.get(shard, -1):
            self.breaks(2, f"epoch {new} of shard {shard} does not grow over {self._highest[shard]}")
        self._highest[shard] = max(n, self._highest.get(shard, -1))
        holder, _, uid = (meta.get("annotations") or {}).get(HOLDER, "").partition("/")
        if self._prepared.get(str(new)) != uid:
            self.breaks(2, f"epoch {new} is committed to {holder}, which was not prepared")
        pod = next((pod for pod in self.pods() if pod["metadata"]["uid"] == uid), None)
        if pod is not None and pod["metadata"]["labels"].get(EPOCH) != new and self.is_operator(self._labeller.get(uid, "")):
            self.breaks(2, f"epoch {new} is committed to {holder}, which an operator gave {pod['metadata']['labels'].get(EPOCH)} meanwhile")
        claim = (meta.get("annotations") or {}).get(EVIDENCE, "").partition("/")[2]
        self.handovers.append((self.now(), shard, claim or "First", holder))
        named = (before["metadata"].get("annotations") or {}).get(HOLDER, "")
        unnamed = self.causes.holder_is_unnamed(before)
        name, _, old = (self._behind(before) if unnamed else named).partition("/")
        if old and old != uid:
            move = Move(
                shard=shard,
                holder=name,
                uid=old,
                pod=next((pod for pod in self.pods() if pod["metadata"]["uid"] == old), None),
                claim=claim,
                enough=min(shards + spares for shards, spares in self._wanted()),
                is_unnamed=unnamed,
                is_named_twice=any(
                    number != shard and (other["metadata"].get("annotations") or {}).get(HOLDER, "").endswith(f"/{old}")
                    for number, other in self.routes()
                ),
            )
            causes = self.failures.judge_move(change, move)
            self.moves.append((move, frozenset(causes)))
            self._law_9(change.actor, move, causes)

    def _behind(self, service: Obj) -> str:
        """Return `<name>/<uid>` of the pod to which a Service leads, no matter what it says; empty if it leads to none."""
        there = (pod["metadata"] for pod in self.pods() if matches(service["spec"]["selector"], pod["metadata"].get("labels")))
        return next((f"{meta['name']}/{meta['uid']}" for meta in there), "")

    def _law_9(self, actor: str, move: Move, causes: set[str]) -> None:
        """Law 9: a holder that only restarts for Set Shards keeps its shard, as long as that restart is in its time."""
        machine = self.cluster.machines.get(move.uid)
        if move.pod is None or "deletionTimestamp" in move.pod["metadata"] or machine is None or machine.coreapp is None:
            return
        restarts = machine.coreapp.restarting and machine.running
        if self.lenient or not restarts or self.now() - self._restart_began > self.account.restart_seconds * 1.2:
            return
        sent = next((call for call in reversed(self._calls) if call.took_effect), None)
        if sent is None or self.now() > sent.at + (self.settles_after - NOTED_WITHIN - SKEW).total_seconds():
            return  # a call of which nothing was heard took effect so late that normal rules hold again
        if any(call.actor != actor and self.now() - call.at < OBSERVED_FOR for call in self._calls):
            return  # another leader called while this one observed; only one leader at a time can know of all restarts
        if not (causes <= EXPLAINED_BY_A_RESTART or CLAIMS.get(move.claim, frozenset()) <= EXPLAINED_BY_A_RESTART):
            return
        if self._enough_since is not None and self.now() - self._enough_since >= 9.0:
            return
        self.breaks(9, f"shard {move.shard} is taken from {move.holder} ({move.claim}), which only restarts for Set Shards")

    # --- numbers ----------------------------------------------------------------------------------------------------

    def _note_numbers(self) -> None:
        workload = self.server.get(STATEFULSET, (self.namespace, f"{self.name}-coreapp"))
        ready = sum(is_ready(pod) for pod in self.pods())
        self._ready.append((self.now(), ready, int(workload["spec"].get("replicas", 1)) if workload else 0))
        _forget(self._ready, self.now() - OBSERVED_FOR)
        enough = ready >= self.account.shards
        self._enough_since = (self._enough_since if self._enough_since is not None else self.now()) if enough else None

    def _wanted(self) -> list[tuple[int, int]]:
        """Return every (D, X) that an operator may go by: the present one and those that it may have observed just before."""
        return [(shards, spares) for until, shards, spares in self._specs if until >= self.now() - OBSERVED_FOR]

    def _check_replicas(self, change: Change, before: Obj, after: Obj) -> None:
        old, new = int(before["spec"].get("replicas", 1)), int(after["spec"].get("replicas", 1))
        if old == new or not self.is_operator(change.actor):
            return
        self.applied["4"] += 1
        if not change.by_version:
            self.breaks(4, f"replicas {old} -> {new} without the version that was judged")
        floors = [max(self.account.shards, shards, *self._intents()) + spares for shards, spares in self._wanted()]
        if new < min(old, *floors) and not self.lenient:
            self.breaks(4, f"replicas {old} -> {new}: S={self.account.shards} (D, X)={self._wanted()} intents={self._intents()}")
        # An intent counts until an operator has settled it, and each new one counts its time from when it first reads it.
        # An operator may have observed the number, or read the status, of just before another party changed it.
        former = [*self._former_shards, *self._former_notes]
        known = [0, *_numbers_in_status(self.wac()), *(shards for until, shards in former if until >= self.now() - OBSERVED_FOR)]
        most = max(
            max(floor, *(one + spares for one in known)) + max(1, spares) for floor, (_, spares) in zip(floors, self._wanted(), strict=True)
        )
        if new > max(old, most) and not self.lenient:
            self.breaks(4, f"replicas {old} -> {new}, which is more than pods out of reach can explain: at most {most}")
        if new < old and not self.lenient:
            self._law_7(old, new)

    def _law_7(self, old: int, new: int) -> None:
        self.applied["7"] += 1
        for shard, service in self.routes():
            holder, _, uid = (service["metadata"].get("annotations") or {}).get(HOLDER, "").partition("/")
            there = any(pod["metadata"]["uid"] == uid and "deletionTimestamp" not in pod["metadata"] for pod in self.pods())
            if there and int(holder.rpartition("-")[2]) >= new and shard < self.account.shards:
                self.breaks(7, f"replicas {old} -> {new} would take {holder}, which holds shard {shard}")
        # Every Coreapp that is to stay: one that leaves anyway need not come back first, unless its restart is still in its time.
        in_time = self.now() - self._restart_began <= self.account.restart_seconds * 1.2
        pods = [pod["metadata"] for pod in self.pods() if "deletionTimestamp" not in pod["metadata"]]
        staying = {meta["uid"] for meta in pods if in_time or int(meta["name"].rpartition("-")[2]) < new}
        machines = [one for one in self.cluster.machines.values() if one.uid in staying and one.coreapp is not None]
        away = [one.name[1] for one in machines if one.coreapp is not None and one.coreapp.restarting]
        if away and self.now() - self._others_restart_began > UNSEEN_FOR:
            self.breaks(7, f"replicas {old} -> {new} while {away} still restart")

    def _intents(self) -> list[int]:
        """Return the targets of Set Shards calls that may still take effect."""
        entry = _own_intent(self.wac())
        targets = [call.to for call in self._calls if not call.answered]
        if self._unknown is not None:
            targets.append(self._unknown.to)
        # One whose time is over is settled, whether or not that stands in status yet. Another party may have changed an accepted number.
        is_over = entry is not None and self.now() > self._noted_at(entry) + (self.settles_after - SKEW).total_seconds()
        is_accepted = entry is not None and entry["answer"] == "Accepted" and self.account.shards != entry["to"]
        if entry and not is_over and (is_accepted or entry["answer"] in {"None", "Unknown"}):
            targets.append(int(entry["to"]))
        return [*targets, 0]

    def _noted_at(self, entry: Mapping[str, Any]) -> float:
        """Return when an intent was noted in truth; the times in it are of a clock that may be an hour apart."""
        return self._noted[entry["id"]][0] if entry["id"] in self._noted else self.now()

    def intended(self) -> int:
        """Return the number of shards of the intent that stands in status, which may still come to be; 0 if there is none."""
        return int((_own_intent(self.wac()) or {}).get("to", 0))

    def unsent(self) -> str | None:
        """Return the id of an intent that stands in status although no call followed its note."""
        entry = _own_intent(self.wac()) or {}
        at, to, actor = self._noted.get(str(entry.get("id")), (0.0, 0, ""))
        is_sent = any(call.actor == actor and call.to == to and call.at >= at for call in self._calls)
        return str(entry["id"]) if actor and not is_sent else None

    def _check_cluster(self, change: Change) -> None:
        if change.after is None:
            return
        spec = change.after["spec"]
        if change.before is None or change.before["spec"] != spec:
            self._specs = [(min(until, self.now()), shards, spares) for until, shards, spares in self._specs]
            self._specs.append((float("inf"), int(spec["shards"]), int(spec.get("spares", 1))))
        self._former_notes += [(self.now(), one) for one in _numbers_in_status(change.before) - _numbers_in_status(change.after)]
        operation = _own_intent(change.after)
        earlier = _own_intent(change.before)
        if operation and operation["id"] != (earlier or {}).get("id"):
            self._noted[operation["id"]] = (self.now(), int(operation["to"]), change.actor)
            if not change.by_version:
                self.breaks(5, "an intent is noted without compare-and-swap")
            if int(operation["to"]) != int(spec["shards"]):
                self.breaks(5, f"the intent of {operation['to']} shards is noted while {spec['shards']} are wanted")

    # --- the client --------------------------------------------------------------------------------------------------

    @never_swallowed
    def _shards_were_set(self, before: int, after: int) -> None:
        self.emit(f"the client restarts, shards {before} -> {after}")
        self._former_shards.append((self.now(), before))
        effects, self._effects = self._effects, sum(call.took_effect for call in self._calls)
        # No operator can know of a call that another party made: that such a restart is none of a failure nobody promises (law 9).
        was_an_operator = self._effects > effects
        self._restart_began = self.now() if was_an_operator else float("-inf")
        self._others_restart_began = float("-inf") if was_an_operator else self.now()
        self.applied["9"] += any((service["metadata"].get("annotations") or {}).get(HOLDER) for _, service in self.routes())
        self._enough_since = None

    @never_swallowed
    def sent(self, actor: str, body: Mapping[str, Any]) -> Call:
        """Judge a Set Shards call at the instant at which it is sent."""
        to = int(body["shards"])
        call = Call(self.now(), actor, to)
        self.emit(f"{actor:18} POST shards {to}")
        self.applied["5"] += 1
        under_way = [one for one in self._calls if not (one.answered or one.took_effect)]
        if under_way:
            self.breaks(5, f"{actor} sends Set Shards({to}) while a call of {under_way[0].actor} is under way")
        # An operator that calls after an answer that did not come must have asked meanwhile.
        self.applied["6"] += self._was_unknown
        self._was_unknown = False
        if self._unknown is not None:
            self.breaks(6, f"{actor} sends Set Shards({to}) while the answer to the call at {self._unknown.since:.1f} is unknown")
        noted = [at for at, target, _ in self._noted.values() if target == to and self.now() - at <= 2.0]
        if not noted:
            self.breaks(5, f"{actor} sends Set Shards({to}), which was not noted within the last 2 s")
        _forget(self._ready, self.now() - OBSERVED_FOR)
        if not any(ready >= to and replicas >= to for _, ready, replicas in self._ready) and not self.lenient:
            self.breaks(5, f"Set Shards({to}) with {list(self._ready)[-1:]} Coreapps ready")
        if self.account.shards == to:
            self.breaks(5, f"Set Shards({to}), which the client has already")
        self._law_8(body)
        self._calls.append(call)
        return call

    @never_swallowed
    def refused_for_good(self, what: str, body: Mapping[str, Any]) -> None:
        """Note a rejection that no second call may follow as long as nothing has changed."""
        if what == "certificate" and body.get("cert") is not None:
            self._refused.add(body["cert"])
        else:
            self._final[what] = self._depends_on(what)

    def _depends_on(self, what: str) -> str | None:
        """Return what a person has to change before the call may be made again; None: nothing helps."""
        if what == "account":
            return None
        if what == "build":
            return repr((self.wac() or {})["spec"].get("client"))
        secret = self.server.get(SECRET, (self.namespace, "account"))
        return secret["metadata"]["resourceVersion"] if secret else str((self.wac() or {})["metadata"]["generation"])

    def _law_8(self, body: Mapping[str, Any]) -> None:
        for what, key in self._final.items():
            self.applied["8"] += 1
            if key is None or key == self._depends_on(what):
                self.breaks(8, f"Set Shards is sent again although the {what} was rejected for good")
        secret = self.server.get(SECRET, (self.namespace, "account"))
        sent = body.get("cert")
        if sent is None:
            return
        self.applied["8"] += 1
        data = (secret or {}).get("data") or {}
        expires = _text(data.get("expiresAt"))
        if sent in self._refused:
            self.breaks(8, "a certificate is sent again that was rejected")
        try:
            base64.b64decode(sent, validate=True)
        except ValueError:
            self.breaks(8, "a certificate is sent that is not base64")
        if _text(data.get("certificate")) == sent:
            at = datetime.fromisoformat(expires) if expires else None
            if at is None or at - (START + timedelta(seconds=self.now())) < self.margin - timedelta(seconds=OBSERVED_FOR):
                self.breaks(8, f"a certificate is sent that expires at {expires or 'an unknown time'}")

    @never_swallowed
    def ended(self, call: Call, *, definite: bool, refused: str | None = None) -> None:
        """Note what the caller learned of its call: a definite answer, or nothing (also when it was killed)."""
        call.answered = True
        self.emit(f"{call.actor:18} POST shards {call.to}: {'answered' if definite else 'no answer'}")
        if refused is not None:
            self._refused.add(refused)
        if not definite and not call.seen:
            noted = max((at for at, target, _ in self._noted.values() if target == call.to), default=call.at)
            settle_by = START + timedelta(seconds=noted) + self.settles_after
            self._was_unknown = True
            self._unknown = Unknown(call.to, call.at, settle_by)

    @never_swallowed
    def asked(self, sent_at: float, shards: int) -> None:
        """Note an answer to GET that an operator heard, to a question sent at `sent_at`."""
        for call in self._calls[-3:]:
            call.seen |= sent_at >= call.at and shards == call.to
        unknown = self._unknown
        if unknown is None or sent_at < unknown.since:
            return
        if shards == unknown.to or START + timedelta(seconds=sent_at) > unknown.settle_by - SKEW:
            self._unknown = None


def _forget(series: deque[tuple[float, int, int]], before: float) -> None:
    """Drop what is older, but for the last entry of that time: it held until the next one."""
    while len(series) > 1 and series[1][0] < before:
        series.popleft()


def _own_intent(wac: Obj | None) -> Obj | None:
    """Return the intent in a cluster's status; None of one that names another resource, whose status was restored as this one's."""
    found: Obj | None = ((wac or {}).get("status") or {}).get("operation")
    return found if found and found.get("uid") in {None, (wac or {})["metadata"]["uid"]} else None


def _numbers_in_status(wac: Obj | None) -> set[int]:
    """Return the numbers of shards that an operator which reads this status has to reckon with."""
    status = (wac or {}).get("status") or {}
    noted = status.get("settledShards"), (status.get("operation") or {}).get("from"), (_own_intent(wac) or {}).get("to")
    return {int(number) for number in noted if number}


def _number(obj: Obj, prefix: str) -> int | None:
    """Return the number that ends an object's name, if the rest of the name is just this."""
    name = obj["metadata"]["name"]
    number = name.removeprefix(prefix)
    return int(number) if number != name and number.isdigit() and str(int(number)) == number else None


def _owned(obj: Obj, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in obj["metadata"].get("ownerReferences") or ())


def _text(value: str | None) -> str:
    return base64.b64decode(value or "").decode()


def _short(change: Change) -> str:
    if change.kind is EVENT and change.after is not None:
        return f"{change.after['reason']}: {change.after['message'][:120]}"
    if change.before is None or change.after is None:
        return ""
    old, new = change.before["metadata"], change.after["metadata"]
    said = {part: (old.get(part), new.get(part)) for part in ("labels", "annotations", "deletionTimestamp")}
    said |= {part: (change.before.get(part), change.after.get(part)) for part in ("spec", "status")}
    return " ".join(f"{part}={_difference(*pair)}"[:300] for part, pair in said.items() if pair[0] != pair[1])


def _difference(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {key: new.get(key) for key in sorted({*old, *new}) if old.get(key) != new.get(key)}
    return new
