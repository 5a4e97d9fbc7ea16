"""What is done no matter which rule wins, next to what is not: pods that are ended, labels that are cleared, roles that are assigned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from whatsapp_operator.core import always, manifests
from whatsapp_operator.core.actions import Action, AssignRole, ClearLabels, Create, Delete, Label, Relabel, Replace, Touch
from whatsapp_operator.core.names import Obj, Ref
from whatsapp_operator.core.snapshot import Answer, Report

from .situations import NOW, Situation, epoch_of, labels_for, pod, seconds, situation
from .test_always import CASES

SETTLED = situation().settled()
NOBODY: frozenset[str] = frozenset()
SELECTS = {manifests.CLUSTER_LABEL: "acme", manifests.SHARD_LABEL: "0", manifests.EPOCH_LABEL: epoch_of(0)}
"""What the Service of shard 0 selects."""


def tidied(one: Situation, busy: frozenset[str] = NOBODY) -> list[Action]:
    return [*always.tidying(one.facts(), busy)]


def cleared(one: Situation, busy: frozenset[str] = NOBODY) -> list[int]:
    return [action.coreapp.ordinal for action in tidied(one, busy) if isinstance(action, ClearLabels)]


# --- what is missing


def test_no_Service_of_a_shard_is_created_under_a_name_that_another_owner_has() -> None:  # noqa: N802
    one = SETTLED.without_route(1)
    (create,) = always.assigning(one.facts(), frozenset(), NOBODY)
    taken = one.seeing(name_conflicts=(Ref("Service", "acme-shard-1"),))

    assert isinstance(create, Create)
    assert create.obj["metadata"]["name"] == "acme-shard-1"
    assert [*always.assigning(taken.facts(), frozenset(), NOBODY)] == []


# --- roles


def test_a_shard_that_is_moving_is_assigned_by_the_handover_alone() -> None:
    one = SETTLED.with_holder(0, report=Report(shards=2, shard=0, epoch="5-old")).facts()

    assert [*always.role_assignments(one, NOBODY, frozenset({0}))] == []
    (assigned,) = always.role_assignments(one, NOBODY, frozenset())
    assert (assigned.coreapp.ordinal, assigned.shard, assigned.epoch, assigned.holder) == (0, 0, epoch_of(0), None)
    assert [*always.role_assignments(one, frozenset({"uid-0"}), frozenset())] == []


def test_the_holder_of_a_shard_that_no_longer_exists_is_not_named_as_its_own_successor() -> None:
    one = SETTLED.reporting(1).wanting(shards=1).restarted(1, [2]).with_holder(1, report=Report(shards=1, shard=1, epoch="5-old"))

    assert [assigned for assigned in one.plan().actions if isinstance(assigned, AssignRole) and assigned.coreapp.ordinal == 1] == []


def assigned(one: Situation, ordinal: int) -> list[tuple[int | None, str | None]]:
    """The shards that the Coreapp with this ordinal is assigned, and whom each assignment names as holder."""
    found = (each for each in always.role_assignments(one.facts(), NOBODY, frozenset()) if each.coreapp.ordinal == ordinal)
    return [(each.shard, each.holder.name if each.holder else None) for each in found]


FORMER = Report(shards=2, shard=1, epoch="5-old", gateway="connected")
"""A spare that says that it still serves shard 1, by an epoch of long ago."""
UNKNOWN = SETTLED.client(shards=None, asked_at=None)
"""The client's number of shards is not known."""


@pytest.mark.parametrize(
    ("one", "found"),
    [
        (SETTLED.with_pod(2, report=FORMER), [(1, "acme-coreapp-1")]),
        (SETTLED.with_pod(2, report=replace(FORMER, epoch=None)), [(1, "acme-coreapp-1")]),
        (SETTLED.with_pod(2, report=replace(FORMER, epoch="101-new")), []),
        (SETTLED.with_pod(2, report=FORMER).holder_deleted(1), [(None, None)]),
        (SETTLED.with_pod(2, report=FORMER).with_route(1, foreign=True), [(None, None)]),
        (SETTLED.with_pod(2, report=FORMER).without_route(1), [(None, None)]),
    ],
    ids=["a holder", "no epoch", "a newer epoch than the Service's", "no holder", "another owner's Service", "no Service"],
)
def test_a_former_holder_is_assigned_no_shard_unless_the_true_holder_is_named(
    one: Situation, found: list[tuple[int | None, str | None]]
) -> None:
    """With a shard and without a holder the message would mean "serve it"."""
    assert assigned(one, 2) == found


