"""What is done no matter which rule wins: each rule of that table with a situation in which it acts, and their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from whatsapp_operator.core import always, manifests, rules
from whatsapp_operator.core.actions import (
    Action,
    AssignRole,
    BumpVersion,
    ClearLabels,
    Create,
    Delete,
    Handover,
    Label,
    Replace,
    Retire,
    Scale,
)
from whatsapp_operator.core.desired import Switchover, WebappService
from whatsapp_operator.core.names import Ref
from whatsapp_operator.core.snapshot import Answer, Login, Report

from .plans import of
from .situations import NOW, Situation, labels_for, seconds, situation
from .test_evidence import hung
from .witnesses import WITNESSES

ORDER = [
    "CoreappsTooFew",
    "ShardsUnassigned",
    "CoreappsUnused",
    "ObjectsAbsent",
    "PodsUnresponsive",
    "ObjectsChanged",
    "LabelsLost",
    "NamesOutgrown",
    "HandoversUnfinished",
    "ShrinkGivenUp",
    "RolesDiffer",
]


def unlabelled() -> Situation:
    """A foreign writer took the labels off the Service of shard 0."""
    bare = {"kind": "Service", "metadata": {"name": "acme-shard-0", "uid": "service-0", "resourceVersion": "100", "labels": {}}}
    return situation().settled().seeing(mislabelled=(bare,))


def outgrown() -> Situation:
    """An object stands under the name of an earlier release, and the one that replaces it."""
    one = situation().settled()
    former, successor = next(iter(manifests.outgrown("acme").items()))
    live = {"kind": former.kind, "metadata": {"name": former.name, "uid": "former", "resourceVersion": "3"}}
    assert successor in one.snapshot.objects
    return one.seeing(objects={**one.snapshot.objects, former: live})


def edited() -> Situation:
    """The Webapps' Service is no longer of the type that the spec asks for."""
    one = situation().settled()
    return replace(one, desired=replace(one.desired, webapp_service=WebappService(type="LoadBalancer")))


def unassigned() -> Situation:
    """The holder of shard 0 reports that it serves none."""
    one = situation().settled()
    return one.with_holder(0, report=Report(shards=2))


def too_large() -> Situation:
    """A new cluster was to have more shards; no Coreapp has become ready, and no Webapp says how many the client has."""
    one = situation().settled().with_pods([3, 4]).all_pods(ready=False, labels={}).retiring(3, 4).reporting(None)
    return one.seeing(routes=(), record=replace(one.snapshot.record, settled_shards=None))


CASES: dict[str, tuple[Situation, type[Action]]] = {
    "CoreappsTooFew": (situation().settled().replicas(1), Scale),
    "ShardsUnassigned": (situation().settled().without_route(0), Create),
    "CoreappsUnused": (too_large(), Scale),
    "ObjectsAbsent": (situation().settled().without_object("Service", "acme-webapp"), Create),
    "PodsUnresponsive": (hung(), Delete),
    "ObjectsChanged": (edited(), Replace),
    "LabelsLost": (unlabelled(), Label),
    "NamesOutgrown": (outgrown(), Delete),
    "HandoversUnfinished": (situation().settled().with_pod(2, labels=labels_for(7, "3-old")), ClearLabels),
    "ShrinkGivenUp": (situation().settled().retiring(2), BumpVersion),
    "RolesDiffer": (unassigned(), AssignRole),
}
"""For each rule a situation in which it acts, and what it does."""


def test_the_rules_stand_in_this_order() -> None:
    assert [rule.name for rule in always.ALWAYS] == ORDER == list(CASES)


