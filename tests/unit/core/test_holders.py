"""Who holds, who failed and who may take over: labels, evidence, standbys and pairs, condition by condition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from whatsapp_operator.core import evidence, handovers, health, manifests
from whatsapp_operator.core.actions import Annotate, EmitEvent, Handover
from whatsapp_operator.core.desired import Switchover
from whatsapp_operator.core.snapshot import Answer, Evidence, Report, Silence, Workload

from .plans import of
from .situations import NONCE, NOW, Situation, epoch_of, labels_for, pod, seconds, situation
from .witnesses import WITNESSES, restarting

SETTLED = situation().settled()
SELF_CHECK_FAILED = Silence(lag=seconds(2))


def failure(one: Situation, shard: int = 0) -> Evidence | None:
    return one.facts().failure(one.route(shard))


# --- what a label is worth


def claim(one: Situation, ordinal: int) -> str:
    return one.facts().claim(next(other for other in one.snapshot.coreapps if other.ordinal == ordinal))


@pytest.mark.parametrize(
    "labels",
    [
        labels_for(1, epoch_of(0)),  # another shard
        {**labels_for(0, epoch_of(0)), manifests.ROLE_LABEL: "standby"},
        {manifests.EPOCH_LABEL: epoch_of(0), manifests.ROLE_LABEL: "active"},
        {manifests.EPOCH_LABEL: epoch_of(0), manifests.SHARD_LABEL: "0"},
    ],
)
def test_a_holder_that_lost_a_label_of_the_selector_is_damaged(labels: dict[str, str]) -> None:
    assert claim(SETTLED.with_pod(0, labels=labels), 0) == "damaged"
    assert claim(SETTLED.with_route(0, foreign=True).with_pod(0, labels=labels), 0) != "damaged", "that Service belongs to nobody here"


def test_another_pod_with_a_holders_epoch_holds_nothing_of_its_own() -> None:
    assert claim(SETTLED.with_pod(2, labels=labels_for(0, epoch_of(0))), 2) == "committed"
    assert claim(SETTLED.with_pod(2, labels=labels_for(1, epoch_of(0))), 2) == "dead", "the Service of shard 1 has moved past it"


@pytest.mark.parametrize(("epoch", "worth"), [("100-x", "pending"), ("101-x", "pending"), ("99-x", "dead")])
def test_a_label_without_a_shard_may_be_any_shards(epoch: str, worth: str) -> None:
    one = SETTLED.with_pod(2, labels={manifests.EPOCH_LABEL: epoch})

    assert claim(one, 2) == worth
    foreign = one.with_route(0, foreign=True).with_route(1, foreign=True)
    assert claim(foreign, 2) == "dead", "no operator commits to a foreign Service"


@pytest.mark.parametrize(
    ("labels", "touched", "worth", "shards"),
    [
        (labels_for(0, "105-x"), None, "pending", [0]),
        (labels_for(0, "105-x"), "105-y", "pending", [0]),
        (labels_for(0, "105-x"), "105-x", "invalid", []),
        (labels_for(0, "99-x"), "99-x", "dead", []),
        (labels_for(1, "105-x"), "105-x", "pending", [1]),
        ({manifests.EPOCH_LABEL: "105-x"}, "105-x", "pending", [1]),
        ({manifests.EPOCH_LABEL: "100-x"}, "100-x", "dead", []),
    ],
)
def test_a_label_above_the_version_to_which_its_own_touch_moved_the_Service_is_nobodys(  # noqa: N802
    labels: dict[str, str], touched: str | None, worth: str, shards: list[int]
) -> None:
    one = SETTLED.with_route(0, touched=touched).with_pod(2, labels=labels)
    facts = one.facts()

    assert claim(one, 2) == worth
    assert [other.shard for other in facts.awaiting(facts.by_uid["uid-2"])] == shards
    assert [other.ordinal for other in facts.standbys()] == ([2] if worth == "dead" else []), "its label goes first"


@pytest.mark.parametrize(
    ("labels", "shards"),
    [
        (labels_for(0, "100-x"), [0]),
        (labels_for(1, "101-x"), [1]),
        (labels_for(0, "101-x"), [0]),
        (labels_for(0, "99-x"), []),
        ({manifests.EPOCH_LABEL: "100-x"}, [0]),
        ({manifests.EPOCH_LABEL: "101-x"}, [0, 1]),
        (labels_for(0, "senseless"), []),
        ({}, []),
    ],
)
def test_the_Services_that_may_still_be_committed_to_a_label(labels: dict[str, str], shards: list[int]) -> None:  # noqa: N802
    facts = SETTLED.facts()

    assert [one.shard for one in facts.awaiting(pod(2, labels=labels))] == shards
    foreign = SETTLED.with_route(0, foreign=True).facts()
    assert [one.shard for one in foreign.awaiting(pod(2, labels=labels))] == [one for one in shards if one != 0]


# --- the routes that count


def test_a_route_counts_if_it_is_ours_and_its_shard_exists_as_far_as_is_known() -> None:
    def shards(one: Situation) -> list[int]:
        return [named.shard for named in one.facts().routes]

    assert shards(SETTLED.with_route(0, foreign=True)) == [1]
    assert shards(SETTLED.reporting(1)) == [0]
    assert shards(SETTLED.reporting(None)) == [0, 1]


def test_the_pods_that_some_route_of_ours_names_also_one_that_is_about_to_go() -> None:
    assert SETTLED.reporting(1).facts().holder_uids == {"uid-0", "uid-1"}
    assert SETTLED.with_route(0, foreign=True).facts().holder_uids == {"uid-1"}
    assert SETTLED.with_route(0, holder_uid=None).facts().holder_uids == {"uid-1"}


def test_shards_without_a_Service_are_not_guessed_from_a_failed_read() -> None:  # noqa: N802
    one = SETTLED.without_route(1)

    assert [*one.facts().shards_without_service(2)] == [1]
    assert [*one.facts().shards_without_service(4)] == [1, 2, 3]
    assert [*one.seeing(unread={"Service": "HTTP 403"}).facts().shards_without_service(2)] == []
    assert [*SETTLED.without_route(0).facts().shards_without_service(None)] == []
    assert [*one.with_route(1, foreign=True).facts().shards_without_service(2)] == []


@pytest.mark.parametrize(("settled", "counting"), [(2, [0, 1, 5]), (3, [0, 1, 2, 5]), (None, [1, 5])])
def test_while_the_number_is_not_known_a_Service_without_a_holder_is_no_shard(settled: int | None, counting: list[int]) -> None:  # noqa: N802
    """It may have been made for a shard that is still to come. One with a holder was a shard once."""
    one = SETTLED.with_route(0, holder_uid=None).with_route(2).with_route(5, holder_uid="uid-2").reporting(None)
    one = one.seeing(settled_shards=settled)

    assert [route.shard for route in one.facts().routes] == counting
    assert [route.shard for route in one.facts().unassigned] == [shard for shard in counting if shard in {0, 2}]


@pytest.mark.parametrize(
    ("one", "replicas"),
    [
        (SETTLED, 2),
        (SETTLED.reporting(None), 2),
        (SETTLED.reporting(4), 4),
        (SETTLED.reporting(1), 1),
        (SETTLED.noted(4, Answer.UNKNOWN), 4),
        (SETTLED.noted(1, Answer.UNKNOWN), 2),
        (situation(), 0),
    ],
)
def test_no_spec_takes_away_a_shard_that_exists_or_may_come_to_exist(one: Situation, replicas: int) -> None:
    assert one.wanting(shards=1).facts().min_replicas == replicas


@pytest.mark.parametrize(("ago", "held"), [(4.999, False), (5, True), (6, True)])
def test_a_fact_has_held_from_its_very_span_on(ago: float, held: bool) -> None:
    one = SETTLED.seeing(since={"Fact": NOW - seconds(ago)}).facts()

    assert one.has_held_for("Fact", seconds(5)) is held
    assert not one.has_held_for("Another", seconds(0))


@pytest.mark.parametrize(
    ("webapps", "workload", "wanted", "lacks"),
    [
        (2, Workload(uid="d", resource_version="8", replicas=5, ready=2), 2, False),
        (3, Workload(uid="d", resource_version="8", replicas=5, ready=2), 3, True),
        (None, Workload(uid="d", resource_version="8", replicas=5, ready=2), 5, True),
        (None, None, 0, False),
        (2, None, 2, False),
    ],
)
def test_how_many_Webapps_there_should_be(webapps: int | None, workload: Workload | None, wanted: int, lacks: bool) -> None:  # noqa: N802
    facts = SETTLED.wanting(webapps=webapps).seeing(webapp=workload).facts()

    assert (facts.desired_webapps, facts.lacks_webapps) == (wanted, lacks)
    assert facts.webapps_ready == (workload.ready if workload else 0)
    assert facts.webapp_ready is (workload is not None)


def test_one_Webapp_is_enough_to_ask_and_without_a_StatefulSet_there_are_no_replicas() -> None:  # noqa: N802
    assert SETTLED.seeing(webapp=Workload(uid="d", resource_version="8", replicas=2, ready=1)).facts().webapp_ready
    assert not SETTLED.seeing(webapp=Workload(uid="d", resource_version="8", replicas=2)).facts().webapp_ready
    assert SETTLED.seeing(statefulset=None).facts().replicas == 0


# --- evidence


def test_a_pod_that_goes_for_a_disruption_is_drained_and_not_before() -> None:
    assert failure(SETTLED.with_holder(0, deleting=True, disrupted=True)) is Evidence.POD_DRAINING
    assert failure(SETTLED.with_holder(0, disrupted=True)) is None


@pytest.mark.parametrize(
    ("changes", "overdue"),
    [
        ({"ready": False}, True),
        ({"ready": True}, False),
        ({"ready": True, "ip": None}, True),
        ({"ready": True, "ip": None, "never_responded": True}, False),  # it may be the operator's own way to it
        ({"ready": False, "report": Report(shards=4)}, False),  # it is back
    ],
)
def test_a_holder_is_overdue_once_enough_others_are_back(changes: dict[str, Any], overdue: bool) -> None:
    one = restarting().restarted(4, [1, 2, 3, 4]).seeing(since={"EnoughAreBack/4-noted": NOW - seconds(10)})

    assert failure(one.with_holder(0, **changes)) is (Evidence.RESTART_OVERDUE if overdue else None)
    assert failure(one.with_holder(0, **changes).seeing(since={"EnoughAreBack/4-noted": NOW - seconds(9.9)})) is None


def test_a_holder_that_is_back_is_not_overdue_while_another_one_is() -> None:
    """Its kubelet does not report it as ready yet."""
    one = situation().settled(shards=4, spares=2).noted(4, Answer.ACCEPTED, origin=2).restarted(2).restarted(4, [0, 2, 3, 4, 5])
    one = one.with_holder(0, ready=False).with_holder(1, ready=False).seeing(since={"EnoughAreBack/4-noted": NOW - seconds(10)})

    assert [(route.shard, why) for route, why in one.facts().failed] == [(1, Evidence.RESTART_OVERDUE)]


def test_a_broken_connection_proves_nothing_of_a_pod_that_we_never_reached() -> None:
    assert failure(SETTLED.with_holder(0, broken_at=NOW, never_responded=True)) is None
    assert failure(SETTLED.with_holder(0, broken_at=NOW, never_responded=True, ready=False)) is Evidence.CONNECTION_LOST
    assert failure(SETTLED.with_holder(0, broken_at=NOW)) is Evidence.CONNECTION_LOST


def test_a_label_of_another_epoch_is_a_conflict_only_while_another_Service_names_the_pod_by_it() -> None:  # noqa: N802
    assert failure(SETTLED.with_holder(0, labels=labels_for(0, "5-dead"))) is None
    assert failure(SETTLED.with_holder(0, labels={})) is None
    assert failure(SETTLED.with_holder(0, labels=labels_for(1, epoch_of(1)))) is Evidence.LABEL_CONFLICT
    foreign = SETTLED.with_route(1, foreign=True).with_holder(0, labels=labels_for(1, epoch_of(1)))
    assert failure(foreign) is None, "the Service of another owner gives nobody a shard"


@pytest.mark.parametrize(
    ("report", "shards", "disagrees"),
    [
        (Report(shards=2), 2, True),
        (Report(shards=2), None, True),
        (Report(shards=4), 2, False),
        (Report(shards=1, shard=0, epoch="x"), 1, True),
        (Report(shard=0, epoch=epoch_of(0), shards=2), 2, False),
        (Report(shard=0, epoch=epoch_of(0), shards=2, fenced=True), 2, True),
        (Report(shard=1, epoch=epoch_of(0), shards=2), 2, True),
        (Report(shard=0, epoch=epoch_of(1), shards=2), 2, True),
        (Report(shard=0), 2, False),
        (None, 2, False),
    ],
)
def test_a_holder_disagrees_if_it_runs_with_the_clients_shards_and_names_another_role(
    report: Report | None, shards: int | None, disagrees: bool
) -> None:
    one = SETTLED.client(shards=shards).with_holder(0, report=report)

    assert evidence.disagrees(one.facts(), one.route(0), one.holder_of(0)) is disagrees
    silent = one.with_holder(0, unresponsive_since=NOW)
    assert not evidence.disagrees(silent.facts(), one.route(0), silent.holder_of(0))


def test_a_coreapp_with_fewer_shards_cannot_hold_a_higher_one() -> None:
    one = SETTLED.client(shards=None).with_holder(1, report=Report(shards=1))

    assert not evidence.disagrees(one.facts(), one.route(1), one.holder_of(1))


def test_what_a_failed_self_check_holds_back_is_what_would_be_acted_upon_without_it() -> None:
    silent = SETTLED.with_holder(0, unresponsive_since=NOW - seconds(3)).with_holder(1, deleting=True)

    assert [*evidence.held_back(silent.facts())] == []
    failing = silent.seeing(silence=SELF_CHECK_FAILED).facts()
    assert [(held.shard, why) for held, why in evidence.held_back(failing)] == [(0, Evidence.PROBE_TIMEOUT)]
    assert [(failed.shard, why) for failed, why in failing.failed] == [(1, Evidence.POD_DELETED)]
    without = SETTLED.with_route(0, holder_uid=None).seeing(silence=SELF_CHECK_FAILED).facts()
    assert [*evidence.held_back(without)] == []


# --- who serves


@pytest.mark.parametrize(
    ("changes", "served"),
    [
        ({}, True),
        ({"report": None}, True),
        ({"ready": False}, True),
        ({"ready": False, "report": None}, False),
        ({"ready": False, "unresponsive_since": NOW}, False),
        ({"ready": False, "report": Report(shards=2)}, False),
        ({"ready": False, "deleting": True}, False),
        ({"ready": False, "phase": "Pending"}, False),
        ({"ready": False, "terminated": True}, False),
        ({"ready": False, "broken_at": NOW}, False),
        ({"ready": False, "ip": None}, False),
        ({"report": Report(shard=0, epoch=epoch_of(0), shards=2, fenced=True)}, False),
        ({"report": Report(shard=1, epoch=epoch_of(0), shards=2)}, False),
        ({"report": Report(shard=0, epoch="9-x", shards=2)}, False),
        ({"labels": labels_for(1, epoch_of(1))}, False),
    ],
)
def test_a_shard_is_served_if_its_holder_could_and_does_not_say_otherwise(changes: dict[str, Any], served: bool) -> None:
    one = SETTLED.with_holder(0, **changes)

    assert one.facts().is_served(one.route(0)) is served


def test_a_shard_whose_holder_is_gone_is_not_served() -> None:
    assert not SETTLED.holder_deleted(0).facts().is_served(SETTLED.route(0))


def test_a_holder_is_judged_once_in_each_observation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules and conditions ask several times for each shard, and there may be very many pods."""
    judged: list[str] = []

    def counted(where: Any, name: str) -> None:
        real = getattr(where, name)

        def call(*args: Any) -> Any:
            judged.append(name)
            return real(*args)

        monkeypatch.setattr(where, name, call)

    counted(evidence, "failure")
    counted(health, "is_hung")
    facts, route = SETTLED.facts(), SETTLED.route(0)

    assert [facts.is_served(route) for _ in range(3)] == [True] * 3
    assert [facts.failure(route) for _ in range(3)] == [None] * 3
    assert sorted(judged) == ["failure", "is_hung"]


