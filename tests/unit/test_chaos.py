"""Chaos without a cluster: the table of faults, how handovers and messages are judged, what is printed and complained of."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import ssl
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from rich.console import Console

from localkube.chaos import command as chaos
from localkube.chaos import print as chaos_print
from localkube.chaos import table
from localkube.chaos.deeds import victims_on
from localkube.chaos.measure import UNREPORTED, Outcome, _Play, judge
from localkube.chaos.scene import Fault, Scene, Victim, nothing
from localkube.chaos.soak import soak_fault
from localkube.chaos.storm import storm
from localkube.chaos.table import FAULTS, SHORT, named
from localkube.chaos.traffic import Stream, Taken, account, first_taken, longest_gap
from localkube.demo.cluster import Holder
from localkube.errors import LocalKubeError
from localkube.outside.observer import Commit
from localkube.outside.traffic import Message
from localkube.plane import certificates
from localkube.plane.kubeconfig import Access
from wabiz_sim.gatewaylog import Audit, Entry, Kind, Totals
from wabiz_sim.sharding import shard_of

ROOT = Path(__file__).resolve().parents[2]
# API.md, "Evidence words"; a word that the operator can never say must not be waited for.
WORDS = {"PodDeleted", "PodDraining", "PodFailed", "ContainerTerminated", "NodeGone", "TetherBroken", "ProbeTimeout", "NotReadyLong"}
ALSO = {"RestartOverdue"}

# ---------------------------------------------------------------- the table

DEMANDED = {
    "deleted": "pod-deleted",
    "force-deleted": "pod-force-deleted",
    "evicted": "pod-evicted",
    "SIGKILL": "container-killed",
    "SIGTERM with long grace": "long-grace",
    "hang": "hang",
    "slow answers": "slow-answers",
    "30 % packet loss on probes": "lost-probes",
    "port closed": "port-closed",
    "port half-open": "port-half-open",
    "node lost": "node-lost",
    "node flapping": "node-flapping",
    "node back with old holder": "node-back",
    "API server down 10 s": "api-down-10s",
    "API server down 60 s": "api-down-60s",
    "watch silently dead": "watch-dead",
    "429 storm": "storm-429",
    "leader killed": "leader-killed",
    "leader paused": "leader-paused",
    "leader and holder at once": "leader-and-holder",
    "two holders at once": "two-holders",
    "all of a zone": "zone-lost",
    "last spare": "last-spare",
    "failure during grow": "during-grow",
    "failure during shrink": "during-shrink",
    "failure during Set Shards": "during-set-shards",
}
"""The issue's list, and what it is called here."""


def test_every_fault_of_the_issue_is_in_the_table_once() -> None:
    names = [fault.name for fault in FAULTS]
    assert set(DEMANDED.values()) <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.name))
def test_a_fault_says_what_is_expected(fault: Fault[Any]) -> None:
    assert fault.what
    assert fault.evidence <= WORDS | ALSO
    if fault.failover:
        assert fault.evidence, "a handover has evidence"
    else:
        assert (fault.evidence, fault.goal) == (frozenset(), None)
        assert fault.watch > 3, "a wrong failover comes after 3 s of silence"


@pytest.mark.parametrize(
    ("name", "goal"),
    [
        ("pod-deleted", 0.2),
        ("container-killed", 0.2),
        ("hang", 4.0),
        ("node-lost", 6.0),
        ("leader-and-holder", 8.0),
        ("leader-killed", None),
    ],
)
def test_the_goals_are_those_of_the_issue(name: str, goal: float | None) -> None:
    assert named([name])[0].goal == goal


def test_the_short_round_is_a_handful_of_the_table() -> None:
    assert len(named(list(SHORT))) == len(SHORT) == 6


def test_faults_are_chosen_by_name_in_the_tables_order() -> None:
    assert [fault.name for fault in named(["hang", "pod-deleted"])] == ["pod-deleted", "hang"]
    with pytest.raises(ValueError, match="no fault nonsense, x; there are pod-deleted, "):
        named(["x", "hang", "nonsense"])


# ---------------------------------------------------------------- options


def options(*argv: str) -> argparse.Namespace:
    return chaos.parsed(argv, ROOT)


def test_the_full_round_plays_each_fault_ten_times() -> None:
    got = options()
    assert (got.n, got.clusters, got.faults) == (10, 10, FAULTS)


