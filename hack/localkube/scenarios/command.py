"""What every command that measures has in common: its provenance, its end by a signal, its exit status, its file of figures."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from localkube import Obj
from localkube.errors import guarded
from localkube.files import write_json
from localkube.progress import to_stderr
from localkube.provenance import Provenance
from localkube.scenarios.harness import end_by_any_signal

WIDTH = 240  # columns of the output where it is no terminal


class Command:
    """One run of a command. Made when it begins, so that commit, date and load are those of the beginning."""

    def __init__(self, program: str, argv: Sequence[str], *, root: Path) -> None:
        """``program``: such as ``hack/chaos``; ``argv``: its arguments; ``root``: the repository."""
        self.program = program
        self.root = root
        self.console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
        self.provenance = Provenance(root, program, argv)
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begun

    def run(self, work: Callable[[], int | None]) -> int:
        """Do the work, which cleans up after itself; SIGTERM and SIGHUP end it as Ctrl-C does.

        Returns what it returns (0 if None), 1 after one sentence on standard error, 130 after a signal.
        """
        end_by_any_signal()
        return guarded(self.program, lambda: work() or 0, interrupted="all that was started has been ended")

    def write(
        self, path: Path, figures: Mapping[str, Any], complaints: Sequence[str], *, block: Callable[[Obj], str], status: int = 0
    ) -> int:
        """Write the figures with where they come from, print them as the documents show them (``block``), and say the complaints.

        Returns ``status``, or 1 if that is 0 and there are complaints.
        """
        run = self.provenance.of_run()
        write_json(path, {"run": run, "complaints": list(complaints), **figures})
        self.console.print(Markdown(block({"run": run, **figures})))
        self.console.print(f"figures in {path}", soft_wrap=True)
        for text in complaints:
            to_stderr(f"{self.program}: {text}")
        return status or bool(complaints)
