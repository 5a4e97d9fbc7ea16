"""The status and its Events: what stays, what is new, what is said again, and what is a warning."""

from __future__ import annotations

from typing import Any

import pytest

from whatsapp_operator.core import report
from whatsapp_operator.core.reasons import Reason
from whatsapp_operator.core.report import Emitted

from .situations import NOW, seconds, situation
from .witnesses import WITNESSES

EARLIER = "2027-01-04T10:00:00Z"
AT = "2027-01-04T12:00:00Z"


def condition(kind: str, status: str, reason: str, message: str = "m") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": EARLIER, "observedGeneration": 1}


def status(*conditions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"conditions": [*conditions], **more}


def emitted(before: dict[str, Any], after: dict[str, Any], **last: Emitted) -> list[tuple[str, bool]]:
    return [(event.reason, event.warning) for event in report.events(before, after, last, now=NOW)]


SERVING = condition("Ready", "True", "Serving")


# --- which Events


def test_a_new_reason_is_said_once_however_many_conditions_have_it() -> None:
    after = status(condition("Ready", "False", "SettingShards"), condition("Reconciling", "True", "SettingShards"))

    assert emitted(status(SERVING), after) == [("SettingShards", False)]
    assert emitted(after, after) == []


def test_a_reason_that_another_condition_had_before_is_not_new() -> None:
    before = status(SERVING, condition("Reconciling", "True", "Draining"))
    after = status(condition("Ready", "False", "Draining"), condition("Reconciling", "True", "Draining"))

    assert emitted(before, after) == []


@pytest.mark.parametrize("reason", ["UpToDate", "SparesReady", "NoSparesRequested", "Simulated", "Valid"])
def test_nothing_is_said_where_nothing_is_wrong(reason: str) -> None:
    assert emitted(status(), status(condition("Redundant", "True", reason))) == []


@pytest.mark.parametrize(
    ("kind", "value", "reason", "warning"),
    [
        ("Stalled", "True", "NameConflict", True),
        ("Stalled", "False", "NameConflict", False),
        ("CertificateValid", "False", "CertificateExpired", True),
        ("CertificateValid", "True", "CertificateExpiresSoon", False),
        ("Reconciling", "True", "Draining", False),
        *(
            ("Ready", "False", reason, True)
            for reason in (
                "FailingOver",
                "Unserved",
                "NoSpareLeft",
                "SpareLost",
                "RestartOverdue",
                "WebappUnavailable",
                "WebappNotResponding",
                "Disconnected",
                "SelfCheckFailed",
                "NodesUnreachable",
                "AnswerUnknown",
                "ChangedByAdmission",
            )
        ),
    ],
)
def test_what_needs_a_person_is_a_warning(kind: str, value: str, reason: str, warning: bool) -> None:
    assert emitted(status(SERVING), status(condition(kind, value, reason))) == [(reason, warning)]


BEFORE, AFTER = condition("Reconciling", "True", "Restarting", "1 back"), condition("Reconciling", "True", "Restarting", "2 back")


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ({}, True),
        ({"Restarting": Emitted("1 back", NOW - seconds(9.9))}, False),
        ({"Restarting": Emitted("1 back", NOW - seconds(10))}, True),
        ({"Restarting": Emitted("2 back", NOW - seconds(60))}, False),
    ],
    ids=["by the writer before", "just now", "ten seconds ago", "the same sentence"],
)
def test_a_new_sentence_waits_until_the_last_one_is_ten_seconds_old(last: dict[str, Emitted], said: bool) -> None:
    assert emitted(status(BEFORE), status(AFTER), **last) == ([("Restarting", False)] if said else [])


def test_of_a_cluster_that_serves_an_old_sentence_is_not_said_later() -> None:
    last = {"Serving": Emitted("another", NOW - seconds(60))}

    assert emitted(status(SERVING), status(SERVING), **last) == []
    assert emitted(status({**SERVING, "message": "other"}), status(SERVING), **last) == [("Serving", False)]


OPERATION = {"id": "4-x", "from": 2, "to": 4}


@pytest.mark.parametrize(
    ("before", "after", "done"),
    [
        ({"operation": OPERATION}, {"shards": 4}, True),
        ({"operation": OPERATION}, {"shards": 2}, False),
        ({"operation": OPERATION}, {"shards": 4, "operation": OPERATION}, False),
        ({}, {"shards": 4}, False),
    ],
    ids=["done", "given up", "under way", "none"],
)
def test_the_end_of_Set_Shards_is_said_if_its_number_was_reached(before: dict[str, Any], after: dict[str, Any], done: bool) -> None:  # noqa: N802
    assert emitted(status(**before), status(**after)) == ([("SetShardsDone", False)] if done else [])


# --- the status


def test_the_next_window_is_in_the_status_while_it_is_waited_for() -> None:
    assert WITNESSES["WindowClosed"].report()["nextWindowAt"] == "2027-01-05T00:00:00Z"
    assert "nextWindowAt" not in situation().settled().report()


def test_a_transition_time_changes_with_the_status_and_not_with_the_reason() -> None:
    one = situation().settled()
    before = status(condition("Ready", "True", "Other"), condition("Stalled", "True", "NameConflict"))
    times = {found["type"]: found["lastTransitionTime"] for found in one.seeing(status=before).report()["conditions"]}

    assert times == {"Ready": EARLIER, "Stalled": AT, "Reconciling": AT, "Redundant": AT, "CertificateValid": AT}


@pytest.mark.parametrize("before", [{}, {"conditions": None}, {"conditions": []}], ids=["none", "null", "empty"])
def test_a_first_observation_that_fails_says_so_in_three_conditions(before: dict[str, Any]) -> None:
    found = report.failed_observation(before, generation=3, now=NOW, reason=Reason.READ_FAILED, message="why")

    assert [(one["type"], one["status"], one["reason"]) for one in found["conditions"]] == [
        ("Ready", "Unknown", "ReadFailed"),
        ("Reconciling", "False", "ReadFailed"),
        ("Stalled", "True", "ReadFailed"),
    ]
    assert (found["observedGeneration"], found["reason"], found["message"]) == (3, "ReadFailed", "why")


def test_an_observation_that_fails_keeps_what_it_says_nothing_about() -> None:
    before = status(SERVING, condition("Stalled", "True", "NameConflict"), condition("Redundant", "True", "SparesReady"), shards=2)
    found = report.failed_observation(before, generation=3, now=NOW, reason=Reason.READ_FAILED, message="why")

    assert [one["type"] for one in found["conditions"]] == ["Ready", "Reconciling", "Stalled", "Redundant"]
    assert [one["lastTransitionTime"] for one in found["conditions"]] == [AT, AT, EARLIER, EARLIER]
    assert found["shards"] == 2


def test_a_handover_that_the_shard_map_shows_already_is_not_recorded_again() -> None:
    """It was dropped from the record because newer ones came."""
    one = situation().settled().with_route(0, evidence="PodDeleted", previous="acme-coreapp-1")
    known = status(shardMap=[{"shard": 0, "epoch": "10-first"}])
    other = status(shardMap=[{"shard": 0, "epoch": "9-first"}])

    assert [entry["epoch"] for entry in one.seeing(status=other).report()["recentHandovers"]] == ["10-first"]
    assert "recentHandovers" not in one.seeing(status=known).report()
