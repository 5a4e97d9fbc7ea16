"""The laws as checks of one plan. Each is told apart from the code that obeys it: it reads the look itself, not what the core makes of it.

A check takes ``plan`` as an argument, so that a broken one can be passed: it must be caught.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from whatsapp_operator.core import manifests
from whatsapp_operator.core.certificate import CertificateFacts
from whatsapp_operator.core.model import (
    SHARD_COUNTS,
    Account,
    AccountSecret,
    Action,
    Answer,
    Call,
    Client,
    Coreapp,
    Create,
    Desired,
    Evidence,
    Handover,
    Login,
    Node,
    Observed,
    Operation,
    Plan,
    Refusal,
    Relabel,
    Report,
    Route,
    Scale,
    SetShards,
    Silence,
    Strip,
    Switchover,
    Tell,
    Touch,
    Workload,
)

from .looks import FINGERPRINT, NONCE, NOW, REVISION, Look, kept_objects, labels_for, look, pod, route, seconds

PlanOf = Callable[[Desired, Observed], Plan]
Check = Callable[[PlanOf, Look], None]


# --- what the checks know of a look, by themselves ---------------------------------------------------------------------


def _unsettled(one: Look) -> Operation | None:
    """The noted intent, unless a definite answer, a GET or its ``settle_by`` has settled it (law 4)."""
    noted, client = one.see.operation, one.see.client
    if noted is None:
        return None
    call = client.call if client.call is not None and client.call.id == noted.id else None
    if call is not None and (call.not_sent or call.answer in {Answer.REFUSED, Answer.BUSY, Answer.ACCEPTED}):
        return None
    if noted.answer not in {Answer.NONE, Answer.UNKNOWN}:
        return None
    if client.asked_at is not None and client.shards is not None:
        if client.asked_at > noted.started_at and client.shards == noted.to:
            return None
        if client.asked_at > noted.settle_by:
            return None
    return noted


def _bound(one: Look) -> int:
    """max(S, D, target of the unsettled intent) + X."""
    intent = _unsettled(one)
    return max(one.see.client.shards or 0, one.want.shards, intent.to if intent else 0) + one.want.spares


def _is_ready(one: Coreapp) -> bool:
    return one.ready and one.phase == "Running" and not (one.deleting or one.terminated or one.broken_at) and one.ip is not None


def _is_fresh(one: Look) -> bool:
    asked = one.see.client.asked_at
    return asked is not None and one.see.now - asked <= one.want.tuning.ask_fresh


def _actions(plan: PlanOf, one: Look) -> tuple[Action, ...]:
    return plan(one.want, one.see).actions


def _of(actions: tuple[Action, ...], kind: Any) -> list[Any]:
    return [action for action in actions if isinstance(action, kind)]


# --- the laws ----------------------------------------------------------------------------------------------------------


def plan_is_total(plan: PlanOf, one: Look) -> None:
    """No look raises, and equal looks give equal plans."""
    assert plan(one.want, one.see) == plan(one.want, one.see)


def law_1_one_holder(plan: PlanOf, one: Look) -> None:
    """No write puts an epoch on a second pod, and no pod is given two shards."""
    actions = _actions(plan, one)
    moves = _of(actions, Handover)
    assert len({move.to.uid for move in moves}) == len(moves)
    assert len({move.route.shard for move in moves}) == len(moves)
    for again in _of(actions, Relabel):
        assert all(other.epoch_label != again.route.epoch for other in one.see.coreapps if other.uid != again.coreapp.uid)
        assert again.route.holder_uid == again.coreapp.uid


def law_2_prepare_then_commit(plan: PlanOf, one: Look) -> None:
    """n is the version of the Service that is swapped; a pod whose label may still be committed, or holds a shard, is not taken."""
    actions = _actions(plan, one)
    holders = {other.holder_uid for other in one.see.routes if not other.foreign}
    services = {other.shard: other for other in one.see.routes}
    for move in _of(actions, Handover):
        assert move.epoch == (move.route.version, one.see.nonce)
        assert not move.route.foreign
        assert move.to.uid not in holders
        label = move.to.epoch_label
        if label is not None:
            named = services.get(move.to.shard_label if move.to.shard_label is not None else -1)
            if move.to.shard_label is None:
                continue  # no Service selects it, whoever commits
            assert named is not None, "the label's Service is missing"
            assert named.epoch != label, "the label is committed"
            assert named.version > int(label.partition("-")[0]), "the label is pending"
    for strip in _of(actions, Strip):
        uid, label = strip.coreapp.uid, strip.coreapp.epoch_label
        for other in one.see.routes:
            gone = one.see.client.shards is not None and other.shard >= one.see.client.shards and one.facts().is_verified
            serves = other.holder_uid == uid and other.epoch == label and other.shard == strip.coreapp.shard_label
            assert gone or not serves, "the label serves"
    for touch in _of(actions, Touch):
        assert not touch.route.foreign


def only_the_named_pod_is_told_to_serve(plan: PlanOf, one: Look) -> None:
    """Told a shard without a holder beside it means: serve it."""
    services = {other.shard: other for other in one.see.routes}
    for tell in _of(_actions(plan, one), Tell):
        if tell.shard is not None and tell.holder is None:
            named = services[tell.shard]
            assert (named.holder_uid, named.epoch) == (tell.coreapp.uid, tell.epoch)
            assert not named.foreign


def law_4_enough_replicas(plan: PlanOf, one: Look) -> None:
    """R' >= max(S, D, target of every unsettled intent) + X, except that growing may be in steps upward."""
    workload = one.see.statefulset
    for scale in _of(_actions(plan, one), Scale):
        assert workload is not None
        assert scale.replicas >= _bound(one) or scale.replicas > workload.replicas
        assert (scale.uid, scale.resource_version) == (workload.uid, workload.resource_version)
        assert scale.replicas != workload.replicas
    for made in _of(_actions(plan, one), Create):
        if made.obj["kind"] == "StatefulSet" and made.obj["metadata"]["name"] == "acme-coreapp":
            assert made.obj["spec"]["replicas"] >= _bound(one)