def gateways(*statuses: str | None) -> Situation:
    """Each holder says this of its connection; None: it says nothing."""
    one = SETTLED
    for shard, status in enumerate(statuses):
        report = one.holder_of(shard).report
        assert report is not None
        one = one.with_holder(shard, report=replace(report, gateway=status) if status else None)
    return one


@pytest.mark.parametrize(
    ("statuses", "connected", "cut_off"),
    [
        (("connected", "connected"), True, False),
        (("connected", "connecting"), False, False),
        (("connected", "disconnected"), False, False),
        (("disconnected", "disconnected"), False, True),
        (("disconnected", None), False, True),
        (("connected", None), True, False),
        ((None, None), False, False),
    ],
)
def test_connections_are_what_the_holders_say_of_them(statuses: tuple[str | None, ...], connected: bool, cut_off: bool) -> None:
    facts = gateways(*statuses).facts()

    assert (facts.is_connected, facts.is_cut_off) == (connected, cut_off)
    assert not gateways("connected", "connected").with_holder(0, terminated=True).facts().is_connected, "every shard must be served"


def test_a_standbys_connection_says_nothing() -> None:
    one = gateways("disconnected", "disconnected").with_holder(1, report=Report(shards=2, gateway="connected"))

    assert one.facts().is_cut_off, "it does not say that it holds its shard"


