"""What Argo CD makes of a resource: ``contrib/argocd/health.lua``, run by a real Lua 5.1 without the libraries that Argo CD withholds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lupa import lua51

SCRIPT = Path(__file__).resolve().parents[2] / "contrib" / "argocd" / "health.lua"
WITHHELD = ("io", "debug", "string", "math", "coroutine", "package", "require", "dofile", "loadfile", "os", "python")


@cache
def _runtime() -> Any:
    lua = lua51.LuaRuntime(unpack_returned_tuples=True, register_eval=False, register_builtins=False)
    # Of a text, "method" calls would lead to the library of strings.
    lua.execute('debug.setmetatable("", nil)')
    for name in WITHHELD:
        lua.execute(f"{name} = nil")
    lua.execute(f"function judge(given) obj = given; {SCRIPT.read_text(encoding='utf-8')}\nend")
    return lua


def health(obj: Mapping[str, Any]) -> tuple[str, str]:
    """Return the health of a resource, and the message. A key without a value is none, as it is for Argo CD."""
    lua = _runtime()
    found = lua.globals().judge(_table(lua, obj))
    return str(found.status), str(found.message)


def _table(lua: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        return lua.table_from({key: _table(lua, one) for key, one in value.items() if one is not None})
    if isinstance(value, list | tuple):
        return lua.table_from([_table(lua, one) for one in value])
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)  # numbers of JSON are these in Go
    return value
