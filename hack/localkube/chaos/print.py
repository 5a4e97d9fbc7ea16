"""What a run of chaos came to: the table, the complaints, the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from localkube.chaos.judge import UNREPORTED
from localkube.chaos.measure import Outcome
from localkube.chaos.scene import Fault
from localkube.figures import BASELINE_S, P95_FROM, clock, row, summary

Obj = dict[str, Any]

AT_ONCE, PROBES_S, SLACK_S, NO_GOAL_S = 10.0, 3.0, 4.0, 4.0
FORBIDDEN = ("lost", "doubled", "not_handed_over", "wrong_failovers", "violations", "unsettled", "troubles")
"""Figures that must be zero or empty on any machine."""


def figures(outcome: Outcome, fault: Fault[Any]) -> Obj:
    """The figures of one fault for a file; seconds."""
    return {
        "what": fault.what,
        **row(outcome.times, len(outcome.missing), goal=fault.goal, baseline=is_compared(fault)),
        "failover": fault.failover,
        "not_handed_over": outcome.missing,
        "allowed": fault.allowed,
        "resumed": [round(value, 4) for value in outcome.resumed],
        "evidence": dict(outcome.evidence),
        "effects": dict(outcome.effects),
        "upstream": {name: round(value, 3) for name, value in outcome.upstream.items() if value},
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
    if seen := unseen(fault, outcome.evidence, len(outcome.times)):
        said.append(seen)
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


def unseen(fault: Fault[Any], evidence: Mapping[str, int], n: int) -> str:
    """A sentence when the evidence of some of ``n`` handovers that must come was not seen, else empty."""
    seen = sum(evidence.get(word, 0) for word in fault.evidence)
    if not fault.failover or seen >= n:
        return ""
    return f"the evidence of {seen} of {n} handovers was seen ({', '.join(sorted(fault.evidence))})"


def bound(fault: Fault[Any]) -> float:
    """Seconds beyond which a time is that of something broken, whatever the machine is busy with.

    What is decided at once may take ten times its goal, which is less than the three seconds of the probes: so an operator that has fallen
    back on them is found out. The others wait for probes and leases, which a busy machine does not multiply: twice the goal, and never
    more than 4 s beyond it.
    """
    if fault.goal is None:
        return NO_GOAL_S if not fault.failover else fault.allowed
    if AT_ONCE * fault.goal < PROBES_S:
        return AT_ONCE * fault.goal
    return fault.goal + min(fault.goal, SLACK_S)


def broken(found: Mapping[str, Any], fault: Fault[Any]) -> list[str]:
    """One sentence for everything in the figures of a fault that fails also where its goal is not asked for: on a machine that is busy."""
    said = [f"{name}: {found[name]}" for name in FORBIDDEN if found[name]]
    if found["n"] < 1:
        said.append("nothing was measured")
    if not found["sent"]:
        said.append("no message was sent")
    if strange := sorted(set(found["evidence"]) - fault.evidence):
        said.append(f"evidence {', '.join(strange)} is not what was to be seen ({', '.join(sorted(fault.evidence))})")
    if missing := unseen(fault, found["evidence"], found["n"]):
        said.append(missing)
    if found.get("max") is not None and found["max"] > bound(fault):
        said.append(f"took {found['max']:.3f} s; beyond {bound(fault):g} s it is broken, not slow")
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


def effects(outcome: Outcome) -> list[str]:
    """Sentences on what a fault did, what the WhatsApp servers made of it, and what was not taken for a failover."""
    said = []
    if outcome.effects:
        said.append("it did: " + ", ".join(f"{count} {name}" for name, count in sorted(outcome.effects.items())))
    if gateway := [f"{count:g} {name}" for name, count in outcome.upstream.items() if count and name != "delivered"]:
        said.append("the WhatsApp servers logged: " + ", ".join(gateway))
    if outcome.resumed:
        said.append(f"{len(outcome.resumed)} holders were back before anybody took over, after {max(outcome.resumed):.2f} s at most")
    return said


def report(outcomes: Sequence[tuple[Fault[Any], Outcome]], about: Mapping[str, Any]) -> Obj:
    """The whole file."""
    return {"baseline_s": BASELINE_S, **about, "faults": {fault.name: figures(outcome, fault) for fault, outcome in outcomes}}


def _few(sentences: Sequence[str]) -> str:
    more = f" and {len(sentences) - 3} more" if len(sentences) > 3 else ""
    return "; ".join(sentences[:3]) + more
