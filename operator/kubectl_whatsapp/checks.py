"""Prerequisites and health, one line for each check: one table. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from kubectl_whatsapp import Obj
from kubectl_whatsapp.model import Level, View
from kubectl_whatsapp.reading import Read
from kubectl_whatsapp.view import view
from kubectl_whatsapp.world import World, are_ready, condition, counted

Answer = tuple[Level, str]
WORST: Final = (Level.CRITICAL, Level.UNKNOWN, Level.WARNING, Level.OK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check, its result, and where to read more."""

    name: str
    level: Level
    sentence: str
    hint: str
    """Page and heading in the documentation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All checks of a cluster."""

    namespace: str
    name: str
    at: datetime
    level: Level
    """The worst of them."""
    sentence: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a check is based on."""

    world: World
    view: View


def _reachable(f: Facts) -> Answer:
    unread = f.view.unread
    if not unread:
        return Level.OK, f"everything was read in {f.view.seconds:.2f} s."
    level = Level.WARNING if f.world.cluster else Level.UNKNOWN
    return level, "; ".join(f"could not read {what} ({why})" for what, why in unread.items()) + "."


def _leader(f: Facts) -> Answer:
    leader = f.view.leader
    if leader is None:
        return Level.UNKNOWN, "the operator's Lease could not be read."
    return (
        (Level.OK, f"{leader.holder} leads.")
        if leader.alive
        else (Level.CRITICAL, "no operator leads: the next failure would move no shard.")
    )


def _replicas(f: Facts) -> Answer:
    ready = f.view.leader.replicas_ready if f.view.leader else None
    if ready is None:
        why = f.world.read.unread.get("operators")
        return Level.UNKNOWN, f"the operator's pods could not be read ({why})." if why else "no pod of the operator was found."
    return _two_apart([pod for pod in f.world.read.items("operators") or () if not f.world.pod_trouble(pod)], "replica")


def _two_apart(pods: list[Obj], what: str) -> Answer:
    """Whether two of these ready pods survive the loss of any node."""
    if len(pods) < 2:
        return Level.WARNING, f"{are_ready(len(pods), what)}; it takes two to survive a failure."
    if len({(pod.get("spec") or {}).get("nodeName") for pod in pods}) < 2:
        return Level.WARNING, f"all {what}s are on one node."
    return Level.OK, f"{are_ready(len(pods), what)}."


def _cluster(f: Facts) -> Answer:
    verdict = f.view.verdict
    return verdict.level, verdict.sentence


def _spec(f: Facts) -> Answer:
    generation, observed = (f.world.cluster.get("metadata") or {}).get("generation"), f.world.status.get("observedGeneration")
    if generation == observed:
        return Level.OK, f"the operator has observed generation {generation} of the spec."
    return Level.WARNING, f"the operator has observed generation {observed} of the spec; the newest is {generation}."


def _condition(kind: str, good: str, bad: Level) -> Callable[[Facts], Answer]:
    def judge(f: Facts) -> Answer:
        found = condition(f.world.cluster, kind)
        if not found:
            return Level.UNKNOWN, f"the operator has not reported condition {kind}."
        sentence = f"{found.get('reason')}: {found.get('message')}"
        if found.get("status") == good:
            return Level.OK, sentence
        return (Level.UNKNOWN if found.get("status") == "Unknown" else bad), sentence

    return judge


def _spread(f: Facts) -> Answer:
    holders = [one.node for one in f.view.shards if one.node]
    if not holders:
        return Level.UNKNOWN, "no holder is known."
    # A spare on the same node is lost with it.
    spares = {node: sum(one.eligible and one.node != node for one in f.view.standbys) for node in holders}
    node = max(spares, key=lambda one: holders.count(one) - spares[one])
    if holders.count(node) <= spares[node]:
        return Level.OK, "no node has more holders than there are spares on other nodes."
    few = f"only {counted(spares[node], 'spare')} on other nodes could take over"
    return Level.WARNING, f"node {node} has {counted(holders.count(node), 'holder')}, but {few}: its loss leaves shards unserved."


def _apart(f: Facts) -> Answer:
    webapps = [pod for pod in f.world.component("webapp") if not f.world.pod_trouble(pod)]
    if f.world.read.items("pods") is None:
        return Level.UNKNOWN, "pods could not be read."
    return _two_apart(webapps, "Webapp")


def _paused(f: Facts) -> Answer:
    return (Level.WARNING, "planned changes are held.") if f.world.is_paused else (Level.OK, "planned changes are not held.")


def _mode(f: Facts) -> Answer:
    is_manual = (f.world.spec.get("failover") or {}).get("mode") == "Manual"
    return (
        (Level.WARNING, "spec.failover.mode is Manual: the operator moves no shard by itself.")
        if is_manual
        else (Level.OK, "failovers are automatic.")
    )


CHECKS: Final[tuple[tuple[str, str, Callable[[Facts], Answer]], ...]] = (
    ("reading", "docs/kubectl.md#rights", _reachable),
    ("operator leads", "docs/architecture.md#leadership", _leader),
    ("operator replicas", "docs/production-checklist.md#the-operator", _replicas),
    ("cluster", "docs/kubectl.md#status", _cluster),
    ("newest spec", "docs/reasons.md#ready", _spec),
    ("nothing stalled", "docs/reasons.md#stalled", _condition("Stalled", "False", Level.WARNING)),
    ("spares", "docs/reasons.md#redundant", _condition("Redundant", "True", Level.WARNING)),
    ("certificate", "docs/reasons.md#certificatevalid", _condition("CertificateValid", "True", Level.WARNING)),
    ("holders are spread", "docs/production-checklist.md#a-cluster", _spread),
    ("Webapps", "docs/production-checklist.md#a-cluster", _apart),
    ("not paused", "docs/kubectl.md#pause-and-resume", _paused),
    ("automatic failover", "docs/failover.md", _mode),
)
"""Name, hint and check, in the order in which they are shown."""
OF_THE_CLUSTER: Final = 3
"""The index of the last check that works without a cluster."""


def check(read: Read) -> Report:
    """Return the result of each check; without a cluster, only of those that need none."""
    facts = Facts(World(read), view(read))
    kept = CHECKS if facts.world.cluster else CHECKS[: OF_THE_CLUSTER + 1]
    answers = [
        Check(name=name, level=level, sentence=sentence, hint=hint) for name, hint, judge in kept for level, sentence in [judge(facts)]
    ]
    level = next(level for level in WORST if any(one.level is level for one in answers))
    good = sum(one.level is Level.OK for one in answers)
    return Report(
        namespace=read.target.namespace,
        name=read.target.name,
        at=read.at,
        level=level,
        sentence=f"{good} of {len(answers)} checks passed.",
        checks=tuple(answers),
    )
