"""What was read, as one value: the verdict, the shards, the standbys, what is in progress, and what to do next. Pure, without rendering.

The status is what the operator last wrote, and the operator may be dead. So whether a shard is served is judged here from the objects
themselves: its Service selects a pod by the epoch, that pod is ready, and its node still renews its Lease.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from kubectl_whatsapp import Obj
from kubectl_whatsapp.marks import EPOCH_LABEL, RETIRING, ROLE_LABEL, SHARD_LABEL, Route, moment, renewed, route_of
from kubectl_whatsapp.model import Condition, Handover, Leader, Operation, Shard, Standby, View
from kubectl_whatsapp.reading import OPERATOR_LABEL, Read
from kubectl_whatsapp.verdict import Facts, verdict
from kubectl_whatsapp.world import World, condition, labels

LEASE_SLACK: Final = timedelta(seconds=2)
"""The API server's clock is read twice, each time only to the second, and a renewal may be in progress."""
LONGEST_LEASE: Final = timedelta(seconds=60)
"""A Lease with a longer duration was edited: no operator has one."""


def view(read: Read) -> View:
    """Return what is shown of a cluster. If something could not be read, the answer says less, but nothing wrong."""
    world = World(read)
    shards = tuple(_shards(world))
    standbys = tuple(_standbys(world, shards))
    leader = leader_of(world)
    return View(
        namespace=read.target.namespace,
        name=read.target.name,
        at=read.at,
        verdict=verdict(Facts(world, shards, standbys, leader)),
        shards=shards,
        standbys=standbys,
        spec_shards=world.spec.get("shards"),
        spec_spares=world.spec.get("spares", 1) if world.spec else None,
        reason=str(world.status.get("reason") or ""),
        message=str(world.status.get("message") or ""),
        conditions=tuple(_conditions(world)),
        operation=_operation(world),
        handovers=tuple(_handovers(world)),
        leader=leader,
        certificate_expires=moment((world.status.get("certificate") or {}).get("expiresAt")),
        inaction=tuple(dict.fromkeys(_inaction(world))),
        next_steps=tuple(_next_steps(world, shards, standbys, leader)),
        unread=read.unread_titles(),
        seconds=read.seconds,
    )


# --- shards ---------------------------------------------------------------------------------------------------------------


def _shards(world: World) -> Iterator[Shard]:
    if not world.cluster or world.read.items("services") is None:
        yield from _reported(world)
        return
    found = {route.shard: route for route in _routes(world)}
    for number in range(max(world.status.get("shards") or world.status.get("settledShards") or 0, 0)):
        route = found.get(number)
        if route is None or route.holder is None or route.epoch is None:
            yield Shard(number=number, served=False, why="no Coreapp has it" if route else "it has no Service")
            continue
        pod = world.pods.get(route.holder)
        served, why = _served(world, route.epoch, route.holder, route.holder_uid, pod)
        node = (pod.get("spec") or {}).get("nodeName") if pod else None
        yield Shard(number=number, served=served, holder=route.holder, node=node, epoch=route.epoch, since=route.committed_at, why=why)


def _routes(world: World) -> list[Route]:
    routes = (route_of(one, world.read.target.name, world.uid) for one in world.read.items("services") or ())
    return [route for route in routes if route is not None]


def _reported(world: World) -> Iterator[Shard]:
    """The shards as the operator last wrote them, if their Services could not be read."""
    for entry in sorted(world.status.get("shardMap") or (), key=lambda one: int(one.get("shard", 0))):
        yield Shard(
            number=entry.get("shard", 0),
            served=None,
            holder=entry.get("holder"),
            node=entry.get("node"),
            epoch=entry.get("epoch"),
            since=moment(entry.get("since")),
            why="its Service could not be read; this is what the operator last reported",
        )


def _served(world: World, epoch: str, holder: str, uid: str | None, pod: Obj | None) -> tuple[bool | None, str]:
    if world.read.items("pods") is None:
        return None, "pods could not be read"
    if pod is None or (uid and pod["metadata"].get("uid") != uid):
        return False, f"{holder} is gone" if pod is None else f"{holder} was recreated and no longer holds it"
    if labels(pod).get(EPOCH_LABEL) != epoch:
        return False, f"{holder} does not carry epoch {epoch}, so the Service selects no pod"
    trouble = world.pod_trouble(pod)
    return not trouble, trouble


