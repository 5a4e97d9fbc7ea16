"""Random schedules: whatever happens, no law is broken, and when it is over the cluster becomes what is wanted and falls silent.

`SIMULATION_SEED=17 pytest tests/simulation/test_random.py` replays one seed, `SIMULATION_SEEDS=1000` runs that many of each kind, and
`SIMULATION_LINES=3000` shows that much of what happened. A seed is replayed exactly, as long as neither the operator nor the world changed.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from .schedules import endure
from .wider import WIDER, endure_more, interrupt_an_operator
from .world import World, simulate


def seeds(default: int) -> list[int]:
    """The seeds to run: one to replay, or as many as are asked for."""
    if (one := os.environ.get("SIMULATION_SEED")) is not None:
        return [int(one)]
    return list(range(int(os.environ.get("SIMULATION_SEEDS", default))))


NAMED = ("claims", "convergence", "self-check", "hung pods", "progress", "sound holders", "assignment", "tidying")
LAWS = frozenset([*map(str, range(1, 15)), *(f"of {name}" for name in NAMED)])
ALWAYS = ("1", "2", "11", "of convergence")
"""Laws that every single seed judges."""
FAULTS = frozenset(
    {
        *(accident.__name__ for accident, _ in WIDER),
        f"{interrupt_an_operator.__name__}, done",
        *("dropped", "lost", "late", "touched", "slow", "down", "watch cut", "news late"),
        *("order lost", "client slow", "client fails", "connection lost", "probe late", "probe unanswered", "out of reach", "slow answer"),
        *(
            "Set Shards answer 403",
            "Set Shards reset",
            "Set Shards timeout",
            "Set Shards 5xx",
            "operator killed or added",
            "stale",
            "rejected",
        ),
    }
)


WANTED = {"elected": 70, "overlapping": 60, "stale": 30, "wider": 30}
"""How many seeds of each kind there are."""
LONG = 600.0
"""Seconds in which the seeds that other workers still run must be over."""


@dataclass(frozen=True)
class SeedTotals:
    """What the seeds came to, a file for each, as they run in several processes."""

    folder: Path

    @contextmanager
    def seed(self, kind: str, seed: int) -> Iterator[Callable[[World], None]]:
        """Count one seed, which must judge something, when its world is handed in; note in any case that it is over."""
        sums: dict[str, Counter[str]] = {}

        def add(world: World) -> None:
            assert all(world.laws.applied[law] for law in ALWAYS), f"seed {world.seed} judged nothing: {world.laws.applied}"
            sums.update(applied=world.laws.applied, did=world.did())

        try:
            yield add
        finally:
            path = self.folder / f"{kind}-{seed}"
            path.with_suffix(".partial").write_text(json.dumps(sums), encoding="utf-8")
            path.with_suffix(".partial").replace(path.with_suffix(".json"))

    def passed(self, kind: str) -> list[dict[str, Counter[str]]]:
        """Return the sums of the seeds of a kind that passed."""
        found = [json.loads(path.read_text(encoding="utf-8")) for path in self.folder.glob(f"{kind}-*.json")]
        return [{what: Counter(counts) for what, counts in sums.items()} for sums in found if sums]

    def await_end_of(self, seeds: int) -> None:
        """Wait until so many seeds are over, in whichever worker they run."""
        deadline = time.monotonic() + LONG
        while len([*self.folder.glob("*.json")]) < seeds:
            assert time.monotonic() < deadline, f"not over within {LONG:g} s: all of {seeds} seeds"
            time.sleep(0.1)


@pytest.fixture(scope="session")
def tally(tmp_path_factory: pytest.TempPathFactory) -> SeedTotals:
    """The tally of this run, whose workers share a folder above their own."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "seeds"
    folder.mkdir(exist_ok=True)
    return SeedTotals(folder)


@pytest.mark.parametrize("seed", seeds(WANTED["elected"]))
def test_elected_operators_endure_accidents(tally: SeedTotals, seed: int) -> None:
    """One or two operators that seek the Lease, killed and stopped at any await."""
    with tally.seed("elected", seed) as add:
        add(simulate(endure, seed))


@pytest.mark.parametrize("seed", seeds(WANTED["overlapping"]))
def test_operators_that_all_believe_to_lead_endure_accidents(tally: SeedTotals, seed: int) -> None:
    """Overlapping leaders without any Lease, their writes landing late: all laws hold all the same."""

    async def scenario(world: World) -> None:
        await endure(world, overlapping=True)

    with tally.seed("overlapping", seed) as add:
        add(simulate(scenario, seed))


@pytest.mark.parametrize("seed", seeds(WANTED["stale"]))
def test_stale_reads_break_no_law_of_holders(tally: SeedTotals, seed: int) -> None:
    """A read may be up to 1.5 s old, as from a cache that lags. Laws 4, 5, 7 and 9 need the cluster as it is and are not judged here."""

    async def scenario(world: World) -> None:
        await endure(world, stale=True)

    with tally.seed("stale", seed) as add:
        add(simulate(scenario, seed))


@pytest.mark.parametrize("seed", seeds(WANTED["wider"]))
def test_more_accidents_are_endured(tally: SeedTotals, seed: int) -> None:
    """Writes that are rejected, a Lease that others take, another release, older objects, and accidents between two writes."""

    async def scenario(world: World) -> None:
        await endure_more(world, overlapping=seed % 2 == 1)

    with tally.seed("wider", seed) as add:
        add(simulate(scenario, seed))


def idle(names: frozenset[str], counts: Counter[str]) -> list[str]:
    """Return what never happened."""
    return sorted(name for name in names if not counts[name])


@pytest.mark.last
def test_every_law_was_judged_and_every_fault_did_something(tally: SeedTotals, request: pytest.FixtureRequest) -> None:
    """Over all seeds: a law whose condition never was met was not tested, and a fault that did nothing was none."""
    tally.await_end_of(sum(item.path == request.path and "tally" in item.fixturenames for item in _items(request)) - 1)
    passed = {kind: tally.passed(kind) for kind in WANTED}
    sums = {what: sum((one[what] for ones in passed.values() for one in ones), Counter[str]()) for what in ("applied", "did")}
    print(f"seeds: { ({kind: len(ones) for kind, ones in passed.items()}) }; {sums}")
    if missing := [kind for kind, ones in passed.items() if len(ones) < WANTED[kind]]:
        pytest.skip(f"too few seeds passed here to tell: {missing}")
    assert idle(LAWS, sums["applied"]) == [], "laws that no seed applied"
    assert idle(FAULTS, sums["did"]) == [], "faults that did nothing"


def _items(request: pytest.FixtureRequest) -> list[pytest.Function]:
    return [item for item in request.session.items if isinstance(item, pytest.Function)]


def test_a_law_that_never_applied_is_named() -> None:
    assert idle(frozenset({"1", "of self-check"}), Counter({"1": 3})) == ["of self-check"]


def test_a_seed_that_judged_nothing_fails(tmp_path: Path) -> None:
    async def scenario(_: World) -> None:
        return

    with pytest.raises(AssertionError, match="judged nothing"), SeedTotals(tmp_path).seed("elected", 0) as add:
        add(simulate(scenario))
    assert (SeedTotals(tmp_path).passed("elected"), len([*tmp_path.iterdir()])) == ([], 1), "it is over, and did not pass"
