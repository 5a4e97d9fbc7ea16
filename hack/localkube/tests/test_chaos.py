"""Chaos without a cluster: the table of faults, how handovers and messages are judged, what is printed and complained of."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from localkube.errors import LocalKubeError
from localkube.hollow.pods import RESTART_S
from localkube.plane import certificates
from localkube.plane.kubeconfig import Access
from localkube.scenarios import chaos
from localkube.scenarios.cluster import Holder
from localkube.scenarios.faults import hollow as table
from localkube.scenarios.faults.actions import victims_on
from localkube.scenarios.faults.hollow import FAULTS, SHORT, named, soak
from localkube.scenarios.runner import player as measure
from localkube.scenarios.runner import report as chaos_print
from localkube.scenarios.runner.case import Case, Fault, Victim, nothing
from localkube.scenarios.runner.judge import CAUSES, UNREPORTED, Judged, World, judge
from localkube.scenarios.runner.player import Outcome, Player, _Play
from localkube.scenarios.traffic import Books, Mark, Stream, Taken, account, first_taken, longest_gap
from outside.laws import Violation
from outside.observer import Commit
from outside.traffic import Message
from wabiz_sim.gatewaylog import Audit, Entry, Kind, Totals
from wabiz_sim.sharding import shard_of

ROOT = Path(__file__).resolve().parents[3]
# A word that the operator can never say must not be waited for.
WORDS = {"PodDeleted", "PodDraining", "PodFailed", "ContainerTerminated", "NodeGone", "ConnectionLost", "ProbeTimeout", "NotReady"}
ALSO = {"RestartOverdue", "HolderDisagrees", "RolledOut"}

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
    "429 answers": "api-429",
    "leader killed": "leader-killed",
    "leader paused": "leader-paused",
    "leader and holder at once": "leader-and-holder",
    "two holders at once": "two-holders",
    "all of a zone": "zone-lost",
    "last spare": "last-spare",
    "failure during grow": "during-grow",
    "failure during shrink": "during-shrink",
    "failure during Set Shards": "during-set-shards",
    "leader restarted behind egress deny": "leader-blind",
    "one Secret unreadable": "secret-unreadable",
    "rights on one kind taken and given back": "rights-taken",
    "half of all calls answered 429": "half-429",
    "watches killed with 401": "watches-401",
    "a mutating webhook": "admission",
    "a hostile annotation on a neighbour": "hostile-neighbour",
    "an older Service put back": "older-service",
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
    assert len(named(list(SHORT))) == len(SHORT) == 9


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


class FakeEnvironment:
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


def case(environment: FakeEnvironment) -> Case[Any]:
    return Case(cast("Any", environment), ("c00",))


@pytest.mark.parametrize(
    ("environment", "lost", "struck"),
    [
        (FakeEnvironment(coreapps=["n1", "n2", "n3"]), {"n1"}, [0]),
        (FakeEnvironment(coreapps=["n1", "n2", "n3"]), {"n3"}, []),
        (FakeEnvironment(coreapps=["n1", "n1", "n3"]), {"n1"}, [0]),  # one spare: one of the two can be served at once
        (FakeEnvironment(coreapps=["n1", "n2", "n1"]), {"n1"}, []),  # its spare is lost with it
        (FakeEnvironment(coreapps=["n1", "n2", "n3"], simulator="n1"), {"n1"}, []),  # WhatsApp's own servers are lost
        (FakeEnvironment(coreapps=["n1", "n2", "n3"], webapps=("n1", "n1")), {"n1"}, []),  # nobody can ask
        (FakeEnvironment(coreapps=["n1", "n2", "n3"], webapps=("n1", "n2")), {"n1"}, [0]),
    ],
)
def test_measured_is_what_can_be_handed_over_and_asked_for(environment: FakeEnvironment, lost: set[str], struck: list[int]) -> None:
    assert victims_on(case(environment), "c00", lost) == struck


def test_a_strike_notes_whom_and_when_and_from_when_a_handover_can_be_made() -> None:
    environment = FakeEnvironment(coreapps=["n1", "n2", "n3"])
    one = case(environment)
    holder = one.strike("c00", 1)
    begun = one.victims[0].begun
    one.make_possible()
    assert (holder.uid, one.struck, environment.bursts) == ("coreapp-1-uid", {"coreapp-1-uid"}, [1, 1])
    assert one.victims[0].begun == begun, "the clock starts with the fault"
    assert (one.victims[0].possible or 0.0) > begun
    with pytest.raises(LocalKubeError, match="shard 2 of c00 has no holder"):
        one.strike("c00", 2)


OUTAGE = Fault(name="outage", what="away for 59 s", strike=nothing, evidence=frozenset({"ConnectionLost"}), allowed=89.0)


def test_what_an_outage_takes_is_measured_from_the_fault_and_not_compared_with_the_vendors_failover() -> None:
    done = commit("b", epoch="9-x", at=160.0)
    environment: Any = SimpleNamespace(clusters=("c00",), observer=SimpleNamespace(commits=[done]), commit=lambda *_, **__: done)
    outcome = Outcome("outage", evidence=Counter({"ConnectionLost": 1}))
    victim = Victim("c00", 0, Holder(0, "acme-coreapp-0", "a"), begun=100.0, begun_wall=1000.0, possible=159.0)
    taken = Taken(shard=0, by="b", at=1000.0 + 60.2, known=160.3, home=0)
    _Play(environment, OUTAGE, outcome, 1)._measure(victim, cast("Any", SimpleNamespace(taken=(taken,))))

    assert outcome.times == [pytest.approx(60.3)]
    figures = chaos_print.figures(outcome, OUTAGE)
    assert (figures["max"], figures["from_possible"]["max"]) == (60.3, 1.3)
    assert chaos_print.remarks(outcome) == ["from when a handover could be made p50 1.30 s, max 1.30 s (n = 1)"]
    assert "ratio" not in figures


def test_what_forbids_a_handover_for_a_while_is_allowed_so_much_more_and_has_no_ratio() -> None:
    allowed = {"api-down-10s": 39.0, "api-down-60s": 89.0, "api-429": 39.0, "last-spare": 33.0}
    assert {fault.name: fault.allowed for fault in FAULTS if fault.allowed != 30.0} == allowed
    assert not [name for name in allowed if chaos_print.is_compared(named([name])[0])]
    assert all("its process lives" in named([name])[0].what for name in ("api-down-10s", "api-down-60s", "api-429"))


# ---------------------------------------------------------------- handovers


def commit(holder: str, *, epoch: str, shard: int = 0, at: float = 1.0) -> Commit:
    return Commit("default", "c00", shard, epoch, 1, f"pod-{holder}", holder, 1, at, at)


BEFORE = {("c00", 0): Holder(0, "pod-1", "a"), ("c00", 1): Holder(1, "pod-4", "b")}


def judged(*commits: Commit, evidence: dict[str, str] | None = None, **world: Any) -> Judged:
    return judge(commits, before=BEFORE, evidence=evidence or {}, world=World(**{"until": 2.0, **world}))


def test_a_failover_off_a_pod_that_was_struck_is_right_and_its_evidence_counts() -> None:
    found = judged(commit("c", epoch="9-x"), struck={"a"}, evidence={"9-x": "PodDeleted"})
    assert (found.evidence, found.wrong) == (Counter({"PodDeleted": 1}), [])


def test_a_failover_off_a_healthy_pod_is_wrong_also_when_another_shard_was_struck() -> None:
    commits = [commit("c", epoch="9-x"), commit("d", epoch="9-y", shard=1)]
    found = judged(*commits, struck={"a"}, evidence={"9-x": "PodDeleted", "9-y": "ProbeTimeout"})
    assert found.wrong == ["shard 1 of c00 to pod-d (ProbeTimeout)"]


def test_a_second_failover_of_the_same_shard_is_judged_by_its_second_holder() -> None:
    commits = [commit("c", epoch="9-x"), commit("d", epoch="9-y")]
    assert judged(*commits, struck={"a"}, evidence={"9-x": "PodDeleted"}).wrong == [f"shard 0 of c00 to pod-d ({UNREPORTED})"]
    assert judged(*commits, struck={"a", "c"}).evidence == {UNREPORTED: 2}


@pytest.mark.parametrize("word", sorted(CAUSES.values()))
def test_a_move_off_a_sound_holder_is_wrong_whatever_the_operator_calls_it(word: str) -> None:
    assert judged(commit("c", epoch="9-x"), evidence={"9-x": word}).wrong == [f"shard 0 of c00 to pod-c ({word})"]


def test_a_move_that_the_scenario_caused_is_right_and_the_word_must_be_its_own() -> None:
    down = commit("0", epoch="9-x")
    for word in ("Consolidated", UNREPORTED):
        assert judged(down, moves={"resize"}, evidence={"9-x": word}) == Judged(Counter(), [])
    assert judged(down, moves={"resize"}, evidence={"9-x": "Requested"}).wrong == ["shard 0 of c00 to pod-0 (Requested): caused was resize"]
    assert judged(down, moves={"resize"}, since=1.5).wrong, "it came before there was a reason"
    assert judged(commit("2", epoch="9-x"), moves={"resize"}).wrong, "a resize moves holders down, not up"
    assert judged(down, moves={"switchover"}, asked={("c00", 1)}).wrong, "another shard was asked for"
    assert not judged(down, moves={"switchover"}, asked={("c00", 0)}).wrong


def test_first_holders_and_renewed_epochs_are_no_moves() -> None:
    assert judged(commit("a", epoch="9-y"), commit("n", epoch="9-z", shard=3)) == Judged(Counter(), [])


def test_what_the_undoing_brings_about_is_no_evidence_of_the_fault() -> None:
    late = commit("c", epoch="9-x", at=3.0)
    assert judged(late, struck={"a"}, evidence={"9-x": "ContainerTerminated"}) == Judged(Counter(), [])
    assert judged(late, struck={"a"}, evidence={"9-x": "RolledOut"}).wrong == ["shard 0 of c00 to pod-c (RolledOut): not caused here"]


# ---------------------------------------------------------------- messages

ZERO = next(to for to in map(str, range(1000)) if shard_of(to, 2) == 0)
ONE = next(to for to in map(str, range(1000)) if shard_of(to, 2) == 1)


def message(name: str, to: str = ZERO, *, delivered: float | None = 1.0, **more: Any) -> Message:
    return Message(id=name, to=to, sent_at=0.0, delivered_at=delivered, **more)


def entry(name: str, shard: int = 0, by: str = "a", at: float = 1.0) -> Entry:
    return Entry(kind=Kind.TAKEN, message=name, shard=shard, uid=by, at=at, epoch="1-a")


def test_the_books_count_what_is_lost_doubled_and_rejected() -> None:
    mine = [
        message("good", rejections=Counter({"503": 2})),
        message("given up", ONE, delivered=None, lost=True, rejections=Counter({"503": 5, "TimeoutError": 1})),
        message("promised and gone", ONE),
        message("twice"),
    ]
    entries = [entry("good"), entry("twice"), entry("twice"), entry("a stranger's")]
    audit = Audit()
    audit.read(entries)
    books = account(mine, entries, shards=2, struck={0}, totals=audit.totals())
    assert (books.sent, books.lost, books.totals.doubled, books.rejected) == (4, 2, 1, (2, 6))
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


def test_the_old_holder_never_ends_the_clock_nor_does_a_holder_without_a_commit() -> None:
    rows = taken("a", 0.001), taken("a", 0.15), taken("c", 0.2), taken("b", 0.3)
    assert first(*rows, not_by="a") == pytest.approx(0.201)
    assert first(*rows, not_by="a", by={"a", "b"}) == pytest.approx(0.301)
    assert first(*rows, not_by="a", by=set()) is None


# ---------------------------------------------------------------- a whole play


class FakeLog:
    """The log of the WhatsApp servers, as far as a play reads it itself."""

    def __init__(self) -> None:
        self.audit = Audit()


class FakeStream:
    """A stream whose books are written by the test."""

    def __init__(self) -> None:
        self.log = FakeLog()
        self.taken: list[Taken] = []
        self.totals = Totals()

    def burst(self, shard: int, seconds: float) -> None:
        """Nothing is sent."""

    def delivered_since(self, shard: int, since: float) -> bool:
        return any(one.shard == shard and one.known >= since for one in self.taken)

    async def mark(self) -> Mark:
        return Mark(time.monotonic(), 0, 1, self.totals)

    async def books(self, mark: Mark, struck: Collection[int]) -> Books:
        return Books(
            sent=9,
            lost=0,
            rejected=(0, 0),
            words=Counter(),
            totals=self.totals,
            taken=tuple(self.taken),
        )


class FakeObserver:
    """What was seen, as the test says it."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.violations: list[Violation] = []

    def verify(self) -> list[Violation]:
        return []


