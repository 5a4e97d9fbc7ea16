"""The table of evidence, cell by cell; the self-check; hung pods; lost nodes; drained ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from whatsapp_operator.core.actions import AssignRole, Delete, Handover, Plan, Scale
from whatsapp_operator.core.evidence import EVIDENCE, Certainty
from whatsapp_operator.core.self_check import self_check
from whatsapp_operator.core.snapshot import Answer, Evidence, Node, Report, Silence

from .situations import NOW, Situation, labels_for, pod, seconds, situation
from .witnesses import out_of_reach, restarting

LATE = Silence(lag=seconds(1.5))


def failure(one: Situation, shard: int = 0) -> Evidence | None:
    return one.facts().failure(one.route(shard))


def of(plan: Plan, kind: type) -> list[Any]:
    return [action for action in plan.actions if isinstance(action, kind)]


def moved(one: Situation) -> list[tuple[int, str, Evidence, bool]]:
    return [(move.route.shard, move.to.name, move.evidence, move.planned) for move in of(one.plan(), Handover)]


def silent(span: float, **changes: Any) -> Situation:
    """The holder of shard 0 has not answered for so many seconds; its node lives."""
    return situation().settled().with_nodes().with_holder(0, unresponsive_since=NOW - seconds(span), **changes)


# --- which evidence, how certain


def test_what_is_probable() -> None:
    probable = {proof.evidence for proof in EVIDENCE if proof.certainty is Certainty.PROBABLE}

    assert probable == {Evidence.PROBE_TIMEOUT, Evidence.NOT_READY, Evidence.HOLDER_DISAGREES}


def test_pod_draining_when_it_was_evicted() -> None:
    assert failure(situation().settled().with_holder(0, deleting=True, disrupted=True)) is Evidence.POD_DRAINING
    assert failure(situation().settled().with_holder(0, disrupted=True)) is None


def test_node_gone_when_the_object_is_deleted_or_declared_dead() -> None:
    assert failure(situation().settled().with_nodes().with_node(0, gone=True)) is Evidence.NODE_GONE
    assert failure(situation().settled().with_nodes().with_node(0, out_of_service=True)) is Evidence.NODE_GONE


@pytest.mark.parametrize("gone", ["gone", "out_of_service"])
def test_what_was_known_of_a_node_proves_nothing_while_nodes_cannot_be_read(gone: str) -> None:
    """It may be there again, and its Coreapp still answers; if it does not, that is evidence of its own."""
    one = situation().settled().with_nodes().with_node(0, **{gone: True}).seeing(unread={"Node": "403 Forbidden"})

    assert failure(one) is None
    assert failure(one.with_holder(0, unresponsive_since=NOW - seconds(3))) is Evidence.PROBE_TIMEOUT


def test_nodes_of_which_nobody_reported_are_not_gone() -> None:
    assert failure(situation().settled()) is None
    assert failure(situation().settled().with_nodes().with_holder(0, node="new")) is None


def test_no_standby_is_taken_on_a_node_that_is_gone() -> None:
    one = situation().settled(spares=2).with_nodes().with_node(2, gone=True).holder_deleted(0)

    assert moved(one) == [(0, "acme-coreapp-3", Evidence.POD_DELETED, False)]


def test_probe_timeout_after_the_time_of_the_spec() -> None:
    assert failure(silent(2.9)) is None
    assert failure(silent(3)) is Evidence.PROBE_TIMEOUT
    assert failure(silent(3).wanting(unhealthy_after=seconds(10))) is None


def test_a_failover_for_silence_says_since_when() -> None:
    (move,) = of(silent(3.2).plan(), Handover)

    assert (move.evidence, move.failed_at) == (Evidence.PROBE_TIMEOUT, NOW - seconds(3.2))


def unready(span: float, **changes: Any) -> Situation:
    one = situation().settled().with_nodes().with_holder(0, ready=False, **{"lost_readiness": True, "report": None, **changes})
    return one.seeing(since={"NotReady/uid-0": NOW - seconds(span)})


def test_not_ready_long_after_the_time_of_the_spec() -> None:
    assert failure(unready(2.9)) is None
    assert failure(unready(3)) is Evidence.NOT_READY
    assert "NotReady/uid-0" in unready(0).plan().holds
    assert unready(1).plan().wake_after == seconds(2)


def test_a_coreapp_that_answers_us_is_not_failed_for_what_its_kubelet_says() -> None:
    assert failure(unready(60, report=situation().settled().holder_of(0).report)) is None


def test_a_coreapp_that_was_never_ready_is_starting_for_as_long_as_a_restart_may_take() -> None:
    assert failure(unready(179.9, lost_readiness=False)) is None
    assert unready(179, lost_readiness=False).plan().wake_after == seconds(1)
    assert failure(unready(180, lost_readiness=False)) is Evidence.NOT_READY
    assert of(unready(600, lost_readiness=False).without_pod(2).plan(), Delete) == [], "without a standby it may start on"


@pytest.mark.parametrize("changes", [{"unresponsive_since": NOW - seconds(60)}, {"ready": False, "lost_readiness": True}])
def test_a_restart_excuses_silence(changes: dict[str, Any]) -> None:
    one = restarting().with_nodes().with_holder(0, **changes).seeing(since={"NotReady/uid-0": NOW - seconds(60)})

    assert failure(one) is None
    assert of(one.plan(), Delete) == []


# --- a holder that says that it holds nothing

OTHER_ROLES = {
    "no shard": Report(shards=2),
    "another shard": Report(shard=1, epoch="10-first", shards=2, gateway="connected"),
    "another epoch": Report(shard=0, epoch="99-other", shards=2, gateway="connected"),
    "fenced off": Report(shard=0, epoch="10-first", shards=2, fenced=True),
}


def disagreeing(report: Report, span: float) -> Situation:
    """The holder of shard 0 has given this report for so many seconds."""
    return situation().settled().with_holder(0, report=report).seeing(since={"HolderDisagrees/0/10-first": NOW - seconds(span)})


@pytest.mark.parametrize("report", OTHER_ROLES.values(), ids=OTHER_ROLES)
def test_holder_disagrees_after_five_seconds(report: Report) -> None:
    one = disagreeing(report, 4.9)

    assert failure(one) is None
    assert "HolderDisagrees/0/10-first" in one.plan().holds
    assert one.plan().wake_after == seconds(0.1)
    assert one.condition("Ready")["reason"] == "FailingOver"
    assert moved(disagreeing(report, 5)) == [(0, "acme-coreapp-2", Evidence.HOLDER_DISAGREES, False)]
    assert of(disagreeing(report, 60).plan(), Delete) == [], "it is healthy"


@pytest.mark.parametrize(
    ("changes", "is_contradicted"),
    [
        ({"report": Report(shard=0, epoch="10-first", shards=2)}, True),  # logged off, perhaps; another holder would be no better
        ({"report": Report(shards=4)}, False),  # it runs with another number of shards
        ({"report": Report()}, False),  # it has just started
        ({"report": Report(shards=2), "unresponsive_since": NOW - seconds(2)}, False),  # what it said last may be over
        ({"report": None, "unresponsive_since": NOW - seconds(2)}, False),
    ],
)
def test_what_is_no_disagreement(changes: dict[str, Any], is_contradicted: bool) -> None:
    """Only an answer that it holds its shard contradicts what it said before."""
    one = situation().settled().with_holder(0, **changes)
    before = one.seeing(since={"HolderDisagrees/0/10-first": NOW - seconds(60)})

    assert failure(before) is None
    assert ("HolderDisagrees/0/10-first" in before.plan().holds) is not is_contradicted
    assert "HolderDisagrees/0/10-first" not in one.plan().holds or "unresponsive_since" in changes


@pytest.mark.parametrize("fact", ["HolderDisagrees/0/10-first", "HolderBehind/0/10-first"])
def test_an_error_does_not_contradict_what_a_holder_said_before(fact: str) -> None:
    one = situation().settled().with_holder(0, report=None)

    assert failure(one.seeing(since={fact: NOW - seconds(180)})) is Evidence.HOLDER_DISAGREES
    assert failure(one.seeing(since={fact: NOW - seconds(4.9)})) is None
    assert failure(one) is None


def test_a_new_epoch_that_did_not_help_is_not_tried_again_for_a_minute() -> None:
    def again(span: float) -> Situation:
        return disagreeing(OTHER_ROLES["fenced off"], span).with_route(0, evidence="HolderDisagrees")

    assert failure(again(59)) is None
    assert again(59).plan().wake_after == seconds(1)
    assert failure(again(60)) is Evidence.HOLDER_DISAGREES


def test_with_a_failed_self_check_and_without_a_standby_a_holder_may_disagree() -> None:
    one = disagreeing(OTHER_ROLES["no shard"], 60)

    assert moved(one.seeing(silence=LATE)) == []
    assert moved(one.without_pod(2)) == []
    assert [(tell.coreapp.name, tell.shard, tell.epoch) for tell in of(one.without_pod(2).plan(), AssignRole)] == [
        ("acme-coreapp-0", 0, "10-first")
    ], "it is assigned all the same"


BEHIND = "HolderBehind/0/10-first"
NUMBERS = {
    "no number": Report(),
    "another number": Report(shards=4),
    "another role": Report(shard=1, epoch="9-old", shards=4),
    "fenced off": Report(shard=0, epoch="10-first", shards=4, fenced=True),
}


def behind(report: Report, span: float) -> Situation:
    """The holder of shard 0 has answered for so many seconds that it runs with another number of shards than the client, or with none."""
    return situation().settled().with_holder(0, report=report).seeing(since={BEHIND: NOW - seconds(span)})


@pytest.mark.parametrize("report", NUMBERS.values(), ids=NUMBERS)
def test_a_holder_that_does_not_get_the_number_of_shards_is_replaced_after_the_time_of_a_restart(report: Report) -> None:
    one = behind(report, 179.9)

    assert failure(one) is None
    assert BEHIND in one.plan().holds
    assert one.plan().wake_after == seconds(0.1)
    assert moved(behind(report, 180)) == [(0, "acme-coreapp-2", Evidence.HOLDER_DISAGREES, False)]
    assert of(behind(report, 600).plan(), Delete) == [], "it may be healthy otherwise"


def test_the_number_that_counts_is_the_client_s_also_if_another_party_changed_it() -> None:
    one = behind(Report(), 180).reporting(4).with_pod(2, report=Report(shards=4))

    assert (one.facts().settled_shards, moved(one)) == (2, [(0, "acme-coreapp-2", Evidence.HOLDER_DISAGREES, False)])


@pytest.mark.parametrize(
    "one",
    [
        behind(Report(shard=0, epoch="10-first", shards=4), 600),  # it says that it serves
        behind(Report(), 600).with_pod(2, report=None),  # nobody is known to run with that number
        behind(Report(), 600).with_pod(2, report=Report(shards=4)),
        behind(Report(), 600).with_pod(2, ready=False),
        behind(Report(), 600).without_pod(2),  # a holder that runs with it can take no other shard
        behind(Report(), 600).reporting(None),
        behind(Report(), 600).reporting(None).with_pod(2, report=Report()),
        behind(Report(), 600).with_holder(0, report=Report(), unresponsive_since=NOW - seconds(2)),
        restarting().with_holder(0, report=Report()).seeing(since={BEHIND: NOW - seconds(600)}),
    ],
)
def test_what_a_number_of_shards_proves_nothing_about(one: Situation) -> None:
    assert failure(one) is None
    assert BEHIND not in one.seeing(since={}).plan().holds


@pytest.mark.parametrize("report", [Report(shard=0, epoch="10-first", shards=4), Report(shard=0, epoch="10-first", shards=2)])
def test_a_holder_that_says_that_it_serves_is_not_behind_any_more(report: Report) -> None:
    assert BEHIND not in behind(report, 600).plan().holds


def test_a_shard_goes_to_a_standby_with_a_number_of_shards_first() -> None:
    one = situation().settled(spares=2).with_pod(2, report=Report()).holder_deleted(0)

    assert moved(one) == [(0, "acme-coreapp-3", Evidence.POD_DELETED, False)]


def test_a_restart_excuses_disagreement() -> None:
    one = restarting().seeing(since={"HolderDisagrees/0/10-first": NOW - seconds(60)})

    assert failure(one) is None


@pytest.mark.parametrize("answer", [Answer.UNKNOWN, Answer.ACCEPTED])
def test_at_the_deadline_a_restart_explains_nothing_any_more_also_if_no_answer_is_known(answer: Answer) -> None:
    """An unknown answer may take ten minutes more to be settled."""
    ended = situation().settled().noted(4, answer).with_holder(0, terminated=True, ready=False, report=None)

    assert (failure(ended), failure(ended.later(178))) == (None, None)
    assert failure(ended.later(179)) is Evidence.CONTAINER_TERMINATED
    drained = situation().settled().with_nodes().noted(4, answer).with_node(0, leaving="cordoned")
    assert (drained.facts().draining, [route.shard for route in drained.later(179).facts().draining]) == ((), [0])


# --- that enough Coreapps are back


def overdue(one: Situation) -> Evidence | None:
    """Return the evidence against the holder of shard 0 if it is away, and the facts of this plan have held for long at the next one."""
    since = {fact: NOW - seconds(60) for fact in one.plan().holds}
    return failure(one.with_holder(0, ready=False, report=None).seeing(since=since))


def test_enough_are_back_only_while_they_are() -> None:
    """The last observation found them back; now they restart, perhaps once more."""
    one = restarting().restarted(4, [1, 2, 3, 4])
    since = {fact: NOW - seconds(60) for fact in one.plan().holds}

    assert overdue(one) is Evidence.RESTART_OVERDUE
    assert failure(restarting().with_holder(0, ready=False).seeing(since=since)) is None


def test_that_enough_are_back_is_said_of_one_call_only() -> None:
    """The next call is noted in place of the last one, whose restart was overdue: no observation lies between them."""
    former = restarting().restarted(4, [1, 2, 3, 4])
    since = {fact: NOW - seconds(60) for fact in former.plan().holds}
    one = former.noted(4, Answer.ACCEPTED, id="4-again", origin=4).with_holder(0, ready=False, report=None)

    assert failure(one.seeing(since=since)) is None


@pytest.mark.parametrize(("answer", "found"), [(Answer.NONE, None), (Answer.UNKNOWN, None), (Answer.ACCEPTED, Evidence.RESTART_OVERDUE)])
def test_nobody_is_back_from_a_call_that_was_not_accepted(answer: Answer, found: Evidence | None) -> None:
    """A call that logs the client on changes no number: all spares report it before they restart."""
    one = situation().settled(shards=1, spares=1).seeing(logged_off_at=NOW).calling(1)
    one = one.noted(1, answer, origin=1).with_holder(0, report=Report(shard=0, epoch="10-first", shards=1))

    assert overdue(one) is found


# --- the self-check


def nodes(names: Iterable[str], age: float = 1) -> dict[str, Node]:
    return {name: Node(name=name, ready=True, renewed_at=NOW - seconds(age)) for name in names}


def test_the_self_check_fails_when_the_loop_was_late() -> None:
    assert self_check(Silence(lag=seconds(0.9)), None, NOW) is None
    assert self_check(Silence(lag=seconds(1)), None, NOW) == "the operator itself was 1.0 s late"


@pytest.mark.parametrize(
    ("targets", "silent_ones", "names", "age", "fails"),
    [
        (9, 5, "abc", 1, True),
        (10, 5, "abc", 1, False),  # not more than half
        (9, 9, "ab", 1, False),  # on two nodes it may well be theirs
        (9, 5, "abc", 20, False),  # nodes that do not renew their Leases are lost, not the operator
    ],
)
def test_the_self_check_fails_when_most_are_silent_on_living_nodes(
    targets: int, silent_ones: int, names: str, age: float, fails: bool
) -> None:
    known = {**nodes(names, age), **nodes("z")}

    assert (self_check(Silence(targets=targets, unresponsive=silent_ones, nodes=frozenset(names)), known, NOW) is not None) == fails


@pytest.mark.parametrize(
    ("silent_ones", "ready", "fails"),
    [
        (5, "abc", True),
        (4, "abc", False),  # not more than half
        (9, "ab", False),  # on two nodes it may well be theirs
        (9, "", False),  # their kubelets, or the control plane for them, have given them up
    ],
)
def test_where_nothing_is_known_of_nodes_kubelets_are_the_witnesses(silent_ones: int, ready: str, fails: bool) -> None:
    silence = Silence(targets=9, unresponsive=silent_ones, nodes=frozenset("abcd"), ready_nodes=frozenset(ready))

    assert (self_check(silence, None, NOW) is not None) == fails


def test_who_was_not_asked_since_the_others_fell_silent_speaks_for_nobody() -> None:
    silence = Silence(targets=8, unresponsive=4, nodes=frozenset("abc"))

    assert self_check(silence, nodes("abc"), NOW) is None
    assert (
        self_check(replace(silence, not_asked=1), nodes("abc"), NOW) == "4 of 7 Coreapps on 3 live nodes are unresponsive at the same time"
    )


class Counted(Mapping[str, Node]):
    """Nodes that count how often one of them is observed."""

    def __init__(self, count: int) -> None:
        self._nodes = nodes(f"node-{number}" for number in range(count))
        self.touched = 0

    def __getitem__(self, name: str) -> Node:
        self.touched += 1
        return self._nodes[name]

    def __iter__(self) -> Iterator[str]:
        for name in self._nodes:
            self.touched += 1
            yield name

    def __len__(self) -> int:
        return len(self._nodes)


def touched_by_self_check(count: int) -> int:
    many = Counted(count)
    assert self_check(Silence(targets=count, unresponsive=count, nodes=frozenset(many)), many, NOW) is not None
    return many.touched


def touched_by_plan(count: int, silent_ones: int) -> int:
    many = Counted(count)
    one = situation().settled(shards=16, spares=silent_ones).seeing(nodes=many)
    for ordinal in range(silent_ones):
        one = one.with_pod(ordinal, unresponsive_since=NOW - seconds(60), report=None)
    assert moved(one)
    return many.touched


def test_the_self_check_costs_a_walk_over_the_nodes_and_not_one_for_each_of_them() -> None:
    assert touched_by_self_check(400) <= 5 * 400
    assert touched_by_self_check(800) <= 2.1 * touched_by_self_check(400)


def test_a_plan_walks_over_the_nodes_a_few_times_however_many_pods_are_silent() -> None:
    assert touched_by_plan(1000, 6) - touched_by_plan(1000, 2) <= 2000


def test_a_watch_that_tells_nothing_any_more_makes_no_node_lost() -> None:
    one = silent(3).with_node(0, renewed_at=NOW - seconds(60)).with_node(1, renewed_at=NOW - seconds(60)).with_node(2, renewed_at=None)

    assert one.facts().out_of_reach == ()


def test_a_cluster_of_one_shard_and_one_spare_is_not_disarmed() -> None:
    one = situation().settled(shards=1).with_nodes().with_holder(0, unresponsive_since=NOW - seconds(3))
    one = one.seeing(silence=Silence(targets=2, unresponsive=2, nodes=frozenset({"node-0", "node-1"})))

    assert failure(one) is Evidence.PROBE_TIMEOUT


def test_with_a_failed_self_check_only_certain_evidence_counts() -> None:
    one = silent(60).seeing(silence=LATE)

    assert one.row() == "UpToDate"
    assert of(one.plan(), Delete) == []
    assert (one.condition("Ready")["status"], one.condition("Ready")["reason"]) == ("Unknown", "SelfCheckFailed")
    assert one.with_holder(1, terminated=True, ready=False).row() == "FailingOver"
    assert one.holder_deleted(1).row() == "FailingOver"


def test_a_failed_self_check_is_not_said_of_what_it_does_not_hold_back() -> None:
    assert situation().settled().seeing(silence=LATE).condition("Ready")["reason"] == "Serving"


# --- more failures than spares


def test_the_lowest_shards_are_served_first_and_the_rest_is_said() -> None:
    one = situation().settled(shards=4, spares=1).holder_deleted(3).holder_deleted(1)

    assert moved(one) == [(1, "acme-coreapp-4", Evidence.POD_DELETED, False)]
    after = one.held_by(1, 4)
    assert after.condition("Ready")["reason"] == "Unserved"
    assert "shard 3" in after.condition("Ready")["message"]


# --- the hung pod


def hung(span: float = 6, node_renewed: float = 1) -> Situation:
    """Pod 0 does not answer; its shard was handed over to pod 2."""
    one = situation().settled().with_nodes().held_by(0, 2).with_pod(0, unresponsive_since=NOW - seconds(span))
    return one.with_node(0, renewed_at=NOW - seconds(node_renewed))


def test_a_hung_pod_is_deleted_once_its_shard_has_moved() -> None:
    assert of(silent(5).plan(), Delete) == [], "first the handover"
    (end,) = of(hung().plan(), Delete)

    assert (end.ref.kind, end.ref.name, end.uid, end.resource_version) == ("Pod", "acme-coreapp-0", "uid-0", "500")


def test_not_while_another_leader_may_give_it_a_shard_in_the_next_moment() -> None:
    """Its pending label is made dead by a touch first."""
    prepared = hung().with_pod(0, labels=labels_for(0, "9999-other"))
    assert prepared.facts().claim(prepared.snapshot.coreapps[0]) == "pending"
    assert of(prepared.plan(), Delete) == []
    assert len(of(hung().with_pod(0, labels=labels_for(0, "1-dead")).plan(), Delete)) == 1


def test_not_before_its_node_has_shown_that_it_lives() -> None:
    assert of(hung(node_renewed=7).plan(), Delete) == []


def test_that_we_began_to_listen_is_no_sign_of_life() -> None:
    assert of(hung().with_node(0, presumed=True).plan(), Delete) == []


def test_on_a_lost_node_it_is_left() -> None:
    assert of(hung(span=60, node_renewed=61).plan(), Delete) == []
    assert of(hung().with_node(0, ready=None).plan(), Delete) == []


def test_without_the_right_to_read_nodes_long_silence_must_do() -> None:
    assert of(hung(span=14).seeing(nodes=None).plan(), Delete) == []
    assert len(of(hung(span=15).seeing(nodes=None).plan(), Delete)) == 1


def test_without_a_standby_the_holder_is_deleted_after_twice_the_time() -> None:
    one = situation().settled(spares=0).with_nodes()

    assert of(one.with_holder(0, unresponsive_since=NOW - seconds(5.9)).plan(), Delete) == []
    assert len(of(one.with_holder(0, unresponsive_since=NOW - seconds(6)).plan(), Delete)) == 1
    assert of(one.wanting(manual=True).with_holder(0, unresponsive_since=NOW - seconds(6)).plan(), Delete) == []


def test_a_coreapp_that_starts_slowly_is_not_deleted() -> None:
    assert of(hung().with_pod(0, ready=False).plan(), Delete) == []


# --- nodes that are drained


def test_shards_leave_a_node_that_is_drained_before_the_pod_dies() -> None:
    one = situation().settled(spares=2).with_nodes().with_node(0, leaving="cordoned")

    assert moved(one) == [(0, "acme-coreapp-2", Evidence.POD_DRAINING, True)]
    assert one.row() == "Draining"
    assert one.wanting(paused=True).row() == "Draining"
    assert moved(one.wanting(manual=True)) == []


def test_nothing_moves_onto_a_node_that_is_drained_too() -> None:
    one = situation().settled().with_nodes().with_node(0, leaving="cordoned").with_node(2, leaving="cordoned")

    assert moved(one) == []
    assert one.row() == "UpToDate"


def test_a_failover_takes_a_standby_that_stays_if_there_is_one() -> None:
    one = situation().settled(spares=2).with_nodes().with_node(2, leaving="karpenter.sh/disrupted").holder_deleted(0)

    assert [to for _, to, _, _ in moved(one)] == ["acme-coreapp-3"]
    alone = situation().settled(spares=1).with_nodes().with_node(2, leaving="karpenter.sh/disrupted").holder_deleted(0)
    assert [to for _, to, _, _ in moved(alone)] == ["acme-coreapp-2"]


def test_no_shard_is_moved_off_a_drained_node_while_all_restart() -> None:
    assert moved(restarting().with_nodes().with_node(0, leaving="cordoned")) == []


def test_a_standby_in_another_zone_is_taken_first() -> None:
    one = situation().settled(spares=2).with_nodes().with_holder(0, terminated=True, ready=False).with_node(2, zone="zone-node-0")

    assert [to for _, to, _, _ in moved(one)] == ["acme-coreapp-3"]


# --- pods out of reach


def test_a_pod_out_of_reach_is_made_good_after_a_minute() -> None:
    assert out_of_reach(59).replicas(3).without_pod(3).facts().desired_replicas == 3
    one = out_of_reach(60).replicas(3).without_pod(3)

    assert one.facts().desired_replicas == 4
    assert [scale.replicas for scale in of(one.plan(), Scale)] == [4]
    assert "acme-coreapp-0 (node-0)" in out_of_reach(60).plan().decision.why


def test_it_may_be_terminating_for_ever() -> None:
    assert out_of_reach(3600).facts().desired_replicas == 4


def test_no_more_than_there_are_spares() -> None:
    one = situation().settled(shards=4, spares=1).with_nodes()
    for ordinal in (0, 1, 2):
        one = one.with_node(ordinal, ready=None).with_pod(ordinal, unresponsive_since=NOW - seconds(90), report=None)
    one = one.seeing(since={f"NodesUnreachable/uid-{ordinal}": NOW - seconds(90) for ordinal in (0, 1, 2)})

    assert one.facts().desired_replicas == 6


def test_when_it_is_back_the_one_that_stood_in_goes_again_after_its_shard_was_moved_down() -> None:
    back = situation().settled().with_nodes().with_pods([3])

    assert [scale.replicas for scale in of(back.retiring(3).plan(), Scale)] == [3]
    assert moved(back.held_by(0, 3)) == [(0, "acme-coreapp-0", Evidence.CONSOLIDATED, True)]


def test_no_shard_is_moved_off_the_pod_that_stands_in() -> None:
    assert moved(out_of_reach(90).held_by(1, 3)) == []


def test_a_new_leader_does_not_take_away_what_stands_in() -> None:
    one = out_of_reach(3600).seeing(since={})

    assert one.facts().desired_replicas == 4
    assert of(one.plan(), Scale) == []
    assert one.replicas(3).without_pod(3).facts().desired_replicas == 3, "but it adds nothing before the minute is over"


def test_no_shard_is_packed_onto_a_node_that_is_drained() -> None:
    one = situation().settled().with_nodes().with_pods([3]).held_by(0, 3).with_node(0, leaving="cordoned").with_node(2, leaving="cordoned")

    assert moved(one) == []
    assert of(one.plan(), Scale) == []


def test_while_a_call_is_unsettled_nothing_is_lowered() -> None:
    one = situation().settled().with_nodes().with_pods([3]).noted(2, Answer.UNKNOWN)

    assert of(one.plan(), Scale) == []


def test_a_pod_that_hangs_does_not_count_as_ready() -> None:
    assert [one.name for one in silent(3).facts().ready] == ["acme-coreapp-1", "acme-coreapp-2"]
    assert pod(0, unresponsive_since=NOW).is_ready, "a single lost probe is nothing"


# --- a foreign pod with the labels of a holder


def copied(span: float, **changes: Any) -> Situation:
    one = situation().settled().with_route(0, copied_by="debug", **changes)
    return one.seeing(since={"LabelConflict/0/10-first": NOW - seconds(span)})


def test_label_conflict_when_a_foreign_pod_has_the_labels_of_a_holder() -> None:
    assert failure(copied(0.9)) is None
    assert moved(copied(1)) == [(0, "acme-coreapp-2", Evidence.LABEL_CONFLICT, False)]
    assert failure(copied(1), 1) is None
    assert "LabelConflict/0/10-first" in copied(0).plan().holds
    assert copied(0.75).plan().wake_after == seconds(0.25)


def test_a_shard_stays_once_the_foreign_pod_has_lost_the_labels() -> None:
    """The last observation found them still."""
    assert failure(copied(1000).with_route(0, copied_by=None)) is None


def test_a_shard_whose_labels_are_copied_again_moves_again_after_a_minute() -> None:
    assert failure(copied(59.9, evidence="LabelConflict")) is None
    assert failure(copied(60, evidence="LabelConflict")) is Evidence.LABEL_CONFLICT


@pytest.mark.parametrize("span", [0, 1])
def test_a_shard_that_leads_to_a_foreign_pod_as_well_is_not_served(span: float) -> None:
    assert not copied(span).facts().is_served(copied(span).route(0))
