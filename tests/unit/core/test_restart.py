"""What follows for Set Shards from the client's number over time, at the very moments at which it changes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from zlib import crc32

import pytest

from whatsapp_operator.core.actions import Create
from whatsapp_operator.core.desired import Tuning
from whatsapp_operator.core.snapshot import Answer, Login, Report

from .plans import of
from .situations import NOW, Situation, seconds, situation
from .witnesses import NIGHT, growing, restarting

SETTLED = situation().settled()
LOGGED_OFF = SETTLED.seeing(logged_off_at=NOW)


# --- what is known of the client


@pytest.mark.parametrize(("ago", "fresh"), [(0, True), (5, True), (5.001, False), (None, False)])
def test_a_number_is_fresh_for_five_seconds(ago: float | None, fresh: bool) -> None:
    one = SETTLED.client(asked_at=None if ago is None else NOW - seconds(ago))

    assert one.facts().shards_are_fresh is fresh
    assert not one.client(shards=None).facts().shards_are_fresh


@pytest.mark.parametrize(("ended", "fresh"), [(2, True), (1, True), (0.5, False)])
def test_a_number_is_not_fresh_once_a_connection_has_ended_since(ended: float, fresh: bool) -> None:
    """Something else may have changed the number: each change ends all connections."""
    one = SETTLED.client(asked_at=NOW - seconds(1)).with_pod(0, broken_at=NOW - seconds(ended))

    assert one.facts().shards_are_fresh is fresh
    assert one.with_pod(0, ready=False, lost_readiness=True).facts().shards_are_fresh is fresh
    assert one.with_pod(0, ready=False, lost_readiness=False).facts().shards_are_fresh, "it only starts"
    back = SETTLED.client(asked_at=NOW - seconds(1)).with_pod(0, ended_at=NOW - seconds(ended))
    assert back.facts().shards_are_fresh is fresh, "it is back, with what may be another number"


@pytest.mark.parametrize(
    ("one", "known"),
    [
        (SETTLED.reporting(4), 4),
        (SETTLED.reporting(None), 2),
        (SETTLED.reporting(None).seeing(settled_shards=None), None),
        (SETTLED.noted(4, Answer.BUSY).reporting(None), 2),
        *((SETTLED.noted(4, answer).reporting(None), None) for answer in (Answer.NONE, Answer.UNKNOWN, Answer.ACCEPTED)),
    ],
    ids=["reported", "settled", "none was yet", "turned away", "a call may have begun", "a call is unknown", "a call was accepted"],
)
def test_while_the_client_says_no_number_the_last_settled_one_is_known_unless_a_call_may_have_changed_it(
    one: Situation, known: int | None
) -> None:
    assert one.facts().known_shards == known
    made = {action.obj["metadata"]["name"] for action in of(one.without_route(1).plan(), Create)}
    assert ("acme-shard-1" in made) == (known is not None)


UNASKED: dict[str, Any] = {"shards": None, "asked_at": None, "unresponsive_since": None, "login": Login.UNTRIED}


@pytest.mark.parametrize(
    ("one", "asked"),
    [
        (SETTLED.client(**UNASKED), False),
        (SETTLED.client(**{**UNASKED, "asked_at": NOW}), True),
        (SETTLED.client(**{**UNASKED, "unresponsive_since": NOW}), True),
        (SETTLED.client(**{**UNASKED, "login": Login.REJECTED}), True),
        (SETTLED.client(**UNASKED).seeing(webapp=None), True),
        (SETTLED.client(**UNASKED).seeing(settled_shards=None), True),
        (SETTLED.client(**UNASKED).seeing(unread={"Secret": "HTTP 403"}), True),
        (SETTLED.client(**UNASKED).seeing(unread={"Service": "HTTP 403"}), False),
    ],
    ids=["nothing", "asked", "silent", "login", "no Webapp", "new", "no Secret", "another kind"],
)
def test_the_client_has_been_asked_or_cannot_be(one: Situation, asked: bool) -> None:
    assert one.facts().has_asked is asked


# --- is a change due


@pytest.mark.parametrize(
    ("one", "settled", "due", "wanted"),
    [
        (SETTLED, True, False, False),
        (growing(), False, True, True),
        (LOGGED_OFF, False, True, True),
        (SETTLED.reporting(None), False, False, False),
        (LOGGED_OFF.reporting(None), False, False, False),
        (growing().noted(4, Answer.UNKNOWN), False, True, False),
        (SETTLED.noted(2, Answer.UNKNOWN), False, False, False),
    ],
)
def test_a_change_is_due_if_the_number_differs_or_the_client_is_logged_off(one: Situation, settled: bool, due: bool, wanted: bool) -> None:
    facts = one.facts()

    assert (facts.is_settled, facts.resize_is_due, facts.resize_is_wanted) == (settled, due, wanted)


@pytest.mark.parametrize(
    ("one", "drifted"),
    [
        (SETTLED.reporting(1), True),
        (SETTLED, False),
        (growing(), False),
        (SETTLED.reporting(1).seeing(settled_shards=None), False),
        (SETTLED.reporting(1).seeing(settled_shards=1), False),
        (SETTLED.reporting(1).noted(4, Answer.UNKNOWN), False),
        (LOGGED_OFF, False),
    ],
)
def test_a_number_drifted_if_what_was_settled_is_wanted_and_is_not_there(one: Situation, drifted: bool) -> None:
    assert one.facts().has_drifted is drifted


@pytest.mark.parametrize(
    ("changes", "shut"),
    [
        ({}, True),
        ({"reshard_now": 4}, False),
        ({"reshard_now": 8}, True),
        ({"windows": ()}, False),
    ],
)
def test_a_window_holds_a_change_but_not_the_number_that_may_go_now(changes: dict[str, Any], shut: bool) -> None:
    one = growing().wanting(**{"windows": (NIGHT,), **changes})

    assert one.facts().window_is_shut is shut
    assert not one.seeing(settled_shards=None).facts().window_is_shut, "before the first number nothing is served"
    assert not one.seeing(logged_off_at=NOW).facts().window_is_shut, "nor while the client is logged off"


# --- a busy client


def busy(attempts: int = 1, *, after: timedelta | None = None, operation: str = "4-noted") -> Situation:
    return growing().noted(4, Answer.BUSY, attempts=attempts, started_at=NOW, retry_after=after, id=operation)


def share(operation: str) -> float:
    """What chance makes of a pause: between four fifths and six, by the intent's name."""
    return 0.8 + 0.4 * (crc32(operation.encode()) % 1000) / 1000


