"""When to observe again: how often each rule has a cluster observed, and that no known time is missed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from whatsapp_operator.core import pace, rules
from whatsapp_operator.core.actions import GetShards
from whatsapp_operator.core.snapshot import AccountSecret, Answer, Workload
from whatsapp_operator.core.windows import Window

from .situations import NOW, Situation, seconds, situation
from .test_order_of_rules import ORDER
from .witnesses import WITNESSES, growing, out_of_reach, rejected_webapp, restarting

BUSY = {"Verifying", "Restarting", "AnswerUnknown"}
"""Rules under which only the client's answer moves anything on; each ends at a time that is noted."""


def observed(one: Situation, *, start: float, minutes: float = 1.0, answers: bool = True) -> tuple[int, str]:
    """Return how often a cluster is observed in that time if nothing changes, from so many seconds on, and which rule wins at the end.

    ``answers``: the client answers each question at once, which brings about an observation.
    """
    passed, count, end = 0.0, 0, start + 60 * minutes
    first, silences = one.snapshot.now, {pod.uid: pod.unresponsive_since for pod in one.snapshot.coreapps}
    rule = one.row()
    # Nodes that are alive renew their Leases all the time.
    fresh = [name for name, node in (one.snapshot.nodes or {}).items() if node.renewed_at == one.snapshot.now - seconds(1)]
    while passed < end:
        now = first + seconds(passed)
        nodes = one.snapshot.nodes and {
            name: replace(node, renewed_at=now) if name in fresh else node for name, node in one.snapshot.nodes.items()
        }
        one = one.seeing(now=now, nodes=nodes)
        plan = one.plan()
        since = {fact: one.snapshot.since.get(fact, now) for fact in plan.holds}
        one = one.seeing(since=since, record=plan.record)
        count += passed >= start
        rule = plan.decision.rule
        asked = any(isinstance(action, GetShards) for action in plan.actions)
        if asked and answers and one.snapshot.client.unresponsive_since is None:
            # The answer comes a moment later, and is observed.
            one, passed = one.client(asked_at=now), passed + 0.01
            count += passed >= start
        assert plan.wake_after is not None
        assert plan.wake_after > timedelta(0)
        passed += plan.wake_after.total_seconds()
    assert {pod.uid: pod.unresponsive_since for pod in one.snapshot.coreapps} == silences
    return count, rule


@pytest.mark.slow
@pytest.mark.parametrize("name", ORDER)
def test_a_rule_that_goes_on_winning_has_its_cluster_observed_seldom(name: str) -> None:
    """Observations in a minute: after half a minute, and after an hour of which nobody took notice."""
    early, rule = observed(WITNESSES[name], start=30.0)
    assert early <= (75 if rule in BUSY else 20), f"{rule}, early"
    late, rule = observed(WITNESSES[name], start=3600.0)
    # A call that gets no answer is made again when it is settled, so that one may be unknown at any time.
    assert late <= (30 if rule in BUSY else 6), f"{rule}, late"


def test_one_dead_node_costs_nearly_nothing() -> None:
    count, rule = observed(out_of_reach(100).with_nodes().with_node(0, ready=None, renewed_at=NOW - seconds(100)), start=300.0)
    assert rule in {"NodesUnreachable", "ReplacingPods"}
    assert count <= 6


def test_a_silent_client_is_asked_less_and_less_and_never_more_than_a_quarter_late() -> None:
    one = situation().settled().client(unresponsive_since=NOW)
    count, _ = observed(one, start=60.0)
    assert count in range(2, 8)
    now = NOW + seconds(40)
    since = dict.fromkeys(one.plan().holds, NOW)
    assert one.seeing(now=now, since=since).plan().wake_after == seconds(10)


@pytest.mark.parametrize(("stood", "pause"), [(0, 0.25), (2, 0.5), (8, 2), (20, 5), (120, 30), (10_000, 30)])
def test_the_pause_is_a_quarter_of_the_time_that_a_condition_has_stood(stood: float, pause: float) -> None:
    one = situation().settled().replicas(4).with_pod(2, ready=False)
    (fact,) = (fact for fact in one.plan().holds if fact.startswith("Stands/"))
    assert one.seeing(since={fact: NOW - seconds(stood)}).plan().wake_after == seconds(pause)


def test_what_moves_on_is_observed_often_again() -> None:
    one = situation().settled().replicas(5).with_pods([3, 4], ready=False)
    since = {fact: NOW - seconds(600) for fact in one.plan().holds}
    assert one.seeing(since=since).plan().wake_after == seconds(30)
    assert one.seeing(since=since).with_pod(3, ready=True).plan().wake_after == seconds(0.25)


def minute_of(hour: int, minute: int) -> Window:
    return Window(name="soon", schedule=f"{minute} {hour} * * *", duration=timedelta(minutes=10))


