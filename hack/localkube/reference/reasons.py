"""Every reason that users meet: its text as in the plugin, its condition and status from the tables that use it."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

import whatsapp_operator
from kubectl_whatsapp import why
from whatsapp_operator.core import conditions, objections, report, rules
from whatsapp_operator.core.actions import State
from whatsapp_operator.core.reasons import Reason

CRD_INDENT, CRD_WIDTH = 22, 140
UNDER_WAY = (State.WORKING, State.WAITING)

Statuses = dict[Reason, str]


def by_condition(*, unobserved: bool = True) -> dict[str, Statuses]:
    """Return the reasons of each condition with the status that they go with, and those of Events alone.

    ``unobserved``: also those of clusters that could not be observed, or not yet.
    """
    failed = report.FAILED_OBSERVATION if unobserved else frozenset()
    of_account = [one for one in objections.OBJECTIONS if one.is_of_account]
    return {
        "Stalled": dict.fromkeys([*_rules(State.STUCK), *failed], "True") | dict.fromkeys(_rules(State.READY), "False"),
        "Reconciling": dict.fromkeys(_rules(*UNDER_WAY), "True") | {Reason.UP_TO_DATE: "False"},
        "Ready": _table(conditions.READY) | dict.fromkeys([*failed, *[Reason.NOT_RECONCILED] * unobserved], "Unknown"),
        "Redundant": _table(conditions.REDUNDANT),
        "CertificateValid": _table(conditions.CERTIFICATE_VALID)
        | {one.name: "False" if one.state is State.STUCK else "Unknown" for one in of_account},
        "Events": dict.fromkeys((reason for reason, _ in steps()), ""),
    }


def _rules(*states: State) -> list[Reason]:
    return [rule.name for rule in rules.RULES if rule.state in states]


def _table(table: tuple[conditions.ConditionRule, ...]) -> Statuses:
    return {rule.reason: rule.status for rule in table}


def steps() -> Iterator[tuple[Reason, set[str]]]:
    """Yield the reasons of Events of steps as written in the source, each with the types that it may have."""
    for path in sorted(Path(whatsapp_operator.__file__).parent.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        for call in ast.walk(ast.parse(source)) if "EmitEvent" in source else ():
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "EmitEvent":
                given = {word.arg: word.value for word in call.keywords}
                reason, warning = given["reason"], given.get("warning", ast.Constant(False))
                if isinstance(reason, ast.Attribute) and ast.unparse(reason.value) == "Reason":
                    fixed = {"Warning" if warning.value else "Normal"} if isinstance(warning, ast.Constant) else set()
                    yield Reason[reason.attr], fixed or {"Normal", "Warning"}


def tables() -> dict[str, str]:
    """Return for each condition its reasons as a Markdown table."""
    return {title: _markdown(statuses, has_status=title != "Events") for title, statuses in by_condition().items()}


def _markdown(statuses: Statuses, *, has_status: bool) -> str:
    said = why.texts()
    heads = ["reason", *(["status"] * has_status), "what it means", "do"]
    rows = [[f"`{one}`", *([f"`{status}`"] * has_status), *said.get(one, ())] for one, status in sorted(statuses.items())]
    return "\n" + "".join(f"| {' | '.join(row)} |\n" for row in (heads, ["---"] * len(heads), *rows)) + "\n"


def crd_description() -> str:
    """Return the description of a condition's reason in the CRD: all reasons, by condition."""
    lists = ". ".join(f"{title}: {', '.join(sorted(found))}" for title, found in by_condition().items() if title != "Events")
    text = f"One word that names the rule that speaks. {lists}."
    folded = textwrap.wrap(text, CRD_WIDTH - CRD_INDENT - 2)
    return f"{' ' * CRD_INDENT}description: >-\n" + "".join(f"{' ' * (CRD_INDENT + 2)}{line}\n" for line in folded)