def law_5_set_shards_only_if(plan: PlanOf, one: Look) -> None:
    """Enough ready Coreapps, a fresh GET that differs, nothing under way; and the intent is noted with the very plan that calls."""
    made = plan(one.want, one.see)
    calls = _of(made.actions, SetShards)
    assert len(calls) <= 1
    for call in calls:
        to = call.operation.to
        tuning = one.want.tuning
        assert to == one.want.shards
        assert to in SHARD_COUNTS
        assert one.see.anchored_for == to, "a lowering may still be on its way"
        assert _is_fresh(one)
        assert one.see.client.shards is not None
        # The exception: only an accepted Set Shards logs a client on that a refused certificate logged off.
        assert one.see.client.shards != to or one.see.logged_off_at is not None
        assert sum(map(_is_ready, one.see.coreapps)) >= to
        assert one.see.statefulset is not None
        assert one.see.statefulset.replicas >= to
        assert not one.want.paused
        running = one.see.client.call
        assert running is None or running.answer is not None or running.not_sent
        assert made.operation == call.operation
        assert call.operation.leader_epoch == one.see.leader_epoch
        assert call.operation.started_at == one.see.now
        assert call.operation.settle_by >= one.see.now + tuning.call_timeout + one.want.restart_timeout + tuning.settle_grace


def law_6_unknown_is_a_value(plan: PlanOf, one: Look) -> None:
    """While an intent is unsettled: no second call, no shrink, and the intent stays noted."""
    if _unsettled(one) is None or one.want.deleting:
        return
    made = plan(one.want, one.see)
    assert _of(made.actions, SetShards) == []
    assert made.operation is not None
    for scale in _of(made.actions, Scale):
        assert one.see.statefulset is not None
        assert scale.replicas > one.see.statefulset.replicas