# --- who may take over


def standbys(one: Situation, shard: int | None = 0, taken: tuple[str, ...] = ()) -> list[int]:
    return [other.ordinal for other in one.facts().standbys(one.route(shard) if shard is not None else None, taken)]


THREE = situation().settled(spares=3).with_nodes()
"""Standbys 2, 3 and 4."""


@pytest.mark.parametrize(
    "one",
    [
        THREE.with_pod(2, report=None),
        THREE.with_pod(2, unresponsive_since=NOW),
        THREE.rejecting("Pod", "acme-coreapp-2"),
        THREE.seeing(ended=frozenset({"acme-coreapp-2"})),
        THREE.with_node(2, leaving="cordoned"),
        THREE.with_node(2, ready=None),
        THREE.with_pod(2, node="node-0"),
        THREE.with_node(2, zone="zone-node-0"),
        THREE.wanting(switchovers=(Switchover(shard=1, to="acme-coreapp-2"),)),
        THREE.with_pod(2, revision="rev-0"),
    ],
    ids=["says nothing", "silent", "takes no labels", "being deleted", "drained", "lost", "same node", "same zone", "requested", "old"],
)
def test_each_thing_that_speaks_against_a_standby_puts_it_behind_the_others(one: Situation) -> None:
    assert standbys(one) == [3, 4, 2]


