"""Random snapshots for the laws: any that a cluster of up to four shards could come to, and many that it should not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from whatsapp_operator.core import manifests
from whatsapp_operator.core.certificate import CertificateFacts
from whatsapp_operator.core.desired import Account, Desired, Switchover
from whatsapp_operator.core.names import Ref
from whatsapp_operator.core.snapshot import (
    AccountSecret,
    Answer,
    Call,
    Client,
    Coreapp,
    Login,
    Node,
    Operation,
    Overruled,
    Record,
    RejectedWrite,
    Rejection,
    Report,
    Route,
    Silence,
    Snapshot,
    Workload,
)

from .situations import FINGERPRINT, NONCE, NOW, REVISION, Situation, kept_objects, labels_for, pod, route, seconds, situation

REJECTED = [("Deployment", "acme-webapp"), ("PodDisruptionBudget", "acme-coreapp"), ("Pod", "acme-coreapp-1")]

COUNTS = st.sampled_from([1, 2, 4])
MAYBE_COUNT = st.none() | COUNTS
AGO = st.sampled_from([0.0, 0.5, 3.0, 100.0, 500.0, 1000.0])


TROUBLES: list[dict[str, Any]] = [
    {"ready": False},
    {"deleting": True},
    {"terminated": True, "ready": False},
    {"broken_at": NOW},
    {"ended_at": NOW},
    {"unresponsive_since": NOW - seconds(20)},
    {"unresponsive_since": NOW - seconds(1)},
    {"ready": False, "lost_readiness": True, "report": None},
    {"phase": "Failed", "ready": False},
    {"phase": "Pending", "ready": False, "report": None},
    {"report": None},
    {"ip": None, "ready": False},
    {"deleting": True, "ready": False, "held_by": ("example.com/backup",)},
    {"report": Report(shard=1, epoch="50-stale", shards=2)},
]
"""What may be wrong with one pod."""
EXPLAINED = [changes for changes in TROUBLES if changes.keys() & {"terminated", "broken_at", "unresponsive_since"}]
"""What a restart explains."""


@st.composite
def _coreapps(draw: st.DrawFn, routes: list[Route], shards: int) -> list[Coreapp]:
    """Pods of which each label is on one pod only: law 1 is what the observation begins with."""
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
        elif draw(st.integers(0, 9)) < 3:
            n = draw(st.sampled_from([5, 9, 9, 9, 400]))
            made = pod(
                ordinal, shards=shards, labels={manifests.ROLE_LABEL: manifests.RETIRING, manifests.EPOCH_LABEL: f"{n}-{NONCE}-{ordinal}"}
            )
        changes: dict[str, Any] = {}
        if draw(st.integers(0, 9)) < 3:
            changes = draw(st.sampled_from(TROUBLES))
            if changes.get("report"):
                changes = {"report": Report(shard=draw(st.integers(0, 4)), epoch="50-stale", shards=shards)}
        fields = {
            name: getattr(made, name)
            for name in ("labels", "report", "ready", "phase", "ip", "deleting", "terminated", "broken_at", "held_by")
            if name not in changes
        }
        if draw(st.integers(0, 9)) < 9:
            pods.append(pod(ordinal, **{"shards": shards, **fields, **changes}))
    return pods


def _long_ago() -> dict[str, datetime]:
    """Everything that can be held for long has been."""
    of_pods = {f"{fact}/uid-{ordinal}" for fact in ("NotReady", "NodesUnreachable", "DeletionBlocked") for ordinal in range(7)}
    return dict.fromkeys(of_pods | {"PodsMissing", "PodsRejected"}, NOW - seconds(300))


def _scaled_by(replicas: int, manager: str | None) -> list[Workload]:
    return [Workload(uid="sts", resource_version="9", replicas=replicas, revision=REVISION, scaled_by=manager)]


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
def situations(draw: st.DrawFn) -> Situation:
    """Any observation that a cluster of up to four shards could come to, and many that it should not."""
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
            retry_after=draw(st.sampled_from([None, None, seconds(0), seconds(2), seconds(3600)])),
            answer=draw(st.sampled_from(Answer)),
        )
    call = None
    if draw(st.integers(0, 3)) == 0:
        answer = draw(st.none() | st.sampled_from([Answer.ACCEPTED, Answer.BUSY, Answer.REJECTED, Answer.UNKNOWN]))
        call = Call(
            id=draw(st.sampled_from(["noted", "earlier"])),
            answer=answer,
            not_sent=answer is None and draw(st.booleans()),
            rejection=draw(st.sampled_from(Rejection)) if answer is Answer.REJECTED else None,
            retry_after=draw(st.sampled_from([None, seconds(0), seconds(3600)])) if answer is Answer.BUSY else None,
            secret_version=draw(st.sampled_from([None, "70"])),
            pin_digest=draw(st.sampled_from([None, "pin-1"])),
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
    desired = Desired(
        client="Simulator",
        key=situation().desired.key,
        uid="cluster-uid",
        generation=3,
        shards=wanted,
        spares=draw(st.integers(0, 2)),
        paused=draw(st.integers(0, 9)) == 0,
        manual=draw(st.integers(0, 9)) == 0,
        deleting=draw(st.integers(0, 19)) == 0,
        webapps=draw(st.sampled_from([2, 2, None])),
        account=account,
        switchovers=draw(
            st.sampled_from([(), (), (), (Switchover(shard=0),), (Switchover(shard=1, to="acme-coreapp-2"), Switchover(shard=0))])
        ),
    )
    objects = kept_objects(desired, operation=operation)
    if draw(st.integers(0, 7)) == 0:
        objects.pop(draw(st.sampled_from(sorted(objects))))
    replicas = draw(st.sampled_from([0, wanted + desired.spares, shards + desired.spares, 3, 5, 7]))
    return Situation(
        desired,
        Snapshot(
            now=NOW,
            nonce=NONCE,
            leader_epoch=5,
            objects=objects,
            rejected=draw(st.sampled_from([{}, {}, {}, *({Ref(*one): RejectedWrite("quota", NOW)} for one in REJECTED)])),
            denied=draw(st.sampled_from([None] * 9 + ["patch Pod: 403 Forbidden"])),
            rejected_pods=draw(st.sampled_from([None, None, None, "quota"])),
            rejected_coreapp=draw(st.sampled_from([None, None, None, "quota"])),
            overruled=draw(st.sampled_from([None, None, *(Overruled(by="hpa", replicas=7, times=times, at=NOW) for times in (1, 9))])),
            statefulset=draw(st.sampled_from([None, *_scaled_by(replicas, "hpa"), *_scaled_by(replicas, None) * 8])),
            webapp=draw(st.sampled_from([None, Workload(uid="d", resource_version="8", replicas=2, ready=2)])),
            coreapps=tuple(draw(_coreapps(routes, shards))),
            routes=tuple(routes),
            record=Record(
                uid=desired.uid,
                operation=operation,
                settled_shards=settled,
                rejected_fingerprint=draw(st.sampled_from([None, FINGERPRINT])),
                rejected_before=draw(st.sampled_from([(), (), (), ("cd" * 32, FINGERPRINT)])),
                banned_at=NOW if draw(st.integers(0, 9)) == 0 else None,
                expired_build=draw(st.sampled_from([None, None, None, "? whatsapp-operator/wabiz-sim:dev", "v2 another:2"])),
                registration_closed_for=draw(st.sampled_from([None, None, None, "70", "generation-3", "12"])),
            ),
            anchored_for=draw(st.sampled_from([wanted, wanted, None])),
            client=Client(
                shards=reported,
                asked_at=None if reported is None else NOW - seconds(draw(AGO)),
                asking=draw(st.booleans()),
                login=draw(st.sampled_from(Login)),
                unresponsive_since=draw(st.sampled_from([None, NOW])),
                call=call,
            ),
            account=secret,
            nodes=draw(_nodes()),
            silence=draw(st.sampled_from([Silence(), Silence(), Silence(lag=seconds(2))])),
            since=draw(st.sampled_from([{}, {"EnoughAreBack/noted": NOW - seconds(11), "LacksCoreapps": NOW - seconds(200)}, _long_ago()])),
        ),
    )


# --- states that a law has something to say of, and a few things wrong with them ------------------------------------------------------

Change = Callable[[st.DrawFn, Situation], Situation]

UNFIT: list[dict[str, Any]] = [
    {"certificate": None},
    {"expires_at": NOW - seconds(1)},
    {"expires_at": None},
    {"certificate": CertificateFacts(fingerprint="cd" * 32)},
    {"secret": AccountSecret(), "registered_at": NOW - timedelta(days=8)},
    {"secret": AccountSecret(), "registered_at": NOW - timedelta(days=1)},
    {"secret": AccountSecret()},
]
"""What may be wrong with an account, and two that look like it and are right."""
UNSENT: list[Callable[[Situation], Situation]] = [
    *(lambda one, changes=changes: one.with_account(**changes) for changes in UNFIT),
    lambda one: one.with_account().seeing(rejected_fingerprint=FINGERPRINT),
    lambda one: one.with_account().seeing(rejected_fingerprint="cd" * 32, rejected_before=("ef" * 32, FINGERPRINT)),
    lambda one: one.with_account(secret=AccountSecret(), registered_at=NOW - timedelta(days=1)).seeing(rejected_fingerprint="0" * 64),
    lambda one: one.with_account().seeing(rejected_pin="pin-1"),
    *[lambda one: one.with_account().seeing(registration_closed_for="70")] * 2,
    *[lambda one: one.seeing(expired_build=f"{one.snapshot.client.version or '?'} {one.desired.image}")] * 2,
    *[lambda one: one.with_account().seeing(banned_at=NOW)] * 2,
    *[lambda one: one.with_account().seeing(number_kept_by="default/first")] * 2,
    *[lambda one: one.seeing(anchored_for=None)] * 2,
    lambda one: one.client(asked_at=NOW - seconds(9)),
    lambda one: one.client(call=Call(id="4-x")),
    *[lambda one: one.wanting(paused=True)] * 2,
    lambda one: one.all_pods(ready=False),
    lambda one: one.noted(one.desired.shards, Answer.UNKNOWN),
]
"""What stands in the way of a Set Shards that is due."""


def _growing(draw: st.DrawFn) -> Situation:
    """Enough Coreapps are ready for more shards, and Set Shards is due; in two of three, something stands in its way."""
    before, after = draw(st.sampled_from([(1, 2), (2, 4), (1, 4)]))
    spares = draw(st.integers(0, 2))
    one = situation().settled(shards=before, spares=spares).wanting(shards=after)
    one = one.with_pods(range(before + spares, after + spares))
    one = one.with_account() if draw(st.booleans()) else one
    return draw(st.sampled_from(UNSENT))(one) if draw(st.integers(0, 2)) else one


def _shrinking(draw: st.DrawFn) -> Situation:
    """The client has fewer shards than there are pods for; in half of them, something stands in the way."""
    shards, spares, more = draw(st.sampled_from([1, 2, 4])), draw(st.integers(0, 2)), draw(st.integers(1, 3))
    surplus = range(shards + spares, shards + spares + more)
    one = situation().settled(shards=shards, spares=spares).with_pods(surplus)
    one = one.retiring(*draw(st.sampled_from([surplus, surplus, surplus, surplus[1:]])), n=draw(st.sampled_from([9, 9, 9, 9, 8, 10])))
    way = draw(st.integers(0, 7))
    if way == 0:
        return _moved(draw, one)
    if way == 3:  # it may be restarting
        return one.noted(shards, Answer.ACCEPTED).with_pod(surplus[-1], report=None)
    if way == 4:  # a new cluster that was to be larger
        one = one.all_pods(ready=False, labels={}).retiring(*surplus).reporting(draw(st.sampled_from([None, 1])))
        return one.seeing(routes=(), settled_shards=None)
    if way == 1:
        return one.with_pod(draw(st.integers(0, shards - 1)), report=None)
    return one.client(asked_at=NOW - seconds(9)) if way == 2 else one


def _restarting(draw: st.DrawFn) -> Situation:
    """Set Shards was accepted, or may have been, and some Coreapps are back; one may be away as in any restart."""
    before, after = draw(st.sampled_from([(1, 2), (2, 4), (4, 2), (2, 1)]))
    most = max(before, after) + 1
    one = situation().settled(shards=before).wanting(shards=after)
    one = one.with_pods(range(before + 1, most)) if most > before + 1 else one
    one = one.noted(after, draw(st.sampled_from([Answer.NONE, Answer.UNKNOWN, Answer.ACCEPTED, Answer.ACCEPTED])))
    if draw(st.booleans()):
        one = one.reporting(after)
    if draw(st.booleans()):
        one = one.with_pod(draw(st.integers(0, before - 1)), **draw(st.sampled_from(EXPLAINED)))
    return one.restarted(after, draw(st.sets(st.integers(0, most - 1), max_size=most)))


def _recreating(draw: st.DrawFn) -> Situation:
    """A person deleted the StatefulSet, and changed the request, while a Set Shards may still take effect."""
    to, wanted = draw(st.sampled_from([(4, 2), (4, 1), (2, 1), (2, 4)]))
    one = situation().settled(shards=draw(st.sampled_from([1, 2]))).noted(to, draw(st.sampled_from([Answer.NONE, Answer.UNKNOWN])))
    return one.wanting(shards=wanted).without_object("StatefulSet", "acme-coreapp")


def _failing(draw: st.DrawFn) -> Situation:
    """A holder is gone, and there is a spare; or there is none, and another holder lost its labels."""
    shards = draw(st.sampled_from([1, 2, 4]))
    if draw(st.integers(0, 2)) == 0:
        return situation().settled(shards=max(2, shards), spares=0).with_holder(1, labels={}).holder_deleted(0)
    return situation().settled(shards=shards, spares=draw(st.integers(1, 2))).holder_deleted(draw(st.integers(0, shards - 1)))


def _one_pod(draw: st.DrawFn, one: Situation) -> Situation:
    ordinals = [pod.ordinal for pod in one.snapshot.coreapps]
    return one.with_pod(draw(st.sampled_from(ordinals)), **draw(st.sampled_from(TROUBLES))) if ordinals else one


def _gone_pod(draw: st.DrawFn, one: Situation) -> Situation:
    ordinals = [pod.ordinal for pod in one.snapshot.coreapps]
    return one.without_pod(draw(st.sampled_from(ordinals))) if ordinals else one


def _client(draw: st.DrawFn, one: Situation) -> Situation:
    changes: list[dict[str, Any]] = [
        {"asked_at": NOW - seconds(9)},
        {"shards": None},
        {"shards": 4},
        {"shards": 1},
        {"call": Call(id="4-x")},
    ]
    return one.client(**draw(st.sampled_from(changes)))


def _account(draw: st.DrawFn, one: Situation) -> Situation:
    return one.with_account(**draw(st.sampled_from(UNFIT)))


def _status(draw: st.DrawFn, one: Situation) -> Situation:
    changes: list[dict[str, Any]] = [
        {"rejected_fingerprint": FINGERPRINT},
        {"banned_at": NOW},
        {"anchored_for": None},
        {"rejected_pin": "pin-1"},
        {"registration_closed_for": "generation-3"},
        {"expired_build": "v2.53.4 whatsapp-operator/wabiz-sim:dev"},
        {"since": {"EnoughAreBack/4-noted": NOW - seconds(11)}},
    ]
    return one.seeing(**draw(st.sampled_from(changes)))


def _spec(draw: st.DrawFn, one: Situation) -> Situation:
    changes: list[dict[str, Any]] = [{"paused": True}, {"manual": True}, {"spares": 3}, {"shards": 2}, {"shards": 8}]
    return one.wanting(**draw(st.sampled_from(changes)))


def _moved(draw: st.DrawFn, one: Situation) -> Situation:
    """A shard is on the highest ordinal."""
    return one.held_by(0, one.snapshot.coreapps[-1].ordinal) if one.snapshot.routes and one.snapshot.coreapps else one


BASES = (*(_growing,) * 6, *(_shrinking,) * 2, *(_restarting,) * 3, _recreating, _failing)
WRONG: tuple[Change, ...] = (_one_pod, _one_pod, _gone_pod, _client, _account, _status, _spec, _moved)


@st.composite
def near_observations(draw: st.DrawFn) -> Situation:
    """A state that a law has something to say of, with nothing or one more thing wrong."""
    one = draw(st.sampled_from(BASES))(draw)
    for change in draw(st.lists(st.sampled_from(WRONG), max_size=1)):
        one = change(draw, one)
    return one


def any_observations() -> st.SearchStrategy[Situation]:
    """Wild ones and near ones."""
    return st.one_of(situations(), near_observations(), near_observations(), near_observations())
