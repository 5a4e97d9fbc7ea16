"""The laws as checks of one plan. Each is separate from the code that obeys it: it reads the snapshot itself.

A check takes ``plan`` as an argument, so that a broken one can be passed: it must be caught. It returns whether the law had anything to
judge in this snapshot. From the core come the plain types of snapshots and actions, and nothing that decides; `test_oracle` sees to that.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any

from whatsapp_operator.core.actions import (
    Action,
    AssignRole,
    BumpVersion,
    ClearLabels,
    Create,
    Delete,
    GenerateSecret,
    Handover,
    Plan,
    Relabel,
    Scale,
    SetShards,
    Touch,
)
from whatsapp_operator.core.desired import Desired
from whatsapp_operator.core.snapshot import Answer, Call, Coreapp, Node, Operation, Route, Snapshot

from .situations import Situation

PlanOf = Callable[[Desired, Snapshot], Plan]
Check = Callable[[PlanOf, Situation], bool]

EPOCH, SHARD, ROLE = "multiconnect.dev/epoch", "multiconnect.dev/shard", "multiconnect.dev/role"
SHARD_COUNTS = {1, 2, 4, 8, 16, 32}


class LawBroken(AssertionError):  # noqa: N818  says what happened
    """A plan breaks a law: which one, and how."""

    def __init__(self, law: str, how: str) -> None:
        super().__init__(f"{law}: {how}")
        self.law = law


class _BrokenError(Exception):
    """Raised inside a check; becomes LawBroken with the check's name."""


def _must(holds: object, how: str) -> None:
    if not holds:
        raise _BrokenError(how)


def _law(check: Check) -> Check:
    """Give what a check finds the check's name."""

    @wraps(check)
    def judged(plan: PlanOf, one: Situation) -> bool:
        try:
            return check(plan, one)
        except _BrokenError as broken:
            raise LawBroken(check.__name__, str(broken)) from None

    return judged


# --- what the checks know of a snapshot, by themselves -------------------------------------------------------------------


def _call(one: Situation) -> Call | None:
    """This process's own call for the noted intent."""
    noted, call = one.snapshot.record.operation, one.snapshot.client.call
    return call if noted is not None and call is not None and call.id == noted.id else None


def _answer(one: Situation) -> Answer:
    """The best answer that is known of the noted intent: a definite one stays, and a later one replaces one that is not."""
    noted, call = one.snapshot.record.operation, _call(one)
    if noted is None:
        return Answer.NONE
    if call is not None and call.answer is not None and noted.answer in {Answer.NONE, Answer.UNKNOWN}:
        return call.answer
    return noted.answer


def _unsettled(one: Situation) -> Operation | None:
    """The noted intent, unless a definite answer, a GET or its ``settle_by`` has settled it (law 4)."""
    noted, client, call = one.snapshot.record.operation, one.snapshot.client, _call(one)
    if noted is None or (call is not None and call.not_sent):
        return None
    if _answer(one) in {Answer.REJECTED, Answer.BUSY, Answer.ACCEPTED}:
        return None
    if client.asked_at is not None and client.shards is not None:
        if client.asked_at > noted.started_at and client.shards == noted.to:
            return None
        if client.asked_at > noted.settle_by:
            return None
    return noted


def _is_number_final(one: Situation) -> bool:
    """Whether no call that was noted can still change the number of shards that GET reports."""
    noted, client = one.snapshot.record.operation, one.snapshot.client
    if noted is None or _unsettled(one) is not None:
        return noted is None
    if client.asked_at is not None and client.asked_at > noted.settle_by:
        return True
    return _answer(one) is not Answer.ACCEPTED or client.shards == noted.to


def _bound(one: Situation) -> int:
    """max(S, D, target of the unsettled intent) + X."""
    intent = _unsettled(one)
    return max(one.snapshot.client.shards or 0, one.desired.shards, intent.to if intent else 0) + one.desired.spares


def _serves_nothing_yet(one: Situation) -> bool:
    """Whether no shard has a holder, none ever was settled, and no number was asked for: nobody misses a Coreapp."""
    record, routes = one.snapshot.record, one.snapshot.routes
    is_new = record.settled_shards is None and record.operation is None and "Service" not in one.snapshot.unread
    return is_new and not any(other.holder_uid for other in routes if not other.foreign)