def test_what_weighs_more_comes_first() -> None:
    """In this order: it answers, takes labels, stays, is not surplus, on another node, in another zone, not requested, up to date, low."""
    one = situation().settled(spares=8).with_pods([10]).with_nodes().rejecting("Pod", "acme-coreapp-8")
    one = one.with_pod(2, report=None).with_node(3, leaving="cordoned").with_pod(4, node="node-0").with_node(5, zone="zone-node-0")
    one = one.with_pod(6, revision="rev-0").wanting(switchovers=(Switchover(shard=1, to="acme-coreapp-9"),))

    assert standbys(one) == [7, 6, 9, 5, 4, 10, 3, 8, 2]


@pytest.mark.parametrize(("shard", "order"), [(0, [4, 2, 3]), (1, [2, 3, 4]), (None, [2, 3, 4])])
def test_a_standby_that_is_requested_for_the_shard_itself_comes_before_its_equals(shard: int | None, order: list[int]) -> None:
    """After a failover to another one the shard would be moved once more right away."""
    requested = THREE.wanting(switchovers=(Switchover(shard=0, to="acme-coreapp-4"),))

    assert standbys(requested, shard) == order
    assert standbys(requested.with_pod(4, node="node-0"), shard) == ([2, 3, 4] if shard == 0 else order), "where it goes weighs more"


