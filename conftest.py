"""What every tier shares: one event loop less, the order of tests on several workers, and lanes that are never skipped in silence.

Tests on real control planes mostly wait, so there are more workers than processors: two for what computes, the others for these tests. A
worker keeps the control planes that it has started, so it takes one module after the other that runs on the same, the longest first
(``--no-loadscope-reorder`` keeps this order). A worker without work of its own kind takes any.

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
from itertools import islice, takewhile
from pathlib import Path
from typing import TypeVar

import pytest
from xdist.scheduler import LoadScopeScheduling

KINDS = {"integration": "planes", "conformance": "planes", "browser": "planes"}
"""By folder: of which kind its modules are, unless they share the operators' control plane; all others compute."""
PLANES = ("operators", "planes")
COMPUTING_WORKERS = 2
TOGETHER = {"charts": "charts", "images": "charts", "release": "charts"}
"""By folder: the group of its tests, all of which one worker runs, since they share what takes long to make."""
LONGEST = (
    "test_set_shards_table.py",
    "test_leader.py",
    "test_plugin.py",
    "test_operator_resize.py",
    "test_operator_failover.py",
    "test_operator_lifecycle.py",
    "test_documented_commands.py",
    "test_chaos_short.py",
)
"""What begins first, so that no worker is left alone with it in the end."""
SHARES_OPERATORS = re.compile(r"\b(environment: Environment|harness: Harness)[,)]")
"""What a module has whose tests take part in the operators' control plane."""
LANES = {
    "PostgreSQL": "ALLOW_SKIP_POSTGRES",
    "Prometheus": "ALLOW_SKIP_PROMETHEUS",
    "root": "ALLOW_SKIP_ROOT",
    "browser": "ALLOW_SKIP_BROWSER",
}
GARBAGE = (20_000, 20, 50)
"""Thresholds of the garbage collector, as the operator itself sets them. By default it takes a twentieth of the time of all tests."""
BUSY = {"GOMAXPROCS": "1", "GOGC": "400"}
"""For the control planes of workers. While all processors are busy, more threads and frequent garbage collection cost a seventh."""
GAVE_WAY = pytest.StashKey[bool]()
R = TypeVar("R", pytest.TestReport, pytest.CollectReport)


@pytest.fixture(autouse=True, scope="session")
def _no_stray_event_loop() -> None:
    """On CPython 3.11 pytest-asyncio's first runner finds a loop made on the side, which nobody closes; warnings are errors here."""
    asyncio.set_event_loop(None)


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Gives all tests of a group or module to one worker, and to each worker first what is of its kind.

    pytest-xdist's own ``loadgroup`` puts the group into a test's id, which pytest 9.2 no longer lets it change.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.split("::", maxsplit=1)[0]
        path = self.config.rootpath / module
        return TOGETHER.get(path.parent.name) or (module if _kind_of(path) else nodeid)

    def _assign_work_unit(self, node: object) -> None:
        on_planes = [*takewhile(self._kind, self.workqueue)]
        first = {self._kind(scope): scope for scope in reversed(on_planes)}
        first[""] = next(islice(self.workqueue, len(on_planes), None), "")
        self.workqueue.move_to_end(next(filter(None, map(first.get, self._kinds(node)))), last=False)
        super()._assign_work_unit(node)

    def mark_test_complete(self, node: object, item_index: int, duration: float = 0) -> None:
        """Forget a worker's groups that are over: after each test all groups that it ever had are counted."""
        super().mark_test_complete(node, item_index, duration)
        self.assigned_work[node] = {scope: tests for scope, tests in self.assigned_work[node].items() if not all(tests.values())}

    def _kind(self, scope: str) -> str:
        return _kind_of(self.config.rootpath / scope)

    def _kinds(self, node: object) -> tuple[str, ...]:
        """Of which kind a worker's work is to be, the best first."""
        place = self.nodes.index(node) - COMPUTING_WORKERS
        return ("", *PLANES) if place < 0 else (*PLANES[place % 2 :], *PLANES[: place % 2], "")


def pytest_configure() -> None:
    """Let Ctrl-C reach the programs that tests start: a shell's background ignores it, and what it starts inherits that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.set_threshold(*GARBAGE)
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.update(BUSY)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> GroupScheduling:
    """Let pytest-xdist schedule by groups."""
    return GroupScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long first, and what judges other tests last."""
    items.sort(key=_place)


def pytest_collection_finish() -> None:
    """Let the garbage collector leave alone what was imported and collected: it stays to the end."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let a worker whose tests compute give way to those whose tests measure times on a real cluster."""
    computes = not _kind_of(item.path) and item.path.parent.name not in TOGETHER
    if "PYTEST_XDIST_WORKER" in os.environ and computes and not item.config.stash.get(GAVE_WAY, False):
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


@cache
def _kind_of(module: Path) -> str:
    """The kind of a module; empty: it computes. One that is taken for the wrong one of ``PLANES`` costs another control plane, no more."""
    kind = KINDS.get(module.parent.name, "")
    return "operators" if kind and SHARES_OPERATORS.search(module.read_text(encoding="utf-8")) else kind


def _place(item: pytest.Item) -> int:
    """The place of a test among all: what runs on control planes, then what takes long, then the others, then what judges them."""
    if item.get_closest_marker("last"):
        return 5
    if _kind_of(item.path):
        return 0 if item.path.name in LONGEST else 1
    folder = item.path.parent.name
    takes_long = folder == "simulation" or item.get_closest_marker("slow")
    return 2 if folder in TOGETHER else 3 if takes_long else 4


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
