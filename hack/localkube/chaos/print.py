"""What a run of chaos came to: the table, the complaints, the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from localkube.chaos.measure import UNREPORTED, Outcome
from localkube.chaos.scene import Fault
from localkube.figures import BASELINE_S, P95_FROM, clock, row, summary

Obj = dict[str, Any]


def figures(outcome: Outcome, fault: Fault[Any]) -> Obj:
    """The figures of one fault for a file; seconds."""
    return {
        "what": fault.what,
        **row(outcome.times, len(outcome.missing), goal=fault.goal, baseline=is_compared(fault)),
        **({"from_possible": row(since)} if (since := from_possible(outcome)) else {}),
        "failover": fault.failover,
        "not_handed_over": outcome.missing,
        "allowed": fault.allowed,
        "evidence": dict(outcome.evidence),
        "wrong_failovers": outcome.wrong,
        "sent": outcome.sent,
        "lost": outcome.lost,
        "doubled": outcome.doubled,
        "refused_struck": outcome.refused[0],
        "refused_others": outcome.refused[1],
        "refusals": dict(outcome.words),
        "violations": outcome.violations,
        "unsettled": outcome.unsettled,
        "troubles": outcome.troubles,
        "notes": outcome.notes,
        "took": round(outcome.took, 1),
        "hollow_cpu": round(outcome.cpu, 2),
        "late": round(outcome.late, 3),
        "samples": outcome.samples,
    }


def complaints(outcome: Outcome, fault: Fault[Any], *, n: int) -> list[str]:
    """One sentence for everything that is not as it must be."""
    said: list[str] = []
    if outcome.missing:
        what = f"not handed over within {fault.allowed:g} s" if fault.failover else f"without a message for {fault.allowed:g} s"
        said.append(f"{len(outcome.missing)} of {outcome.n} shards {what}")
    if outcome.n and (slow := summary(outcome.times, len(outcome.missing)).complaint(fault.goal)):
        said.append(slow)
    if outcome.n < n:
        said.append(f"measured {outcome.n} times only, not {n}")
    if strange := sorted(set(outcome.evidence) - fault.evidence - {UNREPORTED}):
        said.append(f"evidence {', '.join(strange)} is not what was to be seen ({', '.join(sorted(fault.evidence))})")
    if outcome.wrong:
        said.append(f"{len(outcome.wrong)} wrong failovers: {_few(outcome.wrong)}")
    if outcome.lost or outcome.doubled:
        said.append(f"{outcome.lost} messages lost, {outcome.doubled} doubled")
    if outcome.violations:
        said.append(f"laws broken: {_few(outcome.violations)}")
    if outcome.unsettled:
        said.append(f"not as wanted again: {_few(outcome.unsettled)}")
    said += outcome.troubles
    return [f"{fault.name}: {sentence}" for sentence in said]


def from_possible(outcome: Outcome) -> list[float]:
    """The times from when a handover could be made, of the samples whose fault forbade it for a while."""
    return [float(sample["from_possible"]) for sample in outcome.samples if sample.get("from_possible") is not None]


def remarks(outcome: Outcome, fault: Fault[Any]) -> list[str]:
    """What is to be said of one fault below the table."""
    said = [f"{fault.name}: {note}" for note in dict.fromkeys(outcome.notes)]
    if times := from_possible(outcome):
        found = summary(times)
        said.append(f"{fault.name}: from when a handover could be made p50 {clock(found.p50)}, max {clock(found.max)} (n = {found.n})")
    return said


def table(outcomes: Sequence[tuple[Fault[Any], Outcome]]) -> Table:
    """The figures as people read them."""
    made = Table(box=box.SIMPLE_HEAD, title="Chaos", title_justify="left")
    made.add_column("fault", no_wrap=True)
    for name in ("n", "p50", f"p95 (n >= {P95_FROM})", "max", "goal (p95, else max)", f"{BASELINE_S:g} s / that"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("evidence")
    for name in ("lost", "doubled", "refused struck/others", "wrong", "broken laws"):
        made.add_column(name, justify="right")
    for fault, outcome in outcomes:
        made.add_row(*_row(fault, outcome))
    return made


def _row(fault: Fault[Any], outcome: Outcome) -> list[str]:
    found = row(outcome.times, len(outcome.missing), goal=fault.goal, baseline=is_compared(fault))
    spread = [clock(found[name]) if name in found else "-" for name in ("p50", "p95", "max")]
    if outcome.missing:
        spread[2] = f">{fault.allowed:g} s ({len(outcome.missing)}x)"
    goal = "no move" if not fault.failover else "-"
    if fault.goal is not None:
        goal = clock(fault.goal) + (" MISSED" if found["met"] is False else "")
    words = ", ".join(f"{word} {count}" for word, count in outcome.evidence.most_common()) or "-"
    refused = f"{outcome.refused[0]}/{outcome.refused[1]}"
    numbers = [str(outcome.lost), str(outcome.doubled), refused, str(len(outcome.wrong)), str(len(outcome.violations))]
    return [fault.name, str(outcome.n), *spread, goal, found.get("ratio", "-"), words, *numbers]


def is_compared(fault: Fault[Any]) -> bool:
    """Whether a fault's times are compared with the vendor's failover: not where they hold an outage that the fault itself makes."""
    return fault.failover and fault.goal is not None


def report(outcomes: Sequence[tuple[Fault[Any], Outcome]], about: Mapping[str, Any]) -> Obj:
    """The whole file."""
    return {"baseline_s": BASELINE_S, **about, "faults": {fault.name: figures(outcome, fault) for fault, outcome in outcomes}}


def _few(sentences: Sequence[str]) -> str:
    more = f" and {len(sentences) - 3} more" if len(sentences) > 3 else ""
    return "; ".join(sentences[:3]) + more
