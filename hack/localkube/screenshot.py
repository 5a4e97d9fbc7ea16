"""Takes the picture of the live page for the documentation, from a real run: ``hack/dashboard-picture``."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.plane.operators import NAME as LEASE
from localkube.plane.operators import NAMESPACE as SYSTEM
from localkube.programs.binaries import provide
from localkube.progress import to_stderr
from localkube.scenarios.cluster import NAME, NAMESPACE
from localkube.scenarios.harness import Harness
from localkube.scenarios.hollow.environment import SingleCluster

SHARDS, SPARES = 4, 2
FAILOVERS = (0, 2, 0)
"""The shards whose holders are deleted, one after another, so that there is something to see."""
WIDTH, HEIGHT = 960, 900
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage"]
"""Root has no sandbox, and a container often little of /dev/shm."""
LARGEST = 200_000
"""Bytes that the picture may have at most."""
LONG_S = 120.0


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run a cluster, let it fail over, and write the picture; ``root`` is the repository. LocalKubeError says what went wrong."""
    parser = argparse.ArgumentParser(prog="hack/dashboard-picture", description="Write docs/dashboard.png from a real run.")
    parser.add_argument("--to", type=Path, default=root / "docs" / "dashboard.png", help="the file (default: docs/dashboard.png)")
    options = parser.parse_args(argv)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        raise LocalKubeError("there is no chromium here: apt-get install chromium, or name it in the variable CHROMIUM")
    with tempfile.TemporaryDirectory(prefix="dashboard-picture-") as folder:
        harness = Harness(Path(folder) / "run")
        with harness.running():
            asyncio.run(_fail_over(harness))
            with _dashboard(harness, root) as url:
                _take(url, chromium, options.to)
    if (size := options.to.stat().st_size) > LARGEST:
        raise LocalKubeError(f"{options.to} has {size} bytes; {LARGEST} are allowed")
    to_stderr(f"{options.to}: {size} bytes")
    return 0


async def _fail_over(harness: Harness) -> None:
    async with SingleCluster(harness) as environment:
        await environment.create(NAME, shards=SHARDS, spares=SPARES)
        await environment.settled(NAME)
        for count, shard in enumerate(FAILOVERS, 1):
            await environment.delete_pod(environment.status(NAME)["shardMap"][shard]["holder"])
            said = f"that failover {count} is reported"
            await environment.seen(lambda: len(environment.status(NAME).get("recentHandovers") or ()) >= count, LONG_S, said)  # noqa: B023
            await environment.settled(NAME)


@contextmanager
def _dashboard(harness: Harness, root: Path) -> Iterator[str]:
    """The command as a process, and the address that it prints."""
    options = ["--kubeconfig", str(harness.plane.admin_kubeconfig), "--operator-namespace", SYSTEM, "--lease", LEASE]
    env = {**os.environ, "PYTHONPATH": str(root / "operator"), "KUBECTL": str(provide(os.environ)["kubectl"])}
    process = subprocess.Popen(
        [sys.executable, "-m", "kubectl_whatsapp", "dashboard", *options], env=env, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None  # noqa: S101  # it was asked for
        if not (url := process.stdout.readline().strip()):
            raise LocalKubeError("kubectl whatsapp dashboard printed no address")
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LONG_S)


def _take(url: str, chromium: str, to: Path) -> None:
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  # loaded only when a picture is taken

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light", reduced_motion="reduce")
        page.set_default_timeout(LONG_S * 1000)
        page.goto(f"{url}#{NAMESPACE}/{NAME}")
        page.locator("#handovers li").nth(len(FAILOVERS) - 1).wait_for()
        page.screenshot(path=to, full_page=True)
        browser.close()