def test_without_a_holder_or_a_zone_or_a_revision_nothing_of_that_counts() -> None:
    assert standbys(THREE.with_pod(2, node="node-0").holder_deleted(0)) == [2, 3, 4]
    nowhere = THREE.with_node(0, zone=None).with_node(2, zone=None)
    assert standbys(nowhere) == [2, 3, 4], "two zones that are not known are not the same"
    assert standbys(THREE.with_pod(2, revision="rev-0"), None) == [3, 4, 2]
    unknown = THREE.with_pod(2, revision="rev-0").seeing(statefulset=Workload(uid="sts", resource_version="9", replicas=5))
    assert standbys(unknown) == [2, 3, 4]


def test_while_the_newest_template_is_not_known_no_standby_is_behind_for_its_own() -> None:
    one = situation().settled(spares=2).with_pod(3, revision=None)
    workload = one.snapshot.statefulset
    assert workload is not None

    assert standbys(one.seeing(statefulset=replace(workload, revision=None))) == [2, 3]
    assert standbys(one.with_pod(2, revision="rev-0").with_pod(3, revision="rev-1")) == [3, 2]


def test_who_was_taken_already_is_not_taken_again() -> None:
    assert standbys(THREE, taken=("uid-2", "uid-4")) == [3]


def test_a_standby_with_another_number_of_shards_cannot_serve_unless_the_number_is_not_known() -> None:
    one = THREE.with_pod(2, report=Report(shards=4))

    assert standbys(one) == [3, 4]
    assert standbys(one.with_pod(3, report=Report())) == [4, 3], "one that has none may be about to get it"
    assert standbys(one.reporting(None)) == [2, 3, 4]


def test_who_says_nothing_while_all_restart_is_no_standby() -> None:
    one = restarting().restarted(4, [4]).with_holder(0, deleting=True)
    assert standbys(one) == [4]
    assert standbys(one.with_pod(4, report=None)) == []
    assert standbys(SETTLED.with_pod(2, report=None)) == [2]


def test_no_shard_is_drained_while_it_fails_or_nobody_elsewhere_can_take_it() -> None:
    one = THREE.with_node(0, leaving="cordoned")

    assert [leaving.shard for leaving in one.facts().draining] == [0]
    assert one.with_holder(0, deleting=True).facts().draining == ()
    away = one.with_node(2, leaving="cordoned").with_node(3, ready=None).with_node(4, leaving="cordoned")
    assert away.facts().draining == ()


@pytest.mark.parametrize(("unread", "moved"), [({}, [0]), ({"Lease": "HTTP 500"}, [0]), ({"Node": "HTTP 500"}, [])])
def test_no_shard_is_drained_while_nodes_cannot_be_read_for_the_drain_may_be_over(unread: dict[str, str], moved: list[int]) -> None:
    one = THREE.with_node(0, leaving="cordoned").seeing(unread=unread)

    assert [leaving.shard for leaving in one.facts().draining] == moved
    assert [gone.shard for gone, _ in one.with_node(0, gone=True).facts().failed] == moved, "nor is it known whether the node is still gone"
    assert [gone.shard for gone, _ in one.with_holder(0, deleting=True).facts().failed] == [0], "a failover waits for no read"


def test_a_planned_move_waits_for_a_standby_that_knows_the_number_of_shards() -> None:
    """Before, it rejects each role, and the shard would have no service meanwhile. A failover has nothing to lose."""
    started = SETTLED.with_pod(2, report=Report(shards=None))
    facts = started.facts()

    assert (standbys(started), facts.standbys_that_stay(facts.routes[0])) == ([2], [])
    silent = SETTLED.with_pod(2, report=None).facts()
    assert [pod.ordinal for pod in silent.standbys_that_stay(silent.routes[0])] == [2], "by a TCP probe nothing is known of it"


# --- pairs


def moves(found: tuple[Handover, ...]) -> list[tuple[int, int]]:
    return [(move.route.shard, move.to.ordinal) for move in found]


