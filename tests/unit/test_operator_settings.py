"""What the environment says, and what is rejected with the name of the variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from whatsapp_operator import settings
from whatsapp_operator.core.desired import Tuning
from whatsapp_operator.settings import SettingError, Settings

HERE = {"POD_NAMESPACE": "shop"}


def test_where_metrics_are_served() -> None:
    assert (Settings.from_env(HERE).metrics_port, Settings.from_env(HERE).metrics_host) == (0, "::")
    given = Settings.from_env({**HERE, "METRICS_PORT": "8080", "METRICS_HOST": "127.0.0.1"})
    assert (given.metrics_port, given.metrics_host) == (8080, "127.0.0.1")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("METRICS_PORT", text) for text in ("-1", "65536", "80.5", "http")),
        *(("LEASE_SECONDS", text) for text in ("soon", "-1", "nan", "1e10", "2.9", "4.5", "61")),
        *(("LEASE_RETRY_SECONDS", text) for text in ("0", "3", "5")),
        *(("LEASE_NAME", text) for text in ("No Such", "a/b", ".", "a..b", "a" * 254)),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        *(("POD_NAMESPACE", text) for text in ("No Such", "a.b", "-", "a" * 64)),
        *(("WATCH_NAMESPACES", text) for text in ("shop,-", "*", "shop;support")),
        ("SETTLE_GRACE_SECONDS", "long"),
        ("BUSY_TOLD_AFTER_ATTEMPTS", "often"),
        *(("OTEL_EXPORTER_OTLP_ENDPOINT", text) for text in ("collector:4317", "ftp://collector", "http://")),
    ],
)
def test_what_cannot_be_used_is_named(name: str, text: str) -> None:
    with pytest.raises(SettingError, match=name):
        Settings.from_env({**HERE, name: text})


def test_outside_of_a_pod_no_namespace_is_guessed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(settings, "SERVICE_ACCOUNT_NAMESPACE", tmp_path / "namespace")
    for env in ({}, {"POD_NAMESPACE": ""}):
        with pytest.raises(SettingError, match="POD_NAMESPACE"):
            Settings.from_env(env)


def test_in_a_pod_it_is_the_pods(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("operators\n", encoding="utf-8")
    monkeypatch.setattr(settings, "SERVICE_ACCOUNT_NAMESPACE", tmp_path / "namespace")
    assert Settings.from_env({}).namespace == "operators"
    assert Settings.from_env(HERE).namespace == "shop"


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    names = ("WATCH_NAMESPACES", "KUBECONFIG", "LEASE_SECONDS", "LOG_LEVEL", "SIMULATOR_IMAGE", "REST_SECONDS", "METRICS_HOST")
    given = Settings.from_env({**HERE, **dict.fromkeys(names, "")})
    assert given == Settings(identity=given.identity, namespace="shop", tuning=Tuning())


def test_every_variable_is_read() -> None:
    given = Settings.from_env(
        {
            **HERE,
            "POD_NAME": "operator-0",
            "WATCH_NAMESPACES": "shop, support",
            "KUBECONFIG": "/k",
            "LOG_LEVEL": "debug",
            "SET_SHARDS_TIMEOUT_SECONDS": "1.5",
            "BUSY_TOLD_AFTER_ATTEMPTS": "3",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
        }
    )
    assert given.identity.startswith("operator-0_")
    assert given.tracing_endpoint == "http://collector:4318"
    assert (given.watch_namespaces, given.kubeconfig, given.log_level) == (("shop", "support"), Path("/k"), "DEBUG")
    assert (given.tuning.call_timeout.total_seconds(), given.tuning.busy_reported_after) == (1.5, 3)
