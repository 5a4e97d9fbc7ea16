"""Set Shards cannot go wrong: each row of the table on a real API server, with the real operator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from localkube.plane.controlplane import ControlPlane
from localkube.programs.binaries import Binaries

from .environment import selected
from .set_shards_cases import CASES, LANES
from .set_shards_environment import LaneHarness, Suite

pytestmark = pytest.mark.integration
ALL_SECONDS = 900.0
"""Within so many seconds the whole table is played."""


@pytest.fixture(scope="module")
def suite(request: pytest.FixtureRequest, binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """All selected cases, being played."""
    chosen = selected(request, "case")
    cases = [case for case in CASES if case.name in chosen]
    used = {case.lane for case in cases}
    folder = tmp_path_factory.mktemp("set-shards")
    plane = ControlPlane.start(folder / "plane", binaries=binaries, audit_log=True)
    lane_harness = LaneHarness(plane, folder, [lane for lane in LANES if lane.name in used])
    try:
        lane_harness.start()
        suite = Suite(lane_harness, cases)
        suite.start()
        yield suite
        suite.end()
    finally:
        lane_harness.close()
        plane.stop()


@pytest.mark.parametrize("case", [case.name for case in CASES])
def test_set_shards(suite: Suite, case: str) -> None:
    print(f"{case} took {suite.outcomes[case].result(ALL_SECONDS):.1f} s")


@pytest.mark.parametrize("lane", [lane.name for lane in LANES])
def test_no_law_was_broken_in(suite: Suite, lane: str) -> None:
    if lane not in suite.checks:
        pytest.skip("no case of this lane was selected")
    suite.checks[lane].result(ALL_SECONDS)