class FakeGround:
    """One cluster of one shard; faults write into ``stream``, ``observer`` and ``counted`` what they bring about."""

    clusters = ("c00",)

    def __init__(self) -> None:
        self.stream, self.observer = FakeStream(), FakeObserver()
        self.streams = {"c00": self.stream}
        self.counted: Counter[tuple[str, str]] = Counter()
        self.words: dict[str, str] = {}
        self.gone = False
        self.ended = ""
        self.pods = {"a", "b"}

    def holder(self, cluster: str, shard: int) -> Holder:
        return Holder(shard, "pod-0", "a")

    def holders(self, cluster: str) -> list[Holder]:
        return [self.holder(cluster, 0)]

    def commit(self, cluster: str, shard: int, *, not_to: str) -> Commit | None:
        return next((one for one in self.observer.commits if (one.shard, one.holder_uid != not_to) == (shard, True)), None)

    def is_ended(self, _: Holder) -> bool:
        return self.gone

    async def effects(self) -> Counter[tuple[str, str]]:
        return Counter(self.counted)

    async def settle(self, _: Any) -> list[str]:
        return []

    def fault(self) -> str:
        return self.ended

    def lasting_coreapps(self) -> dict[str, str]:
        return {uid: f"pod-{uid}" for uid in self.pods}

    async def restart_observer(self) -> None:
        """It sees enough."""

    async def ambiguous(self) -> int:
        return 0

    def busy_seconds(self) -> float:
        return 0.0

    def broken_laws(self, seen: Any) -> list[str]:
        return list(map(str, seen))

    def status(self, _: str) -> dict[str, Any]:
        return {"recentHandovers": [{"epoch": epoch, "evidence": word} for epoch, word in self.words.items()]}

    async def put_right(self) -> None:
        """Nothing is broken."""

    # what a fault brings about

    def moves_shard(self, word: str = "PodDeleted") -> None:
        """A commit to another holder, reported under a word, and a message through it."""
        self.observer.commits.append(commit("1", epoch="9-x", at=time.monotonic()))
        self.words["9-x"] = word
        self.answers("1")

    def answers(self, by: str, after: float = 0.0) -> None:
        """A message through a Coreapp, so many seconds from now."""
        self.stream.taken.append(Taken(0, by, time.time() + after, time.monotonic() + after))