@pytest.mark.parametrize("name", ORDER)
def test_each_rule_acts_and_nothing_else_does_it_in_its_place(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, action = CASES[name]
    facts = one.facts()
    (rule,) = (rule for rule in always.ALWAYS if rule.name == name)
    done = [*rule.then(facts, always.Busy.of(()))]
    assert [type(each) for each in done] == [action]
    assert done[0] in one.plan().actions

    monkeypatch.setattr(always, "ALWAYS", tuple(other for other in always.ALWAYS if other is not rule))

    assert done[0] not in one.plan().actions


@pytest.mark.parametrize("name", ["FailingOver", "Draining", "Paused", "LoginRejected"])
def test_they_act_with_every_rule_and_after_it(name: str) -> None:
    """The actions of the rule that won come first, then those of each rule of this table, in its order."""
    one = WITNESSES[name]
    facts = one.facts()
    expected = [*next(rule for rule in rules.RULES if rule.name == name).then(facts)]
    for rule in always.ALWAYS:
        expected += rule.then(facts, always.Busy.of(expected))

    assert [*one.plan().actions][: len(expected)] == expected


HINDRANCES: dict[str, Callable[[Situation], Situation]] = {
    "a failover": lambda one: one.holder_deleted(1),
    "a switchover": lambda one: one.wanting(switchovers=(Switchover(shard=1),), switchover_text="1"),
    "a switchover of the same shard": lambda one: one.wanting(switchovers=(Switchover(shard=0, to="acme-coreapp-3"),)),
    "too few Coreapps": lambda one: one.replicas(1),
    "no login": lambda one: one.client(login=Login.REJECTED, asked_at=NOW - seconds(600)).wanting(shards=1),
    "a rejected object": lambda one: one.without_object("PodDisruptionBudget", "acme-webapp").rejecting(
        "PodDisruptionBudget", "acme-webapp", ago=0
    ),
    "an absent object": lambda one: one.without_object("PodDisruptionBudget", "acme-webapp"),
    "a name that another one has": lambda one: one.seeing(name_conflicts=(Ref("PodDisruptionBudget", "acme-webapp"),)),
}


@pytest.mark.parametrize("hinder", HINDRANCES.values(), ids=HINDRANCES)
def test_whatever_else_wins_shards_and_their_coreapps_are_kept(hinder: Callable[[Situation], Situation]) -> None:
    """The rule that wins may do nothing, or be rejected for days."""
    lacking = hinder(situation().settled(shards=2, spares=2)).without_route(0)
    made = {action.obj["metadata"]["name"] for action in of(lacking.plan(), Create)}
    moved = hinder(situation().settled(shards=2, spares=2)).with_route(0, epoch=None, holder=None, holder_uid=None).plan()

    assert "acme-shard-0" in made
    pairs = [(move.route.shard, move.to.uid) for move in of(moved, Handover)]
    assert 0 in dict(pairs)
    assert all(len({*each}) == len(pairs) for each in zip(*pairs, strict=True)), "no shard goes to two pods, no pod gets two shards"
    assert len(of(hinder(situation().settled().replicas(1)).plan(), Scale)) == 1


@pytest.mark.parametrize("name", ["CoreappsTooFew", "ShardsUnassigned", "ObjectsAbsent"])
def test_what_a_cluster_lacks_is_not_made_when_it_is_deleted(name: str) -> None:
    one, _ = CASES[name]

    kinds = {type(action) for action in one.wanting(deleting=True).plan().actions}
    assert not kinds & {Scale, Create}


@pytest.mark.parametrize(
    ("one", "replicas"),
    [
        (too_large(), [3]),
        (too_large().reporting(1), [3]),
        (too_large().reporting(4), []),
        (too_large().retiring(3, 4, n=8), []),
        (too_large().seeing(settled_shards=2), []),
        (too_large().wanting(paused=True), []),
        (too_large().wanting(deleting=True), []),
        (too_large().noted(2, Answer.BUSY), []),
        (too_large().seeing(unread={"Service": "forbidden"}), []),
        (too_large().with_route(0), [3]),
        (too_large().with_route(0, holder="acme-coreapp-0", holder_uid="uid-0", epoch="90-first"), []),
    ],
    ids=["unknown", "one", "more", "not marked", "settled", "paused", "being deleted", "asked for", "unread", "not assigned", "assigned"],
)
def test_a_new_cluster_that_serves_nothing_yet_gives_the_room_of_its_surplus_coreapps_back(one: Situation, replicas: list[int]) -> None:
    """The Webapp that would say the number of shards may be waiting for just that room."""
    assert [scale.replicas for scale in of(one.plan(), Scale)] == replicas


@pytest.mark.parametrize("requested", [True, False])
def test_a_coreapp_to_which_a_shard_is_just_handed_over_is_not_marked_to_go(requested: bool) -> None:
    one = too_large().reporting(2).with_route(0).with_route(1).with_pod(4, ready=True, labels={})
    if requested:
        one = one.wanting(switchovers=(Switchover(shard=0, to="acme-coreapp-4"),), switchover_text="0=acme-coreapp-4")

    assert [move.to.name for move in of(one.plan(), Handover)] == ["acme-coreapp-4"]
    assert of(one.plan(), Retire) == []


def test_what_the_winning_rule_moves_is_busy() -> None:
    (move,) = (action for action in WITNESSES["FailingOver"].plan().actions if isinstance(action, Handover))

    assert always.Busy.of([move]) == always.Busy(
        pods=frozenset({move.to.uid}), routes=frozenset({move.route.uid}), shards=frozenset({move.route.shard})
    )


def test_every_rule_says_why() -> None:
    assert all(rule.why.endswith(".") for rule in always.ALWAYS)


def test_unused_Coreapps_wait_while_a_call_that_the_client_turned_away_is_still_noted() -> None:  # noqa: N802
    """The intent is dropped first: the observation after that finds that nothing was asked for."""
    one = too_large()
    assert of(one.plan(), Scale)

    noted = one.noted(4, Answer.BUSY)
    assert noted.plan().record.operation is None
    assert of(noted.plan(), Scale) == []
    assert of(noted.seeing(operation=None).plan(), Scale)
