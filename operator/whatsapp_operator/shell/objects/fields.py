"""Reads frozen values from objects, each field from the place in the CRD that its type names. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields, is_dataclass
from datetime import timedelta
from functools import cache
from types import NoneType
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import UNSET, Meta, UnsetType

from whatsapp_operator.core.places import At

T = TypeVar("T")


class _Field(NamedTuple):
    """A field with a place: what it is read as, and how that becomes its value."""

    name: str
    at: At
    kind: Any
    convert: Callable[[Any], Any]
    has_default: bool
    inner: type | None
    """The class with places from which it is built, if there is one."""
    is_list: bool

    @property
    def keys(self) -> list[str]:
        return self.at.path.partition("[]")[0].split(".")


def read(kind: type[T], obj: Any, /, **others: Any) -> T:
    """Return a value of this class from an object; ``others`` are the fields without a place.

    msgspec.ValidationError names the path that cannot be read.
    """
    return _value(kind, msgspec.convert(obj, _shape(kind)), **others)  # type: ignore[arg-type]  # a class can be hashed


def places(kind: type, prefix: str = "") -> Iterable[str]:
    """Yield the place of every value that is read for this class, with dots; ``[]`` stands for every entry of a list."""
    for field in _fields_of(kind):
        path = f"{prefix}{field.at.path}"
        yield from places(field.inner, f"{path}{'[]' * field.is_list}.") if field.inner is not None else (path,)


def _value(kind: type[T], shape: Any, **others: Any) -> T:
    found = {}
    for field in _fields_of(kind):  # type: ignore[arg-type]  # a class can be hashed
        value = shape
        for key in field.keys:
            value = UNSET if value is None else getattr(value, key)
        if value is not UNSET:
            found[field.name] = field.convert(value)
    return kind(**found, **others)


@cache
def _shape(kind: type) -> Any:
    """Return the msgspec type of the object that a class is read from."""
    tree: dict[str, Any] = {}
    for field in _fields_of(kind):
        *above, last = field.keys
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        node[last] = field
    return _struct(kind.__name__, tree)[0]


def _struct(name: str, tree: dict[str, Any]) -> tuple[Any, bool]:
    """Return the msgspec type of a part of the object, and whether that part must be there."""
    columns: list[Any] = []
    for key, part in tree.items():
        if isinstance(part, _Field):
            must = part.at.required or not part.has_default
            columns.append((key, part.kind) if must else (key, part.kind | UnsetType, UNSET))
            continue
        inner, must = _struct(key, part)
        if any(isinstance(one, _Field) and one.at.required for one in part.values()):
            columns.append((key, inner | None, None))
        else:
            columns.append((key, inner) if must else (key, inner, inner()))
    made = msgspec.defstruct(name, columns, frozen=True, kw_only=True)
    return made, any(len(column) == 2 for column in columns)


@cache
def _fields_of(kind: type) -> tuple[_Field, ...]:
    mandatory = {one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING}
    found: list[_Field] = []
    for name, hint in get_type_hints(kind, include_extras=True).items():
        kept, *notes = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
        inner = next((part for part in (kept, *get_args(kept)) if is_dataclass(part) and isinstance(part, type)), None)
        for at in (note for note in notes if isinstance(note, At)):
            read_as, convert = _nested(inner, kept) if inner is not None else _plain(at, kept)
            found += [_Field(name, at, read_as, convert, name not in mandatory, inner, get_args(kept)[-1:] == (...,))]
    return tuple(found)


def _nested(inner: type, hint: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return what a field is read as that holds other fields with places, and how that becomes its value."""
    shape = _shape(inner)
    if get_args(hint)[-1:] == (...,):
        return _list_of(shape), lambda entries: tuple(_value(inner, one) for one in entries)
    if NoneType in get_args(hint):
        return shape | None, lambda one: None if one is None else _value(inner, one)
    return shape, lambda one: _value(inner, one)


def _plain(at: At, hint: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return the same of any other field."""
    number: Any = Annotated[int, Meta(ge=at.least, le=at.most)]
    if key := at.path.partition("[].")[2]:
        return _list_of(msgspec.defstruct(key, [(key, str)])), lambda entries: tuple(getattr(one, key) for one in entries)
    if hint is timedelta:
        return number, lambda count: count * (at.unit or timedelta())
    if at.equals is not None:
        return str, lambda text: text == at.equals
    if at.required:
        # The field itself may not be null, even if its default is None.
        return next(one for one in (*get_args(hint), hint) if one is not NoneType), lambda value: value
    return {int: number, int | None: number | None}.get(hint, hint), lambda value: value


def _list_of(shape: Any) -> Any:
    return tuple[shape, ...]