@pytest.fixture
def ground(monkeypatch: pytest.MonkeyPatch) -> FakeGround:
    monkeypatch.setattr(measure, "CALM_S", 0.0)
    return FakeGround()


async def played(ground: FakeGround, strike: Callable[[Case[Any]], None], **row: Any) -> Outcome:
    async def struck(case: Case[Any]) -> None:
        strike(case)

    fault = Fault[Any](name="f", what="f", strike=struck, **{"everybody": True, "evidence": {"PodDeleted"}, "allowed": 0.2, **row})
    return await Player(cast("Any", ground), n=1, report=lambda _: None).play(fault)


def strikes(ground: FakeGround, *, gone: bool = True, word: str = "PodDeleted") -> Callable[[Case[Any]], None]:
    def strike(case: Case[Any]) -> None:
        case.strike("c00", 0)
        ground.gone = gone
        ground.moves_shard(word)

    return strike


async def test_a_fault_that_was_seen_to_do_something_is_measured(ground: FakeGround) -> None:
    outcome = await played(ground, strikes(ground), effects=("pods ended",))
    assert (outcome.n, outcome.troubles, outcome.wrong, outcome.evidence) == (1, [], [], Counter({"PodDeleted": 1}))
    assert outcome.effects["pods ended"] == 1


@pytest.mark.parametrize("asks", [True, False])
async def test_a_switchover_is_right_only_where_the_scenario_asked_for_it(ground: FakeGround, asks: bool) -> None:
    """As when a leader ends and a user asks its successor: no holder is struck."""

    def strike(case: Case[Any]) -> None:
        if asks:
            case.asked.add(("c00", 0))
        case.measured.append(0.1)
        ground.moves_shard("Requested")

    outcome = await played(ground, strike, failover=False, moves={"switchover"})
    assert outcome.wrong == ([] if asks else ["shard 0 of c00 to pod-1 (Requested)"])


