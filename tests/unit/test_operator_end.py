"""However hard a part of the operator fails to end, SIGTERM ends the process about when its Lease runs out. With real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

import whatsapp_operator

from .fake_apiserver import an_apiserver

SHORT, LONG = 3.0, 15.0
"""Seconds that a Lease lasts: short where a process ends because it ran out, long where it must end before."""
SLACK = 30.0
"""Seconds for a busy machine; each of the hangs below lasts an hour, and what the process says tells why it ended."""

REFUSE = """
import asyncio, sys, threading, time, kopf
from whatsapp_operator import __main__ as operator

watching = threading.Event()

async def hang():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

async def work(self, leadership):
    while "Kopf" in sys.argv and not watching.is_set():
        await asyncio.sleep(0.05)
    print("leading", flush=True)
    await (hang() if "work" in sys.argv else asyncio.sleep(3600))

async def spawn_tasks(**_):
    watching.set()
    return [asyncio.create_task(hang())]

async def block(*_):
    time.sleep(3600)

operator.Operator._lead = work
if "Kopf" in sys.argv:
    kopf.spawn_tasks = spawn_tasks
if "thread" in sys.argv:
    operator.Tethers.close = block
operator.main([])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("who", "status", "said"),
    [
        ("nobody", 0, ""),
        ("work", 1, "did not stop within 3 s of being cancelled; end this process"),
        ("Kopf", 0, ""),
        ("thread", 1, "Timeout (0:00:04)!"),
    ],
)
async def test_a_part_that_refuses_to_end_does_not_keep_the_process(who: str, status: int, said: str, tmp_path: Path) -> None:
    lease = SHORT if status else LONG
    async with an_apiserver() as server:
        env = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": os.environ.get("OPERATOR_PATH") or str(Path(whatsapp_operator.__file__).parents[1]),
            "KUBECONFIG": str(server.kubeconfig(tmp_path)),
            "POD_NAMESPACE": "default",
            "LEASE_SECONDS": str(lease),
            "LEASE_RENEW_DEADLINE_SECONDS": "2",
            "LEASE_RETRY_SECONDS": "1",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", REFUSE, who, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(90):
                assert await process.stdout.readline() == b"leading\n"
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(lease + 1 + SLACK):
                _, log = await process.communicate()
            took = time.monotonic() - began
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
        assert (process.returncode, said in log.decode()) == (status, True), log.decode()
        if status == 0:
            assert took < lease
