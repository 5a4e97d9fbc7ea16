"""Random schedules: whatever happens, no law is broken, and when it is over the cluster becomes what is wanted and falls silent.

`SIMULATION_SEED=17 pytest tests/simulation/test_random.py` replays one seed, `SIMULATION_SEEDS=1000` runs that many of each kind, and
`SIMULATION_LINES=3000` shows that much of what happened. A seed is replayed exactly, as long as neither the operator nor the world changed.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field

import pytest

from .schedules import ACCIDENTS, endure
from .world import World, simulate


def seeds(default: int) -> list[int]:
    """The seeds to run: one to replay, or as many as are asked for."""
    if (one := os.environ.get("SIMULATION_SEED")) is not None:
        return [int(one)]
    return list(range(int(os.environ.get("SIMULATION_SEEDS", default))))


NAMED = ("claims", "convergence", "doubt", "hung pods", "progress", "sound holders", "telling", "tidying")
LAWS = frozenset([*map(str, range(1, 15)), *(f"of {name}" for name in NAMED)])
ALWAYS = ("1", "2", "11", "of convergence")
"""Laws that every single seed judges."""
FAULTS = frozenset(
    {
        *(accident.__name__ for accident, _ in ACCIDENTS),
        *("dropped", "lost", "late", "touched", "slow", "down", "watch cut", "news late"),
        *("order lost", "client slow", "client fails", "connection lost", "probe late", "probe unanswered", "out of reach", "slow answer"),
        *("Set Shards answer 403", "Set Shards reset", "Set Shards timeout", "Set Shards 5xx", "operator killed or added", "stale"),
    }
)


@dataclass
class Tally:
    """What all seeds of one kind came to."""

    wanted: int
    seeds: int = 0
    applied: Counter[str] = field(default_factory=Counter)
    did: Counter[str] = field(default_factory=Counter)

    def add(self, world: World) -> None:
        """Count one seed, which must have judged something."""
        assert all(world.laws.applied[law] for law in ALWAYS), f"seed {world.seed} judged nothing: {world.laws.applied}"
        self.seeds += 1
        self.applied += world.laws.applied
        self.did += world.did()

    def __str__(self) -> str:
        return f"{self.seeds} seeds; laws applied: {dict(self.applied.most_common())}; faults: {dict(self.did.most_common())}"


TALLIES = {"elected": Tally(70), "overlapping": Tally(60), "stale": Tally(30)}


@pytest.mark.parametrize("seed", seeds(TALLIES["elected"].wanted))
def test_elected_operators_endure_accidents(seed: int) -> None:
    """One or two operators that seek the Lease, killed and stopped at any await."""
    TALLIES["elected"].add(simulate(endure, seed))


@pytest.mark.parametrize("seed", seeds(TALLIES["overlapping"].wanted))
def test_operators_that_all_believe_to_lead_endure_accidents(seed: int) -> None:
    """Overlapping leaders without any Lease, their writes landing late: all laws hold all the same."""

    async def story(world: World) -> None:
        await endure(world, overlapping=True)

    TALLIES["overlapping"].add(simulate(story, seed))


@pytest.mark.parametrize("seed", seeds(TALLIES["stale"].wanted))
def test_stale_reads_break_no_law_of_holders(seed: int) -> None:
    """A read may be up to 1.5 s old, as from a cache that lags. Laws 4, 5, 7 and 9 need the cluster as it is and are not judged here."""

    async def story(world: World) -> None:
        await endure(world, stale=True)

    TALLIES["stale"].add(simulate(story, seed))


def idle(names: frozenset[str], counts: Counter[str]) -> list[str]:
    """Return what never happened."""
    return sorted(name for name in names if not counts[name])


def test_every_law_was_judged_and_every_fault_did_something() -> None:
    """Over all seeds: a law whose condition never was met was not tested, and a fault that did nothing was none."""
    for kind, tally in TALLIES.items():
        print(f"{kind}: {tally}")
    if missing := [kind for kind, tally in TALLIES.items() if tally.seeds < tally.wanted]:
        pytest.skip(f"too few seeds passed here to tell: {missing}")
    assert idle(LAWS, sum((tally.applied for tally in TALLIES.values()), Counter())) == [], "laws that no seed applied"
    assert idle(FAULTS, sum((tally.did for tally in TALLIES.values()), Counter())) == [], "faults that did nothing"


def test_a_law_that_never_applied_is_named() -> None:
    assert idle(frozenset({"1", "of self-check"}), Counter({"1": 3})) == ["of self-check"]


def test_a_seed_that_judged_nothing_fails() -> None:
    async def story(_: World) -> None:
        return

    with pytest.raises(AssertionError, match="judged nothing"):
        Tally(1).add(simulate(story))
