"""The machine's clocks: what is compared never steps, what people read does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from whatsapp_operator.shell.clock import SystemClock

START = datetime(2027, 1, 4, 12, 0, 0, tzinfo=UTC)


class Machine:
    """A machine whose wall clock can be set, and that can sleep."""

    def __init__(self) -> None:
        self.passed = 1000.0
        self.set_by = 0.0
        self.clock = SystemClock(wall=lambda: START + timedelta(seconds=self.passed + self.set_by), seconds=lambda: self.passed)


@pytest.mark.parametrize("step", [-3600.0, 20.0, 3600.0])
def test_a_wall_clock_that_is_set_makes_no_span_longer_or_shorter(step: float) -> None:
    machine = Machine()
    before, wall, seconds = machine.clock.now(), machine.clock.wall(), machine.clock.monotonic()

    machine.passed += 5.0
    machine.set_by = step

    assert machine.clock.now() - before == timedelta(seconds=5)
    assert machine.clock.monotonic() - seconds == 5.0
    assert machine.clock.wall() - wall == timedelta(seconds=5 + step)


def test_it_begins_at_the_wall_time_in_utc() -> None:
    machine, real = Machine(), SystemClock()

    assert machine.clock.now() == machine.clock.wall()
    assert real.now().tzinfo is real.wall().tzinfo is UTC
    assert abs(real.now() - datetime.now(UTC)) < timedelta(minutes=1)
