"""The status and its Events where little is known, where much comes at once, and where something was damaged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from whatsapp_operator.core import report
from whatsapp_operator.core.actions import Action, Delete
from whatsapp_operator.core.names import Ref
from whatsapp_operator.core.reasons import Reason
from whatsapp_operator.core.report import Emitted
from whatsapp_operator.core.snapshot import Answer, Login, Route

from .plans import of
from .situations import NOW, Situation, route, seconds, situation
from .test_report import SERVING, condition, status
from .witnesses import growing, rolling_out

SETTLED = situation().settled()
LONG = "x" * 1025


# --- texts


@pytest.mark.parametrize(("length", "kept"), [(1023, 1023), (1024, 1024), (1025, 1024)])
def test_a_message_is_cut_to_what_the_resource_takes(length: int, kept: int) -> None:
    found = report.failed_observation({}, generation=3, now=NOW, reason=Reason.READ_FAILED, message="x" * length)

    assert len(found["message"]) == kept
    assert {len(one["message"]) for one in found["conditions"]} == {kept}


def test_the_loudest_message_of_a_status_is_cut_as_that_of_its_condition_is() -> None:
    one = SETTLED.seeing(image_problem=LONG)

    assert len(one.condition("Stalled")["message"]) == 1024
    assert len(one.report()["message"]) == 1024


def test_the_observations_that_fail_have_four_reasons() -> None:
    assert {*map(str, report.FAILED_OBSERVATION)} == {"InternalError", "ReadFailed", "SpecInvalid", "StatusRejected"}


# --- columns


COLUMNS = {
    "what was settled, if the client is silent": (growing().reporting(None), "2->4"),
    "silent, and nothing is to change": (SETTLED.reporting(None), "2"),
    "what the client reports, not what was settled": (SETTLED.reporting(1), "1->2"),
    "the target of a call, not of the spec": (growing().wanting(shards=8).noted(4, Answer.ACCEPTED), "2->4"),
    "what is wanted, as long as nothing is known": (situation(), "2"),
}


@pytest.mark.parametrize(("one", "shown"), COLUMNS.values(), ids=COLUMNS)
def test_the_column_of_shards_shows(one: Situation, shown: str) -> None:
    assert one.report()["display"]["shards"] == shown


def test_the_version_of_the_client_is_the_newest_that_is_known() -> None:
    before = SETTLED.seeing(status={"client": {"version": "v2.51.1"}})

    assert before.report()["client"] == {"version": "v2.53.4"}
    assert before.client(version=None).report()["client"] == {"version": "v2.51.1"}


# --- the record of handovers


def moved(shard: int, epoch: str, ago: float, **changes: Any) -> Route:
    """The Service of a shard some seconds after a failover."""
    made = route(shard, SETTLED.holder_of(shard), epoch=epoch, evidence="PodDeleted", previous="acme-coreapp-9")
    return replace(made, committed_at=NOW - seconds(ago), **changes)


def epochs(one: Situation) -> list[str | None]:
    return [entry.get("epoch") for entry in one.report().get("recentHandovers", ())]


def test_handovers_that_come_at_once_are_recorded_newest_first() -> None:
    one = SETTLED.seeing(routes=(moved(0, "10-older", 2), moved(1, "20-newer", 1)), committed=(moved(1, "5-oldest", 3),))

    assert epochs(one) == ["20-newer", "10-older", "5-oldest"]


def test_of_two_handovers_within_one_second_the_newer_one_is_first() -> None:
    one = SETTLED.seeing(routes=(moved(0, "20-newer", 0.1), SETTLED.route(1)), committed=(moved(0, "10-older", 0.2),))

    assert {entry["at"] for entry in one.report()["recentHandovers"]} == {"2027-01-04T11:59:59Z"}
    assert epochs(one) == ["20-newer", "10-older"]


def test_handovers_of_one_shard_at_the_same_instant_are_both_recorded() -> None:
    one = SETTLED.seeing(routes=(moved(0, "20-newer", 1), SETTLED.route(1)), committed=(moved(0, "10-older", 1),))

    assert sorted(map(str, epochs(one))) == ["10-older", "20-newer"]


def test_a_handover_that_is_known_from_two_sides_is_recorded_once() -> None:
    """This process committed it, and the Service still says so."""
    one = SETTLED.seeing(routes=(moved(0, "20-x", 1), SETTLED.route(1)), committed=(moved(0, "20-x", 1),))

    assert epochs(one) == ["20-x"]


def test_a_handover_in_the_record_is_not_recorded_again_after_the_shard_has_moved_on() -> None:
    kept = {"at": "2027-01-04T11:59:50Z", "shard": 0, "kind": "Failover", "to": "x", "epoch": "20-x", "evidence": "PodDeleted"}
    one = SETTLED.seeing(committed=(moved(0, "20-x", 10),), status={"recentHandovers": [kept], "shardMap": [{"shard": 0, "epoch": "30-y"}]})

    assert one.report()["recentHandovers"] == [kept]


DAMAGED: dict[str, dict[str, Any]] = {
    "without its selector": {"epoch": None, "holder": None, "holder_uid": None},
    "without an epoch": {"epoch": None},
    "without a holder": {"holder": None, "holder_uid": None},
    "without a time": {"committed_at": None},
    "without evidence": {"evidence": None},
}


@pytest.mark.parametrize("changes", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_Service_is_no_handover(changes: dict[str, Any]) -> None:  # noqa: N802
    """The API server rejects a whole status with an entry that lacks one of these."""
    one = SETTLED.reported().seeing(routes=(replace(moved(0, "20-x", 1), **changes), SETTLED.route(1)))

    assert "recentHandovers" not in one.report()


# --- Events of a report


def sentences(before: dict[str, Any], after: dict[str, Any], **last: Emitted) -> list[tuple[str, str]]:
    return [(event.reason, event.message) for event in report.events(before, after, last, now=NOW)]


@pytest.mark.parametrize("before", [{}, {"conditions": None}, {"conditions": []}], ids=["none", "null", "empty"])
def test_in_a_first_status_every_reason_is_new(before: dict[str, Any]) -> None:
    assert sentences(before, status(condition("Ready", "False", "Bootstrapping", "why"))) == [("Bootstrapping", "why")]


def test_of_conditions_with_one_reason_the_first_speaks() -> None:
    after = status(condition("Ready", "False", "Restarting", "first"), condition("Reconciling", "True", "Restarting", "second"))

    assert sentences(status(SERVING), after) == [("Restarting", "first")]


def test_a_reason_that_comes_back_with_its_last_sentence_is_said_again_at_once() -> None:
    after = status(condition("Ready", "False", "FailingOver", "Shard 0"))

    assert sentences(status(SERVING), after, FailingOver=Emitted("Shard 0", NOW - seconds(1))) == [("FailingOver", "Shard 0")]


# --- Events of a plan


def said(one: Situation, *done: Action) -> list[tuple[str, str]]:
    return [(event.reason, event.message) for event in report.plan_events(one.snapshot, one.plan(), done=done, reported_after=5)]


def hung() -> Situation:
    """The spare has not answered for long."""
    return SETTLED.with_nodes().with_pod(2, unresponsive_since=NOW - seconds(20), report=None)


UNRESPONSIVE = ("DeletingUnresponsivePod", "acme-coreapp-2 runs and does not answer: it is deleted, so that it comes back as a spare.")


@pytest.mark.parametrize("workload", ["missing", "not observed"])
def test_a_hung_Coreapp_is_not_called_outdated_while_the_newest_template_is_not_known(workload: str) -> None:  # noqa: N802
    one = hung()
    assert one.snapshot.statefulset is not None
    unobserved = replace(one.snapshot.statefulset, revision=None)
    one = one.seeing(statefulset=None if workload == "missing" else unobserved)

    assert said(one, *of(one.plan(), Delete)) == [UNRESPONSIVE]


def test_a_hung_Coreapp_of_an_unknown_template_is_not_called_outdated() -> None:  # noqa: N802
    one = hung().with_pod(2, revision=None)

    assert said(one, *of(one.plan(), Delete)) == [UNRESPONSIVE]


def test_a_hung_Coreapp_is_not_called_outdated_because_another_one_is() -> None:  # noqa: N802
    one = hung().with_pod(0, revision="rev-0")

    assert UNRESPONSIVE in said(one, *of(one.plan(), Delete))


def test_only_the_end_of_a_Coreapp_has_an_Event() -> None:  # noqa: N802
    """Services of shards that are gone are tidied away silently."""
    one = situation().settled(shards=2).with_route(2)
    deleted = of(one.plan(), Delete)

    assert [delete.ref for delete in deleted] == [Ref("Service", "acme-shard-2")]
    assert said(one, *deleted) == []


def test_an_end_that_was_not_carried_out_has_no_Event() -> None:  # noqa: N802
    assert of(rolling_out().plan(), Delete) != []
    assert said(rolling_out()) == []


def test_the_failover_of_a_Coreapp_that_is_gone_names_no_node() -> None:  # noqa: N802
    assert said(SETTLED.holder_deleted(0)) == [("FailingOver", "Shard 0: acme-coreapp-0 failed (PodDeleted).")]


def test_a_busy_client_is_reported_by_the_process_that_called_it() -> None:
    assert said(growing().noted(4, Answer.BUSY).client(login=Login.DONE)) == []
    busy = growing().calling(4, Answer.BUSY, detail="403")
    assert said(busy.noted(4, Answer.BUSY)) == [("ServerBusy", "Set Shards, attempt 1: 403.")]