async def test_everything_is_undone_in_turn_also_when_some_of_it_fails(ground: FakeGround) -> None:
    undone: list[str] = []

    def strike(case: Case[Any]) -> None:
        strikes(ground)(case)
        case.exits.callback(undone.append, "exits")

    async def undo(_: Case[Any]) -> None:
        undone.append("undo")
        msg = "the node does not come back"
        raise LocalKubeError(msg)

    outcome = await played(ground, strike, undo=undo)
    assert undone[:2] == ["undo", "exits"]
    assert outcome.troubles[0] == "the node does not come back"


async def test_a_fault_that_does_nothing_is_a_trouble(ground: FakeGround) -> None:
    outcome = await played(ground, strikes(ground, gone=False), effects=("pods ended",))
    assert outcome.troubles == ["the fault did nothing: 0 pods ended (c00)"]


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.effects != table.ENDED], ids=lambda fault: str(fault.name))
async def test_each_fault_of_the_table_that_does_nothing_is_a_trouble(ground: FakeGround, fault: Fault[Any]) -> None:
    ground.counted.update({("a stranger's", name): 5 for name in fault.effects} | {("a", name): 5 for name in fault.effects})
    outcome = await played(ground, strikes(ground, gone=False), effects=fault.effects)
    assert fault.effects
    assert outcome.troubles == [f"the fault did nothing: 0 {name} (c00)" for name in fault.effects], "what was before is not its own"


