"""The live page of a real cluster in a real browser, served by the command as a person runs it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from playwright.async_api import Page, expect

from browser.chromium import PATIENCE, a_browser, a_tab, find
from localkube.plane.operators import NAME, NAMESPACE
from localkube.programs.binaries import Binaries
from outside.wire import Wire

from .environment import LONG, ROOT, Environment

pytestmark = pytest.mark.integration
expect.set_options(timeout=PATIENCE)

WITHIN_S = 1.0
"""Within so long of its commit a failover is to be seen on the page."""
TIMES = 3
NOTE = """() => {
  window.shown = {};
  const note = () => {
    const label = document.querySelector('.shard[data-key="0"]')?.getAttribute("aria-label") ?? "";
    const holder = label.match(/held by (\\S+)/)?.[1];
    if (holder && !(holder in window.shown)) window.shown[holder] = Date.now() / 1000;
  };
  new MutationObserver(note).observe(document.getElementById("picture"), {subtree: true, attributes: true, childList: true});
  note();
}"""
"""Notes when the page first shows each holder of shard 0."""


@pytest.fixture(autouse=True)
def _browser() -> None:
    """Skips where there is no browser, before a cluster is made."""
    find()


@asynccontextmanager
async def dashboard(environment: Environment, kubectl: Path, folder: Path, *, server: str = "") -> AsyncIterator[str]:
    """``kubectl whatsapp dashboard`` as a process, and the address that it prints. It is ended by Ctrl-C, without a traceback."""
    config = yaml.safe_load(environment.plane.admin_kubeconfig.read_text(encoding="utf-8"))
    if server:
        config["clusters"][0]["cluster"]["server"] = server
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    options = ["--kubeconfig", str(path), "--namespace", environment.namespace, "--operator-namespace", NAMESPACE, "--lease", NAME]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "operator"), "KUBECTL": str(kubectl)}
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "kubectl_whatsapp", "dashboard", "acme", *options],
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LONG):
            url = (await process.stdout.readline()).decode().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{43}/", url), (url, process.returncode)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(LONG):
            _, complaints = await process.communicate()
    assert process.returncode == 130
    assert complaints.decode() == "Open it in a browser on this machine. Press Ctrl-C to stop.\n"


async def shows(page: Page, holder: str) -> float:
    """When the page first showed shard 0 at this holder, as soon as it does: ``time.time()``."""
    await page.wait_for_function("(holder) => window.shown[holder]", arg=holder)
    return float(await page.evaluate("(holder) => window.shown[holder]", holder))


async def test_a_failover_is_seen_within_a_second_of_its_commit(environment: Environment, binaries: Binaries, tmp_path: Path) -> None:
    """The median of three: on a busy machine a single one may wait for the processor alone."""
    await environment.created(shards=2, spares=1)
    took = []
    async with dashboard(environment, binaries["kubectl"], tmp_path) as url, a_browser() as browser, a_tab(browser, url) as (page, noted):
        await expect(page.locator("#sentence")).to_contain_text("All 2 shards are served")
        for _ in range(TIMES):
            await expect(page.locator(".pod.spare")).to_have_count(1)
            await page.evaluate(NOTE)
            before, old = len(environment.seen.commits), environment.holder(0)
            assert await shows(page, old)
            await environment.delete_pod(old)
            commit = await environment.commit(0, before)
            took.append(await shows(page, commit.holder) - commit.at)
            await expect(page.locator("#handovers li").first).to_contain_text(f"Failover of shard 0, {old} → {commit.holder}")
            await environment.at_rest()
        await expect(page.locator("#sentence")).to_contain_text("All 2 shards are served")
        await expect(page.locator("#rule")).to_have_text("UpToDate")
        noted.check(url)
    print("seconds from the commit to the page:", [round(one, 3) for one in took])
    assert statistics.median(took) < WITHIN_S, took


async def test_the_page_goes_on_after_the_api_server_was_away(environment: Environment, binaries: Binaries, tmp_path: Path) -> None:
    """First it is cut off as by a partition, then as if it were gone; a failover meanwhile is shown afterwards."""
    await environment.created(shards=2, spares=1)
    server = urlsplit(environment.plane.server)
    async with Wire((server.hostname or "", server.port or 443)) as wire:
        url_of_wire = f"https://{wire.address[0]}:{wire.address[1]}"
        served = dashboard(environment, binaries["kubectl"], tmp_path, server=url_of_wire)
        async with served as url, a_browser() as browser, a_tab(browser, url) as (page, noted):
            await expect(page.locator("#sentence")).to_contain_text("All 2 shards are served")
            await page.evaluate(NOTE)
            for refuse in (False, True):
                wire.cut(refuse=refuse)
                await expect(page.locator("#connection-text")).to_contain_text("The API server does not answer")
                await expect(page.locator("#connection-age")).to_contain_text("Last seen ")
                before, old = len(environment.seen.commits), environment.holder(0)
                await environment.delete_pod(old)
                commit = await environment.commit(0, before)
                await expect(page.locator('.shard[data-key="0"]')).to_have_attribute("aria-label", re.compile(f"held by {old} "))
                await environment.at_rest()
                wire.heal()
                await expect(page.locator("#connection-text")).to_have_text("✓ Live")
                held = re.compile(f"Shard 0, served, held by {commit.holder} ")
                await expect(page.locator('.shard[data-key="0"]')).to_have_attribute("aria-label", held)
            noted.check(url)
