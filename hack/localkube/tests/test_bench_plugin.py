"""The bench of the plugin: a command that ends otherwise than it must is no sample, and goals that are missed are said."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from localkube.blocks import plugin_block
from localkube.errors import LocalKubeError
from localkube.scenarios.bench import plugin
from localkube.scenarios.bench.failovers import Measured
from localkube.scenarios.bench.plugin import CASES, Case, Results

ROOT = Path(__file__).resolve().parents[3]
HARNESS: Any = SimpleNamespace()
ONE = Case(Measured("status", "status", 0.3), ("status", "acme"), 0, "served")


def answers(*given: tuple[float, str]) -> Any:
    """What gives these answers one after the other, and then the last one each time."""
    left = [*given]
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def test_it_measures_from_when_the_answer_is_right_and_counts_wrong_ones_apart() -> None:
    broken: list[str] = []
    case = ONE._replace(before=lambda _: broken.append("now"))
    found = plugin.measure(answers((9.0, "not yet"), (8.0, ""), (0.1, ""), (0.2, "ended with 4: oh"), (0.15, "")), HARNESS, 3, [case])

    assert broken == ["now"]
    assert (found.samples, found.wrong) == ({"status": [0.1, 0.15]}, {"status": ["ended with 4: oh"]})
    assert plugin.figures(found)["status"]["failures"] == 1
    assert plugin.complaints_of(found) == ["status: ended with 4: oh", "status: 1 of 3 failed, the goal is max 0.3 s"]


def test_a_case_that_never_ends_as_it_must_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "READY_S", 0.0)
    with pytest.raises(LocalKubeError, match="status: not right within 0 s; it ended with 2: no"):
        plugin.measure(answers((0.1, "ended with 2: no")), HARNESS, 1, [ONE])


def test_goals_are_judged_and_shown() -> None:
    found = Results(samples={"help": [0.1] * 40, "status": [0.5] * 40, "why": [0.5] * 40, "api-silent": [1.1] * 40})
    assert plugin.complaints_of(found) == ["status: p95 is 0.500 s, the goal is 0.3 s (n = 40)"]
    machine = {"cpus": 2, "model": "Some CPU", "memory_gib": 4.0, "kernel": "6.1", "python": "3.11"}
    run = {"commit": "a" * 40, "date": "2026-01-02T03:04:05Z", "command": "x", "machine": machine, "load": {"begin": 0.1, "end": 0.2}}
    shown = plugin_block({"run": run, "complaints": [], "cases": json.loads(json.dumps(plugin.figures(found)))})
    assert "| status | 40 | 500 ms | 500 ms | 500 ms | p95 300 ms, **missed** |" in shown
    assert "| why | 40 | 500 ms | 500 ms | 500 ms | - |" in shown


def test_a_whole_process_is_measured_and_its_end_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "provide", lambda _: {"kubectl": tmp_path / "kubectl"})
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    run = plugin.plugin(SimpleNamespace(plane=SimpleNamespace(admin_kubeconfig=tmp_path / "none")))  # type: ignore[arg-type]
    took, wrong = run(CASES[0])
    assert (took > 0.0, wrong) == (True, "")
    _, wrong = run(CASES[0]._replace(code=3))
    assert wrong.startswith("ended with 0: Usage: kubectl whatsapp")
    _, wrong = run(ONE)
    assert wrong.startswith("ended with 4: kubectl whatsapp: kubectl cannot say where the API server is")


def entry() -> ModuleType:
    spec = importlib.util.spec_from_file_location("entry", ROOT / "hack" / "entry.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize(
    ("argv", "program"),
    [(["--n"], "hack/bench "), (["--plugin", "--n"], "hack/bench --plugin "), (["--scale", "2", "--x"], "hack/bench --scale ")],
)
def test_an_option_chooses_the_bench(
    argv: list[str], program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = entry()
    monkeypatch.setattr(found, "PYTHON", tmp_path / "none")
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as ended:
        found.main("bench", argv)
    assert ended.value.code == 2
    assert f"usage: {program}[" in capsys.readouterr().err