KNOWN_TIMES: list[tuple[str, Situation, float]] = [
    ("a window opens", growing().wanting(windows=(minute_of(12, 1),)).seeing(now=NOW + seconds(45)), 15.0),
    ("Coreapps are waited for no longer", WITNESSES["AwaitingCoreapps"].seeing(since={"LacksCoreapps": NOW - seconds(172)}), 8.0),
    ("the restart is overdue", restarting().seeing(now=NOW + seconds(178.5)), 0.5),
    ("the intent is settled", growing().noted(4, Answer.UNKNOWN).seeing(now=NOW + seconds(837.5)), 1.5),
    ("the certificate is too old", growing().with_account(expires_at=NOW + timedelta(hours=24, seconds=7)).wanting(paused=True), 7.0),
    (
        "the certificate is too old by the API server's clock",
        growing()
        .with_account(expires_at=NOW + timedelta(hours=24, seconds=7))
        .wanting(paused=True)
        .seeing(wall=NOW - timedelta(days=3), server_time=NOW + timedelta(seconds=2)),
        5.0,
    ),
    ("a silent pod is ended", situation().settled().with_pod(2, unresponsive_since=NOW - seconds(5.5)), 0.5),
]


@pytest.mark.parametrize(("one", "left"), [row[1:] for row in KNOWN_TIMES], ids=[row[0] for row in KNOWN_TIMES])
def test_no_known_time_is_missed(one: Situation, left: float) -> None:
    """All that has long stood: at the very time that decides something there is an observation."""
    plan = one.plan()
    since = {fact: one.snapshot.now - seconds(100_000) for fact in plan.holds if fact.startswith("Stands/")}
    found = one.seeing(since={**one.snapshot.since, **since}).plan()
    assert found.wake_after == seconds(left)


def test_Webapps_that_are_replaced_are_observed_soon_again() -> None:  # noqa: N802
    """That the Deployment's controller has observed the newest template has no event: no pod need change for it."""
    one = situation().settled().seeing(webapps_change=True)
    assert one.row() == "ReplacingPods"
    assert one.plan().wake_after == timedelta(milliseconds=250)
    assert pace.standing(one.facts(), "ReplacingPods") in one.plan().holds, "less and less often, should it last"


FIVE = Workload(uid="deploy", resource_version="8", replicas=5, ready=2)
NOTHING_TELLS: dict[str, Situation] = {
    "a name is free again": WITNESSES["NameConflict"],
    "a right is back": WITNESSES["ReadFailed"],
    "a right is back, and something else stays wrong": WITNESSES["ReadFailed"].wanting(invalid="what"),
    "a Secret is put right": situation().settled().seeing(malformed="Key tls.crt of Secret tls is no certificate."),
    "a certificate is there": situation().settled().with_account(secret=AccountSecret()),
    "the Deployment's controller makes pods again": rejected_webapp(),
    "the same while a pod is missing": rejected_webapp().with_pod(2, ready=False),
    "an autoscaler wants fewer Webapps": situation().settled().wanting(webapps=None).seeing(webapp=FIVE),
}
"""Something is said of a cluster that is as it should be otherwise, and what ends it."""


@pytest.mark.parametrize("one", NOTHING_TELLS.values(), ids=NOTHING_TELLS)
def test_what_a_person_puts_right_without_an_event_is_noticed_after_a_quarter_of_the_time(one: Situation) -> None:
    plan = one.plan()
    (fact,) = (fact for fact in plan.holds if fact.startswith("Stands/"))

    def wakes(stood: float) -> timedelta | None:
        return one.seeing(since={**one.snapshot.since, fact: NOW - seconds(stood)}).plan().wake_after

    assert plan.wake_after is not None
    assert plan.wake_after <= seconds(1)
    assert (wakes(40), wakes(1000)) == (seconds(10), seconds(30))


def test_a_cluster_of_which_nothing_is_said_rests() -> None:
    assert situation().settled().plan().wake_after == WITNESSES["Deleting"].plan().wake_after == seconds(30)
    assert WITNESSES["ChangedByAdmission"].plan().wake_after == seconds(30)


@pytest.mark.parametrize("said", ["a name is free again", "a right is back", "a certificate is there"])
def test_a_cluster_that_is_being_deleted_rests_no_matter_what_is_said_of_it(said: str) -> None:
    deleted = NOTHING_TELLS[said].wanting(deleting=True)

    assert deleted.plan().wake_after == seconds(30)
    assert pace.awaited(deleted.facts(), "Deleting", ["ReadFailed"]) is None


def test_a_step_that_an_event_allows_is_not_held_up_by_an_old_answer() -> None:
    """Shrinking needs a fresh number of shards; the event that allows it finds one that is 20 s old."""
    one = situation().settled().with_pods([3]).client(asked_at=NOW - seconds(20))
    since = {fact: NOW - seconds(600) for fact in one.plan().holds}
    plan = one.seeing(since=since).plan()
    assert plan.decision.rule == "ScalingDown"
    assert [action for action in plan.actions if isinstance(action, GetShards)] == [GetShards()]


@pytest.mark.parametrize(("failures", "pause"), [(0, 0.1), (1, 0.1), (2, 0.2), (6, 3.2), (7, 5.0), (1000, 5.0)])
def test_retries_double_up_to_a_bound(failures: int, pause: float) -> None:
    assert pace.retry_after(failures) == seconds(pause)


@pytest.mark.parametrize(("clusters", "rest"), [(1, 0.1), (50, 5), (1000, 100)])
def test_of_many_quiet_clusters_each_rests_longer(clusters: int, rest: float) -> None:
    assert pace.quiet_rest(clusters) == seconds(rest)


def test_every_rule_of_the_table_is_one() -> None:
    names = {row.name for row in rules.RULES}
    assert set().union(*(row.rules for row in pace.CADENCES)) <= names
    assert all(row.why and row.first <= row.longest for row in pace.CADENCES)
    assert pace.CADENCES[-1].rules == frozenset()
