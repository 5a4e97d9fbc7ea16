"""The map in the operator's docstring names just the modules that there are."""

from __future__ import annotations

import re
from pathlib import Path

import whatsapp_operator


def test_the_map_is_the_tree() -> None:
    root = Path(whatsapp_operator.__file__).parent
    modules = {".".join(path.relative_to(root).with_suffix("").parts) for path in root.rglob("*.py") if path.name != "__init__.py"}
    named = set(re.findall(r"^- ``([\w.]+)``", whatsapp_operator.__doc__ or "", flags=re.MULTILINE))

    assert modules == named
