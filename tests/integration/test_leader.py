"""The election between real processes on a real API server: signals, SIGKILL, SIGSTOP, and a network that can be cut for one of them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import statistics
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import pytest

from localkube import kubeconfig
from localkube.plane.controlplane import ControlPlane
from waiting import until
from whatsapp_operator.shell.clock import boottime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
_numbers = itertools.count(1)
LEASE_SECONDS = 4
"""As long as the operator's."""
LONGER = 8
"""Where one Lease runs out on purpose and another must not: a busy machine renews this one in time."""
UNHURRIED = 15
"""Where no Lease runs out on purpose."""

CANDIDATE = """
import asyncio, json, logging, signal, sys
from whatsapp_operator.shell.clock import boottime
from whatsapp_operator.shell.kube.client import LightKube
from whatsapp_operator.shell.kube.errors import Conflict, KubeError, LeaseTooShort
from whatsapp_operator.shell.kube.kinds import LEASE
from whatsapp_operator.shell.kube.lease import Election, Timings

path, namespace, identity, lease, deadline = sys.argv[1:]
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
logging.getLogger("httpx2").setLevel(logging.WARNING)

def say(what, **more):
    print(json.dumps({"t": boottime(), "who": identity, "what": what} | more), flush=True)

async def main():
    kube = LightKube.from_kubeconfig(path)
    timings = Timings(duration=float(lease), renew_deadline=float(deadline))
    election = Election(kube, namespace=namespace, name="op", identity=identity, watch=kube.watch, timings=timings)
    fenced = kube.fenced(election)

    async def work(term):
        say("leads", epoch=term.epoch)
        try:
            while True:
                try:
                    began = boottime()
                    mark = {"by": identity, "epoch": str(term.epoch)}
                    written = await fenced.patch_merge(LEASE, namespace, "ledger", {"metadata": {"annotations": mark}})
                    say("wrote", began=began, epoch=term.epoch, version=int(written["metadata"]["resourceVersion"]))
                except KubeError as e:
                    say("could not write", why=type(e).__name__)
                await asyncio.sleep(0.02)
        finally:
            say("stopped", epoch=term.epoch)

    running = asyncio.create_task(election.run(work))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    say("ready")
    try:
        await running
    except asyncio.CancelledError:
        pass
    await kube.close()
    say("left")

asyncio.run(main())
"""

LEDGER = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "ledger"}, "spec": {}}