def _standbys(world: World, shards: tuple[Shard, ...]) -> Iterator[Standby]:
    holders = {one.holder for one in shards}
    uids = {route.holder: route.holder_uid for route in _routes(world)}
    # Without the cluster it is not known who holds a shard.
    for pod in world.component("coreapp") if world.cluster else ():
        name, trouble = pod["metadata"]["name"], world.pod_trouble(pod)
        # A recreated holder has the same name but holds nothing.
        if name in holders and (uids.get(name) or pod["metadata"].get("uid")) == pod["metadata"].get("uid"):
            continue
        node = (pod.get("spec") or {}).get("nodeName")
        epoch = labels(pod).get(EPOCH_LABEL)
        if not trouble and labels(pod).get(ROLE_LABEL) == RETIRING:
            trouble = "it is about to be removed, because there are more Coreapps than the spec asks for"
        if not trouble and epoch:
            trouble = f"it still carries epoch {epoch} of shard {labels(pod).get(SHARD_LABEL, '?')}"
        is_cordoned = bool(node) and bool((world.nodes.get(node or "", {}).get("spec") or {}).get("unschedulable"))
        remark = f"node {node} is cordoned; it would be used only if there is no other" if is_cordoned else ""
        yield Standby(pod=name, node=node, eligible=not trouble, why=trouble or remark)


# --- the operator ---------------------------------------------------------------------------------------------------------


def leader_of(world: World) -> Leader | None:
    """Return who leads, by the Lease; None if the Lease could not be read."""
    lease = world.read.found.get("lease")
    operators = world.read.items("operators")
    # Without any pod the operator runs elsewhere, or under other labels.
    ready = sum(not world.pod_trouble(pod) for pod in operators) if operators else None
    if lease is None:
        return Leader(holder="", renewed=None, alive=False, replicas_ready=ready) if "lease" in world.read.absent else None
    spec: Obj = lease.get("spec") or {}
    last = renewed(lease)
    lasts = min(timedelta(seconds=float(spec.get("leaseDurationSeconds") or 0)), LONGEST_LEASE)
    holder = str(spec.get("holderIdentity") or "")
    alive = bool(holder) and last is not None and world.read.at - last <= lasts + LEASE_SLACK
    return Leader(holder=holder, renewed=last, alive=alive, replicas_ready=ready)


def _conditions(world: World) -> Iterator[Condition]:
    for one in world.status.get("conditions") or ():
        kind, status, reason, message = (str(one.get(key) or "") for key in ("type", "status", "reason", "message"))
        yield Condition(type=kind, status=status, reason=reason, message=message, since=moment(one.get("lastTransitionTime")))


def _handovers(world: World) -> Iterator[Handover]:
    for one in world.status.get("recentHandovers") or ():
        yield Handover(
            at=moment(one.get("at")),
            shard=one.get("shard", 0),
            kind=str(one.get("kind") or ""),
            from_=one.get("from"),
            to=str(one.get("to") or ""),
            evidence=str(one.get("evidence") or ""),
            detect_milliseconds=one.get("detectMilliseconds"),
            commit_milliseconds=one.get("commitMilliseconds"),
            serve_milliseconds=one.get("serveMilliseconds"),
        )


# --- what is in progress ---------------------------------------------------------------------------------------------------------

STEPS: Final[tuple[tuple[frozenset[str], str], ...]] = (
    (frozenset({"ScalingUp"}), "Coreapps are added"),
    (frozenset({"AwaitingCoreapps"}), "enough Coreapps must be ready"),
    (frozenset({"WindowClosed"}), "a maintenance window must open"),
    (frozenset({"SettingShards", "ServerBusy", "AnswerUnknown"}), "Set Shards is called"),
    (frozenset({"Verifying", "Restarting", "RestartOverdue"}), "all Coreapps restart"),
    (frozenset({"AssigningShards", "ConsolidatingShards"}), "shards get their holders"),
    (frozenset({"ScalingDown"}), "Coreapps that are not needed are removed"),
)
"""The steps of a resize, by the operator's reasons (docs/resharding.md, "The order")."""