@pytest.mark.parametrize("changes", [{"deleting": True}, {"ip": None}])
def test_a_Coreapp_that_goes_or_has_no_address_is_assigned_nothing(changes: dict[str, Any]) -> None:  # noqa: N802
    one = SETTLED.with_holder(0, report=Report(shards=2))

    assert assigned(one, 0) == [(0, None)]
    assert assigned(one.with_holder(0, **changes), 0) == []


def test_while_the_client_does_not_answer_a_Coreapp_is_assigned_by_its_own_number_of_shards() -> None:  # noqa: N802
    assert assigned(UNKNOWN.with_holder(0, report=Report(shards=2)), 0) == [(0, None)]
    assert assigned(UNKNOWN.with_pod(2, report=replace(FORMER, shards=None)), 2) == [], "it does not know its number: it is starting"


@pytest.mark.parametrize(("shard", "found"), [(1, [(1, None)]), (2, []), (3, [])])
def test_a_Coreapp_is_not_assigned_a_shard_beyond_its_own_number(shard: int, found: list[tuple[int | None, str | None]]) -> None:  # noqa: N802
    """The Services are still those of four shards, and the Coreapp runs with two."""
    one = situation().settled(shards=4).client(shards=None, asked_at=None)

    assert assigned(one.with_holder(shard, report=Report(shards=2)), shard) == found


# --- labels


def test_a_pod_that_a_handover_is_writing_is_not_tidied() -> None:
    one = SETTLED.with_pod(2, labels=labels_for(0, "5-old"))

    assert (cleared(one), cleared(one, frozenset({"uid-2"}))) == ([2], [])


@pytest.mark.parametrize("labels", [{}, {manifests.ROLE_LABEL: "standby"}, {**labels_for(0, epoch_of(0)), manifests.ROLE_LABEL: "standby"}])
def test_the_labels_of_a_holder_that_failed_are_left_to_the_failover(labels: dict[str, str]) -> None:
    failed = {"terminated": True, "ready": False}

    assert [type(action) for action in tidied(SETTLED.with_holder(0, labels=labels))] == [Relabel]
    assert tidied(SETTLED.with_holder(0, labels=labels, **failed)) == []


def test_a_shard_label_alone_leads_nowhere_and_is_left() -> None:
    """A Service selects by the epoch too."""
    assert tidied(SETTLED.with_pod(2, labels={manifests.ROLE_LABEL: "standby", manifests.SHARD_LABEL: "0"})) == []


def test_the_holder_of_a_shard_that_no_longer_exists_is_freed() -> None:
    one = SETTLED.wanting(shards=1).reporting(1).restarted(1)

    assert (cleared(one), cleared(SETTLED)) == ([1], [])


@pytest.mark.parametrize(("shard", "freed"), [(1, []), (2, [2]), (7, [2])])
def test_the_label_of_a_shard_without_a_Service_is_cleared_if_the_shard_does_not_exist(shard: int, freed: list[int]) -> None:  # noqa: N802
    one = SETTLED.without_route(1).with_pod(2, labels=labels_for(shard, "500-x"))

    assert cleared(one) == freed


def test_the_labels_of_a_pod_that_ends_are_left() -> None:
    one = SETTLED.with_pod(2, labels=labels_for(0, "5-old"))

    assert (cleared(one), cleared(one.with_pod(2, deleting=True))) == ([2], [])


def test_a_second_pod_with_the_epoch_of_a_holder_is_stripped() -> None:
    """Two pods would match the Service (laws#1)."""
    assert tidied(SETTLED.with_pod(2, labels=labels_for(0, epoch_of(0)))) == [
        ClearLabels(coreapp=replace(pod(2), labels=labels_for(0, epoch_of(0))))
    ]


def test_a_pod_that_the_Service_of_another_owner_selects_keeps_its_labels() -> None:  # noqa: N802
    """It may be the Service of this cluster, without the owner that a user removed: its traffic goes on."""
    one = SETTLED.with_route(0, foreign=True, holder="other", holder_uid="other")

    assert cleared(one) == []


def test_the_label_of_shard_0_is_left_while_its_Service_is_missing() -> None:  # noqa: N802
    """The client has that shard: the Service will be made again."""
    one = situation().settled(shards=1).without_route(0)

    assert cleared(one) == []
    assert cleared(one.with_pod(0, labels=labels_for(7, "5-old"))) == [0]


