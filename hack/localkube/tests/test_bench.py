"""The figures of the bench: the file's shape, the table, which writes count, and what resizes cost senders."""

import itertools
import json
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from localkube.errors import LocalKubeError
from localkube.files import write_json
from localkube.plane.controlplane import Write
from localkube.scenarios import cost
from localkube.scenarios.bench import failovers
from localkube.scenarios.faults import resize
from localkube.scenarios.faults.hollow import named
from localkube.scenarios.runner.player import Outcome
from outside.ledger import Ledger
from outside.traffic import Message
from wabiz_sim.gatewaylog import Totals
from wabiz_sim.sharding import shard_of

ROOT = Path(__file__).resolve().parents[3]
T0 = 1_790_000_000.0


def write(resource: str = "pods", *, subresource: str = "", user: str = cost.OPERATOR_USER, seconds: float = 0.0) -> Write:
    at = f"2026-09-21T14:13:{20 + seconds:09.6f}Z"  # T0 is 14:13:20
    return Write(user=user, verb="patch", resource=resource, subresource=subresource, namespace="default", name="acme", code=200, at=at)


def test_the_file_holds_n_p50_and_max_of_each_case_that_was_measured_and_p95_from_forty_on() -> None:
    found = failovers.figures({"pod-deleted": [0.05, 0.03, 0.12345678], "steady": [], "grow-2-4": [1.0] * 40}, {})

    assert list(found) == ["pod-deleted", "grow-2-4"]
    assert {name: found["pod-deleted"].get(name) for name in ("n", "p50", "p95", "max", "met", "judged_by")} == {
        "n": 3, "p50": 0.05, "p95": None, "max": 0.1235, "met": True, "judged_by": "max",
    }  # fmt: skip
    assert (found["grow-2-4"]["p95"], found["grow-2-4"]["judged_by"], "ratio" in found["grow-2-4"]) == (1.0, "p95", False)


def test_a_file_is_written_in_one_step(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "bench.json", {"n": 1})

    assert json.loads((tmp_path / "deep" / "bench.json").read_text()) == {"n": 1}
    assert not list((tmp_path / "deep").glob("*.partial"))


def test_a_case_that_misses_its_goal_is_said_in_a_sentence() -> None:
    samples = {"pod-deleted": [0.1] * 29 + [0.3], "container-killed": [0.1] * 49 + [0.9], "grow": [9.0]}

    assert failovers.missed(samples, {}) == ["pod-deleted: max is 0.300 s, the goal is 0.2 s (n = 30)"]


# ------------------------------------------------------------------------------------------------------------ the end


class Results(failovers.Results):
    """Of a run in which all was well."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes["pod-deleted"] = Outcome("pod-deleted", times=[0.05])
        self.windows["pod-deleted"] = [(T0 - 90, T0 - 80)]
        self.windows["steady"] = [(T0, T0 + 60)]
        self.ledger = Ledger(sent=10, delivered=10)


def ended(
    results: failovers.Results, writes: list[Write], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Exit status and standard error of a bench that measured this."""

    class Harness:
        plane = SimpleNamespace(writes=lambda: writes)

        def __init__(self, *_: object, **__: object) -> None:
            """Nothing runs."""

        def running(self) -> AbstractContextManager[None]:
            return nullcontext()

    async def measure(*_: object) -> failovers.Results:
        return results

    monkeypatch.setattr(failovers, "Harness", Harness)
    monkeypatch.setattr(failovers, "measure", measure)
    status = failovers.main(["--out", str(tmp_path / "bench.json")], root=ROOT)
    return status, capsys.readouterr().err


def test_all_well_ends_well_and_the_file_says_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(Results(), [], tmp_path, monkeypatch, capsys) == (0, "")
    run = json.loads((tmp_path / "bench.json").read_text())["run"]
    assert set(run) == {"commit", "date", "command", "machine", "load"}
    assert run["command"] == "hack/bench --out bench.json", "no folder of this machine"


def test_a_write_while_nothing_happens_fails_the_bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "hack/bench: steady: 1 writes in 60 s though nothing happened (1 patch pods), the goal is none\n"
    assert ended(Results(), [write(seconds=30)], tmp_path, monkeypatch, capsys) == (1, said)


