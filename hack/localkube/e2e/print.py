"""What the end-to-end acts came to: the fault table, the verdicts, the file. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from localkube.chaos.measure import Outcome
from localkube.chaos.print import complaints, figures
from localkube.e2e.table import Act
from localkube.figures import BASELINE_S, P95_FROM, clock, row, summary

Obj = dict[str, Any]
Played = Sequence[tuple[Act, Outcome]]


def failures(act: Act, outcome: Outcome, *, n: int) -> list[str]:
    """One sentence for everything that makes the run fail. Not a missed goal, which may be the machine's; a time beyond the bound."""
    slow = f"{act.name}: {summary(outcome.times, len(outcome.missing)).complaint(act.fault.goal)}" if outcome.n else ""
    said = [text for text in complaints(outcome, act.fault, n=n) if text != slow]
    own, others = outcome.refused
    if others and not act.restarts:
        said.append(f"{act.name}: {others} tries were refused on shards to which nothing was done")
    if own and act.silent:
        said.append(f"{act.name}: {own} tries were refused, though this is planned")
    if outcome.times and max(outcome.times) > act.bound:
        said.append(f"{act.name}: took {max(outcome.times):.1f} s; beyond {act.bound:g} s it is broken, not slow")
    return said


def missed(act: Act, outcome: Outcome) -> str:
    """A sentence when the goal for times is missed, else empty."""
    said = summary(outcome.times, len(outcome.missing)).complaint(act.fault.goal) if outcome.n else ""
    return f"{act.name}: {said}" if said else ""


def spread(samples: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    """The values of a key of samples, where they were measured."""
    return [float(sample[key]) for sample in samples if sample.get(key) is not None]


def table(played: Played) -> Table:
    """The fault table as people read it."""
    made = Table(box=box.SIMPLE_HEAD, title="End to end on kind", title_justify="left")
    made.add_column("act", no_wrap=True)
    made.add_column("n", justify="right")
    made.add_column("evidence seen")
    for name in ("decided p50/max", "committed p50/max"):
        made.add_column(name, justify="right", no_wrap=True)
    for name in ("delivered p50", f"p95 (n >= {P95_FROM})", "max", "goal"):
        made.add_column(name, justify="right", no_wrap=True)
    for name in ("lost", "doubled", "refused own/others", "wrong", "broken laws"):
        made.add_column(name, justify="right")
    for act, outcome in played:
        made.add_row(*_row(act, outcome))
    return made


def _row(act: Act, outcome: Outcome) -> list[str]:
    found, goal = row(outcome.times, len(outcome.missing), goal=act.fault.goal), act.fault.goal
    cells = [clock(found[name]) if name in found else "-" for name in ("p50", "p95", "max")]
    if outcome.missing:
        cells[2] = f">{act.fault.allowed:g} s ({len(outcome.missing)}x)"
    words = ", ".join(f"{word} {count}" for word, count in outcome.evidence.most_common()) or "-"
    mark = "-" if goal is None else f"{clock(goal)}{' MISSED' if missed(act, outcome) else ' met'}"
    if act.silent and goal is None:
        mark = "0 refused" + (" MISSED" if outcome.refused[0] else " met")
    numbers = [outcome.lost, outcome.doubled, f"{outcome.refused[0]}/{outcome.refused[1]}", len(outcome.wrong), len(outcome.violations)]
    parts = [_pair(spread(outcome.samples, key)) for key in ("decided", "committed")]
    return [act.name, str(outcome.n), words, *parts, *cells, mark, *map(str, numbers)]


def _pair(values: Sequence[float]) -> str:
    return f"{clock(summary(values).p50)} / {clock(max(values))}" if values else "-"


def report(played: Played, about: Mapping[str, Any], wanted: Mapping[str, int]) -> Obj:
    """The whole file; ``wanted``: how often each act was to be played."""
    rows: Obj = {}
    for act, outcome in played:
        found = figures(outcome, act.fault)
        for key in ("decided", "committed"):
            if values := spread(outcome.samples, key):
                found[key] = row(values)
        unused = ("hollow_cpu",)
        rows[act.name] = {name: value for name, value in found.items() if name not in unused} | {
            "silent": act.silent,
            "bound": act.bound,
            "failures": failures(act, outcome, n=wanted[act.name]),
        }
    return {"baseline_s": BASELINE_S, **about, "acts": rows}