def test_lost_labels_are_restored_unless_a_handover_writes_the_object_or_the_cluster_is_deleted() -> None:
    rule = next(rule for rule in always.ALWAYS if rule.name == "LabelsLost")
    one = CASES["LabelsLost"][0]
    bare = one.snapshot.mislabelled
    one = one.seeing(mislabelled=(*bare, {"kind": "Pod", "metadata": {**bare[0]["metadata"], "name": "acme-coreapp-0", "uid": "uid-0"}}))

    def restored(one: Situation, **busy: Any) -> list[str]:
        given = replace(always.Busy(pods=NOBODY, routes=NOBODY, shards=frozenset()), **busy)
        return [action.ref.name for action in rule.then(one.facts(), given) if isinstance(action, Label)]

    (lost,) = [action for action in CASES["LabelsLost"][0].plan().actions if isinstance(action, Label)]
    assert lost.labels == manifests.shard_service(one.desired, 0)["metadata"]["labels"]
    assert restored(one) == ["acme-shard-0", "acme-coreapp-0"]
    assert restored(one, pods=frozenset({"uid-0"})) == ["acme-shard-0"]
    assert restored(one, routes=frozenset({"service-0"})) == ["acme-coreapp-0"]
    assert restored(one.wanting(paused=True)) == ["acme-shard-0", "acme-coreapp-0"]
    assert restored(one.wanting(deleting=True)) == []


# --- a Service of a shard that a person has edited


def edited(shard: int = 0, **spec: Any) -> Situation:
    """A person has edited the Service of a shard."""
    one = situation().settled()
    objects = dict(one.snapshot.objects)
    for number in range(2):
        made = manifests.shard_service(one.desired, number, epoch_of(number))
        meta = {**made["metadata"], "uid": f"service-{number}", "resourceVersion": f"{100 + number}"}
        objects[Ref("Service", meta["name"])] = {**made, "metadata": meta, "spec": {**made["spec"], **(spec if number == shard else {})}}
    return one.seeing(objects=objects)


def put_right(one: Situation, routes: frozenset[str] = NOBODY) -> list[Obj]:
    rule = next(rule for rule in always.ALWAYS if rule.name == "ObjectsChanged")
    busy = always.Busy(pods=NOBODY, routes=routes, shards=frozenset())
    return [action.obj for action in rule.then(one.facts(), busy) if isinstance(action, Replace)]


@pytest.mark.parametrize(
    "edit",
    [
        {"selector": {**SELECTS, "team": "a"}},
        {"selector": {**SELECTS, manifests.SHARD_LABEL: "1"}},
        {"ports": []},
        {"publishNotReadyAddresses": None},
    ],
    ids=["one label more", "another shard", "no ports", "only ready ones"],
)
def test_the_Service_of_a_shard_is_put_right_under_the_epoch_that_it_names(edit: dict[str, Any]) -> None:  # noqa: N802
    one = edited(**edit, clusterIP="10.0.0.7")
    (obj,) = put_right(one)

    made = manifests.shard_service(one.desired, 0, epoch_of(0))
    assert obj["spec"] == {**made["spec"], "clusterIP": "10.0.0.7"}
    assert obj["spec"]["selector"] == SELECTS
    assert obj["metadata"]["resourceVersion"] == "100"
    assert put_right(one, frozenset({"service-0"})) == [], "the rule that won moves it"
    assert put_right(one, frozenset({"service-1"})) == [obj]
    assert put_right(replace(one, desired=replace(one.desired, paused=True))) == [obj], "a shard needs its traffic"
    assert put_right(replace(one, desired=replace(one.desired, deleting=True))) == []


def test_the_Service_of_a_shard_is_left_if_nothing_is_wrong_or_it_is_another_owners_or_names_no_epoch() -> None:  # noqa: N802
    assert put_right(edited()) == []
    wrong = edited(ports=[])
    assert put_right(wrong.with_route(0, foreign=True)) == []
    assert put_right(wrong.with_route(0, epoch=None)) == []
    assert put_right(wrong.without_object("Service", "acme-shard-0")) == []


# --- shards that no longer exist


LOWERED = situation().settled(shards=4).wanting(shards=2).reporting(2).restarted(2)
"""The client has two of four shards left and has restarted the Coreapps; each Service still names its holder."""


def removed(one: Situation) -> list[str]:
    return [action.ref.name for action in tidied(one) if isinstance(action, Delete)]


def unclaimed(one: Situation) -> Situation:
    """The holders of shards 2 and 3 have lost their labels."""
    return one.with_pod(2, labels=pod(2).labels).with_pod(3, labels=pod(3).labels)


