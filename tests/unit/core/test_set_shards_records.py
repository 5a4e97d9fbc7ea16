"""What the record keeps of a call: what an answer does not say is not concluded from it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from whatsapp_operator.core.snapshot import Answer

from .situations import FINGERPRINT, NOW, Situation, seconds, situation
from .test_logged_off import HELD, gateways, logging_on
from .witnesses import growing, restarting


def settle_by(one: Situation) -> float:
    """How many seconds from now the call is settled at the latest."""
    operation = one.snapshot.record.operation
    assert operation is not None
    return (operation.settle_by - NOW).total_seconds()


@pytest.mark.parametrize("answer", [Answer.ACCEPTED, Answer.BUSY, Answer.UNKNOWN])
def test_only_a_rejection_makes_a_certificate_a_rejected_one(answer: Answer) -> None:
    record = growing().with_account().calling(4, answer, fingerprint=FINGERPRINT).plan().record

    assert record.rejected_fingerprint is None
    assert record.operation is not None
    assert record.operation.answer is answer


def test_a_question_without_an_answer_settles_no_call_however_late() -> None:
    """Unknown is a value (laws#6): the call may have made any number."""
    one = growing().noted(4, Answer.UNKNOWN)
    late = one.later(settle_by(one) + 3600).reporting(None)

    assert late.plan().record.operation is not None
    assert late.reporting(2).plan().record.operation is None


@pytest.mark.parametrize(("since", "accepted"), [({}, False), ({"Connected": HELD + seconds(1)}, False), ({"Connected": HELD}, True)])
def test_a_call_that_logs_on_is_accepted_when_all_have_been_connected_for_a_while(since: dict[str, object], accepted: bool) -> None:
    """One Coreapp has not started yet, so the call is not over."""
    one = gateways(logging_on(Answer.UNKNOWN).reporting(2), "connected").with_pod(2, report=None).seeing(since=since)
    operation = one.plan().record.operation

    assert operation is not None
    assert (operation.answer is Answer.ACCEPTED) is accepted


def test_a_number_that_was_reached_counts_as_settled_although_the_spec_wants_another_by_now() -> None:
    """Otherwise the user's own next change would be called another party's."""
    record = restarting().restarted(4).seeing(settled_shards=2).wanting(shards=8).plan().record

    assert (record.operation, record.settled_shards) == (None, 4)


def test_the_first_number_is_settled_only_when_every_shard_is_served() -> None:
    one = restarting().restarted(4).seeing(settled_shards=None)
    without = one.with_route(3, epoch=None, holder=None, holder_uid=None)

    assert (without.plan().record.operation, without.plan().record.settled_shards) == (None, None)
    served = situation().settled(shards=4).seeing(settled_shards=None)
    assert served.plan().record.settled_shards == 4
    report = served.holder_of(3).report
    assert report is not None
    assert served.with_holder(3, report=replace(report, fenced=True)).plan().record.settled_shards is None, "three of four are not enough"


@pytest.mark.parametrize(("origin", "gateway", "is_back"), [(2, "connecting", True), (4, "connecting", False), (4, "connected", True)])
def test_a_holder_is_back_with_the_new_number_and_where_that_proves_nothing_with_its_connection(
    origin: int, gateway: str, is_back: bool
) -> None:
    one = gateways(situation().settled(shards=4).noted(4, Answer.ACCEPTED, origin=origin), gateway)

    assert one.facts().has_restarted(one.holder_of(0)) is is_back
