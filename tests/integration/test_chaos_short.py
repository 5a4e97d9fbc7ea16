"""The short round of chaos, as the command line runs it: a handful of faults, once each, with every law kept.

Its exit status is not asked for: once is too seldom, and a machine that runs tests too crowded, to hold it to the goals in milliseconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from localkube.chaos.table import SHORT
from localkube.plane.operators import REPOSITORY
from localkube.plane.processes import Spawner, stop
from localkube.programs.binaries import Binaries

pytestmark = pytest.mark.integration

LONGEST_S = 150.0
SLACK_S = 4.0
"""Beyond a goal; a failover that takes so much longer is broken, not slow."""


def test_a_short_round_of_chaos_keeps_every_promise(binaries: Binaries, tmp_path: Path) -> None:
    assert binaries, "built before the clock runs"
    figures, log = tmp_path / "chaos.json", tmp_path / "chaos.log"
    command: list[str | Path] = [
        sys.executable,
        REPOSITORY / "hack" / "chaos",
        "--round",
        "short",
        "--dir",
        tmp_path / "stage",
        "--json",
        figures,
    ]
    spawner = Spawner(leashed=True)  # if pytest is killed, so is the round, and with it all that it started
    chaos = spawner.start("hack/chaos", command, folder=tmp_path, log=log, env=dict(os.environ))
    try:
        deadline = time.monotonic() + LONGEST_S
        while chaos.alive():
            assert time.monotonic() < deadline, f"not over after {LONGEST_S:g} s:\n{chaos.last_lines(40)}"
            time.sleep(0.1)
    finally:
        stop([chaos], grace=30.0)  # on SIGTERM it ends what it started
        spawner.close()
    said = chaos.last_lines(40)
    assert figures.exists(), said
    faults = json.loads(figures.read_text(encoding="utf-8"))["faults"]
    assert set(faults) == set(SHORT), said
    for name, found in faults.items():
        assert found["n"] >= 1, (name, said)
        assert found["sent"] > 0, (name, said)
        assert (found["lost"], found["doubled"]) == (0, 0), (name, said)
        for list_ in ("not_handed_over", "wrong_failovers", "violations", "unsettled", "troubles"):
            assert found[list_] == [], (name, said)
        assert found["failover"] or not found["evidence"], (name, said)
        assert found["max"] <= (found["goal"] or 0.0) + SLACK_S, (name, said)