@pytest.mark.parametrize(("attempts", "pause"), [(0, 2), (1, 2), (2, 4), (3, 8), (5, 32), (6, 60), (7, 60), (1000, 60)])
@pytest.mark.parametrize("operation", ["4-noted", "4-another", "8-x"])
def test_the_pause_doubles_up_to_a_minute_give_or_take_a_fifth(attempts: int, pause: float, operation: str) -> None:
    found = busy(attempts, operation=operation).facts().backoff

    assert abs(found - seconds(pause * share(operation))) < timedelta(milliseconds=1)
    assert seconds(0.8 * pause) <= found < seconds(1.2 * pause)


def test_clusters_do_not_come_in_step() -> None:
    assert len({busy(operation=f"4-{number}").facts().backoff for number in range(50)}) > 40


def test_the_pause_is_never_shorter_than_the_client_asked_for() -> None:
    assert busy(after=seconds(100)).facts().backoff == seconds(100)
    assert busy(7, after=seconds(1)).facts().backoff == seconds(60 * share("4-noted"))
    assert growing().facts().backoff == timedelta(0)


def test_it_is_tried_again_at_the_end_of_the_pause_and_not_before() -> None:
    one = busy(after=seconds(100))

    assert not one.later(99.999).facts().may_try_again
    assert one.later(100).facts().may_try_again
    assert growing().facts().may_try_again


@pytest.mark.parametrize("answer", [Answer.NONE, Answer.UNKNOWN, Answer.ACCEPTED])
@pytest.mark.parametrize("later", [0, 10, 170])
def test_no_other_call_is_made_while_the_outcome_of_one_is_awaited(answer: Answer, later: float) -> None:
    """Only a busy client is asked again after a pause."""
    one = growing().noted(4, answer).later(later)

    assert not one.facts().may_try_again
    assert not one.facts().resize_is_wanted


def test_a_short_first_pause_doubles_ten_times_at_most() -> None:
    def pause(attempts: int) -> timedelta:
        return busy(attempts).wanting(tuning=Tuning(busy_backoff=timedelta(milliseconds=1))).facts().backoff

    assert abs(pause(11) - seconds(1.024 * share("4-noted"))) < timedelta(milliseconds=1)
    assert pause(12) == pause(1000) == pause(11)


@pytest.mark.parametrize(
    ("one", "hold"),
    [
        (busy(after=seconds(100)), True),
        (busy(after=seconds(100)).later(99.999), True),
        (busy(after=seconds(100)).later(100), False),
        (busy(), False),
        (growing(), False),
        (growing().noted(4, Answer.ACCEPTED, started_at=NOW, retry_after=seconds(100)), False),
    ],
)
def test_the_time_that_a_busy_client_asked_for_is_held_whatever_the_number(one: Situation, hold: bool) -> None:
    assert one.facts().must_hold_off is hold


# --- the restart


@pytest.mark.parametrize(
    ("answer", "later", "expected", "overdue"),
    [
        (Answer.ACCEPTED, 178.999, True, False),
        (Answer.ACCEPTED, 179, False, True),
        (Answer.UNKNOWN, 0, True, False),
        (Answer.NONE, 0, True, False),
        (Answer.BUSY, 0, True, False),
    ],
)
def test_a_restart_explains_what_is_away_until_its_deadline(answer: Answer, later: float, expected: bool, overdue: bool) -> None:
    """GET reports the number, so that a busy or unknown call counts as accepted."""
    facts = restarting().noted(4, answer, origin=2).later(later).facts()

    assert (facts.restart_is_expected, facts.restart_is_overdue) == (expected, overdue)


