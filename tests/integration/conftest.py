"""What the integration tests share: one real control plane, and one with the operator. They end with the last of these tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from localkube.plane.controlplane import ControlPlane
from localkube.programs.binaries import Binaries, provide

from .environment import Environment, Harness, an_environment


@pytest.fixture(scope="session")
def binaries(request: pytest.FixtureRequest) -> Binaries:
    """The control plane's programs. The first time they may be built, for minutes, so what is done is shown through pytest's capturing."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        return provide(os.environ)


@pytest.fixture(scope="package")
def control_plane(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with an audit log, without nodes. Tests share it: each works in namespaces of its own and leaves no node behind."""
    plane = ControlPlane.start(tmp_path_factory.mktemp("control-plane"), binaries=binaries, audit_log=True)
    yield plane
    plane.stop()


@pytest.fixture(scope="package")
def harness(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """What the operator's tests share: a control plane of their own with hollow nodes that run the simulator, and two operators."""
    folder = tmp_path_factory.mktemp("operator")
    plane = ControlPlane.start(folder / "plane", binaries=binaries, audit_log=True)
    harness = Harness(plane, folder)
    try:
        harness.start()
        yield harness
    finally:
        harness.close()
        plane.stop()


@pytest.fixture
async def environment(harness: Harness) -> AsyncIterator[Environment]:
    """A namespace of the harness with both operators up, watched throughout, and checked for every law at the end."""
    await asyncio.to_thread(harness.ensure_replicas)
    async with an_environment(harness) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(harness: Harness) -> AsyncIterator[Environment]:
    """One cluster for all tests of a module; each leaves it at rest and the nodes sound."""
    await asyncio.to_thread(harness.ensure_replicas)
    async with an_environment(harness) as environment:
        await environment.created(shards=2, spares=1)
        yield environment
        await environment.at_rest()