def law_7_shrink_last(plan: PlanOf, one: Look) -> None:
    """R is lowered only when GET reports the lower count, every Coreapp came back, and no holder has an ordinal that would go."""
    workload, shards = one.see.statefulset, one.see.client.shards
    for scale in _of(_actions(plan, one), Scale):
        if workload is None or scale.replicas >= workload.replicas:
            continue
        assert shards == one.want.shards
        assert _is_fresh(one)
        uids = {other.holder_uid for other in one.see.routes if not other.foreign and other.shard < shards}
        assert all(other.ordinal < scale.replicas for other in one.see.coreapps if other.uid in uids)
        for other in one.see.coreapps:
            if other.phase == "Running" and not other.deleting:
                assert other.report is not None
                assert other.report.shards == shards


def law_8_fit_certificate(plan: PlanOf, one: Look) -> None:
    """Never an expired, malformed or refused certificate; never none later than 7 days after registration; never anything once banned."""
    if not _of(_actions(plan, one), SetShards):
        return
    assert not one.see.banned
    account, secret = one.want.account, one.see.account
    if account is None:
        return
    if secret is not None and secret.has_certificate:
        assert secret.certificate is not None
        assert secret.expires_at is not None
        assert secret.expires_at > one.see.now
        assert secret.certificate.fingerprint != one.see.refused_fingerprint
    else:
        assert account.registered_at is not None
        assert one.see.now - account.registered_at <= timedelta(days=7)


EXPLAINED = {Evidence.CONTAINER_TERMINATED, Evidence.TETHER_BROKEN}


def law_9_a_restart_is_no_failure(plan: PlanOf, one: Look) -> None:
    """In its window nothing is done on evidence that the restart explains, until a pod reports the new number."""
    noted = one.see.operation
    if noted is None or _unsettled(one) is None or one.see.now >= noted.deadline:
        return
    for move in _of(_actions(plan, one), Handover):
        if move.old is not None and not (move.old.report is not None and move.old.report.shards == noted.to):
            assert move.evidence not in EXPLAINED


def law_9_what_is_certain_is_not_excused(plan: PlanOf, one: Look) -> None:
    """A pod whose uid is gone or whose deletion began is replaced at once, if there is a clean standby that has the shards."""
    if one.want.manual or one.want.deleting:
        return
    shards = one.see.client.shards
    holders = {other.holder_uid for other in one.see.routes}
    clean = [
        other
        for other in one.see.coreapps
        if _is_ready(other)
        and other.uid not in holders
        and other.epoch_label is None
        and other.report
        and other.report.shards == shards
        and other.silent_since is None
        and not ((one.see.nodes or {}).get(other.node or "") or Node(name="")).out_of_service
    ]
    pods = {other.uid: other for other in one.see.coreapps}
    lost = [
        other
        for other in one.see.routes
        if not other.foreign
        and other.holder_uid is not None
        and shards is not None
        and other.shard < shards
        and ((held := pods.get(other.holder_uid)) is None or held.deleting)
    ]
    if clean and lost:
        assert _of(_actions(plan, one), Handover)


CHECKS: tuple[Check, ...] = (
    plan_is_total,
    law_1_one_holder,
    law_2_prepare_then_commit,
    only_the_named_pod_is_told_to_serve,
    law_4_enough_replicas,
    law_5_set_shards_only_if,
    law_6_unknown_is_a_value,
    law_7_shrink_last,
    law_8_fit_certificate,
    law_9_a_restart_is_no_failure,
    law_9_what_is_certain_is_not_excused,
)


# --- random looks ---------------------------------------------------------------------------------------------------------

COUNTS = st.sampled_from([1, 2, 4])
MAYBE_COUNT = st.none() | COUNTS
AGO = st.sampled_from([0.0, 0.5, 3.0, 100.0, 500.0, 1000.0])