def test_the_short_round_plays_a_few_once() -> None:
    got = options("--round", "short")
    assert (got.n, [fault.name for fault in got.faults]) == (1, list(SHORT))
    assert options("--round", "short", "--n", "3").n == 3
    assert options("--soak", "600").n == 1


def test_only_names_faults_and_a_wrong_name_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert [fault.name for fault in options("--only", "hang,pod-deleted").faults] == ["pod-deleted", "hang"]
    with pytest.raises(SystemExit):
        options("--only", "hung")
    assert "there is no fault hung" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        options("--clusters", "-1")


# ---------------------------------------------------------------- whom a lost node strikes


class FakeStage:
    """A cluster of two shards and a spare on given nodes."""

    def __init__(self, *, coreapps: list[str], simulator: str = "n9", webapps: tuple[str, ...] = ("n8", "n9")) -> None:
        self.nodes = {"coreapp": coreapps, "simulator": [simulator], "webapp": list(webapps)}
        self.streams = {"c00": self}
        self.bursts: list[int] = []

    def burst(self, shard: int, seconds: float) -> None:
        self.bursts.append(shard)

    def pods(self, _: str, component: str) -> list[dict[str, Any]]:
        return [
            {"metadata": {"name": f"{component}-{i}", "uid": f"{component}-{i}-uid"}, "spec": {"nodeName": node}}
            for i, node in enumerate(self.nodes[component])
        ]

    def coreapps(self, cluster: str) -> list[dict[str, Any]]:
        return self.pods(cluster, "coreapp")

    def holders(self, _: str) -> list[Holder]:
        return [Holder(shard, f"coreapp-{shard}", f"coreapp-{shard}-uid") for shard in (0, 1)]

    def holder(self, cluster: str, shard: int) -> Holder | None:
        return next((one for one in self.holders(cluster) if one.shard == shard), None)


def scene(stage: FakeStage) -> Scene[Any]:
    return Scene(cast("Any", stage), ("c00",))


@pytest.mark.parametrize(
    ("stage", "lost", "struck"),
    [
        (FakeStage(coreapps=["n1", "n2", "n3"]), {"n1"}, [0]),
        (FakeStage(coreapps=["n1", "n2", "n3"]), {"n3"}, []),
        (FakeStage(coreapps=["n1", "n1", "n3"]), {"n1"}, [0]),  # one spare: one of the two can be served at once
        (FakeStage(coreapps=["n1", "n2", "n1"]), {"n1"}, []),  # its spare is lost with it
        (FakeStage(coreapps=["n1", "n2", "n3"], simulator="n1"), {"n1"}, []),  # WhatsApp's own servers are lost
        (FakeStage(coreapps=["n1", "n2", "n3"], webapps=("n1", "n1")), {"n1"}, []),  # nobody can ask
        (FakeStage(coreapps=["n1", "n2", "n3"], webapps=("n1", "n2")), {"n1"}, [0]),
    ],
)
def test_measured_is_what_can_be_handed_over_and_asked_for(stage: FakeStage, lost: set[str], struck: list[int]) -> None:
    assert victims_on(scene(stage), "c00", lost) == struck


def test_a_strike_notes_whom_and_when_and_from_when_a_handover_can_be_made() -> None:
    stage = FakeStage(coreapps=["n1", "n2", "n3"])
    one = scene(stage)
    holder = one.strike("c00", 1)
    begun = one.victims[0].begun
    one.make_possible()
    assert (holder.uid, one.struck, stage.bursts) == ("coreapp-1-uid", {"coreapp-1-uid"}, [1, 1])
    assert one.victims[0].begun == begun, "the clock starts with the fault"
    assert (one.victims[0].possible or 0.0) > begun
    with pytest.raises(LocalKubeError, match="nobody serves shard 2 of c00"):
        one.strike("c00", 2)


OUTAGE = Fault(name="outage", what="away for 59 s", strike=nothing, evidence=frozenset({"TetherBroken"}), allowed=89.0)


def test_what_an_outage_takes_is_measured_from_the_fault_and_not_compared_with_the_vendors_failover() -> None:
    stage: Any = SimpleNamespace(clusters=("c00",), observer=SimpleNamespace(commits=[]))
    outcome = Outcome("outage", evidence=Counter({"TetherBroken": 1}))
    victim = Victim("c00", 0, Holder(0, "acme-coreapp-0", "a"), begun=100.0, begun_wall=1000.0, possible=159.0)
    taken = Taken(shard=0, by="b", at=1000.0 + 60.2, known=160.3, home=0)
    _Play(stage, OUTAGE, outcome, 1)._measure(victim, cast("Any", SimpleNamespace(taken=(taken,))))

    assert outcome.times == [pytest.approx(60.3)]
    figures = chaos_print.figures(outcome, OUTAGE)
    assert (figures["max"], figures["from_possible"]["max"]) == (60.3, 1.3)
    assert chaos_print.remarks(outcome, OUTAGE) == ["outage: from when a handover could be made p50 1.30 s, max 1.30 s (n = 1)"]
    assert "ratio" not in figures


