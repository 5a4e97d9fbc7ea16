"""Leadership is given up after ten seconds of failed self-checks, and again after pauses that double."""

from __future__ import annotations

from whatsapp_operator.shell.coreapps.self_check import SelfCheck

from .manual_clock import ManualClock


class Self:
    """The operator: whether its self-check fails, whether it leads."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.why: str | None = None
        self.leads = True
        self.stepped_down: list[float] = []
        self.self_check = SelfCheck(self_check=lambda: self.why, step_down=self._step_down, clock=self.clock)

    def _step_down(self) -> bool:
        if self.leads:
            self.stepped_down.append(self.clock.at)
        return self.leads

    def until(self, end: float) -> None:
        while self.clock.at < end:
            self.clock.at += 1
            self.self_check.check()


def test_a_short_failure_of_the_self_check_changes_nothing() -> None:
    us = Self()
    us.why = "late"
    us.until(9)
    us.why = None
    us.until(20)
    us.why = "late"
    us.until(29)

    assert us.stepped_down == []


def test_a_long_failure_gives_leadership_up_again_and_again_for_a_candidate_may_have_come() -> None:
    us = Self()
    us.why = "late"
    us.until(300)

    assert us.stepped_down == [11, 31, 71, 131, 191, 251]


def test_the_next_failure_does_it_again() -> None:
    us = Self()
    us.why = "late"
    us.until(20)
    us.why = None
    us.until(21)
    us.why = "late"
    us.until(40)

    assert us.stepped_down == [11, 32]


def test_who_comes_to_lead_in_the_midst_of_a_failure_gives_it_up_too() -> None:
    us = Self()
    us.leads, us.why = False, "most are silent"
    us.until(30)
    us.leads = True
    us.until(31)

    assert us.stepped_down == [31]


def test_another_patience() -> None:
    us = Self()
    us.self_check = SelfCheck(self_check=lambda: us.why, step_down=us._step_down, clock=us.clock, patience=4, meaning="it is deaf")
    us.why = "not connected to pods"
    us.until(30)

    assert us.stepped_down == [5, 13, 29]
