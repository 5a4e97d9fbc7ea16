"""What a demo came to, as people read it: made of its figures alone, so that a file of them gives the same text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from localkube.scenarios.demo.screen import Step, summary
from outside.ledger import Ledger
from wabiz_sim.gatewaylog import Totals

VENDOR_RESHARD = "45-60 s"


def show(figures: Mapping[str, Any], out: Console) -> None:
    """Print the summary of a demo's figures."""
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
