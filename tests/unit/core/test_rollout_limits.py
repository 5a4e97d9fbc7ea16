"""A roll-out that waits: for how long, for whom, and what is ended when the old template never came up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from whatsapp_operator.core import rollout
from whatsapp_operator.core.actions import Delete, Handover
from whatsapp_operator.core.snapshot import Answer, Report

from .plans import of
from .situations import NOW, Situation, seconds, situation
from .witnesses import rolling_out


def holders_are_next() -> Situation:
    """The only standby has the new template: now the shards move."""
    return rolling_out().with_pod(2, revision="rev-1")


def steps(one: Situation) -> list[str]:
    """What the next step ends or moves."""
    plan = one.plan()
    return [delete.uid for delete in of(plan, Delete)] + [f"shard {move.route.shard}" for move in of(plan, Handover)]


def with_answer(one: Situation, shard: int, changes: dict[str, Any]) -> Situation:
    """The holder of a shard is ready and says something else of itself than its Service does."""
    report = one.holder_of(shard).report
    assert report is not None
    return one.with_holder(shard, report=replace(report, **changes))


# --- the next step


@pytest.mark.parametrize(
    ("due", "next_step"), [(rolling_out(), ["uid-2"]), (holders_are_next(), ["shard 0"])], ids=["a standby is next", "a holder is next"]
)
@pytest.mark.parametrize(
    ("shard", "said"),
    [(0, {"fenced": True}), (1, {"fenced": True}), (0, {"epoch": "1-former"}), (1, {"shard": None, "epoch": None})],
    ids=["shard 0 is fenced", "shard 1 is fenced", "shard 0 under a former epoch", "shard 1 not yet taken"],
)
def test_no_step_is_taken_while_a_shard_is_not_served(due: Situation, next_step: list[str], shard: int, said: dict[str, Any]) -> None:
    """All Coreapps are ready. But messages of that shard wait, so nothing else is touched."""
    assert steps(due) == next_step
    assert steps(with_answer(due, shard, said)) == []


def test_no_step_is_taken_while_a_shard_has_no_holder() -> None:
    one = rolling_out().with_route(0, epoch=None, holder=None, holder_uid=None)

    assert rollout.steps(one.facts()) == ()


def test_no_step_is_taken_while_a_Coreapp_has_another_number_of_shards() -> None:  # noqa: N802
    """It is ready, but it is about to restart with the right number."""
    assert steps(rolling_out().with_pod(3, report=Report(shards=1))) == []


def test_the_shard_of_an_updated_holder_stays_where_it_is() -> None:
    one = holders_are_next().with_pod(0, revision="rev-1")

    assert steps(one) == ["shard 1"]


@pytest.mark.parametrize(("ago", "step"), [(2.9, []), (3, ["shard 0"])])
def test_a_shard_moves_once_its_holder_has_been_outdated_for_three_seconds(ago: float, step: list[str]) -> None:
    one = holders_are_next()

    assert steps(one.seeing(since={**one.snapshot.since, "Outdated/uid-0/holder": NOW - seconds(ago)})) == step


def test_an_outdated_Coreapp_that_is_ending_already_is_not_ended_again() -> None:  # noqa: N802
    """Enough others are ready, so only its end is awaited."""
    one = rolling_out().with_pods([4, 5]).replicas(4).with_pod(2, deleting=True, ready=False)
    assert len(one.facts().ready) == 5

    assert rollout.steps(one.facts()) == ()


HELD = {
    "paused": lambda one: one.wanting(paused=True),
    "being deleted": lambda one: one.wanting(deleting=True),
    "Set Shards under way": lambda one: one.noted(2, Answer.UNKNOWN),
    "a Set Shards that may still take effect": lambda one: one.noted(4, Answer.UNKNOWN).later(300),
}


@pytest.mark.parametrize("held", HELD.values(), ids=HELD)
def test_a_held_roll_out_has_no_next_step(held: Any) -> None:
    assert rollout.steps(rolling_out().facts()) != ()
    assert rollout.steps(held(rolling_out()).facts()) == ()


# --- a template that never came up


def never_up() -> Situation:
    """Nothing of the former template is ready or answers, and nothing of the new one is there."""
    return rolling_out().without_pod(3).all_pods(ready=False, report=None).reporting(None)


def ended(one: Situation) -> list[str]:
    return [pod.uid for pod in rollout.unrecoverable(one.facts())]


def test_Coreapps_that_never_came_up_are_ended_even_if_a_shard_names_them() -> None:  # noqa: N802
    assert ended(never_up()) == ["uid-0", "uid-1", "uid-2"]


def test_with_a_standby_only_those_without_a_shard_are_ended() -> None:
    """The others lose their shards to the standby first."""
    assert ended(never_up().with_pods([3])) == ["uid-2"]


@pytest.mark.parametrize(
    "changes",
    [{"ready": True}, {"report": Report(shards=2)}, {"deleting": True}, {"revision": "rev-1"}],
    ids=["ready", "answers", "is ending already", "has the new template"],
)
def test_a_Coreapp_that_may_still_serve_or_is_ending_is_not_ended(changes: dict[str, Any]) -> None:  # noqa: N802
    assert "uid-2" not in ended(never_up().with_pod(2, **changes))


@pytest.mark.parametrize(("ago", "due"), [(2.9, []), (3, ["uid-2"])])
def test_one_that_never_came_up_has_three_seconds_once_it_is_outdated(ago: float, due: list[str]) -> None:
    assert ended(never_up().seeing(since={"Outdated/uid-2/spare": NOW - seconds(ago)})) == due


@pytest.mark.parametrize("held", HELD.values(), ids=HELD)
def test_while_a_roll_out_is_held_nothing_makes_way_for_it(held: Any) -> None:
    assert ended(held(never_up())) == []


def test_a_cluster_of_one_template_has_nothing_to_roll_out() -> None:
    assert rollout.steps(situation().settled().facts()) == ()
