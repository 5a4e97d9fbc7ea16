"""Diagrams and tables of the decisions, generated from the tables that make them: Mermaid and Markdown."""

from __future__ import annotations

from itertools import groupby

from whatsapp_operator.core import always
from whatsapp_operator.core import rules as table
from whatsapp_operator.core.actions import State
from whatsapp_operator.core.desired import Desired
from whatsapp_operator.core.evidence import EVIDENCE, Certainty
from whatsapp_operator.core.names import Key
from whatsapp_operator.core.rules import Rule

COLOURS = {
    "urgent": ("urgent: goes on although a person must act", "#b3261e"),
    State.WORKING: ("works", "#1565c0"),
    State.WAITING: ("waits: ends by itself", "#7b5e00"),
    State.STUCK: ("stuck: a person must act", "#6a1b9a"),
    State.READY: ("ready: nothing is to be done", "#2e7d32"),
}
CERTAINTIES = {
    Certainty.CERTAIN: "certain: counts also while the self-check fails",
    Certainty.PROBABLE: "probable: does not count while the self-check fails",
}


def rules() -> str:
    """Return the rules as a diagram, in the order in which they are evaluated; neighbours that mean the same to the user share a box."""
    lines = ["flowchart TB"]
    groups = [(kind, [rule.name for rule in group]) for kind, group in groupby(table.RULES, _kind)]
    lines += [f'    r{number}["{"<br>".join(names)}"]:::{kind.lower()}' for number, (kind, names) in enumerate(groups)]
    lines += [f"    {' --> '.join(f'r{number}' for number in range(len(groups)))}", "    subgraph legend [what a rule that decides means]"]
    lines += [f'        l{kind}["{text}"]:::{kind.lower()}' for kind, (text, _) in COLOURS.items()]
    lines += ["    end", *(f"    classDef {kind.lower()} fill:{colour},color:#fff" for kind, (_, colour) in COLOURS.items())]
    return _mermaid(lines)


def _kind(rule: Rule) -> str:
    return "urgent" if rule.despite_stall else rule.state.value


def evidence() -> str:
    """Return the evidence against a holder as a diagram: how certain it is, and how long it must last before it counts."""
    spec = Desired(key=Key("default", "acme"), uid="", generation=1, client="Simulator", shards=2)
    lines = ["flowchart LR", '    failover(["the shard is handed over"])']
    for certainty, text in CERTAINTIES.items():
        lines.append(f'    {certainty.lower()}["{text}"]')
        proofs = sorted((proof for proof in EVIDENCE if proof.certainty is certainty), key=lambda proof: proof.after(spec))
        for seconds, group in groupby(proofs, lambda proof: proof.after(spec).total_seconds()):
            names = "<br>".join(proof.evidence for proof in group)
            when = f"after {seconds:g} s" if seconds else "at once"
            lines.append(f'    {certainty.lower()} --> {certainty.lower()}{seconds:.0f}["{names}"] -- {when} --> failover')
    return _mermaid(lines)


def always_rules() -> str:
    """Return the actions that do not depend on which rule wins, as a table."""
    rows = "".join(f"| `{rule.name}` | {rule.why} |\n" for rule in always.ALWAYS)
    return f"\n| rule | what it does |\n| --- | --- |\n{rows}\n"


def _mermaid(lines: list[str]) -> str:
    return "\n```mermaid\n" + "\n".join(lines) + "\n```\n\n"
