"""How chaos plays a fault, without a cluster: a whole play is measured, undone and judged."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, cast

import pytest

from localkube.errors import LocalKubeError
from localkube.hollow.pods import RESTART_S
from localkube.scenarios.cluster import Holder
from localkube.scenarios.faults import hollow as table
from localkube.scenarios.faults.hollow import FAULTS
from localkube.scenarios.runner import player as measure
from localkube.scenarios.runner import report as chaos_print
from localkube.scenarios.runner.case import Case, Fault
from localkube.scenarios.runner.judge import CAUSES
from localkube.scenarios.runner.player import Outcome, Player
from localkube.scenarios.traffic import AcceptedMessage, Mark, MessageResults
from outside.laws import Violation
from outside.observer import Commit
from wabiz_sim.gatewaylog import Audit, Totals

from .chaos_parts import QUICK, commit

# ---------------------------------------------------------------- a whole play


class FakeLog:
    """The log of the WhatsApp servers, as far as a play reads it itself."""

    def __init__(self) -> None:
        self.audit = Audit()


class FakeStream:
    """A stream whose results are written by the test."""

    def __init__(self) -> None:
        self.log = FakeLog()
        self.taken: list[AcceptedMessage] = []
        self.totals = Totals()

    def burst(self, shard: int, seconds: float) -> None:
        """Nothing is sent."""

    def delivered_since(self, shard: int, since: float) -> bool:
        return any(one.shard == shard and one.known >= since for one in self.taken)

    async def mark(self) -> Mark:
        return Mark(time.monotonic(), 0, 1, self.totals)

    async def results(self, mark: Mark, struck: Collection[int]) -> MessageResults:
        return MessageResults(
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


class FakeEnvironment:
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
        self.stream.taken.append(AcceptedMessage(0, by, time.time() + after, time.monotonic() + after))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> FakeEnvironment:
    monkeypatch.setattr(measure, "CALM_S", 0.0)
    return FakeEnvironment()


async def played(environment: FakeEnvironment, strike: Callable[[Case[Any]], None], **row: Any) -> Outcome:
    async def struck(case: Case[Any]) -> None:
        strike(case)

    fault = Fault[Any](name="f", what="f", strike=struck, **{"everybody": True, "evidence": {"PodDeleted"}, "allowed": 0.2, **row})
    return await Player(cast("Any", environment), n=1, quiet=True).play(fault)


def strikes(environment: FakeEnvironment, *, gone: bool = True, word: str = "PodDeleted") -> Callable[[Case[Any]], None]:
    def strike(case: Case[Any]) -> None:
        case.strike("c00", 0)
        environment.gone = gone
        environment.moves_shard(word)

    return strike


async def test_a_fault_that_was_seen_to_do_something_is_measured(environment: FakeEnvironment) -> None:
    outcome = await played(environment, strikes(environment), effects=("pods ended",))
    assert (outcome.n, outcome.troubles, outcome.wrong_failovers, outcome.evidence) == (1, [], [], Counter({"PodDeleted": 1}))
    assert outcome.effects["pods ended"] == 1
    begun, ended = outcome.samples[0]["window"]
    assert time.time() - 60 < begun <= ended <= time.time()


@pytest.mark.parametrize("asks", [True, False])
async def test_a_switchover_is_right_only_where_the_scenario_asked_for_it(environment: FakeEnvironment, asks: bool) -> None:
    """As when a leader ends and a user asks its successor: no holder is struck."""

    def strike(case: Case[Any]) -> None:
        if asks:
            case.asked.add(("c00", 0))
        case.measured.append(0.1)
        environment.moves_shard("Requested")

    outcome = await played(environment, strike, failover=False, moves={"switchover"})
    assert outcome.wrong_failovers == ([] if asks else ["shard 0 of c00 to pod-1 (Requested)"])


async def test_everything_is_undone_in_turn_also_when_some_of_it_fails(environment: FakeEnvironment) -> None:
    undone: list[str] = []

    def strike(case: Case[Any]) -> None:
        strikes(environment)(case)
        case.exits.callback(undone.append, "exits")

    async def undo(_: Case[Any]) -> None:
        undone.append("undo")
        msg = "the node does not come back"
        raise LocalKubeError(msg)

    outcome = await played(environment, strike, undo=undo)
    assert undone[:2] == ["undo", "exits"]
    assert outcome.troubles[0] == "the node does not come back"


async def test_a_fault_that_does_nothing_is_a_trouble(environment: FakeEnvironment) -> None:
    outcome = await played(environment, strikes(environment, gone=False), effects=("pods ended",))
    assert outcome.troubles == ["the fault did nothing: 0 pods ended (c00)"]


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.effects != table.ENDED], ids=lambda fault: str(fault.name))
async def test_each_fault_of_the_table_that_does_nothing_is_a_trouble(environment: FakeEnvironment, fault: Fault[Any]) -> None:
    environment.counted.update({("a stranger's", name): 5 for name in fault.effects} | {("a", name): 5 for name in fault.effects})
    outcome = await played(environment, strikes(environment, gone=False), effects=fault.effects)
    assert fault.effects
    assert outcome.troubles == [f"the fault did nothing: 0 {name} (c00)" for name in fault.effects], "what was before is not its own"


async def test_a_sound_coreapp_that_is_gone_is_a_trouble_where_pods_must_stay(environment: FakeEnvironment) -> None:
    def strike(case: Case[Any]) -> None:
        strikes(environment)(case)
        environment.pods = {"c"}

    assert (await played(environment, strike)).troubles == []
    environment.pods = {"a", "b"}
    outcome = await played(environment, strike, pods_stay=True)
    assert outcome.troubles == ["1 sound Coreapps are gone: pod-b"], "that of the holder is the fault's own doing"


async def test_what_a_fault_found_out_and_a_process_that_ended_are_troubles(environment: FakeEnvironment) -> None:
    def strike(case: Case[Any]) -> None:
        strikes(environment)(case)
        case.troubles.append("written 99 times")
        environment.ended = "operator-0 exited with status 1"

    outcome = await played(environment, strike)
    assert (outcome.n, outcome.troubles) == (1, ["written 99 times", "operator-0 exited with status 1"])


async def test_what_is_counted_of_a_pod_that_was_struck_is_the_faults(environment: FakeEnvironment) -> None:
    def strike(case: Case[Any]) -> None:
        strikes(environment)(case)
        environment.counted[("a", "requests held")] += 3

    outcome = await played(environment, strike, effects=("requests held",))
    assert (outcome.troubles, outcome.effects["requests held"]) == ([], 3)


async def test_an_answer_of_the_old_holder_between_the_kill_and_its_return_is_no_handover(environment: FakeEnvironment) -> None:
    def strike(case: Case[Any]) -> None:
        case.strike("c00", 0)
        environment.answers("a")

    outcome = await played(environment, strike, resumes=True)
    assert (outcome.times, outcome.resumed, len(outcome.not_handed_over)) == ([], [], 1)


async def test_an_answer_through_another_without_a_commit_is_no_handover(environment: FakeEnvironment) -> None:
    def strike(case: Case[Any]) -> None:
        case.strike("c00", 0)
        environment.answers("1")

    outcome = await played(environment, strike)
    assert (outcome.times, len(outcome.not_handed_over)) == ([], 1)


async def test_a_holder_that_was_back_before_anybody_took_over_is_reported_apart(environment: FakeEnvironment) -> None:
    def strike(case: Case[Any]) -> None:
        case.strike("c00", 0)
        environment.answers("a", after=RESTART_S)

    outcome = await played(environment, strike, resumes=True)
    assert (outcome.times, outcome.not_handed_over, outcome.n) == ([], [], 0)
    assert outcome.resumed
    assert chaos_print.complaints(outcome, QUICK, n=1) == ["quick: measured 0 times only, not 1"]
    assert any("were back before another took over" in text for text in chaos_print.remarks(outcome))


@pytest.mark.parametrize("word", sorted(CAUSES.values()))
async def test_a_play_does_not_believe_the_operators_word(environment: FakeEnvironment, word: str) -> None:
    outcome = await played(environment, strikes(environment, word=word), failover=False, evidence=frozenset())
    assert outcome.wrong_failovers == [f"shard 0 of c00 to pod-1 ({word})"]


async def test_two_holders_in_the_servers_log_break_a_law(environment: FakeEnvironment) -> None:
    environment.stream.totals = Totals(below_epoch=2, overlaps=1)
    outcome = await played(environment, strikes(environment))
    assert [text for text in outcome.violations if "took 2 messages" in text and "at once 1 times" in text]
