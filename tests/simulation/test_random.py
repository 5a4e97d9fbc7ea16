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
NOT_STALE = frozenset({"7", "of hung pods"})
"""Laws that stale reads excuse; their condition is not even looked at then."""
ALWAYS = ("1", "2", "11", "of convergence")
"""Laws that every single seed judges."""
FAULTS = frozenset(
    {
        *(accident.__name__ for accident, _ in ACCIDENTS),
        *("dropped", "lost", "late", "touched", "slow", "down", "watch cut", "news late"),
        *("order lost", "client slow", "client fails", "connection lost", "probe late", "probe unanswered", "out of reach", "slow answer"),
        *("Set Shards answer 403", "Set Shards reset", "Set Shards timeout", "Set Shards 5xx", "operator killed or added"),
    }
)


@dataclass
class Tally:
    """What all seeds of one kind came to."""

    wanted: int
    laws: frozenset[str] = LAWS
    faults: frozenset[str] = FAULTS
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


TALLIES = {
    "elected": Tally(70),
    "overlapping": Tally(60),
    "stale": Tally(30, laws=LAWS - NOT_STALE, faults=FAULTS | {"stale"}),
}


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


@pytest.mark.parametrize("kind", TALLIES)
def test_every_law_was_judged_and_every_fault_did_something(kind: str) -> None:
    """Over all seeds of a kind: a law whose condition never was met was not tested, and a fault that did nothing was none."""
    tally = TALLIES[kind]
    print(f"{kind}: {tally}")
    if tally.seeds < tally.wanted:
        pytest.skip(f"{tally.seeds} of {tally.wanted} seeds passed here: too few to tell")
    assert sorted(law for law in tally.laws if not tally.applied[law]) == [], "laws that no seed applied"
    assert sorted(fault for fault in tally.faults if not tally.did[fault]) == [], "faults that did nothing"
