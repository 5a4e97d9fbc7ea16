"""How chaos judges without a cluster: whom a fault strikes, which handovers are right, what becomes of messages."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from localkube.errors import LocalKubeError
from localkube.kubeconfig import Access
from localkube.plane import certificates
from localkube.scenarios.cluster import Holder
from localkube.scenarios.faults.actions import victims_on
from localkube.scenarios.faults.hollow import FAULTS, named
from localkube.scenarios.runner import report as chaos_print
from localkube.scenarios.runner.case import Case, Fault, Victim, nothing
from localkube.scenarios.runner.judge import CAUSES, UNREPORTED, Judged, World, judge
from localkube.scenarios.runner.player import Outcome, _FaultRun
from localkube.scenarios.traffic import AcceptedMessage, Stream, account, first_taken, longest_gap
from outside.observer import Commit
from outside.traffic import Message
from wabiz_sim.gatewaylog import Audit, Entry, Kind, Totals
from wabiz_sim.sharding import shard_of

from .chaos_parts import commit

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
    taken = AcceptedMessage(shard=0, by="b", at=1000.0 + 60.2, known=160.3, home=0)
    _FaultRun(environment, OUTAGE, outcome, 1)._measure(victim, cast("Any", SimpleNamespace(taken=(taken,))))

    assert outcome.times == [pytest.approx(60.3)]
    figures = chaos_print.figures(outcome, OUTAGE)
    assert (figures["max"], figures["from_possible"]["max"]) == (60.3, 1.3)
    assert chaos_print.remarks(outcome)[-1] == "from when a handover could be made p50 1.30 s, max 1.30 s (n = 1)"
    assert "ratio" not in figures


def test_what_forbids_a_handover_for_a_while_is_allowed_so_much_more_and_has_no_ratio() -> None:
    allowed = {"api-down-10s": 39.0, "api-down-60s": 89.0, "api-429": 39.0, "last-spare": 33.0}
    assert {fault.name: fault.allowed for fault in FAULTS if fault.allowed != 30.0} == allowed
    assert not [name for name in allowed if chaos_print.is_compared(named(name)[0])]
    assert all("its process lives" in named(name)[0].what for name in ("api-down-10s", "api-down-60s", "api-429"))


# ---------------------------------------------------------------- handovers


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


def test_the_results_count_what_is_lost_doubled_and_rejected() -> None:
    mine = [
        message("good", rejections=Counter({"503": 2})),
        message("given up", ONE, delivered=None, lost=True, rejections=Counter({"503": 5, "TimeoutError": 1})),
        message("promised and gone", ONE),
        message("twice"),
    ]
    entries = [entry("good"), entry("twice"), entry("twice"), entry("a stranger's")]
    audit = Audit()
    audit.read(entries)
    results = account(mine, entries, shards=2, struck={0}, totals=audit.totals())
    assert (results.sent, results.lost, results.totals.doubled, results.rejected) == (4, 2, 1, (2, 6))
    assert results.words == {"503": 7, "TimeoutError": 1}
    assert len(results.taken) == 3


def taken(by: str, at: float, *, shard: int = 0) -> AcceptedMessage:
    return AcceptedMessage(shard, by, 1000.0 + at, at + 0.001)


def first(*rows: AcceptedMessage, **more: Any) -> float | None:
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


# ------------------------------------------------------------ what end-to-end tests add


def test_the_longest_gap_is_the_worst_shards_and_begins_with_the_change() -> None:
    def known(home: int, *times: float) -> list[AcceptedMessage]:
        return [AcceptedMessage(shard=home, by="uid", at=0.0, known=at, home=home) for at in times]

    even = known(0, 8.0, 10.5, 11.0, 12.0)
    late = known(1, 9.9, 10.2, 11.7)
    assert longest_gap([*even, *late], begun=10.0) == pytest.approx(1.5)
    assert longest_gap(known(0, 13.0), begun=10.0) == pytest.approx(3.0)
    assert longest_gap([], begun=10.0) is None


def test_results_know_the_shard_of_a_recipient_as_it_was_before_the_number_changed() -> None:
    to = next(f"49{number}" for number in range(1000) if shard_of(f"49{number}", 2) == 0 and shard_of(f"49{number}", 4) == 2)
    message = Message(id="m", to=to, sent_at=1.0, delivered_at=2.0)
    results = account([message], [entry("m", 2)], shards=2, struck=(), totals=Totals())
    assert [(one.shard, one.home) for one in results.taken] == [(2, 0)]


def test_what_a_user_asked_for_is_evidence_where_it_is_what_was_done() -> None:
    found = judged(commit("c", epoch="9-x"), struck={"a"}, evidence={"9-x": "Requested"}, moves={"switchover"}, asked={("c00", 0)})
    assert found == Judged(Counter({"Requested": 1}), [])


async def test_nothing_is_sent_to_a_shard_that_is_no_more(tmp_path: Path) -> None:
    access = Access(
        server="https://127.0.0.1:1", authority=certificates.make(tmp_path / "made", service_ip="10.0.0.1").authority.read_text()
    )
    stream = Stream(access.write(tmp_path / "kubeconfig"), "acme", lambda: cast("Any", None))
    stream.shards = 2
    async with asyncio.timeout(60.0):
        await stream._send_one(3)
    assert stream.messages == {}
