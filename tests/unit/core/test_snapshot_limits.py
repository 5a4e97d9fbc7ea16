"""What a pod shows by itself, where its labels were damaged."""

from __future__ import annotations

from typing import Any

import pytest

from whatsapp_operator.core.snapshot import Report

from .situations import NOW, pod, situation


@pytest.mark.parametrize(
    ("label", "shard"), [("0", 0), ("31", 31), ("", None), ("-1", None), ("1.0", None), ("one", None), ("\u00b2", None), ("\u0663", None)]
)
def test_the_shard_label_of_a_pod_is_a_number_or_none(label: str, shard: int | None) -> None:
    """Only of the digits 0 to 9: of what else counts as a digit no number can be made, or another one than is written."""
    assert pod(0, labels={"multiconnect.dev/shard": label}).shard_label == shard


def test_a_pod_without_the_label_has_no_shard() -> None:
    assert pod(0).shard_label is None


@pytest.mark.parametrize(("said", "is_its"), [(None, True), ("", True), ("uid-0", True), ("uid-1", False)])
def test_a_report_is_of_the_pod_that_it_names_or_of_whom_was_asked(said: str | None, is_its: bool) -> None:
    assert Report(uid=said).is_of("uid-0") is is_its


NOT_READY: dict[str, dict[str, Any]] = {
    "its kubelet does not call it ready": {"ready": False},
    "it is being deleted": {"deleting": True},
    "it is pending again": {"phase": "Pending"},
    "its container has ended": {"terminated": True},
    "its connection broke": {"broken_at": NOW},
    "it has no address": {"ip": None},
}


@pytest.mark.parametrize("changes", NOT_READY.values(), ids=NOT_READY)
def test_a_pod_could_not_serve_if(changes: dict[str, Any]) -> None:
    assert pod(0).is_ready
    assert not pod(0, **changes).is_ready


def test_what_is_still_being_read_has_not_failed_to_be_read() -> None:
    assert situation().seeing(unread={"Node": "HTTP 403", "Event": ""}).snapshot.failed_reads == {"Node": "HTTP 403"}
