"""Processes are distinguished by pid and start time; kubeconfigs that cannot be used say so in one sentence; so does the command."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from localkube import kubeconfig
from localkube.errors import LocalKubeError
from localkube.files import EXECUTABLE, write
from localkube.kubeconfig import Access
from localkube.plane import processes
from localkube.plane.controlplane import ControlPlane
from localkube.plane.operators import REPOSITORY, image_packages
from localkube.plane.processes import Process
from waiting import wait_until

SLEEPER = ["/bin/sleep", "60"]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    """A process that ends with this one at the latest."""
    process = processes.start("sleeper", SLEEPER, folder=tmp_path, log=tmp_path / "log")
    yield process
    processes.stop([process])


# ---- processes


def test_an_operator_finds_the_packages_of_its_image_and_no_other() -> None:
    path = os.pathsep.join(map(str, (REPOSITORY / "operator", image_packages())))
    code = "import sys, whatsapp_operator.__main__, opentelemetry.sdk.trace; print(*(name for name in sys.modules if '.' not in name))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True, timeout=60
    )
    assert not set(done.stdout.split()) & {"kubernetes", "pykube", "rich", "pytest"}


def test_stop_ends_the_process_even_when_it_is_stopped(sleeper: Process) -> None:
    assert sleeper.alive()
    sleeper.pause()
    assert sleeper.is_paused()

    assert processes.stop([sleeper]) == []

    assert not sleeper.alive()
    assert sleeper.exit_text() == "was ended by signal 15"


def test_a_paused_process_does_nothing_more(tmp_path: Path) -> None:
    """SIGSTOP reaches a sleeping thread only when it runs again: until then the process may still answer."""
    code = "import threading, time\nfor _ in range(8): threading.Thread(target=lambda: [time.sleep(0.0001) for _ in range(10**6)]).start()"
    busy = processes.start("busy", [sys.executable, "-c", code], folder=tmp_path, log=tmp_path / "log")
    wait_until(lambda: len(list(Path(f"/proc/{busy.pid}/task").iterdir())) == 9)
    for _ in range(20):
        busy.pause()
        assert busy.is_paused()
        busy.resume()
        wait_until(lambda: not busy.is_paused())
    processes.stop([busy])


def test_one_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    stubborn = processes.start(
        "stubborn", ["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], folder=tmp_path, log=tmp_path / "log"
    )
    wait_until(lambda: stubborn.last_lines() == "ready")

    assert processes.stop([stubborn], grace=0.2) == [stubborn]

    assert not stubborn.alive()


def test_a_stranger_with_the_same_pid_is_left_alone(sleeper: Process) -> None:
    stranger = dataclasses.replace(sleeper, started=sleeper.started - 1, child=None)
    rebooted = dataclasses.replace(sleeper, boot="another boot", child=None)

    assert not stranger.alive()
    assert not rebooted.alive()
    assert processes.stop([stranger, rebooted]) == []
    assert sleeper.alive()


def test_saved_processes_are_found_again(sleeper: Process, tmp_path: Path) -> None:
    processes.save(tmp_path / "processes.json", [sleeper])

    assert processes.load(tmp_path / "processes.json") == [sleeper]
    assert processes.load(tmp_path / "processes.json")[0].alive()
    assert processes.load(tmp_path / "none.json") == []


def test_a_record_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "processes.json").write_text("[{]")

    with pytest.raises(LocalKubeError, match="does not say which processes run"):
        processes.load(tmp_path / "processes.json")


def test_leashed_processes_die_with_the_python_process_that_started_them_and_others_do_not(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from localkube.plane import processes; at = Path(sys.argv[1]); "
        "began = [processes.start('s', ['/bin/sleep', '60'], folder=at, log=at / 'log', leashed=one) for one in (True, False)]; "
        "processes.save(at / 'started', began)"
    )
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY / "hack")}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=env, check=True, timeout=60)
    leashed, other = processes.load(tmp_path / "started")

    wait_until(lambda: not leashed.alive())
    assert other.alive()
    processes.stop([other])


def test_a_program_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LocalKubeError, match="etcd cannot be started: /no/such is not there"):
        processes.start("etcd", ["/no/such"], folder=tmp_path, log=tmp_path / "log")


# ---- kubeconfigs


def test_a_kubeconfig_is_read_as_it_was_written(tmp_path: Path) -> None:
    access = Access("https://127.0.0.1:1", "authority", certificate="certificate", key="key")
    path = access.write(tmp_path / "deep" / "kubeconfig", namespace="x")

    assert kubeconfig.read(path) == access
    assert path.stat().st_mode & 0o077 == 0
    assert "key" not in repr(access)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "line 1"),
        ("just words", "TypeError"),
        ("{current-context: a, contexts: []}", "StopIteration"),
        (
            (
                "{current-context: a, contexts: [{name: a, context: {cluster: c, user: u}}], users: [{name: u, user: {}}], "
                "clusters: [{name: c, cluster: {server: s, certificate-authority-data: '%%%'}}]}"
            ),
            "base64",
        ),
        ("\x00", "ReaderError"),
        (None, "No such file"),
    ],
)
def test_an_unreadable_kubeconfig_is_one_sentence(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)

    with pytest.raises(LocalKubeError, match=f"leads to no cluster and user .*{said}") as caught:
        kubeconfig.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- starting, and the command


def test_writes_are_read_from_the_audit_log_as_they_come(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path, binaries={}, leashed=True)
    with pytest.raises(LocalKubeError, match="keeps no audit log"):
        plane.writes()
    lines = [
        json.dumps({"user": {"username": name}, "verb": "create", "requestReceivedTimestamp": "", "objectRef": {"name": "é"}}) + "\n"
        for name in ("a", "b", "c")
    ]
    with (tmp_path / "audit.log").open("a", encoding="utf-8", buffering=1) as log:
        log.write(lines[0])
        assert [one.user for one in plane.writes()] == ["a"]
        log.write(lines[1])
        log.write(lines[2][:20])
        log.flush()
        assert [one.user for one in plane.writes()] == ["a", "b"]
        log.write(lines[2][20:])
        assert [one.user for one in plane.writes()] == [one.user for one in plane.writes()] == ["a", "b", "c"]
    (tmp_path / "audit.log").write_text(lines[0], encoding="utf-8")
    with pytest.raises(LocalKubeError, match="began its audit log again"):
        plane.writes()


def test_a_program_that_dies_is_quoted(tmp_path: Path) -> None:
    broken = write(tmp_path / "etcd", "#!/bin/sh\necho line one\necho the disk is full\nexit 7\n", mode=EXECUTABLE)

    with pytest.raises(LocalKubeError, match="etcd exited with status 7 while waiting for etcd to open its socket") as caught:
        ControlPlane.start(tmp_path / "x", binaries={"etcd": broken})
    assert str(caught.value).endswith("line one\nthe disk is full")


def test_one_that_never_gets_ready_is_quoted_and_ended(tmp_path: Path) -> None:
    idle = write(tmp_path / "etcd", "#!/bin/sh\necho still thinking\nexec sleep 60\n", mode=EXECUTABLE)

    with pytest.raises(LocalKubeError, match=r"waited too long for etcd to open its socket[\s\S]*still thinking"):
        ControlPlane.start(tmp_path / "x", binaries={"etcd": idle}, timeout=5.0)

    assert [process.alive() for process in processes.load(tmp_path / "x" / "processes.json")] == [False]


def test_the_script_finds_its_package() -> None:
    script = REPOSITORY / "hack" / "programs"
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 0
    assert "--control-plane" in done.stdout
