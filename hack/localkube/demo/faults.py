"""The faults and changes that demo and bench measure: each brings one about and says how long it took. Times in seconds."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from localkube.demo.attribution import authors
from localkube.demo.cluster import NAME, NAMESPACE, Cluster, Holder
from localkube.demo.probe import NotHandedOverError, probing
from localkube.errors import LocalKubeError

T = TypeVar("T")

WARM_S = 0.3
FAILOVER_S = 30.0
LEADER_S = 30.0
RESHARD_S = 120.0
SLOW_PERIOD_S = 0.02


class StillActedError(LocalKubeError):
    """The old leader did what its successor was to be measured by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failover:
    """A shard lost its holder."""

    delivered: float
    """From just before the call that broke it to the first message whose sender knows it taken through the next holder."""
    committed: float | None
    """From the same instant to when the shard's Service was seen to lead to the next holder; None if nobody had to take over."""
    longest: float
    """The longest that any sender of the shard had to wait meanwhile."""
    sent: int
    lost: int
    old: Holder
    by: str
    """uid of the next holder."""
    begun: float
    """`time.time()` of that instant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """The leader of the operators ended."""

    lease: float
    """From just before the signal to when another was seen to hold the Lease."""
    acts: float
    """From the same instant to when the new leader was seen to have handed a shard over."""
    old: str
    new: str
    begun: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reshard:
    """The number of shards was changed."""

    total: float
    """From the change of the spec until the cluster was as wanted again, spares included."""
    gap: float
    """The longest time within which no message of the shard that was watched was taken: the restart and what the operator adds."""
    restart: float
    """How long the simulator's Coreapps restart."""
    sent: int
    lost: int
    begun: float


async def delete_holder(cluster: Cluster, shard: int) -> Failover:
    """Delete the pod that serves a shard, as ``kubectl delete pod`` does. LocalKubeError if no other takes over."""
    return await _fail_over(cluster, shard, lambda holder: cluster.delete_pod(holder.pod), may_resume=False)


async def kill_holder(cluster: Cluster, shard: int) -> Failover:
    """Kill the container that serves a shard (SIGKILL). LocalKubeError if the shard is not served again."""
    return await _fail_over(cluster, shard, lambda holder: cluster.control.kill(NAMESPACE, holder.pod, uid=holder.uid), may_resume=True)


async def _fail_over(cluster: Cluster, shard: int, fault: Callable[[Holder], Awaitable[None]], *, may_resume: bool) -> Failover:
    shards = int(cluster.status()["shards"])
    async with probing(cluster, shard=shard, shards=shards) as probe:
        await asyncio.sleep(WARM_S)
        holder = cluster.holder(shard)
        begun, begun_wall = time.monotonic(), time.time()
        breaking = asyncio.ensure_future(fault(holder))
        try:
            passage = await probe.passage(begun=begun, begun_wall=begun_wall, old=holder.uid, may_resume=may_resume, timeout=FAILOVER_S)
        finally:
            await breaking
    commit = cluster.commit_after(begun, shard, not_to=holder.uid)
    return Failover(
        delivered=passage.first,
        committed=commit.monotonic - begun if commit else None,
        longest=probe.longest(begun),
        sent=len(probe.sent),
        lost=await probe.lost(),
        old=holder,
        by=passage.by,
        begun=begun_wall,
    )


async def end_leader(cluster: Cluster, number: signal.Signals, shard: int, *, holder_too: bool = False) -> Succession:
    """End the leading operator by a signal and, at the same instant, give its successor something to do with a shard.

    That is a switchover as a user asks for it or, with ``holder_too``, a failover: the holder's pod is deleted. The ended replica is
    replaced by a new one, as its Deployment would. Needs the audit log: it says who made the handover.

    Raises StillActedError when the ended leader made it, NotHandedOverError when nobody did in LEADER_S, LocalKubeError if nobody leads.
    """
    old = await cluster.seen(cluster.leader, LEADER_S, "an operator that leads")
    stage = cluster.stage
    process, credential = stage.operators()[old], stage.credential(old)
    holder = cluster.holder(shard)
    begun, begun_wall = time.monotonic(), time.time()
    process.signal(number)
    try:
        await (cluster.delete_pod(holder.pod) if holder_too else cluster.switch_over(shard))
        commit = await _in_time(cluster, old, lambda: cluster.commit_after(begun, shard, not_to=holder.uid), "a handover by a new leader")
        change = await _in_time(cluster, old, lambda: cluster.lease_after(begun, not_to=old), "a new holder of the Lease")
    finally:
        await asyncio.to_thread(_ended, process.alive, f"{old} to end after {number.name}")
        stage.forget_operator(old)
        await asyncio.to_thread(lambda: stage.wait_for_operator(stage.start_operator()))
    writes = await asyncio.to_thread(stage.plane.writes)
    until = begun_wall + commit.monotonic - begun
    by = authors(writes, namespace=NAMESPACE, service=f"{NAME}-shard-{shard}", begun=begun_wall, ended=until)
    if credential in by:
        msg = f"{old} still handed shard {shard} over after {number.name}: this says nothing about its successor"
        raise StillActedError(msg)
    if set(by) != {stage.credential(change.holder)}:
        msg = f"the audit log does not say that {change.holder} handed shard {shard} over (by: {', '.join(by) or 'nobody'})"
        raise LocalKubeError(msg)
    return Succession(lease=change.monotonic - begun, acts=commit.monotonic - begun, old=old, new=change.holder, begun=begun_wall)


async def _in_time(cluster: Cluster, ended: str, look: Callable[[], T | None], what: str) -> T:
    """What ``look`` says as soon as that is true. NotHandedOverError after LEADER_S; LocalKubeError if more than ``ended`` has ended."""
    try:
        return await cluster.seen(look, LEADER_S, what)
    except LocalKubeError as error:
        if any(not process.alive() for process in cluster.stage.processes() if process.name != ended):
            raise
        raise NotHandedOverError(str(error)) from error


async def reshard(cluster: Cluster, to: int, *, restart: float) -> Reshard:
    """Change the number of shards and wait until the cluster is as wanted again."""
    before = int(cluster.status()["shards"])
    # The last shard of the larger number is the last of the smaller one too: its messages see it all.
    shards = max(before, to)
    async with probing(cluster, shard=shards - 1, shards=shards, period=SLOW_PERIOD_S) as probe:
        await asyncio.sleep(WARM_S)
        begun, begun_wall = time.monotonic(), time.time()
        await cluster.set_shards(to)
        await cluster.seen(lambda: cluster.status().get("shards") == to, RESHARD_S, f"{to} shards")
        await cluster.settle(RESHARD_S)
        total = time.monotonic() - begun
    return Reshard(
        total=total,
        gap=await probe.longest_gap(),
        restart=restart,
        sent=len(probe.sent),
        lost=await probe.lost(),
        begun=begun_wall,
    )


async def random_phase(longest: float = 1.0) -> None:
    """A pause that is different each time, so that what is measured does not fall into step with renewals and probes."""
    await asyncio.sleep(random.uniform(0.0, longest))  # noqa: S311


def _ended(alive: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while alive():
        if time.monotonic() > deadline:
            msg = f"waited {seconds:g} s in vain for {what}"
            raise LocalKubeError(msg)
        time.sleep(0.02)
