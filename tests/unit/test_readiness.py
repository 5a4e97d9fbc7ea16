"""When an operator is ready: it could lead now. What it has not seen is said."""

from __future__ import annotations

import logging

import pytest

from whatsapp_operator.shell.watch.readiness import LOGGED_AFTER, QUIET, Readiness

from .manual_clock import ManualClock


class World:
    """What a process has not seen yet."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.watches: str | None = None
        self.coreapps: str | None = None
        self.readiness = Readiness((lambda: self.watches, lambda: self.coreapps), clock=self.clock)

    def after(self, span: float) -> str | None:
        """Why it is not ready that many seconds later."""
        self.clock.at += span
        self.readiness.check()
        return self.readiness.why_not


def test_it_is_not_ready_before_it_was_asked() -> None:
    assert World().readiness.why_not == "the operator has just started"


def test_it_is_ready_when_all_was_seen() -> None:
    world = World()
    world.watches, world.coreapps = "not connected to pods yet", "Coreapps not reached yet: 3"
    assert world.after(60) == "not connected to pods yet"
    world.watches = None
    assert world.after(1) == "Coreapps not reached yet: 3"
    world.coreapps = None
    assert world.after(1) is None


def test_a_list_counts_as_read_when_no_object_of_it_came_for_a_while() -> None:
    """The watches are connected before the first object is passed on."""
    world = World()
    assert world.after(QUIET - 0.01) == "the objects of the clusters are still being read"
    world.readiness.note_listed()
    assert world.after(QUIET - 0.01) == "the objects of the clusters are still being read"
    assert world.after(0.02) is None


def test_it_stays_ready() -> None:
    """Otherwise an outage of the API server would take all replicas away."""
    world = World()
    assert world.after(QUIET) is None
    world.watches, world.coreapps = "not connected to pods yet", "Coreapps not reached yet: 3"
    world.readiness.note_listed()
    assert world.after(0) is None


def test_the_log_says_now_and_then_why_it_is_not_ready(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.watches = "not connected to pods yet"
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            world.after(LOGGED_AFTER / 2)
        world.watches = None
        world.after(0)
    assert [record.getMessage() for record in caplog.records] == [
        "Not ready yet: not connected to pods yet.",
        "Not ready yet: not connected to pods yet.",
        "ready to lead",
    ]
