"""A plugin for pytest that runs no session of tests, but each mutant against the tests that reach what it changes."""

from __future__ import annotations

import ast
import gc
import hashlib
import importlib
import json
import os
import re
import resource
import signal
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from types import ModuleType
from typing import Any

import coverage
import pytest
from _pytest.runner import runtestprotocol
from hypothesis import HealthCheck, Phase, is_hypothesis_test, settings

from .changes import Key, Mutant, mutants
from .swap import Functions, functions, put_functions, put_statement

PACKAGE = "whatsapp_operator.core"
KILLED, SURVIVED, INVALID = 1, 0, 3
"""How a mutant's process ends. Invalid: it could not be put in place, or changes nothing."""

EXAMPLES = 20
JOBS = os.cpu_count() or 1
SECONDS = 10.0
"""Of tests for each mutant, the best first."""
AGAIN = 6
"""A survivor is asked again with so many times the seconds: which tests come first depends on what each cost when it was learned."""


@dataclass
class LineCoverage:
    """Which tests reach which line, and what each one costs in seconds of the processor."""

    cost: dict[str, float] = field(default_factory=dict)
    reach: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    """By module and line."""

    def add(self, test: str, cost: float, lines: dict[str, list[int]]) -> None:
        """Note what a test cost, and the lines of each module that it ran."""
        self.cost[test] = cost
        for module, numbers in lines.items():
            for number in numbers:
                self.reach[module, number].add(test)

    def of(self, mutant: Mutant, seconds: float) -> list[str]:
        """Return the tests that reach a mutant, those named for its module first, then the cheapest, for so many seconds.

        One outside of functions is reached by all tests of its module, and by those in the files that are named for it; those that run most
        lines of its entry of a table come first.
        """
        first, last = mutant.span
        is_named = re.compile(rf"/test_{mutant.module.rpartition('.')[2]}(_\w+)?\.py::").search
        if mutant.is_in_function:
            near = self._running(mutant.module, first, last) or self._running(mutant.module, mutant.statement.lineno)
            found = {*near}
        else:
            near = self._running(mutant.module, *_entry(mutant))
            found = set().union(*(tests for (module, _), tests in self.reach.items() if module == mutant.module))
            found = {*found, *filter(is_named, self.cost)} or {*self.cost}
        best = sorted(found, key=lambda test: (0 if mutant.is_in_function else -near[test], not is_named(test), self.cost[test], test))
        return self._affordable(best, seconds)

    def _running(self, module: str, first: int, last: int | None = None) -> Counter[str]:
        """Return the tests that run some of these lines of a module, with how many of them each one runs."""
        return Counter(test for line in range(first, (last or first) + 1) for test in self.reach.get((module, line), ()))

    def _affordable(self, tests: list[str], seconds: float) -> list[str]:
        total = 0.0
        taken: list[str] = []
        for test in tests:
            total += self.cost[test]
            if taken and total > seconds:
                break
            taken.append(test)
        return taken


def _entry(mutant: Mutant) -> tuple[int, int]:
    """Return the first and last line of the innermost call with keywords around a mutant: an entry of a table; or its own lines."""
    first, last = mutant.span
    calls = (node for node in ast.walk(mutant.statement) if isinstance(node, ast.Call) and node.keywords)
    spans = ((node.lineno, node.end_lineno or node.lineno) for node in calls)
    around = [span for span in spans if span[0] <= first and last <= span[1]]
    return min(around, key=lambda span: span[1] - span[0], default=mutant.span)


