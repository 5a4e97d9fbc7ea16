"""How soon a tether asks again: at once while a Coreapp that has just started is about to learn how many shards there are."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import pytest

from waiting import until
from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.coreapps.loop_lag import LoopLag
from whatsapp_operator.shell.coreapps.schedule import MIN_UNRESPONSIVE, ProbeSchedule, phase_of

from .probe_peers import QUICK, REPORT, a_peer, target, watching

SHARDS = [None, None, 2]
PHASE = 2313622927 / 2**32
"""CRC-32 of the uid below, as gzip reckons it."""


async def test_a_coreapp_that_just_started_is_asked_again_at_once() -> None:
    async with a_peer() as peer, watching(peer.port) as watch:
        answered: list[int | None] = []

        def body() -> Mapping[str, Any]:
            answered.append(SHARDS[min(len(answered), len(SHARDS) - 1)])
            return {**REPORT, "shards": answered[-1]}

        peer.body = body
        watch.hold("a", period=60.0, holds=False)
        await until(lambda: (report := watch.tethers.result_of("a").report) is not None and report.shards == 2)

        assert answered == SHARDS
        assert watch.woken == 2


def test_phases_are_even_and_the_same_for_everybody() -> None:
    phases = [phase_of(str(uuid.UUID(int=number * 7919, version=4))) for number in range(5000)]

    tenths = [sum(tenth <= phase * 10 < tenth + 1 for phase in phases) for tenth in range(10)]
    assert 400 < min(tenths) <= max(tenths) < 600
    # Another process, another release: the same phase.
    assert phase_of("0b5c8b7e-3a53-4c1e-9f5b-0a3f5b0e7c11") == pytest.approx(PHASE, abs=1e-9)


def test_standbys_are_sped_up_in_an_order_that_does_not_depend_on_memory() -> None:
    """Else a seed of the simulation would not always be replayed exactly."""
    order: list[str] = []

    class Standby:
        asked_at = responded_at = None

        def __init__(self, number: int) -> None:
            self.target = target(ip=f"10.0.0.{number}")

        def __hash__(self) -> int:
            return -int(self.target.ip.rpartition(".")[2])

        def speed_up(self) -> None:
            order.append(self.target.ip)

    clock, standbys = SystemClock(), [Standby(number) for number in (3, 1, 4, 2)]
    schedule = ProbeSchedule(clock=clock, pace=QUICK, lag=LoopLag(clock=clock, late=lambda _: None), port=0)
    unresponsive = {Standby(number) for number in range(5, 5 + MIN_UNRESPONSIVE)}
    schedule.known.update(standbys, unresponsive)
    schedule.unresponsive.update(unresponsive)
    schedule.speed_up()

    assert order == [f"10.0.0.{number}" for number in (1, 2, 3, 4)]