def test_what_forbids_a_handover_for_a_while_is_allowed_so_much_more_and_has_no_ratio() -> None:
    allowed = {"api-down-10s": 39.0, "api-down-60s": 89.0, "storm-429": 39.0, "last-spare": 33.0}
    assert {fault.name: fault.allowed for fault in FAULTS if fault.allowed != 30.0} == allowed
    assert not [name for name in allowed if chaos_print.is_compared(named([name])[0])]
    assert all("its process lives" in named([name])[0].what for name in ("api-down-10s", "api-down-60s", "storm-429"))


# ---------------------------------------------------------------- handovers


def commit(holder: str, *, epoch: str, shard: int = 0, at: float = 1.0) -> Commit:
    return Commit("default", "c00", shard, epoch, 1, f"pod-{holder}", holder, 1, at, at)


BEFORE = {("c00", 0): "a", ("c00", 1): "b"}


def test_a_failover_off_a_pod_that_was_struck_is_right_and_its_evidence_counts() -> None:
    judged = judge([commit("c", epoch="9-x")], before=BEFORE, struck={"a"}, evidence={"9-x": "PodDeleted"}, until=2.0)
    assert (judged.evidence, judged.wrong) == (Counter({"PodDeleted": 1}), [])


def test_a_failover_off_a_healthy_pod_is_wrong_also_when_another_shard_was_struck() -> None:
    commits = [commit("c", epoch="9-x"), commit("d", epoch="9-y", shard=1)]
    judged = judge(commits, before=BEFORE, struck={"a"}, evidence={"9-x": "PodDeleted", "9-y": "ProbeTimeout"}, until=2.0)
    assert judged.wrong == ["shard 1 of c00 to pod-d (ProbeTimeout)"]


def test_a_second_failover_of_the_same_shard_is_judged_by_its_second_holder() -> None:
    commits = [commit("c", epoch="9-x"), commit("d", epoch="9-y")]
    judged = judge(commits, before=BEFORE, struck={"a"}, evidence={"9-x": "PodDeleted"}, until=2.0)
    assert judged.wrong == [f"shard 0 of c00 to pod-d ({UNREPORTED})"]
    assert judge(commits, before=BEFORE, struck={"a", "c"}, evidence={}, until=2.0).evidence == {UNREPORTED: 2}


def test_planned_moves_first_holders_and_renewed_epochs_are_no_failovers() -> None:
    commits = [commit("c", epoch="9-x"), commit("c", epoch="9-y"), commit("n", epoch="9-z", shard=3)]
    judged = judge(commits, before=BEFORE, struck=set(), evidence={"9-x": "PackedLow"}, until=2.0)
    assert (judged.evidence, judged.wrong) == (Counter(), [])


def test_what_the_undoing_brings_about_is_no_evidence_of_the_fault() -> None:
    late = commit("c", epoch="9-x", at=3.0)
    judged = judge([late], before=BEFORE, struck={"a"}, evidence={"9-x": "ContainerTerminated"}, until=2.0)
    assert (judged.evidence, judged.wrong) == (Counter(), [])


# ---------------------------------------------------------------- messages

ZERO = next(to for to in map(str, range(1000)) if shard_of(to, 2) == 0)
ONE = next(to for to in map(str, range(1000)) if shard_of(to, 2) == 1)


def message(name: str, to: str = ZERO, *, delivered: float | None = 1.0, **more: Any) -> Message:
    return Message(id=name, to=to, sent_at=0.0, delivered_at=delivered, **more)


def entry(name: str, shard: int = 0, by: str = "a", at: float = 1.0) -> Entry:
    return Entry(kind=Kind.TAKEN, message=name, shard=shard, uid=by, at=at, epoch="1-a")


