"""Plans that break the laws, each in a snapshot in which the real plan keeps them, and what the law's check says of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple
from unittest import mock

from whatsapp_operator.core import always, evidence, handovers, manifests, objections, rules, scaling, set_shards
from whatsapp_operator.core.actions import Action, AssignRole, ClearLabels, Delete, Handover, Plan, Relabel, Scale, SetShards, Touch
from whatsapp_operator.core.desired import Desired
from whatsapp_operator.core.facts import Facts
from whatsapp_operator.core.names import Epoch
from whatsapp_operator.core.snapshot import AccountSecret, Answer, Call, Coreapp, Operation, Report, Route, Snapshot

from . import laws
from .laws import Check, PlanOf
from .situations import NOW, Situation, labels_for, seconds, situation
from .witnesses import WITNESSES, growing, restarting

Patch = tuple[Any, str, Any]


class Mutant(NamedTuple):
    """A plan that breaks a law, and where."""

    name: str
    check: Check
    how: str
    """What the check says of it."""
    plan: PlanOf
    one: Situation


# --- broken planners ------------------------------------------------------------------------------------------------------


def patched(*patches: Patch) -> PlanOf:
    """The planner with some functions, properties or tables replaced."""

    def plan(desired: Desired, snapshot: Snapshot) -> Plan:
        with ExitStack() as stack:
            for where, name, value in patches:
                stack.enter_context(mock.patch.object(where, name, value))
            return rules.plan(desired, snapshot)

    return plan


def row(name: str, **changes: Any) -> Patch:
    """One row changed."""
    return (rules, "RULES", tuple(replace(one, **changes) if one.name == name else one for one in rules.RULES))


def without_objection(name: str) -> PlanOf:
    """The planner that does not object for one reason."""
    return patched(
        (objections, "OBJECTIONS", tuple(one for one in objections.OBJECTIONS if one.name != name)),
        (rules, "RULES", tuple(one for one in rules.RULES if one.name != name)),
    )


def adding(*actions: Action) -> PlanOf:
    """The planner that does something more."""

    def plan(desired: Desired, snapshot: Snapshot) -> Plan:
        made = rules.plan(desired, snapshot)
        return replace(made, actions=(*made.actions, *actions))

    return plan


def altering(kind: type[Action], **changes: Any) -> PlanOf:
    """The planner that does every action of one kind with other values."""

    def plan(desired: Desired, snapshot: Snapshot) -> Plan:
        made = rules.plan(desired, snapshot)
        return replace(made, actions=tuple(replace(one, **changes) if isinstance(one, kind) else one for one in made.actions))

    return plan


def intending(**changes: Any) -> PlanOf:
    """The planner that calls Set Shards with another intent."""

    def plan(desired: Desired, snapshot: Snapshot) -> Plan:
        made = rules.plan(desired, snapshot)
        calls = [replace(one, operation=replace(one.operation, **changes)) for one in made.actions if isinstance(one, SetShards)]
        return replace(made, actions=(*(one for one in made.actions if not isinstance(one, SetShards)), *calls))

    return plan


def remembering(**changes: Any) -> PlanOf:
    """The planner that reports other things than it remembers; ``operation``: what changes the intent."""

    def plan(desired: Desired, snapshot: Snapshot) -> Plan:
        made = rules.plan(desired, snapshot)
        return replace(made, record=replace(made.record, **{name: change(made) for name, change in changes.items()}))

    return plan


def calling_for(to: int) -> PlanOf:
    """The planner that calls Set Shards with any observation."""
    noted = Operation(id="mutant", to=to, leader_epoch=5, started_at=NOW, settle_by=NOW + seconds(840), deadline=NOW + seconds(180))
    return adding(SetShards(operation=noted))


def _no_claims(_: Facts, __: Coreapp) -> str:
    return "none"


def _epoch_before(f: Facts, moves: Any, **options: Any) -> Iterator[Handover]:
    for move in HANDOVERS(f, moves, **options):
        yield replace(move, epoch=Epoch(move.route.version - 1, move.epoch.random))


def _one_pod_for_all(f: Facts, moves: Any, **options: Any) -> Iterator[Handover]:
    made = list(HANDOVERS(f, moves, **options))
    yield from (replace(move, to=made[0].to) for move in made)


def _one_shard_for_all(f: Facts, moves: Any, **options: Any) -> Iterator[Handover]:
    made = list(HANDOVERS(f, moves, **options))
    yield from (replace(move, route=made[0].route) for move in made)


def _raises(_: Facts) -> bool:
    msg = "a row that raises"
    raise ValueError(msg)


def _differs() -> PlanOf:
    count = itertools.count()
    return lambda desired, snapshot: rules.plan(desired, replace(snapshot, nonce=f"{next(count)}"))


HANDOVERS = handovers.paired
ALWAYS: Callable[[Facts], bool] = lambda _: True  # noqa: E731
NEVER: Callable[[Facts], bool] = lambda _: False  # noqa: E731
NO_CLAIMS = patched((Facts, "claim", _no_claims))
CALL_ANYWAY = patched((set_shards, "may_call", lambda f: f.resize_is_wanted))
SHRINK_AT_ONCE = row("ScalingDown", then=lambda f: scaling.scale(f, f.desired_replicas))
SHRINK_ANYWAY = patched((rules, "_may_shrink", ALWAYS))

# --- where they break the laws --------------------------------------------------------------------------------------------

SETTLED = situation().settled()
FAILING = WITNESSES["FailingOver"]
TWO_FAIL = situation().settled(shards=4, spares=2).holder_deleted(0).holder_deleted(1)
UNKNOWN = growing().noted(4, Answer.UNKNOWN)
P0, P1, P2 = SETTLED.snapshot.coreapps
R0: Route = SETTLED.route(0)
ANOTHER_OWNERS = replace(R0, foreign=True)
NOT_TRIED_BEFORE = SETTLED.wanting(shards=2)


def scaled(replicas: int) -> Scale:
    """The StatefulSet of ``SETTLED`` with other replicas."""
    return Scale(ref=manifests.coreapp_statefulset("acme"), uid="sts", resource_version="9", replicas=replicas)


ORDER_OF_HOLDERS = [
    Mutant(
        "a row raises",
        laws.plan_is_total,
        "it raises ValueError('a row that raises')",
        patched(row("ReplacingPods", when=_raises)),
        SETTLED,
    ),
    Mutant("chance", laws.plan_is_total, "two plans of one snapshot differ", _differs(), FAILING),
    Mutant(
        "one pod for two shards",
        laws.law_1_one_holder,
        "a pod is given two shards",
        patched((handovers, "paired", _one_pod_for_all)),
        TWO_FAIL,
    ),
    Mutant(
        "two pods for one shard",
        laws.law_1_one_holder,
        "a shard is given to two pods",
        patched((handovers, "paired", _one_shard_for_all)),
        TWO_FAIL,
    ),
    Mutant(
        "a new holder is ended",
        laws.law_1_one_holder,
        "a pod that is given a shard is ended",
        adding(Delete.of(P2)),
        SETTLED.holder_deleted(0),
    ),
    Mutant(
        "an epoch on two pods",
        laws.law_1_one_holder,
        "10-first would be on a second pod",
        adding(Relabel(coreapp=P2, route=R0)),
        SETTLED,
    ),
    Mutant(
        "a standby is labelled",
        laws.law_1_one_holder,
        "a pod is labelled that the Service does not name",
        adding(Relabel(coreapp=P2, route=R0)),
        SETTLED.with_holder(0, labels={}),
    ),
    Mutant(
        "n is not the version",
        laws.law_2_prepare_then_commit,
        "epoch 99-n0nce of version 100",
        patched((handovers, "paired", _epoch_before)),
        FAILING,
    ),
    Mutant(
        "another owner's Service is swapped",
        laws.law_2_prepare_then_commit,
        "a Service of another owner is swapped",
        altering(Handover, route=ANOTHER_OWNERS),
        FAILING,
    ),
    Mutant(
        "a pending pod is taken",
        laws.law_2_prepare_then_commit,
        "the label is pending",
        NO_CLAIMS,
        FAILING.with_pod(2, labels=labels_for(0, "100-mine")),
    ),
    Mutant(
        "one that may still go is taken",
        laws.law_2_prepare_then_commit,
        "a write may still end it",
        NO_CLAIMS,
        FAILING.retiring(2),
    ),
    Mutant(
        "an orphan is taken",
        laws.law_2_prepare_then_commit,
        "the Service of the label is missing",
        NO_CLAIMS,
        FAILING.with_pod(2, labels=labels_for(9, "1-mine")),
    ),
    Mutant(
        "a pod with another's epoch is taken",
        laws.law_2_prepare_then_commit,
        "the label is committed",
        NO_CLAIMS,
        FAILING.with_holder(1, labels={}).with_pod(2, labels=labels_for(1, "11-first")),
    ),
    Mutant(
        "a holder is taken",
        laws.law_2_prepare_then_commit,
        "a holder is taken",
        patched((Facts, "holder_uids", property(lambda _: frozenset()))),
        FAILING.without_pod(2).with_holder(1, labels={}),
    ),
    Mutant("a holder is stripped", laws.law_2_prepare_then_commit, "the label serves", adding(ClearLabels(coreapp=P0)), SETTLED),
    Mutant(
        "another owner's Service is touched",
        laws.law_2_prepare_then_commit,
        "a Service of another owner is touched",
        adding(Touch(route=ANOTHER_OWNERS, epoch="1-n")),
        SETTLED,
    ),
    Mutant(
        "everybody is assigned to serve",
        laws.only_the_named_pod_is_assigned_to_serve,
        "another pod than the named one is assigned to serve",
        patched(
            (
                always,
                "role_assignments",
                lambda f, _, __: (AssignRole(coreapp=one, shards=2, shard=0, epoch="9-x") for one in f.snapshot.coreapps),
            )
        ),
        SETTLED.held_by(0, 2).with_pod(0, report=Report(shard=0, epoch="10-first", shards=2)),
    ),
    Mutant(
        "another owner's Service is believed",
        laws.only_the_named_pod_is_assigned_to_serve,
        "a Service of another owner decides who serves",
        adding(AssignRole(coreapp=P0, shards=2, shard=0, epoch="10-first")),
        SETTLED.with_route(0, foreign=True),
    ),
    Mutant(
        "a shard is made up",
        laws.only_the_named_pod_is_assigned_to_serve,
        "a shard without a Service is assigned",
        adding(AssignRole(coreapp=P2, shards=2, shard=5, epoch="10-first")),
        SETTLED,
    ),
]
NUMBERS = [
    Mutant(
        "S is forgotten",
        laws.law_4_enough_replicas,
        "5 -> 2",
        patched((Facts, "desired_replicas", property(lambda f: f.desired.shards))),
        SETTLED.with_pods([3, 4]).retiring(2, 3, 4),
    ),
    Mutant(
        "the intent is forgotten",
        laws.law_4_enough_replicas,
        "made with 3 replicas, 5 are needed",
        patched((Facts, "min_replicas", property(lambda f: f.shards or 0))),
        UNKNOWN.wanting(shards=2).without_object("StatefulSet", "acme-coreapp"),
    ),
    Mutant("nothing is scaled", laws.law_4_enough_replicas, "a StatefulSet is scaled that is not there", adding(scaled(3)), situation()),
    Mutant(
        "another version is scaled",
        laws.law_4_enough_replicas,
        "not the one that was observed",
        altering(Scale, resource_version="8"),
        WITNESSES["ScalingUp"],
    ),
    Mutant("a write for nothing", laws.law_4_enough_replicas, "a write that changes nothing", adding(scaled(3)), SETTLED),
    Mutant(
        "not enough Coreapps are ready",
        laws.law_5_set_shards_only_if,
        "too few Coreapps are ready",
        patched(row("AwaitingCoreapps", when=NEVER), (set_shards, "may_call", lambda f: f.resize_is_wanted)),
        WITNESSES["AwaitingCoreapps"],
    ),
    Mutant("few replicas", laws.law_5_set_shards_only_if, "too few replicas", calling_for(4), growing().replicas(3)),
    Mutant("two calls", laws.law_5_set_shards_only_if, "two calls at once", calling_for(4), growing()),
    Mutant("a call for nothing", laws.law_5_set_shards_only_if, "GET does not differ", calling_for(2), NOT_TRIED_BEFORE),
    Mutant(
        "GET is from before a restart",
        laws.law_5_set_shards_only_if,
        "GET is not fresh",
        CALL_ANYWAY,
        growing().client(asked_at=NOW - seconds(1)).with_pod(0, ended_at=NOW),
    ),
    Mutant("GET is stale", laws.law_5_set_shards_only_if, "GET is not fresh", CALL_ANYWAY, growing().client(asked_at=NOW - seconds(9))),
    Mutant("a call is running", laws.law_5_set_shards_only_if, "a call is running", CALL_ANYWAY, growing().client(call=Call(id="4-x"))),
    Mutant(
        "a pause means nothing",
        laws.law_5_set_shards_only_if,
        "it is paused",
        patched(row("Paused", when=NEVER)),
        growing().wanting(paused=True),
    ),
    Mutant("three shards", laws.law_5_set_shards_only_if, "3 shards", CALL_ANYWAY, growing().wanting(shards=3)),
    Mutant(
        "no lowering was voided",
        laws.law_5_set_shards_only_if,
        "a lowering may still be on its way",
        patched((set_shards, "call_for", lambda f: (SetShards(operation=set_shards.next_operation(f)),))),
        growing().seeing(anchored_for=None),
    ),
    Mutant(
        "what is planned is reported",
        laws.law_5_set_shards_only_if,
        "an intent is reported that was not noted",
        remembering(
            operation=lambda made: next((one.operation for one in made.actions if isinstance(one, SetShards)), made.record.operation)
        ),
        growing(),
    ),
    Mutant("another cluster's note", laws.law_5_set_shards_only_if, "another cluster's intent", intending(uid="another"), growing()),
    Mutant("a former term", laws.law_5_set_shards_only_if, "another leadership's intent", intending(leader_epoch=4), growing()),
    Mutant("an old note", laws.law_5_set_shards_only_if, "an intent of another time", intending(started_at=NOW - seconds(1)), growing()),
    Mutant("no patience", laws.law_5_set_shards_only_if, "settled early", intending(settle_by=NOW + seconds(839)), growing()),
    Mutant(
        "unknown is no",
        laws.law_6_unknown_is_a_value,
        "a second call",
        patched(row("AnswerUnknown", when=NEVER), (Facts, "may_try_again", property(ALWAYS))),
        UNKNOWN,
    ),
    Mutant(
        "silence settles",
        laws.law_6_unknown_is_a_value,
        "a second call",
        patched((set_shards, "_settled_by_get", lambda f, _: replace(f.record, operation=None))),
        UNKNOWN,
    ),
    Mutant(
        "a restarted operator forgets",
        laws.law_6_unknown_is_a_value,
        "a second call",
        patched((set_shards, "judge", lambda _, snapshot: replace(snapshot.record, operation=None))),
        growing().noted(4),
    ),
    Mutant(
        "the note is taken off",
        laws.law_6_unknown_is_a_value,
        "the intent is forgotten",
        remembering(operation=lambda _: None),
        UNKNOWN,
    ),
    Mutant(
        "the note is changed",
        laws.law_6_unknown_is_a_value,
        "another intent is noted in its place",
        remembering(operation=lambda made: made.record.operation and replace(made.record.operation, to=1)),
        UNKNOWN,
    ),
    Mutant("pods go", laws.law_6_unknown_is_a_value, "fewer pods", adding(scaled(3)), UNKNOWN),
    Mutant(
        "a Coreapp is not back",
        laws.law_7_shrink_last,
        "acme-coreapp-1 is not back",
        SHRINK_ANYWAY,
        WITNESSES["ScalingDown"].with_pod(1, report=None),
    ),
    Mutant(
        "one that goes gets no time to restart",
        laws.law_7_shrink_last,
        "acme-coreapp-4 is not back",
        patched((Facts, "_is_waited_for", lambda self, pod: pod.ordinal < self.desired_replicas)),
        SETTLED.with_pods([3, 4]).retiring(3, 4).with_pod(4, report=None).noted(2, Answer.ACCEPTED, origin=4),
    ),
    Mutant(
        "GET was long ago",
        laws.law_7_shrink_last,
        "GET is not fresh",
        SHRINK_ANYWAY,
        WITNESSES["ScalingDown"].client(asked_at=NOW - seconds(9)),
    ),
    Mutant(
        "what is served counts as nothing",
        laws.law_7_shrink_last,
        "GET reports None",
        patched((Facts, "is_unused", property(lambda _: True))),
        SETTLED.with_pods([3]).retiring(3).reporting(None),
    ),
    Mutant("shards would go", laws.law_7_shrink_last, "GET reports 4", adding(scaled(3)), situation().settled(shards=4).wanting(shards=2)),
    Mutant(
        "a holder would go",
        laws.law_7_shrink_last,
        "a holder would go",
        patched((Facts, "too_high", property(lambda _: ())), SHRINK_AT_ONCE),
        SETTLED.with_pods([3]).held_by(0, 3),
    ),
    Mutant(
        "one that is not marked would go",
        laws.law_7_shrink_last,
        "acme-coreapp-4 may become a holder",
        patched(SHRINK_AT_ONCE),
        SETTLED.with_pods([3, 4]).retiring(3).retiring(4, n=8),
    ),
]
CERTIFICATES = [
    Mutant(f"no word of {name}", laws.law_8_fit_certificate, how, without_objection(name), WITNESSES[name])
    for name, how in {
        "Banned": "the account is banned",
        "NumberInUse": "another cluster has the number",
        "RegistrationTooOld": "registered more than 7 days ago",
        "CertificateMissing": "there is no certificate",
        "CertificateMalformed": "the certificate is malformed",
        "CertificateExpiryUnknown": "the certificate has expired, or may have",
        "CertificateExpired": "the certificate has expired, or may have",
        "CertificateRejected": "the certificate was rejected",
        "PinRejected": "the PIN was rejected",
        "ClientExpired": "the build has expired",
        "RegistrationClosed": "registration is closed",
    }.items()
] + [
    Mutant(
        "without a certificate again",
        laws.law_8_fit_certificate,
        "it was rejected without a certificate",
        without_objection("CertificateRejected"),
        growing().with_account(secret=AccountSecret(), registered_at=NOW - seconds(86400)).seeing(rejected_fingerprint="0" * 64),
    )
]
RESTARTS = [
    Mutant(
        "a restart is a failure",
        laws.law_9_a_restart_is_no_failure,
        "shard 0 leaves acme-coreapp-0, which restarts",
        patched((Facts, "is_explained_by_restart", lambda _, __: False)),
        UNKNOWN.with_holder(0, terminated=True, ready=False),
    ),
    Mutant(
        "a restart is a failure once accepted",
        laws.law_9_a_restart_is_no_failure,
        "shard 1 leaves acme-coreapp-1, which restarts",
        patched((Facts, "is_explained_by_restart", lambda _, __: False)),
        restarting().restarted(4, [4]).with_holder(1, terminated=True, ready=False),
    ),
    Mutant(
        "a high ordinal is a failure before GET says so",
        laws.law_9_a_restart_is_no_failure,
        "shard 0 leaves acme-coreapp-3, which restarts",
        patched((Facts, "is_explained_by_restart", lambda _, __: False)),
        SETTLED.with_pods([3]).held_by(0, 3).wanting(shards=1).noted(1, Answer.ACCEPTED).with_pod(3, terminated=True, ready=False),
    ),
    Mutant(
        "everything is excused",
        laws.law_9_what_is_certain_is_not_excused,
        "nothing takes over shard 0",
        patched((evidence, "EVIDENCE", ())),
        FAILING,
    ),
    Mutant(
        "order stands above failover",
        laws.law_9_what_is_certain_is_not_excused,
        "nothing takes over shard 0",
        patched((rules, "RULES", tuple(one for one in rules.RULES if one.name != "FailingOver"))),
        restarting().restarted(4, [4]).holder_deleted(0),
    ),
]
MAKES_TO_THE_END = patched((always, "ALWAYS", tuple(replace(one, makes=False) for one in always.ALWAYS)))
DELETIONS = [
    Mutant(
        "what is to go is made again",
        laws.a_deletion_makes_nothing,
        "something is made",
        MAKES_TO_THE_END,
        SETTLED.wanting(deleting=True).without_object("Service", "acme-webapp"),
    ),
    Mutant(
        "a cluster grows at its end",
        laws.a_deletion_makes_nothing,
        "the number of Coreapps or shards is changed",
        MAKES_TO_THE_END,
        SETTLED.wanting(deleting=True, shards=4),
    ),
]
MUTANTS = [*ORDER_OF_HOLDERS, *NUMBERS, *CERTIFICATES, *RESTARTS, *DELETIONS]
