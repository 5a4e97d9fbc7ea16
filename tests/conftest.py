"""What every tier shares: one event loop less, and lanes that are never skipped in silence.

A test that cannot run on this machine is skipped with the reason ``lane <name>: <why and what helps>``. The last lines of the output say
which lanes were skipped. In CI (the variable CI is set) nothing is skipped: a skip is a failure, unless the variable of its lane is 1.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from collections.abc import Generator
from typing import TypeVar

import pytest

LANES = {"PostgreSQL": "ALLOW_SKIP_POSTGRES", "root": "ALLOW_SKIP_ROOT"}
R = TypeVar("R", pytest.TestReport, pytest.CollectReport)


@pytest.fixture(autouse=True, scope="session")
def _no_stray_event_loop() -> None:
    """On CPython 3.11 pytest-asyncio's first runner finds a loop made on the side, which nobody closes; warnings are errors here."""
    asyncio.set_event_loop(None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let no test be skipped in CI."""
    return _judged((yield))


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
