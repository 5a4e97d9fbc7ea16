"""What is done whichever rule wins: each rule of that table with a situation in which it acts, and their order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from whatsapp_operator.core import always, manifests, rules
from whatsapp_operator.core.actions import Action, AssignRole, BumpVersion, ClearLabels, Delete, Handover, Label, Replace
from whatsapp_operator.core.desired import WebappService
from whatsapp_operator.core.snapshot import Report

from .situations import Situation, labels_for, situation
from .test_evidence import hung
from .witnesses import WITNESSES

ORDER = ["PodsUnresponsive", "ObjectsChanged", "LabelsLost", "NamesOutgrown", "HandoversUnfinished", "ShrinkGivenUp", "RolesDiffer"]


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


CASES: dict[str, tuple[Situation, type[Action]]] = {
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
    own = [*next(rule for rule in rules.RULES if rule.name == name).then(facts)]
    busy = always.Busy.of(own)
    expected = [*own, *(action for rule in always.ALWAYS for action in rule.then(facts, busy))]

    assert [*one.plan().actions][: len(expected)] == expected


def test_what_the_winning_rule_moves_is_busy() -> None:
    (move,) = (action for action in WITNESSES["FailingOver"].plan().actions if isinstance(action, Handover))

    assert always.Busy.of([move]) == always.Busy(
        pods=frozenset({move.to.uid}), routes=frozenset({move.route.uid}), shards=frozenset({move.route.shard})
    )


def test_every_rule_says_why() -> None:
    assert all(rule.why.endswith(".") for rule in always.ALWAYS)
