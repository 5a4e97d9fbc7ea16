"""What a person sees of the demo: a table that lives on a terminal, plain lines elsewhere, and at the end what it came to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from localkube.figures import clock
from outside.ledger import Ledger
from wabiz_sim.gatewaylog import Totals

PLAIN_WIDTH = 140
VENDOR_RESHARD = "45-60 s"
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
        table = Table("", "step", "time", "vendor", "what happened", box=box.SIMPLE_HEAD)
        table.columns[0].width = 2
        _to_the_right(table, 2, 3)
        for step in self._steps:
            mark = self._spinner if step.state == "running" else MARKS[step.state]
            table.add_row(mark, escape(step.what), _time(step), step.vendor, escape(step.note), style=STYLES[step.state])
        return Group(table, Text(f"  {self._below()}", style="dim"))


def summary(steps: Sequence[Step]) -> Table:
    """The measured times next to the vendor's."""
    table = Table("step", "measured", "vendor", "which is", box=box.SIMPLE_HEAD, title="What it took", title_justify="left")
    _to_the_right(table, 1, 2)
    for step in steps:
        table.add_row(escape(step.what), "-" if step.seconds is None else clock(step.seconds), step.vendor or "-", escape(step.meaning))
    return table


def show(figures: Mapping[str, Any], out: Console) -> None:
    """Print the summary of a demo: made of its figures alone, so that a file of them gives the same text."""
    steps = [Step(one["name"], one["what"], one["vendor"], one["means"], one["seconds"]) for one in figures["steps"]]
    out.print(summary(steps))
    if figures["messages"] is not None:
        out.print(f"Messages: {ledger_of(figures['messages'])}.", highlight=False)
    if figures["two_holders"] is not None:
        out.print(
            f"Two active holders of one shard: seen {sum(figures['two_holders'].values())} times (by a watcher from outside, in the log of "
            "the WhatsApp servers, by every lookup of a shard).",
            highlight=False,
        )
    out.print(
        f"The client is a simulator whose restart is shortened to {figures['restart_seconds']:g} s (the vendor's Coreapps take "
        f"{VENDOR_RESHARD}); it sends nothing to WhatsApp.",
        highlight=False,
    )


def ledger_of(messages: Mapping[str, Any]) -> Ledger:
    """The ledger that a file holds. LedgerError when its sums do not agree."""
    counts = {name: value for name, value in messages.items() if name not in {"totals", "slowest"}}
    return Ledger(**counts, totals=Totals(**messages["totals"]))


def _to_the_right(table: Table, *numbers: int) -> None:
    for number in numbers:
        table.columns[number].justify, table.columns[number].no_wrap = "right", True


def _time(step: Step) -> str:
    if step.seconds is not None:
        return clock(step.seconds)
    return f"{time.monotonic() - step.begun:.1f} s" if step.begun is not None and not step.failed else ""
