"""The driver of `make mutants`: what it changes, how the change takes effect, and which survivors it takes for explained."""

from __future__ import annotations

import ast
import gc
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from mutation.__main__ import EXPLAINED, ROOT, explained
from mutation.changes import Mutant, mutants
from mutation.judge import LineCoverage, changed, sources
from mutation.swap import functions, put_functions, put_statement

SOURCE = '''
LIMIT = 3
KINDS = ("a", "b")

class Box:
    size: int = 4

    @property
    def is_big(self) -> bool:
        """Whether it is."""
        return self.size >= LIMIT and not self.size == 9

TABLE = (lambda number: number in {1, 2}, lambda number: min(number, 5) + 1)

def said(number: int) -> str:
    if number > 1:
        return f"{number} boxes"
    return "one" if number else "none"
'''


@pytest.fixture
def module() -> Iterator[ModuleType]:
    """The source as an imported module."""
    made = ModuleType("boxes")
    made.__file__ = "boxes.py"
    exec(compile(SOURCE, "boxes.py", "exec"), vars(made))
    sys.modules["boxes"] = made
    yield made
    del sys.modules["boxes"]


def found() -> tuple[ast.Module, list[Mutant]]:
    tree = ast.parse(SOURCE)
    return tree, mutants("boxes", SOURCE, tree)


def test_each_part_of_a_condition_a_table_and_a_number_is_changed_and_texts_and_fields_are_not() -> None:
    changes = {(one.function, one.before, one.after) for one in found()[1]}

    assert changes >= {
        ("LIMIT", "3", "4"),
        ("KINDS", "'b'", "(nothing)"),
        ("Box.is_big", "self.size >= LIMIT", "(nothing)"),
        ("Box.is_big", "self.size >= LIMIT", "self.size > LIMIT"),
        ("Box.is_big", "not self.size == 9", "self.size == 9"),
        ("Box.is_big", "9", "10"),
        ("TABLE", "1", "(nothing)"),
        ("TABLE", "min(number, 5)", "max(number, 5)"),
        ("said", "number > 1", "False"),
        ("said", "number > 1", "number >= 1"),
        ("said", "'one' if number else 'none'", "'none'"),
    }
    assert not any("boxes" in before or before == "4" for _, before, _ in changes)


def verdicts(module: ModuleType) -> tuple[object, ...]:
    """What the module does, through functions that were bound before it was changed."""
    box, said = module.Box(), module.said
    first, second = module.TABLE
    return module.LIMIT, box.is_big, first(1), first(2), second(7), said(0), said(1), said(2)


@pytest.mark.parametrize("index", range(len(found()[1])))
def test_every_change_takes_effect_or_is_one_that_nothing_here_shows(module: ModuleType, index: int) -> None:
    tree, every = found()
    mutant = every[index]
    table, said, before = module.TABLE, module.said, verdicts(module)
    known = functions("boxes")
    mutant.apply()
    if mutant.is_in_function:
        assert put_functions(compile(SOURCE, "boxes.py", "exec"), compile(ast.fix_missing_locations(tree), "boxes.py", "exec"), known) >= 1
        assert (module.TABLE, module.said) == (table, said), "what was bound elsewhere stays bound, and has changed"
    else:
        assert put_statement(module, mutant.statement, ast.fix_missing_locations(tree)) == 1
    try:
        after = verdicts(module)
    except (TypeError, ValueError):
        return
    hidden = {"KINDS", "Box.is_big"}  # no box here is of the size that shows it
    assert after != before or mutant.function in hidden


def test_functions_that_the_garbage_collector_leaves_alone_are_found(module: ModuleType) -> None:
    gc.freeze()

    assert module.said in functions("boxes")[module.said.__code__]


def test_a_type_that_has_a_name_is_not_changed() -> None:
    source = "Pairs: TypeAlias = tuple[int, str]\nLIMIT: int = 3\n"

    assert {one.function for one in mutants("boxes", source, ast.parse(source))} == {"LIMIT"}


def test_what_outside_modules_imported_is_rebound(module: ModuleType) -> None:
    other = ModuleType("shelf")
    vars(other)["LIMIT"] = limit = module.LIMIT
    sys.modules["shelf"] = other
    try:
        tree = ast.parse("LIMIT = 12345\nKINDS = (LIMIT, 'a')\nTABLE = None")
        assert put_statement(module, tree.body[0], tree) == 2
    finally:
        del sys.modules["shelf"]
    assert (limit, vars(other)["LIMIT"]) == (3, 12345)
    assert (module.KINDS, module.TABLE is None) == ((12345, "a"), False), "what is built of it is built again, and nothing else"


def test_the_cheapest_tests_that_reach_a_line_come_first_within_the_budget() -> None:
    mutant = next(one for one in found()[1] if one.function == "said")
    tests = LineCoverage()
    for name, cost in [("slow", 5.0), ("quick", 0.1), ("middling", 1.0)]:
        tests.add(name, cost, {"boxes": [mutant.span[0]]})
    tests.add("elsewhere", 0.01, {"boxes": [1]})

    assert tests.of(mutant, 10) == ["quick", "middling", "slow"]
    assert tests.of(mutant, 2) == ["quick", "middling"]
    assert tests.of(mutant, 0.01) == ["quick"], "one at least"


def test_of_a_table_the_tests_that_run_its_line_come_first_then_those_that_are_named_for_its_module() -> None:
    mutant = next(one for one in found()[1] if one.function == "TABLE")
    tests = LineCoverage()
    line = mutant.span[0]
    for name, cost, lines in [
        ("unit/test_other.py::quick", 0.1, [2]),
        ("unit/test_other.py::line", 5.0, [line]),
        ("unit/test_boxes.py::a", 0.2, [2]),
        ("unit/test_boxes_of_wood.py::b", 0.3, []),
    ]:
        tests.add(name, cost, {"boxes": lines})
    tests.add("unit/test_boxesful.py::nothing", 0.01, {})

    assert tests.of(mutant, 10) == [
        "unit/test_other.py::line",
        "unit/test_boxes.py::a",
        "unit/test_boxes_of_wood.py::b",
        "unit/test_other.py::quick",
    ]


def test_an_explanation_names_a_change_and_says_why() -> None:
    assert explained("# Survivors\n\nText.\n\n## rules\n\n- `_span`, `a < b`: `<` -> `<=`. They are never equal.\n") == {
        ("rules", "_span", "a < b", "<", "<=")
    }
    with pytest.raises(ValueError, match="not an explanation"):
        explained("## rules\n\n- `_span` is fine.\n")


def test_each_explanation_is_of_a_change_that_exists() -> None:
    known = explained(EXPLAINED.read_text(encoding="utf-8"))
    trees = {name: (source, ast.parse(source)) for name, source in sources(ROOT, sorted({key[0] for key in known}))}
    keys = {mutant.key for found in changed(trees).values() for mutant in found}

    assert known
    assert known - keys == set()
