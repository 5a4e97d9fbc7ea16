"""`make mutants`: judges mutants of the core, and names the survivors that nobody has explained."""

from __future__ import annotations

import argparse
import ast
import random
import re
import sys
from pathlib import Path

import pytest

from .changes import Key
from .judge import Judge, changed, counted, sources

ROOT = Path(__file__).resolve().parents[2]
EXPLAINED = ROOT / "tests" / "unit" / "core" / "survivors.md"
ENTRY = re.compile(r"^- `(?P<function>[^`]+)`, `(?P<line>[^`]+)`: `(?P<before>[^`]+)` -> `(?P<after>[^`]+)`\. \S.+$")
TOO_SLOW = (
    "test_laws.py::test_every_law_holds_in_any_snapshot_and_would_have_caught_each_mutant",
    "test_pace.py::test_a_rule_that_goes_on_winning_has_its_cluster_observed_seldom",
)
"""They alone take longer than all others."""


def explained(text: str) -> set[Key]:
    """Return the keys of the survivors that the page explains: a heading names the module, an entry the rest. ValueError on any other."""
    module, found = "", set()
    for line in text.splitlines():
        if line.startswith("## "):
            module = line.removeprefix("## ")
        elif line.startswith("- "):
            entry = ENTRY.match(line)
            if entry is None:
                raise ValueError(f"{EXPLAINED.name}: not an explanation: {line}")
            found.add((module, entry["function"], entry["line"], entry["before"], entry["after"]))
    return found


def _arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", help="modules of the core, such as set_shards; all if none is named")
    parser.add_argument("--sample", type=int, help="so many mutants of each module, chosen by --seed")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and of random tests")
    return parser.parse_args(given)


def main(given: list[str]) -> int:
    """Return 0 if every survivor is explained, and every explanation is of a mutant that there is."""
    asked = _arguments(given)
    trees = {name: (source, ast.parse(source)) for name, source in sources(ROOT, asked.modules)}
    if unknown := {*asked.modules} - trees.keys():
        sys.exit(f"no module of the core: {', '.join(sorted(unknown))}")
    every = changed(trees)
    pick = random.Random(asked.seed)  # noqa: S311
    chosen = {
        name: found if asked.sample is None or asked.sample >= len(found) else pick.sample(found, asked.sample)
        for name, found in every.items()
    }
    known = explained(EXPLAINED.read_text(encoding="utf-8"))
    judge = Judge(ROOT, chosen, trees, known)
    # Hypothesis is imported here, before pytest can rewrite it.
    options = ["-q", "--no-header", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    options.append(f"--hypothesis-seed={asked.seed}")
    left_out = [f"--deselect=tests/unit/core/{test}" for test in TOO_SLOW]
    ended = pytest.main([*options, *left_out, "tests/unit/core"], plugins=[judge])
    if len(judge.verdicts) < sum(map(len, chosen.values())):
        return int(ended) or 2
    print(f"  all: {counted(judge.verdicts.values())}")
    left_unjudged = {mutant.key for mutants in every.values() for mutant in mutants if mutant not in judge.verdicts}
    excused = {mutant.key for mutant, verdict in judge.verdicts.items() if verdict == "explained"}
    stale = sorted(key for key in known - excused - left_unjudged if key[0] in every)
    for key in stale:
        print(f"{EXPLAINED.name} explains what is not there, or what a test notices: {key}")
    return 1 if stale or judge.survivors(judge.verdicts) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