def test_the_books_count_what_is_lost_doubled_and_refused() -> None:
    mine = [
        message("good", refusals=Counter({"503": 2})),
        message("given up", ONE, delivered=None, lost=True, refusals=Counter({"503": 5, "TimeoutError": 1})),
        message("promised and gone", ONE),
        message("twice"),
    ]
    entries = [entry("good"), entry("twice"), entry("twice"), entry("a stranger's")]
    audit = Audit()
    audit.read(entries)
    books = account(mine, entries, shards=2, struck={0}, totals=audit.totals())
    assert (books.sent, books.lost, books.doubled, books.refused) == (4, 2, 1, (2, 6))
    assert books.words == {"503": 7, "TimeoutError": 1}
    assert len(books.taken) == 3


def taken(by: str, at: float, *, shard: int = 0) -> Taken:
    return Taken(shard, by, 1000.0 + at, at + 0.001)


def first(*rows: Taken, **more: Any) -> float | None:
    return first_taken(rows, shard=0, begun=0.0, begun_wall=1000.0, **more)


def test_the_time_is_to_the_first_message_through_another_holder() -> None:
    rows = taken("b", -0.5), taken("a", 0.01), taken("b", 0.02, shard=1), taken("b", 0.3), taken("b", 0.2)
    assert first(*rows, not_by="a") == pytest.approx(0.201)
    assert first(*rows) == pytest.approx(0.011)
    assert first(taken("a", 0.1), not_by="a") is None


def test_a_holder_that_resumed_counts_from_when_its_container_can_be_back() -> None:
    assert first(taken("a", 0.05), taken("a", 0.15), not_by="a", resumed_after=0.1) == pytest.approx(0.151)


# ---------------------------------------------------------------- print-out

QUICK = Fault(name="quick", what="q", strike=nothing, evidence=frozenset({"PodDeleted"}), goal=0.2)
QUIET = Fault(name="quiet", what="q", strike=nothing, failover=False, watch=12.0)


def test_all_is_well_without_complaints() -> None:
    good = Outcome("quick", times=[0.1, 0.2], evidence=Counter({"PodDeleted": 2, UNREPORTED: 1}), sent=100)
    assert chaos_print.complaints(good, QUICK, n=2) == []
    assert chaos_print.complaints(Outcome("quiet", times=[0.01]), QUIET, n=1) == []


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome("quick", times=[0.1, 0.21]), "quick: max is 0.210 s, the goal is 0.2 s (n = 2)"),
        (Outcome("quick", times=[0.1]), "quick: measured 1 times only, not 2"),
        (
            Outcome("quick", times=[0.1] * 2, evidence=Counter({"NodeGone": 1})),
            "quick: evidence NodeGone is not what was to be seen (PodDeleted)",
        ),
        (Outcome("quick", times=[0.1] * 2, wrong=["shard 1 of c00 to d (x)"]), "quick: 1 wrong failovers: shard 1 of c00 to d (x)"),
        (Outcome("quick", times=[0.1] * 2, lost=3), "quick: 3 messages lost, 0 doubled"),
        (Outcome("quick", times=[0.1] * 2, doubled=1), "quick: 0 messages lost, 1 doubled"),
        (Outcome("quick", times=[0.1] * 2, violations=["one holder: two"]), "quick: laws broken: one holder: two"),
        (Outcome("quick", times=[0.1] * 2, unsettled=["c00"]), "quick: not as wanted again: c00"),
        (Outcome("quick", times=[0.1] * 2, troubles=["no operator leads"]), "quick: no operator leads"),
    ],
)
def test_everything_that_is_not_as_it_must_be_is_said(outcome: Outcome, said: str) -> None:
    assert chaos_print.complaints(outcome, QUICK, n=2) == [said]


def test_a_shard_that_was_not_handed_over_is_one_of_n_and_misses_the_goal() -> None:
    failed = Outcome("quick", times=[0.1], missing=["shard 0 of c01"], evidence=Counter({"PodDeleted": 1}))
    assert chaos_print.complaints(failed, QUICK, n=2) == [
        "quick: 1 of 2 shards not handed over within 30 s",
        "quick: 1 of 2 failed, the goal is max 0.2 s",
    ]
    found = chaos_print.figures(failed, QUICK)
    assert (found["n"], found["failures"], found["max"], found["met"]) == (2, 1, None, False)


