"""What every tier shares: one event loop less, the order of tests on several workers, and lanes that are never skipped in silence.

Tests on real control planes form two groups, each of which one worker runs, in order: those that share the operators' control plane, and
the others. More of them at a time would be too much for two processors. They begin first, for they take longest and mostly wait; the other
workers fill the processors meanwhile (``--no-loadscope-reorder`` keeps this order).

A test that cannot run on this machine is skipped with the reason ``lane <name>: <why and what helps>``. The last lines of the output say
which lanes were skipped. In CI (the variable CI is set) nothing is skipped: a skip is a failure, unless the variable of its lane is 1.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
from collections import Counter
from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest
from xdist.scheduler import LoadScopeScheduling

GROUPS = {
    "integration": "planes",
    "conformance": "planes",
    "charts": "charts",
    "images": "charts",
    "release": "charts",
    "browser": "planes",
}
"""By folder: the group of its tests, unless they share the operators' control plane."""
SHARES_OPERATORS = re.compile(r"\b(environment: Environment|harness: Harness)[,)]")
"""What a module has whose tests take part in the operators' control plane."""
LANES = {
    "PostgreSQL": "ALLOW_SKIP_POSTGRES",
    "Prometheus": "ALLOW_SKIP_PROMETHEUS",
    "root": "ALLOW_SKIP_ROOT",
    "browser": "ALLOW_SKIP_BROWSER",
}
GAVE_WAY = pytest.StashKey[bool]()
R = TypeVar("R", pytest.TestReport, pytest.CollectReport)


@pytest.fixture(autouse=True, scope="session")
def _no_stray_event_loop() -> None:
    """On CPython 3.11 pytest-asyncio's first runner finds a loop made on the side, which nobody closes; warnings are errors here."""
    asyncio.set_event_loop(None)


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Gives all tests of a group to one worker, and every other test to the next worker that is free.

    pytest-xdist's own ``loadgroup`` puts the group into a test's id, which pytest 9.2 no longer lets it change.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _group_of(self.config.rootpath / nodeid.split("::", maxsplit=1)[0]) or nodeid


def pytest_configure() -> None:
    """Let Ctrl-C reach the programs that tests start: a shell's background ignores it, and what it starts inherits that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> GroupScheduling:
    """Let pytest-xdist schedule by groups."""
    return GroupScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the groups first, and what judges other tests last."""
    items.sort(key=_place)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let a worker without a group give way to those whose tests measure times on a real cluster."""
    if "PYTEST_XDIST_WORKER" in os.environ and not _group(item) and not item.config.stash.get(GAVE_WAY, False):
        item.config.stash[GAVE_WAY] = True
        os.nice(5)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let no test be skipped in CI.

    To show a failure pytest parses source. If the garbage collector runs Python code meanwhile, CPython 3.11 raises SystemError ("AST
    constructor recursion depth mismatch"), which would end the whole run.
    """
    gc.disable()
    try:
        return _judged((yield))
    finally:
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Let no module be skipped in CI."""
    return _judged((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None]:
    """Say below all else which lanes were skipped."""
    yield
    skipped = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", ()))
    for reason, times in sorted(skipped.items()):
        tests = f"{times} test{'s' if times > 1 else ''}"
        name, why = _lane(reason)
        terminalreporter.write_line(f"SKIPPED LANE {name}, {tests}: {why}" if name else f"SKIPPED {tests}: {why}", yellow=True)


def _group(item: pytest.Item) -> str:
    """The group of a test; empty: any worker may run it."""
    return _group_of(item.path)


@cache
def _group_of(module: Path) -> str:
    """The group of a module's tests. One that is taken for the wrong one of two costs another control plane, and nothing else."""
    group = GROUPS.get(module.parent.name, "")
    return "operators" if group == "planes" and SHARES_OPERATORS.search(module.read_text(encoding="utf-8")) else group


def _place(item: pytest.Item) -> int:
    """The place of a test among all: groups, then cases that take long, then the others, then what judges them."""
    if item.get_closest_marker("last"):
        return 3
    takes_long = item.path.parent.name == "simulation" or item.get_closest_marker("slow")
    return {"operators": 0, "planes": 0, "charts": 1, "": 1 if takes_long else 2}[_group(item)]


def _judged(report: R) -> R:
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI", "") not in {"", "0", "false"}:
        reason = _reason(report)
        variable = LANES.get(_lane(reason)[0])
        if variable is None or os.environ.get(variable) != "1":
            report.outcome = "failed"
            report.longrepr = f"in CI nothing is skipped{f', unless {variable}=1' if variable else ''}: {reason}"
    return report


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _lane(reason: str) -> tuple[str, str]:
    """The lane and why it is skipped; the lane is empty if it is none."""
    found = re.fullmatch(r"lane (\S+): (.*)", reason, re.DOTALL)
    return (found[1], found[2]) if found else ("", reason)
