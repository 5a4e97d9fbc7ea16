"""The alerts fire when they must and only then, by the real promtool, and they name only series that the operator has."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from localkube.errors import LocalKubeError
from localkube.files import EXECUTABLE, write
from localkube.monitoring import dashboard, pages, rules, situations
from localkube.monitoring.alerts import ALERTS, Alert
from localkube.programs.prometheus import prometheus

from . import promtool_tests

SERIES = {name: {*one.labels, "le"} for one in pages.described() for name in one.series}
OF_TARGET = {"job", "instance"}


@pytest.fixture(scope="session")
def promtool(request: pytest.FixtureRequest) -> Path:
    capture = request.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            return prometheus(os.environ)["promtool"]
    except LocalKubeError as error:
        pytest.skip(f"lane Prometheus: {error}")


def run(promtool: Path, *args: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "GOGC": "1000"}  # it ends soon: to collect its garbage often is not worth the time
    return subprocess.run([str(promtool), *args], input=given, env=env, capture_output=True, timeout=900, check=False)


def said(result: subprocess.CompletedProcess[bytes]) -> str:
    return (result.stdout + result.stderr).decode()


def written(folder: Path, groups: dict[str, Any], tests: dict[str, Any] | None = None) -> Path:
    (folder / "rules.yaml").write_text(yaml.safe_dump(groups), encoding="utf-8")
    tests = promtool_tests.unit_tests(folder / "rules.yaml") if tests is None else tests
    (folder / "tests.yaml").write_text(yaml.safe_dump(tests), encoding="utf-8")
    return folder / "tests.yaml"


# --- by promtool ----------------------------------------------------------------------------------------------------


def test_metrics_are_named_by_the_conventions(promtool: Path) -> None:
    result = run(promtool, "check", "metrics", given=generate_latest(pages.full_registry().registry))
    assert (result.returncode, said(result)) == (0, "")


def test_rules_are_valid_without_a_finding(promtool: Path, tmp_path: Path) -> None:
    written(tmp_path, rules.groups())
    result = run(promtool, "check", "rules", "--lint=all", "--lint-fatal", str(tmp_path / "rules.yaml"))
    assert result.returncode == 0, said(result)


@pytest.mark.slow
def test_each_alert_fires_when_it_must_and_is_silent_in_planned_work(promtool: Path, tmp_path: Path) -> None:
    result = run(promtool, "test", "rules", str(written(tmp_path, rules.groups())))
    assert result.returncode == 0, said(result)


@pytest.mark.slow
def test_the_unit_tests_notice_alerts_that_planned_work_sets_off(promtool: Path, tmp_path: Path) -> None:
    groups = rules.groups()
    for group in groups["groups"]:
        for rule in group["rules"]:
            rule["expr"] = re.sub(r" unless .*", "", rule["expr"])
            rule["for"] = "0s"
    whole = promtool_tests.unit_tests(tmp_path / "rules.yaml")
    planned = {**whole, "tests": [test for test in whole["tests"] if test["name"].startswith("nothing fires")]}
    result = run(promtool, "test", "rules", str(written(tmp_path, groups, planned)))
    assert result.returncode != 0
    noticed = set(re.findall(r"alertname: (\w+)", said(result)))
    assert {"WhatsAppClusterNotReady", "WhatsAppClusterShardUnserved", "WhatsAppClusterNoSpareLeft"} <= noticed


def test_each_alert_has_its_unit_tests() -> None:
    tests = {test["name"]: test["alert_rule_test"] for test in promtool_tests.unit_tests(Path("rules.yaml"))["tests"]}
    names = {alert.name for alert in ALERTS}
    assert {f"{name} fires" for name in names} < tests.keys()
    for what in ("a planned move", "a Set Shards restart"):
        assert {one["alertname"] for one in tests[f"nothing fires in {what}"]} == names
    assert {f"{alert.when_absent} fires when the sources of others are absent" for alert in ALERTS} < tests.keys()


# --- by the registry ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_names_only_series_that_the_operator_has(alert: Alert) -> None:
    assert rules.metrics_of(alert.expr) <= SERIES.keys()
    for name, selector in re.findall(r"\b(multiconnect_\w+)\{([^}]*)\}", alert.expr):
        assert set(re.findall(r"(\w+)\s*[=!]", selector)) <= SERIES[name], name


@pytest.mark.parametrize("series", sorted({*situations.HEALTHY, *promtool_tests.SET_SHARDS}))
def test_series_of_the_unit_tests_are_those_of_the_operator(series: str) -> None:
    name, _, labels = series.partition("{")
    given = set(re.findall(r'(\w+)="', labels))
    if name != "up":
        assert name in SERIES
        assert given - SERIES[name] <= {*OF_TARGET, "namespace"}
        assert SERIES[name] - {"le"} <= given


def test_the_dashboard_names_only_series_that_the_operator_has() -> None:
    assert {name for expr in dashboard.expressions() for name in rules.metrics_of(expr)} <= SERIES.keys()


# --- the table --------------------------------------------------------------------------------------------------------


def test_each_alert_has_a_runbook_of_its_own() -> None:
    page = pages.alerts_page()
    headings = [one.lower() for one in re.findall(r"^## (\w+)$", page, re.MULTILINE)]
    assert headings == [rules.anchor(alert) for alert in ALERTS]
    assert len(set(headings)) == len(ALERTS)
    for alert in ALERTS:
        assert all(text.endswith((".", ").")) for text in (alert.summary, alert.meaning, alert.impact, alert.check, alert.do)), alert.name


def test_prometheus_is_taken_from_the_path(tmp_path: Path) -> None:
    for name in ("promtool", "prometheus"):
        write(tmp_path / name, "#!/bin/sh\n", mode=EXECUTABLE)
    found = prometheus({"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert (found["promtool"], found["prometheus"]) == (tmp_path / "promtool", tmp_path / "prometheus")


def test_what_was_unpacked_is_used_again(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "whatsapp-operator" / "prometheus-debian"
    folder.mkdir(parents=True)
    found = prometheus({"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert found["promtool"] == folder / "promtool"