def test_a_handover_says_all_that_its_commit_needs() -> None:
    one = SETTLED.with_holder(0, unresponsive_since=NOW - seconds(4))
    (move,) = handovers.failovers(one.facts())

    assert move == Handover(
        route=one.route(0),
        to=next(other for other in one.snapshot.coreapps if other.ordinal == 2),
        epoch=move.epoch,
        evidence=Evidence.PROBE_TIMEOUT,
        planned=False,
        shards=2,
        old=one.holder_of(0),
        failed_at=NOW - seconds(4),
        detected_at=NOW,
    )
    assert (move.epoch.n, move.epoch.random) == (100, NONCE)


@pytest.mark.parametrize(
    ("changes", "failed_at"),
    [
        ({"broken_at": NOW - seconds(1)}, NOW - seconds(1)),
        ({"terminated": True, "unresponsive_since": NOW - seconds(9)}, None),
        ({"deleting": True, "broken_at": NOW}, None),
    ],
)
def test_a_failure_has_a_beginning_if_this_process_saw_it(changes: dict[str, Any], failed_at: object) -> None:
    (move,) = handovers.failovers(SETTLED.with_holder(0, **changes).facts())

    assert move.failed_at == failed_at
    (gone,) = handovers.failovers(SETTLED.holder_deleted(0).facts())
    assert (gone.failed_at, gone.old) == (None, None)


def test_two_shards_never_get_one_pod() -> None:
    both = THREE.with_node(0, leaving="cordoned").with_node(1, leaving="cordoned")
    assert moves(handovers.drain_switchovers(both.facts())) == [(0, 2), (1, 3)]
    high = situation().settled(shards=2, spares=0).with_pods([2, 3]).held_by(0, 2).held_by(1, 3)
    assert moves(handovers.consolidations(high.facts())) == [(0, 0), (1, 1)]
    assert moves(handovers.assignments(THREE.with_route(0, holder_uid=None).with_route(1, holder_uid=None).facts())) == [(0, 2), (1, 3)]


def test_a_shard_is_drained_to_a_node_that_stays_only() -> None:
    one = THREE.with_node(0, leaving="cordoned").with_node(2, leaving="cordoned").with_node(3, ready=None)

    assert moves(handovers.drain_switchovers(one.facts())) == [(0, 4)]


def test_a_shard_is_packed_onto_a_low_pod_that_stays_and_best_one_that_answers() -> None:
    one = situation().settled(shards=2, spares=1).with_pods([3]).held_by(0, 3).with_nodes()

    assert moves(handovers.consolidations(one.facts())) == [(0, 0)]
    assert moves(handovers.consolidations(one.with_pod(0, report=None).facts())) == [(0, 2)]
    assert moves(handovers.consolidations(one.with_node(0, leaving="cordoned").with_node(2, leaving="cordoned").facts())) == []
    high = one.with_pod(0, ready=False).with_pod(2, ready=False).with_pods([4])
    assert moves(handovers.consolidations(high.facts())) == [], "no other high one"


# --- an annotation


def switching(*requests: Switchover, text: str = "x") -> Situation:
    return situation().settled(spares=2).wanting(switchovers=requests, switchover_text=text)


@pytest.mark.parametrize(
    ("one", "request_", "why"),
    [
        (SETTLED, Switchover(shard=0), None),
        (SETTLED, Switchover(shard=0, to="acme-coreapp-2"), None),
        (SETTLED, Switchover(shard=0, to="acme-coreapp-0"), None),
        (SETTLED, Switchover(shard=2), "There is no shard 2; shards go from 0 to 1."),
        (SETTLED.reporting(None), Switchover(shard=7), "There is no shard 7; shards go from 0 to 0."),
        (SETTLED.without_route(1), Switchover(shard=1), "Shard 1 has no Service of this cluster."),
        (SETTLED.with_route(1, foreign=True), Switchover(shard=1), "Shard 1 has no Service of this cluster."),
        (SETTLED.without_pod(2), Switchover(shard=1), "No standby can take shard 1."),
        (SETTLED, Switchover(shard=0, to="acme-coreapp-7"), "There is no Coreapp acme-coreapp-7."),
        (SETTLED, Switchover(shard=0, to="acme-coreapp-1"), "acme-coreapp-1 holds another shard."),
        (SETTLED.with_pod(2, ready=False), Switchover(shard=0, to="acme-coreapp-2"), "acme-coreapp-2 is not a ready standby."),
    ],
)
def test_why_a_switchover_cannot_be(one: Situation, request_: Switchover, why: str | None) -> None:
    assert handovers.rejection(one.facts(), request_) == why


def acted(one: Situation) -> tuple[list[str | None], list[tuple[int, int]], list[str]]:
    """What the annotation becomes, if it changes; which shards move; what is said."""
    actions = [*handovers.switch_over(one.facts())]
    return (
        [action.value for action in actions if isinstance(action, Annotate)],
        [(action.route.shard, action.to.ordinal) for action in actions if isinstance(action, Handover)],
        [action.message for action in actions if isinstance(action, EmitEvent)],
    )


