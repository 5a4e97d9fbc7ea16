"""The result of a run, on either backend: what makes it fail, and the file. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from localkube import Obj
from localkube.figures import BASELINE_S, clock, row, summary
from localkube.scenarios.runner.case import Fault
from localkube.scenarios.runner.judge import UNREPORTED
from localkube.scenarios.runner.player import Outcome

Played = Sequence[tuple[Fault[Any], Outcome]]

AT_ONCE, PROBES_S, SLACK_S, NO_GOAL_S = 10.0, 3.0, 4.0, 4.0
LATER, KILLED_S = 2.0, 0.5
KEPT = (
    *("not_handed_over", "evidence", "effects", "wrong_failovers", "sent", "lost", "doubled", "rejections"),
    *("violations", "unsettled", "troubles", "notes", "samples"),
)
"""What the file says of an outcome as it is."""
PHASES = {"decided": "decided after", "committed": "committed after", "from_possible": "from when a handover could be made"}
"""What is measured of a handover besides its time, and how it is said."""


def _broken(outcome: Outcome, fault: Fault[Any], n: int) -> list[str]:
    """Everything that must not happen on any machine, without the fault's name."""
    what = f"not handed over within {fault.allowed:g} s" if fault.failover else f"without a message for {fault.allowed:g} s"
    found = {
        f"{len(outcome.not_handed_over)} of {outcome.n} shards {what}": outcome.not_handed_over,
        f"measured {outcome.n} times only, not {n}": outcome.n < n,
        **dict.fromkeys(_strange(fault, outcome.evidence, len(outcome.times)), True),
        f"{len(outcome.wrong_failovers)} wrong failovers: {_few(outcome.wrong_failovers)}": outcome.wrong_failovers,
        f"{outcome.lost} messages lost, {outcome.doubled} doubled": outcome.lost or outcome.doubled,
        f"laws broken: {_few(outcome.violations)}": outcome.violations,
        f"not as wanted again: {_few(outcome.unsettled)}": outcome.unsettled,
    }
    return [sentence for sentence, is_so in found.items() if is_so] + outcome.troubles


def _strange(fault: Fault[Any], evidence: Mapping[str, int], n: int) -> list[str]:
    """Evidence that must not occur but did, and evidence that is missing for some of ``n`` required handovers."""
    expected, said = ", ".join(sorted(fault.evidence)), []
    if strange := sorted(set(evidence) - fault.evidence - {UNREPORTED}):
        said.append(f"evidence {', '.join(strange)} is not what was to be seen ({expected})")
    if fault.failover and (seen := sum(evidence.get(word, 0) for word in fault.evidence)) < n:
        said.append(f"the evidence of {seen} of {n} handovers was seen ({expected})")
    return said


def missed(outcome: Outcome, fault: Fault[Any]) -> str:
    """A sentence when the goal for times is missed, else empty."""
    said = summary(outcome.times, len(outcome.not_handed_over)).complaint(fault.goal) if outcome.n else ""
    return f"{fault.name}: {said}" if said else ""


def complaints(outcome: Outcome, fault: Fault[Any], *, n: int) -> list[str]:
    """One sentence for everything that is not as it must be, a missed goal included."""
    late = [text] if (text := missed(outcome, fault)) else []
    return late + [f"{fault.name}: {text}" for text in _broken(outcome, fault, n)]


def failures(outcome: Outcome, fault: Fault[Any], *, n: int) -> list[str]:
    """The same where times depend on the machine: a missed goal does not count, but a time beyond the bound does, and so do rejections."""
    said, (own, others) = _broken(outcome, fault, n), outcome.rejected
    if others and not fault.restarts:
        said.append(f"{others} tries were rejected on shards to which nothing was done")
    if own and fault.silent:
        said.append(f"{own} tries were rejected, though this is planned")
    if outcome.times and max(outcome.times) > limit(fault):
        said.append(f"took {max(outcome.times):.1f} s; beyond {limit(fault):g} s it is broken, not slow")
    return [f"{fault.name}: {text}" for text in said]


