"""Puts changed code in the place of what was imported, wherever it is already bound."""

from __future__ import annotations

import ast
import gc
import sys
from collections import defaultdict
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

Functions = dict[CodeType, list[FunctionType]]


def functions(package: str) -> Functions:
    """Return the functions of a package that exist now, by their code; lambdas and what properties hold included."""
    gc.unfreeze()  # conftest.py froze what was imported, and what is frozen is not listed
    found: Functions = defaultdict(list)
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and str(one.__globals__.get("__name__")).startswith(package):
            found[one.__code__].append(one)
    return found


def put_functions(before: CodeType, after: CodeType, known: Functions) -> int:
    """Give each function whose code differs the new code, and return how many there are; ValueError if one has other free variables."""
    new = dict(_codes(after))
    changed = 0
    for place, code in _codes(before):
        if place in new and new[place] != code:
            for function in known.get(code, []):
                function.__code__ = new[place]
                changed += 1
    return changed


def put_statement(module: ModuleType, statement: ast.stmt, tree: ast.Module) -> int:
    """Run an assignment of a module again, and those below it that use what it assigns; return how many values are new.

    Names are rebound wherever they were imported.
    """
    before = {**vars(module)}
    renewed: dict[str, Any] = {}
    for one in tree.body[tree.body.index(statement) :]:
        names = {node.id for node in ast.walk(one) if isinstance(node, ast.Name)}
        if one is statement or (isinstance(one, ast.Assign | ast.AnnAssign) and not renewed.keys().isdisjoint(names)):
            exec(compile(ast.Module([one], []), str(module.__file__), "exec", dont_inherit=True), vars(module))  # noqa: S102
            renewed = {name: value for name, value in vars(module).items() if name in before and before[name] is not value}
    for other in [*sys.modules.values()]:
        for name, value in renewed.items():
            if vars(other).get(name) is before[name]:
                setattr(other, name, value)
    return len(renewed)


def _codes(code: CodeType) -> Iterator[tuple[tuple[str, int, int], CodeType]]:
    """Yield the code of each function in it with what names it: its qualified name, its first line, and which one of these it is."""
    counts: dict[tuple[str, int], int] = defaultdict(int)
    waiting = [code]
    while waiting:
        one = waiting.pop(0)
        for inner in one.co_consts:
            if isinstance(inner, CodeType):
                place = inner.co_qualname, inner.co_firstlineno
                yield (*place, counts[place]), inner
                counts[place] += 1
                waiting.append(inner)
