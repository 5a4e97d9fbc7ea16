"""The oracle of the laws shares nothing with the core but plain types; and it sees when a law had nothing to judge."""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from whatsapp_operator.core import model, rules
from whatsapp_operator.core.model import Answer, Plan

from . import laws
from .looks import look
from .witnesses import growing, restarting

SOURCE = Path(laws.__file__).read_text(encoding="utf-8")
LOGIC = {"facts", "plan", "row", "condition", "parse", "is_fit", "epoch_label", "shard_label", "logs_on"}
"""What snapshots and their types offer that is decided by the core."""


def borrowed(source: str) -> Iterator[str]:
    """What a module takes from the core beyond plain types, one sentence each."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"imports {one.name}" for one in node.names if one.name.startswith("whatsapp_operator"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("whatsapp_operator"):
            yield from (f"imports {node.module}.{one.name}" for one in node.names if not is_plain(node.module or "", one.name))
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield from (f"imports {one.name}" for one in node.names if one.name != "Look")
        elif isinstance(node, ast.Attribute) and node.attr in LOGIC:
            yield f"uses .{node.attr}"


def is_plain(module: str, name: str) -> bool:
    """Whether that is a type of data: a frozen dataclass, an enumeration, a named tuple, or a union of such."""
    found = getattr(model, name, None)
    if module != model.__name__ or found is None:
        return False
    return not inspect.isfunction(found) and (name == "Action" or dataclasses.is_dataclass(found) or issubclass(found, (enum.Enum, tuple)))


def test_the_oracle_takes_only_plain_types_from_the_core() -> None:
    assert list(borrowed(SOURCE)) == []


@pytest.mark.parametrize(
    "added",
    [
        "from whatsapp_operator.core import manifests",
        "import whatsapp_operator.core.rules",
        "from whatsapp_operator.core.evidence import is_hung",
        "from .looks import kept_objects",
        "def more(one): return one.facts().is_verified",
        "def more(pod): return pod.is_fit",
    ],
)
def test_an_oracle_that_borrows_is_found(added: str) -> None:
    assert len(list(borrowed(f"{SOURCE}\n{added}\n"))) == 1


def test_every_property_of_a_snapshot_is_known_as_logic() -> None:
    types = [one for one in vars(model).values() if inspect.isclass(one) and one.__module__ == model.__name__]
    found = {name for one in types for name, part in vars(one).items() if isinstance(part, (property, classmethod)) and name[0] != "_"}

    assert found - {"of"} <= LOGIC


def test_a_law_that_had_nothing_to_judge_says_so() -> None:
    assert not laws.law_5_set_shards_only_if(rules.plan, look().settled())
    assert laws.law_5_set_shards_only_if(rules.plan, growing())
    assert not laws.law_8_fit_certificate(rules.plan, growing()), "there is no account"
    assert laws.law_8_fit_certificate(rules.plan, growing().with_account())


def test_an_accepted_call_is_judged_by_law_9() -> None:
    assert laws.law_9_a_restart_is_no_failure(rules.plan, restarting())
    assert laws.law_9_a_restart_is_no_failure(rules.plan, growing().calling(4, Answer.ACCEPTED))
    assert not laws.law_9_a_restart_is_no_failure(rules.plan, restarting().later(181)), "its window is over"


def test_a_crash_is_no_breach_of_a_law_but_of_totality() -> None:
    def crashes(*_: object) -> Plan:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        laws.law_1_one_holder(crashes, look())
    with pytest.raises(laws.LawBroken, match="plan_is_total: it raises ZeroDivisionError"):
        laws.plan_is_total(crashes, look())
