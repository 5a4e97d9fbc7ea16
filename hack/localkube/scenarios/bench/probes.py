"""What it costs to watch many Coreapps: CPU, memory, and how late questions arrive. All on loopback, one process asks, another answers.

python -m localkube.scenarios.bench.probes --targets 5000 --holders 2000 --seconds 20
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from localkube.figures import summary
from localkube.plane.operators import REPOSITORY
from localkube.provenance import Provenance
from localkube.scenarios.hollow import answers
from whatsapp_operator.core.desired import Probe
from whatsapp_operator.core.names import Key
from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.coreapps.probe import Tethers
from whatsapp_operator.shell.coreapps.schedule import Pace, Target, phase_of

HOST = "127.0.0.1"
REPORT = {"uid": "u", "pod": "acme-coreapp-0", "shard": 0, "epoch": "1-abcde", "shards": 2, "gateway_status": "connected", "version": "v2"}


class _Answerer(answers.Answerer):
    """Answers each question at once and notes when it came, by the number in its path."""

    def __init__(self, arrived: list[tuple[int, float]]) -> None:
        super().__init__(answers.answer(REPORT))
        self._arrived = arrived

    def data_received(self, data: bytes) -> None:
        self._arrived.append((int(data[5 : data.index(b" ", 5)]), time.monotonic()))
        super().data_received(data)


async def _answer(pipe: Connection) -> None:
    """Be the Coreapps until the pipe says stop; send the port first and what arrived last."""
    arrived: list[tuple[int, float]] = []
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    server = await loop.create_server(lambda: _Answerer(arrived), HOST, 0, backlog=4096)
    pipe.send(server.sockets[0].getsockname()[1])
    loop.add_reader(pipe.fileno(), stop.set)
    await stop.wait()
    server.close()
    pipe.send(arrived)


def _be_coreapps(pipe: Connection) -> None:
    asyncio.run(_answer(pipe))


def _memory() -> float:
    """What this process holds, in KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


async def _measure(port: int, *, targets: int, holders: int, seconds: float, kind: str) -> tuple[dict[str, float], tuple[float, float]]:
    """Watch for so long; the figures, and from when to when it was steady by the monotonic clock."""
    wakes: list[Key] = []
    tethers = Tethers(clock=SystemClock(), wake=wakes.append, pace=Pace(), port=port)
    before, began = _memory(), time.monotonic()
    for first in range(0, targets, 5):
        pods = {
            f"pod-{i}": Target(ip=HOST, node=f"n{i % 50}", holds=i < holders, probe=Probe(kind=kind, path=f"/{i}"), unhealthy_after=3.0)
            for i in range(first, min(first + 5, targets))
        }
        tethers.hold(Key("bench", f"c{first}"), pods)
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        while tethers.silence().targets < targets:  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(0.1)
    settled = time.monotonic() - began
    await asyncio.sleep(6.0)
    wakes.clear()
    cpu, since, silences = time.process_time(), time.monotonic(), [tethers.silence()]
    while time.monotonic() - since < seconds:
        await asyncio.sleep(1.0)
        silences.append(tethers.silence())
    span, cpu = time.monotonic() - since, time.process_time() - cpu
    figures = {
        "targets": targets,
        "holders": holders,
        "first answers of all, s": settled,
        "cpu share": cpu / span,
        "memory per target, KiB": (_memory() - before) / targets,
        "peak memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "worst lag of the loop, ms": max(one.lag for one in silences[1:]).total_seconds() * 1000,
        "silent at most": max(one.unresponsive for one in silences[1:]),
        "wakes": len(wakes),
        "cpu, s": cpu,
    }
    await tethers.close()
    return figures, (since, since + span)


def _lateness(arrived: list[tuple[int, float]], holders: int, steady: tuple[float, float]) -> list[float]:
    """By how many seconds each question came after its moment."""
    standby = Pace().standby_period
    periods = ((i, at, 1.0 if i < holders else standby) for i, at in arrived if steady[0] <= at < steady[1])
    return [(at - phase_of(f"pod-{i}") * period) % period for i, at, period in periods]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=5000)
    parser.add_argument("--holders", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--kind", choices=("HTTP", "TCP"), default="HTTP")
    asked = parser.parse_args()
    run = Provenance(REPOSITORY, "python -m localkube.scenarios.bench.probes", sys.argv[1:])
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ours, theirs = multiprocessing.Pipe()
    coreapps = multiprocessing.get_context("spawn").Process(target=_be_coreapps, args=(theirs,), daemon=True)
    coreapps.start()
    figures, steady = asyncio.run(_measure(ours.recv(), **vars(asked)))
    ours.send("stop")
    late = _lateness(ours.recv(), asked.holders, steady)
    coreapps.join(10)
    if late:
        found = summary(late)
        figures |= {"questions": len(late), "questions per s": len(late) / (steady[1] - steady[0])}
        figures |= {"cpu per question, ms": figures["cpu, s"] / len(late) * 1000}
        spread = {"late p50, ms": found.p50, "late p95, ms": found.p95, "late max, ms": found.max}
        figures |= {name: value * 1000 for name, value in spread.items() if value is not None}
    print(json.dumps({"run": run.of_run(), **{name: round(value, 3) for name, value in figures.items()}}, indent=2))


if __name__ == "__main__":
    main()