class Wire:
    """A TCP line to the API server whose connections can be refused, or turned into a black hole."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.refusing = False
        self.writers: list[asyncio.StreamWriter] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.server: asyncio.Server | None = None
        self.cut = 0
        """How many connections were reset."""
        self.held = 0
        """How often data was held up."""

    async def open(self) -> int:
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            self.cut += 1
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(*self.target)
        self.writers += [writer, far_writer]
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._carry(source, sink))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                self.held += not self.flowing.is_set()
                await self.flowing.wait()
                sink.write(data)
                await sink.drain()
        sink.close()

    def refuse(self) -> None:
        self.refusing = True
        self.cut += sum(not writer.transport.is_closing() for writer in self.writers)
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def close(self) -> None:
        self.flowing.set()
        assert self.server
        self.server.close()
        self.refuse()
        for task in list(self.tasks):
            task.cancel()


class Candidate:
    """A process that campaigns, and what it said."""

    def __init__(self, identity: str, process: asyncio.subprocess.Process) -> None:
        self.identity = identity
        self.process = process
        self.said: list[dict[str, Any]] = []
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout
        async for line in self.process.stdout:
            self.said.append(json.loads(line))

    def signal(self, number: signal.Signals) -> float:
        now = boottime()
        self.process.send_signal(number)
        return now

    def when(self, what: str) -> list[float]:
        return [said["t"] for said in self.said if said["what"] == what]

    @property
    def terms(self) -> list[int]:
        return [said["epoch"] for said in self.said if said["what"] == "leads"]

    async def until(self, what: str, *, after: float = 0.0, within: float = 60.0) -> float:
        """Wait until it says this; return when it did."""
        async with asyncio.timeout(within):
            while not (times := [t for t in self.when(what) if t >= after]):
                await asyncio.sleep(0.005)
        return times[0]


class Environment:
    """A namespace with its Lease, and the candidates in it."""

    def __init__(self, control_plane: ControlPlane, namespace: str, folder: Path) -> None:
        self.control_plane, self.namespace, self.folder = control_plane, namespace, folder
        self.candidates: list[Candidate] = []
        self.wires: list[Wire] = []

    async def candidate(self, identity: str, *, wire: Wire | None = None, lease: int = LEASE_SECONDS, deadline: int = 0) -> Candidate:
        """Start a candidate whose renewals are given up after ``deadline`` seconds, a second before the end of its Lease if not given."""
        path = self.control_plane.admin_kubeconfig
        if wire is not None:
            self.wires.append(wire)
            access = kubeconfig.read(path)
            path = replace(access, server=f"https://127.0.0.1:{await wire.open()}").write(self.folder / f"{identity}.kubeconfig")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CANDIDATE, str(path), self.namespace, identity, str(lease), str(deadline or lease - 1)),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT / "operator")},
        )
        candidate = Candidate(identity, process)
        self.candidates.append(candidate)
        await candidate.until("ready")
        return candidate

    def wire(self) -> Wire:
        server = urlsplit(self.control_plane.server)
        assert server.hostname
        assert server.port
        return Wire((server.hostname, server.port))

    def gaps(self) -> list[float]:
        """Return the times between the writes of the Lease that took effect, by the API server's own clock."""
        writes = (one for one in self.control_plane.writes() if (one.namespace, one.resource, one.name) == (self.namespace, "leases", "op"))
        times = [datetime.fromisoformat(one.at) for one in writes if one.code < 300]
        return [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(times)]

    def lease(self) -> dict[str, Any]:
        spec: dict[str, Any] = json.loads(self.control_plane.kubectl("get", "lease", "op", "-n", self.namespace, "-o", "json"))["spec"]
        return spec

    def judge(self) -> None:
        """No epoch is used twice, and once a leader has written none of its predecessors did any more.

        The API server's own order counts: a process that is stopped between a write and its answer learns late what was done early.
        """
        epochs = [epoch for candidate in self.candidates for epoch in candidate.terms]
        assert len(set(epochs)) == len(epochs), epochs
        written = sorted((said["version"], said["epoch"]) for c in self.candidates for said in c.said if said["what"] == "wrote")
        assert [epoch for _, epoch in written] == sorted(epoch for _, epoch in written), written


@asynccontextmanager
async def an_environment(control_plane: ControlPlane, folder: Path) -> AsyncIterator[Environment]:
    namespace = f"leader-{next(_numbers)}"
    control_plane.kubectl("create", "namespace", namespace)
    control_plane.kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(LEDGER))
    environment = Environment(control_plane, namespace, folder)
    try:
        async with asyncio.timeout(300):
            yield environment
    finally:
        for candidate in environment.candidates:
            with contextlib.suppress(ProcessLookupError):
                candidate.process.kill()
            await candidate.process.wait()
            await candidate.reading
        for wire in environment.wires:
            await wire.close()
    environment.judge()


def test_the_judge_notices_what_a_former_leader_wrote_late(tmp_path: Path) -> None:
    def judged(*writes: tuple[int, int]) -> None:
        said = [{"what": "wrote", "version": version, "epoch": epoch} for version, epoch in writes]
        environment = Environment(cast(ControlPlane, None), "none", tmp_path)
        environment.candidates = [cast(Candidate, SimpleNamespace(terms=[0, 1], said=said))]
        environment.judge()

    judged((5, 0), (5, 0), (7, 1))
    with pytest.raises(AssertionError):
        judged((5, 0), (7, 1), (9, 0))


