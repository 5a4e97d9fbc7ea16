"""What is no evidence although it looks like it, and what is certain even if nothing of the holder is left."""

from __future__ import annotations

import pytest

from whatsapp_operator.core import evidence
from whatsapp_operator.core.snapshot import Answer, Report, Silence

from .situations import NOW, seconds, situation
from .test_evidence import failure
from .witnesses import growing

DISAGREED = {"HolderDisagrees/0/10-first": NOW - seconds(600)}


def test_a_holder_that_does_not_know_the_number_of_shards_does_not_disagree_even_if_nobody_knows_it() -> None:
    one = situation().settled().reporting(None).with_holder(0, report=Report()).seeing(since=DISAGREED)

    assert failure(one) is None


@pytest.mark.parametrize(("answer", "is_failed"), [(Answer.UNKNOWN, False), (Answer.BUSY, True)])
def test_a_call_whose_outcome_is_unknown_may_have_taken_the_role_of_a_holder(answer: Answer, is_failed: bool) -> None:
    """A restart explains that a holder reports no role (laws#9). A busy client restarted nothing."""
    one = growing().noted(4, answer).with_holder(0, report=Report(shards=2)).seeing(since=DISAGREED)

    assert (failure(one) is not None) is is_failed


def test_a_failed_self_check_holds_back_nothing_that_is_certain_nor_a_shard_without_a_holder() -> None:
    late = situation().settled().seeing(silence=Silence(lag=seconds(2)))

    assert [*evidence.held_back(late.holder_deleted(0).facts())] == []
    assert [*evidence.held_back(late.with_route(0, holder=None, holder_uid=None).facts())] == []
