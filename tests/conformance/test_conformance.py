"""The conformance table, run against the simulated and the real API server; and against simulated ones that are wrong on purpose."""

from __future__ import annotations

import httpx
import pytest

from localkube.plane import kubeconfig
from localkube.plane.controlplane import ControlPlane

from ..simulation import virtual
from . import controllers, objects, watches
from .real import RealServer, tls_of
from .rows import ROWS
from .simulated import SimulatedServer

__all__ = ["controllers", "objects", "watches"]


def test_the_table_has_sixty_rows() -> None:
    assert len(ROWS) >= 60


@pytest.mark.parametrize("name", ROWS)
def test_simulated(name: str) -> None:
    async def main(loop: virtual.VirtualLoop) -> None:
        await ROWS[name](SimulatedServer(loop))

    virtual.run(main)


@pytest.mark.integration
@pytest.mark.parametrize("name", ROWS)
async def test_real(name: str, plane: ControlPlane) -> None:
    access = kubeconfig.read(plane.admin_kubeconfig)
    async with httpx.AsyncClient(base_url=access.server, verify=tls_of(access), trust_env=False, timeout=20) as client:
        server = RealServer(client, name.replace("_", "-")[:60].rstrip("-"))
        await server.prepare()
        await ROWS[name](server)