def _epoch(pod: Coreapp) -> str | None:
    return pod.labels.get(EPOCH)


def _shard(pod: Coreapp) -> int | None:
    text = pod.labels.get(SHARD, "")
    return int(text) if text.isdecimal() else None


def _is_ready(one: Coreapp) -> bool:
    return one.ready and one.phase == "Running" and not (one.deleting or one.terminated or one.broken_at) and one.ip is not None


def _is_fresh(one: Situation) -> bool:
    """Five seconds: with fewer a client that takes its time to answer never gets the call at all. And no restart may have followed."""
    asked = one.snapshot.client.asked_at
    if asked is None or one.snapshot.now - asked > timedelta(seconds=5):
        return False
    return all(other.ended_at is None or other.ended_at <= asked for other in one.snapshot.coreapps)


def _actions(plan: PlanOf, one: Situation) -> tuple[Action, ...]:
    return plan(one.desired, one.snapshot).actions


def _of(actions: tuple[Action, ...], kind: Any) -> list[Any]:
    return [action for action in actions if isinstance(action, kind)]


# --- the laws ----------------------------------------------------------------------------------------------------------


@_law
def plan_is_total(plan: PlanOf, one: Situation) -> bool:
    """No snapshot raises, and equal snapshots give equal plans."""
    try:
        _must(plan(one.desired, one.snapshot) == plan(one.desired, one.snapshot), "two plans of one snapshot differ")
    except _BrokenError:
        raise
    except Exception as error:
        _must(False, f"it raises {error!r}")
    return True


@_law
def law_1_one_holder(plan: PlanOf, one: Situation) -> bool:
    """No write puts an epoch on a second pod, and no pod is given two shards."""
    actions = _actions(plan, one)
    moves, again = _of(actions, Handover), _of(actions, Relabel)
    _must(len({move.to.uid for move in moves}) == len(moves), "a pod is given two shards")
    _must(len({move.route.shard for move in moves}) == len(moves), "a shard is given to two pods")
    _must(not {move.to.uid for move in moves} & {end.uid for end in _of(actions, Delete)}, "a pod that is given a shard is ended")
    for mark in again:
        others = [other for other in one.snapshot.coreapps if other.uid != mark.coreapp.uid and _epoch(other) == mark.route.epoch]
        _must(not others, f"{mark.route.epoch} would be on a second pod")
        _must(mark.route.holder_uid == mark.coreapp.uid, "a pod is labelled that the Service does not name")
    return bool(moves or again)


@_law
def law_2_prepare_then_commit(plan: PlanOf, one: Situation) -> bool:
    """n is the version of the Service that is swapped; a pod whose label may still be committed, or holds a shard, is not taken."""
    actions = _actions(plan, one)
    moves, strips, touches = _of(actions, Handover), _of(actions, ClearLabels), _of(actions, Touch)
    holders = {other.holder_uid for other in one.snapshot.routes if not other.foreign}
    services = {other.shard: other for other in one.snapshot.routes}
    for move in moves:
        _must(
            (move.epoch.n, move.epoch.random) == (move.route.version, one.snapshot.nonce),
            f"epoch {move.epoch} of version {move.route.version}",
        )
        _must(not move.route.foreign, "a Service of another owner is swapped")
        _must(move.to.uid not in holders, "a holder is taken")
        label, shard = _epoch(move.to), _shard(move.to)
        if move.to.labels.get(ROLE) == "retiring" and (n := (label or "").partition("-")[0]).isdecimal():
            _must(one.snapshot.statefulset is None or int(one.snapshot.statefulset.resource_version) > int(n), "a write may still end it")
        if label is None or shard is None:
            continue  # without both labels no Service selects it, no matter which operator commits
        named = services.get(shard)
        _must(named is not None, "the Service of the label is missing")
        if named is not None:
            _must(named.epoch != label, "the label is committed")
            _must(named.version > int(label.partition("-")[0]), "the label is pending")
    for strip in strips:
        for other in one.snapshot.routes:
            exists = one.snapshot.client.shards is None or other.shard < one.snapshot.client.shards or not _is_number_final(one)
            serves = (other.holder_uid, other.epoch, other.shard) == (strip.coreapp.uid, _epoch(strip.coreapp), _shard(strip.coreapp))
            _must(not (exists and serves), "the label serves")
    for touch in touches:
        _must(not touch.route.foreign, "a Service of another owner is touched")
    return bool(moves or strips or touches)


