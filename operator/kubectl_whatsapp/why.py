"""Why a cluster is in its state: the operator's own rules, run on what was read. Pure.

Some facts only the operator knows: answers to its probes, the content of Secrets, and since when a fact has held. So the result also
contains the operator's last report, and everything that was assumed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from importlib.resources import files
from inspect import cleandoc
from itertools import pairwise
from typing import Final

from kubectl_whatsapp import Obj
from kubectl_whatsapp.marks import EPOCH_LABEL, moment
from kubectl_whatsapp.reading import Read
from kubectl_whatsapp.view import leader_of
from kubectl_whatsapp.world import World, condition, counted
from whatsapp_operator.core import conditions, evidence, handovers, record, rules
from whatsapp_operator.core.actions import Plan
from whatsapp_operator.core.desired import Desired, Tuning
from whatsapp_operator.core.facts import Facts
from whatsapp_operator.core.reasons import Reason
from whatsapp_operator.core.snapshot import Call, Client, Coreapp, Node, Report, Route, Snapshot
from whatsapp_operator.shell.coreapps.schedule import ProbeResult
from whatsapp_operator.shell.kube.node import node_of
from whatsapp_operator.shell.objects import assemble
from whatsapp_operator.shell.objects.reading import SpecError, desired_of, is_ready

MAINTAINED: Final = ("Secret", "PodDisruptionBudget", "NetworkPolicy", "PersistentVolumeClaim")
"""Kinds that the operator maintains and this command does not read."""
KINDS: Final = {"services": "Service", "pods": "Pod", "statefulsets": "StatefulSet", "deployments": "Deployment"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleAnswer:
    """One rule of the operator, and whether it holds."""

    rule: str
    holds: bool
    state: str
    """What it means to the user: ``Ready``, ``Working``, ``Waiting`` or ``Stuck``."""
    why: str = ""
    """Its sentence, if it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceAnswer:
    """One entry of the table of evidence, and whether it counts against the holder of a shard."""

    evidence: str
    certainty: str
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateAnswer:
    """A Coreapp, and whether it could take the shard."""

    pod: str
    eligible: bool
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardAnswer:
    """What the rules say about one shard."""

    shard: int
    state: str
    """``Serving``, ``Moving`` or ``Unserved``; empty: there is no such shard."""
    holder: str | None = None
    sentence: str = ""
    evidence: tuple[EvidenceAnswer, ...] = ()
    candidates: tuple[CandidateAnswer, ...] = ()
    """The other Coreapps: first those that could take it, best one first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """The rule that decides, what it is based on, and what would change it."""

    namespace: str
    name: str
    at: datetime
    rule: str = ""
    state: str = ""
    sentence: str = ""
    meaning: str = ""
    what_changes_it: str = ""
    stopped: str = ""
    """Why none of it is done now; empty if an operator leads, or if that is not known."""
    said_no: tuple[RuleAnswer, ...] = ()
    """Rules that come before it and do not hold, in their order."""
    also: tuple[RuleAnswer, ...] = ()
    """Rules after it that also hold."""
    evidence: tuple[str, ...] = ()
    reported: str = ""
    """The operator's own last reason and sentence."""
    reported_advice: str = ""
    differs: str = ""
    """Why the operator's own answer may differ; empty if it is the same."""
    granted: tuple[str, ...] = ()
    """What was assumed because only the operator can know it."""
    shard: ShardAnswer | None = None
    unread: dict[str, str] | None = None
    problem: str = ""
    """Why the rules could not be run; empty if they were."""


def why(read: Read, shard: int | None = None) -> Why:
    """Return which rule decides and why; for a given shard also the evidence against its holder and which Coreapps could take it."""
    world = World(read)
    blank = Why(namespace=read.target.namespace, name=read.target.name, at=read.at, unread=read.unread_titles())
    if not world.cluster:
        cause = "it does not exist" if "cluster" in read.absent else read.unread.get("cluster", "no answer")
        return replace(blank, problem=f"The rules need the WhatsAppCluster: {cause}.")
    reported = f"{world.status['reason']}: {world.status.get('message')}" if world.status.get("reason") else ""
    blank = replace(blank, reported=reported, reported_advice=_advice(str(world.status.get("reason") or "")))
    missing = [name for name in ("pods", "services", "statefulsets") if read.items(name) is None]
    if missing:
        titles = ", ".join(read.unread_titles())
        return replace(blank, problem=f"The rules need all pods, Services and StatefulSets of the cluster; could not read {titles}.")
    try:
        desired = desired_of(world.cluster, image="", tuning=Tuning())
    except SpecError as error:
        return replace(
            blank, rule=Reason.SPEC_INVALID, sentence=str(error), meaning=_meaning("SpecInvalid"), what_changes_it=_advice("SpecInvalid")
        )
    return _answered(blank, world, desired, shard)


