"""The figures of the bench: percentiles, ratios, the file's shape, the table, and which writes count."""

import io
import json
import random
from pathlib import Path

import pytest
from rich.console import Console

from localkube import bench
from localkube.controlplane import Write
from localkube.demo_stage import write_json

T0 = 1_790_000_000.0


def write(resource: str = "pods", *, subresource: str = "", user: str = bench.OPERATOR_USER, seconds: float = 0.0) -> Write:
    at = f"2026-09-21T14:13:{20 + seconds:09.6f}Z"  # T0 is 14:13:20
    return Write(user=user, verb="patch", resource=resource, subresource=subresource, namespace="default", name="acme", code=200, at=at)


@pytest.mark.parametrize(
    ("count", "share", "rank"),
    [(1, 0.5, 1), (1, 0.95, 1), (2, 0.5, 1), (3, 0.5, 2), (20, 0.95, 19), (30, 0.5, 15), (30, 0.95, 29), (100, 0.95, 95), (100, 1.0, 100)],
)
def test_a_percentile_is_the_sample_of_the_nearest_rank(count: int, share: float, rank: int) -> None:
    samples = [float(number) for number in range(1, count + 1)]
    random.Random(count).shuffle(samples)

    assert bench.percentile(samples, share) == rank


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs samples"):
        bench.percentile([], 0.5)


def test_the_file_holds_n_p50_p95_and_max_of_each_case_that_was_measured(tmp_path: Path) -> None:
    found = bench.figures({"pod-deleted": [0.05, 0.03, 0.12345678], "steady": [], "grow": [1]})
    write_json(tmp_path / "deep" / "bench.json", found)

    assert json.loads((tmp_path / "deep" / "bench.json").read_text()) == {
        "pod-deleted": {"n": 3, "p50": 0.05, "p95": 0.1235, "max": 0.1235},
        "grow": {"n": 1, "p50": 1, "p95": 1, "max": 1},
    }
    assert not list((tmp_path / "deep").glob("*.partial"))


@pytest.mark.parametrize(("seconds", "said"), [(35.0, "1.0x"), (3.92, "8.9x"), (0.1, "350x"), (0.0, "350000x")])
def test_the_ratio_to_the_baseline_is_in_times(seconds: float, said: str) -> None:
    assert bench.ratio(seconds) == said


def test_a_case_that_misses_its_goal_is_said_in_a_sentence() -> None:
    slow, quick = {"n": 30, "p50": 0.1, "p95": 0.201, "max": 0.3}, {"n": 30, "p50": 0.1, "p95": 0.2, "max": 0.9}

    assert bench.missed({"pod-deleted": slow, "container-killed": quick, "grow": slow}) == [
        "pod-deleted: p95 is 0.201 s, the goal is 0.2 s"
    ]


def test_the_table_shows_times_goals_and_ratios() -> None:
    out = io.StringIO()
    found = {
        "container-killed": {"n": 30, "p50": 0.041, "p95": 0.072, "max": 0.091},
        "leader-killed": {"n": 30, "p50": 3.9, "p95": 5.5, "max": 5.5},
        "grow": {"n": 5, "p50": 0.2, "p95": 0.4, "max": 0.4},
    }
    Console(file=out, width=160).print(bench.table(found))
    lines = {line.split()[0]: line for line in out.getvalue().splitlines() if line.strip()}

    assert " ".join(lines["container-killed"].split()).startswith("container-killed 30 41 ms 72 ms 91 ms 200 ms 486x holder's container")
    assert "5.00 s MISSED" in lines["leader-killed"]
    assert "6.4x" in lines["leader-killed"]
    assert "x " not in lines["grow"].split("shards")[0], "a resize is not compared with a failover"
    assert "pod-deleted" not in lines
    assert "\x1b" not in out.getvalue()


def test_only_the_operators_writes_in_the_window_count_and_no_events_or_leases() -> None:
    counted = [write(), write("services", seconds=1), write("whatsappclusters", subresource="status", seconds=2)]
    others = [
        write("events"),
        write("leases"),
        write(user="system:serviceaccount:kube-system:statefulset-controller"),
        write(seconds=30),
    ]

    assert bench.operator_writes([*counted, *others], T0, T0 + 10) == counted


def test_writes_until_the_report_end_with_the_first_status() -> None:
    failover = [write(), write("services"), write("whatsappclusters", subresource="status"), write(), write()]

    assert bench.until_reported(failover) == 3
    assert bench.until_reported(failover[:2]) == 2
    assert bench.spelled(failover) == "3 patch pods, 1 patch services, 1 patch whatsappclusters/status"
    assert bench.spelled([]) == "none"


def test_what_was_lost_adds_up() -> None:
    results = bench.Results()
    results.add("pod-deleted", 0.05, {"lost": 0}, (T0, T0 + 1))
    results.add("pod-deleted", 0.07, {"lost": 2}, (T0 + 5, T0 + 6))

    assert results.lost == 2
    assert results.samples == {"pod-deleted": [0.05, 0.07]}


@pytest.mark.parametrize("argv", [["--n", "0"], ["--case", "nothing"]])
def test_arguments_that_mean_nothing_are_refused(argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        bench.main(argv, root=tmp_path)

    assert end.value.code == 2
    assert "hack/bench" in capsys.readouterr().err