def _operation(world: World) -> Operation | None:
    noted: Obj = world.status.get("operation") or {}
    reason = str(condition(world.cluster, "Reconciling").get("reason") or "")
    before = noted.get("from") or world.status.get("settledShards")
    after = noted.get("to") or world.spec.get("shards")
    number = next((number for number, (reasons, _) in enumerate(STEPS) if reason in reasons), None)
    if number is None:
        if not noted:
            return None
        number = 4 if noted.get("answer") == "Accepted" else 3
    windows = bool((world.spec.get("reshard") or {}).get("windows"))
    resizes = bool(noted) or before != after
    wanted = [
        step for step in range(len(STEPS)) if step == number or _comes(step, resizes=resizes, windows=windows, before=before, after=after)
    ]
    return Operation(
        step=reason or "SettingShards",
        number=wanted.index(number) + 1,
        of=len(wanted),
        shards_before=before,
        shards_after=after,
        answer=str(noted.get("answer") or ""),
        attempts=int(noted.get("attempts") or 0),
        started=moment(noted.get("startedAt")),
        deadline=moment(noted.get("deadline")),
        comes_next=tuple(STEPS[step][1] for step in wanted if step > number),
    )


def _comes(step: int, *, resizes: bool, windows: bool, before: int | None, after: int | None) -> bool:
    """Whether a step belongs to the change: from ``before`` to ``after`` shards, or only of the number of Coreapps."""
    if not resizes:
        return False
    grows = before is not None and after is not None and after > before
    return {0: grows, 2: windows, 6: not grows}.get(step, True)


def _inaction(world: World) -> Iterator[str]:
    if world.is_paused:
        yield "Planned changes are held: the cluster is paused. Failovers continue."
    if (world.spec.get("failover") or {}).get("mode") == "Manual":
        yield "No shard fails over automatically: spec.failover.mode is Manual."
    for one in world.status.get("conditions") or ():
        if one.get("reason") in {"SelfCheckFailed", "WindowClosed", "NodesUnreachable"}:
            yield str(one.get("message"))


def _next_steps(world: World, shards: tuple[Shard, ...], standbys: tuple[Standby, ...], leader: Leader | None) -> Iterator[str]:
    target = world.read.target
    if "cluster" in world.read.absent:
        yield "kubectl get whatsappclusters --all-namespaces"
    if "cluster" in world.read.unread:
        place = f"-n {target.namespace}"
        yield f"kubectl auth can-i get whatsappclusters.multiconnect.dev {place}"
        yield "kubectl get --raw '/readyz?verbose'"
        yield f"kubectl whatsapp status {target.name} {place} --request-timeout 10"
    if "lease" in world.read.absent:  # its place is then needed for --operator-namespace and --lease
        yield f"kubectl get leases --all-namespaces --field-selector metadata.name={target.lease}"
    if leader is not None and not leader.alive:
        place = f"-n {target.operator_namespace}"
        yield f"kubectl {place} get pods,leases"
        yield f"kubectl {place} logs --selector {OPERATOR_LABEL} --tail 50"
    lost = next((one for one in shards if one.served is False), None)
    if lost is not None and lost.holder in world.pods:
        yield f"kubectl -n {target.namespace} describe pod {lost.holder}"
    elif lost is not None:  # the StatefulSet's Events say why there is none
        yield f"kubectl -n {target.namespace} describe statefulset {target.name}-coreapp"
    if lost is not None and leader is not None and leader.alive and any(one.eligible for one in standbys):
        yield f"kubectl whatsapp logs {target.name} operator -n {target.namespace}"  # it could move the shard: a right may be missing
    if (unfit := next((one for one in standbys if not one.eligible), None)) is not None:
        yield f"kubectl -n {target.namespace} describe pod {unfit.pod}"
    if lost is not None or condition(world.cluster, "Stalled").get("status") == "True":
        yield f"kubectl whatsapp why {target.name} -n {target.namespace}"
