"""The maps in the docstrings of the operator, of the simulator and of the tooling name just the modules that there are."""

from __future__ import annotations

import re
from pathlib import Path

import localkube
import wabiz_sim
import whatsapp_operator


def test_the_map_is_the_tree() -> None:
    root = Path(whatsapp_operator.__file__).parent
    modules = {".".join(path.relative_to(root).with_suffix("").parts) for path in root.rglob("*.py") if path.name != "__init__.py"}
    named = set(re.findall(r"^- ``([\w.]+)``", whatsapp_operator.__doc__ or "", flags=re.MULTILINE))

    assert modules == named


def test_the_map_of_the_simulator_is_the_tree() -> None:
    modules = {path.name for path in Path(wabiz_sim.__file__).parent.glob("*.py") if path.name != "__init__.py"}
    named = set(re.findall(r"^    (\w+\.py)  ", wabiz_sim.__doc__ or "", flags=re.MULTILINE))

    assert modules == named


def test_the_map_of_the_tooling_is_the_tree() -> None:
    there = {path.stem for path in Path(localkube.__file__).parent.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}

    assert there - {"__init__"} == set(re.findall(r"``(\w+)``", localkube.__doc__ or ""))