def _answered(blank: Why, world: World, desired: Desired, shard: int | None) -> Why:
    snapshot = _snapshot(world, desired)
    facts, plan = rules.facts(desired, snapshot), rules.plan(desired, snapshot)
    answers = [_answer(rule, facts) for rule in rules.RULES]
    first = next(number for number, one in enumerate(answers) if one.holds)
    rule = plan.decision.rule
    active = {
        str(one.get("reason")) for kind in ("Reconciling", "Stalled") if (one := condition(world.cluster, kind)).get("status") == "True"
    }
    leader = leader_of(world)
    stopped = "No operator leads: none of this is done until one does." if leader is not None and not leader.alive else ""
    is_same = rule in active if active else rule in {Reason.UP_TO_DATE, Reason.CHANGED_BY_ADMISSION}
    return replace(
        blank,
        rule=str(rule),
        state=str(plan.decision.state),
        sentence=plan.decision.why,
        meaning=_meaning(rule),
        what_changes_it=f"{'An operator must lead. ' * bool(stopped)}{_advice(rule)}",
        stopped=stopped,
        said_no=tuple(answers[:first]),
        also=tuple(one for one in answers[first + 1 :] if one.holds and one.rule != Reason.UP_TO_DATE),
        evidence=tuple(_evidence(facts, plan)),
        differs="" if is_same else _difference(world),
        granted=tuple(_granted(world, desired)),
        shard=_of_shard(facts, shard) if shard is not None else None,
    )


def _answer(rule: rules.Rule, facts: Facts) -> RuleAnswer:
    holds = rule.when(facts)
    return RuleAnswer(rule=str(rule.name), holds=holds, state=str(rule.state), why=rule.why(facts) if holds else "")


def _difference(world: World) -> str:
    judged, now = world.status.get("observedGeneration", "none"), (world.cluster.get("metadata") or {}).get("generation", "unknown")
    older = f" It last judged generation {judged} of the spec, which is now {now}." if judged != now else ""
    return f"The operator knows more than this command can read: answers to its probes, Secrets, and how long a fact has held.{older}"


# --- the snapshot ---------------------------------------------------------------------------------------------------------


def _snapshot(world: World, desired: Desired) -> Snapshot:
    """Make the operator's own snapshot from what was read. The plan for a first one names the facts whose age the final one needs."""
    gathered = assemble.Gathered(
        cluster=world.cluster, services=_kind(world, "services"), pods=_kind(world, "pods"), statefulsets=_kind(world, "statefulsets")
    )
    parts = assemble.parts_of(desired, gathered, {})
    deployments = _kind(world, "deployments")
    unread = dict.fromkeys((*MAINTAINED, *(() if world.read.items("deployments") is not None else ("Deployment",))), "")
    slow = assemble.Slow(read_at=0.0, objects=assemble.by_ref(deployments, desired.uid), names=frozenset(), secrets={}, unread=unread)
    now, noted, shards = world.read.at, record.read(world.status, uid=desired.uid), world.status.get("shards")
    call = Call(id=noted.operation.id) if noted.operation is not None else None
    known = Snapshot(
        now=now,
        nonce="none",
        leader_epoch=0,
        client=Client(shards=shards, asked_at=now, version=(world.status.get("client") or {}).get("version"), call=call),
        record=noted,
        nodes=_nodes(world),
    )
    first = assemble.snapshot_of(desired, world.cluster, parts, slow, known, responses=_reports(parts, shards))
    since = {fact: _since(world, fact) for fact in rules.plan(desired, first).holds}
    return replace(first, since=since)


def _reports(parts: assemble.Parts, shards: int | None) -> dict[str, ProbeResult]:
    """What each ready Coreapp would answer if it has the role that its Service gives it."""
    held = {route.holder_uid: route for route in parts.routes}
    found = {}
    for pod in parts.coreapp_pods:
        route = held.get(uid := pod["metadata"]["uid"])
        shard, epoch = (route.shard, route.epoch) if route is not None else (None, None)
        if is_ready(pod):
            found[uid] = ProbeResult(report=Report(shard=shard, epoch=epoch, shards=shards, gateway="connected"))
    return found


def _kind(world: World, source: str) -> tuple[Obj, ...]:
    """The items of a list, each with its kind, which the API server leaves out in lists."""
    return tuple({"kind": KINDS[source], **one} for one in world.read.items(source) or ())


def _nodes(world: World) -> dict[str, Node] | None:
    if world.read.items("nodes") is None:
        return None
    return {name: replace(node_of(obj), renewed_at=world.heartbeats.get(name)) for name, obj in world.nodes.items()}


def _since(world: World, fact: str) -> datetime:
    """Since when a fact has held, if an object records it; else since now."""
    kind, _, uid = fact.partition("/")
    pod = next((one for one in world.pods.values() if one["metadata"].get("uid") == uid), None)
    if kind == "NotReady" and pod is not None:
        return moment(condition(pod, "Ready").get("lastTransitionTime")) or world.read.at
    if kind == "NodesUnreachable" and pod is not None:
        node = world.nodes.get((pod.get("spec") or {}).get("nodeName") or "", {})
        return moment(condition(node, "Ready").get("lastTransitionTime")) or world.read.at
    return world.read.at


# --- the sentences ---------------------------------------------------------------------------------------------------


