"""The short round of chaos, as the command line runs it: a handful of faults, once each, with every law kept.

Its exit status is not asked for: once is too seldom, and a machine that runs tests too crowded, to hold it to the goals in milliseconds.
Asked for is the evidence, and a bound on each time: what is decided at once must not have decayed to the path over the probes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from localkube.plane.operators import REPOSITORY
from localkube.plane.processes import start, stop
from localkube.programs.binaries import Binaries
from localkube.scenarios.faults.hollow import SHORT
from localkube.scenarios.runner.judge import UNREPORTED

pytestmark = pytest.mark.integration

LONGEST_S = 400.0
"""Only a round that hangs takes so long, also on a busy machine; the times of its faults have bounds of their own."""


def test_a_short_round_of_chaos_keeps_every_promise(binaries: Binaries, tmp_path: Path) -> None:
    assert binaries, "built before the clock runs"
    figures, log = tmp_path / "chaos.json", tmp_path / "chaos.log"
    options: list[str | Path] = ["--dir", tmp_path / "environment", "--json", figures]
    command = [sys.executable, REPOSITORY / "hack" / "chaos", "--only", ",".join(SHORT), "--n", "1", "--clusters", "2", *options]
    # If pytest is killed, so is the round, and with it all that it started.
    chaos = start("hack/chaos", command, folder=tmp_path, log=log, env=dict(os.environ))
    try:
        deadline = time.monotonic() + LONGEST_S
        while chaos.alive():
            assert time.monotonic() < deadline, f"not over after {LONGEST_S:g} s:\n{chaos.last_lines(40)}"
            time.sleep(0.1)
    finally:
        stop([chaos], grace=30.0)  # on SIGTERM it ends what it started
    said = chaos.last_lines(40)
    assert figures.exists(), said
    found = json.loads(figures.read_text(encoding="utf-8"))
    faults = found["faults"]
    assert set(faults) == set(SHORT), said
    assert [text for text in found["complaints"] if text not in found["missed"]] == [], said
    for name, one in faults.items():
        assert one["n"], (name, one, said)
        assert one["sent"], (name, one, said)
        assert UNREPORTED not in one["evidence"], (name, one, said)
        assert one["max"] <= one["bound"], (name, one, said)
    assert faults["holder-partitioned"]["upstream"]["replaced"] > 0, "two connections of one shard met at the WhatsApp servers"
    for cluster, ledger in found["ledgers"].items():
        assert ledger["sent"] == ledger["delivered"] > 0, (cluster, ledger, said)
        assert (ledger["totals"]["doubled"], ledger["totals"]["below_epoch"], ledger["totals"]["overlaps"]) == (0, 0, 0), (cluster, said)
