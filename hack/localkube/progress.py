"""What a person sees while something takes minutes: a line that counts on a terminal, one line per step elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn


def to_stderr(line: str) -> None:
    """One line on standard error, at once."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(text: str, *, number: int = 1, of: int = 1, expected_s: float | None = None) -> Iterator[None]:
    """One step of several: on a terminal a line that counts while it runs, elsewhere only its begin and its failure are reported."""
    begun, text = time.monotonic(), f"[{number}/{of}] {text}" if of > 1 else text
    expected = f"about {clock(expected_s)}" if expected_s else ""
    on_terminal = sys.stderr.isatty()
    columns = TextColumn("{task.description}", markup=False), TimeElapsedColumn(), TextColumn(expected and f"of {expected}")
    if not on_terminal:
        to_stderr(f"{text}{expected and ', '}{expected}")
    result = "failed"
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True, disable=not on_terminal) as shown:
            shown.add_task(text, total=None)
            yield
        result = "done"
    except KeyboardInterrupt:
        result = "interrupted; the next run goes on from there,"
        raise
    finally:
        if on_terminal or result != "done":
            to_stderr(f"{text}: {result} after {clock(time.monotonic() - begun)}")


def clock(seconds: float) -> str:
    """Seconds as m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
