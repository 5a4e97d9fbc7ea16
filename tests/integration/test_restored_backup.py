"""etcd is restored from a backup, for so short that watches only break: what the operators remember is newer than what is stored."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localkube.errors import LocalKubeError
from localkube.plane.controlplane import ControlPlane
from localkube.plane.operators import Operators
from localkube.programs.binaries import Binaries
from waiting import wait_until

pytestmark = pytest.mark.integration

CLUSTERS = "/apis/multiconnect.dev/v1alpha1/namespaces/default/whatsappclusters"
SINCE_BACKUP = 300
"""Writes after the backup: the API server does not reach the versions of before again within this test."""


class Plane:
    """A control plane whose etcd can be put back."""

    def __init__(self, folder: Path, binaries: Binaries) -> None:
        self._folder, self._binaries = folder, binaries
        self.now = ControlPlane.start(folder / "plane", binaries=binaries)

    def backup(self) -> None:
        """Copy what is stored, while nothing runs."""
        self.now.stop()
        shutil.copytree(self._folder / "plane" / "etcd", self._folder / "backup")
        self.now = ControlPlane.start(self._folder / "plane", binaries=self._binaries)

    def restore(self) -> None:
        self.now.stop()
        shutil.rmtree(self._folder / "plane" / "etcd")
        shutil.copytree(self._folder / "backup", self._folder / "plane" / "etcd")
        self.now = ControlPlane.start(self._folder / "plane", binaries=self._binaries)

    def create_cluster(self, name: str) -> None:
        spec = {"shards": 1, "spares": 1, "client": {"type": "Simulator"}}
        obj = {"apiVersion": "multiconnect.dev/v1alpha1", "kind": "WhatsAppCluster", "metadata": {"name": name}, "spec": spec}
        self.now.call("POST", CLUSTERS, obj)
        wait_until(lambda: self.has_coreapps(name), f"{name} gets its StatefulSet")

    def has_coreapps(self, name: str) -> bool:
        try:
            self.now.call("GET", f"/apis/apps/v1/namespaces/default/statefulsets/{name}-coreapp")
        except LocalKubeError:
            return False
        return True

    def write_much(self) -> None:
        for _ in range(SINCE_BACKUP):
            body: dict[str, Any] = {"metadata": {"generateName": "written-"}}
            self.now.call("POST", "/api/v1/namespaces/default/configmaps", body)


@pytest.fixture
def plane(binaries: Binaries, tmp_path: Path) -> Iterator[Plane]:
    one = Plane(tmp_path, binaries)
    yield one
    one.now.stop()


def test_an_operator_that_remembers_more_than_is_stored_ends(plane: Plane, tmp_path: Path) -> None:
    operators = Operators(plane.now, tmp_path / "operators")
    try:
        operators.install()
        both = [operators.start(name) for name in ("op-a", "op-b")]
        plane.create_cluster("before")
        plane.backup()
        plane.write_much()
        plane.create_cluster("after")
        plane.restore()

        wait_until(lambda: not any(process.alive() for process in both), "both operators end")
        assert [process.exit_text() for process in both] == ["exited with status 1"] * 2
        for process in both:
            last = process.last_lines(1)
            assert "etcd was restored from a backup" in last, last
    finally:
        operators.close()
    again = Operators(plane.now, tmp_path / "operators-again")
    try:
        again.start("op-a")
        plane.create_cluster("again")
    finally:
        again.close()
