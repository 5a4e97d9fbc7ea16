"""What is changed: every small fault that a hand could make in a module, one at a time."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field
from typing import Any

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
CALLED = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}


NOTHING = "(nothing)"
Key = tuple[str, str, str, str, str]
"""What names a mutant: module, function, text of the line, and what is changed, before and after."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change: where, the text of the line, and the changed expression or statement before and after."""

    module: str
    function: str
    """Qualified name; of the assigned name, outside of functions."""
    line: str
    before: str
    after: str
    span: tuple[int, int] = field(compare=False)
    """First and last line of what is changed."""
    statement: ast.stmt = field(compare=False, repr=False)
    """The innermost statement that it is in."""
    is_in_function: bool = field(compare=False)
    edit: tuple[ast.AST, str, int | None, ast.AST | None] = field(compare=False, repr=False)
    """Parent, field, index and what comes there; None: nothing does."""

    @property
    def key(self) -> Key:
        """What names it in the file of explanations."""
        return self.module, self.function, self.line, self.before, self.after

    def __str__(self) -> str:
        return f"`{self.function}`, `{self.line}`: `{self.before}` -> `{self.after}`."

    def apply(self) -> None:
        """Change the tree that the mutant was found in, for good."""
        parent, name, index, new = self.edit
        if index is None:
            setattr(parent, name, new)
        elif new is None:
            del getattr(parent, name)[index]
        else:
            getattr(parent, name)[index] = new


@dataclass(frozen=True)
class _Position:
    """Where the walk is."""

    names: tuple[str, ...] = ()
    statement: ast.stmt = field(default_factory=ast.Pass)
    is_in_function: bool = False
    is_in_text: bool = False


Change = tuple[ast.AST, ast.AST, ast.AST | None]
"""What comes in the place of a node; and the part of it that differs, before and after (None: it is gone)."""


def mutants(module: str, source: str, tree: ast.Module) -> list[Mutant]:
    """Return every change of a module, in the order of its text. Annotations, texts for people and bodies of classes are left alone."""
    lines = source.splitlines()
    found: dict[Key, Mutant] = {}
    for place, node, parent, name, index in _walk(tree, _Position()):
        for new, before, after in _changes(node, place):
            first = getattr(before, "lineno", place.statement.lineno)
            mutant = Mutant(
                module=module,
                function=".".join(place.names),
                line=lines[first - 1].strip(),
                before=_shown(before),
                after=_shown(after) if after is not None else NOTHING,
                span=(getattr(node, "lineno", first), getattr(node, "end_lineno", None) or first),
                statement=place.statement,
                is_in_function=place.is_in_function,
                edit=(parent, name, index, new),
            )
            found.setdefault(mutant.key, mutant)
    return list(found.values())


def _shown(node: ast.AST) -> str:
    if isinstance(node, ast.keyword):
        return f"{node.arg}={ast.unparse(node.value)}"
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 120 else f"{text[:80]} ... {text[-30:]}"


_Step = tuple[_Position, ast.AST, ast.AST, str, int | None]


def _walk(node: ast.AST, place: _Position) -> Iterator[_Step]:
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list", "format_spec", "op", "ops", "ctx"}:
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                yield from _step(node, name, index, child, place)


def _step(parent: ast.AST, name: str, index: int | None, child: ast.AST, place: _Position) -> Iterator[_Step]:
    if isinstance(child, ast.ClassDef | ast.FunctionDef):
        inside = _Position((*place.names, child.name), child, place.is_in_function or isinstance(child, ast.FunctionDef))
        yield from _walk(child, inside)
        return
    if isinstance(child, ast.stmt):
        if isinstance(child, ast.Import | ast.ImportFrom) or (isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)):
            return
        if isinstance(child, ast.AnnAssign) and ast.unparse(child.annotation) == "TypeAlias":
            return  # a type: what no test can tell
        if isinstance(parent, ast.ClassDef):
            return  # fields and members: data, which the class has taken in
        targets = child.targets if isinstance(child, ast.Assign) else [child.target] if isinstance(child, ast.AnnAssign) else []
        names = place.names if place.names else (", ".join(map(ast.unparse, targets)),)
        place = _Position(names, child, place.is_in_function, place.is_in_text)
    elif isinstance(child, ast.Lambda):
        place = _Position(place.names, place.statement, True, place.is_in_text)
    elif isinstance(child, ast.JoinedStr):
        place = _Position(place.names, place.statement, place.is_in_function, True)
    yield place, child, parent, name, index
    yield from _walk(child, place)


def _changes(node: ast.AST, place: _Position) -> Iterator[Change]:
    for new in _replacements(node, place):
        yield new, node, new
    match node:
        case ast.BoolOp():
            for index, one in enumerate(node.values):
                rest = node.values[:index] + node.values[index + 1 :]
                yield ast.copy_location(ast.BoolOp(node.op, rest) if len(rest) > 1 else rest[0], node), one, None
        case ast.If() | ast.While():
            for value in (True, False) if isinstance(node, ast.If) else (False,):
                test = ast.copy_location(ast.Constant(value), node.test)
                yield _replaced(node, test=test), node.test, test
        case ast.comprehension():
            yield from _without(node, "ifs")
        case ast.Call():
            yield from (one for one in _without(node, "keywords") if getattr(one[1], "arg", None) not in {None, "key", "strict"})
        case ast.Set():
            yield from _without(node, "elts")
        case ast.Tuple(ctx=ast.Load()) | ast.List(ctx=ast.Load()) if not place.is_in_function:
            yield from _without(node, "elts")
        case ast.match_case():
            yield _replaced(node, guard=ast.copy_location(ast.Constant(False), node.pattern)), node.pattern, None
        case ast.AugAssign() | ast.Expr(value=ast.Call() | ast.Yield() | ast.YieldFrom()):
            yield ast.copy_location(ast.Pass(), node), node, None


def _replacements(node: ast.AST, place: _Position) -> Iterator[ast.AST]:
    match node:
        case ast.Compare():
            for index, op in enumerate(node.ops):
                ops: list[ast.cmpop] = [*node.ops]
                ops[index] = COMPARED[type(op)]()
                yield _replaced(node, ops=ops)
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.IfExp():
            yield from (node.body, node.orelse)
        case ast.BinOp() | ast.AugAssign() if type(node.op) in COMPUTED and not _makes_text(node):
            yield _replaced(node, op=COMPUTED[type(node.op)]())
        case ast.Call(func=ast.Name(id=called)) if called in CALLED:
            yield _replaced(node, func=ast.copy_location(ast.Name(CALLED[called], ast.Load()), node.func))
        case ast.Constant():
            yield from _constants(node, place)


def _constants(node: ast.Constant, place: _Position) -> Iterator[ast.AST]:
    match node.value:
        case bool():
            yield _replaced(node, value=not node.value)
        case int() | float():
            yield _replaced(node, value=node.value + 1)
        case str() if node.value and not place.is_in_text and " " not in node.value and place.is_in_function:
            yield _replaced(node, value=f"{node.value}X")


def _makes_text(node: ast.BinOp | ast.AugAssign) -> bool:
    return isinstance(node.op, ast.Add) and any(
        isinstance(one, ast.JoinedStr) or (isinstance(one, ast.Constant) and isinstance(one.value, str)) for one in ast.walk(node)
    )


def _replaced(node: ast.AST, **fields: Any) -> Any:
    made = copy(node)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def _without(node: ast.AST, name: str) -> Iterator[Change]:
    parts: list[ast.AST] = getattr(node, name)
    for index, one in enumerate(parts):
        yield _replaced(node, **{name: parts[:index] + parts[index + 1 :]}), one, None
