"""A real browser: Debian's Chromium, driven by Playwright, and pages of which every request and every message is noted."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60_000.0
"""Milliseconds in which anything must have happened."""


def find() -> str:
    """Where Chromium is. Skips the test, and says that the lane is skipped, if it is nowhere."""
    found = os.environ.get("CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("lane browser: no chromium here: apt-get install chromium")
    return found


@asynccontextmanager
async def a_browser() -> AsyncIterator[Browser]:
    """Chromium, for as long as the block lasts."""
    path = find()
    async with async_playwright() as playwright:
        # Root has no sandbox, and a container often little of /dev/shm.
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class PageLog:
    """What a page has asked for, and what it has complained about."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def check(self, url: str) -> None:
        """The page has asked its own server alone, and has complained about nothing."""
        origin = url.split("/")[2]
        assert self.requests
        assert {one.split("/")[2] for one in self.requests} == {origin}
        assert not self.complaints, self.complaints


@asynccontextmanager
async def a_tab(browser: Browser, url: str, **options: Any) -> AsyncIterator[tuple[Page, PageLog]]:
    """A page that is open at ``url``. ``options``: of the browser's context, such as its viewport."""
    context = await browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(PATIENCE)
    page, noted = await context.new_page(), PageLog()
    page.on("request", lambda request: noted.requests.append(request.url))
    page.on("console", lambda message: noted.complaints.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: noted.complaints.append(str(error)))
    await page.goto(url)
    try:
        yield page, noted
    finally:
        await context.close()
