"""Random schedules: whatever happens, no law is broken, and when it is over the cluster becomes what is wanted and falls silent.

`SIMULATION_SEED=17 pytest tests/simulation/test_random.py` replays one seed, `SIMULATION_SEEDS=1000` runs that many of each kind, and
`SIMULATION_LINES=3000` shows that much of what happened. A seed is replayed exactly, as long as neither the operator nor the world changed.
"""

from __future__ import annotations

import os

import pytest

from .schedules import endure
from .world import World, simulate


def seeds(default: int) -> list[int]:
    """The seeds to run: one to replay, or as many as are asked for."""
    if (one := os.environ.get("SIMULATION_SEED")) is not None:
        return [int(one)]
    return list(range(int(os.environ.get("SIMULATION_SEEDS", default))))


@pytest.mark.parametrize("seed", seeds(70))
def test_elected_operators_endure_accidents(seed: int) -> None:
    """One or two operators that seek the Lease, killed and stopped at any await."""
    simulate(endure, seed)


@pytest.mark.parametrize("seed", seeds(60))
def test_operators_that_all_believe_to_lead_endure_accidents(seed: int) -> None:
    """Overlapping leaders without any Lease, their writes landing late: all laws hold all the same."""

    async def story(world: World) -> None:
        await endure(world, overlapping=True)

    simulate(story, seed)


@pytest.mark.parametrize("seed", seeds(30))
def test_stale_reads_break_no_law_of_holders(seed: int) -> None:
    """A read may be up to 1.5 s old, as from a cache that lags. Laws 4, 5, 7 and 9 need the cluster as it is and are not judged here."""

    async def story(world: World) -> None:
        await endure(world, stale=True)

    simulate(story, seed)