async def test_a_sound_coreapp_that_is_gone_is_a_trouble_where_pods_must_stay(ground: FakeGround) -> None:
    def strike(case: Case[Any]) -> None:
        strikes(ground)(case)
        ground.pods = {"c"}

    assert (await played(ground, strike)).troubles == []
    ground.pods = {"a", "b"}
    outcome = await played(ground, strike, pods_stay=True)
    assert outcome.troubles == ["1 sound Coreapps are gone: pod-b"], "that of the holder is the fault's own doing"


async def test_what_a_fault_found_out_and_a_process_that_ended_are_troubles(ground: FakeGround) -> None:
    def strike(case: Case[Any]) -> None:
        strikes(ground)(case)
        case.troubles.append("written 99 times")
        ground.ended = "operator-0 exited with status 1"

    outcome = await played(ground, strike)
    assert (outcome.n, outcome.troubles) == (1, ["written 99 times", "operator-0 exited with status 1"])


async def test_what_is_counted_of_a_pod_that_was_struck_is_the_faults(ground: FakeGround) -> None:
    def strike(case: Case[Any]) -> None:
        strikes(ground)(case)
        ground.counted[("a", "requests held")] += 3

    outcome = await played(ground, strike, effects=("requests held",))
    assert (outcome.troubles, outcome.effects["requests held"]) == ([], 3)


async def test_an_answer_of_the_old_holder_between_the_kill_and_its_return_is_no_handover(ground: FakeGround) -> None:
    def strike(case: Case[Any]) -> None:
        case.strike("c00", 0)
        ground.answers("a")

    outcome = await played(ground, strike, resumes=True)
    assert (outcome.times, outcome.resumed, len(outcome.missing)) == ([], [], 1)