@_law
def only_the_named_pod_is_assigned_to_serve(plan: PlanOf, one: Situation) -> bool:
    """An assigned shard without a holder means: serve it."""
    services = {other.shard: other for other in one.snapshot.routes}
    orders = [tell for tell in _of(_actions(plan, one), AssignRole) if tell.shard is not None and tell.holder is None]
    for order in orders:
        named: Route | None = services.get(order.shard)
        _must(named is not None, "a shard without a Service is assigned")
        if named is not None:
            _must(
                (named.holder_uid, named.epoch) == (order.coreapp.uid, order.epoch), "another pod than the named one is assigned to serve"
            )
            _must(not named.foreign, "a Service of another owner decides who serves")
    return bool(orders)


@_law
def law_4_enough_replicas(plan: PlanOf, one: Situation) -> bool:
    """R' >= max(S, D, target of every unsettled intent) + X, except that growing may be in steps upward."""
    workload, actions = one.snapshot.statefulset, _actions(plan, one)
    scales = _of(actions, Scale)
    made = [
        create.obj
        for create in _of(actions, Create)
        if (create.obj["kind"], create.obj["metadata"]["name"]) == ("StatefulSet", "acme-coreapp")
    ]
    for scale in scales:
        _must(workload is not None, "a StatefulSet is scaled that is not there")
        if workload is not None:
            _must(scale.replicas >= _bound(one) or scale.replicas > workload.replicas, f"{workload.replicas} -> {scale.replicas}")
            _must((scale.uid, scale.resource_version) == (workload.uid, workload.resource_version), "not the one that was observed")
            _must(scale.replicas != workload.replicas, "a write that changes nothing")
    for obj in made:
        _must(obj["spec"]["replicas"] >= _bound(one), f"made with {obj['spec']['replicas']} replicas, {_bound(one)} are needed")
    return bool(scales or made)


@_law
def law_5_set_shards_only_if(plan: PlanOf, one: Situation) -> bool:
    """Enough ready Coreapps, a fresh GET that differs, nothing under way; and the intent is of now, of this term and of this cluster.

    The plan's record is what is reported no matter what became of the call: the intent is not in it, for it is noted just before the call.
    """
    made = plan(one.desired, one.snapshot)
    calls = _of(made.actions, SetShards)
    _must(len(calls) <= 1, "two calls at once")
    for call in calls:
        to, workload, running = call.operation.to, one.snapshot.statefulset, one.snapshot.client.call
        _must(to == one.desired.shards and to in SHARD_COUNTS, f"{to} shards")
        _must(one.snapshot.anchored_for == to, "a lowering may still be on its way")
        _must(_is_fresh(one) and one.snapshot.client.shards is not None, "GET is not fresh")
        # The exception: only an accepted Set Shards logs a client on that a rejected certificate logged off.
        _must(one.snapshot.client.shards != to or one.snapshot.record.logged_off_at is not None, "GET does not differ")
        _must(sum(map(_is_ready, one.snapshot.coreapps)) >= to, "too few Coreapps are ready")
        _must(workload is not None and workload.replicas >= to, "too few replicas")
        _must(not one.desired.paused, "it is paused")
        _must(running is None or running.answer is not None or running.not_sent, "a call is running")
        reported = made.record.operation
        _must(reported is None or reported.id != call.operation.id, "an intent is reported that was not noted")
        _must(call.operation.uid == one.desired.uid, "another cluster's intent")
        _must(call.operation.leader_epoch == one.snapshot.leader_epoch, "another leadership's intent")
        _must(call.operation.started_at == one.snapshot.now, "an intent of another time")
        tuning = one.desired.tuning
        _must(
            call.operation.settle_by >= one.snapshot.now + tuning.call_timeout + one.desired.restart_timeout + tuning.settle_grace,
            "settled early",
        )
    return bool(calls)


@_law
def law_6_unknown_is_a_value(plan: PlanOf, one: Situation) -> bool:
    """While an intent is unsettled: no second call, no shrink, and the intent stays noted."""
    noted = _unsettled(one)
    if noted is None:
        return False
    made = plan(one.desired, one.snapshot)
    _must(not _of(made.actions, SetShards), "a second call")
    kept = made.record.operation
    _must(kept is not None, "the intent is forgotten")
    _must(kept and (kept.id, kept.to) == (noted.id, noted.to), "another intent is noted in its place")
    for scale in _of(made.actions, Scale):
        _must(one.snapshot.statefulset is not None and scale.replicas > one.snapshot.statefulset.replicas, "fewer pods")
    return True


