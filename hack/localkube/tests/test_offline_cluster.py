"""A kind cluster's configuration, and what is left when making it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from localkube.errors import LocalKubeError
from localkube.files import EXECUTABLE, write
from localkube.offline.cluster import KindCluster, config


def test_three_workers_stand_in_three_zones() -> None:
    asked = config("acme", image="node:v1")
    assert [node["role"] for node in asked["nodes"]] == ["control-plane", "worker", "worker", "worker"]
    assert [node["labels"]["topology.kubernetes.io/zone"] for node in asked["nodes"][1:]] == ["zone-a", "zone-b", "zone-c"]
    assert asked["networking"]["apiServerAddress"] == "127.0.0.1"


def test_our_own_image_comes_with_our_own_network() -> None:
    asked = config("acme", image="node:v1")
    assert {node["image"] for node in asked["nodes"]} == {"node:v1"}
    assert asked["networking"]["disableDefaultCNI"] is True


def test_the_stock_image_comes_with_kinds_network() -> None:
    asked = config("acme", image=None)
    assert not any("image" in node for node in asked["nodes"])
    assert asked["networking"]["disableDefaultCNI"] is False


def test_a_cluster_that_cannot_be_made_is_removed_and_the_reason_is_said(tmp_path: Path) -> None:
    program = f'#!/bin/sh\necho "$@" >> {tmp_path}/calls; [ "$1" = delete ] && exit 0; echo "no room for nodes" >&2; exit 1'
    kind = write(tmp_path / "kind", program, mode=EXECUTABLE)
    cluster = KindCluster("acme", tmp_path / "build", {"kind": kind, "kubectl": kind})
    with pytest.raises(LocalKubeError, match="no room for nodes"):
        cluster.make("node:v1")
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert [call.split()[0] for call in calls] == ["create", "delete"]
    assert "--name=acme" in calls[1]
    assert [path.name for path in (tmp_path / "build").iterdir()] == ["acme.log"], "the log stays, to be read"


def test_a_cluster_is_found_by_its_whole_name(tmp_path: Path) -> None:
    kind = write(tmp_path / "kind", "#!/bin/sh\nprintf 'acme-2\\nother\\n'", mode=EXECUTABLE)
    assert not KindCluster("acme", tmp_path, {"kind": kind}).exists()
    assert KindCluster("other", tmp_path, {"kind": kind}).exists()
