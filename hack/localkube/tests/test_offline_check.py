"""What a kind cluster needs of a machine, one sentence each, and which way is taken."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from localkube.errors import guarded
from localkube.files import EXECUTABLE, write
from localkube.offline import check, dockerd
from localkube.offline import command as kind_cli
from localkube.offline.check import Facts

STOCK = "kindest/node:v1.37.0@sha256:" + "a" * 64
WELL = Facts(
    root=True,
    docker={"ServerVersion": "20.10.24", "DefaultRuntime": "runc"},
    docker_program=True,
    debootstrap=True,
    mirror="http://mirror.test/debian",
    missing_capabilities=frozenset(),
    overlay=True,
    disk_gb=100.0,
    memory_gb=16.0,
    stock_image=None,
)
HOLE = frozenset({"CAP_SYS_RESOURCE"})
OURS = {"ServerVersion": "20.10.24", "DefaultRuntime": dockerd.RUNTIME}


def test_a_machine_that_has_everything_lacks_nothing() -> None:
    assert check.lacking(WELL) == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (replace(WELL, docker=None, docker_program=False), "no program 'docker'"),
        (replace(WELL, docker=None), "does not answer"),
        (replace(WELL, missing_capabilities=HOLE), "lacks CAP_SYS_RESOURCE"),
        (replace(WELL, overlay=False), "overlay"),
        (replace(WELL, root=False), "root's rights"),
        (replace(WELL, debootstrap=False), "'debootstrap'"),
        (replace(WELL, mirror=None), "no Debian mirror"),
        (replace(WELL, disk_gb=3.2), "Only 3 GB of disk"),
        (replace(WELL, memory_gb=1.0), "Only 1 GB of memory"),
    ],
)
def test_each_thing_that_is_missing_has_its_one_sentence(facts: Facts, words: str) -> None:
    (sentence,) = check.lacking(facts)
    assert words in sentence
    assert sentence.endswith(".")


def test_all_that_is_missing_is_said_at_once() -> None:
    assert len(check.lacking(replace(WELL, docker=None, docker_program=False, debootstrap=False, mirror=None, disk_gb=0.0))) == 4


def test_a_hole_is_no_hindrance_under_our_own_runtime() -> None:
    assert check.lacking(replace(WELL, missing_capabilities=HOLE, docker=OURS)) == []


@pytest.mark.parametrize(
    ("facts", "way"),
    [
        (WELL, "offline"),  # no registry
        (replace(WELL, stock_image=STOCK), "stock"),
        (replace(WELL, stock_image=STOCK, missing_capabilities=HOLE), "offline"),
        (replace(WELL, stock_image=STOCK, docker=None), "offline"),
    ],
)
def test_the_stock_image_is_taken_where_it_can_be_had_and_docker_is_normal(facts: Facts, way: str) -> None:
    assert check.way(facts) == way


def test_what_only_images_made_here_need_is_not_asked_for_on_the_stock_way() -> None:
    facts = replace(WELL, stock_image=STOCK, root=False, debootstrap=False, mirror=None, overlay=False)
    assert check.lacking(facts) == []


def test_the_stock_image_is_read_from_the_program() -> None:
    assert check.stock_image(b"\0runtimeName" + STOCK.encode() + b"context deadline") == STOCK
    assert check.stock_image(b"\0kindest/node:latest") is None


@pytest.mark.parametrize(("manifest", "there"), [("exit 0", True), ("exit 1", False), ("sleep 60", False)])
def test_a_registry_is_asked_once_by_digest_and_not_for_long(
    manifest: str, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = f'#!/bin/sh\n[ "$1" = image ] && exit 1\necho "$@" >> {tmp_path}/calls\nexec sh -c "{manifest}"\n'
    write(tmp_path / "docker", program, mode=EXECUTABLE)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(check, "PROBE_SECONDS", 1.0)
    assert check.to_be_had(STOCK) is there
    assert (tmp_path / "calls").read_text(encoding="utf-8") == f"manifest inspect kindest/node@sha256:{'a' * 64}\n"


@pytest.mark.parametrize("command", ["check", "build", "up", "images"])
def test_without_docker_the_command_says_what_to_do(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert guarded("hack/kind-offline", lambda: kind_cli.main([command], root=tmp_path)) == 1
    output = "".join(capfd.readouterr())
    assert "There is no program 'docker'" in output
    assert "--install-docker" in output
    assert "Traceback" not in output


def test_removing_builds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert kind_cli.main(["down", "--docker"], root=tmp_path) == 0
    assert not (tmp_path / "cache").exists()