@dataclass
class Judge:
    """Judges the mutants of the chosen modules; ``verdicts`` has what became of each."""

    root: Path
    chosen: dict[str, list[Mutant]]
    trees: dict[str, tuple[str, ast.Module]]
    explained: set[Key]
    """Survivors that are known, and are not asked again."""
    verdicts: dict[Mutant, str] = field(default_factory=dict)
    running: dict[int, Mutant] = field(default_factory=dict)

    def pytest_configure(self) -> None:
        """Random tests search no further once they failed."""
        phases = [Phase.explicit, Phase.generate]
        settings.register_profile("mutants", database=None, deadline=None, phases=phases, suppress_health_check=[*HealthCheck])
        settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Random tests try few examples, else they cost more than all others together."""
        for item in items:
            test: Any = getattr(item, "obj", None)
            if is_hypothesis_test(test):
                own = test._hypothesis_internal_use_settings  # noqa: SLF001  there is no other way
                test._hypothesis_internal_use_settings = settings(own, max_examples=min(own.max_examples, EXAMPLES))  # noqa: SLF001

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Learn what the tests reach, then judge."""
        tests = self._learn(session)
        items = {item.nodeid: item for item in session.items}
        known = functions(PACKAGE)
        if not known:
            pytest.exit("no function of the core was found, so no change in one can take effect", returncode=2)
        gc.collect()
        gc.freeze()
        for module, found in self.chosen.items():
            self._judge(found, SECONDS, tests, items, known)
            survivors = self.survivors(found)
            self.verdicts |= {mutant: "explained" for mutant in survivors if mutant.key in self.explained}
            self._judge(self.survivors(found), SECONDS * AGAIN, tests, items, known)
            print(f"  {module}: {counted(self.verdicts[mutant] for mutant in found)}", flush=True)
            for mutant in self.survivors(found):
                print(f"  {module}.py:{mutant.span[0]}: no test tells\n- {mutant}", flush=True)
        return True

    def survivors(self, found: Iterable[Mutant]) -> list[Mutant]:
        """Return those of the judged mutants that no test noticed, and that nobody has explained."""
        return [mutant for mutant in found if self.verdicts[mutant] in {"survived", "unreached"}]

    def _judge(self, found: list[Mutant], seconds: float, tests: LineCoverage, items: dict[str, pytest.Item], known: Functions) -> None:
        """Judge mutants by tests of so many seconds each, several at once."""
        for mutant in found:
            while len(self.running) >= JOBS:
                self._reap()
            self._start(mutant, [items[test] for test in tests.of(mutant, seconds)], known, seconds)
        while self.running:
            self._reap()

    # --- what reaches what ---

    def _learn(self, session: pytest.Session) -> LineCoverage:
        """Run each test once with coverage; of test files that are as they were at the last time, read what was learned then."""
        path = self.root / "build" / "mutants" / "tests.json"
        stored = json.loads(path.read_text()) if path.exists() else {}
        by_file: dict[Path, list[pytest.Item]] = defaultdict(list)
        for item in session.items:
            by_file[item.path].append(item)
        support = [file for file in self.root.glob("tests/unit/core/*.py") if not file.name.startswith("test_")]
        common = self._digest([*self.root.glob("operator/whatsapp_operator/core/**/*.py"), *support])
        tests = LineCoverage()
        kept: dict[str, dict[str, list[Any]]] = {}
        for file, items in by_file.items():
            digest = common + self._digest([file])
            if digest not in stored:
                print(f"  learning what {file.name} reaches", flush=True)
                stored[digest] = self._reached(items)
                self._keep(path, stored)
            kept[digest] = stored[digest]
            for item in items:
                tests.add(item.nodeid, *kept[digest][item.nodeid])
        self._keep(path, kept)
        return tests

    @staticmethod
    def _keep(path: Path, learned: dict[str, dict[str, list[Any]]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(learned))

    @staticmethod
    def _digest(paths: list[Path]) -> str:
        return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(paths))).hexdigest()[:16]

    @staticmethod
    def _reached(items: list[pytest.Item]) -> dict[str, list[Any]]:
        """Return what each test cost, and the lines that it ran, by module."""
        measure = coverage.Coverage(data_file=None, include=["*/whatsapp_operator/core/*"], config_file=False, messages=False)
        found: dict[str, list[Any]] = {}
        measure.start()
        for item in items:
            measure.switch_context(item.nodeid)
            began = process_time()
            failed = _fails(item)
            found[item.nodeid] = [round(process_time() - began, 4), defaultdict(list)]
            if failed:
                measure.stop()
                pytest.exit(f"{item.nodeid} fails without any change", returncode=2)
        measure.stop()
        with warnings.catch_warnings(action="ignore"):
            data = measure.get_data()
        for file in data.measured_files():
            module = file.rpartition(f"{os.sep}core{os.sep}")[2].removesuffix(".py").replace(os.sep, ".")
            for line, tests in data.contexts_by_lineno(file).items():
                for test in tests:
                    if test in found:
                        found[test][1][module].append(line)
        return found

    # --- one mutant ---

    def _start(self, mutant: Mutant, items: list[pytest.Item], known: Functions, seconds: float) -> None:
        if not items:
            self.verdicts[mutant] = "unreached"
            return
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            self.running[pid] = mutant
            return
        code = INVALID
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            limit = int(seconds * 3) + 10
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
            resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
            if self._put(mutant, known):
                code = KILLED if any(_fails(item) for item in items) else SURVIVED
        finally:
            os._exit(code)

    def _put(self, mutant: Mutant, known: Functions) -> int:
        module: ModuleType = importlib.import_module(f"{PACKAGE}.{mutant.module}")
        source, tree = self.trees[mutant.module]
        file = str(module.__file__)
        before = compile(source, file, "exec", dont_inherit=True)
        mutant.apply()
        if not mutant.is_in_function:
            return put_statement(module, mutant.statement, ast.fix_missing_locations(tree))
        return put_functions(before, compile(ast.fix_missing_locations(tree), file, "exec", dont_inherit=True), known)

    def _reap(self) -> None:
        pid, status = os.waitpid(-1, 0)
        mutant = self.running.pop(pid, None)
        if mutant is None:
            return
        if os.WIFSIGNALED(status):
            self.verdicts[mutant] = "timeout" if os.WTERMSIG(status) in {signal.SIGXCPU, signal.SIGKILL} else "killed"
        else:
            self.verdicts[mutant] = {KILLED: "killed", SURVIVED: "survived"}.get(os.WEXITSTATUS(status), "invalid")


def _fails(item: pytest.Item) -> bool:
    return any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))


def counted(verdicts: Iterable[str]) -> str:
    """Return how many mutants there are, and how many of each verdict."""
    counts = Counter(verdicts)
    return ", ".join([f"{counts.total()} mutants", *(f"{number} {verdict}" for verdict, number in counts.most_common())])


def sources(root: Path, names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the modules of the core with their text; all, or those that are named."""
    core = root / "operator" / "whatsapp_operator" / "core"
    for path in sorted(core.rglob("*.py")):
        name = ".".join(path.relative_to(core).with_suffix("").parts)
        if name.rpartition(".")[2] != "__init__" and (not names or name in names):
            yield name, path.read_text(encoding="utf-8")


def changed(modules: dict[str, tuple[str, ast.Module]]) -> dict[str, list[Mutant]]:
    """Return all mutants of these modules."""
    return {name: mutants(name, source, tree) for name, (source, tree) in modules.items()}
