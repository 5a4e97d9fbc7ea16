"""An error that nobody meant fails the run, wherever it is swallowed, and is not taken for a broken law."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from whatsapp_operator.core import report
from whatsapp_operator.shell.loop.handover import Handovers

from .apiserver import Change
from .crashes import UnexpectedError
from .laws import Laws
from .world import World, simulate


async def scenario(world: World) -> None:
    await world.started(shards=2)


def fail(*_: Any, **__: Any) -> Any:
    msg = "made on purpose"
    raise KeyError(msg)


async def fail_later(*_: Any, **__: Any) -> Any:
    fail()


def in_the_operator(patch: pytest.MonkeyPatch, _: World) -> None:
    """The operator catches it, logs it and tries again."""
    patch.setattr(report, "report", fail)


def in_a_task_that_is_gathered(patch: pytest.MonkeyPatch, _: World) -> None:
    """The second of two steps: `gather` returns both errors, and the first alone is raised."""
    patch.setattr(Handovers, "_commit", fail_later)


def in_a_task_that_nobody_awaits(_: pytest.MonkeyPatch, world: World) -> None:
    world.loop.call_later(1.0, lambda: asyncio.ensure_future(fail_later()))


def in_a_timer(_: pytest.MonkeyPatch, world: World) -> None:
    world.loop.call_later(1.0, fail)


def in_a_law(patch: pytest.MonkeyPatch, world: World) -> None:
    def judge(_: Laws, change: Change) -> None:
        if world.loop.time() > 1.0 and change.actor.startswith("operator-"):
            fail()

    patch.setattr(Laws, "_law_1", judge)


PLACES = (in_the_operator, in_a_task_that_is_gathered, in_a_task_that_nobody_awaits, in_a_timer, in_a_law)


@pytest.mark.parametrize("place", PLACES, ids=lambda one: one.__name__)
def test_an_unexpected_error_fails_the_run(place: Callable[[pytest.MonkeyPatch, World], None], monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(world: World) -> None:
        place(monkeypatch, world)
        await scenario(world)

    with pytest.raises(UnexpectedError, match="made on purpose"):
        simulate(broken)


def test_a_killed_process_is_no_unexpected_error() -> None:
    async def killed(world: World) -> None:
        world.create(shards=2)
        for epoch in range(1, 20):
            operator = world.operator()
            operator.lead(epoch)
            await world.pause(0.37 * epoch)
            operator.kill()
        world.operator().lead(20)
        await world.until_done()

    assert simulate(killed).loop.crashes.found == []