async def test_an_answer_through_another_without_a_commit_is_no_handover(ground: FakeGround) -> None:
    def strike(case: Case[Any]) -> None:
        case.strike("c00", 0)
        ground.answers("1")

    outcome = await played(ground, strike)
    assert (outcome.times, len(outcome.missing)) == ([], 1)


async def test_a_holder_that_was_back_before_anybody_took_over_is_reported_apart(ground: FakeGround) -> None:
    def strike(case: Case[Any]) -> None:
        case.strike("c00", 0)
        ground.answers("a", after=RESTART_S)

    outcome = await played(ground, strike, resumes=True)
    assert (outcome.times, outcome.missing, outcome.n) == ([], [], 0)
    assert outcome.resumed
    assert chaos_print.complaints(outcome, QUICK, n=1) == ["quick: measured 0 times only, not 1"]
    assert any("were back before another took over" in text for text in chaos_print.remarks(outcome))


@pytest.mark.parametrize("word", sorted(CAUSES.values()))
async def test_a_play_does_not_believe_the_operators_word(ground: FakeGround, word: str) -> None:
    outcome = await played(ground, strikes(ground, word=word), failover=False, evidence=frozenset())
    assert outcome.wrong == [f"shard 0 of c00 to pod-1 ({word})"]


async def test_two_holders_in_the_servers_log_break_a_law(ground: FakeGround) -> None:
    ground.stream.totals = Totals(below_epoch=2, overlaps=1)
    outcome = await played(ground, strikes(ground))
    assert [text for text in outcome.violations if "took 2 messages" in text and "at once 1 times" in text]


# ---------------------------------------------------------------- print-out

QUICK = Fault(name="quick", what="q", strike=nothing, evidence=frozenset({"PodDeleted"}), goal=0.2)
QUIET = Fault(name="quiet", what="q", strike=nothing, failover=False, watch=12.0)


def quick(*times: float, **more: Any) -> Outcome:
    return Outcome("quick", times=list(times), **{"evidence": Counter({"PodDeleted": 2}), **more})


def test_all_is_well_without_complaints() -> None:
    good = Outcome("quick", times=[0.1, 0.2], evidence=Counter({"PodDeleted": 2, UNREPORTED: 1}), sent=100)
    assert chaos_print.complaints(good, QUICK, n=2) == []
    assert chaos_print.complaints(Outcome("quiet", times=[0.01]), QUIET, n=1) == []


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (quick(0.1, 0.21), "quick: max is 0.210 s, the goal is 0.2 s (n = 2)"),
        (quick(0.1), "quick: measured 1 times only, not 2"),
        (quick(0.1, 0.1, evidence=Counter()), "quick: the evidence of 0 of 2 handovers was seen (PodDeleted)"),
        (
            quick(0.1, 0.1, evidence=Counter({"PodDeleted": 2, "NodeGone": 1})),
            "quick: evidence NodeGone is not what was to be seen (PodDeleted)",
        ),
        (quick(0.1, 0.1, wrong=["shard 1 of c00 to d (x)"]), "quick: 1 wrong failovers: shard 1 of c00 to d (x)"),
        (quick(0.1, 0.1, lost=3), "quick: 3 messages lost, 0 doubled"),
        (quick(0.1, 0.1, doubled=1), "quick: 0 messages lost, 1 doubled"),
        (quick(0.1, 0.1, violations=["one holder: two"]), "quick: laws broken: one holder: two"),
        (quick(0.1, 0.1, unsettled=["c00"]), "quick: not as wanted again: c00"),
        (quick(0.1, 0.1, troubles=["no operator leads"]), "quick: no operator leads"),
    ],
)
def test_everything_that_is_not_as_it_must_be_is_said(outcome: Outcome, said: str) -> None:
    assert chaos_print.complaints(outcome, QUICK, n=2) == [said]