@pytest.mark.parametrize(
    ("one", "freed", "names"),
    [
        (LOWERED, [2, 3], ["acme-shard-2", "acme-shard-3"]),
        (LOWERED.client(asked_at=NOW - seconds(6)), [], []),
        (LOWERED.client(asked_at=None), [], []),
        (LOWERED.noted(4, Answer.UNKNOWN), [], []),
    ],
    ids=["the client just said so", "it said so a while ago", "an earlier leader heard so", "a call may bring them back"],
)
def test_a_shard_is_given_up_only_on_what_the_client_said_just_now(one: Situation, freed: list[int], names: list[str]) -> None:
    assert cleared(one) == freed
    assert removed(unclaimed(one)) == names


CONTRADICTED = situation().settled(shards=4).reporting(2)
"""A Webapp answers with two shards, while the Coreapps have the connections of all four."""


def but_shard_3(**changes: Any) -> Situation:
    report = CONTRADICTED.holder_of(3).report
    assert report is not None
    return CONTRADICTED.with_holder(3, report=replace(report, **changes))


@pytest.mark.parametrize(
    ("one", "freed", "names"),
    [
        (CONTRADICTED, [], []),
        (but_shard_3(gateway="disconnected"), [3], ["acme-shard-3"]),
        (but_shard_3(shard=1), [3], ["acme-shard-3"]),
        (but_shard_3(epoch="7-other"), [3], ["acme-shard-3"]),
        (CONTRADICTED.with_holder(3, report=None), [3], ["acme-shard-3"]),
        (CONTRADICTED.with_holder(3, broken_at=NOW), [3], ["acme-shard-3"]),
        (CONTRADICTED.with_holder(3, unresponsive_since=NOW), [3], ["acme-shard-3"]),
        (CONTRADICTED.without_pod(3), [], ["acme-shard-3"]),
    ],
)
def test_a_shard_whose_holder_is_connected_for_it_exists_no_matter_what_a_webapp_answers(
    one: Situation, freed: list[int], names: list[str]
) -> None:
    assert cleared(one) == freed
    assert removed(unclaimed(one) if freed else one) == names


def test_the_Service_of_a_shard_that_is_gone_stays_until_no_pod_has_its_epoch() -> None:  # noqa: N802
    """A label of the shard alone leads nowhere."""
    bare = unclaimed(LOWERED)
    assert removed(LOWERED) == []
    assert removed(bare.with_pod(2, labels={**pod(2).labels, manifests.SHARD_LABEL: "2"})) == ["acme-shard-2", "acme-shard-3"]


def test_the_Service_of_another_owner_is_not_deleted() -> None:  # noqa: N802
    assert removed(unclaimed(LOWERED).with_route(2, foreign=True)) == ["acme-shard-3"]


def test_a_label_that_may_still_be_committed_is_outdated_by_its_Service_first() -> None:  # noqa: N802
    """Also of a shard that the client no longer has: the Service is touched before the label goes."""
    one = unclaimed(LOWERED).with_pod(5, labels=labels_for(3, "900-new"))

    assert [action.route.shard for action in tidied(one) if isinstance(action, Touch)] == [3]
    assert 5 not in cleared(one)


# --- pods that are ended


def ended(one: Situation) -> list[str]:
    return [action.ref.name for action in always.replacing(one.facts(), frozenset())]


def hung(ordinal: int, spares: int = 1, **changes: Any) -> Situation:
    """The node lives, and the Coreapp has not answered for twenty seconds."""
    one = situation().settled(spares=spares).with_nodes()
    return one.with_pod(ordinal, **{"unresponsive_since": NOW - seconds(20), "report": None, **changes})


def test_a_Coreapp_that_was_ready_and_hangs_is_ended_at_once_one_that_starts_is_not() -> None:  # noqa: N802
    assert ended(hung(2, ready=False, lost_readiness=True)) == ["acme-coreapp-2"]
    assert ended(hung(2, ready=False)) == []
    assert ended(hung(2)) == ["acme-coreapp-2"]


def test_a_Coreapp_that_is_ending_is_not_ended_again() -> None:  # noqa: N802
    assert ended(hung(2, deleting=True)) == []


@pytest.mark.parametrize(("spares", "names"), [(0, ["acme-coreapp-3"]), (1, ["acme-coreapp-3"]), (2, ["acme-coreapp-3", "acme-coreapp-4"])])
def test_as_many_Coreapps_are_ended_at_a_time_as_there_are_spares_and_one_at_least(spares: int, names: list[str]) -> None:  # noqa: N802
    one = situation().settled(spares=spares).with_pods([3, 4]).with_nodes()
    for ordinal in (3, 4):
        one = one.with_pod(ordinal, unresponsive_since=NOW - seconds(20), report=None)

    assert ended(one) == names
    spared = one.rejecting("Pod", "acme-coreapp-3")
    assert ended(spared) == ["acme-coreapp-4", "acme-coreapp-3"][: len(names)], "what must not be deleted keeps no place"