def test_two_requests_get_two_pods_and_a_third_waits() -> None:
    three = situation().settled(shards=4, spares=2).wanting(switchovers=tuple(Switchover(shard=shard) for shard in range(3)))

    assert acted(three) == (["0=acme-coreapp-4,1=acme-coreapp-5,2"], [], [])


def test_a_request_without_a_pod_gets_none_that_another_request_names() -> None:
    requests = (Switchover(shard=0), Switchover(shard=1, to="acme-coreapp-2"))

    assert acted(switching(*requests, text="0,1=acme-coreapp-2")) == (["0=acme-coreapp-3,1=acme-coreapp-2"], [(1, 2)], [])


@pytest.mark.parametrize(
    ("spares", "becomes", "moves"),
    [(2, ["1=acme-coreapp-3"], [(0, 2)]), (1, [], [(0, 2)])],
    ids=["another is left", "it is the only one"],
)
def test_a_shard_without_a_holder_gets_its_coreapp_before_a_request(spares: int, becomes: list[str], moves: list[tuple[int, int]]) -> None:
    """It is without service, and is given one in the same step: that must not be the one that the request gets."""
    one = situation().settled(spares=spares).with_route(0, epoch=None, holder=None, holder_uid=None).with_pod(0, ready=False, labels={})
    one = one.wanting(switchovers=(Switchover(shard=1),), switchover_text="1")

    assert acted(one) == (becomes, [], [])
    assert [(move.route.shard, move.to.ordinal) for move in one.plan().actions if isinstance(move, Handover)] == moves


def test_a_request_for_a_shard_without_a_holder_names_the_coreapp_that_it_is_given() -> None:
    """Otherwise it would be moved once more right after."""
    one = situation().settled(spares=2).with_route(0, epoch=None, holder=None, holder_uid=None).with_pod(0, ready=False, labels={})

    assert acted(one.wanting(switchovers=(Switchover(shard=0),), switchover_text="0")) == (["0=acme-coreapp-2"], [], [])


def test_one_pod_that_is_requested_twice_takes_one_shard_and_the_other_request_stands() -> None:
    requests = (Switchover(shard=0, to="acme-coreapp-2"), Switchover(shard=1, to="acme-coreapp-2"))

    assert acted(switching(*requests, text="0=acme-coreapp-2,1=acme-coreapp-2")) == ([], [(0, 2)], [])


def test_a_requested_move_waits_for_a_standby_that_knows_the_number_of_shards() -> None:
    """Before, it rejects each role, and the shard would have no service meanwhile."""
    named = switching(Switchover(shard=0, to="acme-coreapp-2"), text="0=acme-coreapp-2")
    free = switching(Switchover(shard=0), text="0")
    started = Report(shards=None)

    assert acted(named.with_pod(2, report=started)) == ([], [], [])
    assert acted(free.with_pod(2, report=started)) == (["0=acme-coreapp-3"], [], [])
    assert acted(free.with_pod(2, report=started).with_pod(3, report=started)) == ([], [], []), "it stays without a name"
    assert acted(named.with_pod(2, report=None)) == ([], [(0, 2)], []), "by a TCP probe nothing is known of it"


def test_what_cannot_be_is_said_in_one_Event_and_the_rest_is_done() -> None:  # noqa: N802
    requests = (Switchover(shard=9), Switchover(shard=1, to="acme-coreapp-3"), Switchover(shard=0, to="acme-coreapp-8"))
    one = switching(*requests).wanting(switchover_problem="'y' is no shard.")

    said = (
        "'y' is no shard.",
        "Shard 9 was not moved: There is no shard 9; shards go from 0 to 1.",
        "Shard 0 was not moved: There is no Coreapp acme-coreapp-8.",
    )
    assert acted(one) == (
        ["1=acme-coreapp-3"],
        [(1, 3)],
        [" ".join(said)],
    )


def test_a_request_that_is_fulfilled_goes_without_an_event() -> None:
    assert acted(switching(Switchover(shard=1, to="acme-coreapp-1"), text="1=acme-coreapp-1")) == ([None], [], [])
    assert acted(switching(text="")) == ([], [], [])


# --- epochs that the servers reject

FENCED_OFF = WITNESSES["EpochRejected"]
KNOWN = {"EpochRejected/0": NOW - seconds(60)}
"""It was found of the holder before."""


def reporting(one: Situation, **changes: Any) -> Situation:
    report = one.holder_of(0).report
    assert report is not None
    return one.with_holder(0, report=replace(report, **changes))