def limit(fault: Fault[Any]) -> float:
    """Seconds beyond which a time on kind means that something is broken.

    A decision at once takes milliseconds, which a busy machine can multiply: ten times the goal, or that of a killed container if there is
    no goal. A decision that waits for probes or leases takes seconds, which a busy machine does not multiply: twice the goal.
    """
    if fault.at_once:
        return AT_ONCE * (fault.goal or KILLED_S)
    return fault.allowed if fault.goal is None else LATER * fault.goal


def bound(fault: Fault[Any]) -> float:
    """Seconds beyond which a time on hollow nodes means that something is broken, however busy the machine is.

    A decision at once may take ten times its goal, which is less than the three seconds of the probes: this detects an operator that has
    fallen back to probes. The others wait for probes and leases, which a busy machine does not multiply: twice the goal, and never more
    than 4 s beyond it.
    """
    if fault.goal is None:
        return fault.allowed if fault.failover else NO_GOAL_S
    if AT_ONCE * fault.goal < PROBES_S:
        return AT_ONCE * fault.goal
    return fault.goal + min(fault.goal, SLACK_S)


def is_compared(fault: Fault[Any]) -> bool:
    """Whether a fault's times are compared with the vendor's failover: not if they include an outage that the fault itself causes."""
    return fault.failover and fault.goal is not None


def remarks(outcome: Outcome) -> list[str]:
    """Sentences for the table: what a fault did, how the WhatsApp servers reacted, what was not a failover, and its notes."""
    said = []
    if outcome.effects:
        said.append("it did: " + ", ".join(f"{count} {name}" for name, count in sorted(outcome.effects.items())))
    if gateway := [f"{count:g} {name}" for name, count in outcome.upstream.items() if count and name != "delivered"]:
        said.append("the WhatsApp servers logged: " + ", ".join(gateway))
    if outcome.resumed:
        said.append(f"{len(outcome.resumed)} holders were back before another took over, after {max(outcome.resumed):.2f} s at most")
    said += dict.fromkeys(outcome.notes)
    for key, what in PHASES.items():
        if times := spread(outcome.samples, key):
            found = summary(times)
            said.append(f"{what} p50 {clock(found.p50)}, max {clock(found.max)} (n = {found.n})")
    if any(outcome.rejected):
        said.append("{} tries were rejected on shards that were struck, {} on others".format(*outcome.rejected))
    return said


def _few(sentences: Sequence[str]) -> str:
    more = f" and {len(sentences) - 3} more" if len(sentences) > 3 else ""
    return "; ".join(sentences[:3]) + more


def spread(samples: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    """The values of a key of samples, where they were measured."""
    return [float(sample[key]) for sample in samples if sample.get(key) is not None]


def figures(outcome: Outcome, fault: Fault[Any]) -> Obj:
    """The figures of one fault for a file; seconds."""
    return {
        **{name: getattr(fault, name) for name in ("what", "failover", "silent", "allowed")},
        **row(outcome.times, len(outcome.not_handed_over), goal=fault.goal, baseline=is_compared(fault)),
        **{key: row(times) for key in PHASES if (times := spread(outcome.samples, key))},
        **{name: getattr(outcome, name) for name in KEPT},
        "resumed": [round(value, 4) for value in outcome.resumed],
        "upstream": {name: round(value, 3) for name, value in outcome.upstream.items() if value},
        "rejected_struck": outcome.rejected[0],
        "rejected_others": outcome.rejected[1],
        "took": round(outcome.took, 1),
        "hollow_cpu": round(outcome.hollow_cpu, 2),
        "late": round(outcome.late, 3),
    }


def report(played: Played, about: Mapping[str, Any], *, beyond: Callable[[Fault[Any]], float]) -> Obj:
    """The whole file of a run; ``beyond``: seconds of a fault beyond which a time is that of something broken."""
    rows = {fault.name: figures(outcome, fault) | {"bound": beyond(fault)} for fault, outcome in played}
    return {"baseline_s": BASELINE_S, **about, "faults": rows}
