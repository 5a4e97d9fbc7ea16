"""What the environment says, and what is refused with the name of the variable."""

from __future__ import annotations

import pytest

from whatsapp_operator.settings import SettingError, Settings


def test_where_metrics_are_served() -> None:
    assert (Settings.from_env({}).metrics_port, Settings.from_env({}).metrics_host) == (0, "0.0.0.0")
    settings = Settings.from_env({"METRICS_PORT": "8080", "METRICS_HOST": "::"})
    assert (settings.metrics_port, settings.metrics_host) == (8080, "::")


@pytest.mark.parametrize("text", ["-1", "65536", "80.5", "http"])
def test_a_port_that_is_none(text: str) -> None:
    with pytest.raises(SettingError, match="METRICS_PORT"):
        Settings.from_env({"METRICS_PORT": text})