def test_a_call_that_logs_on_is_neither_overdue_nor_verified_before_it_is_known_to_be_accepted() -> None:
    """The client has its number of shards all the time, so that number confirms nothing."""
    facts = LOGGED_OFF.noted(2, Answer.UNKNOWN, origin=2).later(600).facts()

    assert facts.operation is not None
    assert (facts.restart_is_overdue, facts.is_verified) == (False, False)


def test_a_busy_call_that_GET_does_not_confirm_explains_nothing() -> None:  # noqa: N802
    assert not growing().noted(4, Answer.BUSY).facts().restart_is_expected
    assert not growing().facts().restart_is_expected
    assert not growing().noted(4, Answer.ACCEPTED).later(300).facts().restart_is_overdue, "the number is not set"


@pytest.mark.parametrize(
    ("one", "verified"),
    [
        (SETTLED, True),
        (growing().noted(4, Answer.BUSY), True),
        (growing().noted(4, Answer.ACCEPTED), False),
        (restarting(), True),
        (growing().noted(4, Answer.UNKNOWN), False),
    ],
)
def test_the_number_is_the_last_word_if_no_call_can_still_change_it(one: Situation, verified: bool) -> None:
    assert one.facts().is_verified is verified


@pytest.mark.parametrize(
    ("one", "report", "back"),
    [
        (restarting(), Report(shards=4), True),
        (restarting(), Report(shards=2), False),
        (restarting(), None, False),
        (SETTLED, Report(shards=2), True),
        (SETTLED, Report(shards=4), False),
        (growing().noted(4, Answer.UNKNOWN), Report(shards=4), True),
        (restarting(), Report(shards=4, shard=0, gateway="disconnected"), True),
        (LOGGED_OFF.noted(2, Answer.UNKNOWN, origin=2), Report(shards=2, shard=0, gateway="disconnected"), False),
        (LOGGED_OFF.noted(2, Answer.UNKNOWN, origin=2), Report(shards=2, shard=0, gateway="connected"), True),
        (LOGGED_OFF.noted(2, Answer.UNKNOWN, origin=2), Report(shards=2, gateway="disconnected"), True),
    ],
)
def test_a_coreapp_is_back_when_it_has_the_number_and_a_holder_that_logs_on_its_connection(
    one: Situation, report: Report | None, back: bool
) -> None:
    one = one.with_pod(0, report=report)
    facts, pod = one.facts(), one.snapshot.coreapps[0]

    assert facts.has_restarted(pod) is back
    assert facts.is_explained_by_restart(pod) is (facts.restart_is_expected and not back)


@pytest.mark.parametrize(
    ("changes", "missing"), [({}, True), ({"phase": "Pending"}, False), ({"deleting": True}, False), ({"report": Report(shards=2)}, False)]
)
def test_a_coreapp_is_missing_if_it_runs_is_to_stay_and_is_not_back(changes: dict[str, Any], missing: bool) -> None:
    one = SETTLED.with_pod(2, **{"report": Report(shards=1), **changes})

    assert [pod.ordinal for pod in one.facts().missing] == ([2] if missing else [])


@pytest.mark.parametrize(("phase", "missing"), [("Pending", True), ("Running", True), ("Failed", False), ("Succeeded", False)])
def test_a_holder_whose_pod_is_pending_again_is_missing(phase: str, missing: bool) -> None:
    """Otherwise the restart would count as over, and the shard would leave a pod that is restarting."""
    one = SETTLED.with_pod(1, report=None, ready=False, phase=phase)

    assert [pod.ordinal for pod in one.facts().missing] == ([1] if missing else [])


@pytest.mark.parametrize(
    ("one", "missing"),
    [
        (SETTLED.with_pods([3, 4], report=None), []),
        (SETTLED.with_pods([3, 4]).held_by(0, 3).with_pod(3, report=None).with_pod(4, report=None), [3]),
        (SETTLED.with_pods([3, 4], report=None).with_pod(0, ready=False), [3]),
        (growing().wanting(shards=2).restarted(2).with_pod(4, report=None).noted(2, Answer.ACCEPTED, origin=4), [4]),
        (growing().wanting(shards=2).restarted(2).with_pod(4, report=None).noted(2, Answer.ACCEPTED, origin=4).later(181), []),
    ],
    ids=["go", "holds a shard", "stands in for another", "may restart", "had its time"],
)
def test_a_coreapp_that_goes_and_holds_no_shard_is_missing_only_while_it_may_restart(one: Situation, missing: list[int]) -> None:
    """It may never come back, and what is left has all that the spec asks for."""
    assert [pod.ordinal for pod in one.facts().missing] == missing
