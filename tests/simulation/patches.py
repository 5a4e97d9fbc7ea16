"""JSON merge patches and JSON patches, as the API server applies them. Nothing is changed in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .kinds import Obj


class DoesNotMatch(Exception):  # noqa: N818  it is an answer
    """A test of a JSON patch, or one of its paths, does not match."""


def merged(base: Any, patch: Any) -> Any:
    """Return a JSON merge patch applied (RFC 7396); neither argument is changed."""
    if not isinstance(patch, Mapping):
        return patch
    result: dict[str, Any] = dict(base) if isinstance(base, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def json_patched(obj: Obj, ops: Sequence[Mapping[str, Any]]) -> Obj:
    """Return a JSON patch applied, or raise DoesNotMatch.

    As in the real one, a test against null passes for what is absent, and a replace of an absent key of an object that is there adds it.
    """
    result: Any = obj
    for op in ops:
        path = [part.replace("~1", "/").replace("~0", "~") for part in op["path"].split("/")[1:]]
        result = _patched(result, path, op)
    patched: Obj = result
    return patched


def _patched(node: Any, path: list[str], op: Mapping[str, Any]) -> Any:
    key = path[0]
    if isinstance(node, list):
        return _patched_list(node, path, op)
    if not isinstance(node, Mapping):
        raise _missing(op)
    if len(path) > 1:
        if key not in node:
            if op["op"] == "test" and op.get("value") is None:
                return node
            raise _missing(op)
        return {**node, key: _patched(node[key], path[1:], op)}
    if op["op"] == "test":
        _test(node.get(key), op)
        return node
    if op["op"] == "remove":
        if key not in node:
            raise _missing(op)
        return {name: value for name, value in node.items() if name != key}
    return {**node, key: op["value"]}


def _patched_list(node: list[Any], path: list[str], op: Mapping[str, Any]) -> list[Any]:
    place = len(node) if path[0] == "-" else int(path[0])
    last = len(node) if op["op"] == "add" and len(path) == 1 else len(node) - 1
    if place > last:
        raise _missing(op)
    if len(path) > 1:
        return [*node[:place], _patched(node[place], path[1:], op), *node[place + 1 :]]
    if op["op"] == "test":
        _test(node[place], op)
        return node
    put = [] if op["op"] == "remove" else [op["value"]]
    return [*node[:place], *put, *node[place + (op["op"] != "add") :]]


def _test(found: Any, op: Mapping[str, Any]) -> None:
    if found != op.get("value"):
        raise DoesNotMatch(f"test of {op['path']}: {found!r} is not {op.get('value')!r}")


def _missing(op: Mapping[str, Any]) -> DoesNotMatch:
    return DoesNotMatch(f"path {op['path']} is not there")
