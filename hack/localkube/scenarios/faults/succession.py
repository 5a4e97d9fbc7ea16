"""The leader of the operators ends, and its successor is measured by what it does: the audit log says whose handover it was."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from localkube.errors import LocalKubeError
from localkube.plane.controlplane import Write
from localkube.scenarios.cluster import LEASE, NAMESPACE
from localkube.scenarios.hollow.environment import HollowEnvironment
from localkube.scenarios.runner.case import Action, Case

LEADER_S, AUDIT_S = 30.0, 5.0
STILL_ACTED = "the ended leader itself handed the shard over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """The leader of the operators ended. Times in seconds from just before the signal."""

    lease: float
    """To when another held the Lease, by its own word."""
    acts: float
    """To when the new leader was seen to have handed a shard over."""
    old: str
    new: str
    begun: float
    """`time.monotonic()` of the signal."""


def end_leader(number: signal.Signals, shard: int, found: list[Succession], *, holder_too: bool = False) -> Action[HollowEnvironment]:
    """End the leading operator by a signal and, at the same instant, give its successor something to do with a shard.

    That is a switchover as a user asks for it or, with ``holder_too``, a failover: the holder's pod is deleted. The ended replica is
    replaced by a new one, as its Deployment would. Measured is the time until the successor acts, and put into ``found``, too. Nothing is
    measured when the ended leader did it, with a note. Needs the audit log.
    """

    async def strike(case: Case[HollowEnvironment]) -> None:
        environment, (cluster,) = case.environment, case.clusters
        await asyncio.sleep(random.random())  # noqa: S311 - not in step with renewals and probes
        process, holder = await environment.leading(), case.holder(cluster, shard)
        old, credential = process.name, environment.harness.operators.credential(process.name)
        case.exits.push_async_callback(environment.replace, old)
        case.asked.add((cluster, shard))
        begun, begun_wall = time.monotonic(), time.time()
        process.signal(number)
        if holder_too:
            case.strike(cluster, shard, holder)
            await environment.delete_pod(holder.pod)
        else:
            await environment.switch_over(cluster, shard)
        try:
            commit = await environment.seen(
                lambda: environment.commit(cluster, shard, not_to=holder.uid, after=begun), LEADER_S, "a handover by a new leader"
            )
        except LocalKubeError:
            if not case.victims:
                raise
            return  # the shard is missing its next holder: that is a failure, and one of n
        acts = commit.monotonic - begun
        service, ended = f"{cluster}-shard-{shard}", begun_wall + acts

        async def ask() -> list[str]:
            return authors(await asyncio.to_thread(environment.harness.plane.writes), service=service, begun=begun_wall, ended=ended)

        by = await environment.until(ask, AUDIT_S, f"a line in the audit log on who handed shard {shard} over")
        if credential in by:
            case.victims.clear()
            case.notes.append(f"{old} still handed shard {shard} over after {number.name}: this says nothing about its successor")
            return
        spec = (await environment.api.get(LEASE) or {}).get("spec") or {}
        new = str(spec.get("holderIdentity") or "").rpartition("_")[0]
        if set(by) != {environment.harness.operators.credential(new)}:
            raise LocalKubeError(f"the audit log does not say that {new} handed shard {shard} over (by: {', '.join(by)})")
        lease = datetime.fromisoformat(spec["acquireTime"]).timestamp() - begun_wall
        case.measured.append(acts)
        found.append(Succession(lease=lease, acts=acts, old=old, new=new, begun=begun))

    return strike


def authors(writes: Iterable[Write], *, service: str, begun: float, ended: float) -> list[str]:
    """Credential of each write that changed a Service between two times (`time.time()`), in their order."""
    return [
        write.credential
        for write in writes
        if (write.resource, write.namespace, write.name, write.subresource) == ("services", NAMESPACE, service, "")
        and write.verb in {"update", "patch"}
        and 200 <= write.code < 300
        and begun <= datetime.fromisoformat(write.at).timestamp() <= ended
    ]
