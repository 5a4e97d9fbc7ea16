"""The oracle of the laws shares nothing with the core but plain types; and it sees when a law had nothing to judge."""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from whatsapp_operator.core import actions, desired, names, rules, snapshot
from whatsapp_operator.core.actions import ClearLabels, Plan
from whatsapp_operator.core.snapshot import Answer, Call

from . import laws
from .mutants import adding
from .situations import situation
from .witnesses import growing, restarting

SOURCE = Path(laws.__file__).read_text(encoding="utf-8")
TYPES = {part.__name__: part for part in (names, desired, snapshot, actions)}
"""Where the plain types are."""
LOGIC = {"is_running", "is_ready", "epoch_label", "shard_label", "logs_on", "failed_reads"}
"""Properties of the core's types that decide something."""
OWN_METHODS = {"get", "isdecimal", "partition"}
"""Methods of Python's own types; every other method may be one of the core's."""


def borrowed(source: str) -> Iterator[str]:
    """What a module takes from the core apart from plain types, one sentence each."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"imports {one.name}" for one in node.names if one.name.startswith(("whatsapp_operator", "importlib")))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("whatsapp_operator"):
            yield from (f"imports {node.module}.{one.name}" for one in node.names if not is_plain(node.module or "", one.name))
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield from (f"imports {one.name}" for one in node.names if one.name != "Situation")
        elif isinstance(node, ast.Attribute) and node.attr in LOGIC:
            yield f"uses .{node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not is_own(node.func):
            yield f"calls .{node.func.attr}"
        elif isinstance(node, ast.Name) and node.id in {"getattr", "__import__", "eval", "exec", "vars"}:
            yield f"uses {node.id}"


def is_own(method: ast.Attribute) -> bool:
    """Whether a method that is called is one of Python's own."""
    is_of_base = isinstance(method.value, ast.Call) and isinstance(method.value.func, ast.Name) and method.value.func.id == "super"
    return is_of_base or method.attr in OWN_METHODS


def is_plain(module: str, name: str) -> bool:
    """Whether that is a type of data: a frozen dataclass, an enumeration, a named tuple, or a union of such."""
    found = getattr(TYPES.get(module), name, None)
    if found is None:
        return False
    return name == "Action" or (
        inspect.isclass(found) and (dataclasses.is_dataclass(found) or issubclass(found, enum.Enum) or hasattr(found, "_fields"))
    )


def test_the_oracle_takes_only_plain_types_from_the_core() -> None:
    assert list(borrowed(SOURCE)) == []


@pytest.mark.parametrize(
    "added",
    [
        "from whatsapp_operator.core import manifests",
        "import whatsapp_operator.core.rules",
        "from whatsapp_operator.core import desired",
        "from whatsapp_operator.core.desired import SHARD_COUNTS",
        "from whatsapp_operator.core.evidence import is_hung",
        "from .situations import kept_objects",
        "from .witnesses import growing",
        "import importlib",
        "def more(one): return getattr(one, 'fa' + 'cts')",
        "def more(one): return one.facts().is_verified",
        "def more(one): return one.report()",
        "def more(text): return Operation.parse(text)",
        "def more(pod): return pod.is_ready",
    ],
)
def test_an_oracle_that_borrows_is_found(added: str) -> None:
    assert len(list(borrowed(f"{SOURCE}\n{added}\n"))) == 1


def test_every_property_of_the_types_is_known_as_logic() -> None:
    types = [one for part in TYPES.values() for one in vars(part).values() if inspect.isclass(one) and one.__module__ == part.__name__]

    assert {name for one in types for name, part in vars(one).items() if isinstance(part, property)} == LOGIC


def test_a_law_that_had_nothing_to_judge_says_so() -> None:
    assert not laws.law_5_set_shards_only_if(rules.plan, situation().settled())
    assert laws.law_5_set_shards_only_if(rules.plan, growing())
    assert not laws.law_8_fit_certificate(rules.plan, growing()), "there is no account"
    assert laws.law_8_fit_certificate(rules.plan, growing().with_account())


def test_an_accepted_call_is_judged_by_law_9() -> None:
    assert laws.law_9_a_restart_is_no_failure(rules.plan, restarting())
    assert laws.law_9_a_restart_is_no_failure(rules.plan, growing().calling(4, Answer.ACCEPTED))
    assert not laws.law_9_a_restart_is_no_failure(rules.plan, restarting().later(181)), "its window is over"


def test_a_definite_answer_counts_whatever_was_noted_before() -> None:
    """A leader that came back may have noted "unknown" of its own call, which is answered after all."""
    one = growing().noted(4, Answer.UNKNOWN)
    assert laws.law_6_unknown_is_a_value(rules.plan, one)

    refused = one.client(call=Call(id="4-noted", answer=Answer.REJECTED))
    assert not laws.law_6_unknown_is_a_value(rules.plan, refused)


def test_after_the_time_to_settle_the_client_has_the_last_word() -> None:
    """An accepted call that has changed nothing in all its time is over: the labels of shards that never came are nobody's."""
    one = growing().reporting(1).noted(4, Answer.ACCEPTED).wanting(shards=1)
    stripping = adding(ClearLabels(coreapp=one.holder_of(1)))
    assert laws.law_2_prepare_then_commit(stripping, one.later(841))

    with pytest.raises(laws.LawBroken, match="law_2_prepare_then_commit: the label serves"):
        laws.law_2_prepare_then_commit(stripping, one)


def test_a_crash_is_no_breach_of_a_law_but_of_totality() -> None:
    def crashes(*_: object) -> Plan:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        laws.law_1_one_holder(crashes, situation())
    with pytest.raises(laws.LawBroken, match="plan_is_total: it raises ZeroDivisionError"):
        laws.plan_is_total(crashes, situation())