@pytest.mark.parametrize(
    ("one", "shards"),
    [
        (FENCED_OFF, [0]),
        (FENCED_OFF.with_route(0, evidence="ProbeTimeout"), []),
        (FENCED_OFF.with_route(0, evidence="ProbeTimeout").without_pod(2), [0]),
        (FENCED_OFF.with_holder(0, unresponsive_since=NOW), []),
        (reporting(FENCED_OFF, epoch="9-before"), []),
        (reporting(FENCED_OFF, fenced=False, shard=None, epoch=None), []),
        (reporting(FENCED_OFF, fenced=False, shard=None, epoch=None).seeing(since=KNOWN), [0]),
        (reporting(FENCED_OFF, fenced=False).seeing(since=KNOWN), []),
        (reporting(FENCED_OFF, fenced=False, shard=None).with_route(0, evidence="ProbeTimeout").seeing(since=KNOWN), []),
        (FENCED_OFF.holder_deleted(0), []),
    ],
    ids=["again", "first", "alone", "silent", "former", "not yet", "new holder", "serves", "other evidence", "deleted"],
)
def test_the_servers_go_on_rejecting_epochs_of_a_shard(one: Situation, shards: list[int]) -> None:
    facts = one.facts()

    assert [route.shard for route in facts.rejected] == shards
    assert {f"EpochRejected/{shard}" for shard in shards} <= one.plan().holds
    assert ("(EpochRejected)" in one.condition("Ready")["message"]) is bool(shards)


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (FENCED_OFF.holder_deleted(0).seeing(since=KNOWN), "PodDeleted"),
        (FENCED_OFF.without_pod(2).seeing(since={"HolderDisagrees/0/10-first": NOW - seconds(60)}), "EpochRejected"),
    ],
    ids=["another cause", "the same cause"],
)
def test_ready_names_the_cause_that_is_nearest(one: Situation, why: str) -> None:
    facts = one.facts()

    assert ([route.shard for route in facts.rejected], facts.failure(facts.routes[0]) is not None) == ([0], True)
    assert f"shard 0: acme-coreapp-0 ({why})" in one.condition("Ready")["message"]


# --- a standby that answers although its kubelet calls it unready


def without_ready_ones(**changes: Any) -> Situation:
    """Shard 0 has lost its holder, and the sidecars of all Coreapps are unready."""
    return situation().settled(spares=2).with_nodes().all_pods(ready=False, lost_readiness=True, **changes).holder_deleted(0)


def taken_over(one: Situation) -> list[str]:
    return [move.to.name for move in of(one.plan(), Handover)]


def test_a_failed_holder_is_replaced_by_a_standby_that_answers_if_none_is_ready() -> None:
    """Messages reach a holder ready or not."""
    one = without_ready_ones()

    assert taken_over(one) == ["acme-coreapp-2"]
    assert taken_over(one.with_pod(3, ready=True)) == ["acme-coreapp-3"], "a ready one comes first"
    assert taken_over(one.reporting(None)) == ["acme-coreapp-2"]
    assert taken_over(one.wanting(manual=True)) == []
    assert one.condition("Ready")["reason"] == "FailingOver"
    assert one.condition("Redundant")["status"] == "False"


@pytest.mark.parametrize(
    "changes",
    [
        {"report": None},
        {"report": Report()},
        {"report": Report(shards=4)},
        {"unresponsive_since": NOW - seconds(0.5)},
        {"deleting": True},
        {"terminated": True},
        {"broken_at": NOW},
        {"labels": labels_for(0, "9999-pending")},
    ],
    ids=["no answer", "no number", "another number", "silent", "deleting", "terminated", "broken", "prepared by another leader"],
)
def test_a_standby_that_is_neither_ready_nor_answers_takes_no_shard(changes: dict[str, Any]) -> None:
    one = without_ready_ones().with_pod(2, **changes)

    assert taken_over(one) == ["acme-coreapp-3"]
    assert taken_over(one.without_pod(3)) == []


def test_a_move_that_is_no_failover_waits_for_a_ready_standby() -> None:
    drained = situation().settled().with_nodes().with_node(0, leaving="cordoned")

    assert taken_over(drained) == ["acme-coreapp-2"]
    assert taken_over(drained.all_pods(ready=False, lost_readiness=True)) == []


# --- a request and a shard without a holder


def test_a_shard_without_a_holder_takes_the_standby_that_a_request_names_only_if_there_is_no_other() -> None:
    """A shard that nobody serves comes first; the request then waits, and no pod gets two shards."""
    one = situation().settled(spares=2).without_pod(1).with_route(1, epoch=None, holder=None, holder_uid=None)
    one = one.wanting(switchovers=(Switchover(shard=0, to="acme-coreapp-2"),), switchover_text="0=acme-coreapp-2")

    def moves(one: Situation) -> dict[int, str]:
        return {move.route.shard: move.to.name for move in of(one.plan(), Handover)}

    assert moves(one) == {0: "acme-coreapp-2", 1: "acme-coreapp-3"}
    assert moves(one.without_pod(3)) == {1: "acme-coreapp-2"}
    assert [*of(one.without_pod(3).plan(), Annotate), *of(one.without_pod(3).plan(), EmitEvent)] == []