@st.composite
def _coreapps(draw: st.DrawFn, routes: list[Route], shards: int) -> list[Coreapp]:
    """Pods of which each label is on one pod only: law 1 is what the look begins with."""
    pods: list[Coreapp] = []
    free = [(other.shard, other.epoch or "") for other in routes if other.epoch] + [
        (shard, f"{n}-loose") for shard in range(5) for n in (5, 100 + shard, 400)
    ]
    named = {other.holder_uid: other for other in routes if other.holder_uid}
    for ordinal in range(draw(st.integers(0, 7))):
        made = pod(ordinal, shards=draw(st.sampled_from([shards, shards, shards, None, 1, 2, 4])))
        held = named.get(made.uid)
        if held is not None and held.epoch is not None and draw(st.integers(0, 9)) < 8 and (held.shard, held.epoch) in free:
            free.remove((held.shard, held.epoch))
            made = pod(ordinal, shards=shards, labels=labels_for(held.shard, held.epoch))
        elif draw(st.integers(0, 9)) < 3 and free:
            shard, epoch = draw(st.sampled_from(free))
            free.remove((shard, epoch))
            labels = labels_for(shard, epoch)
            if draw(st.booleans()) and draw(st.booleans()):
                del labels[manifests.SHARD_LABEL]
            made = pod(ordinal, shards=shards, labels=labels)
        changes: dict[str, Any] = {}
        if draw(st.integers(0, 9)) < 3:
            changes = draw(
                st.sampled_from(
                    [
                        {"ready": False},
                        {"deleting": True},
                        {"terminated": True, "ready": False},
                        {"broken_at": NOW},
                        {"silent_since": NOW - seconds(20)},
                        {"silent_since": NOW - seconds(1)},
                        {"ready": False, "lost_readiness": True, "report": None},
                        {"phase": "Failed", "ready": False},
                        {"phase": "Pending", "ready": False, "report": None},
                        {"report": None},
                        {"ip": None, "ready": False},
                        {"report": Report(shard=draw(st.integers(0, 4)), epoch="50-stale", shards=shards)},
                    ]
                )
            )
        fields = {
            name: getattr(made, name)
            for name in ("labels", "report", "ready", "phase", "ip", "deleting", "terminated", "broken_at")
            if name not in changes
        }
        if draw(st.integers(0, 9)) < 9:
            pods.append(pod(ordinal, **{"shards": shards, **fields, **changes}))
    return pods


def _long_ago() -> dict[str, datetime]:
    """Whatever can be held for long has been."""
    return {f"{fact}/uid-{ordinal}": NOW - seconds(300) for fact in ("NotReady", "OutOfReach") for ordinal in range(7)}


@st.composite
def _nodes(draw: st.DrawFn) -> dict[str, Node] | None:
    """Nothing, or nodes of which some are lost, leaving, dead or gone."""
    if draw(st.booleans()):
        return None
    known = {}
    for ordinal in range(7):
        if draw(st.integers(0, 9)) == 0:
            continue  # not heard of
        name = f"node-{ordinal}"
        known[name] = Node(
            name=name,
            zone=draw(st.sampled_from([None, "a", "b"])),
            ready=draw(st.sampled_from([True, True, True, False, None])),
            leaving=draw(st.sampled_from([None, None, None, "cordoned"])),
            out_of_service=draw(st.integers(0, 9)) == 0,
            renewed_at=draw(st.sampled_from([None, NOW, NOW - seconds(5), NOW - seconds(90)])),
        )
    return known