@_law
def law_7_shrink_last(plan: PlanOf, one: Situation) -> bool:
    """R is lowered only when GET reports the lower count, every one that stays came back, and no holder has an ordinal that would go."""
    workload, shards = one.snapshot.statefulset, one.snapshot.client.shards
    lower = [scale for scale in _of(_actions(plan, one), Scale) if workload is not None and scale.replicas < workload.replicas]
    for scale in lower:
        _must(_serves_nothing_yet(one) or shards == one.desired.shards, f"GET reports {shards}")
        _must(_serves_nothing_yet(one) or _is_fresh(one), "GET is not fresh")
        uids = {other.holder_uid for other in one.snapshot.routes if not other.foreign and shards is not None and other.shard < shards}
        _must(all(other.ordinal < scale.replicas for other in one.snapshot.coreapps if other.uid in uids), "a holder would go")
        for other in one.snapshot.coreapps:
            # Otherwise a leader that observed before could make it a holder just before this write.
            is_marked = other.labels.get(ROLE) == "retiring" and (_epoch(other) or "").partition("-")[0] == scale.resource_version
            _must(is_marked or other.deleting or other.ordinal < scale.replicas, f"{other.name} may become a holder")
        for other in one.snapshot.coreapps:
            is_running = other.phase == "Running" and not other.deleting and not _serves_nothing_yet(one)
            if is_running and (other.ordinal < scale.replicas or _in_restart_window(one)):
                _must(other.report is not None and other.report.shards == shards, f"{other.name} is not back")
    return bool(lower)


@_law
def law_8_fit_certificate(plan: PlanOf, one: Situation) -> bool:
    """Never an expired, malformed or rejected certificate; never none later than 7 days after registration; never anything once banned.

    Nor what was rejected for good: a PIN, an expired build, a closed registration. Nor a number that another cluster has.

    It judges calls of clusters with an account, and those that are banned.
    """
    calls = _of(_actions(plan, one), SetShards)
    account, secret = one.desired.account, one.snapshot.account
    record = one.snapshot.record
    pin = (secret.pin_digest if secret else None) or "none"
    version = (secret.version if secret else None) or f"generation-{one.desired.generation}"
    _must(not (calls and record.banned_at), "the account is banned")
    _must(not (calls and one.snapshot.number_kept_by), "another cluster has the number")
    _must(not (calls and record.registration_closed_for == version), "registration is closed")
    _must(not (calls and record.rejected_pin == pin), "the PIN was rejected")
    images = f"{one.desired.images.webapp} {one.desired.images.coreapp}" if one.desired.images else one.desired.image
    _must(not (calls and record.expired_build == f"{one.snapshot.client.version or '?'} {images}"), "the build has expired")
    if account is None or not calls:
        return False
    if secret is not None and secret.has_certificate:
        _must(secret.certificate is not None, "the certificate is malformed")
        _must(secret.expires_at is not None and secret.expires_at > one.snapshot.now, "the certificate has expired, or may have")
        _must(
            secret.certificate
            and secret.certificate.fingerprint not in {one.snapshot.record.rejected_fingerprint, *one.snapshot.record.rejected_before},
            "the certificate was rejected",
        )
    else:
        _must("0" * 64 not in {record.rejected_fingerprint, *record.rejected_before}, "it was rejected without a certificate")
        _must(account.registered_at is not None, "there is no certificate")
        _must(account.registered_at and one.snapshot.now - account.registered_at <= timedelta(days=7), "registered more than 7 days ago")
    return True


def _in_restart_window(one: Situation) -> bool:
    """Whether the restart of a Set Shards that was, or may have been, accepted may still go on."""
    noted, call = one.snapshot.record.operation, _call(one)
    if noted is None or (call is not None and call.not_sent) or _answer(one) in {Answer.BUSY, Answer.REJECTED}:
        return False
    if _answer(one) is Answer.ACCEPTED and noted.answer is Answer.NONE:
        return True  # just now, so the window begins now
    return one.snapshot.now < noted.deadline and (_answer(one) is Answer.ACCEPTED or _unsettled(one) is not None)