@cache
def texts() -> dict[str, tuple[str, str]]:
    """Return the meaning of each reason, and what to do: the two paragraphs of its docstring, which exists only in the source."""
    source = files("whatsapp_operator.core").joinpath("reasons.py").read_text(encoding="utf-8")
    (reasons,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    found = {}
    for name, text in pairwise(reasons.body):
        if isinstance(name, ast.Assign) and isinstance(text, ast.Expr):
            meaning, _, advice = cleandoc(ast.literal_eval(text.value)).partition("\n\n")
            found[str(ast.literal_eval(name.value))] = " ".join(meaning.split()), " ".join(advice.split())
    return found


def _meaning(reason: str) -> str:
    return texts().get(str(reason), ("", ""))[0]


def _advice(reason: str) -> str:
    return texts().get(str(reason), ("", ""))[1]


def _evidence(f: Facts, plan: Plan) -> Iterator[str]:
    replicas = f"{f.replicas} replicas, {len(f.ready)} ready" if f.snapshot.statefulset else "no StatefulSet"
    spec = f"{counted(f.desired.shards, 'shard')}, {counted(f.desired.spares, 'spare')}"
    yield f"spec: {spec}; Coreapps: {replicas}; Webapps ready: {f.webapps_ready}"
    yield f"shards according to the client: {f.shards if f.shards is not None else 'not known'}; last settled: {f.settled_shards or 'none'}"
    for route, proof in f.failed:
        yield f"shard {route.shard}: {route.holder} failed ({proof})"
    for pod in f.snapshot.coreapps:
        if not f.is_healthy(pod):
            yield f"{pod.name} is not ready" + (f" ({pod.pending_because})" if pod.pending_because else "")
    if f.operation is not None:
        yield f"Set Shards {f.operation.origin or '?'} -> {f.operation.to}, answer {f.operation.answer}, attempt {f.operation.attempts}"
    if plan.next_window_at is not None:
        yield f"the next window opens at {plan.next_window_at:%Y-%m-%dT%H:%M:%SZ}"


def _granted(world: World, desired: Desired) -> Iterator[str]:
    yield "the client still has the number of shards that the operator last reported"
    yield "every running Coreapp answers its probes, with the role that its Service gives it"
    yield "the operator passes its self-check"
    if desired.account is not None:
        yield "the account's certificate may be sent, and no other WhatsAppCluster uses its phone number"
    unread = [*MAINTAINED] + (["Deployment"] if world.read.items("deployments") is None else [])
    yield f"objects that were not read are as they should be: {', '.join(unread)}"


# --- one shard ------------------------------------------------------------------------------------------------------------


def _of_shard(f: Facts, number: int) -> ShardAnswer:
    route = next((one for one in f.routes if one.shard == number), None)
    if route is None:
        last = (f.shards or f.settled_shards or 1) - 1
        return ShardAnswer(shard=number, state="", sentence=f"There is no shard {number}; shards go from 0 to {last}.")
    pod, failure, state = f.holder(route), f.failure(route), conditions.shard_state(f, route)
    standbys = f.successors(route)
    if route.holder is None:
        sentence = "No Coreapp was ever given this shard."
    elif route.copied_by is not None:
        sentence = f"Its Service selects {route.holder} and also pod {route.copied_by}. Remove the label {EPOCH_LABEL} of that pod."
    elif failure is not None:
        moves = any(move.route.shard == number for move in handovers.failovers(f)) and not f.desired.manual
        sentence = f"{route.holder} failed ({failure}); " + (f"{standbys[0].name} takes over." if moves else "no standby takes over.")
    elif state == "Serving":
        sentence = f"{route.holder} holds it, and there is no evidence against it."
    else:
        sentence = f"{route.holder} holds it but is not ready; that alone does not prove a failure."
    answers = tuple(
        EvidenceAnswer(
            evidence=str(proof.evidence), certainty=str(proof.certainty), holds=bool(route.holder_uid) and proof.counts(f, route, pod)
        )
        for proof in evidence.EVIDENCE
    )
    return ShardAnswer(
        shard=number,
        state=state,
        holder=route.holder,
        sentence=sentence,
        evidence=answers,
        candidates=tuple(_candidates(f, route, standbys)),
    )


def _candidates(f: Facts, route: Route, standbys: list[Coreapp]) -> Iterator[CandidateAnswer]:
    yield from (CandidateAnswer(pod=pod.name, eligible=True) for pod in standbys)
    able = {pod.uid for pod in standbys} | {route.holder_uid}
    for pod in f.snapshot.coreapps:
        if pod.uid not in able:
            yield CandidateAnswer(pod=pod.name, eligible=False, why=_unfit(f, pod))


def _unfit(f: Facts, pod: Coreapp) -> str:
    held = next((route.shard for route in f.snapshot.routes if route.holder_uid == pod.uid), None)
    if held is not None:
        return f"it holds shard {held}"
    if pod.deleting:
        return "it is being deleted"
    if not f.is_healthy(pod):
        return "it is not ready" + (f": {pod.pending_because}" if pod.pending_because else "")
    if (claim := f.claim(pod)) not in {"none", "dead"}:
        return f"it carries the label of another attempt ({claim})"
    return "Set Shards is restarting it"
