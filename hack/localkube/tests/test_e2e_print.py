"""Verdicts on end-to-end faults: what makes the run fail, what is only slow, and what people and programs read."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from localkube.scenarios import e2e
from localkube.scenarios.command import Command
from localkube.scenarios.faults.kind import FAULTS
from localkube.scenarios.runner import report as chaos_print
from localkube.scenarios.runner.case import Fault
from localkube.scenarios.runner.judge import UNREPORTED
from localkube.scenarios.runner.player import Outcome
from localkube.scenarios.runner.report import limit, report
from outside.ledger import Ledger
from wabiz_sim.gatewaylog import Totals

TABLE = {fault.name: fault for fault in FAULTS}
OF = "ledger of acme"
PARTED, KILLED, DELETED, GROW = (TABLE[name] for name in ("node-parted", "container-killed", "holder-deleted", "grow"))


def failures(fault: Fault[Any], found: Outcome, *, n: int) -> list[str]:
    return chaos_print.failures(found, fault, n=n)


def missed(fault: Fault[Any], found: Outcome) -> str:
    return chaos_print.missed(found, fault)


def outcome(fault: Fault[Any], *times: float, **more: Any) -> Outcome:
    evidence = Counter({next(iter(sorted(fault.evidence)), ""): len(times)}) if fault.evidence else Counter()
    return Outcome(fault.name, times=list(times), **{"evidence": evidence, "sent": 100, **more})


def test_all_well_is_no_failure_and_a_met_goal() -> None:
    well = outcome(PARTED, 3.0, 3.1, 5.9)
    assert failures(PARTED, well, n=3) == []
    assert missed(PARTED, well) == ""


def test_a_missed_goal_is_said_and_does_not_fail_the_run() -> None:
    slow = outcome(PARTED, 3.0, 3.1, 6.5)
    assert failures(PARTED, slow, n=3) == []
    assert missed(PARTED, slow) == "node-parted: max is 6.500 s, the goal is 6 s (n = 3)"


def test_a_time_beyond_the_factor_fails_the_run() -> None:
    broken = outcome(PARTED, 3.0, 3.1, 12.5)
    assert failures(PARTED, broken, n=3) == ["node-parted: took 12.5 s; beyond 12 s it is broken, not slow"]
    assert failures(KILLED, outcome(KILLED, 0.1, 4.9), n=2) == []
    assert failures(KILLED, outcome(KILLED, 0.1, 5.1), n=2) == ["container-killed: took 5.1 s; beyond 5 s it is broken, not slow"]
    assert failures(DELETED, outcome(DELETED, 5.1), n=1) == ["holder-deleted: took 5.1 s; beyond 5 s it is broken, not slow"]


def test_one_of_many_beyond_the_factor_fails_the_run_though_the_goal_is_met() -> None:
    one = outcome(KILLED, *[0.1] * 49, 6.0)
    assert missed(KILLED, one) == ""
    assert failures(KILLED, one, n=50) == ["container-killed: took 6.0 s; beyond 5 s it is broken, not slow"]


def test_the_slow_path_in_the_place_of_the_immediate_one_fails_the_run() -> None:
    probed = outcome(KILLED, 3.2, evidence=Counter({"ProbeTimeout": 1}))
    assert failures(KILLED, probed, n=1) == [
        "container-killed: evidence ProbeTimeout is not what was to be seen (ConnectionLost, ContainerTerminated, PodFailed)",
        "container-killed: the evidence of 0 of 1 handovers was seen (ConnectionLost, ContainerTerminated, PodFailed)",
    ]


@pytest.mark.parametrize("evidence", [Counter(), Counter({UNREPORTED: 1})])
def test_no_evidence_where_a_handover_is_expected_fails_the_run(evidence: Counter[str]) -> None:
    said = "container-killed: the evidence of 0 of 1 handovers was seen (ConnectionLost, ContainerTerminated, PodFailed)"
    assert said in failures(KILLED, outcome(KILLED, 0.1, evidence=evidence), n=1)


def test_a_shard_that_nobody_took_fails_the_run_and_misses_the_goal() -> None:
    never = outcome(PARTED, 3.0, 3.1, not_handed_over=["shard 0 of acme"], evidence=Counter({"ProbeTimeout": 3}))
    assert failures(PARTED, never, n=3) == ["node-parted: 1 of 3 shards not handed over within 30 s"]
    assert missed(PARTED, never) == "node-parted: 1 of 3 failed, the goal is max 6 s"


def test_what_is_wrong_on_any_machine_fails_the_run_here_too() -> None:
    assert failures(PARTED, outcome(PARTED, 3.0, 3.0, 3.0, lost=1), n=3) == ["node-parted: 1 messages lost, 0 doubled"]


def test_a_refusal_where_nothing_was_done_fails_the_run() -> None:
    said = ["node-parted: 3 tries were rejected on shards to which nothing was done"]
    assert failures(PARTED, outcome(PARTED, 3.0, 3.0, 3.0, rejected=[0, 3]), n=3) == said


def test_rejections_of_the_shard_that_moved_are_counted_and_fail_only_what_is_planned() -> None:
    assert failures(KILLED, outcome(KILLED, 0.1, rejected=[4, 0]), n=1) == []
    assert failures(DELETED, outcome(DELETED, 0.1, rejected=[4, 0]), n=1) == [
        "holder-deleted: 4 tries were rejected, though this is planned"
    ]


def test_a_restart_of_all_shards_by_the_client_may_refuse_on_all() -> None:
    assert failures(GROW, outcome(GROW, 1.6, rejected=[4, 9]), n=1) == []


@pytest.mark.parametrize(
    ("ledger", "said"),
    [
        (Ledger(sent=9, delivered=9), []),
        (Ledger(sent=9, delivered=8, lost=1), [f"{OF}: 1 messages were lost: confirmed with 201 and unknown to the WhatsApp servers"]),
        (
            Ledger(sent=9, delivered=9, totals=Totals(delivered=9, doubled=1)),
            [f"{OF}: 1 messages were doubled: taken twice under one id"],
        ),
        (
            Ledger(sent=9, delivered=9, totals=Totals(delivered=9, below_epoch=1)),
            [f"{OF}: 1 messages were taken from a holder that had been replaced"],
        ),
        (None, ["there is no ledger: what became of the messages is not known"]),
    ],
)
def test_what_may_not_be_in_the_ledger_of_the_run_fails_it(
    ledger: Ledger | None, said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = e2e.parsed(["--json", str(tmp_path / "e2e.json"), "--n", "1"], tmp_path)
    session = e2e.session_of(options)
    session.played.append((DELETED, outcome(DELETED, 0.1)))
    session.ledgers |= {"acme": ledger} if ledger else {}

    assert session.finish(Command("hack/e2e", [], root=tmp_path), options.json, 0) == bool(said)
    written = json.loads((tmp_path / "e2e.json").read_text())
    assert written["complaints"] == said
    assert written["run"]["commit"] == "unknown"
    assert written["ledgers"] == ({"acme": ledger.as_json()} if ledger else {})
    assert (f"Messages: {ledger}." in " ".join(capsys.readouterr().out.split())) is (ledger is not None)


def test_the_file_says_what_was_met_and_what_failed() -> None:
    played = [(KILLED, outcome(KILLED, 0.12, 0.13)), (DELETED, outcome(DELETED, 0.1, lost=1))]
    written = json.loads(json.dumps(report(played, {"database": "PostgreSQL"}, beyond=limit)))
    assert written["database"] == "PostgreSQL"
    assert (written["faults"]["container-killed"]["met"], written["faults"]["container-killed"]["max"]) == (True, 0.13)
    assert "p95" not in written["faults"]["container-killed"], "it takes 40 samples"
    assert written["faults"]["holder-deleted"]["met"] is None
    assert (written["faults"]["holder-deleted"]["failures"], written["faults"]["holder-deleted"]["lost"]) == (0, 1)