def test_a_shard_that_was_not_handed_over_is_one_of_n_and_misses_the_goal() -> None:
    failed = Outcome("quick", times=[0.1], missing=["shard 0 of c01"], evidence=Counter({"PodDeleted": 1}))
    assert chaos_print.complaints(failed, QUICK, n=2) == [
        "quick: 1 of 2 failed, the goal is max 0.2 s",
        "quick: 1 of 2 shards not handed over within 30 s",
    ]
    found = chaos_print.figures(failed, QUICK)
    assert (found["n"], found["failures"], found["max"], found["met"]) == (2, 1, None, False)


def test_the_table_says_what_was_not_handed_over_and_what_must_not_move() -> None:
    console = Console(file=io.StringIO(), width=240)
    late = Outcome("quick", times=[0.1], missing=["shard 0 of c01"], evidence=Counter({"PodDeleted": 1}), rejected=[7, 1])
    console.print(chaos_print.table("Chaos", [(QUICK, late), (QUIET, Outcome("quiet", times=[0.004])), (QUICK, Outcome("quick"))]))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert ">30 s (1x)" in text
    assert "200 ms MISSED" in text
    assert "350x" not in text, "the ratio would leave out what failed"
    assert "7/1" in text
    assert "no move" in text


SOUND = {
    "lost": 0,
    "doubled": 0,
    "not_handed_over": [],
    "wrong_failovers": [],
    "violations": [],
    "unsettled": [],
    "troubles": [],
    "sent": 100,
    "n": 2,
    "max": 0.9,
    "evidence": {"PodDeleted": 2},
}
"""Figures of a machine that is busy: slow, and nothing is broken."""


def test_slow_is_not_broken() -> None:
    assert chaos_print.broken(SOUND, QUICK) == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"max": 3.1}, ["took 3.100 s; beyond 2 s it is broken, not slow"]),
        (
            {"evidence": {"ProbeTimeout": 2}},
            ["evidence ProbeTimeout is not what was to be seen (PodDeleted)", "the evidence of 0 of 2 handovers was seen (PodDeleted)"],
        ),
        ({"evidence": {}}, ["the evidence of 0 of 2 handovers was seen (PodDeleted)"]),
        ({"n": 0, "max": None, "evidence": {}}, ["nothing was measured"]),
        ({"lost": 1}, ["lost: 1"]),
        ({"wrong_failovers": ["x"]}, ["wrong_failovers: ['x']"]),
        ({"troubles": ["the fault did nothing"]}, ["troubles: ['the fault did nothing']"]),
        ({"sent": 0}, ["no message was sent"]),
    ],
)
def test_an_operator_that_decayed_fails_also_on_a_busy_machine(found: dict[str, Any], said: list[str]) -> None:
    assert chaos_print.broken({**SOUND, **found}, QUICK) == said


def test_the_bound_of_what_is_decided_at_once_is_below_the_path_over_the_probes_and_no_bound_is_loose() -> None:
    for fault in FAULTS:
        if fault.goal == table.QUICK_S:
            assert chaos_print.bound(fault) == pytest.approx(2.0)
        elif fault.goal is not None:
            assert fault.goal < chaos_print.bound(fault) <= min(2 * fault.goal, fault.goal + 4.0)


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
    fault = soak(600.0)
    assert (fault.failover, fault.watch, fault.everybody, fault.effects) == (False, 600.0, True, ("probes lost",))
    assert fault.name not in {one.name for one in table.FAULTS}


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
    found = judged(commit("c", epoch="9-x"), struck={"a"}, evidence={"9-x": "Requested"}, moves={"switchover"}, asked={("c00", 0)})
    assert found == Judged(Counter({"Requested": 1}), [])


async def test_nothing_is_sent_to_a_shard_that_is_no_more(tmp_path: Path) -> None:
    access = Access(
        server="https://127.0.0.1:1", authority=certificates.make(tmp_path / "made", service_ip="10.0.0.1").authority.read_text()
    )
    stream = Stream(access.write(tmp_path / "kubeconfig"), "default", "acme", lambda: cast("Any", None))
    stream.shards = 2
    async with asyncio.timeout(5.0):
        await stream._send_one(3)
    assert stream.messages == {}
