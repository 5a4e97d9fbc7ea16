"""The OCI runtime that asks for no capability which the machine lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from localkube.files import EXECUTABLE, write
from localkube.offline import runtime

EVERYTHING = [f"CAP_{name}" for name in runtime.NAMES]
STATUS = "Name:\tsh\nCapEff:\t000001fffeffffff\nCapBnd:\t000001fffeffffff\nCapAmb:\t0000000000000000\n"


def config() -> dict[str, Any]:
    """What Docker writes for a privileged container, as far as it matters."""
    return {
        "ociVersion": "1.0.2",
        "process": {"args": ["/sbin/init"], "capabilities": {each: list(EVERYTHING) for each in ("bounding", "effective", "permitted")}},
        "root": {"path": "rootfs"},
    }


def test_the_hole_in_the_bounding_set_is_found() -> None:
    assert runtime.missing(STATUS) == {"CAP_SYS_RESOURCE"}


@pytest.mark.parametrize("status", ["CapBnd:\t000001ffffffffff\n", "Name:\tsh\n"])
def test_nothing_is_missing_where_nothing_is(status: str) -> None:
    assert runtime.missing(status) == frozenset()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            "--root /run/r --log /l.json --log-format json --systemd-cgroup create --bundle /b --pid-file /b/pid ID",
            ("/b/config.json", True),
        ),
        ("--root=/run/r --debug run --bundle=/b ID", ("/b/config.json", True)),
        ("create -b /b ID", ("/b/config.json", True)),
        ("run ID", ("config.json", True)),
        ("--log /create exec --process /tmp/p --detach ID", ("/tmp/p", False)),
        ("exec ID ls", None),
        ("--root /run/r kill ID 9", None),
        ("delete --force ID", None),
        ("--version", None),
        ("", None),
    ],
)
def test_the_file_that_says_what_is_to_run(line: str, found: tuple[str, bool] | None) -> None:
    assert runtime.asked(line.split()) == (None if found is None else (Path(found[0]), found[1]))


def test_only_the_missing_capability_goes_and_nothing_else_changes() -> None:
    before = config()
    after = runtime.without(config(), frozenset({"CAP_SYS_RESOURCE"}), whole=True)
    for each, names in after["process"]["capabilities"].items():
        assert names == [name for name in before["process"]["capabilities"][each] if name != "CAP_SYS_RESOURCE"]
    after["process"]["capabilities"] = before["process"]["capabilities"]
    assert after == before


def test_a_process_has_its_capabilities_at_another_place() -> None:
    process = config()["process"]
    after = runtime.without(process, frozenset({"CAP_SYS_RESOURCE"}), whole=False)
    assert "CAP_SYS_RESOURCE" not in after["capabilities"]["bounding"]


@pytest.mark.parametrize("content", [{}, {"process": {}}, {"process": {"capabilities": None}}])
def test_what_names_no_capabilities_stays(content: dict[str, Any]) -> None:
    assert runtime.without(json.loads(json.dumps(content)), frozenset({"CAP_SYS_RESOURCE"}), whole=True) == content


@pytest.mark.skipif(os.geteuid() != 0, reason="lane root: only root may give up a capability, so run it as root")
def test_it_corrects_the_bundle_and_becomes_the_real_runtime(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config()), encoding="utf-8")
    runc = write(tmp_path / "runc", '#!/bin/sh\necho "$@"\n', mode=EXECUTABLE)
    # PR_CAPBSET_DROP of CAP_SYS_TIME, which every machine has or lacks already
    drop = "import ctypes,os,sys; ctypes.CDLL(None).prctl(24, 25, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"
    wrapper = [sys.executable, "-I", "-S", runtime.__file__, str(runc), "create", "--bundle", str(tmp_path), "ID"]
    done = subprocess.run([sys.executable, "-c", drop, *wrapper], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"create --bundle {tmp_path} ID\n", "")
    bounding = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["process"]["capabilities"]["bounding"]
    assert "CAP_SYS_TIME" not in bounding
    assert "CAP_SYS_ADMIN" in bounding
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "runc"]
