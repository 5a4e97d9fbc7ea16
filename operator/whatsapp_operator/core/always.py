"""What is done in each observation, no matter which rule wins: a table of separate rules, in the order in which they act."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from . import handovers, health, manifests, rollout, scaling
from .actions import (
    Action,
    AssignRole,
    BumpVersion,
    ClearLabels,
    Create,
    Delete,
    GenerateSecret,
    Handover,
    Label,
    Relabel,
    Replace,
    Retire,
    Scale,
    Touch,
)
from .facts import Facts
from .names import Epoch, Ref
from .snapshot import Coreapp, Route
from .upkeep import corrected


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """What earlier rules write now, so that no later rule does: uids of pods and of shard Services, and numbers of shards."""

    pods: frozenset[str]
    routes: frozenset[str]
    shards: frozenset[int]
    replicas: bool = False
    """They write the number of Coreapps, or prepare that write."""

    @classmethod
    def of(cls, actions: Iterable[Action]) -> Self:
        """Return what these actions write."""
        done = [*actions]
        moves = [action for action in done if isinstance(action, Handover)]
        marks = [action for action in done if isinstance(action, Retire)]
        return cls(
            pods=frozenset([*(move.to.uid for move in moves), *(mark.coreapp.uid for mark in marks)]),
            routes=frozenset(move.route.uid for move in moves),
            shards=frozenset(move.route.shard for move in moves),
            replicas=any(isinstance(action, Scale | Retire | BumpVersion) for action in done),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AlwaysRule:
    """One rule: what it is about, what it does and why, and its actions."""

    name: str
    why: str
    then: Callable[[Facts, Busy], Iterable[Action]]
    makes: bool = False
    """It creates what the garbage collector must remove when the cluster is deleted, so it is skipped then."""


ALWAYS: tuple[AlwaysRule, ...] = (
    # What existing shards depend on comes first. No rule that waits, or that has its writes rejected for days, holds it up.
    AlwaysRule(
        name="CoreappsTooFew",
        why="Raises the number of Coreapps: with fewer Coreapps than shards, a shard is unserved.",
        then=lambda f, _: raising(f),
        makes=True,
    ),
    AlwaysRule(
        name="ShardsUnassigned",
        why="Creates missing shard Services, and assigns a holder to each shard that never had one.",
        then=lambda f, busy: assigning(f, busy.shards, busy.pods),
        makes=True,
    ),
    AlwaysRule(
        name="CoreappsUnused",
        why="Lowers the number of Coreapps before any shard has had a holder: nothing is served, and a Webapp may need the room.",
        then=lambda f, busy: scaling.lowering(f) if scaling.are_unused(f) and not busy.pods else (),
        makes=True,
    ),
    AlwaysRule(
        name="ObjectsAbsent",
        why="Creates missing objects.",
        then=lambda f, _: making(f),
        makes=True,
    ),
    AlwaysRule(
        name="PodsUnresponsive",
        why="Deletes Coreapps that do not answer or cannot become ready, so that they return as spares; at most max(1, spares) at a time.",
        then=lambda f, busy: replacing(f, busy.pods),
    ),
    AlwaysRule(
        name="ObjectsChanged",
        why="Restores the desired content of objects; while the cluster is paused, only of shard Services and the Coreapps' budget.",
        then=lambda f, busy: mending(f, busy.routes),
    ),
    AlwaysRule(
        name="LabelsLost",
        why="Restores lost labels of pods and shard Services: without them there is no traffic.",
        then=lambda f, busy: labelling(f, busy.pods | busy.routes),
    ),
    AlwaysRule(
        name="NamesOutgrown",
        why="Deletes objects with names from earlier releases, once their replacements exist.",
        then=lambda f, _: outgrowing(f),
    ),
    AlwaysRule(
        name="HandoversUnfinished",
        why="Clears labels and Services that handovers left behind, so that a prepared epoch is committed or dead.",
        then=lambda f, busy: tidying(f, busy.pods),
    ),
    AlwaysRule(
        name="ShrinkGivenUp",
        why="Voids a write that may still remove Coreapps that are now to stay, so that they can take shards again.",
        then=lambda f, busy: () if busy.replicas else keeping(f),
    ),
    AlwaysRule(
        name="RolesDiffer",
        why="Assigns a Coreapp its role wherever what it reports differs from the Services.",
        then=lambda f, busy: role_assignments(f, busy.pods, busy.shards),
    ),
)


def adding(f: Facts, actions: Iterable[Action]) -> list[Action]:
    """Return the actions of the rule that won, followed by those of each of these rules, in their order."""
    done = [*actions]
    for rule in ALWAYS:
        if not (rule.makes and f.desired.deleting):
            done += rule.then(f, Busy.of(done))
    return done


def raising(f: Facts) -> tuple[Scale, ...]:
    """Return the write that raises the number of Coreapps, if they are too few."""
    return scaling.scale(f, scaling.raised(f)) if scaling.are_too_few(f) else ()


def assigning(f: Facts, moving: frozenset[int], busy: frozenset[str]) -> Iterator[Action]:
    """Yield the missing Services of shards that exist, and a holder for each shard that never had one.

    The rule that won writes ``moving`` shards and ``busy`` pods: another move would put an epoch on two pods (laws#2).
    """
    services = (manifests.shard_service(f.desired, shard) for shard in f.shards_without_service(f.known_shards))
    yield from (Create(obj=service) for service in services if not f.is_there(service))
    yield from handovers.assignments(f, moving, busy)


def making(f: Facts) -> Iterator[Create | GenerateSecret]:
    """Yield the actions that create missing objects."""
    tls = manifests.tls_secret_name(f.desired)
    for obj in f.absent:
        name = obj["metadata"]["name"]
        if not f.may_write(Ref(obj["kind"], name)):
            continue
        if obj["kind"] == "Secret":
            hosts = (manifests.server_name(f.desired), manifests.webapp_host(f.desired.key), manifests.webapp_name(f.desired.key.name))
            yield GenerateSecret(
                obj=obj,
                recipe="tls" if name == tls else "admin",
                host_names=tuple(dict.fromkeys(hosts)),
            )
        elif Ref(obj["kind"], name) == manifests.coreapp_statefulset(f.desired.key.name):
            yield Create(obj=manifests.coreapps(f.desired, replicas=f.desired_replicas))
        else:
            yield Create(obj=obj)


def role_assignments(f: Facts, busy: frozenset[str], moving: frozenset[int]) -> Iterator[AssignRole]:
    """Yield role assignments for Coreapps whose report differs from the Services (docs/architecture.md, "Handover").

    ``busy`` pods and ``moving`` shards get their roles by the handover in progress.
    """
    by_holder = {route.holder_uid: route for route in f.routes if route.shard not in moving}
    by_shard = {route.shard: route for route in f.routes}
    for pod in f.snapshot.coreapps:
        report = pod.report
        # A Coreapp is only assigned with its own number of shards; one with another number is restarting or about to.
        if (
            pod.uid in busy
            or report is None
            or report.shards is None
            or pod.deleting
            or pod.ip is None
            or report.shards != (f.shards or report.shards)
        ):
            continue
        route = by_holder.get(pod.uid)
        if route is not None and route.shard < report.shards:
            if (report.shard, report.epoch) != (route.shard, route.epoch):
                yield AssignRole(coreapp=pod, shards=report.shards, shard=route.shard, epoch=route.epoch)
        elif report.shard is not None and pod.uid not in {route.holder_uid for route in f.snapshot.routes}:
            other, epoch = by_shard.get(report.shard), Epoch.parse(report.epoch)
            if other is not None and epoch is not None and epoch.n >= other.version:
                # Its epoch was committed after this Service was read: what was read is old, and says nothing against the holder.
                continue
            if other is not None and (holder := f.holder(other)) is not None:
                yield AssignRole(coreapp=pod, shards=report.shards, shard=other.shard, epoch=other.epoch, holder=holder)
            else:
                # Without a holder to name, a shard in the message would mean "serve it".
                yield AssignRole(coreapp=pod, shards=report.shards)


def replacing(f: Facts, busy: frozenset[str]) -> Iterator[Delete]:
    """Yield deletions of Coreapps that do not answer or cannot become ready, so that they come back as spares.

    Of ``busy`` pods, only those that do not answer: one that takes over a shard now may never become ready and serve nevertheless.

    Bounded harm: no matter the evidence, no more pods are ended at a time than there are spares (at least one). The next one follows
    when the successor of the last one is ready. A successor that also fails may be ended as well: no further pod goes because of that.
    """
    faulty = (pod for pod in rollout.unrecoverable(f) if pod.uid not in busy)
    ends = {pod.uid: pod for pod in (*_hung(f), *faulty)}
    # Pods without a shard come first: as spares they can take over shards. A pod with a rejected deletion takes no other pod's place.
    pods = sorted(ends.values(), key=lambda pod: (Ref("Pod", pod.name) in f.snapshot.rejected, pod.uid in f.holder_uids))
    again = [pod for pod in pods if pod.name in f.ending]
    others = [pod for pod in pods if pod.name not in f.ending]
    room = max(0, max(1, f.desired.spares) - len(f.ending))
    yield from map(Delete.of, (*again, *others[:room]))


def _hung(f: Facts) -> Iterator[Coreapp]:
    """Yield Coreapps that run, hold no shard and do not answer.

    A Coreapp that still holds its shard, because there is no standby, is ended after twice the time: its restarted pod takes the shard
    back. A pod on a lost node is left alone, because no kubelet there could end it; unreachable pods are reported.
    """
    for pod in f.snapshot.coreapps:
        # A Coreapp that was never ready may still be starting, but not if it listens without answering for as long as a restart may take.
        is_starting = not (pod.ready or pod.lost_readiness) and not health.is_unresponsive(f, pod, f.desired.restart_timeout)
        # With a pending label it may become a holder at any moment, when another leader commits.
        is_free = not pod.deleting and f.claim(pod) != "pending"
        if is_starting or not is_free or not health.is_hung(f, pod) or not health.is_node_alive(f, pod):
            continue
        long = health.is_unresponsive(f, pod, 2 * f.desired.unhealthy_after)
        if pod.uid not in f.holder_uids or (long and not f.desired.manual):
            yield pod


def mending(f: Facts, busy: frozenset[str]) -> Iterator[Replace]:
    """Yield writes that restore the desired content of objects; ``busy`` Services are written by the rule that won.

    When everything else is held, the disruption budget still follows Set Shards, and shards still get their traffic.
    """
    for obj in f.changed:
        ref = Ref(obj["kind"], obj["metadata"]["name"])
        live = f.snapshot.objects[ref]
        is_route = manifests.SHARD_LABEL in obj["metadata"]["labels"]
        is_held = f.desired.deleting or (f.desired.paused and not is_route)
        is_due = f.may_write(ref) and live["metadata"]["uid"] not in busy
        if is_due and (not is_held or ref == manifests.coreapp_budget(f.desired.key.name)):
            yield Replace(obj=corrected(live, obj), desired=obj, live=live)


def labelling(f: Facts, busy: frozenset[str]) -> Iterator[Label]:
    """Yield writes that restore lost labels of pods and shard Services; ``busy`` objects are written by the rule that won.

    Labels are restored even while paused: without them a holder gets no traffic, and a StatefulSet can neither keep nor replace its pod.
    They are not restored while the cluster is being deleted: the garbage collector goes by owners.
    """
    for obj in () if f.desired.deleting else f.snapshot.mislabelled:
        meta = obj["metadata"]
        if meta["uid"] not in busy and (labels := manifests.lost_labels(f.desired, obj)):
            yield Label(ref=Ref(obj["kind"], meta["name"]), resource_version=meta["resourceVersion"], labels=labels)


def outgrowing(f: Facts) -> Iterator[Delete]:
    """Yield deletions of objects with names from earlier releases, once their replacements exist."""
    for former, successor in manifests.outgrown(f.desired.key.name).items():
        live = f.snapshot.objects.get(former)
        is_held = f.desired.paused or f.desired.deleting or not f.may_write(former)
        if live is not None and successor in f.snapshot.objects and not is_held:
            yield Delete(ref=former, uid=live["metadata"]["uid"], resource_version=live["metadata"]["resourceVersion"])


def tidying(f: Facts, busy: frozenset[str]) -> Iterator[Action]:
    """Yield the writes that clear what handovers left behind; ``busy`` pods are written by the rule that won."""
    shards_on_pods = {pod.shard_label for pod in f.snapshot.coreapps if pod.epoch_label is not None}
    for pod in f.snapshot.coreapps:
        is_going = f.retires_by(pod) is not None and pod.ordinal >= f.replicas
        if pod.deleting or pod.uid in busy or is_going:
            continue
        claim, shard = f.claim(pod), pod.shard_label
        route = next((route for route in f.snapshot.routes if route.shard == shard and not route.foreign), None)
        if claim in {"dead", "invalid"} or (claim == "orphan" and _is_beyond(f, shard)):
            yield ClearLabels(coreapp=pod)
        elif claim == "pending":
            yield from (Touch(route=one, epoch=pod.epoch_label) for one in f.awaiting(pod))
        elif claim == "committed" and route is not None and (route.holder_uid != pod.uid or is_surplus(f, route)):
            yield ClearLabels(coreapp=pod)
        elif claim in {"none", "damaged"}:
            named = next((one for one in f.routes if one.holder_uid == pod.uid), None)
            if named is not None and f.failure(named) is None and not _is_elsewhere(f, named):
                yield Relabel(coreapp=pod, route=named)
            elif named is None and (claim == "damaged" or pod.labels.get(manifests.ROLE_LABEL) != "standby"):
                yield ClearLabels(coreapp=pod)
    # After a restore of etcd, the Service's version may be below the epoch that the servers know. Then the next epoch would be, too.
    fenced = (one for one in f.routes if f.failure(one) is None and f.is_fenced_off(one))
    yield from (Touch(route=one, epoch=one.epoch) for one in fenced if one.touched != one.epoch)
    for route in f.snapshot.routes:
        if is_surplus(f, route) and not route.foreign and route.shard not in shards_on_pods:
            yield Delete(ref=Ref("Service", route.name), uid=route.uid, resource_version=str(route.version))


def keeping(f: Facts) -> Iterator[BumpVersion]:
    """Yield the version bump that voids the marks of Coreapps that were to go (laws#7); the next observation clears them."""
    marked = [pod for pod in f.snapshot.coreapps if not pod.deleting and f.claim(pod) == "retiring"]
    newest = max(marked, key=lambda pod: f.retires_by(pod) or 0, default=None)
    workload = f.snapshot.statefulset
    if newest is not None and workload is not None and not f.desired.deleting:
        ref = manifests.coreapp_statefulset(f.desired.key.name)
        yield BumpVersion(ref=ref, resource_version=workload.resource_version, shards=f.desired.shards, nonce=newest.epoch_label or "")


def _is_elsewhere(f: Facts, route: Route) -> bool:
    """Whether another pod carries the route's epoch: until that label is cleared, a second one would make two pods match (laws#1)."""
    return any(pod.epoch_label == route.epoch and pod.uid != route.holder_uid for pod in f.snapshot.coreapps)


def is_surplus(f: Facts, route: Route) -> bool:
    """Whether the client no longer has this shard, by a fresh observation and with no call in progress that could bring it back.

    A Service is not surplus while its holder is connected for the shard: each change of the number ends all connections, so the Webapp's
    answer is wrong. Nor is it surplus if it was created for a shard that does not exist yet.
    """
    is_to_come = route.holder_uid is None and route.shard < f.desired.shards
    return f.is_verified and _is_beyond(f, route.shard) and not is_to_come and not _is_connected(f, route)


def _is_connected(f: Facts, route: Route) -> bool:
    """Whether the holder reports that its shard is connected to WhatsApp, under the epoch that the Service names."""
    pod = f.holder(route)
    if pod is None or pod.report is None or pod.broken_at is not None or pod.unresponsive_since is not None:
        return False
    return (pod.report.shard, pod.report.epoch, pod.report.gateway) == (route.shard, route.epoch, "connected")


def _is_beyond(f: Facts, shard: int | None) -> bool:
    """Whether a fresh observation says that the client does not have this shard."""
    shards = f.shards if f.shards_are_fresh else None
    return shards is not None and shard not in range(shards)
