"""A change of the number of shards, as the senders of every shard feel it. Times in seconds."""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from localkube.demo.cluster import NAME, NAMESPACE, Cluster
from localkube.errors import LocalKubeError
from outside.traffic import Message, Traffic
from wabiz_sim.gatewaylog import Kind
from wabiz_sim.sharding import shard_of

Obj = dict[str, Any]

WARM_S = 1.0
AFTER_S = 0.5
RESIZE_S = 120.0
GIVE_UP_S = 60.0
"""A message that was not taken for so long counts as lost."""
SLOW_S = 0.25
"""A message that waits longer while nothing is wrong with its shard counts as held up: undisturbed ones take 10 to 100 ms here."""
MOST_PER_SECOND = 160.0
MOST_PER_SHARD = 40.0
MOST_WAITING = 64
"""Messages that wait at a time, over all shards. More would only be load: the Webapps try each again every 20 to 200 ms."""


class SteadyTraffic(Traffic):
    """One steady sender for each of ``spread`` shards, whatever their number is just now; each message has a recipient of its own."""

    def __init__(self, cluster: Cluster, spread: int) -> None:
        """Prepare; ``spread`` is the larger number of shards of a resize."""
        rate = min(MOST_PER_SECOND, MOST_PER_SHARD * spread)
        super().__init__(cluster.stage.plane.admin_kubeconfig, NAMESPACE, NAME, rate=rate, deadline=GIVE_UP_S)
        self.senders = cluster.senders  # one ledger for all that is sent in a run
        self._spread, self._period = spread, 1 / rate
        self._recipients: set[str] = set()

    async def _send_all(self) -> None:
        clock = asyncio.get_running_loop().time
        waiting: Counter[int] = Counter()
        due = clock()
        for number in itertools.count():
            due = max(due + self._period, clock() - 1.0)
            if await self._stopped_within(due - clock()):
                return
            shard = number % self._spread
            if waiting[shard] >= max(2, MOST_WAITING // self._spread):
                continue
            waiting[shard] += 1
            message = Message(id=f"b-{secrets.token_hex(8)}", to=self._new_recipient(shard), sent_at=time.monotonic())
            task = asyncio.create_task(self._send(message))
            self._open.add(task)
            task.add_done_callback(self._done)
            task.add_done_callback(partial(_no_longer, waiting, shard))

    def _new_recipient(self, shard: int) -> str:
        while True:
            to = f"49{random.randrange(10**9, 10**10)}"  # noqa: S311
            if to not in self._recipients and shard_of(to, self._spread) == shard:
                self._recipients.add(to)
                return to


def _no_longer(waiting: Counter[int], shard: int, _: object) -> None:
    waiting[shard] -= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFigures:
    """What became of the messages of one shard (by the larger number of shards)."""

    sent: int
    lost: int
    """Given up by the sender, or said to be taken and unknown to the WhatsApp servers."""
    doubled: int
    """Recipients that the WhatsApp servers have more than one message for: each was sent one."""
    delayed: int
    """Waited longer than the restart takes."""
    worst: float
    """How much longer the one that waited longest did; 0 if none was delayed."""
    outage: float
    """Without service, the restart included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AfterRestart:
    """The messages that were sent from when every shard was served again until the cluster was as wanted: the pods that went are gone."""

    seconds: float
    sent: int
    refused: int
    """Answered with anything but 201 at least once."""
    slow: int
    """Waited longer than SLOW_S."""
    slow_until: float
    """When the last of the slow ones was taken, counted from when every shard was served again; 0 if there was none."""
    longest: float
    """The longest wait."""
    outage: float
    """The longest wait of one that was refused or slow; 0 if there was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """One change of the number of shards."""

    before: int
    to: int
    total: float
    """From the change of the spec until the cluster was as wanted."""
    restart: float
    """How long the simulator's Coreapps restart."""
    added: float
    """By how much the shard that was longest without service was so for longer than the restart."""
    extra: dict[int, float]
    """The same of every shard of the smaller number: those that survive a shrink."""
    shards: dict[int, ShardFigures]
    after: AfterRestart
    repeats: int
    """Messages that the WhatsApp servers were given again, and knew by their id."""
    lost: int
    begun: float
    """`time.time()` of the change of the spec."""


def faults_of(name: str, resizes: Sequence[Resize]) -> list[str]:
    """One sentence for each promise that a case did not keep: no message lost, none doubled, no outage while pods are removed."""
    lost, doubled = (sum(getattr(one, what) for each in resizes for one in each.shards.values()) for what in ("lost", "doubled"))
    after = max(each.after.outage for each in resizes)
    return [
        *([f"{name}: {lost} messages were lost"] if lost else []),
        *([f"{name}: {doubled} messages were doubled"] if doubled else []),
        *([f"{name}: a message waited {after:.3f} s after the restart, the goal is no outage"] if after else []),
    ]


def by_shard(resizes: Sequence[Resize]) -> dict[str, Obj]:
    """Per shard of the larger number, over all resizes of a case: sent, lost, doubled, delayed (sums), worst and outage (the longest)."""
    found: dict[str, Obj] = {}
    for shard in sorted(resizes[0].shards):
        mine = [one.shards[shard] for one in resizes]
        sums = {name: sum(getattr(one, name) for one in mine) for name in ("sent", "lost", "doubled", "delayed")}
        longest = {name: round(max(getattr(one, name) for one in mine), 4) for name in ("worst", "outage")}
        found[str(shard)] = sums | longest
    return found


def figures_of(resizes: Sequence[Resize]) -> Obj:
    """What the file says of a case's messages."""
    return {
        "messages": sum(one.sent for each in resizes for one in each.shards.values()),
        "repeats": sum(one.repeats for one in resizes),
        "extra_outage": {"n": len(resizes), "max": round(max(max(one.extra.values()) for one in resizes), 4)},
        "after_restart": {
            "outage": round(max(one.after.outage for one in resizes), 4),
            "longest_wait": round(max(one.after.longest for one in resizes), 4),
            "messages": sum(one.after.sent for one in resizes),
            "refused": sum(one.after.refused for one in resizes),
            "slow": sum(one.after.slow for one in resizes),
            "slow_until": [round(one.after.slow_until, 2) for one in resizes],
            "seconds": [round(one.after.seconds, 2) for one in resizes],
        },
        "shards": by_shard(resizes),
    }


def spoken(name: str, resizes: Sequence[Resize], *, vendor: float) -> list[str]:
    """What is printed of a case's messages; ``vendor``: seconds of the outage that the vendor notes when active pods are removed."""
    found, shards = figures_of(resizes), by_shard(resizes)
    lost, doubled, delayed = (sum(one[what] for one in shards.values()) for what in ("lost", "doubled", "delayed"))
    most, worst = max(shards.items(), key=lambda one: float(one[1]["worst"]))
    each = resizes[0]
    first = (
        f"{name} (n={len(resizes)}): {found['messages']} messages to {len(shards)} shards: {lost} lost, {doubled} doubled "
        f"({found['repeats']} given again, known by their id); {delayed} waited longer than the restart's {each.restart:g} s, the worst by "
        f"{worst['worst']:.2f} s (shard {most})"
    )
    lines = [first]
    if each.to < each.before:
        after = found["after_restart"]
        waits = sorted(max(one.extra.values()) for one in resizes)
        lines.append(
            f"{name} (n={len(resizes)}): extra outage of the worst surviving shard {waits[0]:.2f} to {waits[-1]:.2f} s beyond the restart; "
            f"after it, while the pods went: {after['outage']:.2g} s, the vendor notes {vendor:g} s ({after['messages']} messages, "
            f"{after['refused']} refused, longest wait {after['longest_wait'] * 1000:.0f} ms)"
        )
    return lines


async def resize(cluster: Cluster, to: int, *, restart: float) -> Resize:
    """Change the number of shards under traffic to every shard and wait until the cluster is as wanted. LocalKubeError if it is not."""
    before = int(cluster.status()["shards"])
    log = cluster.log
    await log.read()
    earlier = log.audit.totals()
    async with SteadyTraffic(cluster, max(before, to)) as traffic:
        await asyncio.sleep(WARM_S)
        begun, begun_wall = time.monotonic(), time.time()
        await bring_to(cluster, to)
        settled = time.monotonic()
        await asyncio.sleep(AFTER_S)
        await traffic.drain(GIVE_UP_S + 10)
        messages = list(traffic.messages.values())
    called = await _called(cluster, to) - begun_wall + begun
    taken = Counter(entry.note for entry in await log.read() if entry.kind == Kind.TAKEN)
    missing = {one.id for one in messages} - log.known
    shards = per_shard(messages, max(before, to), called=called, restart=restart, missing=missing, taken=taken)
    gaps = outages(messages, min(before, to), called)
    served = max(end for _, end in outages(messages, max(before, to), called).values())
    return Resize(
        before=before,
        to=to,
        total=settled - begun,
        restart=restart,
        added=max(0.0, max(one.outage for one in shards.values()) - restart),
        extra={shard: max(0.0, seconds - restart) for shard, (seconds, _) in gaps.items()},
        shards=shards,
        after=after_restart(messages, served, settled),
        repeats=log.audit.totals().since(earlier).repeated,
        lost=sum(one.lost for one in shards.values()),
        begun=begun_wall,
    )


async def bring_to(cluster: Cluster, to: int) -> None:
    """Change the number of shards and wait until the cluster is as wanted. LocalKubeError if that takes longer than RESIZE_S."""
    await cluster.set_shards(to)
    await cluster.seen(lambda: cluster.status().get("shards") == to, RESIZE_S, f"{to} shards")
    await cluster.settle(RESIZE_S)


def outages(messages: Iterable[Message], shards: int, called: float) -> dict[int, tuple[float, float]]:
    """Per shard how long it was without service around Set Shards, which came at ``called``, and when it was served again.

    It is the longest time between two messages taken, counted from Set Shards or from when the first that had to wait was sent, if that is
    earlier: before, nobody can have missed the service. LocalKubeError if a shard has too few messages to tell.
    """
    mine = _by_shard(messages, shards)
    found = {}
    for shard in range(shards):
        taken = sorted(one.delivered_at for one in mine[shard] if one.delivered_at is not None)
        gaps = [(later - earlier, earlier, later) for earlier, later in itertools.pairwise(taken) if later > called]
        if not gaps:
            msg = f"too few messages of shard {shard} were taken to say how long it was without service"
            raise LocalKubeError(msg)
        _, last, again = max(gaps)
        missed = min(one.sent_at for one in mine[shard] if one.delivered_at is not None and one.delivered_at >= again)
        found[shard] = (again - max(last, min(called, missed)), again)
    return found


def per_shard(
    messages: Sequence[Message], shards: int, *, called: float, restart: float, missing: Iterable[str], taken: Mapping[str, int]
) -> dict[int, ShardFigures]:
    """What became of every shard's messages. ``missing``: ids unknown to the WhatsApp servers; ``taken``: theirs by recipient."""
    unknown = set(missing)
    gaps = outages(messages, shards, called)
    found = {}
    for shard, mine in sorted(_by_shard(messages, shards).items()):
        late = [_waited(one) - restart for one in mine if _waited(one) > restart]
        found[shard] = ShardFigures(
            sent=len(mine),
            lost=sum(one.delivered_at is None or one.id in unknown for one in mine),
            doubled=sum(taken.get(one.to, 0) > 1 for one in mine),
            delayed=len(late),
            worst=max(late, default=0.0),
            outage=gaps[shard][0],
        )
    return found


def after_restart(messages: Iterable[Message], served: float, settled: float) -> AfterRestart:
    """What became of the messages that were sent between two times (`time.monotonic()`)."""
    mine = [one for one in messages if served <= one.sent_at <= settled]
    slow = [one for one in mine if _waited(one) > SLOW_S]
    held_up = [_waited(one) for one in mine if one.refusals or _waited(one) > SLOW_S]
    return AfterRestart(
        seconds=settled - served,
        sent=len(mine),
        refused=sum(bool(one.refusals) for one in mine),
        slow=len(slow),
        slow_until=max((one.sent_at + _waited(one) - served for one in slow), default=0.0),
        longest=max(map(_waited, mine), default=0.0),
        outage=max(held_up, default=0.0),
    )


def _waited(message: Message) -> float:
    return GIVE_UP_S if message.delivered_at is None else message.delivered_at - message.sent_at


def _by_shard(messages: Iterable[Message], shards: int) -> dict[int, list[Message]]:
    found: dict[int, list[Message]] = defaultdict(list)
    for one in messages:
        found[shard_of(one.to, shards)].append(one)
    return found


async def _called(cluster: Cluster, to: int) -> float:
    """When the last Set Shards that restarted the Coreapps came to the simulator (`time.time()`)."""
    calls = (await cluster.upstream("counters"))["set_shards_calls"]
    times = [call["at"] for call in calls if call["restarted"] and call["shards"] == to]
    if not times:
        msg = f"the simulator knows of no Set Shards to {to}"
        raise LocalKubeError(msg)
    return datetime.fromisoformat(times[-1]).timestamp()
