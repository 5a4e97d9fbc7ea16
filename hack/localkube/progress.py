"""What a person sees while something takes minutes: a line that counts on a terminal, one line per step elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

Report = Callable[[str], None]


def to_stderr(line: str) -> None:
    """The usual ``Report``: one line on standard error, at once."""
    print(line, file=sys.stderr, flush=True)


def quiet(line: str) -> None:
    """A ``Report`` for those who do not want one."""


class Step:
    """One step of several. Call ``tick`` while it runs; on a terminal that redraws its line, elsewhere only begin and end are said."""

    def __init__(self, text: str, *, number: int, of: int, expected_s: float | None, report: Report, terminal: TextIO | None) -> None:
        self._text = f"[{number}/{of}] {text}"
        self._expected = f" of about {clock(expected_s)}" if expected_s else ""
        self._report, self._terminal = report, terminal
        self._begun = time.monotonic()
        if terminal is None:
            report(self._text + (f", about {clock(expected_s)}" if expected_s else ""))

    @property
    def seconds(self) -> float:
        """Time since it began."""
        return time.monotonic() - self._begun

    def tick(self) -> None:
        """Say how far it is."""
        if self._terminal is not None:
            self._terminal.write(f"\r\x1b[K{self._text}  {clock(self.seconds)}{self._expected}")
            self._terminal.flush()

    def end(self, result: str) -> None:
        """Say how it ended: ``done`` or a reason."""
        if self._terminal is not None:
            self._terminal.write("\r\x1b[K")
            self._terminal.flush()
            self._report(f"{self._text}: {result} after {clock(self.seconds)}")
        elif result != "done":
            self._report(f"{self._text}: {result}")


def terminal_of(report: Report) -> TextIO | None:
    """Standard error if ``report`` goes there and a person watches it, else None."""
    return sys.stderr if report is to_stderr and sys.stderr.isatty() else None


def clock(seconds: float | None) -> str:
    """Seconds as m:ss."""
    minutes, rest = divmod(round(seconds or 0), 60)
    return f"{minutes}:{rest:02d}"
