"""Two API servers over one etcd behind a load balancer, as in most clusters: one hangs, one dies, one has a new authority."""

from __future__ import annotations

import asyncio
import re
import signal
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import yaml

from localkube import kubeconfig
from localkube.files import PRIVATE, write
from localkube.plane import certificates
from localkube.plane.controlplane import SERVICE_IP, free_ports
from localkube.plane.operators import NAME, NAMESPACE, Operators
from localkube.plane.processes import Process, stop
from outside.wire import Wire

from .environment import LONG, Environment, Harness, an_environment, light_traffic

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

NAMES = ("op-5", "op-6")
STALLED = "the API server did not answer within 5 s"
"""What is said of a read that nobody answered."""

CUT_OFF = ("not connected to", "The watches are restarted")
"""What is said when a watch is not connected for a few seconds."""
LONGER_THAN_ANY_STREAM = 30.0
"""Seconds; also long enough to be cut off once it has ended."""


@dataclass
class Balanced:
    """A cluster, and operators that reach two API servers through a load balancer each."""

    environment: Environment
    operators: Operators
    balancers: list[Wire]
    servers: list[Process]
    """The API servers that were started in addition to the harness's own."""
    authority: Path
    """The file with the authority that the operators trust."""
    metrics: list[int]
    """The ports on which the operators serve their metrics."""

    def logs(self) -> list[str]:
        return [(self.operators.folder / f"{name}.log").read_text(encoding="utf-8") for name in NAMES]

    def answered_by_another(self) -> list[float]:
        """Return how many calls of each operator another API server answered than the one that was called first."""
        found, later = [], r'^multiconnect_calls_sent_again_total\{answered="later".* (\S+)$'
        for port in self.metrics:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=LONG) as answer:
                series = re.findall(later, answer.read().decode(), re.MULTILINE)
            assert len(series) == 3, "reads, renewals and watches"
            found.append(sum(map(float, series)))
        return found

    async def until(self, said: str) -> None:
        """Wait until the logs of both operators say this."""
        async with asyncio.timeout(LONG):
            while not all(said in log for log in self.logs()):
                await asyncio.sleep(0.05)


def with_files(plane_kubeconfig: Path, token: str, folder: Path, name: str, server: str) -> tuple[Path, Path]:
    """Write a kubeconfig that names files, as a service account's are in a pod; return it and the file of the authority."""
    authority = write(folder / "ca.crt", kubeconfig.read(plane_kubeconfig).authority)
    config = {
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": str(authority)}}],
        "users": [{"name": "u", "user": {"tokenFile": str(write(folder / f"{name}.token", token, mode=PRIVATE))}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    return write(folder / f"{name}.files", yaml.safe_dump(config)), authority


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def balanced(harness: Harness, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Balanced]:
    plane, folder = harness.plane, tmp_path_factory.mktemp("balanced")
    first = ("127.0.0.1", urlsplit(plane.server).port or 0)
    await asyncio.to_thread(harness.end_replicas)
    server, second = await asyncio.to_thread(plane.start_another_apiserver)
    # The log of the harness is searched for rejections.
    operators, servers = Operators(plane, harness.folder / "operators", env=harness.operators.env), [server]
    try:
        async with AsyncExitStack() as stack:
            # First, because the observer holds up this event loop while it begins, and with it the balancers.
            environment = await stack.enter_async_context(an_environment(harness))
            balancers = [await stack.enter_async_context(Wire(first)) for _ in NAMES]
            ports = free_ports(len(NAMES))
            for name, balancer, port in zip(NAMES, balancers, ports, strict=True):
                balancer.lead(first, second)
                account = await asyncio.to_thread(plane.service_account_kubeconfig, NAMESPACE, NAME, folder / name)
                url = f"https://127.0.0.1:{balancer.address[1]}"
                path, authority = with_files(account, kubeconfig.read(account).token, folder, name, url)
                env = {"KUBECONFIG": str(path), "METRICS_PORT": str(port), "METRICS_HOST": "127.0.0.1"}
                await asyncio.to_thread(operators.start, name, env=env)
            await environment.created(shards=2, spares=1)
            yield Balanced(environment, operators, balancers, servers, authority, ports)
            await asyncio.to_thread(operators.close)
    finally:
        await asyncio.to_thread(operators.close)
        await asyncio.to_thread(stop, servers)
        await asyncio.to_thread(harness.ensure_replicas)


async def test_while_one_hangs_a_failover_goes_over_the_other(balanced: Balanced) -> None:
    environment = balanced.environment
    async with light_traffic(environment):
        balanced.servers[0].pause()
        try:
            before = len(environment.seen.commits)
            await environment.delete_pod(environment.holder(0))
            await environment.commit(0, before)
            assert not [log for log in balanced.logs() if STALLED in log]
        finally:
            balanced.servers[0].resume()
        await environment.at_rest()


async def test_while_one_hangs_longer_than_any_stream_no_watch_stays_away(balanced: Balanced) -> None:
    environment, time = balanced.environment, asyncio.get_running_loop().time
    before, counted = [len(log) for log in balanced.logs()], await asyncio.to_thread(balanced.answered_by_another)
    async with light_traffic(environment):
        balanced.servers[0].pause()
        try:
            ends = time() + LONGER_THAN_ANY_STREAM
            while time() < ends:
                commits = len(environment.seen.commits)
                await environment.delete_pod(environment.holder(0))
                await environment.commit(0, commits)
                await environment.at_rest()
        finally:
            balanced.servers[0].resume()
    logs = "".join(log[size:] for log, size in zip(balanced.logs(), before, strict=True))
    assert not [line for line in logs.splitlines() if any(said in line for said in CUT_OFF)]
    assert all(after > before for before, after in zip(counted, await asyncio.to_thread(balanced.answered_by_another), strict=True))


async def test_one_that_dies_takes_nobody_with_it(balanced: Balanced) -> None:
    environment = balanced.environment
    async with light_traffic(environment):
        before = len(environment.seen.commits)
        balanced.servers[0].signal(signal.SIGKILL)
        await environment.delete_pod(environment.holder(1))
        await environment.commit(1, before)
        await environment.at_rest()


async def test_a_new_authority_is_trusted_without_a_restart(balanced: Balanced, tmp_path: Path) -> None:
    environment, plane = balanced.environment, balanced.environment.plane
    made = certificates.make(tmp_path / "new", service_ip=SERVICE_IP)
    server, third = await asyncio.to_thread(plane.start_another_apiserver, made=made)
    balanced.servers.append(server)
    for balancer in balanced.balancers:
        balancer.lead(third)
        balancer.reset()
    await balanced.until("certificate verify failed")
    write(balanced.authority, made.authority.read_text())
    await balanced.until("there is another authority for the API server's certificate now")
    before = len(environment.seen.commits)
    await environment.delete_pod(environment.holder(0))
    await environment.commit(0, before)
    await environment.at_rest()
