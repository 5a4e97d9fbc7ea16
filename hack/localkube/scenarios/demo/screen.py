"""What a person sees of the demo while it runs: a table that lives on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Column, Table
from rich.text import Text

from localkube.figures import clock

PLAIN_WIDTH = 140
STYLES = {"waiting": "dim", "running": "bold", "done": "", "failed": "red"}
MARKS = {"waiting": " ", "done": "[green]✓[/]", "failed": "[red]✗[/]"}


@dataclass
class Step:
    """One step of the demo and how it went. Times in seconds."""

    name: str
    what: str  # in one line, for people
    vendor: str = ""  # what the vendor's documentation says of it, such as ``35 s``
    meaning: str = ""  # what the measured time is
    seconds: float | None = None
    note: str = ""
    begun: float | None = None  # ``time.monotonic()``: of the step, and as soon as it is known of what is measured
    failed: bool = False
    details: dict[str, object] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """``waiting``, ``running``, ``done`` or ``failed``."""
        if self.failed:
            return "failed"
        return "done" if self.seconds is not None else "running" if self.begun is not None else "waiting"


class Screen:
    """Shows steps. On a terminal one table that changes, elsewhere a line when a step begins and one when it ends."""

    def __init__(self, console: Console, steps: Sequence[Step], *, below: Callable[[], str] = lambda: "") -> None:
        """``below`` gives the line under the table, such as the messages so far."""
        self._console, self._steps, self._below = console, steps, below
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=8, redirect_stderr=False, redirect_stdout=False)

    def __enter__(self) -> Screen:
        """Begin to show."""
        if self._console.is_terminal:
            self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last state on the screen."""
        if self._console.is_terminal:
            self._live.stop()

    @contextmanager
    def running(self, step: Step) -> Iterator[Step]:
        """Show that a step runs until the block ends, in which ``seconds`` and ``note`` are set."""
        step.begun = time.monotonic()
        self._print(f"... {step.what}")
        try:
            yield step
        except BaseException:
            step.failed = True
            self._print(f"    failed after {clock(time.monotonic() - step.begun)}")
            raise
        vendor = f" (vendor: {step.vendor})" if step.vendor else ""
        self._print(f"    {clock(step.seconds or 0.0)} {step.meaning}{vendor}{'; ' if step.note else ''}{step.note}")

    def _print(self, line: str) -> None:
        if not self._console.is_terminal:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        right = (Column(name, justify="right", no_wrap=True) for name in ("time", "vendor"))
        table = Table(Column(width=2), "step", *right, "what happened", box=box.SIMPLE_HEAD)
        for step in self._steps:
            mark = self._spinner if step.state == "running" else MARKS[step.state]
            table.add_row(mark, escape(step.what), _time(step), step.vendor, escape(step.note), style=STYLES[step.state])
        return Group(table, Text(f"  {self._below()}", style="dim"))


def _time(step: Step) -> str:
    if step.seconds is not None:
        return clock(step.seconds)
    return f"{time.monotonic() - step.begun:.1f} s" if step.begun is not None and not step.failed else ""
