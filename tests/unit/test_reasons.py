"""Every reason that a user can meet stands in the documents with what to do; and each that needs a person says so in its own sentence."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from whatsapp_operator.core import conditions, objections, report, rules
from whatsapp_operator.core.actions import State
from whatsapp_operator.core.reasons import Reason
from whatsapp_operator.shell.kube.errors import Unavailable
from whatsapp_operator.shell.loop.status import StatusError, named
from whatsapp_operator.shell.objects.reading import SpecError, reshard_now_of

from .core.witnesses import WITNESSES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reasons.md").read_text(encoding="utf-8")
FAILURES = (Unavailable("pods is forbidden"), StatusError("status is too long"), SpecError("spec.shards is missing"), ZeroDivisionError())
"""One error of each kind that ends an observation."""
FAILED = {named(error)[0] for error in FAILURES}
STUCK = {row.name for row in rules.RULES if row.state is State.STUCK}
IMPERATIVES = "Apply|Ask|Copy|Correct|Create|Delete|Give|Make|Put|Report|Reset|Set|Write"


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def rows(title: str) -> Iterator[tuple[str, list[str]]]:
    """Each reason of a table with what is said of it."""
    for line in section(title).splitlines():
        first, *cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        yield from ((reason, cells) for reason in re.findall(r"`(\w+)`", first) if line.startswith("| `"))


def listed(title: str) -> list[str]:
    return [reason for reason, _ in rows(title)]


def events() -> set[str]:
    """The reasons of all Events that are not those of a condition or a rule, as they stand in the source."""
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "operator" / "whatsapp_operator").rglob("*.py"))
    trees = (ast.parse(source) for source in sources if "EmitEvent" in source)
    calls = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name))
    says = (word.value for call in calls if call.func.id == "EmitEvent" for word in call.keywords if word.arg == "reason")  # type: ignore[attr-defined]
    return {str(Reason[word.attr]) for word in says if isinstance(word, ast.Attribute) and ast.unparse(word.value) == "Reason"}


REASONS: dict[str, set[str]] = {
    "Stalled": STUCK | FAILED | {"ChangedByAdmission", "UpToDate"},
    "Reconciling": {row.name for row in rules.RULES if row.state in {State.WORKING, State.WAITING}} | {"UpToDate"},
    "Ready": {word.reason for word in conditions.READY} | FAILED | {"NotReconciled"},
    "Redundant": {word.reason for word in conditions.REDUNDANT},
    "CertificateValid": {word.reason for word in conditions.CERTIFICATE_VALID}
    | {one.name for one in objections.OBJECTIONS if one.is_of_account},
    "Events": events(),
}


@pytest.mark.parametrize("title", REASONS)
def test_every_reason_is_in_the_documents_once_and_nothing_else_is(title: str) -> None:
    assert sorted(listed(title)) == sorted(REASONS[title])


@pytest.mark.parametrize("title", REASONS)
def test_every_reason_says_what_it_means_and_what_to_do(title: str) -> None:
    expected = 2 if title == "Events" else 3  # a condition's status stands first
    assert {len([cell.strip("| ") for cell in cells if cell.strip("| ")]) for _, cells in rows(title)} == {expected}


def test_every_reason_is_used_and_what_is_used_is_a_reason() -> None:
    assert set().union(*REASONS.values()) == {str(reason) for reason in Reason}


def test_no_reason_is_written_as_text_where_one_is_due() -> None:
    """Neither a keyword that takes a reason nor the first value of a condition's rule is a plain string."""
    loose = re.compile(r"""\b(?:(?:reason|row)=|(?:Rule|Objection)\(\s*name=|ConditionRule\(\s*)["']""")
    sources = (ROOT / "operator" / "whatsapp_operator").rglob("*.py")
    assert [str(path) for path in sources if loose.search(path.read_text(encoding="utf-8"))] == []


def test_the_reasons_of_an_observation_that_failed_are_all_known() -> None:
    assert report.FAILED_OBSERVATION == FAILED


def test_every_warning_is_a_reason_that_is_documented() -> None:
    assert set().union(*map(listed, REASONS)) >= report.WARNINGS


def says_what_to_do(message: str) -> bool:
    return re.search(rf"(?:^|[.:] )(?:{IMPERATIVES})\b", message) is not None


@pytest.mark.parametrize("reason", sorted(STUCK))
def test_a_condition_that_needs_a_person_says_what_to_do(reason: str) -> None:
    stuck = WITNESSES[reason].plan().stuck

    assert stuck is not None
    assert says_what_to_do(stuck.why), stuck.why


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_an_observation_that_failed_says_what_to_do(error: Exception) -> None:
    assert says_what_to_do(named(error)[1]), named(error)[1]


def test_an_annotation_that_cannot_be_obeyed_says_what_to_do() -> None:
    assert says_what_to_do(reshard_now_of("four")[1] or "")