def _is_certainly_lost(one: Situation, pod: Coreapp) -> bool:
    """Whether something happened to a pod that no restart explains."""
    node = (one.snapshot.nodes or {}).get(pod.node or "")
    is_node_gone = node is not None and (node.gone or node.out_of_service)
    serves_another = any(
        other.shard == _shard(pod) and other.epoch == _epoch(pod) and other.epoch is not None and not other.foreign
        for other in one.snapshot.routes
        if other.holder_uid != pod.uid or other.shard != _shard(pod)
    )
    named_twice = sum(other.holder_uid == pod.uid for other in one.snapshot.routes) > 1
    return pod.deleting or is_node_gone or pod.phase in {"Failed", "Succeeded"} or serves_another or named_twice


@_law
def law_9_a_restart_is_no_failure(plan: PlanOf, one: Situation) -> bool:
    """In its window no shard leaves a pod that is there for anything that the restart explains, until the pod reports the new number.

    Shards leave pods that will go (their ordinals are too high), and a holder that is missing 10 s after enough Coreapps were back.
    """
    noted = one.snapshot.record.operation
    if noted is None or not _in_restart_window(one):
        return False
    away = {
        pod.uid: pod
        for pod in one.snapshot.coreapps
        if not _is_certainly_lost(one, pod) and not (pod.report is not None and pod.report.shards == noted.to)
    }
    since = one.snapshot.since.get(f"EnoughAreBack/{noted.id}")
    back = [pod for pod in one.snapshot.coreapps if _is_ready(pod) and pod.report is not None and pod.report.shards == noted.to]
    is_overdue = since is not None and one.snapshot.now - since >= timedelta(seconds=10) and len(back) >= (one.snapshot.client.shards or 1)
    for move in _of(_actions(plan, one), Handover):
        pod = away.get(move.route.holder_uid)
        if pod is not None:
            goes = pod.ordinal >= one.desired.shards + one.desired.spares and _is_number_final(one)
            _must(goes or (is_overdue and not _is_ready(pod)), f"shard {move.route.shard} leaves {pod.name}, which restarts")
    return any(other.holder_uid in away for other in one.snapshot.routes)


@_law
def law_9_what_is_certain_is_not_excused(plan: PlanOf, one: Situation) -> bool:
    """A pod whose uid is gone or whose deletion began is replaced at once, if there is a clean standby that has the shards."""
    if one.desired.manual:
        return False
    shards = one.snapshot.client.shards
    holders = {other.holder_uid for other in one.snapshot.routes}
    clean = [
        other
        for other in one.snapshot.coreapps
        if _is_ready(other)
        and other.uid not in holders
        and _epoch(other) is None
        and other.report
        and other.report.shards == shards
        and other.unresponsive_since is None
        and not ((one.snapshot.nodes or {}).get(other.node or "") or Node(name="")).out_of_service
    ]
    pods = {other.uid: other for other in one.snapshot.coreapps}
    lost = [
        other
        for other in one.snapshot.routes
        if not other.foreign
        and other.holder_uid is not None
        and shards is not None
        and other.shard < shards
        and ((held := pods.get(other.holder_uid)) is None or held.deleting)
    ]
    if not (clean and lost):
        return False
    _must(_of(_actions(plan, one), Handover), f"nothing takes over shard {lost[0].shard}")
    return True


@_law
def a_deletion_makes_nothing(plan: PlanOf, one: Situation) -> bool:
    """What the garbage collector takes away is not made, nothing grows, and the client is left as it is."""
    if not one.desired.deleting:
        return False
    for action in _actions(plan, one):
        _must(not isinstance(action, (Create, GenerateSecret)), "something is made")
        _must(not isinstance(action, (Scale, SetShards, BumpVersion)), "the number of Coreapps or shards is changed")
    return True


CHECKS: tuple[Check, ...] = (
    plan_is_total,
    law_1_one_holder,
    law_2_prepare_then_commit,
    only_the_named_pod_is_assigned_to_serve,
    law_4_enough_replicas,
    law_5_set_shards_only_if,
    law_6_unknown_is_a_value,
    law_7_shrink_last,
    law_8_fit_certificate,
    law_9_a_restart_is_no_failure,
    law_9_what_is_certain_is_not_excused,
    a_deletion_makes_nothing,
)