@st.composite
def looks(draw: st.DrawFn) -> Look:
    """Any look that a cluster of up to four shards could come to, and many that it should not."""
    wanted, reported = draw(COUNTS), draw(MAYBE_COUNT)
    settled = draw(MAYBE_COUNT)
    shards = reported or settled or wanted
    routes: list[Route] = []
    holders = draw(st.permutations(range(7)))
    for shard in range(draw(st.sampled_from([shards, shards, 4, 2]))):
        kind = draw(st.integers(0, 9))
        if kind == 0:
            continue
        named = pod(holders[shard]) if kind != 1 else None
        if kind == 2:
            named = pod(holders[shard], uid="uid-gone")
        routes.append(route(shard, named, foreign=kind == 3 and draw(st.booleans())))
    start = NOW - seconds(draw(AGO))
    operation = None
    if draw(st.booleans()):
        operation = Operation(
            id="noted",
            origin=draw(MAYBE_COUNT),
            to=draw(COUNTS),
            leader_epoch=draw(st.sampled_from([4, 5])),
            started_at=start,
            deadline=start + seconds(180),
            settle_by=start + seconds(840),
            attempts=draw(st.integers(1, 12)),
            answer=draw(st.sampled_from(Answer)),
        )
    call = None
    if draw(st.integers(0, 3)) == 0:
        answer = draw(st.none() | st.sampled_from([Answer.ACCEPTED, Answer.BUSY, Answer.REFUSED, Answer.UNKNOWN]))
        call = Call(
            id=draw(st.sampled_from(["noted", "earlier"])),
            answer=answer,
            not_sent=answer is None and draw(st.booleans()),
            refusal=draw(st.sampled_from(Refusal)) if answer is Answer.REFUSED else None,
            secret_version=draw(st.sampled_from([None, "70"])),
            fingerprint=draw(st.sampled_from([None, FINGERPRINT])),
        )
    account, secret = None, None
    if draw(st.integers(0, 3)) == 0:
        account = Account(
            country_code="1",
            phone_number="6315550000",
            secret_name="acme-account",
            registered_at=draw(st.sampled_from([None, NOW - timedelta(days=1), NOW - timedelta(days=8)])),
        )
        secret = AccountSecret(
            missing=draw(st.sampled_from([None, None, "Secret acme-account"])),
            has_certificate=draw(st.booleans()),
            version="70",
            certificate=draw(st.sampled_from([None, *(CertificateFacts(fingerprint=one) for one in (FINGERPRINT, "cd" * 32))])),
            expires_at=draw(st.sampled_from([None, NOW - seconds(1), NOW + timedelta(days=99), NOW + timedelta(days=99)])),
        )
    want = Desired(
        key=look().want.key,
        uid="cluster-uid",
        generation=3,
        shards=wanted,
        spares=draw(st.integers(0, 2)),
        paused=draw(st.integers(0, 9)) == 0,
        manual=draw(st.integers(0, 9)) == 0,
        deleting=draw(st.integers(0, 19)) == 0,
        account=account,
        switchovers=draw(
            st.sampled_from([(), (), (), (Switchover(shard=0),), (Switchover(shard=1, to="acme-coreapp-2"), Switchover(shard=0))])
        ),
    )
    objects = kept_objects(want, operation=operation)
    if draw(st.integers(0, 7)) == 0:
        objects.pop(draw(st.sampled_from(sorted(objects))))
    replicas = draw(st.sampled_from([0, wanted + want.spares, shards + want.spares, 3, 5, 7]))
    return Look(
        want,
        Observed(
            now=NOW,
            nonce=NONCE,
            leader_epoch=5,
            objects=objects,
            refused=draw(st.sampled_from([None, None, None, "quota"])),
            statefulset=draw(
                st.sampled_from([None] + [Workload(uid="sts", resource_version="9", replicas=replicas, revision=REVISION)] * 9)
            ),
            webapp=draw(st.sampled_from([None, Workload(uid="d", resource_version="8", replicas=2, ready=2)])),
            coreapps=tuple(draw(_coreapps(routes, shards))),
            routes=tuple(routes),
            operation=operation,
            settled_shards=settled,
            anchored_for=draw(st.sampled_from([wanted, wanted, None])),
            refused_fingerprint=draw(st.sampled_from([None, FINGERPRINT])),
            banned=draw(st.integers(0, 9)) == 0,
            client=Client(
                shards=reported,
                asked_at=None if reported is None else NOW - seconds(draw(AGO)),
                asking=draw(st.booleans()),
                login=draw(st.sampled_from(Login)),
                silent_since=draw(st.sampled_from([None, NOW])),
                call=call,
            ),
            account=secret,
            nodes=draw(_nodes()),
            silence=draw(st.sampled_from([Silence(), Silence(), Silence(lag=seconds(2))])),
            since=draw(st.sampled_from([{}, {"EnoughAreBack": NOW - seconds(11), "LacksCoreapps": NOW - seconds(200)}, _long_ago()])),
        ),
    )
