"""A release that knows no marks leads while Coreapps carry them, and then one that does: no law is broken and nothing is stuck."""

from __future__ import annotations

from dataclasses import replace

import pytest

from whatsapp_operator.core import always, claims, rules, scaling

from .kinds import STATEFULSET
from .laws import ROLE
from .world import NAME, NAMESPACE, World, simulated

SHARDS, SPARES = 2, 3
STATES = {"one is marked": 1, "two are marked": 2, "all are marked": 3, "the number is lowered": None}
"""How many Coreapps are marked when the leader ends in a shrink; None: it has just lowered the number."""


def know_no_marks(patch: pytest.MonkeyPatch) -> None:
    """Make the operator one that takes a mark for a label like others, and lowers the number without it."""
    patch.setattr(claims.Claims, "retires_by", staticmethod(lambda _: None))
    lower = lambda f: scaling.scale(f, f.desired_replicas) if rules._may_shrink(f) else ()  # noqa: E731
    rows = (replace(row, then=lower) if row.name == "ScalingDown" else row for row in rules.RULES)
    patch.setattr(rules, "RULES", tuple(rows))
    patch.setattr(always, "ALWAYS", tuple(row for row in always.ALWAYS if row.name != "ShrinkGivenUp"))


def roles(world: World) -> list[str]:
    return [pod["metadata"]["labels"].get(ROLE, "") for pod in world.laws.pods()]


def is_lowered(world: World) -> bool:
    workload = world.server.get(STATEFULSET, (NAMESPACE, f"{NAME}-coreapp"))
    return workload is not None and workload["spec"]["replicas"] == SHARDS


async def end_in_a_shrink(world: World, marks: int | None) -> None:
    """Ask for no spares, and end the leader at a state of the marks."""
    leader = await world.started(shards=SHARDS, spares=SPARES)
    await world.pause(20)
    world.edit(spares=0)
    is_there = (lambda: is_lowered(world)) if marks is None else lambda: roles(world).count("retiring") == marks
    await world.until(is_there, within=30, what="the shrink is at that state")
    leader.kill()
    assert is_lowered(world) is (marks is None)


@pytest.mark.parametrize("accident", ["nothing", "a holder fails", "the spares are wanted again"])
@pytest.mark.parametrize("state", STATES)
@simulated(3)
async def test_a_release_without_marks_leads_in_between(world: World, state: str, accident: str) -> None:
    await end_in_a_shrink(world, STATES[state])
    with pytest.MonkeyPatch.context() as patch:
        know_no_marks(patch)
        if accident == "a holder fails":
            world.delete_pod(world.holding(0))
        elif accident == "the spares are wanted again":
            world.edit(spares=SPARES)
        older = world.operator()
        older.lead(2)
        await world.until_done(within=120)
        assert {*roles(world)} <= {"active", "standby"}
        await world.stays_silent(60.0)
        older.kill()
    world.operator().lead(3)
    await world.until_done(within=60)
    await world.stays_silent(60.0)
    world.edit(spares=1)
    await world.until_done(within=120)
