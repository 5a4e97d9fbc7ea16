"""Something happens at each instant of a handover, between its two writes and around them (laws#1 and laws#2)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from .apiserver import Rejected
from .kinds import POD, SERVICE
from .laws import EPOCH, ROLE, SHARD
from .world import NAME, NAMESPACE, World, simulated

Act = Callable[[World, str], None]
SERVICE_0 = (NAMESPACE, f"{NAME}-shard-0")


def _label(world: World, name: str, **labels: str | None) -> None:
    body = {"metadata": {"labels": {f"multiconnect.dev/{key}": value for key, value in labels.items()}}}
    world.server.merge("user", POD, (NAMESPACE, name), body)


def the_new_holder_is_deleted(world: World, name: str) -> None:
    world.server.delete("user", POD, (NAMESPACE, name), grace=0)


def the_new_holder_ends(world: World, name: str) -> None:
    world.cluster.crash(next(one for one in world.coreapps() if one.name[1] == name))


def the_new_holder_hangs(world: World, name: str) -> None:
    world.cluster.hang(next(one for one in world.coreapps() if one.name[1] == name))


def the_new_holder_is_labelled_a_standby(world: World, name: str) -> None:
    _label(world, name, role="standby", shard=None, epoch=None)


def the_new_holder_gets_an_epoch_of_the_future(world: World, name: str) -> None:
    _label(world, name, epoch="999999-made-up")


def another_standby_gets_its_labels(world: World, name: str) -> None:
    labels = next(pod["metadata"]["labels"] for pod in world.laws.pods() if pod["metadata"]["name"] == name)
    other = next(
        pod["metadata"]["name"]
        for pod in world.laws.pods()
        if pod["metadata"]["labels"].get(ROLE) == "standby" and pod["metadata"]["name"] != name
    )
    world.laws.copies.add(other)
    _label(world, other, role="active", shard=labels.get(SHARD), epoch=labels.get(EPOCH))


def the_service_is_deleted(world: World, _: str) -> None:
    world.server.delete("user", SERVICE, SERVICE_0)


def the_service_is_touched(world: World, _: str) -> None:
    world.server.merge("user", SERVICE, SERVICE_0, {"metadata": {"annotations": {"note": "x"}}})


def the_leader_stands_still(world: World, _: str) -> None:
    world.operators[0].pause(3.0)
    world.operator().lead(2)


ACTS: tuple[Act, ...] = (
    the_new_holder_is_deleted,
    the_new_holder_ends,
    the_new_holder_hangs,
    the_new_holder_is_labelled_a_standby,
    the_new_holder_gets_an_epoch_of_the_future,
    another_standby_gets_its_labels,
    the_service_is_deleted,
    the_service_is_touched,
    the_leader_stands_still,
)


@pytest.mark.parametrize("step", ["patch Pod", "patch Service"])
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
@simulated()
async def test_a_handover_that_is_interrupted_is_put_right(world: World, act: Act, step: str) -> None:
    """All that the operator writes keeps the laws, and the shard is served again."""
    leader = await world.started(shards=2, spares=2)
    await world.pause(20)
    happened: list[str] = []
    new = [""]

    def interrupt(what: str) -> None:
        if what.startswith("patch Pod") and not new[0]:
            new[0] = what.rpartition(" ")[2]
        if what.startswith(step) and new[0] and not happened:
            happened.append(what)
            with suppress(Rejected):
                act(world, new[0])

    leader.before_a_write(interrupt)
    world.delete_pod(world.holding(0), force=True)
    await world.until(lambda: bool(happened), within=10, what="interrupted")
    await world.until_done(within=120)
    await world.stays_silent(30)
