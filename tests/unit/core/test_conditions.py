"""Conditions in their variants: Ready, Redundant and the Event that says that a pause was long enough."""

from __future__ import annotations

import pytest

from whatsapp_operator.core import conditions
from whatsapp_operator.core.snapshot import Report

from .situations import NOW, Situation, seconds, situation
from .witnesses import growing, restarting

SETTLED = situation().settled()
AWAY = "Set Shards 2 -> 4: 0 of 5 Coreapps are back, deadline 2027-01-04T12:02:59Z."
RESIZE = "Set Shards 2 -> 4: all Coreapps will restart."

READY: dict[str, tuple[Situation, str, str, str]] = {
    "one spare": (SETTLED, "True", "Serving", "All 2 shards are served; 1 failure can be taken."),
    "one shard": (situation().settled(shards=1), "True", "Serving", "The one shard is served; 1 failure can be taken."),
    "two spares": (situation().settled(spares=2), "True", "Serving", "All 2 shards are served; 2 failures can be taken."),
    "no spare wanted": (situation().settled(spares=0), "True", "Serving", "All 2 shards are served."),
    "no spare left": (SETTLED.without_pod(2), "True", "Serving", "All 2 shards are served, but no spare is left."),
    "first number": (growing().seeing(settled_shards=None), "False", "SettingShards", RESIZE),
    "first restart, number unknown": (restarting().seeing(settled_shards=None).reporting(None), "False", "Restarting", AWAY),
    "a short silence": (
        SETTLED.client(unresponsive_since=NOW - seconds(9.9), problem="connection reset"),
        "True",
        "Serving",
        "All 2 shards are served; 1 failure can be taken.",
    ),
    "a long silence": (
        SETTLED.client(unresponsive_since=NOW - seconds(10), problem="connection reset"),
        "Unknown",
        "WebappNotResponding",
        "The Webapp does not answer: connection reset",
    ),
}


@pytest.mark.parametrize(("one", "status", "reason", "message"), READY.values(), ids=READY)
def test_Ready_says_what_is_so(one: Situation, status: str, reason: str, message: str) -> None:  # noqa: N802
    found = one.condition("Ready")

    assert (found["status"], found["reason"], found["message"]) == (status, reason, message)


@pytest.mark.parametrize("one", [situation(), growing().seeing(settled_shards=None)], ids=["nothing exists", "a first number is set"])
def test_while_a_cluster_is_set_up_Redundant_says_the_same_as_Ready(one: Situation) -> None:  # noqa: N802
    """Two sentences under one reason would be two Events."""
    ready, redundant, plan = one.condition("Ready"), one.condition("Redundant"), one.plan()

    assert (ready["reason"], ready["message"]) == (plan.decision.rule, plan.decision.why)
    assert (redundant["reason"], redundant["message"], redundant["status"]) == (ready["reason"], ready["message"], "False")


@pytest.mark.parametrize("manual", [False, True])
def test_a_holder_that_lives_and_was_not_assigned_yet_is_on_its_way(manual: bool) -> None:
    """Its role is assigned in any mode."""
    one = SETTLED.with_holder(0, report=Report(shards=2)).without_pod(2).wanting(manual=manual)

    assert conditions.shard_state(one.facts(), one.route(0)) == "Moving"
