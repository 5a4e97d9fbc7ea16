"""What a person sees while something takes minutes: a line that counts on a terminal, one line per step elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Report = Callable[[str], None]


def to_stderr(line: str) -> None:
    """The usual ``Report``: one line on standard error, at once."""
    print(line, file=sys.stderr, flush=True)


def quiet(line: str) -> None:
    """A ``Report`` for those who do not want one."""


@contextlib.contextmanager
def step(text: str, report: Report, *, number: int = 1, of: int = 1, expected_s: float | None = None) -> Iterator[Callable[[], None]]:
    """One step of several. Yields what to call while it runs: on a terminal that redraws its line.

    Elsewhere only its begin and its failure are reported.
    """
    begun, text = time.monotonic(), f"[{number}/{of}] {text}"
    expected = f"about {clock(expected_s)}" if expected_s else ""
    terminal = sys.stderr if report is to_stderr and sys.stderr.isatty() else None

    def tick() -> None:
        if terminal is not None:
            terminal.write(f"\r\x1b[K{text}  {clock(time.monotonic() - begun)}{expected and ' of '}{expected}")
            terminal.flush()

    if terminal is None:
        report(f"{text}{expected and ', '}{expected}")
    result = "failed"
    try:
        yield tick
        result = "done"
    except KeyboardInterrupt:
        result = "interrupted; the next run goes on from there,"
        raise
    finally:
        if terminal is not None:
            terminal.write("\r\x1b[K")
        if terminal is not None or result != "done":
            report(f"{text}: {result} after {clock(time.monotonic() - begun)}")


def clock(seconds: float) -> str:
    """Seconds as m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
