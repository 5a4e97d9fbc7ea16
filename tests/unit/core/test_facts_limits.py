"""Numbers of Coreapps and Webapps, and objects that differ, at the limits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from whatsapp_operator.core import checksums, handovers, manifests
from whatsapp_operator.core.names import Ref
from whatsapp_operator.core.snapshot import Answer

from .situations import NOW, UNSCHEDULABLE, Situation, seconds, situation
from .witnesses import changed_by_admission, out_of_reach, rolling_out

SETTLED = situation().settled()
DEPLOYMENT = manifests.webapp_deployment("acme")


def compensated(one: Situation) -> list[str]:
    return [pod.uid for pod in one.facts().compensated]


# --- Coreapps


@pytest.mark.parametrize(("replicas", "found"), [(4, []), (5, ["uid-0"])])
def test_the_one_more_of_a_roll_out_replaces_no_Coreapp_out_of_reach(replicas: int, found: list[str]) -> None:  # noqa: N802
    """A new leader does not know for how long the pod has been away: what exists beyond the roll-out stays, nothing is added."""
    one = out_of_reach(3600).seeing(since={}).with_pod(1, revision="rev-0").replicas(replicas)

    assert compensated(one) == found


@pytest.mark.parametrize(("spares", "found"), [(0, ["uid-0"]), (1, ["uid-0"]), (2, ["uid-0", "uid-1"]), (3, ["uid-0", "uid-1", "uid-2"])])
def test_as_many_are_compensated_as_there_are_spares_and_one_at_least(spares: int, found: list[str]) -> None:
    one = situation().settled(shards=4, spares=spares).with_nodes()
    for ordinal in (0, 1, 2):
        one = one.with_node(ordinal, ready=None).with_pod(ordinal, unresponsive_since=NOW - seconds(90), report=None)
    one = one.seeing(since={f"NodesUnreachable/uid-{ordinal}": NOW - seconds(90) for ordinal in (0, 1, 2)})

    assert compensated(one) == found


@pytest.mark.parametrize(("replicas", "high"), [(3, []), (4, [0])])
def test_no_shard_is_too_high_if_nothing_is_to_be_lowered(replicas: int, high: list[int]) -> None:
    """A pod beyond the replicas is on its way out: its shard follows by failover."""
    one = SETTLED.with_pod(3).held_by(0, 3).replicas(replicas)

    assert [route.shard for route in one.facts().too_high] == high


SURPLUS = situation().settled().with_pods([3, 4])
"""Three Coreapps are wanted, and two more are there."""


@pytest.mark.parametrize(
    ("one", "number"),
    [
        (SURPLUS, 3),
        (SURPLUS.with_pod(0, ready=False), 4),
        (SURPLUS.with_pod(0, ready=False).with_pod(1, deleting=True), 5),
        (SURPLUS.without_pod(2), 4),
        (SURPLUS.with_pod(4, ready=False), 3),
        (SURPLUS.with_pod(0, ready=False).with_pod(3, ready=False), 5),
        (SURPLUS.with_pod(0, ready=False).with_pod(3, **UNSCHEDULABLE), 5),
        (SURPLUS.with_pods([5]).with_pod(0, ready=False), 4),
        (SURPLUS.with_pod(0, **UNSCHEDULABLE), 3),
        (SURPLUS.with_pod(0, **UNSCHEDULABLE).with_pod(1, ready=False), 4),
        (SURPLUS.with_pod(0, **UNSCHEDULABLE).with_pod(1, **UNSCHEDULABLE).with_pod(2, ready=False), 4),
        (SURPLUS.with_pod(0, ready=False, node=None), 4),
        (SURPLUS.with_pod(0, ready=False, pending_because="ImagePullBackOff"), 4),
        (SURPLUS.without_pod(2).seeing(rejected_coreapp="exceeded quota"), 3),
        (SURPLUS.without_pod(2).seeing(rejected_coreapp="exceeded quota").with_pod(0, ready=False), 4),
        (SURPLUS.without_pod(2).seeing(rejected_pods="exceeded quota"), 4),
        (SURPLUS.replicas(3).with_pod(0, ready=False), 3),
    ],
    ids=[
        "all ready",
        "one starts",
        "two away",
        "one not made yet",
        "one that goes",
        "one starts, and one that goes as well",
        "one starts, and one that goes has no room",
        "more than are awaited",
        "no room",
        "no room, and one starts",
        "no room for two, and one starts",
        "not scheduled yet",
        "its image is awaited",
        "rejected",
        "rejected, and one starts",
        "a Webapp rejected, and one not made yet",
        "no more",
    ],
)
def test_a_Coreapp_that_is_not_wanted_any_more_stays_for_one_that_is_not_back(one: Situation, number: int) -> None:  # noqa: N802
    """It takes no room from those that wait for room."""
    assert one.facts().desired_replicas == number


def test_a_shard_is_moved_at_once_to_where_it_stays() -> None:
    """One more stays for now, as Coreapp 0 is restarting. A shard that moved there would move once more, and each move costs messages."""
    one = situation().settled(shards=2, spares=2).with_pods([4, 5, 6]).with_pod(0, ready=False).held_by(0, 4).held_by(1, 6)

    assert one.facts().desired_replicas == 5
    assert [(move.route.shard, move.to.ordinal) for move in handovers.consolidations(one.facts())] == [(0, 1), (1, 2)]
    assert list(handovers.consolidations(one.with_pod(1, ready=False).with_pod(2, ready=False).with_pod(3, ready=False).facts())) == []


def test_a_shard_beyond_those_wanted_is_still_in_the_way() -> None:
    assert SETTLED.with_route(2).facts().is_unsettled
    assert not SETTLED.facts().is_unsettled


def test_a_cluster_whose_first_number_was_never_verified_is_unsettled() -> None:
    assert SETTLED.seeing(settled_shards=None).client(asked_at=NOW - seconds(60)).facts().is_unsettled


# --- templates


def test_only_a_changed_StatefulSet_makes_it_unknown_which_Coreapps_are_outdated() -> None:  # noqa: N802
    def changed(kind: str, name: str) -> Situation:
        ref = Ref(kind, name)
        live: dict[str, Any] = {**SETTLED.snapshot.objects[ref]}
        live["spec"] = {**live["spec"], "template": {}}
        return SETTLED.seeing(objects={**SETTLED.snapshot.objects, ref: live})

    assert changed("StatefulSet", "acme-coreapp").facts().is_template_settling
    assert not changed("Deployment", "acme-webapp").facts().is_template_settling
    assert not rolling_out().facts().is_template_settling


def test_what_admission_changed_is_named_and_not_written_again() -> None:
    one = changed_by_admission()
    facts = one.facts()
    assert facts.changed == ()
    assert [(ref, len(paths)) for ref, paths in facts.altered] == [(manifests.coreapp_statefulset("acme"), 2)]

    ref = manifests.coreapp_statefulset("acme")
    live = one.snapshot.objects[ref]
    moved = {**live, "metadata": {**live["metadata"], "labels": {}}}
    both = one.seeing(objects={**one.snapshot.objects, ref: moved}).facts()
    assert [Ref(obj["kind"], obj["metadata"]["name"]) for obj in both.changed] == [ref]
    assert both.altered == facts.altered, "what is to be written is not called altered"


def test_an_object_that_differs_in_nothing_that_admission_changed_is_not_called_altered() -> None:
    ref = Ref("Deployment", "acme-webapp")
    live = {**SETTLED.snapshot.objects[ref], "spec": {}}
    facts = SETTLED.seeing(objects={**SETTLED.snapshot.objects, ref: live}).facts()

    assert (len(facts.changed), facts.altered) == (1, ())


# --- objects


@pytest.mark.parametrize("why", ["", "HTTP 403"])
def test_no_object_is_made_of_a_kind_that_was_not_read(why: str) -> None:
    kinds = {obj["kind"] for obj in situation().facts().absent}
    unread = {obj["kind"] for obj in situation().seeing(unread={"Service": why}).facts().absent}

    assert kinds - unread == {"Service"}


@pytest.mark.parametrize("kind", ["Secret", "PersistentVolumeClaim"])
@pytest.mark.parametrize("why", ["", "HTTP 403"])
def test_the_first_pods_wait_until_what_they_start_with_was_read(kind: str, why: str) -> None:
    """There may be one of a cluster of this name that was just deleted, with another password or store."""
    one = situation().seeing(unread={kind: why})

    for new in (one, one.reporting(1)):
        assert {"StatefulSet", "Deployment"}.isdisjoint(obj["kind"] for obj in new.facts().absent)
    assert {"StatefulSet", "Deployment"} <= {obj["kind"] for obj in one.seeing(settled_shards=2).facts().absent}


def test_the_budget_forbids_disruptions_no_longer_than_a_restart_may_take_also_if_no_answer_is_known() -> None:
    one = SETTLED.noted(4, Answer.UNKNOWN)

    def allowed(one: Situation) -> int:
        ref = manifests.coreapp_budget("acme")
        return next(int(obj["spec"]["maxUnavailable"]) for obj in one.facts().objects if (obj["kind"], obj["metadata"]["name"]) == ref)

    assert (allowed(one), allowed(one.later(180))) == (0, 1)


@pytest.mark.parametrize(("ago", "may"), [(0, False), (4.9, False), (5, True), (60, True)])
def test_a_rejected_object_is_tried_again_after_five_seconds(ago: float, may: bool) -> None:
    facts = SETTLED.rejecting("Service", "acme-webapp", ago=ago).facts()

    assert facts.may_write(Ref("Service", "acme-webapp")) is may
    assert facts.may_write(Ref("Deployment", "acme-webapp")), "no other one waits for it"


# --- Webapps


def webapps(one: Situation) -> int | None:
    found: int | None = next(obj for obj in one.facts().objects if obj["kind"] == "Deployment")["spec"].get("replicas")
    return found


@pytest.mark.parametrize(("settled", "reported", "number"), [(None, None, 1), (2, None, 2), (None, 2, 2), (2, 2, 2)])
def test_one_Webapp_starts_alone_until_a_number_of_shards_is_known(settled: int | None, reported: int | None, number: int) -> None:  # noqa: N802
    """Also if the client does not answer just now: the database exists."""
    one = SETTLED.seeing(settled_shards=settled).client(shards=reported, asked_at=None)

    assert webapps(one.without_object(*DEPLOYMENT)) == number
    assert webapps(one) == (None if number == 1 else number), "those that run are not ended"


@pytest.mark.parametrize(("spec", "number"), [({"replicas": 1}, 2), ({"replicas": 5}, 5), ({}, 2), (None, 2)])
def test_the_first_Webapp_gets_a_second_and_what_another_party_chose_stays(spec: dict[str, int] | None, number: int) -> None:  # noqa: N802
    """The note on the Deployment says that the number is still the initial one."""
    one = SETTLED.wanting(webapps=None)
    live: dict[str, Any] = {**one.snapshot.objects[DEPLOYMENT]}
    live["metadata"] = {**live["metadata"], "annotations": {manifests.FIRST_BOOT_ANNOTATION: "true"}}
    live["spec"] = spec

    assert webapps(one.seeing(objects={**one.snapshot.objects, DEPLOYMENT: live})) == number


def test_a_Deployment_without_any_annotation_keeps_its_number() -> None:  # noqa: N802
    one = SETTLED.wanting(webapps=None)
    live: dict[str, Any] = {**one.snapshot.objects[DEPLOYMENT]}
    live["metadata"] = {**live["metadata"], "annotations": None}

    assert webapps(one.seeing(objects={**one.snapshot.objects, DEPLOYMENT: live})) is None


# --- pods and workloads that only some tables use


def with_two_away(replicas: int) -> Situation:
    """Two Coreapps out of reach, of which only the first is known to have been so for long."""
    one = situation().settled(shards=4, spares=2).with_nodes()
    for ordinal in (0, 1):
        one = one.with_node(ordinal, ready=None).with_pod(ordinal, unresponsive_since=NOW - seconds(90), report=None)
    return one.seeing(since={"NodesUnreachable/uid-0": NOW - seconds(90)}).replicas(replicas)


@pytest.mark.parametrize(("replicas", "found"), [(6, ["uid-0"]), (7, ["uid-0"]), (8, ["uid-0", "uid-1"])])
def test_what_exists_beyond_those_known_to_be_away_replaces_the_others(replicas: int, found: list[str]) -> None:
    assert compensated(with_two_away(replicas)) == found


def test_while_the_template_settles_a_replacement_is_not_taken_for_the_one_more_of_a_roll_out() -> None:
    one, ref = out_of_reach(3600).replicas(4), manifests.coreapp_statefulset("acme")
    live: dict[str, Any] = {**one.snapshot.objects[ref]}
    live["spec"] = {**live["spec"], "template": {}}
    facts = one.seeing(objects={**one.snapshot.objects, ref: live}).facts()

    assert facts.is_template_settling
    assert (compensated(one), facts.desired_replicas) == (["uid-0"], 4)


@pytest.mark.parametrize(("replicas", "desired"), [(2, 3), (3, 3), (4, 4), (5, 4)])
def test_the_one_more_Coreapp_of_a_roll_out_stays_while_a_second_edit_settles(replicas: int, desired: int) -> None:  # noqa: N802
    """Which pods are outdated is not known then: to lower the number and raise it again would end a Coreapp for nothing."""
    workload = SETTLED.snapshot.statefulset
    assert workload is not None

    assert SETTLED.seeing(statefulset=replace(workload, revision=None, replicas=replicas)).facts().desired_replicas == desired


def test_a_Coreapp_out_of_reach_or_of_an_unknown_template_is_not_outdated() -> None:  # noqa: N802
    assert out_of_reach(3600).with_pod(0, revision="rev-0").facts().outdated == ()
    assert SETTLED.with_pod(1, revision=None).facts().outdated == ()
    assert [pod.uid for pod in SETTLED.with_pod(1, revision="rev-0").facts().outdated] == ["uid-1"]


def test_no_pod_has_the_newest_template_while_that_is_not_known() -> None:
    workload = SETTLED.snapshot.statefulset
    assert workload is not None
    unknown = SETTLED.seeing(statefulset=replace(workload, revision=None)).all_pods(revision=None)

    assert unknown.facts().updated_by_uid == {}
    assert SETTLED.facts().updated_by_uid.keys() == {pod.uid for pod in SETTLED.snapshot.coreapps}


@pytest.mark.parametrize(("holder", "high"), [(3, []), (4, [0])])
def test_a_shard_may_stay_on_the_Coreapp_that_replaces_one_out_of_reach(holder: int, high: list[int]) -> None:  # noqa: N802
    one = out_of_reach(3600).with_pods([4]).held_by(0, holder)

    assert (one.facts().replicas, one.facts().desired_replicas) == (5, 4)
    assert [route.shard for route in one.facts().too_high] == high


def test_a_terminating_pod_counts_as_ending_unless_it_is_out_of_reach() -> None:
    assert SETTLED.with_pod(0, deleting=True).facts().ending == {"acme-coreapp-0"}
    assert out_of_reach(3600).with_pod(0, deleting=True).facts().ending == frozenset()
    assert out_of_reach(1).with_pod(0, deleting=True).facts().ending == frozenset(), "it is so from the first moment"


def test_no_shard_is_too_high_before_the_client_has_fewer_shards() -> None:
    one = situation().settled(shards=4).wanting(shards=2).with_pod(6).held_by(0, 6).replicas(7)

    assert one.facts().too_high == ()


def test_a_Coreapp_that_does_not_say_its_number_of_shards_unsettles_nothing() -> None:  # noqa: N802
    report = SETTLED.holder_of(0).report
    assert report is not None

    assert not SETTLED.with_holder(0, report=replace(report, shards=None)).facts().is_unsettled
    assert SETTLED.with_holder(0, report=replace(report, shards=4)).facts().is_unsettled


def test_an_object_whose_name_another_owner_has_is_not_to_be_made() -> None:
    obj = situation().facts().absent[-1]
    ref = Ref(obj["kind"], obj["metadata"]["name"])
    facts = situation().seeing(name_conflicts={ref: "another owner"}).facts()

    assert ref not in {Ref(one["kind"], one["metadata"]["name"]) for one in facts.absent}


@pytest.mark.parametrize(("taken", "stale"), [("old", ["Deployment", "StatefulSet"]), ("new", ["StatefulSet"])])
def test_workloads_whose_pods_took_other_Secrets_are_named_in_a_fixed_order(taken: str, stale: list[str]) -> None:  # noqa: N802
    objects, taken_by = {**SETTLED.snapshot.objects}, {manifests.coreapp_statefulset("acme"): "old", DEPLOYMENT: taken}
    for ref, checksum in taken_by.items():
        meta = {**objects[ref]["metadata"], "annotations": {checksums.CHECKSUM_ANNOTATION: checksum}}
        objects[ref] = {**objects[ref], "metadata": meta}
    one = SETTLED.seeing(objects=objects, checksums=dict.fromkeys(taken_by, "new"))

    assert [ref.kind for ref, _ in one.facts().stale_workloads] == stale
