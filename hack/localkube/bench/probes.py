"""What it costs to watch many Coreapps: CPU, memory, and how late questions arrive. All on loopback, one process asks, another answers.

python -m localkube.bench.probes --targets 5000 --holders 2000 --seconds 20
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
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

from localkube.figures import summary
from localkube.provenance import Provenance
from whatsapp_operator.core.desired import Probe
from whatsapp_operator.core.names import Key
from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.coreapps.probe import Tethers
from whatsapp_operator.shell.coreapps.tether import Pace, Target, phase_of

REPOSITORY = Path(__file__).resolve().parents[3]
HOST = "127.0.0.1"
BODY = b'{"uid": "u", "pod": "acme-coreapp-0", "shard": 0, "epoch": "1-abcde", "shards": 2, "gateway_status": "connected", "version": "v2"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


class _Answerer(asyncio.Protocol):
    """Answers each question at once and notes when it came, by the number in its path."""

    def __init__(self, seen: list[tuple[int, float]]) -> None:
        self._seen = seen
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport if isinstance(transport, asyncio.Transport) else None

    def data_received(self, data: bytes) -> None:
        self._seen.append((int(data[5 : data.index(b" ", 5)]), time.monotonic()))
        if self._transport is not None:
            self._transport.write(ANSWER)


def answer(pipe: Connection) -> None:
    """Be the Coreapps until the pipe says stop; send the port first and what was seen last."""
    asyncio.run(_answer(pipe))


async def _answer(pipe: Connection) -> None:
    seen: list[tuple[int, float]] = []
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    server = await loop.create_server(lambda: _Answerer(seen), HOST, 0, backlog=4096)
    pipe.send(server.sockets[0].getsockname()[1])
    loop.add_reader(pipe.fileno(), stop.set)
    await stop.wait()
    server.close()
    pipe.send(seen)


def _memory() -> float:
    """Return what this process holds, in KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


async def measure(port: int, *, targets: int, holders: int, seconds: float, kind: str) -> tuple[dict[str, float], tuple[float, float]]:
    """Watch for so long; return the figures, and from when to when it was steady by the monotonic clock."""
    wakes = 0

    def wake(_key: Key) -> None:
        nonlocal wakes
        wakes += 1

    tethers = Tethers(clock=SystemClock(), wake=wake, pace=Pace(), port=port)
    before, began = _memory(), time.monotonic()
    for first in range(0, targets, 5):
        pods = {
            f"pod-{i}": Target(ip=HOST, node=f"n{i % 50}", holds=i < holders, probe=Probe(kind=kind, path=f"/{i}"), unhealthy_after=3.0)
            for i in range(first, min(first + 5, targets))
        }
        tethers.hold(Key("bench", f"c{first}"), pods)
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        while tethers.silence().targets < targets:  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.1)
    settled = time.monotonic() - began
    await asyncio.sleep(6.0)
    wakes, cpu, since = 0, time.process_time(), time.monotonic()
    worst, silent = timedelta(0), 0
    while time.monotonic() - since < seconds:
        await asyncio.sleep(1.0)
        silence = tethers.silence()
        worst, silent = max(worst, silence.lag), max(silent, silence.unresponsive)
    span, cpu = time.monotonic() - since, time.process_time() - cpu
    figures = {
        "targets": targets,
        "holders": holders,
        "first answers of all, s": settled,
        "cpu share": cpu / span,
        "memory per target, KiB": (_memory() - before) / targets,
        "peak memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "worst lag of the loop, ms": worst.total_seconds() * 1000,
        "silent at most": silent,
        "wakes": wakes,
        "cpu, s": cpu,
    }
    await tethers.close()
    return figures, (since, since + span)


def lateness(seen: list[tuple[int, float]], holders: int, steady: tuple[float, float]) -> list[float]:
    """Return by how many seconds each question came after its moment."""
    late: list[float] = []
    for i, at in seen:
        if steady[0] <= at < steady[1]:
            period = 1.0 if i < holders else Pace().standby_period
            late.append((at - phase_of(f"pod-{i}") * period) % period)
    return late


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=5000)
    parser.add_argument("--holders", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--kind", choices=("HTTP", "TCP"), default="HTTP")
    asked = parser.parse_args()
    run = Provenance(REPOSITORY, "python -m localkube.bench.probes", sys.argv[1:])
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ours, theirs = multiprocessing.Pipe()
    coreapps = multiprocessing.get_context("spawn").Process(target=answer, args=(theirs,), daemon=True)
    coreapps.start()
    figures, steady = asyncio.run(
        measure(ours.recv(), targets=asked.targets, holders=asked.holders, seconds=asked.seconds, kind=asked.kind)
    )
    ours.send("stop")
    seen: list[tuple[int, float]] = ours.recv()
    coreapps.join(10)
    late = lateness(seen, asked.holders, steady)
    if late:
        found = summary(late)
        figures |= {"questions": len(late), "questions per s": len(late) / (steady[1] - steady[0])}
        figures |= {"cpu per question, ms": figures["cpu, s"] / len(late) * 1000}
        spread = {"late p50, ms": found.p50, "late p95, ms": found.p95, "late max, ms": found.max}
        figures |= {name: value * 1000 for name, value in spread.items() if value is not None}
    print(json.dumps({"run": run.of_run(), **{name: round(value, 3) for name, value in figures.items()}}, indent=2))


if __name__ == "__main__":
    main()
