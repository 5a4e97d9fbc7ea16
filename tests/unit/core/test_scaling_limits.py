"""For how long another party's number of Coreapps is remembered and left, and of what nothing is said."""

from __future__ import annotations

import pytest

from whatsapp_operator.core import scaling

from .situations import NOW, Situation, seconds, situation
from .test_scaling import HPA, insistent, scaled

SETTLED = situation().settled()


@pytest.mark.parametrize(("after", "times"), [(0, 8), (899.9, 8), (900, 1), (901, 1)])
def test_a_number_is_overruled_again_if_that_is_less_than_fifteen_minutes_ago(after: float, times: int) -> None:
    assert scaling.noted(insistent(7), by=HPA, replicas=5, now=NOW + seconds(after)).times == times


def test_the_first_number_that_is_overruled_is_counted_as_one() -> None:
    assert scaling.noted(None, by=HPA, replicas=5, now=NOW).times == 1


@pytest.mark.parametrize(("times", "pause"), [(3, 30), (4, 60), (5, 120), (6, 240), (7, 300), (8, 300), (50_000, 300)])
def test_the_pause_doubles_from_half_a_minute_to_five(times: int, pause: float) -> None:
    assert scaling.lowers_after(scaled(5, last=insistent(times)).facts()) == NOW + seconds(pause)


@pytest.mark.parametrize("times", [1, 2])
def test_the_first_times_a_number_is_lowered_without_a_pause(times: int) -> None:
    assert scaling.lowers_after(scaled(5, last=insistent(times)).facts()) is None


def test_a_number_is_lowered_at_the_end_of_the_pause_and_not_before() -> None:
    one = scaled(5, last=insistent(3))

    assert not scaling.may_lower(one.later(29.999).facts())
    assert scaling.may_lower(one.later(30).facts())


def test_nothing_is_waited_for_while_there_is_no_StatefulSet() -> None:  # noqa: N802
    """A person who scaled it again and again may have deleted it since."""
    gone = SETTLED.seeing(statefulset=None, overruled=insistent(50))

    assert scaling.lowers_after(gone.facts()) is None
    assert gone.plan().wake_after is not None


@pytest.mark.parametrize("one", [situation(), SETTLED], ids=["no StatefulSet", "the number of the operator"])
def test_only_of_the_number_of_another_party_it_is_said_whose_it_is(one: Situation) -> None:
    assert scaling.whose(one.facts()) == ""
    assert scaling.whose(scaled(5).facts()) != ""


def test_a_step_that_follows_from_the_spec_names_no_other_party() -> None:
    assert SETTLED.wanting(shards=4).plan().decision.why == "Coreapps 3 -> 5."
    assert SETTLED.with_pods([3, 4]).plan().decision.why == "Coreapps 5 -> 3."


def test_where_no_number_was_overruled_nothing_is_said_of_it() -> None:
    assert scaling.tell(SETTLED.facts()) == ""


@pytest.mark.parametrize(("after", "unused"), [(29.999, False), (30, True)])
def test_so_it_is_before_anything_is_served(after: float, unused: bool) -> None:
    one = scaled(5, last=insistent(3)).all_pods(labels={}).seeing(routes=(), settled_shards=None)

    assert scaling.are_unused(one.later(after).facts()) is unused


def test_without_a_StatefulSet_nothing_is_lowered() -> None:  # noqa: N802
    assert scaling.lowering(situation().facts()) == ()
