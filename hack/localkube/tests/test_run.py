"""Programs that are run to their end: what is said when they fail, hang or are missing, and that none outlives its deadline."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from localkube import run
from localkube.errors import LocalKubeError, guarded
from localkube.progress import step


def shell(text: str) -> list[str]:
    return ["/bin/sh", "-c", text]


def test_what_a_program_writes_is_read_and_what_it_complains_of_is_quoted() -> None:
    assert run.output(["cat"], text="given") == "given"
    assert run.output(shell("echo out; echo err >&2"), both=True) == "out\nerr\n"
    with pytest.raises(LocalKubeError, match=r"^'sh -c .*' failed: no room$"):
        run.output(shell("echo no room >&2; exit 1"))
    with pytest.raises(LocalKubeError, match="/no/such cannot be run: No such file"):
        run.output(["/no/such"])
    with pytest.raises(LocalKubeError, match=r"did not end within 0\.1 s"):
        run.output(["sleep", "60"], timeout=0.1)


def test_the_end_of_the_log_is_said(tmp_path: Path) -> None:
    with pytest.raises(LocalKubeError) as caught:
        run.logged(shell("seq 100; exit 3"), what="counting", log=tmp_path / "new" / "log")
    assert str(caught.value).splitlines() == [f"counting failed; the end of {tmp_path}/new/log:", *map(str, range(89, 101))]
    run.logged(shell('test "$EXTRA" = 1 && test "$PWD" = /'), log=tmp_path / "log", env={"EXTRA": "1"}, cwd=Path("/"))


def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(LocalKubeError, match=r"did not end within 0\.5 s"):
        run.logged(shell(f"echo $$ > {tmp_path}/pid; exec sleep 60"), log=tmp_path / "log", timeout=0.5)
    number = (tmp_path / "pid").read_text(encoding="ascii").strip() if (tmp_path / "pid").exists() else ""
    assert not (number and Path(f"/proc/{number}").exists())


def test_a_program_ends_with_what_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def wait(self, timeout: float | None = None) -> int:
            if self not in started:
                started.append(self)
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr("subprocess.Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.logged(["sleep", "60"], log=tmp_path / "log")
    assert [child.returncode for child in started] == [-15]


def test_a_step_says_its_begin_and_how_it_failed(capsys: pytest.CaptureFixture[str]) -> None:
    with step("building [x]", number=2, of=5, expected_s=61):
        pass
    with pytest.raises(LocalKubeError), step("building y"):
        raise LocalKubeError("no")
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "[2/5] building [x], about 1:01",
        "building y",
        "building y: failed after 0:00",
    ]


@pytest.mark.parametrize(
    ("error", "status", "reported"),
    [
        (LocalKubeError("no room"), 1, "hack/x: no room"),
        (OSError(28, "No space left on device", "/tmp/a"), 1, r"hack/x: the system reports: No space left on device \(/tmp/a\)"),
        (KeyboardInterrupt(), 130, "hack/x: interrupted; .*"),
    ],
    ids=["error", "machine", "interrupted"],
)
def test_a_command_ends_with_one_sentence(error: BaseException, status: int, reported: str, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise error

    assert guarded("hack/x", work) == status
    assert re.fullmatch(reported + "\n", capsys.readouterr().err)
