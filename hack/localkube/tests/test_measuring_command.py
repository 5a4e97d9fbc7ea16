"""What commands that measure have in common: the exit status, the sentences, the file."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localkube.errors import LocalKubeError
from localkube.scenarios.command import Command


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield Command("hack/x", ["--n", "1"], root=tmp_path)
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def raises(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "status", "said"),
    [
        (lambda: None, 0, ""),
        (lambda: 3, 3, ""),
        (raises(LocalKubeError("no cluster")), 1, "hack/x: no cluster\n"),
        (raises(ExceptionGroup("both", [ExceptionGroup("one", [OSError(2, "gone")])])), 1, "hack/x: the system reports: gone\n"),
        (raises(KeyboardInterrupt()), 130, "hack/x: interrupted; all that was started has been ended\n"),
    ],
)
def test_the_end_of_the_work_is_the_exit_status_and_one_sentence(
    command: Command, work: Callable[[], int | None], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(work) == status
    assert capsys.readouterr().err == said


def test_a_fault_of_the_program_is_not_taken_for_one_of_the_work(command: Command) -> None:
    with pytest.raises(ZeroDivisionError):
        command.run(raises(ZeroDivisionError()))


def test_sigterm_ends_the_work_as_an_interrupt_does(command: Command) -> None:
    assert command.run(lambda: signal.raise_signal(signal.SIGTERM)) == 130


@pytest.mark.parametrize(("complaints", "before", "status"), [([], 0, 0), (["too slow"], 0, 1), (["too slow"], 130, 130), ([], 1, 1)])
def test_figures_are_written_with_where_they_come_from(
    command: Command, complaints: list[str], before: int, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "build" / "x.json"
    assert (
        command.write(path, {"n": 1}, complaints, block=lambda made: f"# {made['n']} of {made['run']['command']}", status=before) == status
    )
    written = json.loads(path.read_text(encoding="utf-8"))
    assert (written["n"], written["complaints"], written["run"]["command"]) == (1, complaints, "hack/x --n 1")
    said = capsys.readouterr()
    assert said.err == "".join(f"hack/x: {text}\n" for text in complaints)
    assert "1 of hack/x --n 1" in said.out
