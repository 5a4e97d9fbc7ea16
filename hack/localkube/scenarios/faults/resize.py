"""A change of the number of shards, from the point of view of the senders to every shard. Times in seconds."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from localkube import LocalKubeError, Obj
from localkube.scenarios.hollow.environment import SingleCluster
from localkube.scenarios.traffic import GIVE_UP_S
from outside.traffic import Message
from wabiz_sim.sharding import shard_of

WARM_S, AFTER_S, RESIZE_S = 1.0, 0.5, 120.0
SLOW_S = 0.25
"""A message that waits longer while nothing is wrong with its shard counts as held up: undisturbed ones take 10 to 100 ms here."""
MOST_PER_SECOND, MOST_PER_SHARD = 160.0, 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """One change of the number of shards."""

    before: int
    to: int
    total: float  # from the change of the spec until the cluster was as wanted
    restart: float  # how long the simulator's Coreapps restart
    gap: float  # how long the shard that was longest without service was so
    extra: dict[int, float]  # for how much longer than the restart each shard of the smaller number was: those that survive a shrink
    shards: dict[int, Obj]  # see `per_shard`, by the larger number of shards
    after: Obj  # see `after_restart`
    repeats: int  # messages that the WhatsApp servers were given again, and knew by their id
    begun: float  # `time.time()` of the change of the spec

    @property
    def added(self) -> float:
        """How much longer than the restart the longest outage of a shard was."""
        return max(0.0, self.gap - self.restart)


async def resize(environment: SingleCluster, cluster: str, to: int, *, restart: float) -> Resize:
    """Change the number of shards under traffic to every shard and wait until the cluster is as wanted. LocalKubeError if it is not."""
    probe, before = environment.probes[cluster], int(environment.status(cluster)["shards"])
    shards, mark = max(before, to), await probe.mark()
    with probe.pace(min(MOST_PER_SECOND, MOST_PER_SHARD * shards), spread=shards):
        await asyncio.sleep(WARM_S)
        begun, begun_wall = time.monotonic(), time.time()
        await environment.resize([cluster], to, RESIZE_S)
        settled = time.monotonic()
        await asyncio.sleep(AFTER_S)
    with probe.pace(0.0):
        results = await probe.results(mark, ())
    messages, calls = list(probe.messages.values()), (await probe.counters())["set_shards_calls"]
    called = [datetime.fromisoformat(call["at"]).timestamp() for call in calls if call["restarted"] and call["shards"] == to]
    if not called:
        raise LocalKubeError(f"the simulator knows of no Set Shards to {to}")
    gaps, surviving = (outages(messages, number, called[-1] - begun_wall + begun) for number in (shards, min(before, to)))
    return Resize(
        before=before,
        to=to,
        total=settled - begun,
        restart=restart,
        gap=max(seconds for seconds, _ in gaps.values()),
        extra={shard: max(0.0, seconds - restart) for shard, (seconds, _) in surviving.items()},
        shards=per_shard(messages, gaps, restart=restart, known=probe.log.known, taken=probe.taken()),
        after=after_restart(messages, max(end for _, end in gaps.values()), settled),
        repeats=results.totals.repeated,
        begun=begun_wall,
    )


# ------------------------------------------------------------------------------------------------------------ what came of it


def outages(messages: Iterable[Message], shards: int, called: float) -> dict[int, tuple[float, float]]:
    """Per shard how long it was without service around Set Shards, which came at ``called``, and when it was served again.

    It is the longest time between two messages taken, counted from Set Shards or from when the first that had to wait was sent, if that is
    earlier: before, no one can have missed the service. LocalKubeError if a shard has too few messages to tell.
    """
    mine, found = _by_shard(messages, shards), {}
    for shard in range(shards):
        taken = sorted(one.delivered_at for one in mine[shard] if one.delivered_at is not None)
        gaps = [(later - earlier, earlier, later) for earlier, later in itertools.pairwise(taken) if later > called]
        if not gaps:
            raise LocalKubeError(f"too few messages of shard {shard} were taken to say how long it was without service")
        _, last, again = max(gaps)
        missed = min(one.sent_at for one in mine[shard] if one.delivered_at is not None and one.delivered_at >= again)
        found[shard] = (again - max(last, min(called, missed)), again)
    return found


def per_shard(
    messages: Sequence[Message],
    gaps: Mapping[int, tuple[float, float]],
    *,
    restart: float,
    known: Collection[str],
    taken: Mapping[str, int],
) -> dict[int, Obj]:
    """What became of every shard's messages. ``gaps``: its outages; ``known``: ids of the WhatsApp servers; ``taken``: theirs by recipient.

    lost: given up by the sender, or said to be taken and not known; doubled: recipients with more than one message, for each was sent one;
    delayed: waited longer than the restart takes, the worst by so much; outage: without service, the restart included.
    """
    found = {}
    for shard, mine in sorted(_by_shard(messages, len(gaps)).items()):
        late = [_waited(one) - restart for one in mine if _waited(one) > restart]
        found[shard] = {
            "sent": len(mine),
            "lost": sum(one.delivered_at is None or one.id not in known for one in mine),
            "doubled": sum(taken.get(one.to, 0) > 1 for one in mine),
            "delayed": len(late),
            "worst": max(late, default=0.0),
            "outage": gaps[shard][0],
        }
    return found


def after_restart(messages: Iterable[Message], served: float, settled: float) -> Obj:
    """What became of the messages that were sent between two times (`time.monotonic()`): from when every shard was served again until the
    cluster was as wanted, so while the pods of a shrink went.

    rejected: answered with anything but 201 at least once; slow: waited longer than SLOW_S, the last until slow_until, counted from
    ``served``; outage: the longest wait of one that was rejected or slow.
    """
    mine = [one for one in messages if served <= one.sent_at <= settled]
    slow = [one for one in mine if _waited(one) > SLOW_S]
    return {
        "seconds": settled - served,
        "messages": len(mine),
        "rejected": sum(bool(one.rejections) for one in mine),
        "slow": len(slow),
        "slow_until": max((one.sent_at + _waited(one) - served for one in slow), default=0.0),
        "longest_wait": max(map(_waited, mine), default=0.0),
        "outage": max((_waited(one) for one in mine if one.rejections or one in slow), default=0.0),
    }


def _waited(message: Message) -> float:
    return GIVE_UP_S if message.delivered_at is None else message.delivered_at - message.sent_at


def _by_shard(messages: Iterable[Message], shards: int) -> dict[int, list[Message]]:
    found: dict[int, list[Message]] = defaultdict(list)
    for one in messages:
        found[shard_of(one.to, shards)].append(one)
    return found


# ------------------------------------------------------------------------------------------------------------ for the file


def broken(name: str, resizes: Sequence[Resize]) -> list[str]:
    """One sentence for each promise that a case did not keep: no message lost, none doubled, no outage while pods are removed."""
    lost, doubled = (sum(shard[what] for one in resizes for shard in one.shards.values()) for what in ("lost", "doubled"))
    after = max(one.after["outage"] for one in resizes)
    late = f"{name}: a message waited {after:.3f} s after the restart, the goal is no outage"
    return (
        [f"{name}: {lost} messages were lost"] * bool(lost)
        + [f"{name}: {doubled} messages were doubled"] * bool(doubled)
        + [late] * bool(after)
    )


def figures(resizes: Sequence[Resize]) -> Obj:
    """What the file says of a case's messages: sums, and of times the longest."""

    def added_up(found: Sequence[Obj], sums: Iterable[str], longest: Iterable[str]) -> Obj:
        return {name: round(max(one[name] for one in found), 4) for name in longest} | {
            name: sum(one[name] for one in found) for name in sums
        }

    after = [one.after for one in resizes]
    shards = {shard: [one.shards[shard] for one in resizes] for shard in sorted(resizes[0].shards)}
    return {
        "messages": sum(one["sent"] for mine in shards.values() for one in mine),
        "repeats": sum(one.repeats for one in resizes),
        "extra_outage": {"n": len(resizes), "max": round(max(max(one.extra.values()) for one in resizes), 4)},
        "after_restart": added_up(after, ("messages", "rejected", "slow"), ("outage", "longest_wait"))
        | {name: [round(one[name], 2) for one in after] for name in ("slow_until", "seconds")},
        "shards": {
            str(shard): added_up(mine, ("sent", "lost", "doubled", "delayed"), ("worst", "outage")) for shard, mine in shards.items()
        },
    }
