"""The wall clock of an operator's machine is set forward or back while it leads. No wait may grow or shrink by that."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

import pytest

from .client import CallOutcome
from .kinds import WAC
from .world import NAME, NAMESPACE, World, simulate, simulated

STEPS = (-3600.0, 20.0, 3600.0)
each_step = pytest.mark.parametrize("step", STEPS)


async def serving(world: World, *, shards: int = 2, spares: int = 2) -> None:
    await world.started(shards=shards, spares=spares, elected=True, within=120)
    await world.pause(20)


def set_clocks(world: World, step: float) -> None:
    for operator in world.living():
        operator.machine.step(step)


def status(world: World) -> dict[str, Any]:
    found: dict[str, Any] = (world.server.get(WAC, (NAMESPACE, NAME)) or {})["status"]
    return found


@each_step
def test_nobody_is_replaced_or_ended_for_it(step: float) -> None:
    async def scenario(world: World) -> None:
        await serving(world)
        handovers, uids = len(world.laws.handovers), {machine.uid for machine in world.coreapps()}
        for _ in range(4):
            set_clocks(world, step)
            await world.pause(6.5)
        assert (len(world.laws.handovers), {machine.uid for machine in world.coreapps()}) == (handovers, uids)

    simulate(scenario, f"steps of {step:g} s")


@each_step
def test_a_hung_holder_is_replaced_in_its_time_and_its_pod_ended(step: float) -> None:
    async def scenario(world: World) -> None:
        await serving(world)
        old = world.holding(0)
        world.cluster.hang(old)
        await world.pause(0.7)
        set_clocks(world, step)
        took = await world.until(lambda: world.holder(0) not in {None, old}, within=3.4, what="handed over")
        assert took >= 1.8
        set_clocks(world, step)
        await world.until(lambda: old.uid not in world.cluster.machines, within=30, what="ended, since its node lives")
        await world.until_done(within=60)

    simulate(scenario, f"steps of {step:g} s")


@each_step
def test_a_busy_client_is_asked_again_and_a_resize_comes_to_its_end(step: float) -> None:
    async def scenario(world: World) -> None:
        await serving(world)
        world.account.call_outcomes.extend([CallOutcome(status=403), CallOutcome(kind="timeout", applied=0.0)])
        world.edit(shards=4)
        await world.until(
            lambda: not world.account.call_outcomes or len(world.account.call_outcomes) == 1, within=60, what="it was busy once"
        )
        set_clocks(world, step)
        await world.until(lambda: not world.account.call_outcomes, within=30, what="asked again")
        set_clocks(world, step)
        await world.until_done(within=60)

    simulate(scenario, f"steps of {step:g} s")


@each_step
def test_a_change_by_another_writer_is_seen_in_its_time(step: float) -> None:
    async def scenario(world: World) -> None:
        await serving(world, shards=2)
        set_clocks(world, step)
        world.account.set_shards(1)
        await world.until(lambda: status(world).get("shards") == 1, within=40, what="the status says so")

    simulate(scenario, f"steps of {step:g} s")


@each_step
@simulated()
async def test_people_read_the_time_of_the_wall(world: World, step: float) -> None:
    await serving(world)
    set_clocks(world, step)
    old = world.holding(0)
    world.delete_pod(old, force=True)
    await world.until_done(within=60)
    clock = world.operators[0].clock
    reported = datetime.fromisoformat(status(world)["recentHandovers"][0]["at"])
    assert 0 <= (clock.wall() - reported).total_seconds() <= 60


@pytest.mark.parametrize(("days", "spec"), [(-5, "certificate"), (-400, "certificate"), (-5, "registration")])
@simulated()
async def test_nothing_that_gets_the_account_banned_is_sent_by_a_machine_whose_clock_is_days_behind(
    world: World, days: float, spec: str
) -> None:
    """The certificate expired an hour ago, or the number was registered eight days ago. The API server's clock tells."""
    account: dict[str, Any] = {"countryCode": "1", "phoneNumber": "6315550000", "registeredAt": "2026-12-27T11:00:00Z"}
    if spec == "certificate":
        world.put_account_secret(certificate=base64.b64encode(b"a certificate").decode(), expiresAt="2027-01-04T11:00:00Z")
        account = {**account, "secretRef": {"name": "account"}}
    world.create(shards=2, account=account)
    world.operator(ahead=days * 86400).lead(1)
    reason = "CertificateExpired" if spec == "certificate" else "RegistrationTooOld"
    await world.until(lambda: world.condition("Stalled")[:2] == ("True", reason), within=60, what="it is said")
    await world.pause(60)
    assert world.laws.applied["5"] == 0