async def test_a_graceful_handover_is_reported_by_the_watch(control_plane: ControlPlane, tmp_path: Path) -> None:
    async with an_environment(control_plane, tmp_path) as environment:
        leader = await environment.candidate("c0", lease=UNHURRIED)
        await leader.until("leads")
        took = []
        for number in range(1, 8):
            follower = await environment.candidate(f"c{number}", lease=UNHURRIED)
            await asyncio.sleep(0.5)
            asked = leader.signal(signal.SIGTERM)
            took.append(await follower.until("leads") - asked)
            assert await leader.process.wait() == 0
            leader = follower
        print("handovers, seconds:", [round(t, 3) for t in took])
        assert statistics.median(took) < 1  # a poll instead of the watch would take 2 s
        assert environment.lease()["leaseTransitions"] == 7
    for earlier, later in itertools.pairwise(environment.candidates):
        assert earlier.when("stopped")[0] <= later.when("leads")[0]


async def test_a_killed_leader_is_replaced_when_its_lease_has_run_out(control_plane: ControlPlane, tmp_path: Path) -> None:
    async with an_environment(control_plane, tmp_path) as environment:
        leader = await environment.candidate("c0")
        await leader.until("leads")
        for number in (1, 2):
            follower = await environment.candidate(f"c{number}")
            await asyncio.sleep(1.5)
            killed = leader.signal(signal.SIGKILL)
            print("killed to led, seconds:", round(await follower.until("leads") - killed, 3))
            await follower.until("wrote")
            # However long before the end the last renewal was: the follower waits for the whole Lease from there on.
            assert sum(gap > LEASE_SECONDS - 0.1 for gap in environment.gaps()) >= number, environment.gaps()
            leader = follower


async def test_a_stopped_leader_writes_nothing_when_it_goes_on(control_plane: ControlPlane, tmp_path: Path) -> None:
    async with an_environment(control_plane, tmp_path) as environment:
        stopped = await environment.candidate("stopped", lease=LONGER)
        await stopped.until("wrote")
        other = await environment.candidate("other", lease=LONGER)
        await asyncio.sleep(1)
        stopped.signal(signal.SIGSTOP)
        began = await other.until("leads")
        await asyncio.sleep(1)
        resumed = stopped.signal(signal.SIGCONT)
        await stopped.until("stopped", after=resumed)
        assert [said for said in stopped.said if said["what"] == "wrote" and said["began"] >= began] == []
        await asyncio.sleep(2)
        assert other.terms == [1]
        assert stopped.terms == [0]


async def test_a_short_outage_loses_nothing_and_a_long_one_the_leadership(control_plane: ControlPlane, tmp_path: Path) -> None:
    async with an_environment(control_plane, tmp_path) as environment:
        wire = environment.wire()
        # A busy machine must neither make the short outage a long one, nor hold up the end of the work until another leads.
        leader = await environment.candidate("cut", wire=wire, lease=12, deadline=7)
        await leader.until("leads")
        other = await environment.candidate("other", lease=12, deadline=7)
        await asyncio.sleep(1.2)
        wire.refuse()
        await asyncio.sleep(1.5)
        wire.refusing = False
        assert wire.cut > 0, "there was no connection to refuse"
        await leader.until("wrote", after=boottime())
        await asyncio.sleep(2)
        assert (leader.terms, other.terms) == ([0], [])

        wire.flowing.clear()  # from here on a black hole
        cut = boottime()
        stopped = await leader.until("stopped", after=cut)
        took_over = await other.until("leads")
        assert stopped < took_over
        assert wire.held > 0, "there was nothing to hold up"
        wire.flowing.set()
        await asyncio.sleep(3)
        assert other.terms == [1]
        other.signal(signal.SIGTERM)
        await leader.until("leads", after=took_over)  # it campaigns again


async def test_a_deleted_lease_is_put_back_by_its_leader(control_plane: ControlPlane, tmp_path: Path) -> None:
    async with an_environment(control_plane, tmp_path) as environment:
        leader = await environment.candidate("a", lease=LONGER)
        await leader.until("leads")
        other = await environment.candidate("b", lease=LONGER)
        await asyncio.sleep(0.5)
        op = ("lease", "op", "-n", environment.namespace)
        for _ in range(3):
            control_plane.kubectl("delete", *op)
            await until(lambda: control_plane.kubectl("get", *op, "--ignore-not-found"), "it is back")
            assert environment.lease()["holderIdentity"] == "a"
        await asyncio.sleep(LONGER + 1)
        assert (leader.terms, other.terms) == ([0], [])