@pytest.mark.parametrize(("span", "manual", "names"), [(5.9, False, []), (6, False, ["acme-coreapp-0"]), (6, True, [])])
def test_a_holder_that_no_standby_can_replace_is_ended_after_twice_the_time(span: float, manual: bool, names: list[str]) -> None:
    one = hung(0, spares=0, unresponsive_since=NOW - seconds(span)).wanting(manual=manual)

    assert ended(one) == names


def test_a_spare_that_must_not_be_deleted_keeps_no_holder_from_being_restarted() -> None:
    """None of the two serves; the holder takes its shard back when it is restarted, and nobody knows when the spare may be."""
    one = hung(0, spares=1, unresponsive_since=NOW - seconds(6)).with_pod(2, unresponsive_since=NOW - seconds(6), report=None)

    assert ended(one) == ["acme-coreapp-2"]
    assert ended(one.rejecting("Pod", "acme-coreapp-2")) == ["acme-coreapp-0"]


def test_a_spare_that_hangs_is_ended_before_twice_the_time_and_by_manual_failover_too() -> None:
    one = hung(2, unresponsive_since=NOW - seconds(4))

    assert ended(one) == ["acme-coreapp-2"]
    assert ended(one.wanting(manual=True)) == ["acme-coreapp-2"]


def test_a_pod_that_is_ended_once_more_takes_no_place_of_another_and_is_ended_once() -> None:
    one = situation().settled(spares=2).with_pods([4]).with_nodes().seeing(ended=frozenset({"acme-coreapp-3"}))
    for ordinal in (3, 4):
        one = one.with_pod(ordinal, unresponsive_since=NOW - seconds(20), report=None)

    assert ended(one) == ["acme-coreapp-3", "acme-coreapp-4"]


# --- names of earlier releases


def outgrown(*, successor: bool = True) -> Situation:
    """The NetworkPolicy of an earlier release is still there."""
    former = {"metadata": {"name": "acme", "uid": "u", "resourceVersion": "5"}}
    one = SETTLED.seeing(objects={**SETTLED.snapshot.objects, Ref("NetworkPolicy", "acme"): former})
    return one if successor else one.without_object("NetworkPolicy", "acme-coreapp")


@pytest.mark.parametrize(
    ("one", "goes"),
    [
        (outgrown(), True),
        (SETTLED, False),
        (outgrown(successor=False), False),
        (outgrown().rejecting("NetworkPolicy", "acme", ago=1), False),
    ],
    ids=["replaced", "not there", "not replaced yet", "that was just rejected"],
)
def test_an_object_under_a_former_name_goes_once_its_successor_exists(one: Situation, goes: bool) -> None:
    expected = [Delete(ref=Ref("NetworkPolicy", "acme"), uid="u", resource_version="5")]

    assert [*always.outgrowing(one.facts())] == (expected if goes else [])


@pytest.mark.parametrize("changes", [{"paused": True}, {"deleting": True}])
def test_an_object_under_a_former_name_stays_while_changes_are_held(changes: dict[str, bool]) -> None:
    one = outgrown()
    held = one.wanting(**changes).seeing(objects=one.snapshot.objects)

    assert [*always.outgrowing(held.facts())] == []


def test_a_pod_without_marks_is_left() -> None:
    assert tidied(SETTLED.with_pod(2, labels=pod(2).labels)) == []


def test_the_service_of_a_holder_that_the_servers_reject_is_touched_once() -> None:
    """So that the next epoch is above all that there were, also after a restore of etcd."""

    def touched(one: Situation) -> list[tuple[int, str | None]]:
        return [(action.route.shard, action.epoch) for action in tidied(one) if isinstance(action, Touch)]

    rejected = Report(shard=0, epoch=epoch_of(0), shards=2, fenced=True)
    one = SETTLED.with_holder(0, report=rejected)
    assert touched(one) == [(0, epoch_of(0))]
    assert touched(one.with_route(0, touched=epoch_of(0))) == []
    assert touched(one.with_route(0, foreign=True)) == []
    assert touched(SETTLED.with_holder(0, report=replace(rejected, fenced=False))) == []
    assert touched(SETTLED.with_holder(0, report=replace(rejected, epoch="1-former"))) == [], "it has not taken its role yet"
    assert touched(SETTLED.with_holder(0, report=replace(rejected, shard=1))) == []
    assert touched(one.with_holder(0, terminated=True)) == [], "it is replaced at once"
