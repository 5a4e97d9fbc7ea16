"""What Argo CD shows of a cluster agrees with kstatus and the conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given

from outside.argocd import health
from outside.kstatus import Verdict, verdict

from .random_situations import any_observations
from .situations import Situation
from .test_kstatus import STALLS, a_resource, resource
from .test_laws import many
from .witnesses import WITNESSES

WAITS = {"Paused", "WindowClosed"}
"""Reasons of Reconciling by which it waits for a person or a time."""
SHOWN: Mapping[Verdict, str] = {
    Verdict.CURRENT: "Healthy",
    Verdict.IN_PROGRESS: "Progressing",
    Verdict.FAILED: "Degraded",
    Verdict.TERMINATING: "Progressing",
}


def expected(obj: Mapping[str, Any]) -> str:
    """What is shown if it agrees with kstatus; Suspended for a part of what is in progress."""
    conditions = {one["type"]: one for one in obj["status"]["conditions"]}
    waits = conditions["Reconciling"]["status"] == "True" and conditions["Reconciling"]["reason"] in WAITS
    return "Suspended" if waits and verdict(obj) is Verdict.IN_PROGRESS else SHOWN[verdict(obj)]


def assert_agrees(one: Situation) -> None:
    obj = resource(one)
    shown, message = health(obj)
    assert shown == expected(obj)
    reported = {f"{entry['reason']}: {entry['message']}" for entry in obj["status"]["conditions"]}
    assert message in reported or one.desired.deleting


@pytest.mark.parametrize("name", WITNESSES)
def test_every_state(name: str) -> None:
    assert_agrees(WITNESSES[name])


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("UpToDate", "Healthy"),
        ("ChangedByAdmission", "Healthy"),
        ("FailingOver", "Progressing"),
        ("Restarting", "Progressing"),
        ("Deleting", "Progressing"),
        ("Paused", "Suspended"),
        ("WindowClosed", "Suspended"),
        ("Banned", "Degraded"),
        ("ImageUnavailable", "Degraded"),
    ],
)
def test_some_states_in_words(name: str, shown: str) -> None:
    assert health(resource(WITNESSES[name]))[0] == shown


@pytest.mark.parametrize("stall", STALLS)
def test_whatever_needs_a_person_in_every_state(stall: str) -> None:
    for witness in WITNESSES.values():
        assert_agrees(STALLS[stall](witness))


@pytest.mark.slow
@many
@given(one=any_observations())
def test_any_observation(one: Situation) -> None:
    assert_agrees(one)


@pytest.mark.parametrize(
    ("obj", "shown"),
    [
        ({"metadata": {"name": "acme"}}, "Progressing"),
        ({"metadata": {"generation": 1}}, "Progressing"),
        ({"metadata": {"generation": 1}, "status": {"observedGeneration": -1, "conditions": []}}, "Progressing"),
        (a_resource("Stalled=True", observed=1), "Progressing"),
        (a_resource("Ready=True", "Reconciling=True", "Stalled=True"), "Progressing"),
        (a_resource("Ready=True", "Stalled=True", "Reconciling=True"), "Degraded"),
        (a_resource("Ready=Unknown"), "Progressing"),
        (a_resource("Ready=True"), "Healthy"),
    ],
)
def test_a_resource_that_says_little(obj: dict[str, Any], shown: str) -> None:
    said, message = health(obj)
    assert said == shown
    assert message