def test_the_table_says_what_was_not_handed_over_and_what_must_not_move() -> None:
    console = Console(file=io.StringIO(), width=190)
    late = Outcome("quick", times=[0.1], missing=["shard 0 of c01"], evidence=Counter({"PodDeleted": 1}), refused=[7, 1])
    console.print(chaos_print.table([(QUICK, late), (QUIET, Outcome("quiet", times=[0.004])), (QUICK, Outcome("quick"))]))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert ">30 s (1x)" in text
    assert "200 ms MISSED" in text
    assert "350x" not in text, "the ratio would leave out what failed"
    assert "7/1" in text
    assert "no move" in text


def test_the_file_holds_the_figures_of_each_fault() -> None:
    found = chaos_print.report([(QUICK, Outcome("quick", times=[0.1, 0.3], sent=9)), (QUIET, Outcome("quiet"))], {"clusters": 2})
    again = json.loads(json.dumps(found))
    assert (again["baseline_s"], again["clusters"]) == (35.0, 2)
    quick = again["faults"]["quick"]
    assert {key: quick[key] for key in ("n", "p50", "max", "goal", "sent")} == {
        "n": 2,
        "p50": 0.1,
        "max": 0.3,
        "goal": 0.2,
        "sent": 9,
    }
    assert "p95" not in quick, "it takes 40 samples"
    assert "p50" not in again["faults"]["quiet"], "nothing was measured"


def test_the_soak_expects_that_nothing_moves() -> None:
    fault = soak_fault(600.0)
    assert (fault.failover, fault.watch, fault.everybody) == (False, 600.0, True)
    assert fault.name not in {one.name for one in table.FAULTS}


# ---------------------------------------------------------------- the storm


async def test_the_storm_answers_429_under_the_api_servers_certificate(tmp_path: Path) -> None:
    made = certificates.make(tmp_path / "certificates", service_ip="10.0.0.1")
    trust = ssl.create_default_context(cafile=str(made.authority))
    async with storm(made) as (address, port), aiohttp.ClientSession() as session:
        async with session.get(f"https://{address}:{port}/api/v1/pods?watch=1", ssl=trust) as response:
            body = await response.json()
        assert (response.status, response.headers["Retry-After"]) == (429, "1")
    assert (body["kind"], body["reason"], body["details"]) == ("Status", "TooManyRequests", {"retryAfterSeconds": 1})


# ------------------------------------------------------------ what end-to-end tests add


def test_the_longest_gap_is_the_worst_shards_and_begins_with_the_change() -> None:
    def known(home: int, *times: float) -> list[Taken]:
        return [Taken(shard=home, by="uid", at=0.0, known=at, home=home) for at in times]

    even = known(0, 8.0, 10.5, 11.0, 12.0)
    late = known(1, 9.9, 10.2, 11.7)
    assert longest_gap([*even, *late], begun=10.0) == pytest.approx(1.5)
    assert longest_gap(known(0, 13.0), begun=10.0) == pytest.approx(3.0)
    assert longest_gap([], begun=10.0) is None


def test_books_know_the_shard_of_a_recipient_as_it_was_before_the_number_changed() -> None:
    to = next(f"49{number}" for number in range(1000) if shard_of(f"49{number}", 2) == 0 and shard_of(f"49{number}", 4) == 2)
    message = Message(id="m", to=to, sent_at=1.0, delivered_at=2.0)
    books = account([message], [entry("m", 2)], shards=2, struck=(), totals=Totals())
    assert [(one.shard, one.home) for one in books.taken] == [(2, 0)]


def test_what_a_user_asked_for_is_evidence_where_it_is_what_was_done() -> None:
    moved = Commit("default", "acme", 0, "5-a", 5, "acme-coreapp-2", "new", 6, 0.0, 1.0)

    def judged(planned: frozenset[str]) -> tuple[Counter[str], list[str]]:
        found = judge([moved], before={("acme", 0): "old"}, struck={"old"}, evidence={"5-a": "Requested"}, until=2.0, planned=planned)
        return found.evidence, found.wrong

    assert judged(frozenset({"PackedLow"})) == (Counter({"Requested": 1}), [])
    assert judged(frozenset({"PackedLow", "Requested"})) == (Counter(), [])


async def test_nothing_is_sent_to_a_shard_that_is_no_more(tmp_path: Path) -> None:
    access = Access(
        server="https://127.0.0.1:1", authority=certificates.make(tmp_path / "made", service_ip="10.0.0.1").authority.read_text()
    )
    stream = Stream(access.write(tmp_path / "kubeconfig"), "default", "acme", lambda: cast("Any", None))
    stream.shards = 2
    async with asyncio.timeout(5.0):
        await stream._send_one(3)
    assert stream.messages == {}
