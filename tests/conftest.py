"""What every tier shares."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture(autouse=True, scope="session")
def _no_stray_event_loop() -> None:
    """On CPython 3.11 pytest-asyncio's first runner finds a loop made on the side, which nobody closes; warnings are errors here."""
    asyncio.set_event_loop(None)
