"""Which parts of the operator are asked whether the process is ready to lead. What they answer is tested with each of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from whatsapp_operator.__main__ import Operator
from whatsapp_operator.core import self_check
from whatsapp_operator.core.names import Key
from whatsapp_operator.settings import Settings
from whatsapp_operator.shell.coreapps.probe import Tethers
from whatsapp_operator.shell.kube.nodes import Nodes
from whatsapp_operator.shell.watch import readiness
from whatsapp_operator.shell.watch.health import WatchHealth

KUBECONFIG = """
clusters: [{name: a, cluster: {server: "http://127.0.0.1:9"}}]
contexts: [{name: a, context: {cluster: a}}]
current-context: a
"""
QUESTIONS: dict[str, tuple[Any, str, object, object]] = {
    "watches": (WatchHealth, "never_connected", "not connected to pods yet", None),
    "nodes": (Nodes, "has_asked", False, True),
    "Coreapps": (Tethers, "not_reached", 3, 0),
    "self-check": (self_check, "self_check", "most are silent", None),
}
"""By part: the question, the answer of one that is not ready, and that of one that is."""


@pytest.fixture
def missing() -> set[str]:
    """The parts that are not ready."""
    return set()


@pytest.fixture
def operator(missing: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    """One that has sent nothing, and got no object of a list for long."""

    def answering(part: str, bad: object, good: object) -> Callable[..., object]:
        return lambda *_: bad if part in missing else good

    for part, (owner, question, bad, good) in QUESTIONS.items():
        monkeypatch.setattr(owner, question, answering(part, bad, good))
    (tmp_path / "kubeconfig").write_text(KUBECONFIG, encoding="utf-8")
    made = Operator(Settings.from_env({"KUBECONFIG": str(tmp_path / "kubeconfig"), "POD_NAMESPACE": "default"}))
    made._readiness._listed_at -= 2 * readiness.QUIET
    return made


@pytest.mark.parametrize("part", QUESTIONS)
async def test_each_part_is_asked(part: str, operator: Operator, missing: set[str]) -> None:
    missing.add(part)
    operator._on_beat(0.0)
    why = operator._readiness.why_not
    missing.clear()
    operator._on_beat(0.0)
    assert (bool(why), operator._readiness.why_not) == (True, None)


@pytest.mark.parametrize("is_urgent", [False, True])
async def test_objects_of_a_list_are_noted_and_events_are_not(is_urgent: bool, operator: Operator) -> None:
    operator._wake_by_event(Key("default", "acme"), is_urgent=is_urgent)
    operator._on_beat(0.0)
    assert (operator._readiness.why_not is None) is is_urgent
