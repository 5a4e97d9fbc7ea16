"""Judges handovers by what the scenario did. Pure. The evidence that the operator reports is compared with it, but never excuses a move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from localkube.scenarios.cluster import Holder
from outside.observer import Commit

Key = tuple[str, int]
"""A shard: name of its cluster, number."""

UNREPORTED = "unreported"
"""A handover whose epoch is in no cluster's ``status.recentHandovers``: overtaken by the next one of its shard before it was reported."""
CAUSES = {"switchover": "Requested", "resize": "Consolidated", "roll-out": "RolledOut"}
"""What a scenario can do to make the operator move a shard off a healthy holder, and the evidence that must then be reported."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The handovers of a play: the evidence of those of struck shards, and the wrong handovers."""

    evidence: Counter[str]
    wrong: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What the scenario did."""

    struck: Collection[str] = ()  # uids of pods that something was done to
    moves: Collection[str] = ()  # names of CAUSES
    since: float = 0.0  # `time.monotonic()` from which on these moves may come
    asked: Collection[Key] = ()  # the shards that a switchover was asked for
    until: float = 0.0
    """`time.monotonic()` at which the fault was undone. That may be evidence itself, so later observations say nothing about the fault."""

    def causes(self, commit: Commit, old: Holder) -> set[str]:
        """The planned moves that could explain this handover off a healthy holder."""
        return {name for name in self.moves if commit.monotonic >= self.since and self._fits(name, commit, old)}

    def _fits(self, move: str, commit: Commit, old: Holder) -> bool:
        if move == "switchover":
            return (commit.cluster, commit.shard) in self.asked
        return move == "roll-out" or _ordinal(commit.holder) < _ordinal(old.pod)  # a resize moves holders down


def judge(commits: Iterable[Commit], *, before: Mapping[Key, Holder], evidence: Mapping[str, str], world: World) -> Judged:
    """Judge handovers in their order.

    ``before``: the holders at the beginning; ``evidence``: word of each epoch, as the clusters report it.
    """
    last = dict(before)
    found: Counter[str] = Counter()
    wrong: list[str] = []
    for commit in commits:
        key = (commit.cluster, commit.shard)
        old, word = last.get(key), evidence.get(commit.epoch, UNREPORTED)
        last[key] = Holder(commit.shard, commit.holder, commit.holder_uid)
        if old is None or old.uid == commit.holder_uid:
            continue
        move = f"shard {commit.shard} of {commit.cluster} to {commit.holder} ({word})"
        if old.uid in world.struck:
            if commit.monotonic <= world.until:
                found[word] += 1
            elif word in CAUSES.values() and word not in {CAUSES[name] for name in world.moves}:
                wrong.append(f"{move}: not caused here")
        elif not (causes := world.causes(commit, old)):
            wrong.append(move)
        elif word not in {CAUSES[name] for name in causes} | {UNREPORTED}:
            wrong.append(f"{move}: caused was {' or '.join(sorted(causes))}")
    return Judged(found, wrong)


def _ordinal(pod: str) -> int:
    return int(pod.rpartition("-")[2])