@pytest.mark.parametrize(
    ("ledger", "word"),
    [
        (Ledger(sent=10, delivered=9, lost=1), "1 messages were lost"),
        (Ledger(sent=10, delivered=10, totals=Totals(delivered=10, doubled=1)), "1 messages were doubled"),
        (Ledger(sent=10, delivered=10, totals=Totals(delivered=10, below_epoch=1)), "from a holder that had been replaced"),
        (Ledger(sent=10, delivered=10, totals=Totals(delivered=10, overlaps=1)), "two connections of one shard were accepted at once"),
        (Ledger(sent=10, delivered=10, strangers=1), "under ids that no sender of this run used"),
        (None, "no message was counted"),
    ],
)
def test_what_may_not_be_in_the_ledger_fails_the_bench(
    ledger: Ledger | None, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results()
    results.ledger = ledger
    status, said = ended(results, [], tmp_path, monkeypatch, capsys)
    assert (status, word in said) == (1, True)


def test_a_failure_fails_the_bench_and_is_one_of_n(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results()
    results.outcomes["pod-deleted"].not_handed_over.append("shard 0 of acme")
    status, said = ended(results, [], tmp_path, monkeypatch, capsys)

    assert status == 1
    assert "pod-deleted: 1 of 2 failed, the goal is max 0.2 s" in said
    written = json.loads((tmp_path / "bench.json").read_text())["cases"]["pod-deleted"]
    assert (written["n"], written["failures"], written["max"], written["met"]) == (2, 1, None, False)


def test_a_broken_law_fails_the_bench_and_its_figures_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results()
    results.broken = ["a law was broken: one holder: two pods match"]
    said = "hack/bench: a law was broken: one holder: two pods match\n"
    assert ended(results, [], tmp_path, monkeypatch, capsys) == (1, said)
    assert json.loads((tmp_path / "bench.json").read_text())["complaints"] == ["a law was broken: one holder: two pods match"]


def test_too_much_memory_at_the_start_fails_the_bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results()
    results.memory = {"no-cluster": cost.START_GOAL_MIB, "one-cluster": cost.START_GOAL_MIB + 1}
    status, said = ended(results, [], tmp_path, monkeypatch, capsys)

    assert (status, said.count("memory")) == (1, 1)
    assert "one cluster of 2 shards and 1 spare" in said


def test_an_operator_begins_within_what_the_chart_requests_for_it() -> None:
    values = yaml.safe_load((ROOT / "charts" / "whatsapp-operator" / "values.yaml").read_text(encoding="utf-8"))
    assert values["resources"]["requests"]["memory"] == f"{cost.START_GOAL_MIB:g}Mi"


def test_what_the_ended_leader_did_itself_is_not_counted_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results()
    results.outcomes["leader-terminated"] = Outcome("leader-terminated", notes=["op-0 still did"] * 3)
    assert ended(results, [], tmp_path, monkeypatch, capsys) == (0, "")
    assert json.loads((tmp_path / "bench.json").read_text())["cases"]["leader-terminated"]["not_counted"]["times"] == 3


async def played(name: str, *cases: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> failovers.Results:
    """What a bench makes of plays of a case of which this comes: fields of its outcome."""

    class Player:
        def __class_getitem__(cls, _: object) -> type:
            return cls

        def __init__(self, *_: object, **__: object) -> None:
            """It plays on nothing."""

        async def play_in_turn(self, _: object) -> list[Outcome]:
            found = Outcome(name)
            for case in cases:
                for field, value in case.items():
                    setattr(found, field, getattr(found, field) + value)
            return [found]

    monkeypatch.setattr(failovers, "Player", Player)
    environment: Any = SimpleNamespace()
    bench = failovers.Bench(environment, n=sum("times" in case or "not_handed_over" in case for case in cases), resizes=1)
    await bench._fail_over(replace(named("pod-deleted")[0], name=name))
    return bench.results


WINDOW = (T0, T0 + 1)
TOOK: dict[str, Any] = {"times": [0.15], "samples": [{"took": 0.15, "window": WINDOW}], "evidence": Counter({"PodDeleted": 1})}


async def test_a_shard_that_is_not_handed_over_is_one_of_n(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = {"not_handed_over": ["shard 0 of acme"], "samples": [{"took": None, "window": WINDOW}]}
    results = await played("pod-deleted", failed, TOOK, monkeypatch=monkeypatch)
    assert (results.failures, results.samples) == ({"pod-deleted": 1}, {"pod-deleted": [0.15]})
    assert results.broken == ["pod-deleted: 1 of 2 shards not handed over within 30 s"]
    assert len(results.windows["pod-deleted"]) == 2, "what a failure wrote counts, too"


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("container-killed", {"resumed": [0.9], "samples": [{"took": None, "resumed": 0.9, "window": WINDOW}]}),
        ("leader-terminated", {"notes": ["op-0 still did"]}),
    ],
)
async def test_what_something_else_did_is_no_failover_and_is_counted_apart(
    name: str, other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = await played(name, other, TOOK, other, monkeypatch=monkeypatch)
    assert results.samples == {name: [0.15]}
    assert (results.not_counted, results.broken) == ({name: 2}, [])
    assert results.windows[name] == [WINDOW], "what the others wrote is not counted"


async def test_a_wrong_failover_and_strange_evidence_fail_the_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = TOOK | {"wrong_failovers": ["shard 1 of acme"], "evidence": Counter({"ProbeTimeout": 1})}
    said = " ".join(failovers.complaints_of(await played("pod-deleted", wrong, monkeypatch=monkeypatch), {}))
    assert "1 wrong failovers: shard 1 of acme" in said
    assert "evidence ProbeTimeout is not what was to be seen" in said


def test_every_case_of_a_failover_is_a_fault_with_a_goal() -> None:
    goals = {case.name: case.goal for case in failovers.CASES if case.baseline}
    assert {fault.name for fault in failovers.faults([])} == set(goals)
    assert all(fault.goal in {None, goals[fault.name]} for fault in failovers.faults([])), "the goal that chaos has for it, too"


def test_only_the_operators_writes_in_the_window_count_and_no_events_or_leases() -> None:
    counted = [write(), write("services", seconds=1), write("whatsappclusters", subresource="status", seconds=2)]
    others = [
        write("events"),
        write("leases"),
        write(user="system:serviceaccount:kube-system:statefulset-controller"),
        write(seconds=30),
    ]

    assert cost.operator_writes([*counted, *others], T0, T0 + 10) == counted


def test_writes_until_the_report_end_with_the_first_status() -> None:
    failover = [write(), write("services"), write("whatsappclusters", subresource="status"), write(), write()]

    assert cost.until_reported(failover) == 3
    assert cost.until_reported(failover[:2]) == 2
    assert cost.spelled(failover) == "3 patch pods, 1 patch services, 1 patch whatsappclusters/status"
    assert cost.spelled([]) == "none"


@pytest.mark.parametrize("argv", [["--n", "0"], ["--case", "nothing"]])
def test_arguments_that_mean_nothing_are_refused(argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        failovers.main(argv, root=tmp_path)

    assert end.value.code == 2
    assert "hack/bench" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------ resizes


def recipient(shard: int, shards: int = 4, *, number: int = 0) -> str:
    """The ``number``-th recipient of a shard."""
    fitting = (to for each in itertools.count() if shard_of(to := f"49{each:010d}", shards) == shard)
    return next(itertools.islice(fitting, number, None))


def messages(*times: tuple[float, float | None], shard: int = 0, first: int = 0) -> list[Message]:
    """Messages of a shard of four: when they were sent, and taken (None: never)."""
    return [
        Message(id=f"{shard}-{number}", to=recipient(shard, number=number), sent_at=sent, delivered_at=taken, lost=taken is None)
        for number, (sent, taken) in enumerate(times, first)
    ]


def everywhere(*times: tuple[float, float | None]) -> list[Message]:
    return [one for shard in range(4) for one in messages(*times, shard=shard)]


def test_an_outage_begins_with_set_shards_when_the_last_message_before_was_taken_long_ago() -> None:
    sent = everywhere((8.0, 8.1), (10.2, 11.5), (10.6, 11.6), (12.0, 12.1))

    assert resize.outages(sent, 4, 10.0) == dict.fromkeys(range(4), (1.5, 11.5))


def test_an_outage_begins_with_the_first_message_that_had_to_wait_if_that_was_earlier() -> None:
    sent = everywhere((8.0, 8.1), (9.5, 11.5), (12.0, 12.1))

    assert resize.outages(sent, 4, 10.0)[2] == (2.0, 11.5)


def test_an_outage_begins_with_the_last_message_taken_if_that_was_later() -> None:
    sent = everywhere((9.9, 10.25), (9.8, 11.5), (12.0, 12.1))

    assert resize.outages(sent, 4, 10.0)[2] == (1.25, 11.5)


def test_a_surviving_shard_is_served_as_soon_as_either_half_of_its_messages_is() -> None:
    sent = [*messages((8.0, 8.1), (9.75, 12.0), shard=1), *messages((8.0, 8.1), (10.5, 11.5), shard=3), *messages((9.0, 9.1), (9.5, 12.0))]

    assert resize.outages(sent, 2, 10.0)[1] == (1.75, 11.5)


def test_a_shard_with_too_few_messages_is_no_shard_without_outage() -> None:
    with pytest.raises(LocalKubeError, match="too few messages of shard 1"):
        resize.outages(messages((8.0, 8.1), (10.0, 11.0)), 4, 9.0)


def test_lost_doubled_and_delayed_are_counted_shard_by_shard() -> None:
    sent = everywhere((9.5, 9.6), (10.0, 11.5), (12.0, 12.1))
    sent += messages((10.25, 12.0), (10.5, None), (12.5, 12.6), (13.0, 13.1), shard=2, first=3)
    known = {one.id for one in sent} - {"2-5"}
    gaps, taken = resize.outages(sent, 4, 10.0), {recipient(2, number=6): 2, recipient(1): 1}
    found = resize.per_shard(sent, gaps, restart=1.0, known=known, taken=taken)

    assert found[1] == {"sent": 3, "lost": 0, "doubled": 0, "delayed": 1, "worst": 0.5, "outage": 1.5}
    two = {name: found[2][name] for name in ("sent", "lost", "doubled", "delayed", "outage")}
    assert two == {"sent": 7, "lost": 2, "doubled": 1, "delayed": 3, "outage": 1.5}, "one given up, one not known, one taken twice"


def test_after_the_restart_a_refused_or_slow_message_is_an_outage_and_a_quick_one_is_none() -> None:
    quick = messages((9.0, 11.0), (12.0, 12.1), (13.0, 13.2))
    found = resize.after_restart(quick, 11.5, 14.0)
    assert (found["outage"], found["longest_wait"]) == (0, pytest.approx(0.2))

    rejected = messages((12.5, 12.6), first=5)
    rejected[0].rejections["503"] += 1
    found = resize.after_restart([*quick, *rejected], 11.5, 14.0)
    assert (found["messages"], found["rejected"], found["slow"], found["outage"]) == (3, 1, 0, pytest.approx(0.1))

    found = resize.after_restart([*quick, *messages((12.5, 14.5), first=6)], 11.5, 14.0)
    assert (found["rejected"], found["slow"], found["slow_until"], found["outage"]) == (0, 1, 3.0, 2.0)


def a_resize(*, lost: int = 0, doubled: int = 0, after: float = 0.0) -> resize.Resize:
    usual = {"sent": 10, "outage": 1.5}
    shards = {
        shard: usual | {"lost": lost * (shard == 3), "doubled": doubled * (shard == 3), "delayed": shard, "worst": shard / 10}
        for shard in range(4)
    }
    waits = {"slow": 0, "slow_until": 0.0, "longest_wait": 0.045, "outage": after}
    removal = {"seconds": 3.0, "messages": 20, "rejected": int(after > 0), **waits}
    extra = {0: 0.25, 1: 0.5}
    return resize.Resize(before=4, to=2, total=9.0, restart=1.0, gap=1.5, extra=extra, shards=shards, after=removal, repeats=1, begun=T0)


def test_the_file_adds_up_what_became_of_the_messages_of_all_resizes() -> None:
    found = resize.figures([a_resize(), a_resize(lost=1)])

    assert (found["messages"], found["repeats"], found["extra_outage"]) == (80, 2, {"n": 2, "max": 0.5})
    assert (found["after_restart"]["messages"], found["after_restart"]["outage"]) == (40, 0.0)
    assert found["shards"]["3"] == {"sent": 20, "lost": 1, "doubled": 0, "delayed": 6, "worst": 0.3, "outage": 1.5}


def test_a_message_lost_doubled_or_held_up_while_pods_go_fails_the_bench() -> None:
    assert resize.broken("shrink", [a_resize()]) == []
    assert resize.broken("shrink", [a_resize(lost=2), a_resize(doubled=1, after=0.3)]) == [
        "shrink: 2 messages were lost",
        "shrink: 1 messages were doubled",
        "shrink: a message waited 0.300 s after the restart, the goal is no outage",
    ]
