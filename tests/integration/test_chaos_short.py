"""The short round of chaos, as the command line runs it: a handful of faults, once each, with every goal and law kept."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from localkube.binaries import Binaries
from localkube.chaos_table import SHORT
from localkube.operators import REPOSITORY
from localkube.processes import Spawner, stop

pytestmark = pytest.mark.integration

LONGEST_S = 150.0


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
        stop([chaos], grace=30.0)  # it ends what it started
        spawner.close()
    said = chaos.last_lines(40)
    assert chaos.exit_text() == "exited with status 0", said
    faults = json.loads(figures.read_text(encoding="utf-8"))["faults"]
    assert set(faults) == set(SHORT)
    for name, found in faults.items():
        assert found["n"] >= 1, (name, said)
        assert found["sent"] > 0, (name, said)
        assert (found["lost"], found["doubled"], found["wrong_failovers"], found["violations"]) == (0, 0, [], []), (name, said)
